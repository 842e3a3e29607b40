"""De-identification of one report: its identities found, replaced and explained, or held back."""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from bonelib.deidentify import identities
from bonelib.deidentify.surrogates import DAYS, Surrogates
from bonelib.reports import PatientIndex, intake
from bonelib.reports.languages import Language
from bonelib.reports.pages import fold, pieces

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
        removals: Every removal. They hold identities: they belong to the ledger.
        held: Why the report was held back, "" if it was not.
    """

    text: str
    removals: list[Removal] = field(default_factory=list)
    held: str = ""


def report(
    report: str | bytes,
    language: Language,
    *,
    index: PatientIndex | None = None,
    mode: str = "tags",
    key: bytes = b"",
    patient: str = "",
    days: tuple[int, int] = DAYS,
) -> Outcome:
    """Remove the identities of one report.

    Args:
        report: Text, or the bytes of a file in UTF-8, UTF-16 or Windows Latin.
        language: The one the report is declared to be in.
        index: What an index knows of the patient.
        mode: ``tags`` writes ``<PATIENT>``, ``surrogates`` fictitious words.
        key: The secret of the surrogates. patient: What names the patient in the index.
        days: Range of the offset of dates.

    Returns:
        The safe text with its removals; or, where it can't be judged safe (no text, lost letters,
        another language, no capitals and no name in the index, a known name that remains), no text
        and the reason.

    Raises:
        ValueError: An unknown mode, or surrogates without a key.
    """
    if mode not in MODES:
        raise ValueError(f"Unknown mode {mode!r}. Choose one of {', '.join(MODES)}.")
    try:
        text = intake.clean(intake.read(report) if isinstance(report, bytes) else report)
    except ValueError as error:
        return Outcome("", held=f"encoding: {error}")
    if reason := intake.problem(text, language):
        return Outcome("", held=reason)
    index = index or PatientIndex()
    if not index.names and intake.uncapitalised(text):
        return Outcome("", held="no capitals: names can't be told from words without an index")
    names = {fold(part) for part in pieces(" ".join((*index.names, *index.others)))}
    surrogates = None
    if mode == "surrogates":
        surrogates = Surrogates(language, key=key, patient=patient, days=days, avoid=names)
    removals, kept, at = [], [], 0
    for span in identities.find(text, language, index):
        new = surrogates.replace(span, text) if surrogates else f"<{span.type}>"
        removals.append(Removal(*span, text[span.start : span.end], new))
        kept.append(text[at : span.start])
        at = span.end
    kept.append(text[at:])
    if reason := residue("\0".join(kept), names, language):
        return Outcome("", removals, reason)
    safe = "".join(before + removal.new for before, removal in zip(kept, removals, strict=False))
    return Outcome(safe + kept[-1], removals)


def residue(kept: str, names: set[str], language: Language) -> str:
    """Say what identity still stands in the text that is kept, "" if none does.

    A last look of another kind than the finder's: known names in the letters alone, whatever stands
    between them, and figures longer than any measure.
    """
    letters = re.sub(r"[^a-z\0]", "", fold(kept))
    for part in names:
        if len(part) > 5 and part not in language.usual and part in letters:
            return "a name of the header remains"
    if re.search(r"\d{7,}", kept):
        return "figures remain that could number a person"
    return ""
