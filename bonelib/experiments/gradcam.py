"""Heat maps scored against lesion outlines, as notebook 07 argues it.

A finished fine-tuning comes in; a map for each test image with a finding, scores beside maps that
saw no image, and a sheet of cases go out. The models are loaded by the run whose predictions were
scored, so that what is explained is what was measured.
"""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bonelib import cohort, evaluation, explain, figures, images, models, runs
from bonelib.evaluation import Method
from bonelib.experiments.context import AnyRun, Context, keep, opened

MEASURES = ("pointing", "energy", "average_precision", "iou")
SHOWN = Method(start="captions", strategy="full")  # whose maps are kept and shown
CENTRE = Method(sees="none", detail="centre prior")
UNIFORM = Method(sees="none", detail="uniform map")
TOGETHER = 16  # images whose maps are made at a time
CASES = 8  # on the sheet


@dataclass
class Cases:
    """Test images with a finding, in the order of the table.

    Attributes:
        table: One row an image; those with an outline alone, where any has one.
        targets: Column of the logits that is explained, by image.
        masks: ``(N, S, S)`` bool, empty where no image has an outline.
        findings: Test images with a finding, outlined or not.
        tested: Test images in all.
    """

    table: pd.DataFrame
    targets: np.ndarray
    masks: np.ndarray
    findings: int
    tested: int
    cache: images.Cache

    @property
    def outlined(self) -> bool:
        """Whether there are outlines to score maps against."""
        return len(self.masks) > 0


# -------------------------------------------------------------------- which images have an outline?
def cases(context: Context, run: AnyRun, *, size: int) -> Cases:
    """Open the test set and take the images with a finding.

    The outlines of test images lie behind the door with their labels. An outline on an image whose
    label says that nothing is there is left out.
    """
    test = context.view()
    test = test[test["split"] == "test"].reset_index(drop=True)
    task, cache = context.asked, context.cache(size)
    sealed = context.here(opened(run)).set_index(cohort.IMAGE_ID)
    finding = sealed[task.findings(task.encode(sealed[task.column]))]
    outlined = finding[finding[cohort.MASK].notna()]
    chosen = (outlined if len(outlined) else finding).index
    table = test[test[cohort.IMAGE_ID].isin(chosen)].reset_index(drop=True)
    own = task.encode(sealed.loc[table[cohort.IMAGE_ID], task.column])
    targets = explain.targets(own, outputs=task.outputs)
    places = cache.geometry.set_index(cohort.IMAGE_ID, drop=False)
    masks = [
        images.mask(outlined.loc[name, cohort.MASK], places.loc[name], size=size)
        for name in table[cohort.IMAGE_ID]
        if name in outlined.index
    ]
    return Cases(table, targets, np.array(masks), len(finding), len(test), cache)


# ---------------------------------------------------------------------- where does each model look?
def maps(run: AnyRun, tuned: runs.Record, found: Cases) -> np.ndarray:
    """Make the maps of every start, score them, and return those that are shown.

    Args:
        tuned: The run of notebook 05, whose bundles are explained.

    Returns:
        ``(N, S, S)`` float32, not negative.
    """
    if not run.finished:
        scored, of_shown = [], None
        for start in tuned.settings["starts"]:
            method = Method(start=start, strategy="full")
            model = models.load_bundle(tuned.bundle / start)
            pixels = model.image.preprocessing.pixels()
            ids = found.table[cohort.IMAGE_ID]
            loader = images.loader(found.cache, ids, batch_size=TOGETHER, **pixels)
            heat = explain.grad_cam(model, loader, target=found.targets)
            of_shown = heat if method == SHOWN else of_shown
            scored.append(_scored(heat, found, method))
        run.save_array("maps", of_shown.astype(np.float16))
        prior = np.broadcast_to(explain.center_prior(found.cache.size), of_shown.shape)
        scored.append(_scored(prior, found, CENTRE))
        scored.append(_scored(np.ones_like(prior), found, UNIFORM))
        run.save_table("localisation", pd.concat(scored))
    return run.array("maps").astype(np.float32)


def _scored(heat: np.ndarray, found: Cases, method: Method) -> pd.DataFrame:
    """Score maps against the outlines, one row an image; none without outlines."""
    ids = found.table[["image_id", "patient", "group", "group_kind", "center"]]
    if not found.outlined:
        return ids.head(0).assign(**method.columns(), **dict.fromkeys(MEASURES, 0.0))
    measured = explain.localisation(heat, found.masks)
    return pd.concat([ids, measured], axis=1).assign(**method.columns())


def score(run: AnyRun) -> pd.DataFrame:
    """Average the measures of each kind of map, with intervals over patients."""
    localisation = run.table("localisation")
    if localisation.empty:
        return pd.DataFrame(columns=[*evaluation.METHOD, "measure", "value", "low", "high", "n"])
    return keep(run, "scores", evaluation.means(localisation, list(MEASURES)))


def draw(scores: pd.DataFrame) -> Figure:
    """Draw the scores, a panel a measure; an empty figure that says so without outlines."""
    if len(scores):
        return figures.plot_localisation(scores)
    figure = plt.figure(figsize=(figures.WIDTH, 0.6))
    figure.text(0.5, 0.5, "no outlines: maps are shown, not scored", ha="center", va="center")
    return figure


# ---------------------------------------------------------------------- best, median and worst
def sheet(run: AnyRun, found: Cases, heat: np.ndarray) -> Figure:
    """Lay out cases at equal steps from best to worst, by the share of the map inside the outline.

    Without outlines, at equal steps of the table.
    """
    energy, names = np.zeros(len(found.table)), found.table[cohort.IMAGE_ID]
    if found.outlined:
        localisation = run.table("localisation")
        energy = evaluation.by_method(localisation)[SHOWN]["energy"].to_numpy()
    steps = np.linspace(0, len(energy) - 1, min(CASES, len(energy))).astype(int)
    chosen = np.argsort(-energy, kind="stable")[steps]
    titles = [f"energy {energy[i]:.3f}" if found.outlined else names[i] for i in chosen]
    outlines = found.masks[chosen] if found.outlined else [None] * len(chosen)
    pixels = found.cache.images[found.cache.rows(names.iloc[chosen])]
    return figures.heatmap_sheet(pixels, heat[chosen], outlines, titles)


def peaks(scores: pd.DataFrame) -> dict[str, float]:
    """Return how often the peak hits: of the shown model, and of the centre prior."""
    pointing = scores[scores["measure"] == "pointing"]
    by_method = evaluation.by_method(pointing) if len(pointing) else {}
    names = {"pointing": SHOWN, "centre_prior": CENTRE}
    return {k: float(by_method[m]["value"].iloc[0]) for k, m in names.items() if m in by_method}


def read(scores: pd.DataFrame, found: Cases) -> str:
    """Say how often the peak of the map lies on the lesion, beside a map that sees nothing."""
    said = f"{found.findings} of {found.tested} test images show what is asked for"
    if not found.outlined:
        return f"**Reading.** {said}. None has an outline: the maps below are shown, not scored."
    hit = peaks(scores)
    return (
        f"**Reading.** {said}, {len(found.masks)} with an outline. The peak of the map lies in or "
        f"next to the lesion in {hit['pointing']:.3f} of them; the centre prior reaches "
        f"{hit['centre_prior']:.3f} without looking."
    )
