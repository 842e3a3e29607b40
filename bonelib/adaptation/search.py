"""Nested choice: every strategy's hyper-parameters are chosen inside the training images.

All strategies have the same budget, ``POINTS`` points on the same inner folds, and are judged by
the metric that decides for the task. The chosen point is refitted on all training images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bonelib.adaptation.support import Heads, Point, Strategy, Support, refuse_one_class

POINTS = 8  # points that each strategy may try


@dataclass(frozen=True)
class Fitted:
    """A strategy fitted at the point that inner folds chose.

    Attributes:
        heads: Of all training rows at that point: K = P = 1.
        point: The one chosen.
        inner: Mean inner score of each point tried, ``(P,)``, higher is better; empty where a class
            has too few groups to compare anything.
    """

    heads: Heads
    point: Point
    inner: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return ``(M, C)`` logits of raw features, ``(M,)`` values of a regression."""
        found = self.heads.logits(features)[0, 0]
        return found[:, 0] if found.shape[1] == 1 else found


def fit(strategy: Strategy, support: Support, points: Sequence[Point]) -> Fitted:
    """Choose the point with the best mean score over inner folds, and refit it on all rows.

    Where a class has a single group nothing can be compared: the middle point is taken. Of points
    with equal scores the first is taken.

    Raises:
        ValueError: The rows are all of one class.
    """
    if not support.regression:
        refuse_one_class(support.labels, support.classes)
    every = np.ones((1, len(support.features)), dtype=bool)
    held = support.folds
    if len(points) == 1 or not len(held):
        point = points[len(points) // 2]
        return Fitted(strategy(support, every, [point]), point, np.empty(0))
    inner = _inner(support, held, strategy(support, ~held, points))
    point = points[int(np.argmax(inner))]
    return Fitted(strategy(support, every, [point]), point, inner)


def calibrated(
    strategy: Strategy, support: Support, fitted: Fitted
) -> Callable[[np.ndarray], np.ndarray]:
    """Return what puts the logits of a head on the scale of probabilities, whatever head it is.

    Logits of different heads can't be pooled over folds: those of a discriminant are hundreds where
    those of trees are ones. Each is scaled by a logistic regression on what the head of the chosen
    point says of the rows that an inner fold holds out (Platt 1999; vector scaling for several
    classes, Guo et al. 2017, arXiv:1706.04599). Values, and heads without inner folds or without
    rows of a class, stay as they are.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    held = support.folds
    few = not support.regression and len(np.unique(support.labels)) < support.classes
    if support.regression or few or not len(held):
        return lambda logits: logits
    every = strategy(support, ~held, [fitted.point]).logits(support.features)[:, 0]  # (K, N, C)
    out = np.empty(every.shape[1:])
    for rows, logits in zip(held, every, strict=True):
        out[rows] = logits[rows]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0))
    model.fit(_differences(out), support.labels)
    return lambda logits: model.decision_function(_differences(logits))


def _differences(logits: np.ndarray) -> np.ndarray:
    """Return what logits say beyond a common level: of two classes their difference ``(M, 1)``."""
    if logits.shape[1] == 2:
        return logits[:, 1:] - logits[:, :1]
    return logits - logits.mean(axis=1, keepdims=True)


def _inner(support: Support, held: np.ndarray, heads: Heads) -> np.ndarray:
    """Return the mean inner score of each point ``(P,)``, higher is better.

    Macro one-vs-rest AUROC of classes and grades, minus the mean absolute error of values; a fold
    in which a class can't be judged leaves that class out. Where no fold can be judged, 0 for all.
    """
    each = getattr(heads, "of", None)  # heads of one mask see the rows it holds out alone
    whole = np.empty(0) if each else heads.logits(support.features)
    found = []
    for k, rows in enumerate(held):
        out = each(k).logits(support.features[rows])[0] if each else whole[k][:, rows]
        found.append(_scores(support, support.labels[rows], out))
    found = np.array(found, dtype=np.float64)
    judged = np.isfinite(found).any(axis=1)
    return np.nanmean(found[judged], axis=0) if judged.any() else np.zeros(found.shape[1])


def _scores(support: Support, y: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Return the score of each point in one fold: labels ``(M,)``, logits ``(P, M, C)``."""
    if support.regression:
        return -np.abs(out[..., 0] - y).mean(axis=1)
    e = np.exp(out - out.max(axis=2, keepdims=True))
    share = e / e.sum(axis=2, keepdims=True)
    if support.classes == 2:  # the difference keeps ranks that a saturated share would lose
        share = out - out[..., :1]
    columns = [1] if support.classes == 2 else range(support.classes)
    aurocs = [_aurocs(y == c, share[..., c]) for c in columns if 0 < (y == c).sum() < len(y)]
    return np.mean(aurocs, axis=0) if aurocs else np.full(len(out), np.nan)


def _aurocs(positive: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Return the AUROC of each row of ``shown`` ``(P, M)``, ties counted one half."""
    from scipy.stats import rankdata

    ranks = rankdata(shown, axis=1)[:, positive].sum(axis=1)
    n = int(positive.sum())
    return (ranks - n * (n + 1) / 2) / (n * (len(positive) - n))
