"""The nine BTXRD entities: which diagnoses each holds, how large they are, where they sit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import benign, malignant
from .place import Place
from .signs import Growth

Drawer = Callable[[Place, float, float, np.random.Generator], Growth]

# BTXRD column -> diagnosis -> how it is drawn
ENTITIES: dict[str, dict[str, Drawer]] = {
    "osteochondroma": {"osteochondroma": benign.osteochondroma},
    "multiple osteochondromas": {"hereditary multiple exostoses": benign.multiple_osteochondromas},
    "simple bone cyst": {"simple bone cyst": benign.simple_bone_cyst},
    "giant cell tumor": {"giant cell tumor": benign.giant_cell_tumor},
    "osteofibroma": {"osteofibrous dysplasia": benign.osteofibroma},
    "synovial osteochondroma": {"synovial chondromatosis": benign.synovial_osteochondroma},
    "other bt": {
        "enchondroma": benign.enchondroma,
        "non-ossifying fibroma": benign.non_ossifying_fibroma,
        "osteoid osteoma": benign.osteoid_osteoma,
    },
    "osteosarcoma": {"osteosarcoma": malignant.osteosarcoma},
    "other mt": {
        "Ewing sarcoma": malignant.ewing_sarcoma,
        "chondrosarcoma": malignant.chondrosarcoma,
        "metastasis": malignant.metastasis,
    },
}
# mm in an adult long bone: smallest and largest longest extent
SIZES = {
    "osteochondroma": (6, 80),
    "multiple osteochondromas": (6, 80),
    "simple bone cyst": (6, 110),
    "giant cell tumor": (14, 100),
    "osteofibroma": (14, 110),
    "synovial osteochondroma": (8, 110),
    "other bt": (8, 90),
    "osteosarcoma": (20, 190),
    "other mt": (16, 180),
}
# share of lesions by zone; a zone that a bone lacks drops out
_METAPHYSIS = {"distal": 0.5, "proximal": 0.4, "diaphysis": 0.05, "body": 0.5}
ZONES: dict[str, dict[str, float]] = {
    "osteochondroma": _METAPHYSIS,
    "multiple osteochondromas": _METAPHYSIS,
    "simple bone cyst": {"distal": 0.15, "proximal": 0.55, "diaphysis": 0.3, "body": 0.5},
    "giant cell tumor": {
        "distal end": 0.5, "proximal end": 0.5, "distal": 0.1, "proximal": 0.1, "body": 0.1,
    },
    "osteofibroma": {"diaphysis": 0.7, "proximal": 0.15, "distal": 0.15, "body": 0.1},
    "synovial osteochondroma": {
        "distal end": 0.5, "proximal end": 0.5, "distal joint": 1.0, "head": 1.0, "body": 0.3,
    },
    "other bt": {"distal": 0.35, "proximal": 0.3, "diaphysis": 0.35, "body": 0.3},
    "osteosarcoma": {"distal": 0.5, "proximal": 0.35, "diaphysis": 0.12, "body": 0.5},
    "other mt": {"diaphysis": 0.55, "proximal": 0.25, "distal": 0.2, "body": 0.5},
}  # fmt: skip


# where a diagnosis sits elsewhere than its entity
KIND_ZONES: dict[str, dict[str, float]] = {
    "non-ossifying fibroma": {"distal": 0.6, "proximal": 0.35, "diaphysis": 0.05, "body": 0.2},
    "osteoid osteoma": {"diaphysis": 0.6, "proximal": 0.25, "distal": 0.15, "body": 0.3},
    "chondrosarcoma": {"proximal": 0.5, "distal": 0.3, "diaphysis": 0.2, "body": 0.5},
    "metastasis": {"diaphysis": 0.45, "proximal": 0.45, "distal": 0.1, "body": 0.5},
}


def kinds(entity: str, age: float, site: str) -> tuple[list[str], np.ndarray]:
    """The diagnoses of an entity and how likely each is at an age and site."""
    names = list(ENTITIES[entity])
    weights = np.ones(len(names))
    if entity == "other bt":
        small = site in ("hand", "foot")
        weights = np.array([
            4.0 if small else 0.5 + min(age, 50) / 30,
            0.05 if small else (3.0 if age < 25 else 0.2),
            0.3 if small else (1.5 if age < 30 else 0.3),
        ])  # fmt: skip
    elif entity == "other mt":
        weights = np.array([
            3.0 if age < 25 else 0.1,
            0.3 if age < 25 else 1.5,
            0.02 if age < 35 else 1.5,
        ])  # fmt: skip
    return names, weights / weights.sum()
