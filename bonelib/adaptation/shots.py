"""Few labels: nested draws of k shots a class and of shares of the labels, whole groups at a time.

For each seed the groups of a class have one random order, and every draw takes the first of them:
a draw holds all smaller draws of its seed, so that a curve over labels shows labels, not luck.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

SHOTS = (1, 2, 4, 8, 16)  # a class
SHARES = (0.01, 0.05, 0.10, 0.25, 1.0)  # of the labels
SEEDS = (0, 1, 2)
BINS = 5  # of the values of a regression, drawn like classes


@dataclass(frozen=True)
class Draws:
    """Draws of training rows.

    Attributes:
        rows: ``(K, N)`` bool, a mask a draw.
        table: A row a draw: ``seed, shots`` (0 for a share), ``share`` (0 for shots), how many
            ``images`` and ``groups`` it has, and a ``note`` where it has fewer than asked for.
    """

    rows: np.ndarray
    table: pd.DataFrame


def draw(
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    classes: int,
    shots: Sequence[int] = SHOTS,
    shares: Sequence[float] = SHARES,
    seeds: Sequence[int] = SEEDS,
) -> Draws:
    """Draw training rows with few labels, stratified by class.

    A draw of k shots has at least k images of each class: whole groups enter until there are k. A
    share takes groups of each class until it has that share of the class's images, and at least
    one. A class with fewer images than shots gives all it has, which the draw's note says.

    Args:
        labels: ``(N,)`` integers, or floats of a regression, of which shares are drawn alone.
        groups: ``(N,)``; no draw parts one.
        classes: How many classes the task has; 0 for a regression.

    Raises:
        ValueError: A class without images, shots of a regression, or sizes that make no sense.
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    wrong = [k for k in shots if k < 1 or k != int(k)] + [s for s in shares if not 0 < s <= 1]
    if wrong:
        raise ValueError(f"Shots are whole numbers from 1, shares lie in (0, 1]; got {wrong}.")
    if classes == 0 and len(shots):
        raise ValueError(
            "Shots are counted by class, and the labels are values. Pass shots=(), and shares."
        )
    parts = _parts(labels, classes)
    empty = [c for c in range(parts.max(initial=0) + 1) if not (parts == c).any()]
    empty = [c for c in range(classes) if not (labels == c).any()] if classes else empty
    if empty or not len(labels):
        raise ValueError(
            f"No training image has class {empty or 'any'}, so it has no shots. Use a split that "
            "has each class in training, or a task without it."
        )
    sizes = [(int(k), 0.0) for k in sorted(shots)] + [(0, float(s)) for s in sorted(shares)]
    masks, rows = [], []
    for seed in seeds:
        orders = _orders(parts, groups, seed)
        for k, share in sizes:
            mask, note = _first(parts, groups, orders, k, share)
            masks.append(mask)
            told = dict(seed=seed, shots=k, share=share, images=int(mask.sum()))
            rows.append(told | dict(groups=len(np.unique(groups[mask])), note=note))
    return Draws(np.array(masks), pd.DataFrame(rows))


def _parts(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return what is stratified by: the class, or the bin of a value."""
    if classes:
        return labels.astype(int)
    edges = np.quantile(labels, np.linspace(0, 1, BINS + 1)[1:-1]) if len(labels) else []
    return np.unique(np.searchsorted(edges, labels), return_inverse=True)[1]


def _orders(parts: np.ndarray, groups: np.ndarray, seed: int) -> list[np.ndarray]:
    """Return the groups of each class in one random order of all groups."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    place = {name: at for at, name in enumerate(names.tolist())}
    at = np.array([place[name] for name in groups.tolist()])
    return [names[np.unique(at[parts == c])] for c in range(parts.max() + 1)]


def _first(
    parts: np.ndarray, groups: np.ndarray, orders: list[np.ndarray], k: int, share: float
) -> tuple[np.ndarray, str]:
    """Return the rows of the first groups of each class that have enough images, and a note."""
    taken, short = [], []
    for c, order in enumerate(orders):
        mine = groups[parts == c]
        names, n = np.unique(mine, return_counts=True)
        sizes = n[np.searchsorted(names, order)]
        wanted = k or max(1, int(np.ceil(share * len(mine) - 1e-9)))
        if wanted > len(mine):
            short.append(f"class {c} has {len(mine)} images, fewer than {k} shots: all are taken")
        taken.append(order[: np.searchsorted(np.cumsum(sizes), wanted) + 1])
    return np.isin(groups, np.concatenate(taken)), "; ".join(short)
