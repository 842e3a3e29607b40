"""In which order, and how often, the images of an epoch come.

An order is drawn anew each epoch from a generator that follows from (seed, epoch); it has a fixed
length, so that an epoch always has as many batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd


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


class Balanced:
    """As many rows as there are, rare meanings (rows of keys, or names) drawn more often.

    A meaning that n rows share comes in proportion to n^(1 - evenness): 1 makes all meanings
    equally likely, 0 leaves them as they are, 0.5 takes square roots (Mahajan et al. 2018,
    arXiv:1805.00932, section 2.2).
    """

    def __init__(self, keys: np.ndarray | Sequence[str], *, evenness: float = 1.0):
        _, self.meaning = np.unique(np.asarray(keys), axis=0, return_inverse=True)
        self.meaning = self.meaning.reshape(-1)
        self.weight = np.bincount(self.meaning)[self.meaning] ** -float(evenness)

    def __len__(self) -> int:
        return len(self.meaning)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return rows with replacement, rare meanings more often."""
        return rng.choice(len(self), size=len(self), p=self.weight / self.weight.sum())


class OneSet:
    """Batches of one data set each, so that telling the sets apart is no way to lower the loss.

    Radiographs of two sets differ in film, border and site; beside images of another set, a caption
    is found without a look at what it says. A rest smaller than a batch waits for another epoch.

    Raises:
        ValueError: A set is smaller than a batch, so that it would never come.
    """

    def __init__(self, sources: Sequence[str], *, batch_size: int):
        self.members = members_of(sources)
        self.batch_size = batch_size
        sizes = {str(np.asarray(sources)[rows[0]]): len(rows) for rows in self.members}
        small = [f"{name} ({rows} rows)" for name, rows in sizes.items() if rows < batch_size]
        if small:
            raise ValueError(
                f"{', '.join(small)} never fills a batch of {batch_size}. Take a smaller batch, or "
                "leave the set out."
            )
        self.batches = sum(len(rows) // batch_size for rows in self.members)

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return batch after batch, sets in random order."""
        batches = []
        for rows in self.members:
            whole = len(rows) // self.batch_size * self.batch_size
            batches += list(rng.permutation(rows)[:whole].reshape(-1, self.batch_size))
        return np.concatenate([batches[k] for k in rng.permutation(len(batches))])


class UniqueCaptions:
    """Batches in which no caption stands twice; kept only as the published comparison.

    Schuster 2025 (Vision-Language Pretraining for Bone Tumor Detection): it hides equal strings
    from the loss, not equal meanings. Rows whose caption would repeat wait for another epoch.
    """

    def __init__(self, captions: Sequence[str], *, batch_size: int):
        self.members = members_of(captions)
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


def members_of(names: Sequence) -> list[np.ndarray]:
    """Return the rows of each name in alphabetical order; where one is missing, a row is alone."""
    rows: dict[tuple[str, int], list[int]] = {}
    missing = pd.isna(np.asarray(names, dtype=object))
    for row, (name, alone) in enumerate(zip(names, missing, strict=True)):
        rows.setdefault(("", row) if alone else (str(name), -1), []).append(row)
    return [np.array(rows[key]) for key in sorted(rows)]
