"""A bank of varied captions made elsewhere, by a language model say, and the cleaning of it.

A CSV comes in; for each image, sentences that may be used come out, and the number left out is
said. The bank is made offline: nothing here calls a model.
"""

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bonelib import tables
from bonelib.captions import grammar
from bonelib.cohort import IMAGE_ID

BANK_COLUMNS = (IMAGE_ID, "language", "fields", "caption")


def read_bank(
    file: str | Path,
    *,
    fields: Sequence[str],
    language: str = "en",
    phase: str = "pretraining",
) -> tuple[dict[str, list[str]], list[str]]:
    """Read the captions of a bank that name no other fields than those allowed.

    Each row says which fields its caption names (``view;site;signs``); in pretraining a caption
    with a word that names a class is left out, whatever its row says: a model that writes captions
    from a label tells it.

    Args:
        file: CSV with the columns ``image_id, language, fields, caption``.

    Returns:
        Captions by image id, and notes: how many rows were left out, and why.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no table, columns are missing, or the fields are not those of the phase.
    """
    grammar.check(fields, phase=phase)
    captions: dict[str, list[str]] = {}
    refused: Counter[str] = Counter()
    notes: list[str] = []
    for _, row in tables.rows(file, notes, needed=BANK_COLUMNS):
        row = {name: cell.strip() for name, cell in row.items()}
        caption = row["caption"]
        if row["language"].lower() != language:
            refused[f"are not in {language!r}"] += 1
        elif not caption:
            refused["are empty"] += 1
        elif not set(re.split(r"[;,|\s]+", row["fields"])) <= set(fields):
            refused["name other fields"] += 1
        elif phase == "pretraining" and tells(caption, language):
            refused["tell a label"] += 1
        else:
            captions.setdefault(row[IMAGE_ID], []).append(caption)
    notes += [f"{n} captions of the bank {why} and are left out." for why, n in refused.items()]
    return captions, notes


@functools.cache
def _telling(language: str) -> re.Pattern:
    rows = pd.read_csv(Path(__file__).with_name("telling.csv"), dtype=str)
    stems = rows.loc[rows["language"] == language, "word"]
    return re.compile("|".join(map(re.escape, stems)), re.IGNORECASE)


def tells(caption: str, language: str) -> bool:
    """Tell whether a caption contains a word that names a class of a task (``telling.csv``)."""
    return bool(_telling(language).search(caption))


def pairs(bank: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Return (image id, caption) of a bank in order, the rows of its text features."""
    return [(image_id, caption) for image_id, captions in bank.items() for caption in captions]


def drop_tail(
    bank: Mapping[str, Sequence[str]], similarity: np.ndarray, *, share: float = 0.1
) -> tuple[dict[str, list[str]], int]:
    """Leave out the captions that fit their image least, and say how many were dropped.

    Whoever prints results of the bank prints that number too. Filtering captions by image-text
    similarity: CapFilt, Li et al. 2022 (BLIP, arXiv:2201.12086).

    Args:
        similarity: ``(N,)`` cosine of each image and caption, in the order of :func:`pairs`, of a
            model that never saw the test images.
        share: Share of all captions to drop, the lowest first; of ties the later ones.

    Raises:
        ValueError: The numbers don't fit the bank, or the share isn't one.
    """
    every = pairs(bank)
    if similarity.shape != (len(every),) or not np.isfinite(similarity).all():
        raise ValueError(
            f"The bank has {len(every)} captions, but the similarities have shape "
            f"{similarity.shape}; give one finite number a caption, in the order of pairs()."
        )
    if not 0 <= share < 1:
        raise ValueError(f"share is {share}; give a number from 0 to below 1.")
    dropped = int(share * len(every))
    order = np.argsort(-similarity, kind="stable")
    kept = np.sort(order[: len(every) - dropped])
    left: dict[str, list[str]] = {}
    for number in kept:
        image_id, caption = every[number]
        left.setdefault(image_id, []).append(caption)
    return left, dropped
