"""What a recipe of pretraining may decide, and what can't go together.

The defaults are the recipe ``base``; ``reading`` takes the others from files.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pandas as pd

from bonelib import captions
from bonelib.experiments.settings.checking import Shaped, Within, hold, plain

Share = Annotated[float, Within(0, 1)]
Part = Annotated[float, Within(0, 1, above=True)]  # a share that is not nothing
Weight = Annotated[float, Within(0)]
Positive = Annotated[float, Within(0, above=True)]
Count = Annotated[int, Within(1)]
CountOrNone = Annotated[int, Within(0)]
Field = Annotated[str, Shaped("|".join(captions.FIELDS), ", ".join(captions.FIELDS))]
# The families of `encoders.image` and `encoders.text`, which name the towers of each.
ImageTower = Annotated[
    str,
    Shaped(
        r"(packaged|timm|open_clip|hf|torchxrayvision):.+",
        "packaged:<name>, timm:<model>, open_clip:<architecture>, hf:<folder>, "
        "torchxrayvision:<model>",
    ),
]
TextTower = Annotated[
    str,
    Shaped(
        r"small|random|(packaged|open_clip|hf):.+",
        "packaged:<name>, small, random, open_clip:<architecture>, hf:<folder>",
    ),
]

Variant = Annotated[str, Shaped(r"[^@,/]+(@\d+)?", "variants such as name, name* or name@3")]


@dataclass(frozen=True)
class Objective:
    """The terms of the loss and their weights, as ``losses.contrastive_objective`` takes them.

    Attributes:
        loss: Of the image–text term: ``softmax`` (CLIP) or ``sigmoid`` (SigLIP).
        key_temperature: Above 0, captions that share some facts are partial matches; 0: none are.
        use_keys: Captions with equal facts are positives of each other.
        text, views, neighbours, attributes: Weights of the terms; 0 leaves a term out.
    """

    loss: Literal["softmax", "sigmoid"] = "softmax"
    key_temperature: Weight = 0.1
    use_keys: bool = True
    text: Weight = 1.0
    views: Weight = 0.0
    neighbours: Weight = 0.0
    attributes: Weight = 0.0

    __post_init__ = hold

    @property
    def beside_text(self) -> list[str]:
        """The terms beside that of images and texts that have a weight."""
        return [k for k in ("neighbours", "views", "attributes") if getattr(self, k)]

    def conflicts(self) -> list[str]:
        """List what can't go together."""
        faults = []
        if self.key_temperature and (self.loss == "sigmoid" or not self.use_keys):
            faults.append(
                f"objective: loss={self.loss!r} with use_keys={self.use_keys} knows no partial "
                "matches. Set key_temperature=0."
            )
        if not self.text and not self.beside_text:
            faults.append(
                "objective: nothing is learnt. Give text, neighbours, views or attributes a weight."
            )
        return faults


@dataclass(frozen=True)
class Fit:
    """What a recipe decides of ``training.Options``, where each is explained.

    Attributes:
        warmup: Share of the run in which the rates rise; None: that of the profile.
        precision: ``auto`` or Lightning Fabric's name of it.
    """

    lr: Annotated[float, Within(0, 1, above=True)] = 1e-3
    backbone_lr: Share = 3e-4
    layer_decay: Part = 0.85
    weight_decay: Weight = 0.05
    warmup: Share | None = None
    locked: Share = 0.0
    to_start: Weight = 0.0
    ema: Annotated[float, Within(0, 0.9999)] = 0.0  # at 1 the average would never move
    frozen_norm: bool = True
    clip: Weight = 1.0
    micro_batch: CountOrNone = 0
    precision: Literal["auto", "32-true", "bf16-mixed", "bf16-true", "16-mixed"] = "auto"

    __post_init__ = hold

    def conflicts(self) -> list[str]:
        """List what can't go together."""
        if self.micro_batch and not self.frozen_norm:
            return [
                f"fit: micro_batch={self.micro_batch} with frozen_norm=False: batch norms would "
                "see parts of a batch. Freeze them, or set micro_batch=0."
            ]
        return []


@dataclass(frozen=True)
class Recipe:
    """One way of pretraining. The defaults are the recipe ``base``.

    Attributes:
        name: Its section in a TOML file.
        why: For readers: what it does or answers. It changes nothing.
        inherits: For readers: the recipe it starts from; empty: ``base``.
        fields: What captions may name; empty: the notebook's ``CAPTION_FIELDS``.
        exclude_fields: Fields that are left out of them.
        captions: ``own``; ``shuffled`` among images; ``random``: vectors instead of sentences.
        model: ``pairs`` of image and text; ``attributes``: one linear head a key, and no text.
        weights: Where the image tower starts.
        dim: Width of the space that images and texts share.
        text_init_floor: The text projection starts as ``models.tell_apart`` with this floor; 0:
            random.
        order: ``balanced``: rare meanings as often as common ones; ``mixed``: small sets more often
            than their share; ``one set``: one data set a batch; ``unique``: no caption twice in a
            batch.
        data_sets: Those of which images are learnt from; empty: all.
        studies: The images of a study are pooled before they meet its caption.
        epochs: Share of the profile's epochs: fewer where an image costs more, for equal CPU time.
        size: Side of the images in pixels; 0: that of the profile.
        batch_size: 0: that of the profile.
        sizes: Sides of the images as the epochs go on, each for an equal part of them, as shares of
            the side at the end (in multiples of 32 pixels; the last is 1); empty: one size.
        masked: Share of the second view's squares that is blank.
        crops: The second view is so many cuts of the image at twice the resolution, a quarter of
            its side wide; 0: the whole image, varied anew.
        outlines: Captions of training images say where their outlines lie, and how large they are.
        also: Another data set, read by notebook 01 under the same variant, of which images and
            captions are learnt from beside those of ``DATA``, and none is judged.
        soup: Nothing is trained: the image tower is the mean of those of finished pretrainings,
            given by their variants. ``*`` stands for what follows the recipe's name in ``VARIANT``,
            and ``@3`` for those of seed 3.
        lora: Rank of low-rank updates of the image tower; 0: every weight moves.
        wise_ft: Share of the way back to the starting weights after training (WiSE-FT).
        feature_distillation: Weight of a pull of the features towards those of the start.
        first: What is learnt in the first part of the epochs, alone: the facts as classes
            (``attributes``), or each stage of the tower from two views (``stages``). The other
            terms of the objective follow.
        first_share: How large that part is.
        label_projection: The classes see a projection of their own; see ``models.DualEncoder``.
    """

    name: str = "base"
    why: str = field(default="", compare=False)
    inherits: str = field(default="", compare=False)
    fields: tuple[Field, ...] = ()
    exclude_fields: tuple[Field, ...] = ()
    captions: Literal["own", "shuffled", "random"] = "own"
    model: Literal["pairs", "attributes"] = "pairs"
    image: ImageTower = "packaged:efficientnet_lite0"
    weights: Literal["pretrained", "random"] = "pretrained"
    text: TextTower = "packaged:minilm"
    dim: Annotated[int, Within(1, 8192)] = 256
    projection: Literal["linear", "mlp"] = "linear"
    text_init_floor: Share = 0.0
    order: Literal["plain", "balanced", "mixed", "one set", "unique"] = "plain"
    data_sets: tuple[str, ...] = ()
    studies: bool = False
    epochs: Positive = 1.0
    size: Annotated[int, Within(32, 2048, zero=True)] = 0
    batch_size: Annotated[int, Within(2, zero=True)] = 0  # one pair has nothing to differ from
    sizes: tuple[Part, ...] = ()
    masked: Annotated[float, Within(0, 0.9)] = 0.0  # of a square or two nothing can be told
    crops: Annotated[int, Within(0, 16)] = 0
    outlines: bool = False
    also: str = ""
    soup: tuple[Variant, ...] = ()
    lora: Annotated[int, Within(0, 1024)] = 0
    wise_ft: Share = 0.0
    feature_distillation: Weight = 0.0
    first: Literal["none", "attributes", "stages"] = "none"
    first_share: Part = 0.5
    label_projection: bool = False
    objective: Objective = field(default_factory=Objective)
    fit: Fit = field(default_factory=Fit)

    __post_init__ = hold

    # ------------------------------------------------------------------ what follows from it
    @property
    def retrieves(self) -> bool:
        """Whether images and captions are trained to find each other."""
        return self.model == "pairs" and self.objective.text > 0

    @property
    def learns_from_captions(self) -> bool:
        """Whether what captions say reaches the image tower, as sentences or as classes."""
        terms = self.objective
        told = terms.text or terms.neighbours or terms.attributes
        return self.model == "attributes" or told > 0

    @property
    def plain_text(self) -> bool:
        """Whether the loss is CLIP's alone, of which the floor is known."""
        terms = self.objective
        return terms.loss == "softmax" and terms.text == 1 and not terms.beside_text

    @property
    def kept_by(self) -> str | None:
        """The validation number by which an epoch is kept; None keeps the last one.

        Without captions there is nothing to retrieve, and captions of other images are no guide.
        """
        return "recall_5" if self.retrieves and self.captions != "shuffled" else None

    def conflicts(self) -> list[str]:
        """List what can't go together, beside what its tables list."""
        terms, faults = self.objective, []
        texts = [k for k in ("text_init_floor", "feature_distillation") if getattr(self, k)]
        if self.model == "attributes" and (texts or terms.beside_text):
            named = ", ".join([*texts, *(f"objective.{k}" for k in terms.beside_text)])
            faults.append(
                f"model='attributes' has no texts, views or features to distil. Set {named} to 0."
            )
        if self.fields and set(self.fields) <= set(self.exclude_fields):
            faults.append("fields: exclude_fields leaves none of them for captions to name.")
        if self.captions == "random" and terms.neighbours:
            faults.append(
                "captions='random': random vectors have no nearest neighbours that mean something. "
                "Set objective.neighbours to 0."
            )
        if self.text_init_floor and self.projection != "linear":
            faults.append("text_init_floor needs projection='linear'.")
        if self.studies and (self.model == "attributes" or self.order != "plain"):
            faults.append("studies needs model='pairs' and order='plain': studies come whole.")
        if (self.first == "attributes" or self.label_projection) and not terms.attributes:
            faults.append(
                "first='attributes' and label_projection need objective.attributes above 0: "
                "without it no fact is learnt as a class."
            )
        if self.first == "stages" and not terms.views:
            faults.append("first='stages' needs objective.views above 0: a stage sees two views.")
        then = ("text", "neighbours", "views") if self.first == "attributes" else ("views",)
        if self.first != "none" and not any(getattr(terms, k) for k in then):
            faults.append(f"first={self.first!r}: nothing follows. Give {then[0]} a weight.")
        if self.first != "none" and self.feature_distillation:
            faults.append(f"first={self.first!r} needs feature_distillation=0.")
        if self.studies and self.fit.micro_batch:
            faults.append("studies needs fit.micro_batch=0, which would part a study.")
        return faults + self._of_pictures()

    def _of_pictures(self) -> list[str]:
        faults, beside = [], ("lora", "wise_ft", "feature_distillation", "text_init_floor")
        if (self.masked or self.crops) and (not self.objective.views or self.first == "stages"):
            faults.append(
                "masked and crops change the second view: give objective.views a weight, and leave "
                "first='stages' out, whose two views are alike."
            )
        if self.masked and self.crops:
            faults.append("masked blanks parts of a whole image, crops has none. Set one to 0.")
        if self.soup and (trained := [k for k in beside if getattr(self, k)]):
            faults.append(f"soup trains nothing. Set {', '.join(trained)} to 0.")
        if self.sizes and (self.sizes[-1] != 1 or list(self.sizes) != sorted(self.sizes)):
            faults.append(f"sizes={list(self.sizes)}: shares that grow and end at 1 are expected.")
        return faults

    def changes(self) -> str:
        """Name the settings that differ from ``base``, for readers."""
        own, base = _flat(self), _flat(Recipe())
        return ", ".join(f"{k} {_told(v)}" for k, v in own.items() if v != base[k])

    def as_dict(self) -> dict[str, Any]:
        """Return what a run records of it: nothing that is for readers alone."""
        return {k: v for k, v in plain(self).items() if k not in ("why", "inherits")}


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Return all that a recipe decides, entries of its tables among the rest."""
    decided = {k: v for k, v in recipe.as_dict().items() if k != "name"}
    return pd.json_normalize(decided).to_dict("records")[0]


def _told(value: Any) -> str:
    """Put a value as a reader would."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
