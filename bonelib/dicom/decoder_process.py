"""Decoders in a process of their own: a damaged file may end that process and not the caller's.

Compressed pixel data come in; ``(rows, columns)`` of stored values go out, or a ``ValueError``.
GDCM aborts the whole process on some damaged JPEG headers (an uncaught C++ exception), and what
decoders have to say of damaged data they print, and fill or cut. Here the first costs one decoder
process, the second is read and believed. Each thread keeps one such process; it
ends with its thread. This file is also the program which that process runs.
"""

import os
import struct
import subprocess
import sys
import tempfile
import threading
import weakref
from multiprocessing.connection import Connection, Pipe
from typing import Any

SECONDS = 120  # the slowest syntax takes one for the largest detector
# Of libjpeg, and of pydicom, which cuts an RLE segment that holds more than the picture.
COMPLAINTS = ("Corrupt JPEG", "premature end", "Premature end", "non-conformant padding")
_THREAD = threading.local()


def decode(syntax: str, data: bytes, plugin: str, **header: Any) -> Any:
    """Decode one compressed picture.

    Args:
        syntax: UID of the transfer syntax.
        data: The encapsulated pixel data.
        plugin: Name of pydicom's decoding plug-in, "" for its own choice, or ``imagecodecs``, which
            reads JPEG of 12 bits.
        header: What pydicom's decoders ask for: rows, columns, bits_allocated, ….

    Returns:
        The decoder's array, as pydicom returns it with ``raw=True``.

    Raises:
        ValueError: The decoder refused the data, found them damaged, ended or did not end.
    """
    worker = getattr(_THREAD, "worker", None) or _Worker()
    _THREAD.worker = None  # kept only if it answers
    values, reason = worker.ask((syntax, data, plugin, header))
    _THREAD.worker = worker
    if values is None:
        raise ValueError(f"the decoder can't read the picture ({reason})")
    return values


class _Worker:
    def __init__(self) -> None:
        self.pipe, theirs = Pipe()
        # -P: modules beside this file must not stand in for others.
        command = [sys.executable, "-P", "-W", "always", __file__, str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        weakref.finalize(self, _end, self.process, self.pipe)

    def ask(self, request: tuple) -> tuple[Any, str]:
        try:
            self.pipe.send(request)
            if not self.pipe.poll(SECONDS):
                self.process.kill()
                raise ValueError(f"the decoder did not end within {SECONDS} s")
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            code = self.process.wait()
            raise ValueError(f"the decoder broke down on the picture (exit {code})") from None


def _end(process: subprocess.Popen, pipe: Connection) -> None:
    pipe.close()
    process.kill()
    process.wait()


def _serve(pipe: Connection) -> None:
    """Answer requests until the pipe closes: (array, "") or (None, reason)."""
    from pydicom.encaps import generate_frames
    from pydicom.pixels import get_decoder

    errors = tempfile.TemporaryFile()
    # What C libraries print must not reach the user.
    os.dup2(errors.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    broken = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError)
    broken += (ArithmeticError, NotImplementedError, struct.error, MemoryError)
    while True:
        try:
            syntax, data, plugin, header = pipe.recv()
        except EOFError:
            return
        errors.seek(0)
        errors.truncate()
        options = {"decoding_plugin": plugin} if plugin else {}
        try:
            if plugin == "imagecodecs":
                values = _twelve(next(generate_frames(data, number_of_frames=1)))
            else:
                decoder = get_decoder(syntax)
                values, _ = decoder.as_array(data, index=0, raw=True, **options, **header)
            reason = ""
        except broken as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            values, reason = None, (lines[-1] if lines else type(error).__name__)[:200].strip()
            if "'NoneType'" in reason:  # what pydicom makes of GDCM's refusal
                reason = "nothing comes out: its data are damaged"
        errors.seek(0)
        printed = errors.read().decode(errors="replace").splitlines()
        complaint = next((line for line in printed if any(c in line for c in COMPLAINTS)), None)
        if complaint and values is not None:
            values, reason = None, complaint.rpartition("Warning: ")[2]
        pipe.send((values, reason))


def _twelve(frame: bytes) -> Any:
    """Decode JPEG Extended of 12 bits.

    imagecodecs keeps libjpeg's warnings to itself, so damage inside the data may go unseen. Where
    data end too early, libjpeg draws the rest in middle grey, which no radiograph has over all of
    its last block.

    Raises:
        ValueError: The data end too early.
    """
    import imagecodecs

    values = imagecodecs.jpeg8_decode(frame)
    if (values[-(values.shape[0] % 8 or 8) :, -(values.shape[1] % 8 or 8) :] == 2048).all():
        raise ValueError("Premature end of JPEG file")
    return values


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
