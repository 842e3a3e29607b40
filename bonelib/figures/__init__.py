"""Figures of a thesis: each function takes a table or arrays and returns matplotlib axes.

Nothing is shown and nothing saved here; ``run.save_figure`` does that. Colours are those of
Okabe & Ito 2008, which colour-blind readers tell apart; a method keeps its colour everywhere.
"""

from bonelib.figures.bone_tasks import (
    plot_bland_altman,
    plot_label_shares,
    plot_readers,
    plot_tasks,
)
from bonelib.figures.counts import plot_counts, plot_history
from bonelib.figures.distributions import plot_bands, plot_cumulative, plot_shares
from bonelib.figures.efficiency import plot_efficiency
from bonelib.figures.findings import plot_findings
from bonelib.figures.gains import plot_gains
from bonelib.figures.leaks import plot_leaks
from bonelib.figures.names import colour, display_name, display_names
from bonelib.figures.predicted import (
    plot_agreement,
    plot_confusion,
    plot_predictions,
    plot_roc,
)
from bonelib.figures.radiographs import (
    contact_sheet,
    heat_over,
    heatmap_sheet,
    map_sheet,
    plot_heatmap,
    similar_sheet,
)
from bonelib.figures.reported import plot_reported
from bonelib.figures.scores import (
    interval_kind,
    plot_calibration,
    plot_forest,
    plot_localisation,
    plot_risk,
    plot_spread,
    sample,
)
from bonelib.figures.style import (
    GREY,
    INK,
    UNAVAILABLE,
    WIDTH,
    intervals,
    number,
    synthetic_note,
    use_thesis_style,
    with_interval,
)
from bonelib.figures.wordings import LANGUAGES, plot_wordings
