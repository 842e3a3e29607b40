"""How much leaks: recall, precision and F1 by identity type, on annotated reports.

Annotations come as BRAT stand-off files or as tags in the text. An identity counts as removed only
if every letter and figure of it is; under which type doesn't matter to the patient, so recall is
over any removal and ``typed`` says how often the type agreed. Precision is the share of removals
that touch an identity. Intervals are Wilson's (1927, JASA 22:209), or drawn over patients.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from bonelib.reports.identities import TYPES
from bonelib.reports.walk import Span

# n, precision, recall, F1 on 100 reports of one hospital: Englebert et al. 2024, arXiv:2405.08932,
# a French port of DEDUCE.
PUBLISHED = {
    "PATIENT": (132, 0.96, 1.00, 0.98),
    "PERSON": (100, 0.66, 0.94, 0.78),
    "LOCATION": (52, 0.98, 0.86, 0.92),
    "INSTITUTION": (23, 0.76, 0.83, 0.79),
    "DATE": (427, 0.99, 0.98, 0.98),
    "AGE": (39, 0.86, 0.97, 0.91),
    "ID": (19, 0.95, 1.00, 0.97),
    "PHONE": (47, 0.98, 0.93, 0.96),
    "URL": (13, 1.00, 1.00, 1.00),
}
Gold = tuple[int, int, str]


def read_brat(annotation: str) -> list[Gold]:
    """Read the text-bound lines of a BRAT ``.ann`` file as ``(start, end, type)``.

    Raises:
        ValueError: A text-bound line without offsets, or a type that is not one of ``TYPES``.
    """
    found: list[Gold] = []
    wrong = []
    for number, line in enumerate(annotation.splitlines(), 1):
        if not line.startswith("T"):
            continue
        fields = line.split("\t")
        match = re.fullmatch(r"(\w+) (\d+ \d+(?:;\d+ \d+)*)", fields[1] if len(fields) > 1 else "")
        if not match or match[1] not in TYPES:
            wrong.append(number)
            continue
        for part in match[2].split(";"):
            start, end = map(int, part.split())
            found.append((start, end, match[1]))
    if wrong:
        raise ValueError(
            f"{len(wrong)} BRAT lines can't be read, the first is line {wrong[0]} (not quoted: it "
            "may hold a name). "
            f"Expected 'T1<tab>TYPE start end<tab>text' with a type of {', '.join(TYPES)}."
        )
    return found


def read_inline(text: str) -> tuple[str, list[Gold]]:
    """Read ``<TYPE>…</TYPE>`` tags; return the text without them and the annotations."""
    found: list[Gold] = []
    plain, at, size = [], 0, 0
    for match in re.finditer(rf"<({'|'.join(TYPES)})>(.*?)</\1>", text, re.S):
        before, inner = text[at : match.start()], match[2]
        start = size + len(before)
        found.append((start, start + len(inner), match[1]))
        plain += [before, inner]
        size, at = start + len(inner), match.end()
    return "".join([*plain, text[at:]]), found


def count(text: str, gold: Sequence[Gold], spans: Sequence[Span]) -> pd.DataFrame:
    """Count one report: rows by type with ``n, removed, typed, spans, right, words, lost``.

    ``words`` and ``lost`` (in the row ``ALL``) count the words outside every identity and those of
    them that were removed.
    """
    mark = bytearray(len(text))  # 1: removed
    typed: dict[str, bytearray] = {}
    for span in spans:
        mark[span.start : span.end] = b"\1" * (span.end - span.start)
        own = typed.setdefault(span.type, bytearray(len(text)))
        own[span.start : span.end] = b"\1" * (span.end - span.start)
    truth = bytearray(len(text))
    rows = {kind: dict.fromkeys(COLUMNS, 0) for kind in (*TYPES, "ALL")}
    for start, end, kind in gold:
        truth[start:end] = b"\1" * (end - start)
        letters = [i for i in range(start, end) if text[i].isalnum()]
        whole = all(mark[i] for i in letters)
        own = typed.get(kind)
        same = whole and own is not None and any(own[i] for i in letters)
        for row in (rows[kind], rows["ALL"]):
            row["n"] += 1
            row["removed"] += whole
            row["typed"] += same
    for span in spans:
        right = any(truth[span.start : span.end])
        for row in (rows[span.type], rows["ALL"]):
            row["spans"] += 1
            row["right"] += right
    for match in re.finditer(r"[^\W\d_]{2,}", text):
        if not any(truth[match.start() : match.end()]):
            rows["ALL"]["words"] += 1
            rows["ALL"]["lost"] += any(mark[match.start() : match.end()])
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("type").reset_index()


COLUMNS = ("n", "removed", "typed", "spans", "right", "words", "lost")


def wilson(hits: float, n: float, *, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share; (0, 1) for nothing counted."""
    if n == 0:
        return 0.0, 1.0
    share, square = hits / n, z * z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * np.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def leak_table(
    counts: pd.DataFrame, *, patients: bool = False, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Sum counts into the leak table: one row a type, the published figures beside ours.

    Args:
        counts: Rows of :func:`count` under each other; with ``patients``, a column ``patient``.
        patients: Draw the intervals over patients (``draws`` times) instead of Wilson's.

    Returns:
        ``type, n, precision, recall, recall_low, recall_high, f1, typed, published_n,
        published_precision, published_recall, published_f1``; the row ``ALL`` has also ``lost``,
        the share of words outside identities that were removed.
    """
    rows = []
    for kind in (*TYPES, "ALL"):
        part = counts[counts["type"] == kind]
        sums = part[list(COLUMNS)].sum()
        recall = sums["removed"] / sums["n"] if sums["n"] else np.nan
        precision = sums["right"] / sums["spans"] if sums["spans"] else np.nan
        if patients and sums["n"]:
            low, high = _clustered(part, draws, seed)
        else:
            low, high = wilson(sums["removed"], sums["n"])
        both = precision + recall
        rows.append(
            {
                "type": kind,
                "n": int(sums["n"]),
                "precision": precision,
                "recall": recall,
                "recall_low": low,
                "recall_high": high,
                "f1": 2 * precision * recall / both if both > 0 else np.nan,
                "typed": sums["typed"] / sums["n"] if sums["n"] else np.nan,
                "lost": sums["lost"] / sums["words"] if sums["words"] else np.nan,
            }
        )
        names = ("n", "precision", "recall", "f1")
        values = PUBLISHED.get(kind, (np.nan,) * 4)
        rows[-1] |= {f"published_{k}": v for k, v in zip(names, values, strict=True)}
    return pd.DataFrame(rows)


def _clustered(part: pd.DataFrame, draws: int, seed: int) -> tuple[float, float]:
    sums = part.groupby("patient")[["removed", "n"]].sum().to_numpy()
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(sums), (draws, len(sums)))
    removed, n = sums[drawn, 0].sum(1), sums[drawn, 1].sum(1)
    low, high = np.quantile(removed[n > 0] / n[n > 0], (0.025, 0.975))
    return float(low), float(high)


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


def missed(
    reports: Iterable[tuple[str, Sequence[Gold], Sequence[Span]]],
) -> Iterable[tuple[str, str]]:
    """Yield type and words of each identity that stands, wholly or in part, for a look by eye."""
    for text, gold, spans in reports:
        mark = bytearray(len(text))
        for span in spans:
            mark[span.start : span.end] = b"\1" * (span.end - span.start)
        for start, end, kind in gold:
            if not all(mark[i] for i in range(start, end) if text[i].isalnum()):
                yield kind, text[max(0, start - 25) : start] + "[" + text[start:end] + "]"
