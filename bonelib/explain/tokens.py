"""Attention rollout: what the tokens that a transformer's head reads have gathered from each patch.

Abnar & Zuidema 2020, arXiv:2005.00928, section 3: each block mixes tokens by its mean attention
over heads and, half and half, keeps them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from bonelib.explain.layers import Pass, tokens_of_patches


def attentions(model: nn.Module, image: Tensor) -> list[Tensor]:
    """Return the attention weights of each layer, mean over heads, ``(B, queries, keys)``.

    They are asked of torch's own attention, whatever calls it: timm, open_clip, transformers.
    """
    weights: list[Any] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = dict(kwargs or {})
            if func is functional.multi_head_attention_forward:
                found = func(*args, **kwargs | dict(need_weights=True, average_attn_weights=True))
                weights.append(found[1])
                return found
            if func is functional.scaled_dot_product_attention:
                names = ("query", "key", "value")[len(args) :]
                query, key, value, *more = *args, *(kwargs.pop(name) for name in names)
                one = torch.eye(key.shape[-2]).to(key).expand(*value.shape[:-2], -1, -1)
                weights.append(func(query, key, one, *more, **kwargs).mean(dim=1))
                return func(query, key, value, *more, **kwargs)
            return func(*args, **kwargs)

    with Watch():
        model(image)
    return weights


def rolled_out(model: nn.Module, image: Tensor, seen: Pass, layer: nn.Module) -> Tensor:
    """Return maps ``(B, rows, columns)``; they know no target.

    The head reads the class token, all patches, or what a pooling by attention asks for.

    Args:
        layer: Of ``layers.last_tokens``.

    Raises:
        ValueError: Not every token looks at every other (windows, merged tokens), or the model
            computes its attention otherwise than by torch's functions.
    """
    layers, count = tokens_of_patches(seen, image), dict(seen.outputs)[layer][1]
    reshape = layers[layer]
    weights = attentions(model, image)
    pools = weights and weights[-1].shape[-2] != count
    blocks = weights[:-1] if pools else weights
    if not blocks or any(w.shape != (len(image), count, count) for w in blocks):
        raise ValueError(
            f"Rollout needs blocks in which each of {count} tokens looks at all; seen were "
            f"{sorted({tuple(w.shape[1:]) for w in weights})}. Choose another method."
        )
    gathered = eye = torch.eye(count, device=image.device)
    for block in blocks:  # rows of attention sum to one, so these do as well
        gathered = (block.float() + eye) / 2 @ gathered
    if pools:
        read = weights[-1].float().mean(dim=1, keepdim=True) @ gathered
    elif layer is list(layers)[-1]:  # patches are read
        read = reshape(gathered).mean(dim=(2, 3))[:, None]
    else:
        read = gathered[:, :1]
    return reshape(read.transpose(1, 2))[:, 0]
