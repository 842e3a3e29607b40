"""Protects the way to open_clip and back, and us from what it does without a word."""

import json
import logging

import open_clip
import pytest
import torch

from bonelib import encoders, models

SENTENCES = ["cortex intact", "moth-eaten bone destruction of the left femur"]
TINY = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def pixels(count=2, size=96):
    image = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    return image.to(memory_format=torch.channels_last)


def lite0(text="packaged:minilm", **options):
    image = encoders.image("packaged:efficientnet_lite0", size=96)
    return models.DualEncoder(image, encoders.text(text), dim=32, **options).eval()


def plain(folder):
    """What anybody loads with open_clip alone; one memory layout, since rounding depends on it."""
    built, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return built.eval().to(memory_format=torch.channels_last), transform


def difference(one, other):
    return (one - other).abs().max().item()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = lite0()
    with torch.no_grad():
        model.logit_scale.fill_(3.0)
    return model, models.export_open_clip(tmp_path_factory.mktemp("exported") / "lite0", model)


@pytest.fixture(scope="module")
def small(tmp_path_factory, bert):
    """As ``exported``, of small towers: where the weights are not the point."""
    image = encoders.image("timm:test_resnet", weights="random", size=96)
    model = models.DualEncoder(image, encoders.text(f"hf:{bert}"), dim=32).eval()
    return model, models.export_open_clip(tmp_path_factory.mktemp("small") / "out", model)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """An architecture of open_clip made small, registered as its users do, and a checkpoint."""
    folder = tmp_path_factory.mktemp("architectures")
    (folder / "tiny-for-tests.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = open_clip.create_model("tiny-for-tests").eval()
    torch.save({"state_dict": model.state_dict(), "epoch": 1}, folder / "tiny.pt")
    return model, folder / "tiny.pt"


# ---------------------------------------------------------------------- out
def test_open_clip_alone_loads_the_folder_with_a_difference_of_zero(exported):
    model, folder = exported
    built, _ = plain(folder)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(SENTENCES)
    assert tokens.shape == (2, 160)
    with torch.no_grad():
        text = models.DualEncoder(model.image, model.text.encoder, dim=32).eval()
        text.load_state_dict(
            {k.replace("text.encoder.", "text."): v for k, v in model.state_dict().items()}
        )
        assert (
            difference(built.encode_image(pixels(), normalize=True), model.encode_image(pixels()))
            == 0
        )
        assert difference(built.encode_text(tokens, normalize=True), text.encode_text(tokens)) == 0
        cached = model.encode_text(model.tokenize(SENTENCES))  # padded less: equal but for rounding
        assert difference(built.encode_text(tokens, normalize=True), cached) < 1e-6
    assert built.logit_scale.item() == 3.0 and built.logit_bias is None


def test_the_folder_states_the_pixels_of_the_weights(exported):
    model, folder = exported
    built, transform = plain(folder)
    known = built.visual.preprocess_cfg  # open_clip's default would be the mean of CLIP
    assert known["mean"] == known["std"] == [0.5] * 3 and known["size"] in (96, (96, 96))
    assert list(transform.transforms[-1].mean) == list(model.image.preprocessing.mean)
    assert models.from_open_clip(f"local-dir:{folder}").image.preprocessing == (
        model.image.preprocessing
    )


def test_perceptrons_bias_and_trained_towers_go_out_and_come_back(tmp_path, bert):
    model = models.DualEncoder(
        encoders.image("timm:test_resnet", weights="random", size=96, seed=1),
        encoders.text(f"hf:{bert}", cached=False),
        dim=32,
        projection="mlp",
        bias=True,
    ).eval()
    models.add_lora(model, rank=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(
                    parameter, std=0.05, generator=torch.Generator().manual_seed(0)
                )
        folder = models.export_open_clip(tmp_path / "out", model)
        assert models.has_lora(model), "only what was written is merged"
        again = models.from_open_clip(f"local-dir:{folder}")
        tokens = again.tokenize(SENTENCES)
        assert difference(again.encode_image(pixels()), model.encode_image(pixels())) < 1e-5
        assert difference(again.encode_text(tokens), model.encode_text(tokens)) < 1e-5
    assert again.logit_bias.item() == -10 and again.logit_scale.item() == model.logit_scale.item()


def test_a_folder_that_was_moved_fails_in_open_clip_and_loads_here(small, tmp_path, monkeypatch):
    from huggingface_hub import constants

    model, folder = small
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in folder.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    config = json.loads((moved / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_model_name"] = "somebody/text-tower"
    (moved / "open_clip_config.json").write_text(json.dumps(config))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError):  # it resolves that name as written
        plain(moved)
    again = models.from_open_clip(f"local-dir:{moved}")
    with torch.no_grad():
        assert difference(again.encode_image(pixels()), model.encode_image(pixels())) == 0
    (moved / "config.json").unlink()
    with pytest.raises(encoders.WeightsNotAvailable, match="no config.json for its text tower"):
        models.from_open_clip(f"local-dir:{moved}")


def test_what_came_in_is_bundled_and_goes_out_again(small, tmp_path):
    _, folder = small
    model = models.from_open_clip(f"local-dir:{folder}")
    again = models.load_bundle(models.save_bundle(tmp_path / "bundle", model))
    third = models.from_open_clip(f"local-dir:{models.export_open_clip(tmp_path / 'out', again)}")
    tokens = model.tokenize(SENTENCES)
    with torch.no_grad():
        for other in (again, third):
            assert difference(other.encode_image(pixels()), model.encode_image(pixels())) == 0
            assert torch.equal(other.tokenize(SENTENCES), tokens)
            assert difference(other.encode_text(tokens), model.encode_text(tokens)) == 0
            assert other.image.preprocessing == model.image.preprocessing


@pytest.mark.parametrize(
    ("image", "text", "message"),
    [
        ("timm:test_resnet", "small", "open_clip can't build small"),
        ("timm:mobilenetv3_small_050", "hf", "open_clip builds .* otherwise"),
        ("timm:vit_tiny_patch16_224", "hf", "open_clip builds .* otherwise"),
        ("open_clip:tiny-for-tests", "hf", "only projection='none' exports"),
    ],
)
def test_what_open_clip_would_build_otherwise_is_refused(
    tmp_path, tiny, bert, image, text, message
):
    tower = encoders.image(image, weights="random", size=32 if "224" not in image else 96)
    model = models.DualEncoder(tower, encoders.text(f"hf:{bert}" if text == "hf" else text), dim=16)
    with pytest.raises(ValueError, match=message):
        models.export_open_clip(tmp_path / "out", model)
    assert not list(tmp_path.iterdir()), "nothing half written is left"


# ---------------------------------------------------------------------- in
def test_any_architecture_takes_a_file_and_keeps_every_tensor(tiny):
    built, file = tiny
    model = models.from_open_clip("tiny-for-tests", weights=str(file))
    own = dict(model.image.trunk.state_dict()) | dict(model.text.trunk.state_dict())
    theirs = {k.removeprefix("visual."): v for k, v in built.state_dict().items()}
    assert {k for k in own if k not in theirs} == set()
    assert all(torch.equal(own[k], theirs[k]) for k in own if k != "positional_embedding")
    tokens = open_clip.get_tokenizer("tiny-for-tests")(SENTENCES)
    assert torch.equal(model.tokenize(SENTENCES), tokens)
    with torch.no_grad():
        image = built.encode_image(pixels(size=32), normalize=True)
        assert difference(model.encode_image(pixels(size=32)), image) < 1e-6
        text = built.encode_text(tokens, normalize=True)
        assert difference(model.encode_text(tokens), text) < 1e-6
    assert model.logit_scale.item() == pytest.approx(built.logit_scale.item())


def test_single_towers_are_those_of_the_model_and_rebuild_with_its_activation(tiny, tmp_path):
    _, file = tiny
    model = models.from_open_clip("tiny-for-tests", weights=str(file))
    image = encoders.image("open_clip:tiny-for-tests", weights=str(file)).eval()
    text = encoders.text("open_clip:tiny-for-tests", weights=str(file))
    assert isinstance(text, encoders.CachedText), "pretrained, so frozen"
    assert image.weights == "tiny.pt" and image.width == text.width == 16
    joined = models.DualEncoder(image, text, dim=24).eval()
    with torch.no_grad():
        assert torch.equal(image(pixels(size=32)), model.image(pixels(size=32)))
        again = models.load_bundle(models.save_bundle(tmp_path / "b", joined))
        assert (
            difference(again.encode_image(pixels(size=32)), joined.encode_image(pixels(size=32)))
            == 0
        )
        rows = [m.encode_text(m.tokenize(SENTENCES)) for m in (again, joined)]
        assert difference(*rows) == 0
    assert encoders.image("open_clip:tiny-for-tests", weights="random", size=64).preprocessing == (
        encoders.Preprocessing(64, (0.5,) * 3, (0.5,) * 3)
    )


def test_a_file_has_the_pixels_of_the_weights_that_are_known_for_its_architecture(
    tiny, monkeypatch
):
    _, file = tiny
    clip = encoders.image("open_clip:tiny-for-tests", weights=str(file)).preprocessing
    assert clip.mean == open_clip.OPENAI_DATASET_MEAN, "open_clip's default"
    known = {"hf_hub": "x/y/", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda model: ["web"])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: known)
    siglip = encoders.image("open_clip:tiny-for-tests", weights=str(file)).preprocessing
    assert siglip.mean == siglip.std == (0.5,) * 3


def test_a_checkpoint_of_another_architecture_is_refused(tiny, tmp_path):
    _, file = tiny
    with pytest.raises(ValueError, match="does not fit open_clip's ViT-S-32-alt"):
        encoders.image("open_clip:ViT-S-32-alt", weights=str(file))
    with pytest.raises(ValueError, match="no architecture 'ViT-B-23'. Near: .*ViT-B-32"):
        encoders.image("open_clip:ViT-B-23")
    with pytest.raises(ValueError, match="no weights 'laion' of ViT-B-32.* tag: openai, laion400m"):
        encoders.image("open_clip:ViT-B-32", weights="laion")
    with pytest.raises(encoders.WeightsNotAvailable, match="no open_clip_config.json"):
        encoders.image(f"open_clip:local-dir:{tmp_path}")
    with pytest.raises(ValueError, match="no weights .* and there is no such file"):
        encoders.image("open_clip:tiny-for-tests", weights=str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))
    with pytest.raises(encoders.WeightsNotAvailable, match="holds no checkpoint file"):
        encoders.image(f"open_clip:local-dir:{tmp_path}")
    with pytest.raises(ValueError, match="has its own weights"):
        encoders.image(f"open_clip:local-dir:{tmp_path}", weights=str(file))
    torch.save(encoders.image("timm:test_resnet", weights="random").state_dict(), tmp_path / "a.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "b.pt")
    for name in ("a.pt", "b.pt"):
        with pytest.raises(ValueError, match=f"{name} does not fit open_clip's tiny-for-tests"):
            encoders.text("open_clip:tiny-for-tests", weights=str(tmp_path / name))


# ---------------------------------------------------------------------- traps that stay open_clip's
def test_its_default_pooler_for_bert_would_be_another(small):
    from open_clip.hf_model import HFTextEncoder

    model, folder = small
    config = json.loads((folder / "open_clip_config.json").read_text())
    assert config["model_cfg"]["text_cfg"]["hf_pooler_type"] == "mean_pooler"
    with torch.random.fork_rng(devices=[]):
        default = HFTextEncoder(str(folder), output_dim=32, pretrained=False).eval()
    default.transformer.load_state_dict(model.text.encoder.trunk.state_dict(), strict=False)
    tokens = model.text.encoder.tokenize(SENTENCES)
    with torch.no_grad():
        assert difference(default(tokens), model.text.encoder(tokens)) > 0.1


def test_partly_unlocking_bert_fails_there(small):
    _, folder = small
    built, _ = plain(folder)
    with pytest.raises(KeyError, match="layer_attr"):
        built.lock_text_tower(unlocked_layers=1)


def test_a_trunk_file_that_does_not_fit_passes_there_and_not_here(tmp_path, small, caplog):
    _, folder = small
    other = encoders.image("timm:test_resnet", weights="random").trunk.state_dict()
    torch.save(other, tmp_path / "other.pth")
    with caplog.at_level(logging.ERROR):
        open_clip.create_model(
            f"local-dir:{folder}", pretrained_image_path=str(tmp_path / "other.pth")
        )
    assert not caplog.records, "not even an error is logged"
    with pytest.raises(ValueError, match="other.pth does not fit"):
        encoders.image("timm:tf_efficientnet_lite0", weights=str(tmp_path / "other.pth"))


def test_cached_rows_can_enter_a_graph_that_trains():
    tower = encoders.text("packaged:minilm")
    rows = tower(tower.tokenize(SENTENCES))  # inference_mode would forbid the next line
    torch.nn.Linear(384, 4)(rows).sum().backward()
