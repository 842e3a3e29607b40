"""Fetch a published data set, or the weights of an encoder."""

import contextlib
import os
import sys
from pathlib import Path

from bonelib.commands.printing import say


def fetch(name: str, encoder: str, files: list[Path], accept_licence: bool) -> int:
    """Fetch a set into ``BONELIB_DATA``, of files brought by hand if given, or say how to.

    After the name ``weights`` comes an encoder, as for ``bonelib weights``.
    """
    from bonelib import runs
    from bonelib.commands import weights
    from bonelib.datasets import fetching

    if name == "weights":
        return weights.weights(encoder)
    known = fetching.sources()
    if not name:
        for one, of in known.items():
            how = "downloaded" if of.doi else "behind a form, brought by hand"
            say(f"{one:<14} {of.title}: {how}; {of.licence}")
        return 0
    if name not in known or encoder:
        raise ValueError(f"No set {f'{name} {encoder}'.strip()}. Give {', '.join(known)}.")
    source, folder = known[name], _folder(name)
    if lost := [str(file) for file in files if not file.is_file()]:
        raise FileNotFoundError(f"There is no file {', '.join(lost)}.")
    found, tasks = f"{folder} is whole", []
    if not fetching.whole(source, folder):
        say(f"{source.title}: {source.address}")
        say(f"licence: {source.licence}\ncite: {source.cite}")
        if not source.doi and not files:
            say(source.by_hand(folder))
            return 2
        _accept(accept_licence)
        with runs.alone(folder):  # of two fetches of a set the second finds it
            if not fetching.whole(source, folder):
                bar = sys.stderr.isatty()
                files = files or fetching.download(source, folder, progress=bar)
                number, tasks = fetching.put(source, files, folder)
                found = f"{number:,} radiographs in {folder}, read as {name}"
    task = f" -p TASK {tasks[0]}" if tasks and "tumor" not in tasks else ""
    say(f"{found}. Next: bonelib run 01 -p DATA {name}{task}")
    return 0


def _folder(name: str) -> Path:
    """Return where a set lies below ``BONELIB_DATA``, or will lie."""
    from bonelib import runs

    if not os.environ.get("BONELIB_DATA"):
        raise ValueError("Set BONELIB_DATA to the folder of data sets: export BONELIB_DATA=/path")
    with contextlib.suppress(FileNotFoundError):
        return runs.data_root(name)
    return Path(os.environ["BONELIB_DATA"]).absolute() / name


def _accept(given: bool) -> None:
    if not given and not sys.stdin.isatty():
        raise ValueError("If you accept the licence, add --accept-licence.")
    with contextlib.suppress(EOFError):
        if given or input("Type yes if you accept the licence: ").strip().lower() == "yes":
            return
    raise ValueError("The licence was not accepted: nothing was fetched.")
