"""Contact sheets: many synthetic radiographs side by side, with what they show.

``sheets.csv`` holds what is asked for in the cells of each sheet; facts left out are drawn.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .acquisition import Radiograph, draw
from .files import rows

_FACTS = ("site", "view", "side", "entity", "kind", "distractor", "age", "center")
# title and columns of each sheet
SHEETS = {
    "sites": ("every site in three views", 6),
    "entities": ("every diagnosis", 8),
    "lesions": ("every diagnosis, close", 8),
    "ages": ("growth", 7),
    "distractors": ("what is not a tumour", 6),
    "centers": ("the three centres", 6),
}


def contact_sheet(what: str = "sites", *, seed: int = 0, size: int = 240) -> np.ndarray:
    """Draw a titled grid of synthetic radiographs.

    Args:
        what: "sites" (every site by view), "entities" (every diagnosis, whole pictures), "lesions"
            (the same, cut out around the lesion), "ages" (knees, hands and hips as they grow),
            "distractors" or "centers".
        size: Side of one cell in pixels.

    Returns:
        A grey picture (H, W), uint8.

    Raises:
        ValueError: ``what`` is unknown.
    """
    if what not in SHEETS:
        raise ValueError(f"Unknown sheet {what!r}. Choose one of {', '.join(SHEETS)}.")
    close = what == "lesions"
    cells = []
    for row in rows("sheets.csv", text=True, sheet=what):
        facts = {name: row[name] for name in _FACTS if row[name]}
        facts |= {name: int(facts[name]) for name in ("age", "center") if name in facts}
        if row["entity"] == "none":
            facts["entity"] = ""
        for index in range(int(row["first"]), int(row["first"]) + int(row["times"])):
            shot = draw(seed, index, size=4 * size if close else max(64, 2 * size), **facts)
            image = _close(shot) if close else shot.image
            cells.append((image, row["label"].format(case=shot.case)))
    title, columns = SHEETS[what]
    return _grid(cells, columns, size, f"Synthetic radiographs: {title}")


def _close(x: Radiograph) -> np.ndarray:
    """Cut out the lesion with as much again around it."""
    rows, columns = np.nonzero(x.mask)
    middle = (rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2
    reach = int(max(np.ptp(rows), np.ptp(columns)) * 0.85) + 20
    top, left = max(0, middle[0] - reach), max(0, middle[1] - reach)
    return x.image[top : middle[0] + reach, left : middle[1] + reach]


def _grid(cells: list[tuple[np.ndarray, str]], columns: int, size: int, title: str) -> np.ndarray:
    head, foot = 34, 16
    height = -(-len(cells) // columns) * (size + foot)
    sheet = Image.new("L", (columns * size, head + height), 255)
    pen = ImageDraw.Draw(sheet)
    pen.text((8, 7), title, fill=0, font=ImageFont.load_default(18))
    small = ImageFont.load_default(10)
    for i, (image, label) in enumerate(cells):
        scale = (size - 4) / max(image.shape)
        shape = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        shrunk = cv2.resize(image, shape, interpolation=way)
        x, y = (i % columns) * size, head + (i // columns) * (size + foot)
        sheet.paste(Image.fromarray(shrunk), (x + (size - shape[0]) // 2, y))
        pen.text((x + 4, y + size - 3), label[: size // 5], fill=0, font=small)
    return np.asarray(sheet)
