"""Bars with the time left over long work: for a reader, in JupyterLab or on a terminal.

Work calls back with how much of it is done. Nothing is shown where nobody looks (papermill, a pipe,
a log, all processes of a training but the first): executed copies and logs hold lines alone.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
Progress = Callable[[int, int], None]  # of what is done and of all
DELAY, INTERVAL = 1.0, 0.5  # seconds before a bar is shown, and between two of its states


def watched() -> bool:
    """Tell whether a reader sees a bar: in an attended notebook, or on a terminal that moves."""
    if os.environ.get("RANK", "0") != "0":
        return False
    if sys.stderr.isatty():
        return os.environ.get("TERM") != "dumb"
    if "IPython" not in sys.modules:  # which is not everywhere
        return False
    from bonelib.explore.panel import attended

    return attended()


@contextlib.contextmanager
def bar(words: str, unit: str = "images") -> Iterator[Progress]:
    """Show how far the work is that calls back; the bar is gone when it ends, however it ends.

    The first call starts the clock: what an earlier process had done counts for no speed.
    """
    if not watched():
        yield lambda done, total: None
        return
    from tqdm.auto import tqdm

    looks = dict(leave=False, delay=DELAY, mininterval=INTERVAL, miniters=1, dynamic_ncols=True)
    shown: Any = None

    def show(done: int, total: int) -> None:
        nonlocal shown
        if shown is None:
            shown = tqdm(desc=words, unit=f" {unit}", total=total, initial=done, **looks)
        shown.update(done - shown.n)

    try:
        yield show
    finally:
        if shown is not None:
            shown.total = shown.n  # else a notebook keeps one that was cut short, in red
            shown.close()


def each(items: Collection[T], show: Progress) -> Iterator[T]:
    """Yield items and count each one when the next is asked for."""
    for done, item in enumerate(items, 1):
        yield item
        show(done, len(items))


def fit(*given: Any, **options: Any) -> Iterator[dict[str, Any]]:
    """Train as ``training.fit`` does, whose arguments these are, under a bar of all its steps.

    The bar is gone whenever a row is yielded: whoever prints it has the line to itself.
    """
    from bonelib import training

    rows: Any = training.fit(*given, progress=lambda *count: show(*count), **options)
    with contextlib.closing(rows):
        while True:
            with bar("training", "steps") as show:
                row = next(rows, None)
            if row is None:
                return
            yield row
