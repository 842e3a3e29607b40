"""Protects many runs at once: sweeps, jobs in parallel, what is listed, what a kill leaves."""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

import psutil
import pytest
import test_headless
from test_headless import finish, place, write

from bonelib import headless, runs
from bonelib.__main__ import main
from bonelib.commands import listings
from bonelib.headless import execute, jobs, kernel
from bonelib.runs import locks

folder = test_headless.folder  # the fixture: notebooks and runs of their own


# ---------------------------------------------------------------------- sweeps
def test_a_sweep_is_all_combinations_with_values_that_hold_commas():
    assert headless.sweep([]) == [{}]
    found = headless.sweep(["SEED=0,1,2", "VARIANT=a,b"])
    assert [(one["SEED"], one["VARIANT"]) for one in found] == [
        (seed, variant) for seed in "012" for variant in "ab"
    ]
    found = headless.sweep(["STRATEGIES=[full, lora],probe", "VARIANT={STRATEGIES}-v"])
    assert found == [
        {"STRATEGIES": "full, lora", "VARIANT": "full-lora-v"},
        {"STRATEGIES": "probe", "VARIANT": "probe-v"},
    ]
    found = headless.sweep(["CUTS=[[1, 2]],[[3]]", "VARIANT=c{CUTS}", "FROM=[data:a,reports:b]"])
    assert [one["CUTS"] for one in found] == ["[1, 2]", "[3]"]
    assert {one["FROM"] for one in found} == {"data:a,reports:b"}
    (found,) = headless.sweep(["VARIANT=v{SEED}", "SEED=3", "FROM=[data:a,pretraining:{VARIANT}]"])
    assert found["FROM"] == "data:a,pretraining:v3"
    assert headless.sweep(["X=a[0],b[1,2]", "VARIANT={X}"])[1] == {
        "X": "b[1,2]",
        "VARIANT": "b-1-2-",
    }


def test_all_problems_of_a_sweep_are_listed_at_once():
    with pytest.raises(ValueError) as refused:
        headless.sweep(["SEED=0,0", "SEED=1", "EPOCHS", "TASK=,a", "VARIANT={RECIPE}", "X=[1"])
    text = str(refused.value)
    assert "6 problem(s)" in text and "'EPOCHS' is no NAME=value" in text
    assert "SEED: '0' stands twice" in text and "SEED stands twice" in text
    assert "a value is empty" in text and "{RECIPE} is no parameter" in text and "bracket" in text


def test_combinations_that_would_share_a_run_folder_are_refused_with_the_cure():
    for typed in (["EPOCHS=2,4"], ["EPOCHS=2,4", "SEED=0,1"], ["EPOCHS=2,4", "VARIANT=a,b"]):
        with pytest.raises(ValueError, match=r"VARIANT=\{EPOCHS\}"):
            headless.sweep(typed)
    with pytest.raises(ValueError, match="share 1 run folder"):  # both are called a-b
        headless.sweep(["X=[a,b],a-b", "VARIANT={X}"])
    assert len(headless.sweep(["EPOCHS=2,4", "SEED=0,1", "VARIANT=e{EPOCHS}"])) == 4


# ---------------------------------------------------------------------- in which order
class Executed:
    """Stands for the kernels: notes who runs beside whom, and fails those it is told to."""

    def __init__(self, monkeypatch, failing=(), seconds=0.1):
        self.begun, self.beside, self.jobs, self.running = [], set(), set(), set()
        self.failing, self.seconds, self.lock = failing, seconds, threading.Lock()
        monkeypatch.setattr(jobs, "execute", self)
        monkeypatch.setattr(jobs, "_published", lambda step: [])
        monkeypatch.setattr(jobs, "reasons", lambda step: ["it is not there"])

    def __call__(self, step, report, *, jobs, stop):
        name = f"{step.number} {step.folder.name}"
        with self.lock:
            self.begun.append(name)
            self.jobs.add(jobs)
            self.running.add(name)
            self.beside |= {frozenset(self.running)}
        stop.wait(self.seconds)
        report("    a line")
        with self.lock:
            self.running.discard(name)
        failed = name in self.failing
        return "failed" if failed else "executed", {"error": "no" * failed, "seconds": 0.1}


def go(folder, calls, *, count=2, said=None):
    steps = headless.plan_all(calls, folder=folder)
    outcomes = headless.run_steps(steps, jobs=count, say=(said or []).append)
    return {f"{o.step.number} {o.step.folder.name}": o.status for o in outcomes}


def test_notebooks_run_beside_each_other_where_their_order_allows(folder, monkeypatch):
    for number in ("01", "02", "04", "05"):
        write(folder, number)
    done, said = Executed(monkeypatch), [""]
    assert set(go(folder, [((), "tiny", {})], said=said).values()) == {"executed"}
    order = [name[:2] for name in done.begun]
    assert order[0] == "01" and order[-1] == "05" and sorted(order[1:3]) == ["02", "04"]
    assert frozenset({"02 default-s0", "04 default-s0"}) in done.beside
    assert max(map(len, done.beside)) == 2 and done.jobs == {2}
    assert any(line.startswith("04_pretraining ") and line.endswith(" a line") for line in said)

    done = Executed(monkeypatch)
    go(folder, [((), "tiny", {})], count=1)
    assert max(map(len, done.beside)) == 1


def test_a_notebook_that_reads_what_is_there_comes_after_it(folder, monkeypatch):
    monkeypatch.setattr(runs, "READS", {"05": ("02",)})
    for number in ("01", "02", "05"):
        write(folder, number)
    finish("pretraining", inputs=[finish("data")])
    done = Executed(monkeypatch, failing=["02 default-s0"])
    found = go(folder, [(("02", "05"), "tiny", {})])
    assert done.begun == ["02 default-s0", "05 default-s0"]
    assert found["05 default-s0"] == "executed", "it does not need what it reads"


def test_a_sweep_makes_what_it_shares_once_and_a_failure_stops_what_needs_it(folder, monkeypatch):
    for number in ("01", "04", "05"):
        write(folder, number, extra='FROM: str = ""\n')
    base = {"FROM": "data:default,pretraining:default"}
    swept = headless.sweep(["SEED=0", "VARIANT=default,a,b"])
    calls = [(("01", "04", "05"), "tiny", base | one) for one in swept]
    calls += [(("05",), "tiny", {"VARIANT": "c", "FROM": "pretraining:a,data:default"})]
    done = Executed(monkeypatch, failing=["04 a-s0", "05 b-s0"])
    found = go(folder, calls)
    assert len(done.begun) == len(set(done.begun)) and done.begun.count("04 default-s0") == 1
    stopped = {name for name, status in found.items() if status == "stopped"}
    assert stopped == {"05 c-s0"}, "it alone reads what failed"
    assert found["05 a-s0"] == found["05 default-s0"] == "executed"
    with pytest.raises(ValueError, match="two runs would share .*X was 1 and is 2.*a VARIANT"):
        write(folder, "01", "print(X)", "run.finish()", extra="X: int = 0\n")
        headless.plan_all([(("01",), "tiny", {"X": x}) for x in (1, 2)], folder=folder)


def test_a_run_folder_that_another_process_has_is_waited_for_by_name(folder, monkeypatch):
    write(folder, "01")
    Executed(monkeypatch)
    free = locks.take(runs.paths.lock(place("data")))
    (state,) = headless.states(headless.plan(["01"], folder=folder))
    assert state.status == "running" and f"by process {os.getpid()} on" in state.why
    said = []

    def report(line):
        said.append(line)
        if "waits" in line:
            free()

    steps = headless.plan(["01"], folder=folder)
    (outcome,) = headless.run_steps(steps, jobs=1, say=report)
    assert outcome.status == "executed" and f"waits: process {os.getpid()}" in said[0]
    assert headless.states(steps)[0].status == "missing"


def test_a_folder_that_cannot_be_written_fails_alone(folder, monkeypatch):
    for number in ("01", "02"):
        write(folder, number)
    Executed(monkeypatch)
    take = locks.take

    def refuse(path, **given):
        if "baselines" in str(path):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return take(path, **given)

    monkeypatch.setattr(locks, "take", refuse)
    found = go(folder, [((), "tiny", {})])
    assert found == {"01 default-s0": "executed", "02 default-s0": "failed"}


def test_a_run_that_stands_again_is_no_failed_one_any_more(folder, monkeypatch):
    write(folder, "01"), Executed(monkeypatch)
    monkeypatch.setattr(jobs, "reasons", lambda step: [])
    failed = finish("data").path / runs.FAILED  # of a try with a notebook that is mended by now
    failed.write_text('{"error": "SyntaxError"}')
    assert go(folder, [((), "tiny", {})]) == {"01 default-s0": "reused"}
    assert not failed.exists() and not runs.failures("tiny")


def test_a_folder_without_notebooks_of_the_argument_is_said(folder):
    write(folder, "01").rename(folder / "10_own.ipynb")
    with pytest.raises(FileNotFoundError, match="No numbered notebooks"):
        headless.plan(folder=folder)


def test_sockets_lie_where_their_path_has_room(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/x")
    assert kernel.socket_root() == "/tmp/x"
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/" + 40 * "é")  # of 85 bytes
    assert kernel.socket_root() == "/tmp"


def test_an_interrupt_is_passed_on_when_all_have_ended_and_a_waiting_one_gives_up(
    folder, monkeypatch
):
    for number in ("01", "02", "04"):
        write(folder, number)
    finish("data")
    done = Executed(monkeypatch, seconds=60)
    free = locks.take(runs.paths.lock(place("pretraining")))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    said = []

    def report(line):
        said.append(line)
        if "waits" in line:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        steps = headless.plan(["02", "04"], folder=folder)
        headless.run_steps(steps, jobs=2, say=report)
    signal.signal(signal.SIGINT, before)
    free()
    assert done.begun == ["02 default-s0"] and not done.running


# ---------------------------------------------------------------------- shares, costs, lists
def test_jobs_share_the_cores_and_what_is_set_stands(monkeypatch):
    for name in kernel.THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert "OMP_NUM_THREADS" not in kernel.environment(1)
    assert kernel.environment(3)["OMP_NUM_THREADS"] == "2"
    assert kernel.environment(9)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert "OMP_NUM_THREADS" not in kernel.environment(2)


def test_a_record_keeps_what_it_took_and_older_records_are_read(folder):
    run = runs.start("data", profile="tiny", data="phantom")
    began = time.process_time()
    while time.process_time() - began < 0.3:
        pass
    record = run.finish()
    assert 0.3 <= record.head["cpu_seconds"] < 30 and record.head["memory_gb"] > 0.02
    assert record.head["gpu"] is None or record.head["gpu_memory_gb"] >= 0
    older = {k: v for k, v in record.head.items() if k not in runs.finding.COSTS}
    (record.path / "record.json").write_text(json.dumps(older))
    assert runs.Record(record.path).hash == record.hash
    assert runs.collect(profile="tiny").loc[0, "memory_gb"] is None
    write(folder, "01")
    (step,) = headless.plan(["01"], folder=folder)
    (line,) = listings.outcomes([headless.Outcome(step, "reused")])[1:]
    assert line.split()[:4] == ["01_data", "default", "0", "reused"] and line.split()[5] == "–"


def test_what_is_there_is_listed_and_nothing_is_started(folder, capsys, monkeypatch):
    for number in ("01", "02", "04", "05"):
        write(folder, number)
    data = finish("data")
    run = runs.start("pretraining", profile="tiny", data="phantom", inputs=[data])
    runs.save_plan(run)
    place("finetuning").mkdir(parents=True)
    (place("finetuning") / execute.COPY).write_text("{}")
    before = sorted(runs.folder().rglob("*"))

    def listed():
        steps = headless.plan_all([((), "tiny", {})], folder=folder, upstream=False)
        return {one.step.number: one for one in headless.states(steps)}

    found = listed()
    assert {n: one.status for n, one in found.items()} == {
        "01": "stale",
        "02": "missing",
        "04": "planned",
        "05": "failed",
    }
    assert found["01"].why == "it was not made by the runner" and found["01"].seconds is not None
    assert "torchrun" in found["04"].why and "its runner was killed" in found["05"].why
    (place("baselines")).mkdir(parents=True)
    facts = {"error": "cell In [2]: no", "when": "2026-01-01T00:00:00+00:00", "seconds": 3.0}
    (place("baselines") / runs.FAILED).write_text(json.dumps(facts | {"memory_gb": 1.5}))
    assert (listed()["02"].status, listed()["02"].why) == ("failed", "cell In [2]: no")
    (place("baselines") / runs.FAILED).write_text('{"when": "2026"}')  # edited by hand
    assert (listed()["02"].status, listed()["02"].why) == ("failed", "unknown")
    (place("baselines") / runs.FAILED).write_text(json.dumps(facts | {"memory_gb": 1.5}))
    held = runs.start("data", profile="tiny", data="phantom", reuse=False)  # as in JupyterLab
    assert listed()["01"].status == "running"
    runs.record.release(held.path)
    assert listed()["01"].status == "missing"
    made = [p for p in runs.folder().rglob("*") if p not in before and p.suffix == ".ipynb"]
    assert not made, "nothing was started"
    assert main(["runs", "--profile", "tiny"]) == 0
    assert "failed: tiny/phantom/tumor/baselines/default-s0: 2026-01-01" in capsys.readouterr().out
    monkeypatch.setenv("BONELIB_DATA", str(folder / "no"))
    assert main(["run", "01", "--list", "-p", "DATA", "fracatlas"]) == 2
    assert "No folder" in capsys.readouterr().err


def test_a_full_disk_is_said_where_a_failure_cannot_be_kept(folder, monkeypatch):
    write(folder, "01")
    (step,) = headless.plan(["01"], folder=folder)

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(runs, "replacing", full, raising=False)
    said = []
    execute._keep(step, {"error": "x"}, said.append)
    assert "failed.json can't be written (No space left on device)" in said[0]


# ---------------------------------------------------------------------- kernels
RUNNER = """
    import signal, sys
    from pathlib import Path
    from bonelib import headless
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    say = lambda line: print(line, flush=True)
    steps = headless.plan(folder=Path(sys.argv[1]))
    outcomes = headless.run_steps(steps, jobs=2, say=say)
    print(*(o.status for o in outcomes))
"""
SLEEP = "import os, time\nprint('kernel', os.getpid(), flush=True)\ntime.sleep(300 * SLOW)"
kernels = pytest.mark.notebooks


def started(folder):
    """Start a runner of two notebooks that sleep, and wait until both kernels say who they are."""
    finish("data")
    for number in ("02", "04"):
        write(folder, number, SLEEP, "run.finish()", extra="SLOW: int = 1\n")
    call = [sys.executable, "-c", textwrap.dedent(RUNNER), str(folder)]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    found = []
    while len(found) < 2:
        line = process.stdout.readline()
        assert line, "the runner ended"
        if "kernel" in line.split():
            found.append(int(line.split()[-1]))
    return process, found


def gone(pids, seconds=60):
    """Wait until processes have ended; one that nobody reads the end of has."""
    until = time.monotonic() + seconds
    while alive := [p for p in pids if psutil.pid_exists(p)]:
        alive = [p for p in alive if psutil.Process(p).status() != psutil.STATUS_ZOMBIE]
        if not alive or time.monotonic() > until:
            break
        time.sleep(0.2)
    return not alive


@kernels
@pytest.mark.parametrize(
    "signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]]
)
def test_an_interrupted_runner_stops_its_kernels_and_keeps_their_copies(folder, signals):
    process, pids = started(folder)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.3)
    process.communicate(timeout=120)
    assert process.returncode != 0 and gone(pids)
    for step in headless.plan(folder=folder):
        copy = step.folder / execute.COPY
        assert "time.sleep" in copy.read_text() and not (step.folder / "record.json").exists()
        if len(signals) == 1:
            kept = json.loads((step.folder / runs.FAILED).read_text())
            assert kept["status"] == "interrupted" and "cell In [" in kept["cell"]


@kernels
def test_kernels_end_with_a_runner_that_is_killed_and_the_next_call_goes_on(folder):
    process, pids = started(folder)
    process.kill()
    process.communicate()
    assert gone(pids), "orphans"
    steps = headless.plan(folder=folder)
    states = headless.states(steps)
    assert [one.status for one in states] == ["failed", "failed"]
    assert "its runner was killed" in states[0].why
    outcomes = headless.run(folder=folder, parameters={"SLOW": 0}, jobs=2)
    assert [one.error for one in outcomes] == ["", ""]
    again = headless.run(folder=folder, parameters={"SLOW": 0}, jobs=2)
    assert [one.status for one in again] == ["reused", "reused"]
    assert not (again[0].step.folder / execute.COPY).exists()


@kernels
def test_a_killed_kernel_is_kept_from_outside_until_it_succeeds(folder):
    path = write(
        folder,
        "01",
        "held = bytearray(b'1') * (3 * 10**8)\nimport time; time.sleep(2)",
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    )
    (outcome,) = headless.run(["01"], folder=folder)
    kept = json.loads((place("data") / runs.FAILED).read_text())
    assert (kept["status"], kept["signal"]) == ("failed", "SIGKILL")
    assert kept["memory_gb"] > 0.3 and "cell In [5] (import os, signal)" in kept["cell"]
    assert kept["seconds"] > 2 and kept["cpu_seconds"] > 0 and kept["when"] > "2026"
    assert "killed" in headless.states([outcome.step])[0].why
    # Saved while it runs: what was read at the start is executed, and the record says so.
    edit = f"from pathlib import Path\np = Path({str(path)!r})\n"
    edit += "p.write_text(p.read_text().replace('first', 'second'))"
    write(folder, "01", edit, "run.note(said='first')", "run.finish()")
    (outcome,) = headless.run(["01"], folder=folder)
    assert outcome.status == "executed" and not (place("data") / runs.FAILED).exists()
    assert runs.Record(place("data")).notes["said"] == "first"
    (state,) = headless.states(headless.plan(["01"], folder=folder))
    assert (state.status, state.why) == ("stale", "the notebook's cells changed")
    (line,) = listings.outcomes([outcome])[1:]
    assert "executed" in line and outcome.facts["cpu_seconds"] > 0.3
