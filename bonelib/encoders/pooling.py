"""How the tokens of a vision transformer become one vector, where its own way is not wanted."""

from typing import Any

import torch
from torch import Tensor

from bonelib.encoders import huggingface

CLASS, TOKENS, PATCHES = POOLINGS = ("class token", "token mean", "patch mean")


def pooled(trunk: Any, image: Tensor, config: dict[str, Any] | None, how: str) -> Tensor:
    """Return one vector an image ``(B, D)`` of the last tokens of a trunk, normalised by it.

    Args:
        trunk: Of timm or transformers.
        config: What rebuilds it, which says whose it is.
        how: See `pool`.

    Raises:
        ValueError: It has no tokens, as convolutional networks and the towers of open_clip.
    """
    if config and "transformers" in config:
        found = huggingface.run(trunk, image).last_hidden_state
    elif hasattr(trunk, "forward_features"):
        found = trunk.forward_features(image)
    else:
        found = torch.empty(0)
    if found.ndim != 3:
        raise ValueError("it gives no tokens: only vision transformers of timm: and hf: do")
    before = getattr(trunk, "num_prefix_tokens", None)
    if before is None:  # of transformers: what is more than there are patches
        patch = trunk.config.patch_size
        before = found.shape[1] - (image.shape[-2] // patch) * (image.shape[-1] // patch)
    return pool(found, how, before)


def pool(found: Tensor, pooling: str, prefix: int) -> Tensor:
    """Return one vector an image ``(B, D)``.

    Args:
        found: ``(B, T, D)``.
        pooling: ``class token``, the first one; ``token mean``, of all, the class token and
            registers too; ``patch mean``, of those of patches alone.
        prefix: How many tokens stand before those of the patches.

    Raises:
        ValueError: A class token is asked of a network that has none.
    """
    if pooling == CLASS:
        if not prefix:
            raise ValueError("it has no class token")
        return found[:, 0]
    return found[:, prefix if pooling == PATCHES else 0 :].mean(dim=1)
