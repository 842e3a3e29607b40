"""Growing bones: height for age, when bones appear, when growth plates close; and short bones."""

from __future__ import annotations

import numpy as np

from .scene import Cut
from .solids import Tube, bone_rows


def stature(age: float) -> float:
    """Height for age as a share of adult height (WHO 2007 reference, both sexes, smoothed)."""
    ages = [0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    shares = [0.29, 0.44, 0.51, 0.60, 0.68, 0.75, 0.81, 0.87, 0.94, 0.985, 1.0]
    return float(np.interp(age, ages, shares))


def ossified(age: float, appears: float, full: float) -> float:
    """Share of its final size that the ossified part of a small bone has; 0 before it appears."""
    if age < appears:
        return 0.0
    return float(np.clip(0.45 + 0.55 * (age - appears) / (full - appears), 0.45, 1.0))


def growth_plate(
    solid: Tube, at: float, age: float, closes: float, rng: np.random.Generator, k: float = 1.0
) -> list[Cut]:
    """An open plate before the closing age, a fine dense scar for three years after it.

    ``k`` is 1 for large long bones; short bones have narrower plates.
    """
    point, tangent, _, (a, _, _) = solid.section(at)
    broad = min(1.0, a / 22)
    if age < closes:
        gap = (1.0 + 0.6 * broad + 1.6 * broad * min(1.0, (closes - age) / 8)) * rng.uniform(
            0.85, 1.15
        )
        wave = 0.3 + 1.0 * broad
        return [Cut(point, tangent, float(gap), wave=wave, plate=0.8 + 0.8 * broad)]
    if age < closes + 3 and broad > 0.4:
        return [Cut(point, tangent, 0.0, wave=1.0, plate=0.8)]
    return []


def strut(
    start: np.ndarray,
    end: np.ndarray,
    widths: tuple[float, float, float],
    k: float,
    thin: float,
    *,
    side: tuple[float, float, float],
    depth: float = 0.9,
) -> Tube:
    """A short tubular bone: half widths (mm) of base, shaft and head, times ``k``."""
    base, shaft, head = (w * k for w in widths)
    s = np.array([0, 0.08, 0.22, 0.5, 0.72, 0.86, 0.95, 1.0])
    a = np.array(
        [
            base * 0.92,
            base,
            (base + 2.2 * shaft) / 3.2,
            shaft,
            shaft * 1.1,
            head * 0.9,
            head,
            head * 0.9,
        ]
    )
    wall = shaft * thin * np.array([0.14, 0.14, 0.34, 0.5, 0.4, 0.18, 0.13, 0.13])
    spongy = [0.26, 0.24, 0.14, 0.05, 0.1, 0.2, 0.26, 0.26]
    points = start + np.outer(s, end - start)
    # the palmar side is hollowed: the shaft bows a little
    return Tube(
        bone_rows(s, points, a, a * depth, wall, spongy),
        caps=(0.25 * base, 0.75 * head),
        side=side,
        plate=0.7,
        samples=32,
    )
