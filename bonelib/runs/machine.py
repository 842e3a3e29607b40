"""What else a run depends on, and what it takes: random state, versions, the machine, its costs."""

import contextlib
import os
import platform
import random
import resource
import subprocess
import sys
from importlib import metadata
from typing import Any

import numpy as np

from bonelib.runs.paths import ROOT

_VERSIONS = ("torch", "torchvision", "timm", "open_clip_torch", "scikit-learn", "pandas", "numpy")


def seed_everything(seed: int) -> None:
    """Seed python, numpy and, where it is loaded, torch."""
    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def commit() -> str | None:
    """Name the commit of the checkout, with a plus if tracked files differ from it."""
    options = dict(capture_output=True, encoding="utf-8", errors="replace")

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, check=True, **options)
        return done.stdout.strip()

    try:
        # Not the status: it calls a notebook changed whose outputs a filter strips (`make lab`).
        dirty = git("diff", "--name-only", "HEAD", "--", "bonelib", "notebooks")
        return git("rev-parse", "--short", "HEAD") + ("+" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return None  # not a checkout: the hash of the sources still tells


def versions() -> dict[str, str]:
    """List the versions of python and of the packages that compute."""
    found = {"python": platform.python_version()}
    for name in _VERSIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def threads() -> int:
    """Count the threads that compute: with another number, sums are rounded in another order."""
    if "torch" in sys.modules:
        return sys.modules["torch"].get_num_threads()
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def device() -> str:
    """Name the GPU, else the kind of processor and its cores."""
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        return sys.modules["torch"].cuda.get_device_name()
    return f"{platform.machine()}, {os.cpu_count()} cores"


def cpu_seconds() -> float:
    """CPU seconds of this process and of those that it started and that have ended."""
    spent = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)


def memory() -> dict[str, Any]:
    """Return the peak of this process since it started, in GB (2³⁰ bytes), and that of the GPU.

    Returns:
        ``memory_gb`` (of its largest child if that took more), ``gpu`` (its name, or None) and
        ``gpu_memory_gb`` (what torch had allocated at once, or None).
    """
    spent = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, kB on Linux
    found: dict[str, Any] = {"memory_gb": round(max(s.ru_maxrss for s in spent) / unit, 3)}
    cuda = sys.modules["torch"].cuda if "torch" in sys.modules else None
    there = cuda is not None and cuda.is_available()
    peak = round(cuda.max_memory_allocated() / 2**30, 3) if there else None
    return found | {"gpu": cuda.get_device_name() if there else None, "gpu_memory_gb": peak}
