"""Reporting checklists and the model card, filled where the run knows the answer, open elsewhere.

What a run knows comes in as values; ``facts.csv`` makes sentences of them, and the other CSV files
beside this module say for each item, in our own short words, what is asked and which sentences
answer it. ``basis`` says whether an item was read or recalled: compare it with the published list
before it is printed. Sources: CLAIM 2024 Update (Tejani et al. 2024, Radiol Artif Intell
6:e240300), TRIPOD+AI (Collins et al. 2024, BMJ 385:e078378), METRICS (Kocak et al. 2024, Insights
Imaging 15:8), model cards (Mitchell et al. 2019, arXiv:1810.03993).
"""

from collections.abc import Mapping
from pathlib import Path
from string import Formatter

import pandas as pd

from bonelib.reporting.printing import Printed

CHECKLISTS = {"claim_2024": "CLAIM, 2024 update", "tripod_ai_2024": "TRIPOD+AI, 2024"}
CHECKLISTS |= {"metrics_2024": "METRICS, 2024"}
CARD = "model_card"
OPEN, PARTLY, FILLED = "open", "partly", "filled"
WIDTHS = {"section": 0.15, "asked": 0.25, "answer": 0.4}


def _rows(name: str) -> pd.DataFrame:
    file = Path(__file__).with_name(f"{name}.csv")
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def sentences(values: Mapping[str, str]) -> dict[str, str]:
    """Make the sentences of ``facts.csv`` whose values are all known.

    Args:
        values: What the run knows, as text; what is empty is not known.

    Returns:
        Key → sentence, of several in the file the first that can be made.
    """
    known: dict[str, str] = {}
    for key, text in _rows("facts").itertuples(index=False):
        needed = {name for _, name, _, _ in Formatter().parse(text) if name}
        if key not in known and all(values.get(name) for name in needed):
            known[key] = text.format_map(values)
    return known


def checklist(name: str, facts: Mapping[str, str]) -> pd.DataFrame:
    """Fill a checklist, or the model card, with the `sentences` of a run.

    Returns:
        item, section, asked, answer, status (filled, partly: some of it is not known, open), basis.
    """
    rows = _rows(name)
    told = [[facts.get(key, "") for key in keys.split()] for keys in rows.pop("key")]
    known = [FILLED if one and all(one) else PARTLY if any(one) else OPEN for one in told]
    rows = rows.assign(answer=[" ".join(filter(None, one)) for one in told], status=known)
    return rows[["item", "section", "asked", "answer", "status", "basis"]]


def filled(table: pd.DataFrame) -> str:
    """Say how many items are filled: ``24 filled, 2 partly, 18 open``."""
    return ", ".join(f"{(table['status'] == s).sum()} {s}" for s in (FILLED, PARTLY, OPEN))


def checklist_form(table: pd.DataFrame) -> Printed:
    """Return a checklist as it is printed."""
    recalled = table["basis"] == "recalled"
    shown = table.assign(item=table["item"].where(~recalled, table["item"] + "*"))
    shown = shown[["item", "section", "asked", "answer", "status"]]
    notes = [f"{filled(table)}. What is open is the author's to answer."]
    notes += ["* Recalled, not read: compare with the published list."] * bool(recalled.any())
    return Printed(shown, words=tuple(shown), notes=notes, widths=WIDTHS)


def model_card(title: str, facts: Mapping[str, str]) -> str:
    """Write the card of a model as Markdown, in the sections of Mitchell et al."""
    lines = [f"# Model card: {title}"]
    for section, rows in checklist(CARD, facts).groupby("section", sort=False):
        lines += ["", f"## {section}", ""]
        lines += [f"- **{r.asked}.** {r.answer or OPEN}" for r in rows.itertuples()]
    return "\n".join(lines) + "\n"
