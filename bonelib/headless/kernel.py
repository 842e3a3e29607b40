"""The process of a kernel, as its runner sees it: how it starts, what it takes, how it ended.

The kernel is this interpreter and talks over sockets in a private folder, not over open TCP ports.
It ends with its runner: ipykernel looks every second whether its parent is still there.
"""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
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
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")  # of torch, of tokenizers
PAUSE = 0.5  # seconds between two looks at a kernel


def environment(jobs: int) -> dict[str, str]:
    """Return what a kernel finds set, with its share of the cores beside other jobs."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = dict.fromkeys(THREADS, str(max(1, mine // jobs))) if jobs > 1 else {}
    unset = PROCESS_ENVIRONMENT | threads
    return {name: value for name, value in unset.items() if name not in os.environ}


def prepare(private: Path, step: Step, jobs: int) -> Any:
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
    told = {runs.freshness.NOTEBOOK: json.dumps(step.notebook).replace("$", "$$")}
    kernel.kernel_spec.env = environment(jobs) | told  # a name after a $ would be filled in
    return kernel


def socket_root() -> str:
    """Return where private folders go: a socket's path has 107 letters, a job's folder may more."""
    root = tempfile.gettempdir()
    return root if len(os.fsencode(root)) <= 60 else "/tmp"


class Watch:
    """Looks at a kernel while it runs, so that what it took is known when it is gone; may stop it.

    Attributes:
        memory_gb: The most memory seen, of the kernel and the processes it started.
        cpu_seconds: Theirs, when last seen.
    """

    def __init__(self, kernel: Any, stop: threading.Event):
        self.memory_gb = self.cpu_seconds = 0.0
        self.process: subprocess.Popen | None = None
        self._kernel, self._stop, self._done = kernel, stop, False
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._done:
            self.look()
            if self._stop.wait(PAUSE) and not self._done:
                if self.process and self.process.poll() is None:
                    os.killpg(self.process.pid, signal.SIGKILL)  # it leads a session of its own
                time.sleep(PAUSE / 10)  # where it has not started yet

    def look(self) -> None:
        """Take what the kernel uses now."""
        import psutil

        self.process = self.process or getattr(self._kernel.provisioner, "process", None)
        try:
            first = psutil.Process(self.process.pid) if self.process else None
            every = [first, *first.children(recursive=True)] if first else []
            memory = sum(one.memory_info().rss for one in every) / 2**30
            spent = sum(sum(one.cpu_times()[:4]) for one in every)  # of ended children as well
        except psutil.Error:  # it has ended meanwhile
            return
        self.memory_gb = max(self.memory_gb, memory)
        self.cpu_seconds = max(self.cpu_seconds, spent)

    def close(self) -> None:
        """Look for the last time; the process may get another number from now on."""
        self.look()
        self._done = True

    def ended(self) -> dict[str, Any]:
        """Say how a kernel ended that should still run: ``signal`` or ``exit``, and ``why``."""
        if self.process is None:
            return {"why": "the kernel ended before it was seen"}
        code = self.process.wait(timeout=10)
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        seen = f"\n({self.memory_gb:.1f} GB were seen in use, this machine has {there:.1f} GB)"
        if code >= 0:
            why = f"the kernel ended itself with exit code {code}, as exit() in a cell does"
            return {"exit": code, "why": why}
        name = signal.Signals(-code).name
        why = f"the kernel was ended by {name}"
        if code == -signal.SIGKILL:
            why = "the kernel was killed, most often for want of memory"
        return {"signal": name, "why": why + seen}
