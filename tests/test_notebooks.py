"""Protects the argument: all notebooks run on tiny, hand over, and leave sound records."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bonelib import cohort, headless, phantom, reports, runs

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
    outcomes = headless.run(profile="tiny", report=print)
    yield {outcome.step.stage: outcome for outcome in outcomes}
    patch.undo()


def found(stage: str) -> runs.Run:
    return runs.find(stage, profile="tiny", data="phantom", task=STAGES[stage])


def test_every_notebook_finishes(tiny):
    assert {stage: o.error for stage, o in tiny.items() if o.status != "executed"} == {}
    assert set(STAGES) <= set(tiny)


def test_each_figure_is_there_in_both_formats_and_none_is_published(tiny):
    for stage in STAGES:
        figures = found(stage).path / "figures"
        names = {p.stem for p in figures.glob("*.png")}
        assert names and names == {p.stem for p in figures.glob("*.pdf")}, stage
    assert not runs.figures_folder("phantom").exists()


def identities(root: Path) -> set[str]:
    """Return what names a planted person; not what is too short to mean one alone."""
    index = pd.read_csv(root / "reports.csv", dtype=str)
    found = {*index["name"], *index["accession"]}
    for file in root.glob("reports/*.ann"):
        text = file.with_suffix(".txt").read_text()
        found |= {
            text[start:end]
            for start, end, kind in reports.read_brat(file.read_text())
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
    run, root = found("reports"), Path(found("data").record["notes"]["root"])
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
    assert run.record["metrics"]["facts_f1"] > 0.8


def test_a_hospitals_export_goes_from_files_to_captions_to_pretraining(tmp_path):
    drawn = phantom.write(tmp_path / "drawn", images=96, size=96, seed=5)
    export = phantom.write_dicom(drawn, tmp_path / "export")
    patch = places(tmp_path)
    try:
        given = {"DATA": "dicom", "DATA_ROOT": str(export)}
        outcomes = headless.run(["01", "03", "04"], profile="tiny", parameters=given)
        assert {o.step.name: o.error for o in outcomes if o.status != "executed"} == {}
        run = runs.find("reports", profile="tiny", data="dicom")
        pairs = runs.find("pretraining", profile="tiny", data="dicom").table("pairs")
        assert run.record["notes"]["came"]["whose patient the index names"] > 20
        assert run.record["metrics"]["held"] == 0 and len(run.table("facts")) > 100
        (shown,) = runs.cache_folder("phantom").glob("*-examples")
        examples, held = contents(shown), contents(run.path)
        known = {name for name in identities(drawn) if name not in examples}
        assert len(known) > 200 and sorted(name for name in known if name in held) == []
        words = {"CAPTIONS": "reports", "LANGUAGE": "fr", "VARIANT": "fr", "RECIPE": "multilingual"}
        (told,) = headless.run(["04"], profile="tiny", parameters=given | words)
        assert told.status == "executed", told.error
        assert told.step.needs == ("01", "03")
        french = runs.find("pretraining", profile="tiny", data="dicom", variant="fr")
        assert french.table("pairs")["caption"].str.contains("Radiographie|Cliché|Incidence").all()
        assert not set(french.table("pairs")["caption"]) & set(pairs["caption"])
    finally:
        patch.undo()


def test_training_lowered_the_loss(tiny):
    history = found("pretraining").table("history")
    losses = history["loss"].dropna().to_numpy()
    assert losses[-1] < losses[0]
    for name, rows in found("finetuning").table("history").groupby("method"):
        assert rows["loss"].iloc[-1] < rows["loss"].iloc[0], name


@pytest.mark.parametrize("stage", ["baselines", "finetuning", "zero_shot"])
def test_predictions_are_probabilities_of_test_images_only(tiny, stage):
    run = found(stage)
    predictions = run.table("predictions")
    columns = [f"p_{name}" for name in cohort.task("tumor").classes]
    np.testing.assert_allclose(predictions[columns].sum(axis=1), 1, atol=1e-9)
    assert set(predictions["split"]) == {"test"}
    assert predictions["label"].notna().all()
    assert len(run.record["openings"]) == 1
    per_method = predictions.groupby("method")["image_id"]
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
    pretraining, record = found("pretraining"), found("zero_shot").record
    assert not set(pretraining.settings["caption_fields"]) & set(cohort.TASKS)
    assert record["notes"]["kind"] == "zero-shot"


def test_heat_maps_stand_beside_maps_that_saw_no_image(tiny):
    scores = found("gradcam").table("scores")
    assert {"centre prior", "uniform map"} <= set(scores["map"])
    assert scores["value"].between(0, 1).all()


def test_the_results_table_names_every_method_and_metadata(tiny):
    results = found("results").table("results")
    for stage in ("baselines", "finetuning", "zero_shot"):
        methods = set(found(stage).table("predictions")["method"])
        assert methods <= set(results.loc[results["stage"] == stage, "method"])
    missing = results[results["status"].eq("weights not available")] if "status" in results else []
    assert len(missing) == 0 or missing["AUROC"].isna().all()
    assert "metadata only" in (found("results").path / "results.md").read_text()


def test_a_second_call_reuses_everything(tiny):
    again = headless.run(profile="tiny")
    assert {outcome.status for outcome in again} == {"reused"}


@pytest.mark.parametrize(("task", "pictures"), [("bone_age", 30), ("kl_grade", 2)])
def test_the_first_notebook_takes_values_grades_and_tables_without_pictures(
    tmp_path, task, pictures
):
    rng, lines = np.random.default_rng(0), [f"image_id,path,patient,site,sex,{task}"]
    for i in range(40):
        value = {"bone_age": 12 * i % 200, "kl_grade": i % 3}[task]
        value = value if i else ""  # one row without a label is no reason to look at no picture
        lines.append(f"{i},{i}.png,p{i // 2},{('hand', 'knee')[i % 2]},{'FM'[i // 2 % 2]},{value}")
        if i < pictures:
            Image.fromarray(rng.integers(0, 255, (70, 50), np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    patch = places(tmp_path)
    try:
        data = str(tmp_path / "mine.csv")
        (outcome,) = headless.run(["01"], profile="tiny", parameters={"DATA": data, "TASK": task})
        assert not outcome.error
        run = runs.find("data", profile="tiny", data=data)
        assert len(run.table("excluded")) == 40 - pictures
        assert len(run.table("cohort")) == (30 if pictures == 30 else 40)
        asked = set(run.table("audit")["check"])
        assert "field" in asked and ("thumbnail" in asked) == (pictures == 30)
    finally:
        patch.undo()


@pytest.mark.skipif(
    not (Path(os.environ.get("BONELIB_DATA", "")) / "fracatlas" / "dataset.csv").exists(),
    reason="BONELIB_DATA holds no fracatlas folder",
)
def test_the_same_notebooks_run_on_real_radiographs(tmp_path):
    patch = places(tmp_path)
    try:
        parameters = {"DATA": "fracatlas", "TASK": "fracture"}
        outcomes = headless.run(profile="tiny", parameters=parameters)
        assert {o.step.name: o.error for o in outcomes if o.status != "executed"} == {}
        run = runs.find("data", profile="tiny", data="fracatlas")
        excluded = set(run.table("excluded")["image_id"])
        assert excluded == {"IMG0004028.jpg", "IMG0004029.jpg", "IMG0004036.jpg"}
        zero_shot = runs.find("zero_shot", profile="tiny", data="fracatlas", task="fracture")
        assert isinstance(zero_shot.table("predictions"), pd.DataFrame)
    finally:
        patch.undo()


def test_a_pretraining_planned_here_is_carried_out_elsewhere_to_the_same_bits(tiny):
    here = found("pretraining")
    given = {"WHERE": "elsewhere", "VARIANT": "planned"}
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
    (again,) = headless.run(["04"], parameters=given)
    assert again.status == "executed", again.error
    weights = "bundle/weights.safetensors"
    assert (folder / weights).read_bytes() == (here.path / weights).read_bytes()


def test_recipes_judged_on_the_test_set_are_compared_in_the_results(tiny):
    recipes = ["ours", "published", "attributes", "studies"]
    for recipe in recipes:
        given = {
            "RECIPE": recipe,
            "VARIANT": recipe,
            "PROBE": "test",
            "CAPTION_FIELDS": "site,view",
        }
        (made,) = headless.run(["04"], parameters=given)
        assert made.status == "executed", made.error
        run = runs.find("pretraining", profile="tiny", data="phantom", variant=recipe)
        assert len(run.record["openings"]) == 1, "one look at the test labels"
        probes = run.table("probes")
        assert probes["task"].nunique() > 1 and probes["label"].notna().all()
        for name, part in probes.groupby("task"):
            assert set(part["label"]) <= set(cohort.task(name).classes)
    (results,) = headless.run(["09"])
    assert results.status == "executed", results.error
    run = found("results")
    table, contrasts = run.table("recipes"), run.table("contrasts")
    assert set(table["recipe"]) == set(recipes) and table["gain"].notna().all()
    assert table.loc[table["recipe"] != "published", "over published"].notna().all()
    assert set(contrasts["control"]) == set(recipes) - {"ours"} and (contrasts["n"] > 0).all()
    assert "ours" in set(run.table("tried")["recipe"]), "the default run was judged on validation"
    assert (run.path / "figures" / "09_recipes_phantom-s0.png").exists()
