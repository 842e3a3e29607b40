"""Where a model looks, and whether that is the lesion.

A model and images come in, heat maps ``(N, H, W)`` go out; maps and lesion masks come in, scores go
out, always beside what a map that knows nothing of the image would get.
Grad-CAM: Selvaraju et al. 2017, arXiv:1610.02391. Pointing game: Zhang et al. 2018, IJCV 126:1084.
Energy: Score-CAM, Wang et al. 2020, arXiv:1910.01279.
"""

from bonelib.explain.faithfulness import deletion_insertion
from bonelib.explain.grounding import grounding
from bonelib.explain.layers import target_layer
from bonelib.explain.localisation import (
    LEFT_OUT,
    bone_prior,
    border_mass,
    center_prior,
    choose_threshold,
    localisation,
    random_maps,
)
from bonelib.explain.maps import METHODS, grad_cam, heat_maps, targets
from bonelib.explain.sanity import randomised, resemblance, verdict
from bonelib.explain.texts import contrast
