"""Which rows of a predictions table count, whose they are, and whether they can be scored."""

import numpy as np
import pandas as pd

from bonelib.cohort import GROUP, GROUP_KIND, IMAGE_ID, PATIENT, Task

SUM = 1e-3  # how far from one the probabilities of an image may sum: half precision does


def group_keys(table: pd.DataFrame) -> tuple[np.ndarray, str]:
    """Name the group that each row is drawn with, and say of what kind the groups are."""
    ids = table[IMAGE_ID].astype("object")
    patient = table.get(PATIENT, pd.Series(pd.NA, index=table.index)).astype("object")
    group = table.get(GROUP, ids).astype("object")
    known = patient.notna()
    rest = group.where(group.notna(), ids)
    # In Python: pandas takes ten times as long to hand over the strings that it makes.
    rows = zip(known, patient, rest, strict=True)
    named = [f"patient {one}" if there else f"group {other}" for there, one, other in rows]
    keys = np.array(named, dtype=object)
    kinds = ["patient"] if known.any() else []
    if not known.all():
        kind = table.loc[~known, GROUP_KIND].dropna() if GROUP_KIND in table else pd.Series()
        kinds += sorted(set(kind.astype(str)) - set(kinds)) or ["image-level groups"]
    return keys, " and ".join(kinds)


def labelled(predictions: pd.DataFrame, task: Task) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Keep the rows with a label; their labels (n,) and probabilities (n, C) or values (n, 1).

    Raises:
        ValueError: No row has a label, all have one class, an image comes twice, a prediction is
            missing or infinite, or probabilities don't sum to one. Nothing is dropped but rows
            without a label, which no result counts in its ``n``.
    """
    table = predictions[predictions["label"].notna()]
    if table.empty:
        raise ValueError(
            f"None of the {len(predictions)} predictions has a label. Labels of test images come "
            "from splits.open_test; join them with evaluation.with_labels."
        )
    twice = int(table[IMAGE_ID].duplicated().sum())
    if twice:
        raise ValueError(
            f"{twice} images are predicted more than once. Pass one method and seed at a time: "
            "evaluation.by_method parts a table."
        )
    columns = [f"p_{name}" for name in task.classes] or ["value"]
    lacking = [c for c in columns if c not in table]
    if lacking:
        raise ValueError(f"The predictions lack {lacking}: are they of the task {task.name!r}?")
    labels, p = task.encode(table["label"]), table[columns].to_numpy(np.float64, na_value=np.nan)
    if task.kind != "regression" and len(np.unique(labels)) < 2:
        raise ValueError(
            f"All {len(table)} labelled rows are {task.classes[labels[0]]!r}; metrics need two "
            "classes. Pool centres or folds, or choose another subgroup."
        )
    odd = {"are NaN or infinite": ~np.isfinite(p).all(axis=1)}
    if task.classes:
        off = (p < -SUM).any(axis=1) | (np.abs(p.sum(axis=1) - 1) > SUM)
        odd["are no probabilities that sum to one"] = off
    for said, rows in odd.items():
        if rows.any():
            first = int(rows.argmax())
            raise ValueError(
                f"{int(rows.sum())} of {len(table)} labelled predictions {said}, e.g. "
                f"{table[IMAGE_ID].iloc[first]}: {np.round(p[first], 4).tolist()}. A metric over "
                "the others would be one of easier images: predict these again."
            )
    return table, labels, p


def positive_class(task: Task) -> int | None:
    """Return the index of the class that is detected; None if the task names none."""
    if task.positive:
        return task.classes.index(task.positive)
    return 1 if len(task.classes) == 2 else None


def detected(task: Task) -> int:
    """Return the index of the class that is detected, refusing a task that names none."""
    positive = positive_class(task)
    if positive is None:
        raise ValueError(f"{task.name!r} has no positive class for a threshold to detect.")
    return positive


def rarest(truth: np.ndarray, keys: np.ndarray) -> int:
    """Count the patients (groups ``keys``) of the rarest class of ``truth``; 0 if there is one."""
    counts = [len(set(keys[truth == one])) for one in np.unique(truth)]
    return min(counts) if len(counts) > 1 else 0
