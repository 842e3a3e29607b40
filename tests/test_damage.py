# Protects against broken files: none crashes, hangs or passes for sound where that can be seen.
import io
import itertools
import os
import struct
import warnings
import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bonelib import images
from bonelib.images import damage, pixels


def film(rng, width, height):
    """Draw a smooth picture with grain, as radiographs are."""
    coarse = Image.fromarray(rng.integers(0, 256, (9, 7), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), float)
    return np.clip(smooth + rng.normal(0, 4, (height, width)), 0, 255).astype(np.uint8)


def encoded(array, kind):
    stream, image = io.BytesIO(), Image.fromarray(array)
    if kind == "png16":
        Image.fromarray(array.astype(np.uint16) * 16).save(stream, "PNG")
    elif kind == "png":
        image.save(stream, "PNG")
    else:
        mode = "RGB" if kind == "colour" else "L"
        image.convert(mode).save(stream, "JPEG", quality=85, progressive=kind == "progressive")
    return stream.getvalue()


def damaged(content, rng):
    content, way = bytearray(content), rng.integers(3)
    if way == 0:
        for place in rng.integers(0, len(content), rng.integers(1, 5)):
            content[place] ^= 1 << int(rng.integers(8))
    elif way == 1:
        del content[int(rng.integers(len(content))) :]
    else:
        place, length = int(rng.integers(len(content))), int(rng.integers(1, 40))
        content[place : place + length] = bytes(len(content[place : place + length]))
    return bytes(content)


def decoded(path, content, size=48, fit="pad"):
    path.write_bytes(content)
    return pixels.decode(str(path), size=size, fit=fit)


KINDS = ("png", "png16", "grey", "colour", "progressive")
MODES = {"png": "L", "png16": "I;16", "grey": "L", "colour": "RGB", "progressive": "L"}


def test_a_thousand_damaged_files_are_named_or_keep_their_shape_and_polarity(tmp_path):
    rng = np.random.default_rng(4)
    named, silent, checked = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0), 0
    whole_films = []
    for kind in KINDS * 10:
        width, height = (int(v) for v in rng.integers(60, 140, 2))
        sound = encoded(film(rng, width, height), kind)
        whole_films.append((width, height, sound, decoded(tmp_path / "b", sound)[0]))
    while checked < 1000:
        kind = KINDS[checked % 5]
        width, height, sound, before = whole_films[checked % 50]
        content = damaged(sound, rng)
        if content == sound:
            continue
        checked += 1
        image, facts = decoded(tmp_path / "a", content)  # whatever it raises fails the test
        if facts["reason"]:
            assert image is None and facts["reason"].strip()
            named[kind] += 1
            continue
        silent[kind] += 1
        assert image.shape == (48, 48) and image.dtype == np.uint8
        assert facts["mode"] == MODES[kind]
        # A block of pixels is the least that a JPEG's header and data can disagree by.
        if kind != "progressive":
            block = 16 if kind == "colour" else 8
            whole = [-(-side // block) for side in (facts["stored_width"], facts["stored_height"])]
            assert whole == [-(-side // block) for side in (width, height)]
        if facts["stored_width"] == width and facts["stored_height"] == height:
            assert np.corrcoef(before.ravel(), image.ravel())[0, 1] > -0.7
    assert silent["png"] == silent["png16"] == 0  # every chunk of a PNG has a checksum
    assert min(named.values()) > 60


@pytest.mark.parametrize("change", [-40, -8, 8, 40, 4000])
@pytest.mark.parametrize("side", ["width", "height"])
def test_a_jpeg_with_another_size_in_its_header_is_named(tmp_path, side, change):
    for kind in ("grey", "colour"):
        content = bytearray(encoded(film(np.random.default_rng(1), 96, 128), kind))
        place = damage.frame(bytes(content))[0] + (2 if side == "width" else 0)
        (old,) = struct.unpack(">H", content[place : place + 2])
        step = change * 2 if kind == "colour" else change  # in whole blocks
        content[place : place + 2] = struct.pack(">H", max(16, old + step))
        for fit in images.FITS:
            image, facts = decoded(tmp_path / "a.jpg", bytes(content), fit=fit)
            assert image is None and "JPEG" in facts["reason"], (kind, fit)


def test_no_sound_jpeg_is_called_broken(tmp_path):
    """Mid-grey is what the decoder fills with: pictures of mid-grey must pass nevertheless."""
    rng = np.random.default_rng(2)
    for width, height in ((1, 1), (8, 8), (7, 9), (17, 31), (90, 60), (500, 8), (8, 500)):
        half = film(rng, width, height)
        half[height // 2 :] = 128
        for array in (rng.integers(0, 256, (height, width), dtype=np.uint8), half, half * 0 + 128):
            for mode, subsampling, marker, quality in itertools.product(
                ("L", "RGB"), (0, 1, 2), (0, 3), (5, 90)
            ):
                if mode == "L" and subsampling == 2:
                    continue  # grey has no colours to subsample: the same file again
                options = {"quality": quality, "restart_marker_blocks": marker}
                options |= {"subsampling": subsampling} if mode == "RGB" else {}
                options |= {"progressive": marker == 3 and subsampling == 1}
                stream = io.BytesIO()
                Image.fromarray(array).convert(mode).save(stream, "JPEG", **options)
                for size in (3, 64):
                    _, facts = decoded(tmp_path / "a.jpg", stream.getvalue(), size=size)
                    assert facts["reason"] is None, (width, height, mode, options, size)


def test_counting_blocks_changes_no_pixel(tmp_path):
    for kind in ("grey", "colour"):
        content = encoded(film(np.random.default_rng(3), 203, 331), kind)
        image, _ = decoded(tmp_path / "a.jpg", content, size=331)
        left = (331 - 203) // 2
        with Image.open(io.BytesIO(content)) as plain:
            plain.draft("L", plain.size)
            assert np.array_equal(image[:, left : left + 203], np.asarray(plain))


def table_of(folder, **contents):
    rows = []
    for name, content in contents.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content)
        rows.append({"image_id": path.name, "path": str(path)})
    return pd.DataFrame(rows)


def png_of(side):
    """A PNG that says it is of ``side`` x ``side``: such a file is refused by its header."""
    stream = io.BytesIO()
    Image.new("1", (8, 8)).save(stream, "PNG")
    content = bytearray(stream.getvalue())
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def test_each_kind_of_bad_file_has_a_reason_and_the_good_ones_stay(tmp_path):
    rng = np.random.default_rng(5)
    png, jpeg = (encoded(film(rng, 40, 30), kind) for kind in ("png", "grey"))
    bomb, large = png_of(20000), png_of(10000)  # of the second, PIL itself only warns
    table = table_of(
        tmp_path, good_png=png, lie_png=jpeg, empty_png=b"", html_jpg=b"<html>", tail_png=png[:-12]
    )
    more = table_of(tmp_path, bomb_png=bomb, large_png=large)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    others = ["pipe.png", "loop.png"]
    rest = pd.DataFrame({"image_id": others, "path": [str(tmp_path / n) for n in others]})
    rest.loc[2] = ["folder", str(tmp_path)]
    table = pd.concat([table, more, rest], ignore_index=True)
    for action in ("error", "ignore"):
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            cache = images.cache(table, size=16, folder=tmp_path / action)
            listed = images.verify(table)
        assert cache.ids == ["good.png", "lie.png"]
        pd.testing.assert_frame_equal(listed, cache.excluded)
        reasons = dict(zip(cache.excluded["image_id"], cache.excluded["reason"], strict=True))
        for name, part in {
            "empty.png": "0 bytes",
            "html.jpg": "not a picture",
            "tail.png": "no end",
            "bomb.png": "more pixels than any radiograph",
            "large.png": "more pixels than any radiograph",
            "pipe.png": "not a file",
            "loop.png": "symbolic links",
            "folder": "not a file",
        }.items():
            assert part in reasons[name], (name, reasons[name])
    told = "\n".join(cache.notes)
    assert "1 files hold another format than their extension says" in told and "lie.png" in told
    assert cache.files["format"].tolist() == ["PNG", "JPEG"]


def test_a_blur_spreads_a_point_by_its_own_sigma_and_keeps_its_mass():
    point = torch.zeros(40, 1, 33, 33)
    point[:, 0, 16, 16] = 1
    off = dict(rotate=0, translate=0, scale=0, brightness=0, contrast=0, noise=0)
    out = images.augment(point, generator=torch.Generator().manual_seed(0), blur=2, **off)[:, 0]
    assert torch.allclose(out.sum(dim=(1, 2)), torch.ones(40), atol=1e-4)
    away = torch.arange(33.0) - 16
    sigma = [(out.sum(dim=axis) * away**2).sum(dim=1).sqrt() for axis in (1, 2)]
    assert torch.allclose(*sigma, atol=1e-3)
    assert sigma[0].min() < 0.5 and 1.6 < sigma[0].max() <= 2.01 and sigma[0].std() > 0.3


def test_images_taken_a_few_at_a_time_vary_as_all_at_once(monkeypatch):
    batch = torch.rand(10, 1, 32, 32, generator=torch.Generator().manual_seed(2))

    def varied():
        generator = torch.Generator().manual_seed(7)
        return images.augment(batch, generator=generator, blur=1, flip=True, noise=0)

    whole = varied()
    monkeypatch.setattr("bonelib.images.batches.AT_ONCE", 3 * 32 * 32)
    assert torch.allclose(varied(), whole, atol=1e-6)
