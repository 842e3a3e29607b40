"""Maps by the gradient of the target at a layer: one pass, whose graph begins there.

The formulas are grad-cam's; its own passes build the graph of the whole model and leave a gradient
on each weight.
"""

from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from bonelib.explain.passes import Column, ToMap, gradients, kept, scored

WEIGHING = {  # names with the classes of grad-cam
    "grad_cam": "GradCAM",
    "hires_cam": "HiResCAM",
    "grad_cam_plus": "GradCAMPlusPlus",
    "layer_cam": "LayerCAM",
    "eigen_cam": "EigenCAM",
}


def weighed(
    model: nn.Module, image: Tensor, columns: list[Column], layers: dict[nn.Module, ToMap], how: str
) -> tuple[list[Tensor], bool]:
    """Return a map ``(B, h, w)`` of each layer, not negative, and whether a gradient reached one.

    Args:
        layers: Each with what makes ``(B, C, h, w)`` of its output.
        how: A key of ``WEIGHING``.
    """
    import pytorch_grad_cam
    from pytorch_grad_cam.utils import svd_on_activations

    cam = getattr(pytorch_grad_cam, WEIGHING[how])
    # An instance would hang its hooks into the model.
    stand_in = SimpleNamespace(get_cam_weights=lambda *args: cam.get_cam_weights(None, *args))
    with torch.enable_grad(), kept(layers) as outputs:
        value, _ = scored(model(image), columns)
        activations = [outputs[layer] for layer in layers]
        slopes: list[Tensor | None] = [None] * len(layers)
        if how != "eigen_cam":
            slopes = gradients(value.sum(), activations)
    maps, reached = [], how == "eigen_cam"
    for reshape, activation, slope in zip(layers.values(), activations, slopes, strict=True):
        at = reshape(activation.detach()).float().cpu().numpy()
        by = np.zeros_like(at) if slope is None else reshape(slope).float().cpu().numpy()
        reached |= bool(by.any())
        if how == "eigen_cam":  # the sign of a component is arbitrary, and so are EigenCAM's maps
            found = svd_on_activations.get_2d_projection_with_sign_correction(at)
        else:
            found = cam.get_cam_image(stand_in, None, None, None, at, by, False)
        maps.append(torch.from_numpy(found).relu())
    return maps, reached
