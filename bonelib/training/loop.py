"""The training loop: a generator that neither prints nor plots, and can be killed at any moment."""

import atexit
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bonelib.losses import Objective, Outputs, spread
from bonelib.training import rules
from bonelib.training.state import Average, copied, put, trained
from bonelib.training.step import backward

COLLAPSED = 0.01  # spread of unit features below which they are as good as one point
AT_CHANCE = 0.02  # nats by which a loss must stay below that of guessing to be more than it


def fit(
    model: nn.Module,
    objective: Objective,
    loader: Any,
    *,
    epochs: int,
    lr: float = 1e-3,
    backbone_lr: float = 3e-5,
    layer_decay: float = 0.75,
    weight_decay: float = 0.05,
    warmup: float = 0.1,
    locked: float = 0.0,
    to_start: float = 0.0,
    ema: float = 0.0,
    frozen_norm: bool = True,
    clip: float = 1.0,
    micro_batch: int = 0,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    keep: str | None = None,
    patience: int = 0,
    resume: dict[str, Any] | None = None,
    checkpoint: Callable[[dict[str, Any]], None] | None = None,
    checkpoint_seconds: float = 60,
    precision: str = "auto",
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
) -> Iterator[dict[str, Any]]:
    """Train ``model`` in place and yield one row after each epoch, the model ready to be used.

    The defaults are a gentle recipe: pretraining must not destroy what it starts from. Whoever
    stops early has the weights of that epoch, and those kept so far after ``close()``.

    Args:
        loader: Iterable of batches with a length; each iteration is the next epoch, and setting its
            ``epoch`` chooses which. Under several processes it gives each its part of the batch.
        locked: Share of the run at whose beginning the image trunk stays still, so that new
            projections are no longer random when it starts to move (LP-FT, Kumar et al. 2022,
            arXiv:2202.10054; LiT, Zhai et al. 2022, arXiv:2111.07991, is a share of 1).
        to_start: Pull of the image trunk back to where it began, a decoupled weight decay towards
            the start (L2-SP, Li et al. 2018, arXiv:1802.01483) beside the one towards zero.
        ema: Decay of a running average of the weights, which is what validation sees and what is
            kept; 0 for none.
        frozen_norm: Keep batch norms in evaluation mode: small batches of look-alikes make poor
            statistics. Without, each process takes the statistics of its own images.
        clip: Largest norm of the gradient; 0 for none.
        micro_batch: Images that go through the model at a time; the loss still sees the whole batch
            (see ``step.backward``). 0 for all at once.
        validate: Called after each epoch with the model in evaluation mode; its numbers join the
            row. It must see validation data only.
        keep: Name of a validation number; the weights of the epoch where it was highest are put
            back at the end.
        patience: Epochs without a new best ``keep`` after which training ends; 0 never.
        resume: What ``checkpoint`` was last given. The rows of the epochs behind it are yielded
            again, then training goes on, to the bit on a CPU.
        checkpoint: Called with all that is needed to go on, after each epoch and about every
            ``checkpoint_seconds``.
        precision: Fabric's name of it; ``auto`` follows ``rules.precision``.
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
    if patience and keep is None:
        raise ValueError("patience needs keep: the name of the number that should rise.")
    if micro_batch and not frozen_norm and any(map(_is_norm, model.modules())):
        raise ValueError(
            f"micro_batch={micro_batch} with frozen_norm=False: batch norms would see parts of the "
            "batch and move with each, which is another model. Freeze them, or take whole batches."
        )
    recipe = dict(epochs=epochs, lr=lr, backbone_lr=backbone_lr, layer_decay=layer_decay)
    recipe |= dict(weight_decay=weight_decay, warmup=warmup, locked=locked, to_start=to_start)
    recipe |= dict(ema=ema, frozen_norm=frozen_norm, clip=clip, batches=len(loader))
    where = dict(precision=precision, accelerator=accelerator, devices=devices, nodes=nodes)
    loop = _Loop(model, recipe, **where)
    if resume is not None:
        loop.restore(resume)
        yield from [dict(row) for row in loop.rows]
    try:
        for epoch in range(loop.epoch, epochs + 1):
            if patience and loop.since_best >= patience:
                break
            row = loop.run_epoch(
                epoch, loader, objective, micro_batch, _every(checkpoint, checkpoint_seconds)
            )
            with loop.averaged():
                if validate is not None:
                    row |= validate(model)
                loop.judge(row, keep)
                loop.rows.append(row)
                loop.epoch, loop.number = epoch + 1, 0
            if checkpoint is not None and loop.fabric.is_global_zero:
                checkpoint(loop.state())
            with loop.averaged():
                yield dict(row)
    finally:
        loop.close()


def _every(
    checkpoint: Callable[[dict[str, Any]], None] | None, seconds: float
) -> Callable[["_Loop"], None]:
    last = time.monotonic()

    def maybe(loop: "_Loop") -> None:
        nonlocal last
        whole = loop.number == loop.recipe["batches"]  # the epoch's own checkpoint follows at once
        if checkpoint is None or whole or not loop.fabric.is_global_zero:
            return
        if time.monotonic() - last >= seconds:
            checkpoint(loop.state())
            last = time.monotonic()

    return maybe


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def _leave_group() -> None:
    """Leave the process group before Python ends; Fabric does so for NCCL alone.

    Gloo's threads that still run then abort the process, and torchrun stops the others for it,
    perhaps while the first one saves.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class _Loop:
    """What lives through the epochs of one ``fit``."""

    def __init__(self, model: nn.Module, recipe: dict[str, Any], **where: Any):
        from lightning.fabric import Fabric

        self.model, self.recipe = model, recipe
        self.precision = where["precision"]
        if self.precision == "auto":
            self.precision = rules.precision(model, accelerator=where["accelerator"])
        several = where["devices"] * where["nodes"] > 1
        self.fabric = Fabric(
            accelerator=where["accelerator"],
            devices=where["devices"],
            num_nodes=where["nodes"],
            strategy="ddp" if several else "auto",
            precision=self.precision,
        )
        if several:
            self.fabric.launch()
            atexit.register(_leave_group)
        if any(isinstance(m, nn.Conv2d) for m in model.modules()):
            model.to(memory_format=torch.channels_last)
        names = ("lr", "backbone_lr", "layer_decay", "weight_decay")
        optimizer = torch.optim.AdamW(
            rules.parameter_groups(model, **{name: recipe[name] for name in names})
        )
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        trunk = {id(p) for p in model.image.trunk.parameters()}
        self.of_trunk = [
            all(id(p) in trunk for p in group["params"]) for group in optimizer.param_groups
        ]
        self.wrapped, self.optimizer = self.fabric.setup(model, optimizer)
        moving = [p for p in model.parameters() if p.requires_grad]
        self.average = Average(moving, recipe["ema"]) if recipe["ema"] else None
        self.start = [
            [p.detach().clone() for p in group["params"]] if recipe["to_start"] and own else []
            for group, own in zip(self.optimizer.param_groups, self.of_trunk, strict=True)
        ]
        self.epoch, self.number, self.step = 1, 0, 0
        self.rows: list[dict[str, Any]] = []
        self.collected: list[Tensor] = []  # losses of the epoch under way
        self.guessed: list[float] = []  # and those of guessing
        self.spent: dict[str, float] = {}
        self.best, self.best_state, self.since_best = -math.inf, None, 0

    # ------------------------------------------------------------------ one epoch
    def run_epoch(
        self, epoch: int, loader: Any, objective: Objective, micro: int, after_step: Callable
    ) -> dict[str, Any]:
        recipe, total = self.recipe, self.recipe["epochs"] * self.recipe["batches"]
        self.model.train()
        if recipe["frozen_norm"]:
            for module in self.model.modules():
                if _is_norm(module):
                    module.eval()
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
            self._set_random()
        factor, out, batch = 0.0, {}, {}
        while True:
            asked = time.perf_counter()
            batch_or_none = next(batches, None)
            self.spent["waited"] += time.perf_counter() - asked
            if batch_or_none is None:
                break
            batch = batch_or_none
            factor = rules.schedule(self.step, steps=total, warmup=recipe["warmup"])
            self._set_rates(factor)
            self.optimizer.zero_grad()
            loss, out = backward(self.fabric, self.wrapped, objective, batch, micro)
            self._check_pairs(objective, out)
            self._apply(loss, batch, epoch)
            self.collected.append(loss)
            self.guessed.append(self._chance(objective, batch, out))
            self.spent["images"] += len(batch["image"])
            self.step += 1
            self.number += 1
            self._count_time()
            after_step(self)
        self._count_time()
        seconds = max(self.spent["seconds"], 1e-9)
        values = self.fabric.all_reduce(torch.stack(self.collected), reduce_op="mean")
        self.model.eval()
        return {
            "epoch": epoch,
            "loss": values.mean().item(),
            "lr": max(self.peaks) * factor,
            "seconds": seconds,
            "cpu_seconds": self.spent["cpu_seconds"],
            "images_per_s": self.spent["images"] / seconds,
            "waited": self.spent["waited"] / seconds,
            "precision": self.precision,
            "alarm": self._alarm(out, values),
        }

    def _count_time(self) -> None:
        """Add what has passed since the last call; a killed epoch keeps what it had spent."""
        now = time.perf_counter(), time.process_time()
        self.spent["seconds"] += now[0] - self.clock[0]
        self.spent["cpu_seconds"] += now[1] - self.clock[1]
        self.clock = now

    def _check_pairs(self, objective: Objective, out: Outputs) -> None:
        alone = objective.chance is not None and len(out.get("image_features", "..")) == 1
        if self.step == 0 and alone and self.fabric.world_size == 1:
            raise ValueError(
                "The first batch holds one pair: with nothing to tell it from, its loss is 0 "
                "whatever the model does. Take a larger batch; micro_batch bounds its memory."
            )

    def _chance(self, objective: Objective, batch: dict[str, Any], out: Outputs) -> float:
        """Return the loss of guessing at a batch, all processes together; NaN if not known."""
        images = len(out.get("image_features", batch["image"]))  # several images may be one study
        pairs = int(batch["captioned"].sum()) if "captioned" in batch else images
        world = self.fabric.world_size
        if objective.chance is None or images * world < 2:
            return math.nan
        return objective.chance(images * world, pairs * world)

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

    def _set_rates(self, factor: float) -> None:
        still = self.step < self.recipe["locked"] * self.recipe["epochs"] * self.recipe["batches"]
        for group, peak, of_trunk in zip(
            self.optimizer.param_groups, self.peaks, self.of_trunk, strict=True
        ):
            group["lr"] = 0.0 if still and of_trunk else peak * factor

    def _apply(self, loss: Tensor, batch: dict[str, Any], epoch: int) -> None:
        norm = self.fabric.clip_gradients(
            self.wrapped,
            self.optimizer,
            max_norm=self.recipe["clip"] or math.inf,
            error_if_nonfinite=False,
        )
        if not torch.isfinite(loss + norm):
            ids = ", ".join(batch.get("image_id", ())[:4])
            raise FloatingPointError(
                f"The loss is {loss.item():g} and its gradient {norm.item():g} in epoch {epoch}, "
                f"step {self.step}{f', on images {ids}, …' if ids else ''}. Lower lr "
                f"({self.recipe['lr']:g}) or backbone_lr ({self.recipe['backbone_lr']:g}). A "
                "checkpoint, if there is one, is of a step before it."
            )
        self.optimizer.step()
        with torch.no_grad():
            for group, start in zip(self.optimizer.param_groups, self.start, strict=True):
                if start:
                    pull = min(1.0, group["lr"] * self.recipe["to_start"])
                    torch._foreach_lerp_(group["params"], start, pull)
        if self.average is not None:
            self.average.update()

    # ------------------------------------------------------------------ the best, and the average
    def averaged(self) -> "_Averaged":
        """Put the averaged weights into the model for as long as the context lasts."""
        return _Averaged(self.average)

    def judge(self, row: dict[str, Any], keep: str | None) -> None:
        if keep is None:
            return
        if keep not in row:
            raise ValueError(f"validate returned {', '.join(row)}, but no {keep!r} to keep.")
        row["kept"] = bool(row[keep] > self.best)
        self.since_best = 0 if row["kept"] else self.since_best + 1
        if row["kept"]:
            self.best, self.best_state = row[keep], copied(trained(self.model))

    def close(self) -> None:
        if self.best_state is not None:
            put(self.model, self.best_state)
        elif self.average is not None and self.average.steps:
            self.average.swap()
        self.model.eval()

    # ------------------------------------------------------------------ to go on after a kill
    def state(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe,
            "epoch": self.epoch,
            "number": self.number,
            "step": self.step,
            "model": copied(trained(self.model)),
            "optimizer": self.optimizer.state_dict(),
            "average": None
            if self.average is None
            else {"steps": self.average.steps, "values": self.average.values},
            "best": self.best,
            "best_state": self.best_state,
            "since_best": self.since_best,
            "rows": self.rows,
            "collected": self.collected,
            "guessed": self.guessed,
            "spent": self.spent,
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

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
            for own, value in zip(self.average.values, state["average"]["values"], strict=True):
                own.copy_(value)
        for name in ("epoch", "number", "step", "best", "best_state", "since_best"):
            setattr(self, name, state[name])
        self.rows = list(state["rows"])
        self.collected = [loss.to(self.fabric.device) for loss in state["collected"]]
        self.guessed, self.spent = list(state["guessed"]), dict(state["spent"])
        self.random = state["random"].cpu(), state["cuda_random"]
        self._set_random()

    def _set_random(self) -> None:
        torch.set_rng_state(self.random[0])
        if self.random[1]:  # not run here
            torch.cuda.set_rng_state_all(self.random[1])


class _Averaged:
    def __init__(self, average: Average | None):
        self.average = average

    def __enter__(self) -> None:
        if self.average is not None:
            self.average.swap()

    def __exit__(self, *_: Any) -> None:
        if self.average is not None:
            self.average.swap()
