"""In which order, and how often, the images of an epoch come.

An order is drawn anew each epoch from a generator that follows from (seed, epoch); it has a fixed
length, so that an epoch always has as many batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Order(Protocol):
    """Rows of an epoch: ``len(order)`` of them, drawn by ``order.draw(rng)``."""

    def __len__(self) -> int:
        """Return how many rows an epoch has."""

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return the rows of one epoch, ``(len(self),)``."""


@dataclass(frozen=True)
class Plain:
    """All rows once, as they stand or shuffled."""

    rows: int
    shuffle: bool = False

    def __len__(self) -> int:
        return self.rows

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return every row once."""
        return rng.permutation(self.rows) if self.shuffle else np.arange(self.rows)


class OnePerStudy:
    """One random image of each study an epoch, so that a study with ten views counts once.

    As in Englebert et al. 2024, arXiv:2405.08932, where a report belongs to several images.
    """

    def __init__(self, studies: Sequence):
        self.members = [np.flatnonzero(m) for m in _same(studies)]

    def __len__(self) -> int:
        return len(self.members)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return one row of each study, studies in random order."""
        chosen = np.array([rows[rng.integers(len(rows))] for rows in self.members])
        return rng.permutation(chosen)


class Balanced:
    """As many rows as there are, drawn so that each meaning (row of keys) is equally likely."""

    def __init__(self, keys: np.ndarray):
        _, self.meaning = np.unique(np.asarray(keys), axis=0, return_inverse=True)
        self.meaning = self.meaning.reshape(-1)
        self.weight = 1 / np.bincount(self.meaning)[self.meaning]

    def __len__(self) -> int:
        return len(self.meaning)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return rows with replacement, rare meanings more often."""
        return rng.choice(len(self), size=len(self), p=self.weight / self.weight.sum())


class UniqueCaptions:
    """Batches in which no caption stands twice; kept only as the published comparison.

    Schuster 2025 (Vision-Language Pretraining for Bone Tumor Detection): it hides equal strings
    from the loss, not equal meanings. Rows whose caption would repeat wait for another epoch.
    """

    def __init__(self, captions: Sequence[str], *, batch_size: int):
        self.members = [np.flatnonzero(m) for m in _same(captions)]
        self.batch_size = batch_size
        sizes = np.array([len(rows) for rows in self.members])
        most = int(sizes.sum()) // batch_size
        # n batches hold a caption at most n times.
        filled = [n for n in range(most + 1) if np.minimum(sizes, n).sum() >= n * batch_size]
        self.batches = max(filled)
        if not self.batches:
            raise ValueError(
                f"{len(self.members)} distinct captions make no batch of {batch_size} without a "
                "repetition. Take a smaller batch."
            )

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return batch after batch; each takes the captions of which most rows are left."""
        left = [list(rng.permutation(rows)) for rows in self.members]
        order = []
        for _ in range(self.batches):
            counts = np.array([len(rows) for rows in left]) + rng.random(
                len(left)
            )  # ties at random
            chosen = np.argsort(-counts)[: self.batch_size]
            order += [left[c].pop() for c in rng.permutation(chosen)]
        return np.array(order)


def _same(values: Sequence) -> list[np.ndarray]:
    names, inverse = np.unique(np.asarray(values, dtype=str), return_inverse=True)
    return [inverse == k for k in range(len(names))]
