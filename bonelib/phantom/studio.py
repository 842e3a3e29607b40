"""Take the radiograph of one case: build the scene, frame it, expose it, keep its truth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .distractors import DISTRACTORS, distract
from .entities import ENTITIES, KIND_ZONES, SIZES, ZONES, kinds
from .film import finish, habit
from .marginals import area_share
from .physics import detect, develop
from .place import place
from .rays import Grid
from .render import attenuation
from .sampling import Case, single
from .scene import SIDES, VIEWS, Scene
from .signs import SIGNS, Growth, outline_of
from .stage import COMBINED, PLACES, Pose, build, pose, region

# smallest and largest field of view by region, as a share of the usual one
_REACH = {"leg": (0.3, 1.25), "pelvis": (0.4, 1.1), "shoulder": (0.4, 1.2)}


@dataclass
class Shape:
    """One outlined lesion: closed polygon and upright box in pixels (x, y)."""

    label: str
    polygon: np.ndarray  # (n, 2)
    box: tuple[float, ...]  # left, top, right, bottom


@dataclass
class Radiograph:
    """A synthetic radiograph and everything that is true of it."""

    image: np.ndarray  # (H, W) uint8
    mask: np.ndarray  # (H, W) bool, all False in a normal
    shapes: list[Shape]
    case: Case
    signs: dict[str, str]
    kind: str  # the diagnosis in words, "none" in a normal
    quality: int  # JPEG quality of its centre


def draw(
    seed: int,
    index: int,
    *,
    size: int = 512,
    site: str | None = None,
    view: str | None = None,
    side: str | None = None,
    entity: str | None = None,
    kind: str | None = None,
    distractor: str | None = None,
    age: int | None = None,
    sex: str | None = None,
    center: int | None = None,
) -> Radiograph:
    """Draw one free-standing synthetic radiograph; the same arguments give the same pixels.

    Args:
        size: Longer side in pixels (centres 2 and 3 keep smaller pictures).
        site: One of the 15 BTXRD sites; by default drawn like all facts left out.
        entity: A BTXRD subtype column, or "" for a normal.
        kind: A diagnosis of that entity, e.g. "enchondroma" of "other bt".
        age: Years.

    Raises:
        ValueError: An argument is impossible; all problems are listed.
    """
    problems = check_size(size)
    for name, value, allowed in (
        ("site", site, tuple(PLACES)),
        ("view", view, VIEWS),
        ("side", side, SIDES),
        ("entity", entity, ("", *ENTITIES)),
        ("kind", kind, tuple(ENTITIES.get(entity or "", {}))),
        ("distractor", distractor, DISTRACTORS),
        ("sex", sex, ("F", "M")),
        ("center", center, (1, 2, 3)),
    ):
        if value is not None and value not in allowed:
            problems.append(
                f"Unknown {name} {value!r}. Choose one of {', '.join(map(repr, allowed))}."
            )
    if age is not None and not 1 <= age <= 88:
        problems.append(f"age is {age}; it must be 1 to 88 years.")
    if problems:
        raise ValueError(" ".join(problems))
    case = single(
        seed, index, site=site, view=view, side=side, entity=entity, kind=kind,
        distractor=distractor, age=age, sex=sex, center=center,
    )  # fmt: skip
    return take(case, size=size)


def check_size(size: int) -> list[str]:
    """Problems with an image size, as sentences."""
    if not 64 <= size <= 4096:
        return [f"size is {size}; it must be 64 to 4096 pixels."]
    return []


def take(case: Case, *, size: int) -> Radiograph:
    """Draw the radiograph of one case."""
    rng = np.random.default_rng(case.image_key)
    placed = pose(case.view, case.side, rng)
    study = np.random.default_rng([*case.patient_key, 31])
    practice = habit(case.center, study)
    scene, growths, target = cast(case, placed)
    usual = {"pelvis": 0.95, "shoulder": 1.1, "hand": 1.25}.get(scene.region, 1.35)
    aspect = float(np.clip(np.exp(study.normal(np.log(usual), 0.17)), 0.7, 2.1))
    height = int(round(size * practice.share * min(1.0, aspect)))
    width = int(round(size * practice.share * min(1.0, 1 / aspect)))
    grid = _frame(case, scene, [g for g in growths if g.entity] or [target], height, width, rng)
    total = attenuation(scene, growths, grid, rng)
    signal = detect(total, pitch=grid.pitch, exposure=practice.exposure, rng=rng)
    value = develop(signal, pitch=grid.pitch, exposure=practice.exposure)

    mask = np.zeros((height, width), bool)
    shapes: list[Shape] = []
    for growth in growths:
        if growth.entity:
            part = outline_of(growth, scene.view, grid)
            mask |= part
            shapes += outlines(part, case.entity, parted=case.entity.startswith("synovial"))
    image = finish(value, side=case.side, habit=practice, keep=mask, rng=rng)
    signs, kind = _signs(case, growths)
    return Radiograph(image, mask, shapes, case, signs, kind, practice.quality)


def _signs(case: Case, growths: list[Growth]) -> tuple[dict[str, str], str]:
    if not case.entity:
        return {name: allowed[0] for name, allowed in SIGNS.items()}, "none"
    return growths[0].signs, growths[0].kind


def describe(case: Case) -> dict[str, str]:
    """The signs and the diagnosis (``kind``) of a case, without drawing it."""
    placed = pose(case.view, case.side, np.random.default_rng(case.image_key))
    signs, kind = _signs(case, cast(case, placed)[1])
    return {**signs, "kind": kind}


def cast(case: Case, placed: Pose) -> tuple[Scene, list[Growth], Growth]:
    """The scene of a case with its lesions and distractor, and the lesion the picture is framed on.

    A normal is framed on a lesion that it has not, so that framing tells nothing.
    """
    rng = np.random.default_rng([*case.patient_key, 41])
    entity = case.framed_as
    names, odds = kinds(entity, case.age, case.sites[0])
    likely = names[rng.choice(len(names), p=odds)]  # drawn even where the kind is given
    kind = case.kind or likely
    targets = _targets(case, KIND_ZONES.get(kind, ZONES[entity]), rng)
    bone, zone = targets[0]
    scene = build(
        region(bone, zone, case.sites[0] if len(case.sites) == 1 else ""),
        bone, zone, case.age, case.sex, placed, case.patient_key,
    )  # fmt: skip
    growths = []
    for number, (bone_name, zone_name) in enumerate(targets):
        share = case.area if number == 0 else rng.random()
        # several lesions ask for a wider field, in which each takes a smaller share
        wide = 1.15 if len(targets) == 1 else 1.35
        wanted = np.sqrt(area_share(entity, share)) * scene.field * wide
        low, high = SIZES[entity]
        spot = place(scene.bone(bone_name), zone_name, rng)
        extent = float(np.clip(wanted * rng.uniform(0.85, 1.2), low, high))
        extent = min(extent, 9 * spot.depth)
        growth = ENTITIES[entity][kind](spot, max(extent, 0.7 * spot.depth), case.age, rng)
        growth.seed = int(rng.integers(2**31))
        growths.append(growth)
    target = growths[0]
    extra = np.random.default_rng([*case.patient_key, 43])
    others = distract(scene, case.distractor, bone, zone, case.age, extra)
    return scene, [*(growths if case.entity else []), *others], target


def _targets(
    case: Case, zones: dict[str, float], rng: np.random.Generator
) -> list[tuple[str, str]]:
    if len(case.sites) > 1:
        return COMBINED[case.sites]
    options = PLACES[case.sites[0]]
    if not case.entity and case.sites[0].endswith("joint"):
        return [options[rng.integers(len(options))]]
    weights = np.array([zones.get(zone, 0.02) for _, zone in options])
    count = 1
    if case.framed_as == "multiple osteochondromas":
        count = int(rng.integers(1, 5))
    picks = rng.choice(len(options), count, p=weights / weights.sum())
    return [options[i] for i in picks]


def _frame(
    case: Case,
    scene: Scene,
    targets: list[Growth],
    height: int,
    width: int,
    rng: np.random.Generator,
) -> Grid:
    """Choose magnification and centre, so that the lesion's box takes its share of the picture."""
    boxes = []
    for target in targets:
        solids = np.array([solid.bounds(scene.view) for solid in target.extent])
        low, high = solids[:, 0].min(0), solids[:, 1].max(0)
        probe = Grid(128, 128, float((high - low).max()) * 1.06 / 128, *(low + high) / 2)
        seen = outline_of(target, scene.view, probe)
        edges = []
        for axis, middle in ((0, probe.x), (1, probe.y)):
            found = np.flatnonzero(seen.any(axis))
            edges.append((found[[0, -1]] + np.array([-0.5, 0.5]) - 63.5) * probe.pitch + middle)
        boxes.append(np.array(edges).T)
    box = boxes[0]
    share = area_share(case.framed_as, case.area)
    pitch = np.sqrt(np.prod(box[1] - box[0]) / share / (height * width))
    longer = max(height, width)
    least, most = _REACH.get(scene.region, (0.3, 1.5))
    pitch = np.clip(pitch, least * scene.field / longer, most * scene.field / longer)
    low, high = np.min([b[0] for b in boxes], 0), np.max([b[1] for b in boxes], 0)
    extent = high - low
    pitch = float(max(pitch, 1.12 * extent[1] / height, 1.12 * extent[0] / width))
    # the limb stays near the middle line; along the limb the lesion may sit anywhere
    full = np.array([width, height]) * pitch
    spare = 0.95 * (full - extent) / 2
    shift = np.clip(rng.normal(0, (0.08, 0.16)) * full, -spare, spare)
    x, y = (low + high) / 2 + shift
    return Grid(height, width, pitch, float(x), float(y))


def outlines(mask: np.ndarray, label: str, *, parted: bool = False) -> list[Shape]:
    """Polygon (5 points or more) and box of each connected part of a mask, in pixels.

    Scattered bodies (``parted``) are outlined together by their convex hull, as a reader does.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contours = sorted(contours, key=len, reverse=True)
    if parted and contours:
        hull = cv2.convexHull(np.concatenate(contours))
        contours = [hull]
    biggest = len(contours[0]) if contours else 0
    edge = np.array(mask.shape[::-1]) - 1
    shapes = []
    for number, contour in enumerate(contours):
        points = contour[:, 0, :].astype(float)
        if number and len(points) < max(4, 0.15 * biggest):
            continue  # a crumb that a reader would not outline
        low, high = points.min(0), points.max(0)
        if len(points) < 5:  # a lesion of a few pixels: its box, one pixel wider
            low, high = np.maximum(low - 1, 0), np.minimum(high + 1, edge)
            corners = [(0, 0), (1, 0), (1, 1), (0.5, 1), (0, 1)]
            points = low + np.array(corners) * (high - low)
        step = 1 if parted else max(1, len(points) // 40)
        polygon = points[::step]
        if len(polygon) < 5:
            polygon = points
        # the box runs along the outer edges of its pixels
        shapes.append(Shape(label, polygon, (*low, *(high + 1))))
    return shapes
