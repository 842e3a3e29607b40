"""Studies: named lists of notebook runs that answer one question together.

The studies that come with bonelib, and a user's own, come in; (notebooks, profile, parameters) of
each run go out. A study is started run by run; what is finished is reused, so that it can be
stopped and taken up again.
"""

import itertools
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from .. import runs

FOR_ALL = {"DATA", "DATA_ROOT", "SEED"}  # every notebook declares them
FILE = "studies.toml"
Planned = tuple[tuple[str, ...], str, dict[str, Any]]


def studies() -> dict[str, dict[str, Any]]:
    """Return all studies by name: those of the package, then those of ``notebooks/studies.toml``.

    One of the user's takes the place of one of the package's that has its name.
    """
    texts = [resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")]
    own = runs.ROOT / "notebooks" / FILE
    if own.exists():  # an installed package has none
        texts.append(own.read_text(encoding="utf-8"))
    return {name: one for text in texts for name, one in tomllib.loads(text).items()}


def study(
    name: str, *, part: str = "1/1", profile: str = "", parameters: Mapping[str, Any] | None = None
) -> list[Planned]:
    """Return the runs of a study in order, or one part of them.

    A section names ``question``, ``profile``, ``parameters`` for all runs, and a list ``runs``.
    Each of these has ``notebooks``, ``parameters`` of its own, and ``each``: names with lists of
    values, of which every combination is one run. ``{NAME}`` in a text is the value of a parameter.
    Names in ``choose`` are those of ``each`` for which a caller may give other values, by commas.

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
    known, given = studies(), dict(parameters or {})
    if name not in known:
        raise ValueError(f"No study {name!r} in {FILE}. Known: {', '.join(known)}.")
    section, entries = known[name], known[name]["runs"]
    own = {key for part_of in (section, *entries) for key in part_of.get("parameters", {})}
    chosen = {key for entry in entries for key in entry.get("choose", ())}
    free = (own | FOR_ALL) - {key for entry in entries for key in entry.get("each", {})} | chosen
    if wrong := sorted(given.keys() - free):
        raise ValueError(
            f"The study {name!r} can't take {', '.join(wrong)}. Choose {', '.join(sorted(free))}."
        )
    planned, counted = [], itertools.count(1)
    for entry in entries:
        each = dict(entry.get("each", {}))
        each |= {key: str(given[key]).split(",") for key in entry.get("choose", ()) if key in given}
        fixed = section.get("parameters", {}) | entry.get("parameters", {})
        fixed |= {key: given[key] for key in given if key in FOR_ALL or key in fixed}
        for values in itertools.product(*each.values()):
            if each and next(counted) % parts != number % parts:
                continue
            whole = fixed | dict(zip(each, values, strict=True))
            whole = {k: v.format(**whole) if isinstance(v, str) else v for k, v in whole.items()}
            planned.append((tuple(entry["notebooks"]), profile or section["profile"], whole))
    return planned
