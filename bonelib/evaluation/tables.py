"""The predictions table: logits become probabilities here, once, and opened labels are joined."""

import numpy as np
import pandas as pd

from bonelib import cohort
from bonelib.cohort import FOLD, GROUP, GROUP_KIND, IMAGE_ID, PATIENT, SPLIT, STUDY, Task
from bonelib.evaluation.methods import METHOD, WORDING, Method, by_method


def as_task(task: str | Task) -> Task:
    """Return the task of that name; a task stays as it is."""
    return cohort.task(task) if isinstance(task, str) else task


def probabilities(logits: np.ndarray, *, task: str | Task) -> np.ndarray:
    """Turn logits into probabilities ``(N, C)`` in class order; the only place where this happens.

    Args:
        logits: ``(N, C)``, softmax; for a binary task also ``(N,)`` or ``(N, 1)``, the logit of the
            second class, sigmoid. Arrays or tensors.

    Raises:
        ValueError: Wrong shape, values that are not finite, or rows that already are
            probabilities: a second softmax would flatten them.
    """
    task = as_task(task)
    half = "16" in str(getattr(logits, "dtype", ""))
    if hasattr(logits, "detach"):
        logits = logits.detach().cpu().double().numpy()
    x = np.asarray(logits, dtype=np.float64)
    classes = len(task.classes)
    if task.kind == "regression":
        raise ValueError(f"{task.name!r} is a regression: its values are no logits.")
    if classes == 2 and (x.ndim == 1 or x.shape[1:] == (1,)):
        x = np.column_stack([np.zeros(len(x)), x.reshape(-1)])  # softmax of (0, x) is the sigmoid
    elif x.ndim != 2 or x.shape[1] != classes:
        raise ValueError(
            f"Logits for {task.name!r} have the shape {x.shape}; expected (N, {classes})"
            f"{', (N, 1) or (N,)' if classes == 2 else ''}, classes {', '.join(task.classes)}."
        )
    elif (
        len(x) and (x >= 0).all() and np.allclose(x.sum(1), 1, rtol=0, atol=0.01 if half else 1e-6)
    ):
        raise ValueError("This looks like probabilities; pass logits. Softmax is taken here, once.")
    if not np.isfinite(x).all():
        rows = int((~np.isfinite(x)).any(1).sum())
        raise ValueError(f"{rows} of {len(x)} rows of logits are NaN or infinite.")
    e = np.exp(x - x.max(1, keepdims=True, initial=-np.inf))
    return e / e.sum(1, keepdims=True)


def entropy(logits: np.ndarray) -> np.ndarray:
    """Return ``-sum p log p / log C`` of logits ``(..., C)``: 0 is sure of one class, 1 of none.

    As a share of the largest entropy it means the same for every number of classes.
    """
    log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    # A class that can't be has no share: 0 · log 0 is 0.
    parts = np.exp(log_p) * np.where(np.isneginf(log_p), 0.0, log_p)
    return -parts.sum(axis=-1) / np.log(logits.shape[-1])


def predictions(
    view: pd.DataFrame,
    logits: np.ndarray,
    *,
    task: str | Task,
    seed: int,
    fold: str | int | None = None,
    method: Method | None = None,
) -> pd.DataFrame:
    """Make the predictions table: one row per image, ``p_<class>`` in class order, or ``value``.

    Args:
        view: The table from ``splits.apply``, whose test labels are NA, in the order of ``logits``.
        logits: See `probabilities`; values ``(N,)`` for a regression.
        fold: The fold that was left out; None keeps the column ``fold`` of ``view``.
        method: What made the logits, as the columns ``start, strategy, sees, detail``. A table that
            is stored or drawn needs it; one that is scored at once does not.

    Raises:
        ValueError: See `probabilities`; tables of unequal length, or values that are not finite.
    """
    task = as_task(task)
    if len(view) != len(logits):
        raise ValueError(f"{len(view)} rows in the table, but {len(logits)} rows of logits.")
    if IMAGE_ID not in view:
        raise ValueError(f"The table lacks {IMAGE_ID}. Pass the table of splits.apply.")
    kept = (IMAGE_ID, PATIENT, GROUP, GROUP_KIND, cohort.CENTER, SPLIT, FOLD)
    columns = {c: view[c].array if c in view else pd.NA for c in kept}
    table = pd.DataFrame(columns, index=pd.RangeIndex(len(view)))
    named = {"task": task.name} | (method.columns() if method is not None else {})
    for name, value in named.items():
        table.insert(table.columns.get_loc(SPLIT), name, value)
    if fold is not None:
        table[FOLD] = fold
    table["seed"] = seed
    table["label"] = view[task.column].array if task.column in view else pd.NA
    if task.kind == "regression":
        values = np.asarray(logits, dtype=np.float64).reshape(-1)
        if not np.isfinite(values).all():
            rows = int((~np.isfinite(values)).sum())
            raise ValueError(f"{rows} of {len(values)} predicted values are NaN or infinite.")
        return table.assign(value=values)
    p = probabilities(logits, task=task)
    return table.assign(**{f"p_{name}": p[:, i] for i, name in enumerate(task.classes)})


def with_labels(predictions: pd.DataFrame, opened: pd.DataFrame) -> pd.DataFrame:
    """Join the labels that ``splits.open_test`` returned; labels that are there already stay.

    A table of several tasks gets the labels of each.

    Raises:
        ValueError: Unlabelled predictions that were not opened, opened images that a method did
            not predict (no test image may quietly drop out), or labels that disagree.
    """
    if predictions["task"].nunique() > 1:
        table = predictions.reset_index(drop=True)
        parts = [with_labels(p, opened) for _, p in table.groupby("task", sort=False)]
        return pd.concat(parts).sort_index().set_axis(predictions.index)
    task = as_task(predictions["task"].iloc[0])
    column = task.column if task.column in opened else "label"
    if column not in opened or IMAGE_ID not in opened:
        raise ValueError(f"The opened table needs the columns {IMAGE_ID} and {task.column}.")
    truth = opened.set_index(IMAGE_ID)[column]
    ids, old = predictions[IMAGE_ID], predictions["label"]
    known, found = ids.isin(truth.index), []
    closed = ids[old.isna() & ~known]
    if len(closed):
        found.append(f"{len(closed)} predictions have no opened label, e.g. {list(closed[:3])}.")
    methods = by_method(predictions) if set(METHOD) <= set(predictions) else {None: predictions}
    for method, rows in methods.items():
        lost = sorted(set(truth.dropna().index.astype(str)) - set(rows[IMAGE_ID].astype(str)))
        if lost:
            found.append(
                f"{len(lost)} opened images have no prediction{f' by {method}' if method else ''}, "
                f"e.g. {lost[:3]}. Predict them too, or pass only the rows that are meant."
            )
    new = ids.map(truth)
    as_type = float if task.kind == "regression" else str  # a value may come as 100 and as 100.0
    both = old.notna() & new.notna()
    odd = ids[both][old[both].astype(as_type) != new[both].astype(as_type)]
    if len(odd):
        found.append(f"{len(odd)} labels disagree with the opened ones, e.g. {list(odd[:3])}.")
    if found:
        raise ValueError("The labels don't fit the predictions:\n  - " + "\n  - ".join(found))
    label = old.astype("object").where(~known | new.isna(), new)
    return predictions.assign(label=label.infer_objects())


def units(table: pd.DataFrame, predictions: pd.DataFrame | None = None) -> tuple[pd.Series, str]:
    """Name what the predictions of several images are pooled by: the study, else the patient.

    Args:
        table: The cohort; its labels are not looked at.
        predictions: Of one task, opened: images whose study or patient has several labels then stay
            alone, since it can't be judged as one (two bones of a patient, say).

    Returns:
        The unit of each image, indexed by ``image_id``, for `pool`, under the name ``study`` or
        ``patient``; empty where each unit has one image, as there is nothing to pool. A sentence
        that says which it is.
    """
    unknown = pd.Series(pd.NA, table.index, dtype="object")
    patient, study = (table[c] if c in table else unknown for c in (PATIENT, STUDY))
    known = (patient.notna() | study.notna()).to_numpy()
    if not known.any():
        return pd.Series(dtype=object), (
            "No patient or study is known (image-level groups): nothing is pooled, each image "
            "counts by itself."
        )
    columns = [c for c in (cohort.SOURCE, PATIENT, STUDY) if c in table]
    parts = table[columns].astype("object").to_numpy()
    names = [" ".join(str(part) for part in row if not pd.isna(part)) for row in parts]
    alone = "image " + table[IMAGE_ID].astype(str)
    unit = pd.Series(np.where(known, names, alone), pd.Index(table[IMAGE_ID]))
    torn = np.zeros(len(table), dtype=bool)
    if predictions is not None:
        of = predictions[IMAGE_ID].map(unit)
        labels = predictions.groupby(of)["label"].nunique()
        torn = unit.isin(labels.index[labels > 1]).to_numpy()
        unit = unit.where(~torn, alone.to_numpy())
        unit, torn, known = (x[unit.index.isin(predictions[IMAGE_ID])] for x in (unit, torn, known))
    several = int((unit.value_counts() > 1).sum())
    if not several:
        return pd.Series(dtype=object), "No study or patient has several images to pool."
    by = "study" if study.notna().any() else "patient"
    said = f"{several} of {unit.nunique()} units have several images, pooled by {by}"
    if by == "study" and (study.isna() & patient.notna()).any():
        said += ", where none is known by patient"
    if torn.any():
        said += f"; {int(torn.sum())} images stay alone, as theirs has several labels"
    if not known.all():
        said += f"; {int((~known).sum())} images of nobody known stay alone"
    return unit.rename(by), said + "."


def pool(
    predictions: pd.DataFrame, studies: pd.Series, *, how: str = "probabilities"
) -> pd.DataFrame:
    """Average the predictions of each study's images, where the label belongs to the study.

    By default the arithmetic mean of the probabilities, as MURA's authors did (Rajpurkar et al.,
    arXiv:1712.06957, 3.1). The mean of the logits is that of a linear head on the mean of the
    images' embeddings, as in the evaluation of Englebert et al. (MURA's test by the mean of the
    class tokens): a linear head and a mean change places. One image that is sure weighs more there.

    Args:
        studies: The study of each image, indexed by ``image_id``; see `units`.
        how: ``probabilities`` or ``logits``; values of a regression are averaged in both.

    Returns:
        A predictions table with one row per study (and seed, fold, method, …): ``image_id`` holds
        the study.

    Raises:
        ValueError: Images have no study, a study has several labels or patients, or
            another ``how``.
    """
    if how not in ("probabilities", "logits"):
        raise ValueError(f"Unknown way to pool {how!r}. Choose probabilities or logits.")
    unit = predictions[IMAGE_ID].map(studies)
    found = []
    if unit.isna().any():
        lost = list(predictions.loc[unit.isna(), IMAGE_ID][:3])
        found.append(f"{int(unit.isna().sum())} images have no study, e.g. {lost}.")
    for column in ("label", PATIENT):
        spread = predictions.groupby(unit)[column].nunique()
        torn = list(spread.index[spread > 1][:3])
        if torn:
            found.append(f"{int((spread > 1).sum())} studies have several {column}s, e.g. {torn}.")
    if found:
        raise ValueError("The studies don't fit the predictions:\n  - " + "\n  - ".join(found))
    scores = [c for c in predictions if c.startswith("p_") or c == "value"]
    apart = [c for c in (*METHOD, WORDING, "task", SPLIT, FOLD, "seed") if c in predictions]
    rest = [c for c in predictions if c not in (*scores, *apart, IMAGE_ID)]
    ways = {c: "mean" if c in scores else "first" for c in (*rest, *scores)}
    keys = [unit.rename(IMAGE_ID), *(predictions[c] for c in apart)]
    logits = how == "logits" and "value" not in predictions
    if logits:  # a logarithm is a logit but for a constant a row, which softmax takes out again
        logs = np.log(predictions[scores].clip(lower=np.finfo(float).tiny))
        predictions = predictions.assign(**logs)
    pooled = predictions.groupby(keys, sort=False, dropna=False).agg(ways).reset_index()
    if logits:
        e = np.exp(pooled[scores].sub(pooled[scores].max(axis=1), axis=0))
        pooled[scores] = e.div(e.sum(axis=1), axis=0)
    return pooled[list(predictions)]
