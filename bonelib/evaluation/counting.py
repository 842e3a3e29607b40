"""Every metric of a task as a statistic; those of decisions from counts of true by called classes.

MCC: Matthews 1975, Biochim Biophys Acta 405:442; of several classes Gorodkin 2004, Comput Biol Chem
28:367. Quadratic kappa: Cohen 1968, Psychol Bull 70:213. (Recalled; tests hold them to
scikit-learn.)
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from bonelib.cohort import Task
from bonelib.evaluation import ranking, reliability
from bonelib.evaluation.ranking import Blocks, ratio
from bonelib.evaluation.rows import detected, positive_class

AT_90 = "sensitivity at 90 % specificity"
Counts = np.ndarray  # (..., C, C), true by called classes


def _right(counts: Counts) -> np.ndarray:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def recall(counts: Counts) -> np.ndarray:
    """Share of each class that is called so; NaN where nobody has it."""
    return ratio(_right(counts), counts.sum(-1))


def f1(counts: Counts) -> np.ndarray:
    """Harmonic mean of precision and recall of each class; NaN where nobody has it."""
    truly = counts.sum(-1)
    return np.where(truly > 0, ratio(2 * _right(counts), truly + counts.sum(-2)), np.nan)


def mcc(counts: Counts) -> np.ndarray:
    """Correlation of true and called classes; 0, as in scikit-learn, if one class is called."""
    total, truly, called = counts.sum((-2, -1)), counts.sum(-1), counts.sum(-2)
    above = _right(counts).sum(-1) * total - (truly * called).sum(-1)
    spread, of_calls = (total**2 - (side**2).sum(-1) for side in (truly, called))
    one_called = ratio(np.zeros_like(spread), spread)
    return np.where(of_calls > 0, ratio(above, np.sqrt(spread * of_calls)), one_called)


def quadratic_kappa(counts: Counts) -> np.ndarray:
    """Agreement beyond chance, where a miss weighs as its distance squared."""
    steps = np.arange(counts.shape[-1])
    cost = (steps[:, None] - steps) ** 2
    worst = np.einsum("...i,ij,...j->...", counts.sum(-1), cost, counts.sum(-2))
    return 1 - ratio((cost * counts).sum((-2, -1)) * counts.sum((-2, -1)), worst)


def called(p: np.ndarray, positive: int | None, threshold: float | None) -> np.ndarray:
    """Return the class of each row: the most probable one, or by the threshold if there are two."""
    if threshold is None or positive is None or p.shape[1] > 2:
        return p.argmax(axis=1)
    return np.where(p[:, positive] >= threshold, positive, 1 - positive)


def averaged(makes: Sequence[Callable[[], Blocks]], count: int) -> Blocks:
    """Make the mean of several statistics of ``count`` rows, such as one of each class."""
    each = [make() for make in makes]
    return Blocks(np.arange(count), lambda w: np.mean([one(w) for one in each], axis=0))


def statistics(
    task: Task, labels: np.ndarray, p: np.ndarray, threshold: float | None = None
) -> dict[tuple[str, str], Callable[[], Blocks]]:
    """Name how to make a statistic per (metric, class); "" where a metric has one value.

    Args:
        labels: ``(N,)`` index of the class of each image, or its value.
        p: ``(N, C)`` probabilities in class order, or ``(N, 1)`` values.
    """
    share, every = partial(partial, ranking.share_statistic), np.ones(len(labels), bool)
    if task.kind == "regression":
        return {("MAE", ""): share(np.abs(p[:, 0] - labels), every)}
    positive = positive_class(task) if threshold is None else detected(task)
    classes, met, guesses = len(task.classes), np.unique(labels), called(p, positive, threshold)
    binary, cells = classes == 2, np.eye(classes**2)[labels * classes + guesses]
    named: dict[tuple[str, str], Callable[[], Blocks]] = {}
    for i, name in [(positive, "")] if binary else enumerate(task.classes):
        named["AUROC", name] = partial(ranking.auroc_statistic, labels == i, p[:, i])
        named["AUPRC", name] = partial(ranking.precision_statistic, labels == i, p[:, i])

    def counted(metric: Callable[[Counts], np.ndarray]) -> Callable[[], Blocks]:
        def of(weights: np.ndarray) -> np.ndarray:
            return metric((weights @ cells).reshape(*weights.shape[:-1], classes, classes))

        return lambda: Blocks(np.arange(len(labels)), of)

    if threshold is not None:
        flagged = p[:, positive] >= threshold
        named["sensitivity", ""] = share(flagged, labels == positive)
        named["specificity", ""] = share(~flagged, labels != positive)
    named["accuracy", ""] = share(guesses == labels, every)
    named["balanced accuracy", ""] = counted(lambda n: recall(n)[..., met].mean(-1))
    squares = (p - np.eye(classes)[labels]) ** 2
    named["Brier", ""] = share(squares[:, positive] if binary else squares.sum(1), every)
    if task.kind == "ordinal":
        named["quadratic kappa", ""] = counted(quadratic_kappa)
    of = np.array([positive]) if binary else met
    named["F1", ""] = counted(lambda n: f1(n)[..., of].mean(-1))
    named["MCC", ""] = counted(mcc)
    if positive is not None:
        pair = labels == positive, p[:, positive]
        named[AT_90, ""] = partial(ranking.sensitivity_statistic, *pair)
    sides = [(labels == i, p[:, i]) for i in (met if positive is None else [positive])]
    for metric, make in reliability.STATISTICS.items():
        named[metric, ""] = partial(averaged, [partial(make, *s) for s in sides], len(labels))
    return named
