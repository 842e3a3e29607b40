"""A trained model applied to new radiographs: ``bonelib predict`` and ``bonelib.load``.

A bundle and paths come in; a table with a row a file goes out: probabilities, the call by the
threshold frozen on validation patients, and heat maps where they are asked for. Radiographs are
read and batched by the code of the notebooks, so that the numbers are the same.
"""

from bonelib.experiments.predict.bundle import load
from bonelib.experiments.predict.model import Predictor, without_empty
from bonelib.experiments.predict.sources import gather
