"""One training loop: model, objective and loader in, one row per epoch out.

The same loop trains dual encoders and classifiers, on one device or, under ``torchrun``, on many.
"""

from bonelib.training.loop import fit
from bonelib.training.recipes import check_plain, kept, recipe
from bonelib.training.rules import parameter_groups, precision, schedule
from bonelib.training.state import toward
from bonelib.training.step import to_device

__all__ = [
    "check_plain",
    "fit",
    "kept",
    "parameter_groups",
    "precision",
    "recipe",
    "schedule",
    "to_device",
    "toward",
]
