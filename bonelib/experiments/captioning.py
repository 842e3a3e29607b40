"""What is said of each radiograph, as notebook 04 writes it: captions and attribute keys.

The cohort, a recipe and where captions come from go in; a table of pairs comes out. Only images of
training and validation patients are captioned.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bonelib import captions, cohort, images, runs
from bonelib.experiments.context import Context
from bonelib.experiments.settings import Recipe, listing


@dataclass(frozen=True)
class Pairs:
    """Images of training and validation patients with what is said of them.

    Attributes:
        table: ``image_id, split, source, study, caption`` and an attribute key a column ``key_0``…,
            -1 where unknown; training rows first. ``attrs["attributes"]`` names the column of each
            key and its values, but for ``own`` words.
        fields: What captions may name, as far as the set knows it.
        inputs: The finished runs that were read.
        files: Other files that were read, by name.
        notes: What was odd about them.
    """

    table: pd.DataFrame
    fields: tuple[str, ...]
    inputs: list[runs.Record]
    files: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def meanings(self) -> int:
        """Distinct combinations of facts."""
        return len(self.table.filter(like="key_").drop_duplicates())

    @property
    def wordings(self) -> int:
        """Distinct captions."""
        return self.table["caption"].nunique()


def caption(context: Context, recipe: Recipe, *, source: str, fields: str, language: str) -> Pairs:
    """Write the captions of training and validation images.

    Args:
        source: ``table``: from its columns; ``reports``: from what notebook 03 read in them;
            ``own``: its column ``caption`` as it stands; or the CSV of a bank of captions.
        fields: What captions may name, separated by commas; the recipe may name others.
        language: Of the captions.

    Raises:
        ValueError: No row knows any of the fields, or there is nothing to caption.
    """
    (taught, inputs), files = _images(context, recipe, source), {}
    parts = [taught[taught["split"] == part] for part in ("train", "val")]
    taught = pd.concat(parts, ignore_index=True)
    if source == captions.OWN:
        named, notes = (captions.OWN,), []
        said, keys = captions.own_words(taught)
    else:
        asked = [f for f in recipe.fields or listing(fields) if f not in recipe.exclude_fields]
        named, bank, notes = captions.known(taught, fields=asked), {}, []
        if source not in ("table", "reports"):
            files["captions"] = Path(source)
            phase = "pretraining" if captions.label_free(named) else "supervised"
            bank, notes = captions.read_bank(source, fields=named, language=language, phase=phase)
        wording = dict(fields=named, language=language, seed=context.seed, bank=bank)
        said, keys = captions.write(taught, **wording), captions.keys(taught, fields=named)
    table = taught[["image_id", "split", "source", "study"]].assign(caption=said)
    table[[f"key_{k}" for k in range(keys.shape[1])]] = keys
    if source != captions.OWN:
        table.attrs["attributes"] = [*map(list, captions.key_values(taught, fields=named).items())]
    if recipe.outlines:
        named, table = (*named, captions.OUTLINES), _outlined(context, taught, table, language)
    if recipe.captions == "shuffled":
        table = _shuffled(table, seed=context.seed)
    inputs += _ingredients(context, recipe, named)
    return Pairs(table, named, inputs, files, notes)


def _images(
    context: Context, recipe: Recipe, source: str
) -> tuple[pd.DataFrame, list[runs.Record]]:
    """Return the images that a recipe looks at with what is known of them, and the runs read."""
    view, read = context.view(), [context.cohort_run]
    taught = view[view["source"].isin(recipe.data_sets or set(view["source"]))]
    if source == "reports":
        read.append(context.find("reports", test=context.test))
        taught = captions.from_reports(taught, *(read[1].table(n) for n in ("facts", "images")))
    if recipe.also:
        read.append(context.other(recipe.also).cohort_run)
        taught = pd.concat([taught, context.beside(recipe.also)], ignore_index=True)
    return taught, read


def _ingredients(context: Context, recipe: Recipe, fields: tuple[str, ...]) -> list[runs.Record]:
    """Return the pretrainings whose towers a soup averages.

    Raises:
        ValueError: They started elsewhere, or captions of theirs named more than ``fields``.
    """
    found, starts, faults = context.ingredients(recipe.soup, of=recipe.name), set(), []
    for name, record in zip(recipe.soup, found, strict=True):
        own, more = record.settings["recipe"], {*record.settings["caption_fields"]} - {*fields}
        drawn = f", seed {record.head['seed']}" if own["weights"] == "random" else ""
        starts.add(f"{own['image']} ({own['weights']}{drawn})")
        faults += [f"{name} learnt from {', '.join(sorted(more))} as well"] if more else []
    faults += [f"they started from {' and '.join(sorted(starts))}"] if len(starts) > 1 else []
    if faults:
        raise ValueError(
            f"The soup {recipe.name!r} can't be made: {'; '.join(faults)}. Average towers of one "
            "start, under CAPTION_FIELDS that hold all that they learnt from."
        )
    return found


def _outlined(
    context: Context, taught: pd.DataFrame, table: pd.DataFrame, language: str
) -> pd.DataFrame:
    """Add to the captions and keys of training images where their outlines lie.

    Raises:
        ValueError: No training image has an outline.
    """
    cache = context.cache(context.cohort_run.settings["size"])
    drawn = (table["split"] == "train") & taught[cohort.MASK].notna()
    drawn &= table["image_id"].isin(cache.ids)  # not what another set adds
    if not drawn.any():
        sets = ", ".join(taught["source"].unique())
        raise ValueError(
            f"No training image of {sets} has an outline. Take a set that has masks, such as "
            "fracatlas, or a recipe without outlines = true."
        )
    told: list[dict[str, str] | None] = [None] * len(table)
    for row in np.flatnonzero(drawn):
        known = taught.loc[row]
        place = cache.geometry.loc[cache.rows([known["image_id"]])[0]]
        mask, torn = images.mask(known[cohort.MASK], place, size=cache.size), known.get("fracture")
        told[row] = facts = captions.outline_facts(mask, fractured=str(torn) == "fractured")
        table.loc[row, "caption"] += " " + captions.outline_sentence(facts, language=language)
    keys, values = captions.outline_keys(told)
    first = len(table.filter(like="key_").columns)
    table[[f"key_{first + k}" for k in range(keys.shape[1])]] = keys
    table.attrs["attributes"] = [*table.attrs.get("attributes", []), *values]
    return table


def _shuffled(table: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Give each image the caption of another of its part: the same words, no information."""
    table = table.copy()
    for part in ("train", "val"):
        rows = np.flatnonzero(table["split"] == part)
        order = np.random.default_rng(seed).permutation(rows)
        for column in ("caption", *table.filter(like="key_")):
            table.loc[rows, column] = table[column].to_numpy()[order]
    return table
