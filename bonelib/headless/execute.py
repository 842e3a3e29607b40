"""Execute one notebook in a kernel of its own and keep its copy, whatever happens.

A step comes in; the executed copy in the run folder and what went wrong, if anything, go out. The
kernel is this interpreter and talks over sockets in a private folder, not over open TCP ports. A
notebook has finished when its record exists: papermill marks the cells of a killed kernel as
completed, so their status tells nothing.
"""

import json
import os
import re
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import runs
from .plan import Step

# glibc gives large tensors back to the system after each step and takes 40 % of the CPU time in
# page faults; these thresholds keep them. OpenMP's threads spin while they wait for each other,
# which takes two thirds of the CPU time where other processes run beside; 1000 turns are enough
# to meet on a free machine. BLAS has threads of its own that spin likewise, and its problems here
# are too small to be parted. What the user has set stands.
PROCESS_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "16000000000",
    "MALLOC_TOP_PAD_": "500000000",
    "GOMP_SPINCOUNT": "1000",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONUTF8": "1",
}
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(r"^(File .+:\d+, in .+|Cell In\[\d+\], line \d+)", re.MULTILINE)


def execute(step: Step, report: Callable[[str], None]) -> tuple[str, str]:
    """Run one notebook and keep its copy; return ``executed, failed`` or ``planned``, and why.

    It is planned if it ended with a plan in its run folder: its training is left to others. The
    copy has the name of a failed one until the run is known to have succeeded, so that a killed
    session leaves the right name behind.

    Raises:
        KeyboardInterrupt: Passed on; the copy is kept, and no record that this run wrote.
    """
    names = ("record.json", "plan.json", "notebook-failed.ipynb")
    record, plan, copy = (step.folder / name for name in names)
    before, planned_before = _stamp(record), _stamp(plan)
    executed = _Copy(copy, report)
    try:
        _run_cells(step, executed, report)
        if not executed.error and not record.exists():
            executed.error = (
                f"the notebook left no record: {record} does not exist. It must end with\n"
                "run.finish(…) of a run started with its own parameters."
            )
    finally:
        error = executed.error
        if error and record.exists() and _stamp(record) != before:
            record.unlink()
        elif not error and copy.exists():
            copy.replace(step.folder / "notebook.ipynb")
    if error and runs.planned(step.folder) and _stamp(plan) != planned_before:
        return "planned", runs.how_to_train(step.folder)
    if error:
        return "failed", f"{error}\nWhat it did so far: {copy}"
    return "executed", ""


def _stamp(path: Path) -> tuple[int, bytes] | None:
    return (path.stat().st_mtime_ns, path.read_bytes()) if path.exists() else None


def _run_cells(step: Step, copy: "_Copy", report: Callable[[str], None]) -> None:
    """Execute the cells in a fresh kernel, keeping the copy as it grows, with the error."""
    import papermill
    from jupyter_core.utils import run_sync
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    lines = _Lines(report, copy)
    with tempfile.TemporaryDirectory(prefix="bone-", dir=_socket_root()) as private:
        kernel = _kernel(Path(private), step)
        try:
            papermill.execute_notebook(
                str(step.source),
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
            copy.failed(_ended(kernel.provisioner.process))
        except (RuntimeError, TimeoutError, OSError) as raised:
            copy.failed(f"{type(raised).__name__}: {raised}")
        except KeyboardInterrupt:
            said = "interrupted from the keyboard. What it did so far"
            report(f"    {copy.cell}: {said}: {copy.path}")
            raise
        finally:
            lines.close()
            copy.save()
            if kernel.has_kernel:
                run_sync(kernel.shutdown_kernel)(now=bool(copy.error))


class _Copy:
    """The executed copy while it grows, the cell that runs, and what went wrong, if anything."""

    def __init__(self, path: Path, report: Callable[[str], None]):
        self.path, self.report = path, report
        self.error = "interrupted"  # until the cells have come to an end
        self.notebook: Any = None
        self.cell = "before the first cell"
        self._cells = 0
        self._saved = time.monotonic()

    def begin(self, notebook: Any) -> None:
        self.notebook = notebook

    def count(self, cell: Any, cell_index: int) -> None:
        self._cells += 1  # the number that In [ ] shows in the copy
        self.cell = _named(self._cells, cell.source)

    def failed(self, why: str) -> None:
        """Note what went wrong in the cell that runs, if anything."""
        self.error = why and f"{self.cell}: {why}"

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
            except OSError as error:  # the run itself may still be whole
                self.report(f"    {self.path} can't be written ({error.strerror}).")
        self._saved = time.monotonic()


class _Lines:
    """A file for what the kernel prints: complete lines are reported, indented, as they come."""

    def __init__(self, report: Callable[[str], None], copy: _Copy):
        self.report, self.copy = report, copy
        self._rest = ""

    def write(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self.report("    " + line.rsplit("\r", 1)[-1])
        self.copy.save_sometimes()

    def flush(self) -> None:
        """Nothing is held back but an unfinished line."""

    def close(self) -> None:
        if self._rest:
            self.write("\n")


def _socket_root() -> str:
    # A socket path has 107 characters at most; the folder of a cluster job can be longer.
    root = tempfile.gettempdir()
    return root if len(root) <= 60 else "/tmp"


def _kernel(private: Path, step: Step) -> Any:
    """Prepare a kernel that is this interpreter and talks through sockets in a private folder."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager

    kernel = AsyncKernelManager(
        kernel_name="python3",
        transport="ipc",
        connection_file=str(private / "k.json"),
        # no folders searched: the spec of ipykernel itself, whatever the user has registered
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
    )
    kernel.kernel_spec.argv.append("--log-level=50")  # shutting down is no error to print
    unset = {k: v for k, v in PROCESS_ENVIRONMENT.items() if k not in os.environ}
    kernel.kernel_spec.env = unset | {runs.freshness.NOTEBOOK: json.dumps(step.notebook)}
    return kernel


def _explain(error: Any) -> str:
    frames = _FRAME.findall(_ANSI.sub("", "\n".join(error.traceback)))
    where = f"\nat {frames[-1]}" if frames else ""
    return f"{error.ename}: {_ANSI.sub('', error.evalue)}{where}"


def _named(number: int | None, source: str) -> str:
    first = next(line for line in source.splitlines() if line.strip())
    return f"cell In [{number}] ({first.strip()[:60]})"


def _ended(process: subprocess.Popen) -> str:
    """Say how a kernel ended that should still run."""
    code = process.wait(timeout=10)
    if code == -signal.SIGKILL:
        return f"the kernel was killed, most often for want of memory{_memory()}"
    if code < 0:
        return f"the kernel was ended by {signal.Signals(-code).name}{_memory()}"
    return f"the kernel ended itself with exit code {code}, as exit() in a cell does"


def _memory() -> str:
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # kB on Linux
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"\n(largest kernel so far {peak:.1f} GB, this machine has {there:.1f} GB)"
