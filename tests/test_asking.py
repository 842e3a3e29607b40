"""Protects the sections of notebook 06 on wording, retrieval and similar cases, on a small set."""

from types import SimpleNamespace
from typing import NamedTuple

import matplotlib

matplotlib.use("agg")

import numpy as np
import pandas as pd
import pytest
import torch

from bonelib import captions, encoders, features, figures, models, runs
from bonelib.experiments import retrieving, wording
from bonelib.experiments.context import in_order

pytestmark = pytest.mark.usefixtures("clean_canvas")


class Variant(NamedTuple):
    kind: str
    name: str
    language: str
    prompts: dict


def variants(task, language):
    frames = {"{}": "template", "x-ray: {}": "template", "not {other}": "negation"}
    said = {"normal": "normal bone", "tumor": "a tumor"}
    others = {"normal": "a tumor", "tumor": "normal bone"}
    return [
        Variant(kind, f, language, {c: [f.format(s, other=others[c])] for c, s in said.items()})
        for f, kind in frames.items()
    ]


@pytest.fixture(scope="module")
def asked(sealed):
    """A context, its run of 06, a stand-in for a pretraining, its model, and the opened archive."""
    context = sealed()
    torch.manual_seed(0)
    towers = (
        encoders.image("packaged:efficientnet_lite0", size=64),
        encoders.text("packaged:minilm"),
    )
    model = models.DualEncoder(*towers, dim=32).eval()
    settings = dict(size=64, resize="pad", language="en")
    notes = dict(caption_fields=["view", "site", "signs"])
    pretraining = SimpleNamespace(settings=settings, notes=notes, bundle="")
    run = context.start("zero_shot", settings=dict(test="fold0"), inputs=[context.cohort_run])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load_bundle", lambda _: model)
        archive = retrieving.open_archive(context, run, pretraining)
        again = retrieving.open_archive(context, run, pretraining)
    assert len(runs.record.openings(run.path)) == 1 and again.test.equals(archive.test), (
        "one look at the labels"
    )
    return SimpleNamespace(
        context=context, run=run, pretraining=pretraining, model=model, archive=archive
    )


def test_stored_features_are_projected_to_what_the_model_encodes(asked):
    loader = in_order(asked.archive.cache, asked.archive.test["image_id"], asked.model.image)
    direct = features.encode(asked.model.encode_image, loader)
    found = features.projected(asked.model, asked.archive.queries)
    np.testing.assert_allclose(found, direct, atol=2e-6)


def test_every_wording_of_every_language_is_asked_and_reported(asked, monkeypatch):
    monkeypatch.setattr(captions, "variants", variants, raising=False)
    words = SimpleNamespace(model=asked.model, reason="")
    labels = asked.archive.test[["image_id", "tumor"]].rename(columns={"tumor": "label"})
    options = (asked.context, asked.run, asked.pretraining, words)
    table = wording.ask(*options, labels)
    languages = captions.languages()
    assert len(table) == len(labels) * len(languages) * 4, "three variants and an ensemble"
    report, values = wording.score(asked.context, table)
    assert report[["language", "kind"]].to_numpy().tolist() == [
        [name, kind] for name in languages for kind in ("template", "negation")
    ]
    figure = wording.draw(asked.context, report, values)
    assert len(figure.axes[0].get_yticklabels()) == len(report)
    drawn = sum(len(line.get_xdata()) for line in figure.axes[0].lines if line.get_marker() == "o")
    assert drawn == len(values) == 3 * len(languages), "a dot for each single prompt"
    read = wording.read(asked.context, report)
    assert read.count("templates reach AUROC") == len(languages) and "denying another" in read
    assert list(wording.show(report)["variants"]) == [2, 1] * len(languages)


def test_each_sentence_counts_once_in_the_share_that_is_misunderstood(asked):
    kinds = {"kind": ["template", "paraphrase", "negation"], "variants": [20, 5, 4]}
    report = pd.DataFrame(kinds | {"language": "en", "opposite": [0.0, 1.0, 0.5]})
    report[["lowest", "highest", "spread", "spread_low", "spread_high", "flips"]] = 0.5
    read = wording.read(asked.context, report)
    assert "50% lie nearer" in read and "of all others 20%" in read, "5 of 25"


def test_where_there_are_no_words_nothing_is_asked(asked):
    words = SimpleNamespace(model=None, reason="It reads no words.")
    table = wording.ask(asked.context, asked.run, asked.pretraining, words, pd.DataFrame())
    report, values = wording.score(asked.context, table)
    assert wording.draw(asked.context, report, values) is None
    assert "nothing to ask" in wording.read(asked.context, report)
    assert wording.show(report).empty


def test_images_and_captions_are_ranked_both_ways(asked):
    table = retrieving.retrieve(asked.context, asked.run, asked.pretraining, asked.archive)
    assert list(table["direction"].unique()) == ["image to text", "text to image"]
    assert len(table) == 2 * len(asked.archive.test)
    scores = retrieving.score_retrieval(table)
    assert list(scores["measure"]) == ["R@1", "R@5", "R@10", "MRR"] * 2 + ["median rank"] * 2
    first = scores.iloc[0]
    own = table[table["direction"] == first["direction"]]
    assert first[["value", "chance"]].tolist() == pytest.approx(
        [own["recall_1"].mean(), own["chance_recall_1"].mean()]
    )
    assert scores.iloc[8]["value"] == own["rank"].median()
    assert (scores["n"] == len(own)).all() and scores["n"].dtype == int
    assert f"of {len(own)} queries from text to image" in retrieving.read_retrieval(scores)


def test_outlines_that_training_captions_named_are_not_asked_of_test_images(asked):
    fields = [*asked.pretraining.notes["caption_fields"], captions.OUTLINES]
    outlined = SimpleNamespace(**vars(asked.pretraining) | {"notes": {"caption_fields": fields}})
    said, keys = retrieving._captions(asked.context, outlined, asked.archive.test)
    plain, of_plain = retrieving._captions(asked.context, asked.pretraining, asked.archive.test)
    assert said == plain and (keys == of_plain).all()


def test_own_words_are_asked_as_they_stand_and_not_where_there_are_none(asked):
    own = SimpleNamespace(**vars(asked.pretraining) | {"notes": {"caption_fields": [captions.OWN]}})
    test = asked.archive.test.assign(caption=["A cyst.", " "] * (len(asked.archive.test) // 2))
    said, keys = retrieving._captions(asked.context, own, test)
    assert said[:2] == ["A cyst.", ""] and (keys[::2] == 0).all() and (keys[1::2] == -1).all()
    assert (retrieving._captions(asked.context, own, asked.archive.test)[1] == -1).all()


def test_a_bone_age_is_alike_by_its_stage():
    ages = pd.Series([10.0, 11.0, 200.0], name="bone_age")
    stages = retrieving._named(ages)
    assert stages[0] == stages[1] != stages[2]


def test_a_model_of_images_alone_finds_similar_cases_and_no_captions(asked):
    import dataclasses

    alone = dataclasses.replace(
        asked.archive, model=models.Classifier(asked.model.image, outputs=1)
    )
    run = SimpleNamespace(
        finished=False, save_table=lambda *_: None, table=lambda _: pd.DataFrame()
    )
    table = retrieving.retrieve(asked.context, run, asked.pretraining, alone)
    assert table.empty and "reads no text" in retrieving.read_retrieval(
        retrieving.score_retrieval(table)
    )


def test_similar_cases_are_of_other_patients_and_agree_by_entity(asked):
    table = retrieving.find_similar(asked.context, asked.run, asked.archive)
    library = asked.archive.library.set_index("image_id")
    known = asked.archive.test["entity"].notna()
    assert len(table) == known.sum() > 0 and set(table["by"]) == {"entity"}
    for row in table.to_dict("records"):
        ids = [row[name] for name in retrieving.NEIGHBOURS]
        assert row["group"] not in set(library.loc[ids, "group"])
        agree = library.loc[ids, "entity"].astype(str) == row["label"]
        assert row["precision_5"] == pytest.approx(agree.mean())
    scores = retrieving.score_similar(table)
    whole = scores[(scores["label"] == "all") & (scores["measure"] == "precision_5")].iloc[0]
    assert whole["value"] == pytest.approx(table["precision_5"].mean())
    assert whole["chance"] == pytest.approx(table["chance"].mean())
    figure = retrieving.draw_similar(asked.archive, table)
    assert len(figure.axes) == 6 * min(retrieving.SHOWN, len(table))
    assert "other patients" in retrieving.read_similar(scores, table)


def test_without_a_known_class_nothing_is_alike(asked):
    import dataclasses

    bare = asked.archive.library.assign(entity=pd.NA, tumor=pd.NA)
    archive = dataclasses.replace(asked.archive, library=bare)
    kept = {}
    run = SimpleNamespace(finished=False, save_table=kept.__setitem__, table=kept.__getitem__)
    table = retrieving.find_similar(asked.context, run, archive)
    scores = retrieving.score_similar(table)
    assert retrieving.draw_similar(archive, table) is None
    assert "No class is known" in retrieving.read_similar(scores, table)


def test_a_page_of_similar_cases_fills_up_rows_of_few_neighbours():
    film = np.zeros((8, 8), np.uint8)
    rows = [[(film, "cyst", None), (film, "cyst", True), (film, "other", False)]]
    rows.append([(film, "cyst", None)])
    axes = figures.similar_sheet(rows).axes
    assert [ax.get_title() for ax in axes] == [
        "query: cyst",
        "✓ cyst",
        "✗ other",
        "query: cyst",
        "",
        "",
    ]
    assert [len(ax.patches) for ax in axes] == [0, 1, 1, 0, 0, 0]
