"""Protects the figures: they show the numbers of the table, fit the page, and say what they are."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from bonelib import cohort, evaluation, figures

pytestmark = pytest.mark.usefixtures("clean_canvas")

Method = evaluation.Method
METADATA = Method(strategy="probe", sees="metadata")
LITE0 = Method(start="efficientnet_lite0", strategy="probe")
IMAGENET, CAPTIONS = (Method(start=start, strategy="full") for start in ("imagenet", "captions"))


def scored(task="tumor", n=120, strength=1.0, seed=0, method=LITE0):
    known, rng = cohort.task(task), np.random.default_rng(seed)
    truth = rng.integers(len(known.classes), size=n)
    logits = rng.normal(size=(n, len(known.classes)))
    logits[np.arange(n), truth] += strength
    view = pd.DataFrame(
        {
            "image_id": [f"i{k:03d}" for k in range(n)],
            "patient": [f"p{k // 2}" for k in range(n)],
            "split": "val",
            known.column: np.array(known.classes)[truth],
        }
    )
    return evaluation.predictions(view, logits, task=task, seed=seed, method=method)


def texts(figure):
    figure.canvas.draw()
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_visible()]


def noted(figure):
    """What stands below a figure."""
    return figure.get_supxlabel().replace("\n", " ")


def inside(figure):
    """Nothing that is drawn is cut off by the edge of the figure (inches)."""
    figure.canvas.draw()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) > -0.03 and box.x1 < width + 0.03 and box.y1 < height + 0.03, box
    assert width <= figures.WIDTH + 1e-6


def test_forest_prints_the_values_it_draws_and_the_missing_row():
    methods = [METADATA, LITE0, CAPTIONS]
    names = ["metadata only", "Lite0, ImageNet, frozen", "captions, fine-tuned"]
    tables = [scored(strength=s) for s in (0.3, 1, 2)]
    rows = [
        evaluation.metrics(t, task="tumor", draws=50).assign(**m.columns())
        for m, t in zip(methods, tables, strict=True)
    ]
    clip = Method(start="vit_base_patch32_clip_224.openai", strategy="probe")
    missing = pd.DataFrame([clip.columns() | {"status": figures.UNAVAILABLE}])
    ax = figures.plot_forest(pd.concat([*rows, missing], ignore_index=True))
    seen = texts(ax.figure)
    first = rows[0].set_index("metric").loc["AUROC"]
    assert figures.with_interval(first["value"], first["low"], first["high"]) in seen
    assert (
        "weights not available" in seen
        and [t.get_text() for t in ax.get_yticklabels()][:3] == names
    )
    assert ax.get_xlabel() == "AUROC", "a label names its axis alone"
    assert "n = 120 images of 60 patients" in noted(ax.figure)
    drawn = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
    assert drawn[0] == pytest.approx(first["value"])
    inside(ax.figure)


def test_roc_legend_carries_the_metric_of_the_table():
    for task in ("tumor", "malignancy", "entity"):
        table = scored(task, n=200, strength=1.5)
        ax = figures.plot_roc(table, task=task, draws=40)
        name = "AUROC malignant" if task == "malignancy" else "AUROC"
        value = evaluation.metrics(table, task=task, draws=40, only=(name,)).loc[0, "value"]
        label = ax.get_legend().get_texts()[0].get_text()
        assert label.startswith(f"Lite0, ImageNet, frozen\n{figures.number(value)} [")
        x, y = ax.lines[0].get_data()
        assert np.trapezoid(y, x) == pytest.approx(value, abs=0.01)
        inside(ax.figure)


def test_methods_of_one_family_differ_by_their_dashes():
    pair = pd.concat([scored(), scored(method=IMAGENET)])
    ax = figures.plot_roc(pair, task="tumor", draws=5)
    assert ax.lines[0].get_color() == ax.lines[1].get_color()
    assert ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()


def test_a_legend_shows_which_line_is_dashed():
    figures.use_thesis_style()
    rows = pd.DataFrame({"epoch": [0, 1] * 2, "val_auroc": [0.5, 0.7, 0.6, 0.8]})
    rows = rows.assign(start="captions", strategy=["full"] * 2 + ["lora"] * 2, detail="")
    ax = figures.plot_history(rows.assign(sees="image"), value="val_auroc")
    whole, dashed = ax.get_legend().legend_handles
    ax.figure.set_dpi(400)
    ax.figure.canvas.draw()
    pixels = np.asarray(ax.figure.canvas.buffer_rgba())[:, :, :3].mean(axis=2)
    found = []
    for line in (whole, dashed):
        path = line.get_transform().transform(np.column_stack(line.get_data()))
        (left, y), (right, _) = path[0], path[-1]
        row = pixels[round(len(pixels) - y), round(left) + 2 : round(right) - 2] > 200  # paper
        half = len(row) // 2
        marker = round(line.get_markersize() / 72 * 400 / 2)
        found.append([row[: half - marker].any(), row[half + marker :].any()])
    assert found == [[False, False], [True, True]]


def test_confusion_counts_every_image_at_the_threshold():
    table = scored()
    ax = figures.plot_confusion(table, "tumor", 0.3)
    counts = [int(t.get_text().split("\n")[0]) for t in ax.texts]
    flagged, truth = table["p_tumor"] >= 0.3, table["label"] == "tumor"
    expected = [~truth & ~flagged, ~truth & flagged, truth & ~flagged, truth & flagged]
    assert counts == [int(e.sum()) for e in expected]
    inside(ax.figure)
    inside(figures.plot_confusion(scored("entity", n=300), "entity").figure)


def test_calibration_and_history_fit_their_figures():
    inside(figures.plot_calibration(scored(), "tumor", draws=30).figure)
    history = pd.DataFrame(
        {"epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.5], "kept": [True, True, False]}
    )
    ax = figures.plot_history(history, floor=np.log(32))
    inside(ax.figure)
    ring = next(line for line in ax.lines if line.get_markersize() == 8)
    assert ring.get_xdata()[0] == 2 and ring.get_ydata()[0] == 2.0


def test_methods_are_curves_of_their_own_and_a_lone_curve_needs_no_name():
    rows = pd.DataFrame({"epoch": [0, 1] * 2, "val_auroc": [0.5, 0.7, 0.5, 0.8]})
    rows = rows.assign(start=["captions"] * 2 + ["imagenet"] * 2, **dict(strategy="full"))
    rows = rows.assign(sees="image", detail="")
    ax = figures.plot_history(rows, value="val_auroc")
    shades = [line.get_color() for line in ax.lines]
    assert shades == [figures.colour(CAPTIONS), figures.colour(IMAGENET)]
    assert ax.get_ylabel() == "validation AUROC"
    alone = rows.iloc[:2].drop(columns="start")
    assert figures.plot_history(alone, value="val_auroc").get_legend() is None


def test_wordings_and_localisation_show_every_number():
    spread = pd.DataFrame({"detail": ["signs", "signs", "label"], "wording": ["a", "b", "a"]})
    spread["AUROC"] = [0.7, 0.8, 0.6]
    ax = figures.plot_spread(spread)
    dots = [x for line in ax.lines if line.get_marker() == "o" for x in line.get_xdata()]
    assert dots == [0.7, 0.8, 0.6]
    rng = np.random.default_rng(0)
    prior = Method(sees="none", detail="centre prior")
    methods = pd.DataFrame([CAPTIONS.columns()] * 4 + [prior.columns()] * 4)
    scores = methods.assign(image_id=list("abcd") * 2)
    scores = scores.assign(energy=rng.random(8), iou=rng.random(8))
    table = evaluation.means(scores, ["energy", "iou"], draws=50)
    figure = figures.plot_localisation(table)
    seen = texts(figure)
    for value in scores.groupby("start")[["energy", "iou"]].mean().to_numpy().ravel():
        assert figures.number(value) in seen
    inside(figure)


def test_counts_add_up_to_the_table():
    table = pd.DataFrame(
        {
            "site": [("femur",)] * 5 + [("knee", "tibia")] * 3 + [()] * 2,
            "tumor": ["normal", "tumor"] * 5,
        }
    )
    ax = figures.plot_counts(table, "site", "tumor", order=("normal", "tumor"))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["femur", "knee + tibia", "unknown"]
    assert sum(bar.get_width() for bar in ax.patches) == 10
    assert [t.get_text() for t in ax.figure.legends[0].get_texts()] == ["normal", "tumor"]
    inside(ax.figure)


def test_rare_values_are_counted_together():
    table = pd.DataFrame({"center": [f"c{k}" for k in range(40)], "tumor": "normal"})
    ax = figures.plot_counts(table, "center", "tumor", most=6)
    assert [t.get_text() for t in ax.get_yticklabels()][-1] == "other"
    assert sum(bar.get_width() for bar in ax.patches) == 40


def test_the_heat_lies_where_the_map_has_it():
    """A corner that is hot in a 7x7 map is hot in that corner of a radiograph of any shape."""
    image, heat = np.full((90, 60), 100, np.uint8), np.zeros((7, 7))
    heat[0, 6] = 5
    ax = figures.plot_heatmap(image, heat, image > 200)
    drawn = ax.images[1].get_array()
    assert drawn.shape == image.shape
    row, column = np.unravel_index(np.argmax(drawn), drawn.shape)
    assert row < 13 and column > 50
    assert drawn.max() == 1 and drawn[60:, :30].max() == 0


def test_an_empty_map_hides_nothing():
    ax = figures.plot_heatmap(np.zeros((8, 8), np.uint8), -np.ones((2, 2)))
    assert np.max(ax.images[1].get_alpha()) == 0


def test_grey_levels_are_never_stretched():
    image = np.full((8, 8), 100, np.uint8)
    sheet = figures.contact_sheet([image, image], ["a", "b"])
    assert sheet.axes[0].images[0].get_clim() == (0, 255)


def test_sheets_take_any_number_of_images_of_any_shape():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (40 + 7 * k, 50), dtype=np.uint8) for k in range(5)]
    title = "osteochondroma of the distal femur, frontal view, p = .931"
    inside(figures.contact_sheet(images, [title] * 5, columns=4))
    maps, masks = [rng.random((7, 7)) for _ in images], [None, *(i > 250 for i in images[1:])]
    inside(figures.heatmap_sheet(images, maps, masks, [title] * 5))
    path = "DICOM/PT000006/ST826700/SE000008/IM000001: 12"  # of one picture, on a narrow sheet
    inside(figures.contact_sheet(images[:1], [path]))
    inside(figures.heatmap_sheet(images[:1], maps[:1], masks[:1], [path]))


NAMES = {
    "metadata only": METADATA,
    "metadata, regions only": Method(strategy="probe", sees="metadata", detail="regions only"),
    "file only": Method(strategy="probe", sees="file"),
    "32 x 32 pixels": Method(strategy="probe", sees="thumbnail"),
    "metadata + file only": Method(strategy="probe", sees="metadata+file"),
    "Lite0, random weights": Method("scratch", "probe", detail="efficientnet_lite0"),
    "Lite0, ImageNet, frozen": LITE0,
    "ResNet-50, ImageNet, frozen": Method("timm:resnet50.a1_in1k", "probe"),
    "DINOv2-S, frozen": Method("vit_small_patch14_dinov2.lvd142m", "probe"),
    "CLIP ViT-B/32, frozen": Method("vit_base_patch32_clip_224.openai", "probe"),
    "tower_x.y, fine-tuned": Method("tower_x.y", "full"),
    "Lite0, ImageNet + metadata": Method("efficientnet_lite0", "probe", "image+metadata"),
    "captions + metadata, linear probe": Method("captions", "probe", "image+metadata"),
    "scratch, fine-tuned": Method("scratch", "full"),
    "ImageNet, linear probe": Method("imagenet", "probe"),
    "captions, fine-tuned": CAPTIONS,
    "captions, LoRA": Method("captions", "lora"),
    "prompts by signs": Method("captions", "prompt", detail="signs"),
    "CLIP ViT-B/32, prompts by label": Method(
        "vit_base_patch32_clip_224.openai", "prompt", detail="label"
    ),
    "signs: a / b": Method("captions", "prompt", detail="signs", wording="a / b"),
    "centre prior": Method(sees="none", detail="centre prior"),
}


def test_a_method_has_one_name_for_readers():
    for name, method in NAMES.items():
        assert figures.display_name(method) == name
    table = pd.DataFrame([method.columns() for method in NAMES.values()], index=range(5, 26))
    assert figures.display_names(table).tolist() == list(NAMES)
    assert figures.display_names(table).index.equals(table.index)
    assert list(evaluation.by_method(table)) == list(NAMES.values())


def test_what_a_method_is_must_be_one_of_what_there_is():
    with pytest.raises(ValueError, match="Unknown strategy 'fine-tuned'"):
        Method("captions", "fine-tuned")
    with pytest.raises(ValueError, match=r"can't see patient, picture"):
        Method("captions", "full", "picture+patient")


def test_a_colour_is_that_of_the_start_and_else_of_what_is_seen():
    assert figures.colour(METADATA) == figures.colour(NAMES["metadata, regions only"])
    assert figures.colour(METADATA) == figures.GREY
    assert figures.colour(NAMES["Lite0, ImageNet + metadata"]) == figures.colour(IMAGENET)
    told = Method("captions", "full", detail="metadata prompts ImageNet")
    assert figures.colour(told) == figures.colour(CAPTIONS), "words in a name mean nothing"
    assert figures.colour(Method("tower_x.y")) == figures.colour(Method("tower_x.y"))
    families = ("metadata only", "file only", "prompts by signs", "captions, fine-tuned")
    families += ("Lite0, random weights", "ImageNet, linear probe", "32 x 32 pixels")
    families += ("DINOv2-S, frozen", "CLIP ViT-B/32, frozen", "centre prior")
    assert len({figures.colour(NAMES[name]) for name in families}) == len(families)


def test_numbers_are_written_as_in_a_thesis():
    assert figures.with_interval(0.8512, 0.822, 0.8771) == ".851 [.822, .877]"
    assert figures.number(0.9999) == "1.000" and figures.number(-0.05) == "-.050"
    assert figures.number(12.5) == "12.5" and figures.number(0.0) == ".000"
    assert figures.with_interval(-9.7, -11.5, 0.25) == "-9.7 [-11.5, 0.2]"
    assert figures.with_interval(1.0, np.nan, np.nan) == "1.000"


def test_the_same_figure_is_the_same_file_and_embeds_its_fonts(tmp_path):
    saved = []
    for name in "ab":
        ax = figures.plot_confusion(scored(), "tumor")
        figures.synthetic_note(ax.figure)
        ax.figure.savefig(tmp_path / f"{name}.pdf", metadata={"CreationDate": None})
        saved.append((tmp_path / f"{name}.pdf").read_bytes())
    assert saved[0] == saved[1] and b"/FontFile2" in saved[0]  # TrueType
    assert "synthetic radiographs" in noted(ax.figure)


def test_axes_that_are_given_are_used():
    figure, axes = plt.subplots(1, 2)
    table = scored()
    assert figures.plot_confusion(table, "tumor", ax=axes[0]) is axes[0]
    assert figures.plot_calibration(table, "tumor", axes[1], draws=5) is axes[1]
    assert plt.get_fignums() == [figure.number]


def test_shares_are_of_all_values_and_the_most_expected_come_first():
    table = pd.DataFrame(
        {"value": ["ulna", "femur", "tibia"], "drawn": [10, 60, 30], "real": [5.0, 20.0, 25.0]}
    )
    ax = figures.plot_shares(table, "drawn", "real", most=2)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["tibia", "femur"]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.3, 0.6])
    assert ax.lines[0].get_xdata().tolist() == pytest.approx([0.5, 0.4])
    assert ax.get_xlabel() == "share of 100"
    inside(ax.figure)


def test_cumulative_curves_reach_one_at_their_largest_value():
    ax = figures.plot_cumulative({"drawn": [3, 1, 2, 2], "real": np.arange(1, 11)}, log=True)
    drawn, real = ax.lines
    assert drawn.get_xdata().tolist() == [1, 2, 2, 3]
    assert drawn.get_ydata().tolist() == [0.25, 0.5, 0.75, 1] and real.get_ydata()[-1] == 1
    assert "drawn (n = 4)" in texts(ax.figure) and ax.get_xscale() == "log"
    inside(ax.figure)


def test_a_known_distribution_is_drawn_without_a_number_of_values():
    samples = {"drawn": [3, 1, 2, 2], "real quantiles": np.arange(1, 11)}
    ax = figures.plot_cumulative(samples, known=("real quantiles",))
    assert [line.get_label() for line in ax.lines] == ["drawn (n = 4)", "real quantiles"]


def test_a_band_holds_ninety_per_cent_around_the_median():
    x, rows = np.array([0.1, 0.2, 0.4]), np.arange(1, 102)[:, None] * np.array([1.0, 2.0, 3.0])
    ax = figures.plot_bands(x, {"real": rows}, log=True)
    assert ax.lines[0].get_ydata().tolist() == [51, 102, 153]
    edges = ax.collections[0].get_paths()[0].vertices
    first = edges[np.isclose(edges[:, 0], 0.1), 1]
    assert first.min() == pytest.approx(6) and first.max() == pytest.approx(96)
    inside(ax.figure)


def test_findings_stand_in_order_and_each_level_has_its_own_shape():
    values = [("age", 0.55, 0.5, 0.6, "green"), ("site", 0.97, 0.95, 0.99, "red")]
    values += [("border", 0.7, 0.65, 0.75, "amber"), ("copies", 3, np.nan, np.nan, "amber")]
    values += [("center from features", 0.99, 0.98, 1.0, "amber")]
    table = pd.DataFrame(values, columns=["what", "value", "low", "high", "level"]).assign(n=50)
    table["check"] = table["what"].replace("center from features", "origin")
    ax = figures.plot_findings(table, limits=(0.6, 0.8))
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "site", "border", "age", "center from features",
    ]  # fmt: skip
    marks = {line.get_marker() for line in ax.lines if line.get_marker() != "None"}
    assert len(marks) == 3
    legend = [t.get_text() for t in ax.figure.legends[0].get_texts()]
    assert legend == ["red", "amber", "green"]
    assert "1 amber" in noted(ax.figure), "what is not drawn is counted"
    inside(ax.figure)


# ---------------------------------------------------------------------- leaks
def test_leaks_print_the_recall_they_draw_beside_the_published_one():
    kinds = ("PATIENT", "NATIONAL_ID", "AGE")
    leaks = pd.DataFrame(
        {
            "type": kinds,
            "n": [120, 30, 0],
            "recall": [0.975, 1.0, np.nan],
            "recall_low": [0.93, 0.89, 0.0],
            "recall_high": [0.99, 1.0, 1.0],
            "published_recall": [0.86, np.nan, 0.97],
        }
    )
    ax = figures.plot_leaks(leaks, published="a publication")
    shown = texts(ax.figure)
    assert {"patient (n = 120)", "national id (n = 30)", ".975 [.930, .990]"} <= set(shown)
    assert "a publication" in shown and not any("age" in text for text in shown)
    assert ax.get_xlim()[0] < 0.86 and ax.get_xlim()[1] == 1
    marks = {round(float(x), 3) for line in ax.lines for x in np.ravel(line.get_xdata())}
    assert {0.975, 1.0, 0.86} <= marks
    inside(ax.figure)


def test_gains_point_right_where_better_and_are_hollow_where_zero_is_possible():
    rows = []
    for task, metric in (("fracture", "AUROC"), ("bone_age", "MAE")):
        for recipe, gain in (("ours", 0.1), ("published", -0.1), ("shuffled", 0.01)):
            for share in (1.0, 0.3, 0.1):
                rows.append(
                    dict(task=task, metric=metric, recipe=recipe, share=share, gain=gain)
                    | dict(gain_low=gain - 0.05, gain_high=gain + 0.05, n=120, groups=100)
                    | dict(group_kind="patient", folds=2 if recipe == "shuffled" else 5)
                    | dict(in_captions=task == "bone_age" and recipe != "shuffled")
                )
    figure = figures.plot_gains(pd.DataFrame(rows))
    first, second = figure.axes
    assert not first.xaxis_inverted() and second.xaxis_inverted() and first.yaxis_inverted()
    names = [t.get_text() for t in first.get_yticklabels()]
    assert names == ["ours", "published", "shuffled\n(2 of 5 folds)"]
    assert "in no caption" in first.get_title() and "named in captions" in second.get_title()
    points = [line for line in first.lines if line.get_marker() in ("o", "D")]
    assert len(points) == 6, "the largest share and the smallest"
    for line in points:
        hollow = line.get_markerfacecolor() == "white"
        assert hollow == (abs(line.get_xdata()[0]) < 0.05)
    grey = [line.get_color() == figures.GREY for line in second.lines if line.get_marker() in "oD"]
    assert grey == [False] * 4 + [True] * 2, "a recipe that never saw the label"
    assert not any(line.get_color() == figures.GREY for line in first.lines)
    words = noted(figure)
    assert "100% of the training labels" in words and "10%" in words and "patients" in words


def test_a_line_of_chance_is_seen_at_a_tick_of_the_grid():
    figures.use_thesis_style()
    _, ax = plt.subplots()
    ax.set(xlim=(0.4, 1))
    ax.grid(axis="x", color="red")
    figures.scores.mark_chance(ax, "AUROC", word="chance")
    (line,) = ax.lines
    # matplotlib draws the grid with its axis
    assert line.get_xdata()[0] == 0.5 and ax.xaxis.get_zorder() < line.get_zorder() < 1
