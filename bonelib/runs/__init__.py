"""Run folders, their records, and the hand-over from one notebook to the next.

A notebook starts a run, saves tables, figures and weights through it, and finishes it; the next
notebook finds its record. ``record.json`` is written last and by rename, so its presence means
"finished". A record names all it was made from by content: inputs, data, files and code. If one
of them changed, it is stale: refused by what builds on it, made again by what made it.

    runs/<profile>/<data>/<task>/<stage>/<variant>-s<seed>/record.json
"""

import importlib
from typing import Any

# Loaded when asked for: any room imports `runs.files`, and must not load pandas with it.
_NAMES = {
    "checkpoints": "Planned checkpoint how_to_train mark_trained planned reopen save_checkpoint "
    "save_plan",
    "code": "code_hash",
    "data": "",
    "files": "cache_folder file_hash replacing replacing_folder",
    "finding": "FAILED collect failures find stale start",
    "freshness": "",
    "machine": "seed_everything",
    "paths": "DRAWN ROOT alone data_root figures_folder folder is_drawn task_files",
    "record": "Record Run",
    "stages": "ANY_TASK MODULES NEEDS NEEDS_WITH NOTEBOOKS READS input_variant",
}
_MODULE = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = [*_MODULE]  # noqa: PLE0604  read off the table above


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE[name]}"), name)
