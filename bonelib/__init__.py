"""Vision-language models for bone-tumour radiographs, one small room per concern.

Import the rooms you need, ``from bonelib import cohort, splits``; nothing heavy is loaded before.
``bonelib.load(bundle)`` gives a trained model to apply, see ``experiments.predict``.
"""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load":
        from bonelib.experiments.predict import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
