"""How often what occurs: counts of BTXRD's 1,867 tumour rows, pooled so that no cell names one row.

``tumor_counts.csv`` holds the counts, one cell a row: ``center`` 0 is any, ``value`` the first year
of an age band in the tables ``lesion`` and ``age``, else sex, view or number of views, "other" any.
``benchmarks/phantom_counts.py`` makes it anew from BTXRD's own ``dataset.csv``.
Source: Yao et al. 2025, Scientific Data 12:88, doi 10.1038/s41597-024-04311-y. ``centers.csv`` has
the images by centre and class (table 2 there); ``healthy_sites.csv`` the counts published with
``BTXRD_healthy_anatomy_sites.xlsx`` (13 values; spine, arm and leg left out), shared out over the
15 columns: joints next to a segment are seen with it; ``entities.csv`` the quantiles of lesion box
/ image area of BTXRD's boxes.
"""

from __future__ import annotations

from functools import cache
from math import erf

import numpy as np

from bonelib import cohort

from .files import rows

# the columns of BTXRD, in its order and spelling
SITES = (
    "hand", "ulna", "radius", "humerus", "foot", "tibia", "fibula", "femur", "hip bone",
    "ankle-joint", "knee-joint", "hip-joint", "wrist-joint", "elbow-joint", "shoulder-joint",
)  # fmt: skip
ENTITY_NAMES = cohort.task("entity").classes
MALIGNANT = ("osteosarcoma", "other mt")
# first year of each age band; a band ends before the next
BANDS = (0, 4, 7, 10, 12, 14, 16, 18, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 89)
# standard deviation of the normal scores of box areas around their centre's mean (``area_shift``
# of ``centers.csv``, within entities): teaching collections are cut close to the lesion
AREA_SPREAD = 0.93
SMALLEST = 3  # rows: smaller cells are pooled
# normal images by view: all images less the tumour rows
NORMAL_VIEWS = {"frontal": 1002, "lateral": 688, "oblique": 189}


def term(site: str) -> str:
    """A site of BTXRD in the terms of the cohort."""
    return site.removesuffix("-joint")


def label(entity: str) -> str:
    """The class of an entity; "" is a normal."""
    if not entity:
        return "normal"
    return "malignant" if entity in MALIGNANT else "benign"


def years(band: int | str) -> range:
    """The ages that a band holds; nobody is younger than one year."""
    first = int(band)
    return range(max(first, 1), BANDS[BANDS.index(first) + 1])


@cache
def centers() -> dict[int, dict]:
    """What is known of each centre: images by class, and how it takes pictures (``film.py``)."""
    return {row["center"]: row for row in rows("centers.csv")}


@cache
def healthy() -> dict[str, int]:
    """Normal images by site."""
    return {row["site"]: row["images"] for row in rows("healthy_sites.csv")}


def cells(table: str, **where: int | str) -> list[dict]:
    """Cells of one table of ``tumor_counts.csv`` that match ``where``."""
    return rows("tumor_counts.csv", table=table, **where)


def total(cells: list[dict]) -> int:
    """Rows in some cells."""
    return sum(cell["count"] for cell in cells)


def totals(column: str) -> dict[str, int]:
    """Tumour rows by site or by entity; those whose cell tells none are left out."""
    values = dict.fromkeys(cell[column] for cell in cells("lesion") if cell[column] != "other")
    return {value: total(cells("lesion", **{column: value})) for value in values}


def area_share(entity: str, quantile: float | np.ndarray) -> np.ndarray:
    """Lesion box / image area at a quantile (0..1) of an entity; the tails are invented."""
    row = rows("entities.csv", entity=entity)[0]
    at = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95)
    low, *inner, high = (row[f"q{100 * q:02.0f}"] for q in at)
    logs = np.log([0.6 * low, low, *inner, high, 1.5 * high])
    return np.exp(np.interp(quantile, (0.0, *at, 1.0), logs))


def area_quantile(score: float, entity: str, center: int) -> float:
    """Quantile of an entity's box areas for a standard normal score within its centre.

    The quantiles of all centres together stay uniform: the score, shifted as its centre is, is
    ranked among the centres' mixture for that entity.
    """
    at = centers()[center]["area_shift"] + AREA_SPREAD * score
    below = 0.0
    for other, share in _center_shares(entity).items():
        shift = centers()[other]["area_shift"]
        below += share * 0.5 * (1 + erf((at - shift) / AREA_SPREAD / 2**0.5))
    return below


@cache
def _center_shares(entity: str) -> dict[int, float]:
    """Share of an entity's tumour rows by centre; rows of cells without one follow their class."""
    usual = {center: known[label(entity)] for center, known in centers().items()}
    found = dict.fromkeys(usual, 0.0)
    for cell in cells("lesion", entity=entity):
        for center in found:
            if cell["center"] == center:
                found[center] += cell["count"]
            elif cell["center"] == 0:
                found[center] += cell["count"] * usual[center] / sum(usual.values())
    return {center: n / sum(found.values()) for center, n in found.items()}
