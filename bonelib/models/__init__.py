"""Models made of towers, which of their weights train, and how they are kept.

Towers come in; ``DualEncoder`` and the heads for its controls go out. ``lock`` and ``add_lora`` say
what trains; ``save_bundle`` and ``load_bundle`` keep a model whole, ``export_open_clip`` and
``from_open_clip`` exchange it with open_clip.
"""

from bonelib.models.bundles import load_bundle, save_bundle, tower
from bonelib.models.exchange import export_open_clip, from_open_clip
from bonelib.models.heads import Classifier, DualEncoder, MultiHead, StudyPool
from bonelib.models.tuning import add_lora, has_lora, lock, lora_targets, merge_lora, tell_apart

__all__ = [
    "Classifier",
    "DualEncoder",
    "MultiHead",
    "StudyPool",
    "add_lora",
    "export_open_clip",
    "from_open_clip",
    "has_lora",
    "load_bundle",
    "lock",
    "lora_targets",
    "merge_lora",
    "save_bundle",
    "tell_apart",
    "tower",
]
