"""Make bonelib/phantom/tumor_counts.csv anew from BTXRD's dataset.csv.

    python benchmarks/phantom_counts.py BTXRD/dataset.csv bonelib/phantom/tumor_counts.csv

Source: Yao et al. 2025, Scientific Data 12:88. Cells below 3 rows are pooled over age, centre and
site, so that no cell names one row; tests/test_phantom.py compares where BTXRD is at hand.
"""

import argparse
from pathlib import Path

import pandas as pd

from bonelib import cohort
from bonelib.phantom.marginals import BANDS, ENTITY_NAMES, SITES, SMALLEST

HEAD = """\
# Counts of the 1,867 tumour rows of BTXRD (Yao et al. 2025, Scientific Data 12:88, doi 10.1038/s41597-024-04311-y).
# Made by benchmarks/phantom_counts.py: cells below 3 rows are pooled over age, centre, site, so that no cell names one row.
# center 0: any; value: age band (its first year), sex, view or number of views.
"""  # noqa: E501


def count(table: pd.DataFrame) -> pd.DataFrame:
    """Pool BTXRD's tumour rows into counts: center × entity × site × age, sex, views.

    Args:
        table: BTXRD's ``dataset.csv`` as read, with its 37 columns.

    Returns:
        Columns ``table, center, entity, site, value, count``; ``center`` 0 means any, ``site``
        and ``value`` "other" any. ``value`` is the first year of an age band in the tables
        ``lesion`` and ``age``, else sex, view or number of views. No count is below 3.
    """
    rows = table[table["tumor"] == 1]
    facts = pd.DataFrame(
        {
            "center": rows["center"],
            "entity": rows[list(ENTITY_NAMES)].idxmax(axis=1),
            "site": rows[list(SITES)].apply(lambda r: ";".join(s for s in SITES if r[s]), axis=1),
            "sex": rows["gender"],
            "view": rows[list(cohort.VIEWS)].idxmax(axis=1),
            "band": pd.cut(rows["age"], list(BANDS), right=False, labels=BANDS[:-1]).astype(int),
        }
    )
    fine = [["center", "entity", "site", "band"], ["center", "entity", "site"]]
    out = [_pool(facts, "lesion", [*fine, ["entity", "site"], ["entity"]])]
    # ages of the rows whose cell above tells no age
    told = facts.groupby(fine[0])["sex"].transform("size") >= SMALLEST
    levels = [["center", "entity", "band"], ["entity", "band"], ["entity"]]
    out.append(_pool(facts[~told], "age", levels))
    out.append(_pool(facts, "sex", [["entity", "sex"], ["entity"]]))
    single = facts[~facts["site"].str.contains(";")]
    out.append(_pool(single, "view", [["site", "view"], ["view"]]))
    same = facts[["center", "entity", "site", "sex", "band"]]
    runs = (same != same.shift()).any(axis=1).cumsum()
    sizes = runs.value_counts().clip(upper=4).rename("value").to_frame()
    out.append(_pool(sizes, "views of one lesion", [["value"]]))
    return pd.concat(out, ignore_index=True)


def _pool(facts: pd.DataFrame, name: str, levels: list[list[str]]) -> pd.DataFrame:
    """Count at the finest level; what stays below SMALLEST is counted again one level up."""
    rest, found = facts, []
    for level in levels:
        if rest.empty:
            break
        size = rest.groupby(level)[level[0]].transform("size")
        found.append(rest[size >= SMALLEST].groupby(level).size().rename("count").reset_index())
        rest = rest[size < SMALLEST]
    cells = pd.concat(found, ignore_index=True)
    for column in ("band", "sex", "view"):
        if column in cells:
            # a number stands as its whole part, an empty one as missing
            told = cells[column].map(lambda v: v if isinstance(v, str) else f"{v:.0f}")
            cells["value"] = told.where(cells[column].notna())
    cells["table"] = name
    for column, empty in (("center", 0), ("entity", "any"), ("site", "other"), ("value", "other")):
        cells[column] = cells[column].fillna(empty) if column in cells else empty
    cells = cells.astype({"center": int, "value": str})
    return cells[["table", "center", "entity", "site", "value", "count"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="BTXRD's dataset.csv")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.write_text(HEAD + count(pd.read_csv(options.dataset)).to_csv(index=False))


if __name__ == "__main__":
    main()
