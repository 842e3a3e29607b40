"""Calibration: is what is called 30 % probable so in three of ten cases?

ECE in bins of equal mass: Naeini et al. 2015, AAAI; Nixon et al. 2019, arXiv:1904.01685. Slope and
intercept: Cox 1958, Biometrika 45:562; Van Calster et al. 2019, BMC Med 17:230. (All recalled.)
"""

from collections.abc import Callable

import numpy as np

from bonelib.evaluation.ranking import Blocks, ratio

BINS = 15  # of the expected calibration error
CLIP = 1e-6  # logits are taken of probabilities within [CLIP, 1 - CLIP]
_STEPS, _DONE, _FLAT = 30, 1e-9, 1e-10  # of Newton's method; a determinant that is none


def equal_bins(scores: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin of each score ``(N,)``: bins of equal mass that never part equal scores.

    A tie goes whole to the bin of its middle image, so that bins differ in size, and some may be
    empty, where many images have one score.
    """
    order = np.argsort(scores, kind="stable")
    sizes = [len(part) for part in np.array_split(order, min(bins, len(scores)))]
    _, first, tie, count = np.unique(
        scores[order], return_index=True, return_inverse=True, return_counts=True
    )
    out = np.empty(len(scores), dtype=np.int64)
    out[order] = np.repeat(np.arange(len(sizes)), sizes)[first + count // 2][tie]
    return out


def ece_statistic(labels01: np.ndarray, scores: np.ndarray) -> Blocks:
    """Make the expected calibration error a function of image weights.

    ``sum over bins of |share of positives - mean score| * share of images``. The bins are those of
    the data in every draw.
    """
    inside = np.eye(BINS)[equal_bins(scores, BINS)] * (labels01 - scores)[:, None]

    def statistic(weights: np.ndarray) -> np.ndarray:
        return ratio(np.abs(weights @ inside).sum(-1), weights.sum(-1))

    return Blocks(np.arange(len(scores)), statistic)


def cox_statistic(labels01: np.ndarray, scores: np.ndarray, *, slope: bool) -> Blocks:
    """Make Cox's calibration slope, or intercept, a function of image weights.

    Logistic regression of the label on the logit of the score. The slope is fitted with an
    intercept of its own: below 1 the scores are too extreme. The intercept is fitted with the slope
    fixed at 1 (calibration in the large): below 0 the scores are too high. NaN where a class has no
    weight, or the scores part the classes without a fault: no finite slope fits then.
    """
    p = np.clip(scores, CLIP, 1 - CLIP)
    x, y = np.log(p / (1 - p)), labels01.astype(np.float64)
    scale = x.std() or 1.0  # steps of Newton's method are then of one size in every table
    if slope:
        x = x - x.mean()
    powers = np.stack([np.ones(len(x)), x / scale, (x / scale) ** 2], axis=1)
    own = _start(y, powers, None if slope else scale)

    def statistic(weights: np.ndarray) -> np.ndarray:
        w = np.atleast_2d(weights).astype(np.float64)
        found = _newton(w, y, powers, slope, np.repeat(own, len(w), axis=0))
        found = found[:, 1] / scale if slope else found[:, 0]
        return found.reshape(weights.shape[:-1])[()]

    return Blocks(np.arange(len(x)), statistic)


def _start(y: np.ndarray, powers: np.ndarray, slope: float | None) -> np.ndarray:
    """Find ``(1, 2)`` near the fit of the data by descent; a ``slope`` given is kept.

    Newton's steps swing for ever from far away, as where the scores are far too low.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        z = powers[:, :2] @ at
        return (np.logaddexp(0, z) - y * z).mean(), (expit(z) - y) @ powers[:, :2] / len(y)

    bounds = [(None, None), (slope, slope)]
    first = np.array([0.0, slope or 0.0])
    with np.errstate(over="ignore", invalid="ignore"):  # of classes that are parted
        return minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds).x[None]


def _newton(
    w: np.ndarray, y: np.ndarray, powers: np.ndarray, slope: bool, at: np.ndarray
) -> np.ndarray:
    """Fit intercepts and slopes ``(B, 2)`` to weights ``(B, N)`` by Newton's method, from ``at``.

    Args:
        powers: ``(N, 3)``: 1, the regressor and its square. slope: Fit it too.
    """
    share = ratio(w @ y, w.sum(-1))
    lost = moving = ~((share > 0) & (share < 1))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        for _ in range(_STEPS):
            mu = 1 / (1 + np.exp(-(at @ powers[:, :2].T)))
            pull = ((y - mu) * w) @ powers[:, :2]
            bend = (mu * (1 - mu) * w) @ powers
            if slope:
                det = bend[:, 0] * bend[:, 2] - bend[:, 1] ** 2
                lost |= ~(det > _FLAT * bend[:, 0] * bend[:, 2])
                turn = bend[:, 2] * pull[:, 0] - bend[:, 1] * pull[:, 1]
                tilt = bend[:, 0] * pull[:, 1] - bend[:, 1] * pull[:, 0]
                step = np.stack([turn / det, tilt / det], axis=1)
            else:
                step = np.stack([pull[:, 0] / bend[:, 0], np.zeros(len(at))], axis=1)
            step = np.where((lost | ~np.isfinite(step).all(1))[:, None], 0, np.clip(step, -5, 5))
            at = at + step
            moving = (np.abs(step) > _DONE * (1 + np.abs(at))).any(1)
            if not moving.any():
                break
    return np.where((lost | moving)[:, None], np.nan, at)


STATISTICS: dict[str, Callable[[np.ndarray, np.ndarray], Blocks]] = {
    "ECE": ece_statistic,
    "calibration slope": lambda y, p: cox_statistic(y, p, slope=True),
    "calibration intercept": lambda y, p: cox_statistic(y, p, slope=False),
}
