"""How often what occurs: counts of BTXRD's 1,867 tumour rows, pooled so that no cell names one row.

``tumor_counts.csv`` beside this module holds the counts; :func:`count` makes it anew from BTXRD's
own ``dataset.csv``. Source: Yao et al. 2025, Scientific Data 12:88, doi 10.1038/s41597-024-04311-y.
Healthy sites: the counts published with ``BTXRD_healthy_anatomy_sites.xlsx`` (13 values; spine, arm
and leg left out).
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from .scene import SITES, VIEWS

if TYPE_CHECKING:
    import pandas as pd

ENTITY_NAMES = (
    "osteochondroma", "multiple osteochondromas", "simple bone cyst", "giant cell tumor",
    "osteofibroma", "synovial osteochondroma", "other bt", "osteosarcoma", "other mt",
)  # fmt: skip
MALIGNANT = ("osteosarcoma", "other mt")
# first year of each age band; a band ends before the next
BANDS = (0, 4, 7, 10, 12, 14, 16, 18, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 89)
# lesion box / image area by entity: 5, 10, 25, 50, 75, 90 and 95 % quantiles of BTXRD's boxes
AREAS = {
    "osteochondroma": (0.00046, 0.00065, 0.00133, 0.00295, 0.00783, 0.01885, 0.03147),
    "multiple osteochondromas": (0.00238, 0.00449, 0.00976, 0.02316, 0.04985, 0.08808, 0.10695),
    "simple bone cyst": (0.00051, 0.00100, 0.00346, 0.01708, 0.03598, 0.06648, 0.10522),
    "giant cell tumor": (0.00538, 0.01076, 0.02124, 0.03433, 0.06094, 0.08789, 0.15258),
    "osteofibroma": (0.00127, 0.00136, 0.00334, 0.00508, 0.01024, 0.01569, 0.01656),
    "synovial osteochondroma": (0.00867, 0.01495, 0.04001, 0.08431, 0.11059, 0.16301, 0.17872),
    "other bt": (0.00149, 0.00216, 0.00412, 0.01082, 0.01908, 0.03887, 0.06823),
    "osteosarcoma": (0.01195, 0.01729, 0.02704, 0.04596, 0.07990, 0.13546, 0.19508),
    "other mt": (0.00492, 0.00528, 0.01173, 0.03977, 0.08066, 0.12372, 0.14888),
}
# teaching collections are cut close to the lesion: mean by centre, within entities, of the normal
# scores of BTXRD's box areas, and their standard deviation around it
AREA_SHIFT = {1: -0.21, 2: 0.71, 3: 0.35}
AREA_SPREAD = 0.93
SMALLEST = 3  # rows: smaller cells are pooled
# images by centre and class, Yao et al. 2025, table 2
CENTERS = {
    1: {"normal": 1593, "benign": 1110, "malignant": 235},
    2: {"normal": 259, "benign": 214, "malignant": 76},
    3: {"normal": 27, "benign": 201, "malignant": 31},
}
# normal images by view: all images less the tumour rows
NORMAL_VIEWS = {"frontal": 1002, "lateral": 688, "oblique": 189}
# the published healthy sites, shared out over the 15 columns: joints next to a segment are seen
# with it
HEALTHY = {
    "tibia": 150, "fibula": 105, "ankle-joint": 90, "knee-joint": 327, "femur": 232, "hand": 210,
    "foot": 181, "radius": 50, "ulna": 45, "wrist-joint": 48, "shoulder-joint": 122,
    "hip-joint": 57, "hip bone": 60, "elbow-joint": 98, "humerus": 83,
}  # fmt: skip
LIMBS = {
    **dict.fromkeys(
        ("hand", "ulna", "radius", "humerus", "wrist-joint", "elbow-joint", "shoulder-joint"),
        "upper limb",
    ),
    **dict.fromkeys(
        ("foot", "tibia", "fibula", "femur", "ankle-joint", "knee-joint"), "lower limb"
    ),
    **dict.fromkeys(("hip bone", "hip-joint"), "pelvis"),
}


def count(table: pd.DataFrame) -> pd.DataFrame:
    """Pool BTXRD's tumour rows into counts: center × entity × site × age, sex, views.

    Args:
        table: BTXRD's ``dataset.csv`` as read, with its 37 columns.

    Returns:
        Columns ``table, center, entity, site, value, count``; ``center`` 0 means any, ``site``
        and ``value`` "other" any. ``value`` is the first year of an age band in the tables
        ``lesion`` and ``age``, else sex, view or number of views. No count is below 3.
    """
    import pandas as pd

    rows = table[table["tumor"] == 1]
    facts = pd.DataFrame(
        {
            "center": rows["center"],
            "entity": _first(rows, ENTITY_NAMES),
            "site": rows[list(SITES)].apply(lambda r: ";".join(s for s in SITES if r[s]), axis=1),
            "sex": rows["gender"],
            "view": _first(rows, VIEWS),
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


def _first(rows: pd.DataFrame, columns: tuple[str, ...]) -> pd.Series:
    return rows[list(columns)].idxmax(axis=1)


def _pool(facts: pd.DataFrame, name: str, levels: list[list[str]]) -> pd.DataFrame:
    """Count at the finest level; what stays below SMALLEST is counted again one level up."""
    import pandas as pd

    rest, found = facts, []
    for level in levels:
        if rest.empty:
            break
        size = rest.groupby(level)[level[0]].transform("size")
        kept = rest[size >= SMALLEST]
        counts = kept.groupby(level).size().rename("count").reset_index()
        found.append(counts)
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
    cells["center"] = cells["center"].astype(int)
    cells["value"] = cells["value"].astype(str)
    return cells[["table", "center", "entity", "site", "value", "count"]]


def area_share(entity: str, quantile: float) -> float:
    """Lesion box / image area at a quantile (0..1) of an entity; the tails are invented."""
    low, *inner, high = AREAS[entity]
    at = (0.0, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 1.0)
    logs = np.log([0.6 * low, low, *inner, high, 1.5 * high])
    return float(np.exp(np.interp(quantile, at, logs)))


def area_quantile(score: float, entity: str, center: int) -> float:
    """Quantile of an entity's box areas for a standard normal score within its centre.

    The quantiles of all centres together stay uniform: the score, shifted as its centre is, is
    ranked among the centres' mixture for that entity.
    """
    from math import erf

    at = AREA_SHIFT[center] + AREA_SPREAD * score
    below = 0.0
    for other, share in _center_shares(entity).items():
        below += share * 0.5 * (1 + erf((at - AREA_SHIFT[other]) / AREA_SPREAD / 2**0.5))
    return below


@lru_cache(maxsize=16)
def _center_shares(entity: str) -> dict[int, float]:
    """Share of an entity's tumour rows by centre; rows of cells without one follow their class."""
    label = "malignant" if entity in MALIGNANT else "benign"
    usual = {c: k[label] for c, k in CENTERS.items()}
    total = dict.fromkeys(CENTERS, 0.0)
    for cell in cells("lesion", entity=entity)[0]:
        for c in CENTERS:
            if cell["center"] == c:
                total[c] += cell["count"]
            elif cell["center"] == 0:
                total[c] += cell["count"] * usual[c] / sum(usual.values())
    return {c: n / sum(total.values()) for c, n in total.items()}


@lru_cache(maxsize=1)
def counts() -> pd.DataFrame:
    """The pooled counts that ship with the package; see :func:`count` for the columns."""
    import pandas as pd

    path = resources.files(__package__).joinpath("tumor_counts.csv")
    with path.open(encoding="utf-8") as file:
        return pd.read_csv(file, comment="#", dtype={"value": str})


@lru_cache(maxsize=256)
def cells(name: str, **where: int | str) -> tuple[tuple[dict, ...], np.ndarray]:
    """Cells of one table that match ``where`` as dictionaries, and their shares (sum 1)."""
    table = counts()
    table = table[table["table"] == name]
    for column, wanted in where.items():
        table = table[table[column] == wanted]
    weights = table["count"].to_numpy(float)
    return tuple(table.to_dict("records")), weights / max(weights.sum(), 1)
