"""Protects the feature store: computed once, found again only for the same weights and pixels."""

import io
import os
import subprocess
import sys
import zlib
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

from bonelib import encoders, features

IDS = [f"i{n}" for n in range(10)]


class Tower(nn.Module):
    """Twelve features, with a dropout and a batch norm whose mode would show, and a counter."""

    def __init__(self, mean=0.5, name="own"):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1)
        )
        self.name = name
        self.preprocessing = encoders.Preprocessing(16, (mean,) * 3, (0.5,) * 3)
        self.calls = 0

    def forward(self, image):
        self.calls += 1
        return self.trunk(image).flatten(1)

    def architecture(self):
        return {"name": self.name, "preprocessing": vars(self.preprocessing)}


@dataclass
class Loader:
    image_ids: list = field(default_factory=lambda: list(IDS))
    mean: tuple = (0.5,) * 3
    std: tuple = (0.5,) * 3
    shuffle: bool = False
    drop_last: bool = False
    augment: dict | None = None

    def __iter__(self):
        for start in range(0, len(self.image_ids), 4):
            chosen = [IDS.index(i) for i in self.image_ids[start : start + 4]]
            yield {"image": pixels()[chosen]}


def pixels():
    return torch.rand(len(IDS), 3, 16, 16, generator=torch.Generator().manual_seed(1))


def stored(tower, folder, loader=None, weights=None, content="cache"):
    return features.image_features(
        tower,
        loader or Loader(),
        folder=folder,
        weights=weights or encoders.weights_hash(tower),
        content=content,
    )


def test_features_equal_a_direct_forward_in_the_order_of_the_loader(tmp_path):
    tower = Tower()
    order = IDS[::-1]
    found = stored(tower, tmp_path, Loader(image_ids=order))
    with torch.no_grad():
        direct = tower.eval()(pixels().flip(0)).numpy()
    assert found.shape == (10, 12) and found.dtype == np.float32
    assert np.allclose(found, direct, atol=1e-6)


def test_the_second_call_reads_the_same_bits_without_running_the_tower(tmp_path):
    tower = Tower()
    first = stored(tower, tmp_path)
    calls = tower.calls
    assert (stored(tower, tmp_path) == first).all() and tower.calls == calls > 0
    assert [p.suffix for p in tmp_path.iterdir()] == [".npy"]


def test_another_weight_preprocessing_content_order_or_network_is_another_file(tmp_path):
    stored(Tower(), tmp_path)
    changed = Tower()
    with torch.no_grad():
        changed.trunk[1].running_mean[3] += 1e-3  # a buffer, not a parameter
    stored(changed, tmp_path)
    stored(Tower(mean=0.4), tmp_path, Loader(mean=(0.4,) * 3))
    stored(Tower(), tmp_path, content="another cache")
    stored(Tower(), tmp_path, Loader(image_ids=IDS[::-1]))
    stored(Tower(), tmp_path, Loader(image_ids=IDS[:9]))
    stored(Tower(name="same tensors, another network"), tmp_path)
    assert len(list(tmp_path.iterdir())) == 7


def test_the_tower_keeps_its_modes_even_when_the_pass_fails(tmp_path):
    tower = Tower().train()
    tower.trunk[1].eval()  # a batch norm frozen by hand
    modes = [m.training for m in tower.modules()]
    before = tower.trunk[1].running_mean.clone()
    stored(tower, tmp_path)
    assert [m.training for m in tower.modules()] == modes
    assert (tower.trunk[1].running_mean == before).all()

    class Broken(Loader):
        def __iter__(self):
            yield from list(super().__iter__())[:1]
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        stored(tower, tmp_path, Broken(), content="new")
    assert [m.training for m in tower.modules()] == modes
    assert len(list(tmp_path.iterdir())) == 1, "a pass that failed leaves no file"


def test_a_pass_records_no_gradient_and_takes_any_function():
    seen = []

    def means(image):
        seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        return image.mean(dim=(2, 3)).double()

    found = features.encode(means, Loader())
    assert set(seen) == {(False, False)} and found.dtype == np.float32
    assert np.allclose(found, pixels().mean(dim=(2, 3)), atol=1e-6)


@pytest.mark.parametrize(
    "fault",
    [
        {"shuffle": True},
        {"drop_last": True},
        {"augment": {}},
        {"mean": (0.4,) * 3},
        {"std": (1,) * 3},
    ],
)
def test_a_loader_that_would_store_the_wrong_features_is_refused(tmp_path, fault):
    with pytest.raises(ValueError, match=f"{next(iter(fault))}.*images.loader"):
        stored(Tower(), tmp_path, Loader(**fault))
    assert not list(tmp_path.iterdir())


def test_it_reads_a_loader_of_this_project(tmp_path):
    import pandas as pd
    from PIL import Image

    from bonelib import images

    rng = np.random.default_rng(0)
    for name in IDS:
        Image.fromarray(rng.integers(0, 256, (20, 16), np.uint8)).save(tmp_path / f"{name}.png")
    table = pd.DataFrame({"image_id": IDS, "path": [str(tmp_path / f"{n}.png") for n in IDS]})
    cache = images.cache(table, size=16, folder=tmp_path / "cache")
    tower = Tower()
    loader = images.loader(cache, IDS, batch_size=4, **tower.preprocessing.pixels())
    found = stored(tower, tmp_path / "features", loader, content=cache.key)
    one = images.loader(cache, IDS[7:8], batch_size=1, **tower.preprocessing.pixels())
    assert np.allclose(features.encode(tower.eval(), one), found[7:8], atol=1e-6)


def test_a_damaged_file_of_features_is_made_anew(tmp_path):
    tower = Tower()
    first = stored(tower, tmp_path)
    (path,) = tmp_path.iterdir()
    sound = path.read_bytes()
    flipped = bytearray(sound)
    flipped[200] ^= 1
    for content in (sound[:300], b"", bytes(flipped), sound[:-4], b"\x93NUMPY"):
        path.write_bytes(content)
        calls = tower.calls
        with pytest.warns(UserWarning, match=f"{path.name} is cut off or damaged"):
            assert (stored(tower, tmp_path) == first).all() and tower.calls > calls
        assert path.read_bytes() == sound
    assert (np.load(path) == first).all(), "any reader of npy reads it"


def test_features_that_cannot_be_kept_serve_nevertheless(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(UserWarning, match=r"can't be kept in .*Not a directory"):
        found = stored(Tower(), tmp_path / "file" / "features")
    assert found.shape == (10, 12)


# Features of 30,000 images, 1,024 each: 123 MB. A batch of 64 has 0.3 MB.
MEASURED = """
import sys
from pathlib import Path
import numpy as np, torch
from bonelib import encoders, features

class Tower(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = torch.nn.Conv2d(1, 1024, 4)
        self.preprocessing = encoders.Preprocessing(4, (0.5,), (0.5,), 1)
    def forward(self, image):
        return self.trunk(image).flatten(1)
    def architecture(self):
        return {}

class Loader:
    def __init__(self, count):
        self.image_ids = [str(i) for i in range(count)]
    def __iter__(self):
        for start in range(0, len(self.image_ids), 64):
            size = min(64, len(self.image_ids) - start)
            yield {"image": torch.rand(size, 1, 4, 4)}

def most():  # not ru_maxrss, which a process inherits of the one that starts it
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

def forget():  # the most so far becomes what is in use now
    Path("/proc/self/clear_refs").write_text("5")
    return most()

tower = Tower()
store = dict(folder=Path(sys.argv[1]), weights="w", content="c")
features.image_features(tower, Loader(256), **store)
for _ in ("computed", "read"):
    before = forget()
    found = features.image_features(tower, Loader(30000), **store)
    print((most() - before) / found.nbytes)
    del found
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="Linux tells the most")
def test_features_lie_in_memory_once_while_they_are_computed_kept_and_read(tmp_path):
    # An allocator that is told to keep what it frees would take the second array from the first.
    usual = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    asked = dict(capture_output=True, text=True, check=True, env=usual)
    done = subprocess.run([sys.executable, "-c", MEASURED, str(tmp_path)], **asked)
    computed, read = map(float, done.stdout.split())
    assert 0.9 < computed < 1.25 and 0.9 < read < 1.25


def test_a_loader_that_gives_another_number_of_images_than_it_names_is_refused(tmp_path):
    for named in (IDS[:9], [*IDS, "i0"]):
        loader = Loader()
        given = Loader(image_ids=named)
        given.__class__ = type("Odd", (Loader,), {"__iter__": lambda self, own=loader: iter(own)})
        with pytest.raises(ValueError, match=f"gave 10 images, not the {len(named)}"):
            stored(Tower(), tmp_path, given)
    assert not list(tmp_path.iterdir())


def test_a_file_is_what_numpy_writes_and_its_checksum(tmp_path):
    found = stored(Tower(), tmp_path)
    (path,) = tmp_path.iterdir()
    stream = io.BytesIO()
    np.save(stream, found)
    plain = stream.getvalue()
    assert path.read_bytes() == plain + zlib.crc32(plain).to_bytes(4)


# ---------------------------------------------------------------------- folded batch norms
def drawn(name, size=64):
    """A tower with the running statistics of no two channels alike, and images for it."""
    tower = encoders.image(name, weights="random", size=size).eval()
    generator = torch.Generator().manual_seed(3)
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.normal_(0, 0.2, generator=generator)
            for tensor in (module.running_var, module.weight.data):
                tensor.uniform_(0.7, 1.4, generator=generator)
    return tower, torch.rand(3, 3, size, size, generator=generator)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("timm:tf_efficientnet_lite0", 1),
        ("timm:resnet18", 1),
        ("timm:mobilenetv3_small_050", 1),
        ("timm:densenet121", 0.4),  # half of its norms come before a convolution
    ],
)
def test_folded_batch_norms_compute_the_same_features_and_leave_the_tower(name, share):
    tower, image = drawn(name)
    before = encoders.weights_hash(tower)
    norms = [m for m in tower.modules() if isinstance(m, nn.BatchNorm2d)]
    pairs = encoders.foldable(tower, tower, image[:1])
    with torch.no_grad():
        expected = tower(image)
        with encoders.folded(pairs):
            assert encoders.foldable(tower, tower, image[:1]) == {}  # what is folded is not again
            apart = (tower(image) - expected).abs().max() / expected.abs().max()
        assert (tower(image) == expected).all()
    assert 0 < apart < 1e-5
    assert share <= len(pairs) / len(norms) <= (share == 1 or 0.6)
    assert encoders.weights_hash(tower) == before
    assert not any("forward" in vars(module) for module in tower.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tower.modules())


@pytest.mark.parametrize("when", ["loader", "progress"])
def test_a_pass_that_fails_leaves_the_tower_as_it_was(when):
    tower, image = drawn("timm:resnet18")

    def batches():
        yield {"image": image}
        raise OSError("the disk is gone")

    def progress(done, rows):
        assert any("forward" in vars(module) for module in tower.modules()), "it is folded now"
        if when == "progress":
            raise OSError("the pipe is closed")

    with pytest.raises(OSError) as kept:  # as a notebook keeps the traceback, and so the frames
        features.encode(tower, batches(), rows=9, progress=progress)
    assert not any("forward" in vars(module) for module in tower.modules()), kept


@pytest.mark.parametrize("name", ["timm:tf_efficientnet_lite0", "timm:resnet18"])
def test_gradients_through_folded_batch_norms_are_those_of_the_tower_as_it_is(name):
    tower, image = drawn(name)
    pairs, found = encoders.foldable(tower, tower, image[:1]), []
    tower.double()
    for each in ({}, pairs):
        tower.zero_grad()
        with encoders.folded(each, learning=True):
            tower(image.double()).square().sum().backward()
        found.append({n: p.grad.clone() for n, p in tower.named_parameters()})
    for parameter, expected in found[0].items():
        apart = (found[1][parameter] - expected).abs().max()
        assert expected.abs().max() > 0 and apart < 1e-9 * expected.abs().max(), parameter


def test_stored_features_of_packaged_weights_are_those_of_the_tower_as_it_is(tmp_path):
    tower = encoders.image("packaged:efficientnet_lite0", size=64).eval()
    image = torch.rand(10, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    mean, std = tower.preprocessing.mean, tower.preprocessing.std
    loader = Loader(mean=mean, std=std)
    loader.__class__ = type("Ten", (Loader,), {"__iter__": lambda self: iter([{"image": image}])})
    first, second = (stored(tower, tmp_path / name, loader) for name in "ab")
    plain = features.encode(tower, loader, fold=False)
    assert (first == second).all() and (first != plain).any()
    assert abs(first - plain).max() <= 1e-5 * abs(plain).max()


class Standardised(nn.Conv2d):
    """Its weights are changed at each pass, so that nothing can be folded into them."""

    def forward(self, image):
        scaled = self.weight / self.weight.norm()
        return nn.functional.conv2d(image, scaled, self.bias)


class Odd(nn.Module):
    def __init__(self, how):
        super().__init__()
        torch.manual_seed(1)
        kind = Standardised if how == "other weights" else nn.Conv2d
        self.conv, self.norm, self.how = kind(3, 3, 1), nn.BatchNorm2d(3), how
        self.norm.running_mean.fill_(0.3)
        self.norm.running_var.copy_(torch.tensor([0.5, 1.0, 2.0]))
        self.eval()
        self.norm.train(how == "norm trains")

    def forward(self, image):
        x = self.conv(image)
        x = self.conv(x) if self.how == "runs twice" else x
        x = x.relu_() if self.how == "changed in place" else x
        y = self.norm(x)
        return (y + x if self.how == "read twice" else y).mean(dim=(2, 3))


@pytest.mark.parametrize(
    "how", ["other weights", "runs twice", "changed in place", "read twice", "norm trains", "none"]
)
def test_a_tower_that_folding_would_change_stays_as_it_is(how):
    tower = Odd(how)
    pairs = encoders.foldable(tower, tower, torch.randn(2, 3, 8, 8))
    assert pairs == ({tower.norm: tower.conv} if how == "none" else {})
