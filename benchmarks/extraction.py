"""Frozen features beside the bare encoder and timm's own way of running one over a folder.

    python benchmarks/extraction.py [images]

Lite0 at 224 px, fp32, CPU time of one thread; all take turns in one process, and the median of the
ratios decides, since other work on the machine slows each turn differently. The bare encoder has
its batch norms folded, as ours. The alternative is the loop of timm's ``inference.py`` with its
dataset, transform and loader (no worker processes, which would only hide CPU time), on the same
files, encoder, size and batches: as it is, and with its option for channels_last, which has a row
of its own. The second pass is what counts: an encoder after the first finds the decoded pixels. The
first one decodes them as well.
"""

import copy
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure import not_measured, row

COUNT, SIZE, ROUNDS = 120, 224, 5


def real(folder: Path, count: int) -> None:
    """Link radiographs of FracAtlas, as many as can be decoded, spread over the set."""
    from PIL import Image

    root = Path(os.environ.get("BONELIB_DATA", "")) / "fracatlas" / "images"
    files = sorted(root.rglob("*.jpg"))
    for path in np.random.default_rng(0).permutation(files):
        if len(list(folder.iterdir())) == count:
            return
        try:
            Image.open(path).load()
        except OSError:
            continue
        (folder / path.name).symlink_to(path)


def films(folder: Path, count: int) -> None:
    """Write JPEGs of 2,000 x 2,500: smooth with grain, 1 MB each, as radiographs have."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (32, 25), np.uint8))
        smooth = np.asarray(coarse.resize((2000, 2500), Image.Resampling.BICUBIC), float)
        grainy = np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(grainy).save(folder / f"{i:03}.jpg", quality=90)


def alternately(calls: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Return the CPU seconds of each call by turn; they take turns after a warm-up of each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(ROUNDS + 1):
        for name, call in calls.items():
            started = time.process_time()
            call()
            if turn:
                times[name].append(time.process_time() - started)
    return times


def ratio(times: dict[str, list[float]], name: str) -> float:
    """Return the median over turns of how many times longer a call took than ours beside it."""
    pairs = zip(times[name], times["ours"], strict=True)
    return statistics.median(other / own for other, own in pairs)


def measure(kind: str, folder: Path, store: Path) -> None:
    """Measure one folder of files."""
    import timm
    import torch

    from bonelib import cohort, encoders, features, images
    from bonelib.experiments.context import in_order

    paths = sorted(folder.iterdir())
    table = cohort.empty(len(paths))
    table[cohort.IMAGE_ID] = [path.stem for path in paths]
    table[cohort.PATH] = [str(path) for path in paths]
    tower = encoders.image("packaged:efficientnet_lite0", size=SIZE)
    tower.eval().to(memory_format=torch.channels_last)
    pixels = tower.preprocessing
    decode = dict(size=SIZE, fit="squash", folder=store / "images")

    started = time.process_time()
    cache = images.cache(table, **decode)
    loader = in_order(cache, cache.ids, tower)

    def ours() -> np.ndarray:
        return features.encode(tower, loader, rows=len(cache))

    found = ours()
    first = time.process_time() - started
    batches = [b["image"].contiguous(memory_format=torch.channels_last) for b in loader]

    with torch.no_grad():
        expected = np.concatenate([tower(batch).numpy() for batch in batches])
    apart = abs(found - expected).max() / abs(expected).max()

    pairs = encoders.foldable(tower, tower, batches[0])

    def bare() -> None:
        with torch.no_grad(), encoders.folded(pairs):
            for batch in batches:
                tower(batch)

    plain = copy.deepcopy(tower).to(memory_format=torch.contiguous_format)

    def loop(net: Any = plain, layout: Any = torch.contiguous_format) -> np.ndarray:
        dataset = timm.data.create_dataset("", root=str(folder))
        feed = timm.data.create_loader(
            dataset,
            input_size=(3, SIZE, SIZE),
            batch_size=loader.batch_size,
            use_prefetcher=False,
            num_workers=0,
            persistent_workers=False,
            interpolation="bicubic",
            mean=pixels.mean,
            std=pixels.std,
            crop_pct=1.0,
            crop_mode="squash",
            device=torch.device("cpu"),
        )
        with torch.inference_mode():
            parts = [net(x.contiguous(memory_format=layout)) for x, _ in feed]
        return torch.cat(parts).numpy()

    started = time.process_time()
    beside = loop()
    first_loop = time.process_time() - started
    same = np.corrcoef(found.ravel(), beside.ravel())[0, 1]
    calls = {"bare": bare, "ours": ours, "loop": loop}
    calls["channels_last"] = lambda: loop(tower, torch.channels_last)
    calls["unfolded"] = lambda: features.encode(tower, loader, rows=len(cache), fold=False)
    taken = alternately(calls)
    mean = {name: statistics.median(t) / len(paths) * 1000 for name, t in taken.items()}
    print(
        f"features: {kind}, first pass {first / len(paths) * 1000:.3g} ms an image beside "
        f"{first_loop / len(paths) * 1000:.3g} ms; correlation of the two {same:.4f}; folded batch "
        f"norms move a feature by {apart:.1e} of the largest",
        flush=True,
    )
    for name, what, least in (
        ("bare", "the bare forward", 0.95),
        ("loop", "timm's loader loop", 1.5),
        ("channels_last", "timm's with channels_last", 1.0),
        ("unfolded", "batch norms as they are", 1.0),
    ):
        row(
            f"features: {kind}, second pass / {what}",
            mean["ours"], mean[name], unit="ms",
            target=f">= {least} x", met=ratio(taken, name) >= least,
        )  # fmt: skip


def run(count: int = COUNT) -> None:
    """Measure real radiographs where they are, and drawn films of a usual size."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for kind, make in (("FracAtlas", real), ("films of 2,000 x 2,500", films)):
        with tempfile.TemporaryDirectory() as place:
            folder, store = Path(place) / "files", Path(place) / "store"
            folder.mkdir()
            make(folder, count)
            if any(folder.iterdir()):
                measure(kind, folder, store)
            else:
                not_measured(f"features: {kind}", "set BONELIB_DATA to the folder above fracatlas")
    torch.set_num_threads(threads)


if __name__ == "__main__":
    sys.exit(run(*map(int, sys.argv[1:])))
