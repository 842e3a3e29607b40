"""Dates in reports: found in figures, in words and in part, and moved without losing their form.

Works on folded text (``languages.fold``), so accents and case don't matter. Forms are rows of
``patterns.csv``; month names, number words and the order of day and month come from the table of
the language.
"""

import re
from dataclasses import dataclass
from datetime import date, timedelta

from bonelib.deidentify.patterns import compiled
from bonelib.reports.languages import Language, months, number

ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii")


@dataclass(frozen=True)
class Date:
    """A date: its offsets, its parts (None where not said), and where each part is written."""

    start: int
    end: int
    rule: str
    year: int | None
    month: int | None
    day: int | None
    parts: tuple[tuple[str, int, int], ...] = ()  # (year | month | day | weekday, start, end)


def find(text: str, language: Language) -> list[Date]:
    """Find every date of a text, whole or in part; those that overlap are left to the longest.

    Args:
        text: Folded text.
    """
    keep = language.kind("year_keep")
    found: list[Date] = []
    taken = bytearray(len(text))
    for rule, pattern in compiled(language, "date"):
        for match in pattern.finditer(text):
            made = _read(match, rule, language)
            if made is None or any(taken[made.start : made.end]):
                continue
            if rule == "date: year":
                before = re.findall(r"[^\W\d_]+", text[max(0, made.start - 30) : made.start])
                if before and before[-1] in keep:
                    continue
            found.append(made)
            taken[made.start : made.end] = b"\1" * (made.end - made.start)
    return sorted(found, key=lambda one: one.start)


def _read(match: re.Match, rule: str, language: Language) -> Date | None:
    groups = {k: (v, *match.span(k)) for k, v in match.groupdict().items() if v}
    parts, values = [], {}
    for name, (value, start, end) in groups.items():
        plain = name.rstrip("2")
        if plain in ("year", "month", "day") and value.lstrip("'").isdigit():
            values[plain] = int(value.lstrip("'"))
        elif plain == "roman":
            plain = "month"
            values[plain] = ROMAN.index(value) + 1
        elif plain == "month":
            values[plain] = months(language)[value]
        elif plain in ("dayword", "yearword"):
            plain = plain.removesuffix("word")
            values[plain] = number(value, language)
        elif plain != "weekday":
            continue
        parts.append((plain, start, end))
    year, month, day = (values.get(part) for part in ("year", "month", "day"))
    if year is not None and year < 100:
        year += 1900 if year > 40 else 2000
    if "s" in groups and day is not None and rule in ("date: figures", "date: day/month"):
        last = groups["year"][0] if "year" in groups else ""
        padded = len(groups["day"][0]) == 2 and len(groups["month"][0]) == 2
        # "1.2.21" may be a numbering, "3-4-5" toes: two-digit years need padding or a slash
        if len(last) == 2 and not padded and groups["s"][0].strip() != "/":
            return None
        american = "mdy" in language.kind("order")
        if month > 12 or (american and day <= 12):
            day, month = month, day
            parts = [({"day": "month", "month": "day"}.get(n, n), s, e) for n, s, e in parts]
    if (month is not None and not 1 <= month <= 12) or (day is not None and not 1 <= day <= 31):
        return None
    if year is not None and not 1880 <= year <= 2100:
        return None
    parts.sort(key=lambda part: part[1])
    start = (
        parts[0][1]
        if rule in ("date: day/month", "date: short apart", "date: born")
        else match.start()
    )
    return Date(start, match.end(), rule, year, month, day, tuple(parts))


def shifted(one: Date, text: str, days: int, language: Language) -> str:
    """Return the date moved by ``days`` in the same form; never the date it was.

    Days, months and years in words become figures. What is only a month or a year moves from its
    middle, and by one unit at least.
    """
    source = date(one.year or 2023, one.month or 7, 1)
    source += timedelta((one.day or 15) - 1)
    try:
        moved = source + timedelta(days)
    except OverflowError:
        moved = source + timedelta(-days)
    step = 1 if days > 0 else -1
    if one.day is None and one.month is None and moved.year == source.year:
        moved = date(moved.year + step, 1, 15)
    elif one.day is None and (moved.year, moved.month) == (source.year, source.month):
        moved = source.replace(day=15) + timedelta(30 * step)
    elif one.year is None and (moved.month, moved.day) == (source.month, source.day):
        moved += timedelta(step)
    out, at = [], one.start
    for name, start, end in one.parts:
        between = re.sub(r"^(?:er|st|nd|rd|th)\b", "", text[at:start], flags=re.IGNORECASE)
        written = text[start:end]
        place = moved
        if name == "day" and written.isdigit() and int(written) != one.day:  # a range's first
            place += timedelta(int(written) - (one.day or int(written)))
        out += [between, _written(name, written, place, language)]
        at = end
    return "".join([*out, text[at : one.end]])


def _written(part: str, old: str, moved: date, language: Language) -> str:
    """Write one part of a date as the old one was: as many figures, or a word in the same case."""
    value = {"year": moved.year, "month": moved.month, "day": moved.day}.get(part)
    if part == "weekday":
        names = list(language.kind("weekday"))[:7]
        name, tail = names[moved.weekday()], re.sub(r"^[^\W\d_]+", "", old)
        return _cased(name, old) + tail
    if part == "month" and not old.isdigit():
        names = language.kind("month")
        whole = [name for name, number in names.items() if int(number) == value]
        same = [name for name in whole if len(name) == len(old)] if len(old) < 5 else []
        written = list(language.kind("month_written"))  # with its accents
        if not same and written and not old.isupper():
            return _cased(written[value - 1], old)
        return _cased((same or whole)[0], old)
    if part == "year" and len(old.strip("'")) == 2 and old.strip("'").isdigit():
        return ("'" if old.startswith("'") else "") + f"{value % 100:02d}"
    return f"{value:02d}" if len(old) == 2 and part != "year" else str(value)


def _cased(word: str, like: str) -> str:
    letters = [c for c in like if c.isalpha()]
    if len(letters) > 1 and all(c.isupper() for c in letters):
        return word.upper()
    return word.capitalize() if letters and letters[0].isupper() else word
