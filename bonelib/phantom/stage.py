"""Set up a patient for one view: which scene shows a bone, how it is posed, and how large it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arm import arm
from .growth import stature
from .leg import leg
from .rays import turn
from .scene import Bone, Flesh, Scene, projection
from .solids import Tube, bone_rows
from .trunk import HIP, pelvis, shoulder

_LONG = ("proximal", "diaphysis", "distal")
_RAYS = (1, 2, 3, 4, 5)
# site -> (bone, zone): where its lesions sit and what its normal pictures centre on
PLACES: dict[str, list[tuple[str, str]]] = {
    "hand": [(f"metacarpal {r}", z) for r in _RAYS for z in _LONG]
    + [(f"finger {r} phalanx {n}", z) for r in _RAYS for n in (1, 2) for z in _LONG],
    "ulna": [("ulna", z) for z in _LONG],
    "radius": [("radius", z) for z in (*_LONG, "distal end")],
    "humerus": [("humerus", z) for z in (*_LONG, "proximal end")],
    "foot": [(f"metatarsal {r}", z) for r in _RAYS for z in _LONG]
    + [(f"toe {r} phalanx 1", z) for r in _RAYS for z in _LONG]
    + [("calcaneus", "body")] * 12
    + [("talus", "body")] * 3,
    "tibia": [("tibia", z) for z in (*_LONG, "proximal end")],
    "fibula": [("fibula", z) for z in (*_LONG, "proximal end")],
    "femur": [("femur", z) for z in (*_LONG, "distal end")],
    "hip bone": [("hip bone", "body")],
    "ankle-joint": [("tibia", "distal joint"), ("talus", "body")],
    "knee-joint": [("tibia", "proximal end"), ("femur", "distal end")],
    "hip-joint": [("femur", "head")],
    "wrist-joint": [("radius", "distal end"), ("capitate", "body")],
    "elbow-joint": [("humerus", "distal end"), ("radius", "proximal")],
    "shoulder-joint": [("humerus", "proximal end"), ("scapula", "body")],
}
# several sites in one picture -> where their lesions sit; the first decides the scene
COMBINED: dict[tuple[str, ...], list[tuple[str, str]]] = {
    ("tibia", "fibula", "femur"): [
        ("tibia", "proximal"), ("fibula", "proximal"), ("femur", "distal"),
    ],
    ("tibia", "fibula"): [("tibia", "distal"), ("fibula", "distal")],
    ("tibia", "femur"): [("tibia", "proximal"), ("femur", "distal")],
    ("fibula", "femur"): [("fibula", "proximal"), ("femur", "distal")],
    ("femur", "hip bone"): [("femur", "proximal"), ("hip bone", "body")],
    ("foot", "tibia", "fibula"): [
        ("tibia", "distal"), ("calcaneus", "body"), ("fibula", "distal"),
    ],
    ("humerus", "shoulder-joint"): [("humerus", "proximal"), ("scapula", "body")],
    ("ulna", "radius"): [("ulna", "distal"), ("radius", "distal")],
    ("ulna", "radius", "humerus"): [
        ("ulna", "proximal"), ("radius", "proximal"), ("humerus", "distal"),
    ],
}  # fmt: skip


@dataclass
class Pose:
    """How the patient is placed for one picture."""

    view: str
    side: str
    turn: float  # degrees about the limb, error of positioning
    tilt: float  # degrees in the picture's plane
    bend: float  # standard normal: more or less flexion than usual


def pose(view: str, side: str, rng: np.random.Generator) -> Pose:
    """Positioning with its usual errors."""
    return Pose(view, side, *(float(v) for v in rng.normal(0, (5, 4, 1))))


def region(bone: str, zone: str, site: str) -> str:
    """The scene in which a bone's zone is shown."""
    if site in ("hand", "wrist-joint"):
        return "hand"
    if site == "foot":
        return "foot"
    if site in ("hip bone", "hip-joint") or (bone == "femur" and zone in ("proximal", "head")):
        return "pelvis"
    if site == "shoulder-joint" or (bone == "humerus" and not zone.startswith("distal")):
        return "shoulder"
    if bone in ("humerus", "radius", "ulna"):
        return "arm"
    return "leg"


def build(
    where: str, target: str, zone: str, age: int, sex: str, placed: Pose, key: tuple
) -> Scene:
    """The scene of a region, posed for a view; ``key`` fixes the anatomy, which all views share."""
    rng = np.random.default_rng([*key, 21])
    girth = float(np.exp(rng.normal(0, 0.18)))
    base, angle_view = np.eye(3), placed.view
    if where in ("leg", "foot"):
        bend = max(0.0, 25 + 12 * placed.bend) if placed.view == "lateral" else 3.0
        bones, flesh, k = leg(
            age,
            sex,
            flexion=bend,
            girth=girth,
            with_foot=True,
            # in a frontal ankle the toes point down, away from the beam
            droop=30.0 if where == "leg" and placed.view != "lateral" else 0.0,
            rng=rng,
        )
        field = 330.0
        if target == "femur" and zone == "diaphysis":  # the hip may come into the picture
            femur = next(b for b in bones if b.name == "femur")
            shift = femur.spot(0.5, "head")[0] - HIP * k
            trunk, body = pelvis(age, k, girth, sex, rng)
            bones += [b.moved(np.eye(3), shift) for b in trunk]
            flesh += _moved(body, np.eye(3), shift)
        if where == "foot":
            field = 255.0
            drop = ("femur", "patella", *(() if placed.view == "lateral" else ("tibia", "fibula")))
            bones = [b for b in bones if b.name not in drop]
            if placed.view != "lateral":
                flesh = flesh[4:]  # the leg itself points at the beholder
                # seen from above with the toes up: z to -y, y to -z
                base = np.array([[-1.0, 0, 0], [0, 0, -1], [0, -1, 0]])
    elif where in ("arm", "hand"):
        bones, flesh, k, base = _arm(where, target, zone, age, sex, girth, placed, rng)
        field = 240.0 if where == "hand" else 300.0
    elif where == "shoulder":
        bones, flesh, k = arm(
            age, sex, flexion=8, still="upper", with_hand=False, girth=girth, rng=rng
        )
        abduct = turn(float(np.clip(placed.bend * 8 + 10, 0, 35)), "z")
        spin = turn({"frontal": 0.0, "lateral": 80.0, "oblique": 40.0}[placed.view], "y")
        joint = np.array([13.0, -302, -3]) * k
        move = abduct @ spin
        bones = [b.moved(move, joint - move @ joint) for b in bones]
        flesh = _moved(flesh, move, joint - move @ joint)
        girdle, chest = shoulder(age, k, girth, rng)
        bones, flesh, field = [*bones, *girdle], [*flesh, *chest], 290.0
        angle_view = "frontal"  # the arm is turned, the body stays
    else:
        bones, flesh, k = _hips(age, sex, girth, placed, rng)
        field = 380.0
        angle_view = "frontal" if placed.view == "lateral" else placed.view
    # mineral is lost after 50, faster in women
    loss = max(0, age - 50) * (0.008 if sex == "F" else 0.004)
    density = float(np.clip(rng.normal(1, 0.06) - loss, 0.55, 1.15))
    for bone in bones:
        bone.density = density
    view = projection(angle_view, placed.side, jitter=(placed.turn, placed.tilt)) @ base
    return Scene(where, bones, flesh, view, field * stature(age) ** 0.75)


def _arm(
    where: str,
    target: str,
    zone: str,
    age: int,
    sex: str,
    girth: float,
    placed: Pose,
    rng: np.random.Generator,
) -> tuple[list[Bone], list[Flesh], float, np.ndarray]:
    curl = (0.0,) * 5
    if where == "hand" and placed.view != "frontal":
        # fingers are fanned so that they don't hide each other
        curl = (0.0, 8.0, 16.0, 24.0, 34.0) if placed.view == "lateral" else (0, 4, 8, 12, 16)
    flexed = 8.0 if placed.view != "lateral" else float(np.clip(80 + 15 * placed.bend, 30, 105))
    still = "upper" if target == "humerus" else "fore"
    bones, flesh, k = arm(
        age, sex, flexion=flexed, still=still, with_hand=True, girth=girth, curl=curl, rng=rng
    )
    base = np.eye(3)
    if where == "hand":
        bones = [b for b in bones if b.name != "humerus"]
        flesh = flesh if still == "upper" else [*flesh[:-2]]
        base = turn(180, "x")  # fingers up, back of the hand to the beholder
    return bones, flesh, k, base


def _hips(
    age: int, sex: str, girth: float, placed: Pose, rng: np.random.Generator
) -> tuple[list[Bone], list[Flesh], float]:
    legs, _, k = leg(age, sex, flexion=0.0, girth=girth, with_foot=False, rng=rng)
    femur = next(b for b in legs if b.name == "femur")
    head = np.asarray(femur.solids[4].centre)
    # a lateral hip is taken in the frog position: thigh turned outwards and abducted
    spin = turn(-70, "y") @ turn(0, "x") if placed.view == "lateral" else np.eye(3)
    abduct = turn(35 if placed.view == "lateral" else 2 + 2 * placed.bend, "z")
    move = abduct @ spin
    mine = [b.moved(move, HIP * k - move @ head) for b in legs]
    leg_flesh = _thigh(k, girth)
    flesh = _moved(leg_flesh, abduct, HIP * k)
    mirror = np.diag([-1.0, 1, 1])
    plain = turn(2, "z")
    others = [b.moved(plain, HIP * k - plain @ head).moved(mirror, np.zeros(3)) for b in legs]
    for bone in others:
        bone.name = f"other {bone.name}"
    flesh += _moved(_moved(leg_flesh, plain, HIP * k), mirror, np.zeros(3))
    bones, body = pelvis(age, k, girth, sex, rng)
    return [*bones, *mine, *others], [*body, *flesh], k


def _thigh(k: float, girth: float) -> list[Flesh]:
    """Flesh of a thigh that hangs from the hip joint (the origin)."""
    y = np.array([-55, 0, 60, 160, 300, 440, 560, 700])
    points = np.column_stack([[-8, -4, 0, 8, 16, 20, 20, 20], y, 0 * y]) * k
    flesh = []
    for substance, less, inside in (("fat", 0.0, None), ("muscle", 13.0 * girth, "fat")):
        wide = (np.array([78, 88, 92, 86, 74, 60, 60, 44]) * girth**0.5 - less) * k
        rows = bone_rows(np.linspace(0, 1, len(y)), points, wide, wide, 0.0, 0.0)
        flesh.append(Flesh(Tube(rows, caps=(75 * k, 0)), substance, inside))
    return flesh


def _moved(flesh: list[Flesh], rotation: np.ndarray, shift: np.ndarray) -> list[Flesh]:
    return [Flesh(f.solid.moved(rotation, shift), f.substance, f.inside) for f in flesh]
