"""Strategies that keep the place: classifiers that judge places, and outlines that teach them.

Outlines are those of training images. A strategy that uses them has learnt from more than labels:
its name says so, and it is compared with others of its kind.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bonelib import losses, models
from bonelib.adaptation.towers import full
from bonelib.adaptation.tunings import Training, Tuning

WEIGHT = 1.0  # of the outlines beside the labels
FOCUS = 0.5  # share of the training images that `lesion_crops` shows from near


def look_at_places(tuning: Tuning, pool: str) -> None:
    """Give a classifier a head that judges places, undecided.

    Raises:
        ValueError: The tower has no feature maps.
    """
    tower, side = tuning.model.image, tuning.model.image.preprocessing.size
    with torch.no_grad():
        image = torch.zeros(1, tower.preprocessing.channels, side, side)
        channels = [found.shape[1] for found in models.stage_maps(tower.eval(), image)]
    given = dict(outputs=tuning.model.head.out_features, pool=pool, seed=tuning.seed)
    tuning.model.head = models.PlaceHead(channels, **given)


@contextmanager
def _on_places(tuning: Tuning, pool: str) -> Iterator[Training]:
    """Train as `full` below a head that judges places.

    What only the tower's own pooling reads (the last norm of a ConvNeXt) stays still: processes
    that train together wait for a gradient of every weight that moves.
    """
    look_at_places(tuning, pool)
    model, taken = tuning.model, tuning.model.image.preprocessing
    logits = model(torch.zeros(1, taken.channels, taken.size, taken.size))
    moving = [weight for weight in model.parameters() if weight.requires_grad]
    slopes = torch.autograd.grad(logits.sum(), moving, allow_unused=True)
    idle = [weight for weight, slope in zip(moving, slopes, strict=True) if slope is None]
    for weight in idle:
        weight.requires_grad_(False)
    with full(tuning) as training:
        yield training
    for weight in idle:
        weight.requires_grad_(True)


def top_k(tuning: Tuning) -> AbstractContextManager[Training]:
    """Train every weight below a head that averages the highest logits of all places.

    A lesion of a hundredth of the image is a hundredth of a mean; here it is all that counts.
    """
    return _on_places(tuning, "top_k")


def attention_pool(tuning: Tuning) -> AbstractContextManager[Training]:
    """Train every weight below gated attention over the places.

    Multiple-instance learning, Ilse et al. 2018, arXiv:1802.04712, equation 9; places judge before
    they are pooled, which for a linear judgement is the same sum.
    """
    return _on_places(tuning, "attention_pool")


@contextmanager
def outlined(tuning: Tuning) -> Iterator[Training]:
    """Train as `top_k`, and teach the places of training images by their outlines.

    Batches hold ``mask`` beside ``label``.

    Raises:
        ValueError: A regression.
    """
    if tuning.regression:
        raise ValueError(
            "An outline shows where a class is, and a regression has none. Choose another strategy."
        )
    with top_k(tuning) as training:
        plain = training.objective

        def forward(model: Any, batch: losses.Batch) -> losses.Outputs:
            if "mask" not in batch:
                raise ValueError(
                    "The batches hold no outlines, from which outlined learns. Give the loader "
                    'more={"mask": ...}, bool (N, S, S), empty where there is none.'
                )
            logits, places = model(batch["image"], places=True)
            return {"logits": logits, "places": places}

        def loss(out: losses.Outputs, batch: losses.Batch) -> Tensor:
            taught = outline_loss(out["places"], batch["mask"], batch["label"])
            return plain.loss(out, batch) + WEIGHT * taught

        training.objective = losses.Objective(forward, loss, plain.chance)
        yield training


@contextmanager
def lesion_crops(tuning: Tuning) -> Iterator[Training]:
    """Train every weight on images of which half are seen twice as large, around their lesion.

    Images without an outline are seen around the place of another's; see ``images.augment``.
    Batches hold ``mask``.
    """
    with full(tuning) as training:
        training.augment = {"focus": FOCUS}
        yield training


def outline_loss(places: Tensor, mask: Tensor, label: Tensor) -> Tensor:
    r"""Return how much of the evidence for the label lies outside its outline.

    .. math:: L = -\log \frac{\sum_p m_p e^{z_p}}{\sum_p e^{z_p}}

    the mean over images with an outline, with the logits z of the image's class at each place p and
    the share m of the place that the outline covers, over its largest. Nothing is asked of images
    without one: the labels press the logits of normal images down wherever they are highest.

    Args:
        places: Logits ``(B, C, h, w)``; one channel is a binary task.
        mask: bool ``(B, H, W)``, empty where there is no outline.
        label: ``(B,)`` integers.
    """
    single = places.shape[1] == 1
    column = torch.zeros_like(label) if single else label.clamp_min(0)
    logits = places.float()[torch.arange(len(label)), column].flatten(1)
    height, width = places.shape[-2:]
    cover = F.adaptive_avg_pool2d(mask[:, None].float(), (height, width)).flatten(1)
    shown = (cover.amax(dim=1) > 0) & (label > 0 if single else label >= 0)
    within = (cover / cover.amax(dim=1, keepdim=True).clamp_min(1e-9)).clamp_min(1e-9).log()
    each = logits.logsumexp(dim=1) - (logits + within).logsumexp(dim=1)
    each, shown = losses.gathered(each * shown), losses.gathered(shown.float())
    return each.sum() / shown.sum().clamp_min(1)
