"""Contrastive learning stage by stage: each part of the image trunk learns from its own map alone.

After Forward-Forward Contrastive Learning (Ahamed et al. 2023, arXiv:2305.02927), whose first step
is local to layers. Its equations could not be read: the local loss here is SimCLR's between two
views, on the pooled map of each stage.
"""

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StageViews(nn.Module):
    """A projector for each stage of a timm trunk.

    Args:
        trunk: Its ``feature_info`` names the stages and their channels.
        dim: Width of what the losses see of each.

    Raises:
        ValueError: The trunk names no stages.
    """

    def __init__(self, trunk: nn.Module, *, dim: int = 128):
        super().__init__()
        known = vars(trunk).get("feature_info")
        if not known:
            raise ValueError(
                f"{type(trunk).__name__} names no stages, by which it could learn in parts. Choose "
                "a tower of timm, or a recipe without first='stages'."
            )
        self.names = [stage["module"] for stage in known]
        self.channels = [stage["num_chs"] for stage in known]
        self.projectors = nn.ModuleList(nn.Linear(wide, dim) for wide in self.channels)

    @contextlib.contextmanager
    def watching(self, trunk: nn.Module, *, apart: bool) -> Iterator[list[Tensor]]:
        """Collect unit features ``(B, dim)`` of each stage while the trunk runs.

        Args:
            apart: What a stage hands on carries no gradient, so that it learns from its own
                features alone.
        """
        seen: list[Tensor] = []
        handles = []
        for name, channels, projector in zip(
            self.names, self.channels, self.projectors, strict=True
        ):

            def note(_, __, out, channels=channels, projector=projector):
                seen.append(F.normalize(projector(_pooled(out, channels)), dim=-1))
                return out.detach() if apart else None

            handles.append(trunk.get_submodule(name).register_forward_hook(note))
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def _pooled(out: Tensor, channels: int) -> Tensor:
    """Return a map's mean over places, ``(B, C)``, of channels first or last, or of tokens."""
    first = out.ndim == 4 and out.shape[1] == channels
    places = tuple(range(2, out.ndim)) if first else tuple(range(1, out.ndim - 1))
    return torch.mean(out, dim=places)
