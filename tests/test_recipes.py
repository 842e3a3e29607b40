"""Protects what recipes may change beside the loss: sizes, second views, outlines, sets, soups."""

import dataclasses
import functools
import importlib

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from bonelib import captions, encoders, evaluation, images, models
from bonelib.experiments import captioning, pretraining, settings
from bonelib.experiments.context import Context
from bonelib.images import cuts

FIELDS = "view,site,sex,signs"


@pytest.fixture(scope="module")
def context(sealed):
    """48 small synthetic radiographs with their groups and folds, as notebook 01 leaves them."""
    patch = pytest.MonkeyPatch()
    patch.setattr(pretraining.encoders, "text", functools.cache(encoders.text))
    yield sealed()
    patch.undo()


def mine(**changes):
    return settings.recipe("mine", sections={"mine": {"inherits": "exact", **changes}, "exact": {}})


def planned(context, recipe, *, epochs=1, size=32, fields=FIELDS):
    """The captions and the settings of a recipe, on small images."""
    pairs = captioning.caption(context, recipe, source="table", fields=fields, language="en")
    told = dict(captions="table", caption_fields=pairs.fields, epochs=epochs)
    small = dataclasses.replace(recipe, size=size, batch_size=8)
    return pairs, settings.pretraining("tiny", small, images=16, **told)


def trained(context, variant, recipe, *, seed=0, **options):
    """A finished pretraining of a recipe, and the model it left."""
    own = dataclasses.replace(context, variant=variant, inputs="default", seed=seed)
    if seed:
        own = dataclasses.replace(own, inputs=f"data:{variant}")
    pairs, plan = planned(own, recipe, **options)
    run = own.start("pretraining", settings=plan.as_dict(), inputs=pairs.inputs)
    if run.finished:
        return run, models.load_bundle(run.bundle)
    setup = pretraining.prepare(own, pairs.table, plan)
    rows = list(pretraining.train(run, setup, accelerator="cpu"))
    assert np.isfinite(rows[-1]["loss"])
    run = run.finish()
    return run, models.load_bundle(run.bundle)


@functools.cache
def pictures():
    drawn = np.random.default_rng(0).integers(256, size=(12, 64, 64), dtype=np.uint8)
    return np.stack([cv2.GaussianBlur(one, (5, 5), 0) for one in drawn])


class Store:
    """As much of a cache as a loader asks for."""

    size = 64
    images = property(lambda self: pictures())

    def rows(self, names):
        return np.arange(len(names))


def loaded(**options):
    given = dict(batch_size=4, augment={}, shuffle=True, mean=0.0, std=1.0, channels=1, seed=3)
    return images.loader(Store(), [f"i{k}" for k in range(12)], **given | options)


# ---------------------------------------------------------------------- sizes
def test_images_grow_over_the_epochs_and_end_at_the_size_of_the_recipe():
    recipe = mine(size=192, sizes=[0.5, 0.5, 0.667, 1.0])
    plan = settings.pretraining(
        "demo", recipe, images=99, captions="table", caption_fields=["site"], epochs=8
    )
    assert plan.sides == (96, 96, 96, 96, 128, 128, 192, 192)
    few = dataclasses.replace(plan, epochs=2)
    assert few.sides == (96, 192) and dataclasses.replace(plan, epochs=1).sides == (192,)
    loader = loaded(sides=(32, 32, 48, 64))
    seen = [{batch["image"].shape[-1] for batch in loader} for _ in range(6)]
    assert seen == [{32}, {32}, {48}, {64}, {64}, {64}], "the last one holds"
    loader.epoch = 2  # resumed
    assert next(iter(loader))["image"].shape[-1] == 48


def test_smaller_images_are_means_of_areas_and_one_size_is_the_picture_itself():
    half = cuts.shrunk(pictures(), 32)
    means = pictures().reshape(12, 32, 2, 32, 2).mean(axis=(2, 4))
    assert np.abs(half - means).max() <= 0.5
    plain, same = (next(iter(loaded(sides=sides))) for sides in ((), (64,)))
    assert torch.equal(plain["image"], same["image"])


def test_recipes_of_the_screen_see_no_more_pixels_than_their_base():
    for name in settings.recipe_names():
        recipe = settings.recipe(name)
        if not (recipe.sizes or recipe.crops) or "twice" in recipe.why:
            continue
        plan = settings.pretraining(
            "demo", recipe, images=99, captions="table", caption_fields=["site"], epochs=100
        )
        seen = sum(side**2 * (1 + recipe.crops / 4) for side in plan.sides)
        assert 0.85 < seen / (100 * 128**2) < 1.05, name


# ---------------------------------------------------------------------- second views
def test_a_masked_view_differs_in_its_blank_squares_alone():
    plain, masked = (next(iter(loaded(views=2, masked=share))) for share in (0.0, 0.5))
    assert torch.equal(plain["image"], masked["image"])
    for before, after in zip(plain["second"][:, 0], masked["second"][:, 0], strict=True):
        squares = (before != after).unfold(0, 16, 16).unfold(1, 16, 16).flatten(2).any(dim=2)
        assert squares.sum() == 8, "half of sixteen"
        blank = squares.repeat_interleave(16, 0).repeat_interleave(16, 1)
        assert torch.equal(before[~blank], after[~blank])
        assert after[blank].std() < 1e-6 and after[blank][0] == pytest.approx(before.mean().item())


def test_crops_are_cut_from_their_own_image_at_the_resolution_of_the_cache():
    still = dict.fromkeys(("rotate", "translate", "scale", "noise", "brightness", "contrast"), 0.0)
    batch = next(iter(loaded(views=2, crops=3, sides=(32,), augment=still)))
    assert batch["image"].shape == (4, 1, 32, 32) and batch["second"].shape == (4, 3, 1, 16, 16)
    for name, own in zip(batch["image_id"], batch["second"], strict=True):
        whole = torch.from_numpy(pictures()[int(name[1:])] / 255).float()
        there = whole.unfold(0, 16, 1).unfold(1, 16, 1).reshape(-1, 256)
        away = (there[None] - own.reshape(3, 1, 256)).abs().amax(dim=2).amin(dim=1)
        assert away.max() < 1e-5
    again = loaded(views=2, crops=3, sides=(32,))
    assert torch.equal(next(iter(again))["second"], next(iter(again._batches(0)))["second"])


def test_each_crop_is_to_find_its_whole_image(context):
    recipe = mine(objective={"views": 1.0, "key_temperature": 0.0}, crops=2)
    pairs, plan = planned(context, recipe)
    setup = pretraining.prepare(context, pairs.table, plan)
    assert setup.loader.cache.size == 2 * plan.size == 64
    batch = next(iter(setup.loader))
    out = setup.objective.forward(setup.model, batch)
    first, second = out["view_features"], out["second_features"]
    assert second.shape == (8, 2, first.shape[1])
    found = setup.objective.loss(out, batch)
    alone = dataclasses.replace(plan.recipe.objective, views=0.0)
    text = pretraining.losses.contrastive_objective(**dataclasses.asdict(alone)).loss(out, batch)
    views = 0.0
    for crop in second.unbind(1):
        both = torch.cat([first, crop])
        scores = (both @ both.T / 0.1).fill_diagonal_(-torch.inf)
        own = torch.arange(16).roll(8)
        views += float(torch.nn.functional.cross_entropy(scores, own).detach()) / 2
    assert (found - text).item() == pytest.approx(views, abs=1e-4)
    held = next(iter(setup.validation))["image"]
    assert held.shape[-1] == plan.size, "validation sees whole images"


@pytest.mark.parametrize(
    "setting, told",
    [
        ({"sizes": [0.5, 2.0], "size": 64}, "sizes=.*above 0 and at most 1"),
        ({"sizes": [1.0, 0.5]}, "grow and end at 1"),
        ({"sizes": ["large"]}, "sizes=.*a list of"),
        ({"masked": 0.5}, "objective.views a weight"),
        ({"crops": 2}, "objective.views a weight"),
        ({"crops": 2, "masked": 0.5, "objective": {"views": 1.0}}, "Set one to 0"),
        ({"masked": 1.0, "objective": {"views": 1.0}}, "masked=1.0.*at most 0.9"),
        ({"soup": ["a", "b"], "lora": 4}, "soup trains nothing. Set lora"),
        ({"soup": ["../a"]}, "soup=.*name, name\\* or name@3"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting, told):
    with pytest.raises(ValueError, match=told):
        mine(**setting)


def test_a_loader_refuses_sides_and_views_that_it_has_not():
    with pytest.raises(ValueError, match="from 1 to 64 pixels"):
        loaded(sides=(32, 128))
    with pytest.raises(ValueError, match="of views=2"):
        loaded(crops=2)
    drawn = {"mask": np.zeros((12, 64, 64), bool)}
    with pytest.raises(ValueError, match="64 pixels a side, no studies"):
        loaded(more=drawn, studies=["a", "b"] * 6)
    for wrong in (dict(sides=(32,)), dict(more={"mask": drawn["mask"][:, :32]})):
        with pytest.raises(ValueError, match="mask .*64 pixels a side"):
            loaded(**{"more": drawn} | wrong)


# ---------------------------------------------------------------------- outlines in words
def test_an_outline_is_told_by_its_third_and_its_length():
    mask = np.zeros((90, 90), bool)
    mask[70:80, 10:13] = True
    facts = captions.outline_facts(mask, fractured=True)
    assert facts == dict(what="fracture", height="lower", across="left", extent="medium")
    said = {lang: captions.outline_sentence(facts, language=lang) for lang in ("en", "fr", "de")}
    assert said["en"].startswith("Cortex interrupted in the lower third of the image, left of")
    assert len(set(said.values())) == 3
    mirrored = captions.outline_facts(mask[::-1, ::-1], fractured=False)
    assert mirrored == dict(what="finding", height="upper", across="right", extent="medium")
    with pytest.raises(ValueError, match="No outlines in 'xx'. Choose en"):
        captions.outline_sentence(facts, language="xx")


def test_captions_tell_the_outlines_of_training_images_alone(context):
    words = dict(source="table", fields="view,site", language="en")
    plain = captioning.caption(context, mine(), **words)
    told = captioning.caption(context, mine(outlines=True), **words)
    outlined = context.view().set_index("image_id")["mask"].notna()
    outlined = plain.table["image_id"].map(outlined)
    train = plain.table["split"] == "train"
    assert (outlined & ~train).any(), "validation images have outlines, of which nothing is said"
    changed = plain.table["caption"] != told.table["caption"]
    assert changed.equals(train & outlined)
    assert told.table.loc[changed, "caption"].str.contains("third of the image").all()
    first = len(plain.table.filter(like="key_").columns)
    own = told.table[[f"key_{first + k}" for k in range(4)]]
    assert (own[~changed] == -1).all(axis=None) and (own[changed] >= 0).all(axis=None)
    assert [name for name, _ in told.table.attrs["attributes"]][-1] == "outline extent"
    assert told.fields[-1] == captions.OUTLINES
    assert captions.supervision(plain.fields).startswith("zero-shot")
    assert captions.supervision(told.fields) == "label-supervised text"
    given = {
        t: captions.gives_away(t, fields=told.fields) for t in ("fracture", "tumor", "bone_age")
    }
    assert given == {"fracture": True, "tumor": True, "bone_age": False}
    _, plan = planned(context, mine(outlines=True))
    setup = pretraining.prepare(context, told.table, plan)
    assert not setup.loader.flip, "a mirrored image would need other words"


def test_outlines_are_asked_of_sets_that_have_them(context, monkeypatch):
    bare = context.view().assign(mask=pd.NA)
    monkeypatch.setattr(Context, "view", lambda self, test="": bare)
    with pytest.raises(ValueError, match="No training image of phantom has an outline"):
        captioning.caption(
            context, mine(outlines=True), source="table", fields="site", language="en"
        )


# ---------------------------------------------------------------------- another set beside
def test_images_of_another_set_are_learnt_from_and_never_judged(context, monkeypatch):
    with pytest.raises(ValueError, match="is among DATA='phantom' already"):
        captioning.caption(
            context, mine(also="phantom"), source="table", fields="site", language="en"
        )
    real = dataclasses.replace(context, data="other")
    own = context.view().assign(source="other", fracture="intact", tumor=pd.NA)
    synthetic = context.view()
    synthetic["distractor"] = ["fracture"] * 24 + ["none"] * 24
    monkeypatch.setattr(
        Context, "view", lambda self, test="": own if self.data == "other" else synthetic
    )
    monkeypatch.setattr(Context, "cohort_run", context.cohort_run)
    recipe = mine(also="phantom", fields=["site", "signs"])
    pairs = captioning.caption(real, recipe, source="table", fields="site", language="en")
    beside = pairs.table["source"] == "phantom"
    assert set(pairs.table.loc[beside, "split"]) == {"train"}
    held = set(synthetic.loc[synthetic["split"] == "test", "image_id"])
    assert beside.sum() == len(synthetic) - len(held)
    assert not pairs.table["image_id"].isin({f"phantom/{name}" for name in held}).any()
    assert pairs.table["image_id"].is_unique and captions.label_free(pairs.fields)
    torn = pairs.table["image_id"].isin("phantom/" + synthetic["image_id"][:24].astype(str))
    told = pairs.table["caption"].str.lower().str.contains("cortex interrupted by a lucent line")
    assert told.equals(torn), "a drawn fracture is said by its sign"
    bones = ["fractured", "intact", pd.NA] * 16
    drawn = synthetic.assign(fracture=bones, distractor="none", cortex=pd.NA)
    monkeypatch.setattr(Context, "view", lambda self, test="": drawn)
    left = drawn["split"].to_numpy() != "test"
    signs = ["broken", "intact", ""] * 16
    assert list(real.beside("phantom")["cortex"]) == list(np.array(signs)[left])
    table = real.beside("phantom")
    assert not {"tumor", "malignancy", "entity", "fracture"} & set(table), "labels stay behind"


# ---------------------------------------------------------------------- soups
def test_a_soup_of_one_run_is_that_run_and_of_two_their_mean(context):
    towers = {}
    for variant, recipe in (("first-x", mine()), ("second-x", mine(fit={"backbone_lr": 0.01}))):
        _, model = trained(context, variant, recipe)
        towers[variant] = model.image.state_dict()
    assert any(not v.equal(towers["second-x"][k]) for k, v in towers["first-x"].items())
    run, alone = trained(context, "mine-x", mine(soup=["first*"]))
    assert all(v.equal(towers["first-x"][k]) for k, v in alone.image.state_dict().items())
    assert run.head["inputs"] and any("first-x" in str(one) for one in run.head["inputs"])
    _, both = trained(context, "both", mine(soup=["first-x", "second-x"]))
    for name, value in both.image.state_dict().items():
        if value.is_floating_point():
            mean = (towers["first-x"][name].double() + towers["second-x"][name].double()) / 2
            assert torch.equal(value, mean.float()), name
    first = models.load_bundle(context_bundle(context, "first-x"))
    for part in ("image_projection", "text_projection"):
        assert torch.equal(getattr(both, part).weight, getattr(first, part).weight)


def context_bundle(context, variant):
    own = dataclasses.replace(context, inputs=variant)
    return own.find("pretraining").bundle


def test_towers_of_other_shapes_starts_or_captions_make_no_soup(context):
    trained(context, "first-x", mine())
    trained(context, "large", mine(), size=64)
    with pytest.raises(ValueError, match="one architecture and size.* at 32 px, .* at 64 px"):
        trained(context, "mixed", mine(soup=["first-x", "large"]))
    drawn = mine(weights="random", fit={"frozen_norm": False})
    trained(context, "drawn", drawn)
    with pytest.raises(
        ValueError, match=r"they started from .*\(pretrained\) and .*\(random, seed 0"
    ):
        trained(context, "mixed", mine(soup=["first-x", "drawn"]))
    trained(context, "told", mine(outlines=True))
    with pytest.raises(ValueError, match="told learnt from outlines as well.*CAPTION_FIELDS"):
        trained(context, "mixed", mine(soup=["first-x", "told"]))
    with pytest.raises(FileNotFoundError, match="No finished 'pretraining' run nowhere-s0"):
        trained(context, "mixed", mine(soup=["nowhere"]))


# ---------------------------------------------------------------------- gains over seeds
def scored(strength, seed, *, count=160):
    """Predictions of fractures that are as good as ``strength``, the patients always the same."""
    labels = np.repeat(["intact", "fractured"], count // 2)
    noise = np.random.default_rng(seed).normal(size=count)
    p = 1 / (1 + np.exp(-strength * (labels == "fractured") - noise))
    names = [f"p{k}" for k in range(count)]
    held = {"image_id": names, "label": labels, "split": "test", "patient": names, "group": names}
    chances = {"p_intact": 1 - p, "p_fractured": p, "group_kind": "patient"}
    return pd.DataFrame({**held, **chances})


def test_a_gain_over_seeds_is_the_mean_with_an_interval_that_holds_their_luck():
    start, own = scored(0.8, 0), [scored(s, k) for k, s in enumerate((0.6, 1.4, 2.2), start=1)]
    options = dict(task="fracture", metric="AUROC")
    gains = [evaluation.compare(one, start, **options)["value"] for one in own]
    found = evaluation.repeated(own, against=[start] * 3, **options)
    assert found["value"] == pytest.approx(np.mean(gains))
    assert (found["lowest"], found["highest"]) == pytest.approx((min(gains), max(gains)))
    one = evaluation.repeated(own[1:2], against=[start], **options)
    assert one["high"] - one["low"] < found["high"] - found["low"]
    with pytest.raises(ValueError, match="same images"):
        evaluation.repeated(own, against=[start.iloc[:-1]] * 3, **options)


def test_recipes_that_several_seeds_trained_on_the_same_folds_have_one_gain(monkeypatch):
    module = importlib.import_module("bonelib.reporting.recipes")

    def pooled(recipe, split_seed, seed, strength):
        both = pd.concat([scored(0.8, 0).assign(detail=""), scored(strength, seed + 1)])
        both = both.assign(detail=both["detail"].fillna(recipe), task="fracture", share=1.0)
        both = both.assign(in_captions=False, test="fold0")
        return module._Pooled("real", split_seed, seed, recipe, recipe, both, 1.0)

    several = [pooled("better", 2, seed, 2.0) for seed in (4, 5, 6)]
    others = [pooled("better", 0, 0, 2.0), pooled("alone", 2, 4, 1.0)]
    monkeypatch.setattr(module, "_judged", lambda profile, judged: [*several, *others])
    found = module.over_seeds(profile="demo")
    assert len(found) == 1, "one training says nothing of its luck"
    row = found.iloc[0]
    assert (row["recipe"], row["split_seed"], row["seeds"], row["n"]) == ("better", 2, 3, 160)
    assert 0 < row["low"] < row["gain"] < row["high"] and row["lowest"] <= row["gain"]
    some = several[0].probes
    several[0].probes = some[(some["detail"] == "") | (some["image_id"] != "p0")]
    assert module.over_seeds(profile="demo").empty, "a fold is still to come"
