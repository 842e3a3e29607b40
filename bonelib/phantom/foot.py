"""The foot: tarsal bones, metatarsals, toes and their flesh.

Standing frame of a right foot: x medial, y down, z towards the toes; the middle of the ankle joint
is the origin. Sizes are adult means (Gray's Anatomy, 41st ed.) times a scale; ages at which bones
appear follow Scheuer and Black, Developmental Juvenile Osteology, 2000.
"""

from __future__ import annotations

import numpy as np

from .blocks import Ellipsoid
from .growth import growth_plate, ossified, strut
from .scene import Bone, Flesh
from .solids import Tube, bone_rows

# name: centre, half axes (mm), age at which it appears (years)
_TARSALS = {
    "navicular": ((9, 24, 44), (16.5, 12, 6.8), 3.0),
    "cuboid": ((-16, 36, 44), (11.5, 11, 15.5), 0.5),
    "medial cuneiform": ((18, 31, 61), (7.6, 13, 10.5), 2.0),
    "intermediate cuneiform": ((6, 26, 58), (6, 9, 8), 3.0),
    "lateral cuneiform": ((-5, 28, 57), (6.6, 10, 11), 1.0),
}
# ray: base x, y, z; head x, y, z; half widths of shaft, base and head
_METATARSALS = {
    1: ((20, 35, 73), (25, 50, 129), (6.3, 9.5, 10.0)),
    2: ((7, 28, 68), (10, 52, 141), (3.8, 6.5, 5.8)),
    3: ((-4, 30, 71), (-4, 53, 137), (3.6, 6.3, 5.5)),
    4: ((-14, 36, 66), (-17, 54, 130), (3.6, 6.3, 5.5)),
    5: ((-25, 43, 60), (-30, 55, 121), (4.2, 7.5, 5.5)),
}
_TOES = {1: (31, 23), 2: (27, 14, 10), 3: (24, 11, 9), 4: (22, 9, 9), 5: (20, 8, 8)}


def foot(age: float, k: float, thin: float, rng: np.random.Generator) -> list[Bone]:
    """Bones of a right foot in its standing frame."""
    bones = [_talus(age, k), _calcaneus(age, k, thin, rng)]
    for name, (centre, axes, appears) in _TARSALS.items():
        share = ossified(age, appears, 12)
        if share:
            body = Ellipsoid(np.array(centre) * k, np.diag(axes) * k * share, 1.0, 0.2, 1.5)
            bones.append(Bone(name, "foot", [body], zones={"body": (0.3, 0.7)}))
    for ray, (base, head, (shaft, wide, tip)) in _METATARSALS.items():
        start, end = np.array(base, float) * k, np.array(head, float) * k
        body = strut(start, end, (wide, shaft, tip), k, thin, side=(1.0, 0.0, 0.0))
        # the first metatarsal grows at its base, the others at the head
        cuts = growth_plate(body, 0.1 if ray == 1 else 0.86, age, 15.5, rng, k)
        bones.append(_short(f"metatarsal {ray}", body, cuts))
        bones += _toe(ray, end, end - start, age, k, thin, rng)
    for x in (19, 31):
        if age > 10:
            seed = Ellipsoid(np.array([x, 60, 127]) * k, np.diag([4.0, 3.5, 5.0]) * k, 0.8, 0.2)
            bones.append(Bone(f"sesamoid {x}", "foot", [seed]))
    return bones


def _short(name: str, body: Tube, cuts: list) -> Bone:
    zones = {"proximal": (0.15, 0.3), "diaphysis": (0.35, 0.65), "distal": (0.7, 0.82)}
    return Bone(name, "foot", [body], cuts, zones)


def _toe(
    ray: int,
    knuckle: np.ndarray,
    direction: np.ndarray,
    age: float,
    k: float,
    thin: float,
    rng: np.random.Generator,
) -> list[Bone]:
    forward = np.array([direction[0] * 0.4, 0.0, np.hypot(direction[1], direction[2])])
    if ray == 1:
        forward[0] = -rng.uniform(0.02, 0.25) * forward[2]  # hallux valgus of some degree
    forward /= np.linalg.norm(forward)
    bones, point = [], knuckle + forward * (12.5 if ray == 1 else 8.5) * k
    for number, length in enumerate(_TOES[ray], start=1):
        dip = np.array([0.0, 0.12 if ray == 1 else 0.25, 0.0])
        end = point + (forward + dip) * (length - 3.5) * k
        wide = (7.5 if ray == 1 else 4.6) * (0.94**number)
        shaft = wide * (0.62 if number < len(_TOES[ray]) else 0.5)
        body = strut(point, end, (wide, shaft, wide * 0.8), k, thin, side=(1.0, 0.0, 0.0))
        cuts = growth_plate(body, 0.12, age, 15, rng, k) if length > 12 else []
        bones.append(_short(f"toe {ray} phalanx {number}", body, cuts))
        point = end + (forward + dip) * 4.5 * k
    return bones


def _talus(age: float, k: float) -> Bone:
    share = ossified(age, -0.5, 12)
    dome = Ellipsoid(np.array([0, 14.0, 2]) * k, np.diag([17.0, 12.5, 22]) * k * share, 1.1, 0.2)
    head = Ellipsoid(np.array([6, 19.0, 26]) * k, np.diag([12.0, 11, 14]) * k * share, 1.0, 0.18)
    back = Ellipsoid(np.array([0, 20.0, -14]) * k, np.diag([11.0, 8, 11]) * k * share, 1.0, 0.18)
    return Bone("talus", "foot", [dome, head, back], zones={"body": (0.4, 0.6)})


def _calcaneus(age: float, k: float, thin: float, rng: np.random.Generator) -> Bone:
    share = ossified(age, -0.5, 12)
    centre = np.array([-5, 40, -4]) * k
    z = np.array([-48, -40, -26, -8, 10, 26, 36])
    points = np.column_stack([0 * z - 5, [44, 43, 42, 40, 39, 37, 36], z]) * k
    points = centre + (points - centre) * share
    rows = bone_rows(
        np.linspace(0, 1, len(z)),
        points,
        np.array([11, 13, 12, 13, 15, 12, 10]) * k * share,
        np.array([15, 19, 17.5, 15.5, 16, 12, 11]) * k * share,
        np.array([1.2, 1.4, 1.5, 1.4, 1.3, 1.2, 1.2]) * thin,
        [0.18, 0.18, 0.13, 0.1, 0.15, 0.18, 0.2],
    )
    body = Tube(rows, caps=(9 * k, 4 * k), boxy=1.2)
    facet = Ellipsoid(np.array([6, 30.0, 8]) * k, np.diag([10.0, 5, 14]) * k * share, 1.3, 0.28)
    cuts = growth_plate(body, 0.1, age, 14, rng, k) if age > 6 else []
    return Bone("calcaneus", "foot", [body, facet], cuts, {"body": (0.3, 0.6)})


def foot_flesh(k: float, girth: float) -> list[Flesh]:
    """Skin and deep tissue of the foot, from the heel to the ball, and the toes."""
    z = np.array([-64, -50, -20, 20, 70, 120, 150])
    points = np.column_stack([[-4, -4, -2, 0, 0, -1, -2], [46, 40, 32, 32, 40, 49, 54], z]) * k
    wide = np.array([20, 29, 33, 36, 41, 46, 42]) * k * girth**0.3
    tall = np.array([18, 28, 34, 36, 27, 19, 14]) * k * girth**0.3
    flesh = []
    for substance, less, inside in (("fat", 0.0, None), ("muscle", 5.0, "fat")):
        rows = bone_rows(np.linspace(0, 1, len(z)), points, wide - less, tall - less, 0.0, 0.0)
        flesh.append(Flesh(Tube(rows, caps=(22 * k, 14 * k)), substance, inside))
    for ray, (_, head, _) in _METATARSALS.items():
        length = sum(_TOES[ray]) + 12
        start = np.array(head, float) * k
        tip = start + np.array([-3.0 if ray == 1 else 0.0, 6.0, length]) * k
        width = (12.5 if ray == 1 else 8.5) * k
        steps = np.array([0, 0.3, 0.7, 1.0])
        points = start + np.outer(steps, tip - start)
        widths = width * np.array([1.1, 1.05, 0.95, 0.8])
        toe = Tube(bone_rows(steps, points, widths, widths, 0.0, 0.0), caps=(4, width))
        flesh.append(Flesh(toe, "fat", None))
        inner = Tube(
            bone_rows(steps, points, widths * 0.8, widths * 0.8, 0.0, 0.0), caps=(4, width)
        )
        flesh.append(Flesh(inner, "muscle", "fat"))
    return flesh
