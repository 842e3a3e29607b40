"""What is said of each radiograph, as notebook 04 writes it: captions and attribute keys.

The cohort, a recipe and where captions come from go in; a table of pairs comes out. Only images of
training and validation patients are captioned.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bonelib import captions, runs
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
    view, inputs, files = context.view(), [context.cohort_run], {}
    taught = view[view["source"].isin(recipe.data_sets or set(view["source"]))]
    if source == "reports":
        inputs.append(context.find("reports", test=context.test))
        taught = captions.from_reports(taught, *(inputs[1].table(n) for n in ("facts", "images")))
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
    if recipe.captions == "shuffled":
        table, keys = _shuffled(table, keys, seed=context.seed)
    table[[f"key_{k}" for k in range(keys.shape[1])]] = keys
    if source != captions.OWN:
        values = captions.key_values(taught, fields=named)
        table.attrs["attributes"] = [[column, known] for column, known in values.items()]
    return Pairs(table, named, inputs, files, notes)


def _shuffled(
    table: pd.DataFrame, keys: np.ndarray, *, seed: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Give each image the caption of another of its part: the same words, no information."""
    table, keys, said = table.copy(), keys.copy(), table["caption"].to_numpy()
    for part in ("train", "val"):
        rows = np.flatnonzero(table["split"] == part)
        order = np.random.default_rng(seed).permutation(rows)
        table.loc[rows, "caption"], keys[rows] = said[order], keys[order]
    return table, keys
