"""What notebooks give their readers to explore: the widgets of ``explore`` on a run's tables."""

from bonelib.experiments.exploring.cases import cases, errors, heat_maps, similar
from bonelib.experiments.exploring.comparing import compare_runs
from bonelib.experiments.exploring.prompts import prompts
