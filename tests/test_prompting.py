"""Protects notebook 06: each way of asking is a row, what labels fit is no zero-shot, bad input."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bonelib import captions, encoders, evaluation, models, reporting
from bonelib.evaluation import Method
from bonelib.experiments import prompting
from bonelib.experiments.context import finish
from bonelib.experiments.prompting import answers

FIELDS = ("view", "site", "signs")


@pytest.fixture(scope="module")
def context(sealed):
    yield sealed()


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Return what stands for a run of 04: a bundle of random towers, by what it is made of."""
    made = {}

    def make(text="random", *, dual=True, bias=True, language="en"):
        key = (text, dual, bias)
        if key not in made:
            image = encoders.image("timm:resnet10t", weights="random", size=64)
            model = models.Classifier(image, outputs=1)
            if dual:
                model = models.DualEncoder(image, encoders.text(text), dim=32, bias=bias)
            folder = tmp_path_factory.mktemp("bundle") / "bundle"
            made[key] = models.save_bundle(folder, model.eval())
        settings = dict(size=64, resize="pad", language=language)
        notes = dict(caption_fields=FIELDS)
        return SimpleNamespace(bundle=made[key], settings=settings, notes=notes, name="made up")

    return make


def asked(context, pretraining, *, variant, own="", **options):
    """Do what notebook 06 does up to the table of scores."""
    context = dataclasses.replace(context, variant=variant, inputs="default")
    plan = prompting.plan(context, pretraining, **options)
    words = prompting.find_words(context, pretraining, plan, own=own)
    run = context.start("zero_shot", settings=plan, inputs=[context.cohort_run])
    return context, run, words, prompting.judge(context, run, words)[0]


@pytest.fixture(scope="module")
def judged(context, pretrained, tmp_path_factory):
    own = tmp_path_factory.mktemp("own") / "mine.csv"
    pd.DataFrame(
        [("normal", "a normal bone of somebody"), ("tumor", "one bone tumor here")],
        columns=["class", "prompt"],
    ).to_csv(own, index=False)
    made = asked(context, pretrained(), variant="judged", own=str(own), languages="en,fr")
    context, run, words, predictions = made
    prompting.risk(context, run, predictions)
    prompting.calibration(context, run, predictions)
    return context, finish(run), words, predictions


# ---------------------------------------------------------------------- what is asked
def test_each_way_of_asking_is_a_row_of_its_own(judged):
    _, run, words, predictions = judged
    details = {m.detail for m in evaluation.by_method(predictions) if m.strategy == "prompt"}
    for name in ("label", "signs", "label (fr)", "signs (fr)"):
        assert {name, f"{name} at the site", f"{name}, sigmoid"} <= details
    assert {"attributes", "attributes (fr)", "entities", "own", "label on windows"} <= details
    assert len(run.openings) == 1 and set(predictions["split"]) == {"test"}
    counts = {len(rows) for rows in evaluation.by_method(predictions).values()}
    assert len(counts) == 1, "each is asked about the same images"


def test_what_validation_labels_fitted_is_never_called_zero_shot(judged):
    context, run, words, predictions = judged
    fitted = run.table("calibrated")
    assert set(fitted["strategy"]) == {"calibrated"} and set(fitted["detail"]) == {
        "label",
        *(f"{name}, sigmoid" for name in words.prompts),
    }
    both = pd.concat([predictions, fitted])
    scores = reporting.scores(both, task=context.asked, caption_fields=words.fields, draws=10)
    kinds = scores.groupby("strategy")["label"].agg(set)
    assert kinds["prompt"] == {"zero-shot"}
    assert kinds["calibrated"] == kinds["cascade"] == kinds["probe"] == {""}


def test_the_sigmoid_reads_the_positive_class_against_the_pairs_own_bias(judged):
    _, _, words, predictions = judged
    rows = evaluation.by_method(predictions)[Method("captions", "prompt", detail="label, sigmoid")]
    p = rows["p_tumor"].to_numpy()
    cosines = (np.log(p / (1 - p)) - words.model.logit_bias.item()) / words.scale
    assert (np.abs(cosines) <= 1).all()


def test_a_cascade_is_the_gate_of_the_threshold_that_validation_chose(judged):
    _, run, _, predictions = judged
    tables = evaluation.by_method(predictions)
    first = tables[Method("captions", "prompt", detail="label")]
    second = tables[Method("captions", "probe")]
    gates = run.table("gates").set_index("detail")["threshold"]
    both = tables[Method("captions", "cascade", detail="label, then the probe")]
    p = first[["p_normal", "p_tumor"]].to_numpy()
    sure = evaluation.entropy(np.log(p)) < gates["label, then the probe"]
    expected = np.where(sure, first["p_tumor"], second["p_tumor"])
    np.testing.assert_allclose(both["p_tumor"], expected, atol=1e-9)
    assert 0 < gates["reader"] <= 1


def test_tables_and_sentences_have_intervals_and_a_finished_run_keeps_them(judged):
    context, run, _, predictions = judged
    risk = prompting.risk(context, run, predictions)
    assert set(risk["coverage"]) == {0, 0.2, 0.4, 0.6, 0.8, 1.0}
    assert (risk["low"] <= risk["value"] + 1e-9).all() and (risk["value"] <= risk["high"]).all()
    assert "AURC" in prompting.read_risk(context, run, predictions, risk)
    scores = prompting.calibration(context, run, predictions)
    nll = scores[scores["measure"] == "NLL"].set_index(["prompts", "when"])["value"]
    change = scores[scores["measure"] == "NLL, change"].set_index("prompts")["value"]
    assert change["label"] == pytest.approx(nll["label", "after"] - nll["label", "before"])
    assert "ECE" in prompting.read_calibration(scores)
    regions, sheet = prompting.regions(context, run, predictions)
    hit = regions.set_index(["measure", "detail"])["value"]
    for measure in set(regions["measure"]):
        gain = hit[measure, "windows"] - hit[measure, "random windows"]
        assert hit[measure, "gain over random"] == pytest.approx(gain)
    assert sheet is not None and "central" in prompting.read_regions(regions)


def test_a_predicted_site_is_scored_by_the_table_and_named_in_the_row(context, pretrained):
    context, run, _, predictions = asked(
        context, pretrained(bias=False), variant="predicted", sites="predicted"
    )
    details = {m.detail for m in evaluation.by_method(predictions)}
    assert "label at the predicted site" in details and "label at the site" not in details
    assert not [name for name in details if "sigmoid" in name], "without a bias"
    sites = run.table("sites")
    assert sites["asked"].all() and sites["met"].between(0, 1).all()
    assert f"of {sites['split'].eq('test').sum()} known ones" in prompting.read_sites(
        run, predictions
    )


@pytest.mark.parametrize(
    "one, other, same",
    [
        (("femur",), ("femur", "knee"), True),
        (("femur",), ("tibia",), False),
        (("lower limb",), ("tibia",), True),
        (("femur",), ("lower limb",), True),
        (("hand",), ("lower limb",), False),
    ],
)
def test_a_site_is_met_by_the_bone_or_by_its_region(one, other, same):
    assert answers._same(one, other) is same


# ---------------------------------------------------------------------- bad input
def test_a_language_without_prompts_is_named_with_those_that_have_some(context, pretrained):
    with pytest.raises(ValueError, match="No prompts in 'xx'. LANGUAGES: en, fr"):
        prompting.plan(context, pretrained(), languages="en,xx")
    with pytest.raises(ValueError, match="SITES='nowhere'. Choose table or predicted"):
        prompting.plan(context, pretrained(), sites="nowhere")


def test_a_language_that_the_text_tower_cannot_read_is_left_out_and_said(context, pretrained):
    made = pretrained("packaged:minilm", bias=False)
    plan = prompting.plan(context, made, languages="fr,en")
    words = prompting.find_words(context, made, plan)
    assert words.languages == ("en",) and list(words.prompts) == ["label", "signs"]
    assert "reads en alone: its prompts in fr are left out" in prompting.read_words(words)
    alone = prompting.find_words(context, made, plan | {"languages": ("fr",)})
    assert not alone.prompts and "Nothing is asked in words" in prompting.read_words(alone)


def test_a_bundle_of_images_alone_is_asked_nothing(context, pretrained):
    context, run, words, predictions = asked(context, pretrained(dual=False), variant="images")
    assert predictions.empty
    assert "learnt without a text tower" in prompting.read_words(words)
    assert prompting.read_sites(run, predictions) == ""
    risk = prompting.risk(context, run, predictions)
    calibration = prompting.calibration(context, run, predictions)
    regions, sheet = prompting.regions(context, run, predictions)
    drawn = [prompting.draw_risk(risk), prompting.draw_regions(regions), sheet]
    drawn.append(prompting.draw_calibration(context, run, predictions, calibration))
    assert drawn == [None] * 4
    said = [prompting.read_risk(context, run, predictions, risk)]
    said += [prompting.read_calibration(calibration), prompting.read_regions(regions)]
    assert all(text.startswith("**Reading.** No") for text in said)
    assert not finish(run).openings


def test_a_task_without_words_is_asked_nothing(context, pretrained, monkeypatch):
    monkeypatch.setattr(captions, "styles", lambda task: ())
    made = pretrained()
    plan = prompting.plan(context, made)
    words = prompting.find_words(context, made, plan)
    assert words.reason == "There are no words for the classes of tumor."


@pytest.mark.parametrize(
    "rows, said",
    [
        ([("normal", "normal bone"), ("tumor", "a shadow")], "name its class 'tumor'"),
        ([("normal", "normal bone"), ("Normal", "bone"), ("tumor", "bone tumor")], "given twice"),
        ([("normal", "normal bone")], "'tumor' has no prompts"),
        ([("normal", "normal bone"), ("cyst", "a cyst")], "'cyst' is no class of tumor"),
    ],
)
def test_own_prompts_that_ask_for_nothing_are_refused(context, pretrained, tmp_path, rows, said):
    pd.DataFrame(rows, columns=["class", "prompt"]).to_csv(tmp_path / "own.csv", index=False)
    made = pretrained()
    plan = prompting.plan(context, made)
    with pytest.raises(ValueError, match=said):
        prompting.find_words(context, made, plan, own=str(tmp_path / "own.csv"))


def test_an_image_without_a_site_is_asked_without_one_and_counted(judged, context):
    _, run, _, predictions = judged
    assert "0 of" in prompting.read_sites(run, predictions)
    run_like = SimpleNamespace(
        settings={"sites": "table"},
        table=lambda name: run.table(name).assign(asked=lambda t: t.index > 2, met=np.nan),
    )
    assert "; 3 of" in prompting.read_sites(run_like, predictions)
    run_like.settings["sites"] = "predicted"
    assert "predict the site first; the table knows none" in prompting.read_sites(
        run_like, predictions
    )
