"""What there is of each notebook of a call before it starts: a fresh record, a stale one, none.

Steps come in; one state for each goes out. Nothing is started or written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .. import runs
from .execute import COPY
from .jobs import stale
from .plan import Step


@dataclass(frozen=True)
class State:
    """What is there of one run.

    Attributes:
        status: ``running`` (a runner or a notebook works on it), ``fresh``, ``stale``, ``planned``
            (its training is left to others), ``failed`` or ``missing``.
        why: Of a stale one in sentences, of a failed one what went wrong, of a running one by whom.
        when: When it finished, failed or was started, in ISO format; empty if unknown.
        seconds: How long it took; None if unknown.
    """

    step: Step
    status: str
    why: str = ""
    when: str = ""
    seconds: float | None = None


def states(steps: Sequence[Step]) -> list[State]:
    """Look at the run folder of each step."""
    return [_state(step) for step in steps]


def _state(step: Step) -> State:
    for name in ("lock", "writing"):
        lock = runs.paths.lock(step.folder, name)
        if who := runs.locks.owner(lock):
            return State(step, "running", f"by {who}", _changed(lock))
    try:
        if failed := runs.freshness.read(step.folder, runs.FAILED):
            failed = {"error": "unknown"} | failed
    except runs.freshness.Damaged as error:
        failed = {"error": str(error)}
    try:
        record = runs.Record(step.folder)
    except FileNotFoundError:
        pass
    except ValueError as error:  # damaged, or of an older version
        return State(step, "stale", str(error).splitlines()[0])
    else:
        reasons = stale(step, record)
        last = [f"a later try failed: {failed['error']}"] if failed else []
        status, facts = "stale" if reasons else "fresh", record.head
        why = "; ".join([*reasons, *last])
        return State(step, status, why, facts["finished"], facts["seconds"])
    if failed:
        return State(step, "failed", failed["error"], failed.get("when", ""), failed.get("seconds"))
    if runs.planned(step.folder):
        how = runs.how_to_train(step.folder).splitlines()[0]
        return State(step, "planned", how, _changed(step.folder / "plan.json"))
    if (copy := step.folder / COPY).exists():
        return State(step, "failed", f"its runner was killed; what it did: {copy}", _changed(copy))
    return State(step, "missing")


def _changed(path: Path) -> str:
    try:
        changed = path.stat().st_mtime
    except OSError:
        return ""
    return datetime.fromtimestamp(changed, UTC).isoformat(timespec="seconds")
