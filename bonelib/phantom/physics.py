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

_TOE = 0.02  # of the range: no display curve has a corner where its window starts


@dataclass(frozen=True)
class Exposure:
    """How one picture was taken and shown."""

    photons: float = 4000.0  # per pixel of 0.5 mm behind the middle of the body
    scatter: float = 0.25  # scattered light behind a grid, as a share of what is absorbed there
    focus: float = 0.35  # mm, standard deviation of focal spot and detector together
    curve: str = "digital"  # digital, film or web: see ``develop``
    heel: float = 0.0  # log of the open beam's fall from the top of the picture to its bottom
    gain: float = 1.0  # contrast of the display curve
    tone: float = 0.36  # grey of the body's middle density, share of the range
    air: float = 0.06  # grey of the open beam; below 0 the window starts so much above it
    local: float = 0.5  # strength of the local contrast enhancement


def intensity(attenuation: np.ndarray) -> np.ndarray:
    """Share of the rays that pass: Beer and Lambert's law for a map of Σ μ t."""
    return np.exp(-attenuation)


def detect(
    attenuation: np.ndarray, *, pitch: float, exposure: Exposure, rng: np.random.Generator
) -> np.ndarray:
    """Expose the detector: primary rays, scatter, blur and quantum noise; 1 is the open beam."""
    primary = intensity(attenuation).astype(np.float32)
    # heel effect: the anode takes more of the rays that leave along it
    fall = np.linspace(0.5, -0.5, len(primary), dtype=np.float32) * np.float32(exposure.heel)
    beam = primary * np.exp(fall)[:, None]
    # scattered light is born where rays are absorbed: not in air, little behind thick bone
    scattered = _wide_blur(beam * (1 - primary), 25.0 / pitch)
    signal = beam + exposure.scatter * scattered
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

    ``digital``: logarithm, local contrast enhancement, and a window with a soft toe, which starts
    below the open beam (grey surroundings) or above it (black ones); ``film``: the S-shaped
    characteristic curve with a grey toe; ``web``: a digital picture whose range was stretched
    again.
    """
    density = -np.log(signal)
    if exposure.local > 0:
        # thick and thin parts come closer together, edges of up to 1 cm stand out; as scanners do,
        # the open beam is left out, or each limb would lie in a black halo
        wide = _wide_blur(density, 18.0 / pitch)
        middle = cv2.GaussianBlur(density, (0, 0), max(4.0 / pitch, 0.8))
        change = 0.9 * density - 0.5 * middle - 0.85 * wide
        covered = 1 - np.minimum(signal, 1) ** 2
        density = density + np.float32(exposure.local) * covered * change
    body = density[signal < 0.8]
    if body.size < 50:
        body = density.ravel()
    low, middle, high = np.percentile(body[:: max(1, body.size // 4000)], [1, 50, 99.7])
    if exposure.curve == "film":
        span = max(high - low, 0.3)
        start = np.log(exposure.tone / (1 - exposure.tone))
        t = (density - middle) / span * 5.5 * exposure.gain + start
        value = 0.05 + 0.93 / (1 + np.exp(-t))
    else:
        fog, cut = max(exposure.air, 0.0), max(-exposure.air, 0.0)
        span = max(high * 1.04, 0.2)
        value = (density / span - cut) / (1 - cut)
        value = 0.5 * (value + np.sqrt(value * value + _TOE**2))
        # the body's middle tone is set to a grey that reads well
        tone = float(np.clip((middle / span - cut) / (1 - cut), 0.05, 0.95))
        wanted = max(exposure.tone - fog, 0.1) / (1 - fog)
        power = np.clip(np.log(wanted) / np.log(tone), 0.7, 1.7) / exposure.gain
        value = fog + (1 - fog) * np.power(value, np.float32(power))
        if exposure.curve == "web":
            value = np.clip((value - 0.06) * 1.15, 0, 1)
    return np.clip(value, 0, 1).astype(np.float32)
