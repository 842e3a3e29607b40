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


def study(name: str, file: Path | None = None, *, part: str = "1/1") -> list[Planned]:
    """Return the runs of a study in order, or one part of them.

    A section names ``question``, ``profile``, ``parameters`` for all runs, and a list ``runs``.
    Each of these has ``notebooks``, ``parameters`` of its own, and ``each``: names with lists of
    values, of which every combination is one run. ``{NAME}`` in a text is the value of a parameter.

    Args:
        part: ``"2/3"`` for the second of three parts that run at the same time. What stands without
            ``each`` belongs to every part, since the others need it.

    Raises:
        ValueError: No such study, and the message lists those there are; or no such part.
    """
    number, parts = (int(n) if n.isdigit() else 0 for n in (part.split("/") + ["", ""])[:2])
    if not 1 <= number <= parts:
        raise ValueError(f"No part {part!r}. Say 1/2 and 2/2 for two processes.")
    file = file or runs.ROOT / "notebooks" / "studies.toml"
    known = tomllib.loads(file.read_text())
    if name not in known:
        raise ValueError(f"No study {name!r} in {file.name}. Known: {', '.join(known)}.")
    section, planned, counted = known[name], [], 0
    for entry in section["runs"]:
        each = entry.get("each", {})
        for values in itertools.product(*each.values()):
            counted += bool(each)
            if each and counted % parts != number % parts:
                continue
            parameters = section.get("parameters", {}) | entry.get("parameters", {})
            parameters = parameters | dict(zip(each, values, strict=True))
            parameters = {
                k: v.format(**parameters) if isinstance(v, str) else v
                for k, v in parameters.items()
            }
            planned.append((tuple(entry["notebooks"]), section["profile"], parameters))
    return planned
