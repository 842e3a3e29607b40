#!/usr/bin/env bash
# dicognito 0.19.0: images without a patient number become one patient, and all share an accession.
#
# Input: four valid Secondary Capture images of four people and four studies. Patient ID, Accession
#   Number and Study ID may be empty (type 2, PS3.3 C.7.1.1, C.7.2.1); three images have no Patient
#   ID, and none an Accession Number or a Study ID.
# Guess: what is empty stays empty, since there is nothing to hide; its documentation says of an
#   element with an identifier that it is anonymized if it has a value.
# Seen: the empty text is treated as a number like any other and gets one pseudonym. The three people
#   become one patient, with three names, and all four studies share an accession number and a study
#   number, which is also that patient's number. A split by patient or a table joined by accession
#   number then holds ties that nobody made. UIDs and names stay apart.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  dicognito==0.19.0 pydicom==3.0.2 numpy==2.4.6

cat > "$folder/seen" <<'SEEN'
dicognito 0.19.0  (equal numbers: equal values)
PatientID         before  -  -  -  1   after  1  1  1  2
AccessionNumber   before  -  -  -  -   after  1  1  1  1
StudyID           before  -  -  -  -   after  1  1  1  1
PatientName       before  1  2  3  4   after  1  2  3  4
StudyInstanceUID  before  1  2  3  4   after  1  2  3  4
the first Patient ID is also the Accession Number: True
SEEN

cat > "$folder/run.py" <<'PY'
import sys
from importlib.metadata import version

import pydicom
from dicognito.anonymizer import Anonymizer
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

PEOPLE = (("", "One"), ("", "Two"), ("", "Three"), ("0417", "Four"))  # Patient ID, name
KEYWORDS = ("PatientID", "AccessionNumber", "StudyID", "PatientName", "StudyInstanceUID")


def image(number, name):
    """Write an image of this person, and read it back."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    for empty in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
                  "AccessionNumber", "ReferringPhysicianName", "SeriesNumber",
                  "InstanceNumber", "PatientOrientation"):
        setattr(made, empty, None)
    made.PatientID, made.PatientName = number, name
    made.Modality, made.ConversionType = "OT", "SYN"
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = 2, 2
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.add_new("PixelData", "OB", bytes(4))
    path = f"{sys.argv[1]}/{name}.dcm"
    pydicom.dcmwrite(path, made, enforce_file_format=True)
    return pydicom.dcmread(path)


def kinds(images, keyword):
    """Number the different values in their order, and write - for an empty one."""
    values = [str(read.get(keyword) or "") for read in images]
    known = list(dict.fromkeys(filter(None, values)))
    return "  ".join(f"{known.index(value) + 1}" if value else "-" for value in values)


print("dicognito", version("dicognito"), " (equal numbers: equal values)")
images = [image(number, name) for number, name in PEOPLE]
before = {keyword: kinds(images, keyword) for keyword in KEYWORDS}
anonymizer = Anonymizer()
for read in images:
    anonymizer.anonymize(read)
for keyword in KEYWORDS:
    print(f"{keyword:<16}  before  {before[keyword]}   after  {kinds(images, keyword)}")
same = images[0].PatientID == images[0].AccessionNumber
print("the first Patient ID is also the Accession Number:", same)
PY

"$folder/venv/bin/python" -I "$folder/run.py" "$folder" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
