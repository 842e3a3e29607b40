"""Low-rank changes of the image tower, and a start of the text projection.

A model comes in and is changed in place. LoRA: Hu et al. 2021, arXiv:2106.09685, by peft.
"""

import numpy as np
import torch
from torch import Tensor, nn

RIDGE = 0.1  # share of the mean variance within meanings that `tell_apart` adds to all directions


def add_lora(model: nn.Module, *, rank: int = 8) -> list[str]:
    """Freeze the image trunk and add trainable low-rank changes to its layers, zero at first.

    The changes are multiplied by two (alpha is twice the rank).

    Returns:
        The names of the layers that were changed, those of ``lora_targets``.

    Raises:
        ValueError: The tower has LoRA already, or no layer can take it.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if has_lora(model):
        raise ValueError("The image tower has LoRA already. Call merge_lora first.")
    trunk = model.image.trunk
    targets = lora_targets(trunk)
    if not targets:
        raise ValueError(f"No layer of {model.image.name} can take LoRA. Choose another tower.")
    trunk.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
    inject_adapter_in_model(config, trunk)
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
    names = _adapted(model.image)
    for name in names:
        layer = model.image.get_submodule(name)
        layer.merge()
        model.image.set_submodule(name, layer.get_base_layer())
    return len(names)


def has_lora(model: nn.Module) -> bool:
    """Tell whether the image tower carries low-rank changes that are not merged."""
    return bool(_adapted(model.image))


def _adapted(tower: nn.Module) -> list[str]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [name for name, m in tower.named_modules() if isinstance(m, BaseTunerLayer)]


def tell_apart(model: nn.Module, tokens: Tensor, keys: Tensor, *, floor: float = 0.01) -> None:
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
        values, vectors = torch.linalg.eigh(within + RIDGE * spread * torch.eye(len(within)))
        whitened = vectors / values.sqrt() @ vectors.T
        values, vectors = torch.linalg.eigh(whitened @ (means.T @ means / len(means)) @ whitened)
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        gain = values.sqrt() / (values + floor * values[1])
        weight = ((vectors * gain).T @ whitened)[: projection.out_features]
        size = projection.weight.norm() / weight.norm()
        projection.weight[: len(weight)] = (weight * size).to(projection.weight)
        projection.weight[len(weight) :] = 0
