"""Who may be compared with whom: groups, folds, hold-outs, and the one door to the test labels.

A cohort table comes in; ``group, group_kind, fold`` go out. Images that could be copies or views of
one patient share a group, and no group is ever parted. ``apply`` returns the table for one test set
with everything that could give a test label away replaced by NA; ``open_test`` alone returns it,
and writes into the run's record that it did.
"""

import hashlib
import warnings
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from bonelib import cohort
from bonelib.cohort import CENTER, FOLD, GROUP, GROUP_KIND, IMAGE_ID, PATIENT, SPLIT, STUDY

HEADLINE = ("malignancy", "tumor", "fracture", "kl_grade", "anomaly")  # first present stratifies
UNLABELLED = "unlabelled"


def add_groups(table: pd.DataFrame, *, sha256: dict[str, str] | None = None) -> pd.DataFrame:
    """Return a copy of ``table`` with ``group`` and ``group_kind``.

    Patients (else studies) are groups, each within its source. Where neither is known, neighbouring
    rows with equal age, sex, site and centre are taken for views of one patient (so they are in
    BTXRD), and what is left stands for itself. Byte-identical files join the groups they lie in,
    whatever their labels.

    Args:
        sha256: Content hash of each image by ``image_id`` (``Cache.sha256``).
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
    links.extend((i - 1, i) for i in np.flatnonzero(same))
    if sha256:
        link(pd.Series([sha256.get(i, i) for i in table[cohort.IMAGE_ID]]))
    table[GROUP] = _components(len(table), links)
    table[GROUP_KIND] = kind.to_numpy()
    return table


def _components(count: int, links: list[tuple[int, int]]) -> list[str]:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pairs = np.array(links, dtype=int).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return [f"g{number:05d}" for number in connected_components(graph, directed=False)[1]]


def strata(table: pd.DataFrame, *, by: str | None = None) -> pd.Series:
    """Return what folds are balanced over: the headline task's class, or a binned value.

    Rows without a label are ``unlabelled``, which is spread like a class but need not be in every
    fold.

    Raises:
        ValueError: No labelled task is present, or the table has no column ``by``.
    """
    if by is not None and by not in table:
        raise ValueError(f"No column {by!r} to stratify by. Columns: {', '.join(table.columns)}.")
    names = [by] if by else [n for n in HEADLINE if n in table and table[n].notna().any()]
    if names:
        column = table[names[0]].astype("object")
        return column.where(column.notna(), UNLABELLED).astype(str)
    if "bone_age" in table and table["bone_age"].notna().any():
        return pd.qcut(pd.to_numeric(table["bone_age"]), 5, labels=False, duplicates="drop").astype(
            str
        )
    raise ValueError(
        f"Nothing to stratify by: found no label in {', '.join(HEADLINE)} or bone_age. "
        "Name a column of the table as BY."
    )


def add_folds(
    table: pd.DataFrame, *, by: str | None = None, folds: int = 5, seed: int = 0, tries: int = 20
) -> pd.DataFrame:
    """Return a copy of ``table`` with ``fold``: grouped, stratified, never empty of a class.

    scikit-learn's ``StratifiedGroupKFold`` is greedy and can leave a fold without a rare class
    (scikit-learn issues 24656, 28218); the best of ``tries`` seeds is kept, by the largest
    deviation of a class's share in a fold.

    Raises:
        ValueError: A class has fewer groups than folds, or no seed puts every class in every fold;
            the message gives the counts.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if GROUP not in table:
        raise ValueError("The table has no groups. Call splits.add_groups(table) first.")
    stratum = strata(table, by=by)
    labelled = stratum != UNLABELLED
    groups = table.loc[labelled, GROUP].groupby(stratum[labelled]).nunique()
    few = groups[groups < folds]
    if len(few):
        counts = ", ".join(f"{name}: {n}" for name, n in groups.items())
        raise ValueError(
            f"Too few groups (patients) for {folds} folds in {', '.join(map(str, few.index))}. "
            f"Groups by class: {counts}. Ask for fewer folds or merge classes."
        )
    best: tuple[float, np.ndarray] | None = None
    codes = pd.Categorical(stratum).codes
    for attempt in range(tries):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed + attempt)
        fold = np.full(len(table), -1)
        with warnings.catch_warnings():  # a handful of unlabelled rows is no fault
            warnings.filterwarnings("ignore", message="The least populated class")
            for number, (_, held) in enumerate(splitter.split(codes, codes, table[GROUP])):
                fold[held] = number
        counts = pd.crosstab(fold[labelled], codes[labelled])
        if counts.shape[0] < folds or (counts == 0).any(axis=None):
            continue
        shares = counts.div(counts.sum(axis=0), axis=1)
        spread = float((shares - 1 / folds).abs().max(axis=None))
        if best is None or spread < best[0]:
            best = (spread, fold)
    if best is None:
        counts = ", ".join(f"{name}: {n} groups" for name, n in groups.items())
        raise ValueError(
            f"No seed puts every class in each of {folds} folds ({counts}). Ask for fewer."
        )
    return table.assign(**{FOLD: best[1]})


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
        run: The finished ``data`` run of notebook 01.
        test: ``fold<k>``: fold k is the test set and the next fold validates. ``center``: every
            centre but the largest is the test set (external testing). ``center:<name>``: that
            centre. With a centre hold-out, fold 0 of the others validates, and images of an unknown
            centre, which could be from either side, are dropped.

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
    if fingerprint(public) != run.record["notes"]["table_hash"]:
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
    if kind == "center" and len(sizes) > 1 and (not name or name in sizes.index):
        held = centers == name if name else centers != sizes.index[0]
        return np.where(centers == "", "", np.where(held, "test", "train"))
    choices = [f"fold{k}" for k in folds]
    if len(sizes) > 1:
        choices += ["center", *(f"center:{name}" for name in sorted(sizes.index))]
    raise ValueError(f"Unknown test set {test!r}. Choose one of {', '.join(choices)}.")


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
