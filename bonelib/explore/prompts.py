"""A bench for prompts: what each class is called in words, and what that changes, at once.

Unit features of images and a text tower come in. A sentence is encoded once; all else is arithmetic
on stored features, so that an answer is there while one still looks.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape, unescape
from itertools import compress
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bonelib import evaluation, figures, zero_shot
from bonelib.cohort import IMAGE_ID, SPLIT, Task
from bonelib.explore import controls, pictures
from bonelib.explore.panel import Panel, spoken

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

DRAWS = 200  # of patients: an interval to look at, where 4,000 images have to answer in 200 ms
SETS = {"validation": "val", "training": "train", "test": "test"}
WARNINGS = {
    "training": " The towers have learnt from these images.",
    "test": " What is chosen here is chosen on test images: its score is no result.",
}
Prompts = Mapping[str, Sequence[str]]  # sentences by class


class _Reader:
    """A text tower that encodes each sentence once; `zero_shot` asks it like the model itself."""

    def __init__(self, model: Any):
        self.model, self.known = model, dict[str, np.ndarray]()

    def tokenize(self, sentences: list[str]) -> list[str]:
        new = [one for one in sentences if one not in self.known]
        self.known |= zero_shot.text_features(self.model, new)
        return sentences

    def encode_text(self, sentences: list[str]) -> "torch.Tensor":
        import torch

        return torch.from_numpy(np.stack([self.known[one] for one in sentences]))

    def faults(self, sentences: list[str]) -> str:
        """Say which sentences the tower does not read as they stand."""
        text, told = self.model.text, ""
        for one in compress(sentences, text.truncated(sentences)):
            told += f" Too long, its end is cut off: “{shorten(one, 60, placeholder=' …')}”."
        words = ", ".join(text.unknown(sentences))
        return told + (f" The text tower has no token for: {words}." if words else "")


def _scored(own: pd.DataFrame, default: pd.DataFrame, task: Task, name: str, draws: int) -> str:
    """Say what prompts reach on a set, and how that differs from the default ones."""
    (metric, lower, _), ends = evaluation.primary(task), ["value", "low", "high"]
    one = evaluation.metrics(own, task=task, only=(metric,), draws=draws)
    gain = evaluation.compare(own, default, task=task, draws=draws)
    unit = f", {task.unit}" if task.unit else ""
    p = f", {figures.p_value(gain['p'])}" if np.isfinite(gain["p"]) else ""
    return (
        f"{metric}{unit} on {name} images{' (lower is better)' if lower else ''}: "
        f"{figures.with_interval(*one.loc[0, ends])}; default prompts "
        f"{figures.number(one.loc[0, 'value'] - gain['value'])}, difference "
        f"{figures.with_interval(*gain[ends])}{p}. {figures.sample(one)}, "
        f"95 % intervals of {draws} draws.{WARNINGS.get(name, '')}"
    )


def _case(own: pd.DataFrame, default: pd.DataFrame, task: Task, row: int) -> pd.DataFrame:
    """Return what both say of one image: a row a class, or one of a value; its name above."""
    names = {f"p_{name}": name for name in task.classes} or {"value": task.unit}
    both = {"these prompts": own, "default": default}
    said = {key: table.iloc[row][[*names]].astype(float) for key, table in both.items()}
    image_id, label = own.iloc[row][[IMAGE_ID, "label"]]
    truth = "no label" if pd.isna(label) else label if task.classes else f"{label:.1f}"
    return pd.DataFrame(said).rename(names).rename_axis(columns=f"{image_id}, {truth}")


def prompts(
    model: Any,
    table: pd.DataFrame,
    unit: np.ndarray,
    picture: Callable[[str], np.ndarray],
    *,
    task: Task,
    styles: Mapping[str, Prompts],
    values: Sequence[float] = (),
    said: str = "",
    draws: int = DRAWS,
) -> Panel:
    """Let a reader write prompts, and show at once what they say of a case and reach on a set.

    Classes are made of prompts as in ``zero_shot``. Test images can be chosen where the table has
    their labels, which it has only after an opening.

    Args:
        model: A pair of towers with their logit scale, as ``models.DualEncoder``.
        table: With ``split``, patients and the column of the task.
        unit: ``(N, D)`` unit features of these images, as ``model.encode_image`` gives them.
        styles: Prompts by class, by what they are called; the first are the default. None where
            the model reads no words: ``said`` is then all that is shown.
        values: See ``zero_shot.expected``: of a regression, what each of its stages stands for.
        said: What a score by prompts may be called after the model's pretraining.
    """
    import ipywidgets as w

    fault, told, case, scores = controls.texts("fault", "facts", "facts", "facts")
    told.value = escape(said)
    if not styles:
        return Panel(told, lambda: _still(said))
    reader, default = _Reader(model), next(iter(styles.values()))
    known = table[SPLIT].ne("test") | table[task.column].notna()
    sets = [name for name, part in SETS.items() if part in {*table.loc[known, SPLIT]}]
    wide = dict(layout=w.Layout(width="98%"), style={"description_width": "9em"})
    rows = min(8, 1 + max(map(len, default.values())))  # more are scrolled to the last
    lines = dict(rows=rows, continuous_update=False, **wide)  # asked when the field is left
    start = w.Dropdown(options=[*styles], description="start from", **wide)
    areas = {n: w.Textarea("\n".join(p), description=n, **lines) for n, p in default.items()}
    chosen = w.Dropdown(options=sets, description="images", **wide)
    place = w.IntSlider(1, min=1, max=1, description="case", **wide)
    image = pictures.frame(256)
    seen: list[pd.DataFrame] = []  # by the reader's prompts, by the default ones

    def answers(prompts: Prompts) -> pd.DataFrame:
        rows = np.flatnonzero(table[SPLIT] == SETS[chosen.value])
        classes = zero_shot.class_features(reader, prompts)
        out = zero_shot.logits(unit[rows], classes, scale=model.logit_scale.exp().item())
        out = zero_shot.expected(out, values) if values else out
        return evaluation.predictions(table.iloc[rows], out, task=task, seed=0)

    def ask(_: Any = None) -> None:
        seen.clear()
        with spoken(fault, scores, case, image):
            said = {n: [" ".join(s.split()) for s in a.value.split("\n")] for n, a in areas.items()}
            own = {name: [one for one in sentences if one] for name, sentences in said.items()}
            seen.extend(map(answers, (own, default)))
            place.max = len(seen[0])
            show()
            every = [one for sentences in own.values() for one in sentences]
            text = _scored(*seen, task, chosen.value, draws)
            scores.value = escape(text + reader.faults(every))

    def show(_: Any = None) -> None:
        if not seen:
            return  # the fault stays
        with spoken(fault, case, image):
            film = picture(seen[0][IMAGE_ID].iloc[place.value - 1])
            image.value = pictures.encoded(pictures.painted(film, side=256))
            rows = _case(*seen, task, place.value - 1).rename(index=escape)
            look = rows.rename_axis(columns=escape(rows.columns.name)).style.format(figures.number)
            look = look.bar(vmin=0, vmax=1, color="#4A90C266") if task.classes else look
            case.value = look.to_html()

    def fill(_: Any) -> None:
        for name, area in areas.items():  # one answer for all of them
            area.unobserve(ask, "value")
            area.value = "\n".join(styles[start.value][name])
            area.observe(ask, "value")
        ask()

    def still() -> "Figure":
        row = place.value - 1
        one = (picture(seen[0][IMAGE_ID].iloc[row]), _case(*seen, task, row)) if seen else ()
        return _still(f"{said} {unescape(scores.value or fault.value)}", *one)

    start.observe(fill, "value")
    place.observe(show, "value")
    for control in (chosen, *areas.values()):
        control.observe(ask, "value")
    ask()
    shown = w.HBox([image, w.VBox([case, scores, fault], layout=w.Layout(width="60%"))])
    return Panel(w.VBox([told, start, *areas.values(), chosen, place, shown]), still)


def _still(said: str, grey: np.ndarray | None = None, case: pd.DataFrame | None = None) -> "Figure":
    """Draw a radiograph beside what is said of it, and sentences below."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.6), layout="constrained")
    left.axis("off")
    right.set_visible(case is not None)
    if case is not None:
        left.imshow(grey, cmap="gray", vmin=0, vmax=255)
        left.set_title(case.columns.name, size=8)
        shares = len(case) > 1
        case.iloc[::-1, 0].plot.barh(ax=right, xlim=(0, 1) if shares else None)
        right.set(xlabel="probability" if shares else "value", ylabel="")
    return figures.note(figure, said)
