"""Protects models on disk: what a bundle gives back is what was put in, or a refusal."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bonelib import encoders, losses, models

SENTENCES = ["cortex intact", "moth-eaten bone destruction", "frontal radiograph of the left hand"]


def tower(seed=1, size=32, name="timm:test_resnet"):
    """A random tower whose batch norms have seen something."""
    image = encoders.image(name, weights="random", size=size, seed=seed)
    image.train()
    with torch.no_grad():
        image(pixels(4, size))
    return image.eval()


def pixels(count=3, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


class Words(torch.nn.Module):
    """A text tower of one embedding, where the text is not the point."""

    width, weights = 8, "random"

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.table = torch.nn.Embedding(8, 8)

    def tokenize(self, sentences):
        return torch.tensor([[len(sentence) % 8] for sentence in sentences])

    def forward(self, tokens):
        return self.table(tokens[:, 0])


def dual(text=None, cached=None, weights="pretrained", **options):
    words = encoders.text(text, cached=cached, weights=weights) if text else Words()
    return models.DualEncoder(tower(), words, dim=16, **options).eval()


def features(model):
    with torch.no_grad():
        return model.encode_image(pixels()), model.encode_text(model.tokenize(SENTENCES))


# ---------------------------------------------------------------------- the dual encoder
def test_both_towers_give_unit_rows_of_one_dimension():
    for rows in features(dual()):
        assert rows.shape == (3, 16)
        assert torch.allclose(rows.norm(dim=1), torch.ones(3), atol=1e-6)


def test_the_scale_starts_as_in_clip_and_never_exceeds_100():
    model = dual()
    tokens = model.tokenize(SENTENCES)
    assert model(pixels(), tokens)["logit_scale"].item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    out = model(pixels(), tokens)
    assert out["logit_scale"].item() == pytest.approx(100)
    assert model.logit_scale.exp().item() == pytest.approx(100), "the parameter itself is held"
    # Swapped pairs ask for a smaller scale: the way back must be open.
    losses.contrastive_loss(
        out["image_features"], out["image_features"].roll(1, 0), logit_scale=out["logit_scale"]
    ).backward()
    assert model.logit_scale.grad.item() > 0


def test_projections_follow_the_seed_and_leave_the_callers_random_numbers():
    state = torch.get_rng_state()
    one, same, other = (dual(seed=s).image_projection.weight for s in (0, 0, 1))
    models.Classifier(tower(), outputs=3)
    assert (torch.get_rng_state() == state).all()
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize(("outputs", "start"), [(1, math.log(2)), (3, math.log(3))])
def test_a_classifier_starts_undecided(outputs, start):
    model = models.Classifier(tower(), outputs=outputs)
    batch = {"image": pixels(), "label": torch.tensor([0, 1, outputs - 1])}
    assert model(batch["image"]).shape == (3, outputs)
    assert losses.classification_objective()(model, batch).item() == pytest.approx(start)


# ---------------------------------------------------------------------- bundles
@pytest.mark.parametrize(
    ("text", "cached", "weights"),
    [
        ("small", None, "pretrained"),
        ("small", True, "pretrained"),
        ("packaged:minilm", None, "pretrained"),
        ("packaged:minilm", None, "random"),
        ("packaged:minilm", True, "random"),  # a control: the language means nothing
    ],
)
def test_a_reloaded_dual_encoder_differs_by_exactly_nothing(tmp_path, text, cached, weights):
    model = dual(text, cached, weights)
    with torch.no_grad():
        model.logit_scale.fill_(3.0)
    before = features(model)
    models.save_bundle(tmp_path / "bundle", model, caption_fields=("view",))
    again = models.load_bundle(tmp_path / "bundle")
    for old, new in zip(before, features(again), strict=True):
        assert (old - new).abs().max().item() == 0.0
    assert again.logit_scale.item() == 3.0 and not again.training
    assert again.image.preprocessing == model.image.preprocessing


def test_an_image_tower_is_read_alone_as_it_is_in_its_bundle(tmp_path, monkeypatch):
    whole = dual("packaged:minilm", weights="random")
    plain = models.Classifier(tower(), outputs=1)
    for name, model in (("dual", whole), ("classifier", plain)):
        folder = models.save_bundle(tmp_path / name, model)
        same = encoders.weights_hash(models.load_bundle(folder).image)
        with monkeypatch.context() as patch:
            patch.setattr(encoders, "rebuild_text", None)  # it is not asked for
            alone = models.load_image_tower(folder)
        assert encoders.weights_hash(alone) == same and alone.weights == "bundle"
        assert not alone.training and alone.preprocessing == model.image.preprocessing
    (folder / "weights.safetensors").write_bytes(b"0")
    with pytest.raises(ValueError, match="changed or damaged"):
        models.load_image_tower(folder)


@pytest.mark.parametrize("name", ["timm:test_resnet", "timm:vit_tiny_patch16_224"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_reloaded_classifier_differs_by_exactly_nothing(tmp_path, name, outputs):
    model = models.Classifier(tower(name=name), outputs=outputs).eval()
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    models.save_bundle(tmp_path / "bundle", model)
    again = models.load_bundle(tmp_path / "bundle")
    with torch.no_grad():
        assert (model(pixels()) - again(pixels())).abs().max().item() == 0.0
    assert encoders.weights_hash(again) == encoders.weights_hash(model)
    assert again.image.weights == "bundle", "no longer the random start it was rebuilt from"


def test_a_frozen_packaged_text_tower_is_named_and_not_copied(tmp_path):
    model = dual("packaged:minilm")
    folder = models.save_bundle(tmp_path / "bundle", model)
    stored = load_file(folder / "weights.safetensors")
    assert not [k for k in stored if k.startswith("text.")]
    record = json.loads((folder / "bundle.json").read_text())
    assert record["architecture"]["text"]["hash"] == encoders.weights_hash(model.text.encoder)
    record["architecture"]["text"]["hash"] = "0" * 16
    (folder / "bundle.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="other weights of packaged:minilm"):
        models.load_bundle(folder)


def test_the_bundle_says_what_a_reader_should_know(tmp_path):
    model = models.Classifier(tower(), outputs=1)
    folder = models.save_bundle(
        tmp_path / "b", model, caption_fields=("view", "site"), test="fold0"
    )
    record = json.loads((folder / "bundle.json").read_text())
    assert record["facts"] == {"caption_fields": ["view", "site"], "test": "fold0"}
    assert record["architecture"]["image"]["preprocessing"]["size"] == 32
    assert sorted(p.name for p in folder.iterdir()) == ["bundle.json", "weights.safetensors"]


@pytest.fixture
def bundle(tmp_path):
    return models.save_bundle(tmp_path / "bundle", models.Classifier(tower(), outputs=1))


def test_damaged_weights_are_refused(bundle):
    weights = bundle / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match="sha256 .*changed or damaged"):
        models.load_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outputs": 3}, "of another shape .first head"),
        ({"image": {"name": "timm:resnet18"}}, "tensors missing"),
        ({"image": {"name": "timm:vit_tiny_patch16_224"}}, "missing.*unexpected"),
    ],
)
def test_another_architecture_is_refused(bundle, change, message):
    record = json.loads((bundle / "bundle.json").read_text())
    architecture = record["architecture"]
    if "image" in change:
        architecture["image"] |= change["image"]
    else:
        architecture |= change
    (bundle / "bundle.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=f"does not fit its architecture.*{message}"):
        models.load_bundle(bundle)


def test_a_lost_tensor_is_refused(bundle):
    import hashlib

    state = load_file(bundle / "weights.safetensors")
    del state["head.bias"]
    save_file(state, bundle / "weights.safetensors")
    record = json.loads((bundle / "bundle.json").read_text())
    record["sha256"] = hashlib.sha256((bundle / "weights.safetensors").read_bytes()).hexdigest()
    (bundle / "bundle.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="1 tensors missing .first head.bias"):
        models.load_bundle(bundle)


def test_what_is_no_bundle_is_said_to_be_none(tmp_path, bundle):
    with pytest.raises(FileNotFoundError, match="bundle.json is missing"):
        models.load_bundle(tmp_path)
    (bundle / "weights.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="weights.safetensors is missing"):
        models.load_bundle(bundle)


def test_a_bundle_appears_whole_or_not_at_all(tmp_path, bundle, monkeypatch):
    before = (bundle / "weights.safetensors").read_bytes()

    def fail(state, path):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        models.save_bundle(bundle, models.Classifier(tower(seed=2), outputs=1))
    assert (bundle / "weights.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"], "no temporary folder is left"


def test_a_bundle_is_replaced_by_the_next(bundle):
    other = models.Classifier(tower(seed=2), outputs=1)
    models.save_bundle(bundle, other)
    assert encoders.weights_hash(models.load_bundle(bundle)) == encoders.weights_hash(other)
