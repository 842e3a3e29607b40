"""Every strategy on frozen features beside the loop that is published, and the grid's CPU time.

    python benchmarks/strategies.py [--quick] [STRATEGY ...]

The grid: 3,746 rows x 1,280 features of two classes, 5 outer folds x 10 amounts of labels (1, 2, 4,
8, 16 shots, and 1, 5, 10, 25, 100 %) x 3 seeds, and in each cell the nested choice (8 points x 3
inner folds, then the fit on all rows) and the logits of the held-out fold. The cells of one fold
and seed are measured and counted 15 times: those of other folds and seeds have the same sizes.

Loops, with what they keep of their authors' codes: ``published_loops.py`` (closed forms and
libraries) and ``one_fit.py`` (gradient steps). Of the former's three inner folds the first is
measured, with the fit on all rows: 9 of 25 fits, counted 25/9 times. Of the latter's 24 inner fits,
all of the same number of steps, one is measured and counted 24 times. Fusions and CoOp have no
loop. With --quick the fold has 600 rows x 256 features, and all three inner folds are measured.
CPU seconds of one thread.
"""

import sys
import time

import numpy as np
import one_fit
import torch
from published_loops import LOOPS

from bonelib import adaptation
from bonelib.adaptation import shots, strategies
from bonelib.adaptation.support import Support
from bonelib.evaluation.methods import HEADS

ROWS, COLUMNS, FOLDS, SEEDS = 3746, 1280, 5, 3
GRID = ("class_mean", "ss_text", "tip_adapter", "knn", "probe", "lp_plus_plus", "gda", "linear_svm")
GRID += ("rbf_svm", "taskres", "clap", "tip_adapter_f")  # twelve heads of a study on all cells
CLINICAL = 10  # columns at the end that the fusions take for clinical ones
WORDS = ["normal radiograph", "bone tumor"]


def cohort(rows: int, columns: int) -> Support:
    """Features of 40 hidden directions behind a ReLU, as pooled features are; texts near means."""
    draw = np.random.default_rng(0)
    y = draw.integers(0, 2, rows)
    hidden = draw.normal(size=(rows, 40))
    hidden[:, 0] += y
    mixed = hidden @ draw.normal(size=(40, columns)) + 0.5 * draw.normal(size=(rows, columns))
    x = (np.maximum(mixed, 0) * draw.uniform(0.1, 3, columns)).astype(np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    texts = np.stack([unit[y == c].mean(axis=0) for c in (0, 1)]) + 0.01 * draw.normal(
        size=(2, columns)
    )
    texts = (texts / np.linalg.norm(texts, axis=1, keepdims=True)).astype(np.float32)
    return Support(x, y, np.arange(rows), 2, texts=texts, scale=100.0)


def seconds(call, *arguments) -> float:
    """CPU seconds of a call."""
    started = time.process_time()
    call(*arguments)
    return time.process_time() - started


def bound(name: str, cell: Support) -> adaptation.Strategy:
    """The strategy of a name, with what it needs beside the features bound to it."""
    strategy, needs = strategies.strategy(name), strategies.table().at[name, "text"]
    if needs == "clinical":
        return strategy(CLINICAL)
    if needs == "bank":
        return strategy(one_fit.bank(cell.features.shape[1]))
    if needs == "entities":
        return strategy(one_fit.entities(cell.labels))
    if needs == "tower":
        from bonelib import encoders, models

        image = encoders.image("timm:test_resnet", weights="random", size=32)
        text = encoders.text("small", cached=False)
        return strategy(models.DualEncoder(image, text, dim=cell.features.shape[1]), WORDS)
    return strategy


def ours(name: str, cells: list[Support], new: np.ndarray) -> float:
    """Seconds of the nested choice in all cells, and of the logits of new rows."""
    points = strategies.points(name)
    learners = [bound(name, cell) for cell in cells]

    def run() -> None:
        for learn, cell in zip(learners, cells, strict=True):
            adaptation.fit(learn, cell, points).logits(new)

    return seconds(run)


def published(name: str, cells: list[Support], *, quick: bool) -> float:
    """Seconds of the loop for the same choice; NaN where there is none."""
    points = strategies.points(name)
    if name in LOOPS:
        held = [cell.folds if quick else cell.folds[:1] for cell in cells]
        found = sum(seconds(LOOPS[name], *given, points) for given in zip(cells, held, strict=True))
        whole = (3 * len(points) + 1) / (len(points) + 1)
        return found if quick or len(points) == 1 else found * whole
    if name not in one_fit.NAMES:
        return float("nan")
    found = 0.0
    for cell in cells:
        found += seconds(one_fit.fit, name, cell, points[-1])
        if len(cell.folds):
            part = cell.rows(~cell.folds[0])
            fits = len(cell.folds) * len(points)
            found += fits * seconds(one_fit.fit, name, part, points[-1])
    return found


def main(arguments: list[str]) -> int:
    """Measure, print a row a strategy and the sums; 0 if the grid's targets are met."""
    torch.set_num_threads(1)
    quick = "--quick" in arguments
    named = [word for word in arguments if not word.startswith("-")]
    support = cohort(600, 256) if quick else cohort(ROWS, COLUMNS)
    train = np.arange(len(support.labels)) % FOLDS != 0
    whole, new = support.rows(train), support.features[~train]
    drawn = shots.draw(whole.labels, whole.groups, classes=2, seeds=(0,))
    # As in a study: a cell's folds and axes are made once and serve every strategy.
    cells = [whole.rows(mask) for mask in drawn.rows]
    shared = sum(seconds(getattr, cell, "folds") for cell in cells)
    big = [cell for cell in cells if len(cell.labels) >= 1.5 * cell.features.shape[1]]
    shared += sum(seconds(getattr, cell, "axes") for cell in big)
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1).step()  # its imports take seconds
    print(f"{'strategy':<14}{'ours, s':>10}{'loop, s':>10}{'ratio':>8}   one fold and seed")
    found = {}
    for name in named or HEADS:
        # CoOp reads a text tower in each step: 16 shots, as its paper has them
        seen = cells[4:5] if name == "coop" else cells
        own, other = ours(name, seen, new), published(name, seen, quick=quick)
        found[name] = own, other
        beside = f"{other:>10.2f}{other / own:>8.1f}" if other == other else f"{'-':>10}{'-':>8}"
        print(f"{name:<14}{own:>10.2f}{beside}", flush=True)
    grid = [found[name] for name in GRID if name in found]
    own, other = (sum(column) for column in zip(*grid, strict=True)) if grid else (0.0, 0.0)
    own, times = own + shared, FOLDS * SEEDS
    print(
        f"grid of {len(grid)} strategies, {times} folds and seeds: {own * times / 60:.1f} CPU min "
        f"(folds and axes {shared * times:.0f} s) beside {other * times / 60:.1f}, "
        f"x{other / own:.1f}"
    )
    partial = quick or len(grid) < len(GRID)
    return 0 if partial or (own * times <= 600 and other >= 20 * own) else 1


if __name__ == "__main__":
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    warnings.simplefilter("ignore", ConvergenceWarning)
    sys.exit(main(sys.argv[1:]))
