"""One DICOM file becomes a grey picture with bone bright, and the facts of its header.

A path or the bytes of a file come in; pixels ``(rows, columns)`` and a dictionary go out, or a
``ValueError`` with the reason. Pixels are never transposed, turned or mirrored: row 0 is the top
row as stored, as outlines drawn in a viewer expect; ``orientation`` says where its sides point.

Standard: DICOM PS3.3 C.7.6.3 (pixels), C.8.11 (DX), C.11 (LUTs), PS3.5 (encoding).
"""

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bonelib.dicom import facts, frames, grey
from bonelib.dicom.elements import broken, reason_of, text, whole

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CR, SECONDARY = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.7"
# Storage classes in which radiographs come: CR, DX for presentation and for processing.
RADIOGRAPHS = (CR, f"{CR}.1", f"{CR}.1.1")
MODALITIES = ("CR", "DX", "RG", "DR")  # DR is not in the standard, and in many archives
STATES = tuple(f"1.2.840.10008.5.1.4.1.1.11.{n}" for n in range(1, 13))
GREY = ("MONOCHROME1", "MONOCHROME2")
SIDE = 20_000  # pixels; the largest detectors have fewer than 10,000
NARROW = 0.25  # of the greys; the 15 real radiographs that tests read use .68 or more
NOT_FILM = re.compile(r"dose|screen ?(save|shot)|protocol page|report", re.IGNORECASE)


def read(
    source: str | Path | bytes, *, state: str | Path | bytes | None = None, bits: int = 16
) -> tuple[np.ndarray, dict[str, Any]]:
    """Decode a radiograph to the grey that its header asks for, bone bright.

    Args:
        source: Path of a file, or its bytes.
        state: A greyscale softcopy presentation state made for this image; it replaces the
            header's own look-up tables and polarity. Its turns and shutters are not applied.
        bits: Of the greys, 8 or 16.

    Returns:
        uint8 or uint16 ``(rows, columns)`` over the full range, 0 black, and the facts: those of
        ``facts``, and ``voi`` (which step was applied), ``inverted``, ``lossy``, ``notes``.

    Raises:
        ValueError: It is no radiograph, or it can't be read right; the message is the reason.
        FileNotFoundError: There is no such file.
    """
    if bits not in (8, 16):
        raise ValueError(f"Got bits={bits}. Expected 8 or 16.")
    try:
        return _read(source, state, bits)
    except FileNotFoundError:
        raise
    except broken() as error:
        raise ValueError(reason_of(error)) from error


def _read(source: Any, state: Any, bits: int) -> tuple[np.ndarray, dict[str, Any]]:
    header, notes = parse(source)
    syntax = transfer_syntax(header)
    if faults := problems(header, pixels=True):
        raise ValueError("; ".join(faults))
    steps = grey.chain(header, None if state is None else parse(state)[0])
    pattern = frames.stored(header, syntax, notes)
    stored, signed = int(header.BitsStored), int(header.PixelRepresentation) == 1
    if pattern.dtype == np.uint8 and signed:
        pattern = pattern.view(np.int8).astype(np.int16).view(np.uint16)
    clipped = bool(frames.syntaxes()[syntax]["lossy"])
    value = grey.values(stored=stored, signed=signed, clipped=clipped)
    padded = grey.padding(header, value)
    if padded is not None and not (inside := padded[pattern]).any():
        padded = None

    def present(x: np.ndarray, tail: float) -> tuple[float, float]:
        """Find the range of modality values in the picture, without its padding."""
        counts = np.bincount(pattern.reshape(-1), minlength=65536)
        if padded is not None and not inside.all():
            counts[padded] = 0
        if not tail:
            used = x[counts > 0]
            return float(used.min()), float(used.max())
        order = np.argsort(x)
        share = np.cumsum(counts[order]) / counts.sum()
        return x[order[np.searchsorted(share, tail)]], x[order[np.searchsorted(share, 1 - tail)]]

    table = grey.table(steps, value, bits=bits, present=present)
    if padded is not None:
        table[padded] = 0  # background, whatever the steps make of it
        notes.append("pixels of the Pixel Padding Value are shown as background")
    found = facts.read(header)
    if steps.voi is None and not steps.log:
        notes.append("no window or VOI LUT: stretched between the lowest and the highest value")
    if signed and found["sop_class"] in RADIOGRAPHS[1:]:
        notes.append("signed pixels, which DX does not allow")
    notes += steps.notes
    pixels = table.take(pattern)
    if pixels.min() == pixels.max():
        notes.append("one grey everywhere")
    elif _narrow(pixels if padded is None or inside.all() else pixels[~inside], bits):
        notes.append(f"uses little of its greys: 98 % of the pixels lie in less than {NARROW:.0%}")
    found |= {"voi": steps.step, "inverted": steps.inverted, "transfer_syntax": syntax}
    found |= {"lossy": clipped or text(header, "LossyImageCompression") == "01"}
    return pixels, found | {"notes": tuple(notes + found.pop("notes"))}


def _narrow(pixels: np.ndarray, bits: int) -> bool:
    """Tell whether a picture uses little of its range between the 1st and 99th percentile."""
    some = pixels.reshape(-1)[:: pixels.size // 65536 | 1]
    low, high = np.percentile(some, (1, 99))
    return high - low < NARROW * ((1 << bits) - 1)


def is_dicom(content: bytes) -> bool:
    """Tell from its first bytes whether a file is DICOM, with or without the preamble."""
    return content[128:132] == b"DICM" or _bare(content)


def parse(source: str | Path | bytes, *, pixels: bool = True) -> tuple["Dataset", list[str]]:
    """Parse a file; also say what is odd about it, in sentences.

    Args:
        pixels: Read the pixel data too; without them a path is read only as far as the header goes.

    Raises:
        ValueError: It is not DICOM or its structure is broken.
        FileNotFoundError: There is no such file.
    """
    from pydicom import dcmread

    notes = []
    if isinstance(source, bytes):
        start, size = source[:256], len(source)
    else:
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"No file {path}.")
        if not path.is_file():  # a pipe or a device could wait for ever
            raise ValueError("not a file")
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(256)
    if not size:
        raise ValueError("the file is empty (0 bytes)")
    if not is_dicom(start):
        raise ValueError("not a DICOM file: it has no preamble and begins with no DICOM element")
    if _bare(start):
        notes.append("no preamble: the file begins with its first element")
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else path.open("rb") as stream:
            header = dcmread(stream, force=_bare(start), stop_before_pixels=not pixels)
    except broken() as error:
        raise ValueError(f"the DICOM structure is broken: {reason_of(error)}") from error
    return header, notes


def not_a_radiograph(header: "Dataset") -> str | None:
    """Say why a file is no radiograph (report, colour, other modality, several frames), or None."""
    kind, modality = text(header, "SOPClassUID"), text(header, "Modality")
    described = "?"
    if kind in STATES:
        return "not a radiograph: a presentation state; give it to read(…, state=…)"
    if kind not in RADIOGRAPHS:
        from pydicom.uid import UID

        described = UID(kind).name if kind else "no SOP class"
        if kind != SECONDARY or modality not in MODALITIES:
            return f"not a radiograph: {described}, modality {modality or 'not named'}"
    elif modality not in MODALITIES:
        return f"not a radiograph: modality {modality or 'not named'}"
    samples, photometric = (
        text(header, k) for k in ("SamplesPerPixel", "PhotometricInterpretation")
    )
    if samples not in ("1", "") or (photometric and photometric not in GREY):
        return f"not a radiograph: a colour picture ({samples} samples, {photometric})"
    told = [str(v) for v in header.get("ImageType") or () if isinstance(v, str)][2:]
    told += [text(header, "SeriesDescription")] if kind == SECONDARY else []
    if found := next((t for t in told if NOT_FILM.search(t)), None):
        return f"not a radiograph: it calls itself {found!r}"
    count = text(header, "NumberOfFrames")
    if count not in ("", "1"):
        return f"not a single radiograph: it holds {count} frames"
    return None


def problems(header: "Dataset", *, pixels: bool = False) -> list[str]:
    """List what keeps a header from being decoded right; ``pixels`` asks for their data too."""
    try:
        refusal = not_a_radiograph(header)
        if refusal:
            return [refusal]
        found = []
        photometric = text(header, "PhotometricInterpretation")
        if photometric not in GREY:
            named = photometric or "not there"
            found.append(f"Photometric Interpretation is {named}, expected {' or '.join(GREY)}")
        keys = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
        values = {k: whole(text(header, k)) for k in (*keys, "SamplesPerPixel")}
        missing = [k for k, v in values.items() if v is None]
        if missing:
            return [*found, f"the header lacks {', '.join(missing)}"]
        rows, columns, allocated, stored, high, signed, _ = values.values()
        if not (0 < rows <= SIDE and 0 < columns <= SIDE):
            found.append(f"{columns} × {rows} pixels, expected 1 to {SIDE:,} a side")
        if allocated not in (8, 16):
            found.append(f"{allocated} bits allocated, expected 8 or 16")
        elif not 1 < stored <= allocated:
            found.append(f"{stored} of {allocated} bits stored")
        elif not stored - 1 <= high < allocated:  # PS3.3 C.7.6.3; old units: higher
            found.append(f"High Bit is {high}, expected {stored - 1} with {stored} bits stored")
        if signed not in (0, 1):
            found.append(f"Pixel Representation is {signed}, expected 0 or 1")
        if pixels and "PixelData" not in header:
            found.append("there are no pixel data")
        return found
    except broken() as error:
        return [f"the header can't be read: {reason_of(error)}"]


def _bare(content: bytes) -> bool:
    """Recognise a file that starts with its first element, of group 2 or 8, tag and length."""
    if content[128:132] == b"DICM" or content[:2] not in (b"\x02\0", b"\x08\0"):
        return False
    explicit = content[4:6].isalpha() and content[4:6].isupper()
    return len(content) >= 8 and (explicit or int.from_bytes(content[4:8], "little") < 256)


def transfer_syntax(header: "Dataset") -> str:
    """Return the UID of the transfer syntax; a file that names none is uncompressed."""
    meta = getattr(header, "file_meta", None)
    named = str(meta.get("TransferSyntaxUID", "")) if meta is not None else ""
    if named:
        return named
    little = header.original_encoding[1] is not False
    return "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"
