"""Protects the encoder ladder and ``bonelib weights``: fetched once, found again, checked."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save_file

from bonelib import encoders
from bonelib.__main__ import main
from bonelib.encoders import fetched, fetching, ladder

COMMIT = "0" * 40
TINY = "timm:test_vit.r160_in1k"  # timm's own test network, 0.4 million parameters


def pixels(side=32, channels=3):
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BONELIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def no_network(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(fetching, "reachable", lambda address: False)


@pytest.fixture
def server(monkeypatch):
    """Serve what is put into ``files`` by its path, as the hub does, and count what is read."""
    from huggingface_hub import constants

    files, read = {}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self, body=True):
            content = files.get(self.path)
            self.send_response(200 if content is not None else 404)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
                content = b""
            else:
                large = self.path.endswith((".safetensors", ".bin"))  # the hub states their sha256
                digest = hashlib.sha256(content) if large else hashlib.sha1(content)
                self.send_header("ETag", f'"{files.get("etag") or digest.hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                read.append(self.path)
                self.wfile.write(content)

        def do_HEAD(self):
            self.do_GET(body=False)

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{running.server_port}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    yield type("Server", (), {"files": files, "read": read, "address": address})
    running.shutdown()
    running.server_close()


def rung(monkeypatch, name, tower, **facts):
    """Put a rung of a small tower on the ladder."""
    own = ladder.Rung(name, name, tower, size=32, pooling="own average", licence="MIT", **facts)
    monkeypatch.setattr(ladder, "rungs", lambda: {name: own})
    return own


def tiny_file(folder, seed=3):
    tower = encoders.image("timm:test_vit", weights="random", seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tower.trunk.state_dict(), folder / "model.safetensors")
    return tower


# ---------------------------------------------------------------------- the table
def test_each_rung_names_a_tower_that_exists_with_its_own_size_and_pooling():
    import timm

    words = {"token": "own class token", "avg": "own patch mean", "map": "own attention"}
    for one in ladder.rungs().values():
        kind, _, model = one.tower.partition(":")
        assert one.size and one.licence and one.source and one.pooling, one.rung
        assert one.weights == "random" or one.megabytes, one.rung
        if kind != "timm":
            continue
        known = timm.get_pretrained_cfg(model)
        assert known.hf_hub_id == one.source and one.files == ("model.safetensors",)
        assert one.licence.lower().startswith(known.license.partition("-")[0]), one.rung
        with torch.device("meta"):
            net = timm.create_model(model, num_classes=0)
        pool = net.global_pool if isinstance(getattr(net, "global_pool", None), str) else ""
        own = words.get(pool, "own average")
        assert one.pooling == own or not one.pooling.startswith("own"), one.rung


def test_the_rungs_that_the_literature_needs_are_there():
    one = ladder.rung("dinov2_liverpool")
    assert (one.size, one.pooling, one.grey) == (518, "token mean", "0.5")
    assert one.detail == "token mean, 518 px, grey 0.5 ± 0.5"
    assert ladder.rung("dinov2_base").detail == "", "as its weights were trained"
    assert one.folder == ladder.rung("dinov2_base").folder, "the same file serves both"
    assert len(ladder.rungs()) == len(
        {(r.tower, r.weights, r.detail) for r in ladder.rungs().values()}
    )


def test_an_unknown_rung_names_the_nearest_and_a_tower_passes():
    with pytest.raises(
        ValueError, match="'resnet_50'. Did you mean resnet50 .*Choose lite0_random"
    ):
        encoders.rung("resnet_50")
    assert encoders.rung("timm:resnet18").tower == "timm:resnet18"


def test_a_rung_has_its_own_size_pooling_and_grey_and_the_caller_may_lower_the_size(monkeypatch):
    own = rung(monkeypatch, "mine", "timm:test_vit", weights="random", grey="0.4")
    assert own.build().preprocessing == encoders.Preprocessing(32, (0.4,) * 3, (0.4,) * 3)
    assert own.build(largest=16).preprocessing.size == 16
    assert own.build(largest=64).preprocessing.size == 32
    other = ladder.Rung("b", "b", "timm:test_vit", "random", 32, "token mean")
    assert other.build().pooling == "token mean" and own.build().pooling == ""


# ---------------------------------------------------------------------- pooling
@pytest.mark.parametrize("side", [32, 40])  # 40: enlarged to whole patches
@pytest.mark.parametrize("how", ["class token", "token mean", "patch mean"])
def test_pooling_is_what_it_says(how, side):
    tower = encoders.image("timm:test_vit", weights="random", size=side, pooling=how).eval()
    image = pixels(side)
    with torch.no_grad():
        grown = torch.nn.functional.interpolate(
            image, [tower.side] * 2, mode="bilinear", antialias=True
        )
        tokens = tower.trunk.forward_features(grown if tower.side != side else image)
        patches = tokens[:, tower.trunk.num_prefix_tokens :]
        expected = {"class token": tokens[:, 0], "token mean": tokens.mean(1)}
        assert torch.equal(tower(image), expected.get(how, patches.mean(1)))
    again = encoders.rebuild_image(tower.architecture())
    again.load_state_dict(tower.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(image), tower(image))


def test_pooling_is_part_of_the_architecture_only_where_it_is_chosen():
    own = encoders.image("timm:test_vit", weights="random", size=32)
    told = encoders.image("timm:test_vit", weights="random", size=32, pooling="token mean")
    assert "pooling" not in own.architecture(), "features that are stored stay valid"
    assert told.architecture() == own.architecture() | {"pooling": "token mean"}


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("timm:resnet18", "token mean", "gives no tokens: only vision transformers"),
        ("open_clip:ViT-S-32-alt", "token mean", "gives no tokens"),
        ("timm:vit_tiny_patch16_siglip", "class token", "Unknown image encoder"),
        ("timm:test_vit", "max", "Unknown pooling 'max'. Choose class token, token mean, patch"),
    ],
)
def test_a_pooling_that_cannot_be_is_refused(name, how, message):
    with pytest.raises(ValueError, match=message):
        encoders.image(name, weights="random", size=32, pooling=how)


def test_a_hugging_face_tower_pools_as_told(tmp_path):
    import transformers as tr

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = tr.Dinov2Config(**sizes, intermediate_size=64, image_size=32, patch_size=8)
    net = tr.Dinov2Model(config).eval()
    net.save_pretrained(tmp_path)
    processor(tmp_path)
    found = {
        how: encoders.image(f"hf:{tmp_path}", pooling=how).eval()(pixels())
        for how in ("", "class token", "token mean", "patch mean")
    }
    with torch.no_grad():
        hidden = net(pixel_values=pixels()).last_hidden_state
    assert hidden.shape[1] == 17 and torch.equal(found[""], found["class token"])
    assert torch.allclose(found["token mean"], hidden.mean(1), atol=1e-6)
    assert torch.allclose(found["patch mean"], hidden[:, 1:].mean(1), atol=1e-6)


# ---------------------------------------------------------------------- found where they were put
def processor(folder):
    import transformers as tr

    side = {"height": 32, "width": 32}
    options = dict(size={"shortest_edge": 32}, crop_size=side)
    tr.CLIPImageProcessor(**options, image_mean=(0.1,) * 3, image_std=(0.2,) * 3).save_pretrained(
        folder
    )


def timm_file(folder):
    return tiny_file(folder).eval()


def hub_folder(kind):
    def write(folder):
        import transformers as tr

        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        seeing = sizes | {"intermediate_size": 64, "image_size": 32, "patch_size": 8}
        if kind == "dinov2":
            net = tr.Dinov2Model(tr.Dinov2Config(**seeing))
            see = lambda x: net.eval()(pixel_values=x).pooler_output  # noqa: E731
        elif kind == "siglip":
            text = sizes | {"intermediate_size": 64, "vocab_size": 99}
            net = tr.SiglipModel(tr.SiglipConfig(vision_config=seeing, text_config=text))
            see = lambda x: net.eval().vision_model(pixel_values=x).pooler_output  # noqa: E731
        else:
            decoder = {"decoder_num_attention_heads": 2, "decoder_hidden_size": 32}
            decoder |= {"decoder_num_hidden_layers": 1, "decoder_intermediate_size": 32}
            net = tr.ViTMAEForPreTraining(tr.ViTMAEConfig(**seeing, **decoder, mask_ratio=0.0))
            order = torch.arange(16).expand(2, -1)
            see = lambda x: net.eval().vit(x, noise=order).last_hidden_state[:, 0]  # noqa: E731
        net.save_pretrained(folder)
        processor(folder)
        return see

    return write


def open_clip_folder(folder):
    import open_clip

    config = open_clip.get_model_config("ViT-S-32-alt")
    known = {"mean": [0.1] * 3, "std": [0.2] * 3}
    net = open_clip.create_model("ViT-S-32-alt", force_custom_text=True).eval()
    folder.mkdir(parents=True)
    save_file(net.state_dict(), folder / "open_clip_model.safetensors")
    text = json.dumps({"model_cfg": config, "preprocess_cfg": known})
    (folder / "open_clip_config.json").write_text(text)
    return net.visual


def chest(whole):
    def write(folder):
        import torchvision

        net = torchvision.models.densenet121(num_classes=18).eval()
        net.features.conv0 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        folder.mkdir(parents=True)
        torch.save(net if whole else net.state_dict(), folder / "densenet121.pt")
        return lambda x: net.features(x).relu().mean(dim=(2, 3))

    return write


FAMILIES = {
    "timm": (TINY, timm_file),
    "dinov2": ("hf:microsoft/rad-dino", hub_folder("dinov2")),
    "siglip": ("hf:google/medsiglip-448", hub_folder("siglip")),
    "vit-mae": ("hf:skelex", hub_folder("vit-mae")),
    "open_clip": (ladder.rungs()["biomedclip"].tower, open_clip_folder),
    "chest, pickled whole": ("torchxrayvision:densenet121", chest(True)),
    "chest, tensors": ("torchxrayvision:densenet121", chest(False)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_each_family_are_found_where_they_were_put(family, no_network):
    name, write = FAMILIES[family]
    with pytest.raises(encoders.WeightsNotAvailable):
        encoders.image(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        expected = write(fetched.folder(name))
    tower = encoders.image(name).eval()
    image = pixels(tower.preprocessing.size, tower.preprocessing.channels)
    with torch.no_grad():
        assert torch.allclose(tower(image), expected(image), atol=1e-5)
    assert tower.name == name, "the same tower wherever the cache lies"
    assert str(fetched.folder(name)) not in json.dumps(tower.architecture())


def test_a_pickled_chest_network_runs_none_of_its_code(tmp_path, cache):
    import torchvision

    net = torchvision.models.densenet121(num_classes=2)
    net.trap = Trap(tmp_path / "ran")
    (cache / "torchxrayvision-densenet121").mkdir(parents=True)
    torch.save(net, cache / "torchxrayvision-densenet121" / "densenet121.pt")
    with pytest.raises(Exception, match="weights_only|Weights only|can't be read"):
        encoders.image("torchxrayvision:densenet121")
    assert not (tmp_path / "ran").exists()


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


# ---------------------------------------------------------------------- fetched
def test_weights_are_fetched_once_checked_and_said(monkeypatch, capsys, server, cache, tmp_path):
    mine = tiny_file(tmp_path / "source")
    content = (tmp_path / "source" / "model.safetensors").read_bytes()
    server.files["/timm/mine/resolve/main/model.safetensors"] = content
    rung(monkeypatch, "mine", TINY, source="timm/mine", files=("model.safetensors",), megabytes=1)
    assert main(["weights", "mine"]) == 0
    said = capsys.readouterr().out
    digest = hashlib.sha256(content).hexdigest()
    for part in (
        "licence: MIT",
        "about 1 MB",
        "timm-test_vit.r160_in1k",
        digest,
        "its source states",
    ):
        assert part in said, said
    assert f"works: {mine.width} features" in said and "-p ENCODERS mine" in said
    here = cache / "timm-test_vit.r160_in1k"
    assert json.loads((here / "sha256.json").read_text()) == {"model.safetensors": digest}
    assert encoders.weights_hash(encoders.image(TINY, size=32)) == encoders.weights_hash(
        encoders.image("timm:test_vit", weights=str(here / "model.safetensors"), size=32)
    )
    count = len(server.read)
    assert main(["weights", "mine"]) == 0 and len(server.read) == count
    assert "as they were when they were fetched" in capsys.readouterr().out


def test_a_file_that_changed_since_it_was_fetched_is_refused(monkeypatch, server, tmp_path, cache):
    tiny_file(tmp_path / "a")
    content = (tmp_path / "a" / "model.safetensors").read_bytes()
    server.files["/timm/mine/resolve/main/model.safetensors"] = content
    own = rung(monkeypatch, "mine", TINY, source="timm/mine", files=("model.safetensors",))
    assert [*fetching.fetch(own)] and own.build()
    tiny_file(own.folder, seed=4)
    with pytest.raises(encoders.WeightsNotAvailable, match="it was .* when it was fetched"):
        own.build()
    (own.folder / "model.safetensors").unlink()
    with pytest.raises(encoders.WeightsNotAvailable, match="can't be downloaded"):
        encoders.image("timm:test_vit2.r160_in1k")
    (own.folder / "sha256.json").unlink()
    tiny_file(own.folder, seed=4)
    assert own.build(), "a file that was put there without a record is taken as it is"


def test_a_file_that_is_not_what_its_source_states_is_refused(monkeypatch, server, tmp_path):
    tiny_file(tmp_path / "a")
    content = (tmp_path / "a" / "model.safetensors").read_bytes()
    server.files["/timm/mine/resolve/main/model.safetensors"] = content
    server.files["etag"] = "f" * 64
    own = rung(monkeypatch, "mine", TINY, source="timm/mine", files=("model.safetensors",))
    with pytest.raises(ValueError, match="its source states ffffffffffff"):
        list(fetching.fetch(own))
    assert not fetched.recorded(own.folder)


def test_an_address_states_no_checksum_so_that_of_the_first_download_is_kept(
    monkeypatch, server, tmp_path
):
    chest(True)(tmp_path / "a")
    server.files["/v1/net.pt"] = (tmp_path / "a" / "densenet121.pt").read_bytes()
    tower = "torchxrayvision:densenet121"
    files = (f"densenet121.pt={server.address}/v1/net.pt",)
    own = rung(monkeypatch, "mine", tower, source="https://example.org", files=files)
    said = " ".join(fetching.fetch(own))
    assert "noted now, its source states none" in said and server.read == ["/v1/net.pt"]
    assert own.build().width == 1024
    (own.folder / "densenet121.pt").write_bytes(b"other")
    with pytest.raises(encoders.WeightsNotAvailable, match="when it was fetched"):
        list(fetching.fetch(own))


def test_a_file_that_is_not_there_or_a_source_that_refuses_says_what_to_do(monkeypatch, server):
    own = rung(monkeypatch, "mine", TINY, source="timm/mine", files=("model.safetensors",))
    with pytest.raises(encoders.WeightsNotAvailable, match="hf download timm/mine model.safe"):
        list(fetching.fetch(own))
    assert not (own.folder / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["dinov2_small", "biomedclip", "xrv_resnet", "rad_dino", "skelex"])
def test_without_a_network_each_source_says_what_to_fetch_and_where(
    name, no_network, capsys, cache
):
    assert main(["weights", name]) == 2
    said = capsys.readouterr().out
    one = ladder.rungs()[name]
    for part in (
        "licence: ",
        one.source,
        str(one.folder),
        "not available",
        one.files[0].split("=")[0],
    ):
        assert part in said, said
    assert not list(cache.rglob("*.safetensors"))


def test_the_list_names_each_rung_and_what_is_here(capsys, no_network):
    tiny_file(ladder.rungs()["resnet18"].folder)
    assert main(["weights"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(ladder.rungs()) <= set(lines)
    assert lines["lite0"].endswith("installed") and lines["resnet18"].endswith("here")
    assert lines["dinov2_base"].endswith("to be fetched")
    assert main(["weights", "dinov2"]) == 2
    assert "Did you mean dinov2_" in capsys.readouterr().err
