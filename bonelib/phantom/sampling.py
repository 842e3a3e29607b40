"""Who is in the cohort: patients, lesions, views and centres in BTXRD's proportions.

Tumours follow the pooled counts of the real tumour rows (``marginals.py``); normals take their site
from the published healthy sites, and age and sex from tumour patients of the same site and centre,
so that age and sex tell nothing beyond site. A patient has one centre, one lesion (or none) and one
to four views, which stand in neighbouring rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from .distractors import DISTRACTORS
from .marginals import BANDS, CENTERS, HEALTHY, MALIGNANT, NORMAL_VIEWS, area_quantile, cells
from .scene import VIEWS
from .stage import COMBINED, PLACES

# share of patients by distractor, in the order of DISTRACTORS
_DISTRACTED = {
    "tumor": (0.955, 0.01, 0.0, 0.02, 0.015, 0.0),
    "normal": (0.78, 0.07, 0.02, 0.07, 0.05, 0.01),
    "archive": (0.50, 0.20, 0.05, 0.15, 0.06, 0.04),
}
# where a site has too few tumours, normals take age and sex from these
_NEIGHBOURS = {
    "ankle-joint": ("tibia", "foot"),
    "wrist-joint": ("radius", "ulna", "hand"),
    "elbow-joint": ("humerus", "radius", "ulna"),
    "shoulder-joint": ("humerus",),
    "hip-joint": ("hip bone", "femur"),
}
CLASSES = ("malignant", "benign", "normal")


@dataclass(frozen=True)
class Case:
    """One image to be drawn.

    ``patient_key`` fixes anatomy and lesion, ``image_key`` positioning and exposure.
    """

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
    kind: str = ""  # the diagnosis, where it is not left to chance

    @property
    def label(self) -> str:
        """normal, benign or malignant."""
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
    options, weights = cells("views of one lesion")
    many = spread(weights, images, rng)
    per_patient: list[int] = []
    while sum(per_patient) < images:
        size = int(options[many[len(per_patient)]]["value"])
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
    options = [
        c
        for c in cells("lesion")[0]
        if (c["entity"] in MALIGNANT) == (label == "malignant") and _drawable(c["site"])
    ]
    weights = np.array([c["count"] for c in options], float)
    return [_person(options[i], rng) for i in spread(weights, count, rng)]


def _drawable(site: str) -> bool:
    return site == "other" or site in PLACES or tuple(site.split(";")) in COMBINED


def _person(cell: dict, rng: np.random.Generator) -> dict:
    entity, center, site = cell["entity"], int(cell["center"]), cell["site"]
    if center == 0:
        label = "malignant" if entity in MALIGNANT else "benign"
        center = _pick(list(CENTERS), [CENTERS[c][label] for c in CENTERS], rng)
    if site == "other":
        site = _pick(*_single_sites(), rng)
    return {
        "center": center,
        "sites": tuple(site.split(";")),
        "entity": entity,
        "framed_as": entity,
        "age": _age(cell["value"], entity, center, rng),
        "sex": _sex(entity, rng),
    }


@lru_cache(maxsize=1)
def _single_sites() -> tuple[list[str], list[float]]:
    total: dict[str, float] = {}
    for cell in cells("lesion")[0]:
        if cell["site"] in PLACES:
            total[cell["site"]] = total.get(cell["site"], 0) + cell["count"]
    return list(total), list(total.values())


def _age(band: str, entity: str, center: int, rng: np.random.Generator) -> int:
    """Years within a band; without one, the band comes from the entity's pooled ages."""
    if band == "other":
        own = cells("age", entity=entity, center=center)[0]
        pooled = [c for c in cells("age", entity=entity, center=0)[0] if c["value"] != "other"]
        # the pooled cells belong to all centres: each takes its share
        every = [c for c in cells("age", entity=entity)[0] if c["center"] > 0]
        mine = sum(c["count"] for c in own) / max(sum(c["count"] for c in every), 1)
        options = [(c["value"], c["count"]) for c in own]
        options += [(c["value"], c["count"] * max(mine, 0.05)) for c in pooled]
        options = options or [(c["value"], c["count"]) for c in every]
        options = options or [
            (c["value"], c["count"])
            for c in cells("lesion", entity=entity)[0]
            if c["value"] != "other"
        ]
        band = _pick([v for v, _ in options], [c for _, c in options], rng)
    first = int(band)
    return int(rng.integers(max(first, 1), BANDS[BANDS.index(first) + 1]))


def _sex(entity: str, rng: np.random.Generator) -> str:
    options, weights = cells("sex", entity=entity)
    return options[rng.choice(len(options), p=weights)]["value"]


def _normals(count: int, rng: np.random.Generator) -> list[dict]:
    sites = list(HEALTHY)
    picked = spread(np.array(list(HEALTHY.values()), float), count, rng)
    centers = spread(np.array([c["normal"] for c in CENTERS.values()], float), count, rng)
    return [
        _normal(sites[site], list(CENTERS)[center], rng)
        for site, center in zip(picked, centers, strict=True)
    ]


def _normal(site: str, center: int, rng: np.random.Generator) -> dict:
    peers, weights = _peers(site, center)
    peer = peers[rng.choice(len(peers), p=weights)]
    return {
        "center": center,
        "sites": (site,),
        "entity": "",
        "framed_as": peer["entity"],
        "age": _age(peer["value"], peer["entity"], center, rng),
        "sex": _sex(peer["entity"], rng),
    }


@lru_cache(maxsize=64)
def _peers(site: str, center: int) -> tuple[list[dict], np.ndarray]:
    """Tumour cells of a site and centre, else of the site, else of neighbouring sites."""
    every = cells("lesion")[0]
    near = _NEIGHBOURS.get(site, ())
    for peers in (
        [c for c in every if site in c["site"].split(";") and c["center"] == center],
        [c for c in every if site in c["site"].split(";")],
        [c for c in every if set(near) & set(c["site"].split(";")) and c["center"] == center],
    ):
        # a handful of rows would give every normal of the site the same age
        if sum(c["count"] for c in peers) >= 12:
            break
    weights = np.array([c["count"] for c in peers], float)
    return peers, weights / weights.sum()


def _views(
    head: dict, patient: str, count: int, key: tuple[int, ...], rng: np.random.Generator
) -> list[Case]:
    weights = np.array(_view_shares(head["sites"][0], not head["entity"]))
    side = str(rng.choice(["left", "right"]))
    odds = _DISTRACTED["tumor" if head["entity"] else "normal"]
    distractor = DISTRACTORS[rng.choice(len(odds), p=odds)]
    lesion = rng.standard_normal()
    cases = []
    # a single or first picture is frontal more often than the later ones, which are other views
    left = weights * np.array([1.45, 0.9, 0.75])
    for number in range(count):
        view = VIEWS[rng.choice(3, p=left / left.sum())]
        left = weights * np.where(np.array(VIEWS) == view, 0.35, 1.0)
        # views of one lesion agree closely
        area = 0.95 * lesion + np.sqrt(1 - 0.95**2) * rng.standard_normal()
        cases.append(
            Case(
                patient=patient,
                study=f"{patient}-1",
                side=side,
                view=view,
                area=area_quantile(area, head["framed_as"], head["center"]),
                distractor=distractor,
                patient_key=key,
                image_key=(*key, 7, number),
                **head,
            )
        )
    return cases


@lru_cache(maxsize=64)
def _view_shares(site: str, normal: bool) -> tuple[float, ...]:
    """Frontal, lateral, oblique of a site; normals are shifted to their published totals."""
    weights = _tumor_views(site)
    if normal:
        total = np.array(list(HEALTHY.values()), float)
        usual = sum(n * _tumor_views(s) for n, s in zip(total, HEALTHY, strict=True))
        goal = np.array(list(NORMAL_VIEWS.values()), float)
        weights = weights * (goal / goal.sum()) / (usual / total.sum())
    return tuple(weights / weights.sum())


@lru_cache(maxsize=64)
def _tumor_views(site: str) -> np.ndarray:
    own = cells("view", site=site)[0]
    if sum(c["count"] for c in own) < 20:
        own = cells("view")[0]
    weights = np.array([sum(c["count"] for c in own if c["value"] == v) + 0.5 for v in VIEWS])
    return weights / weights.sum()


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
        options = [
            c
            for c in cells("lesion")[0]
            if entity in (None, c["entity"])
            and (c["entity"] in MALIGNANT) == (label == "malignant")
            and _drawable(c["site"])
        ]
        own = [c for c in options if site is None or c["site"] == site] or options
        head = _person(_pick(own, [c["count"] for c in own], rng), rng)
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
