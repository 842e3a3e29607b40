"""Radiographs decoded once into a memory-mapped cache, and batches drawn from it.

The cohort table comes in with its paths. ``cache`` decodes every file once into a uint8 array
``(N, size, size)`` keyed by the content of the files, ``verify`` only says which are broken;
``loader`` yields batches of tensors from the cache, ``augment`` varies them, ``mask`` draws a
lesion's outline into the same pixels. ``Balanced``, ``OneSet`` and ``UniqueCaptions``
are orders of an epoch other than each image once.
"""

from bonelib.images.batches import Loader, augment, loader
from bonelib.images.orders import Balanced, OneSet, UniqueCaptions
from bonelib.images.pixels import FITS, mask
from bonelib.images.store import Cache, cache, reopen, verify
