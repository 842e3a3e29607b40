"""Levels of a frozen trunk: stages of a CNN or blocks of a transformer, as grids of patches."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = 4  # of a transformer: after each quarter of them, as in MVFA
FINEST = 8  # pixels a cell of a CNN's first level: what is below sees edges, and costs most


def names(trunk: nn.Module) -> list[tuple[str, int]]:
    """Name the modules of a timm trunk that are levels, with their channels.

    Raises:
        ValueError: The trunk names no stages or blocks.
    """
    known = list(vars(trunk).get("feature_info") or ())
    if not known:
        raise ValueError(
            f"{type(trunk).__name__} names no stages or blocks, whose patches could be compared. "
            "Choose a tower of timm."
        )
    if known[0]["reduction"] == known[-1]["reduction"]:
        known = known[:: len(known) // -BLOCKS][::-1]  # rounded up: at most as many
    else:
        known = [stage for stage in known if stage["reduction"] >= FINEST] or known[-1:]
    return [(stage["module"], stage["num_chs"]) for stage in known]


def as_grid(x: Tensor) -> Tensor:
    """Return a grid ``(B, h, w, C)`` as it is, and of tokens ``(B, T, C)`` those of patches as one.

    Of a square image; tokens that stand for no patch (a class, registers) come first.
    """
    side = int(x.shape[1] ** 0.5)
    return x if x.ndim == 4 else x[:, -side * side :].unflatten(1, (side, side))


@contextlib.contextmanager
def watching(trunk: nn.Module, see: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """Call ``see(level, x)`` while the trunk runs; what it returns goes on in place of ``x``.

    ``x`` has its channels last, ``(B, h, w, C)`` or ``(B, T, C)``, and so has what is returned.
    """

    def hook(level: int, channels: int) -> Callable[..., Tensor | None]:
        def adapt(_: nn.Module, __: object, out: Tensor) -> Tensor | None:
            first = out.ndim == 4 and out.shape[1] == channels
            found = see(level, out.movedim(1, -1) if first else out)
            return found.movedim(-1, 1) if first and found is not None else found

        return adapt

    handles = [
        trunk.get_submodule(name).register_forward_hook(hook(level, channels))
        for level, (name, channels) in enumerate(names(trunk))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def patch_features(image: nn.Module, loader: Iterable[dict[str, Any]]) -> Iterator[np.ndarray]:
    """Yield features of patches ``(B, h, w, C)`` of a frozen tower, as PatchCore makes them.

    Two middle levels, each the mean over 3 × 3 cells, the coarser enlarged and set beside the finer
    (Roth et al. 2022, arXiv:2106.08265, section 3.1; there levels 2 and 3 of a ResNet).
    """
    trunk, device = image.get_submodule("trunk"), next(image.parameters()).device
    count, seen = len(names(trunk)), list[Tensor]()
    image.eval()
    for batch in loader:
        seen.clear()
        with torch.no_grad(), watching(trunk, lambda _, x: seen.append(as_grid(x))):
            image(batch["image"].to(device))
        grids = [x.movedim(-1, 1).float() for x in seen[max(0, count - 3) : max(1, count - 1)]]
        grids = [F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) for x in grids]
        grids = [F.interpolate(x, grids[0].shape[-2:], mode="bilinear") for x in grids]
        yield torch.cat(grids, dim=1).movedim(1, -1).cpu().numpy()
