"""Protects the results chapter: complete, honest about what is open, and compiled."""

import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from bonelib import cohort, evaluation, reporting, runs
from bonelib.__main__ import main
from bonelib.experiments import results
from bonelib.experiments.context import Context
from bonelib.experiments.results import facts
from bonelib.reporting.checklists import _rows
from bonelib.reporting.printing import INTERVAL, Printed

METHODS = [
    evaluation.Method(sees="metadata", strategy="probe"),
    evaluation.Method(start="captions", strategy="full"),
    evaluation.Method(start="R&D_50 100% <κ|", strategy="probe", detail="~^\\{}"),
]


def view(n=120):
    rng = np.random.default_rng(0)
    table = cohort.empty(n)
    table["image_id"] = [f"i{k:03d}" for k in range(n)]
    table["patient"] = [f"PAT{k // 2:03d}" for k in range(n)]
    table["center"] = rng.choice(["A", "B"], n)
    table["age"] = np.repeat(rng.integers(5, 80, n // 2), 2).astype(float)
    table["sex"] = np.repeat(rng.choice(["F", "M"], n // 2), 2)
    table["site"] = [("femur",) if k % 3 else ("femur", "tibia") for k in range(n)]
    table["view"] = [("frontal",) for _ in range(n)]
    table["split"] = np.repeat(["train", "val", "test"], n // 3)
    table["group"] = table["patient"]
    return table.assign(label=np.where(rng.random(n) < 0.5, "tumor", "normal"))


def scores(stage="finetuning"):
    rng, parts = np.random.default_rng(1), []
    known = cohort.task("tumor")
    table = view().rename(columns={"label": known.column})
    for k, method in enumerate(METHODS):
        logits = rng.normal(size=(len(table), 2))
        logits[np.arange(len(table)), (table[known.column] == "tumor").astype(int)] += k
        made = evaluation.predictions(table, logits, task="tumor", seed=0, method=method)
        parts.append(made.assign(threshold=0.5))
    found = reporting.scores(pd.concat(parts), task="tumor", draws=60)
    return found.assign(stage=stage, variant="default", seed=0, openings=1, run="r")


def maps(gain=0.3):
    rng, rows = np.random.default_rng(2), []
    for name, sees, mean in (("plain", "image", 0.2), ("centre prior", "none", 0.2 + gain)):
        shared = np.random.default_rng(3).normal(0, 0.3, 60)
        rows.append(
            pd.DataFrame(
                {
                    "image_id": [f"i{k}" for k in range(60)],
                    "patient": [f"p{k // 2}" for k in range(60)],
                    "pointing": mean + shared + rng.normal(0, 0.05, 60),
                    "start": "none",
                    "strategy": "none",
                    "sees": sees,
                    "detail": name,
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


# ---------------------------------------------------------------------- Table 1
def test_table_1_counts_images_patients_and_what_is_missing():
    table = view()
    table.loc[0:1, "age"] = np.nan
    table.loc[4:7, "patient"] = pd.NA
    table.loc[4:7, "group"] = "g1"
    table.at[0, "view"] = ()
    table.loc[119, "label"] = pd.NA
    found = reporting.characteristics(table, task=cohort.task("tumor"))
    cells = found.set_index(["characteristic", "value"])
    assert cells.loc[("images", ""), "all"] == "120"
    assert cells.loc[("patients", ""), "training"] == "18"
    assert cells.loc[("images without a patient id", ""), "all"] == "4 (3.3 %)"
    assert cells.loc[("age, years", "missing"), "training"] == "1 (5.3 %)", (
        "of 18 patients, 1 group"
    )
    ages = table["age"].iloc[40:80:2]
    low, middle, high = ages.quantile([0.25, 0.5, 0.75])
    told = cells.loc[("age, years", ""), "validation"]
    assert told == f"{middle:.0f} [{low:.0f}, {high:.0f}]"
    assert cells.loc[("site", "femur"), "test"] == "40 (100.0 %)", "an image with two counts twice"
    assert cells.loc[("view", "missing"), "training"] == "1 (2.5 %)"
    tumours = (table["label"].iloc[80:] == "tumor").sum()
    assert cells.loc[("tumor", "tumor"), "test"].startswith(f"{tumours} (")
    assert cells.loc[("tumor", "missing"), "test"] == "1 (2.5 %)", "not opened is counted"
    form = reporting.characteristics_form(found)
    for text in (form.markdown(), form.latex()):
        assert not re.search(r"PAT\d|i\d\d\d", text), "no id of anybody"


def test_table_1_of_values_has_quartiles_and_of_nobody_known_no_patients():
    table = view().assign(patient=pd.NA, label=np.arange(120.0))
    found = reporting.characteristics(table, task=cohort.task("bone_age"))
    cells = found.set_index(["characteristic", "value"])["all"]
    assert cells[("patients", "")] == "0" and cells["bone_age, months"][""] == "60 [30, 89]"
    assert cells[("images without a patient id", "")] == "120 (100.0 %)"


# ---------------------------------------------------------------------- heat maps
def test_a_map_is_bold_only_ahead_of_the_next_by_a_paired_interval():
    clear = reporting.localisation(maps(), draws=200)
    best = clear.set_index("sees")["best"]
    assert best["none"] and not best["image"], "bold goes to a prior as well"
    assert "**.495** [" in reporting.localisation_form(clear).markdown()
    assert not reporting.localisation(maps(gain=0.0), draws=200)["best"].any()
    part = maps()
    part = part[~((part["sees"] == "none") & (part["image_id"] == "i3"))]
    assert not reporting.localisation(part, draws=50)["best"].any(), "other images: no lead"


def test_maps_of_one_model_are_told_apart_by_how_they_were_made():
    table = maps().assign(map=["own"] * 60 + [""] * 60)
    twice = pd.concat([table, table.head(60).assign(map="grad_cam")])
    names = reporting.localisation(twice, draws=20)["name"].tolist()
    roles = np.repeat(["chosen", "prior", "plain"], 60)
    told = reporting.localisation(twice.assign(role=roles), draws=20)
    assert [name.endswith(" (chosen)") for name in told["name"]] == [True, False, False]
    assert len(set(names)) == 3 and names[0].endswith("own") and names[2].endswith("grad cam")


# ---------------------------------------------------------------------- checklists and card
def test_items_are_filled_partly_or_open_by_what_is_known():
    facts = reporting.sentences({"task": "tumor", "classes": "normal, tumor", "model": "m"})
    assert facts["task"] == "The task tumor asks for normal, tumor."
    assert "threshold" not in facts and "model" not in facts, "half of what it needs is no answer"
    table = reporting.checklist("claim_2024", facts).set_index("item")
    assert table.loc["6", "status"] == "filled" and table.loc["1", "status"] == "open"
    assert (
        reporting.checklist("claim_2024", {"code": "here"}).set_index("item").loc["43", "status"]
        == "partly"
    )  # where the model and the data are, nobody said
    told = reporting.filled(table)
    assert sum(map(int, re.findall(r"\d+", told))) == 44
    empty = reporting.checklist("tripod_ai_2024", reporting.sentences({}))
    assert empty.loc[empty["item"] == "3a", "answer"].item() == ""


def test_the_lists_are_whole_and_ask_for_sentences_that_there_are():
    assert _rows("claim_2024")["item"].tolist() == [str(k) for k in range(1, 45)]
    assert _rows("metrics_2024")["item"].tolist() == [str(k) for k in range(1, 31)]
    numbers = [int(re.match(r"\d+", item)[0]) for item in _rows("tripod_ai_2024")["item"]]
    assert sorted(set(numbers)) == list(range(1, 28))
    unknown = {"eligibility", "robustness", "fairness", "representative", "data_availability"}
    unknown |= {"augmentation", "failures", "protocol", "setting", "utility", "confounders"}
    unknown.add("availability")
    said = set(_rows("facts")["key"])
    for name in (*reporting.CHECKLISTS, "model_card"):
        rows = _rows(name)
        asked = {key for keys in rows["key"] for key in keys.split()}
        assert asked <= said | unknown, f"{name} asks for {sorted(asked - said - unknown)}"
        assert set(rows["basis"]) <= {"read", "recalled"} and rows["asked"].ne("").all()
    assert not said & unknown, "what the run came to know is no longer unknown"


def test_items_that_ask_for_more_than_a_run_knows_are_never_filled():
    every = dict.fromkeys(_rows("facts")["key"], "said")
    status = {n: reporting.checklist(n, every).set_index("item") for n in reporting.CHECKLISTS}
    thin = {"claim_2024": ("25", "39", "42", "43"), "metrics_2024": ("17", "19")}
    thin["tripod_ai_2024"] = ("5a", "6a", "6b", "12e", "14", "22")
    for name, items in thin.items():
        assert set(status[name].loc[[*items], "status"]) == {"partly"}, name


def test_centres_that_nobody_noted_answer_nothing():
    described = reporting.characteristics(view().assign(center=pd.NA), task=cohort.task("tumor"))
    notes = dict(group_kinds={"patient": 120})
    run = SimpleNamespace(head={"data_name": "x"}, notes=notes, settings={}, table=lambda _: [])
    context = SimpleNamespace(cohort_run=run, asked=cohort.task("tumor"), synthetic=False)
    model = SimpleNamespace(run=SimpleNamespace(settings={"test": "fold0"}))
    told = facts._data(context, model, described)
    assert told["centres"] == "" and "centre 120 (100.0 %)" in told["missing"]


def test_the_best_method_of_images_alone_and_without_outlines_stands_beside_the_best():
    rows = [("outlined", "image", 0.9), ("full", "image", 0.8), ("probe", "metadata", 0.6)]
    table = pd.DataFrame(rows, columns=["strategy", "sees", "AUROC"])
    table = table.assign(stage="finetuning", start="captions", detail="", AUROC_low=0.5)
    table = table.assign(AUROC_high=table["AUROC"] + 0.05)
    context = Context()
    said = results.read(context, table)
    assert "Best: *captions, taught with outlines* (finetuning), AUROC .900" in said
    assert "of images alone, without outlines: *captions, fine-tuned*" in said
    assert "metadata alone: *" in said and "AUROC .600" in said
    assert "without outlines" not in results.read(context, table.iloc[1:]), "it is the best"


def test_the_card_has_the_nine_sections_and_says_what_is_open():
    card = reporting.model_card("captions", reporting.sentences({"drawn": "synthetic"}))
    sections = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert sections == [
        *("Model details", "Intended use", "Factors", "Metrics", "Evaluation data"),
        *("Training data", "Quantitative analyses", "Ethical considerations"),
        "Caveats and recommendations",
    ]
    assert "- **Primary uses and users.** open" in card
    assert "No person is shown: the radiographs are synthetic." in card


# ---------------------------------------------------------------------- what changed
def test_changes_name_rows_that_are_new_gone_or_moved_beyond_rounding():
    before = scores()
    assert reporting.changes(before, before.copy()).empty
    after = before.copy()
    after.loc[0, "AUROC"] += 0.0004
    assert reporting.changes(before, after).empty, "less than the last digit that is printed"
    after.loc[1, "AUROC"] -= 0.002
    after = after.drop(index=2)
    extra = before.iloc[[0]].assign(detail="regions only", method="another")
    found = reporting.changes(before, pd.concat([after, extra]))
    assert found["what"].tolist() == ["AUROC", "new", "gone"]
    row = found.iloc[0]
    assert row["before"] != row["after"] and INTERVAL.fullmatch(row["before"])
    assert found.iloc[1]["before"] == "" and found.iloc[2]["after"] == ""


def test_a_table_that_was_kept_as_csv_compares_as_itself(tmp_path):
    table = scores().assign(F9=1.0)
    table.to_csv(tmp_path / "kept.csv", index=False)
    assert reporting.changes(pd.read_csv(tmp_path / "kept.csv"), table).empty
    older = pd.read_csv(tmp_path / "kept.csv").drop(columns=["MCC"], errors="ignore")
    assert reporting.changes(older, table).empty, "a metric that is new moved nothing"


def test_records_differ_by_content_inputs_and_code():
    head = {"hash": "a", "inputs": [{"run": "in", "hash": "x"}], "code": {"cohort.py": "1"}}
    other = {"hash": "b", "inputs": [{"run": "in", "hash": "y"}], "code": {"cohort.py": "2"}}
    assert reporting.changed_records({"r": head}, {"r": head}).empty
    found = reporting.changed_records({"r": head, "old": head}, {"r": other, "fresh": head})
    assert found[["run", "what"]].to_numpy().tolist() == [
        ["fresh", "new"],
        ["old", "gone"],
        ["r", "found something else"],
        ["r", "read other inputs: in"],
        ["r", "was made by other code: cohort"],
    ]


def test_a_run_keeps_what_the_one_before_it_found(tmp_path, monkeypatch):
    monkeypatch.setenv("BONELIB_RUNS", str(tmp_path))
    place = dict(profile="tiny", data="phantom", task="tumor")
    again = dict(seed=0, variant="default", root="")

    def start(stage, inputs, settings, reads):
        return runs.start(stage, **place, reuse=False)

    cohort_run = SimpleNamespace(head={"data_name": "phantom"})
    known = dict(find=lambda stage: None, start=start, cohort_run=cohort_run)
    context = SimpleNamespace(**place, **again, **known)
    run = results.start(context, compare_to="ours")
    assert not (run.path / "before-results.csv").exists(), "there was none"
    for text in ("first", "second"):
        run.save_text("results.csv", text)
        run.save_text("records.json", text)
        if text == "first":
            run.finish()
            run = results.start(context, compare_to="ours")
    run = results.start(context, compare_to="ours")  # the second broke off
    for name in ("results.csv", "records.json"):
        assert (run.path / f"before-{name}").read_text() == "first"


# ---------------------------------------------------------------------- the chapter
@pytest.fixture(scope="module")
def chapter(tmp_path_factory):
    """Write a chapter of drawn data with every table and one figure."""
    folder = tmp_path_factory.mktemp("thesis")
    places = dict(caption=reporting.DRAWN + "A caption: 50 % of x_1.", label="tab:x")
    facts = reporting.sentences({"drawn": "synthetic", "images": "1,600", "task": "a_b & 5 %"})
    forms = {"cohort": reporting.characteristics(view(), task=cohort.task("tumor"))}
    tables = {"cohort": reporting.characteristics_form(forms["cohort"]).latex(**places)}
    found = reporting.localisation(maps(), draws=50)
    tables["localisation"] = reporting.localisation_form(found).latex(**places)
    many = pd.concat([scores(stage) for stage in ("baselines", "finetuning", "zero_shot")] * 9)
    for part in reporting.PARTS:
        tables[part.split()[0]] = reporting.to_latex(many, of=part, **places)
    for name in reporting.CHECKLISTS:
        table = reporting.checklist(name, facts | {"model": "a long answer " * 30})
        tables[name] = reporting.checklist_form(table).latex(**places)
    files = reporting.thesis(facts, tables, ["09_results"], synthetic=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "figures").mkdir()
    figure = plt.figure(figsize=(6, 2))
    figure.savefig(folder / "figures" / "09_results.pdf")
    plt.close(figure)
    return folder


def test_the_chapter_names_only_what_there_is(chapter):
    text = (chapter / "results.tex").read_text() + (chapter / "main.tex").read_text()
    for name in re.findall(r"\\input\{([^}]+)\}", text):
        assert (chapter / f"{name}.tex").exists(), name
    for name in re.findall(r"\\includegraphics\[[^\]]*\]\{([^}]+)\}", text):
        assert (chapter / f"{name}.pdf").exists(), name
    cited = {k for keys in re.findall(r"\\cite\{([^}]+)\}", text) for k in keys.split(",")}
    entries = re.findall(r"^@\w+\{([^,]+),", (chapter / "references.bib").read_text(), re.M)
    assert cited and sorted(cited) == sorted(entries), "those that are cited, and no other"
    tables = {path.stem for path in (chapter / "tables").iterdir()}
    assert tables == set(re.findall(r"\\input\{tables/([^}]+)\}", text)), "each table has a place"
    assert not re.search(r"^%(table|figure)|\$", text, re.M), "nothing of the template is left"
    every = text + "".join(path.read_text() for path in (chapter / "tables").iterdir())
    captions = re.findall(r"\\caption\{(.*)", every)
    assert captions and all(caption.startswith("Synthetic radiographs.") for caption in captions)


def test_a_work_that_is_cited_and_unknown_is_named():
    from bonelib.reporting.chapter import references

    with pytest.raises(ValueError, match="lacks nobody_1900, which the chapter cites"):
        references({"nobody_1900", "holm_1979"})


def test_a_chapter_of_patients_is_not_called_synthetic():
    files = reporting.thesis({}, {}, ["09_results"], synthetic=False)
    assert "ynthetic" not in files["results.tex"] and "tables/" not in files["results.tex"]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex (TeX Live) is not installed")
def test_the_chapter_compiles_and_no_table_is_wider_than_the_page(chapter):
    for command in ("pdflatex", "bibtex", "pdflatex", "pdflatex"):
        options = ["-interaction=nonstopmode", "-halt-on-error"] * (command == "pdflatex")
        done = subprocess.run([command, *options, "main"], cwd=chapter, capture_output=True)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-1500:]
    log = (chapter / "main.log").read_text(errors="replace")
    wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]
    assert max(wide, default=0) < 5, "points beyond the margin"
    assert not re.search(r"undefined|Missing character|multiply defined.*tab:y", log)


def test_bold_and_escapes_reach_every_form_of_a_table():
    shown = pd.DataFrame({"name": ["a|b", "c_d"], "x": [".5 [.4, .6]", ".7 [.6, .8]"]})
    form = Printed(shown, words=("name",), notes=["50 % of 2."], bold=[(1, "x")])
    assert "| a\\|b | .5 [.4, .6] |" in form.markdown() and "**.7** [.6, .8]" in form.markdown()
    text = form.latex()
    assert r"c\_d & \textbf{.7} [.6, .8]" in text and r"50 \% of 2." in text
    wide = pd.concat([shown[["x"]].add_suffix(k) for k in "abcde"], axis=1)
    assert r"\scriptsize [.4, .6]" in Printed(wide).latex(caption="c", label="l")
    assert r"\scriptsize" not in Printed(wide).latex(), "without a caption it is one line"


# ---------------------------------------------------------------------- pages of the notebooks
def test_executed_notebooks_become_pages_that_warn_and_load_nothing(tmp_path, monkeypatch, capsys):
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("BONELIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BONELIB_FIGURES", str(tmp_path / "figures"))
    assert main(["results", "--html", "tiny"]) == 2
    assert "bonelib run --profile tiny" in capsys.readouterr().err
    folder = runs.folder() / "tiny" / "phantom" / "any" / "data" / "default-s0"
    folder.mkdir(parents=True)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 01 · Data")])
    (folder / "notebook.ipynb").write_text(json.dumps(notebook))
    assert main(["results", "--html", "tiny"]) == 0
    page = (folder / "notebook.html").read_text()
    assert "Contains radiographs: do not publish." in page and "01 · Data" in page
    assert not re.findall(r"""(?:src|href)=["']https?:""", page), "nobody learns who reads it"
    assert not (tmp_path / "figures").exists(), "never into what is published"
