"""Invented people, places, numbers and dates of France, Belgium, Britain, Ireland and the USA.

Names and towns are common ones (``people.csv``, ``places.csv``), combined by chance: whoever bears
one is not meant; ``name_origins.csv`` has the share of people by the language their name comes
from. The forms in which countries write them stand in ``patterns.csv``, ``#`` for a
digit. National numbers are well formed, with right check digits; phone numbers come from ranges
kept for fiction where a country has them (Arcep decision 2018-0881 for France, Ofcom, 555-01xx in
the USA), mail and web addresses end in ``.example`` (RFC 2606), so that no line, box or site
belongs to anybody.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import date
from functools import cache
from random import Random

from .files import rows

# share of reports by country in each language
COUNTRIES = {"fr": {"fr": 0.65, "be": 0.35}, "en": {"uk": 0.45, "us": 0.4, "ie": 0.15}}


@dataclass(frozen=True)
class Person:
    """A name; ``maiden`` is empty unless the person bears another name since a marriage."""

    first: str
    last: str
    sex: str
    maiden: str = ""

    def written(self, kind: str, rng: Random) -> str:
        """The name in one of its forms, e.g. ``name in header``."""
        return pattern(kind, "fr", rng).format(
            first=self.first, last=self.last, FIRST=self.first.upper(), LAST=self.last.upper(),
            PLAIN=plain(self.last.upper()),
        )  # fmt: skip


@cache
def _patterns(kind: str, country: str) -> list[str]:
    found = rows("patterns.csv", text=True, kind=kind)
    return [row["pattern"] for row in found if country in row["countries"].split()]


def pattern(kind: str, country: str, rng: Random) -> str:
    """One of the forms in which a country writes something."""
    return rng.choice(_patterns(kind, country))


def _digits(form: str, rng: Random) -> str:
    return "".join(str(rng.randint(0, 9)) if c == "#" else c for c in form)


def _name(kind: str, group: str, rng: Random) -> str:
    """A name of a country, or of people whose language it is."""
    if kind == "surname" or kind.startswith("first"):
        return rng.choice(rows("people.csv", text=True, kind=kind, origin=group))["name"]
    return rng.choice(rows("places.csv", text=True, kind=kind, country=group))["name"]


def pick(odds: dict[str, float], rng: Random) -> str:
    """One key by its weight."""
    return rng.choices(list(odds), list(odds.values()))[0]


def person(country: str, sex: str, rng: Random, *, last: str = "") -> Person:
    """Somebody of a country; first and last name mostly, not always, of one origin."""
    shares = {row["origin"]: row["share"] for row in rows("name_origins.csv", country=country)}
    origin = pick(shares, rng)
    home = {"be": "fr", "uk": "en", "us": "en", "ie": "en"}.get(country, country)
    own = origin if rng.random() < 0.75 else home
    first = _name(f"first_{sex}", own, rng)
    family = last or _family(origin, rng)
    maiden = _family(home, rng) if sex == "F" and rng.random() < 0.2 else ""
    return Person(first, family, sex, maiden if maiden != family else "")


def _family(origin: str, rng: Random) -> str:
    if rng.random() < 0.07:  # two families, one hyphen
        names = (_name("surname", origin, rng) for _ in range(2))
        return "-".join(name.replace(" ", "") for name in names)
    return _name("surname", origin, rng)


def plain(text: str) -> str:
    """The text without accents, as keyboards of capitals and old systems write it."""
    text = text.replace("œ", "oe").replace("Œ", "OE")
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def town(country: str, rng: Random) -> tuple[str, str]:
    """A town: its name, and with its postcode as on an envelope."""
    row = rng.choice(rows("places.csv", text=True, kind="town", country=country))
    return row["name"], _patterns("town line", country)[0].format_map(row)


def street(country: str, rng: Random) -> str:
    """House number and street as the country writes them."""
    name, number = _name("street", country, rng), rng.randint(1, 240)
    if country in ("fr", "be"):
        return pattern("street", country, rng).format(name=name, number=number)
    flat = f"Flat {number % 9 + 1}, " if country != "us" and rng.random() < 0.2 else ""
    return f"{flat}{number} {name}"


def institution(country: str, rng: Random) -> tuple[str, str]:
    """Name of an invented institution, and its town."""
    form = _name("institution", country, rng)
    place = town(country, rng)[0]
    saint = _name("saint", country, rng)
    return form.format(town=place, de_town=of_town(place), saint=saint), place


def of_town(name: str) -> str:
    """French "de" before a town: de Rouen, d'Amiens, de La Louvière."""
    return f"d'{name}" if plain(name)[0] in "AEIOU" else f"de {name}"


def phone(country: str, rng: Random) -> str:
    """A phone number in one of the country's forms."""
    return _digits(pattern("phone", country, rng), rng)


def french_key(body: str) -> int:
    """Key of the 13 characters of a French national number: 97 less their remainder by 97.

    The Corsican departments 2A and 2B count as 19 and 18 (INSEE).
    """
    return 97 - int(body.replace("2A", "19").replace("2B", "18")) % 97


def belgian_key(body: str, *, born: int) -> int:
    """Key of the 9 digits of a Belgian national number; a 2 goes before them from 2000 on."""
    return 97 - int(("2" if born >= 2000 else "") + body) % 97


def british_key(body: str) -> int:
    """Check digit of the 9 digits of an NHS number (modulus 11); 10 means: no such number."""
    return (11 - sum(int(d) * (10 - i) for i, d in enumerate(body)) % 11) % 11


def national_number(country: str, sex: str, birth: date, rng: Random) -> str:
    """A national number in one of the forms in use; "" where the country writes none."""
    if country == "fr":
        department = rng.choice(("01", "13", "2A", "2B", "33", "59", "69", "75", "76", "92"))
        parts = [
            "1" if sex == "M" else "2", f"{birth:%y}", f"{birth:%m}", department,
            f"{rng.randint(1, 480):03d}", f"{rng.randint(1, 990):03d}",
        ]  # fmt: skip
        parts.append(f"{french_key(''.join(parts)):02d}")
        gap = rng.choice((" ", " ", "", "."))
        return gap.join(parts)
    if country == "be":
        body = f"{birth:%y%m%d}{2 * rng.randint(1, 490) - (sex == 'M'):03d}"
        key = f"{belgian_key(body, born=birth.year):02d}"
        form = pattern("national number", country, rng)
        return form.format(body[:2], body[2:4], body[4:6], body[6:], key)
    if country == "uk":
        body = f"999{rng.randint(0, 999999):06d}"  # numbers from 999 on are kept for tests
        while british_key(body) == 10:
            body = f"999{rng.randint(0, 999999):06d}"
        number = body + str(british_key(body))
        return rng.choice((f"{number[:3]} {number[3:6]} {number[6:]}", number))
    return ""


def record_number(rng: Random) -> str:
    """A patient's number in a hospital."""
    return _digits(pattern("record", "fr", rng), rng)


def accession_number(day: date, rng: Random) -> str:
    """The number of an examination, often with its date inside."""
    return pattern("accession", "fr", rng).format(day=day) + f"{rng.randint(0, 999999):06d}"


def mail(who: Person, house: str, rng: Random) -> str:
    """A mail address; the domain belongs to nobody."""
    first, last = (
        plain(p).lower().replace(" ", "").replace("'", "") for p in (who.first, who.last)
    )
    return pattern("mailbox", "fr", rng).format(first=first, last=last) + f"@{_domain(house)}"


def web(house: str, rng: Random) -> str:
    """A web address of a house."""
    return pattern("web start", "fr", rng) + _domain(house) + pattern("web end", "fr", rng)


def _domain(house: str) -> str:
    words = [w for w in plain(house).lower().replace("'", " ").split() if len(w) > 2]
    return "-".join("".join(filter(str.isalnum, w)) for w in words[:2]) + ".example"


# dates ------------------------------------------------------------------------------------------


def in_words(kind: str, number: int, country: str) -> str:
    """A month, a weekday, a day of the month or a number from 0 to 99 in words."""
    row = rows("calendar.csv", text=True, kind=kind, number=str(number))[0]
    return row["fr" if country in ("fr", "be") else "en"]


def spelled(day: date, country: str) -> str:
    """A date wholly in words."""
    number, month = (in_words(*part, country) for part in (("day", day.day), ("month", day.month)))
    rest, late = in_words("number", day.year % 100, country), day.year >= 2000
    if country in ("fr", "be"):
        return f"{number} {month} {'deux mille' if late else 'mil neuf cent'} {rest}".strip()
    century = "two thousand" if late else "nineteen"
    return f"{number} of {month} {century}{' and ' if late and rest else ' '}{rest}".strip()


def written_date(day: date, country: str, rng: Random, *, kind: str = "date") -> str:
    """A date in one of the country's forms; months come before days in the USA alone.

    Args:
        kind: ``partial date`` for one that lacks its year or its day.
    """
    if kind == "date" and rng.random() < 0.03:
        return spelled(day, country)
    month = in_words("month", day.month, country)
    first = "1er" if day.day == 1 else str(day.day)
    ending = {1: "st", 2: "nd", 3: "rd"}.get(day.day % 10 if day.day // 10 != 1 else 0, "th")
    return pattern(kind, country, rng).format(
        day=day, month=month, MONTH=month.upper(), first_day=first, FIRST_DAY=first.upper(),
        weekday=in_words("weekday", day.weekday(), country), ending=ending,
        abbreviated=(f"{day.day} {month[:4]}." if len(month) > 5 else f"{first} {month}")
        + f" {day.year}",
    )  # fmt: skip
