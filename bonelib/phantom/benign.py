"""Benign bone tumours, drawn from their signs.

Signs follow the standard descriptions (Greenspan and Remagen, Differential Diagnosis of Tumors and
Tumor-like Lesions of Bones and Joints; WHO Classification of Tumours, Soft Tissue and Bone, 5th ed.
2020). Entities overlap on purpose: a geographic lesion with a sclerotic rim may be any of four.
"""

from __future__ import annotations

import numpy as np

from .blocks import Ellipsoid
from .place import Place, ball, shells, signs_of
from .signs import Deposit, Growth, Lysis
from .solids import Tube, bone_rows


def osteochondroma(spot: Place, size: float, age: float, rng: np.random.Generator) -> Growth:
    """An exophyte that shares cortex and marrow with its bone and points away from the joint."""
    stalked = rng.random() < 0.55
    height = size * (0.8 if stalked else 0.5)
    base = min(size * (0.22 if stalked else 0.5), 1.6 * spot.depth)  # half, along the bone
    narrow = min(base, 0.8 * spot.width)  # half, around the bone
    head = size * (0.27 if stalked else 0.32)
    lean = rng.uniform(0.35, 0.95) if stalked else rng.uniform(0, 0.4)
    axis = spot.out + lean * spot.along
    axis /= np.linalg.norm(axis)
    inside = 0.9 * spot.depth
    start = spot.surface - inside * spot.out
    reach = inside + height
    steps = np.array([0, inside / reach, 0.55, 0.8, 1.0])
    steps[2:] = np.maximum(steps[2:], steps[1] + np.array([0.1, 0.2, 0.3]))
    steps /= steps[-1]
    bend = np.outer(steps, axis) * reach
    widths = np.array([base, base, 0.75 * base if stalked else 0.85 * base, head, 0.8 * head])
    sides = np.array([narrow, narrow, 0.8 * narrow, 0.9 * head, 0.75 * head])
    wall = float(np.clip(0.06 * size, 0.5, 1.3))
    exophyte = Tube(
        bone_rows(steps, start + bend, widths, sides, wall, 0.12),
        caps=(0.2, 0.9 * head),
        side=tuple(spot.along),
        plate=wall,
    )
    tip = start + axis * (reach - 0.9 * head)
    cap = Ellipsoid(tip, np.eye(3) * head * 0.95, 0.6, 0.1)
    deposits = [Deposit(cap, "rings", rng.uniform(0.03, 0.14))]
    signs = signs_of(
        spot.zone,
        cortex="continuous",
        matrix="chondroid" if deposits[0].amount > 0.07 else "none",
    )
    outside = Tube(
        bone_rows(steps[1:], start + bend[1:], widths[1:], sides[1:], wall, 0.1),
        caps=(0.2, 0.9 * head),
        side=tuple(spot.along),
    )
    return Growth(
        "osteochondroma", "osteochondroma", spot.bone, signs,
        solids=[exophyte], deposits=deposits, extent=[outside],
    )  # fmt: skip


def multiple_osteochondromas(
    spot: Place, size: float, age: float, rng: np.random.Generator
) -> Growth:
    """One of several osteochondromas of a patient, often broad-based on a widened metaphysis."""
    growth = osteochondroma(spot, size, age, rng)
    growth.entity, growth.kind = "multiple osteochondromas", "hereditary multiple exostoses"
    if rng.random() < 0.5:  # undertubulation: the metaphysis is broad
        broad = 1.12
        growth.solids.append(
            ball(
                spot,
                spot.centre,
                1.6 * spot.depth,
                broad * spot.depth,
                broad * spot.width,
                spot.wall,
            )
        )
    return growth


def _cavity(
    spot: Place, size: float, rng: np.random.Generator, *, shift: float, swell: float, slim: float
) -> tuple[Ellipsoid, bool]:
    """An intramedullary ellipsoid of length ``size``; True where it widens the bone.

    ``shift`` is the eccentricity as a share of the bone's depth, ``slim`` the widest ratio of width
    to length.
    """
    deep = min(spot.depth * swell, slim * size / 2)
    wide = min(spot.width * swell, slim * size / 2)
    centre = spot.inside(size) + spot.seat(deep, shift)
    reaches = shift * spot.depth + deep > spot.depth and swell > 1.0
    return ball(spot, centre, size / 2, deep, wide, 0.8), bool(reaches)


def _rim(low: float, high: float, size: float, rng: np.random.Generator) -> float:
    """Share of bone in a sclerotic rim: the thin rims of small lesions are denser."""
    return float(rng.uniform(low, high) * np.clip(22 / size, 1, 3))


def simple_bone_cyst(spot: Place, size: float, age: float, rng: np.random.Generator) -> Growth:
    """A central clear cavity with a thin rim that thins and may widen the bone."""
    swell = rng.uniform(0.85, 1.25)
    body, wider = _cavity(spot, size, rng, shift=0.05, swell=swell, slim=0.75)
    growth = Growth("simple bone cyst", "simple bone cyst", spot.bone, {}, extent=[body])
    if wider:
        growth.solids.append(body)
    growth.lyses.append(Lysis(body, 0.95, 0.65, "geographic", 0.06))
    sclerotic = rng.random() < 0.8
    if sclerotic:
        growth.deposits.append(Deposit(body, "rim", _rim(0.1, 0.22, size, rng), 0.06))
    if rng.random() < 0.4:
        growth.deposits.append(Deposit(body, "septa", rng.uniform(0.06, 0.12), 0.06))
    growth.signs = signs_of(
        spot.zone,
        destruction="geographic",
        margin="sclerotic" if sclerotic else "sharp",
        cortex="expanded" if wider else "scalloped",
    )
    return growth


def giant_cell_tumor(spot: Place, size: float, age: float, rng: np.random.Generator) -> Growth:
    """An eccentric lytic lesion at the bone's end, without a sclerotic rim, often soap-bubbled."""
    body, wider = _cavity(spot, size, rng, shift=0.45, swell=rng.uniform(0.8, 1.2), slim=1.0)
    growth = Growth("giant cell tumor", "giant cell tumor", spot.bone, {}, extent=[body])
    wider = wider or rng.random() < 0.3
    if wider:
        growth.solids.append(body)
    growth.lyses.append(Lysis(body, 0.92, 0.6, "geographic", 0.15))
    if rng.random() < 0.6:
        growth.deposits.append(Deposit(body, "septa", rng.uniform(0.08, 0.16), 0.15))
    breached = rng.random() < 0.3
    if breached:
        growth.lyses.append(Lysis(body, 0.3, 0.9, "moth-eaten", 0.15))
        lump = ball(spot, spot.surface, 0.3 * size, 0.18 * size, 0.25 * size)
        growth.masses.append(lump)
        growth.extent.append(lump)
    growth.signs = signs_of(
        spot.zone,
        destruction="geographic",
        margin="sharp" if rng.random() < 0.75 else "ill-defined",
        cortex="breached" if breached else ("expanded" if wider else "scalloped"),
        soft_tissue="mass" if breached else "none",
    )
    return growth


def osteofibroma(spot: Place, size: float, age: float, rng: np.random.Generator) -> Growth:
    """Ground glass and lobes in a widened cortex, with a thick sclerotic rim."""
    body, _ = _cavity(spot, size, rng, shift=0.75, swell=rng.uniform(0.75, 1.05), slim=0.5)
    growth = Growth("osteofibroma", "osteofibrous dysplasia", spot.bone, {}, extent=[body])
    growth.solids.append(body)
    growth.lyses.append(Lysis(body, 0.7, 0.55, "geographic", 0.2))
    glass = rng.random() < 0.7
    if glass:
        growth.deposits.append(Deposit(body, "glass", rng.uniform(0.04, 0.10), 0.2))
    growth.deposits.append(Deposit(body, "rim", _rim(0.3, 0.55, size, rng), 0.2))
    if rng.random() < 0.6:
        growth.deposits.append(Deposit(body, "septa", rng.uniform(0.1, 0.2), 0.2))
    growth.signs = signs_of(
        spot.zone,
        destruction="geographic",
        margin="sclerotic",
        matrix="ground-glass" if glass else "none",
        cortex="expanded",
    )
    return growth


def synovial_osteochondroma(
    spot: Place, size: float, age: float, rng: np.random.Generator
) -> Growth:
    """Round calcified bodies of similar size scattered through the joint's capsule."""
    growth = Growth("synovial osteochondroma", "synovial chondromatosis", spot.bone, {})
    count = int(np.clip(rng.poisson(size / 9), 2, 22))
    typical = np.clip(size * rng.uniform(0.08, 0.16), 2.0, 9.0)
    for number in range(count):
        if number == 0:
            spread = np.zeros(3)
        else:
            spread = rng.uniform(-0.5, 0.5, 3) * size
        # bodies lie in the recesses beside and behind the joint, not in the bone
        turned = rng.uniform(-2.4, 2.4)
        away = np.cos(turned) * spot.out * spot.depth + np.sin(turned) * spot.beside * spot.width
        away *= rng.uniform(1.02, 1.3) if size > 35 else rng.uniform(1.0, 1.12)
        if size <= 35:
            away = spot.out * spot.depth * 1.08 + 0.25 * spread
        centre = spot.centre + away + 0.6 * (spread @ spot.along) * spot.along
        radius = typical * rng.uniform(0.7, 1.3)
        axes = np.diag(radius * rng.uniform(0.8, 1.2, 3))
        body = Ellipsoid(centre, axes)
        growth.deposits.append(Deposit(body, "rim", rng.uniform(0.2, 0.6), 0.1))
        growth.deposits.append(Deposit(body, "rings", rng.uniform(0.05, 0.2), 0.1))
        growth.extent.append(body)
    growth.signs = signs_of("joint", matrix="chondroid", soft_tissue="bodies")
    return growth


def enchondroma(spot: Place, size: float, age: float, rng: np.random.Generator) -> Growth:
    """A lobulated central lesion with rings and arcs; lytic and widening in short bones."""
    short = spot.depth < 9
    swell = rng.uniform(0.9, 1.3) if short else rng.uniform(0.6, 0.92)
    body, wider = _cavity(spot, size, rng, shift=0.0, swell=swell, slim=0.8)
    growth = Growth("other bt", "enchondroma", spot.bone, {}, extent=[body])
    if wider:
        growth.solids.append(body)
    growth.lyses.append(Lysis(body, 0.85 if short else 0.45, 0.45, "geographic", 0.2))
    growth.deposits.append(Deposit(body, "rings", rng.uniform(0.2, 0.5), 0.2))
    growth.signs = signs_of(
        spot.zone,
        destruction="geographic",
        margin="sharp",
        matrix="chondroid",
        cortex="expanded" if wider else "scalloped",
    )
    return growth


def non_ossifying_fibroma(spot: Place, size: float, age: float, rng: np.random.Generator) -> Growth:
    """A lobulated lucency in the cortex of a metaphysis with a sclerotic, scalloped rim."""
    deep = min(0.32 * size, 0.55 * spot.depth)
    wide = min(0.34 * size, 0.7 * spot.width)
    centre = spot.surface - spot.out * 0.75 * deep
    body = ball(spot, centre, size / 2, deep, wide, 0.8)
    growth = Growth("other bt", "non-ossifying fibroma", spot.bone, {}, extent=[body])
    for number in (-0.5, 0.15, 0.6):  # lobes
        lobe = ball(spot, centre + spot.along * number * size * 0.4, 0.24 * size, deep, 0.8 * wide)
        growth.lyses.append(Lysis(lobe, 0.85, 0.6, "geographic", 0.1))
        growth.deposits.append(Deposit(lobe, "rim", _rim(0.2, 0.35, size, rng), 0.1))
    growth.signs = signs_of(
        spot.zone, destruction="geographic", margin="sclerotic", cortex="scalloped"
    )
    return growth


def osteoid_osteoma(spot: Place, size: float, age: float, rng: np.random.Generator) -> Growth:
    """A small round nidus in the cortex with a dense halo and a thickened cortex about it."""
    nidus_radius = float(np.clip(0.13 * size, 2.0, 5.5))
    centre = spot.surface - spot.out * 0.5 * spot.wall
    halo = ball(
        spot, centre, size / 2, min(0.2 * size, 0.7 * spot.depth), min(0.28 * size, spot.width)
    )
    nidus = Ellipsoid(centre, np.eye(3) * nidus_radius)
    growth = Growth("other bt", "osteoid osteoma", spot.bone, {}, extent=[halo])
    growth.deposits.append(Deposit(halo, "fill", rng.uniform(0.3, 0.5), 0.1))
    # the nidus is drawn as a hole in that sclerosis
    growth.deposits.append(Deposit(nidus, "fill", -0.75, 0.05))
    if rng.random() < 0.5:
        core = Ellipsoid(centre, np.eye(3) * nidus_radius * 0.35)
        growth.deposits.append(Deposit(core, "fill", 0.8, 0.05))
    growth.lyses.append(Lysis(nidus, 0.9, 0.8, "geographic", 0.05))
    growth.deposits += shells(spot, 0.42 * size, "solid", rng)
    growth.signs = signs_of(
        spot.zone,
        destruction="geographic",
        margin="sclerotic",
        matrix="osteoid",
        periosteum="solid",
    )
    return growth
