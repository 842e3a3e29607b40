"""Several data sets as one table: ``fracatlas+rsna_bone_age+knee_kl``.

Pretraining can use radiographs of all of them, whatever each has labels of. ``source`` tells them
apart; ids, patients and studies carry the name of their set, so that equal numbers don't meet.
Licences stay those of each set.
"""

import os
from pathlib import Path

import pandas as pd

from bonelib import cohort, datasets


def read(name: str, root: str | Path, **options) -> pd.DataFrame:
    """Read the sets that ``name`` joins with ``+`` and put their tables below each other.

    Args:
        root: Their folders in the same order, joined as in PATH (``runs.data_root`` finds those of
            downloads), or the folder that holds one for each, under its name.
        options: Those of ``datasets.read``.

    Raises:
        FileNotFoundError: One of the folders is missing; all that are, are named.
        ValueError: A set stands twice, or one of them breaks its format.
    """
    names = name.split("+")
    if len(set(names)) < len(names) or not all(names):
        raise ValueError(f"DATA={name!r} must name different data sets, joined by +.")
    given = str(root).split(os.pathsep)
    if len(given) == len(names):
        roots = [Path(part) for part in given]
    else:
        roots = [Path(root) / part for part in names]
    missing = [str(folder) for folder in roots if not folder.is_dir()]
    if missing:
        raise FileNotFoundError(
            f"No folder {', '.join(missing)}. Set DATA_ROOT to the folder that holds them all, or "
            f"to their {len(names)} folders joined by {os.pathsep!r}."
        )
    tables, notes = [], []
    for part, folder in zip(names, roots, strict=True):
        table = datasets.read(part, folder, **options)
        for column in (cohort.IMAGE_ID, cohort.PATIENT, cohort.STUDY, cohort.CENTER):
            known = table[column].notna()
            table.loc[known, column] = part + "/" + table.loc[known, column].astype(str)
        notes += [f"{part}: {note}" for note in table.attrs.get("notes", [])]
        tables.append(table)
    joined = pd.concat(tables, ignore_index=True)
    joined.attrs["notes"] = notes
    return joined
