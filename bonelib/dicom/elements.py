"""What the elements of a header hold, in files that may be broken: text, numbers, and reasons."""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

# What the parser and the decoders raise on broken files, beside pydicom's own (``broken``).
BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, ArithmeticError)
BROKEN += (LookupError, TypeError, AttributeError, NotImplementedError, RuntimeError, MemoryError)
BROKEN += (AssertionError,)


def text(header: "Dataset", keyword: str) -> str:
    """Return the first value of an element as stripped text, "" where it is absent or empty."""
    value = header.get(keyword)
    if value is None:
        return ""
    if not isinstance(value, str | bytes) and hasattr(value, "__len__"):
        value = value[0] if len(value) else ""
    return str(value).strip("\0 ")


def numbers(header: "Dataset", keyword: str) -> list[float]:
    """Return the finite numbers of an element.

    Raises:
        ValueError: A value is not a number.
    """
    value = header.get(keyword)
    if value is None or value == "":
        return []
    several = not isinstance(value, str | int | float) and hasattr(value, "__len__")
    found = [float(v) for v in (value if several else [value]) if v is not None and v != ""]
    if not np.isfinite(found).all():
        raise ValueError(f"{keyword} is not a finite number")
    return found


def whole(value: str | None) -> int | None:
    """Read a whole number, None where the text is none."""
    return int(value) if value and re.fullmatch(r"[+-]?\d{1,9}", value) else None


def each(header: "Dataset") -> Iterator["DataElement"]:
    """Yield all elements of a header that can be parsed, those of items too."""
    for tag in header.keys():
        try:
            element = header[tag]
        except broken():
            continue
        if element.VR == "SQ":
            for item in element.value or ():
                yield from each(item)
        else:
            yield element


def broken() -> tuple[type[Exception], ...]:
    """All that the parser and the decoders raise on broken files."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (*BROKEN, InvalidDicomError, BytesLengthException)


def printable(text: str) -> str:
    """Make a sentence fit to print: a broken header quotes control characters, and at length."""
    return "".join(c if c.isprintable() else "·" for c in text)[:500]


def reason_of(error: BaseException) -> str:
    """Say what an error says; a foreign one is named as such."""
    lines = str(error).strip().splitlines()
    text = printable("; ".join(lines[:1]) or type(error).__name__)
    return text if isinstance(error, ValueError) else f"the file can't be decoded ({text})"
