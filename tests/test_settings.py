"""Protects the settings: recipes are what they say, nonsense is refused, records are read back."""

import dataclasses
import fnmatch
import inspect
import json
import re
import tomllib

import pytest

from bonelib import adaptation, encoders, losses, runs, training
from bonelib.__main__ import main
from bonelib.experiments import settings
from bonelib.experiments.settings import reading, schema

OURS_CONTROLS = ("shuffled", "attributes", "random_texts", "no_anatomy", "no_finding")
OURS_CONTROLS += ("images_only", "random_start")
SECTIONS = reading._sections()
TRIED = reading._packaged("tried.toml")
CHOOSABLE = [name for name, one in SECTIONS.items() if one.get("inherits") != "ours"]
CHOOSABLE.remove("ours")
for silent in ("ffcl", "crops"):  # from no caption they learn, so that nothing is left to control
    CHOOSABLE.remove(silent)
CHOOSABLE.remove("soup")  # it trains nothing: a control would average the same towers
NAMES = settings.recipe_names()


def made(name="wrong", **sections):
    return settings.recipe(name, sections=SECTIONS | sections)


@pytest.mark.parametrize("name", NAMES)
def test_words_are_trained_where_captions_are_learnt_from(name):
    recipe = settings.recipe(name)
    if recipe.model != "attributes":  # that one has no words
        recorded = {"recipe": dataclasses.asdict(recipe)}
        assert settings.trained_words(recorded) == recipe.learns_from_captions


def plan(recipe="ours", profile="tiny", **changes):
    options = dict(images=40, captions="table", caption_fields=("view", "site")) | changes
    return settings.pretraining(profile, settings.recipe(recipe), **options)


def differences(one, other):
    """What two recipes differ in, entries of their tables apart."""
    own, rest = schema._flat(one), schema._flat(other)
    return {k: v for k, v in own.items() if v != rest[k]}


# ---------------------------------------------------------------------- recipes
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_can_be_made_and_says_why_in_a_sentence(name):
    recipe = settings.recipe(name)
    assert recipe.name == name and recipe.why[0].isupper() and recipe.why.endswith(".")
    assert len(recipe.why.split()) > 4
    losses.contrastive_objective(**dataclasses.asdict(recipe.objective))
    assert settings.Recipe(**recipe.as_dict()) == recipe, "what a run records is all of it"


def test_settings_are_those_of_the_functions_they_go_to_with_their_defaults():
    base = settings.recipe("base")
    for part, function in (
        (base.objective, losses.contrastive_objective),
        (base.fit, training.Options),
    ):
        there = inspect.signature(function).parameters
        given = {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
        assert set(given) <= set(there)
        changed = {k for k, v in given.items() if v is not None and v != there[k].default}
        assert changed <= {"key_temperature", "backbone_lr", "layer_decay"}, "base's own"
    of_objective = set(inspect.signature(losses.contrastive_objective).parameters)
    assert of_objective == {f.name for f in dataclasses.fields(settings.Objective)}
    assert base == settings.Recipe(), "base is the default values"


def test_the_shipped_recipes_are_few_and_listed_with_what_they_change():
    table = settings.recipes().set_index("name")
    assert set(OURS_CONTROLS) | {"base", "ours", "published", "multilingual"} <= set(table.index)
    assert len(table) <= 15 and not set(table.index) & set(TRIED)
    assert table["why"].str.endswith(".").all(), "not cut"
    assert table.loc["base", "changes"] == "" and (table["changes"][1:] != "").all()
    assert table.loc["multilingual", "changes"] == "text packaged:e5, fit.layer_decay 1"


def test_no_two_recipes_are_the_same():
    flat = {name: json.dumps(schema._flat(settings.recipe(name))) for name in NAMES}
    flat.pop("one_rate")  # which was chosen as ours
    assert len(set(flat.values())) == len(flat)
    assert not differences(settings.recipe("ours"), settings.recipe("one_rate"))


@pytest.mark.parametrize("chosen", [None, *CHOOSABLE])
def test_controls_hold_whatever_recipe_is_chosen(chosen):
    own = {} if chosen is None else {"ours": {"why": "A test.", "inherits": chosen}}
    controls = {name: made(name, **own) for name in ("ours", *OURS_CONTROLS)}
    ours, alone = controls["ours"], controls["images_only"]
    assert alone.objective.text == alone.objective.neighbours == 0 < alone.objective.views
    assert alone.epochs == ours.epochs / 2, "two views"
    classes = controls["attributes"]
    assert classes.model == "attributes" and not classes.feature_distillation
    assert differences(controls["shuffled"], ours) == {"captions": "shuffled"}
    assert differences(controls["random_texts"], ours).pop("captions") == "random"
    assert differences(controls["no_finding"], ours).keys() <= {"fields", "exclude_fields"}
    for name in ("no_anatomy", "no_finding", "random_start"):
        assert controls[name].captions == "own" and controls[name].model == "pairs"
    assert controls["random_start"].weights == "random"


def test_a_recipe_is_made_of_all_that_it_inherits():
    a = {"order": "mixed", "epochs": 0.5, "fit": {"lr": 0.1, "clip": 2}}
    b = {"inherits": "a", "weights": "random", "epochs": 3, "fit": {"clip": 3.0}}
    recipe = made("b", a=a, b=b)
    assert (recipe.order, recipe.weights, recipe.epochs) == ("mixed", "random", 1.5)
    assert (recipe.fit.lr, recipe.fit.clip, recipe.fit.layer_decay) == (0.1, 3.0, 0.85)
    assert recipe.inherits == "a" and recipe.why == "", "sentences are not inherited"
    assert made("a", a=a, b=b).fit.clip == 2.0 and a["fit"] == {"lr": 0.1, "clip": 2}


def test_only_recipes_that_can_retrieve_keep_an_epoch_by_retrieval():
    last = {name for name in NAMES if settings.recipe(name).kept_by is None}
    assert last == {"shuffled", "attributes", "images_only", "ffcl", "crops"}
    silent = {name for name in NAMES if not settings.recipe(name).learns_from_captions}
    assert silent == {"images_only", "ffcl", "crops"}


# ---------------------------------------------------------------------- what is refused
WRONG = [
    ({"lora": "eight"}, "lora='eight'. Choose a whole number at least 0"),
    ({"lora": True}, "lora=True"),
    ({"lora": 8.0}, "lora=8.0"),
    ({"size": -3}, "size=-3. Choose a whole number that is 0 or at least 32"),
    ({"size": 16}, "size=16"),
    ({"batch_size": 1}, "batch_size=1"),
    ({"dim": 0}, "dim=0"),
    ({"wise_ft": 7.0}, "wise_ft=7.0. Choose a number at least 0 and at most 1"),
    ({"wise_ft": float("nan")}, "wise_ft=nan"),
    ({"wise_ft": None}, "wise_ft=None"),
    ({"epochs": 0}, "epochs=0.*above 0"),
    ({"epochs": float("inf")}, "epochs=inf"),
    ({"epochs": "1"}, "epochs='1'"),
    ({"studies": 1}, "studies=1. Choose true or false"),
    ({"fit": {"lr": "fast"}}, "fit.lr='fast'. Choose a number above 0 and at most 1"),
    ({"fit": {"lr": -1e-3}}, "fit.lr=-0.001"),
    ({"fit": {"backbone_lr": -1}}, "fit.backbone_lr=-1"),
    ({"fit": {"layer_decay": 1.5}}, "fit.layer_decay=1.5"),
    ({"fit": {"frozen_norm": "no"}}, "fit.frozen_norm='no'. Choose true or false"),
    ({"fit": {"learning_rate": 0.1}}, "fit.learning_rate is no setting.*Choose lr, backbone_lr"),
    ({"fit": {"epochs": 3}}, "fit.epochs is no setting"),
    ({"fit": 3}, "fit=3. Choose a table of lr"),
    ({"objective": {"temperatur": 0.1}}, "temperatur is no setting. Did you mean key_temperature"),
    ({"objective": {"loss": "hinge"}}, "objective.loss='hinge'. Choose softmax, sigmoid"),
    ({"ordr": "plain"}, "ordr is no setting. Did you mean order"),
    ({"back": 0.5}, "back is no setting. It is now called wise_ft"),
    ({"order": "oneset"}, "order='oneset'. Choose plain, balanced, mixed, one set, unique"),
    ({"fields": "view"}, "fields='view'. Choose a list of"),
    ({"fields": ["vew"]}, r"fields=\['vew'\].*view, side"),
    ({"image": "resnet50"}, "image='resnet50'. Choose packaged:<name>"),
    ({"text": "clip"}, "text='clip'. Choose packaged:<name>, small"),
    ({"inherits": "other"}, "No recipe 'other', from which 'wrong' inherits"),
    ({"inherits": "our"}, "Did you mean ours"),
    ({"inherits": "wrong"}, "inherits from itself: wrong → wrong"),
    ({"inherits": ["ours"]}, "No recipe"),
    # what can't go together
    ({"model": "attributes", "objective": {"views": 1.0}}, "Set objective.views to 0"),
    ({"model": "attributes", "text_init_floor": 0.1}, "Set text_init_floor to 0"),
    ({"model": "attributes", "studies": True}, "studies needs model='pairs'"),
    ({"captions": "random", "objective": {"neighbours": 0.5}}, "no nearest neighbours"),
    ({"objective": {"text": 0.0}}, "nothing is learnt"),
    ({"fields": ["view"], "exclude_fields": ["view", "site"]}, "leaves none of them"),
    ({"objective": {"loss": "sigmoid"}}, "knows no partial matches"),
    ({"objective": {"use_keys": False}}, "knows no partial matches"),
    ({"text_init_floor": 0.1, "projection": "mlp"}, "needs projection='linear'"),
    ({"fit": {"micro_batch": 8, "frozen_norm": False}}, "would see parts of a batch"),
    ({"studies": True, "fit": {"micro_batch": 8}}, "would part a study"),
    ({"studies": True, "order": "mixed"}, "order='plain'"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_a_recipe_that_means_nothing_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        made(wrong=changes)


def test_all_that_is_wrong_is_told_at_once():
    wrong = {"order": "any", "extra": 1, "lora": -1, "fit": {"lr": "fast"}, "studies": True}
    wrong["objective"] = {"text": 0.0}
    with pytest.raises(ValueError, match="'wrong' can't be made, 6 problem") as error:
        made(wrong=wrong | {"model": "attributes"})
    for part in ("order=", "extra is", "lora=-1", "fit.lr=", "nothing is", "studies needs"):
        assert part in str(error.value)


def test_settings_made_in_code_are_checked_as_those_of_a_file():
    recipe = settings.recipe("ours")
    for change in ({"size": -3}, {"lora": "eight"}, {"projection": "mlp", "text_init_floor": 0.1}):
        with pytest.raises(ValueError, match="Recipe refused"):
            dataclasses.replace(recipe, **change)
    with pytest.raises(ValueError, match=r"lr='fast'"):
        settings.Fit(lr="fast")
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.size = 64
    assert settings.Recipe(epochs=2, fields=["view"]) == settings.Recipe(
        epochs=2.0, fields=("view",)
    )


def test_orders_and_pools_that_can_be_are_not_refused():
    made(wrong={"order": "one set", "data_sets": ["fracatlas"]})
    made(wrong={"studies": True, "objective": {"views": 1.0, "attributes": 1.0}})
    made(wrong={"model": "attributes", "order": "unique", "lora": 4})


def test_the_families_of_towers_are_those_of_the_encoders():
    for build, tower in ((encoders.image, schema.ImageTower), (encoders.text, schema.TextTower)):
        with pytest.raises(ValueError) as error:
            build("unknown")
        (rule,) = tower.__metadata__
        for family in (part.split(":")[0] for part in rule.told.split(", ")):
            assert family in str(error.value)
            assert rule.allows(family) or rule.allows(f"{family}:x") and not rule.allows(family)
        named = {word.strip(".,").split(":")[0] for word in str(error.value).split() if ":" in word}
        assert named <= {part.split(":")[0] for part in rule.told.split(", ")}


# ---------------------------------------------------------------------- the files
def test_own_recipes_stand_beside_the_shipped_ones_and_take_no_name_of_theirs(
    tmp_path, monkeypatch
):
    file = tmp_path / "recipes.toml"
    monkeypatch.setattr(reading, "own_file", lambda: file)
    assert settings.recipe_names() == [n for n in NAMES if n in {"base", *reading._sections()}]
    file.write_text('[mine]\ninherits = "told_apart"\nfit = { lr = 2e-3 }\n')
    recipe = settings.recipe("mine")
    assert (recipe.fit.lr, recipe.fit.layer_decay, recipe.text_init_floor) == (2e-3, 1.0, 0.01)
    assert "mine" in settings.recipe_names() and "mine" not in set(settings.recipes()["name"])
    for text, message in (
        ("[ours]\nsize = 64\n", "sections ours, which come with bonelib"),
        ("[base]\nsize = 64\n", "sections base"),
        ("[mine\n", "recipes.toml can't be read"),
        ("mine = 3\n", "stands in no section"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            settings.recipe("mine")


def test_an_unknown_recipe_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match="No recipe 'publishd'. Did you mean published.*ours"):
        settings.recipe("publishd")


def test_all_files_of_tables_and_recipes_belong_to_an_installed_package():
    project = tomllib.loads((runs.ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["bonelib"]
    package = runs.ROOT / "bonelib"
    read = [p for p in package.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    assert {"recipes.toml", "tried.toml", "studies.toml"} <= {p.name for p in read}
    names = [f"/{path.relative_to(package)}" for path in read]
    left = [name for name in names if not any(fnmatch.fnmatch(name, x) for x in patterns)]
    assert not left, f"not in package-data of pyproject.toml: {left}"


# ---------------------------------------------------------------------- plans
def test_a_plan_takes_the_sizes_of_its_profile_and_what_the_recipe_changes():
    tiny, full = plan(), plan(profile="full", images=1000)
    assert (tiny.size, tiny.batch_size, tiny.epochs, tiny.warmup) == (64, 16, 6, 0.2)
    assert (full.size, full.batch_size, full.epochs, full.warmup) == (224, 128, 60, 0.05)
    assert full.strengths == tuple(adaptation.STRENGTHS) and full.shares == (0.01, 0.1, 1.0)
    assert (tiny.recipe.image, tiny.recipe.dim) == ("packaged:efficientnet_lite0", 256)
    larger = plan("larger", profile="demo", epochs=6)
    assert (larger.size, larger.epochs) == (160, round(6 * 0.64))
    assert plan("images_only", epochs=1).epochs == 1, "never none"
    assert plan(images=9).batch_size == 9
    accepted = set(inspect.signature(training.Options).parameters)
    assert set(tiny.fit) <= accepted and tiny.fit["epochs"] == 6 and tiny.fit["warmup"] == 0.2
    own = made(wrong={"fit": {"warmup": 0.5}})
    options = dict(images=40, captions="table", caption_fields=["view"])
    assert settings.pretraining("tiny", own, **options).fit["warmup"] == 0.5


def test_a_plan_of_fine_tuning_follows_the_pretraining():
    before = plan("larger", test="center:A", resize="squash")
    tuning = settings.finetuning("tiny", before)
    assert (tuning.size, tuning.test, tuning.resize) == (160, "center:A", "squash")
    assert tuning.starts == ("scratch", "imagenet", "captions")
    assert tuning.fit == {"epochs": 2, "lr": 1e-3, "backbone_lr": 3e-4, "layer_decay": 1.0}
    assert settings.finetuning("full", before, epochs=4).epochs == 4
    with pytest.raises(ValueError, match="starts names captions more than once"):
        dataclasses.replace(tuning, starts=("captions", "captions"))


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_comes_back_from_its_record(name):
    one = plan(name)
    assert settings.Pretraining.from_dict(json.loads(json.dumps(one.as_dict()))) == one
    tuning = settings.finetuning("demo", one)
    assert settings.Finetuning.from_dict(json.loads(json.dumps(tuning.as_dict()))) == tuning


def test_a_plan_knows_neither_where_a_bank_lies_nor_why_a_recipe_was_made():
    one, other = plan(captions="/a/bank.csv"), plan(captions="elsewhere/bank.csv")
    assert one == other and one.captions == "bank.csv"
    assert not {"why", "inherits"} & set(one.as_dict()["recipe"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(profile="huge"), "Unknown profile 'huge'. Choose tiny, demo, full"),
        (dict(epochs=-3), "epochs=-3"),
        (dict(epochs="6"), "epochs='6'"),
        (dict(epochs=True), "epochs=True"),
        (dict(test="fold"), "test='fold'. Choose fold0"),
        (dict(evaluate_on="train"), "evaluate_on='train'. Choose val, test"),
        (dict(resize="crop"), "resize='crop'. Choose pad, squash"),
        (dict(captions="tables"), "captions='tables'. Choose table, reports, own, or a CSV"),
        (dict(language="english"), "language='english'"),
        (dict(caption_fields="view"), "caption_fields='view'"),
        (dict(caption_fields=()), r"caption_fields=\(\).*at least 1"),
        (dict(caption_fields=("own",)), "own captions have the field own"),
        (dict(captions="own"), "own captions have the field own"),
        (dict(images=1), "batch_size=1"),
    ],
)
def test_a_pretraining_that_can_not_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        plan(**changes)


def test_all_that_is_wrong_with_a_plan_is_told_at_once():
    with pytest.raises(ValueError, match="(?s)3 problem.*epochs.*test='x'.*evaluate_on"):
        plan(epochs=-1, test="x", evaluate_on="all")


def test_records_of_an_earlier_form_are_refused_with_the_command_that_remakes_them():
    old = {"size": 64, "probe": "val", "fit_mode": "pad", "recipe_name": "ours", "recipe": {}}
    with pytest.raises(ValueError, match="earlier form.*\n?.*bonelib run 04 -p REUSE=false"):
        settings.Pretraining.from_dict(old)
    with pytest.raises(ValueError, match="bonelib run 05 -p REUSE=false"):
        settings.Finetuning.from_dict({"image": "packaged:efficientnet_lite0", "size": 64})
    damaged = plan().as_dict() | {"batch_size": "many"}
    with pytest.raises(ValueError, match="can't be read.*\n.*batch_size='many'"):
        settings.Pretraining.from_dict({k: v for k, v in damaged.items() if k != "test"})


# ---------------------------------------------------------------------- parameters of notebooks
@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("SEED", -1, "at least 0 and at most 4,294,967,295"),
        ("SPLIT_SEED", -1, "at least 0"),
        ("EPOCHS", -2, "at least 0"),
        ("RESIZE", "pat", "Choose pad, squash"),
        ("TEST", "fold", "fold0, fold1, …"),
        ("TEST", "center", "center:<name>"),
        ("CAPTION_FIELDS", "view,foo", "Choose .*view"),
        ("CAPTION_FIELDS", "", "Choose .*view"),
        ("LANGUAGE", "nl", "Choose en, fr, de"),
        ("LANGUAGES", "fr,de", "Choose .*en, fr"),
        ("PROMPTS", "nowhere.csv", "absolute path of a table that exists"),
        ("EVALUATE_ON", "train", "Choose val, test"),
        ("RUN_ON", "there", "Choose here, elsewhere"),
        ("MODE", "blank", "Choose tags, surrogates"),
    ],
)
def test_a_value_that_no_notebook_takes_is_refused_before_the_start(name, value, told):
    sound = {
        "PROFILE": "tiny",
        "CAPTIONS": "table",
        "LANGUAGE": "en",
        "TEST": "center:A",
        "SEED": 3,
    }
    assert settings.problems(sound | {"CAPTION_FIELDS": "view, site"}) == []
    (found,) = settings.problems(sound | {name: value})
    assert found.startswith(f"{name}={value!r}") or name.startswith(("CAPTION", "LANGUAGES")), found
    assert re.search(told, found)


def test_captions_of_a_bank_may_be_in_any_language():
    assert settings.problems({"PROFILE": "tiny", "CAPTIONS": "bank.csv", "LANGUAGE": "nl"}) == []


def test_the_command_refuses_all_wrong_values_at_once_and_starts_nothing(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.setenv("BONELIB_RUNS", str(tmp_path))
    wrong = {
        "TEST": "fold",
        "SEED": "-1",
        "CAPTION_FIELDS": "foo",
        "LANGUAGE": "nl",
        "EPOCHS": "-1",
    }
    typed = [part for pair in wrong.items() for part in ("-p", *pair)]
    assert main(["run", "01", "04", *typed]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in wrong) and "5 problem(s)" in said
    assert not list(tmp_path.rglob("*"))


def test_a_protocol_is_not_mixed_with_strategies_and_heads():
    both = {"PROTOCOL": "vo", "STRATEGIES": "", "HEADS": "knn"}
    (found,) = settings.problems(both)
    assert "leave HEADS out" in found
    assert settings.problems(both | {"HEADS": ""}) == []
    assert "STRATEGIES and HEADS" in settings.problems(both | {"STRATEGIES": "lora"})[0]


def test_a_strategy_may_be_for_one_start_and_outlines_bring_that_of_the_profile():
    recipe, told = settings.recipe("ours"), dict(captions="table", caption_fields=("site",))
    before = settings.pretraining("demo", recipe, images=99, **told)
    assert settings.problems({"STRATEGIES": "captions:lora, top_k"}) == []
    assert "scratch" in settings.problems({"STRATEGIES": "scrtch:lora"})[0]
    one = settings.finetuning("demo", before, strategies=["captions:lora"], outlines=True)
    assert [pair for pair in one.trainings if pair[1] != "full"] == [("captions", "lora")]
    usual = settings.finetuning("demo", before, outlines=True)
    assert [pair for pair in usual.trainings if pair[1] != "full"] == [("captions", "outlined")]
    assert settings.finetuning("demo", before).strategies == ("full",)
    with pytest.raises(ValueError, match="scrtch:lora starts from none"):
        settings.finetuning("demo", before, strategies=["scrtch:lora"])
