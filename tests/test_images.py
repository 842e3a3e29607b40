# Protects the pixels: what a model sees is the file's content, in the place where masks say it is.
import json
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bonelib import images
from bonelib.images import pixels

ROOT = Path(__file__).resolve().parents[1]


def noise(seed, width=90, height=60):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def table_of(folder, arrays):
    """Save arrays as PNG and list them as a reader would."""
    rows = []
    for name, array in arrays.items():
        Image.fromarray(array).save(folder / f"{name}.png")
        rows.append({"image_id": name, "path": str(folder / f"{name}.png")})
    return pd.DataFrame(rows)


@pytest.fixture
def forty(tmp_path):
    return table_of(tmp_path, {f"i{n:02d}": noise(n) for n in range(40)})


def rectangle(left, top, right, bottom):
    return json.dumps([[[left, top], [right, top], [right, bottom], [left, bottom]]])


@pytest.mark.parametrize("fit", images.FITS)
@pytest.mark.parametrize(("width", "height"), [(200, 100), (100, 200), (37, 50), (64, 64)])
def test_an_outline_lands_on_what_it_was_drawn_around(tmp_path, fit, width, height):
    left, top, right, bottom = width // 4, height // 5, width // 2, height // 2
    film = np.zeros((height, width), np.uint8)
    film[top:bottom, left:right] = 255
    cache = images.cache(
        table_of(tmp_path, {"a": film}), size=64, fit=fit, folder=tmp_path / "cache"
    )
    drawn = images.mask(rectangle(left, top, right, bottom), cache.geometry.iloc[0], size=64)
    bright = cache.images[0] >= 128
    assert (drawn & bright).sum() / (drawn | bright).sum() > 0.9
    # Grey values locate the rectangle to a fraction of a pixel: an offset of half a pixel shows.
    for axis in (0, 1):
        light = cache.images[0].sum(axis=1 - axis, dtype=float)
        centre = (light * np.arange(64)).sum() / light.sum()
        assert abs(np.nonzero(drawn)[axis].mean() - centre) < 0.35


@pytest.mark.parametrize("fit", images.FITS)
def test_polygons_and_truth_png_give_the_same_mask(tmp_path, fit):
    truth = np.zeros((90, 150), np.uint8)
    truth[20:50, 30:110] = 1  # 1, not 255: any value but 0 is lesion
    Image.fromarray(truth).save(tmp_path / "truth.png")
    cache = images.cache(
        table_of(tmp_path, {"a": noise(0, 150, 90)}), size=48, fit=fit, folder=tmp_path / "c"
    )
    row = cache.geometry.iloc[0]
    from_png = images.mask(str(tmp_path / "truth.png"), row, size=48)
    from_polygons = images.mask(rectangle(30, 20, 110, 50), row, size=48)
    assert (from_png ^ from_polygons).sum() <= 0.05 * from_png.sum()


@pytest.mark.parametrize("fit", images.FITS)
@pytest.mark.parametrize("turn", range(1, 9))
def test_an_outline_follows_an_image_turned_by_exif(tmp_path, fit, turn):
    shown = np.zeros((100, 160), np.uint8)
    shown[10:40, 20:60] = 255
    back = pixels._UPRIGHT.get(pixels._INVERSE.get(turn, turn))
    stored = Image.fromarray(shown) if turn == 1 else Image.fromarray(shown).transpose(back)
    exif = Image.Exif()
    exif[0x0112] = turn
    stored.save(tmp_path / "a.jpg", quality=95, exif=exif)
    table = pd.DataFrame({"image_id": ["a"], "path": [str(tmp_path / "a.jpg")]})
    cache = images.cache(table, size=80, fit=fit, folder=tmp_path / "c")
    drawn = images.mask(rectangle(20, 10, 60, 40), cache.geometry.iloc[0], size=80)
    bright = cache.images[0] >= 128
    assert (drawn & bright).sum() / (drawn | bright).sum() > 0.9
    assert tuple(cache.geometry.loc[0, ["width", "height"]]) == (160, 100)
    assert (cache.files.loc[0, "width"], cache.files.loc[0, "height"]) == stored.size


def test_a_lesion_smaller_than_a_pixel_keeps_one(tmp_path):
    cache = images.cache(
        table_of(tmp_path, {"a": noise(0, 640, 640)}), size=32, folder=tmp_path / "c"
    )
    drawn = images.mask(rectangle(101, 201, 106, 206), cache.geometry.iloc[0], size=32)
    assert np.argwhere(drawn).tolist() == [[10, 5]]


def test_overlapping_outlines_are_joined_not_subtracted(tmp_path):
    cache = images.cache(
        table_of(tmp_path, {"a": noise(0, 64, 64)}), size=64, folder=tmp_path / "c"
    )
    both = json.loads(rectangle(10, 10, 30, 30)) + json.loads(rectangle(20, 20, 40, 40))
    drawn = images.mask(json.dumps(both), cache.geometry.iloc[0], size=64)
    assert drawn[25, 25] and abs(int(drawn.sum()) - 700) < 40


def test_a_missing_or_ill_sized_outline_is_refused(tmp_path):
    cache = images.cache(table_of(tmp_path, {"a": noise(0)}), size=32, folder=tmp_path / "c")
    with pytest.raises(ValueError, match="no outline"):
        images.mask(pd.NA, cache.geometry.iloc[0], size=32)
    Image.fromarray(noise(1, 10, 10)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match="10 × 10 pixels"):
        images.mask(str(tmp_path / "small.png"), cache.geometry.iloc[0], size=32)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    ramp = np.tile(np.linspace(0, 4095, 256).astype(np.uint16), (256, 1))
    table = table_of(tmp_path, {"ramp": ramp, "black": np.zeros((8, 8), np.uint16)})
    assert Image.open(table["path"][0]).mode == "I;16"
    for fit in images.FITS:
        cache = images.cache(table, size=64, fit=fit, folder=tmp_path / "c")
        row = cache.images[0][32].astype(float)
        assert np.abs(row - np.linspace(0, 255, 64)).max() < 4
        assert cache.images[1].max() == 0
    assert cache.files["mode"].tolist() == ["I;16", "I;16"]


def test_squash_is_pils_bicubic_resize_to_the_byte(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (70, 110, 3), dtype=np.uint8)
    table = table_of(tmp_path, {"rgb": rgb, "grey": noise(1)})
    Image.fromarray(rgb).save(tmp_path / "big.jpg")
    table.loc[2] = ["jpg", str(tmp_path / "big.jpg")]
    cache = images.cache(table, size=40, fit="squash", folder=tmp_path / "c")
    for pixel, path in zip(cache.images, table["path"], strict=True):
        expected = Image.open(path).convert("L").resize((40, 40), Image.Resampling.BICUBIC)
        assert np.array_equal(pixel, np.asarray(expected))


def test_pad_keeps_the_aspect_and_continues_each_edge(tmp_path):
    film = np.full((100, 200), 70, np.uint8)
    film[20:80, 40:160] = 200
    film[90:] = 30
    table = table_of(tmp_path, {"wide": film, "tall": film.T.copy()})
    cache = images.cache(table, size=50, folder=tmp_path / "c")
    for pixel in (cache.images[0], cache.images[1].T):
        assert (pixel[:12] == 70).all() and (pixel[38:] == 30).all()
        assert abs(int((pixel > 135).sum()) - 30 * 15) < 30


def test_a_large_jpeg_shrinks_to_its_area_mean(tmp_path):
    y, x = np.mgrid[:1200, :1600]
    film = (127 + 90 * np.sin(x / 150) * np.cos(y / 110)).astype(np.uint8)
    Image.fromarray(film).save(tmp_path / "a.jpg", quality=95)
    table = pd.DataFrame({"image_id": ["a"], "path": [str(tmp_path / "a.jpg")]})
    cache = images.cache(table, size=100, folder=tmp_path / "c")
    mean = film[:1200, :1600].reshape(75, 16, 100, 16).mean(axis=(1, 3))
    content = cache.images[0][12:87].astype(float)
    assert np.abs(content - mean).max() < 3


def test_unreadable_files_are_named_with_the_reason(tmp_path):
    table = table_of(tmp_path, {"good": noise(0)})
    Image.fromarray(noise(1, 400, 300)).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.png").write_text("not a picture")
    for n, name in enumerate(("cut.jpg", "text.png", "absent.png"), 1):
        table.loc[n] = [name, str(tmp_path / name)]
    for _ in range(2):  # decoded, then opened
        cache = images.cache(table, size=32, folder=tmp_path / "c")
        assert cache.ids == ["good"] and cache.images.shape == (1, 32, 32)
        reasons = dict(zip(cache.excluded["image_id"], cache.excluded["reason"], strict=True))
        assert list(reasons) == ["cut.jpg", "text.png", "absent.png"]
        assert "truncated" in reasons["cut.jpg"]
        assert "PIL" in reasons["text.png"]
        assert "No such file" in reasons["absent.png"]
    with pytest.raises(ValueError, match=r"cut\.jpg.*1 of them could not be decoded"):
        cache.rows(["good", "cut.jpg"])
    with pytest.raises(ValueError, match="None of 3 images can be decoded"):
        images.cache(table[1:], size=32, folder=tmp_path / "c")
    with pytest.raises(ValueError, match=r"None of 3 .*\(no path: there is no file\)"):
        images.cache(table[1:].assign(path=pd.NA), size=32, folder=tmp_path / "c")


def test_the_number_of_workers_does_not_change_a_byte(tmp_path, forty):
    stores = [
        images.cache(forty, size=32, folder=tmp_path / f"w{workers}", workers=workers)
        for workers in (1, 3)
    ]
    files = [sorted(p.name for p in (tmp_path / f"w{w}").rglob("*") if p.is_file()) for w in (1, 3)]
    assert files[0] == files[1] == ["facts.json", "hashes.json", "images.npy"]
    assert stores[0].key == stores[1].key
    for name in ("images.npy", "facts.json"):
        first, second = ((tmp_path / f"w{w}" / stores[0].key / name).read_bytes() for w in (1, 3))
        assert first == second
    assert stores[0].ids == forty["image_id"].tolist()


def test_a_killed_pass_goes_on_where_it_stopped(tmp_path, forty, monkeypatch):
    forty.to_csv(tmp_path / "table.csv", index=False)
    script = (
        "import os, sys, time, pandas as pd; from bonelib import images\n"
        "from bonelib.images import pixels\n"
        "table, whole, seen = pd.read_csv(sys.argv[1]), pixels.decode, []\n"
        "def slow(path, **k):\n"  # the second part must not be done before the kill
        "    seen.append(path)\n"
        "    time.sleep(0.5 * (len(seen) > 32))\n"
        "    return whole(path, **k)\n"
        "pixels.decode = slow\n"
        "images.cache(table, size=32, folder=sys.argv[2], progress=lambda done, n: os._exit(9))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "table.csv"), str(tmp_path / "c")], cwd=ROOT
    )
    assert done.returncode == 9
    decoded = []
    whole = pixels.decode
    monkeypatch.setattr(
        pixels, "decode", lambda path, **k: decoded.append(path) or whole(path, **k)
    )
    resumed = images.cache(forty, size=32, folder=tmp_path / "c")
    assert 0 < len(decoded) < 40
    assert np.array_equal(
        resumed.images, images.cache(forty, size=32, folder=tmp_path / "d").images
    )


def test_a_second_call_opens_without_decoding_or_hashing(tmp_path, forty, monkeypatch):
    first = images.cache(forty, size=32, folder=tmp_path / "c")
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail(f"read {self} again"))
    start = time.perf_counter()
    again = images.cache(forty, size=32, folder=tmp_path / "c")
    assert time.perf_counter() - start < 0.5
    assert again.key == first.key and np.array_equal(again.images, first.images)
    pd.testing.assert_frame_equal(again.files, first.files)


def test_changed_content_is_decoded_anew_and_a_touched_file_is_not(tmp_path, forty):
    first = images.cache(forty, size=32, folder=tmp_path / "c")
    os.utime(forty["path"][3], ns=(1, 1))
    assert images.cache(forty, size=32, folder=tmp_path / "c").key == first.key
    Image.fromarray(noise(999)).save(forty["path"][3])
    changed = images.cache(forty, size=32, folder=tmp_path / "c")
    different = [i for i in range(40) if not np.array_equal(first.images[i], changed.images[i])]
    assert changed.key != first.key and different == [3]


def test_rows_and_settings_that_make_no_sense_are_refused(tmp_path, forty):
    with pytest.raises(ValueError, match="fit='crop'"):
        images.cache(forty, size=32, fit="crop", folder=tmp_path)
    with pytest.raises(ValueError, match="39 different image ids"):
        images.cache(
            forty.assign(image_id=[*forty["image_id"][:39], "i00"]), size=8, folder=tmp_path
        )


@pytest.fixture
def small(tmp_path, forty):
    return images.cache(forty, size=24, folder=tmp_path / "small")


def test_a_batch_holds_what_was_given_beside_its_own_image(small):
    ids = small.ids[::-1][:10]
    labels, tokens = np.arange(10), np.arange(30).reshape(10, 3)
    loader = images.loader(small, ids, batch_size=4, labels=labels, tokens=tokens, shuffle=True)
    batches = list(loader)
    assert len(loader) == len(batches) == 3 and len(batches[-1]["image_id"]) == 2
    seen = [i for batch in batches for i in batch["image_id"]]
    assert sorted(seen) == sorted(ids) and seen != ids
    for batch in batches:
        assert set(batch) == {"image", "label", "tokens", "image_id"}
        assert batch["image"].shape[1:] == (3, 24, 24) and batch["image"].dtype == torch.float32
        for image, label, row, name in zip(
            batch["image"], batch["label"], batch["tokens"], batch["image_id"], strict=True
        ):
            expected = small.images[small.rows([name])[0]] / 255
            assert np.allclose(image, (expected - 0.5) / 0.5, atol=1e-6)
            assert ids[label] == name and row.tolist() == tokens[label].tolist()
    assert len(images.loader(small, ids, batch_size=4, drop_last=True)) == 2


def test_each_channel_has_its_own_mean_and_deviation(small):
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    (batch,) = images.loader(small, small.ids[:5], batch_size=8, mean=mean, std=std)
    grey = torch.tensor(small.images[:5] / 255.0)
    for channel in range(3):
        expected = (grey - mean[channel]) / std[channel]
        assert torch.allclose(batch["image"][:, channel].double(), expected, atol=1e-5)


def test_the_same_seed_and_epoch_give_the_same_pixels(small):
    def epoch(number, seed=0):
        loader = images.loader(
            small, small.ids, batch_size=16, shuffle=True, augment={}, flip=True, seed=seed
        )
        loader.epoch = number
        return list(loader)

    loader = images.loader(small, small.ids, batch_size=16, shuffle=True, augment={}, flip=True)
    first, second = list(loader), list(loader)
    assert loader.epoch == 2
    for replayed, seen in ((epoch(0), first), (epoch(1), second)):
        for a, b in zip(replayed, seen, strict=True):
            assert a["image_id"] == b["image_id"] and torch.equal(a["image"], b["image"])
    assert first[0]["image_id"] != second[0]["image_id"]
    assert first[0]["image_id"] != epoch(0, seed=1)[0]["image_id"]


def test_loader_settings_that_do_not_fit_are_listed_together(small):
    with pytest.raises(ValueError) as error:
        images.loader(
            small, small.ids, batch_size=0, labels=np.zeros(3), mean=(0.1, 0.2), flip=True
        )
    for part in ("label has 3 rows", "no batch of 0", "mean has 2 values", "flip=True"):
        assert part in str(error.value)
    with pytest.raises(ValueError, match="1 images are not in the cache, e.g. nobody"):
        images.loader(small, ["nobody"], batch_size=1)


OFF = dict(rotate=0, translate=0, scale=0, brightness=0, contrast=0, noise=0)


def varied(batch, seed=0, **strengths):
    generator = torch.Generator().manual_seed(seed)
    return images.augment(batch, generator=generator, **{**OFF, **strengths})


@pytest.mark.parametrize(
    "name", ["rotate", "translate", "scale", "brightness", "contrast", "noise"]
)
def test_each_image_of_a_batch_is_varied_by_its_own_draw(name):
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.2
    batch = image.repeat(6, 1, 1, 1)
    assert torch.allclose(varied(batch), batch, atol=1e-5)
    out = varied(batch, **{name: 20 if name == "rotate" else 0.1})
    distances = torch.cdist(out.flatten(1), out.flatten(1)) + torch.eye(6)
    assert distances.min() > 1e-3
    assert out.shape == batch.shape and out.min() >= 0 and out.max() <= 1


def test_a_flip_happens_only_where_it_is_asked_for():
    batch = torch.rand(64, 1, 16, 16)
    flipped = torch.tensor(
        [
            torch.allclose(out, image.flip(-1), atol=1e-5)
            for out, image in zip(varied(batch, flip=True), batch, strict=True)
        ]
    )
    assert 16 < flipped.sum() < 48
    assert torch.allclose(varied(batch, flip=True)[~flipped], batch[~flipped], atol=1e-5)
    assert torch.allclose(varied(batch), batch, atol=1e-5)


def test_a_rotation_turns_by_the_angle_and_keeps_size():
    y, x = torch.meshgrid(torch.arange(65.0), torch.arange(65.0), indexing="ij")
    blob = torch.exp(-((x - 52) ** 2 + (y - 32) ** 2) / 8).expand(40, 1, 65, 65)  # 20 px right
    out = varied(blob, rotate=30)
    mass = out.sum(dim=(1, 2, 3))
    dx = (out[:, 0] * (x - 32)).sum(dim=(1, 2)) / mass
    dy = (out[:, 0] * (y - 32)).sum(dim=(1, 2)) / mass
    assert torch.allclose(torch.hypot(dx, dy), torch.tensor(20.0), atol=0.3)
    angle = torch.rad2deg(torch.atan2(dy, dx)).abs()
    assert angle.max() <= 30.5 and angle.max() > 15


def test_a_fetch_costs_less_than_a_tenth_of_a_millisecond(tmp_path):
    table = table_of(tmp_path, {f"i{n}": noise(n) for n in range(64)})
    loader = images.loader(
        images.cache(table, size=128, folder=tmp_path / "c"), table["image_id"], batch_size=32
    )
    best = 1.0
    for _ in range(8):
        start = time.perf_counter()
        for _ in loader:
            pass
        best = min(best, time.perf_counter() - start)
    assert best / 64 < 1e-4


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def test_a_damaged_store_is_noticed_named_and_made_anew(tmp_path, forty):
    first = images.cache(forty, size=32, folder=tmp_path / "c")
    assert not first.notes
    whole, store = np.array(first.images), first.store
    pixel_file, facts = store / "images.npy", store / "facts.json"
    damages = {
        "a pixel": (
            lambda: flip(pixel_file, 128 + 35 * 32 * 32),
            "images.npy is damaged: .* block 3 of 3",
        ),
        "the header": (lambda: flip(pixel_file, 20), "block 1 of 3"),
        "cut": (lambda: os.truncate(pixel_file, 9000), "9,000 bytes of 41,088"),
        "emptied": (lambda: os.truncate(pixel_file, 0), "images.npy"),
        "gone": (pixel_file.unlink, "images.npy is missing"),
        "facts": (lambda: flip(facts, 200), "facts.json is cut off or damaged"),
        "facts, cut": (lambda: os.truncate(facts, 300), "facts.json is cut off or damaged"),
        "no text": (lambda: facts.write_bytes(b"\xff\xfe"), "facts.json is cut off or damaged"),
    }
    for name, (damage, told) in damages.items():
        damage()
        os.utime(facts, ns=(1, 1))
        with pytest.raises(ValueError, match=told):
            images.reopen(store, first.all_files, size=32)
        again = images.cache(forty, size=32, folder=tmp_path / "c")
        assert again.key == first.key and np.array_equal(again.images, whole), name
        (note,) = again.notes
        assert "decoded anew" in note and str(store) in note, name
        assert images.cache(forty, size=32, folder=tmp_path / "c").notes == []


def test_a_damaged_index_or_part_costs_only_time(tmp_path, forty, monkeypatch):
    first = images.cache(forty, size=32, folder=tmp_path / "c")
    index = tmp_path / "c" / "hashes.json"
    for content in (b"", b"{", b"\xff\xff", index.read_bytes()[:-9]):
        index.write_bytes(content)
        assert images.cache(forty, size=32, folder=tmp_path / "c").key == first.key
    store = tmp_path / "d" / first.key
    (store / "parts").mkdir(parents=True)
    (store / "parts" / "000000.npz").write_bytes(b"PK\x03\x04 cut off")
    again = images.cache(forty, size=32, folder=tmp_path / "d")
    assert np.array_equal(again.images, first.images)


def test_a_store_is_compared_with_its_checksums_once_in_a_process(tmp_path, forty, monkeypatch):
    first = images.cache(forty, size=32, folder=tmp_path / "c")
    seen, whole = [], zlib.crc32
    monkeypatch.setattr("zlib.crc32", lambda data, *rest: seen.append(len(data)) or whole(data))
    for _ in range(3):
        images.reopen(first.store, first.all_files, size=32)
    assert [length for length in seen if length in (128, 32**3, 8 * 32**2)] == [128, 32**3, 8192]


def test_a_folder_that_cannot_be_made_or_written_is_said_in_a_sentence(
    tmp_path, forty, monkeypatch
):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(
        OSError, match=r"image cache can't be kept in .*Not a directory.*BONELIB_CACHE"
    ):
        images.cache(forty, size=32, folder=tmp_path / "file" / "cache")
    whole = images.cache(forty, size=32, folder=tmp_path / "c")

    def full(path, flags, *more, opened=os.open):
        if flags & os.O_EXCL:
            raise OSError(28, "No space left on device")
        return opened(path, flags, *more)

    (tmp_path / "c" / "hashes.json").unlink()
    monkeypatch.setattr(os, "open", full)
    again = images.cache(forty, size=32, folder=tmp_path / "c")  # what is there needs no writing
    assert np.array_equal(again.images, whole.images)
    with pytest.raises(OSError, match="No space left on device. Make room"):
        images.cache(forty, size=16, folder=tmp_path / "c")


def test_a_file_system_without_modes_serves(tmp_path, forty, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refused)
    assert len(images.cache(forty, size=32, folder=tmp_path / "c")) == 40
