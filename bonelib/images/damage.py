"""What a file says against itself: checksums that don't fit, pictures that end too early or late.

The bytes of a PNG or JPEG come in; a sentence about the damage, or None, goes out. ``pixels`` asks
before it believes what a decoder returns, as decoders fill gaps in silence.

A PNG carries a checksum in every chunk, so any changed byte of it is found. A JPEG carries none:

- found are a broken structure, a missing end, and a picture whose coded blocks are fewer or more
  than its header says, which is what most changed bits of the data and of the declared size lead
  to. Blocks are counted by the decoder itself: told of two more rows of blocks, it must fill them
  with mid-grey, and it must not have begun to fill before (Annex F of ITU-T T.81 has no other end);
- not found, by any decoder, is a change that keeps the number of blocks: other grey values in some
  blocks or in all (the tables of quantisation), or a size that changes by less than a block;
- not looked for are damaged data of progressive JPEGs and of formats other than these two, as far
  as PIL itself does not stumble; of the TIFFs that OpenCV reads in its stead, it fills in silence
  what can't be unpacked.

Keep the sha256 of published files (``cache.files``) where that matters.
"""

import io
import struct
import zlib
from typing import Any

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY = 128  # what libjpeg shows where no data came
SEQUENTIAL = (0xC0, 0xC1)
OTHER_FRAMES = (0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)


def png(content: bytes) -> str | None:
    """Check the chunks of a PNG: about 1 ms for each 2 MB."""
    place, seen = len(SIGNATURE), set()
    while place < len(content):
        head = content[place : place + 8]
        if len(head) < 8:
            return "the PNG is cut off"
        (length,), kind = struct.unpack(">I", head[:4]), head[4:]
        end = place + 12 + length
        if end > len(content):
            return f"the PNG is cut off in its chunk {_name(kind)}"
        (checksum,) = struct.unpack(">I", content[end - 4 : end])
        if zlib.crc32(memoryview(content)[place + 4 : end - 4]) != checksum:
            return f"the checksum of the PNG's chunk {_name(kind)} is wrong"
        seen.add(kind)
        if kind == b"IEND":
            return None if b"IDAT" in seen else "the PNG holds no pixels"
        place = end
    return "the PNG has no end"


def _name(kind: bytes) -> str:
    return kind.decode("ascii", errors="replace")


def frame(content: bytes) -> tuple[int, int, int, int] | None:
    """Find in a JPEG the offset of the height, the height, and the rows and columns of a block.

    A block here is what is coded together, 8 × 8 to 32 × 32 pixels. None where the coding is one
    of which blocks are not counted: progressive, whose end is not one place, and rarer ones.
    """
    place = 2
    while place + 9 < len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if marker in OTHER_FRAMES or marker == 0xDA:
            return None
        if marker in SEQUENTIAL:
            bits, high, _, parts = struct.unpack(">BHHB", content[place + 4 : place + 10])
            factors = content[place + 11 : place + 10 + 3 * parts : 3]
            if bits != 8 or parts not in (1, 3) or not high or len(factors) < parts:
                return None
            if parts == 1:  # coded 8 × 8 whatever its factors say
                return place + 5, high, 8, 8
            rows, columns = (8 * max(f >> s & 15 for f in factors) for s in (0, 4))
            return (place + 5, high, rows, columns) if rows and columns else None
        (length,) = struct.unpack(">H", content[place + 2 : place + 4])
        place += 2 + length
    return None


def lengthened(content: bytes, found: tuple[int, int, int, int]) -> bytes | None:
    """Tell the decoder of two more rows of blocks than ``frame`` found; None where it can't be."""
    place, high, rows, _ = found
    told = -(-high // rows) * rows + 2 * rows
    if told > 65500:
        return None
    return content[:place] + struct.pack(">H", told) + content[place + 2 :]


def jpeg(
    grey: np.ndarray, content: bytes, found: tuple[int, int, int, int], step: int
) -> str | None:
    """Judge the decoded rows of a lengthened JPEG.

    Args:
        grey: uint8 ``(rows, width)``, the lengthened picture decoded at 1/``step`` of its size.
        content: The lengthened bytes.
        found: What ``frame`` said.
    """
    _, high, rows, columns = found
    side, wide = rows // step, columns // step
    end = -(-high // rows) * side
    beyond = grey[end:] != GREY
    beyond[:side, :wide] = False  # the bits that fill the last byte make up to a block too many
    if beyond.any():
        return "the JPEG holds more data than its header says: the size or the data are damaged"
    last = grey[end - side : end, (grey.shape[1] - 1) // wide * wide :]
    if (last == GREY).all() and _ran_out(grey[: -(-high // step)], content, step):
        return "the JPEG's data end before the picture does"
    return None


def _ran_out(grey: np.ndarray, content: bytes, step: int) -> bool:
    """Append data: rows that change now had been filled; rows that are grey by nature stay."""
    from PIL import Image

    end = content.rfind(b"\xff\xd9")
    longer = content[:end] + b"\x35\x1a" * 512 + content[end:]
    with Image.open(io.BytesIO(longer)) as image:
        again = draft(image, step)
    return not np.array_equal(np.asarray(again)[: len(grey)], grey)


def draft(image: Any, step: int) -> Any:
    """Ask an opened JPEG for its luminance at 1/``step``; the mode isn't L where it has none."""
    image.draft("L", (max(1, image.width // step), max(1, image.height // step)))
    image.load()
    return image
