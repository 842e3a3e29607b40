"""Look at this machine: what bonelib needs of it, what is there, and what to do about the rest."""

import contextlib
import errno
import fcntl
import importlib.util
import locale
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from bonelib.commands.printing import say

Lines = Iterator[tuple[str, str, str, str]]  # state, what, what was found, its cure if it needs one
OK, NOTE, PROBLEM = "ok", "note", "problem"
LOW, FULL = 10, 1  # GB free: the full profile fills some, nothing works in less
SECONDS = 5  # that another program may take to answer
DRIVER, GROUP = Path("/proc/driver/nvidia/version"), Path("/proc/self/cgroup")
INSTALL = "pip install -c requirements.lock"
PARTS = "reports dicom ocr onnx trees weights slurm search".split()  # extras that users may want


def doctor() -> int:
    """Print a line for each thing and what to do about it; exit code 1 if there is a problem."""
    states = []
    for check in CHECKS:
        try:
            lines = [*check()]
        except (ImportError, OSError) as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            lines = [(PROBLEM, check.__name__[1:], said, f"{INSTALL} -e '.[dev]'")]
        for state, what, found, cure in lines:
            say(f"{state:<8} {what:<9} {found}")
            if state != OK:
                say(f"{'':<18} → {cure}")
            states.append(state)
    say(f"{states.count(PROBLEM)} problems, {states.count(NOTE)} notes")
    return int(PROBLEM in states)


def _packages() -> Lines:
    """Hold what is installed against what bonelib needs, and against the lock."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name as canonical
    from packaging.version import Version

    from bonelib.runs import ROOT

    there = {canonical(one.name): one.version for one in metadata.distributions()}
    there["python"] = platform.python_version()
    needs = [Requirement(text) for text in metadata.requires("bonelib") or ()]
    needs.append(Requirement(f"python{metadata.metadata('bonelib')['Requires-Python']}"))

    def lacking(extra: str) -> str:
        asked = [one for one in needs if not extra or one.marker]
        asked = [one for one in asked if not one.marker or one.marker.evaluate({"extra": extra})]
        pairs = [(one, there.get(canonical(one.name))) for one in asked]
        fits = [v and one.specifier.contains(v, prereleases=True) for one, v in pairs]
        wrong = [pair for pair, fit in zip(pairs, fits, strict=True) if not fit]
        return ", ".join(f"{one.name}{one.specifier} ({v or 'missing'})" for one, v in wrong)

    wrong = lacking("")
    found = f"needed: {wrong}" if wrong else f"Python {there['python']} in {sys.prefix}"
    yield PROBLEM if wrong else OK, "packages", found, f"{INSTALL} -e '.[dev]'"
    lock = ROOT / "requirements.lock"
    text = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    locked = re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)
    pairs = [(name, v, there.get(canonical(name), v)) for name, v in locked]
    others = [f"{name} {v} (locked: {own})" for name, own, v in pairs if Version(v).public != own]
    found = f"{len(others)} not as locked {', '.join(others[:3])}" if others else "as locked"
    cure = f"for the last digits of published numbers: {INSTALL} -e '.[dev]'"
    yield NOTE if others else OK, "lock", found, cure
    missing = ",".join(part for part in PARTS if lacking(part))
    cure = f"those that you want: {INSTALL} -e '.[{missing}]'"
    yield NOTE if missing else OK, "extras", f"not here: {missing or 'none'}", cure


def _folders() -> Lines:
    """Look whether folders can be written, how much room there is, and whether locks work."""
    from bonelib import runs
    from bonelib.runs import locks

    places = (runs.folder(), runs.cache_folder(""), runs.figures_folder(""))
    for what, folder in zip(("runs", "cache", "figures"), places, strict=True):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        cure, lock = f"set BONELIB_{what.upper()} to a folder with room that can be written", ""
        try:
            with tempfile.TemporaryFile(dir=there) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in locks.UNKNOWN:
                yield PROBLEM, what, f"{folder} can't be written: {error.strerror}", cure
                continue
            lock = f"the file system of the runs has none ({errno.errorcode[error.errno]})"
        free = shutil.disk_usage(there).free / 2**30
        state = PROBLEM if free < FULL else NOTE if free < LOW else OK
        yield state, what, f"{folder}, {free:.0f} GB free", f"make room, or {cure}"
        if what == "runs":
            cure = "files stand for locks; after a kill elsewhere delete the one a message names"
            yield NOTE if lock else OK, "locks", lock or "flock works", cure


def _data() -> Lines:
    from bonelib import runs
    from bonelib.datasets import fetching

    above, sets = os.environ.get("BONELIB_DATA", ""), 0
    if above and not Path(above).is_dir():
        yield PROBLEM, "data", f"BONELIB_DATA: no folder {above}", "make it, or set another"
    for name, source in fetching.sources().items() if above else ():
        with contextlib.suppress(FileNotFoundError):
            folder, sets, notes = runs.data_root(name), sets + 1, []
            number = fetching.images(folder, notes)
            shut = "".join(note for note in notes if "may not be read" in note)
            state = PROBLEM if shut else NOTE if number < source.images else OK
            expected = f" of {source.images:,}" if source.images else ""
            cure = f"a part of the set: move it away, then bonelib fetch {name}"
            found = f"{name}: {number:,}{expected} images in {folder} {shut}".strip()
            yield state, "data", found, "ask for the right to read" if shut else cure
    if not sets:
        found = f"no known set in {above}" if above else "BONELIB_DATA is not set"
        cure = "the synthetic cohort needs none; others: export BONELIB_DATA=…, bonelib fetch NAME"
        yield NOTE, "data", found, cure


def _locale() -> Lines:
    encoding = locale.getencoding()  # of the locale, whatever mode Python is in
    cure = "export LC_ALL=C.UTF-8: bonelib speaks UTF-8 all the same, JupyterLab may not"
    yield OK if encoding.lower() in ("utf-8", "utf8") else NOTE, "locale", encoding, cure


def _programs() -> Lines:
    """Look for Slurm and the kernel of the notebooks."""
    from jupyter_client.kernelspec import KernelSpecManager

    try:
        options = dict(capture_output=True, text=True, timeout=SECONDS, check=True)
        version = subprocess.run(["sbatch", "--version"], **options).stdout.strip()
        parts = subprocess.run(["sinfo", "--noheader", "--format=%P"], **options).stdout.split()
        yield OK, "Slurm", f"{version}, partitions {', '.join(parts)}", ""
    except FileNotFoundError:
        yield NOTE, "Slurm", "none", "bonelib submit works where sbatch is"
    except subprocess.SubprocessError as error:
        cure = "is this a node that may submit, and does slurmctld run there?"
        yield NOTE, "Slurm", f"{error.cmd[0]} is there and gives no answer", cure
    starts = KernelSpecManager().get_kernel_spec("python3").argv[0]
    own = re.fullmatch(r"python[\d.]*", starts) or Path(starts).parent == Path(sys.prefix, "bin")
    found = f"JupyterLab {metadata.version('jupyterlab')}, its kernel python3 starts {starts}"
    cure = f"{sys.executable} -m ipykernel install --sys-prefix"
    yield OK if own else PROBLEM, "Jupyter", found, cure


def _codecs() -> Lines:
    """Count the compressed pictures of DICOM files that can be decoded."""
    from pydicom.pixels import get_decoder

    from bonelib.dicom import frames

    packed = {uid: row for uid, row in frames.syntaxes().items() if not row["order"]}
    closed = [row for uid, row in packed.items() if not get_decoder(uid).available_plugins]
    found = f"{len(packed) - len(closed)} of {len(packed)} compressed transfer syntaxes"
    if importlib.util.find_spec("imagecodecs") is None:
        closed.append({"kind": "JPEG of 12 bits", "package": "imagecodecs"})
    kinds, packages = (sorted({row[key] for row in closed}) for key in ("kind", "package"))
    found += f"; not {', '.join(kinds)}" if closed else " and JPEG of 12 bits"
    cure = f"for a DICOM export: {INSTALL} {' '.join(packages)}"
    yield NOTE if closed else OK, "codecs", found, cure


def _gpu() -> Lines:
    import torch

    text = DRIVER.read_text(encoding="utf-8") if DRIVER.exists() else ""
    driver, cuda = re.search(r"\b\d{3}\.[\d.]+|$", text)[0], torch.version.cuda
    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for facts in map(torch.cuda.get_device_properties, range(number)):
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        found = f"{facts.name}, {facts.total_memory / 2**30:.0f} GB, {bf16}, CUDA {cuda}"
        yield OK, "GPU", f"{found}, driver {driver}", ""
    if text and not number:
        found = f"driver {driver} is there, but torch (CUDA: {cuda}) sees no GPU"
        cure = "ask the batch system for one (--gpus 1), or install a torch for this driver"
        yield PROBLEM, "GPU", found, cure
    elif not number:
        fast = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
        found = f"none; the CPU has {'' if fast else 'no '}avx512_bf16"
        yield NOTE, "GPU", found, "tiny and demo are made for CPUs, full for a GPU"


def _threads() -> Lines:
    """Hold the threads that compute against the cores that this process may use."""
    from bonelib.headless.kernel import PROCESS_ENVIRONMENT
    from bonelib.runs import machine

    cores, threads = float(len(os.sched_getaffinity(0))), machine.threads()
    group = GROUP.read_text(encoding="utf-8").partition("0::")[2].strip()
    quota = Path(f"/sys/fs/cgroup{group}/cpu.max")  # of control groups, version 2
    if quota.is_file() and not (text := quota.read_text(encoding="utf-8")).startswith("max"):
        cores = min(cores, int(text.split()[0]) / int(text.split()[1]))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = f"{threads} on {cores:g} of {os.cpu_count()} cores, {memory:.0f} GB memory"
    cure = f"more threads than cores slow all down: export OMP_NUM_THREADS={max(1, int(cores))}"
    yield NOTE if threads > cores else OK, "threads", found, cure
    own = [k for k, v in PROCESS_ENVIRONMENT.items() if os.environ.get(k, v) != v]
    found = ", ".join(f"{k}={os.environ[k]}" for k in own) or "kernels get what was measured best"
    cure = f"unset {' '.join(own)}, to get what was measured best"
    yield NOTE if own else OK, "spinning", found, cure


def _weights() -> Lines:
    """Check the weights that come in packages, and those that were fetched."""
    from bonelib import runs
    from bonelib.encoders import WeightsNotAvailable, fetched, packaged_file, texts, timm_towers

    packaged = {name: one for name, (_, one) in timm_towers.PACKAGED_IMAGE.items()}
    checks = [(name, packaged_file, one) for name, one in (packaged | texts.PACKAGED_TEXT).items()]
    records = sorted(runs.cache_folder("weights").glob(f"*/{fetched.RECORD}"))
    checks += [(file.parent.name, fetched.check, (file.parent,)) for file in records]
    there = []
    for name, check, given in checks:
        try:
            check(*given)
            there.append(name)
        except WeightsNotAvailable as error:
            found, _, cure = str(error).partition(". ")
            state = NOTE if "not installed" in found else PROBLEM  # what is needed: see packages
            yield state, "weights", f"{name}: {found}", cure
    yield OK, "weights", f"{', '.join(there) or 'none'}: sha256 as it should be", ""


# What takes long comes last.
CHECKS = (_packages, _folders, _data, _locale, _programs, _codecs, _gpu, _threads, _weights)
