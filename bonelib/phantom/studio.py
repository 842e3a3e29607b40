"""Take the radiograph of one case: build the scene, frame it, expose it, keep its truth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .entities import ENTITIES, SIZES, ZONES, place
from .film import finish, habit
from .physics import detect, develop
from .render import attenuation
from .sampling import Case, single
from .scene import SIDES, VIEWS, Scene
from .signs import SIGNS, Growth, outline_of
from .solids import Grid
from .stage import PLACES, build, pose

# lesion box / image area in BTXRD: quantiles over its 2,324 rectangles
AREA_QUANTILES = (
    (0.0, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 1.0),
    (0.00025, 0.00073, 0.00124, 0.00343, 0.01347, 0.03905, 0.07951, 0.10902, 0.24),
)


@dataclass
class Shape:
    """One outlined lesion: closed polygon and upright box in pixels (x, y)."""

    label: str
    polygon: np.ndarray  # (n, 2)
    box: tuple[float, float, float, float]  # left, top, right, bottom


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
    age: int | None = None,
    sex: str | None = None,
    center: int | None = None,
) -> Radiograph:
    """Draw one free-standing synthetic radiograph; the same arguments give the same pixels.

    Args:
        size: Longer side in pixels (centres 2 and 3 keep smaller pictures).
        site: One of the 15 BTXRD sites; by default drawn like all facts left out.
        entity: A BTXRD subtype column, or "" for a normal.
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
        seed, index, site=site, view=view, side=side, entity=entity, age=age, sex=sex, center=center
    )
    return take(case, size=size)


def check_size(size: int) -> list[str]:
    """Problems with an image size, as sentences."""
    if not 64 <= size <= 4096:
        return [f"size is {size}; it must be 64 to 4096 pixels."]
    return []


def take(case: Case, *, size: int) -> Radiograph:
    """Draw the radiograph of one case."""
    rng = np.random.default_rng(case.image_key)
    study = np.random.default_rng([*case.patient_key, 31])
    practice = habit(case.center, study)
    placed = pose(case.view, case.side, rng)
    scene = build(case.sites[0], case.age, case.sex, placed, case.patient_key)
    growths, target = _lesions(case, scene)
    aspect = float(np.clip(np.exp(study.normal(np.log(1.3), 0.16)), 0.8, 2.0))
    height = int(round(size * practice.share * min(1.0, aspect)))
    width = int(round(size * practice.share * min(1.0, 1 / aspect)))
    grid = _frame(case, scene, target, height, width, rng)
    total = attenuation(scene, growths if case.entity else [], grid, rng)
    signal = detect(total, pitch=grid.pitch, exposure=practice.exposure, rng=rng)
    value = develop(signal, pitch=grid.pitch, exposure=practice.exposure)

    mask = np.zeros((height, width), bool)
    shapes: list[Shape] = []
    if case.entity:
        for growth in growths:
            part = outline_of(growth, scene.view, grid)
            mask |= part
            shapes += outlines(part, case.entity)
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
    scene = build(case.sites[0], case.age, case.sex, placed, case.patient_key)
    signs, kind = _signs(case, _lesions(case, scene)[0])
    return {**signs, "kind": kind}


def _lesions(case: Case, scene: Scene) -> tuple[list[Growth], Growth]:
    """The case's lesions; a normal gets one that is only used to frame its picture alike."""
    rng = np.random.default_rng([*case.patient_key, 41])
    entity = case.entity or "osteochondroma"
    kinds = ENTITIES[entity]
    kind = str(rng.choice(list(kinds)))
    options = PLACES[case.sites[0]]
    weights = np.array([ZONES[entity].get(zone, 0.02) for _, zone in options])
    bone, zone = options[rng.choice(len(options), p=weights / weights.sum())]
    share = np.interp(case.area, *AREA_QUANTILES)
    wanted = np.sqrt(share) * scene.field * 1.1
    low, high = SIZES[entity]
    extent = float(np.clip(wanted * rng.uniform(0.8, 1.25), low, high))
    spot = place(scene.bone(bone), zone, rng)
    growth = kinds[kind](spot, extent, case.age, rng)
    growth.seed = int(rng.integers(2**31))
    return [growth], growth


def _frame(
    case: Case, scene: Scene, target: Growth, height: int, width: int, rng: np.random.Generator
) -> Grid:
    """Choose magnification and centre, so that the lesion's box takes its share of the picture."""
    boxes = np.array([solid.bounds(scene.view) for solid in target.extent])
    low, high = boxes[:, 0].min(0), boxes[:, 1].max(0)
    span = float((high - low).max())
    probe = Grid(128, 128, span * 1.06 / 128, *(low + high) / 2)
    seen = outline_of(target, scene.view, probe)
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    box_w, box_h = (np.ptp(columns) + 1) * probe.pitch, (np.ptp(rows) + 1) * probe.pitch
    x = probe.x + (columns[[0, -1]].mean() - 63.5) * probe.pitch
    y = probe.y + (rows[[0, -1]].mean() - 63.5) * probe.pitch
    share = np.interp(case.area, *AREA_QUANTILES)
    pitch = np.sqrt(box_w * box_h / share / (height * width))
    longer = max(height, width)
    pitch = np.clip(pitch, 0.33 * scene.field / longer, 1.7 * scene.field / longer)
    pitch = max(pitch, 1.12 * box_h / height, 1.12 * box_w / width)
    # the limb stays near the middle line; along the limb the lesion may sit anywhere
    spare_x, spare_y = (width * pitch - box_w) / 2, (height * pitch - box_h) / 2
    dx = np.clip(rng.normal(0, 0.08) * width * pitch, -0.95 * spare_x, 0.95 * spare_x)
    dy = np.clip(rng.normal(0, 0.16) * height * pitch, -0.95 * spare_y, 0.95 * spare_y)
    return Grid(height, width, float(pitch), float(x + dx), float(y + dy))


def outlines(mask: np.ndarray, label: str) -> list[Shape]:
    """Polygon (5 points or more) and box of each connected part of a mask, in pixels."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contours = sorted(contours, key=len, reverse=True)
    biggest = len(contours[0]) if contours else 0
    shapes = []
    for contour in contours:
        points = contour[:, 0, :].astype(float)
        if len(points) < max(4, 0.15 * biggest):
            continue
        step = max(1, len(points) // 40)
        polygon = points[::step] if len(points[::step]) >= 5 else points
        while len(polygon) < 5:
            polygon = np.vstack([polygon, (polygon[-1] + polygon[0]) / 2])
        left, top = points.min(0)
        right, bottom = points.max(0)
        shapes.append(Shape(label, polygon, (left, top, right, bottom)))
    return shapes
