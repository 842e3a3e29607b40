"""Studies: named lists of notebook runs that answer one question together.

``notebooks/studies.toml`` comes in; (notebooks, profile, parameters) of each run go out. A study is
started run by run; what is finished is reused, so that it can be stopped and taken up again.
"""

import itertools
import tomllib
from pathlib import Path
from typing import Any

from .. import runs

Planned = tuple[tuple[str, ...], str, dict[str, Any]]


def study(name: str, file: Path | None = None) -> list[Planned]:
    """Return the runs of a study in order.

    A section names ``question``, ``profile``, ``parameters`` for all runs, and a list ``runs``.
    Each of these has ``notebooks``, ``parameters`` of its own, and ``each``: names with lists of
    values, of which every combination is one run. ``{NAME}`` in a text is the value of a parameter.

    Raises:
        ValueError: No such study; the message lists those there are.
    """
    file = file or runs.ROOT / "notebooks" / "studies.toml"
    known = tomllib.loads(file.read_text())
    if name not in known:
        raise ValueError(f"No study {name!r} in {file.name}. Known: {', '.join(known)}.")
    section, planned = known[name], []
    for entry in section["runs"]:
        each = entry.get("each", {})
        for values in itertools.product(*each.values()):
            parameters = section.get("parameters", {}) | entry.get("parameters", {})
            parameters = parameters | dict(zip(each, values, strict=True))
            parameters = {
                k: v.format(**parameters) if isinstance(v, str) else v
                for k, v in parameters.items()
            }
            planned.append((tuple(entry["notebooks"]), section["profile"], parameters))
    return planned
