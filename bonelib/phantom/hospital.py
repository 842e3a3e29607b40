"""The synthetic cohort as a hospital would export it: CR files in a tree, with labels beside them.

A folder that ``write`` made comes in; ``DICOM/PT…/ST…/SE…/IM…`` with ``labels.csv`` (and
``reports.csv``, where there are reports) goes out. Names, days and numbers of the headers are then
those of the reports. Machines differ as they do in hospitals: one of
two stores MONOCHROME1, depths and windows vary. Every header says that it is synthetic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd

from .files import read_cohort, save, save_table
from .marginals import label, term

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CR = "1.2.840.10008.5.1.4.1.1.1"  # Computed Radiography Image Storage, PS3.3 A.2
VIEWS = {"frontal": "AP", "lateral": "LL", "oblique": "LLO"}


def write_dicom(
    folder: str | Path, out: str | Path, *, reports: Mapping[str, str] | None = None
) -> Path:
    """Write the labelled radiographs of a synthetic cohort as DICOM CR files.

    A window of the header gives back the very greys that were drawn. The same cohort gives the same
    bytes; files that are there are written anew.

    Args:
        folder: A finished folder of ``write``.
        out: An empty or new folder.
        reports: Texts by ``image_id`` in place of the folder's own; a row each in ``reports.csv``.

    Returns:
        ``out``.

    Raises:
        FileNotFoundError: ``folder`` holds no finished cohort.
        ValueError: ``out`` holds something else.
    """
    import pydicom

    folder, out = Path(folder), Path(out)
    table = read_cohort(folder)
    present = {path.name for path in out.iterdir()} if out.exists() else set()
    if present - {"DICOM", "labels.csv", "reports.csv"}:
        raise ValueError(f"{out} holds other files. Choose a new folder.")
    known = _reports(folder)
    numbers: dict[str, int] = {}
    rows, notes = [], []
    for number, row in enumerate(table.to_dict("records"), 1):
        image = cv2.imread(str(folder / "images" / row["image_id"]), cv2.IMREAD_GRAYSCALE)
        report = known.get(row["study"], {})
        made = _header(row, number, image, report)
        patient = numbers.setdefault(row["patient"], len(numbers) + 1)
        place = f"DICOM/PT{patient:05d}/ST{_digits(row['study'], 4)}/SE{number:05d}/IM00001"
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        content = BytesIO()
        pydicom.dcmwrite(content, made, enforce_file_format=True)
        save(out / place, content.getvalue())
        kind = label(row["entity"] if row["tumor"] else "")
        tumor = "tumor" if row["tumor"] else "normal"
        names = {"image_id": place, "accession": made.AccessionNumber}
        rows.append(names | {"tumor": tumor, "malignancy": kind})
        text = report.get("text") if reports is None else reports.get(row["image_id"])
        if text is not None:
            own = {key: report.get(key) for key in ("language", "name", "birth_date")}
            study = {"accession": made.AccessionNumber, "patient": made.PatientID}
            notes.append(study | {"date": made.StudyDate, "text": text} | own)
    save_table(out / "labels.csv", rows)
    if notes:
        save_table(out / "reports.csv", pd.DataFrame(notes).drop_duplicates())
    return out


def _reports(folder: Path) -> dict[str, dict]:
    """What the folder's reports say of each study, their texts included."""
    if not (folder / "reports.csv").is_file():
        return {}
    rows = pd.read_csv(folder / "reports.csv", dtype=str).to_dict("records")
    return {
        row["study"]: row | {"text": (folder / row["path"]).read_text(encoding="utf-8")}
        for row in rows
    }


def _header(row: dict, number: int, image: np.ndarray, report: dict) -> Dataset:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    machine = int(_digits(str(row["center"]), 6))
    bits = (10, 12, 14)[machine % 3]
    top = 2**bits - 1
    values = np.rint(image.astype(np.float64) / 255 * top).astype("<u2")
    white_first = machine % 2 == 0
    taken = date(2015, 1, 1) + timedelta(days=int(_digits(row["study"], 6)) % 3000)
    born = taken - timedelta(days=int(float(row["age"]) * 365.25) + 30)
    invented = {"name": f"Phantom, {row['patient']}", "birth_date": f"{born}", "date": f"{taken}"}
    told = invented | {"accession": f"SYN{_digits(row['study'], 8)}"} | report
    site = term(row["site"].split(";")[0])

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = CR
    made.SOPInstanceUID = _uid(row["image_id"], row["study"])
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.SpecificCharacterSet = "ISO_IR 192"
    made.ImageType = ["ORIGINAL", "PRIMARY"]
    made.Modality, made.Manufacturer = "CR", "Synthetic"
    made.InstitutionName = f"Synthetic centre {row['center']}"
    made.StudyDate = made.SeriesDate = made.ContentDate = told["date"].replace("-", "")
    made.StudyTime, made.AccessionNumber = "120000", told["accession"]
    made.StudyDescription = "Synthetic radiograph"
    made.ReferringPhysicianName = made.PatientOrientation = ""  # type 2: there, and not known
    made.PatientName, made.PatientID = told["name"].replace(", ", "^"), row["patient"]
    made.PatientBirthDate, made.PatientSex = told["birth_date"].replace("-", ""), row["gender"]
    made.PatientAge = f"{int(float(row['age'])):03d}Y"
    made.BodyPartExamined = "PELVIS" if site == "hip bone" else site.upper()
    made.ViewPosition, made.Laterality = VIEWS[row["view"]], row["side"][:1].upper()
    made.StudyInstanceUID = _uid("study", row["study"], row["patient"])
    made.SeriesInstanceUID = _uid("series", row["image_id"], row["study"])
    made.StudyID, made.SeriesNumber, made.InstanceNumber = row["study"][:16], number, 1
    made.SamplesPerPixel, made.PixelRepresentation = 1, 0
    made.PhotometricInterpretation = "MONOCHROME1" if white_first else "MONOCHROME2"
    made.Rows, made.Columns = image.shape
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, bits, bits - 1
    made.WindowCenter, made.WindowWidth = str(2 ** (bits - 1)), str(2**bits)
    made.BurnedInAnnotation, made.LossyImageCompression = "NO", "01"  # drawn, then kept as JPEG
    made.PixelData = (top - values if white_first else values).astype("<u2").tobytes()
    made["PixelData"].VR = "OW"
    return made


def _uid(*parts: str) -> str:
    """A UID under 2.25 (PS3.5 B.2) that follows from the parts."""
    return f"2.25.{int(hashlib.sha256('/'.join(parts).encode()).hexdigest()[:30], 16)}"


def _digits(text: str, count: int) -> str:
    return f"{int(hashlib.sha256(text.encode()).hexdigest(), 16) % 10**count:0{count}d}"
