"""Text with marked stretches: set, mistyped and broken into lines before their places are counted.

A mark is carried inside the text by characters of the private use area, so that nothing done to a
report can shift an annotation: only :func:`parted` counts characters, once, at the end.
"""

from __future__ import annotations

import re
from random import Random

from .identities import plain

_OPEN, _MIDDLE, _CLOSE = "\ue000", "\ue001", "\ue002"
_MARKED = re.compile(f"({_OPEN}[^{_CLOSE}]*{_CLOSE})")
_FAULTS = ("swap", "drop", "double", "neighbour")
_KEYS = {"a": "z", "e": "r", "i": "o", "n": "b", "o": "p", "r": "t", "s": "d", "t": "y", "u": "i"}


def mark(label: str, text: str) -> str:
    """The text, marked with a label."""
    return f"{_OPEN}{label}{_MIDDLE}{text}{_CLOSE}"


def parted(marked: str) -> tuple[str, list[tuple[str, int, int]]]:
    """Part a marked text into plain text and its marks as (label, start, end)."""
    text, spans = "", []
    for piece in _MARKED.split(marked):
        if piece.startswith(_OPEN):
            label, words = piece[1:-1].split(_MIDDLE)
            spans.append((label, len(text), len(text) + len(words)))
            text += words
        else:
            text += piece
    return text, spans


def sentence(text: str) -> str:
    """The text with a capital first letter, unless a mark comes first."""
    return text[:1].upper() + text[1:]


def capitals(marked: str) -> str:
    """Upper case without accents. Labels are upper case already."""
    return plain(marked.upper())


def mistyped(marked: str, rng: Random, *, faults: int) -> str:
    """Slips of the keyboard in words of five letters or more, never in a marked stretch."""
    pieces = _MARKED.split(marked)
    places = [
        (number, found.start(), found.end())
        for number in range(0, len(pieces), 2)  # the marks stand between
        for found in re.finditer(r"[a-zà-ÿ]{5,}", pieces[number])
    ]
    chosen = rng.sample(places, min(faults, len(places)))
    for number, start, end in sorted(chosen, reverse=True):  # later ones first: places stay right
        word = pieces[number][start:end]
        at = rng.randrange(1, len(word) - 1)
        kind = rng.choice(_FAULTS)
        if kind == "swap":
            word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        elif kind == "drop":
            word = word[:at] + word[at + 1 :]
        elif kind == "double":
            word = word[:at] + word[at] + word[at:]
        else:
            word = word[:at] + _KEYS.get(word[at], word[at]) + word[at + 1 :]
        pieces[number] = pieces[number][:start] + word + pieces[number][end:]
    return "".join(pieces)


def unevenly_spaced(marked: str, rng: Random) -> str:
    """Double blanks, blanks lost after a comma or put before one, outside of marks."""
    pieces = _MARKED.split(marked)
    for number in range(0, len(pieces), 2):
        piece = re.sub(r" (?=\w)", lambda _: "  " if rng.random() < 0.05 else " ", pieces[number])
        pieces[number] = re.sub(r", (?=\w)", lambda _: rng.choice((", ", ", ", ",", " , ")), piece)
    return "".join(pieces)


def wrapped(marked: str, width: int) -> str:
    """Break lines before ``width`` characters; a marked stretch stays on one line."""
    lines = []
    for line in marked.split("\n"):
        broken, column = "", 0
        for token in re.split(f"( +(?=[^{_CLOSE}]*(?:{_OPEN}|$)))", line):
            length = len(parted(token)[0])
            if token.isspace() and column:
                broken, column = broken + token, column + length
                continue
            if column + length > width and broken:
                broken, column = broken.rstrip(" ") + "\n", 0
            broken, column = broken + token, column + length
        lines.append(broken)
    return "\n".join(lines)
