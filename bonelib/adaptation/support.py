"""What every strategy on frozen features gets, and what it gives back.

A strategy is a function ``strategy(support, rows, points) -> Heads``: it fits one head for each
part of the training images (a mask, such as an inner fold or a draw of few shots) and each point of
its search, all at once, so that what they have in common is computed once. ``search.fit`` chooses
the point.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

Point = Mapping[str, float]  # one setting of a strategy's hyper-parameters


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

    def rows(self, chosen: np.ndarray) -> "Support":
        """Return the support of some rows: a mask ``(N,)`` or indices."""
        return replace(
            self,
            features=self.features[chosen],
            labels=self.labels[chosen],
            groups=self.groups[chosen],
        )


class Heads(Protocol):
    """The heads of K masks and P points."""

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return ``(K, P, M, C)`` logits of raw features; values, C = 1, of a regression.

        A class that no row of a mask has gets a logit that never wins (``probes.ABSENT``).
        """


class Strategy(Protocol):
    """A strategy on frozen features; the table ``strategies.csv`` says what each one is."""

    def __call__(self, support: Support, rows: np.ndarray, points: Sequence[Point]) -> Heads:
        """Fit heads to masks ``rows`` ``(K, N)`` bool at each point.

        Raises:
            ValueError: The strategy does not fit the task's kind, or lacks what it needs.
        """
