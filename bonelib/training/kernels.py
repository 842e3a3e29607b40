"""What a CPU does slowly in the way back through a convolutional net, done another way.

The same functions with the same gradients. Measured with torch 2.14 and its oneDNN on steps of
EfficientNet-Lite0 at 128 pixels (``python benchmarks/run.py step``).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

SLOW_KERNEL = 4  # smallest side of a kernel whose weight gradients the library computes slowly
IN_PLACE = "modified by an inplace operation"  # what autograd says then
STRIDED = 16  # largest side of an output, in pixels, for which a strided correlation is faster

Sides = tuple[int, ...]  # high and wide
Kept = Any  # what a pass leaves for the way back, under names of its own


class Kernels(TorchFunctionMode):
    """While it lasts, convolutions and activations that learn on a CPU take the faster way back.

    *Depthwise convolutions.* oneDNN has a kernel of its own for the weight gradients of 3 × 3;
    those of 5 × 5 and 7 × 7 go the way of grouped convolutions, each channel padded to sixteen. The
    gradient is the correlation of a channel's image with the gradient of its output: a forward pass
    with one group for each image and channel, 1.2 to 6 times as fast. Equal up to rounding.

    *ReLU6 in place.* Autograd copies what the activation reads, to know later where it let pass.
    Its output tells the same, and is there. Equal to the bit. As with ReLU, the way back raises
    RuntimeError if the output was changed in place meanwhile (``IN_PLACE`` in its words).

    *Padding with zeros.* PyTorch fills the whole with them, copies the image into it, and copies
    its gradient out again. Here the border is filled, and the gradient is looked at where it lies.
    Equal to the bit.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        other = _OTHER_WAYS.get(func)
        out = other(*args, **(kwargs or {})) if other else None
        return func(*args, **(kwargs or {})) if out is None else out


def _learns(values: Tensor) -> bool:
    return values.requires_grad and torch.is_grad_enabled() and values.device.type == "cpu"


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor | None:
    """Take the other way where the weight gradient is wanted, and slow as it is."""
    if not _learns(weight) or torch.is_autocast_enabled("cpu") or isinstance(padding, str):
        return None
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    depthwise = input.ndim == 4 and len(input) > 0 and groups == len(weight) == input.shape[1]
    large = min(weight.shape[2:]) >= SLOW_KERNEL and dilation == (1, 1)
    small = max(stride) == 1 or max(input.shape[2:]) // max(stride) <= STRIDED
    if depthwise and large and small:
        return _Depthwise.apply(input, weight, bias, stride, padding)
    return None


def _hardtanh(
    input: Tensor,
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,
) -> Tensor | None:
    ordered = isinstance(min_val, (int, float)) and isinstance(max_val, (int, float))
    if ordered and min_val < max_val and inplace and _learns(input) and not input.is_leaf:
        return _Clamped.apply(input, min_val, max_val)
    return None


def _pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor | None:
    if not isinstance(pad, (tuple, list)) or mode != "constant" or value:
        return None
    plain = input.ndim == len(pad) == 4 and min(pad) >= 0
    return _Padded.apply(input, tuple(pad)) if plain and _learns(input) else None


def _pair(value: Any) -> Sides:
    return tuple(value) if isinstance(value, (tuple, list)) else (int(value), int(value))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Kept,
        image: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sides,
        padding: Sides,
    ) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.how = stride, padding
        return F.conv2d(image, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Kept, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (image, weight) = grads, ctx.saved_tensors
        of_image, of_weight, of_bias = ctx.needs_input_grad[:3]
        toward = None
        if of_image:
            how = *ctx.how, (1, 1), False, (0, 0), len(weight), (True, False, False)
            toward = torch.ops.aten.convolution_backward(grad, image, weight, None, *how)[0]
        taps = _correlated(image, grad, weight, *ctx.how) if of_weight else None
        return toward, taps, grad.sum((0, 2, 3)) if of_bias else None, None, None


def _correlated(
    image: Tensor, grad: Tensor, weight: Tensor, stride: Sides, padding: Sides
) -> Tensor:
    """Correlate images ``(B, C, H, W)`` with the gradients of their outputs: ``(C, 1, k, l)``."""
    batch, channels = image.shape[:2]
    high, wide = weight.shape[2:]
    taps = F.conv2d(
        image.reshape(1, batch * channels, *image.shape[2:]),
        grad.reshape(batch * channels, 1, *grad.shape[2:]),
        padding=padding,
        dilation=stride,
        groups=batch * channels,
    )
    return taps[0, :, :high, :wide].reshape(batch, channels, high, wide).sum(0)[:, None]


class _Clamped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Kept, values: Tensor, low: float, high: float) -> Tensor:
        ctx.mark_dirty(values)
        values.clamp_(low, high)
        ctx.save_for_backward(values)
        ctx.ends = low, high
        return values

    @staticmethod
    def backward(ctx: Kept, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (values,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grads[0], values, *ctx.ends), None, None


class _Padded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Kept, image: Tensor, pad: tuple[int, int, int, int]) -> Tensor:
        left, right, top, bottom = pad
        batch, channels, high, wide = image.shape
        dense = image.is_contiguous(memory_format=torch.channels_last)
        form = torch.channels_last if dense else torch.contiguous_format
        size = batch, channels, high + top + bottom, wide + left + right
        out = torch.empty(size, dtype=image.dtype, device=image.device, memory_format=form)
        ctx.inside = ..., slice(top, top + high), slice(left, left + wide)
        for border in (out[..., :top, :], out[..., top + high :, :]):
            border.zero_()
        for border in (out[..., :left], out[..., left + wide :]):
            border.zero_()
        out[ctx.inside] = image
        return out

    @staticmethod
    def backward(ctx: Kept, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0][ctx.inside], None


_OTHER_WAYS: dict[Callable[..., object], Callable[..., Tensor | None]] = {
    F.conv2d: _conv2d,
    F.hardtanh: _hardtanh,
    F.pad: _pad,
}
