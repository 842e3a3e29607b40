"""Protects the training of every recipe: each is put together, trains a step, can be planned."""

import dataclasses
import functools
import hashlib

import numpy as np
import pandas as pd
import pytest
import torch

from bonelib import encoders, models, runs
from bonelib.experiments import captioning, finetuning, pretraining, probing, settings
from bonelib.experiments.context import Context, Process, leave_plan


@pytest.fixture(scope="module")
def context(sealed):
    """48 small synthetic radiographs with their groups and folds, as notebook 01 leaves them."""
    patch = pytest.MonkeyPatch()
    # Text towers are frozen: each is read once. Captions are encoded anew by every recipe.
    patch.setattr(pretraining.encoders, "text", functools.cache(encoders.text))
    yield sealed()
    patch.undo()


def planned(context, name, **changes):
    """A recipe's captions and settings, as small as they can be."""
    recipe = settings.recipe(name)
    if recipe.data_sets:
        recipe = dataclasses.replace(recipe, data_sets=("phantom",))
    # Other sets and finished runs are not here: these are in test_recipes.
    recipe = dataclasses.replace(recipe, also="", soup=())
    words = dict(source="table", fields="view,site,sex,signs", language="en")
    pairs = captioning.caption(context, recipe, **words)
    plan = settings.pretraining(
        "tiny",
        dataclasses.replace(recipe, size=32, batch_size=8, epochs=1.0),
        images=8,
        captions="table",
        caption_fields=pairs.fields,
        epochs=1,
    )
    return pairs, plan


def test_every_recipe_trains_one_step(context):
    untrained = []
    for name in settings.recipe_names():
        pairs, plan = planned(context, name)
        setup = pretraining.prepare(context, pairs.table, plan)
        before = {k: v.clone() for k, v in setup.model.state_dict().items()}
        batch = next(iter(setup.loader))
        loss = setup.objective(setup.model.train(), batch)
        loss.backward()
        moving = [p for p in setup.model.parameters() if p.requires_grad]
        torch.optim.SGD(moving, lr=0.1).step()
        moved = [k for k, v in setup.model.state_dict().items() if not v.equal(before[k])]
        trunk = any(k.startswith("image.") for k in moved)
        if not (torch.isfinite(loss) and trunk):
            untrained.append((name, float(loss)))
    assert len(settings.recipe_names()) >= 45 and not untrained


def weights(folder):
    return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["published", "attributes", "lora", "studies"])
def test_a_recipe_planned_here_is_carried_out_elsewhere_to_the_same_bits(context, name):
    found = []
    for variant in (f"{name}-here", f"{name}-there"):
        own = dataclasses.replace(context, variant=variant, inputs="default")
        pairs, plan = planned(own, name)
        run = own.start("pretraining", settings=plan.as_dict(), inputs=pairs.inputs)
        setup = pretraining.prepare(own, pairs.table, plan)
        if variant.endswith("there"):
            with pytest.raises(runs.Planned, match="torchrun"):
                leave_plan(run, setup)
            run = runs.reopen(run.path)
            setup = pretraining.reopen(run)
        rows = list(pretraining.train(run, setup, accelerator="cpu"))
        assert len(rows) == 1 and np.isfinite(rows[0]["loss"]) and run.trained
        assert list(pretraining.train(run, setup)) == []  # it is there already
        found.append(weights(run.bundle))
    assert found[0] == found[1]


def test_a_fine_tuning_planned_here_is_carried_out_elsewhere_and_goes_on_after_a_kill(context):
    own = dataclasses.replace(context, variant="tuned", inputs="default")
    pairs, plan = planned(own, "ours")
    run = own.start("pretraining", settings=plan.as_dict(), inputs=pairs.inputs)
    setup = pretraining.prepare(own, pairs.table, plan)
    assert list(pretraining.train(run, setup, accelerator="cpu"))
    pretrained = run.finish()
    tuning = settings.finetuning("tiny", plan, epochs=1)
    bits = {}
    for variant in ("here", "there"):
        own = dataclasses.replace(own, variant=variant, inputs="data:default,pretraining:tuned")
        inputs = [own.cohort_run, pretrained]
        run = own.start("finetuning", settings=tuning.as_dict(), inputs=inputs)
        setup = finetuning.prepare(own, pretrained, tuning)
        if variant == "there":
            with pytest.raises(runs.Planned, match="torchrun"):
                leave_plan(run, setup)
            run = runs.reopen(run.path)
            setup = finetuning.reopen(run)
            killed = finetuning.train(run, setup, accelerator="cpu")
            assert [next(killed)["start"], next(killed)["start"]] == ["scratch", "imagenet"]
            killed.close()  # as a kill would: the second start is not saved
            assert not (run.bundle / "imagenet").exists()
        starts = [row["start"] for row in finetuning.train(run, setup, accelerator="cpu")]
        assert starts[-1] == "captions" and run.table("history")["start"].is_unique
        bits[variant] = {start: weights(run.bundle / start) for start in tuning.starts}
        assert isinstance(models.load_bundle(run.bundle / "captions"), models.Classifier)
    assert bits["here"] == bits["there"]


@pytest.mark.parametrize("name", ["ours", "random_start"])
def test_the_start_that_is_probed_is_the_tower_that_training_started_from(context, name):
    own = dataclasses.replace(context, variant=f"start-{name}", inputs="default")
    pairs, plan = planned(own, name)
    setup = pretraining.prepare(own, pairs.table, plan)
    begun = encoders.weights_hash(setup.model.image)
    run = own.start("pretraining", settings=plan.as_dict(), inputs=pairs.inputs)
    patch, probed = pytest.MonkeyPatch(), []
    with patch.context() as patched:
        patched.setattr(
            Context, "features", lambda self, tower, *_: probed.append(tower) or np.eye(48)
        )
        found = probing.probe(own, run, plan, setup.model)
    assert encoders.weights_hash(probed[0]) == begun
    before = set(found.loc[found["detail"] == "", "start"])
    assert before == {"scratch" if name == "random_start" else "imagenet"}


def test_what_a_tower_assumes_is_said_with_the_bounds_and_recorded(context):
    pairs, plan = planned(context, "ours")
    setup = pretraining.prepare(context, pairs.table, plan)
    bounds = pretraining.loss_bounds(setup)
    plain = pretraining.read_bounds(setup, bounds)
    setup.model.image.notes = ["It enlarges images."]
    assert pretraining.read_bounds(setup, bounds) == plain.replace(
        "**Reading.** ", "**Reading.** It enlarges images. "
    )
    history = pd.DataFrame({"loss": [1.0], "precision": ["32-true"]})
    assert pretraining.notes(setup, bounds, history)["tower"] == ["It enlarges images."]


@pytest.mark.parametrize("setting", [{"lora": 5000}, {"dim": 100_000}, {"size": 4096}])
def test_settings_have_upper_bounds(setting):
    (name, _), *_ = setting.items()
    with pytest.raises(ValueError, match=f"{name}=.* at most"):
        settings.recipe("mine", sections={"mine": setting})


def test_a_name_inside_a_recipe_is_refused_and_not_dropped():
    with pytest.raises(ValueError, match="'mine': its section is its name. Leave out name"):
        settings.recipe("mine", sections={"mine": {"name": "other"}})


def test_captions_that_all_mean_the_same_teach_nothing_and_are_refused(context):
    pairs, plan = planned(context, "ours")
    alike = pairs.table.assign(**{k: 0 for k in pairs.table if k.startswith("key_")})
    with pytest.raises(ValueError, match="mean the same"):
        pretraining.prepare(context, alike, plan)


def test_shuffled_captions_stay_within_their_part_with_their_keys(context):
    own, _ = planned(context, "ours")
    shuffled, _ = planned(context, "shuffled")
    keys = [name for name in own.table if name.startswith("key_")]
    for part in ("train", "val"):
        before, after = (t[t["split"] == part] for t in (own.table, shuffled.table))
        assert sorted(before["caption"]) == sorted(after["caption"])
        assert (before["caption"].to_numpy() != after["caption"].to_numpy()).any()
        facts = dict(zip(before["caption"], before[keys].itertuples(index=False), strict=True))
        for caption, row in zip(after["caption"], after[keys].itertuples(index=False), strict=True):
            assert facts[caption] == row
    assert own.table["image_id"].equals(shuffled.table["image_id"])


def test_the_floor_is_below_chance_and_reading_it_draws_no_picture(context):
    pairs, plan = planned(context, "ours")
    setup = pretraining.prepare(context, pairs.table, plan)
    setup.loader.cache = None  # pictures can't be read any more
    bounds = pretraining.loss_bounds(setup)
    assert 0 <= bounds["floor"] < bounds["chance"] == pytest.approx(np.log(8))


def test_a_process_alone_is_the_first_of_one(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert Process.here() == Process() and Process.here().first
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert not Process.here().first and Process.here().where == {"devices": 2, "nodes": 2}


def test_attributes_come_first_and_then_the_captions(context):
    pairs, plan = planned(context, "attributes_then_captions")
    plan = dataclasses.replace(plan, epochs=4)
    setup = pretraining.prepare(context, pairs.table, plan)
    batch = next(iter(setup.loader))
    moved = {}
    for epoch in range(4):
        setup.loader.epoch = epoch
        setup.model.zero_grad()
        setup.objective(setup.model, batch).backward()
        parts = setup.model.heads[0].weight, setup.model.text_projection.weight
        moved[epoch] = [bool(part.grad.any()) for part in parts]
    assert moved == {0: [True, False], 1: [True, False], 2: [False, True], 3: [False, True]}


def test_labels_and_texts_of_dlilp_have_projections_of_their_own(context):
    pairs, plan = planned(context, "dlilp")
    model = pretraining.prepare(context, pairs.table, plan).model
    assert model.label_projection.weight.shape == model.image_projection.weight.shape
    assert {head.in_features for head in model.heads} == {model.dim}


@pytest.mark.parametrize(
    "setting, told",
    [
        ({"label_projection": True}, "objective.attributes"),
        ({"first": "attributes"}, "objective.attributes"),
        (
            {"first": "attributes", "objective": {"text": 0.0, "attributes": 1.0}},
            "nothing follows",
        ),
        ({"first": "stages"}, "objective.views"),
    ],
)
def test_classes_beside_captions_need_both(setting, told):
    with pytest.raises(ValueError, match=told):
        settings.recipe("mine", sections={"mine": setting})


def test_each_stage_learns_from_its_own_map_first_and_then_the_whole_tower(context):
    pairs, plan = planned(context, "ffcl")
    setup = pretraining.prepare(context, pairs.table, dataclasses.replace(plan, epochs=2))
    model, batch, trunk = setup.model.eval(), next(iter(setup.loader)), setup.model.image.trunk
    out = {}
    for epoch in range(2):
        setup.loader.epoch = epoch
        model.zero_grad()
        found = setup.objective.forward(model, batch)
        out[epoch] = {name: value.detach() for name, value in found.items()}
        if epoch == 0:  # the loss of the last stage alone moves nothing below it
            last = len(model.stages.names) - 1
            found[f"stage_{last}"].sum().backward()
            assert not trunk.conv_stem.weight.grad and trunk.blocks[6][0].conv_pw.weight.grad.any()
            setup.objective(model, batch).backward()
            assert trunk.conv_stem.weight.grad.any() and not trunk.conv_head.weight.grad.any()
            assert not model.projector[0].weight.grad.any()
    setup.objective(model, batch).backward()
    assert trunk.conv_head.weight.grad.any() and model.projector[0].weight.grad.any()
    assert not model.stages.projectors[0].weight.grad.any()
    for name in ("pooled", "stage_0"):
        assert torch.equal(out[0][name], out[1][name]), "watched, the tower puts out the same"
