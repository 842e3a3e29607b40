"""Synthetic radiographs, drawn by X-ray physics, in the layouts of the real sets they stand for.

Bone tumours as in BTXRD, and hands, knees and fractures for the other bone tasks. They are for
trying the pipeline, for tests and for controls with a known truth; never for clinical claims.
"""

from __future__ import annotations

from . import agreement, realism
from .acquisition import Radiograph, draw
from .hospital import write_dicom
from .reports import write_reports
from .sheet import SHEETS, contact_sheet
from .tasks import KINDS, write_task
from .writer import write
