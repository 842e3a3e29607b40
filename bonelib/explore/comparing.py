"""A comparer of finished runs: scores, paired differences and curves, all of stored predictions.

A predictions table of each method of each run comes in; the reader picks which stand side by side.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from html import escape, unescape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bonelib import evaluation, figures
from bonelib.cohort import IMAGE_ID, Task
from bonelib.explore import controls
from bonelib.explore.panel import Panel, png, spoken

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS = 200  # of patients, as in the prompt bench; the tables of notebook 09 take 2,000
Tables = Mapping[str, pd.DataFrame]
Found = Callable[..., pd.Series]


def _table(names: Sequence[str], score: Found, gain: Found, task: Task) -> tuple[pd.DataFrame, str]:
    """Return scores and differences to the first name as text, and what they stand on.

    p is corrected by Holm for as many comparisons as are shown.
    """
    metric, lower, _ = evaluation.primary(task)
    scores = pd.DataFrame([score(name) for name in names], pd.Index(names, name="method"))
    named = f"{metric}, {task.unit}" if task.unit else metric
    rows = pd.DataFrame({named: scores.apply(_written, axis=1)})
    gains = pd.DataFrame([gain(name, names[0]) for name in names[1:]], names[1:])
    if len(gains):
        tests = {"p": gains["p"], "p, Holm": evaluation.holm(gains["p"])}
        tests |= {"p, DeLong": gains["p_delong"]} if "p_delong" in gains else {}
        columns = {"minus the reference": gains.apply(_written, axis=1)}
        columns |= {name: [*map(_p, p)] for name, p in tests.items()}
        rows = rows.join(pd.DataFrame(columns, gains.index)).fillna("")
    return rows.reset_index(), figures.sample(scores) + ("; smaller is better" if lower else "")


def _written(row: pd.Series) -> str:
    return figures.with_interval(*row[["value", "low", "high"]])


def _p(p: float) -> str:
    return figures.p_value(p).removeprefix("p ").removeprefix("= ") if np.isfinite(p) else ""


def _draw(
    entries: Tables, histories: Tables | None, task: Task, draws: int, kept: dict | None = None
) -> "Figure":
    """Draw curves of predictions, or of trainings where these are asked for."""
    import matplotlib.pyplot as plt

    trained = [rows for name, rows in (histories or {}).items() if name in entries]
    if histories is None:
        drawn = pd.concat([*entries.values()], ignore_index=True)
        return figures.plot_predictions(drawn, task=task, draws=draws, kept=kept).figure
    if trained:
        rows, value = pd.concat(trained), evaluation.primary(task).column
        value = value if value in rows and rows[value].notna().any() else "loss"
        return figures.plot_history(rows, value=value).figure
    figure = plt.figure(figsize=(figures.WIDTH, 1))
    return figures.note(figure, "none of these was trained by epochs")


def runs(
    entries: Tables,
    *,
    task: Task,
    histories: Tables | None = None,
    refused: Mapping[str, str] | None = None,
    said: str = "",
    draws: int = DRAWS,
) -> Panel:
    """Let a reader set methods of finished runs side by side.

    Only those of the same test images can be chosen; others are listed with the reason.
    Differences are paired (``evaluation.compare``), labels are those of the predictions.

    Args:
        entries: By a name for readers, the predictions of one method of one run, with labels, the
            first as reference. The columns of methods tell them apart, which curves need.
        histories: Rows of ``training.fit`` by the same names, with the columns of methods.
        refused: Runs that can't be compared at all, and why.
        said: Shown above.
    """
    import ipywidgets as w

    refusals = [f"{name}: {why}" for name, why in (refused or {}).items()]
    (head,) = controls.texts("facts")
    head.value = escape(said)
    if not entries:
        head.value = escape("; ".join([f"{said} No run can be compared".strip(), *refusals]))
        return Panel(head, lambda: figures.note(_draw({}, {}, task, draws), unescape(head.value)))
    metric, asked = evaluation.primary(task).metric, dict(task=task, draws=draws)
    computed: dict = {}  # what curves are drawn from
    score, gain = (  # each once: a reader goes back and forth
        functools.cache(lambda n: evaluation.metrics(entries[n], only=(metric,), **asked).iloc[0]),
        functools.cache(lambda n, other: evaluation.compare(entries[n], entries[other], **asked)),
    )
    images = {n: frozenset(t.dropna(subset=["label"])[IMAGE_ID]) for n, t in entries.items()}
    wide = dict(layout=w.Layout(width="98%"), style={"description_width": "7em"})
    first = w.Dropdown(options=[*entries], description="reference", **wide)
    chosen = w.SelectMultiple(description="beside it", rows=7, **wide)
    kind = w.Dropdown(options=["predictions", "trainings"], description="curves of", **wide)
    table, basis, fault = w.HTML(), w.HTML(), *controls.texts("fault")
    image = w.Image(format="png").add_class("bone-picture")

    def turn(_: Any = None) -> None:
        own, kept, left = images[first.value], chosen.value, dict[str, list[str]]()
        chosen.unobserve(answer, "value")
        chosen.options = [n for n, i in images.items() if i == own and n != first.value]
        chosen.value = [n for n in kept if n in chosen.options] or chosen.options[:2]
        chosen.observe(answer, "value")
        for name, other in images.items():
            if other != own:
                shares = f"{len(other):,} test images, of which it shares {len(other & own):,}"
                left.setdefault(shares, []).append(name)
        lines = [f"{'; '.join(names)}: {why}" for why, names in left.items()]
        items = "".join(f"<li>{escape(line)}</li>" for line in (*refusals, *lines))
        basis.value = f"<details><summary>Not comparable</summary><ul>{items}</ul></details>"
        answer()

    def picked() -> list[str]:
        return [first.value, *chosen.value]

    def curves() -> "Figure":
        trained = None if kind.value == "predictions" else histories or {}
        return _draw({name: entries[name] for name in picked()}, trained, task, draws, computed)

    def answer(_: Any = None) -> None:
        with spoken(fault, table, image):
            rows, told = _table(picked(), score, gain, task)
            # Before the curves, which take longer.
            with pd.option_context("display.max_colwidth", None):  # or long names are cut
                html = rows.to_html(index=False, border=0)
            table.value = html + escape(f"{told}, {draws} draws")
            image.value = png(curves())

    def still() -> "Figure":
        rows = _table(picked(), score, gain, task)[0].to_numpy()[1:]
        told = [f"{row[0]} minus {first.value} {row[2]}, p {row[3]}" for row in rows]
        return figures.note(curves(), *told, f"{draws} draws", said)

    for control, heard in ((first, turn), (chosen, answer), (kind, answer)):
        control.observe(heard, "value")
    turn()
    facts = w.VBox([table, fault, basis]).add_class("bone-facts")
    return Panel(w.VBox([head, first, chosen, kind, facts, image]), still)
