"""Charts of scores, of training and of the cohort: a table comes in, axes go out.

A chart of scores says how many images of how many patients it stands on, and where its intervals
come from.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib import evaluation
from bonelib.figures.style import (
    BLUE,
    CLASSES,
    FAINT,
    INK,
    RED,
    UNAVAILABLE,
    WIDTH,
    blank_axes,
    colour,
    number,
    with_interval,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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


def _say(ax: "Axes", *lines: str) -> None:
    """Put small grey lines above the axes: what the figure stands on."""
    ax.set_title("\n".join(lines), loc="left", size=7.5, weight="normal", color=FAINT)


def _bootstrap_words(table: pd.DataFrame) -> str:
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
    ax.set_xlabel(f"{metric}\n{_bootstrap_words(table)}; {sample(table)}", linespacing=1.4)
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
    ax = blank_axes(ax, WIDTH, 3.5)
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
        dash = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))[used.get(colour(name), 0) % 4]
        used[colour(name)] = used.get(colour(name), 0) + 1
        value = with_interval(*one.loc[0, ["value", "low", "high"]])
        ax.plot(
            curves[0][0], np.mean([true for _, true in curves], axis=0),
            color=colour(name), linestyle=dash, label=f"{name}\n{value}", clip_on=False,
        )  # fmt: skip
        found.append(one)
    ax.plot([0, 1], [0, 1], color="#BDBDBD", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set(xlabel="1 − specificity", ylabel="sensitivity")
    ax.set_xticks(np.arange(0, 1.01, 0.25))
    ax.set_yticks(np.arange(0, 1.01, 0.25))
    ax.grid()
    everyone = pd.concat(found)
    ax.legend(
        title="AUROC [95 % interval]", loc="center left",
        bbox_to_anchor=(1.03, 0.5), alignment="left", labelspacing=0.9, handlelength=1.8,
    )  # fmt: skip
    what = known.positive if known.positive else "mean over classes, one against the rest"
    what += " against the rest" if several and known.positive else ""
    _say(ax, f"{what} · {sample(everyone)}", _bootstrap_words(everyone))
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
    _say(ax, f"{sample(facts)} · {brier}", _bootstrap_words(facts))
    return ax


# ---------------------------------------------------------------------------- training and data
def plot_history(
    history: pd.DataFrame,
    *,
    value: str = "loss",
    floor: float | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw a value per epoch, beside it that of the validation, and mark the epoch that was kept.

    Args:
        history: Rows of ``training.fit``; ``validation_<value>`` or ``val_<value>`` is drawn too.
        floor: The value that knowing nothing gives (log of the batch size, say), as a dashed line.
    """
    ax = blank_axes(ax, WIDTH * 0.62, 2.5)
    curves = {value: ("training", BLUE)}
    curves |= {f"{word}_{value}": ("validation", RED) for word in ("validation", "val")}
    curves = {column: named for column, named in curves.items() if column in history}
    for column, (name, shade) in curves.items():
        marker = "o" if len(history) < 16 else None
        ax.plot(history["epoch"], history[column], marker=marker, ms=3.5, color=shade, label=name)
    if "kept" in history and history["kept"].any():
        best = history[history["kept"].astype(bool)].iloc[-1]
        ax.axvline(best["epoch"], color=FAINT, linewidth=0.8, linestyle=":", label="epoch kept")
    if floor is not None:
        ax.axhline(
            floor, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), label="knowing nothing"
        )
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="epoch", ylabel=value.replace("_", " "))
    ax.grid(axis="y")
    if len(ax.get_legend_handles_labels()[1]) > 1:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def plot_counts(
    table: pd.DataFrame,
    column: str,
    by: str,
    ax: "Axes | None" = None,
    *,
    order: Sequence[str] = (),
    most: int = 14,
) -> "Axes":
    """Draw images per value of ``column`` (site, view, centre), stacked by the class ``by``.

    Args:
        order: The classes in order (``task.classes``); else as often as they occur.
        most: Values drawn; rarer ones are counted together as "other".
    """

    def words(values: pd.Series) -> pd.Series:
        text = [" + ".join(v) if isinstance(v, tuple) else v for v in values]
        text = pd.Series(text, index=values.index, dtype="object")
        return text.where(text.notna() & (text != ""), "unknown").astype(str)

    rows, classes = words(table[column]), words(table[by])
    often = rows.value_counts()
    if len(often) > most:
        rows = rows.where(rows.isin(often.index[: most - 1]), "other")
    counts = pd.crosstab(rows, classes)
    last = counts.index.isin(["other", "unknown"])
    counts = counts.iloc[np.lexsort((-counts.sum(axis=1), last))]
    names = [c for c in (order or classes.value_counts().index) if c in counts]
    names += [c for c in counts if c not in names]
    shades = CLASSES if len(names) != 2 else (CLASSES[0], CLASSES[2])
    ax = blank_axes(ax, WIDTH, 0.95 + 0.24 * len(counts))
    left, total = np.zeros(len(counts)), counts.sum(axis=1)
    for i, name in enumerate(names):
        shade = "#DDDDDD" if name == "unknown" else shades[i % len(shades)]
        bars = ax.barh(counts.index, counts[name], left=left, height=0.72, color=shade, label=name)
        wide = counts[name] > 0.05 * total.max()
        ax.bar_label(bars, [f"{n}" if w else "" for n, w in zip(counts[name], wide, strict=True)],
                     label_type="center", size=7, color="white" if i == 2 else INK)  # fmt: skip
        left = left + counts[name].to_numpy()
    ax.bar_label(bars, [f"{n:,}" for n in total], padding=4, size=8)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(f"images (n = {len(table):,})")
    ax.margins(x=0.09)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=5, columnspacing=1.2, handlelength=1)
    ax.grid(axis="x")
    return ax
