"""Protects every chart on awkward input: nothing leaves the page, its colours can be told apart.

Long names, twenty rows, one row, intervals that are not there; readers who see no red and green;
another process with another order of sets.
"""

import itertools
import os
import subprocess
import sys

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from bonelib import cohort, evaluation, figures
from bonelib.figures import names, rows, style

pytestmark = pytest.mark.usefixtures("clean_canvas")

Method = evaluation.Method
LONG = "vit_gigantic_patch14_with_registers_and_a_name_without_end.hospital_b_2026_07"
METHODS = [
    *(Method(strategy=head, sees="metadata") for head in ("probe", "rbf_svm", "xgboost", "mlp")),
    *(Method(strategy="probe", sees=seen) for seen in ("file", "thumbnail", "text")),
    Method("scratch", "probe", detail="efficientnet_lite0"),
    *(Method(start, "full") for start in ("scratch", "imagenet", "captions")),
    *(Method(start, "lora") for start in ("imagenet", "captions")),
    Method("vit_base_patch32_clip_224.openai", "probe"),
    Method("vit_small_patch14_dinov2.lvd142m", "probe"),
    *(Method("captions", "prompt", detail=style) for style in ("label", "signs", "entities")),
    Method(LONG, "full", "image+metadata", detail="sixteen shots of each class"),
    Method(sees="none", detail="centre prior"),
]


def scores(count=20, *, gap=3, metric="AUROC"):
    """Rows of that many methods; every ``gap``-th has no interval, one no value."""
    table = pd.DataFrame([method.columns() for method in METHODS[:count]])
    value = np.linspace(0.05, 0.98, count)
    half = np.where(np.arange(count) % gap == gap - 1, np.nan, 0.04)
    table = table.assign(metric=metric, value=value, low=value - half, high=value + half)
    table.loc[table.index[1:2], ["value", "low", "high"]] = np.nan
    return table.assign(n=12345, groups=9876, group_kind="image-level groups")


def predicted(methods=METHODS[8:12], n=160, task="tumor"):
    known, rng = cohort.task(task), np.random.default_rng(0)
    truth = rng.integers(len(known.classes), size=n)
    view = pd.DataFrame({"image_id": [f"i{k}" for k in range(n)], "split": "test"})
    view = view.assign(patient=[f"p{k // 2}" for k in range(n)])
    view[known.column] = np.array(known.classes)[truth]
    tables = []
    for method in methods:
        logits = rng.normal(size=(n, len(known.classes)))
        logits[np.arange(n), truth] += 1
        tables.append(evaluation.predictions(view, logits, task=task, seed=0, method=method))
    return pd.concat(tables, ignore_index=True)


def subgroups(values=20):
    table = pd.DataFrame({"site": [f"{'very ' * k}long bone" for k in range(values)]})
    table = table.assign(metric="AUROC", value=0.8, low=0.7, high=0.9, n=40, positives=20)
    table = table.assign(fewest=12, groups=30, group_kind="patient", note="")
    table.loc[table.index[1::2], ["value", "low", "high"]] = np.nan
    table.loc[table.index[1::2], "note"] = "too few"
    return table


def measures(count):
    parts = [scores(count).assign(measure=m) for m in ("pointing", "pixel AUROC", "pixel AP")]
    return pd.concat(parts, ignore_index=True)


def labels(methods):
    table = scores(methods).assign(task="tumor", repeats=1)
    sizes = ((4, 0.01), (400, 1.0))
    parts = [table.assign(images=images, share=share) for images, share in sizes]
    return pd.concat(parts, ignore_index=True)


def gains(count):
    table = pd.DataFrame(
        {"recipe": [f"a recipe of {'many ' * (k % 6)}words {k}" for k in range(count)]}
    )
    table = table.assign(
        metric="AUROC", gain=0.1, gain_low=np.nan, gain_high=np.nan, n=99, groups=9
    )
    table = table.assign(group_kind="patient", folds=5, in_captions=True)
    parts = [table.assign(task=t, share=s) for t in ("tumor", "fracture") for s in (1.0, 0.1)]
    return pd.concat(parts, ignore_index=True)


def findings(count):
    table = pd.DataFrame({"what": [f"column_{'of_a_file_' * (k % 5)}{k}" for k in range(count)]})
    table = table.assign(value=0.6, low=0.55, high=0.65, n=1600, check="metadata")
    return (
        table.assign(level=["red", "amber", "green"] * 20)[:0]
        if not count
        else table.assign(level=[("red", "amber", "green")[k % 3] for k in range(count)])
    )


def leaks(count):
    table = pd.DataFrame({"type": [f"KIND_{'OF_NUMBER_' * (k % 4)}{k}" for k in range(count)]})
    table = table.assign(n=1234567, recall=1.0, recall_low=np.nan, recall_high=np.nan)
    return table.assign(published_recall=np.nan, **({} if count > 1 else {"recall_low": 0.9}))


def spread(count):
    kinds = [f"{'long ' * (k % 5)}style {k}" for k in range(count)]
    return pd.DataFrame({"detail": kinds * 2, "wording": "x", "AUROC": 0.7, "n": 10})


def wordings(count):
    report = pd.DataFrame({"kind": [f"{'long ' * (k % 4)}kind {k}" for k in range(count)]})
    report = report.assign(language="fr", metric="AUROC", ensemble=0.7, low=np.nan, high=np.nan)
    report = report.assign(variants=5, spread=0.1, spread_low=np.nan, spread_high=np.nan, n=9)
    values = report.assign(value=0.6)
    return report, values


def embedded(rows_each):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"site": [(f"bone {k % 20} of the {'very ' * 5}foot",) for k in range(60)]}
    )
    table["center"] = [None if k % 7 == 0 else "1" for k in range(60)]
    return figures.plot_embedding(
        rng.normal(size=(rows_each, 8)), table[:rows_each], ["site", "center"]
    )


CHARTS = {
    "forest": lambda k: figures.plot_forest(scores(k)),
    "forest by group": lambda k: figures.plot_forest(
        scores(k).assign(stage="a_stage"), group="stage"
    ),
    "tasks": lambda k: figures.plot_tasks(scores(k).assign(task="tumor", share=1)),
    "localisation": lambda k: figures.plot_localisation(measures(min(k, 8))),
    "subgroups": lambda k: figures.plot_subgroups(subgroups(k), gaps={"site": 0.03}),
    "gains": lambda k: figures.plot_gains(gains(k)),
    "findings": lambda k: figures.plot_findings(findings(k), limits=(0.6, 0.8)),
    "leaks": lambda k: figures.plot_leaks(leaks(k), published="a publication of 2024"),
    "spread": lambda k: figures.plot_spread(spread(k)),
    "wordings": lambda k: figures.plot_wordings(*wordings(k), reads="en"),
    "efficiency": lambda k: (
        figures.plot_efficiency(labels(11).tail(8))
        if k > 1
        else figures.plot_efficiency(labels(11).tail(1))
    ),
    "label shares": lambda k: figures.plot_label_shares(labels(20), strategies=("full", "lora")),
    "roc": lambda k: figures.plot_roc(predicted(METHODS[:: 20 // k]), task="tumor", draws=9),
    "precision": lambda k: figures.plot_precision_recall(
        predicted(METHODS[-2:] if k == 1 else METHODS[8:12]), task="tumor", draws=9
    ),
    "decision": lambda k: figures.plot_decision(predicted(METHODS[-2:]), task="tumor", draws=9),
    "evidence": lambda k: figures.plot_evidence(predicted(METHODS[-2:-1]), task="tumor", draws=9),
    "embedding": lambda k: embedded(60 if k > 1 else 5),
}


def figure_of(chart, count):
    drawn = CHARTS[chart](count)
    figure = getattr(drawn, "figure", None) or drawn
    figures.synthetic_note(figure)
    figure.set_dpi(200)
    for _ in range(2):  # as ``run.save_figure``
        figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("count", [20, 1])
@pytest.mark.parametrize("chart", CHARTS)
def test_no_text_leaves_a_figure_of_the_texts_width(chart, count):
    figure = figure_of(chart, count)
    width, height = figure.get_size_inches()
    assert width <= figures.WIDTH + 1e-6 and height < 9.7, "a page"
    box = figure.get_tightbbox()
    assert min(box.x0, box.y0) > -0.02, box.extents
    assert box.x1 < width + 0.02 and box.y1 < height + 0.02, (box.extents, width, height)
    assert "synthetic radiographs" in figure.get_supxlabel().replace("\n", " ")


def test_names_and_numbers_of_a_chart_of_intervals_do_not_overlap():
    ax = figures.plot_forest(scores())
    ax.figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in ax.get_yticklabels() if t.get_text()]
    for above, below in itertools.pairwise(sorted(boxes, key=lambda box: -box.y0)):
        assert above.y0 > below.y1 - 3, "a line of pixels or two"


# ---------------------------------------------------------------------- headings
def test_many_methods_stand_below_where_their_weights_come_from():
    table = scores()
    ax = figures.plot_forest(table)
    headings = [t.get_text() for t in ax.texts if t.get_weight() == "bold"]
    assert headings == list(dict.fromkeys(names.origins(table))) and len(headings) == 6
    shown = [t.get_text() for t in ax.get_yticklabels()]
    assert len(shown) == 26 and shown.count("") == 6
    few = figures.plot_forest(table[:8])
    assert len(few.get_yticklabels()) == 8


def test_a_group_says_on_how_many_images_it_stands_where_they_differ():
    table = scores(6).assign(stage=["one"] * 3 + ["two_b"] * 3)
    table.loc[3:, "n"] = 80
    ax = figures.plot_forest(table, group="stage")
    headings = [t.get_text() for t in ax.texts if t.get_weight() == "bold"]
    assert headings[0].startswith("one (n = 12,345 images")
    assert headings[1].startswith("two b (n = 80 images")


def test_subgroups_without_a_number_are_counted_by_their_reason():
    ax = figures.plot_subgroups(subgroups(), gaps={"site": 0.034})
    (right,) = ax.child_axes
    told = [t.get_text() for t in right.get_yticklabels()]
    assert told.count(".800 [.700, .900]; n = 40, 20 positive") == 10
    assert told[-1] == "too few; n = 400" and ax.get_yticklabels()[-1].get_text() == "10 not scored"
    assert ax.texts[0].get_text() == "site: test that groups differ, p = .034"


def test_a_p_that_rounds_to_none_is_below_the_last_decimal_and_fewest_is_no_subgroup():
    assert [figures.p_value(p) for p in (1, 0.034, 0.001, 0.0004, 0)] == [
        "p = 1.000", "p = .034", "p = .001", "p < .001", "p < .001"
    ]  # fmt: skip
    ax = figures.plot_subgroups(subgroups(), gaps={"site": 1e-9})
    said = [text for t in ax.texts if (text := t.get_text())]
    assert said == ["site: test that groups differ, p < .001"]


def test_a_row_holds_several_intervals_each_with_its_look():
    _, ax = plt.subplots()
    ends = np.array([[0.5, 0.4, 0.6], [0.7, np.nan, np.nan]])
    looks = dict(shade=["red", "blue"], marker=["o", "D"], hollow=[True, False])
    rows.draw_rows(
        ax, [rows.Row("heading"), rows.Row("name", ends, "text", **looks)], offsets=(0, 0.2)
    )
    dots = [line for line in ax.lines if line.get_marker() in ("o", "D")]
    assert [d.get_xdata()[0] for d in dots] == [0.5, 0.7]
    assert [d.get_ydata()[0] for d in dots] == [1, 1.2]
    assert [d.get_markerfacecolor() for d in dots] == ["white", "blue"]


# ---------------------------------------------------------------------- notes
def test_a_fact_that_two_charts_state_is_written_once():
    figure, _ = plt.subplots(1, 2)
    figures.note(figure, "n = 5 images", "dashed: chance; bar: median")
    figures.note(figure, "dashed: chance", "", "n = 6 images")
    assert figure.get_supxlabel() == "n = 5 images; dashed: chance; bar: median; n = 6 images"


@pytest.mark.parametrize("chart", ["forest", "spread", "findings", "gains", "subgroups"])
def test_no_axis_label_carries_the_note(chart):
    for ax in figure_of(chart, 20).axes:
        assert "interval" not in ax.get_xlabel() and "n = " not in ax.get_xlabel()


# ---------------------------------------------------------------------- curves and maps
def test_curves_have_a_band_where_few_methods_are_drawn():
    table = predicted(METHODS[8:10])
    ax = figures.plot_roc(table, task="tumor", draws=20)
    assert len(ax.collections) == 2
    one = next(iter(evaluation.by_method(table).values()))
    band = evaluation.roc(one, task="tumor", draws=20)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), band["value"])
    edge = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert edge.max() == pytest.approx(band["high"].max())
    many = figures.plot_roc(predicted(METHODS[:6]), task="tumor", draws=5)
    assert not many.collections


def test_the_dashed_line_of_precision_is_the_share_of_the_positive_class():
    table = predicted(METHODS[8:9], task="malignancy")
    ax = figures.plot_precision_recall(table, task="malignancy", draws=5)
    share = (table["label"] == "malignant").mean()
    assert ax.lines[-1].get_ydata()[0] == pytest.approx(share)
    with pytest.raises(ValueError, match="positive"):
        figures.plot_evidence(predicted(task="entity"), task="entity")


def test_net_benefit_lies_beside_referring_all_and_none():
    table = predicted(METHODS[8:9])
    ax = figures.plot_decision(table, task="tumor", draws=5)
    curve, everyone, none = ax.lines
    share = (table["label"] == "tumor").mean()
    x = everyone.get_xdata()
    np.testing.assert_allclose(everyone.get_ydata(), share - (1 - share) * x / (1 - x))
    assert set(none.get_ydata()) == {0} and len(curve.get_xdata()) == len(x)


def test_an_embedding_keeps_neighbours_and_is_the_same_for_the_same_seed():
    rng = np.random.default_rng(0)
    features = np.vstack([rng.normal(9 * k, 1, (30, 16)) for k in range(3)])
    table = pd.DataFrame({"site": [("hip",)] * 30 + [("knee",)] * 30 + [()] * 30})
    drawn = [figures.plot_embedding(features, table, "site", seed=3) for _ in range(2)]
    dots = [np.vstack([line.get_xydata() for line in f.axes[0].lines]) for f in drawn]
    np.testing.assert_array_equal(*dots)
    middle = [dots[0][k : k + 30].mean(0) for k in (0, 30, 60)]
    widest = max(
        np.linalg.norm(dots[0][k : k + 30] - dots[0][k : k + 30].mean(0), axis=1).max()
        for k in (0, 30, 60)
    )
    apart = min(np.linalg.norm(a - b) for a, b in itertools.combinations(middle, 2))
    assert apart > widest
    told = [t.get_text() for t in drawn[0].axes[0].get_legend().get_texts()]
    assert told == ["hip (30)", "knee (30)", "other or none (30)"]
    for bad in (features[:10], np.where(features > 20, np.nan, features)):
        with pytest.raises(ValueError, match="finite row for each image"):
            figures.plot_embedding(bad, table, "site")


# ---------------------------------------------------------------------- colours
# Machado, Oliveira & Fernandes 2009, IEEE TVCG 15:1291: full deuteranopia and protanopia, on
# linear light.
SIGHTS = {
    "all cones": np.eye(3),
    "deuteranopia": [
        [0.3673, 0.8606, -0.2280],
        [0.2801, 0.6725, 0.0474],
        [-0.0118, 0.0429, 0.9689],
    ],
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
}
LIGHT = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
         [0.0193339, 0.1191920, 0.9503041]]  # fmt: skip


def lab(colour, sight):
    """CIE L*a*b* (D65) of a colour as that sight has it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(SIGHTS[sight]) @ linear, 0, 1)
    xyz = np.array(LIGHT) @ seen / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_of_one_figure_are_told_apart(sight):
    """CIE76; 2.3 is just noticeable, and lines need several times as much."""
    methods = sorted({names.colour(method) for method in METHODS} | {figures.INK})
    assert len(methods) >= 10
    cycle = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    for palette in (methods, style.CLASSES, cycle):
        for first, second in itertools.combinations(palette, 2):
            distance = np.linalg.norm(lab(first, sight) - lab(second, sight))
            assert distance > 12, (first, second, distance)
    white = np.linalg.norm(lab("white", sight) - lab("black", sight))
    assert white == pytest.approx(100, abs=0.1), "the check itself"


# ---------------------------------------------------------------------- the same file
DRAW = """
import hashlib, io, sys
sys.path.insert(0, {folder!r})
import test_figures_awkward as here
from bonelib import figures
figures.use_thesis_style()
for chart in {charts!r}:
    file = io.BytesIO()
    here.figure_of(chart, 20).savefig(file, format="pdf", metadata=dict(CreationDate=None))
    print(chart, hashlib.sha256(file.getvalue()).hexdigest())
"""


def test_a_figure_is_the_same_file_in_another_process_with_other_hashes_and_threads():
    charts = ["forest", "roc", "spread", "findings", "embedding"]
    code = DRAW.format(folder=os.path.dirname(__file__), charts=charts)
    seen, running = set(), []
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for seed, threads in (("1", "1"), ("2", "2")):  # side by side
        variables = os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads}
        running.append(subprocess.Popen([sys.executable, "-c", code], env=variables, **pipes))
    for process in running:
        said, wrong = process.communicate()
        assert process.returncode == 0, wrong
        seen.add(said)
    assert len(seen) == 1 and seen.pop().count("\n") == len(charts)


def test_a_wording_that_differs_in_its_last_bits_is_the_same_dot():
    """One pair of images that changes places moves an AUROC by 1 / (positives x negatives)."""
    table, files = spread(3), []
    for moved in (0, 1 / (160 * 160)):
        ax = figures.plot_spread(table.assign(AUROC=[0.7123 + moved, 0.8, 0.6, 0.71, 0.82, 0.63]))
        files.append([line.get_xdata() for line in ax.lines])
    for first, second in zip(*files, strict=True):
        np.testing.assert_array_equal(first, second)
