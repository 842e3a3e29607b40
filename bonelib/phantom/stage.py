"""Set up a patient for one view: which scene shows a site, and where on its bones a lesion may sit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .leg import leg, stature
from .scene import Scene, projection

# site -> (bone, zones), the zones in which its lesions sit and on which its normal pictures centre
PLACES: dict[str, list[tuple[str, str]]] = {
    "femur": [("femur", "distal"), ("femur", "diaphysis"), ("femur", "proximal")],
    "tibia": [("tibia", "proximal"), ("tibia", "diaphysis"), ("tibia", "distal")],
    "fibula": [("fibula", "proximal"), ("fibula", "diaphysis"), ("fibula", "distal")],
    "knee-joint": [("tibia", "proximal end"), ("femur", "distal end")],
}


@dataclass
class Pose:
    """How the patient is placed for one picture."""

    view: str
    side: str
    turn: float  # degrees about the limb, error of positioning
    tilt: float  # degrees in the picture's plane


def pose(view: str, side: str, rng: np.random.Generator) -> Pose:
    """Positioning with its usual errors."""
    return Pose(view, side, float(rng.normal(0, 5)), float(rng.normal(0, 4)))


def build(site: str, age: int, sex: str, placed: Pose, key: tuple[int, ...]) -> Scene:
    """The scene that shows ``site``; ``key`` fixes the anatomy, so that all views share it."""
    rng = np.random.default_rng([*key, 21])
    girth = float(np.exp(rng.normal(0, 0.18)))
    bend = 22.0 if placed.view == "lateral" else 3.0
    bones, flesh = leg(age, sex, flexion=bend, girth=girth, rng=rng)
    view = projection(placed.view, placed.side, jitter=(placed.turn, placed.tilt))
    return Scene("leg", bones, flesh, view, np.zeros(3), 330.0 * stature(age) ** 0.7)
