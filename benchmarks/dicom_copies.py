"""Measure whether other software takes de-identified DICOM copies, and what is read off pictures.

    python benchmarks/dicom_copies.py [--drawn 200] [--folders DIR …] [--text 200]

Copies the radiographs of each folder (by default ``dicom-radiographs`` in ``BONELIB_DATA`` and the
``cases`` beside it) and of a synthetic export without identities, and asks others about them:
dciodvfy (dicom3tools) for errors that the originals had not, dcmmkdir (DCMTK) and pydicom's FileSet
for a DICOMDIR, storescu (DCMTK) and an Orthanc on the loopback, started here, for the same pixels
after a way through an archive. Identities left are counted as in ``leaks.py``. Then text is drawn
into synthetic radiographs and into real ones, and read. What is not installed is named and left
out. Exit status 1 where a target is missed. Not a part of ``make bench``: some minutes.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom

from bonelib import deidentify, dicom, phantom
from bonelib.dicom import burnt_in

# What storescu calls the transfer syntaxes that it does not propose by itself.
PROPOSE = {
    "1.2.840.10008.1.2.4.50": "-xy", "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs", "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu", "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw", "1.2.840.10008.1.2.5": "-xr",
}  # fmt: skip
FOUND, FLAGGED = 0.95, 0.02  # least share of planted lines, most of clean radiographs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = Path(os.environ.get("BONELIB_DATA", "."))
    folders = [p for p in (data / "dicom-radiographs", data.parent / "cases") if p.is_dir()]
    parser.add_argument("--folders", type=Path, nargs="*", default=folders)
    parser.add_argument("--drawn", type=int, default=200, help="synthetic files (200)")
    parser.add_argument("--seed", type=int, default=15, help="of the lines (15)")
    parser.add_argument("--text", type=int, default=200, help="lines to draw and read (200)")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    rows: list[tuple] = []
    if asked.folders or asked.drawn:
        with tempfile.TemporaryDirectory() as scratch:
            rows += exchange(asked.folders, asked.drawn, Path(scratch))
    if asked.text:
        rows += text(asked.text, data, asked.seed)
    table = pd.DataFrame(rows, columns=["what", "measured", "target", "met"])
    print(table.to_string(index=False, float_format="{:.3f}".format))
    return 0 if table["met"].ne("no").all() else 1


def judged(what: str, measured: object, target: str, met: bool) -> tuple:
    return what, measured, target, "yes" if met else "no"


# ---------------------------------------------------------------------- copies and other software
def exchange(folders: list[Path], drawn: int, scratch: Path) -> list[tuple]:
    """Copy, and ask each program; one ledger serves all folders."""
    if drawn:
        phantom.write(scratch / "drawn", images=drawn, size=128, seed=14)
        folders = [*folders, phantom.write_dicom(scratch / "drawn", scratch / "export")]
    pairs, refused, rows = [], [], []
    for number, folder in enumerate(folders):
        out = scratch / "copies" / f"F{number}"
        done = deidentify.radiographs(folder, out, ledger=scratch / "ledger")
        for row in done.files.to_dict("records"):
            if row["status"] == "refused":
                refused.append(row["reason"])
            else:
                pairs.append((folder / row["file"], out / row["output"]))
    counts = pd.Series(refused, dtype=str).str.slice(0, 70).value_counts()
    print(f"{len(pairs)} copies; left out:", *(f"\n  {n} {reason}" for reason, n in counts.items()))
    leaks = []
    for original, copy in pairs:
        header = pydicom.dcmread(original, stop_before_pixels=True, force=True)
        made = copy.read_bytes()
        shown = made.rfind(pydicom.dcmread(copy).PixelData)
        window = {f"{v:g}" for k in ("WindowWidth", "WindowCenter") for v in [header.get(k)] if v}
        made = re.sub(
            rb"(?i)anonymous\^", b"", made[:shown]
        )  # our own word, and some patient's name
        for number in window:  # a number of the picture may be a patient's as well
            made = made.replace(number.encode(), b"")
        leaks.append(deidentify.count_copy(header, made))
    table = deidentify.leak_table(pd.concat(leaks)).set_index("type").astype({"n": int})
    every = table.loc["ALL"]
    rows.append(
        judged(
            f"words of identities gone, of {every['n']}", every["recall"], "1", every["recall"] == 1
        )
    )
    if shutil.which("dciodvfy"):
        new = {copy: errors(copy) - errors(original) for original, copy in pairs}
        print(*sorted(set().union(*new.values())), sep="\n")
        count = sum(map(bool, new.values()))
        rows.append(judged("copies with an error new to dciodvfy", count, "0", count == 0))
    else:
        rows.append(("copies with an error new to dciodvfy", "not installed", "0", "-"))
    rows += file_sets(pairs, scratch)
    rows += archive(pairs, scratch)
    return rows


def errors(path: Path) -> set[str]:
    """Return the errors that dciodvfy finds, without the values that they quote."""
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace")
    lines = (done.stdout + done.stderr).splitlines()
    return {line.partition(" <")[0] for line in lines if line.startswith("Error")}


def file_sets(pairs: list[tuple[Path, Path]], scratch: Path) -> list[tuple]:
    """Build a DICOMDIR with DCMTK and with pydicom; both must list all copies with a date."""
    from pydicom.fileset import FileSet

    headers = {copy: pydicom.dcmread(copy, stop_before_pixels=True) for _, copy in pairs}
    dated = {copy for copy, made in headers.items() if made.StudyDate and made.StudyTime}
    unique = {headers[copy].SOPInstanceUID: copy for copy in sorted(dated)}
    rows, listing = [], FileSet()
    for copy in unique.values():
        listing.add(copy)
    listing.write(scratch / "fileset")
    count = len(FileSet(scratch / "fileset" / "DICOMDIR"))
    what = f"listed by pydicom's FileSet, of {len(unique)} instances with a date"
    rows.append(judged(what, count, "all", count == len(unique)))
    what, root = f"listed by dcmmkdir, of {len(pairs)} copies", scratch / "copies"
    if not shutil.which("dcmmkdir"):
        return [*rows, (what, "not installed", "all", "-")]
    names = [copy.relative_to(root).as_posix() for copy in sorted(headers)]
    strict = ["dcmmkdir", "--no-xfer-check", "+D", root / "DICOMDIR", "+id", root]
    for invent in ([], ["--invent"]) if len(dated) < len(pairs) else ([],):
        chosen = [n for n in names if invent or root / n in dated]
        done = subprocess.run([*strict, *invent, *chosen], capture_output=True, text=True)
        print(*sorted(set((done.stdout + done.stderr).splitlines()))[:9], sep="\n")
        records = pydicom.dcmread(root / "DICOMDIR").DirectoryRecordSequence
        count = sum(record.DirectoryRecordType == "IMAGE" for record in records)
        told = f"listed by dcmmkdir {' '.join(invent)}, of {len(chosen)} copies"
        rows.append(judged(told, count, "all", count == len(chosen)))
        (root / "DICOMDIR").unlink()
    return rows


def archive(pairs: list[tuple[Path, Path]], scratch: Path) -> list[tuple]:
    """Send the copies to an Orthanc and fetch them: the same pixels as in the originals."""
    what = f"same pixels from Orthanc, of {len(pairs)} copies"
    missing = [name for name in ("storescu", "Orthanc") if not shutil.which(name)]
    if missing:
        return [(what, f"{' and '.join(missing)} not installed", "all", "-")]
    groups: dict[str, list[Path]] = {}
    for _, copy in pairs:
        syntax = str(pydicom.dcmread(copy, stop_before_pixels=True).file_meta.TransferSyntaxUID)
        groups.setdefault(PROPOSE.get(syntax, ""), []).append(copy)
    with orthanc(scratch / "orthanc") as (port, address):
        for option, copies in groups.items():
            command = [
                "storescu",
                *filter(None, [option]),
                "-aec",
                "ORTHANC",
                "127.0.0.1",
                str(port),
            ]
            done = subprocess.run([*command, *copies], capture_output=True, text=True)
            if done.returncode:
                print(done.stdout[-500:], done.stderr[-500:])
        back = {}
        for name in json.loads(fetched(f"{address}/instances")):
            content = fetched(f"{address}/instances/{name}/file")
            uid = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content)).SOPInstanceUID
            back[uid] = content
    same = 0
    for original, copy in pairs:
        content = back.get(pydicom.dcmread(copy, stop_before_pixels=True).SOPInstanceUID)
        same += content is not None and np.array_equal(
            dicom.read(content)[0], dicom.read(original)[0]
        )
    return [judged(what, same, "all", same == len(pairs))]


@contextlib.contextmanager
def orthanc(folder: Path) -> Iterator[tuple[int, str]]:
    """Run an Orthanc on free ports of the loopback; give its DICOM port and its address."""
    folder.mkdir()
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0)), other.bind(("127.0.0.1", 0))
        port, web = one.getsockname()[1], other.getsockname()[1]
    settings = {
        "Name": "bonelib", "DicomAet": "ORTHANC", "DicomPort": port, "HttpPort": web,
        "StorageDirectory": str(folder), "IndexDirectory": str(folder), "Plugins": [],
        "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "OverwriteInstances": True, "DicomAlwaysAllowStore": True,
    }  # fmt: skip
    file = folder / "orthanc.json"
    file.write_text(json.dumps(settings), encoding="utf-8")
    address = f"http://127.0.0.1:{web}"
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["Orthanc", file], stdout=log, stderr=log)
        try:
            for _ in range(120):
                with contextlib.suppress(OSError):
                    fetched(f"{address}/system")
                    break
                time.sleep(0.5)
            yield port, address
        finally:
            server.terminate()
            server.wait(30)


def fetched(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return answer.read()


# ---------------------------------------------------------------------- text in pictures
def text(count: int, data: Path, seed: int) -> list[tuple]:
    """Draw lines that name invented people into clean pictures and read them."""
    try:
        read = burnt_in.reader(threads=1)
    except ImportError as error:
        return [("planted lines found by the reader", str(error)[:60], f">= {FOUND}", "-")]
    rng = np.random.default_rng(seed)
    planted = lines(count, rng, seed)
    backgrounds = clean(data, rng, max(count, 100))
    marked = [mark(film.copy(), rng) for film in backgrounds]
    started = time.process_time()
    flagged = [burnt_in.personal(read(film).splitlines()) for film in marked]
    seconds = (time.process_time() - started) / len(marked)
    print(*sorted({line for some in flagged for line in some}), sep="\n")
    found = estimated = 0
    for number, line in enumerate(planted):
        film = drawn(marked[number % len(marked)].copy(), line, rng)
        got = burnt_in.personal(read(film).splitlines())
        found += bool(got)
        if not got:
            print("not found:", line, film.shape, read(film).splitlines())
        estimated += burnt_in.characters(film)[0] >= burnt_in.LIMIT
    share, false = found / len(planted), np.mean([bool(some) for some in flagged])
    rule = sum(burnt_in.characters(film)[0] >= burnt_in.LIMIT for film in marked) / len(marked)
    return [
        judged(f"planted lines found, of {len(planted)}", share, f">= {FOUND}", share >= FOUND),
        judged(
            f"clean pictures flagged, of {len(marked)}", false, f"<= {FLAGGED}", false <= FLAGGED
        ),
        ("the published rule alone: planted lines found", estimated / len(planted), "-", "-"),
        ("the published rule alone: clean pictures flagged", rule, "-", "-"),
        ("seconds of one CPU to read a picture", seconds, "-", "-"),
    ]


def lines(count: int, rng: np.random.Generator, seed: int) -> list[str]:
    """Invent lines as strips on radiographs have them: names, dates, numbers, with accents."""
    from faker import Faker

    fakers = [Faker(locale) for locale in ("fr_FR", "en_GB", "de_DE", "es_ES", "sv_SE", "pl_PL")]
    made = []
    for number in range(count):
        one = fakers[number % len(fakers)]
        one.seed_instance(1000 * seed + number)
        day, family, given = one.date_of_birth(), one.last_name(), one.first_name()
        made.append(
            (
                f"{family.upper()}, {given}",
                f"{given} {family}",
                f"{family.upper()}^{given.upper()} {day:%d.%m.%Y}",
                f"{day:%d/%m/%Y}",
                f"{day:%Y-%m-%d}",
                f"{day:%d %b %Y}",
                f"ID {rng.integers(10**6, 10**9)}",
                f"{family} {day:%d.%m.%y}",
            )[number % 8]
        )
    return made


def clean(data: Path, rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Give pictures without text: synthetic ones, and real knees and hands where there are any."""
    with tempfile.TemporaryDirectory() as folder:
        root = phantom.write(
            Path(folder) / "drawn", images=count // 2, size=1024, seed=int(rng.integers(10**6))
        )
        films = [cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in sorted(root.glob("images/*"))]
    real = sorted((data / "digital-knee-xray").rglob("*.png"))
    chosen = rng.permutation(len(real))[: count - len(films)]
    return films + [cv2.imread(str(real[i]), cv2.IMREAD_GRAYSCALE) for i in chosen]


def mark(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Set a mark of side or view into a corner, as on most radiographs."""
    word = ("R", "L", "R  AP", "L LAT", "RIGHT", "R SRM", "STANDING")[rng.integers(7)]
    return drawn(film, word, rng, sizes=(0.03, 0.06))


def drawn(
    film: np.ndarray, line: str, rng: np.random.Generator, sizes: tuple = (0.018, 0.045)
) -> np.ndarray:
    """Draw a line in white or black at a place where it fits, not under 14 pixels high."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = fonts / ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf")[rng.integers(3)]
    picture, tall = Image.fromarray(film), max(14, int(rng.uniform(*sizes) * film.shape[0]))
    while True:
        letters = ImageFont.truetype(str(font), tall)
        left, top, right, bottom = ImageDraw.Draw(picture).textbbox((0, 0), line, font=letters)
        if right < picture.width - 8 or tall <= 8:
            break
        tall -= 1
    place = [
        rng.integers(4, max(5, s - 4 - e))
        for s, e in zip(picture.size, (right, bottom), strict=True)
    ]
    below = np.asarray(picture)[place[1] : place[1] + bottom, place[0] : place[0] + right]
    grey = 255 if below.mean() < 128 else 0
    ImageDraw.Draw(picture).text(place, line, fill=grey, font=letters)
    return np.asarray(picture)


if __name__ == "__main__":
    sys.exit(main())
