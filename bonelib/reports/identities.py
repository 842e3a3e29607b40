"""Identities in a report: what names a person, a place, a day or a number, found and explained.

A text comes in, spans ``(start, end, type, rule)`` go out; nothing is changed. Form and context
carry most of it (titles, labels, relations, street and institution words, number formats), lexicons
the rest, so that a name in no lexicon is found too. Eponyms (Ewing, Codman, Salter–Harris) stay
unless a title or a label says that a person is meant.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from bonelib.reports import dates, institutions, numbers, people, places
from bonelib.reports import known as known_names
from bonelib.reports.languages import Language, Page
from bonelib.reports.walk import Span, Walk

PATIENT, PERSON, LOCATION, INSTITUTION = "PATIENT", "PERSON", "LOCATION", "INSTITUTION"
DATE, AGE, ID, NATIONAL_ID, PHONE, URL = "DATE", "AGE", "ID", "NATIONAL_ID", "PHONE", "URL"
TYPES = (PATIENT, PERSON, LOCATION, INSTITUTION, DATE, AGE, ID, NATIONAL_ID, PHONE, URL)


@dataclass(frozen=True)
class Known:
    """What an index or the DICOM header says of the patient; searched in every spelling.

    Attributes:
        names: Of the patient, in any order; the carets of DICOM names are read as spaces.
        others: Names of doctors and relatives. birth: Birth date. ids: Record numbers.
    """

    names: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    birth: date | None = None
    ids: tuple[str, ...] = ()


def find(text: str, language: Language, known: Known | None = None) -> list[Span]:
    """Find the identities of a report, sorted, without overlap.

    Args:
        text: The report. Offsets of the spans count its characters.
        language: Of the report (``languages.language``).
        known: What is already known of the patient.
    """
    known = known or Known()
    page = Page(text)
    spans = [Span(d.start, d.end, DATE, d.rule) for d in dates.find(page.folded, language)]
    spans += [Span(*found) for found in numbers.find(text, page.folded, language)]
    spans += [Span(*found) for found in numbers.known(page.folded, known.ids, known.birth)]
    walk = Walk(page, language, spans)
    walk.spans = spans
    places.before_codes(walk)
    places.suffixed(walk)
    i = 0
    while i < walk.size:
        if walk.shapes[i] in "CXIl" and not walk.taken(i):
            i = _cued(walk, i)
        i += 1
    known_names.header(walk, known.names, PATIENT)
    known_names.header(walk, known.others, PERSON)
    places.towns(walk)
    people.free(walk)
    known_names.again(walk)
    return merged(walk.spans)


def _cued(walk: Walk, i: int) -> int:
    """Read what the cues at token ``i`` announce; return the last token read."""
    for cue in walk.language.cues.all(walk.righted, i):
        count = len(walk.spans)
        reader = people
        if cue.kind.startswith("institution"):
            reader = institutions
        elif cue.kind.startswith(("label_place", "label_institution", "place", "street")):
            reader = places
        further = reader.announced(walk, cue, i)
        if len(walk.spans) > count:
            return max(further - 1, i)
    return i


def merged(spans: Iterable[Span]) -> list[Span]:
    """Join spans that overlap; the longest gives the type, and every rule is kept."""
    out: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start, -s.end, s.type != NATIONAL_ID)):
        if out and span.start < out[-1].end:
            last = out[-1]
            longer = span if span.end - span.start > last.end - last.start else last
            rules = dict.fromkeys((*last.rule.split(" + "), *span.rule.split(" + ")))
            end = max(last.end, span.end)
            out[-1] = Span(last.start, end, longer.type, " + ".join(rules))
        elif span.end > span.start:
            out.append(span)
    return out
