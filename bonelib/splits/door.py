"""The one door to the test labels: what is sealed, which rows a test set holds, who opened it.

A run of notebook 01 comes in; ``apply`` returns its table for one test set with everything that
could give a test label away replaced by NA, ``open_test`` alone returns it and records that it did.
"""

import hashlib
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from bonelib import cohort
from bonelib.cohort import CENTER, FOLD, GROUP, IMAGE_ID, SPLIT


def seal(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Part a table into what may be seen of any image, and the sealed rest (with ``image_id``)."""
    sealed = cohort.sealed_columns(table)
    return table.drop(columns=sealed), table[[IMAGE_ID, *sealed]]


def fingerprint(table: pd.DataFrame) -> str:
    """Hash who is in which group, fold and centre, so that a changed split is noticed."""
    columns = [c for c in (IMAGE_ID, GROUP, FOLD, CENTER) if c in table]
    known = table[columns].astype("object").where(table[columns].notna(), "").map(str)
    text = known.sort_values(IMAGE_ID).to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def apply(run: Any, *, test: str = "fold0") -> pd.DataFrame:
    """Return the table of a data run for one test set, its test rows without label, mask or report.

    Args:
        run: The record of notebook 01, stage ``data``.
        test: ``fold<k>``: fold k is the test set and the next fold validates. ``center:<name>``:
            that centre is the test set (external testing), and ``center:<name>+<name>`` several.
            Fold 0 of the other centres validates, and images of an unknown centre, which could be
            from either side, are dropped.

    Returns:
        The table with ``split`` (train, val, test). Sealed columns are NA in test rows; a training
        image whose group reaches into the test set is dropped.

    Raises:
        ValueError: Unknown test set, a split table that was changed, or an empty part.
    """
    public, sealed = _tables(run)
    table = public.merge(sealed, on=IMAGE_ID, validate="one_to_one")
    table[SPLIT] = _roles(public, test)
    held = table[SPLIT] == "test"
    straddling = ~held & table[GROUP].isin(set(table.loc[held, GROUP]))
    table = table[~straddling & (table[SPLIT] != "")].reset_index(drop=True)
    folds = table[FOLD].max() + 1
    inner = (int(test[4:]) + 1) % folds if test.startswith("fold") else 0
    table.loc[(table[SPLIT] == "train") & (table[FOLD] == inner), SPLIT] = "val"
    missing = [part for part in ("train", "val", "test") if not (table[SPLIT] == part).any()]
    if missing:
        raise ValueError(f"The test set {test!r} leaves no images for: {', '.join(missing)}.")
    for column in cohort.sealed_columns(table):
        table[column] = table[column].astype("object").where(table[SPLIT] != "test", pd.NA)
    return table


def _tables(run: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read what may be seen and what is sealed, refusing a split that was changed since."""
    public, sealed = run.table("cohort"), run.table("labels")
    if fingerprint(public) != run.notes["table_hash"]:
        raise ValueError(
            f"The split table of {run.name} was changed since notebook 01 wrote it. "
            "Run notebook 01 again with REUSE=False."
        )
    return public, sealed


def _roles(table: pd.DataFrame, test: str) -> np.ndarray:
    """Name the part of each row for one test set: ``test``, ``train``, or empty where neither.

    Args:
        test: As in ``apply``; ``folds`` makes every row a test row in turn.
    """
    folds = sorted(set(table[FOLD]))
    centers = table[CENTER].astype("object").map(str).where(table[CENTER].notna(), "")
    sizes = centers[centers != ""].value_counts()
    if test == "folds":
        return np.full(len(table), "test")
    if test.startswith("fold") and test[4:].isdigit() and int(test[4:]) in folds:
        return np.where(table[FOLD] == int(test[4:]), "test", "train")
    kind, _, name = test.partition(":")
    named = {name} if name in sizes.index else set(name.split("+"))  # a name may hold a "+"
    if kind == "center" and named < set(sizes.index):  # some centre is left to train on
        held = centers.isin(named)
        return np.where(centers == "", "", np.where(held, "test", "train"))
    choices = [f"fold{k}" for k in folds]
    if len(sizes) > 1:
        choices += [f"center:{name}" for name in sorted(sizes.index)]
    said = f"Unknown test set {test!r}. Choose one of {', '.join(choices)}"
    if kind == "center":
        counts = ", ".join(f"{name} {n:,}" for name, n in sizes.items()) or "none is named"
        said += f"; several centres as center:A+B. Images by centre: {counts}"
    raise ValueError(f"{said}.")


def open_test(run: Any) -> pd.DataFrame:
    """Return the sealed columns of the run's test images, and record the opening.

    The test set is the run's setting ``test``; ``folds`` stands for all folds in turn, so for every
    image. This is the only function that returns a test label.

    Raises:
        ValueError: The run was started without the setting ``test``, or its data run has changed.
    """
    public, sealed = _tables(run.upstream("data"))
    if "test" not in run.settings:
        raise ValueError(f"{run.name} names no test set. Start it with test='fold0', say.")
    test = run.settings["test"]
    held = public.loc[_roles(public, test) == "test", IMAGE_ID]
    opened = sealed[sealed[IMAGE_ID].isin(held)].reset_index(drop=True)
    run.log_opening(
        {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "test": test,
            "task": run.head["task"],
            "images": len(opened),
            "settings": run.settings,
        }
    )
    return opened
