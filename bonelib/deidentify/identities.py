"""Identities in a report: what names a person, a place, a day or a number, found and explained.

A text comes in, spans ``(start, end, type, rule)`` go out; nothing is changed. Form and context
carry most of it (titles, labels, relations, street and institution words, number formats), lexicons
the rest, so that a name in no lexicon is found too. Eponyms (Ewing, Codman, Salter–Harris) stay
unless a title or a label says that a person is meant.
"""

from collections.abc import Iterable

from bonelib.deidentify import (
    addresses,
    boxes,
    dates,
    forms,
    institutions,
    numbers,
    patient_index,
    people,
)
from bonelib.deidentify.token_scan import DATE, NATIONAL_ID, PATIENT, PERSON, Span, TokenScan
from bonelib.reports import PatientIndex
from bonelib.reports.languages import Language


def find(text: str, language: Language, index: PatientIndex | None = None) -> list[Span]:
    """Find the identities of a report, sorted, without overlap.

    Args:
        text: The report. Offsets of the spans count its characters.
        language: Of the report (``reports.language``).
        index: What is already known of the patient.
    """
    index, scan = index or PatientIndex(), TokenScan(text, language)
    days = (Span(d.start, d.end, DATE, d.rule) for d in dates.find(scan.folded, language))
    known = patient_index.numbers(scan.folded, index.ids, index.birth)
    for span in (*days, *numbers.find(text, scan.folded, language), *known):
        scan.record(span)
    addresses.before_codes(scan)
    addresses.suffixed(scan)
    i = 0
    while i < scan.size:
        if scan.letters(i) and not scan.taken(i):
            i = _cued(scan, i)
        i += 1
    patient_index.names(scan, index.names, PATIENT)
    patient_index.names(scan, index.others, PERSON)
    boxes.counties(scan)
    boxes.boxes(scan)
    addresses.towns(scan)
    forms.free(scan)
    forms.bracketed(scan)
    patient_index.again(scan)
    return merged(scan.spans)


def _cued(scan: TokenScan, i: int) -> int:
    """Read what the cues at token ``i`` announce; return the last token read."""
    for cue in scan.language.cues.all(scan.righted, i):
        count, reader = len(scan.spans), people
        if cue.kind.startswith("institution"):
            reader = institutions
        elif cue.kind.startswith(("label_place", "label_institution", "place", "street")):
            reader = addresses
        further = reader.announced(scan, cue, i)
        if len(scan.spans) > count:
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
