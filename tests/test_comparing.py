"""Protects the run comparer: the evaluation's own numbers, only of the same images, none opened."""

import dataclasses
import html
from types import SimpleNamespace

import matplotlib

matplotlib.use("agg")

import numpy as np
import pandas as pd
import pytest

from bonelib import cohort, evaluation, explore, figures, runs
from bonelib.evaluation import Method
from bonelib.experiments import exploring
from bonelib.experiments.context import finish, opened

pytestmark = pytest.mark.usefixtures("clean_canvas")
DRAWS = 60
KINDS = ["tumor", "malignancy", "entity", "kl_grade", "bone_age"]


def predicted(task, method, *, n=90, start=0, seed=0):
    """Predictions of a method that knows a little, about images ``start`` to ``start + n``."""
    known, rng = cohort.task(task), np.random.default_rng(seed)
    numbers = np.arange(start, start + n)
    view = pd.DataFrame({"image_id": [f"i{k}" for k in numbers], "split": "test"})
    view["patient"] = [f"p{k // 2}" for k in numbers]
    if known.classes:
        labels = numbers % len(known.classes)
        view[known.column] = [known.classes[k] for k in labels]
        logits = rng.normal(size=(n, len(known.classes)))
        logits[np.arange(n), labels] += 1
    else:
        view[known.column] = 10.0 + numbers
        logits = view[known.column] + rng.normal(0, 20, n)
    return evaluation.predictions(view, logits, task=known, seed=0, method=method)


def entries(task="tumor"):
    methods = {"a": Method("captions", "full"), "b": Method("imagenet", "probe")}
    methods |= {"c": Method("none", "probe", "metadata"), "d": Method("scratch", "full")}
    made = {name: predicted(task, m, seed=k) for k, (name, m) in enumerate(methods.items())}
    return made | {"e": predicted(task, Method("imagenet", "full"), start=30)}


def made(task="tumor", tables=None, **options):
    tables = entries(task) if tables is None else tables
    panel = explore.runs(tables, task=cohort.task(task), draws=DRAWS, **options)
    return SimpleNamespace(panel=panel, **parts(panel))


def parts(panel):
    waiting, named, classes = [panel.widget], {}, {}
    while waiting:
        widget = waiting.pop(0)
        waiting = [*getattr(widget, "children", ()), *waiting]
        named[getattr(widget, "description", "")] = widget
        for name in widget._dom_classes:
            classes.setdefault(name, []).append(widget)
    facts = classes["bone-facts"][-1]
    table, fault, basis = getattr(facts, "children", (facts, facts, facts))
    return dict(named=named, classes=classes, table=table, fault=fault, basis=basis)


@pytest.mark.parametrize("task", KINDS)
def test_scores_and_differences_are_those_of_the_evaluation(task):
    tables = entries(task)
    bench = made(task, tables)
    bench.named["beside it"].value = ("b", "c")
    metric, told = evaluation.primary(task).metric, html.unescape(bench.table.value)
    tests = []
    for name in ("a", "b", "c"):
        one = evaluation.metrics(tables[name], task=task, only=(metric,), draws=DRAWS).iloc[0]
        assert figures.with_interval(*one[["value", "low", "high"]]) in told
        if name != "a":
            gain = evaluation.compare(tables[name], tables["a"], task=task, draws=DRAWS)
            assert figures.with_interval(*gain[["value", "low", "high"]]) in told
            tests.append(gain["p"])
    for p in (*tests, *evaluation.holm(np.array(tests))):
        assert f"<td>{figures.p_value(p).removeprefix('p ').removeprefix('= ')}</td>" in told
    assert "n = 90 images of 45 patients" in told
    assert ("smaller is better" in told) == (task == "bone_age")
    assert (
        bytes(bench.classes["bone-picture"][0].value).startswith(b"\x89PNG")
        and not bench.fault.value
    )
    assert "b minus a " in bench.panel.still().get_supxlabel().replace("\n", " ")


def test_only_methods_of_the_same_images_are_offered():
    bench = made(refused={"x/y": "it asks <entity>"})
    assert bench.named["reference"].options == ("a", "b", "c", "d", "e")
    assert bench.named["beside it"].options == ("b", "c", "d")
    assert "e: 90 test images, of which it shares 60" in bench.basis.value
    assert "x/y: it asks &lt;entity&gt;" in bench.basis.value
    bench.named["reference"].value = "e"
    assert bench.named["beside it"].options == () and "a; b; c; d: 90" in bench.basis.value
    assert "minus" not in bench.table.value and bench.panel.still().axes


def test_what_was_picked_stays_if_it_can():
    bench = made()
    assert bench.named["beside it"].value == ("b", "c")
    bench.named["beside it"].value = ("c", "d")
    before = bench.table.value
    bench.named["reference"].value = "d"
    assert bench.named["beside it"].value == ("c",) and bench.table.value != before


def test_an_image_without_patients_has_delongs_test_too():
    tables = {name: table.assign(patient=pd.NA) for name, table in entries().items()}
    bench = made(tables=tables)
    found = evaluation.compare(tables["b"], tables["a"], task="tumor", draws=DRAWS)
    assert "p, DeLong" in bench.table.value
    assert figures.number(found["p_delong"]) in bench.table.value


def test_a_long_name_is_whole():
    name = "05 another-variant-s0 captions, linear probe on pooled features (label-supervised text)"
    tables = entries()
    bench = made(tables={"a": tables["a"], name: tables["b"]})
    assert f"<td>{name}</td>" in bench.table.value


@pytest.mark.parametrize("task", ["tumor", "malignancy", "entity"])
def test_what_was_computed_is_kept_and_drawn_as_if_it_were_new(task, monkeypatch):
    tables, task = entries(task), cohort.task(task)
    bench = made(task.name, tables)
    (image,) = bench.classes["bone-picture"]
    before = image.value
    bench.named["beside it"].value = ("b",)
    bench.named["reference"].value = "b"
    bench.named["beside it"].value = ("a", "c")
    swapped = image.value
    for name in ("metrics", "roc", "compare"):
        monkeypatch.setattr(evaluation, name, None)  # not asked again
    bench.named["reference"].value = "a"
    bench.named["beside it"].value = ("b", "c")
    assert image.value == before != swapped and not bench.fault.value


def test_trainings_are_drawn_where_there_are_some():
    rows = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], "val_auroc": [0.6, 0.7]})
    history = {"a": rows.assign(**Method("captions", "full").columns())}
    bench = made(histories=history)
    picture = bench.classes["bone-picture"][0].value
    bench.named["curves of"].value = "trainings"
    assert bench.classes["bone-picture"][0].value != picture
    assert bench.panel.still().axes[0].get_ylabel() == "validation AUROC"
    bench.named["reference"].value = "c"
    bench.named["beside it"].value = ("b",)
    assert "none of these was trained" in bench.panel.still().get_supxlabel()


def test_labels_that_disagree_are_a_fault_that_is_seen():
    tables = entries()
    tables["b"] = tables["b"].assign(label=tables["b"]["label"].to_numpy()[::-1])
    bench = made(tables=tables)
    assert "images have different labels" in bench.fault.value and not bench.table.value
    assert not bench.classes["bone-picture"][0].value
    bench.named["beside it"].value = ("c",)
    assert not bench.fault.value and "minus the reference" in bench.table.value


def test_nothing_to_compare_is_a_sentence():
    panel = explore.runs(
        {}, task=cohort.task("tumor"), refused={"r": "it is stale"}, said="Made up."
    )
    assert panel.widget.value == "Made up. No run can be compared; r: it is stale"
    assert "No run can be compared" in panel.still().get_supxlabel()


# ---------------------------------------------------------------------- of the runs there are
def test_finished_runs_are_read_and_no_label_is_opened(sealed):
    context = sealed()
    view = context.view()
    held = view[view["split"] == "test"]

    def run(stage, context, methods, *, hidden=False, history=False):
        started = context.start(stage, settings=dict(test="fold0"), inputs=[context.cohort_run])
        rng = np.random.default_rng(len(methods))
        told = dict(task=context.asked, seed=context.seed)
        size = (len(held), max(1, len(context.asked.classes)))
        tables = [
            evaluation.predictions(held, rng.normal(size=size), method=m, **told) for m in methods
        ]
        table = pd.concat(tables)
        started.save_table(
            "predictions", table if hidden else evaluation.with_labels(table, opened(started))
        )
        if history:
            rows = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0]})
            started.save_table("history", rows.assign(**methods[-1].columns()))
        return finish(started, notes=dict(caption_fields=("view", "site", "malignancy")))

    both = [Method("captions", "probe"), Method("captions", "full")]
    asks = Method("captions", "prompt", detail="label")
    fine = run("finetuning", context, both[::-1], history=True)
    words = run("zero_shot", context, [asks, both[0]])
    shy = run("baselines", context, [Method("none", "probe", "metadata")], hidden=True)
    other = run("finetuning", dataclasses.replace(context, task="malignancy"), both)
    again = run(
        "finetuning", dataclasses.replace(context, variant="again", inputs="default"), both[:1]
    )
    records = [runs.record.openings(r.path) for r in (fine, words, shy, other)]

    panel = exploring.compare_runs(context)
    bench = SimpleNamespace(panel=panel, **parts(panel))
    names = bench.named["reference"].options
    assert names[0] == "05 captions, linear probe" and "05 captions, fine-tuned" in names
    assert "06 prompts by label (label-supervised text)" in names
    assert "05 again-s0 captions, linear probe" in names and len(names) == 5
    assert bench.named["beside it"].options == tuple(n for n in names if n != names[0])
    assert f"{other.name.removeprefix('runs/')}: it asks malignancy, not tumor" in bench.basis.value
    assert "02 metadata only: its test labels were not opened" in bench.basis.value
    assert "Synthetic radiographs." in bench.classes["bone-facts"][0].value
    bench.named["beside it"].value = tuple(n for n in names if "probe" in n and n != names[0])
    assert len(bench.named["beside it"].value) == 2 and not bench.fault.value
    bench.named["curves of"].value = "trainings"
    assert again.finished and not bench.fault.value
    assert records == [runs.record.openings(r.path) for r in (fine, words, shy, other)]
