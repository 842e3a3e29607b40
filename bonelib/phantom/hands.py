"""Children's hands for the reading of bone age, whose bones are as mature as their table says.

``maturation.csv`` holds, for boys and girls apart, the years at which each carpal bone and each
epiphysis appears (medians of Garn et al. 1967, Med Radiogr Photogr 43:45) and at which the plate
closes or the carpal bone is full-grown (Greulich and Pyle 1959; Gilsanz and Ratib, Hand Bone Age,
2005); recalled and rounded to a tenth of a year. A bone age is that of the median child: nothing
else in the picture follows it but what grows with it, the bones' own proportions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .acquisition import expose
from .blocks import Ellipsoid
from .files import rows, save_table
from .film import habit
from .positioning import BACK, Pose, hand, mineralise
from .rays import Grid
from .sampling import spread
from .scene import Bone, Cut, Limb, Scene, projection
from .skeleton import Body, stature
from .solids import Tube

FOLDERS = ("boneage-training-dataset",)
MONTHS = (12, 216)  # youngest and oldest bone age
SCATTER = 0.03  # of the age of single centres in one hand, log: Garn's hands are no clocks
CLOSING, SCAR = 1.4, 1.6  # years that a plate takes to close, and that its scar is seen


@dataclass(frozen=True)
class Hand:
    """One picture: the bone age in months, the sex, and what fixes anatomy and exposure."""

    months: int
    sex: str
    center: int
    key: tuple[int, ...]


def plan(images: int, seed: int) -> list[Hand]:
    """Bone ages spread evenly from 1 to 18 years, over both sexes alike."""
    rng = np.random.default_rng([seed, 51])
    months = MONTHS[0] + spread(np.ones(MONTHS[1] - MONTHS[0] + 1), images, rng)
    sexes = np.array(["F", "M"])[np.argsort(np.argsort(months, kind="stable"), kind="stable") % 2]
    centers = 1 + spread(np.array([0.7, 0.2, 0.1]), images, rng)
    return [
        Hand(int(m), str(s), int(c), (seed, 5, number))
        for number, (m, s, c) in enumerate(zip(months, sexes, centers, strict=True))
    ]


def paths(cases: list[Hand]) -> list[list[str]]:
    """Where the RSNA's set holds the pictures, named by number."""
    return [[f"{FOLDERS[0]}/{1001 + number}.png"] for number in range(len(cases))]


def tables(folder: Path, cases: list[Hand], pictures: list[list[str]], _: list) -> None:
    """Write bone age in months and sex as the RSNA does."""
    named = [Path(path).stem for (path,) in pictures]
    table = [(n, c.months, c.sex == "M") for n, c in zip(named, cases, strict=True)]
    save_table(folder / f"{FOLDERS[0]}.csv", table, ("id", "boneage", "male"))


def take(case: Hand, size: int) -> tuple[np.ndarray, int]:
    """The radiograph of a left hand, (H, W) uint8, and its quality as a JPEG."""
    rng = np.random.default_rng([*case.key, 1])
    practice = habit(case.center, rng)
    scene = cast(case)
    aspect = float(np.clip(rng.normal(1.3, 0.1), 1.05, 1.6))
    height = round(size * practice.share)
    grid, keep = _frame(scene, (height, round(height / aspect)), rng)
    # a child's hand fills the picture as well: grain and blur of a pixel must not tell its size
    scale, usual = scene.field / 240, practice.exposure
    dose = (grid.pitch / scale / max(grid.pitch, 0.35)) ** 2
    even = replace(usual, photons=usual.photons * dose, focus=usual.focus * scale)
    practice = replace(practice, exposure=even)
    shown = dict(side="left", keep=keep, rng=rng)
    return expose(scene, [], grid, practice, **shown), practice.quality


def cast(case: Hand) -> Scene:
    """The hand of a case: a grown one made smaller, each bone as mature as its table says."""
    rng = np.random.default_rng([*case.key, 2])
    age = case.months / 12
    young = 1 - min(age / 14, 1)
    scale = stature(age) * (0.92 if case.sex == "F" else 1.0) * rng.uniform(0.95, 1.05)
    body = Body(99, case.sex, float(np.exp(rng.normal(0.15 * young, 0.15))), scale)
    placed = Pose("frontal", "left", *(float(v) for v in rng.normal(0, (4, 9, 1))), spread=4.0)
    grown = hand(body, placed, rng)
    thumb = grown.bone("metacarpal 1").solids[0]
    pea = Ellipsoid(_beside(thumb), np.eye(3) * 2.4 * scale, 0.6, 0.25)
    bones = []
    for bone in [*grown.bones, Bone("sesamoid", "hand", [pea])]:
        # drawn for every bone alike, so that a centre that is missing shifts no random numbers
        own = age * float(np.exp(rng.normal(0, SCATTER)))
        bones += _ripen(bone, own, case.sex, young, scale)
    shown = Limb(bones, grown.flesh)
    mineralise(shown, 20, case.sex, rng)
    view = projection("frontal", "left", jitter=(placed.turn, placed.tilt)) @ BACK
    return Scene("hand", shown.bones, shown.flesh, view, 240 * scale)


def _beside(thumb: Tube) -> np.ndarray:
    """Where the sesamoid bone lies: at the head of the thumb's metacarpal, on its ulnar side."""
    end, _, side, (a, _, _) = thumb.section(0.97)
    return end + side * (0.9 * a if side[0] > 0 else -0.9 * a)


def _ripen(bone: Bone, age: float, sex: str, young: float, scale: float) -> list[Bone]:
    """A grown bone as it is at an age: what of it has turned into bone, with its plate."""
    row = rows("anatomy/maturation.csv", bone=bone.name)[0]
    onset, done = (row[f"{what}_{sex.lower()}"] for what in ("onset", "done"))
    ripe = float(np.clip((age - onset) / (done - onset), 0, 1))  # of what has appeared
    body = bone.solids[0]
    if isinstance(body, Ellipsoid):
        if age < onset:
            return []
        share = 0.3 + 0.78 * ripe**0.75 if bone.name != "sesamoid" else 0.6 + 0.4 * ripe
        small = replace(body, axes=np.asarray(body.axes) * share, boxy=1 + 0.6 * ripe)
        return [replace(bone, solids=[small])]
    at = row["plate"]
    left = (done - age) / CLOSING
    if left < 1:  # the plate closes, then its scar fades
        point, tangent = body.section(at)[:2]
        faded = max(0.0, 1 + left * CLOSING / SCAR) if left < 0 else 1.0
        cut = Cut(point, tangent, 1.3 * scale * max(left, 0.0), wave=0.6, plate=1.1 * faded)
        return [replace(bone, cuts=[cut] if faded else [])]
    ends = (at, 1.0) if at < 0.5 else (0.0, at)
    flat = (0.7, body.caps[1]) if at < 0.5 else (body.caps[0], 0.7)
    stout = body.part(*ends, flat)
    stout = replace(stout, knots=stout.knots * np.array([1, 1, 1, 1, *[1 + 0.2 * young] * 2, 1, 1]))
    centres = [_epiphysis(body, at, ripe, scale)] if age >= onset else []
    return [replace(bone, solids=[stout, *centres])]


def _epiphysis(body: Tube, at: float, ripe: float, scale: float) -> Ellipsoid:
    """A lentil in the cartilage, which grows until it is as broad as the shaft, and as the end."""
    tip = body.points[0 if at < 0.5 else -1]
    point, tangent, side, (a, b, _) = body.section(at)
    room, gap = float(np.linalg.norm(tip - point)), 1.1 * scale
    wide = 0.3 + 0.76 * min(1.0, ripe / 0.55) ** 0.8
    high = 0.4 * room + (0.6 * room - gap) * min(1.0, ripe / 0.75)
    centre = (point + tip) / 2 + (tip - point) / room * gap / 2 * min(1.0, ripe / 0.75)
    beside = np.cross(side, tangent)
    axes = np.column_stack([side * a * wide, tangent * high / 2, beside * b * wide])
    return Ellipsoid(centre, axes, 0.7, 0.24, 1.1 + (0.3 if at > 0.5 else 0.8) * ripe)


def _frame(
    scene: Scene, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[Grid, np.ndarray]:
    """From the fingertips to the forearm, as large in the picture at every age; and the hand."""
    inner = [s for b in scene.bones if b.name[:4] not in ("radi", "ulna") for s in b.solids]
    boxes = np.array([solid.bounds(scene.view) for solid in inner])
    low, high = boxes[:, 0].min(0), boxes[:, 1].max(0)
    low, high = low - 0.03 * (high - low), high + 0.03 * (high - low)
    arm = np.array([0, rng.uniform(0.12, 0.3) * (high[1] - low[1])])
    height, width = shape
    pitch = float(max((high + arm - low) / (width, height)) * rng.uniform(1.02, 1.2))
    spare = np.array([width, height]) * pitch - (high + arm - low)
    x, y = (low + high + arm) / 2 + rng.uniform(-0.4, 0.4, 2) * spare
    grid = Grid(height, width, pitch, float(x), float(y))
    keep = np.zeros(shape, bool)
    keep[grid.window(low, high).slices()] = True
    return grid, keep
