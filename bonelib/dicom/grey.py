"""From stored values to the grey a radiologist sees: one table over all values a pixel can store.

A header comes in; an array of 2**bits greys goes out, to be indexed with the stored values. The
order is that of PS3.3 C.11 and PS3.4 N.2: modality LUT → VOI LUT or window → presentation LUT →
one inversion, if MONOCHROME1 or the presentation LUT shape INVERSE asks for it. DX says both of
one and the same inversion (PS3.3 C.8.11.3), so two of them never cancel out; files with
MONOCHROME1 beside IDENTITY are known, and are white bones turned black if IDENTITY is believed
(dcm4chee-arc-light issue 3155), so that word alone never undoes an inversion.

Everything is applied to the table and not to the picture: 65,536 values instead of millions, and
the same exact arithmetic for every file.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
SHAPES = ("IDENTITY", "INVERSE")


@dataclass(frozen=True)
class Chain:
    """What a header, or a presentation state in its stead, says about greys.

    Attributes:
        modality: Lookup table, or (slope, intercept).
        voi: Lookup table, or (centre, width, function), or None where nothing usable is said.
        presentation: Lookup table of a presentation state, else None.
        inverted: The lowest value is white.
        notes: What is odd, in sentences.
    """

    modality: "Lut | tuple[float, float]"
    voi: "Lut | tuple[float, float, str] | None"
    presentation: "Lut | None"
    inverted: bool
    notes: tuple[str, ...]

    @property
    def told(self) -> str:
        """The VOI step in a word: ``VOI LUT``, ``window 550/1024``, ``none``."""
        if self.voi is None:
            return "none"
        if isinstance(self.voi, Lut):
            return "VOI LUT"
        return f"window {self.voi[0]:g}/{self.voi[1]:g}"


@dataclass(frozen=True)
class Lut:
    """A lookup table of PS3.3 C.11.1: ``values[x - first]``, held at both ends."""

    values: np.ndarray
    first: int
    highest: int

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Look up values of any shape, float64."""
        index = np.clip(np.rint(x) - self.first, 0, len(self.values) - 1).astype(np.int64)
        return self.values[index].astype(np.float64)


def chain(header: "Dataset", state: "Dataset | None" = None) -> Chain:
    """Read the steps from a header; a presentation state replaces them all (PS3.4 N.2).

    Raises:
        ValueError: A step is there and can't be understood; all problems are listed.
    """
    problems: list[str] = []
    notes: list[str] = []
    source = header if state is None else state
    signed = text(header, "PixelRepresentation") == "1"
    modality = _modality(source, signed, problems)
    item = source if state is None else _softcopy(header, state)
    below = signed or (not isinstance(modality, Lut) and modality[1] < 0)
    voi = _voi(item, below, problems, notes)
    shape = text(source, "PresentationLUTShape")
    presentation = None
    if state is not None and "PresentationLUTSequence" in state:
        presentation = _lut(_items(state, "PresentationLUTSequence", problems), False, problems)
    elif shape and shape not in SHAPES:
        problems.append(f"Presentation LUT Shape is {shape!r}, expected {' or '.join(SHAPES)}")
    photometric = text(header, "PhotometricInterpretation")
    # A state is complete in itself: the photometric interpretation isn't looked at any more.
    first_white = state is None and photometric == "MONOCHROME1"
    if state is None and shape and (shape == "INVERSE") != first_white:
        notes.append(f"{photometric} and Presentation LUT Shape {shape} contradict each other")
    if text(source, "ImageRotation") not in ("", "0") or text(source, "ImageHorizontalFlip") == "Y":
        notes.append("the presentation state turns or mirrors the picture, which is not done here")
    if problems:
        raise ValueError("; ".join(problems))
    return Chain(modality, voi, presentation, first_white or shape == "INVERSE", tuple(notes))


def table(
    steps: Chain, *, stored: int, signed: bool, clipped: bool, bits: int, present: Any = None
) -> np.ndarray:
    """Compute the grey of every 16-bit pattern that a pixel may hold.

    Args:
        stored: Bits Stored.
        signed: Values are two's complement.
        clipped: Patterns above the stored bits mean "too bright" (a lossy decoder overshoots); else
            the bits above are something else and are cut off.
        bits: 8 or 16, of the greys.
        present: Called for the (lowest, highest) modality value of the picture where no VOI is
            said; by default all that could be stored.

    Returns:
        uint8 or uint16 ``(65536,)``, 0 black.
    """
    pattern = np.arange(65536, dtype=np.int64)
    if signed:
        half = 1 << (stored - 1)
        if clipped:  # patterns are sign-extended by the decoder
            value = np.clip(np.where(pattern > 32767, pattern - 65536, pattern), -half, half - 1)
        else:
            value = ((pattern & (2 * half - 1)) ^ half) - half
    else:
        most = (1 << stored) - 1
        value = np.minimum(pattern, most) if clipped else pattern & most
    x = _through_modality(steps, value)
    if steps.voi is None:
        low, high = (x.min(), x.max()) if present is None else present(x)
        y = np.clip((x - low) / max(high - low, 1e-12), 0, 1)
    elif isinstance(steps.voi, Lut):
        y = steps.voi(x) / steps.voi.highest
    else:
        y = window(x, *steps.voi)
    if steps.presentation is not None:  # its input spans the whole output of the step before
        last = len(steps.presentation.values) - 1
        y = steps.presentation(y * last + steps.presentation.first) / steps.presentation.highest
    y = 1 - y if steps.inverted else y
    top = (1 << bits) - 1
    return np.rint(np.clip(y, 0, 1) * top).astype(np.uint8 if bits == 8 else np.uint16)


def window(x: np.ndarray, center: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """Map values to 0–1 by a window, PS3.3 C.11.2.1.2 and C.11.2.1.3 (equations C.11-1 to C.11-3).

    The plain ``LINEAR`` has its centre at c - 0.5 and spans w - 1: width 1 is a step.
    """
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (x - center) / width, -700, 700)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    low, high = center - width / 2, center + width / 2
    inside = (x - center) / (width or 1) + 0.5
    return np.where(x <= low, 0.0, np.where(x > high, 1.0, inside))


def text(header: "Dataset", keyword: str) -> str:
    """Return the first value of an element as stripped text, "" where it is absent or empty."""
    value = header.get(keyword)
    if value is None:
        return ""
    if not isinstance(value, str | bytes) and hasattr(value, "__len__"):
        value = value[0] if len(value) else ""
    return str(value).strip("\0 ")


def numbers(header: "Dataset", keyword: str) -> list[float]:
    """Return the finite numbers of an element.

    Raises:
        ValueError: A value is not a number.
    """
    value = header.get(keyword)
    if value is None or value == "":
        return []
    several = not isinstance(value, str | int | float) and hasattr(value, "__len__")
    found = [float(v) for v in (value if several else [value]) if v is not None and v != ""]
    if not np.isfinite(found).all():
        raise ValueError(f"{keyword} is not a finite number")
    return found


def _through_modality(steps: Chain, value: np.ndarray) -> np.ndarray:
    if isinstance(steps.modality, Lut):
        return steps.modality(value)
    slope, intercept = steps.modality
    return value * slope + intercept


def _modality(source: "Dataset", signed: bool, problems: list[str]) -> "Lut | tuple[float, float]":
    if "ModalityLUTSequence" in source:
        found = _lut(_items(source, "ModalityLUTSequence", problems), signed, problems)
        return found if found is not None else (1.0, 0.0)
    try:
        slope = (numbers(source, "RescaleSlope") or [1.0])[0]
        intercept = (numbers(source, "RescaleIntercept") or [0.0])[0]
    except (ValueError, TypeError) as error:
        problems.append(f"the rescale slope or intercept can't be read ({error})")
        return 1.0, 0.0
    if slope == 0:
        problems.append("Rescale Slope is 0")
    return slope, intercept


def _voi(
    source: "Dataset | None", below: bool, problems: list[str], notes: list[str]
) -> "Lut | tuple[float, float, str] | None":
    """Take the first LUT, else the first usable window: the alternatives are for choice by hand."""
    if source is None:
        return None
    function = text(source, "VOILUTFunction") or "LINEAR"
    if function not in FUNCTIONS:
        problems.append(f"VOI LUT Function is {function!r}, expected {', '.join(FUNCTIONS)}")
    if len(source.get("VOILUTSequence") or ()):
        return _lut(_items(source, "VOILUTSequence", problems), below, problems)
    try:
        pairs = list(
            zip(numbers(source, "WindowCenter"), numbers(source, "WindowWidth"), strict=False)
        )
    except (ValueError, TypeError) as error:
        problems.append(f"the window can't be read ({error})")
        return None
    least = 1.0 if function == "LINEAR" else 1e-12  # PS3.3 C.11.2.1.2: at least 1, or above 0
    usable = [pair for pair in pairs if pair[1] >= least]
    if len(usable) < len(pairs):
        widths = ", ".join(f"{width:g}" for _, width in pairs)
        notes.append(f"a window has an impossible width ({widths})")
    return (*usable[0], function) if usable else None


def _lut(items: Any, below: bool, problems: list[str]) -> Lut | None:
    """Read the first item of a LUT sequence; ``below`` reads its first input as signed."""
    try:
        item = items[0]
        count, first, bits = (int(v) for v in item["LUTDescriptor"].value)
        count = (count & 0xFFFF) or 65536  # PS3.3 C.11.1.1.1: 0 stands for 2**16
        first = (first & 0xFFFF) - (65536 if below and (first & 0xFFFF) > 32767 else 0)
        data = item["LUTData"].value
    except (KeyError, IndexError, TypeError, ValueError):
        problems.append("a lookup table lacks its descriptor or its data")
        return None
    if isinstance(data, bytes):
        wide = len(data) >= 2 * count
        values = np.frombuffer(
            data[: len(data) // 2 * 2] if wide else data, "<u2" if wide else "u1"
        )
    else:
        values = np.atleast_1d(np.asarray(data)).astype(np.int64) & 0xFFFF
        if len(values) == (count + 1) // 2 < count:  # 8-bit entries, two in a word
            values = values.astype("<u2").view(np.uint8)
    if not 8 <= bits <= 16 or len(values) < count:
        problems.append(
            f"a lookup table of {count} entries of {bits} bits holds {len(values)} values"
        )
        return None
    values = values[:count].astype(np.int64)
    # Some writers understate the bits of an entry; what stands in the data is then the truth.
    return Lut(values, first, max((1 << bits) - 1, int(values.max())))


def _items(source: "Dataset", keyword: str, problems: list[str]) -> Any:
    found = source.get(keyword)
    if not found or not hasattr(found, "__getitem__"):
        problems.append(f"{keyword} is empty")
        return []
    return found


def _softcopy(header: "Dataset", state: "Dataset") -> "Dataset | None":
    """Find the VOI of a presentation state for this image; an item without images means all.

    Raises:
        ValueError: The state is about other images.
    """
    own = text(header, "SOPInstanceUID")
    named = [
        text(image, "ReferencedSOPInstanceUID")
        for series in state.get("ReferencedSeriesSequence") or ()
        for image in series.get("ReferencedImageSequence") or ()
    ]
    if own not in named:
        raise ValueError(
            f"the presentation state names {len(named)} images and not this one. "
            "Give the state that was made for it."
        )
    for item in state.get("SoftcopyVOILUTSequence") or ():
        images = [
            text(i, "ReferencedSOPInstanceUID") for i in item.get("ReferencedImageSequence", ())
        ]
        if not images or own in images:
            return item
    return None
