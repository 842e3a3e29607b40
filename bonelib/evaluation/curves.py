"""Curves of stored predictions, each with a band that resamples whole patients.

Bands are vertical and pointwise: 95 % of the draws lie within at each x, not along all of it.
Decision curves: Vickers & Elkin 2006, Med Decis Making 26:565. Precision between two recalls is no
straight line: Davis & Goadrich 2006, ICML. Risk-coverage curves and the area below them: El-Yaniv &
Wiener 2010, JMLR 11:1605; Geifman & El-Yaniv 2017, arXiv:1705.08500. (All recalled.)
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from bonelib.cohort import Task
from bonelib.evaluation import ranking
from bonelib.evaluation.measures import DRAWS
from bonelib.evaluation.ranking import Blocks
from bonelib.evaluation.reliability import equal_bins
from bonelib.evaluation.rows import detected, group_keys, labelled, rarest
from bonelib.evaluation.tables import as_task, entropy

GRID = np.linspace(0, 1, 101)
REFERRAL = np.linspace(0.01, 0.5, 50)  # probabilities from which one might refer a patient
COVERAGES = np.linspace(0.01, 1, 100)


def roc(
    predictions: pd.DataFrame, *, task: str | Task, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Return the ROC curve of the positive class: sensitivity at each 1 - specificity.

    Returns:
        x (``GRID``), value, low, high. Ties are straight lines, so the area is the AUROC but for
        the steps of the grid.
    """

    def at(true: np.ndarray, false: np.ndarray) -> np.ndarray:
        return np.interp(GRID, false / false[-1], true / true[-1])

    return _of_ranks(predictions, task, at, draws=draws, seed=seed)


def precision_recall(
    predictions: pd.DataFrame, *, task: str | Task, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Return the precision of the positive class at the highest cut that reaches each recall.

    Returns:
        x (recall, ``GRID``), value, low, high. The steps are not smoothed: their mean is the
        average precision but for the steps of the grid.
    """

    def at(true: np.ndarray, false: np.ndarray) -> np.ndarray:
        cut = np.searchsorted(true / true[-1], np.maximum(GRID, 1e-9) - 1e-12)
        return true[cut] / (true[cut] + false[cut])

    return _of_ranks(predictions, task, at, draws=draws, seed=seed)


def calibration(
    predictions: pd.DataFrame, *, task: str | Task, bins: int = 8, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Compare the predicted probability of the positive class with how often it was right.

    Returns:
        One row per bin of equal mass (ties stay together, so bins may be fewer): predicted (mean),
        value (share observed), low, high, dropped, n. A bin with one patient of a class has no
        interval.
    """
    task = as_task(task)
    table, labels, p = labelled(predictions, task)
    one, keys = detected(task), group_keys(table)[0]
    truly, score = labels == one, p[:, one]
    bin_of = equal_bins(score, bins)
    masks = [bin_of == k for k in np.unique(bin_of)]
    shares = [ranking.share_statistic(truly, mask) for mask in masks]
    drawn = ranking.bootstrap(shares, keys, draws=draws, seed=seed)
    rows = []
    for mask, share, values in zip(masks, shares, drawn, strict=True):
        scale = "percentile" if rarest(truly[mask], keys[mask]) > 1 else "none"
        row = {"predicted": score[mask].mean(), "value": share(np.ones(len(mask)))}
        rows.append(row | ranking.interval(values, scale=scale) | {"n": int(mask.sum())})
    return pd.DataFrame(rows)


def decision_curve(
    predictions: pd.DataFrame,
    *,
    task: str | Task,
    thresholds: Sequence[float] | np.ndarray = REFERRAL,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the net benefit of referring whom the model calls at least ``x`` probable.

    ``TP/n - FP/n * x/(1 - x)``: a threshold of 10 % says that one missed tumour is as bad as nine
    needless referrals. Referring nobody has net benefit 0. It takes the prevalence of these images
    for that of the patients to come.

    Returns:
        x, value, low, high, treat_all (refer everybody).

    Raises:
        ValueError: A threshold is not between 0 and 1.
    """
    task, x = as_task(task), np.asarray(thresholds, dtype=np.float64)
    if not ((x > 0) & (x < 1)).all():
        raise ValueError("Threshold probabilities lie between 0 and 1, both excluded.")
    table, labels, p = labelled(predictions, task)
    positive = detected(task)
    truly = (labels == positive)[:, None]
    worth = np.where(truly, 1.0, -x / (1 - x))  # of referring an image
    called = worth * (p[:, [positive]] >= x)
    benefit = ranking.share_statistic(called, np.ones(len(labels), bool))
    found = _band(x, benefit, table, draws=draws, seed=seed)
    return found.assign(treat_all=worth.mean(axis=0))


def risk_coverage(
    predictions: pd.DataFrame, *, task: str | Task, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Return the share of wrong classes among the ``x`` images of least entropy.

    Returns:
        x (coverage, ``COVERAGES``), value, low, high.

    Raises:
        ValueError: The task's values have no classes to doubt.
    """
    task = as_task(task)
    if task.kind == "regression":
        raise ValueError(f"{task.name!r} has no classes, and so no entropy to rank images by.")
    table, labels, p = labelled(predictions, task)
    with np.errstate(divide="ignore"):
        doubt = entropy(np.log(p.clip(0)))
    risks = _risks((p.argmax(axis=1) != labels).astype(float), doubt)

    def at(weights: np.ndarray) -> np.ndarray:
        return np.stack([(r := risks(row))[_place(COVERAGES, len(r))] for row in weights])

    return _band(COVERAGES, Blocks(np.arange(len(labels)), at), table, draws=draws, seed=seed)


def selective_risk(
    errors: np.ndarray, doubt: np.ndarray, coverage: float = 0.0
) -> ranking.Statistic:
    """Return the risk at a coverage as a function of image weights, for intervals.

    That is the mean error of the images of least doubt. Where images tie, the expectation over
    their orders counts.

    Args:
        errors: ``(N,)``, 1 where the answer is wrong, or how far it is off.
        doubt: ``(N,)``, larger where the answer is less sure, such as ``evaluation.entropy``.
        coverage: Share of images that are answered; 0 takes the mean risk over all coverages, the
            area below the curve (AURC). A doubt that knows nothing of the errors gets their mean.
    """
    risks = _risks(errors, doubt)

    def statistic(weights: np.ndarray) -> float | np.ndarray:
        risk = risks(weights)
        return risk[_place(coverage, len(risk))] if coverage else risk.mean()

    return statistic


def _place(coverage: np.ndarray | float, count: int) -> np.ndarray:
    return np.maximum(1, np.round(np.asarray(coverage) * count)).astype(int) - 1


def _risks(errors: np.ndarray, doubt: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the risk at every coverage as a function of how often each image is drawn."""
    codes = np.unique(doubt, return_inverse=True)[1]

    def risks(weights: np.ndarray) -> np.ndarray:
        drawn = np.bincount(codes, weights).astype(int)
        mean = np.bincount(codes, weights * errors) / np.maximum(drawn, 1)  # of those that tie
        return np.cumsum(np.repeat(mean, drawn)) / np.arange(1, drawn.sum() + 1)

    return risks


def _of_ranks(
    predictions: pd.DataFrame,
    task: str | Task,
    at: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """Evaluate ``at(true, false)`` on ``GRID``: positives and negatives above each cut."""
    task = as_task(task)
    table, labels, p = labelled(predictions, task)
    positive = detected(task)
    score = p[:, positive]
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)  # of each tie
    truly = (labels == positive)[order].astype(int)

    def curves(weights: np.ndarray) -> np.ndarray:
        true, false = (ranking.cumulated(weights * y)[:, np.append(0, last + 1)]
                       for y in (truly, 1 - truly))  # fmt: skip
        out = np.full((len(weights), len(GRID)), np.nan)
        for i in np.flatnonzero((true[:, -1] > 0) & (false[:, -1] > 0)):
            out[i] = at(true[i], false[i])
        return out

    found = _band(GRID, Blocks(order, curves), table, draws=draws, seed=seed)
    if rarest(labels == positive, group_keys(table)[0]) < 2:
        found[["low", "high"]] = np.nan  # draws of one patient do not vary
    return found


def _band(
    x: np.ndarray, curve: Blocks, table: pd.DataFrame, *, draws: int, seed: int
) -> pd.DataFrame:
    keys = group_keys(table)[0]
    drawn = ranking.bootstrap([curve], keys, draws=draws, seed=seed)[0].reshape(-1, len(x))
    value = curve(np.ones((1, len(table)), dtype=np.int64))[0]
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    ends = np.percentile(drawn, (2.5, 97.5), axis=0) if len(drawn) else np.full((2, len(x)), np.nan)
    return pd.DataFrame({"x": x, "value": value, "low": ends[0], "high": ends[1]})
