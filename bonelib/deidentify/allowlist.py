"""What may stay in a de-identified header: a short list of elements with the form of their values.

A parsed file comes in; a new dataset goes out that holds nothing else, with the fate of every
element it came with. Removing what is known to identify (PS3.15 Table E.1-1, ``profile.csv``)
leaves whatever nobody thought of: private tags, comments in odd places, new elements. So the list
is of what is kept (``allowlist.csv``), and even that only if its value has the form of what it
should be and repeats nothing of the patient's identity. Where the standard asks for an element
(type 1 or 2 of PS3.3), its column ``otherwise`` says what stands for a value that may not stay:
nothing, or a word that says no more, so that other software takes the copies.
"""

import csv
import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bonelib.deidentify.token_scan import DATE, ID, LOCATION, PATIENT, PERSON, PHONE
from bonelib.dicom import elements, frames, reading

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

# Pseudonyms and new UIDs are put into these afterwards: they may hold anything before.
REPLACED = ("PatientID", "PatientName", "AccessionNumber")
REMAPPED = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
SHIFTED = tuple(
    f"{k}{w}" for k in ("Study", "Series", "Acquisition", "Content") for w in ("Date", "Time")
)
# Asked for by every image (PS3.3 C.7) and by the records of a DICOMDIR (PS3.3 F.5).
ALWAYS = ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID")
ALWAYS += ("Manufacturer", "PatientBirthDate", "PatientSex", "SeriesNumber", "InstanceNumber")
MOST = 1e7  # no exposure, spacing or window is larger; dates and many numbers of persons are
# Elements beside all names of persons (VR PN) whose words must not turn up anywhere else. Not those
# of institutions and protocols: "Hand Clinic" would take the body part with it.
IDENTITY = re.compile(
    r"PatientID|OtherPatientIDs|PatientBirthDate|PatientAddress|AccessionNumber|StudyID|AdmissionID"
    r"|MedicalRecordLocator|InsurancePlanIdentification|\w*TelephoneNumbers?|PatientTelecom\w*"
)
CLASS = "SOPClassUID"  # figures of the standard
NOTHING = "(?!)"  # the form of elements of which no value may stay
PICTURE = 0x0028  # group of the elements that say how a picture looks
CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
LOST = {(k, f"removed: {why}") for k in CODE for why in ("value", "repeats an identity")}
KINDS = {"PatientBirthDate": DATE, "PatientAddress": LOCATION}  # of identity; others are ID


@functools.cache
def patterns() -> dict[str, str]:
    """Form of the values of each element that may stay, by keyword."""
    return {keyword: pattern for keyword, pattern, *_ in _rows("allowlist.csv")}


@functools.cache
def stand_ins() -> dict[str, str]:
    """What takes the place of a value that may not stay, by keyword; "" leaves it empty."""
    told = {keyword: value for keyword, _, *values in _rows("allowlist.csv") for value in values}
    return {keyword: "" if value == "empty" else value for keyword, value in told.items()}


@functools.cache
def profile() -> dict[int, str]:
    """Action of the basic profile for each tag: X remove, Z empty, D dummy, U new UID."""
    return {int(tag, 16): action for tag, _, action in _rows("profile.csv")}


def action(tag: int) -> str:
    """What PS3.15's basic profile says of a tag: its action, "X" for private, "" for nothing."""
    group = tag >> 16
    if group % 2:
        return "X"
    # Curves and overlays come in repeating groups: 50xx, 60xx3000 and 60xx4000.
    if group >> 8 == 0x50 or (group >> 8 == 0x60 and tag & 0xFFFF in (0x3000, 0x4000)):
        return "X"
    return profile().get(tag, "")


def clean(header: "Dataset") -> tuple["Dataset", list[tuple[str, str, str]], dict[str, str]]:
    """Build the dataset of what may stay, before pseudonyms and dates are put in.

    Returns:
        The dataset; for each element of the header its tag as "GGGGEEEE", its keyword ("private"
        where it has none) and what was done (``kept``, ``removed``, ``replaced``, ``remapped``,
        ``shifted``; with the reason ``: value`` or ``: repeats an identity`` also ``emptied``,
        ``dummy``, ``in part``); and the words of persons' identities (``identity``).
    """
    from pydicom.dataset import Dataset, FileMetaDataset

    words = identity(header)
    made, fates = Dataset(), []
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = reading.transfer_syntax(header)
    _copy(header, made, words, fates, patterns())
    for unit in ("Date", "Time"):
        others = (made.get(keyword) for keyword in SHIFTED if keyword.endswith(unit))
        if value := next(filter(None, others), None):  # the study's own comes first
            setattr(made, f"Study{unit}", value)
    for keyword in ALWAYS:
        if keyword not in made:
            setattr(made, keyword, stand_ins()[keyword])
    return made, fates, words


def identity(header: "Dataset") -> dict[str, str]:
    """Collect names, numbers and dates of persons: words of 4 letters or more, 5 digits or more.

    Returns:
        The words in lower case, each with the type of identity that it is of.
    """
    words: dict[str, str] = {}
    for element in elements.each(header):
        keyword = element.keyword
        if element.VR == "PN" or IDENTITY.fullmatch(keyword):
            kind = PHONE if "Tele" in keyword else KINDS.get(keyword, ID)
            if element.VR == "PN":
                kind = PATIENT if "Patient" in keyword else PERSON
            for value in _values(element):
                parts = re.split(r"[\s^=,;:/\\]+", str(value).casefold())
                long = (p for p in parts if len(p) >= (5 if p.isdigit() else 4))
                words |= {word: words.get(word, kind) for word in long}
    return words


def left(content: bytes | str, words: Iterable[str]) -> list[str]:
    """Find the words of an identity in the bytes of a file or in a text, where they stand alone.

    A number stands between other characters than figures, a word between fewer than two letters:
    "Mary" is not in "PRIMARY".
    """
    texts = [content] if isinstance(content, str) else []
    texts = texts or [content.decode(code, errors="replace") for code in ("utf-8", "latin-1")]
    texts, letter = [text.casefold() for text in texts], r"[^\W\d_]"
    ends = {True: (r"(?<!\d)", r"(?!\d)"), False: (f"(?<!{letter}{letter})", f"(?!{letter}{{2}})")}
    words = [w for w in words if any(w in text for text in texts)]  # spares most expressions
    forms = {w: re.escape(w).join(ends[w.isdigit()]) for w in words}
    return sorted(w for w, form in forms.items() if any(re.search(form, t) for t in texts))


def remains(made: "Dataset", content: bytes, words: Iterable[str]) -> list[str]:
    """Find the words of an identity in a finished copy: a last look, blind to how they got there.

    Letters are looked for in all bytes; numbers in the values that are no numbers, times or
    constants of the standard: a window of 16384 is no patient 16384.

    Args:
        made: The copy without its pixels and our own marks. content: Its bytes.
    """
    numbers = {word for word in words if word.isdigit()}
    plain = {k for k, pattern in patterns().items() if pattern in ("number", "data", "items")}
    plain |= {*SHIFTED, CLASS}
    values = [str(e.value) for e in elements.each(made) if e.keyword not in plain]
    return left(content, set(words) - numbers) + left("\n".join(values), numbers)


def _copy(
    source: "Dataset", made: "Dataset", words: dict[str, str], fates: list, allowed: dict[str, str]
) -> None:
    for tag in sorted(source.keys()):
        try:
            element = source[tag]
        except elements.broken():
            fates.append((f"{int(tag):08X}", "", "removed: value"))
            continue
        keyword = element.keyword or ("private" if element.tag.is_private else "")
        keyword = "GroupLength" if element.tag.element == 0 else keyword
        fate = _fate(element, keyword, words, allowed)
        if fate.startswith("removed") and keyword in stand_ins():
            value = stand_ins()[keyword]
            fate = fate.replace("removed", "dummy" if value else "emptied")
            if keyword == "ImageType":  # each of its values is told by its place, PS3.3 C.7.6.1.1.2
                own = [str(v) for v in _values(element)]
                value = [v if re.fullmatch(allowed[keyword], v) else "" for v in own]
                fate = fate.replace("emptied", "in part")
            setattr(made, keyword, [] if element.VR == "SQ" else value)
        elif fate.startswith("removed"):
            pass
        elif allowed[keyword] == "items":
            from pydicom.dataset import Dataset

            items = []
            for item in element.value:
                inner, before = Dataset(), len(fates)
                _copy(item, inner, words, fates, allowed)
                # A code of which a part is lost is no code any more.
                if not any(f[1:] in LOST for f in fates[before:]):
                    items.append(inner)
            if items:
                setattr(made, keyword, items)
            else:
                fate = "removed: value"
        elif keyword == "PixelData":
            # The same values, and nothing that hides beside them.
            made.add(frames.bare_pixels(source, reading.transfer_syntax(source)))
        else:
            made.add_new(element.tag, element.VR, element.value)
        fates.append((f"{int(tag):08X}", keyword, fate))


def _fate(
    element: "DataElement", keyword: str, words: dict[str, str], allowed: dict[str, str]
) -> str:
    if keyword not in allowed:
        return "removed"
    pattern = allowed[keyword]
    if pattern in ("items", "data"):
        return "kept"
    if keyword in REPLACED:
        return "replaced"
    if pattern == NOTHING:
        return "removed: value"
    for value in _values(element):
        text = str(value).strip("\0 ")
        if pattern == "number":
            try:
                number = float(text or 0)
            except ValueError:
                return "removed: value"
            if not np.isfinite(number) or abs(number) >= MOST:
                return "removed: value"
            # Without its window a picture is another one; a name can't stand in either.
            if element.tag.group != PICTURE and number in {int(w) for w in words if w.isdecimal()}:
                return "removed: repeats an identity"
        elif not re.fullmatch(pattern, text):
            return "removed: value"
        elif keyword not in (*REMAPPED, *SHIFTED, CLASS) and left(text, words):
            return "removed: repeats an identity"
    return "remapped" if keyword in REMAPPED else "shifted" if keyword in SHIFTED else "kept"


def _values(element: "DataElement") -> list[Any]:
    value = element.value
    if value is None:
        return []
    if isinstance(value, str | bytes | int | float) or not hasattr(value, "__iter__"):
        return [value]
    return list(value) if element.VR != "PN" or element.VM > 1 else [value]


def _rows(name: str) -> list[list[str]]:
    with Path(__file__).with_name(name).open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))[1:]
