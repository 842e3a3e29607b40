"""What training minimises: pairs of radiographs and captions, or labels.

Features or logits and what they should agree with come in; scalars come out, and objectives, which
``training.fit`` takes.
"""

from bonelib.losses.labels import (
    attributes_loss,
    attributes_objective,
    classification_objective,
    ordinal_loss,
    regression_objective,
)
from bonelib.losses.objective import Batch, Objective, Outputs, gathered
from bonelib.losses.pairs import (
    contrastive_loss,
    contrastive_objective,
    distilled,
    floor,
    in_turn,
    nearest,
    positives,
    siglip_loss,
    simclr_loss,
    spread,
    stages_objective,
    targets,
)
