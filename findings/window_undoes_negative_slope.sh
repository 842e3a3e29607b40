#!/usr/bin/env bash
# pydicom 3.0.2: after a negative rescale slope, a window shows high values dark and low ones bright.
#
# Input: two valid Secondary Capture images, 12 bits, MONOCHROME2, both with window 2048/1024. One
#   stores the values of a picture. The other stores the same picture reversed, with slope -1 and
#   intercept 4095; some computed radiographs have such a slope.
# Guess: apply_modality_lut gives the same values for both; the same window on the same values
#   gives the same greys, because y in PS3.3 C.11.2.1.2.1 depends on x, centre, width and the
#   output range.
# Seen: the modality values are the same; the greys are each other's negative, without an error or
#   a warning. apply_windowing puts the lowest and the highest pixel through the slope to get its
#   output range, so that with a negative slope its lowest output is 4095 and its highest 0.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  pydicom==3.0.2 numpy==2.4.6

cat > "$folder/seen" <<'SEEN'
pydicom 3.0.2
slope 1   stored       0  1700  2048  2400  4095
          modality     0  1700  2048  2400  4095
          windowed     0   656  2050  3459  4095
slope -1  stored    4095  2395  2047  1695     0
          modality     0  1700  2048  2400  4095
          windowed  4095  3439  2045   636     0
warnings 0
SEEN

cat > "$folder/run.py" <<'PY'
import sys
import warnings

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_windowing
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

PICTURE = np.array([[0, 1700, 2048, 2400, 4095]], dtype="<u2")


def image(stored, slope, intercept):
    """Write an image with this rescale, and read it back."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    for empty in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate",
                  "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
                  "SeriesNumber", "InstanceNumber", "PatientOrientation"):
        setattr(made, empty, None)
    made.Modality, made.ConversionType = "OT", "SYN"
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = stored.shape
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.RescaleSlope, made.RescaleIntercept, made.RescaleType = slope, intercept, "US"
    made.WindowCenter, made.WindowWidth = 2048, 1024
    made.add_new("PixelData", "OW", stored.tobytes())
    path = f"{sys.argv[1]}/slope{slope}.dcm"
    pydicom.dcmwrite(path, made, enforce_file_format=True)
    return pydicom.dcmread(path)


def line(name, step, values):
    print(f"{name:<9} {step:<8}", " ".join(f"{v:5d}" for v in np.rint(values).astype(int).ravel()))


print("pydicom", pydicom.__version__)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for read in (image(PICTURE, 1, 0), image(4095 - PICTURE, -1, 4095)):
        values = apply_modality_lut(read.pixel_array, read)
        line(f"slope {read.RescaleSlope:g}", "stored", read.pixel_array)
        line("", "modality", values)
        line("", "windowed", apply_windowing(values, read))
print("warnings", len(said))
PY

"$folder/venv/bin/python" -I "$folder/run.py" "$folder" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
