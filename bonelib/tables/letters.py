"""How the bytes of a file become letters: by a mark, by zero bytes, or by which lines are UTF-8."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32"}
MARKS |= {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# Bytes that are accents in Mac Roman (àâäçéèêôöùûü) and signs or nothing in Windows-1252.
MAC = frozenset(b"\x88\x89\x8a\x8d\x8e\x8f\x90\x99\x9a\x9d\x9e\x9f")


class Encoding(NamedTuple):
    """How bytes become letters: the codec, what it does with odd bytes, and what was assumed."""

    name: str
    errors: str = "strict"
    assumed: str = ""


def encoding(head: bytes, lines: Iterable[bytes]) -> Encoding:
    """Find the encoding by a mark, by zero bytes, or by which lines are UTF-8."""
    for mark, name in MARKS.items():
        if head.startswith(mark):
            return Encoding(name)
    if b"\0" in head:  # plain text holds no zero byte
        return Encoding("utf-16-be" if head[:1] == b"\0" else "utf-16-le")
    good, odd, seen = 0, [], Counter()
    for number, line in enumerate(lines, 1):
        if not line.isascii():
            try:
                line.decode("utf-8")
                good += 1
            except UnicodeDecodeError:
                odd.append(number)
                seen.update(byte for byte in line if byte > 127)
    if not odd:
        return Encoding("utf-8-sig")
    if good > len(odd):
        where = f"{len(odd)} lines are not, the first is line {odd[0]}: they were"
        text = f"is UTF-8, but {where} read as Windows-1252; check names with accents."
        return Encoding("utf-8-sig", "surrogateescape", text)
    mac = sum(seen[byte] for byte in MAC) > sum(n for byte, n in seen.items() if byte >= 0xC0)
    called = "Mac Roman" if mac else "Windows-1252 (western European)"
    text = f"is not UTF-8: it was read as {called}; check names with accents."
    return Encoding("mac_roman" if mac else "cp1252", "replace", text)


def mended(line: str) -> str:
    """Read the bytes that are no UTF-8 in a line as Windows-1252."""
    return re.sub(
        "[\udc80-\udcff]+",
        lambda odd: odd[0].encode("utf-8", "surrogateescape").decode("cp1252", "replace"),
        line,
    )


def decode(data: bytes) -> tuple[str, str]:
    """Make text of bytes; also say, if it is a guess, how: ``is not UTF-8: it was read as …``.

    Raises:
        ValueError: The bytes claim UTF-16 and are not.
    """
    found = encoding(data[:4], data.split(b"\n"))
    try:
        return mended(data.decode(found.name, found.errors)), found.assumed
    except UnicodeDecodeError:
        raise ValueError(f"is cut off or no text: it begins as {found.name.upper()}.") from None
