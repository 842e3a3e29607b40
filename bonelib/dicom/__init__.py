"""DICOM files as hospitals export them, read: pixels with bone bright, and facts.

A file comes in; ``read`` returns its grey picture and its facts, or raises ``ValueError`` with the
reason. ``walk`` names every file of an export. Compressed files need the extra ``dicom``. Copies
without identities are the matter of ``bonelib.deidentify``.
"""

from bonelib.dicom.reading import is_dicom, read
from bonelib.dicom.tree import walk
