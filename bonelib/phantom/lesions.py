"""The nine BTXRD entities and their diagnoses, drawn from their signs.

Signs follow the standard descriptions (Greenspan and Remagen, Differential Diagnosis of Tumors and
Tumor-like Lesions of Bones and Joints; WHO Classification of Tumours, Soft Tissue and Bone, 5th ed.
2020), destruction patterns Lodwick et al. 1980, Radiology 134:577. Entities overlap on purpose: a
geographic lesion with a sclerotic rim may be any of four. ``size`` is the longest extent in mm.

``entities.csv`` holds the sizes (mm in an adult long bone, smallest and largest longest extent),
``lesion_zones.csv`` the share of lesions by zone, for an entity or for one of its diagnoses that
sits elsewhere; a zone that a bone lacks drops out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .blocks import Ellipsoid
from .files import rows
from .place import Place, add_shells, ball
from .signs import Deposit, Growth, Lysis
from .solids import Tube, bone_rows


def osteochondroma(spot: Place, size: float, rng: np.random.Generator) -> Growth:
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
    points = start + np.outer(steps, axis) * reach
    widths = np.array([base, base, 0.75 * base if stalked else 0.85 * base, head, 0.8 * head])
    sides = np.array([narrow, narrow, 0.8 * narrow, 0.9 * head, 0.75 * head])
    wall = float(np.clip(0.06 * size, 0.5, 1.3))
    shape = {"caps": (0.2, 0.9 * head), "side": tuple(spot.along)}
    exophyte = Tube(bone_rows(steps, points, widths, sides, wall, 0.12), plate=wall, **shape)
    outside = Tube(bone_rows(steps[1:], points[1:], widths[1:], sides[1:], wall, 0.1), **shape)
    cap = Ellipsoid(start + axis * (reach - 0.9 * head), np.eye(3) * head * 0.95, 0.6, 0.1)
    rings = Deposit(cap, "rings", rng.uniform(0.03, 0.14))
    growth = Growth(spot.bone, solids=[exophyte], deposits=[rings], extent=[outside])
    seen = "chondroid" if rings.amount > 0.07 else "none"
    return growth.with_signs(spot.zone, margin="none", matrix=seen, cortex="continuous")


def multiple_osteochondromas(spot: Place, size: float, rng: np.random.Generator) -> Growth:
    """One of several osteochondromas of a patient, often broad-based on a widened metaphysis."""
    growth = osteochondroma(spot, size, rng)
    if rng.random() < 0.5:  # undertubulation: the metaphysis is broad
        depth, width = 1.12 * spot.depth, 1.12 * spot.width
        growth.solids.append(ball(spot, spot.centre, 1.6 * spot.depth, depth, width, spot.wall))
    return growth


def _cavity(
    spot: Place, size: float, *, shift: float, swell: float, slim: float
) -> tuple[Growth, Ellipsoid, bool]:
    """A growth with an intramedullary ellipsoid of length ``size``; True where it widens the bone.

    ``shift`` is the eccentricity as a share of the bone's depth, ``slim`` the widest ratio of width
    to length.
    """
    deep = min(spot.depth * swell, slim * size / 2)
    wide = min(spot.width * swell, slim * size / 2)
    centre = spot.inside(size) + spot.seat(deep, shift)
    body = ball(spot, centre, size / 2, deep, wide, 0.8)
    widens = bool(shift * spot.depth + deep > spot.depth and swell > 1.0)
    return Growth(spot.bone, solids=[body] * widens, extent=[body]), body, widens


def _rim(low: float, high: float, size: float, rng: np.random.Generator) -> float:
    """Share of bone in a sclerotic rim: the thin rims of small lesions are denser."""
    return float(rng.uniform(low, high) * np.clip(22 / size, 1, 3))


def simple_bone_cyst(spot: Place, size: float, rng: np.random.Generator) -> Growth:
    """A central clear cavity with a thin rim that thins and may widen the bone."""
    swell = rng.uniform(0.85, 1.25)
    growth, body, wider = _cavity(spot, size, shift=0.05, swell=swell, slim=0.75)
    growth.lyses.append(Lysis(body, 0.95, 0.65, "geographic", 0.06))
    rim = rng.random() < 0.8
    if rim:
        growth.deposits.append(Deposit(body, "rim", _rim(0.1, 0.22, size, rng), 0.06))
    if rng.random() < 0.4:
        growth.deposits.append(Deposit(body, "septa", rng.uniform(0.06, 0.12), 0.06))
    margin, cortex = "sclerotic" if rim else "sharp", "expanded" if wider else "scalloped"
    return growth.with_signs(spot.zone, margin=margin, cortex=cortex)


def giant_cell_tumor(spot: Place, size: float, rng: np.random.Generator) -> Growth:
    """An eccentric lytic lesion at the bone's end, without a sclerotic rim, often soap-bubbled."""
    swell = rng.uniform(0.8, 1.2)
    growth, body, wider = _cavity(spot, size, shift=0.45, swell=swell, slim=1.0)
    wider = wider or rng.random() < 0.3
    growth.solids = [body] * wider
    growth.lyses.append(Lysis(body, 0.92, 0.6, "geographic", 0.15))
    if rng.random() < 0.6:
        growth.deposits.append(Deposit(body, "septa", rng.uniform(0.08, 0.16), 0.15))
    breached = rng.random() < 0.3
    if breached:
        growth.lyses.append(Lysis(body, 0.3, 0.9, "moth-eaten", 0.15))
        growth.add_mass(ball(spot, spot.surface, 0.3 * size, 0.18 * size, 0.25 * size))
    margin = "sharp" if rng.random() < 0.75 else "ill-defined"
    cortex = "breached" if breached else ("expanded" if wider else "scalloped")
    return growth.with_signs(spot.zone, margin=margin, cortex=cortex)


def osteofibroma(spot: Place, size: float, rng: np.random.Generator) -> Growth:
    """Ground glass and lobes in a widened cortex, with a thick sclerotic rim."""
    swell = rng.uniform(0.75, 1.05)
    growth, body, _ = _cavity(spot, size, shift=0.75, swell=swell, slim=0.5)
    growth.solids = [body]
    growth.lyses.append(Lysis(body, 0.7, 0.55, "geographic", 0.2))
    if rng.random() < 0.7:
        growth.deposits.append(Deposit(body, "glass", rng.uniform(0.04, 0.10), 0.2))
    growth.deposits.append(Deposit(body, "rim", _rim(0.3, 0.55, size, rng), 0.2))
    if rng.random() < 0.6:
        growth.deposits.append(Deposit(body, "septa", rng.uniform(0.1, 0.2), 0.2))
    return growth.with_signs(spot.zone, margin="sclerotic", cortex="expanded")


def synovial_osteochondroma(spot: Place, size: float, rng: np.random.Generator) -> Growth:
    """Round calcified bodies of similar size scattered through the joint's capsule."""
    growth = Growth(spot.bone)
    count = int(np.clip(rng.poisson(size / 9), 2, 22))
    typical = np.clip(size * rng.uniform(0.08, 0.16), 2.0, 9.0)
    for number in range(count):
        spread = rng.uniform(-0.5, 0.5, 3) * size if number else np.zeros(3)
        # bodies lie in the recesses beside and behind the joint, not in the bone
        turned = rng.uniform(-2.4, 2.4)
        away = np.cos(turned) * spot.out * spot.depth + np.sin(turned) * spot.beside * spot.width
        away *= rng.uniform(1.02, 1.3) if size > 35 else rng.uniform(1.0, 1.12)
        if size <= 35:
            away = spot.out * spot.depth * 1.08 + 0.25 * spread
        centre = spot.centre + away + 0.6 * (spread @ spot.along) * spot.along
        radius = typical * rng.uniform(0.7, 1.3)
        body = Ellipsoid(centre, np.diag(radius * rng.uniform(0.8, 1.2, 3)))
        growth.deposits.append(Deposit(body, "rim", rng.uniform(0.2, 0.6), 0.1))
        growth.deposits.append(Deposit(body, "rings", rng.uniform(0.05, 0.2), 0.1))
        growth.extent.append(body)
    return growth.with_signs("joint", margin="none", cortex="intact", soft_tissue="bodies")


def enchondroma(spot: Place, size: float, rng: np.random.Generator) -> Growth:
    """A lobulated central lesion with rings and arcs; lytic and widening in short bones."""
    short = spot.depth < 9
    swell = rng.uniform(0.9, 1.3) if short else rng.uniform(0.6, 0.92)
    growth, body, wider = _cavity(spot, size, shift=0.0, swell=swell, slim=0.8)
    growth.lyses.append(Lysis(body, 0.85 if short else 0.45, 0.45, "geographic", 0.2))
    growth.deposits.append(Deposit(body, "rings", rng.uniform(0.2, 0.5), 0.2))
    return growth.with_signs(spot.zone, margin="sharp", cortex="expanded" if wider else "scalloped")


def non_ossifying_fibroma(spot: Place, size: float, rng: np.random.Generator) -> Growth:
    """A lobulated lucency in the cortex of a metaphysis with a sclerotic, scalloped rim."""
    deep = min(0.32 * size, 0.55 * spot.depth)
    wide = min(0.34 * size, 0.7 * spot.width)
    centre = spot.surface - spot.out * 0.75 * deep
    growth = Growth(spot.bone, extent=[ball(spot, centre, size / 2, deep, wide, 0.8)])
    for number in (-0.5, 0.15, 0.6):  # lobes
        lobe = ball(spot, centre + spot.along * number * size * 0.4, 0.24 * size, deep, 0.8 * wide)
        growth.lyses.append(Lysis(lobe, 0.85, 0.6, "geographic", 0.1))
        growth.deposits.append(Deposit(lobe, "rim", _rim(0.2, 0.35, size, rng), 0.1))
    return growth.with_signs(spot.zone, margin="sclerotic", cortex="scalloped")


def osteoid_osteoma(spot: Place, size: float, rng: np.random.Generator) -> Growth:
    """A small round nidus in the cortex with a dense halo and a thickened cortex about it."""
    radius = float(np.clip(0.13 * size, 2.0, 5.5))
    centre = spot.surface - spot.out * 0.5 * spot.wall
    deep, wide = min(0.2 * size, 0.7 * spot.depth), min(0.28 * size, spot.width)
    halo = ball(spot, centre, size / 2, deep, wide)
    nidus = Ellipsoid(centre, np.eye(3) * radius)
    growth = Growth(spot.bone, extent=[halo])
    growth.deposits.append(Deposit(halo, "fill", rng.uniform(0.3, 0.5), 0.1))
    # the nidus is drawn as a hole in that sclerosis
    growth.deposits.append(Deposit(nidus, "fill", -0.75, 0.05))
    if rng.random() < 0.5:
        core = Ellipsoid(centre, np.eye(3) * radius * 0.35)
        growth.deposits.append(Deposit(core, "fill", 0.8, 0.05))
    growth.lyses.append(Lysis(nidus, 0.9, 0.8, "geographic", 0.05))
    add_shells(growth, spot, 0.42 * size, "solid", rng)
    return growth.with_signs(spot.zone, margin="sclerotic", matrix="osteoid", cortex="intact")


def _pick(odds: dict[str, float], rng: np.random.Generator) -> str:
    """One term by its weight."""
    return str(rng.choice(list(odds), p=list(odds.values())))


def osteosarcoma(spot: Place, size: float, rng: np.random.Generator) -> Growth:
    """Destruction with cloudy bone matrix, a breached cortex, a mass and a wild periosteum."""
    long = size / 2
    wide = min(0.95 * spot.width, 0.7 * size)
    centre = spot.inside(size) + spot.out * 0.3 * spot.depth
    core = ball(spot, centre, long, min(1.05 * spot.depth, 0.7 * size), wide)
    pattern = _pick({"moth-eaten": 0.5, "permeative": 0.35, "geographic": 0.15}, rng)
    reactions = {"sunburst": 0.4, "codman": 0.25, "lamellated": 0.15, "none": 0.2}
    periosteum = _pick(reactions, rng)
    blastic = rng.beta(1.3, 1.3)
    growth = Growth(spot.bone, extent=[core], lyses=[Lysis(core, 0.9, 0.7, pattern, 0.3)])
    if blastic > 0.2:
        growth.deposits.append(Deposit(core, "cloud", 0.05 + 0.28 * blastic, 0.3))
    if rng.random() < 0.75:
        deep = size * rng.uniform(0.2, 0.34)
        middle = spot.surface + spot.out * 0.35 * deep
        lump = ball(spot, middle, 0.8 * long, deep, 0.8 * wide + deep * 0.5)
        growth.add_mass(lump)
        if periosteum == "sunburst":
            origin = spot.centre + 0.4 * spot.depth * spot.out
            growth.deposits.append(Deposit(lump, "rays", rng.uniform(0.2, 0.4), 0.2, origin))
        elif blastic > 0.4:
            growth.deposits.append(Deposit(lump, "cloud", 0.1 * blastic, 0.3))
    if periosteum != "none":
        add_shells(growth, spot, long, periosteum, rng)
    return growth.with_signs(spot.zone, margin="ill-defined", cortex="breached")


def ewing_sarcoma(spot: Place, size: float, rng: np.random.Generator) -> Growth:
    """Permeative destruction of a shaft with onion-skin layers and a large mass without matrix."""
    long = size / 2
    core = ball(spot, spot.inside(size), long, 1.02 * spot.depth, 1.02 * spot.width)
    pattern = "permeative" if rng.random() < 0.75 else "moth-eaten"
    growth = Growth(spot.bone, extent=[core], lyses=[Lysis(core, 0.9, 0.7, pattern, 0.25)])
    kind = _pick({"lamellated": 0.7, "codman": 0.2, "sunburst": 0.1}, rng)
    add_shells(growth, spot, 0.85 * long, kind, rng)
    if rng.random() < 0.85:
        deep = float(np.clip(0.22 * size, 6, 45))
        middle = spot.surface + 0.3 * deep * spot.out
        growth.add_mass(ball(spot, middle, 0.85 * long, deep, spot.width + 0.4 * deep))
    return growth.with_signs(spot.zone, margin="ill-defined", cortex="breached")


def chondrosarcoma(spot: Place, size: float, rng: np.random.Generator) -> Growth:
    """A large lobulated lesion with dense rings and arcs, endosteal scalloping and a mass."""
    deep, wide = (min(1.05 * half, 0.45 * size) for half in (spot.depth, spot.width))
    core = ball(spot, spot.inside(size), size / 2, deep, wide, 0.8)
    pattern = _pick({"geographic": 0.5, "moth-eaten": 0.5}, rng)
    growth = Growth(spot.bone, extent=[core], lyses=[Lysis(core, 0.8, 0.5, pattern, 0.25)])
    growth.deposits.append(Deposit(core, "rings", rng.uniform(0.2, 0.5), 0.25))
    if rng.random() < 0.6:
        deep = size * rng.uniform(0.15, 0.28)
        middle = spot.surface + 0.3 * deep * spot.out
        lump = ball(spot, middle, 0.35 * size, deep, 0.3 * size)
        growth.add_mass(lump)
        growth.deposits.append(Deposit(lump, "rings", rng.uniform(0.1, 0.3), 0.2))
    cortex = "breached" if growth.masses else "scalloped"
    return growth.with_signs(spot.zone, margin="ill-defined", cortex=cortex)


def metastasis(spot: Place, size: float, rng: np.random.Generator) -> Growth:
    """A lytic or blastic focus without periosteal reaction, in the old."""
    deep, wide = min(spot.depth, 0.45 * size), min(spot.width, 0.45 * size)
    centre = spot.inside(size) + spot.seat(deep, abs(0.3 * rng.normal()))
    core = ball(spot, centre, size / 2, deep, wide)
    blastic = rng.random() < 0.25
    growth = Growth(spot.bone, extent=[core])
    if blastic:
        growth.deposits.append(Deposit(core, "cloud", rng.uniform(0.15, 0.35), 0.3))
    else:
        pattern = _pick({"geographic": 0.45, "moth-eaten": 0.55}, rng)
        growth.lyses.append(Lysis(core, 0.9, 0.75, pattern, 0.3))
    cortex = "intact" if blastic else "breached"
    return growth.with_signs(spot.zone, margin="ill-defined", cortex=cortex)


Drawer = Callable[[Place, float, np.random.Generator], Growth]

# BTXRD column -> diagnosis -> how it is drawn
ENTITIES: dict[str, dict[str, Drawer]] = {
    "osteochondroma": {"osteochondroma": osteochondroma},
    "multiple osteochondromas": {"hereditary multiple exostoses": multiple_osteochondromas},
    "simple bone cyst": {"simple bone cyst": simple_bone_cyst},
    "giant cell tumor": {"giant cell tumor": giant_cell_tumor},
    "osteofibroma": {"osteofibrous dysplasia": osteofibroma},
    "synovial osteochondroma": {"synovial chondromatosis": synovial_osteochondroma},
    "other bt": {
        "enchondroma": enchondroma,
        "non-ossifying fibroma": non_ossifying_fibroma,
        "osteoid osteoma": osteoid_osteoma,
    },
    "osteosarcoma": {"osteosarcoma": osteosarcoma},
    "other mt": {
        "Ewing sarcoma": ewing_sarcoma,
        "chondrosarcoma": chondrosarcoma,
        "metastasis": metastasis,
    },
}


def sizes(entity: str) -> tuple[float, float]:
    """Smallest and largest longest extent of an entity in an adult long bone, mm."""
    row = rows("entities.csv", entity=entity)[0]
    return row["smallest"], row["largest"]


def zones(entity: str, kind: str) -> dict[str, float]:
    """Share of lesions by zone of the bone."""
    found = rows("lesion_zones.csv", lesion=kind) or rows("lesion_zones.csv", lesion=entity)
    return {row["zone"]: row["share"] for row in found}


def kinds(entity: str, age: float, site: str) -> tuple[list[str], np.ndarray]:
    """The diagnoses of an entity and how likely each is at an age and site."""
    names = list(ENTITIES[entity])
    weights = np.ones(len(names))
    if entity == "other bt" and site in ("hand", "foot"):
        weights = np.array([4.0, 0.05, 0.3])
    elif entity == "other bt":
        chondroma = 0.5 + min(age, 50) / 30
        weights = np.array([chondroma, 3.0 if age < 25 else 0.2, 1.5 if age < 30 else 0.3])
    elif entity == "other mt":
        young = (3.0, 0.3) if age < 25 else (0.1, 1.5)
        weights = np.array([*young, 0.02 if age < 35 else 1.5])
    return names, weights / weights.sum()
