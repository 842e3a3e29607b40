"""The picture's grid of parallel rays, and the stretches of a ray that lie inside a body.

All lengths are millimetres in the frame of the limb: x to the picture's right, y down the limb, z
towards the beholder, along the rays.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        """Column (float) of x in mm."""
        return (np.asarray(x) - self.x) / self.pitch + (self.width - 1) / 2

    def rows(self, y: np.ndarray) -> np.ndarray:
        """Row (float) of y in mm."""
        return (np.asarray(y) - self.y) / self.pitch + (self.height - 1) / 2

    def axes(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Millimetre coordinates of a window: x as one row, y as one column."""
        x = np.arange(window.left, window.right, dtype=np.float32) - (self.width - 1) / 2
        y = np.arange(window.top, window.bottom, dtype=np.float32) - (self.height - 1) / 2
        x, y = x * self.pitch + self.x, y * self.pitch + self.y
        return x[None, :].astype(np.float32), y[:, None].astype(np.float32)

    def window(self, low: np.ndarray, high: np.ndarray, margin: int = 2) -> Window:
        """The pixels that cover a box in millimetres, cut at the picture's edge."""
        left, right = self.columns(np.array([low[0], high[0]]))
        top, bottom = self.rows(np.array([low[1], high[1]]))
        first = np.floor([top, left]) - margin
        last = np.ceil([bottom, right]) + margin + 1
        edge = self.height, self.width
        (top, left), (bottom, right) = (
            np.clip(side, 0, edge).astype(int) for side in (first, last)
        )
        return Window(int(top), int(bottom), int(left), int(right))

    def misses(self, box: np.ndarray) -> bool:
        """Whether a box in millimetres (low and high corner) lies outside the picture."""
        wide, high = ((n * self.pitch / 2 + self.pitch) for n in (self.width, self.height))
        (x0, y0), (x1, y1) = box
        return x1 < self.x - wide or x0 > self.x + wide or y1 < self.y - high or y0 > self.y + high

    def everything(self) -> Window:
        """The whole picture."""
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
        """Height and width in pixels, 0 where empty."""
        return max(0, self.bottom - self.top), max(0, self.right - self.left)

    @property
    def empty(self) -> bool:
        """Whether it holds no pixel."""
        return self.bottom <= self.top or self.right <= self.left

    def join(self, other: Window) -> Window:
        """The smallest window that holds both; neither may be empty."""
        least = min(self.top, other.top), min(self.left, other.left)
        most = max(self.bottom, other.bottom), max(self.right, other.right)
        return Window(least[0], most[0], least[1], most[1])

    def meet(self, other: Window) -> Window:
        """The pixels that lie in both."""
        least = max(self.top, other.top), max(self.left, other.left)
        most = min(self.bottom, other.bottom), min(self.right, other.right)
        return Window(least[0], most[0], least[1], most[1])

    def slices(self, top: int = 0, left: int = 0) -> tuple[slice, slice]:
        """Index of the window in an array of the picture that starts at a row and a column."""
        rows = slice(self.top - top, self.bottom - top)
        return rows, slice(self.left - left, self.right - left)

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Index of the window in an array that covers ``outer``."""
        return self.slices(outer.top, outer.left)


class Path:
    """Where the rays run inside a body: path length, last exit (top) and first entry (bottom)."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.chord = np.zeros(shape, np.float32)
        self.top = np.full(shape, -EMPTY, np.float32)
        self.bottom = np.full(shape, EMPTY, np.float32)

    def add(self, place: tuple[slice, slice], half: np.ndarray, middle: np.ndarray) -> np.ndarray:
        """Unite with a body that fills ``middle`` ± ``half``; return the newly covered length."""
        empty = half <= 0
        top, bottom = middle + half, middle - half
        top[empty], bottom[empty] = -EMPTY, EMPTY
        last, first = self.top[place], self.bottom[place]
        shared = np.minimum(last, top)
        shared -= np.maximum(first, bottom)
        gained = 2 * half - np.maximum(shared, 0, out=shared)
        np.maximum(gained, 0, out=gained)
        self.chord[place] += gained
        np.maximum(last, top, out=last)
        np.minimum(first, bottom, out=first)
        return gained

    def part(self, place: tuple[slice, slice]) -> Path:
        """The same path within a rectangle of its pixels."""
        part = Path((0, 0))
        part.chord, part.top, part.bottom = self.chord[place], self.top[place], self.bottom[place]
        return part

    def overlap(self, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        """Length that a second body (``bottom`` … ``top``) shares with the path, in mm."""
        shared = np.minimum(self.top, top) - np.maximum(self.bottom, bottom)
        return np.clip(shared, 0, self.chord)


@dataclass
class Shadow:
    """One body seen along the rays of a window: outer and inner (marrow) surfaces.

    ``along`` and ``across`` are millimetres in the body's own direction, for texture that follows
    it; ``spongy`` is the volume share of bone in the marrow space.
    """

    window: Window
    half: np.ndarray
    middle: np.ndarray
    inner_half: np.ndarray
    inner_middle: np.ndarray
    spongy: np.ndarray | float
    along: np.ndarray
    across: np.ndarray


def rotated(x: np.ndarray, y: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Millimetres along a direction of the picture's plane (unit vector), and across it."""
    u, v = np.float32(along[0]), np.float32(along[1])
    return x * u + y * v, y * u - x * v


def turn(degrees: float, axis: str) -> np.ndarray:
    """Rotation matrix about an axis; positive turns x to y, y to z or z to x."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]
