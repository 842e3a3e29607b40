"""One training loop: model, objective and loader in, one row per epoch out.

The same loop trains dual encoders and classifiers, on one device or, under ``torchrun``, on many.
"""

from bonelib.training.loop import fit
from bonelib.training.machine import precision, take_ranks, to_device
from bonelib.training.rules import Options, parameter_groups, schedule
from bonelib.training.state import toward
