"""What changed since the run before: rows of the results table, and the records they stand on."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from bonelib import figures, runs
from bonelib.evaluation import METHOD
from bonelib.reporting.tables import SCORED

ROW = ["stage", *METHOD, "variant", "seed"]  # what a row of the results is told apart by
ROUNDING = 0.0005  # half of the last digit that is printed


def changes(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Compare two tables of `results` row by row.

    Returns:
        ``stage, method, what`` (new, gone, or the metric that moved by more than rounding),
        ``before, after`` (value and interval). Empty where nothing changed; metrics that one of
        the tables lacks are not compared.
    """
    old, new = _by_row(before), _by_row(after)
    rows, both = [], [m for m in SCORED if m in before and m in after]
    for key in dict.fromkeys([*new, *old]):
        pair = old.get(key, {}), new.get(key, {})
        row = pair[1] or pair[0]
        scored = [m for m in SCORED if any(pd.notna(one.get(m)) for one in pair)]
        if all(pair):
            found = [(m, m) for m in both if _apart(*pair, m)]
        else:
            found = [("new" if pair[1] else "gone", scored[0] if scored else "")]
        for what, metric in found:
            told = [_told(one, metric) if one else "" for one in pair]
            rows.append((row["stage"], row["method"], what, *told))
    return pd.DataFrame(rows, columns=["stage", "method", "what", "before", "after"])


def _by_row(table: pd.DataFrame) -> dict[tuple, dict[str, Any]]:
    keys = table[ROW].astype("object").fillna("").astype(str).itertuples(index=False, name=None)
    return dict(zip(keys, table.to_dict("records"), strict=True))


def _ends(row: Mapping[str, Any], metric: str) -> list[float]:
    return [float(row.get(f"{metric}{end}", math.nan)) for end in ("", "_low", "_high")]


def _told(row: Mapping[str, Any], metric: str) -> str:
    return figures.with_interval(*_ends(row, metric))


def _apart(old: Mapping[str, Any], new: Mapping[str, Any], metric: str) -> bool:
    pairs = zip(_ends(old, metric), _ends(new, metric), strict=True)
    return any(math.isnan(a) != math.isnan(b) or abs(a - b) > ROUNDING for a, b in pairs)


def changed_records(before: Mapping[str, dict], after: Mapping[str, dict]) -> pd.DataFrame:
    """Compare the heads of records, by their run's name: what they found, from what, by which code.

    Args:
        before: With ``hash, inputs, code`` of each, as in a record.

    Returns:
        ``run, what``: a sentence for each thing that differs. Empty where nothing does.
    """
    rows = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if not (old and new):
            rows.append((name, "new" if new else "gone"))
            continue
        rows += [(name, "found something else")] * (old["hash"] != new["hash"])
        then, now = ({i["run"]: i["hash"] for i in head["inputs"]} for head in (old, new))
        other = sorted(i for i in {*then, *now} if then.get(i) != now.get(i))
        rows += [(name, f"read other inputs: {', '.join(other)}")] * bool(other)
        rooms = runs.code.changed_rooms(old["code"], new["code"])
        rows += [(name, f"was made by other code: {', '.join(rooms)}")] * bool(rooms)
    return pd.DataFrame(rows, columns=["run", "what"])
