"""Who belongs together: patients, studies, neighbours and copies become groups.

A cohort table comes in; ``group`` and ``group_kind`` go out, and what copies contradict each other.
"""

import numpy as np
import pandas as pd

from bonelib import cohort
from bonelib.cohort import CENTER, GROUP, GROUP_KIND, IMAGE_ID, PATIENT, STUDY
from bonelib.splits.copies import FIRST, SECOND


def add_groups(
    table: pd.DataFrame, *, sha256: dict[str, str] | None = None, near: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return a copy of ``table`` with ``group`` and ``group_kind``.

    Patients (else studies) are groups, each within its source. Where neither is known, neighbouring
    rows with equal age, sex, site and centre are taken for views of one patient (so they are in
    BTXRD). Copies and near duplicates are tied whoever they are of. ``group_kind`` says what a
    group stands for: ``patient``, ``study`` or ``image-level groups``.

    Args:
        sha256: Content hash of each image by ``image_id`` (``Cache.sha256``).
        near: Pairs of `near_duplicates`; those with an image outside the table are passed over.
    """
    table = table.copy()
    position = np.arange(len(table))
    links: list[tuple[int, int]] = []

    def link(key: pd.Series) -> None:
        for rows in pd.Series(position).groupby(key.to_numpy()).indices.values():
            links.extend((rows[0], row) for row in rows[1:])

    kind = pd.Series("image-level groups", index=table.index)
    for column, name in ((STUDY, "study"), (PATIENT, "patient")):
        known = table[column].notna()
        if known.any():
            # The patient "12" of one source is not the patient "12" of another.
            names = table[cohort.SOURCE].astype(str) + " " + table[column].astype(str)
            named = zip(names, known, strict=True)
            link(pd.Series([f"is {n}" if k else f"row {i}" for i, (n, k) in enumerate(named)]))
            kind[known] = name
    nameless = table[PATIENT].isna() & table[STUDY].isna()
    # Equal sites alone say nothing: age, sex and site must all be known.
    told = (
        table[cohort.AGE].notna() & table[cohort.SEX].notna() & (table[cohort.SITE].str.len() > 0)
    )
    # Where the centre is unknown it is so for both: equal, or no neighbours would ever be found.
    alike = table[[cohort.SOURCE, cohort.AGE, cohort.SEX, cohort.SITE, CENTER]]
    alike = alike.astype("object").map(str)
    same = (alike == alike.shift()).all(axis=1) & told & nameless & nameless.shift(fill_value=False)
    links.extend((i - 1, i) for i in np.flatnonzero(same).tolist())
    links += _copies(table, sha256, near)
    table[GROUP] = _components(len(table), links)
    table[GROUP_KIND] = kind.to_numpy()
    return table


def largest(table: pd.DataFrame, among: pd.Series) -> tuple[int, str, str]:
    """Say of the largest group how many images it has, what ties them, and how to untie them.

    Args:
        table: With the groups of `add_groups`.
        among: Of which rows the largest is meant, bool; all rows of its group count.
    """
    sizes = table.loc[among, GROUP].value_counts()
    rows = table[table[GROUP] == sizes.index[0]]
    size = len(rows)
    for column, name in ((PATIENT, "patient"), (STUDY, "study")):
        if size > 1 and rows[column].notna().all() and rows[column].nunique() == 1:
            tie = f"all of them name the {name} {rows[column].iloc[0]!r}"
            return size, tie, (
                f"If that stands for several people, name each in the column {name!r} of your CSV "
                f"(of a DICOM export: beside image_id in labels.csv), or write unknown there"
            )  # fmt: skip
    people = rows[PATIENT].nunique() or rows[STUDY].nunique()
    if people:
        tie = f"copies and near duplicates tie {people} patients or studies together"
    else:
        tie = "no patient is named, and they are copies, near duplicates or neighbours alike in age"
        tie += ", sex and site"
    return size, tie, (
        f"Look at them, e.g. {', '.join(rows[IMAGE_ID].astype(str).head(3))}: leave copies out, "
        "or name patients"
    )  # fmt: skip


def _copies(
    table: pd.DataFrame, sha256: dict[str, str] | None, near: pd.DataFrame | None
) -> list[tuple[int, int]]:
    """Return the pairs of rows that are copies by their bytes or by `near_duplicates`."""
    links: list[tuple[int, int]] = []
    seen: dict[str, int] = {}
    row = {name: i for i, name in enumerate(table[IMAGE_ID])}
    for name, i in row.items():
        content = (sha256 or {}).get(name)
        if content:  # a file that could not be read has no hash, and is no copy of another
            links.append((seen.setdefault(content, i), i))
    if near is not None:
        pairs = zip(near[FIRST], near[SECOND], strict=True)
        links += [(row[a], row[b]) for a, b in pairs if a in row and b in row]
    return links


def _components(count: int, links: list[tuple[int, int]]) -> list[str]:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pairs = np.array(links, dtype=int).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return [f"g{number:05d}" for number in connected_components(graph, directed=False)[1]]


def contradictions(
    table: pd.DataFrame, *, sha256: dict[str, str] | None = None, near: pd.DataFrame | None = None
) -> pd.DataFrame:
    """List the groups whose images carry different labels, one row per group and task.

    With ``sha256`` or ``near`` only copies are compared, which can't both be right. Without them
    the column ``group`` is taken, where a difference may be true: two knees of a patient.

    Returns:
        task, group, images (ids, joined by commas) and labels (the different ones, by commas).

    Raises:
        ValueError: Neither copies nor groups are known.
    """
    if sha256 is None and near is None and GROUP not in table:
        raise ValueError("Nothing to compare: pass sha256 or near, or call splits.add_groups.")
    if sha256 is None and near is None:
        group = table[GROUP].to_numpy()
    else:
        group = np.array(_components(len(table), _copies(table, sha256, near)))
    rows = []
    for task in cohort.labelled(table):
        known = table[task.column].notna().to_numpy()
        label = table.loc[known, task.column].astype(str)
        several = label.groupby(group[known]).transform("nunique") > 1
        for name, part in label[several].groupby(group[known][several.to_numpy()]):
            images = ", ".join(table.loc[part.index, IMAGE_ID].astype(str))
            rows.append((task.name, name, images, ", ".join(sorted(set(part)))))
    return pd.DataFrame(rows, columns=["task", GROUP, "images", "labels"])
