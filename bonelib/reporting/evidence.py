"""What one method is worth in use: what it calls, how far its probabilities hold, and for whom.

The opened predictions of one method come in, with what the cohort knows of its images; tables of
the operating point and of subgroups, their figures and sentences go out. The method is named by the
experiment or chosen on validation patients, never the best one on test.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from bonelib import evaluation, figures
from bonelib.evaluation import Method
from bonelib.reporting.tables import THRESHOLD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AGE_BAND, ENTITY, ENDS = "age band", "entity", ["value", "low", "high"]
SUBGROUPS = ("site", AGE_BAND, "sex", "center", "view", ENTITY)
LEVEL = 0.05  # below it a corrected p-value excludes chance


@dataclass(frozen=True)
class Evidence:
    """One method on opened images.

    Attributes:
        predictions: Its labelled rows, with the columns of subgroups that are known.
        threshold: From which an image is called positive; None where the most probable class is
            the call, and for values.
        points: Rows of ``evaluation.metrics``; of values also those of ``evaluation.bland_altman``.
        subgroups: Rows of ``evaluation.subgroups`` by column.
        gaps: A row of ``evaluation.gap`` a column, with ``p_holm`` over the columns.
    """

    task: Any
    method: Method
    predictions: pd.DataFrame
    threshold: float | None
    points: pd.DataFrame
    subgroups: dict[str, pd.DataFrame]
    gaps: pd.DataFrame

    @property
    def known(self) -> dict[str, pd.DataFrame]:
        """The subgroups that have enough patients for a number, by column."""
        parts = {by: part[part["note"] == ""] for by, part in self.subgroups.items()}
        return {by: part for by, part in parts.items() if len(part)}


def choose(validation: pd.DataFrame, *, task: Any) -> Method:
    """Return the method of images alone that is best on validation patients, the first of equals.

    Args:
        validation: Predictions of validation images, by method.
    """
    tables = {m: rows for m, rows in evaluation.by_method(validation).items() if m.sees == "image"}
    sign = -1 if evaluation.primary(task).lower else 1
    return max(tables, key=lambda m: sign * evaluation.score(tables[m], task))


def judge(
    predictions: pd.DataFrame,
    table: pd.DataFrame,
    *,
    task: Any,
    method: Method,
    opened: pd.DataFrame,
    draws: int = evaluation.DRAWS,
) -> Evidence:
    """Judge the calls and the probabilities of one method, for all images and by subgroup.

    Args:
        predictions: Opened, of one task, with the columns of methods; ``threshold`` where one was
            frozen on validation patients. Without, a binary task is called at one half.
        table: The cohort, for site, age, sex, centre and view.
        opened: What the door to the test set gave, for the entity of each image.
    """
    task = evaluation.as_task(task)
    rows = evaluation.by_method(predictions)[method].dropna(subset=["label"])
    cut = rows[THRESHOLD].iloc[0] if THRESHOLD in rows else pd.NA
    cut = float(cut) if pd.notna(cut) else 0.5 if task.kind == "binary" else None
    known = table.set_index("image_id").drop(columns=ENTITY, errors="ignore")
    if "age" in known and known["age"].notna().any():
        known[AGE_BAND] = evaluation.age_band(known["age"])
    if task.positive:  # its positives are parted by entity
        known[ENTITY] = opened.set_index("image_id").get(ENTITY)
    columns = known.reindex(index=rows["image_id"], columns=[c for c in SUBGROUPS if c in known])
    rows = rows.assign(**{name: values.to_numpy() for name, values in columns.items()})
    told = dict(task=task, draws=draws)
    points = evaluation.metrics(rows, threshold=cut, **told).drop(columns="dropped")
    each = [f"{metric} {name}" for metric in points["metric"] for name in task.classes]
    points = points[~points["metric"].isin(each)]
    if task.kind == "regression":
        points = pd.concat([points, evaluation.bland_altman(rows, **told)])
    parts, gaps = {}, []
    for by in (c for c in columns if rows[c].nunique() > 1):
        shared = by == ENTITY  # only tumours have one
        parts[by] = evaluation.subgroups(rows, by, shared=shared, **told)
        gaps.append(evaluation.gap(rows, by, shared=shared, **told))
    tests = pd.DataFrame(gaps, columns=None if gaps else ["by", "p"]).dropna(subset=["p"])
    tests["p_holm"] = evaluation.holm(tests["p"].to_numpy())
    return Evidence(task, method, rows, cut, points, parts, tests)


def shown(judged: Iterable[Evidence]) -> pd.DataFrame:
    """Return the metrics of each method, and of its subgroups that have enough patients."""
    frames = [pd.DataFrame()]
    for one in judged:
        parts = [part.rename(columns={by: "group"}).assign(by=by) for by, part in one.known.items()]
        told = pd.concat([one.points.assign(by="all images", group=""), *parts])
        told = told.merge(one.gaps[["by", "p_holm"]], on="by", how="left")
        told["value [95 % interval]"] = [figures.with_interval(*v) for v in told[ENDS].to_numpy()]
        written = ["–" if pd.isna(p) else figures.p_value(p) for p in told["p_holm"]]
        told["p of the gap (Holm)"] = written
        kept = ["by", "group", "metric", "value [95 % interval]", "n", "groups", told.columns[-1]]
        frames.append(told[kept].assign(task=one.task.name))
    return pd.concat(frames, ignore_index=True)


def draw(judged: Sequence[Evidence], name: str) -> Iterator[tuple[str, "Figure"]]:
    """Yield two figures of each method, named: calls and probabilities, and subgroups.

    Of values the first one shows the differences from the truth; without a class to detect, the
    calls alone.

    Args:
        name: What the names begin with: the number of the notebook.
    """
    for one in judged:
        end = f"_{one.task.name}" if len(judged) > 1 else ""
        rows, task = one.predictions, one.task.name
        if one.task.kind == "regression":
            limits = one.points[one.points["metric"].isin(evaluation.LIMITS)]
            limits = limits.assign(**one.method.columns())
            page = figures.plot_bland_altman({one.method: rows}, limits, task=task)
        elif one.task.positive:
            page = figures.plot_evidence(rows, task=task, threshold=one.threshold)
        else:
            page = figures.plot_confusion(rows, task).figure
        yield f"{name}_evidence{end}", page
        if one.known:
            tests = one.gaps.set_index("by")["p_holm"].to_dict()
            parts = pd.concat(one.known.values())
            yield f"{name}_subgroups{end}", figures.plot_subgroups(parts, gaps=tests).figure


# ---------------------------------------------------------------------------- sentences
def read(judged: Iterable[Evidence]) -> str:
    """Say what a method calls, whether its probabilities hold, and for whom it is worse."""
    said = [
        f"{one.task.name}, *{figures.display_name(one.method)}*: "
        f"{_calls(one)} {_probabilities(one) if one.task.positive else ''} {_gaps(one)}"
        for one in judged
    ]
    return "**Reading.** " + ("\n\n".join(said) or "Nothing is predicted, so nothing is judged.")


def _calls(one: Evidence) -> str:
    told = figures.intervals(one.points, "metric")
    if one.task.kind == "regression":
        bias, low, high = (told[limit] for limit in evaluation.LIMITS)
        error = f"the mean absolute error is {told['MAE']} {one.task.unit}, the bias {bias}"
        return f"{error}, with limits of agreement at {low} and {high}. A value has no calls."
    curve = evaluation.risk_coverage(one.predictions, task=one.task)
    risk = figures.intervals(curve.assign(x=curve["x"].round(2)), "x")
    doubt = f"The most probable class is wrong for {risk[1.0]} of the images, and for {risk[0.5]} "
    doubt += "of the half of least doubt."
    if one.threshold is None:
        return f"the balanced accuracy is {told['balanced accuracy']}. {doubt}"
    frozen = THRESHOLD in one.predictions and one.predictions[THRESHOLD].notna().any()
    how = "chosen on validation patients" if frozen else "fixed beforehand"
    return (
        f"from a probability of {figures.number(one.threshold)} on, {how}, the sensitivity is "
        f"{told['sensitivity']} and the specificity {told['specificity']}. {doubt}"
    )


def _probabilities(one: Evidence) -> str:
    told, points = figures.intervals(one.points, "metric"), one.points.set_index("metric")
    slope, shift = (points.loc[f"calibration {part}"] for part in ("slope", "intercept"))
    faults = {"too extreme": slope["high"] < 1, "too cautious": slope["low"] > 1}
    faults |= {"too high": shift["high"] < 0, "too low": shift["low"] > 0}
    said = " and ".join(fault for fault, holds in faults.items() if holds)
    curve = evaluation.decision_curve(one.predictions, task=one.task)
    useful = curve.loc[curve["low"] > curve["treat_all"].clip(lower=0), "x"]
    span = "at no threshold"
    if len(useful):
        first, last = useful.index[[0, -1]]
        where = "" if last - first + 1 == len(useful) else f"at {len(useful)} thresholds "
        span = f"{where}from {figures.number(useful[first])} to {figures.number(useful[last])}"
    return (
        f"The probabilities are {said or 'not shown to be wrong'}: calibration slope "
        f"{told['calibration slope']}, intercept {told['calibration intercept']}, ECE "
        f"{told['ECE']}, Brier {told['Brier']}. The net benefit is above that of treating all or "
        f"none, interval and all, {span}."
    )


def _gaps(one: Evidence) -> str:
    if not one.subgroups:
        return "Nothing that is known of these images parts them into subgroups."
    few = sum((part["note"] != "").sum() for part in one.subgroups.values())
    counted = f"{few} subgroups have too few patients for a number."
    if one.gaps.empty:
        return f"No two subgroups can be compared: {counted}"
    said, end = [], "highest" if evaluation.primary(one.task).lower else "lowest"
    for gap in one.gaps.to_dict("records"):
        value = figures.intervals(one.subgroups[gap["by"]], gap["by"])[gap[end]]
        sure = "worse for" if gap["p_holm"] < LEVEL else f"no gap shown, {end}"
        said.append(f"by {gap['by']}: {sure} {gap[end]} {value}")
    return f"{gap['metric']}, after Holm's correction, {'; '.join(said)}. {counted}"
