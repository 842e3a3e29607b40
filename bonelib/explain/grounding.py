"""Whether a model's score depends on the lesion: it is hidden, and as much is hidden elsewhere.

A grounding audit after arXiv:2606.17710, for scores of classes. Inpainting: Bertalmio et al. 2001,
doi:10.1109/CVPR.2001.990497, as OpenCV has it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from bonelib.explain.faithfulness import paired, said
from bonelib.explain.localisation import LEFT_OUT, Masks
from bonelib.explain.maps import Target
from bonelib.explain.passes import explaining


def grounding(
    model: nn.Module,
    loader: Any,
    masks: Masks,
    *,
    target: Target = 0,
    patients: Sequence[Any],
    labels: Sequence[Any],
    seed: int = 0,
) -> pd.DataFrame:
    """Score each image as it is, with its lesion hidden, as much elsewhere, and one in its place.

    The mask, grown by 1/64 of the side since its rim tells of a lesion, is inpainted from around. A
    smooth patch may itself look like a lesion, so the same shape is hidden elsewhere too: inside
    the image, clear of the lesion, drawn by the seed among the twentieth of all places whose mean
    grey is closest to the lesion's, so that it lies in bone or soft parts and not in the air. It
    holds no more flat pixels, equal to all eight around them, than the lesion: padding is flat.

    Args:
        model: Maps images to logits ``(B, C)``.
        loader: Batches in contract form, in the order of the masks.
        masks: ``(N, H, W)`` bool in the pixels of the images, or one an image, None if missing.
        target: What is scored, as in `deletion_insertion`.
        patients: By image. Another patient's image of the same label is drawn by the seed.
        labels: By image; a missing label is like no other.

    Returns:
        The scores ``whole``, ``hidden``, ``elsewhere`` and ``swapped``; ``hidden_drop`` and
        ``elsewhere_drop`` from ``whole``; ``lesion_drop``, ``elsewhere`` - ``hidden``: above zero
        if the score depends on the lesion more than on any patch of its size; ``swap_change``, how
        far ``swapped`` is from ``whole``: what the score holds of this image beyond its label (the
        sign would average to nothing). What can't be had is NaN, and ``left_out`` says why. What
        does not fit the images in number or size is refused.
    """
    if not len(masks) == len(patients) == len(labels):
        raise ValueError(f"{len(masks)} masks, {len(patients)} patients, {len(labels)} labels.")
    rng, parts, reasons = np.random.default_rng(seed), [], []
    with explaining(model):
        for image, drawn, columns in paired(model, loader, masks, target):
            whole, columns = said(model(image), columns)
            pixels, found = image.float().cpu().numpy(), [whole]
            holes = [_holes(*one, rng) for one in zip(pixels, drawn, strict=True)]
            reasons += [reason for *_, reason in holes]
            for way in zip(*(masks for *masks, _ in holes), strict=True):
                shown = [_filled(p, hole) for p, hole in zip(pixels, way, strict=True)]
                value, _ = said(model(torch.from_numpy(np.stack(shown)).to(image.device)), columns)
                found.append(np.where([hole.any() for hole in way], value, np.nan))
            parts.append(found)
    whole, hidden, elsewhere = np.concatenate(parts, axis=1)
    partner = _partners(patients, labels, rng)
    found = {"whole": whole, "hidden": hidden, "elsewhere": elsewhere}
    found["swapped"] = np.where(partner < 0, np.nan, whole[partner])
    found |= {"hidden_drop": whole - hidden, "elsewhere_drop": whole - elsewhere}
    found |= {"lesion_drop": elsewhere - hidden, "swap_change": np.abs(whole - found["swapped"])}
    alone = np.where(partner < 0, "no other patient with the label", "")
    why = ["; ".join(filter(None, both)) for both in zip(reasons, alone, strict=True)]
    return pd.DataFrame(found | {LEFT_OUT: why})


def _holes(
    image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return masks of the lesion and of as much elsewhere, empty if there is none, and why."""
    from scipy.ndimage import binary_dilation, maximum_filter, minimum_filter
    from scipy.signal import correlate

    sides, nothing = image.shape[1:], np.zeros(image.shape[1:], bool)
    if mask is None or not np.any(mask):
        return nothing, nothing, "no mask" if mask is None else "empty mask"
    if np.shape(mask) != sides:
        raise ValueError(f"A mask is {np.shape(mask)}, its image {sides}: draw it in its pixels.")
    mask = binary_dilation(mask, iterations=max(1, round(max(sides) / 64)))
    if mask.all():
        return nothing, nothing, "mask fills the image"
    shape = mask[np.ix_(mask.any(axis=1), mask.any(axis=0))].astype(float)
    grey = image.mean(axis=0, dtype=float)
    flat = (maximum_filter(grey, 3) == minimum_filter(grey, 3)).astype(float)
    # At each place of the shape: how much of the lesion and of what is flat is under it, and greys.
    under = (correlate(of, shape, "valid", "fft") for of in (mask.astype(float), flat, grey))
    common, empty, greys = under
    free = np.flatnonzero((common < 0.5) & (empty < flat[mask].sum() + 0.5))
    if not len(free):
        return mask, nothing, "no room elsewhere"
    unlike = np.abs(greys.ravel()[free] / shape.sum() - grey[mask].mean())
    nearest = free[np.argsort(unlike, kind="stable")][: max(1, len(free) // 20)]
    row, column = np.unravel_index(rng.choice(nearest), greys.shape)
    moved = nothing.copy()
    moved[row : row + len(shape), column : column + len(shape[0])] = shape > 0
    return mask, moved, ""


def _filled(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Inpaint a hole. OpenCV's other method, Telea's, adds noise of about ±1 to float pixels."""
    import cv2

    hole = hole.astype(np.uint8)
    return np.stack([cv2.inpaint(channel, hole, 3, cv2.INPAINT_NS) for channel in image])


def _partners(patients: Sequence, labels: Sequence, rng: np.random.Generator) -> np.ndarray:
    """Draw for each image one of another patient with the same label; -1 where there is none."""
    table = pd.DataFrame({"patient": list(patients), "label": list(labels)}).astype(object)
    drawn = np.full(len(table), -1)
    for row, (patient, label) in enumerate(table.itertuples(index=False)):
        others = table["label"].eq(label) & table["patient"].ne(patient)
        if others.any() and not pd.isna(label):
            drawn[row] = rng.choice(np.flatnonzero(others))
    return drawn
