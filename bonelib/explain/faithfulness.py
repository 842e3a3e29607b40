"""Whether the score of a model depends on the pixels that a heat map marks.

Deletion and insertion: RISE, Petsiuk et al. 2018, arXiv:1806.07421.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from bonelib.explain.localisation import LEFT_OUT, random_maps
from bonelib.explain.maps import Target
from bonelib.explain.passes import Column, asked, explaining, scored


def deletion_insertion(
    model: nn.Module, loader: Any, maps: np.ndarray, *, target: Target = 0, steps: int = 16
) -> pd.DataFrame:
    """Return the areas under the deletion and the insertion curve, one row per image.

    Deletion blurs the pixels (sigma a sixteenth of the side) from the strongest of the map on;
    insertion restores a blurred image in that order. A faithful map has a lower ``deletion`` and a
    higher ``insertion`` than `random_maps`. Unlike black, blur draws no edges: they are evidence.

    Args:
        model: Maps images to logits ``(B, C)``.
        loader: Batches in contract form, in the order of the maps.
        maps: ``(N, H, W)`` in the size of the images. Pixels that tie, all of a blank map, go in
            the order of one smooth random map, the same for all images.
        target: As of `grad_cam`. A column is followed as a probability (sigmoid of a single output,
            else softmax), -1 as the class that is highest on the untouched image, a function of one
            row as its own value (for a regression, or cosines).
        steps: From nothing to the whole image; each costs two passes.

    Returns:
        ``deletion``, ``insertion`` (over the share of pixels) and ``left_out``: a map that is not
        finite has no scores. Maps or targets that don't fit images or logits are refused.
    """
    from torchvision.transforms.functional import gaussian_blur

    areas = []
    with explaining(model):
        for image, heat, columns in paired(model, loader, np.asarray(maps), target):
            if heat.shape != (len(image), *image.shape[2:]):
                raise ValueError(f"Maps {heat.shape} do not fit images {tuple(image.shape)}.")
            sigma = max(image.shape[2:]) / 16
            blurred = gaussian_blur(image, [2 * int(np.ceil(3 * sigma)) + 1] * 2, [sigma] * 2)
            before = torch.from_numpy(_ranks(heat)).to(image.device)[:, None]
            curves = np.empty((2, steps + 1, len(image)))
            curves[0, 0], columns = said(model(image), columns)
            curves[1, 0], _ = said(model(blurred), columns)
            curves[:, -1] = curves[::-1, 0]  # all is deleted where nothing is inserted
            for step in range(1, steps):
                for way, (new, old) in enumerate([(blurred, image), (image, blurred)]):
                    shown = torch.where(before < step / steps, new, old)
                    curves[way, step], _ = said(model(shown), columns)
            areas.append(np.trapezoid(curves, dx=1 / steps, axis=1))
    finite = np.isfinite(maps).all(axis=(1, 2))
    found = np.where(finite, np.concatenate(areas, axis=1), np.nan)
    reason = np.where(finite, "", "map is not finite")
    return pd.DataFrame({"deletion": found[0], "insertion": found[1], LEFT_OUT: reason})


def _ranks(maps: np.ndarray) -> np.ndarray:
    """Return the share of pixels that come before each, from the strongest on."""
    height, width = maps.shape[1:]
    noise = random_maps(1, max(height, width), seed=0)[0, :height, :width]
    mixed, ranks = np.argsort(noise, axis=None), np.empty((len(maps), height * width))
    for heat, rank in zip(maps.reshape(ranks.shape), ranks, strict=True):
        rank[mixed[np.argsort(-heat[mixed], kind="stable")]] = np.arange(len(rank)) / len(rank)
    return ranks.reshape(maps.shape)


# ---------------------------------------------------------------------- what is said of a target
def paired(model: nn.Module, loader: Any, others: Any, target: Target) -> Iterator[tuple]:
    """Yield the images of each batch, the maps or masks that belong to them, and their targets."""
    done = 0
    for image, columns in asked(model, loader, target):
        own, done = others[done : done + len(image)], done + len(image)
        if len(own) == len(image):
            yield image, own, columns
    if done != len(others):
        raise ValueError(f"{len(others)} maps or masks for {done} images.")


def said(logits: Tensor, columns: list[Column]) -> tuple[np.ndarray, list[Column]]:
    """Return the score ``(B,)`` of each image's target, and the targets with the highest for -1."""
    wrong = [c for c in columns if not callable(c) and not -1 <= c < logits.shape[1]]
    if wrong:
        raise ValueError(f"The targets {wrong[:5]} are no columns of {logits.shape[1]}.")
    values, columns = scored(logits.float(), columns)
    shares = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
    rows = zip(columns, values, shares, strict=True)
    return np.array([float(v if callable(c) else share[int(c)]) for c, v, share in rows]), columns
