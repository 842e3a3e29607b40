# Protects one picture in many modes: the same radiograph, whatever file it came in.
# Truths: TIFF 6.0 (PhotometricInterpretation, Orientation, ExtraSamples), PNG 3rd edition (tRNS,
# eXIf), Exif 2.32; what is read is read by Pillow 13.0 or OpenCV 5.0.
import io
import itertools
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, TiffImagePlugin

from bonelib import images
from bonelib.images import greys, pixels

CASES = Path(os.environ.get("BONELIB_DATA", "../shared/data")).parent / "cases" / "picture-modes"
RIGHT = 0.99


def film():
    """Draw what no turn maps onto itself: a bright shaft with a brighter head, on black."""
    y, x = np.mgrid[:60, :84]
    bone = 70.0 * (abs(y - 25 - x / 10) < 9) + 90.0 * ((y - 40) ** 2 + (x - 20) ** 2 < 120)
    return np.where(y > 4, bone + x / 4, 0).astype(int)  # 0 to 181


def tiff(values, bits, order="<", white_is_zero=False, number=1, **more):
    """Write a TIFF by hand: Pillow writes neither big-endian nor white-is-zero ones.

    ``number``: 1 unsigned, 2 signed, 3 float. ``orientation``, ``extra`` (meaning of the second
    sample), ``rows`` of a strip, ``tile`` side, ``deflate``, ``big`` (BigTIFF).
    """
    values = np.asarray(values)
    height, width = values.shape[:2]
    samples = values.shape[2] if values.ndim == 3 else 1

    def packed(block):
        if bits == 1:
            raw = np.packbits(block.astype(bool), axis=1).tobytes()
        elif bits == 12:
            first, second = block[:, ::2].astype(int), block[:, 1::2].astype(int)
            three = (first >> 4, (first & 15) << 4 | second >> 8, second & 255)
            raw = np.stack(three, -1).astype(np.uint8).tobytes()
        else:
            raw = block.astype(f"{order}{' uif'[number]}{bits // 8}").tobytes()
        return zlib.compress(raw) if more.get("deflate") else raw

    if tile := more.get("tile"):
        wide = np.pad(values, ((0, -height % tile), (0, -width % tile)))
        places = itertools.product(range(0, height, tile), range(0, width, tile))
        blocks = [packed(wide[y : y + tile, x : x + tile]) for y, x in places]
    else:
        rows = more.get("rows", height)
        blocks = [packed(values[y : y + rows]) for y in range(0, height, rows)]
    big = more.get("big", False)
    starts = np.cumsum([16 if big else 8, *map(len, blocks)]).tolist()
    at = starts[-1] + starts[-1] % 2
    where = [(322, [tile]), (323, [tile]), (324, starts[:-1]), (325, [len(b) for b in blocks])]
    if not tile:
        where = [(273, starts[:-1]), (278, [rows]), (279, [len(b) for b in blocks])]
    tags = [(256, [width]), (257, [height]), (258, [bits] * samples), (262, [1 - white_is_zero])]
    tags += [(259, [8 if more.get("deflate") else 1]), (277, [samples]), (339, [number] * samples)]
    tags += [(274, [more["orientation"]])] if "orientation" in more else []
    tags += [(338, [more["extra"]])] if "extra" in more else []
    tags = sorted(tags + where)
    word, room = ("Q", 8) if big else ("I", 4)
    count = struct.pack(order + ("Q" if big else "H"), len(tags))
    entries, rest, end = b"", b"", at + len(count) + len(tags) * (12 + 2 * room - 8) + room
    for tag, content in tags:
        short = tag in (258, 259, 262, 274, 277, 338, 339)
        data = struct.pack(order + ("H" if short else "I") * len(content), *content)
        if len(data) > room:
            data, rest = struct.pack(order + word, end + len(rest)), rest + data
        entries += struct.pack(order + "HH" + word, tag, 3 if short else 4, len(content))
        entries += data.ljust(room, b"\0")
    head = b"II" if order == "<" else b"MM"
    head += struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, at) if big else (42, at)))
    body = head + b"".join(blocks)
    return body.ljust(at, b"\0") + count + entries + bytes(room) + rest


def save(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows, bits, colour, *chunks):
    """Write a PNG by hand, from the bytes of its rows."""
    height, width = len(rows), len(rows[0]) // {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] * 8 // bits
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = (chunk(b"IHDR", head), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def decoded(folder, content, fit="squash", size=60):
    path = folder / "picture"
    path.write_bytes(content)
    return pixels.decode(str(path), size=size, fit=fit)


def likeness(first, second):
    return float(np.corrcoef(first.ravel().astype(float), second.ravel().astype(float))[0, 1])


@pytest.fixture
def truth(tmp_path):
    return decoded(tmp_path, save(Image.fromarray(film().astype(np.uint8)), "PNG"))[0]


def stored_as(shown, orientation):
    """Undo a turn: the array that, shown by ``orientation`` (Exif 2.32), is ``shown``."""
    rows = {1: shown, 2: shown[:, ::-1], 3: shown[::-1, ::-1], 4: shown[::-1]}
    rows |= {5: shown.T, 6: shown.T[::-1], 7: shown.T[::-1, ::-1], 8: shown.T[:, ::-1]}
    return np.ascontiguousarray(rows[orientation])


def turned(kind, stored, orientation):
    """Write ``stored`` with an orientation in one of the containers."""
    eight = Image.fromarray(stored.astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    by_hand = {
        "strips": dict(rows=7),
        "tiles": dict(tile=16),
        "deflate": dict(rows=16, deflate=True),
        "big-endian": dict(order=">", rows=20),
        "BigTIFF": dict(big=True),
    }
    if kind in by_hand:
        return tiff(stored, 8, orientation=orientation, **by_hand[kind])
    if kind in ("jpeg", "png", "webp"):
        options = {"png": {}, "jpeg": {"quality": 95}, "webp": {"lossless": True}}
        return save(eight, kind, exif=exif, **options[kind])
    if kind == "png, exif last":
        content = save(eight, "PNG")
        data = exif.tobytes().removeprefix(b"Exif\0\0")
        return content[:-12] + chunk(b"eXIf", data) + content[-12:]
    if kind == "16 bits, black is zero":
        return tiff(stored * 16, 16, orientation=orientation)
    if kind == "OpenCV":  # 16 bits, big-endian and white-is-zero: PIL 13.0 knows none
        return tiff(181 * 16 - stored * 16, 16, ">", True, orientation=orientation)
    if kind == "16 bits png":
        return save(Image.fromarray((stored * 16).astype(np.uint16)), "PNG", exif=exif)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0112] = orientation
    picture = eight.convert("RGB") if kind == "tiff_jpeg" else eight
    compression = "jpeg" if kind == "tiff_jpeg" else kind
    return save(picture, "TIFF", compression=compression, tiffinfo=tags)


CONTAINERS = ("jpeg", "png", "png, exif last", "16 bits png", "webp", "strips", "tiles", "deflate")
CONTAINERS += ("big-endian", "BigTIFF", "tiff_lzw", "tiff_adobe_deflate", "packbits", "tiff_jpeg")
CONTAINERS += ("16 bits, black is zero", "OpenCV")


@pytest.mark.parametrize("kind", CONTAINERS)
def test_each_orientation_is_turned_exactly_once_and_the_outline_with_it(tmp_path, kind):
    shown = np.zeros((48, 84), int)
    shown[8:20, 12:36] = 181
    shown[30:44, 70:76] = 90
    corners = [[12, 8], [36, 8], [36, 20], [12, 20]]
    table = []
    for orientation in range(1, 9):
        stored = stored_as(shown, orientation)
        path = tmp_path / f"{orientation}.bin"
        path.write_bytes(turned(kind, stored, orientation))
        table.append({"image_id": str(orientation), "path": str(path)})
    for fit in images.FITS:
        cache = images.cache(pd.DataFrame(table), size=84, fit=fit, folder=tmp_path / "cache")
        assert cache.ids == [str(n) for n in range(1, 9)]
        for row, orientation in enumerate(range(1, 9)):
            place = cache.geometry.iloc[row]
            assert (place["width"], place["height"]) == (84, 48)
            stored = stored_as(shown, orientation).shape
            assert tuple(cache.files.loc[row, ["height", "width"]]) == stored
            drawn = images.mask(json.dumps([corners]), place, size=84)
            bright = cache.images[row] > 150
            assert (drawn & bright).sum() / (drawn | bright).sum() > 0.9, (fit, orientation)
            if fit == "pad":
                assert likeness(cache.images[row][18:66], shown) > RIGHT


def written(bits, number, alpha):
    """The film in a number type, and its highest storable grey."""
    if bits == 1:
        return (film() > 60) * 1, 1
    values, top = {
        (8, 1): (film(), 255),
        (8, 2): (film() - 100, -1),
        (12, 1): (film() * 16, 4095),
        (16, 1): (film() * 16, 65535),
        (16, 2): (film() * 16 - 1024, -1),
        (32, 1): (film() * 20_000_000, 2**32 - 1),
        (32, 2): (film() * 16 - 1024, -1),
        (32, 3): (film() / 181 - 0.25, 1.0),
        (64, 3): (film() * 1e9, 1e12),
    }[bits, number]
    return (np.stack([values, np.full_like(values, 255)], -1), 255) if alpha else (values, top)


DEPTHS = [(1, 1), (8, 1), (8, 2), (12, 1), (16, 1), (16, 2), (32, 1), (32, 2), (32, 3), (64, 3)]


@pytest.mark.parametrize(("bits", "number"), DEPTHS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
def test_white_is_zero_and_black_is_zero_are_the_same_film(
    tmp_path, truth, bits, number, order, deflate
):
    values, top = written(bits, number, alpha=False)
    at_least = RIGHT if bits > 1 else 0.8
    for white_is_zero in (False, True):
        content = tiff(
            top - values if white_is_zero else values,
            bits,
            order,
            white_is_zero,
            number,
            deflate=deflate,
        )
        picture, facts = decoded(tmp_path, content)
        assert facts["reason"] is None, (white_is_zero, facts["reason"])
        assert likeness(picture, truth) > at_least, white_is_zero
        assert (bits in (1, 8) and number == 1) or facts["notes"]


def test_twelve_white_is_zero_bits_that_fill_twelve_of_sixteen_are_no_negative(tmp_path, truth):
    for top in (2896, 4095, 65535):
        picture, facts = decoded(tmp_path, tiff(top - film() * 16, 16, "<", True))
        assert likeness(picture, truth) > RIGHT and len(facts["notes"]) == 1


def test_a_tiff_that_would_lose_bits_or_transparency_is_refused_with_its_layout(tmp_path):
    deep = np.stack([film() * 16, film() * 0 + 65535], -1)
    for content in (tiff(deep, 16, extra=2), tiff(deep // 256, 8, white_is_zero=True, extra=2)):
        picture, facts = decoded(tmp_path, content)
        assert picture is None and "bits a pixel" in facts["reason"]
        assert "Save it as one grey" in facts["reason"]


@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:Corrupt EXIF data")
def test_a_tiff_cut_short_is_refused_and_its_pages_are_told(tmp_path, truth):
    for kind in ("strips", "tiles", "OpenCV", "BigTIFF"):
        content = turned(kind, film(), 1)
        whole = decoded(tmp_path, content)[0]
        for end in (len(content) // 2, len(content) - 40, 12):
            picture = decoded(tmp_path, content[:end])[0]  # the cut may lie behind the pixels
            assert picture is None or (np.array_equal(picture, whole) and end > 2000), (kind, end)
    pages = [Image.fromarray(film().astype(np.uint8)) for _ in range(2)]
    content = save(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    picture, facts = decoded(tmp_path, content)
    assert np.array_equal(picture, truth) and facts["notes"] == [greys.PAGES]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_tiff_is_named_or_keeps_its_shape(tmp_path):
    rng = np.random.default_rng(0)
    sound = [turned(kind, film(), 6) for kind in ("OpenCV", "tiles", "deflate", "tiff_lzw")]
    sound.append(tiff(film() / 181, 32, ">", False, 3, deflate=True))
    for number in range(400):
        content = bytearray(sound[number % len(sound)])
        for place in rng.integers(len(content) - 260 * (number % 2 or 20), len(content), 3):
            content[max(place, 0)] ^= 1 << int(rng.integers(8))
        picture, facts = decoded(tmp_path, bytes(content))  # whatever it raises fails the test
        assert (picture is None) == bool(facts["reason"])
    height = sound[0].find(struct.pack(">HHI", 257, 4, 1))  # its height, as no picture has it
    content = sound[0][: height + 8] + struct.pack(">I", 2**23) + sound[0][height + 12 :]
    picture, facts = decoded(tmp_path, content)
    assert picture is None and facts["reason"]


def deep(values, dtype):
    image = Image.fromarray(values.astype(dtype))
    return save(image, "TIFF" if dtype in (np.int32, np.float32) else "PNG")


def test_deep_greys_are_the_same_picture_whatever_their_range(tmp_path, truth):
    hot = film() * 16
    hot[50, 3] = 65535
    line = film() * 16
    line[:, 70] = 65535
    infinite = film() / 181
    infinite[0, 0], infinite[0, 1], infinite[0, 2] = np.nan, np.inf, -np.inf
    cases = {
        "twelve bits": (film() * 16, np.uint16, greys.OWN),
        "sixteen bits": (film() * 350, np.uint16, greys.OWN),
        "an offset": (film() * 8 + 30_000, np.uint16, greys.STRETCHED),
        "one hot pixel": (hot, np.uint16, greys.STRETCHED),
        "a hot line": (line, np.uint16, greys.STRETCHED),
        "Hounsfield": (film() * 16 - 1024, np.int32, greys.STRETCHED),
        "all negative": (film() - 1024, np.int32, greys.STRETCHED),
        "large": (film() * 10 + 2_000_000_000, np.int32, greys.STRETCHED),
        "shares of one": (film() / 181, np.float32, greys.OWN),
        "logarithms": (np.log(film() + 1.0), np.float32, greys.OWN),
        "not numbers": (infinite, np.float32, greys.OWN),
    }
    for name, (values, dtype, note) in cases.items():
        picture, facts = decoded(tmp_path, deep(values, dtype))
        wanted = 0.8 if name in ("logarithms", "a hot line") else RIGHT
        assert likeness(picture, truth) > wanted, name
        assert facts["notes"] == [note], name
        assert int(picture.max()) - int(picture.min()) > 200, name
    flat, facts = decoded(tmp_path, deep(film() * 0 + 30_000, np.uint16))
    assert flat.min() == flat.max() and greys.NARROW in facts["notes"]
    # The rule before, to the bit, where it was right.
    values = (film() * 350).astype(np.uint16)
    own = np.rint(values.astype(np.float32) * (255 / float(values.max()))).astype(np.uint8)
    pixel, _ = greys.deep(values, white_is_zero=False)
    assert np.array_equal(pixel, own)


def test_what_is_transparent_is_black_and_what_is_opaque_keeps_its_values(tmp_path, truth):
    grey, seen = film().astype(np.uint8), np.where(film() > 4, 255, 0).astype(np.uint8)
    white = np.where(seen, grey, 255).astype(np.uint8)  # white under the transparent surroundings
    lack = decoded(tmp_path, save(Image.fromarray(np.where(seen, grey, 0).astype(np.uint8)), "PNG"))
    wide, rgb = white.astype(">u2") * 257, np.stack([white] * 3, -1)
    palette = Image.fromarray(white, "L").convert("P")
    palette.putpalette([v for grey in range(256) for v in (grey, grey, grey)])
    palette.paste(255, mask=Image.fromarray(255 - seen))
    key = np.where(seen, np.minimum(wide, 65000), 65535).astype(">u2")
    deep_la = np.stack([wide, seen.astype(">u2") * 257], -1).astype(">u2")
    multiplied = np.stack([np.where(seen, grey, 0), seen], -1)
    cases = {
        "LA": save(Image.fromarray(np.stack([white, seen], -1)), "PNG"),
        "RGBA": save(Image.fromarray(np.dstack([rgb, seen])), "PNG"),
        "WebP": save(Image.fromarray(np.dstack([rgb, seen])), "WEBP", lossless=True, exact=True),
        "palette, one index": save(palette, "PNG", transparency=255),
        "palette, a byte an index": save(palette, "PNG", transparency=bytes([255] * 255 + [0])),
        "GIF": save(palette, "GIF", transparency=255),
        "grey, a key": png([row.tobytes() for row in white], 8, 0, chunk(b"tRNS", b"\0\xff")),
        "RGB, a key": png([row.tobytes() for row in rgb], 8, 2, chunk(b"tRNS", b"\0\xff" * 3)),
        "16 bits, a key": png([r.tobytes() for r in key], 16, 0, chunk(b"tRNS", b"\xff\xff")),
        "16 bits, LA": png([row.tobytes() for row in deep_la], 16, 4),
        "TIFF, LA": tiff(np.stack([white, seen], -1), 8, extra=2),
        "TIFF, LA multiplied": tiff(multiplied, 8, ">", extra=1),
        "TIFF, RGBA": save(Image.fromarray(np.dstack([rgb, seen])), "TIFF"),
    }
    for name, content in cases.items():
        picture, facts = decoded(tmp_path, content)
        assert facts["reason"] is None, (name, facts["reason"])
        assert likeness(picture, lack[0]) > RIGHT, name
        assert greys.TRANSPARENT in facts["notes"], name
        if "16" not in name:
            assert np.abs(picture.astype(int) - lack[0]).max() <= 1, name
    for mode in ("LA", "RGBA", "PA"):
        opaque = Image.fromarray(grey).convert("RGBA").convert(mode)
        if mode != "PA":
            picture, facts = decoded(tmp_path, save(opaque, "PNG"))
            assert np.array_equal(picture, truth) and "notes" not in facts
    nothing = np.stack([grey, grey * 0], -1)
    picture, facts = decoded(tmp_path, save(Image.fromarray(nothing), "PNG"))
    assert np.array_equal(picture, truth) and facts["notes"] == [greys.ALL_TRANSPARENT]


def test_a_picture_of_few_greys_is_kept_and_told_once_with_a_count(tmp_path):
    rows = []
    for number, picture in enumerate([film(), film() // 16, 255 - film() // 16, film() // 2 + 40]):
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / f"{number}.png")
        rows.append({"image_id": str(number), "path": str(tmp_path / f"{number}.png")})
    cache = images.cache(pd.DataFrame(rows), size=60, folder=tmp_path / "c")
    assert cache.notes == [f"2 files: {greys.NARROW}, e.g. 1, 2."]
    assert cache.images[1].max() <= 12


def test_sixteen_bits_of_colour_keep_the_eight_that_pil_reads_and_say_when_few_are_used(
    tmp_path, truth
):
    for top, told in ((350, False), (16, True)):
        grey = (film() * top).astype(">u2")
        for channels, colour in (([grey] * 3, 2), ([grey, grey * 0 + 65535], 4)):
            whole = np.stack(channels, -1).astype(">u2")
            picture, facts = decoded(tmp_path, png([r.tobytes() for r in whole], 16, colour))
            assert likeness(picture, truth) > RIGHT
            assert (greys.NARROW in facts.get("notes", ())) == told


@pytest.mark.parametrize(
    "name",
    [
        *("float_signed.tif", "i16_12bit.png", "i16_12bit_one_hot_pixel.png", "i32_signed.tif"),
        *("i16_offset_30000.png", "la_white_under_transparent.png"),
        "rgba_white_under_transparent.png",
    ],
)
def test_the_shared_cases_show_the_same_picture(name):
    if not CASES.exists():
        pytest.skip(f"{CASES} is not there")
    with Image.open(CASES / "l8.png") as image:
        truth = np.asarray(image)
    with Image.open(CASES / name) as image:
        picture, notes = greys.grey(image)
    picture = np.asarray(picture)
    if "transparent" in name:
        assert notes == [greys.TRANSPARENT]
        with Image.open(CASES / name) as image:
            seen = np.asarray(image.getchannel("A")) > 0
        assert np.array_equal(picture, np.where(seen, truth, 0))
        return
    shown = picture < 255 if "hot" in name else truth >= 0
    assert notes and shown.mean() > 0.98 and likeness(picture[shown], truth[shown]) > RIGHT
    assert likeness(picture, truth) > RIGHT
