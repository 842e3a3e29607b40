"""The trunk where limbs meet it: pelvis with both hips, and shoulder girdle with part of the chest.

Pelvis: midline at x = 0, hip joints at y = 0 and x = ∓88 mm. Shoulder: frame of the right arm
(``arm.py``), body towards +x. Outlines are read off standard frontal radiographs and rounded.
"""

from __future__ import annotations

import numpy as np

from .blocks import Ellipsoid, Slab
from .rays import turn
from .scene import Bone, Cut, Flesh
from .solids import Solid, Tube, bone_rows

HIP = np.array([-88.0, 0.0, 0.0])  # mm, centre of the right femoral head

_ILIUM = np.array(
    [
        (-131, -88), (-139, -118), (-127, -148), (-98, -168), (-66, -168), (-42, -150),
        (-34, -122), (-38, -95), (-52, -72), (-57, -48), (-60, -22), (-66, 6), (-82, 4),
        (-104, -22), (-117, -20), (-114, -42), (-121, -66),
    ],
    float,
)  # fmt: skip
_SACRUM = np.array(
    [(-52, -128), (0, -134), (52, -128), (46, -92), (30, -52), (13, -22), (0, -16),
     (-13, -22), (-30, -52), (-46, -92)],
    float,
)  # fmt: skip
_SCAPULA = np.array(
    [
        (46, -322), (62, -330), (100, -345), (126, -338), (130, -306), (122, -256), (103, -200),
        (92, -196), (80, -232), (62, -268), (47, -284), (43, -302),
    ],
    float,
)  # fmt: skip


def _rod(
    points: list[tuple[float, float, float]],
    a: list[float],
    b: list[float],
    k: float,
    *,
    wall: float = 1.6,
    spongy: float = 0.12,
    caps: tuple[float, float] = (5, 5),
    side: tuple[float, float, float] = (0.0, 1.0, 0.0),
) -> Tube:
    steps = np.linspace(0, 1, len(points))
    at = np.array(points, float) * k
    rows = bone_rows(steps, at, np.array(a) * k, np.array(b) * k, wall, spongy)
    return Tube(rows, caps=caps, side=side, samples=32)


def pelvis(
    age: float, k: float, girth: float, sex: str, rng: np.random.Generator
) -> tuple[list[Bone], list[Flesh]]:
    """Both hip bones, sacrum and two vertebrae, with the flesh of the hips; femurs come apart."""
    bones = []
    for name, mirror in (("hip bone", np.eye(3)), ("other hip bone", np.diag([-1.0, 1, 1]))):
        bone = _hip_bone(age, k, sex)
        solids = [s.moved(mirror, np.zeros(3)) for s in bone]
        cuts = []
        if age < 14:  # the triradiate cartilage
            where, to = mirror @ np.array([-76, 2, 0]) * k, mirror @ np.array([0.25, 1, 0])
            cuts = [Cut(where, to, 3.0, 0.6, 1.0, reach=22 * k)]
        bones.append(Bone(name, "hip bone", solids, cuts, {"body": (0.2, 0.8)}))
    holes = tuple(
        np.array([(x - 5, y), (x, y - 5), (x + 5, y), (x, y + 5)]) * k
        for y, spread in ((-108, 24), (-86, 20), (-64, 15))
        for x in (-spread, spread)
    )
    frame = turn(-25, "x")
    sacrum = Slab(_SACRUM * k, 30 * k, 26 * k, 0.6, 0.07, np.array([0, 0, -38.0]) * k, frame, holes)
    bones.append(Bone("sacrum", "hip bone", [sacrum]))
    for level in range(2):
        bones.append(_vertebra(np.array([0, -152.0 - 38 * level, -18]) * k, k))
    wide = girth**0.5
    y = np.array([-330, -220, -120, -20, 50, 100])
    points = np.column_stack([0 * y, y, 0 * y]) * k
    a = np.array([138, 146, 166, 178, 184, 184]) * k * wide
    b = np.array([98, 100, 104, 106, 100, 92]) * k * wide
    flesh = []
    for substance, less, inside in (("fat", 0.0, None), ("muscle", 16.0 * girth, "fat")):
        rows = bone_rows(np.linspace(0, 1, 6), points, a - less, b - less, 0.0, 0.0)
        flesh.append(Flesh(Tube(rows, caps=(0, 70 * k)), substance, inside))
    for _ in range(int(rng.integers(4, 10))):  # bowel gas
        spot = np.array([rng.uniform(-110, 110), rng.uniform(-230, -70), rng.uniform(10, 60)]) * k
        size = rng.uniform(6, 20, 3) * k
        spin = turn(rng.uniform(0, 180), "z")
        flesh.append(Flesh(Ellipsoid(spot, spin @ np.diag(size)), "air", "muscle"))
    return bones, flesh


def _hip_bone(age: float, k: float, sex: str) -> list[Solid]:
    flare = turn(18, "y")  # the wing faces forward and inward
    middle = np.array([-88.0, -60, -10])
    wing = Slab(
        (_ILIUM - middle[:2]) * k * np.array([1.06, 1]),
        17 * k, 20 * k, 1.5, 0.15, middle * k, flare,
    )  # fmt: skip
    grow = 12.0 if sex == "F" else 0.0  # wider pubic angle
    tubes = [  # points, half widths across and in depth, wall; each ends inside its neighbour
        (  # the inlet of the pelvis, from the sacrum down to the socket
            [(-45, -122, -36), (-52, -92, -26), (-58, -62, -16), (-64, -32, -8), (-69, -2, 0)],
            [5, 10, 13, 16, 18], [4, 8, 12, 15, 17], 1.0,
        ),
        (  # upper ramus
            [(-76, -4, 2), (-56, 7, 18), (-38, 15, 30), (-24, 22, 37), (-13, 29, 41)],
            [16, 11, 9, 10, 12], [16, 11, 9, 9, 8], 1.1,
        ),
        (  # ischium
            [(-84, -4, -12), (-78, 20, -20), (-70 - grow / 4, 46, -24), (-62 - grow / 2, 72, -20)],
            [18, 16, 15, 14], [16, 15, 15, 13], 1.2,
        ),
        (  # lower ramus
            [(-62 - grow / 2, 72, -20), (-44 - grow / 2, 68, 0), (-27 - grow / 4, 56, 20),
             (-14, 48, 36)],
            [13, 9, 8, 10], [12, 8, 7, 8], 1.2,
        ),
    ]  # fmt: skip
    parts = [_rod(p, a, b, k, wall=w, spongy=0.11, caps=(12, 10)) for p, a, b, w in tubes]
    parts += [
        # the stout bone above the socket
        Ellipsoid(np.array([-87.0, -60, -4]) * k, np.diag([24.0, 33, 15]) * k, 0.3, 0.1),
        # back wall of the socket, behind the femoral head, and the body of the pubis
        Ellipsoid(np.array([-85.0, -5, -17]) * k, np.diag([33.0, 34, 13]) * k, 0.9, 0.08),
        Ellipsoid(np.array([-13.5, 39, 41]) * k, turn(-14, "z") @ np.diag([11.0, 21, 8]) * k),
    ]
    angles = np.radians(np.linspace(-165, -35, 9))
    roof = [(-88 + 28.5 * np.cos(t), 28.5 * np.sin(t), 2.0) for t in angles]
    thick = [1.0, 1.3, 1.6, 1.8, 1.9, 1.8, 1.6, 1.3, 1.0]  # the dense plate that bears the head
    for half in (slice(0, 5), slice(4, 9)):
        parts.append(
            _rod(
                roof[half], thick[half], [11] * 5, k,
                wall=2.0, spongy=0.3, caps=(1, 1), side=(1.0, 0.0, 0.0),
            )
        )  # fmt: skip
    return [wing, *parts]


def _vertebra(centre: np.ndarray, k: float) -> Bone:
    waist = [(-25, -16), (0, -14), (25, -16), (22, 0), (25, 16), (0, 14), (-25, 16), (-22, 0)]
    body = Slab(np.array(waist, float) * k, 32 * k, 7 * k, 0.9, 0.11, centre)
    back = np.array([0, 4, -30.0]) * k
    parts = [Ellipsoid(centre + back, np.diag([4.0, 11, 10]) * k, 1.2, 0.14)]
    for x in (-1, 1):
        arm = centre + np.array([36.0 * x, 0, -18]) * k
        eye = centre + np.array([17.0 * x, -4, -20]) * k
        parts.append(Ellipsoid(arm, np.diag([13.0, 4.5, 4]) * k, 1.2, 0.14))
        parts.append(Ellipsoid(eye, np.diag([4.0, 6, 7]) * k, 1.6, 0.14))
    return Bone(f"vertebra {centre[1]:.0f}", "hip bone", [body, *parts])


def shoulder(
    age: float, k: float, girth: float, rng: np.random.Generator
) -> tuple[list[Bone], list[Flesh]]:
    """Scapula, clavicle, ribs and the side of the chest, beside a right humerus."""
    pivot = np.array([90.0, -270, -18])
    blade = Slab(
        (_SCAPULA - pivot[:2]) * k * np.array([1.1, 1]),
        5.5 * k, 6 * k, 1.1, 0.08, pivot * k, turn(-25, "y"),
    )  # fmt: skip
    cup = Ellipsoid(np.array([45.0, -302, -2]) * k, np.diag([6.0, 18, 13]) * k, 1.3, 0.2)
    border = _rod(
        [(48, -288, -4), (64, -262, -10), (82, -226, -16), (96, -198, -22)],
        [7, 5, 4, 3.5],
        [7, 5, 4, 4],
        k,
    )
    spine = _rod(
        [(124, -312, -30), (90, -322, -36), (52, -336, -28), (22, -342, -8), (10, -338, 2)],
        [3, 5, 7, 7, 6],
        [4, 6, 9, 11, 10],
        k,
        wall=1.3,
    )
    hook = _rod([(58, -326, 2), (50, -334, 16), (40, -322, 26)], [7, 6, 5], [7, 6, 5], k, wall=1.3)
    cuts = []
    if age < 14:
        cuts = [Cut(np.array([16.0, -342, -2]) * k, np.array([1.0, 0.1, 0]), 2.0, 0.6, 0.8, 14 * k)]
    scapula = Bone(
        "scapula", "shoulder-joint", [blade, cup, border, spine, hook], cuts, {"body": (0.3, 0.7)}
    )
    collar = _rod(
        [
            (24, -345, 4), (48, -354, 4), (84, -356, 16), (124, -346, 34), (160, -338, 44),
            (182, -334, 46),
        ],
        [6, 5.5, 6, 6.5, 7.5, 11], [6.5, 6, 6, 6.5, 8, 11], k, wall=1.9,
    )  # fmt: skip
    bones = [scapula, Bone("clavicle", "shoulder-joint", [collar], zones={"body": (0.2, 0.8)})]
    for number in range(7):
        y = -348 + 31 * number
        reach = 78 - 9 * min(number, 3) + 2 * number  # x of the outermost point
        back = [
            (196, y - 6, -70),
            (150, y - 6, -88),
            (reach + 18, y + 16, -70),
            (reach, y + 38, -30),
        ]
        front = [
            (reach, y + 38, -30),
            (reach + 8, y + 56, 20),
            (reach + 40, y + 72, 58),
            (reach + 74, y + 80, 74),
        ]
        rods = [
            _rod(p, [6.5] * 4, [3.2] * 4, k, wall=1.0, spongy=0.12, caps=(2, 2))
            for p in (back, front)
        ]
        bones.append(Bone(f"rib {number + 2}", "shoulder-joint", rods))
    return bones, _chest(k, girth)


def _chest(k: float, girth: float) -> list[Flesh]:
    wide = girth**0.4
    y = np.array([-520, -420, -375, -330, -200, -60, 60])
    x = np.array([206, 206, 200, 190, 196, 200, 206])
    a = np.array([55, 62, 110, 150, 138, 132, 130]) * wide
    b = np.array([55, 62, 80, 105, 112, 112, 110]) * wide
    flesh = []
    for substance, less, inside in (("fat", 0.0, None), ("muscle", 12.0 * girth, "fat")):
        rows = bone_rows(
            np.linspace(0, 1, 7),
            np.column_stack([x, y, 0 * y - 5]) * k,
            (a - less) * k,
            (b - less) * k,
            0.0,
            0.0,
        )
        flesh.append(Flesh(Tube(rows, caps=(0, 0)), substance, inside))
    for substance, size, inside in (("fat", 1.0, None), ("muscle", 0.86, "fat")):
        # deltoid, pectoral and shoulder-blade muscles close the gap between arm and chest
        axes = np.diag([66.0, 58, 52]) * k * size
        flesh.append(Flesh(Ellipsoid(np.array([42.0, -292, 0]) * k, axes), substance, inside))
    lung = Ellipsoid(np.array([140.0, -215, -8]) * k, np.diag([56.0, 150, 78]) * k, boxy=1.2)
    flesh.append(Flesh(lung, "lung", "muscle"))
    return flesh
