"""Sum the attenuation of a scene along every ray, with its lesions, and keep the truth masks."""

from __future__ import annotations

import numpy as np

from .film import ATTENUATION
from .rays import Grid, Path, rotated
from .scene import Bone, Cut, Scene
from .signs import Growth, deposit, dissolve
from .texture import sample

_EXTRA_BONE = ATTENUATION["bone"] - ATTENUATION["muscle"]
_EXTRA_MARROW = ATTENUATION["marrow"] - ATTENUATION["muscle"]
_SPONGY = ATTENUATION["bone"] - ATTENUATION["marrow"]


def attenuation(
    scene: Scene, growths: list[Growth], grid: Grid, rng: np.random.Generator
) -> np.ndarray:
    """Σ μ t for each pixel (float32, no unit), every body at its place along the ray."""
    total = np.zeros((grid.height, grid.width), np.float32)
    _add_flesh(total, scene, grid, rng)
    for bone in scene.bones:
        own = [g for g in growths if g.bone == bone.name]
        _add_bone(total, bone, own, scene.view, grid, rng)
    for growth in growths:
        _add_growth(total, growth, scene, grid, rng)
    return np.maximum(total, 0)


def _add_flesh(total: np.ndarray, scene: Scene, grid: Grid, rng: np.random.Generator) -> None:
    groups: dict[tuple[str, str | None], list] = {}
    for flesh in scene.flesh:
        groups.setdefault((flesh.substance, flesh.inside), []).append(flesh.solid)
    for (substance, inside), solids in groups.items():
        path = Path(total.shape)
        shadow = None
        for solid in solids:
            shadow = solid.shadow(scene.view, grid) or shadow
            if shadow is not None:
                path.add(shadow.window.slices(), shadow.half, shadow.middle)
        if shadow is None:
            continue
        extra = ATTENUATION[substance] - (ATTENUATION[inside] if inside else 0.0)
        chord = path.chord
        if substance == "muscle":  # fibres and fat planes along the limb
            x, y = grid.axes(grid.everything())
            cell = max(0.7, grid.pitch)
            streaks = sample("streaks", 0.5 * y + 0 * x, x + 0 * y, cell=cell, rng=rng)
            patches = sample("cloud", 0.4 * y + 0 * x, x + 0 * y, cell=cell, rng=rng)
            extra = extra * (1 + 0.035 * streaks + 0.09 * patches)
        total += (extra * chord).astype(np.float32)


def _add_bone(
    total: np.ndarray,
    bone: Bone,
    growths: list[Growth],
    view: np.ndarray,
    grid: Grid,
    rng: np.random.Generator,
) -> None:
    # a bone outside the picture must not shift the random numbers of the others
    rng = np.random.default_rng(int(rng.integers(2**63)))
    solids = [*bone.solids, *(s for g in growths for s in g.solids)]
    shadows = [s for s in (solid.shadow(view, grid) for solid in solids) if s is not None]
    if not shadows:
        return
    window = shadows[0].window
    for shadow in shadows[1:]:
        window = window.join(shadow.window)
    outer, inner = Path(window.shape), Path(window.shape)
    spongy = np.zeros(window.shape, np.float32)
    for shadow in shadows:
        place = shadow.window.within(window)
        outer.add(place, shadow.half, shadow.middle)
        spongy[place] += inner.add(place, shadow.inner_half, shadow.inner_middle) * shadow.spongy
    np.minimum(inner.chord, outer.chord, out=inner.chord)
    cortex = outer.chord - inner.chord

    x, y = grid.axes(window)
    flat = (view @ bone.spot(0.5)[1])[:2]  # the direction of its main body in the picture
    length = np.hypot(*flat)
    along, across = rotated(x, y, flat / length if length > 0.2 else np.array([0.0, 1.0]))
    cell = max(0.35, grid.pitch * 0.55)
    net = sample("trabeculae", along, across, cell=cell, rng=rng)
    net += 0.5 * sample("cloud", along, across, cell=cell, rng=rng)
    # layers of trabeculae add up along the ray: the thicker the bone, the smoother its shadow
    contrast = 0.75 / np.sqrt(np.maximum(inner.chord, 6))
    spongy *= np.clip(1 + contrast * net, 0.1, None)
    cortex *= 1 + np.float32(0.03) * net

    for growth in growths:
        for lysis in growth.lyses:
            dissolve(lysis, outer, inner, cortex, spongy, window, view, grid, rng)
    filled = inner.chord
    for cut in bone.cuts:
        kept, plate = _cut(cut, view, grid, x, y, rng)
        cortex = cortex * kept + plate * outer.chord
        spongy, filled = spongy * kept, filled * kept

    part = bone.density * (_EXTRA_BONE * cortex + _SPONGY * spongy) + _EXTRA_MARROW * filled
    total[window.slices()] += part


def _cut(
    cut: Cut, view: np.ndarray, grid: Grid, x: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Share of bone left beside a gap, and its dense banks as a share of the bone's path."""
    point, normal = view @ cut.point, view @ cut.normal
    flat = np.hypot(normal[0], normal[1]) + 1e-6
    straight, side = rotated(x - point[0], y - point[1], normal[:2] / flat)
    wave = cut.wave * sample("cloud", 0 * side, side, cell=1.6, rng=rng)
    distance = np.abs(straight + wave)
    blur = max(0.35, 0.6 * grid.pitch) + 2.0 * abs(float(normal[2]))
    edge = cut.gap / 2
    kept = np.ones_like(distance)
    if cut.gap > 0:
        kept -= 0.92 / (1 + np.exp(np.clip((distance - edge) / (0.35 * blur), -30, 30)))
    bank = np.exp(-(((distance - edge - 0.6) / max(0.8, blur)) ** 2))
    plate = np.float32(0.09 * cut.plate) * bank
    far = np.abs(side) > cut.reach
    kept, plate = np.where(far, 1.0, kept), np.where(far, 0.0, plate)
    return kept.astype(np.float32), plate.astype(np.float32)


def _add_growth(
    total: np.ndarray, growth: Growth, scene: Scene, grid: Grid, rng: np.random.Generator
) -> None:
    rng = np.random.default_rng(int(rng.integers(2**63)))
    for mass in growth.masses:
        shadow = mass.shadow(scene.view, grid)
        if shadow is not None:
            extra = ATTENUATION["fluid"] + 0.004 - ATTENUATION["fat"]
            total[shadow.window.slices()] += np.float32(0.6 * extra) * 2 * shadow.half
    for change in growth.deposits:
        laid = deposit(change, scene.view, grid, rng)
        if laid is not None:
            window, amount = laid
            total[window.slices()] += np.float32(_EXTRA_BONE) * amount
