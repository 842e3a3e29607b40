"""Protects that every kind of task passes: binary, several classes, grades and values alike."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from bonelib import (
    adaptation,
    audit,
    captions,
    cohort,
    encoders,
    evaluation,
    explain,
    features,
    figures,
    models,
    reporting,
    training,
    zero_shot,
)

pytestmark = pytest.mark.usefixtures("clean_canvas")

KINDS = ("tumor", "malignancy", "entity", "kl_grade", "bone_age")
METADATA = evaluation.Method(strategy="probe", sees="metadata")
IMAGE = evaluation.Method(start="imagenet", strategy="probe")
TUNED = evaluation.Method(start="captions", strategy="full")
ROWS, FOLDS = 160, 4


def drawn(name, seed=0):
    """A cohort table with labels of one task and features that know them; two images a patient.

    Of ``entity`` the last class has no image at all, and the one before a single patient.
    """
    task, rng = cohort.task(name), np.random.default_rng(seed)
    patient = np.repeat(np.arange(ROWS // 2), 2)
    signal = rng.uniform(size=ROWS // 2)
    if task.kind == "regression":
        truth, labels = signal[patient], 30 + 180 * signal[patient]
    else:
        classes = len(task.classes) - 2 * (name == "entity")
        code = np.arange(ROWS // 2) % classes
        code[0] = classes - 1 + (name == "entity")
        truth = code[patient] / classes
        labels = np.array(task.classes, dtype="object")[code[patient]]
    table = cohort.empty(ROWS).assign(
        image_id=[f"i{k:03d}" for k in range(ROWS)],
        patient=[f"p{k}" for k in patient],
        group=[f"p{k}" for k in patient],
        group_kind="patient",
        fold=patient % FOLDS,
        split="test",
        source="drawn",
    )
    table[task.column] = labels
    seen = truth + 0.15 * rng.normal(size=ROWS)
    steps = np.abs(seen[:, None] - np.linspace(0, 1, 9))  # near each of nine points
    return task, table, np.hstack([steps, rng.normal(size=(ROWS, 3))])


def out_of_fold(name):
    """Predictions of a probe that knows something and of one that sees noise, labels joined."""
    task, table, x = drawn(name)
    held = np.stack([(table["fold"] == k).to_numpy() for k in range(FOLDS)])
    shown = np.stack([task.encode(table[task.column].where(~test)) for test in held])
    noise = np.random.default_rng(1).normal(size=x.shape)
    tables = []
    for method, seen in ((METADATA, noise), (IMAGE, x)):
        out = adaptation.cross_fit(
            seen,
            shown,
            held,
            table["group"].to_numpy(),
            classes=len(task.classes),
            strengths=(0.1, 10.0),
        )
        closed = table.assign(**{task.column: pd.NA})
        tables.append(evaluation.predictions(closed, out, task=task, seed=0, method=method))
    opened = table[["image_id", task.column]]
    return task, evaluation.with_labels(pd.concat(tables, ignore_index=True), opened)


@pytest.fixture(scope="module", params=KINDS)
def scored(request):
    return out_of_fold(request.param)


# ---------------------------------------------------------------------- probes and metrics
def test_a_probe_a_fold_has_the_columns_of_the_task_and_beats_noise(scored):
    task, table = scored
    columns = [f"p_{name}" for name in task.classes] or ["value"]
    assert list(table.columns[-len(columns) :]) == columns
    assert np.isfinite(table[columns]).all(axis=None)
    metric, lower, chance = evaluation.primary(task)
    noise, known = (
        evaluation.metrics(rows, task=task, draws=100).set_index("metric").loc[metric]
        for rows in evaluation.by_method(table).values()
    )
    if task.name == "entity":  # one class has one patient: nothing says how far off it may be
        assert known["interval"] == "none" and np.isnan(known["low"]) and known["n"] == ROWS
        return
    assert (known["low"] <= known["value"] <= known["high"]) and known["n"] == ROWS
    assert known["high"] < noise["low"] if lower else known["low"] > noise["high"]
    if chance is not None:
        assert noise["low"] < chance + 0.15 and known["low"] > chance
    lead = evaluation.compare(*evaluation.by_method(table).values(), task=task, draws=100)
    assert lead["metric"] == metric and np.sign(lead["low"]) == np.sign(lead["high"])
    assert lead["value"] == pytest.approx(noise["value"] - known["value"])


def test_a_class_without_images_counts_for_nothing_and_a_rare_one_by_its_own():
    task, table = out_of_fold("entity")
    rows = evaluation.by_method(table)[IMAGE]
    found = evaluation.metrics(rows, task=task, draws=50).set_index("metric")["value"]
    each = found[[f"AUROC {name}" for name in task.classes]]
    assert each.isna().sum() == 1 and found["AUROC"] == pytest.approx(each.mean())


def test_grades_have_a_kappa_beside_the_area_and_values_an_error_in_their_unit():
    task, table = out_of_fold("kl_grade")
    found = evaluation.metrics(evaluation.by_method(table)[IMAGE], task=task, draws=10)
    assert {"quadratic kappa", "AUROC"} <= set(found["metric"])
    assert evaluation.primary(task).keep == "val_quadratic_kappa"
    task, table = out_of_fold("bone_age")
    rows = evaluation.by_method(table)[IMAGE]
    error = (rows["value"] - rows["label"].astype(float)).abs().mean()
    assert evaluation.score(rows, task) == pytest.approx(error) and task.unit == "months"
    assert evaluation.primary(task).keep == "-val_mae"
    with pytest.raises(ValueError, match="1 of 160 predicted values"):
        values = rows["value"].where(rows.index != rows.index[3])
        evaluation.predictions(rows, values, task=task, seed=0)


# ---------------------------------------------------------------------- tables and figures
def test_the_table_prints_the_primary_metric_and_the_better_method_is_bold(scored):
    task, table = scored
    metric = evaluation.primary(task).metric
    missing = evaluation.Method(start="resnet50.a1_in1k", strategy="probe")
    scores = reporting.scores(table, task=task, draws=100, unavailable=[missing])
    assert scores["start"].tolist() == ["none", "imagenet", "resnet50.a1_in1k"]
    proven = task.name != "entity"  # of which a class has one patient, so that no test is valid
    assert scores["best"].tolist() == [False, proven, False]
    lines = reporting.to_markdown(scores).splitlines()
    place = [cell.strip() for cell in lines[0].split("|")].index(metric)
    bold = f"**{figures.number(scores.loc[1, metric])}**" in lines[3].split("|")[place]
    assert bold == proven
    ax = figures.plot_forest(scores, unit=task.unit)
    assert ax.get_xlabel().split("\n")[0] == metric + (", months" if task.unit else "")
    level = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"]
    assert level == {"AUROC": [0.5], "quadratic kappa": [0.0], "MAE": []}[metric]


def test_one_call_draws_the_chart_that_fits_the_kind(scored):
    task, table = scored
    beside = plt.subplots(1, 2, layout="constrained")[1][1]
    for ax in (None, beside):
        ax = figures.plot_predictions(table, task=task, draws=20, ax=ax)
        ax.figure.canvas.draw()
        names = [text.get_text() for text in ax.get_legend().get_texts()]
        assert [name.replace("\n", "  ").split("  ")[0] for name in names] == [
            "metadata only",
            "ImageNet, linear probe",
        ]
        assert "n = 160 images of 80 patients" in ax.figure.get_supxlabel().replace("\n", " ")
    rows = evaluation.by_method(table)[IMAGE]
    if task.kind == "regression":
        assert ax.get_xlabel() == "true bone age, months"
        np.testing.assert_allclose(ax.lines[1].get_xdata(), rows["label"].astype(float), rtol=1e-6)
        assert ax.lines[1].get_ydata().tolist() == rows["value"].tolist()
        assert (ax.lines[2].get_xdata() == ax.lines[2].get_ydata()).all(), "the identity"
    elif task.kind == "ordinal":
        assert ax.lines[1].get_ydata()[0] < 1 and ax.lines[1].get_ydata()[-1] > 3
        counts = figures.plot_predictions(rows, task=task)
        shown = sum(int(text.get_text().split("\n")[0]) for text in counts.texts)
        assert shown == ROWS, "one method's grades are counted"
    else:
        assert ax.get_ylabel() == "sensitivity"


def test_the_history_names_the_number_that_chose_the_epoch():
    words = {"tumor": "validation AUROC", "bone_age": "validation MAE"}
    words["kl_grade"] = "validation quadratic kappa"
    for name, shown in words.items():
        column = evaluation.primary(name).column
        rows = pd.DataFrame([TUNED.columns() | {"epoch": 1, column: 0.5, "kept": True}])
        assert figures.plot_history(rows, value=column).get_ylabel() == shown


# ---------------------------------------------------------------------- fine-tuning and Grad-CAM
def pictures(labels, task):
    """Brighter images for higher classes or values; a loader in contract form."""
    known = np.nan_to_num(np.asarray(labels, dtype=float))
    level = torch.tensor(known / max(1.0, known.max()), dtype=torch.float32)
    pixels = torch.rand(len(labels), 3, 32, 32, generator=torch.Generator().manual_seed(0))

    class Loader:
        def __len__(self):
            return 1

        def __iter__(self):
            yield {
                "image": 0.3 * pixels + level[:, None, None, None],
                "label": torch.tensor(labels),
            }

    return Loader()


@pytest.mark.parametrize("name", KINDS)
def test_fine_tuning_learns_every_kind_and_its_maps_explain_what_it_says(name):
    task, table, _ = drawn(name)
    view = table.iloc[::10].reset_index(drop=True)  # 16 images
    labels = task.encode(view[task.column])
    labels[3] = np.nan if task.kind == "regression" else -1
    loader, measure = pictures(labels, task), evaluation.primary(task)

    def validate(model):
        out = features.encode(model, loader)
        if task.kind == "regression":
            seen.append(out)
        return {measure.column: evaluation.score(predicted(out), task)}

    def predicted(out):
        return evaluation.predictions(view, out, task=task, seed=0, method=TUNED)

    seen: list[np.ndarray] = []
    tower = encoders.image("timm:test_resnet", weights="random", size=32)
    model = models.Classifier(tower, outputs=task.outputs)
    options = training.Options(epochs=3, lr=0.05, backbone_lr=3e-4, layer_decay=1.0)
    given = dict(validate=validate, keep=measure.keep, accelerator="cpu")
    with adaptation.objective(model, labels, ordinal=task.kind == "ordinal") as objective:
        rows = list(training.fit(model, objective, loader, options, **given))
    assert rows[-1]["loss"] < rows[0]["loss"] and rows[0][measure.column] >= 0
    out = features.encode(model, loader)
    if task.kind == "regression":
        kept = max(k for k, row in enumerate(rows) if row["kept"])
        np.testing.assert_allclose(out, seen[kept], rtol=1e-4)  # in months, within and after
        assert abs(np.mean(out) - np.nanmean(labels)) < 60 and not model.head._forward_hooks
    assert evaluation.score(predicted(out), task) >= 0
    shown = task.findings(labels)
    assert shown.sum() >= 8 and not shown[3]
    maps = explain.grad_cam(model, loader, target=explain.targets(labels, outputs=task.outputs))
    assert maps.shape == (16, 32, 32) and np.isfinite(maps).all()


# ---------------------------------------------------------------------- words
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("style", captions.STYLES)
def test_every_kind_can_be_asked_in_words(name, style):
    task, table, _ = drawn(name)
    prompts = captions.prompts(task, style=style)
    values = captions.prompt_values(task)
    assert len(prompts) == (len(values) or len(task.classes))
    code = task.encode(table[task.column])
    if values:
        code = np.abs(code[:, None] - np.array(values)).argmin(axis=1)
    out = zero_shot.logits(np.eye(9)[code], np.eye(9)[: len(prompts)], scale=50.0)
    out = zero_shot.expected(out, values) if values else out
    method = evaluation.Method(start="captions", strategy="prompt", detail=style)
    found = evaluation.predictions(table, out, task=task, seed=0, method=method)
    best = evaluation.score(found, task)
    assert best < 36 if values else best == 1
    scores = reporting.scores(found, task=task, draws=10, caption_fields=("view", "signs"))
    assert scores["label"].tolist() == ["zero-shot"]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_audited(name):
    task, table, x = drawn(name)
    found = audit.findings(table, task=task, features=x, draws=20)
    assert found["sentence"].str.len().gt(10).all()
