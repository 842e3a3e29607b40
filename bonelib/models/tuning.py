"""What of an image tower trains: its last block, low-rank changes; a start of the text projection.

A model comes in and is changed in place. LoRA: Hu et al. 2021, arXiv:2106.09685, by peft.
"""

import copy
import re
from collections.abc import Container
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bonelib.encoders import ImageEncoder
from bonelib.models.heads import DualEncoder, Model

RIDGE = 0.1  # share of the mean variance within meanings that `tell_apart` adds to all directions


def last_block(trunk: nn.Module) -> set[str]:
    """Return the names of the parameters of the last block of an image trunk.

    Blocks are timm's layers, as layer-wise rates have them. A norm that follows the last block is a
    layer of its own in some nets: layers are taken from the top until one has a weight matrix.

    Raises:
        ValueError: The trunk is a single layer.
    """
    from timm.optim import param_groups_layer_decay

    names = {id(p): name for name, p in trunk.named_parameters()}
    layers: dict[float, list[nn.Parameter]] = {}
    for group in param_groups_layer_decay(trunk, layer_decay=0.5):
        layers.setdefault(group["lr_scale"], []).extend(group["params"])
    chosen: set[str] = set()
    for scale in sorted(layers, reverse=True):  # the last layer's is 1, those below halve
        chosen |= {names[id(p)] for p in layers[scale]}
        if any(p.ndim > 1 for p in layers[scale]):
            break
    if len(chosen) == len(names):
        raise ValueError(
            "The image tower is a single layer, so its last block is all of it. Use full."
        )
    return chosen


def add_lora(model: Model, *, rank: int = 8) -> list[str]:
    """Freeze the image trunk and add trainable low-rank changes to its layers, zero at first.

    The changes are multiplied by two (alpha is twice the rank). What a layer is called does not say
    that a change of it is used and can be merged, so each is tried on a copy first. What fails is
    left out, and the tower's ``notes`` say so.

    Returns:
        The names of the layers that were changed.

    Raises:
        ValueError: The tower has LoRA already, or most of its layers can't take it.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if has_lora(model):
        raise ValueError("The image tower has LoRA already. Call merge_lora first.")
    faults: dict[str, str] = {}
    while True:  # what is left out may leave other layers as the tower's main ones
        targets = lora_targets(model.image.trunk, without=faults)
        found = _lora_faults(model.image, targets) if targets else {}
        faults |= found
        if not found:
            break
    said = [
        f"LoRA is not on {len(names)} layers of {model.image.name} (first {names[0]}): {why}."
        for why in dict.fromkeys(faults.values())
        if (names := [name for name, fault in faults.items() if fault == why])
    ]
    if len(targets) < len(faults) or not targets:
        why = " ".join(["", *said])
        raise ValueError(
            f"{len(targets) or 'No'} layers of {model.image.name} can take LoRA.{why} Choose "
            "another tower, or lora=0."
        )
    model.image.notes += said
    model.image.trunk.requires_grad_(False)
    inject_adapter_in_model(_lora(LoraConfig, rank, targets), model.image.trunk)
    return targets


def _lora(config: type, rank: int, targets: list[str]) -> Any:
    # by a pattern of whole names: a list would also match "stages.0.conv" by "conv"
    names = "|".join(re.escape(name) for name in targets)
    return config(r=rank, lora_alpha=2 * rank, target_modules=f"(?:{names})")


def lora_targets(trunk: nn.Module, *, without: Container[str] = ()) -> list[str]:
    """Return the layers that LoRA changes: linear ones and pointwise convolutions.

    Left out: the output layers of torch's own attention, which reads their weights past the layer
    so that a change would never be used. A net in which these are few has LoRA on every convolution
    that is not grouped, but for the first.

    Args:
        without: Names of layers that can't take it.
    """
    hidden = {
        id(inner)
        for module in trunk.modules()
        if isinstance(module, nn.MultiheadAttention)
        for inner in module.modules()
    }
    plain = [
        (name, m)
        for name, m in trunk.named_modules()
        if name and name not in without and id(m) not in hidden
        if isinstance(m, nn.Linear) or isinstance(m, nn.Conv2d) and m.groups == 1
    ]
    dense = [name for name, m in plain if getattr(m, "kernel_size", (1, 1)) == (1, 1)]
    # the few pointwise layers of a plain residual net are its shortcuts
    return dense if 2 * len(dense) >= len(plain) else [name for name, _ in plain[1:]]


def _lora_faults(tower: ImageEncoder, targets: list[str]) -> dict[str, str]:
    """Return why layers can't take LoRA, by name, from one forward and backward of a copy.

    Adapters are stirred. Each layer must put out the same after they are merged (layers that
    standardise their weights don't), and each adapter must have a gradient (attention that reads
    the weights of its layers, as a fused one does, never calls them).
    """
    from peft import LoraConfig, inject_adapter_in_model

    tried, faults, seen = copy.deepcopy(tower).float().cpu().eval(), {}, {}
    trunk, side = tried.trunk.requires_grad_(False), tower.preprocessing.size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in tried.parameters():  # gains that start at zero let no gradient through
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
        pixels = torch.randn(1, tower.preprocessing.channels, side, side)
        named = {trunk.get_submodule(name): name for name in targets}

        def see(module: nn.Module, given: tuple[Tensor, ...], by_name: dict[str, Tensor]) -> None:
            first = next(iter([*given, *by_name.values()]))
            seen[named[module]] = first.clone()  # a later layer may change it in place

        handles = [m.register_forward_pre_hook(see, with_kwargs=True) for m in named]
        with torch.no_grad():
            tried(pixels)
            for handle in handles:
                handle.remove()
            for name in targets:
                if name not in seen:
                    faults[name] = "the tower reads their weights and never calls them"
                elif not _merges(trunk.get_submodule(name), seen[name]):
                    faults[name] = "merging it would change what they put out"
        seen.clear()
        sound = [name for name in targets if name not in faults]
        if not sound:
            return faults
        inject_adapter_in_model(_lora(LoraConfig, 2, sound), trunk)
        _stir(trunk)
        with torch.enable_grad():
            tried(pixels).square().sum().backward()
        for name in sound:
            parts = (trunk.get_submodule(f"{name}.{part}") for part in ("lora_A", "lora_B"))
            if not all(map(_moves, parts)):
                faults[name] = "no gradient reaches it there"
    return faults


def _merges(layer: nn.Module, given: Tensor) -> bool:
    """Whether a stirred LoRA of one layer is the same merged."""
    from peft import LoraConfig, inject_adapter_in_model

    alone = nn.ModuleDict({"layer": copy.deepcopy(layer)})
    try:
        inject_adapter_in_model(_lora(LoraConfig, 2, ["layer"]), alone)
        _stir(alone)
        adapted = alone["layer"](given)
        _adapted(alone)["layer"].merge()
        apart = (alone["layer"](given) - adapted).abs().max()
    except (RuntimeError, ValueError, TypeError):  # peft can't rebuild it: other padding, say
        return False
    return bool(apart <= 1e-3 * adapted.abs().max())


def _stir(module: nn.Module) -> None:
    """Give low-rank changes something to say; they start at zero."""
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)


def _moves(part: nn.Module) -> bool:
    return all(p.grad is not None and bool(p.grad.any()) for p in part.parameters())


def merge_lora(model: Model) -> int:
    """Add the low-rank changes to the weights they change, and remove them; return how many.

    The outputs stay the same but for rounding.
    """
    adapted = _adapted(model.image)
    for name, layer in adapted.items():
        layer.merge()
        model.image.set_submodule(name, layer.get_base_layer())
    return len(adapted)


def has_lora(model: Model) -> bool:
    """Tell whether the image tower carries low-rank changes that are not merged."""
    return bool(_adapted(model.image))


def _adapted(tower: nn.Module) -> dict[str, Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: m for name, m in tower.named_modules() if isinstance(m, BaseTunerLayer)}


def tell_apart(model: DualEncoder, tokens: Tensor, keys: Tensor, *, floor: float = 0.01) -> None:
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
