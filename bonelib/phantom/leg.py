"""The leg from hip to ankle: femur, patella, tibia, fibula, muscle and fat.

The knee's joint line is the origin. Adult sizes are means of osteometric tables (Gray's Anatomy,
41st ed.; femur 440 mm, tibia 360 mm); children are scaled by height for age (WHO 2007 reference,
both sexes, smoothed) and keep open growth plates until the closing age of each site.
"""

from __future__ import annotations

import numpy as np

from .blocks import Ellipsoid
from .foot import foot, foot_flesh
from .growth import growth_plate, stature
from .rays import turn
from .scene import Bone, Cut, Flesh, bone_table
from .solids import Tube

ANKLE = np.array([4.0, 361.0, -2.0])  # mm in the leg's frame


def leg(
    age: float,
    sex: str,
    *,
    flexion: float,
    girth: float,
    with_foot: bool,
    droop: float = 0.0,
    rng: np.random.Generator,
) -> tuple[list[Bone], list[Flesh], float]:
    """Bones and flesh of a right leg, and its scale.

    The knee is bent by ``flexion`` degrees and the foot lowered by ``droop``; ``girth`` scales the
    soft tissue (1 is average).
    """
    k = stature(age) * (0.94 if sex == "F" else 1.0) * rng.uniform(0.95, 1.05)
    thin = 0.75 + 0.25 * k  # children have thinner cortices, but not in proportion
    bones = [_femur(age, k, thin, rng), *_shank(age, k, thin, rng)]
    patella = Ellipsoid(
        np.array([0, -31.0, 40.0]) * k,
        np.diag([21.0, 21.0, 9.5]) * k * min(1.0, max(0.3, (age - 2) / 8)),
        0.9,
        0.22,
        1.2,
    )
    if age >= 4:
        bones.append(Bone("patella", "knee-joint", [patella]))
    bend = turn(-flexion, "x")
    bones = [b.moved(bend, np.zeros(3)) if b.name in ("femur", "patella") else b for b in bones]
    flesh = _flesh(k, girth, bend)
    if with_foot:
        ankle = ANKLE * k
        point = turn(droop, "x").T  # plantar flexion about the ankle
        bones += [b.moved(point, ankle) for b in foot(age, k, thin, rng)]
        flesh += [
            Flesh(f.solid.moved(point, ankle), f.substance, f.inside) for f in foot_flesh(k, girth)
        ]
    return bones, flesh, k


def _femur(age: float, k: float, thin: float, rng: np.random.Generator) -> Bone:
    young = min(1.0, 0.55 + age / 22)
    body = Tube(
        bone_table(
            y=np.array([-425, -395, -360, -330, -200, -120, -85, -60, -40, -26, -14]) * k,
            x=np.array([-43, -42, -40, -36, -20, -11, -6, -3, -1, 0, 0]) * k,
            z=np.array([-4, -4, -2, 2, 9, 5, 2, 0, -1, -2, -2]) * k,
            a=np.array([15, 21, 19, 15, 13.5, 15.5, 20, 28, 35, 38 * young, 36 * young]) * k,
            b=np.array([15, 19, 17, 14.5, 14, 15.5, 18, 22, 25, 26 * young, 22 * young]) * k,
            wall=np.array([1, 1.8, 4, 6.5, 7, 5.5, 3.2, 1.5, 1.0, 0.9, 0.9]) * thin * k,
            spongy=[0.22, 0.22, 0.12, 0.04, 0.02, 0.03, 0.08, 0.15, 0.2, 0.24, 0.24],
        ),
        caps=(10 * k, 8 * k),
    )
    condyles = [
        Ellipsoid(
            np.array([x, -19.0, -7.0]) * k,
            np.diag([17.0, 18.0, 29.0]) * k * young,
            1.1,
            0.24,
            1.15,
        )
        for x in (-21.0, 21.0)
    ]
    neck = Tube(
        bone_table(
            y=np.array([-398, -415, -432]) * k,
            x=np.array([-38, -15, 4]) * k,
            z=np.array([-3, 2, 6]) * k,
            a=np.array([17, 15, 17]) * k,
            b=np.array([14, 12.5, 15]) * k,
            wall=np.array([2.5, 2.2, 1]) * thin * k,
            spongy=[0.18, 0.2, 0.24],
        ),
        caps=(8, 4),
        side=(0.0, 1.0, 0.0),
    )
    head = Ellipsoid(np.array([9.0, -438, 8]) * k, np.diag([24.0, 24, 24]) * k, 1.0, 0.27)
    trochanter = Ellipsoid(np.array([-27.0, -350, -9]) * k, np.diag([9.0, 16, 8]) * k, 1.0, 0.12)
    cuts = growth_plate(body, 1 - 26 / 411, age, 16.5, rng)
    zones = {
        "head": (0.4, 0.6),
        "proximal": (0.10, 0.24),
        "diaphysis": (0.28, 0.65),
        "distal": (0.76, 0.92),
        "distal end": (0.93, 0.98),
    }
    if age < 16:  # the plate below the femoral head
        at, axis = np.array([-3.0, -428, 4]) * k, np.array([0.68, -0.7, 0.2])
        cuts.append(Cut(at, axis, 2.2, 0.8, 1.0, reach=24 * k))
    solids = [body, *condyles, neck, head, trochanter]
    return Bone("femur", "femur", solids, cuts, zones, heads={"head": 4})


def _shank(age: float, k: float, thin: float, rng: np.random.Generator) -> list[Bone]:
    young = min(1.0, 0.6 + age / 25)
    body = Tube(
        bone_table(
            y=np.array([3, 10, 22, 42, 68, 110, 200, 280, 318, 342, 357]) * k,
            x=np.array([0, 0, 0, 1, 2, 3, 4, 5, 5, 5, 5]) * k,
            z=np.array([-3, -3, -2, 0, 2, 3, 2, 1, 0, 0, 0]) * k,
            a=np.array([35 * young, 37 * young, 35, 25, 18, 14, 12.5, 11.5, 14.5, 20, 21]) * k,
            b=np.array([22 * young, 24 * young, 24, 21, 18.5, 15.5, 13.5, 12, 13, 17, 17]) * k,
            wall=np.array([1.2, 1, 1, 2, 3.5, 5, 5.5, 4.5, 2, 1, 1]) * thin * k,
            spongy=[0.28, 0.26, 0.2, 0.13, 0.07, 0.03, 0.02, 0.04, 0.13, 0.22, 0.24],
        ),
        caps=(3.0 * k, 3.0 * k),
        plate=1.3,
    )
    spines = [
        Ellipsoid(np.array([x, 3.0, -2.0]) * k, np.diag([4.0, 7.0, 8.0]) * k, 1.0, 0.25)
        for x in (-5.5, 5.5)
    ]
    tuberosity = Ellipsoid(np.array([-3.0, 42, 17]) * k, np.diag([9.0, 17, 7]) * k, 1.3, 0.15)
    malleolus = Ellipsoid(np.array([20.0, 359, 2]) * k, np.diag([6.0, 13, 10]) * k, 1.0, 0.22)
    cuts = growth_plate(body, 17 / 354, age, 16.5, rng)
    cuts += growth_plate(body, 1 - 13 / 354, age, 16, rng)
    zones = {
        "proximal end": (0.02, 0.05),
        "proximal": (0.08, 0.22),
        "diaphysis": (0.28, 0.7),
        "distal": (0.82, 0.93),
        "distal joint": (0.985, 0.995),
    }
    tibia = Bone("tibia", "tibia", [body, *spines, tuberosity, malleolus], cuts, zones)
    thinner = Tube(
        bone_table(
            y=np.array([16, 24, 34, 50, 80, 180, 290, 330, 352, 372, 382]) * k,
            x=np.array([-38, -38, -37, -35, -33, -31, -27, -25, -24, -25, -25]) * k,
            z=np.array([-18, -18, -17, -15, -12, -8, -6, -6, -6, -6, -6]) * k,
            a=np.array([9, 12, 10, 7, 6.3, 6.3, 6.3, 7, 9.5, 10, 7]) * k,
            b=np.array([9, 12, 10, 7.5, 7, 7, 7, 7.5, 10, 10, 7]) * k,
            wall=np.array([1, 0.9, 1.2, 2.2, 3, 3.4, 3, 2, 1.1, 1, 1]) * thin * k,
            spongy=[0.2, 0.18, 0.12, 0.06, 0.03, 0.02, 0.03, 0.08, 0.18, 0.2, 0.2],
        ),
        caps=(5 * k, 9 * k),
    )
    cuts = growth_plate(thinner, 13 / 366, age, 16.5, rng)
    cuts += growth_plate(thinner, 1 - 24 / 366, age, 16, rng)
    zones = {
        "proximal end": (0.02, 0.035),
        "proximal": (0.06, 0.18),
        "diaphysis": (0.25, 0.72),
        "distal": (0.78, 0.88),
    }
    return [tibia, Bone("fibula", "fibula", [thinner], cuts, zones)]


def _flesh(k: float, girth: float, bend: np.ndarray) -> list[Flesh]:
    fat = 7.0 + 6.0 * max(0.0, girth - 0.8)

    def limb(y: list[float], x: list[float], z: list[float], a: list[float], b: list[float]):
        grown = k * np.sqrt(girth)
        rows = bone_table(
            y=np.array(y) * k,
            x=np.array(x) * k,
            z=np.array(z) * k,
            a=np.array(a) * grown,
            b=np.array(b) * grown,
        )
        inner = rows.copy()
        inner[:, 4:6] = np.maximum(inner[:, 4:6] - fat, inner[:, 4:6] * 0.6)
        return rows, inner

    thigh = limb(
        [-560, -420, -250, -120, -50, 0, 34],
        [-25, -25, -12, -5, 0, 0, 0],
        [-12, -10, -4, -2, 2, 0, -4],
        [96, 92, 78, 64, 57, 55, 54],
        [96, 92, 82, 66, 58, 55, 52],
    )
    calf = limb(
        [-44, 0, 40, 110, 180, 260, 330, 388],
        [0, 0, -2, -4, -5, -6, -4, -3],
        [0, -2, -10, -22, -20, -12, -8, -4],
        [52, 53, 53, 58, 54, 42, 34, 36],
        [52, 53, 53, 60, 55, 43, 36, 40],
    )
    parts = []
    for (outer, inner), pose, caps in (
        (thigh, bend, (0, 50 * k)),
        (calf, np.eye(3), (50 * k, 12 * k)),
    ):
        skin = Tube(outer, caps=caps).moved(pose, np.zeros(3))
        muscle = Tube(inner, caps=caps).moved(pose, np.zeros(3))
        parts += [Flesh(skin, "fat", None), Flesh(muscle, "muscle", "fat")]
    return parts
