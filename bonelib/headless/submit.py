"""Send notebooks to a Slurm cluster, one job each: in order, and taken up again if cut off.

Steps of ``plan`` come in; jobs that wait for each other go out, and a line for each in
``submitted.jsonl`` of the runs folder, by which ``status`` says what became of them. A job is
``bonelib run`` of one notebook, in a process of its own. Before its time is over Slurm warns the
job: the notebook is stopped, keeps its copy and its checkpoint, and the job is queued again.
"""

import contextlib
import itertools
import json
import os
import pickle
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import runs
from .jobs import reasons
from .plan import Step, dependencies

REQUEUES = 9  # times that a job whose time is over is queued again
WARNING = 120  # seconds before the end of its time at which a job is warned, half of it at most
FILE = "submitted.jsonl"
FOLDER = "slurm"  # of a run folder: log, batch script and pickle of its jobs
LIVE = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "STOPPED")
UNITS = {"m": 1, "min": 1, "h": 60, "d": 1440}
CURES = {
    "partition": "Choose one of those that `sinfo` lists with --partition.",
    "account": "Pass yours with --account; `sacctmgr show associations user=$USER` lists them.",
    "time limit": "Ask for less with --time; `sinfo` lists the limit of each partition.",
    "node config": "No node has so many GPUs or so much memory; `sinfo -N -o '%N %G %c %m'` tells.",
    "processors": "The partition has fewer nodes or CPUs; `sinfo -o '%P %D %c'` tells.",
}


@dataclass(frozen=True)
class Resources:
    """What a job asks for; empty and 0 leave it to the cluster.

    Attributes:
        time: ``90m``, ``8h`` or ``2d``; after it the job is queued again and goes on.
        gpus: Of each node. One process trains on each, over all nodes.
        cpus: Of each process, which computes with as many threads.
        memory: GB of each node.

    Raises:
        ValueError: Lists all that can't be asked for.
    """

    partition: str = ""
    account: str = ""
    time: str = "4h"
    gpus: int = 0
    nodes: int = 1
    cpus: int = 0
    memory: int = 0

    def __post_init__(self) -> None:
        wrong = [] if self.minutes else [f"--time {self.time!r} is no time such as 90m, 8h or 2d."]
        for name, least in {"gpus": 0, "nodes": 1, "cpus": 0, "memory": 0}.items():
            if getattr(self, name) < least:
                wrong.append(f"--{name} must be at least {least}, found {getattr(self, name)}.")
        if wrong:
            raise ValueError("Nothing was submitted:\n  - " + "\n  - ".join(wrong))

    @property
    def minutes(self) -> int:
        """The time of a job; 0 if it can't be read."""
        told = re.fullmatch(rf"(\d+)\s*({'|'.join(UNITS)})", self.time)
        return int(told[1]) * UNITS[told[2]] if told else 0

    @property
    def processes(self) -> int:
        """Processes that train on each node: one for each GPU."""
        return max(self.gpus, 1)

    def options(self, *, several: bool) -> dict[str, Any]:
        """Return the options of sbatch as submitit names them."""
        nodes, gpus = (self.nodes, self.gpus) if several else (1, min(self.gpus, 1))
        asked = dict(partition=self.partition, account=self.account, gpus_per_node=gpus)
        asked |= dict(cpus_per_task=self.cpus, mem=f"{self.memory}GB" if self.memory else "")
        # A job whose input failed would wait for ever. B: warns the batch script alone: a kernel
        # that gets the signal dies of it.
        seconds = min(WARNING, self.minutes * 30)
        more = {"kill-on-invalid-dep": "yes", "requeue": True, "signal": f"B:USR2@{seconds}"}
        return {k: v for k, v in asked.items() if v} | dict(
            time=self.minutes,
            nodes=nodes,
            ntasks_per_node=max(gpus, 1),
            wckey=None,
            use_srun=False,  # the script itself is the job, and starts steps of several processes
            additional_parameters=more,
        )


@dataclass
class Notebook:
    """What a job does: one notebook in a process of its own, and its training in several.

    It is pickled by submitit, which calls ``checkpoint`` when the time of the job is nearly over.

    Attributes:
        several: The notebook leaves a plan, which ``bonelib train`` carries out in a process for
            each GPU of each node; then the notebook goes on.
    """

    name: str
    command: list[str]
    folder: Path
    resources: Resources
    several: bool

    def __call__(self) -> None:
        """Run the notebook.

        Raises:
            RuntimeError: A command failed, which is named with the node.
        """
        self._call(self.command)
        if self.several and runs.planned(self.folder):
            self._call(self._trainers())
            self._call(self.command)

    def checkpoint(self) -> Any:
        """Stop what runs, which keeps what it can, and return what the next life calls."""
        from submitit.helpers import DelayedSubmission

        self._stop()
        words = self.command
        if "REUSE" in words and not (self.folder / "record.json").exists():
            at = words.index("REUSE") - 1  # what there was has been cleared: the next goes on
            words = [*words[:at], *words[at + 3 :]]
        return DelayedSubmission(replace(self, command=words))

    def _trainers(self) -> list[str]:
        train = ["-m", "bonelib", "train", str(self.folder)]
        asked, processes = self.resources, self.resources.processes
        if "SLURM_JOB_ID" not in os.environ:
            launch = f"-m torch.distributed.run --nproc-per-node {processes}"
            return [sys.executable, *launch.split(), *train]
        spread = [f"--nodes={asked.nodes}", f"--ntasks-per-node={processes}"]
        spread += [f"--cpus-per-task={asked.cpus}"] if asked.cpus else []  # not inherited
        return ["srun", "--kill-on-bad-exit=1", *spread, sys.executable, *train]

    def _call(self, command: list[str]) -> None:
        beside = self.resources.processes if self.several else 1
        share = int(os.environ.get("SLURM_CPUS_ON_NODE", 0)) // beside
        threads = self.resources.cpus or os.environ.get("OMP_NUM_THREADS") or share
        shape = {"OMP_NUM_THREADS": str(threads)} if threads else {}
        self._process = subprocess.Popen(command, env=os.environ | shape)
        try:
            code = self._process.wait()
        finally:
            self._stop()
        if code:
            how = f"with exit code {code} on {socket.gethostname()}"
            raise RuntimeError(f"{self.name} ended {how}: {shlex.join(command)}")

    def _stop(self) -> None:
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            process.terminate()
            # Not by wait(), whose lock is held where the signal came in between.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


@dataclass
class Job:
    """A notebook that is to be submitted, and its number then.

    Attributes:
        after: Run folders that it needs; it is cancelled if one of their jobs fails.
        behind: Those that it reads if they are there: it only waits until their jobs have ended.
    """

    task: Notebook
    after: tuple[Path, ...]
    behind: tuple[Path, ...] = ()
    number: str = ""


def prepare(steps: Sequence[Step], resources: Resources, busy: Mapping[Path, str]) -> list[Job]:
    """Return the jobs that steps of ``plan_all`` need, each after those that it waits for.

    A step that stands, and before which nothing is made anew, needs none.

    Args:
        busy: Run folders that have a job already, with its number.
    """
    jobs: dict[Path, Job] = {}
    folders, before = [step.folder.absolute() for step in steps], dependencies(steps)
    for i in sorted(range(len(steps)), key=lambda i: steps[i].number):
        step, folder, there = steps[i], folders[i], {*jobs, *busy}
        after = tuple(one for path in step.inputs if (one := path.absolute()) in there)
        reads = (folders[k] for k in sorted(before[i][1]))
        behind = tuple(one for one in reads if one in there and one not in after)
        if folder in busy or not (after or behind or reasons(step)):
            continue
        given = {name: step.given[name] for name in step.given if name != "PROFILE"}
        many = resources.processes * resources.nodes > 1 or given.get("RUN_ON") == "elsewhere"
        several = many and "RUN_ON" in step.values
        given |= {"RUN_ON": "elsewhere"} if several else {}
        typed = itertools.chain.from_iterable(("-p", k, str(v)) for k, v in given.items())
        command = [sys.executable, "-m", "bonelib", "run", step.number]
        command += ["--profile", step.values["PROFILE"], *typed]
        jobs[folder] = Job(Notebook(step.name, command, folder, resources, several), after, behind)
    return list(jobs.values())


def send(jobs: Sequence[Job], busy: Mapping[Path, str]) -> Iterator[Job]:
    """Submit jobs to Slurm and yield each with its number; it waits for those it needs.

    Raises:
        ValueError: There is no Slurm, or it refuses a job. Those before it stay submitted.
    """
    import submitit
    from submitit.core.utils import FailedJobError

    numbers = dict(busy)
    for job in jobs:
        task = job.task
        executor = submitit.SlurmExecutor(
            folder=task.folder / FOLDER,
            max_num_timeout=REQUEUES,
            python=f"exec {shlex.quote(sys.executable)}",  # the signal reaches Python, not a shell
        )
        after = [numbers[one] for one in job.after]
        waits = [f"afterok:{one}" for one in after]
        waits += [f"afterany:{numbers[one]}" for one in job.behind]
        options = task.resources.options(several=task.several)
        options |= dict(dependency=",".join(waits)) if waits else {}
        executor.update_parameters(job_name=f"{task.name}-{task.folder.name}", **options)
        try:
            job.number = executor.submit(task).job_id
        except FailedJobError as error:
            raise ValueError(_refused(task.name, str(error))) from error
        numbers[task.folder] = job.number
        _note(job, after)
        yield job


def _refused(name: str, said: str) -> str:
    lines = [line.partition("error: ")[2] or line for line in said.splitlines() if line.strip()]
    cures = [cure for word, cure in CURES.items() if word in said.lower()]
    return " ".join([f"Slurm refused {name}: {'; '.join(lines)}.", *cures])


def _note(job: Job, after: Sequence[str]) -> None:
    line = dict(job=job.number, run=str(job.task.folder), after=list(after))
    line |= dict(at=time.strftime("%Y-%m-%d %H:%M:%S"), command=job.task.command)
    with (runs.folder() / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def here(jobs: Sequence[Job]) -> Iterator[tuple[Job, str]]:
    """Run jobs on this machine, one after the other as Slurm would; yield each and what failed."""
    import submitit

    failed: set[Path] = set()
    for job in jobs:
        task, error = job.task, ""
        if broken := failed & {*job.after}:
            error = f"cancelled: it needs {', '.join(one.parts[-2] for one in broken)}"
        else:
            executor = submitit.LocalExecutor(task.folder / FOLDER, max_num_timeout=REQUEUES)
            asked = dict(nodes=task.resources.nodes, gpus_per_node=task.resources.gpus)
            executor.update_parameters(timeout_min=task.resources.minutes, **asked)
            local = executor.submit(task)
            local.wait()
            error = _left_behind(task.folder, local.job_id)[1]
        failed |= {task.folder} if error else set()
        yield job, error


def status() -> list[dict[str, Any]]:
    """Return the last job of each run, in order, with its ``state`` and a ``note``.

    Slurm is asked; of a job that it has forgotten, what the job left behind tells. The note says
    why a job waits, or how it failed.

    Raises:
        ValueError: There is no Slurm here, or it does not answer.
    """
    if not shutil.which("squeue"):
        raise ValueError(
            "There is no squeue on PATH: submit on a login node of the cluster, after its module "
            "(module load slurm) where it has one. --local runs the same jobs here."
        )
    path = runs.folder() / FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    jobs = list({one["run"]: one for one in map(json.loads, lines)}.values())
    asked = ["squeue", "--me", "--states=all", "--noheader", "--format=%i|%T|%r"]
    said = subprocess.run(asked, capture_output=True, text=True)
    if said.returncode:
        raise ValueError(f"Slurm does not answer: {said.stderr.strip()}")
    lines = [line.split("|", 2) for line in said.stdout.splitlines()]
    told = {number: rest for number, *rest in lines}
    for job in jobs:
        left, error = _left_behind(Path(job["run"]), job["job"])
        job["state"], job["note"] = told.get(job["job"], (left, ""))
        if job["state"] not in LIVE:
            job["note"] = "" if job["state"] == "COMPLETED" else error
    ended = {job["job"]: job["state"] for job in jobs}
    for job in jobs:
        broken = [one for one in job["after"] if ended.get(one, "") not in (*LIVE, "COMPLETED")]
        if job["state"] == "CANCELLED" and broken:
            job["note"] = f"it needs job {', '.join(broken)}, which did not finish"
    return jobs


def _left_behind(run: Path, number: str) -> tuple[str, str]:
    """Tell from the files of a job how it ended, and what it said of a failure."""
    result, log = (run / FOLDER / f"{number}_0_{end}" for end in ("result.pkl", "log.err"))
    if result.exists():
        end, said = pickle.loads(result.read_bytes())
        return ("COMPLETED", "") if end == "success" else ("FAILED", said.strip().splitlines()[-1])
    shared = "put BONELIB_RUNS on a file system that all nodes share"
    return "ENDED", f"see {log}" if log.exists() else f"it could not write {log}: {shared}"


def busy() -> dict[Path, str]:
    """Return the run folders whose job waits or runs, with its number."""
    return {Path(job["run"]): job["job"] for job in status() if job["state"] in LIVE}
