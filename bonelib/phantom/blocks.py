"""Small and flat bones: ellipsoids, rounded blocks and slabs, and the ray paths through them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from .rays import Grid, Shadow, rotated


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
        centre = rotation @ np.asarray(self.centre) + shift
        return replace(self, centre=centre, axes=rotation @ np.asarray(self.axes))

    def bounds(self, view: np.ndarray) -> np.ndarray:
        """Corners (low, high) of the box in the picture's plane that holds the body (mm)."""
        centre, axes = view @ np.asarray(self.centre), view @ np.asarray(self.axes)
        reach = np.linalg.norm(axes, axis=1)
        return np.stack([(centre - reach)[:2], (centre + reach)[:2]])

    def section(self, at: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """A point of the longest axis, the directions of the two longer ones, and (a, b, wall)."""
        axes = np.asarray(self.axes)
        lengths = np.linalg.norm(axes, axis=0)
        first, second, third = np.argsort(lengths)[::-1]
        centre = np.asarray(self.centre) + (at - 0.5) * 1.2 * axes[:, first]
        along, side = axes[:, first] / lengths[first], axes[:, second] / lengths[second]
        return centre, along, side, np.array([lengths[second], lengths[third], self.wall])

    def shadow(self, view: np.ndarray, grid: Grid) -> Shadow | None:
        """Project along z after turning by ``view``: exact, from the quadratic form."""
        centre = view @ np.asarray(self.centre, np.float64)
        axes = view @ np.asarray(self.axes, np.float64)
        shape = axes @ axes.T
        reach = np.sqrt(np.diag(shape))
        window = grid.window(centre - reach, centre + reach)
        if window.empty:
            return None
        plane = np.linalg.inv(shape[:2, :2])
        tilt = shape[2, :2] @ plane
        depth = float(np.sqrt(max(shape[2, 2] - tilt @ shape[:2, 2], 1e-9)))
        x, y = grid.axes(window)
        x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
        if self.boxy == 1.0:
            xx, xy, yy = (np.float32(v) for v in (plane[0, 0], 2 * plane[0, 1], plane[1, 1]))
            square = xx * x * x + xy * x * y + yy * y * y
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
        half, inner = (
            np.float32(depth * share) * np.sqrt(np.maximum(1 - part, 0))
            for share, part in ((1.0, square), (shrink, square / max(shrink * shrink, 1e-6)))
        )
        along, across = rotated(x, y, long)
        return Shadow(window, half, middle, inner, middle, self.spongy, along, across)


@dataclass
class Slab:
    """A flat bone: a slab with rounded edges, cut along a smooth closed outline.

    ``outline`` holds control points (x, y) in the slab's own plane; ``frame`` (its columns are the
    slab's x, y and thickness directions) and ``centre`` place that plane in the limb's frame.
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
        return replace(self, centre=rotation @ self.centre + shift, frame=rotation @ self.frame)

    def bounds(self, view: np.ndarray) -> np.ndarray:
        """Corners (low, high) of the box in the picture's plane that holds the outline (mm)."""
        flat = closed_curve(np.asarray(self.outline, float)) @ (view @ self.frame)[:2, :2].T
        flat = flat + (view @ self.centre)[:2]
        return np.stack([flat.min(0), flat.max(0)])

    def section(self, at: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """A point on the way to the farthest corner, the plane's directions, and (a, b, wall)."""
        outline = np.asarray(self.outline)
        middle = outline.mean(0)
        away = np.linalg.norm(outline - middle, axis=1)
        flat = middle + (at - 0.5) * 1.2 * (outline[np.argmax(away)] - middle)
        centre = self.centre + self.frame[:, :2] @ flat
        widths = np.array([away.min(), self.thickness / 2, self.wall])
        return centre, self.frame[:, 1], self.frame[:, 0], widths

    def shadow(self, view: np.ndarray, grid: Grid) -> Shadow | None:
        """Project along z after turning by ``view``; a slant lengthens the path up to 2.2-fold."""
        frame = view @ self.frame
        centre = view @ self.centre
        contours = [
            (closed_curve(np.asarray(ring, float)) @ frame[:, :2].T)[:, :2] + centre[:2]
            for ring in (self.outline, *self.holes)
        ]
        window = grid.window(contours[0].min(0), contours[0].max(0), margin=3)
        if window.empty:
            return None
        pixels = [
            np.column_stack([grid.columns(x) - window.left, grid.rows(y) - window.top])
            for x, y in (contour.T for contour in contours)
        ]
        # 3 fractional bits: the edge is drawn to an eighth of a pixel
        filled = np.zeros(window.shape, np.uint8)
        cv2.fillPoly(filled, [np.round(p * 8).astype(np.int32) for p in pixels], 255, shift=3)
        distance = cv2.distanceTransform(filled, cv2.DIST_L2, 3) * np.float32(grid.pitch)
        upright = max(abs(float(frame[2, 2])), 0.45)
        slant = 1 / upright
        full = np.float32(self.thickness / 2 * slant)
        rounding = max(self.rounding * upright, grid.pitch)

        def dome(depth: np.ndarray) -> np.ndarray:
            rest = np.clip(1 - depth / np.float32(rounding), 0, 1)
            return np.where(depth > 0, np.sqrt(1 - rest * rest), 0)

        # the distance is a whole number of pixels: smooth the steps it leaves along slanted edges
        half = cv2.GaussianBlur(full * dome(distance), (0, 0), 0.8)
        inner = max(full - self.wall * slant, 0.01) * dome(distance - np.float32(self.wall))
        inner = np.minimum(cv2.GaussianBlur(inner, (0, 0), 0.8), half)
        x, y = grid.axes(window)
        x, y = np.broadcast_arrays(x - np.float32(centre[0]), y - np.float32(centre[1]))
        middle = np.full(window.shape, centre[2], np.float32)
        return Shadow(window, half, middle, inner, middle, self.spongy, y, x)


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
