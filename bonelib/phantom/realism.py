"""How far synthetic radiographs are from real ones: grey levels, spectra, edges, and a classifier.

Stacks of uint8 images ``(N, S, S)`` of equal size come in, real ones and drawn ones treated alike;
numbers and rows of a table go out. Radial spectra as in van der Schaaf & van Hateren 1996, Vision
Research 36(17):2759; the classifier is the source test of Torralba & Efros 2011, CVPR ("name that
dataset"), .5 where nothing tells the two apart.
"""

from __future__ import annotations

import numpy as np

BAND = (0.016, 0.39)  # cycles a pixel: below lies the frame, above the grid of JPEG and resizing
EDGE = 12.0  # grey levels a pixel


def histogram(images: np.ndarray, *, bins: int = 32) -> np.ndarray:
    """Share of pixels by grey level, each image counting alike: ``(bins,)``, sum 1.

    ``h[b] = mean over images of #{pixels in bin b} / S²``; bins of equal width over 0..255.
    """
    _check(images)
    level = (np.asarray(images, np.int64) * bins) >> 8
    return np.bincount(level.ravel(), minlength=bins) / level.size


def spectrum(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Radial mean of each image's power spectrum.

    ``P(f) = mean over |k| in [f - ½, f + ½) of |FFT2(w · (I - mean I))|²`` with the grey levels I
    in 0..1 and w a Hann window along both sides, which keeps the frame out of the spectrum.

    Returns:
        Frequencies ``(F,)`` in cycles a pixel, from 1/S to ½, and power ``(N, F)``.
    """
    _check(images)
    size = images.shape[1]
    window = np.outer(np.hanning(size), np.hanning(size))
    cycles = np.fft.fftfreq(size) * size
    ring = np.rint(np.hypot(cycles[:, None], cycles[None, :])).astype(int).ravel()
    last = size // 2
    members = np.bincount(ring)
    power = []
    for image in images:
        grey = image / 255.0
        found = np.abs(np.fft.fft2((grey - grey.mean()) * window)).ravel() ** 2
        power.append((np.bincount(ring, found) / members)[1 : last + 1])
    return np.arange(1, last + 1) / size, np.array(power)


def slope(
    frequencies: np.ndarray, power: np.ndarray, *, band: tuple[float, float] = BAND
) -> np.ndarray:
    """Exponent a of ``P(f) ~ f^a`` for each image ``(N,)``: least squares of log P on log f.

    White noise has 0, natural pictures about -2, radiographs -3: they are smoother.

    Args:
        band: Frequencies used, in cycles a pixel.
    """
    used = (frequencies >= band[0]) & (frequencies <= band[1])
    x = np.log(frequencies[used])
    y = np.log(np.maximum(power[:, used], 1e-12))
    x = x - x.mean()
    return (y @ x) / (x @ x)


def edge_density(images: np.ndarray, *, threshold: float = EDGE) -> np.ndarray:
    """Share of pixels on an edge, for each image ``(N,)``.

    ``mean(|∇I| >= threshold)`` with ``∇I`` the central differences
    ``(I[y, x+1] - I[y, x-1]) / 2`` and ``(I[y+1, x] - I[y-1, x]) / 2`` of inner pixels.

    Args:
        threshold: Grey levels a pixel.
    """
    _check(images)
    slopes = (np.hypot(*np.gradient(image.astype(np.float32))) for image in images)
    return np.array([np.mean(change[1:-1, 1:-1] >= threshold) for change in slopes])


def compare(synthetic: np.ndarray, real: np.ndarray) -> list[dict[str, float | str]]:
    """Rows of the table that sets two stacks of equal size side by side.

    Returns:
        For each measure ``synthetic`` and ``real`` (means over images), their standard deviations
        and ``ratio`` synthetic / real. The last row is the distance of the two mean histograms:
        half the sum of absolute differences, 0 where equal, 1 where disjoint.

    Raises:
        ValueError: The stacks differ in size, or are no stacks of uint8 squares.
    """
    for images in (synthetic, real):
        _check(images)
    if synthetic.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"The stacks hold images of {synthetic.shape[1:]} and {real.shape[1:]} pixels. "
            "Decode both at one size: spectra and edges depend on it."
        )
    ours, theirs = _measures(synthetic), _measures(real)
    rows: list[dict[str, float | str]] = []
    for name, values in ours.items():
        mean, other = float(values.mean()), float(theirs[name].mean())
        rows.append(
            {
                "measure": name,
                "synthetic": mean,
                "sd synthetic": float(values.std()),
                "real": other,
                "sd real": float(theirs[name].std()),
                "ratio": mean / other if other else np.nan,
            }
        )
    apart = 0.5 * np.abs(histogram(synthetic) - histogram(real)).sum()
    nothing = dict.fromkeys(("sd synthetic", "real", "sd real", "ratio"), np.nan)
    rows.append({"measure": "distance of the histograms", "synthetic": float(apart), **nothing})
    return rows


def _measures(images: np.ndarray) -> dict[str, np.ndarray]:
    """Each measure of each image ``(N,)``."""
    pixels = images.reshape(len(images), -1)
    return {
        "mean grey level": pixels.mean(1),
        "spread of grey levels": pixels.std(1),
        "share of black pixels (below 8)": (pixels < 8).mean(1),
        "share of white pixels (above 247)": (pixels > 247).mean(1),
        "slope of the power spectrum": slope(*spectrum(images)),
        f"edge density (from {EDGE:g} levels a pixel)": edge_density(images),
    }


def thumbnails(images: np.ndarray, *, size: int = 32) -> np.ndarray:
    """Mean grey level of each block, one row an image: ``(N, size²)``.

    Raises:
        ValueError: The images' side is not a multiple of ``size``.
    """
    _check(images)
    block, rest = divmod(images.shape[1], size)
    if rest:
        raise ValueError(f"A side of {images.shape[1]} pixels has no {size} equal blocks.")
    parted = images.reshape(len(images), size, block, size, block)
    return parted.mean((2, 4)).reshape(len(images), size * size)


def patch_features(
    images: np.ndarray, *, size: int = 8, each: int = 8, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Cut patches at random places and describe their grain.

    Features of a patch p: its ``size²`` grey levels, and ``log(1 + |C p Cᵀ|)`` with C the
    orthonormal cosine transform, in which noise, blur and JPEG blocks show to a linear model.

    Args:
        each: Patches an image. Patches of one grey level (border, collimation) are drawn too.

    Returns:
        Features ``(N · each, 2 · size²)`` and the image each patch is of ``(N · each,)``.
    """
    from scipy.fft import dctn

    _check(images)
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(images)), each)
    top, left = rng.integers(0, images.shape[1] - size + 1, (2, len(owner)))
    steps = np.arange(size)
    patches = images[
        owner[:, None, None], top[:, None, None] + steps[:, None], left[:, None, None] + steps
    ].astype(np.float64)
    grain = np.log1p(np.abs(dctn(patches, axes=(1, 2), norm="ortho")))
    flat = (len(owner), size * size)
    return np.hstack([patches.reshape(flat), grain.reshape(flat)]), owner


def source_auroc(
    synthetic: np.ndarray,
    real: np.ndarray,
    *,
    groups: tuple[np.ndarray, np.ndarray] | None = None,
    strength: float = 0.01,
    folds: int = 5,
    seed: int = 0,
) -> float:
    """AUROC of a logistic regression that tells synthetic from real, each row scored held out.

    Args:
        synthetic: Features ``(N, D)`` of synthetic images or patches.
        real: Features ``(M, D)`` of real ones, taken in the same way.
        groups: For each stack the patient or image of every row; rows of one stay in one fold.
            Without it every row is on its own.
        strength: C of scikit-learn's regression, on standardised features.

    Returns:
        .5 where nothing tells them apart, 1 where everything does.

    Raises:
        ValueError: The features differ in number, or a stack has fewer groups than folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    own, other = groups or (np.arange(len(synthetic)), np.arange(len(real)))
    fewest = min(len(np.unique(own)), len(np.unique(other)))
    if synthetic.shape[1:] != real.shape[1:] or fewest < folds:
        raise ValueError(
            f"Got features of shape {synthetic.shape} and {real.shape} from {fewest} groups or "
            f"more. Expected as many columns in both, and {folds} groups or more in each."
        )
    x = np.vstack([synthetic, real]).astype(np.float64)
    y = np.repeat([1, 0], [len(synthetic), len(real)])
    own, other = (np.unique(ids, return_inverse=True)[1] for ids in (own, other))
    g = np.concatenate([own, len(own) + other])  # no group of one stack is one of the other
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    scores = cross_val_predict(model, x, y, groups=g, cv=splitter, method="decision_function")
    return float(roc_auc_score(y, scores))


def _check(images: np.ndarray) -> None:
    square = images.ndim == 3 and images.shape[1] == images.shape[2] and images.dtype == np.uint8
    if not square or not len(images):
        raise ValueError(
            f"Got an array {images.shape} of {images.dtype}. Expected uint8 (N, S, S) with one "
            "image or more, such as images.cache(table, size=S, folder=…).images."
        )
