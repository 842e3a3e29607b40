"""Model soups: the mean of towers that were trained from one start."""

from collections.abc import Sequence
from pathlib import Path

import torch

from bonelib.models.bundles import Model, load_bundle, read_bundle


def soup(folders: Sequence[Path]) -> Model:
    """Return the first bundle's model with the mean of the image towers of all.

    The uniform soup of Wortsman et al. 2022, arXiv:2203.05482 (recalled). That all began at one
    point is for the caller to hold. Projections and heads, drawn by a seed, are the first one's.

    Raises:
        ValueError: Towers differ in architecture or size, or there is none.
    """
    shapes = {folder: read_bundle(folder)["architecture"]["image"] for folder in folders}
    if len({str(shape) for shape in shapes.values()}) != 1:
        told = {f"{s['name']} at {s['preprocessing']['size']} px" for s in shapes.values()}
        raise ValueError(
            f"Towers of one architecture and size can be averaged; found {len(folders)} towers: "
            f"{', '.join(sorted(told)) or 'none'}."
        )
    model = load_bundle(folders[0])
    states = [load_bundle(folder).image.state_dict() for folder in folders[1:]]
    with torch.no_grad():
        for name, value in model.image.state_dict().items():
            if value.is_floating_point() and states:
                every = torch.stack([value, *(state[name] for state in states)])
                value.copy_(every.double().mean(dim=0))
    return model
