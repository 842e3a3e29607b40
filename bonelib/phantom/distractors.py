"""What is not a tumour and may look like one: fractures, implants, worn joints, variants, casts."""

from __future__ import annotations

import numpy as np

from .blocks import Ellipsoid
from .place import Place, place
from .scene import Bone, Cut, Flesh, Scene
from .signs import Deposit, Growth, Lysis
from .solids import Tube, bone_rows

DISTRACTORS = ("none", "fracture", "implant", "osteoarthritis", "variant", "cast")


def distract(
    scene: Scene, name: str, bone: str, zone: str, rng: np.random.Generator
) -> list[Growth]:
    """Add a distractor to a scene at a bone; returns changes to be drawn like a lesion's."""
    if name == "none":
        return []
    if name in ("fracture", "implant"):
        bone, zone = _shaft(scene, bone, zone)
    spot = place(scene.bone(bone), zone, rng)
    change = Growth(bone, kind=name, seed=int(rng.integers(2**31)))
    if name == "fracture":
        _break(scene.bone(bone), spot, rng)
    elif name == "implant":
        _plate(scene, spot, rng)
    elif name == "osteoarthritis":
        _wear(scene, change, spot, rng)
    elif name == "variant":
        _vary(change, spot, rng)
    else:
        _plaster(scene, change, spot)
    return [change]


def _shaft(scene: Scene, bone: str, zone: str) -> tuple[str, str]:
    """The shaft of a tubular bone that is nearest to a place: plates don't sit on carpal bones."""

    def middle(bone: Bone, zone: str) -> np.ndarray:
        return bone.spot(float(np.mean(bone.zones.get(zone, (0.5, 0.5)))), zone)[0]

    here = middle(scene.bone(bone), zone)
    shafts = [
        (b, z) for b in scene.bones for z in ("distal", "diaphysis", "proximal") if z in b.zones
    ]
    nearest = min(shafts, key=lambda s: float(np.linalg.norm(middle(*s) - here)))
    return nearest[0].name, nearest[1]


def _break(bone: Bone, spot: Place, rng: np.random.Generator) -> None:
    """A fracture line, transverse to oblique, through a bone that has no open plate there."""
    lean = rng.uniform(0, 0.9)
    normal = spot.along + lean * (spot.out if rng.random() < 0.5 else spot.beside)
    normal /= np.linalg.norm(normal)
    gap = float(rng.uniform(0.8, 3.0))
    bone.cuts.append(Cut(spot.centre, normal, gap, 1.6, 0.0, reach=3 * spot.width + 4))


def _plate(scene: Scene, spot: Place, rng: np.random.Generator) -> None:
    """A titanium plate on the bone's surface with screws through it."""
    length = float(min(np.clip(6 * spot.depth, 30, 150), max(2 * spot.room, 12)))
    broad = float(np.clip(0.5 * spot.depth, 2.0, 6.0))
    start = spot.surface + spot.out * 1.5 - spot.along * length / 2
    steps = np.linspace(0, 1, 4)
    points = start + np.outer(steps, spot.along * length)
    metal = "titanium" if rng.random() < 0.7 else "steel"
    rows = bone_rows(steps, points, 1.5, broad, 0.0, 0.0)
    plate = Tube(rows, caps=(broad, broad), side=tuple(spot.out), boxy=2.5)
    scene.flesh.append(Flesh(plate, metal, "muscle"))
    for at in np.linspace(0.1, 0.9, int(rng.integers(4, 8))):
        steps = np.array([0, 0.5, 1.0])
        points = start + spot.along * length * at + np.outer(steps, -spot.out * 2.1 * spot.depth)
        rows = bone_rows(steps, points, 1.5, 1.5, 0.0, 0.0)
        scene.flesh.append(Flesh(Tube(rows, caps=(1, 2)), metal, "muscle"))


def _wear(scene: Scene, change: Growth, spot: Place, rng: np.random.Generator) -> None:
    """Osteophytes at the margins of the bone's end and dense bone below the joint."""
    bone = scene.bone(spot.bone)
    end = 0.985 if spot.at > 0.5 else 0.015
    centre, along, side, (a, b, _) = bone.spot(end)
    along = -along if end > 0.5 else along
    other = np.cross(along, side)
    for sign in (-1, 1):
        if rng.random() < 0.8:
            size = a * rng.uniform(0.12, 0.28)
            tip = centre + sign * side * (a + 0.3 * size) + along * size * 0.6
            axes = np.column_stack([side * size * 1.2, along * size * 0.6, other * 0.6 * b])
            change.solids.append(Ellipsoid(tip, axes, 0.8, 0.2))
    share = rng.uniform(0.5, 0.9) * a
    axes = np.column_stack([side * share, along * 0.14 * a, other * 0.8 * b])
    middle = centre + along * 0.1 * a + side * rng.normal(0, 0.2) * a
    change.deposits.append(Deposit(Ellipsoid(middle, axes), "fill", rng.uniform(0.06, 0.16), 0.1))
    if rng.random() < 0.4:  # a subchondral cyst
        hole = Ellipsoid(centre + along * 0.25 * a, np.eye(3) * a * rng.uniform(0.08, 0.16))
        change.lyses.append(Lysis(hole, 0.8, 0.0))


def _vary(change: Growth, spot: Place, rng: np.random.Generator) -> None:
    """A bone island, a nutrient canal or an accessory bone."""
    pick = rng.integers(3)
    if pick == 0:
        size = rng.uniform(0.1, 0.3) * spot.depth
        island = Ellipsoid(spot.centre + 0.4 * spot.depth * spot.out, np.eye(3) * size)
        change.deposits.append(Deposit(island, "fill", 0.5, 0.25))
    elif pick == 1:
        direction = spot.along + 0.12 * spot.out
        axes = np.column_stack([direction * 1.2 * spot.depth, spot.out * 0.9, spot.beside * 0.9])
        canal = Ellipsoid(spot.surface - spot.out * 0.5 * spot.wall, axes)
        change.lyses.append(Lysis(canal, 0.5, 0.85, ripple=0.05))
    else:
        size = rng.uniform(0.15, 0.35) * spot.depth
        body = Ellipsoid(spot.centre + (spot.depth + 1.6 * size) * spot.out, np.eye(3) * size)
        change.deposits.append(Deposit(body, "rim", 0.4, 0.2))


def _plaster(scene: Scene, change: Growth, spot: Place) -> None:
    """A plaster shell, 4.5 mm thick, around the part of the limb that holds the bone."""
    skins = [f.solid for f in scene.flesh if f.inside is None and isinstance(f.solid, Tube)]
    stoutest = max(s.table[:, 4].max() for s in skins)
    skins = [s for s in skins if s.table[:, 4].max() > 0.5 * stoutest]  # no fingers or toes
    skin = min(skins, key=lambda s: np.linalg.norm(s.points - spot.centre, axis=1).min())
    rows = skin.table[4:-4] + np.array([0, 0, 0, 0, 9.0, 9.0, 0, 0])
    rows[:, 6] = 4.5
    shell = Tube(rows, (0, 0), skin.side)
    # plaster is a little less dense to X-rays than compact bone
    change.deposits.append(Deposit(shell, "shell", 0.6, 0.0))
