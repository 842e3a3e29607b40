"""How far the drawn radiographs of the synthetic cohort are from real ones, as notebook 01 asks.

A synthetic folder and its grouped table come in; tables, figures and sentences go out: marginals
beside the real table, likeness to real films, and how hard the cohort is. Of any other data set
nothing is asked: tables are empty, figures None, and a sentence says so.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from bonelib import adaptation, cohort, datasets, encoders, evaluation, figures, images, phantom
from bonelib.experiments.context import AnyRun, Context, decoded, keep

REAL = "FracAtlas"  # the public films that drawn ones are set beside
TOWER = "packaged:efficientnet_lite0"
FEATURED = 300  # images of each set whose frozen features are compared
LIMIT = 0.75  # AUROC up to which a trivial reader may come
_NOT_DRAWN = "**Reading.** Only the synthetic bone tumours are asked this."


# ---------------------------------------------------------------------- marginals
def marginals(context: Context, run: AnyRun, root: Path) -> dict[str, pd.DataFrame]:
    """Set the marginals of the synthetic folder beside those of the real table.

    Returns:
        ``counts, ages, areas, tests`` of ``phantom.agreement.compare``.
    """
    if not context.like_btxrd:
        return dict.fromkeys(("counts", "ages", "areas", "tests"), pd.DataFrame())
    beside = phantom.agreement.compare(root)
    counts = keep(run, "marginals", beside["counts"])
    return beside | {"counts": counts, "tests": keep(run, "marginal_tests", beside["tests"])}


def draw_marginals(beside: Mapping[str, pd.DataFrame]) -> plt.Figure | None:
    """Draw sites, entities, centres, lesion sizes and ages beside the real ones."""
    if beside["tests"].empty:
        return None
    counts = beside["counts"].groupby("marginal", sort=False)
    figure, axes = plt.subplots(3, 2, figsize=(figures.WIDTH, 7.4), layout="constrained")
    for axis, (name, part) in zip(axes.flat[:3], counts, strict=True):
        figures.plot_shares(part, "synthetic", "real", ax=axis).set_title(name, loc="left")
    areas = {"synthetic": beside["areas"]["synthetic"], "real quantiles": beside["areas"]["real"]}
    figures.plot_cumulative(areas, known=("real quantiles",), log=True, ax=axes[1, 1])
    axes[1, 1].set(xlabel="lesion box / image")
    for axis, (label, part) in zip(axes[2], beside["ages"].groupby("label"), strict=True):
        samples = {k: part.loc[part["source"] == k, "age"] for k in ("synthetic", "real")}
        figures.plot_cumulative(samples, ax=axis).set(xlabel=f"age in years, {label}")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper right", ncols=2, handlelength=1)
    return figure


def read_marginals(beside: Mapping[str, pd.DataFrame]) -> str:
    """Name the marginal that differs most from the real table."""
    tests = beside["tests"]
    if tests.empty:
        return _NOT_DRAWN
    worst = tests.sort_values("p").iloc[0]
    return (
        f"**Reading.** Of {len(tests)} marginals the least likely is *{worst['marginal']}* "
        f"(p = {worst['p']:.3f})."
    )


# ---------------------------------------------------------------------- likeness
def beside_real(
    context: Context, table: pd.DataFrame, plan: Mapping[str, Any]
) -> dict[str, images.Cache]:
    """Decode one image a patient and as many real films alike, squashed to one size.

    Returns:
        A cache for the synthetic images and one for the real ones; nothing where the cohort is not
        synthetic or ``BONELIB_DATA`` holds no FracAtlas.
    """
    folder = Path(os.environ.get("BONELIB_DATA", "")) / "fracatlas"
    if not (context.like_btxrd and "BONELIB_DATA" in os.environ and folder.is_dir()):
        return {}
    tables = {
        "synthetic": table.drop_duplicates(cohort.GROUP),
        REAL: datasets.read("fracatlas", folder),
    }
    chosen = {k: t.sample(min(plan["compared"], len(t)), random_state=0) for k, t in tables.items()}
    return {k: decoded(rows, size=plan["size"], fit="squash") for k, rows in chosen.items()}


def likeness(run: AnyRun, caches: Mapping[str, images.Cache]) -> pd.DataFrame:
    """Measure grey levels, spectra and edges of both sets; see ``phantom.realism.compare``."""
    if not caches:
        return pd.DataFrame()
    if run.finished:
        return run.table("realism")
    stacks = [np.asarray(cache.images) for cache in caches.values()]
    return keep(run, "realism", pd.DataFrame(phantom.realism.compare(*stacks)))


def draw_likeness(caches: Mapping[str, images.Cache]) -> plt.Figure | None:
    """Draw grey levels, power spectra and edge densities of both sets."""
    if not caches:
        return None
    stacks = {name: np.asarray(cache.images) for name, cache in caches.items()}
    figure, axes = plt.subplots(1, 3, figsize=(figures.WIDTH, 2.5), layout="constrained")
    for shade, stack in zip(("C0", figures.INK), stacks.values(), strict=True):
        grey = phantom.realism.histogram(stack)
        axes[0].stairs(grey, np.linspace(0, 256, 33), color=shade, lw=1.3)
    axes[0].set(xlabel="grey level", ylabel="share of pixels", xlim=(0, 256))
    spectra = {name: phantom.realism.spectrum(stack) for name, stack in stacks.items()}
    frequencies, power = spectra[REAL][0], {name: rows for name, (_, rows) in spectra.items()}
    figures.plot_bands(frequencies, power, log=True, legend=False, ax=axes[1])
    axes[1].set(xlabel="cycles a pixel", ylabel="power")
    edges = {name: phantom.realism.edge_density(stack) for name, stack in stacks.items()}
    figures.plot_cumulative(edges, legend=False, ax=axes[2]).set(xlabel="edge density")
    handles = [f"{name} (n = {len(stack):,})" for name, stack in stacks.items()]
    figure.legend(axes[2].lines, handles, loc="outside upper right", ncols=2)
    return figure


def told_apart(context: Context, run: AnyRun, caches: Mapping[str, images.Cache]) -> pd.DataFrame:
    """Ask linear classifiers to tell drawn from real images.

    Returns:
        ``seen`` (what a classifier looks at) and its ``AUROC``: .5 if it can't tell, 1 if it
        always can.
    """
    if not caches:
        return pd.DataFrame()
    if run.finished:
        return run.table("told_apart")
    auroc, stacks = phantom.realism.source_auroc, [np.asarray(c.images) for c in caches.values()]
    patches, owners = zip(*map(phantom.realism.patch_features, stacks), strict=True)
    tower = encoders.image(TOWER, size=next(iter(caches.values())).size)
    frozen = [context.features(tower, cache, cache.ids[:FEATURED]) for cache in caches.values()]
    # Threads that wait for each other in such small products took nine tenths of the time.
    with threadpool_limits(1, "blas"):
        areas = {
            "8 x 8 patches: pixels and grain": auroc(*patches, groups=owners),
            "32 x 32 thumbnails": auroc(*map(phantom.realism.thumbnails, stacks)),
            f"frozen ImageNet features, {len(frozen[0])} images each": auroc(*frozen),
        }
    table = pd.DataFrame({"seen": list(areas), "AUROC": list(areas.values())})
    return keep(run, "told_apart", table)


def read_likeness(context: Context, measured: pd.DataFrame, told: pd.DataFrame) -> str:
    """Say how alike the spectra are, and how easily drawn images are told from real ones."""
    if not context.like_btxrd:
        return _NOT_DRAWN
    if measured.empty:
        return "**Reading.** `BONELIB_DATA` holds no `fracatlas`: likeness is not measured."
    slopes = measured.set_index("measure").loc["slope of the power spectrum"]
    best = told.sort_values("AUROC").iloc[-1]
    return (
        f"**Reading.** The spectra fall by {slopes['synthetic']:.2f} (synthetic) and "
        f"{slopes['real']:.2f} (real). A linear classifier tells the two apart best by *"
        f"{best['seen']}*: AUROC {best['AUROC']:.3f}."
    )


# ---------------------------------------------------------------------- difficulty
def difficulty(
    context: Context, run: AnyRun, table: pd.DataFrame, plan: Mapping[str, Any]
) -> pd.DataFrame:
    """Score what metadata and a blurred picture tell of tumour or normal, in the grouped folds.

    Returns:
        ``method, value, low, high, n, limit`` and whether the limit is ``kept``.
    """
    if not context.like_btxrd:
        return pd.DataFrame()
    if run.finished:
        return run.table("difficulty")
    known = cohort.task("tumor").encode(table["tumor"])
    held = np.stack([table["fold"] == k for k in range(plan["folds"])])
    labels, groups = np.where(held, -1, known), table[cohort.GROUP].to_numpy()
    small = decoded(table, size=32, fit="squash")
    seen = {
        "metadata, regions only": cohort.metadata(table).to_numpy(),
        "32 x 32 pixels": small.images[small.rows(table[cohort.IMAGE_ID])],
    }
    rows, view, strengths = [], table.assign(split="val"), tuple(plan["strengths"])
    for name, x in seen.items():
        flat = x.reshape(len(x), -1)
        logits = adaptation.cross_fit(flat, labels, held, groups, strengths=strengths)
        scored = evaluation.predictions(view, logits, task="tumor", seed=context.seed)
        rows.append(evaluation.metrics(scored, task="tumor", only=("AUROC",)).assign(method=name))
    found = pd.concat(rows)[["method", "value", "low", "high", "n"]].assign(limit=LIMIT)
    return keep(run, "difficulty", found.assign(kept=found["value"] <= found["limit"]))


def read_difficulty(found: pd.DataFrame) -> str:
    """Say what each trivial reader reaches, and whether it stays below the limit."""
    if found.empty:
        return _NOT_DRAWN
    said = "; ".join(
        f"*{row.method}* {figures.with_interval(row.value, row.low, row.high)}"
        for row in found.itertuples()
    )
    held = "both stay" if found["kept"].all() else "not all stay"
    return f"**Reading.** {said}, of {found['n'].max():,} images; {held} below {LIMIT}."
