"""Nested choice: every strategy's hyper-parameters are chosen inside the training images.

All strategies have the same budget, ``POINTS`` settings on the same inner folds, and are judged by
the metric that decides for the task. The chosen setting is refitted on all training images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bonelib.adaptation.support import Heads, Point, Strategy, Support

POINTS = 8  # settings that each strategy may try
FOLDS = 3  # inner ones, at most


@dataclass(frozen=True)
class Fitted:
    """A strategy fitted at the point that inner folds chose.

    Attributes:
        heads: Of all training rows at that point: K = P = 1.
        point: The setting.
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

    Where a class has a single group nothing can be compared: the middle point is taken.
    """
    every = np.ones((1, len(support.features)), dtype=bool)
    held = inner_folds(support)
    if len(points) == 1 or not len(held):
        point = points[len(points) // 2]
        return Fitted(strategy(support, every, [point]), point, np.empty(0))
    logits = strategy(support, ~held, points).logits(support.features)  # (K, P, N, C)
    inner = scores(support, held, logits)
    point = points[int(np.argmax(inner))]
    return Fitted(strategy(support, every, [point]), point, inner)


def inner_folds(support: Support) -> np.ndarray:
    """Return masks of held-out rows ``(K, N)`` that part no group; none where none can be made."""
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    y, groups = support.labels, support.groups
    parts = [groups] if support.regression else [groups[y == c] for c in np.unique(y)]
    folds = min(FOLDS, *(len(np.unique(part)) for part in parts)) if len(parts) else 0
    if folds < 2:
        return np.zeros((0, len(y)), dtype=bool)
    kind = GroupKFold if support.regression else StratifiedGroupKFold
    splitter = kind(folds, shuffle=True, random_state=support.seed)
    held = np.zeros((folds, len(y)), dtype=bool)
    for k, (_, test) in enumerate(splitter.split(support.features, y, groups)):
        held[k, test] = True
    return held


def scores(support: Support, held: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Return the mean inner score of each point ``(P,)``, higher is better.

    Macro one-vs-rest AUROC of classes and grades, minus the mean absolute error of values; a fold
    in which a class can't be judged leaves that class out.
    """
    k, p = logits.shape[:2]
    found = np.full((k, p), np.nan)
    for fold in range(k):
        y, out = support.labels[held[fold]], logits[fold][:, held[fold]]  # (P, M, C)
        if support.regression:
            found[fold] = -np.abs(out[..., 0] - y).mean(axis=1)
            continue
        e = np.exp(out - out.max(axis=2, keepdims=True))
        share = e / e.sum(axis=2, keepdims=True)
        columns = [1] if support.classes == 2 else range(support.classes)
        aurocs = [_aurocs(y == c, share[..., c]) for c in columns if 0 < (y == c).sum() < len(y)]
        if aurocs:
            found[fold] = np.mean(aurocs, axis=0)
    return np.nanmean(found, axis=0)


def _aurocs(positive: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Return the AUROC of each row of ``shown`` ``(P, M)``, ties counted one half."""
    from scipy.stats import rankdata

    ranks = rankdata(shown, axis=1)[:, positive].sum(axis=1)
    n = int(positive.sum())
    return (ranks - n * (n + 1) / 2) / (n * (len(positive) - n))
