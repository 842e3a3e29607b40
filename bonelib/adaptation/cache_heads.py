"""Tip-Adapter-F: a cache of the shots whose keys are learnt.

Unit features of images and of class prompts come in; the zero-shot logits plus those of the cache
go out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bonelib.adaptation import descent
from bonelib.adaptation.descent import Batch
from bonelib.adaptation.support import Point, Support, never_winning

KEYS = 16  # a class, the most shots that the paper gives a cache
STEPS = 20


@dataclass(frozen=True)
class CacheHeads:
    """Keys that vote for their classes, beside class texts.

    Attributes:
        texts: ``(C, D)`` unit rows.
        keys: ``(K, P, M, D)``.
        values: ``(K, M, C)``, the class of each key; 0 for padding.
        alpha, beta: ``(P,)``, weight and sharpness of the cache.
        scale: Factor on the cosines with the texts.
        present: ``(K, C)`` bool.
    """

    texts: Tensor
    keys: Tensor
    values: Tensor
    alpha: Tensor
    beta: Tensor
    scale: float
    present: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return ``(K, P, M, C)``; absent classes never win."""
        k, p, m, d = self.keys.shape
        with descent.one_thread():
            x = descent.unit(features)
            near = (x @ self.keys.reshape(-1, d).T).view(len(x), k, p, m).permute(1, 2, 0, 3)
            alpha, beta = self.alpha.view(-1, 1, 1), self.beta.view(-1, 1, 1)
            votes = torch.exp(beta * (near - 1)) @ self.values[:, None]
            out = self.scale * x @ self.texts.T + alpha * votes
            return never_winning(out.numpy(), self.present)


def tip_adapter_f(
    support: Support, rows: np.ndarray, points: Sequence[Point], *, steps: int = STEPS
) -> CacheHeads:
    """Fit Tip-Adapter-F: the keys start at the shots' features and are learnt.

    Zhang et al. 2022, arXiv:2111.03930: ``s f T' + alpha exp(-beta (1 - f K')) Y``, cross-entropy;
    AdamW at .001, decay .01 and epsilon 1e-4, cosine, 20 epochs of batches of 256. The official
    code takes the epoch that is best on the test set and reports the better of two scores there;
    that is not reproduced: the steps are fixed in advance, alpha and beta belong to the point.
    Departures: no augmented views. A class with more than ``KEYS`` rows has that many keys, each
    the mean of a part of them, as in the paper's study of cache sizes (recalled); all rows train.
    More than 256 rows take as many steps as few.

    Args:
        steps: With 0 the heads are Tip-Adapter's own, which learns nothing.
    """
    targets = descent.class_targets(support, rows, "tip_adapter_f")
    given = descent.by_name(points, alpha=1.0, beta=5.5, rate=1e-3)
    with descent.one_thread():
        x, texts = descent.unit(support.features), torch.from_numpy(support.texts).float()
        keys, values = cache(x, support.labels, rows, targets, seed=support.seed)
        keys = keys[:, None].repeat(1, len(points), 1, 1)
        form = given["alpha"], given["beta"], support.scale, support.present(rows)
        heads = CacheHeads(texts, keys, values, *form)
        if steps:
            known = torch.cat([x, support.scale * x @ texts.T], dim=1)
            parts = descent.batches(rows, known, targets, seed=support.seed)
            options = dict(rates=given["rate"], steps=steps, decay=0.01, epsilon=1e-4)
            descent.descend([keys], _by_keys(heads), parts, **options)
    return heads


def cache(
    x: Tensor, labels: np.ndarray, rows: np.ndarray, targets: Tensor, *, seed: int
) -> tuple[Tensor, Tensor]:
    """Return keys ``(K, M, D)`` and their classes ``(K, M, C)`` of each mask, padded with 0."""
    found, of = [], []
    for mask in rows:
        draw = np.random.default_rng(seed)
        parts = []
        for c in range(targets.shape[1]):
            own = draw.permutation(np.flatnonzero(mask & (np.asarray(labels) == c)))
            parts += np.array_split(own, min(KEYS, len(own))) if len(own) else []
        means = torch.stack([x[part].mean(dim=0) for part in parts])
        found.append(torch.nn.functional.normalize(means, dim=1))
        of.append(torch.stack([targets[part[0]] for part in parts]))
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(found, batch_first=True), pad(of, batch_first=True)


def _by_keys(heads: CacheHeads) -> descent.Gradient:
    """Return the gradient of the cross-entropy by the keys."""
    d = heads.keys.shape[-1]
    alpha, beta = heads.alpha.view(-1, 1), heads.beta.view(-1, 1)

    def gradient(parameters: list[Tensor], batch: Batch) -> list[Tensor]:
        (keys,) = parameters
        k, p, m, _ = keys.shape
        x, zero_shot = batch.features[..., :d], batch.features[..., None, d:]
        values = heads.values[batch.masks]  # (K, M, C)
        near = torch.bmm(x, keys.view(k, p * m, d).transpose(1, 2)).view(k, -1, p, m)
        votes = near.sub_(1).mul_(beta).exp_()  # (K, b, P, M)
        out = alpha * (votes.view(k, -1, m) @ values).view(k, -1, p, values.shape[2])
        rest = descent.residual(out + zero_shot, batch)
        pulled = (rest.view(k, -1, rest.shape[3]) @ values.transpose(1, 2)).view_as(votes)
        pulled = pulled.mul_(votes).mul_(alpha * beta)
        return [torch.bmm(pulled.view(k, -1, p * m).transpose(1, 2), x).view_as(keys)]

    return gradient
