"""Frontal knees by grade of osteoarthritis: joint space, osteophytes, sclerosis.

Grades after Kellgren and Lawrence 1957 (Ann Rheum Dis 16:494): 0 none; 1 doubtful narrowing,
possible lipping; 2 definite osteophytes, possible narrowing; 3 moderate osteophytes, definite
narrowing, some sclerosis; 4 large osteophytes, marked narrowing, severe sclerosis, deformity. A
second reader differs from the first by one grade in ``DIFFERS`` of the pictures.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from .acquisition import expose
from .blocks import Ellipsoid
from .film import habit
from .positioning import mineralise
from .rays import Grid, turn
from .sampling import spread
from .scene import Limb, Scene, projection
from .signs import Deposit, Growth, Lysis
from .skeleton import Body, limb

NAMES = ("Normal", "Doubtful", "Mild", "Moderate", "Severe")
FOLDERS = tuple(f"MedicalExpert-{r}/{g}{name}" for r in ("I", "II") for g, name in enumerate(NAMES))
DIFFERS = 0.15
ASPECT = 1.85  # width by height, as in Gornale and Patravali's pictures
# by grade: width of the narrowed joint space, of the other one, length of an osteophyte (mm), how
# many of four there are, bone laid down below the cartilage (share of compact bone)
SPACE = (5.0, 4.3, 3.4, 2.0, 0.3)
OTHER = (5.2, 5.2, 5.0, 4.8, 4.8)
SPUR = (0.0, 1.8, 3.6, 5.4, 8.0)
SPURS = (0, 2, 3, 4, 4)
SCLEROSIS = (0.0, 0.0, 0.04, 0.1, 0.2)
# mm at rest: x of the condyles, their joint space, x and y of the bones' margins
MEDIAL, LATERAL = (23.5, 4.0), (-22.5, 4.5)
BEAK = 0.65  # of a block's shape: below 1 it is pointed
MARGINS = {"frontal femur": (39.0, -15.0), "frontal tibia": (36.5, 6.5)}


@dataclass(frozen=True)
class Knee:
    """One picture: two readers' grades, the first being that of what is drawn."""

    grade: int
    second: int
    center: int
    key: tuple[int, ...]


def plan(images: int, seed: int) -> list[Knee]:
    """As many knees of each grade, in random order."""
    rng = np.random.default_rng([seed, 61])
    grades = spread(np.ones(5), images, rng)
    differ = spread(np.array([1 - DIFFERS, DIFFERS]), images, rng)
    steps = np.where(grades == 0, 1, np.where(grades == 4, -1, rng.choice([-1, 1], images)))
    centers = 1 + spread(np.array([0.7, 0.2, 0.1]), images, rng)
    cells = zip(grades.tolist(), (grades + differ * steps).tolist(), centers.tolist(), strict=True)
    return [Knee(*cell, (seed, 6, number)) for number, cell in enumerate(cells)]


def paths(cases: list[Knee]) -> list[list[str]]:
    """The same picture in the folders of both readers, numbered within each grade."""
    counts, found = Counter(), []
    for case in cases:
        places = [FOLDERS[case.grade], FOLDERS[5 + case.second]]
        counts.update(places)
        names = [f"{NAMES[grade]}G{grade}" for grade in (case.grade, case.second)]
        both = zip(places, names, strict=True)
        found.append([f"{place}/{name} ({counts[place]}).png" for place, name in both])
    return found


def tables(*_: object) -> None:
    """Both readers' grades stand in the names alone."""


def take(case: Knee, size: int) -> tuple[np.ndarray, int]:
    """The radiograph of a knee, cut close as in the real set, and its quality as a JPEG."""
    rng = np.random.default_rng([*case.key, 1])
    practice = replace(habit(case.center, rng), marker=False, border=0.0, collimated=False)
    light = replace(practice.exposure, tone=practice.exposure.tone + 0.1, gain=0.85)
    practice = replace(practice, exposure=light)
    scene, growths = cast(case)
    width = round(size * practice.share)
    height = round(width / ASPECT)
    pitch = scene.field / rng.uniform(0.42, 0.76) / width
    x, y = rng.uniform((-0.16, -0.18), (0.16, 0.08)) * (width, height) * pitch
    grid = Grid(height, width, float(pitch), float(x), float(y))
    shown = dict(side="left", keep=np.zeros((height, width), bool), rng=rng)
    return expose(scene, growths, grid, practice, **shown), practice.quality


def cast(case: Knee) -> tuple[Scene, list[Growth]]:
    """The knee of a case, standing, and what its grade adds to the bones."""
    rng = np.random.default_rng([*case.key, 2])
    age, sex, side = int(rng.integers(40, 80)), str(rng.choice(["F", "M"])), rng.choice(2)
    scale = (0.94 if sex == "F" else 1.0) * rng.uniform(0.95, 1.05)
    body = Body(99, sex, float(np.exp(rng.normal(0, 0.15))), scale)
    jitter = (float(rng.normal(0, 5)), float(rng.normal(0, 4)))
    thigh, shank, knee = (limb(name, body, rng) for name in ("thigh", "shank", "frontal knee"))
    inner = 1 if rng.random() < 0.75 else -1  # the compartment that is worn
    rock, down = _narrowed(case.grade, inner, rng)
    cap = limb("kneecap", body, rng).moved(np.eye(3), np.array([0.0, -11.0, 0.0]) * scale)
    upper = Limb([knee.bone("frontal femur")], []) + cap
    growths = [_wear(bone, case.grade, inner, scale, rng) for bone in MARGINS]
    shift = np.array([0.0, down * scale, 0.0])
    _move(growths[0], rock, shift)
    shown = upper.moved(rock, shift) + Limb([knee.bone("frontal tibia"), shank.bone("fibula")], [])
    mineralise(shown, age, sex, rng)
    view = projection("frontal", ("left", "right")[side], jitter=jitter)
    scene = Scene("leg", shown.bones, thigh.flesh + shank.flesh, view, 82 * scale)
    return scene, growths


def _narrowed(grade: int, inner: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """How the femur turns and sinks (mm, adult man) until both joint spaces are as wide as told."""
    worn, other = (max(0.1, table[grade] + rng.normal(0, 0.25)) for table in (SPACE, OTHER))
    wide = (worn, other)[::inner]  # medial, lateral
    sinks = [at[1] - space for at, space in zip((MEDIAL, LATERAL), wide, strict=True)]
    slope = (sinks[0] - sinks[1]) / (MEDIAL[0] - LATERAL[0])
    return turn(float(np.degrees(np.arctan(slope))), "z"), sinks[0] - slope * MEDIAL[0]


def _wear(bone: str, grade: int, inner: int, scale: float, rng: np.random.Generator) -> Growth:
    """Osteophytes at the margins and dense bone below the worn cartilage of one bone."""
    growth = Growth(bone, kind="osteoarthritis", seed=int(rng.integers(2**31)))
    (edge, level), up = MARGINS[bone], 1 if bone == "frontal tibia" else -1
    order = rng.permutation([0, 0, 1, 1])  # a doubtful knee has one at each bone
    for number, sign in enumerate((inner, -inner)):
        long = SPUR[grade] * float(np.exp(rng.normal(0, 0.12))) * (1.0 if sign == inner else 0.7)
        lean = turn(float(rng.uniform(5, 25)) * -sign * up, "z")
        there = SPURS[grade] > 2 * number + (order[number] if SPURS[grade] % 2 else 0)
        if there and long:
            spur = lean @ np.diag([long * 1.5, 1.5 + long * 0.55, 15.0])
            tip = np.array([sign * (edge - 0.5 * long), level, -3.0])
            growth.solids.append(Ellipsoid(tip * scale, spur * scale, 0.6, 0.2, BEAK))
    amount = SCLEROSIS[grade] * float(np.exp(rng.normal(0, 0.15)))
    at = MEDIAL[0] if inner > 0 else LATERAL[0]
    plate = np.array([at, 5.5 * up, -4.0])
    layer = np.diag([15.0, 2.5 + 0.4 * grade, 16.0])
    if amount:
        dense = Ellipsoid(plate * scale, layer * scale)
        growth.deposits.append(Deposit(dense, "fill", amount, 0.3))
    if grade == 4 and rng.random() < 0.4:
        cyst = np.array([at + rng.uniform(-6, 6), up * 10.0, 0.0])
        size = np.eye(3) * rng.uniform(2.0, 4.0)
        growth.lyses.append(Lysis(Ellipsoid(cyst * scale, size * scale), 0.8, 0.0))
    return growth


def _move(growth: Growth, rotation: np.ndarray, shift: np.ndarray) -> None:
    """Move the changes with their bone."""
    for change in (*growth.deposits, *growth.lyses):
        change.body = change.body.moved(rotation, shift)
    growth.solids = [solid.moved(rotation, shift) for solid in growth.solids]
