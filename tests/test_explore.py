"""Protects the widgets of images: what a reader chooses is what is shown, and nothing is stale."""

import io
from types import SimpleNamespace

import matplotlib

matplotlib.use("agg")

import nbclient
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bonelib import cohort, encoders, explain, explore, images, models
from bonelib.experiments import exploring, gradcam
from bonelib.experiments.texts import safety
from bonelib.explore import pictures
from bonelib.explore.controls import NONE

pytestmark = pytest.mark.usefixtures("clean_canvas")
NEAR = 6  # greys by which a JPEG may differ from what was encoded


def parts(widget):
    """A widget and all that it holds, in reading order."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from parts(child)


def controls(panel):
    """The controls of a panel by what a reader calls them."""
    held = [w for w in parts(panel.widget) if getattr(w, "description", "")]
    named = {w.description: w for w in held}
    assert len(named) == len(held), "a name stands for one control"
    return named


def marked(panel, name):
    """The widgets of a panel that carry a class."""
    return [w for w in parts(panel.widget) if name in w._dom_classes]


def said(panel, name):
    return marked(panel, name)[0].value


def seen(panel, place=0):
    """The picture that a reader sees, decoded; None where it is hidden."""
    image = marked(panel, "bone-picture")[place]
    if image.layout.display == "none":
        assert image.value == b"", "what is hidden is gone"
        return None
    return np.asarray(Image.open(io.BytesIO(image.value)), int)


def films(n, side=448):
    """Smooth radiographs, each of its own mean grey."""
    ramp = np.linspace(0, 60, side).astype(int)
    return {f"i{k}": (ramp[None] + ramp[:, None] + 2 * k).clip(0, 255).astype(np.uint8)
            for k in range(n)}  # fmt: skip


def table(n=30):
    """Cases at several sites, some unknown, of patients with two images each."""
    sites = [("femur",), ("femur", "knee"), ("tibia", "knee"), ()]
    entities = ["osteosarcoma", "chondroma", pd.NA]
    return pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(n)],
            "patient": [f"p{k // 2}" for k in range(n)],
            "site": [sites[k % 4] for k in range(n)],
            "entity": [entities[k % 3] for k in range(n)],
            "center": ["A" if k < 20 else "B" for k in range(n)],
            "view": "frontal",
            "error": ["right" if k % 5 else "wrong" for k in range(n)],
            "age": [float(k) if k % 2 else np.nan for k in range(n)],
            "path": "/secret/place.png",
        }
    )


def browse(n=30, **given):
    held = films(n)
    return explore.cases(table(n), held.__getitem__, **given)


# ---------------------------------------------------------------------- the picture
@pytest.mark.parametrize(("level", "window"), [(128, 256), (40, 2), (100, 50), (0, 512), (255, 7)])
def test_a_window_follows_the_equation_of_dicom(level, window):
    grey = np.arange(256, dtype=np.uint8)
    expected = np.empty(256)
    for x in range(256):  # PS3.3 C.11.2.1.2.1, as it is printed there
        if x <= level - 0.5 - (window - 1) / 2:
            expected[x] = 0
        elif x > level - 0.5 + (window - 1) / 2:
            expected[x] = 255
        else:
            expected[x] = ((x - (level - 0.5)) / (window - 1) + 0.5) * 255
    found = pictures.windowed(grey, level=level, window=window)
    assert np.abs(found - expected).max() <= 0.5 + 1e-9
    assert (found == grey).all() == ((level, window) == (128, 256))


def test_the_outline_is_the_edge_of_the_mask_and_nothing_else_is_touched():
    film, mask = films(1)["i0"], np.zeros((448, 448), bool)
    mask[100:200, 50:90] = mask[150:160, 85:300] = True
    padded = np.pad(mask, 1)
    around = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    around &= padded[:-2, :-2] & padded[2:, 2:] & padded[2:, :-2] & padded[:-2, 2:]
    edge = mask & ~around
    drawn = pictures.painted(film, mask=mask)
    assert (drawn[edge] == pictures.OUTLINE).all() and (drawn[~edge] == film[~edge, None]).all()
    small = pictures.painted(film[::7, ::7], mask=mask[::7, ::7])
    assert small.shape == (448, 448, 3), "64 pixels are enlarged seven times"
    inside = np.kron(mask[::7, ::7], np.ones((7, 7), bool))
    coloured = (small == pictures.OUTLINE).all(axis=2)
    assert coloured.any() and not coloured[~inside].any()
    assert pictures.painted(film, mask=np.zeros((448, 448))).ndim == 2


def test_heat_colours_what_is_hot_as_far_as_it_is_opaque():
    film, heat = films(1)["i0"], np.zeros((4, 4))
    assert (pictures.painted(film, heat=heat) == film[..., None]).all()
    heat[0, 0] = 3.0
    assert (pictures.painted(film, heat=heat, opacity=0) == film[..., None]).all()
    shift = [
        np.abs(pictures.painted(film, heat=heat, opacity=o).astype(int) - film[..., None])
        for o in (0.3, 0.9)
    ]
    assert 0 < shift[0][:90, :90].mean() < shift[1][:90, :90].mean()
    assert not shift[1][250:, 250:].any()


# ---------------------------------------------------------------------- the case browser
def test_level_and_window_change_the_picture_as_they_say():
    held, panel = films(30), browse()
    hands = controls(panel)
    assert np.abs(seen(panel) - held["i0"]).max() <= NEAR
    hands["level"].value, hands["window"].value = 60, 40
    expected = pictures.windowed(held["i0"], level=60, window=40)
    assert np.abs(seen(panel) - expected).max() <= NEAR
    hands["next"].click()
    expected = pictures.windowed(held["i1"], level=60, window=40)
    assert np.abs(seen(panel) - expected).max() <= NEAR, "the window stays for the next case"


def test_filters_leave_what_pandas_leaves():
    rows, panel = table(), browse()
    hands = controls(panel)
    assert "view" not in hands and "score" not in hands, "one value, or no such column"
    assert hands["entity"].options == ("any", "chondroma", "osteosarcoma", "unknown")
    for site in ("any", "femur", "knee", "unknown"):
        for entity in ("any", "chondroma", "unknown"):
            for error in ("any", "wrong"):
                hands["site"].value, hands["entity"].value = site, entity
                hands["error"].value = error
                left = rows[[site in ("any", *(s or ["unknown"])) for s in rows["site"]]]
                left = left[left["entity"].fillna("unknown").isin([entity]) | (entity == "any")]
                left = left[left["error"].isin([error]) | (error == "any")]
                if left.empty:
                    assert said(panel, "bone-count") == NONE
                    continue
                assert said(panel, "bone-count") == f"{len(left)} of 30 cases"
                assert hands["case"].max == len(left)
                assert hands["image"].value in set(left["image_id"])
                assert f">{hands['image'].value}<" in said(panel, "bone-facts")


def test_without_a_case_nothing_old_is_shown():
    calls = []
    report = {"report": lambda name: calls.append(name) or ("before", "after")}
    panel = browse(mask=lambda name: np.ones((4, 4)), **report)
    hands = controls(panel)
    hands["report"].value = "de-identified"
    hands["center"].value, hands["site"].value, hands["entity"].value = "A", "tibia", "chondroma"
    assert seen(panel) is not None
    hands["error"].value, hands["center"].value = "wrong", "B"
    assert said(panel, "bone-count") == NONE == "no case: widen the filter"
    assert seen(panel) is None and hands["case"].disabled and hands["image"].value == ""
    assert (
        said(panel, "bone-facts") == said(panel, "bone-report") == said(panel, "bone-fault") == ""
    )
    for control in ("level", "outline", "next", "previous"):  # nothing to change, and no fault
        if hasattr(hands[control], "click"):
            hands[control].click()
        else:
            hands[control].value = not hands[control].value
    assert seen(panel) is None and said(panel, "bone-fault") == ""
    hands["error"].value = "any"
    assert seen(panel) is not None and not hands["case"].disabled


def test_a_case_is_found_by_steps_by_place_and_by_name():
    panel = browse()
    hands = controls(panel)
    hands["previous"].click()
    assert hands["image"].value == "i0", "there is nothing before the first"
    hands["next"].click()
    assert (hands["case"].value, hands["image"].value) == (2, "i1")
    hands["case"].value = 30
    hands["next"].click()
    assert hands["image"].value == "i29"
    hands["image"].value = " i7 "
    assert hands["case"].value == 8 and ">i7<" in said(panel, "bone-facts")
    hands["image"].value = "<b>"
    assert said(panel, "bone-count") == "no image <b> among 30 cases", "a label, which shows it raw"
    assert ">i7<" in said(panel, "bone-facts")
    hands["center"].value = "A"
    assert hands["image"].value == "i7", "a case that a filter leaves stays"
    hands["center"].value = "B"
    assert hands["image"].value == "i20"


def test_facts_say_what_is_known_whole_and_escaped():
    rows = table(2).assign(note=["<script>" + "x" * 90, "y"])
    panel = explore.cases(rows, films(2).__getitem__)
    facts = said(panel, "bone-facts")
    assert "&lt;script&gt;" + "x" * 90 in facts and "secret" not in facts and ">age<" not in facts
    controls(panel)["next"].click()
    assert "femur, knee" in said(panel, "bone-facts") and "<td>1</td>" in said(panel, "bone-facts")


def test_an_original_report_is_shown_when_asked_for_and_for_that_case_alone():
    calls = []

    def report(name):
        calls.append(name)
        return None if name == "i2" else (f"<Mme Dupont> {name}", f"<PATIENT> {name}")

    panel = browse(report=report)
    hands = controls(panel)
    assert not calls and said(panel, "bone-report") == "", "none is read before a reader asks"
    hands["report"].value = "de-identified"
    assert "&lt;PATIENT&gt; i0" in said(panel, "bone-report")
    hands["next"].click()
    assert "&lt;PATIENT&gt; i1" in said(panel, "bone-report")
    assert "Dupont" not in said(panel, "bone-report")
    hands["report"].value = "original"
    assert "&lt;Mme Dupont&gt; i1" in said(panel, "bone-report")
    assert "patient data" in said(panel, "bone-report")
    hands["next"].click()
    assert hands["report"].value == "de-identified"
    assert "There is no report." in said(panel, "bone-report")
    hands["next"].click()
    assert "Dupont" not in said(panel, "bone-report") and "i3" in said(panel, "bone-report")
    assert "report" not in controls(browse()), "a set without reports offers none"


def test_no_report_of_another_case_stays_where_a_picture_fails():
    held, report = films(30), lambda name: (f"Dupont {name}", f"[NAME] {name}")
    panel = explore.cases(table(), lambda n: held[n] if n != "i1" else {}["x"], report=report)
    hands = controls(panel)
    hands["report"].value = "original"
    with pytest.raises(KeyError):
        hands["case"].value = 2
    assert "Dupont" not in said(panel, "bone-report") and "KeyError" in said(panel, "bone-fault")
    assert "[NAME] i1" in said(panel, "bone-report")


def test_a_report_that_fails_is_said_in_its_place_beside_the_picture():
    panel = browse(report=lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        controls(panel)["report"].value = "de-identified"
    assert "ZeroDivisionError" in said(panel, "bone-report") and seen(panel) is not None
    with pytest.raises(ZeroDivisionError):
        controls(panel)["case"].value = 2
    assert "ZeroDivisionError" in said(panel, "bone-report")
    assert np.abs(seen(panel) - films(2)["i1"]).max() <= NEAR
    controls(panel)["report"].value = "closed"
    assert said(panel, "bone-report") == ""


def test_overlays_and_the_original_are_drawn_when_asked_for():
    mask, decoded = np.zeros((64, 64), bool), []
    mask[20:40, 20:40] = True
    large = {"original": lambda name: decoded.append(name) or np.full((1024, 1024), 90, np.uint8)}
    drawn = dict(mask=lambda name: mask if name == "i0" else None, heat_map=lambda _: mask * 1.0)
    panel = browse(**drawn, **large)
    hands = controls(panel)
    both = seen(panel)
    hands["heat map"].value = False
    outlined = seen(panel)
    assert np.abs(both - outlined).max() > 60
    hands["outline"].value = False
    assert seen(panel).ndim == 2 and not decoded
    hands["all pixels"].value = True
    assert seen(panel).shape == (1024, 1024) and decoded == ["i0"]
    hands["all pixels"].value, hands["outline"].value = False, True
    hands["next"].click()
    assert seen(panel).ndim == 2, "a case without an outline"


def test_what_fails_is_said_and_the_picture_goes():
    held = films(30)
    del held["i1"]
    panel = explore.cases(table(), lambda name: held[name] if name != "i2" else 1 / 0)
    hands = controls(panel)
    with pytest.raises(KeyError):  # which Jupyter writes to its log
        hands["case"].value = 2
    assert "KeyError" in said(panel, "bone-fault") and seen(panel) is None
    with pytest.raises(ZeroDivisionError):
        hands["case"].value = 3
    assert "ZeroDivisionError" in said(panel, "bone-fault") and seen(panel) is None
    hands["next"].click()
    assert said(panel, "bone-fault") == "" and np.abs(seen(panel) - held["i3"]).max() <= NEAR


class Odd:
    """A cell that can't be written."""

    def __str__(self):
        raise ValueError("odd cell")


def test_facts_that_fail_are_said_and_nothing_old_is_shown():
    rows = table(3).assign(note=["whole", Odd(), "whole"])
    panel = explore.cases(rows, films(3).__getitem__)
    controls(panel)["next"].click()
    assert "odd cell" in said(panel, "bone-fault")
    assert seen(panel) is None and said(panel, "bone-facts") == ""
    controls(panel)["next"].click()
    assert said(panel, "bone-fault") == "" and ">i2<" in said(panel, "bone-facts")


def test_arrays_stand_for_tuples_as_parquet_gives_them_back():
    rows = table(4)
    panel = explore.cases(rows.assign(site=rows["site"].map(np.array)), films(4).__getitem__)
    controls(panel)["site"].value = "femur"
    assert said(panel, "bone-count") == "2 of 4 cases"
    controls(panel)["next"].click()
    assert "femur, knee" in said(panel, "bone-facts") and said(panel, "bone-fault") == ""


def test_ids_that_repeat_are_refused():
    twice = pd.concat([table(3), table(2)], ignore_index=True)
    given = films(3).__getitem__
    for make in (
        lambda: explore.cases(twice, given),
        lambda: explore.similar(np.ones((5, 2)), twice, given),
        lambda: explore.heat_maps(twice, given, None, layers={"a": 1}, targets={"b": 1}),
    ):
        with pytest.raises(ValueError, match="2 image ids repeat, e.g. i0"):
            make()
    with pytest.raises(ValueError, match="4 features are no rows of a table of 3 images"):
        explore.similar(np.ones((4, 2)), table(3), given)


# ---------------------------------------------------------------------- the heat-map viewer
def view_maps(make, **given):
    named = dict(layers={"last": 1, "two": 2}, targets={"tumor": 0, "normal": 1})
    return explore.heat_maps(table(), films(30).__getitem__, make, **named | given)


def test_a_map_is_made_once_for_each_choice_while_a_sign_says_so():
    calls, signs = [], []

    def make(*asked):
        calls.append(asked)
        if "panel" in shown:
            signs.append(said(shown["panel"], "bone-busy"))
        heat = np.zeros((8, 8))
        heat[asked[2], 4 * asked[3]] = 1
        return heat

    shown = {}
    shown["panel"] = panel = view_maps(make, mask=lambda name: np.eye(64))
    hands, first = controls(panel), seen(panel)
    assert calls == [("i0", explain.METHODS[0], 1, 0)]
    hands["target"].value = 1
    assert np.abs(seen(panel) - first).max() > 60
    hands["layer"].value, hands["method"].value = 2, "occlusion"
    hands["opacity"].value, hands["outline"].value = 0.2, False
    hands["next"].click()
    assert calls[1:] == [
        ("i0", "grad_cam", 1, 1),
        ("i0", "grad_cam", 2, 1),
        ("i0", "occlusion", 2, 1),
        ("i1", "occlusion", 2, 1),
    ]
    assert set(signs) == {"computing …"} and said(panel, "bone-busy") == ""
    hands["previous"].click()
    hands["method"].value, hands["layer"].value, hands["target"].value = "grad_cam", 1, 0
    hands["opacity"].value, hands["outline"].value = 0.65, True
    assert len(calls) == 5 and np.abs(seen(panel) - first).max() <= NEAR, "all were made before"


def test_a_method_that_this_model_lacks_says_why_over_the_plain_radiograph():
    def make(name, method, layer, target):
        if method == "rollout":
            raise ValueError("the model has no <attention>")
        return np.zeros((8, 8)) if method == "own" else np.full((8, 8), 1.0)

    panel = view_maps(make)
    hands, hot = controls(panel), seen(panel)
    hands["method"].value = "rollout"
    assert "No map: the model has no &lt;attention&gt;" in said(panel, "bone-facts")
    assert seen(panel).ndim == 2 and hot.ndim == 3 and said(panel, "bone-fault") == ""
    hands["method"].value = "own"
    assert "The map is blank" in said(panel, "bone-facts")
    hands["method"].value = "grad_cam"
    assert "No map" not in said(panel, "bone-facts") and np.abs(seen(panel) - hot).max() <= NEAR


def test_a_fault_of_a_map_is_said_and_leaves_no_picture():
    def make(name, *_):
        return np.ones((4, 4)) if name == "i0" else {}["weights"]

    panel = view_maps(make)
    with pytest.raises(KeyError):
        controls(panel)["case"].value = 2
    assert "KeyError" in said(panel, "bone-fault") and said(panel, "bone-busy") == ""
    assert seen(panel) is None and said(panel, "bone-facts") == ""


# ---------------------------------------------------------------------- similar cases
def test_neighbours_are_those_of_the_largest_cosine_among_other_patients():
    rng, rows, held = np.random.default_rng(0), table(), films(30)
    features = rng.normal(size=(30, 5)).astype(np.float32) * rng.uniform(1, 9, (30, 1))
    rows.loc[[4, 5], "patient"] = None  # unknown: tied to nobody
    panel = explore.similar(features, rows, held.__getitem__, k=4)
    hands = controls(panel)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for query in (0, 4, 17):
        hands["image"].value = f"i{query}"
        cosines = unit @ unit[query]
        own = rows["patient"].notna() & (rows["patient"] == rows.loc[query, "patient"])
        cosines[own | (rows.index == query)] = -2
        nearest = np.argsort(-cosines)[:4]
        assert np.abs(seen(panel) - held[f"i{query}"]).max() <= NEAR
        for place, one in enumerate(nearest, 1):
            facts = marked(panel, "bone-facts")[place].value
            assert f"<td>i{one}</td>" in facts and f"<td>{cosines[one]:.3f}</td>" in facts
            assert np.abs(seen(panel, place) - held[f"i{one}"]).max() <= NEAR


def test_groups_tie_more_than_patients_and_empty_places_stay_hidden():
    rows = table(6).assign(group=["g0", "g0", "g0", "g1", "g1", "g2"])
    features = np.eye(6, dtype=np.float32) + 0.5
    panel = explore.similar(features, rows, films(6).__getitem__, k=4)
    shown = [marked(panel, "bone-facts")[i].value for i in range(1, 5)]
    assert sorted(name for name in rows["image_id"] if any(f">{name}<" in s for s in shown)) == (
        ["i3", "i4", "i5"]
    )
    assert shown[3] == "" and seen(panel, 4) is None
    assert len(panel.still().axes) == 4


# ---------------------------------------------------------------------- on a cohort
def test_a_browser_of_the_cohort_knows_nothing_that_is_sealed(sealed):
    context = sealed()
    run, view = context.cohort_run, context.view()
    panel = exploring.cases(context, run, report=safety.before_and_after(context))
    hands, held = controls(panel), (view["split"] == "test")
    hidden = set(cohort.sealed_columns(view)) - {"mask", "report"}
    assert {"tumor", "entity"} < hidden and 0 < held.sum() < len(view)
    hands["split"].value, hands["report"].value = "test", "de-identified"
    assert said(panel, "bone-count") == f"{held.sum()} of {len(view)} cases"
    for _ in range(held.sum()):
        told = said(panel, "bone-facts")
        assert not [name for name in hidden if f">{name}<" in told]
        assert "There is no report." in said(panel, "bone-report") and seen(panel).ndim == 2
        hands["next"].click()
    for name in hidden & set(hands):
        hands[name].value = next(v for v in hands[name].options if v not in ("any", "unknown"))
        assert said(panel, "bone-count") == NONE, "no test image is chosen by its label"
        hands[name].value = "any"


def test_a_browser_of_the_cohort_shows_decoded_pixels_outlines_and_reports(sealed):
    context = sealed()
    run, view = context.cohort_run, context.view()
    panel = exploring.cases(context, run, report=safety.before_and_after(context))
    hands = controls(panel)
    row = view[view["mask"].notna() & view["report"].notna()].iloc[0]
    hands["image"].value, hands["outline"].value = row["image_id"], False
    cache = context.cache(run.settings["size"])
    place = cache.rows([row["image_id"]])[0]
    assert np.abs(seen(panel)[::7, ::7] - cache.images[place]).mean() < NEAR
    hands["outline"].value = True
    lesion = images.mask(row["mask"], cache.geometry.iloc[place], size=cache.size)
    turquoise = np.ptp(seen(panel), axis=2) > 60
    assert turquoise.any()
    rows, columns = np.nonzero(lesion)
    assert not turquoise[: 7 * rows.min() - 2].any()
    assert not turquoise[:, : 7 * columns.min() - 2].any()
    hands["all pixels"].value = True
    assert seen(panel).shape[:2] == (1024, 1024)
    hands["report"].value = "de-identified"
    after = said(panel, "bone-report")
    hands["report"].value = "original"
    before = said(panel, "bone-report")
    (source,) = [r for r in safety.collect(context).itertuples() if row["image_id"] in r.images]
    surname = source.names[0].split("^")[0].split(",")[0].split()[0].lower()
    assert surname in before.lower() and surname not in after.lower() and "PATIENT" in after
    assert "synthetic radiographs" in said(panel, "bone-note")
    assert "synthetic radiographs" in panel.still().get_supxlabel()


def test_a_cohort_without_pictures_or_reports_has_no_browser_of_them(sealed):
    context = sealed()
    bare = SimpleNamespace(notes={"images_key": ""})
    assert exploring.cases(context, bare) is None
    view = context.view().assign(report=pd.NA)
    assert safety.before_and_after(SimpleNamespace(view=lambda: view)) is None


def test_similar_cases_of_a_cohort_are_those_of_its_stored_features(sealed):
    context = sealed()
    tower = encoders.image("timm:test_resnet", weights="random", size=64)
    run = SimpleNamespace(settings={"size": 64, "resize": "pad"})
    panel = exploring.similar(context, run, SimpleNamespace(image=tower))
    view = context.view()
    found = context.features(tower, context.cache(64), view["image_id"])
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    other = (view["group"] != view["group"].iloc[0]).to_numpy()
    best = np.where(other, unit @ unit[0], -2).argmax()
    assert f">{view['image_id'].iloc[best]}<" in marked(panel, "bone-facts")[1].value


def test_the_viewer_of_notebook_07_makes_the_maps_that_explain_makes(sealed):
    context = sealed()
    found = gradcam.cases(context, "train", size=64).take(np.arange(3))
    torch.manual_seed(0)
    tower = encoders.image("timm:test_resnet", weights="random", size=64)
    model = models.Classifier(tower, outputs=1)
    torch.nn.init.normal_(model.head.weight)
    one = SimpleNamespace(model=model.eval(), tower=tower, words=None)
    panel = exploring.heat_maps(context, one, found, "layer_cam:2@2")
    hands = controls(panel)
    assert [label for label, _ in hands["method"].options][:2] == ["LayerCAM", "Grad-CAM"]
    assert hands["layer"].value == (2, 2)
    hands["outline"].value, hands["case"].value = False, 2
    for way, target in (("occlusion", "tumor"), ("occlusion", "normal")):
        hands["method"].value, hands["layer"].value = way, (None, 1)
        hands["target"].value = dict(hands["target"].options)[target]
        sign = 1 if target == "tumor" else -1
        asked = dict(target=lambda row, sign=sign: sign * row[0], blank=True)
        heat = explain.heat_maps(model, found.batches(tower), method=way, **asked)[1]
        film = found.cache().images[found.cache().rows(found.table["image_id"][1:2])[0]]
        assert np.abs(seen(panel) - pictures.painted(film, heat=heat)).mean() < NEAR
    hands["method"].value = "rollout"
    assert "No map" in said(panel, "bone-facts")


def test_targets_are_the_classes_of_the_task_by_what_the_model_puts_out():
    targets = exploring.cases.__globals__["_targets"]
    row = torch.tensor([3.0, 1.0, 2.0])
    tumor = targets(cohort.task("tumor"), None)
    assert {name: float(of(row)) for name, of in tumor.items()} == {"tumor": 3, "normal": -3}
    many = targets(cohort.task("malignancy"), None)
    assert [*many] == ["its own class", "normal", "benign", "malignant"]
    assert [float(of(row)) for of in [*many.values()][1:]] == [3, 1, 2]
    words = targets(cohort.task("tumor"), lambda row: row[1] - row[0])
    assert [*words] == ["finding minus normal", *cohort.task("tumor").classes]
    ages = targets(cohort.task("bone_age"), None)
    assert [float(of(row)) for of in ages.values()] == [3, -3]


def test_errors_are_chosen_by_what_the_run_scored(sealed):
    context = sealed()
    found = gradcam.cases(context, "train", size=64).take(np.arange(4))
    names = found.table["image_id"]
    scored = pd.DataFrame({"image_id": names[::-1], "role": "chosen", "pointing": [0, 1, 1, 0]})
    scored["classifier"] = ["wrong", "right", "wrong", "right"]
    scored = pd.concat([scored, scored.assign(role="plain", classifier="right")])
    maps = np.zeros((4, 64, 64), np.float16)
    maps[3, 40:, 40:] = 1
    run = SimpleNamespace(table=lambda _: scored, array=lambda _: maps)
    panel = exploring.errors(context, run, found)
    hands = controls(panel)
    hands["error"].value = "wrong"
    assert said(panel, "bone-count") == "2 of 4 cases"
    hands["peak"].value = "beside the lesion"
    assert hands["image"].value == names[3] and said(panel, "bone-count") == "1 of 4 cases"
    hands["outline"].value = False
    hot, hands["heat map"].value = seen(panel), False
    moved = np.abs(hot - seen(panel)[..., None]).max(axis=2)
    assert moved[300:, 300:].mean() > 30 and moved[:250, :250].max() <= NEAR
    bare = SimpleNamespace(outlined=False)
    assert exploring.errors(context, run, bare) is None


# ---------------------------------------------------------------------- without a reader
@pytest.mark.notebooks
def test_without_a_reader_a_still_picture_stands_there_once():
    source = """
import numpy as np, pandas as pd
from bonelib import explore, figures
figures.use_thesis_style()
table = pd.DataFrame({"image_id": ["a", "b"], "site": [("x",), ("y",)]})
panel = explore.cases(table, lambda name: np.full((64, 64), 90, np.uint8))
"""
    cells = [nbformat.v4.new_code_cell(text) for text in (source, "panel")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=300).execute()
    shown = [o["data"] for o in notebook.cells[1].outputs if "data" in o]
    assert ["image/png" in data for data in shown] == [True]
    assert not any("application/vnd.jupyter.widget-view+json" in data for data in shown)


@pytest.mark.notebooks
def test_with_a_reader_the_widget_stands_there(tmp_path):
    source = """
import numpy as np, pandas as pd
from IPython import get_ipython
from bonelib import explore
get_ipython().kernel._allow_stdin = True  # as JupyterLab asks
table = pd.DataFrame({"image_id": ["a", "b"]})
explore.cases(table, lambda name: np.full((64, 64), 90, np.uint8))
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=300).execute()
    shown = [o["data"] for o in notebook.cells[0].outputs if "data" in o]
    assert sum("application/vnd.jupyter.widget-view+json" in data for data in shown) == 1
    assert not any("image/png" in data for data in shown)
