"""Malignant bone tumours, drawn from their signs.

Signs follow the standard descriptions (Greenspan and Remagen; WHO Classification of Tumours, Soft
Tissue and Bone, 5th ed. 2020); destruction patterns Lodwick et al. 1980, Radiology 134:577.
"""

from __future__ import annotations

import numpy as np

from .place import Place, ball, shells, signs_of
from .signs import Deposit, Growth, Lysis


def osteosarcoma(spot: Place, size: float, age: float, rng: np.random.Generator) -> Growth:
    """Destruction with cloudy bone matrix, a breached cortex, a mass and a wild periosteum."""
    long = size / 2
    wide = min(0.95 * spot.width, 0.7 * size)
    centre = spot.inside(size) + spot.out * 0.3 * spot.depth
    core = ball(spot, centre, long, min(1.05 * spot.depth, 0.7 * size), wide)
    pattern = str(rng.choice(["moth-eaten", "permeative", "geographic"], p=[0.5, 0.35, 0.15]))
    periosteum = str(
        rng.choice(["sunburst", "codman", "lamellated", "none"], p=[0.4, 0.25, 0.15, 0.2])
    )
    blastic = rng.beta(1.3, 1.3)
    growth = Growth("osteosarcoma", "osteosarcoma", spot.bone, {}, extent=[core])
    growth.lyses.append(Lysis(core, 0.9, 0.7, pattern, 0.3))
    if blastic > 0.2:
        growth.deposits.append(Deposit(core, "cloud", 0.05 + 0.28 * blastic, 0.3))
    mass = rng.random() < 0.75
    if mass:
        deep = size * rng.uniform(0.2, 0.34)
        lump = ball(
            spot, spot.surface + spot.out * 0.35 * deep, 0.8 * long, deep, 0.8 * wide + deep * 0.5
        )
        growth.masses.append(lump)
        growth.extent.append(lump)
        if periosteum == "sunburst":
            origin = spot.centre + 0.4 * spot.depth * spot.out
            growth.deposits.append(Deposit(lump, "rays", rng.uniform(0.2, 0.4), 0.2, origin))
        elif blastic > 0.4:
            growth.deposits.append(Deposit(lump, "cloud", 0.1 * blastic, 0.3))
    if periosteum in ("codman", "lamellated", "sunburst"):
        growth.deposits += shells(spot, long, periosteum, rng)
    growth.signs = signs_of(
        spot.zone,
        destruction=pattern,
        margin="ill-defined",
        matrix="osteoid" if blastic > 0.2 else "none",
        cortex="breached",
        periosteum=periosteum,
        soft_tissue="mass" if mass else "none",
    )
    return growth


def ewing_sarcoma(spot: Place, size: float, age: float, rng: np.random.Generator) -> Growth:
    """Permeative destruction of a shaft with onion-skin layers and a large mass without matrix."""
    long = size / 2
    core = ball(spot, spot.inside(size), long, 1.02 * spot.depth, 1.02 * spot.width)
    growth = Growth("other mt", "Ewing sarcoma", spot.bone, {}, extent=[core])
    pattern = "permeative" if rng.random() < 0.75 else "moth-eaten"
    growth.lyses.append(Lysis(core, 0.9, 0.7, pattern, 0.25))
    kind = str(rng.choice(["lamellated", "codman", "sunburst"], p=[0.7, 0.2, 0.1]))
    growth.deposits += shells(spot, 0.85 * long, kind, rng)
    mass = rng.random() < 0.85
    if mass:
        deep = float(np.clip(0.22 * size, 6, 45))
        lump = ball(
            spot, spot.surface + 0.3 * deep * spot.out, 0.85 * long, deep, spot.width + 0.4 * deep
        )
        growth.masses.append(lump)
        growth.extent.append(lump)
    growth.signs = signs_of(
        spot.zone,
        destruction=pattern,
        margin="ill-defined",
        cortex="breached",
        periosteum=kind,
        soft_tissue="mass" if mass else "none",
    )
    return growth


def chondrosarcoma(spot: Place, size: float, age: float, rng: np.random.Generator) -> Growth:
    """A large lobulated lesion with dense rings and arcs, endosteal scalloping and a mass."""
    wide = min(1.05 * spot.width, 0.45 * size)
    core = ball(spot, spot.inside(size), size / 2, min(1.05 * spot.depth, 0.45 * size), wide, 0.8)
    growth = Growth("other mt", "chondrosarcoma", spot.bone, {}, extent=[core])
    pattern = str(rng.choice(["geographic", "moth-eaten"], p=[0.5, 0.5]))
    growth.lyses.append(Lysis(core, 0.8, 0.5, pattern, 0.25))
    growth.deposits.append(Deposit(core, "rings", rng.uniform(0.2, 0.5), 0.25))
    mass = rng.random() < 0.6
    if mass:
        deep = size * rng.uniform(0.15, 0.28)
        lump = ball(spot, spot.surface + 0.3 * deep * spot.out, 0.35 * size, deep, 0.3 * size)
        growth.masses.append(lump)
        growth.deposits.append(Deposit(lump, "rings", rng.uniform(0.1, 0.3), 0.2))
        growth.extent.append(lump)
    growth.signs = signs_of(
        spot.zone,
        destruction=pattern,
        margin="ill-defined",
        matrix="chondroid",
        cortex="breached" if mass else "scalloped",
        soft_tissue="mass" if mass else "none",
    )
    return growth


def metastasis(spot: Place, size: float, age: float, rng: np.random.Generator) -> Growth:
    """A lytic or blastic focus without periosteal reaction, in the old."""
    deep = min(spot.depth, 0.45 * size)
    core = ball(
        spot,
        spot.inside(size) + spot.seat(deep, abs(0.3 * rng.normal())),
        size / 2,
        deep,
        min(spot.width, 0.45 * size),
    )
    blastic = rng.random() < 0.25
    growth = Growth("other mt", "metastasis", spot.bone, {}, extent=[core])
    pattern = "none" if blastic else str(rng.choice(["geographic", "moth-eaten"], p=[0.45, 0.55]))
    if blastic:
        growth.deposits.append(Deposit(core, "cloud", rng.uniform(0.15, 0.35), 0.3))
    else:
        growth.lyses.append(Lysis(core, 0.9, 0.75, pattern, 0.3))
    growth.signs = signs_of(
        spot.zone,
        destruction=pattern,
        margin="ill-defined",
        matrix="osteoid" if blastic else "none",
        cortex="intact" if blastic else "breached",
    )
    return growth
