"""Settings of a pretraining and of a fine-tuning: what notebooks 04 and 05 show, run and record.

A profile, the parameters of a notebook and a recipe come in; what a training needs to be repeated,
here or under ``torchrun``, goes out, and comes back from the record of a run.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd

from bonelib.captions import FIELDS, OUTLINES, OWN
from bonelib.evaluation import Method
from bonelib.evaluation.methods import HEADS, TOWERS
from bonelib.experiments.settings.checking import Shaped, Within, hold, make, meant, plain
from bonelib.experiments.settings.protocols import Protocol, Row, Sees
from bonelib.experiments.settings.protocols import protocol as named_protocol
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
# Heads beside the linear probe: what a CPU fits in seconds, and all.
QUICK = ("rbf_svm", "knn", "class_mean", "gda", "lp_plus_plus", "tip_adapter", "clap")
MANY = (*QUICK, "linear_svm", "xgboost", "mlp", "ss_text", "tip_adapter_f", "clip_adapter")
MANY += ("taskres", "prolip", "class_text", "cascade", "clip_it", "coop", "hierarchy")
FUSIONS = ("early_fusion", "late_fusion")  # with clinical data as columns
MANY += FUSIONS
SHOTS, SHARES = (1, 2, 4, 8, 16), (0.01, 0.05, 0.1, 0.25)
FINETUNING_SIZES = _side_by_side(
    {
        "batch_size": [16, 32, 32],
        "epochs": [2, 8, 30],
        "strengths": [ONE, USUAL, USUAL],
        "heads": [("class_mean", "tip_adapter"), QUICK, MANY],
        "shots": [(1,), SHOTS, SHOTS],
        "shares": [(0.5,), SHARES, SHARES],
        "label_seeds": [1, 3, 5],
        "largest": [64, 128, 2048],  # side of the images of a protocol's towers
        "strategies": [(), ("captions:outlined",), ("captions:outlined",)],  # given outlines
    }
)
STARTS = ("scratch", "imagenet", "captions")
USUAL_STRATEGY = "full"
FROM_CAPTIONS = ("flyp",)  # strategies that need a tower trained on captions
NOTEBOOKS = {"Pretraining": "04", "Finetuning": "05"}
OLD = ("recipe_name", "probe", "fit_mode")  # settings that only runs of an earlier form recorded
OF_THE_SPLIT = ("split_seed",)  # recorded of every run, and no setting of a training

Size = Annotated[int, Within(32)]  # pixels: the towers halve an image five times
Resize = Literal["pad", "squash"]
TestSet = Annotated[str, Shaped(r"fold\d+|center:.+", "fold0, fold1, …, center:<name>")]
Strengths = Annotated[tuple[Positive, ...], Within(1)]
Said = Annotated[str, Shaped("|".join((*FIELDS, OWN)), ", ".join((*FIELDS, OWN)))]
Named = Annotated[str, Shaped("|".join((*FIELDS, OWN, OUTLINES)), "fields of captions")]
Source = Annotated[str, Shaped(r"table|reports|own|.+\.csv", "table, reports, own, or a CSV")]
Language = Annotated[str, Shaped("[a-z]{2}", "two letters such as en or fr")]
Head = Annotated[str, Shaped("|".join(HEADS), ", ".join(HEADS))]
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
        caption_fields: What captions name, as far as the set knows it; ``own`` for ``own``;
            ``outlines`` where those of training images are told.
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
    caption_fields: Annotated[tuple[Named, ...], Within(1)]

    __post_init__ = hold

    from_dict = classmethod(_restored)

    @property
    def sides(self) -> tuple[int, ...]:
        """Side of the images in each epoch, in pixels; the last one is ``size``."""
        shares = self.recipe.sizes or (1.0,)
        sides = [max(32, 32 * round(self.size * share / 32)) for share in shares[:-1]]
        sides = [*(min(side, self.size) for side in sides), self.size]
        parts = [((epoch + 1) * len(sides) - 1) // self.epochs for epoch in range(self.epochs)]
        return tuple(sides[part] for part in parts)

    @property
    def decoded(self) -> int:
        """Side in pixels to which the images that train are decoded; crops are cut from more."""
        return self.size * (2 if self.recipe.crops else 1)

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
    """A comparison of starts and strategies under one protocol, as notebook 05 shows it.

    Attributes:
        image: The tower, that of the pretraining.
        resize: As in ``Pretraining``.
        strengths: Regularisations among which a probe chooses.
        lr: Of the head; ``backbone_lr`` of the tower.
        starts: What the tower starts from: ``scratch``, ``imagenet``, ``captions``.
        strategies: How it is trained: ``evaluation.methods.TOWERS``; ``full`` is always among them.
            ``captions:lora`` trains one start by it, ``lora`` all.
        imbalance: What is done where classes differ in size: ``weights`` in the loss by inverse
            frequency, ``balanced`` sampling, ``logit_adjustment``, or ``none``.
        language: Of the texts that strategies train towards, that of the pretraining.
        heads: What is fitted to frozen features beside the linear probe; those that don't fit the
            task, or lack texts, are left out and named.
        shots, shares: How many labels a class, and which share of them, heads learn from beside
            all; each drawn ``label_seeds`` times.
        protocol: Name of the published protocol whose ``rows`` stand in place of starts,
            strategies and heads.
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
    strategies: Annotated[tuple[str, ...], Within(1)] = (USUAL_STRATEGY,)
    imbalance: Literal["weights", "balanced", "logit_adjustment", "none"] = "weights"
    language: Language = "en"
    heads: tuple[Head, ...] = ()
    shots: tuple[Count, ...] = ()
    shares: tuple[Part, ...] = ()
    label_seeds: Count = 1
    protocol: str = ""
    rows: tuple[Row, ...] = ()

    __post_init__ = hold

    from_dict = classmethod(_restored)
    as_dict = plain

    def row(self, start: str) -> Row | None:
        """Return the first row of the protocol with this start; None where there is no protocol."""
        return next((row for row in self.rows if row.start == start), None)

    def method(self, start: str, strategy: str, sees: Sees = "image") -> Method:
        """Return what predictions call a strategy from a start."""
        row = self.row(start)
        if row is None:
            return Method(start=start, strategy=strategy, sees=sees)
        return replace(row, strategy=strategy, sees=sees).method

    @property
    def fitted(self) -> list[tuple[str, str, Sees]]:
        """Each ``(start, head, sees)`` that is fitted to frozen features, the probes first."""
        if self.rows:
            return [(r.start, r.strategy, r.sees) for r in self.rows if r.tower and r.head]
        both = [(start, head) for head in ("probe", *self.heads) for start in self.starts]
        fused: dict[str, Sees] = dict.fromkeys(FUSIONS, "image+metadata")
        fused["sentence_fusion"] = "image+text"
        return [(s, h, fused.get(h, "image")) for s, h in both]

    @property
    def fit(self) -> dict[str, Any]:
        """Keyword arguments of ``training.Options``: one rate for every layer of the tower."""
        rates = {"lr": self.lr, "backbone_lr": self.backbone_lr, "layer_decay": 1.0}
        return {"epochs": self.epochs} | rates

    @property
    def trainings(self) -> list[tuple[str, str]]:
        """Each ``(start, strategy)`` that is trained; some start from captions alone."""
        if self.rows:
            return [(row.start, row.strategy) for row in self.rows if row.tower and not row.head]
        return [
            (start, strategy)
            for start in self.starts
            for own, strategy in self._asked
            if own in ("", start) and (strategy not in FROM_CAPTIONS or start == "captions")
        ]

    @property
    def _asked(self) -> list[tuple[str, str]]:
        """Each strategy with the start that it is for, empty for all."""
        return [(own, name) for own, _, name in (text.rpartition(":") for text in self.strategies)]

    def conflicts(self) -> list[str]:
        """List what can't go together."""
        lists = {"starts": self.starts, "strategies": self.strategies, "heads": self.heads}
        repeated = {
            k: sorted({v for v in names if names.count(v) > 1}) for k, names in lists.items()
        }
        faults = [f"{k} names {', '.join(v)} more than once." for k, v in repeated.items() if v]
        faults += [
            f"strategies: {name!r} is none.{meant(name, TOWERS)} Choose {', '.join(TOWERS)}."
            for _, name in self._asked
            if name not in TOWERS
        ]
        faults += [
            f"strategies: {own}:{name} starts from none of {', '.join(self.starts)}."
            for own, name in self._asked
            if own and own not in self.starts
        ]
        if "probe" in self.heads:
            faults.append("heads names probe, which is always fitted. Leave it out.")
        if USUAL_STRATEGY not in self.strategies:
            faults.append(
                f"strategies={self.strategies!r} lacks full, which the others are compared with, "
                "and whose heat maps notebook 07 makes. Add it."
            )
        for name in (name for _, name in self._asked if name in FROM_CAPTIONS):
            if "captions" not in self.starts:
                faults.append(
                    f"{name} goes on with a pretraining on captions, and starts={self.starts!r} "
                    f"has none. Add captions to the starts, or leave {name} out."
                )
            if self.imbalance == "logit_adjustment":
                faults.append(
                    f"{name} has a contrastive loss, without logits of classes to adjust. Choose "
                    f"imbalance='balanced', or leave {name} out."
                )
        return faults


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


def finetuning(
    profile: str,
    pretraining: Pretraining,
    *,
    epochs: int = 0,
    strategies: Sequence[str] = (),
    heads: Sequence[str] = (),
    imbalance: str = "weights",
    protocol: Protocol | str = "",
    outlines: bool = False,
) -> Finetuning:
    """Plan a fine-tuning: the sizes of a profile; tower, images and test set of a pretraining.

    Args:
        epochs: 0 takes the value of the profile.
        strategies: How the tower is trained beside ``full``; see ``Finetuning``. Empty takes those
            of the profile, which learn from outlines.
        heads: What is fitted to frozen features; empty takes those of the profile.
        imbalance: See ``Finetuning``.
        protocol: By name or itself, takes the place of starts, strategies and heads.
        outlines: There are training images to learn from them.

    Raises:
        ValueError: Lists all that is wrong, with what is allowed.
    """
    sizes = _sizes(FINETUNING_SIZES, profile)
    sizes["epochs"], largest = _epochs(epochs, sizes["epochs"]), sizes.pop("largest")
    usual = sizes.pop("strategies") if outlines and not protocol else ()
    same = {k: getattr(pretraining, k) for k in ("size", "resize", "test", "language")}
    same |= {"image": pretraining.recipe.image}
    named = [name for name in strategies if name and name != USUAL_STRATEGY] or usual
    sizes |= {"strategies": (USUAL_STRATEGY, *named), "imbalance": imbalance}
    if asked := [name for name in heads if name]:
        sizes["heads"] = tuple(name for name in asked if name != "probe")
    if protocol:
        protocol = named_protocol(protocol) if isinstance(protocol, str) else protocol
        few = dict(shots=(), shares=tuple(s for s in protocol.shares if s < 1))
        rows = tuple(replace(row, size=min(row.size, largest)) for row in protocol.rows)
        sizes |= dict(protocol=protocol.name, rows=rows, heads=(), **few)
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
