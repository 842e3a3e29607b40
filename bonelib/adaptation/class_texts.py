"""Strategies that train the image tower towards texts of the classes.

The classifier is a cosine head (``models.CosineHead``) whose class vectors are texts: rebuilt from
a dual encoder (FLYP), frozen from the start (Liver-VLM), or drawn at random, which is the control
for "the words help".
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bonelib import losses, models
from bonelib.adaptation.towers import full
from bonelib.adaptation.tunings import Training, Tuning


@contextlib.contextmanager
def flyp(tuning: Tuning) -> Iterator[Training]:
    """Go on with the contrastive loss of the pretraining, captions made of the class of each image.

    FLYP, Goyal et al. 2023, arXiv:2212.00638. Each image draws one sentence of its class at each
    step; the classifier is made of all sentences anew. Departures: images and captions of
    one class are positives of each other (in the paper they are negatives), and a text tower that
    the pretraining froze stays frozen, with its projection trained. Class weights don't reach this
    loss: balanced sampling does.

    Raises:
        ValueError: The labels are values, or the tower is not a dual encoder's.
    """
    dual, prompts = _texts(tuning)
    if dual.image is not tuning.model.image:
        raise ValueError(
            "FLYP goes on with a contrastive pretraining: the tower must be its own. Start from "
            "captions, or choose class_text_ft."
        )
    tokens = dual.tokenize([sentence for own in prompts.values() for sentence in own])
    count = torch.tensor([len(own) for own in prompts.values()])
    first = count.cumsum(0) - count
    for idle in filter(None, (dual.projector, dual.heads)):
        idle.requires_grad_(False)  # they have no part in this loss
    kind = "softmax" if dual.logit_bias is None else "sigmoid"
    contrastive = losses.contrastive_objective(loss=kind)

    def forward(model: nn.Module, batch: losses.Batch) -> losses.Outputs:
        own = batch["label"].cpu().clamp_min(0)  # rows without a label are left out of the loss
        drawn = (torch.rand(len(own)) * count[own]).long().clamp_max(count[own] - 1)
        return contrastive.forward(model, batch | {"tokens": tokens[first[own] + drawn]})

    def loss(out: losses.Outputs, batch: losses.Batch) -> Tensor:
        meaning = {"keys": batch["label"][:, None], "captioned": batch["label"] >= 0}
        return contrastive.loss(out, batch | meaning)

    def classifier() -> models.Classifier:
        shape = dict(outputs=tuning.model.head.out_features, dim=dual.dim)
        head = models.CosineHead(dual.image.width, projection=dual.projection, **shape)
        head.projection, head.logit_scale = dual.image_projection, dual.logit_scale
        head.classes = class_vectors(tuning, dual.encode_text)
        return models.Classifier(dual.image, outputs=head.out_features, head=head).eval()

    minimised = losses.Objective(forward, loss, contrastive.chance)
    yield Training(dual, minimised, tuning.options, made=classifier)


def class_text_ft(tuning: Tuning) -> AbstractContextManager[Training]:
    r"""Train the tower towards frozen vectors of the classes' words, by cross-entropy of cosines.

    .. math:: p_{ic} = \mathrm{softmax}_c\big(s \cos(P v_i, t_c)\big)

    Liver-VLM, Song et al. 2025, arXiv:2505.03350. The scale s is learnt, from 1/0.07 (the paper's
    is not known). The tower of a dual encoder keeps its projection P and the texts theirs; for any
    other tower P is a new linear layer to the text tower's own space.

    Raises:
        ValueError: The labels are values, or there are no texts.
    """
    dual, _ = _texts(tuning)
    if dual.image is tuning.model.image:
        vectors = class_vectors(tuning, dual.encode_text)
        return _towards(tuning, vectors, kept=(dual.projection, dual.image_projection))
    vectors = class_vectors(tuning, dual.text)
    return _towards(tuning, vectors)


def class_text_random(tuning: Tuning) -> AbstractContextManager[Training]:
    """Train as ``class_text_ft`` towards random unit vectors: the control that its paper lacks.

    What it reaches is due to the cosine head, what ``class_text_ft`` reaches beyond it to words.

    Raises:
        ValueError: As ``class_text_ft``, beside which it is run.
    """
    (dual, prompts), draw = _texts(tuning), torch.Generator().manual_seed(tuning.seed)
    own = dual.image is tuning.model.image
    width = dual.dim if own else dual.text.width
    vectors = F.normalize(torch.randn(len(prompts), width, generator=draw), dim=1)
    kept = (dual.projection, dual.image_projection) if own else None
    return _towards(tuning, vectors, kept=kept)


def _towards(
    tuning: Tuning, vectors: Tensor, *, kept: tuple[str, nn.Module] | None = None
) -> AbstractContextManager[Training]:
    """Train all weights with a cosine head of these class vectors.

    Args:
        kept: Kind of a projection that is there, and the projection; a new linear one without.
    """
    image, outputs = tuning.model.image, tuning.model.head.out_features
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(tuning.seed)
        shape = dict(outputs=outputs, dim=vectors.shape[1])
        head = models.CosineHead(image.width, projection=kept[0] if kept else "linear", **shape)
    if kept:
        head.projection = copy.deepcopy(kept[1])
    head.classes = vectors
    model = models.Classifier(image, outputs=outputs, head=head)
    return full(replace(tuning, model=model))


def class_vectors(tuning: Tuning, encode: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a unit vector a class ``(C, D)``: the mean of its sentences' unit features.

    Args:
        encode: Turns tokens into features: the text tower, alone or with its projection.
    """
    (dual, prompts), rows = _texts(tuning), []
    device = next(dual.parameters()).device
    with torch.no_grad():
        for sentences in prompts.values():
            tokens = dual.tokenize(list(sentences)).to(device)
            rows.append(F.normalize(encode(tokens), dim=-1).mean(dim=0))
    return F.normalize(torch.stack(rows), dim=-1)


def _texts(tuning: Tuning) -> tuple[models.DualEncoder, Mapping[str, Sequence[str]]]:
    """Return what reads texts, and the texts of each class, where both fit the task."""
    if tuning.regression:
        raise ValueError(
            "Texts stand for classes, and a regression has none. Choose another strategy, such as "
            "full or lp_ft."
        )
    if tuning.dual is None or not tuning.prompts:
        raise ValueError(
            "There are no class texts to train towards. Pass the dual encoder of a pretraining "
            "with captions, and prompts of each class."
        )
    expected = max(2, tuning.model.head.out_features)
    if len(tuning.prompts) != expected:
        raise ValueError(
            f"{len(tuning.prompts)} classes have texts, the task has {expected}. Give prompts of "
            "each class, in class order."
        )
    return tuning.dual, tuning.prompts
