"""A dual encoder asked by words, as a model with a column for each class."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from bonelib.explain.passes import explaining


def contrast(dual: Any, prompts: Mapping[str, Sequence[str]]) -> nn.Module:
    """Return a module from images to cosines ``(B, C)`` with the prompts of each class, in order.

    A class is the mean of its prompts' unit features, at unit length (Radford et al. 2021,
    arXiv:2103.00020, section 3.1.4). Heat maps with ``target=lambda row: row[1] - row[0]`` show
    what speaks for the second class and against the first.

    Args:
        dual: A ``models.DualEncoder``.
        prompts: Sentences of each class.

    Raises:
        ValueError: There is no class, or one has no list of prompts.
    """
    bare = [name for name, said in prompts.items() if isinstance(said, str) or not len(said)]
    if bare or not prompts:
        raise ValueError(f"Each class needs a list of prompts; there is none of {bare or 'any'}.")
    with explaining(dual), torch.no_grad():
        means = [dual.encode_text(dual.tokenize([*said])).mean(dim=0) for said in prompts.values()]

    class Contrast(nn.Module):
        """Cosines of images with classes, unit vectors ``(C, dim)``."""

        def __init__(self) -> None:
            super().__init__()
            # Without the text tower: what has been read is no part of what sees.
            self.image, self.projection = dual.image, dual.image_projection
            self.register_buffer("classes", normalize(torch.stack(means), dim=-1))

        def forward(self, image: Tensor) -> Tensor:
            return normalize(self.projection(self.image(image)), dim=-1) @ self.classes.T

    return Contrast()
