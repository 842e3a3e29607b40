"""Similar cases: the nearest images of other patients, by the cosine of stored features."""

from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd

from bonelib import cohort, figures, zero_shot
from bonelib.explore import controls, pictures
from bonelib.explore.panel import Panel, spoken

SMALL = 192  # pixels of a neighbour


def similar(
    features: np.ndarray,
    table: pd.DataFrame,
    picture: Callable[[str], np.ndarray],
    *,
    k: int = 6,
) -> Panel:
    """Pick a case and see those nearest to it, none of the same patient.

    Args:
        features: ``(N, D)`` of one tower, in the order of the table.
        table: Images of one ``group``, or without such a column of one ``patient``, are never each
            other's neighbours.
        k: How many are shown.

    Raises:
        ValueError: Features and table differ in length.
    """
    import ipywidgets

    names = table[cohort.IMAGE_ID]
    if len(features) != len(names):
        raise ValueError(f"{len(features)} features are no rows of a table of {len(names)} images.")
    rows = controls.by_id(table)
    tied = table[cohort.GROUP if cohort.GROUP in table else cohort.PATIENT].astype(object)
    groups = tied.where(tied.notna(), names).astype(str).to_numpy()  # an unknown patient: its own
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    frames = [pictures.frame(pictures.SIDE), *(pictures.frame(SMALL) for _ in range(k))]
    fault, *told = controls.texts("fault", *["facts"] * (k + 1))

    def near(name: str) -> dict[str, float]:
        """Return the neighbours of an image with their cosine, the nearest first."""
        at = rows.index.get_indexer([name])
        own = dict(query_groups=groups[at], library_groups=groups)
        found = zero_shot.neighbours(unit[at], unit, k=k, **own)[0]
        found = found[found >= 0]
        return dict(zip(names.iloc[found], unit[found] @ unit[at[0]], strict=True))

    def draw() -> None:
        with spoken(fault, *frames, *told):
            name = chooser.image_id
            drawn = [(pictures.painted(picture(name)), pictures.facts(rows.loc[name]))]
            for other, cosine in near(name).items():
                said = pd.concat([pd.Series({"similarity": f"{cosine:.3f}"}), rows.loc[other]])
                drawn.append((pictures.painted(picture(other), side=SMALL), pictures.facts(said)))
            every = zip_longest(frames, told, drawn, fillvalue=(None, ""))
            for image, text, (pixels, facts) in every:
                image.value, text.value = pictures.encoded(pixels), facts

    def still() -> Any:
        found = near(names.iloc[0])
        titles = [f"case: {names.iloc[0]}"]
        titles += [f"{other}: {figures.number(cosine)}" for other, cosine in found.items()]
        films = [picture(name) for name in (names.iloc[0], *found)]
        sheet = figures.contact_sheet(films, titles, columns=4)
        return figures.note(sheet, "beside each image: its similarity, the cosine of features")

    chooser = controls.Chooser(names, draw)
    wide = {"width": f"{SMALL + 32}px"}  # whatever the facts are, or columns would jump
    cells = [ipywidgets.VBox(pair, layout=wide) for pair in zip(frames, told, strict=True)]
    first = controls.row(frames[0], told[0])
    chooser.follow()
    return Panel(ipywidgets.VBox([chooser.box, first, controls.row(*cells[1:]), fault]), still)
