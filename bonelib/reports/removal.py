"""De-identification of one report or of many: found, replaced, explained, or held back."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from bonelib.reports import identities, intake
from bonelib.reports.identities import Known
from bonelib.reports.languages import Language, fold, pieces
from bonelib.reports.surrogates import DAYS, Surrogates

MODES = ("tags", "surrogates")


class Removal(NamedTuple):
    """One removal: offsets in the cleaned text, type, rule, what stood there, what stands now."""

    start: int
    end: int
    type: str
    rule: str
    old: str
    new: str


@dataclass(frozen=True)
class Outcome:
    """A report without its identities, or the reason why it is held back.

    Attributes:
        text: The safe text; empty if held back.
        removals: Every removal. They hold identities: they belong to the key ledger.
        held: Why the report was held back, "" if it was not.
    """

    text: str
    removals: list[Removal] = field(default_factory=list)
    held: str = ""


def deidentify(
    report: str | bytes,
    language: Language,
    *,
    known: Known | None = None,
    mode: str = "tags",
    key: bytes = b"",
    patient: str = "",
    days: tuple[int, int] = DAYS,
) -> Outcome:
    """Remove the identities of one report.

    Args:
        report: Text, or the bytes of a file in UTF-8, UTF-16 or Windows Latin.
        language: The one the report is declared to be in.
        known: What an index knows of the patient.
        mode: ``tags`` writes ``<PATIENT>``, ``surrogates`` fictitious words.
        key: The secret of the surrogates. patient: What names the patient in the index.
        days: Range of the offset of dates.

    Returns:
        The safe text with its removals; or, where it can't be judged safe (no text, lost letters,
        another language, a known name that remains), no text and the reason.

    Raises:
        ValueError: An unknown mode, or surrogates without a key.
    """
    if mode not in MODES:
        raise ValueError(f"Unknown mode {mode!r}. Choose one of {', '.join(MODES)}.")
    try:
        text = intake.clean(intake.read(report) if isinstance(report, bytes) else report)
    except ValueError as error:
        return Outcome("", held=f"encoding: {error}")
    reason = intake.problem(text, language)
    if reason:
        return Outcome("", held=reason)
    known = known or Known()
    spans = identities.find(text, language, known)
    own = {fold(part) for part in pieces(" ".join((*known.names, *known.others)))}
    surrogates = (
        Surrogates(language, key=key, patient=patient, days=days, avoid=own)
        if mode == "surrogates"
        else None
    )
    removals, kept, at = [], [], 0
    for span in spans:
        new = surrogates.replace(span, text) if surrogates else f"<{span.type}>"
        removals.append(Removal(*span, text[span.start : span.end], new))
        kept.append(text[at : span.start])
        at = span.end
    kept.append(text[at:])
    reason = residue("\0".join(kept), own, language)
    if reason:
        return Outcome("", removals, reason)
    news = [removal.new for removal in removals] + [""]
    return Outcome(
        "".join(part for pair in zip(kept, news, strict=True) for part in pair), removals
    )


def residue(kept: str, own: set[str], language: Language) -> str:
    """Say what identity still stands in the text that is kept, "" if none does.

    A last look of another kind than the finder's: known names in the letters alone, whatever stands
    between them, and figures longer than any measure.
    """
    letters = re.sub(r"[^a-z\0]", "", fold(kept))
    for part in own:
        if len(part) > 5 and part not in language.words and part in letters:
            return "a name of the header remains"
    if re.search(r"\d{7,}", kept):
        return "figures remain that could number a person"
    return ""


def stream(
    reports: Iterable[tuple[str, str | bytes, str, Known | None]], language: Language, **options
) -> Iterator[tuple[str, Outcome]]:
    """De-identify reports one by one, in the memory of one.

    Args:
        reports: ``(name, report, patient, known)``.
        options: Those of :func:`deidentify` that are the same for all: ``mode``, ``key``, ``days``.
    """
    for name, report, patient, known in reports:
        yield name, deidentify(report, language, known=known, patient=patient, **options)
