"""DICOM files as hospitals export them: pixels with bone bright, facts, de-identified copies.

A file comes in; ``read`` returns its grey picture and its facts, or raises ``ValueError`` with the
reason. ``walk`` names every file of an export, ``deidentify`` copies it without identities, and
``characters`` counts text burnt into a picture. Compressed files and copies need the extra
``dicom``.
"""

from bonelib.dicom.burnt import characters
from bonelib.dicom.deidentify import Copies, deidentify
from bonelib.dicom.reading import facts, is_dicom, parse, read
from bonelib.dicom.tree import walk

__all__ = [
    "Copies",
    "characters",
    "deidentify",
    "facts",
    "is_dicom",
    "parse",
    "read",
    "walk",
]
