"""Heat maps scored against lesion masks, and maps that see no image to stand beside them.

Pointing game: Zhang et al. 2018, IJCV 126:1084. Energy: Score-CAM, Wang et al. 2020,
arXiv:1910.01279.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

Masks = np.ndarray | Sequence[np.ndarray | None]
LEFT_OUT = "left_out"  # column of every table of scores: why an image has none, "" where it has


# ---------------------------------------------------------------------- maps that see no image
def center_prior(size: int) -> np.ndarray:
    """Return a Gaussian ``(size, size)`` at the centre, sigma a quarter of the side.

    Radiographs are centred on what hurts, so this map, which sees no image, scores well above
    chance; a heat map must beat it.
    """
    axis = (np.arange(size) - (size - 1) / 2) / (size / 4)
    line = np.exp(-(axis**2) / 2)
    return np.outer(line, line).astype(np.float32)


def bone_prior(
    masks: np.ndarray, sites: Sequence[Any], of: Sequence[Any], *, least: int = 5
) -> np.ndarray:
    """Return where lesions of the same site lay in training patients, float32 ``(N, S, S)``.

    The mean mask of the training images that share a term of the site, smoothed by a Gaussian
    (sigma a sixteenth of the side): what a map scores that knows the bone and sees no lesion.

    Args:
        masks: ``(M, S, S)`` of training patients of this fold alone; no mask of a test image.
        sites: Their sites, each a tuple or list of terms, or missing.
        of: Sites of the N images that get a map.
        least: A site with fewer masks, or a missing one, falls back to the mean of all.
    """
    from scipy.ndimage import gaussian_filter

    known, asked = ([set(s) if np.ndim(s) else set() for s in t] for t in (sites, of))
    if not len(masks) or np.ndim(masks) != 3 or len(masks) != len(known):
        raise ValueError(f"{np.shape(masks)} masks, {len(known)} sites; expected (M, S, S) and M.")
    masks, priors = np.asarray(masks).astype(bool), {}
    for site in map(frozenset, asked):
        if site not in priors:
            same = np.array([bool(site & other) for other in known])
            mean = masks[same if same.sum() >= least else slice(None)].mean(axis=0)
            priors[site] = gaussian_filter(mean, len(mean) / 16, mode="constant")
    return np.array([priors[frozenset(site)] for site in asked], np.float32)


def random_maps(n: int, size: int, seed: int, *, cells: int = 7) -> np.ndarray:
    """Return float32 ``(n, size, size)``: uniform noise of ``cells`` × ``cells``, grown bilinearly.

    They are as smooth as the map of a last layer; noise of single pixels is too easy to beat.
    """
    import cv2

    coarse = np.random.default_rng(seed).random((n, cells, cells), np.float32)
    return np.stack([cv2.resize(noise, (size, size)) for noise in coarse])


# ---------------------------------------------------------------------- scores
def localisation(
    maps: np.ndarray, masks: Masks, *, tolerance: float = 15 / 224, threshold: float | None = None
) -> pd.DataFrame:
    """Score heat maps against lesion masks, one row per image.

    Args:
        maps: ``(N, H, W)``, not negative.
        masks: ``(N, H, W)`` bool, or one a map, None where it is missing. A map of another size
            than its mask is resampled to it (bilinear; by area where it shrinks), so that no small
            lesion vanishes.
        tolerance: Pointing game: how far from the lesion the peak may lie, as a share of the side
            (15 pixels at 224).
        threshold: Share of a map's own maximum, of `choose_threshold`; NaN if none was chosen.

    Returns:
        ``pointing`` (1 if the peak hits), ``energy`` (share of the map inside the lesion; 0 for an
        empty map), ``average_precision`` over pixels, ``iou`` of the map's strongest pixels, as
        many as the lesion has, with the lesion, with a threshold ``iou_at_threshold`` of the pixels
        that reach it (0 for an empty map), and ``area`` (share of the image the lesion takes: what
        a uniform map scores in energy). Where pixels tie for the peak or for the last places among
        the strongest, the expectation over random choices counts. An image without a mask, with an
        empty one or with a map that is not finite has no scores, and ``left_out`` says why.

    Raises:
        ValueError: Maps and masks differ in number or in shape, a map has negative values, or the
            threshold is no share.
    """
    from scipy.ndimage import distance_transform_edt

    if threshold is not None and (threshold <= 0 or threshold > 1):
        raise ValueError(f"The threshold is {threshold}; expected a share of the maximum, 0 to 1.")
    rows: list[dict[str, float | str]] = []
    for heat, mask, reason in _matched(maps, masks):
        if reason:
            rows.append({LEFT_OUT: reason})
            continue
        every, inside, count = np.sort(heat, axis=None), np.sort(heat[mask]), int(mask.sum())
        hits = distance_transform_edt(~mask)[heat == every[-1]] <= tolerance * mask.shape[-1]
        last = every[-count]  # the weakest of the strongest
        above, surely = (len(v) - np.searchsorted(v, last, "right") for v in (every, inside))
        share = (count - above) / (_reaching(every, last) - above)
        common = surely + share * (_reaching(inside, last) - surely)
        total = heat.sum(dtype=np.float64)
        row = {
            "pointing": hits.mean(),
            "energy": heat[mask].sum(dtype=np.float64) / total if total else 0.0,
            # The mean over the lesion's pixels of the precision among all that are as high.
            "average_precision": (_reaching(inside, inside) / _reaching(every, inside)).mean(),
            "iou": common / (2 * count - common),
            "area": mask.mean(),
        }
        if threshold is not None:
            share = _overlap(every, inside, np.array([threshold]))[0]
            row["iou_at_threshold"] = np.nan if np.isnan(threshold) else share
        rows.append(row | {LEFT_OUT: ""})
    named = ["pointing", "energy", "average_precision", "iou", "area"]
    named += [] if threshold is None else ["iou_at_threshold"]
    return pd.DataFrame(rows, columns=[*named, LEFT_OUT]).astype(dict.fromkeys(named, float))


def choose_threshold(maps: np.ndarray, masks: Masks) -> float:
    """Return the share of a map's own maximum, .01 to .99, at which the mean IoU is highest.

    Choose it on validation patients. Of thresholds that are equally good it is the lowest. Images
    that `localisation` leaves out do not count.
    """
    shares = np.arange(1, 100) / 100
    found = [
        _overlap(np.sort(heat, axis=None), np.sort(heat[mask]), shares)
        for heat, mask, reason in _matched(maps, masks)
        if not reason
    ]
    if not found:
        raise ValueError("No map has a mask. Pass validation maps with their masks.")
    return float(shares[np.argmax(np.mean(found, axis=0))])


def _reaching(ordered: np.ndarray, levels: Any) -> Any:
    """Count the values that are as high as each level or higher."""
    return len(ordered) - np.searchsorted(ordered, levels)


def _overlap(every: np.ndarray, inside: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the IoU of the lesion and the pixels that reach each share of the maximum."""
    levels = np.maximum(shares * float(every[-1]), np.finfo(every.dtype).tiny)
    common = _reaching(inside, levels)
    return common / (_reaching(every, levels) + len(inside) - common)


def _matched(maps: Any, masks: Any) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """Yield each map in the size of its mask, the mask, and why the two can't be scored, or ''."""
    import cv2

    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps, {len(masks)} masks; expected both to be (N, H, W).")
    for row, (heat, mask) in enumerate(zip(maps, masks, strict=True)):
        heat = np.asarray(heat, dtype=np.result_type(heat, np.float32))
        mask = np.zeros((0, 0)) if mask is None else np.asarray(mask).astype(bool)
        high, wide = mask.shape if mask.ndim == 2 else (-1, -1)
        if heat.ndim != 2 or heat.shape[0] * wide != heat.shape[1] * high:
            raise ValueError(
                f"In row {row} the map is {heat.shape} and the mask {mask.shape}; expected both to "
                "be of one shape. Draw the mask in the pixels that the map explains."
            )
        if (heat < 0).any():
            raise ValueError(f"The map in row {row} has negative values. Pass max(map, 0).")
        reason = "" if mask.any() else "empty mask" if mask.size else "no mask"
        reason = reason or ("" if np.isfinite(heat).all() else "map is not finite")
        if not reason and heat.shape != mask.shape:
            way = cv2.INTER_AREA if len(heat) > high else cv2.INTER_LINEAR
            heat = cv2.resize(heat, (wide, high), interpolation=way)
        yield heat, mask, reason


def border_mass(
    maps: np.ndarray, *, width: float = 0.05, content: np.ndarray | None = None
) -> pd.DataFrame:
    """Return the share of each map near the border: where markers are, and seldom a lesion.

    A share well above that of a uniform map is an alarm: the model may read a shortcut.

    Args:
        maps: ``(N, H, W)``, not negative.
        width: How far the border reaches in, as a share of the longer side.
        content: ``(N, H, W)`` bool, what of a padded square is radiograph: the border is then that
            of the radiograph, with the padding.

    Returns:
        ``border``, ``border_uniform`` (what a uniform map scores), ``left_out``: a map that is
        blank or not finite has no share.
    """
    from scipy.ndimage import distance_transform_edt

    maps = np.asarray(maps)
    inside = np.ones((1, *maps.shape[1:]), bool) if content is None else content
    reach = width * max(maps.shape[1:])
    edge = [distance_transform_edt(np.pad(one, 1))[1:-1, 1:-1] <= reach for one in inside]
    edge = np.broadcast_to(edge, maps.shape)
    total = maps.sum(axis=(1, 2), dtype=np.float64)
    finite, near = np.isfinite(total), maps.sum(axis=(1, 2), dtype=np.float64, where=edge)
    share = near / np.where(finite & (total > 0), total, np.nan)
    reason = np.where(finite, np.where(total > 0, "", "blank map"), "map is not finite")
    uniform = edge.mean(axis=(1, 2))
    return pd.DataFrame({"border": share, "border_uniform": uniform, LEFT_OUT: reason})
