"""Prompt-scored crops: a grid of windows, those that look like a lesion, and whether they hold it.

After zero-shot CLIP for interstitial lung disease, arXiv:2306.01111, where prompts pick the patches
that are classified.
"""

from collections.abc import Iterable, Iterator

import numpy as np

CELLS = (2, 3)  # how often a window of each scale goes into a side


def grid(size: int) -> np.ndarray:
    """Return windows ``(B, 3)`` of a square image: top, left and side, in pixels.

    At each scale a window is ``size / cells`` wide, and a row has one more than fits side by side,
    so that neighbours overlap: 25 in all.
    """
    boxes = []
    for cells in CELLS:
        side = round(size / cells)
        steps = np.linspace(0, size - side, cells + 1).round().astype(int)
        boxes += [(top, left, side) for top in steps for left in steps]
    return np.array(boxes)


def cut(batches: Iterable[dict], boxes: np.ndarray) -> Iterator[dict]:
    """Yield the windows of each image of a loader as a batch, enlarged to the image's size."""
    import torch
    from torch.nn.functional import interpolate

    for batch in batches:
        for image in batch["image"]:
            parts = [image[None, :, y : y + side, x : x + side] for y, x, side in boxes.tolist()]
            size = dict(size=image.shape[-2:], mode="bilinear", align_corners=False)
            yield {"image": torch.cat([interpolate(part, **size) for part in parts])}


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the windows of the highest scores, ``(N, B)`` to ``(N, count)``, the best first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def heat(scores: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """Return maps ``(N, size, size)``: at each pixel the mean score of the windows that hold it."""
    inside = np.zeros((len(boxes), size, size), np.float32)
    for window, (top, left, side) in zip(inside, boxes, strict=True):
        window[top : top + side, left : left + side] = 1
    return np.einsum("nb,bhw->nhw", scores, inside) / inside.sum(axis=0)


def hits(boxes: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Tell which windows hit the lesion: bool ``(N, B)``.

    A hit holds at least half of the lesion, or lies in it by at least half, so that neither a
    large window nor a large lesion is at an advantage.

    Args:
        masks: ``(N, S, S)`` bool, none empty.
    """
    sums = np.pad(masks.astype(np.int64).cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))
    top, left, side = boxes.T
    low, right = top + side, left + side
    held = sums[:, low, right] - sums[:, top, right] - sums[:, low, left] + sums[:, top, left]
    smaller = np.minimum(masks.sum(axis=(1, 2))[:, None], side**2)
    return 2 * held >= smaller


def baselines(boxes: np.ndarray, masks: np.ndarray, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Return what windows that no prompt chose would hit, at the sizes of those chosen: ``(N, k)``.

    ``random``: the mean over all windows of that size, the expectation of a random draw.
    ``central``: the window of that size in the middle of the image.

    Args:
        chosen: ``(N, k)`` of `best`.
    """
    sides, scale = np.unique(boxes[:, 2], return_inverse=True)
    hit, corner = hits(boxes, masks), (masks.shape[1] - sides) // 2
    by_scale = {
        "random": np.stack([hit[:, scale == k].mean(axis=1) for k in range(len(sides))], axis=1),
        "central": hits(np.column_stack([corner, corner, sides]), masks).astype(float),
    }
    return {
        name: np.take_along_axis(rates, scale[chosen], axis=1) for name, rates in by_scale.items()
    }
