"""The finished picture: collimation, borders, side marker, and the habits of the three centres.

Centre 1 is a hospital with digital equipment, 2 and 3 are teaching collections with older film,
smaller pictures and harder JPEG (Yao et al. 2025 name the sources). Longer sides follow BTXRD's:
medians of 2,301, 1,640 and 1,024 pixels by centre; the other numbers are invented.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .physics import Exposure


@dataclass(frozen=True)
class Habit:
    """How one centre takes and stores pictures."""

    exposure: Exposure
    share: float  # of the asked-for size: the longer side of its pictures
    marker: bool
    collimated: bool
    border: float  # share of the width that is white or grey border
    quality: int  # JPEG
    blur: float = 0.0  # pixels, standard deviation: of the scanner or camera that copied a film
    grain: float = 0.0  # of the film, standard deviation as a share of the range
    glow: float = 0.0  # brightness that the light box loses from its middle to the corners


def habit(center: int, rng: np.random.Generator) -> Habit:
    """Draw the exposure and the film of one study."""
    digital = {1: 0.93, 2: 0.6, 3: 0.3}[center]
    curve = "digital" if rng.random() < digital else str(rng.choice(["film", "web"]))
    exposure = Exposure(
        photons=float(np.exp(rng.normal({1: 7.4, 2: 7.2, 3: 7.0}[center], 0.4))),
        scatter=float(rng.uniform(0.15, 0.35)),
        focus=float(rng.uniform(0.1, 0.3)),
        curve=curve,
        gain=float(np.exp(rng.normal({1: 0.0, 2: 0.1, 3: 0.05}[center], 0.12))),
        # of the films looked at BTXRD's two have black air, 122 of FracAtlas a median of .08 of the
        # grey range (.01 to .18 hold 90 %), nine of GRAZPEDWRI-DX .13
        air=float(rng.normal({1: 0.05, 2: 0.07, 3: 0.08}[center], 0.06)),
        tone=float(rng.normal({1: 0.34, 2: 0.38, 3: 0.40}[center], 0.04)),
        heel=float(rng.normal(0, 0.1)),
        local=float(rng.uniform(0.5, 1.0) if curve == "digital" else rng.uniform(0.0, 0.5)),
    )
    copied = curve == "film"
    return Habit(
        exposure=exposure,
        share={1: 1.0, 2: float(rng.uniform(0.5, 0.95)), 3: float(rng.uniform(0.35, 0.6))}[center],
        marker=bool(rng.random() < {1: 0.85, 2: 0.4, 3: 0.35}[center]),
        collimated=bool(rng.random() < {1: 0.5, 2: 0.35, 3: 0.4}[center]),
        border=float(rng.uniform(0.01, 0.04))
        if rng.random() < {1: 0.1, 2: 0.2, 3: 0.4}[center]
        else 0.0,
        quality=int(rng.integers(*{1: (90, 96), 2: (80, 93), 3: (70, 90)}[center])),
        blur=float(rng.uniform(0.4, 0.9)) if copied else 0.0,
        grain=float(rng.uniform(0.01, 0.03)) if copied else 0.0,
        glow=float(rng.uniform(0.0, 0.15)) if copied else 0.0,
    )


def finish(
    value: np.ndarray, *, side: str, habit: Habit, keep: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """Collimate, frame and mark a display image (0..1); returns 8 bit.

    ``keep`` (bool) marks what no border and no marker may cover: the lesion.
    """
    height, width = value.shape
    if habit.grain:
        value = _copy(value, habit, rng)
    if habit.collimated:
        value = _collimate(value, keep, rng)
    if habit.border:
        edge = max(1, int(habit.border * width))
        frame = np.ones_like(value, bool)
        frame[edge:-edge, edge:-edge] = False
        if keep is not None:
            frame &= ~keep
        value = np.where(frame, np.float32(rng.choice([0.02, 0.95])), value)
    picture = np.clip(value * 255 + 0.5, 0, 255).astype(np.uint8)
    if habit.marker:
        _mark(picture, "L" if side == "left" else "R", keep, rng)
    return picture


def _copy(value: np.ndarray, habit: Habit, rng: np.random.Generator) -> np.ndarray:
    """A film on a light box, seen by a scanner or a camera."""
    height, width = value.shape
    grains = cv2.GaussianBlur(rng.standard_normal(value.shape, np.float32), (0, 0), 0.7)
    value = cv2.GaussianBlur(value, (0, 0), habit.blur) + habit.grain / 0.4 * grains
    y, x = np.linspace(-1, 1, height)[:, None] ** 2, np.linspace(-1, 1, width)[None, :] ** 2
    return (value * (1 - habit.glow * (x + y) / 2)).astype(np.float32)


def _collimate(value: np.ndarray, keep: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    height, width = value.shape
    edges = np.array(
        [rng.uniform(0, 0.07) * s * (rng.random() < 0.6) for s in (height, height, width, width)]
    )
    top, bottom, left, right = edges[0], height - edges[1], edges[2], width - edges[3]
    if keep is not None and keep.any():
        rows, columns = np.flatnonzero(keep.any(1)), np.flatnonzero(keep.any(0))
        top, bottom = min(top, rows[0]), max(bottom, rows[-1] + 1)
        left, right = min(left, columns[0]), max(right, columns[-1] + 1)
    lean = np.tan(np.radians(rng.normal(0, 0.6)))
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    soft = max(0.6, width / 500)
    inside = np.minimum.reduce(
        [
            (y - top - lean * (x - left)) / soft + 0 * x,
            (bottom - y) / soft + 0 * x,
            (x - left + lean * (y - top)) / soft,
            (right - x) / soft + 0 * y,
        ]
    )
    if keep is not None:
        inside = np.where(keep, 1.0, inside)
    return (value * np.clip(inside, 0.02, 1)).astype(np.float32)


def _mark(
    picture: np.ndarray, letter: str, keep: np.ndarray | None, rng: np.random.Generator
) -> None:
    """Burn the side letter into a corner that covers no lesion."""
    height, width = picture.shape
    scale = max(0.35, width / 480 * rng.uniform(0.6, 1.1))
    thick = max(1, int(round(scale * 1.6)))
    (w, h), _ = cv2.getTextSize(letter, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    margin = 0.04 * width
    for _ in range(6):
        x = int(margin if rng.random() < 0.5 else width - margin - w)
        y = int(h + rng.uniform(0.03, 0.25) * height)
        if rng.random() < 0.3:
            y = int(height - rng.uniform(0.03, 0.2) * height)
        box = (slice(max(0, y - h - 1), y + 2), slice(max(0, x - 1), x + w + 2))
        if keep is None or not keep[box].any():
            colour = int(rng.integers(215, 256))
            cv2.putText(
                picture, letter, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thick, cv2.LINE_AA
            )
            return
