"""Identities made of figures: phones, addresses on the web, record and national numbers, ages.

All patterns read folded text (``languages.fold``), in time that grows with its length alone: what
repeats is bounded or possessive (``*+``). National numbers are checked by their digits:
the French NIR (97 less the remainder by 97; INSEE), the Belgian NISS (the same on nine digits, with
a 2 before them for births from 2000; Arrêté royal of 3 April 1984) and the British NHS number
(modulus 11; NHS Data Dictionary). One that fails its check is removed all the same, as a record
number, or as a national one where its label says so.
"""

import re
from datetime import date
from functools import lru_cache

from bonelib.reports.dates import number
from bonelib.reports.languages import Language, fold

UNITS = (
    r" ?(?:(?:mm|cm|ml|cc|mg|m?gy|[ud]gy|kvp?|mas|ms|m?hz|px|uh|hu|ui|pixels|images|x ?\d+)(?!\w)"
    r"|%|µ|g/|m²)"
)
Found = tuple[int, int, str, str]

URL = re.compile(
    r"[\w+-]{1,64}(?:\s?\.+\s?[\w+-]{1,64}){0,15}\s?(?:@|\[at\]|\(at\)|\[arobase\])\s?[\w-]+(?:(?:\s?\.\s?|\[dot\]|\(dot\))[\w-]+)*"
    r"(?:\s?\.\s?|\[dot\]|\(dot\))[a-z]{2,}\b"
    r"|(?:https?\s?:\s?//|ftp://|www\.)[^\s<>\"')\]]+[\w/]"
    r"|(?<![\w@.-])[\w-]+(?:\.[\w-]+)*\.(?:fr|be|com|org|net|eu|uk|ch|lu|nl|de|info|health|care|sante|gouv|brussels|io|edu|ca|us|ie)"
    r"(?:/[^\s<>\"')\]]*)?(?![\w.]\w)"
)
PHONE = re.compile(
    r"(?<![\w+])(?:\+|00 ?)\d{2,3}(?:[ ./-]*\(0\))?(?:[ ./-]{0,3}\d){7,11}(?!\d)"  # +33 (0)1 …
    r"|(?<![\w./-])0\d(?: ?[ ./-] ?\d\d){4}(?![\d/])"  # 01 23 45 67 89
    r"|(?<![\w./,-])0\d{9}(?!\d)"
    r"|(?<![\w./-])\(?0\d{1,3}\)? ?[/ .-] ?\d{2,3}(?:[ .-]?\d{2,3}){1,3}(?![\d/])"  # 02/555.12.34
    r"|(?<![\w./-])\(?0\d{3,4}\)? \d{3} ?\d{3,4}(?!\d)"
    r"|(?<![\w./-])(?:\+?1[ .-])?\(?[2-9]\d\d\)?[ .-]\d{3}[ .-]\d{4}(?!\d)"  # (555) 555-0123
    r"(?: ?(?:ext|x|poste)\b\.? ?\d{1,5})?"
)
NIR = re.compile(
    r"(?<![\d])[1278](?:[ .\-]?\d){2}[ .\-]?(?:\d[ ]?\d)[ .\-]?(?:2[ab]|\d[ ]?\d)[ .\-]?"
    r"(?:\d[ ]?){3}[ .\-]?(?:\d[ ]?){3}"
    r"[ .\-/|]{0,4}(?:cle\s*:?\s*)?\d{2}(?!\d)"
)
NISS = re.compile(r"(?<![\d])\d\d[ .\-]?\d\d[ .\-]?\d\d[ .\-/]{0,3}\d{3}[ .\-/]{0,3}\d\d(?!\d)")
NHS = re.compile(r"(?<![\d.,/-])\d{3}[ \-]?\d{3}[ \-]?\d{4}(?!\d)")
CODE = r"(?=[\w/.\-]{0,40}\d)[a-z0-9]+(?:(?:[._\-]| ?/ ?)(?=[a-z0-9_/.\-]{0,40}\d)[a-z0-9]+)*"
LONG = re.compile(
    r"(?<![\w.,/-])(?:"
    r"\d{6,}"
    r"|[a-z]{1,5}[-_/.]?\d{5}[a-z0-9]*"
    r"|\d{1,5}[a-z]{1,4}\d{3}[a-z0-9]*"
    r"|[a-z]{1,6}\d*(?:[-_/.][a-z0-9]+){0,30}[-_/.]\d{4,}(?:[-_/.][a-z0-9]+){0,30}"
    r"|\d{2,4}[-/]\d{4,}(?:[-/]\d+)*"
    r"|\d{1,3}(?:[ .]\d{3}){2,}"
    r"|\d{2,}(?:/\d{2,}){2,}"
    r"|(?:\d+\.){4,}\d+"  # a UID
    r")(?![\w])(?!" + UNITS + ")"
)  # fmt: skip


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def valid_nir(text: str) -> bool:
    """Whether the key of a French national number is right; Corsica writes 2A and 2B."""
    plain = re.sub(r"cle|[^\dab]", "", text)
    corsican = "a" in plain or "b" in plain
    if len(plain) != 15:
        return False
    body = plain[:13].replace("2a", "19").replace("2b", "18")
    if corsican and not body.isdigit():
        return False
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


NATIONAL = (
    (NIR, valid_nir, "NIR"), (NISS, valid_niss, "NISS"), (NHS, valid_nhs, "NHS number"),
)  # fmt: skip


@lru_cache(maxsize=8)
def _patterns(language: Language) -> dict[str, re.Pattern]:
    def either(kind: str) -> str:
        terms = sorted(language.kind(kind), key=len, reverse=True)
        return "|".join(re.escape(t).replace(r"\ ", r"\s+") for t in terms) or "(?!)"

    mark = (
        r"\s*+(?:(?:n[°o.]{1,2}|no\.?|number|numero|\#)\s*+)?[:=.#°]?"
        r"\s*+(?:(?:n[°o]|no\.?|\#)\s*+:?\s*+)?"
    )
    spoken = either("number")
    joiner = either("joiner")
    number_words = rf"(?:{spoken})(?:(?:\s+|-)(?:(?:{joiner})[\s-]+)?(?:{spoken})){{0,12}}"
    return {
        "id": re.compile(
            rf"(?<![\w])(?:{either('label_id')})(?!\w)(?P<mark>{mark})(?P<value>{CODE})"
        ),
        "national": re.compile(
            rf"(?<![\w])(?:{either('label_national')})(?!\w){mark}"
            r"(?:n[°o]\s*+)?\(?\w{0,4}\)?\s*+:?\s*+"
            r"(?P<value>[\da-z]{0,2}\d(?:(?: ?[.\-/] ?| )?[\dab]){5,22}[a-d]?)(?!\d)"
        ),
        "phone": re.compile(
            rf"(?<![\w])(?:{either('label_phone')})(?!\w)\s*+(?:n[°o]\s*+)?[:.=]?\s*+(?:\((?:prive|pro|dom|mobile|home|work)\)\s*+:?\s*+)?"
            r"(?P<value>\+?\(?\d(?:[ ./()-]{0,2}\d){2,14})(?!" + UNITS + ")"
        ),
        "age": re.compile(
            rf"(?<![\d.,/-])(?P<value>9\d|1[0-2]\d)(?=[\s-]{{0,2}}(?:{either('age')})(?![\w]))"
            rf"|(?<![\w])(?:{either('age_cue')})\s*+:?\s*+(?P<value2>9\d|1[0-2]\d)(?!\d|[.,/]\d|\s?(?:mm|cm|%|kg|mois|months))"
            rf"|(?P<words>{number_words})(?=[\s-]+(?:{either('age')})(?!\w))"
        ),
    }  # fmt: skip


def find(text: str, folded: str, language: Language) -> list[Found]:
    """Find the identities made of figures; they may overlap.

    Args:
        text: The report, of which capitals matter (postcodes). folded: The same, folded.
    """
    found: list[Found] = []

    def add(start: int, end: int, kind: str, rule: str) -> None:
        found.append((start, end, kind, rule))

    for match in URL.finditer(folded):
        add(*match.span(), "URL", "e-mail" if "@" in match.group() else "web address")
    for pattern, valid, name in NATIONAL:
        for match in pattern.finditer(folded):
            if valid(match.group()):
                add(*match.span(), "NATIONAL_ID", f"{name}, check digits right")
            elif name != "NHS number" and len(_digits(match.group())) >= 11:
                add(*match.span(), "ID", f"form of a {name}, check digits wrong")
    patterns = _patterns(language)
    for match in patterns["national"].finditer(folded):
        if len(_digits(match["value"])) >= 6:
            add(*match.span("value"), "NATIONAL_ID", "label of a national number")
    for match in PHONE.finditer(folded):
        if 8 <= len(_digits(match.group())) <= 15:
            add(*match.span(), "PHONE", "form of a phone number")
    for match in patterns["phone"].finditer(folded):
        add(*match.span("value"), "PHONE", "label of a phone number")
    for match in patterns["id"].finditer(folded):
        value, digits = match["value"], len(_digits(match["value"]))
        marked = any(sign in match["mark"] for sign in ":#=°")
        enough = digits >= 4 or (digits >= 2 and len(value) >= 4 and marked)
        if enough and not re.match(UNITS, folded[match.end() : match.end() + 8]):
            add(*match.span("value"), "ID", "label of a number")
    for match in LONG.finditer(folded):
        if len(_digits(match.group())) >= (7 if "/" in match.group() else 5):
            add(*match.span(), "ID", "form of a record number")
    for match in patterns["age"].finditer(folded):
        if match["words"]:
            if number(match["words"], language) > 89 and number(match["words"], language) < 125:
                add(*match.span("words"), "AGE", "age above 89 in words")
        else:
            group = "value" if match["value"] else "value2"
            if int(match[group]) > 89:
                add(*match.span(group), "AGE", "age above 89")
    for match in POSTCODE.finditer(text):
        if not re.search(r"\d(?:ST|ND|RD|TH)$", match.group()):
            add(*match.span(), "LOCATION", "postcode")
    for match in CODE_TOWN.finditer(text):
        year = match["four"] and 1900 <= int(match["four"]) <= 2059 and not match["land"]
        if not year and fold_first(match["town"]) not in language.words:
            add(*match.span(), "LOCATION", "postcode and town")
    return found


EIRCODE = r"(?<![\w])[AC-FHKNPRTV-Y]\d[\dW]"  # the first part of an Irish postcode
POSTCODE = re.compile(
    EIRCODE + r"\s?[AC-FHKNPRTV-Y](?=\w*\d)[AC-FHKNPRTV-Y0-9]{3}(?!\w)"
    "|" + EIRCODE + r" [AC-FHKNPRTV-Y][AC-FHKNPRTV-Y0-9]{3}(?!\w)"
    r"|(?<![\w])[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2}(?!\w)"  # OX1 3BG
    r"|\b[A-Z]{2} \d{5}(?:-\d{4})?\b(?! ?\d)"  # ID 83702
    r"|(?<![\w.,/-])[1-9]\d{3} [A-Z]{2}(?= [A-Z][^\W\d_])"  # 1012 AB Amsterdam
)  # fmt: skip
SMALL = (
    r"(?:(?:sur|sous|en|l[eè]s|lez|le|la|de|du|des|d|l"
    r"|SUR|SOUS|EN|LES|LEZ|LE|LA|DE|DU|DES|D|L)[-'’ ])*"
)
CODE_TOWN = re.compile(
    r"(?<![\w.,/])(?P<land>(?:F|B|L|CH|D|NL|I|FR|BE)\s?-\s?)?"
    r"(?:(?P<five>\d{5}|\d{2}\s\d{3})|(?P<four>[1-9]\d{3})) {1,2}"
    r"(?P<town>[A-ZÀ-Þ][^\W\d_]{2,}"
    r"|(?:[LD]['’]|L[EAea] |LES |Les |St |ST |Saint |SAINT )[A-ZÀ-Þ][^\W\d_]+)"
    r"(?:[-'’ ]" + SMALL + r"[A-ZÀ-Þ][^\W\d_]+){0,4}"
    r"(?:\s(?:CEDEX|Cedex|cedex)(?:\s\d{1,2})?)?"
)


def fold_first(town: str) -> str:
    """Return the last word of a town, folded, which is no word of the language if it is a town."""
    return re.split(r"[\s'’]", fold(town))[-1]


def known(folded: str, ids: tuple[str, ...], birth: date | None) -> list[Found]:
    """Find the record numbers of an index, whatever separates their figures, and a birth date."""
    found: list[Found] = []
    for value in ids:
        plain = re.sub(r"[^a-z0-9]", "", str(value).lower())
        if len(plain) > 2:
            pattern = r"[\s./_-]?".join(map(re.escape, plain.lstrip("0") or plain))
            for match in re.finditer(rf"(?<![a-z1-9])0{{0,12}}{pattern}(?![a-z0-9])", folded):
                found.append((*match.span(), "ID", "number of the header"))
    if birth is not None:
        year, month, day = f"{birth.year:04d}", f"{birth.month:02d}", f"{birth.day:02d}"
        gap = r"\W{0,3}"
        orders = (
            (day, month, year),
            (year, month, day),
            (month, day, year),
            (day, month, year[2:]),
        )
        pattern = "|".join(
            gap.join(p.replace("0", "0?", 1) if p[0] == "0" else p for p in o) for o in orders
        )
        for match in re.finditer(rf"(?<!\d)(?:{pattern})(?!\d)", folded):
            found.append((*match.span(), "DATE", "birth date of the header"))
    return found
