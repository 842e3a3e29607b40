"""Classify and retrieve by words alone.

Unit features of images and prompts come in; logits, ranks and recalls go out. Whether a number may
be called zero-shot depends on the captions of the pretraining (``captions.supervision``).
"""

from bonelib.evaluation import selective_risk
from bonelib.zero_shot import crops
from bonelib.zero_shot.attributes import attribute_logits
from bonelib.zero_shot.calibration import calibrate, ece, nll
from bonelib.zero_shot.classes import (
    class_features,
    expected,
    logits,
    site_logits,
    text_features,
    wording_logits,
)
from bonelib.zero_shot.gate import choose_gate, gated
from bonelib.zero_shot.ranks import ranked, retrieval
from bonelib.zero_shot.sensitivity import opposite, report, variant_features
from bonelib.zero_shot.similar import neighbours, precision
