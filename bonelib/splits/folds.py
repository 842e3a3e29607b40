"""Stratified grouped folds, and nested subsets of the training rows.

A table with groups comes in; the same table goes out with ``fold``, or with fewer training rows.
scikit-learn cuts the folds; what it can't promise is checked here.
"""

import warnings

import numpy as np
import pandas as pd

from bonelib import cohort
from bonelib.cohort import FOLD, GROUP, SOURCE, SPLIT
from bonelib.splits.groups import largest

# The first that has labels stratifies.
HEADLINE = ("malignancy", "tumor", "fracture", "kl_grade", "anomaly", "bone_age")
UNLABELLED = "unlabelled"
LEAST = 3  # folds: to test, to validate, and to train on


def strata(table: pd.DataFrame, *, by: str | None = None) -> pd.Series:
    """Return what folds are balanced over: the headline task's class, or a binned value.

    Rows without a label are ``unlabelled``, which is spread like a class but need not be in every
    fold; so is every row of a set that has captions alone. Values of a regression are cut into
    fifths, named by their ends: ``094–132``.

    Args:
        by: A column of the table; by default the first headline task that has labels. Of several
            data sets in one table each goes by its own: ``knee_kl 3``.

    Raises:
        ValueError: The table has no column ``by``.
    """
    if by is not None and by not in table:
        raise ValueError(f"No column {by!r} to stratify by. Columns: {', '.join(table.columns)}.")
    if by is None and table[SOURCE].nunique() > 1:
        parts = [f"{name} " + strata(part) for name, part in table.groupby(SOURCE)]
        whole = pd.concat(parts)
        return whole.where(~whole.str.endswith(f" {UNLABELLED}"), UNLABELLED).reindex(table.index)
    known = [by] if by else [n for n in HEADLINE if n in table and table[n].notna().any()]
    if not known:
        return pd.Series(UNLABELLED, index=table.index)
    column = table[known[0]].astype("object")
    task = cohort.TASKS.get(known[0])
    if task is not None and task.kind == "regression":
        values = pd.to_numeric(column).astype(float)
        fifth = pd.qcut(values, 5, labels=False, duplicates="drop")
        ends = values.groupby(fifth).agg(["min", "max"])
        wide = len(f"{values.max():.0f}")  # leading zeros, so that names sort as values do
        names = {k: f"{low:0{wide}.0f}–{high:0{wide}.0f}" for k, low, high in ends.itertuples()}
        column = fifth.map(names).astype("object")
    return column.where(column.notna(), UNLABELLED).astype(str)


def add_folds(
    table: pd.DataFrame, *, by: str | None = None, folds: int = 5, seed: int = 0, tries: int = 20
) -> pd.DataFrame:
    """Return a copy of ``table`` with ``fold``: grouped, stratified, never empty of a class.

    Without any label the folds are balanced by their number of images alone.

    scikit-learn's ``StratifiedGroupKFold`` is greedy and can leave a fold without a rare class
    (scikit-learn issues 24656, 28218); the best of ``tries`` seeds is kept, by the largest
    deviation of a class's share in a fold.

    Raises:
        ValueError: A class has fewer groups than folds, or no seed puts every class in every fold;
            the message gives the counts, the largest group with what ties it, and a cure.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if GROUP not in table:
        raise ValueError("The table has no groups. Call splits.add_groups(table) first.")
    stratum = strata(table, by=by)
    labelled = stratum != UNLABELLED
    if not labelled.any():
        labelled[:] = True
    groups = table.loc[labelled, GROUP].groupby(stratum[labelled]).nunique()
    if (groups < folds).any():
        raise ValueError(_too_few(table, stratum, groups, folds))
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
            f"No seed puts every class in each of {folds} folds ({counts}). To mend it, "
            f"{_fewer(folds - 1)}."
        )
    return table.assign(**{FOLD: best[1]})


def _too_few(table: pd.DataFrame, stratum: pd.Series, groups: pd.Series, folds: int) -> str:
    """Say which classes lack groups, what ties their images, and the cure that fits."""
    few = groups[groups < folds]
    told = (
        f"Too few groups (patients) for {folds} folds in {', '.join(map(str, few.index))}. "
        f"Groups by class: {', '.join(f'{name}: {n}' for name, n in groups.items())}."
    )
    among = stratum == few.idxmin()
    size, tie, untie = largest(table, among)
    if size > 1:
        told += f" The largest group there holds {size} of {len(table)} images: {tie}."
    fewer = _fewer(int(few.min()))
    if among.sum() >= folds:  # images enough, were they not tied
        return f"{told} {untie}. Otherwise {fewer}."
    return f"{told} {fewer[0].upper()}{fewer[1:]}."


def _fewer(folds: int) -> str:
    """Say how to ask for fewer folds: one to test, one to validate, and one to train on."""
    merge = "leave the labels of the rare class empty, or merge it with another"
    return f"set FOLDS to {folds}, or {merge}" if folds >= LEAST else merge


def subset(
    view: pd.DataFrame,
    *,
    share: float | None = None,
    shots: int | None = None,
    seed: int,
    by: str | None = None,
) -> pd.DataFrame:
    """Return ``view`` with fewer training rows; validation and test rows stay as they are.

    Nested: with one seed the groups of each class are shuffled once, and a subset takes them from
    the front, so that a smaller one lies inside every larger one and a label curve differs by what
    was added alone. Training rows without a label are left out.

    Args:
        view: The table of `apply`.
        share: Part of the labelled training images, 0 to 1, kept in each class, by whole groups:
            as near to it as groups allow, and at least one group.
        shots: Images per class, each of another group (patient).
        by: The column that names the classes, as in `strata`.

    Raises:
        ValueError: Not exactly one of share and shots, or a class is too small; with counts.
    """
    missing = [column for column in (SPLIT, GROUP) if column not in view]
    if missing:
        raise ValueError(f"The table lacks {', '.join(missing)}. Pass the table of splits.apply.")
    if (share is None) == (shots is None):
        raise ValueError(f"Got share={share} and shots={shots}. Give one of the two.")
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"A share is a fraction above 0 and up to 1, not {share}.")
    if shots is not None and (shots < 1 or shots != int(shots)):
        raise ValueError(f"Shots are whole images per class, 1 or more, not {shots}.")
    training = view[view[SPLIT] == "train"]
    if training.empty:
        raise ValueError(f"None of the {len(view)} rows is for training.")
    stratum = strata(training, by=by)
    stratum = stratum[stratum != UNLABELLED]
    group = training.loc[stratum.index, GROUP]
    # A group of several classes stands for its rarest: that one has no rows to lose.
    rank = stratum.map(stratum.value_counts())
    rarest = stratum.loc[rank.groupby(group).idxmin()]
    owner = group.map(pd.Series(rarest.to_numpy(), index=group.loc[rarest.index]))
    images, groups = (
        stratum.value_counts(),
        owner.groupby(owner).apply(lambda o: group[o.index].nunique()),
    )
    few = {
        name: groups.get(name, 0) if share is None else images[name]
        for name in sorted(images.index)
        if (groups.get(name, 0) < shots if share is None else share * images[name] < 0.5)
    }
    if few:
        asked = (
            f"{shots} shots need as many groups" if share is None else f"{share:.2%} is no image"
        )
        counts = ", ".join(
            f"{name}: {images[name]} images, {groups.get(name, 0)} groups" for name in images.index
        )
        raise ValueError(
            f"{asked} in {', '.join(map(str, few))}. Training rows by class: {counts}."
        )
    kept: list = []
    for name in sorted(images.index):
        rng = np.random.default_rng([seed, *name.encode()])  # a class more changes no other
        names = rng.permutation(np.sort(group[owner == name].unique().astype(str)))
        rows = group.index[(owner == name).to_numpy()]
        if rows.empty:  # each of its groups stands for a rarer class, and comes with that one
            continue
        place = pd.Series(np.arange(len(names)), index=names)
        order = group[rows].astype(str).map(place)
        if shots is not None:
            own = order[(stratum[rows] == name).to_numpy()]
            kept += list(own[own < shots].drop_duplicates().index)
        else:
            held = np.cumsum(np.bincount(order, minlength=len(names)))
            count = int(np.argmin(abs(held - share * held[-1]))) + 1
            kept += list(order[order < count].index)
    return view[(view[SPLIT] != "train") | view.index.isin(kept)].reset_index(drop=True)
