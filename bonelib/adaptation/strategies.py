"""The table of strategies: by name, what each one is, its function and what its search tries.

It holds those on frozen features and those that train the tower, which share nothing but names.
"""

import difflib
import functools
import importlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bonelib.adaptation import search
from bonelib.adaptation.support import Point, Support
from bonelib.evaluation.methods import TOWERS

TABLE = Path(__file__).with_name("strategies.csv")


@functools.cache
def _table() -> pd.DataFrame:
    return pd.read_csv(TABLE, keep_default_na=False, dtype=str).set_index("name")


# Of those that train the tower: need a probe on frozen features; a dual encoder and class prompts.
WITH_PROBE = ("lp_ft", "wise_ft")
WITH_TEXTS = tuple(name for name in TOWERS if _table().at[name, "text"] == "yes")
# Learn from outlines of training images as well; judge places of a tower's feature maps.
WITH_OUTLINES = ("outlined", "lesion_crops")
ON_PLACES = ("top_k", "attention_pool", "outlined")
# What moves all weights alike, and protects nothing that a tower may have learnt before.
ALL_ALIKE = (
    "full",
    "top_k",
    "attention_pool",
    *WITH_OUTLINES,
    "class_text_ft",
    "class_text_random",
)


def table() -> pd.DataFrame:
    """Return a row a strategy: its function, title, source, equation, search and task kinds.

    ``parameters`` holds the values that a search combines: ``alpha=0.1 1; beta=1 5.5``. ``text``
    says whether the texts of the classes are needed, ``trains`` what is fitted.
    """
    return _table().copy()


def strategy(name: str) -> Any:
    """Return the function of a strategy.

    That is a ``support.Strategy`` on frozen features, or what makes one of what the column ``text``
    names (entities, a bank of texts, …); of those that train the tower a ``tunings.TowerStrategy``.

    Raises:
        ValueError: No strategy has this name; the nearest names are given.
    """
    module, _, function = _row(name)["function"].rpartition(".")
    return getattr(importlib.import_module(module), function)


def points(name: str, kind: str = "binary") -> list[Point]:
    """Return the points that a search tries: ``search.POINTS``, or fewer.

    Fewer are tried where a strategy has fewer real hyper-parameters: a class mean is centred or
    not, SS-Text+ has none.

    Args:
        kind: The task's kind (``Support.kind``).

    Raises:
        ValueError: An unknown name, or the strategy does not fit the kind.
    """
    row = _row(name)
    kinds = row["kinds"].split()
    if kind not in kinds:
        others = [n for n, other in _table().iterrows() if kind in other["kinds"].split()]
        told = f"Use {', '.join(others)}." if others else f"Known kinds: {', '.join(kinds)}."
        raise ValueError(f"{name} fits tasks that are {' or '.join(kinds)}, not {kind}. {told}")
    axes = [axis.partition("=") for axis in row["parameters"].split(";") if "=" in axis]
    values = [[float(value) for value in listed.split()] for _, _, listed in axes]
    names = [axis.strip() for axis, _, _ in axes]
    found: list[Point] = [dict(zip(names, one, strict=True)) for one in itertools.product(*values)]
    if len(found) > search.POINTS:
        raise ValueError(
            f"{TABLE.name} gives {name} {len(found)} points, but each strategy may try "
            f"{search.POINTS}."
        )
    return found


def fit(name: str, support: Support) -> search.Fitted:
    """Fit a strategy on frozen features by name: the nested choice among its `points`."""
    return search.fit(strategy(name), support, points(name, support.kind))


def check_towers(
    names: Sequence[str],
    *,
    regression: bool,
    imbalance: str,
    texts: bool = True,
    outlines: bool = True,
) -> None:
    """Refuse strategies that can't train the tower on a task, before anything is trained.

    Args:
        regression: The labels are values.
        imbalance: One of ``objectives.IMBALANCE``.
        texts: There is a dual encoder, and words for the classes.
        outlines: A training image with a finding has one.

    Raises:
        ValueError: Lists what can't be, each with its cure.
    """
    textual, found = [name for name in names if name in WITH_TEXTS], []
    if textual and regression:
        found.append(
            f"{', '.join(textual)}: compares images with the texts of classes, and values have "
            "none. Leave it out, or choose a task with classes."
        )
    elif textual and not texts:
        found.append(
            f"{', '.join(textual)}: compares images with the texts of classes, and the task has no "
            "words or the pretraining no text tower. Leave it out, or pretrain with captions: a "
            "RECIPE such as ours."
        )
    looking = [name for name in names if name in WITH_OUTLINES]
    if looking and not outlines and not regression:
        found.append(
            f"{', '.join(looking)}: learns from outlines of training images, and no training image "
            "with a finding has one. Take a set that has masks, such as btxrd, fracatlas or "
            "phantom, or top_k, which needs none."
        )
    if regression and looking:
        found.append(
            f"{', '.join(looking)}: an outline shows where a class is, and values have none. Leave "
            "it out, or take top_k."
        )
    if regression and imbalance in ("balanced", "logit_adjustment"):
        found.append(f"imbalance={imbalance!r}: values have no classes. Choose weights or none.")
    if found:
        lines = "\n".join(f"  - {line}" for line in found)
        raise ValueError(f"The tower can't be trained like this:\n{lines}")


def _row(name: str) -> pd.Series:
    known = _table()
    if name not in known.index:
        near = difflib.get_close_matches(name.lower(), known.index, n=3, cutoff=0.4)
        told = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(known.index)}."
        raise ValueError(f"No strategy is called {name!r}. {told}")
    return known.loc[name]
