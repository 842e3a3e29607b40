"""Charts of scores: a table of metrics or predictions comes in, axes go out.

Each says how many images of how many patients it stands on, and where its intervals
come from.
"""

import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib import evaluation
from bonelib.figures.style import (
    BLUE,
    DASHES,
    FAINT,
    GREEN,
    INK,
    UNAVAILABLE,
    WIDTH,
    blank_axes,
    colour,
    inches,
    number,
    with_interval,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def sample(table: pd.DataFrame) -> str:
    """Say what a table of metrics stands on: ``n = 240 images of 160 patients``."""

    def span(column: str) -> str:
        values = pd.to_numeric(table[column]).dropna().astype(int)
        low, high = values.min(), values.max()
        return f"{low:,}" if low == high else f"{low:,}–{high:,}"

    if "n" not in table or table["n"].isna().all():
        return ""
    text = f"n = {span('n')} images"
    if "groups" not in table or table["groups"].isna().all():
        return text
    kinds = table["group_kind"].dropna().unique()
    plural = {"patient": "of {} patients", "study": "of {} studies"}
    kind = kinds[0] if len(kinds) == 1 else "groups"
    return f"{text} {plural.get(kind, 'in {} ' + kind).format(span('groups'))}"


def _wrapped(ax: "Axes", text: str, *, letters: int = 12) -> str:
    # 8.5 pt type sets at least 12 characters an inch; "n = 240" is never parted.
    lines = textwrap.wrap(text.replace(" = ", "\xa0=\xa0"), int(inches(ax) * letters))
    return "\n".join(lines).replace("\xa0", " ")


def _say(ax: "Axes", *lines: str) -> None:
    """Put small grey lines above the axes: what the figure stands on."""
    text = "\n".join(_wrapped(ax, line, letters=16) for line in lines)
    ax.set_title(text, loc="left", size=7.5, weight="normal", color=FAINT)


def interval_kind(table: pd.DataFrame) -> str:
    """Say where the intervals of a table come from."""
    kinds = list(table["group_kind"].dropna().unique()) if "group_kind" in table else []
    kind = kinds[0] if len(kinds) == 1 else "groups"
    plural = {"patient": "patients", "study": "studies"}.get(kind, kind)
    return f"95 % intervals: bootstrap over {plural}"


def plot_forest(table: pd.DataFrame, *, metric: str = "AUROC", ax: "Axes | None" = None) -> "Axes":
    """Draw one row per model: value, 95 % interval, and both in figures at the right.

    Args:
        table: Named by ``name``, ``method`` or the index. Either ``value, low, high`` (rows of
            `evaluation.metrics`; another ``metric`` is left out) or ``<metric>, <metric>_low,
            <metric>_high`` (`reporting.results`); n, groups, group_kind. A ``status`` that says
            so prints "weights not available".
    """
    if "metric" in table and "value" in table:
        table = table[(table["metric"] == metric) | table["value"].isna()]
    columns = (
        ("value", "low", "high")
        if "value" in table
        else (metric, f"{metric}_low", f"{metric}_high")
    )
    label = next((c for c in ("name", "method") if c in table), None)
    names = [str(n) for n in (table[label] if label else table.index)]
    values = table[list(columns)].to_numpy(dtype=float)
    ax = blank_axes(ax, WIDTH, 0.85 + 0.27 * len(table))
    chance = 0.5 if metric.startswith("AUROC") else None
    texts = []
    for row, (name, (value, low, high)) in enumerate(zip(names, values, strict=True)):
        missing = "status" in table and table["status"].iloc[row] == UNAVAILABLE
        texts.append(UNAVAILABLE if missing else with_interval(value, low, high))
        ax.plot([low, high], [row, row], color=colour(name), linewidth=2.2, solid_capstyle="butt")
        ax.plot(value, row, "o", color=colour(name), ms=5, mec="white", mew=0.6)
    if chance is not None:
        ax.axvline(chance, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        ax.annotate(
            "chance", (chance, 1), xycoords=("data", "axes fraction"), xytext=(3, -1),
            textcoords="offset points", va="top", size=7, color=FAINT,
        )  # fmt: skip
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.45, -0.75)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(len(texts)), texts)
    right.tick_params(length=0)
    for text, written in zip(right.get_yticklabels(), texts, strict=True):
        if written == UNAVAILABLE:
            text.set(style="italic", color=FAINT)
    for spine in (ax.spines["left"], right.spines["right"]):
        spine.set_visible(False)
    note = _wrapped(ax, f"{interval_kind(table)}; {sample(table)}")
    ax.set_xlabel(f"{metric}\n{note}", linespacing=1.4)
    return ax


def _curve(
    truth: pd.Series, scores: pd.Series, grid: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(truth, scores)
    return (false, true) if grid is None else (grid, np.interp(grid, false, true))


def plot_roc(
    predictions_by_name: dict[str, pd.DataFrame],
    *,
    task: str,
    draws: int = evaluation.DRAWS,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw a ROC curve per model, with AUROC and its 95 % interval in the legend.

    Of the positive class against the rest; of a task without one, the mean of one-vs-rest curves.
    """
    beside = ax is None  # there is room for the legend at the right of a figure of its own
    ax = blank_axes(ax, WIDTH, 3.5)
    gap = "\n" if beside else "  "
    known, found, used = evaluation.as_task(task), [], {}
    for name, table in predictions_by_name.items():
        table = table[table["label"].notna()]
        several = len(known.classes) > 2
        metric = f"AUROC {known.positive}" if several and known.positive else "AUROC"
        one = evaluation.metrics(table, task=task, draws=draws, only=(metric,))
        targets = [known.positive or known.classes[1]] if metric != "AUROC" or not several else [
            c for c in known.classes if (table["label"] == c).any()
        ]  # fmt: skip
        grid = None if len(targets) == 1 else np.linspace(0, 1, 501)
        curves = [_curve(table["label"] == c, table[f"p_{c}"], grid) for c in targets]
        # Two methods of one family share a colour; the dash pattern tells them apart.
        dash = DASHES[used.get(colour(name), 0) % len(DASHES)]
        used[colour(name)] = used.get(colour(name), 0) + 1
        value = with_interval(*one.loc[0, ["value", "low", "high"]])
        ax.plot(
            curves[0][0], np.mean([true for _, true in curves], axis=0), clip_on=False,
            color=colour(name), linestyle=dash, label=f"{name}{gap}{value}",
        )  # fmt: skip
        found.append(one)
    ax.plot([0, 1], [0, 1], color="#BDBDBD", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set(xlabel="1 − specificity", ylabel="sensitivity")
    ax.set_xticks(np.arange(0, 1.01, 0.25))
    ax.set_yticks(np.arange(0, 1.01, 0.25))
    ax.grid()
    everyone = pd.concat(found)
    place = {"loc": "center left", "bbox_to_anchor": (1.03, 0.5), "labelspacing": 0.9}
    if not beside:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.22), "fontsize": 7}
    ax.legend(title="AUROC [95 % interval]", alignment="left", handlelength=1.8, **place)
    what = known.positive if known.positive else "mean over classes, one against the rest"
    what += " against the rest" if several and known.positive else ""
    _say(ax, f"{what} · {sample(everyone)}", interval_kind(everyone))
    return ax


def plot_confusion(
    predictions: pd.DataFrame, task: str, threshold: float | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Draw counts of truth against prediction, shaded by the share of each true class.

    Args:
        threshold: Of a binary task; without it the most probable class is the prediction.
    """
    known = evaluation.as_task(task)
    names, table = list(known.classes), predictions[predictions["label"].notna()]
    p = table[[f"p_{name}" for name in names]].to_numpy()
    guess = p.argmax(1)
    if threshold is not None and len(names) == 2:
        one = names.index(known.positive)
        guess = np.where(p[:, one] >= threshold, one, 1 - one)
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (known.encode(table["label"]), guess), 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    many = len(names) > 4
    height = 1.1 + (0.47 if many else 0.62) * len(names)
    ax = blank_axes(ax, min(WIDTH, 1.6 + 0.75 * len(names)), height)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        ink = "white" if share[row, column] > 0.55 else INK
        text = f"{count}\n{100 * share[row, column]:.0f} %" if count else "0"
        ax.text(column, row, text, ha="center", va="center", color=ink, size=7 if many else 8)
    turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if many else {}
    ax.set_xticks(range(len(names)), names, **turned)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlabel="predicted", ylabel="true")
    rule = "" if threshold is None else f" · positive from {number(threshold)}"
    _say(ax, f"n = {len(table):,} images{rule}")
    return ax


def plot_calibration(
    predictions: pd.DataFrame,
    task: str,
    ax: "Axes | None" = None,
    *,
    bins: int = 8,
    draws: int = evaluation.DRAWS,
) -> "Axes":
    """Draw how often the positive class was there against how probable the model called it."""
    table = evaluation.calibration(predictions, task=task, bins=bins, draws=draws)
    facts = evaluation.metrics(predictions, task=task, draws=1, only=("Brier",))
    ax = blank_axes(ax, 3.7, 3.6)
    ax.plot([0, 1], [0, 1], color="#BDBDBD", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    ax.vlines(table["predicted"], table["low"], table["high"], color=BLUE, linewidth=1.2)
    ax.plot(table["predicted"], table["value"], "o-", color=BLUE, markersize=4.5, clip_on=False)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set(xlabel=f"predicted probability of {evaluation.as_task(task).positive}")
    ax.set_ylabel("observed share")
    ax.grid()
    brier = f"Brier {number(facts.loc[0, 'value'])}"
    _say(ax, f"{sample(facts)} · {brier}", interval_kind(facts))
    return ax


def plot_spread(spread: pd.DataFrame, *, metric: str = "AUROC", ax: "Axes | None" = None) -> "Axes":
    """Draw one dot per wording of a prompt, in a row per style: how much hangs on the words.

    Args:
        spread: Rows of `reporting.scores` whose ``method`` reads ``<style>: <wording>``.
    """
    style = spread["method"].str.partition(":")[0]
    names = list(dict.fromkeys(style))
    ax = blank_axes(ax, WIDTH * 0.62, 0.85 + 0.35 * len(names))
    for row, name in enumerate(names):
        values = spread.loc[style == name, metric].to_numpy(dtype=float)
        ax.plot([np.nanmedian(values)] * 2, [row - 0.25, row + 0.25], color=INK, linewidth=1.2)
        ax.plot(values, np.full(len(values), row), "o", color=GREEN, alpha=0.6, ms=5, mew=0)
    ax.axvline(0.5, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    note = _wrapped(ax, f"{len(spread)} wordings, bar: median; {sample(spread)}")
    ax.set_xlabel(f"{metric}\n{note}", linespacing=1.4)
    return ax


def plot_localisation(table: pd.DataFrame) -> "Figure":
    """Draw how well each kind of map meets the lesions, a panel per measure.

    Args:
        table: Rows of `evaluation.means`; its first column names the maps.
    """
    import matplotlib.pyplot as plt

    maps, measures = list(table.iloc[:, 0].unique()), list(table["measure"].unique())
    figure, axes = plt.subplots(
        1, len(measures), figsize=(WIDTH, 1.0 + 0.33 * len(maps)), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax, measure in zip(axes[0], measures, strict=True):
        rows = table[table["measure"] == measure].set_index(table.columns[0])
        for place, name in enumerate(maps):
            value, low, high = rows.loc[name, ["value", "low", "high"]].astype(float)
            shade = FAINT if "prior" in name or "uniform" in name else colour(name)
            ax.plot([low, high], [place, place], color=shade, linewidth=2.2)
            ax.plot(value, place, "o", color=shade, ms=5, mec="white", mew=0.6)
            ax.annotate(number(value), (value, place), xytext=(0, 5), size=7,
                        textcoords="offset points", ha="center")  # fmt: skip
        ax.set_title(measure.replace("_", " "), weight="normal", size=8.5)
        ax.set_yticks(range(len(maps)), maps)
        ax.set_ylim(len(maps) - 0.5, -0.7)
        ax.set_xlim(left=0)
        ax.margins(x=0.15)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x")
    figure.supxlabel(f"{interval_kind(table)}; {sample(table)}", size=8.5)
    return figure
