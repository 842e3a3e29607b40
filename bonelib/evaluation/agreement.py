"""Agreement with readers and of values: a second reader as a method, and limits of agreement.

What a reader says of the same images is scored by the same functions as a model, so that the
agreement of two readers, the ceiling of any model, has the same kind of interval.
"""

import numpy as np
import pandas as pd

from bonelib.cohort import IMAGE_ID, Task
from bonelib.evaluation import ranking
from bonelib.evaluation.measures import DRAWS, estimate
from bonelib.evaluation.methods import Method
from bonelib.evaluation.rows import labelled
from bonelib.evaluation.tables import as_task

LIMITS = ("bias", "lower limit", "upper limit")
_Z = 1.96  # of 95 % limits, as the papers round it


def of_reader(
    predictions: pd.DataFrame, grades: pd.Series, *, task: str | Task, name: str
) -> pd.DataFrame:
    """Return what a second reader says of the images of a predictions table, as a table like it.

    His class has probability one, so that `metrics`, `compare` and the charts take him as any
    method. Images that he did not grade are left out.

    Args:
        predictions: Labelled by the first reader.
        grades: His classes, indexed by ``image_id``.
        name: What he is called: the ``detail`` of his method.

    Raises:
        ValueError: A class is none of the task's.
    """
    task = as_task(task)
    said = task.encode(predictions[IMAGE_ID].map(grades))
    table = predictions[said >= 0].drop(columns=[c for c in predictions if c.startswith("p_")])
    p = np.eye(len(task.classes))[said[said >= 0]]
    named = Method(sees="none", detail=name).columns()
    return table.assign(**named, **{f"p_{c}": p[:, i] for i, c in enumerate(task.classes)})


def bland_altman(
    predictions: pd.DataFrame, *, task: str | Task, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Compute bias and 95 % limits of agreement of predicted with true values.

    Bland & Altman 1986, Lancet 327:307; 1999, Stat Methods Med Res 8:135 (both recalled): the mean
    of the differences predicted minus true, and that mean ± 1.96 of their standard deviations. The
    papers' intervals take every value as independent; these resample whole patients instead.

    Returns:
        A row for each of ``LIMITS``: metric, value, low, high, n, groups, group_kind.

    Raises:
        ValueError: The task has classes.
    """
    task = as_task(task)
    if task.kind != "regression":
        raise ValueError(f"{task.name!r} has classes; limits of agreement are those of values.")
    table, labels, values = labelled(predictions, task)
    off = values[:, 0] - labels

    def limit(sign: int) -> ranking.Statistic:
        def statistic(weights: np.ndarray) -> float:
            total = weights.sum()
            mean = weights @ off / total
            spread = weights @ (off - mean) ** 2 / max(total - 1, 1)
            return mean + sign * _Z * np.sqrt(spread)

        return statistic

    limits = dict(zip(LIMITS, map(limit, (0, -1, 1)), strict=True))
    found = estimate(table, limits, draws=draws, seed=seed)
    return found.drop(columns="p").rename(columns={"measure": "metric"})
