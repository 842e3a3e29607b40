"""Take the radiograph of one case: build the scene, frame it, expose it, keep its truth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from bonelib.cohort import SIDES, VIEWS

from .distractors import DISTRACTORS, distract
from .film import Habit, detect, develop, finish, habit
from .lesions import ENTITIES, kinds, sizes, zones
from .marginals import SITES, area_share, centers
from .place import place
from .positioning import Pose, Target, build, framing, pose, targets
from .rays import Grid
from .render import attenuation
from .sampling import Case, single
from .scene import Scene
from .signs import Growth, outline_of, untouched


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
    wanted = {"site": site, "view": view, "side": side, "entity": entity, "kind": kind,
              "distractor": distractor, "sex": sex, "center": center}  # fmt: skip
    allowed = {"site": SITES, "view": VIEWS, "side": SIDES, "entity": ("", *ENTITIES),
               "kind": tuple(ENTITIES.get(entity or "", ())), "distractor": DISTRACTORS,
               "sex": ("F", "M"), "center": tuple(centers())}  # fmt: skip
    problems = check_size(size) + [
        f"Unknown {name} {value!r}. Choose one of {', '.join(map(repr, allowed[name]))}."
        for name, value in wanted.items()
        if value is not None and value not in allowed[name]
    ]
    if age is not None and not 1 <= age <= 88:
        problems.append(f"age is {age}; it must be 1 to 88 years.")
    if problems:
        raise ValueError(" ".join(problems))
    return take(single(seed, index, age=age, **wanted), size=size)


def check_size(size: int) -> list[str]:
    """Problems with an image size, as sentences."""
    return [] if 64 <= size <= 4096 else [f"size is {size}; it must be 64 to 4096 pixels."]


def take(case: Case, *, size: int) -> Radiograph:
    """Draw the radiograph of one case."""
    rng = np.random.default_rng(case.image_key)
    placed = pose(case.view, case.side, rng)
    study = np.random.default_rng([*case.patient_key, 31])
    practice = habit(case.center, study)
    scene, growths, target = cast(case, placed)
    usual = framing(scene.region)["aspect"]
    aspect = float(np.clip(np.exp(study.normal(np.log(usual), 0.17)), 0.7, 2.1))
    height = int(round(size * practice.share * min(1.0, aspect)))
    width = int(round(size * practice.share * min(1.0, 1 / aspect)))
    lesions = [growth for growth in growths if growth.entity]
    grid = _frame(case, scene, lesions or [target], (height, width), rng)
    mask = np.zeros((height, width), bool)
    shapes: list[Shape] = []
    for lesion in lesions:
        part = outline_of(lesion, scene.view, grid)
        mask |= part
        shapes += outlines(part, case.entity, parted=case.entity.startswith("synovial"))
    image = expose(scene, growths, grid, practice, side=case.side, keep=mask, rng=rng)
    signs, kind = (target.signs, target.kind) if case.entity else (untouched(), "none")
    return Radiograph(image, mask, shapes, case, signs, kind, practice.quality)


def expose(
    scene: Scene,
    growths: list[Growth],
    grid: Grid,
    practice: Habit,
    *,
    side: str,
    keep: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """The finished picture (H, W) uint8 of a scene; no border or marker covers ``keep`` (bool)."""
    total = attenuation(scene, growths, grid, rng)
    signal = detect(total, pitch=grid.pitch, exposure=practice.exposure, rng=rng)
    value = develop(signal, pitch=grid.pitch, exposure=practice.exposure)
    return finish(value, side=side, habit=practice, keep=keep, rng=rng)


def describe(case: Case) -> dict[str, str]:
    """The signs and the diagnosis (``kind``) of a case, without drawing it."""
    if not case.entity:
        return {**untouched(), "kind": "none"}
    placed = pose(case.view, case.side, np.random.default_rng(case.image_key))
    target = cast(case, placed)[2]
    return {**target.signs, "kind": target.kind}


def cast(case: Case, placed: Pose) -> tuple[Scene, list[Growth], Growth]:
    """The scene of a case with its lesions and distractor, and the lesion the picture is framed on.

    A normal is framed on a lesion that it has not, so that framing tells nothing.
    """
    rng = np.random.default_rng([*case.patient_key, 41])
    entity = case.framed_as
    names, odds = kinds(entity, case.age, case.sites[0])
    likely = names[rng.choice(len(names), p=odds)]  # drawn even where the kind is given
    kind = case.kind or likely
    spots = _spots(case, zones(entity, kind), rng)
    scene = build(spots[0], case.age, case.sex, placed, case.patient_key)
    growths = []
    for number, (bone, zone, _) in enumerate(spots):
        share = case.area if number == 0 else rng.random()
        # several lesions ask for a wider field, in which each takes a smaller share
        wide = 1.15 if len(spots) == 1 else 1.35
        wanted = np.sqrt(area_share(entity, share)) * scene.field * wide
        spot = place(scene.bone(bone), zone, rng)
        extent = float(np.clip(wanted * rng.uniform(0.85, 1.2), *sizes(entity)))
        extent = min(extent, 9 * spot.depth)
        growth = ENTITIES[entity][kind](spot, max(extent, 0.7 * spot.depth), rng)
        growth.entity, growth.kind = entity, kind
        growth.seed = int(rng.integers(2**31))
        growths.append(growth)
    target = growths[0]
    extra = np.random.default_rng([*case.patient_key, 43])
    others = distract(scene, case.distractor, *spots[0][:2], extra)
    return scene, [*(growths if case.entity else []), *others], target


def _spots(case: Case, zones: dict[str, float], rng: np.random.Generator) -> list[Target]:
    """The bone and zone of each lesion, or of what a normal picture is centred on."""
    options = targets()[case.sites]
    if len(case.sites) > 1:
        return options
    if not case.entity and case.sites[0].endswith("joint"):
        return [options[rng.integers(len(options))]]
    weights = np.array([zones.get(zone, 0.02) for _, zone, _ in options])
    several = case.framed_as == "multiple osteochondromas"
    count = int(rng.integers(1, 5)) if several else 1
    picks = rng.choice(len(options), count, p=weights / weights.sum())
    return [options[i] for i in picks]


def _box(target: Growth, scene: Scene) -> np.ndarray:
    """Corners (low, high) of the box that a lesion fills in the picture's plane (mm)."""
    solids = np.array([solid.bounds(scene.view) for solid in target.extent])
    low, high = solids[:, 0].min(0), solids[:, 1].max(0)
    probe = Grid(128, 128, float((high - low).max()) * 1.06 / 128, *(low + high) / 2)
    seen = outline_of(target, scene.view, probe)
    edges = []
    for axis, middle in ((0, probe.x), (1, probe.y)):
        found = np.flatnonzero(seen.any(axis))
        edges.append((found[[0, -1]] + np.array([-0.5, 0.5]) - 63.5) * probe.pitch + middle)
    return np.array(edges).T


def _frame(
    case: Case,
    scene: Scene,
    lesions: list[Growth],
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> Grid:
    """Choose magnification and centre, so that the lesion's box takes its share of the picture."""
    height, width = shape
    boxes = np.array([_box(lesion, scene) for lesion in lesions])  # (n, 2, 2)
    share = area_share(case.framed_as, case.area)
    pitch = np.sqrt(np.prod(boxes[0, 1] - boxes[0, 0]) / share / (height * width))
    usual, reach = scene.field / max(shape), framing(scene.region)
    pitch = np.clip(pitch, reach["least"] * usual, reach["most"] * usual)
    low, high = boxes[:, 0].min(0), boxes[:, 1].max(0)
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
        contours = [cv2.convexHull(np.concatenate(contours))]
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
