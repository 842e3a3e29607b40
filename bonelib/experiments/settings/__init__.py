"""Settings of the experiments: recipes, pretraining, fine-tuning; checked before anything starts.

Names in TOML files, parameters of notebooks and settings of recorded runs come in; frozen, typed
objects go out. What has a wrong type or name, is out of range or can't go together is refused, all
of it at once, each line with what is allowed.
"""

from bonelib.experiments.settings.parameters import listing, problems
from bonelib.experiments.settings.plans import (
    FINETUNING_SIZES,
    PRETRAINING_SIZES,
    Finetuning,
    Pretraining,
    finetuning,
    pretraining,
)
from bonelib.experiments.settings.reading import recipe, recipe_names, recipes
from bonelib.experiments.settings.schema import Fit, Objective, Recipe
