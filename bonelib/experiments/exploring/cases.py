"""Cases to browse, maps to look at and neighbours to compare, from what notebooks 01, 04, 07 hold.

Pictures come from the decoded cache, facts from the view of the cohort: what is sealed of a test
image is not in it, and is shown after a notebook has opened it, and not before.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from bonelib import cohort, explain, explore, figures, images, models, runs
from bonelib.experiments.context import AnyRun, Context, in_order

OWN = "own"  # target: the class of each image
LARGE = 1024  # pixels of an original that a reader asks for
LAYERS = {"the method's own": (None, 1), "2 stages": (2, 1), "3 stages": (3, 1)}
LAYERS |= {"2 stages, input × 2": (2, 2), "the method's own, input × 2": (None, 2)}


def marked(context: Context, panel: explore.Panel) -> explore.Panel:
    """Say of a panel that its radiographs are synthetic, in the widget and in the still picture."""
    import ipywidgets

    if not context.synthetic:
        return panel
    note = ipywidgets.HTML("synthetic radiographs").add_class("bone-note")
    still = lambda: figures.synthetic_note(panel.still())  # noqa: E731
    return explore.Panel(ipywidgets.VBox([panel.widget, note]), still)


# ---------------------------------------------------------------------- 01, 07: cases
def cases(
    context: Context,
    run: runs.Record,
    *,
    report: Callable[[str], tuple[str, str] | None] | None = None,
) -> explore.Panel | None:
    """Browse the cohort; of test images neither label, nor outline, nor report is known.

    Args:
        run: Of notebook 01.
        report: See ``texts.safety.before_and_after``.

    Returns:
        None where the set has no pictures.
    """
    if not run.notes["images_key"]:
        return None
    view, size, fit = context.view(), run.settings["size"], run.settings["fit"]
    cache = context.cache(size)
    view = view[view[cohort.IMAGE_ID].isin(cache.ids)].reset_index(drop=True)
    cells = view.set_index(cohort.IMAGE_ID)
    places = cache.geometry.set_index(cohort.IMAGE_ID, drop=False)

    def mask(name: str) -> np.ndarray | None:
        outline = cells.at[name, cohort.MASK]
        return None if pd.isna(outline) else images.mask(outline, places.loc[name], size=size)

    def original(name: str) -> np.ndarray | None:
        return images.pixels.decode(cells.at[name, cohort.PATH], size=LARGE, fit=fit)[0]

    labels = [task.column for task in cohort.labelled(view)]
    panel = explore.cases(
        view,
        picture(cache),
        mask=mask if cells[cohort.MASK].notna().any() else None,
        report=report,
        original=original,
        filters=(context.asked.column, *explore.FILTERS, *labels),
    )
    return marked(context, panel)


def errors(context: Context, run: AnyRun, found: Any) -> explore.Panel | None:
    """Browse the opened test lesions: whether the explained model is right, and its map.

    Args:
        run: Of notebook 07, which keeps the maps and their scores.
        found: The ``gradcam.Cases`` of the test set.

    Returns:
        None where no image has an outline: nothing was scored.
    """
    if not found.outlined:
        return None
    located = run.table("localisation").query("role == 'chosen'").set_index(cohort.IMAGE_ID)
    located = located.reindex(found.table[cohort.IMAGE_ID])
    hit = located["pointing"].map({0: "beside the lesion", 1: "on the lesion"})
    maps, rows = run.array("maps"), _places(found)
    panel = explore.cases(
        found.table.assign(error=located["classifier"].array, peak=hit.array),
        picture(found.cache()),
        mask=lambda name: found.masks[rows[name]],
        heat_map=lambda name: maps[rows[name]].astype(np.float32),
        filters=("error", "peak", context.asked.column, *explore.FILTERS),
    )
    return marked(context, panel)


# ---------------------------------------------------------------------- 07: heat maps
def heat_maps(context: Context, explained: Any, found: Any, way: str) -> explore.Panel:
    """Look at maps of the explained model on opened test lesions, by any method, layer and class.

    Args:
        explained: A ``gradcam.Explained``.
        found: The ``gradcam.Cases`` of the test set.
        way: The map that was chosen, as ``gradcam.Way`` reads it; it comes first.
    """
    rows = _places(found)
    enlarged = lru_cache(4)(found.cache)

    def make(name: str, method: str, layer: tuple[int | None, int], target: Any) -> np.ndarray:
        stages, times = layer
        batches = in_order(enlarged(times), [name], explained.tower)
        asked = found.targets[[rows[name]]] if target == OWN else target
        given = dict(target=asked, layers=stages, out=found.size, fuse="product", blank=True)
        return explain.heat_maps(explained.model, batches, method=method, **given)[0]

    name, _, times = way.partition("@")
    first, _, stages = name.partition(":")
    chosen = {"as chosen": (int(stages) if stages else None, int(times or 1))}
    panel = explore.heat_maps(
        found.table,
        picture(enlarged(1)),
        make,
        methods={figures.map_name(m): m for m in dict.fromkeys((first, *explain.METHODS))},
        layers=chosen | LAYERS,
        targets=_targets(context.asked, explained.words),
        mask=(lambda name: found.masks[rows[name]]) if found.outlined else None,
    )
    return marked(context, panel)


def _targets(task: cohort.Task, words: Any) -> dict[str, Any]:
    """Name what can be explained: the class of the image, or one class of the task.

    Args:
        words: What is explained of a model that is asked in words; its outputs are the classes.
    """
    if task.kind == "regression":
        return {"a larger value": lambda row: row[0], "a smaller value": lambda row: -row[0]}
    if task.outputs == 1 and words is None:
        other = next(name for name in task.classes if name != task.positive)
        return {task.positive: lambda row: row[0], other: lambda row: -row[0]}
    first = {"finding minus normal": words} if words else {"its own class": OWN}
    classes = {name: (lambda row, k=k: row[k]) for k, name in enumerate(task.classes)}
    return first | classes


def _places(found: Any) -> dict[str, int]:
    return {name: row for row, name in enumerate(found.table[cohort.IMAGE_ID])}


# ---------------------------------------------------------------------- 04: similar cases
def similar(context: Context, run: AnyRun, model: models.Model) -> explore.Panel:
    """See which radiographs of other patients the pretrained image tower holds for alike.

    Args:
        run: Of notebook 04.
        model: That it trained.
    """
    view = context.view()
    cache = context.cache(run.settings["size"], fit=run.settings["resize"])
    stored = context.features(model.image.eval(), cache, view[cohort.IMAGE_ID])
    return marked(context, explore.similar(stored, view, picture(cache)))


# ---------------------------------------------------------------------- what is shown of each
def picture(cache: images.Cache) -> Callable[[str], np.ndarray]:
    """Return what gives the decoded radiograph of an image."""
    return lambda name: cache.images[cache.rows([name])[0]]
