"""Leaks that are counted: patients and copies on two sides, opposite labels, labels in captions."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bonelib import cohort, splits
from bonelib.cohort import FOLD, GROUP, PATIENT, SOURCE, SPLIT, STUDY, Task

COLUMNS = ["check", "what", "value", "low", "high", "n", "level", "sentence"]


def counted(check: str, what: str, value: int, n: int, level: str, sentence: str) -> dict:
    """Make the finding of a check that counts, without an interval."""
    return dict(zip(COLUMNS, (check, what, value, np.nan, np.nan, n, level, sentence), strict=True))


def integrity(
    table: pd.DataFrame, sha256: dict[str, str] | None, near: pd.DataFrame | None
) -> list[dict]:
    """Count what stands on two sides of a split, copies, and copies with opposite labels."""
    rows, size = [], len(table)
    copies = splits.add_groups(
        # Stripped of what else makes groups, so that only copies do.
        table.assign(**{PATIENT: pd.NA, STUDY: pd.NA, cohort.AGE: pd.NA}),
        sha256=sha256,
        near=near,
    )[GROUP].to_numpy()
    looked = sha256 is not None or near is not None
    source = table[SOURCE].astype(str)
    keys = {"group": table[GROUP]}
    for name, column in (("patient", PATIENT), ("study", STUDY)):
        # The patient "12" of one source is not the patient "12" of another.
        keys[name] = (source + " " + table[column].astype(str)).where(table[column].notna())
    keys |= {"copy": pd.Series(copies, index=table.index)} if looked else {}
    for side in (SPLIT, FOLD):
        if side not in table or table[side].isna().all():
            continue
        for name, key in keys.items():
            if key.notna().any():
                parted = int((table[side].groupby(key).nunique() > 1).sum())
                plural = {"study": "studies", "copy": "sets of copies"}.get(name, f"{name}s")
                text = f"{parted} {plural} stand on two sides of {side!r}" + (
                    ": a model is tested on what it was trained on." if parted else "."
                )
                level = "red" if parted else "green"
                rows.append(counted("split", f"{name} in two {side}s", parted, size, level, text))
    if looked:
        extra = size - len(set(copies))
        text = f"{extra} of {size} images are copies of another" + (
            "; splits.add_groups keeps them together." if extra else "."
        )
        rows.append(counted("copies", "copies", extra, size, "amber" if extra else "green", text))
        torn = splits.contradictions(table, sha256=sha256 or {}, near=near)
        names = "; ".join(torn["images"].drop_duplicates().head(3))
        text = f"{torn['group'].nunique()} sets of copies carry opposite labels" + (
            f" ({names}): decide on each, or leave them out." if len(torn) else "."
        )
        level = "amber" if len(torn) else "green"
        count = int(torn["group"].nunique())
        rows.append(counted("copies", "contradictory labels", count, size, level, text))
    return rows


def _phrases(task: Task) -> set[str]:
    """Return every way to write a class of the task or an entity; bare numbers say nothing."""
    entity = cohort.task("entity")
    names = {
        phrase.lower()
        for one in (task, entity)
        for phrases in (one.classes, *one.words.values())
        for phrase in phrases
    }
    return {name for name in names if not name.isdigit()}


def captions_told(table: pd.DataFrame, task: Task, captions: Sequence[str]) -> list[dict]:
    """Count the captions that hold a class of the task, in any language, or an entity."""
    texts = ["" if pd.isna(text) else str(text).lower() for text in captions]
    hits = {
        phrase: sum(bool(re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", t)) for t in texts)
        for phrase in sorted(_phrases(task))
    }
    found = {phrase: count for phrase, count in hits.items() if count}
    pattern = "|".join(map(re.escape, sorted(found)))
    told = sum(bool(re.search(rf"(?<!\w)({pattern})(?!\w)", t)) for t in texts) if found else 0
    most = ", ".join(sorted(found, key=found.get, reverse=True)[:3])
    text = f"{told} of {len(texts)} captions name a class or an entity" + (
        f" ({most}): what is trained on them is label-supervised, not zero-shot." if told else "."
    )
    level = "red" if told else "green"
    return [counted("caption", "label or entity named", told, len(texts), level, text)]


def words(captions: Sequence[str]) -> np.ndarray:
    """Return which of the commoner words each caption holds, bool ``(N, W)``."""
    sets = [set(re.findall(r"\w+", "" if pd.isna(t) else str(t).lower())) for t in captions]
    counts = pd.Series([word for words in sets for word in words], dtype="object").value_counts()
    common = counts.index[counts >= max(5, len(sets) // 100)][:500]
    return np.array([[word in words for word in common] for words in sets]).reshape(len(sets), -1)
