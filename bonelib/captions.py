"""Sentences about a radiograph, the prompts of a task, and the attribute keys beside each caption.

Rows of the cohort table come in; sentences and integer keys go out. The grammar is deterministic:
the wording of a caption depends on its image id and the seed alone. Which fields a caption may use
is said by the caller, so that a label can't slip in; the words are in ``captions.csv``.
"""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bonelib import cohort
from bonelib.cohort import AGE, HARDWARE, IMAGE_ID, SEX, SIDE, SITE, VIEW, Task

SIGNS = ("destruction", "margin", "matrix", "cortex", "periosteum", "soft_tissue", "location")
FIELDS = (VIEW, SIDE, SITE, AGE, SEX, "signs", HARDWARE, *cohort.TASKS)
# Age groups in years, upper limits: the bands in which bone tumours differ (child, adolescent,
# young adult, adult, older adult).
AGE_GROUPS = ((10, "child"), (20, "adolescent"), (40, "young adult"), (60, "adult"), (200, "older"))
# Groups of bone age in months, upper limits: a sentence names a stage, since no reader of text
# tells 96 from 97 months. About the stages of Gilsanz and Ratib 2005 (Hand Bone Age, Springer):
# infancy, before puberty (two groups), early and late puberty; one border for both sexes, as a
# caption may not name the sex.
BONE_AGES = (
    (24, "infant"),
    (72, "young child"),
    (120, "school-age child"),
    (168, "young adolescent"),
    (240, "older adolescent"),
)
_LEADS = {
    "en": ("{view} radiograph", "{view} x-ray", "{view} view"),
    "fr": ("Radiographie {view}", "Cliché {view}", "Incidence {view}"),
}
# Where prompts by signs are set: an ensemble over scenes averages out what names the site.
_SCENES = tuple(
    (view, site)
    for view in ("frontal", "lateral")
    for site in ("femur", "tibia", "humerus", "knee", "hand", "foot")
)


@functools.cache
def _words(language: str) -> dict[tuple[str, str], str]:
    bank = pd.read_csv(Path(__file__).with_suffix(".csv"), dtype=str, keep_default_na=False)
    known = [c for c in bank.columns if c not in ("field", "value")]
    if language not in known:
        raise ValueError(f"No captions in {language!r}. Languages known: {', '.join(known)}.")
    return {(f, v): w for f, v, w in bank[["field", "value", language]].itertuples(index=False)}


def _word(language: str, field: str, value: str) -> str:
    return _words(language).get((field, value), value)


def label_free(fields: Sequence[str]) -> bool:
    """Tell whether captions of these fields name neither a task's label nor the entity."""
    return not set(fields) & set(cohort.TASKS)


def supervision(fields: Sequence[str]) -> str:
    """Name what prompts prove after training on captions of these fields (contract 9).

    Captions that name neither labels nor signs teach nothing of what is asked: their score is a
    negative control, and shows what site and view give away.
    """
    if not label_free(fields):
        return "label-supervised text"
    return "zero-shot" if "signs" in fields else "zero-shot, negative control"


def known(table: pd.DataFrame, *, fields: Sequence[str]) -> tuple[str, ...]:
    """Return those of ``fields`` that at least one row can say, in order.

    Raises:
        ValueError: An unknown field, or nothing that any row could say.
    """
    _check(fields)
    found = tuple(
        field
        for field in fields
        if any(any(_values(table, c)) for c in (SIGNS if field == "signs" else (field,)))
    )
    if not found:
        raise ValueError(f"No row knows any of {', '.join(fields)}: there is nothing to caption.")
    return found


def _check(fields: Sequence[str]) -> None:
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown or not fields:
        found = f"Unknown caption fields {unknown}" if unknown else "No caption fields"
        raise ValueError(f"{found}. Choose from {', '.join(FIELDS)}.")


def age_group(age: float) -> str:
    """Name the age group of an age in years."""
    return next(name for limit, name in AGE_GROUPS if age < limit)


def bone_age_group(months: float) -> str:
    """Name the stage of a bone age in months."""
    return next(name for limit, name in BONE_AGES if months < limit or limit == BONE_AGES[-1][0])


def write(
    table: pd.DataFrame, *, fields: Sequence[str], language: str = "en", seed: int = 0
) -> list[str]:
    """Write one caption for each row, naming the given fields where the row knows them.

    Signs are said for normal bone too ("cortex intact"), as a report would, so that the presence
    of a sentence about signs gives nothing away.

    Example:
        ``Frontal radiograph of the left femur. Moth-eaten destruction, cortex breached.``

    Raises:
        ValueError: Unknown field or language.
    """
    _check(fields)
    _words(language)
    sentences = []
    for row in table.to_dict("records"):
        draw = int(hashlib.sha256(f"{seed}:{row[IMAGE_ID]}".encode()).hexdigest()[:8], 16)
        sentences.append(_caption(row, fields, language, draw))
    return sentences


def _known(row: dict, field: str) -> bool:
    value = row.get(field)
    return value is not None and value is not pd.NA and value == value and value != ()


def _caption(row: dict, fields: Sequence[str], language: str, draw: int) -> str:
    views = [_word(language, VIEW, v) for v in row[VIEW]] if VIEW in fields else []
    leads = _LEADS[language] if views else _LEADS[language][:2]  # the third needs a view
    joint = " and " if language == "en" else " et "
    sentence = leads[draw % len(leads)].format(view=joint.join(views)).strip()
    known = SITE in fields and _known(row, SITE)
    sites = joint.join(_word(language, SITE, s) for s in row[SITE]) if known else ""
    known = SIDE in fields and _known(row, SIDE)
    side = _word(language, SIDE, str(row[SIDE])) if known else ""
    if language == "en":
        place = " ".join(part for part in (side, sites or ("side" if side else "")) if part)
        sentence += f" of the {place}" if place else ""
    else:
        place = ", ".join(part for part in (sites, side) if part)
        sentence += f" : {place}" if place else ""
    person = _person(row, fields, language)
    parts = [sentence + (f", {person}" if person else "")]
    if "signs" in fields:
        signs = [
            _word(language, s, str(row[s])) for s in SIGNS if _known(row, s) and str(row[s]) != ""
        ]
        signs = [phrase for phrase in signs if phrase]
        if signs:
            turn = draw // 8 % len(signs)  # the order of a report's findings is no information
            parts.append(", ".join(signs[turn:] + signs[:turn]))
    if HARDWARE in fields and _known(row, HARDWARE):
        parts.append(_word(language, HARDWARE, str(int(row[HARDWARE]))))
    for name in cohort.TASKS:
        if name in fields and _known(row, name):
            task = cohort.task(name)
            if task.kind == "regression":
                parts.append(_word(language, name, bone_age_group(float(row[name]))))
            else:
                parts.append(task.words[language][task.classes.index(str(row[name]))])
    return ". ".join(part[0].upper() + part[1:] for part in parts if part) + "."


def _person(row: dict, fields: Sequence[str], language: str) -> str:
    words = []
    if SEX in fields and _known(row, SEX):
        words.append(_word(language, SEX, str(row[SEX])))
    if AGE in fields and _known(row, AGE):
        words.append(_word(language, AGE, age_group(float(row[AGE]))))
    return ", ".join(word for word in words if word)


def keys(table: pd.DataFrame, *, fields: Sequence[str]) -> np.ndarray:
    """Return attribute keys ``(N, K)``, one integer a field, -1 where the row doesn't know it.

    Rows with equal keys mean the same and are positives of each other in the contrastive loss. The
    integers compare rows of this table only. A field that no row knows is never said, so it is
    left out; if nothing is left, one column of -1 says that no two rows are known to mean the same.
    """
    _check(fields)
    columns = []
    for column in (c for field in fields for c in (SIGNS if field == "signs" else (field,))):
        values = pd.Series(_values(table, column), dtype="object")
        codes, _ = pd.factorize(values.where(values != "", None), sort=True)  # None becomes -1
        if (codes >= 0).any():
            columns.append(codes)
    if not columns:
        return np.full((len(table), 1), -1, dtype=np.int64)
    return np.stack(columns, axis=1).astype(np.int64)


def _values(table: pd.DataFrame, column: str) -> list[str]:
    """Return what a caption would say of a column, row by row, empty where unknown."""
    if column not in table:
        return [""] * len(table)
    if column in (AGE, "bone_age"):
        group = age_group if column == AGE else bone_age_group
        numbers = pd.to_numeric(table[column], errors="coerce")
        return [group(number) if number == number else "" for number in numbers]
    if column in (SITE, VIEW):
        return [";".join(terms) for terms in table[column]]
    known = table[column].notna()
    return [str(v) if k else "" for v, k in zip(table[column], known, strict=True)]


def prompts(task: Task, *, style: str = "signs", language: str = "en") -> dict[str, list[str]]:
    """Return the prompts of each class, in class order, for an ensemble.

    Args:
        style: ``label`` names the class ("a radiograph of a malignant bone tumor"). ``signs``
            says what a reader would see, in the grammar of the captions and at several sites: the
            rows of ``prompts.csv``, typical combinations after Lodwick 1980 (Radiology 134:577)
            and Madewell 1981 (Radiol Clin North Am 19:715). A tumour is what is benign or
            malignant.

    Raises:
        ValueError: No such style or language, or no prompts by signs for this task.
    """
    _words(language)
    if not task.classes:
        raise ValueError(f"{task.name!r} has values, not classes: there is nothing to prompt for.")
    if style == "label":
        frames = ("{}", "a radiograph of {}", "an x-ray showing {}", "radiograph. {}.")
        if language == "fr":
            frames = ("{}", "radiographie : {}", "cliché montrant {}")
        return {
            name: [frame.format(word) for frame in frames]
            for name, word in zip(task.classes, task.words[language], strict=True)
        }
    if style != "signs":
        raise ValueError(f"Unknown prompt style {style!r}. Choose label or signs.")
    bank = pd.read_csv(Path(__file__).with_name("prompts.csv"), dtype=str, keep_default_na=False)
    name = "malignancy" if task.name == "tumor" else task.name
    bank = bank[bank["task"] == name]
    if task.name == "tumor":
        bank = bank.assign(**{"class": bank["class"].where(bank["class"] == "normal", "tumor")})
    found = {}
    for name in task.classes:
        rows = [
            {VIEW: (view,), SITE: (site,), **signs}
            for signs in bank[bank["class"] == name].to_dict("records")
            for view, site in _SCENES
        ]
        fields = (VIEW, SITE, "signs")
        found[name] = [_caption(row, fields, language, 0) for row in rows]
    if not all(found.values()):
        raise ValueError(f"prompts.csv has no rows for {task.name!r}; use style='label'.")
    return found
