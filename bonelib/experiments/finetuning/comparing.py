"""What notebook 05 concludes: strategies beside the probe, few labels, seeds, and the start."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd

from bonelib import adaptation, evaluation, figures, reporting, runs
from bonelib.evaluation import METHOD, Method
from bonelib.experiments.context import METADATA, AnyRun, Context, keep, opened

PROBE, CURVES = "probe", 6  # the bar; methods that one chart can show
DRAWS_A_ROW = 100  # Holm's correction multiplies p, which is never below 2 / (1 + draws)


# ---------------------------------------------------------------------- is a strategy better?
def strategies(context: Context, run: AnyRun, predictions: pd.DataFrame) -> pd.DataFrame:
    """Set every strategy beside the linear probe of its start, on the same images and draws.

    A start without a probe is set beside the first one. Holm's correction counts every row, so
    that many rows take more draws of the bootstrap: with few, none could ever pass it.

    Returns:
        A row a method: ``start, strategy, sees, detail``, ``method`` and ``probe`` (names for
        readers), metric, value (method minus probe), low, high, p, ``p_holm``, n.
    """
    if run.finished:
        return run.table("strategies")
    by_method, rows = evaluation.by_method(predictions), []
    draws = max(evaluation.DRAWS, DRAWS_A_ROW * len(by_method))
    probes = [m for m in by_method if m.strategy == PROBE and m.sees == "image"]
    for method, table in by_method.items():
        own = replace(method, strategy=PROBE, sees="image")
        against = own if own in by_method else next(iter(probes), method)
        if method == against or "image" not in method.sees or method.strategy == PROBE:
            continue
        found = evaluation.compare(table, by_method[against], task=context.asked, draws=draws)
        names = {"method": figures.display_name(method), "probe": figures.display_name(against)}
        rows.append(method.columns() | names | found.to_dict())
    table = pd.DataFrame(rows)
    if len(table):
        table["p_holm"] = evaluation.holm(table["p"].to_numpy())
    return keep(run, "strategies", table)


def read_strategies(context: Context, table: pd.DataFrame) -> str:
    """Say how many strategies differ from the probe after Holm's correction, and which is best."""
    if table.empty:
        return "**Reading.** No strategy stands beside a linear probe."
    sign = -1 if evaluation.primary(context.asked).lower else 1
    shown = table[table["p_holm"] < 0.05]
    better = int((sign * shown["value"] > 0).sum())
    best = table.loc[(sign * table["value"]).idxmax()]
    gain = figures.with_interval(*best[["value", "low", "high"]])
    return (
        f"**Reading.** Of {len(table)} strategies {better} are better than the linear probe of "
        f"their start and {len(shown) - better} worse, after Holm's correction. The largest gain "
        f"is that of *{best['method']}* over *{best['probe']}*: {gain}."
    )


# ---------------------------------------------------------------------- what would it call?
def evidence(
    context: Context, run: AnyRun, predictions: pd.DataFrame
) -> list[reporting.evidence.Evidence]:
    """Judge the method that sees images alone and is best on validation patients."""
    best = reporting.evidence.choose(run.table("validation"), task=context.asked)
    told = dict(task=context.asked, method=best, opened=opened(run))
    return [reporting.evidence.judge(predictions, context.view(), **told)]


def seeds(context: Context, run: AnyRun, predictions: pd.DataFrame) -> pd.DataFrame:
    """Score each method over the training seeds that have finished by the same settings.

    The interval resamples seeds and patients (``evaluation.repeated``). Nothing is kept: each seed
    has a run of its own, and the last one shows all.

    Returns:
        A row a method: its name, metric, value, low, high, lowest, highest, repeats; empty where
        this seed is the only one.
    """
    made = runs.collect(profile=context.profile, data=context.data, root=context.root)
    own = dict(stage="finetuning", task=context.task, variant=context.variant, stale=False)
    made = made[(made[[*own]] == [*own.values()]).all(axis=1)] if len(made) else made
    every = [runs.Record(runs.folder() / name) for name in made.get("run", ())]
    others = [r for r in every if r.settings == run.settings and r.path != run.path]
    tables = [predictions, *(record.table("predictions") for record in others)]
    parts, rows = [evaluation.by_method(table) for table in tables], []
    for method in parts[0] if others else ():
        repeats = [part[method] for part in parts if method in part]
        if len(repeats) > 1:
            found = evaluation.repeated(repeats, task=context.asked)
            rows.append({"method": figures.display_name(method)} | found.to_dict())
    return pd.DataFrame(rows)


# ---------------------------------------------------------------------- how many labels?
def efficiency(context: Context, run: AnyRun) -> pd.DataFrame:
    """Score each head at each number of labels, the mean over draws.

    Returns:
        A row a method and number: the columns of methods, ``shots``, ``share``, ``images`` (mean
        over draws), metric, value, low, high (of patients and draws together), ``lowest`` and
        ``highest`` draw, ``repeats``, n; all labels stand at ``share`` 1.
    """
    if run.finished:
        return run.table("efficiency")
    few = run.table("few")
    if few.empty:
        return keep(run, "efficiency", few)
    few[list(METHOD)] = few[list(METHOD)].fillna("")
    rows = []
    for key, part in few.groupby([*METHOD, "shots", "share"], sort=False):
        draws = [draw for _, draw in part.groupby("seed")]
        found = evaluation.repeated(draws, task=context.asked)
        named = dict(zip([*METHOD, "shots", "share"], key, strict=True))
        rows.append(named | {"images": part["images"].mean()} | found.to_dict())
    return keep(run, "efficiency", pd.DataFrame(rows))


def draw_efficiency(context: Context, table: pd.DataFrame) -> plt.Figure | None:
    """Draw the score of each head over the number of labelled images, a panel a start."""
    if table.empty:
        return None
    return figures.plot_efficiency(table)


def read_efficiency(context: Context, table: pd.DataFrame) -> str:
    """Say which head is best with the fewest and with the most labels that were drawn."""
    if table.empty:
        return "**Reading.** No few labels were drawn."
    lower, said = evaluation.primary(context.asked).lower, []
    for label, at in (("fewest", table["images"].min()), ("most", table["images"].max())):
        near = table[table["images"].between(at * 0.75, at * 1.25)]
        best = near.sort_values("value", ascending=lower, kind="stable").iloc[0]
        method = Method(**{name: best[name] for name in METHOD})
        score = figures.with_interval(*best[["value", "low", "high"]])
        said.append(
            f"with the {label} labels, about {at:.0f} images, *{figures.display_name(method)}* "
            f"({score})"
        )
    return f"**Reading.** The best heads are, {said[0]}, and {said[1]}."


def draw(context: Context, history: pd.DataFrame, predictions: pd.DataFrame) -> plt.Figure | None:
    """Draw the validation curve of each training, and test predictions beside those of metadata.

    The predictions are of ``full`` fine-tuning and of what learnt from outlines; where there is
    none, of the first methods.
    """
    tuned = predictions["strategy"].isin(("full", *adaptation.WITH_OUTLINES))
    shown = predictions[(tuned | predictions["sees"].eq("metadata"))]
    if not tuned.any():
        first = [*evaluation.by_method(predictions).values()][:CURVES]
        shown = pd.concat(first)
    if history.empty:
        return figures.plot_predictions(shown, task=context.task).get_figure(root=True)
    shape = dict(figsize=(figures.WIDTH, 3.6), layout="constrained", width_ratios=[1, 1.2])
    figure, axes = plt.subplots(1, 2, **shape)
    figures.plot_history(history, value=evaluation.primary(context.asked).column, ax=axes[0])
    axes[0].legend(loc="upper left", bbox_to_anchor=(0, -0.18))
    figures.plot_predictions(shown, task=context.task, ax=axes[1])
    return figure


# ---------------------------------------------------------------------- does the start matter?
def compare(context: Context, run: AnyRun, predictions: pd.DataFrame) -> pd.DataFrame:
    """Set captions beside ImageNet, frozen and fine-tuned, and beside metadata: paired differences.

    Returns:
        ``first``, ``second`` (names for readers), metric, value with its interval, p, n.
    """
    if run.finished:
        return run.table("differences")
    pairs = [
        (Method(start="captions", strategy=how), Method(start="imagenet", strategy=how))
        for how in ("probe", "full")
    ]
    pairs.append((Method(start="captions", strategy="full"), METADATA))
    by_method, rows = evaluation.by_method(predictions), []
    for first, second in pairs:
        if not {first, second} <= by_method.keys():  # a protocol has other towers
            continue
        found = evaluation.compare(by_method[first], by_method[second], task=context.asked)
        named = {"first": figures.display_name(first), "second": figures.display_name(second)}
        rows.append(named | found.to_dict())
    return keep(run, "differences", pd.DataFrame(rows))


def read(context: Context, scores: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Say which method is best, and whether captions helped beyond chance."""
    best = context.ranked(scores).iloc[0]
    said = (
        f"**Reading.** The best row on {int(best['n'])} test images ({best['group_kind']}) is "
        f"*{best['method']}*, {context.metric} {context.primary(best)}. "
    )
    if len(differences) < 2:
        return said + "Captions and ImageNet are not both among the starts."
    first = differences.iloc[1]  # both fine-tuned
    gain = figures.with_interval(*first[["value", "low", "high"]])
    return (
        said
        + f"{first['first']} minus {first['second']}: {gain}"
        + (", no difference shown." if first["low"] <= 0 <= first["high"] else ".")
    )
