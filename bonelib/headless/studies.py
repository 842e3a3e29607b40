"""Studies: named lists of notebook runs that answer one question together.

``notebooks/studies.toml`` comes in; (notebooks, profile, parameters) of each run go out. A study is
started run by run; what is finished is reused, so that it can be stopped and taken up again.
"""

import itertools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import runs

FOR_ALL = {"DATA", "DATA_ROOT", "SEED"}  # every notebook declares them
Planned = tuple[tuple[str, ...], str, dict[str, Any]]


def study(
    name: str,
    file: Path | None = None,
    *,
    part: str = "1/1",
    profile: str = "",
    parameters: Mapping[str, Any] | None = None,
) -> list[Planned]:
    """Return the runs of a study in order, or one part of them.

    A section names ``question``, ``profile``, ``parameters`` for all runs, and a list ``runs``.
    Each of these has ``notebooks``, ``parameters`` of its own, and ``each``: names with lists of
    values, of which every combination is one run. ``{NAME}`` in a text is the value of a parameter.

    Args:
        part: ``"2/3"`` for the second of three parts that run at the same time. What stands without
            ``each`` belongs to every part, since the others need it.
        profile: In place of the study's.
        parameters: In place of the study's, for another data set, say, or another seed.

    Raises:
        ValueError: No such study, and the message lists those there are; no such part; or a
            parameter that the study doesn't set or that it varies.
    """
    number, parts = (int(n) if n.isdigit() else 0 for n in (part.split("/") + ["", ""])[:2])
    if not 1 <= number <= parts:
        raise ValueError(f"No part {part!r}. Say 1/2 and 2/2 for two processes.")
    file = file or runs.ROOT / "notebooks" / "studies.toml"
    known = tomllib.loads(file.read_text())
    if name not in known:
        raise ValueError(f"No study {name!r} in {file.name}. Known: {', '.join(known)}.")
    section, given, planned, counted = known[name], dict(parameters or {}), [], 0
    entries = section["runs"]
    varied = {key for entry in entries for key in entry.get("each", {})}
    own = {key for part_of in (section, *entries) for key in part_of.get("parameters", {})}
    wrong = sorted(set(given) - ((own | FOR_ALL) - varied))
    if wrong:
        free = ", ".join(sorted((own | FOR_ALL) - varied))
        raise ValueError(f"The study {name!r} can't take {', '.join(wrong)}. Choose {free}.")
    for entry in entries:
        each = entry.get("each", {})
        for values in itertools.product(*each.values()):
            counted += bool(each)
            if each and counted % parts != number % parts:
                continue
            whole = section.get("parameters", {}) | {k: given[k] for k in given if k in FOR_ALL}
            whole = {k: given.get(k, v) for k, v in (whole | entry.get("parameters", {})).items()}
            whole |= dict(zip(each, values, strict=True))
            whole = {k: v.format(**whole) if isinstance(v, str) else v for k, v in whole.items()}
            planned.append((tuple(entry["notebooks"]), profile or section["profile"], whole))
    return planned
