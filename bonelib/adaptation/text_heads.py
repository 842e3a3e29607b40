"""Heads whose class vectors are texts: moved from them (TaskRes, CLAP), or fixed (class texts).

Unit features of images and of class prompts come in; scaled cosines go out. Every strategy fits all
masks and points at once, for a number of steps that is fixed in advance: no epoch is chosen.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bonelib.adaptation import adapters, descent
from bonelib.adaptation.descent import Batch
from bonelib.adaptation.support import Point, Support, never_winning

STEPS = {"taskres": 100, "clap": 300, "class_text": 100}
CLAMP = math.log(100)  # of the learnt logarithm of the scale, as in CLIP


@dataclass(frozen=True)
class CosineHeads:
    """Heads that are scaled cosines with class vectors.

    Attributes:
        vectors: ``(K, P, C, D)``, of length 1.
        scale: Factor on the cosines.
        present: ``(K, C)`` bool, the classes of which each mask has a row.
    """

    vectors: Tensor
    scale: float
    present: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return ``(K, P, M, C)``; absent classes never win."""
        k, p, c, d = self.vectors.shape
        with descent.one_thread():
            x = descent.unit(features)
            out = (self.scale * x @ self.vectors.reshape(-1, d).T).view(len(x), k, p, c)
            return never_winning(out.permute(1, 2, 0, 3).numpy(), self.present)


def taskres(support: Support, rows: np.ndarray, points: Sequence[Point]) -> CosineHeads:
    """Fit TaskRes: a residual is added to each class text, ``w_c = t_c + alpha x_c``.

    Yu et al. 2023, arXiv:2211.10277: ``s cos(f, w_c)``, cross-entropy, Adam at .002 with L2 of
    5e-4, 100 epochs of batches of 256, cosine. With ``separation`` the class-separation loss of
    QPMIL-VL (arXiv:2410.10573) is added, that much times ``mean over i != j of 1 + cos(w_i, w_j)``.
    Departures: no warm-up; the texts have length 1 where CLIP's have about 10 (recalled), so that
    its residual of .5 is .05 here; more than 256 rows take as many steps as few.
    """
    targets = descent.class_targets(support, rows, "taskres")
    given = descent.by_name(points, alpha=0.05, separation=0.0, rate=2e-3)
    alpha = given["alpha"].view(-1, 1, 1)
    with descent.one_thread():
        texts, x = torch.from_numpy(support.texts).float(), descent.unit(support.features)
        parts = descent.batches(rows, x, targets, seed=support.seed)
        residuals = torch.zeros(len(rows), len(points), *texts.shape)
        moved = _by_vectors(support.scale, given["separation"])

        def gradient(parameters: list[Tensor], batch: Batch) -> list[Tensor]:
            (residual,) = parameters
            found = moved(torch.addcmul(texts, residual, alpha), batch)
            return [torch.addcmul(5e-4 * residual, found, alpha)]

        descent.descend([residuals], gradient, parts, rates=given["rate"], steps=STEPS["taskres"])
        vectors = torch.nn.functional.normalize(texts + alpha * residuals, dim=-1)
    return CosineHeads(vectors, support.scale, support.present(rows))


def clap(support: Support, rows: np.ndarray, points: Sequence[Point]) -> CosineHeads:
    """Fit CLAP: a linear probe that starts at the texts and is held near them, class by class.

    Silva-Rodriguez et al. 2024, arXiv:2312.12730: ``s cos(f, w_c)``, cross-entropy plus the mean
    over classes of ``lambda_c |w_c - t_c|^2``, where lambda_c is the mean zero-shot probability of
    class c over its own shots: a text that knows its class is trusted. SGD at .1 with momentum .9,
    300 epochs of batches of 256, cosine. ``constraint`` multiplies it; 0 is the ZS-LP of the paper.
    Departures: no augmented views, no warm-up; the texts have length 1 where CLIP's have about 10
    (recalled), so that its rate of .1 is .001 here and its constraint of 1 is 100; more than 256
    rows take as many steps as few. With few rows the steps run in the span of the images and
    the texts, which they never leave: the same steps in fewer columns.
    """
    targets = descent.class_targets(support, rows, "clap")
    given = descent.by_name(points, rate=1e-3, constraint=100.0)
    with descent.one_thread():
        texts, x = torch.from_numpy(support.texts).float(), descent.unit(support.features)
        pull = given["constraint"].view(-1, 1, 1) * multipliers(x, texts, targets, rows, support)
        pull = pull * (2 / support.classes)
        used = x[torch.from_numpy(rows.any(axis=0))]
        basis = None
        if 2 * (len(used) + len(texts)) < x.shape[1]:
            basis = torch.linalg.qr(torch.cat([texts, used]).T)[0]  # (D, r)
            x, texts = x @ basis, texts @ basis
        parts = descent.batches(rows, x, targets, seed=support.seed)
        vectors = texts.expand(len(rows), len(points), -1, -1).clone()
        moved = _by_vectors(support.scale)

        def gradient(parameters: list[Tensor], batch: Batch) -> list[Tensor]:
            (w,) = parameters
            return [moved(w, batch).addcmul_(pull[batch.masks], w - texts)]

        descent.descend(
            [vectors], gradient, parts, rates=given["rate"], steps=STEPS["clap"], kind="sgd"
        )
        vectors = torch.nn.functional.normalize(vectors, dim=-1)
        vectors = vectors if basis is None else vectors @ basis.T
    return CosineHeads(vectors, support.scale, support.present(rows))


def multipliers(
    x: Tensor, texts: Tensor, targets: Tensor, rows: np.ndarray, support: Support
) -> Tensor:
    """Return CLAP's lambda ``(K, 1, C, 1)``: each class's mean zero-shot probability in a mask."""
    own = (support.scale * x @ texts.T).softmax(dim=1) * targets  # (N, C), of the true class
    masks = torch.from_numpy(rows.astype(np.float32))
    return ((masks @ own) / (masks @ targets).clamp(min=1))[:, None, :, None]


def _by_vectors(
    scale: float, separation: Tensor | None = None
) -> Callable[[Tensor, Batch], Tensor]:
    """Return the gradient of the cross-entropy (and separation) by class vectors (K, P, C, D)."""
    apart = separation is not None and bool(separation.any())

    def gradient(vectors: Tensor, batch: Batch) -> Tensor:
        k, p, c, d = vectors.shape
        norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
        units = vectors / norms
        out = torch.bmm(batch.features, units.view(k, p * c, d).transpose(1, 2)).mul_(scale)
        rest = descent.residual(out.view(k, -1, p, c), batch).mul_(scale)
        found = torch.bmm(rest.view(k, -1, p * c).transpose(1, 2), batch.features)
        found = found.view(k, p, c, d)
        if apart:  # of 1 + (|sum of units|^2 - C) / (C (C - 1)); what is along a unit goes below
            found += (2 / (c * (c - 1)) * separation).view(-1, 1, 1) * units.sum(2, keepdim=True)
        along = (found * units).sum(dim=-1, keepdim=True)
        return found.addcmul_(along, units, value=-1).div_(norms)

    return gradient


@dataclass(frozen=True)
class ClassTextHeads:
    """Projections of images into a space where the class vectors are fixed.

    Attributes:
        plane: ``(K, D, r)``, the directions of the features that are projected.
        weights: ``(K, P, r, r)``. bias: ``(K, P, r)``. scale: ``(K, P)``, its logarithm.
        vectors: ``(C, r)``, of length 1.
        present: ``(K, C)`` bool.
    """

    plane: Tensor
    weights: Tensor
    bias: Tensor
    scale: Tensor
    vectors: Tensor
    present: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return ``(K, P, M, C)``; absent classes never win."""
        with descent.one_thread():
            z = descent.unit(features) @ self.plane  # (K, M, r)
            out = _class_text_logits([self.weights, self.bias, self.scale], z, self.vectors)
            return never_winning(out.numpy(), self.present)


def class_text(
    support: Support, rows: np.ndarray, points: Sequence[Point], *, random: bool = False
) -> ClassTextHeads:
    """Fit Liver-VLM's head: a layer moves images towards fixed vectors of the class texts.

    Song et al. 2025, arXiv:2505.03350: ``exp(tau) cos(W f + b, t_c)``, cross-entropy, texts frozen
    and computed once; tau is not published and is learnt as in CLIP (1/.07 at first, at most 100).
    W starts at random and can turn the images any way, so all that it can learn of the texts is
    the angles between them. ``random`` is the control that the paper lacks: random class vectors of
    the same length in place of the texts; what then is lost is what the texts gave.
    Departures: W maps the leading ``adapters.DIRECTIONS`` directions of the images to as many; Adam
    and its grid are ours, since no settings are published.
    """
    targets = descent.class_targets(support, rows, "class_text", texts=not random)
    given = descent.by_name(points, rate=1e-3, decay=0.0)
    draw = torch.Generator().manual_seed(support.seed)
    with descent.one_thread():
        x = descent.unit(support.features)
        if random:
            texts = torch.randn(support.classes, x.shape[1], generator=draw)
            texts = torch.nn.functional.normalize(texts, dim=1)
        else:
            texts = torch.from_numpy(support.texts).float()
        plane = adapters.leading(rows, x, texts[:0], seed=support.seed)
        r = adapters.DIRECTIONS
        width = max(r, support.classes)
        # Only the angles of the texts matter: their coordinates in their own span.
        vectors = torch.nn.functional.pad(torch.linalg.qr(texts.T)[1].T, (0, width))[:, :width]
        size = len(rows), len(points)
        start = torch.randn(r, width, generator=draw) / math.sqrt(3 * r)
        weights = start.expand(*size, -1, -1).clone()
        bias = torch.zeros(*size, width)
        scale = torch.full(size, math.log(1 / 0.07))
        parts = descent.batches(rows, x @ plane, targets, seed=support.seed)

        def loss(parameters: list[Tensor], batch: Batch) -> Tensor:
            out = _class_text_logits(parameters, batch.features, vectors)
            return descent.cross_entropy(out.transpose(1, 2), batch)

        descent.descend(
            [weights, bias, scale],
            descent.by_autograd(loss),
            parts,
            rates=given["rate"],
            steps=STEPS["class_text"],
            decay=given["decay"],
        )
    return ClassTextHeads(plane, weights, bias, scale, vectors, support.present(rows))


def _class_text_logits(parameters: list[Tensor], z: Tensor, vectors: Tensor) -> Tensor:
    """Return ``(K, P, b, C)`` of coordinates ``(K, b, r)``."""
    weights, bias, scale = parameters
    placed = torch.nn.functional.normalize(z[:, None] @ weights + bias[:, :, None], dim=-1)
    return (placed @ vectors.T) * scale.clamp(max=CLAMP).exp()[..., None, None]
