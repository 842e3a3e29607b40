"""Protects the hand-over: what is finished, what is reused, what is refused as stale."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bonelib import runs

PLACE = {"profile": "tiny", "data": "phantom"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BONELIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BONELIB_FIGURES", str(tmp_path / "figures"))
    monkeypatch.delenv("BONELIB_DATA", raising=False)
    monkeypatch.setattr(runs.machine, "commit", lambda: "abc1234")
    return tmp_path


def finished(stage, inputs=(), metrics=None, **settings):
    run = runs.start(stage, **PLACE, inputs=inputs, **settings)
    run.finish(**(metrics or {}))
    return run


def chain():
    """Three runs that build on each other: data, pretraining on it, finetuning on both."""
    data = finished("data", size=64)
    pretraining = finished("pretraining", [data], test="fold0")
    return data, pretraining, finished("finetuning", [data, pretraining], test="fold0")


def remake(stage, inputs=(), **settings):
    """Make a run again so that its record differs (records carry a time to the second)."""
    run = runs.start(stage, **PLACE, inputs=inputs, reuse=False, **settings)
    run.note(remade=True)
    run.finish()
    return run


# ---------------------------------------------------------------------- reuse
def test_a_finished_run_comes_back_with_its_tables():
    first = runs.start("data", **PLACE, size=64)
    first.save_table("scores", pd.DataFrame({"auroc": [0.7]}))
    first.finish(auroc=0.7)
    again = runs.start("data", **PLACE, size=64)
    assert again.finished and again.table("scores")["auroc"].tolist() == [0.7]
    before = again.hash
    assert again.finish(auroc=0.1)["metrics"] == {"auroc": 0.7}
    assert again.hash == before, "a loaded run keeps the record it has"


def test_other_settings_are_refused_with_both_values_and_both_ways_out():
    finished("data", size=64, folds=5)
    with pytest.raises(ValueError) as refusal:
        runs.start("data", **PLACE, size=128, folds=5, extra="new")
    message = str(refusal.value)
    assert "size: 64 there, 128 asked" in message and "extra: None there, 'new' asked" in message
    assert "folds" not in message and "VARIANT" in message and "REUSE=False" in message
    assert runs.find("data", **PLACE).settings["size"] == 64, "a refusal destroys nothing"


def test_settings_that_json_writes_differently_are_still_the_same_settings():
    finished("data", fields=("view", "site"), root=Path("somewhere"), rate=np.float64(0.1))
    assert runs.start("data", **PLACE, fields=["view", "site"], root="somewhere", rate=0.1).finished
    assert runs.find("data", **PLACE, fields=("view", "site")).finished


def test_a_run_whose_input_was_remade_is_made_anew():
    data, _, _ = chain()
    data = remake("data", size=64)
    assert not runs.start("pretraining", **PLACE, inputs=[data], test="fold0").finished


def test_a_run_that_read_another_table_is_made_anew():
    table = pd.DataFrame({"image_id": ["a", "b"], "tumor": ["normal", pd.NA]})
    runs.start("data", **PLACE, content=runs.table_hash(table)).finish()
    assert runs.start("data", **PLACE, content=runs.table_hash(table.copy())).finished
    changed = table.assign(tumor=["tumor", pd.NA])
    assert not runs.start("data", **PLACE, content=runs.table_hash(changed)).finished


def test_a_loaded_run_keeps_its_tables():
    run = runs.start("data", **PLACE)
    run.save_table("scores", pd.DataFrame({"a": [1]}))
    run.save_array("maps", np.ones(2))
    run.finish()
    again = runs.start("data", **PLACE)
    again.save_table("scores", pd.DataFrame({"a": [2]}))
    again.save_array("maps", np.zeros(2))
    assert again.table("scores")["a"].tolist() == [1] and again.array("maps").sum() == 2


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
        with pytest.raises(ValueError, match=f"is stale: .*{state}.*bonelib run --profile tiny"):
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
    with pytest.raises(ValueError, match="pretraining.* is stale: its input .*data.* was remade"):
        runs.find("zero_shot", **PLACE)


def test_asking_for_an_input_the_run_does_not_have_lists_those_it_has():
    _, _, finetuning = chain()
    with pytest.raises(ValueError, match="inputs: data, pretraining"):
        finetuning.upstream("baselines")


def test_an_unfinished_run_is_no_input():
    with pytest.raises(ValueError, match="not finished"):
        runs.start("pretraining", **PLACE, inputs=[runs.start("data", **PLACE)])


# ---------------------------------------------------------------------- crashes and remakes
def test_a_crash_between_start_and_finish_leaves_no_record_and_no_old_tables():
    run = finished("data", size=64)
    run.save_table("predictions", pd.DataFrame({"a": [1]}))
    run.save_array("maps", np.ones(3))
    run.save_text("results.tex", "old")
    (run.path / "bundle").mkdir()
    (run.path / "bundle" / "weights").write_text("old")
    with pytest.raises(ZeroDivisionError):
        runs.start("data", **PLACE, size=64, reuse=False)
        _ = 1 / 0
    assert not (run.path / "record.json").exists()
    assert [p.name for p in run.path.rglob("*") if p.is_file()] == []
    with pytest.raises(FileNotFoundError):
        runs.find("data", **PLACE)


def test_a_table_that_fails_to_write_leaves_the_old_one_whole():
    run = runs.start("data", **PLACE)
    run.save_table("scores", pd.DataFrame({"a": [1]}))
    with pytest.raises((TypeError, ValueError, AttributeError)):
        run.save_table("scores", pd.DataFrame({"a": [object()]}))
    assert run.table("scores")["a"].tolist() == [1]
    assert [p.name for p in run.path.iterdir()] == ["scores.parquet"], "no temporary file is left"


def test_openings_survive_a_remake_and_are_counted_after_the_record_too():
    run = runs.start("zero_shot", **PLACE)
    run.log_opening({"test": "fold0"})
    run.finish()
    before = run.hash
    loaded = runs.start("zero_shot", **PLACE)
    loaded.log_opening({"test": "fold0"})  # a notebook that opens on every reading
    assert len(loaded.record["openings"]) == 2 and loaded.hash == before
    assert runs.collect(profile="tiny")["openings"].tolist() == [2]
    again = runs.start("zero_shot", **PLACE, reuse=False)
    again.log_opening({"test": "fold1"})
    assert [e["test"] for e in again.finish()["openings"]] == ["fold0", "fold0", "fold1"]


def test_the_code_of_a_room_is_told_by_its_sources_and_word_banks(folder, monkeypatch):
    (folder / "bonelib" / "phantom").mkdir(parents=True)
    files = [folder / "bonelib" / n for n in ("phantom/a.py", "captions.py", "captions.csv")]
    for file in files:
        file.write_text("one")
    monkeypatch.setattr(runs.machine, "ROOT", folder)

    def hashes():
        return [runs.code_hash(room) for room in ("phantom", "captions", "")]

    before = hashes()
    files[2].write_text("two")
    assert [a == b for a, b in zip(before, hashes(), strict=True)] == [True, False, False]
    before = hashes()
    files[0].write_text("two")
    assert [a == b for a, b in zip(before, hashes(), strict=True)] == [False, True, False]


# ---------------------------------------------------------------------- find and collect
def test_find_falls_back_to_the_default_variant_only_where_the_stage_lacks_it():
    finished("data", size=64)
    assert runs.find("data", **PLACE, variant="bigger").settings["size"] == 64
    runs.start("data", **PLACE, variant="bigger", size=128).finish()
    assert runs.find("data", **PLACE, variant="bigger").settings["size"] == 128


def test_find_says_what_exists_and_which_notebook_makes_what_is_missing():
    runs.start("pretraining", **PLACE, variant="signs").finish()
    with pytest.raises(FileNotFoundError) as refusal:
        runs.find("pretraining", **PLACE, seed=2)
    for part in ("default-s2", "found: signs-s0", "bonelib run 04 --profile tiny -p DATA phantom"):
        assert part in str(refusal.value)


def test_find_refuses_a_run_made_with_other_settings_than_expected():
    finished("pretraining", test="fold0")
    assert runs.find("pretraining", **PLACE, test="fold0").finished
    with pytest.raises(ValueError, match="'fold0'.*asks for .*'center'.*notebook 04"):
        runs.find("pretraining", **PLACE, test="center")


def test_collect_flattens_settings_and_metrics_and_marks_the_stale():
    chain()
    remake("data", size=64)
    table = runs.collect(profile="tiny").set_index("stage")
    assert table["stale"].to_dict() == {"data": False, "pretraining": True, "finetuning": True}
    assert table.loc["data", "settings.size"] == 64
    assert runs.collect(profile="tiny", data="btxrd").empty
    run = runs.start("baselines", profile="tiny", data="btxrd")
    run.finish(auroc=np.float32(0.5), n=np.int64(7), flags=np.array([True]))
    row = runs.collect(profile="tiny", data="btxrd").iloc[0]
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
    assert sorted(set(run.finish()["notes"]["published"])) == published
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
    assert runs.data_root("btxrd") == folder / "btxrd"
    assert runs.data_root("btxrd", str(folder)) == folder, "DATA_ROOT wins"
    assert runs.data_root(str(folder / "own.csv")) == folder


def test_two_csv_files_of_one_name_have_runs_of_their_own(folder, monkeypatch):
    one, two = str(folder / "a" / "own.csv"), str(folder / "b" / "own.csv")
    names = {runs.data_name(one), runs.data_name(two)}
    assert len(names) == 2 and all(n.startswith("own-") and len(n) == 10 for n in names)
    (folder / "a").mkdir()
    monkeypatch.chdir(folder / "a")
    assert runs.data_name("own.csv") == runs.data_name(one), "the same file from anywhere"
    assert runs.data_name("btxrd") == "btxrd"


@pytest.mark.parametrize(
    "wrong", [{"data": "{}/btxrd"}, {"variant": "a/b"}, {"task": "../x"}, {"variant": ""}]
)
def test_a_name_never_leads_out_of_the_runs_folder(folder, wrong):
    wrong = {key: value.format(folder) for key, value in wrong.items()}
    with pytest.raises(ValueError, match="name"):
        runs.start("data", **PLACE | wrong)
    assert not (folder / "btxrd").exists()


def test_a_file_appears_whole_or_not_at_all(folder):
    with pytest.raises(RuntimeError), runs.replacing(folder / "new" / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list((folder / "new").iterdir()) == []


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


def test_a_plan_is_carried_out_elsewhere_and_found_by_the_one_who_made_it():
    planned = opened(lr=0.1)
    assert not planned.trained
    with pytest.raises(FileNotFoundError, match="holds no plan.json. Run notebook 04"):
        runs.reopen(planned.path)
    runs.save_plan(planned)
    elsewhere = runs.reopen(planned.path)
    assert elsewhere.head == planned.head and elsewhere.name == planned.name
    elsewhere.save_table("history", pd.DataFrame({"epoch": [1]}))
    runs.mark_trained(elsewhere)
    again = opened(lr=0.1)
    assert again.trained and not again.finished and len(again.table("history")) == 1
    with pytest.raises(ValueError, match="is trained already"):
        runs.reopen(planned.path)
    other = opened(lr=0.2)
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
