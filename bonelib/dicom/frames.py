"""The stored values of one picture, from native or compressed pixel data.

A parsed file comes in; ``(rows, columns)`` of 16-bit patterns go out. Before a decoder is asked,
the length of the data or the header of the codestream is held against the DICOM header: decoders
of every kind fill gaps, and some believe the one and some the other. Where the two differ and the
values are nevertheless certain, they are read and a note says how (PS3.5 8.2.1: the codestream
says what it holds); else the reason is raised.
"""

import csv
import functools
import importlib.util
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bonelib.dicom import decoder_process

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

SPARE = 16  # what follows the pixels may be a sixteenth of them; more is another picture's size


class Codestream(NamedTuple):
    """What the header of a codestream says; ``signed`` is None where its kind has no sign."""

    kind: str
    precision: int
    rows: int
    columns: int
    parts: int
    signed: bool | None = None


@functools.cache
def syntaxes() -> dict[str, dict[str, str]]:
    """Return the transfer syntaxes that radiographs have, by UID.

    Each has the ``kind`` of its pixel data; native ones the byte ``order``; others whether they are
    ``lossy``, pydicom's ``plugins`` in order of choice, and the ``package`` that brings the first,
    free of the GPL. GDCM goes before Pillow: it says when the data of a JPEG end too early.
    """
    with Path(__file__).with_name("syntaxes.csv").open(newline="", encoding="utf-8") as stream:
        return {row["uid"]: row for row in csv.DictReader(stream)}


def stored(header: "Dataset", syntax: str, notes: list[str]) -> np.ndarray:
    """Return the stored values as they lie in the file, uint8 or uint16 ``(rows, columns)``.

    Args:
        header: With its pixel data; rows, columns, bits and one sample a pixel were checked.
        syntax: UID of the transfer syntax.
        notes: Gets a sentence for each thing that is odd and was read all the same.

    Raises:
        ValueError: The data and the header disagree, or no decoder is installed.
    """
    data = header.PixelData or b""
    if not data:
        raise ValueError("the pixel data are empty (0 bytes)")
    wrapped = data[:4] == b"\xfe\xff\x00\xe0" and header["PixelData"].is_undefined_length
    if syntax not in syntaxes():
        raise ValueError(f"the transfer syntax {_name(syntax)} is not one that radiographs have")
    native = bool(syntaxes()[syntax]["order"])
    if native and wrapped:
        raise ValueError(f"{_name(syntax)} is named but the pixel data are compressed")
    if not native and not wrapped:
        raise ValueError(f"{_name(syntax)} is named but the pixel data are not compressed so")
    if native:
        found, depth = _native(header, data, syntaxes()[syntax]["order"], notes), None
    else:
        found, depth = _decoded(header, data, syntax, notes)
    bits, top = int(header.BitsStored), int(header.HighBit) + 1
    if top > bits and (depth is None or depth > bits):
        return _right_justified(found, bits, top, notes)
    return found


def _native(header: "Dataset", data: bytes, order: str, notes: list[str]) -> np.ndarray:
    rows, columns, allocated = int(header.Rows), int(header.Columns), int(header.BitsAllocated)
    expected = rows * columns * allocated // 8
    kind = np.dtype("u1" if allocated == 8 else f"{order}u2")
    more = len(data) - expected - expected % 2
    if len(data) < expected or more > 0 and not _spare(data, kind, rows, columns):
        why = "the file is cut off or its header is wrong" if more < 0 else "its header is wrong"
        raise ValueError(
            f"the pixel data hold {len(data):,} bytes, {rows} × {columns} pixels of "
            f"{allocated} bits need {expected:,}: {why}"
        )
    if more > 0:
        notes.append("bytes follow the pixels and are left out")
    found = np.frombuffer(data, kind, count=rows * columns).reshape(rows, columns)
    return found if found.dtype.isnative else found.astype(np.uint16)


def _spare(data: bytes, kind: np.dtype, rows: int, columns: int) -> bool:
    """Tell whether what follows the pixels is beside the picture, and not a part of it.

    Rows that are longer than the header says shear the picture: where that many bytes could be so
    many columns more, the picture must be smoother down its columns as the header has it.
    """
    needed = rows * columns * kind.itemsize
    tail = np.frombuffer(data, np.uint8)[needed:]
    if len(tail) > needed // SPARE and (tail != tail[0]).any():
        return False
    wider, left = divmod(len(tail), rows * kind.itemsize)
    if left > 1 or not wider:
        return True

    def rough(across: int) -> float:
        array = np.frombuffer(data, kind, count=rows * across).reshape(rows, across)
        return float(np.abs(np.diff(array.astype(np.int32), axis=0)).mean()) if rows > 1 else 0.0

    return rough(columns) <= rough(columns + wider)


def _right_justified(found: np.ndarray, bits: int, top: int, notes: list[str]) -> np.ndarray:
    """Shift values that end at a High Bit above Bits Stored - 1, as old CR units write them.

    Raises:
        ValueError: They lie at the lower end all the same.
    """
    pattern = found.astype(np.uint16)
    low, used = (1 << (top - bits)) - 1, int(np.bitwise_or.reduce(pattern, axis=None))
    if not used >> bits and used & low:
        raise ValueError(
            f"High Bit is {top - 1}, expected {bits - 1} with {bits} bits stored: no value reaches "
            "higher"
        )
    notes.append(f"High Bit is {top - 1} with {bits} bits stored: values are shifted down")
    return (pattern >> np.uint16(top - bits)) & np.uint16((1 << bits) - 1)


def _decoded(
    header: "Dataset", data: bytes, syntax: str, notes: list[str]
) -> tuple[np.ndarray, int | None]:
    """Decode the one frame; also return the precision of its codestream, None for RLE."""
    from pydicom.encaps import generate_frames
    from pydicom.pixels import get_decoder

    frames = list(generate_frames(data, number_of_frames=1))
    if len(frames) != 1:
        raise ValueError(f"the pixel data hold {len(frames)} frames, expected one")
    stream = _agree(header, frames[0], syntax)
    kind, package, choice = (syntaxes()[syntax][key] for key in ("kind", "package", "plugins"))
    keys = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
    words = ("rows", "columns", "bits_allocated", "bits_stored", "pixel_representation")
    facts: dict[str, Any] = {w: int(header[k].value) for w, k in zip(words, keys, strict=True)}
    plugins = get_decoder(syntax).available_plugins
    if stream and kind == "JPEG" and stream.precision > 8:
        package = choice = "imagecodecs"  # none of pydicom's decoders reads 12 bits
        plugins = (choice,) if importlib.util.find_spec(choice) else ()
    elif stream and stream.precision <= 8:  # decoders take the container from the header
        facts["bits_allocated"] = 8
    if not plugins:
        raise ValueError(
            f"{_name(syntax)} needs a decoder. Install it with `pip install {package}` "
            "(or `pip install -c requirements.lock -e '.[dicom]'` for all)"
        )
    plugin = next((name for name in choice.split() if name in plugins), "")
    # pydicom clears what lies above the stored bits.
    top = int(header.HighBit) + 1
    facts["bits_stored"] = min(top, stream.precision) if stream else top
    facts |= {"photometric_interpretation": "MONOCHROME2", "samples_per_pixel": 1}
    facts |= {"number_of_frames": 1, "pixel_keyword": "PixelData"}
    found = decoder_process.decode(syntax, data, plugin, **facts)
    rows, columns = int(header.Rows), int(header.Columns)
    if found.shape != (rows, columns) or found.dtype.itemsize > 2:
        raise ValueError(
            f"{kind} decodes to {found.shape} of {found.dtype}, expected ({rows}, {columns})"
        )
    if stream is None:
        return found.view(np.uint8 if found.dtype.itemsize == 1 else np.uint16), None
    return _in_range(header, found, stream, notes), stream.precision


def _in_range(
    header: "Dataset", found: np.ndarray, stream: Codestream, notes: list[str]
) -> np.ndarray:
    """Bring values of a codestream to the header's sign and depth.

    JPEG and JPEG-LS hold patterns; JPEG 2000 holds values with or without a sign. Fewer bits are
    the same values in a smaller range, and the sign is that of the codestream's highest bit.

    Raises:
        ValueError: The two signs differ, and some values depend on which of them is believed.
    """
    bits, signed = int(header.BitsStored), int(header.PixelRepresentation) == 1
    half, kind = 1 << (stream.precision - 1), stream.kind
    pattern = found.view(np.uint8 if found.dtype.itemsize == 1 else np.uint16)
    if stream.precision < bits:
        notes.append(f"the {kind} has {stream.precision} bits, the header stores {bits}")
    if stream.signed is not None and stream.signed != signed:
        names = ["unsigned", "signed"]
        told = f"the {kind} is {names[stream.signed]}, the header says {names[signed]}"
        # As many bits without a sign: patterns of the header's kind, as pydicom 3.0 reads them.
        if (stream.signed or stream.precision < bits) and (pattern & half).any():
            raise ValueError(
                f"{told}, and its values could be one thing or the other. Ask the archive for an "
                "uncompressed copy"
            )
        notes.append(told)
    if not signed:
        return pattern
    # The sign is carried on, which not every decoder does.
    value = pattern.astype(np.int32) & (2 * half - 1)
    return ((value ^ half) - half).astype(np.int16).view(np.uint16)


def _agree(header: "Dataset", frame: bytes, syntax: str) -> Codestream | None:
    """Hold the codestream's own header against the file's, and return it; RLE has none.

    Raises:
        ValueError: It is of another kind, cut off, or of another size or depth.
    """
    kind = syntaxes()[syntax]["kind"]
    allocated, bits = int(header.BitsAllocated), int(header.BitsStored)
    if kind == "RLE":  # no header of its own; pydicom counts the bytes
        return None
    found = _codestream(frame)
    if found is None:
        raise ValueError(f"{_name(syntax)} is named but its pixel data hold no such picture")
    actual, precision = found.kind, found.precision
    if actual != kind and not (kind, actual) == ("JPEG lossless", "JPEG"):
        raise ValueError(f"{_name(syntax)} is named but the pixel data are {actual}")
    if found.parts != 1:
        raise ValueError(f"not a radiograph: its {actual} has {found.parts} colour components")
    if (found.rows, found.columns) != (int(header.Rows), int(header.Columns)):
        raise ValueError(
            f"the {actual} is {found.columns} × {found.rows} pixels, the header says "
            f"{int(header.Columns)} × {int(header.Rows)}"
        )
    least = bits if actual == "JPEG" else 2  # a lossy JPEG of fewer bits is of another scale
    if not least <= precision <= allocated:
        raise ValueError(
            f"the {actual} has {precision} bits, the header stores {bits} in {allocated}"
        )
    if b"\xff\xd9" not in frame.rstrip(b"\0")[-16:]:
        raise ValueError(f"the {actual} is cut off: it has no end")
    return found


def _codestream(frame: bytes) -> Codestream | None:
    """Read the header of JPEG, JPEG-LS or JPEG 2000.

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
        rows, columns = high - top, wide - left
        return Codestream("JPEG 2000", (depth & 0x7F) + 1, rows, columns, parts, depth > 0x7F)
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
            return Codestream(kinds.get(marker, "JPEG"), bits, rows, columns, parts)
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
    spare = int(header.HighBit) + 1 - stored  # below values that are justified to the left
    kind = np.dtype("u1" if allocated == 8 else f"{order}u2")
    values = np.frombuffer(header.PixelData, kind, count=int(header.Rows) * int(header.Columns))
    if stored < allocated and (spare or int(header.PixelRepresentation) == 0):
        values = values & kind.type(((1 << stored) - 1) << spare)
    data = values.astype(kind).tobytes()
    return DataElement(
        "PixelData", "OB" if allocated == 8 else "OW", data + b"\0" * (len(data) % 2)
    )
