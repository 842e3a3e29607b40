#!/usr/bin/env bash
# pydicom 3.0.2, python-gdcm 3.2.6: High Bit is ignored; left-justified values lose their upper bits.
#
# Input: a Computed Radiography image, a ramp of 0 to 4095 in 12 of 16 bits with High Bit 15, as old
#   units write it (a pixel cell of PS3.5 Annex D; newer editions ask for High Bit 11): each word is
#   the value times 16. Explicit VR Little Endian, uncompressed.
# Guess: pydicom's pixel_array gives the words as they stand, 0 to 65520, to be shifted by the
#   caller; GDCM gives the values 0 to 4095.
# Seen: both give (word & 4095), 256 different values for a ramp of 4096, without a warning. Shifted
#   down afterwards, that holds the lower 8 of the 12 bits. Comparing the two readers shows nothing.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  pydicom==3.0.2 python-gdcm==3.2.6 numpy==2.4.6

cat > "$folder/seen" <<'SEEN'
pydicom 3.0.2
pixel_array: lowest, highest, different: 0 4080 256
equal to word & 4095: True
gdcm 3.2.6
buffer: equal to word & 4095: True
SEEN

cat > "$folder/run.py" <<'PY'
import sys
import warnings

import gdcm
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset

warnings.simplefilter("always")
words = (np.arange(4096, dtype="<u2") << 4).reshape(64, 64)
made = Dataset()
made.file_meta = FileMetaDataset()
made.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
made.SOPClassUID, made.SOPInstanceUID, made.Modality = "1.2.840.10008.5.1.4.1.1.1", "1.2.3", "CR"
made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.4", "1.2.5"
for empty in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate",
              "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "Manufacturer",
              "SeriesNumber", "InstanceNumber", "PatientOrientation", "Laterality",
              "BodyPartExamined", "ViewPosition"):
    setattr(made, empty, None)
made.Rows = made.Columns = 64
made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 15
made.PixelRepresentation, made.SamplesPerPixel = 0, 1
made.PhotometricInterpretation = "MONOCHROME2"
made.PixelData = words.tobytes()
made["PixelData"].VR = "OW"
path = sys.argv[1]
pydicom.dcmwrite(path, made, enforce_file_format=True)

print("pydicom", pydicom.__version__)
seen = pydicom.dcmread(path).pixel_array
print("pixel_array: lowest, highest, different:", seen.min(), seen.max(), len(np.unique(seen)))
print("equal to word & 4095:", np.array_equal(seen, words & 4095))
reader = gdcm.ImageReader()
reader.SetFileName(path)
assert reader.Read()
buffer = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
other = np.frombuffer(buffer, "<u2")
print("gdcm", gdcm.Version.GetVersion())
print("buffer: equal to word & 4095:", np.array_equal(other.reshape(64, 64), words & 4095))
PY

"$folder/venv/bin/python" -I "$folder/run.py" "$folder/cr.dcm" 2>&1 | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
