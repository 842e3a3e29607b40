"""Whether the map depends on what the model learnt, and the model's score on the lesion."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from bonelib import adaptation, cohort, evaluation, explain, images, models, training
from bonelib.evaluation import Method
from bonelib.experiments.context import AnyRun, Context, keep
from bonelib.experiments.gradcam.cases import Cases, blind
from bonelib.experiments.gradcam.choosing import IDS, Explained, Way
from bonelib.experiments.gradcam.judging import paired
from bonelib.experiments.progress import fit

SHUFFLED, STEPS = "shuffled labels", 8  # of deletion, from nothing to the whole image
EPOCHS, RATE = 4, 3e-4  # on shuffled labels; the rate is that of the tower, as in notebook 05
SCORES = ("whole", "hidden", "elsewhere", "swapped")
DROPS = ("hidden_drop", "elsewhere_drop", "lesion_drop", "swap_change")


# -------------------------------------------------------------------- does it follow the model?
def sanity(context: Context, run: AnyRun, one: Explained, name: str, val: Cases) -> pd.DataFrame:
    """Compare the maps of some validation images with those of models that know less.

    Both explain what the model says loudest, see ``Explained.heat``; a head's own map the class.

    Returns:
        A row an image and model: ``randomised`` (down to which module, or ``SHUFFLED``), spearman,
        ssim, ``left_out``.
    """
    if run.finished:
        return run.table("sanity")
    few = val.take(val.spread(run.settings["checked"]))
    either, rows = Way.read(name).method != "own", []
    own = one.heat(name, few, unsigned=either)
    for step, other in _others(context, run, one):
        alike = explain.resemblance(own, one.heat(name, few, other, unsigned=either))
        rows.append(pd.concat([few.table[[*IDS]], alike], axis=1).assign(randomised=step))
    return keep(run, "sanity", pd.concat(rows, ignore_index=True))


def _others(context: Context, run: AnyRun, one: Explained) -> Iterator[tuple[str, Any]]:
    """Yield models that know less: random from the top down, and taught by shuffled labels."""
    yield from explain.randomised(one.model, context.seed)
    if one.words is None:  # there is a head that labels taught
        yield SHUFFLED, _shuffled(context, run, one)


def _shuffled(context: Context, run: AnyRun, one: Explained) -> Any:
    """Train the explained tower under a new head of its kind on shuffled labels, for few epochs.

    It goes on from the weights that the right labels left, so a pass is hard to get and a fail may
    mean that the tower has not unlearnt yet. A tower that was frozen under its head stays so.
    """
    task, view = context.asked, context.view()
    known = view[(view["split"] == "train") & view[task.column].notna()]
    steps = np.linspace(0, len(known) - 1, min(run.settings["shuffled"], len(known)))
    known = known.iloc[steps.astype(int)]
    labels = np.random.default_rng(context.seed).permutation(task.encode(known[task.column]))
    model = models.Classifier(copy.deepcopy(one.tower), outputs=task.outputs)
    pool = getattr(getattr(one.model, "head", None), "pool", "full")
    rate = 0.0 if isinstance(one.model, models.LinearProbe) else RATE
    options = training.Options(epochs=EPOCHS, backbone_lr=rate, layer_decay=1.0)
    loader = images.loader(
        context.cache(run.settings["size"]),
        known[cohort.IMAGE_ID],
        batch_size=16,
        labels=labels,
        shuffle=True,
        seed=context.seed,
        **one.tower.preprocessing.pixels(),
    )
    given = dict(ordinal=task.kind == "ordinal", seed=context.seed, steps=EPOCHS * len(loader))
    tuning = adaptation.Tuning(model, labels, options, **given)
    with adaptation.strategy(pool)(tuning) as taught:
        for _ in fit(taught.model, taught.objective, loader, taught.options):
            pass
    return taught.classifier()


def verdicts(run: AnyRun, table: pd.DataFrame) -> pd.DataFrame:
    """Average the resemblance to each model that knows less, and say pass or fail."""
    draws, measures = run.settings["draws"], ["spearman", "ssim"]
    means = evaluation.means(table, measures, by="randomised", draws=draws)
    return explain.verdict(means)


# ---------------------------------------------------------------------- does the score need it?
def removed(run: AnyRun, one: Explained, test: Cases, taught: Cases) -> pd.DataFrame:
    """Blur and restore the pixels that the map marks, beside those of blind maps.

    Returns:
        A row an image and map: ``image_id, patient, …, of`` (chosen, bone prior, …), deletion,
        insertion.
    """
    if run.finished:
        return run.table("removed")
    if not test.outlined:
        return keep(run, "removed", pd.DataFrame(columns=[*IDS, "of", "deletion", "insertion"]))
    rows = test.spread(run.settings["removed"])
    few, found = test.take(rows), []
    maps = {Method(detail="chosen"): run.array("maps")[rows].astype(np.float32)} | blind(
        few, taught
    )
    for method, heat in maps.items():
        if method.detail == "uniform map":  # no order of pixels
            continue
        target = explained_score(few, one)
        given = dict(target=target, steps=STEPS)
        scores = explain.deletion_insertion(one.model, few.batches(one.tower), heat, **given)
        found.append(pd.concat([few.table[[*IDS]], scores], axis=1).assign(of=method.detail))
    return keep(run, "removed", pd.concat(found, ignore_index=True))


def read_removed(run: AnyRun, table: pd.DataFrame) -> pd.DataFrame:
    """Set deletion and insertion of the chosen map beside those of blind maps: differences."""
    parts = {name: part.reset_index(drop=True) for name, part in table.groupby("of", sort=False)}
    rows = [
        paired(
            parts["chosen"], part, ("deletion", "insertion"), draws=run.settings["draws"]
        ).assign(beside=name)
        for name, part in parts.items()
        if name != "chosen"
    ]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["measure"])


def explained_score(found: Cases, one: Explained) -> Any:
    """Return what is followed: the probability of the class, or the value itself."""
    task = found.context.asked
    return (lambda row: row[0]) if task.kind == "regression" else one.target(found)


def grounding(context: Context, run: AnyRun, one: Explained, test: Cases) -> pd.DataFrame:
    """Score each test lesion as it is, hidden, with as much hidden elsewhere, and replaced.

    Returns:
        A row an image: ``SCORES``, ``DROPS``, ``left_out``; see `explain.grounding`.
    """
    if run.finished:
        return run.table("grounding")
    test = test.take(test.spread(run.settings["hidden"]))
    table = test.table[[*IDS]]
    if not test.outlined:
        return keep(run, "grounding", table.head(0).reindex(columns=[*IDS, *SCORES, *DROPS]))
    patients = table["patient"].where(table["patient"].notna(), table["group"])
    found = explain.grounding(
        one.model,
        test.batches(one.tower),
        test.masks,
        target=explained_score(test, one),
        patients=patients,
        labels=test.table[context.asked.column],
        seed=context.seed,
    )
    return keep(run, "grounding", pd.concat([table, found], axis=1))


def drops(run: AnyRun, table: pd.DataFrame) -> pd.DataFrame:
    """Average the scores of the grounding audit and their paired differences."""
    if table.empty:
        return pd.DataFrame(columns=["measure", "value", "low", "high", "n"])
    asked = [*SCORES, *DROPS]
    means = evaluation.means(table.assign(of=""), asked, by="of", draws=run.settings["draws"])
    return means.drop(columns="of")
