"""Who is in the cohort: patients, lesions, views and centres in BTXRD's proportions.

Tumours follow the pooled counts of the real tumour rows (``marginals.py``); normals take their site
from the published healthy sites, and age and sex from tumour patients of the same site and centre, so
that age and sex tell nothing beyond site. A patient has one centre, one lesion (or none) and one to
four views, which stand in neighbouring rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .entities import ENTITIES
from .marginals import BANDS, CENTERS, HEALTHY, MALIGNANT, NORMAL_VIEWS, counts, shares
from .scene import VIEWS
from .distractors import DISTRACTORS
from .stage import COMBINED, PLACES

# share of patients by distractor, in the order of DISTRACTORS
_DISTRACTED = {
    "tumor": (0.955, 0.01, 0.0, 0.02, 0.015, 0.0),
    "normal": (0.78, 0.07, 0.02, 0.07, 0.05, 0.01),
    "archive": (0.50, 0.20, 0.05, 0.15, 0.06, 0.04),
}
CLASSES = ("malignant", "benign", "normal")


@dataclass(frozen=True)
class Case:
    """One image to be drawn; ``patient_key`` fixes anatomy and lesion, ``image_key`` the exposure."""

    patient: str
    study: str
    center: int
    age: int
    sex: str
    side: str
    view: str
    sites: tuple[str, ...]
    entity: str  # BTXRD column, empty for a normal
    framed_as: str  # the entity whose framing the picture has: its own, or that of a peer
    area: float  # quantile of the lesion's box area, 0..1
    distractor: str
    patient_key: tuple[int, ...]
    image_key: tuple[int, ...]

    @property
    def label(self) -> str:
        if not self.entity:
            return "normal"
        return "malignant" if self.entity in MALIGNANT else "benign"


def class_sizes(images: int) -> dict[str, int]:
    """Images by class in BTXRD's proportions (342/1525/1879 of 3,746), at least two of each."""
    malignant = max(2, round(images * 342 / 3746))
    benign = max(2, round(images * 1525 / 3746))
    return {"malignant": malignant, "benign": benign, "normal": images - malignant - benign}


def plan(images: int, seed: int) -> list[Case]:
    """The cohort's rows in order: tumours first, then normals, views of a patient side by side."""
    rng = np.random.default_rng([seed, 11])
    tumors: list[list[Case]] = []
    sizes = class_sizes(images)
    number = 0
    for label in CLASSES[:2]:
        groups = _groups(label, sizes[label], seed, number, rng)
        number += len(groups)
        tumors += groups
    tumors = [tumors[i] for i in rng.permutation(len(tumors))]
    normals = _groups("normal", sizes["normal"], seed, number, rng)
    normals.sort(key=lambda group: group[0].center == 3)  # as in BTXRD, they come last
    return [case for group in [*tumors, *normals] for case in group]


def _groups(
    label: str, images: int, seed: int, first: int, rng: np.random.Generator
) -> list[list[Case]]:
    cells, weights = shares("views of one lesion")
    many = spread(weights, images, rng)
    per_patient: list[int] = []
    while sum(per_patient) < images:
        size = int(cells[many[len(per_patient)]]["value"])
        per_patient.append(min(size, images - sum(per_patient)))
    patients = len(per_patient)
    if label == "normal":
        heads = _normals(patients, rng)
    else:
        heads = _tumors(label, patients, rng)
    groups = []
    for i, (head, views) in enumerate(zip(heads, per_patient, strict=True)):
        patient = f"P{first + i + 1:06d}"
        groups.append(_views(head, patient, views, (seed, 1, first + i), rng))
    return groups


def spread(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Systematic sample: each cell gets its share of ``count`` to within one, in random order."""
    points = (np.arange(count) + rng.random()) / max(count, 1)
    picked = np.searchsorted(np.cumsum(weights) / np.sum(weights), points, side="right")
    return rng.permutation(np.minimum(picked, len(weights) - 1))


def _tumors(label: str, count: int, rng: np.random.Generator) -> list[dict]:
    cells, _ = shares("lesion")
    cells = [
        c
        for c in cells
        if c["entity"] in ENTITIES
        and (c["entity"] in MALIGNANT) == (label == "malignant")
        and _drawable(c["site"])
    ]
    weights = np.array([c["count"] for c in cells], float)
    return [_person(cells[i], rng) for i in spread(weights, count, rng)]


def _drawable(site: str) -> bool:
    return site == "other" or site in PLACES or tuple(site.split(";")) in COMBINED


def _person(cell: dict, rng: np.random.Generator) -> dict:
    entity, center, site = cell["entity"], int(cell["center"]), cell["site"]
    if center == 0:
        label = "malignant" if entity in MALIGNANT else "benign"
        center = _pick(list(CENTERS), [CENTERS[c][label] for c in CENTERS], rng)
    if site == "other":
        table = counts()
        own = table[(table["table"] == "lesion") & (table["site"].isin(list(PLACES)))]
        by_site = own.groupby("site")["count"].sum()
        site = _pick(list(by_site.index), by_site.to_numpy(float), rng)
    return {
        "center": center,
        "sites": tuple(site.split(";")),
        "entity": entity,
        "framed_as": entity,
        **_age_and_sex(entity, center, rng),
    }


def _age_and_sex(entity: str, center: int, rng: np.random.Generator) -> dict:
    table = counts()
    table = table[(table["table"] == "age") & (table["entity"] == entity)]
    near = table[table["center"] == center]
    every = table[(table["center"] == 0) & (table["value"] != "other")]
    cells = list(zip(near["value"], near["count"], strict=True))
    # the pooled cells belong to all centres: each takes its share
    mine = near["count"].sum() / max(table[table["center"] > 0]["count"].sum(), 1)
    cells += list(zip(every["value"], every["count"] * max(mine, 0.05), strict=True))
    band = int(_pick([v for v, _ in cells], [c for _, c in cells], rng))
    age = int(rng.integers(max(band, 1), BANDS[BANDS.index(band) + 1]))
    sexes, weights = shares("sex", entity=entity)
    return {"age": age, "sex": sexes[rng.choice(len(sexes), p=weights)]["value"]}


def _normals(count: int, rng: np.random.Generator) -> list[dict]:
    sites = [s for s in HEALTHY if s in PLACES]
    picked = spread(np.array([HEALTHY[s] for s in sites], float), count, rng)
    centers = spread(np.array([c["normal"] for c in CENTERS.values()], float), count, rng)
    heads = []
    for site, center in zip(picked, centers, strict=True):
        heads.append(_normal(sites[site], int(list(CENTERS)[center]), rng))
    return heads


def _normal(site: str, center: int, rng: np.random.Generator) -> dict:
    table = counts()
    table = table[(table["table"] == "lesion") & table["site"].str.contains(site, regex=False)]
    table = table[table["entity"].isin(list(ENTITIES))]
    near = table[table["center"] == center]
    cells = near if len(near) else table
    if len(cells) == 0:
        cells = counts()[counts()["table"] == "lesion"]
        cells = cells[cells["entity"].isin(list(ENTITIES))]
    entity = _pick(list(cells["entity"]), list(cells["count"]), rng)
    return {
        "center": center,
        "sites": (site,),
        "entity": "",
        "framed_as": entity,
        **_age_and_sex(entity, center, rng),
    }


def _views(
    head: dict, patient: str, count: int, key: tuple[int, ...], rng: np.random.Generator
) -> list[Case]:
    weights = view_shares(head["sites"], normal=not head["entity"])
    side = str(rng.choice(["left", "right"]))
    odds = _DISTRACTED["tumor" if head["entity"] else "normal"]
    distractor = DISTRACTORS[rng.choice(len(odds), p=odds)]
    lesion = rng.standard_normal()
    cases = []
    left = weights.copy()
    for number in range(count):
        view = VIEWS[rng.choice(3, p=left / left.sum())]
        left[VIEWS.index(view)] *= 0.3  # a second picture is usually another view
        # the marginal distribution stays uniform; views of one lesion agree closely
        area = 0.95 * lesion + np.sqrt(1 - 0.95**2) * rng.standard_normal()
        cases.append(
            Case(
                patient=patient,
                study=f"{patient}-1",
                side=side,
                view=view,
                area=_normal_share(area),
                distractor=distractor,
                patient_key=key,
                image_key=(*key, 7, number),
                **head,
            )
        )
    return cases


def view_shares(sites: tuple[str, ...], *, normal: bool) -> np.ndarray:
    """Frontal, lateral, oblique for a site; normals are shifted to their published totals."""
    table = counts()
    table = table[table["table"] == "view"]
    own = table[table["site"] == sites[0]]
    own = own if own["count"].sum() >= 20 else table
    weights = np.array([own[own["value"] == v]["count"].sum() + 0.5 for v in VIEWS], float)
    weights /= weights.sum()
    if normal:
        every = np.array([table[table["value"] == v]["count"].sum() for v in VIEWS], float)
        goal = np.array(list(NORMAL_VIEWS.values()), float)
        weights *= (goal / goal.sum()) / (every / every.sum())
    return weights / weights.sum()


def _normal_share(z: float) -> float:
    """Cumulative standard normal distribution."""
    from math import erf

    return 0.5 * (1 + erf(z / 2**0.5))


def _pick(values: list, weights: list[float] | np.ndarray, rng: np.random.Generator):
    weights = np.asarray(weights, float)
    return values[rng.choice(len(values), p=weights / weights.sum())]


def single(seed: int, index: int, *, stream: int = 2, **wanted: str | int | None) -> Case:
    """One free-standing case; facts not given in ``wanted`` are drawn in BTXRD's proportions."""
    rng = np.random.default_rng([seed, 12, stream, index])
    entity = wanted.get("entity")
    site = wanted.get("site")
    if entity is None:
        label = str(rng.choice(CLASSES, p=[342 / 3746, 1525 / 3746, 1879 / 3746]))
    else:
        label = "normal" if entity == "" else ("malignant" if entity in MALIGNANT else "benign")
    if label == "normal":
        head = _normals(1, rng)[0] if site is None else _normal(str(site), 1, rng)
    else:
        cells, _ = shares("lesion")
        cells = [c for c in cells if c["entity"] in ENTITIES and (entity in (None, c["entity"]))]
        cells = [c for c in cells if (c["entity"] in MALIGNANT) == (label == "malignant")]
        cells = [c for c in cells if _drawable(c["site"])]
        own = [c for c in cells if site is None or c["site"] == site]
        head = _person(_pick(own or cells, [c["count"] for c in own or cells], rng), rng)
        if site is not None:
            head["sites"] = (str(site),)
    case = _views(head, f"P{index:06d}", 1, (seed, stream, index), rng)[0]
    given = {k: v for k, v in wanted.items() if k not in ("entity", "site") and v is not None}
    return replace(case, **given)


def archive_case(seed: int, index: int) -> Case:
    """One study of the unlabelled archive: mostly normal, trauma and wear, few tumours."""
    rng = np.random.default_rng([seed, 13, index])
    case = single(seed, index, stream=3, entity=None if rng.random() < 0.06 else "")
    if not case.entity:
        odds = _DISTRACTED["archive"]
        case = replace(case, distractor=DISTRACTORS[rng.choice(len(odds), p=odds)])
    return replace(case, patient=f"A{index + 1:06d}", study=f"A{index + 1:06d}-1")
