"""One process at a time at a run folder, also where the file system knows no locks.

A path comes in; what frees it goes out. A lock of the system ends with its process. Where there is
none (ENOLCK on NFS, ENOSYS on Lustre), a file that only one process can create stands for it and
names its owner; left behind by a process of this machine that has ended, it is taken over.
"""

import contextlib
import errno
import fcntl
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # no locks on this file system
PAUSE = 0.2  # seconds between two looks at a file that another process owns


class Busy(ValueError):
    """Another process has the lock; the message names it, and what to delete if it has ended."""


def take(path: Path, *, wait: Callable[[str], None] | None = None) -> Callable[[], None]:
    """Lock ``path``, a file that is made for it, and return what frees it.

    Args:
        wait: Called with the owner's name between two looks while another process has it: it
            sleeps (``pause``), or raises to give up. Without, such a lock is an error.

    Raises:
        Busy: Another process has it, or one of another machine may have it.
        OSError: The file can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    locked = False
    try:
        while not locked:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
            except BlockingIOError:
                who = os.pread(file, 200, 0).decode() or "unknown"
                if wait is None:
                    raise Busy(who) from None
                wait(who)
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise
        return _own(path.with_name(f"{path.name}.owner"), wait=wait)
    finally:
        if not locked:
            os.close(file)
    os.ftruncate(file, 0)
    os.write(file, _here().encode())
    process = os.getpid()

    def free() -> None:
        if process == os.getpid():  # a worker that was forked meanwhile has the file open too
            os.ftruncate(file, 0)  # no owner
            fcntl.flock(file, fcntl.LOCK_UN)
        os.close(file)

    return free


def pause(_who: str) -> None:
    """Wait for the next look at a lock."""
    time.sleep(PAUSE)


def owner(path: Path) -> str:
    """Name the process that has a lock, empty where none has it."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        # A name is left by a kill as well. One that is held is not disturbed by this look.
        if who := file.read(200).decode():
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # closing the file gives it up
            except BlockingIOError:
                return who
    with contextlib.suppress(OSError):
        who = path.with_name(f"{path.name}.owner").read_text(encoding="utf-8")
        return "" if _ended(who) else who
    return ""


def _here() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _own(path: Path, *, wait: Callable[[str], None] | None) -> Callable[[], None]:
    """Create the file that stands for a lock; only one process can."""
    own, process = _here(), os.getpid()
    while True:
        with contextlib.suppress(FileExistsError):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(file, own.encode())
            os.close(file)
            break
        owner = ""
        with contextlib.suppress(FileNotFoundError):
            owner = path.read_text(encoding="utf-8")
        if owner and _ended(owner):
            aside = path.with_name(f"{path.name}-{process}")
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                path.rename(aside)
                if aside.read_text(encoding="utf-8") != owner:  # and has it already: give it back
                    with contextlib.suppress(FileExistsError):
                        os.link(aside, path)
                aside.unlink()
            continue
        here = owner.endswith(f" on {socket.gethostname()}")
        if owner and not (wait and here):
            raise Busy(f"{owner}; if it has ended, delete {path}")
        (wait or pause)(owner)  # one that is being written has no name yet

    def free() -> None:
        if process == os.getpid():
            path.unlink(missing_ok=True)

    return free


def _ended(owner: str) -> bool:
    """Tell whether an owner was a process of this machine that is no more."""
    told = re.fullmatch(r"process (\d+) on (.+)", owner)
    if not told or told[2] != socket.gethostname():
        return False
    try:
        os.kill(int(told[1]), 0)
    except OSError as error:  # of another user, it lives
        return error.errno == errno.ESRCH
    return False
