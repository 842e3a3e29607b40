#!/usr/bin/env bash
# SimpleITK 2.5.7, dcm2niix 1.0.20260724: one radiograph, two pixel sizes, and the calibrated one lost.
#
# Input: three valid Computed Radiography images of the same pixels. One has Pixel Spacing 0.12 mm
#   (calibrated for magnification, PS3.3 10.7.1.3), one Imager Pixel Spacing 0.15 mm (at the
#   detector), one both. A Secondary Capture has Pixel Spacing 0.12 mm.
# Guess: whoever reads a radiograph takes Pixel Spacing where it is given, since it is the corrected
#   value, and Imager Pixel Spacing else.
# Seen: SimpleITK looks only at Imager Pixel Spacing in a computed radiograph: the calibrated image
#   has pixels of 1 mm, and the image with both has the size at the detector (a lesion measures a
#   quarter too long). In a Secondary Capture it takes Pixel Spacing. dcm2niix looks only at Pixel
#   Spacing, and gives 1 mm where there is only the other. Neither says that it fell back to 1.
#   torchio and MONAI's ITKReader read DICOM through ITK.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  simpleitk==2.5.7 dcm2niix==1.0.20260724 pydicom==3.0.2 numpy==2.4.6

cat > "$folder/seen" <<'SEEN'
SimpleITK 2.5.7  dcm2niix 1.0.20260724
image, mm                      SimpleITK  dcm2niix
CR calibrated 0.12                  1.00      0.12
CR detector 0.15                    0.15      1.00
CR calibrated 0.12, detector 0.15   0.15      0.12
SC calibrated 0.12                  0.12      0.12
SEEN

cat > "$folder/run.py" <<'PY'
import pathlib
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

PIXELS = np.arange(48 * 32, dtype="<u2").reshape(48, 32)
folder = pathlib.Path(sys.argv[1])


def image(name, kind, calibrated=None, detector=None):
    """Write an image of this SOP class with these pixel sizes."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = kind, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    for empty in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate",
                  "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
                  "Manufacturer", "PatientOrientation"):
        setattr(made, empty, None)
    made.SeriesNumber = made.InstanceNumber = 1
    if kind == ComputedRadiographyImageStorage:
        made.Modality, made.BodyPartExamined, made.ViewPosition = "CR", "KNEE", "AP"
        made.Laterality = "L"
    else:
        made.Modality, made.ConversionType = "OT", "SYN"
    if calibrated:
        made.PixelSpacing = [calibrated, calibrated]
    if calibrated and kind == ComputedRadiographyImageStorage:
        made.PixelSpacingCalibrationType = "GEOMETRY"
        made.PixelSpacingCalibrationDescription = "distance of the bone from the detector"
    if detector:
        made.ImagerPixelSpacing = [detector, detector]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = PIXELS.shape
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.add_new("PixelData", "OW", PIXELS.tobytes())
    path = folder / name / "1.dcm"
    path.parent.mkdir()
    pydicom.dcmwrite(path, made, enforce_file_format=True)
    return path


def widths(path):
    """Pixel width in mm by SimpleITK, and by dcm2niix (pixdim[1] of the NIfTI header)."""
    tool = pathlib.Path(sys.executable).with_name("dcm2niix")
    subprocess.run([tool, "-f", "out", path.parent], check=True, capture_output=True)
    header = (path.parent / "out.nii").read_bytes()[:348]
    return SimpleITK.ReadImage(path).GetSpacing()[0], np.frombuffer(header, "<f4", 1, 80)[0]


SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
CR, SC = ComputedRadiographyImageStorage, SecondaryCaptureImageStorage
print("SimpleITK", SimpleITK.Version.VersionString(), " dcm2niix", version("dcm2niix"))
print("image, mm                      SimpleITK  dcm2niix")
for name, path in {
    "CR calibrated 0.12": image("a", CR, calibrated=0.12),
    "CR detector 0.15": image("b", CR, detector=0.15),
    "CR calibrated 0.12, detector 0.15": image("c", CR, calibrated=0.12, detector=0.15),
    "SC calibrated 0.12": image("d", SC, calibrated=0.12),
}.items():
    print(f"{name:<34}" + "{:6.2f}    {:6.2f}".format(*widths(path)))
PY

"$folder/venv/bin/python" -I "$folder/run.py" "$folder" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
