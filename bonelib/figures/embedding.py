"""The map of features: what a tower takes for alike, coloured by site, entity or centre."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib.figures.counts import words
from bonelib.figures.style import CLASSES, WIDTH, note, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 2000  # images drawn: t-SNE's time grows faster than their number


def plot_embedding(
    features: np.ndarray,
    table: pd.DataFrame,
    colour_by: str | Sequence[str],
    *,
    seed: int = 0,
    most: int = 7,
) -> "Figure":
    """Draw images as dots whose neighbours are alike: t-SNE, a panel a column that colours them.

    t-SNE (van der Maaten & Hinton 2008, JMLR 9:2579) keeps neighbours; sizes of clusters and
    distances between them mean nothing. On one thread, it is the same for the same seed.

    Args:
        features: ``(N, D)``, a row an image; of more than 2,000 as many are drawn by the seed.
        table: N rows with the columns ``colour_by``.
        most: Values with a colour of their own, the most frequent; all others are "other".

    Raises:
        ValueError: Fewer than five images, numbers that don't fit, or features that are not finite.
    """
    columns = [colour_by] if isinstance(colour_by, str) else list(colour_by)
    features = np.asarray(features, dtype=np.float64)
    if len(features) != len(table) or len(table) < 5 or not np.isfinite(features).all():
        raise ValueError(
            f"{len(features)} rows of features for {len(table)} of the table, "
            f"{int((~np.isfinite(features)).any(axis=1).sum())} of them not finite. A map needs a "
            "finite row for each image, and at least five."
        )
    if len(table) > MOST:
        kept = np.sort(np.random.default_rng(seed).choice(len(table), MOST, replace=False))
        features, table = features[kept], table.iloc[kept]
    perplexity = min(30.0, (len(table) - 1) / 3)
    places = _embedded(features, perplexity, seed)
    tall = 1.1 + 0.85 * WIDTH / max(2, len(columns))
    figure, axes = panels(len(columns), len(columns), tall)
    for ax, column in zip(axes, columns, strict=True):
        values = words(table[column]).reset_index(drop=True)
        often = values.value_counts().sort_index().sort_values(ascending=False, kind="stable")
        names = list(often.index.drop("unknown", errors="ignore")[:most])
        shades = dict(zip(names, CLASSES, strict=False))
        for name in [*names, "other"]:
            inside = values.eq(name) if name in shades else ~values.isin(names)
            look = dict(ms=2.6, mew=0, alpha=0.75, color=shades.get(name, "#CFCFCF"))
            if inside.any():  # what has no colour of its own lies below
                told = "other or none" if name == "other" else name
                told = f"{textwrap.shorten(told, 26, placeholder=' …')} ({int(inside.sum()):,})"
                ax.plot(*places[inside].T, "o", label=told, zorder=1 + (name in shades), **look)
        ax.set(xticks=[], yticks=[], title=f"by {column.replace('_', ' ')}", aspect="equal")
        ax.spines[:].set_visible(False)
        place = dict(loc="upper center", bbox_to_anchor=(0.5, 0), fontsize=7, markerscale=2)
        ax.legend(
            ncols=2 if len(columns) < 3 and max(map(len, names)) < 16 else 1,
            handletextpad=0.2,
            **place,
        )
    note(figure, f"t-SNE, perplexity {perplexity:.0f}, seed {seed}", f"n = {len(table):,} images")
    note(figure, "near dots are alike", "far distances mean nothing")
    return figure


def _embedded(features: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the order of sums, and so the last bits, hang on the threads
        most = min(50, *features.shape)
        parts = PCA(most, svd_solver="full", random_state=seed).fit_transform(features)
        return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(parts)
