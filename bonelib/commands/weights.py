"""List the encoders that baselines compare, and fetch the weights of one."""

import importlib.util
from typing import TYPE_CHECKING

from bonelib.commands.printing import say, short

if TYPE_CHECKING:
    from bonelib.encoders import Rung


def weights(name: str) -> int:
    """List the rungs of the ladder; of one, say what it is, fetch its weights and try them."""
    from bonelib import encoders
    from bonelib.encoders import fetching

    if not name:
        return _list()
    rung = encoders.rung(name)
    for line in _described(rung):
        say(line)
    try:
        if rung.files:
            for line in fetching.fetch(rung):
                say(line)
        tower = rung.build()
    except encoders.WeightsNotAvailable as error:
        say(f"not available: {error}")
        return 2
    for note in tower.notes:
        say(note)
    say(
        f"works: {tower.width} features of an image of {tower.side} px. "
        f"Score it: bonelib run 02 --profile full -p ENCODERS {rung.rung}"
    )
    return 0


def _list() -> int:
    from bonelib import encoders

    rows = [("NAME", "ENCODER", "SIZE", "POOLING", "LICENCE", "MB", "WEIGHTS")]
    for rung in encoders.rungs().values():
        facts = (f"{rung.size} px", rung.pooling, rung.licence.partition(" (")[0])
        rows.append((rung.rung, rung.title, *facts, f"{rung.megabytes or ''}", _status(rung)))
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(cell.ljust(to) for cell, to in zip(row, wide, strict=True)).rstrip())
    say("bonelib weights NAME fetches the weights of one. Own files: docs/encoders.md")
    return 0


def _status(rung: "Rung") -> str:
    from bonelib.encoders import fetching

    if rung.weights == "random":
        return "none needed"
    if rung.source.startswith("pip "):
        module = rung.source.removeprefix("pip ").replace("-", "_")
        return "installed" if importlib.util.find_spec(module) else fetching.how(rung)
    return "to be fetched" if fetching.missing(rung) else "here"


def _described(rung: "Rung") -> list[str]:
    """Say licence, size and place of the weights, before anything is downloaded."""
    told = lambda fact: ", recalled" if fact in rung.recalled.split() else ""  # noqa: E731
    lines = [f"{rung.title}: {rung.tower}, {rung.weights}, {rung.pooling}, {rung.size} px"]
    if rung.licence:
        lines.append(f"licence: {rung.licence}{told('licence')}")
    if rung.megabytes:
        lines.append(f"source: {rung.source}, about {rung.megabytes} MB{told('size')}")
    if rung.files:
        lines.append(f"place: {short(rung.folder)}{told('files').replace(',', '; file names')}")
    return lines
