"""Fine-tuning strategies under one protocol, one function each.

Frozen features or a model come in; a predictor that gives logits goes out. Every hyper-parameter is
chosen inside the training images; none of these functions ever sees a test label.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bonelib import losses, models, training

# Seven steps from strong to weak regularisation, as in the reference scores of the project.
STRENGTHS = tuple(10.0 ** np.linspace(-5, 1, 7))
REACH = 3.0  # see ``Probe.limit``


@dataclass
class Probe:
    """A linear model on standardised features.

    Attributes:
        weights: ``(D, C)``; C = 1 for a binary task or a regression.
        limit: ``(D,)``, how far from the mean a feature counts: three times as far as it lay in any
            training row. A feature that is 0 in all but one of few training rows is worth thousands
            of standard deviations in a test row otherwise (seen: 1,986).
        strength: The chosen C of the logistic regression (1/alpha of the ridge).
        inner: Inner score of each strength tried, ``{strength: score}``.
    """

    mean: np.ndarray
    scale: np.ndarray
    limit: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    strength: float
    inner: dict[float, float] = field(default_factory=dict)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return ``(N, C)`` logits, ``(N,)`` for one output."""
        z = np.clip((features - self.mean) / self.scale, -self.limit, self.limit)
        out = z @ self.weights + self.bias
        return out[:, 0] if out.shape[1] == 1 else out


def linear_probe(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    strengths: tuple[float, ...] = STRENGTHS,
    folds: int = 4,
    seed: int = 0,
) -> Probe:
    """Fit L2-regularised logistic regression, its strength chosen by grouped inner folds.

    The strength with the best inner AUROC (macro one-vs-rest for several classes) is refitted on
    all rows. Linear probe: Radford et al. 2021, arXiv:2103.00020, section 3.2.

    Args:
        features: ``(N, D)``, raw.
        labels: ``(N,)`` integers; rows labelled -1 are left out.
        groups: ``(N,)``; a group is never parted by the inner folds.

    Raises:
        ValueError: Fewer than two classes, a class of the task that no row has, or, where there is
            a strength to choose, a class with fewer groups than folds.
    """
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold

    known = labels >= 0
    x, y, g = np.asarray(features)[known], labels[known], np.asarray(groups)[known]
    present = np.unique(y)
    if len(present) < 2:
        raise ValueError(f"A probe needs two classes; the training labels hold only {present}.")
    absent = sorted(set(range(present[-1] + 1)) - set(present.tolist()))
    if absent:
        raise ValueError(
            f"No training row has class {absent}, so the probe's columns would not be the task's."
        )
    fewest = min(len(np.unique(g[y == c])) for c in present)
    if fewest < folds and len(strengths) > 1:
        raise ValueError(
            f"A class has {fewest} training groups, fewer than the {folds} inner folds. "
            "Pass fewer folds, or a single strength."
        )
    scores: dict[float, list[float]] = {strength: [] for strength in strengths}
    if len(strengths) > 1:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        for inner, held in splitter.split(x, y, g):
            if len(np.unique(y[held])) < len(present) or len(np.unique(y[inner])) < len(present):
                continue
            for probe in _path(x[inner], y[inner], strengths):
                out = probe.logits(x[held])
                if out.ndim == 2:
                    out = np.exp(out - out.max(axis=1, keepdims=True))
                    out /= out.sum(axis=1, keepdims=True)
                scores[probe.strength].append(roc_auc_score(y[held], out, multi_class="ovr"))
    inner = {strength: float(np.mean(s)) for strength, s in scores.items() if s}
    chosen = max(inner, key=inner.get) if inner else strengths[0]
    # scikit-learn's tolerance leaves logits off by up to 0.7 where regularisation is weak. The
    # ranks that the inner folds look at don't mind; the probe itself is solved to the end.
    probe = next(iter(_path(x, y, (chosen,), tolerance=1e-7)))
    probe.inner = inner
    return probe


def _path(
    x: np.ndarray, y: np.ndarray, strengths: tuple[float, ...], *, tolerance: float = 1e-4
) -> Iterator[Probe]:
    """Fit one probe a strength, from strong to weak, each started from the one before."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    z, mean, scale = _standardise(x)
    model = LogisticRegression(max_iter=2000, tol=tolerance, warm_start=True)
    # Products of this size gain nothing from a second thread and lose much on a busy machine.
    with threadpool_limits(1):
        for strength in sorted(strengths):
            model.set_params(C=strength).fit(z, y)
            fitted = model.coef_.T.copy(), model.intercept_.copy()
            yield Probe(mean, scale, REACH * abs(z).max(axis=0), *fitted, strength)


def _standardise(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return standardised columns with their mean and scale; a constant column becomes zero.

    By scikit-learn, whose test for "constant" allows for rounding: the standard deviation of equal
    numbers is not always 0, and a column divided by 1e-17 would ruin every row but these.
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(np.asarray(x, dtype=np.float64))
    return scaler.transform(np.asarray(x, dtype=np.float64)), scaler.mean_, scaler.scale_


def ridge_probe(
    features: np.ndarray, values: np.ndarray, *, strengths: tuple[float, ...] = STRENGTHS
) -> Probe:
    """Fit ridge regression, its strength chosen by leave-one-out error inside the training rows.

    Args:
        features: ``(N, D)``, raw.
        values: ``(N,)`` floats; rows with NaN are left out.
    """
    from sklearn.linear_model import RidgeCV

    known = np.isfinite(values)
    x, y = np.asarray(features, dtype=np.float64)[known], values[known]
    z, mean, scale = _standardise(x)
    model = RidgeCV(alphas=[1 / s for s in strengths]).fit(z, y)
    weights, bias = model.coef_[:, None], np.atleast_1d(model.intercept_)
    limit = REACH * abs(z).max(axis=0)
    return Probe(mean, scale, limit, weights, bias, float(1 / model.alpha_))


def probe(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, folds: int = 4, **options: Any
) -> Probe:
    """Fit ``linear_probe`` to integer labels, ``ridge_probe`` to the values of a regression.

    Where a class has fewer groups than ``folds``, there are as many inner folds as groups; with a
    single one nothing can be compared, and the middle strength is taken.

    Args:
        options: ``strengths``, and for classes ``seed``.
    """
    labels, strengths = np.asarray(labels), options.pop("strengths", STRENGTHS)
    if np.issubdtype(labels.dtype, np.floating):
        return ridge_probe(features, labels, strengths=strengths)
    groups = np.asarray(groups)
    fewest = min(len(np.unique(groups[labels == c])) for c in np.unique(labels[labels >= 0]))
    if fewest < 2:
        strengths = (strengths[len(strengths) // 2],)
    folds = max(2, min(folds, fewest))
    return linear_probe(features, labels, groups, strengths=strengths, folds=folds, **options)


def full(
    model: models.Classifier,
    train: Any,
    labels: np.ndarray,
    *,
    validate: Callable[[Any], dict[str, float]] | None = None,
    keep: str | None = None,
    epochs: int = 6,
    lr: float = 1e-3,
    backbone_lr: float = 3e-4,
    layer_decay: float = 1.0,
    balanced: bool = True,
    **options: Any,
) -> Iterator[dict[str, Any]]:
    """Fine-tune every weight of a classifier in place; yields a row an epoch.

    The defaults are the plain recipe of the reference scores (AdamW 3e-4, six epochs).

    Args:
        train: Loader of training batches with labels.
        labels: Training labels ``(N,)``, for the class weights; -1 is left out.
        balanced: Weigh classes by the inverse of their frequency, to mean one.
        options: Passed to ``training.fit``.

    Raises:
        ValueError: Classes are to be balanced and no training row has one of them.
    """
    import torch

    weights = None
    if balanced:
        counts = np.bincount(labels[labels >= 0], minlength=max(2, model.head.out_features))
        if not counts.all():
            raise ValueError(
                f"Training rows by class: {counts.tolist()}. A class without rows has no weight; "
                "use another split, or balanced=False."
            )
        weights = torch.tensor(counts.sum() / (len(counts) * counts), dtype=torch.float32)
    objective = losses.classification_objective(class_weights=weights)
    yield from training.fit(
        model,
        objective,
        train,
        epochs=epochs,
        lr=lr,
        backbone_lr=backbone_lr,
        layer_decay=layer_decay,
        validate=validate,
        keep=keep,
        **options,
    )


def cross_fit(
    features: np.ndarray, labels: np.ndarray, held: np.ndarray, groups: np.ndarray, **options: Any
) -> tuple[np.ndarray, list[float]]:
    """Fit one linear probe a fold and return the logits each image got while held out.

    Args:
        features: ``(N, D)``, raw.
        labels: ``(K, N)``; row k holds what ``splits.apply`` shows of fold k: -1 where held out.
        held: ``(K, N)`` bool, the images held out in fold k; together they cover every image once.
        groups: ``(N,)``.
        options: Passed to ``linear_probe``.

    Returns:
        Logits ``(N,)`` or ``(N, C)``, and the strength chosen in each fold.

    Raises:
        ValueError: A held-out image shows its label, or an image is not held out exactly once.
    """
    shown = int((labels[held] >= 0).sum())
    if shown:
        raise ValueError(
            f"{shown} held-out images show their label. Take labels from splits.apply."
        )
    if (held.sum(axis=0) != 1).any():
        wrong = int((held.sum(axis=0) != 1).sum())
        raise ValueError(f"{wrong} images are not held out exactly once over the folds.")
    groups = np.asarray(groups)
    parted = [
        len(set(groups[test]) & set(groups[~test & (visible >= 0)]))
        for visible, test in zip(labels, held, strict=True)
    ]
    if any(parted):
        raise ValueError(
            f"{sum(parted)} groups are both held out and trained on. Folds must come from "
            "splits.add_folds, groups from splits.add_groups."
        )
    out, strengths = None, []
    for visible, test in zip(labels, held, strict=True):
        probe = linear_probe(features[~test], visible[~test], groups[~test], **options)
        logits = probe.logits(features[test])
        out = np.empty((len(features), *logits.shape[1:])) if out is None else out
        out[test] = logits
        strengths.append(probe.strength)
    return out, strengths
