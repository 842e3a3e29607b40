"""The decoded radiographs of a table, kept on disk and opened as a memory map.

The cohort table comes in; a ``Cache`` goes out: pixels uint8 ``(N, size, size)`` in row order,
where each image lies in its square, the facts of its file, and what could not be decoded. Eight
bits and not sixteen: towers take 8-bit pictures, 12-bit films shrink by an area whose mean is finer
than their noise, and the file stays small enough for the page cache. On disk:

    folder/hashes.json        path → size, times, sha256: unchanged files aren't read again
    folder/<key>/images.npy   the pixels; ``parts/`` holds them while a pass is under way
    folder/<key>/facts.json   one entry per file; written last, so its presence means "finished"

Each of them carries checksums: ``facts.json`` those of the pixels too, a block of files at a time.
A process looks at them once. A store that is damaged is made anew and said to be so.
"""

import functools
import hashlib
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bonelib import cohort
from bonelib.images import pixels
from bonelib.runs.files import hashes as file_hashes
from bonelib.runs.files import read_checked, replacing, write_checked

SUFFIXES = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "bmp": "BMP", "webp": "WEBP"}
SUFFIXES |= {"tif": "TIFF", "tiff": "TIFF", "gif": "GIF", "dcm": "DICOM"}
CHUNK = 32  # images in one part; a killed pass loses at most one part per worker


@dataclass(frozen=True)
class Cache:
    """Decoded radiographs, in the row order of the table they were made from.

    Attributes:
        images: Memory map, uint8 ``(N, size, size)``.
        ids: The ``image_id`` of each row.
        geometry: Per row ``image_id``, ``width``, ``height`` of the upright image, and where it
            lies: cache x = image x · ``scale_x`` + ``offset_x``, the same for y. ``turn`` is the
            EXIF orientation where the cached pixels are not upright, else 1.
        files: Per row ``image_id`` and the facts of the file: ``sha256``, ``width`` and ``height``
            as stored, ``bytes``, ``mean_grey`` (0–255), ``mode``, ``format``.
        excluded: ``image_id``, ``path``, ``reason`` of what could not be decoded.
        notes: What is odd about the files, in sentences, to be shown beside the reader's.
        key: Sixteen hex digits of the settings and the content of all files.
        store: The folder it lies in, and ``all_files`` (``image_id``, ``path``, ``sha256`` of every
            row, those excluded too): what ``reopen`` needs where the files themselves are not.
    """

    images: np.ndarray
    ids: list[str]
    geometry: pd.DataFrame
    files: pd.DataFrame
    excluded: pd.DataFrame
    notes: list[str]
    key: str
    size: int
    fit: str
    store: Path
    all_files: pd.DataFrame = field(repr=False)
    _index: dict[str, int] = field(repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sha256(self) -> list[str]:
        """The content hash of each row's file."""
        return list(self.files["sha256"])

    def rows(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return the row of each image, int64.

        Raises:
            ValueError: Some are not in the cache; the message names them, and why if known.
        """
        missing = [str(i) for i in image_ids if i not in self._index]
        if missing:
            unread = len(set(missing) & set(self.excluded[cohort.IMAGE_ID]))
            why = f" {unread} of them could not be decoded (see cache.excluded)." if unread else ""
            raise ValueError(
                f"{len(missing)} images are not in the cache, e.g. {', '.join(missing[:5])}.{why} "
                "Keep the rows whose image_id is in cache.ids, or build the cache from this table."
            )
        return np.array([self._index[i] for i in image_ids], dtype=np.int64)


def cache(
    table: pd.DataFrame,
    *,
    size: int,
    fit: str = "pad",
    folder: str | Path,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Cache:
    """Decode the radiographs of ``table`` once; later calls open what is there.

    A killed pass goes on where it stopped. The bytes are the same for any number of workers.

    Args:
        size: Side of the cached square in pixels.
        fit: ``pad`` keeps the aspect ratio and continues each edge by its mean; ``squash`` is
            PIL's bicubic resize of the whole image as stored.
        folder: Where stores live, ``runs.cache_folder("images")`` in the notebooks.
        workers: Threads; the decoders release Python's lock.
        progress: Called with (images done, images in all) after each part.

    Raises:
        ValueError: A setting is wrong, ids repeat, or no image at all can be decoded.
        OSError: The folder can't be made or written, or the disk is full.
    """
    if fit not in pixels.FITS or size < 1 or workers < 1:
        raise ValueError(
            f"Got fit={fit!r}, size={size}, workers={workers}. Expected a fit of "
            f"{' or '.join(pixels.FITS)}, and size and workers of at least 1."
        )
    ids = table[cohort.IMAGE_ID].astype(str).tolist()
    if len(set(ids)) < len(ids) or not ids:
        raise ValueError(
            f"The table has {len(ids)} rows and {len(set(ids))} different image ids. "
            "Every radiograph needs a row and an id of its own; cohort.check names the repeats."
        )
    paths = _paths(table)
    folder = Path(folder)
    with ThreadPoolExecutor(workers) as pool:
        hashes = file_hashes(paths, index=folder / "hashes.json", workers=workers)
        store, notes = folder / _key(size, fit, hashes), []
        facts = store / "facts.json"
        try:
            if facts.exists() and (fault := _fault(store)):
                notes.append(f"{fault} The images were decoded anew.")
                facts.unlink(missing_ok=True)
            if not facts.exists():
                _build(store, paths, size, fit, pool, progress)
        except OSError as error:
            raise OSError(
                f"The image cache can't be kept in {folder}: {error.strerror or error}. Make room "
                "or change its permissions, or set BONELIB_CACHE to a folder that can be written. "
                "Images that are decoded already stay so."
            ) from error
    return _open(store, ids, paths, hashes, size=size, fit=fit, notes=notes)


def reopen(store: str | Path, files: pd.DataFrame, *, size: int, fit: str = "pad") -> Cache:
    """Open a finished store without the files it was made from, on another machine say.

    Args:
        store: ``cache.store``, or where it was copied to.
        files: ``image_id``, ``path``, ``sha256`` of every row of the table, in its order; those
            excluded too.

    Raises:
        FileNotFoundError: No finished store lies there.
        ValueError: It was made from other files or with other settings, or it is damaged.
    """
    store = Path(store)
    if not (store / "facts.json").exists():
        raise FileNotFoundError(f"{store} holds no finished image cache. Copy it there as a whole.")
    hashes = files["sha256"].tolist()
    if store.name != _key(size, fit, hashes):
        raise ValueError(f"{store} was made from other files, or not with size={size}, fit={fit}.")
    if fault := _fault(store):
        raise ValueError(
            f"{fault} Decoded images are lost, nothing else: copy the whole folder there again, or "
            "delete it and run notebook 01 where the files are."
        )
    columns = (files[name].astype(str).tolist() for name in (cohort.IMAGE_ID, cohort.PATH))
    return _open(store, *columns, hashes, size=size, fit=fit)


def _key(size: int, fit: str, hashes: list[str]) -> str:
    text = json.dumps([pixels.RECIPE, size, fit, hashes])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def verify(
    table: pd.DataFrame, *, progress: Callable[[int, int], None] | None = None
) -> pd.DataFrame:
    """Check every file of ``table`` without keeping pixels: structure, checksums, header, end.

    Quicker than ``cache`` and less strict: pixels are decoded to the smallest scale the format
    allows, and nothing is written.

    Args:
        progress: Called with (images done, images in all).

    Returns:
        ``image_id``, ``path``, ``reason`` of each file that ``cache`` would exclude;
        ``attrs["notes"]`` says what is odd about the others.
    """
    found, good, columns = [], [], (table[cohort.IMAGE_ID], _paths(table))
    for done, (name, path) in enumerate(zip(*columns, strict=True), 1):
        _, facts = pixels.decode(path, size=32, fit="pad")
        if facts["reason"]:
            found.append((name, path, facts["reason"]))
        else:
            good.append({cohort.IMAGE_ID: name, cohort.PATH: path} | facts)
        if progress is not None:
            progress(done, len(table))
    unreadable = pd.DataFrame(found, columns=[cohort.IMAGE_ID, cohort.PATH, "reason"])
    unreadable.attrs["notes"] = _notes(pd.DataFrame(good)) if good else []
    return unreadable


def _paths(table: pd.DataFrame) -> list[str]:
    """Return the absolute path of each row's file, empty where the table knows none."""
    return ["" if pd.isna(path) else os.path.abspath(path) for path in table[cohort.PATH]]


def _fault(store: Path) -> str | None:
    """Say what is damaged in a finished store, or None."""
    try:
        blocks = read_checked(store / "facts.json")["blocks"]
        path = store / "images.npy"
        _check(path, path.stat().st_mtime_ns, tuple(map(tuple, blocks)))
    except FileNotFoundError as error:
        return f"{error.filename} is missing."
    except ValueError as error:
        return str(error)
    return None


@functools.cache
def _check(path: Path, changed: int, blocks: tuple[tuple[int, int], ...]) -> None:
    """Compare a file with the length and CRC-32 of its blocks, once for each state of it.

    Args:
        changed: The time of the file, only to tell its states apart.

    Raises:
        ValueError: They don't fit.
    """
    size, expected = path.stat().st_size, sum(length for length, _ in blocks)
    if size != expected:
        raise ValueError(f"{path} is damaged: it has {size:,} bytes of {expected:,}.")
    content, start = np.memmap(path, np.uint8, mode="r"), 0
    for number, (length, checksum) in enumerate(blocks, 1):
        if zlib.crc32(content[start : start + length]) != checksum:
            raise ValueError(
                f"{path} is damaged: the checksum of block {number} of {len(blocks)} is wrong."
            )
        start += length


def _open(
    store: Path,
    ids: list[str],
    paths: list[str],
    hashes: list[str],
    *,
    size: int,
    fit: str,
    notes: Sequence[str] = (),
) -> Cache:
    facts = pd.DataFrame(read_checked(store / "facts.json")["files"])
    facts = facts.assign(**{cohort.IMAGE_ID: ids, cohort.PATH: paths, "sha256": hashes})
    unread = facts["reason"].notna()
    good = facts[~unread].reset_index(drop=True)
    whole = ["width", "height", "stored_width", "stored_height", "bytes", "turn"]
    good[whole] = good[whole].astype(int)  # floats where an unread row left a gap
    stored = good.drop(columns=["width", "height"])
    stored = stored.rename(columns={"stored_width": "width", "stored_height": "height"})
    names = good[cohort.IMAGE_ID].tolist()
    return Cache(
        images=np.load(store / "images.npy", mmap_mode="r"),
        ids=names,
        geometry=good[[cohort.IMAGE_ID, *pixels.GEOMETRY]],
        files=stored[[cohort.IMAGE_ID, *pixels.FILES]],
        excluded=facts.loc[unread, [cohort.IMAGE_ID, cohort.PATH, "reason"]].reset_index(drop=True),
        notes=[*notes, *_notes(good)],
        key=store.name,
        size=size,
        fit=fit,
        store=store,
        all_files=facts[[cohort.IMAGE_ID, cohort.PATH, "sha256"]],
        _index={name: row for row, name in enumerate(names)},
    )


def _notes(good: pd.DataFrame) -> list[str]:
    """Say what is odd about files that could be decoded: names, bits, orientation."""
    suffix = good[cohort.PATH].str.extract(r"\.(\w+)$")[0].str.lower()
    # PIL calls a JPEG with a second picture behind the first MPO.
    true = good["format"].replace({"MPO": "JPEG"})
    lies = suffix.isin(list(SUFFIXES)) & (suffix.map(SUFFIXES) != true)
    found = []
    for which, text in (
        (lies, "files hold another format than their extension says and were read by content"),
        (good["turn"] != 1, "files are turned by EXIF and kept as stored"),
    ):
        if which.any():
            names = ", ".join(good.loc[which, cohort.IMAGE_ID][:3])
            found.append(f"{int(which.sum())} {text}, e.g. {names}.")
    if "notes" in good:  # what a decoder said, the same sentence counted once
        said = good[[cohort.IMAGE_ID, "notes"]].explode("notes").dropna()
        for text, names in said.groupby("notes", sort=True)[cohort.IMAGE_ID]:
            found.append(f"{len(names)} files: {text}, e.g. {', '.join(names[:3])}.")
    return found


def _build(
    store: Path,
    paths: list[str],
    size: int,
    fit: str,
    pool: ThreadPoolExecutor,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Decode part by part, join the parts, and write the facts last."""
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    parts = [store / "parts" / f"{n:06d}.npz" for n in range(len(chunks))]

    def decode(chunk: list[str], part: Path) -> int:
        if not _whole(part):
            decoded = [pixels.decode(path, size=size, fit=fit) for path in chunk]
            images = [image for image, _ in decoded if image is not None]
            array = np.stack(images) if images else np.empty((0, size, size), np.uint8)
            with replacing(part) as temporary:
                np.savez(temporary, images=array, facts=json.dumps([fact for _, fact in decoded]))
        return len(chunk)

    jobs = [pool.submit(decode, *job) for job in zip(chunks, parts, strict=True)]
    try:
        done = 0
        for job in as_completed(jobs):
            done += job.result()
            if progress is not None:
                progress(done, len(paths))
    except BaseException:
        pool.shutdown(cancel_futures=True)  # an interrupt must not wait for the whole queue
        raise
    try:
        _join(store, parts, paths, size)
    except FileNotFoundError:
        # Another process built the same store meanwhile and cleared the parts away.
        if not (store / "facts.json").exists():
            raise
    shutil.rmtree(store / "parts", ignore_errors=True)


def _whole(part: Path) -> bool:
    """Tell whether a part of an earlier pass is there and sound; its zip has checksums."""
    try:
        with np.load(part) as content:
            return all(content[name] is not None for name in ("images", "facts"))
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return False


def _join(store: Path, parts: list[Path], paths: list[str], size: int) -> None:
    facts = []
    for part in parts:  # one open file at a time
        with np.load(part) as content:
            facts += json.loads(str(content["facts"]))
    readable = sum(fact["reason"] is None for fact in facts)
    if not readable:
        shutil.rmtree(store)
        told = zip(paths[:3], facts, strict=False)
        named = ((Path(path).name or "no path", fact["reason"]) for path, fact in told)
        first = "; ".join(dict.fromkeys(map(": ".join, named)))
        raise ValueError(
            f"None of {len(paths)} images can be decoded ({first}). "
            "Check the paths in the table, or unpack the images again; without images only what "
            "the table says can be asked."
        )
    with replacing(store / "images.npy") as temporary:
        images = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.uint8, shape=(readable, size, size)
        )
        with open(temporary, "rb") as file:
            header = file.read(images.offset)
        row, blocks = 0, [(len(header), zlib.crc32(header))]
        for part in parts:
            with np.load(part) as content:
                block = content["images"]
            images[row : row + len(block)] = block
            row += len(block)
            blocks.append((block.size, zlib.crc32(block)))
        images.flush()
    write_checked(store / "facts.json", {"blocks": blocks, "files": facts})
