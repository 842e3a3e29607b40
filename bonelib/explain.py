"""Where a model looks, and whether that is the lesion.

A model and images come in, heat maps ``(N, H, W)`` go out; maps and lesion masks come in, scores go
out, always beside what a map that knows nothing of the image would get.
Grad-CAM: Selvaraju et al. 2017, arXiv:1610.02391. Pointing game: Zhang et al. 2018, IJCV 126:1084.
Energy: Score-CAM, Wang et al. 2020, arXiv:1910.01279.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

_COUNT = "There are {} targets for {} images. Pass one for each, or a single one for all."
PREFIX = 16  # most tokens of a transformer that stand for no patch


@dataclass
class _Pass:
    """What one image leaves in a model: the outputs of its modules, in order, and of all of it."""

    outputs: list[tuple[Any, Any]]  # a module and the shape of what it puts out, or its type
    logits: tuple[int, ...]


def _look(model: Any, image: Any) -> _Pass:
    """Send one image through a model in eval mode, and leave the model as it was."""
    import torch

    outputs: list[tuple[Any, Any]] = []

    def hook(module: Any, _: Any, output: Any) -> None:
        tensor = isinstance(output, torch.Tensor)
        outputs.append((module, tuple(output.shape) if tensor else type(output).__name__))

    modes = {module: module.training for module in model.modules()}
    handles = [module.register_forward_hook(hook) for module in modes]
    try:
        with torch.no_grad():
            found = model.eval()(image[:1])
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return _Pass(outputs, tuple(found.shape))


def _fits(rows: int, columns: int, image: Any) -> bool:
    """Whether a map has the shape of the image; (B, H, W, C) and attention weights do not."""
    height, width = image.shape[-2:]
    return min(rows, columns) > 1 and abs(rows * width - columns * height) <= max(height, width)


def target_layer(model: Any, image: Any) -> Any:
    """Return the last module whose output still has rows and columns: where Grad-CAM looks.

    Found by one forward pass, so it holds for any convolutional trunk and not for a list of names.

    Raises:
        ValueError: The features are no map but tokens (a transformer), or nothing is left of rows
            and columns (an image that is too small).
    """
    return _last_map(_look(model, image), image)


def _last_map(seen: _Pass, image: Any) -> Any:
    shapes = [(module, shape) for module, shape in seen.outputs if isinstance(shape, tuple)]
    maps = [module for module, shape in shapes if len(shape) == 4 and _fits(*shape[2:], image)]
    tokens = sum(len(shape) == 3 for _, shape in shapes)
    # A transformer cuts its patches by a convolution and then speaks in tokens; pooling by
    # attention speaks in a few tokens after many maps.
    if not maps or tokens > len(maps):
        height, width = image.shape[-2:]
        raise ValueError(
            f"No layer of this model puts out a feature map of a {height} × {width} image that its "
            "features are made of; Grad-CAM needs one. Pass a layer, or a convolutional model."
        )
    return maps[-1]


def _as_map(layer: Any, seen: _Pass, image: Any) -> Callable[[Any], Any]:
    """Return what makes ``(B, C, H, W)`` of a layer's output: a map or tokens.

    A map may have its channels last. Tokens are rows and columns of the image after some that stand
    for all of it (a class token, registers). How many rows there are is read off the maps that the
    model made of the image before, its patches, or is the largest grid that leaves at most
    ``PREFIX`` tokens.

    Raises:
        ValueError: The output is none of these.
    """
    shape = next((shape for module, shape in seen.outputs[::-1] if module is layer), None)
    name = type(layer).__name__
    if isinstance(shape, tuple) and len(shape) == 4:
        if _fits(*shape[2:], image):
            return lambda output: output
        if _fits(*shape[1:3], image):
            return lambda output: output.movedim(-1, 1)
    elif isinstance(shape, tuple) and len(shape) == 3:
        height, width = image.shape[-2:]
        made = {s[2:] for _, s in seen.outputs if isinstance(s, tuple) and len(s) == 4}
        every = {(rows, round(rows * width / height)) for rows in range(2, shape[1])}
        for grids in (made, every):  # what the model cut itself comes before a guess
            near = [g for g in grids if _fits(*g, image) and 0 <= shape[1] - g[0] * g[1] <= PREFIX]
            if near:
                rows, columns = max(near, key=math.prod)
                return lambda output: (
                    output[:, -rows * columns :].unflatten(1, (rows, columns)).movedim(-1, 1)
                )
    if shape is None:
        reason = "the model does not call it"
    elif isinstance(shape, str):
        reason = f"it puts out a {shape}, no tensor"
    else:
        sides = " × ".join(map(str, image.shape[-2:]))
        reason = f"its output {shape} has no rows and columns of a {sides} image"
    raise ValueError(f"Grad-CAM can't look at {name}: {reason}. Pass another layer.")


def targets(labels: np.ndarray, *, outputs: int) -> np.ndarray:
    """Return the column of the logits to explain for each image, for `grad_cam`.

    Of a single output it is that output: the logit of the positive class, or the value of a
    regression, whose map shows what makes it larger. Else it is the image's own class, and the
    predicted one (-1) where there is no label.

    Args:
        labels: ``(N,)`` of ``Task.encode``.
        outputs: Columns of the logits (``Task.outputs``).
    """
    return np.zeros(len(labels), np.int64) if outputs == 1 else np.asarray(labels, np.int64)


def grad_cam(
    model: Any,
    loader: Any,
    *,
    target: int | Sequence[int] | Callable[[Any], Any] = 0,
    layer: Any = None,
) -> np.ndarray:
    """Return raw Grad-CAM maps, float32 ``(N, H, W)``, not negative and not rescaled per image.

    A map's own maximum says how strong the evidence is; stretching each map to 0–1, as the package
    does, makes noise look like evidence, so it is undone here. The model's mode, ``requires_grad``
    and gradients are left as they were.

    A map may be zero everywhere: then the model found only evidence against the target.

    Args:
        model: Maps images to logits ``(B, C)``.
        loader: Batches in contract form, in order.
        target: Column of the logits to explain, one for all images or one for each in the loader's
            order, -1 for the highest of the image; or a function of one row of the output.
        layer: Module whose output is weighed; by default the last feature map. Its output is a map
            ``(B, C, H, W)`` or ``(B, H, W, C)``, or tokens ``(B, T, C)``, as of a block of a
            transformer; tokens that stand for no patch are left out.

    Raises:
        ValueError: Images and targets differ in number, a target is no column, the layer's output
            has no rows and columns, or no gradient of the target reaches them, so that every map
            would be blank.
    """
    import torch
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    class Raw(GradCAM):
        """Grad-CAM without the package's stretch of every map to 0–1."""

        def aggregate_multi_layers(self, cam_per_target_layer: list[np.ndarray]) -> np.ndarray:
            return np.maximum(cam_per_target_layer[0][:, 0], 0)

        def compute_cam_per_layer(self, input_tensor: Any, targets: Any, eigen: bool) -> list:
            nonlocal reached
            size = input_tensor.shape[-2:]
            found = self.activations_and_grads
            if not found.gradients:
                return [np.zeros((len(input_tensor), 1, *size), np.float32)]
            reached |= bool(found.gradients[-1].any())
            # The last use of a module that is called more than once.
            weighted = self.get_cam_image(
                input_tensor,
                self.target_layers[0],
                targets,
                found.activations[-1].float().numpy(),
                found.gradients[-1].float().numpy(),
                eigen,
            )
            maps = torch.from_numpy(np.maximum(weighted, 0)).float()[:, None]
            grown = torch.nn.functional.interpolate(maps, size=size, mode="bilinear")
            return [grown.numpy()]

    modes = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    wanted = [p.requires_grad for p in model.parameters()]
    kept = [p.grad for p in model.parameters()]
    model.eval().requires_grad_(True)
    parts, reached, done, reshape = [], False, 0, None
    listed = not callable(target) and np.ndim(target) > 0
    try:
        for batch in loader:
            image = batch["image"].to(device)
            if reshape is None:
                seen = _look(model, image)
                layer = layer if layer is not None else _last_map(seen, image)
                reshape = _as_map(layer, seen, image)
                _check_columns(target, seen.logits)
            columns = target[done : done + len(image)] if listed else [target] * len(image)
            done += len(image)
            if len(columns) < len(image):
                raise ValueError(_COUNT.format(len(target), f"{done} or more"))
            asked = [
                c if callable(c) else ClassifierOutputTarget(int(c)) if c >= 0 else torch.max
                for c in columns
            ]
            # Not by "with": leaving it, the package swallows an IndexError, and a map is lost.
            cam = Raw(model=model, target_layers=[layer], reshape_transform=reshape)
            try:
                parts.append(cam(input_tensor=image, targets=asked))
            finally:
                cam.activations_and_grads.release()
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, flag, grad in zip(model.parameters(), wanted, kept, strict=True):
            parameter.requires_grad_(flag)
            parameter.grad = grad
    if listed and done < len(target):
        raise ValueError(_COUNT.format(len(target), done))
    if not reached:
        raise ValueError(
            f"No gradient of the target reaches {type(layer).__name__}: every map would be blank. "
            "Pass another layer; where a head reads a class token alone, one before the last "
            "attention (norm1 of the last block)."
        )
    return np.concatenate(parts).astype(np.float32)


def _check_columns(target: Any, logits: tuple[int, ...]) -> None:
    """Refuse targets that are no column of the logits, before a map is made."""
    outside = [] if callable(target) else sorted({*np.ravel(target).tolist()})
    outside = [c for c in outside if not (c == int(c) and -1 <= c < logits[-1])]
    if outside:
        raise ValueError(
            f"The targets {outside[:5]} are no columns: the model puts out {logits[-1]}. Pass 0 to "
            f"{logits[-1] - 1}, or -1 for the highest."
        )


def center_prior(size: int) -> np.ndarray:
    """Return a Gaussian ``(size, size)`` at the centre, sigma a quarter of the side.

    Radiographs are centred on what hurts, so this map, which sees no image, scores well above
    chance; a heat map must beat it.
    """
    axis = (np.arange(size) - (size - 1) / 2) / (size / 4)
    line = np.exp(-(axis**2) / 2)
    return np.outer(line, line).astype(np.float32)


def localisation(
    maps: np.ndarray, masks: np.ndarray, *, tolerance: float = 15 / 224
) -> pd.DataFrame:
    """Score heat maps against lesion masks, one row per image.

    Args:
        maps: ``(N, H, W)``, not negative.
        masks: ``(N, H, W)`` bool, each with at least one pixel.
        tolerance: Pointing game: how far from the lesion the peak may lie, as a share of the side
            (15 pixels at 224).

    Returns:
        ``pointing`` (1 if the peak hits), ``energy`` (share of the map inside the lesion; 0 for an
        empty map), ``average_precision`` over pixels, ``iou`` of the map's strongest pixels, as
        many as the lesion has, with the lesion, and ``area`` (share of the image the lesion takes:
        what a uniform map scores in energy). Where pixels tie for the peak or for the last places
        among the strongest, the expectation over random choices counts.

    Raises:
        ValueError: Shapes differ, a mask is empty, or a map has negative values or NaN.
    """
    from scipy.ndimage import distance_transform_edt
    from sklearn.metrics import average_precision_score

    maps, masks = np.asarray(maps, dtype=np.float64), np.asarray(masks).astype(bool)
    if maps.shape != masks.shape or maps.ndim != 3:
        raise ValueError(
            f"Maps {maps.shape} and masks {masks.shape}; expected both to be (N, H, W)."
        )
    empty = np.flatnonzero(~masks.reshape(len(masks), -1).any(axis=1))
    if len(empty):
        raise ValueError(f"{len(empty)} masks are empty, first row {empty[0]}. Leave them out.")
    wrong = np.flatnonzero(~(maps >= 0).reshape(len(maps), -1).all(axis=1))
    if len(wrong):
        raise ValueError(f"{len(wrong)} maps hold negative values or NaN, first row {wrong[0]}.")
    rows = []
    reach = tolerance * maps.shape[-1]
    for heat, mask in zip(maps, masks, strict=True):
        peaks = np.argwhere(heat == heat.max())
        hits = distance_transform_edt(~mask)[tuple(peaks.T)] <= reach
        count = int(mask.sum())
        last = np.partition(heat, -count, axis=None)[-count]  # the weakest of the strongest
        surely, tied = heat > last, heat == last
        share = (count - surely.sum()) / tied.sum()
        common = mask[surely].sum() + share * mask[tied].sum()
        rows.append(
            {
                "pointing": float(hits.mean()),
                "energy": float(heat[mask].sum() / heat.sum()) if heat.any() else 0.0,
                "average_precision": float(average_precision_score(mask.ravel(), heat.ravel())),
                "iou": float(common / (2 * count - common)),
                "area": float(mask.mean()),
            }
        )
    return pd.DataFrame(rows)
