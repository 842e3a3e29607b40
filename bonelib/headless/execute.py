"""Execute one notebook in a kernel of its own and keep its copy, whatever happens.

A step comes in; the executed copy in the run folder and what became of it go out. A notebook has
finished when its record exists: papermill marks the cells of a killed kernel as completed, so their
status tells nothing. What went wrong is kept from outside, in ``failed.json``, until it succeeds.
"""

import json
import re
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import runs
from .kernel import Watch, prepare, socket_root
from .plan import Step

COPY = "notebook-failed.ipynb"  # until the run is known to have succeeded
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(r"^(File .+:\d+, in .+|Cell In\[\d+\], line \d+)", re.MULTILINE)
Say = Callable[[str], None]


def execute(
    step: Step, say: Say, *, jobs: int, stop: threading.Event
) -> tuple[str, dict[str, Any]]:
    """Run one notebook and keep its copy.

    It is planned if it ended with a plan in its run folder: its training is left to others. The
    copy has the name of a failed one until the run is known to have succeeded, so that a killed
    session leaves the right name behind.

    Args:
        jobs: How many kernels share the machine.
        stop: Set by whoever wants the kernel stopped; the copy is kept, and no record that this
            run wrote.

    Returns:
        ``executed, failed, planned`` or ``interrupted``, and facts: ``error`` (empty if none),
        ``cell``, ``signal`` and ``exit`` of a kernel that ended, ``seconds, cpu_seconds``
        and ``memory_gb`` seen from outside.
    """
    record, plan, copy = (step.folder / name for name in ("record.json", "plan.json", COPY))
    before, planned_before = _stamp(record), _stamp(plan)
    executed, began = _Copy(copy, say), time.monotonic()
    try:
        spent = _run_cells(step, executed, jobs=jobs, stop=stop)
    finally:
        if not executed.error and not record.exists():
            executed.error = (
                f"the notebook left no record: {record} does not exist. It must end with\n"
                "run.finish(…) of a run started with its own parameters."
            )
        if executed.error and record.exists() and _stamp(record) != before:
            record.unlink()
    facts = executed.facts() | spent | {"seconds": round(time.monotonic() - began, 1)}
    if not executed.error:
        if executed.whole:
            copy.replace(step.folder / "notebook.ipynb")
        (step.folder / runs.FAILED).unlink(missing_ok=True)
        return "executed", facts
    if stop.is_set():
        facts["error"] = f"{executed.cell}: interrupted from outside"
        status = "interrupted"
    elif runs.planned(step.folder) and _stamp(plan) != planned_before:
        return "planned", facts | {"error": runs.how_to_train(step.folder)}
    else:
        status = "failed"
    _keep(step, facts | {"status": status}, say)
    return status, facts | {"error": f"{facts['error']}\nWhat it did so far: {copy}"}


def _stamp(path: Path) -> tuple[int, bytes] | None:
    return (path.stat().st_mtime_ns, path.read_bytes()) if path.exists() else None


def _keep(step: Step, facts: dict[str, Any], say: Say) -> None:
    """Write what went wrong beside what there is of the run."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    told = {"when": now, "notebook": step.notebook, "commit": runs.machine.commit()}
    try:
        with runs.replacing(step.folder / runs.FAILED) as temporary:
            text = json.dumps(facts | told, indent=1, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")
    except OSError as error:  # a full disk, which may be what went wrong
        say(f"    {step.folder / runs.FAILED} can't be written ({error.strerror}).")


def _run_cells(step: Step, copy: "_Copy", *, jobs: int, stop: threading.Event) -> dict[str, float]:
    """Execute the cells in a fresh kernel, keeping the copy as it grows, with the error."""
    import papermill
    from jupyter_core.utils import run_sync
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    lines = _Lines(copy)
    with tempfile.TemporaryDirectory(prefix="bone-", dir=socket_root()) as private:
        source = Path(private) / step.source.name  # as it was read, whatever is saved meanwhile
        source.write_text(step.text, encoding="utf-8")
        kernel = prepare(Path(private), step, jobs)
        watch = Watch(kernel, stop)
        try:
            papermill.execute_notebook(
                str(source),
                None,
                parameters=step.given,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                stdout_file=lines,
                request_save_on_cell_execute=False,  # papermill writes the whole file per cell
                autosave_cell_every=0,
                iopub_timeout=60,
                km=kernel,
                on_notebook_start=copy.begin,
                on_cell_execute=copy.count,
                on_cell_executed=copy.save_sometimes,
            )
            copy.error = ""
        except PapermillExecutionError as raised:  # for an expected exception as well
            copy.cell = _named(raised.exec_count, raised.source)
            copy.failed("" if copy.expects_an_exception(raised.source) else _explain(raised))
        except DeadKernelError:
            copy.ended = watch.ended()
            copy.failed(copy.ended.pop("why"))
        except (RuntimeError, TimeoutError, OSError) as raised:
            copy.failed(f"{type(raised).__name__}: {raised}")
        finally:
            lines.close()
            copy.save()
            watch.close()
            if kernel.has_kernel:
                run_sync(kernel.shutdown_kernel)(now=bool(copy.error))
    return {"cpu_seconds": round(watch.cpu_seconds, 1), "memory_gb": round(watch.memory_gb, 3)}


class _Copy:
    """The executed copy while it grows, the cell that runs, and what went wrong, if anything."""

    def __init__(self, path: Path, say: Say):
        self.path, self.say = path, say
        self.error = "interrupted"  # until the cells have come to an end
        self.ended: dict[str, Any] = {}  # how the kernel did
        self.notebook: Any = None
        self.cell = "before the first cell"
        self._cells, self.whole = 0, False  # whether it was saved to the end
        self._saved = time.monotonic()

    def begin(self, notebook: Any) -> None:
        """Keep the copy from the start, so that even a runner that is killed leaves one."""
        self.notebook = notebook
        self.save()

    def count(self, cell: Any, cell_index: int) -> None:
        self._cells += 1  # the number that In [ ] shows in the copy
        self.cell = _named(self._cells, cell.source)

    def failed(self, why: str) -> None:
        """Note what went wrong in the cell that runs, if anything."""
        self.error = why and f"{self.cell}: {why}"

    def facts(self) -> dict[str, Any]:
        """Return what is known of an error."""
        return {"error": self.error, "cell": self.cell, **self.ended}

    def expects_an_exception(self, source: str) -> bool:
        """Tell whether the cell has Jupyter's tag for that; nbclient then goes on."""
        cells = (cell for cell in self.notebook.cells if cell.source == source)
        return any("raises-exception" in cell.metadata.get("tags", ()) for cell in cells)

    def save_sometimes(self, **about: Any) -> None:
        if time.monotonic() - self._saved > 60:  # for a session that is killed as a whole
            self.save()

    def save(self) -> None:
        import nbformat

        if self.notebook is not None:
            try:
                with runs.replacing(self.path) as temporary:
                    temporary.write_text(nbformat.writes(self.notebook), encoding="utf-8")
                self.whole = True
            except OSError as error:  # the run itself may still be
                self.whole = False
                self.say(f"    {self.path} can't be written ({error.strerror}).")
        self._saved = time.monotonic()


class _Lines:
    """A file for what the kernel prints: complete lines are said, indented, as they come."""

    def __init__(self, copy: _Copy):
        self.copy = copy
        self._rest = ""

    def write(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self.copy.say("    " + line.rsplit("\r", 1)[-1])
        self.copy.save_sometimes()

    def flush(self) -> None:
        """Nothing is held back but an unfinished line."""

    def close(self) -> None:
        if self._rest:
            self.write("\n")


def _explain(error: Any) -> str:
    frames = _FRAME.findall(_ANSI.sub("", "\n".join(error.traceback)))
    where = f"\nat {frames[-1]}" if frames else ""
    return f"{error.ename}: {_ANSI.sub('', error.evalue)}{where}"


def _named(number: int | None, source: str) -> str:
    first = next(line for line in source.splitlines() if line.strip())
    return f"cell In [{number}] ({first.strip()[:60]})"
