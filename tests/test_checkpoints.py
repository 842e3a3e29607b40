"""Protects checkpoints as people have them: wrapped, nested, with plain data, with their pixels."""

import argparse
import collections
import json
import pathlib
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bonelib import encoders, models

NAME = "timm:test_resnet"


@pytest.fixture(scope="module")
def source():
    return encoders.image(NAME, weights="random", size=32, seed=5)


def under(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def loaded(path, **options):
    return encoders.image(NAME, weights=str(path), size=32, seed=6, **options)


# Lightning, DDP, torch.compile, DINO, MoCo, MONAI, SimCLR and timm write these.
PREFIXES = ["_orig_mod.", "model.", "backbone.", "encoder.", "module.", "net.", "teacher."]
PREFIXES += ["student.backbone.", "module.encoder_q.", "_orig_mod.module.model.", "visual.trunk."]
PLACES = ["state_dict", "model", "state_dict_ema", "model_state_dict", "teacher", "net", "ema"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_common_prefix_is_taken_off_and_named(tmp_path, source, prefix):
    state = source.trunk.state_dict()
    more = {"head.weight": torch.zeros(9, 4), "step": torch.tensor(3)}
    torch.save(under(prefix, state) | more, tmp_path / "net.pth")
    found = loaded(tmp_path / "net.pth")
    assert encoders.weights_hash(found) == encoders.weights_hash(source)
    assert f"under {prefix} of net.pth" in found.notes[0]


@pytest.mark.parametrize("place", PLACES)
def test_a_nested_dict_is_found_beside_plain_data(tmp_path, source, place):
    plain = {
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("runs/x"), more={"seed": 3}),
        "best": np.float64(0.91),
        "epoch": np.int64(3),
        "done": np.bool_(True),
        "history": np.arange(4.0),
        "names": np.array(["a", "b"]),
        "config": types.SimpleNamespace(depth=2),
        "counts": collections.Counter("aab"),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []},
    }
    inner = {"epoch": 3, place: under("module.", source.trunk.state_dict())}
    for content in (plain | inner, {"checkpoint": inner} | plain):
        torch.save(content, tmp_path / "c.pth")
        found = loaded(tmp_path / "c.pth")
        assert encoders.weights_hash(found) == encoders.weights_hash(source)
        assert f"[{place!r}] under module. of c.pth" in found.notes[0]


def test_two_different_fits_are_refused_by_name_and_equal_ones_are_one(tmp_path, source):
    state = source.trunk.state_dict()
    other = {k: v + 1 for k, v in state.items()}
    path = tmp_path / "dino.pth"
    torch.save({"teacher": under("backbone.", state), "student": other}, path)
    with pytest.raises(ValueError, match=r"2 sets .*\['teacher'\] under backbone. and in \['stud"):
        loaded(path)
    torch.save(under("encoder_q.", state) | under("encoder_k.", other), path)
    with pytest.raises(ValueError, match="under encoder_q. and under encoder_k."):
        loaded(path)
    torch.save({"state_dict": state, "state_dict_ema": state}, path)
    assert encoders.weights_hash(loaded(path)) == encoders.weights_hash(source)


class Config:
    """An object of somebody's code."""


def test_other_objects_beside_tensors_are_named_and_not_made(tmp_path, source):
    torch.save({"model": source.trunk.state_dict(), "cfg": Config()}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match=r"it holds a [\w.]*Config.*state_dict\(\)"):
        loaded(tmp_path / "c.pth")
    torch.save({"epoch": 3}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match="holds no named tensors"):
        loaded(tmp_path / "c.pth")
    torch.save([torch.zeros(3)], tmp_path / "c.pth")
    with pytest.raises(ValueError, match="holds no named tensors"):
        loaded(tmp_path / "c.pth")


def test_a_misfit_says_which_tensors_come_nearest(tmp_path, source):
    state = source.trunk.state_dict()
    del state["conv1.weight" if "conv1.weight" in state else next(iter(state))]
    torch.save({"net": under("backbone.", state)}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match=r"1 tensors missing.*in \['net'\] under backbone\."):
        loaded(tmp_path / "c.pth")


def test_a_file_older_than_the_counters_of_batch_norms_loads(tmp_path, source):
    state = source.trunk.state_dict()
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    torch.save(old, tmp_path / "old.pth")
    again = loaded(tmp_path / "old.pth").trunk.state_dict()
    assert all(torch.equal(again[k], v) for k, v in old.items())


# ---------------------------------------------------------------------- a repository of timm
def repository(folder, source, form):
    """What ``timm.models.push_to_hf_hub`` writes; timm before 0.9 wrote the table flat."""
    pixels = {"mean": [0.5] * 3, "std": [0.25] * 3, "input_size": [3, 64, 64]}
    known = {"architecture": "test_resnet", "num_classes": 0}
    known |= {"pretrained_cfg": pixels} if form == "nested" else pixels
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(known))
    save_file(source.trunk.state_dict(), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("form", ["nested", "flat"])
def test_config_json_beside_the_weights_gives_the_pixels(tmp_path, source, form):
    folder = repository(tmp_path / "repo", source, form)
    expected = encoders.Preprocessing(64, (0.5,) * 3, (0.25,) * 3)
    by_file = encoders.image(NAME, weights=str(folder / "model.safetensors"))
    assert by_file.preprocessing == expected and "config.json" in by_file.notes[-1]
    by_folder = encoders.image(f"hf:{folder}")
    assert by_folder.preprocessing == expected and by_folder.name == f"hf:{folder}"
    assert encoders.weights_hash(by_folder) == encoders.weights_hash(source)
    saved = models.save_bundle(tmp_path / "bundle", models.Classifier(by_folder, outputs=1).eval())
    for file in folder.iterdir():
        file.unlink()
    again = models.load_bundle(saved).image  # from the bundle alone
    assert (again.name, again.preprocessing) == (by_folder.name, expected)
    assert encoders.weights_hash(again) == encoders.weights_hash(source)


def test_config_json_of_another_network_or_without_weights_is_refused(tmp_path, source):
    folder = repository(tmp_path / "repo", source, "nested")
    with pytest.raises(ValueError, match="config.json beside .* is of timm:test_resnet"):
        encoders.image("timm:resnet18", weights=str(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(encoders.WeightsNotAvailable, match="no model.safetensors"):
        encoders.image(f"hf:{folder}")
    (folder / "config.json").write_text("{not json")
    torch.save(source.trunk.state_dict(), folder / "x.pth")
    assert encoders.image(NAME, weights=str(folder / "x.pth")).preprocessing.size == 160


def test_the_resnet_of_torchxrayvision_loads_as_its_module_names_it(tmp_path):
    # torchxrayvision 1.3 keeps torchvision's net as .model, its first layer for one channel
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        net = torchvision.models.resnet50(num_classes=18).eval()
        net.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    torch.save(under("model.", net.state_dict()), tmp_path / "chest.pth")
    name = "torchxrayvision:resnet50"
    tower = encoders.image(name, weights=str(tmp_path / "chest.pth")).eval()
    assert tower.preprocessing == encoders.Preprocessing(512, (0.5,), (0.5 / 1024,), 1)
    net.fc = torch.nn.Identity()
    image = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(tower(image), net(image), atol=1e-4)
