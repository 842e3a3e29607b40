"""Facts of reports as columns that captions can be written from.

Rows (report, kind, value, polarity) come in, as the reading of reports gives them; a table with one
row a report and the columns of the cohort goes out. What is in doubt, or said in two ways, is not
known.
"""

from collections import defaultdict

import numpy as np
import pandas as pd

from bonelib.captions.grammar import SIGNS
from bonelib.cohort import HARDWARE, IMAGE_ID, SIDE, SITE, VIEW

FACT_COLUMNS = ("report", "kind", "value", "polarity")
# finding → (column, value where present, value where absent)
_FINDINGS = {"fracture": ("fracture", "fractured", "intact"), "implant": (HARDWARE, 1, 0)}


def facts_table(facts: pd.DataFrame) -> pd.DataFrame:
    """Turn facts into the columns that :func:`write` and :func:`keys` read.

    Args:
        facts: Columns ``report, kind, value, polarity``; kinds are site, view, side, entity,
            finding and attribute (``cortex=breached``), polarities present, absent, uncertain.

    Returns:
        One row a report, in the order of their first facts; ``image_id`` is the report.

    Raises:
        ValueError: Columns are missing.
    """
    missing = [column for column in FACT_COLUMNS if column not in facts]
    if missing:
        raise ValueError(
            f"The facts lack the columns {', '.join(missing)}; they need {', '.join(FACT_COLUMNS)}."
        )
    said: dict[str, dict[str, set]] = {}
    for report, kind, value, polarity in facts[list(FACT_COLUMNS)].itertuples(index=False):
        row = said.setdefault(report, defaultdict(set))
        if kind == "finding" and value in _FINDINGS and polarity != "uncertain":
            column, present, absent = _FINDINGS[value]
            row[column].add(present if polarity == "present" else absent)
        elif polarity == "present" and kind == "attribute":
            sign, _, term = value.partition("=")
            row[sign].add(term)
        elif polarity == "present" and kind in (SITE, VIEW, SIDE, "entity"):
            row[kind].add(value)
    rows = []
    for report, row in said.items():
        single = {
            column: next(iter(row[column])) if len(row[column]) == 1 else pd.NA
            for column in (SIDE, *SIGNS, HARDWARE, "fracture", "entity")
        }
        several = {column: tuple(sorted(row[column])) for column in (SITE, VIEW)}
        rows.append({IMAGE_ID: report, **several, **single})
    columns = [IMAGE_ID, SITE, VIEW, SIDE, *SIGNS, HARDWARE, "fracture", "entity"]
    return pd.DataFrame(rows, columns=columns, dtype="object")


def from_reports(table: pd.DataFrame, facts: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Return the table as reports state it: what captions and keys are then made of.

    Each column that reports can speak of holds what the image's report states, and nothing where it
    is silent or there is no report; what they don't speak of (sex, age) stays as the table has it.

    Args:
        facts: As for :func:`facts_table`.
        images: Columns ``image_id, report``, one row an image that has a report.
    """
    stated = facts_table(facts).rename(columns={IMAGE_ID: "report"})
    stated = images[[IMAGE_ID, "report"]].merge(stated, on="report").drop(columns="report")
    own = [c for c in stated.columns if c != IMAGE_ID]
    left = table.drop(columns=[c for c in own if c in table])
    out = left.merge(stated, on=IMAGE_ID, how="left", validate="one_to_one")
    for column in (SITE, VIEW):
        out[column] = [terms if isinstance(terms, tuple) else () for terms in out[column]]
    return out.set_index(table.index)


def own_words(table: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """Return the captions of the table's own column ``caption``, and their keys ``(N, 1)``.

    Equal captions mean the same; of others nothing is known. An empty one says nothing (-1). Whose
    words may name a label nobody has checked: what is learnt from them counts as supervised.

    Raises:
        ValueError: There is no such column, or nothing in it.
    """
    if "caption" not in table or not table["caption"].fillna("").str.strip().any():
        found = ", ".join(map(str, table.columns))
        raise ValueError(f"No row has text in a column 'caption'. The table has: {found}.")
    said = table["caption"].fillna("").str.strip().replace("", None)
    codes, _ = pd.factorize(said)
    return said.fillna("").tolist(), codes[:, None].astype(np.int64)
