"""What each pretraining recipe leaves in its tower, compared on the predictions of frozen probes.

Finished runs of notebook 04 come in; frames go out. A recipe is chosen among runs judged on
validation images, and compared on runs judged once on test sets, folds together.
"""

import numpy as np
import pandas as pd

from bonelib import evaluation, runs


def recipes(*, profile: str, judged: str = "test", beside: str = "published") -> pd.DataFrame:
    """Compare the pretraining recipes of a profile on frozen probes, folds pooled.

    Runs of one recipe, data set and seed count together: each image was held out by the run of its
    fold. A gain is over the starting tower, probed by the same code in the same folds.

    Args:
        judged: ``test``: runs judged once on their test sets; ``val``: runs to choose a recipe by.
        beside: The recipe that every other is compared with, on the images both have.

    Returns:
        data, seed, recipe, task, share (of the training labels), in_captions (the captions named
        the label), folds, minutes (CPU time of a pretraining), metric, value, low, high; ``gain``
        and ``over <beside>``, each with ``_low``, ``_high`` and ``_p``; n, groups, group_kind.
        Empty where no such run is finished.
    """
    pooled, minutes = _judged(profile, judged)
    rows = []
    for (data, seed, recipe), whole in pooled.items():
        rival = pooled.get((data, seed, beside)) if recipe != beside else None
        for (task, share), some in whole.groupby(["task", "share"], sort=False):
            metric = "MAE" if evaluation.as_task(task).kind == "regression" else "AUROC"
            two = dict(tuple(_valued(some, metric).groupby("method")))
            found = evaluation.metrics(two[recipe], task=task, only=(metric,)).iloc[0]
            row = {"data": data, "seed": seed, "recipe": recipe, "task": task, "share": share}
            row |= {"in_captions": bool(some["in_captions"].iloc[0])}
            row |= {"folds": some["test"].nunique(), "minutes": minutes[data, seed, recipe]}
            row |= found[["metric", "value", "low", "high"]].to_dict()
            row |= _lead("gain", two[recipe], two["start"], task)
            if rival is not None:
                other = rival[(rival["task"] == task) & (rival["share"] == share)]
                other = _valued(other[other["method"] == beside], metric)
                row |= _lead(f"over {beside}", two[recipe], other, task)
            rows.append(row | found[["n", "groups", "group_kind"]].to_dict())
    return pd.DataFrame(rows)


def choice(recipes: pd.DataFrame, *, beside: str = "published") -> pd.DataFrame:
    """Rank recipes by what they take off another's error, the mean over tasks at all labels.

    The error is 1 - AUROC, or the MAE. Tasks count alike, however many images they have.

    Args:
        recipes: What `recipes` returned, of one data set and seed.

    Returns:
        Index: recipe, the best first. Columns: ``error removed`` (the mean of the tasks; 0.1 is a
        tenth of the other's error; NaN where the other was not tried), one column a task with its
        value, ``minutes``.
    """
    full = recipes[recipes["share"] == recipes["share"].max()]
    values = full.pivot_table(index="recipe", columns="task", values="value", sort=False)
    metric = full.drop_duplicates("task").set_index("task")["metric"]
    errors = values.apply(lambda c: c if metric[c.name] == "MAE" else 1 - c)
    removed = (1 - errors / errors.reindex([beside]).iloc[0]).mean(axis=1)
    out = values.assign(minutes=full.groupby("recipe")["minutes"].first())
    out.insert(0, "error removed", removed)
    return out.sort_values("error removed", ascending=False)


def contrasts(recipes: pd.DataFrame, *, of: str = "ours") -> pd.DataFrame:
    """Say by how much one recipe is better than each other, and whether chance can be excluded.

    Args:
        recipes: What `recipes` returned with ``beside`` set to this recipe.

    Returns:
        data, seed, task, share, in_captions, control, metric; ``better`` with ``low, high``
        (AUROC more, or months less), ``p``, ``p_holm`` (over all rows of a data set, seed and
        share), ``verdict`` (better, worse, no difference shown), n.
    """
    column = f"over {of}"
    if column not in recipes:
        return pd.DataFrame()
    rows = recipes.dropna(subset=[column])
    sign = np.where(rows["metric"] == "MAE", 1.0, -1.0)
    ends = np.sort(rows[[f"{column}_low", f"{column}_high"]].to_numpy() * sign[:, None], axis=1)
    out = rows[["data", "seed", "task", "share", "in_captions", "recipe", "metric"]]
    out = out.rename(columns={"recipe": "control"}).assign(
        better=rows[column] * sign, low=ends[:, 0], high=ends[:, 1], p=rows[f"{column}_p"]
    )
    family = out.groupby(["data", "seed", "share"])["p"]
    out["p_holm"] = family.transform(lambda p: evaluation.holm(p.to_numpy()))
    words = np.select([out["low"] > 0, out["high"] < 0], ["better", "worse"], "no difference shown")
    return out.assign(verdict=words, n=rows["n"])


def _judged(profile: str, judged: str) -> tuple[dict[tuple, pd.DataFrame], dict[tuple, float]]:
    """Return probe predictions and mean CPU minutes by (data, seed, recipe), folds together."""
    pooled: dict[tuple, list[pd.DataFrame]] = {}
    spent: dict[tuple, list[float]] = {}
    made = runs.collect(profile=profile)
    if len(made):
        probe = made.get("settings.probe", pd.Series(index=made.index, dtype=object))
        mine = (made["stage"] == "pretraining") & (probe == judged) & ~made["stale"].astype(bool)
        made = made[mine]
    for row in made.to_dict("records"):
        place = dict(data=row["data"], seed=row["seed"], variant=row["variant"])
        run = runs.find("pretraining", profile=profile, **place)
        key = (row["data"], row["seed"], run.settings["recipe_name"])
        pooled.setdefault(key, []).append(run.table("probes").assign(test=run.settings["test"]))
        history = run.table("history")
        spent.setdefault(key, []).append(history.get("cpu_seconds", pd.Series(dtype=float)).sum())
    same = ["test", "task", "share", "method", "image_id"]
    return (
        {key: pd.concat(parts).drop_duplicates(same) for key, parts in pooled.items()},
        {key: float(np.mean(seconds)) / 60 for key, seconds in spent.items()},
    )


def _valued(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Keep the labelled rows; labels of all tasks are stored as text."""
    return table.dropna(subset=["label"]).astype({"label": float if metric == "MAE" else str})


def _lead(name: str, first: pd.DataFrame, second: pd.DataFrame, task: str) -> dict[str, float]:
    """Compare on the images both have; nothing where they share none."""
    both = set(first["image_id"]) & set(second["image_id"])
    if not both:
        return {}
    first, second = (t[t["image_id"].isin(both)] for t in (first, second))
    found = evaluation.compare(first, second, task=task)
    return {name: found["value"]} | {f"{name}_{k}": found[k] for k in ("low", "high", "p")}
