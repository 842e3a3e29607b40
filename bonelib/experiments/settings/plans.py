"""Settings of a pretraining and of a fine-tuning: what notebooks 04 and 05 show, run and record.

A profile, the parameters of a notebook and a recipe come in; what a training needs to be repeated,
here or under ``torchrun``, goes out, and comes back from the record of a run.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd

from bonelib.captions import FIELDS, OWN
from bonelib.experiments.settings.checking import Shaped, Within, hold, make, plain
from bonelib.experiments.settings.schema import Count, ImageTower, Part, Positive, Recipe, Share

# Sizes are all that differs between the profiles.
ONE = (0.01,)  # strength of a probe: tiny is for tests
USUAL = "adaptation.STRENGTHS"  # by name, since importing it loads torch
_side_by_side = functools.partial(
    pd.DataFrame.from_dict, orient="index", columns=["tiny", "demo", "full"], dtype=object
)
PRETRAINING_SIZES = _side_by_side(
    {
        "size": [64, 128, 224],
        "batch_size": [16, 32, 128],
        "epochs": [6, 12, 60],
        "warmup": [0.2, 0.1, 0.05],
        "shares": [(1.0,), (0.1, 1.0), (0.01, 0.1, 1.0)],
        "strengths": [ONE, USUAL, USUAL],
    }
)
FINETUNING_SIZES = _side_by_side(
    {"batch_size": [16, 32, 32], "epochs": [2, 8, 30], "strengths": [ONE, USUAL, USUAL]}
)
STARTS = ("scratch", "imagenet", "captions")
NOTEBOOKS = {"Pretraining": "04", "Finetuning": "05"}
OLD = ("recipe_name", "probe", "fit_mode")  # settings that only runs of an earlier form recorded
OF_THE_SPLIT = ("split_seed",)  # recorded of every run, and no setting of a training

Size = Annotated[int, Within(32)]  # pixels: the towers halve an image five times
Resize = Literal["pad", "squash"]
TestSet = Annotated[str, Shaped(r"fold\d+|center:.+", "fold0, fold1, …, center:<name>")]
Strengths = Annotated[tuple[Positive, ...], Within(1)]
Said = Annotated[str, Shaped("|".join((*FIELDS, OWN)), ", ".join((*FIELDS, OWN)))]
Source = Annotated[str, Shaped(r"table|reports|own|.+\.csv", "table, reports, own, or a CSV")]
Language = Annotated[str, Shaped("[a-z]{2}", "two letters such as en or fr")]
Start = Annotated[str, Shaped("|".join(STARTS), ", ".join(STARTS))]


def _restored(kind: type, recorded: Mapping[str, Any]) -> Any:
    """Return what a run recorded with ``as_dict``.

    Raises:
        ValueError: It was recorded in an earlier form, or is no such record.
    """
    if set(OLD) & set(recorded) or "resize" not in recorded:
        raise ValueError(
            "These settings were recorded in an earlier form, which is no longer read. Make the "
            f"run again: bonelib run {NOTEBOOKS[kind.__name__]} -p REUSE=false, with the "
            "parameters it had."
        )
    own = {name: value for name, value in recorded.items() if name not in OF_THE_SPLIT}
    return make(kind, own, title="The recorded settings can't be read")


@dataclass(frozen=True)
class Pretraining:
    """A pretraining as notebook 04 shows it, runs it and records it.

    Attributes:
        size: Side of the images in pixels.
        resize: How pictures became squares: ``pad`` keeps their aspect, ``squash`` does not.
        warmup: Share of the run in which the rates rise.
        strengths: Regularisations among which a probe chooses.
        shares: Of the labels that probes learn from.
        test: The test set, whose patients stay unseen.
        evaluate_on: Images that the probes are judged on: ``val`` to choose recipes, or ``test``.
        captions: ``table``, ``reports``, ``own``, or the file name of a bank of captions.
        caption_fields: What captions name, as far as the set knows it; ``own`` for ``own``.
    """

    recipe: Recipe
    size: Size
    resize: Resize
    batch_size: Annotated[int, Within(2)]
    epochs: Count
    warmup: Share
    strengths: Strengths
    shares: Annotated[tuple[Part, ...], Within(1)]
    test: TestSet
    evaluate_on: Literal["val", "test"]
    captions: Source
    language: Language
    caption_fields: Annotated[tuple[Said, ...], Within(1)]

    __post_init__ = hold

    from_dict = classmethod(_restored)

    @property
    def fit(self) -> dict[str, Any]:
        """Keyword arguments of ``training.Options``."""
        return asdict(self.recipe.fit) | {"warmup": self.warmup, "epochs": self.epochs}

    def conflicts(self) -> list[str]:
        """List what can't go together."""
        if (self.captions == OWN) != (self.caption_fields == (OWN,)):
            return [
                f"captions={self.captions!r} with caption_fields={self.caption_fields!r}: own "
                "captions have the field own, and only they."
            ]
        return []

    def as_dict(self) -> dict[str, Any]:
        """Return what a run records: plain values, the recipe among them."""
        return plain(self) | {"recipe": self.recipe.as_dict()}


@dataclass(frozen=True)
class Finetuning:
    """A comparison of starts of the image tower under one protocol, as notebook 05 shows it.

    Attributes:
        image: The tower, that of the pretraining.
        resize: As in ``Pretraining``.
        strengths: Regularisations among which a probe chooses.
        lr: Of the head; ``backbone_lr`` of the tower.
        starts: What the tower starts from: ``scratch``, ``imagenet``, ``captions``.
    """

    image: ImageTower
    size: Size
    resize: Resize
    batch_size: Annotated[int, Within(2)]
    epochs: Count
    strengths: Strengths
    test: TestSet
    lr: Part = 1e-3
    backbone_lr: Part = 3e-4
    starts: Annotated[tuple[Start, ...], Within(1)] = STARTS

    __post_init__ = hold

    from_dict = classmethod(_restored)
    as_dict = plain

    @property
    def fit(self) -> dict[str, Any]:
        """Keyword arguments of ``training.Options``: one rate for every layer of the tower."""
        rates = {"lr": self.lr, "backbone_lr": self.backbone_lr, "layer_decay": 1.0}
        return {"epochs": self.epochs} | rates

    def conflicts(self) -> list[str]:
        """List what can't go together."""
        twice = {start for start in self.starts if self.starts.count(start) > 1}
        return [f"starts names {', '.join(sorted(twice))} more than once."] if twice else []


def pretraining(
    profile: str,
    recipe: Recipe,
    *,
    images: int,
    captions: str,
    caption_fields: Sequence[str],
    language: str = "en",
    test: str = "fold0",
    evaluate_on: str = "val",
    resize: str = "pad",
    epochs: int = 0,
) -> Pretraining:
    """Plan a pretraining: the sizes of a profile with what a recipe changes in them.

    Args:
        images: How many train: a batch can't be larger.
        captions: As the parameter ``CAPTIONS``. Of a CSV the name alone is kept: a run knows its
            files by their content, wherever they lie.
        epochs: The recipe takes its share of them; 0 takes the value of the profile.

    Raises:
        ValueError: Lists all that is wrong, with what is allowed.
    """
    sizes = _sizes(PRETRAINING_SIZES, profile)
    sizes |= {k: getattr(recipe, k) for k in ("size", "batch_size") if getattr(recipe, k)}
    sizes["batch_size"] = min(sizes["batch_size"], images)
    sizes["epochs"] = _epochs(epochs, sizes["epochs"], share=recipe.epochs)
    if recipe.fit.warmup is not None:
        sizes["warmup"] = recipe.fit.warmup
    told = dict(caption_fields=caption_fields, captions=Path(str(captions)).name)
    told |= dict(language=language, test=test, evaluate_on=evaluate_on, resize=resize)
    title = "The pretraining can't be planned"
    return make(Pretraining, sizes | told | {"recipe": recipe}, title=title)


def finetuning(profile: str, pretraining: Pretraining, *, epochs: int = 0) -> Finetuning:
    """Plan a fine-tuning: the sizes of a profile; tower, images and test set of a pretraining.

    Args:
        epochs: 0 takes the value of the profile.

    Raises:
        ValueError: Lists all that is wrong, with what is allowed.
    """
    sizes = _sizes(FINETUNING_SIZES, profile)
    sizes["epochs"] = _epochs(epochs, sizes["epochs"])
    same = {k: getattr(pretraining, k) for k in ("size", "resize", "test")}
    same |= {"image": pretraining.recipe.image}
    return make(Finetuning, sizes | same, title="The fine-tuning can't be planned")


def _sizes(profiles: pd.DataFrame, profile: str) -> dict[str, Any]:
    if profile not in profiles:
        raise ValueError(f"Unknown profile {profile!r}. Choose {', '.join(profiles)}.")
    sizes = profiles[profile].to_dict()
    if sizes["strengths"] == USUAL:
        from bonelib.adaptation import STRENGTHS

        sizes["strengths"] = tuple(map(float, STRENGTHS))
    return sizes


def _epochs(asked: Any, usual: int, *, share: float = 1.0) -> Any:
    if type(asked) is not int or asked < 0:
        return asked  # the checker says what is wrong with it
    return max(1, round((asked or usual) * share))
