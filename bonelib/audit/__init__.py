"""What could fool a model: leaks, shortcuts and contradictions, found before a model finds them.

A table with groups and labels comes in, with thumbnails, lesion masks, file facts, frozen features
and captions where there are any; a table of findings goes out, red, amber or green, a sentence
each. What can be counted is counted (``leaks``); each shortcut is scored as a reader who sees
nothing else (``shortcuts``): out-of-fold over grouped folds, AUROC of the class most easily told,
with the clustered bootstrap of ``evaluation``. All labels are read, so nothing of a model may be
chosen by what is found here.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from bonelib import cohort, evaluation
from bonelib.audit import leaks
from bonelib.audit.shortcuts import AMBER, RED, Scored, crossfit
from bonelib.cohort import GROUP, Task

# The kinds of check; one without anything to look at leaves no row. A further kind, ``value``, has
# rows only where a value of a field occurs in one class alone.
CHECKS = ("split", "copies", "metadata", "field", "file", "preprocessing", "border", "thumbnail")
CHECKS += ("lesion", "origin", "caption")
FOLDS = 5  # where the table has none


def findings(
    table: pd.DataFrame,
    *,
    task: str | Task | None,
    images: np.ndarray | None = None,
    masks: np.ndarray | None = None,
    files: pd.DataFrame | None = None,
    features: np.ndarray | None = None,
    captions: Sequence[str] | None = None,
    sha256: dict[str, str] | None = None,
    near: pd.DataFrame | None = None,
    fields: Sequence[str] = (),
    draws: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Run every check for which there is something to look at.

    Args:
        table: With ``group`` of ``splits.add_groups``; its ``fold`` (and ``split``) is used and
            checked where present, else five folds are made for this audit alone.
        task: None, where the table has no labels: what can be counted without them is counted.
        images: uint8 ``(N, S, S)`` in row order (``cache.images[cache.rows(ids)]``).
        masks: bool ``(N, S, S)``, True on the lesion, empty where none is outlined.
        files: Facts of each file in row order (``Cache.files``).
        features: Frozen features ``(N, D)``.
        captions: One text a row, as a model would be trained on.
        sha256: As in ``splits.add_groups``, like ``near``.
        fields: Further columns that a picture may show or a file name tell (cast, device), scored
            one by one like site and age.
        draws: Of the bootstrap.

    Returns:
        check, what, value, low, high, n, level (red, amber, green), sentence. The value is an
        AUROC (classes of a regression: above the median or not) or a count.

    Raises:
        ValueError: No groups, no two classes, or inputs of another length; all are named.
    """
    task = None if task is None else evaluation.as_task(task)
    given = {"images": images, "masks": masks, "files": files}
    given |= {"features": features, "captions": captions}
    wrong = [
        f"{name} has {len(value)} rows"
        for name, value in given.items()
        if value is not None and len(value) != len(table)
    ]
    wrong += [] if GROUP in table else ["there are no groups: call splits.add_groups first"]
    absent = [name for name in fields if name not in table]
    wrong += [f"there is no column {', '.join(absent)}"] if absent else []
    wrong += ["masks need images"] if masks is not None and images is None else []
    if wrong:
        raise ValueError(f"Can't audit this table of {len(table)} rows: {'; '.join(wrong)}.")
    cohort.check(table, task=task)
    rows = leaks.integrity(table, sha256, near)
    if task is None:
        return _by_level(rows)
    if captions is not None:
        rows += leaks.captions_told(table, task, captions)
    known = table[task.column].notna().to_numpy()
    if not known.all():  # else no copy is made of images that may lie in a memory map
        images, masks, features = (
            None if a is None else np.asarray(a)[known] for a in (images, masks, features)
        )
        files = None if files is None else files[known]
        captions = (
            None if captions is None else [c for c, k in zip(captions, known, strict=True) if k]
        )
    # Products of this size gain nothing from a second thread, which spins and takes a core.
    with threadpool_limits(1, "blas"):
        scored = Scored(table[known], task, folds=FOLDS, draws=draws, seed=seed)
        rows += scored.fields(fields) + scored.files(files, images)
        if images is not None:
            rows += scored.pictures(images, masks)
        if features is not None:
            rows += scored.origin(features)
        if captions is not None:
            rows += [scored.shortcut("caption", "words of the caption", leaks.words(captions))]
    return _by_level(rows)


def _by_level(rows: list[dict | None]) -> pd.DataFrame:
    out = pd.DataFrame([row for row in rows if row], columns=leaks.COLUMNS)
    order = out["level"].map({"red": 0, "amber": 1, "green": 2})
    return out.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)
