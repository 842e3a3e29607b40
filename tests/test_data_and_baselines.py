"""Protects notebooks 01 and 02 as functions: every kind of task, captions alone, no images."""

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from bonelib import cohort, encoders, evaluation, figures, models, reporting, splits
from bonelib.experiments import baselines, data, drawn, literature, settings
from bonelib.experiments.context import Context, finish
from bonelib.experiments.settings.towers import rung_method

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


def score_baselines(context, **chosen):
    """Notebook 02, its calls in their order."""
    plan, folds = baselines.plan(context, **chosen), baselines.folds(context)
    run = context.start("baselines", inputs=[context.cohort_run], settings=plan)
    reported = literature.of_task(context)
    seen = baselines.see(context, folds, plan)
    predictions = baselines.predict(context, run, seen, folds, plan)
    missing = list(seen.unavailable)
    scores = reporting.scores(predictions, task=context.asked, unavailable=missing)
    forest = figures.plot_forest(scores, unit=context.asked.unit).figure
    context.figure(run, "02_baselines", forest)
    context.figure(run, "02_reported", literature.draw(context, reported, scores))
    clean = baselines.without_hardware(context, predictions, folds)
    beside = baselines.beside_reference(context, scores)
    said = [
        literature.read_reported(context, reported),
        literature.read_beside(context, reported, scores),
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
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    record, predictions, scores = score_baselines(context, encoders="lite0,resnet50")
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


@pytest.mark.parametrize("drawn", [True, False])
def test_radiographs_of_persons_are_kept_in_the_run_and_never_published(drawn, tmp_path):
    data = "phantom" if drawn else write(tmp_path, tumor=["normal", "tumor"] * (ROWS // 2))
    context = Context(data=data, profile="demo")
    run = context.start("data", settings={})
    film = np.random.default_rng(0).integers(0, 255, (20, 20)).astype(np.uint8)
    sheets = {
        "sheet": figures.contact_sheet([film] * 3, ["a", "b", "c"]),
        "heat": figures.plot_heatmap(film, np.ones((20, 20))).figure,
        "counts": plt.figure(),
    }
    # a confusion matrix is no radiograph
    sheets["counts"].add_subplot().imshow(np.eye(2), cmap="Blues")
    for name, figure in sheets.items():
        context.figure(run, name, figure)
        assert (run.path / "figures" / f"{name}.png").exists()
    shown = {path.stem for path in (tmp_path / "figures").rglob("*.png")}
    assert shown == ({"sheet", "heat", "counts"} if drawn else {"counts"})


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


# ---------------------------------------------------------------------- heads and encoders by name
def nearest_mean(support, rows, points):
    """A head by hand: the negative distance to each class mean, times the point's scale."""
    assert support.classes == 2 and (support.labels >= 0).all()

    class Found:
        def logits(self, features):
            def of(mask, point):
                means = [support.features[mask & (support.labels == c)].mean(0) for c in (0, 1)]
                apart = [np.linalg.norm(features - mean, axis=1) for mean in means]
                return -point["scale"] * np.stack(apart, axis=1)

            return np.array([[of(mask, point) for point in points] for mask in rows])

    return Found()


def undecided(support, rows, points):
    """A head that says the same of every image."""
    told = lambda features: np.zeros((len(rows), len(points), len(features), 2))  # noqa: E731
    return SimpleNamespace(logits=told)


def test_each_encoder_gets_each_head_out_of_fold_and_the_probe_keeps_its_numbers(
    tmp_path, monkeypatch
):
    labels = [("normal", "tumor")[i % 2] for i in range(ROWS)]
    context = Context(data=write(tmp_path, tumor=labels))
    read_data(context)
    _, alone, _ = score_baselines(context, encoders="lite0")
    used = []
    heads = {"knn": nearest_mean, "probe": undecided}
    strategy = lambda name: used.append(name) or heads[name]  # noqa: E731
    monkeypatch.setattr(baselines.adaptation, "strategy", strategy, raising=False)
    points = lambda name, kind: [{"scale": 1.0}, {"scale": 2.0}]  # noqa: E731
    monkeypatch.setattr(baselines.adaptation, "points", points, raising=False)
    both = Context(data=context.data, variant="heads", inputs="default")
    record, found, scores = score_baselines(both, encoders="lite0", heads="probe,knn")
    assert set(used) == {"probe", "knn"} and tuple(record.settings["heads"]) == ("probe", "knn")
    probes = found[found["strategy"] == "probe"]
    same = [c for c in alone if c.startswith("p_") or c in ("image_id", "label")]
    assert probes[same].reset_index(drop=True).equals(alone[same].reset_index(drop=True))
    assert scores["strategy"].value_counts().to_dict() == {"probe": 6, "knn": 6, "selected": 1}
    chosen, columns = record.table("chosen"), list(evaluation.METHOD)
    assert set(chosen["held out"]) == set(range(len(baselines.folds(both).held)))
    ranks = found.set_index("image_id")["p_tumor"]
    better = chosen["strategy"] == "knn"
    assert better.any() and (chosen["inner"][better] > 0.5).all()
    assert (chosen["inner"][~better] == 0.5).all(), "where the head by hand is worse than guessing"
    pairs = zip(chosen.to_dict("records"), baselines.folds(both).held, strict=True)
    for row, test in (pair for pair in pairs if pair[0]["strategy"] == "knn"):
        ids = baselines.folds(both).table.loc[test, "image_id"]
        own = (found[columns] == pd.Series({name: row[name] for name in columns})).all(axis=1)
        theirs = ranks[own.to_numpy()].loc[ids]
        ours = ranks[(found["strategy"] == "selected").to_numpy()].loc[ids]
        assert abs(theirs.corr(ours, method="spearman")) > 0.999, "calibrated, not another head"

    plan, folds = baselines.plan(both, encoders="lite0"), baselines.folds(both)
    x = baselines.see(both, folds, plan).features[baselines.THUMBNAIL].astype(np.float32)
    rows = found[(found["strategy"] == "knn") & (found["sees"] == "thumbnail")]
    positive = rows.set_index("image_id")["p_tumor"].loc[folds.table["image_id"]].to_numpy()
    y = rows.set_index("image_id")["label"].loc[folds.table["image_id"]].to_numpy()
    y = (y == "tumor").astype(int)
    for test in folds.held:  # by hand, from the labels of the other folds alone
        means = [x[~test & (y == c)].mean(0) for c in (0, 1)]
        apart = [np.linalg.norm(x[test] - mean, axis=1) for mean in means]
        closer = positive[test] > 0.5
        assert (closer == (apart[1] < apart[0])).all()


def test_encoders_and_heads_are_checked_before_anything_starts(tmp_path):
    context = Context()
    for given, message in (
        ({"encoders": "lite0,resnet_50"}, "'resnet_50'. Did you mean resnet50"),
        ({"encoders": "tim:resnet18"}, "Unknown encoder 'tim:resnet18'. Did you mean timm"),
        ({"encoders": f"onnx:{tmp_path}/none.onnx"}, "There is no .*absolute path"),
        ({"heads": "probe,rbf"}, "Unknown head 'rbf'. Did you mean rbf_svm"),
    ):
        with pytest.raises(ValueError, match=message):
            baselines.plan(context, **given)
        ((name, value),) = given.items()
        (told,) = settings.problems({name.upper(): value})
        assert told.startswith(f"{name.upper()}: ") and re.search(message, told)
    assert settings.problems({"ENCODERS": "", "HEADS": ""}) == []
    assert settings.problems({"ENCODERS": "lite0, timm:resnet18", "HEADS": "knn"}) == []
    chosen = baselines.plan(context, encoders="lite0, timm:resnet18", heads="knn")
    assert (chosen["encoders"], chosen["heads"]) == (("lite0", "timm:resnet18"), ("knn",))


def test_a_head_whose_package_is_missing_is_refused_with_the_command(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install .*xgboost-cpu.*HEADS probe,linear_svm"):
        settings.head_names("probe,xgboost")


def test_weights_that_cannot_be_had_name_the_command_that_fetches_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    labels = [("normal", "tumor")[i % 2] for i in range(ROWS)]
    context = Context(data=write(tmp_path, tumor=labels))
    read_data(context)
    plan = baselines.plan(context, encoders="lite0_random,dinov2_liverpool,rad_dino")
    seen = baselines.see(context, baselines.folds(context), plan)
    shown = seen.described.set_index("fetched by")["status"]
    assert set(shown.index) == {"", "bonelib weights dinov2_liverpool", "bonelib weights rad_dino"}
    assert {m.detail for m in seen.unavailable} == {"token mean, 518 px, grey 0.5 ± 0.5", ""}


def test_each_encoder_with_each_head_has_a_name_of_its_own():
    name = figures.display_name
    found = [rung_method(rung) for rung in encoders.rungs().values()]
    found += [baselines.METADATA, baselines.FILE, baselines.THUMBNAIL]
    named = {
        name(replace(method, strategy=head)) for method in found for head in settings.LADDER_HEADS
    }
    assert len(named) == len(found) * len(settings.LADDER_HEADS)
    assert {
        *("metadata only", "metadata only, RBF SVM", "32 x 32 pixels, k-NN"),
        *("Lite2, ImageNet, frozen", "ResNet-50, ImageNet, XGBoost", "RAD-DINO, frozen"),
    } <= named


def test_a_bundle_is_a_rung_unless_its_images_are_those_of_the_folds(tmp_path):
    labels = [("normal", "tumor")[i % 2] for i in range(ROWS)]
    context = Context(data=write(tmp_path, tumor=labels))
    read_data(context)
    tower = encoders.image("timm:test_vit", weights="random", size=32)
    place = tmp_path / "run" / "bundle"
    models.save_bundle(place, models.Classifier(tower, outputs=1))
    name = f"bundle:{place}"
    folds, plan = baselines.folds(context), baselines.plan(context, encoders=name)
    seen = baselines.see(context, folds, plan)
    (method,) = [m for m in seen.features if m.sees == "image"]
    assert seen.features[method].shape == (ROWS, tower.width) and method.start == "run"
    for own, refused in ((context.cohort_run.head["data_name"], True), ("mura-1234", False)):
        (place.parent / "record.json").write_text(json.dumps({"data_name": own}))
        if not refused:
            baselines.see(context, folds, plan)
            continue
        with pytest.raises(ValueError, match="not be out of fold. Notebook 05 scores it"):
            baselines.see(context, folds, plan)
