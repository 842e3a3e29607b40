"""Protects the recipes: each is what it says, and a control differs by what it is a control of."""

import inspect
import json
import tomllib

import pytest

from bonelib import losses, runs, training

KNOWN = tomllib.loads((runs.ROOT / "notebooks" / "recipes.toml").read_text())
CONTROLS = [name for name, recipe in KNOWN.items() if recipe.get("like") == "ours"]
CHOOSABLE = [name for name in KNOWN if name not in ("ours", "base", *CONTROLS)]


def differences(name, other, known=KNOWN):
    """What two recipes differ in, entries of their tables apart."""
    flat = []
    for recipe in (training.recipe(name, known), training.recipe(other, known)):
        parts = {f"{p}.{k}": v for p in ("fit", "objective") for k, v in recipe.pop(p).items()}
        flat.append(recipe | parts)
    keys = {*flat[0], *flat[1]}
    return {k: flat[0].get(k) for k in keys if flat[0].get(k) != flat[1].get(k)}


@pytest.mark.parametrize("name", KNOWN)
def test_every_recipe_can_be_made_and_calls_what_exists(name):
    made = training.recipe(name, KNOWN)
    assert KNOWN[name]["why"] and "why" not in made and "like" not in made
    for part, function in (("fit", training.fit), ("objective", losses.contrastive_objective)):
        assert set(made[part]) <= set(inspect.signature(function).parameters), part
    losses.contrastive_objective(**made["objective"])


def test_no_two_recipes_are_the_same():
    made = {n: json.dumps(training.recipe(n, KNOWN), sort_keys=True) for n in KNOWN if n != "ours"}
    assert len(set(made.values())) == len(made)
    assert training.recipe("ours", KNOWN) in [training.recipe(n, KNOWN) for n in CHOOSABLE]


@pytest.mark.parametrize("chosen", [None, *CHOOSABLE])
def test_controls_hold_whatever_recipe_is_chosen(chosen):
    known = KNOWN if chosen is None else KNOWN | {"ours": {"why": "a test", "like": chosen}}
    alone = training.recipe("images_only", known)["objective"]
    assert alone["text"] == alone.get("neighbours", 0) == 0 < alone["views"]
    ours = training.recipe("ours", known)
    assert training.recipe("images_only", known)["epochs"] == ours["epochs"] / 2, "two views"
    classes = training.recipe("attributes", known)
    assert classes["model"] == "attributes" and not classes["distil"]
    assert differences("shuffled", "ours", known) == {"captions": "shuffled"}
    assert differences("random_texts", "ours", known).pop("captions") == "random"
    assert differences("no_finding", "ours", known).keys() <= {"fields", "without"}
    for name in ("no_anatomy", "no_finding", "random_start"):
        made = training.recipe(name, known)
        assert made["captions"] == "own" and made["model"] == "pairs"
    assert training.recipe("random_start", known)["weights"] == "random"


def test_a_recipe_is_made_of_all_that_it_is_like():
    known = {
        "base": {
            **{"why": "", "order": "plain", "captions": "own", "model": "pairs", "distil": 0.0},
            **{"projection": "mlp", "apart": 0.0, "weights": "random", "epochs": 1.0},
            **{"objective": {"text": 1.0}, "fit": {"lr": 1.0, "clip": 2.0}},
        },
        "a": {"why": "", "order": "mixed", "fit": {"lr": 3.0}},
        "b": {"why": "", "like": "a", "weights": "pretrained", "fit": {"warmup": 0.5}},
    }
    made = training.recipe("b", known)
    assert made["fit"] == {"lr": 3.0, "clip": 2.0, "warmup": 0.5} and made["order"] == "mixed"
    assert made["weights"] == "pretrained" and made["objective"] == {"text": 1.0}
    assert training.recipe("base", known)["fit"] == {"lr": 1.0, "clip": 2.0}, "left as it was"
    assert known["base"]["fit"] == {"lr": 1.0, "clip": 2.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ordr": "plain"}, "'ordr' is no setting"),
        ({"order": "oneset"}, "order='oneset'. Choose plain, balanced, mixed, one set, unique"),
        ({"model": "attributes", "objective": {"views": 1.0}}, "no texts, views or features"),
        ({"captions": "random", "objective": {"neighbours": 0.5}}, "no nearest neighbours"),
        ({"objective": {"text": 0.0}}, "Nothing is learnt"),
        ({"objective": {"temperatur": 0.1}}, "temperatur is no setting. Choose attributes, key"),
        ({"fit": {"learning_rate": 0.1}}, "fit.learning_rate is no setting. Choose backbone_lr"),
        ({"fit": {"epochs": 3}}, "fit.epochs is no setting"),
        ({"like": "other"}, "No recipe 'other'"),
        ({"like": "wrong"}, "like itself: wrong → wrong"),
    ],
)
def test_a_recipe_that_means_nothing_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        training.recipe("wrong", KNOWN | {"wrong": changes})


def test_all_faults_of_a_recipe_are_told_at_once():
    wrong = {"order": "any", "captions": "none", "extra": 1}
    with pytest.raises(ValueError, match="extra(.|\n)*order='any'(.|\n)*captions='none'"):
        training.recipe("wrong", KNOWN | {"wrong": wrong})


def test_only_recipes_that_can_retrieve_keep_an_epoch_by_retrieval():
    last = {name for name in KNOWN if training.kept(training.recipe(name, KNOWN)) is None}
    assert last == {"shuffled", "attributes", "images_only"}


def test_what_several_processes_can_train_is_said_before_a_plan_is_left():
    for name in ("ours", "shuffled", "random_texts", "no_anatomy", "large_batch"):
        training.check_plain(training.recipe(name, KNOWN))
    told = {"published": "order='unique'", "lora": "lora=8", "images_only": "views"}
    for name, reason in told.items():
        with pytest.raises(ValueError, match=f"{reason} is for notebook 04 alone"):
            training.check_plain(training.recipe(name, KNOWN))
