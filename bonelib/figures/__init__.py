"""Figures of a thesis: each function takes a table or arrays and returns matplotlib axes.

Nothing is shown and nothing saved here; ``run.save_figure`` does that. Colours are those of
Okabe & Ito 2008, which colour-blind readers tell apart; a method keeps its colour everywhere.
"""

from bonelib.figures.bone_tasks import plot_bland_altman, plot_readers, plot_tasks
from bonelib.figures.checks import plot_findings, plot_leaks
from bonelib.figures.counts import plot_counts, plot_history
from bonelib.figures.curves import (
    plot_calibration,
    plot_decision,
    plot_precision_recall,
    plot_risk,
    plot_roc,
)
from bonelib.figures.distributions import plot_bands, plot_cumulative, plot_shares
from bonelib.figures.efficiency import plot_efficiency, plot_label_shares
from bonelib.figures.embedding import plot_embedding
from bonelib.figures.heat_maps import (
    case_sheet,
    map_name,
    map_names,
    plot_localisation,
    plot_measured,
)
from bonelib.figures.names import colour, display_name, display_names
from bonelib.figures.predicted import (
    plot_agreement,
    plot_confusion,
    plot_evidence,
    plot_predictions,
)
from bonelib.figures.radiographs import (
    contact_sheet,
    heat_over,
    heatmap_sheet,
    holds_radiographs,
    map_sheet,
    plot_heatmap,
    similar_sheet,
)
from bonelib.figures.reported import plot_reported
from bonelib.figures.scores import (
    interval_kind,
    plot_forest,
    plot_subgroups,
    sample,
)
from bonelib.figures.studies import LANGUAGES, plot_gains, plot_spread, plot_wordings
from bonelib.figures.style import (
    GREY,
    INK,
    UNAVAILABLE,
    WIDTH,
    intervals,
    note,
    number,
    p_value,
    synthetic_note,
    use_thesis_style,
    with_interval,
)
