"""Solid bodies and the lengths of the X-ray paths through them.

A body is described in millimetres in the frame of the limb (x to the picture's right, y down the
limb, z towards the beholder) and is asked for one thing: along the parallel ray of each pixel, where
does the ray enter and leave? Unions of bodies count shared stretches once, so that a stalk opens into
the marrow of its bone instead of adding to it.

Three bodies suffice: tubes swept along a curve with elliptic sections (long bones, soft tissue),
ellipsoids (small bones, heads, lesions) and rounded slabs cut along an outline (flat bones).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

EMPTY = 1e4  # mm; "top" of an empty path is -EMPTY and its "bottom" +EMPTY


@dataclass(frozen=True)
class Grid:
    """Pixel centres of the picture in millimetres: rows run along y, columns along x."""

    height: int
    width: int
    pitch: float  # mm per pixel
    x: float = 0.0  # mm, middle of the picture
    y: float = 0.0

    def columns(self, x: np.ndarray) -> np.ndarray:
        return (np.asarray(x) - self.x) / self.pitch + (self.width - 1) / 2

    def rows(self, y: np.ndarray) -> np.ndarray:
        return (np.asarray(y) - self.y) / self.pitch + (self.height - 1) / 2

    def axes(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Millimetre coordinates of a window: x as one row, y as one column."""
        columns = np.arange(window.left, window.right, dtype=np.float32)
        rows = np.arange(window.top, window.bottom, dtype=np.float32)
        x = (columns - (self.width - 1) / 2) * self.pitch + self.x
        y = (rows - (self.height - 1) / 2) * self.pitch + self.y
        return x[None, :].astype(np.float32), y[:, None].astype(np.float32)

    def window(self, x0: float, y0: float, x1: float, y1: float, margin: int = 2) -> Window:
        """The pixels that cover a box in millimetres, cut at the picture's edge."""
        left, right = self.columns(np.array([x0, x1]))
        top, bottom = self.rows(np.array([y0, y1]))
        return Window(
            int(np.clip(np.floor(top) - margin, 0, self.height)),
            int(np.clip(np.ceil(bottom) + margin + 1, 0, self.height)),
            int(np.clip(np.floor(left) - margin, 0, self.width)),
            int(np.clip(np.ceil(right) + margin + 1, 0, self.width)),
        )

    def misses(self, box: np.ndarray) -> bool:
        """Whether a box in millimetres (low and high corner) lies outside the picture."""
        wide, high = self.width * self.pitch / 2 + self.pitch, self.height * self.pitch / 2 + self.pitch
        (x0, y0), (x1, y1) = box
        return (
            x1 < self.x - wide or x0 > self.x + wide or y1 < self.y - high or y0 > self.y + high
        )

    def everything(self) -> Window:
        return Window(0, self.height, 0, self.width)


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels, half open."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        return max(0, self.bottom - self.top), max(0, self.right - self.left)

    @property
    def empty(self) -> bool:
        return self.bottom <= self.top or self.right <= self.left

    def join(self, other: Window) -> Window:
        if self.empty:
            return other
        if other.empty:
            return self
        return Window(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Where this window lies inside an array that covers ``outer``."""
        return (
            slice(self.top - outer.top, self.bottom - outer.top),
            slice(self.left - outer.left, self.right - outer.left),
        )

    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)


class Path:
    """Where the rays run inside a body: path length, last exit (top) and first entry (bottom)."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.chord = np.zeros(shape, np.float32)
        self.top = np.full(shape, -EMPTY, np.float32)
        self.bottom = np.full(shape, EMPTY, np.float32)

    def add(self, place: tuple[slice, slice], half: np.ndarray, middle: np.ndarray) -> np.ndarray:
        """Unite with a body that fills ``middle`` ± ``half``; return the newly covered length."""
        filled = half > 0
        top = np.where(filled, middle + half, -EMPTY)
        bottom = np.where(filled, middle - half, EMPTY)
        shared = np.minimum(self.top[place], top) - np.maximum(self.bottom[place], bottom)
        gained = 2 * half - np.maximum(shared, 0)
        np.maximum(gained, 0, out=gained)
        self.chord[place] += gained
        np.maximum(self.top[place], top, out=self.top[place])
        np.minimum(self.bottom[place], bottom, out=self.bottom[place])
        return gained


def overlap(path: Path, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Length that a second body (``bottom`` … ``top``) shares with ``path``, in mm."""
    shared = np.minimum(path.top, top) - np.maximum(path.bottom, bottom)
    return np.clip(shared, 0, path.chord)


@dataclass
class Shadow:
    """One body seen along the rays of a window: outer and inner (marrow) surfaces.

    ``along`` and ``across`` are millimetres in the body's own direction, for texture that follows it;
    ``spongy`` is the volume share of bone in the marrow space.
    """

    window: Window
    half: np.ndarray
    middle: np.ndarray
    inner_half: np.ndarray
    inner_middle: np.ndarray
    spongy: np.ndarray | float
    along: np.ndarray
    across: np.ndarray


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


@dataclass
class Tube:
    """A tube swept along a curve, with elliptic sections and a wall (the cortex).

    Each row of ``knots`` is one section: position along the tube 0..1, then x, y, z of its centre,
    half widths ``a`` (along ``side``) and ``b`` (square to it), wall thickness, and the volume share of
    bone inside the wall. Ends are closed over ``caps`` mm (0 leaves an end open, as where the
    picture ends).
    """

    knots: np.ndarray  # (K, 8): s, x, y, z, a, b, wall, spongy
    caps: tuple[float, float] = (4.0, 4.0)
    side: tuple[float, float, float] = (1.0, 0.0, 0.0)
    plate: float = 0.8  # mm, wall thickness of the closed ends
    samples: int = 48
    boxy: float = 1.0  # 1: elliptic section, 2 and more: nearly rectangular

    @cached_property
    def table(self) -> np.ndarray:
        """The sections at ``samples`` positions: the columns of ``knots``, smoothly interpolated."""
        knots = np.asarray(self.knots, np.float64)
        # denser near the ends, where the caps close
        at = 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, self.samples))
        at = knots[0, 0] + at * (knots[-1, 0] - knots[0, 0])
        return np.column_stack([at, _smooth(knots[:, 0], knots[:, 1:], at)])

    @property
    def points(self) -> np.ndarray:
        return self.table[:, 1:4]

    def moved(self, rotation: np.ndarray, shift: np.ndarray) -> Tube:
        """The same tube turned about the origin of its frame and then shifted (mm)."""
        knots = np.array(self.knots, np.float64)
        knots[:, 1:4] = knots[:, 1:4] @ rotation.T + shift
        side = tuple(rotation @ np.asarray(self.side))
        return Tube(knots, self.caps, side, self.plate, self.samples, self.boxy)

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
        if length < 0.7 * widest:  # seen end on
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
        lookup = np.array([np.interp(fine, xi, c) for c in columns.T])
        start = self._cap(fine, self.caps[0], 0) * self._cap(length - fine, self.caps[1], 0)
        inside = self._cap(fine, self.caps[0], self.plate) * self._cap(
            length - fine, self.caps[1], self.plate
        )
        lookup[2:4] *= start
        lookup[4:6] *= inside
        lookup = lookup.astype(np.float32)

        reach = width / np.maximum(1e-9, 1)
        box = points[:, :2]
        low, high = (box - reach[:, None]).min(0), (box + reach[:, None]).max(0)
        window = grid.window(low[0], low[1], high[0], high[1])
        if window.empty:
            return None
        x, y = grid.axes(window)
        x, y = x - np.float32(points[0, 0]), y - np.float32(points[0, 1])
        u, v = along.astype(np.float32), n.astype(np.float32)
        mm_along = x * u[0] + y * u[1]
        mm_across = x * v[0] + y * v[1]
        index = mm_along * np.float32((count - 1) / length) + np.float32(0.5)
        outside = (index < 0) | (index >= count)
        index = np.clip(index, 0, count - 1).astype(np.int32)
        middle = lookup[1].take(index)
        mm_across = mm_across - lookup[0].take(index)
        half = self._half(mm_across, lookup[2].take(index), lookup[3].take(index), outside)
        inner = self._half(mm_across, lookup[4].take(index), lookup[5].take(index), outside)
        return Shadow(
            window, half, middle, inner, middle, lookup[6].take(index), mm_along, mm_across
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

    @staticmethod
    def _cap(distance: np.ndarray, cap: float, wall: float) -> np.ndarray:
        """Share of the full width at a distance from the end: a quarter ellipse of length ``cap``."""
        if cap <= 0:
            return np.ones_like(distance)
        rest = np.clip(1 - (distance - wall) / cap, 0, 1)
        return np.sqrt(1 - rest * rest)

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


@dataclass
class Ellipsoid:
    """An ellipsoid with a wall; ``axes`` holds the three half axes as columns (mm).

    The first axis gives the direction of its texture.
    """

    centre: np.ndarray
    axes: np.ndarray
    wall: float = 0.8
    spongy: float = 0.25
    boxy: float = 1.0  # 1: an ellipsoid; larger: rounded block, set along the axes it shows

    def moved(self, rotation: np.ndarray, shift: np.ndarray) -> Ellipsoid:
        """The same body turned about the origin of its frame and then shifted (mm)."""
        return Ellipsoid(
            rotation @ np.asarray(self.centre) + shift,
            rotation @ np.asarray(self.axes),
            self.wall,
            self.spongy,
            self.boxy,
        )

    def bounds(self, view: np.ndarray) -> np.ndarray:
        """Corners (low, high) of the box in the picture's plane that holds the body (mm)."""
        centre, axes = view @ np.asarray(self.centre), view @ np.asarray(self.axes)
        reach = np.linalg.norm(axes, axis=1)
        return np.stack([(centre - reach)[:2], (centre + reach)[:2]])

    def shadow(self, view: np.ndarray, grid: Grid) -> Shadow | None:
        """Project along z after turning by ``view``: exact, from the quadratic form."""
        centre = view @ np.asarray(self.centre, np.float64)
        axes = view @ np.asarray(self.axes, np.float64)
        shape = axes @ axes.T
        reach = np.sqrt(np.diag(shape))
        window = grid.window(
            centre[0] - reach[0], centre[1] - reach[1], centre[0] + reach[0], centre[1] + reach[1]
        )
        if window.empty:
            return None
        plane = np.linalg.inv(shape[:2, :2])
        tilt = shape[2, :2] @ plane
        depth = float(np.sqrt(max(shape[2, 2] - tilt @ shape[:2, 2], 1e-9)))
        x, y = grid.axes(window)
        x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
        if self.boxy == 1.0:
            square = (
                np.float32(plane[0, 0]) * x * x
                + np.float32(2 * plane[0, 1]) * x * y
                + np.float32(plane[1, 1]) * y * y
            )
        else:
            values, vectors = np.linalg.eigh(plane)
            power, square = np.float32(2 * self.boxy), np.float32(0)
            for value, (vx, vy) in zip(np.sqrt(values), vectors.T, strict=True):
                off = np.abs(np.float32(value * vx) * x + np.float32(value * vy) * y)
                square = square + off**power
            square = square ** np.float32(1 / self.boxy)
        middle = np.float32(centre[2]) + np.float32(tilt[0]) * x + np.float32(tilt[1]) * y
        smallest = float(np.linalg.norm(axes, axis=0).min())
        shrink = max(1 - self.wall / smallest, 0.0)
        long = axes[:2, 0] / (np.linalg.norm(axes[:2, 0]) + 1e-6)
        return Shadow(
            window,
            _dome(square, depth),
            middle,
            _dome(square / max(shrink * shrink, 1e-6), depth * shrink),
            middle,
            self.spongy,
            x * np.float32(long[0]) + y * np.float32(long[1]),
            y * np.float32(long[0]) - x * np.float32(long[1]),
        )


def _dome(square: np.ndarray, depth: float) -> np.ndarray:
    return np.float32(depth) * np.sqrt(np.maximum(1 - square, 0))


@dataclass
class Slab:
    """A flat bone: a slab with rounded edges, cut along a smooth closed outline.

    ``outline`` holds control points (x, y) in the slab's own plane, which ``frame`` (3 × 3, columns are
    the slab's x, y and thickness directions) and ``centre`` place in the limb's frame.
    """

    outline: np.ndarray
    thickness: float  # mm, full
    rounding: float  # mm, over which the edge reaches full thickness
    wall: float = 1.0
    spongy: float = 0.2
    centre: np.ndarray = field(default_factory=lambda: np.zeros(3))
    frame: np.ndarray = field(default_factory=lambda: np.eye(3))
    holes: tuple[np.ndarray, ...] = ()

    def moved(self, rotation: np.ndarray, shift: np.ndarray) -> Slab:
        """The same slab turned about the origin of its frame and then shifted (mm)."""
        return Slab(
            self.outline,
            self.thickness,
            self.rounding,
            self.wall,
            self.spongy,
            rotation @ self.centre + shift,
            rotation @ self.frame,
            self.holes,
        )

    def bounds(self, view: np.ndarray) -> np.ndarray:
        """Corners (low, high) of the box in the picture's plane that holds the outline (mm)."""
        flat = closed_curve(np.asarray(self.outline, float)) @ (view @ self.frame)[:2, :2].T
        flat = flat + (view @ self.centre)[:2]
        return np.stack([flat.min(0), flat.max(0)])

    def shadow(self, view: np.ndarray, grid: Grid) -> Shadow | None:
        """Project along z after turning by ``view``; thickness grows with the slant, at most 2.2-fold."""
        frame = view @ self.frame
        centre = view @ self.centre
        contours = []
        for outline in (self.outline, *self.holes):
            flat = closed_curve(np.asarray(outline, np.float64))
            contours.append((flat @ frame[:, :2].T)[:, :2] + centre[:2])
        low, high = contours[0].min(0), contours[0].max(0)
        window = grid.window(low[0], low[1], high[0], high[1], margin=3)
        if window.empty:
            return None
        left, top = window.left, window.top
        pixels = [
            np.column_stack([grid.columns(c[:, 0]) - left, grid.rows(c[:, 1]) - top])
            for c in contours
        ]
        # 3 fractional bits: the edge is drawn to an eighth of a pixel
        filled = np.zeros(window.shape, np.uint8)
        cv2.fillPoly(filled, [np.round(p * 8).astype(np.int32) for p in pixels], 255, shift=3)
        distance = cv2.distanceTransform(filled, cv2.DIST_L2, 3) * np.float32(grid.pitch)
        slant = 1 / max(abs(float(frame[2, 2])), 0.45)
        full = np.float32(self.thickness / 2 * slant)
        rounding = max(self.rounding * max(abs(float(frame[2, 2])), 0.45), grid.pitch)

        def dome(depth: np.ndarray) -> np.ndarray:
            rest = np.clip(1 - depth / np.float32(rounding), 0, 1)
            return np.where(depth > 0, np.sqrt(1 - rest * rest), 0)

        # the distance is a whole number of pixels: smooth the steps it leaves along slanted edges
        half = cv2.GaussianBlur(full * dome(distance), (0, 0), 0.8)
        inner = max(full - self.wall * slant, 0.01) * dome(distance - np.float32(self.wall))
        inner = np.minimum(cv2.GaussianBlur(inner, (0, 0), 0.8), half)
        x, y = grid.axes(window)
        x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
        shape = window.shape
        return Shadow(
            window,
            half,
            np.full(shape, centre[2], np.float32),
            inner,
            np.full(shape, centre[2], np.float32),
            self.spongy,
            np.broadcast_to(y, shape),
            np.broadcast_to(x, shape),
        )


def closed_curve(points: np.ndarray, steps: int = 6) -> np.ndarray:
    """A smooth closed curve through control points (Catmull-Rom), ``steps`` points between two."""
    before, after = np.roll(points, 1, 0), np.roll(points, -1, 0)
    later = np.roll(points, -2, 0)
    t = (np.arange(steps) / steps)[None, :, None]
    p0, p1, p2, p3 = (p[:, None, :] for p in (before, points, after, later))
    curve = 0.5 * (
        2 * p1
        + (p2 - p0) * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    return curve.reshape(-1, 2)


def turn(degrees: float, axis: str) -> np.ndarray:
    """Rotation matrix about one axis of the limb's frame; positive turns x to y, y to z or z to x."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def bone_rows(
    s: np.ndarray,
    points: np.ndarray,
    a: np.ndarray | float,
    b: np.ndarray | float,
    wall: np.ndarray | float,
    spongy: np.ndarray | float,
) -> np.ndarray:
    """Rows of :class:`Tube` from positions 0..1, centres (K, 3) and section columns or constants."""
    columns = [np.broadcast_to(np.asarray(c, float), s.shape) for c in (a, b, wall, spongy)]
    return np.column_stack([s, points, *columns])


Solid = Tube | Ellipsoid | Slab
