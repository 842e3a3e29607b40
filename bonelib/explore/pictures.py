"""What a widget shows of one radiograph: window, heat and outline, and its facts."""

import io
from typing import Any

import numpy as np
import pandas as pd

from bonelib import cohort, figures

SIDE = 448  # pixels of the longer side, at least: small radiographs are enlarged
LEVEL, WINDOW = 128, 256  # of eight bits: every grey stays as it is
OUTLINE = (0x5C, 0xE1, 0xE6)  # as in the figures
# Columns that say nothing of the case: files, and how the table was made.
HIDDEN = (cohort.PATH, cohort.MASK, cohort.REPORT, cohort.GROUP_KIND, cohort.FOLD)
HIDDEN += ("sha256", "bytes", "width", "height")


def windowed(pixels: np.ndarray, *, level: float, window: float) -> np.ndarray:
    """Spread the greys of a window over all of the range: DICOM PS3.3 C.11.2.1.2.1, LINEAR.

    Args:
        pixels: uint8, any shape.
        level: The centre of the window.
        window: Its width, more than 1; 128 and 256 change nothing.
    """
    greys = ((np.arange(256) - (level - 0.5)) / (window - 1) + 0.5) * 255
    return np.rint(greys.clip(0, 255)).astype(np.uint8)[pixels]


def painted(
    pixels: np.ndarray,
    *,
    level: float = LEVEL,
    window: float = WINDOW,
    heat: np.ndarray | None = None,
    opacity: float = 0.65,
    mask: np.ndarray | None = None,
    side: int = SIDE,
) -> np.ndarray:
    """Lay heat and the outline of a lesion over a windowed radiograph.

    Args:
        pixels: ``(H, W)`` uint8.
        heat: ``(h, w)``, any size over the same field; negative heat counts as none.
        opacity: Of the strongest heat, from 0 to 1.
        mask: ``(h, w)``, above zero inside the lesion, whose outermost pixels are drawn.
        side: The picture is enlarged by a whole number until its longer side has as many pixels.

    Returns:
        ``(h, w)`` uint8 where all is grey, else ``(h, w, 3)``.
    """
    import cv2

    film = windowed(pixels, level=level, window=window)
    times = max(1, -(-side // max(film.shape)))
    size = (film.shape[1] * times, film.shape[0] * times)
    if heat is not None:
        film = figures.heat_over(film, heat, side=side, opacity=opacity)
    elif times > 1:
        film = cv2.resize(film, size, interpolation=cv2.INTER_LINEAR)
    if mask is not None and np.any(mask):
        inside = cv2.resize((mask > 0).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        film = np.repeat(film[..., None], 3, axis=2) if film.ndim == 2 else film
        wide = 2 * max(1, max(size) // SIDE) + 1  # an original is shown smaller than it is
        film[inside > cv2.erode(inside, np.ones((wide, wide), np.uint8))] = OUTLINE
    return film


def frame(side: int = SIDE) -> Any:
    """Return the ``ipywidgets.Image`` of a picture that changes; empty, it is hidden."""
    import ipywidgets

    layout = ipywidgets.Layout(width=f"{side}px", object_fit="contain", display="none")
    image = ipywidgets.Image(format="jpeg", layout=layout).add_class("bone-picture")
    image.observe(lambda seen: layout.set_trait("display", None if seen.new else "none"), "value")
    return image


def encoded(pixels: np.ndarray | None) -> bytes:
    """Write a picture as JPEG, None as nothing; a PNG takes fifty times as long."""
    from PIL import Image

    file = io.BytesIO()
    if pixels is not None:
        Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def written(cell: Any) -> str:
    """Write a cell of a table: several terms by commas, few digits, nothing if it is missing."""
    if pd.api.types.is_list_like(cell):  # parquet gives arrays back for tuples
        return ", ".join(map(str, cell))
    if pd.isna(cell):
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def facts(row: pd.Series) -> str:
    """Write what is known of an image as a small HTML table."""
    told = row.drop([*HIDDEN], errors="ignore").astype(object).map(written)
    with pd.option_context("display.max_colwidth", None):  # or long words are cut
        return told[told != ""].to_frame().to_html(header=False, border=0)
