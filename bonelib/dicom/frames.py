"""The stored values of one picture, from native or compressed pixel data.

A parsed file comes in; ``(rows, columns)`` of 16-bit patterns go out. Before a decoder is asked,
the length of the data or the header of the codestream is held against the DICOM header: decoders
of every kind fill gaps, and some believe the one and some the other.
"""

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from bonelib.dicom import apart

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

NATIVE = {
    "1.2.840.10008.1.2": "<u2",
    "1.2.840.10008.1.2.1": "<u2",
    "1.2.840.10008.1.2.1.99": "<u2",
    "1.2.840.10008.1.2.2": ">u2",
}
RLE = "1.2.840.10008.1.2.5"
# Transfer syntax → kind of codestream, and the package whose decoder is free of the GPL.
CODED = {
    RLE: ("RLE", "pydicom"),
    "1.2.840.10008.1.2.4.50": ("JPEG", "pillow"),
    "1.2.840.10008.1.2.4.51": ("JPEG", "pillow"),
    "1.2.840.10008.1.2.4.57": ("JPEG lossless", "python-gdcm"),
    "1.2.840.10008.1.2.4.70": ("JPEG lossless", "python-gdcm"),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS", "python-gdcm"),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS", "python-gdcm"),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.201": ("JPEG 2000", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.202": ("JPEG 2000", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.203": ("JPEG 2000", "pylibjpeg-openjpeg"),
}
LOSSY = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 81, 91, 203))
EXTENDED = "1.2.840.10008.1.2.4.51"
# Decoders in order of choice. GDCM before Pillow: it says when the data of a JPEG end too early.
PLUGINS = {"JPEG": ("gdcm", "pillow"), "JPEG 2000": ("pylibjpeg",)}
PLUGINS |= dict.fromkeys(("JPEG lossless", "JPEG-LS"), ("gdcm",))


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
    if syntax in NATIVE:
        if wrapped:
            raise ValueError(f"{_name(syntax)} is named but the pixel data are compressed")
        expected = rows * columns * allocated // 8
        if not expected <= len(data) <= expected + expected % 2:
            raise ValueError(
                f"the pixel data hold {len(data):,} bytes, {rows} × {columns} pixels of "
                f"{allocated} bits need {expected:,}: the file is cut off or its header is wrong"
            )
        kind = np.uint8 if allocated == 8 else np.dtype(NATIVE[syntax])
        found = np.frombuffer(data, kind, count=rows * columns).reshape(rows, columns)
        return found if found.dtype.isnative else found.astype(np.uint16)
    if syntax not in CODED:
        raise ValueError(f"the transfer syntax {_name(syntax)} is not one that radiographs have")
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
    kind, package = CODED[syntax]
    if kind == "RLE":
        return _unpacked(frames[0], int(header.Rows), int(header.Columns))
    plugins = get_decoder(syntax).available_plugins
    if not plugins:
        raise ValueError(
            f"{_name(syntax)} needs a decoder. Install it with `pip install {package}` "
            "(or `pip install bonelib[dicom]` for all)"
        )
    own = next((name for name in PLUGINS[kind] if name in plugins), "")
    keys = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
    words = ("rows", "columns", "bits_allocated", "bits_stored", "pixel_representation")
    facts: dict[str, Any] = {w: int(header[k].value) for w, k in zip(words, keys, strict=True)}
    facts |= {"photometric_interpretation": "MONOCHROME2", "samples_per_pixel": 1}
    facts |= {"number_of_frames": 1, "pixel_keyword": "PixelData"}
    found = apart.decode(syntax, data, own, **facts)
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
    kind, _ = CODED[syntax]
    allocated, bits = int(header.BitsAllocated), int(header.BitsStored)
    if kind == "RLE":
        _rle(frame, allocated)
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


def _rle(frame: bytes, allocated: int) -> list[int]:
    """Check the header of PS3.5 G.5: one segment a byte of a pixel, offsets in order."""
    if len(frame) < 64:
        raise ValueError("the RLE data are cut off in their header")
    count, *offsets = struct.unpack_from("<16I", frame)
    used = offsets[: min(count, 15)]
    sound = count == allocated // 8 and used[0] == 64 and used == sorted(set(used))
    if not sound or used[-1] >= len(frame):
        raise ValueError(f"the RLE header ({count} segments at {used}) doesn't fit the data")
    return used


def _unpacked(frame: bytes, rows: int, columns: int) -> np.ndarray:
    """Unpack the segments of PS3.5 G.3, highest byte first, and count what they hold.

    pydicom's own decoder cuts or fills where the count is wrong, so that a damaged height passes.
    """
    offsets = _rle(frame, 8 * struct.unpack_from("<I", frame)[0])
    planes = []
    for start, end in zip(offsets, [*offsets[1:], len(frame)], strict=True):
        out, place, last = bytearray(), start, end - 1
        while place < last:  # each run is two bytes or more; one that is left over is padding
            head = frame[place]
            if head < 128:
                stop = place + 2 + head
                out += frame[place + 1 : stop]
                place = stop
            elif head > 128:
                out += frame[place + 1 : place + 2] * (257 - head)
                place += 2
            else:  # 128 stands for nothing
                place += 1
        if len(out) != rows * columns or place > end or frame[place:end].strip(b"\0\x80"):
            raise ValueError(
                f"an RLE segment does not hold {columns} × {rows} pixels: the size in the header "
                "or the data are damaged"
            )
        planes.append(np.frombuffer(out, np.uint8).astype(np.uint16))
    whole = planes[0] if len(planes) == 1 else planes[0] << 8 | planes[1]
    return whole.astype(np.uint8 if len(planes) == 1 else np.uint16).reshape(rows, columns)


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
