"""Broken and intact bones of hand, leg, hip and shoulder, in FracAtlas's kinds of pictures.

``anatomy/fractures.csv`` holds which stretch of which bone breaks. An intact picture is centred on
a place where a bone could have broken, and hardware is as frequent in it, so that neither framing
nor metal tells. Some fractures are lines, the others displaced: the far fragment is shifted at the
break, and still meets its joint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from bonelib.cohort import SIDES, VIEWS

from .acquisition import expose, outlines
from .distractors import distract
from .files import rows, save, save_table
from .film import Habit, habit
from .positioning import Target, build, framing, pose
from .rays import Grid, rotated
from .sampling import spread
from .scene import Bone, Cut, Scene
from .solids import Solid, Tube

FOLDERS = ("images/Non_fractured", "images/Fractured", "Annotations/COCO JSON")
PARTS = {"hand": 0.36, "leg": 0.33, "hip": 0.14, "shoulder": 0.17}  # as in FracAtlas, roughly
FRACTURED, HARDWARE, DISPLACED = 0.5, 0.1, 0.55  # shares of pictures; of fractures
_VIEWS = (0.55, 0.3, 0.15)  # shares of VIEWS
_FAR = 60.0  # mm, beyond any fragment's end
_BAND = 1.5  # mm on both sides of a fracture line that its outline covers


@dataclass(frozen=True)
class Break:
    """One picture: what FracAtlas tells of it, and what fixes anatomy and exposure."""

    part: str
    view: str
    fractured: bool
    hardware: bool
    center: int
    key: tuple[int, ...]


def plan(images: int, seed: int) -> list[Break]:
    """Half of the pictures show a fracture; part, view and hardware don't depend on that."""
    rng = np.random.default_rng([seed, 71])
    label = spread(np.array([1 - FRACTURED, FRACTURED]), images, rng) == 1
    columns = np.zeros((4, images), int)
    shares = (tuple(PARTS.values()), _VIEWS, (1 - HARDWARE, HARDWARE), (0.6, 0.25, 0.15))
    for column, weights in zip(columns, shares, strict=True):
        for value in (False, True):  # as often with a fracture as without
            column[label == value] = spread(np.array(weights), sum(label == value), rng)
    return [
        Break(list(PARTS)[p], VIEWS[v], bool(f), bool(h), int(c) + 1, (seed, 7, number))
        for number, (f, p, v, h, c) in enumerate(zip(label, *columns, strict=True))
    ]


class Framed(NamedTuple):
    """A picture before its exposure."""

    scene: Scene
    grid: Grid
    outline: np.ndarray  # (H, W) bool, of the fracture
    side: str
    practice: Habit


def paths(cases: list[Break]) -> list[list[str]]:
    """Where FracAtlas holds the pictures."""
    return [[f"{FOLDERS[c.fractured]}/IMG{number:07d}.jpg"] for number, c in enumerate(cases)]


def tables(folder: Path, cases: list[Break], pictures: list[list[str]], seen: list[tuple]) -> None:
    """Write ``dataset.csv`` and the outlines, in COCO's form."""
    table, images, notes = [], [], []
    pairs = zip(cases, pictures, seen, strict=True)
    for number, (case, (path,), ((height, width), shapes)) in enumerate(pairs, start=1):
        name = Path(path).name
        row = {"image_id": name} | {part: int(part == case.part) for part in PARTS}
        row |= {"mixed": 0, "hardware": int(case.hardware), "multiscan": 0}
        row |= {"fractured": int(case.fractured), "fracture_count": int(case.fractured)}
        table.append(row | {view: int(view == case.view) for view in VIEWS})
        images.append({"id": number, "width": width, "height": height, "file_name": name})
        for polygon, (left, top, right, bottom) in shapes:
            notes.append(
                {"id": len(notes), "iscrowd": 0, "image_id": number, "category_id": 0,
                 "segmentation": [polygon.ravel().tolist()],
                 "bbox": [left, top, right - left, bottom - top],
                 "area": float(cv2.contourArea(polygon.astype(np.float32)))}
            )  # fmt: skip
    told = {"info": {"description": "synthetic"}, "images": images, "annotations": notes}
    told |= {"categories": [{"id": 0, "name": "fractured"}]}
    save(folder / FOLDERS[2] / "COCO_fracture_masks.json", json.dumps(told).encode())
    save_table(folder / "dataset.csv", table)


def outlined(case: Break, size: int) -> tuple[tuple[int, int], list[tuple]]:
    """Height and width of the picture of a case; polygon and box of each part of its fracture."""
    mask = frame(case, size).outline
    return mask.shape, [(shape.polygon, shape.box) for shape in outlines(mask, "fractured")]


def take(case: Break, size: int) -> tuple[np.ndarray, int]:
    """The radiograph of a case, (H, W) uint8, and its JPEG quality."""
    seen = frame(case, size)
    keep = seen.outline
    if not case.fractured:  # no border and no marker covers the place, as if it were broken
        keep = np.zeros_like(keep)
        middle, reach = np.array([seen.grid.x, seen.grid.y]), 0.1 * seen.scene.field
        keep[seen.grid.window(middle - reach, middle + reach).slices()] = True
    rng = np.random.default_rng([*case.key, 8])
    shown = dict(side=seen.side, keep=keep, rng=rng)
    return expose(seen.scene, [], seen.grid, seen.practice, **shown), seen.practice.quality


def frame(case: Break, size: int, *, whole: bool = False) -> Framed:
    """What is exposed for a case; ``whole`` shows the same body before the fall."""
    rng = np.random.default_rng([*case.key, 1])
    practice = habit(case.center, rng)
    scene, lines, spot, side = cast(case, whole=whole)
    usual = framing(scene.region)
    aspect = float(np.clip(usual["aspect"] * np.exp(rng.normal(0, 0.15)), 0.8, 1.8))
    long = size * practice.share
    height, width = round(long * min(1, aspect)), round(long * min(1, 1 / aspect))
    pitch = scene.field * rng.uniform(0.4, 0.85) / max(height, width)
    x, y = (scene.view @ spot)[:2] + rng.uniform(-0.22, 0.22, 2) * (width, height) * pitch
    grid = Grid(height, width, float(pitch), float(x), float(y))
    return Framed(scene, grid, outline(scene, lines, grid), side, practice)


def cast(
    case: Break, *, whole: bool = False
) -> tuple[Scene, list[tuple[str, Cut]], np.ndarray, str]:
    """The scene of a case, its fracture lines by bone, the place it is framed on, and the side."""
    rng = np.random.default_rng([*case.key, 2])
    options = rows("anatomy/fractures.csv", part=case.part)
    weights = np.array([row["copies"] for row in options], float)
    row = options[rng.choice(len(options), p=weights / weights.sum())]
    side, sex, age = str(rng.choice(SIDES)), str(rng.choice(["F", "M"])), int(rng.integers(12, 85))
    placed = pose(case.view, side, rng)
    target = Target(row["bone"], row["zone"], row["region"])
    scene = build(target, age, sex, placed, case.key)
    extra, broken = (np.random.default_rng([*case.key, stream]) for stream in (3, 4))
    if case.hardware:
        distract(scene, "implant", row["bone"], row["zone"], extra)
    bone, at = scene.bone(row["bone"]), float(broken.uniform(row["low"], row["high"]))
    spot = bone.solids[row["solid"]].section(at)[0]
    if not case.fractured or whole:
        return scene, [], spot, side
    pieces, lines = _break(bone, row["solid"], at, scene.view, broken)
    # a fragment comes last: the random numbers of all other bones stay those of the whole body
    scene.bones = [*(pieces[0] if b is bone else b for b in scene.bones), *pieces[1:]]
    return scene, lines, spot, side


def _break(
    bone: Bone, number: int, at: float, view: np.ndarray, rng: np.random.Generator
) -> tuple[list[Bone], list[tuple[str, Cut]]]:
    """Break a bone square to the picture, transverse or oblique, in place or displaced."""
    body = bone.solids[number]
    point, along, _, (a, b, _) = body.section(at)
    across = np.cross(view[2], along)  # in the picture, square to the bone
    across /= np.linalg.norm(across)
    lean = float(rng.uniform(-0.9, 0.9))
    normal = (along + lean * across) / np.hypot(1, lean)
    gap, wave = float(rng.uniform(1.2, 2.8)), float(rng.uniform(0.8, 1.8))
    wide = max(a, b)
    displaced = rng.random() < DISPLACED
    aside = float(rng.choice([-1, 1]) * rng.uniform(0.25, 0.7) * wide)
    closer = float(rng.uniform(-0.15, 0.3) * wide)
    line = Cut(point, normal, gap, wave, 0.0, reach=3 * wide)
    if number or not displaced:
        return [replace(bone, cuts=[*bone.cuts, line])], [(bone.name, line)]
    shift = aside * across - closer * along
    length = float(np.linalg.norm(body.points[-1] - body.points[0]))
    spare = (abs(lean) * wide + 3) / length  # what the slanting break needs beyond the square one
    near = body.part(0.0, min(at + spare, 1.0), (body.caps[0], 0.0))
    far = body.part(max(at - spare, 0.0), 1.0, (0.0, body.caps[1]))
    knots = np.array(far.knots)
    left = np.clip((1 - knots[:, 0]) / (1 - at), 0, 1.2)  # of the shift, which ends at the joint
    knots[:, 1:4] += left[:, None] * shift
    far = replace(far, knots=knots)
    pieces, broken = [], f"{bone.name} fragment"
    for name, main, sign, end in ((bone.name, near, 1, point), (broken, far, -1, point + shift)):
        others = [s for s in bone.solids[1:] if (sign * (_middle(s) - point) @ along) < 0]
        cuts = [c for c in bone.cuts if (sign * (c.point - point) @ along) < 0]
        off = Cut(end + sign * _FAR * normal, normal, 2 * _FAR - gap / 2, wave, 0.0)
        pieces.append(replace(bone, name=name, solids=[main, *others], cuts=[*cuts, off]))
    return pieces, [(bone.name, line), (broken, replace(line, point=point + shift))]


def _middle(solid: Solid) -> np.ndarray:
    return solid.points.mean(0) if isinstance(solid, Tube) else np.asarray(solid.centre)


def outline(scene: Scene, lines: list[tuple[str, Cut]], grid: Grid) -> np.ndarray:
    """The pixels of the broken bone beside its fracture line (bool)."""
    mask = np.zeros((grid.height, grid.width), bool)
    for name, line in lines:
        shape = np.zeros_like(mask)
        for solid in scene.bone(name).solids:
            shadow = solid.shadow(scene.view, grid)
            if shadow is not None:
                shape[shadow.window.slices()] |= shadow.half > 0
        point, normal = scene.view @ line.point, scene.view @ line.normal
        x, y = grid.axes(grid.everything())
        off, side = rotated(x - point[0], y - point[1], normal[:2] / np.hypot(*normal[:2]))
        near = line.gap / 2 + max(_BAND, grid.pitch)
        mask |= shape & (np.abs(off) < near) & (np.abs(side) < line.reach)
    return mask
