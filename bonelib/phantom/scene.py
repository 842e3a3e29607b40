"""What stands between the tube and the detector: bones, flesh, devices and the beholder's place.

A scene is built for a right limb (lateral is -x, anterior is +z, distal is +y) in millimetres and
seen through ``view``, which mirrors it for a left limb and turns it for the projection.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from .rays import turn
from .solids import Solid

ORIGIN = np.zeros(3)


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
            replace(c, point=rotation @ c.point + shift, normal=rotation @ c.normal)
            for c in self.cuts
        ]
        return replace(self, solids=[s.moved(rotation, shift) for s in self.solids], cuts=cuts)

    def spot(
        self, at: float, zone: str = ""
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Centre, direction, side and (a, b, wall) of the main body at position 0..1."""
        return self.solids[self.heads.get(zone, 0)].section(at)


@dataclass
class Flesh:
    """Soft tissue, air or a device: a solid filled with one substance."""

    solid: Solid
    substance: str
    inside: str | None = "fat"  # what it replaces; None: it lies outside the body, in air

    def moved(self, rotation: np.ndarray, shift: np.ndarray) -> Flesh:
        """The same tissue turned about the origin and then shifted (mm)."""
        return replace(self, solid=self.solid.moved(rotation, shift))


@dataclass
class Limb:
    """Bones and flesh that move together; ``+`` puts two limbs into one frame."""

    bones: list[Bone]
    flesh: list[Flesh]

    def moved(self, rotation: np.ndarray, shift: np.ndarray = ORIGIN) -> Limb:
        """The same limb turned about the origin and then shifted (mm)."""
        bones = [bone.moved(rotation, shift) for bone in self.bones]
        return Limb(bones, [part.moved(rotation, shift) for part in self.flesh])

    def __add__(self, other: Limb) -> Limb:
        return Limb([*self.bones, *other.bones], [*self.flesh, *other.flesh])

    def bone(self, name: str) -> Bone:
        """The bone of that name; the error lists the names there are."""
        for bone in self.bones:
            if bone.name == name:
                return bone
        raise KeyError(f"No bone {name!r} in this scene. It has {[b.name for b in self.bones]}.")


@dataclass
class Scene:
    """A posed limb and how it is seen."""

    region: str
    bones: list[Bone]
    flesh: list[Flesh]
    view: np.ndarray  # 3 × 3, limb to picture
    field: float  # mm, usual length of the picture's longer side

    def bone(self, name: str) -> Bone:
        """The bone of that name, or an error that lists the names there are."""
        return Limb(self.bones, self.flesh).bone(name)


def projection(view: str, side: str, *, jitter: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Limb-to-picture matrix: turned by 0°, 90° or 45°, mirrored if left, tilted in the plane.

    ``jitter`` is the error of positioning in degrees: about the limb and in the picture's plane.
    """
    angle = {"frontal": 0.0, "lateral": 90.0, "oblique": 45.0}[view] + jitter[0]
    mirror = np.diag([-1.0 if side == "left" else 1.0, 1.0, 1.0])
    # the mirror comes last, so that a left limb is the mirror image of a right one in every view
    return turn(jitter[1], "z") @ mirror @ turn(angle, "y")
