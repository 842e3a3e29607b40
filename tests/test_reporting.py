"""Protects the results table: recomputed from predictions, complete, and honest about the best."""

import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from bonelib import cohort, evaluation, figures, reporting, runs

PLACE = {"profile": "tiny", "data": "phantom", "task": "tumor"}
Method = evaluation.Method
METADATA = Method(strategy="probe", sees="metadata")
LITE0 = Method(start="efficientnet_lite0", strategy="probe")
DINO = Method(start="vit_small_patch14_dinov2.lvd142m", strategy="probe")
CAPTIONS = Method(start="captions", strategy="full")
PROMPTS = Method(start="captions", strategy="prompt", detail="signs")


def scored(method, strength, *, n=160, seed=0, task="tumor"):
    known, rng = cohort.task(task), np.random.default_rng(seed)
    truth = rng.integers(len(known.classes), size=n)
    logits = rng.normal(size=(n, len(known.classes)))
    logits[np.arange(n), truth] += strength
    view = pd.DataFrame(
        {
            "image_id": [f"i{k:03d}" for k in range(n)],
            "patient": [f"p{k // 2}" for k in range(n)],
            "split": "test",
            known.column: np.array(known.classes)[truth],
        }
    )
    return evaluation.predictions(view, logits, task=task, seed=seed, method=method)


def store(stage, predictions, *, inputs=(), variant="default", openings=1, **notes):
    run = runs.start(stage, **PLACE, variant=variant, reuse=False, inputs=inputs)
    run.save_table("predictions", predictions)
    for _ in range(openings):
        run.log_opening({"test": "fold0"})
    run.note(**notes)
    return run.finish(AUROC=0.123456)  # a recorded number that the table must not repeat


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BONELIB_RUNS", str(tmp_path))


@pytest.fixture
def baselines():
    missing = [{"method": DINO.columns(), "reason": "no file"}]
    return store(
        "baselines", pd.concat([scored(METADATA, 0.3), scored(LITE0, 1.0)]), unavailable=missing
    )


def results():
    return reporting.results(**PLACE, draws=80)


def test_of_two_hospitals_under_one_name_the_asked_one_is_shown(folder, tmp_path):
    for name, strength in (("one", 0.2), ("two", 3.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.png").write_text(name)
        place = PLACE | {"data": "fracatlas", "root": str(tmp_path / name)}
        run = runs.start("baselines", **place)
        run.save_table("predictions", scored(METADATA, strength))
        run.finish()
    shown = [
        reporting.results(**PLACE | {"data": "fracatlas", "root": str(tmp_path / name)}, draws=20)
        for name in ("one", "two")
    ]
    assert shown[0]["AUROC"].max() < shown[1]["AUROC"].min()


def test_results_are_recomputed_from_the_stored_predictions(baselines):
    table = results().set_index("method")
    expected = evaluation.metrics(
        scored(METADATA, 0.3), task="tumor", draws=80, only=("AUROC",)
    ).iloc[0]
    row = table.loc["metadata only"]
    assert row["AUROC"] == expected["value"] and row["AUROC_low"] == expected["low"]
    assert (row["n"], row["groups"], row["group_kind"]) == (160, 80, "patient")
    assert row["openings"] == 1 and row["stage"] == "baselines"
    assert 0.123456 not in table["AUROC"].to_numpy()


def test_a_row_without_weights_is_words_and_not_a_number(baselines):
    table = results()
    row = table.set_index("method").loc["DINOv2-S, frozen"]
    assert row["status"] == "weights not available" and np.isnan(row["AUROC"])
    for text in (reporting.to_markdown(table), reporting.to_latex(table)):
        line = next(line for line in text.splitlines() if "DINOv2" in line)
        assert "weights not available" in line and "nan" not in text
    figures.plot_forest(table)  # takes the table as it is


def test_stale_runs_other_tasks_and_runs_without_predictions_stay_out(baselines):
    store("finetuning", scored(CAPTIONS, 2.0), inputs=[baselines])
    assert "captions, fine-tuned" in set(results()["method"])
    runs.start("pretraining", profile="tiny", data="phantom").finish()
    other = runs.start("baselines", profile="tiny", data="phantom", task="malignancy")
    other.save_table("predictions", scored(METADATA, 1.0, task="malignancy"))
    other.finish()
    store("baselines", scored(METADATA, 0.3, seed=5))  # remade: the fine-tuning is stale
    table = results()
    assert list(table["method"]) == ["metadata only"]


@pytest.mark.parametrize(
    ("recorded", "kind"),
    [
        ({"caption_fields": ["view", "signs"]}, "zero-shot"),
        ({"caption_fields": ["view", "site"]}, "zero-shot, negative control"),
        ({"caption_fields": ["view", "signs", "tumor"]}, "label-supervised text"),
        ({}, "label-supervised text"),  # who knows what these captions named
    ],
)
def test_only_prompts_are_zero_shot_and_only_if_no_caption_named_the_label(recorded, kind):
    fitted = Method(start="captions", strategy="probe", detail="zero-shot prompts")
    tables = [scored(PROMPTS, 0.8), scored(METADATA, 0.3), scored(fitted, 0.3)]
    store("zero_shot", pd.concat(tables), **recorded)
    table = results().set_index("strategy")["label"]
    assert table["prompt"] == kind and table["probe"].tolist() == ["", ""], "the name says nothing"


@pytest.mark.parametrize("stage", ["baselines", "finetuning"])
def test_predictions_that_do_not_say_what_made_them_are_refused_with_their_notebook(stage):
    old = scored(METADATA, 0.3).drop(columns=list(evaluation.METHOD)).assign(method="metadata only")
    store(stage, old)
    with pytest.raises(ValueError, match=f"bonelib run {runs.NOTEBOOKS[stage]}"):
        results()
    with pytest.raises(ValueError, match=r"method=evaluation.Method\(start="):
        reporting.scores(old, task="tumor")


def test_sensitivity_stands_where_a_threshold_was_frozen():
    tables = [scored(METADATA, 0.3), scored(CAPTIONS, 2.0).assign(threshold=0.3)]
    store("finetuning", pd.concat(tables))
    table = results().set_index("method")
    one = scored(CAPTIONS, 2.0)
    flagged = one.loc[one["label"] == "tumor", "p_tumor"] >= 0.3
    assert table.loc["captions, fine-tuned", "sensitivity"] == pytest.approx(flagged.mean())
    assert np.isnan(table.loc["metadata only", "sensitivity"])


def test_bold_needs_a_lead_that_chance_does_not_explain():
    clear = pd.concat([scored(METADATA, 0.2), scored(CAPTIONS, 3.0, seed=0)])
    table = reporting.scores(clear, task="tumor", draws=100)
    assert table.set_index("sees")["best"].to_dict() == {"metadata": False, "image": True}
    value = figures.number(table["AUROC"].max())
    assert f"**{value}** [" in reporting.to_markdown(table)
    assert rf"\textbf{{{value}}} [" in reporting.to_latex(table)
    close = scored(CAPTIONS, 1.0)
    twin = close.assign(detail="twin")
    twin.loc[0, ["p_normal", "p_tumor"]] = twin.loc[0, ["p_tumor", "p_normal"]].to_numpy()
    table = reporting.scores(pd.concat([close, twin]), task="tumor", draws=100)
    assert not table["best"].any() and "**" not in reporting.to_markdown(table)


def test_a_lead_on_other_images_is_no_lead():
    some = scored(CAPTIONS, 3.0).iloc[:100]
    table = reporting.scores(pd.concat([scored(METADATA, 0.2), some]), task="tumor", draws=20)
    assert not table["best"].any()


def test_the_metadata_score_is_printed_or_missed_aloud(baselines):
    assert "metadata only" in reporting.to_markdown(results())
    alone = reporting.scores(scored(LITE0, 1.0), task="tumor", draws=10)
    assert "Missing: the score of age, sex and site alone" in reporting.to_markdown(alone)


def test_a_fusion_is_not_scored_without_its_metadata_alone_on_the_same_images():
    fused = scored(Method("efficientnet_lite0", "probe", "image+metadata"), 1.0)
    for table in (fused, pd.concat([fused, scored(METADATA, 0.3).iloc[1:]])):
        for report in (reporting.scores, reporting.fusion_gains):
            with pytest.raises(ValueError, match="nothing says what its metadata reach alone"):
                report(table, task="tumor", draws=10)
    both = pd.concat([fused, scored(METADATA, 0.3)])
    assert "metadata only" in reporting.to_markdown(reporting.scores(both, task="tumor", draws=10))


def test_unopened_labels_are_said_not_scored():
    closed = scored(CAPTIONS, 1.0).assign(label=pd.NA)
    table = reporting.scores(pd.concat([closed, scored(METADATA, 0.3)]), task="tumor", draws=10)
    assert "test labels not opened" in reporting.to_markdown(table)


def test_latex_is_a_whole_booktabs_table_with_escaped_names():
    odd = Method(start="R&D_50 100% <κ|", strategy="probe")
    table = reporting.scores(scored(odd, 1.0), task="tumor", draws=20)
    text = reporting.to_latex(table)
    assert r"R\&D\_50 100\% \ensuremath{<}\ensuremath{\kappa}\textbar{}" in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    head = text.splitlines()[2]
    assert head.count(" & ") == body[0].count(" & ") and body[0].endswith(r"\\")
    assert text.startswith(r"\begin{tabular}") and text.endswith("\\end{tabular}\n")


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex (TeX Live) is not installed")
def test_latex_compiles_whatever_a_method_is_called(tmp_path):
    names = [
        "age < 10",
        "a | b",
        "κ ≥ .5",
        "50 % of $x_1$",
        "[in brackets]",
        "Röntgen ± 2 °C",
        "~^\\{}",
    ]
    parts = [scored(Method(start=name, strategy="probe"), 1.0) for name in names]
    table = reporting.to_latex(reporting.scores(pd.concat(parts), task="tumor", draws=20))
    head = r"\documentclass{article}\usepackage{booktabs}\begin{document}"
    (tmp_path / "page.tex").write_text(head + table + r"\end{document}", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-800:]
    assert b"Missing character" not in done.stdout


def test_markdown_says_what_the_numbers_stand_on(baselines):
    text = reporting.to_markdown(results())
    assert "95 % intervals: bootstrap over patients; n = 160 images of 80 patients." in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_no_runs_is_an_error_that_says_what_to_run():
    with pytest.raises(ValueError, match="bonelib run 02 05 06"):
        results()


def test_a_regression_is_best_where_its_error_is_smallest():
    rng = np.random.default_rng(0)
    view = pd.DataFrame({"image_id": [f"i{k}" for k in range(60)], "split": "test"})
    view["bone_age"] = rng.uniform(20, 200, size=60)
    tables = [
        evaluation.predictions(
            view,
            view["bone_age"] + rng.normal(size=60) * noise,
            task="bone_age",
            seed=0,
            method=method,
        )
        for method, noise in ((METADATA, 30), (CAPTIONS, 4))
    ]
    table = reporting.scores(pd.concat(tables), task="bone_age", draws=50)
    assert table.set_index("sees")["best"].to_dict() == {"metadata": False, "image": True}
    assert "MAE" in reporting.to_markdown(table)


# ---------------------------------------------------------------------- recipes of the pretraining
def recipe(name, fold, strength, *, probe="test", place=None, **settings):
    """A pretraining run whose tower got better by ``strength`` on the images of one fold."""
    start = Method(start="imagenet", strategy="probe")
    trained = Method(start="captions", strategy="probe", detail=name)
    # one truth, two guesses
    table = pd.concat([scored(start, 0.4, seed=fold), scored(trained, strength, seed=fold)])
    table["image_id"] = f"f{fold}" + table["image_id"]
    table["patient"] = f"f{fold}" + table["patient"]
    table = table.assign(task="tumor", share=1.0, in_captions=False)
    variant = f"{name}-fold{fold}-{probe}{settings.get('epochs', '')}"
    settings |= dict(recipe={"name": name}, test=f"fold{fold}", evaluate_on=probe)
    place = dict(profile="tiny", data="phantom", variant=variant) | (place or {})
    run = runs.start("pretraining", **place, **settings)
    run.save_table("probes", table)
    run.save_table("history", pd.DataFrame({"epoch": [0, 1, 2], "cpu_seconds": [np.nan, 30, 60.0]}))
    run.finish()
    return table


def test_recipes_are_pooled_over_folds_and_set_beside_start_and_published():
    parts = [recipe("ours", fold, 2.0) for fold in (0, 1)]
    [recipe("published", fold, 0.4) for fold in (0, 1)]
    recipe("ours", 2, 2.0, probe="val")  # to choose by, not to print
    table = reporting.recipes(profile="tiny").set_index("recipe")
    row = table.loc["ours"]
    whole = pd.concat(parts)
    two = dict(tuple(whole.groupby("detail")))
    expected = evaluation.metrics(two["ours"], task="tumor", only=("AUROC",)).iloc[0]
    assert (row["value"], row["low"], row["n"]) == (expected["value"], expected["low"], 320)
    lead = evaluation.compare(two["ours"], two[""], task="tumor")
    assert (row["gain"], row["gain_low"]) == (lead["value"], lead["low"])
    assert row["gain_low"] > 0 and row["over published_low"] > 0
    assert row["folds"] == 2 and not row["in_captions"] and row["minutes"] == 1.5
    assert np.isnan(table.loc["published", "over published"])


def test_two_hospitals_under_one_name_are_not_pooled(tmp_path):
    for name, strength in (("one", 0.2), ("two", 3.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.png").write_text(name)
        recipe("ours", 0, strength, place=dict(data="fracatlas", root=str(tmp_path / name)))
    table = reporting.recipes(profile="tiny")
    assert len(table) == 2 and table["data"].str.match(r"fracatlas-[0-9a-f]{6}").all()
    assert table["n"].tolist() == [160, 160]


def test_folds_of_two_seeds_are_not_pooled_and_a_rival_is_of_the_same_folds():
    recipe("ours", 0, 2.0), recipe("published", 0, 0.4)
    for name in ("ours", "published"):
        place = dict(variant=f"{name}-folds1")
        recipe(name, 0, 0.4, place=place, split_seed=1)
    table = reporting.recipes(profile="tiny").set_index(["split_seed", "recipe"])
    assert len(table) == 4 and (table["n"] == 160).all()
    assert table.loc[(0, "ours"), "over published_low"] > 0
    assert table.loc[(1, "ours"), "over published"] == 0, "beside the rival of its own folds"
    found = reporting.contrasts(table.reset_index(), of="published")
    assert found.set_index("split_seed")["p_holm"].loc[0] < 0.05, "a family for each split"
    rows = reporting.study_rows(table.reset_index(), command="bonelib study facts")
    assert rows.groupby("recipe")["split_seed"].agg(list).tolist() == [[0, 1], [0, 1]]
    assert reporting.study_table(rows).count("`ours` |") == 2


def test_without_judged_recipes_the_table_is_empty():
    assert reporting.recipes(profile="tiny").empty
    recipe("ours", 0, 2.0, probe="val")
    assert reporting.recipes(profile="tiny").empty


def test_the_chosen_recipe_takes_most_off_the_error_of_the_published_one():
    for name, strength in (("published", 0.4), ("worse", 0.1), ("ours", 2.0)):
        recipe(name, 0, strength, probe="val")
    table = reporting.recipes(profile="tiny", judged="val")
    ranked = reporting.choice(table)
    assert ranked.index.tolist() == ["ours", "published", "worse"]
    assert ranked.loc["published", "error removed"] == 0
    value = table.set_index("recipe")["value"]
    removed = (value["ours"] - value["published"]) / (1 - value["published"])
    assert ranked.loc["ours", "error removed"] == pytest.approx(removed)
    months = table["recipe"].map({"published": 20.0, "worse": 30.0, "ours": 15.0})
    other = table.assign(task="bone_age", metric="MAE", value=months)
    both = reporting.choice(pd.concat([table, other]))
    assert both.loc["ours", "error removed"] == pytest.approx((removed + 0.25) / 2)
    assert both.index[-1] == "worse", "more months are a larger error"
    alone = reporting.choice(table[table["recipe"] == "ours"])
    assert alone["error removed"].isna().all() and alone.loc["ours", "tumor"] == value["ours"]


def test_any_recipe_can_stand_beside_the_others():
    for fold in (0, 1):
        recipe("ours", fold, 2.0), recipe("shuffled", fold, 0.4)
    table = reporting.recipes(profile="tiny", beside="ours").set_index("recipe")
    assert table.loc["shuffled", "over ours_high"] < 0
    assert np.isnan(table.loc["ours", "over ours"])


def test_contrasts_say_by_how_much_one_recipe_is_better_than_each_control():
    for fold in (0, 1):
        recipe("ours", fold, 2.0), recipe("shuffled", fold, 0.4), recipe("exact", fold, 2.0)
    table = reporting.recipes(profile="tiny", beside="ours")
    found = reporting.contrasts(table).set_index("control")
    assert set(found.index) == {"shuffled", "exact"}
    row, lead = found.loc["shuffled"], table.set_index("recipe").loc["shuffled"]
    assert row["better"] == -lead["over ours"] > 0 and row["verdict"] == "better"
    assert (row["low"], row["high"]) == (-lead["over ours_high"], -lead["over ours_low"])
    assert found.loc["exact", "verdict"] == "no difference shown", "the same guesses"
    assert row["p_holm"] == min(1, 2 * row["p"]) and found["p_holm"].max() <= 1
    many = pd.concat([table] + [table[table["recipe"] == "exact"]] * 60).reset_index(drop=True)
    many.loc[many["recipe"] == "shuffled", "over ours_p"] = 0.03
    many = reporting.contrasts(many).set_index("control")
    assert many.loc["shuffled", "low"] > 0, "an interval of its own"
    assert many.loc["shuffled", "verdict"] == "no difference shown", "among sixty, that is luck"
    months = reporting.contrasts(table.assign(metric="MAE")).set_index("control")
    assert months.loc["shuffled", "better"] == lead["over ours"], "less error is better"
    assert months.loc["shuffled", "verdict"] == "worse"
    assert reporting.contrasts(reporting.recipes(profile="tiny", beside="none")).empty


def test_probes_that_do_not_say_whose_they_are_are_refused():
    table = recipe("ours", 0, 2.0)
    settings = dict(recipe={"name": "ours"}, evaluate_on="test", test="fold0")
    run = runs.start("pretraining", profile="tiny", data="phantom", **settings)
    run.save_table("probes", table.drop(columns="detail"))
    run.finish()
    with pytest.raises(ValueError, match="bonelib run 04"):
        reporting.recipes(profile="tiny")


def test_runs_of_other_settings_are_another_row_and_not_mixed_in():
    for fold in (0, 1):
        recipe("ours", fold, 2.0, epochs=12), recipe("published", fold, 0.4)
    recipe("ours", 0, 0.2, epochs=1)
    table = reporting.recipes(profile="tiny").set_index("recipe")
    long, short = "ours (ours-fold0-test12)", "ours (ours-fold0-test1)"
    assert set(table.index) == {"published", long, short}
    assert table.loc[long, "folds"] == 2 and table.loc[short, "folds"] == 1
    assert table.loc[long, "value"] > table.loc[short, "value"]
    assert table["over published"].notna().sum() == 2
    ranked = reporting.choice(table.reset_index())
    assert np.isnan(ranked.loc[short, "error removed"]), "it saw other images"
    assert ranked.index[0] == long


def test_the_images_that_chose_a_recipe_can_be_left_out():
    for fold in (0, 1):
        recipe("ours", fold, 2.0)
    chosen = recipe("ours", 1, 2.0, probe="val")
    whole = reporting.recipes(profile="tiny")
    fresh = reporting.recipes(profile="tiny", fresh=True)
    lost = chosen["image_id"].nunique()
    assert lost and fresh["n"].item() == whole["n"].item() - lost and fresh["folds"].item() == 1


def test_images_that_chose_with_another_seed_or_profile_are_left_out_and_unknown_ones_never_pass():
    recipe("ours", 0, 2.0), recipe("ours", 1, 2.0)
    assert reporting.recipes(profile="tiny", fresh=True).empty, "what chose is not known"
    place = dict(profile="demo", seed=3)
    chosen = recipe("base", 1, 2.0, probe="val", place=place)
    whole = reporting.recipes(profile="tiny")
    fresh = reporting.recipes(profile="tiny", fresh=True)
    assert fresh["n"].item() == whole["n"].item() - chosen["image_id"].nunique()
