"""Recipes by name: those that are shipped, those that a study tried, and the user's own.

TOML files come in, in which a recipe says only what it changes in ``base`` or in the one that it
``inherits`` from; a checked ``Recipe`` goes out.
"""

import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bonelib import runs
from bonelib.experiments.settings.checking import make, meant
from bonelib.experiments.settings.schema import Recipe

BASE = (
    "Captions with equal facts are positives and partial matches count; the lower layers of the "
    "image tower learn slowly, and its batch norms keep their statistics."
)
TABLES = ("objective", "fit")  # of which a recipe may change single entries
Sections = dict[str, dict[str, Any]]


def recipe(name: str, *, sections: Mapping[str, Mapping[str, Any]] | None = None) -> Recipe:
    """Return a recipe with all its settings.

    ``epochs`` is a share, and a share of the share of the recipe that it inherits from, so that
    costs add up.

    Args:
        sections: Recipes as they are written, in place of those in the files.

    Raises:
        ValueError: There is no such recipe, it inherits from itself or from one that is missing, or
            a setting is unknown, of the wrong type, out of range or at odds with another; all that
            is wrong is listed.
    """
    known = _sections() if sections is None else sections
    chain = _chain(name, known)
    made: dict[str, Any] = {}
    for link in reversed(chain):
        for key, value in known[link].items():
            before = made.get(key, {} if key in TABLES else 1.0)
            if key in TABLES and isinstance(value, Mapping) and isinstance(before, Mapping):
                value = {**before, **value}
            elif key == "epochs" and {type(before), type(value)} <= {int, float}:
                value = before * value
            made[key] = value
    named = [link for link in chain if "name" in known[link]]
    if named:
        raise ValueError(f"Recipe {named[0]!r}: its section is its name. Leave out name = ….")
    own = known[name] if chain else {"why": BASE}
    told = {key: own[key] for key in ("why", "inherits") if key in own}
    made = {k: v for k, v in made.items() if k not in ("why", "inherits")} | told
    return make(Recipe, made | {"name": name}, title=f"Recipe {name!r} can't be made")


def trained_words(settings: Mapping[str, Any]) -> bool:
    """Tell of the recorded settings of a pretraining whether its words learnt anything."""
    weights = (settings.get("recipe") or {}).get("objective", {})
    return any(weights.get(term, 1) for term in ("text", "neighbours", "attributes"))


def recipe_names() -> list[str]:
    """Return the names of all recipes: the shipped ones, those tried in studies, the user's."""
    return ["base", *_sections()]


def recipes() -> pd.DataFrame:
    """Return the shipped recipes: ``name``, ``why``, and what each ``changes`` against ``base``."""
    shipped = [recipe(name) for name in ("base", *_packaged("recipes.toml"))]
    return pd.DataFrame(
        {"name": one.name, "why": one.why, "changes": one.changes()} for one in shipped
    )


def own_file() -> Path:
    """Return where a user writes recipes, in a checkout."""
    return runs.ROOT / "notebooks" / "recipes.toml"


def _chain(name: str, known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a recipe and those it is made of, up to and without ``base``."""
    chain: list[str] = []
    while name != "base":
        if name in chain:
            path = " → ".join([*chain, name])
            raise ValueError(f"Recipe {chain[0]!r} inherits from itself: {path}.")
        if not isinstance(name, str) or name not in known:
            heir = f", from which {chain[-1]!r} inherits" if chain else ""
            hint = meant(str(name), list(known))
            raise ValueError(f"No recipe {name!r}{heir}.{hint} Known: base, {', '.join(known)}.")
        if not isinstance(known[name], Mapping):
            raise ValueError(f"{name} = {known[name]!r} stands in no section of the recipes' file.")
        chain.append(name)
        name = known[name].get("inherits", "base")
    return chain


def _sections() -> Sections:
    """Return all recipes as they are written.

    Raises:
        ValueError: The user's file can't be read, or has a name that is taken.
    """
    ours = _packaged("recipes.toml") | _packaged("tried.toml")
    file = own_file()
    try:
        own = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} can't be read as TOML in UTF-8: {error}.") from None
    taken = [name for name in own if name in ours or name == "base"]
    if taken:
        raise ValueError(
            f"{file} has the sections {', '.join(taken)}, which come with bonelib and would mean "
            "something else in its results. Give yours other names; they may inherit from these."
        )
    return ours | own


@functools.cache
def _packaged(name: str) -> Sections:
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
