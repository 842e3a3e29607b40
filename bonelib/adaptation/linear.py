"""Linear heads on standardised features: logistic regression, a linear SVM, ridge regression.

All points of a search and all masks are fitted together. Rows are turned into an orthonormal basis
in which the problem is nearly diagonal (the axes of the rows' own Gram matrix where there are fewer
rows than columns, else the support's principal axes). There, nonlinear conjugate gradients
(Fletcher and Reeves 1964; Polak and Ribière 1969) preconditioned by the curvature of each
coordinate take all problems down at once, two matrix products a step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from bonelib.adaptation.probes import WIDE
from bonelib.adaptation.support import (
    Point,
    Standard,
    Support,
    adjust,
    balanced,
    counts,
    never_winning,
    of_both,
    refuse_values,
    standardised,
    unit_length,
)

STEPS = 1000  # at most; a single point is solved to the end
LOOSE, EXACT = 1e-6, 1e-14  # expected decrease a row at which a problem counts as solved


@dataclass(frozen=True)
class Linear:
    """Linear heads of K masks and P points.

    Attributes:
        weights: ``(K, P, D, C)``.
        bias: ``(K, P, C)``.
        present: ``(K, C)`` bool, the classes that have a row.
        standards: How each mask standardises features; None where rows of unit length go in.
    """

    weights: np.ndarray
    bias: np.ndarray
    present: np.ndarray
    standards: Sequence[Standard] | None = None

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return ``(K, P, M, C)`` logits of raw features."""
        masks, points, _, classes = self.weights.shape
        out = np.empty((masks, points, len(features), classes), self.weights.dtype)
        unit = unit_length(features) if self.standards is None else features
        for k, weights in enumerate(self.weights):
            z = self.standards[k].of(features) if self.standards is not None else unit
            flat = weights.transpose(1, 0, 2).reshape(z.shape[1], -1)
            out[k] = (z @ flat).reshape(len(z), points, classes).swapaxes(0, 1)
        return never_winning(out + self.bias[:, :, None], self.present)

    def of(self, mask: int) -> "Linear":
        """Return the heads of one mask, K = 1."""
        one = slice(mask, mask + 1)
        standards = self.standards and self.standards[one]
        return Linear(self.weights[one], self.bias[one], self.present[one], standards)


def probe(support: Support, rows: np.ndarray, points: Sequence[Point]) -> Linear:
    """Fit L2-regularised logistic regression, or ridge regression to values: the linear probe.

    Radford et al. 2021, arXiv:2103.00020, section 3.2: ``min C sum log loss + |w|²/2`` on
    standardised features, as scikit-learn defines C. Several points are fitted until their ranks
    are settled, in single precision where there are many columns; a single one to the end. Grades
    are fitted as classes.

    Args:
        points: ``strength``, the C; ``balanced`` = 1 weighs classes by their inverse frequency;
            ``tau`` shifts the logits against the classes' frequencies (``support.adjust``).
    """
    if support.regression:
        return ridge(support, rows, points)
    binary = support.classes == 2
    heads = _fit(support, rows, points, _logistic if binary else _softmax, joint=not binary)
    tau = np.array([point.get("tau", 0.0) for point in points])
    if tau.any():
        bias = adjust(heads.bias, counts(support, rows)[:, None], tau[:, None])
        return replace(heads, bias=bias)
    return heads


def linear_svm(support: Support, rows: np.ndarray, points: Sequence[Point]) -> Linear:
    """Fit linear support vector machines with the squared hinge, one class against the others.

    ``min C sum max(0, 1 - y f)² + |w|²/2``, scikit-learn's ``LinearSVC`` but for the intercept,
    which is not penalised here. Cortes and Vapnik 1995; Fan et al. 2008 (LIBLINEAR).

    Args:
        points: ``strength``, the C; ``balanced`` = 1 weighs classes by their inverse frequency.

    Raises:
        ValueError: The labels are values.
    """
    refuse_values(support, "linear_svm")
    return _fit(support, rows, points, _squared_hinge, joint=False)


# A loss: margins (K, m, Q, C) and targets -> its gradient, and its curvature along a direction
Loss = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, Callable]]


def _logistic(u: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, Callable]:
    p = 0.5 * (1 + np.tanh(u / 2))
    return p - target, lambda d: p * (1 - p) * d * d


def _softmax(u: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, Callable]:
    p = np.exp(u - u.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return p - target, lambda d: p * d * (d - (p * d).sum(axis=-1, keepdims=True))


def _squared_hinge(u: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, Callable]:
    sign = 2 * target - 1
    lacking = np.maximum(1 - sign * u, 0)
    return -2 * sign * lacking, lambda d: 2 * np.sign(lacking) * d * d


def _fit(
    support: Support, rows: np.ndarray, points: Sequence[Point], loss: Loss, *, joint: bool
) -> Linear:
    """Fit all masks and points; ``joint`` where the columns of one problem share a softmax."""
    exact = len(points) == 1
    columns, classes = support.features.shape[1], support.classes
    kind = np.float64 if exact or columns < WIDE else np.float32
    binary = classes == 2
    present = support.present(rows)
    own = [standardised(support.features[mask], kind) for mask in rows]
    bases = [basis(z, support) for z, _ in own]
    m, r = (max(base[0].shape[axis] for base in bases) for axis in (0, 1))
    outputs = 1 if binary else classes
    a = np.zeros((len(rows), m, r + 1), kind)
    target = np.zeros((len(rows), m, 1, outputs), kind)
    weight = np.zeros((len(rows), m, len(points)), kind)
    closed = np.where(present, 0, -1e4) if joint else np.zeros((1, 1))
    offset = closed.astype(kind)[:, None, None]
    for k, (mask, (base, _)) in enumerate(zip(rows, bases, strict=True)):
        n, y = len(base), support.labels[mask]
        a[k, :n, : base.shape[1]], a[k, :n, r] = base, 1
        target[k, :n, 0] = (y == 1)[:, None] if binary else y[:, None] == np.arange(classes)
        if present[k].sum() > 1:  # one class alone has nothing to learn: all stays 0
            weight[k, :n] = _row_weights(y, classes, points)
    strength = np.array([point["strength"] for point in points], kind)
    if not joint:  # a problem a class, each with its own steps: (Q = P C, 1)
        strength, weight = np.repeat(strength, outputs), np.repeat(weight, outputs, axis=2)
        target = np.tile(target.reshape(len(rows), m, 1, outputs), (1, 1, len(points), 1))
        target = target.reshape(len(rows), m, -1, 1)
    found = _descend(a, target, weight[..., None], strength, loss, offset, exact)
    found = found.reshape(len(rows), r + 1, len(points), outputs)
    weights = np.zeros((len(rows), len(points), columns, outputs), kind)
    for k, (base, back) in enumerate(bases):
        v = found[k, : base.shape[1]].reshape(base.shape[1], -1)
        weights[k] = (back @ v).reshape(columns, len(points), outputs).swapaxes(0, 1)
    bias = found[:, r]
    if binary:
        weights, bias = of_both(weights), of_both(bias)
    return Linear(weights, bias, present, [standard for _, standard in own])


def _row_weights(y: np.ndarray, classes: int, points: Sequence[Point]) -> np.ndarray:
    """Return the weight of each row in each point's loss ``(n, P)``: 1, or balanced to mean 1."""
    weights = balanced(np.bincount(y, minlength=classes))[y]
    flags = np.array([bool(point.get("balanced", 0)) for point in points])
    return np.where(flags, weights[:, None], 1.0)


def basis(z: np.ndarray, support: Support | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows in an orthonormal basis ``(m, r)`` and the way back ``(D, r)``.

    The columns of the first are orthogonal, or nearly so where the basis is the support's; the
    length of a vector is that of its image under the second.
    """
    from scipy.linalg import eigh

    if len(z) >= z.shape[1]:
        if support is not None:
            axes = support.axes.astype(z.dtype)
            return z @ axes, axes
        axes = eigh(z.T @ z, driver="evd")[1]
        return z @ axes, axes
    values, vectors = eigh(z @ z.T, driver="evd")
    kept = values > max(values[-1], 1e-30) * len(z) * np.finfo(z.dtype).eps
    kept[-1] = True
    root = np.sqrt(np.maximum(values[kept], 1e-30))
    return vectors[:, kept] * root, z.T @ (vectors[:, kept] / root)


def _descend(
    a: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    strength: np.ndarray,
    loss: Loss,
    offset: np.ndarray,
    exact: bool,
) -> np.ndarray:
    """Minimise ``sum weight loss(a v) + |v|² / 2 C`` of all problems; the last row is an intercept.

    Args:
        a: Rows ``(K, m, r + 1)``.
        target: ``(K, m, 1 or Q, C)``.
        weight: Of each row ``(K, m, Q, 1)``.
        strength: C of each of the Q problems.
        offset: Added to the margins ``(K, 1, 1, C)``.

    Returns:
        ``(K, r + 1, Q, C)``.
    """
    masks, m, r = a.shape
    problems, columns = len(strength), target.shape[-1]
    penalty = np.ones((masks, r, problems, 1), a.dtype) / strength[:, None]
    penalty[:, -1] = 0
    target = np.broadcast_to(target, (masks, m, problems, columns))
    spread = np.einsum("kmr,km->kr", a * a, weight.mean(axis=(2, 3)))[..., None, None]
    total = np.maximum(weight.sum(axis=1, keepdims=True), 1e-12)  # (K, 1, Q, 1)
    transposed = a.swapaxes(1, 2)

    def product(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
        found = np.matmul(matrix, x.reshape(masks, x.shape[1], -1))
        return found.reshape(masks, -1, *x.shape[2:])

    def dot(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.einsum("krqc,krqc->kq", x, y)[:, None, :, None]

    out = np.zeros((masks, r, problems, columns), a.dtype)
    left = np.arange(problems)  # not solved yet
    v, u = out.copy(), np.zeros((masks, m, problems, columns), a.dtype)
    direction, last, decrease = v, v, np.full_like(total, np.inf)
    for _ in range(STEPS):
        residual, curve = loss(u + offset, target)
        gradient = product(transposed, weight * residual) + penalty * v
        bend = (weight * _curvature(curve, columns, a.dtype)).sum(axis=1, keepdims=True) / total
        step = gradient / (np.maximum(bend, 1e-3) * spread + penalty + 1e-12)
        value = dot(gradient, step)
        open_ = (value > (EXACT if exact else LOOSE) * total).any(axis=0).ravel()
        out[:, :, left] = v
        if not open_.any():
            break
        turn = np.maximum(dot(step, gradient - last) / np.maximum(decrease, 1e-30), 0)
        direction = turn * direction - step
        direction = np.where(dot(direction, gradient) < 0, direction, -step)
        last, decrease = gradient, value
        if not open_.all():  # solved problems cost nothing any more
            left = left[open_]
            parts = (v, u, direction, last, decrease, weight, target, penalty, total)
            parts = (part[:, :, open_] for part in parts)
            v, u, direction, last, decrease, weight, target, penalty, total = parts
        along = product(a, direction)
        length = _length(
            partial(_slope, loss, u + offset, along, target, weight),
            dot(v, penalty * direction),
            dot(direction, penalty * direction),
        )
        v, u = v + length * direction, u + length * along
    return out


def _curvature(curve: Callable, columns: int, kind: np.dtype) -> np.ndarray:
    """Return the mean curvature of the columns of each row, ``(K, m, Q, 1)``."""
    each = (curve(unit[None, None, None]) for unit in np.eye(columns, dtype=kind))
    first, *others = (bend.sum(axis=-1, keepdims=True) for bend in each)
    return sum(others, first) / columns


def _slope(
    loss: Loss,
    start: np.ndarray,
    along: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    t: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return both derivatives of the loss at length ``t`` of a direction, ``(K, 1, Q, 1)``."""
    residual, curve = loss(start + t * along, target)
    first = (weight * residual * along).sum(axis=(1, 3), keepdims=True)
    return first, (weight * curve(along)).sum(axis=(1, 3), keepdims=True)


def _length(slope: Callable, linear: np.ndarray, square: np.ndarray) -> np.ndarray:
    """Return how far each problem goes along its direction: Newton's method between brackets.

    Args:
        slope: Length ``(K, 1, Q, 1)`` -> derivatives of the loss.
        linear: First derivative of the penalty at 0.
        square: Its second derivative.
    """
    t = np.zeros_like(linear)
    low, high, start = t, np.full_like(t, np.inf), None
    for _ in range(8):
        first, second = slope(t)
        first, second = first + linear + t * square, second + square
        start = abs(first) if start is None else start
        near = abs(first) <= 0.05 * start
        if near.all():
            break
        low, high = np.where(first < 0, t, low), np.where(first < 0, high, t)
        moved = t - first / np.maximum(second, 1e-30)
        inside = np.where(np.isfinite(high), (low + high) / 2, 2 * low + 1e-6)
        t = np.where(near, t, np.where((moved > low) & (moved < high), moved, inside))
    return t


def ridge(
    support: Support, rows: np.ndarray, points: Sequence[Point], stretch: np.ndarray | float = 1.0
) -> Linear:
    """Fit ridge regression with penalty 1 / strength, in closed form for all points.

    Args:
        points: ``strength``.
        stretch: ``(D,)``, by which standardised columns are multiplied.
    """
    strength = np.array([point["strength"] for point in points])
    columns = support.features.shape[1]
    weights = np.zeros((len(rows), len(points), columns, 1))
    bias, standards = np.zeros((len(rows), len(points), 1)), []
    for k, mask in enumerate(rows):
        z, standard = standardised(support.features[mask])
        y = support.labels[mask].astype(np.float64)
        base, back = basis(z * stretch)
        moment = (base.T @ (y - y.mean()))[:, None]
        v = moment / ((base**2).sum(axis=0)[:, None] + 1 / strength)
        weights[k, :, :, 0], bias[k] = (back @ v).T * stretch, y.mean()
        standards.append(standard)
    return Linear(weights, bias, support.present(rows), standards)
