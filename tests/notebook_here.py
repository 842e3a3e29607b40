"""Execute a notebook's cells in this process: its argument without the price of a kernel."""

import json
from typing import Any

import matplotlib

from bonelib import headless


def run_here(number: str, **given: Any) -> dict[str, Any]:
    """Execute a numbered notebook with parameters; return the names it leaves.

    The cells are those that a kernel would run, in their order, on the tiny profile.
    """
    matplotlib.use("agg")
    path, left = headless.notebooks()[number], {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        exec(compile("".join(cell["source"]), f"{path.name}:{cell['id']}", "exec"), left)
        if "parameters" in cell["metadata"].get("tags", ()):
            unknown = set(given) - set(left)
            assert not unknown, f"{path.name} declares no {unknown}"
            left.update(given)
    matplotlib.pyplot.close("all")
    return left
