"""Experiments: the one room where rooms are put together, a module for each notebook.

A module's functions are the sections of its notebook, in their order; notebooks, ``bonelib train``
and tests call the same ones. `context` carries the names that travel together, `settings` what is
decided before anything starts. No module imports another but these two
and `progress`.
"""
