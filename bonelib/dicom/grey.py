"""From stored values to the grey a radiologist sees: one table over all values a pixel can store.

A header comes in; an array of 2**16 greys goes out, to be indexed with the stored values. The order
is that of PS3.3 C.11 and PS3.4 N.2: modality LUT → VOI LUT or window → presentation LUT → one
inversion. Windows are computed by ``pydicom.pixels``. What it lacks is here: which of several
windows is usable, tables as hospitals write them, one polarity, and refusals.

Inverted is once, if MONOCHROME1 or the presentation LUT shape INVERSE asks for it. DX says both of
one and the same inversion (PS3.3 C.8.11.3), so two of them never cancel out; files with MONOCHROME1
beside IDENTITY are known, and are white bones turned black if IDENTITY is believed
(dcm4chee-arc-light issue 3155), so that word alone never undoes an inversion. Pictures FOR
PROCESSING have no such law: there the Pixel Intensity Relationship Sign says which end is bone.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bonelib.dicom import facts
from bonelib.dicom.elements import numbers, text, whole

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
SHAPES = ("IDENTITY", "INVERSE")
TAIL = 0.01  # of the pixels at each end that a stretch of logarithms leaves out


class Lut(NamedTuple):
    """A lookup table of PS3.3 C.11.1: ``values[x - first]``, held at both ends."""

    values: np.ndarray
    first: int
    highest: int

    def look_up(self, x: np.ndarray) -> np.ndarray:
        """Look up values of any shape, float64."""
        index = np.clip(np.rint(x) - self.first, 0, len(self.values) - 1).astype(np.int64)
        return self.values[index].astype(np.float64)


@dataclass(frozen=True)
class Chain:
    """What a header, or a presentation state in its stead, says about greys.

    Attributes:
        modality: Lookup table, or (slope, intercept).
        voi: Lookup table, or (centre, width, function), or None where nothing usable is said.
        presentation: Lookup table of a presentation state, else None.
        inverted: The lowest value is white.
        log: Values are exposures: their logarithm is shown, as film and detectors do.
        notes: What is odd, in sentences.
    """

    modality: Lut | tuple[float, float]
    voi: Lut | tuple[float, float, str] | None
    presentation: Lut | None
    inverted: bool
    log: bool
    notes: tuple[str, ...]

    @property
    def step(self) -> str:
        """The VOI step in a word: ``VOI LUT``, ``window 550/1024``, ``none``."""
        if self.voi is None:
            return "none"
        return "VOI LUT" if isinstance(self.voi, Lut) else f"window {self.voi[0]:g}/{self.voi[1]:g}"


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
    voi = _voi(item, below, problems, notes) if item is not None else None
    shape = text(source, "PresentationLUTShape")
    presentation = None
    if state is not None and "PresentationLUTSequence" in state:
        presentation = _lut(state, "PresentationLUTSequence", False, problems)
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
    inverted, log = first_white or shape == "INVERSE", False
    if state is None and facts.is_raw(header):
        inverted, log = _raw(header, modality, voi, inverted, notes)
    return Chain(modality, voi, presentation, inverted, log, tuple(notes))


def _raw(
    header: "Dataset", modality: Any, voi: Any, inverted: bool, notes: list[str]
) -> tuple[bool, bool]:
    """Find polarity and logarithm of a picture FOR PROCESSING, PS3.3 C.8.11.3.1.2."""
    sign = whole(text(header, "PixelIntensityRelationshipSign"))
    if sign not in (1, -1):
        notes.append(
            "FOR PROCESSING without a Pixel Intensity Relationship Sign: the polarity is that of "
            "the Photometric Interpretation, and may be wrong"
        )
        return inverted, False
    # 1: a lower value is less exposure, which is bone; steps that fall turn that round.
    rising = all(
        step.values[-1] >= step.values[0] if isinstance(step, Lut) else step[0] > 0
        for step in (modality, voi if isinstance(voi, Lut) else (1.0,))
    )
    linear = text(header, "PixelIntensityRelationship") == "LIN"
    log = linear and voi is None and sign == 1 and rising
    how = ", as the log of a linear exposure, from its 1st to its 99th percentile" if log else ""
    notes.append(f"FOR PROCESSING: bone bright by the Pixel Intensity Relationship Sign{how}")
    return rising == (sign == 1), log


def values(*, stored: int, signed: bool, clipped: bool) -> np.ndarray:
    """Compute the stored value of every 16-bit pattern that a pixel may hold, int ``(65536,)``.

    Args:
        stored: Bits Stored.
        signed: Values are two's complement.
        clipped: Patterns above the stored bits mean "too bright" (a lossy decoder overshoots); else
            the bits above are something else and are cut off.
    """
    pattern, half = np.arange(65536), 1 << (stored - 1)
    if not clipped:
        value = pattern & (2 * half - 1)
        return (value ^ half) - half if signed else value
    if signed:  # patterns are sign-extended by the decoder
        return np.clip(pattern - 65536 * (pattern > 32767), -half, half - 1)
    return np.minimum(pattern, 2 * half - 1)


def padding(header: "Dataset", value: np.ndarray) -> np.ndarray | None:
    """Find the patterns that stand for "no picture here", PS3.3 C.7.5.1.1.2.

    Args:
        value: What ``values`` returned.

    Returns:
        bool ``(65536,)``; None where no padding is named. A padding value outside the stored bits,
        which some writers put into the whole word, is compared with that word.
    """
    first = whole(text(header, "PixelPaddingValue"))
    last = whole(text(header, "PixelPaddingRangeLimit"))
    if first is None:
        return None
    signed, bits = value.min() < 0, int(header.BitsStored)
    ends = np.array([first, first if last is None else last]) & 0xFFFF
    if signed:  # writers use US and SS alike, and the stored bits alone
        ends = np.where(ends > 32767, ends - 65536, ends)
        ends = np.where(ends >= 1 << (bits - 1), ends - (1 << bits), ends)
    low, high = sorted(ends.tolist())
    where = value if signed or high < 1 << bits else np.arange(65536)
    return (where >= low) & (where <= high)


def table(steps: Chain, value: np.ndarray, *, bits: int, present: Any) -> np.ndarray:
    """Compute the grey of every stored value.

    Args:
        value: ``(65536,)``, what ``values`` returned.
        bits: 8 or 16, of the greys.
        present: Called for the (lowest, highest) of the picture's modality values where no VOI is
            said, with the share of pixels to leave out at each end.

    Returns:
        uint8 or uint16 ``(65536,)``, 0 black.
    """
    if isinstance(steps.modality, Lut):
        x = steps.modality.look_up(value)
    else:
        x = value * steps.modality[0] + steps.modality[1]
    if steps.voi is None:
        x = np.log(np.maximum(x, 1)) if steps.log else x
        low, high = present(x, TAIL if steps.log else 0)
        y = np.clip((x - low) / max(high - low, 1e-12), 0, 1)
    elif isinstance(steps.voi, Lut):
        y = steps.voi.look_up(x) / steps.voi.highest
    else:
        y = window(x, *steps.voi)
    if steps.presentation is not None:  # its input spans the whole output of the step before
        last = len(steps.presentation.values) - 1
        y = steps.presentation.look_up(y * last + steps.presentation.first)
        y = y / steps.presentation.highest
    y = 1 - y if steps.inverted else y
    top = (1 << bits) - 1
    return np.rint(np.clip(y, 0, 1) * top).astype(np.uint8 if bits == 8 else np.uint16)


def window(x: np.ndarray, center: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """Map values to 0–1 by a window, PS3.3 C.11.2.1.2 and C.11.2.1.3, as pydicom does."""
    from pydicom.dataset import Dataset
    from pydicom.pixels import apply_windowing

    said = Dataset()
    said.PhotometricInterpretation, said.VOILUTFunction = "MONOCHROME2", function
    said.BitsStored, said.PixelRepresentation = 1, 0  # the output spans 0 to 2**1 - 1
    said.add_new("WindowCenter", "FD", float(center))
    said.add_new("WindowWidth", "FD", float(width))
    with np.errstate(over="ignore"):
        return apply_windowing(x, said)


def _modality(source: "Dataset", signed: bool, problems: list[str]) -> Lut | tuple[float, float]:
    if "ModalityLUTSequence" in source:
        return _lut(source, "ModalityLUTSequence", signed, problems) or (1.0, 0.0)
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
    source: "Dataset", below: bool, problems: list[str], notes: list[str]
) -> Lut | tuple[float, float, str] | None:
    """Take the first LUT, else the first usable window: the alternatives are for choice by hand."""
    function = text(source, "VOILUTFunction") or "LINEAR"
    if function not in FUNCTIONS:
        problems.append(f"VOI LUT Function is {function!r}, expected {', '.join(FUNCTIONS)}")
    if len(source.get("VOILUTSequence") or ()):
        return _lut(source, "VOILUTSequence", below, problems)
    try:
        centers, widths = numbers(source, "WindowCenter"), numbers(source, "WindowWidth")
    except (ValueError, TypeError) as error:
        problems.append(f"the window can't be read ({error})")
        return None
    pairs = list(zip(centers, widths, strict=False))
    least = 1.0 if function == "LINEAR" else 1e-12  # PS3.3 C.11.2.1.2: at least 1, or above 0
    usable = [pair for pair in pairs if pair[1] >= least]
    if len(usable) < len(pairs):
        impossible = ", ".join(f"{width:g}" for _, width in pairs)
        notes.append(f"a window has an impossible width ({impossible})")
    return (*usable[0], function) if usable else None


def _lut(source: "Dataset", keyword: str, below: bool, problems: list[str]) -> Lut | None:
    """Read the first table of a sequence; ``below``: its first input may be negative.

    pydicom's own reading wraps a negative first input, takes 8 or 16 bits alone, and refuses the
    tables above 64 KB that explicit VR can only write as UN.
    """
    try:
        item = source[keyword].value[0]
        count, first, bits = (int(v) & 0xFFFF for v in item["LUTDescriptor"].value)
        data = item["LUTData"].value
    except (KeyError, IndexError, TypeError, ValueError):
        problems.append(f"{keyword}: a lookup table lacks its descriptor or its data")
        return None
    count = count or 65536  # PS3.3 C.11.1.1.1: 0 stands for 2**16
    first -= 65536 if below and first > 32767 else 0
    if isinstance(data, bytes):
        wide = len(data) >= 2 * count
        values = np.frombuffer(
            data[: len(data) // 2 * 2 if wide else None], "<u2" if wide else "u1"
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


def _softcopy(header: "Dataset", state: "Dataset") -> "Dataset | None":
    """Find the VOI of a presentation state for this image; an item without images means all.

    Raises:
        ValueError: The state is about other images.
    """
    uid = text(header, "SOPInstanceUID")

    def named(item: "Dataset") -> list[str]:
        images = item.get("ReferencedImageSequence") or ()
        return [text(image, "ReferencedSOPInstanceUID") for image in images]

    images = [
        name for series in state.get("ReferencedSeriesSequence") or () for name in named(series)
    ]
    if uid not in images:
        raise ValueError(
            f"the presentation state names {len(images)} images and not this one. "
            "Give the state that was made for it."
        )
    items = state.get("SoftcopyVOILUTSequence") or ()
    return next((item for item in items if not named(item) or uid in named(item)), None)
