"""What waiting threads cost: a training step alone and beside busy processes.

    python benchmarks/threads.py            both rows
    python benchmarks/threads.py step       one process: CPU and wall seconds of a step

Lite0 at 128 px, batch 32, two threads. OpenMP's threads spin while they wait for each other, unless
GOMP_SPINCOUNT is small; where the node is shared they spin while the other one is not running.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from measure import row

BUSY, STEPS = 3, 6


def step() -> dict[str, float]:
    """Median CPU and wall seconds of a step, after two that warm up."""
    import torch

    from bonelib import encoders, losses, models, training

    torch.set_num_threads(2)
    tower = encoders.image("packaged:efficientnet_lite0", weights="random", size=128)
    model = models.Classifier(tower, outputs=1).train().to(memory_format=torch.channels_last)
    batch = {"image": torch.randn(32, 3, 128, 128), "label": torch.arange(32) % 2}
    batch = training.to_device(batch, torch.device("cpu"))
    objective = losses.classification_objective()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    spent = []
    for _ in range(STEPS + 2):
        started = time.process_time(), time.perf_counter()
        optimizer.zero_grad()
        objective(model, batch).backward()
        optimizer.step()
        spent.append((time.process_time() - started[0], time.perf_counter() - started[1]))
    cpu, wall = (statistics.median(times) for times in zip(*spent[2:], strict=True))
    return {"cpu": cpu, "wall": wall}


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep ``count`` other processes at work meanwhile; they end with this one if it is killed."""
    code = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(10**5))"
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measured(spin: str, others: int) -> dict[str, float]:
    """A step in a process of its own: libgomp reads its environment once."""
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    environment |= {"OMP_NUM_THREADS": "2"} | ({"GOMP_SPINCOUNT": spin} if spin else {})
    command = [sys.executable, __file__, "step"]
    with busy(others):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run() -> None:
    """Print the rows: ours is what the Makefile, kernels and ``bonelib train`` set."""
    found = {(spin, n): measured(spin, n) for n in (0, BUSY) for spin in ("1000", "")}
    for what, n, kind in (
        ("alone", 0, "cpu"),
        ("alone", 0, "wall"),
        (f"beside {BUSY} busy processes", BUSY, "cpu"),
        (f"beside {BUSY} busy processes", BUSY, "wall"),
    ):
        ours, other = found["1000", n][kind], found["", n][kind]
        alone = found["1000", 0][kind]
        target, met = "-", True
        if kind == "cpu":
            limit, base = (1.2, alone) if n else (1.1, other)
            target, met = f"<= {limit} of {'alone' if n else 'unset'}", ours <= limit * base
        row(
            f"threads: {kind} s of a step {what}, GOMP_SPINCOUNT=1000 / unset",
            ours, other, unit="s", target=target, met=met,
        )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:] == ["step"]:
        print(json.dumps(step()))
    else:
        run()
