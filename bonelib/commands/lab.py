"""Open JupyterLab on notebook 01, with kernels that are this interpreter."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bonelib import headless
from bonelib.headless.kernel import PROCESS_ENVIRONMENT

# JupyterLab asks the package index for a newer version of itself, and offers news and extensions.
QUIET = (
    "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
    "--LabApp.news_url=None",
    "--LabApp.extension_manager=readonly",
)


def lab(options: Sequence[str]) -> int:
    """Become JupyterLab in ``notebooks/``; a port in use moves on to the next.

    Args:
        options: Of JupyterLab, passed on; ``--ServerApp.root_dir`` opens another folder.

    Raises:
        ValueError: JupyterLab or the kernel of this interpreter is missing.
    """
    kernels = Path(sys.prefix) / "share" / "jupyter"
    for name, there in (
        ("JupyterLab", importlib.util.find_spec("jupyterlab")),
        ("Its kernel (ipykernel)", (kernels / "kernels" / "python3" / "kernel.json").exists()),
    ):
        if not there:
            raise ValueError(f"{name} is not installed in {sys.prefix}. Run `make setup`.")
    first = headless.notebooks()["01"].resolve()
    given = [o.partition("=")[2] for o in options if o.startswith("--ServerApp.root_dir=")]
    root = Path(given[-1] if given else first.parent).resolve()
    own = [] if given else [f"--ServerApp.root_dir={root}"]
    if first.is_relative_to(root):
        own.append(f"--LabApp.default_url=/lab/tree/{first.relative_to(root).as_posix()}")
    os.environ.update({k: v for k, v in PROCESS_ENVIRONMENT.items() if k not in os.environ})
    # Searched first: a kernel python3 that the user registered may be another interpreter.
    paths = [str(kernels), *filter(None, [os.environ.get("JUPYTER_PATH")])]
    os.environ["JUPYTER_PATH"] = os.pathsep.join(paths)
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *QUIET, *own, *options])
