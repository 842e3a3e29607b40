"""Heads in closed form: class means, nearest neighbours, SS-Text+, Tip-Adapter, discriminant.

None of them takes a gradient step. All points of a search share the products of features: one
matrix of similarities, one set of class sums, one decomposition.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bonelib.adaptation.linear import Linear, basis
from bonelib.adaptation.probes import WIDE
from bonelib.adaptation.support import (
    Point,
    Support,
    balanced,
    class_texts,
    counts,
    never_winning,
    refuse_values,
    standardised,
    unit_length,
)

LEAST = 1e-3  # of the weight of a text in SS-Text+, as in its code
SCALE = 10.0  # of the cosines of class means
BLOCK = 4096  # rows at a time, so that similarities of many rows never lie in memory together


def class_mean(support: Support, rows: np.ndarray, points: Sequence[Point]) -> "Means":
    """Fit the nearest class mean of rows of unit length: no hyper-parameter but the centre.

    ``logit_c = s (f·m_c - |m_c|²/2)``, s = 10. Snell et al. 2017, arXiv:1703.05175; with
    ``centered`` = 1 features lose the mean of the training rows and get unit length again, as in
    SimpleShot (Wang et al. 2019, arXiv:1911.04623).

    Args:
        points: ``centered``, 0 or 1.

    Raises:
        ValueError: The labels are values.
    """
    refuse_values(support, "class_mean")
    n = counts(support, rows)
    shape = (len(rows), len(points), support.features.shape[1], support.classes)
    weights, centers = np.zeros(shape, np.float32), np.zeros((*shape[:2], 1, shape[2]), np.float32)
    for k, mask in enumerate(rows):
        x, y = support.unit[mask], support.labels[mask]
        for p, point in enumerate(points):
            if point.get("centered", 0):
                centers[k, p, 0] = x.mean(axis=0)
            z = unit_length(x - centers[k, p, 0]) if point.get("centered", 0) else x
            weights[k, p] = (_one_hot(y, support).T @ z / np.maximum(n[k], 1)[:, None]).T
    weights *= SCALE
    bias = -(weights**2).sum(axis=2) / (2 * SCALE)
    return Means(Linear(weights, bias, n > 0), centers)


@dataclass(frozen=True)
class Means:
    """Class means around centres ``(K, P, 1, D)``; a centre of zeros leaves features as they are.

    Attributes:
        linear: What is applied to rows of unit length.
    """

    linear: Linear
    centers: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return ``(K, P, M, C)`` logits of raw features."""
        x = unit_length(features)
        parts = [
            [self._head(k, p).logits(x - center[0])[0, 0] for p, center in enumerate(own)]
            for k, own in enumerate(self.centers)
        ]
        return np.array(parts)

    def of(self, mask: int) -> "Means":
        """Return the heads of one mask, K = 1."""
        return Means(self.linear.of(mask), self.centers[mask : mask + 1])

    def _head(self, k: int, p: int) -> Linear:
        one = self.linear.of(k)
        return Linear(one.weights[:, p : p + 1], one.bias[:, p : p + 1], one.present)


def ss_text(support: Support, rows: np.ndarray, points: Sequence[Point]) -> Linear:
    """Fit SS-Text+: each class's vector is its text plus the scaled sum of its shots.

    ``mu_c = t_c + (s / N λ_c) sum_{i in c} f_i`` with ``λ_c = max(1 / n_c, 1e-3)``, then
    ``mu_c - norm(2 mu_c - mean(mu))``, which moves it away from the others; logits are s times the
    cosines. It is made for imbalanced shots without validation images, so there is nothing to
    search. Silva-Rodríguez et al., MICCAI 2025, arXiv:2506.17500, and its code.

    Args:
        points: ``repel`` = 0 leaves out the last step.

    Raises:
        ValueError: There are no texts, or the labels are values.
    """
    texts = class_texts(support, "ss_text")
    n = counts(support, rows)
    total = np.maximum(n.sum(axis=1), 1)[:, None]
    share = support.scale / (total * np.maximum(1 / np.maximum(n, 1), LEAST))  # (K, C)
    sums = np.stack([_one_hot(support.labels[m], support).T @ support.unit[m] for m in rows])
    mu = texts + share[..., None] * sums  # (K, C, D)
    away = 2 * mu - mu.mean(axis=1, keepdims=True)
    away = away / np.maximum(np.linalg.norm(away, axis=2, keepdims=True), 1e-12)
    repel = np.array([point.get("repel", 1.0) for point in points])[:, None, None]
    mu = mu[:, None] - repel * away[:, None]  # (K, P, C, D)
    mu = mu / np.maximum(np.linalg.norm(mu, axis=3, keepdims=True), 1e-12)
    weights = (support.scale * mu).swapaxes(2, 3).astype(np.float32)
    return Linear(weights, np.zeros(mu.shape[:3], np.float32), n > 0)


def gda(support: Support, rows: np.ndarray, points: Sequence[Point]) -> Linear:
    """Fit a Gaussian discriminant: class means and one covariance, shrunk towards a multiple of 1.

    ``logit_c = z·S⁻¹m_c - m_c·S⁻¹m_c / 2`` on standardised features with ``S = (1 - γ) S_w + γ
    tr(S_w)/D``, S_w the covariance within classes, and equal priors. The image part of GDA-CLIP
    (Wang et al., ICLR 2024, arXiv:2402.04087; recalled), whose γ is set by a formula; here inner
    folds choose it.

    Args:
        points: ``shrinkage``, the γ, above 0 and at most 1.

    Raises:
        ValueError: The labels are values.
    """
    refuse_values(support, "gda")
    n = counts(support, rows)
    gamma = np.array([point["shrinkage"] for point in points])
    columns, standards, middle = support.features.shape[1], [], []
    kind = np.float64 if len(points) == 1 or columns < WIDE else np.float32
    weights = np.zeros((len(rows), len(points), columns, support.classes), kind)
    for k, mask in enumerate(rows):
        z, standard = standardised(support.features[mask], kind)
        hot = _one_hot(support.labels[mask], support).astype(kind)
        means = hot.T @ z / np.maximum(n[k], 1)[:, None]
        within = z - hot @ means
        base, back = basis(within)  # (m, r), (D, r): the covariance is diagonal in it
        spread = (base**2).sum(axis=0) / len(z)
        level = gamma * spread.sum() / columns  # (P,)
        inside = (1 - gamma) * spread[:, None] + level  # (r, P)
        scaled = 1 / np.maximum(inside, 1e-12) - 1 / np.maximum(level, 1e-12)
        along = back.T @ means.T  # (r, C); what lies outside of the basis has the level alone
        moved = np.einsum("dr,rp,rc->pdc", back, scaled, along, optimize=True)
        weights[k] = moved + means.T / np.maximum(level, 1e-12)[:, None, None]
        standards.append(standard)
        middle.append(means)
    bias = -np.einsum("kpdc,kcd->kpc", weights, np.stack(middle)) / 2
    return Linear(weights, bias, n > 0, standards)


def tip_adapter(support: Support, rows: np.ndarray, points: Sequence[Point]) -> "Cache":
    """Fit Tip-Adapter: zero-shot logits plus votes of the training rows by their likeness.

    ``s f·t_c + α sum_i w_c exp(-β (1 - f·f_i)) [y_i = c]``. Zhang et al., ECCV 2022,
    arXiv:2207.09519, where all classes have the same shots; with ``balanced`` = 1 a class's votes
    are weighed by its inverse frequency, w_c = N / (C n_c), which is 1 there. Inner folds choose α
    and β (the published code searches both on test images for some sets; that is not done here).

    Args:
        points: ``alpha``, ``beta``, ``balanced``.

    Raises:
        ValueError: There are no texts, or the labels are values.
    """
    texts = class_texts(support, "tip_adapter")
    alpha = np.array([[point["alpha"]] for point in points])
    even = np.array([[bool(point.get("balanced", 0))] for point in points])
    weight = alpha * np.where(even, balanced(counts(support, rows))[:, None], 1.0)  # (K, P, C)
    beta = np.array([point["beta"] for point in points])

    def vote(likeness: np.ndarray, k: int, p: int, hot: np.ndarray, shared: dict) -> np.ndarray:
        if beta[p] not in shared:
            scaled = likeness * np.float32(beta[p])
            scaled -= np.float32(beta[p])
            shared[beta[p]] = np.exp(scaled, out=scaled) @ hot
        return shared[beta[p]] * weight[k, p]

    zero_shot = (support.scale * texts.T).astype(np.float32)
    return Cache(support, rows, len(points), vote, zero_shot)


def knn(support: Support, rows: np.ndarray, points: Sequence[Point]) -> "Cache":
    """Fit nearest neighbours by cosine: ``log((votes_c + 1/C) / (k + 1))``, or their mean value.

    One order of the neighbours serves all points. Cover and Hart 1967; the protocol of frozen
    features is that of Wu et al. 2018, arXiv:1805.01978, but with equal votes.

    Args:
        points: ``neighbors``; where there are fewer rows, all of them vote.
    """
    wanted = [int(point["neighbors"]) for point in points]

    def vote(likeness: np.ndarray, k: int, p: int, hot: np.ndarray, shared: dict) -> np.ndarray:
        if not shared:
            most = min(max(wanted), likeness.shape[1])
            near = np.argpartition(likeness, -most, axis=1)[:, -most:]
            order = np.argsort(-np.take_along_axis(likeness, near, axis=1), axis=1, kind="stable")
            near = np.take_along_axis(near, order, axis=1)
            shared["votes"] = np.cumsum(hot[near], axis=1, dtype=np.float64)
        own = min(wanted[p], shared["votes"].shape[1])
        votes = shared["votes"][:, own - 1]
        if support.regression:
            return votes / own
        return np.log((votes + 1 / support.classes) / (own + 1))

    return Cache(support, rows, len(points), vote, None)


@dataclass(frozen=True)
class Cache:
    """Heads that compare a row with all training rows of their mask.

    Attributes:
        vote: ``(likeness (M, n), mask, point, one-hot labels or values (n, C), what the points of
            this mask share) -> (M, C)``.
        zero_shot: ``(D, C)``, what is added to the votes; None for nothing.
    """

    support: Support
    rows: np.ndarray
    points: int
    vote: Callable
    zero_shot: np.ndarray | None
    masks: tuple[int, ...] | None = None

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return ``(K, P, M, C)`` logits of raw features."""
        masks = range(len(self.rows)) if self.masks is None else self.masks
        outputs = max(self.support.classes, 1)
        out = np.empty((len(masks), self.points, len(features), outputs), np.float32)
        for start in range(0, len(features), BLOCK):
            x = unit_length(features[start : start + BLOCK])
            for at, k in enumerate(masks):
                hot = _one_hot(self.support.labels[self.rows[k]], self.support)
                likeness, shared = x @ self.support.unit[self.rows[k]].T, {}
                for p in range(self.points):
                    votes = self.vote(likeness, k, p, hot, shared)
                    if self.zero_shot is not None:
                        votes = votes + x @ self.zero_shot
                    out[at, p, start : start + BLOCK] = votes
        return never_winning(out, self.support.present(self.rows[list(masks)]))

    def of(self, mask: int) -> "Cache":
        """Return the heads of one mask, K = 1."""
        kept = (self.support, self.rows, self.points, self.vote, self.zero_shot)
        return Cache(*kept, masks=(mask,))


def _one_hot(labels: np.ndarray, support: Support) -> np.ndarray:
    """Return labels ``(n, C)`` float32, or values ``(n, 1)`` of a regression."""
    if support.regression:
        return np.asarray(labels, np.float32)[:, None]
    return (labels[:, None] == np.arange(support.classes)).astype(np.float32)
