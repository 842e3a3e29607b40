"""Random textures: one bank of seamless noise tiles, sampled along the direction of a bone.

Trabeculae are drawn as band-limited noise, stretched along the load direction, with a spectrum that
falls slowly with frequency, so that it looks alike at every magnification. The tiles are the same
for every cohort; each body takes its own random stretch of a tile.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

TILE = 512  # pixels, seamless in both directions


@lru_cache(maxsize=1)
def tiles() -> dict[str, np.ndarray]:
    """The noise tiles by name, each with mean 0 and standard deviation 1."""
    rng = np.random.default_rng(20240707)
    f = np.fft.fftfreq(TILE)
    fy, fx = np.meshgrid(f, f, indexing="ij")

    def tile(stretch: float, low: float, high: float, power: float) -> np.ndarray:
        # along = rows: a stretch above 1 squeezes the spectrum in that direction
        r = np.hypot(fy * stretch, fx)
        band = np.where((r > low) & (r < high), 1 / np.maximum(r, 1e-6) ** power, 0)
        noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((TILE, TILE))) * band).real
        return ((noise - noise.mean()) / noise.std()).astype(np.float32)

    return {
        "trabeculae": tile(2.5, 0.04, 0.4, 0.5),
        "cloud": tile(1.0, 0.004, 0.06, 1.5),  # smooth patches
        "grain": tile(1.0, 0.03, 0.3, 0.8),  # moth-eaten holes, ground glass
        "streaks": tile(6.0, 0.02, 0.3, 0.5),  # muscle fibres, cortical tunnels
    }


def sample(
    name: str,
    along: np.ndarray,
    across: np.ndarray,
    *,
    cell: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Noise at body coordinates (mm); one tile pixel covers ``cell`` mm. Shape of ``along``."""
    shift = rng.uniform(0, TILE, 2).astype(np.float32)
    scale = np.float32(1 / cell)
    rows, columns = np.broadcast_arrays(along * scale + shift[0], across * scale + shift[1])
    return cv2.remap(
        tiles()[name],  # repeats itself beyond its edges
        np.ascontiguousarray(columns, np.float32),
        np.ascontiguousarray(rows, np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )


def waves(rng: np.random.Generator, count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes and phases of a random closed outline: 1 + Σ a cos(k angle + p)."""
    orders = np.arange(2, count + 2)
    return rng.normal(0, 1, count) / orders, rng.uniform(0, 2 * np.pi, count)


def wobble(angle: np.ndarray, shape: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Evaluate :func:`waves` at angles in radians; unit scale, mean 0."""
    total = np.zeros_like(angle)
    for k, (amplitude, phase) in enumerate(zip(*shape, strict=True), start=2):
        total += np.float32(amplitude) * np.cos(k * angle + np.float32(phase))
    return total
