"""What notebook 08 compares: tasks that have labels, encoders, and what each sees of an image."""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from bonelib import adaptation, captions, cohort, encoders, figures, models, runs
from bonelib.evaluation import Method
from bonelib.evaluation.methods import TOWERS
from bonelib.experiments import settings
from bonelib.experiments.context import METADATA, AnyRun, Context
from bonelib.experiments.settings.towers import rung_method, rung_tower

# ``size`` is that of the starts where no pretraining names another, ``largest`` that of encoders
# by name (0: each its own); ``tuned_shares`` of the labels are those that towers are trained by.
SETTINGS = pd.DataFrame(
    {
        "tiny": dict(size=64, largest=64, encoders=(), shares=(0.1, 1.0), label_seeds=1)
        | dict(finetune=(), tuned_shares=(1.0,), epochs=1, batch_size=16, draws=200),
        "demo": dict(size=128, largest=128, encoders=(), shares=(0.01, 0.1, 1.0), label_seeds=3)
        | dict(finetune=(), tuned_shares=(1.0,), epochs=8, batch_size=32, draws=1000),
        "full": dict(size=224, largest=0, encoders=("lite2", "resnet50", "dinov2_small", "clip"))
        | dict(shares=(0.01, 0.1, 1.0), label_seeds=5, finetune=("full",))
        | dict(tuned_shares=(0.01, 0.1, 1.0), epochs=30, batch_size=32, draws=2000),
    },
    dtype=object,
)
TOWER = "packaged:efficientnet_lite0"  # of the starts where no pretraining names another
TUMOURS = ("malignancy", "tumor", "entity")  # notebooks 02 to 07 ask these
HEADS = {"ordinal": "cumulative"}  # what is fitted to frozen features, by kind; else a probe
RANDOM, IMAGENET = Method("scratch", "probe"), Method("imagenet", "probe")
WITH_SEX = "image+sex"


@dataclass(frozen=True)
class Setup:
    """What is compared, on which images.

    Attributes:
        view: The cohort, labels of test images hidden.
        tasks: Those that are asked.
        towers: Encoders by the method that a probe on their features is.
        unavailable: Encoders whose weights can't be had, each with how to get them.
        lead: Ours, which is set beside each other: the first pretraining, else ImageNet.
    """

    context: Context
    view: pd.DataFrame
    tasks: tuple[cohort.Task, ...]
    towers: dict[Method, encoders.ImageEncoder]
    unavailable: dict[Method, str]
    lead: Method

    def part(self, name: str, task: cohort.Task | None = None) -> np.ndarray:
        """Which rows are in ``train``, ``val`` or ``test``; of a task those with its label."""
        rows = self.view["split"] == name
        return (rows & self.view[task.column].notna() if task else rows).to_numpy()

    def unseen(self, task: cohort.Task) -> list[str]:
        """Classes without a training image: few labels can't be drawn of them."""
        trained = set(self.view.loc[self.part("train", task), task.column].astype(str))
        return [name for name in task.classes if name not in trained]

    @cached_property
    def features(self) -> dict[Method, np.ndarray]:
        """What each method sees of each image ``(N, D)``: metadata, features of an encoder."""
        ids, context = self.view[cohort.IMAGE_ID], self.context
        found = {METADATA: cohort.metadata(self.view, sites=True).to_numpy()}
        for method, tower in self.towers.items():
            found[method] = context.features(tower, context.cache(tower.preprocessing.size), ids)
        return found

    def seen(self, task: cohort.Task) -> dict[Method, np.ndarray]:
        """Return the features for a task; of values also with the sex beside, and sex alone.

        A bone age is read off an atlas for each sex (Greulich and Pyle), so readers know it.
        """
        table = cohort.metadata(self.view)
        sex = table[[name for name in table if name.startswith(cohort.SEX)]].to_numpy()
        if task.kind != "regression" or not sex.shape[1]:
            return self.features
        beside = {
            replace(method, sees=WITH_SEX): np.hstack([self.features[method], sex])
            for method in self.towers
        }
        return self.features | {replace(METADATA, sees="sex"): sex} | beside


# ---------------------------------------------------------------------- what is compared?
def find_pretrained(context: Context, *, variants: str = "") -> list[runs.Record]:
    """Return the finished pretrainings to compare, ours first; each spared this test set.

    Args:
        variants: Of runs of notebook 04, by commas, all of which must be there; ``none`` for no
            one; empty for the one of ``FROM``, if it is there.
    """
    if variants == "none":
        return []
    names = settings.listing(variants) if variants else [""]
    found = []
    for name in names:
        asked = replace(context, inputs=f"pretraining:{name}") if name else context
        try:
            found.append(asked.find("pretraining", test=context.test))
        except FileNotFoundError:
            if name or "pretraining:" in context.inputs:
                raise
    return found


def plan(
    context: Context,
    pretrained: Sequence[runs.Record],
    *,
    tasks: str = "",
    encoders: str = "",
    finetune: str = "",
    epochs: int = 0,
) -> dict[str, Any]:
    """Return the settings of this profile as the record keeps them.

    Args:
        tasks: By commas; empty takes all that have labels, but for those of tumours.
        encoders: Rungs of the ladder or towers by name, by commas, beside the starts.
        finetune: Strategies that train the towers, by commas; ``none``; empty: the profile's.
        epochs: 0 takes the value of the profile.

    Raises:
        ValueError: An unknown name, or a task without labels; those with labels are named.
    """
    asked = _named(context, tasks)
    chosen = SETTINGS[context.profile].to_dict() | dict(test=context.test, tasks=tuple(asked))
    chosen |= {"image": TOWER, "epochs": epochs or chosen["epochs"]}
    if encoders:
        chosen["encoders"] = settings.encoder_names(encoders)
    if finetune:
        chosen["finetune"] = () if finetune == "none" else settings.listing(finetune)
    plain = [s for s in TOWERS if s not in adaptation.WITH_PROBE + adaptation.WITH_TEXTS]
    if other := sorted(set(chosen["finetune"]) - set(plain)):
        raise ValueError(
            f"FINETUNE={', '.join(other)}: notebook 05 does it. Choose {', '.join(plain)}."
        )
    if pretrained:  # the same tower at the same size, so that nothing else differs
        made = settings.Pretraining.from_dict(pretrained[0].settings)
        chosen |= {"image": made.recipe.image, "size": made.size}
    return chosen


def _named(context: Context, tasks: str) -> list[str]:
    """Return the tasks that are asked, each of which has labels.

    Raises:
        ValueError: An unknown task, or one without labels.
    """
    view = context.view()
    known = [task.name for task in cohort.labelled(view[view["split"] == "train"])]
    asked = [*settings.listing(tasks)] if tasks else [n for n in known if n not in TUMOURS]
    for task in map(cohort.task, asked):
        if task.name not in known:
            raise ValueError(
                f"No training image of {context.data} has a label for {task.name}. Labels exist "
                f"for: {', '.join(known) or 'no task'}."
            )
    return asked


def start(context: Context, pretrained: Sequence[runs.Record], plan: Mapping[str, Any]) -> AnyRun:
    """Open the run; a pretraining of its variant that is made later makes it stale."""
    inputs = [context.cohort_run, *pretrained]
    variant = runs.input_variant(context.inputs, "pretraining", default=context.variant)
    places = (context.profile, context.cohort_run.head["data_name"], "any", "pretraining")
    pattern = "/".join(map(glob.escape, (*places, f"{variant}-s{context.seed}")))
    return context.start("bone_tasks", inputs=inputs, settings=plan, reads=[pattern])


def prepare(context: Context, pretrained: Sequence[runs.Record], plan: Mapping[str, Any]) -> Setup:
    """Build the encoders: random and ImageNet starts, pretrained towers, those asked by name."""
    tasks, view = tuple(map(cohort.task, plan["tasks"])), context.view()
    towers: dict[Method, encoders.ImageEncoder] = {}
    missing: dict[Method, str] = {}
    lead = IMAGENET
    if tasks:
        given = dict(size=plan["size"], seed=context.seed)
        towers[RANDOM] = encoders.image(plan["image"], weights="random", **given)
        towers[IMAGENET] = encoders.image(plan["image"], **given)
        for record in pretrained:
            method = Method("captions", "probe", detail=record.settings["recipe"]["name"])
            if method in towers:  # two pretrainings by one recipe
                method = replace(method, detail=record.head["variant"])
            towers[method] = models.load_image_tower(record.bundle).eval()
            lead = lead if lead != IMAGENET else method
        for rung in map(encoders.rung, plan["encoders"]):
            try:
                tower = rung_tower(context, rung, largest=plan["largest"], test=context.test)
                towers[rung_method(rung)] = tower
            except encoders.WeightsNotAvailable as error:
                missing[rung_method(rung)] = str(error)
    return Setup(context, view, tasks, towers, missing, lead)


def read_setup(setup: Setup, pretrained: Sequence[runs.Record]) -> str:
    """Say which tasks are asked of which encoders, and what is left out."""
    if not setup.tasks:
        have = ", ".join(t.name for t in cohort.labelled(setup.view)) or "none"
        return (
            f"**Reading.** No image of {setup.context.data} has a label for a bone task (labels "
            f"exist for: {have}), so that the sections below are empty. Ask one by TASKS, or "
            "another set by DATA."
        )
    counts = ", ".join(
        f"{task.name} ({setup.part('train', task).sum():,} training images)" for task in setup.tasks
    )
    said = f"**Reading.** {len(setup.towers)} encoders are asked {counts}."
    if not pretrained:
        said += " No pretraining of notebook 04 was found for this test set: none is compared."
    for made in (settings.Pretraining.from_dict(record.settings) for record in pretrained):
        fields = made.caption_fields if made.recipe.learns_from_captions else ()
        named = [t.name for t in setup.tasks if captions.gives_away(t.name, fields=fields)]
        if named:
            said += f" Captions of *{made.recipe.name}* named {', '.join(named)}: there it was "
            said += "supervised, and a gain is no transfer."
    said += "".join(
        f" No training image of {task.name} is {', '.join(lost)}: few labels are not drawn."
        for task in setup.tasks
        if (lost := setup.unseen(task))
    )
    for method, why in setup.unavailable.items():
        said += f" *{figures.display_name(method)}* is left out: {why}"
    return said
