"""Recipes by name: what one changes in another, put together and checked."""

import inspect
from collections.abc import Mapping
from typing import Any

from bonelib.losses import contrastive_objective
from bonelib.training.loop import fit

# Tables of which a recipe may change a single entry, and what may stand there.
PARTS = {
    "objective": set(inspect.signature(contrastive_objective).parameters),
    "fit": set(inspect.signature(fit).parameters)
    - {"model", "objective", "loader", "validate", "keep", "resume", "checkpoint", "patience"}
    - {"epochs", "devices", "nodes", "accelerator"},  # not the recipe's: a share, and the machine's
}
CHOICES = {
    "order": ("plain", "balanced", "mixed", "one set", "unique"),
    "captions": ("own", "shuffled", "random"),
    "model": ("pairs", "attributes"),
    "weights": ("pretrained", "random"),
    "projection": ("linear", "mlp"),
}
TERMS = ("neighbours", "views", "attributes")  # of the objective, beside the text
TOLD = ("why", "like")  # for readers; they change nothing


def recipe(name: str, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return all settings of a recipe: those of ``base`` with the changes it is made of.

    A recipe that is ``like`` another starts from that one, any other from ``base``. ``epochs`` is a
    share, and a share of the share of the recipe it is like.

    Args:
        known: Sections of ``notebooks/recipes.toml``.

    Raises:
        ValueError: No such recipe, a chain that doesn't end, a setting that ``base`` doesn't have,
            or a value that means nothing; all faults of the recipe are listed.
    """
    chain = []
    while name not in ("base", *chain):
        if name not in known:
            raise ValueError(f"No recipe {name!r}. Known: {', '.join(known)}.")
        chain.append(name)
        name = known[name].get("like", "base")
    if name != "base":
        raise ValueError(f"Recipe {chain[0]!r} is like itself: {' → '.join([*chain, name])}.")
    made = {k: dict(v) if k in PARTS else v for k, v in known["base"].items() if k not in TOLD}
    problems = []
    for link in reversed(chain):
        for key, value in known[link].items():
            if key in PARTS:
                made[key] |= value
                for wrong in sorted(set(value) - PARTS[key]):
                    known_here = ", ".join(sorted(PARTS[key]))
                    problems.append(f"{link}: {key}.{wrong} is no setting. Choose {known_here}.")
            elif key == "epochs":  # a share of a share, so that costs add up
                made[key] *= value
            elif key not in TOLD:
                if key not in made:
                    problems.append(f"{link}: {key!r} is no setting. Choose {', '.join(made)}.")
                made[key] = value
    for key, allowed in CHOICES.items():
        if made[key] not in allowed:
            problems.append(f"{key}={made[key]!r}. Choose {', '.join(allowed)}.")
    objective = made["objective"]
    if made["model"] == "attributes" and (
        made["distil"] or made["apart"] or any(objective.get(k) for k in TERMS)
    ):
        problems.append("model='attributes' has no texts, views or features to distil.")
    if made["captions"] == "random" and objective.get("neighbours"):
        problems.append("Random vectors have no nearest neighbours that mean something.")
    if objective.get("text", 1) == 0 and not any(objective.get(k) for k in TERMS):
        problems.append(f"Nothing is learnt: text, {', '.join(TERMS)} all have weight 0.")
    if problems:
        lines = "\n".join(f"  - {line}" for line in problems)
        raise ValueError(f"Recipe {(chain or ['base'])[0]!r} can't be made:\n{lines}")
    return made


def kept(recipe: Mapping[str, Any]) -> str | None:
    """Name the validation number by which an epoch is kept; None keeps the last one.

    Without captions there is nothing to retrieve, and captions of other images are no guide.
    """
    told = recipe["model"] == "pairs" and recipe["objective"].get("text", 1) > 0
    return "recall_5" if told and recipe["captions"] != "shuffled" else None


def check_plain(recipe: Mapping[str, Any]) -> None:
    """Refuse a recipe that ``bonelib train`` doesn't carry out: only the notebook builds its parts.

    Raises:
        ValueError: The message names what is not plain.
    """
    plain = {"model": "pairs", "order": "plain", "distil": 0.0, "studies": False, "lora": 0}
    wrong = [f"{k}={recipe[k]!r}" for k, v in plain.items() if recipe[k] != v]
    wrong += [k for k in TERMS if recipe["objective"].get(k)]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} is for notebook 04 alone: run it with WHERE='here'.")
