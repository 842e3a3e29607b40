"""Protects runs in inconvenient places: other locales, no locks, full disks, cut files, Slurm."""

import errno
import fcntl
import json
import os
import shlex
import subprocess
import sys

import pandas as pd
import pytest

from bonelib import headless, runs, training
from bonelib.__main__ import main
from bonelib.commands import printing
from bonelib.experiments import results
from bonelib.experiments.context import Context
from bonelib.runs import cures, freshness, locks
from bonelib.training import machine

PLACE = {"profile": "tiny", "data": "phantom"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name in ("RUNS", "CACHE", "FIGURES"):
        monkeypatch.setenv(f"BONELIB_{name}", str(tmp_path / name.lower()))
    for name in ("BONELIB_DATA", "BONELIB_NOTEBOOK", "BONELIB_OTHER_CODE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def finished(stage, inputs=(), task="any", **settings):
    run = runs.start(stage, **PLACE, task=task, inputs=inputs, **settings)
    run.save_table("made", pd.DataFrame({"a": [1]}))
    return run.finish(auroc=0.5)


def command(*words, **environment):
    """Run ``bonelib`` in a process of its own."""
    whole = os.environ | {"PYTHONPATH": str(runs.ROOT)} | environment
    return subprocess.run([sys.executable, "-m", "bonelib", *words], env=whole, capture_output=True)


# ---------------------------------------------------------------------- locales
LATIN = [
    {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"},
]


@pytest.mark.parametrize("locale", LATIN)
def test_help_is_printed_where_the_terminal_lacks_letters(locale):
    done = command("data", "--help", **locale)
    assert done.returncode == 0, done.stderr
    assert b"a wrong one lists them" in done.stdout


def test_in_another_locale_it_starts_anew_in_utf8_once(monkeypatch):
    started = []
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    monkeypatch.setattr(os, "execv", lambda *given: started.append((given, dict(os.environ))))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "bonelib", "runs"])
    monkeypatch.setattr(sys, "argv", ["bonelib", "runs"])
    monkeypatch.setenv("PYTHONUTF8", "0")
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    for _ in range(2):
        assert main() == 0  # the second time it is so already, whatever Python says
    ((given, environment),) = started
    assert given[1][1:] == ["-m", "bonelib", "runs"]
    assert environment["PYTHONUTF8"] == "1" and environment["PYTHONIOENCODING"]


# ---------------------------------------------------------------------- locks
@pytest.fixture
def lockless(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_without_locks_of_the_system_a_run_is_made_and_a_second_writer_refused(lockless):
    record = finished("data")
    assert record.finished and not list(record.path.parent.glob("*.owner"))
    run = runs.start("data", **PLACE, reuse=False)
    (owner,) = record.path.parent.glob(".*.owner")
    runs.record._held.clear()  # as another process, which would have no such entry
    with pytest.raises(ValueError, match=f"process {os.getpid()} on .*delete {owner}"):
        runs.start("data", **PLACE, reuse=False)
    owner.unlink()
    assert runs.start("data", **PLACE, reuse=False).path == run.path


def test_what_a_killed_process_owned_is_taken_over_and_another_machine_is_asked_for(
    lockless, folder
):
    lock, owner = folder / "run.lock", folder / "run.lock.owner"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = locks._here().split(" on ")[1]
    owner.write_text(f"process {ended.pid} on {here}")
    free = locks.take(lock, wait=locks.pause)
    assert owner.read_text() == locks._here()
    free()
    assert not owner.exists()
    owner.write_text("process 1 on another-node")
    for wait in (None, locks.pause):
        with pytest.raises(locks.Busy, match="process 1 on another-node; if it has ended"):
            locks.take(lock, wait=wait)
    with pytest.raises(ValueError, match="Another process works on"), runs.alone(folder / "x"):
        (folder / ".x.lock.owner").write_text("process 1 on another-node")
        with runs.alone(folder / "x"):
            pass


def test_only_a_missing_lock_is_replaced(monkeypatch, folder):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output"):
        locks.take(folder / "lock")


def test_a_finished_run_that_can_only_be_read_is_reused(monkeypatch):
    record = finished("data")

    def fail(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system", "lock")

    monkeypatch.setattr(locks, "take", fail)
    with runs.alone(record.path):
        pass
    (record.path / "record.json").unlink()
    with pytest.raises(OSError, match="Read-only"), runs.alone(record.path):
        pass


# ---------------------------------------------------------------------- what the system refuses
@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EROFS, "set BONELIB_RUNS"),
        (errno.EACCES, "set BONELIB_RUNS"),
        (errno.ENOTDIR, "rename it"),
        (errno.EIO, ""),
    ],
)
def test_what_the_system_refuses_is_one_sentence_and_code_2(monkeypatch, capsys, number, cure):
    def fail(**_):
        raise OSError(number, os.strerror(number), "/some/folder")

    monkeypatch.setattr(runs.finding, "collect", fail)
    monkeypatch.setattr(runs, "collect", fail, raising=False)
    assert main(["runs"]) == 2
    said = capsys.readouterr().err
    assert os.strerror(number) in said and "/some/folder" in said and cure in said
    assert said.count("\n") == 1 and "Traceback" not in said


def test_a_folder_that_cannot_be_made_is_a_sentence(folder, monkeypatch, capsys):
    (folder / "file").write_text("")
    monkeypatch.setenv("BONELIB_RUNS", str(folder / "file" / "runs"))
    assert main(["run", "01"]) == 2
    assert "A file has the name of a folder" in capsys.readouterr().err


def test_a_closed_pipe_stops_nothing():
    finished("data")
    reader, writer = os.pipe()
    os.close(reader)
    whole = os.environ | {"PYTHONPATH": str(runs.ROOT)}
    words = [sys.executable, "-m", "bonelib", "runs"]
    done = subprocess.run(words, env=whole, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (
        0,
        "The pipe was closed: what follows is not printed.\n",
    )


def test_a_copy_that_cannot_be_written_does_not_lose_the_run(monkeypatch, folder):
    from bonelib.headless.execute import _Copy

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs, "replacing", full, raising=False)
    said = []
    copy = _Copy(folder / "notebook.ipynb", said.append)
    import nbformat

    copy.notebook = nbformat.v4.new_notebook()
    copy.save()
    assert "No space left" in said[0] and str(copy.path) in said[0]


# ---------------------------------------------------------------------- cut files
def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_cut_record_is_named_listed_and_made_again(capsys):
    data = finished("data")
    finished("pretraining", [data])
    cut(data.path / "record.json")
    listed = runs.collect(profile="tiny").set_index("stage")
    assert listed.loc["data", "stale"] and "record.json can't be read" in listed.loc["data", "why"]
    assert "data/default-s0 can't be read" in listed.loc["pretraining", "why"]
    assert main(["runs", "--profile", "tiny"]) == 0
    assert "2 finished runs" in capsys.readouterr().out
    with pytest.raises(ValueError, match="(?s)record.json can't be read.*bonelib run 01 --profile"):
        runs.find("data", **PLACE)
    with pytest.raises(ValueError, match="bonelib run 01 04 --profile tiny -p DATA phantom"):
        runs.find("pretraining", **PLACE)
    made = finished("data")
    assert made.hash == data.hash  # and all is well
    assert runs.find("pretraining", **PLACE).finished


def test_any_record_that_was_cut_leaves_the_reader_of_all_records_whole():
    data = finished("data")
    results = finished("results", reads=["tiny/*/*/*/*"], task="tumor")
    assert not runs.stale(results)
    cut(data.path / "record.json")
    assert any("records it read changed" in reason for reason in runs.stale(results))


def test_a_set_with_brackets_in_its_name_is_read_by_the_results(folder):
    table = folder / "own [new].csv"
    table.write_text("image_id,path\na,a.png\n", encoding="utf-8")
    place = dict(profile="tiny", data=str(table))
    data = runs.start("data", **place).finish()
    context = Context(data=str(table))
    run = runs.start("results", reads=results.read_of(context), task="tumor", **place).finish()
    assert not runs.stale(run)
    (data.path / "record.json").unlink()
    assert any("records it read changed" in reason for reason in runs.stale(run))


@pytest.mark.parametrize("name", ["made.parquet", "an.npy"])
def test_a_cut_table_or_array_is_named(name):
    run = runs.start("data", **PLACE)
    run.save_table("made", pd.DataFrame({"a": range(100)}))
    run.save_array("an", pd.Series(range(100)).to_numpy())
    record = run.finish()
    cut(record.path / name)
    read = record.table if name.endswith("parquet") else record.array
    with pytest.raises(ValueError, match=f"{name} can't be read: it is cut off"):
        read(name.split(".")[0])


def test_cut_openings_count_as_one_and_more_can_follow():
    run = runs.start("data", **PLACE)
    run.log_opening({"when": "today"})
    cut(run.path / "openings.json")
    assert len(runs.record.openings(run.path)) == 1
    run.log_opening({"when": "tomorrow"})
    told = runs.record.openings(run.path)
    assert "not known" in told[0]["damaged"] and told[1] == {"when": "tomorrow"}


def test_a_cut_word_of_a_training_is_not_taken_for_none():
    run = runs.start("pretraining", **PLACE)
    runs.mark_trained(run)
    cut(run.path / "trained.json")
    with pytest.raises(ValueError, match="trained.json can't be read.*Delete it to train"):
        assert run.trained


# ---------------------------------------------------------------------- the advice is what works
def advised(error):
    """Take the first command out of a message, and plan it as the command line would."""
    line = str(error).split("bonelib run ", 1)[1].split(" && ")[0].split(", or ")[0]
    words = shlex.split(line)
    numbers = words[: words.index("--profile")]
    pairs = [words[i + 1 : i + 3] for i, word in enumerate(words) if word == "-p"]
    profile = words[words.index("--profile") + 1]
    return headless.plan(numbers, profile=profile, parameters=dict(pairs))


def test_the_advice_of_a_refusal_makes_the_run_that_was_refused(folder, monkeypatch):
    images = folder / "a set"
    images.mkdir()
    (images / "a.png").write_bytes(b"x")
    table = folder / "own.csv"
    table.write_text("image_id,path\na,a.png\n", encoding="utf-8")
    given = {"cells": "0", "parameters": {}, "given": {"EPOCHS": 3, "TEST": "fold1"}}
    monkeypatch.setenv(freshness.NOTEBOOK, json.dumps(given))
    place = dict(
        profile="tiny", data=str(table), root=str(images), seed=3, variant="v 1".replace(" ", "-")
    )
    data = runs.start("data", **place).finish()
    made = runs.start("finetuning", task="fracture", inputs=[data], **place).finish()
    monkeypatch.delenv(freshness.NOTEBOOK)
    (data.path / "record.json").unlink()
    with pytest.raises(ValueError, match="removed since") as refused:
        runs.find("finetuning", task="fracture", **place)
    assert "DATA_ROOT" in str(refused.value) and " && " in str(refused.value)
    (step,) = advised(refused.value)
    assert step.folder == data.path and step.values["SEED"] == 3
    last = str(refused.value).split(" && ")[1]
    for word in ("05", "-p TASK fracture", "-p EPOCHS 3", "-p TEST fold1", "-p VARIANT v-1"):
        assert word in last
    assert made.path != data.path


def test_what_is_stale_only_through_a_notebook_of_the_same_call_is_not_refused():
    data = finished("data")
    finished("pretraining", [data])
    cut(data.path / "record.json")
    with pytest.raises(ValueError, match="(?s)05_finetuning needs.*bonelib run 01 04"):
        headless.plan(["05"])
    assert [step.number for step in headless.plan(["01", "05"])] == ["01", "05"]


def test_a_moved_csv_is_advised_where_it_lies_now(folder):
    for name in ("old", "new"):
        (folder / name).mkdir()
        (folder / name / "own.csv").write_text("image_id,path\na,a.png\n", encoding="utf-8")
    place = dict(profile="tiny", data=str(folder / "old" / "own.csv"))
    runs.start("data", **place).finish()
    (folder / "old" / "own.csv").unlink()
    (folder / "new" / "own.csv").write_text("image_id,path,age\na,a.png,3\n", encoding="utf-8")
    moved = dict(profile="tiny", data=str(folder / "new" / "own.csv"))
    with pytest.raises(ValueError, match="changed") as refused:
        runs.find("data", **moved)
    assert str(folder / "new") in str(refused.value) and str(folder / "old") not in str(
        refused.value
    )


def test_other_code_is_a_type_and_not_a_word_in_a_path():
    head = dict(PLACE, data_name="phantom", root="", seed=0, task="any", stage="data", inputs=[])
    head |= dict(variant="default")
    named = freshness.Reason.of("the file other code.csv changed")
    with pytest.raises(freshness.Stale) as refused:
        freshness.refuse("x", head, [named])
    assert "keep-other-code" not in str(refused.value)
    with pytest.raises(freshness.Stale, match="keep-other-code"):
        freshness.refuse("x", head, [freshness.Reason.of("…", code=True)])


def test_a_name_with_brackets_and_blanks_survives_the_shell():
    line = cures.cure("data", profile="tiny", data="phantom", seed=2, variant="a")
    assert line == "bonelib run 01 --profile tiny -p DATA phantom -p SEED 2 -p VARIANT a"
    line = cures.cure("finetuning", profile="tiny", data="btxrd", root="/a b[1]", task="entity")
    assert shlex.split(line)[-4:] == ["/a b[1]", "-p", "TASK", "entity"]


def test_a_training_made_elsewhere_without_reuse_is_evaluated_and_not_thrown_away():
    run = runs.start("pretraining", **PLACE, reuse=False)
    runs.save_plan(run)
    there = runs.reopen(run.path)
    there.save_table("history", pd.DataFrame({"epoch": [1]}))
    runs.mark_trained(there)
    runs.record.release(run.path)
    again = runs.start("pretraining", **PLACE, reuse=False)
    assert again.trained and (again.path / "history.parquet").exists()
    again.finish()
    assert not runs.start("pretraining", **PLACE, reuse=False).trained


# ---------------------------------------------------------------------- Slurm
STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "1",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3)",
    "SLURM_STEP_NODELIST": "gpu[03-05],big",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}
RANKS = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")


@pytest.fixture
def step(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name in (*RANKS, "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)


def test_tasks_of_srun_have_the_ranks_of_torchrun(step):
    training.take_ranks()
    assert [os.environ[name] for name in RANKS] == ["3", "1", "1", "6", "2", "gpu03"]
    assert 15000 <= int(os.environ["MASTER_PORT"]) < 30000


@pytest.mark.parametrize(
    ("name", "value"),
    [("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_PTY_PORT", "4000"), ("RANK", "0")],
)
def test_one_task_a_terminal_and_torchrun_keep_their_own(step, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    training.take_ranks()
    assert "WORLD_SIZE" not in os.environ


def test_nodes_with_different_numbers_of_tasks_are_refused(step, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "2,1")
    with pytest.raises(ValueError, match="--ntasks-per-node"):
        training.take_ranks()


def test_one_process_inside_an_allocation_of_two_tasks_is_one(step, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")  # by which Lightning 2.6 refuses: "You set --ntasks=2"
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    assert machine.fabric("32-true", "cpu", 1, 1).world_size == 1


def test_a_record_names_its_threads():
    import torch

    assert finished("data").head["threads"] == torch.get_num_threads()


def test_sentences_name_the_error_that_has_no_number():
    assert printing.told(OSError("the checkpoint could not be written")).startswith(
        "the checkpoint"
    )
