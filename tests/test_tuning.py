"""Protects what trains and what must not: LoRA, projections, and the pooling of studies."""

import copy
import functools
import math

import pytest
import torch
import torch.nn.functional as F

from bonelib import encoders, models

SENTENCES = ["cortex intact", "moth-eaten bone destruction", "frontal radiograph of the left hand"]


def pixels(count=4, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@functools.cache
def towers(text):
    """An image tower and a text tower, built once: tests train copies."""
    image = encoders.image("timm:test_resnet", weights="random", size=32, seed=1)
    return image, encoders.text(text, cached=False, seed=1)


def dual(text="small", **options):
    image, words = copy.deepcopy(towers(text))
    return models.DualEncoder(image, words, dim=16, **options).eval()


def step(model, *, steps=3):
    """Train a few steps on a loss that reaches every weight."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    tokens = model.tokenize([*SENTENCES, "mass"])
    for _ in range(steps):
        model.train()
        out = model(pixels(), tokens)
        logits = out["logit_scale"] * out["image_features"] @ out["text_features"].T
        loss = F.cross_entropy(logits + out.get("logit_bias", 0.0), torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


def changed(before, after):
    return sorted(k for k in before if not torch.equal(before[k], after[k]))


def kept(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def stir(model):
    """Give the low-rank changes something to say; they start at zero."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=generator)


# ---------------------------------------------------------------------- what trains
def test_statistics_and_weights_move():
    model = dual()
    before = kept(model)
    step(model)
    found = changed(before, model.state_dict())
    assert [k for k in found if "running_mean" in k] and [k for k in found if k.endswith("weight")]


# ---------------------------------------------------------------------- LoRA
TRUNKS = [
    ("packaged:efficientnet_lite0", torch.nn.Conv2d),
    ("timm:resnet18", torch.nn.Conv2d),
    ("timm:vit_tiny_patch16_224", torch.nn.Linear),
    ("open_clip:ViT-S-32-alt", torch.nn.Linear),
]


@pytest.mark.parametrize(("name", "kind"), TRUNKS)
def test_lora_starts_at_nothing_changes_the_tower_and_merges_to_the_same(name, kind):
    tower = encoders.image(name, weights="random", size=64)
    model = models.Classifier(tower, outputs=1).eval()
    with torch.no_grad():
        plain = model.image(pixels(2, 64))
        names = models.add_lora(model, rank=4)
        assert all(isinstance(tower.trunk.get_submodule(n).get_base_layer(), kind) for n in names)
        assert torch.allclose(model.image(pixels(2, 64)), plain, atol=1e-6)
        stir(model)
        adapted = model.image(pixels(2, 64))
        assert (adapted - plain).abs().max() > 1e-2 * plain.abs().max()
        assert models.merge_lora(model) == len(names) and not models.has_lora(model)
        assert torch.allclose(model.image(pixels(2, 64)), adapted, atol=1e-4)
    fresh = encoders.image(name, weights="random", size=64)
    assert model.image.state_dict().keys() == fresh.state_dict().keys(), "a plain tower again"


def test_lora_of_lite0_is_on_its_pointwise_convolutions():
    trunk = encoders.image("packaged:efficientnet_lite0", weights="random").trunk
    layers = [trunk.get_submodule(name) for name in models.lora_targets(trunk)]
    assert len(layers) == 32  # 16 to project, 15 to expand, 1 head
    assert {layer.kernel_size for layer in layers} == {(1, 1)}
    assert all(layer.groups == 1 for layer in layers)


def test_lora_never_sits_where_torchs_attention_would_pass_it_by():
    # nn.MultiheadAttention reads out_proj.weight itself: a change on that layer has no effect
    tower = encoders.image("open_clip:ViT-S-32-alt", weights="random", size=64)
    targets = models.lora_targets(tower.trunk)
    assert targets and not [name for name in targets if "attn" in name]
    model = models.Classifier(tower, outputs=1)
    models.add_lora(model)
    stir(model)
    model.image(pixels(2, 64)).square().sum().backward()
    grown = {k: p.grad for k, p in model.image.named_parameters() if "lora_" in k}
    assert grown and all(g is not None and g.abs().max() > 0 for g in grown.values())


# One small net of each way of building layers, with what LoRA can take of it (timm 1.0.31). Where
# a number is given: layers that are left out since attention reads their weights itself.
FAMILIES = {
    "timm:test_resnet": (32, 0),
    "timm:test_vit2": (32, 0),
    "timm:test_vit3": (32, 0),
    "timm:test_byobnet": (32, 0),
    "timm:test_convnext": (64, 0),
    "timm:test_efficientnet_ln": (32, 0),
    "timm:mobilenetv3_small_050": (64, 0),
    "timm:mobilenetv4_conv_small_035": (64, 0),
    "timm:regnetx_002": (64, 0),
    "timm:efficientvit_b0": (64, 0),
    "timm:efficientvit_m0": (224, 0),
    "timm:inception_next_atto": (64, 0),
    "timm:edgenext_xx_small": (64, 0),
    "timm:mobilevit_xxs": (64, 0),
    "timm:fastvit_t8": (64, 0),
    "timm:repvit_m0_9": (64, 0),
    "timm:poolformerv2_s12": (64, 0),
    "timm:pvt_v2_b0": (64, 0),
    "timm:tf_efficientnet_b0": (64, 0),
    "timm:eva02_tiny_patch14_224": (56, 12),
    "timm:test_nfnet": (32, None),
    "timm:nf_resnet26": (32, None),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_adapter_of_every_family_is_used_and_merges(name):
    size, aside = FAMILIES[name]
    tower = encoders.image(name, weights="random", size=size, seed=1)
    model = models.Classifier(tower, outputs=1).eval()
    if aside is None:  # weight-standardised: merging would change the features
        with pytest.raises(ValueError, match="can take LoRA.*merging it would change"):
            models.add_lora(model)
        assert not models.has_lora(model)
        return
    with torch.no_grad():
        for parameter in tower.parameters():  # gains that start at zero
            if not parameter.any() or parameter.abs().max() < 1e-3:
                torch.nn.init.normal_(parameter, std=0.2)
    names = models.add_lora(model, rank=2)
    stir(model)
    adapted = model.image(pixels(2, size))
    adapted.square().sum().backward()
    dead = [k for k, p in tower.named_parameters() if "lora_" in k and not p.grad.any()]
    assert len(names) > 5 and not dead
    with torch.no_grad():
        models.merge_lora(model)
        merged = model.image(pixels(2, size))
    assert (merged - adapted).abs().max() <= 1e-3 * adapted.abs().max()
    assert len(tower.notes) == bool(aside)
    if aside:
        assert f"LoRA is not on {aside} layers" in tower.notes[0]


@pytest.mark.parametrize("kind", ["standardised", "read past", "aside", "fine"])
def test_a_layer_is_judged_by_what_it_does_and_not_by_its_class(kind):
    class Odd(torch.nn.Linear):
        def forward(self, x):
            weight = self.weight - self.weight.mean(dim=1, keepdim=True)
            return F.linear(x, weight / self.weight.std(), self.bias)

    class Trunk(torch.nn.Module):
        head_hidden_size = 8

        def __init__(self):
            super().__init__()
            self.enter = torch.nn.Linear(3, 8)
            self.odd = (Odd if kind == "standardised" else torch.nn.Linear)(8, 8)

        def forward(self, image):
            x = self.enter(image.mean(dim=(2, 3))).tanh()
            if kind == "read past":
                return F.linear(x, self.odd.weight, self.odd.bias)
            return x + 0 * self.odd(x).detach() if kind == "aside" else self.odd(x)

    pixels_of = encoders.Preprocessing(8, (0.5,) * 3, (0.5,) * 3)
    tower = encoders.ImageEncoder("own", Trunk(), pixels_of, "random")
    names = models.add_lora(models.Classifier(tower, outputs=1), rank=2)
    assert names == (["enter", "odd"] if kind == "fine" else ["enter"])
    said = {"standardised": "merging", "read past": "never calls", "aside": "no gradient"}
    assert kind == "fine" and not tower.notes or said[kind] in tower.notes[0]


def test_a_resnet_of_open_clip_has_lora_on_its_convolutions():
    # its pooling gives the weights of its linear layers to torch's attention
    tower = encoders.image("open_clip:RN50", weights="random", size=64)
    names = models.add_lora(models.Classifier(tower, outputs=1), rank=2)
    assert len(names) == 36 and not [name for name in names if "attnpool" in name]
    assert "4 layers of open_clip:RN50 (first attnpool" in tower.notes[0]


def test_only_low_rank_changes_train_and_the_bundle_holds_them_merged(tmp_path):
    model = dual()
    before, plain = kept(model), model.image(pixels()).detach()
    models.add_lora(model, rank=4)
    trunk = list(model.image.named_parameters())
    assert all(p.requires_grad is ("lora_" in name) for name, p in trunk)
    step(model)
    after = model.state_dict()
    assert [k for k in after if "lora_" in k]
    for name, parameter in trunk:
        if "lora_" not in name:
            name = f"image.{name}"
            assert torch.equal(parameter, before[name.replace(".base_layer", "")]), name
    with torch.no_grad():
        expected = model.encode_image(pixels())
        again = models.load_bundle(models.save_bundle(tmp_path / "b", model))
        assert models.has_lora(model) and not models.has_lora(again)
        assert torch.allclose(again.encode_image(pixels()), expected, atol=1e-5)
        merged = again.image(pixels())
    assert (merged - plain).abs().max() > 0.01 * plain.abs().max(), "it has learned"


def test_lora_is_added_once():
    model = dual()
    models.add_lora(model)
    with pytest.raises(ValueError, match="has LoRA already. Call merge_lora first"):
        models.add_lora(model)


# ---------------------------------------------------------------------- scale, bias, projections
def test_siglip_starts_at_ten_and_minus_ten_and_its_bias_trains():
    model = dual(bias=True)
    out = model(pixels(3), model.tokenize(SENTENCES))
    assert out["logit_scale"].item() == pytest.approx(10)
    assert out["logit_bias"].item() == -10
    out["logit_bias"].backward()
    assert model.logit_bias.grad.item() == 1
    assert "logit_bias" not in dual()(pixels(3), model.tokenize(SENTENCES))


@pytest.mark.parametrize("projection", ["linear", "mlp"])
def test_projections_have_the_shapes_of_open_clip_and_survive_a_bundle(tmp_path, projection):
    model = dual(projection=projection, bias=True)
    shapes = [tuple(p.shape) for p in model.image_projection.parameters()]
    width = model.image.width
    expected = {"linear": [(16, width)], "mlp": [(32, width), (32,), (16, 32)]}
    assert shapes == expected[projection]
    with torch.no_grad():
        model.logit_bias.fill_(-3.0)
        again = models.load_bundle(models.save_bundle(tmp_path / "b", model))
        assert torch.equal(again.encode_image(pixels()), model.encode_image(pixels()))
        tokens = model.tokenize(SENTENCES)
        assert torch.equal(again.encode_text(tokens), model.encode_text(tokens))
    assert again.logit_bias.item() == -3


def test_a_projection_that_can_not_be_is_refused():
    with pytest.raises(ValueError, match="Unknown projection 'deep'. Choose linear, mlp, none"):
        dual(projection="deep")
    with pytest.raises(ValueError, match="both towers must give dim=16 features"):
        dual(projection="none")


# ---------------------------------------------------------------------- studies
STUDY = torch.tensor([1, 0, 1, 2, 1])


def rows(count=5, width=7):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(3))


def test_a_study_is_the_plain_mean_of_its_images_in_any_order():
    features = rows()
    found = models.pool_studies(features, STUDY)
    expected = torch.stack([features[STUDY == s].mean(dim=0) for s in range(3)])
    assert torch.allclose(found, expected, atol=1e-6)
    for seed in range(5):
        order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
        again = models.pool_studies(features[order], STUDY[order])
        assert torch.allclose(again, found, atol=1e-6)


def test_studies_reach_the_dual_encoder_as_one_row_each():
    model, study = dual(), torch.tensor([0, 1, 1, 2])
    out = model(pixels(), model.tokenize(SENTENCES), study=study)
    assert out["image_features"].shape == out["text_features"].shape == (3, 16)
    assert torch.allclose(out["image_features"].norm(dim=1), torch.ones(3), atol=1e-6)
    alone = model(pixels(), None, study=torch.arange(4))["image_features"]
    assert torch.allclose(alone, model.encode_image(pixels()), atol=1e-6)


def test_a_study_without_images_is_refused():
    with pytest.raises(ValueError, match="1 of 4 studies have no image, e.g. .1."):
        models.pool_studies(rows(), torch.tensor([0, 2, 2, 3, 0]))


# ---------------------------------------------------------------------- heads for controls
def test_the_supervised_control_has_one_undecided_head_an_attribute(tmp_path):
    model = models.MultiHead(dual().image, classes=[2, 5, 3]).eval()
    out = model(pixels())
    assert [tuple(logits.shape) for logits in out] == [(4, 2), (4, 5), (4, 3)]
    losses = [F.cross_entropy(logits, torch.zeros(4, dtype=torch.long)).item() for logits in out]
    assert losses == pytest.approx([math.log(2), math.log(5), math.log(3)])
    torch.nn.init.normal_(model.heads[1].weight, generator=torch.Generator().manual_seed(0))
    again = models.load_bundle(models.save_bundle(tmp_path / "b", model))
    assert all(torch.equal(a, b) for a, b in zip(again(pixels()), model(pixels()), strict=True))
    same = models.tower("timm:test_resnet", size=32, bundle=tmp_path / "b")
    assert encoders.weights_hash(same) == encoders.weights_hash(model.image)


def test_heads_beside_the_captions_start_undecided_change_nothing_else_and_are_kept(tmp_path):
    plain = dual().eval()
    given = dict(dim=plain.dim, heads=[2, 5])
    model = models.DualEncoder(plain.image, plain.text, **given).eval()
    out, without = model(pixels(), None), plain(pixels(), None)
    assert [tuple(out[f"attribute_{k}"].shape) for k in range(2)] == [(4, 2), (4, 5)]
    assert not out["attribute_1"].any(), "heads start at zero"
    assert torch.equal(out["pooled"], without["pooled"])
    torch.nn.init.normal_(model.heads[1].weight, generator=torch.Generator().manual_seed(0))
    again = models.load_bundle(models.save_bundle(tmp_path / "b", model))
    for name, value in model(pixels(), None).items():
        assert torch.equal(again(pixels(), None)[name], value), name


def test_the_simclr_projector_gives_unit_rows_of_both_views_and_is_kept(tmp_path):
    plain = dual()
    model = models.DualEncoder(plain.image, plain.text, dim=plain.dim, projector=24).eval()
    first, second = pixels(), pixels().flip(3)
    out = model(first, None, second=second)
    for name in ("view_features", "second_features"):
        assert out[name].shape == (4, 24)
        assert torch.allclose(out[name].norm(dim=1), torch.ones(4), atol=1e-6)
    assert "text_features" not in out
    one, other = model(first, None), model(second, None)
    assert torch.allclose(out["image_features"], one["image_features"], atol=1e-6)
    expected = F.normalize(model.projector(other["pooled"]), dim=-1)
    assert torch.allclose(out["second_features"], expected, atol=1e-6)
    models.save_bundle(tmp_path / "b", model)
    again = models.load_bundle(tmp_path / "b")(first, None, second=second)
    assert torch.equal(again["view_features"], out["view_features"])


def test_random_texts_tell_equal_sentences_and_no_more():
    text = encoders.text("random")
    a, b, c = text(text.tokenize(["a knee", "the knee", "a knee"]))
    assert torch.equal(a, c) and abs(F.cosine_similarity(a, b, dim=0)) < 0.2
    again = encoders.rebuild_text(text.architecture(), None)
    assert torch.equal(again(again.tokenize(["a knee"]))[0], a)
    drawn = text(text.tokenize([f"sentence {k}" for k in range(200)]))
    assert drawn.mean().abs() < 0.02 and abs(drawn.std() - 1) < 0.02
    assert not text.truncated(["a very long sentence"]).any()


# ---------------------------------------------------------------------- start of the projection
class Sentences(torch.nn.Module):
    """Embeddings in which the wording weighs more than the meaning, and all share a direction."""

    width, weights = 48, "pretrained"

    def __init__(self, meanings, wordings, loud=1.0):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        said = torch.randn(meanings, 1, 48, generator=draw) * 0.3
        how = torch.randn(1, wordings, 48, generator=draw) * loud
        common = torch.full((1, 1, 48), 2.0)
        self.table = (said + how + common + torch.randn(1, 1, 48, generator=draw)).flatten(0, 1)

    def forward(self, tokens):
        return self.table[tokens[:, 0]]


def cosines(model, tokens, keys):
    unit = model.encode_text(tokens).detach()
    same = (keys[:, None] == keys[None]).all(dim=-1)
    other = ~torch.eye(len(keys), dtype=torch.bool)
    return (unit @ unit.T)[same & other], (unit @ unit.T)[~same]


def spoken(meanings=6, wordings=4, **options):
    words = Sentences(meanings, wordings, **options)
    model = models.DualEncoder(
        encoders.image("timm:test_resnet", weights="random", size=32), words, dim=16
    )
    tokens = torch.arange(meanings * wordings)[:, None]
    return model, tokens, tokens // wordings


def test_wordings_of_one_meaning_meet_and_meanings_part():
    model, tokens, keys = spoken()
    same, other = cosines(model, tokens, keys)
    assert other.max() > same.min(), "another meaning is closer than another wording"
    size = model.text_projection.weight.norm()
    models.tell_apart(model, tokens.repeat(3, 1), keys.repeat(3, 1), floor=0.001)
    same, other = cosines(model, tokens, keys)
    assert same.min() > 0.95 and other.max() < 0.5
    assert torch.isclose(model.text_projection.weight.norm(), size), "rates fit as before"
    closer, *_ = spoken()
    models.tell_apart(closer, tokens, keys, floor=1.0)
    assert cosines(closer, tokens, keys)[1].mean() > other.mean(), "a higher floor parts less"
    assert model.text_projection.weight.requires_grad


def test_one_wording_a_meaning_is_parted_too_and_nothing_to_part_is_refused():
    model, tokens, keys = spoken(wordings=1)
    before = (lambda unit: unit @ unit.T)(model.encode_text(tokens).detach())
    models.tell_apart(model, tokens, keys, floor=0.001)
    after = (lambda unit: unit @ unit.T)(model.encode_text(tokens).detach())
    off = ~torch.eye(len(keys), dtype=torch.bool)
    assert torch.isfinite(after).all() and after[off].max() < before[off].min()
    with pytest.raises(ValueError, match="All captions mean the same"):
        models.tell_apart(model, tokens, torch.zeros_like(keys))
    deep = dual(projection="mlp")
    with pytest.raises(ValueError, match="Only a linear text projection"):
        models.tell_apart(deep, deep.tokenize(SENTENCES), torch.arange(3)[:, None])


def test_minilm_hears_the_wording_before_the_grade_and_the_start_turns_that_around():
    image = encoders.image("timm:test_resnet", weights="random", size=32)
    model = models.DualEncoder(image, encoders.text("packaged:minilm"), dim=64)
    forms = (
        "Frontal radiograph of the knee.",
        "Frontal view of the knee.",
        "Frontal x-ray of a knee.",
    )
    said = [f"{form} Kellgren-Lawrence grade {grade}." for grade in range(5) for form in forms]
    tokens, keys = model.tokenize(said), torch.arange(5).repeat_interleave(3)[:, None]
    form = torch.arange(3).repeat(5)
    unit = torch.nn.functional.normalize(model.text(tokens), dim=1).detach()
    grades = keys == keys.T
    alike = form[:, None] == form[None]
    assert (unit @ unit.T)[alike & ~grades].mean() > (unit @ unit.T)[grades & ~alike].mean()
    models.tell_apart(model, tokens, keys, floor=0.001)
    unit = model.encode_text(tokens).detach()
    assert (unit @ unit.T)[alike & ~grades].max() < (unit @ unit.T)[grades & ~alike].min()
