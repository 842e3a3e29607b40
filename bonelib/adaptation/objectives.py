"""What a training of all weights minimises to learn the labels of a task."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from bonelib import losses, models
from bonelib.adaptation.support import balanced, refuse_one_class

# What is done where classes differ in size. ``balanced`` draws them equally often, in the loader.
IMBALANCE = ("weights", "balanced", "logit_adjustment", "none")


@contextlib.contextmanager
def objective(
    model: models.Classifier,
    labels: np.ndarray,
    *,
    ordinal: bool = False,
    imbalance: str = "weights",
) -> Iterator[losses.Objective]:
    """Give what a classifier minimises to learn labels, for as long as it is trained.

    Classes are learnt by cross-entropy, with ``weights`` each weighed by the inverse of its
    frequency to mean one; grades by that of their thresholds (``losses.ordinal_loss``); values
    (floats) by their distance in standard deviations of the training values. A head that had to
    reach 120 months by itself would need steps as large as months: it learns standardised values
    and puts out values in the task's unit. After the training its weights do so, and the model is a
    plain one again, for a bundle and for whoever loads it.

    Args:
        labels: Training labels ``(N,)``, for the class weights or the scale; -1 or NaN is left out.
        ordinal: The classes are grades in order.
        imbalance: One of ``IMBALANCE``; values have none.

    Raises:
        ValueError: No two classes, or no two values, among the training labels; no such setting.
    """
    import torch

    labels, head = np.asarray(labels), model.head
    if not np.issubdtype(labels.dtype, np.floating):
        if imbalance not in IMBALANCE:
            raise ValueError(
                f"Unknown imbalance {imbalance!r}. Choose one of {', '.join(IMBALANCE)}."
            )
        weights = _class_weights(labels, head.out_features)
        used = weights if imbalance == "weights" else None
        found = losses.classification_objective(class_weights=used, ordinal=ordinal)
        adjusting = imbalance == "logit_adjustment"
        yield adjusted(found, labels, head.out_features) if adjusting else found
        return
    center, scale = standard(labels)
    handle = head.register_forward_hook(lambda _, __, out: out.float() * scale + center)
    try:
        yield losses.regression_objective(scale=scale)
    finally:
        handle.remove()
        with torch.no_grad():
            head.get_parameter("weight").mul_(scale)
            head.get_parameter("bias").mul_(scale).add_(center)


def standard(values: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of the training values that are known, ``(N,)`` floats.

    Raises:
        ValueError: No two values differ.
    """
    values = values[np.isfinite(values)].astype(np.float64)
    if len(np.unique(values)) < 2:
        raise ValueError(f"{len(values)} training values, none differing: nothing to learn.")
    return float(values.mean()), float(values.std())


def adjusted(objective: losses.Objective, labels: np.ndarray, outputs: int) -> losses.Objective:
    r"""Let logits answer for what frequencies do not explain: logit adjustment.

    .. math:: L = -\log \frac{\pi_y e^{z_y}}{\sum_c \pi_c e^{z_c}}

    with the classes' shares of the training rows; the logits z that leave the model favour no class
    for being frequent (Menon et al. 2021, arXiv:2007.07314, equation 10 with tau = 1; the equation
    is recalled). A binary logit is that of class 1 against class 0.
    """
    import torch

    counts = np.bincount(labels[labels >= 0], minlength=max(2, outputs)).astype(np.float64)
    prior = np.log(counts.clip(1e-9) / counts.sum())  # a class without rows is all but ruled out
    shift = torch.tensor(prior if outputs > 1 else prior[1:] - prior[:1], dtype=torch.float32)

    def loss(out: losses.Outputs, batch: losses.Batch) -> torch.Tensor:
        logits = out["logits"].float()
        return objective.loss(out | {"logits": logits + shift.to(logits)}, batch)

    return losses.Objective(objective.forward, loss, objective.chance)


def _class_weights(labels: np.ndarray, outputs: int) -> Any:
    """Return a weight a class, their mean over the rows one; a class without rows needs none."""
    import torch

    classes = max(2, outputs)
    refuse_one_class(labels, classes)
    weights = balanced(np.bincount(labels[labels >= 0], minlength=classes))
    return torch.tensor(weights, dtype=torch.float32)
