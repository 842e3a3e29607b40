"""De-identified copies of a DICOM export: pseudonyms, shifted dates, nothing that is not allowed.

A folder comes in; another folder with copies of its radiographs goes out, and what was done to each
element. Nothing is changed in place. dicognito gives pseudonyms, UIDs and dates: one offset and one
set of pseudonyms a patient, following from the secret in the ledger, so that a second call with the
same ledger writes the same bytes. ``allowlist`` decides what stays at all. Folders and files have
names that a DICOMDIR may hold (PS3.10 8.2: up to eight capitals and figures).

Follows the basic profile of PS3.15 Annex E with two of its options: dates are shifted (retain
longitudinal temporal information with modified dates) and sex and age are kept (retain patient
characteristics; ages above 89 become 90).
"""

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bonelib.deidentify import allowlist
from bonelib.deidentify.ledger import Ledger, check_places, open_ledger
from bonelib.dicom import burnt_in, reading, tree
from bonelib.dicom.elements import broken, reason_of

if TYPE_CHECKING:
    import pandas as pd
    from pydicom.dataset import Dataset

METHOD = ("bonelib: basic profile of PS3.15 E", "modified dates", "patient characteristics")
# What we write ourselves: no word of it says anything of a patient.
MARKS = ("PatientName", "PatientIdentityRemoved", "LongitudinalTemporalInformationModified")
MARKS += ("DeidentificationMethod", "DeidentificationMethodCodeSequence")
# CID 7050: basic profile, modified dates, patient characteristics.
CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
)
OLDEST = 89  # years told; above it an age points at few people (45 CFR 164.514(b)(2)(i)(C))
SHEET, SHOWN = 256, 24  # side and number of the pictures on the contact sheet
EACH = 200  # files after which the ledger is written again


@dataclass(frozen=True)
class Copies:
    """What ``radiographs`` did.

    Attributes:
        files: Per file ``file``, ``output`` (below the new folder), ``status`` (``written``,
            ``unchanged``, ``refused``), ``reason``, ``characters`` burnt in, and how many burnt-in
            ``lines`` read as a person's, where a reader looked.
        elements: Per element ``tag``, ``keyword``, the ``profile``'s action for it, what was
            ``done``, and in how many ``files``.
        suspects: uint8 ``(N, 256, 256)``, the pictures with the most text, boxes drawn: look at
            them before anything leaves the house.
        titles: Their files and counts.
        notes: In sentences.
    """

    files: "pd.DataFrame"
    elements: "pd.DataFrame"
    suspects: np.ndarray
    titles: list[str]
    notes: list[str]


@dataclass
class _Work:
    """What is collected on the way from file to file."""

    out: Path
    ledger: Ledger
    ocr: Callable[[np.ndarray], str] | None
    counts: Counter = field(default_factory=Counter)
    undated: set[str] = field(default_factory=set)
    suspects: list[tuple[int, str, np.ndarray]] = field(default_factory=list)


def radiographs(
    source: str | Path,
    out: str | Path,
    *,
    ledger: str | Path,
    ocr: Callable[[np.ndarray], str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Copies:
    """Write de-identified copies of the radiographs of an export.

    A file is refused, and named, if it is no radiograph, can't be decoded (its pixels can't be
    looked at), says or shows that text is burnt in, or if a word of a person's identity is left
    in the finished copy.

    Args:
        source: The folder, or a DICOMDIR.
        out: The folder of the copies, elsewhere.
        ledger: As for ``ledger.open_ledger``, outside ``out``.
        ocr: Reads a uint8 picture, a line of text a line (``burnt_in.reader``): a line that reads
            as a person's is enough to refuse it, and its letters and digits are counted instead of
            the estimate.
        progress: Called with (files done, files in all).

    Raises:
        ValueError: The folders or the ledger lie in one another, or the ledger is none.
        FileNotFoundError: There is no such source.
        ImportError: dicognito is not installed.
    """
    import pandas as pd

    source, out, ledger = (Path(p).absolute() for p in (source, out, ledger))
    check_places(source, out, ledger)
    _dicognito()
    work = _Work(out, open_ledger(ledger), ocr)
    listed, notes = tree.walk(source)
    rows = []
    for done, row in enumerate(listed.to_dict("records"), 1):
        reason = None if pd.isna(row["reason"]) else row["reason"]
        fate = {"file": row["file"], "output": None, "status": "refused", "reason": reason}
        fate |= {"characters": None, "lines": None}
        if reason is None:
            try:
                fate |= _one(Path(row["path"]), row["file"], work)
            except broken() as error:
                fate["reason"] = reason_of(error)
        rows.append(fate)
        work.suspects = sorted(work.suspects, key=lambda one: -one[0])[:SHOWN]
        if done % EACH == 0:
            work.ledger.save()
        if progress is not None:
            progress(done, len(listed))
    work.ledger.save()
    columns = ["file", "output", "status", "reason", "characters", "lines"]
    files = pd.DataFrame(rows, columns=columns)
    elements = pd.DataFrame(
        [(*key, count) for key, count in sorted(work.counts.items())],
        columns=["tag", "keyword", "profile", "done", "files"],
    )
    against = elements["profile"].ne("not listed") & elements["done"].eq("kept")
    if kept := sorted(set(elements.loc[against, "keyword"])):
        notes.append(
            f"Kept by an option of PS3.15, against the basic profile: {', '.join(kept)}; "
            "dates are shifted, not removed."
        )
    same = elements[elements["done"].str.endswith("repeats an identity")].groupby("keyword")
    if dropped := [f"{keyword} ({n} files)" for keyword, n in same["files"].sum().items()]:
        notes.append(f"Dropped, as it repeats what names a person: {', '.join(dropped)}.")
    if work.undated:
        notes.append(
            f"{len(work.undated)} copies have no date or time of their study, e.g. "
            f"{min(work.undated)}: to list them in a DICOMDIR dcmmkdir needs --invent."
        )
    pictures = [picture for *_, picture in work.suspects]
    sheet = np.stack(pictures) if pictures else np.empty((0, SHEET, SHEET), np.uint8)
    titles = [f"{name}: {count}" for count, name, _ in work.suspects]
    return Copies(files, elements, sheet, titles, notes)


def _one(path: Path, name: str, work: _Work) -> dict[str, Any]:
    """Copy one file; returns its row of ``files``. Raises what a broken file raises."""
    original, book = path.read_bytes(), work.ledger
    digest = hashlib.sha256(original).hexdigest()
    if digest in book.copies:  # one of our own copies: nothing is left to take away
        place = book.copies[digest]
        return {"output": place, "reason": None, "status": _write(work.out / place, original)}
    header, _ = reading.parse(original)
    pixels, facts = reading.read(original, bits=8)
    count, boxes = burnt_in.characters(pixels)
    fate: dict[str, Any] = {"characters": count}
    if work.ocr is not None:
        lines = work.ocr(pixels).splitlines()
        count = sum(c.isalnum() for line in lines for c in line)
        fate = {"characters": count, "lines": len(burnt_in.personal(lines))}
    if count:
        work.suspects.append((count, name, _picture(pixels, boxes)))
    if facts["burned_in"] == "YES":
        return fate | {"reason": "its header says that text is burnt in"}
    if fate.get("lines"):  # not quoted: it may be a name
        return fate | {"reason": "burnt-in text reads as a name, a date or a number of a person"}
    if count >= burnt_in.LIMIT:
        return fate | {"reason": f"about {count} characters are burnt in"}

    made, fates, words = allowlist.clean(header)
    # Patients are told apart by their id; without one each study is a patient of its own.
    number, issuer = facts["patient"] or f"study {facts['study']}", facts["issuer"] or ""
    who = f"{issuer}/{number}"
    seed = hashlib.sha256(f"{book.secret}/{who}".encode()).hexdigest()
    _rename(made, facts, seed=seed, digest=digest)
    made.PatientID = book.patient(number, issuer)
    made.PatientName = f"Anonymous^{made.PatientID}"  # dicognito's names read like a person's
    made.AccessionNumber = book.accession(facts["accession"] or "")
    made.StudyID = _token(made.StudyInstanceUID)
    content = _bytes(made)
    again, changed = reading.read(content, bits=8)
    if not np.array_equal(again, pixels) or changed["inverted"] != facts["inverted"]:
        lost = {k for tag, k, done in fates if tag[:4] == "0028" and done.startswith("removed:")}
        why = f", without {', '.join(sorted(lost))}" if lost else ""
        return fate | {"reason": f"the copy does not show the same picture{why}"}
    for keyword in ("PixelData", *MARKS):  # the words are looked for in all the rest
        del made[keyword]
    if left := allowlist.remains(made, _bytes(made), words):
        kind = "number" if left[0].isdigit() else "word"
        return fate | {"reason": f"a {kind} of the patient's identity is left"}
    place = "/".join((made.PatientID[:8], made.StudyID, _token(made.SOPInstanceUID)))
    status = _write(work.out / place, content)
    if Path(book.files.get(name, "")).name == f"{made.SOPInstanceUID}.dcm":
        (work.out / book.files[name]).unlink(missing_ok=True)  # as versions before named it
    if not (made.StudyDate and made.StudyTime):
        work.undated.add(place)
    work.counts.update(
        (tag, keyword, allowlist.action(int(tag, 16)) or "not listed", done)
        for tag, keyword, done in set(fates)
    )
    book.patients[who] = str(made.PatientID)
    if facts["accession"]:
        book.accessions[facts["accession"]] = str(made.AccessionNumber)
    book.files[name] = place
    book.copies[hashlib.sha256(content).hexdigest()] = place
    return fate | {"output": place, "reason": None, "status": status}


def _rename(made: "Dataset", facts: dict[str, Any], *, seed: str, digest: str) -> None:
    """Put pseudonyms, new UIDs, shifted dates and the marks of the profile into a cleaned set."""
    from pydicom.dataset import Dataset

    for place, keyword in enumerate(allowlist.REMAPPED):
        if not made.get(keyword):  # a new UID needs something to be made of
            setattr(made, keyword, f"2.25.{int(digest[:24], 16)}.{place}")
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    _dicognito()(seed=seed).anonymize(made)
    if facts["age"] is not None and (facts["age"] > OLDEST or "PatientAge" not in made):
        made.PatientAge = f"{min(int(facts['age']), OLDEST + 1):03d}Y"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.PatientIdentityRemoved = "YES"
    made.LongitudinalTemporalInformationModified = "MODIFIED"
    made.DeidentificationMethod = [*METHOD, "DICOGNITO"]
    codes = []
    for value, meaning in CODES:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
        codes.append(item)
    made.DeidentificationMethodCodeSequence = codes


def _dicognito() -> Any:
    try:
        from dicognito.anonymizer import Anonymizer
    except ImportError as error:
        raise ImportError(
            "De-identification needs dicognito. Install it with "
            "`pip install -c requirements.lock -e '.[dicom]'`."
        ) from error
    return Anonymizer


def _token(uid: str) -> str:
    """Name a UID in eight capitals and figures, as a DICOMDIR wants file and folder names."""
    return base64.b32encode(hashlib.sha256(uid.encode()).digest())[:8].decode()


def _bytes(made: "Dataset") -> bytes:
    import pydicom

    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made, enforce_file_format=True)  # the preamble is 128 zeros
    return stream.getvalue()


def _write(path: Path, content: bytes) -> str:
    from bonelib import runs

    if path.is_file() and path.read_bytes() == content:
        return "unchanged"
    with runs.replacing(path) as temporary:
        temporary.write_bytes(content)
    return "written"


def _picture(pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Draw a picture with the boxes of its characters into a square of the contact sheet."""
    import cv2

    scale = SHEET / max(pixels.shape)
    size = tuple(max(1, round(side * scale)) for side in pixels.shape[::-1])
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    square = np.zeros((SHEET, SHEET), np.uint8)
    square[: small.shape[0], : small.shape[1]] = small
    for left, top, right, bottom in np.rint(boxes * scale).astype(int):
        cv2.rectangle(square, (int(left) - 1, int(top) - 1), (int(right), int(bottom)), 255, 1)
    return square
