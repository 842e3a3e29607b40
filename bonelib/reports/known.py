"""Names that are known: those of the index in every spelling, those found once found again."""

from collections.abc import Iterable

from bonelib.reports.languages import pieces
from bonelib.reports.walk import Walk


def header(walk: Walk, names: Iterable[str], kind: str) -> None:
    """Search the names of an index in every spelling: case, accents, order, initials, gaps."""
    parts = {p for name in names for p in pieces(name.replace("^", " ")) if len(p) > 1}
    parts = {p for p in parts if p.isalpha() and (p not in walk.particles or len(parts) == 1)}
    if not parts:
        return
    longest, count = max(map(len, parts)), len(walk.spans)
    joined = {a + b for a in parts for b in parts if a != b}
    for i, word in enumerate(walk.words):
        if not walk.letters(i):
            continue
        if word in parts:
            if meant(walk, i, parts):
                walk.person(i, i + 1, kind, "name of the header")
        elif word in joined:
            walk.person(i, i + 1, kind, "name of the header, joined")
        elif len(word) < longest:
            broken(walk, i, parts, longest, kind)
    letters = {p[0] for p in parts}
    for span in walk.spans[count:]:
        i = walk.at(span.start)
        for k in (i - 1, i - 2, i + 1):
            alike = 0 <= k < walk.size and walk.shapes[k] == "I" and walk.words[k] in letters
            if alike and (k != i - 2 or walk.sign(i - 1, ".-")) and walk.page.gap(max(i, k)) < 3:
                if k < i or walk.closes(k + 1):
                    walk.add(k, k + 1, kind, "initial of the header")


def broken(walk: Walk, i: int, parts: set[str], longest: int, kind: str) -> None:
    """Find "DU PONT", "D U P O N T", "Du-pont": the pieces of one part, beginning at ``i``."""
    whole, k = walk.words[i], i + 1
    if not any(part.startswith(whole) for part in parts):
        return
    while k < walk.size and len(whole) < longest and walk.page.gap(k) <= 2:
        if walk.sign(k, "-.'"):
            k += 1
            continue
        if not walk.letters(k):
            return
        whole, k = whole + walk.words[k], k + 1
        if whole in parts and len(whole) > 3:
            walk.person(i, k, kind, "name of the header, in pieces")
            return


def meant(walk: Walk, i: int, parts: set[str]) -> bool:
    """Whether a part of a known name is meant where it is also a word ("petit", "roche")."""
    word = walk.words[i]
    if walk.taken(i) or beside(walk, i, parts):
        return True
    if walk.plain(i) and word not in walk.eponyms:
        return len(word) > 2 or (walk.shapes[i] in "CX" and not walk.opens(i))
    if walk.eponymous(i) or not walk.large(i) or walk.page.caps[i]:
        return False
    return walk.shapes[i] == "X" or not walk.opens(i)


def beside(walk: Walk, i: int, parts: set[str]) -> bool:
    """Whether another part of the same name stands next to token ``i``."""
    for step in (-1, 1):
        k = i + step
        for _ in range(3):
            if 0 <= k < walk.size and (walk.sign(k, "-',^") or walk.words[k] in walk.particles):
                k += step
        if 0 <= k < walk.size and walk.words[k] in parts and walk.words[k] != walk.words[i]:
            return True
    return False


def again(walk: Walk) -> None:
    """Find again, anywhere, the words of the people found."""
    for i, word in enumerate(walk.words):
        kind = walk.people.get(word)
        if kind and not walk.taken(i) and not walk.eponymous(i):
            walk.add(i, i + 1, kind, "found elsewhere in the report")
