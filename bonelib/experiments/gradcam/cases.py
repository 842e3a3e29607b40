"""Images that show what is asked for, with the outlines of their lesions.

Training lesions make the bone prior, validation lesions choose the map; those of test images lie
behind the door with their labels, and judge it.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd

from bonelib import cohort, explain, images
from bonelib.encoders import ImageEncoder
from bonelib.evaluation import Method
from bonelib.experiments.context import AnyRun, Context, decoded, in_order, opened


@dataclass(frozen=True)
class Cases:
    """Images of one part with a finding, in the order of the table.

    Attributes:
        table: One row an image, its label and facts among them; those with an outline alone, where
            any has one.
        targets: Column of the logits that is explained, by image.
        masks: ``(N, S, S)`` bool, empty where no image has an outline.
        findings: Images of the part with a finding, outlined or not.
        images: Images of the part.
        size: S, that of the images that the models were trained on.
    """

    context: Context
    table: pd.DataFrame
    targets: np.ndarray
    masks: np.ndarray
    findings: int
    images: int
    size: int

    @property
    def outlined(self) -> bool:
        """Whether there are outlines to score maps against."""
        return len(self.masks) > 0

    def cache(self, factor: int = 1) -> images.Cache:
        """Return the decoded images, ``factor`` times as large as those that the models saw."""
        if factor == 1:
            return self.context.cache(self.size)
        fit = self.context.cohort_run.settings["fit"]
        return decoded(self.table, size=factor * self.size, fit=fit)

    def batches(self, tower: ImageEncoder, factor: int = 1) -> images.Loader:
        """Return the images in order, as a tower takes them."""
        return in_order(self.cache(factor), self.table[cohort.IMAGE_ID], tower)

    def spread(self, most: int) -> np.ndarray:
        """Return at most so many rows, at equal steps; 0: all."""
        count = len(self.table)
        return np.linspace(0, count - 1, min(most or count, count)).astype(int)

    def take(self, rows: np.ndarray) -> Self:
        """Return some of the images."""
        table = self.table.iloc[rows].reset_index(drop=True)
        masks = self.masks[rows] if self.outlined else self.masks
        return replace(self, table=table, targets=self.targets[rows], masks=masks)


def cases(context: Context, part: str, *, size: int, run: AnyRun | None = None) -> Cases:
    """Take the images of a part that show what is asked for.

    An outline on an image whose label says that nothing is there is left out.

    Args:
        run: Opens the test set, whose labels and outlines are sealed.
    """
    view, task = context.view(), context.asked
    rows = view[view["split"] == part].set_index(cohort.IMAGE_ID, drop=False)
    if run is not None:
        known = context.here(opened(run)).set_index(cohort.IMAGE_ID).reindex(rows.index)
        rows = rows.assign(**known)
    finding = rows[task.findings(task.encode(rows[task.column]))]
    outlined = finding[finding[cohort.MASK].notna()]
    table = (outlined if len(outlined) else finding).reset_index(drop=True)
    places = context.cache(size).geometry.set_index(cohort.IMAGE_ID, drop=False)
    masks = [
        images.mask(outline, places.loc[name], size=size)
        for name, outline in outlined[cohort.MASK].items()
    ]
    targets = explain.targets(task.encode(table[task.column]), outputs=task.outputs)
    return Cases(context, table, targets, np.array(masks), len(finding), len(rows), size)


def blind(found: Cases, taught: Cases) -> dict[Method, np.ndarray]:
    """Return maps ``(N, S, S)`` that saw no image, to stand beside those that did.

    Args:
        taught: Training lesions, of which the bone prior is the mean outline at each site.
    """
    count, size = len(found.table), found.size
    maps = {"centre prior": np.broadcast_to(explain.center_prior(size), (count, size, size))}
    if taught.outlined:
        sites = taught.table["site"], found.table["site"]
        maps["bone prior"] = explain.bone_prior(taught.masks, sites[0], of=sites[1])
    maps["uniform map"] = np.ones((count, size, size), np.float32)
    maps["random map"] = explain.random_maps(count, size, found.context.seed)
    return {Method(sees="none", detail=name): heat for name, heat in maps.items()}
