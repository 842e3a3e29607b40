"""Which map is judged: models, ways to make a map of them, and the choice on validation lesions."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from bonelib import captions, explain, models, runs
from bonelib.encoders import ImageEncoder
from bonelib.evaluation import METHOD, Method
from bonelib.evaluation.methods import HEADS
from bonelib.experiments import settings
from bonelib.experiments.context import AnyRun, Context, keep
from bonelib.experiments.gradcam.cases import Cases, blind

PLAIN, USUAL = "grad_cam", Method(start="captions", strategy="full")
WORDS = Method("captions", "prompt", "image", detail="label")  # the dual encoder of notebook 04
FUSED = ("hires_cam:2", "layer_cam:2", "layer_cam:3")
EVERY = (*explain.METHODS, *FUSED, "grad_cam@2", *(f"{name}@2" for name in (*FUSED, "own")))
# Maps as ``method:stages@times``: so many last stages fused, of images so many times as large.
SETTINGS = pd.DataFrame.from_dict(
    {
        "maps": [("layer_cam:2@2",), ("layer_cam:2", "layer_cam:2@2", "own", "own@2"), EVERY],
        "lesions": [8, 48, 0],  # of validation patients, that choose the map; 0: all
        "heads": [True, False, True],  # whether linear heads on frozen towers are explained too
        "checked": [4, 8, 64],  # of them, for the sanity checks
        "removed": [4, 12, 200],  # test lesions, for deletion and insertion
        "hidden": [8, 100, 0],  # of them, for the grounding audit; 0: all
        "shuffled": [24, 160, 2000],  # training images that learn shuffled labels
        "draws": [200, 2000, 2000],
        "minimum": [3, 10, 10],  # patients of a subgroup
    },
    orient="index",
    columns=["tiny", "demo", "full"],
)
IDS = ("image_id", "patient", "group", "group_kind", "center")
MAP = [*METHOD, "map"]  # columns that tell one kind of map from another
MEASURES = ("pointing", "energy", "average_precision", "iou")


@dataclass(frozen=True)
class Way:
    """How a map is made: ``layer_cam:3@2`` is LayerCAM of three stages, of images twice as large.

    Attributes:
        stages: How many of the last resolutions are fused; 0: the layer that the method takes.
        times: How much larger the images are than those that the model was trained on.
    """

    method: str
    stages: int = 0
    times: int = 1

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a map's name.

        Raises:
            ValueError: There is no such method, or a number is none from 1 to 4.
        """
        name, _, times = text.partition("@")
        method, _, stages = name.partition(":")
        numbers = [n for n, given in ((stages, ":" in name), (times, "@" in text)) if given]
        if method not in explain.METHODS or not {*numbers} <= {*"1234"}:
            raise ValueError(
                f"METHODS: {text!r} is no map. Write method, method:stages or method:stages@times, "
                f"numbers from 1 to 4, by commas. Methods: {', '.join(explain.METHODS)}."
            )
        return cls(method, int(stages or 0), int(times or 1))


@dataclass(frozen=True)
class Explained:
    """A model whose maps are made.

    Attributes:
        tower: Whose preprocessing its images get.
        words: What is explained of a model that is asked in words; None: the image's own class.
    """

    method: Method
    model: Any
    tower: ImageEncoder
    words: Callable[[Any], Any] | None = None

    def heat(
        self, name: str, found: Cases, model: Any = None, *, unsigned: bool = False
    ) -> np.ndarray:
        """Make a map ``(N, S, S)`` of each image, float32, not negative.

        Args:
            model: In place of the own one, such as one with other weights.
            unsigned: Explain a single output by its size, and the highest of several: a random
                head speaks against a fixed class as often as for it, and many maps are blank then.

        Raises:
            ValueError: Such a model has no such map.
        """
        way = Way.read(name)
        words = self.words or (lambda row: row)
        target = (lambda row: _largest(words(row))) if unsigned else self.target(found)
        return explain.heat_maps(
            model or self.model,
            found.batches(self.tower, way.times),
            method=way.method,
            target=target,
            layers=way.stages or None,
            out=found.size,
            fuse="product",
            blank=name == PLAIN or model is not None,  # it may find no evidence at all
        )

    def target(self, found: Cases) -> Any:
        """Return what is explained, as `explain.heat_maps` takes it."""
        return found.targets if self.words is None else self.words


def _largest(logits: Any) -> Any:
    # not the largest in size of several: a class without a training image has a constant far below
    return logits.abs().sum() if logits.numel() == 1 else logits.max()


def plan(context: Context, tuned: runs.Record, *, methods: str = "") -> dict[str, Any]:
    """Return the settings: sizes of the profile, and those of the models that are explained.

    Plain Grad-CAM is always among the maps, to stand beside the chosen one.

    Args:
        methods: Maps by commas, see `Way`; empty takes those of the profile.

    Raises:
        ValueError: One of them is no map.
    """
    sizes = SETTINGS[context.profile].to_dict()
    asked = [name for name in settings.listing(methods) if name]
    sizes["maps"] = tuple(dict.fromkeys((PLAIN, *(asked or sizes["maps"]))))
    for name in sizes["maps"]:
        Way.read(name)
    return sizes | {"test": context.test, "size": tuned.settings["size"]}


# ---------------------------------------------------------------------- which models have a map?
def candidates(tuned: runs.Record) -> tuple[dict[Method, Path], list[dict[str, str]]]:
    """Return where each model of notebook 05 lies, and rows that say why others have no map.

    Full fine-tuning comes first, that of captions before the others.
    """
    found, without = {}, []
    for folder in sorted(path.parent for path in tuned.bundle.glob("*/bundle.json")):
        record = models.read_bundle(folder)
        method = Method(**{name: record["facts"].get(name, "") for name in METHOD})
        if record["architecture"]["kind"] == "FeatureHead":
            reason = "its head has no gradient"
        else:
            reason = "" if method.sees == "image" else f"it sees {method.sees}"
        if reason:
            without.append(method.columns() | {"map": "", "reason": reason})
        else:
            found[method] = folder
    order = sorted(found, key=lambda m: (m.strategy != "full", m != USUAL))
    return {method: found[method] for method in order}, without


def load(context: Context, tuned: runs.Record, method: Method) -> Explained:
    """Load a model of notebook 05, or the dual encoder that it started from, asked in words.

    Raises:
        ValueError: The pretraining reads no words, or nothing stands against the finding.
    """
    if method.strategy != "prompt":
        model = models.load_bundle(candidates(tuned)[0][method])
        return Explained(method, model, model.image)
    pretrained, task = tuned.upstream("pretraining"), context.asked
    dual = models.load_bundle(pretrained.bundle)
    if not isinstance(dual, models.DualEncoder) or not settings.trained_words(pretrained.settings):
        raise ValueError("the pretraining has learnt no words")
    if not task.normal or method.detail not in captions.styles(task):
        raise ValueError("the task has no prompts for a normal class that others stand against")
    language = pretrained.settings["language"]
    prompts = captions.prompts(task, style=method.detail, language=language)
    normal = task.classes.index(task.normal)
    model = explain.contrast(dual, prompts)
    return Explained(method, model, dual.image, lambda row: row.mean() - row[normal])


def choose(
    context: Context, run: AnyRun, tuned: runs.Record, val: Cases, taught: Cases
) -> pd.DataFrame:
    """Score each map of each model on validation lesions, beside maps that saw no image.

    Returns:
        A row an image and map: ``image_id, patient, …``, the columns of methods, ``map``, measures,
        ``threshold`` (share of a map's maximum, of the best IoU). What has no map stands in the
        table ``without`` of the run, with the reason.
    """
    if run.finished:
        return run.table("choices")
    val = val.take(val.spread(run.settings["lesions"]))
    found, without = candidates(tuned)
    scored = []
    asked = [m for m in found if m.strategy not in HEADS or run.settings["heads"]]
    for method in (*asked, WORDS) if val.outlined else ():
        try:
            one = load(context, tuned, method)
        except ValueError as error:
            without.append(method.columns() | {"map": "", "reason": str(error)})
            continue
        for name in run.settings["maps"]:
            try:
                scored.append(measured(one.heat(name, val), val, method, name))
            except ValueError as error:
                without.append(method.columns() | {"map": name, "reason": str(error)})
    for method, heat in blind(val, taught).items() if val.outlined else ():
        scored.append(measured(heat, val, method, ""))
    run.save_table("without", pd.DataFrame(without, columns=[*MAP, "reason"]))
    return keep(run, "choices", pd.concat(scored) if scored else pd.DataFrame(columns=MAP))


def measured(
    heat: np.ndarray, found: Cases, method: Method, name: str, threshold: float | None = None
) -> pd.DataFrame:
    """Score maps against the outlines, one row an image.

    Args:
        threshold: Share of a map's maximum; by default that of the best IoU, chosen on these.
    """
    if threshold is None:
        threshold = explain.choose_threshold(heat, found.masks)
    scores = explain.localisation(heat, found.masks, threshold=threshold)
    named = method.columns() | {"map": name, "threshold": threshold}
    return pd.concat([found.table[[*IDS]], scores], axis=1).assign(**named)


def grid(choices: pd.DataFrame) -> pd.DataFrame:
    """Average the measures of each map over the validation lesions; the one that is chosen first.

    Best pointing, then energy; maps that saw no image are not chosen, and stand below.
    """
    if choices.empty:
        return pd.DataFrame(columns=[*MAP, "pointing", "energy", "n"])
    by = choices.groupby(MAP, sort=False)
    table = by[["pointing", "energy"]].mean().assign(n=by.size()).reset_index()
    order = table.assign(saw=table["sees"] != "none")
    return table.loc[
        order.sort_values(["saw", "pointing", "energy"], ascending=False, kind="stable").index
    ].reset_index(drop=True)


def winner(tuned: runs.Record, choices: pd.DataFrame) -> tuple[Method, str]:
    """Return the model and the map that are judged; without outlines the first ones."""
    if choices.empty:
        return next(iter(candidates(tuned)[0])), PLAIN
    best = grid(choices).iloc[0]
    return Method(**best[[*METHOD]]), best["map"]
