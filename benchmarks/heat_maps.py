"""Grad-CAM maps beside grad-cam's own loop, on the same networks, images and targets.

    python benchmarks/heat_maps.py [turns]

Two usual networks at 224 px, random weights, batches of 4, fp32, CPU time of one thread; both take
turns in one process, and the median of the ratios decides, since other work on the machine slows
each turn differently. The other loop is that of grad-cam's README. Both maps are compared at the
same scale, since grad-cam stretches each to 0–1; weights that hold a gradient afterwards are
counted.
"""

import statistics
import sys
import time
from typing import Any

import numpy as np
from measure import row

TURNS, BATCH, SIZE = 5, 4, 224


def networks() -> dict[str, Any]:
    """Return classifiers of three classes, in eval mode, with random weights."""
    import torch

    from bonelib import encoders, models

    made = {}
    for name in ("timm:resnet50", "packaged:efficientnet_lite0"):
        tower = encoders.image(name, weights="random", size=SIZE)
        model = models.Classifier(tower, outputs=3).eval()
        torch.manual_seed(0)
        torch.nn.init.normal_(model.head.weight, mean=0.02, std=0.1)
        made[name.partition(":")[2]] = model
    return made


def run(turns: int = TURNS) -> None:
    """Add a row for each network."""
    import torch
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    from bonelib import explain

    torch.set_num_threads(1)
    image = torch.randn(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    image[:, :, :90, :60] += 2
    columns = [number % 3 for number in range(BATCH)]
    for name, model in networks().items():
        layer = explain.target_layer(model, image)

        def ours(model: Any = model) -> np.ndarray:
            return explain.grad_cam(model, [{"image": image}], target=columns)

        def theirs(model: Any = model, layer: Any = layer) -> np.ndarray:
            with GradCAM(model=model, target_layers=[layer]) as cam:
                return cam(image, [ClassifierOutputTarget(c) for c in columns])

        maps = ours()
        left = sum(p.grad is not None for p in model.parameters())
        others = theirs()
        theirs_left = sum(p.grad is not None for p in model.parameters())
        same = min(
            np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(maps, others, strict=True)
            if a.any()
        )  # fmt: skip
        spent: dict[Any, list[float]] = {ours: [], theirs: []}
        for _ in range(turns):
            for call, times in spent.items():
                started = time.process_time()
                call()
                times.append((time.process_time() - started) / BATCH)
        ratio = statistics.median(b / a for a, b in zip(spent[ours], spent[theirs], strict=True))
        cost = statistics.median(spent[ours])
        row(
            f"heat maps: {name} at {SIZE} px / grad-cam's loop",
            cost, cost * ratio, unit="s", target="ratio >= 2, r >= .999",
            met=ratio >= 2 and same >= 0.999 and not left,
        )  # fmt: skip
        shown = int(maps.any(axis=(1, 2)).sum())
        print(
            f"  {1 / cost:.3g} images a CPU second; lowest correlation of {shown} maps {same:.6f}; "
            f"weights with a gradient {left}, after the other loop {theirs_left}"
        )


if __name__ == "__main__":
    run(*map(int, sys.argv[1:]))
