"""Solid bodies, and first among them the tube: a long bone, a limb, a rib.

A body is asked for one thing: along the parallel ray of each pixel, where does the ray enter and
leave? Unions of bodies count shared stretches once (``rays.Path``), so that a stalk opens into the
marrow of its bone instead of adding to it. Three bodies suffice: tubes swept along a curve with
elliptic sections, ellipsoids, and slabs cut along an outline (``blocks.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .blocks import Ellipsoid, Slab
from .rays import Grid, Shadow, rotated


def _smooth(knots: np.ndarray, columns: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Cubic Hermite interpolation with limited slopes (no overshoot), all columns at once."""
    steps = np.diff(knots)
    slopes = np.diff(columns, axis=0) / steps[:, None]
    tangents = np.empty_like(columns)
    tangents[0], tangents[-1] = slopes[0], slopes[-1]
    if len(knots) > 2:
        a, b = slopes[:-1], slopes[1:]
        # harmonic mean where the slopes agree, as in Fritsch and Butland 1984
        same = a * b > 0
        tangents[1:-1] = np.where(same, 2 * a * b / np.where(same, a + b, 1), 0)
    i = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(steps) - 1)
    step = steps[i][:, None]
    t = ((at - knots[i]) / steps[i])[:, None]
    t2, t3 = t * t, t * t * t
    return (
        (2 * t3 - 3 * t2 + 1) * columns[i]
        + (t3 - 2 * t2 + t) * step * tangents[i]
        + (3 * t2 - 2 * t3) * columns[i + 1]
        + (t3 - t2) * step * tangents[i + 1]
    )


def _between(
    half: np.ndarray, middle: np.ndarray, low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the stretches ``middle`` ± ``half`` off below ``low`` and above ``high`` (mm)."""
    top = np.minimum(middle + half, np.float32(high))
    bottom = np.maximum(middle - half, np.float32(low))
    return np.maximum(top - bottom, 0) / 2, (top + bottom) / 2


@dataclass
class Tube:
    """A tube swept along a curve, with elliptic sections and a wall (the cortex).

    Each row of ``knots`` is one section: position along the tube 0..1, then x, y, z of its centre,
    half widths ``a`` (along ``side``) and ``b`` (square to it), wall thickness, and the volume
    share of bone inside the wall. Ends are closed over ``caps`` mm (0 leaves an end open, as where
    the picture ends).
    """

    knots: np.ndarray  # (K, 8): s, x, y, z, a, b, wall, spongy
    caps: tuple[float, float] = (4.0, 4.0)
    side: tuple[float, float, float] = (1.0, 0.0, 0.0)
    plate: float = 0.8  # mm, wall thickness of the closed ends
    samples: int = 48
    boxy: float = 1.0  # 1: elliptic section, 2 and more: nearly rectangular

    @cached_property
    def table(self) -> np.ndarray:
        """The sections at ``samples`` positions: ``knots``, smoothly interpolated."""
        knots = np.asarray(self.knots, np.float64)
        # denser near the ends, where the caps close
        at = 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, self.samples))
        at = knots[0, 0] + at * (knots[-1, 0] - knots[0, 0])
        return np.column_stack([at, _smooth(knots[:, 0], knots[:, 1:], at)])

    @property
    def points(self) -> np.ndarray:
        """Centres of the sections (samples, 3), mm."""
        return self.table[:, 1:4]

    def moved(self, rotation: np.ndarray, shift: np.ndarray) -> Tube:
        """The same tube turned about the origin of its frame and then shifted (mm)."""
        knots = np.array(self.knots, np.float64)
        knots[:, 1:4] = knots[:, 1:4] @ rotation.T + shift
        return replace(self, knots=knots, side=tuple(rotation @ np.asarray(self.side)))

    def part(self, low: float, high: float, caps: tuple[float, float]) -> Tube:
        """The stretch between two positions (0..1), with ends of its own."""
        at = np.linspace(low, high, 24)
        knots = np.column_stack([np.interp(at, self.table[:, 0], c) for c in self.table.T])
        return replace(self, knots=knots, caps=caps)

    def section(self, at: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Centre, direction, ``side`` and half widths (a, b, wall) at position ``at`` (0..1)."""
        row = np.array([np.interp(at, self.table[:, 0], c) for c in self.table.T])
        tangents = np.gradient(self.points, axis=0)
        tangent = np.array([np.interp(at, self.table[:, 0], c) for c in tangents.T])
        tangent /= np.linalg.norm(tangent)
        side = np.asarray(self.side) - tangent * (tangent @ np.asarray(self.side))
        return row[1:4], tangent, side / np.linalg.norm(side), row[4:7]

    def shadow(self, view: np.ndarray, grid: Grid) -> Shadow | None:
        """Project along z after turning by ``view`` (3 × 3); None where the picture misses it.

        Exact for straight tubes of constant section; slowly varying ones are cut square to the line
        from end to end.
        """
        if grid.misses(self._reach(view)):
            return None
        points = self.points @ view.T
        line = points[-1, :2] - points[0, :2]
        length = float(np.hypot(*line))
        widest = float(self.table[:, 4:6].max())
        if length < widest:  # seen end on
            return self._blob().shadow(view, grid)
        along, n = line / length, np.array([-line[1], line[0]]) / length
        tangents = np.gradient(points, axis=0)
        tangents /= np.linalg.norm(tangents, axis=1, keepdims=True) + 1e-9
        side = view @ np.asarray(self.side)
        first = side - tangents * (tangents @ side)[:, None]
        first /= np.linalg.norm(first, axis=1, keepdims=True) + 1e-9
        second = np.cross(tangents, first)
        a, b, wall = self.table[:, 4], self.table[:, 5], self.table[:, 6]
        flat = tangents[:, :2] / (np.linalg.norm(tangents[:, :2], axis=1, keepdims=True) + 1e-9)
        normals = np.column_stack([-flat[:, 1], flat[:, 0]])
        cosine = np.maximum(flat @ along, 0.5)  # sections are cut square to the end-to-end line
        lean1, lean2 = (first[:, :2] * normals).sum(1), (second[:, :2] * normals).sum(1)

        def outline(shrink: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            a_, b_ = np.maximum(a - shrink, 0.01), np.maximum(b - shrink, 0.01)
            width = np.sqrt((a_ * lean1) ** 2 + (b_ * lean2) ** 2) / cosine
            depth = 1 / np.sqrt((first[:, 2] / a_) ** 2 + (second[:, 2] / b_) ** 2 + 1e-9)
            return width, np.minimum(depth, 2.5 * np.maximum(a_, b_))

        xi = np.maximum.accumulate((points[:, :2] - points[0, :2]) @ along)
        eta = (points[:, :2] - points[0, :2]) @ n
        width, depth = outline(0 * wall)
        inner_width, inner_depth = outline(wall)
        solid = (a <= wall) | (b <= wall)
        inner_width[solid] = 0.0

        count = int(np.clip(length / grid.pitch * 3, 64, 2048))
        fine = np.linspace(0, length, count)
        columns = np.column_stack(
            [eta, points[:, 2], width, depth, inner_width, inner_depth, self.table[:, 7]]
        )
        lookup = np.array([np.interp(fine, xi, column) for column in columns.T])
        lookup[2:4] *= self._closed(fine, length - fine, 0)
        lookup[4:6] *= self._closed(fine, length - fine, self.plate)
        lookup = lookup.astype(np.float32)

        box, reach = points[:, :2], width[:, None]
        window = grid.window((box - reach).min(0), (box + reach).max(0))
        if window.empty:
            return None
        x, y = grid.axes(window)
        x, y = x - np.float32(points[0, 0]), y - np.float32(points[0, 1])
        mm_along, mm_across = rotated(x, y, along)
        index = mm_along * np.float32((count - 1) / length) + np.float32(0.5)
        outside = (index < 0) | (index >= count)
        index = np.clip(index, 0, count - 1).astype(np.int32)
        middle = lookup[1].take(index)
        mm_across = mm_across - lookup[0].take(index)
        half = self._half(mm_across, lookup[2].take(index), lookup[3].take(index), outside)
        inner = self._half(mm_across, lookup[4].take(index), lookup[5].take(index), outside)
        lying = length / (float(np.linalg.norm(points[-1] - points[0])) + 1e-9)
        inner_middle = middle
        if lying < 0.95:  # a slanting tube ends at its end faces, also along the ray
            beyond = lying * widest
            low, high = points[:, 2].min() - beyond, points[:, 2].max() + beyond
            inner, inner_middle = _between(inner, middle, low + self.plate, high - self.plate)
            half, middle = _between(half, middle, low, high)
        return Shadow(
            window, half, middle, inner, inner_middle, lookup[6].take(index), mm_along, mm_across
        )

    def bounds(self, view: np.ndarray) -> np.ndarray:
        """Corners (low, high) of a box in the picture's plane that holds the body (mm)."""
        points = (self.points @ view.T)[:, :2]
        reach = self.table[:, 4:6].max(1)[:, None]
        return np.stack([(points - reach).min(0), (points + reach).max(0)])

    def _reach(self, view: np.ndarray) -> np.ndarray:
        """A generous box around the knots, cheaper than :meth:`bounds`."""
        knots = np.asarray(self.knots)
        points = (knots[:, 1:4] @ view.T)[:, :2]
        reach = 1.6 * knots[:, 4:6].max()
        return np.stack([points.min(0) - reach, points.max(0) + reach])

    def _half(
        self, across: np.ndarray, width: np.ndarray, depth: np.ndarray, outside: np.ndarray
    ) -> np.ndarray:
        square = across / np.maximum(width, 1e-3)
        square *= square
        if self.boxy != 1.0:
            np.power(square, np.float32(self.boxy), out=square)
        np.subtract(1, square, out=square)
        np.maximum(square, 0, out=square)
        half = depth * np.sqrt(square)
        half[outside | (width <= 0)] = 0
        return half

    def _closed(self, start: np.ndarray, end: np.ndarray, wall: float) -> np.ndarray:
        """Share of the full width at distances from start and end: a quarter ellipse at each."""
        share = np.ones_like(start)
        for distance, cap in zip((start, end), self.caps, strict=True):
            if cap > 0:
                rest = np.clip(1 - (distance - wall) / cap, 0, 1)
                share = share * np.sqrt(1 - rest * rest)
        return share

    def _blob(self) -> Ellipsoid:
        """The ellipsoid of equal extent, used where the tube is seen end on."""
        points = self.points
        axis = points[-1] - points[0]
        length = np.linalg.norm(axis) + 1e-6
        _, tangent, side, _ = self.section(float(self.table[len(points) // 2, 0]))
        other = np.cross(tangent, side)
        a, b, wall, spongy = self.table[:, 4:8].mean(0)
        axes = np.column_stack([tangent * (length / 2 + 1), side * a, other * b])
        return Ellipsoid((points[0] + points[-1]) / 2, axes, wall, spongy)


def bone_rows(
    s: np.ndarray,
    points: np.ndarray,
    a: np.ndarray | float,
    b: np.ndarray | float,
    wall: np.ndarray | float,
    spongy: np.ndarray | float,
) -> np.ndarray:
    """Rows of :class:`Tube` from positions 0..1, centres (K, 3) and section columns."""
    columns = [np.broadcast_to(np.asarray(c, float), s.shape) for c in (a, b, wall, spongy)]
    return np.column_stack([s, points, *columns])


Solid = Tube | Ellipsoid | Slab
