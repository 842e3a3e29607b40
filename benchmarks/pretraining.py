"""A step of the pretraining beside the bare step and open_clip's own loop; memory of GradCache.

    python benchmarks/pretraining.py            all of it
    python benchmarks/pretraining.py VARIANT    one process: CPU seconds a step, peak memory

Lite0 at 128 px with MiniLM, 64 pairs a step, fp32, CPU time of one thread. open_clip gets the same
two towers (exported by ``models.export_open_clip``), its text tower locked, and its own loader,
transform and loop; the other rows put one piece of ours after the other in the place of theirs.
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from measure import cpu, not_measured, row

BATCH, SIZE, STEPS = 64, 128, 12
VARIANTS = ("open_clip_train", "cached text", "+ channels_last", "+ loader")


def table(folder: Path, count: int) -> Any:
    """Write JPEGs of 512 x 640 with captions, as a prepared set has them."""
    from PIL import Image

    from bonelib import cohort

    rng, rows = np.random.default_rng(0), cohort.empty(count)
    sites = ("hand", "femur", "tibia", "knee", "foot", "humerus")
    rows["report"] = [
        f"{'Frontal' if i % 2 else 'Lateral'} radiograph of the {sites[i % 6]}, case {i % 40}."
        for i in range(count)
    ]
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (20, 16), np.uint8))
        path = folder / f"{i}.jpg"
        coarse.resize((512, 640), Image.Resampling.BICUBIC).save(path, quality=90)
        rows.loc[i, ["image_id", "path"]] = [str(i), str(path)]
    return rows


def model() -> Any:
    """Return the dual encoder that all variants train."""
    from bonelib import encoders, models

    image = encoders.image("packaged:efficientnet_lite0", size=SIZE)
    return models.DualEncoder(image, encoders.text("packaged:minilm"), dim=256)


def layout() -> None:
    """A training step of Lite0 with channels_last, as ``training.fit`` lays it out, and without."""
    import torch

    from bonelib import encoders, losses, models, training

    torch.set_num_threads(1)
    x, y = torch.randn(16, 3, 128, 128), torch.arange(16) % 2

    def step(model: torch.nn.Module, image: torch.Tensor) -> Callable[[], None]:
        objective = losses.classification_objective()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-4)

        def run() -> None:
            optimizer.zero_grad()
            objective(model, {"image": image, "label": y}).backward()
            optimizer.step()

        return run

    def fresh() -> models.Classifier:
        tower = encoders.image("packaged:efficientnet_lite0", weights="random")
        return models.Classifier(tower, outputs=1).train()

    laid = training.to_device({"image": x}, torch.device("cpu"))["image"]
    ours = cpu(step(fresh().to(memory_format=torch.channels_last), laid)) / 16 * 1000
    plain = fresh().to(memory_format=torch.contiguous_format)  # models are born in channels_last
    other = cpu(step(plain, x)) / 16 * 1000
    row(
        "training: Lite0 at 128 px, an image / contiguous layout",
        ours, other, unit="ms", target="ratio >= 1.2", met=other / ours >= 1.2,
    )  # fmt: skip


def ours_and_bare(pairs: int = 32) -> tuple[float, float]:
    """Return CPU seconds of our whole step and of the bare step, medians of interleaved pairs."""
    import torch

    from bonelib import images, losses, training

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = table(folder, 4 * BATCH)
        cache = images.cache(rows, size=SIZE, folder=folder / "cache")
        full, plain = model(), model()
        tokens = full.tokenize(rows["report"].tolist())
        plain.tokenize(rows["report"].tolist())
        pixels = full.image.preprocessing.pixels()
        loader = images.loader(
            cache, rows["image_id"], batch_size=BATCH, shuffle=True, drop_last=True,
            tokens=tokens, keys=np.arange(4 * BATCH)[:, None] % 40, augment={}, **pixels,
        )  # fmt: skip

        class OneBatch:
            """One batch an epoch, so that a row of ``fit`` is a step."""

            batches = itertools.chain.from_iterable(itertools.repeat(loader))

            def __len__(self) -> int:
                return 1

            def __iter__(self):
                yield next(self.batches)

        objective = losses.contrastive_objective()
        steps = training.fit(
            full, objective, OneBatch(),
            training.Options(epochs=pairs + 2, ema=0.99, precision="32-true"), accelerator="cpu",
        )  # fmt: skip
        batch = training.to_device(next(iter(loader)), torch.device("cpu"))
        optimizer = torch.optim.AdamW(training.parameter_groups(plain, training.Options(epochs=1)))
        plain.train()
        for module in plain.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()

        def bare() -> None:
            optimizer.zero_grad()
            objective(plain, batch).backward()
            optimizer.step()

        spent = {"ours": [], "bare": []}
        for _ in range(pairs + 2):
            for kind, step in (("ours", lambda: next(steps)), ("bare", bare)):
                started = time.process_time()
                step()
                spent[kind].append(time.process_time() - started)
        steps.close()
    return tuple(statistics.median(times[2:]) for times in spent.values())


def step_of(variant: str, folder: Path) -> float:
    """Return CPU seconds a step of open_clip's loop, with pieces of ours in place of its own."""
    import logging

    import open_clip
    import torch
    from open_clip_train.data import get_csv_dataset
    from open_clip_train.train import train_one_epoch

    from bonelib import images, models, training

    torch.set_num_threads(1)
    logging.disable()
    rows = table(folder, STEPS * BATCH)
    csv = folder / "pairs.csv"
    rows[["path", "report"]].to_csv(csv, index=False)
    ours = model()
    theirs_folder = models.export_open_clip(folder / "towers", ours)
    named = f"local-dir:{theirs_folder}"
    theirs, transform, _ = open_clip.create_model_and_transforms(named, output_dict=True)
    tokenizer = open_clip.get_tokenizer(named)
    args = SimpleNamespace(
        device="cpu", precision="fp32", distill=False, accum_freq=1, skip_scheduler=True,
        grad_clip_norm=1.0, horovod=False, rank=0, local_rank=0, world_size=1, batch_size=BATCH,
        log_every_n_steps=10**6, wandb=False, save_logs=False, train_data=str(csv),
        csv_img_key="path", csv_caption_key="report", csv_separator=",", distributed=False,
        workers=0, log_local=False,
    )  # fmt: skip
    data = {"train": get_csv_dataset(args, transform, is_train=True, tokenizer=tokenizer)}
    trained: Any = theirs
    if variant == "open_clip_train":
        for parameter in theirs.text.parameters():
            parameter.requires_grad_(False)
    else:
        tokens = ours.tokenize(rows["report"].tolist())
        texts = tokenizer(rows["report"].tolist()).tolist()
        place = {tuple(ids): row for row, ids in enumerate(texts)}
        original = data["train"].dataloader
        first = variant == "cached text"
        trained = ours.to(memory_format=torch.contiguous_format) if first else ours

        def batches():
            if variant == "+ loader":
                cache = images.cache(rows, size=SIZE, folder=folder / "cache")
                loader = images.loader(
                    cache, rows["image_id"], batch_size=BATCH, shuffle=True, drop_last=True,
                    tokens=tokens, augment={}, **ours.image.preprocessing.pixels(),
                )  # fmt: skip
                for batch in loader:
                    batch = training.to_device(batch, torch.device("cpu"))
                    yield batch["image"], batch["tokens"]
                return
            for image, text in original:
                row = [place[tuple(ids)] for ids in text.tolist()]
                laid = torch.contiguous_format if first else torch.channels_last
                yield image.contiguous(memory_format=laid), tokens[row]

        loader_like = _Batches(batches, original.num_batches, original.num_samples)
        data["train"].dataloader = loader_like
    trained.train()
    for module in trained.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True, m=module: m  # open_clip's loop calls train() itself
    optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=1e-4)
    loss = _Loss(open_clip.ClipLoss())
    started = time.process_time()
    train_one_epoch(_Named(trained), data, loss, 0, optimizer, None, None, None, args)
    return (time.process_time() - started) / STEPS


class _Batches:
    """What open_clip's loop asks of a data loader."""

    def __init__(self, batches: Any, num_batches: int, num_samples: int):
        self.batches, self.num_batches, self.num_samples = batches, num_batches, num_samples

    def __iter__(self):
        return iter(self.batches())


class _Named:
    """Hands on what open_clip's loss knows, by name; the rest is the model's."""

    def __init__(self, model: Any):
        self.module = model

    def __call__(self, images: Any, texts: Any) -> dict:
        known = ("image_features", "text_features", "logit_scale")
        out = self.module(images, texts)
        return {name: out[name] for name in known}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


class _Loss:
    def __init__(self, loss: Any):
        self.loss = loss

    def __call__(self, **given: Any) -> dict:
        return self.loss(**given)


def large_batch(batch: int, folder: Path, *, micro: int = 64) -> float:
    """Take two steps of a batch in parts of ``micro``; the peak memory is what is asked."""
    import torch

    from bonelib import images, losses, training

    torch.set_num_threads(1)
    rows = table(folder, batch)
    dual = model()
    cache = images.cache(rows, size=SIZE, folder=folder / "cache")
    loader = images.loader(
        cache, rows["image_id"], batch_size=batch, drop_last=True, shuffle=True,
        tokens=dual.tokenize(rows["report"].tolist()), augment={},
        **dual.image.preprocessing.pixels(),
    )  # fmt: skip
    objective = losses.contrastive_objective()
    options = training.Options(epochs=2, micro_batch=micro, precision="32-true")
    started = time.process_time()
    rows = list(training.fit(dual, objective, loader, options, accelerator="cpu"))
    assert np.isfinite(rows[-1]["loss"])
    return (time.process_time() - started) / 2


def peak() -> float:
    """Return the largest memory of this process in GB; ``ru_maxrss`` would keep the parent's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def alone(variant: str) -> dict[str, float]:
    """Run a variant in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, variant], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{variant}: {done.stderr[-1500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run() -> None:
    """Print all rows."""
    layout()
    ours, bare = ours_and_bare()
    row(
        "training: full step / forward, backward, optimiser alone",
        ours, bare, unit="s", target="<= 1.10 of bare", met=ours <= 1.10 * bare,
    )  # fmt: skip
    try:
        found = {variant: alone(variant) for variant in VARIANTS}
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1]
        not_measured("training: + loader / open_clip_train", f"{last}; pip install -e '.[bench]'")
        found = {}
    base = found.get("open_clip_train")
    for variant in VARIANTS[1:] if found else ():
        ratio = base["seconds"] / found[variant]["seconds"]
        memory = f"{found[variant]['peak']:.2f} of {base['peak']:.2f} GB"
        row(
            f"training: {variant}, peak {memory} / open_clip_train",
            found[variant]["seconds"], base["seconds"], unit="s",
            target="ratio >= 1.2" if variant == VARIANTS[-1] else "-",
            met=ratio >= 1.2 or variant != VARIANTS[-1],
        )  # fmt: skip
    small, large = alone("128"), alone("1024")
    row(
        "training: peak GB of a batch of 1,024 in parts of 64 / of 128",
        large["peak"], small["peak"], unit="GB",
        target="<= 1.3 of 128", met=large["peak"] <= 1.3 * small["peak"],
    )  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as place:
            kind = sys.argv[1]
            call = large_batch if kind.isdigit() else step_of
            seconds = call(int(kind) if kind.isdigit() else kind, Path(place))
        print(json.dumps({"seconds": seconds, "peak": peak()}))
    else:
        run()
