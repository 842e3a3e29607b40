"""The facts of a header: patient, study, machine and projection, whatever the file leaves out.

Standard: DICOM PS3.3 C.7.6.3 (pixels), C.8.11 (DX), 10.7.1.3 (spacing).
"""

import re
from typing import TYPE_CHECKING, Any

from bonelib.dicom.elements import broken, numbers, text, whole

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

FACTS = (
    "patient", "issuer", "study", "series", "instance", "accession", "date", "institution",
    "manufacturer", "modality", "sop_class", "rows", "columns", "bits", "photometric", "spacing",
    "spacing_at", "view", "side", "body_part", "orientation", "age", "sex", "burned_in", "raw",
    "event", "acquired", "sources", "notes",
)  # fmt: skip
DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
# Facts that are the text of one element.
WORDS = {
    "patient": "PatientID", "issuer": "IssuerOfPatientID", "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID", "instance": "SOPInstanceUID", "accession": "AccessionNumber",
    "institution": "InstitutionName", "manufacturer": "Manufacturer", "modality": "Modality",
    "sop_class": "SOPClassUID", "photometric": "PhotometricInterpretation",
    "body_part": "BodyPartExamined", "burned_in": "BurnedInAnnotation",
    "event": "IrradiationEventUID",
}  # fmt: skip
RAW = "1.2.840.10008.5.1.4.1.1.1.1.1"  # DX image storage, for processing
WHOLE = {"rows": "Rows", "columns": "Columns", "bits": "BitsStored"}
# Words of View Position and of the meanings of view codes, PS3.3 C.8.11.5 and CID 4010.
VIEWS = {
    "oblique": ("OBL", "OBLIQUE", "LAO", "RAO", "LPO", "RPO", "LLO", "RLO", "MLO"),
    "lateral": ("LL", "RL", "LAT", "LATERAL", "LLD", "RLD", "ML", "LM", "MEDIO-LATERAL"),
    "frontal": ("AP", "PA", "DP", "PD", "FRONTAL", "ANTERO-POSTERIOR", "POSTERO-ANTERIOR"),
}


def read(header: "Dataset") -> dict[str, Any]:
    """Collect what the header says about patient, study and projection, None where it is silent.

    Returns:
        The keys of ``FACTS``: among them ``date`` (YYYYMMDD), ``spacing`` (mm between rows, between
        columns) with ``spacing_at`` (``detector``, ``patient`` or ``stated``), ``view`` (frontal,
        lateral, oblique), ``side`` (left, right), ``age`` (years), ``raw`` (FOR PROCESSING), and
        ``notes`` on what is odd. ``event`` (UID), ``acquired`` (date and time) and ``sources``
        (instances it was made of) tell which pictures are of one exposure.
    """

    def word(keyword: str) -> str | None:
        try:
            return text(header, keyword) or None
        except broken():
            return None

    notes: list[str] = []
    sides = {word(k) for k in ("ImageLaterality", "Laterality", "FrameLaterality")}
    sides &= {"L", "R"}
    if len(sides) > 1:
        notes.append("the header names both sides")
    side = {"L": "left", "R": "right"}[sides.pop()] if len(sides) == 1 else None
    spacing, at = _spacing(header, notes)
    view, orientation = _view(header, word("ViewPosition")), _orientation(header)
    if view == "frontal" and orientation and orientation[0][:1] == "R":
        notes.append("rows run to the patient's right: mirrored against the convention")
    sex = word("PatientSex")
    said = {name: word(keyword) for name, keyword in WORDS.items()}
    said |= {name: whole(word(keyword)) for name, keyword in WHOLE.items()}
    said |= {"date": next((d for k in DATES if (d := _date(word(k)))), None)}
    said |= {"spacing": spacing, "spacing_at": at, "view": view, "side": side}
    said |= {"orientation": orientation, "age": _age(header, word), "notes": notes}
    said |= {"sex": sex if sex in ("F", "M", "O") else None, "raw": is_raw(header)}
    said |= {"acquired": _acquired(word), "sources": _sources(header)}
    return {name: said[name] for name in FACTS}


def is_raw(header: "Dataset") -> bool:
    """Tell whether a picture is what the detector measured, FOR PROCESSING, PS3.3 C.8.11.3."""
    intent = text(header, "PresentationIntentType")
    return intent == "FOR PROCESSING" or (not intent and text(header, "SOPClassUID") == RAW)


def _acquired(word: Any) -> str | None:
    """Return date and time of the acquisition as digits, to the second; None without both."""
    moment = (word("AcquisitionDateTime") or "").partition(".")[0]
    if not moment:
        time = (word("AcquisitionTime") or "").replace(":", "").partition(".")[0]
        moment = (_date(word("AcquisitionDate")) or "") + time
    return moment if re.fullmatch(r"\d{14}", moment) else None


def _sources(header: "Dataset") -> tuple[str, ...]:
    try:
        items = header.get("SourceImageSequence") or ()
        return tuple(text(item, "ReferencedSOPInstanceUID") for item in items)
    except broken():
        return ()


def _date(value: str | None) -> str | None:
    digits = re.sub(r"[.\-]", "", value or "")
    return (
        digits if re.fullmatch(r"(1[89]|2\d)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])", digits) else None
    )


def _age(header: "Dataset", word: Any) -> float | None:
    """Read the age in years, or count it from the birth date to the study's."""
    match = re.fullmatch(r"(\d{3})([DWMY])", word("PatientAge") or "")
    if match:
        return int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[match[2]]
    born, seen = _date(word("PatientBirthDate")), _date(word("StudyDate"))
    if not (born and seen):
        return None
    years = int(seen[:4]) - int(born[:4]) - (seen[4:] < born[4:])
    return float(years) if 0 <= years <= 120 else None


def _view(header: "Dataset", position: str | None) -> str | None:
    said = {position.upper()} if position else set()
    try:
        for item in header.get("ViewCodeSequence") or ():
            said |= set(re.split(r"[\s,]+", text(item, "CodeMeaning").upper()))
    except broken():
        pass
    said |= {part for t in said for part in t.split()}
    return next((view for view, words in VIEWS.items() if said & set(words)), None)


def _spacing(header: "Dataset", notes: list[str]) -> tuple[tuple[float, float] | None, str | None]:
    """Find millimetres between rows and between columns, PS3.3 10.7.1.3; zeros are unknown."""
    found = {}
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        try:
            values = numbers(header, keyword)
        except broken():
            notes.append(f"{keyword} can't be read")
            continue
        if len(values) == 2 and min(values) > 0:
            found[keyword] = (values[0], values[1])
        elif values:
            notes.append(f"{keyword} is {values}, no spacing")
    pixel, imager = found.get("PixelSpacing"), found.get("ImagerPixelSpacing")
    if pixel:
        at = "stated" if not imager else "detector" if pixel == imager else "patient"
        chosen = pixel
    else:
        chosen = imager or found.get("NominalScannedPixelSpacing")
        at = "detector" if chosen else None
    if chosen and not 0.98 < chosen[0] / chosen[1] < 1.02:
        notes.append("the pixels are not square")
    return chosen, at


def _orientation(header: "Dataset") -> tuple[str, ...] | None:
    try:
        value = header.get("PatientOrientation")
    except broken():
        return None
    if value is None or isinstance(value, str) or len(value) != 2:
        return None
    return tuple(str(v) for v in value)
