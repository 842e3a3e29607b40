"""Execute steps beside each other, as far as their order allows, and reuse what stands.

Steps come in; one outcome for each goes out. A step starts when all that come before it have ended.
Threads wait for kernels here; the work is done in these, each with its share of the cores.
"""

import contextlib
import threading
import time
from collections.abc import Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import runs
from .execute import Say, execute
from .plan import Step, dependencies

PAUSE = 0.2  # seconds after which the main thread looks whether it was interrupted


@dataclass
class Outcome:
    """What became of one notebook.

    Attributes:
        status: ``executed, reused, planned, failed, stopped`` or ``interrupted``. A planned one
            left its training to another machine; those that need it are stopped.
        facts: What a notebook that was executed took, see ``execute``.
        refused: What the system refused of the run folder.
    """

    step: Step
    status: str
    error: str = ""
    published: list[Path] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    refused: OSError | None = None


class Stopped(Exception):
    """The call was interrupted while a job waited for a lock."""


def run_steps(steps: Sequence[Step], *, jobs: int, say: Say) -> list[Outcome]:
    """Execute steps, ``jobs`` at a time; one that fails stops only those that need it.

    Args:
        say: Called with each line of progress, by one thread at a time; where several notebooks
            run, each line begins with the name of its own.

    Raises:
        OSError: The system refused a run folder, and nothing else came of the call.
        KeyboardInterrupt: Passed on when all kernels are stopped and their copies kept; a second
            one at once, while they are being kept.
    """
    before, stop = dependencies(steps), threading.Event()
    outcomes: dict[int, Outcome] = {}
    running: dict[futures.Future[Outcome], int] = {}
    job = _Job(steps, jobs, say, stop)
    pool = futures.ThreadPoolExecutor(jobs)
    try:
        while len(outcomes) < len(steps):
            begun = outcomes.keys() | {*running.values()}
            ready = [
                i for i in range(len(steps)) if i not in begun and before[i][1] <= outcomes.keys()
            ]
            for i in ready[: jobs - len(running)]:
                broken = [steps[n] for n in sorted(before[i][0]) if outcomes[n].error]
                running[pool.submit(job.one, steps[i], broken)] = i
            # With a timeout, since a signal that another thread took does not end a wait.
            for done in futures.wait(running, PAUSE, futures.FIRST_COMPLETED).done:
                outcomes[running.pop(done)] = done.result()
    except KeyboardInterrupt:
        stop.set()  # kernels are stopped, their threads keep the copies and end
        while futures.wait(running, PAUSE).not_done:
            pass
        raise
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
    refused = [one.refused for one in outcomes.values() if one.refused]
    if refused and all(one.refused or one.status == "stopped" for one in outcomes.values()):
        raise refused[0]
    return [outcomes[i] for i in range(len(steps))]


class _Job:
    """What the jobs of a call share."""

    def __init__(self, steps: Sequence[Step], jobs: int, say: Say, stop: threading.Event):
        self.jobs, self.stop = jobs, stop
        self._say, self._speaking = say, threading.Lock()
        self._labels = _labels(steps)
        self._width = max(len(label) for label in self._labels.values())

    def one(self, step: Step, broken: Sequence[Step]) -> Outcome:
        """Execute a step, or say why that is not needed or not possible."""
        label = f"{self._labels[step.folder]:<{self._width}}"

        def said(line: str) -> None:
            with self._speaking:
                self._say(f"{label} {line}")

        def printed(line: str) -> None:
            with self._speaking:
                self._say(line if self.jobs == 1 else f"{label} {line}")

        if broken:
            error = f"it needs {', '.join(one.number for one in broken)}, which did not finish"
            said(f"not started: {error}")
            return Outcome(step, "stopped", error)
        waited = set()

        def wait(who: str) -> None:
            if who not in waited:
                said(f"waits: {who} works on {step.folder}")
            waited.add(who)
            if self.stop.wait(PAUSE):
                raise Stopped

        try:
            with runs.alone(step.folder, wait):  # another process at the same run: wait, then reuse
                return self._execute(step, said, printed)
        except Stopped:
            return Outcome(step, "interrupted", "interrupted while it waited")
        except (OSError, ValueError) as error:  # of the run folder: others may go on
            said(f"failed: {error}")
            refused = error if isinstance(error, OSError) else None
            return Outcome(step, "failed", str(error), refused=refused)

    def _execute(self, step: Step, said: Say, printed: Say) -> Outcome:
        why = reasons(step)
        if not why:
            kept = step.folder / runs.FAILED  # of a later try that failed, of a notebook now gone
            with contextlib.suppress(OSError):  # it may only be read
                kept.unlink()
            said(f"reused {step.folder}")
            return Outcome(step, "reused", published=_published(step))
        there = (step.folder / "record.json").exists()
        again = f", again since {'; '.join(why)}" if there else ""
        said(f"started {time.strftime('%H:%M:%S')}{again}")
        status, facts = execute(step, printed, jobs=self.jobs, stop=self.stop)
        outcome = Outcome(step, status, facts["error"], facts=facts)
        if status == "executed":
            said(f"done in {facts['seconds']:.0f} s")
            outcome.published = _published(step)
        else:
            said(f"{status} after {facts['seconds']:.0f} s")
            printed("    " + outcome.error.replace("\n", "\n    "))
        return outcome


def _labels(steps: Sequence[Step]) -> dict[Path, str]:
    """Name each run shortly: its notebook, and where there are several of one, what differs."""
    several = len({step.number for step in steps}) < len(steps)
    tasks = len({step.values["TASK"] for step in steps}) > 1
    found = {}
    for step in steps:
        names = [step.name, *([step.folder.parts[-3]] if tasks else ())]
        found[step.folder] = " ".join([*names, *([step.folder.name] if several else ())])
    return {path: f"{label:<16}" for path, label in found.items()}


def reasons(step: Step) -> list[str]:
    """Say why a step must be executed; empty if its record stands."""
    if not step.values["REUSE"]:
        return ["REUSE is False"]
    try:
        record = runs.Record(step.folder)
    except (FileNotFoundError, ValueError) as error:  # never finished here, or of an older version
        return [str(error)]
    return stale(step, record)


def stale(step: Step, record: "runs.Record") -> list[str]:
    """Say in which way a record is not what the step would make; empty if it stands."""
    place = step.place(step.stage)
    found = runs.stale(record, data=place["data"], root=place["root"])
    return found or runs.freshness.notebook_changes(record.head["notebook"], step.notebook)


def _published(step: Step) -> list[Path]:
    record = runs.Record(step.folder)
    folder = runs.figures_folder(record.head["data_name"])
    paths = [folder / name for name in dict.fromkeys(record.notes.get("published", []))]
    return [path for path in paths if path.exists()]
