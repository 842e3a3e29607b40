"""Controls that the widgets share: which image is shown, and which ones filters leave."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_list_like

from bonelib import cohort
from bonelib.explore.pictures import written

FILTER = {"width": "230px"}  # four in a row of a common screen, two in a narrow one
ANY, UNKNOWN, NONE = "any", "unknown", "no case: widen the filter"


class Chooser:
    """Which of many images is shown: a slider, two buttons, and a field for its name.

    A list of 4,000 names would be sent anew with every filter; a slider sends one number.

    Attributes:
        ids: Those to choose from.
        box: The controls.
    """

    def __init__(self, ids: Sequence[str], changed: Callable[[], None]) -> None:
        import ipywidgets

        self._every, self.ids, self._changed = len(ids), list(ids), changed
        self.place = ipywidgets.IntSlider(1, 1, max(1, len(ids)), description="case")
        self.name = ipywidgets.Text(description="image", continuous_update=False)
        self.count = ipywidgets.Label().add_class("bone-count")
        buttons = [
            ipywidgets.Button(description=name, layout={"width": "auto"})
            for name in ("previous", "next")
        ]
        for button, step in zip(buttons, (-1, 1), strict=True):
            button.on_click(lambda _, step=step: self._go(self.place.value + step))
        self.place.observe(lambda _: self.ids and self.follow(), "value")
        self.name.observe(lambda _: self._named(), "value")
        self.box = row(self.place, *buttons, self.name, self.count)

    @property
    def image_id(self) -> str | None:
        """The image that is chosen, None where there is none to choose."""
        return self.ids[self.place.value - 1] if self.ids else None

    def among(self, ids: Sequence[str]) -> None:
        """Offer other images; the one that is shown stays if it is among them."""
        before, self.ids = self.image_id, []  # so that moves are not followed meanwhile
        self.place.max, self.place.disabled = max(1, len(ids)), not ids
        self._go(ids.index(before) + 1 if before in ids else 1)
        self.ids = [*ids]
        self.follow()

    def follow(self) -> None:
        """Name the image that is chosen, and show it."""
        told = f"{len(self.ids):,} of {self._every:,} cases"
        self.name.value, self.count.value = self.image_id or "", told if self.ids else NONE
        self._changed()

    def _go(self, place: int) -> None:
        self.place.value = min(max(place, 1), self.place.max)

    def _named(self) -> None:
        wanted = self.name.value.strip()
        if wanted in self.ids:
            self._go(self.ids.index(wanted) + 1)
        elif wanted:
            self.count.value = f"no image {wanted} among {len(self.ids):,} cases"


def filters(
    table: pd.DataFrame, names: Sequence[str], changed: Callable[[], None]
) -> tuple[list[Any], Callable[[], list[str]]]:
    """Make a list of the terms of each column that tells cases apart; terms of a tuple count each.

    Returns:
        The lists, and what gives the ids of the images that all of them leave, in order.
    """
    import ipywidgets

    widgets, rows = [], []
    for name in (n for n in dict.fromkeys(names) if n in table):
        cells = [cell if is_list_like(cell) else (written(cell),) for cell in table[name]]
        cells = [[str(term) or UNKNOWN for term in cell] or [UNKNOWN] for cell in cells]
        if len(set(map(tuple, cells))) < 2:
            continue
        terms = sorted(set().union(*cells), key=lambda term: (term == UNKNOWN, term))
        rows.append({term: np.array([term in cell for cell in cells]) for term in terms})
        said = name.replace("_", " ")
        filtered = dict(options=[ANY, *terms], description=said, layout=FILTER)
        widgets.append(ipywidgets.Dropdown(**filtered))
        widgets[-1].observe(lambda _: changed(), "value")

    def left() -> list[str]:
        kept = np.ones(len(table), bool)
        for widget, of in zip(widgets, rows, strict=True):
            kept &= of.get(widget.value, True)
        return table.loc[kept, cohort.IMAGE_ID].tolist()

    return widgets, left


def by_id(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with its rows named by their image; a ValueError says which ids repeat."""
    repeated = table.loc[table[cohort.IMAGE_ID].duplicated(), cohort.IMAGE_ID]
    if len(repeated):
        raise ValueError(
            f"{len(repeated)} image ids repeat, e.g. {repeated.iloc[0]}: one row each."
        )
    return table.set_index(cohort.IMAGE_ID, drop=False)


def row(*widgets: Any) -> Any:
    """Lay widgets side by side, on further lines where the window is narrow."""
    import ipywidgets

    return ipywidgets.HBox(widgets, layout=ipywidgets.Layout(flex_flow="row wrap"))


def texts(*names: str) -> list[Any]:
    """Make empty texts that are found by the classes ``bone-<name>``."""
    import ipywidgets

    return [ipywidgets.HTML().add_class(f"bone-{name}") for name in names]
