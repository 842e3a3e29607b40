"""What may stay in a de-identified header: a short list of elements with the form of their values.

A parsed file comes in; a new dataset goes out that holds nothing else, with the fate of every
element it came with. Removing what is known to identify (PS3.15 Table E.1-1, ``profile.csv``)
leaves whatever nobody thought of: private tags, comments in odd places, new elements. So the list
is of what is kept (``keep.csv``), and even that only if its value has the form of what it should be
and repeats nothing of the patient's identity.
"""

import csv
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bonelib.dicom import frames, reading

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

# Pseudonyms and new UIDs are put into these afterwards: they may hold anything before.
REPLACED = ("PatientID", "PatientName", "AccessionNumber")
REMAPPED = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
SHIFTED = tuple(
    f"{k}{w}" for k in ("Study", "Series", "Acquisition", "Content") for w in ("Date", "Time")
)
MOST = 1e7  # no exposure, spacing or window is larger; dates and many numbers of persons are
# Elements beside all names of persons (VR PN) whose words must not turn up anywhere else. Not those
# of institutions and protocols: "Hand Clinic" would take the body part with it.
IDENTITY = re.compile(
    r"PatientID|OtherPatientIDs|PatientBirthDate|PatientAddress|AccessionNumber|StudyID|AdmissionID"
    r"|MedicalRecordLocator|InsurancePlanIdentification|\w*TelephoneNumbers?|PatientTelecom\w*"
)


@functools.cache
def patterns() -> dict[str, str]:
    """Form of the values of each element that may stay, by keyword."""
    return dict(_rows("keep.csv"))


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


def clean(header: "Dataset") -> tuple["Dataset", list[tuple[str, str, str]], set[str]]:
    """Build the dataset of what may stay, before pseudonyms and dates are put in.

    Returns:
        The dataset; for each element of the header its tag as "GGGGEEEE", its keyword ("private"
        where it has none) and what was done (``kept``, ``removed``, ``removed: value``,
        ``removed: repeats an identity``, ``replaced``, ``remapped``, ``shifted``); and the words of
        the patient's identity, lower case.
    """
    from pydicom.dataset import Dataset, FileMetaDataset

    words = identity(header)
    made, told = Dataset(), []
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = reading.transfer_syntax(header)
    _copy(header, made, words, told, patterns())
    return made, told, words


def identity(header: "Dataset") -> set[str]:
    """Collect names, numbers and dates of persons: words of 4 letters or more, 5 digits or more."""
    found: set[str] = set()
    for element in _elements(header):
        if element.VR == "PN" or IDENTITY.fullmatch(element.keyword):
            for value in _values(element):
                parts = re.split(r"[\s^=,;:/\\]+", str(value).casefold())
                found |= {p for p in parts if len(p) >= (5 if p.isdigit() else 4)}
    return found


def leak(content: bytes, words: set[str]) -> str | None:
    """Find a word of the identity in the bytes of a header; a number only where it stands alone."""
    for encoding in ("utf-8", "latin-1"):
        text = content.decode(encoding, errors="replace").casefold()
        for word in sorted(words):
            around = r"(?<!\d){}(?!\d)" if word.isdigit() else "{}"
            if re.search(around.format(re.escape(word)), text):
                return word
    return None


def _copy(
    source: "Dataset", made: "Dataset", words: set[str], told: list, allowed: dict[str, str]
) -> None:
    for tag in sorted(source.keys()):
        try:
            element = source[tag]
        except reading.broken():
            told.append((f"{int(tag):08X}", "", "removed: value"))
            continue
        keyword = element.keyword or ("private" if element.tag.is_private else "")
        keyword = "GroupLength" if element.tag.element == 0 else keyword
        fate = _fate(element, keyword, words, allowed)
        if fate not in ("kept", "replaced", "remapped", "shifted"):
            told.append((f"{int(tag):08X}", keyword, fate))
            continue
        if allowed[keyword] == "items":
            from pydicom.dataset import Dataset

            items = []
            for item in element.value:
                inner = Dataset()
                _copy(item, inner, words, told, allowed)
                items.append(inner)
            setattr(made, keyword, items)
        elif keyword == "PixelData":
            _set_pixels(source, made)
        else:
            made.add_new(element.tag, element.VR, element.value)
        told.append((f"{int(tag):08X}", keyword, fate))


def _fate(element: "DataElement", keyword: str, words: set[str], allowed: dict[str, str]) -> str:
    if keyword not in allowed:
        return "removed"
    pattern = allowed[keyword]
    if pattern in ("items", "data"):
        return "kept"
    if keyword in REPLACED:
        return "replaced"
    for value in _values(element):
        text = str(value).strip("\0 ")
        if pattern == "number":
            try:
                number = float(text or 0)
            except ValueError:
                return "removed: value"
            if not np.isfinite(number) or abs(number) >= MOST:
                return "removed: value"
        elif not re.fullmatch(pattern, text):
            return "removed: value"
        if keyword not in (*REMAPPED, *SHIFTED) and any(w in text.casefold() for w in words):
            return "removed: repeats an identity"
    return "remapped" if keyword in REMAPPED else "shifted" if keyword in SHIFTED else "kept"


def _set_pixels(source: "Dataset", made: "Dataset") -> None:
    """Carry the pixel data over: the same values, and nothing that hides beside them."""
    syntax = reading.transfer_syntax(source)
    data = source.PixelData
    if syntax in frames.NATIVE:
        allocated, stored = int(source.BitsAllocated), int(source.BitsStored)
        count = int(source.Rows) * int(source.Columns)
        kind = np.dtype("u1" if allocated == 8 else frames.NATIVE[syntax])
        values = np.frombuffer(data, kind, count=count)
        mask = (1 << stored) - 1
        signed = int(source.PixelRepresentation) == 1
        if stored < allocated and not signed and (values & ~kind.type(mask)).any():
            values = values & kind.type(mask)  # bits above the stored ones may draw an overlay
        data = values.astype(kind).tobytes()
        data += b"\0" * (len(data) % 2)
        made.PixelData = data
        made["PixelData"].VR = "OB" if allocated == 8 else "OW"
        return
    from pydicom.encaps import encapsulate, generate_frames

    frame = next(generate_frames(data, number_of_frames=1))
    made.PixelData = encapsulate([frames.without_comments(frame)])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True


def _elements(header: "Dataset") -> Iterator["DataElement"]:
    """Yield all elements that can be parsed, those of items too."""
    for tag in header.keys():
        try:
            element = header[tag]
        except reading.broken():
            continue
        if element.VR == "SQ":
            for item in element.value or ():
                yield from _elements(item)
        else:
            yield element


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
