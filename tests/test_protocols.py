"""Protects published protocols by name: each can be read, says where it departs, and is checked."""

import inspect
import re

import pytest

from bonelib import adaptation, encoders, figures, images, models
from bonelib.adaptation import towers
from bonelib.experiments import settings

NAMES = settings.protocol_names()
ROW = {"tower": "captions", "strategy": "probe"}


def made(*rows, **more):
    section = {"paper": "key", "why": "A reason.", "rows": list(rows)} | more
    return settings.protocol("mine", sections={"mine": section})


def test_the_published_protocols_are_there_by_name():
    names = "liverpool schuster liver_vlm englebert vo clip_it cascade ffcl qpmil windsor"
    assert NAMES == names.split()


@pytest.mark.parametrize("name", NAMES)
def test_a_protocol_says_what_it_is_and_where_it_departs(name):
    one = settings.protocol(name)
    sentences = (one.why, *one.departs, *one.mended)
    assert one.departs and all(s[0].isupper() and s.endswith(".") for s in sentences)
    assert all(sentence in one.described() for sentence in sentences)
    assert not one.recipe or one.recipe in settings.recipe_names()


@pytest.mark.parametrize("name", NAMES)
def test_no_protocol_stands_alone(name):
    """A row that uses clinical data has metadata alone beside it; every other has a second one."""
    rows = settings.protocol(name).rows
    fused = [row for row in rows if row.sees in ("image+metadata", "image+text")]
    assert len(rows) > 1
    assert not fused or any(row.sees == "metadata" for row in rows)


# What a sentence of a protocol says of its rows, and what then stands among them.
SAID = {
    "ResNet50 sees": lambda row: "resnet50" in row.tower and row.strategy == "dense_head",
    "XGBoost has": lambda row: row.strategy == "xgboost",
    "DINOv2 sees": lambda row: "dinov2" in row.tower and row.head,
    "CLIP's features": lambda row: "clip" in row.tower and row.head,
    "Fusion stacks": lambda row: row.strategy == "late_fusion",
    "chest tower": lambda row: row.tower.startswith("torchxrayvision") and row.strategy == "full",
    "Metadata alone": lambda row: row.sees == "metadata",
    "linear head": lambda row: row.strategy == "probe",
    "head trains alone": lambda row: row.strategy == "head_then_all",
    "Random class vectors": lambda row: row.strategy == "class_text_random",
    "The network is": lambda row: row.strategy == "sentence_fusion",
    "The sentence holds": lambda row: row.sees == "image+text",
    "second model": lambda row: row.strategy == "cascade",
    "fine-tun": lambda row: row.tower and not row.head,
}


@pytest.mark.parametrize("said", SAID)
def test_what_a_protocol_says_of_a_row_stands_among_its_rows(said):
    those = [
        one
        for one in map(settings.protocol, NAMES)
        if said in " ".join((*one.departs, *one.mended))
    ]
    assert those, "no protocol says so: take it out of this test"
    for one in those:
        assert any(SAID[said](row) for row in one.rows), one.name


@pytest.mark.parametrize("name", NAMES)
def test_names_that_a_protocol_quotes_exist(name):
    one = settings.protocol(name)
    parts = {part for row in one.rows for part in row.tower.replace(":", ".").split(".")}
    known = {*settings.recipe_names(), *adaptation.strategies.table().index, *parts}
    quoted = re.findall("`([^`]+)`", " ".join((one.why, *one.departs, *one.mended)))
    assert set(quoted) <= known
    recipe = re.findall(r"RECIPE (\w+)", one.why)
    assert recipe == [one.recipe] * len(recipe) and bool(recipe) is bool(one.recipe)


def test_numbers_of_the_protocols_are_those_of_the_code():
    """Sentences on this project's side hold its own settings."""
    varied = {k: p.default for k, p in inspect.signature(images.augment).parameters.items()}
    said = " ".join(settings.protocol("liverpool").departs)
    assert f"turned by up to {varied['rotate']} degrees, shifted, zoomed by a tenth, other" in said
    assert varied["scale"] == 0.1 and varied["translate"] and varied["contrast"]
    assert "sees 224 pixels" in said and settings.protocol("liverpool").rows[0].size == 224
    assert "starts at 1/0.07" in " ".join(settings.protocol("liver_vlm").departs)
    head = models.CosineHead(8, outputs=2, dim=4)
    assert head.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    assert towers.HEAD_SHARE == 0.25 and towers.LOW == 0.1
    shares = "at most a quarter of the run, and then all weights by a tenth"
    assert shares in " ".join(settings.protocol("englebert").departs)
    fused = [row for row in settings.protocol("vo").rows if row.strategy == "late_fusion"]
    assert len(fused) == 2 and "Two late fusions" in " ".join(settings.protocol("vo").departs)


def test_words_of_the_classes_have_random_vectors_beside_them():
    for name in NAMES:
        rows = settings.protocol(name).rows
        words = [row for row in rows if row.strategy == "class_text_ft"]
        assert not words or any(row.strategy == "class_text_random" for row in rows)


@pytest.mark.parametrize(
    "row, told",
    [
        ({"tower": "captions", "strategy": "prob"}, "rows[1]: strategy='prob'. Choose probe"),
        ({"tower": "captions", "strategy": "probe", "sise": 3}, "Did you mean size?"),
        ({"strategy": "probe"}, "name a tower for images"),
        ({"tower": "captions", "strategy": "probe", "sees": "metadata"}, "name a tower for images"),
        ({"tower": "captions", "strategy": "late_fusion"}, "fusion sees both"),
        (
            {"tower": "captions", "strategy": "sentence_fusion", "sees": "image+metadata"},
            "it reads image+text",
        ),
        ({"tower": "timm:resnet18", "strategy": "taskres"}, "needs tower='captions'"),
        ({"tower": "resnet18", "strategy": "probe"}, "tower='resnet18'. Choose captions"),
        ({"tower": "timm:resnet18", "strategy": "probe", "size": 7}, "size=7"),
    ],
)
def test_rows_that_cannot_be_are_refused_with_the_cure(row, told):
    with pytest.raises(ValueError, match="can't be carried out") as refused:
        made(row, ROW)
    assert told in str(refused.value)


def test_all_faults_are_listed_at_once_and_names_answered_with_the_nearest():
    with pytest.raises(ValueError) as refused:
        made({"strategy": "probe"}, ROW, ROW, shares=[0.0], metric="AUROC")
    assert "4 problem(s)" in str(refused.value) and "stands there twice" in str(refused.value)
    for rows in ([], "probe"):
        with pytest.raises(ValueError, match="one or more tables of strategy"):
            settings.protocol("x", sections={"x": {"paper": "k", "why": "W.", "rows": rows}})
    with pytest.raises(ValueError, match="Did you mean liverpool"):
        settings.protocol("liverpol")


@pytest.mark.parametrize(
    "one, other",
    [
        ({"size": 224}, {"size": 512}),
        ({"weights": "random", "pooling": "class token"}, {"weights": "random"}),
    ],
)
def test_rows_that_predictions_could_not_tell_apart_are_refused(one, other):
    row = {"tower": "timm:vit_small_patch14_dinov2.lvd142m"}
    with pytest.raises(ValueError, match="could not tell timm:vit_small"):
        made(row | one, row | other)
    assert made(row | one, row | other | {"strategy": "knn"})


def test_a_chest_tower_is_not_taken_for_the_one_of_imagenet():
    """Two libraries have a network of that name; readers see which one a row is."""
    rows = [{"tower": "torchxrayvision:resnet50"}, {"tower": "timm:resnet50"}]
    names = [figures.display_name(row.method) for row in made(*rows).rows]
    assert "torchxrayvision" in names[0] and len(set(names)) == 2


def test_every_row_of_a_protocol_is_a_method_of_its_own():
    for name in NAMES:
        methods = [row.method for row in settings.protocol(name).rows]
        assert len(set(methods)) == len(methods)


def test_a_tower_that_learnt_stage_by_stage_comes_back_from_its_bundle(tmp_path):
    """Notebook 05 loads what the recipe ``ffcl`` leaves."""
    image = encoders.image("packaged:efficientnet_lite0", weights="random", size=64)
    made = models.DualEncoder(image, encoders.text("random"), dim=8, projector=8, stages=True)
    again = models.load_bundle(models.save_bundle(tmp_path / "bundle", made))
    assert again.stages.names == made.stages.names
    assert again.state_dict().keys() == made.state_dict().keys()
