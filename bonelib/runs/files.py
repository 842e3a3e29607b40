"""How a file is written whole or not at all, and how the content of files is known.

The one module of ``runs`` that any room may import, so it loads nothing heavy. A path comes in; a
temporary path goes out that takes its place only if all goes well. ``hashes`` tells the content of
many files and reads none of them twice. ``cache_folder`` says where files lie that can be had
again.
"""

import contextlib
import hashlib
import itertools
import json
import os
import secrets
import shutil
import stat
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# A file that changed so shortly before it was read may change again within the same tick of the
# clock of its file system (2 s on FAT), which size and time would not tell.
SETTLED = 2 * 10**9  # nanoseconds


def cache_folder(name: str) -> Path:
    """Return a folder for what can be had again: ``BONELIB_CACHE``, else ``.cache/``."""
    return Path(os.environ.get("BONELIB_CACHE") or ROOT / ".cache") / name


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place only if the block succeeds.

    Args:
        mode: Who may do what with it, less what the user's umask forbids.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder that takes the place of ``folder`` only if the block succeeds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_checked(path: Path, content: Any) -> None:
    """Write what JSON can hold with a checksum, which ``read_checked`` looks at."""
    text = json.dumps(content)
    with replacing(path) as temporary:
        temporary.write_text(f"{_seal(text)}{text}}}", encoding="utf-8")


def read_checked(path: Path) -> Any:
    """Read what ``write_checked`` wrote.

    Raises:
        ValueError: The file is cut off or a byte of it changed; the message names it.
        FileNotFoundError: There is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
        head = len(_seal(""))
        if text[:head] == _seal(text[head:-1]) and text[-1:] == "}":
            return json.loads(text[head:-1])
    except UnicodeDecodeError:
        pass
    raise ValueError(f"{path} is cut off or damaged: its checksum does not fit.")


def _seal(text: str) -> str:
    return f'{{"crc32": "{zlib.crc32(text.encode()):08x}", "content": '


def file_hash(path: Path) -> str:
    """Return the sha256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(paths: Sequence[str | Path], *, index: Path, workers: int = 1) -> list[str]:
    """Return the sha256 of each file, empty where there is none that can be read.

    A file whose size and times are those of an earlier call is not read again. An index that is
    damaged, or that can't be written, costs only that files are read again.

    Args:
        index: A JSON file that keeps size, times and hash of each absolute path.
        workers: Threads that read.
    """
    try:
        known, kept = read_checked(index), True
    except (OSError, ValueError):
        known, kept = {}, False
    now = time.time_ns()

    def look(path: str) -> list:
        try:
            facts = os.stat(path)
            seen = [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]
            if path in known and known[path][:-1] == seen:
                return known[path]
            # Reading a pipe or a device could wait for ever.
            return [*seen, file_hash(Path(path)) if stat.S_ISREG(facts.st_mode) else ""]
        except OSError:
            return [0, 0, 0, ""]

    names = [os.path.abspath(path) if path else "" for path in paths]
    # In portions: handing over one file would take longer than asking the system for it.
    portions = [names[i : i + 64] for i in range(0, len(names), 64)]
    with ThreadPoolExecutor(workers) as pool:
        entries = pool.map(lambda portion: [look(name) for name in portion], portions)
        looked = dict(zip(names, itertools.chain.from_iterable(entries), strict=True))
    fresh = {
        path: entry
        for path, entry in looked.items()
        if entry[-1] and known.get(path) != entry and max(entry[1:3]) < now - SETTLED
    }
    if fresh or not kept:
        with contextlib.suppress(OSError):
            write_checked(index, known | fresh)
    return [looked[name][-1] for name in names]
