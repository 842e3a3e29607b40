"""What an index knows of the patient, found in the text: names in every spelling, numbers, birth.

Also what was found once, found again.
"""

import re
from collections.abc import Iterable
from datetime import date

from bonelib.deidentify.token_scan import DATE, ID, Span, TokenScan
from bonelib.reports.pages import pieces


def names(scan: TokenScan, spellings: Iterable[str], kind: str) -> None:
    """Search names in every spelling: case, accents, order, initials, gaps."""
    parts = {p for name in spellings for p in pieces(name.replace("^", " ")) if len(p) > 1}
    parts = {p for p in parts if p.isalpha() and (p not in scan.particles or len(parts) == 1)}
    if not parts:
        return
    longest, count = max(map(len, parts)), len(scan.spans)
    joined = {a + b for a in parts for b in parts if a != b}
    for i, word in enumerate(scan.words):
        if not scan.letters(i):
            continue
        if word in parts:
            if meant(scan, i, parts):
                scan.person(i, i + 1, kind, "name of the header")
        elif word in joined:
            scan.person(i, i + 1, kind, "name of the header, joined")
        elif len(word) < longest:
            broken(scan, i, parts, longest, kind)
    letters = {p[0] for p in parts}
    for span in scan.spans[count:]:
        i = scan.at(span.start)
        for k in (i - 1, i - 2, i + 1):
            alike = 0 <= k < scan.size and scan.shapes[k] == "I" and scan.words[k] in letters
            beside = (k != i - 2 or scan.sign(i - 1, ".-")) and scan.gap(max(i, k)) < 3
            if alike and beside and (k < i or scan.closes(k + 1)):
                scan.add(k, k + 1, kind, "initial of the header")


def broken(scan: TokenScan, i: int, parts: set[str], longest: int, kind: str) -> None:
    """Find "DU PONT", "D U P O N T", "Du-pont": the pieces of one part, beginning at ``i``."""
    whole, k = scan.words[i], i + 1
    if not any(part.startswith(whole) for part in parts):
        return
    while k < scan.size and len(whole) < longest and scan.gap(k) <= 2:
        if scan.sign(k, "-.'"):
            k += 1
            continue
        if not scan.letters(k):
            return
        whole, k = whole + scan.words[k], k + 1
        if whole in parts and len(whole) > 3:
            scan.person(i, k, kind, "name of the header, in pieces")
            return


def meant(scan: TokenScan, i: int, parts: set[str]) -> bool:
    """Whether a part of a known name is meant where it is also a word ("petit", "roche")."""
    word = scan.words[i]
    if scan.taken(i) or beside(scan, i, parts):
        return True
    if scan.plain(i) and word not in scan.eponyms:
        return len(word) > 2 or (scan.shapes[i] in "CX" and not scan.opens(i))
    if scan.eponymous(i) or not scan.large(i) or scan.caps[i]:
        return False
    return scan.shapes[i] == "X" or not scan.opens(i)


def beside(scan: TokenScan, i: int, parts: set[str]) -> bool:
    """Whether another part of the same name stands next to token ``i``."""
    for step in (-1, 1):
        k = i + step
        for _ in range(3):
            if scan.sign(k, "-',^") or scan.of(k, "particle"):
                k += step
        if 0 <= k < scan.size and scan.words[k] in parts and scan.words[k] != scan.words[i]:
            return True
    return False


def again(scan: TokenScan) -> None:
    """Find again, anywhere, the words of the people found."""
    for i, word in enumerate(scan.words):
        kind = scan.people.get(word)
        if kind and not scan.taken(i) and not scan.eponymous(i):
            scan.add(i, i + 1, kind, "found elsewhere in the report")


def numbers(folded: str, ids: Iterable[str], birth: date | None) -> list[Span]:
    """Find record numbers, whatever separates their figures, and a birth date, in folded text."""
    spans: list[Span] = []
    for value in ids:
        plain = re.sub(r"[^a-z0-9]", "", str(value).lower())
        if len(plain) > 2:
            pattern = r"[\s./_-]?".join(map(re.escape, plain.lstrip("0") or plain))
            for match in re.finditer(rf"(?<![a-z1-9])0{{0,12}}{pattern}(?![a-z0-9])", folded):
                spans.append(Span(*match.span(), ID, "number of the header"))
    if birth is not None:
        year, month, day = f"{birth:%Y}", f"{birth:%m}", f"{birth:%d}"
        orders = (day, month, year), (year, month, day), (month, day, year), (day, month, year[2:])
        pattern = "|".join(
            r"\W{0,3}".join(p.replace("0", "0?", 1) if p[0] == "0" else p for p in order)
            for order in orders
        )
        for match in re.finditer(rf"(?<!\d)(?:{pattern})(?!\d)", folded):
            spans.append(Span(*match.span(), DATE, "birth date of the header"))
    return spans
