"""What every strategy on frozen features gets, and what it gives back.

A strategy is a function ``strategy(support, rows, points) -> Heads``: it fits one head for each
part of the training images (a mask, such as an inner fold or a draw of few shots) and each point of
its search, all at once, so that what they have in common is computed once. ``search.fit`` chooses
the point.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

Point = Mapping[str, float]  # values of a strategy's hyper-parameters, by name
FOLDS = 3  # inner ones, at most
ABSENT = -30.0  # how far the logit of a class that no row has lies below all others
REACH = 3.0  # see ``Standard.reach``


@dataclass(frozen=True)
class Support:
    """Training images of one task as frozen features, the support set of few-shot learning.

    Attributes:
        features: ``(N, D)`` float32, raw; strategies that use cosines take unit length themselves.
        labels: ``(N,)`` integers from 0, or floats of a regression; every row has one.
        groups: ``(N,)``; no group is parted by inner folds.
        classes: How many classes the task has; 0 for a regression.
        ordinal: The classes are grades in order.
        texts: ``(C, D)`` unit vectors of the classes' prompts in the space of the features, of a
            dual encoder; None where there are none.
        scale: Logit scale of that dual encoder.
        seed: Fixes folds and random starts.
    """

    features: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    classes: int
    ordinal: bool = False
    texts: np.ndarray | None = None
    scale: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        n = len(self.features)
        if not len(self.labels) == len(self.groups) == n:
            raise ValueError(
                f"{n} rows of features, {len(self.labels)} labels, {len(self.groups)} groups: "
                "each image has one of each."
            )
        known = np.isfinite(self.labels) if self.regression else np.asarray(self.labels) >= 0
        if not known.all():
            raise ValueError(
                f"{int((~known).sum())} of {n} rows have no label. Leave them out with rows()."
            )
        if not self.regression and n and self.labels.max() >= self.classes:
            raise ValueError(
                f"A label is {self.labels.max()}, but there are {self.classes} classes."
            )
        expected = (self.classes, np.shape(self.features)[1])
        if self.texts is not None and self.texts.shape != expected:
            raise ValueError(f"Texts are {self.texts.shape}; expected {expected}, a row a class.")

    @property
    def regression(self) -> bool:
        """Whether the labels are values."""
        return self.classes == 0

    @property
    def kind(self) -> str:
        """The task's kind: ``binary``, ``multiclass``, ``ordinal`` or ``regression``."""
        if self.regression or self.ordinal:
            return "ordinal" if self.ordinal else "regression"
        return "binary" if self.classes == 2 else "multiclass"

    @cached_property
    def unit(self) -> np.ndarray:
        """Features of unit length ``(N, D)``, computed once for all masks and points."""
        return unit_length(self.features)

    @cached_property
    def axes(self) -> np.ndarray:
        """Principal axes of the standardised features ``(D, D)`` float64, computed once.

        They are an orthonormal basis in which problems on any part of the rows are nearly solved
        coordinate by coordinate.
        """
        from scipy.linalg import eigh

        z, _ = standardised(self.features, np.float32)
        return eigh((z.T @ z).astype(np.float64), driver="evd", check_finite=False)[1]

    @cached_property
    def folds(self) -> np.ndarray:
        """Inner folds, computed once for all strategies: masks of held-out rows ``(K, N)``.

        They part no group; there are none where a class has a single one.
        """
        y, groups = self.labels, self.groups
        parts = [groups] if self.regression else [groups[y == c] for c in np.unique(y)]
        folds = min(FOLDS, *(len(np.unique(part)) for part in parts)) if len(parts) else 0
        if folds < 2:
            return np.zeros((0, len(y)), dtype=bool)
        values = None if self.regression else y
        return inner_folds(values, groups, folds, seed=self.seed).copy()

    def present(self, rows: np.ndarray) -> np.ndarray:
        """Return which classes have a row in each of the masks ``(K, N)``: ``(K, C)`` bool.

        Of a regression the one column of values, always.
        """
        return np.ones((len(rows), 1), bool) if self.regression else counts(self, rows) > 0

    def rows(self, chosen: np.ndarray) -> "Support":
        """Return the support of some rows: a mask ``(N,)`` or indices."""
        return replace(
            self,
            features=self.features[chosen],
            labels=self.labels[chosen],
            groups=self.groups[chosen],
        )


def inner_folds(
    labels: np.ndarray | None, groups: np.ndarray, folds: int, *, seed: int
) -> np.ndarray:
    """Return what each inner fold holds out, masks ``(K, N)``; no group is parted.

    A notebook asks for the same folds once a head and encoder, and scikit-learn takes tens of
    milliseconds for 1,000 groups: what was answered is kept.

    Args:
        labels: Classes that the folds are balanced by; None of a regression.
    """
    parts = [groups] if labels is None else [groups, labels]
    codes = (np.unique(part, return_inverse=True)[1].astype(np.int64).tobytes() for part in parts)
    return _held(folds, seed, *codes)


@functools.lru_cache(maxsize=128)
def _held(folds: int, seed: int, groups: bytes, labels: bytes = b"") -> np.ndarray:
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    parts, y = np.frombuffer(groups, np.int64), np.frombuffer(labels, np.int64)
    kind = StratifiedGroupKFold if labels else GroupKFold
    split = kind(folds, shuffle=True, random_state=seed).split(parts, y if labels else None, parts)
    held = np.zeros((folds, len(parts)), dtype=bool)
    for k, (_, test) in enumerate(split):
        held[k, test] = True
    held.setflags(write=False)  # it is handed to all who ask
    return held


class Heads(Protocol):
    """The heads of K masks and P points."""

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return ``(K, P, M, C)`` logits of raw features; values, C = 1, of a regression.

        A class that no row of a mask has gets a logit that never wins (``never_winning``). Heads
        that have a method ``of(k) -> Heads``, the heads of one mask, save the search work: each
        fold is then scored on the rows it holds out alone.
        """


class Strategy(Protocol):
    """A strategy on frozen features; the table ``strategies.csv`` says what each one is."""

    def __call__(self, support: Support, rows: np.ndarray, points: Sequence[Point]) -> Heads:
        """Fit heads to masks ``rows`` ``(K, N)`` bool at each point.

        Raises:
            ValueError: The strategy does not fit the task's kind, or lacks what it needs.
        """


class Standard(NamedTuple):
    """How features are standardised: by the mean and scale of training rows, within their reach.

    Attributes:
        mean: ``(D,)``, as the others.
        reach: How far from the mean a feature counts: three times as far as it lay in any training
            row. A feature that is 0 in all but one of few training rows is worth thousands of
            standard deviations in a test row otherwise (seen: 1,986).
    """

    mean: np.ndarray
    scale: np.ndarray
    reach: np.ndarray

    def of(self, features: np.ndarray) -> np.ndarray:
        """Return raw features ``(M, D)`` standardised, in the precision of the mean."""
        z = (np.asarray(features, self.mean.dtype) - self.mean) / self.scale
        return np.clip(z, -self.reach, self.reach, out=z)


def standardised(features: np.ndarray, kind: type = np.float64) -> tuple[np.ndarray, Standard]:
    """Return training rows ``(n, D)`` standardised by themselves, and how; constants become zero.

    By scikit-learn, whose test for "constant" allows for rounding: the standard deviation of equal
    numbers is not always 0, and a column divided by 1e-17 would ruin every row but these.
    """
    from sklearn.preprocessing import StandardScaler

    x = np.asarray(features, kind)
    scaler = StandardScaler().fit(x)
    z = scaler.transform(x)
    parts = scaler.mean_, scaler.scale_, REACH * abs(z).max(axis=0)
    return z, Standard(*(part.astype(kind) for part in parts))


def unit_length(features: np.ndarray) -> np.ndarray:
    """Return rows of unit length as float32; a row of zeros stays."""
    x = np.asarray(features, dtype=np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-12))


def counts(support: Support, rows: np.ndarray) -> np.ndarray:
    """Return how many rows each class has in each of the masks ``(K, N)``: ``(K, C)``."""
    found = [np.bincount(support.labels[mask], minlength=support.classes) for mask in rows]
    return np.array(found).reshape(len(rows), support.classes)


def balanced(counts: np.ndarray) -> np.ndarray:
    """Return the weight of a row of each class, its inverse frequency with mean 1 over the rows.

    Args:
        counts: ``(..., C)``; a class without rows has weight 0.
    """
    counts = np.asarray(counts, dtype=float)
    present = (counts > 0).sum(axis=-1, keepdims=True)
    weights = counts.sum(axis=-1, keepdims=True) / np.maximum(present * counts, 1)
    return np.where(counts > 0, weights, 0.0)


def refuse_one_class(labels: np.ndarray, classes: int = 0) -> None:
    """Refuse labels ``(N,)`` among which there are no two classes; -1 is none.

    Raises:
        ValueError: That is so.
    """
    found = np.bincount(labels[labels >= 0], minlength=classes)
    if (found > 0).sum() < 2:
        raise ValueError(
            f"Training rows by class: {found.tolist()}. A head needs two classes, else there is "
            "nothing to tell apart. Use another split, or draw more labels."
        )


def refuse_values(support: Support, name: str) -> None:
    """Refuse the labels of a regression to the strategy ``name``, which tells classes apart.

    Raises:
        ValueError: The labels are values.
    """
    if support.regression:
        raise ValueError(
            f"{name} tells classes apart; this task's labels are values. Choose a strategy for a "
            "regression, such as probe (ridge) or knn."
        )


def class_texts(support: Support, name: str) -> np.ndarray:
    """Return the texts ``(C, D)`` float32, which the strategy ``name`` can't do without.

    Raises:
        ValueError: The labels are values, or there are no texts.
    """
    refuse_values(support, name)
    if support.texts is None:
        raise ValueError(
            f"{name} needs a text for each class. Pass Support(texts=…, scale=…): one unit vector "
            "a class in the space of the features, from zero_shot.class_features of the dual "
            "encoder that made them. Or choose a strategy without texts, such as probe."
        )
    return np.asarray(support.texts, np.float32)


def of_both(second: np.ndarray) -> np.ndarray:
    """Return logits, weights or biases ``(…, 2)`` of two classes from ``(…, 1)``, their difference.

    It is the second class's against the first, and each has half of it.
    """
    return np.concatenate([-second, second], axis=-1) / 2


def never_winning(logits: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Put the logits ``(K, P, M, C)`` of classes that are not ``present`` ``(K, C)`` below all."""
    for mask, there in zip(logits, present, strict=True):
        if not there.all() and there.any():
            mask[..., ~there] = mask[..., there].min(axis=-1, keepdims=True) + ABSENT
    return logits


def adjust(logits: np.ndarray, counts: np.ndarray, tau: float | np.ndarray = 1.0) -> np.ndarray:
    """Return logits without the training set's class frequencies: logit adjustment.

    ``logit_c - tau log(n_c / N)``; tau = 1 is Bayes-optimal for the balanced error where the logits
    are calibrated. Menon et al. 2021, arXiv:2007.07314, equation 9. It moves thresholds and
    probabilities; the ranks of a binary task stay.

    Args:
        logits: ``(..., C)``.
        counts: Training rows of each class ``(…, C)``; a class without rows is left as it is.
    """
    counts = np.asarray(counts, dtype=float)
    total = np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    share = np.where(counts > 0, counts / total, 1.0)
    return logits - tau * np.log(share)
