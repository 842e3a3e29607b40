"""What is unlike normal bone: scores and maps learnt from normal images, or from a few outlines.

Frozen features, towers and masks come in; a score for each image, maps ``(N, S, S)`` and their
measures go out. ``normal`` sees normal images alone, ``mvfa`` adds words and some outlines,
``pixels`` measures any map against outlines.
"""

from bonelib.anomaly.levels import patch_features
from bonelib.anomaly.mvfa import MVFA, look, normal_bank, train
from bonelib.anomaly.normal import (
    calibrated,
    coreset,
    distances,
    knn_distances,
    mahalanobis_distances,
    standardised,
)
from bonelib.anomaly.pixels import measured, mixed, pixel_statistics
