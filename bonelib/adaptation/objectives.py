"""What a training of all weights minimises to learn the labels of a task."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from bonelib import losses, models


@contextlib.contextmanager
def objective(
    model: models.Classifier, labels: np.ndarray, *, ordinal: bool = False
) -> Iterator[losses.Objective]:
    """Give what a classifier minimises to learn labels, for as long as it is trained.

    Classes are learnt by cross-entropy, each weighed by the inverse of its frequency to mean one;
    grades by that of their thresholds (``losses.ordinal_loss``); values (floats) by their distance
    in standard deviations of the training values. A head that had to reach 120 months by itself
    would need steps as large as months: it learns standardised values and puts out values in the
    task's unit. After the training its weights do so, and the model is a plain one again, for a
    bundle and for whoever loads it.

    Args:
        labels: Training labels ``(N,)``, for the class weights or the scale; -1 or NaN is left out.
        ordinal: The classes are grades in order.

    Raises:
        ValueError: No two classes, or no two values, among the training labels.
    """
    import torch

    labels, head = np.asarray(labels), model.head
    if not np.issubdtype(labels.dtype, np.floating):
        weights = _class_weights(labels, head.out_features)
        yield losses.classification_objective(class_weights=weights, ordinal=ordinal)
        return
    values = labels[np.isfinite(labels)].astype(np.float64)
    if len(np.unique(values)) < 2:
        raise ValueError(f"{len(values)} training values, none differing: nothing to learn.")
    center, scale = float(values.mean()), float(values.std())
    handle = head.register_forward_hook(lambda _, __, out: out.float() * scale + center)
    try:
        yield losses.regression_objective(scale=scale)
    finally:
        handle.remove()
        with torch.no_grad():
            head.weight.mul_(scale)
            head.bias.mul_(scale).add_(center)


def _class_weights(labels: np.ndarray, outputs: int) -> Any:
    """Return a weight a class, their mean over the rows one; a class without rows needs none."""
    import torch

    counts = np.bincount(labels[labels >= 0], minlength=max(2, outputs))
    present = counts > 0
    if present.sum() < 2:
        raise ValueError(
            f"Training rows by class: {counts.tolist()}. There is nothing to tell apart; use "
            "another split."
        )
    weights = np.zeros(len(counts))
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return torch.tensor(weights, dtype=torch.float32)
