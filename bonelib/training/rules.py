"""The rules a training follows: its options, and learning rates that rise and fall."""

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Options:
    """How a training moves the weights.

    The defaults are a gentle recipe: pretraining must not destroy what it starts from.

    Attributes:
        lr: Rate of heads and projections; see ``parameter_groups`` for the others.
        warmup: Share of the run in which the rates rise.
        locked: Share of the run at whose beginning the image trunk stays still, so that new
            projections are no longer random when it starts to move (LP-FT, Kumar et al. 2022,
            arXiv:2202.10054; LiT, Zhai et al. 2022, arXiv:2111.07991, is a share of 1).
        to_start: Pull of the image trunk back to where it began, a decoupled weight decay towards
            the start (L2-SP, Li et al. 2018, arXiv:1802.01483) beside the one towards zero.
        ema: Decay of a running average of the weights, which is what validation sees and what is
            kept; 0 for none.
        frozen_norm: Keep batch norms in evaluation mode: small batches of look-alikes make poor
            statistics. Without, each process takes the statistics of its own images.
        clip: Largest norm of the gradient; 0 for none.
        micro_batch: Images that go through the model at a time; the loss still sees the whole batch
            (see ``step.backward``). 0 for all at once.
        precision: Fabric's name of it; ``auto`` follows ``machine.precision``.
    """

    epochs: int
    lr: float = 1e-3
    backbone_lr: float = 3e-5
    layer_decay: float = 0.75
    weight_decay: float = 0.05
    warmup: float = 0.1
    locked: float = 0.0
    to_start: float = 0.0
    ema: float = 0.0
    frozen_norm: bool = True
    clip: float = 1.0
    micro_batch: int = 0
    precision: str = "auto"

    def of_random_weights(self) -> "Options":
        """Return the options for a tower that has seen nothing: there is nothing to preserve.

        All its layers have the rate of the head from the first step on, and batch norms learn their
        statistics: those they begin with, 0 and 1, are of no image.
        """
        all_alike = dict(backbone_lr=self.lr, layer_decay=1.0, locked=0.0, to_start=0.0)
        return replace(self, frozen_norm=False, micro_batch=0, **all_alike)


def parameter_groups(model: nn.Module, options: Options) -> list[dict[str, Any]]:
    """Group parameters for AdamW: heads and projections at ``lr``, the image trunk at a lower rate.

    The trunk's last layer has ``backbone_lr`` and each layer below ``layer_decay`` times the rate
    of the one above (timm's layer order); norms, biases and its position embeddings have no weight
    decay. A text tower with pretrained weights has ``backbone_lr``, one from scratch ``lr``.
    Each group keeps its rate as ``peak`` and says whether it is of the ``trunk``.
    """
    from timm.optim import param_groups_layer_decay

    trunk, groups = model.get_submodule("image.trunk"), []

    def add(parameters: list[nn.Parameter], rate: float, decay: float, *, of_trunk: bool) -> None:
        if parameters:
            group = dict(params=parameters, lr=rate, peak=rate, weight_decay=decay, trunk=of_trunk)
            groups.append(group)

    undecayed = getattr(trunk, "no_weight_decay", tuple)()  # pyrefly: ignore[not-callable] timm's
    for group in param_groups_layer_decay(
        trunk, options.weight_decay, no_weight_decay_list=undecayed, layer_decay=options.layer_decay
    ):
        rate = options.backbone_lr * group["lr_scale"]
        add(group["params"], rate, group["weight_decay"], of_trunk=True)
    text = dict(model.named_children()).get("text")
    trained = text is not None and text.weights != "random"
    slow = {id(p) for p in text.parameters()} if text is not None and trained else set()
    taken = {id(p) for p in trunk.parameters()}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    for wide in (True, False):
        for rate, chosen in ((options.backbone_lr, True), (options.lr, False)):
            some = [p for p in rest if (p.ndim > 1) is wide and (id(p) in slow) is chosen]
            add(some, rate, options.weight_decay if wide else 0.0, of_trunk=False)
    return groups


def schedule(step: int, *, steps: int, warmup: float) -> float:
    """Return the factor on the learning rate: linear warm-up, then cosine to zero.

    The warm-up is a share of the run, so that it fits a run of any length.
    """
    start = max(1, int(warmup * steps))
    if step < start:
        return (step + 1) / start
    return 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, steps - start)))
