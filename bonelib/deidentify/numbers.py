"""Identities made of figures: phones, addresses on the web, record and national numbers, ages.

Their forms are rows of ``patterns.csv``. National numbers are checked by their digits:
the French NIR (97 less the remainder by 97; INSEE), the Belgian NISS (the same on nine digits, with
a 2 before them for births from 2000; Arrêté royal of 3 April 1984) and the British NHS number
(modulus 11; NHS Data Dictionary). One that fails its check is removed all the same, as a record
number, or as a national one where its label says so.
"""

import re
from collections.abc import Callable

from bonelib.deidentify.patterns import compiled
from bonelib.deidentify.token_scan import AGE, ID, LOCATION, NATIONAL_ID, PHONE, URL, Span
from bonelib.reports.languages import Language, number
from bonelib.reports.pages import fold


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def valid_nir(text: str) -> bool:
    """Whether the key of a French national number is right; Corsica writes 2A and 2B."""
    plain = re.sub(r"cle|[^\dab]", "", text)
    if len(plain) != 15:
        return False
    body = plain[:13].replace("2a", "19").replace("2b", "18")
    return body.isdigit() and plain[13:].isdigit() and 97 - int(body) % 97 == int(plain[13:])


def valid_niss(text: str) -> bool:
    """Whether the check digits of a Belgian number are right, born before or after 2000."""
    plain = _digits(text)
    if len(plain) != 11:
        return False
    return any(97 - int(head + plain[:9]) % 97 == int(plain[9:]) for head in ("", "2"))


def valid_nhs(text: str) -> bool:
    """Whether the check digit of a British NHS number is right."""
    plain = _digits(text)
    if len(plain) != 10:
        return False
    check = 11 - sum(int(d) * w for d, w in zip(plain, range(10, 1, -1), strict=False)) % 11
    return check % 11 == int(plain[9]) and check != 10


UNITS = re.compile(r"\d(?:[cmk]?m|m?[gls]|k[gv]|mas|c?gy|fr|ui?|h|min|mcg|iu)$")
VALID: dict[str, Callable[[str], bool]] = {
    "NIR": valid_nir, "NISS": valid_niss, "NHS number": valid_nhs,
}  # fmt: skip


def find(text: str, folded: str, language: Language) -> list[Span]:
    """Find the identities made of figures; they may overlap.

    Args:
        text: The report, of which capitals matter (postcodes). folded: The same, folded.
    """
    patterns = dict(compiled(language, "number"))
    spans: list[Span] = []

    def matches(name: str, *, of: str = folded) -> list[tuple[re.Match, str, int]]:
        found = patterns[name].finditer(of)
        return [(match, match.group(), len(_digits(match.group()))) for match in found]

    def add(match: re.Match, kind: str, rule: str, group: int | str = 0) -> None:
        spans.append(Span(*match.span(group), kind, rule))

    for match, written, _ in matches("url"):
        add(match, URL, "e-mail" if "@" in written else "web address")
    for name, valid in VALID.items():
        for match, written, digits in matches(name):
            if valid(written):
                add(match, NATIONAL_ID, f"{name}, check digits right")
            elif name != "NHS number" and digits >= 11:
                add(match, ID, f"form of a {name}, check digits wrong")
    for match, _, _ in matches("national"):
        if len(_digits(match["value"])) >= 6:
            add(match, NATIONAL_ID, "label of a national number", "value")
    for match, _, digits in matches("phone"):
        if 8 <= digits <= 15:
            add(match, PHONE, "form of a phone number")
    for match, _, _ in matches("labelled phone"):
        add(match, PHONE, "label of a phone number", "value")
    measure = patterns["measure"]

    def ordinary(letters: str) -> bool:
        return letters in language.words or letters in language.kind("not_name")

    for label, _, _ in matches("label"):
        at, marked = label.end(), any(sign in label["mark"] for sign in ":#=°")
        for name in ("spaced code", "code"):
            match = patterns[name].match(folded, at)
            if not match or measure.match(folded[match.end() : match.end() + 8]):
                continue
            digits = len(_digits(match.group()))
            enough = digits >= 4
            if name == "code":
                enough |= digits >= 2 and len(match.group()) >= 4 and marked
            elif folded[match.end("letters") :][:1] != "-":
                enough &= not ordinary(match["letters"])  # "exam date 12"
            if enough:
                add(match, ID, "label of a number")
                break
    for match, written, digits in matches("chain"):
        parts = re.split("[/-]", written)
        levels = all(re.fullmatch(r"[a-z]{1,3}\d{0,3}|\d{1,2}[a-z]?", part) for part in parts)
        measured = any(UNITS.search(part) for part in parts)
        if (
            digits >= 4
            and not (levels or measured)
            and not measure.match(folded[match.end() :][:8])
        ):
            add(match, ID, "form of a record number")
    for match, written, digits in matches("record"):
        if digits >= (7 if "/" in written else 5):
            add(match, ID, "form of a record number")
    for match, _, _ in matches("age"):
        if match["words"]:
            if 89 < number(match["words"], language) < 125:
                add(match, AGE, "age above 89 in words", "words")
        else:
            add(match, AGE, "age above 89", "value" if match["value"] else "value2")
    for match, written, _ in matches("postcode", of=text):
        if not re.search(r"\d(?:ST|ND|RD|TH)$", written):
            add(match, LOCATION, "postcode")
    for match, _, _ in matches("postcode and town", of=text):
        year = match["four"] and 1900 <= int(match["four"]) <= 2059 and not match["land"]
        words = re.findall(r"[^\W\d_]+", fold(match["town"]))
        saint = match["five"] and words[0] in ("saint", "sainte", "st", "ste")
        if not year and (saint or words[-1] not in language.usual):  # "2021 Radiographie" is none
            add(match, LOCATION, "postcode and town")
    return spans
