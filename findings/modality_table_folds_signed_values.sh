#!/usr/bin/env bash
# pydicom 3.0.2: a modality table over all signed 16-bit values makes the brighter half black.
#
# Input: a valid Secondary Capture image, 16 bits, signed. Its Modality LUT has 65,536 entries
#   (written as 0, PS3.3 C.11.1.1.1), the first is for -32768, and each entry is the stored value +
#   32768.
# Guess: apply_modality_lut gives stored value + 32768 everywhere. Should anything go wrong with so
#   wide a range, numpy or pydicom would say so.
# Seen: right below 0. From 0 on, every value becomes 0, the first entry, without an error or a
#   warning. The index is computed in the pixels' own int16, wraps below zero, and is then clipped
#   to the table. The same table as a VOI LUT is applied correctly.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  pydicom==3.0.2 numpy==2.4.6

cat > "$folder/seen" <<'SEEN'
pydicom 3.0.2
stored              -32768     -1      0      1  32767
table says               0  32767  32768  32769  65535
as modality LUT          0  32767      0      0      0
as VOI LUT               0  32767  32768  32769  65535
warnings             0
SEEN

cat > "$folder/run.py" <<'PY'
import sys
import warnings

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

STORED = np.array([[-32768, -1, 0, 1, 32767]], dtype="<i2")


def image(keyword):
    """Write an image whose table stands in the sequence ``keyword``, and read it back."""
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
    made.Rows, made.Columns = STORED.shape
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 1
    made.add_new("PixelData", "OW", STORED.tobytes())
    table = Dataset()
    table.add_new("LUTDescriptor", "SS", [0, -32768, 16])
    table.add_new("LUTData", "OW", np.arange(65536, dtype="<u2").tobytes())
    if keyword == "ModalityLUTSequence":
        table.ModalityLUTType = "US"
    setattr(made, keyword, [table])
    path = f"{sys.argv[1]}/{keyword}.dcm"
    pydicom.dcmwrite(path, made, enforce_file_format=True)
    return pydicom.dcmread(path)


def line(name, values):
    print(f"{name:<19}", " ".join(f"{v:6d}" for v in np.ravel(values).tolist()))


print("pydicom", pydicom.__version__)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    modality, voi = image("ModalityLUTSequence"), image("VOILUTSequence")
    line("stored", modality.pixel_array)
    line("table says", STORED.astype(int) + 32768)
    line("as modality LUT", apply_modality_lut(modality.pixel_array, modality))
    line("as VOI LUT", apply_voi_lut(voi.pixel_array, voi))
print(f"{'warnings':<20} {len(said)}")
PY

"$folder/venv/bin/python" -I "$folder/run.py" "$folder" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
