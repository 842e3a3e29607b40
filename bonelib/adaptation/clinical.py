"""Clinical data as columns, learnt on training rows: which fields are used, and how.

A cohort table comes in; columns for a head go out. What stands for a missing value (the median age,
an indicator) and which terms have a column is learnt on training rows, so that a test row changes
nothing. A field whose presence gives the class away is coded coarsely or left out, with a note.

The site leak: BTXRD names the bone of a tumour, and of a normal radiograph only the limb; a cohort
joined from several readers may name bones in one class and joints in the other. A model that is
told the site then reads the label off the way in which the site was written down (in BTXRD, joints
are named for synovial osteochondroma alone). Which bone a lesion sits in is clinical knowledge, who
wrote it down is not, and a coding may only use words that all classes have.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from bonelib import cohort
from bonelib.cohort import AGE, SEX, SIDE, SITE, VIEW

# Known before the film is read. Not hardware: who sees an implant has looked at the film.
FIELDS = (AGE, SEX, SITE, VIEW, SIDE)
REGION = "region"  # stands in for the site where a finer one gives the label away, as in captions
LEAK = 0.6  # AUROC of "is known" above which a field is not used as it is
CHANCE = 0.05  # by Fisher's exact test; a class of three rows leaks nothing that could be told
OWN = 0.001  # probability that all rows of a term lie in one class by chance
YEARS = 100.0  # ages are coded in centuries, so that their squares stay small


@dataclass(frozen=True)
class Coding:
    """How clinical data become columns; plain values, so that a bundle can keep it as JSON.

    Attributes:
        fields: Those used, in order, by the names of ``captions.FIELDS``: ``region`` for a site
            that is coded by its limb.
        terms: The terms of each field that have a column, but of the age, a number.
        missing: The fields with an indicator: training rows lack them here and there.
        fills: Of each other column, what it holds where the field is missing: the median age; 0
            where an indicator says so; else the share of training rows that have the term, which
            says nothing after standardisation.
        notes: What was coded coarsely or left out, and why, in sentences.
    """

    fields: tuple[str, ...]
    terms: dict[str, tuple[str, ...]]
    missing: tuple[str, ...]
    fills: dict[str, float]
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def names(self) -> list[str]:
        """The columns in order."""
        found = []
        for name in self.fields:
            own = ["age", "age^2"] if name == AGE else [f"{name} {t}" for t in self.terms[name]]
            found += own + [f"{name} missing"] * (name in self.missing)
        return found

    def code(self, table: pd.DataFrame) -> np.ndarray:
        """Return the columns of each row ``(N, M)`` float32, of training rows or of new ones.

        A term that no training row had counts as missing: nothing was learnt of it.
        """
        columns: dict[str, np.ndarray] = {}
        for name in self.fields:
            if name == AGE:
                age = pd.to_numeric(table[AGE]).astype(float).to_numpy(na_value=np.nan) / YEARS
                known, own = np.isfinite(age), {"age": age, "age^2": age**2}
            else:
                cells = _cells(table, name)
                own = {
                    f"{name} {term}": np.array([term in cell for cell in cells], float)
                    for term in self.terms[name]
                }
                known = np.any(list(own.values()), axis=0)
            columns |= {c: np.where(known, x, self.fills[c]) for c, x in own.items()}
            if name in self.missing:
                columns[f"{name} missing"] = (~known).astype(float)
        blank = np.zeros((len(table), 0))
        return np.column_stack([blank, *(columns[c] for c in self.names)]).astype(np.float32)


def learn(
    table: pd.DataFrame,
    labels: np.ndarray,
    *,
    fields: Sequence[str] = FIELDS,
    limit: float = LEAK,
) -> Coding:
    """Learn a coding of clinical data on training rows.

    Age and its square as numbers (tumours have their decades, and a line has none), the rest one
    column a term; a row may have several (a knee and a femur). A field that `leaks` is coded by the
    limb or left out, one that is the same in all rows has nothing to code.

    Args:
        table: Training rows alone.
        labels: ``(N,)`` of ``Task.encode``, -1 or NaN where unknown.
        limit: See `leaks`.

    Raises:
        ValueError: Unknown fields, or no rows.
    """
    found = leaks(table, labels, fields=fields, limit=limit)
    used, terms, missing, fills = [], {}, [], {}
    for name in found["coding"][found["coding"] != ""]:
        if name == AGE:
            age = pd.to_numeric(table[AGE]).astype(float).dropna()
            if age.nunique() < 2:
                continue
            median = float(age.median()) / YEARS
            fills |= {"age": median, "age^2": median**2}
            lacking = len(age) < len(table)
        else:
            cells = _cells(table, name)
            counts = pd.Series([t for cell in cells for t in cell], dtype=object).value_counts()
            own = sorted(counts.index[counts < len(cells)])
            if not own:
                continue
            terms[name], lacking = tuple(own), not all(cell & set(own) for cell in cells)
            share = 0.0 if lacking else 1 / len(cells)
            fills |= {f"{name} {term}": float(counts[term] * share) for term in own}
        used.append(name)
        missing += [name] * lacking
    notes = tuple(found["note"][found["note"] != ""])
    return Coding(tuple(used), terms, tuple(missing), fills, notes)


def leaks(
    table: pd.DataFrame,
    labels: np.ndarray,
    *,
    fields: Sequence[str] = FIELDS,
    limit: float = LEAK,
) -> pd.DataFrame:
    """Test whether the presence of a field's value predicts the class; for training rows.

    The AUROC of "is known" for each class against the others, the highest (values of a regression
    are parted at their median). Of the site two more: whether a finer place than the limb is named,
    and whether its terms are those of one class alone. A signal leaks above ``limit`` where
    Fisher's exact test excludes chance.

    Returns:
        A row a field: ``field``; ``known``, the share of rows that have it; ``auroc`` of "is
        known"; ``finer`` and ``own``, those of the site's other two signals, else NaN; ``coding``:
        the field itself, ``region`` or "" where it is left out; ``note``, a sentence, "" where the
        field is used as it is.

    Raises:
        ValueError: Unknown fields, a table without rows, or labels of another length.
    """
    odd = sorted(set(fields) - set(FIELDS))
    if odd or not len(table) or len(labels) != len(table):
        raise ValueError(
            f"Unknown clinical fields {odd}. Choose from {', '.join(FIELDS)}."
            if odd
            else f"{len(table)} rows and {len(labels)} labels: a coding is learnt on training rows "
            "with a label each, -1 where unknown."
        )
    classes = _classes(np.asarray(labels))
    rows = []
    for name in fields:
        cells = _cells(table, name)
        known = np.array([bool(cell) for cell in cells])
        auroc, leak = _predicts(known, classes, limit)
        row = {"field": name, "known": known.mean(), "auroc": auroc, "finer": np.nan, "own": np.nan}
        row |= {"coding": name if known.any() else "", "note": ""}
        if name == SITE:
            row |= _site(cells, classes, limit)
            if row["coding"] == REGION:  # a spine has no limb
                limb = np.array([bool(cell) for cell in _cells(table, REGION)])
                row["auroc"], leak = _predicts(limb, classes, limit)
        if leak:
            told = f"that it is known predicts the class (AUROC {row['auroc']:.2f}, limit {limit})"
            row |= {"coding": "", "note": f"{name.capitalize()} is left out: {told}."}
        rows.append(row)
    return pd.DataFrame(rows)


def _site(cells: list[set[str]], classes: np.ndarray, limit: float) -> dict:
    """Ask how finely each class names its sites, and whether in words of its own."""
    limbs = set(cohort.REGIONS)
    finer, fine_leaks = _predicts(np.array([bool(c - limbs) for c in cells]), classes, limit)
    chosen = classes[:, classes.any(axis=0)]
    share = chosen.sum(axis=0) / max(chosen.any(axis=1).sum(), 1)
    best, own_leaks = 0.5, False
    for column, part in zip(chosen.T, share, strict=True):
        own = set()
        for term in set().union(*cells) - limbs:
            has = np.array([term in cell for cell in cells]) & chosen.any(axis=1)
            if has.any() and column[has].all() and part ** has.sum() < OWN:
                own.add(term)
        auroc, leak = _predicts(np.array([bool(c & own) for c in cells]), classes, limit)
        best, own_leaks = max(best, auroc), own_leaks or leak
    found = {"finer": finer, "own": best}
    if not (fine_leaks or own_leaks):
        return found
    why = "that it is named predicts the class" if fine_leaks else "classes have words of their own"
    level = finer if fine_leaks else best
    note = f"Site is coded by limb: of a finer place, {why} (AUROC {level:.2f}, limit {limit})."
    return found | {"coding": REGION, "note": note}


def _classes(labels: np.ndarray) -> np.ndarray:
    """Return which row is of which class ``(N, C)`` bool; unlabelled rows are of none."""
    if np.issubdtype(labels.dtype, np.floating):
        known = np.isfinite(labels)
        middle = np.median(labels[known]) if known.any() else 0.0
        labels = np.where(known, labels > middle, -1)
    return labels[:, None] == np.unique(labels[labels >= 0])


def _predicts(flag: np.ndarray, classes: np.ndarray, limit: float) -> tuple[float, bool]:
    """Return the AUROC of a yes or no for the class it tells best, and whether that is a leak."""
    from scipy.stats import fisher_exact

    best, leak, labelled = 0.5, False, classes.any(axis=1)
    for column in classes.T:
        yes, no = flag[column], flag[labelled & ~column]
        if not len(yes) or not len(no):
            continue
        auroc = 0.5 + abs(yes.mean() - no.mean()) / 2  # ties count one half
        counts = [[yes.sum(), (~yes).sum()], [no.sum(), (~no).sum()]]
        leak |= bool(auroc > limit and fisher_exact(counts)[1] < CHANCE)
        best = max(best, float(auroc))
    return best, leak


def _cells(table: pd.DataFrame, name: str) -> list[set[str]]:
    """Return the terms of each row, none where it is unknown."""
    if name == REGION:
        return [{limb} if (limb := cohort.region(site)) else set() for site in table[SITE]]
    if name in (SITE, VIEW):
        return [set(terms) for terms in table[name]]
    if name not in table:
        return [set() for _ in range(len(table))]
    return [set() if pd.isna(value) else {str(value)} for value in table[name]]
