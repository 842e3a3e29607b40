"""What the runs know of themselves, as text: the values of ``reporting/facts.csv``.

Records, stored predictions and the cohort table come in; texts by name go out. What a run does not
know is not there, and the sentence that needs it stays open.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from bonelib import adaptation, cohort, evaluation, figures, reporting, runs
from bonelib.evaluation import METHOD, Method
from bonelib.evaluation.methods import TOWERS
from bonelib.experiments.context import Context

GROUPED = (cohort.CENTER, cohort.SEX, "age band")


@dataclass(frozen=True)
class Model:
    """The model that the card is of, chosen on validation patients.

    Attributes:
        bundle: ``bundle.json`` of its weights; empty where a run kept none of any model.
        test: Its predictions of the test images.
        validated: Its primary metric on validation patients.
        candidates: What it was chosen from, in words.
    """

    method: Method
    run: runs.Record
    bundle: dict[str, Any]
    test: pd.DataFrame
    validated: float
    candidates: str

    @property
    def name(self) -> str:
        """What readers call it."""
        return figures.display_name(self.method)


def best_model(context: Context) -> Model:
    """Choose the model of notebook 05 that is best on validation patients, if it has weights."""
    run = context.find("finetuning")
    stored = [runs.freshness.read(f.parent, f.name) for f in run.bundle.rglob("bundle.json")]
    named = {(b["facts"].get("start"), b["facts"].get("strategy")): b for b in stored}
    tables = evaluation.by_method(run.table("validation"))
    seeing = [method for method in tables if "image" in method.sees.split("+")]
    kept = [m for m in seeing if (m.start, m.strategy) in named and m.sees == "image"]
    scored = {m: evaluation.score(tables[m], context.asked) for m in kept or seeing}
    choose = min if evaluation.primary(context.asked).lower else max
    best = choose(scored, key=scored.__getitem__)
    test = evaluation.by_method(run.table("predictions"))[best]
    bundle = named.get((best.start, best.strategy), {}) if kept else {}
    told = f"{len(scored)} models " + ("with stored weights" if kept else "without stored weights")
    return Model(best, run, bundle, test, scored[best], told)


def view(context: Context, model: Model) -> pd.DataFrame:
    """Return the cohort with ``label``: of test images that of the stored predictions.

    The test labels are not opened again.
    """
    table = context.view(model.run.settings["test"])
    seen = table[cohort.IMAGE_ID].map(model.test.set_index(cohort.IMAGE_ID)["label"])
    label = table[context.asked.column].astype("object")
    return table.assign(label=label.where(label.notna(), seen.astype("object")))


def values(
    context: Context,
    model: Model,
    scores: pd.DataFrame,
    table: pd.DataFrame,
    maps: pd.DataFrame | None,
) -> dict[str, str]:
    """Return all that is known, as text by the names of ``reporting/facts.csv``.

    Args:
        table: Of ``reporting.characteristics``.
        maps: Of ``reporting.localisation``, if lesions are outlined.
    """
    told = _data(context, model, table) | _training(model) | _others(context, model, scores)
    told |= _performance(context, model, scores) | _groups(context, model) | _maps(maps)
    return {name: str(value) for name, value in told.items() if value not in (None, "")}


def _data(context: Context, model: Model, table: pd.DataFrame) -> dict[str, Any]:
    run, task, test = context.cohort_run, context.asked, model.run.settings["test"]
    cells = table.set_index(["characteristic", "value"])
    images, patients = cells.loc[("images", "")], cells.loc[("patients", "")]
    rows = [(*key, told) for key, told in cells["all"].items()]
    known = [(value, n) for name, value, n in rows if name == "centre"]
    known = [f"{value}: {n}" for value, n in known if value != reporting.MISSING]
    parts = [part for part in cells if part != "all"]
    kinds = run.notes["group_kinds"].items()
    return {
        "data_name": run.head["data_name"],
        "drawn": "synthetic" if context.synthetic else "",
        "images": images["all"],
        "patients": patients["all"] if patients["all"] != "0" else "",
        "parts": "; ".join(f"{p} {images[p]} images of {patients[p]} patients" for p in parts),
        "centres": "; ".join(known),
        "excluded": len(run.table("excluded")),
        "missing": "; ".join(f"{k} {n}" for k, value, n in rows if value == reporting.MISSING),
        "group_kinds": "; ".join(f"{kind}, {n:,} images" for kind, n in kinds),
        "task": task.name,
        "classes": ", ".join(task.classes) or task.unit,
        "test": test,
        "internal": test if test.startswith("fold") else "",
        "external": test if test.startswith("center") else "",
    } | {name: run.settings.get(name) for name in ("phantom_size", "folds", "split_seed", "fit")}


def _training(model: Model) -> dict[str, Any]:
    head, bundle = model.run.head, model.bundle
    start, strategy = model.method.start, model.method.strategy
    outlines = strategy in adaptation.WITH_OUTLINES
    trained = "The tower was trained" + ", with outlines of training images" * outlines
    if start == "captions":
        made = model.run.upstream("pretraining").settings
        start += f" (recipe {made['recipe']['name']}; they say {', '.join(made['caption_fields'])})"
    cut = bundle.get("facts", {}).get("threshold")
    built = bundle.get("architecture", {})
    names = ("size", "epochs", "batch_size", "lr", "backbone_lr", "imbalance")
    return (
        {
            "model": model.name,
            "architecture": built.get("image", built).get("name"),
            "start": start,
            "strategy": strategy,
            "trained": trained if strategy in TOWERS else "",
            "sees": model.method.sees,
            "threshold": "" if cut is None else figures.number(cut),
            "candidates": model.candidates,
            "validated": figures.number(model.validated),
            "versions": "; ".join(map(" ".join, head["versions"].items())),
            "minutes": f"{head['seconds'] / 60:.0f}",
        }
        | {n: head[n] for n in ("seed", "commit", "device", "threads")}
        | {n: model.run.settings.get(n) for n in names}
    )


def _performance(context: Context, model: Model, scores: pd.DataFrame) -> dict[str, Any]:
    mine = scores[scores["run"] == model.run.name].set_index([*METHOD])
    row = mine.loc[[tuple(model.method.columns().values())]].iloc[0]
    told = {}
    for name, part in zip(("ranking", "operating", "calibration"), reporting.PARTS, strict=True):
        known = [metric for metric in reporting.PARTS[part] if pd.notna(row.get(metric))]
        three = {m: [row[f"{m}{end}"] for end in ("", "_low", "_high")] for m in known}
        told[name] = "; ".join(f"{m} {figures.with_interval(*x)}" for m, x in three.items())
    patients = "patients" if row["group_kind"] == "patient" else f"groups ({row['group_kind']})"
    counted = f"{row['n']:,.0f} images of {row['groups']:,.0f} {patients}"
    if context.asked.classes:
        cut = model.bundle.get("facts", {}).get("threshold")
        options = dict(task=context.asked, threshold=cut)
        counts = evaluation.confusion(model.test, **options).iterrows()
        told["errors"] = "; ".join(
            f"of {called.sum()} {true} " + ", ".join(f"{n} called {c}" for c, n in called.items())
            for true, called in counts
        )
    return told | {
        "metric": context.metric,
        "tested": f"{model.run.settings['test']}, {counted}",
        "resampled": patients,
        "draws": f"{evaluation.DRAWS:,}",
        "metrics": ", ".join(m for m in reporting.SCORED if m in scores and scores[m].count()),
    }


def _others(context: Context, model: Model, scores: pd.DataFrame) -> dict[str, Any]:
    mine = scores[(scores["run"] == model.run.name) & (scores["sees"] == "metadata")]
    blind = context.ranked(mine).head(1)
    simple = context.ranked(scores[scores["sees"].isin(["thumbnail", "file"])])
    found = runs.collect(profile=context.profile, data=context.data, root=context.root)
    opened = found.loc[found["task"] == context.task, "openings"]
    named = zip(figures.display_names(simple), simple.iterrows(), strict=True)
    return {
        "metadata": "".join(context.primary(row) for _, row in blind.iterrows()),
        "simple": "; ".join(f"{name} {context.primary(row)}" for name, (_, row) in named),
        "openings": opened.sum(),
        "opened": (opened > 0).sum(),
    }


def _groups(context: Context, model: Model) -> dict[str, str]:
    """Score the model by centre, sex and age band, and test whether these differ."""
    table = view(context, model).set_index(cohort.IMAGE_ID)
    table["age band"] = evaluation.age_band(table[cohort.AGE])
    told, p = {}, {}
    for by in GROUPED:
        rows = model.test.assign(**{by: model.test[cohort.IMAGE_ID].map(table[by])})
        found = evaluation.subgroups(rows, by, task=context.asked)
        known = figures.intervals(found[found["note"] == ""], by)
        if len(known) > 1:
            p[by] = evaluation.gap(rows, by, task=context.asked)["p"]
            told[by] = ", ".join(f"{k} {score}" for k, score in known.items())
    tested = pd.Series(p, dtype=float).dropna()
    tested = dict(zip(tested.index, evaluation.holm(tested.to_numpy()), strict=True))
    told = {
        by: f"{by} {text}" + (f" (gap: {figures.p_value(tested[by])})" if by in tested else "")
        for by, text in told.items()
    }
    return {
        "by": ", ".join(told),
        "group_scores": "; ".join(told.values()),
        "centre_scores": told.get(cohort.CENTER, ""),
    }


def _maps(maps: pd.DataFrame | None) -> dict[str, str]:
    if maps is None:
        return {}
    maps = maps[maps["measure"] == "pointing"]
    told = maps["name"] + " " + maps["name"].map(figures.intervals(maps, "name"))
    saw = maps["sees"] != "none"
    return {"maps": "; ".join(told[saw]), "priors": "; ".join(told[~saw])}
