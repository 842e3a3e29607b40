"""What notebook 07 shows and says of its tables: figures, and sentences that read them."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bonelib import cohort, evaluation, figures
from bonelib.evaluation import METHOD, Method
from bonelib.experiments.context import AnyRun
from bonelib.experiments.gradcam.auditing import DROPS, SHUFFLED, verdicts
from bonelib.experiments.gradcam.cases import Cases
from bonelib.experiments.gradcam.judging import COMPARED

CASES = 8  # on the sheet
GROUPS = {"chosen": "chosen on validation lesions", "plain": "Grad-CAM of the last layer"}
GROUPS |= {"prior": "maps that saw no image"}
AUDITED = {
    "hidden_drop": "lesion hidden",
    "elsewhere_drop": "as much hidden elsewhere",
    "lesion_drop": "lesion hidden minus elsewhere",
    "swap_change": "another patient's image, distance",
}


# ---------------------------------------------------------------------- tables with names
def named(table: pd.DataFrame) -> pd.DataFrame:
    """Put one column with a name for readers in the place of those of methods and maps."""
    if table.empty or "map" not in table:
        return table
    names = figures.map_names(table)
    return pd.concat([names.rename("name"), table.drop(columns=[*METHOD, "map"])], axis=1)


def wide(scores: pd.DataFrame) -> pd.DataFrame:
    """Lay out measures with intervals side by side, a row a map."""
    if scores.empty:
        return scores
    table = named(scores).assign(told=_told(scores))
    return table.pivot_table("told", "name", "measure", aggfunc="first", sort=False).reset_index()


def _told(table: pd.DataFrame) -> list[str]:
    """Write value and interval of each row."""
    return [figures.with_interval(*row) for row in table[["value", "low", "high"]].to_numpy(float)]


# ---------------------------------------------------------------------- figures
def draw(scores: pd.DataFrame) -> Figure | None:
    """Draw the scores, a panel a measure; None without outlines."""
    if scores.empty:
        return None
    shown = scores[scores["measure"].isin(COMPARED)]
    return figures.plot_localisation(shown.assign(group=shown["role"].map(GROUPS)))


def sheet(run: AnyRun, found: Cases, localisation: pd.DataFrame) -> Figure:
    """Lay out cases at equal steps from best to worst, by the share of the map inside the outline.

    Without outlines, at equal steps of the table.
    """
    names = found.table[cohort.IMAGE_ID]
    energy = np.zeros(len(names))
    if len(localisation):
        chosen = localisation[localisation["role"] == "chosen"]
        energy = chosen.set_index("image_id")["energy"].reindex(names).to_numpy()
    steps = np.linspace(0, len(energy) - 1, min(CASES, len(energy))).astype(int)
    rows = np.argsort(-energy, kind="stable")[steps]
    titles = [f"energy {figures.number(energy[i])}" if found.outlined else names[i] for i in rows]
    outlines = [*found.masks[rows]] if found.outlined else [None] * len(rows)
    kinds = {"chosen map": "maps", "Grad-CAM": "plain"}
    maps = {told: run.array(name)[rows].astype(np.float32) for told, name in kinds.items()}
    cache = found.cache()
    pixels = cache.images[cache.rows(names.iloc[rows])]
    return figures.case_sheet([*pixels], maps, outlines, titles)


def draw_drops(table: pd.DataFrame) -> Figure | None:
    """Draw how far the score falls as parts of the image are taken away; None without outlines."""
    if table.empty:
        return None
    shown = table[table["measure"].isin(AUDITED)]
    shown = shown.assign(name=shown["measure"].map(AUDITED))
    return figures.plot_measured(shown, "fall of the explained probability", zero=True)


def draw_where(table: pd.DataFrame) -> Figure | None:
    """Draw the pointing game of each subgroup, those with too few patients as one row; or None."""
    shown = table[table["measure"] == "pointing"] if len(table) else table
    if shown.empty:
        return None
    rows = []
    for by, part in shown.groupby("by", sort=False):
        few = part[part["note"] != ""]
        told = [f"{r.group} (n = {r.n}, {r.groups})" for r in part.itertuples()]
        part = part.assign(name=told, group=by)[part["note"] == ""]
        rest = few.head(1).assign(name=f"{len(few)} more", group=by, n=np.nan, groups=np.nan)
        rows.append(pd.concat([part, rest]))
    label = "pointing game of the chosen map; in brackets images, patients"
    return figures.plot_measured(pd.concat(rows), label)


# ---------------------------------------------------------------------- sentences
def read_cases(val: Cases, test: Cases) -> str:
    """Say how many images show what is asked for, and how many have an outline."""
    counts = [
        f"{part.findings} of {part.images} {name} images show what is asked for, "
        f"{len(part.masks)} {'of them ' if name == 'test' else ''}with an outline"
        for name, part in (("validation", val), ("test", test))
    ]
    shown = "" if test.outlined else ". None has one: the maps below are shown, not scored"
    return f"**Reading.** {'; '.join(counts)}{shown}."


def read(scores: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Say how often the peak of the map lies on the lesion, and how much more than without it."""
    if scores.empty:
        return "**Reading.** Without outlines nothing is scored."
    own = scores[scores["role"] == "chosen"]
    told, name = figures.intervals(own, "measure"), figures.map_names(own).iloc[0]
    gaps = differences[differences["role"] == "prior"]
    gaps = gaps[gaps["measure"].isin(("pointing", "energy"))]
    gaps = gaps[gaps["detail"].isin(("centre prior", "bone prior"))]
    said = [
        f"{row.measure} minus {row.detail} {told_gap} (Holm {figures.p_value(row.p_holm)})"
        for row, told_gap in zip(gaps.itertuples(), _told(gaps), strict=True)
    ]
    return (
        f"**Reading.** On {own['n'].iloc[0]} test lesions the peak of *{name}* lies in or next to "
        f"the lesion in {told['pointing']}, and {told['energy']} of the map lies inside. "
        f"{'; '.join(said)}."
    )


def read_cost(table: pd.DataFrame) -> str:
    """Say whether the explained model classifies as well as full fine-tuning of its start."""
    if table.empty:
        return "**Reading.** No full fine-tuning of the same start stands beside it."
    row = table.iloc[0]
    name = figures.display_name(Method(**row[[*METHOD]]))
    if row["strategy"] == "full":
        own = figures.number(row["own"])
        return f"**Reading.** The explained model is *{name}* itself: {row['metric']} {own}."
    gap = _told(table)[0]
    none = ", no difference shown" if row["low"] <= 0 <= row["high"] else ""
    return (
        f"**Reading.** *{name}* has {row['metric']} {figures.number(row['own'])}, full fine-tuning "
        f"of the same start {figures.number(row['full'])}: a difference of {gap}{none}."
    )


def read_where(run: AnyRun, table: pd.DataFrame) -> str:
    """Say in which subgroup the lesion is found least and most often."""
    known = table[(table["measure"] == "pointing") & table["value"].notna()]
    if known.empty:
        return "**Reading.** There are no subgroups with enough patients."
    ends = known.loc[[known["value"].idxmin(), known["value"].idxmax()]].assign(told=_told)
    said = [
        f"{word} often where {row.by} is *{row.group}* ({row.told})"
        for word, row in zip(("least", "most"), ends.itertuples(), strict=True)
    ]
    few = ((table["measure"] == "pointing") & (table["note"] != "")).sum()
    return (
        f"**Reading.** The lesion is found {' and '.join(said)}. {few} subgroups have fewer than "
        f"{run.settings['minimum']} patients and no number."
    )


def read_sanity(run: AnyRun, table: pd.DataFrame, localisation: pd.DataFrame) -> str:
    """Say pass or fail of each sanity check, and whether the border raises an alarm."""
    verdict = verdicts(run, table)
    steps = [step for step in dict.fromkeys(verdict["randomised"]) if step != SHUFFLED]
    said = []
    for name, step in (("weights random throughout", steps[-1]), (SHUFFLED, SHUFFLED)):
        rows = verdict[verdict["randomised"] == step]
        told = [f"{r.measure} {figures.number(r.value)} {r.verdict}" for r in rows.itertuples()]
        said.append(f"{name}: {', '.join(told) or 'not run for such a map'}")
    return f"**Reading.** {'; '.join(said)}. {read_border(run, localisation)}"


def read_border(run: AnyRun, localisation: pd.DataFrame) -> str:
    """Raise an alarm where more of the map lies at the border than of a uniform one."""
    if localisation.empty:
        return ""
    own = localisation[localisation["role"] == "chosen"]
    own = own.assign(excess=own["border"] - own["border_uniform"])
    draws = run.settings["draws"]
    table = evaluation.means(own, ["border", "border_uniform", "excess"], draws=draws)
    told = figures.intervals(table, "measure")
    alarm = table.set_index("measure").loc["excess", "low"] > 0
    return (
        f"Border mass {told['border']}, of a uniform map {told['border_uniform']}: "
        f"{'**alarm**, the map lies at the border' if alarm else 'no alarm'}."
    )


def read_drops(table: pd.DataFrame) -> str:
    """Say how far the score falls without the lesion, and without as much elsewhere."""
    if table.empty:
        return "**Reading.** Without outlines nothing can be hidden."
    told = figures.intervals(table, "measure")
    low = table.set_index("measure").loc[DROPS[2], "low"]
    verdict = "hangs on the lesion" if low > 0 else "is not shown to hang on the lesion"
    return (
        f"**Reading.** The score {verdict}: it is {told['whole']}, falls by {told['hidden_drop']} "
        f"with the lesion hidden and by {told['elsewhere_drop']} with as much hidden elsewhere, a "
        f"difference of {told['lesion_drop']}. Another patient's image moves it by "
        f"{told['swap_change']}."
    )


def peaks(scores: pd.DataFrame) -> dict[str, float]:
    """Return how often the peak hits: of the chosen map, and of maps that saw no image."""
    hits = scores[scores["measure"] == "pointing"] if len(scores) else scores
    names = {"chosen": "pointing", "centre prior": "centre_prior", "bone prior": "bone_prior"}
    rows = {row.detail if row.role == "prior" else row.role: row.value for row in hits.itertuples()}
    return {told: float(rows[name]) for name, told in names.items() if name in rows}
