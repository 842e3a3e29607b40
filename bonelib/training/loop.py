"""The training loop: a generator that neither prints nor plots, and can be killed at any moment."""

import contextlib
import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from bonelib import encoders
from bonelib.losses import Batch, Objective, Outputs, spread
from bonelib.training import kernels, machine, rules
from bonelib.training.rules import Options
from bonelib.training.state import Average, copied, put, trained
from bonelib.training.step import backward

COLLAPSED = 0.01  # spread of unit features below which they are as good as one point
AT_CHANCE = 0.02  # nats by which a loss must stay below that of guessing to be more than it
# What a checkpoint keeps of the loop itself, beside weights, optimiser and random numbers.
PROGRESS = (
    *("epoch", "number", "step", "rows", "collected", "guessed", "spent"),
    *("best", "best_state"),
)


def fit(
    model: nn.Module,
    objective: Objective,
    loader: Any,
    options: Options,
    *,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    keep: str | None = None,
    resume: dict[str, Any] | None = None,
    checkpoint: Callable[[dict[str, Any]], None] | None = None,
    checkpoint_seconds: float = 60,
    progress: Callable[[int, int], None] | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
) -> Iterator[dict[str, Any]]:
    """Train ``model`` in place and yield one row after each epoch, the model ready to be used.

    Whoever stops early has the weights of that epoch, and those kept so far after ``close()``.

    Args:
        loader: Iterable of batches with a length; each iteration is the next epoch, and setting its
            ``epoch`` chooses which. Under several processes it gives each its part of the batch.
        validate: Called after each epoch with the model in evaluation mode; its numbers join the
            row. It must see validation data only.
        keep: Name of a validation number; the weights of the epoch where it was highest (lowest,
            with a minus before the name) are put back at the end.
        resume: What ``checkpoint`` was last given. The rows of the epochs behind it are yielded
            again, then training goes on, to the bit on a CPU.
        checkpoint: Called with all that is needed to go on, after each epoch and about every
            ``checkpoint_seconds``.
        progress: Called with (steps taken, steps in all) after each step.
        devices: Processes on this machine, as ``torchrun --nproc-per-node`` started them.

    Yields:
        ``epoch, loss, lr, seconds, cpu_seconds`` (of this process), ``images_per_s, waited`` (share
        of the time spent on batches), ``precision, alarm`` (why the training seems to fail, or
        ``""``), and what ``validate`` returned; ``kept`` marks the best epoch so far.

    Raises:
        FloatingPointError: The loss or its gradient is not finite; the message says where.
        ValueError: Pairs come one at a time, ``keep`` names nothing that ``validate`` returned, the
            checkpoint is of another architecture or recipe, or batch norms would take statistics
            of parts of a batch.
    """
    if keep is not None and validate is None:
        raise ValueError(f"keep={keep!r} needs a validate function that returns this number.")
    if options.micro_batch and not options.frozen_norm and any(map(_is_norm, model.modules())):
        raise ValueError(
            f"micro_batch={options.micro_batch} with frozen_norm=False: batch norms would see "
            "parts of the batch and move with each, which is another model. Freeze them, or take "
            "whole batches."
        )
    if options.precision == "auto":
        chosen = machine.precision(model, accelerator=accelerator)
        options = replace(options, precision=chosen)
    fabric = machine.fabric(options.precision, accelerator, devices, nodes)
    saving = dict(checkpoint=checkpoint, seconds=checkpoint_seconds)
    told = dict(batches=len(loader), progress=progress)
    loop = _Loop(fabric, model, options, **told, **saving)
    if resume is not None:
        loop.restore(resume)
        yield from [dict(row) for row in loop.rows]
    try:
        for epoch in range(loop.epoch, options.epochs + 1):
            row = loop.run_epoch(epoch, loader, objective)
            with loop.averaged():
                if validate is not None:
                    row |= validate(model)
                loop.judge(row, keep)
                loop.rows.append(row)
                loop.epoch, loop.number = epoch + 1, 0
            loop.save()
            with loop.averaged():
                yield dict(row)
    finally:
        loop.close()


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


class _Loop:
    """What lives through the epochs of one ``fit``."""

    def __init__(
        self,
        fabric: Any,
        model: nn.Module,
        options: Options,
        *,
        batches: int,
        progress: Callable[[int, int], None] | None,
        checkpoint: Callable[[dict[str, Any]], None] | None,
        seconds: float,
    ):
        self.fabric, self.model, self.options, self.batches = fabric, model, options, batches
        self.checkpoint, self.seconds, self.saved = checkpoint, seconds, time.monotonic()
        self.steps, self.progress = options.epochs * batches, progress
        if any(isinstance(m, nn.Conv2d) for m in model.modules()):
            model.to(memory_format=torch.channels_last)
        groups = rules.parameter_groups(model, options)
        optimizer = torch.optim.AdamW(
            groups, fused=self._fused([p for g in groups for p in g["params"]])
        )
        self.wrapped, self.optimizer = fabric.setup(model, optimizer)
        moving = [p for p in model.parameters() if p.requires_grad]
        self.average = Average(moving, options.ema) if options.ema else None
        pulled = [g["params"] if options.to_start and g["trunk"] else [] for g in self.groups]
        self.start = [[p.detach().clone() for p in parameters] for parameters in pulled]
        self.epoch, self.number, self.step = 1, 0, 0
        self.rows: list[dict[str, Any]] = []
        self.collected: list[Tensor] = []  # losses of the epoch under way
        self.guessed: list[float] = []  # and those of guessing
        self.spent: dict[str, float] = {}
        self.best, self.best_state = -math.inf, dict[str, Tensor]()
        self.pairs: encoders.Pairs | None = None  # norms that are folded while a step is taken
        self.norms = [m for m in model.modules() if _is_norm(m)]
        self.faster = self.fabric.device.type == "cpu"  # ways back

    @property
    def groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    # ------------------------------------------------------------------ one epoch
    def run_epoch(self, epoch: int, loader: Any, objective: Objective) -> dict[str, Any]:
        self.model.train()
        if hasattr(loader, "epoch"):
            loader.epoch = epoch - 1
        if not self.number:
            self.collected, self.guessed = [], []
            self.spent = dict.fromkeys(("seconds", "cpu_seconds", "waited", "images"), 0.0)
        self.clock = time.perf_counter(), time.process_time()
        batches = iter(loader)
        if self.number:  # taken up in mid-epoch: what was seen is passed over, its draws undone
            for _ in range(self.number):
                next(batches)
            machine.set_random_state(self.random, self.fabric.device)
        out: Outputs = {}
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.spent["waited"] += time.perf_counter() - asked
            if batch is None:
                break
            out = self._take_step(batch, epoch, objective)
            if self.progress is not None:
                self.progress(self.step, self.steps)
            self._count_time()
            # After the last batch the epoch's own checkpoint follows at once.
            if self.number < self.batches and time.monotonic() - self.saved >= self.seconds:
                self.save()
        self._count_time()
        seconds = max(self.spent["seconds"], 1e-9)
        values = self.fabric.all_reduce(torch.stack(self.collected), reduce_op="mean")
        self.model.eval()
        return {
            "epoch": epoch,
            "loss": values.mean().item(),
            "lr": max(group["peak"] for group in self.groups) * self._factor(self.step - 1),
            "seconds": seconds,
            "cpu_seconds": self.spent["cpu_seconds"],
            "images_per_s": self.spent["images"] / seconds,
            "waited": self.spent["waited"] / seconds,
            "precision": self.options.precision,
            "alarm": self._alarm(out, values),
        }

    def _take_step(self, batch: Batch, epoch: int, objective: Objective) -> Outputs:
        still = self.step < self.options.locked * self.options.epochs * self.batches
        for group in self.groups:
            moves = not (still and group["trunk"])
            group["lr"] = group["peak"] * self._factor(self.step) if moves else 0.0
        for norm in self.norms:  # one image has no statistics
            norm.train(not self.options.frozen_norm and len(batch["image"]) > 1)
        if self.pairs is None:
            self.pairs = self._foldable(batch["image"][:1].to(self.fabric.device))
        loss, out = self._backward(objective, batch)
        self.guessed.append(self._chance(objective, batch, out))
        self._apply(loss, batch, epoch)
        self.collected.append(loss)
        self.spent["images"] += len(batch["image"])
        self.step += 1
        self.number += 1
        return out

    def _backward(self, objective: Objective, batch: Batch) -> tuple[Tensor, Outputs]:
        """Leave the gradients; the plain way for good where a tower can't go the faster ones."""
        before = machine.random_state(self.fabric.device)
        ways = kernels.Kernels() if self.faster else contextlib.nullcontext()
        self.optimizer.zero_grad()
        try:
            with ways, encoders.folded(self.pairs or {}, learning=True):
                micro = self.options.micro_batch
                return backward(self.fabric, self.wrapped, objective, batch, micro)
        except RuntimeError as error:
            if not self.faster or kernels.IN_PLACE not in str(error):
                raise
        self.faster = False
        machine.set_random_state(before, self.fabric.device)
        return self._backward(objective, batch)

    def _fused(self, weights: list[Tensor]) -> bool:
        """Tell whether all weights can be moved in one pass.

        Not with fp16, whose gradients Fabric could then not clip; nor weights with gaps in memory,
        which torch 2.14 moves elsewhere (findings/fused_step_moves_the_neighbours.sh).
        """
        dense = all(torch.empty_like(p).stride() == p.stride() for p in weights)
        return dense and self.options.precision != "16-mixed"

    def _foldable(self, image: Tensor) -> encoders.Pairs:
        """Find the norms of the image towers that can be folded; none where they learn.

        None in bf16 either: autocast keeps norms in fp32, and would round what is folded.
        """
        foldable = self.options.precision == "32-true" and self.options.frozen_norm
        modules = self.model.modules() if foldable else ()
        towers = [m for m in modules if isinstance(m, encoders.ImageEncoder)]
        return {n: c for t in towers for n, c in encoders.foldable(t, t, image).items()}

    def _factor(self, step: int) -> float:
        return rules.schedule(step, steps=self.steps, warmup=self.options.warmup)

    def _count_time(self) -> None:
        """Add what has passed since the last call; a killed epoch keeps what it had spent."""
        now = time.perf_counter(), time.process_time()
        self.spent["seconds"] += now[0] - self.clock[0]
        self.spent["cpu_seconds"] += now[1] - self.clock[1]
        self.clock = now

    def _chance(self, objective: Objective, batch: Batch, out: Outputs) -> float:
        """Return the loss of guessing at a batch, all processes together; NaN if not known."""
        images = len(out.get("image_features", batch["image"]))  # several images may be one study
        pairs = int(batch["captioned"].sum()) if "captioned" in batch else images
        world = self.fabric.world_size
        if objective.chance is not None and images * world > 1:
            return objective.chance(images * world, pairs * world)
        if objective.chance is not None and self.step == 0:
            raise ValueError(
                "The first batch holds one pair: with nothing to tell it from, its loss is 0 "
                "whatever the model does. Take a larger batch; micro_batch bounds its memory."
            )
        return math.nan

    def _alarm(self, out: Outputs, values: Tensor) -> str:
        """Say why training seems to fail, from its last batch and the epoch's second half."""
        features = out.get("image_features")
        if features is not None and len(features) > 1 and spread(features) < COLLAPSED:
            return "the image features have collapsed to one point"
        half = len(values) // 2
        late, chance = values[half:].mean().item(), statistics.fmean(self.guessed[half:])
        if late > chance - AT_CHANCE:  # never where chance is NaN
            return f"the loss, {late:.2f} nats, is that of guessing ({chance:.2f})"
        return ""

    def _apply(self, loss: Tensor, batch: Batch, epoch: int) -> None:
        norm = self.fabric.clip_gradients(
            self.wrapped,
            self.optimizer,
            max_norm=self.options.clip or math.inf,
            error_if_nonfinite=False,
        )
        if not torch.isfinite(loss + norm):
            ids = ", ".join(batch.get("image_id", ())[:4])
            raise FloatingPointError(
                f"The loss is {loss.item():g} and its gradient {norm.item():g} in epoch {epoch}, "
                f"step {self.step}{f', on images {ids}, …' if ids else ''}. Lower lr "
                f"({self.options.lr:g}) or backbone_lr ({self.options.backbone_lr:g}). A "
                "checkpoint, if there is one, is of a step before it."
            )
        self.optimizer.step()
        with torch.no_grad():
            for group, start in zip(self.groups, self.start, strict=True):
                if start:
                    pull = min(1.0, group["lr"] * self.options.to_start)
                    torch._foreach_lerp_(group["params"], start, pull)
        if self.average is not None:
            self.average.update()

    # ------------------------------------------------------------------ the best, and the average
    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Put the averaged weights into the model for as long as the context lasts."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place()

    def judge(self, row: dict[str, Any], keep: str | None) -> None:
        if keep is None:
            return
        name = keep.removeprefix("-")
        if name not in row:
            raise ValueError(f"validate returned {', '.join(row)}, but no {name!r} to keep.")
        value = -row[name] if keep.startswith("-") else row[name]
        row["kept"] = bool(value > self.best)
        if row["kept"]:
            self.best, self.best_state = value, copied(trained(self.model))

    def close(self) -> None:
        if self.best_state:
            put(self.model, self.best_state)
        elif self.average is not None and self.average.steps:
            self.average.swap()
        self.model.eval()

    # ------------------------------------------------------------------ to go on after a kill
    @property
    def recipe(self) -> dict[str, Any]:
        """What a checkpoint must have in common with who resumes it."""
        of_machine = ("micro_batch", "precision")
        told = {k: v for k, v in asdict(self.options).items() if k not in of_machine}
        return told | {"batches": self.batches}

    def save(self) -> None:
        """Hand out a checkpoint, where one is wanted."""
        if self.checkpoint is None or not self.fabric.is_global_zero:
            return
        state = {name: getattr(self, name) for name in PROGRESS}
        average = self.average
        self.checkpoint(
            state
            | {
                "recipe": self.recipe,
                "model": copied(trained(self.model)),
                "optimizer": self.optimizer.state_dict(),
                "average": average and {"steps": average.steps, "values": average.values},
                "random": machine.random_state(self.fabric.device),
            }
        )
        self.saved = time.monotonic()

    def restore(self, state: dict[str, Any]) -> None:
        changed = [
            f"{name}: {state['recipe'].get(name)!r} there, {value!r} asked"
            for name, value in self.recipe.items()
            if state["recipe"].get(name) != value
        ]
        if changed:
            lines = "\n".join(f"  - {line}" for line in changed)
            raise ValueError(f"The checkpoint was made with another recipe:\n{lines}")
        put(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.steps = state["average"]["steps"]
            torch._foreach_copy_(self.average.values, state["average"]["values"])
        for name in PROGRESS:
            setattr(self, name, copy.copy(state[name]))
        self.collected = [loss.to(self.fabric.device) for loss in self.collected]
        self.random = state["random"]
        machine.set_random_state(self.random, self.fabric.device)
