"""One optimiser step on a batch that may be larger than memory."""

from typing import Any

import torch
from torch import Tensor, nn

from bonelib.losses import Batch, Objective, Outputs
from bonelib.training.machine import random_state, set_random_state, to_device


def backward(
    fabric: Any, model: nn.Module, objective: Objective, batch: Batch, micro_batch: int
) -> tuple[Tensor, Outputs]:
    """Leave the gradients of the objective in ``model``; return the loss and the outputs, detached.

    With ``micro_batch`` below the size of the batch, gradients are cached (GradCache, Gao et al.
    2021, arXiv:2101.06983, section 3.2): outputs of all images without a graph, the loss and its
    gradient with respect to the outputs, then each part again with a graph, into which its share of
    that gradient is fed. The gradient is that of the whole batch, at the memory of one part and for
    one more forward pass. Contrastive losses need this: the mean of losses of small batches is
    another loss. It holds where images don't see each other inside the model: batch norms must be
    in evaluation mode.

    Raises:
        ValueError: A batch of studies is to be parted.
    """
    size = len(batch["image"])
    if not 0 < micro_batch < size:
        batch = to_device(batch, fabric.device)
        out = objective.forward(model, batch)
        loss = objective.loss(out, batch)
        fabric.backward(loss)
        return loss.detach(), {name: value.detach() for name, value in out.items()}

    if "study" in batch:
        raise ValueError(
            f"micro_batch={micro_batch} would part the images of a study, which are pooled. Take "
            "smaller batches of studies, or single images."
        )
    parts = [slice(start, start + micro_batch) for start in range(0, size, micro_batch)]
    states, collected = [], []
    for part in parts:
        states.append(random_state(fabric.device))
        with torch.no_grad():
            collected.append(objective.forward(model, _cut(batch, part, size, fabric.device)))
    # A scalar output (the logit scale) belongs to the model, not to an image: one leaf for all.
    leaves: dict[str, Tensor] = {
        name: (torch.cat([out[name] for out in collected]) if value.ndim else value)
        .detach()
        .requires_grad_()
        for name, value in collected[0].items()
    }
    rest = {name: value for name, value in batch.items() if name not in ("image", "second")}
    loss = objective.loss(leaves, to_device(rest, fabric.device))
    fabric.backward(loss)
    after = random_state(fabric.device)
    for number, (part, state) in enumerate(zip(parts, states, strict=True)):
        last = number == len(parts) - 1
        set_random_state(state, fabric.device)  # dropout must drop the same units again
        with fabric.no_backward_sync(model, enabled=not last):
            out = objective.forward(model, _cut(batch, part, size, fabric.device))
            fed = [
                (value * (g[part] if value.ndim else g)).sum()
                for name, value in out.items()
                if value.requires_grad
                and (g := leaves[name].grad) is not None
                and (value.ndim or last)
            ]
            fabric.backward(torch.stack(fed).sum())
    set_random_state(after, fabric.device)
    return loss.detach(), {name: leaf.detach() for name, leaf in leaves.items()}


def _cut(batch: Batch, part: slice, size: int, device: torch.device) -> Batch:
    whole = (value for value in batch.values())
    assert all(len(value) == size for value in whole), "each entry of a batch has a row an image"
    return to_device({name: value[part] for name, value in batch.items()}, device)
