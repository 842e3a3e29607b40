"""Whether a written folder follows the real table: its marginals beside the shipped counts.

A folder of ``phantom.write`` comes in; tables of counts, ages, box areas and of the tests on them
go out. One row a patient is counted, since views of one patient are not independent. The real side
is ``marginals.py``: BTXRD's tumour rows, pooled (Yao et al. 2025, Scientific Data 12:88).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from bonelib import cohort

from .files import read_cohort
from .marginals import ENTITY_NAMES, area_share, cells, centers, label, totals, years

_CLASSES = cohort.task("malignancy").classes
LEAST = 5.0  # expected images: chi-square needs as many in a cell
_LEVELS = np.linspace(0.001, 0.999, 400)


def compare(folder: str | Path) -> dict[str, pd.DataFrame]:
    """Set the marginals of a synthetic folder beside those of the real table.

    Returns:
        ``counts``: ``marginal, value, synthetic, real`` with the real counts scaled to the
        synthetic total; values that the real table pools away are left out.
        ``ages``: ``label, entity, source, age`` (years); real ages lie evenly in their bands.
        ``areas``: ``entity, synthetic, real, quantile``: lesion box / image of each patient's first
        image; as many real shares, evenly from the entity's quantiles; the real quantile of the
        synthetic share, which is uniform if the areas follow the real ones.
        ``tests``: ``marginal, test, n, statistic, p``: chi-square on cells of 5 expected images or
        more, Kolmogorov-Smirnov on ages of 5 patients or more and on the quantiles of the areas.

    Raises:
        FileNotFoundError: The folder was not written by ``phantom.write``, or not to its end.
    """
    rows = read_cohort(Path(folder)).drop_duplicates("patient")
    tumors = rows[rows["tumor"] == 1]
    classes = rows["entity"].where(rows["tumor"] == 1, "").map(label)
    mixed = {f"{c} {name}": known[name] for c, known in centers().items() for name in _CLASSES}
    parts = [_beside(column, tumors[column], totals(column)) for column in ("site", "entity")]
    parts.append(_beside("centre and class", rows["center"].astype(str) + " " + classes, mixed))
    counts = pd.concat(parts, ignore_index=True)
    ages = pd.concat([_ages(tumors, entity) for entity in ENTITY_NAMES], ignore_index=True)
    areas = _areas(Path(folder), tumors)
    return {"counts": counts, "ages": ages, "areas": areas, "tests": _tests(counts, ages, areas)}


def _beside(marginal: str, found: pd.Series, real: dict[str, int]) -> pd.DataFrame:
    names = sorted(real, key=real.get, reverse=True)
    synthetic = found.value_counts().reindex(names).fillna(0).astype(int).to_numpy()
    wanted = np.array([real[name] for name in names], float)
    return pd.DataFrame(
        {
            "marginal": marginal,
            "value": [name.replace(";", " + ") for name in names],
            "synthetic": synthetic,
            "real": wanted / wanted.sum() * synthetic.sum(),
        }
    )


def _ages(tumors: pd.DataFrame, entity: str) -> pd.DataFrame:
    real: list[float] = []
    for name in ("lesion", "age"):
        for cell in cells(name, entity=entity):
            if cell["value"] != "other":
                band = np.array(years(cell["value"]))
                # evenly over the years of the band, without a random number
                at = (np.arange(cell["count"]) + 0.5) / cell["count"] * len(band)
                real += band[at.astype(int)].tolist()
    own = tumors.loc[tumors["entity"] == entity, "age"].tolist()
    source = ["synthetic"] * len(own) + ["real"] * len(real)
    ages = {"label": label(entity), "entity": entity, "source": source, "age": [*own, *real]}
    return pd.DataFrame(ages)


def _areas(folder: Path, tumors: pd.DataFrame) -> pd.DataFrame:
    known = {entity: area_share(entity, _LEVELS) for entity in ENTITY_NAMES}
    # a lesion over two bones is outlined in parts, of which none is the whole
    single = tumors[~tumors["site"].str.contains(";")]
    found = []
    for name, entity in zip(single["image_id"], single["entity"], strict=True):
        path = folder / "Annotations" / f"{Path(name).stem}.json"
        note = json.loads(path.read_text(encoding="utf-8"))
        boxes = (s["points"] for s in note["shapes"] if s["shape_type"] == "rectangle")
        (left, top), (right, bottom) = next(boxes)
        share = (right - left) * (bottom - top) / (note["imageHeight"] * note["imageWidth"])
        found.append((entity, share, float(np.interp(share, known[entity], _LEVELS))))
    areas = pd.DataFrame(found, columns=["entity", "synthetic", "quantile"])
    within = areas.groupby("entity")["entity"]
    place = (within.cumcount() + 0.5) / within.transform("size")
    real = [area_share(e, q) for e, q in zip(areas["entity"], place, strict=True)]
    return areas.assign(real=real)


def _tests(counts: pd.DataFrame, ages: pd.DataFrame, areas: pd.DataFrame) -> pd.DataFrame:
    from scipy import stats

    rows = []
    for marginal, cell in counts.groupby("marginal", sort=False):
        cell = cell[cell["real"] >= LEAST]
        if len(cell) > 1:
            wanted = cell["real"] / cell["real"].sum() * cell["synthetic"].sum()
            done = stats.chisquare(cell["synthetic"], wanted)
            rows.append((marginal, "chi-square", int(cell["synthetic"].sum()), *done))
    for entity, age in ages.groupby("entity", sort=False):
        synthetic, real = (age.loc[age["source"] == s, "age"] for s in ("synthetic", "real"))
        if len(synthetic) >= LEAST:
            done = stats.ks_2samp(synthetic, real)
            name = f"age, {entity}"
            rows.append((name, "KS", len(synthetic), done.statistic, done.pvalue))
    done = stats.kstest(areas["quantile"], "uniform")
    rows.append(("box area", "KS", len(areas), done.statistic, done.pvalue))
    return pd.DataFrame(rows, columns=["marginal", "test", "n", "statistic", "p"])
