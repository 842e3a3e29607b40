"""Text burnt into a picture: characters counted by their form, without reading them.

A grey picture comes in; the number of characters that stand in rows, and their boxes, go out. Marks
of side ("R", "L") and single numbers are few characters; a dose report or a name strip has dozens.
The published rule rejects pictures with 35 characters or more found by an OCR model (Englebert et
al., multimodal bone radiographs). What is counted here without one are small blobs of even, extreme
grey with sharp edges, as tall as their neighbours in a row: an estimate for screening, not a proof
that no text is there.
"""

import numpy as np

LIMIT = 35
SIDE = 1024  # pictures are looked at with this longer side at most
TALL = (6, 64)  # pixels of a character's height at that size
RUN = 3  # characters in a row from which on they count


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
