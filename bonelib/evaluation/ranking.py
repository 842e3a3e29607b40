"""Exact statistics of plain arrays: AUROC, average precision, DeLong, and their resampling.

Labels 0 or 1, scores and the group of each row come in; numbers go out. A *statistic* is a function
of image weights ``(N,)``: drawing a patient twice gives the images of that patient weight two, so
scores are sorted once for all draws, ties stay exact, and every model sees the same draws.
Clustered bootstrap: Field & Welsh 2007, J R Stat Soc B 69:369. DeLong: DeLong et al. 1988,
Biometrics 44:837, from sorted scores as in Sun & Xu 2014, IEEE Signal Process Lett 21:1389.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pandas as pd

Statistic = Callable[[np.ndarray], float]  # image weights (N,) -> value, NaN where undefined
_Z = NormalDist().inv_cdf(0.975)


def _ranks(labels01: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, ...]:
    """Sort once: rows of positives and negatives by score, and for each positive where it falls.

    Returns:
        positive rows (P,), negative rows (Q,), negatives below (P,), negatives below or tied (P,),
        positives below (P,).
    """
    positive, negative = np.flatnonzero(labels01 == 1), np.flatnonzero(labels01 == 0)
    positive = positive[np.argsort(scores[positive], kind="stable")]
    negative = negative[np.argsort(scores[negative], kind="stable")]
    p, q = scores[positive], scores[negative]
    below, upto = np.searchsorted(q, p, "left"), np.searchsorted(q, p, "right")
    return positive, negative, below, upto, np.searchsorted(p, p, "left")


def _cumulated(weights: np.ndarray) -> np.ndarray:
    out = np.zeros(len(weights) + 1)
    np.cumsum(weights, out=out[1:])
    return out


def auroc_statistic(labels01: np.ndarray, scores: np.ndarray) -> Statistic:
    """Make the AUROC a function of image weights; NaN where a class has no weight."""
    positive, negative, below, upto, _ = _ranks(labels01, scores)

    def statistic(weights: np.ndarray) -> float:
        w, seen = weights[positive], _cumulated(weights[negative])
        pairs = w.sum() * seen[-1]
        # A tied pair counts one half: the mean of "strictly below" and "below or tied".
        return w @ (seen[below] + seen[upto]) / (2 * pairs) if pairs else np.nan

    return statistic


def precision_statistic(labels01: np.ndarray, scores: np.ndarray) -> Statistic:
    """Make the average precision a function of image weights, NaN as above."""
    positive, negative, below, _, own = _ranks(labels01, scores)

    def statistic(weights: np.ndarray) -> float:
        w, seen = weights[positive], _cumulated(weights[negative])
        hits = _cumulated(w)
        if not (hits[-1] and seen[-1]):
            return np.nan
        true, false = hits[-1] - hits[own], seen[-1] - seen[below]  # at the score of each positive
        return w @ (true / np.maximum(true + false, 1e-300)) / hits[-1]

    return statistic


def both_classes(labels01: np.ndarray) -> np.ndarray:
    """Return the labels as integers, refusing anything but 0 and 1, both present."""
    labels = np.asarray(labels01).astype(np.int64)
    odd = set(np.unique(labels)) - {0, 1}
    if odd:
        raise ValueError(
            f"Labels must be 0 or 1, found also {sorted(map(int, odd))}. Drop -1 first."
        )
    if len(np.unique(labels)) < 2:
        raise ValueError(f"All {len(labels)} rows are of one class; no ranking can be scored.")
    return labels


def _scores(scores: np.ndarray) -> np.ndarray:
    x = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(x).all():
        raise ValueError(f"{int((~np.isfinite(x)).sum())} of {x.size} scores are NaN or infinite.")
    return x


def auroc(labels01: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve, exact with ties; (N,) labels 0 or 1 and (N,) scores."""
    labels, scores = both_classes(labels01), _scores(scores)
    return float(auroc_statistic(labels, scores)(np.ones(len(labels))))


def average_precision(labels01: np.ndarray, scores: np.ndarray) -> float:
    """Area under the precision-recall steps, without interpolation, exact with ties."""
    labels, scores = both_classes(labels01), _scores(scores)
    return float(precision_statistic(labels, scores)(np.ones(len(labels))))


def bootstrap(
    statistics: list[Statistic], groups: np.ndarray, *, draws: int, seed: int
) -> np.ndarray:
    """Evaluate all statistics on the same draws of groups with replacement; ``(S, draws)``."""
    codes, names = pd.factorize(np.asarray(groups), sort=True)  # row order changes nothing
    rng, size = np.random.default_rng(seed), len(names)
    out = np.empty((len(statistics), draws))
    for draw in range(draws):
        times = np.bincount(rng.integers(size, size=size), minlength=size)
        weights = times.astype(np.float64)[codes]
        for i, statistic in enumerate(statistics):
            out[i, draw] = statistic(weights)
    return out


def bootstrap_auroc(
    labels01: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> np.ndarray:
    """Draw groups with replacement and return the AUROC of each draw.

    Args:
        scores: ``(N,)``, or ``(M, N)`` for M models on the same draws.

    Returns:
        ``(draws,)`` or ``(M, draws)``; NaN where a draw held one class only.
    """
    labels, scores = both_classes(labels01), _scores(scores)
    statistics = [auroc_statistic(labels, row) for row in np.atleast_2d(scores)]
    out = bootstrap(statistics, groups, draws=draws, seed=seed)
    return out if scores.ndim == 2 else out[0]


def best_cut(
    labels01: np.ndarray, scores: np.ndarray, *, sensitivity: float | None = None
) -> float:
    """Return the score from which to call a row positive, the highest among equals.

    The largest Youden index (sensitivity + specificity - 1; Youden 1950, Cancer 3:32), or the
    highest score that still reaches ``sensitivity``.
    """
    if sensitivity is not None and not 0 < sensitivity <= 1:
        raise ValueError(f"A sensitivity is a fraction between 0 and 1, not {sensitivity}.")
    labels, scores = both_classes(labels01), _scores(scores)
    cuts = np.unique(scores)[::-1]
    hit, alarm = (
        1 - np.searchsorted(np.sort(scores[labels == c]), cuts, "left") / (labels == c).sum()
        for c in (1, 0)
    )
    return float(cuts[np.argmax(hit - alarm if sensitivity is None else hit >= sensitivity)])


def interval(drawn: np.ndarray) -> dict[str, float]:
    """Take the 95 % percentile interval of draws; ``dropped`` is the share that was NaN.

    Draws that never vary (all right, all wrong) are no certainty: there is no interval then.
    """
    kept = drawn[~np.isnan(drawn)]
    varied = len(kept) and kept.min() < kept.max()
    low, high = np.percentile(kept, (2.5, 97.5)) if varied else (np.nan, np.nan)
    return {"low": low, "high": high, "dropped": 1 - len(kept) / max(len(drawn), 1)}


def two_sided(drawn: np.ndarray) -> float:
    """Return p for "no difference": twice the smaller share of draws on one side of zero."""
    kept = drawn[~np.isnan(drawn)]
    side = min((kept <= 0).sum(), (kept >= 0).sum())
    return min(1.0, 2 * (1 + side) / (1 + len(kept)))  # never 0: the data are one more draw


def holm(p: np.ndarray) -> np.ndarray:
    """Return p-values corrected for their number by Holm's step-down procedure.

    Valid for any dependence among the tests (Holm 1979, Scand. J. Statist. 6:65–70).

    Args:
        p: ``(K,)`` in 0–1.

    Returns:
        ``(K,)`` in the order given, at most 1.
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    out = np.empty_like(p)
    out[order] = np.minimum(steps, 1)
    return out


def share_statistic(hits: np.ndarray, rows: np.ndarray) -> Statistic:
    """Make the mean of ``hits`` over the True ``rows`` a function of image weights."""
    among, right = rows.astype(np.float64), hits * rows.astype(np.float64)

    def statistic(weights: np.ndarray) -> float:
        total = weights @ among
        return weights @ right / total if total else np.nan

    return statistic


def reliability(
    labels01: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    *,
    bins: int,
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """Cut the scores into bins of equal size; in each the mean score and the share of positives.

    Returns:
        predicted, value, low, high, dropped, n; a bin of one class has no interval.
    """
    parts = np.array_split(np.argsort(scores, kind="stable"), min(bins, len(scores)))
    masks = [np.isin(np.arange(len(scores)), part) for part in parts]
    shares = [share_statistic(labels01, mask) for mask in masks]
    drawn = bootstrap(shares, groups, draws=draws, seed=seed)
    rows = [
        {"predicted": scores[m].mean(), "value": s(np.ones(len(m))), **interval(d)}
        for m, s, d in zip(masks, shares, drawn, strict=True)
    ]
    return pd.DataFrame(rows).assign(n=[len(part) for part in parts])


def kappa_statistic(labels: np.ndarray, guesses: np.ndarray, classes: int) -> Statistic:
    """Make quadratic kappa (Cohen 1968, Psychol Bull 70:213) a function of image weights."""
    cell = labels * classes + guesses
    steps = np.arange(classes)
    cost = (steps[:, None] - steps) ** 2

    def statistic(weights: np.ndarray) -> float:
        seen = np.bincount(cell, weights, classes**2).reshape(classes, classes)
        chance = np.outer(seen.sum(1), seen.sum(0)) / seen.sum()
        worst = (cost * chance).sum()
        return 1 - (cost * seen).sum() / worst if worst else np.nan

    return statistic


def class_statistics(
    labels: np.ndarray,
    p: np.ndarray,
    *,
    classes: tuple[str, ...],
    positive: int | None,
    threshold: float | None = None,
    ordinal: bool = False,
) -> dict[tuple[str, str], Statistic]:
    """Make a statistic per (metric, class); the class is "" where a metric has one value.

    Args:
        labels: ``(N,)`` index of the class of each image.
        p: ``(N, C)`` probabilities in class order.
        positive: Index of the class that ``threshold`` detects.
    """
    named: dict[tuple[str, str], Statistic] = {}
    every, binary, guesses = np.ones(len(labels), bool), len(classes) == 2, p.argmax(1)
    for i, name in [(positive, "")] if binary else enumerate(classes):
        named["AUROC", name] = auroc_statistic(labels == i, p[:, i])
        named["AUPRC", name] = precision_statistic(labels == i, p[:, i])
    if threshold is not None:
        flagged = p[:, positive] >= threshold
        guesses = np.where(flagged, positive, 1 - positive) if binary else guesses
        named["sensitivity", ""] = share_statistic(flagged, labels == positive)
        named["specificity", ""] = share_statistic(~flagged, labels != positive)
    right = guesses == labels
    named["accuracy", ""] = share_statistic(right, every)
    for i in np.unique(labels):
        named["balanced accuracy", classes[i]] = share_statistic(right, labels == i)
    squares = (p - np.eye(len(classes))[labels]) ** 2
    named["Brier", ""] = share_statistic(squares[:, positive] if binary else squares.sum(1), every)
    if ordinal:
        named["quadratic kappa", ""] = kappa_statistic(labels, guesses, len(classes))
    return named


def delong(
    labels01: np.ndarray, scores: np.ndarray, other: np.ndarray | None = None
) -> dict[str, float | str]:
    """Compute the AUROC with DeLong's 95 % interval and, against ``other``, the paired test.

    Every image counts as independent; for several images of a patient use `compare`. The interval
    is taken on the logit of the AUROC, so it stays within 0 and 1.

    Returns:
        auroc, low, high, variance, note; with ``other`` also auroc_other, difference (first minus
        other), difference_low, difference_high, p (two-sided). NaN, with a note, where the variance
        is zero: after perfect separation the data don't say how far from 1 the truth may be.
    """
    labels = both_classes(labels01)
    both = _scores([scores] if other is None else [scores, other])
    if min(np.bincount(labels)) < 2:
        raise ValueError("DeLong needs at least two images of each class.")
    # Placement values: the share of the other class that an image is ranked right against.
    placed = {0: [], 1: []}
    for row in both:
        for own in (0, 1):
            rest = np.sort(row[labels != own])
            mine = row[labels == own]
            below = np.searchsorted(rest, mine, "left") + np.searchsorted(rest, mine, "right")
            share = below / (2 * len(rest))
            placed[own].append(share if own else 1 - share)
    areas = np.mean(placed[1], axis=1)
    cov = sum(np.atleast_2d(np.cov(placed[c])) / len(placed[c][0]) for c in (0, 1))
    area, variance = float(areas[0]), float(cov[0, 0])
    out = {"auroc": area, "low": np.nan, "high": np.nan, "variance": variance, "note": ""}
    if 0 < area < 1 and variance > 0:
        logit = math.log(area / (1 - area))
        half = _Z * math.sqrt(variance) / (area * (1 - area))
        out["low"], out["high"] = (1 / (1 + math.exp(-x)) for x in (logit - half, logit + half))
    else:
        out["note"] = "no interval: the variance is zero (perfect separation or constant scores)"
    if other is None:
        return out
    difference = float(areas[0] - areas[1])
    spread = math.sqrt(max(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1], 0.0))
    out |= {"auroc_other": float(areas[1]), "difference": difference}
    if spread > 1e-12:
        out["p"] = math.erfc(abs(difference) / spread / math.sqrt(2))
    else:
        spread, out["p"] = np.nan, 1.0 if abs(difference) < 1e-12 else np.nan
        out["note"] = "no test: the variance of the difference is zero"
    low, high = difference - _Z * spread, difference + _Z * spread
    return out | {"difference_low": max(low, -1.0), "difference_high": min(high, 1.0)}
