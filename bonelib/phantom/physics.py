"""From path lengths to grey values: attenuation, scatter, blur, quantum noise, display.

``I = I0 · exp(-Σ μ_k t_k)`` with μ in 1/mm at 40 keV, the mean energy of a 60 kV beam, from the
NIST tables (Hubbell and Seltzer 2004, NISTIR 5632: mass attenuation × density). Beam hardening is
left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

# 1/mm at 40 keV
ATTENUATION = {
    "air": 0.0,
    "lung": 0.0095,  # inflated, 0.35 g/cm³
    "fat": 0.0228,  # adipose tissue, 0.95 g/cm³
    "muscle": 0.0282,  # skeletal muscle, 1.05 g/cm³
    "marrow": 0.0240,  # yellow and red mixed, 0.98 g/cm³
    "fluid": 0.0272,
    "cartilage": 0.0300,
    "bone": 0.1277,  # cortical bone, 1.92 g/cm³
    "plaster": 0.0900,  # plaster of Paris, porous
    "titanium": 0.9970,
    "steel": 2.8300,
}


@dataclass(frozen=True)
class Exposure:
    """How one picture was taken and shown."""

    photons: float = 4000.0  # per pixel of 0.5 mm behind the middle of the body
    scatter: float = 0.25  # scattered light behind a grid, as a share of what is absorbed there
    focus: float = 0.35  # mm, standard deviation of focal spot and detector together
    curve: str = "digital"  # digital, film or web: see ``develop``
    gain: float = 1.0  # contrast of the display curve
    brightness: float = 0.0  # shift of the display curve, share of the range
    local: float = 0.5  # strength of the local contrast enhancement


def intensity(attenuation: np.ndarray) -> np.ndarray:
    """Share of the rays that pass: Beer and Lambert's law for a map of Σ μ t."""
    return np.exp(-attenuation)


def detect(
    attenuation: np.ndarray, *, pitch: float, exposure: Exposure, rng: np.random.Generator
) -> np.ndarray:
    """Expose the detector: primary rays, scatter, blur and quantum noise; 1 is the open beam."""
    primary = intensity(attenuation).astype(np.float32)
    # scattered light is born where rays are absorbed: not in air, little behind thick bone
    scattered = _wide_blur(primary * (1 - primary), 25.0 / pitch)
    signal = primary + exposure.scatter * scattered
    sigma = float(np.hypot(exposure.focus / pitch, 0.32))
    signal = cv2.GaussianBlur(signal, (0, 0), sigma)
    # automatic exposure: the dose is set so that the chosen number of quanta passes the body
    body = signal[primary < 0.8]
    passing = float(np.median(body)) if body.size else 1.0
    quanta = exposure.photons * (max(pitch, 0.35) / 0.5) ** 2 / max(passing, 1e-3)
    # Poisson counts are large enough here for their normal limit
    noise = rng.standard_normal(signal.shape, np.float32)
    signal += noise * np.sqrt(np.maximum(signal, 1e-5) / np.float32(quanta))
    return np.maximum(signal, np.float32(2e-4))


def _wide_blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of large width, computed on a picture an eighth as large."""
    height, width = picture.shape
    small = cv2.resize(
        picture, (max(2, width // 8), max(2, height // 8)), interpolation=cv2.INTER_AREA
    )
    small = cv2.GaussianBlur(small, (0, 0), max(sigma / 8, 0.3), borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def develop(signal: np.ndarray, *, pitch: float, exposure: Exposure) -> np.ndarray:
    """Turn detector counts into display values 0..1, dense tissue bright.

    ``digital``: logarithm, local contrast enhancement, black surroundings; ``film``: the S-shaped
    characteristic curve with a grey toe; ``web``: a digital picture whose range was stretched
    again.
    """
    density = -np.log(signal)
    if exposure.local > 0:
        # thick and thin parts come closer together, edges of up to 1 cm stand out
        wide = _wide_blur(density, 18.0 / pitch)
        middle = cv2.GaussianBlur(density, (0, 0), max(4.0 / pitch, 0.8))
        density = (
            wide * (1 - 0.45 * exposure.local)
            + (middle - wide) * (1 + 0.4 * exposure.local)
            + (density - middle) * (1 + 0.9 * exposure.local)
        )
    body = density[signal < 0.75]
    if body.size < 50:
        body = density.ravel()
    low, middle, high = np.percentile(body[:: max(1, body.size // 4000)], [1, 50, 99.7])
    if exposure.curve == "film":
        span = max(high - low, 0.3)
        t = (density - (low + 0.5 * span)) / span * 5.5 * exposure.gain + exposure.brightness * 4
        value = 0.05 + 0.93 / (1 + np.exp(-t))
    else:
        air = max(low * 0.35, 0.0)
        span = max(high * 1.04 - air, 0.2)
        value = np.clip((density - air) / span, 0, 1.1)
        # the body's middle tone is set to a grey that reads well
        tone = float(np.clip((middle - air) / span, 0.05, 0.95))
        power = np.clip(np.log(0.36) / np.log(tone), 0.7, 1.7) / exposure.gain
        value = np.power(value, np.float32(power)) + exposure.brightness
        if exposure.curve == "web":
            value = np.clip((value - 0.06) * 1.15, 0, 1)
    return np.clip(value, 0, 1).astype(np.float32)
