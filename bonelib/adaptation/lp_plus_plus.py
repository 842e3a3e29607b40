"""LP++: a linear probe that blends in the classes' texts, its steps set by Lipschitz constants.

Huang et al., CVPR 2024, arXiv:2404.02285: ``logit_c = f·w_c + b_c + α_c f·t_c``, minimised by 300
full steps of gradient descent with momentum for w and one step in ten for α.
"""

from collections.abc import Sequence

import numpy as np

from bonelib.adaptation.linear import Linear
from bonelib.adaptation.support import Point, Support, class_texts, counts

STEPS, MOMENTUM, ALPHA_EVERY, ALPHA_START = 300, 0.9, 10, 250.0


def lp_plus_plus(support: Support, rows: np.ndarray, points: Sequence[Point]) -> Linear:
    """Fit LP++ to all masks along one path each; a point is the number of steps taken on it.

    Start: ``w_c`` the sum of the class's shots, ``α`` 250 times the mean over classes of their
    shots' mean ``f·t_c``. Steps: ``4 N / λmax(F'F)`` for w and b, ``N / (4 max_c sum (f·t_c)²)``
    for α. Shots may differ: the class's mean times N / C stands for the sum, which it is where they
    are equal (the published code assumes so). The gradient of α is that of its own step, as in the
    paper; the published code adds up those of all steps before. It also picks the step on
    validation images; here inner folds do.

    The iterates are the method's own, computed with less: in the span of the rows where these are
    fewer than the columns, and without the last class, whose gradient is minus the others' sum.

    Args:
        points: ``steps``, at most 300.

    Raises:
        ValueError: There are no texts, the labels are values, or more steps are asked for.
    """
    texts = class_texts(support, "lp_plus_plus")
    wanted = [int(point["steps"]) for point in points]
    if not 0 <= min(wanted) <= max(wanted) <= STEPS:
        raise ValueError(f"LP++ takes 0 to {STEPS} steps, but points ask for {sorted(wanted)}.")
    kind = np.float64 if len(points) == 1 else np.float32
    n = counts(support, rows)
    columns = support.features.shape[1]
    texts = texts.astype(kind)
    weights = np.zeros((len(rows), len(points), columns, support.classes), kind)
    bias = np.zeros((len(rows), len(points), support.classes), kind)
    for k, mask in enumerate(rows):
        there = np.flatnonzero(n[k])
        x, y = support.unit[mask].astype(kind), np.searchsorted(there, support.labels[mask])
        if len(there) > 1:
            found = _path(x, y, texts[there], wanted)
            weights[k][:, :, there], bias[k][:, there] = found
    return Linear(weights, bias, n > 0)


def _path(
    x: np.ndarray, y: np.ndarray, texts: np.ndarray, wanted: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return class vectors ``(P, D, C)``, texts blended in, and intercepts ``(P, C)``."""
    n, d = x.shape
    hot = (y[:, None] == np.arange(len(texts))).astype(x.dtype)
    start = (hot / hot.sum(axis=0)).T @ x * (n / len(texts))  # (C, D)
    inner = x @ x.T if n < d else None  # in the span of the rows: w = start + x' a
    shown, base = x @ texts.T, x @ start.T  # (n, C)
    alpha = np.full(len(texts), ALPHA_START * ((hot * shown).sum(axis=0) / hot.sum(axis=0)).mean())
    alpha = alpha.astype(x.dtype)
    w_step, alpha_step = 4 * n / _top(x), n / (4 * (shown**2).sum(axis=0).max())
    w = np.zeros((n if inner is not None else d, len(texts) - 1), x.dtype)
    b, velocity = np.zeros(len(texts), x.dtype), [0.0, 0.0]
    weights = np.empty((len(wanted), d, len(texts)), x.dtype)
    bias = np.empty((len(wanted), len(texts)), x.dtype)
    for step in range(max(wanted) + 1):
        for p in (p for p, last in enumerate(wanted) if last == step):
            moved = _whole(x.T @ w if inner is not None else w)
            weights[p], bias[p] = start.T + moved + (alpha[:, None] * texts).T, b
        logits = base + _whole((x if inner is None else inner) @ w) + b + alpha * shown
        logits -= logits.max(axis=1, keepdims=True)
        share = np.exp(logits, out=logits)
        share /= share.sum(axis=1, keepdims=True)
        residual = (share - hot) / x.dtype.type(n)
        gradient = residual[:, :-1] if inner is not None else x.T @ residual[:, :-1]
        velocity = [
            MOMENTUM * velocity[0] + gradient,
            MOMENTUM * velocity[1] + residual.sum(axis=0),
        ]
        w = w - x.dtype.type(w_step) * velocity[0]
        b = b - x.dtype.type(w_step) * velocity[1]
        if (step + 1) % ALPHA_EVERY == 0:
            alpha = alpha - x.dtype.type(alpha_step) * (residual * shown).sum(axis=0)
    return weights, bias


def _whole(columns: np.ndarray) -> np.ndarray:
    """Append the last class's column: all columns sum to zero, as those of the residual do."""
    return np.column_stack([columns, -columns.sum(axis=1)])


def _top(x: np.ndarray) -> float:
    """Return the largest eigenvalue of ``x' x``, by Lanczos steps where there are many columns."""
    from scipy.sparse.linalg import svds

    small = min(x.shape)
    if small < 8:
        return float(np.linalg.norm(x, 2)) ** 2
    start = np.ones(small, x.dtype)
    return float(svds(x, 1, v0=start, return_singular_vectors=False)[0]) ** 2
