"""The case browser: filter a table, look at a radiograph by a window, read its facts and report."""

import html
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from bonelib import cohort, figures
from bonelib.explore import controls, pictures
from bonelib.explore.panel import Panel, spoken

FILTERS = (cohort.SITE, "entity", cohort.CENTER, cohort.VIEW, cohort.SPLIT)
FILTERS += ("prediction", "error", "score")
SHEET = 6  # cases of the still picture
CLOSED, SAFE, ORIGINAL = "closed", "de-identified", "original"
BUSY = "reading …"
WARNING = "<b>Original: patient data. Not for a screenshot, a copy or a shared screen.</b>"


def cases(
    table: pd.DataFrame,
    picture: Callable[[str], np.ndarray],
    *,
    mask: Callable[[str], np.ndarray | None] | None = None,
    heat_map: Callable[[str], np.ndarray | None] | None = None,
    report: Callable[[str], tuple[str, str] | None] | None = None,
    original: Callable[[str], np.ndarray | None] | None = None,
    filters: Sequence[str] = FILTERS,
) -> Panel:
    """Browse cases by filters: picture with window, outline and heat, facts, report.

    Args:
        heat_map: Of an image, over the same field, not negative; None where there is none.
        report: Before and after de-identification; None where there is none. A reader asks for the
            former, case by case.
        original: The radiograph in more pixels, decoded when a reader asks for it; None: as it is.
        filters: Columns by which cases are chosen, those that the table has.
    """
    import ipywidgets

    rows = controls.by_id(table)
    image, box = pictures.frame(), dict(indent=False, layout={"width": "auto"})
    level = ipywidgets.IntSlider(pictures.LEVEL, 0, 255, description="level")
    window = ipywidgets.IntSlider(pictures.WINDOW, 2, 512, description="window")
    outline = ipywidgets.Checkbox(mask is not None, description="outline", **box)
    heated = ipywidgets.Checkbox(heat_map is not None, description="heat map", **box)
    opacity = ipywidgets.FloatSlider(0.65, min=0, max=1, step=0.05, description="opacity")
    large = ipywidgets.Checkbox(False, description="all pixels", **box)
    version = ipywidgets.ToggleButtons(
        options=[CLOSED, SAFE, ORIGINAL], description="report", style={"button_width": "auto"}
    )
    fault, facts, text = controls.texts("fault", "facts", "report")
    drawn = {draw: lru_cache(8)(draw) for draw in (mask, heat_map, original) if draw}

    def shown(draw: Any, control: Any, name: str) -> Any:
        return drawn[draw](name) if control.value else None

    def drawing(name: str) -> np.ndarray:
        film = shown(original, large, name)
        return pictures.painted(
            picture(name) if film is None else film,
            level=level.value,
            window=window.value,
            heat=shown(heat_map, heated, name),
            opacity=opacity.value,
            mask=shown(mask, outline, name),
        )

    def paint() -> None:
        with spoken(fault, image, facts):
            name = chooser.image_id
            facts.value = pictures.facts(rows.loc[name]) if name else ""
            image.value = pictures.encoded(drawing(name) if name else None)

    def read() -> None:
        with spoken(text):
            if report and chooser.image_id and version.value != CLOSED:
                text.value = BUSY  # a language is loaded with its first report
                before, after = report(chooser.image_id) or ("", "There is no report.")
                warning, words = (WARNING, before) if version.value == ORIGINAL else ("", after)
                text.value = (
                    f"{warning}<pre style='white-space: pre-wrap'>{html.escape(words)}</pre>"
                )

    def change() -> None:
        try:
            paint()
        finally:  # whatever fails, no report of another case stays
            if version.value == ORIGINAL:
                version.value = SAFE  # which reads
            else:
                read()

    chooser = controls.Chooser(rows.index, change)
    lists, left = controls.filters(table, filters, lambda: chooser.among(left()))
    version.observe(lambda _: read(), "value")
    offered = {level: True, window: True, outline: mask, heated: heat_map, opacity: heat_map}
    tools = [control for control, there in (offered | {large: original}).items() if there]
    for control in tools:
        control.observe(lambda _: paint(), "value")
    told = [facts, *([version, text] if report else [])]
    beside = ipywidgets.VBox(told, layout=ipywidgets.Layout(flex="1 1 320px"))  # else below
    parts = [controls.row(*lists), chooser.box, controls.row(*tools)]
    chooser.follow()
    names = rows.index[:SHEET]
    return Panel(
        ipywidgets.VBox([*parts, controls.row(image, beside), fault]),
        lambda: figures.contact_sheet([*map(drawing, names)], names),
    )
