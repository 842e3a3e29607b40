"""Maps without gradients: how far the target falls when a part of the image or a channel is hidden.

Occlusion: Zeiler & Fergus 2014, arXiv:1311.2901, section 4.2. Ablation-CAM: Desai & Ramaswamy 2020,
WACV, without its division by the score, which turns maps over where a logit is negative.
"""

import itertools

import torch
from torch import Tensor, nn

from bonelib.explain.passes import Column, ToMap, scored

CHANNELS = 128  # ablated at a time


def occluded(model: nn.Module, image: Tensor, columns: list[Column], *, window: float) -> Tensor:
    """Return maps ``(B, H, W)``: how far the target falls, on average over what hides a pixel.

    A square of the image's own mean grey moves over it by half its side.

    Args:
        window: Side of the square as a share of the shorter side of the image.
    """
    sides = image.shape[-2:]
    side = min(max(1, round(window * min(sides))), *sides)
    rows, lefts = (
        sorted({*range(0, length - side, max(1, side // 2)), length - side}) for length in sides
    )
    before, columns = scored(model(image), columns)
    grey, fall = image.mean(dim=(2, 3), keepdim=True), torch.zeros_like(image[:, 0])
    times = torch.zeros_like(fall[0])
    for row, left in itertools.product(rows, lefts):
        here = (..., slice(row, row + side), slice(left, left + side))
        hidden = image.clone()
        hidden[here] = grey
        fall[here] += (before - scored(model(hidden), columns)[0]).to(fall)[:, None, None]
        times[here] += 1
    return (fall / times).relu()


def ablated(
    model: nn.Module, image: Tensor, columns: list[Column], layer: nn.Module, reshape: ToMap
) -> Tensor:
    """Return maps ``(B, h, w)``: channels, weighed by the fall of the target without each.

    The trunk below the layer runs once for ``CHANNELS`` channels: the layer hands on as many copies
    of its output, each without one.
    """
    hidden, whole, maps = torch.arange(0), torch.empty(0), []

    def hide(_: object, __: object, output: Tensor) -> Tensor:
        nonlocal whole
        if not len(hidden):
            whole = reshape(output)[0].clone()
            return output
        copies = output.repeat(len(hidden) // len(output), *[1] * (output.ndim - 1))
        reshape(copies)[torch.arange(len(hidden)), hidden] = 0  # a view of the copies
        return copies

    handle = layer.register_forward_hook(hide)
    try:
        for one, column in zip(image.split(1), columns, strict=True):
            hidden, falls = torch.arange(0), []
            before, own = scored(model(one), [column])
            for hidden in torch.arange(len(whole)).split(CHANNELS):
                falls.append(before - scored(model(one), own * len(hidden))[0])
            maps.append((torch.cat(falls).to(whole)[:, None, None] * whole).sum(dim=0).relu())
    finally:
        handle.remove()
    return torch.stack(maps)
