"""Fusion of frozen image features with clinical data: columns beside columns, or logit on logit.

The last columns of ``Support.features`` are the clinical ones, so that new images bring theirs:
those of ``clinical.Coding.code``, or frozen features of ``captions.clinical_sentences``. What a
fusion adds is seen beside its parts alone: `part` lets any strategy see one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bonelib.adaptation.linear import Linear, ridge
from bonelib.adaptation.probes import logistic
from bonelib.adaptation.support import (
    Heads,
    Point,
    Strategy,
    Support,
    never_winning,
    of_both,
    refuse_one_class,
    standardised,
)

CLINICAL = {"strength": 1.0}  # of the clinical head: some twenty columns need little restraint
MOST = 10.0  # weight of a head: logits that part the classes without an error have no best one


# ---------------------------------------------------------------------- side by side
def early_fusion(columns: int) -> Strategy:
    """Make the strategy that fits one linear head to image and clinical columns side by side.

    All are standardised. A head of 1,280 image columns hardly hears ten clinical ones, as all
    weights are held down alike: at ``balance`` 1 the clinical columns are stretched until both
    blocks have the same variance in all, by ``sqrt(D / M)``; at 0 they stay as they are.

    Args:
        columns: How many columns at the end of the features are clinical.

    Raises:
        ValueError: Of the strategy: no columns on either side, values that are missing, or a mask
            with one class.
    """

    def strategy(support: Support, rows: np.ndarray, points: Sequence[Point]) -> Heads:
        check(support, rows, columns)
        width, balance = support.features.shape[1], [p.get("balance", 0.0) for p in points]
        parts, order = [], []
        for level in set(balance):
            stretch = np.ones(width)
            stretch[-columns:] = ((width - columns) / columns) ** (level / 2)
            at = [i for i, own in enumerate(balance) if own == level]
            parts.append(linear(support, rows, [points[i] for i in at], stretch))
            order += at
        back = np.argsort(order)
        weights = np.concatenate([part.weights for part in parts], axis=1)[:, back]
        bias = np.concatenate([part.bias for part in parts], axis=1)[:, back]
        return Known(replace(parts[0], weights=weights, bias=bias), slice(None))

    return strategy


@dataclass(frozen=True)
class Known:
    """Heads that refuse features that are missing, of some of the columns.

    Attributes:
        columns: Those that the heads see.
    """

    heads: Heads
    columns: slice

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return ``(K, P, M, C)`` logits of raw features, of both parts."""
        return self.heads.logits(_finite(features)[:, self.columns])


def linear(
    support: Support,
    rows: np.ndarray,
    points: Sequence[Point],
    stretch: np.ndarray | float = 1.0,
) -> Linear:
    """Fit linear heads whose logits can be stacked: as exact in a search as in the last fit.

    ``linear.probe`` settles ranks alone where points compete, and stacking looks at more than
    ranks. scikit-learn's logistic regression from strong to weak, or ``linear.ridge``.

    Args:
        points: ``strength``, C or 1/alpha.
        stretch: ``(D,)``, by which standardised columns are multiplied.
    """
    if support.regression:
        return ridge(support, rows, points, stretch)
    present, standards = support.present(rows), []
    shape = (len(rows), len(points), support.features.shape[1], support.classes)
    weights, bias = np.zeros(shape), np.zeros((*shape[:2], shape[3]))
    for k, mask in enumerate(rows):
        z, standard = standardised(support.features[mask])
        standards.append(standard)
        fitted = _logistic(z * stretch, support.labels[mask], [p["strength"] for p in points])
        for p, point in enumerate(points):
            own, level = fitted[point["strength"]]
            weights[k, p][:, present[k]], bias[k, p, present[k]] = own, level
    return Linear(weights * np.reshape(stretch, (-1, 1)), bias, present, standards)


def _logistic(z: np.ndarray, y: np.ndarray, strengths: Sequence[float]) -> dict:
    """Return weights ``(D, C)`` and bias ``(C,)`` by strength.

    More columns than rows are turned into as many as rows first, which changes no solution: weights
    that lie outside of the rows' span cost and tell nothing.
    """
    turn = np.linalg.qr(z.T)[0] if z.shape[1] > len(z) else None  # (D, n)
    found = {}
    for c, weights, bias in logistic(z if turn is None else z @ turn, y, strengths, tolerance=1e-6):
        weights = weights if turn is None else turn @ weights
        found[c] = (of_both(weights), of_both(bias)) if len(bias) == 1 else (weights, bias)
    return found


# ---------------------------------------------------------------------- logit on logit
def late_fusion(
    columns: int,
    *,
    image: Strategy = linear,
    clinical: Strategy = linear,
    at: Point = CLINICAL,
) -> Strategy:
    """Make the strategy that fits a head to either part, and stacks their logits.

    The weights of the two heads and a bias a class are those of the lowest log loss (squared error
    for values) on logits out of fold: inside each mask both heads are fitted without a third of its
    groups, and say what they think of that third. Weighed on the rows they were fitted to, the head
    with more columns would win, as it knows those by heart. Weights are not negative: no head is
    turned upside down. Where a class has too few groups for folds, the mean of the two logits.

    Stacking: Wolpert 1992, Neural Networks 5:241; not negative: Breiman 1996, Machine Learning
    24:49.

    Args:
        columns: How many columns at the end of the features are clinical.
        image: Strategy of the image part.
        clinical: Strategy of the clinical part.
        at: Its point; the points of the search are of the image head.

    Raises:
        ValueError: Of the strategy: as `early_fusion`.
    """
    seen, own = part(image, columns, "image"), part(clinical, columns, "metadata")

    def strategy(support: Support, rows: np.ndarray, points: Sequence[Point]) -> Heads:
        joined = []
        for mask in np.asarray(rows, dtype=bool):
            whole = support.rows(mask)
            held = _judgeable(whole)
            folds = np.concatenate([~held, np.ones((1, len(whole.labels)), dtype=bool)])
            heads = seen(whole, folds, points), own(whole, folds, [at])
            a, b = (h.logits(whole.features) for h in heads)
            fitted = [_weights(image, b[:-1, 0], held, whole) for image in a[:-1].swapaxes(0, 1)]
            joined.append((*heads, np.stack([w for w, _ in fitted]), [c for _, c in fitted]))
        return Stacks(joined, support.present(rows))

    return strategy


@dataclass(frozen=True)
class Stacks:
    """``a * image + b * clinical + bias`` of K masks and P points.

    Attributes:
        masks: Of each mask the image's heads, the clinical ones, both with the mask's own fit last,
            the weights ``(P, 2)`` and the biases, P times ``(C,)``.
        present: ``(K, C)`` bool.
    """

    masks: Sequence[tuple[Heads, Heads, np.ndarray, Sequence[np.ndarray]]]
    present: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return ``(K, P, M, C)`` logits of raw features."""
        out = []
        for image, clinical, weights, bias in self.masks:
            own, other = (weights[:, i, None, None] for i in (0, 1))
            a, b = (heads.logits(features)[-1] for heads in (image, clinical))
            out.append(own * a + other * b + np.stack(bias)[:, None])
        return never_winning(np.stack(out), self.present)


def part(strategy: Strategy, columns: int, which: str) -> Strategy:
    """Make a strategy that sees one part of fused features: the scores beside a fusion score.

    Args:
        strategy: Any strategy on frozen features.
        columns: How many columns at the end of the features are clinical.
        which: ``image``, or ``metadata``, the last columns.

    Raises:
        ValueError: Another part; of the strategy, as `early_fusion`.
    """
    slices = {"image": slice(None, -columns), "metadata": slice(-columns, None)}
    if which not in slices:
        raise ValueError(f"Unknown part {which!r}. Choose image or metadata.")

    def partial(support: Support, rows: np.ndarray, points: Sequence[Point]) -> Heads:
        check(support, rows, columns)
        own = replace(support, features=support.features[:, slices[which]], texts=None)
        return Known(strategy(own, rows, points), slices[which])

    return partial


# ---------------------------------------------------------------------- checks and weights
def check(support: Support, rows: np.ndarray, columns: int) -> None:
    """Refuse a support that can't be fused.

    Raises:
        ValueError: A part is empty, a feature is missing, or a mask ``(K, N)`` has one class.
    """
    width = support.features.shape[1]
    if not 0 < columns < width:
        raise ValueError(
            f"{columns} of {width} columns are clinical: a fusion needs both parts. "
            "Where a cohort has no clinical data to code, take the image head alone."
        )
    _finite(support.features)
    for mask in rows if support.classes else ():
        refuse_one_class(support.labels[mask], support.classes)


def _finite(features: np.ndarray) -> np.ndarray:
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {len(features)} rows have features that are missing or infinite. "
            "Code clinical data by clinical.learn, which has a column for what is missing."
        )
    return features


def _judgeable(whole: Support) -> np.ndarray:
    """Return the inner folds whose training rows have every class that all rows have."""
    held = whole.folds
    if whole.regression or not len(held):
        return held
    kinds = len(np.unique(whole.labels))
    return held[[len(np.unique(whole.labels[~out])) == kinds for out in held]]


def _weights(
    image: np.ndarray, clinical: np.ndarray, held: np.ndarray, whole: Support
) -> tuple[np.ndarray, np.ndarray]:
    """Return the two weights and the bias ``(C,)`` that suit logits out of fold best.

    Args:
        image: ``(K, N, C)``, by heads that did not see the rows ``held`` ``(K, N)``.
        clinical: The same of the clinical head.
    """
    if not len(held):
        return np.full(2, 0.5), np.zeros(max(whole.classes, 1))
    both = np.stack([image[held], clinical[held]])  # (2, n, C), fold by fold
    y = np.concatenate([whole.labels[out] for out in held])
    if whole.regression:
        from scipy.optimize import nnls

        middle = both[..., 0].mean(axis=1)
        weights, _ = nnls((both[..., 0] - middle[:, None]).T, y - y.mean())
        return weights, np.atleast_1d(y.mean() - weights @ middle)
    from scipy.optimize import minimize
    from scipy.special import log_softmax, softmax

    present = np.unique(whole.labels)
    both, hits = both[..., present], y[:, None] == present

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        a, b, bias = parameters[0], parameters[1], parameters[2:]
        out = a * both[0] + b * both[1] + bias
        off = (softmax(out, axis=1) - hits) / len(y)
        slope = [(off * both[0]).sum(), (off * both[1]).sum(), *off.sum(axis=0)]
        return -log_softmax(out, axis=1)[hits].mean(), np.array(slope)

    start = np.concatenate([np.full(2, 0.5), np.zeros(len(present))])
    bounds = [(0, MOST)] * 2 + [(None, None)] * len(present)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    bias = np.zeros(whole.classes)
    bias[present] = found[2:] - found[2:].mean()
    return found[:2], bias
