"""Fine-tuning strategies under one protocol, from a probe on frozen features to every weight.

Features and labels come in; a predictor that gives logits, or what a training of the tower takes
and leaves, goes out. Every hyper-parameter is chosen inside the training images; none of these
functions ever sees a test label. A strategy comes by its name: ``strategy``, ``points``.
"""

from bonelib.adaptation import clinical, objectives, probes, shots, strategies
from bonelib.adaptation.fusion import early_fusion, late_fusion, part
from bonelib.adaptation.objectives import IMBALANCE, objective
from bonelib.adaptation.packing import PACKED, pack, unpack
from bonelib.adaptation.probes import STRENGTHS, Probe, cross_fit, probe
from bonelib.adaptation.search import POINTS, Fitted, calibrated, fit
from bonelib.adaptation.shots import Draws, draw
from bonelib.adaptation.strategies import (
    ALL_ALIKE,
    ON_PLACES,
    WITH_OUTLINES,
    WITH_PROBE,
    WITH_TEXTS,
    check_towers,
    points,
    strategy,
)
from bonelib.adaptation.support import FOLDS, Heads, Point, Strategy, Support
from bonelib.adaptation.tunings import Training, Tuning
