"""Protects what is said of one method in use: its calls, its probabilities, and for whom."""

from types import SimpleNamespace

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from bonelib import cohort, evaluation, reporting, runs
from bonelib.experiments import finetuning

pytestmark = pytest.mark.usefixtures("clean_canvas")
evidence = reporting.evidence
Method = evaluation.Method
OURS = Method(start="captions", strategy="full")
OTHER = Method(start="imagenet", strategy="probe")
METADATA = Method(strategy="probe", sees="metadata")
KINDS = ("tumor", "malignancy", "entity", "kl_grade", "bone_age")
N = 400  # images, two a patient
DRAWS = 200


def drawn(name="tumor", *, seed=0):
    """A cohort whose women the model can't see: its scores of them are noise."""
    task, rng = cohort.task(name), np.random.default_rng(seed)
    patient = np.repeat(np.arange(N // 2), 2)
    sex = np.where(patient % 2, "F", "M")
    view = cohort.empty(N).assign(
        image_id=[f"i{k:03d}" for k in range(N)],
        patient=[f"p{k}" for k in patient],
        split="test",
        sex=sex,
        age=rng.uniform(5, 80, N // 2)[patient],
        site=[("femur",) if k % 3 else ("hand", "wrist") for k in patient],
        center=np.where(patient < 4, "small", "large"),
    )
    knows = np.where(sex == "M", 2.0, 0.0)
    if task.kind == "regression":
        truth = rng.uniform(20, 200, N // 2)[patient]
        out = np.where(sex == "M", truth, 110) + rng.normal(size=N)
        return task, view.assign(**{task.column: truth}), out
    code = rng.integers(len(task.classes), size=N // 2)[patient]
    logits = rng.normal(size=(N, len(task.classes)))
    logits[np.arange(N), code] += knows
    return task, view.assign(**{task.column: np.array(task.classes, object)[code]}), logits


def judged(name="tumor", *, scale=1.0, threshold=None, entity=None):
    task, view, logits = drawn(name)
    table = evaluation.predictions(view, scale * logits, task=task, seed=0, method=OURS)
    if threshold is not None:
        table["threshold"] = threshold
    opened = view[["image_id"]].assign(**({} if entity is None else {"entity": entity}))
    told = dict(task=task, method=OURS, opened=opened, draws=DRAWS)
    return evidence.judge(table, view, **told)


# ---------------------------------------------------------------------- which method?
def test_the_method_is_the_best_one_of_images_on_validation_patients():
    task, view, logits = drawn()
    noise, label = np.zeros_like(logits), task.encode(view[task.column])
    tables = [
        evaluation.predictions(view, x, task=task, seed=0, method=method)
        for method, x in ((OTHER, noise), (OURS, logits), (METADATA, np.eye(2)[label] * 9.0 - 4))
    ]
    assert evidence.choose(pd.concat(tables), task=task) == OURS, "metadata are no image method"
    assert evidence.choose(pd.concat(tables[::-2]), task=task) == OTHER
    task, view, values = drawn("bone_age")
    tables = [
        evaluation.predictions(view, x, task=task, seed=0, method=method)
        for method, x in ((OTHER, values + 40), (OURS, values))
    ]
    assert evidence.choose(pd.concat(tables), task=task) == OURS, "of an error less is better"


# ---------------------------------------------------------------------- what does it call?
@pytest.mark.parametrize("threshold", [0.2, 0.8, None])
def test_calls_are_made_at_the_threshold_of_the_predictions_else_at_one_half(threshold):
    one = judged(threshold=threshold)
    rows, cut = one.predictions, 0.5 if threshold is None else threshold
    assert one.threshold == cut
    positive = rows["label"] == "tumor"
    expected = (rows.loc[positive, "p_tumor"] >= cut).mean()
    assert one.points.set_index("metric").loc["sensitivity", "value"] == pytest.approx(expected)
    chosen = "chosen on validation patients" in evidence.read([one])
    assert chosen == (threshold is not None)


def test_an_entity_is_set_against_all_normal_images():
    _, view, _ = drawn()
    tumor = view["tumor"] == "tumor"
    rare = view["patient"].isin(view.loc[tumor, "patient"].unique()[:6])  # 12 images of 6 patients
    entity = pd.Series("osteosarcoma", view.index, dtype=object).mask(rare, "other bt")
    one = judged(entity=entity.where(tumor))
    found, rows = one.subgroups["entity"].set_index("entity"), one.predictions
    rows = rows[(rows["label"] == "normal") | (rows["entity"] == "osteosarcoma")]
    expected = evaluation.auroc(rows["label"] == "tumor", rows["p_tumor"])
    assert found.loc["osteosarcoma", "value"] == pytest.approx(expected)
    assert found.loc["other bt", "note"] == "too few" and np.isnan(found.loc["other bt", "value"])
    assert set(found.index) == {"osteosarcoma", "other bt"}, "normal images have no entity"


# ---------------------------------------------------------------------- can it be believed?
def test_the_reading_says_of_what_kind_the_fault_of_the_probabilities_is():
    assert "are too extreme" in evidence.read([judged(scale=4.0)])
    assert "are too cautious" in evidence.read([judged(scale=0.2)])
    task, view, logits = drawn()
    shifted = evaluation.predictions(view, logits - [3, 0], task=task, seed=0, method=OURS)
    told = dict(task=task, method=OURS, opened=view[["image_id"]], draws=DRAWS)
    assert "too high" in evidence.read([evidence.judge(shifted, view, **told)])
    p = np.repeat([0.2, 0.5, 0.8], [160, 80, 160])
    label = np.where(np.arange(N) % 10 < 10 * p, "tumor", "normal")  # as often as said
    table = view.assign(tumor=label, patient=view["image_id"])
    logits = np.log(p / (1 - p))
    true = evaluation.predictions(table, logits, task=task, seed=0, method=OURS)
    one = evidence.judge(true, view, **told)
    assert one.points.set_index("metric").loc["calibration slope", "value"] == pytest.approx(1)
    assert "not shown to be wrong" in evidence.read([one])


# ---------------------------------------------------------------------- for whom is it worse?
def test_a_gap_is_found_where_it_is_and_few_patients_get_no_number():
    one = judged()
    found = {by: part.set_index(by) for by, part in one.subgroups.items()}
    assert found["sex"].loc["M", "low"] > found["sex"].loc["F", "high"]
    gaps = one.gaps.set_index("by")["p_holm"]
    assert gaps["sex"] < 0.05 < gaps["site"], "the sites know the same"
    assert found["center"].loc["small", "note"] != "", "8 images of 4 patients"
    assert "center" not in gaps.index, "one centre has no other to differ from"
    assert {"femur", "hand + wrist"} == set(found["site"].index)
    said = evidence.read([one])
    assert "by sex: worse for F" in said and "by site: no gap shown" in said
    shown = evidence.shown([one])
    assert (shown["group"] == "small").sum() == 0 and "AUROC" in set(shown["metric"])


def test_what_is_unknown_or_the_same_for_all_makes_no_subgroups():
    task, view, logits = drawn()
    table = evaluation.predictions(view, logits, task=task, seed=0, method=OURS)
    bare = view.assign(sex=pd.NA, age=pd.NA, site=[()] * N, center="one")
    told = dict(task=task, method=OURS, opened=view[["image_id"]], draws=20)
    one = evidence.judge(table.assign(center="one"), bare, **told)
    assert not one.subgroups and one.gaps.empty
    assert "Nothing that is known" in evidence.read([one])
    assert [name for name, _ in evidence.draw([one], "05")] == ["05_evidence"]


# ---------------------------------------------------------------------- every kind of task
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_task_is_judged_shown_drawn_and_read(name):
    one = judged(name)
    assert len(evidence.shown([one])) > 3 and one.task.name in evidence.read([one])
    drawings = dict(evidence.draw([one], "08"))
    assert set(drawings) == {"08_evidence", "08_subgroups"}
    both = dict(evidence.draw([one, one], "08"))
    assert set(both) == {f"08_evidence_{name}", f"08_subgroups_{name}"}
    for figure in drawings.values():
        figure.canvas.draw()
    if name == "bone_age":
        assert set(evaluation.LIMITS) < set(one.points["metric"])
        assert "A value has no calls" in evidence.read([one])
        assert one.gaps.set_index("by").loc["sex", "p_holm"] < 0.05
    plt.close("all")


def test_nothing_is_judged_where_nothing_is_predicted():
    assert evidence.shown([]).empty and not list(evidence.draw([], "06"))
    assert "nothing is judged" in evidence.read([])


# ---------------------------------------------------------------------- several trainings
def test_seeds_of_one_setting_are_scored_together(tmp_path, monkeypatch):
    monkeypatch.setenv("BONELIB_RUNS", str(tmp_path))
    task, view, logits = drawn()
    tables = []
    for seed in (0, 1, 2):
        own = logits + np.random.default_rng(seed).normal(size=logits.shape)
        tables.append(evaluation.predictions(view, own, task=task, seed=seed, method=OURS))
        place = dict(profile="tiny", data="phantom", task="tumor", seed=seed, variant="default")
        settings = dict(test="fold0", epochs=2 if seed < 2 else 9)  # the last one is another plan
        run = runs.start("finetuning", **place, **settings)
        if seed:
            run.save_table("predictions", tables[-1])
            run.finish()
        else:
            first = run
    place = dict(profile="tiny", data="phantom", root="", task="tumor", variant="default")
    context = SimpleNamespace(**place, asked=task)
    found = finetuning.seeds(context, first, tables[0]).iloc[0]
    expected = evaluation.repeated(tables[:2], task=task)
    assert found["repeats"] == 2 and found["value"] == pytest.approx(expected["value"])
    assert found["lowest"] < found["value"] < found["highest"]
    context.variant = "other"
    assert finetuning.seeds(context, first, tables[0]).empty


# ---------------------------------------------------------------------- far from calibrated
def test_the_slope_is_found_where_the_probabilities_are_far_too_low():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    for shift, spread in ((-3, 1.2), (4, 0.5), (-6, 2)):
        logit = rng.normal(shift, spread, N)
        sick = rng.uniform(size=N) < 1 / (1 + np.exp(-0.9 * (logit - shift)))
        task, view, _ = drawn()
        table = view.assign(tumor=np.where(sick, "tumor", "normal"))
        made = evaluation.predictions(table, logit, task=task, seed=0, method=OURS)
        found = evaluation.metrics(made, task=task, draws=50, only=("calibration slope",)).iloc[0]
        fit = LogisticRegression(C=np.inf, tol=1e-10).fit(logit[:, None], sick)
        assert found["value"] == pytest.approx(fit.coef_[0, 0], rel=1e-4)
        assert found["low"] < found["value"] < found["high"] and not found["dropped"]


def test_useful_thresholds_with_a_hole_are_not_told_as_one_span(monkeypatch):
    one = judged(threshold=pd.NA)
    assert "fixed beforehand" in evidence.read([one]), "no threshold was frozen"
    x = np.linspace(0.1, 0.5, 5)
    for low, said in (
        ([0, 0.1, 0.1, 0.1, 0], "interval and all, from .200 to .400"),
        ([0.1, 0, 0, 0.1, 0.1], "interval and all, at 3 thresholds from .100 to .500"),
        ([0, 0, 0, 0, 0], "interval and all, at no threshold"),
    ):
        curve = pd.DataFrame({"x": x, "low": low, "treat_all": -0.1})
        monkeypatch.setattr(evaluation, "decision_curve", lambda *_, curve=curve, **__: curve)
        assert said in evidence.read([one])


def test_a_curve_without_draws_has_no_band():
    task, view, logits = drawn()
    made = evaluation.predictions(view, logits, task=task, seed=0, method=OURS)
    for curve in (evaluation.roc, evaluation.precision_recall, evaluation.decision_curve):
        found = curve(made, task=task, draws=0)
        assert found["value"].notna().all() and found[["low", "high"]].isna().all(axis=None)
