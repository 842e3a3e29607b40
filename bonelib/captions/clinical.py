"""Clinical data as a sentence, for the text tower of a dual encoder.

Rows of the cohort table come in; one sentence or two a row go out, in one fixed wording, so that
sentences differ by their facts alone. Unknown facts are not said. Vo et al. 2025 (IEEE J Biomed
Health Inform 29(5):3234) write tables so, and train tables of two hospitals with other columns
together.
"""

from collections.abc import Sequence

import pandas as pd

from bonelib.captions.grammar import REGION, caption, word, words
from bonelib.cohort import AGE, SEX, SIDE, SITE, VIEW

# No label, sign, entity or hardware: what is known before anybody has read the film.
CLINICAL = (AGE, SEX, SITE, REGION, VIEW, SIDE)
_PATIENT = {"en": "Patient", "fr": "Patient(e)", "de": "Patient(in)"}
_YEARS = {"en": "{n} years old", "fr": "{n} ans", "de": "{n}-jährig"}
_MONTHS = {"en": "{n} months old", "fr": "{n} mois", "de": "{n}-monatig"}


def clinical_sentences(
    table: pd.DataFrame, *, fields: Sequence[str] = (AGE, SEX, REGION, VIEW, SIDE), language: str
) -> list[str]:
    """Write the clinical data of each row as a sentence on the patient and one on the film.

    The age is said in years, not as a group: a text tower can tell 15 from 54.

    Args:
        fields: Among ``CLINICAL``; those of ``adaptation.clinical.Coding.fields`` say no more than
            its columns do. By default the limb and not the site; see there.

    Example:
        ``Patient, female, 15 years old. Frontal radiograph of the left lower limb.``

    Raises:
        ValueError: Unknown language, or a field that is no clinical one: labels, entities, signs
            and hardware come from reading the film.
    """
    odd = [name for name in fields if name not in CLINICAL]
    if odd:
        raise ValueError(
            f"A clinical sentence can't say {', '.join(odd)}. Choose from {', '.join(CLINICAL)}."
        )
    words(language)  # refuses a language that is not known
    film = [name for name in fields if name not in (AGE, SEX)]
    return [
        " ".join(
            part
            for part in (
                _patient(row, fields, language),
                caption(row, film, language, 0, "sentence"),
            )
            if part
        )
        for row in table.to_dict("records")
    ]


def _patient(row: dict, fields: Sequence[str], language: str) -> str:
    said = []
    if SEX in fields and not pd.isna(row.get(SEX)):
        said.append(word(language, SEX, str(row[SEX])))
    if AGE in fields and not pd.isna(row.get(AGE)):
        age = float(row[AGE])
        form, n = (_YEARS, age) if age >= 2 else (_MONTHS, 12 * age)
        said.append(form[language].format(n=int(n)))
    said = [part for part in said if part]
    return ", ".join([_PATIENT[language], *said]) + "." if said else ""
