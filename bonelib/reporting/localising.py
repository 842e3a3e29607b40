"""How well maps meet lesions, as a table: from the scores of single images of notebook 07."""

import pandas as pd

from bonelib import evaluation, figures
from bonelib.evaluation import METHOD
from bonelib.reporting.printing import Printed

MEASURES = {  # larger is better
    "pointing": "pointing game",
    "energy": "energy in the lesion",
    "average_precision": "pixel average precision",
    "iou": "IoU of as many pixels",
    "iou_at_threshold": "IoU at the validation threshold",
}


def localisation(
    table: pd.DataFrame, *, draws: int = evaluation.DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Average the measures of single maps of each kind, with intervals over patients.

    Args:
        table: A row an image and map: the columns of methods, ``map`` (how it was made) if they
            alone don't tell, ``role`` (``chosen`` on validation lesions), ``image_id``, some of
            ``MEASURES``.

    Returns:
        Rows of ``evaluation.means``, with ``name`` for readers, and ``best``: whether it is ahead
        of the second best on the same images by a paired interval above zero.
    """
    measures = [m for m in MEASURES if m in table and table[m].notna().any()]
    options, keys = dict(draws=draws, seed=seed), [*METHOD, "map"]
    table = table.assign(**{key: table[key].fillna("") if key in table else "" for key in keys})
    means = evaluation.means(table, measures, by=keys, **options).assign(best=False)
    shown = figures.display_names(means), means["map"].str.replace("_", " ")
    means["name"] = [", ".join(filter(None, pair)) for pair in zip(*shown, strict=True)]
    if "role" in table:
        chosen = means[keys].merge(table[[*keys, "role"]].drop_duplicates(keys), how="left")
        means.loc[(chosen["role"] == "chosen").to_numpy(), "name"] += " (chosen)"
    rows = table.set_index(keys).sort_index()
    for measure, own in means.groupby("measure", sort=False):
        ranked = own.sort_values("value", ascending=False, kind="stable").head(2)
        first, *second = (rows.loc[[key]].dropna(subset=[measure]) for key in _tuples(ranked[keys]))
        if second and set(first["image_id"]) == set(second[0]["image_id"]):
            other = first["image_id"].map(second[0].set_index("image_id")[measure])
            lead = first.assign(gain=first[measure] - other, of="gain").reset_index(drop=True)
            lead = evaluation.means(lead, ["gain"], by=["of"], **options)
            means.loc[ranked.index[0], "best"] = bool(lead.loc[0, "low"] > 0)
    return means


def _tuples(table: pd.DataFrame) -> list[tuple]:
    return list(table.itertuples(index=False, name=None))


def localisation_form(means: pd.DataFrame) -> Printed:
    """Return the table of `localisation` as it is printed, a row a map."""
    order = list(dict.fromkeys(means["name"]))
    shown, bold = {"map": order}, []
    for measure, own in means.groupby("measure", sort=False):
        told, name = figures.intervals(own, "name"), MEASURES[measure]
        shown[name] = [told.get(one, "–") for one in order]
        bold += [(order.index(one), name) for one in own.loc[own["best"], "name"]]
    notes = [f"{figures.interval_kind(means)}; {figures.sample(means)}."]
    if means["low"].isna().any():
        notes.append("Without brackets: no draw differed from the value.")
    notes += ["Bold: ahead of the second best on the same images, interval > 0."] * bool(bold)
    options = dict(words=("map",), widths={"map": 0.24})
    return Printed(pd.DataFrame(shown), notes=notes, bold=bold, **options)
