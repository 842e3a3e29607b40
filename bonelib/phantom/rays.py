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
        wide, high = (
            self.width * self.pitch / 2 + self.pitch,
            self.height * self.pitch / 2 + self.pitch,
        )
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
        """The smallest window that holds both."""
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
        """Index of the window in an array of the whole picture."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


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


def overlap(path: Path, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Length that a second body (``bottom`` … ``top``) shares with ``path``, in mm."""
    shared = np.minimum(path.top, top) - np.maximum(path.bottom, bottom)
    return np.clip(shared, 0, path.chord)


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


def turn(degrees: float, axis: str) -> np.ndarray:
    """Rotation matrix about an axis; positive turns x to y, y to z or z to x."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
