"""CLIP-IT: each training image is paired with a text that was not written for it.

Unit features of images, and of texts about the same matter, come in. The label never chooses the
text. New images need none: what they would be paired with is predicted from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bonelib.adaptation import adapters, descent
from bonelib.adaptation.descent import Batch
from bonelib.adaptation.support import Point, Strategy, Support, never_winning

STEPS = 100


@dataclass(frozen=True)
class ClipItHeads:
    """A head of images, one of the texts that they predict, and a layer over both.

    Attributes:
        plane: ``(K, D, r)``, the images' directions. mean: ``(K, 1, r)`` of the coordinates along
            them. spread: ``(K, 1, 1)``, their standard deviation over all coordinates.
        weights: ``to_text (K, P, r, q)``, then ``(matrix, bias)`` of the image's head, the text's
            head and the layer over both.
        present: ``(K, C)`` bool.
    """

    plane: Tensor
    mean: Tensor
    spread: Tensor
    weights: list[Tensor]
    present: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return ``(K, P, M, C)``; absent classes never win."""
        with descent.one_thread():
            z = self.coordinates(descent.unit(features))
            return never_winning(_forward(self.weights, z[:, None])[0].numpy(), self.present)

    def coordinates(self, x: Tensor) -> Tensor:
        """Return coordinates ``(K, M, r)`` of unit features, with mean 0 and spread 1."""
        return (x @ self.plane - self.mean) / self.spread


def clip_it(bank: np.ndarray) -> Strategy:
    """Return the strategy that learns from images and texts paired by similarity alone.

    Karimian et al. 2025, arXiv:2504.16181: the text ``t`` of an image ``v`` is the one of the bank
    with the highest cosine; ``W v`` learns to stand in for it; the loss is ``CE(fc([fc_v(v),
    fc_t(W v)]), y) + agreement (1 - cos(W v, t))``; Adam at .001 with decay 1e-4, cosine.
    Departures: the towers are frozen (LoRA there); the official code puts a softmax before the
    cross-entropy, which is not reproduced; v and t are their ``adapters.DIRECTIONS`` leading
    coordinates; 100 steps of at most 256 rows. ``agreement`` 0 is the control without texts.

    Args:
        bank: ``(M, D)``, unit rows: features of sentences by the text tower of the dual encoder
            that made the image features. They may describe entities or signs, as long as they are
            written for no image of the task.
    """

    def strategy(support: Support, rows: np.ndarray, points: Sequence[Point]) -> ClipItHeads:
        targets = descent.class_targets(support, rows, "clip_it", texts=False)
        given = descent.by_name(points, agreement=1.0, rate=1e-3)
        if np.ndim(bank) != 2 or bank.shape[1] != support.features.shape[1] or not len(bank):
            raise ValueError(
                f"The bank of texts is {np.shape(bank)}; expected (M, {support.features.shape[1]}):"
                " unit features of sentences in the space of the image features."
            )
        with descent.one_thread():
            x, texts = descent.unit(support.features), descent.unit(bank)
            paired = texts[nearest(x, texts)]
            plane = adapters.leading(rows, x, texts[:0], seed=support.seed)
            masks = torch.from_numpy(rows / rows.sum(axis=1, keepdims=True)).float()
            mean = (masks @ x)[:, None] @ plane
            square = masks[:, None] @ (x @ plane - mean) ** 2  # (K, 1, r)
            spread = square.mean(dim=2, keepdim=True).sqrt().clamp(min=1e-6)
            everything = np.ones((1, len(texts)), dtype=bool)
            text_plane = adapters.leading(everything, texts, texts[:0], seed=support.seed)[0]
            size, c = (plane.shape[2], text_plane.shape[1]), support.classes
            shapes, fits = (size, (size[0], c), (size[1], c), (2 * c, c)), (len(rows), len(points))
            weights = descent.drawn(shapes, fits, seed=support.seed)
            weights += [torch.zeros(*fits, c) for _ in range(3)]
            heads = ClipItHeads(plane, mean, spread, weights, support.present(rows))

            def loss(parameters: list[Tensor], batch: Batch) -> Tensor:
                z, t = batch.features[:, None].split(size, dim=-1)
                out, text = _forward(parameters, z)
                cosine = (torch.nn.functional.normalize(text, dim=-1) * t).sum(dim=-1)
                apart = ((1 - cosine) * batch.weights[:, None, :, 0]).sum(dim=2)
                found = descent.cross_entropy(out.transpose(1, 2), batch)
                return found + given["agreement"] * apart

            placed = (paired @ text_plane).expand(len(rows), -1, -1)
            known = torch.cat([heads.coordinates(x), placed], dim=2)
            parts = descent.batches(rows, known, targets, seed=support.seed)
            options = dict(rates=given["rate"], steps=STEPS, decay=1e-4)
            descent.descend(weights, descent.by_autograd(loss), parts, **options)
        return heads

    return strategy


def nearest(x: Tensor, texts: Tensor) -> Tensor:
    """Return for each unit image feature the row of the text with the highest cosine."""
    return (x @ texts.T).argmax(dim=1)


def _forward(weights: list[Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits ``(K, P, b, C)`` and what stands in for the text, ``(K, P, b, q)``."""
    to_text, image, text, both, image_bias, text_bias, bias = weights
    stand_in = z @ to_text
    by_image = z @ image + image_bias[:, :, None]
    by_text = stand_in @ text + text_bias[:, :, None]
    return torch.cat([by_image, by_text], dim=-1) @ both + bias[:, :, None], stand_in
