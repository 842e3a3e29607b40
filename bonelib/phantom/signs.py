"""Radiographic signs as changes of a bone: lysis, deposits, shells, masses, exophytes.

A growth is a list of such changes; entities (``entities.py``) combine them. Each change is a body
in the limb's frame, so that it lies in front of, inside or behind the bone as in life, and a
pattern. Destruction patterns follow Lodwick et al. 1980 (Radiology 134:577).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bonelib.cohort import SIGNS

from .blocks import Ellipsoid
from .rays import EMPTY, Grid, Path, Shadow, Window
from .solids import Solid
from .texture import sample, waves, wobble

_MATRIX = {"cloud": "osteoid", "rings": "chondroid", "glass": "ground-glass"}  # by deposit
_LOCATIONS = {"diaphysis": "diaphysis", "body": "body", "joint": "joint"}  # by zone of the bone


@dataclass
class Lysis:
    """Bone taken away inside ``body``: from the marrow (``spongy``) and the cortex (``cortex``)."""

    body: Ellipsoid
    spongy: float = 0.9  # share lost
    cortex: float = 0.0
    pattern: str = "geographic"
    ripple: float = 0.12  # unevenness of the outline


@dataclass
class Deposit:
    """Mineral laid down: ``amount`` is the volume share of compact bone inside ``body``."""

    body: Solid
    pattern: str  # fill, rim, cloud, rings, septa, glass, rays, shell
    amount: float
    ripple: float = 0.12
    origin: np.ndarray | None = None  # rays start here (mm, limb frame)
    facing: np.ndarray | None = None  # shells are drawn on this side only (direction, limb frame)


@dataclass
class Growth:
    """One lesion: its signs and the changes that show them; without an entity, a distractor."""

    bone: str
    entity: str = ""  # the BTXRD column, e.g. "other bt"
    kind: str = ""  # the diagnosis, e.g. "enchondroma"
    signs: dict[str, str] = field(default_factory=dict)
    solids: list[Solid] = field(default_factory=list)  # join the bone and share its marrow
    lyses: list[Lysis] = field(default_factory=list)
    deposits: list[Deposit] = field(default_factory=list)
    masses: list[Solid] = field(default_factory=list)
    extent: list[Solid] = field(default_factory=list)  # what the truth mask covers
    seed: int = 0

    def with_signs(self, zone: str, **told: str) -> Growth:
        """Name the signs of what was drawn in a zone; ``told`` are those that it does not show."""
        patterns = {change.pattern for change in self.deposits}
        matrix = [term for pattern, term in _MATRIX.items() if pattern in patterns]
        shown = {"location": "epiphysis" if "end" in zone else _LOCATIONS.get(zone, "metaphysis")}
        if self.lyses:
            shown["destruction"] = self.lyses[0].pattern
        if matrix:
            shown["matrix"] = matrix[0]
        if self.masses:
            shown["soft_tissue"] = "mass"
        self.signs = untouched() | shown | self.signs | told
        return self

    def add_mass(self, lump: Solid) -> None:
        """Let it grow into the soft tissue, as part of what is outlined."""
        self.masses.append(lump)
        self.extent.append(lump)


def untouched() -> dict[str, str]:
    """The signs of a bone without a lesion."""
    return {name: terms[0] for name, terms in SIGNS.items()}


def outline_of(growth: Growth, view: np.ndarray, grid: Grid) -> np.ndarray:
    """The truth mask: every pixel whose ray meets the lesion, one at least (bool)."""
    mask = np.zeros((grid.height, grid.width), bool)
    for number, solid in enumerate(growth.extent):
        shadow = solid.shadow(view, grid)
        if shadow is not None:
            half = _rippled(solid, shadow, growth.seed + number, 0.12)
            mask[shadow.window.slices()] |= half > 0
    if not mask.any():  # smaller than a pixel: the pixel it lies in
        x, y = growth.extent[0].bounds(view).mean(0)
        row = int(np.clip(np.round(grid.rows(y)), 0, grid.height - 1))
        column = int(np.clip(np.round(grid.columns(x)), 0, grid.width - 1))
        mask[row, column] = True
    return mask


def _rippled(body: Solid, shadow: Shadow, seed: int, ripple: float) -> np.ndarray:
    """Half path of a body; an ellipsoid gets an uneven outline."""
    if not isinstance(body, Ellipsoid):
        return shadow.half
    angle = np.arctan2(shadow.across, shadow.along).astype(np.float32)
    shape = waves(np.random.default_rng(seed))
    # only inwards, so that the uneven outline stays inside the body's window
    scale = 1 - np.float32(ripple) * (0.9 + wobble(angle, shape).clip(-0.9, 0.9))
    depth = shadow.half.max(initial=1e-3)
    square = 1 - (shadow.half / depth) ** 2
    square = np.where(shadow.half > 0, square, 1.0) / (scale * scale)
    return depth * np.sqrt(np.maximum(1 - square, 0))


def dissolve(
    lysis: Lysis,
    outer: Path,
    inner: Path,
    cortex: np.ndarray,
    spongy: np.ndarray,
    window: Window,
    view: np.ndarray,
    grid: Grid,
    rng: np.random.Generator,
) -> None:
    """Take bone away from one bone's maps (mm of compact bone), in place."""
    shadow = lysis.body.shadow(view, grid)
    seed = int(rng.integers(2**31))
    if shadow is None:
        return
    common = shadow.window.meet(window)
    if common.empty:
        return
    here, there = common.within(window), common.within(shadow.window)
    half = _rippled(lysis.body, shadow, seed, lysis.ripple)[there]
    middle = shadow.middle[there]
    top = np.where(half > 0, middle + half, -EMPTY)
    bottom = np.where(half > 0, middle - half, EMPTY)
    parts = [path.part(here) for path in (outer, inner)]
    lost_outer, lost_inner = (part.overlap(top, bottom) for part in parts)
    weight: np.ndarray | float = 1.0
    along, across = shadow.along[there], shadow.across[there]
    if lysis.pattern == "moth-eaten":
        noise = sample("grain", along, across, cell=max(0.5, grid.pitch * 0.6), rng=rng)
        weight = np.clip(0.55 + 1.0 * noise, 0, 1)
    elif lysis.pattern == "permeative":
        noise = sample("streaks", along, across, cell=max(0.25, grid.pitch * 0.5), rng=rng)
        weight = np.clip(0.5 + 0.8 * noise, 0, 1)
    share = lost_inner / np.maximum(parts[1].chord, 1e-3)
    spongy[here] *= 1 - np.float32(lysis.spongy) * weight * share
    loss = np.float32(lysis.cortex) * weight * np.maximum(lost_outer - lost_inner, 0)
    cortex[here] = np.maximum(cortex[here] - loss, 0)


def deposit(
    change: Deposit, view: np.ndarray, grid: Grid, rng: np.random.Generator
) -> tuple[Window, np.ndarray] | None:
    """The mineral a change lays down, as mm of compact bone in a window."""
    shadow = change.body.shadow(view, grid)
    seed = int(rng.integers(2**31))
    if shadow is None:
        return None
    along, across = shadow.along, shadow.across
    half = _rippled(change.body, shadow, seed, change.ripple)
    cell = max(0.4, grid.pitch * 0.6)
    if change.pattern == "fill":
        amount = 2 * half
    elif change.pattern == "rim":
        depth = half.max(initial=1e-3)
        shrunk = np.sqrt(np.maximum((half / depth) ** 2 - 0.28, 0) / 0.72) * depth
        amount = 2 * (half - shrunk * 0.85)
    elif change.pattern == "glass":
        noise = sample("grain", along, across, cell=cell, rng=rng)
        amount = 2 * half * np.clip(1 + 0.15 * noise, 0, 2)
    elif change.pattern == "cloud":
        noise = sample("cloud", along, across, cell=cell * 0.8, rng=rng)
        noise = noise + 0.5 * sample("grain", along, across, cell=cell, rng=rng)
        amount = 2 * half * np.clip(0.35 + 0.8 * noise, 0, 2)
    elif change.pattern == "septa":
        amount = _septa(shadow, half, grid.pitch, np.random.default_rng(seed))
    elif change.pattern == "rings":
        amount = _rings(shadow, half, grid.pitch, np.random.default_rng(seed))
    elif change.pattern == "rays":
        amount = _rays(view @ change.origin, shadow, half, grid, rng)
    elif change.pattern == "shell":
        amount = 2 * (shadow.half - shadow.inner_half)
        if change.facing is not None:  # a layer of new bone thins out towards its ends
            covered = along[shadow.half > 0]
            low, high = covered.min(initial=0.0), covered.max(initial=1.0)
            t = (along - low) / max(float(high - low), 1e-3)
            amount = amount * np.clip(4 * t * (1 - t), 0, 1)
    else:
        raise AssertionError(f"unknown deposit pattern {change.pattern!r}")
    if change.facing is not None:
        flat = (view @ change.facing)[:2]
        x, y = grid.axes(shadow.window)
        middle = (view @ change.origin)[:2]
        ahead = (x - middle[0]) * flat[0] + (y - middle[1]) * flat[1]
        # a layer that faces the beholder is seen flat on, and hardly
        amount = amount * np.clip(0.2 + ahead / 6, 0, 1) * np.float32(flat @ flat)
    return shadow.window, (np.float32(change.amount) * amount).astype(np.float32)


def _rings(shadow: Shadow, half: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Rings and arcs of calcified cartilage lobules, 1.5 to 4 mm across."""
    inside = half > 0
    if not inside.any():
        return half
    u, v = shadow.along[inside], shadow.across[inside]
    area = u.size * pitch * pitch
    thickness = max(0.45, 0.55 * pitch)
    values = np.zeros(u.size, np.float32)
    # lobules of small lesions are small
    largest = float(np.clip(0.2 * np.sqrt(area), 0.7, 3.6))
    for _ in range(int(np.clip(area / (1.7 * largest**2), 5, 60))):
        pick = rng.integers(u.size)
        radius = rng.uniform(0.35, 1.0) * largest
        du, dv = u - u[pick], v - v[pick]
        near = (np.abs(du) < radius + 2) & (np.abs(dv) < radius + 2)
        r = np.hypot(du[near], dv[near])
        arc = np.cos(np.arctan2(dv[near], du[near]) - rng.uniform(0, 6.28)) > rng.uniform(-1.2, 0.3)
        values[near] += np.exp(-(((r - radius) / thickness) ** 2)) * arc * rng.uniform(0.6, 1.3)
    total = np.zeros_like(half)
    total[inside] = 9.0 * values  # mm of path, before ``amount``
    return total


def _septa(shadow: Shadow, half: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Fine ridges between lobes: where the two nearest of some random points are equally far."""
    inside = half > 0
    if not inside.any():
        return half
    u, v = shadow.along, shadow.across
    picks = rng.choice(np.flatnonzero(inside.ravel()), 7)
    far = np.stack([np.hypot(u - u.flat[p], v - v.flat[p]) for p in picks])
    nearest = np.partition(far, 1, axis=0)[:2]
    ridge = np.exp(-(((nearest[1] - nearest[0]) / max(0.9, pitch)) ** 2))
    return 12.0 * ridge * inside * (half / half.max())  # mm of path, before ``amount``


def _rays(
    start: np.ndarray, shadow: Shadow, half: np.ndarray, grid: Grid, rng: np.random.Generator
) -> np.ndarray:
    """Spicules that radiate from ``start``: streaks in polar coordinates, fading outwards."""
    x, y = grid.axes(shadow.window)
    x, y = x - np.float32(start[0]), y - np.float32(start[1])
    r = np.hypot(x, y)
    angle = np.arctan2(y, x)
    reach = np.float32(max(r[half > 0].max(initial=1.0), 1.0))
    noise = sample("streaks", r * 0.25, angle * 26.0, cell=max(0.45, grid.pitch * 0.5), rng=rng)
    spikes = np.clip(0.1 + 0.9 * noise, 0, 2.5)
    return 2 * half * spikes * np.clip(1.15 - r / reach, 0, 1)
