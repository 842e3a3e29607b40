"""Fetch a published set into a folder, and check that it is whole.

``sources.csv`` says where each set lies: its DOI, or the page where its terms are accepted (pages
as projects that use the sets name them). The repository behind a DOI states the checksum of each
file; pooch asks it, downloads, tries again and keeps only what fits. ``checksum`` is that of a file
brought by hand (of BTXRD's: as others read it from figshare). Beside the folder lies what was
fetched:

    data/btxrd/                  the unpacked set, by rename, never a part of it
    data/btxrd.fetched.json      files, bytes, sha256, images: looked at by the next fetch
"""

import csv
import errno
import functools
import json
import os
import shlex
import shutil
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bonelib import cohort, datasets
from bonelib.runs.files import cache_folder, file_hash, replacing, replacing_folder

RETRIES = 2  # of a download that was cut off
TIMEOUT = (10, 60)  # seconds to connect, and without a byte
CHUNK = 2**20  # bytes; pooch's own kilobyte is slow for files of a gigabyte


@dataclass(frozen=True)
class Source:
    """One row of ``sources.csv``; ``images`` is 0 where no source states one number."""

    name: str
    title: str
    doi: str
    page: str
    files: str
    images: int
    checksum: str
    licence: str
    cite: str

    @property
    def address(self) -> str:
        """Where a reader finds it."""
        return f"https://doi.org/{self.doi}" if self.doi else self.page

    def by_hand(self, folder: Path) -> str:
        """Say what to download where, and where to put it."""
        return (
            f"Download {self.files} from {self.address}, bring it here and give: bonelib fetch "
            f"{self.name} --from FILE … --accept-licence\nOr unpack it into {folder} yourself."
        )


@functools.cache
def sources() -> Mapping[str, Source]:
    """Return the sets that can be fetched or brought, by name."""
    with open(Path(__file__).with_name("sources.csv"), encoding="utf-8", newline="") as file:
        rows = [row | {"images": int(row["images"] or 0)} for row in csv.DictReader(file)]
    return {row["name"]: Source(**row) for row in rows}


def images(folder: Path, notes: list[str]) -> int:
    """Count the pictures below a folder; ``notes`` gains what could not be looked at."""
    return len(datasets.pictures(datasets.tree(folder, notes)))


def whole(source: Source, folder: Path) -> bool:
    """Tell whether a set lies in a folder with all of its images; False if nothing lies there.

    Raises:
        ValueError: There is a folder with another number, or no source tells; it is left alone.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    number, expected = images(folder, []), _recorded(folder).get("images", source.images)
    if number == expected:
        return True
    raise ValueError(
        f"{folder} is there already and holds {number:,} images, expected "
        f"{f'{expected:,}' if expected else 'a number that no source states'}. Use it as it is "
        f"(bonelib data {source.name} {shlex.quote(str(folder))}), or move it away to fetch it."
    )


def download(source: Source, folder: Path, *, progress: bool = False) -> list[Path]:
    """Download the files behind a DOI into the cache; whole ones that are there already are kept.

    Raises:
        ValueError: A file can't be had, is cut off, or is not what the repository states.
        OSError: The disk is full, or can only be read.
    """
    import pooch
    from requests import RequestException

    pooch.get_logger().setLevel("ERROR")
    here = cache_folder("downloads") / source.name
    record = pooch.create(here, f"doi:{source.doi}/", retry_if_failed=RETRIES)
    reader = pooch.DOIDownloader(chunk_size=CHUNK, progressbar=progress, timeout=TIMEOUT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the newest version is taken
            record.load_registry_from_doi()
            _refuse_paths(record.registry, source.address)
            return [Path(record.fetch(name, downloader=reader)) for name in record.registry]
    except (RequestException, ValueError, LookupError) as error:
        said = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{source.title} can't be fetched here ({type(error).__name__}: {said}).\nGive the "
            "command again where there is a network: files that came whole are kept. Or: "
            f"{source.by_hand(folder)}"
        ) from error


def put(source: Source, files: Iterable[Path], folder: Path) -> tuple[int, list[str]]:
    """Unpack files into the folder of a set, check it, and note what was fetched.

    Returns:
        The number of radiographs that the set's reader finds, and the tasks they have labels for.

    Raises:
        ValueError: A file has changed since it was first fetched, is damaged or no zip, would
            write outside of the folder, or images are missing. Nothing is left in the folder.
        OSError: The disk is full, or can only be read.
    """
    files, known = [*files], _recorded(folder).get("files", {})
    facts = {file.name: _facts(source, file, known.get(file.name)) for file in files}
    for part in folder.parent.glob(f".{folder.name}-" + "[0-9a-f]" * 8):
        shutil.rmtree(part)  # of a fetch that was killed
    with replacing_folder(folder) as made:
        for file in files:
            _unpack(file, made) if file.suffix.lower() == ".zip" else shutil.copy(file, made)
        for inner in sorted(made.rglob("*.zip")):  # "Download all" packs archives once more
            _unpack(inner, inner.parent)
            inner.unlink()
        number = images(made, [])
        if source.images and number != source.images:
            raise ValueError(
                f"{', '.join(facts)}: {number:,} images, but {source.title} has {source.images:,}. "
                f"Download it again from {source.address}. If its page states another number by "
                f"now, unpack it into {folder} yourself."
            )
        table = datasets.read(source.name, made)
    noted = {"set": source.name, "from": source.address, "images": number, "files": known | facts}
    with replacing(_record(folder)) as temporary:
        temporary.write_text(json.dumps(noted, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(cache_folder("downloads") / source.name, ignore_errors=True)
    return len(table), [task.name for task in cohort.labelled(table)]


def _record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.fetched.json")


def _recorded(folder: Path) -> dict[str, Any]:
    file = _record(folder)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _facts(source: Source, file: Path, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return size and sha256 of a file, held against what is known of it."""
    facts = {"bytes": file.stat().st_size, "sha256": file_hash(file)}
    if before and before != facts:
        raise ValueError(
            f"{file} ({facts}) is not the file that was fetched first ({before}). If you want what "
            f"may be a new release, move {source.name}.fetched.json away."
        )
    kind, _, stated = source.checksum.partition(":")
    if stated and file.name == source.files:
        import pooch

        if (found := pooch.file_hash(str(file), alg=kind)) != stated:
            raise ValueError(
                f"{file} has {kind} {found}, its source states {stated}: it is cut off, or of "
                f"another release. Download it again from {source.address}."
            )
    return facts


def _refuse_paths(names: Iterable[str], where: str) -> None:
    """Refuse names that lead out of a folder; zipfile takes ``..`` out of them without a word."""
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{where} has a file {name!r}, which would lie outside of its folder.")


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip; zipfile compares the checksum of each file in it."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            _refuse_paths(zipped.namelist(), archive.name)
            if sum(one.file_size for one in zipped.infolist()) > shutil.disk_usage(folder).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
            zipped.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(
            f"{archive.name} can't be unpacked ({error}): it is cut off, or no zip at all, such as "
            "a page that asks for a login. Download it again."
        ) from error
