"""Which weights of a model train, all, none of a tower, or low-rank changes, and where they start.

A model comes in and is changed in place. A locked tower keeps its weights and its batch statistics;
only projections and heads train (LiT: Zhai et al. 2022, arXiv:2111.07991). LoRA: Hu et al. 2021,
arXiv:2106.09685, by peft.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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


def tell_apart(
    model: nn.Module, tokens: Tensor, keys: Tensor, *, floor: float = 0.01, ridge: float = 0.1
) -> None:
    """Start the text projection where wordings of one meaning meet and other meanings part.

    Sentence embeddings of templated captions hardly differ where meanings do: in MiniLM, two grades
    in one wording are closer than two wordings of one grade (a test holds it).
    The projection starts as a linear discriminant of the training captions: directions in which
    wordings of a meaning differ shrink, those in which meanings differ come to equal length
    (Fisher 1936; whitened sentence embeddings: Su et al. 2021, arXiv:2103.15316). It trains on.

    Args:
        tokens: ``(N, T)`` of training captions.
        keys: ``(N, K)`` their attribute keys; equal rows are one meaning.
        floor: Share of the second largest variance among meanings (the largest is what all captions
            have in common) below which a direction counts as noise; smaller parts meanings more.
        ridge: Share of the mean variance within meanings that is added to all directions.

    Raises:
        ValueError: The text projection is not linear, or all captions mean the same.
    """
    projection = model.text_projection
    if not isinstance(projection, nn.Linear):
        raise ValueError("Only a linear text projection has a start. Use projection='linear'.")
    with torch.no_grad():
        keys = torch.as_tensor(keys).cpu()
        told = torch.cat([tokens.cpu(), keys], dim=1).numpy()
        place = torch.from_numpy(np.unique(told, axis=0, return_index=True)[1])
        embedded = nn.functional.normalize(model.text(tokens[place]), dim=1).double().cpu()
        meanings, meaning = torch.unique(keys[place], dim=0, return_inverse=True)
        if len(meanings) < 2:
            raise ValueError("All captions mean the same: there is nothing to tell apart.")
        means = torch.stack([embedded[meaning == k].mean(dim=0) for k in range(len(meanings))])
        apart = embedded - means[meaning]
        within = apart.T @ apart / len(apart)
        spread = within.trace() / len(within)
        if spread < 1e-8:  # one wording a meaning
            spread = embedded.var(dim=0).mean()
        values, vectors = torch.linalg.eigh(within + ridge * spread * torch.eye(len(within)))
        whitened = vectors / values.sqrt() @ vectors.T
        values, vectors = torch.linalg.eigh(whitened @ (means.T @ means / len(means)) @ whitened)
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        gain = values.sqrt() / (values + floor * values[1])
        weight = ((vectors * gain).T @ whitened)[: projection.out_features]
        size = projection.weight.norm() / weight.norm()
        projection.weight[: len(weight)] = (weight * size).to(projection.weight)
        projection.weight[len(weight) :] = 0
