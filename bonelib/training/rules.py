"""The rules a training follows: precision, learning rates, and how they rise and fall."""

import math
from typing import Any

import torch
from torch import nn


def precision(model: nn.Module, *, accelerator: str = "auto") -> str:
    """Choose the precision by a stated rule: bf16 where it is known to be faster, else fp32.

    A GPU with bfloat16: ``bf16-mixed``. A CPU with avx512_bf16: ``bf16-mixed`` for convolutional
    nets without depthwise convolutions (1.9–2.7 times as fast; with them half as fast; no gain for
    transformers at small sizes). Anything else: ``32-true``.
    """
    if accelerator != "cpu" and torch.cuda.is_available():  # not run here
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    plain = len(convolutions) > 2 and all(m.groups == 1 for m in convolutions)
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16-mixed" if plain and supported() else "32-true"


def parameter_groups(
    model: nn.Module, *, lr: float, backbone_lr: float, layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Group parameters for AdamW: heads and projections at ``lr``, the image trunk at a lower rate.

    The trunk's last layer has ``backbone_lr`` and each layer below ``layer_decay`` times the rate
    of the one above (timm's layer order); norms, biases and its position embeddings have no weight
    decay. A text tower with pretrained weights has ``backbone_lr``, one from scratch ``lr``.
    """
    from timm.optim import param_groups_layer_decay

    groups = []
    trunk = model.image.trunk
    undecayed = trunk.no_weight_decay() if hasattr(trunk, "no_weight_decay") else ()
    for group in param_groups_layer_decay(
        trunk, weight_decay, no_weight_decay_list=undecayed, layer_decay=layer_decay
    ):
        rate = backbone_lr * group["lr_scale"]
        groups.append(
            {"params": group["params"], "lr": rate, "weight_decay": group["weight_decay"]}
        )
    text = getattr(model, "text", None)
    trained = text is not None and text.weights != "random"
    slow = {id(p) for p in text.parameters()} if trained else set()
    taken = {id(p) for p in trunk.parameters()}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    for wide in (True, False):
        for rate, chosen in ((backbone_lr, True), (lr, False)):
            some = [p for p in rest if (p.ndim > 1) is wide and (id(p) in slow) is chosen]
            decay = weight_decay if wide else 0.0
            groups.append({"params": some, "lr": rate, "weight_decay": decay})
    return [group for group in groups if group["params"]]


def schedule(step: int, *, steps: int, warmup: float) -> float:
    """Return the factor on the learning rate: linear warm-up, then cosine to zero.

    The warm-up is a share of the run, so that it fits a run of any length.
    """
    start = max(1, int(warmup * steps))
    if step < start:
        return (step + 1) / start
    return 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, steps - start)))
