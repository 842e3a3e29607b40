"""Protects ``bonelib doctor``: each trouble of a machine has its line and its cure."""

import collections
import errno
import fcntl
import importlib.util
import json
import locale
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import pytest

from bonelib import runs
from bonelib.__main__ import main
from bonelib.commands import doctor
from bonelib.headless.kernel import PROCESS_ENVIRONMENT
from bonelib.runs import machine

GB = 2**30


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    for name in ("RUNS", "CACHE", "FIGURES"):
        monkeypatch.setenv(f"BONELIB_{name}", str(tmp_path / name.lower()))
    monkeypatch.delenv("BONELIB_DATA", raising=False)
    return tmp_path


@pytest.fixture
def look(monkeypatch, capsys):
    """Run one check of the doctor; give its lines (state, what, the rest), cures and exit code."""

    def run(check, *, code=0):
        monkeypatch.setattr(doctor, "CHECKS", (getattr(doctor, check),))
        assert main(["doctor"]) == code
        *lines, last = capsys.readouterr().out.splitlines()
        found = collections.defaultdict(str)
        for line in lines:
            if not line.startswith(" "):
                state, what, text = line.split(maxsplit=2)
            found[state] += f"{what}: {text}\n" if line[0] != " " else f"{line.strip()}\n"
        problems = sum(line.startswith("problem") for line in lines)
        assert last.startswith(f"{problems} problems")
        assert (code == 1) == bool(problems)
        return found

    return run


def test_a_machine_on_which_the_tests_run_has_no_problem(capsys):
    code = main(["doctor"])
    said = capsys.readouterr().out
    assert code == 0, said
    for what in ("packages", "lock", "runs", "locks", "data", "locale", "Slurm", "Jupyter"):
        assert f" {what} " in said
    for what in ("codecs", "GPU", "threads", "weights"):
        assert f" {what} " in said
    lines = said.splitlines()
    for line, following in zip(lines, lines[1:], strict=False):
        assert line.startswith("note") == following.lstrip().startswith("→"), "cures, where needed"


# ---------------------------------------------------------------------- packages
def installed(monkeypatch, **versions):
    """Let some packages have another version, or none."""
    Package = collections.namedtuple("Package", "name version")
    there = {one.name: one.version for one in metadata.distributions()} | versions
    some = [Package(name, version) for name, version in there.items() if version]
    monkeypatch.setattr(metadata, "distributions", lambda: some)


@pytest.mark.parametrize("version", ["2.4.4", ""])
def test_a_package_that_is_too_old_or_missing_is_a_problem(look, monkeypatch, version):
    installed(monkeypatch, pydicom=version)
    found = look("_packages", code=1)["problem"]
    assert f"pydicom>=3.0 ({version or 'missing'})" in found
    assert "→ pip install -c requirements.lock -e '.[dev]'" in found


def test_versions_that_are_not_locked_and_extras_that_are_not_here_are_notes(look, monkeypatch):
    installed(monkeypatch, pydicom="3.99", submitit="", torch="2.14.1+cu130")
    found = look("_packages")["note"]
    assert "1 not as locked pydicom 3.99 (locked: 3.0.2)" in found  # cu130 is the same version
    assert "slurm" in found.split("not here: ")[1] and "-e '.[" in found


def test_an_old_python_is_a_problem(look, monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.10.4")
    assert "python>=3.11 (3.10.4)" in look("_packages", code=1)["problem"]


def test_a_package_that_can_not_be_loaded_is_a_line_and_no_traceback(look, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    found = look("_gpu", code=1)["problem"]
    assert "gpu: ModuleNotFoundError" in found and "→ pip install" in found


# ---------------------------------------------------------------------- folders, disks, locks
def test_a_folder_that_can_not_be_made_is_a_problem(look, monkeypatch, place):
    (place / "file").write_text("")
    monkeypatch.setenv("BONELIB_CACHE", str(place / "file" / "cache"))
    found = look("_folders", code=1)
    assert "cache: " in found["problem"] and "set BONELIB_CACHE" in found["problem"]
    assert "runs: " in found["ok"] and "figures: " in found["ok"]


def test_a_folder_that_can_only_be_read_is_a_problem(look, monkeypatch, place):
    whole = tempfile.TemporaryFile

    def refuse(dir):
        if dir == place / "runs":
            raise OSError(errno.EROFS, "Read-only file system")
        return whole(dir=dir)

    (place / "runs").mkdir()
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    found = look("_folders", code=1)["problem"]
    assert f"{place / 'runs'} can't be written: Read-only" in found and "set BONELIB_RUNS" in found


@pytest.mark.parametrize(("free", "state"), [(0.2, "problem"), (5, "note"), (50, "ok")])
def test_a_full_disk_is_told(look, monkeypatch, free, state):
    usage = collections.namedtuple("Usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(int(free * GB)))
    found = look("_folders", code=int(state == "problem"))[state]
    assert f"{free:.0f} GB free" in found and ("make room" in found) == (state != "ok")


def test_a_file_system_without_locks_is_a_note(look, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    found = look("_folders")["note"]
    assert "locks: " in found and "ENOLCK" in found and "→ files stand for locks" in found


def test_locks_that_fail_otherwise_are_a_problem(look, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert "Input/output error" in look("_folders", code=1)["problem"]


# ---------------------------------------------------------------------- data
def test_no_folder_for_data_is_a_note_and_a_wrong_one_a_problem(look, monkeypatch, place):
    assert "BONELIB_DATA is not set" in look("_data")["note"]
    monkeypatch.setenv("BONELIB_DATA", str(place / "not there"))
    assert "not there\n→ make it" in look("_data", code=1)["problem"]


def test_a_part_of_a_set_is_a_note(look, monkeypatch, place):
    monkeypatch.setenv("BONELIB_DATA", str(place))
    assert "no known set" in look("_data")["note"]
    for name in ("btxrd", "digital-knee-xray"):
        (place / name / "images").mkdir(parents=True)
        (place / name / "images" / "a.png").write_bytes(b"")
    found = look("_data")
    assert "btxrd: 1 of 3,746 images" in found["note"] and "bonelib fetch btxrd" in found["note"]
    assert f"knee_kl: 1 images in {place / 'digital-knee-xray'}" in found["ok"]


def test_a_set_that_may_not_be_read_is_a_problem(look, monkeypatch, place):
    monkeypatch.setenv("BONELIB_DATA", str(place))
    (place / "btxrd" / "images").mkdir(parents=True)
    names = os.listdir

    def refuse(folder):
        if Path(folder).name == "images":
            raise PermissionError(errno.EACCES, "Permission denied")
        return names(folder)

    monkeypatch.setattr(os, "listdir", refuse)
    assert "→ ask for the right to read" in look("_data", code=1)["problem"]


# ---------------------------------------------------------------------- the machine
def test_another_locale_is_a_note(look, monkeypatch):
    monkeypatch.setattr(locale, "getencoding", lambda: "ISO-8859-1")
    found = look("_locale")["note"]
    assert "ISO-8859-1" in found and "export LC_ALL=C.UTF-8" in found


def test_more_threads_than_cores_are_a_note(look, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(machine, "threads", lambda: 16)
    found = look("_threads")["note"]
    assert "16 on 3 of" in found and "export OMP_NUM_THREADS=3" in found


def test_the_quota_of_a_control_group_counts(look, monkeypatch, place):
    (place / "group").write_text(f"0::/../../..{place}\n")
    (place / "cpu.max").write_text("150000 100000\n")
    monkeypatch.setattr(doctor, "GROUP", place / "group")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(machine, "threads", lambda: 2)
    assert "2 on 1.5 of" in look("_threads")["note"]
    (place / "cpu.max").write_text("max 100000\n")
    assert "2 on 3 of" in look("_threads")["ok"]


def test_settings_of_ones_own_are_told(look, monkeypatch):
    for name, value in PROCESS_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert "spinning" in look("_threads")["ok"]
    monkeypatch.setenv("GOMP_SPINCOUNT", "infinity")
    found = look("_threads")["note"]
    assert "GOMP_SPINCOUNT=infinity" in found and "unset GOMP_SPINCOUNT" in found


def test_a_driver_without_a_gpu_for_torch_is_a_problem(look, monkeypatch, place):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (place / "driver").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  …")
    monkeypatch.setattr(doctor, "DRIVER", place / "driver")
    found = look("_gpu", code=1)["problem"]
    assert "driver 535.183.01 is there" in found and "ask the batch system" in found
    monkeypatch.setattr(doctor, "DRIVER", place / "none")
    assert "GPU: none" in look("_gpu")["note"]


def test_a_gpu_is_named(look, monkeypatch, place):
    torch = pytest.importorskip("torch")
    facts = collections.namedtuple("Facts", "name total_memory")("NVIDIA X1", 80 * GB)
    for name, value in (
        ("is_available", True),
        ("device_count", 2),
        ("get_device_properties", facts),
        ("is_bf16_supported", True),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    found = look("_gpu")["ok"]
    assert found.count("NVIDIA X1, 80 GB, bf16, CUDA") == 2


# ---------------------------------------------------------------------- codecs and weights
def test_a_decoder_that_is_missing_is_a_note_with_its_package(look, monkeypatch):
    from pydicom import pixels

    whole = pixels.get_decoder

    def without(uid):
        lossless = uid == "1.2.840.10008.1.2.4.70"
        return collections.namedtuple("None_", "available_plugins")(()) if lossless else whole(uid)

    assert "12 of 12" in look("_codecs")["ok"]
    monkeypatch.setattr(pixels, "get_decoder", without)
    found = look("_codecs")["note"]
    assert "11 of 12" in found and "not JPEG lossless" in found and "lock python-gdcm" in found
    find = importlib.util.find_spec
    missing = lambda name, *more: None if name == "imagecodecs" else find(name, *more)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", missing)
    assert "JPEG of 12 bits" in look("_codecs")["note"]


def test_weights_that_are_missing_or_others_are_told(look, monkeypatch, place):
    from bonelib.encoders import texts, timm_towers

    package, file, _ = texts.PACKAGED_TEXT["minilm"]
    monkeypatch.setattr(timm_towers, "PACKAGED_IMAGE", {"none": ("", ("no_package", "a", "b"))})
    monkeypatch.setattr(texts, "PACKAGED_TEXT", {"minilm": (package, "config.json", "0" * 64)})
    here = place / "cache" / "weights" / "timm-x"
    here.mkdir(parents=True)
    (here / "a.pth").write_text("other")
    (here / "sha256.json").write_text(json.dumps({"a.pth": "1" * 64}))
    found = look("_weights", code=1)
    assert "The package no-package is not installed" in found["note"]
    assert "minilm: config.json" in found["problem"] and "Reinstall" in found["problem"]
    assert "timm-x: " in found["problem"] and "Fetch it again" in found["problem"]


# ---------------------------------------------------------------------- programs
def scripts(monkeypatch, place, **texts):
    """Put shell scripts before all else, and hide Slurm's own."""
    for name, text in texts.items():
        (place / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(place))


def test_slurm_is_told_with_its_partitions(look, monkeypatch, place):
    assert "Slurm: none" in (scripts(monkeypatch, place), look("_programs")["note"])[1]
    scripts(monkeypatch, place, sbatch="echo slurm-wlm 22.05.8", sinfo="echo 'cpu*'; echo gpu")
    assert "slurm-wlm 22.05.8, partitions cpu*, gpu" in look("_programs")["ok"]
    scripts(monkeypatch, place, sinfo="echo 'no controller' >&2; exit 1")
    found = look("_programs")["note"]
    assert "sinfo is there and gives no answer" in found and "slurmctld" in found
    monkeypatch.setattr(doctor, "SECONDS", 0.2)
    scripts(monkeypatch, place, sinfo="exec /bin/sleep 30")
    assert "sinfo is there and gives no answer" in look("_programs")["note"]


def test_a_kernel_of_another_python_is_a_problem(look, monkeypatch, place):
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

    other = KernelSpec(argv=["/opt/other/bin/python", "-m", "ipykernel_launcher"])
    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", lambda *_: other)
    found = look("_programs", code=1)["problem"]
    assert "starts /opt/other/bin/python" in found and "-m ipykernel install" in found
    own = KernelSpec(argv=[os.path.join(sys.prefix, "bin", "python3")])
    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", lambda *_: own)
    assert "Jupyter" in look("_programs")["ok"]


def test_it_starts_without_loading_what_is_heavy():
    code = "import sys; from bonelib import __main__; print({*sys.modules} & {'torch', 'pandas'})"
    words = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(runs.ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "set()", done.stderr
