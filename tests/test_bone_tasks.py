"""Protects notebook 08: grades, readers, limits of agreement, tasks of one's own, bad input."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from notebook_here import run_here
from PIL import Image
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score

from bonelib import __main__ as command_line
from bonelib import (
    adaptation,
    cohort,
    datasets,
    evaluation,
    figures,
    headless,
    reporting,
    runs,
    splits,
)
from bonelib.adaptation import ordinal
from bonelib.datasets import own_tasks
from bonelib.experiments import bone_tasks, settings
from bonelib.experiments.context import Context
from bonelib.experiments.settings.towers import rung_method, rung_tower

GRADES = cohort.task("kl_grade")


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    for name in ("RUNS", "CACHE", "FIGURES"):
        monkeypatch.setenv(f"BONELIB_{name}", str(tmp_path / name.lower()))
    monkeypatch.setattr(cohort, "TASKS", dict(cohort.TASKS))  # what a test declares goes with it


# ---------------------------------------------------------------------- the head for grades
def support(labels, columns=6, noise=0.8, seed=0):
    rng, labels = np.random.default_rng(seed), np.asarray(labels)
    x = rng.normal(size=(len(labels), columns)) + noise * labels[:, None]
    given = dict(groups=np.arange(len(labels)), classes=5, ordinal=True)
    return adaptation.Support(x.astype(np.float32), labels, **given)


def test_each_threshold_is_scikit_learns_logistic_regression():
    s = support(np.repeat(range(5), 12), columns=3)
    every = np.ones((1, 60), dtype=bool)
    logits = ordinal.cumulative(s, every, [{"strength": 0.1}]).logits(s.features)[0, 0]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    z = (s.features - s.features.mean(0)) / s.features.std(0)
    above = np.column_stack(
        [
            LogisticRegression(C=0.1, tol=1e-10).fit(z, s.labels > k).predict_proba(z)[:, 1]
            for k in range(4)
        ]
    )
    above = np.minimum.accumulate(above, axis=1)
    np.testing.assert_allclose(1 - np.cumsum(p, axis=1)[:, :4], above, atol=2e-4)


def test_a_grade_without_a_row_never_wins_and_grades_are_told():
    s = support(np.repeat([0, 1, 2, 4], 20))
    fitted = adaptation.strategies.fit("cumulative", s)
    guesses = fitted.logits(s.features).argmax(axis=1)
    assert 3 not in guesses and np.isfinite(fitted.logits(s.features)).all()
    assert cohen_kappa_score(s.labels, guesses, weights="quadratic") > 0.8
    assert len(fitted.inner) == adaptation.POINTS
    with pytest.raises(ValueError, match="cumulative fits tasks that are ordinal, not binary"):
        adaptation.points("cumulative", "binary")


# ---------------------------------------------------------------------- readers and values
def graded(n=120, seed=0):
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 5, n)
    second = np.clip(first + rng.integers(-1, 2, n), 0, 4)
    view = pd.DataFrame({"image_id": [f"i{i}" for i in range(n)], "kl_grade": first.astype(str)})
    logits = np.eye(5)[second] * 2 + rng.normal(size=(n, 5))
    method = evaluation.Method("imagenet", "cumulative")
    table = evaluation.predictions(view, logits, task="kl_grade", seed=0, method=method)
    return table, pd.Series(second.astype(str), view["image_id"])


def test_a_second_reader_is_scored_as_any_method():
    table, grades = graded()
    other = evaluation.of_reader(table, grades.iloc[:100], task="kl_grade", name="reader II")
    assert len(other) == 100 and figures.display_names(other).unique() == ["reader II"]
    found = evaluation.metrics(other, task="kl_grade", only=("quadratic kappa",), draws=300).iloc[0]
    truth = table["label"].iloc[:100].astype(int), grades.iloc[:100].astype(int)
    assert found["value"] == pytest.approx(cohen_kappa_score(*truth, weights="quadratic"))
    assert found["low"] < found["value"] < found["high"]
    with pytest.raises(ValueError, match="Unknown classes \\['7'\\]"):
        evaluation.of_reader(table, grades.replace("4", "7"), task="kl_grade", name="x")


def test_a_second_reader_counts_where_both_graded_and_of_grades_alone():
    table = pd.DataFrame({"image_id": list("abc"), "kl_grade": ["0", None, "3"]})
    table = table.assign(kl_grade_reader2=["1", "2", None], fracture="intact")
    table = table.assign(fracture_reader2="fractured", bone_age=9.0, bone_age_reader2=8.0)
    tasks = [cohort.task(name) for name in ("kl_grade", "fracture", "bone_age")]
    found = bone_tasks.predicting._second(tasks, table)
    assert found.to_dict("records") == [{"image_id": "a", "task": "kl_grade", "label": "1"}]
    assert bone_tasks.predicting._second((), table).empty


def valued(off, patients=None):
    rng, n = np.random.default_rng(1), len(off)
    truth = rng.uniform(20, 200, n)
    view = pd.DataFrame({"image_id": [f"i{i}" for i in range(n)], "bone_age": truth})
    view["patient"] = [f"p{i}" for i in (range(n) if patients is None else patients)]
    return evaluation.predictions(view, truth + off, task="bone_age", seed=0)


def test_limits_of_agreement_are_those_of_bland_and_altman():
    off = np.random.default_rng(0).normal(3, 10, 400)
    found = evaluation.bland_altman(valued(off), task="bone_age").set_index("metric")
    s = off.std(ddof=1)
    expected = [off.mean(), off.mean() - 1.96 * s, off.mean() + 1.96 * s]
    np.testing.assert_allclose(found["value"], expected, rtol=1e-6)  # labels are single
    # standard errors of the paper of 1999: s²/n, and s² (1/n + 1.96²/2(n - 1)) of a limit
    errors = s * np.sqrt([1 / 400, *[1 / 400 + 1.96**2 / 2 / 399] * 2])
    half = (found["high"] - found["low"]) / 2
    np.testing.assert_allclose(half, norm.ppf(0.975) * errors, rtol=0.15)
    twice = evaluation.bland_altman(
        valued(np.repeat(off, 2), np.repeat(range(400), 2)), task="bone_age"
    )
    wide = (twice["high"] - twice["low"]).to_numpy() / 2
    np.testing.assert_allclose(wide, half, rtol=0.15)  # a second view of a patient adds nothing
    with pytest.raises(ValueError, match="has classes"):
        evaluation.bland_altman(graded()[0], task="kl_grade")


def test_limits_and_grades_of_two_tasks_are_not_mixed():
    off = np.random.default_rng(0).normal(0, 10, 60)
    named = evaluation.Method("imagenet", "probe").columns()
    found = evaluation.bland_altman(valued(off), task="bone_age", draws=50).assign(**named)
    wide = found.assign(task="length", value=found["value"] * 100)
    limits = pd.concat([found.assign(task="bone_age"), wide])
    none = pd.DataFrame(columns=["sees", "share"])
    said = bone_tasks.read_values(limits, none)
    assert said == bone_tasks.read_values(limits[:3], none) and "months apart" in said
    row = dict(metric="quadratic kappa", against="reader I", low=0.1, high=0.9, n=9, task="a")
    rows = [
        ("ours", 0.6, "a"),
        ("reader II", 0.7, "a"),
        ("ours", 0.8, "b"),
        ("reader II", 0.9, "b"),
    ]
    graded = pd.DataFrame([row | dict(method=m, value=v, task=t) for m, v, t in rows])
    assert bone_tasks.read_readers(graded) == bone_tasks.read_readers(graded[:2])


def test_differences_of_one_repeat_are_those_of_a_comparison():
    first, _ = graded(seed=0)
    second = graded(seed=5)[0].assign(label=first["label"])
    told = dict(task="kl_grade", metric="AUROC", draws=200)
    pair = evaluation.compare(first, second, **told)
    one = evaluation.repeated([first], against=[second], **told)
    assert list(one[["value", "low", "high", "p", "n"]]) == pytest.approx(
        list(pair[["value", "low", "high", "p", "n"]])
    )
    with pytest.raises(ValueError, match="2 repeats against 1"):
        evaluation.repeated([first, first], against=[second], **told)


# ---------------------------------------------------------------------- tasks of one's own
IMPLANT = """
[implant]
kind = "binary"
classes = ["none", "implant"]
positive = "implant"
normal = "none"
words.en = ["no implant", "metal implant"]

[healing]
kind = "ordinal"
classes = ["open", "partly", "closed"]
"""


def write(folder, rows=48, **columns):
    """A CSV of small pictures of 24 patients; those with an implant have a bright bar."""
    rng, table = np.random.default_rng(0), []
    for i in range(rows):
        patient = i // 2
        grey = rng.integers(0, 90, (70, 50))
        grey[20:30] += 140 * (patient % 2)
        Image.fromarray(grey.astype(np.uint8)).save(folder / f"{i}.png")
        row = dict(image_id=str(i), path=f"{i}.png", patient=f"p{patient}", study=f"s{patient}")
        table.append(row | {name: of(patient) for name, of in columns.items()})
    pd.DataFrame(table).to_csv(folder / "mine.csv", index=False)
    return str(folder / "mine.csv")


def own(folder):
    (folder / "tasks.toml").write_text(IMPLANT)
    columns = dict(implant=lambda p: p % 2, healing=lambda p: ("open", "partly", "closed")[p % 3])
    return write(folder, **columns)


def test_a_task_of_ones_own_passes_the_notebooks(tmp_path):
    data = own(tmp_path)
    run_here("01", DATA=data, TASK="implant")
    left = run_here("08", DATA=data, TASK="implant")
    assert [task.name for task in left["setup"].tasks] == ["implant", "healing"]
    image = left["scores"].query("sees == 'image' and share == 1 and task == 'implant'")
    assert (image["value"] > 0.9).all() and set(image["start"]) == {"scratch", "imagenet"}
    assert set(left["scores"]["strategy"]) == {"probe", "cumulative"}
    # notebook 09 finds its rows by the usual table
    stored = left["run"].table("predictions")
    assert {"p_none", "p_implant"} <= set(stored) and "p_open" not in stored
    assert set(stored["task"]) == {"implant"} and len(left["run"].openings) == 1
    run_here("02", DATA=data, TASK="implant")


def test_a_table_that_is_named_or_its_folder_is_checked_with_the_task_of_ones_own(tmp_path, capsys):
    data = own(tmp_path)
    for place in (data, str(tmp_path)):
        cohort.TASKS.pop("implant", None)
        assert command_line.main(["data", "table", place]) == 0
        assert "  implant: none " in capsys.readouterr().out


def test_the_order_of_classes_is_part_of_the_data(tmp_path):
    data = own(tmp_path)
    before = runs.data.fingerprint(data)
    assert Context(data=data, task="implant").asked.classes == ("none", "implant")
    (tmp_path / "tasks.toml").write_text(IMPLANT.replace('"none", "implant"', '"implant", "none"'))
    assert runs.data.fingerprint(data) != before
    assert Context(data=data, task="implant").asked.classes == ("implant", "none")
    (tmp_path / "tasks.toml").unlink()
    assert runs.data.fingerprint(data) not in ("", before)


def test_the_command_line_knows_a_task_of_ones_own(tmp_path, capsys):
    from bonelib.__main__ import main

    data = own(tmp_path)
    given = ["run", "08", "-p", "DATA", data, "-p", "TASK", "implant", "-p", "TASKS"]
    assert main([*given, "implant,broken"]) == 2
    said = capsys.readouterr().err
    assert "TASKS: Unknown task 'broken'" in said and "implant, healing" in said
    assert "Unknown TASK" not in said


@pytest.mark.parametrize(
    "text, told",
    [
        ("[tumor]\nkind = 'binary'", "is a task of bonelib's own"),
        (
            "[hardware]\nkind = 'binary'\nclasses = ['a', 'b']\npositive = 'b'",
            "has a meaning already",
        ),
        ("[x]\nkind = 'grades'", "choose binary, multiclass, ordinal, regression"),
        ("[x]\nkind = 'binary'\nclasses = ['a', 'a']\npositive = 'a'", "2 different classes"),
        ("[x]\nkind = 'binary'\nclasses = ['a', 'b']", "positive says which class is detected"),
        ("[x]\nkind = 'ordinal'\nclasses = ['a', 'b', 'c']\nnormal = 'd'", "none of the classes"),
        ("[x]\nkind = 'ordinal'\nclasses = [0, 1, 2]", "names in quotes"),
        ("[x]\nkind = 'regression'\nunits = 'mm'", "unknown 'units'"),
        ("[x]\nkind = 'regression'\nwords.en = ['a']", "a name for each class"),
        ("[x\n", "is no TOML"),
        ("x = 3", "a task is a section"),
    ],
)
def test_what_is_wrong_with_a_task_is_said(tmp_path, text, told):
    file = tmp_path / "tasks.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(told)):
        own_tasks.declare([file])
    assert "x" not in cohort.TASKS


# ---------------------------------------------------------------------- bad input
def test_grades_outside_the_scale_and_negative_ages_are_named_with_their_lines(tmp_path):
    columns = dict(
        kl_grade=lambda p: 7 if p == 2 else p % 5,
        bone_age=lambda p: -12 if p == 3 else 30 + p,
        age=lambda p: -4 if p == 1 else 30,
    )
    with pytest.raises(ValueError) as refused:
        datasets.read(write(tmp_path, rows=12, **columns), tmp_path)
    said = str(refused.value)
    assert "0, 1, 2, 3, 4" in said and "'7'" in said and "lines 6, 7" in said
    assert "a number from 0" in said and "-12" in said
    assert "years between 0 and 120" in said
    with pytest.raises(
        ValueError, match="no values of the task 'bone_age'; expected months from 0"
    ):
        cohort.task("bone_age").encode([12, -3])


def test_a_task_without_labels_is_refused_and_those_with_labels_are_named(tmp_path):
    data = write(tmp_path, anomaly=lambda p: p % 2)
    run_here("01", DATA=data, TASK="anomaly")
    context = Context(data=data, task="anomaly")
    with pytest.raises(ValueError, match="no|No .*label for kl_grade. Labels exist for: anomaly"):
        bone_tasks.plan(context, [], tasks="anomaly,kl_grade")
    with pytest.raises(ValueError, match="FINETUNE=lp_ft: notebook 05 does it"):
        bone_tasks.plan(context, [], finetune="lp_ft")
    with pytest.raises(FileNotFoundError, match="Run notebook 04 first"):
        bone_tasks.find_pretrained(context, variants="gone")
    assert bone_tasks.find_pretrained(context) == []
    found = settings.problems({"TASKS": "fractur", "FINETUNE": "ful"})
    assert "Did you mean fracture" in " ".join(found) and "Did you mean full" in " ".join(found)


def test_a_set_without_bone_tasks_says_so_and_asks_for_anomalies_alone(tmp_path):
    data = write(tmp_path, tumor=lambda p: p % 2)
    run_here("01", DATA=data)
    left = run_here("08", DATA=data)
    said = bone_tasks.read_setup(left["setup"], left["pretrained"])
    assert "No image of" in said and "labels exist for: tumor" in said
    assert left["scores"].empty and left["run"].finished and len(left["run"].openings) == 1
    assert not left["run"].table("anomaly_predictions").empty


def test_a_set_without_pictures_is_refused(tmp_path):
    data = write(tmp_path, fracture=lambda p: p % 2)
    for picture in tmp_path.glob("*.png"):
        picture.unlink()
    run_here("01", DATA=data, TASK="fracture")
    with pytest.raises(
        ValueError,
        match="None of 48 images .*only what the table says can be asked",
    ):
        run_here("08", DATA=data, TASK="fracture")


def test_few_labels_are_not_drawn_where_training_lacks_a_grade(tmp_path):
    data = write(tmp_path, kl_grade=lambda p: p % 4)
    run_here("01", DATA=data, TASK="kl_grade")
    left = run_here("08", DATA=data, TASK="kl_grade")
    assert set(left["scores"]["share"]) == {1.0} and left["scores"]["value"].notna().any()
    said = bone_tasks.read_setup(left["setup"], left["pretrained"])
    assert "No training image of kl_grade is 4: few labels are not drawn" in said


# ---------------------------------------------------------------------- its place in the argument
def test_notebook_08_needs_no_pretraining_but_one_made_later_makes_it_stale(tmp_path):
    assert runs.NEEDS["08"] == ("01",)
    data = write(tmp_path, fracture=lambda p: p % 2, site=lambda p: ("hand", "knee")[p % 2])
    run_here("01", DATA=data, TASK="fracture")
    run = run_here("08", DATA=data, TASK="fracture")["run"]
    assert not runs.stale(run, data=data)
    run_here("04", DATA=data, CAPTION_FIELDS="site")
    assert runs.stale(run, data=data)
    left = run_here("08", DATA=data, TASK="fracture", FINETUNE="full")
    assert left["setup"].lead == evaluation.Method("captions", "probe", detail="ours")
    said = bone_tasks.read_setup(left["setup"], left["pretrained"])
    assert "3 encoders" in said and "named" not in said, "captions of sites name no fracture"
    told = left["differences"].query("share == 1 and sees == 'image'")
    assert set(told["start"]) == {"scratch", "imagenet"} and (told["p_holm"] >= told["p"]).all()
    assert set(told["strategy"]) == {"probe", "full"} and set(told["n"]) == {16}
    assert set(left["run"].table("tuned")["split"]) == {"test"}
    assert left["run"].table("tuned")["label"].isna().all(), "trained with the labels sealed"
    names = {path.stem for path in (left["run"].path / "figures").glob("*.png")}
    assert names == {"08_bone_tasks", "08_labels", "08_anomaly", "08_evidence"}
    bundle = f"bundle:{left['pretrained'][0].bundle}"
    rung = bone_tasks.setup.encoders.rung(bundle)
    context = Context(data=data, task="fracture")
    assert rung_tower(context, rung, largest=64, test="fold0").preprocessing.size == 64
    assert re.fullmatch(r"mine-\w{6} pretraining default-s0", rung_method(rung).start)
    for test in ("folds", "fold1"):
        with pytest.raises(ValueError, match="would not be out of fold"):
            rung_tower(context, rung, largest=64, test=test)
    assert headless.plan(["08"], parameters={"DATA": data, "TASK": "fracture"})


def test_two_readers_and_ages_have_their_charts(tmp_path):
    columns = dict(
        kl_grade=lambda p: p % 5,
        kl_grade_reader2=lambda p: min(4, p % 5 + p % 2),
        bone_age=lambda p: 30 + 5 * p,
        sex=lambda p: "FM"[p % 2],
    )
    data = write(tmp_path, rows=60, **columns)
    run_here("01", DATA=data, TASK="kl_grade")
    left = run_here("08", DATA=data, TASK="kl_grade")
    readers = left["readers"]
    assert set(readers["against"]) == {"reader I", "reader II"}
    ceiling = readers[readers["method"] == "reader II"]
    assert list(ceiling["metric"]) == ["quadratic kappa"] and 0 < ceiling["value"].iloc[0] < 1
    names = {path.stem for path in (left["run"].path / "figures").glob("*.png")}
    charts = {"08_bone_tasks", "08_labels", "08_readers", "08_bland_altman"}
    assert names == charts | {"08_evidence_bone_age", "08_evidence_kl_grade"}
    beside = left["differences"].query("sees == 'image+sex'")
    assert set(beside["start"]) == {"imagenet"} and set(beside["share"]) == {0.1, 1.0}
    assert {"sex", "image+sex"} <= set(left["scores"]["sees"])
    again = run_here("08", DATA=data, TASK="kl_grade")
    pd.testing.assert_frame_equal(again["differences"], left["differences"])
    view = splits.apply(runs.find("data", profile="tiny", data=data))
    assert view.loc[view["split"] == "test", "kl_grade_reader2"].isna().all()
    assert Path(left["run"].path / "figures" / "08_readers.pdf").exists()
    assert replace(left["setup"].lead, start="imagenet") == left["setup"].lead


# ---------------------------------------------------------------------- sets that can't be had here
def drawn(path, patient, seed):
    """A small picture; those of odd patients have a bright bar."""
    grey = np.random.default_rng(seed).integers(0, 90, (70, 50))
    grey[20:30] += 140 * (patient % 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey.astype(np.uint8)).save(path)


def as_mura(root):
    """MURA's layout: four tables without headers, two images a study, the label is the study's."""
    for part, patients in (("train", range(20)), ("valid", range(20, 24))):
        studies, paths = [], []
        for p in patients:
            said = ("negative", "positive")[p % 2]
            study = f"MURA-v1.1/{part}/XR_WRIST/patient{p:05}/study1_{said}/"
            studies.append(f"{study},{p % 2}")
            paths += [f"{study}image{k}.png" for k in (1, 2)]
            for k, path in enumerate(paths[-2:]):
                drawn(root / path, p, 2 * p + k)
        for name, lines in (("image_paths", paths), ("labeled_studies", studies)):
            (root / "MURA-v1.1" / f"{part}_{name}.csv").write_text("\n".join(lines) + "\n")


def as_grazpedwri(root):
    """GRAZPEDWRI-DX's layout: one table with flags, two views of a study."""
    flags = ("initial_exam", "cast", "diagnosis_uncertain", "osteopenia", "metal")
    rows = []
    for p in range(24):
        for view in (1, 2):
            stem = f"{p:04}_{p:010}_01_WRI-L{view}_M009"
            drawn(root / "images_part1" / f"{stem}.png", p, 2 * p + view)
            row = dict(filestem=stem, patient_id=p, study_number=p, gender="M", age=9)
            row |= dict(laterality="L", projection=view, fracture_visible="1" if p % 2 else "")
            rows.append(row | dict.fromkeys(flags, "") | dict(ao_classification="", device=""))
    pd.DataFrame(rows).to_csv(root / "dataset.csv", index=False)


@pytest.mark.parametrize(
    ("data", "task", "write"),
    [("mura", "anomaly", as_mura), ("grazpedwri", "fracture", as_grazpedwri)],
)
def test_sets_that_are_not_here_pass_notebook_08_on_miniatures(tmp_path, data, task, write):
    write(tmp_path / "set")
    asked = dict(DATA=data, DATA_ROOT=str(tmp_path / "set"), TASK=task)
    run_here("01", **asked)
    left = run_here("08", **asked)
    assert [task.name for task in left["setup"].tasks] == [task]
    image = left["scores"].query("sees == 'image' and share == 1")
    assert set(image["start"]) == {"scratch", "imagenet"} and (image["value"] > 0.9).all()
    predictions = left["run"].table("predictions")
    table, told = reporting.pooled_scores(predictions, left["setup"].view, task=cohort.task(task))
    assert len(table) and "study" in told, told
    assert (table["n"] * 2 == predictions["image_id"].nunique()).all()
