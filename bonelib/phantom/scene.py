"""What stands between the tube and the detector: bones, flesh, devices and the beholder's place.

A scene is built for a right limb (lateral is -x, anterior is +z, distal is +y) in millimetres and
seen through ``view``, which mirrors it for a left limb and turns it for the projection.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .rays import turn
from .solids import Solid, Tube

SITES = (
    "hand", "ulna", "radius", "humerus", "foot", "tibia", "fibula", "femur", "hip bone",
    "ankle-joint", "knee-joint", "hip-joint", "wrist-joint", "elbow-joint", "shoulder-joint",
)  # fmt: skip
VIEWS = ("frontal", "lateral", "oblique")
SIDES = ("left", "right")


@dataclass
class Cut:
    """A gap across a bone: an open growth plate or a fracture line.

    ``normal`` is the direction square to the gap; ``wave`` its undulation; ``plate`` the extra bone
    on both banks (mm of compact bone), which a growth plate has and a fresh fracture has not.
    """

    point: np.ndarray
    normal: np.ndarray
    gap: float
    wave: float = 1.0
    plate: float = 0.6
    reach: float = 1e3  # mm from ``point`` within which the cut is made


@dataclass
class Bone:
    """One bone: the solids that unite to its shape, the first being its main body."""

    name: str
    site: str
    solids: list[Solid]
    cuts: list[Cut] = field(default_factory=list)
    zones: dict[str, tuple[float, float]] = field(default_factory=dict)  # name -> range on the tube
    density: float = 1.0  # share of normal mineral (below 1: osteopenia)
    heads: dict[str, int] = field(default_factory=dict)  # zones that are a solid of their own

    def moved(self, rotation: np.ndarray, shift: np.ndarray) -> Bone:
        """The same bone turned about the origin and then shifted (mm)."""
        cuts = [
            Cut(rotation @ c.point + shift, rotation @ c.normal, c.gap, c.wave, c.plate, c.reach)
            for c in self.cuts
        ]
        solids = [s.moved(rotation, shift) for s in self.solids]
        return Bone(self.name, self.site, solids, cuts, self.zones, self.density, self.heads)

    def spot(
        self, at: float, zone: str = ""
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Centre, direction, side and (a, b, wall) of the main body at position 0..1."""
        body = self.solids[self.heads.get(zone, 0)]
        if isinstance(body, Tube):
            return body.section(at)
        if hasattr(body, "axes"):
            axes = np.asarray(body.axes)
            lengths = np.linalg.norm(axes, axis=0)
            order = np.argsort(lengths)[::-1]
            long, side = axes[:, order[0]], axes[:, order[1]]
            centre = np.asarray(body.centre) + (at - 0.5) * 1.2 * long
            return (
                centre,
                long / lengths[order[0]],
                side / lengths[order[1]],
                np.array([lengths[order[1]], lengths[order[2]], body.wall]),
            )
        frame, outline = body.frame, np.asarray(body.outline)
        middle = outline.mean(0)
        far = outline[np.argmax(np.linalg.norm(outline - middle, axis=1))]
        flat = middle + (at - 0.5) * 1.2 * (far - middle)
        centre = body.centre + frame[:, :2] @ flat
        reach = float(np.linalg.norm(outline - middle, axis=1).min())
        return centre, frame[:, 1], frame[:, 0], np.array([reach, body.thickness / 2, body.wall])


@dataclass
class Flesh:
    """Soft tissue, air or a device: a solid filled with one substance."""

    solid: Solid
    substance: str
    inside: str | None = "fat"  # what it replaces; None: it lies outside the body, in air


@dataclass
class Scene:
    """A posed limb and how it is seen."""

    region: str
    bones: list[Bone]
    flesh: list[Flesh]
    view: np.ndarray  # 3 × 3, limb to picture
    field: float  # mm, usual length of the picture's longer side

    def bone(self, name: str) -> Bone:
        """The bone of that name; the error lists the names there are."""
        for bone in self.bones:
            if bone.name == name:
                return bone
        raise KeyError(f"No bone {name!r} in this scene. It has {[b.name for b in self.bones]}.")


def projection(view: str, side: str, *, jitter: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Limb-to-picture matrix: turned by 0°, 90° or 45°, mirrored if left, tilted in the plane.

    ``jitter`` is the error of positioning in degrees: about the limb and in the picture's plane.
    """
    angle = {"frontal": 0.0, "lateral": 90.0, "oblique": 45.0}[view] + jitter[0]
    mirror = np.diag([-1.0 if side == "left" else 1.0, 1.0, 1.0])
    # the mirror comes last, so that a left limb is the mirror image of a right one in every view
    return turn(jitter[1], "z") @ mirror @ turn(angle, "y")


def bone_table(**columns: list[float]) -> np.ndarray:
    """Knots of a bone as columns y, x, z, a, b, wall, spongy → rows of :class:`Tube`."""
    y = np.asarray(columns["y"], float)
    s = (y - y[0]) / (y[-1] - y[0])
    zero = np.zeros_like(y)
    parts = [columns.get(k, zero) for k in ("x", "y", "z", "a", "b", "wall", "spongy")]
    parts = [np.broadcast_to(np.asarray(p, float), y.shape) for p in parts]
    return np.column_stack([s, *parts])
