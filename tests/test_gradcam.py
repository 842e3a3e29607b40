"""Protects notebook 07: what chooses the map, what it is compared with, and what is too few."""

import matplotlib

matplotlib.use("agg")

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bonelib import cohort, encoders, evaluation, figures, images, models
from bonelib.adaptation import looking
from bonelib.evaluation import Method
from bonelib.experiments import gradcam
from bonelib.experiments.gradcam import auditing
from bonelib.experiments.gradcam.cases import Cases, blind
from bonelib.experiments.gradcam.choosing import Explained, Way, measured
from bonelib.experiments.gradcam.judging import right

pytestmark = pytest.mark.usefixtures("clean_canvas")

FULL, SCRATCH = Method("captions", "full"), Method("scratch", "full")
CENTRE = Method(sees="none", detail="centre prior")


class Run(SimpleNamespace):
    """A run under way that keeps its tables in memory."""

    def __init__(self, **settings):
        super().__init__(finished=False, settings={"draws": 50, "minimum": 3} | settings, kept={})

    def save_table(self, name, table):
        self.kept[name] = table

    def table(self, name):
        return self.kept[name]


def lesions(n=12, size=16):
    """Small squares that walk over the image, of n patients at two sites."""
    masks = np.zeros((n, size, size), bool)
    for k in range(n):
        masks[k, 2 + k % 6 : 5 + k % 6, 3:6] = True
    table = pd.DataFrame({"image_id": [f"i{k}" for k in range(n)], "center": "A"})
    table["patient"] = [f"p{k}" for k in range(n)]
    table["group"], table["group_kind"] = table["patient"], "patient"
    table["site"] = [("femur",) if k % 2 else ("tibia",) for k in range(n)]
    context = SimpleNamespace(seed=0)
    return Cases(context, table, np.zeros(n, int), masks, n, 2 * n, size)


# ---------------------------------------------------------------------- which map is it?
def test_a_map_is_read_from_its_name_and_another_is_refused():
    assert Way.read("grad_cam") == Way("grad_cam", 0, 1)
    assert Way.read("layer_cam:3@2") == Way("layer_cam", 3, 2)
    for wrong in ("layer-cam", "layer_cam:", "layer_cam:9", "layer_cam@0", "layer_cam:two", ""):
        with pytest.raises(ValueError, match="is no map. Write method"):
            Way.read(wrong)


def test_plain_grad_cam_is_always_among_the_maps_once():
    context = SimpleNamespace(profile="tiny", test="fold0")
    tuned = SimpleNamespace(settings={"size": 64})
    plan = gradcam.plan(context, tuned, methods="hires_cam, grad_cam,hires_cam")
    assert plan["maps"] == ("grad_cam", "hires_cam") and plan["size"] == 64
    with pytest.raises(ValueError, match="'smooth' is no map"):
        gradcam.plan(context, tuned, methods="smooth")
    for profile in gradcam.SETTINGS:
        context = SimpleNamespace(profile=profile, test="fold0")
        assert gradcam.plan(context, tuned)["maps"][0] == "grad_cam"


def test_pointing_chooses_then_energy_and_never_a_map_that_saw_no_image():
    found = lesions()
    perfect, moved = found.masks.astype(np.float32), np.roll(found.masks, 8, axis=1)
    spread = perfect + 0.01
    tables = [
        measured(moved.astype(np.float32), found, SCRATCH, "grad_cam"),
        measured(spread, found, FULL, "grad_cam"),
        measured(perfect, found, FULL, "layer_cam:2"),
        measured(perfect * 2, found, CENTRE, ""),  # as good, but it saw nothing
    ]
    choices = pd.concat(tables)
    assert gradcam.winner(None, choices) == (FULL, "layer_cam:2")
    table = gradcam.grid(choices)
    assert table["map"].tolist() == ["layer_cam:2", "grad_cam", "grad_cam", ""]
    assert table["start"].tolist() == ["captions", "captions", "scratch", "none"]


def test_blind_maps_know_the_bone_of_training_lesions_or_leave_it_out():
    found = lesions()
    maps = blind(found, found)
    assert [m.detail for m in maps] == ["centre prior", "bone prior", "uniform map", "random map"]
    assert all(heat.shape == found.masks.shape and (heat >= 0).all() for heat in maps.values())
    bare = Cases(found.context, found.table, found.targets, np.array([]), 12, 24, 16)
    assert "bone prior" not in {m.detail for m in blind(found, bare)}


def test_lesions_are_taken_at_equal_steps():
    found = lesions()
    assert found.spread(3).tolist() == [0, 5, 11] and len(found.spread(0)) == 12
    few = found.take(found.spread(3))
    assert few.table["image_id"].tolist() == ["i0", "i5", "i11"]
    assert (few.masks == found.masks[[0, 5, 11]]).all()


# ---------------------------------------------------------------------- is it found, and where?
def judged():
    found, rng = lesions(), np.random.default_rng(0)
    noise = rng.random(found.masks.shape)
    rows = {"chosen": (FULL, "layer_cam:2", found.masks + 0.1 * noise)}
    rows |= {"plain": (FULL, "grad_cam", noise)}
    rows |= {"prior": (Method(sees="none", detail="bone prior"), "", np.ones_like(noise))}
    tables = [
        measured(heat, found, method, name).assign(role=role, border=0.1, border_uniform=0.2)
        for role, (method, name, heat) in rows.items()
    ]
    facts = pd.DataFrame({"image_id": found.table["image_id"], "site": ["hip"] * 2 + ["knee"] * 10})
    facts["class"], facts["classifier"] = "tumor", "right"
    return pd.concat(tables).merge(facts, on="image_id")


def test_differences_are_paired_with_every_other_map_and_corrected():
    table, run = judged(), Run()
    found = gradcam.differences(run, table)
    assert len(found) == 2 * 3 and (found["p_holm"] >= found["p"]).all()
    means = table.groupby("role")["energy"].mean()
    for role in ("plain", "prior"):
        row = found[(found["role"] == role) & (found["measure"] == "energy")].iloc[0]
        assert row["value"] == pytest.approx(means["chosen"] - means[role]) and row["low"] > 0
    scores = gradcam.scores(run, table)
    assert "layer_cam:2" in set(scores["map"]), "two maps of one model are two rows"
    said = gradcam.read(scores, found)
    assert "bone prior" in said and "layer_cam" not in said, "names are for readers"
    assert gradcam.peaks(scores)["pointing"] == 1


def test_a_subgroup_of_two_patients_has_no_number():
    found = gradcam.where(Run(), judged())
    few = found[found["group"] == "hip"]
    assert few["value"].isna().all() and set(few["note"]) == {"too few"}
    assert set(few["groups"]) == {2}
    enough = found[found["group"] == "knee"].set_index("measure")
    assert enough.loc["pointing", "value"] == 1 and enough.loc["gain", "value"] < 1
    assert set(found["by"]) == {"site"}, "one class, one call: nothing to compare"


def test_a_call_is_right_by_the_stored_threshold_else_by_the_largest_probability():
    table = pd.DataFrame({"image_id": list("abc"), "label": ["tumor", "tumor", "normal"]})
    table["p_tumor"] = [0.4, 0.2, 0.4]
    table["p_normal"] = 1 - table["p_tumor"]
    task = cohort.task("tumor")
    assert right(task, table).tolist() == [False, False, True]
    assert right(task, table.assign(threshold=0.3)).tolist() == [True, False, False]
    ages = pd.DataFrame({"image_id": ["a"], "label": [30.0], "value": [31.0]})
    assert right(cohort.task("bone_age"), ages).empty


def test_without_outlines_every_table_is_empty_and_said_so():
    run, bare = Run(), pd.DataFrame(columns=["role"])
    scores, gaps = gradcam.scores(run, bare), gradcam.differences(run, bare)
    assert scores.empty and gaps.empty and gradcam.where(run, bare).empty
    assert "nothing is scored" in gradcam.read(scores, gaps) and not gradcam.peaks(scores)
    assert gradcam.draw(scores) is None and gradcam.draw_where(gradcam.where(run, bare)) is None


# ---------------------------------------------------------------------- does it follow the model?
class Bright(torch.nn.Module):
    """Sees what is bright; its head speaks for the first class, or against it."""

    def __init__(self, weight):
        super().__init__()
        self.seen = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.head = torch.nn.Linear(4, 1)
        with torch.no_grad():
            for layer, value in ((self.seen, 0.1), (self.head, weight)):
                layer.weight.fill_(value)
                layer.bias.zero_()

    def forward(self, image):
        return self.head(self.seen(image).relu().mean(dim=(2, 3)))


def test_a_random_head_that_speaks_against_the_class_leaves_no_blank_map(monkeypatch):
    found, run = lesions(6), Run(checked=4, size=16)
    image = torch.from_numpy(np.repeat(found.masks[:, None], 3, axis=1).astype(np.float32))
    monkeypatch.setattr(Cases, "batches", lambda self, *_: [{"image": image[: len(self.masks)]}])
    one = Explained(FULL, Bright(1.0), None, words=None)
    against = Bright(-1.0)
    assert not one.heat("grad_cam", found, against).any(), "of the class alone"
    assert one.heat("grad_cam", found, against, unsigned=True).any(axis=(1, 2)).all()
    monkeypatch.setattr(auditing, "_others", lambda *_: [("head", against)])
    table = gradcam.sanity(found.context, run, one, "grad_cam", found)
    assert len(table) == 4 and (table["spearman"] > 0.99).all(), "the same map, not a blank one"
    asked = Explained(FULL, against, None, words=lambda row: row[0])
    assert asked.heat("grad_cam", found, unsigned=True).any()


def test_a_class_without_a_training_image_is_not_what_is_explained(monkeypatch):
    found = lesions(4)
    image = torch.from_numpy(np.repeat(found.masks[:, None], 3, axis=1).astype(np.float32))
    monkeypatch.setattr(Cases, "batches", lambda self, *_: [{"image": image}])

    class Absent(Bright):
        def forward(self, image):
            known = super().forward(image)[:, :1]
            return torch.cat([known, torch.full_like(known, -1e9)], dim=1)

    heat = Explained(FULL, Absent(1.0), None).heat("grad_cam", found, unsigned=True)
    assert heat.any(axis=(1, 2)).all()


@pytest.mark.parametrize(("kind", "pool"), [("full", None), ("full", "top_k"), ("probe", None)])
def test_shuffled_labels_teach_a_copy_a_head_of_the_same_kind(kind, pool, tmp_path):
    task, rng = cohort.task("tumor"), np.random.default_rng(0)
    paths = [tmp_path / f"{k}.png" for k in range(32)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (64, 64), np.uint8)).save(path)
    table = pd.DataFrame({"image_id": [p.stem for p in paths], "path": [*map(str, paths)]})
    table = table.assign(split="train", tumor=["normal", "tumor"] * 16)
    cache = images.cache(table, size=64, folder=tmp_path / "cache")
    context = SimpleNamespace(asked=task, seed=0, view=lambda: table, cache=lambda _: cache)
    tower = encoders.image("timm:test_efficientnet", weights="random", size=64)
    if kind == "probe":
        model = models.LinearProbe(tower, outputs=1)
    else:
        model = models.Classifier(tower, outputs=1)
        if pool:
            looking.look_at_places(SimpleNamespace(model=model, seed=0), pool)
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    made = auditing._shuffled(context, Run(shuffled=24, size=64), Explained(FULL, model, tower))
    assert getattr(made.head, "pool", None) == pool and made.head.weight.any()
    assert all(value.equal(before[name]) for name, value in tower.state_dict().items())
    same = [v.equal(before[n]) for n, v in made.image.state_dict().items()]
    assert all(same) == (kind == "probe"), "a tower that was frozen stays so"


# ---------------------------------------------------------------------- figures
def inside(figure):
    """Nothing that is drawn is cut off by the edge of the figure (inches)."""
    figure.canvas.draw()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) > -0.03 and box.x1 < width + 0.03 and box.y1 < height + 0.03, box
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_visible()]


def test_the_charts_print_every_number_and_head_their_groups():
    scores = gradcam.scores(Run(), judged())
    said = inside(gradcam.draw(scores))
    for value in scores.loc[scores["measure"].isin(("pointing", "energy")), "value"]:
        assert figures.number(value) in said
    assert "maps that saw no image" in said
    assert any("LayerCAM, 2 stages" in one.replace("\n", " ") for one in said)
    said = inside(gradcam.draw_where(gradcam.where(Run(), judged())))
    assert {"site", "too few"} <= set(said)


def test_the_sheet_takes_any_number_of_cases_with_and_without_outlines():
    rng = np.random.default_rng(0)
    for count in (1, 3):
        images = [rng.integers(0, 255, (20, 20), dtype=np.uint8)] * count
        maps = {"chosen map": rng.random((count, 20, 20)), "Grad-CAM": np.zeros((count, 20, 20))}
        masks = [images[0] > 250, *[None] * (count - 1)]
        said = inside(figures.case_sheet(images, maps, masks, [f"case {k}" for k in range(count)]))
        assert {"chosen map", "Grad-CAM", "case 0"} <= set(said)


def test_drops_are_read_with_their_difference():
    table = lesions().table.assign(whole=0.8, hidden=0.3, elsewhere=0.7, swapped=0.8)
    table = table.assign(hidden_drop=0.5, elsewhere_drop=0.1, lesion_drop=0.4, swap_change=0.0)
    drops = gradcam.drops(Run(), table)
    assert drops.set_index("measure").loc["lesion_drop", "value"] == pytest.approx(0.4)
    assert "**Reading.** The score" in gradcam.read_drops(drops)
    inside(gradcam.draw_drops(drops))
    assert evaluation.means(table.assign(of=""), ["whole"], by="of", draws=9)["n"].tolist() == [12]
