"""Losses that ask an image for its label: a class, a grade, a value, or the facts of a caption.

Logits and labels come in; a scalar comes out. Grades: CORAL, Cao et al. 2020, arXiv:1901.07884.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bonelib.losses.objective import Batch, Objective, Outputs, gathered


def attributes_loss(logits: Sequence[Tensor], keys: Tensor) -> Tensor:
    """Return the cross-entropy of each attribute's logits ``(B, classes)``, the mean over keys.

    A missing key (-1) is left out, an attribute without any known key counts 0. Under several
    processes it is that of the global batch: each may know other keys, so their means would not do.
    """
    terms, keys = [], gathered(keys)
    for k, one in enumerate(logits):
        total = F.cross_entropy(gathered(one.float()), keys[:, k], ignore_index=-1, reduction="sum")
        terms.append(total / (keys[:, k] >= 0).sum().clamp_min(1))
    return torch.stack(terms).mean()


def attributes_objective() -> Objective:
    """Return the control without language: cross-entropy of one linear head an attribute key.

    The same facts as in the captions, learnt as classes. The model returns ``attribute_0``, … of
    shape ``(B, classes)``; a missing key (-1) is left out, an attribute without any known key too.
    """

    def forward(model: nn.Module, batch: Batch) -> Outputs:
        return {f"attribute_{k}": logits for k, logits in enumerate(model(batch["image"]))}

    def loss(out: Outputs, batch: Batch) -> Tensor:
        return attributes_loss(list(out.values()), batch["keys"])

    return Objective(forward, loss)


def classification_objective(
    *, class_weights: Tensor | None = None, ordinal: bool = False
) -> Objective:
    """Return cross-entropy on a classifier's logits; rows labelled -1 are left out.

    One output column is a binary task (the logit of class 1), several are classes in task order.
    A batch without any label gives zero, and a gradient of zero.

    Args:
        class_weights: ``(C,)``, one per class.
        ordinal: The classes are grades in order: see ``ordinal_loss``.
    """

    def loss(out: Outputs, batch: Batch) -> Tensor:
        # of the global batch: under several processes each may hold other classes
        logits, label = gathered(out["logits"]), gathered(batch["label"])
        known = label >= 0
        if not known.any():
            return logits.float().sum() * 0  # a mean of nothing would be NaN
        logits, label = logits[known].float(), label[known]
        weights = None if class_weights is None else class_weights.to(logits)
        if logits.shape[1] > 1 and not ordinal:
            return F.cross_entropy(logits, label, weight=weights)
        if ordinal:
            each = ordinal_loss(logits, label)
        else:
            truth = label.to(logits)
            each = F.binary_cross_entropy_with_logits(logits[:, 0], truth, reduction="none")
        if weights is None:
            return each.mean()
        return (each * weights[label]).sum() / weights[label].sum()

    return Objective(_logits, loss)


def ordinal_loss(logits: Tensor, label: Tensor) -> Tensor:
    r"""Return how far off each image's grade is: the mean cross-entropy of "above grade k".

    .. math:: L = -\frac1{C-1} \sum_{k=0}^{C-2}
              \big([y > k] \log p_k + [y \le k] \log (1 - p_k)\big),
              \quad p_k = \sum_{j > k} \mathrm{softmax}(z)_j

    The binary tasks of CORAL (Cao et al. 2020, arXiv:1901.07884, section 3.3), in which a grade
    missed by two costs more than one missed by one. CORAL shares its weights among the thresholds
    so that their probabilities never cross; sums of one softmax never do either, and C logits leave
    the head, the bundle and the evaluation those of any other classes.

    Args:
        logits: ``(B, C)``, C grades in order.
        label: ``(B,)`` integers.

    Returns:
        ``(B,)``.
    """
    above = logits.flip(1).logcumsumexp(1).flip(1)[:, 1:]  # (B, C - 1)
    upto = logits.logcumsumexp(1)[:, :-1]
    truth = label[:, None] > torch.arange(logits.shape[1] - 1, device=label.device)
    odds = above - upto  # the logit of P(y > k)
    return F.binary_cross_entropy_with_logits(odds, truth.to(logits), reduction="none").mean(1)


def regression_objective(*, scale: float = 1.0) -> Objective:
    """Return the distance of a model's values from the true ones; rows labelled NaN are left out.

    The absolute error, which is what is reported, rounded off within a tenth of ``scale``, where
    its gradient would jump (Huber 1964, Ann. Math. Statist. 35:73). A batch without any value gives
    zero, and a gradient of zero.

    Args:
        scale: Standard deviation of the training values; the loss counts in it.
    """

    def loss(out: Outputs, batch: Batch) -> Tensor:
        values, label = gathered(out["logits"][:, 0].float()), gathered(batch["label"].float())
        known = torch.isfinite(label)
        if not known.any():
            return values.sum() * 0
        off = (values[known] - label[known]) / scale
        return F.smooth_l1_loss(off, torch.zeros_like(off), beta=0.1)

    return Objective(_logits, loss)


def _logits(model: nn.Module, batch: Batch) -> Outputs:
    return {"logits": model(batch["image"])}
