"""``predict`` on 100 radiographs beside the bare decode and forward pass, in turn in one process.

    python benchmarks/predict.py [--images 100] [--turns 5] [--size 128] [--threads 2]

Bare is what can't be left out: each file decoded by the same decoder in a loop, the squares of a
batch normalised, and one forward pass a batch. Beside it a loop as one would write it, with PIL and
torchvision. The radiographs are FracAtlas's in ``BONELIB_DATA``, else drawn ones; the model is
Lite0 with a head of one output. Printed are medians and the median of the paired ratios; the exit
status is 1 where ``predict`` takes more than 1.3 of the bare wall time.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TARGET = 1.3


def radiographs(count: int, folder: Path) -> list[Path]:
    """Return real radiographs, else drawn ones."""
    from bonelib import phantom

    root = Path(os.environ.get("BONELIB_DATA", "nowhere")) / "fracatlas"
    files = sorted(root.rglob("*.jpg"))[:count]
    if len(files) < count:
        phantom.write(folder / "phantom", images=count)
        files = sorted((folder / "phantom").rglob("*.jp*g"))[:count]
    print(f"{len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.0f} MB, {files[0]}")
    return files


def bundle(folder: Path, size: int) -> Path:
    """Save a classifier whose head says something."""
    import torch

    from bonelib import cohort, encoders, models
    from bonelib.experiments.context import applied

    model = models.Classifier(encoders.image("packaged:efficientnet_lite0", size=size), outputs=1)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0), std=0.01)
    facts = applied(cohort.task("tumor"), fit="pad") | {"threshold": 0.5}
    return models.save_bundle(folder / "bundle", model, **facts)


def bare(model: Any, files: list[Path], batch: int) -> list[np.ndarray]:
    """Decode, normalise and predict, and nothing else."""
    import torch

    from bonelib import images

    pixels, found = model.module.image.preprocessing, []
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (pixels.mean, pixels.std))
    for start in range(0, len(files), batch):
        part = files[start : start + batch]
        squares = [images.pixels.decode(str(f), size=pixels.size, fit=model.fit)[0] for f in part]
        image = torch.from_numpy(np.stack([s for s in squares if s is not None]))[:, None] / 255
        image = ((image - mean) / std).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            found.append(model.module(image).numpy())
    return found


def usual(model: Any, files: list[Path], batch: int) -> list[np.ndarray]:
    """The loop that one would write: PIL, torchvision's resize, a batch at a time."""
    import torch
    from PIL import Image
    from torchvision.transforms import v2

    pixels, found = model.module.image.preprocessing, []
    steps = [v2.Resize((pixels.size, pixels.size)), v2.ToImage()]
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(pixels.mean, pixels.std)]
    transform = v2.Compose(steps)
    for start in range(0, len(files), batch):
        opened = [Image.open(f).convert("RGB") for f in files[start : start + batch]]
        with torch.no_grad():
            found.append(model.module(torch.stack([transform(one) for one in opened])).numpy())
    return found


def seconds(call: Callable[[], object]) -> np.ndarray:
    """Return the seconds of a call, of the wall and of the CPU."""
    started = time.perf_counter(), time.process_time()
    call()
    return np.array([time.perf_counter() - started[0], time.process_time() - started[1]])


def main() -> int:
    """Time them in turn and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("images", 100), ("turns", 5), ("size", 128), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    import torch

    import bonelib

    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        files = radiographs(given.images, Path(folder))
        made = bundle(Path(folder), given.size)
        loading = seconds(lambda: bonelib.load(made))
        model = bonelib.load(made)
        batch = max(1, min(64, 2**20 // given.size**2))
        calls = {
            "predict": lambda: model.predict(files),
            "bare": lambda: bare(model, files, batch),
            "PIL + torchvision": lambda: usual(model, files, batch),
        }
        for call in calls.values():
            call()
        times = [{name: seconds(call) for name, call in calls.items()} for _ in range(given.turns)]
        table = model.predict(files)
        logits = np.concatenate(bare(model, files, batch))[:, 0]
    apart = np.abs(table["p_tumor"].to_numpy() - 1 / (1 + np.exp(-logits.astype(float)))).max()
    ratio, cpu = np.median([turn["predict"] / turn["bare"] for turn in times], axis=0)
    for name in calls:
        wall, own = np.median([turn[name] for turn in times], axis=0)
        print(f"{name:<18} {wall:7.3f} s of the wall, {own:7.3f} s of the CPU")
    print(f"load (once)        {loading[0]:7.3f} s; largest difference of p {apart:.1e}")
    told = f"predict / bare {ratio:.2f} (CPU {cpu:.2f}), target <= {TARGET}"
    print(f"{told}: {'met' if ratio <= TARGET else 'MISSED'}")
    return 0 if ratio <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
