"""Settings: recipes, protocols, pretraining, fine-tuning; checked before anything starts.

Names in TOML files, parameters of notebooks and settings of recorded runs come in; frozen, typed
objects go out. What has a wrong type or name, is out of range or can't go together is refused, all
of it at once, each line with what is allowed.
"""

from bonelib.experiments.settings.parameters import (
    LADDER_HEADS,
    encoder_names,
    head_names,
    listing,
    problems,
)
from bonelib.experiments.settings.plans import (
    FINETUNING_SIZES,
    PRETRAINING_SIZES,
    Finetuning,
    Pretraining,
    finetuning,
    pretraining,
)
from bonelib.experiments.settings.protocols import (
    Protocol,
    Row,
    protocol,
    protocol_names,
    protocol_text,
    protocols,
)
from bonelib.experiments.settings.reading import recipe, recipe_names, recipes, trained_words
from bonelib.experiments.settings.schema import Fit, Objective, Recipe
