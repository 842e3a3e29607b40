"""The heat-map viewer: what a model looks at, by method, layer and target."""

import html
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from bonelib import explain, figures
from bonelib.explore import controls, pictures
from bonelib.explore.panel import Panel, spoken

KEPT = 256  # maps that were made; of 256 pixels they take 64 MB
METHODS = {name: name for name in explain.METHODS}
BUSY = "computing …"
BLANK = "The map is blank: the model finds no evidence for this target here."


def heat_maps(
    table: pd.DataFrame,
    picture: Callable[[str], np.ndarray],
    make: Callable[[str, Any, Any, Any], np.ndarray],
    *,
    layers: Mapping[str, Any],
    targets: Mapping[str, Any],
    methods: Mapping[str, Any] = METHODS,
    mask: Callable[[str], np.ndarray | None] | None = None,
) -> Panel:
    """Look at maps of one model, made when they are asked for and then kept.

    Args:
        make: Makes the map ``(h, w)`` of an image for what the chosen method, layer and target
            stand for; a ValueError says why there is none, and is shown.
        layers: By their name what ``make`` gets, not None; so are ``targets`` and ``methods``.
    """
    import ipywidgets

    rows = controls.by_id(table)
    asked = [
        ipywidgets.Dropdown(options=[*named.items()], description=name)
        for name, named in {"method": methods, "layer": layers, "target": targets}.items()
    ]
    opacity = ipywidgets.FloatSlider(0.65, min=0, max=1, step=0.05, description="opacity")
    outline = ipywidgets.Checkbox(
        mask is not None, description="outline", indent=False, layout={"width": "auto"}
    )
    image = pictures.frame()
    fault, busy, facts = controls.texts("fault", "busy", "facts")

    @lru_cache(KEPT)
    def made(*of: Any) -> tuple[np.ndarray | None, str]:
        busy.value = BUSY
        try:
            heat = make(*of)
            return heat, "" if heat.any() else BLANK
        except ValueError as error:
            return None, f"No map: {error}"
        finally:
            busy.value = ""

    def draw() -> None:
        name = chooser.image_id
        with spoken(fault, image, facts):
            heat, reason = made(name, *(choice.value for choice in asked))
            lesion = mask(name) if mask and outline.value else None
            given = dict(heat=heat, mask=lesion, opacity=opacity.value)
            image.value = pictures.encoded(pictures.painted(picture(name), **given))
            facts.value = f"<b>{html.escape(reason)}</b>{pictures.facts(rows.loc[name])}"

    def sheet() -> Any:
        name, *of = first
        heat, reason = made(name, *of)
        maps = {} if heat is None else {method: heat[None]}
        title = ", ".join(filter(None, (name, reason)))
        return figures.case_sheet([picture(name)], maps, [mask(name) if mask else None], [title])

    chooser = controls.Chooser(rows.index, draw)
    tools = [opacity, *([outline] if mask else [])]
    for control in (*asked, *tools):
        control.observe(lambda _: draw(), "value")
    parts = [controls.row(*asked), chooser.box, controls.row(*tools, busy)]
    chooser.follow()
    first, method = (chooser.image_id, *(choice.value for choice in asked)), asked[0].label
    return Panel(ipywidgets.VBox([*parts, controls.row(image, facts), fault]), sheet)
