"""Figures of radiographs: contact sheets, and heat maps laid over the image they explain.

Greyscale arrays come in, matplotlib figures and axes go out; nothing is shown or saved. Grey levels
are drawn as they are stored (0 black, 255 white), never stretched image by image.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bonelib.figures.style import GREEN, RED, WIDTH, blank_axes, note

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEAT = 0.65  # opacity of the strongest heat
OUTLINE = "#5CE1E6"  # of lesions: a hue that neither grey nor the heat has


def _film(ax: "Axes", image: np.ndarray, title: str, width: float) -> None:
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    ax.set_axis_off()
    _film_title(ax, title, width)


def holds_radiographs(figure: "Figure") -> bool:
    """Tell whether a radiograph is drawn in a figure: an image in grey."""
    return any(image.get_cmap().name == "gray" for ax in figure.axes for image in ax.images)


def _film_title(ax: "Axes", title: str, width: float) -> None:
    lines = textwrap.wrap(title, max(10, int(width * 17)), max_lines=3, placeholder=" …")
    ax.set_title("\n".join(lines), size=7, weight="normal", pad=3)


def _sheet(
    images: Sequence[np.ndarray], columns: int, rows_each: int
) -> tuple["Figure", np.ndarray]:
    import matplotlib.pyplot as plt

    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns) * rows_each
    tall = np.median([image.shape[0] / image.shape[1] for image in images])
    side = WIDTH / max(columns, 3)
    figure, axes = plt.subplots(
        rows, columns, figsize=(side * columns, rows * (side * tall + 0.2) + 0.3), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
    for ax in axes.flat:
        ax.set_axis_off()
    return figure, axes


def contact_sheet(
    images: Sequence[np.ndarray], titles: Sequence[str], *, columns: int = 6
) -> "Figure":
    """Lay out uint8 radiographs ``(H, W)``, or in colours, side by side, a short title above."""
    figure, axes = _sheet(images, columns, 1)
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        _film(ax, image, title, figure.get_figwidth() / axes.shape[1])
    return figure


def plot_heatmap(
    image: np.ndarray, heat: np.ndarray, mask: np.ndarray | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Lay a heat map over a radiograph, with the outline of the lesion.

    Args:
        image: ``(H, W)`` uint8.
        heat: ``(h, w)``, any size over the same field; negative heat counts as none. What is cold
            is transparent.
        mask: ``(H, W)``, above zero inside the lesion.
    """
    import cv2
    from matplotlib.patheffects import withStroke

    ax = blank_axes(ax, 3, 3)
    _film(ax, image, ax.get_title(), WIDTH / 3)
    height, width = image.shape
    # Enlarged before it is coloured: smooth colour and transparency instead of a grid of cells.
    heat = cv2.resize(np.asarray(heat, np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    heat = np.clip(heat, 0, None)
    heat = heat / heat.max() if heat.max() > 0 else heat
    ax.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=HEAT * heat**0.7)
    if mask is not None and np.any(mask):
        drawn = ax.contour(np.asarray(mask) > 0, [0.5], colors=OUTLINE, linewidths=1.1)
        drawn.set_path_effects([withStroke(linewidth=2.2, foreground="black", alpha=0.6)])
    return ax


def heat_over(
    image: np.ndarray, heat: np.ndarray, *, side: int = 448, opacity: float = HEAT
) -> np.ndarray:
    """Lay one heat map over its radiograph without a figure: uint8 ``(h, w, 3)``.

    Args:
        image: ``(H, W)`` uint8, zeros for heat alone.
        heat: As in `plot_heatmap`, in the same colours.
        side: Both are enlarged by a whole number, until the longer side has as many pixels.
        opacity: Of the strongest heat.
    """
    import cv2
    from matplotlib import colormaps

    times = max(1, -(-side // max(image.shape)))
    size = (image.shape[1] * times, image.shape[0] * times)
    grown = cv2.resize(np.asarray(heat, np.float32), size, interpolation=cv2.INTER_CUBIC).clip(0)
    grown = grown / grown.max() if grown.max() > 0 else grown
    film = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)[..., None]
    steps = np.linspace(0, 1, 256)  # as many as the colours have: a widget has no time for more
    share = (opacity * steps**0.7)[:, None].astype(np.float32)
    colour = 255 * share * colormaps["inferno"](steps)[:, :3].astype(np.float32)
    step = np.rint(grown * 255).astype(np.uint8)
    mixed = film * (1 - share)[step] + colour[step]
    return np.rint(mixed).astype(np.uint8)


def heatmap_sheet(
    images: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    masks: Sequence[np.ndarray | None],
    titles: Sequence[str],
    *,
    what: str = "heat",
) -> "Figure":
    """Lay out cases: the radiograph above, below it the same with heat and the lesion's outline.

    Args:
        what: The heat in words, below its scale.
    """
    figure, axes = _sheet(images, 4, 2)
    columns = axes.shape[1]
    for i, (image, heat, mask) in enumerate(zip(images, maps, masks, strict=True)):
        row, column = 2 * (i // columns), i % columns
        _film(axes[row, column], image, titles[i], figure.get_figwidth() / columns)
        plot_heatmap(image, heat, mask, ax=axes[row + 1, column])
    from matplotlib.cm import ScalarMappable

    wide = figure.get_figwidth()  # of few cases it is narrow
    place = dict(ax=axes, location="bottom", shrink=min(0.7, 0.35 * WIDTH / wide), pad=0.02)
    bar = figure.colorbar(ScalarMappable(cmap="inferno"), aspect=30, **place)
    bar.set_ticks([0, 1], labels=["none", "highest"])
    label = f"{what}, each map by its own maximum; lesion outlined (n = {len(images)} images)"
    bar.set_label(textwrap.fill(label, int(13 * wide)))
    bar.outline.set_visible(False)
    return figure


def similar_sheet(cases: Sequence[Sequence[tuple[np.ndarray, str, bool | None]]]) -> "Figure":
    """Lay out similar cases: a query at the left of each row, its neighbours right of it.

    Args:
        cases: Rows of (radiograph, title, whether it agrees with the query); None is the query. A
            frame tells which agree, and so does the mark before the title.
    """
    from matplotlib.patches import Rectangle

    columns = max(map(len, cases))
    blank = (np.zeros_like(cases[0][0][0]), "", None)
    cells = [cell for row in cases for cell in [*row, *[blank] * (columns - len(row))]]
    figure, axes = _sheet([image for image, _, _ in cells], columns, 1)
    for ax, (image, title, agrees) in zip(axes.flat, cells, strict=True):
        if not title:
            continue
        mark = {True: "✓ ", False: "✗ ", None: "query: "}[agrees]
        _film(ax, image, mark + title, figure.get_figwidth() / columns)
        if agrees is not None:
            place = dict(transform=ax.transAxes, fill=False, linewidth=2.5, clip_on=False)
            style = dict(edgecolor=GREEN) if agrees else dict(edgecolor=RED, linestyle=(0, (2, 1)))
            ax.add_patch(Rectangle((0, 0), 1, 1, **place, **style))
    note(figure, "left: a query, then its nearest images of other patients, the nearest first")
    note(figure, "✓ and a whole frame: the same class", "✗ and a dashed frame: another")
    note(figure, "queries: equal steps from the best to the worst")
    return figure


def map_sheet(
    images: Sequence[np.ndarray], maps: dict[str, np.ndarray], masks: Sequence[np.ndarray]
) -> "Figure":
    """Lay out cases in rows: the radiograph, then the map of each method by its name.

    Args:
        images: K times ``(H, W)`` uint8.
        maps: For each method ``(K, h, w)``; negative values count as no heat.
        masks: K times ``(H, W)``, outlined in every map.
    """
    shape = (len(images), 1 + len(maps))
    figure, axes = _sheet([images[0]] * (shape[0] * shape[1]), shape[1], 1)
    width = figure.get_figwidth() / shape[1]
    for row, (image, mask) in enumerate(zip(images, masks, strict=True)):
        _film(axes[row, 0], image, "" if row else "radiograph", width)
        for ax, (name, heat) in zip(axes[row, 1:], maps.items(), strict=True):
            plot_heatmap(image, heat[row], mask, ax=ax)
            if not row:
                _film_title(ax, name, width)
    note(figure, f"n = {len(images)} images", "the brighter, the more abnormal")
    note(figure, "each map by its own maximum", "lesion outlined")
    return figure
