"""Fine-tuning strategies under one protocol, from a probe on frozen features to every weight.

Features and labels come in; a predictor that gives logits, or what a training of all weights
minimises, goes out. Every hyper-parameter is chosen inside the training images; none of these
functions ever sees a test label.
"""

from bonelib.adaptation.objectives import objective
from bonelib.adaptation.probes import STRENGTHS, Probe, cross_fit, probe
from bonelib.adaptation.search import FOLDS, POINTS, Fitted, fit
from bonelib.adaptation.support import Heads, Point, Strategy, Support
