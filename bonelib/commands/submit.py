"""Submit notebooks to a Slurm cluster, and say what became of them."""

import contextlib
import importlib.util
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bonelib.commands import notebooks
from bonelib.commands.printing import say, short

if TYPE_CHECKING:
    from bonelib.headless.submit import Job


def submit(
    numbers: list[str],
    profile: str,
    parameters: list[list[str]],
    keep_other_code: bool,
    sweep: list[str],
    local: bool,
    dry_run: bool,
    status: bool,
    **asked: Any,
) -> int:
    """Submit a job for each notebook that does not stand, or show what that would be."""
    from bonelib import headless, runs
    from bonelib.headless import submit as cluster

    if status:
        return _status(cluster.status())
    if importlib.util.find_spec("submitit") is None:
        raise ValueError(
            "submitit is not installed. Run: pip install -c requirements.lock -e '.[slurm]'"
        )
    if keep_other_code:
        os.environ[runs.code.KEEP] = "keep"  # Slurm gives the environment to its jobs
    resources = cluster.Resources(**asked)
    busy: dict[Path, str] = {}
    with contextlib.suppress(*[ValueError] * dry_run):  # it is shown without a Slurm as well
        busy |= {} if local else cluster.busy()
    calls, known = notebooks.swept(numbers, profile, parameters, sweep)
    steps = headless.plan_all(calls, queued=busy, **known)
    jobs = cluster.prepare(steps, resources, busy)
    for folder in [one for step in steps if (one := step.folder.absolute()) in busy]:
        say(f"{short(folder)} has job {busy[folder]} already: it gets no second one")
    if not jobs:
        say("Nothing to submit.")
    if dry_run:
        return _list(jobs)
    return _run_here(cluster.here(jobs)) if local else _send(cluster.send(jobs, busy))


def _list(jobs: "list[Job]") -> int:
    for job in jobs:
        after = ", ".join(short(folder) for folder in (*job.after, *job.behind))
        say(f"{job.task.name:<16} {short(job.task.folder)}{after and f' after {after}'}")
        say(f"    {shlex.join(job.task.command)}")
    return 0


def _run_here(ends: "Iterator[tuple[Job, str]]") -> int:
    code = 0
    for job, error in ends:
        say(f"{job.task.name:<16} {error or 'done'}  {short(job.task.folder)}")
        code = 1 if error else code
    return code


def _send(sent: "Iterator[Job]") -> int:
    numbers = []
    try:
        for job in sent:
            numbers.append(job.number)
            say(f"job {job.number} {job.task.name:<16} {short(job.task.folder)}")
    except ValueError as error:
        before = f"Jobs {', '.join(numbers)} are submitted and stay" if numbers else ""
        again = f"{before}; the same command submits the rest." if before else "Nothing was."
        raise ValueError(f"{error} {again}") from error
    if numbers:
        say(f"bonelib submit --status tells how they do; scancel {' '.join(numbers)} ends them.")
    return 0


def _status(jobs: list[dict[str, Any]]) -> int:
    for job in jobs:
        say(f"job {job['job']:<8} {job['state']:<10} {short(Path(job['run']))}  {job['note']}")
    if not jobs:
        say("Nothing was submitted from this runs folder.")
    return 0
