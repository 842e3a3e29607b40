"""Finer maps of the same network: its last stages without their stride."""

import contextlib
from collections.abc import Iterator
from typing import Any

from bonelib.explain.layers import look

SIDE = 128  # pixels of the image that shows which layers make the map coarser


@contextlib.contextmanager
def finer(model: Any, *, stages: int = 1) -> Iterator[None]:
    """Let the last stages of a convolutional model run without stride, for explanation alone.

    Each doubles the rows and columns of the last map. Layers after it see every second place
    (dilation: Yu & Koltun 2016, arXiv:1511.07122), so in a network of convolutions alone every
    second place of the map holds what it held. Logits change: pooling sees the places between.

    Args:
        stages: How many of the last strides are taken away.

    Raises:
        ValueError: There are fewer, or a layer there is no convolution that pads evenly or as
            TensorFlow's (shortcuts that pool, patches without overlap).
    """
    import torch

    first = next((m for m in model.modules() if isinstance(m, torch.nn.Conv2d)), None)
    if first is None:
        raise ValueError("The model has no convolution whose stride could be taken away.")
    seen = look(model, torch.zeros(1, first.in_channels, SIDE, SIDE).to(first.weight))
    given = {m: shape[-1] for m, shape, _ in seen.entries if hasattr(m, "kernel_size")}
    strided = {m for m in given if m.stride not in (1, (1, 1))}
    sizes = sorted({given[m] for m in strided})[:stages]
    changed = [m for m in given if sizes and given[m] <= sizes[-1]]
    uneven = [f"{type(m).__name__} moves places" for m in changed if not _even(m)]
    if uneven or not 1 <= stages <= len(sizes):
        why = (*uneven, f"there are {len(sizes)}")[0]
        raise ValueError(f"The last {stages} strides can't be taken away: {why}.")
    before = [(m, m.stride, m.padding, m.dilation) for m in changed]
    try:
        for module, stride, padding, dilation in before:
            factor = 2 ** sum(size > given[module] for size in sizes)
            module.stride = (1, 1) if module in strided else stride
            module.padding = tuple(factor * p for p in padding)
            module.dilation = tuple(factor * d for d in dilation)
        yield
    finally:
        for module, stride, padding, dilation in before:
            module.stride, module.padding, module.dilation = stride, padding, dilation


def _even(module: Any) -> bool:
    """Whether a layer is a convolution with as much padding on each side as keeps places."""
    from torch import nn

    if not isinstance(module, nn.Conv2d) or isinstance(module.padding, str):
        return False
    sides = zip(module.kernel_size, module.padding, module.dilation, strict=True)
    same = type(module).__name__ == "Conv2dSame"  # of timm: it pads anew for each image
    return same or module.padding_mode == "zeros" and all(2 * p == d * (k - 1) for k, p, d in sides)
