"""Heat maps of a model on images, by any of the methods."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from bonelib.explain.gradients import WEIGHING, weighed
from bonelib.explain.layers import Pass, as_map, last_maps, last_tokens, look, speaks_in_tokens
from bonelib.explain.occlusion import ablated, occluded
from bonelib.explain.passes import Column, ToMap, asked, check_columns, explaining, scored
from bonelib.explain.tokens import rolled_out

LAYERED = (*WEIGHING, "ablation")
METHODS = (*LAYERED, "occlusion", "rollout", "own")
FUSING = ("mean", "product")
WINDOW = 0.2  # side of what hides a part of the image, as a share of its side: about a lesion's
Target = Column | Sequence[int]


def targets(labels: np.ndarray, *, outputs: int) -> np.ndarray:
    """Return the column of the logits to explain for each image, for `heat_maps`.

    Of a single output it is that output: the logit of the positive class, or the value of a
    regression, whose map shows what makes it larger. Else it is the image's own class, and the
    predicted one (-1) where there is no label.

    Args:
        labels: ``(N,)`` of ``Task.encode``.
        outputs: Columns of the logits (``Task.outputs``).
    """
    return np.zeros(len(labels), np.int64) if outputs == 1 else np.asarray(labels, np.int64)


def grad_cam(
    model: nn.Module, loader: Any, *, target: Target = 0, layer: nn.Module | None = None
) -> np.ndarray:
    """Return Grad-CAM maps of one layer as `heat_maps`, which may all be blank."""
    return heat_maps(model, loader, target=target, layers=layer, blank=True)


def heat_maps(
    model: nn.Module,
    loader: Any,
    *,
    method: str = "grad_cam",
    target: Target = 0,
    layers: Any = None,
    out: int | None = None,
    fuse: str = "mean",
    window: float = WINDOW,
    blank: bool = False,
) -> np.ndarray:
    """Return raw heat maps, float32 ``(N, H, W)``, not negative and not rescaled per image.

    A map's own maximum says how strong the evidence is; stretching each map to 0–1, as packages do,
    makes noise look like evidence. A map may be zero everywhere: then the model found only evidence
    against the target. The model's mode, ``requires_grad`` and gradients stay as they were: frozen
    trunks, LoRA and probes are explained like any other.

    Args:
        model: Maps images to logits ``(B, C)``.
        loader: Batches in contract form, in order. Images may be larger than those a convolutional
            model was trained on: maps are finer, logits differ.
        method: One of ``METHODS``. By gradients at a layer: ``grad_cam`` (Selvaraju et al. 2017,
            arXiv:1610.02391), ``hires_cam`` (Draelos & Carin 2020, arXiv:2011.08891),
            ``grad_cam_plus`` (Chattopadhyay et al. 2018, arXiv:1710.11063), ``layer_cam`` (Jiang
            et al. 2021, IEEE TIP 30:5875). ``eigen_cam`` (Muhammad & Yeasin 2020,
            arXiv:2008.00299), ``ablation``, ``occlusion``, ``rollout``. ``own``: the model's, by
            its ``evidence(images)``, ``(B, C, h, w)``. Rollout and ``eigen_cam`` see no target.
        target: Column of the logits to explain, one for all images or one for each in the loader's
            order, -1 for the highest of the image; or a function of one row of the output.
        layers: What is weighed. ``None``: the last feature map; of a transformer, the last tokens
            whose patches the output depends on. A module or several: each puts out a map
            ``(B, C, H, W)`` or ``(B, H, W, C)``, or tokens ``(B, T, C)``; tokens that stand for no
            patch are left out. A number: the last map of each of so many resolutions.
        out: Height of the maps; by default that of the images.
        fuse: How maps of several layers become one. ``mean``: of each over its maximum in all
            images, so a map depends on the others'. ``product``: the geometric mean, which does
            not: what all layers see.
        window: For ``occlusion``: side of what hides, as a share of the image's.
        blank: Whether all maps may be zero everywhere.

    Raises:
        ValueError: Images and targets differ in number, a target is no column, the model has no
            such map, its logits are not finite, no gradient of the target reaches the layers, or
            all maps are zero everywhere.
    """
    for value, known in ((method, METHODS), (fuse, FUSING)):
        if value not in known:
            raise ValueError(f"Unknown {value!r}. Choose {', '.join(known)}.")
    parts, reached, seen, weighing, size = [], method not in WEIGHING, None, {}, (0, 0)
    with explaining(model):
        for image, columns in asked(model, loader, target):
            if seen is None:
                size, seen = (image.shape[-2], image.shape[-1]), look(model, image)
                check_columns(target, seen.logits)
                weighing = _resolved(method, model, seen, image, layers)
            if method in WEIGHING:
                maps, arrived = weighed(model, image, columns, weighing, method)
                reached |= arrived
            elif method == "ablation":
                maps = [ablated(model, image, columns, *layer) for layer in weighing.items()]
            elif method == "occlusion":
                maps = [occluded(model, image, columns, window=window)]
            elif method == "rollout":
                maps = [rolled_out(model, image, seen, *weighing)]
            else:
                maps = [_own(model, image, columns)]
            parts.append([part.float().cpu() for part in maps])
    if not reached:
        raise ValueError(
            f"No gradient of the target reaches {type(next(iter(weighing))).__name__}: every map "
            "would be blank. Pass another layer; where a head reads a class token alone, one "
            "before the last attention (norm1 of the last block)."
        )
    sides = size if out is None else (out, round(out * size[1] / size[0]))
    made = _fused([_resized(torch.cat(stage), sides) for stage in zip(*parts, strict=True)], fuse)
    if not blank and not made.any():
        raise ValueError(
            f"All {len(made)} maps by {method} are zero everywhere: there is evidence against the "
            "target alone. Explain another target, by an earlier layer or by another method."
        )
    return made.numpy()


def _resolved(
    method: str, model: nn.Module, seen: Pass, image: Tensor, layers: Any
) -> dict[nn.Module, ToMap]:
    """Return the layers to weigh, each with what makes a map of its output."""
    if method not in LAYERED:
        if layers is not None:
            raise ValueError(f"{method} weighs no layer. Leave layers out.")
        chosen = [last_tokens(model, seen, image)] if method == "rollout" else []
    elif layers is None and speaks_in_tokens(seen, image):
        chosen = [last_tokens(model, seen, image)]
    elif layers is None or isinstance(layers, int):
        chosen = last_maps(seen, image, 1 if layers is None else layers)
    else:
        chosen = layers if isinstance(layers, (list, tuple)) else [layers]
    return {layer: as_map(layer, seen, image) for layer in chosen}


def _own(model: Any, image: Tensor, columns: list[Column]) -> Tensor:
    """Return the map ``(B, h, w)`` that a model draws its own logits from."""
    if not hasattr(model, "evidence"):
        raise ValueError(
            f"{type(model).__name__} has no map of its own (evidence), as heads have that pool "
            "evidence over places (top_k, attention_pool). Choose another method."
        )
    rows = zip(model.evidence(image), scored(model(image), columns)[1], strict=True)
    found = torch.stack([c(row) if callable(c) else row[int(c)] for row, c in rows])
    if found.ndim != 3:
        raise ValueError("The target makes a number of the model's own map. Pass a column.")
    return found.relu()


def _resized(maps: Tensor, sides: tuple[int, int]) -> Tensor:
    """Resize maps ``(N, h, w)``."""
    smaller = maps.shape[1] > sides[0]  # then pixels are averaged and not picked
    return interpolate(maps[:, None], sides, mode="bilinear", antialias=smaller)[:, 0]


def _fused(stages: list[Tensor], fuse: str) -> Tensor:
    """Return one map of those of several layers; see `heat_maps`."""
    if len(stages) == 1:
        return stages[0]
    if fuse == "mean":
        return torch.stack([m / m.max().clamp_min(1e-30) for m in stages]).sum(0) / len(stages)
    return torch.stack(stages).double().prod(0).pow(1 / len(stages)).float()
