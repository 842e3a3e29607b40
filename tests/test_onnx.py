"""Protects towers in ONNX files: the features of the network that was exported, or a refusal."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from bonelib import encoders, features, models

onnx = pytest.importorskip("onnx", reason="the tests write ONNX files: pip install onnx")
pytest.importorskip("onnxruntime", reason="onnx: towers are read by onnxruntime")
PIXELS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
WIDTH = 8


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Conv2d(3, WIDTH, 4, stride=4).eval()


def expected(net, image, *, tokens=False):
    with torch.no_grad():
        found = net(image).relu()
        return found.flatten(2).transpose(1, 2) if tokens else found.mean(dim=(2, 3))


def write(path, net, *, batch="N", side=16, layout="NCHW", gives="pooled", half=False, **beside):
    """Write the network as an ONNX model, node by node; torch's exporter needs more packages."""
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    dtype = np.float16 if half else np.float32
    tensors = {"w": net.weight, "b": net.bias}
    held = [
        numpy_helper.from_array(v.detach().numpy().astype(dtype), k) for k, v in tensors.items()
    ]
    nodes, source = [], "pixels"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [source], ["turned"], perm=[0, 3, 1, 2]))
        source = "turned"
    nodes.append(helper.make_node("Conv", [source, "w", "b"], ["maps"], strides=[4, 4]))
    nodes.append(helper.make_node("Relu", ["maps"], ["bright"]))
    outputs = {"maps": {"bright": [batch, WIDTH, None, None]}}
    if gives == "tokens":
        held.append(numpy_helper.from_array(np.array([0, WIDTH, -1]), "flat"))
        nodes.append(helper.make_node("Reshape", ["bright", "flat"], ["rows"]))
        nodes.append(helper.make_node("Transpose", ["rows"], ["tokens"], perm=[0, 2, 1]))
        outputs = {"tokens": {"tokens": [batch, None, WIDTH]}}
    elif gives != "maps":
        held.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
        nodes.append(helper.make_node("ReduceMean", ["bright", "axes"], ["pooled"], keepdims=0))
        outputs = {gives: {"pooled": [batch, WIDTH]}}
        if gives == "two":
            outputs = {"two": {"pooled": [batch, WIDTH], "bright": [batch, WIDTH, None, None]}}
    shape = [batch, 3, side, side] if layout == "NCHW" else [batch, side, side, 3]
    (named,) = outputs.values()
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info("pixels", kind, shape)],
        [helper.make_tensor_value_info(name, kind, axes) for name, axes in named.items()],
        held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    if beside:
        path.with_suffix(".json").write_text(json.dumps(beside))
    return f"onnx:{path}"


def pixels(count=5, side=16):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------------- what it computes
@pytest.mark.parametrize("batch", ["N", 1, 2, 8])  # any number, or one that the file fixes
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_features_are_those_of_the_network(tmp_path, net, batch, layout):
    name = write(tmp_path / "tower.onnx", net, batch=batch, layout=layout, **PIXELS)
    tower = encoders.image(name).eval()
    assert tower.preprocessing == encoders.Preprocessing(
        16, tuple(PIXELS["mean"]), tuple(PIXELS["std"])
    )
    assert (tower.width, tower.name, tower.weights) == (WIDTH, "onnx:tower.onnx", "pretrained")
    image = pixels()
    assert torch.allclose(tower(image), expected(net, image), atol=1e-5)
    assert torch.allclose(tower(image.to(memory_format=torch.channels_last)), tower(image))
    assert torch.allclose(tower(image[:1]), tower(image)[:1], atol=1e-6)


@pytest.mark.parametrize(("how", "told"), [("class token", 0), ("token mean", None)])
def test_tokens_are_pooled_as_told(tmp_path, net, how, told):
    name = write(tmp_path / "tower.onnx", net, gives="tokens", pooling=how, **PIXELS)
    tokens = expected(net, pixels(), tokens=True)
    wanted = tokens.mean(1) if told is None else tokens[:, told]
    assert torch.allclose(encoders.image(name)(pixels()), wanted, atol=1e-5)


def test_maps_are_averaged_and_half_precision_comes_out_as_float(tmp_path, net):
    name = write(tmp_path / "maps.onnx", net, gives="maps", **PIXELS)
    assert torch.allclose(encoders.image(name)(pixels()), expected(net, pixels()), atol=1e-5)
    name = write(tmp_path / "half.onnx", net, half=True, **PIXELS)
    found = encoders.image(name)(pixels())
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected(net, pixels()), atol=5e-3)


def test_a_choice_among_outputs_is_the_one_that_is_read(tmp_path, net):
    name = write(tmp_path / "tower.onnx", net, gives="two", output="pooled", **PIXELS)
    assert torch.allclose(encoders.image(name)(pixels()), expected(net, pixels()), atol=1e-5)


def test_one_number_of_mean_and_std_stands_for_all_channels_and_size_for_an_open_side(
    tmp_path, net
):
    name = write(tmp_path / "tower.onnx", net, side="S", mean=0.5, std=[0.25], size=24)
    assert encoders.image(name).preprocessing == encoders.Preprocessing(24, (0.5,) * 3, (0.25,) * 3)
    tower = encoders.image(name, size=32)
    image = pixels(side=32)
    assert tower.preprocessing.size == 32
    assert torch.allclose(tower(image), expected(net, image), atol=1e-5)


# ---------------------------------------------------------------------- what it is part of
def test_it_is_known_by_its_content_and_a_bundle_holds_it(tmp_path, net):
    first = write(tmp_path / "tower.onnx", net, **PIXELS)
    (tmp_path / "b").mkdir()
    same = write(tmp_path / "b" / "tower.onnx", net, **PIXELS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        other = write(tmp_path / "other.onnx", nn.Conv2d(3, WIDTH, 4, stride=4), **PIXELS)
    towers = [encoders.image(name) for name in (first, same, other)]
    hashes = [encoders.weights_hash(tower) for tower in towers]
    assert hashes[0] == hashes[1] != hashes[2]
    keys = [features.key(t, h, "c", ["a"]) for t, h in zip(towers, hashes, strict=True)]
    assert keys[0] == keys[1] != keys[2]
    model = models.Classifier(towers[0], outputs=1).eval()
    folder = models.save_bundle(tmp_path / "bundle", model)
    for path in (tmp_path / "tower.onnx", tmp_path / "b" / "tower.onnx"):
        path.unlink()
    again = models.load_bundle(folder)
    with torch.no_grad():
        assert torch.equal(again(pixels()), model(pixels()))
        assert torch.equal(copy.deepcopy(again)(pixels()), model(pixels()))


def test_it_follows_the_number_of_threads(tmp_path, net, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    tower = encoders.image(write(tmp_path / "tower.onnx", net, **PIXELS))
    assert tower.trunk.session().get_session_options().intra_op_num_threads == 3


def test_a_training_is_refused_and_a_head_on_its_features_is_not(tmp_path, net):
    tower = encoders.image(write(tmp_path / "tower.onnx", net, **PIXELS))
    model = models.Classifier(tower, outputs=1).train()
    with pytest.raises(ValueError, match="is frozen: no gradient.*notebook 02"):
        model(pixels())
    assert model.eval()(pixels()).requires_grad, "its head can be trained"


# ---------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"gives": "two"}, "has several outputs: pooled .*bright.*Say which"),
        ({"gives": "two", "output": "logits"}, "has not 'logits': pooled"),
        ({"gives": "tokens"}, 'gives 16 tokens an image. Say "pooling"'),
        ({"side": "S"}, 'asked for no size. Pass the side .* "size" in the JSON'),
        ({"size": 32}, "takes .*16, 16.*asked for 32"),
        ({"layout": "NHWC", "mean": [0.5, 0.5]}, "needs the mean .*one number or 3; found"),
        ({"std": [0.0]}, "needs the std"),
        ({"mean": "imagenet"}, "needs the mean"),
        ({"crop": 0.9}, "holds crop. Expected a table of size, mean"),
    ],
)
def test_what_is_left_open_or_wrong_is_refused_with_the_key_that_says_it(
    tmp_path, net, made, message
):
    options = {k: v for k, v in made.items() if k in ("gives", "side", "layout")}
    beside = PIXELS | {k: v for k, v in made.items() if k not in options}
    with pytest.raises(ValueError, match=message):
        encoders.image(write(tmp_path / "tower.onnx", net, **options, **beside))


def test_a_file_that_is_none_or_says_nothing_of_pixels_is_refused(tmp_path, net):
    with pytest.raises(ValueError, match="needs the mean .*tower.json"):
        encoders.image(write(tmp_path / "tower.onnx", net))
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "tower.onnx").read_bytes()[:200])
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("cut", "text", "empty"):
        with pytest.raises(ValueError, match=f"{name}.onnx can't be read by onnxruntime"):
            encoders.image(f"onnx:{tmp_path / name}.onnx")
    with pytest.raises(FileNotFoundError, match="No file .*none.onnx"):
        encoders.image(f"onnx:{tmp_path}/none.onnx")
    (tmp_path / "tower.json").write_text("{mean")
    with pytest.raises(ValueError, match="tower.json is no JSON"):
        encoders.image(f"onnx:{tmp_path}/tower.onnx")
    with pytest.raises(ValueError, match="has its own weights"):
        encoders.image(f"onnx:{tmp_path}/tower.onnx", weights="random")


def test_without_onnxruntime_the_package_is_named(tmp_path, net, monkeypatch):
    import sys

    name = write(tmp_path / "tower.onnx", net, **PIXELS)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="pip install .*onnxruntime"):
        encoders.image(name)
