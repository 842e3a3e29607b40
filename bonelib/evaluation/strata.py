"""Metrics within parts of the patients, and one test of whether they differ between them."""

import numpy as np
import pandas as pd

from bonelib.cohort import Task
from bonelib.evaluation import counting, ranking
from bonelib.evaluation.kinds import primary
from bonelib.evaluation.measures import DRAWS, metrics
from bonelib.evaluation.rows import group_keys, labelled, positive_class, rarest
from bonelib.evaluation.tables import as_task

MINIMUM = 10  # patients of a class
AGES = {"0–19": 0, "20–39": 20, "40–59": 40, "60+": 60}  # first year of each band
OLDEST = 120


def age_band(age: pd.Series) -> pd.Series:
    """Return the band of each age in years, one of ``AGES``; missing stays missing.

    Raises:
        ValueError: An age is below 0 or above ``OLDEST``.
    """
    years = pd.to_numeric(age).astype("Float64").astype(float)
    odd = years[(years < 0) | (years > OLDEST)]
    if len(odd):
        raise ValueError(
            f"{len(odd)} ages lie outside 0 to {OLDEST} years, e.g. {odd.iloc[0]:g}. Mend them, or "
            "set them to missing."
        )
    edges = [*AGES.values(), np.inf]
    return pd.cut(years, edges, right=False, labels=[*AGES]).astype("object")


def subgroups(
    predictions: pd.DataFrame,
    by: str,
    *,
    task: str | Task,
    minimum: int = MINIMUM,
    shared: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute the primary metric within each value of a column, with its interval.

    The positive class against the rest where the task has one. Missing values are a row of their
    own. A value with fewer than ``minimum`` *patients* of a class says so instead of a number: ten
    images of one patient are one observation.

    Args:
        shared: Take each value's positives against the negatives of the whole table, where the
            column says nothing of negatives, such as the entity, or BTXRD's sites. The rows then
            share images, and ``n`` counts these too.

    Returns:
        ``by``, metric, value, low, high, n, positives (images), fewest (patients of the rarest
        class), groups, group_kind, note: empty, or ``too few`` or ``one class only``.
    """
    task, rows = as_task(task), []
    table, labels, _ = labelled(predictions, task)
    positive, metric = positive_class(task), _metric(task)
    for name, inside in _strata(table, by, labels, task, shared).items():
        part, own = table.iloc[inside], labels[inside]
        keys, kind = group_keys(part)
        fewest = _fewest(task, own, keys)
        row = {by: name, "metric": metric, "value": np.nan, "low": np.nan, "high": np.nan}
        row |= {"n": len(part), "positives": pd.NA if positive is None else sum(own == positive)}
        row |= {"fewest": fewest, "groups": len(set(keys)), "group_kind": kind}
        row["note"] = "too few" if fewest else "one class only"
        if fewest >= max(minimum, 1):
            found = metrics(part, task=task, draws=draws, seed=seed, only=(metric,))
            row |= {**found.loc[0, ["value", "low", "high"]], "note": ""}
        rows.append(row)
    return pd.DataFrame(rows)


def gap(
    predictions: pd.DataFrame,
    by: str,
    *,
    task: str | Task,
    minimum: int = MINIMUM,
    shared: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.Series:
    """Test whether the primary metric differs between the values of a column; see `wald`.

    The covariance of the values is that of the same draws of patients for all (Efron & Tibshirani
    1993, chapter 6, recalled). Missing values, and those with too few patients (see `subgroups`),
    are left out and counted. The test says nothing of why: one value may hold harder cases.

    Returns:
        by, metric, statistic, df, p (NaN with fewer than two values, or where one has none of its
        errors); compared, left_out (numbers of values); lowest, highest (their names), range; n,
        groups, group_kind.
    """
    from scipy.stats import chi2

    task = as_task(task)
    table, labels, p = labelled(predictions, task)
    (keys, kind), metric = group_keys(table), _metric(task)
    every = _strata(table, by, labels, task, shared)
    every.pop("missing", None)
    enough = max(minimum, 2)
    kept = {k: r for k, r in every.items() if _fewest(task, labels[r], keys[r]) >= enough}
    found = {"by": by, "metric": metric, "statistic": np.nan, "df": len(kept) - 1, "p": np.nan}
    found |= {"compared": len(kept), "left_out": len(every) - len(kept)}
    found |= {"lowest": "", "highest": "", "range": np.nan}
    if len(kept) > 1:
        parts = []
        for rows in kept.values():
            named = counting.statistics(task, labels[rows], p[rows]).items()
            held = {"", *(c for i, c in enumerate(task.classes) if i in labels[rows])}
            makes = [m for (base, c), m in named if c in held and metric in (base, f"{base} {c}")]
            parts.append(counting.averaged(makes, len(rows)).among(rows))
        values = pd.Series([part(np.ones(len(labels))) for part in parts], [*kept])
        drawn = ranking.bootstrap(parts, keys, draws=draws, seed=seed)
        covariance = np.cov(drawn[:, np.isfinite(drawn).all(axis=0)])
        logit = metric.startswith("AUROC")
        found["statistic"] = wald(values.to_numpy(), covariance, logit=logit)
        found["p"] = chi2.sf(found["statistic"], found["df"])
        found |= {"lowest": values.idxmin(), "highest": values.idxmax()}
        found["range"] = values.max() - values.min()
    used = np.isin(np.arange(len(table)), [i for rows in kept.values() for i in rows])
    told = {"n": int(used.sum()), "groups": len(set(keys[used])), "group_kind": kind}
    return pd.Series(found | told)


def wald(values: np.ndarray, covariance: np.ndarray, *, logit: bool) -> float:
    """Return Wald's statistic of "all K values are equal", chi-square of K - 1; NaN if singular.

    Wald 1943, Trans Am Math Soc 54:426 (recalled). With ``logit`` the log odds are compared, by the
    delta method; values must then lie within 0 and 1.
    """
    if logit:
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = 1 / (values * (1 - values))
            values, covariance = np.log(values / (1 - values)), covariance * np.outer(slope, slope)
    steps = np.eye(len(values))[1:] - np.eye(len(values))[0]  # each value minus the first
    spread, off = steps @ covariance @ steps.T, steps @ values
    if not np.isfinite(spread).all() or np.linalg.matrix_rank(spread) < len(off):
        return np.nan
    return float(off @ np.linalg.solve(spread, off))


def _metric(task: Task) -> str:
    several = positive_class(task) is not None and len(task.classes) > 2
    return f"AUROC {task.positive}" if several else primary(task).metric


def _strata(
    table: pd.DataFrame, by: str, labels: np.ndarray, task: Task, shared: bool
) -> dict[str, np.ndarray]:
    """Name the rows of each value, in the order of the values' names."""
    if by not in table:
        raise ValueError(
            f"No column {by!r} in the predictions. Join it from the cohort first: "
            f"predictions.merge(cohort[['image_id', {by!r}]])."
        )
    if shared and positive_class(task) is None:
        raise ValueError(f"{task.name!r} has no positive class whose negatives could be shared.")
    value = table[by].map(lambda v: " + ".join(v) if isinstance(v, tuple) else v)
    value = value.astype("object").where(value.notna() & (value != ""), "missing").astype(str)
    common = (labels != positive_class(task)) & shared
    names = sorted(value[~common].unique())
    return {name: np.flatnonzero((value == name).to_numpy() | common) for name in names}


def _fewest(task: Task, labels: np.ndarray, keys: np.ndarray) -> int:
    """Count the patients of the rarest class, 0 where one is lacking; all, if there is none."""
    if task.kind == "regression":
        return len(set(keys))
    positive = positive_class(task)
    return rarest(labels if positive is None else labels == positive, keys)
