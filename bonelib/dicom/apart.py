"""Decoders in a process of their own: a damaged file may end that process and not the caller's.

Compressed pixel data come in; ``(rows, columns)`` of stored values go out, or a ``ValueError``.
GDCM aborts the whole process on some damaged JPEG headers (an uncaught C++ exception), and what
libjpeg has to say of damaged data it prints to the standard error and fills the gap. Here the first
costs one decoder process, the second is read and believed. Each thread keeps one such process; it
ends with its thread. This file is also the program which that process runs.
"""

import os
import pickle
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from typing import Any

SECONDS = 120  # the slowest syntax takes one for the largest detector
COMPLAINTS = ("Corrupt JPEG", "premature end", "Premature end")
_OWN = threading.local()


def decode(syntax: str, data: bytes, plugin: str, **header: Any) -> Any:
    """Decode one compressed picture.

    Args:
        syntax: UID of the transfer syntax.
        data: The encapsulated pixel data.
        plugin: Name of pydicom's decoding plug-in, "" for its own choice.
        header: What pydicom's decoders ask for: rows, columns, bits_allocated, ….

    Returns:
        The decoder's array, as pydicom returns it with ``raw=True``.

    Raises:
        ValueError: The decoder refused the data, found them damaged, ended or did not end.
    """
    worker = getattr(_OWN, "worker", None) or _Worker()
    _OWN.worker = None  # kept only if it answers
    found, told = worker.ask((syntax, data, plugin, header))
    _OWN.worker = worker
    if found is None:
        raise ValueError(f"the decoder can't read the picture ({told})")
    return found


class _Worker:
    def __init__(self) -> None:
        # -P: modules beside this file must not stand in for others.
        command = [sys.executable, "-P", "-W", "ignore", __file__]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe)
        weakref.finalize(self, _end, self.process)

    def ask(self, request: tuple) -> tuple[Any, str]:
        try:
            _send(self.process.stdin.fileno(), request)
            return _receive(self.process.stdout.fileno(), time.monotonic() + SECONDS)
        except (EOFError, BrokenPipeError):
            code = self.process.wait()
            raise ValueError(f"the decoder broke down on the picture (exit {code})") from None
        except TimeoutError:
            self.process.kill()
            raise ValueError(f"the decoder did not end within {SECONDS} s") from None


def _end(process: subprocess.Popen) -> None:
    process.stdin.close()
    process.stdout.close()
    process.kill()
    process.wait()


def _send(pipe: int, message: Any) -> None:
    content = pickle.dumps(message, protocol=5)
    view = memoryview(struct.pack("<Q", len(content)) + content)
    while len(view):
        view = view[os.write(pipe, view) :]


def _receive(pipe: int, until: float | None = None) -> Any:
    def exactly(count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            left = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([pipe], [], [], left)[0]:
                raise TimeoutError
            part = os.read(pipe, min(count - len(parts), 1 << 20))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    (size,) = struct.unpack("<Q", exactly(8))
    return pickle.loads(exactly(size))


def _serve() -> None:
    """Answer requests until the pipe closes: (array, "") or (None, reason)."""
    import struct

    from pydicom.pixels import get_decoder

    answers = os.dup(1)
    errors = tempfile.TemporaryFile()
    # What C libraries print must reach neither the answers nor the user.
    os.dup2(errors.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    broken = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError)
    while True:
        try:
            syntax, data, plugin, header = _receive(0)
        except EOFError:
            return
        errors.seek(0)
        errors.truncate()
        options = {"decoding_plugin": plugin} if plugin else {}
        try:
            decoder = get_decoder(syntax)
            found, _ = decoder.as_array(data, index=0, raw=True, **options, **header)
            reason = ""
        except (*broken, ArithmeticError, NotImplementedError, struct.error, MemoryError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            found, reason = None, (lines[-1] if lines else type(error).__name__)[:200].strip()
            if "'NoneType'" in reason:  # what pydicom makes of GDCM's refusal
                reason = "nothing comes out: its data are damaged"
        errors.seek(0)
        told = errors.read().decode(errors="replace").splitlines()
        complaint = next((line for line in told if line.startswith(COMPLAINTS)), None)
        if complaint and found is not None:
            found, reason = None, complaint
        _send(answers, (found, reason))


if __name__ == "__main__":
    _serve()
