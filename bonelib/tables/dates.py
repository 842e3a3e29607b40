"""Dates as people write them: ISO's, DICOM's, day first, month first, months by name."""

import re
import unicodedata
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MONTHS = (
    "jan feb mar apr may jun jul aug sep oct nov dec",
    "jan fev mar avr mai juin juil aou sep oct nov dec",
    "jan feb mar apr mai jun jul aug sep okt nov dez",
)
YEAR_FIRST = re.compile(r"(\d{4})(?:(\d\d)(\d\d)|([-/.])(\d{1,2})\4(\d{1,2}))")
YEAR_LAST = re.compile(r"(\d{1,2}) ?([-/. ]) ?(\d{1,2}) ?\2 ?(\d{4}|\d\d)")
NAMED = re.compile(r"(\d{1,2})(?:er|st|nd|rd|th|\.)?[ -]?([a-z]{3,9})\.?[ ,-]*(\d{4}|\d\d)")


def dates(cells: "pd.Series", notes: list[str], *, where: str) -> "pd.Series":
    """Read the dates of a column: ``YYYY-MM-DD``, NA where there is none or it is not understood.

    Understood are ISO's and DICOM's dates, also with a time behind, day, month and year parted by
    points, slashes, dashes or blanks, and months by name (English, French, German). The day comes
    first, unless the column itself shows that the month does: a second number above 12, and never
    a first one. If it shows both, dates that could be either are not understood. Two figures of a
    year mean the last hundred years.

    Args:
        cells: Text; the index is the line in the file, as of `read`.
        where: Named in the notes: ``index.csv, birth_date``.
    """
    known = cells.dropna().astype(str)
    numbers = known.map(_day_and_month)
    # True where only the month can come first.
    months = {pair[1] > 12 for pair in numbers if pair and (pair[0] > 12) != (pair[1] > 12)}
    turned = months == {True}
    found = known.map(lambda cell: parse_date(cell, month_first=turned))
    pairs = [pair for pair in numbers if pair]
    if months == {True, False}:
        unclear = numbers.map(lambda pair: bool(pair) and max(pair) <= 12 and pair[0] != pair[1])
        found[unclear.to_numpy(bool)] = None
    if pairs and len(months) < 2:
        way = "month first" if turned else "day first"
        sure = "" if months else "; none of them shows whether that is right"
        notes.append(f"{where}: {len(pairs)} dates were read with the {way}{sure}.")
    lost = found.index[found.isna()]
    if len(lost):
        lines = ", ".join(map(str, lost[:5])) + (", …" if len(lost) > 5 else "")
        notes.append(
            f"{where}: {len(lost)} dates were not understood, line {lines}; "
            "write them as YYYY-MM-DD."
        )
    return found.reindex(cells.index)


def _plain(cell: object) -> str:
    """Write a date without its time, in small letters without accents."""
    text = unicodedata.normalize("NFKD", str(cell)).encode("ascii", "ignore").decode()
    return re.sub(r"(?<=\d)[t ] ?\d{1,2}:\d\d.*", "", text.strip().lower())


def _day_and_month(cell: str) -> tuple[int, int] | None:
    """Return the first two numbers of a date whose year comes last, in slashes or dashes."""
    match = YEAR_LAST.fullmatch(_plain(cell))
    return (int(match[1]), int(match[3])) if match and match[2] in "/-" else None


def parse_date(cell: str, *, month_first: bool = False) -> str | None:
    """Read one date as `dates` does; None where it is not understood.

    Args:
        month_first: How to read ``03/04/2025``.
    """
    text = _plain(cell)
    if match := YEAR_FIRST.fullmatch(text):
        year, month, day = (int(figures) for figures in match.groups() if (figures or "").isdigit())
    elif match := YEAR_LAST.fullmatch(text):
        day, month, year = int(match[1]), int(match[3]), _year(match[4])
        if match[2] in "/-" and (month > 12 or (month_first and day <= 12)):
            day, month = month, day
    elif match := NAMED.fullmatch(text):
        day, month, year = int(match[1]), _month(match[2]), _year(match[3])
    else:
        return None
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return None


def _year(figures: str) -> int:
    this = date.today().year
    year = int(figures)
    return year if len(figures) == 4 else this - (this - year) % 100


def _month(word: str) -> int:
    """Number a month by the beginning of its name; 0 for another word."""
    for names in MONTHS:
        for number, name in enumerate(names.split(), 1):
            if word.startswith(name):
                return number
    return 0
