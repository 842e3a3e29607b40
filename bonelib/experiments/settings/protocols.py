"""Published protocols by name: which towers, strategies and labels a paper compared.

A TOML file comes in; checked, frozen protocols go out, each with where its rows depart from the
paper and which of the paper's faults they don't repeat.
"""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd

from bonelib.evaluation import Method
from bonelib.evaluation.methods import HEADS, TOWERS
from bonelib.experiments.settings.checking import Shaped, Within, hold, make, meant
from bonelib.experiments.settings.schema import Part

Tower = Annotated[
    str,
    Shaped(
        r"|captions|(packaged|timm|open_clip|hf|torchxrayvision|onnx):.+",
        "captions, packaged:<name>, timm:<model>, open_clip:<architecture>, hf:<folder>, "
        "torchxrayvision:<model>, onnx:<file>, or nothing where no image is seen",
    ),
]
Sees = Literal["image", "metadata", "image+metadata", "image+text"]
Strategy = Annotated[str, Shaped("|".join((*HEADS, *TOWERS)), ", ".join((*HEADS, *TOWERS)))]
WITH_CAPTIONS = ("clip_it", "cascade", "taskres", "flyp", "image+text")


@dataclass(frozen=True)
class Row:
    """One method of a protocol.

    Attributes:
        tower: ``captions``, the tower of notebook 04, or a name of ``encoders.image``.
        weights: Of a named tower.
        pooling: As ``encoders.image`` takes it; empty: the tower's own.
        size: Side of the images in pixels as published; 0: that of the plan.
        sees: Beside the image, or in its place.
    """

    strategy: Strategy = "probe"
    tower: Tower = ""
    weights: Literal["pretrained", "random"] = "pretrained"
    pooling: Literal["", "class token", "token mean", "patch mean"] = ""
    size: Annotated[int, Within(32, 2048, zero=True)] = 0
    sees: Sees = "image"

    __post_init__ = hold

    def conflicts(self) -> list[str]:
        """List what can't go together."""
        faults = []
        if bool(self.tower) == (self.sees == "metadata"):
            faults.append(f"tower={self.tower!r} with sees={self.sees!r}: name a tower for images.")
        if (self.sees in ("image+metadata", "image+text")) != self.strategy.endswith("fusion"):
            faults.append(f"strategy={self.strategy!r} with sees={self.sees!r}: fusion sees both.")
        if self.strategy == "sentence_fusion" and self.sees == "image+metadata":
            faults.append("sentence_fusion with sees='image+metadata': it reads image+text.")
        if {self.strategy, self.sees} & set(WITH_CAPTIONS) and self.tower != "captions":
            faults.append(f"{self.strategy} that sees {self.sees} needs tower='captions'.")
        return faults

    @property
    def head(self) -> bool:
        """Whether the tower stays frozen."""
        return self.strategy in HEADS

    @property
    def start(self) -> str:
        """What tells the tower from the others of a plan."""
        weights = "random" if self.weights == "random" else ""
        side = f"{self.size} px" if self.size else ""
        return " ".join(part for part in (self.tower, weights, side, self.pooling) if part)

    @property
    def method(self) -> Method:
        """The method that the row is, as predictions name it."""
        library, _, name = self.tower.partition(":")
        name = name or library or "none"
        if library == "torchxrayvision":  # apart from timm's of the same name
            name = f"{library}-{name}"
        told = dict(strategy=self.strategy, sees=self.sees)
        if self.weights == "random":
            return Method(start="scratch", detail=name, **told)
        return Method(start=name, detail=self.pooling, **told)


@dataclass(frozen=True)
class Protocol:
    """What a paper compared, as it can be repeated here.

    Attributes:
        paper: Key in ``notebooks/references.bib``.
        recipe: The recipe of notebook 04 that it pretrains by; empty: any.
        shares: Of the labels that heads on frozen features learn from.
        departs: Where the rows are not as published.
        mended: Faults of the paper, or of its code, that are not repeated.
    """

    name: str
    paper: str
    why: str
    rows: Annotated[tuple[Row, ...], Within(1)]
    recipe: str = ""
    shares: tuple[Part, ...] = (1.0,)
    metrics: tuple[str, ...] = ("AUROC",)
    departs: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()

    __post_init__ = hold

    def conflicts(self) -> list[str]:
        """List what can't go together."""
        if len(set(self.rows)) < len(self.rows):
            return ["rows: one stands there twice."]
        names = [row.method for row in self.rows]
        same = sorted({row.start for row in self.rows if names.count(row.method) > 1})
        if same:
            listed = "; ".join(same)
            return [
                f"rows: predictions could not tell {listed} apart: their names hold neither size "
                "nor library."
            ]
        return []

    def described(self) -> str:
        """Say in Markdown what is repeated, where it departs, and what is not repeated."""
        lists = {"It departs": self.departs, "Not repeated": self.mended}
        said = [f"**{self.name}** ({self.paper}). {self.why}"]
        for title, sentences in lists.items():
            if sentences:
                said.append(f"\n*{title}:*\n\n" + "\n".join(f"- {one}" for one in sentences))
        return "\n".join(said)


def protocol(name: str, *, sections: Mapping[str, Mapping[str, Any]] | None = None) -> Protocol:
    """Return a published protocol.

    Args:
        sections: Protocols as they are written, in place of those that come with bonelib.

    Raises:
        ValueError: There is no such protocol, or one of its rows can't be; all faults are listed.
    """
    known = _packaged() if sections is None else sections
    if name not in known:
        listed = ", ".join(known)
        raise ValueError(f"No protocol {name!r}.{meant(name, list(known))} Choose {listed}.")
    title = f"The protocol {name!r} can't be carried out"
    return make(Protocol, dict(known[name]) | {"name": name}, title=title)


def protocol_text(name: str) -> str:
    """Say in Markdown what a protocol repeats; without a name, that there is none."""
    return protocol(name).described() if name else "Starts and strategies of this project."


def protocol_names() -> list[str]:
    """Return the names of all protocols."""
    return [*_packaged()]


def protocols() -> pd.DataFrame:
    """Return all protocols for readers: ``name``, ``paper``, ``why``, how many ``rows``."""
    every = [protocol(name) for name in protocol_names()]
    return pd.DataFrame(
        {"name": p.name, "paper": p.paper, "why": p.why, "rows": len(p.rows)} for p in every
    )


@functools.cache
def _packaged() -> dict[str, dict[str, Any]]:
    text = Path(__file__).with_name("protocols.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
