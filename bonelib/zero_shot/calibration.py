"""Probabilities that can be believed: a temperature, and an offset, fitted on validation patients.

Temperature scaling and ECE: Guo et al. 2017, arXiv:1706.04599. What is fitted on labels is called
calibrated, never zero-shot.
"""

from collections.abc import Callable

import numpy as np

MOST = 1e3  # of an inverse temperature and of an offset: classes that never err would end nowhere


def nll(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the negative log-likelihood of each image ``(N,)`` in nats, from ``(N, C)``."""
    return np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(labels)), labels]


def calibrate(
    logits: np.ndarray, labels: np.ndarray, *, offset: bool = False
) -> tuple[float, np.ndarray]:
    """Fit a temperature and, if asked, an offset a class ``(C,)`` by the least mean NLL.

    Calibrated are ``logits / temperature + offset``. A temperature keeps the ranks of the classes;
    an offset moves them, as the bias of a sigmoid pair does, which a pretraining learnt at the
    shares of its batches and not at those of a task. The first class's is 0.

    Args:
        logits: ``(N, C)`` of *validation* images. labels: ``(N,)``, each in 0 … C-1.

    Raises:
        ValueError: All images are of one class, or some have no label.
    """
    from scipy.optimize import minimize

    classes = logits.shape[1]
    if len(np.unique(labels)) < 2 or np.min(labels) < 0:
        raise ValueError(
            f"Calibration needs labelled validation images of two classes; these {len(labels)} "
            f"hold {sorted(set(np.asarray(labels).tolist()))} (-1: no label)."
        )
    hit = np.eye(classes)[labels]

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:  # convex in 1 / temperature and offsets
        moved = logits * x[0] + np.append(0.0, x[1:])
        rest = np.exp(moved - np.logaddexp.reduce(moved, axis=1, keepdims=True)) - hit
        slope = np.append((rest * logits).sum(), rest[:, 1:].sum(axis=0))[: len(x)]
        return nll(moved, labels).mean(), slope / len(labels)

    free = classes - 1 if offset else 0
    bounds = [(1 / MOST, MOST), *[(-MOST, MOST)] * free]
    start = np.append(1.0, np.zeros(free))
    found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B", tol=1e-12).x
    return float(1 / found[0]), np.append(0.0, found[1:] if offset else np.zeros(classes - 1))


def ece(p: np.ndarray, labels: np.ndarray, *, bins: int = 10) -> Callable[[np.ndarray], float]:
    """Return the expected calibration error as a function of image weights, for intervals.

    ``sum over bins of |share right - mean confidence| * share of images``, in bins of equal width
    of the confidence, the largest probability. Of few images it is too large, since chance alone
    parts a bin's share from its confidence; that of draws with replacement is larger still.
    """
    sure = p.max(axis=1)
    gap = (p.argmax(axis=1) == labels) - sure
    bin_of = np.minimum((sure * bins).astype(int), bins - 1)
    return lambda weights: np.abs(np.bincount(bin_of, weights * gap)).sum() / weights.sum()
