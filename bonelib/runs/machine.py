"""What else a run depends on: random state, versions, the machine."""

import contextlib
import os
import platform
import random
import subprocess
import sys
from importlib import metadata

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
