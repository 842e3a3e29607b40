"""The hand: carpal bones, metacarpals, fingers and their flesh.

Frame of a right hand laid flat, seen from its back: fingers up (-y), thumb to -x, back towards the
beholder; the middle of the wrist joint is the origin. Sizes are adult means (Gray's Anatomy, 41st
ed.); carpal bones appear at the ages of Gilsanz and Ratib, Hand Bone Age, 2005.
"""

from __future__ import annotations

import numpy as np

from .blocks import Ellipsoid
from .growth import growth_plate, ossified, strut
from .rays import turn
from .scene import Bone, Flesh
from .solids import Tube, bone_rows

# name: centre, half axes (mm), turn in the plane (degrees), age at which it appears (years)
_CARPALS = {
    "scaphoid": ((-13.5, -12, 0), (6.2, 11.5, 7), 35, 5.0),
    "lunate": ((1, -9.5, 0), (7.8, 7.6, 8), 0, 4.0),
    "triquetrum": ((14, -15, 0), (6.6, 6.8, 6.5), 25, 2.5),
    "pisiform": ((16.5, -14, -10), (4.6, 5.6, 4), 0, 9.5),
    "trapezium": ((-21, -27, -3), (6.8, 6.8, 6.5), 25, 5.0),
    "trapezoid": ((-11, -30, 2), (4.6, 6.0, 6.5), -10, 5.5),
    "capitate": ((-1, -27, 1), (6.2, 11.5, 7.5), 0, 0.3),
    "hamate": ((11, -28.5, 0), (7.0, 9.3, 8), -20, 0.3),
}
# ray: base x, y; direction (degrees from straight up, negative to the thumb); metacarpal and
# phalanges
_RAYS = {
    1: ((-25, -33), -44, (46, 33, 24), 5.2),
    2: ((-12.5, -37), -7, (66, 41, 24, 18), 4.6),
    3: ((-2, -39), 0, (64, 45, 29, 19), 4.6),
    4: ((7.5, -38), 7, (57, 42, 27, 19), 4.1),
    5: ((15.5, -35), 15, (53, 34, 20, 17), 3.9),
}


def hand(
    age: float,
    k: float,
    thin: float,
    rng: np.random.Generator,
    *,
    curl: tuple[float, ...] = (0, 0, 0, 0, 0),
) -> tuple[list[Bone], list[Flesh]]:
    """Bones and flesh of a right hand; ``curl`` bends each finger's joints (degrees)."""
    bones, flesh = [], _palm(k)
    for name, (centre, axes, angle, appears) in _CARPALS.items():
        share = ossified(age, appears, 13)
        if share:
            spin = turn(angle, "z")
            body = Ellipsoid(np.array(centre) * k, spin @ np.diag(axes) * k * share, 0.9, 0.24, 1.6)
            bones.append(Bone(name, "hand", [body], zones={"body": (0.4, 0.6)}))
    fan = rng.normal(0, 2.0)
    for ray, ((x, y), angle, lengths, shaft) in _RAYS.items():
        spin = turn(angle + fan * (ray - 3), "z")
        forward = spin @ np.array([0.0, -1.0, 0.0])
        across = spin @ np.array([1.0, 0.0, 0.0])
        if ray == 1:
            across = turn(55, "y") @ across  # the thumb lies on its side
            forward = forward + np.array([0, 0, -0.35])
            forward /= np.linalg.norm(forward)
        point = np.array([x, y, -4.0 if ray == 1 else 0.0]) * k
        joints = [point]
        for number, length in enumerate(lengths):
            end = point + forward * (length - 2.5) * k
            wide, mid, tip = _widths(shaft, number, len(lengths))
            body = strut(point, end, (wide, mid, tip), k, thin, side=tuple(across))
            # metacarpals II to V grow at the head, all other short bones at the base
            at = 0.86 if number == 0 and ray > 1 else 0.11
            cuts = growth_plate(body, at, age, 16, rng, k)
            name = f"metacarpal {ray}" if number == 0 else f"finger {ray} phalanx {number}"
            zones = {"proximal": (0.15, 0.3), "diaphysis": (0.35, 0.65), "distal": (0.7, 0.82)}
            bones.append(Bone(name, "hand", [body], cuts, zones))
            joints.append(end)
            bend = curl[ray - 1] if number < len(lengths) - 1 else 0
            forward = _bent(forward, across, bend + (4 if number else 8))
            point = end + forward * (3.6 if number == 0 else 2.6) * k
        flesh += _finger(np.array(joints), shaft, k)
    return bones, flesh


def _bent(forward: np.ndarray, across: np.ndarray, degrees: float) -> np.ndarray:
    """Turn a finger's direction towards the palm about the axis of its joint."""
    down = np.cross(across, forward)
    down = down if down[2] < 0 else -down
    angle = np.radians(degrees)
    bent = np.cos(angle) * forward + np.sin(angle) * down
    return bent / np.linalg.norm(bent)


def _widths(shaft: float, number: int, bones: int) -> tuple[float, float, float]:
    if number == 0:
        return 1.75 * shaft, shaft, 1.7 * shaft
    if number == bones - 1:
        return 1.3 * shaft, 0.62 * shaft, 0.85 * shaft
    thinner = 0.92**number
    return 1.65 * shaft * thinner, 0.98 * shaft * thinner, 1.25 * shaft * thinner


def _palm(k: float) -> list[Flesh]:
    y = np.array([34, 8, -15, -45, -80, -108])
    points = np.column_stack([[0, 0, 0, -1, 0, 2], y, [0, 0, -1, -3, -2, -1]]) * k
    wide = np.array([23, 26, 30, 38, 41, 36]) * k
    deep = np.array([15, 17, 18, 17, 14, 10]) * k
    flesh = []
    for substance, less, inside in (("fat", 0.0, None), ("muscle", 3.0, "fat")):
        rows = bone_rows(np.linspace(0, 1, 6), points, wide - less, deep - less, 0.0, 0.0)
        flesh.append(Flesh(Tube(rows, caps=(26 * k, 16 * k)), substance, inside))
    return flesh


def _finger(joints: np.ndarray, shaft: float, k: float) -> list[Flesh]:
    tip = joints[-1] + (joints[-1] - joints[-2]) / np.linalg.norm(joints[-1] - joints[-2]) * 4 * k
    points = np.vstack([joints, tip])
    steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    steps /= steps[-1]
    wide = np.linspace(2.5, 1.55, len(points)) * shaft * k
    flesh = []
    for substance, share, inside in (("fat", 1.0, None), ("muscle", 0.78, "fat")):
        rows = bone_rows(steps, points, wide * share, wide * share, 0.0, 0.0)
        flesh.append(Flesh(Tube(rows, caps=(0, 6 * k)), substance, inside))
    return flesh
