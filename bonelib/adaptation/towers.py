"""Strategies that train the image tower by the labels: which weights move, how fast, how far.

All minimise ``objectives.objective``; what differs are the rates of the layers, which of them move,
and what holds them.
"""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from bonelib import models
from bonelib.adaptation.objectives import objective
from bonelib.adaptation.tunings import Training, Tuning

LAYER_DECAY = 0.75  # rate of a layer over that of the one above
HEAD_STEPS = 200  # of the head alone, as Englebert et al. have it
HEAD_SHARE = 0.25  # of a run so short that these would be most of it
LOW = 0.1  # rate of the tower afterwards, over the usual one
PULL = 10.0  # of L2-SP, in ``training.Options.to_start``
RANK, LORA_RATE = 8, 1e-3  # low-rank changes start at zero and bear a higher rate


@contextlib.contextmanager
def full(tuning: Tuning) -> Iterator[Training]:
    """Train every weight by ``objectives.objective``, with the options as they are.

    Batch norms keep their statistics (``training.Options.frozen_norm``): those of small batches of
    look-alikes are poor.
    """
    task = dict(ordinal=tuning.ordinal, imbalance=tuning.imbalance)
    with objective(tuning.model, tuning.labels, **task) as minimised:
        yield Training(tuning.model, minimised, tuning.options)


@contextlib.contextmanager
def last_block(tuning: Tuning) -> Iterator[Training]:
    """Train the head and the tower's last block; the others stay as they are, to the bit.

    Partial fine-tuning: Yosinski et al. 2014, arXiv:1411.1792; see ``models.last_block``.
    """
    trunk = tuning.model.image.trunk
    moving = models.last_block(trunk)
    for name, parameter in trunk.named_parameters():
        parameter.requires_grad_(name in moving)
    with full(tuning) as training:
        yield training
    trunk.requires_grad_(True)


def layer_rates(tuning: Tuning) -> AbstractContextManager[Training]:
    """Train every weight, each layer at three quarters of the rate of the one above it.

    Layer-wise learning rate decay: Clark et al. 2020 (ELECTRA), arXiv:2003.10555; for images Bao et
    al. 2022 (BEiT), arXiv:2106.08254. Layers are timm's.
    """
    return full(replace(tuning, options=replace(tuning.options, layer_decay=LAYER_DECAY)))


def head_then_all(tuning: Tuning) -> AbstractContextManager[Training]:
    """Train the head alone for 200 steps, then everything, the tower at a tenth of the usual rate.

    Englebert et al. 2024, arXiv:2405.08932, as their evaluation code does it. Departures: there
    head and tower go on at 1e-6, here the head keeps its schedule and the tower has a rate that
    moves it in a run of hundreds of steps; in a run of less than 800 the head has a quarter.
    """
    alone = min(HEAD_STEPS / max(1, tuning.steps), HEAD_SHARE)
    rate = LOW * tuning.options.backbone_lr
    return full(replace(tuning, options=replace(tuning.options, locked=alone, backbone_lr=rate)))


def l2_sp(tuning: Tuning) -> AbstractContextManager[Training]:
    """Train every weight, and pull the tower's back to where they began.

    L2-SP, Xuhong et al. 2018, arXiv:1802.01483. Departures: the penalty is decoupled from the
    gradient, as AdamW's decay is, and stands beside that decay.
    """
    return full(replace(tuning, options=replace(tuning.options, to_start=PULL)))


@contextlib.contextmanager
def dense_head(tuning: Tuning) -> Iterator[Training]:
    """Train a hidden layer and the outputs above a tower that stays frozen, on varied images.

    The head of Jagtap's ResNet-50: pooled features, 256 units of ReLU, dropout .5, the outputs
    (bone-tumor-classification-resnet50, ``Train Resnet50.py``); Adam without weight decay. The
    tower is in evaluation mode throughout, as there. What varies images, class weights, batches and
    the schedule are the plan's; the outputs' weights start at 0.
    """
    model, tower = tuning.model, tuning.model.image
    given = dict(outputs=model.head.out_features, seed=tuning.seed)
    model.head = models.DenseHead(tower.width, **given)
    tower.trunk.requires_grad_(False)

    def stay(tower: Any, _: object) -> None:
        tower.eval()  # a frozen trunk drops no paths either

    handle = tower.register_forward_pre_hook(stay)
    options = replace(tuning.options, weight_decay=0.0)
    with full(replace(tuning, options=options)) as training:
        yield training
    handle.remove()
    tower.trunk.requires_grad_(True)


@contextlib.contextmanager
def lora(tuning: Tuning) -> Iterator[Training]:
    """Train the head and low-rank changes of the tower's layers, and merge them at the end.

    Hu et al. 2021, arXiv:2106.09685, by peft; which layers: ``models.add_lora``.
    """
    models.add_lora(tuning.model, rank=RANK)
    options = replace(tuning.options, backbone_lr=LORA_RATE, layer_decay=1.0)
    with full(replace(tuning, options=options)) as training:
        yield training
    models.merge_lora(tuning.model)
    tuning.model.image.trunk.requires_grad_(True)
