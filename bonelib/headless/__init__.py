"""Run the numbered notebooks without a browser: check first, execute in order, reuse what stands.

Numbers and parameters come in; executed copies in the run folders and one outcome per notebook go
out. Everything a user can mistype is refused before the first kernel starts (``plan``); "finished"
is always the record in the run folder (``execute``), and a finished run is executed again only if
its record is stale (``runs.stale``), or its notebook or parameters are others than those recorded.
"""

from collections.abc import Callable, Sequence
from typing import Any

from .jobs import Outcome, run_steps
from .plan import PROFILES, Call, Step, notebooks, plan, plan_all
from .states import State, states
from .studies import study
from .sweep import sweep


def run(
    numbers: Sequence[str] = (),
    *,
    jobs: int = 1,
    say: Callable[[str], None] = lambda line: None,
    **call: Any,
) -> list[Outcome]:
    """Execute notebooks in order, reusing those whose inputs and settings are unchanged.

    A failing notebook keeps its partial copy, loses the record it may have written, and stops those
    that need it; the others go on. What is raised, and the arguments, stand in ``plan_all`` and
    ``run_steps``.
    """
    return run_steps(plan(numbers, **call), jobs=jobs, say=say)
