"""The stored values of one picture, from native or compressed pixel data.

A parsed file comes in; ``(rows, columns)`` of 16-bit patterns go out. Before a decoder is asked,
the length of the data or the header of the codestream is held against the DICOM header: decoders
of every kind fill gaps, and some believe the one and some the other.
"""

import csv
import functools
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bonelib.dicom import decoder_process

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset


@functools.cache
def syntaxes() -> dict[str, dict[str, str]]:
    """Return the transfer syntaxes that radiographs have, by UID.

    Each has the ``kind`` of its pixel data; native ones the byte ``order``; others whether they are
    ``lossy``, pydicom's ``plugins`` in order of choice, and the ``package`` that brings the first,
    free of the GPL. GDCM goes before Pillow: it says when the data of a JPEG end too early.
    """
    with Path(__file__).with_name("syntaxes.csv").open(newline="", encoding="utf-8") as stream:
        return {row["uid"]: row for row in csv.DictReader(stream)}


def stored(header: "Dataset", syntax: str) -> np.ndarray:
    """Return the stored values as they lie in the file, uint8 or uint16 ``(rows, columns)``.

    Args:
        header: With its pixel data; rows, columns, bits and one sample a pixel were checked.
        syntax: UID of the transfer syntax.

    Raises:
        ValueError: The data and the header disagree, or no decoder is installed.
    """
    data = header.PixelData or b""
    if not data:
        raise ValueError("the pixel data are empty (0 bytes)")
    wrapped = data[:4] == b"\xfe\xff\x00\xe0" and header["PixelData"].is_undefined_length
    rows, columns, allocated = int(header.Rows), int(header.Columns), int(header.BitsAllocated)
    if syntax not in syntaxes():
        raise ValueError(f"the transfer syntax {_name(syntax)} is not one that radiographs have")
    if order := syntaxes()[syntax]["order"]:
        if wrapped:
            raise ValueError(f"{_name(syntax)} is named but the pixel data are compressed")
        expected = rows * columns * allocated // 8
        if not expected <= len(data) <= expected + expected % 2:
            raise ValueError(
                f"the pixel data hold {len(data):,} bytes, {rows} × {columns} pixels of "
                f"{allocated} bits need {expected:,}: the file is cut off or its header is wrong"
            )
        kind = np.dtype("u1" if allocated == 8 else f"{order}u2")
        found = np.frombuffer(data, kind, count=rows * columns).reshape(rows, columns)
        return found if found.dtype.isnative else found.astype(np.uint16)
    if not wrapped:
        raise ValueError(f"{_name(syntax)} is named but the pixel data are not compressed so")
    return _decoded(header, data, syntax)


def _decoded(header: "Dataset", data: bytes, syntax: str) -> np.ndarray:
    from pydicom.encaps import generate_frames
    from pydicom.pixels import get_decoder

    frames = list(generate_frames(data, number_of_frames=1))
    if len(frames) != 1:
        raise ValueError(f"the pixel data hold {len(frames)} frames, expected one")
    _agree(header, frames[0], syntax)
    kind, package, choice = (syntaxes()[syntax][key] for key in ("kind", "package", "plugins"))
    plugins = get_decoder(syntax).available_plugins
    if not plugins:
        raise ValueError(
            f"{_name(syntax)} needs a decoder. Install it with `pip install {package}` "
            "(or `pip install bonelib[dicom]` for all)"
        )
    plugin = next((name for name in choice.split() if name in plugins), "")
    keys = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
    words = ("rows", "columns", "bits_allocated", "bits_stored", "pixel_representation")
    facts: dict[str, Any] = {w: int(header[k].value) for w, k in zip(words, keys, strict=True)}
    facts |= {"photometric_interpretation": "MONOCHROME2", "samples_per_pixel": 1}
    facts |= {"number_of_frames": 1, "pixel_keyword": "PixelData"}
    found = decoder_process.decode(syntax, data, plugin, **facts)
    rows, columns = int(header.Rows), int(header.Columns)
    if found.shape != (rows, columns) or found.dtype.itemsize > 2:
        raise ValueError(
            f"{kind} decodes to {found.shape} of {found.dtype}, expected ({rows}, {columns})"
        )
    if found.dtype.kind == "i" and found.dtype.itemsize == 1:
        found = found.astype(np.int16)  # the sign is carried on, as 16-bit decoders do
    return found.view(np.uint8 if found.dtype.itemsize == 1 else np.uint16)


def _agree(header: "Dataset", frame: bytes, syntax: str) -> None:
    """Hold the codestream's own header against the file's.

    Raises:
        ValueError: It is of another kind, cut off, or of another size or depth.
    """
    kind = syntaxes()[syntax]["kind"]
    allocated, bits = int(header.BitsAllocated), int(header.BitsStored)
    if kind == "RLE":  # no header of its own; pydicom counts the bytes
        return
    found = _codestream(frame)
    if found is None:
        raise ValueError(f"{_name(syntax)} is named but its pixel data hold no such picture")
    actual, precision, rows, columns, parts = found
    if actual != kind and not (kind, actual) == ("JPEG lossless", "JPEG"):
        raise ValueError(f"{_name(syntax)} is named but the pixel data are {actual}")
    if parts != 1:
        raise ValueError(f"not a radiograph: its {actual} has {parts} colour components")
    if (rows, columns) != (int(header.Rows), int(header.Columns)):
        raise ValueError(
            f"the {actual} is {columns} × {rows} pixels, the header says "
            f"{int(header.Columns)} × {int(header.Rows)}"
        )
    if kind == "JPEG" and precision > 8:
        raise ValueError(
            f"{_name(syntax)} with {precision} bits: no free decoder reads it. Ask the archive for "
            "an uncompressed or lossless copy, or convert it with `dcmdjpeg` of DCMTK"
        )
    if not bits <= precision <= allocated:
        raise ValueError(
            f"the {actual} has {precision} bits, the header stores {bits} in {allocated}"
        )
    if b"\xff\xd9" not in frame[-16:]:
        raise ValueError(f"the {actual} is cut off: it has no end")


def _codestream(frame: bytes) -> tuple[str, int, int, int, int] | None:
    """Read kind, precision, rows, columns and components from JPEG, JPEG-LS or JPEG 2000.

    Markers: ITU-T T.81 Annex B, T.87 Annex C, T.800 Annex A.5.1.
    """
    start = frame.find(b"\xff\x4f\xff\x51", 0, 4096)  # also inside the boxes of a JP2 file
    if start >= 0 and frame[:2] != b"\xff\xd8":
        try:
            wide, high, left, top = struct.unpack_from(">4I", frame, start + 8)
            (parts,) = struct.unpack_from(">H", frame, start + 40)
            depth = frame[start + 42]
        except (struct.error, IndexError):
            return None
        return "JPEG 2000", (depth & 0x7F) + 1, high - top, wide - left, parts
    if frame[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 10 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        (length,) = struct.unpack_from(">H", frame, place + 2)
        frame_markers = {0xC0, 0xC1, 0xC2, 0xC3, 0xF7}
        if marker in frame_markers:
            bits, rows, columns, parts = struct.unpack_from(">BHHB", frame, place + 4)
            kinds = {0xC3: "JPEG lossless", 0xF7: "JPEG-LS"}
            return kinds.get(marker, "JPEG"), bits, rows, columns, parts
        place += 2 + max(length, 2)
    return None


def _name(syntax: str) -> str:
    from pydicom.uid import UID

    name = UID(syntax).name
    return name if name == syntax or not syntax else f"{name} ({syntax})"


def without_comments(frame: bytes) -> bytes:
    """Drop what a codestream carries beside its picture: comments, application data, a tail.

    JPEG and JPEG-LS: COM and APP segments before the scan, but for APP14, which tells colours
    apart. JPEG 2000: COM in the main header. Other frames come back as they are.
    """
    if frame[:4] == b"\xff\x4f\xff\x51":
        dropped, last = {0x64}, 0x90
    elif frame[:2] == b"\xff\xd8":
        dropped, last = {0xFE, *(m for m in range(0xE0, 0xF0) if m != 0xEE)}, 0xDA
    else:
        return frame
    kept, place = bytearray(frame[:2]), 2
    while place + 4 <= len(frame) and frame[place] == 0xFF and frame[place + 1] != last:
        (length,) = struct.unpack_from(">H", frame, place + 2)
        if frame[place + 1] not in dropped:
            kept += frame[place : place + 2 + length]
        place += 2 + length
    end = frame.rfind(b"\xff\xd9")
    whole = bytes(kept) + frame[place : end + 2 if end >= place else len(frame)]
    return whole + b"\0" * (len(whole) % 2)


def bare_pixels(header: "Dataset", syntax: str) -> "DataElement":
    """Return the pixel data with the same values, and without anything that hides beside them.

    Native data lose what follows the picture and what stands in the bits above the stored ones (old
    overlays); codestreams their comments.
    """
    from pydicom.dataelem import DataElement
    from pydicom.encaps import encapsulate, generate_frames

    order = syntaxes()[syntax]["order"]
    if not order:
        frame = next(generate_frames(header.PixelData, number_of_frames=1))
        made = DataElement("PixelData", "OB", encapsulate([without_comments(frame)]))
        made.is_undefined_length = True
        return made
    allocated, stored = int(header.BitsAllocated), int(header.BitsStored)
    kind = np.dtype("u1" if allocated == 8 else f"{order}u2")
    values = np.frombuffer(header.PixelData, kind, count=int(header.Rows) * int(header.Columns))
    if stored < allocated and int(header.PixelRepresentation) == 0:
        values = values & kind.type((1 << stored) - 1)
    data = values.astype(kind).tobytes()
    return DataElement(
        "PixelData", "OB" if allocated == 8 else "OW", data + b"\0" * (len(data) % 2)
    )
