"""The grammar of captions, the attribute keys beside them, and the rule of what they may name.

Rows of the cohort table come in; sentences and integer keys go out. The grammar is deterministic:
the wording of a caption depends on its image id and the seed alone. Which fields a caption may use
is said by the caller, so that a label can't slip in; the words are in ``words.csv``.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bonelib import cohort
from bonelib.cohort import AGE, HARDWARE, IMAGE_ID, SEX, SIDE, SITE, VIEW

SIGNS = ("destruction", "margin", "matrix", "cortex", "periosteum", "soft_tissue", "location")
# The region (upper limb, pelvis, lower limb) stands in where a site would give a label away: BTXRD
# names the bone of tumours only.
REGION = "region"
FIELDS = (VIEW, SIDE, SITE, REGION, AGE, SEX, "signs", HARDWARE, *cohort.TASKS)
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
    # All three are feminine, so that one ending of the view fits: "frontale und seitliche".
    "de": ("{view} Röntgenaufnahme", "{view} Röntgendarstellung", "{view} Aufnahme"),
}
_OF = {"en": " of the {}", "fr": " : {}", "de": " {}"}  # German sites bring their article
_SHOWING = {"en": " showing ", "fr": " ; on note : ", "de": "; Befund: "}
JOINTS = {"en": " and ", "fr": " et ", "de": " und "}
# The phase rule: what captions may name before the labels of a task are opened, and afterwards.
PHASES = {
    "pretraining": tuple(field for field in FIELDS if field not in cohort.TASKS),
    "supervised": FIELDS,
}
# Fields that give a task's label away without its name: who reads the entity knows the rest.
_IMPLIED = {
    "tumor": {"malignancy", "entity"},
    "malignancy": {"entity"},
    "anomaly": {"tumor", "malignancy", "entity", "fracture"},
}
OWN = "own"  # stands for the fields of captions that somebody else wrote: they may name anything
# Stands for words on drawn outlines: that there is one says that there is a finding.
OUTLINES = "outlines"
_OUTLINED = ("tumor", "malignancy", "entity", "fracture", "anomaly")
# From a label phrase to the report, the same facts in more words.
REGISTERS = ("phrase", "sentence", "report")


@functools.cache
def _bank() -> pd.DataFrame:
    return pd.read_csv(Path(__file__).with_name("words.csv"), dtype=str, keep_default_na=False)


def languages() -> tuple[str, ...]:
    """List the languages that captions are written in."""
    return tuple(_bank().columns.drop(["field", "value"]))


@functools.cache
def words(language: str) -> dict[tuple[str, str], str]:
    """Return the words of a language by (field, value), as they stand alone.

    Raises:
        ValueError: No such language; the message lists those known.
    """
    if language not in languages():
        raise ValueError(f"No captions in {language!r}. Languages known: {', '.join(languages())}.")
    return {key: forms.split("|")[0] for key, forms in _forms(language).items()}


@functools.cache
def _forms(language: str) -> dict[tuple[str, str], str]:
    bank = _bank()[["field", "value", language]]
    return {(field, value): forms for field, value, forms in bank.itertuples(index=False)}


def word(language: str, field: str, value: str) -> str:
    """Return the words for a value, or the value where there are none."""
    return words(language).get((field, value), value)


def inflected(language: str, field: str, value: str) -> str:
    """Return the words as a German sentence inflects them: what stands behind ``|`` in the table.

    Views agree with "Aufnahme", sites are in the genitive with their article ("des Femurs"), sides
    as an adjective behind it ("linken"). Elsewhere the words of a value have one form.
    """
    return _forms(language).get((field, value), value).split("|")[-1]


def label_free(fields: Sequence[str]) -> bool:
    """Tell whether captions of these fields name neither a task's label nor the entity."""
    return set(fields) <= set(PHASES["pretraining"])


def gives_away(task: str, *, fields: Sequence[str]) -> bool:
    """Tell whether captions of these fields give away the labels of ``task``, by name or by entity.

    What a tower learnt from such captions is supervision for this task, not transfer (contract 9).
    """
    outlined = {OUTLINES} if task in _OUTLINED else set()
    return bool(set(fields) & {OWN, task, *outlined, *_IMPLIED.get(task, ())})


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
    check(fields)
    found = tuple(
        field
        for field in fields
        if any(any(_values(table, c)) for c in (SIGNS if field == "signs" else (field,)))
    )
    if not found:
        raise ValueError(f"No row knows any of {', '.join(fields)}: there is nothing to caption.")
    return found


def check(fields: Sequence[str], *, phase: str = "supervised") -> None:
    """Refuse fields that don't exist or that a phase forbids.

    Raises:
        ValueError: The message lists what can be chosen.
    """
    if phase not in PHASES:
        raise ValueError(f"Unknown phase {phase!r}. Choose from {', '.join(PHASES)}.")
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown or not fields:
        found = f"Unknown caption fields {unknown}" if unknown else "No caption fields"
        raise ValueError(f"{found}. Choose from {', '.join(FIELDS)}.")
    forbidden = [field for field in fields if field not in PHASES[phase]]
    if forbidden:
        raise ValueError(
            f"Captions of the phase {phase!r} may not name {', '.join(forbidden)}: what is asked "
            f"later would be told now. Choose from {', '.join(PHASES[phase])}."
        )


def age_group(age: float) -> str:
    """Name the age group of an age in years."""
    return next(name for limit, name in AGE_GROUPS if age < limit)


def bone_age_group(months: float) -> str:
    """Name the stage of a bone age in months."""
    return next(name for limit, name in BONE_AGES if months < limit or limit == BONE_AGES[-1][0])


def write(
    table: pd.DataFrame,
    *,
    fields: Sequence[str],
    language: str = "en",
    seed: int = 0,
    register: str = "report",
    phase: str = "supervised",
    bank: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """Write one caption for each row, naming the given fields where the row knows them.

    Signs are said for normal bone too ("cortex intact"), as a report would, so that the presence
    of a sentence about signs gives nothing away.

    Args:
        register: ``phrase`` names the facts, ``sentence`` says them in one sentence, ``report`` in
            several.
        phase: ``pretraining`` refuses fields that name a task's label or the entity.
        bank: Captions by image id from :func:`read_bank`; an image takes one of them or the
            grammar's, each as likely, by its id and the seed.

    Example:
        ``Frontal radiograph of the left femur. Moth-eaten destruction, cortex breached.``

    Raises:
        ValueError: Unknown field, language, register or phase, or a field that its phase forbids.
    """
    check(fields, phase=phase)
    words(language)
    if register not in REGISTERS:
        raise ValueError(f"Unknown register {register!r}. Choose from {', '.join(REGISTERS)}.")
    sentences = []
    for row in table.to_dict("records"):
        number = draw(row[IMAGE_ID], seed)
        others = (bank or {}).get(row[IMAGE_ID], ())
        turn = number // 64 % (len(others) + 1)  # the lower bits choose the grammar's wording
        own = caption(row, fields, language, number, register)
        sentences.append(others[turn - 1] if turn else own)
    return sentences


def draw(image_id: str, seed: int) -> int:
    """Return the number by which an image's wording is chosen: its own whatever the table."""
    return int(hashlib.sha256(f"{seed}:{image_id}".encode()).hexdigest()[:8], 16)


def _known(row: dict, field: str) -> bool:
    value = row.get(field)
    return value is not None and value is not pd.NA and value == value and value != ()


def caption(
    row: dict, fields: Sequence[str], language: str, draw: int, register: str = "report"
) -> str:
    """Write one caption of a row's known fields; ``draw`` chooses among wordings."""
    joint, form = JOINTS[language], word if register == "phrase" else inflected
    views = joint.join(form(language, VIEW, v) for v in row[VIEW]) if VIEW in fields else ""
    place = _place(row, fields, language, form)
    person = _person(row, fields, language)
    groups = [group for group in (_signs(row, fields, language, draw),) if group]
    groups += [[clause] for clause in _labels(row, fields, language)]
    if register == "phrase":
        said = [part for part in (place, views, person, *sum(groups, [])) if part]
        lead = _LEADS[language][0].format(view="").strip()
        return ", ".join(said) or (lead if language == "de" else lead.lower())
    leads = _LEADS[language] if views else _LEADS[language][:2]  # the third needs a view
    lead = leads[draw % len(leads)].format(view=views).strip()
    if place:
        lead += _OF[language].format(place)
    lead += f", {person}" if person else ""
    if register == "sentence":
        clauses = sum(groups, [])
        last = joint.join([", ".join(clauses[:-1])] * (len(clauses) > 1) + clauses[-1:])
        comma = "," if person and language == "en" else ""
        parts = [lead + (comma + _SHOWING[language] + last if last else "")]
    else:
        parts = [lead, *(", ".join(group) for group in groups)]
    return ". ".join(part[0].upper() + part[1:] for part in parts if part) + "."


def _place(row: dict, fields: Sequence[str], language: str, form: Callable[..., str]) -> str:
    """Name sites and side: "left femur", "fémur, côté gauche", "des linken Femurs"."""
    sites = row[SITE] if SITE in fields and _known(row, SITE) else ()
    region = cohort.region(row[SITE]) if REGION in fields and _known(row, SITE) else None
    side = form(language, SIDE, str(row[SIDE])) if SIDE in fields and _known(row, SIDE) else ""
    terms = [(SITE, site) for site in sites] or [(REGION, region)] * bool(region)
    named = [form(language, *term) for term in terms]
    behind = [word(language, REGION, region)] if region and sites and region not in sites else []
    if language == "de" and side and form is inflected:  # behind the article of each site
        named, side = [one.replace(" ", f" {side} ", 1) for one in named or ["der Seite"]], ""
    place = JOINTS[language].join(named)
    if language == "de":
        place, side = f"{place} {side}".strip(), ""
    place = ", ".join([part for part in (place, *behind) if part])
    if language == "en":
        return " ".join(part for part in (side, place or ("side" if side else "")) if part)
    return ", ".join(part for part in (place, side) if part)


def _signs(row: dict, fields: Sequence[str], language: str, draw: int) -> list[str]:
    if "signs" not in fields:
        return []
    signs = [word(language, s, str(row[s])) for s in SIGNS if _known(row, s) and str(row[s]) != ""]
    signs = [phrase for phrase in signs if phrase]
    turn = draw // 8 % max(len(signs), 1)  # the order of a report's findings is no information
    return signs[turn:] + signs[:turn]


def _labels(row: dict, fields: Sequence[str], language: str) -> list[str]:
    """What is said of implants and of each task's label, a clause each."""
    found = []
    if HARDWARE in fields and _known(row, HARDWARE):
        found.append(word(language, HARDWARE, str(int(row[HARDWARE]))))
    for name in cohort.TASKS:
        if name in fields and _known(row, name):
            task = cohort.task(name)
            if task.kind == "regression":
                found.append(word(language, name, bone_age_group(float(row[name]))))
            else:
                found.append(task.words[language][task.classes.index(str(row[name]))])
    return found


def _person(row: dict, fields: Sequence[str], language: str) -> str:
    said = []
    if SEX in fields and _known(row, SEX):
        said.append(word(language, SEX, str(row[SEX])))
    if AGE in fields and _known(row, AGE):
        said.append(word(language, AGE, age_group(float(row[AGE]))))
    return ", ".join(part for part in said if part)


def keys(table: pd.DataFrame, *, fields: Sequence[str]) -> np.ndarray:
    """Return attribute keys ``(N, K)``, one integer a field, -1 where the row doesn't know it.

    Rows with equal keys mean the same and are positives of each other in the contrastive loss. The
    integers compare rows of this table only. A field that no row knows is never said, so it is
    left out; if nothing is left, one column of -1 says that no two rows are known to mean the same.
    """
    columns = [codes for codes, _ in _coded(table, fields).values()]
    if not columns:
        return np.full((len(table), 1), -1, dtype=np.int64)
    return np.stack(columns, axis=1).astype(np.int64)


def key_values(table: pd.DataFrame, *, fields: Sequence[str]) -> dict[str, list[str]]:
    """Return the column behind each column of `keys`, with the value that each integer means."""
    return {column: list(values) for column, (_, values) in _coded(table, fields).items()}


def _coded(table: pd.DataFrame, fields: Sequence[str]) -> dict[str, tuple[np.ndarray, Sequence]]:
    """Return integers and values of each column that a row knows, -1 where a row doesn't."""
    check(fields)
    found = {}
    for column in (c for field in fields for c in (SIGNS if field == "signs" else (field,))):
        told = pd.Series(_values(table, column), dtype="object")
        codes, values = pd.factorize(told.where(told != "", None), sort=True)  # None becomes -1
        if (codes >= 0).any():
            found[column] = codes, values
    return found


def _values(table: pd.DataFrame, column: str) -> list[str]:
    """Return what a caption would say of a column, row by row, empty where unknown."""
    if column == REGION:
        return [cohort.region(site) or "" for site in table[SITE]]
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
