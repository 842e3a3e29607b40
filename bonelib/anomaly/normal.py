"""How far an image lies from normal ones: features in, distances out.

Only normal training images are fitted. k-NN: Bergman et al. 2020, arXiv:2002.10445. Mahalanobis
distance with a shrunk covariance: Rippel et al. 2021, arXiv:2005.14140. Banks of patches:
PatchCore, Roth et al. 2022, arXiv:2106.08265.
"""

from collections.abc import Sequence

import numpy as np

NEIGHBOURS = 5
PROJECTED = 64  # dimensions in which the coreset is chosen
LEAST_SLOPE = 0.01  # of a calibration: a score that misleads on validation keeps its direction


def _normal(features: np.ndarray, least: int) -> np.ndarray:
    if len(features) < least:
        raise ValueError(
            f"{len(features)} normal training images; {least} or more are needed, as normal is "
            "learnt from them alone. Choose a task with a normal class, or another test set."
        )
    if not np.isfinite(features).all():
        raise ValueError("Features of normal images are NaN or infinite.")
    return features


def knn_distances(
    normal: np.ndarray, features: np.ndarray, *, neighbours: int = NEIGHBOURS
) -> np.ndarray:
    """Return the mean distance ``(N,)`` of unit features ``(N, D)`` to their nearest normal ones.

    With fewer normal images ``(M, D)`` than neighbours all of them count.

    Raises:
        ValueError: No normal image, or fewer than one neighbour.
    """
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    if neighbours < 1:
        raise ValueError(f"Neighbours are whole numbers from 1, not {neighbours}.")
    nearest = NearestNeighbors(n_neighbors=min(neighbours, max(1, len(normal))))
    nearest.fit(normalize(_normal(normal, 1)))
    return nearest.kneighbors(normalize(features))[0].mean(axis=1)


def mahalanobis_distances(normal: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return the Mahalanobis distance ``(N,)`` from normal images, covariance as Ledoit and Wolf.

    Raises:
        ValueError: Fewer than two normal images.
    """
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(_normal(normal, 2).astype(np.float64))
    return np.sqrt(fitted.mahalanobis(np.asarray(features, np.float64)).clip(0))


def coreset(patches: np.ndarray, *, size: int, pool: int = 10_000, seed: int = 0) -> np.ndarray:
    """Choose patches ``(size, C)`` that leave no other far from all of them, out of ``(…, C)``.

    Greedy k-centre in a random projection, among at most ``pool`` patches that are drawn first.

    Raises:
        ValueError: No patches, or a size below one.
    """
    patches = _normal(patches.reshape(-1, patches.shape[-1]), 1)
    if size < 1:
        raise ValueError(f"A bank holds 1 patch or more, not {size}.")
    draw = np.random.default_rng(seed)
    patches = patches[draw.permutation(len(patches))[:pool]]
    low = patches
    if patches.shape[1] > PROJECTED:
        low = patches @ draw.normal(size=(patches.shape[1], PROJECTED)).astype(patches.dtype)
    chosen, far = [0], np.full(len(low), np.inf)
    while len(chosen) < min(size, len(low)):
        far = np.minimum(far, ((low - low[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(far.argmax()))
    return patches[chosen]


def distances(bank: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """Return how far each patch ``(N, h, w, C)`` is from the nearest of a bank: ``(N, h, w)``."""
    from sklearn.metrics import pairwise_distances_argmin_min

    flat = patches.reshape(-1, patches.shape[-1])
    return pairwise_distances_argmin_min(flat, bank)[1].reshape(patches.shape[:-1])


def calibrated(
    validation: Sequence[np.ndarray], labels: np.ndarray, scores: Sequence[np.ndarray]
) -> np.ndarray:
    """Turn one or several kinds of scores ``(N,)`` into one logit: the mean of calibrated ones.

    Each kind is put on the scale of logits by a logistic regression on validation images, ``(V,)``
    scores and ``labels`` 0 or 1 (Platt 1999), whose slope is positive: a calibration may not turn
    a ranking round.

    Raises:
        ValueError: Validation images are of one class.
    """
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"The {len(labels)} validation images are of one class: scores can't be calibrated."
        )
    logits = []
    for known, new in zip(validation, scores, strict=True):
        fitted = LogisticRegression().fit(standardised(known, known)[:, None], labels)
        slope = max(float(fitted.coef_[0, 0]), LEAST_SLOPE)
        logits.append(slope * standardised(known, new) + fitted.intercept_[0])
    return np.mean(logits, axis=0)


def standardised(validation: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return scores or maps in standard deviations on validation, around its mean."""
    return (new - validation.mean()) / (validation.std() or 1.0)
