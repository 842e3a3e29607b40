"""DICOM files as hospitals export them: pixels with bone bright, facts, de-identified copies.

A file comes in; ``read`` returns its grey picture and its facts, or raises ``ValueError`` with the
reason. ``walk`` names every file of an export. Needs the extra ``dicom`` for compressed files.
"""

from bonelib.dicom.reading import facts, is_dicom, parse, read
from bonelib.dicom.tree import walk

__all__ = ["facts", "is_dicom", "parse", "read", "walk"]
