"""Synthetic radiographs of bone tumours, drawn by X-ray physics in BTXRD's own layout.

For trying the pipeline, for tests and for controls with a known truth; never for clinical claims.
"""

from __future__ import annotations

from . import agreement, realism
from .acquisition import Radiograph, draw
from .hospital import write_dicom
from .reports import write_reports
from .sheet import SHEETS, contact_sheet
from .writer import write
