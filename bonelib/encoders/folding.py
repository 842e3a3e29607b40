"""Batch norms that keep their statistics, folded into the convolutions before them.

``w' = w g / sqrt(v + e)`` and ``b' = (b - m) g / sqrt(v + e) + beta``: the same function of pixels
and weights, with the same gradients, without the passes over memory that a batch norm takes.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

SAME = 1e-5  # of the largest output: by how much that of folded batch norms may differ

Pairs = dict[nn.BatchNorm2d, nn.Conv2d]  # each norm and the convolution that it reads


def foldable(module: nn.Module, forward: Callable[[Tensor], Tensor], image: Tensor) -> Pairs:
    """Find the batch norms that can be folded: on the CPU, and not in training mode.

    A norm can where a forward of ``image`` shows that it reads what one convolution wrote, and that
    both run once.

    Args:
        module: Whose norms are looked at.
        forward: Runs the module on images and gives one tensor; called without gradients.
        image: ``(B, C, H, W)``, on which outputs must agree to ``SAME``.

    Returns:
        Nothing where they don't, or where norms are folded already.
    """
    calls, pairs = Counter[nn.Module](), Pairs()

    def wrote(convolution: nn.Module, _: object, out: Tensor) -> None:
        calls[convolution] += 1
        out.__dict__["written"] = convolution, out._version  # which a change in place would raise

    def reads(norm: Any, given: tuple[Tensor, ...]) -> None:
        calls[norm] += 1
        convolution, version = getattr(given[0], "written", (None, 0))
        if convolution is not None and version == given[0]._version:
            pairs[norm] = convolution

    def seen() -> Tensor:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):  # dropout drops the same units
            return forward(image)

    free = [m for m in module.modules() if "forward" not in vars(m)]
    norms = [m for m in free if isinstance(m, nn.BatchNorm2d) and m.track_running_stats]
    norms = [norm for norm in norms if not norm.training]
    if not norms or image.device.type != "cpu":
        return {}
    convolutions = [m for m in free if isinstance(m, nn.Conv2d) and "weight" in m._parameters]
    hooks = [m.register_forward_hook(wrote) for m in convolutions]
    hooks += [m.register_forward_pre_hook(reads) for m in norms]
    try:
        expected = seen()
    finally:
        for hook in hooks:
            hook.remove()
    pairs = {n: c for n, c in pairs.items() if calls[n] == calls[c] == 1}
    if not pairs or expected.dtype != torch.float32:
        return {}
    with folded(pairs):
        apart = (seen() - expected).abs().max()
    return pairs if apart <= SAME * expected.abs().max() else {}


@contextlib.contextmanager
def folded(pairs: Pairs, *, learning: bool = False) -> Iterator[None]:
    """Let convolutions do what the norms after them do, which keep their activations.

    Args:
        learning: The weights change, or gradients are wanted: they are folded anew at each call.
    """
    for norm, convolution in pairs.items():
        vars(convolution)["forward"] = _whole(convolution, norm, learning=learning)
        after = [getattr(norm, name, nn.Identity()) for name in ("drop", "act")]  # of timm's norms
        vars(norm)["forward"] = nn.Sequential(*after).forward
    try:
        yield
    finally:
        for module in (*pairs, *pairs.values()):
            del vars(module)["forward"]


def _whole(
    convolution: nn.Conv2d, norm: nn.BatchNorm2d, *, learning: bool
) -> Callable[[Tensor], Tensor]:
    """Return the forward of a convolution with the weights of both."""

    def weights() -> tuple[Tensor, Tensor]:
        mean, var, scale, shift = norm.running_mean, norm.running_var, norm.weight, norm.bias
        assert mean is not None and var is not None, "norms without them are not hooked"
        rate = torch.rsqrt(var + norm.eps)
        scale = rate if scale is None else scale * rate
        bias = -mean if convolution.bias is None else convolution.bias - mean
        bias = bias * scale if shift is None else bias * scale + shift
        return convolution.weight * scale[:, None, None, None], bias

    with torch.no_grad():
        fixed = None if learning else weights()

    def forward(image: Tensor) -> Tensor:
        own = convolution._parameters  # its class may pad the image first, or do what it wants
        weight, bias = fixed or weights()
        vars(convolution)["_parameters"] = own | {"weight": weight, "bias": bias}
        try:
            return type(convolution).forward(convolution, image)
        finally:
            vars(convolution)["_parameters"] = own

    return forward
