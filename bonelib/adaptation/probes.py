"""Linear probes on frozen features, the bar for every other strategy.

Features and labels come in; a linear model goes out. Its strength is chosen inside the training
images; no function here ever sees a test label.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bonelib.adaptation.support import (
    ABSENT,
    Standard,
    inner_folds,
    of_both,
    refuse_one_class,
    standardised,
)

# Seven steps from strong to weak regularisation, as in the reference scores of the project.
STRENGTHS = tuple(10.0 ** np.linspace(-5, 1, 7))
FOLDS = 4  # inner ones, at most
WIDE = 256  # columns from which inner folds are fitted in single precision


@dataclass
class Probe:
    """A linear model on standardised features.

    Attributes:
        weights: ``(D, C)``; C = 1 for a binary task or a regression.
        limit: ``(D,)``, how far from the mean a feature counts: see ``support.Standard.reach``.
        strength: The chosen C of the logistic regression (1/alpha of the ridge).
        inner: Inner score of each strength tried, ``{strength: score}``; not of a ridge.
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
        z = Standard(self.mean, self.scale, self.limit).of(features)
        out = z @ self.weights + self.bias
        return out[:, 0] if out.shape[1] == 1 else out


def probe(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    classes: int = 0,
    strengths: tuple[float, ...] = STRENGTHS,
    seed: int = 0,
) -> Probe:
    """Fit L2-regularised logistic regression, or ridge regression to the values of a regression.

    The strength with the best inner AUROC (macro one-vs-rest for several classes) over folds that
    never part a group is refitted on all rows. Where a class has fewer groups than there should be
    folds, there are as many folds as groups; with a single one nothing can be compared, and the
    middle strength is taken. Grades are fitted as classes: a model with one slope for all
    thresholds would assume that features move alike through all grades. The strength of a ridge
    regression is that of the lowest leave-one-out error. Linear probe: Radford et al. 2021,
    arXiv:2103.00020, section 3.2.

    Args:
        features: ``(N, D)``, raw.
        labels: ``(N,)`` integers, or floats for a regression; rows with -1 or NaN are left out.
        groups: ``(N,)``.
        classes: How many classes the task has. One that no row has then keeps its column, with a
            logit that never wins; with 0 the labels name all classes, and each must have a row.

    Raises:
        ValueError: Fewer than two classes, or a class that no row has.
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    if np.issubdtype(labels.dtype, np.floating):
        return _ridge(features, labels, strengths)
    known = labels >= 0
    x, y, g = np.asarray(features)[known], labels[known], groups[known]
    refuse_one_class(y, classes)
    present = np.unique(y)
    absent = sorted(set(range(classes or present[-1] + 1)) - set(present.tolist()))
    if absent and not classes:
        raise ValueError(
            f"No training row has class {absent}, so the probe's columns would not be the task's. "
            "Pass classes, the number of the task's."
        )
    if classes and present[-1] >= classes:
        raise ValueError(f"A label is {present[-1]}, but the task has {classes} classes.")
    folds = min(FOLDS, *(len(np.unique(g[y == c])) for c in present))
    if folds < 2:
        strengths = (strengths[len(strengths) // 2],)
    y = np.searchsorted(present, y)  # 0, 1, … in order
    inner = _inner_scores(x, y, g, strengths, folds, seed) if len(strengths) > 1 else {}
    chosen = max(inner, key=inner.__getitem__) if inner else strengths[0]
    fitted = next(iter(_path(x, y, (chosen,), exact=True)))
    fitted.inner = inner
    return _widened(fitted, present, classes) if absent else fitted


def _inner_scores(
    x: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    strengths: tuple[float, ...],
    folds: int,
    seed: int,
) -> dict[float, float]:
    """Return the mean AUROC of each strength over folds in which every class can be judged."""
    from sklearn.metrics import roc_auc_score

    scores: dict[float, list[float]] = {strength: [] for strength in strengths}
    for held in inner_folds(y, groups, folds, seed=seed):
        inner = ~held
        if min(len(np.unique(y[part])) for part in (inner, held)) <= y.max():
            continue
        for fitted in _path(x[inner], y[inner], strengths, exact=False):
            out = fitted.logits(x[held])
            if out.ndim == 2:
                out = np.exp(out - out.max(axis=1, keepdims=True))
                out /= out.sum(axis=1, keepdims=True)
            scores[fitted.strength].append(roc_auc_score(y[held], out, multi_class="ovr"))
    return {strength: float(np.mean(s)) for strength, s in scores.items() if s}


def _widened(probe: Probe, present: np.ndarray, classes: int) -> Probe:
    """Give a probe of the classes that are ``present`` one column for each of the task's."""
    weights, bias = probe.weights, probe.bias
    if weights.shape[1] == 1:
        weights, bias = of_both(weights), of_both(bias)
    wide, level = np.zeros((len(weights), classes)), np.full(classes, ABSENT)
    wide[:, present], level[present] = weights, bias
    return replace(probe, weights=wide, bias=level)


def _path(
    x: np.ndarray, y: np.ndarray, strengths: tuple[float, ...], *, exact: bool
) -> Iterator[Probe]:
    """Fit one probe a strength, from strong to weak, each started from the one before.

    scikit-learn's tolerance leaves logits off by up to 0.7 where regularisation is weak, and single
    precision takes half the time where there are many columns. The ranks that the inner folds look
    at mind neither.

    Args:
        exact: Solve to the end, in double precision.
    """
    z, standard = standardised(x)
    z = z if exact or z.shape[1] < WIDE else z.astype(np.float32)
    for strength, weights, bias in logistic(z, y, strengths, tolerance=1e-7 if exact else 1e-4):
        yield Probe(*standard, weights, bias, strength)


def logistic(
    z: np.ndarray, y: np.ndarray, strengths: Sequence[float], *, tolerance: float
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """Fit scikit-learn's logistic regression, each strength started from the one before.

    Yields:
        Strength, from strong to weak regularisation; weights ``(D, C)`` and bias ``(C,)``, C = 1
        for two classes.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    model = LogisticRegression(max_iter=2000, tol=tolerance, warm_start=True)
    # Products of this size gain nothing from a second thread and lose much on a busy machine.
    with threadpool_limits(1):
        for strength in sorted(set(strengths)):
            model.set_params(C=strength).fit(z, y)
            yield strength, model.coef_.T.copy(), model.intercept_.copy()


def _ridge(features: np.ndarray, values: np.ndarray, strengths: tuple[float, ...]) -> Probe:
    from sklearn.linear_model import RidgeCV

    known = np.isfinite(values)
    z, standard = standardised(np.asarray(features, dtype=np.float64)[known])
    model = RidgeCV(alphas=[1 / s for s in strengths]).fit(z, values[known])
    weights, bias = model.coef_[:, None], np.atleast_1d(model.intercept_)
    return Probe(*standard, weights, bias, float(1 / model.alpha_))


def cross_fit(
    features: np.ndarray,
    labels: np.ndarray,
    held: np.ndarray,
    groups: np.ndarray,
    *,
    classes: int = 0,
    strengths: tuple[float, ...] = STRENGTHS,
) -> np.ndarray:
    """Fit one `probe` a fold and return the logits, or values, each image got while held out.

    Args:
        features: ``(N, D)``, raw.
        labels: ``(K, N)``; row k holds what ``splits.apply`` shows of fold k: -1, or NaN, where
            held out.
        held: ``(K, N)`` bool, the images held out in fold k; together they cover every image once.
        groups: ``(N,)``.
        classes: How many classes the task has, so that a fold without one has the same columns.

    Returns:
        Logits ``(N,)`` or ``(N, C)``.

    Raises:
        ValueError: See `check_folds`.
    """
    groups = np.asarray(groups)
    check_folds(labels, held, groups)
    out = np.empty(0)
    for visible, test in zip(labels, held, strict=True):
        options = dict(classes=classes, strengths=strengths)
        fitted = probe(features[~test], visible[~test], groups[~test], **options)
        logits = fitted.logits(features[test])
        out = out if len(out) else np.empty((len(features), *logits.shape[1:]))
        out[test] = logits
    return out


def check_folds(labels: np.ndarray, held: np.ndarray, groups: np.ndarray) -> None:
    """Refuse folds that show what they hold out, for labels and masks as `cross_fit` takes them.

    Raises:
        ValueError: A held-out image shows its label, an image is not held out exactly once, or a
            group is both held out and trained on.
    """
    known = np.isfinite(labels) if np.issubdtype(labels.dtype, np.floating) else labels >= 0
    shown = int(known[held].sum())
    if shown:
        raise ValueError(
            f"{shown} held-out images show their label. Take labels from splits.apply."
        )
    wrong = int((held.sum(axis=0) != 1).sum())
    if wrong:
        raise ValueError(f"{wrong} images are not held out exactly once over the folds.")
    parted = [
        len(set(groups[test]) & set(groups[~test & visible]))
        for visible, test in zip(known, held, strict=True)
    ]
    if any(parted):
        raise ValueError(
            f"{sum(parted)} groups are both held out and trained on. Folds must come from "
            "splits.add_folds, groups from splits.add_groups."
        )
