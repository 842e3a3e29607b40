"""One file becomes one square of grey pixels, and an outline lands on the same square.

The path of a JPEG, PNG, TIFF or DICOM file comes in; uint8 ``(size, size)`` goes out with the facts
of the file and the place of the image in the square, which ``mask`` uses to draw a lesion's outline
there.

Outlines are in pixels of the image as a viewer shows it, which for a JPEG may be turned by its EXIF
orientation (FracAtlas has such files, outlined after turning). x runs right and y down, 0 at the
outer edge of the first pixel.
"""

import io
import json
import os
import stat
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bonelib import cohort, dicom
from bonelib.images import damage, greys

FITS = ("pad", "squash")
RECIPE = 5  # part of the key of a store: raise it when decoding changes, and stores are made anew
GEOMETRY = ("width", "height", "scale_x", "scale_y", "offset_x", "offset_y", "turn")
FILES = ("sha256", "width", "height", "bytes", "mean_grey", "mode", "format")
PIXELS = 89_478_485  # PIL's own limit against files that unpack to fill the memory
# What PIL raises on broken files: truncated data, bad chunks, impossible sizes, odd tags.
BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error)
BROKEN += (ArithmeticError, LookupError, TypeError, MemoryError)
# EXIF orientation → PIL's transposition that shows the image upright (FLIP_LEFT_RIGHT = 0, …).
_UPRIGHT = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
_INVERSE = {6: 8, 8: 6}  # a quarter turn is undone by the opposite one, the others by themselves


def decode(path: str, *, size: int, fit: str) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Decode one file to ``(size, size)`` with its facts, or to None with the ``reason``.

    ``pad`` shows the image upright, keeps its aspect, shrinks by area and continues its
    edges by their mean. ``squash`` is PIL's bicubic resize of the whole image as PIL loads it:
    turned upright if it is a TIFF, else as stored. ``notes`` in the facts say what was assumed.
    What is damaged is refused as far as it can be seen; ``damage`` says how far that is.
    """
    from PIL import Image, UnidentifiedImageError

    if not path:
        return None, {"reason": "there is no file"}
    try:
        # Asked first: opening a pipe or a device could wait for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None, {"reason": "not a file"}
        content = Path(path).read_bytes()
        if not content:
            return None, {"reason": "the file is empty (0 bytes)"}
        fault = damage.png(content) if content.startswith(damage.SIGNATURE) else None
        if fault:
            return None, {"reason": fault}
        if dicom.is_dicom(content):
            grey, facts = _radiograph(content)
        else:
            grey, facts, fault = _picture(content, size, whole=fit == "squash")
    except UnidentifiedImageError:
        return None, {"reason": "not a picture in a format that PIL knows"}
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reason = f"more pixels than any radiograph has (the limit is {PIXELS:,}): not decoded"
        return None, {"reason": reason}
    except BROKEN as error:
        told = str(error) if isinstance(error, OSError | ValueError | SyntaxError) else ""
        reason = getattr(error, "strerror", None) or told or f"PIL can't decode it ({error!r})"
        return None, {"reason": reason}
    if fault:
        return None, {"reason": fault}

    facts["bytes"], turn = len(content), facts["turn"]
    width, height = facts.pop("shown", (facts["stored_width"], facts["stored_height"]))
    if fit == "squash":
        content = np.asarray(grey.resize((size, size), Image.Resampling.BICUBIC))
        pixels, left, top = content, 0, 0
    else:
        upright = grey if turn == 1 else grey.transpose(_UPRIGHT[turn])
        pixels, content, left, top = _pad(np.asarray(upright), width, height, size)
        turn = 1
    facts |= {"width": width, "height": height, "offset_x": left, "offset_y": top, "turn": turn}
    if facts["format"] != "DICOM" and greys.narrow(content):
        facts["notes"] = [*facts.get("notes", ()), greys.NARROW]
    facts |= {"scale_x": content.shape[1] / width, "scale_y": content.shape[0] / height}
    return pixels, facts | {"mean_grey": round(float(content.mean()), 3), "reason": None}


def _radiograph(content: bytes) -> tuple[Any, dict[str, Any]]:
    """Decode a DICOM file to PIL's "L", bone bright; the facts hold what is odd about it."""
    from PIL import Image

    values, header = dicom.read(content, bits=8)
    facts = {"stored_width": header["columns"], "stored_height": header["rows"]}
    facts |= {"mode": f"{header['photometric']} {header['bits']}", "format": "DICOM", "turn": 1}
    return Image.fromarray(values), facts | {"notes": list(header["notes"])}


def _picture(content: bytes, size: int, *, whole: bool) -> tuple[Any, dict[str, Any], str | None]:
    """Decode a file that PIL or OpenCV knows to "L", its facts, and what is wrong with it.

    ``shown`` are the width and height after turning, ``turn`` the orientation left to be turned:
    PIL turns a TIFF itself when it loads the pixels, and no other format.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        if not content.startswith(greys.TIFFS):
            raise
        return *greys.tiff(content), None
    if image.format == "TIFF" and greys.swapped(image):
        return *greys.tiff(content), None
    with image:
        if image.width * image.height > PIXELS:
            raise Image.DecompressionBombError
        facts = {"stored_width": image.width, "stored_height": image.height}
        facts |= {"mode": image.mode, "format": image.format}
        if image.format == "TIFF":
            tags = (greys.WIDTH, greys.HEIGHT)
            facts |= dict(zip(facts, (image.tag_v2[tag] for tag in tags), strict=False))
            turn = 1
        else:
            turn = image.getexif().get(0x0112, 1)
            turn = turn if turn in _UPRIGHT else 1
        grey, notes, fault = _luminance(image, content, size, whole=whole)
        facts |= {"turn": turn, "shown": image.size if turn < 5 else image.size[::-1]}
    return grey, facts | ({"notes": notes} if notes else {}), fault


def _luminance(
    image: Any, content: bytes, size: int, *, whole: bool
) -> tuple[Any, list[str], str | None]:
    """Decode an opened file to "L"; also say what was assumed, and what is wrong with it.

    Args:
        size: Side of the square it is for: a JPEG need not be decoded to much more.
        whole: Every pixel is asked for nevertheless.
    """
    from PIL import Image

    found = damage.frame(content) if image.format in ("JPEG", "MPO") else None
    longer = damage.lengthened(content, found) if found else None
    if longer is None:
        return *greys.grey(image), None
    # Twice the wanted size or more comes out of the JPEG decoder, the rest by area.
    most = min(max(image.size) / (2 * size), *image.size)
    step = next((step for step in (8, 4, 2) if step <= most), 1)
    with Image.open(io.BytesIO(longer)) as opened:
        drafted = damage.draft(opened, step)
        if drafted.mode != "L":  # components are RGB, not luminance and colour
            return *greys.grey(image), None
        pixels = np.asarray(drafted)
    fault = damage.jpeg(pixels, longer, found, step)
    if fault:
        return None, [], fault
    if whole:
        return *greys.grey(image), None
    return Image.fromarray(pixels[: -(-image.height // step)]), [], None


def _pad(
    grey: np.ndarray, width: int, height: int, size: int
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Fit ``grey``, drafted from ``width`` × ``height``, into a square; also content, left, top."""
    import cv2

    wide = max(1, round(width * size / max(width, height)))
    high = max(1, round(height * size / max(width, height)))
    shrinks = wide <= grey.shape[1] and high <= grey.shape[0]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    content = cv2.resize(grey, (wide, high), interpolation=way)
    left, top = (size - wide) // 2, (size - high) // 2
    # Each strip takes the mean of the edge it continues; a fixed grey would draw a frame.
    pixels = np.empty((size, size), np.uint8)
    pixels[:top], pixels[top + high :] = (np.rint(edge.mean()) for edge in content[[0, -1]])
    pixels[:, :left] = np.rint(content[:, 0].mean())
    pixels[:, left + wide :] = np.rint(content[:, -1].mean())
    pixels[top : top + high, left : left + wide] = content
    return pixels, content, left, top


def mask(value: str, geometry_row: pd.Series, *, size: int) -> np.ndarray:
    """Draw a lesion's outline into the cached pixels.

    A pixel belongs to the lesion if more than half of it is covered; a lesion smaller than that
    keeps the pixel it covers most, so that no lesion vanishes.

    Args:
        value: A cell of the column ``mask``: JSON polygons or the path of a PNG.
        geometry_row: The image's row of ``cache.geometry``.
        size: ``cache.size``.

    Returns:
        bool ``(size, size)``.

    Raises:
        ValueError: The cell is empty, or the PNG has not the size of its image.
        FileNotFoundError: The PNG is not there.
    """
    import cv2
    from PIL import Image

    name, row = geometry_row[cohort.IMAGE_ID], geometry_row
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} has no outline. Keep the rows whose mask is not NA.")
    if value.lstrip().startswith("["):
        fine = 8  # sub-pixels along each side; filled with fine², a pixel's mean is their number
        canvas = np.zeros((size * fine, size * fine), np.uint8)
        for polygon in json.loads(value):
            points = np.array(polygon, float) * [row["scale_x"], row["scale_y"]]
            points = (points + [row["offset_x"], row["offset_y"]]) * fine - 0.5  # pixel centres
            # One at a time: drawn together, overlapping outlines would cancel out. 4: sixteenths.
            cv2.fillPoly(canvas, [np.rint(points * 16).astype(np.int32)], fine**2, shift=4)
        covered = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA) / fine**2
    else:
        with Image.open(value) as image:
            truth = (np.asarray(image.convert("L")) > 0).astype(np.float32)
        if truth.shape != (row["height"], row["width"]):
            raise ValueError(
                f"The mask {value} is {truth.shape[1]} × {truth.shape[0]} pixels, its image {name} "
                f"{row['width']} × {row['height']}. Save the mask in the size of the image."
            )
        wide, high = round(row["width"] * row["scale_x"]), round(row["height"] * row["scale_y"])
        left, top = int(row["offset_x"]), int(row["offset_y"])
        covered = np.zeros((size, size), np.float32)
        content = cv2.resize(truth, (wide, high), interpolation=cv2.INTER_AREA)
        covered[top : top + high, left : left + wide] = content
    most = covered.max()
    drawn = covered > 0.5 if most > 0.5 else (covered == most) & (covered > 0)
    if row["turn"] != 1:  # a squashed image keeps the stored orientation
        back = _UPRIGHT[_INVERSE.get(row["turn"], row["turn"])]
        drawn = np.asarray(Image.fromarray(drawn).transpose(back))
    return drawn
