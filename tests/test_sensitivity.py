"""Protects the report on wordings: spread, flips, negations, and draws that all wordings share."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm

from bonelib import cohort, evaluation, zero_shot
from bonelib.evaluation import Method
from bonelib.zero_shot import sensitivity

TUMOR = cohort.task("tumor")


class Variant(NamedTuple):
    kind: str
    name: str
    language: str
    prompts: dict


def variant(kind, name, normal, tumor, language="en"):
    return Variant(kind, name, language, {"normal": normal, "tumor": tumor})


VARIANTS = [
    variant("template", "{}", ["intact"], ["tumour"]),
    variant("template", "x-ray: {}", ["x-ray: intact"], ["x-ray: tumour"]),
    variant("negation", "no sign of {}", ["no tumour"], ["not intact"]),
    variant("template", "{}", ["intakt"], ["tumor"], "de"),
]


class Words:
    """A text tower that hears the nouns of a sentence and overlooks a negation."""

    def __init__(self, *, negates=False):
        self.negates, self.passes = negates, []

    def tokenize(self, sentences):
        self.passes.append(list(sentences))
        heard = ["tumo" in s for s in sentences]
        said_no = [self.negates and s.startswith(("no ", "not ")) for s in sentences]
        rows = [[h != n, "x-ray" in s] for h, n, s in zip(heard, said_no, sentences, strict=True)]
        return torch.tensor(rows, dtype=torch.float32)

    def encode_text(self, tokens):
        tumour, framed = tokens[:, :1], tokens[:, 1:]
        return F.normalize(torch.cat([1 - tumour, tumour, framed], dim=1), dim=-1)


def predicted(scores, labels, *, patients, kind, wording, task=TUMOR, language="en"):
    """The predictions of one wording for images whose score is the logit of the last class."""
    ids = [f"i{n}" for n in range(len(labels))]
    view = pd.DataFrame({"image_id": ids, "patient": patients, "split": "test"})
    view[task.column] = labels
    method = Method("captions", "prompt", "image", detail=f"{language} {kind}", wording=wording)
    made = evaluation.predictions(view, scores, task=task, seed=0, method=method)
    return made.assign(language=language, kind=kind, wording=wording, opposite=0.0)


# ---------------------------------------------------------------------- words
def test_each_distinct_sentence_is_encoded_once_and_classes_are_those_of_class_features():
    model = Words()
    features, ensembles = zero_shot.variant_features(
        model, [*VARIANTS, VARIANTS[0]._replace(name="2")]
    )
    assert len(model.passes) == 1 and len(model.passes[0]) == len(set(model.passes[0])) == 8
    for row, v in zip(features, VARIANTS, strict=False):
        assert np.allclose(row, zero_shot.class_features(Words(), v.prompts), atol=1e-6)
    both = {"normal": ["intact", "x-ray: intact"], "tumor": ["tumour", "x-ray: tumour"]}
    some, of_some = zero_shot.variant_features(Words(), VARIANTS)
    assert np.allclose(of_some["en"], zero_shot.class_features(Words(), both), atol=1e-6)
    assert np.allclose(of_some["de"], some[3]), "the only template there is"
    only = zero_shot.variant_features(Words(), [VARIANTS[2]])[1]["en"]
    assert np.allclose(only, some[2]), "a language without templates has what it has"


@pytest.mark.parametrize("negates, expected", [(False, 1), (True, 0)])
def test_a_negation_that_is_overlooked_lies_beside_the_opposite(negates, expected):
    features, ensembles = zero_shot.variant_features(Words(negates=negates), VARIANTS)
    assert zero_shot.opposite(features[:3], ensembles["en"]).tolist() == [0, 0, expected]


# ---------------------------------------------------------------------- draws for all at once
@pytest.mark.parametrize("name", ["tumor", "malignancy", "kl_grade", "bone_age"])
def test_values_and_intervals_of_many_methods_are_those_of_each_alone(name):
    task, rng = cohort.task(name), np.random.default_rng(0)
    classes = len(task.classes)
    count = 1800  # 200 patients of each class or more: intervals are then percentiles of draws
    truth = rng.integers(0, classes, count) if classes else rng.uniform(20, 200, count)
    labels = [task.classes[i] for i in truth] if classes else truth
    patients = [f"p{n}" for n in rng.integers(0, 1500, count)]
    tables = []
    for n in range(4):
        noise = rng.normal(size=(count, classes or 1)) * (1 if classes else 30)
        scores = np.eye(classes)[truth] + noise if classes else truth + noise[:, 0]
        scores = scores.round(1)  # ties
        named = dict(kind="a", wording=str(n), task=task)
        tables.append(predicted(scores, labels, patients=patients, **named))
    tables = [t.assign(label=t["label"].where(t.index != 3)) for t in tables]  # one is unknown
    drawn = evaluation.drawn(tables, task=task, draws=200, seed=1)
    assert drawn.shape == (4, 201)
    metric = evaluation.primary(task).metric
    for table, own in zip(tables, drawn, strict=True):
        alone = evaluation.metrics(table, task=task, draws=200, seed=1, only=(metric,)).iloc[0]
        assert own[0] == pytest.approx(alone["value"])
        known = table.dropna(subset=["label"])
        few = evaluation.rows.rarest(known["label"].to_numpy(), known["patient"].to_numpy())
        how = dict(scale=alone["interval"], patients=few)
        ends = evaluation.ranking.interval(own[1:], value=own[0], **how)
        assert [ends["low"], ends["high"]] == pytest.approx([alone["low"], alone["high"]])


def test_tables_about_other_images_are_refused():
    table = cohort_of([])
    with pytest.raises(ValueError, match="same images in the same order"):
        evaluation.drawn([table, table[::-1]], task=TUMOR)


# ---------------------------------------------------------------------- the report
def cohort_of(wordings, *, images=120, seed=0, kind="template", own=0.3, language="en"):
    """Predictions whose AUROC over all patients is known: ``wordings`` are their separations."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(images) % 2)
    patients = [f"p{n // 2}" for n in rng.permutation(images)]
    common, scores = rng.normal(size=images), {}
    for n, distance in enumerate(wordings):
        noise = np.sqrt(1 - own) * common + np.sqrt(own) * rng.normal(size=images)
        scores[kind, f"w{n}"] = distance * labels + noise
    scores[sensitivity.ENSEMBLE, ""] = np.mean([*scores.values(), common], axis=0)
    known = {"image_id": [f"i{n}" for n in range(images)], "patient": patients}
    known |= {"label": np.array(TUMOR.classes)[labels], "language": language, "opposite": 0.0}
    tables = []
    for (k, wording), x in scores.items():
        p = {"p_normal": 1 / (1 + np.exp(x)), "p_tumor": 1 / (1 + np.exp(-x))}
        tables.append(pd.DataFrame(known | {"kind": k, "wording": wording} | p))
    return pd.concat(tables)


def test_a_row_holds_what_sklearn_and_evaluation_say_of_its_wordings():
    from sklearn.metrics import roc_auc_score

    table = pd.concat([cohort_of([1, -0.5, 0.2]), cohort_of([0.4, 0.8], language="fr", seed=1)])
    table["opposite"] = np.where(table["wording"] == "w1", 0.5, 0.0)
    rows, values = zero_shot.report(table, task="tumor", draws=200)
    assert rows[["language", "kind"]].to_numpy().tolist() == [
        ["en", "template"],
        ["fr", "template"],
    ]
    english, row = table[table["language"] == "en"], rows.iloc[0]
    truth = {w: part for w, part in english.groupby("wording")}
    areas = {w: roc_auc_score(t["label"] == "tumor", t["p_tumor"]) for w, t in truth.items()}
    single = [areas[f"w{n}"] for n in range(3)]
    assert values.loc[values["language"] == "en", "value"].tolist() == pytest.approx(single)
    assert (row["variants"], row["below_chance"]) == (3, pytest.approx(1 / 3))
    assert [row["lowest"], row["highest"]] == pytest.approx([min(single), max(single)])
    whole = evaluation.metrics(truth[""], task="tumor", draws=200, only=("AUROC",)).iloc[0]
    ends = whole[["value", "low", "high"]].tolist()
    assert row[["ensemble", "low", "high"]].tolist() == pytest.approx(ends)
    called = (truth[""]["p_tumor"] > 0.5).to_numpy()
    flips = [((truth[f"w{n}"]["p_tumor"] > 0.5).to_numpy() != called).mean() for n in range(3)]
    assert row["flips"] == pytest.approx(np.mean(flips))
    assert row["flips_low"] < row["flips"] < row["flips_high"]
    assert row["opposite"] == pytest.approx(0.5 / 3)
    assert (row["n"], row["groups"], row["group_kind"]) == (120, 60, "patient")


def test_the_spread_is_the_basic_bootstrap_of_scipy():
    from scipy.stats import bootstrap

    table = cohort_of([0.2, 0.8, 1.4, 2.0], images=160, own=0.1)
    row = zero_shot.report(table, task="tumor", draws=1500)[0].iloc[0]
    parts = [t for (k, w), t in table.groupby(["kind", "wording"]) if w]
    labels = (parts[0]["label"] == "tumor").to_numpy()
    rows = parts[0].reset_index().groupby("patient").indices
    members = [rows[p] for p in sorted(rows)]

    def square(drawn):
        kept = np.concatenate([members[int(i)] for i in drawn])
        areas = [evaluation.auroc(labels[kept], t["p_tumor"].to_numpy()[kept]) for t in parts]
        return np.var(areas, ddof=1)

    options = dict(vectorized=False, method="basic", n_resamples=1500, rng=3)
    found = bootstrap((np.arange(len(members)),), square, **options)
    expected = np.sqrt(np.maximum(found.confidence_interval, 0))
    assert row[["spread_low", "spread_high"]].tolist() == pytest.approx(list(expected), abs=0.012)
    unbiased = 2 * square(np.arange(len(members))) - found.bootstrap_distribution.mean()
    assert row["spread"] == pytest.approx(np.sqrt(unbiased), abs=0.004)


@pytest.mark.parametrize("distances", [np.full(8, 1.0), np.linspace(0.6, 1.4, 8)])
def test_the_interval_of_the_spread_holds_the_truth_in_most_cohorts(distances):
    """Wordings that differ by luck alone have no spread, though each cohort shows one."""
    truth = norm.cdf(distances / np.sqrt(2)).std(ddof=1)
    held, found = 0, 0
    for seed in range(30):
        table = cohort_of(distances, images=200, seed=seed)
        row = zero_shot.report(table, task="tumor", draws=120)[0].iloc[0]
        held += row["spread_low"] <= truth <= row["spread_high"]
        found += row["spread"]
    assert held >= 25, f"{held} of 30"
    assert abs(found / 30 - truth) < 0.012


def test_one_variant_has_no_spread_and_values_have_no_calls():
    row = zero_shot.report(cohort_of([1.0]), task="tumor", draws=50)[0].iloc[0]
    assert np.isnan(row["spread"]) and np.isnan(row["spread_low"]) and row["flips"] > 0
    task, rng = cohort.task("bone_age"), np.random.default_rng(0)
    truth, patients = rng.uniform(20, 200, 30), [f"p{n}" for n in range(30)]
    named = [("template", "a"), ("template", "b"), (sensitivity.ENSEMBLE, "")]
    told = dict(patients=patients, task=task)
    table = pd.concat(
        predicted(truth + rng.normal(size=30), truth, kind=k, wording=w, **told) for k, w in named
    )
    row = zero_shot.report(table, task=task, draws=50)[0].iloc[0]
    assert row["metric"] == "MAE" and np.isnan(row["flips"]) and np.isnan(row["below_chance"])
    assert row["n"] == 30
