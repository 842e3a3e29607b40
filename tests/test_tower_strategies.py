"""Protects the strategies that train the tower: what moves, what is minimised, what is kept."""

import copy
import dataclasses
import functools
import itertools
import math
import os
import socket
import types

import numpy as np
import pandas as pd
import processes
import pytest
import torch
import torch.nn.functional as F

from bonelib import (
    adaptation,
    cohort,
    encoders,
    evaluation,
    losses,
    models,
    reporting,
    runs,
    training,
)
from bonelib.adaptation import class_texts, from_probe, strategies, towers
from bonelib.experiments import captioning, finetuning, pretraining, settings
from bonelib.experiments.context import leave_plan

LABELS = {
    "binary": np.array([0, 1, 1, 0, 1, 0, 0, 0]),
    "multiclass": np.array([0, 1, 2, 0, 1, 0, 0, 0]),
    "ordinal": np.array([0, 1, 2, 3, 1, 0, 3, 0]),
    "regression": np.array([12, 150, 60, 90, 30, 200, 110, 45], dtype=np.float32),
}
OUTPUTS = {"binary": 1, "multiclass": 3, "ordinal": 4, "regression": 1}
STRATEGIES = evaluation.methods.TOWERS
TEXTUAL = adaptation.WITH_TEXTS


class Batches:
    """Two batches of four images with labels, every other one with an outline."""

    def __init__(self, labels):
        self.label = torch.tensor(labels)
        self.mask = torch.zeros(8, 32, 32, dtype=torch.bool)
        self.mask[::2, 8:12, 20:26] = True
        generator = torch.Generator().manual_seed(0)
        self.image = torch.randn(len(labels), 3, 32, 32, generator=generator)

    def __len__(self):
        return 2

    def __iter__(self):
        for rows in torch.arange(8).chunk(2):
            parts = {"label": self.label[rows], "mask": self.mask[rows]}
            yield {"image": self.image[rows], **parts}


@functools.cache
def built():
    image = encoders.image("timm:test_resnet", weights="random", size=32, seed=1)
    return models.DualEncoder(image, encoders.text("random"), dim=16).eval()


def tuning(kind="multiclass", *, own=True, **given):
    """Eight images of a task and the tower of a dual encoder; with ``own`` they share a space."""
    dual, labels, outputs = copy.deepcopy(built()), LABELS[kind], OUTPUTS[kind]
    tower = dual.image if own else copy.deepcopy(dual.image)
    classes = 0 if kind == "regression" else max(2, outputs)
    with torch.no_grad():
        features = tower(Batches(labels).image).numpy()
    probe = adaptation.probe(features, labels, np.arange(8), classes=classes, strengths=(0.1,))
    prompts = {f"class {c}": [f"grade {c}", f"a film of grade {c}"] for c in range(classes)}
    options = training.Options(epochs=1, lr=1e-2, backbone_lr=1e-3, layer_decay=1.0)
    found = adaptation.Tuning(
        models.Classifier(tower, outputs=outputs),
        labels,
        options,
        steps=2,
        ordinal=kind == "ordinal",
        probe=probe,
        dual=dual,
        prompts=prompts,
        judge=lambda model: 0.0,
    )
    return dataclasses.replace(found, **given)


def train(strategy, given, *, epochs=1, seed=0):
    """Carry a strategy out; return what it trained and the rows of the epochs."""
    given = dataclasses.replace(given, options=dataclasses.replace(given.options, epochs=epochs))
    torch.manual_seed(seed)
    with adaptation.strategy(strategy)(given) as trained:
        arguments = trained.model, trained.objective, Batches(given.labels), trained.options
        rows = list(training.fit(*arguments, accelerator="cpu"))
    return trained, rows


def kept(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def distance(one, other):
    return math.sqrt(sum(float((one[k].float() - other[k]).square().sum()) for k in other))


# ---------------------------------------------------------------------- every strategy
@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_trains_and_its_bundle_gives_the_same_logits(strategy, kind, tmp_path):
    given = tuning(kind)
    if kind == "regression" and strategy in (*TEXTUAL, "outlined"):
        with pytest.raises(ValueError, match="a regression has none. Choose another strategy"):
            train(strategy, given)
        return
    before = kept(given.model.image)
    trained, rows = train(strategy, given)
    model = trained.classifier()
    assert len(rows) == 1 and math.isfinite(rows[0]["loss"]) and not models.has_lora(model)
    after = kept(model.image)
    assert after.keys() == before.keys(), "a plain tower again"
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    # two steps of head_then_all move the head alone
    assert moved or strategy in ("head_then_all", "dense_head")
    images = Batches(given.labels).image
    with torch.no_grad():
        expected = model(images)
        again = models.load_bundle(models.save_bundle(tmp_path / "b", model))
        assert isinstance(again, models.Classifier) and expected.shape == (8, OUTPUTS[kind])
        assert torch.equal(again(images), expected)
    assert float(expected.std()) > 0


@pytest.mark.parametrize("strategy", ["class_text_ft", "class_text_random"])
def test_a_tower_without_a_text_tower_of_its_own_learns_class_texts_too(strategy, tmp_path):
    trained, _ = train(strategy, tuning(own=False))
    model = trained.classifier()
    assert model.head.dim == built().text.width != built().dim
    images = Batches(LABELS["multiclass"]).image
    with torch.no_grad():
        again = models.load_bundle(models.save_bundle(tmp_path / "b", model))
        assert torch.equal(again(images), model(images))


def test_names_are_those_of_the_predictions_and_of_the_table():
    table = strategies.table()
    assert set(STRATEGIES) == set(table.index) - set(evaluation.methods.HEADS)
    assert TEXTUAL == ("flyp", "class_text_ft", "class_text_random")
    for name in STRATEGIES:
        assert adaptation.strategy(name).__name__ == name
        of_classes = name in (*TEXTUAL, *adaptation.WITH_OUTLINES)
        assert ("regression" in table.loc[name, "kinds"].split()) is not of_classes


def test_what_can_not_be_is_refused_with_its_cure():
    with pytest.raises(ValueError, match="called 'wise'. Did you mean wise_ft"):
        adaptation.strategy("wise")
    with pytest.raises(ValueError, match="none is given. Pass probe="):
        train("lp_ft", tuning(probe=None))
    with pytest.raises(ValueError, match="pass judge"):
        train("wise_ft", tuning(judge=None))
    with pytest.raises(ValueError, match="no class texts to train towards. Pass the dual encoder"):
        train("class_text_ft", tuning(dual=None))
    with pytest.raises(ValueError, match="2 classes have texts, the task has 3"):
        train("flyp", tuning(prompts={"a": ["a"], "b": ["b"]}))
    with pytest.raises(ValueError, match="the tower must be its own. Start from captions"):
        train("flyp", tuning(own=False))
    with pytest.raises(ValueError, match="Unknown imbalance 'weight'. Choose one of weights"):
        train("full", tuning(imbalance="weight"))
    with pytest.raises(ValueError, match="by class: "):
        train("class_text_ft", tuning(labels=np.zeros(8, dtype=int)))


# ---------------------------------------------------------------------- which weights move
def test_the_last_block_moves_and_all_others_stay_to_the_bit():
    given = tuning()
    before, moving = kept(given.model.image.trunk), models.last_block(given.model.image.trunk)
    train("last_block", given, epochs=2)
    trunk = given.model.image.trunk
    after = kept(trunk)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == moving and 0 < len(moved) < len(before) / 2
    assert all(p.requires_grad for p in trunk.parameters()), "as it came"


@pytest.mark.parametrize(
    ("name", "within"),
    [
        ("timm:convnext_atto", ("stages.3.blocks.1.", "head.norm")),  # a norm of its own above it
        ("timm:test_vit", ("blocks.5.", "norm.", "fc_norm")),
        ("packaged:efficientnet_lite0", ("blocks.6.0.", "conv_head", "bn2")),
    ],
)
def test_the_last_block_is_timms_with_the_norm_above_it(name, within):
    trunk = encoders.image(name, weights="random", size=32).trunk
    found = models.last_block(trunk)
    assert all(name.startswith(within) for name in found)
    shapes = dict(trunk.named_parameters())
    assert any(name.startswith(within[0]) and shapes[name].ndim > 1 for name in found)
    with pytest.raises(ValueError, match="single layer, so its last block is all of it"):
        models.last_block(torch.nn.Linear(2, 2))


def test_layer_rates_rise_from_the_stem_to_the_last_block_and_the_head_is_above():
    given = tuning()
    with adaptation.strategy("layer_rates")(given) as trained:
        groups = training.parameter_groups(trained.model, trained.options)
    rates = [group["lr"] for group in groups if group["trunk"]]
    assert rates == sorted(rates) and len(set(rates)) > 3
    assert rates[-1] == given.options.backbone_lr
    steps = np.diff(np.log(sorted(set(rates))))
    np.testing.assert_allclose(steps, -np.log(towers.LAYER_DECAY))
    assert {group["lr"] for group in groups if not group["trunk"]} == {given.options.lr}


@pytest.mark.parametrize(("steps", "share"), [(1000, 0.2), (10, 0.25)])
def test_the_head_trains_alone_for_200_steps_at_most_a_quarter_then_everything(steps, share):
    given = tuning(steps=steps)
    with adaptation.strategy("head_then_all")(given) as trained:
        assert trained.options.locked == share
        assert trained.options.backbone_lr == pytest.approx(0.1 * given.options.backbone_lr)
    start = kept(given.model.image)
    still = []
    given = dataclasses.replace(given, options=dataclasses.replace(given.options, epochs=4))
    with adaptation.strategy("head_then_all")(given) as trained:
        arguments = trained.model, trained.objective, Batches(given.labels), trained.options
        for _ in training.fit(*arguments, accelerator="cpu"):
            still.append(distance(kept(given.model.image), start) == 0)
    assert still == [True, False, False, False]  # 8 steps, 2 of them locked (of a quarter)


def test_l2_sp_pulls_towards_the_start():
    ends = {}
    for name in ("full", "l2_sp"):
        given = tuning()
        start = kept(given.model.image)
        train(name, given, epochs=8)
        ends[name] = distance(kept(given.model.image), start)
    assert 0 < ends["l2_sp"] < 0.97 * ends["full"]


def test_low_rank_changes_are_merged_and_nothing_else_of_the_tower_moves():
    given = tuning()
    before = kept(given.model.image)
    train("lora", given, epochs=2)
    after = kept(given.model.image)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    changed = {f"trunk.{name}.weight" for name in models.lora_targets(built().image.trunk)}
    assert moved and moved <= changed


# ---------------------------------------------------------------------- from a probe
@pytest.mark.parametrize("kind", LABELS)
def test_a_dense_head_learns_above_a_tower_that_stays_to_the_bit(kind):
    given = tuning(kind, options=training.Options(epochs=1, lr=1e-2, frozen_norm=False))
    tower = given.model.image
    before, shown = kept(tower), Batches(given.labels)
    grey = (given.labels - given.labels.mean()) / given.labels.std()
    shown.image += torch.tensor(2 * grey, dtype=torch.float32)[:, None, None, None]
    images = shown.image
    given = dataclasses.replace(given, options=dataclasses.replace(given.options, epochs=30))
    torch.manual_seed(0)
    with adaptation.strategy("dense_head")(given) as trained:
        arguments = trained.model, trained.objective, shown, trained.options
        rows = list(training.fit(*arguments, accelerator="cpu"))
    model, head = trained.classifier(), given.model.head
    after = kept(tower)
    assert all(torch.equal(before[name], after[name]) for name in before), "batch norms as well"
    assert all(p.requires_grad for p in tower.trunk.parameters()), "as it came"
    assert trained.options.weight_decay == 0 and rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert head.hidden.weight.shape == (256, tower.width) and head.dropout.p == 0.5
    with torch.no_grad():
        z = (tower(images) @ head.hidden.weight.T + head.hidden.bias).clamp(min=0)
        expected = z @ head.weight.T + head.bias
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
        head.train()
        assert not torch.equal(model(images), model(images)), "units are dropped"


def test_a_dense_head_is_that_of_its_seed_and_its_tower_drops_nothing():
    ends = []
    for seed in (1, 1, 2):
        given = tuning(seed=seed)
        before = torch.random.get_rng_state()
        with adaptation.strategy("dense_head")(given) as trained:
            assert torch.equal(torch.random.get_rng_state(), before)
            trained.model.train()
            trained.model(Batches(given.labels).image)
            assert trained.model.head.training and not trained.model.image.training
        trained.model.train()
        trained.model(Batches(given.labels).image)
        assert trained.model.image.training, "as it came"
        ends.append(given.model.head.hidden.weight)
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("kind", LABELS)
def test_lp_ft_starts_with_what_the_probe_says(kind):
    given = tuning(kind)
    images = Batches(given.labels).image
    with torch.no_grad(), adaptation.strategy("lp_ft")(given) as trained:
        found = trained.model(images).numpy()
        features = trained.model.image(images).numpy()
    expected = given.probe.logits(features).reshape(found.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_class_that_no_training_image_has_keeps_its_column(strategy):
    labels = np.where(LABELS["multiclass"] == 2, 1, LABELS["multiclass"])
    given = tuning(labels=labels)
    features = torch.no_grad()(given.model.image)(Batches(labels).image).numpy()
    probe = adaptation.probe(features, labels, np.arange(8), classes=3, strengths=(0.1,))
    for imbalance in ("weights", "logit_adjustment"):
        given = tuning(labels=labels, probe=probe, imbalance=imbalance)
        trained, rows = train(strategy, given)
        assert math.isfinite(rows[0]["loss"])
        with torch.no_grad():
            logits = trained.classifier()(Batches(labels).image)
        assert logits.shape == (8, 3) and torch.isfinite(logits).all()
        if strategy in adaptation.WITH_PROBE:
            assert set(logits.argmax(dim=1).tolist()) <= {0, 1}


def test_wise_ft_is_the_start_at_0_and_the_fine_tuned_model_at_1():
    for kind in ("multiclass", "regression"):
        tuned = tuning(kind)
        train("lp_ft", tuned)
        ends = {1.0: kept(tuned.model)}
        start = tuning(kind)
        with adaptation.strategy("lp_ft")(start):
            pass
        ends[0.0] = kept(start.model)
        for alpha, end in ends.items():
            given = tuning(kind)
            seen = []

            def judge(model, seen=seen, alpha=alpha):
                seen.append(kept(model))
                return float(from_probe.ALPHAS[len(seen) - 1] == alpha)

            trained, _ = train("wise_ft", dataclasses.replace(given, judge=judge))
            assert trained.chosen == {"alpha": alpha} and len(seen) == 11
            found = kept(trained.classifier())
            assert all(torch.equal(found[name], end[name]) for name in end), (kind, alpha)


def test_wise_ft_lies_on_the_line_where_validation_is_best():
    given = tuning()
    with adaptation.strategy("lp_ft")(given):
        first = kept(given.model)
    train("lp_ft", given)
    last = kept(given.model)
    scores = iter([0.1, 0.2, 0.3, 0.9, *[0.0] * 7])
    trained, _ = train("wise_ft", tuning(judge=lambda model: next(scores)))
    assert trained.chosen["alpha"] == 0.7
    for name, value in kept(trained.classifier()).items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.3 * first[name] + 0.7 * last[name])
    ties, _ = train("wise_ft", tuning())
    assert ties.chosen["alpha"] == 1.0, "where nothing is better, the fine-tuned weights stay"


# ---------------------------------------------------------------------- towards texts
def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_flyps_loss_is_the_mean_over_all_captions_of_the_same_class():
    given = tuning(prompts={f"c{c}": [f"the only caption of class {c}"] for c in range(3)})
    label = torch.tensor([0, 2, 1, 0, 0, -1, 2, 1])
    batch = {"image": Batches(given.labels).image, "label": label}
    with torch.no_grad(), adaptation.strategy("flyp")(given) as trained:
        found = trained.objective(trained.model, batch)
        dual = given.dual
        own = label >= 0
        v = dual.encode_image(batch["image"])[own].double().numpy()
        said = [f"the only caption of class {c}" for c in label[own].tolist()]
        t = dual.encode_text(dual.tokenize(said)).double().numpy()
        scale = float(dual.logit_scale.exp())
    y, total = label[own].numpy(), 0.0
    for logits in (scale * v @ t.T, scale * t @ v.T):
        for i in range(len(y)):
            same = np.flatnonzero(y == y[i])
            total -= np.log(softmax(logits[i])[same]).mean() / (2 * len(y))
    assert float(found) == pytest.approx(total, abs=1e-5)


def test_flyp_draws_a_sentence_of_the_right_class_and_draws_all_of_them():
    given, seen = tuning(), set()
    tokens = {
        sentence: tuple(given.dual.tokenize([sentence])[0].tolist())
        for sentences in given.prompts.values()
        for sentence in sentences
    }

    class Spy(torch.nn.Module):
        def forward(self, image, drawn):
            for label, row in zip(given.labels, drawn.tolist(), strict=True):
                options = given.prompts[f"class {label}"]
                assert tuple(row) in [tokens[s] for s in options]
                seen.add(tuple(row))
            return {}

    batch = {"image": torch.zeros(8, 3, 32, 32), "label": torch.tensor(given.labels)}
    with adaptation.strategy("flyp")(given) as trained:
        for _ in range(30):
            trained.objective.forward(Spy(), batch)
    assert seen == set(tokens.values())


def test_flyps_classifier_is_made_of_the_texts_as_they_are_now():
    given = tuning("binary")
    trained, _ = train("flyp", given)
    dual, images = given.dual.eval(), Batches(given.labels).image
    with torch.no_grad():
        rows = [dual.encode_text(dual.tokenize(s)).mean(dim=0) for s in given.prompts.values()]
        texts = torch.stack([row / row.norm() for row in rows])
        cosines = dual.logit_scale.exp() * dual.encode_image(images) @ texts.T
        expected = cosines[:, 1] - cosines[:, 0]
        torch.testing.assert_close(trained.classifier()(images)[:, 0], expected)
    assert distance(kept(dual.text_projection), kept(built().text_projection)) > 0


def test_flyp_goes_on_with_the_sigmoid_loss_of_a_pretraining_that_had_it():
    image, text = copy.deepcopy(built().image), encoders.text("random")
    dual = models.DualEncoder(image, text, dim=16, bias=True, projector=8, heads=(2,))
    model = models.Classifier(image, outputs=3)
    trained, rows = train("flyp", tuning(dual=dual, model=model))
    assert math.isfinite(rows[0]["loss"]) and dual.logit_bias != -10
    assert not any(
        p.requires_grad for p in (*dual.projector.parameters(), *dual.heads.parameters())
    )


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_class_texts_are_cosines_to_fixed_vectors(kind):
    given = tuning(kind)
    images = Batches(given.labels).image
    with torch.no_grad(), adaptation.strategy("class_text_ft")(given) as trained:
        start, head = trained.model(images), trained.model.head
        texts = class_texts.class_vectors(given, given.dual.encode_text)
        cosines = given.dual.encode_image(images) @ texts.T / 0.07
    cosines = cosines[:, 1:] - cosines[:, :1] if kind == "binary" else cosines
    torch.testing.assert_close(start, cosines, atol=1e-4, rtol=1e-4)
    before = head.classes.clone()
    trained, _ = train("class_text_ft", tuning(kind))
    assert torch.equal(trained.classifier().head.classes, before)
    assert trained.classifier().head.logit_scale != math.log(1 / 0.07), "the temperature is learnt"
    control, _ = train("class_text_random", tuning(kind))
    drawn = control.classifier().head.classes
    torch.testing.assert_close(drawn.norm(dim=1), before.norm(dim=1))
    assert drawn.shape == before.shape and not torch.allclose(drawn, before, atol=0.1)


# ---------------------------------------------------------------------- classes of unequal size
@pytest.mark.parametrize("kind", ["binary", "multiclass", "ordinal"])
def test_logit_adjustment_is_its_formula(kind):
    given = tuning(kind, imbalance="logit_adjustment")
    z = torch.randn(8, OUTPUTS[kind], generator=torch.Generator().manual_seed(1))
    with adaptation.strategy("full")(given) as trained:
        found = trained.objective.loss({"logits": z}, {"label": torch.tensor(given.labels)})
    y, share = given.labels, np.bincount(given.labels) / 8
    wide = z.double().numpy()
    wide = np.hstack([np.zeros((8, 1)), wide]) if kind == "binary" else wide
    p = softmax(wide + np.log(share))
    expected = -np.log(p[np.arange(8), y]).mean()
    if kind == "ordinal":
        above = 1 - p.cumsum(axis=1)[:, :-1]  # P(y > k)
        truth = y[:, None] > np.arange(3)
        expected = -np.log(np.where(truth, above, 1 - above)).mean()
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_without_weights_every_row_counts_the_same_and_balanced_sampling_adds_none():
    z, y = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)), LABELS["multiclass"]
    batch = {"label": torch.tensor(y)}
    found = {}
    for imbalance in adaptation.IMBALANCE:
        with adaptation.strategy("full")(tuning(imbalance=imbalance)) as trained:
            found[imbalance] = float(trained.objective.loss({"logits": z}, batch))
    each = F.cross_entropy(z, batch["label"], reduction="none").numpy()
    assert found["none"] == found["balanced"] == pytest.approx(each.mean(), abs=1e-6)
    by_class = np.mean([each[y == c].mean() for c in range(3)])
    assert found["weights"] == pytest.approx(by_class, abs=1e-6)
    with adaptation.objective(tuning().model, y) as usual:
        assert float(usual.loss({"logits": z}, batch)) == found["weights"], "what it was"


def test_a_class_without_training_rows_is_all_but_ruled_out():
    labels = np.array([0, 1, 0, 0, -1])
    plain = losses.classification_objective()
    found = adaptation.objectives.adjusted(plain, labels, 3)
    loss = found.loss({"logits": torch.zeros(5, 3)}, {"label": torch.tensor(labels)})
    assert float(loss) == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25), abs=1e-5)


# ---------------------------------------------------------------------- the plan
def planned(**changes):
    recipe = settings.recipe("ours")
    own = dict(images=8, captions="table", caption_fields=("view",), epochs=1)
    small = dataclasses.replace(recipe, size=32, batch_size=8, epochs=1.0)
    return settings.finetuning("tiny", settings.pretraining("tiny", small, **own), **changes)


def test_a_plan_trains_every_start_by_every_strategy_that_it_can_have():
    plan = planned(strategies=["full", "flyp"])
    assert plan.trainings == [
        *(("scratch", "full"), ("imagenet", "full")),
        *(("captions", "full"), ("captions", "flyp")),
    ]
    usual = planned()
    assert usual.strategies == ("full",) and usual.imbalance == "weights"
    assert (
        settings.Finetuning.from_dict(
            {k: v for k, v in usual.as_dict().items() if k not in ("strategies", "imbalance")}
        )
        == usual
    ), "a record from before there were any"


def test_full_fine_tuning_is_always_trained_and_must_not_be_taken_out():
    assert planned(strategies=("lora",)).strategies == ("full", "lora")
    assert planned(strategies=("",)).strategies == ("full",)
    for names, told in ((("lora",), "lacks full"), ((), "at least 1")):
        with pytest.raises(ValueError, match=told):
            dataclasses.replace(planned(), strategies=names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(strategies=("full", "wise")), "'wise' is none. Did you mean wise_ft"),
        (dict(strategies=("full", "probe")), "'probe' is none"),
        (dict(strategies=("full", "lora", "lora")), "strategies names lora more than once"),
        (dict(imbalance="weight"), "imbalance='weight'. Choose weights, balanced"),
        (
            dict(strategies=("full", "flyp"), imbalance="logit_adjustment"),
            "flyp has a contrastive loss.*imbalance='balanced'",
        ),
    ],
)
def test_a_plan_that_can_not_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        planned(**changes)


def test_flyp_without_a_start_from_captions_is_refused():
    with pytest.raises(ValueError, match="(?s)flyp goes on.*has none. Add captions to the starts"):
        dataclasses.replace(planned(), starts=("imagenet",), strategies=("full", "flyp"))


# ---------------------------------------------------------------------- its way through notebook 05
@pytest.fixture(scope="module")
def pretrained(sealed):
    """A context with 48 synthetic radiographs and a pretraining."""
    context = sealed()
    recipe = dataclasses.replace(settings.recipe("ours"), size=32, batch_size=8, epochs=1.0)
    words = dict(source="table", fields="view,site,sex,signs", language="en")
    pairs = captioning.caption(context, recipe, **words)
    named = dict(images=8, captions="table", caption_fields=pairs.fields, epochs=1)
    plan = settings.pretraining("tiny", recipe, **named)
    run = context.start("pretraining", settings=plan.as_dict(), inputs=pairs.inputs)
    list(pretraining.train(run, pretraining.prepare(context, pairs.table, plan), accelerator="cpu"))
    return context, run.finish()


def begun(pretrained, variant, starts=("captions",), **changes):
    """A fine-tuning with a plan, ready to be trained."""
    context, before = pretrained
    context = dataclasses.replace(context, variant=variant, inputs="default")
    plan = settings.Pretraining.from_dict(before.settings)
    plan = settings.finetuning("tiny", plan, epochs=1, **changes)
    plan = dataclasses.replace(plan, starts=starts)
    inputs = [context.cohort_run, before]
    run = context.start("finetuning", settings=plan.as_dict(), inputs=inputs)
    return context, run, finetuning.prepare(context, before, plan)


def weights(run, setup):
    folders = [finetuning.bundle_of(run, evaluation.Method(*one)) for one in setup.plan.trainings]
    return {path.name: (path / "weights.safetensors").read_bytes() for path in folders}


SOME = ("full", "lora", "flyp", "outlined", "wise_ft")


def test_a_killed_comparison_goes_on_at_the_start_and_strategy_under_way(pretrained):
    bits = {}
    for variant in ("whole", "killed"):
        _, run, setup = begun(pretrained, variant, strategies=SOME)
        if variant == "killed":
            with pytest.raises(runs.Planned, match="torchrun"):
                leave_plan(run, setup)
            run = runs.reopen(run.path)
            setup = finetuning.reopen(run)
            process = finetuning.train(run, setup, accelerator="cpu")
            assert setup.outlines.any(), "they lie in the plan"
            assert [next(process)["strategy"] for _ in range(3)] == ["full", "lora", "flyp"]
            process.close()  # as a kill would: the third is not saved
            assert (run.bundle / "captions-lora").exists()
            assert not (run.bundle / "captions-flyp").exists()
        rows = list(finetuning.train(run, setup, accelerator="cpu"))
        assert [row["strategy"] for row in rows] == list(SOME[2 * (variant == "killed") :])
        history = run.table("history")
        assert list(history["strategy"]) == list(SOME) and (history["start"] == "captions").all()
        bits[variant] = weights(run, setup)
        assert list(finetuning.train(run, setup)) == [], "it is there already"
    assert bits["whole"] == bits["killed"]


def test_predictions_name_the_strategy_and_the_full_one_lies_where_it_lay(pretrained):
    context, run, setup = begun(pretrained, "whole", strategies=SOME)
    predictions = finetuning.predict(context, run, setup)
    found = {(m.start, m.strategy) for m in evaluation.by_method(predictions)}
    assert {("captions", name) for name in (*SOME, "probe")} <= found
    assert (run.bundle / "captions" / "bundle.json").exists()
    chosen = (run.bundle / "captions-wise_ft" / "bundle.json").read_text()
    assert '"alpha":' in chosen
    history = run.table("history")
    assert finetuning.draw(context, history, predictions) is not None
    assert "wise_ft" in finetuning.progress(history.iloc[-1].to_dict(), setup)


APART = ("full", "last_block", "lora", "flyp", "class_text_ft")  # each trains other parameters


def test_two_processes_train_whatever_moves(pretrained):
    _, run, setup = begun(pretrained, "two", strategies=APART)
    with pytest.raises(runs.Planned):
        leave_plan(run, setup)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    both = [processes.started(as_process, str(run.path), rank, port) for rank in range(2)]
    for process in both:
        process.join(timeout=240)
    assert [process.exitcode for process in both] == [0, 0]
    assert list(run.table("history")["strategy"]) == list(APART)
    for start, strategy in setup.plan.trainings:
        model = models.load_bundle(run.bundle / f"{start}-{strategy}".removesuffix("-full"))
        assert all(torch.isfinite(p).all() for p in model.parameters()), strategy


def as_process(folder, rank, port):
    """Carry a planned training out as one of two processes that torchrun would start."""
    from pathlib import Path

    from bonelib.commands import notebooks

    torch.set_num_threads(1)
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
    os.environ |= {name: str(value) for name, value in own.items()}
    assert notebooks.train(Path(folder), "cpu") == 0


def test_only_images_with_a_label_enter_a_batch(pretrained):
    context, run, setup = begun(pretrained, "labelled")
    table = setup.table.copy()
    train = np.flatnonzero(setup.part("train"))
    lost = train[: len(train) // 2]
    table.loc[table.index[lost], setup.task.column] = pd.NA
    cache = setup.loader.cache
    fewer = finetuning.setup._assemble(
        setup.task, table, cache, setup.plan, {}, {}, dual=None, seed=0
    )
    assert len(fewer.loader.image_ids) == len(train) - len(lost)
    labels = torch.cat([batch["label"] for batch in fewer.loader.arrays(epoch=0)])
    assert (labels >= 0).all() and len(labels) == len(train) - len(lost)
    given = fewer.tuning("scratch", "full")
    assert (given.labels == fewer.loader.extras["label"].numpy()).all()


WITHOUT_SCRATCH = (*adaptation.WITH_TEXTS, *adaptation.WITH_PROBE)  # need more than these runs have


def test_a_tower_of_random_weights_is_not_held_back_as_one_that_has_something_to_lose(pretrained):
    _, _, setup = begun(pretrained, "drawn", starts=("scratch", "imagenet"))
    usual = training.Options(**setup.plan.fit)
    given = {start: setup.tuning(start, "full").options for start in ("scratch", "imagenet")}
    assert given["imagenet"] == usual and usual.frozen_norm and usual.backbone_lr < usual.lr
    assert given["scratch"] == usual.of_random_weights() and not given["scratch"].frozen_norm
    for strategy in set(evaluation.methods.TOWERS) - {*adaptation.ALL_ALIKE, *WITHOUT_SCRATCH}:
        assert setup.tuning("scratch", strategy).options == usual, "it protects, or leaves alone"
    # One rate for the whole tower, which is that of the head.
    groups = training.parameter_groups(setup.tuning("scratch", "full").model, given["scratch"])
    assert {group["lr"] for group in groups} == {usual.lr}


def test_balanced_sampling_draws_classes_equally_often(pretrained):
    _, run, setup = begun(pretrained, "even", imbalance="balanced")
    table = setup.table.copy()
    train = np.flatnonzero(setup.part("train"))
    normal, rare = setup.task.classes
    table.loc[table.index[train], setup.task.column] = normal
    table.loc[table.index[train[:4]], setup.task.column] = rare
    cache = setup.loader.cache
    loader = finetuning.setup._assemble(
        setup.task, table, cache, setup.plan, {}, {}, dual=None, seed=0
    ).loader
    drawn = [batch["label"] for epoch in range(40) for batch in loader.arrays(epoch=epoch)]
    drawn = torch.cat(drawn).double()
    assert len(drawn) == 40 * len(train)
    margin = 4 * 0.5 / math.sqrt(len(drawn))  # four standard errors of a fair coin
    assert float(drawn.mean()) == pytest.approx(0.5, abs=margin)


def test_a_task_or_a_pretraining_that_does_not_fit_is_refused_before_anything_trains(
    pretrained, monkeypatch
):
    context, before = pretrained
    plan = settings.finetuning(
        "tiny",
        settings.Pretraining.from_dict(before.settings),
        strategies=("full", "class_text_ft", "flyp"),
        imbalance="balanced",
    )
    months = dataclasses.replace(context, task="bone_age")
    wrong = "(?s)can't be trained like this.*class_text_ft, flyp: compares.*imbalance='balanced'"
    with pytest.raises(ValueError, match=wrong):
        finetuning.prepare(months, before, plan)
    head = models.MultiHead(copy.deepcopy(built().image), classes=[2])
    monkeypatch.setattr(finetuning.setup.models, "load_bundle", lambda folder: head)
    with pytest.raises(
        ValueError, match="the pretraining no text tower. Leave it out, or pretrain"
    ):
        finetuning.prepare(context, before, plan)


def test_every_task_with_classes_has_class_texts_in_class_order(pretrained):
    from bonelib import captions

    for task in cohort.TASKS.values():
        if task.kind == "regression":
            continue
        for language in ("en", "fr"):
            prompts = captions.prompts(task, style="label", language=language)
            assert list(prompts) == list(task.classes)


# ------------------------------------------------------------ heads, few labels, protocols
def trained(pretrained, variant, **changes):
    """A fine-tuning of the captions' start that was trained and predicted."""
    context, run, setup = begun(pretrained, variant, **changes)
    rows = list(finetuning.train(run, setup, accelerator="cpu"))
    return context, run, setup, rows, finetuning.predict(context, run, setup)


def test_heads_stand_beside_the_probe_with_all_labels_and_with_few(pretrained):
    heads = ("class_mean", "tip_adapter", "clip_it", "hierarchy", "late_fusion")
    starts = ("imagenet", "captions")
    context, run, setup, _, predictions = trained(pretrained, "heads", starts=starts, heads=heads)
    methods = set(evaluation.by_method(predictions))
    for start, head, sees in (
        ("captions", "tip_adapter", "image"),
        ("captions", "clip_it", "image"),
        ("imagenet", "hierarchy", "image"),
        ("imagenet", "late_fusion", "image+metadata"),
        ("imagenet", "probe", "image"),
    ):
        assert evaluation.Method(start=start, strategy=head, sees=sees) in methods
    assert evaluation.Method(start="imagenet", strategy="tip_adapter") not in methods
    lacking = finetuning.left_out(run)
    assert "imagenet, tip_adapter" in " ".join(lacking["method"])
    assert lacking["reason"].str.contains("texts of the classes").any()
    test = setup.table.loc[setup.part("test"), "image_id"]
    few = run.table("few")
    assert set(few["image_id"]) == set(test) and few["label"].notna().all()
    assert set(few["strategy"]) == {"probe", *heads} - {"late_fusion"}
    assert set(zip(few["shots"], few["share"], strict=True)) == {(1, 0.0), (0, 0.5), (0, 1.0)}
    curve = finetuning.efficiency(context, run)
    ends = curve[curve["share"].eq(1)]  # all labels: the predictions of this notebook themselves
    assert set(ends["images"]) == {int(setup.labelled("train").sum())}
    at = evaluation.by_method(predictions)
    for row in ends.to_dict("records"):
        whole = at[evaluation.Method(**{name: row[name] for name in evaluation.METHOD})]
        assert row["value"] == pytest.approx(evaluation.score(whole, context.asked))
    assert curve["value"].between(curve["low"] - 1e-9, curve["high"] + 1e-9).mean() > 0.9
    assert finetuning.draw_efficiency(context, curve) is not None
    assert "Reading" in finetuning.read_efficiency(context, curve)
    beside = finetuning.strategies(context, run, predictions)
    assert not set(beside["strategy"]) & {"probe"} and (beside["p_holm"] >= beside["p"]).all()
    one = beside[beside["strategy"].eq("tip_adapter")].iloc[0]
    found = evaluation.compare(
        predictions[predictions["strategy"].eq("tip_adapter")],
        predictions[predictions["strategy"].eq("probe") & predictions["start"].eq("captions")],
        task=context.asked,
    )
    assert one["value"] == pytest.approx(found["value"])


def test_few_labels_never_see_more_than_they_may(pretrained, monkeypatch):
    context, run, setup = begun(pretrained, "few")
    view, seen = context.view(), []
    original = finetuning.heads.adaptation.fit

    def spy(strategy, support, points):
        seen.append(len(support.labels))
        return original(strategy, support, points)

    monkeypatch.setattr(finetuning.heads.adaptation, "fit", spy)
    start = finetuning.heads.frozen(context, setup, view, "captions")
    frames = list(finetuning.few(setup, view, {"captions": start}))
    assert [frame["images"].iloc[0] for frame in frames] == seen
    train = setup.labelled("train").sum()
    assert max(seen) <= train and min(seen) < train / 2
    assert all(frame["label"].isna().all() for frame in frames), "the door is closed"


PROTOCOL = {
    "paper": "key",
    "why": "A reason.",
    "departs": ["It is small."],
    "rows": [
        {"tower": "captions"},
        {"tower": "captions", "strategy": "taskres"},
        {"tower": "timm:resnet18.a1_in1k", "weights": "random", "strategy": "full", "size": 512},
        {"tower": "timm:resnet18.a1_in1k", "strategy": "full"},
        {"tower": "timm:resnet18.a1_in1k", "weights": "random", "strategy": "knn", "size": 512},
        {
            "tower": "timm:resnet18.a1_in1k",
            "weights": "random",
            "strategy": "dense_head",
            "size": 512,
        },
        {"sees": "metadata"},
        {"tower": "captions", "strategy": "late_fusion", "sees": "image+text"},
        {"tower": "captions", "strategy": "sentence_fusion", "sees": "image+text"},
    ],
}


def test_a_protocol_brings_its_own_rows_and_names_those_without_weights(pretrained):
    protocol = settings.protocol("mine", sections={"mine": PROTOCOL})
    context, run, setup, rows, predictions = trained(
        pretrained, "mine", protocol=dataclasses.replace(protocol, name="")
    )
    found = {(m.start, m.strategy, m.sees, m.detail) for m in evaluation.by_method(predictions)}
    assert {(start, how, sees) for start, how, sees, _ in found} == {
        ("none", "probe", "metadata"),
        ("captions", "probe", "image"),
        ("captions", "taskres", "image"),
        ("captions", "late_fusion", "image+text"),
        ("captions", "sentence_fusion", "image+text"),
        ("scratch", "knn", "image"),
        ("scratch", "dense_head", "image"),
        ("scratch", "full", "image"),
    }
    assert ("scratch", "full", "image", "resnet18.a1_in1k") in found
    tower = "scratch-resnet18.a1_in1k"
    assert {row["training"] for row in rows} == {tower, f"{tower}-dense_head"}
    assert "timm:resnet18.a1_in1k" in setup.unavailable
    assert finetuning.left_out(run)["reason"].str.contains("resnet18").any()
    assert (run.bundle / "scratch-resnet18.a1_in1k").exists()
    beside = finetuning.strategies(context, run, predictions)
    assert "captions, linear probe" in set(beside["probe"])
    assert "not both" in finetuning.read(
        context,
        reporting.scores(predictions, task=context.asked),
        finetuning.compare(context, run, predictions),
    )


def test_a_protocol_with_its_own_pretraining_refuses_another(pretrained):
    context, before = pretrained
    plan = settings.Pretraining.from_dict(before.settings)
    plan = settings.finetuning("tiny", plan, protocol=settings.protocol("windsor"))
    with pytest.raises(ValueError, match="bonelib run 04 -p RECIPE windsor -p VARIANT windsor"):
        finetuning.prepare(context, before, plan)


def test_many_strategies_can_pass_holm():
    """With the usual 2,000 draws p is at least .001, which fifty rows multiply to .05."""
    truth = np.arange(60) % 2
    shown = {"image_id": np.arange(60).astype(str), "group": np.arange(60).astype(str)}
    shown |= {"label": np.where(truth == 1, "tumor", "normal"), "sees": "image", "detail": ""}
    rows = []
    for start, how in itertools.product(
        ("scratch", "imagenet", "captions"), evaluation.methods.HEADS[:18]
    ):
        p = np.full(60, 0.5) if how == "probe" else np.where(truth == 1, 0.9, 0.1)
        named = dict(start=start, strategy=how)
        rows.append(pd.DataFrame(shown | named | {"p_tumor": p, "p_normal": 1 - p}))
    kept = {}
    tables = dict(save_table=kept.__setitem__, table=kept.__getitem__)
    run = types.SimpleNamespace(finished=False, **tables)
    context = types.SimpleNamespace(asked=cohort.task("tumor"))
    beside = finetuning.strategies(context, run, pd.concat(rows))
    assert len(beside) > 50 and (beside["p_holm"] < 0.05).all()


def test_the_folder_of_a_model_lies_below_its_run_whatever_its_start_is():
    method = evaluation.Method(start="/data/rad-dino", strategy="full")
    assert "/" not in finetuning.setup.name_of(method)


def test_clinical_data_as_a_sentence_need_a_text_tower():
    setup = types.SimpleNamespace(task=cohort.task("tumor"))
    start = finetuning.heads.Frozen(None, setup, pd.DataFrame(), np.zeros((2, 3)), dual=None)
    with pytest.raises(ValueError, match="pretrain with captions"):
        start.head("late_fusion", "image+text")
    with pytest.raises(ValueError, match="sentence_fusion of image.text .* pretrain with captions"):
        start.head("sentence_fusion", "image+text")
    setup.task = cohort.task("bone_age")
    with pytest.raises(ValueError, match="sentence_fusion fits tasks that are binary .*, not reg"):
        start.head("sentence_fusion", "image+text")


def test_a_sentence_goes_with_unit_vectors_of_the_image(pretrained):
    context, run, setup = begun(pretrained, "sentence", heads=("sentence_fusion", "late_fusion"))
    assert ("captions", "sentence_fusion", "image+text") in setup.plan.fitted
    assert ("captions", "late_fusion", "image+metadata") in setup.plan.fitted
    start = finetuning.heads.frozen(context, setup, context.view(), "captions")
    seen, texts, _ = start.head("sentence_fusion", "image+text")
    halves = np.split(seen, 2, axis=1)
    assert not texts and start.dual.dim == halves[0].shape[1]
    for half in halves:
        np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1, rtol=1e-5)
    raw, _, _ = start.head("late_fusion", "image+text")
    np.testing.assert_array_equal(raw[:, : start.raw.shape[1]], start.raw)
    np.testing.assert_array_equal(raw[:, start.raw.shape[1] :], halves[1])


def test_a_class_without_training_images_costs_the_few_labels_and_is_named():
    """An entity that only the held-out centre has must not end a run whose towers are trained."""
    task = cohort.task("tumor")
    table = pd.DataFrame({"split": ["train", "train", "val"], task.column: ["tumor"] * 3})
    plan = types.SimpleNamespace(shots=(1,), shares=(), fitted=[])
    setup = finetuning.Setup(plan, task, table, {}, None, None, None, 0)
    assert setup.unseen == ["normal"] and not [*finetuning.few(setup, table, {})]
    _, notes = finetuning.heads._all_frozen(None, setup, table)
    assert notes[0][0] == "few labels" and "No training image is normal" in notes[0][1]
    table.loc[0, task.column] = "normal"
    assert setup.unseen == []


def test_clinical_data_that_give_the_class_away_are_left_out_and_named():
    labels = np.arange(60) % 2
    view = pd.DataFrame({"sex": np.where(labels == 1, "f", None), "age": 20.0 + np.arange(60)})
    view = view.assign(site=[()] * 60, view=[("frontal",)] * 60)
    setup = types.SimpleNamespace(
        task=cohort.task("tumor"), labels=labels, labelled=lambda part: np.ones(60, bool)
    )
    start = finetuning.heads.Frozen(None, setup, view, np.zeros((60, 3)))
    seen, _, _ = start.head("late_fusion", "image+metadata")
    (note,) = start.notes
    assert note.startswith("Sex is left out")
    assert seen.shape[1] == 3 + 2, "the age and its square alone"
