"""French and English radiology reports made safe, measured, and turned into structure.

Free text comes in; text without identities goes out, with every removal explained, then its
sections, sentences and facts. A language is rows in ``words.csv`` and ``vocabulary.csv``.

    language = reports.language("fr")
    outcome = reports.deidentify(text, language, known=reports.Known(names=("Dupont^Jean",)))
    found = reports.facts(outcome.text, language)
"""

from bonelib.reports.identities import TYPES, Known, find
from bonelib.reports.languages import Language, language, names
from bonelib.reports.leaks import (
    PUBLISHED,
    check,
    count,
    leak_table,
    missed,
    read_brat,
    read_inline,
)
from bonelib.reports.pairing import pair
from bonelib.reports.removal import MODES, Outcome, Removal, deidentify, stream
from bonelib.reports.sources import Source, read
from bonelib.reports.statements import KINDS, Fact, agreement, facts, table
from bonelib.reports.structure import Section, sections, sentences
from bonelib.reports.surrogates import DAYS
from bonelib.reports.walk import Span

__all__ = [
    "DAYS",
    "KINDS",
    "MODES",
    "PUBLISHED",
    "TYPES",
    "Fact",
    "Known",
    "Language",
    "Outcome",
    "Removal",
    "Section",
    "Source",
    "Span",
    "agreement",
    "check",
    "count",
    "deidentify",
    "facts",
    "find",
    "language",
    "leak_table",
    "missed",
    "names",
    "pair",
    "read",
    "read_brat",
    "read_inline",
    "sections",
    "sentences",
    "stream",
    "table",
]
