"""Vision-language models for bone-tumour radiographs, one small room per concern.

Import the rooms you need, ``from bonelib import cohort, splits``; nothing heavy is loaded before.
"""

__version__ = "0.1.0"
