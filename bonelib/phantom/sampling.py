"""Who is in the cohort: patients, lesions, views and centres in BTXRD's proportions.

Tumours follow the pooled counts of the real tumour rows (``marginals.py``); normals take their site
from the published healthy sites, and age and sex from tumour patients of the same site and centre,
so that age and sex tell nothing beyond site. A patient has one centre, one lesion (or none) and one
to four views, which stand in neighbouring rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from bonelib.cohort import SIDES, VIEWS

from . import marginals
from .distractors import DISTRACTORS
from .files import rows
from .marginals import NORMAL_VIEWS, area_quantile, cells, centers, healthy, total, totals
from .positioning import targets

# share of patients by distractor, in the order of DISTRACTORS
_DISTRACTED = {
    "tumor": (0.955, 0.01, 0.0, 0.02, 0.015, 0.0),
    "normal": (0.78, 0.07, 0.02, 0.07, 0.05, 0.01),
    "archive": (0.50, 0.20, 0.05, 0.15, 0.06, 0.04),
}
# images of BTXRD by class, of 3,746
CLASSES = {"malignant": 342, "benign": 1525, "normal": 1879}


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
        return marginals.label(self.entity)


def plan(images: int, seed: int) -> list[Case]:
    """The cohort's rows in order: tumours first, then normals, views of a patient side by side.

    Classes have BTXRD's proportions, with two malignant and two benign images at least.
    """
    rng = np.random.default_rng([seed, 11])
    few, many = (max(2, round(images * CLASSES[c] / 3746)) for c in ("malignant", "benign"))
    tumors = _groups("malignant", few, seed, 0, rng)
    tumors += _groups("benign", many, seed, len(tumors), rng)
    order = rng.permutation(len(tumors))
    normals = _groups("normal", images - few - many, seed, len(tumors), rng)
    normals.sort(key=lambda group: group[0].center == 3)  # as in BTXRD, they come last
    return [case for group in [*(tumors[i] for i in order), *normals] for case in group]


def _groups(
    label: str, images: int, seed: int, first: int, rng: np.random.Generator
) -> list[list[Case]]:
    options = cells("views of one lesion")
    sizes = np.array([int(cell["value"]) for cell in options])
    ends = np.cumsum(sizes[spread(_shares(options), images, rng)])
    ends = np.minimum(ends[: np.searchsorted(ends, images) + 1], images)
    views = np.diff(ends, prepend=0)  # of each patient, until there are as many images
    heads = enumerate(_heads(label, len(views), rng), start=first)
    return [
        _views(head, f"P{number + 1:06d}", many, (seed, 1, number), rng)
        for (number, head), many in zip(heads, views.tolist(), strict=True)
    ]


def spread(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Systematic sample: each cell gets its share of ``count`` to within one, in random order."""
    points = (np.arange(count) + rng.random()) / max(count, 1)
    picked = np.searchsorted(np.cumsum(weights) / np.sum(weights), points, side="right")
    return rng.permutation(np.minimum(picked, len(weights) - 1))


def _shares(options: list[dict]) -> np.ndarray:
    weights = np.array([cell["count"] for cell in options], float)
    return weights / weights.sum()


def _pick(values: list, weights: list[float], rng: np.random.Generator):
    weights = np.asarray(weights, float)
    return values[rng.choice(len(values), p=weights / weights.sum())]


def _draw(options: list[dict], rng: np.random.Generator) -> dict:
    """One cell by its count."""
    return options[rng.choice(len(options), p=_shares(options))]


def _heads(label: str, count: int, rng: np.random.Generator) -> list[dict]:
    """The facts that a patient's images share, for a number of patients of one class."""
    if label != "normal":
        options = _lesions(label)
        weights = np.array([cell["count"] for cell in options], float)
        return [_person(options[i], rng) for i in spread(weights, count, rng)]
    sites = spread(np.array(list(healthy().values()), float), count, rng)
    images = np.array([known["normal"] for known in centers().values()], float)
    pairs = zip(sites, spread(images, count, rng), strict=True)
    return [_normal(list(healthy())[site], list(centers())[c], rng) for site, c in pairs]


@cache
def _lesions(label: str) -> list[dict]:
    """Tumour cells of a class at sites that can be drawn."""
    return [
        cell
        for cell in cells("lesion")
        if marginals.label(cell["entity"]) == label
        and (cell["site"] == "other" or tuple(cell["site"].split(";")) in targets())
    ]


def _person(cell: dict, rng: np.random.Generator) -> dict:
    entity, center, site = cell["entity"], int(cell["center"]), cell["site"]
    if center == 0:
        label = marginals.label(entity)
        center = _pick(list(centers()), [known[label] for known in centers().values()], rng)
    if site == "other":
        single = _single_sites()
        site = _pick(list(single), list(single.values()), rng)
    return {
        "center": center,
        "sites": tuple(site.split(";")),
        "entity": entity,
        "framed_as": entity,
        "age": _age(cell["value"], entity, center, rng),
        "sex": _draw(cells("sex", entity=entity), rng)["value"],
    }


@cache
def _single_sites() -> dict[str, int]:
    """Tumour rows by site, of those with one site."""
    return {site: rows for site, rows in totals("site").items() if (site,) in targets()}


def _age(band: str, entity: str, center: int, rng: np.random.Generator) -> int:
    """Years within a band; without one, the band comes from the entity's pooled ages."""
    if band == "other":
        known = cells("age", entity=entity)
        own = [cell for cell in known if cell["center"] == center]
        pooled = [c for c in known if c["center"] == 0 and c["value"] != "other"]
        # the pooled cells belong to all centres: each takes its share
        mine = total(own) / max(total([cell for cell in known if cell["center"] > 0]), 1)
        counts = [c["count"] for c in own] + [c["count"] * max(mine, 0.05) for c in pooled]
        band = _pick([cell["value"] for cell in own + pooled], counts, rng)
    ages = marginals.years(band)
    return int(rng.integers(ages.start, ages.stop))


def _normal(site: str, center: int, rng: np.random.Generator) -> dict:
    """Somebody without a lesion, as old and of the sex of a tumour patient of the site."""
    peer = _draw(_peers(site, center), rng)
    return _person(peer | {"site": site, "center": center}, rng) | {"entity": ""}


@cache
def _peers(site: str, center: int) -> list[dict]:
    """Tumour cells of a site and centre, else of the site, else of neighbouring sites."""
    every = cells("lesion")
    near = rows("healthy_sites.csv", text=True, site=site)[0]["neighbours"].split(";")
    for peers in (
        [c for c in every if site in c["site"].split(";") and c["center"] == center],
        [c for c in every if site in c["site"].split(";")],
        [c for c in every if set(near) & set(c["site"].split(";")) and c["center"] == center],
    ):
        # a handful of rows would give every normal of the site the same age
        if total(peers) >= 12:
            break
    return peers


def _distractor(kind: str, rng: np.random.Generator) -> str:
    return DISTRACTORS[rng.choice(len(DISTRACTORS), p=_DISTRACTED[kind])]


def _views(
    head: dict, patient: str, count: int, key: tuple[int, ...], rng: np.random.Generator
) -> list[Case]:
    weights = np.array(_view_shares(head["sites"][0], not head["entity"]))
    side = str(rng.choice(SIDES))
    distractor = _distractor("tumor" if head["entity"] else "normal", rng)
    lesion = rng.standard_normal()
    cases = []
    # a single or first picture is frontal more often than the later ones, which are other views
    left = weights * np.array([1.45, 0.9, 0.75])
    for number in range(count):
        view = VIEWS[rng.choice(3, p=left / left.sum())]
        left = weights * np.where(np.array(VIEWS) == view, 0.35, 1.0)
        # views of one lesion agree closely
        score = 0.95 * lesion + np.sqrt(1 - 0.95**2) * rng.standard_normal()
        area = area_quantile(score, head["framed_as"], head["center"])
        facts = {"side": side, "view": view, "area": area, "distractor": distractor, **head}
        keys = {"patient_key": key, "image_key": (*key, 7, number)}
        cases.append(Case(patient=patient, study=f"{patient}-1", **keys, **facts))
    return cases


@cache
def _view_shares(site: str, normal: bool) -> tuple[float, ...]:
    """Frontal, lateral, oblique of a site; normals are shifted to their published totals."""
    weights = _tumor_views(site)
    if normal:
        images = np.array(list(healthy().values()), float)
        usual = sum(n * _tumor_views(s) for n, s in zip(images, healthy(), strict=True))
        goal = np.array(list(NORMAL_VIEWS.values()), float)
        weights = weights * (goal / goal.sum()) / (usual / images.sum())
    return tuple(weights / weights.sum())


@cache
def _tumor_views(site: str) -> np.ndarray:
    own = cells("view", site=site)
    if total(own) < 20:
        own = cells("view")
    weights = np.array([total([c for c in own if c["value"] == view]) + 0.5 for view in VIEWS])
    return weights / weights.sum()


def single(seed: int, index: int, *, stream: int = 2, **wanted: str | int | None) -> Case:
    """One free-standing case; facts not given in ``wanted`` are drawn in BTXRD's proportions."""
    rng = np.random.default_rng([seed, 12, stream, index])
    entity, site = wanted.pop("entity", None), wanted.pop("site", None)
    if entity is None:
        label = str(rng.choice(list(CLASSES), p=[n / 3746 for n in CLASSES.values()]))
    else:
        label = marginals.label(entity)
    if label == "normal":
        head = _heads(label, 1, rng)[0] if site is None else _normal(str(site), 1, rng)
    else:
        options = [cell for cell in _lesions(label) if entity in (None, cell["entity"])]
        own = [cell for cell in options if site is None or cell["site"] == site] or options
        head = _person(_draw(own, rng), rng)
        if site is not None:
            head["sites"] = (str(site),)
    case = _views(head, f"P{index:06d}", 1, (seed, stream, index), rng)[0]
    return replace(case, **{name: fact for name, fact in wanted.items() if fact is not None})


def archive_case(seed: int, index: int) -> Case:
    """One study of the unlabelled archive: mostly normal, trauma and wear, few tumours."""
    rng = np.random.default_rng([seed, 13, index])
    case = single(seed, index, stream=3, entity=None if rng.random() < 0.06 else "")
    if not case.entity:
        case = replace(case, distractor=_distractor("archive", rng))
    return replace(case, patient=f"A{index + 1:06d}", study=f"A{index + 1:06d}-1")
