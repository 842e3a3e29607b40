"""A row of ``make bench``: two costs and a target that is met, missed, or was not measured."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

ROWS: list[dict] = []


def cpu(call: Callable[[], object], *, repeats: int = 5) -> float:
    """Median CPU seconds of a call, after one warm-up."""
    call()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return statistics.median(times)


def row(name: str, ours: float, other: float | None, *, unit: str, target: str, met: bool) -> None:
    """Keep and print a row; ``other`` is None where a target stands alone."""
    ratio = other / ours if other else None
    ROWS.append(
        {"name": name, "ours": ours, "other": other, "ratio": ratio, "target": target, "met": met}
    )
    beside = f"beside {other:>9.4g} {unit:<3} x{ratio:<7.3g}" if other else " " * 29
    print(
        f"{name:<58} {ours:>9.4g} {unit:<3} {beside} "
        f"target {target:<18} {'met' if met else 'MISSED'}",
        flush=True,
    )


def not_measured(name: str, reason: str) -> None:
    """Keep and print that a rival could not be measured, which no summary may pass over."""
    ROWS.append({"name": name, "met": None, "reason": reason})
    print(f"{name:<58} NOT MEASURED: {reason}", flush=True)


def finish(path: Path) -> int:
    """Write all rows and print the summary; 0 only if each was measured and met its target."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(ROWS, indent=1) + "\n")
    temporary.replace(path)
    of = {met: [r["name"] for r in ROWS if r["met"] is met] for met in (True, False, None)}
    print(f"{len(of[True])} of {len(ROWS)} targets met; rows in {path.name}")
    for word, names in (("missed", of[False]), ("not measured", of[None])):
        if names:
            print(f"{len(names)} {word}: {'; '.join(names)}")
    return 1 if of[False] or of[None] else 0
