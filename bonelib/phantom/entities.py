"""What each bone tumour shows: from a diagnosis to the signs on one bone.

Which signs an entity shows, and how often, follows the standard descriptions (Greenspan and Remagen,
Differential Diagnosis of Tumors and Tumor-like Lesions of Bones and Joints; WHO Classification of
Tumours, Soft Tissue and Bone, 5th ed. 2020). Entities overlap on purpose: a geographic lesion with a
sclerotic rim may be any of four.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .scene import Bone
from .signs import Deposit, Growth, Lysis
from .solids import Ellipsoid, Tube, bone_rows


@dataclass
class Place:
    """Where a lesion sits on its bone, in the limb's frame (mm)."""

    bone: str
    zone: str
    at: float
    centre: np.ndarray  # middle of the bone's section
    along: np.ndarray  # unit, from the near joint towards the shaft
    out: np.ndarray  # unit, from the centre to the surface on the chosen side
    beside: np.ndarray  # unit, square to both
    depth: float  # centre to surface along ``out``
    width: float  # half width along ``beside``
    wall: float  # thickness of the cortex

    @property
    def surface(self) -> np.ndarray:
        return self.centre + self.depth * self.out


def place(bone: Bone, zone: str, rng: np.random.Generator) -> Place:
    """Pick a spot in a zone of a bone and a side of its surface."""
    low, high = bone.zones.get(zone, (0.35, 0.65))
    at = float(rng.uniform(low, high))
    centre, along, side, (a, b, wall) = bone.spot(at)
    if at > 0.5:
        along = -along
    other = np.cross(along, side)
    # two thirds of the spots face one of the two sides seen in a frontal view
    angle = rng.normal(0, 0.5) + (0 if rng.random() < 0.5 else np.pi)
    if rng.random() < 0.33:
        angle += np.pi / 2
    vector = a * np.cos(angle) * side + b * np.sin(angle) * other
    depth = float(np.linalg.norm(vector))
    out = vector / depth
    beside = np.cross(along, out)
    width = float(np.hypot(a * (beside @ side), b * (beside @ other)))
    return Place(bone.name, zone, at, centre, along, out, beside, depth, width, float(wall))


def _location(zone: str) -> str:
    if "end" in zone:
        return "epiphysis"
    return {"diaphysis": "diaphysis", "body": "body", "joint": "joint"}.get(zone, "metaphysis")


def _ball(
    spot: Place, centre: np.ndarray, long: float, deep: float, wide: float, wall: float = 0.0
) -> Ellipsoid:
    """An ellipsoid with half axes along the bone, outwards and sideways (mm)."""
    axes = np.column_stack([spot.along * long, spot.out * deep, spot.beside * wide])
    return Ellipsoid(centre, axes, wall, 0.0)


def _signs(zone: str, **signs: str) -> dict[str, str]:
    usual = {
        "destruction": "none",
        "margin": "none",
        "matrix": "none",
        "cortex": "intact",
        "periosteum": "none",
        "soft_tissue": "none",
        "location": _location(zone),
    }
    return usual | signs


def osteochondroma(spot: Place, size: float, age: float, rng: np.random.Generator) -> Growth:
    """An exophyte that shares cortex and marrow with its bone and points away from the joint."""
    stalked = rng.random() < 0.55
    height = size * (0.8 if stalked else 0.5)
    base = min(size * (0.22 if stalked else 0.5), 1.6 * spot.depth)
    head = size * (0.27 if stalked else 0.32)
    lean = rng.uniform(0.35, 0.95) if stalked else rng.uniform(0, 0.4)
    axis = spot.out + lean * spot.along
    axis /= np.linalg.norm(axis)
    inside = min(0.6 * spot.depth, base)
    start = spot.surface - inside * spot.out
    reach = inside + height
    steps = np.array([0, inside / reach, 0.55, 0.8, 1.0])
    steps[2:] = np.maximum(steps[2:], steps[1] + np.array([0.1, 0.2, 0.3]))
    steps /= steps[-1]
    bend = np.outer(steps, axis) * reach
    widths = np.array([base, base, 0.75 * base if stalked else 0.85 * base, head, 0.8 * head])
    wall = float(np.clip(0.06 * size, 0.5, 1.3))
    exophyte = Tube(
        bone_rows(steps, start + bend, widths, widths * 0.9, wall, 0.12),
        caps=(0.2, 0.9 * head),
        side=tuple(spot.along),
        plate=wall,
    )
    tip = start + axis * (reach - 0.9 * head)
    cap = Ellipsoid(tip, np.eye(3) * head * 0.95, 0.6, 0.1)
    deposits = [Deposit(cap, "rings", rng.uniform(0.03, 0.14))]
    signs = _signs(
        spot.zone,
        cortex="continuous",
        matrix="chondroid" if deposits[0].amount > 0.07 else "none",
    )
    outside = Tube(
        bone_rows(steps[1:], start + bend[1:], widths[1:], widths[1:] * 0.9, wall, 0.1),
        caps=(0.2, 0.9 * head),
        side=tuple(spot.along),
    )
    return Growth(
        "osteochondroma", "osteochondroma", spot.bone, signs,
        solids=[exophyte], deposits=deposits, extent=[outside],
    )  # fmt: skip


def osteosarcoma(spot: Place, size: float, age: float, rng: np.random.Generator) -> Growth:
    """Destruction with cloudy bone matrix, a breached cortex, a mass and a wild periosteum."""
    long = size / 2
    wide = min(0.95 * spot.width, 0.7 * size)
    centre = spot.centre + spot.out * 0.3 * spot.depth
    core = _ball(spot, centre, long, min(1.05 * spot.depth, 0.7 * size), wide)
    pattern = str(rng.choice(["moth-eaten", "permeative", "geographic"], p=[0.5, 0.35, 0.15]))
    periosteum = str(
        rng.choice(["sunburst", "codman", "lamellated", "none"], p=[0.4, 0.25, 0.15, 0.2])
    )
    blastic = rng.beta(1.3, 1.3)
    growth = Growth("osteosarcoma", "osteosarcoma", spot.bone, {}, extent=[core])
    growth.lyses.append(Lysis(core, 0.85, 0.55, pattern, 0.3))
    if blastic > 0.2:
        growth.deposits.append(Deposit(core, "cloud", 0.05 + 0.28 * blastic, 0.3))
    mass = rng.random() < 0.75
    if mass:
        deep = size * rng.uniform(0.2, 0.34)
        lump = _ball(
            spot, spot.surface + spot.out * 0.35 * deep, 0.8 * long, deep, 0.8 * wide + deep * 0.5
        )
        growth.masses.append(lump)
        growth.extent.append(lump)
        if periosteum == "sunburst":
            origin = spot.centre + 0.4 * spot.depth * spot.out
            growth.deposits.append(Deposit(lump, "rays", rng.uniform(0.12, 0.25), 0.2, origin))
        elif blastic > 0.4:
            growth.deposits.append(Deposit(lump, "cloud", 0.1 * blastic, 0.3))
    if periosteum in ("codman", "lamellated", "sunburst"):
        growth.deposits += shells(spot, long, periosteum, rng)
    growth.signs = _signs(
        spot.zone,
        destruction=pattern,
        margin="ill-defined",
        matrix="osteoid" if blastic > 0.2 else "none",
        cortex="breached",
        periosteum=periosteum,
        soft_tissue="mass" if mass else "none",
    )
    return growth


def shells(spot: Place, long: float, kind: str, rng: np.random.Generator) -> list[Deposit]:
    """Thin layers of new bone beside the cortex: parallel (lamellated) or lifted off (Codman)."""
    layers = []
    lift = {"codman": 0.34, "sunburst": 0.22, "lamellated": 0.0, "solid": 0.0}[kind]
    count = {"codman": 1, "sunburst": 1, "lamellated": 3, "solid": 1}[kind]
    ends = (1, -1) if kind in ("codman", "sunburst") else (0,)
    for end in ends:
        for layer in range(count):
            offset = 1.3 + 1.6 * layer
            if end:
                start, stop = end * 1.25 * long, end * 0.55 * long
            else:
                start, stop = -1.1 * long, 1.1 * long
            steps = np.linspace(0, 1, 6)
            lifted = offset + (lift * abs(stop - start) * steps**1.5 if end else 0 * steps)
            if not end:
                lifted = offset * np.sqrt(np.clip(4 * steps * (1 - steps), 0.01, 1))
            points = spot.centre + np.outer(start + (stop - start) * steps, spot.along)
            wall = 0.8 if kind != "solid" else 1.6
            rows = bone_rows(steps, points, spot.depth + lifted, spot.width + lifted, wall, 0.0)
            tube = Tube(rows, caps=(0, 0), side=tuple(spot.out))
            layers.append(Deposit(tube, "shell", rng.uniform(0.3, 0.5), 0.0, spot.centre, spot.out))
    return layers


ENTITIES: dict[str, dict[str, Callable[[Place, float, float, np.random.Generator], Growth]]] = {
    "osteochondroma": {"osteochondroma": osteochondroma},
    "osteosarcoma": {"osteosarcoma": osteosarcoma},
}
# mm, smallest and largest longest extent
SIZES = {"osteochondroma": (8, 75), "osteosarcoma": (30, 190)}
ZONES = {
    "osteochondroma": {"distal": 0.55, "proximal": 0.4, "diaphysis": 0.05},
    "osteosarcoma": {"distal": 0.5, "proximal": 0.35, "diaphysis": 0.15},
}
