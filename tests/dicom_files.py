"""DICOM files made for the tests: small CR files with any header, nothing of a person in them."""

import io

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

CR = "1.2.840.10008.5.1.4.1.1.1"
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
STATE = "1.2.840.10008.5.1.4.1.1.11.1"


def ramp(rows=40, columns=60, bits=12):
    """Rise to the right and downwards: no transposition or flip leaves it as it is."""
    x = np.linspace(0, 0.7, columns) + np.linspace(0, 0.3, rows)[:, None]
    return np.rint(x * (2**bits - 1)).astype(np.uint16)


def header(pixels, *, bits=12, allocated=16, **elements):
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = CR, generate_uid(entropy_srcs=[str(elements)])
    made.StudyInstanceUID = made.SeriesInstanceUID = generate_uid(entropy_srcs=["study"])
    made.PatientID, made.PatientName, made.Modality = "P1", "Doe^Jane", "CR"
    made.Rows, made.Columns = pixels.shape
    made.BitsAllocated, made.BitsStored, made.HighBit = allocated, bits, bits - 1
    made.PixelRepresentation, made.SamplesPerPixel = int(pixels.dtype.kind == "i"), 1
    made.PhotometricInterpretation = "MONOCHROME2"
    kind = "u1" if allocated == 8 else "<i2" if pixels.dtype.kind == "i" else "<u2"
    made.PixelData = pixels.astype(kind).tobytes()
    if len(made.PixelData) % 2:
        made.PixelData += b"\0"
    made["PixelData"].VR = "OB" if allocated == 8 else "OW"
    for keyword, value in elements.items():
        if value is None:
            del made[keyword]
        else:
            setattr(made, keyword, value)
    return made


def file_bytes(made, **options):
    made.file_meta.MediaStorageSOPClassUID = made.get("SOPClassUID", CR)
    made.file_meta.MediaStorageSOPInstanceUID = made.get("SOPInstanceUID", "1.2.3")
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made, enforce_file_format=True, **options)
    return stream.getvalue()


def film(pixels=None, **options):
    return file_bytes(header(ramp() if pixels is None else pixels, **options))


def lut(values, first=0, bits=16):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(values) % 65536, first & 0xFFFF, bits])
    item.add_new("LUTData", "US", [int(v) for v in values])
    return item


def compressed(made, syntax, frame):
    """Put an encoded frame in place of the native pixels."""
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.PixelData = encapsulate([frame])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return file_bytes(made)
