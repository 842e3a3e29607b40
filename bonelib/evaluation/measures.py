"""Metrics, thresholds, subgroups and comparisons: functions of a predictions table alone.

Rows with a label count, the others are left out. The statistics and their sources are in
``ranking``; here they meet the table's classes, patients and splits.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bonelib.cohort import GROUP, GROUP_KIND, IMAGE_ID, PATIENT, SPLIT, Task
from bonelib.evaluation import ranking
from bonelib.evaluation.kinds import primary
from bonelib.evaluation.methods import METHOD
from bonelib.evaluation.tables import as_task

DRAWS = 2000


def _groups(table: pd.DataFrame) -> tuple[np.ndarray, str]:
    """Name the group that each row is drawn with, and say of what kind the groups are."""
    ids = table[IMAGE_ID].astype("object")
    patient = table.get(PATIENT, pd.Series(pd.NA, index=table.index)).astype("object")
    group = table.get(GROUP, ids).astype("object")
    known = patient.notna()
    fallback = "group " + group.where(group.notna(), ids).astype(str)
    keys = ("patient " + patient.astype(str)).where(known, fallback).to_numpy(dtype="object")
    kinds = ["patient"] if known.any() else []
    if not known.all():
        kind = table.loc[~known, GROUP_KIND].dropna() if GROUP_KIND in table else pd.Series()
        kinds += sorted(set(kind.astype(str)) - set(kinds)) or ["image-level groups"]
    return keys, " and ".join(kinds)


def _labelled(predictions: pd.DataFrame, task: Task) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Keep the rows with a label; their labels (n,) and probabilities (n, C) or values (n, 1)."""
    table = predictions[predictions["label"].notna()]
    if table.empty:
        raise ValueError(
            f"None of the {len(predictions)} predictions has a label. Labels of test images come "
            "from splits.open_test; join them with evaluation.with_labels."
        )
    twice = int(table[IMAGE_ID].duplicated().sum())
    if twice:
        raise ValueError(
            f"{twice} images are predicted more than once. Pass one method and seed at a time: "
            "evaluation.by_method parts a table."
        )
    columns = [f"p_{name}" for name in task.classes] or ["value"]
    lacking = [c for c in columns if c not in table]
    if lacking:
        raise ValueError(f"The predictions lack {lacking}: are they of the task {task.name!r}?")
    labels = task.encode(table["label"])
    if task.kind != "regression" and len(np.unique(labels)) < 2:
        raise ValueError(
            f"All {len(table)} labelled rows are {task.classes[labels[0]]!r}; metrics need two "
            "classes. Pool centres or folds, or choose another subgroup."
        )
    return table, labels, table[columns].to_numpy(dtype=np.float64)


def _positive(task: Task) -> int | None:
    if task.positive:
        return task.classes.index(task.positive)
    return 1 if len(task.classes) == 2 else None


def _detected(task: Task) -> int:
    positive = _positive(task)
    if positive is None:
        raise ValueError(f"{task.name!r} has no positive class for a threshold to detect.")
    return positive


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
    if task.kind == "regression":
        error = np.abs(p[:, 0] - labels)
        named = {("MAE", ""): ranking.share_statistic(error, np.ones(len(labels), bool))}
    else:
        positive = _positive(task) if threshold is None else _detected(task)
        options = {"positive": positive, "threshold": threshold, "ordinal": task.kind == "ordinal"}
        named = ranking.class_statistics(labels, p, classes=task.classes, **options)
    names = {key: " ".join(key).strip() for key in named}
    unknown = sorted(set(only or ()) - {m for m, _ in named} - set(names.values()))
    if unknown:
        raise ValueError(f"Unknown metrics {unknown}; there are {sorted({m for m, _ in named})}.")
    asked = {k: s for k, s in named.items() if not only or k[0] in only or names[k] in only}
    own = np.array([[statistic(np.ones(len(labels)))] for statistic in asked.values()])
    drawn = ranking.bootstrap(list(asked.values()), keys, draws=draws, seed=seed)
    values = dict(zip(asked, np.hstack([own, drawn]), strict=True))
    out: dict[str, np.ndarray] = {}
    for (metric, name), column in values.items():
        if name and metric not in out:  # the mean over the classes that occur stands before them
            parts = [v for (m, _), v in values.items() if m == metric and not np.isnan(v[0])]
            out[metric] = np.mean(parts, axis=0)
        if metric != "balanced accuracy":
            out[names[metric, name]] = column
    return {name: v for name, v in out.items() if not only or name in only}


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
    the classes that occur, ``AUROC <class>`` each of them. Accuracy takes the most probable class,
    or the threshold in a binary task. Brier is the squared error of the positive class (binary,
    0 to 1) or its sum over classes (0 to 2). Rows without a label are left out of ``n``.

    Args:
        threshold: Probability of the positive class from which an image is called positive; from
            `choose_threshold`, never from the test images. Adds sensitivity and specificity.
        only: Names of the metrics wanted; the others are not computed.

    Returns:
        metric, value, low, high, n, groups, group_kind and ``dropped``: the share of draws that
        lacked a class and are left out of the interval.
    """
    task = as_task(task)
    table, labels, p = _labelled(predictions, task)
    keys, kind = _groups(table)
    only = tuple([only] if isinstance(only, str) else only or ()) or None
    named = _drawn(task, keys, labels, p, threshold=threshold, only=only, draws=draws, seed=seed)
    rows = [{"metric": m, "value": v[0], **ranking.interval(v[1:])} for m, v in named.items()]
    out = pd.DataFrame(rows).assign(n=len(table), groups=len(set(keys)), group_kind=kind)
    return out[[*out.columns.drop("dropped"), "dropped"]]


def score(predictions: pd.DataFrame, task: str | Task) -> float:
    """Return one number to choose a model by, on validation rows: the `primary` metric."""
    task = as_task(task)
    _, labels, p = _labelled(predictions, task)
    metric = primary(task).metric
    return float(_drawn(task, labels, labels, p, only=(metric,), draws=0, seed=0)[metric][0])


def subgroups(
    predictions: pd.DataFrame,
    by: str,
    *,
    task: str | Task,
    minimum: int = 10,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute the primary metric within each value of a column, with its interval.

    The positive class against the rest where the task has one. Missing values are a row of their
    own. A value with fewer than ``minimum`` images of a class says "too few" instead.

    Returns:
        ``by``, metric, value, low, high, n, positives, groups, group_kind, note.
    """
    task = as_task(task)
    if by not in predictions:
        raise ValueError(
            f"No column {by!r} in the predictions. Join it from the cohort first: "
            f"predictions.merge(cohort[['image_id', {by!r}]])."
        )
    table, labels, _ = _labelled(predictions, task)
    positive, metric = _positive(task), primary(task).metric
    truth = labels if positive is None else labels == positive
    if positive is not None and len(task.classes) > 2:
        metric = f"AUROC {task.positive}"
    value = table[by].map(lambda v: " + ".join(v) if isinstance(v, tuple) else v)
    value = value.astype("object").where(value.notna() & (value != ""), "missing").astype(str)
    rows = []
    for name in sorted(value.unique()):
        inside = (value == name).to_numpy()
        keys, kind = _groups(table[inside])
        counts = [(truth[inside] == c).sum() for c in np.unique(truth)] if task.classes else []
        row = {by: name, "metric": metric, "value": np.nan, "low": np.nan, "high": np.nan}
        row |= {"n": inside.sum(), "positives": pd.NA if positive is None else counts[1]}
        row |= {"groups": len(set(keys)), "group_kind": kind, "note": "too few"}
        if min([*counts, inside.sum()]) >= minimum:
            found = metrics(table[inside], task=task, draws=draws, seed=seed, only=(metric,))
            row |= {**found.loc[0, ["value", "low", "high"]], "note": ""}
        rows.append(row)
    return pd.DataFrame(rows)


def choose_threshold(
    validation: pd.DataFrame, *, task: str | Task, sensitivity: float | None = None
) -> float:
    """Choose the probability from which an image is called positive, on validation rows only.

    The largest Youden index, or the highest threshold that reaches the ``sensitivity`` asked for.

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
    _, labels, p = _labelled(validation, task)
    positive = _detected(task)
    return ranking.best_cut(labels == positive, p[:, positive], sensitivity=sensitivity)


def calibration(
    predictions: pd.DataFrame, *, task: str | Task, bins: int = 8, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Compare the predicted probability of the positive class with how often it was right.

    Returns:
        One row per bin of equal size: predicted (mean), value (share observed), low, high, n.
    """
    task = as_task(task)
    table, labels, p = _labelled(predictions, task)
    one, keys = _detected(task), _groups(table)[0]
    return ranking.reliability(labels == one, p[:, one], keys, bins=bins, draws=draws, seed=seed)


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
        metric, value, low, high, p, n, groups, group_kind, dropped; for a binary task without
        known patients also p_delong. p is twice the smaller share of draws on one side of zero.

    Raises:
        ValueError: The tables are not about the same images with the same labels.
    """
    task = as_task(task)
    metric = metric or primary(task).metric
    pairs = [_labelled(table.sort_values(IMAGE_ID), task) for table in (first, second)]
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
    keys, kind = _groups(pairs[0][0])
    labels = pairs[0][1]
    a, b = (
        _drawn(task, keys, labels, p, only=(metric,), draws=draws, seed=seed)[metric]
        for _, _, p in pairs
    )
    found = {"metric": metric, "value": a[0] - b[0], **ranking.interval((a - b)[1:])}
    found["p"] = ranking.two_sided((a - b)[1:])
    found |= {"n": len(labels), "groups": len(set(keys)), "group_kind": kind}
    if len(task.classes) == 2 and "patient" not in kind:
        one = _positive(task)
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
    task, parts = as_task(task), [_labelled(table, as_task(task)) for table in tables]
    if any(list(table[IMAGE_ID]) != list(parts[0][0][IMAGE_ID]) for table, _, _ in parts):
        raise ValueError("The tables must be about the same images in the same order.")
    keys, metric = _groups(parts[0][0])[0], metric or primary(task).metric
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
        metric, value, low, high; ``lowest`` and ``highest`` repeat; ``repeats``, n, groups,
        group_kind; with ``against`` also p, as in `compare`.

    Raises:
        ValueError: The tables are not about the same images, or not as many.
    """
    task = as_task(task)
    metric = metric or primary(task).metric
    if against and len(against) != len(tables):
        raise ValueError(f"{len(tables)} repeats against {len(against)}: take as many of both.")
    every, count = [t.sort_values(IMAGE_ID) for t in (*tables, *against)], len(tables)
    values = drawn(every, task=task, metric=metric, draws=draws, seed=seed)
    keys, kind = _groups(_labelled(every[0], task)[0])
    values = values[:count] - values[count:] if against else values
    chosen = np.random.default_rng(seed).integers(count, size=(draws, count))
    patients = values[:, 1:].mean(axis=0)
    luck = values[chosen, 1 + np.arange(draws)[:, None]].mean(axis=1) - patients
    both = patients + luck * np.sqrt(count / max(1, count - 1))
    own = values[:, 0]
    found = {"metric": metric, "value": own.mean(), **ranking.interval(both)}
    found |= {"lowest": own.min(), "highest": own.max(), "repeats": count}
    found |= {"p": ranking.two_sided(both)} if against else {}
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
    statistics: Mapping[str, ranking.Statistic],
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
    keys, kind = _groups(table)
    drawn = ranking.bootstrap(list(statistics.values()), keys, draws=draws, seed=seed)
    every = np.ones(len(table))
    rows = [
        {"measure": name, "value": statistic(every), **ranking.interval(values)}
        | {"p": ranking.two_sided(values)}
        for (name, statistic), values in zip(statistics.items(), drawn, strict=True)
    ]
    named = dict(n=len(table), groups=len(set(keys)), group_kind=kind)
    return pd.DataFrame(rows).drop(columns="dropped").assign(**named)
