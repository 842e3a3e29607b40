"""Widgets for exploring in JupyterLab: cases, prompts, heat maps, similar images, runs.

Tables, arrays and functions that draw one image come in; a ``Panel`` goes out: a widget that
answers from memory, and a still picture where nobody can touch it. Nothing is trained, opened or
stored here.

In all of them ``table`` has a row an image with ``image_id``, ids that repeat are a ValueError, its
other columns are the facts that are shown; ``picture(image_id)`` gives a radiograph, uint8
``(H, W)``, and ``mask(image_id)`` its lesion over the same field in any size, None where there is
none.
"""

from bonelib.explore.cases import FILTERS, cases
from bonelib.explore.comparing import runs
from bonelib.explore.heat_maps import heat_maps
from bonelib.explore.panel import Panel
from bonelib.explore.prompts import prompts
from bonelib.explore.similar import similar
