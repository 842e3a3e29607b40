"""Pretraining on radiographs and captions, step by step as notebook 04 argues it.

Captioned images and a plan come in; a trained bundle and its curve go out. ``bonelib train``
carries out the same steps, in one process or many, from the tables that a planned run holds.
"""

import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from bonelib import (
    captions,
    encoders,
    features,
    figures,
    images,
    losses,
    models,
    runs,
    training,
    zero_shot,
)
from bonelib.experiments.context import (
    AnyRun,
    Context,
    Process,
    in_order,
    keep_inputs,
    pictured,
    reopen_images,
)
from bonelib.experiments.progress import fit
from bonelib.experiments.settings import Pretraining


@dataclass
class Setup:
    """Everything a training needs, on this process.

    Attributes:
        validation: Loader of the validation images whose caption says something; None where
            nothing is retrieved.
        start: Weights of the image tower before training.
        truncated: Share of captions longer than the text tower reads; None without a text tower.
    """

    kept_as: ClassVar[str] = "pairs"  # the table in the run

    plan: Pretraining
    table: pd.DataFrame
    model: models.Model
    objective: losses.Objective
    loader: images.Loader
    validation: images.Loader | None
    start: dict[str, torch.Tensor]
    truncated: float | None
    seed: int

    @property
    def captioned(self) -> np.ndarray:
        """Which rows of the table say something."""
        return np.any(_keys(self.table) >= 0, axis=1)

    def save_untrained(self, folder: Path) -> None:
        """Leave the model for the processes that train it."""
        models.save_bundle(folder / "model", self.model)


def _keys(table: pd.DataFrame) -> np.ndarray:
    return table[[name for name in table if name.startswith("key_")]].to_numpy()


# ---------------------------------------------------------------------- what is trained?
def prepare(context: Context, table: pd.DataFrame, plan: Pretraining) -> Setup:
    """Build model, objective and batches of a training on this machine.

    Args:
        table: Of `captioning.Pairs`.

    Raises:
        ValueError: All captions mean the same, or no validation image has one.
    """
    cache = context.cache(plan.decoded, fit=plan.resize, also=plan.recipe.also)
    averaged = context.ingredients(plan.recipe.soup, of=plan.recipe.name)
    model = models.soup([r.bundle for r in averaged]) if averaged else None
    model = model or _model(table, plan, seed=context.seed)
    return _assemble(table, cache, plan, model, seed=context.seed)


def _model(table: pd.DataFrame, plan: Pretraining, *, seed: int) -> models.Model:
    """Build the untrained model of a recipe: towers, projections, heads."""
    recipe, keys = plan.recipe, _keys(table)
    classes = (keys.max(axis=0) + 1).tolist()
    image = encoders.image(recipe.image, size=plan.size, weights=recipe.weights, seed=seed)
    if recipe.model == "attributes":
        return models.MultiHead(image, classes=classes)
    objective = recipe.objective
    model = models.DualEncoder(
        image,
        encoders.text("random" if recipe.captions == "random" else recipe.text),
        dim=recipe.dim,
        projection=recipe.projection,
        bias=objective.loss == "sigmoid",
        projector=128 if objective.views else 0,
        heads=classes if objective.attributes else (),
        label_projection=recipe.label_projection,
        stages=recipe.first == "stages",
        seed=seed,
    )
    if recipe.text_init_floor:
        train = table[table["split"] == "train"]
        tokens, own = model.tokenize(train["caption"].tolist()), torch.from_numpy(_keys(train))
        models.tell_apart(model, tokens, own, floor=recipe.text_init_floor)
    return model


def _assemble(
    table: pd.DataFrame, cache: images.Cache, plan: Pretraining, model: models.Model, *, seed: int
) -> Setup:
    """Put the parts of a training together, in a notebook or in one of several processes.

    LoRA and the training change the model in place.
    """
    recipe, train = plan.recipe, (table["split"] == "train").to_numpy()
    _check_captions(table, plan)
    objective = _objective(plan, model)
    if recipe.lora:
        torch.manual_seed(seed)  # the same draws wherever the model came from
        models.add_lora(model, rank=recipe.lora)
    pixels, validation, truncated = model.image.preprocessing.pixels(), None, None
    if isinstance(model, models.DualEncoder):
        truncated = model.text.truncated(table["caption"].tolist()).float().mean().item()
    if recipe.retrieves:
        held = table[~train & (_keys(table) >= 0).any(axis=1)]
        validation = in_order(cache, held["image_id"], model.image, side=plan.size)
    start = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("image.")}
    batches = _batches(table[train], plan, model=model)
    given: dict[str, Any] = batches | {"seed": seed} | Process.here().part | pixels
    loader = images.loader(cache, table.loc[train, "image_id"], **given)
    if recipe.first != "none":
        objective = _in_turn(plan, loader)
    return Setup(plan, table, model, objective, loader, validation, start, truncated, seed)


def _objective(plan: Pretraining, model: models.Model) -> losses.Objective:
    """Return what the training minimises; a distilled one remembers the tower as it is now."""
    recipe = plan.recipe
    if recipe.model == "attributes":
        return losses.attributes_objective()
    objective = losses.contrastive_objective(**asdict(recipe.objective))
    if not recipe.feature_distillation:
        return objective
    weight, teacher = recipe.feature_distillation, copy.deepcopy(model.image)
    return losses.distilled(objective, teacher, weight=weight)


def _in_turn(plan: Pretraining, loader: images.Loader) -> losses.Objective:
    """Return an objective that has a first part: the facts as classes, or stage by stage."""
    recipe, terms = plan.recipe, dict[str, Any](asdict(plan.recipe.objective))
    if recipe.first == "attributes":
        none: dict[str, Any] = dict(text=0.0, views=0.0, neighbours=0.0)
        first = losses.contrastive_objective(**terms | none)
        terms["attributes"] = 0.0
    else:
        first = losses.stages_objective()
    then = losses.contrastive_objective(**terms)
    until = round(recipe.first_share * plan.epochs)
    # The training sets the loader's epoch, counted from 0, also where it takes up a killed one.
    options = dict(early=lambda: loader.epoch < until, apart=recipe.first == "stages")
    return losses.in_turn(first, then, **options)


def _check_captions(table: pd.DataFrame, plan: Pretraining) -> None:
    """Refuse captions from which nothing could be learnt, or by which nothing could be chosen."""
    keys = _keys(table)
    if plan.recipe.learns_from_captions and len(np.unique(keys, axis=0)) == 1:
        raise ValueError(
            f"All {len(table)} captions mean the same: nothing tells them apart. They name "
            f"{', '.join(plan.caption_fields)}; choose CAPTION_FIELDS that differ."
        )
    told = (table["split"] == "val").to_numpy() & (keys >= 0).any(axis=1)
    if plan.recipe.retrieves and not told.any():
        raise ValueError(
            "No validation image has a caption that says something: nothing to select by."
        )


def _batches(train: pd.DataFrame, plan: Pretraining, *, model: models.Model) -> dict[str, Any]:
    """Return the arguments of ``images.loader`` that a recipe decides."""
    recipe, keys, size, order = plan.recipe, _keys(train), plan.batch_size, None
    more, says = {}, (keys >= 0).any(axis=1)
    text = model if isinstance(model, models.DualEncoder) else None
    tokens = None if text is None else text.tokenize(train["caption"].tolist())
    if not says.all():  # what says nothing is neither a positive nor a negative
        more["captioned"] = says
    if text is not None and tokens is not None and recipe.objective.neighbours:
        embedded = torch.nn.functional.normalize(text.text(tokens), dim=1)
        more["neighbour_tokens"] = tokens[losses.nearest(embedded, keys=torch.from_numpy(keys))]
    if recipe.order == "balanced":
        order = images.Balanced(keys)
    elif recipe.order == "mixed":
        order = images.Balanced(train["source"], evenness=0.5)
    elif recipe.order == "one set":
        order = images.OneSet(train["source"], batch_size=size)
    elif recipe.order == "unique":
        size = min(size, train["caption"].nunique())
        order = images.UniqueCaptions(train["caption"], batch_size=size)
    given = dict(tokens=tokens, keys=keys, more=more, batch_size=size, order=order)
    studies = train["study"] if recipe.studies else None  # a batch then counts studies
    given |= dict(studies=studies, views=2 if recipe.objective.views else 1)
    given |= dict(sides=plan.sides, crops=recipe.crops, masked=recipe.masked)
    mirrored = {"side", captions.OWN, captions.OUTLINES}  # a mirror would make them wrong
    sided = mirrored & set(plan.caption_fields)
    return given | dict(augment={}, flip=not sided, shuffle=True, drop_last=True)


# ---------------------------------------------------------------------- how low can the loss go?
def loss_bounds(setup: Setup) -> dict[str, float]:
    """Return the lowest loss in reach and that of guessing, in nats, over the batches of an epoch.

    A batch holds captions that mean the same. Even a model that knows every attribute pays the
    entropy of the choice among them (`losses.floor`).

    Returns:
        ``floor`` (NaN where the objective has other terms beside the text), ``chance`` (NaN where
        it is not known), ``batch`` (images of one) and ``captioned`` (of them with a caption).
    """
    recipe, size = setup.plan.recipe, setup.loader.batch_size
    temperature, chance = recipe.objective.key_temperature, setup.objective.chance
    batches = setup.loader.arrays(epoch=0)
    drawn = [batch["keys"][batch.get("captioned", slice(None))] for batch in batches]
    floors = [losses.floor(keys, temperature=temperature) for keys in drawn if len(keys)]
    return {
        "floor": float(np.mean(floors)) if recipe.retrieves and recipe.plain_text else np.nan,
        "chance": float(np.mean([chance(size, len(k)) if chance else np.nan for k in drawn])),
        "batch": size,
        "captioned": float(np.mean([len(keys) for keys in drawn])),
    }


def read_bounds(setup: Setup, bounds: dict[str, float]) -> str:
    """Say in sentences between what the loss can move, and what the towers cut or assume."""
    said = [*setup.model.image.notes]
    if np.isfinite(bounds["chance"]):
        said.append(f"Guessing costs {bounds['chance']:.2f} nats at a batch of {bounds['batch']}")
        said[-1] += f", of which {bounds['captioned']:.0f} have a caption."
    if np.isfinite(bounds["floor"]):
        said.append(f"No model can go below {bounds['floor']:.2f} nats.")
    if setup.truncated is not None:
        said.append(f"{setup.truncated:.1%} of captions are longer than the text tower reads.")
    return "**Reading.** " + " ".join(said or ["This objective has no known bounds."])


# ---------------------------------------------------------------------- training
def retrieve(setup: Setup, model: models.Model) -> dict[str, float]:
    """Return how well validation captions are found by their images, nothing without captions."""
    if setup.validation is None or not isinstance(model, models.DualEncoder):
        return {}
    held = (setup.table["split"] == "val") & setup.captioned
    asked = setup.table[held]
    text = features.encode_text(model, model.tokenize(asked["caption"].tolist()))
    image = features.encode(model.encode_image, setup.validation)
    return zero_shot.retrieval(image, text, keys=_keys(asked))


def reopen(run: runs.Run) -> Setup:
    """Build the training that a run plans, in this process; under ``torchrun`` one of several.

    Raises:
        FileNotFoundError: The decoded images are not on this machine.
        ValueError: It was planned from other files.
    """
    plan = Pretraining.from_dict(run.settings)
    cache = reopen_images(run, size=plan.decoded, fit=plan.resize)
    model = models.load_bundle(run.path / "untrained" / "model")
    return _assemble(run.table(Setup.kept_as), cache, plan, model, seed=run.head["seed"])


def train(run: AnyRun, setup: Setup, *, accelerator: str = "auto") -> Iterator[dict[str, Any]]:
    """Train, or go on where a killed process stopped; yields a row an epoch.

    The epoch is kept at which retrieval on validation patients is best; the last one where there
    is nothing to retrieve. A finished training yields nothing. Under ``torchrun`` every process
    calls this, and the first one writes.
    """
    if run.trained:
        return
    recipe, model, process = setup.plan.recipe, setup.model, Process.here()
    if process.first:
        keep_inputs(run, setup)
    runs.seed_everything(setup.seed)  # wherever the model came from, the same draws follow
    history = [{"epoch": 0, "loss": np.nan} | retrieve(setup, model.eval())]
    rows = fit(
        model,
        setup.objective,
        setup.loader,
        training.Options(**setup.plan.fit),
        validate=lambda _: retrieve(setup, model),
        keep=recipe.kept_by,
        resume=runs.checkpoint(run),
        checkpoint=lambda state: runs.save_checkpoint(run, state),
        accelerator=accelerator,
        **process.where,
    )
    for row in [_untrained(setup)] if recipe.soup else rows:
        history.append(row)
        if process.first:
            run.save_table("history", pd.DataFrame(history))  # the curve so far
        yield row
    if process.first:
        if recipe.wise_ft:
            model.load_state_dict(training.toward(model, setup.start, recipe.wise_ft))
        facts = dict(caption_fields=setup.plan.caption_fields, test=setup.plan.test)
        facts |= pictured(setup.loader.cache.fit) | {"language": setup.plan.language}
        facts |= {"attributes": setup.table.attrs.get("attributes", [])}
        models.save_bundle(run.bundle, model, **facts, recipe=recipe.name)
        runs.mark_trained(run)


def _untrained(setup: Setup) -> dict[str, Any]:
    """Return the row of a model that was averaged: its loss on a first batch, at no cost."""
    with torch.no_grad():
        loss = setup.objective(setup.model, next(iter(setup.loader))).item()
    spent = dict.fromkeys(("lr", "seconds", "cpu_seconds", "images_per_s", "waited"), 0.0)
    row = {"epoch": 1, "loss": loss, **spent, "precision": "32-true", "alarm": ""}
    return row | retrieve(setup, setup.model)


def progress(row: dict[str, Any], setup: Setup) -> str:
    """Put an epoch on one line."""
    told = f"loss {row['loss']:.3f}  recall@5 {row.get('recall_5', np.nan):.3f}  {row['alarm']}"
    return f"  epoch {row['epoch']:>2}/{setup.plan.epochs}  {told}"


def draw_history(history: pd.DataFrame, bounds: dict[str, float]) -> plt.Figure:
    """Draw the loss above its floor and, with captions, retrieval above chance."""
    retrieved = "recall_5" in history
    shape = dict(figsize=(figures.WIDTH, 2.6), layout="constrained", squeeze=False)
    figure, axes = plt.subplots(1, 1 + retrieved, **shape)
    floor = bounds["floor"] if np.isfinite(bounds["floor"]) else None
    figures.plot_history(history, value="loss", floor=floor, ax=axes[0, 0])
    if retrieved:
        chance = history["chance_5"].iloc[0]
        figures.plot_history(history, value="recall_5", floor=chance, ax=axes[0, 1])
    return figure


def read_history(history: pd.DataFrame, last: dict[str, float], bounds: dict[str, float]) -> str:
    """Say in sentences what the curve shows.

    Args:
        last: Retrieval of the model that was kept, from `retrieve`.
    """
    first, end = history.iloc[0], history["loss"].iloc[-1]
    said = "Nothing is retrieved without captions."
    if last:
        said = (
            "On validation images with a caption an equal caption stands among the first five in "
            f"{last['recall_5']:.3f} of cases (before training {first['recall_5']:.3f}, by chance "
            f"{last['chance_5']:.3f}); the median rank falls from {first['median_rank']:.0f} to "
            f"{last['median_rank']:.0f}."
        )
    floor = bounds["floor"]
    above = f", {end - floor:.2f} above its floor" if np.isfinite(floor) else ""
    return f"**Reading.** {said} The loss ends at {end:.2f} nats{above}."


# ---------------------------------------------------------------------- the record
def notes(setup: Setup, bounds: dict[str, float], history: pd.DataFrame) -> dict[str, Any]:
    """Return what a reader of the record should know beside the metrics."""
    fields = setup.plan.caption_fields
    named = fields if setup.plan.recipe.learns_from_captions else ()
    return {
        "caption_fields": fields,
        "supervision": captions.supervision(named),
        "floor": bounds["floor"],
        "alarms": [a for a in history.get("alarm", pd.Series(dtype=str)).dropna().unique() if a],
        "precision": history["precision"].iloc[-1],
        "captions": setup.table["caption"].nunique(),
        "captioned": float(setup.captioned[setup.table["split"] == "train"].mean()),
        "truncated": setup.truncated,
        "meanings": len(np.unique(_keys(setup.table), axis=0)),
        "evaluated_on": setup.plan.evaluate_on,
        "tower": setup.model.image.notes,
    }


def metrics(history: pd.DataFrame, last: dict[str, float], gains: pd.DataFrame) -> dict[str, float]:
    """Return the final loss, retrieval, and what each probe gained."""
    gained = {f"{r.task} {r.share:g} {r.metric} gain": r.value for r in gains.itertuples()}
    retrieved = {name: last[name] for name in ("recall_5", "chance_5") if last}
    return {"loss": history["loss"].iloc[-1]} | retrieved | gained
