"""Exact statistics of plain arrays: AUROC, average precision, DeLong, and their resampling.

Labels 0 or 1, scores and the group of each row come in; numbers go out. A *statistic* is a function
of image weights ``(N,)``: drawing a patient twice gives the images of that patient weight two, so
scores are sorted once for all draws, ties stay exact, and every model sees the same draws. Those
made here (`Blocks`) take the weights of many draws at once.
Clustered bootstrap: Field & Welsh 2007, J R Stat Soc B 69:369. DeLong: DeLong et al. 1988,
Biometrics 44:837, from sorted scores as in Sun & Xu 2014, IEEE Signal Process Lett 21:1389.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd

Statistic = Callable[[np.ndarray], float | np.ndarray]  # image weights -> value, NaN if undefined
_Z = NormalDist().inv_cdf(0.975)
_BLOCK = 2**17  # weights at a time: what a core's cache holds


@dataclass(frozen=True)
class Blocks:
    """A statistic that takes the weights of many draws at once.

    Attributes:
        rows: ``(R,)``, the rows that count, in the order in which ``of`` wants them.
        of: Weights of these rows ``(..., R)`` -> values ``(...)``, or ``(..., X)`` of a curve.
    """

    rows: np.ndarray
    of: Callable[[np.ndarray], np.ndarray]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Evaluate weights of all rows of the table, ``(N,)`` or ``(B, N)``."""
        return self.of(np.asarray(weights)[..., self.rows])

    def among(self, rows: np.ndarray) -> "Blocks":
        """Return the same statistic where its rows are these ones of a larger table."""
        return Blocks(rows[self.rows], self.of)


def ratio(above: np.ndarray | float, below: np.ndarray) -> np.ndarray:
    """Divide; NaN where ``below`` is zero, as a draw without a class has no value."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(below) > 0, np.divide(above, below), np.nan)[()]


def _ranks(
    labels01: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, int, np.ndarray, np.ndarray, np.ndarray]:
    """Sort once: negatives, then positives, by score, and for each positive where it falls.

    Returns:
        rows (N,), number of negatives, negatives below (P,), negatives below or tied (P,),
        positives below (P,).
    """
    positive, negative = np.flatnonzero(labels01 == 1), np.flatnonzero(labels01 == 0)
    positive = positive[np.argsort(scores[positive], kind="stable")]
    negative = negative[np.argsort(scores[negative], kind="stable")]
    p, q = scores[positive], scores[negative]
    below, upto = np.searchsorted(q, p, "left"), np.searchsorted(q, p, "right")
    rows = np.concatenate([negative, positive])
    return rows, len(negative), below, upto, np.searchsorted(p, p, "left")


def cumulated(weights: np.ndarray) -> np.ndarray:
    """Return ``(..., R + 1)``: the weight of the first 0, 1, … R rows."""
    out = np.zeros((*weights.shape[:-1], weights.shape[-1] + 1), weights.dtype)
    np.cumsum(weights, axis=-1, out=out[..., 1:])
    return out


def auroc_statistic(labels01: np.ndarray, scores: np.ndarray) -> Blocks:
    """Make the AUROC a function of image weights; NaN where a class has no weight."""
    rows, negatives, below, upto, _ = _ranks(labels01, scores)
    tied = (below != upto).any()

    def statistic(weights: np.ndarray) -> np.ndarray:
        w, seen = weights[..., negatives:], cumulated(weights[..., :negatives])
        # A tied pair counts one half: the mean of "strictly below" and "below or tied".
        first = seen.take(below, axis=-1)
        won = first + seen.take(upto, axis=-1) if tied else first
        pairs = w.sum(axis=-1) * seen[..., -1] * (2 if tied else 1)
        return ratio(np.einsum("...n,...n->...", w, won), pairs)

    return Blocks(rows, statistic)


def precision_statistic(labels01: np.ndarray, scores: np.ndarray) -> Blocks:
    """Make the average precision a function of image weights, NaN as above."""
    rows, negatives, below, _, own = _ranks(labels01, scores)

    def statistic(weights: np.ndarray) -> np.ndarray:
        w, seen = weights[..., negatives:], cumulated(weights[..., :negatives])
        hits = cumulated(w)
        true = hits[..., -1:] - hits.take(own, axis=-1)  # at the score of each positive
        called = true + seen[..., -1:] - seen.take(below, axis=-1)
        found = np.einsum("...n,...n->...", w, true / np.maximum(called, 1e-300))
        return ratio(found, hits[..., -1] * (seen[..., -1] > 0))

    return Blocks(rows, statistic)


def sensitivity_statistic(
    labels01: np.ndarray, scores: np.ndarray, specificity: float = 0.9
) -> Blocks:
    """Make the highest sensitivity at this specificity a function of image weights, NaN as above.

    The cut is chosen on the weighted images themselves, anew in each draw.
    """
    rows, negatives, _, _, _ = _ranks(labels01, scores)
    p, q = scores[rows[negatives:]], scores[rows[:negatives]]
    past = np.append(0, np.searchsorted(p, q, "right"))  # positives up to each negative

    def statistic(weights: np.ndarray) -> np.ndarray:
        seen, hits = cumulated(weights[..., :negatives]), cumulated(weights[..., negatives:])
        enough = seen >= specificity * seen[..., -1:] - 1e-9
        missed = np.take_along_axis(hits, past[enough.argmax(axis=-1)][..., None], -1)[..., 0]
        total = hits[..., -1]
        return ratio(total - missed, total * (seen[..., -1] > 0))

    return Blocks(rows, statistic)


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
    statistics: Sequence[Statistic], groups: np.ndarray, *, draws: int, seed: int
) -> np.ndarray:
    """Evaluate all statistics on the same draws of groups with replacement.

    Those of `Blocks` take many draws at once, any other one at a time.

    Returns:
        ``(S, draws)``; of curves ``(S, draws, X)``.
    """
    codes, names = pd.factorize(np.asarray(groups), sort=True)  # row order changes nothing
    rng, size = np.random.default_rng(seed), len(names)
    places = [codes[s.rows] if isinstance(s, Blocks) else codes for s in statistics]
    step = max(1, min(256, _BLOCK // max(1, len(codes))))
    out = [[np.empty(0)] if not draws else [] for _ in statistics]
    for at in range(0, draws, step):
        drawn = rng.integers(size, size=(min(step, draws - at), size))
        drawn += size * np.arange(len(drawn))[:, None]
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        for values, statistic, place in zip(out, statistics, places, strict=True):
            weights = times.take(place, axis=1)
            if isinstance(statistic, Blocks):
                values.append(statistic.of(weights))
            else:
                values.append(np.array([statistic(row) for row in weights.astype(np.float64)]))
    return np.stack([np.concatenate(values) for values in out])


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
    labels01: np.ndarray,
    scores: np.ndarray,
    *,
    sensitivity: float | None = None,
    specificity: float | None = None,
) -> float:
    """Return the score from which to call a row positive, the highest among equals.

    The largest Youden index (sensitivity + specificity - 1; Youden 1950, Cancer 3:32), the highest
    score that still reaches ``sensitivity``, or the lowest that still reaches ``specificity``
    (above all scores if none of them does).
    """
    for name, asked in (("sensitivity", sensitivity), ("specificity", specificity)):
        if asked is not None and not 0 < asked <= 1:
            raise ValueError(f"A {name} is a fraction between 0 and 1, not {asked}.")
    if sensitivity is not None and specificity is not None:
        raise ValueError("One threshold reaches a sensitivity or a specificity: ask for one.")
    labels, scores = both_classes(labels01), _scores(scores)
    cuts = np.unique(scores)[::-1]
    hit, alarm = (
        1 - np.searchsorted(np.sort(scores[labels == c]), cuts, "left") / (labels == c).sum()
        for c in (1, 0)
    )
    if specificity is not None:
        quiet = np.flatnonzero(1 - alarm >= specificity - 1e-12)
        return float(cuts[quiet[-1]] if len(quiet) else np.nextafter(cuts[0], np.inf))
    return float(
        cuts[np.argmax(hit - alarm if sensitivity is None else hit >= sensitivity - 1e-12)]
    )


def interval(
    drawn: np.ndarray, *, value: float = np.nan, scale: str = "percentile", patients: int = 0
) -> dict[str, float]:
    """Return the 95 % interval of draws; ``dropped`` is the share that was NaN.

    Draws that never vary (all right, all wrong) are no certainty: there is no interval then.

    Args:
        value: Of the data. scale: ``percentile`` of the draws; ``logit``, an interval on the log
            odds with the standard error of the draws, for values within 0 and 1; ``basic``, the
            percentiles mirrored at the value (Davison & Hinkley 1997, section 5.2, recalled), for
            an error that draws with replacement enlarge: at least 0, and the value lies within;
            ``none``.
        patients: Of the rarest class: ``logit`` then takes Student's t of one less, and makes good
            that draws vary too little by (n - 1) / n (Hesterberg 2015, Am Stat 69:371, recalled).
    """
    kept = drawn[~np.isnan(drawn)]
    low = high = np.nan
    if scale != "none" and len(kept) and kept.min() < kept.max():
        low, high = np.percentile(kept, (2.5, 97.5))
        if scale == "basic":
            low, high = min(value, max(0.0, 2 * value - high)), max(value, 2 * value - low)
        elif scale == "logit" and 0 < value < 1:
            middle = math.log(value / (1 - value))
            half = _quantile(patients) * kept.std(ddof=1) / (value * (1 - value))
            low, high = (1 / (1 + math.exp(-x)) for x in (middle - half, middle + half))
    return {"low": low, "high": high, "dropped": 1 - len(kept) / max(len(drawn), 1)}


def _quantile(patients: int) -> float:
    from scipy.stats import t

    if patients < 2:
        return _Z
    return float(t.ppf(0.975, patients - 1)) * math.sqrt(patients / (patients - 1))


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


def share_statistic(hits: np.ndarray, rows: np.ndarray) -> Blocks:
    """Make the mean of ``hits`` over the True ``rows`` a function of image weights.

    ``hits`` are ``(N,)``, or ``(N, X)`` for X means at once.
    """
    among = np.flatnonzero(rows)
    right = np.asarray(hits)[among].astype(np.float64)

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(axis=-1)
        return ratio(weights @ right, total if right.ndim == 1 else total[..., None])

    return Blocks(among, statistic)


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
    both = _scores(np.stack([scores] if other is None else [scores, other]))
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
    cov = np.atleast_2d(sum(np.cov(placed[c]) / len(placed[c][0]) for c in (0, 1)))
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
