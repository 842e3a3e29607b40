"""A pass of images through a model, and what is asked of its output.

The model comes out as it went in: modes, ``requires_grad``, gradients and hooks.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Column = int | Callable[[Tensor], Tensor]  # of the logits, or what makes a number of a row
ToMap = Callable[[Tensor], Tensor]  # of what a layer puts out, to a map (B, C, h, w)

_COUNT = "There are {} targets for {} images. Pass one for each, or a single one for all."


@contextlib.contextmanager
def explaining(model: nn.Module) -> Iterator[None]:
    """Set a model to eval mode with no weight that asks for a gradient, and back afterwards.

    Then no graph is kept below the explained layer, and no weight can get a gradient.
    """
    modes = {module: module.training for module in model.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, flag in wanted.items():
            parameter.requires_grad_(flag)


@contextlib.contextmanager
def kept(layers: Iterable[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """Keep what layers put out, at their last use; the graph of gradients begins at the first.

    Above, the model works on a copy: what it changes in place (the ReLU after the last norm of a
    DenseNet) stays here as the layer put it out.
    """
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _: object, output: Tensor) -> Tensor:
        outputs[module] = output if output.requires_grad else output.detach().requires_grad_()
        return outputs[module].clone()

    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(keep).remove)
        yield outputs


def gradients(value: Tensor, outputs: list[Tensor]) -> list[Tensor | None]:
    """Return the gradient of a number with respect to outputs; ``None`` where it has none."""
    if not value.requires_grad:
        return [None] * len(outputs)
    return list(torch.autograd.grad(value, outputs, allow_unused=True))


def asked(model: nn.Module, loader: Any, target: Any) -> Iterator[tuple[Tensor, list[Column]]]:
    """Yield the images of each batch, on the model's device, with the target of each image.

    Raises:
        ValueError: Images and targets differ in number.
    """
    device = next((t.device for t in itertools.chain(model.parameters(), model.buffers())), None)
    listed, done = not callable(target) and np.ndim(target) > 0, 0
    for batch in loader:
        image = batch["image"].to(device)
        columns = list(target[done : done + len(image)]) if listed else [target] * len(image)
        done += len(image)
        if len(columns) < len(image):
            raise ValueError(_COUNT.format(len(target), f"{done} or more"))
        yield image, columns
    if not done:
        raise ValueError("The loader holds no image.")
    if listed and done < len(target):
        raise ValueError(_COUNT.format(len(target), done))


def check_columns(target: Any, logits: Any) -> None:
    """Refuse a model without logits, and targets that are no column of them."""
    if not isinstance(logits, tuple) or len(logits) != 2:
        raise ValueError(f"The model puts out {logits} for an image; logits (B, C) are needed.")
    outside = [] if callable(target) else sorted({*np.ravel(target).tolist()})
    outside = [c for c in outside if not (c == int(c) and -1 <= c < logits[-1])]
    if outside:
        raise ValueError(
            f"The targets {outside[:5]} are no columns: the model puts out {logits[-1]}. Pass 0 to "
            f"{logits[-1] - 1}, or -1 for the highest."
        )


def scored(logits: Tensor, columns: list[Column]) -> tuple[Tensor, list[Column]]:
    """Return the value ``(B,)`` of each image's target, and targets with the highest for -1.

    Raises:
        ValueError: Logits are not finite.
    """
    wrong = (~logits.isfinite().all(dim=1)).nonzero()[:, 0].tolist()
    if wrong:
        raise ValueError(
            f"The logits of {len(wrong)} of {len(logits)} images of a batch are not finite, first "
            f"row {wrong[0]}: look for NaN in these images and in the weights."
        )
    columns = [
        c if callable(c) or c >= 0 else int(row.argmax())
        for c, row in zip(columns, logits, strict=True)
    ]
    rows = zip(columns, logits, strict=True)
    return torch.stack([c(row).sum() if callable(c) else row[int(c)] for c, row in rows]), columns
