"""Protects the argument: all notebooks run on tiny, hand over, and leave sound records."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from notebook_here import run_here
from PIL import Image

from bonelib import cohort, deidentify, evaluation, headless, phantom, runs
from bonelib.__main__ import main

pytestmark = pytest.mark.notebooks
STAGES = {
    "data": "any",
    "baselines": "tumor",
    "reports": "any",
    "pretraining": "any",
    "finetuning": "tumor",
    "zero_shot": "tumor",
    "gradcam": "tumor",
    "results": "tumor",
}


def places(folder: Path) -> pytest.MonkeyPatch:
    patch = pytest.MonkeyPatch()
    for name in ("RUNS", "CACHE", "FIGURES"):
        patch.setenv(f"BONELIB_{name}", str(folder / name.lower()))
    return patch


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Run all notebooks once on the synthetic cohort."""
    folder = tmp_path_factory.mktemp("tiny")
    patch = places(folder)
    outcomes = headless.run(profile="tiny", say=print)
    yield {outcome.step.stage: outcome for outcome in outcomes}
    patch.undo()


def found(stage: str) -> runs.Record:
    return runs.find(stage, profile="tiny", data="phantom", task=STAGES[stage])


def test_every_notebook_finishes(tiny):
    assert {stage: o.error for stage, o in tiny.items() if o.status != "executed"} == {}
    assert set(STAGES) <= set(tiny)


def test_each_figure_is_there_in_both_formats_and_none_is_published(tiny):
    for stage in STAGES:
        figures = found(stage).path / "figures"
        names = {p.stem for p in figures.glob("*.png")}
        assert names and names == {p.stem for p in figures.glob("*.pdf")}, stage
        cells = json.loads((found(stage).path / "notebook.ipynb").read_text())["cells"]
        outputs = [o for cell in cells for o in cell.get("outputs", ())]
        shown = [o for o in outputs if "image/png" in o.get("data", {})]
        widgets = sum("exploring." in "".join(cell["source"]) for cell in cells)
        assert len(shown) == len(names) + widgets, f"{stage}: each figure is shown once"
    assert not runs.figures_folder("phantom").exists()


def identities(root: Path) -> set[str]:
    """Return what names a planted person; not what is too short to mean one alone."""
    index = pd.read_csv(root / "reports.csv", dtype=str)
    found = {*index["name"], *index["accession"]}
    for file in root.glob("reports/*.ann"):
        text = file.with_suffix(".txt").read_text()
        found |= {
            text[start:end]
            for start, end, kind in deidentify.read_brat(file.read_text())
            if kind in ("PATIENT", "PERSON", "ID", "NATIONAL_ID", "PHONE", "URL")
        }
    return {name for name in found if len(name) > 9 or (len(name) > 5 and name.isdigit())}


def contents(folder: Path) -> str:
    """Return all that can be read below a folder; tables are packed, so they are read as tables."""
    held = []
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        packed = file.suffix == ".parquet"
        data = pd.read_parquet(file).to_csv().encode() if packed else file.read_bytes()
        held.append(data.decode(errors="replace"))
    return "\n".join(held)


def test_the_run_of_the_reports_holds_no_planted_identity(tiny):
    run, root = found("reports"), Path(found("data").notes["root"])
    (shown,) = runs.cache_folder("phantom").glob("*-examples")  # others of the same pool of names
    examples, held = contents(shown), contents(run.path)
    known = {name for name in identities(root) if name not in examples}
    assert len(known) > 200 and run.table("reports")["text"].str.len().sum() > 10_000
    assert sorted(name for name in known if name in held) == []
    assert any(name in contents(root / "reports") for name in known)  # so the search can fail


def test_reports_become_safe_text_and_captions_of_images_that_are_not_tested(tiny):
    run, data = found("reports"), found("data").table("cohort")
    assert (run.table("leaks").set_index("type")["recall"].dropna() > 0.9).all()
    told = run.table("captions")
    assert set(told["origin"]) == {"facts", "table"} and set(told["language"]) == {"fr", "en"}
    assert not set(told["image_id"]) & set(data.loc[data["fold"] == 0, "image_id"])
    assert set(told["image_id"]) <= set(run.table("images")["image_id"])
    assert run.metrics["facts_f1"] > 0.8


def test_a_hospitals_export_goes_from_files_to_captions_to_pretraining(own_places, tmp_path):
    drawn = phantom.write(tmp_path / "drawn", images=96, size=96, seed=5)
    export = phantom.write_dicom(drawn, tmp_path / "export")
    given = {"DATA": "dicom", "DATA_ROOT": str(export)}
    run_here("01", **given)
    run = run_here("03", **given)["run"]
    pairs = run_here("04", **given)["run"].table("pairs")
    run = runs.find("reports", profile="tiny", data="dicom", root=export)
    assert run.notes["came"]["whose patient the index names"] > 20
    assert run.metrics["held"] == 0 and len(run.table("facts")) > 100
    (shown,) = runs.cache_folder("phantom").glob("*-examples")
    examples, held = contents(shown), contents(run.path)
    known = {name for name in identities(drawn) if name not in examples}
    assert len(known) > 200 and sorted(name for name in known if name in held) == []
    words = {"CAPTIONS": "reports", "LANGUAGE": "fr", "RECIPE": "multilingual"}
    french = run_here("04", **given, **words, VARIANT="fr", FROM="default")["run"].table("pairs")
    assert french["caption"].str.contains("Radiographie|Cliché|Incidence").all()
    assert not set(french["caption"]) & set(pairs["caption"])


def test_training_lowered_the_loss(tiny):
    history = found("pretraining").table("history")
    losses = history["loss"].dropna().to_numpy()
    assert losses[-1] < losses[0]
    tuned = dict(list(found("finetuning").table("history").groupby("start")))
    assert set(tuned) == {"scratch", "imagenet", "captions"}
    for name in ("imagenet", "captions"):  # two epochs of 31 images teach random weights nothing
        assert tuned[name]["loss"].iloc[-1] < tuned[name]["loss"].iloc[0], name


@pytest.mark.parametrize("stage", ["baselines", "finetuning", "zero_shot"])
def test_predictions_are_probabilities_of_test_images_only(tiny, stage):
    run = found(stage)
    predictions = run.table("predictions")
    columns = [f"p_{name}" for name in cohort.task("tumor").classes]
    np.testing.assert_allclose(predictions[columns].sum(axis=1), 1, atol=1e-9)
    assert set(predictions["split"]) == {"test"}
    assert predictions["label"].notna().all()
    assert len(run.openings) == 1
    methods = [name for name in ("start", "strategy", "sees", "detail") if name in predictions]
    per_method = predictions.groupby(methods)["image_id"]
    assert (per_method.nunique() == per_method.size()).all()


def test_the_audit_asks_every_task_and_finds_no_leak_in_the_split(tiny):
    found_here = found("data").table("audit")
    assert {"tumor", "malignancy"} <= set(found_here["task"])
    assert set(found_here.loc[found_here["check"] == "split", "level"]) == {"green"}
    assert {"lesion", "thumbnail", "origin", "file"} <= set(found_here["check"])


def test_no_patient_is_trained_on_and_tested(tiny):
    data = found("data").table("cohort")
    tested = set(found("finetuning").table("predictions")["patient"])
    trained = set(data.loc[data["fold"] != 0, "patient"])
    assert tested and not tested & trained


def test_zero_shot_is_called_so_only_without_a_label_in_the_captions(tiny):
    pretraining, notes = found("pretraining"), found("zero_shot").notes
    assert not set(pretraining.settings["caption_fields"]) & set(cohort.TASKS)
    assert notes["kind"] == "zero-shot"


def test_heat_maps_stand_beside_maps_that_saw_no_image(tiny):
    scores = found("gradcam").table("scores")
    unseeing = set(scores.loc[scores["sees"] == "none", "detail"])
    assert unseeing == {"centre prior", "bone prior", "uniform map", "random map"}
    assert set(scores["role"]) == {"chosen", "plain", "prior"}
    assert scores["value"].between(0, 1).all()


def test_the_results_table_names_every_method_and_metadata(tiny):
    results = found("results").table("results")
    for stage in ("baselines", "finetuning", "zero_shot"):
        columns = ["start", "strategy", "sees", "detail"]
        methods = set(found(stage).table("predictions")[columns].itertuples(index=False))
        own = results.loc[results["stage"] == stage, columns]
        assert methods <= set(own.itertuples(index=False))
    missing = results[results["status"].eq("weights not available")] if "status" in results else []
    assert len(missing) == 0 or missing["AUROC"].isna().all()
    assert "metadata only" in (found("results").path / "results.md").read_text()


@pytest.mark.parametrize("test, told", [("fold3", "fold0, fold1, fold2"), ("center:9", "center:1")])
def test_a_test_set_that_the_split_does_not_have_is_refused_at_once(tiny, capsys, test, told):
    assert (
        main(["run", "04", "-p", "TEST", test, "-p", "VARIANT", "x", "-p", "FROM", "default"]) == 2
    )
    said = capsys.readouterr().err
    assert "Nothing was started" in said and repr(test) in said and told in said


def test_a_second_call_reuses_everything(tiny):
    again = headless.run(profile="tiny")
    assert {outcome.status for outcome in again} == {"reused"}


KINDS = {
    "kl_grade": ("02", "05", "06", "07", "09"),
    "bone_age": ("02", "05", "06", "07", "09"),
    "entity": ("02", "05", "06", "07", "09"),
}


def labelled_table(folder: Path, *, pictures: int = 48) -> str:
    """Write 48 small pictures of 24 patients with a label of every kind; return the CSV."""
    rng, rows = np.random.default_rng(0), []
    entities = cohort.task("entity").classes
    for i in range(48):
        patient = i // 2
        grade, months = patient % 5, 12 * (patient % 15) + 30
        if i < pictures:
            grey = rng.integers(0, 90, (70, 50)) + 25 * grade
            Image.fromarray(grey.astype(np.uint8)).save(folder / f"{i}.png")
        row = dict(image_id=str(i), path=f"{i}.png", patient=f"p{patient}", center="AB"[i % 2])
        row |= dict(site=("hand", "knee")[i % 2], sex="FM"[patient % 2], view="frontal")
        # eight entities that occur, one of them rare; the ninth never does
        entity = entities[0] if patient < 9 else entities[patient % 7]
        row |= dict(kl_grade=grade, bone_age=months, entity=entity)
        rows.append(row)
    rows[0] |= dict(kl_grade="", bone_age="", entity="")  # unlabelled is no reason to leave it out
    pd.DataFrame(rows).to_csv(folder / "mine.csv", index=False)
    return str(folder / "mine.csv")


@pytest.fixture
def own_places(tmp_path):
    patch = places(tmp_path)
    yield tmp_path
    patch.undo()


def test_every_notebook_takes_every_kind_of_task(own_places):
    data = labelled_table(own_places)
    run_here("01", DATA=data, TASK="kl_grade")
    run_here("04", DATA=data, CAPTION_FIELDS="site,view,sex")
    asked = run_here("08", DATA=data, TASK="kl_grade")  # every bone task at once
    assert set(asked["scores"]["task"]) == {"kl_grade", "bone_age"}
    assert {"scratch", "imagenet", "captions"} <= set(asked["scores"]["start"])
    for task, numbers in KINDS.items():
        for number in numbers:
            left = run_here(number, DATA=data, TASK=task)
            assert left["run"].finished, (task, number)
        results = left["scores"]
        metric = evaluation.primary(task).metric
        assert results[metric].notna().sum() > 8, task
        assert ("bone_tasks" in set(results["stage"])) == (task == "kl_grade")
        tuned = runs.find("finetuning", profile="tiny", data=data, task=task)
        predicted = tuned.table("predictions")
        if task == "bone_age":
            assert predicted["value"].between(-100, 500).all()  # months, not standard deviations
        else:
            columns = [f"p_{name}" for name in cohort.task(task).classes]
            np.testing.assert_allclose(predicted[columns].sum(axis=1), 1, atol=1e-9)


def test_a_table_without_pictures_passes_the_notebooks_that_need_none(own_places):
    data = labelled_table(own_places, pictures=2)
    run = run_here("01", DATA=data, TASK="kl_grade")["run"]
    assert len(run.table("excluded")) == 46 and len(run.table("cohort")) == 48
    asked = set(run.table("audit")["check"])
    assert "field" in asked and "thumbnail" not in asked
    seen = set(run_here("02", DATA=data, TASK="kl_grade")["run"].table("predictions")["sees"])
    assert seen == {"metadata"}


def test_a_set_with_captions_alone_is_read_and_pretrained_on(own_places):
    data = labelled_table(own_places)
    table = pd.read_csv(data).drop(columns=["kl_grade", "bone_age", "entity"])
    words = ["clear bone", "a dark line", "a bright spot", "nothing else"]
    table["caption"] = [words[i % 4] for i in range(len(table))]
    table.to_csv(data, index=False)
    run = run_here("01", DATA=data)["run"]
    assert run.table("cohort")["fold"].nunique() == 3
    pretrained = run_here("04", DATA=data, CAPTIONS="own")["run"]
    assert set(pretrained.table("pairs")["caption"]) == set(words)
    assert pretrained.notes["supervision"] == "label-supervised text"


@pytest.mark.skipif(
    not (Path(os.environ.get("BONELIB_DATA", "")) / "fracatlas" / "dataset.csv").exists(),
    reason="BONELIB_DATA holds no fracatlas folder",
)
def test_the_same_notebooks_run_on_real_radiographs(own_places):
    for number in headless.notebooks():
        left = run_here(number, DATA="fracatlas", TASK="fracture")
        assert left["run"].finished, number
    excluded = set(
        runs.find("data", profile="tiny", data="fracatlas").table("excluded")["image_id"]
    )
    assert excluded == {"IMG0004028.jpg", "IMG0004029.jpg", "IMG0004036.jpg"}
    named = dict(profile="tiny", data="fracatlas", task="fracture")
    control = runs.find("zero_shot", **named)
    assert control.notes["kind"] == "zero-shot, negative control"


def test_a_pretraining_planned_here_is_carried_out_elsewhere_to_the_same_bits(tiny):
    here = found("pretraining")
    given = {"RUN_ON": "elsewhere", "VARIANT": "planned", "FROM": "default"}
    (planned,) = headless.run(["04"], parameters=given)
    assert planned.status == "planned" and "Train it with: torchrun" in planned.error
    folder = planned.step.folder
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc-per-node", "1", "-m", "bonelib", "train", str(folder)]
    done = subprocess.run(
        [*launch, "--accelerator", "cpu"], capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "epoch  6/6" in done.stdout
    run_here("04", **given)
    weights = "bundle/weights.safetensors"
    assert (folder / weights).read_bytes() == (here.path / weights).read_bytes()


def test_recipes_judged_on_the_test_set_are_compared_in_the_results(tiny):
    recipes = ["ours", "published", "attributes", "studies"]
    for recipe in recipes:
        given = {"RECIPE": recipe, "VARIANT": recipe, "FROM": "default", "EVALUATE_ON": "test"}
        run = run_here("04", **given, CAPTION_FIELDS="site,view")["run"]
        assert len(run.openings) == 1, "one look at the test labels"
        probes = run.table("probes")
        assert probes["task"].nunique() > 1 and probes["label"].notna().all()
        for name, part in probes.groupby("task"):
            assert set(part["label"]) <= set(cohort.task(name).classes)
    run = run_here("09")["run"]
    table, contrasts = run.table("recipes"), run.table("contrasts")
    assert set(table["recipe"]) == set(recipes) and table["gain"].notna().all()
    assert table.loc[table["recipe"] != "published", "over published"].notna().all()
    assert set(contrasts["control"]) == set(recipes) - {"ours"} and (contrasts["n"] > 0).all()
    assert "ours" in set(run.table("tried")["recipe"]), "the default run was judged on validation"
    assert (run.path / "figures" / "09_recipes_phantom-s0.png").exists()


def test_plain_papermill_runs_a_notebook_from_any_folder(tiny, tmp_path):
    source = Path(headless.notebooks()["04"]).resolve()
    given = {"VARIANT": "plain", "FROM": "default", "EPOCHS": "1"}
    pairs = [word for name, value in given.items() for word in ("-p", name, value)]
    call = [sys.executable, "-m", "papermill", str(source), "out.ipynb", *pairs]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out.ipynb").exists()
    place = dict(profile="tiny", data="phantom", variant="plain")
    assert runs.find("pretraining", **place).settings["epochs"] == 1
    (step,) = headless.plan(["04"], parameters=given)
    assert headless.states([step])[0].why == "it was not made by the runner"
