"""Bones and soft tissue of one body, built from the tables in ``anatomy/``.

Each table row is a section of a tube, an ellipsoid, or a point of a flat bone's outline, in
millimetres of an adult man; children are scaled by height for age and keep open growth plates until
the closing age of each site. Sizes are means of osteometric tables (Gray's Anatomy, 41st ed.);
bones appear at the ages of Gilsanz and Ratib, Hand Bone Age, 2005, and Scheuer and Black,
Developmental Juvenile Osteology, 2000; outlines are read off standard radiographs and rounded.

``rays.csv`` holds where each finger and toe starts and points to (hand: degrees from straight up,
negative to the thumb; foot: the way along the metatarsal), half the width of its flesh, and how far
the toe's reaches; ``digits.csv`` its bones from base to tip with their length, half widths, growth
plate, gap to the next bone and bend of that joint.

Each limb has its own frame and origin, right side, x towards the middle of the body, y down, unless
said otherwise:

- thigh, shank, kneecap: the knee's joint line is the origin;
- foot: standing, z towards the toes, from the middle of the ankle joint;
- upper arm, forearm, shoulder girdle: palm forward, thumb to -x, from the middle of the elbow;
- hand: laid flat and seen from its back, fingers up, from the middle of the wrist joint;
- hip, lower trunk: midline at x = 0, hip joints at y = 0 and x = ∓88 mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from .blocks import Ellipsoid, Slab
from .files import rows
from .rays import turn
from .scene import Bone, Cut, Flesh, Limb
from .solids import Tube, bone_rows

_DIGIT_ZONES = {"proximal": (0.15, 0.3), "diaphysis": (0.35, 0.65), "distal": (0.7, 0.82)}
# outline and cortex of a short bone along its length
_AT = np.array([0, 0.08, 0.22, 0.5, 0.72, 0.86, 0.95, 1.0])
_WALL = np.array([0.14, 0.14, 0.34, 0.5, 0.4, 0.18, 0.13, 0.13])
_SPONGY = [0.26, 0.24, 0.14, 0.05, 0.1, 0.2, 0.26, 0.26]
_SECTION = ("x", "y", "z", "a", "b", "wall", "spongy", "grows", "x_female")


@dataclass(frozen=True)
class Body:
    """What decides how large the bones and the flesh of one person are."""

    age: float
    sex: str
    girth: float  # scales the soft tissue; 1 is average
    scale: float  # of all lengths; 1 is an adult man

    @property
    def thin(self) -> float:
        """Thickness of the cortex: children have thinner ones, but not in proportion."""
        return 0.75 + 0.25 * self.scale


def stature(age: float) -> float:
    """Height for age as a share of adult height (WHO 2007 reference, both sexes, smoothed)."""
    ages = [0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    shares = [0.29, 0.44, 0.51, 0.60, 0.68, 0.75, 0.81, 0.87, 0.94, 0.985, 1.0]
    return float(np.interp(age, ages, shares))


def limb(name: str, body: Body, rng: np.random.Generator) -> Limb:
    """The bones of one limb that have appeared at this age, with the flesh around them."""
    named = rows("anatomy/bones.csv", limb=name)
    bones = [_bone(row, body, rng) for row in named if body.age >= row["from_age"]]
    covers = rows("anatomy/flesh.csv", limb=name)
    return Limb(bones, [layer for row in covers for layer in _cover(row, body)])


def growth_plate(
    solid: Tube, at: float, age: float, closes: float, rng: np.random.Generator
) -> list[Cut]:
    """An open plate before the closing age, a fine dense scar for three years after it."""
    if age >= closes + 3:
        return []
    point, tangent, _, (a, _, _) = solid.section(at)
    broad = min(1.0, a / 22)
    if age < closes:
        gap = (1.0 + 0.6 * broad + 1.6 * broad * min(1.0, (closes - age) / 8)) * rng.uniform(
            0.85, 1.15
        )
        wave = 0.3 + 1.0 * broad
        return [Cut(point, tangent, float(gap), wave=wave, plate=0.8 + 0.8 * broad)]
    return [Cut(point, tangent, 0.0, wave=1.0, plate=0.8)] if broad > 0.4 else []


def _bone(row: dict, body: Body, rng: np.random.Generator) -> Bone:
    name, k = row["bone"], body.scale
    # share of its final size, beyond the growth of the whole body, that has turned into bone
    grown = row["start"] + row["gain"] * (body.age - row["offset"]) / row["years"]
    share = float(np.clip(grown, row["least"], 1.0))
    solids = [make(part, table, body, share) for make, part, table in _parts(name)]
    cuts = []
    for plate in rows("anatomy/growth_plates.csv", bone=name):
        if body.age >= plate["from_age"]:
            # counted from the far end where negative
            at = plate["mm"] / plate["length"] + (plate["mm"] < 0)
            cuts += growth_plate(solids[0], at, body.age, plate["closes"], rng)
    for gap in rows("anatomy/cartilages.csv", bone=name):
        if body.age < gap["until"]:
            point, normal = _vector(gap, "x", "y", "z") * k, _vector(gap, "nx", "ny", "nz")
            rest = gap["gap"], gap["wave"], gap["plate"], gap["reach"] * k
            cuts.append(Cut(point, normal, *rest))
    zones = rows("anatomy/zones.csv", bone=name)
    ranges = {zone["zone"]: (zone["low"], zone["high"]) for zone in zones}
    heads = {zone["zone"]: zone["part"] for zone in zones if zone["part"]}
    return Bone(name, row["site"], solids, cuts, ranges, heads=heads)


@cache
def _parts(bone: str) -> list[tuple]:
    """How each part of a bone is made: its maker, its row, and its sections or outlines."""
    found = []
    for part in rows("anatomy/tubes.csv", bone=bone):
        sections = rows("anatomy/sections.csv", bone=bone, part=part["part"])
        found.append((_tube, part, np.array([_vector(row, *_SECTION) for row in sections])))
    for part in rows("anatomy/ellipsoids.csv", bone=bone):
        found.append((_ellipsoid, part, None))
    for part in rows("anatomy/slabs.csv", bone=bone):
        rings: dict[int, list] = {}
        for row in rows("anatomy/outlines.csv", bone=bone, part=part["part"]):
            rings.setdefault(row["ring"], []).append((row["x"], row["y"]))
        found.append((_slab, part, [np.array(ring, float) for ring in rings.values()]))
    return sorted(found, key=lambda part: part[1]["part"])


def _vector(row: dict, *columns: str) -> np.ndarray:
    return np.array([row[column] for column in columns], float)


def _tube(part: dict, table: np.ndarray, body: Body, share: float) -> Tube:
    k = body.scale
    x, y, z, a, b, wall, spongy, grows, shift = table.T
    points = np.column_stack([x + shift if body.sex == "F" else x, y, z]) * k
    size = np.where(grows > 0, share, 1.0)
    if not np.isnan(part["x"]):  # the whole tube is smaller, about its centre of growth
        centre = _vector(part, *"xyz") * k
        points = centre + (points - centre) * share
    at = (points[:, 1] - points[0, 1]) / (points[-1, 1] - points[0, 1])
    if part["even"]:
        at = np.linspace(0, 1, len(points))
    wall = wall * (body.thin if part["wall_thins"] else 1) * (k if part["wall_grows"] else 1)
    caps = part["first_cap"], part["last_cap"]
    return Tube(
        bone_rows(at, points, a * size * k, b * size * k, wall, spongy),
        caps=tuple(cap * (k if part["caps_grow"] else 1) for cap in caps),
        side=tuple(float(axis == part["side"]) for axis in "xyz"),
        plate=part["plate"],
        samples=part["samples"],
        boxy=part["boxy"],
    )


def _ellipsoid(part: dict, _: None, body: Body, share: float) -> Ellipsoid:
    axes = np.diag(_vector(part, *"abc"))
    if part["turn"]:  # in the plane of the picture
        axes = turn(part["turn"], "z") @ axes
    axes = axes * body.scale * (share if part["grows"] else 1)
    centre = _vector(part, *"xyz") * body.scale
    return Ellipsoid(centre, axes, part["wall"], part["spongy"], part["boxy"])


def _slab(part: dict, rings: list[np.ndarray], body: Body, share: float) -> Slab:
    k = body.scale
    outline, *holes = (ring * k * np.array([part["stretch"], 1]) for ring in rings)
    centre = _vector(part, *"xyz") * k
    return Slab(
        outline, part["thickness"] * k, part["rounding"] * k, part["wall"], part["spongy"],
        centre, turn(part["turn"], part["axis"]), tuple(holes),
    )  # fmt: skip


def _cover(row: dict, body: Body) -> list[Flesh]:
    """Skin with its fat around a limb, and the muscle within."""
    k, girth = body.scale, body.girth
    sections = rows("anatomy/flesh_sections.csv", limb=row["limb"])
    x, y, z, a, b = np.array([_vector(section, *"xyzab") for section in sections]).T
    points = np.column_stack([x, y, z]) * k
    at = (points[:, 1] - points[0, 1]) / (points[-1, 1] - points[0, 1])
    if row["even"]:
        at = np.linspace(0, 1, len(points))
    fat = row["fat"] + row["fat_by_excess"] * max(0.0, girth - 0.8) + row["fat_by_girth"] * girth
    fat *= k if row["fat_grows"] else 1
    grown = k * girth ** row["girth_power"]
    caps = row["first_cap"] * k, row["last_cap"] * k
    layers = []
    for substance, less, inside in (("fat", 0.0, None), ("muscle", fat, "fat")):
        widths = [np.maximum(w * grown - less, w * grown * row["least"]) for w in (a, b)]
        layers.append(
            Flesh(Tube(bone_rows(at, points, *widths, 0.0, 0.0), caps), substance, inside)
        )
    return layers


# fingers and toes: short bones in a row, each growing out of the one before ----------------------


def fingers(
    body: Body, rng: np.random.Generator, *, curl: tuple[float, ...], spread: float = 0.0
) -> Limb:
    """Metacarpals and phalanges of a right hand; ``curl`` bends each finger's joints (degrees)."""
    k, hand = body.scale, Limb([], [])
    fan = rng.normal(spread, 2.0)
    for row, curled in zip(rows("anatomy/rays.csv", limb="hand"), curl, strict=True):
        spin = turn(row["angle"] + fan * (row["ray"] - 3), "z")
        forward = spin @ np.array([0.0, -1.0, 0.0])
        across = spin @ np.array([1.0, 0.0, 0.0])
        if row["ray"] == 1:
            across = turn(55, "y") @ across  # the thumb lies on its side
            forward = forward + np.array([0, 0, -0.35])
            forward /= np.linalg.norm(forward)
        start = _vector(row, *"xyz") * k
        digits = rows("anatomy/digits.csv", limb="hand", ray=row["ray"])
        bones, joints = _chain(digits, start, forward, across, body, rng, curl=curled)
        hand.bones += bones
        last = joints[-1] - joints[-2]
        points = np.vstack([joints, joints[-1] + last / np.linalg.norm(last) * 4 * k])
        steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        wide = np.linspace(2.5, 1.55, len(points)) * row["width"] * k
        hand.flesh += _sleeve(steps / steps[-1], points, wide, 0.78, (0, 6 * k))
    return hand


def toes(body: Body, rng: np.random.Generator) -> Limb:
    """Metatarsals and phalanges of a right foot."""
    k, foot = body.scale, Limb([], [])
    across = np.array([1.0, 0.0, 0.0])
    for row in rows("anatomy/rays.csv", limb="foot"):
        big, width = row["ray"] == 1, row["width"] * k
        metatarsal, *phalanges = rows("anatomy/digits.csv", limb="foot", ray=row["ray"])
        start = _vector(row, *"xyz") * k
        along = _vector(row, "along_x", "along_y", "along_z")
        bones, (_, knuckle) = _chain([metatarsal], start, along, across, body, rng)
        forward = np.array([along[0] * 0.4, 0.0, np.hypot(along[1], along[2])])
        if big:
            forward[0] = -rng.uniform(0.02, 0.25) * forward[2]  # hallux valgus of some degree
        forward /= np.linalg.norm(forward)
        dip = np.array([0.0, 0.12 if big else 0.25, 0.0])
        start = knuckle + forward * width
        foot.bones += bones + _chain(phalanges, start, forward + dip, across, body, rng)[0]
        tip = np.array([-3.0 if big else 0.0, 6.0, row["reach"]]) * k
        steps = np.array([0, 0.3, 0.7, 1.0])
        wide = width * np.array([1.1, 1.05, 0.95, 0.8])
        foot.flesh += _sleeve(steps, knuckle + np.outer(steps, tip), wide, 0.8, (4, width))
    return foot


def _chain(
    digits: list[dict],
    point: np.ndarray,
    forward: np.ndarray,
    across: np.ndarray,
    body: Body,
    rng: np.random.Generator,
    *,
    curl: float = 0.0,
) -> tuple[list[Bone], list[np.ndarray]]:
    """The bones of a ray from its start on, and its start, its joints and its end."""
    bones, joints = [], [point]
    for row in digits:
        end = point + forward * row["length"] * body.scale
        bone = _strut(point, end, row, body, side=tuple(across))
        cuts = []
        if row["plate"] > 0:
            cuts = growth_plate(bone, row["plate"], body.age, row["closes"], rng)
        bones.append(Bone(row["bone"], row["limb"], [bone], cuts, _DIGIT_ZONES))
        joints.append(end)
        if row["bend"] > 0:  # towards the palm, about the axis of the joint
            down = np.cross(across, forward)
            down = down if down[2] < 0 else -down
            angle = np.radians(row["bend"] + curl)
            forward = np.cos(angle) * forward + np.sin(angle) * down
            forward /= np.linalg.norm(forward)
        point = end + forward * row["gap"] * body.scale
    return bones, joints


def _strut(
    start: np.ndarray, end: np.ndarray, row: dict, body: Body, *, side: tuple[float, ...]
) -> Tube:
    """A short tubular bone, wide at its base and its head; the shaft's cortex is the thickest."""
    base, shaft, head = (row[part] * body.scale for part in ("base", "shaft", "head"))
    flare = (base + 2.2 * shaft) / 3.2
    a = np.array([base * 0.92, base, flare, shaft, shaft * 1.1, head * 0.9, head, head * 0.9])
    points = start + np.outer(_AT, end - start)
    knots = bone_rows(_AT, points, a, a * 0.9, shaft * body.thin * _WALL, _SPONGY)
    caps = (0.25 * base, 0.75 * head)
    return Tube(knots, caps=caps, side=side, plate=0.7, samples=32)


def _sleeve(
    steps: np.ndarray,
    points: np.ndarray,
    wide: np.ndarray,
    muscle: float,
    caps: tuple[float, float],
) -> list[Flesh]:
    """Skin around a finger or toe, and its inner tissue of a share of that width."""
    return [
        Flesh(Tube(bone_rows(steps, points, wide * w, wide * w, 0.0, 0.0), caps), *filling)
        for w, filling in ((1.0, ("fat", None)), (muscle, ("muscle", "fat")))
    ]
