"""Sections and sentences of a report, with the state of each statement.

Headings come from the table of the language. A sentence ends at a full stop that no figure, unit or
abbreviation follows (the guard of Englebert et al. 2024: "1.5 cm", "12/03"). Negation, uncertainty
and history follow NegEx (Chapman et al. 2001, J Biomed Inform 34:301): triggers before or after,
false triggers, words that end their reach. The French triggers are edsnlp's tables, read as data:
its pipeline takes about 6 ms for 1,000 characters, half of what a whole report may take here.
"""

import re
from functools import lru_cache
from importlib import import_module
from typing import NamedTuple

from bonelib.reports.languages import Language, Phrases, Spelling
from bonelib.reports.pages import fold

INDICATION, TECHNIQUE, FINDINGS, CONCLUSION = "indication", "technique", "findings", "conclusion"
OTHER = "other"
PRESENT, ABSENT, UNCERTAIN = "present", "absent", "uncertain"
REACH = 12  # words that a trigger governs, unless the clause ends before


class Section(NamedTuple):
    """A part of a report: its kind, and the offsets of what stands under its heading."""

    kind: str
    start: int
    end: int


# At the start of a line or of a sentence; closed by a colon, or alone on its line.
HEADING = re.compile(
    r"(?:^|(?<=\n)|(?<=[.;]\s)|(?<=\s\s))[ *#_=\-•\d.)]{0,80}"
    r"(?P<head>[^\W\d_]+(?:[ '\-]{1,2}[^\W\d_]+){0,4}?)"
    r"(?: *+[*_]*+ *+:(?!\d)|[ *_=\-]*+(?=\n|$)|\s+-\s)"
)


@lru_cache(maxsize=8)
def _heads(language: Language) -> Spelling:
    words = (word for head in language.kind("section") for word in head.split())
    return Spelling(words, least=6)


def _section(head: str, language: Language) -> str:
    """Name the section that a folded heading opens, "" if it is none; one letter may be wrong."""
    table, head = language.kind("section"), " ".join(head.split())
    if head in table or head in language.words:
        return table.get(head, "")
    return table.get(" ".join(map(_heads(language).right, head.split())), "")


def sections(text: str, language: Language) -> list[Section]:
    """Cut a report into its sections, in order; text before the first heading is ``other``."""
    found: list[Section] = []
    kind, start = OTHER, 0
    for match in HEADING.finditer(fold(text)):
        opened = _section(match["head"], language)
        if opened:
            if match.start() > start:
                found.append(Section(kind, start, match.start()))
            kind, start = opened, match.end()
    found.append(Section(kind, start, len(text)))
    return [section for section in found if text[section.start : section.end].strip()]


SHORT = frozenset(
    "dr pr mme mlle m mr mrs ms st ste no n env ex cf vs fig art tel av bd resp ca al".split()
)
STOP = re.compile(r"\n|[.!?]+(?=[\s\"»)]|$)|(?<=[a-zà-ÿ)])[.!](?=[A-ZÀ-Þ][a-zà-ÿ])|;")
QUERY = re.compile(r"[ \t]+[a-zà-ÿ]")
WRAP = 40  # characters: a shorter line ends a statement even without a full stop


def _breaks(text: str, at: int) -> bool:
    """Whether a line end closes a sentence, or only wraps it."""
    line = text[text.rfind("\n", 0, at) + 1 : at].rstrip()
    ahead = text[at + 1 : at + 12].lstrip(" \t")
    return len(line) < WRAP or line[-1] in ".:;!?-=" or not ahead or ahead[0] in "\n-•*"


def sentences(text: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Return the offsets of sentences between ``start`` and ``end``, without outer spaces."""
    end = len(text) if end is None else end
    found, at = [], start
    for match in STOP.finditer(text, start, end):
        if match.group() == "\n" and not _breaks(text, match.start()):
            continue
        if match.group() == "?" and QUERY.match(text, match.end()):
            before = text[at : match.start()]
            if not re.search(r"\w", before) or before[-1] in " ,;:-(/":
                continue  # "? fracture", "fall, ? fracture": a question to come
        if match.group()[0] == ".":
            before = re.search(r"[^\W\d_]+$", text[max(start, match.start() - 6) : match.start()])
            word = fold(before.group()) if before else ""
            ahead = text[match.end() : match.end() + 3].lstrip()[:1]
            if word in SHORT and ahead != "" and not text[match.end() : match.end() + 1] == "\n":
                continue
            if (
                len(word) == 1
                and ahead.isupper()
                and word.isalpha()
                and text[match.start() - 1].isupper()
            ):
                continue  # an initial
            if text[match.start() - 1 : match.start()].isdigit() and (
                ahead.isdigit() or ahead == "/"
            ):
                continue  # the guard of numbers
        found.append((at, match.end()))
        at = match.end()
    found.append((at, end))
    out = []
    for first, last in found:
        piece = text[first:last]
        if re.search(r"\w", piece):
            out.append((first + len(piece) - len(piece.lstrip()), first + len(piece.rstrip())))
    return out


@lru_cache(maxsize=8)
def triggers(language: Language) -> Phrases:
    """Return the triggers of a language: kinds ``negation_pre``, ``…_post``, ``…_pseudo``, …."""
    kinds = (
        "negation_pseudo", "negation_pre", "negation_post", "uncertain_pre", "uncertain_post",
        "history", "family", "ends",
    )  # fmt: skip
    rows = [(term, kind, "") for kind in kinds for term in language.kind(kind)]
    own = {fold(term) for term, _, _ in rows}
    if language.name == "fr":
        root = "edsnlp.pipes.qualifiers"
        negation = import_module(f"{root}.negation.patterns")
        hypothesis = import_module(f"{root}.hypothesis.patterns")
        for terms, kind in (
            (negation.pseudo, "negation_pseudo"),
            (negation.preceding, "negation_pre"),
            (negation.following, "negation_post"),
            (hypothesis.preceding, "uncertain_pre"),
            (hypothesis.following, "uncertain_post"),
        ):
            rows += [(t, kind, "") for t in terms if fold(t) not in own | NOT_OURS]
            own |= {fold(t) for t in terms}  # theirs govern one side: "non" what stands behind it
    return Phrases(rows)


# Of edsnlp's tables, words that in a radiograph's report state size or extent, not doubt.
NOT_OURS = frozenset(
    "discret discrets discrete discretes si selon exploration risque soit pas".split()
)


@lru_cache(maxsize=8)
def _spelling(language: Language) -> Spelling:
    phrases = [p for f in (triggers(language).first, language.vocabulary.first) for p in f.values()]
    return Spelling(token for some in phrases for phrase in some for token in phrase.tokens)


def corrected(word: str, language: Language) -> str:
    """Return the word of the tables that an unknown word misspells by one letter, or itself."""
    return word if word in language.words else _spelling(language).right(word)
