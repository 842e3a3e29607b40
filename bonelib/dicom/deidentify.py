"""De-identified copies of an export: pseudonyms, shifted dates, and a ledger that is kept apart.

A folder comes in; another folder with copies of its radiographs goes out, and what was done to each
element. Nothing is changed in place. dicognito gives pseudonyms, UIDs and dates: one offset and one
set of pseudonyms a patient, following from a secret in the ledger, so that a second call with the
same ledger writes the same bytes. ``keeping`` decides what stays at all.

Follows the basic profile of PS3.15 Annex E with two of its options: dates are shifted (retain
longitudinal temporal information with modified dates) and sex and age are kept (retain patient
characteristics; ages above 89 become 90). The ledger undoes all of it: keep it as you keep names.
"""

import contextlib
import hashlib
import io
import json
import os
import secrets
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bonelib.dicom import burnt, keeping, reading, tree

if TYPE_CHECKING:
    import pandas as pd
    from pydicom.dataset import Dataset

METHOD = "bonelib: PS3.15 E basic profile, modified dates, patient characteristics"
# CID 7050: basic profile, modified dates, patient characteristics.
CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
)
OLDEST = 89  # years told; above it an age points at few people (45 CFR 164.514(b)(2)(i)(C))
SHEET = 256  # side of a picture on the contact sheet
EACH = 200  # files after which the ledger is written again


@dataclass(frozen=True)
class Copies:
    """What ``deidentify`` did.

    Attributes:
        files: Per file ``file``, ``output`` (below the new folder), ``status`` (``written``,
            ``unchanged``, ``refused``), ``reason`` and ``characters`` burnt in.
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


def deidentify(
    source: str | Path,
    out: str | Path,
    *,
    ledger: str | Path,
    limit: int = burnt.LIMIT,
    ocr: Callable[[np.ndarray], str] | None = None,
    shown: int = 24,
    progress: Callable[[int, int], None] | None = None,
) -> Copies:
    """Write de-identified copies of the radiographs of an export.

    A file is refused, and named, if it is no radiograph, can't be decoded (its pixels can't be
    looked at), says or shows that text is burnt in, or if a word of the patient's identity is left
    in the finished copy.

    Args:
        source: The folder, or a DICOMDIR.
        out: The folder of the copies, elsewhere.
        ledger: A JSON file outside ``out`` with the secret and who is who; made if it is not there.
        limit: Pictures with as many characters or more are refused.
        ocr: Reads a uint8 picture; its letters and digits are counted instead of the estimate.
        shown: Pictures on the contact sheet.
        progress: Called with (files done, files in all).

    Raises:
        ValueError: The folders or the ledger lie in one another, or the ledger is none.
        FileNotFoundError: There is no such source.
        ImportError: dicognito is not installed.
    """
    import pandas as pd

    source, out, ledger = (Path(p).absolute() for p in (source, out, ledger))
    if not source.exists():
        raise FileNotFoundError(f"No folder or DICOMDIR {source}.")
    _apart(source, out, ledger)
    _dicognito()
    book = _open(ledger)
    _save(ledger, book)  # the secret is safe before the first copy is written
    listed, notes = tree.walk(source)
    rows, counts, seen = [], Counter(), []
    for done, row in enumerate(listed.to_dict("records"), 1):
        reason = None if pd.isna(row["reason"]) else row["reason"]
        fate = {"file": row["file"], "output": None, "status": "refused", "reason": reason}
        fate["characters"] = None
        if reason is None:
            try:
                fate |= _one(Path(row["path"]), row["file"], out, book, counts, seen, limit, ocr)
            except reading.broken() as error:
                fate["reason"] = reading.told(error)
        rows.append(fate)
        seen[:] = sorted(seen, key=lambda s: -s[0])[:shown]
        if done % EACH == 0:
            _save(ledger, book)
        if progress is not None:
            progress(done, len(listed))
    _save(ledger, book)
    files = pd.DataFrame(rows, columns=["file", "output", "status", "reason", "characters"])
    elements = pd.DataFrame(
        [(*key, count) for key, count in sorted(counts.items())],
        columns=["tag", "keyword", "profile", "done", "files"],
    )
    listed = elements["profile"].ne("not listed") & elements["done"].eq("kept")
    if kept := sorted(set(elements.loc[listed, "keyword"])):
        notes.append(
            f"Kept by an option of PS3.15, against the basic profile: {', '.join(kept)}; "
            "dates are shifted, not removed."
        )
    suspects = [_picture(pixels, boxes) for _, _, pixels, boxes in seen]
    empty = np.empty((0, SHEET, SHEET), np.uint8)
    titles = [f"{name}: {count}" for count, name, *_ in seen]
    return Copies(files, elements, np.stack(suspects) if suspects else empty, titles, notes)


def _one(
    path: Path, name: str, out: Path, book: dict, counts: Counter, seen: list, limit: int, ocr: Any
) -> dict[str, Any]:
    """Copy one file; returns its row of ``files``. Raises what a broken file raises."""
    original = path.read_bytes()
    digest = hashlib.sha256(original).hexdigest()
    if digest in book["copies"]:  # one of our own copies: nothing is left to take away
        place = book["copies"][digest]
        return {"output": place, "reason": None, "status": _write(out / place, original)}
    header, _ = reading.parse(original)
    pixels, facts = reading.read(original, bits=8)
    count, boxes = burnt.characters(pixels)
    if ocr is not None:
        count = sum(c.isalnum() for c in ocr(pixels))
    if count:
        seen.append((count, name, _small(pixels), boxes * (SHEET / max(pixels.shape))))
    if facts["burned_in"] == "YES":
        return {"reason": "its header says that text is burnt in", "characters": count}
    if count >= limit:
        return {"reason": f"about {count} characters are burnt in", "characters": count}

    made, told, words = keeping.clean(header)
    who = _who(facts)
    seed = hashlib.sha256(f"{book['secret']}/{who}".encode()).hexdigest()
    _rename(made, facts, seed=seed, digest=digest)
    content = _bytes(made)
    again, changed = reading.read(content, bits=8)
    if not np.array_equal(again, pixels) or changed["inverted"] != facts["inverted"]:
        return {"reason": "the copy does not show the same picture", "characters": count}
    del made.PixelData  # the words are looked for in all the rest
    if word := keeping.leak(_bytes(made), words):
        kind = "number" if word.isdigit() else "word"
        return {"reason": f"a {kind} of the patient's identity is left", "characters": count}
    place = f"{made.PatientID}/{made.StudyInstanceUID[-12:]}/{made.SOPInstanceUID}.dcm"
    status = _write(out / place, content)
    counts.update((tag, keyword, _profile(tag), done) for tag, keyword, done in set(told))
    book["patients"][who] = str(made.PatientID)
    if facts["accession"]:
        book["accessions"][facts["accession"]] = str(made.AccessionNumber)
    book["files"][name] = place
    book["copies"][hashlib.sha256(content).hexdigest()] = place
    return {"output": place, "reason": None, "status": status, "characters": count}


def _rename(made: "Dataset", facts: dict[str, Any], *, seed: str, digest: str) -> None:
    """Put pseudonyms, new UIDs, shifted dates and the marks of the profile into a cleaned set."""
    from pydicom.dataset import Dataset

    for keyword in (*keeping.REPLACED[:2], *keeping.REMAPPED):
        if not made.get(keyword):  # a pseudonym needs something to be made of
            setattr(made, keyword, f"2.25.{int(digest[:24], 16)}" if "UID" in keyword else "none")
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    _dicognito()(seed=seed).anonymize(made)
    # Not one of dicognito's invented names, which read like a person's.
    made.PatientName = f"Anonymous^{made.PatientID}"
    made.PatientBirthDate = ""
    if facts["age"] is not None and (facts["age"] > OLDEST or "PatientAge" not in made):
        made.PatientAge = f"{min(int(facts['age']), OLDEST + 1):03d}Y"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.PatientIdentityRemoved = "YES"
    made.LongitudinalTemporalInformationModified = "MODIFIED"
    made.DeidentificationMethod = [METHOD[:64], "DICOGNITO"]
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
            "De-identification needs dicognito. Install it with `pip install bonelib[dicom]`."
        ) from error
    return Anonymizer


def _who(facts: dict[str, Any]) -> str:
    """Tell patients apart; without an id each study is a patient of its own."""
    return f"{facts['issuer'] or ''}/{facts['patient'] or 'study ' + str(facts['study'])}"


def _profile(tag: str) -> str:
    return keeping.action(int(tag, 16)) or "not listed"


def _bytes(made: "Dataset") -> bytes:
    import pydicom

    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made, enforce_file_format=True)  # the preamble is 128 zeros
    return stream.getvalue()


def _small(pixels: np.ndarray) -> np.ndarray:
    import cv2

    scale = SHEET / max(pixels.shape)
    size = tuple(max(1, round(side * scale)) for side in pixels.shape[::-1])
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _picture(small: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Draw the boxes of the characters into a square of the contact sheet."""
    import cv2

    square = np.zeros((SHEET, SHEET), np.uint8)
    square[: small.shape[0], : small.shape[1]] = small
    for left, top, right, bottom in np.rint(boxes).astype(int):
        cv2.rectangle(square, (int(left) - 1, int(top) - 1), (int(right), int(bottom)), 255, 1)
    return square


# --------------------------------------------------------------------------- folders and the ledger
def _apart(source: Path, out: Path, ledger: Path) -> None:
    folder = (source if source.is_dir() else source.parent).resolve()
    target, book = out.resolve(), ledger.resolve()
    problems = []
    if target == folder or target.is_relative_to(folder) or folder.is_relative_to(target):
        problems.append(f"The copies ({out}) and the originals ({source}) lie in one another.")
    if book.is_relative_to(target) or book == target:
        problems.append(f"The ledger {ledger} lies among the copies: it would undo them.")
    if problems:
        raise ValueError(" ".join(problems) + " Choose folders apart.")


def _open(ledger: Path) -> dict[str, Any]:
    if not ledger.exists():
        return {
            "what": "Ledger of bonelib: whoever has it can undo the pseudonyms. Keep it apart.",
            "secret": secrets.token_hex(32),
            "patients": {},
            "accessions": {},
            "files": {},
            "copies": {},
        }
    try:
        book = json.loads(ledger.read_bytes())
        assert len(book["secret"]) == 64
        return {"patients": {}, "accessions": {}, "files": {}, "copies": {}} | book
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ValueError(
            f"{ledger} is no ledger. Name the one of these copies, or a new file."
        ) from error


def _save(ledger: Path, book: dict[str, Any]) -> None:
    with _replacing(ledger) as temporary:
        temporary.write_text(json.dumps(book, indent=1), encoding="utf-8")


def _write(path: Path, content: bytes) -> str:
    if path.is_file() and path.read_bytes() == content:
        return "unchanged"
    with _replacing(path) as temporary:
        temporary.write_bytes(content)
        temporary.chmod(0o644)
    return "written"


@contextlib.contextmanager
def _replacing(path: Path) -> Any:
    """Give a temporary path, readable by its owner alone, that takes the place of ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
