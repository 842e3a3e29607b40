"""Where a lesion sits on its bone, and bodies laid out from there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .blocks import Ellipsoid
from .scene import Bone
from .signs import Deposit, Growth
from .solids import Tube, bone_rows


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
    room: float  # along the bone to its nearer end

    def inside(self, size: float) -> np.ndarray:
        """The centre, moved towards the shaft until a lesion of that length fits into the bone."""
        return self.centre + self.along * max(0.0, size / 2 - self.room)

    def seat(self, deep: float, shift: float) -> np.ndarray:
        """How far off the axis a cavity of half depth ``deep`` sits (vector, mm).

        ``shift`` is its eccentricity as a share of the bone's depth. In a hollow shaft there is no
        spongy bone to lose, so a cavity that is too small to reach the cortex lies against it.
        """
        away = shift * max(self.depth - 0.6 * deep, 0.15 * self.depth)
        if self.wall > 0.2 * self.depth and deep < self.depth - self.wall:
            away = max(away, self.depth - 0.75 * deep)
        return self.out * away

    @property
    def surface(self) -> np.ndarray:
        """The point of the bone's surface on the chosen side."""
        return self.centre + self.depth * self.out


def place(bone: Bone, zone: str, rng: np.random.Generator) -> Place:
    """Pick a spot in a zone of a bone and a side of its surface."""
    low, high = bone.zones.get(zone, (0.35, 0.65))
    at = float(rng.uniform(low, high))
    centre, along, side, (a, b, wall) = bone.spot(at, zone)
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
    body = bone.solids[0]
    room = 1e3
    if isinstance(body, Tube) and zone != "head":
        room = float(min(np.linalg.norm(centre - body.points[i]) for i in (0, -1)))
    return Place(bone.name, zone, at, centre, along, out, beside, depth, width, float(wall), room)


def ball(
    spot: Place, centre: np.ndarray, long: float, deep: float, wide: float, wall: float = 0.0
) -> Ellipsoid:
    """An ellipsoid with half axes along the bone, outwards and sideways (mm)."""
    axes = np.column_stack([spot.along * long, spot.out * deep, spot.beside * wide])
    return Ellipsoid(centre, axes, wall, 0.0)


def add_shells(
    growth: Growth, spot: Place, long: float, kind: str, rng: np.random.Generator
) -> None:
    """Lay thin new bone beside the cortex: parallel (lamellated) or lifted off (Codman)."""
    lift = {"codman": 0.34, "sunburst": 0.22, "lamellated": 0.0, "solid": 0.0}[kind]
    steps = np.linspace(0, 1, 6)
    for end in (1, -1) if lift else (0,):
        for layer in range(3 if kind == "lamellated" else 1):
            offset = 1.3 + 1.6 * layer
            if end:
                start, stop = end * 1.25 * long, end * 0.55 * long
                lifted = offset + lift * abs(stop - start) * steps**1.5
            else:
                start, stop = -1.1 * long, 1.1 * long
                lifted = offset * np.sqrt(np.clip(4 * steps * (1 - steps), 0.01, 1))
            points = spot.inside(2 * long) + np.outer(start + (stop - start) * steps, spot.along)
            wall = 0.8 if kind != "solid" else 1.6
            rows = bone_rows(steps, points, spot.depth + lifted, spot.width + lifted, wall, 0.0)
            tube = Tube(rows, caps=(0, 0), side=tuple(spot.out))
            amount = rng.uniform(0.5, 0.8)
            growth.deposits.append(Deposit(tube, "shell", amount, 0.0, spot.centre, spot.out))
    growth.signs["periosteum"] = kind
