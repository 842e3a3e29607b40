"""The arm: humerus, radius, ulna and their flesh, with the hand when it is in the picture.

Right arm hanging down with the palm forward: the middle of the elbow joint is the origin, y runs
down to the hand, the thumb points to -x, the palm to +z. Sizes are adult means (Gray's Anatomy,
41st ed.: humerus 320 mm, radius 245 mm); children are scaled and keep open growth plates.
"""

from __future__ import annotations

import numpy as np

from .blocks import Ellipsoid
from .growth import growth_plate, stature
from .hand import hand
from .rays import turn
from .scene import Bone, Flesh, bone_table
from .solids import Tube

FLIP = turn(180, "x")  # from the hand's frame (fingers up, back forward) to the hanging arm's
WRIST = np.array([1.0, 251.0, 0.0])  # mm in the arm's frame


def arm(
    age: float,
    sex: str,
    *,
    flexion: float,
    still: str,
    with_hand: bool,
    girth: float,
    curl: tuple[float, ...] = (0, 0, 0, 0, 0),
    rng: np.random.Generator,
) -> tuple[list[Bone], list[Flesh], float]:
    """Bones and flesh of a right arm, and its scale.

    ``flexion`` bends the elbow (degrees); ``still``, "upper" or "fore", stays upright.
    """
    k = stature(age) * (0.92 if sex == "F" else 1.0) * rng.uniform(0.95, 1.05)
    thin = 0.75 + 0.25 * k
    upper = [_humerus(age, k, thin, rng)]
    fore = [_ulna(age, k, thin, rng), _radius(age, k, thin, rng)]
    upper_flesh, fore_flesh = _flesh(k, girth)
    if with_hand:
        bones, flesh = hand(age, k, thin, rng, curl=curl)
        fore += [b.moved(FLIP, WRIST * k) for b in bones]
        fore_flesh += [Flesh(f.solid.moved(FLIP, WRIST * k), f.substance, f.inside) for f in flesh]
    # positive flexion brings the hand forward (+z)
    bend = turn(flexion if still == "upper" else -flexion, "x")
    zero = np.zeros(3)
    moving, resting = (fore, upper) if still == "upper" else (upper, fore)
    moving = [b.moved(bend, zero) for b in moving]
    pairs = (fore_flesh, upper_flesh) if still == "upper" else (upper_flesh, fore_flesh)
    flesh = [Flesh(f.solid.moved(bend, zero), f.substance, f.inside) for f in pairs[0]]
    return [*resting, *moving], [*pairs[1], *flesh], k


def _humerus(age: float, k: float, thin: float, rng: np.random.Generator) -> Bone:
    young = min(1.0, 0.55 + age / 22)
    body = Tube(
        bone_table(
            y=np.array([-318, -306, -290, -272, -240, -160, -90, -55, -32, -16, -1]) * k,
            x=np.array([2, 1, -1, -2, -2, 0, 0, 0, 1, 1, 1]) * k,
            z=np.array([0, 0, 0, 0, 0, 0, 1, 2, 3, 3, 3]) * k,
            a=np.array([15 * young, 20 * young, 20, 15, 12, 11, 11, 14, 22, 26, 22]) * k,
            b=np.array([15 * young, 19 * young, 18, 14, 12, 11, 10, 8.5, 7, 8, 8]) * k,
            wall=np.array([1, 1, 1.2, 2.2, 3.6, 4.4, 4.2, 3, 1.5, 1, 1]) * thin * k,
            spongy=[0.22, 0.22, 0.17, 0.1, 0.04, 0.03, 0.04, 0.09, 0.16, 0.2, 0.22],
        ),
        caps=(9 * k, 6 * k),
    )
    parts = [
        Ellipsoid(np.array([13.0, -302, -3]) * k, np.diag([23.0, 23, 22]) * k * young, 1.0, 0.2),
        Ellipsoid(np.array([12.0, -5, 3]) * k, np.diag([12.0, 10, 10.5]) * k * young, 1.0, 0.26),
        Ellipsoid(np.array([-11.0, -4, 5]) * k, np.diag([10.0, 10, 10]) * k * young, 1.0, 0.26),
        Ellipsoid(np.array([22.0, -21, 3]) * k, np.diag([9.5, 14, 5]) * k * young, 1.0, 0.2),
        Ellipsoid(np.array([-19.5, -18, 3]) * k, np.diag([8.0, 13, 5]) * k * young, 1.0, 0.2),
    ]
    cuts = growth_plate(body, 24 / 317, age, 17.5, rng)
    cuts += growth_plate(body, 1 - 13 / 317, age, 13, rng)
    zones = {
        "proximal end": (0.03, 0.06),
        "proximal": (0.10, 0.26),
        "diaphysis": (0.3, 0.72),
        "distal": (0.8, 0.9),
        "distal end": (0.94, 0.97),
    }
    return Bone("humerus", "humerus", [body, *parts], cuts, zones)


def _ulna(age: float, k: float, thin: float, rng: np.random.Generator) -> Bone:
    body = Tube(
        bone_table(
            y=np.array([-21, -12, 2, 16, 32, 70, 130, 195, 228, 242, 249]) * k,
            x=np.array([9, 10, 11, 12, 12, 11, 11, 14, 17, 18, 18]) * k,
            z=np.array([-15, -16, -13, -6, -4, -4, -4, -3, -2, -2, -2]) * k,
            a=np.array([9, 11, 10, 11, 8.5, 7.2, 6.6, 5.5, 5.6, 7.5, 7]) * k,
            b=np.array([7, 9, 8, 11, 10, 8, 7, 5.5, 5.6, 7, 6.5]) * k,
            wall=np.array([1.2, 1.6, 2, 1.8, 2.4, 3, 3, 2.4, 1.4, 0.8, 0.8]) * thin * k,
            spongy=[0.22, 0.2, 0.2, 0.18, 0.08, 0.04, 0.03, 0.05, 0.14, 0.22, 0.22],
        ),
        caps=(6 * k, 4 * k),
    )
    styloid = Ellipsoid(np.array([23.0, 250, -4]) * k, np.diag([2.6, 6, 2.6]) * k, 0.8, 0.2)
    crown = Ellipsoid(np.array([11.0, 13, 3]) * k, np.diag([8.0, 7, 5]) * k, 0.8, 0.2)  # coronoid
    cuts = growth_plate(body, 1 - 12 / 270, age, 16.5, rng)
    zones = {"proximal": (0.18, 0.28), "diaphysis": (0.3, 0.72), "distal": (0.8, 0.92)}
    return Bone("ulna", "ulna", [body, styloid, crown], cuts, zones)


def _radius(age: float, k: float, thin: float, rng: np.random.Generator) -> Bone:
    young = min(1.0, 0.6 + age / 25)
    body = Tube(
        bone_table(
            y=np.array([9, 14, 21, 36, 60, 120, 180, 212, 230, 242, 249]) * k,
            x=np.array([-12, -12, -11, -9, -11, -17, -14, -10, -9, -9, -9]) * k,
            z=np.array([5, 5, 5, 4, 3, 2, 0, -1, -1, -1, -1]) * k,
            a=np.array([10.5, 11, 7.5, 8, 7.2, 7.6, 8, 11, 14.5, 16.5 * young, 16.5 * young]) * k,
            b=np.array([10.5, 11, 7.5, 8, 7, 7, 7, 8.5, 10.5, 11 * young, 11 * young]) * k,
            wall=np.array([1, 1, 1.6, 2.4, 3, 3.2, 2.8, 1.8, 1, 0.9, 0.9]) * thin * k,
            spongy=[0.24, 0.22, 0.14, 0.08, 0.04, 0.03, 0.05, 0.13, 0.2, 0.24, 0.24],
        ),
        caps=(1.6 * k, 2.5 * k),
        plate=1.0,
    )
    styloid = Ellipsoid(np.array([-20.0, 249, -1]) * k, np.diag([5.0, 8, 7]) * k * young, 0.9, 0.22)
    cuts = growth_plate(body, 8 / 240, age, 15, rng)
    cuts += growth_plate(body, 1 - 11 / 240, age, 17, rng)
    zones = {
        "proximal": (0.08, 0.2),
        "diaphysis": (0.28, 0.72),
        "distal": (0.8, 0.92),
        "distal end": (0.96, 0.98),
    }
    return Bone("radius", "radius", [body, styloid], cuts, zones)


def _flesh(k: float, girth: float) -> tuple[list[Flesh], list[Flesh]]:
    fat = (4.5 + 4.0 * max(0.0, girth - 0.8)) * k
    grown = k * girth**0.4
    upper = dict(
        y=np.array([-368, -335, -285, -160, -60, 0, 25]) * k,
        x=np.array([12, 4, 0, 0, 0, 0, 0]) * k,
        z=np.array([0, 0, 0, 2, 2, 0, 0]) * k,
        a=np.array([40, 48, 49, 44, 41, 42, 38]) * grown,
        b=np.array([40, 50, 54, 50, 42, 38, 34]) * grown,
    )
    fore = dict(
        y=np.array([-30, 0, 40, 90, 160, 220, 268]) * k,
        x=np.array([0, 0, -1, -1, 0, 1, 1]) * k,
        z=np.array([0, 0, 2, 2, 1, 0, 0]) * k,
        a=np.array([38, 42, 44, 42, 33, 28, 24]) * grown,
        b=np.array([32, 36, 38, 36, 27, 20, 15]) * grown,
    )
    both = []
    for columns, caps in ((upper, (36 * k, 30 * k)), (fore, (30 * k, 18 * k))):
        skin = Tube(bone_table(**columns), caps=caps)
        inner = {**columns, "a": columns["a"] - fat, "b": columns["b"] - fat}
        both.append(
            [Flesh(skin, "fat", None), Flesh(Tube(bone_table(**inner), caps=caps), "muscle", "fat")]
        )
    return both[0], both[1]
