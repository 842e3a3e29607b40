"""Contact sheets: many synthetic radiographs side by side, with what they show."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .distractors import DISTRACTORS
from .entities import ENTITIES
from .scene import SITES, VIEWS
from .studio import Radiograph, draw

# usual ages of the diagnoses that share an entity
_AGES = {
    "enchondroma": 35, "non-ossifying fibroma": 12, "osteoid osteoma": 19,
    "Ewing sarcoma": 13, "chondrosarcoma": 56, "metastasis": 66,
}  # fmt: skip
SHEETS = ("sites", "entities", "lesions", "ages", "distractors", "centers")


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
    cells = list(_cells(what, seed, size))
    columns = {"sites": 6, "entities": 8, "lesions": 8, "ages": 7, "distractors": 6, "centers": 6}
    titles = {
        "sites": "Synthetic radiographs: every site in three views",
        "entities": "Synthetic radiographs: every diagnosis",
        "lesions": "Synthetic radiographs: every diagnosis, close",
        "ages": "Synthetic radiographs: growth",
        "distractors": "Synthetic radiographs: what is not a tumour",
        "centers": "Synthetic radiographs: the three centres",
    }
    return _grid(cells, columns[what], size, titles[what])


def _cells(what: str, seed: int, size: int):
    big = max(64, 2 * size)
    if what == "sites":
        for i, site in enumerate(SITES):
            for j, view in enumerate(VIEWS):
                side = ("right", "left")[i % 2]
                x = draw(
                    seed, 3 * i + j, size=big, site=site, view=view, side=side, entity="",
                    center=1, age=34, distractor="none",
                )  # fmt: skip
                yield x.image, f"{site}, {view}, {side}"
    elif what in ("entities", "lesions"):
        for entity, drawers in ENTITIES.items():
            for kind in drawers:
                for i in range(4 if len(drawers) > 1 else 8):
                    sharp = big if what == "entities" else 4 * size
                    x = draw(
                        seed, 100 + i, size=sharp, entity=entity, kind=kind,
                        age=_AGES.get(kind), center=1,
                    )  # fmt: skip
                    image = x.image if what == "entities" else _close(x)
                    yield image, f"{kind}, {x.case.sites[0]}, {x.case.age} y"
    elif what == "ages":
        for site in ("knee-joint", "hand", "hip-joint"):
            for age in (2, 5, 8, 11, 14, 18, 40):
                x = draw(
                    seed, 7, size=big, site=site, view="frontal", side="right", entity="",
                    center=1, age=age, distractor="none",
                )  # fmt: skip
                yield x.image, f"{site}, {age} y"
    elif what == "distractors":
        for name in DISTRACTORS[1:]:
            for i in range(6):
                x = draw(seed, 200 + i, size=big, entity="", center=1, distractor=name)
                yield x.image, f"{name}, {x.case.sites[0]}, {x.case.age} y"
    else:
        for center in (1, 2, 3):
            for i in range(12):
                x = draw(seed, 300 + i, size=big, center=center)
                yield x.image, f"centre {center}, {x.case.sites[0]}, {x.case.label}"


def _close(x: Radiograph) -> np.ndarray:
    """Cut out the lesion with as much again around it."""
    rows, columns = np.nonzero(x.mask)
    middle = (rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2
    reach = int(max(np.ptp(rows), np.ptp(columns)) * 0.85) + 20
    top, left = max(0, middle[0] - reach), max(0, middle[1] - reach)
    return x.image[top : middle[0] + reach, left : middle[1] + reach]


def _grid(cells: list[tuple[np.ndarray, str]], columns: int, size: int, title: str) -> np.ndarray:
    head, foot = 34, 16
    rows = -(-len(cells) // columns)
    sheet = Image.new("L", (columns * size, head + rows * (size + foot)), 255)
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
