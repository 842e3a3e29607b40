"""Heat maps: how well they meet lesions, as charts of intervals, and cases with their outlines."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib.figures.names import colours, display_names
from bonelib.figures.radiographs import _film, _film_title, _sheet, plot_heatmap
from bonelib.figures.rows import Row, draw_rows, mark_line
from bonelib.figures.scores import PITCH, interval_kind, mark_chance, sample
from bonelib.figures.style import BLUE, WIDTH, blank_axes, note, number, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Measures of maps whose names a reader can't guess.
MEASURES = {"PRO": "per-region overlap (PRO)", "pixel AP": "pixel average precision", "iou": "IoU"}
MAPS = {"grad_cam": "Grad-CAM", "hires_cam": "HiResCAM", "grad_cam_plus": "Grad-CAM++"}
MAPS |= {"layer_cam": "LayerCAM", "eigen_cam": "EigenCAM", "ablation": "Ablation-CAM"}
MAPS |= {"rollout": "attention rollout", "own": "its own map"}


def map_name(way: str) -> str:
    """Name a map for readers: ``layer_cam:3@2`` is ``LayerCAM, 3 stages, input × 2``."""
    name, _, times = way.partition("@")
    method, _, stages = name.partition(":")
    parts = [MAPS.get(method, method), f"{stages} stages" if stages else ""]
    return ", ".join(part for part in (*parts, f"input × {times}" if times else "") if part)


def map_names(table: pd.DataFrame) -> pd.Series:
    """Name the map of each row of a table, by the columns of methods and ``map``."""
    ways = table["map"].map(map_name)
    return display_names(table) + (": " + ways).where(ways != "", "")


def plot_localisation(table: pd.DataFrame) -> "Figure":
    """Draw how well each kind of map meets the lesions, a panel a measure.

    Args:
        table: Rows of `evaluation.means`. With a column ``map`` a method may have several; a
            ``group`` heads its rows. Maps that saw no image (``sees`` none) are grey.
    """
    names = map_names(table) if "map" in table else display_names(table)
    names = [textwrap.fill(name, 30) for name in names]
    table, measures = table.assign(name=names, shade=colours(table)), table["measure"].unique()
    count = len(_rows(table[table["measure"] == measures[0]]))
    figure, axes = panels(len(measures), len(measures), 1.0 + 0.33 * count, sharey=True)
    for ax, measure in zip(axes, measures, strict=True):
        rows = _rows(table[table["measure"] == measure])
        draw_rows(ax, [row if len(row.ends) else Row("") for row in rows], written=False)
        for place, row in enumerate(rows):
            if np.isfinite(row.ends[:, 0]).any():
                ax.annotate(number(row.ends[0, 0]), (row.ends[0, 0], place), xytext=(-3, 5), size=7,
                            textcoords="offset points")  # fmt: skip
        told = MEASURES.get(measure, measure.replace("_", " "))
        ax.set_title(textwrap.fill(told, 19), weight="normal", size=8.5)
        mark_chance(ax, "AUROC" if "AUROC" in measure else "")
        ax.set_xlim(left=0)
        ax.margins(x=0.2)
    axes[0].set_yticks(range(len(rows)), [row.name for row in rows])
    for label, row in zip(axes[0].get_yticklabels(), rows, strict=True):
        label.set_weight("normal" if len(row.ends) else "bold")
    note(figure, interval_kind(table), sample(table))
    return figure


def plot_measured(table: pd.DataFrame, label: str, *, zero: bool = False) -> "Figure":
    """Draw a row of each interval, with its numbers at the right, under headings of groups.

    Args:
        table: ``name``, value, low, high, n, groups, group_kind; ``group`` heads its rows, and a
            ``note`` stands in the place of numbers.
        label: Of the axis.
        zero: Mark it by a dashed line.
    """
    rows = _rows(table.assign(shade=BLUE))
    ax = blank_axes(None, WIDTH, 0.9 + PITCH * len(rows))
    draw_rows(ax, rows)
    if zero:
        mark_line(ax, 0)
    ax.set_xlabel(label)
    note(ax.figure, interval_kind(table), sample(table))
    return ax.figure


def _rows(table: pd.DataFrame) -> list[Row]:
    """Return a row of each interval, those of a ``group`` below a heading."""
    rows, groups = [], table["group"] if "group" in table else pd.Series("", table.index)
    for group, part in table.groupby(groups, sort=False):
        rows += [Row(group)] if group else []
        for one in part.to_dict("records"):
            ends = np.array([[one["value"], one["low"], one["high"]]], dtype=float)
            rows.append(Row(one["name"], ends, one.get("note") or None, one["shade"]))
    return rows


def case_sheet(
    images: Sequence[np.ndarray],
    maps: dict[str, np.ndarray],
    masks: Sequence[np.ndarray | None],
    titles: Sequence[str],
    *,
    across: int = 2,
) -> "Figure":
    """Lay out cases: the radiograph, right of it the map of each method by its name.

    Args:
        images: K times ``(H, W)`` uint8.
        maps: For each method ``(K, h, w)``; negative values count as no heat.
        masks: K times ``(H, W)`` or None, outlined in every map.
        titles: Above each radiograph.
        across: Cases in a row of the sheet.
    """
    wide, rows = 1 + len(maps), -(-len(images) // across)
    figure, axes = _sheet([images[0]] * (rows * across * wide), across * wide, 1)
    width = figure.get_figwidth() / axes.shape[1]
    for case, (image, mask) in enumerate(zip(images, masks, strict=True)):
        row, column = case // across, case % across * wide
        _film(axes[row, column], image, titles[case], width)
        for k, (name, heat) in enumerate(maps.items(), column + 1):
            plot_heatmap(image, heat[case], mask, ax=axes[row, k])
            if not row:
                _film_title(axes[row, k], name, width)
    outlined = "; lesion outlined" if any(mask is not None for mask in masks) else ""
    shown = f"n = {len(images)} image{'s' * (len(images) != 1)}"
    note(figure, f"{shown}; each map by its own maximum{outlined}")
    return figure
