"""Table 1: who is in the cohort, by split. Counts and quartiles only, no id of anybody.

The view of the cohort and the labels come in; a frame of texts goes out. What is missing is a row
of its own, and images of nobody known are counted as such.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import chain

import pandas as pd

from bonelib.cohort import AGE, CENTER, GROUP, PATIENT, SEX, SITE, SPLIT, VIEW, Task
from bonelib.reporting.printing import Printed

SPLITS = {"train": "training", "val": "validation", "test": "test"}
MISSING = "missing"
NOTES = (
    "Age and sex: one row a patient, or a group of images where no patient is known. Otherwise "
    "images; one image may show several sites or views.",
    "Age: median [quartiles]. Percentages are of their column, what is missing included.",
)


def characteristics(view: pd.DataFrame, *, task: Task) -> pd.DataFrame:
    """Describe the images and patients of each split.

    Args:
        view: The cohort with ``split``, as ``splits.apply`` returns it, and ``label`` of the task
            as far as it may be known: test labels are those of stored predictions.

    Returns:
        ``characteristic, value``, and a column of texts for each split and for ``all``.
    """
    parts = {name: view[view[SPLIT] == split] for split, name in SPLITS.items()} | {"all": view}
    parts = {name: part for name, part in parts.items() if len(part)}
    rows = [("images", "", {name: f"{len(part):,}" for name, part in parts.items()})]
    known = {name: part[PATIENT].dropna() for name, part in parts.items()}
    rows.append(("patients", "", {name: f"{ids.nunique():,}" for name, ids in known.items()}))
    if view[PATIENT].isna().any():
        lost = {name: _share(part[PATIENT].isna().sum(), len(part)) for name, part in parts.items()}
        rows.append(("images without a patient id", "", lost))
    people = {name: _one_each(part) for name, part in parts.items()}
    rows += _numbers("age, years", {name: part[AGE] for name, part in people.items()})
    rows += _counts("sex", {name: part[SEX] for name, part in people.items()})
    for name, column in (("centre", CENTER), ("site", SITE), ("view", VIEW)):
        rows += _counts(name, {split: part[column] for split, part in parts.items()})
    labels = {name: part["label"] for name, part in parts.items()}
    if task.kind == "regression":
        rows += _numbers(f"{task.name}, {task.unit}", labels)
    else:
        rows += _counts(task.name, labels, order=task.classes)
    return pd.DataFrame([{"characteristic": c, "value": v} | cells for c, v, cells in rows])


def _one_each(part: pd.DataFrame) -> pd.DataFrame:
    """Keep the first image of each patient, or of each group where no patient is known."""
    group = "group " + part[GROUP].astype(str)
    return part[~part[PATIENT].astype("object").fillna(group).duplicated()]


def _share(count: int, total: int) -> str:
    return f"{count:,} ({100 * count / total:.1f} %)" if total else "0"


def _numbers(name: str, columns: dict[str, pd.Series]) -> list[tuple[str, str, dict[str, str]]]:
    columns = {split: pd.to_numeric(values, errors="coerce") for split, values in columns.items()}
    told, lost = {}, {}
    for split, values in columns.items():
        low, middle, high = values.quantile([0.25, 0.5, 0.75])
        told[split] = f"{middle:.0f} [{low:.0f}, {high:.0f}]" if values.notna().any() else "–"
        lost[split] = _share(values.isna().sum(), len(values))
    absent = any(values.isna().any() for values in columns.values())
    return [(name, "", told)] + [(name, MISSING, lost)] * absent


def _counts(
    name: str, columns: dict[str, pd.Series], *, order: Iterable[str] = ()
) -> list[tuple[str, str, dict[str, str]]]:
    """Count each term; a cell that holds several counts for each of them."""
    terms = {split: [_terms(cell) for cell in values] for split, values in columns.items()}
    every = {term for cells in terms.values() for cell in cells for term in cell}
    order = [*order, *sorted(every - {*order, MISSING}), *({MISSING} & every)]
    total = {split: len(cells) for split, cells in terms.items()}
    counted = {split: Counter(chain(*map(set, cells))) for split, cells in terms.items()}
    return [(name, t, {s: _share(counted[s][t], total[s]) for s in terms}) for t in order]


def _terms(cell: object) -> tuple[str, ...]:
    if isinstance(cell, tuple):
        return cell or (MISSING,)
    return (MISSING,) if pd.isna(cell) or cell == "" else (str(cell),)


def characteristics_form(table: pd.DataFrame) -> Printed:
    """Return Table 1 as it is printed."""
    names = table["characteristic"]
    shown = table.assign(characteristic=names.where(names != names.shift(), "")).rename(
        columns={"value": " "}
    )
    return Printed(shown, words=("characteristic", " "), notes=NOTES)
