"""Losses that pull a radiograph and its caption together, and the objectives built from them.

Features come in as rows of unit length, image i beside caption i; a scalar comes out.
CLIP: Radford et al. 2021, arXiv:2103.00020. Several positives: UniCL, Yang et al. 2022,
arXiv:2204.03610, equation 3; SupCon, Khosla et al. 2020, arXiv:2004.11362.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Objective = Callable[[nn.Module, dict[str, Any]], Tensor]


def positives(keys: Tensor) -> Tensor:
    """Return which pairs mean the same: ``(B, K)`` attribute keys to ``(B, B)`` of bool.

    Two rows match when all their keys are equal. A missing key (-1) matches nothing, so such a row
    is positive to itself alone.
    """
    equal = (keys[:, None] == keys[None]) & (keys[:, None] >= 0)
    return equal.all(dim=-1) | torch.eye(len(keys), dtype=torch.bool, device=keys.device)


def targets(keys: Tensor, *, temperature: float = 0.0) -> Tensor:
    """Return how each row's probability should lie over the batch: ``(B, B)``, rows sum to one.

    Args:
        keys: ``(B, K)``, -1 where missing.
        temperature: 0 spreads evenly over the rows with all keys equal (UniCL). Above 0 the target
            is the softmax of the share of equal keys over this temperature, so that a partial
            match (same site, other sign) counts for part (MedCLIP, Wang et al. 2022,
            arXiv:2210.10163, section 3.3, with attribute keys in place of its label vectors).
    """
    if temperature == 0:
        match = positives(keys).double()
        return match / match.sum(dim=1, keepdim=True)
    equal = (keys[:, None] == keys[None]) & (keys[:, None] >= 0)
    share = equal.double().mean(dim=-1).fill_diagonal_(1.0)  # a row always means itself
    return (share / temperature).softmax(dim=1)


def contrastive_loss(
    image_features: Tensor,
    text_features: Tensor,
    *,
    logit_scale: Tensor,
    keys: Tensor | None = None,
    key_temperature: float = 0.0,
) -> Tensor:
    r"""Ask each image to pick out every caption that means the same, and each caption its images.

    .. math:: L_{i2t} = -\frac1B \sum_i \frac1{|P(i)|} \sum_{j \in P(i)} \log
              \frac{e^{s\, v_i \cdot t_j}}{\sum_k e^{s\, v_i \cdot t_k}}

    and the same with the roles exchanged; the mean of both. Without keys (P(i) = {i}) it is CLIP's
    symmetric InfoNCE. Small medical sets repeat their captions, and InfoNCE then pushes equal
    meanings apart; the unique-caption sampler hides equal strings, not equal meanings.

    Args:
        image_features: ``(B, D)``, unit rows.
        text_features: ``(B, D)``, unit rows.
        logit_scale: The factor s itself, not its logarithm.
        keys: ``(B, K)`` integers, -1 where missing.
        key_temperature: Above 0, partial matches of the keys count (see ``targets``).
    """
    logits = logit_scale * image_features @ text_features.T  # (B, B): rows images, columns captions
    if keys is None:
        own = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    # The match of two rows is symmetric, so the same rows serve both directions.
    target = targets(keys, temperature=key_temperature).to(logits.dtype)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def floor(keys: Tensor, *, temperature: float = 0.0) -> float:
    """Return the lowest value ``contrastive_loss`` can reach on a batch with these keys, in nats.

    That is the entropy of the targets; with a uniform target over |P(i)| positives, the mean of
    ln |P(i)|, which is also what InfoNCE pays for equal meanings it treats as different: a model
    that knows every attribute can't do better.
    """
    target = targets(keys, temperature=temperature)
    return float(-(target * target.clamp_min(1e-300).log()).sum(dim=1).mean())


def contrastive_objective(
    model: nn.Module, batch: dict[str, Any], *, key_temperature: float = 0.0
) -> Tensor:
    """Apply ``contrastive_loss`` to a dual encoder and a batch (contract 4 of the house)."""
    out = model(batch["image"], batch["tokens"])
    return contrastive_loss(
        out["image_features"],
        out["text_features"],
        logit_scale=out["logit_scale"],
        keys=batch.get("keys"),
        key_temperature=key_temperature,
    )


def classification_objective(*, class_weights: Tensor | None = None) -> Objective:
    """Return cross-entropy on a classifier's logits; rows labelled -1 are left out.

    One output column is a binary task (the logit of class 1), several are classes in task order.
    A batch without any label gives zero, and a gradient of zero.

    Args:
        class_weights: ``(C,)``, one per class.
    """

    def objective(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        logits, label = model(batch["image"]), batch["label"]
        known = label >= 0
        if not known.any():
            return logits.float().sum() * 0  # a mean of nothing would be NaN
        logits, label = logits[known].float(), label[known]
        weights = None if class_weights is None else class_weights.to(logits)
        if logits.shape[1] > 1:
            return F.cross_entropy(logits, label, weight=weights)
        each = F.binary_cross_entropy_with_logits(logits[:, 0], label.to(logits), reduction="none")
        if weights is None:
            return each.mean()
        return (each * weights[label]).sum() / weights[label].sum()

    return objective
