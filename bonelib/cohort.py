"""What one row of the cohort table means: columns, tasks, label order, and the checks on them.

A table with one row per radiograph comes in; the same table goes out, checked. Every reader in
``datasets`` returns this table and every other room reads its columns by the constants below.
A missing value is NA in a table and -1 in an array, where it matches nothing; ``path`` is NA where
there is no file and the reader was asked to keep the row.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import compress

import numpy as np
import pandas as pd

IMAGE_ID, PATH, SOURCE = "image_id", "path", "source"
PATIENT, STUDY, CENTER = "patient", "study", "center"
SITE, VIEW, SIDE, AGE, SEX = "site", "view", "side", "age", "sex"
MASK, REPORT, HARDWARE = "mask", "report", "hardware"
GROUP, GROUP_KIND, FOLD, SPLIT = "group", "group_kind", "fold", "split"

COLUMNS = (IMAGE_ID, PATH, SOURCE, PATIENT, STUDY, CENTER, SITE, VIEW, SIDE, AGE, SEX, MASK, REPORT)
# What may be known of a test image before its label is. Any other column (task labels, lesion
# masks, reports, signs of a lesion) is sealed behind `splits.open_test`.
PUBLIC = (
    *COLUMNS[:11],
    HARDWARE,
    GROUP,
    GROUP_KIND,
    FOLD,
    SPLIT,
    "width",
    "height",
    "bytes",
    "sha256",
)

# Regions stand in for a site where nothing finer is known (the normal radiographs of BTXRD).
REGIONS = {
    "upper limb": ("hand", "wrist", "radius", "ulna", "elbow", "humerus", "shoulder"),
    "pelvis": ("hip bone", "hip"),
    "lower limb": ("femur", "knee", "leg", "tibia", "fibula", "ankle", "foot"),
}
SITES = tuple(REGIONS) + tuple(site for sites in REGIONS.values() for site in sites) + ("spine",)
VIEWS = ("frontal", "lateral", "oblique")
SIDES = ("left", "right")
SEXES = ("F", "M", "O")
# Signs of a lesion (columns where a reader or the phantom knows them) and their terms; the first is
# that of untouched bone. Destruction after Lodwick et al. 1980, Radiology 134:577.
SIGNS = {
    "destruction": ("none", "geographic", "moth-eaten", "permeative"),
    "margin": ("none", "sclerotic", "sharp", "ill-defined"),
    "matrix": ("none", "osteoid", "chondroid", "ground-glass"),
    "cortex": ("intact", "expanded", "scalloped", "breached", "continuous"),
    "periosteum": ("none", "solid", "lamellated", "sunburst", "codman"),
    "soft_tissue": ("none", "mass", "bodies"),
    "location": ("none", "epiphysis", "metaphysis", "diaphysis", "body", "joint"),
}


@dataclass(frozen=True)
class Task:
    """One question asked of a radiograph; the only place where its classes have an order.

    Attributes:
        column: Column of the cohort table that holds the class name (or the value).
        kind: ``binary``, ``multiclass``, ``ordinal`` or ``regression``.
        classes: Class names in order; their index is the integer label.
        words: For each language, the classes as a radiologist would write them.
        positive: The class whose detection is reported (sensitivity, one-vs-rest AUROC).
        normal: The class of images without a finding; empty where each class is one.
        unit: Of the values of a regression.
        least: The smallest value that they can have.
    """

    name: str
    column: str
    kind: str
    classes: tuple[str, ...]
    words: dict[str, tuple[str, ...]]
    positive: str = ""
    normal: str = ""
    unit: str = ""
    least: float = -np.inf

    @property
    def outputs(self) -> int:
        """Columns of logits: one for a binary task or a value, else one a class."""
        return 1 if self.kind in ("binary", "regression") else len(self.classes)

    def encode(self, values: Iterable) -> np.ndarray:
        """Turn class names into integers ``(N,)``, -1 where missing; values of a regression stay.

        Raises:
            ValueError: A name is not one of the classes, or a value is too small.
        """
        cells = values.astype(object).array if isinstance(values, pd.Series) else [*values]
        series = pd.Series(cells, dtype=object)
        if self.kind == "regression":
            found = pd.to_numeric(series).to_numpy(dtype=np.float32, na_value=np.nan)
            if low := sorted(set(found[found < self.least].tolist())):
                raise ValueError(
                    f"{low[:3]} are no values of the task {self.name!r}; expected {self.unit} "
                    f"from {self.least:g}."
                )
            return found
        index = {name: i for i, name in enumerate(self.classes)}
        names, missing = [str(v) for v in series], series.isna()
        unknown = sorted(set(compress(names, ~missing)) - set(index))
        if unknown:
            raise ValueError(
                f"Unknown classes {unknown} for the task {self.name!r}. "
                f"Expected one of {', '.join(self.classes)}."
            )
        rows = zip(names, missing, strict=True)
        return np.array([-1 if gone else index[name] for name, gone in rows], dtype=np.int64)

    def findings(self, labels: np.ndarray) -> np.ndarray:
        """Tell which images show what is asked for: ``(N,)`` of `encode` to bool.

        Those of any class but the normal one; without a normal class all that have a label.
        """
        if self.kind == "regression":
            return np.isfinite(labels)
        normal = self.classes.index(self.normal) if self.normal else -1
        return (labels >= 0) & (labels != normal)


def _task(name, kind, classes, french, german, english=None, positive="", normal="", **values):
    words = {"en": tuple(english or classes), "fr": tuple(french), "de": tuple(german)}
    return Task(name, name, kind, tuple(classes), words, positive, normal, **values)


TASKS = {
    task.name: task
    for task in (
        _task(
            "malignancy",
            "multiclass",
            ("normal", "benign", "malignant"),
            ("os normal", "tumeur osseuse bénigne", "tumeur osseuse maligne"),
            ("normaler Knochen", "benigner Knochentumor", "maligner Knochentumor"),
            ("normal bone", "benign bone tumor", "malignant bone tumor"),
            positive="malignant",
            normal="normal",
        ),
        _task(
            "tumor",
            "binary",
            ("normal", "tumor"),
            ("os normal", "tumeur osseuse"),
            ("normaler Knochen", "Knochentumor"),
            ("normal bone", "bone tumor"),
            positive="tumor",
            normal="normal",
        ),
        _task(
            "entity",
            "multiclass",
            (
                "osteochondroma",
                "multiple osteochondromas",
                "simple bone cyst",
                "giant cell tumor",
                "osteofibroma",
                "synovial osteochondroma",
                "other bt",
                "osteosarcoma",
                "other mt",
            ),
            (
                "ostéochondrome",
                "ostéochondromes multiples",
                "kyste osseux simple",
                "tumeur à cellules géantes",
                "ostéofibrome",
                "ostéochondromatose synoviale",
                "autre tumeur bénigne",
                "ostéosarcome",
                "autre tumeur maligne",
            ),
            (
                "Osteochondrom",
                "multiple Osteochondrome",
                "einfache Knochenzyste",
                "Riesenzelltumor",
                "Osteofibrom",
                "synoviale Osteochondromatose",
                "anderer benigner Tumor",
                "Osteosarkom",
                "anderer maligner Tumor",
            ),
            (
                "osteochondroma",
                "multiple osteochondromas",
                "simple bone cyst",
                "giant cell tumor",
                "osteofibroma",
                "synovial osteochondroma",
                "other benign tumor",
                "osteosarcoma",
                "other malignant tumor",
            ),
        ),
        _task(
            "fracture",
            "binary",
            ("intact", "fractured"),
            ("pas de fracture", "fracture"),
            ("keine Fraktur", "Fraktur"),
            ("no fracture", "fracture"),
            positive="fractured",
            normal="intact",
        ),
        _task(
            "kl_grade",
            "ordinal",
            ("0", "1", "2", "3", "4"),
            tuple(f"grade {g} de Kellgren-Lawrence" for g in range(5)),
            tuple(f"Kellgren-Lawrence-Grad {g}" for g in range(5)),
            tuple(f"Kellgren-Lawrence grade {g}" for g in range(5)),
        ),
        _task("bone_age", "regression", (), (), (), unit="months", least=0),
        _task(
            "anomaly",
            "binary",
            ("normal", "abnormal"),
            ("radiographie normale", "radiographie anormale"),
            ("normales Röntgenbild", "abnormes Röntgenbild"),
            ("normal radiograph", "abnormal radiograph"),
            positive="abnormal",
            normal="normal",
        ),
    )
}


def task(name: str) -> Task:
    """Return the task of that name.

    Raises:
        ValueError: No such task; the message lists the names.
    """
    if name not in TASKS:
        raise ValueError(f"Unknown task {name!r}. Choose one of {', '.join(TASKS)}.")
    return TASKS[name]


def labelled(table: pd.DataFrame) -> list[Task]:
    """List the tasks for which at least one row of ``table`` carries a label, headline first."""
    return [t for t in TASKS.values() if t.column in table and table[t.column].notna().any()]


def sealed_columns(table: pd.DataFrame) -> list[str]:
    """List the columns of ``table`` that a test image must not show before the door is opened."""
    return [column for column in table.columns if column not in PUBLIC]


def region(site: tuple[str, ...]) -> str | None:
    """Name the region (upper limb, pelvis, lower limb) of a tuple of sites; None where unknown.

    Coarse on purpose: BTXRD names the bone for tumours only, so a finer site gives the label away.
    """
    for name, members in REGIONS.items():
        if any(term == name or term in members for term in site):
            return name
    return None


def empty(rows: int) -> pd.DataFrame:
    """Return a table with the cohort's columns and ``rows`` rows of NA, for a reader to fill in."""
    table = pd.DataFrame({column: pd.Series([pd.NA] * rows, dtype="object") for column in COLUMNS})
    table[SITE] = [() for _ in range(rows)]
    table[VIEW] = [() for _ in range(rows)]
    return table


def problems(table: pd.DataFrame, *, task: Task | None = None) -> list[str]:
    """List, in sentences, everything in ``table`` that breaks the contract; empty if sound."""
    if table.empty:
        return ["The table has no rows."]
    missing = [column for column in COLUMNS if column not in table.columns]
    found = [f"The table lacks the columns {', '.join(missing)}."] if missing else []
    here = set(COLUMNS) - set(missing)
    ids = table[IMAGE_ID] if IMAGE_ID in here else pd.Series(range(len(table)), dtype="object")
    if ids.isna().any():
        found.append(f"{int(ids.isna().sum())} rows have no {IMAGE_ID}.")
    repeated = sorted(ids[ids.duplicated()].dropna().astype(str).unique())
    if repeated:
        found.append(f"{len(repeated)} image ids occur more than once, e.g. {repeated[:3]}.")
    for column, allowed in ((SITE, SITES), (VIEW, VIEWS)):
        if column in here:
            found += _term_problems(ids, table[column], allowed)
    for column, allowed in ((SIDE, SIDES), (SEX, SEXES)):
        known = table[column].dropna().astype(str) if column in here else ()
        wrong = sorted(set(known) - set(allowed))
        if wrong:
            found.append(f"Unknown {column} values {wrong}; expected {', '.join(allowed)} or NA.")
    if AGE in here:
        age = pd.to_numeric(table[AGE], errors="coerce")
        wrong = (table[AGE].notna() & age.isna()) | (age < 0) | (age > 120)
        if wrong.any():
            odd = list(ids[wrong.to_numpy()])
            found.append(f"{len(odd)} ages are not years between 0 and 120, e.g. {odd[:3]}.")
    for known in labelled(table):
        try:
            known.encode(table[known.column])
        except ValueError as error:
            found.append(f"Column {known.column!r}: {error}")
    if task is not None:
        found += _task_problems(table, task)
    return found


def _term_problems(ids: pd.Series, cells: pd.Series, allowed: tuple[str, ...]) -> list[str]:
    name, found = cells.name, []
    odd = [i for i, cell in zip(ids, cells, strict=True) if not isinstance(cell, tuple)]
    if odd:
        found.append(f"{name} must be a tuple of terms, () where unknown; it is not for {odd[:3]}.")
    tuples = [(i, cell) for i, cell in zip(ids, cells, strict=True) if isinstance(cell, tuple)]
    wrong = sorted({str(term) for _, cell in tuples for term in cell} - set(allowed))
    if wrong:
        found.append(f"Unknown {name} terms {wrong}; known are {', '.join(allowed)}.")
    unsorted = [i for i, cell in tuples if list(cell) != sorted({str(term) for term in cell})]
    if unsorted:
        found.append(f"{name} must be sorted without repeats; it is not for {unsorted[:3]}.")
    return found


def _task_problems(table: pd.DataFrame, task: Task) -> list[str]:
    if task.column not in table or table[task.column].isna().all():
        have = ", ".join(t.name for t in labelled(table)) or "none"
        return [f"No row has a label for the task {task.name!r}; labels exist for: {have}."]
    present = sorted(table[task.column].dropna().astype(str).unique())
    if task.kind != "regression" and len(present) < 2:
        return [f"The task {task.name!r} needs two classes or more; found only {present}."]
    return []


def check(table: pd.DataFrame, *, task: Task | None = None) -> pd.DataFrame:
    """Return ``table`` unchanged if it keeps the contract.

    Raises:
        ValueError: Lists *all* problems at once, one sentence each.
    """
    found = problems(table, task=task)
    if found:
        lines = "\n".join(f"  - {line}" for line in found)
        raise ValueError(f"The cohort table has {len(found)} problem(s):\n{lines}")
    return table


def metadata(table: pd.DataFrame, *, sites: bool = False) -> pd.DataFrame:
    """Build the design matrix of the metadata-only baseline, one row per image, float columns.

    Age, sex, region, view, side and hardware, each one-hot with an indicator for a missing value.
    Centre is left out: it is a property of the source, and a hold-out by centre can't use it.
    A table that knows none of these gives one constant column: no information, but a matrix.

    Args:
        sites: Use the terms of ``site`` instead of the three regions. Honest only where every
            class has its sites from the same reader (FracAtlas; not BTXRD).
    """
    columns: dict[str, np.ndarray] = {}
    if table[AGE].notna().any():
        age = pd.to_numeric(table[AGE]).astype(float)
        # 40 and not the mean: a row must not depend on others, least of all on test rows.
        columns["age"] = age.fillna(40.0).to_numpy() / 100
        columns["age^2"] = columns["age"] ** 2
        columns["age missing"] = age.isna().to_numpy(float)
    for term in SITES if sites else REGIONS:
        has = [term in s if sites else region(s) == term for s in table[SITE]]
        columns[f"site {term}"] = np.array(has, float)
    for term in VIEWS:
        columns[f"view {term}"] = np.array([term in v for v in table[VIEW]], float)
    for column in (SEX, SIDE, HARDWARE):
        if column in table and table[column].notna().any():
            for value in sorted(table[column].dropna().astype(str).unique())[:-1] or ["1"]:
                is_value = table[column].astype("object").astype(str) == value
                columns[f"{column} {value}"] = is_value.to_numpy(float)
            if table[column].isna().any():
                columns[f"{column} missing"] = table[column].isna().to_numpy(float)
    frame = pd.DataFrame(columns, index=table.index)
    telling = frame.loc[:, frame.nunique() > 1]
    return telling if telling.shape[1] else pd.DataFrame({"constant": 1.0}, index=table.index)
