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
from bonelib.runs.cures import commands
from bonelib.runs.paths import data_name, folder, is_drawn
from bonelib.runs.stages import JUDGING, JUDGING_STAGE

FORMAT = 3  # of record.json; a record of another one is refused
KEYS: dict[type, str] = {  # what a record must hold to be compared, by its kind
    dict: "code files metrics notebook notes outputs reads settings versions",
    str: "content data data_name finished hash module profile root stage task variant",
    list: "inputs",
    int: "seed",
    float: "seconds",
}
OLD = "it was made by an older version of bonelib, whose records can't be compared"
# The runner passes on what it executes, so that a changed notebook is a changed record.
NOTEBOOK = "BONELIB_NOTEBOOK"


class Damaged(ValueError):
    """A file of a run folder can't be read; the message names it."""


class Reason(str):
    """Why a record is stale, in a sentence.

    Attributes:
        run: The record that changed or must be made again; empty for the one that is asked about.
        code: Whether nothing but the code changed.
    """

    run, code = "", False

    @classmethod
    def of(cls, text: str, *, run: str = "", code: bool = False) -> "Reason":
        """Make a reason."""
        made = cls(text)
        made.run, made.code = run, code
        return made


def read(run: Path, name: str = "record.json") -> dict[str, Any]:
    """Return a JSON file of a run folder, empty where there is none.

    Raises:
        Damaged: It is cut off, say.
    """
    file = run / name
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Damaged(f"{file} can't be read: it is cut off or damaged")
    if name == "record.json" and found.get("format") == FORMAT:
        asked = ((key, kind) for kind, keys in KEYS.items() for key in keys.split())
        if odd := [key for key, kind in asked if not isinstance(found.get(key), kind)]:
            raise Damaged(f"{file} can't be read: {', '.join(odd)} missing or changed by hand")
    return found


def look_at(name: str) -> tuple[dict[str, Any], str]:
    """Return the record of a run by its name below the folder of runs, or why there is none.

    Where there is none, what its name says of it stands in its place, without inputs.
    """
    why = "was removed since"
    try:
        if there := read(folder() / name):
            if there.get("format") == FORMAT:
                return there, ""
            why = "was made by an older version of bonelib"
    except Damaged:
        why = "can't be read: its record.json is damaged"
    profile, data, task, stage, last = name.split("/")
    variant, _, seed = last.rpartition("-s")
    told = dict(profile=profile, data=data, data_name=data, task=task, stage=stage, root="")
    return told | dict(variant=variant, seed=int(seed), inputs=[]), why


class Look:
    """One look at what lies on this machine; nothing is read twice during it.

    Args:
        data: The data set that is asked for, and ``root`` its folder: where to look for the data
            of records that have its name. Other data are looked for where they were.
    """

    def __init__(self, *, data: str = "", root: str = "", name: str = ""):
        self._asked, self._name = (data, root), name
        self._of_run: dict[str, list[Reason]] = {}
        self._closure = functools.cache(code.code_closure)
        self._fingerprint = functools.cache(data_sets.fingerprint)

    def reasons(self, head: dict[str, Any]) -> list[Reason]:
        """Return why a record is stale, in sentences; none if it is fresh."""
        if head.get("format") != FORMAT:
            return [Reason(OLD)]
        return list(dict.fromkeys(self.of_inputs(head["inputs"]) + self._own(head)))

    def other_code(self, head: dict[str, Any]) -> list[str]:
        """Name the rooms that changed since a record was made."""
        return code.changed_rooms(head["code"], self._closure(head["module"]))

    def of_inputs(self, inputs: list[dict[str, str]]) -> list[Reason]:
        """Follow inputs down to what changed; those in between are not named."""
        found = []
        for entry in inputs:
            name = entry["run"]
            there, why = look_at(name)
            if why:
                found.append(Reason.of(f"the input {name} {why}", run=name))
            elif there.get("hash") != entry["hash"]:
                found.append(Reason.of(f"the input {name} was remade since"))
            else:
                if name not in self._of_run:
                    own = [
                        Reason.of(f"the input {name} is stale: {one}", run=name, code=one.code)
                        for one in self._own(there)
                    ]
                    self._of_run[name] = self.of_inputs(there["inputs"]) + own
                found += self._of_run[name]
        return found

    def remake(self, head: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the heads of what must be made again for a record, it last, inputs first.

        Data that were moved stand where they are looked for now.
        """
        found: dict[str, dict[str, Any]] = {}
        for entry in head.get("inputs", ()):
            there, why = look_at(entry["run"])
            for one in self.remake(there) if not why else [self._moved(there, head)]:
                found["/".join(map(str, _place(one)))] = one
        return [*found.values(), self._moved(head, head)] if found or self._due(head) else []

    def _due(self, head: dict[str, Any]) -> bool:
        return bool(head.get("format") != FORMAT or self.reasons(head))

    def _moved(self, head: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
        """Return a head with its data as they are called and lie now."""
        if head["data_name"] == self._name and not is_drawn(asked["data"]):
            return head | {"data": self._asked[0] or asked["data"], "root": self._asked[1]}
        return head | {key: asked[key] for key in ("data", "root") if key in asked}

    def _own(self, head: dict[str, Any]) -> list[Reason]:
        found = [Reason(one) for one in (*self._content(head), *self._files(head))]
        there = head["reads"]
        if there and reads(there["runs"], head["stage"], self) != there:
            text = "the records it read changed: some were made, remade or removed, or are stale"
            found.append(Reason(text))
        if not code.keeping() and (rooms := self.other_code(head)):
            found.append(Reason.of(f"it was made by other code: {', '.join(rooms)}", code=True))
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
        drawn = is_drawn(name)  # that lies where it was drawn; DATA_ROOT says nothing of it
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


def _place(head: dict[str, Any]) -> list[Any]:
    return [head[key] for key in ("profile", "data_name", "task", "stage", "variant", "seed")]


def reads(patterns: Iterable[str], stage: str, look: Look | None = None) -> dict[str, Any]:
    """Describe the records that match patterns below the folder of runs, those of ``stage`` apart.

    Args:
        patterns: As ``Path.glob`` takes them, e.g. ``demo/*/*/pretraining/*``.
    """
    patterns, look = sorted(patterns), look or Look()
    matching = {p.parent for one in patterns for p in folder().glob(f"{one}/record.json")}
    names = ["/".join(path.parts[-5:]) for path in sorted(matching)]
    facts = []
    for name in (name for name in names if name.split("/")[-2] != stage):
        head, why = look_at(name)
        stale = bool(why or look.reasons(head))
        facts.append([name, head.get("hash", ""), stale])
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
    try:
        there = read(run, "trained.json")
    except Damaged as error:
        raise ValueError(f"{error}. Delete it to train from the start.") from None
    return (
        there.get("format") == FORMAT
        and there["settings"] == head["settings"]
        and there["seed"] == head["seed"]
        and not differs(there, head)
        and not training_changes(there, head)
    )


def refuse(
    name: str, head: dict[str, Any], reasons: list[Reason], *, look: Look | None = None
) -> None:
    """Complain of a stale record, with the commands that remake it and what it needs.

    Args:
        look: Knows where the data lie that are asked for.

    Raises:
        Stale: There are reasons; all are listed.
    """
    if not reasons:
        return
    again = commands((look or Look()).remake(head) or [head])
    code_only = all(reason.code for reason in reasons)
    error = Stale(
        f"{name} is stale: {'; '.join(reasons)}.\nMake it again: {again}"
        + (", or keep such numbers: --keep-other-code" if code_only else "")
    )
    error.reasons = reasons
    raise error


class Stale(ValueError):
    """A record is not what would be made now; ``reasons`` says why."""

    reasons: list[Reason] = []
