"""What a training must remember to go on after a kill, and averages of weights."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


def trained(model: nn.Module) -> dict[str, Tensor]:
    """Return what training changes, by name: parameters with gradient and batch-norm statistics.

    Frozen towers are rebuilt from where they came from; a checkpoint does not repeat them.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    statistics = {
        f"{prefix}.{name}".lstrip("."): buffer
        for prefix, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for name, buffer in module.named_buffers(recurse=False)
    }
    return parameters | statistics


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy that later steps don't change."""
    return {name: value.detach().clone() for name, value in state.items()}


def put(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Write values back into the tensors of a model, in place.

    Raises:
        ValueError: The names or shapes are those of another architecture.
    """
    own = trained(model)
    differing = {
        "missing": own.keys() - state,
        "unknown": state.keys() - own,
        "of another shape": {k for k in own.keys() & state if own[k].shape != state[k].shape},
    }
    found = [f"{len(k)} tensors {what} (first {min(k)})" for what, k in differing.items() if k]
    if found:
        raise ValueError(
            f"The checkpoint is of another architecture: {', '.join(found)}. Delete it, or build "
            "the model it was made with."
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(state[name])


def toward(model: nn.Module, start: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return the weights ``share`` of the way from ``model`` back to ``start``, for ``model``.

    Weight averaging with the start (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903, equation 1,
    with share = 1 - alpha): between two ends of one fine-tuning the straight line is often better
    than both.

    Args:
        start: ``state_dict`` of the image tower the training began with.
        share: 0 keeps the model, 1 returns to the start.
    """
    own = model.state_dict()
    moved = {k: own[k].lerp(v.to(own[k]), share) for k, v in start.items() if v.is_floating_point()}
    return dict(own) | moved


class Average:
    """A running average of weights (EMA): ``decay`` of the old, the rest of the new, each step.

    The decay starts lower, at ``(1 + n) / (10 + n)`` after n steps, as in TensorFlow's
    ``ExponentialMovingAverage``, so that a short run is not averaged with where it began.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float):
        self.parameters, self.decay, self.steps = list(parameters), decay, 0
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights in."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and averages; a second call undoes the first."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            held = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(held)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages into the model for as long as the context lasts."""
        self.swap()
        try:
            yield
        finally:
            self.swap()
