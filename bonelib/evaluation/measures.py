"""Metrics, thresholds and comparisons: functions of a predictions table alone.

Rows with a label count, the others are left out. The statistics and their sources are in
``ranking``; here they meet the table's classes, patients and splits.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bonelib.cohort import IMAGE_ID, SPLIT, Task
from bonelib.evaluation import counting, ranking, reliability
from bonelib.evaluation.kinds import primary
from bonelib.evaluation.methods import METHOD
from bonelib.evaluation.rows import detected, group_keys, labelled, positive_class, rarest
from bonelib.evaluation.tables import as_task

DRAWS = 2000
SMALL = 200  # patients of the rarest class below which shares have intervals on the logit
_SHARES = ("AUROC", "AUPRC", "accuracy", "balanced accuracy", "F1", "sensitivity", "specificity")
_SHARES += (counting.AT_90,)
_OF_ONE = (counting.AT_90, *reliability.STATISTICS)  # of the positive class against the rest
_OF_ALL = ("accuracy", "Brier", "quadratic kappa", "MAE")  # means over all, whatever their class


def _drawn(
    task: Task,
    keys: np.ndarray,
    labels: np.ndarray,
    p: np.ndarray,
    *,
    threshold: float | None = None,
    only: tuple[str, ...] | None = None,
    draws: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Name each metric's values ``(1 + draws,)``: first that of the data, then one per draw."""
    named = counting.statistics(task, labels, p, threshold)
    names = {key: " ".join(key).strip() for key in named}
    unknown = sorted(set(only or ()) - {m for m, _ in named} - set(names.values()))
    if unknown:
        raise ValueError(f"Unknown metrics {unknown}; there are {sorted({m for m, _ in named})}.")
    asked = {k: s() for k, s in named.items() if not only or k[0] in only or names[k] in only}
    own = np.array([[statistic(np.ones(len(labels)))] for statistic in asked.values()])
    drawn = ranking.bootstrap([*asked.values()], keys, draws=draws, seed=seed)
    values = dict(zip(asked, np.hstack([own, drawn]), strict=True))
    out: dict[str, np.ndarray] = {}
    for (metric, name), column in values.items():
        if name and metric not in out:  # the mean over the classes that occur stands before them
            parts = [v for (m, _), v in values.items() if m == metric and not np.isnan(v[0])]
            out[metric] = np.mean(parts, axis=0)
        out[names[metric, name]] = column
    return {name: v for name, v in out.items() if not only or name in only}


def _scale(task: Task, metric: str, labels: np.ndarray, keys: np.ndarray) -> tuple[str, int]:
    """Say on which scale an interval is taken, as `metrics` explains, and of how many patients."""
    of_class = [c for c in task.classes if metric in (f"AUROC {c}", f"AUPRC {c}")]
    base = metric.removesuffix(f" {of_class[0]}") if of_class else metric
    one = task.classes.index(of_class[0]) if of_class else positive_class(task)
    against = bool(of_class) or base in _OF_ONE and one is not None
    if base in _OF_ALL:
        patients = len(set(keys))
    elif base in ("sensitivity", "specificity"):  # the other side has no part in it
        patients = len(set(keys[(labels == detected(task)) == (base == "sensitivity")]))
    else:
        patients = rarest(labels == one if against else labels, keys)
    scale = "basic" if base == "ECE" else "percentile"
    if patients < SMALL and base in _SHARES:
        scale = "logit"
    return scale if patients > 1 else "none", patients


def metrics(
    predictions: pd.DataFrame,
    *,
    task: str | Task,
    threshold: float | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    only: tuple[str, ...] | None = None,
) -> pd.DataFrame:
    """Compute every metric of the task with a 95 % interval from the patient-clustered bootstrap.

    AUROC and AUPRC are of the positive class (binary) or one-vs-rest: ``AUROC`` is the mean over
    the classes that occur, ``AUROC <class>`` each of them. Accuracy, balanced accuracy, F1 and MCC
    take the most probable class, or the threshold in a binary task; F1 is that of the positive
    class (binary), else the mean over the classes that occur. Brier is the squared error of the
    positive class (binary, 0 to 1) or its sum over classes (0 to 2). ``sensitivity at 90 %
    specificity`` is a point of these images' own ROC curve, its cut chosen on them (in-sample): for
    a cut that was frozen before, pass ``choose_threshold(validation, specificity=0.9)`` as the
    threshold. ECE, calibration slope and intercept (``reliability``) are of the positive class
    against the rest, of a task without one the mean over the classes that occur.

    Rows without a label are left out of ``n``; predictions that are missing, or no probabilities,
    are refused (``rows``).

    Args:
        threshold: Probability of the positive class from which an image is called positive; from
            `choose_threshold`, never from the test images. Adds sensitivity and specificity.
        only: Names of the metrics wanted; the others are not computed.

    Returns:
        metric, value, low, high, n, groups, group_kind, ``interval`` and ``dropped``: the share of
        draws that lacked a class and are left out. ``interval`` says how it was taken:
        ``percentile`` of the draws; ``logit`` for shares (0 to 1) with fewer than ``SMALL``
        patients of the rarest class that they are about (the sensitivity is about the positives
        alone), where percentiles cover too rarely (``benchmarks/intervals.py``), but for a value of
        0 or 1; ``basic`` for the ECE, which draws enlarge; ``none`` where such a class has one
        patient.
    """
    task = as_task(task)
    table, labels, p = labelled(predictions, task)
    keys, kind = group_keys(table)
    only = tuple([only] if isinstance(only, str) else only or ()) or None
    named = _drawn(task, keys, labels, p, threshold=threshold, only=only, draws=draws, seed=seed)
    rows = []
    for metric, (value, *drawn) in named.items():
        scale, patients = _scale(task, metric, labels, keys)
        found = ranking.interval(np.array(drawn), value=value, scale=scale, patients=patients)
        limit = scale == "logit" and value in (0, 1)  # has no log odds
        taken = "percentile" if limit else scale
        rows.append({"metric": metric, "value": value, **found, "interval": taken})
    out = pd.DataFrame(rows).assign(n=len(table), groups=len(set(keys)), group_kind=kind)
    last = ["interval", "dropped"]
    return out[[*out.columns.drop(last), *last]]


def score(predictions: pd.DataFrame, task: str | Task) -> float:
    """Return one number to choose a model by, on validation rows: the `primary` metric."""
    task = as_task(task)
    _, labels, p = labelled(predictions, task)
    metric = primary(task).metric
    return float(_drawn(task, labels, labels, p, only=(metric,), draws=0, seed=0)[metric][0])


def choose_threshold(
    validation: pd.DataFrame,
    *,
    task: str | Task,
    sensitivity: float | None = None,
    specificity: float | None = None,
) -> float:
    """Choose the probability from which an image is called positive, on validation rows only.

    The largest Youden index, the highest threshold that reaches the ``sensitivity`` asked for, or
    the lowest that reaches the ``specificity``.

    Raises:
        ValueError: The table holds test rows, or does not say which rows it holds.
    """
    task = as_task(task)
    held = set(validation[SPLIT].dropna().astype(str)) if SPLIT in validation else set()
    if not held or "test" in held:
        raise ValueError(
            f"A threshold is chosen on validation predictions; the column {SPLIT!r} holds "
            f"{sorted(held) or 'nothing'}. Pass the validation rows only."
        )
    _, labels, p = labelled(validation, task)
    positive = detected(task)
    asked = {"sensitivity": sensitivity, "specificity": specificity}
    return ranking.best_cut(labels == positive, p[:, positive], **asked)


def confusion(
    predictions: pd.DataFrame, *, task: str | Task, threshold: float | None = None
) -> pd.DataFrame:
    """Count the images of each true class (rows) by the predicted one (columns).

    Args:
        threshold: As in `metrics`; without it, and with several classes, the most probable class.
    """
    task = as_task(task)
    if task.kind == "regression":
        raise ValueError(f"{task.name!r} has no classes to confuse; see bland_altman.")
    _, labels, p = labelled(predictions, task)
    guesses = counting.called(p, positive_class(task), threshold)
    counts = np.zeros((len(task.classes),) * 2, dtype=np.int64)
    np.add.at(counts, (labels, guesses), 1)
    axes = (pd.Index(task.classes, name=name) for name in ("true", "predicted"))
    return pd.DataFrame(counts, *axes)


def compare(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    task: str | Task,
    metric: str = "",
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.Series:
    """Compare two models on the same images by the same draws of patients: first minus second.

    Args:
        metric: A name of `metrics` that needs no threshold; empty takes the `primary` one.

    Returns:
        metric, value, low, high, p, n, groups, group_kind, dropped; for the AUROC of a binary task
        without known patients also p_delong. The interval is that of percentiles, p twice the
        smaller share of draws on one side of zero; both are NaN where a class has one patient.

    Raises:
        ValueError: The tables are not about the same images with the same labels.
    """
    task = as_task(task)
    metric = metric or primary(task).metric
    pairs = [labelled(table.sort_values(IMAGE_ID), task) for table in (first, second)]
    ids = [set(table[IMAGE_ID]) for table, _, _ in pairs]
    differ = sorted(map(str, ids[0] ^ ids[1]))
    if differ:
        raise ValueError(
            f"{len(differ)} images are labelled in one table only, e.g. {differ[:3]}. A paired "
            "comparison needs the same images: keep those in both."
        )
    wrong = int((pairs[0][1] != pairs[1][1]).sum())
    if wrong:
        raise ValueError(f"{wrong} images have different labels in the two tables.")
    keys, kind = group_keys(pairs[0][0])
    labels = pairs[0][1]
    a, b = (
        _drawn(task, keys, labels, p, only=(metric,), draws=draws, seed=seed)[metric]
        for _, _, p in pairs
    )
    scale = "none" if _scale(task, metric, labels, keys)[0] == "none" else "percentile"
    found = {"metric": metric, "value": a[0] - b[0]}
    found |= ranking.interval((a - b)[1:], scale=scale)
    found["p"] = np.nan if scale == "none" else ranking.two_sided((a - b)[1:])
    found |= {"n": len(labels), "groups": len(set(keys)), "group_kind": kind}
    if len(task.classes) == 2 and metric == "AUROC" and "patient" not in kind:
        one = positive_class(task)
        found["p_delong"] = ranking.delong(labels == one, pairs[0][2][:, one], pairs[1][2][:, one])[
            "p"
        ]
    return pd.Series(found)


def drawn(
    tables: Sequence[pd.DataFrame],
    *,
    task: str | Task,
    metric: str = "",
    draws: int = DRAWS,
    seed: int = 0,
) -> np.ndarray:
    """Return a metric of M methods on the data and on the same draws of patients.

    Args:
        tables: Predictions of the methods, about the same images in the same order.
        metric: As in `compare`.

    Returns:
        ``(M, 1 + draws)``, the data first; NaN where a draw lacks a class.

    Raises:
        ValueError: The tables are about different images.
    """
    task, parts = as_task(task), [labelled(table, as_task(task)) for table in tables]
    if any(list(table[IMAGE_ID]) != list(parts[0][0][IMAGE_ID]) for table, _, _ in parts):
        raise ValueError("The tables must be about the same images in the same order.")
    keys, metric = group_keys(parts[0][0])[0], metric or primary(task).metric
    options = dict(only=(metric,), draws=draws, seed=seed)
    return np.stack([_drawn(task, keys, y, p, **options)[metric] for _, y, p in parts])


def repeated(
    tables: Sequence[pd.DataFrame],
    *,
    task: str | Task,
    metric: str = "",
    against: Sequence[pd.DataFrame] = (),
    draws: int = 500,
    seed: int = 0,
) -> pd.Series:
    """Score repeats of one method on the same images: draws of few labels, or seeds of a training.

    The value is the mean over repeats. The interval resamples both: each draw takes as many repeats
    with replacement as there are, and the same patients for all of them. A mean of R that are drawn
    from R varies too little, by (R - 1) / R, which is made good (Davison & Hinkley 1997, section
    2.3, recalled). Of one repeat the interval is that of patients alone.

    Args:
        against: The same repeats of another method: the differences are scored, this one minus it.

    Returns:
        metric, value, low, high (as in `metrics`); ``lowest`` and ``highest`` repeat; ``repeats``,
        n, groups, group_kind; with ``against`` also p, as in `compare`.

    Raises:
        ValueError: The tables are not about the same images, or not as many.
    """
    task = as_task(task)
    metric = metric or primary(task).metric
    if against and len(against) != len(tables):
        raise ValueError(f"{len(tables)} repeats against {len(against)}: take as many of both.")
    every, count = [t.sort_values(IMAGE_ID) for t in (*tables, *against)], len(tables)
    values = drawn(every, task=task, metric=metric, draws=draws, seed=seed)
    table, labels, _ = labelled(every[0], task)
    keys, kind = group_keys(table)
    scale, patients = _scale(task, metric, labels, keys)
    if against and scale != "none":
        scale = "percentile"
    values = values[:count] - values[count:] if against else values
    chosen = np.random.default_rng(seed).integers(count, size=(draws, count))
    means = values[:, 1:].mean(axis=0)
    luck = values[chosen, 1 + np.arange(draws)[:, None]].mean(axis=1) - means
    both = means + luck * np.sqrt(count / max(1, count - 1))
    own = values[:, 0]
    found = {"metric": metric, "value": own.mean()}
    found |= ranking.interval(both, value=own.mean(), scale=scale, patients=patients)
    found |= {"lowest": own.min(), "highest": own.max(), "repeats": count}
    if against:
        found["p"] = np.nan if scale == "none" else ranking.two_sided(both)
    told = {"n": len(keys), "groups": len(set(keys)), "group_kind": kind}
    return pd.Series(found | told)


def means(
    table: pd.DataFrame,
    measures: list[str],
    *,
    by: str | Sequence[str] = METHOD,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Average measures of single images (how well a heat map meets a lesion) within each ``by``.

    Returns:
        ``by``, measure, value, low, high, n, groups, group_kind; the interval resamples patients.
    """
    found, by = [], [by] if isinstance(by, str) else list(by)
    for name, part in table.groupby(by, sort=False):
        values = part[measures].to_numpy(dtype=np.float64)
        known = ~np.isnan(values)
        shares = {
            measure: ranking.share_statistic(np.nan_to_num(values[:, i]), known[:, i])
            for i, measure in enumerate(measures)
        }
        rows = estimate(part, shares, draws=draws, seed=seed).drop(columns="p")
        rows["n"] = known.sum(axis=0)
        found.append(rows.assign(**dict(zip(by, name, strict=True))))
    return pd.concat(found, ignore_index=True)[[*by, *found[0].columns.drop(by)]]


def estimate(
    table: pd.DataFrame,
    statistics: Mapping[str, ranking.Statistic] | Mapping[float, ranking.Statistic],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Evaluate any statistics of the rows of a table, with intervals that resample patients.

    A paired difference is the difference of two such statistics.

    Args:
        statistics: By name, functions of the weights of the rows ``(N,)``; see ``ranking``.

    Returns:
        measure, value, low, high, p (of "it is zero"), n, groups, group_kind.
    """
    keys, kind = group_keys(table)
    drawn = ranking.bootstrap(list(statistics.values()), keys, draws=draws, seed=seed)
    every = np.ones(len(table))
    rows = [
        {"measure": name, "value": statistic(every), **ranking.interval(values)}
        | {"p": ranking.two_sided(values)}
        for (name, statistic), values in zip(statistics.items(), drawn, strict=True)
    ]
    named = dict(n=len(table), groups=len(set(keys)), group_kind=kind)
    return pd.DataFrame(rows).drop(columns="dropped").assign(**named)
