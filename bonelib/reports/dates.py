"""Dates in reports: found in figures, in words and in part, and moved without losing their form.

Works on folded text (``languages.fold``), so accents and case don't matter. Month names, number
words and the order of day and month come from the table of the language.
"""

import re
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

from bonelib.reports.languages import Language, fold

UNITS = r"(?:mm|cm|m|ml|cc|mg|mgy|gy|kv|mas|ms|hz|px|%|x\s?\d|°)\b"


@dataclass(frozen=True)
class Found:
    """A date: its offsets, its parts (None where not said), and where each part is written."""

    start: int
    end: int
    rule: str
    year: int | None
    month: int | None
    day: int | None
    parts: tuple[tuple[str, int, int], ...] = ()  # (year | month | day | weekday, start, end)


@lru_cache(maxsize=8)
def _months(language: Language) -> dict[str, int]:
    """Return the month names, those of the table and each beginning of three letters or more."""
    table = {name: int(value) for name, value in language.kind("month").items()}
    short: dict[str, set[int]] = {}
    for name, value in table.items():
        for size in range(3, len(name)):
            short.setdefault(name[:size], set()).add(value)
    return {name: min(values) for name, values in short.items() if len(values) == 1} | table


@lru_cache(maxsize=8)
def _patterns(language: Language) -> list[tuple[str, re.Pattern]]:
    def words(kind: str) -> str:
        terms = sorted(map(re.escape, language.kind(kind)), key=len, reverse=True)
        return "|".join(terms) or "(?!)"

    month = "|".join(sorted(_months(language), key=len, reverse=True))
    week, number = words("weekday"), words("number")
    joiner = words("joiner")
    spoken = rf"(?:{number})(?:(?:\s+|-)(?:{joiner}\s+|{joiner}-)?(?:{number})){{0,12}}"
    cue = words("date_cue")
    time = r"(?:t\d\d:\d\d(?::\d\d)?(?:\.\d+)?z?)?"
    day = rf"(?:(?P<weekday>\b(?:{week})\.?,?\s+))?(?P<day>(?<!\d)(?<!\d[.,])(?:[0-2]?\d|3[01]))"
    ordinal = r"(?:er|st|nd|rd|th|e|\.)?"
    return [
        ("date: year first", re.compile(
            rf"(?<![\d./-])(?P<year>(?:19|20)\d\d)(?P<s>\s?[-/.]\s?)(?P<month>[01]?\d)(?P=s)"
            rf"(?P<day>[0-3]?\d)(?!\d){time}")),
        ("date: figures", re.compile(
            r"(?<![\d/])(?<!\d[.,-])(?P<day>[0-3]?\d)(?P<s>\s?[-/.]\s?)(?P<month>[0-3]?\d)(?P=s)"
            r"(?P<year>(?:19|20)\d\d|\d\d)(?![\d/])(?![.,]\d)(?! ?" + UNITS + ")")),
        ("date: figures apart", re.compile(
            r"(?<![\d/.,-])(?P<day>[0-3]\d)\s{1,2}(?P<month>[01]\d)\s{1,2}(?P<year>(?:19|20)\d\d)(?!\d)")),
        ("date: joined", re.compile(
            r"(?<![\w./-])(?:(?P<year>(?:19|20)\d\d)(?P<month>0\d|1[0-2])(?P<day>[0-2]\d|3[01])"
            r"|(?P<day2>[0-2]\d|3[01])(?P<month2>0\d|1[0-2])(?P<year2>(?:19|20)\d\d))(?![\w/])")),
        ("date: month in words", re.compile(
            rf"{day}{ordinal}(?:\s*+[-/]?\s*+|\s+of\s+|\s+de\s+)(?P<month>{month})\b\.?"
            r"(?:(?:\s*+[-,/]?\s*+|\s+(?:of|de)\s+)(?P<year>(?:19|20)\d\d|'?\d\d(?=[\s,.;)]|$)(?! ?"
            + UNITS + r"))(?!\d))?")),
        ("date: month first", re.compile(
            rf"(?:(?P<weekday>\b(?:{week})\.?,?\s+))?\b(?P<month>{month})\.?\s*(?P<day>[0-3]?\d)"
            r"(?:st|nd|rd|th)?(?![\d/:])(?!\.\d)(?! ?" + UNITS + r")"
            r"(?:\s*+,?\s*+(?P<year>(?:19|20)\d\d)(?!\d))?")),
        ("date: month and year", re.compile(
            rf"\b(?P<month>{month})\b\.?(?:\s*+[-/,']?\s*+|\s+(?:of|de)\s+)(?P<year>(?:19|20)\d\d|(?<=')\d\d)"
            r"(?!\d)")),
        ("date: in words", re.compile(
            rf"(?:(?P<weekday>\b(?:{week})\.?,?\s+))?\b(?P<dayword>{spoken})\s+(?:of\s+|de\s+)?(?P<month>{month})\b"
            rf"(?:,?\s+(?:of\s+|de\s+|in\s+)?(?P<yearword>{spoken})|,?\s+(?P<year>(?:19|20)\d\d)(?!\d))?")),
        ("date: month in words", re.compile(
            rf"\b(?P<month>{month})\s+(?:the\s+)?(?P<dayword>{spoken})"
            rf"(?:,?\s+(?:of\s+|in\s+)?(?P<yearword>{spoken})|,?\s+(?P<year>(?:19|20)\d\d)(?!\d))?")),
        ("date: month and year in words", re.compile(
            rf"\b(?P<month>{month})\s+(?:of\s+|de\s+)?(?P<yearword>{spoken})")),
        ("date: month/year", re.compile(
            r"(?<![\d/.,-])(?P<month>0?[1-9]|1[0-2])(?P<s>\s?[/.-]\s?)(?P<year>(?:19|20)\d\d)(?![\d/])")),
        ("date: day/month", re.compile(
            rf"(?<![\w/])(?:{cue})\s+(?P<day>[0-3]?\d)(?P<s>[/-])(?P<month>[0-3]?\d)(?![\w/]|[.,-]\d)"
            rf"(?! ?(?:{UNITS}|{words('fraction')}))")),
        ("date: year", re.compile(
            r"(?<![\w/.,-])(?<!\d )(?P<year>19[2-9]\d|20[0-4]\d)(?![\w/])(?![.,-]\d)"
            r"(?! ?" + UNITS + ")")),
    ]  # fmt: skip


def find(text: str, language: Language) -> list[Found]:
    """Find every date of a text, whole or in part; those that overlap are left to the longest.

    Args:
        text: Folded text.
    """
    keep = language.kind("year_keep")
    found: list[Found] = []
    taken = bytearray(len(text))
    for rule, pattern in _patterns(language):
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


def _read(match: re.Match, rule: str, language: Language) -> Found | None:
    groups = {k: (v, *match.span(k)) for k, v in match.groupdict().items() if v}
    parts, values = [], {}
    for name, (value, start, end) in groups.items():
        plain = name.rstrip("2")
        if plain in ("year", "month", "day") and value.lstrip("'").isdigit():
            values[plain] = int(value.lstrip("'"))
        elif plain == "month":
            values[plain] = _months(language)[value]
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
    start = match.start()
    if rule == "date: day/month":
        start = min(s for _, s, _ in parts)
    return Found(
        start, match.end(), rule, year, month, day, tuple(sorted(parts, key=lambda p: p[1]))
    )


def number(words: str, language: Language) -> int:
    """Read a number in words: "deux mille vingt et un" is 2021, "nineteen eighty-five" 1985."""
    table = language.kind("number")
    total = current = 0
    for word in re.findall(r"[^\W_]+", fold(words)):
        value = int(table.get(word, 0))
        if value == 1000:
            total, current = total + max(current, 1) * 1000, 0
        elif value == 100:
            current = max(current, 1) * 100
        elif value == 20 and current % 100 == 4:  # quatre-vingts
            current += 76
        elif 10 <= value < 100 and 10 <= current <= 20 and not total:
            current = current * 100 + value  # nineteen eighty, twenty twenty
        else:
            current += value
    return total + current


def shifted(found: Found, text: str, days: int, language: Language) -> str:
    """Return the date moved by ``days`` in the same form; never the date it was.

    Days, months and years in words become figures. What is only a month or a year moves from its
    middle, and by one unit at least.
    """
    source = date(found.year or 2023, found.month or 7, 1)
    source += timedelta((found.day or 15) - 1)
    try:
        moved = source + timedelta(days)
    except OverflowError:
        moved = source + timedelta(-days)
    step = 1 if days > 0 else -1
    if found.day is None and found.month is None and moved.year == source.year:
        moved = date(moved.year + step, 1, 15)
    elif found.day is None and (moved.year, moved.month) == (source.year, source.month):
        moved = source.replace(day=15) + timedelta(30 * step)
    elif found.year is None and (moved.month, moved.day) == (source.month, source.day):
        moved += timedelta(step)
    out, at = [], found.start
    for name, start, end in found.parts:
        between = re.sub(r"^(?:er|st|nd|rd|th)\b", "", text[at:start], flags=re.IGNORECASE)
        out += [between, _written(name, text[start:end], moved, language)]
        at = end
    return "".join([*out, text[at : found.end]])


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
