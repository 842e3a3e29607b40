"""Reports made safe, read, and turned into captions, step by step as notebook 03 argues it.

The functions are the sections of the notebook, in their order: those of `safety` up to the gate,
those of `reading` behind it.
"""
