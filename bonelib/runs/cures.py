"""The commands that make runs again, with every parameter that they had.

Heads of records come in, or the names of a run; one line for a shell goes out. What is advised is
what works: the parameters that name a run, and those that the runner passed when it was made.
"""

import itertools
import os
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from bonelib.runs.paths import is_drawn
from bonelib.runs.stages import ANY_TASK, NOTEBOOKS

USUAL = {"DATA_ROOT": "", "TASK": "tumor", "SEED": 0, "VARIANT": "default"}  # need not be said


def cure(stage: str, *, profile: str, **named: Any) -> str:
    """Return the command that makes the run of a stage.

    Args:
        named: ``data, root, task, seed, variant``, and ``given``: parameters by name.
    """
    return _command([NOTEBOOKS.get(stage, stage)], profile, _parameters(stage, **named))


def commands(heads: Iterable[Mapping[str, Any]]) -> str:
    """Return what makes runs again in this order; notebooks with the same parameters together."""
    calls = []
    for head in heads:
        named = {key: head[key] for key in ("data", "root", "task", "seed", "variant")}
        given = head.get("notebook", {}).get("given", {})
        call = (head["profile"], _parameters(head["stage"], **named, given=given))
        calls.append((call, NOTEBOOKS.get(head["stage"], head["stage"])))
    grouped = itertools.groupby(calls, key=lambda one: one[0])
    return " && ".join(_command([number for _, number in them], *call) for call, them in grouped)


def _parameters(
    stage: str,
    *,
    data: str,
    root: str = "",
    task: str = "any",
    seed: int = 0,
    variant: str = "default",
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    named = {"DATA_ROOT": "" if is_drawn(data) else root, "SEED": seed, "VARIANT": variant}
    if stage not in ANY_TASK and task != "any":
        named["TASK"] = task
    said = {name: value for name, value in named.items() if value != USUAL[name]}
    data = os.path.abspath(data) if data.endswith(".csv") else data
    return {"DATA": data} | said | {k: v for k, v in (given or {}).items() if k not in named}


def _command(numbers: list[str], profile: str, parameters: Mapping[str, Any]) -> str:
    words = ["bonelib", "run", *numbers, "--profile", profile]
    for name, value in parameters.items():
        words += ["-p", name, str(value)]
    return shlex.join(words)
