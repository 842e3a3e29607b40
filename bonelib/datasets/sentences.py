"""What readers say of a data set: sentences about what is odd, and one error for what is wrong."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd


def counted(names: Iterable, text: str) -> list[str]:
    """Write a sentence about ``names``, none where there are none.

    Args:
        text: ``{n}`` stands for how many there are, ``{names}`` for the first three.
    """
    names = [str(name) for name in names]
    return [text.format(n=len(names), names=", ".join(names[:3]))] if names else []


def lacking(frame: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    """Say which columns a table should have and has not."""
    missing = [repr(column) for column in columns if column not in frame]
    return [f"It lacks the columns {', '.join(missing)}."] if missing else []


def misfits(cells: pd.Series, fit: pd.Series, expected: str, *, first: int = 2) -> list[str]:
    """Say which cells don't fit, what they hold and what was expected.

    Args:
        fit: Whether each cell fits.
        first: The line of the file whose index is 0.
    """
    wrong = cells[~fit.astype(bool)]
    if wrong.empty:
        return []
    held = [repr(cell) if pd.notna(cell) else "an empty cell" for cell in wrong.iloc[:20]]
    values, lines = ", ".join(dict.fromkeys(held))[:120], lines_of(wrong.index + first)
    return [f"{cells.name}, {lines}: found {values}; expected {expected}."]


def lines_of(rows: Iterable[int]) -> str:
    """Write ``lines 2, 5``: eight of them at most."""
    numbers = [str(row) for row in rows]
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"line{'s' if len(numbers) > 1 else ''} {', '.join(numbers[:8])}{more}"


def flag_problems(frame: pd.DataFrame, columns: tuple[str, ...]) -> list[str]:
    """List, in sentences, missing columns and cells that are not 0 or 1."""
    found = lacking(frame, columns)
    for column in (c for c in columns if c in frame):
        found += misfits(frame[column], frame[column].isin([0, 1]), "0 or 1")
    return found


def refuse(
    problems: list[str],
    file: Path,
    *,
    cure: str = "Compare it with the published file, or unpack the data set again.",
) -> None:
    """Raise one ValueError that lists all problems of a file; do nothing where there is none."""
    if problems:
        lines = "\n".join(f"  - {line}" for line in problems)
        raise ValueError(f"{file} has {len(problems)} problem(s):\n{lines}\n{cure}")
