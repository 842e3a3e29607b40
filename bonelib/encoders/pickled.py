"""Networks that were pickled whole, as torchxrayvision's releases are: only their tensors are read.

Unpickling a network makes objects of its classes, which can run any code. Here every class of a
network is replaced by one that does nothing but hold what the file says of it.
"""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

NETWORKS = ("torch.nn.", "torchvision.", "torchxrayvision.")  # whose classes are replaced


class _Held:
    """Stands for a module: holds its attributes, runs nothing."""


def tensors(path: Path) -> dict[str, Tensor] | None:
    """Return the ``state_dict`` of a pickled network; None if the file is none that can be read.

    Raises:
        pickle.UnpicklingError: It holds more than networks and tensors.
    """
    try:
        needed = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, pickle.UnpicklingError):  # older than torch 1.6, or no zip
        return None
    stands = [(type("Held", (_Held,), {}), name) for name in needed if name.startswith(NETWORKS)]
    with torch.serialization.safe_globals([*stands]):
        found = torch.load(path, map_location="cpu", weights_only=True)
    return dict(_state(found)) if isinstance(found, _Held) else None


def _state(module: Any, place: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a module and of those below it, named as ``state_dict`` names them."""
    parts = vars(module)
    for kind in ("_parameters", "_buffers"):
        for name, value in parts.get(kind, {}).items():
            if isinstance(value, Tensor):
                yield place + name, value.detach()
    for name, child in parts.get("_modules", {}).items():
        if isinstance(child, _Held):
            yield from _state(child, f"{place}{name}.")
