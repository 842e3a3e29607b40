"""Synthetic radiographs of bone tumours, drawn by X-ray physics in BTXRD's own layout.

For trying the pipeline, for tests and for controls with a known truth; never for clinical claims.
"""

from __future__ import annotations

from . import agreement, realism
from .hospital import write_dicom
from .reports import Report, write_reports
from .sheet import SHEETS, contact_sheet
from .studio import Radiograph, Shape, draw
from .writer import COLUMNS, EXTRA_COLUMNS, write

__all__ = [
    "COLUMNS",
    "EXTRA_COLUMNS",
    "SHEETS",
    "Radiograph",
    "Report",
    "Shape",
    "agreement",
    "contact_sheet",
    "draw",
    "realism",
    "write",
    "write_dicom",
    "write_reports",
]
