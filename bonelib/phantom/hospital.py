"""The synthetic cohort as a hospital would export it: CR files in a tree, with labels beside them.

A folder that ``write`` made comes in; ``DICOM/PT…/ST…/SE…/IM…`` with ``labels.csv`` (and
``reports.csv``, where there are reports) goes out. Names, days and numbers of the headers are then
those of the reports. Machines differ as they do in hospitals: one of
two stores MONOCHROME1, depths and windows vary. Every header says that it is synthetic.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from pydicom.dataset import Dataset

CR = "1.2.840.10008.5.1.4.1.1.1"  # Computed Radiography Image Storage, PS3.3 A.2
BODY_PARTS = {"hip bone": "PELVIS", "hip-joint": "HIP"}
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
    import cv2
    import pandas as pd
    import pydicom

    folder, out = Path(folder), Path(out)
    if not (folder / "phantom.json").is_file():
        raise FileNotFoundError(f"No finished cohort in {folder}: there is no phantom.json.")
    if out.exists() and any(
        p.name not in ("DICOM", "labels.csv", "reports.csv") for p in out.iterdir()
    ):
        raise ValueError(f"{out} holds other files. Choose a new folder.")
    table = pd.read_csv(folder / "dataset.csv")
    extra = pd.read_csv(folder / "cohort_extra.csv", dtype=str, keep_default_na=False)
    table = table.merge(
        extra[["image_id", "patient", "study", "side", "site", "view"]], on="image_id"
    )
    known = _index(folder)
    numbers = {patient: i for i, patient in enumerate(dict.fromkeys(table["patient"]), 1)}
    rows, notes = [], []
    for number, row in enumerate(table.to_dict("records"), 1):
        image = cv2.imread(str(folder / "images" / row["image_id"]), cv2.IMREAD_GRAYSCALE)
        index = known.get(row["study"], {})
        made = _header(row, number, image, index)
        place = (
            f"PT{numbers[row['patient']]:05d}/ST{_digits(row['study'], 4)}/SE{number:05d}/IM00001"
        )
        path = out / "DICOM" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        pydicom.dcmwrite(part, made, enforce_file_format=True)
        part.replace(path)
        rows.append(
            {"image_id": f"DICOM/{place}", "accession": made.AccessionNumber} | _labels(row)
        )
        text = index.get("text") if reports is None else reports.get(row["image_id"])
        if text is not None:
            facts = (made.AccessionNumber, made.PatientID, made.StudyDate, text)
            own = {key: index.get(key) for key in ("language", "name", "birth_date")}
            names = ("accession", "patient", "date", "text")
            notes.append(dict(zip(names, facts, strict=True)) | own)
    _save(out / "labels.csv", pd.DataFrame(rows))
    if notes:
        _save(out / "reports.csv", pd.DataFrame(notes).drop_duplicates())
    return out


def _index(folder: Path) -> dict[str, dict]:
    """Read what the folder's reports say of each study, their texts included."""
    import pandas as pd

    if not (folder / "reports.csv").is_file():
        return {}
    rows = pd.read_csv(folder / "reports.csv", dtype=str).to_dict("records")
    return {
        row["study"]: row | {"text": (folder / row["path"]).read_text(encoding="utf-8")}
        for row in rows
    }


def _header(row: dict, number: int, image: np.ndarray, index: dict) -> Dataset:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    machine = int(_digits(str(row["center"]), 6))
    bits = (10, 12, 14)[machine % 3]
    top = 2**bits - 1
    values = np.rint(image.astype(np.float64) / 255 * top).astype("<u2")
    white_first = machine % 2 == 0
    taken = date(2015, 1, 1) + timedelta(days=int(_digits(row["study"], 6)) % 3000)
    born = taken - timedelta(days=int(float(row["age"]) * 365.25) + 30)
    site = row["site"].split(";")[0]

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
    made.StudyDate = made.SeriesDate = made.ContentDate = f"{taken:%Y%m%d}"
    made.StudyTime, made.AccessionNumber = "120000", f"SYN{_digits(row['study'], 8)}"
    made.StudyDescription = "Synthetic radiograph"
    made.PatientName, made.PatientID = f"Phantom^{row['patient']}", row["patient"]
    made.PatientBirthDate, made.PatientSex = f"{born:%Y%m%d}", row["gender"]
    made.PatientAge = f"{int(float(row['age'])):03d}Y"
    if index:
        made.PatientName = index["name"].replace(", ", "^")
        made.PatientBirthDate = index["birth_date"].replace("-", "")
        made.StudyDate = made.SeriesDate = made.ContentDate = index["date"].replace("-", "")
        made.AccessionNumber = index["accession"]
    made.BodyPartExamined = BODY_PARTS.get(site, site.removesuffix("-joint").upper())
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


def _labels(row: dict) -> dict:
    kind = "malignant" if row["malignant"] else "benign" if row["benign"] else "normal"
    return {"tumor": "tumor" if row["tumor"] else "normal", "malignancy": kind}


def _uid(*parts: str) -> str:
    """A UID under 2.25 (PS3.5 B.2) that follows from the parts."""
    return f"2.25.{int(hashlib.sha256('/'.join(parts).encode()).hexdigest()[:30], 16)}"


def _digits(text: str, count: int) -> str:
    return f"{int(hashlib.sha256(text.encode()).hexdigest(), 16) % 10**count:0{count}d}"


def _save(path: Path, table: pd.DataFrame) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(table.to_csv(index=False, lineterminator="\n").encode())
    part.replace(path)
