"""Who a patient id stands for: nobody, somebody spelled in another way, or several people.

Exports fill the column with ``ANONYMOUS`` or 0, spreadsheets make 12.0 of 012, people type p3 and
P3. Who counts as two patients stands on two sides of a split; hundreds who are one leave no split.
"""

import re
import unicodedata

import pandas as pd

from bonelib import cohort, datasets, tables

# Without accents and signs; what also is one: signs alone, zeros alone, xxx.
NOBODY = frozenset(
    "anon anonym anonyme anonymise anonymised anonymisee anonymisiert anonymized anonymous default "
    "deidentified desconocido dummy hidden inconnu inconnue missing na nan nd nil noid noname "
    "none nopatient nopatientid notapplicable notavailable null onbekend patient patientid removed "
    "redacted sansid sansnom sconosciuto test unbekannt undefined unk unknown unspecified".split()
)
MANY = 5  # images of one id from which it is named, if it has more than half of them
AGES = 15  # years between the ages of one patient that are not taken for follow-up


def key(name: str) -> str:
    """Write an id as equal ids are equal: small letters, no blanks, leading zeros or ``.0``."""
    text = "".join(unicodedata.normalize("NFKC", str(name)).casefold().split()).lstrip("'")
    return re.sub(r"^0+(?=\d)", "", re.sub(r"^(\d+)\.0+$", r"\1", text))


def is_nobody(name: str) -> bool:
    """Tell whether an id stands in for a missing one; behind ``@`` stands the issuer."""
    plain = unicodedata.normalize("NFKD", key(name).partition("@")[0])
    plain = "".join(sign for sign in plain if sign.isalnum())
    return plain in NOBODY or not plain.strip("0") or (len(plain) > 1 and not plain.strip("x"))


def settle(table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Make stand-ins missing and spellings of one id equal, and say what can't be one patient."""
    ids = table[cohort.PATIENT].dropna().astype(str)
    if ids.empty:
        return table
    nobody = {name for name in ids.unique() if is_nobody(name)}
    if all(map(str.isdigit, ids)) and {"0", "1"} <= set(ids):
        nobody -= {"0"}  # counted from 0
    stand_in = ids.isin(nobody)
    named = ", ".join(sorted(nobody)[:5])
    notes += datasets.counted(
        ids[stand_in], f"{{n}} rows name a stand-in ({named}) as patient: their patient is missing."
    )
    known = ids[~stand_in]
    spellings: dict[str, list[str]] = {}
    for name in known.value_counts().index:  # the commonest first
        spellings.setdefault(key(name), []).append(name)
    several = [names for names in spellings.values() if len(names) > 1]
    notes += datasets.counted(
        [f"{names[0]} (also {', '.join(names[1:])})" for names in several],
        "{n} patients are spelled in several ways, e.g. {names}: each counts as one.",
    )
    if several or stand_in.any():
        table = table.assign(**{cohort.PATIENT: table[cohort.PATIENT].astype("object")})
        table.loc[ids.index[stand_in], cohort.PATIENT] = pd.NA
        one = {name: names[0] for names in several for name in names}
        table.loc[known.index, cohort.PATIENT] = known.replace(one)
    notes += _doubts(table)
    return table


def _doubts(table: pd.DataFrame) -> list[str]:
    """Name the ids that stand for several people by sex, birth year or age, or for most images."""
    patients = table.groupby(cohort.PATIENT)
    sexes = patients[cohort.SEX].nunique()
    notes = datasets.counted(sexes.index[sexes > 1], "{n} patients have two sexes, e.g. {names}.")
    born, most, what = _births(table)
    years = born.groupby(table[cohort.PATIENT])
    years = years.max() - years.min()
    notes += datasets.counted(
        years.index[years > most], f"{{n}} patients have {what}, e.g. {{names}}."
    )
    images = patients.size().sort_values(ascending=False)
    if len(images) and images.iloc[0] >= max(MANY, images.sum() / 2 + 1):
        notes.append(
            f"Patient {images.index[0]} has {images.iloc[0]} of {images.sum()} images: if that id "
            "stands for a whole export, give each person an id, or say unknown."
        )
    return notes


def _births(table: pd.DataFrame) -> tuple[pd.Series, float, str]:
    """Return years of birth, else ages; by how much they may differ, and what they are called."""
    ages = pd.to_numeric(table[cohort.AGE], errors="coerce").astype(float)
    if "birth_date" in table:
        dates = tables.dates(table["birth_date"], [], where="birth_date")
        return pd.to_numeric(dates.str[:4], errors="coerce"), 0, "two birth years"
    if "birth_year" in table:
        return pd.to_numeric(table["birth_year"], errors="coerce"), 0, "two birth years"
    if "date" in table:
        dates = tables.dates(table["date"], [], where="date")
        years = pd.to_numeric(dates.str[:4], errors="coerce")
        return years - ages, 2, "ages and dates of two birth years"
    return ages, AGES, f"ages more than {AGES} years apart"
