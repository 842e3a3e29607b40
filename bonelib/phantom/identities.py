"""Invented people, places and numbers of France, Belgium, Britain, Ireland and the USA.

Names and towns are common ones (``people.csv``, ``places.csv``), combined by chance: whoever bears
one is not meant. National numbers are well formed, with right check digits; phone numbers come from
ranges kept for fiction where a country has them, mail and web addresses end in ``.example`` (RFC
2606), so that no line, box or site belongs to anybody.
"""

from __future__ import annotations

import csv
import unicodedata
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from importlib import resources
from random import Random

COUNTRIES = {"fr": {"fr": 0.65, "be": 0.35}, "en": {"uk": 0.45, "us": 0.4, "ie": 0.15}}
# share of people by the language their name comes from
ORIGINS = {
    "fr": {"fr": 0.66, "ar": 0.12, "pt": 0.07, "it": 0.06, "pl": 0.04, "nl": 0.02, "es": 0.03},
    "be": {"fr": 0.40, "nl": 0.32, "ar": 0.10, "it": 0.08, "pl": 0.04, "pt": 0.04, "es": 0.02},
    "uk": {"en": 0.74, "ie": 0.07, "pl": 0.07, "ar": 0.06, "it": 0.03, "pt": 0.03},
    "ie": {"ie": 0.62, "en": 0.24, "pl": 0.09, "pt": 0.05},
    "us": {"en": 0.66, "es": 0.18, "ie": 0.05, "it": 0.04, "pl": 0.04, "ar": 0.03},
}
# Ranges for fiction: Arcep decision 2018-0881 (FR), Ofcom (UK), 555-01xx (US). Belgium and Ireland
# keep none; theirs are of the right form.
PHONES = {
    "fr": (
        "01 99 00 ## ##", "02 61 91 ## ##", "06 39 98 ## ##", "03.53.01.##.##", "05-36-49-##-##",
        "04657#####", "+33 6 39 98 ## ##", "+33 (0)1 99 00 ## ##", "0033 2 61 91 ## ##",
    ),
    "be": (
        "02 ### ## ##", "081/## ## ##", "04/### ## ##", "0470 ## ## ##", "0495/##.##.##",
        "+32 2 ### ## ##", "+32 475 ## ## ##", "0032 (0)71 ## ## ##",
    ),
    "uk": (
        "01632 960###", "020 7946 0###", "0117 496 0###", "07700 900###", "(0113) 496 0###",
        "+44 20 7946 0###", "+44 (0)7700 900 ###",
    ),
    "ie": ("01 ### ####", "(091) ### ###", "087 ### ####", "+353 1 ### ####", "+353 86 ### ####"),
    "us": (
        "(212) 555-01##", "312-555-01##", "617.555.01##", "+1 415 555 01##", "1-800-555-01##",
        "(503) 555-01## ext. 4##",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Person:
    """A name; ``maiden`` is empty unless the person bears another name since a marriage."""

    first: str
    last: str
    sex: str
    maiden: str = ""


@lru_cache(maxsize=1)
def _people() -> dict[tuple[str, str], tuple[str, ...]]:
    return _bank("people.csv", "kind", "origin", "name")


@lru_cache(maxsize=1)
def _places() -> dict[tuple[str, str], tuple[tuple[str, str], ...]]:
    return _bank("places.csv", "kind", "country", ("name", "code"))


def read_csv(name: str) -> list[dict[str, str]]:
    """The rows of a word bank beside this module."""
    with resources.files(__package__).joinpath(name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _bank(file: str, kind: str, group: str, value: str | tuple[str, ...]) -> dict:
    found: dict[tuple[str, str], list] = {}
    for row in read_csv(file):
        cell = row[value] if isinstance(value, str) else tuple(row[v] for v in value)
        found.setdefault((row[kind], row[group]), []).append(cell)
    return {key: tuple(values) for key, values in found.items()}


def pick(odds: dict[str, float], rng: Random) -> str:
    """One key by its weight."""
    return rng.choices(list(odds), list(odds.values()))[0]


def person(country: str, sex: str, rng: Random, *, last: str = "") -> Person:
    """Somebody of a country; first and last name mostly, not always, of one origin."""
    origin = pick(ORIGINS[country], rng)
    names = _people()
    home = {"be": "fr", "uk": "en", "us": "en", "ie": "en"}.get(country, country)
    first = rng.choice(names[f"first_{sex}", origin if rng.random() < 0.75 else home])
    family = last or _family(origin, rng)
    maiden = _family(home, rng) if sex == "F" and rng.random() < 0.2 else ""
    return Person(first, family, sex, maiden if maiden != family else "")


def _family(origin: str, rng: Random) -> str:
    names = _people()["surname", origin]
    if rng.random() < 0.07:  # two families, one hyphen
        return "-".join(rng.choice(names).replace(" ", "") for _ in range(2))
    return rng.choice(names)


def plain(text: str) -> str:
    """The text without accents, as keyboards of capitals and old systems write it."""
    text = text.replace("œ", "oe").replace("Œ", "OE")
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def town(country: str, rng: Random) -> tuple[str, str]:
    """Name and postcode of a town."""
    return rng.choice(_places()["town", country])


def street(country: str, rng: Random) -> str:
    """House number and street as the country writes them."""
    name, number = rng.choice(_places()["street", country])[0], rng.randint(1, 240)
    if country == "fr":
        return rng.choice((f"{number} {name}", f"{number}, {name}", f"{number} bis, {name}"))
    if country == "be":
        return rng.choice((f"{name} {number}", f"{name}, {number}", f"{name} {number} bte 3"))
    flat = f"Flat {number % 9 + 1}, " if country != "us" and rng.random() < 0.2 else ""
    return f"{flat}{number} {name}"


def town_line(country: str, name: str, code: str) -> str:
    """A town with its postcode as on an envelope."""
    if country in ("fr", "be"):
        return f"{code} {name}"
    return f"{name}, {code}" if country == "us" else f"{name} {code}"


def institution(country: str, rng: Random) -> tuple[str, str]:
    """Name of an invented institution, and its town."""
    pattern = rng.choice(_places()["institution", country])[0]
    place = town(country, rng)[0]
    return pattern.format(
        town=place, de_town=of_town(place), saint=rng.choice(_places()["saint", country])[0]
    ), place


def of_town(name: str) -> str:
    """French "de" before a town: de Rouen, d'Amiens, de La Louvière."""
    return f"d'{name}" if plain(name)[0] in "AEIOU" else f"de {name}"


def phone(country: str, rng: Random) -> str:
    """A phone number in one of the country's forms."""
    form = rng.choice(PHONES[country])
    return "".join(str(rng.randint(0, 9)) if c == "#" else c for c in form)


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
        order = 2 * rng.randint(1, 490) - (sex == "M")
        body = f"{birth:%y%m%d}{order:03d}"
        key = f"{belgian_key(body, born=birth.year):02d}"
        form = rng.choice(("{}.{}.{}-{}.{}", "{}{}{}{}{}", "{}{}{} {} {}", "{}.{}.{} {} {}"))
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
    form = rng.choice(("########", "######", "P#######", "##-#####", "MRN#######", "####/##/###"))
    return "".join(str(rng.randint(0, 9)) if c == "#" else c for c in form)


def accession_number(day: date, rng: Random) -> str:
    """The number of an examination, often with its date inside."""
    stamp = rng.choice((f"{day:%Y%m%d}", f"{day:%y%m%d}", f"RX{day:%y}", "A", "E-"))
    return f"{stamp}{rng.randint(0, 999999):06d}"


def mail(who: Person, house: str, rng: Random) -> str:
    """A mail address; the domain belongs to nobody."""
    name = [plain(p).lower().replace(" ", "").replace("'", "") for p in (who.first, who.last)]
    user = rng.choice((f"{name[0]}.{name[1]}", f"{name[0][0]}{name[1]}", f"secretariat.{name[1]}"))
    return f"{user}@{_domain(house)}"


def web(house: str, rng: Random) -> str:
    """A web address of a house."""
    start = rng.choice(("www.", "https://www.", "https://app."))
    return f"{start}{_domain(house)}{rng.choice(('', '/images', '/radio'))}"


def _domain(house: str) -> str:
    words = [w for w in plain(house).lower().replace("'", " ").split() if len(w) > 2]
    return "-".join("".join(filter(str.isalnum, w)) for w in words[:2]) + ".example"
