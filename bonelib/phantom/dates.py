"""Dates as people write them in reports: in figures, in words, without the year."""

from __future__ import annotations

from datetime import date
from random import Random

MONTHS = {
    "fr": (
        "janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août", "septembre",
        "octobre", "novembre", "décembre",
    ),
    "en": (
        "January", "February", "March", "April", "May", "June", "July", "August", "September",
        "October", "November", "December",
    ),
}  # fmt: skip
DAYS = {
    "fr": ("lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"),
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
}
_UNITS = {
    "fr": (
        "", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix", "onze",
        "douze", "treize", "quatorze", "quinze", "seize", "dix-sept", "dix-huit", "dix-neuf",
    ),
    "en": (
        "", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
        "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    ),
}  # fmt: skip
_TENS = {
    "fr": ("", "", "vingt", "trente", "quarante", "cinquante", "soixante"),
    "en": ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"),
}
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
    "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip


def in_words(number: int, language: str) -> str:
    """A number from 1 to 99 in words (French of France)."""
    units = _UNITS[language]
    if number < 20:
        return units[number]
    tens, unit = divmod(number, 10)
    if language == "en":
        return _TENS["en"][tens] + (f"-{units[unit]}" if unit else "")
    if number < 70:
        joint = " et " if unit == 1 else "-"
        return _TENS["fr"][tens] + (joint + units[unit] if unit else "")
    if number < 80:
        return "soixante et onze" if number == 71 else f"soixante-{units[number - 60]}"
    return "quatre-vingt" + (f"-{units[number - 80]}" if number > 80 else "s")


def spelled(day: date, language: str) -> str:
    """A date wholly in words."""
    rest = day.year % 100
    month = MONTHS[language][day.month - 1]
    if language == "fr":
        number = "premier" if day.day == 1 else in_words(day.day, "fr")
        century = "deux mille" if day.year >= 2000 else "mil neuf cent"
        return f"{number} {month} {century} {in_words(rest, 'fr')}".strip()
    number = in_words(day.day, "en")
    head, _, last = number.rpartition("-")
    if last.endswith("y"):
        last = last[:-1] + "ieth"
    else:
        last = _ORDINALS.get(last, f"{last}th")
    century = "two thousand" if day.year >= 2000 else "nineteen"
    joint = " and " if day.year >= 2000 and rest else " "
    year = f"{century}{joint}{in_words(rest, 'en')}".strip()
    return f"{head + '-' if head else ''}{last} of {month} {year}"


def written(day: date, country: str, rng: Random) -> str:
    """A whole date in one of the country's forms; months come before days in the USA alone."""
    language = "fr" if country in ("fr", "be") else "en"
    month, weekday = MONTHS[language][day.month - 1], DAYS[language][day.weekday()]
    if rng.random() < 0.03:
        return spelled(day, language)
    if language == "fr":
        first = "1er" if day.day == 1 else str(day.day)
        long = f"{first} {month} {day.year}"
        forms = [f"{day:%d/%m/%Y}"] * 6 + [
            f"{day:%d.%m.%Y}", f"{day:%d-%m-%Y}", f"{day:%d/%m/%y}", f"{day:%d.%m.%y}",
            f"{day.day}/{day.month}/{day.year}", f"{day:%Y-%m-%d}", f"{day:%Y%m%d}",
            f"{day:%d / %m / %Y}", long, long, long.upper(), f"{weekday} {long}",
            f"{day.day} {month[:4]}. {day.year}" if len(month) > 5 else long,
        ]  # fmt: skip
        return rng.choice(forms)
    short = month[:3]
    ending = (
        "th" if 4 <= day.day % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(day.day % 10, "th")
    )
    figures = f"{day:%m/%d/%Y}" if country == "us" else f"{day:%d/%m/%Y}"
    small = f"{day.month}/{day.day}/{day:%y}" if country == "us" else f"{day:%d.%m.%y}"
    long = f"{month} {day.day}, {day.year}" if country == "us" else f"{day.day} {month} {day.year}"
    forms = [figures] * 5 + [
        small, f"{day:%Y-%m-%d}", f"{day:%Y%m%d}", f"{day:%d}-{short}-{day.year}",
        f"{day:%d}-{short.upper()}-{day:%y}", f"{short} {day.day}, {day.year}",
        f"{short}. {day.day}, {day.year}", f"{day.day}{ending} {month} {day.year}",
        f"{weekday}, {long}", long, long, long.upper(),
    ]  # fmt: skip
    return rng.choice(forms)


def partial(day: date, country: str, rng: Random) -> str:
    """A date that lacks its year or its day."""
    language = "fr" if country in ("fr", "be") else "en"
    month = MONTHS[language][day.month - 1]
    if language == "fr":
        first = "1er" if day.day == 1 else str(day.day)
        forms = (f"{day:%d/%m}", f"{first} {month}", f"{month} {day.year}", f"{day:%m/%Y}")
    elif country == "us":
        forms = (f"{day.month}/{day.day}", f"{month} {day.day}", f"{month} {day.year}")
    else:
        forms = (f"{day:%d/%m}", f"{day.day} {month}", f"{month} {day.year}", f"{day:%m/%Y}")
    return rng.choice(forms)
