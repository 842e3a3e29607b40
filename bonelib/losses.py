"""Losses that pull a radiograph and its caption together, and the objectives built from them.

Features come in as rows of unit length, image i beside caption i; a scalar comes out. Where several
processes train together, the contrastive objective hands each loss the features of all of them
(``gathered``), so that K processes compute what one would on the same global batch.

CLIP: Radford et al. 2021, arXiv:2103.00020. Several positives: UniCL, Yang et al. 2022,
arXiv:2204.03610, equation 3; SupCon, Khosla et al. 2020, arXiv:2004.11362. SigLIP: Zhai et al.
2023, arXiv:2303.15343. SimCLR: Chen et al. 2020, arXiv:2002.05709. Nearest neighbours: DeCLIP,
Li et al. 2022, arXiv:2110.05208; Windsor et al. 2023, arXiv:2303.17644.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Outputs = dict[str, Tensor]
Batch = dict[str, Any]


@dataclass(frozen=True)
class Objective:
    """What training minimises, in two steps: what a model says of each image, and how wrong it is.

    The two are apart so that a batch can be larger than memory (``training.fit``, micro_batch): the
    first step runs on a few images at a time, the second on all of them.

    Attributes:
        forward: ``(model, batch)`` to named outputs, ``(B, …)`` each or a scalar of the model.
        loss: ``(outputs, batch)`` to a scalar.
        chance: ``(images, pairs)`` to the loss of guessing at a batch of so many images, of which
            so many have a caption; None where that is not known.
    """

    forward: Callable[[nn.Module, Batch], Outputs]
    loss: Callable[[Outputs, Batch], Tensor]
    chance: Callable[[int, int], float] | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        return self.loss(self.forward(model, batch), batch)


# ---------------------------------------------------------------------- which pairs mean the same
def positives(keys: Tensor) -> Tensor:
    """Return which pairs mean the same: ``(B, K)`` attribute keys to ``(B, B)`` of bool.

    Two rows match when they say the same: all keys equal, where saying nothing (-1) equals saying
    nothing. A row of which no key is known matches itself alone.
    """
    said = keys >= 0
    same = (keys[:, None] == keys[None]).all(dim=-1) & said.any(dim=1)
    return same | torch.eye(len(keys), dtype=torch.bool, device=keys.device)


def targets(
    keys: Tensor, *, temperature: float = 0.0, weights: Sequence[float] | None = None
) -> Tensor:
    """Return how each row's probability should lie over the batch: ``(B, B)``, rows sum to one.

    Args:
        keys: ``(B, K)``, -1 where nothing is said.
        temperature: 0 spreads evenly over the rows that mean the same (UniCL). Above 0 the target
            is the softmax of the share of equal keys over this temperature, so that a partial
            match (same site, other sign) counts for part (MedCLIP, Wang et al. 2022,
            arXiv:2210.10163, section 3.3, with attribute keys in place of its label vectors). The
            share is of the keys that at least one of the two rows says.
        weights: What each of the K keys is worth in that share; equal if not given.

    Raises:
        ValueError: Weights that are not one a key, or not positive.
    """
    if temperature == 0:
        match = positives(keys).double()
        return match / match.sum(dim=1, keepdim=True)
    worth = torch.ones(keys.shape[1]) if weights is None else torch.as_tensor(weights)
    if len(worth) != keys.shape[1] or (worth <= 0).any():
        raise ValueError(f"{keys.shape[1]} keys need as many positive weights, found {weights}.")
    worth, said = worth.to(keys.device).double(), keys >= 0
    equal = (keys[:, None] == keys[None]) & said[:, None]
    either = (said[:, None] | said[None]).double() @ worth
    share = (equal.double() @ worth) / either.clamp_min(1e-12)
    share = share.fill_diagonal_(1.0)  # a row always means itself
    return (share / temperature).softmax(dim=1)


def floor(
    keys: Tensor, *, temperature: float = 0.0, weights: Sequence[float] | None = None
) -> float:
    """Return the lowest value ``contrastive_loss`` can reach on a batch with these keys, in nats.

    That is the entropy of the targets; with a uniform target over |P(i)| positives, the mean of
    ln |P(i)|, which is also what InfoNCE pays for equal meanings it treats as different: a model
    that knows every attribute can't do better.
    """
    target = targets(keys, temperature=temperature, weights=weights)
    return float(-(target * target.clamp_min(1e-300).log()).sum(dim=1).mean())


# ---------------------------------------------------------------------- losses
def gathered(tensor: Tensor) -> Tensor:
    """Return the rows of all processes, in the order of their ranks, with gradients back to each.

    With one process the tensor itself. The gradient that returns is the sum over processes; DDP
    then takes the mean, so that the result is the gradient of one process on the global batch.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return tensor
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(tensor.contiguous()))


def contrastive_loss(
    image_features: Tensor,
    text_features: Tensor,
    *,
    logit_scale: Tensor,
    keys: Tensor | None = None,
    key_temperature: float = 0.0,
    key_weights: Sequence[float] | None = None,
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
        keys: ``(B, K)`` integers, -1 where a caption says nothing.
        key_temperature: Above 0, partial matches of the keys count (see ``targets``).
        key_weights: What each key is worth in a partial match.
    """
    logits = logit_scale * image_features @ text_features.T  # (B, B): rows images, columns captions
    if keys is None:
        own = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    # The match of two rows is symmetric, but a softmax over a row need not be one over a column:
    # the same rows of targets serve both directions, image to text and text to image.
    target = targets(keys, temperature=key_temperature, weights=key_weights)
    target = target.to(logits.dtype)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def siglip_loss(
    image_features: Tensor,
    text_features: Tensor,
    *,
    logit_scale: Tensor,
    logit_bias: Tensor,
    keys: Tensor | None = None,
) -> Tensor:
    r"""Ask of each pair alone whether it means the same.

    .. math:: L = -\frac1B \sum_i \sum_j \log \sigma(z_{ij} (s\, v_i \cdot t_j + b))

    with z = 1 for pairs that mean the same (all keys equal; without keys only i = j) and -1 for the
    others: SigLIP's equation with several positives. It has no floor: 0 can be reached.

    Args:
        logit_scale: The factor s; SigLIP starts it at 10.
        logit_bias: b, started at -10, since most pairs don't match.
    """
    logits = logit_scale * image_features @ text_features.T + logit_bias
    same = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    if keys is not None:
        same = positives(keys)
    return -F.logsigmoid(torch.where(same, logits, -logits)).sum() / len(logits)


def simclr_loss(first: Tensor, second: Tensor, *, temperature: float = 0.1) -> Tensor:
    r"""Ask each view of an image to pick out the other view among all views of the batch (NT-Xent).

    .. math:: L = -\frac1{2B} \sum_{i} \log
              \frac{e^{z_i \cdot z_{p(i)} / \tau}}{\sum_{k \ne i} e^{z_i \cdot z_k / \tau}}

    over the 2B views, p(i) being the other view of the same image: SimCLR, equation 1.

    Args:
        first: ``(B, D)`` unit features of one view of each image.
        second: ``(B, D)`` of another view of the same images.
    """
    views = torch.cat([first, second])  # (2B, D)
    logits = views @ views.T / temperature
    logits = logits.masked_fill(torch.eye(len(views), dtype=torch.bool, device=views.device), -1e9)
    half = len(views) // 2
    return F.cross_entropy(logits, torch.arange(2 * half, device=views.device).roll(half))


def nearest(features: Tensor, *, keys: Tensor | None = None) -> Tensor:
    """Return the index of the most similar other row of each: ``(N, D)`` unit rows to ``(N,)``.

    Found once, on sentence embeddings of all training captions or on features of the starting
    tower, they are the extra positives of low-data recipes (DeCLIP, section 3.3; Windsor et al.).

    Args:
        keys: ``(N, K)``; rows that mean the same are passed over, since they are positives already.
    """
    similarity = features @ features.T
    own = torch.eye(len(features), dtype=torch.bool, device=features.device)
    similarity = similarity.masked_fill(own if keys is None else positives(keys), -torch.inf)
    if torch.isinf(similarity).all(dim=1).any():
        raise ValueError("All captions mean the same: there are no other captions to be near to.")
    return similarity.argmax(dim=1)


def spread(features: Tensor) -> Tensor:
    """Return how far unit rows ``(B, D)`` lie apart: one minus the squared length of their mean.

    0 where all rows are one point (contrastive training has collapsed), near 1 where they balance.
    Rows that are unit to bf16's precision only are measured by their own mean square.
    """
    features = features.float()
    return 1 - features.mean(dim=0).square().sum() / features.square().sum(dim=1).mean()


# ---------------------------------------------------------------------- objectives
def contrastive_objective(
    *,
    loss: str = "softmax",
    key_temperature: float = 0.0,
    key_weights: Sequence[float] | None = None,
    use_keys: bool = True,
    text: float = 1.0,
    views: float = 0.0,
    neighbours: float = 0.0,
    attributes: float = 0.0,
) -> Objective:
    """Return the objective of a dual encoder: weighted terms, each left out at weight 0.

    Args:
        loss: ``softmax`` (``contrastive_loss``) or ``sigmoid`` (``siglip_loss``).
        use_keys: Count captions with equal attribute keys as positives. Without, it is plain CLIP.
        text: Weight of the image–text term. Rows of a batch whose ``captioned`` is false (images
            without text) are left out of it.
        views: Weight of SimCLR between the two views of each image; batches need ``second``.
        neighbours: Weight of the same image–text term with each caption's nearest neighbour in its
            place; batches need ``neighbour_tokens``. (DeCLIP, equation 7)
        attributes: Weight of the cross-entropy of one linear head an attribute key
            (``attributes_loss``): the captions' facts learnt as classes beside the captions.

    Raises:
        ValueError: Another loss, no term at all, or partial matches where keys are not looked at or
            the loss knows none.
    """
    if loss not in ("softmax", "sigmoid"):
        raise ValueError(f"Unknown loss {loss!r}. Choose softmax or sigmoid.")
    if (key_temperature or key_weights is not None) and (loss == "sigmoid" or not use_keys):
        raise ValueError(
            f"loss={loss!r} with use_keys={use_keys} knows no partial matches: set "
            "key_temperature=0 and no key_weights, which would change nothing."
        )
    if not (text or views or neighbours or attributes):
        raise ValueError("All weights are 0: nothing would be learnt.")

    def forward(model: nn.Module, batch: Batch) -> Outputs:
        more = {name: batch[name] for name in ("study", "view") if name in batch}
        if views:
            more["second"] = batch["second"]
        if neighbours:
            more["neighbour_tokens"] = batch["neighbour_tokens"]
        return model(batch["image"], batch["tokens"] if text or neighbours else None, **more)

    def pairs(out: Outputs, batch: Batch, name: str) -> Tensor:
        keys = batch.get("keys") if use_keys else None
        given = {"image_features": out["image_features"], "text_features": out[name], "keys": keys}
        given = {k: v if v is None else gathered(v) for k, v in given.items()}
        if "captioned" in batch:  # after gathering: processes must hand over equally many rows
            told = gathered(batch["captioned"])
            given = {k: v if v is None else v[told] for k, v in given.items()}
            if not told.any():  # 0, with a gradient of 0 for everything the term would move
                moved = ("image_features", name, "logit_scale", "logit_bias")
                return sum(out[k].sum() for k in moved if k in out) * 0
        given["logit_scale"] = out["logit_scale"]
        if loss == "sigmoid":
            return siglip_loss(**given, logit_bias=out["logit_bias"])
        return contrastive_loss(**given, key_temperature=key_temperature, key_weights=key_weights)

    def total(out: Outputs, batch: Batch) -> Tensor:
        terms = []
        if text:
            terms.append(text * pairs(out, batch, "text_features"))
        if neighbours:
            terms.append(neighbours * pairs(out, batch, "neighbour_features"))
        if views:
            two = gathered(out["view_features"]), gathered(out["second_features"])
            terms.append(views * simclr_loss(*two))
        if attributes:
            logits = [v for name, v in out.items() if name.startswith("attribute_")]
            terms.append(attributes * attributes_loss(logits, batch["keys"]))
        return torch.stack(terms).sum()

    def chance(images: int, pairs: int) -> float:
        return (text + neighbours) * math.log(max(pairs, 1)) + views * math.log(2 * images - 1)

    known = (loss == "softmax" or not text) and not attributes
    return Objective(forward, total, chance if known else None)


def attributes_loss(logits: Sequence[Tensor], keys: Tensor) -> Tensor:
    """Return the cross-entropy of each attribute's logits ``(B, classes)``, the mean over keys.

    A missing key (-1) is left out, an attribute without any known key counts 0.
    """
    terms = []
    for k, one in enumerate(logits):
        total = F.cross_entropy(one.float(), keys[:, k], ignore_index=-1, reduction="sum")
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


def distilled(objective: Objective, teacher: nn.Module, *, weight: float) -> Objective:
    """Add a pull of the image tower towards the features of ``teacher``, the tower it started from.

    The added term is the mean of one minus the cosine between pooled features of student and
    teacher, on the very view the student sees. (Feature distillation as FitNets, Romero et al.
    2015, arXiv:1412.6550, with a cosine in place of the squared distance.)

    Args:
        teacher: ``(B, C, H, W)`` to ``(B, width)``; kept in evaluation mode and without gradient.
    """
    teacher.eval().requires_grad_(False)

    def forward(model: nn.Module, batch: Batch) -> Outputs:
        out = objective.forward(model, batch)
        with torch.no_grad():
            image = batch["image"]
            return out | {"teacher_pooled": teacher.to(image.device)(image)}

    def loss(out: Outputs, batch: Batch) -> Tensor:
        away = 1 - F.cosine_similarity(out["pooled"], out["teacher_pooled"], dim=1)
        return objective.loss(out, batch) + weight * away.mean()

    return Objective(forward, loss, objective.chance)


def classification_objective(*, class_weights: Tensor | None = None) -> Objective:
    """Return cross-entropy on a classifier's logits; rows labelled -1 are left out.

    One output column is a binary task (the logit of class 1), several are classes in task order.
    A batch without any label gives zero, and a gradient of zero.

    Args:
        class_weights: ``(C,)``, one per class.
    """

    def forward(model: nn.Module, batch: Batch) -> Outputs:
        return {"logits": model(batch["image"])}

    def loss(out: Outputs, batch: Batch) -> Tensor:
        logits, label = out["logits"], batch["label"]
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

    return Objective(forward, loss)
