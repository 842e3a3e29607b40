"""Where a model looks, and whether that is the lesion.

A model and images come in, heat maps ``(N, H, W)`` go out; maps and lesion masks come in, scores go
out, always beside what a map that knows nothing of the image would get.
Grad-CAM: Selvaraju et al. 2017, arXiv:1610.02391. Pointing game: Zhang et al. 2018, IJCV 126:1084.
Energy: Score-CAM, Wang et al. 2020, arXiv:1910.01279.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd


def target_layer(model: Any, image: Any) -> Any:
    """Return the last module whose output still has rows and columns: where Grad-CAM looks.

    Found by one forward pass, so it holds for any convolutional trunk and not for a list of names.

    Raises:
        ValueError: The features are no map but tokens (a transformer), or nothing is left of rows
            and columns (an image that is too small).
    """
    import torch

    height, width = image.shape[-2:]
    seen: list[Any] = []
    tokens = 0

    def hook(module: Any, _: Any, output: Any) -> None:
        nonlocal tokens
        if not isinstance(output, torch.Tensor):
            return
        if output.ndim == 4 and min(output.shape[2:]) > 1:
            rows, columns = output.shape[2:]
            # Maps keep the shape of the image; (B, H, W, C) and attention weights do not.
            if abs(rows * width - columns * height) <= max(height, width):
                seen.append(module)
        elif output.ndim == 3:
            tokens += 1

    modes = {module: module.training for module in model.modules()}
    handles = [module.register_forward_hook(hook) for module in modes]
    try:
        with torch.no_grad():
            model.eval()(image[:1])
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    # A transformer cuts its patches by a convolution and then speaks in tokens; pooling by
    # attention speaks in a few tokens after many maps.
    if not seen or tokens > len(seen):
        raise ValueError(
            f"No layer of this model puts out a feature map of a {height} × {width} image that its "
            "features are made of; Grad-CAM needs one. Pass a layer, or a convolutional model."
        )
    return seen[-1]


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
        layer: Module whose output is weighed; by default the last feature map.

    Raises:
        ValueError: No gradient of the target reaches the layer, so every map would be blank.
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
    parts, reached = [], False
    try:
        for batch in loader:
            image = batch["image"].to(device)
            layer = layer if layer is not None else target_layer(model, image)
            if callable(target):
                asked = [target] * len(image)
            else:
                done = sum(map(len, parts))
                columns = np.broadcast_to(target, max(done + len(image), np.size(target)))
                asked = [
                    ClassifierOutputTarget(int(c)) if c >= 0 else torch.max
                    for c in columns[done : done + len(image)]
                ]
            with Raw(model=model, target_layers=[layer]) as cam:
                parts.append(cam(input_tensor=image, targets=asked))
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, flag, grad in zip(model.parameters(), wanted, kept, strict=True):
            parameter.requires_grad_(flag)
            parameter.grad = grad
    if not reached:
        raise ValueError(
            f"No gradient of the target reaches {type(layer).__name__}: every map would be blank. "
            "Pass another layer."
        )
    return np.concatenate(parts).astype(np.float32)


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
