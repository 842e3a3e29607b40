"""What training minimises: a step through the model, and a loss of what came out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Outputs = dict[str, Tensor]
Batch = dict[str, Any]  # tensors, and the ids of images


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
