"""How much leaks: recall, precision and F1 by identity type, of annotated reports and of headers.

Annotations come as BRAT stand-off files or as tags in the text. An identity counts as removed only
if every letter and figure of it is; under which type doesn't matter to the patient, so recall is
over any removal and ``typed`` says how often the type agreed. Precision is the share of removals
that touch an identity. Intervals are Wilson's (1927, JASA 22:209).
``published.csv`` has the figures of a French port of DEDUCE on 100 reports of one hospital
(Englebert et al. 2024, arXiv:2405.08932).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bonelib.deidentify.allowlist import identity, left
from bonelib.deidentify.token_scan import TYPES

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Gold = tuple[int, int, str]
COLUMNS = ["n", "removed", "typed", "spans", "right", "words", "lost"]


def read_brat(annotation: str) -> list[Gold]:
    """Read the text-bound lines of a BRAT ``.ann`` file as ``(start, end, type)``.

    Raises:
        ValueError: A text-bound line without offsets, or a type that is not one of ``TYPES``.
    """
    gold: list[Gold] = []
    wrong = []
    for number, line in enumerate(annotation.splitlines(), 1):
        if not line.startswith("T"):
            continue
        match = re.match(r"[^\t]*\t(\w+) (\d+ \d+(?:;\d+ \d+)*)(?:\t|$)", line)
        if not match or match[1] not in TYPES:
            wrong.append(number)
            continue
        for part in match[2].split(";"):
            start, end = map(int, part.split())
            gold.append((start, end, match[1]))
    if wrong:
        raise ValueError(
            f"{len(wrong)} BRAT lines can't be read, the first is line {wrong[0]} (not quoted: it "
            "may hold a name). "
            f"Expected 'T1<tab>TYPE start end<tab>text' with a type of {', '.join(TYPES)}."
        )
    return gold


def _covered(text: str, spans: Iterable[Sequence]) -> np.ndarray:
    """Mark the characters of spans, which begin with ``start, end``."""
    covered = np.zeros(len(text), bool)
    for start, end, *_ in spans:
        covered[start:end] = True
    return covered


def count(text: str, gold: Sequence[Gold], spans: Sequence[Any]) -> pd.DataFrame:
    """Count one report: rows by type with ``n, removed, typed, spans, right, words, lost``.

    ``words`` and ``lost`` (in the row ``ALL``) count the words outside every identity and those of
    them that were removed.
    """
    covered, truth = _covered(text, spans), _covered(text, gold)
    typed = {kind: _covered(text, [s for s in spans if s.type == kind]) for kind in TYPES}
    found: list[tuple[str, dict[str, int]]] = []
    for start, end, kind in gold:
        letters = [i for i in range(start, end) if text[i].isalnum()]
        whole = bool(covered[letters].all())
        same = whole and bool(typed[kind][letters].any())
        found.append((kind, {"n": 1, "removed": whole, "typed": same}))
    for span in spans:
        right = bool(truth[span.start : span.end].any())
        found.append((span.type, {"spans": 1, "right": right}))
    words = [slice(*match.span()) for match in re.finditer(r"[^\W\d_]{2,}", text)]
    words = [word for word in words if not truth[word].any()]
    lost = sum(bool(covered[word].any()) for word in words)
    return _summed(found, words=len(words), lost=lost)


def count_copy(header: "Dataset", copy: bytes) -> pd.DataFrame:
    """Count one DICOM file as :func:`count` does: the words of its header's identities.

    Args:
        header: Of the original. copy: The bytes of the copy, up to its pixel data.
    """
    words = identity(header)
    remain = set(left(copy, words))
    return _summed((kind, {"n": 1, "removed": w not in remain}) for w, kind in words.items())


def _summed(found: Iterable[tuple[str, dict[str, int]]], **of_all: int) -> pd.DataFrame:
    rows = {kind: dict.fromkeys(COLUMNS, 0) for kind in (*TYPES, "ALL")}
    for kind, counts in found:
        for row in (rows[kind], rows["ALL"]):
            row |= {name: row[name] + value for name, value in counts.items()}
    rows["ALL"] |= of_all
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("type").reset_index()


def wilson(hits: float, n: float, *, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share; (0, 1) for nothing counted."""
    if n == 0:
        return 0.0, 1.0
    share, square = hits / n, z * z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * np.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def leak_table(counts: pd.DataFrame) -> pd.DataFrame:
    """Sum counts, under each other, into the leak table: the published figures beside ours.

    Returns:
        ``type, n, precision, recall, recall_low, recall_high, f1, typed, lost`` and
        ``published_n, published_precision, published_recall, published_f1``; the row ``ALL`` alone
        has ``lost``, the share of words outside identities that were removed.
    """
    kinds = [*TYPES, "ALL"]
    sums = counts.groupby("type")[COLUMNS].sum().reindex(kinds, fill_value=0)
    recall, precision = sums["removed"] / sums["n"], sums["right"] / sums["spans"]
    low, high = zip(*map(wilson, sums["removed"], sums["n"]), strict=True)
    columns = {
        "n": sums["n"], "precision": precision, "recall": recall, "recall_low": low,
        "recall_high": high, "f1": 2 * precision * recall / (precision + recall),
        "typed": sums["typed"] / sums["n"], "lost": sums["lost"] / sums["words"],
    }  # fmt: skip
    published = pd.read_csv(Path(__file__).with_name("published.csv"), index_col="type")
    return (
        pd.DataFrame(columns, index=sums.index)
        .join(published.add_prefix("published_"))
        .reset_index()
    )


def check(leaks: pd.DataFrame, limits: Mapping[str, float]) -> None:
    """Stop where the recall of a type is below its limit.

    Args:
        leaks: Of :func:`leak_table`. limits: Least recall by type, e.g. ``{"PATIENT": 0.995}``.

    Raises:
        ValueError: Lists every type below its limit; or a limit for an unknown type.
    """
    unknown = sorted(set(limits) - {*TYPES, "ALL"})
    if unknown:
        raise ValueError(f"Limits for unknown types {unknown}. Choose of {', '.join(TYPES)}.")
    rows = leaks.set_index("type")
    low = [
        f"{kind} {rows.loc[kind, 'recall']:.3f} of {rows.loc[kind, 'n']}, at least {limit}"
        for kind, limit in limits.items()
        if rows.loc[kind, "n"] and rows.loc[kind, "recall"] < limit
    ]
    if low:
        raise ValueError(f"Identities leak: recall of {'; '.join(low)}. Nothing may be passed on.")
