"""Position a patient for one view: which scene shows a bone, how it is posed, how large it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from .blocks import Ellipsoid
from .files import rows
from .rays import turn
from .scene import Flesh, Limb, Scene, projection
from .skeleton import Body, fingers, limb, stature, toes
from .solids import Tube, bone_rows

# mm in the frames of ``skeleton.py``
ANKLE = np.array([4.0, 361.0, -2.0])
WRIST = np.array([1.0, 251.0, 0.0])
HIP = np.array([-88.0, 0.0, 0.0])
SHOULDER = np.array([13.0, -302, -3])
LATERAL = {"frontal": 0.0, "lateral": 80.0, "oblique": 40.0}  # degrees that an arm is turned
MIRROR = np.diag([-1.0, 1, 1])
BACK = turn(180, "x")  # a hand with its fingers up, seen from the back


@dataclass
class Pose:
    """How the patient is placed for one picture."""

    view: str
    side: str
    turn: float  # degrees about the limb, error of positioning
    tilt: float  # degrees in the picture's plane
    bend: float  # standard normal: more or less flexion than usual
    spread: float = 0.0  # degrees from finger to finger, beyond their usual ones


class Target(NamedTuple):
    """Where a lesion sits, and the scene in which that is shown."""

    bone: str
    zone: str
    region: str


@cache
def targets() -> dict[tuple[str, ...], list[Target]]:
    """For the sites of a picture: where their lesions sit.

    A normal picture of a single site is centred on one of them; the first of several sites decides
    the scene.
    """
    found: dict[tuple[str, ...], list[Target]] = {}
    for row in rows("anatomy/targets.csv"):
        spots = [Target(row["bone"], row["zone"], row["region"])] * row["copies"]
        found.setdefault(tuple(row["sites"].split(";")), []).extend(spots)
    return found


def pose(view: str, side: str, rng: np.random.Generator) -> Pose:
    """Positioning with its usual errors."""
    return Pose(view, side, *(float(v) for v in rng.normal(0, (5, 4, 1))))


def framing(region: str) -> dict[str, float]:
    """Usual field of view (mm), aspect of the picture, and least and most share of that field."""
    return rows("anatomy/regions.csv", region=region)[0]


def build(target: Target, age: int, sex: str, placed: Pose, key: tuple[int, ...]) -> Scene:
    """The scene of a target, posed for a view; ``key`` fixes the anatomy, which all views share."""
    where = target.region
    rng = np.random.default_rng([*key, 21])
    girth = float(np.exp(rng.normal(0, 0.18)))
    short = 0.92 if where in ("arm", "hand", "shoulder") else 0.94
    scale = stature(age) * (short if sex == "F" else 1.0) * rng.uniform(0.95, 1.05)
    body = Body(age, sex, girth, scale)
    base, view = np.eye(3), placed.view
    if where == "leg":
        shown = _leg(body, placed, rng, droop=0.0 if view == "lateral" else 30.0)
        if (target.bone, target.zone) == (
            "femur",
            "diaphysis",
        ):  # the hip may come into the picture
            hip = shown.bone("femur").spot(0.5, "head")[0]
            shown += _pelvis(body, rng).moved(np.eye(3), hip - HIP * scale)
    elif where == "foot":
        shown, base = _foot(body, placed, rng)
    elif where == "arm":
        shown = _arm(body, placed, rng, still="upper" if target.bone == "humerus" else "fore")
    elif where == "hand":
        shown, base = hand(body, placed, rng), BACK
    elif where == "shoulder":
        shown, view = _shoulder(body, placed, rng), "frontal"  # the arm is turned, the body stays
    else:
        shown = _hips(body, placed, rng)
        view = "frontal" if view == "lateral" else view
    mineralise(shown, age, sex, rng)
    seen = projection(view, placed.side, jitter=(placed.turn, placed.tilt)) @ base
    field = framing(where)["field"] * stature(age) ** 0.75
    return Scene(where, shown.bones, shown.flesh, seen, field)


def mineralise(shown: Limb, age: float, sex: str, rng: np.random.Generator) -> None:
    """Give the bones one density: mineral is lost after 50, faster in women."""
    loss = max(0, age - 50) * (0.008 if sex == "F" else 0.004)
    density = float(np.clip(rng.normal(1, 0.06) - loss, 0.55, 1.15))
    for bone in shown.bones:
        bone.density = density


def _leg(body: Body, placed: Pose, rng: np.random.Generator, *, droop: float) -> Limb:
    """The leg from hip to toes; in a frontal ankle the toes point down, away from the beam."""
    flexion = max(0.0, 25 + 12 * placed.bend) if placed.view == "lateral" else 3.0
    bend = turn(-flexion, "x")
    leg = limb("thigh", body, rng).moved(bend) + limb("shank", body, rng)
    leg += limb("kneecap", body, rng).moved(bend)
    foot = limb("foot", body, rng) + toes(body, rng) + limb("ball of the foot", body, rng)
    return leg + foot.moved(turn(droop, "x").T, ANKLE * body.scale)


def _foot(body: Body, placed: Pose, rng: np.random.Generator) -> tuple[Limb, np.ndarray]:
    """The foot, and how it is turned to the beholder."""
    leg = _leg(body, placed, rng, droop=0.0)
    if placed.view == "lateral":
        return _without(leg, "femur", "patella"), np.eye(3)
    # the leg itself points at the beholder: without the flesh of thigh and shank
    foot = _without(leg, "femur", "patella", "tibia", "fibula")
    # seen from above with the toes up: z to -y, y to -z
    return Limb(foot.bones, foot.flesh[4:]), np.array([[-1.0, 0, 0], [0, 0, -1], [0, -1, 0]])


def _arm(
    body: Body,
    placed: Pose,
    rng: np.random.Generator,
    *,
    still: str,
    curl: tuple[float, ...] = (0.0,) * 5,
) -> Limb:
    """The arm with its hand; "upper" or "fore" stays upright when the elbow is bent."""
    lateral = placed.view == "lateral"
    flexion = float(np.clip(80 + 15 * placed.bend, 30, 105)) if lateral else 8.0
    upper, fore = limb("upper arm", body, rng), limb("forearm", body, rng)
    palm = limb("hand", body, rng) + fingers(body, rng, curl=curl, spread=placed.spread)
    # from the hand's frame (fingers up, back forward) to the hanging arm's
    fore += palm.moved(turn(180, "x"), WRIST * body.scale)
    # positive flexion brings the hand forward (+z)
    if still == "upper":
        return upper + fore.moved(turn(flexion, "x"))
    return fore + upper.moved(turn(-flexion, "x"))


def hand(body: Body, placed: Pose, rng: np.random.Generator) -> Limb:
    """Hand and forearm; fingers are fanned so that they don't hide each other."""
    curl = {"frontal": 0.0, "oblique": 4.0, "lateral": 8.0}[placed.view] * np.arange(5)
    if placed.view == "lateral":
        curl[4] = 34.0
    arm = _without(_arm(body, placed, rng, still="fore", curl=tuple(curl)), "humerus")
    return Limb(arm.bones, arm.flesh[:-2])  # nor the flesh of the upper arm


def _shoulder(body: Body, placed: Pose, rng: np.random.Generator) -> Limb:
    """Upper arm and forearm beside scapula, clavicle, ribs and the side of the chest."""
    k = body.scale
    arm = limb("upper arm", body, rng) + limb("forearm", body, rng).moved(turn(8, "x"))
    abduct = turn(float(np.clip(placed.bend * 8 + 10, 0, 35)), "z")
    move = abduct @ turn(LATERAL[placed.view], "y")
    shown = arm.moved(move, SHOULDER * k - move @ (SHOULDER * k)) + limb(
        "shoulder girdle", body, rng
    )
    for substance, size, inside in (("fat", 1.0, None), ("muscle", 0.86, "fat")):
        # deltoid, pectoral and shoulder-blade muscles close the gap between arm and chest
        lump = Ellipsoid(np.array([42.0, -292, 0]) * k, np.diag([66.0, 58, 52]) * k * size)
        shown.flesh.append(Flesh(lump, substance, inside))
    lung = Ellipsoid(np.array([140.0, -215, -8]) * k, np.diag([56.0, 150, 78]) * k, boxy=1.2)
    shown.flesh.append(Flesh(lung, "lung", "muscle"))
    return shown


def _hips(body: Body, placed: Pose, rng: np.random.Generator) -> Limb:
    """The pelvis with both thighs; a lateral hip is taken in the frog position."""
    hip = HIP * body.scale
    parts = (limb(name, body, rng) for name in ("thigh", "shank", "kneecap"))
    legs = Limb([bone for part in parts for bone in part.bones], [])
    head = np.asarray(legs.bone("femur").solids[4].centre)
    thigh = limb("hanging thigh", body, rng)
    lateral = placed.view == "lateral"  # thigh turned outwards and abducted
    abduct = turn(35 if lateral else 2 + 2 * placed.bend, "z")
    move = abduct @ (turn(-70, "y") if lateral else np.eye(3))
    mine = legs.moved(move, hip - move @ head) + thigh.moved(abduct, hip)
    plain = turn(2, "z")
    other = legs.moved(MIRROR @ plain, MIRROR @ (hip - plain @ head))
    other += thigh.moved(MIRROR @ plain, MIRROR @ hip)
    return _pelvis(body, rng) + mine + _other(other)


def _pelvis(body: Body, rng: np.random.Generator) -> Limb:
    """Both hip bones, sacrum and two vertebrae, with the flesh of the hips."""
    k = body.scale
    hip = limb("hip", body, rng)
    hip.bones[0].solids += _socket(k)
    pelvis = hip + _other(hip.moved(MIRROR)) + limb("lower trunk", body, rng)
    for _ in range(int(rng.integers(4, 10))):  # bowel gas
        spot = np.array([rng.uniform(-110, 110), rng.uniform(-230, -70), rng.uniform(10, 60)]) * k
        size = rng.uniform(6, 20, 3) * k
        spin = turn(rng.uniform(0, 180), "z")
        pelvis.flesh.append(Flesh(Ellipsoid(spot, spin @ np.diag(size)), "air", "muscle"))
    return pelvis


def _socket(k: float) -> list[Tube]:
    """The dense plate that bears the femoral head, as an arc in two halves."""
    angles = np.radians(np.linspace(-165, -35, 9))
    roof = np.column_stack([-88 + 28.5 * np.cos(angles), 28.5 * np.sin(angles), 2.0 + 0 * angles])
    thick = np.array([1.0, 1.3, 1.6, 1.8, 1.9, 1.8, 1.6, 1.3, 1.0])
    halves = []
    for half in (slice(0, 5), slice(4, 9)):
        knots = bone_rows(np.linspace(0, 1, 5), roof[half] * k, thick[half] * k, 11 * k, 2.0, 0.3)
        halves.append(Tube(knots, caps=(1, 1), samples=32))
    return halves


def _other(part: Limb) -> Limb:
    """The limb under the names of the other side, where no lesion is looked for."""
    for bone in part.bones:
        bone.name = f"other {bone.name}"
    return part


def _without(whole: Limb, *names: str) -> Limb:
    return Limb([bone for bone in whole.bones if bone.name not in names], whole.flesh)
