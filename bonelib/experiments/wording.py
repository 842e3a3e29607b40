"""How fragile the wording is: the same question in other words, as notebook 06 asks it.

The pretrained model and the predictions of its prompts come in; those of every other wording, and a
report on them, go out. Where there is nothing to ask with, every table is empty.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bonelib import captions, evaluation, features, figures, runs, zero_shot
from bonelib.evaluation import Method
from bonelib.experiments.context import AnyRun, Context
from bonelib.zero_shot.sensitivity import ENSEMBLE, KIND, LANGUAGE


def ask(
    context: Context,
    run: AnyRun,
    pretraining: runs.Record,
    words: Any,
    predictions: pd.DataFrame,
) -> pd.DataFrame:
    """Ask every variant of the prompts, in every language, about the test images.

    Args:
        words: Of ``prompting.find_words``: a model, and why it can't be asked.
        predictions: Of ``prompting.judge``, whose labels were opened.

    Returns:
        A predictions table with ``language``, ``kind`` and ``opposite``, all languages' ensembles
        in it; see ``zero_shot.report``.
    """
    if words.reason:
        return pd.DataFrame()
    if not run.finished:
        view = context.view()
        held, settings = (view["split"] == "test").to_numpy(), pretraining.settings
        cache = context.cache(settings["size"], fit=settings.get("resize", ""))
        pooled = context.features(words.model.image, cache, view["image_id"])[held]
        seen = features.projected(words.model, pooled)
        table = pd.concat(_answers(context, words.model, view[held], seen))
        opened = predictions[["image_id", "label"]].drop_duplicates("image_id")
        run.save_table("variants", evaluation.with_labels(table, opened))
    return run.table("variants")


def _answers(
    context: Context, model: Any, asked: pd.DataFrame, seen: np.ndarray
) -> Iterator[pd.DataFrame]:
    """Yield what the ensemble of each language says of the images, then each single variant."""
    task, scale = context.asked, model.logit_scale.exp().item()
    every = [v for name in captions.languages() for v in captions.variants(task, name)]
    classes, ensembles = zero_shot.variant_features(model, every)
    rows = [(name, ENSEMBLE, "", own) for name, own in ensembles.items()]
    rows += [(v.language, v.kind, v.name, own) for v, own in zip(every, classes, strict=True)]
    for language, kind, wording, own in rows:
        logits = zero_shot.logits(seen, own, scale=scale)
        if values := captions.prompt_values(task):
            logits = zero_shot.expected(logits, values)
        method = Method("captions", "prompt", detail=f"{language}, {kind}", wording=wording)
        named = {LANGUAGE: language, KIND: kind, evaluation.WORDING: wording}
        named["opposite"] = zero_shot.opposite(own[None], ensembles[language])[0]
        told = dict(task=task, seed=context.seed, method=method)
        yield evaluation.predictions(asked, logits, **told).assign(**named)


def score(context: Context, table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Report how much hangs on the wording, and score each variant; see ``zero_shot.report``."""
    if table.empty:
        return table, table
    return zero_shot.report(table, task=context.asked, seed=context.seed)


def draw(
    context: Context, report: pd.DataFrame, values: pd.DataFrame, *, reads: str = ""
) -> Figure | None:
    """Draw a dot for each single prompt beside the ensembles; None where nothing was asked."""
    if report.empty:
        return None
    return figures.plot_wordings(report, values, unit=context.asked.unit, reads=reads)


def show(report: pd.DataFrame) -> pd.DataFrame:
    """Show a row a language and kind of variant, without the ends of intervals."""
    columns = [LANGUAGE, KIND, "variants", "ensemble", "lowest", "highest", "spread"]
    return report.reindex(columns=[*columns, "below_chance", "flips", "opposite"])


def read(context: Context, report: pd.DataFrame, *, reads: str = "") -> str:
    """Say what the choice of one prompt may do, and how a negation is understood."""
    if report.empty:
        return "**Reading.** There is nothing to ask in other words."
    metric, said = context.metric, ["**Reading.**"]
    for row in report[report[KIND] == "template"].itertuples():
        spread = figures.with_interval(row.spread, row.spread_low, row.spread_high)
        language = figures.LANGUAGES.get(row.language, row.language)
        calls = f"; a single one calls {row.flips:.0%} of images otherwise than their ensemble"
        said.append(
            f"{language}: {row.variants} templates reach {metric} "
            f"{figures.number(row.lowest)} to {figures.number(row.highest)}, spread {spread}"
            f"{'' if np.isnan(row.flips) else calls}."
        )
    if reads:
        language = figures.LANGUAGES.get(reads, reads)
        said.append(f"The text tower learnt {language} alone: other languages are new to it.")
    turned = report[KIND] == "negation"
    if turned.any():
        parts = report[turned], report[~turned]
        shares = [np.average(part["opposite"], weights=part["variants"]) for part in parts]
        said.append(
            f"Of the sentences that name a class by denying another, {shares[0]:.0%} lie nearer to "
            f"another class than to the one they mean; of all others {shares[1]:.0%}."
        )
    return " ".join(said)
