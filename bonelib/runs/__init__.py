"""Run folders, their records, and the hand-over from one notebook to the next.

A notebook starts a run, saves tables, figures and weights through it, and finishes it; the next
notebook finds it. ``record.json`` is written last and by rename, so its presence means "finished".
Records name their inputs by hash: a run whose input was remade is refused, never silently mixed.

    runs/<profile>/<data>/<task>/<stage>/<variant>-s<seed>/record.json
"""

from bonelib.runs.checkpoints import (
    Planned,
    checkpoint,
    mark_trained,
    reopen,
    save_checkpoint,
    save_plan,
)
from bonelib.runs.machine import code_hash, seed_everything, table_hash
from bonelib.runs.places import (
    ROOT,
    alone,
    cache_folder,
    data_name,
    data_root,
    figures_folder,
    folder,
    replacing,
)
from bonelib.runs.record import NOTEBOOKS, PUBLISHING, Run, collect, find, start

__all__ = [
    "NOTEBOOKS",
    "PUBLISHING",
    "Planned",
    "ROOT",
    "Run",
    "alone",
    "cache_folder",
    "checkpoint",
    "code_hash",
    "collect",
    "data_name",
    "data_root",
    "figures_folder",
    "find",
    "folder",
    "mark_trained",
    "reopen",
    "replacing",
    "save_checkpoint",
    "save_plan",
    "seed_everything",
    "start",
    "table_hash",
]
