"""Models made of towers, what changes them, and how they are kept.

Towers come in; ``DualEncoder`` and the heads for its controls go out. ``add_lora`` lets low-rank
changes train; ``save_bundle`` and ``load_bundle`` keep a model whole (``load_image_tower`` reads
its tower alone), ``export_open_clip`` and ``from_open_clip`` exchange it with open_clip.
"""

from bonelib.models.bundles import (
    Model,
    load_bundle,
    load_image_tower,
    note_bundle,
    read_bundle,
    save_bundle,
    tower,
)
from bonelib.models.dense import DenseHead
from bonelib.models.exchange import export_open_clip, from_open_clip
from bonelib.models.heads import (
    Classifier,
    CosineHead,
    DualEncoder,
    FeatureHead,
    LinearProbe,
    MultiHead,
    pool_studies,
)
from bonelib.models.places import POOLS, PlaceHead, stage_maps
from bonelib.models.soup import soup
from bonelib.models.tuning import (
    add_lora,
    has_lora,
    last_block,
    lora_targets,
    merge_lora,
    tell_apart,
)
