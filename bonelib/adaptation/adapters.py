"""Adapters of the image features: a small change of each, before the cosine with the texts.

Both work in the leading directions of the training images and the class texts, where a change has
any rows to learn from; what lies across them passes unchanged. Published sizes (two layers of
1,280 x 320) cost 800,000 weights a fit; in 64 directions they cost 2,000 (CLIP-Adapter) or 4,096.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bonelib.adaptation import descent
from bonelib.adaptation.descent import Batch
from bonelib.adaptation.support import Point, Support, never_winning

DIRECTIONS = 64
REDUCTION = 4  # of the hidden layer, as published
STEPS = 300

Change = Callable[[list[Tensor], Tensor], Tensor]  # weights, (…, b, r) to a change of it


@dataclass(frozen=True)
class AdaptedHeads:
    """Cosines of changed image features with class texts.

    Attributes:
        plane: ``(K, D, r)``, the orthonormal directions of the change.
        texts: ``(C, D)`` unit rows.
        weights: What the change is made of, each ``(K, P, …)``.
        change: Gives it; a function of this module.
        kept, added: ``(P,)``, the shares of the feature itself and of its change.
        scale: Factor on the cosines.
        present: ``(K, C)`` bool.
    """

    plane: Tensor
    texts: Tensor
    weights: list[Tensor]
    change: Change
    kept: Tensor
    added: Tensor
    scale: float
    present: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return ``(K, P, M, C)``; absent classes never win."""
        with descent.one_thread():
            x = self.coordinates(descent.unit(features))
            out = self.adapted(self.weights, x, self.texts @ self.plane)
            return never_winning(out.numpy(), self.present)

    def coordinates(self, x: Tensor) -> Tensor:
        """Return ``(K, M, r + C)`` of unit features: along the plane, then their cosines."""
        cosines = (x @ self.texts.T).expand(len(self.plane), -1, -1)
        return torch.cat([x @ self.plane, cosines], dim=2)

    def adapted(self, weights: list[Tensor], x: Tensor, placed: Tensor) -> Tensor:
        """Return logits ``(K, P, b, C)`` of :meth:`coordinates`, texts placed at ``(K, C, r)``.

        The feature is ``kept f + added B a`` with the plane B and the change a, so that its
        product with a text and its length follow from those of f, without the D columns.
        """
        z, cosines = x[:, None].split([placed.shape[2], placed.shape[1]], dim=-1)
        kept = self.kept.view(-1, 1, 1)
        a = self.added.view(-1, 1, 1) * self.change(weights, z)
        products = kept * cosines + a @ placed.transpose(1, 2)[:, None]
        across = (z * a).sum(dim=-1, keepdim=True)
        square = kept**2 + 2 * kept * across + (a * a).sum(dim=-1, keepdim=True)
        return self.scale * products / square.clamp(min=1e-12).sqrt()


def clip_adapter(support: Support, rows: np.ndarray, points: Sequence[Point]) -> AdaptedHeads:
    """Fit CLIP-Adapter: two layers learn a change that is mixed with the image feature.

    Gao et al. 2024, arXiv:2110.04544: ``f' = a relu(W2 relu(W1 f)) + (1 - a) f`` with a hidden
    layer of a quarter, no biases, a = .2; then ``s cos(f', t_c)``, cross-entropy. Steps as in the
    code of ProLIP, which compares both: Adam with epsilon 1e-4, all rows in a step, 300 steps,
    cosine, rates and ratios in a grid.
    Departures: the layers see ``DIRECTIONS`` of the feature; more than 256 rows take batches.
    """
    targets = descent.class_targets(support, rows, "clip_adapter")
    given = descent.by_name(points, ratio=0.2, rate=1e-3)
    added, hidden = given["ratio"], DIRECTIONS // REDUCTION
    heads = _start(support, rows, two_layers, kept=1 - added, added=added)
    shapes = (DIRECTIONS, hidden), (hidden, DIRECTIONS)
    heads.weights.extend(descent.drawn(shapes, (len(rows), len(points)), seed=support.seed))
    # A direction that few rows don't fill is of length 0; relu leaves what starts at 0 there.
    heads.weights[1].mul_(heads.plane.square().sum(dim=1)[:, None, None] > 0.5)
    _fit(heads, support, rows, targets, given["rate"])
    return heads


def prolip(support: Support, rows: np.ndarray, points: Sequence[Point]) -> AdaptedHeads:
    """Fit ProLIP's regularised linear adapter: a matrix that starts as, and is held at, identity.

    Fahes et al. 2025, arXiv:2410.05270: ``s cos(W f, t_c)``, cross-entropy plus ``strength |W -
    1|^2``; Adam with epsilon 1e-4, all rows in a step, 300 steps, cosine. The paper's main form
    trains the projection of the tower itself; features behind it allow its variant "RLA".
    Departures: W moves ``DIRECTIONS`` of the feature; more than 256 rows take batches.
    """
    targets = descent.class_targets(support, rows, "prolip")
    given = descent.by_name(points, strength=0.1, rate=1e-3)
    ones = torch.ones(len(points))
    heads = _start(support, rows, matrix, kept=ones, added=ones)
    change = torch.zeros(len(rows), len(points), DIRECTIONS, DIRECTIONS)  # W - 1
    heads.weights.append(change)
    _fit(heads, support, rows, targets, given["rate"], given["strength"])
    return heads


def two_layers(weights: list[Tensor], z: Tensor) -> Tensor:
    """Return CLIP-Adapter's change of coordinates ``(…, b, r)``."""
    first, second = weights
    return torch.relu(torch.relu(z @ first) @ second)


def matrix(weights: list[Tensor], z: Tensor) -> Tensor:
    """Return ProLIP's change of coordinates ``(…, b, r)``."""
    return z @ weights[0]


def _start(
    support: Support, rows: np.ndarray, change: Change, *, kept: Tensor, added: Tensor
) -> AdaptedHeads:
    texts = torch.from_numpy(support.texts).float()
    with descent.one_thread():
        plane = leading(rows, descent.unit(support.features), texts, seed=support.seed)
    present = support.present(rows)
    return AdaptedHeads(plane, texts, [], change, kept, added, support.scale, present)


def _fit(
    heads: AdaptedHeads,
    support: Support,
    rows: np.ndarray,
    targets: Tensor,
    rates: Tensor,
    strength: Tensor | None = None,
) -> None:
    def loss(parameters: list[Tensor], batch: Batch) -> Tensor:
        out = heads.adapted(parameters, batch.features, placed[batch.masks])
        found = descent.cross_entropy(out.transpose(1, 2), batch)
        if strength is not None:
            found = found + strength * (parameters[0] ** 2).sum(dim=(2, 3))
        return found

    with descent.one_thread():
        placed = heads.texts @ heads.plane
        x = heads.coordinates(descent.unit(support.features))
        parts = descent.batches(rows, x, targets, seed=support.seed)
        gradient = descent.by_autograd(loss)
        descent.descend(heads.weights, gradient, parts, rates=rates, steps=STEPS, epsilon=1e-4)


def leading(rows: np.ndarray, x: Tensor, texts: Tensor, *, seed: int) -> Tensor:
    """Return ``(K, D, DIRECTIONS)``: the texts' span, then the leading directions of each mask.

    They are orthonormal; where few rows span fewer, the rest is 0. A mask's own rows alone decide:
    rows that are held out must be as strange to a head as those of a test.

    Raises:
        ValueError: There are more texts than directions.
    """
    from sklearn.utils.extmath import randomized_svd

    if len(texts) > DIRECTIONS:
        raise ValueError(
            f"{len(texts)} class texts, but adapters work in {DIRECTIONS} directions. Choose clap "
            "or taskres for so many classes."
        )
    span = torch.linalg.qr(texts.T)[0]  # (D, C)
    rest = x - (x @ span) @ span.T
    planes = torch.zeros(len(rows), x.shape[1], DIRECTIONS)
    for plane, mask in zip(planes, torch.from_numpy(rows), strict=True):
        own, first = rest[mask], span.shape[1]
        count = min(DIRECTIONS - first, *own.shape)
        _, sizes, found = randomized_svd(own.numpy(), count, random_state=seed)
        found = torch.from_numpy(found[sizes > 1e-5 * sizes.max(initial=0)])
        plane[:, :first], plane[:, first : first + len(found)] = span, found.T
    return planes
