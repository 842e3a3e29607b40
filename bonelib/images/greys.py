"""Pictures of every mode become 8 bits of grey: one polarity, one range, black where nothing is.

An opened picture comes in; PIL's "L" and sentences about what was assumed go out. Pictures of 8
bits keep their values. What needs a rule:

- *More than 8 bits*: scaled from 0 to the picture's own maximum. Where greys are negative, or where
  that leaves less than half of the range to the picture (an offset, a hot pixel), it is stretched
  between the lowest and highest grey that a 3 × 3 median leaves; the median takes single pixels and
  lines away, and leaves a lead marker or a finger.
- *White is zero* (TIFF 6.0, PhotometricInterpretation 0), as film digitisers write. PIL 13.0 and
  OpenCV 5.0 turn such greys of 8 bits, and leave deeper ones as a negative.
- *Transparent parts* are no exposure: black, whatever grey lies below.
"""

import contextlib
import io
import sys
from typing import Any

import numpy as np

TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WIDTH, HEIGHT, PHOTOMETRIC, SAMPLES, FORMAT = 256, 257, 262, 277, 339  # tags of TIFF 6.0
FEW = 64  # of 256 greys
OWN = "more than 8 bits, scaled by the picture's own maximum"
STRETCHED = (
    "more than 8 bits, with negative greys or less than half of the range used: stretched "
    "between the lowest and the highest grey, single pixels left aside"
)
TRANSPARENT = "transparent parts are shown black"
ALL_TRANSPARENT = "transparent everywhere: the transparency was ignored"
PAGES = "several pictures in one file: the first was read"
NEGATIVE = (
    "bright at its edges and darker inside: perhaps a negative, on which no prediction means "
    "anything, or a picture in a white frame. Look at it, and invert it if bone is dark"
)
NARROW = f"fewer than {FEW} of 256 greys lie between the 1st and the 99th percentile"


def grey(image: Any) -> tuple[Any, list[str]]:
    """Decode an opened picture to PIL's "L"; also say what was assumed."""
    from PIL import Image, ImageChops

    tags = image.tag_v2 if image.format == "TIFF" else {}
    notes = [PAGES] if tags and tags.next else []
    image.load()  # a truncated file raises here
    signed = tags.get(FORMAT, (1,))[0] == 2
    if image.mode.startswith(("I", "F")) or (image.mode == "L" and signed):
        values = np.asarray(image)
        if image.mode == "L":  # PIL takes these bytes for unsigned, and the next words for signed
            values = values.view(np.int8)
        elif image.mode == "I" and tags and not signed:
            values = values.view(np.uint32)
        hidden = values == image.info["transparency"] if "transparency" in image.info else None
        pixels, note = deep(values, white_is_zero=tags.get(PHOTOMETRIC) == 0, hidden=hidden)
        return Image.fromarray(pixels), [*notes, note, *([] if hidden is None else [TRANSPARENT])]
    if image.has_transparency_data:
        # Only "LA" undoes a multiplication by the transparency.
        colours = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        lowest, highest = colours.getchannel("A").getextrema()
        if lowest < 255 and highest:
            black = ImageChops.multiply(colours.convert("L"), colours.getchannel("A"))
            return black, [*notes, TRANSPARENT]
        if lowest < 255:
            return colours.convert("L"), [*notes, ALL_TRANSPARENT]
    return image.convert("L"), notes


def deep(
    values: np.ndarray, *, white_is_zero: bool, hidden: np.ndarray | None = None
) -> tuple[np.ndarray, str]:
    """Scale greys of any number type to uint8; also say how.

    Args:
        values: ``(rows, columns)``; what is not a number counts as the lowest.
        white_is_zero: The lowest grey is shown white.
        hidden: bool, what is transparent.
    """
    import cv2

    exact = values.dtype.kind == "u" and values.dtype.itemsize == 2
    values = values.astype(np.uint16 if exact else np.float64)
    if not exact:
        finite = values[np.isfinite(values)]
        least, most = (finite.min(), finite.max()) if finite.size else (0, 0)
        values = np.nan_to_num(values, nan=min(0, least), neginf=min(0, least), posinf=most)
    if hidden is not None and not hidden.all():
        values[hidden] = values[~hidden].min()
    low, high = lowest, highest = float(values.min()), float(values.max())
    calm = cv2.medianBlur(values if exact else (values - lowest).astype(np.float32), 3)
    used = float(calm.max()) - float(calm.min())
    if lowest >= 0 and used * 2 >= highest:
        low, note = 0.0, OWN
    else:
        note = STRETCHED
        if used:
            low = float(calm.min()) + (0 if exact else lowest)
            high = low + used
    shifted = (values.astype(np.float32) if exact else values) - low
    scaled = shifted.astype(np.float32) * (255 / (high - low) if high > low else 0)
    pixels = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    pixels = 255 - pixels if white_is_zero else pixels
    if hidden is not None:
        pixels[hidden] = 0
    return pixels, note


def swapped(image: Any) -> bool:
    """Tell whether PIL 13.0 would swap the bytes of an opened TIFF twice: libtiff has done it."""
    other = image.tag_v2.prefix != (b"II" if sys.byteorder == "little" else b"MM")
    return other and image.mode in ("I", "F") and image.info.get("compression") != "raw"


def tiff(content: bytes) -> tuple[Any, dict[str, Any]]:
    """Decode, upright, a grey TIFF that PIL doesn't know or misreads; the facts as in ``pixels``.

    Raises:
        ValueError: OpenCV can't read it either, or would drop bits or the transparency.
    """
    import cv2
    from PIL import Image, TiffImagePlugin

    stream = io.BytesIO(content)
    head = content[:16] if content.startswith(TIFFS[2:]) else content[:8]
    tags = TiffImagePlugin.ImageFileDirectory_v2(head)
    stream.seek(tags.next)
    tags.load(stream)
    width, height, samples = (int(tags.get(tag, 1)) for tag in (WIDTH, HEIGHT, SAMPLES))
    if width * height > (Image.MAX_IMAGE_PIXELS or width * height):
        raise Image.DecompressionBombError
    kind = int(tags.get(PHOTOMETRIC, 1))
    values = None
    if samples == 1 and kind in (0, 1):
        with contextlib.suppress(cv2.error):  # impossible sizes
            values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.size != width * height:
        bits = " + ".join(map(str, tags.get(258, (1,))))
        raise ValueError(
            f"a TIFF of {bits} bits a pixel, photometric interpretation {kind}, which is damaged "
            "or which neither PIL nor OpenCV reads. Save it as one grey of 8 or 16 bits."
        )
    # OpenCV turns greys of 8 bits, and every picture by its orientation.
    turned = kind == 0 and values.dtype.itemsize > 1
    pixels, note = deep(values, white_is_zero=turned)
    facts = {"stored_width": width, "stored_height": height, "turn": 1, "format": "TIFF"}
    facts["shown"] = values.shape[::-1]
    notes = [note, *([PAGES] if tags.next else [])]
    return Image.fromarray(pixels), facts | {"mode": values.dtype.name, "notes": notes}


def narrow(pixels: np.ndarray) -> bool:
    """Tell whether a uint8 picture uses little of its range: nearly black, white or flat."""
    import cv2

    below = cv2.calcHist([pixels], [0], None, [256], [0, 256]).cumsum(dtype=float)
    first, last = np.searchsorted(below, (0.01 * below[-1], 0.99 * below[-1]))
    return bool(last - first < FEW)


def negative(pixels: np.ndarray) -> bool:
    """Tell whether a uint8 picture looks like a negative: bright air around, a darker limb inside.

    A suspicion. Of 709 public radiographs of limbs 2 are suspected without being one (films in a
    white frame); inverted, 26 % (FracAtlas) to 81 % (hands of the RSNA) are.
    """
    rows, columns = (max(1, side // 16) for side in pixels.shape)
    edges = np.ones(pixels.shape, dtype=bool)
    edges[rows:-rows, columns:-columns] = False
    rows, columns = (side // 4 for side in pixels.shape)
    edge, inside = (np.median(x) for x in (pixels[edges], pixels[rows:-rows, columns:-columns]))
    return bool(edge >= 128 and edge - inside >= 20)
