"""Protects the hand-over: what is finished, what is reused, what is refused as stale."""

import ast
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bonelib import headless, runs

PLACE = {"profile": "tiny", "data": "phantom"}


BESIDE = ("experiments/data.py", "experiments/drawn.py", "experiments/captioning.py")


def data_name(data, root=""):
    return runs.paths.data_name(data, root, profile="tiny")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name in ("runs", "figures", "cache"):
        monkeypatch.setenv(f"BONELIB_{name.upper()}", str(tmp_path / name))
    for name in ("BONELIB_DATA", "BONELIB_OTHER_CODE", "BONELIB_NOTEBOOK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(runs.machine, "commit", lambda: "abc1234")
    return tmp_path


def finished(stage, inputs=(), metrics=None, **settings):
    return runs.start(stage, **PLACE, inputs=inputs, **settings).finish(**(metrics or {}))


def chain():
    """Three runs that build on each other: data, pretraining on it, finetuning on both."""
    data = finished("data", size=64)
    pretraining = finished("pretraining", [data], test="fold0")
    return data, pretraining, finished("finetuning", [data, pretraining], test="fold0")


def remake(stage, inputs=(), **settings):
    """Make a run again with another content."""
    run = runs.start(stage, **PLACE, inputs=inputs, reuse=False, **settings)
    run.note(remade=True)
    return run.finish()


# ---------------------------------------------------------------------- what changes, what follows
SOURCES = {
    "__init__.py": "VERSION = 1\n",
    "experiments/__init__.py": "",
    "experiments/data.py": "from bonelib import images\n",
    "experiments/drawn.py": "",
    "experiments/captioning.py": "",
    "experiments/pretraining.py": "from .. import losses\nfrom bonelib.captions import write\n"
    "def draw():\n    from bonelib.figures import plot\n    return probing.score()\n"
    "from bonelib.experiments import probing\n",
    "experiments/probing.py": "def score():\n    return 1\n",
    "images.py": 'SIZE = 8\nTEXT = """\n# no comment\n"""\n',
    "losses.py": '"""Losses."""\n\nRATE = 1\n',
    "captions/__init__.py": "from bonelib.captions.write import write\n",
    "captions/write.py": "def write():\n    pass\n",
    "captions/words.csv": "femur\n",
    "figures/__init__.py": "from bonelib.figures.style import plot\n",
    "figures/style.py": "def plot():\n    pass\n",
    "headless.py": "from bonelib import losses\n",
    "unrelated.py": "",
}


class World:
    """A small package, a CSV of three pictures with an outline, a bank, and two runs of them."""

    def __init__(self, folder):
        self.package, self.csv = folder / "bonelib", folder / "hospital" / "own.csv"
        for name, source in SOURCES.items():
            self.write(self.package / name, source)
        for k in range(3):
            self.write(self.csv.parent / "images" / f"{k}.png", f"picture {k}")
        self.write(self.csv.parent / "mask.png", "outline")
        self.write(self.csv, self.labels("normal"))
        self.bank = folder / "bank.csv"
        self.write(self.bank, "a caption")

    def labels(self, first):
        rows = [("a", "images/0.png", "mask.png", first), ("b", "images/1.png", "", "tumor")]
        rows += [("c", str(self.csv.parent / "images" / "2.png"), "", "tumor")]
        return "image_id,path,mask,tumor\n" + "".join(",".join(row) + "\n" for row in rows)

    def write(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def data(self, **options):
        return runs.start("data", profile="tiny", data=str(self.csv), size=8, **options)

    def pretraining(self, **options):
        options = {"inputs": [self.data()], "files": {"bank": self.bank}} | options
        return runs.start("pretraining", profile="tiny", data=str(self.csv), lr=0.1, **options)

    def make(self):
        """Make what is not there, as the notebooks do in order; return what had to be made."""
        made = []
        if not (run := self.data()).finished:
            made.append("data")
            run.save_table("cohort", pd.read_csv(self.csv))
            run.finish()
        if not (run := self.pretraining()).finished:
            made.append("pretraining")
            if not run.trained:
                made.append("training")
                (run.bundle).mkdir()
                (run.bundle / "weights").write_text("w")
                run.save_table("history", pd.DataFrame({"epoch": [1]}))
                runs.mark_trained(run)
            run.save_table("probes", pd.DataFrame({"a": [len(run.table("history"))]}))
            run.finish()
        return made


@pytest.fixture
def world(folder, monkeypatch):
    monkeypatch.setattr(runs.code, "PACKAGE", folder / "bonelib")
    return World(folder)


def edit(name, old, new):
    def change(world):
        world.write(world.package / name, SOURCES[name].replace(old, new))

    return change


ALL = ["data", "pretraining", "training"]
CHANGES = {
    "a label is flipped": (lambda w: w.write(w.csv, w.labels("tumor")), ALL, "the data .* changed"),
    "a picture is replaced": (
        lambda w: w.write(w.csv.parent / "images" / "1.png", "picture X"),
        ALL,
        "the data .* changed",
    ),
    "a picture named by its whole path is replaced": (
        lambda w: w.write(w.csv.parent / "images" / "2.png", "picture X"),
        ALL,
        "the data .* changed",
    ),
    "a picture is deleted": (
        lambda w: (w.csv.parent / "images" / "0.png").unlink(),
        ALL,
        "the data .* changed",
    ),
    "an outline is redrawn": (
        lambda w: w.write(w.csv.parent / "mask.png", "outlinE"),
        ALL,
        "the data .* changed",
    ),
    "the bank is edited": (lambda w: w.write(w.bank, "another"), ALL[1:], "the file bank changed"),
    "a loss": (edit("losses.py", "1", "2"), ALL[1:], "other code: losses"),
    "a word": (edit("captions/words.csv", "femur", "tibia"), ALL[1:], "other code: captions"),
    "a text with a hash sign": (edit("images.py", "# no", "# one"), ["data"], "other code: images"),
    "a figure": (edit("figures/style.py", "pass", "return 1"), ["pretraining"], "code: figures"),
    "a probe": (edit("experiments/probing.py", "1", "2"), ["pretraining"], "code: experiments"),
    "a comment": (edit("losses.py", "RATE", "# why\n\nRATE"), [], ""),
    "a docstring": (edit("losses.py", "Losses.", "All\nlosses."), [], ""),
    "the version": (edit("__init__.py", "1", "2"), [], ""),
    "the runner": (edit("headless.py", "losses", "captions"), [], ""),
    "another room": (lambda w: w.write(w.package / "unrelated.py", "x = 1\n"), [], ""),
    "a file beside the table": (lambda w: w.write(w.csv.parent / "readme.txt", "x"), [], ""),
    "only the time of a picture": (
        lambda w: os.utime(w.csv.parent / "images" / "1.png", ns=(1, 1)),
        [],
        "",
    ),
    "the bank is away": (lambda w: w.bank.rename(w.bank.with_suffix(".old")), None, ""),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_made_again_and_nothing_else(world, name):
    change, follows, reason = CHANGES[name]
    assert world.make() == ALL and world.make() == []
    records = {s: runs.find(s, profile="tiny", data=str(world.csv)) for s in ALL[:2]}
    change(world)
    stale = {stage: runs.stale(record) for stage, record in records.items()}
    if follows is None:  # what is not on this machine can't have changed
        assert not any(stale.values())
        return
    expected = {s for s in follows if s != "training"}
    if follows == ["data"]:  # made again to the same content, it leaves what follows as it is
        expected.add("pretraining")
    assert {stage for stage, reasons in stale.items() if reasons} == expected
    for stage in expected:
        with pytest.raises(ValueError, match=f"(?s){reason}.*bonelib run 0"):
            runs.find(stage, profile="tiny", data=str(world.csv))
    listed = runs.collect(profile="tiny").set_index("stage")["stale"]
    assert set(listed.index[listed]) == expected
    assert world.make() == follows and world.make() == []


def test_numbers_of_other_code_are_kept_if_the_user_says_so_and_named(world, monkeypatch):
    world.make()
    edit("losses.py", "1", "2")(world)
    monkeypatch.setenv("BONELIB_OTHER_CODE", "keep")
    assert world.make() == []
    listed = runs.collect(profile="tiny").set_index("stage")
    assert listed["other_code"].to_dict() == {"data": "", "pretraining": "losses"}
    assert not listed["stale"].any()
    world.write(world.bank, "another")
    assert world.make() == ALL[1:], "anything else still counts"
    monkeypatch.setenv("BONELIB_OTHER_CODE", "yes")
    with pytest.raises(ValueError, match="set it to keep"):
        world.data()


def test_the_same_data_under_another_path_have_the_same_runs(world, folder, monkeypatch):
    world.make()
    monkeypatch.chdir(world.csv.parent)
    copy = folder / "node" / "own.csv"
    shutil.copytree(world.csv.parent, copy.parent)
    whole = str(world.csv.parent / "images")  # a path that stands in the table itself
    copy.write_text(copy.read_text().replace(whole, str(copy.parent / "images")))
    for data in ("own.csv", "../hospital/./own.csv", str(copy)):
        assert runs.find("pretraining", profile="tiny", data=data).finished
        assert runs.start("data", profile="tiny", data=data, size=8).finished
    (copy.parent / "images" / "1.png").write_text("picture X")
    with pytest.raises(ValueError, match="the data .*node.*own.csv changed"):
        runs.find("pretraining", profile="tiny", data=str(copy))
    shutil.rmtree(world.csv.parent)
    shutil.rmtree(copy.parent)
    assert runs.find("pretraining", profile="tiny", data=str(copy)).finished, "moved away"


def hospital(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_two_folders_under_one_name_are_two_runs_and_a_copy_is_none(folder, monkeypatch):
    one = hospital(folder / "one", "images/a.png", "labels.csv", ".hidden")
    two = hospital(folder / "two", "images/b.png", "labels.csv")

    def data(root, **options):
        return runs.start("data", profile="tiny", data="fracatlas", root=root, **options)

    first, second = data(one).finish(n=1), data(two).finish(n=2)
    assert first.path != second.path and first.name.split("/")[1].startswith("fracatlas-")
    shutil.copytree(one, folder / "copy")
    hospital(folder / "copy", ".also hidden")
    for spelling in (folder / "copy", f"{one}/../one"):
        assert data(spelling).hash == first.hash
    (folder / "copy" / "labels.csv").write_text("flipped")
    with pytest.raises(ValueError, match="the data fracatlas changed"):
        runs.find("data", profile="tiny", data="fracatlas", root=folder / "copy")
    assert not runs.stale(first) and runs.stale(first, root=folder / "copy")
    monkeypatch.setenv("BONELIB_DATA", str(folder))
    two.rename(folder / "fracatlas")
    assert runs.find("data", profile="tiny", data="fracatlas").metrics == {"n": 2}
    after = runs.start("finetuning", profile="tiny", data="fracatlas", root=one, inputs=[first])
    assert after.upstream("data").hash == first.hash, "BONELIB_DATA holds those of another"
    assert not runs.collect(profile="tiny")["stale"].any()
    monkeypatch.delenv("BONELIB_DATA")
    for name in (first, second):
        name = name.head["data_name"]
        assert runs.find("data", profile="tiny", data=name).head["data_name"] == name
    with pytest.raises(ValueError, match="2 sets of this name are: fracatlas-.*, fracatlas-"):
        runs.find("data", profile="tiny", data="fracatlas")
    shutil.rmtree(second.path.parents[2])
    assert runs.find("data", profile="tiny", data="fracatlas").metrics == {"n": 1}, "the only one"
    with pytest.raises(FileNotFoundError, match="Don't know where 'fracatlas' lies"):
        runs.find("data", profile="demo", data="fracatlas")


def test_several_sets_count_each_below_its_own_folder(folder, monkeypatch):
    hospital(folder / "sets" / "fracatlas", "a.png"), hospital(folder / "sets" / "other", "x")
    hospital(folder / "sets" / "digital-knee-xray", "b.png")
    monkeypatch.setenv("BONELIB_DATA", str(folder / "sets"))
    data = "fracatlas+knee_kl"
    root = runs.data_root(data)
    assert str(root) == os.pathsep.join(
        str(folder / "sets" / n) for n in ("fracatlas", "digital-knee-xray")
    )
    name, content = data_name(data), runs.data.fingerprint(data)
    assert name == data_name(data, str(root)) and name.startswith("fracatlas+knee_kl-")
    (folder / "sets" / "other" / "x").write_text("not of these")
    assert runs.data.fingerprint(data) == content
    (folder / "sets" / "digital-knee-xray" / "b.png").write_text("changed")
    assert runs.data.fingerprint(data) != content and data_name(data) == name
    with pytest.raises(FileNotFoundError, match="No folder .*mura.* for the data set 'mura.lera'"):
        runs.data_root("mura+lera")


def test_an_edited_picture_of_the_drawn_cohort_is_noticed_and_a_cleared_cache_is_not(folder):
    drawn = hospital(folder / "drawn", "images/a.png")
    record = runs.start("data", **PLACE, root=drawn).finish()
    assert record.name == "tiny/phantom/any/data/default-s0" and not runs.stale(record)
    (drawn / "images" / "a.png").write_text("edited")
    assert runs.stale(record)
    shutil.rmtree(drawn)
    assert not runs.stale(record), "it can be drawn again"


def test_a_file_that_did_not_change_is_read_once(folder, monkeypatch):
    paths = [hospital(folder, "a", "b") / name for name in ("a", "b", "missing")]
    index = folder / "index.json"
    monkeypatch.setattr(runs.files, "SETTLED", -(10**12))  # as if written long ago
    found = runs.files.hashes(paths, index=index)
    assert found[0] == runs.file_hash(paths[0]) and found[2] == ""
    paths[1].write_text("c")  # as long, and within the same tick perhaps
    os.utime(paths[1], ns=(1, 1))
    monkeypatch.setattr(runs.files, "file_hash", lambda path: f"read {path.name}")
    assert runs.files.hashes(paths, index=index) == [found[0], "read b", ""]
    monkeypatch.undo()
    assert runs.files.hashes([paths[1]], index=folder / "new.json") != [""]
    paths[1].write_text("d")
    assert runs.files.hashes([paths[1]], index=folder / "new.json") == [runs.file_hash(paths[1])]


def test_a_run_that_reads_whatever_there_is_notices_what_came_since():
    chain()

    def results():
        return runs.start("results", **PLACE, task="tumor", reads=["tiny/*/*/*/*"])

    record = results().finish()
    assert results().finished and not runs.stale(record)
    runs.start("pretraining", **PLACE, variant="new").finish()
    assert "the records it read changed" in runs.stale(record)[0]
    assert not results().finished
    results().finish()
    runs.start("pretraining", **PLACE, variant="new", reuse=False).finish()
    assert results().finished, "made again to the same content"
    runs.start("results", **PLACE, task="other").finish()
    assert results().finished, "other results are not read"


# ---------------------------------------------------------------------- reuse
def test_a_finished_run_comes_back_as_a_record_to_read():
    first = runs.start("data", **PLACE, size=64)
    first.save_table("scores", pd.DataFrame({"auroc": [0.7]}))
    first.save_array("maps", np.ones(2))
    first.note(kept="yes")
    assert not first.finished and first.table("scores")["auroc"].tolist() == [0.7]
    record = first.finish(auroc=0.7)
    again = runs.start("data", **PLACE, size=64)
    assert again.finished and again.trained and again.hash == record.hash
    assert again.table("scores")["auroc"].tolist() == [0.7] and again.array("maps").sum() == 2
    assert again.metrics == {"auroc": 0.7} and again.notes == {"kept": "yes"}
    assert again.settings == {"size": 64} and again.name == first.name == record.name
    for name in ("save_table", "save_array", "save_text", "save_figure", "note", "finish"):
        assert not hasattr(again, name), "a record has nothing to write with"
    assert not hasattr(again, "log_opening")
    for write in (
        lambda: first.save_table("scores", pd.DataFrame()),
        lambda: first.note(late=1),
        first.finish,
    ):
        with pytest.raises(ValueError, match="is finished: .* can't be saved any more"):
            write()


def test_other_settings_are_refused_with_both_values_and_both_ways_out():
    finished("data", size=64, folds=5)
    with pytest.raises(ValueError) as refusal:
        runs.start("data", **PLACE, size=128, folds=5, extra="new")
    message = str(refusal.value)
    assert "size: 64 there, 128 asked" in message and "extra: None there, 'new' asked" in message
    assert "folds" not in message and "VARIANT" in message and "REUSE=False" in message
    assert runs.find("data", **PLACE).settings["size"] == 64, "a refusal destroys nothing"


def test_settings_that_json_writes_differently_are_still_the_same_settings():
    finished("data", fields=("view", "site"), where=Path("somewhere"), rate=np.float64(0.1))
    same = runs.start("data", **PLACE, fields=["view", "site"], where="somewhere", rate=0.1)
    assert same.finished and runs.find("data", **PLACE, fields=("view", "site")).finished


def test_a_run_whose_input_was_remade_is_made_anew_unless_to_the_same_content():
    data, pretraining, _ = chain()
    same = runs.start("data", **PLACE, reuse=False, size=64).finish()
    assert same.hash == data.hash and same.head["finished"] and not runs.stale(pretraining)
    data = remake("data", size=64)
    assert data.hash != same.hash
    assert not runs.start("pretraining", **PLACE, inputs=[data], test="fold0").finished


@pytest.mark.parametrize(
    "column", ["seconds", "cpu_seconds", "images_per_s", "waited", "path", "auroc"]
)
def test_the_hash_of_a_record_leaves_out_places_and_times(column):
    found = []
    for value in (1.0, 2.0):
        run = runs.start("data", **PLACE, reuse=False)
        run.save_table("scores", pd.DataFrame({column: [value], "other": [1]}))
        run.note(root=str(value))
        found.append(run.finish().hash)
    assert (found[0] == found[1]) == (column != "auroc")


def test_the_hash_of_a_record_covers_seed_bundle_arrays_and_notes():
    def made(seed=0, weights="w", array=1, note=1):
        run = runs.start("data", **PLACE, seed=seed, reuse=False)
        run.bundle.mkdir(exist_ok=True)
        (run.bundle / "weights").write_text(weights)
        run.save_array("maps", np.full(2, array))
        run.note(note=note)
        return run.finish().hash

    found = [made(), made(seed=1), made(weights="v"), made(array=2), made(note=2)]
    assert len(set(found)) == 5 and made() == found[0]


def test_variants_and_seeds_lie_side_by_side():
    finished("data", size=64)
    assert not runs.start("data", **PLACE, variant="large", size=128).finished
    assert not runs.start("data", **PLACE, seed=1, size=64).finished
    assert runs.start("data", **PLACE, size=64).finished


def test_the_seed_fixes_python_numpy_and_torch():
    import random

    import torch

    def draw(seed):
        runs.start("data", **PLACE, seed=seed)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw(3) == draw(3) and len({*draw(3), *draw(4)}) == 6


def test_a_changed_notebook_makes_its_record_anew_if_the_runner_says_so(monkeypatch):
    def start(cells, **parameters):
        told = json.dumps({"cells": cells, "parameters": parameters})
        monkeypatch.setenv("BONELIB_NOTEBOOK", told)
        return runs.start("data", **PLACE)

    start("one", TASK="tumor").finish()
    assert start("one", TASK="tumor").finished
    assert not start("one", TASK="entity").finished
    start("one", TASK="entity").finish()
    monkeypatch.delenv("BONELIB_NOTEBOOK")
    assert runs.start("data", **PLACE).finished, "JupyterLab runs one cell at a time"
    assert not start("two", TASK="entity").finished


# ---------------------------------------------------------------------- staleness
@pytest.mark.parametrize("gone", [False, True])
def test_what_builds_on_a_remade_or_removed_run_is_refused_with_the_cure(gone):
    data, _, finetuning = chain()
    if gone:
        (data.path / "record.json").unlink()
    else:
        remake("data", size=64)
    state = "removed since" if gone else "remade since"
    for call in (
        lambda: runs.find("pretraining", **PLACE),
        lambda: finetuning.upstream("data"),
        lambda: finetuning.upstream("pretraining"),
    ):
        again = "bonelib run (0. )+--profile"
        with pytest.raises(ValueError, match=f"(?s)is stale: .*{state}.*{again}"):
            call()


def test_an_open_run_notices_that_its_own_input_was_remade_meanwhile():
    data = finished("data", size=64)
    run = runs.start("pretraining", **PLACE, inputs=[data])
    assert run.upstream("data").settings == {"size": 64}
    remake("data", size=128)
    with pytest.raises(ValueError, match="stale"):
        run.upstream("data")


def test_staleness_reaches_past_the_nearest_input():
    data = finished("data", size=64)
    pretraining = finished("pretraining", [data])
    finished("zero_shot", [pretraining])  # doesn't name the data run itself
    remake("data", size=64)
    with pytest.raises(ValueError, match="zero_shot.* is stale: the input .*data.* was remade"):
        runs.find("zero_shot", **PLACE)


def test_asking_for_an_input_the_run_does_not_have_lists_those_it_has():
    _, _, finetuning = chain()
    with pytest.raises(ValueError, match="inputs: data, pretraining"):
        finetuning.upstream("baselines")


def test_an_unfinished_run_is_no_input():
    with pytest.raises(ValueError, match="not finished"):
        runs.start("pretraining", **PLACE, inputs=[runs.start("data", **PLACE)])


def test_a_record_of_an_older_version_is_refused_with_the_cure_and_made_anew():
    record = finished("data", size=64)
    head = json.loads((record.path / "record.json").read_text())
    old = {k: v for k, v in head.items() if k not in ("format", "hash", "outputs", "files")}
    (record.path / "record.json").write_text(json.dumps(old | {"code": "0123456789ab"}))
    (record.path / "trained.json").write_text(json.dumps(old | {"code": "0123456789ab"}))
    for read in (lambda: runs.find("data", **PLACE), lambda: runs.Record(record.path)):
        with pytest.raises(ValueError, match="(?s)older version.*bonelib run 01 --profile tiny"):
            read()
    listed = runs.collect(profile="tiny").iloc[0]
    assert listed["stale"] and "older version" in listed["why"]
    run = runs.start("data", **PLACE, size=128)
    assert not run.finished and not run.trained


def test_a_record_that_was_changed_by_hand_is_named_and_made_anew():
    record = finished("data", size=64)
    file = record.path / "record.json"
    head = json.loads(file.read_text())
    edits = [{k: v for k, v in head.items() if k != key} for key in head if key != "format"]
    edits += [head | {"inputs": {}}, head | {"code": None}, head | {"finished": 5}]
    named = 0
    for edited in edits:
        file.write_text(json.dumps(edited))
        listed = runs.collect(profile="tiny")  # never a stack trace
        named += "record.json" in str(listed["why"].iloc[0])
    assert named >= len(edits) - 7, "what is only told may be missing: memory, device, commit, …"
    assert not runs.start("data", **PLACE, size=64).finished


# ---------------------------------------------------------------------- crashes and remakes
def whole(**options):
    """A finished run with all that a training leaves."""
    run = runs.start("pretraining", **PLACE, **options)
    if not run.trained:
        run.bundle.mkdir(exist_ok=True)
        (run.bundle / "weights").write_text("weights")
        run.save_table("history", pd.DataFrame({"epoch": [1]}))
        runs.mark_trained(run)
    run.save_table("probes", pd.DataFrame({"a": [1]}))
    run.save_text("results.tex", "old")
    return run.finish()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("reuse", [True, False])
def test_a_kill_at_any_moment_of_a_start_leaves_a_sound_folder(monkeypatch, reuse):
    """``reuse`` is that of the call which is killed; the next one is as ever."""
    for steps in range(12):
        record = whole(reuse=False)
        runs.save_checkpoint(runs.Run(record.path, record.head), {"epoch": 1})
        if reuse:  # its notebook changed
            monkeypatch.setenv("BONELIB_NOTEBOOK", json.dumps({"cells": "x", "parameters": {}}))
        done = []

        def step(of, path, *rest, done=done, steps=steps, **options):
            if len(done) == steps:
                raise Killed
            done.append(path)
            return of(path, *rest, **options)

        with monkeypatch.context() as patch:
            for at, name in ((Path, "unlink"), (shutil, "rmtree")):
                of = getattr(at, name)
                patch.setattr(at, name, lambda *a, of=of, **k: step(of, *a, **k))
            try:
                runs.start("pretraining", **PLACE, reuse=reuse)
                killed = False
            except Killed:
                killed = True
        there = {p.name for p in record.path.iterdir()}
        if "record.json" in there:
            assert steps == 0 and runs.find("pretraining", **PLACE).table("probes").size == 1
            runs.start("pretraining", **PLACE, reuse=False)
        elif "trained.json" in there:
            assert (record.bundle / "weights").exists() and "history.parquet" in there
        assert runs.checkpoint(runs.start("pretraining", **PLACE)) in ({"epoch": 1}, None)
        assert whole().finished and runs.find("pretraining", **PLACE).table("probes").size == 1
        monkeypatch.delenv("BONELIB_NOTEBOOK", raising=False)
        if not killed:
            break
    assert not killed and steps > 2, "the last call went through"


def test_without_reuse_everything_is_made_anew_but_the_openings():
    run = runs.start("pretraining", **PLACE)
    run.log_opening({"test": "fold0"})
    (run.path / "notebook.ipynb").write_text("the copy of the runner")
    run.finish()
    record = whole(reuse=False)
    runs.save_checkpoint(runs.Run(record.path, record.head), {"epoch": 1})
    again = runs.start("pretraining", **PLACE, reuse=False)
    left = {p.relative_to(again.path).as_posix() for p in again.path.rglob("*")}
    assert left == {"openings.json", "notebook.ipynb"}
    assert not again.trained and runs.checkpoint(again) is None
    with pytest.raises(FileNotFoundError):
        runs.find("pretraining", **PLACE)


def test_a_training_that_stands_is_kept_where_only_its_judges_changed(monkeypatch):
    record = whole()
    monkeypatch.setenv("BONELIB_NOTEBOOK", json.dumps({"cells": "x", "parameters": {}}))
    again = runs.start("pretraining", **PLACE)
    assert again.trained and (again.bundle / "weights").read_text() == "weights"
    assert again.table("history").size == 1
    with pytest.raises(FileNotFoundError, match="no table 'probes'"):
        again.table("probes")
    assert whole().hash == record.hash


def test_a_table_that_fails_to_write_leaves_the_old_one_whole():
    run = runs.start("data", **PLACE)
    run.save_table("scores", pd.DataFrame({"a": [1]}))
    with pytest.raises((TypeError, ValueError, AttributeError)):
        run.save_table("scores", pd.DataFrame({"a": [object()]}))
    assert run.table("scores")["a"].tolist() == [1]
    assert [p.name for p in run.path.iterdir()] == ["scores.parquet"], "no temporary file is left"


def test_openings_survive_a_remake_and_are_counted():
    run = runs.start("zero_shot", **PLACE)
    run.log_opening({"test": "fold0"})
    assert len(run.finish().openings) == 1
    assert runs.collect(profile="tiny")["openings"].tolist() == [1]
    again = runs.start("zero_shot", **PLACE, reuse=False)
    again.log_opening({"test": "fold1"})
    assert [e["test"] for e in again.finish().openings] == ["fold0", "fold1"]


HOLD = """
import sys
from bonelib import headless, runs
runs.start("data", profile="tiny", data="phantom")
print("started", flush=True)
sys.stdin.read()
"""


def test_of_two_processes_that_write_one_run_the_second_is_refused():
    environment = os.environ | {"PYTHONPATH": str(runs.ROOT)}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    process = subprocess.Popen([sys.executable, "-c", HOLD], **pipes)
    try:
        assert process.stdout.readline().strip() == b"started"
        with pytest.raises(ValueError, match=f"process {process.pid} on .*another VARIANT"):
            runs.start("data", **PLACE)
        assert not runs.start("data", **PLACE, variant="other").finished
    finally:
        process.kill()
        process.communicate()
    run = runs.start("data", **PLACE)
    assert not runs.start("data", **PLACE).finished, "one process may start it twice"
    run.finish()


def test_a_finished_run_is_free_though_a_worker_was_forked_meanwhile():
    run = runs.start("data", **PLACE)
    asleep = os.fork()
    if not asleep:
        time.sleep(60)
        os._exit(0)
    try:
        run.finish()
        lock = run.path.parent / f".{run.path.name}.writing"
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(asleep, signal.SIGKILL)
        os.waitpid(asleep, 0)


# ---------------------------------------------------------------------- code
def test_a_closure_follows_every_form_of_import_and_no_more(world):
    closure = runs.code.code_closure("bonelib.experiments.pretraining")
    assert set(closure) == {
        name
        for name in SOURCES
        if name not in ("__init__.py", "images.py", *BESIDE)
        and name.split("/")[0] not in ("headless.py", "unrelated.py")
    }
    everything = runs.code.code_closure("bonelib")
    assert set(everything) == set(SOURCES) - {"__init__.py", "headless.py"}
    assert runs.code.code_closure("bonelib.experiments.missing") == everything
    before = runs.code_hash("figures"), runs.code_hash("captions")
    edit("captions/words.csv", "femur", "tibia")(world)
    after = runs.code_hash("figures"), runs.code_hash("captions")
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]


def test_every_stage_has_code_and_no_room_of_its_reach_is_forgotten():
    for stage, module in runs.MODULES.items():
        closure = runs.code.code_closure(module)
        rooms = {path.split("/")[0].removesuffix(".py") for path in closure}
        assert "cohort" in rooms and not rooms & {*runs.code.LEFT_OUT}, stage
    assert set(runs.MODULES) == set(runs.NOTEBOOKS)


def test_a_changed_widget_remakes_no_run_also_where_its_record_names_widgets():
    new = runs.code.code_closure("bonelib.experiments.data")
    old = new | {"explore/cases.py": "0" * 12}
    assert not runs.code.changed_rooms(old, new)
    assert runs.code.changed_rooms(old | {"cohort.py": "0" * 12}, new) == ["cohort"]


def test_one_module_can_be_imported_by_any_room_for_it_loads_nothing_heavy():
    call = "import sys, bonelib.runs.files; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True)
    assert not {"pandas", "numpy", "torch"} & set(done.stdout.split())


# ---------------------------------------------------------------------- find and collect
def test_a_missing_variant_is_an_error_that_lists_those_there_are():
    finished("data", size=64)
    said = "bigger-s0 .*found: default-s0.*-p VARIANT bigger, .* -p FROM data:default"
    with pytest.raises(FileNotFoundError, match=said):
        runs.find("data", **PLACE, variant="bigger")
    runs.start("data", **PLACE, variant="bigger", size=128).finish()
    assert runs.find("data", **PLACE, variant="bigger").settings["size"] == 128


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        ("", "mine"),
        ("default", "default"),
        ("data:a,pretraining:b", "a"),
        ("pretraining:b", "mine"),
    ],
)
def test_a_run_may_read_other_variants_than_its_own(inputs, found):
    assert runs.input_variant(inputs, "data", default="mine") == found


@pytest.mark.parametrize("wrong", ["dota:a", "data:", "data:a,b"])
def test_a_variant_of_no_stage_is_refused(wrong):
    with pytest.raises(ValueError, match="is no stage with a variant.*stages: data, baselines"):
        runs.input_variant(wrong, "data", default="mine")


def test_find_says_what_exists_and_which_notebook_makes_what_is_missing():
    runs.start("pretraining", **PLACE, variant="signs").finish()
    with pytest.raises(FileNotFoundError) as refusal:
        runs.find("pretraining", **PLACE, seed=2)
    for part in ("default-s2", "found: signs-s0", "bonelib run 04 --profile tiny -p DATA phantom"):
        assert part in str(refusal.value)


def test_find_refuses_a_run_made_with_other_settings_than_expected():
    finished("pretraining", test="fold0")
    assert runs.find("pretraining", **PLACE, test="fold0").finished
    with pytest.raises(ValueError, match="'fold0'.*asks for .*'center:A'.*notebook 04"):
        runs.find("pretraining", **PLACE, test="center:A")


def test_collect_flattens_settings_and_metrics_and_marks_the_stale(folder):
    chain()
    remake("data", size=64)
    table = runs.collect(profile="tiny").set_index("stage")
    assert table["stale"].to_dict() == {"data": False, "pretraining": True, "finetuning": True}
    assert table.loc["data", "settings.size"] == 64 and "remade" in table.loc["pretraining", "why"]
    assert runs.collect(profile="tiny", data="btxrd").empty
    hospital(folder / "btxrd", "a.png")
    run = runs.start("baselines", profile="tiny", data="btxrd", root=folder / "btxrd")
    run.finish(auroc=np.float32(0.5), n=np.int64(7), flags=np.array([True]))
    row = runs.collect(profile="tiny", data="btxrd", root=folder / "btxrd").iloc[0]
    assert row["metrics.auroc"] == 0.5 and row["metrics.n"] == 7, "numbers stay numbers"
    assert json.loads((run.path / "record.json").read_text())["metrics"]["flags"] == [True]


def test_a_record_refuses_what_it_could_not_compare_later():
    with pytest.raises(TypeError, match="can't keep"):
        runs.start("data", **PLACE, model=object())


# ---------------------------------------------------------------------- tables
def test_a_table_comes_back_as_it_was_saved():
    table = pd.DataFrame(
        {
            "site": [("femur", "tibia"), (), ("knee",)],
            "view": [("frontal",), ("lateral",), ("oblique",)],  # tuples of equal length
            "none": [(), (), ()],
            "label": pd.Series(["tumor", pd.NA, "normal"], dtype="object"),
            "age": [1.5, np.nan, 3.0],
            "fold": [0, 1, 2],
        }
    )
    run = runs.start("data", **PLACE)
    run.save_table("cohort", table)
    back = run.table("cohort")
    for column in ("site", "view", "none"):
        assert back[column].tolist() == table[column].tolist()
        assert all(isinstance(cell, tuple) for cell in back[column])
    assert back["label"].isna().tolist() == [False, True, False] and back["label"][2] == "normal"
    assert back["fold"].dtype == table["fold"].dtype
    with pytest.raises(FileNotFoundError, match="no table 'labels' .tables: cohort"):
        run.table("labels")


def test_an_array_comes_back_as_it_was_saved():
    run = runs.start("gradcam", **PLACE)
    maps = np.random.default_rng(0).random((2, 3, 4)).astype(np.float16)
    run.save_array("maps", maps)
    assert (run.array("maps") == maps).all() and run.array("maps").dtype == np.float16


# ---------------------------------------------------------------------- figures
def draw():
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(2, 2))
    figure.subplots().plot([0, 1], [1, 0], label="é")
    return figure


def test_an_unchanged_figure_is_an_unchanged_file():
    run = runs.start("data", **PLACE)
    contents = []
    for _ in range(2):
        run.save_figure("01_counts", draw())
        contents.append(
            [(run.path / f"figures/01_counts.{s}").read_bytes() for s in ("pdf", "png")]
        )
    assert contents[0] == contents[1] and contents[0][0][:4] == b"%PDF"
    assert b"CreationDate" not in contents[0][0], "which changes by the second"


def test_letters_that_are_wider_in_the_file_are_not_cut():
    import matplotlib.pyplot as plt
    from PIL import Image

    figure, ax = plt.subplots(figsize=(6.3, 3), layout="constrained", dpi=110)
    told = [f".{k}47 [.832, .862]; 1,{k}43 patients, internal test" for k in range(8)]
    ax.set_yticks(range(8), told, size=6.8)
    ax.secondary_yaxis("right").set_yticks(range(8), told, size=6.8)
    run = runs.start("data", **PLACE)
    run.save_figure("02_reported", figure)
    plt.close(figure)
    grey = np.asarray(Image.open(run.path / "figures/02_reported.png").convert("L"))
    assert grey.shape[1] == 1260, "the width it was made for"
    assert (grey[:, [0, 1, -2, -1]] > 250).all(), "nothing reaches the edge"


def test_tiny_never_publishes_and_demo_does(folder):
    runs.start("data", **PLACE).save_figure("01_counts", draw())
    assert not (folder / "figures").exists()
    run = runs.start("finetuning", profile="demo", data="phantom", task="tumor", variant="lora")
    run.save_figure("05_roc", draw())
    run.save_text("results.md", "text")
    run.save_text("results.tex", "text", publish=True)
    published = sorted(p.name for p in (folder / "figures" / "phantom").iterdir())
    assert published == [
        "05_roc_tumor_lora-s0.pdf",
        "05_roc_tumor_lora-s0.png",
        "results_tumor_lora-s0.tex",
    ]
    assert sorted(set(run.finish().notes["published"])) == published
    plain = runs.start("data", profile="demo", data="phantom")
    plain.save_figure("01_counts", draw())
    assert (folder / "figures" / "phantom" / "01_counts.pdf").exists(), "no suffix by default"


# ---------------------------------------------------------------------- places
def test_the_folder_of_a_data_set_is_found_or_asked_for(folder, monkeypatch):
    with pytest.raises(FileNotFoundError, match="DATA_ROOT.*BONELIB_DATA"):
        runs.data_root("btxrd")
    with pytest.raises(FileNotFoundError, match="No folder .*missing.*DATA_ROOT"):
        runs.data_root("btxrd", str(folder / "missing"))
    monkeypatch.setenv("BONELIB_DATA", str(folder))
    with pytest.raises(FileNotFoundError, match="btxrd"):
        runs.data_root("btxrd")
    (folder / "btxrd").mkdir()
    (folder / "grazpedwri-dx").mkdir()
    assert runs.data_root("btxrd") == folder / "btxrd"
    assert runs.data_root("grazpedwri") == folder / "grazpedwri-dx", "as it is downloaded"
    assert runs.data_root("btxrd", f"{folder}/btxrd/..") == folder, "DATA_ROOT wins"
    assert runs.data_root(str(folder / "own.csv")) == folder


def test_a_csv_is_named_after_its_images_whatever_its_form(folder):
    ids = [f"{k}" for k in range(3)]
    names = {}
    for k, (text, code) in enumerate(
        [
            ("image_id,path\n" + "".join(f"{i},{i}.png\n" for i in ids), "utf-8"),
            ("\ufeffpath;image_id\r\n" + "".join(f"x;{i}\r\n" for i in ids[::-1]), "utf-8"),
            ("image_id\tnote\n" + "".join(f"{i}\té\n" for i in ids), "latin-1"),
            ("image_id\tnote\n" + "".join(f"{i}\té\n" for i in ids), "utf-16"),
            ("image_id,path\n" + "".join(f"{i},{i}.png\n" for i in [*ids, 3]), "utf-8"),
        ]
    ):
        (folder / str(k)).mkdir()
        file = folder / str(k) / "own.csv"
        file.write_bytes(text.encode(code))
        names[k] = data_name(str(file))
    assert len({names[k] for k in range(4)}) == 1 and names[4] != names[0]
    assert all(name.startswith("own-") and len(name) == 10 for name in names.values())
    with pytest.raises(FileNotFoundError, match="There is no file .*gone.csv"):
        data_name(str(folder / "gone.csv"))


@pytest.mark.parametrize(
    "wrong", [{"data": "{}/btxrd"}, {"variant": "a/b"}, {"task": "../x"}, {"variant": ""}]
)
def test_a_name_never_leads_out_of_the_runs_folder(folder, wrong):
    wrong = {key: value.format(folder) for key, value in wrong.items()}
    with pytest.raises(ValueError, match="name"):
        runs.start("data", **PLACE | wrong)
    assert not (folder / "btxrd").exists()


def test_a_file_or_folder_appears_whole_or_not_at_all(folder):
    with pytest.raises(RuntimeError), runs.replacing(folder / "new" / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    for text in ("one", "two"):
        with runs.replacing_folder(folder / "new" / "b") as temporary:
            (temporary / text).write_text(text)
    with pytest.raises(RuntimeError), runs.replacing_folder(folder / "new" / "b") as temporary:
        (temporary / "half").write_text("half")
        raise RuntimeError
    assert [p.relative_to(folder / "new").as_posix() for p in (folder / "new").rglob("*")] == [
        "b",
        "b/two",
    ]


@pytest.mark.parametrize(("umask", "file", "inside"), [(0o077, 0o600, 0o700), (0o27, 0o640, 0o750)])
def test_who_may_read_is_as_the_users_umask_says(folder, umask, file, inside):
    before = os.umask(umask)
    try:
        with runs.replacing(folder / "a.txt") as temporary:
            temporary.write_text("ages")
        with runs.replacing_folder(folder / "b") as temporary:
            (temporary / "c").write_text("ages")
    finally:
        os.umask(before)
    assert (folder / "a.txt").stat().st_mode & 0o777 == file
    assert (folder / "b").stat().st_mode & 0o777 == inside


# ---------------------------------------------------------------------- checkpoints
def opened(**settings):
    return runs.start("pretraining", **PLACE, **settings)


def test_a_checkpoint_comes_back_for_the_same_settings_and_no_others():
    import torch

    state = {"epoch": 3, "model": {"w": torch.arange(4.0)}, "best": float("-inf"), "rows": [{}]}
    run = opened(lr=0.1)
    assert runs.checkpoint(run) is None
    runs.save_checkpoint(run, state)
    again = opened(lr=0.1)
    assert runs.checkpoint(again)["epoch"] == 3
    assert torch.equal(runs.checkpoint(again)["model"]["w"], torch.arange(4.0))
    with pytest.raises(ValueError, match="lr: 0.1 there, 0.2 asked\n.*choose another VARIANT"):
        runs.checkpoint(opened(lr=0.2))
    assert (again.path / "checkpoint.pt").exists()
    runs.mark_trained(again)
    assert not (again.path / "checkpoint.pt").exists()


def test_a_checkpoint_or_a_plan_of_other_code_is_refused_with_the_cure(world, monkeypatch):
    run = world.pretraining(inputs=[])
    runs.save_checkpoint(run, {"epoch": 3})
    edit("figures/style.py", "pass", "return 1")(world)
    assert runs.checkpoint(world.pretraining(inputs=[])) == {"epoch": 3}, "it only draws"
    edit("losses.py", "1", "2")(world)
    with pytest.raises(ValueError, match="other code: losses.*--keep-other-code.*REUSE=False"):
        runs.checkpoint(world.pretraining(inputs=[]))
    run = world.pretraining(inputs=[])
    runs.save_plan(run)
    assert runs.reopen(run.path).head == run.head
    edit("losses.py", "1", "3")(world)
    with pytest.raises(ValueError, match="planned by other code: losses. Run the notebook.*again"):
        runs.reopen(run.path)
    monkeypatch.setenv("BONELIB_OTHER_CODE", "keep")
    assert runs.checkpoint(runs.reopen(run.path)) == {"epoch": 3}


def test_a_plan_is_carried_out_elsewhere_and_found_by_the_one_who_made_it():
    planned = opened(lr=0.1)
    assert not planned.trained and not runs.planned(planned.path)
    with pytest.raises(FileNotFoundError, match="holds no plan.json. Run notebook 04"):
        runs.reopen(planned.path)
    runs.save_plan(planned)
    assert runs.planned(planned.path) and str(planned.path) in runs.how_to_train(planned.path)
    assert "train '/a b'" in runs.how_to_train("/a b"), "it can be pasted into a shell"
    elsewhere = runs.reopen(planned.path)
    assert elsewhere.head == planned.head and elsewhere.name == planned.name
    elsewhere.save_table("history", pd.DataFrame({"epoch": [1]}))
    runs.mark_trained(elsewhere)
    again = opened(lr=0.1)
    assert again.trained and not again.finished and len(again.table("history")) == 1
    with pytest.raises(FileNotFoundError, match="holds no plan.json"):
        runs.reopen(planned.path)
    again.finish()
    with pytest.raises(ValueError, match="holds a finished run: nothing is left to train"):
        runs.reopen(planned.path)
    other = opened(lr=0.2, reuse=False)
    assert not other.trained
    with pytest.raises(FileNotFoundError):
        other.table("history")


def test_a_full_disk_leaves_the_last_good_checkpoint(monkeypatch):
    import torch

    run = opened()
    runs.save_checkpoint(run, {"epoch": 1})
    save = torch.save

    def fill(value, path):
        save(value, path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fill)
    with pytest.raises(OSError, match="No space left.*last good one is kept; make room"):
        runs.save_checkpoint(run, {"epoch": 2})
    monkeypatch.undo()
    assert runs.checkpoint(run) == {"epoch": 1}
    assert [p.name for p in run.path.iterdir()] == ["checkpoint.pt"], "no half-written file"


def test_a_damaged_checkpoint_is_named():
    run = opened()
    (run.path / "checkpoint.pt").write_bytes(b"PK half a file")
    with pytest.raises(ValueError, match="checkpoint.pt can't be read.*Delete it"):
        runs.checkpoint(run)


class WithoutWidgets(ast.NodeTransformer):
    """What a reader explores makes no result: a change of it makes no run stale."""

    def visit_Call(self, node):
        widget = ast.unparse(node.func).startswith("exploring.")
        return ast.Constant(None) if widget else self.generic_visit(node)


def test_the_code_of_a_stage_is_what_its_notebook_imports():
    modules = runs.ROOT
    files = set(modules.glob("bonelib/experiments/**/*.py"))
    for stage, number in runs.NOTEBOOKS.items():
        path = headless.notebooks().get(number)
        if path is None:
            continue
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        tree = WithoutWidgets().visit(ast.parse(text))
        met = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        used = set()
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or "experiments" not in node.module:
                continue
            names = {f"{node.module}.{a.name}" for a in node.names if (a.asname or a.name) in met}
            for name in names:
                place = name.replace(".", "/")
                there = {modules / f"{place}.py", modules / place / "__init__.py"} & files
                used |= {name} if there and name != "bonelib.experiments.settings" else set()
        assert used == set(runs.MODULES[stage].split()), stage
