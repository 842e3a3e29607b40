"""Which weights of a model train: all, none of a tower, or low-rank changes to it.

A model comes in and is changed in place. A locked tower keeps its weights and its batch statistics;
only projections and heads train (LiT: Zhai et al. 2022, arXiv:2111.07991). LoRA: Hu et al. 2021,
arXiv:2106.09685, by peft.
"""

from typing import Any

from torch import nn

SIDES = ("image", "text")


def lock(model: nn.Module, *, image: bool = False, text: bool = False) -> None:
    """Freeze the tower of a side, or both, and keep it in evaluation mode from now on.

    Raises:
        ValueError: The model has no tower on that side.
    """
    for side, chosen in (("image", image), ("text", text)):
        if chosen:
            tower = _tower(model, side)
            tower.requires_grad_(False)
            tower.locked = True
            tower.eval()


def add_lora(
    model: nn.Module,
    *,
    side: str = "image",
    rank: int = 8,
    alpha: float | None = None,
    targets: list[str] | None = None,
) -> list[str]:
    """Freeze a tower's trunk and add trainable low-rank changes to its layers, zero at first.

    Args:
        rank: Of the changes.
        alpha: The change is multiplied by alpha / rank; by default twice the rank.
        targets: Names of layers in the trunk; by default ``lora_targets``.

    Returns:
        The names of the layers that were changed.

    Raises:
        ValueError: No such tower, it is cached or has LoRA already, or no layer can take it.
    """
    from peft import LoraConfig, inject_adapter_in_model

    tower = _tower(model, side)
    if side == "text" and not hasattr(tower, "trunk"):
        raise ValueError("The text tower is frozen and cached. Build it with cached=False.")
    if _adapted(tower):
        raise ValueError(f"The {side} tower has LoRA already. Call merge_lora first.")
    targets = targets or lora_targets(tower.trunk)
    if not targets:
        raise ValueError(f"No layer of {tower.name} can take LoRA. Name some as targets.")
    tower.trunk.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha or 2 * rank, target_modules=targets)
    inject_adapter_in_model(config, tower.trunk)
    return targets


def lora_targets(trunk: nn.Module) -> list[str]:
    """Return the layers that LoRA changes: linear ones, or in a convolutional net the pointwise.

    Left out: the output layers of torch's own attention, which reads their weights past the layer
    so that a change would never be used. A net without linear and pointwise layers has LoRA on
    every convolution that is not grouped, but for the first.
    """
    hidden = {
        id(inner)
        for module in trunk.modules()
        if isinstance(module, nn.MultiheadAttention)
        for inner in module.modules()
    }
    named = [(name, m) for name, m in trunk.named_modules() if name and id(m) not in hidden]
    linear = [name for name, m in named if isinstance(m, nn.Linear)]
    if linear:
        return linear
    plain = [(name, m) for name, m in named if isinstance(m, nn.Conv2d) and m.groups == 1]
    pointwise = [name for name, m in plain if m.kernel_size == (1, 1)]
    # the few pointwise layers of a plain residual net are its shortcuts
    return pointwise if 2 * len(pointwise) >= len(plain) else [name for name, _ in plain[1:]]


def merge_lora(model: nn.Module) -> int:
    """Add the low-rank changes to the weights they change, and remove them; return how many.

    The outputs stay the same but for rounding.
    """
    merged = 0
    for side in SIDES:
        tower = getattr(model, side, None)
        for name in _adapted(tower) if tower is not None else []:
            layer = tower.get_submodule(name)
            layer.merge()
            tower.set_submodule(name, layer.get_base_layer())
            merged += 1
    return merged


def has_lora(model: nn.Module) -> bool:
    """Tell whether a tower of the model carries low-rank changes that are not merged."""
    return any(_adapted(getattr(model, side)) for side in SIDES if hasattr(model, side))


def _adapted(tower: nn.Module) -> list[str]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [name for name, m in tower.named_modules() if isinstance(m, BaseTunerLayer)]


def _tower(model: nn.Module, side: str) -> Any:
    if side not in SIDES or not hasattr(model, side):
        raise ValueError(f"{type(model).__name__} has no {side!r} tower to change.")
    return getattr(model, side)
