"""How well maps of a whole test set find outlined pixels, with intervals over patients.

Maps and masks come in; AUROC and average precision over pixels and the per-region overlap go out,
each as a function of image weights, so that patients can be drawn again. PRO: Bergmann et al. 2021,
IJCV 129:1038, section 5.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bonelib import evaluation
from bonelib.anomaly.normal import standardised
from bonelib.evaluation import METHOD, Method
from bonelib.evaluation.ranking import Statistic, auroc_statistic, precision_statistic

BINS = 1024  # thresholds, where maps have more values
SAMPLE = 2**20  # pixels of which the thresholds are quantiles
SHARES = (0.5, 0.25, 0.75, 0.0, 1.0)  # of the first kind of maps; the first of equals is chosen
LIMIT = 0.3  # false positive rate up to which PRO is integrated


def pixel_statistics(maps: np.ndarray, masks: np.ndarray) -> dict[str, Statistic]:
    """Make four measures of maps functions of image weights ``(N,)``; NaN where undefined.

    ``pixel AUROC`` and ``pixel AP`` pool the pixels of all images: maps must be comparable from
    image to image. ``AUROC within images`` is the mean of the AUROC of each image with an outline:
    they need not be. ``PRO`` is the share of a region that lies above a threshold, the mean over
    regions (8-connected), integrated over the false positive rate of all pixels outside regions
    from 0 to ``LIMIT`` and divided by it: large regions count no more than small ones.

    Thresholds are all values where there are no more than ``BINS``, else half of them quantiles of
    outlined pixels and half of all; what falls between two counts as tied.

    Args:
        maps: ``(N, H, W)``, any scale, higher where abnormal.
        masks: ``(N, H, W)`` bool; without a pixel where an image is normal.

    Raises:
        ValueError: Shapes differ, a map is not finite, or no pixel is outlined, or all are.
    """
    from scipy.ndimage import label

    maps, masks = np.asarray(maps), np.asarray(masks, bool)
    if maps.shape != masks.shape or maps.ndim != 3:
        raise ValueError(f"Maps {maps.shape} and masks {masks.shape}; expected both (N, H, W).")
    if not np.isfinite(maps).all():
        raise ValueError("Maps hold NaN or infinite values.")
    if masks.all() or not masks.any():
        raise ValueError(
            f"In {len(masks)} masks {'every' if masks.all() else 'no'} pixel is outlined: nothing "
            "can be measured. Pass images with an outline."
        )
    edges = _thresholds(maps, masks)
    inside, outside, regions = np.zeros((3, len(maps), len(edges)))  # pixels by bin, highest first
    count = np.zeros(len(maps))
    for i, (heat, mask) in enumerate(zip(maps, masks, strict=True)):
        code = len(edges) - np.searchsorted(edges, heat, "right").clip(1)
        inside[i], outside[i] = (np.bincount(code[m], minlength=len(edges)) for m in (mask, ~mask))
        found, count[i] = label(mask, np.ones((3, 3)))
        for number in range(1, int(count[i]) + 1):
            own = code[found == number]
            regions[i] += np.bincount(own, minlength=len(edges)) / len(own)
    # A bin is one observation of either class, as heavy as its pixels.
    truth, rank = np.repeat([1, 0], len(edges)), np.tile(-np.arange(len(edges)), 2)
    auroc, precision = auroc_statistic(truth, rank), precision_statistic(truth, rank)
    each = np.array([auroc(np.append(*pair)) for pair in zip(inside, outside, strict=True)])
    both = np.isfinite(each)
    return {
        "pixel AUROC": lambda w: auroc(np.append(w @ inside, w @ outside)),
        "AUROC within images": evaluation.ranking.share_statistic(np.nan_to_num(each), both),
        "PRO": lambda w: _overlap(w @ regions, w @ count, w @ outside),
        "pixel AP": lambda w: precision(np.append(w @ inside, w @ outside)),
    }


def _thresholds(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    draw = np.random.default_rng(0)
    drawn = [x if x.size <= SAMPLE else draw.choice(x, SAMPLE) for x in (maps[masks], maps.ravel())]
    values = np.unique(np.concatenate(drawn))
    if len(values) <= BINS:
        return values
    at = np.linspace(0, 1, BINS // 2, endpoint=False)
    return np.unique(np.concatenate([np.quantile(x, at, method="lower") for x in drawn]))


def _overlap(regions: np.ndarray, count: np.ndarray, outside: np.ndarray) -> float:
    if not (count and outside.any()):
        return np.nan
    share = np.append(0, regions.cumsum() / count)
    rate = np.append(0, outside.cumsum() / outside.sum())
    kept = rate < LIMIT
    y = np.append(share[kept], np.interp(LIMIT, rate, share))
    return float(np.trapezoid(y, np.append(rate[kept], LIMIT)) / LIMIT)


def mixed(
    validation: Sequence[np.ndarray], masks: np.ndarray, maps: Sequence[np.ndarray]
) -> np.ndarray:
    """Mix two kinds of maps ``(N, S, S)``, each in standard deviations on validation images.

    The share of each has the highest pixel AUROC on outlined validation images, whose maps of both
    kinds are ``validation``, their outlines ``masks`` ``(V, S, S)``; halves without an outline.
    """
    shown = masks.any(axis=(1, 2))

    def mix(kinds: Sequence[np.ndarray], share: float) -> np.ndarray:
        one, other = map(standardised, validation, kinds)
        return share * one + (1 - share) * other

    def found(share: float) -> float:
        heat = mix(validation, share)[shown]
        return float(pixel_statistics(heat, masks[shown])["pixel AUROC"](np.ones(shown.sum())))

    return mix(maps, max(SHARES, key=found) if shown.any() else SHARES[0])


def measured(
    maps: Mapping[Method, np.ndarray],
    masks: np.ndarray,
    table: pd.DataFrame,
    *,
    beside: Method,
    draws: int = 1000,
) -> pd.DataFrame:
    """Measure several kinds of maps of the same images, with intervals that draw patients.

    Args:
        maps: ``(N, H, W)`` by method.
        table: A row an image: ``image_id``, ``patient`` or ``group``.
        beside: The method that all others are compared with, on the same draws.

    Returns:
        The columns of the method, measure, value, low, high, n, groups, group_kind, and of all but
        ``beside`` also ``gain, gain_low, gain_high, p``: the method minus that one.
    """
    known, rows = {m: pixel_statistics(heat, masks) for m, heat in maps.items()}, []
    for method, own in known.items():
        found = evaluation.estimate(table, own, draws=draws).drop(columns="p")
        if method != beside:
            pairs = known[beside].items()
            gains = {name: lambda w, a=own[name], b=b: a(w) - b(w) for name, b in pairs}
            paired = evaluation.estimate(table, gains, draws=draws)
            ends = {"gain": "value", "gain_low": "low", "gain_high": "high", "p": "p"}
            found = found.assign(**{new: paired[old] for new, old in ends.items()})
        rows.append(found.assign(**method.columns()))
    out = pd.concat(rows, ignore_index=True)
    return out[[*METHOD, *out.columns.drop([*METHOD])]]
