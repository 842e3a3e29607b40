"""Retrieval and similar cases, as notebook 06 asks them.

A pretraining comes in; how well test images and their captions find each other, and which training
images lie nearest to a test image, go out. The captions of test images are written from what the
door opens, in the fields of the pretraining.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bonelib import captions, cohort, evaluation, features, figures, images, models, runs
from bonelib import zero_shot as searching
from bonelib.experiments import settings
from bonelib.experiments.context import AnyRun, Context, keep, opened

NEIGHBOURS = ["neighbour_1", "neighbour_2", "neighbour_3", "neighbour_4", "neighbour_5"]
SHOWN = 5  # queries on the page
_KNOWN = ["image_id", "patient", "group", "group_kind"]


@dataclass(frozen=True)
class Archive:
    """Test images, opened, beside the library of all other images.

    Attributes:
        test: Rows of the test images with their labels, in the order of ``queries``.
        library: Rows of training and validation images, in the order of ``stored``.
        queries: ``(Q, D)`` pooled features, like ``stored`` ``(N, D)``.
    """

    model: models.Model
    cache: images.Cache
    test: pd.DataFrame
    library: pd.DataFrame
    queries: np.ndarray
    stored: np.ndarray


def open_archive(context: Context, run: AnyRun, pretraining: runs.Record) -> Archive:
    """Load the model and the frozen features of all images, and what is opened of the test."""
    model, view = models.load_bundle(pretraining.bundle), context.view()
    cache = context.cache(pretraining.settings["size"], fit=pretraining.settings.get("resize", ""))
    pooled = context.features(model.image, cache, view["image_id"])
    held = (view["split"] == "test").to_numpy()
    public = view[held].drop(columns=cohort.sealed_columns(view))
    test = public.merge(opened(run), on="image_id", how="left", validate="one_to_one")
    return Archive(model, cache, test, view[~held], pooled[held], pooled[~held])


# ---------------------------------------------------------------------- do they find each other?
def retrieve(
    context: Context, run: AnyRun, pretraining: runs.Record, archive: Archive
) -> pd.DataFrame:
    """Return a row an image and direction: how far down its right captions, or images, stand.

    What is right is told by attribute keys. Empty for a model without a text tower, or where
    nothing is known to say of any test image.
    """
    if run.finished:
        return run.table("retrieved")
    test, said, keys = archive.test, [], np.empty((len(archive.test), 0))
    trained = settings.trained_words(pretraining.settings)
    if trained and isinstance(archive.model, models.DualEncoder):
        said, keys = _captions(context, pretraining, test)
    told = (keys >= 0).any(axis=1)
    if not told.any():
        return keep(run, "retrieved", pd.DataFrame(columns=["direction"]))
    known = searching.text_features(archive.model, said)
    text = np.stack([known[sentence] for sentence in said])[told]
    image = features.projected(archive.model, archive.queries)[told]
    both, tables = {"image to text": (image, text), "text to image": (text, image)}, []
    for direction, pair in both.items():
        ranks = searching.ranked(*pair, keys=keys[told]).set_index(test.index[told])
        tables.append(test.loc[told, _KNOWN].join(ranks).assign(direction=direction))
    return keep(run, "retrieved", pd.concat(tables))


def _captions(
    context: Context, pretraining: runs.Record, test: pd.DataFrame
) -> tuple[list[str], np.ndarray]:
    """Write what the pretraining would have been told of these images; keys are -1 if nothing.

    Outlines were said of training images alone.
    """
    fields = tuple(f for f in pretraining.notes["caption_fields"] if f != captions.OUTLINES)
    if fields != (captions.OWN,):
        spoken = dict(fields=fields, language=pretraining.settings["language"])
        said = captions.write(test, seed=context.seed, **spoken)
        return said, captions.keys(test, fields=fields)
    if "caption" not in test or not test["caption"].fillna("").str.strip().any():
        return [""] * len(test), np.full((len(test), 1), -1)
    return captions.own_words(test)


def score_retrieval(retrieved: pd.DataFrame) -> pd.DataFrame:
    """Average the ranks of each direction, with intervals over patients, beside chance."""
    if retrieved.empty:
        return retrieved
    named = {"recall_1": "R@1", "recall_5": "R@5", "recall_10": "R@10", "reciprocal_rank": "MRR"}
    scores = evaluation.means(retrieved, [*named], by="direction")
    chance = retrieved.groupby("direction")[[f"chance_{m}" for m in named]].mean()
    of = zip(scores["direction"], "chance_" + scores["measure"], strict=True)
    scores.insert(5, "chance", [chance.loc[place] for place in of])
    # A few bad queries carry the mean of ranks away, so the median stands for them.
    ranks = retrieved.groupby("direction", sort=False)[["rank", "chance_rank"]].median()
    ranks = ranks.rename(columns={"rank": "value", "chance_rank": "chance"}).reset_index()
    basis = scores.iloc[0][["n", "groups", "group_kind"]].to_dict()  # all are asked of the same
    ranks = ranks.assign(measure="median rank", **basis)
    return pd.concat([scores, ranks], ignore_index=True).replace({"measure": named})


def read_retrieval(scores: pd.DataFrame) -> str:
    """Say how often a right answer is among the first ten."""
    if scores.empty:
        return "**Reading.** The model reads no text, or nothing is known to say of a test image."
    among = scores[scores["measure"] == "R@10"]
    shares = figures.intervals(among, "direction")
    said = [
        f"{shares[row.direction]} of {row.n} queries from {row.direction}, by chance "
        f"{figures.number(row.chance)}"
        for row in among.itertuples()
    ]
    return f"**Reading.** A right answer is among the first ten of {'; '.join(said)}."


# ---------------------------------------------------------------------- which cases are similar?
def find_similar(context: Context, run: AnyRun, archive: Archive) -> pd.DataFrame:
    """Return the nearest library images of each test image, by the image tower alone.

    What agrees is the entity, where both sides know one, else the class of the task, or the stage
    of a bone age. Images without it are neither asked nor found.

    Returns:
        A row a query: its label, ``neighbour_1`` … (image ids, "" where there is none),
        ``precision_1``, ``precision_5`` and ``chance``; empty where no class is known.
    """
    if run.finished:
        return run.table("similar")
    columns = cohort.task("entity").column, context.asked.column
    sides = archive.test, archive.library
    by = next((c for c in columns if all(c in t and t[c].notna().any() for t in sides)), "")
    if not by:
        return keep(run, "similar", pd.DataFrame(columns=["label", *NEIGHBOURS]))
    known = [t[by].notna().to_numpy() for t in sides]
    test, library = (t[k] for t, k in zip(sides, known, strict=True))
    groups = dict(query_groups=test["group"].to_numpy(), library_groups=library["group"].to_numpy())
    labels = dict(query_labels=_named(test[by]), library_labels=_named(library[by]))
    queries, stored = archive.queries[known[0]], archive.stored[known[1]]
    found = searching.neighbours(queries, stored, k=len(NEIGHBOURS), **groups)
    table = test[_KNOWN].reset_index(drop=True).assign(by=by, label=labels["query_labels"])
    table[NEIGHBOURS] = np.where(found < 0, "", library["image_id"].to_numpy(dtype=object)[found])
    for k in (1, len(NEIGHBOURS)):
        precision = searching.precision(found[:, :k], **labels, **groups)
        table[[f"precision_{k}", "chance"]] = precision[["precision", "chance"]]
    return keep(run, "similar", table)


def _named(values: pd.Series) -> np.ndarray:
    staged = values.name == cohort.task("bone_age").column
    return values.map(lambda v: captions.bone_age_group(float(v)) if staged else str(v)).to_numpy()


def score_similar(similar: pd.DataFrame) -> pd.DataFrame:
    """Average the precision over all queries and those of each label, beside chance."""
    if similar.empty:
        return similar
    table = pd.concat([similar.assign(label="all"), similar])
    measures = ["precision_1", f"precision_{len(NEIGHBOURS)}"]
    scores = evaluation.means(table, measures, by="label")
    scores.insert(5, "chance", scores["label"].map(table.groupby("label")["chance"].mean()))
    return scores


def draw_similar(archive: Archive, similar: pd.DataFrame) -> Figure | None:
    """Lay out queries at equal steps from the best to the worst precision, with their neighbours.

    None where there is nothing to show.
    """
    if similar.empty:
        return None
    ranked = similar.sort_values(f"precision_{len(NEIGHBOURS)}", ascending=False, kind="stable")
    steps = np.linspace(0, len(ranked) - 1, min(SHOWN, len(ranked))).astype(int)
    column = similar["by"].iloc[0]
    names = archive.library.set_index("image_id")[column].dropna()
    names = pd.Series(_named(names), names.index)
    task = next(task for task in cohort.TASKS.values() if task.column == column)
    said = dict(zip(task.classes, task.words.get("en", ()), strict=False))
    rows = []
    for row in ranked.iloc[steps].to_dict("records"):
        shown = [row[name] for name in NEIGHBOURS if row[name]]
        films = archive.cache.images[archive.cache.rows([row["image_id"], *shown])]
        told = [(row["label"], None)] + [(names[i], names[i] == row["label"]) for i in shown]
        pairs = zip(films, told, strict=True)
        rows.append([(film, said.get(name, name), agrees) for film, (name, agrees) in pairs])
    return figures.similar_sheet(rows)


def draw_map(archive: Archive, *, seed: int) -> Figure | None:
    """Map the library by what its image tower takes for alike, coloured by site and entity.

    Of the library alone, whose labels are no secret. None where neither is known, or of few images.
    """
    known = archive.library.reindex(columns=["site", cohort.task("entity").column])
    columns = [c for c in known if known[c].notna().any()]
    if not columns or len(known) < 5:
        return None
    return figures.plot_embedding(archive.stored, known, columns, seed=seed)


def read_similar(scores: pd.DataFrame, similar: pd.DataFrame) -> str:
    """Say how many of the neighbours agree, and how many would by chance."""
    if scores.empty:
        return "**Reading.** No class is known by which cases could be alike."
    row = scores[scores["label"] == "all"].iloc[-1]
    share = figures.with_interval(*row[["value", "low", "high"]])
    return (
        f"**Reading.** Of the five nearest images of other patients, {share} have the query's "
        f"{similar['by'].iloc[0]} ({row['n']} queries; by chance {figures.number(row['chance'])})."
    )
