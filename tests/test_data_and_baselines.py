"""Protects notebooks 01 and 02 as functions: every kind of task, captions alone, no images."""

import re
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from bonelib import cohort, evaluation, figures, reporting, splits
from bonelib.experiments import baselines, data, drawn
from bonelib.experiments.context import Context, finish

ROWS = 72
ENTITIES = ("osteochondroma", "osteosarcoma", "simple bone cyst")
LABELS = {
    "kl_grade": [str(i % 5) for i in range(ROWS)],
    "bone_age": [str(20 + 2 * i) for i in range(ROWS)],
    # The last class has two patients: some folds train without it.
    "entity": [ENTITIES[i % 2] if i < ROWS - 2 else ENTITIES[2] for i in range(ROWS)],
}


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    for name in ("RUNS", "CACHE", "FIGURES"):
        monkeypatch.setenv(f"BONELIB_{name}", str(tmp_path / name.lower()))


def write(folder, *, images=True, **columns):
    """A CSV of made-up pictures: smoothed noise, each patient another."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"image_id": [f"i{i}" for i in range(ROWS)]})
    table["path"] = [f"i{i}.png" if images else "" for i in range(ROWS)]
    table["patient"] = [f"p{i}" for i in range(ROWS)]
    table["age"], table["sex"] = rng.integers(5, 80, ROWS), rng.choice(["F", "M"], ROWS)
    table = table.assign(**columns)
    for name in table["path"] if images else ():
        noise = cv2.GaussianBlur(rng.uniform(0, 255, (70, 60)).astype(np.float32), (0, 0), 3)
        grey = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)
        cv2.imwrite(str(folder / name), grey.astype(np.uint8))
    file = folder / "table.csv"
    table.to_csv(file, index=False)
    return str(file)


def read_data(context):
    """Notebook 01, its calls in their order."""
    plan = data.plan(context, resize="pad")
    radiographs = data.decode(context, data.read(context, plan), plan)
    run = context.start("data", settings=plan)
    radiographs = data.group(radiographs, plan)
    said = [
        data.read_table(context, radiographs),
        data.read_files(radiographs, plan),
        data.read_groups(radiographs),
        data.read_counts(context, radiographs),
    ]
    context.figure(run, "01_counts", data.draw_counts(context, radiographs))
    sheet = data.draw_radiographs(radiographs)
    context.figure(run, "01_radiographs", sheet)
    beside = drawn.marginals(context, run, radiographs.root)
    caches = drawn.beside_real(context, radiographs.table, plan)
    difficulty = drawn.difficulty(context, run, radiographs.table, plan)
    assert beside["tests"].empty and not caches and difficulty.empty
    assert drawn.draw_marginals(beside) is None and drawn.draw_likeness(caches) is None
    measured, told = drawn.likeness(run, caches), drawn.told_apart(context, run, caches)
    said += [drawn.read_likeness(context, measured, told), drawn.read_marginals(beside)]
    found = data.shortcuts(context, run, radiographs)
    context.figure(run, "01_audit", data.draw_shortcuts(found))
    said += [data.read_shortcuts(found, context.task), data.read_seal(radiographs)]
    for text in said:
        assert text.startswith("**Reading.**") and not re.search(r"\bnan\b", text), text
    return data.seal(run, radiographs), radiographs, found, sheet


def score_baselines(context):
    """Notebook 02, its calls in their order."""
    plan, folds = baselines.plan(context), baselines.folds(context)
    run = context.start("baselines", inputs=[context.cohort_run], settings=plan)
    literature = baselines.literature(context)
    seen = baselines.see(context, folds, plan)
    predictions = baselines.predict(context, run, seen, folds, plan)
    missing = list(seen.unavailable)
    scores = reporting.scores(predictions, task=context.asked, unavailable=missing)
    forest = figures.plot_forest(scores, unit=context.asked.unit).figure
    context.figure(run, "02_baselines", forest)
    clean = baselines.without_hardware(context, predictions, folds)
    beside = baselines.beside_reference(context, scores)
    said = [
        baselines.read_literature(context, literature),
        baselines.read_seen(seen, folds),
        baselines.read_scores(context, scores),
        baselines.read_hardware(context, scores, clean),
        baselines.read_reference(beside),
    ]
    for text in said:
        assert text.startswith("**Reading.**") and not re.search(r"\bnan\b", text), text
    record = finish(run, notes={"unavailable": seen.missing}, **context.metrics(scores))
    return record, predictions, scores


@pytest.mark.parametrize("task", LABELS)
def test_every_kind_of_task_passes_both_notebooks(task, tmp_path, monkeypatch):
    hardware = [str(int(i % 9 == 0)) for i in range(ROWS)]
    source = write(tmp_path, hardware=hardware, **{task: LABELS[task]})
    context = Context(data=source, task=task)
    record, radiographs, found, sheet = read_data(context)
    assert record.finished and record.notes["pictured"] == ROWS and sheet is not None
    assert {"metadata", "thumbnail"} <= set(found["check"])
    online = (("timm:resnet50.a1_in1k", "pretrained"),)
    monkeypatch.setattr(baselines, "FROZEN", baselines.FROZEN[1:2] + online)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    record, predictions, scores = score_baselines(context)
    metric = evaluation.primary(task).metric
    assert predictions["label"].notna().all() and set(predictions["split"]) == {"test"}
    assert scores[metric].notna().sum() == 6 and record.metrics
    assert {"metadata", "file", "thumbnail", "image", "image+metadata"} == set(scores["sees"])
    assert set(scores.loc[scores[metric].notna(), "strategy"]) == {"probe"}
    assert record.openings and len(record.openings) == 1


def test_captions_alone_pass_the_first_notebook(tmp_path):
    captions = [f"Radiograph of the {('knee', 'hand')[i % 2]}." for i in range(ROWS)]
    record, radiographs, found, _ = read_data(Context(data=write(tmp_path, caption=captions)))
    table = record.table("cohort")
    assert record.finished and table["fold"].value_counts().max() <= ROWS / 3 + 1
    assert "caption" in record.table("labels") and set(found["check"]) == {"split", "copies"}
    assert set(splits.apply(record)["split"]) == {"train", "val", "test"}


def test_a_table_without_images_passes_both_with_metadata_alone(tmp_path):
    labels = [("normal", "tumor")[i % 2] for i in range(ROWS)]
    context = Context(data=write(tmp_path, images=False, tumor=labels))
    record, radiographs, found, sheet = read_data(context)
    assert radiographs.cache is None and sheet is None and not radiographs.seen
    assert len(record.table("cohort")) == ROWS == len(record.table("excluded"))
    assert "metadata" in set(found["check"]) and "thumbnail" not in set(found["check"])
    _, _, scores = score_baselines(context)
    assert set(scores["sees"]) == {"metadata"} and scores["AUROC"].notna().all()


def test_labels_of_another_task_are_named_and_not_passed_over(tmp_path):
    source = write(tmp_path, images=False, kl_grade=LABELS["kl_grade"])
    context = Context(data=source, task="tumor")
    with pytest.raises(ValueError, match="labels exist for: kl_grade"):
        data.read(context, data.plan(context, resize="pad"))


def test_the_shown_settings_are_those_of_the_plan():
    for profile in data.SETTINGS:
        context = Context(profile=profile)
        shown = data.SETTINGS[profile]
        plan = data.plan(context, resize="squash")
        assert plan["fit"] == "squash"
        assert all(plan[name] == value for name, value in shown.items())
        told = baselines.SETTINGS[profile]
        assert all(baselines.plan(context)[name] == value for name, value in told.items())


def test_a_missing_list_of_papers_leaves_an_empty_table(tmp_path, monkeypatch):
    context = Context()
    assert len(baselines.literature(context))
    monkeypatch.setattr(baselines.runs, "ROOT", tmp_path, raising=False)
    assert baselines.literature(context).empty
    assert "0 figures" in baselines.read_literature(context, baselines.literature(context))


def test_the_finer_site_and_labels_stay_sealed(tmp_path):
    labels = [("normal", "tumor")[i % 2] for i in range(ROWS)]
    record, radiographs, *_ = read_data(Context(data=write(tmp_path, images=False, tumor=labels)))
    assert "tumor" not in record.table("cohort") and "tumor" in data.read_seal(radiographs)
    assert cohort.MASK in record.table("labels")


@pytest.mark.parametrize("how", ["csv", "data root", "both beside each other", "several sets"])
def test_files_are_found_where_the_data_lie_now(tmp_path, monkeypatch, how):
    there, now = tmp_path / "there", tmp_path / "now"
    (there / "a" / "images").mkdir(parents=True)
    (there / "b").mkdir()
    for name in ("a/images/1.png", "b/2.png", "outside.png"):
        (there / name).write_text(name)
    (there / "a" / "own.csv").write_text("image_id,path\n1,images/1.png\n")
    asked = {
        "csv": lambda at: dict(data=str(at / "a" / "own.csv")),
        "data root": lambda at: dict(data="fracatlas", root=str(at / "a")),
        "both beside each other": lambda at: dict(
            data=str(at / "a" / "own.csv"), root=str(at / "b")
        ),
        "several sets": lambda at: dict(data="fracatlas+btxrd", root=f"{at / 'a'}:{at / 'b'}"),
    }[how]
    paths = [there / "a" / "images" / "1.png", there / "b" / "2.png", there / "outside.png"]
    table = pd.DataFrame({"path": [*map(str, paths), pd.NA], "mask": "[[[1, 2], [3, 4], [5, 6]]]"})
    Context(**asked(there)).start("data", settings={}).finish()
    assert Context(**asked(there)).here(table) is table
    shutil.copytree(there, now)
    assert Context(**asked(now)).here(table)["path"].dropna().str.startswith(str(now)).tolist() == [
        True,
        how in ("both beside each other", "several sets"),
        False,
    ]


def folds(context, **settings):
    """The fold of each row, as notebook 01 cuts them."""
    plan = data.plan(context, resize="pad", **settings)
    return data.group(data.read(context, plan), plan).table["fold"]


def test_rows_change_fold_with_the_seed_of_the_folds_and_with_no_other(tmp_path):
    csv = write(tmp_path, images=False, tumor=["normal", "tumor"] * (ROWS // 2))
    first = folds(Context(data=csv))
    assert (folds(Context(data=csv, seed=1)) != first).sum() == 0
    assert (folds(Context(data=csv, seed=2), split_seed=0) != first).sum() == 0
    moved = (folds(Context(data=csv), split_seed=1) != first).sum()
    assert moved > ROWS / 2, "of three folds a new draw leaves a third of the rows where they were"
    with pytest.raises(ValueError, match="SPLIT_SEED .* from 0, not -1"):
        data.plan(Context(data=csv), resize="pad", split_seed=-1)


def test_every_later_record_names_the_seed_of_its_folds(tmp_path):
    csv = write(tmp_path, images=False, tumor=["normal", "tumor"] * (ROWS // 2))
    for split_seed, variant in ((0, "default"), (1, "folds1")):
        context = Context(data=csv, variant=variant)
        plan = data.plan(context, resize="pad", split_seed=split_seed)
        radiographs = data.group(data.read(context, plan), plan)
        data.seal(context.start("data", settings=plan), radiographs)
        later = Context(data=csv, variant="later", inputs=f"data:{variant}")
        run = later.start("baselines", settings=dict(test="folds"), inputs=[later.cohort_run])
        assert not run.finished, "what was found on other folds is not reused"
        assert finish(run).settings["split_seed"] == split_seed
