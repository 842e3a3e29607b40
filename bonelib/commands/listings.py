"""Tables for a terminal: what there is of each run before a call, what became of it after."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bonelib.commands.printing import short

if TYPE_CHECKING:
    from bonelib.headless import Outcome, State, Step

# The number of a record that stands for it, the first of these that it has.
PRIMARY = ("value", "auroc", "best by inner folds", "pointing", "recall_5", "facts_f1", "images")
NONE = "–"


def states(found: "Sequence[State]") -> Iterator[str]:
    """Yield a line for each run, with its folder, and one that says why."""
    width = max(len(one.step.name) for one in found)
    for one in found:
        took = f"{one.seconds:.0f} s" if one.seconds is not None else NONE
        when = one.when.removesuffix("+00:00").replace("T", " ") or NONE
        folder = short(one.step.folder)
        yield f"{one.step.name:<{width}}  {one.status:<8} {when:<19}  {took:>7}  {folder}"
        if one.why:
            yield "    " + one.why.replace("\n", "\n    ")


def failure(run: str, facts: Mapping[str, Any]) -> str:
    """Put what is kept of a failed run on one line."""
    took = f" after {_number(facts.get('seconds'))} s, {_number(facts.get('memory_gb'), 2)} GB"
    error = (facts.get("error") or "unknown").splitlines()[0]
    return f"{facts.get('status', 'failed')}: {run}: {facts.get('when', '')}{took}: {error}"


def outcomes(found: "Sequence[Outcome]") -> list[str]:
    """Return a table of what became of each notebook of a call, and what it took.

    Of a notebook that was executed time and memory are those seen from outside, of one that was
    reused those of its record.
    """
    import pandas as pd

    table = pd.DataFrame([_row(one) for one in found])
    several = [name for name in table if name != "task" or table[name].nunique() > 1]
    return table[several].to_string(index=False, justify="left").splitlines()


def _row(outcome: "Outcome") -> dict[str, Any]:
    from bonelib import runs

    step, record = outcome.step, None
    if outcome.status in ("executed", "reused"):
        with contextlib.suppress(FileNotFoundError, ValueError):  # another process makes it anew
            record = runs.Record(step.folder)
    facts = dict(record.head if record else {}) | outcome.facts
    gpu = facts.get("gpu")
    return {
        "notebook": step.name,
        "task": step.values["TASK"],
        "variant": step.values["VARIANT"],
        "seed": step.values["SEED"],
        "status": outcome.status,
        "wall s": _number(facts.get("seconds")),
        "CPU s": _number(facts.get("cpu_seconds")),
        "memory GB": _number(facts.get("memory_gb"), 2),
        "GPU": f"{gpu}, {_number(facts.get('gpu_memory_gb'), 2)} GB" if gpu else NONE,
        "metric": _primary(step, record) if record else NONE,
    }


def _number(value: float | None, digits: int = 0) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _primary(step: "Step", record: Any) -> str:
    """Name the metric that stands for a run: of several methods the one validation chose."""
    from bonelib import figures, reporting

    with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
        best = reporting.evidence.choose(record.table("validation"), task=step.values["TASK"])
        name = figures.display_name(best)
        return f"{name} {record.metrics[name]:.3f}"
    for name in (name for name in PRIMARY if name in record.metrics):
        value = record.metrics[name]
        label = record.metrics.get("metric", name) if name == "value" else name
        return f"{label} {value:.3f}" if isinstance(value, float) else f"{label} {value}"
    return NONE
