"""Outlines as words: where in its image a finding lies, and how far it reaches.

Drawn masks come in; terms, and a sentence of them, go out. Whoever learns from such a sentence
knows that there is a finding: it counts as a label (`grammar.gives_away`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bonelib.captions.prompting import sheet

FACTS = ("what", "height", "across", "extent")
THIRDS = {"height": ("upper", "middle", "lower"), "across": ("left", "middle", "right")}
EXTENTS = ((0.1, "small"), (0.25, "medium"), (1.0, "large"))  # up to this share of the side


def outline_facts(mask: np.ndarray, *, fractured: bool) -> dict[str, str]:
    """Return the term of each of ``FACTS`` for the drawn outlines ``(H, W)`` of one image.

    Place is the third of the image that holds the middle of the box around all outlines; extent
    is its longer side. Left and right are the picture's, so a mirrored image needs other words.
    """
    found = {"what": "fracture" if fractured else "finding"}
    lengths = []
    for axis, (fact, terms) in enumerate(THIRDS.items()):
        places = np.flatnonzero(mask.any(axis=1 - axis))
        middle, length = (places[0] + places[-1] + 1) / 2, places[-1] + 1 - places[0]
        found[fact] = terms[min(2, int(3 * middle / mask.shape[axis]))]
        lengths.append(length / mask.shape[axis])
    found["extent"] = next(term for limit, term in EXTENTS if max(lengths) <= limit)
    return found


def outline_sentence(facts: Mapping[str, str], *, language: str) -> str:
    """Write ``Cortex interrupted in the lower third of the image, left of the middle, …``.

    Raises:
        ValueError: The language has no words for outlines; those that have are named.
    """
    words = sheet("outlines.csv").set_index(["fact", "term"])
    if language not in words:
        raise ValueError(f"No outlines in {language!r}. Choose {', '.join(words)}.")
    what, height, *others = (words.loc[(fact, facts[fact]), language] for fact in FACTS)
    text = ", ".join([f"{what} {height}", *others])
    return text[0].upper() + text[1:] + "."


def outline_keys(told: Sequence[Mapping[str, str] | None]) -> tuple[np.ndarray, list]:
    """Return attribute keys ``(N, K)``, -1 without an outline, and the name and values of each.

    They are as those of `grammar.keys` and `grammar.key_values`.
    """
    columns, values = [], []
    for fact in FACTS:
        codes, known = pd.factorize(
            np.array([facts[fact] if facts else None for facts in told], dtype=object), sort=True
        )
        columns.append(codes)
        values.append([f"outline {fact}", list(known)])
    return np.stack(columns, axis=1).astype(np.int64), values
