"""Carry out, in any process, the pretraining that notebook 04 planned.

A run folder with a plan comes in (untrained bundle, pairs, where the images are kept, settings);
the trained bundle and the history go into it, and the notebook then finds them. Under ``torchrun``
every process runs this; the first one writes.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from bonelib import captions, features, images, losses, models, runs, training, zero_shot


def train(folder: Path, *, accelerator: str = "auto", report: Callable[[str], None]) -> None:
    """Train what ``folder`` plans, or go on where an earlier process was killed.

    Args:
        folder: A run folder of notebook 04, made with ``WHERE="elsewhere"``.
        accelerator: ``cpu``, ``cuda`` (not run here), or ``auto``.
        report: Called with a line an epoch.

    Raises:
        FileNotFoundError: There is no plan, or the image cache is not where the plan says.
        ValueError: It is trained already, or its recipe needs the notebook.
    """
    run = runs.reopen(folder)
    settings, recipe = run.settings, run.settings["recipe"]
    training.check_plain(recipe)
    rank, world = (int(os.environ.get(k, d)) for k, d in (("RANK", 0), ("WORLD_SIZE", 1)))
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    runs.seed_everything(run.head["seed"])
    model = models.load_bundle(run.path / "untrained")
    start = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("image.")}
    store = (run.path / "store.txt").read_text().strip()
    cache = images.reopen(
        store, run.table("files"), size=settings["size"], fit=settings["fit_mode"]
    )
    pairs = run.table("pairs")
    keys = pairs[[c for c in pairs if c.startswith("key_")]].to_numpy()
    says = (keys >= 0).any(axis=1)
    own, told = (pairs["split"] == "train").to_numpy(), says[pairs["split"] == "train"]
    val = (pairs["split"] == "val").to_numpy() & says
    pixels = model.image.preprocessing.pixels()
    loader = images.loader(
        cache,
        pairs.loc[own, "image_id"],
        tokens=model.tokenize(pairs.loc[own, "caption"].tolist()),
        keys=keys[own],
        more=None if told.all() else {"captioned": told},
        batch_size=settings["batch_size"],
        shuffle=True,
        drop_last=True,
        augment={},
        flip=not {"side", captions.OWN} & set(settings["caption_fields"]),
        seed=run.head["seed"],
        rank=rank,
        ranks=world,
        **pixels,
    )
    held = images.loader(cache, pairs.loc[val, "image_id"], batch_size=64, **pixels)
    tokens = model.tokenize(pairs.loc[val, "caption"].tolist())

    def retrieve(model: Any) -> dict[str, float]:
        text = features.encode_text(model, tokens)
        return zero_shot.retrieval(features.encode(model.encode_image, held), text, keys=keys[val])

    history = [{"epoch": 0, "loss": float("nan")} | retrieve(model)]
    for row in training.fit(
        model,
        losses.contrastive_objective(**recipe["objective"]),
        loader,
        validate=retrieve,
        keep=training.kept(recipe),
        resume=runs.checkpoint(run),
        checkpoint=lambda state: runs.save_checkpoint(run, state),
        accelerator=accelerator,
        devices=devices,
        nodes=world // devices,
        **settings["fit"],
    ):
        history.append(row)
        if rank == 0:
            run.save_table("history", pd.DataFrame(history))
            told = f"loss {row['loss']:.3f}  recall@5 {row['recall_5']:.3f}  {row['alarm']}"
            report(f"  epoch {row['epoch']:>2}/{settings['fit']['epochs']}  {told}")
    if rank == 0:
        if recipe["back"]:
            model.load_state_dict(training.toward(model, start, recipe["back"]))
        facts = {"caption_fields": settings["caption_fields"], "test": settings["test"]}
        models.save_bundle(run.bundle, model, **facts, recipe=settings["recipe_name"])
        runs.mark_trained(run)
