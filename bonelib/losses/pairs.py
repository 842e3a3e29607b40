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
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bonelib.losses.labels import attributes_loss
from bonelib.losses.objective import Batch, Objective, Outputs, gathered


# ---------------------------------------------------------------------- which pairs mean the same
def positives(keys: Tensor) -> Tensor:
    """Return which pairs mean the same: ``(B, K)`` attribute keys to ``(B, B)`` of bool.

    Two rows match when they say the same: all keys equal, where saying nothing (-1) equals saying
    nothing. A row of which no key is known matches itself alone.
    """
    said = keys >= 0
    same = (keys[:, None] == keys[None]).all(dim=-1) & said.any(dim=1)
    return same | torch.eye(len(keys), dtype=torch.bool, device=keys.device)


def targets(keys: Tensor, *, temperature: float = 0.0) -> Tensor:
    """Return how each row's probability should lie over the batch: ``(B, B)``, rows sum to one.

    Args:
        keys: ``(B, K)``, -1 where nothing is said.
        temperature: 0 spreads evenly over the rows that mean the same (UniCL). Above 0 the target
            is the softmax of the share of equal keys over this temperature, so that a partial
            match (same site, other sign) counts for part (MedCLIP, Wang et al. 2022,
            arXiv:2210.10163, section 3.3, with attribute keys in place of its label vectors). The
            share is of the keys that at least one of the two rows says.
    """
    if temperature == 0:
        match = positives(keys).double()
        return match / match.sum(dim=1, keepdim=True)
    said = keys >= 0
    equal = ((keys[:, None] == keys[None]) & said[:, None]).sum(dim=2)
    either = (said[:, None] | said[None]).sum(dim=2)
    share = equal.double() / either.clamp_min(1)
    share = share.fill_diagonal_(1.0)  # a row always means itself
    return (share / temperature).softmax(dim=1)


def floor(keys: Tensor, *, temperature: float = 0.0) -> float:
    """Return the lowest value ``contrastive_loss`` can reach on a batch with these keys, in nats.

    That is the entropy of the targets; with a uniform target over |P(i)| positives, the mean of
    ln |P(i)|, which is also what InfoNCE pays for equal meanings it treats as different: a model
    that knows every attribute can't do better.
    """
    target = targets(keys, temperature=temperature)
    return float(-(target * target.clamp_min(1e-300).log()).sum(dim=1).mean())


# ---------------------------------------------------------------------- losses
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
        keys: ``(B, K)`` integers, -1 where a caption says nothing.
        key_temperature: Above 0, partial matches of the keys count (see ``targets``).
    """
    logits = logit_scale * image_features @ text_features.T  # (B, B): rows images, columns captions
    if keys is None:
        own = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    # The match of two rows is symmetric, but a softmax over a row need not be one over a column:
    # the same rows of targets serve both directions, image to text and text to image.
    target = targets(keys, temperature=key_temperature).to(logits.dtype)
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
        views: Weight of SimCLR between the two views of each image; batches need ``second``. Where
            that is several crops, each is to find its own whole image, and the mean counts.
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
    if key_temperature and (loss == "sigmoid" or not use_keys):
        raise ValueError(
            f"loss={loss!r} with use_keys={use_keys} knows no partial matches: set "
            "key_temperature=0, which would change nothing."
        )
    if not (text or views or neighbours or attributes):
        raise ValueError("All weights are 0: nothing would be learnt.")

    def forward(model: nn.Module, batch: Batch, **more: Tensor) -> Outputs:
        more |= {"study": batch["study"]} if "study" in batch else {}
        if views:
            more["second"] = batch["second"]
        if neighbours:
            more["neighbour_tokens"] = batch["neighbour_tokens"]
        return model(batch["image"], batch["tokens"] if text or neighbours else None, **more)

    def pairs(out: Outputs, batch: Batch, name: str) -> Tensor:
        keys = batch.get("keys") if use_keys else None
        keys = None if keys is None else gathered(keys)
        both, scale = (gathered(out["image_features"]), gathered(out[name])), out["logit_scale"]
        if "captioned" in batch:  # after gathering: processes must hand over equally many rows
            told = gathered(batch["captioned"])
            both, keys = (both[0][told], both[1][told]), None if keys is None else keys[told]
            if not told.any():  # 0, with a gradient of 0 for everything the term would move
                moved = ("image_features", name, "logit_bias")
                return sum((out[k].sum() for k in moved if k in out), scale) * 0
        if loss == "sigmoid":
            return siglip_loss(*both, logit_scale=scale, logit_bias=out["logit_bias"], keys=keys)
        return contrastive_loss(
            *both, logit_scale=scale, keys=keys, key_temperature=key_temperature
        )

    def total(out: Outputs, batch: Batch) -> Tensor:
        terms = []
        if text:
            terms.append(text * pairs(out, batch, "text_features"))
        if neighbours:
            terms.append(neighbours * pairs(out, batch, "neighbour_features"))
        if views:
            first, second = gathered(out["view_features"]), gathered(out["second_features"])
            others = second.unbind(1) if second.ndim == 3 else [second]
            each = torch.stack([simclr_loss(first, other) for other in others])
            terms.append(views * each.mean())
        if attributes:
            logits = [v for name, v in out.items() if name.startswith("attribute_")]
            terms.append(attributes * attributes_loss(logits, batch["keys"]))
        return torch.stack(terms).sum()

    def chance(images: int, pairs: int) -> float:
        return (text + neighbours) * math.log(max(pairs, 1)) + views * math.log(2 * images - 1)

    known = (loss == "softmax" or not text) and not attributes
    return Objective(forward, total, chance if known else None)


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


def stages_objective() -> Objective:
    """Return the objective of a trunk that learns stage by stage: SimCLR's loss, the mean of all.

    Outputs are those of ``models.DualEncoder`` with ``stages`` of two views.
    """

    def loss(out: Outputs, batch: Batch) -> Tensor:
        terms = [
            simclr_loss(gathered(out[name]), gathered(out[f"second_{name}"]))
            for name in out
            if name.startswith("stage_")
        ]
        return torch.stack(terms).mean()

    return Objective(lambda model, batch: {}, loss)


def in_turn(
    first: Objective, then: Objective, early: Callable[[], bool], *, apart: bool = False
) -> Objective:
    """Return one objective that minimises ``first`` for as long as ``early()``, then ``then``.

    Both read what ``then`` puts out. The one whose turn it is not counts nothing, but is computed,
    so that every weight has a gradient in each step, as processes that train together expect.

    Args:
        early: Asked at each step; what it looks at must come back when a training is resumed.
        apart: The stages of the tower hand on no gradient for as long as ``first`` is minimised.
    """

    def forward(model: nn.Module, batch: Batch) -> Outputs:
        return then.forward(model, batch, **({"apart": early()} if apart else {}))

    def loss(out: Outputs, batch: Batch) -> Tensor:
        share = float(early())
        return share * first.loss(out, batch) + (1 - share) * then.loss(out, batch)

    return Objective(forward, loss)
