"""Which metric decides for which kind of task, and which way is better."""

from collections.abc import Iterable
from typing import NamedTuple

from bonelib.cohort import Task
from bonelib.evaluation.tables import as_task

_PRIMARY = {
    "binary": "AUROC",
    "multiclass": "AUROC",
    "ordinal": "quadratic kappa",
    "regression": "MAE",
}
_CHANCE = {"AUROC": 0.5, "quadratic kappa": 0.0}


class Primary(NamedTuple):
    """The one number by which methods of a task are ranked, drawn and compared.

    Attributes:
        metric: Its name in `metrics`.
        lower: A smaller value is better.
        chance: What guessing reaches; None for an error, which has no such value.
    """

    metric: str
    lower: bool
    chance: float | None

    @property
    def column(self) -> str:
        """Name of its column among the rows of a training, where validation gives it."""
        return "val_" + self.metric.lower().replace(" ", "_")

    @property
    def keep(self) -> str:
        """What ``training.fit`` keeps an epoch by: the column, with a minus if lower is better."""
        return ("-" if self.lower else "") + self.column


def primary(task: str | Task) -> Primary:
    """Return the primary metric of a task by its kind.

    AUROC (binary; macro one-vs-rest for several classes), quadratic kappa for grades, since a
    grade that is missed by two is worse than one that is missed by one, and the mean absolute error
    in the task's unit for values.
    """
    metric = _PRIMARY[as_task(task).kind]
    return Primary(metric, lower_is_better(metric), chance(metric))


def primary_among(metrics: Iterable[str]) -> str:
    """Return the primary metric of a table from the names of its metrics, ``""`` if none is there.

    Kappa is looked for first: grades have an AUROC too.
    """
    names = set(metrics)
    return next((m for m in ("quadratic kappa", "AUROC", "MAE") if m in names), "")


def lower_is_better(metric: str) -> bool:
    """Tell whether a smaller value of this metric is the better one."""
    return metric in ("MAE", "Brier", "ECE")


def chance(metric: str) -> float | None:
    """Return what guessing reaches in this metric, of all classes or of one; None if unknown."""
    return _CHANCE.get(metric, 0.5 if metric.startswith("AUROC ") else None)


def threshold_free(task: str | Task) -> str:
    """Return the metric that needs no decision: the MAE of values, else the AUROC.

    Frozen features are compared by it, task beside task: a probe fitted to few labels may rank
    grades well and still name one of them for every image, which kappa calls chance.
    """
    return "MAE" if as_task(task).kind == "regression" else "AUROC"
