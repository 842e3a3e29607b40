"""What the runner costs: a call that reuses all, a notebook beside papermill, two at a time.

    python benchmarks/runner.py             the three rows
    BONELIB_RUNS=… python benchmarks/runner.py second demo 01 04    a second call on runs of yours

All of it is wall time, so the load of the machine is printed with it; where other processes take
the cores, the rows say so instead of a verdict. The last row executes all notebooks on the profile
tiny first, unless the folder of BONELIB_RUNS has them.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from measure import not_measured, row

CORES = len(os.sched_getaffinity(0))
BURN = 8  # CPU seconds of each of the notebooks that run beside each other
PARAMETERS = """PROFILE: str = "tiny"
DATA: str = "phantom"
DATA_ROOT: str = ""
TASK: str = "tumor"
SEED: int = 0
VARIANT: str = "default"
REUSE: bool = True
"""
BODY = """import time
from bonelib import runs
place = dict(profile=PROFILE, data=DATA, variant=VARIANT, reuse=REUSE)
run = runs.start("{stage}", task={task!r}, **place)
while time.process_time() < {burn}:
    pass
run.finish()
"""
# Both processes load what they need before they look at the clock.
OURS = """
import os, sys, time
from pathlib import Path
import papermill
from bonelib import headless
began, spent = time.monotonic(), os.times()
steps = headless.plan(folder=Path(sys.argv[1]))
found = headless.run_steps(steps, jobs=int(sys.argv[2]), say=lambda line: None)
assert all(one.status == "executed" for one in found), found
print(time.monotonic() - began, sum(os.times()[:4]) - sum(spent[:4]))
"""
OTHER = """
import os, sys, time
from pathlib import Path
import papermill
began, spent = time.monotonic(), os.times()
for path in sorted(Path(sys.argv[1]).glob("*.ipynb")):
    papermill.execute_notebook(path, path.with_suffix(".out"), progress_bar=False)
print(time.monotonic() - began, sum(os.times()[:4]) - sum(spent[:4]))
"""


def load() -> str:
    """Say how busy the machine is."""
    return f"load {os.getloadavg()[0]:.1f} on {CORES} cores"


def notebooks(folder: Path, burn: float) -> None:
    """Write two notebooks that do not need each other."""
    import nbformat

    for number, stage, task in (("02", "baselines", "tumor"), ("03", "reports", "any")):
        first = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
        body = nbformat.v4.new_code_cell(BODY.format(stage=stage, task=task, burn=burn))
        notebook = nbformat.v4.new_notebook(cells=[first, body])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "", "language": "python"}
        nbformat.write(notebook, folder / f"{number}_{stage}.ipynb")


def timed(code: str, folder: Path, *words: object) -> tuple[float, float]:
    """Wall and CPU seconds that the code says it took, in a process and with runs of its own."""
    with tempfile.TemporaryDirectory() as runs:
        environment = os.environ | {"BONELIB_RUNS": runs, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", code, str(folder), *map(str, words)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wall, spent = map(float, done.stdout.splitlines()[-1].split())
    return wall, spent


def second(profile: str, numbers: Sequence[str] = ()) -> None:
    """Time a call of ``bonelib run`` in which every notebook is reused."""
    name = f"runner: a second call on {profile}, nothing changed"
    command = [sys.executable, "-m", "bonelib", "run", *numbers, "--profile", profile]
    with tempfile.TemporaryDirectory() as folder:
        places = {f"BONELIB_{one}": f"{folder}/{one}" for one in ("RUNS", "CACHE", "FIGURES")}
        environment = places | os.environ
        for _ in range(2):
            before, began = os.times(), time.monotonic()
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            seconds, after = time.monotonic() - began, os.times()
    lines = [line for line in done.stdout.splitlines() if " reused /" in line]
    cpu = sum(after[2:4]) - sum(before[2:4])
    about = f"{name} ({len(lines)} reused, {cpu:.1f} CPU s, {load()})"
    if done.returncode or " started " in done.stdout:
        not_measured(name, (done.stderr or done.stdout).strip().splitlines()[-1])
    elif seconds > 10 and busy():
        not_measured(about, f"{seconds:.1f} s of wall time, the cores are taken")
    else:
        row(about, seconds, None, unit="s", target="<= 10 s", met=seconds <= 10)


def busy() -> bool:
    """Whether other processes take the cores that the two kernels would need."""
    return os.getloadavg()[0] > CORES - 1.5


def run() -> None:
    """Print the rows."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        notebooks(folder, 0)
        ours, other = (min(timed(code, folder, 1) for _ in range(2)) for code in (OURS, OTHER))
        more, spent = ((a - b) / 2 for a, b in zip(ours, other, strict=True))
        name = f"runner: a notebook, beyond papermill's kernel and imports ({load()})"
        if more > 3 and busy():
            not_measured(name, f"{more:.1f} s of wall time, {spent:.1f} CPU s; the cores are taken")
        else:
            row(name, more, None, unit="s", target="<= 3 s", met=more <= 3)

        notebooks(folder, BURN)
        taken = busy()
        (one, _), (two, _) = timed(OURS, folder, 1), timed(OURS, folder, 2)
        name = f"runner: two notebooks at once / one after the other ({load()})"
        if taken:  # two processes then also get a larger part of the cores than one
            not_measured(name, f"{two:.1f} s / {one:.1f} s = {two / one:.2f}; the cores are taken")
        else:
            target = "<= .65 of serial"
            row(name, two, one, unit="s", target=target, met=two <= 0.65 * one)
    second("tiny")


if __name__ == "__main__":
    if sys.argv[1:2] == ["second"]:
        second(sys.argv[2], sys.argv[3:])
    else:
        run()
