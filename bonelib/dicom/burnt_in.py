"""Text burnt into a picture: read with RapidOCR, or characters counted by their form alone.

A grey picture comes in. ``reader`` reads its lines, and ``personal`` says which of them read as a
name, a date or a number of a person; ``characters`` gives the number of characters that stand in
rows, and their boxes. Marks of side ("R", "L") and single numbers are few characters; a dose report
or a name strip has dozens.
The published rule rejects pictures with 35 characters or more found by an OCR model (Englebert et
al., multimodal bone radiographs). What is counted here without one are small blobs of even, extreme
grey with sharp edges, as tall as their neighbours in a row: an estimate for screening, not a proof
that no text is there.
"""

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator

import numpy as np

LIMIT = 35
SIDE = 1024  # pictures are looked at with this longer side at most
TALL = (6, 64)  # pixels of a character's height at that size
TILE = 1000  # pixels of a side that the reader finds a lone line in
RUN = 3  # characters in a row from which on they count
# Words that stand on radiographs without naming anybody, without accents.
MARKS = frozenset(
    """rt lt ap pa wb cm mm kv ml right left lat lateral lato post ant obl oblique axial frontal med
    medial int ext rot tunnel
    skyline stress standing erect upright supine prone decub decubitus sitting weight bearing
    portable mobile neutral flexion extension pre post view droite droit gauche face profil debout
    couche charge assis rechts links stehend liegend seitlich derecha derecho izquierda izquierdo
    cms mas kvp inches zoom image series""".split()
)
MARKS |= {side + mark for side in "lr" for mark in MARKS}  # "L LAT" is often read as one word
# Words; a whole name in Chinese, Japanese or Korean; a date in figures, or a number of five.
WORD = re.compile(r"[^\W\d_]{2,}")
SIGNS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2,}")
MONTH = "(?:jan|ene|fe[bv]|mar|mrz|a[pbv]r|ma[iy]|ju[nil]|aug|aou|ago|sep|[o0][ck]t|nov|de[cz]|dic)"
FIGURES = re.compile(
    r"\d{1,4}[./ -]\d{1,2}[./ -]\d{2,4}|\d(?:[./-]?\d){4,}"
    rf"|\d{{1,2}}[ .-]*{MONTH}[a-z]*[ .-]*\d{{2,4}}|{MONTH}[a-z]*[ .-]*\d{{1,2}}[ ,]+\d{{2,4}}"
)


def characters(pixels: np.ndarray) -> tuple[int, np.ndarray]:
    """Estimate how many characters are burnt in.

    Args:
        pixels: uint8 or uint16 ``(rows, columns)``.

    Returns:
        Their number, and their boxes int ``(N, 4)`` as left, top, right, bottom in pixels.
    """
    import cv2

    grey = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    scale = min(1.0, SIDE / max(grey.shape))
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    # White letters on dark, or black on bright: between white letters there are dark blobs too, so
    # the two are not added up.
    boxes = max((_rows(_blobs(picture)) for picture in (grey, 255 - grey)), key=len)
    found = np.array(sorted(boxes), int).reshape(-1, 4)
    return len(found), np.rint(found / scale).astype(int)


def _blobs(grey: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Find small bright blobs that stand out sharply all round: left, top, right, bottom."""
    import cv2

    # What is thinner than a letter's stroke and brighter than all round it.
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (15, 15))
    hat = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, kernel)
    strong = (hat > 70).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(strong, connectivity=8)
    found = []
    for left, top, wide, high, area in stats[1:]:
        if not TALL[0] <= high <= TALL[1] or wide > 1.6 * high or area < 0.12 * wide * high:
            continue
        if area > 0.97 * wide * high and wide > 0.5 * high:  # a filled square is no letter
            continue
        found.append((int(left), int(top), int(left + wide), int(top + high)))
    return found


def _rows(boxes: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Keep the blobs that stand in a row of ``RUN`` or more, alike in height and evenly spaced."""
    boxes, kept = sorted(boxes), []
    left = list(boxes)
    while left:
        run = [left.pop(0)]
        for box in list(left):
            last = run[-1]
            high, other = last[3] - last[1], box[3] - box[1]
            gap = box[0] - last[2]
            if gap > 1.5 * max(high, other):
                if box[0] - last[2] > 4 * TALL[1]:
                    break
                continue
            overlap = min(last[3], box[3]) - max(last[1], box[1])
            alike = 0.55 < high / other < 1.8 and overlap > 0.5 * min(high, other)
            if alike and gap > -0.3 * high:
                run.append(box)
                left.remove(box)
        if len(run) >= RUN:
            kept += run
    return kept


def reader(threads: int = -1) -> Callable[[np.ndarray], str]:
    """Return what reads a uint8 picture: a line of text a line, "" where there is none.

    Args:
        threads: Of the CPU; -1 takes all.

    Raises:
        ImportError: rapidocr or onnxruntime is not installed.
    """
    try:
        import onnxruntime  # noqa: F401  rapidocr leaves it to the user to choose an engine
        from rapidocr import RapidOCR
    except ImportError as error:
        raise ImportError(
            "Reading burnt-in text needs rapidocr and onnxruntime. Install them with "
            "`pip install -c requirements.lock -e '.[ocr]'`."
        ) from error
    engine = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
    told = {f"EngineConfig.onnxruntime.{name}": value for name, value in engine.items()}
    ocr = RapidOCR(params=told | {"Global.log_level": "error"})

    def read(pixels: np.ndarray) -> str:
        # Of a large picture its parts as well: a line that stands alone there is not found by
        # RapidOCR 3.10 (findings/text_reader_misses_a_lone_line.sh), nor is one that a tile cuts.
        parts = [pixels, *_tiles(pixels)] if max(pixels.shape[:2]) > TILE else [pixels]
        return "\n".join(dict.fromkeys(line for part in parts for line in ocr(part).txts or ()))

    return read


def _tiles(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """Cut a picture into tiles that overlap by a third."""
    starts = (range(0, max(n - TILE // 3, 1), TILE * 2 // 3) for n in pixels.shape[:2])
    for top, left in itertools.product(*starts):
        yield np.ascontiguousarray(pixels[top : top + TILE, left : left + TILE])


def personal(lines: Iterable[str]) -> list[str]:
    """Return the lines that read as a name, a date or a number of a person.

    A word of four letters or more names somebody unless it is one of ``MARKS``, as do two shorter
    ones of which one has three ("Kim Ho"); a hospital or a maker counts as well. Marks of side,
    views, rulers, and initials on the lead mark of who took it ("L SRM") don't.
    """
    found = []
    for line in lines:
        plain = unicodedata.normalize("NFKD", line.casefold())
        plain = "".join(c for c in plain if not unicodedata.combining(c))
        words = sorted(set(WORD.findall(plain)) - MARKS, key=len)
        named = words and len(words[-1]) > (2 if len(words) > 1 else 3)
        if named or FIGURES.search(plain) or SIGNS.search(plain):
            found.append(line)
    return found
