"""The one rule of freshness: is what a record was made from still what is there?

The head of a record comes in; sentences go out, one for each thing that changed, none if it is
fresh. Notebooks, the runner and ``bonelib runs`` ask the same. Looked at are

    inputs    each is there, has the recorded hash, and is itself fresh
    data      the content of the data set, for the stage that reads it; others inherit it
    files     what was read besides: a bank of captions, a table of the literature
    reads     for a stage that reads whatever records there are: their names and hashes
    code      the modules that the experiment imports, unless BONELIB_OTHER_CODE=keep
"""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bonelib.runs import code
from bonelib.runs import data as data_sets
from bonelib.runs.paths import data_name, folder
from bonelib.runs.stages import JUDGING, JUDGING_STAGE, cure

FORMAT = 2  # of record.json; a record of another one is refused
OLD = "it was made by an older version of bonelib, whose records can't be compared"
# The runner passes on what it executes, so that a changed notebook is a changed record.
NOTEBOOK = "BONELIB_NOTEBOOK"


def read(run: Path, name: str = "record.json") -> dict[str, Any]:
    """Return a JSON file of a run folder, empty where there is none."""
    file = run / name
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


class Look:
    """One look at what lies on this machine; nothing is read twice during it.

    Args:
        data: The data set that is asked for, and ``root`` its folder: where to look for the data
            of records that have its name. Other data are looked for where they were.
    """

    def __init__(self, *, data: str = "", root: str = "", name: str = ""):
        self._asked, self._name = (data, root), name
        self._of_run: dict[str, list[str]] = {}
        self._closure = functools.cache(code.code_closure)
        self._fingerprint = functools.cache(data_sets.fingerprint)

    def reasons(self, head: dict[str, Any]) -> list[str]:
        """Return why a record is stale, in sentences; none if it is fresh."""
        if head.get("format") != FORMAT:
            return [OLD]
        return list(dict.fromkeys(self.of_inputs(head["inputs"]) + self._own(head)))

    def other_code(self, head: dict[str, Any]) -> list[str]:
        """Name the rooms that changed since a record was made."""
        return code.changed_rooms(head["code"], self._closure(head["module"]))

    def of_inputs(self, inputs: list[dict[str, str]]) -> list[str]:
        """Follow inputs down to what changed; those in between are not named."""
        found = []
        for entry in inputs:
            name = entry["run"]
            there = read(folder() / name)
            if not there:
                found.append(f"the input {name} was removed since")
            elif there.get("hash") != entry["hash"]:
                found.append(f"the input {name} was remade since")
            else:
                if name not in self._of_run:
                    own = [f"the input {name} is stale: {reason}" for reason in self._own(there)]
                    self._of_run[name] = self.of_inputs(there["inputs"]) + own
                found += self._of_run[name]
        return found

    def _own(self, head: dict[str, Any]) -> list[str]:
        found = [*self._content(head), *self._files(head)]
        there = head["reads"]
        if there and reads(there["runs"], head["stage"]) != there:
            found.append("the records it read changed: some were made, remade or removed since")
        if not code.keeping() and (rooms := self.other_code(head)):
            found.append(f"it was made by other code: {', '.join(rooms)}")
        return found

    def _content(self, head: dict[str, Any]) -> list[str]:
        """Compare the data with those recorded; what is not on this machine can't have changed."""
        name = head["data"]
        for place in self._places(head) if head["content"] else ():
            with contextlib.suppress(FileNotFoundError):
                same = self._fingerprint(*place) == head["content"]
                where = place[1] or ("its folder" if name.endswith(".csv") else "BONELIB_DATA")
                return [] if same else [f"the data {place[0]} changed (those in {where})"]
        return []

    def _places(self, head: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield where the data of a record may lie: as asked, as recorded, in ``BONELIB_DATA``."""
        name = head["data"]
        drawn = name == "phantom"  # that lies where it was drawn; DATA_ROOT says nothing of it
        if head["data_name"] == self._name and not drawn:
            yield self._asked
        yield name, head["root"]
        if not drawn and not name.endswith(".csv") and _in_data_folder(head):
            yield name, ""

    def _files(self, head: dict[str, Any]) -> list[str]:
        paths = {name: e["path"] for name, e in head["files"].items() if Path(e["path"]).is_file()}
        found = zip(paths.items(), data_sets.content(paths.values()) if paths else (), strict=True)
        return [
            f"the file {name} changed ({path})"
            for (name, path), digest in found
            if digest[:16] != head["files"][name]["hash"]
        ]


def _in_data_folder(head: dict[str, Any]) -> bool:
    """Tell whether ``BONELIB_DATA`` holds the data of a record, and not others of their name."""
    try:
        return data_name(head["data"], profile=head["profile"]) == head["data_name"]
    except (FileNotFoundError, ValueError):  # none there, or runs of several sets of this name
        return False


def reads(patterns: Iterable[str], stage: str) -> dict[str, Any]:
    """Describe the records that match patterns below the folder of runs, those of ``stage`` apart.

    Args:
        patterns: As ``Path.glob`` takes them, e.g. ``demo/*/*/pretraining/*``.
    """
    patterns = sorted(patterns)
    matching = {p.parent for one in patterns for p in folder().glob(f"{one}/record.json")}
    heads = {"/".join(path.parts[-5:]): read(path) for path in sorted(matching)}
    facts = [[name, one.get("hash", "")] for name, one in heads.items() if one["stage"] != stage]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    return {"runs": patterns, "hash": digest} if patterns else {}


def notebook() -> dict[str, Any]:
    """Return what the runner says it executes: ``cells`` and ``parameters``; empty without one."""
    return json.loads(os.environ.get(NOTEBOOK) or "{}")


def notebook_changes(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say in which way the notebook that made a record differs from the one of now.

    Empty without a runner: in JupyterLab, cells are changed and run again one at a time.
    """
    if not now:
        return []
    if not then:
        return ["it was not made by the runner"]
    found = ["the notebook's cells changed"] * (then["cells"] != now["cells"])
    changed = _changes(then["parameters"], now["parameters"])
    return found + [f"{name} was {old!r} and is {new!r}" for name, old, new in changed]


def setting_changes(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Return a line for each setting in which two heads differ; empty where they agree."""
    changed = _changes(there["settings"], here["settings"])
    return "\n".join(f"  - {name}: {old!r} there, {new!r} asked" for name, old, new in changed)


def _changes(then: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    both = ((name, then.get(name), now.get(name)) for name in sorted({*then, *now}))
    return [(name, old, new) for name, old, new in both if old != new]


def differs(there: dict[str, Any], here: dict[str, Any]) -> bool:
    """Tell whether two heads read other inputs, data, files or records."""
    old, new = ({n: e["hash"] for n, e in head["files"].items()} for head in (there, here))
    return old != new or any(there[key] != here[key] for key in ("inputs", "content", "reads"))


def training_changes(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Name the rooms that a training depends on and that differ between two heads."""
    if code.keeping():
        return []
    without = (*JUDGING, *JUDGING_STAGE.get(here["stage"], ()))
    return code.changed_rooms(there["code"], here["code"], without=without)


def trained(run: Path, head: dict[str, Any]) -> bool:
    """Tell whether a run folder holds a finished training with these settings, inputs and code.

    ``trained.json`` says so, written last by whoever trained: the notebook, or ``bonelib train``.
    Rooms that only draw or judge do not count.
    """
    there = read(run, "trained.json")
    return (
        there.get("format") == FORMAT
        and there["settings"] == head["settings"]
        and there["seed"] == head["seed"]
        and not differs(there, head)
        and not training_changes(there, head)
    )


def refuse(name: str, head: dict[str, Any], reasons: list[str]) -> None:
    """Complain of a stale record, with the command that remakes it.

    Raises:
        ValueError: There are reasons; all are listed.
    """
    if not reasons:
        return
    one = {key: head[key] for key in ("profile", "data", "seed")}
    root = head.get("root", "") if head["data"] != "phantom" else ""
    again = cure(head["stage"], root=root, **one)
    whole = f"bonelib run --profile {head['profile']} -p DATA {head['data']}"
    code_only = all("other code" in reason for reason in reasons)
    raise ValueError(
        f"{name} is stale: {'; '.join(reasons)}.\nMake it again: {again}, or all: {whole}"
        + (", or keep such numbers: --keep-other-code" if code_only else "")
    )
