"""From path lengths to the finished picture: exposure, detector, display, borders and markers.

``I = I0 · exp(-Σ μ_k t_k)`` with μ in 1/mm at 40 keV, the mean energy of a 60 kV beam, from the
NIST tables (Hubbell and Seltzer 2004, NISTIR 5632: mass attenuation × density). Beam hardening is
left out. Centre 1 is a hospital with digital equipment, 2 and 3 are teaching collections with older
film, smaller pictures and harder JPEG (Yao et al. 2025 name the sources). Longer sides follow
BTXRD's: medians of 2,301, 1,640 and 1,024 pixels by centre; the other numbers are invented.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .marginals import centers

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
    """Draw the exposure and the film of one study; usual values stand in ``centers.csv``.

    Of the films looked at BTXRD's two have black air, 122 of FracAtlas a median of .08 of the grey
    range (.01 to .18 hold 90 %), nine of GRAZPEDWRI-DX .13.
    """
    usual = centers()[center]
    curve = "digital" if rng.random() < usual["digital"] else str(rng.choice(["film", "web"]))
    exposure = Exposure(
        photons=float(np.exp(rng.normal(usual["photons"], 0.4))),
        scatter=float(rng.uniform(0.15, 0.35)),
        focus=float(rng.uniform(0.1, 0.3)),
        curve=curve,
        gain=float(np.exp(rng.normal(usual["gain"], 0.12))),
        air=float(rng.normal(usual["air"], 0.06)),
        tone=float(rng.normal(usual["tone"], 0.04)),
        heel=float(rng.normal(0, 0.1)),
        local=float(rng.uniform(0.5, 1.0) if curve == "digital" else rng.uniform(0.0, 0.5)),
    )
    copied = curve == "film"
    shares = {1: 1.0, 2: float(rng.uniform(0.5, 0.95)), 3: float(rng.uniform(0.35, 0.6))}
    return Habit(
        exposure=exposure,
        share=shares[center],
        marker=bool(rng.random() < usual["marker"]),
        collimated=bool(rng.random() < usual["collimated"]),
        border=float(rng.uniform(0.01, 0.04)) if rng.random() < usual["bordered"] else 0.0,
        quality=int(rng.integers(usual["least_quality"], usual["most_quality"])),
        blur=float(rng.uniform(0.4, 0.9)) if copied else 0.0,
        grain=float(rng.uniform(0.01, 0.03)) if copied else 0.0,
        glow=float(rng.uniform(0.0, 0.15)) if copied else 0.0,
    )


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
    eighth = max(2, width // 8), max(2, height // 8)
    small = cv2.resize(picture, eighth, interpolation=cv2.INTER_AREA)
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


def finish(
    value: np.ndarray, *, side: str, habit: Habit, keep: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Collimate, frame and mark a display image (0..1); returns 8 bit.

    ``keep`` (bool) marks what no border and no marker may cover: the lesion.
    """
    if habit.grain:
        value = _copy(value, habit, rng)
    if habit.collimated:
        value = _collimate(value, keep, rng)
    if habit.border:
        edge = max(1, int(habit.border * value.shape[1]))
        frame = np.ones_like(value, bool)
        frame[edge:-edge, edge:-edge] = False
        value = np.where(frame & ~keep, np.float32(rng.choice([0.02, 0.95])), value)
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


def _collimate(value: np.ndarray, keep: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = value.shape
    sides = (height, height, width, width)
    cuts = [rng.uniform(0, 0.07) * side * (rng.random() < 0.6) for side in sides]
    top, bottom, left, right = cuts[0], height - cuts[1], cuts[2], width - cuts[3]
    if keep.any():
        rows, columns = np.flatnonzero(keep.any(1)), np.flatnonzero(keep.any(0))
        top, bottom = min(top, rows[0]), max(bottom, rows[-1] + 1)
        left, right = min(left, columns[0]), max(right, columns[-1] + 1)
    lean = np.tan(np.radians(rng.normal(0, 0.6)))
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    soft = max(0.6, width / 500)
    turned = y - top - lean * (x - left), x - left + lean * (y - top)
    edges = np.broadcast_arrays(*turned, bottom - y, right - x)
    inside = np.minimum.reduce([distance / soft for distance in edges])
    return (value * np.clip(np.where(keep, 1.0, inside), 0.02, 1)).astype(np.float32)


def _mark(picture: np.ndarray, letter: str, keep: np.ndarray, rng: np.random.Generator) -> None:
    """Burn the side letter into a corner that covers no lesion."""
    height, width = picture.shape
    scale = max(0.35, width / 480 * rng.uniform(0.6, 1.1))
    thick = max(1, int(round(scale * 1.6)))
    font = cv2.FONT_HERSHEY_SIMPLEX
    (w, h), _ = cv2.getTextSize(letter, font, scale, thick)
    margin = 0.04 * width
    for _ in range(6):
        x = int(margin if rng.random() < 0.5 else width - margin - w)
        y = int(h + rng.uniform(0.03, 0.25) * height)
        if rng.random() < 0.3:
            y = int(height - rng.uniform(0.03, 0.2) * height)
        box = (slice(max(0, y - h - 1), y + 2), slice(max(0, x - 1), x + w + 2))
        if not keep[box].any():
            grey = int(rng.integers(215, 256))
            cv2.putText(picture, letter, (x, y), font, scale, grey, thick, cv2.LINE_AA)
            return
