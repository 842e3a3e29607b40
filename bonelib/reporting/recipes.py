"""What each pretraining recipe leaves in its tower, compared on the predictions of frozen probes.

Finished runs of notebook 04 come in; frames go out. A recipe is chosen among runs judged on
validation images, and compared on runs judged once on test sets, folds together.
"""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bonelib import evaluation, runs
from bonelib.reporting.tables import refuse_unnamed

CONTRASTS = (
    *("data", "split_seed", "seed", "task", "share", "in_captions", "control", "metric"),
    *("better", "low", "high", "p", "p_holm", "n", "verdict"),
)
# Recipes are compared where these are equal: the radiographs, their folds, the draws of a training.
SAME = ["data", "split_seed", "seed"]
FRONT = ("ours", "published")  # come first
LEVEL = 0.05  # below it a corrected p-value excludes chance


@dataclass
class _Pooled:
    """The runs of one recipe under one set of settings, their test sets together.

    Attributes:
        data: The set as its runs are named, which tells two of one name apart.
        split_seed: Drew its folds.
        seed: Drew what a training draws.
        recipe: Its name; ``shown`` adds the variant where there are several settings of it.
        probes: Predictions of probes. ``detail`` names the recipe that trained the tower and is
            empty for the tower as it came.
    """

    data: str
    split_seed: int
    seed: int
    recipe: str
    shown: str
    probes: pd.DataFrame
    minutes: float

    @property
    def asked(self) -> tuple[str, int, int]:
        """What `SAME` names."""
        return self.data, self.split_seed, self.seed


def recipes(
    *, profile: str, judged: str = "test", beside: str = "published", fresh: bool = False
) -> pd.DataFrame:
    """Compare the pretraining recipes of a profile on frozen probes, folds pooled.

    Runs of one recipe, data set, folds, seed and settings count together: each image was held out
    by the run of its fold, and the scores of all folds are ranked together. A gain is over the
    pretrained tower as it came, probed by the same code in the same folds. Where a recipe was run
    with several settings, its name is followed by the variant.

    Args:
        judged: ``test``: runs judged once on their test sets; ``val``: runs to choose a recipe by.
        beside: The recipe that every other is compared with, on the images both have.
        fresh: Leave out the images on which a recipe was chosen: those that runs of this data set
            judged on validation were probed on, in any profile and with any seed. The best of many
            is too good on these. Nothing is returned for a data set of which no such run is there:
            what chose is then not known.

    Returns:
        data, split_seed (of the folds), seed, recipe, task, share (of the training labels),
        in_captions (the captions named the label), folds, minutes (CPU time of a pretraining),
        metric, value, low, high; ``gain`` and ``over <beside>``, each with ``_low``, ``_high`` and
        ``_p``; n, groups, group_kind.
        Empty where no such run is finished.
    """
    made = _judged(profile, judged)
    if fresh and made:
        seen = _chosen_on()
        made = [one for one in made if one.data in seen]
        for one in made:
            one.probes = one.probes[~one.probes["image_id"].isin(seen[one.data])]
        made = [one for one in made if len(one.probes)]
    rows = []
    for one in made:
        rival = None
        if one.recipe != beside:
            rival = _rival(one, made, beside)
        for (task, share), some in one.probes.groupby(["task", "share"], sort=False):
            metric = evaluation.threshold_free(task)
            valued = _valued(some, task)
            start, own = valued[valued["detail"] == ""], valued[valued["detail"] != ""]
            found = evaluation.metrics(own, task=task, only=(metric,)).iloc[0]
            row = dict(zip(SAME, one.asked, strict=True)) | {"recipe": one.shown}
            row |= {"task": task, "share": share}
            row |= {"in_captions": bool(some["in_captions"].iloc[0])}
            row |= {"folds": some["test"].nunique(), "minutes": one.minutes}
            row |= found[["metric", "value", "low", "high"]].to_dict()
            row |= _lead("gain", own, start, task)
            if rival is not None:
                other = rival[(rival["task"] == task) & (rival["share"] == share)]
                other = _valued(other[other["detail"] != ""], task)
                row |= _lead(f"over {beside}", own, other, task)
            rows.append(row | found[["n", "groups", "group_kind"]].to_dict())
    return pd.DataFrame(rows)


def over_seeds(*, profile: str, judged: str = "test") -> pd.DataFrame:
    """Return what recipes gain over the tower as it came, the mean over seeds of the training.

    The interval is over patients and over seeds (``evaluation.repeated``): an interval of one
    training holds no luck of a training.

    Returns:
        data, split_seed, recipe, task, share, in_captions, metric; ``gain`` with ``low`` and
        ``high``, ``lowest`` and ``highest`` of the seeds, ``seeds``, n, groups, group_kind; a row
        for each that two or more seeds trained on the same folds.
    """
    parts: dict[tuple, list[_Pooled]] = {}
    for one in _judged(profile, judged):
        parts.setdefault((one.data, one.split_seed, one.shown), []).append(one)
    rows = []
    for place, several in parts.items():
        probes = pd.concat([one.probes.assign(of=k) for k, one in enumerate(several)])
        for (task, share), some in probes.groupby(["task", "share"], sort=False):
            valued, metric = _valued(some, task), evaluation.threshold_free(task)
            start = [part for _, part in valued[valued["detail"] == ""].groupby("of")]
            own = [part for _, part in valued[valued["detail"] != ""].groupby("of")]
            if len(several) < 2 or len({len(part) for part in (*own, *start)}) > 1:
                continue  # a fold of one of them is still to come
            found = evaluation.repeated(own, against=start, task=task, metric=metric)
            found = found.rename({"value": "gain", "repeats": "seeds"})
            row = dict(zip((*SAME[:2], "recipe"), place, strict=True))
            row |= {"task": task, "share": share, "in_captions": bool(some["in_captions"].iloc[0])}
            rows.append(row | found.to_dict())
    return pd.DataFrame(rows)


def choice(recipes: pd.DataFrame, *, beside: str = "published") -> pd.DataFrame:
    """Rank recipes by what they take off another's error, the mean over tasks at all labels.

    The error is 1 - AUROC, or the MAE. Tasks count alike, however many images they have.

    Args:
        recipes: What `recipes` returned, of one data set, folds and seed.

    Returns:
        Index: recipe, the best first. Columns: ``error removed`` (the mean of the tasks; 0.1 is a
        tenth of the other's error; NaN where the other was not tried or saw other images), one
        column a task with its value, ``minutes``.
    """
    full = recipes[recipes["share"] == recipes["share"].max()]
    values = full.pivot_table(index="recipe", columns="task", values="value", sort=False)
    metric = full.drop_duplicates("task").set_index("task")["metric"]
    errors = values.apply(lambda c: c if evaluation.lower_is_better(metric[c.name]) else 1 - c)
    removed = (1 - errors / errors.reindex([beside]).iloc[0]).mean(axis=1)
    counts = full.pivot_table(index="recipe", columns="task", values="n", sort=False)
    alike = (counts == counts.reindex([beside]).iloc[0]).all(axis=1)
    out = values.assign(minutes=full.groupby("recipe")["minutes"].first())
    out.insert(0, "error removed", removed.where(alike))
    return out.sort_values("error removed", ascending=False)


def contrasts(recipes: pd.DataFrame, *, of: str = "ours") -> pd.DataFrame:
    """Say by how much one recipe is better than each other, and whether chance can be excluded.

    Args:
        recipes: What `recipes` returned with ``beside`` set to this recipe.

    Returns:
        data, split_seed, seed, task, share, in_captions, control, metric; ``better`` with ``low,
        high`` (AUROC more, or months less), ``p``, ``p_holm`` (over all rows of a data set, folds,
        seed and share), n, and ``verdict``: better or worse where the interval excludes 0 and
        ``p_holm`` is below 0.05, else no difference shown.
    """
    column = f"over {of}"
    if column not in recipes:
        return pd.DataFrame(columns=list(CONTRASTS))
    rows = recipes.dropna(subset=[column])
    sign = np.where(rows["metric"].map(evaluation.lower_is_better), 1.0, -1.0)
    ends = np.sort(rows[[f"{column}_low", f"{column}_high"]].to_numpy() * sign[:, None], axis=1)
    out = rows[[*SAME, "task", "share", "in_captions", "recipe", "metric"]]
    out = out.rename(columns={"recipe": "control"}).assign(
        better=rows[column] * sign, low=ends[:, 0], high=ends[:, 1], p=rows[f"{column}_p"]
    )
    family = out.groupby([*SAME, "share"])["p"]
    out["p_holm"] = family.transform(lambda p: evaluation.holm(p.to_numpy()))
    sure = out["p_holm"] < LEVEL
    words = [sure & (out["low"] > 0), sure & (out["high"] < 0)]
    verdict = np.select(words, ["better", "worse"], "no difference shown")
    return out.assign(n=rows["n"], verdict=verdict)[list(CONTRASTS)]


def _judged(profile: str, judged: str) -> list[_Pooled]:
    """Return the finished runs judged on ``judged``, those of the same settings together."""
    made = runs.collect(profile=profile)
    if len(made):
        images = made.get("settings.evaluate_on", pd.Series(index=made.index, dtype=object))
        mine = (made["stage"] == "pretraining") & (images == judged) & ~made["stale"].astype(bool)
        made = made[mine]
    parts: dict[tuple, list[runs.Record]] = {}
    for row in made.to_dict("records"):
        run = runs.Record(runs.folder() / row["run"])
        same = {k: v for k, v in run.settings.items() if k != "test"}
        name = same["recipe"]["name"]
        place = (row["data_name"], same.get("split_seed", 0), row["seed"], name)
        parts.setdefault((*place, json.dumps(same, sort_keys=True)), []).append(run)
    names = [key[:4] for key in parts]
    out = []
    for (*place, _), found in parts.items():
        tables = [r.table("probes").assign(test=r.settings["test"]) for r in found]
        for run, table in zip(found, tables, strict=True):
            refuse_unnamed(table, run, "pretraining")
        probes = pd.concat(tables)
        spent = [r.table("history").get("cpu_seconds", pd.Series(dtype=float)) for r in found]
        minutes = [s.sum() / 60 if s.notna().any() else np.nan for s in spent]
        variant = found[0].head["variant"]
        name = place[-1]
        shown = name if names.count(tuple(place)) == 1 else f"{name} ({variant})"
        # A centre held out and a fold may share an image: its first prediction counts.
        probes = probes.drop_duplicates(["task", "share", *evaluation.METHOD, "image_id"])
        out.append(_Pooled(*place, shown, probes, float(np.mean(minutes))))

    def order(one: _Pooled) -> tuple:
        return *one.asked, FRONT.index(one.recipe) if one.recipe in FRONT else len(FRONT)

    return sorted(out, key=order)


def _chosen_on() -> dict[str, set[str]]:
    """Return, by data set, the images that any run judged on validation images was probed on."""
    found: dict[str, set[str]] = {}
    for profile in sorted(p.name for p in runs.folder().glob("*") if p.is_dir()):
        for one in _judged(profile, "val"):
            found.setdefault(one.data, set()).update(one.probes["image_id"])
    return found


def _rival(one: _Pooled, made: list[_Pooled], name: str) -> pd.DataFrame | None:
    """Return the probes of the recipe ``name`` that shares most images with ``one``."""
    ids = set(one.probes["image_id"])
    rivals = [other for other in made if other.asked == one.asked and other.recipe == name]
    return max(
        (r.probes for r in rivals), key=lambda p: len(ids & set(p["image_id"])), default=None
    )


def _valued(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Keep the labelled rows; labels of all tasks are stored as text."""
    valued = evaluation.as_task(task).kind == "regression"
    return table.dropna(subset=["label"]).astype({"label": float if valued else str})


def _lead(name: str, first: pd.DataFrame, second: pd.DataFrame, task: str) -> dict[str, float]:
    """Compare on the images both have; nothing where they share none."""
    both = set(first["image_id"]) & set(second["image_id"])
    if not both:
        return {}
    first, second = (t[t["image_id"].isin(both)] for t in (first, second))
    found = evaluation.compare(first, second, task=task, metric=evaluation.threshold_free(task))
    return {name: found["value"]} | {f"{name}_{k}": found[k] for k in ("low", "high", "p")}
