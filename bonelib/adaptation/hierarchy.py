"""Classes as sums of entities: a head names the entity, its probabilities add up to a class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bonelib.adaptation import descent
from bonelib.adaptation.descent import Batch
from bonelib.adaptation.support import Point, Strategy, Support, never_winning

STEPS = 100


@dataclass(frozen=True)
class HierarchyHeads:
    """A linear head of entities whose probabilities are summed.

    Attributes:
        mean, deviation: ``(K, D)`` of the features.
        weights: ``(K, P, E, D)``. bias: ``(K, P, E)``.
        members: ``(C, E)``, 1 where an entity belongs to a class.
        known: ``(K, E)``, the entities that a mask can have learnt. present: ``(K, C)`` bool.
    """

    mean: Tensor
    deviation: Tensor
    weights: Tensor
    bias: Tensor
    members: Tensor
    known: Tensor
    present: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return log-probabilities ``(K, P, M, C)``; absent classes never win."""
        k, p, e, d = self.weights.shape
        with descent.one_thread():
            x = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
            weights = self.weights / self.deviation[:, None, None]
            bias = self.bias - (weights @ self.mean[:, None, :, None])[..., 0]
            out = (x @ weights.view(-1, d).T).view(len(x), k, p, e).permute(1, 2, 0, 3)
            out = out + bias[:, :, None] + _closed(self.known)[:, None, None]
            return never_winning(marginal(out, self.members).numpy(), self.present)


def hierarchy(entities: np.ndarray) -> Strategy:
    """Return the strategy that learns entities and sums their probabilities to classes.

    ``p(class) = sum of softmax(W z + b) over the entities of the class``; the loss is the negative
    logarithm of a row's entity, or of its class where the entity is not known. The coarse label is
    so a marginal of the fine one, and both are learnt by one head (after Deng et al. 2014, HEX
    graphs, and Redmon and Farhadi 2017, YOLO9000; both recalled). AdamW at .01, 100 steps of at
    most 256 rows, cosine; the decay is the point. Features are standardised over each mask.

    Args:
        entities: ``(N,)`` integers from 0, -1 where unknown, of the rows of the support that the
            strategy will get; each entity belongs to one class. A class none of whose rows has a
            known entity is an entity of its own.
    """
    entities = np.asarray(entities)

    def strategy(support: Support, rows: np.ndarray, points: Sequence[Point]) -> HierarchyHeads:
        classes = descent.class_targets(support, rows, "hierarchy", texts=False)
        given = descent.by_name(points, decay=0.1, rate=0.01)
        members = entity_classes(entities, np.asarray(support.labels), support.classes)
        allowed = classes @ members  # (N, E), all entities of a row's class
        fine = torch.from_numpy(entities >= 0)
        named = torch.from_numpy(entities.clip(0).astype(np.int64))
        allowed[fine] = torch.nn.functional.one_hot(named[fine], members.shape[1]).float()
        with descent.one_thread():
            x = torch.from_numpy(np.ascontiguousarray(support.features, dtype=np.float32))
            moments = [torch.std_mean(x[mask], dim=0, correction=0) for mask in rows]
            deviation, mean = (torch.stack(m) for m in zip(*moments, strict=True))
            deviation[deviation < 1e-6 * (1 + mean.abs())] = 1
            z = (x - mean[:, None]) / deviation[:, None]
            parts = descent.batches(rows, z, allowed, seed=support.seed)
            size = len(rows), len(points), members.shape[1]
            weights, bias = torch.zeros(*size, x.shape[1]), torch.zeros(*size)
            options = dict(rates=given["rate"], steps=STEPS, decay=given["decay"])
            descent.descend([weights, bias], _gradient, parts, **options)
        known, present = descent.seen(rows, allowed), support.present(rows)
        return HierarchyHeads(mean, deviation, weights, bias, members, known, present)

    return strategy


def entity_classes(entities: np.ndarray, labels: np.ndarray, classes: int) -> Tensor:
    """Return ``(C, E)``, 1 where an entity belongs to a class.

    Raises:
        ValueError: There are not as many entities as rows, or an entity has rows of two classes.
    """
    if len(entities) != len(labels):
        raise ValueError(
            f"{len(entities)} entities for {len(labels)} rows of the support. Pass one a row, -1 "
            "where it is not known."
        )
    members = np.zeros((classes, int(entities.max(initial=-1)) + 1), dtype=np.float32)
    members[labels[entities >= 0], entities[entities >= 0]] = 1
    split = np.flatnonzero(members.sum(axis=0) > 1)
    if len(split):
        raise ValueError(
            f"Entities {split.tolist()[:5]} have rows of several classes. Each entity must belong "
            "to one; mend the labels, or pass -1 for those rows."
        )
    alone = np.flatnonzero(members.sum(axis=1) == 0)
    own = np.zeros((classes, len(alone)), dtype=np.float32)
    own[alone, np.arange(len(alone))] = 1
    return torch.from_numpy(np.hstack([members, own]))


def marginal(logits: Tensor, members: Tensor) -> Tensor:
    """Return ``log p(class)``, the log-sum-exp over its entities of their log-probabilities.

    Args:
        logits: ``(..., E)`` of the entities, ``NEVER`` where one can't be.
        members: ``(C, E)`` of `entity_classes`.
    """
    share = logits.log_softmax(dim=-1)[..., None, :] + _closed(members > 0)
    return share.logsumexp(dim=-1)


def _gradient(parameters: list[Tensor], batch: Batch) -> list[Tensor]:
    weights, bias = parameters
    k, p, e, d = weights.shape
    out = torch.bmm(batch.features, weights.view(k, p * e, d).transpose(1, 2)).view(k, -1, p, e)
    out = (out + bias[:, None]).movedim(3, 0) + batch.bars
    within = (out + _closed(batch.targets > 0)).softmax(dim=0)  # of those that the row may be
    rest = (out.softmax(dim=0) - within).mul_(batch.weights).movedim(0, 3).contiguous()
    found = torch.bmm(rest.view(k, -1, p * e).transpose(1, 2), batch.features)
    return [found.view_as(weights), rest.sum(dim=1)]


def _closed(open_: Tensor) -> Tensor:
    """Return what is added to logits so that only the ``open_`` ones have a share."""
    return torch.where(open_, 0.0, descent.NEVER)
