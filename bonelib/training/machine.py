"""Where a training runs: devices, processes, precision, and the state of random numbers."""

import atexit
import os
import re
from typing import Any

import torch
from torch import Tensor, nn

from bonelib.losses import Batch


def precision(model: nn.Module, *, accelerator: str = "auto") -> str:
    """Choose the precision by a stated rule: bf16 where it is known to be faster, else fp32.

    A GPU with bfloat16: ``bf16-mixed``. A CPU with avx512_bf16: ``bf16-mixed`` for convolutional
    nets without depthwise convolutions (1.9–2.7 times as fast; with them half as fast; no gain for
    transformers at small sizes). Anything else: ``32-true``.
    """
    if accelerator != "cpu" and torch.cuda.is_available():  # not run here
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    plain = len(convolutions) > 2 and all(m.groups == 1 for m in convolutions)
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16-mixed" if plain and supported() else "32-true"


def fabric(precision: str, accelerator: str, devices: int, nodes: int) -> Any:
    """Return Lightning's Fabric on this machine, its processes joined where there are several."""
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment

    several = devices * nodes > 1
    where: dict[str, Any] = dict(accelerator=accelerator, devices=devices, num_nodes=nodes)
    # Named, not detected: one process inside an allocation of two tasks is still one process, and
    # Fabric refuses it there ("You set --ntasks=2") or, under srun, waits for others.
    where |= dict(plugins=[TorchElasticEnvironment() if several else LightningEnvironment()])
    made = Fabric(**where | {"precision": precision}, strategy="ddp" if several else "auto")
    if several:
        made.launch()
        atexit.register(_leave_group)
    return made


def take_ranks() -> None:
    """Let the tasks of ``srun`` train together, as the processes of ``torchrun`` do.

    What ``torchrun`` puts into the environment is put there from what Slurm says of the job step
    (srun(1), output environment variables). Nothing happens outside a step of several tasks, under
    ``torchrun``, or in a terminal that ``srun --pty`` opened.

    Raises:
        ValueError: The nodes run different numbers of tasks, or a task sees fewer GPUs than there
            are tasks on its node.
    """
    told = os.environ
    ranks = int(told.get("SLURM_STEP_NUM_TASKS", 1))
    if "RANK" in told or "SLURM_PTY_PORT" in told or ranks < 2:
        return
    spread = told["SLURM_STEP_TASKS_PER_NODE"]  # 2, or 2(x3), or 2,1
    if not re.fullmatch(r"\d+(\(x\d+\))?", spread):
        raise ValueError(
            f"srun started {spread} tasks on its nodes; a training needs the same number on each. "
            "Ask for --ntasks-per-node in place of --ntasks."
        )
    local = int(spread.partition("(")[0])
    if 0 < torch.cuda.device_count() < local:  # not run here
        raise ValueError(
            f"{local} tasks run on this node and this one sees {torch.cuda.device_count()} GPUs. "
            f"Give each task all of them: --gpus-per-node={local}, not --gpus-per-task."
        )
    node = re.sub(r"\[(\w+)[^\]]*\]", r"\1", told["SLURM_STEP_NODELIST"]).split(",")[0]
    port = 15000 + (int(told["SLURM_JOB_ID"]) * 31 + int(told["SLURM_STEP_ID"])) % 15000
    names = {"RANK": "PROCID", "LOCAL_RANK": "LOCALID", "GROUP_RANK": "NODEID"}
    own = {name: told[f"SLURM_{theirs}"] for name, theirs in names.items()}
    own |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(local)}
    os.environ.update({"MASTER_ADDR": node, "MASTER_PORT": str(port)} | own)


def _leave_group() -> None:
    """Leave the process group before Python ends; Fabric does so for NCCL alone.

    Gloo's threads that still run then abort the process, and torchrun stops the others for it,
    perhaps while the first one saves.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a batch, images in channels_last (measured 1.5–2.2 times as fast)."""

    def move(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value.ndim == 4:
            return value.to(device, memory_format=torch.channels_last, non_blocking=True)
        return value.to(device, non_blocking=True)

    return {name: move(value) for name, value in batch.items()}


def random_state(device: torch.device) -> list[Tensor]:
    """Return what the next draws hang on, of the CPU and of a GPU that trains."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":  # not run here
        states.append(torch.cuda.get_rng_state(device))
    return states


def set_random_state(states: list[Tensor], device: torch.device) -> None:
    """Let draws follow as they did after ``random_state``."""
    torch.set_rng_state(states[0].cpu())
    if device.type == "cuda":  # not run here
        torch.cuda.set_rng_state(states[1].cpu(), device)
