"""Protects the literature as data: schema, references, what runs here, the chart beside ours."""

import csv
import re
import tomllib
from types import SimpleNamespace

import matplotlib

matplotlib.use("agg")

import numpy as np
import pandas as pd
import pytest

from bonelib import cohort, figures, runs
from bonelib.evaluation import methods
from bonelib.experiments import literature, settings
from bonelib.experiments.context import Context

pytestmark = pytest.mark.usefixtures("clean_canvas")

FOLDER = runs.ROOT / "notebooks"
STRATEGIES = runs.ROOT / "bonelib/adaptation/strategies.csv"
FILES = (literature.SCORES, literature.METHODS, literature.REFERENCES)
SYSTEMS = "Liverpool|Schuster|Liver-VLM|Englebert|Vo|CLIP-IT|CascadeVLM|QPMIL-VL|Windsor|MedCLIP"
SYSTEMS += "|Forward-forward contrastive learning|CLIP|SigLIP|UniCL|DLILP|BiomedCLIP|RAD-DINO"
SYSTEMS += "|SKELEX|torchxrayvision|MVFA"
NOT_BUILT = "Incremental whole-slide learning|Latent-diffusion segmentation|GAN augmentation"
NOT_BUILT += "|Unpaired captioning"


def lines(name):
    with open(FOLDER / name, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def entries(text):
    """Parse biblatex by hand: {key: {field: value}}; braces must balance."""
    found, place = {}, 0
    for head in re.finditer(r"^@(\w+)\{([^,\s]+),\s*", text, re.MULTILINE):
        assert head.start() >= place, f"{head[2]} begins inside of another entry"
        key, place, fields = head[2], head.end(), {}
        assert key not in found, f"{key} stands twice"
        while text[place] != "}":
            field = re.compile(r"\s*(\w+)\s*=\s*\{").match(text, place)
            assert field, f"{key}: no field at {text[place : place + 40]!r}"
            depth, place = 1, field.end()
            begin = place
            while depth:
                depth += {"{": 1, "}": -1}.get(text[place], 0)
                place += 1
            fields[field[1]] = text[begin : place - 1]
            place = re.compile(r",?\s*").match(text, place).end()
        place += 1
        found[key] = fields | {"type": head[1]}
    return found


BIBLIOGRAPHY = entries((FOLDER / literature.REFERENCES).read_text(encoding="utf-8"))


# ---------------------------------------------------------------------- the files
def test_every_row_has_a_plausible_value_a_reference_and_a_reason():
    rows = lines(literature.SCORES)
    assert list(rows[0]) == list(literature.COLUMNS) and len(rows) > 300
    for row in rows:
        ends = [float(row[name]) for name in ("low", "value", "high") if row[name]]
        assert ends == sorted(ends) and len(ends) in (1, 3), row
        top = np.inf if row["metric"] == "MAE" else 1
        assert -1 <= ends[0] and ends[-1] <= top, row
        assert row["key"] in BIBLIOGRAPHY, row
        assert row["why"] or row["comparable"] == "yes", row
        assert row["grouped"] == "yes" or row["test"] != "center", row
        year = BIBLIOGRAPHY[row["key"]].get("year", "")
        assert row["year"] == year, f"{row['key']}: {row['year']} and {year} in the bibliography"
    one = [tuple(row[name] for name in literature.ONE_SCORE) for row in rows]
    assert len(set(one)) == len(one)


def test_references_parse_and_say_what_is_not_known():
    cited = {row["key"] for name in FILES[:2] for row in lines(name)} - {""}
    assert set(BIBLIOGRAPHY) == cited, "an entry for every key, and none that nobody cites"
    assert literature.keys(FOLDER / literature.REFERENCES) == cited
    for key, fields in BIBLIOGRAPHY.items():
        note = fields.get("note", "")
        assert fields["title"], key
        assert "author" in fields or note, f"{key} has no author and does not say so"
        assert re.fullmatch(r"(19|20)\d\d", fields.get("year", "")) or "year not known" in note, key
        assert re.fullmatch(r"10\.\d{4,}/\S+", fields.get("doi", "10.1234/x")), key
        if fields.get("eprinttype") == "arXiv":
            assert re.fullmatch(r"\d{4}\.\d{4,5}", fields["eprint"]), key


def test_a_damaged_bibliography_is_noticed():
    text = "@article{a,\n  title = {One {Two}},\n  year = {2020},\n}\n"
    assert entries(text)["a"] == {"title": "One {Two}", "year": "2020", "type": "article"}
    for broken in (text.replace("{Two}", "{Two"), text.replace("year = ", "year "), text + text):
        with pytest.raises((AssertionError, IndexError)):
            entries(broken)


def test_every_method_that_runs_here_names_what_there_is():
    rows = lines(literature.METHODS)
    names = {
        "strategy": methods.STRATEGIES,
        "recipe": settings.recipe_names(),
        "protocol": settings.protocol_names(),
    }
    for row in rows:
        if row["runs"] == "yes":
            assert row["here"] in names[row["kind"]] and re.match(r"\d\d", row["where"]), row
        else:
            assert not row["here"] and len(row["why"].split()) > 8, row
    runs_as = {(row["kind"], row["here"]) for row in rows}
    strategies = (*methods.HEADS, *methods.TOWERS)
    assert {("strategy", name) for name in strategies} <= runs_as
    assert {("protocol", name) for name in settings.protocol_names()} <= runs_as
    runs_here = {row["name"]: row["runs"] for row in rows}
    assert len(runs_here) == len(rows) and set(SYSTEMS.split("|")) <= set(runs_here)
    assert {runs_here[name] for name in NOT_BUILT.split("|")} == {"no"}
    assert len(literature.methods()) == len(rows)
    shown = literature.systems()
    assert set(SYSTEMS.split("|")) - {"BiomedCLIP", "RAD-DINO", "SKELEX"} <= set(shown["name"])


def test_every_protocol_has_its_reference_and_its_method():
    papers = {name: settings.protocol(name).paper for name in settings.protocol_names()}
    assert set(papers.values()) <= set(BIBLIOGRAPHY)
    of = {row["here"]: row["key"] for row in lines(literature.METHODS) if row["kind"] == "protocol"}
    for name in set(papers) - {"schuster"}:  # torchxrayvision runs there too
        assert of[name] == papers[name]


def test_strategies_have_one_paper_here_and_in_their_own_table():
    key = {
        row["here"]: row["key"] for row in lines(literature.METHODS) if row["kind"] == "strategy"
    }
    with open(STRATEGIES, encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            told, entry = row["paper"], BIBLIOGRAPHY[key[row["name"]]]
            if "arXiv:" in told and "eprint" in entry:
                assert entry["eprint"] in told, row["name"]


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The files where they may be changed, and a function that changes a cell of one row."""
    (tmp_path / "notebooks").mkdir()
    for name in FILES:
        text = (FOLDER / name).read_text(encoding="utf-8")
        (tmp_path / "notebooks" / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(runs, "ROOT", tmp_path, raising=False)

    def change(name, row, **cells):
        table = pd.read_csv(tmp_path / "notebooks" / name, dtype=str, keep_default_na=False)
        for column, value in cells.items():
            table.loc[row, column] = value
        table.to_csv(tmp_path / "notebooks" / name, index=False)

    return change


BAD_CELLS = {
    "a percentage": (dict(value="91.7"), "leaves the range of AUROC"),
    "a word": (dict(value="high"), "value='high'. Choose a number"),
    "no value": (dict(value=""), "value must not be empty"),
    "outside its interval": (dict(low=".1", high=".2"), "does not lie in its interval"),
    "half an interval": (dict(low=".1"), "two ends"),
    "an unknown metric": (dict(metric="loss"), "metric is 'loss'"),
    "an unknown task": (dict(task="bones"), "task='bones'. Choose"),
    "an unknown key": (dict(key="nobody1900"), "no entry 'nobody1900'"),
    "no reason": (dict(why=""), "say why"),
    "comparable with nothing": (dict(comparable="yes"), "data and test name"),
    "another mark": (dict(verified="maybe"), "verified='maybe'"),
    "another input": (dict(sees="image+smell"), "sees='image\\+smell'"),
    "a year in words": (dict(year="last"), "year='last'"),
    "n of nothing": (dict(unit=""), "what is counted"),
}


@pytest.mark.parametrize("case", BAD_CELLS)
def test_a_bad_row_is_refused_with_file_and_line(case, copied):
    cells, message = BAD_CELLS[case]
    assert len(literature.listed()) > 300  # as it is, it is right
    copied(literature.SCORES, 0, **cells)
    with pytest.raises(ValueError, match=rf"literature\.csv, line 2: .*{message}"):
        literature.listed()


def test_all_bad_rows_are_named_at_once_and_so_are_duplicates(copied):
    first = lines(literature.SCORES)[0]
    copied(literature.SCORES, 3, value="2")
    copied(literature.SCORES, 5, **first)
    with pytest.raises(ValueError) as refused:
        literature.listed()
    assert re.findall(r"literature\.csv, line (\d+)", str(refused.value)) == ["5", "7"]
    assert "the same key, method" in str(refused.value)


@pytest.mark.parametrize(
    "cells",
    [dict(here="magic"), dict(kind="spell"), dict(where=""), dict(runs="maybe"), dict(runs="no")],
)
def test_a_method_that_does_not_run_as_it_says_is_refused(cells, copied):
    copied(literature.METHODS, 0, **cells)
    with pytest.raises(ValueError, match=r"methods\.csv, line 2"):
        literature.methods()


def test_a_table_with_other_columns_is_refused(copied, tmp_path):
    file = tmp_path / "notebooks" / literature.SCORES
    table = pd.read_csv(file, dtype=str).rename(columns={"why": "because"})
    table.to_csv(file, index=False)
    with pytest.raises(ValueError, match="lacks the columns why and has because too many"):
        literature.listed()


def test_an_installed_package_brings_the_files_along(tmp_path, monkeypatch):
    project = tomllib.loads((runs.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    told = project["tool"]["setuptools"]["data-files"]["share/bonelib"]
    assert [f"notebooks/{name}" for name in FILES] == told
    monkeypatch.setattr(runs, "ROOT", tmp_path, raising=False)  # as installed: no notebooks there
    packed = [SimpleNamespace(name=name, locate=lambda n=name: FOLDER / n) for name in FILES]
    monkeypatch.setattr(literature.metadata, "files", lambda _: packed)
    assert len(literature.listed()) > 300
    monkeypatch.setattr(literature.metadata, "files", lambda _: None)
    context = Context()
    table = literature.of_task(context)
    assert table.empty and literature.methods().empty and literature.shown(table).empty
    assert "No AUROC is listed for tumor" in literature.read_reported(context, table)
    assert literature.draw(context, table, own_scores()) is None
    assert "No AUROC is listed" in literature.read_beside(context, table, own_scores())


# ---------------------------------------------------------------------- anchors
def test_anchors_are_scores_of_all_classes_or_else_of_the_positive_one():
    found = literature.reported("malignancy")
    center = found[found["test"] == "center"]
    assert center[["value", "low", "high"]].to_numpy().tolist() == [[0.627, 0.594, 0.658]]
    assert set(found.loc[found["key"] == "liu_2022", "metric"]) == {"macro AUROC"}
    assert set(found.loc[found["key"] == "he_2020", "metric"]) == {"AUROC malignant"}
    assert "AUROC gain" not in set(literature.reported("anomaly")["metric"])
    assert literature.reported("bone_age", "MAE")["value"].tolist() == [8.81]
    assert set(literature.reported("tumor", "accuracy")["metric"]) == {"accuracy"}
    assert literature.reported("kl_grade", "quadratic kappa").empty
    for task in (*cohort.TASKS, *literature.OTHER_TASKS):
        assert set(literature.reported(task, "accuracy")["task"]) <= {task}


def test_comparable_are_the_same_images_and_the_same_split_alone():
    def same(**names):
        test = names.pop("test", literature.FOLDS)
        return int(literature.of_task(Context(**names), test=test)["same"].sum())

    assert same(data="btxrd", task="malignancy", test="center") == 1
    assert same(data="btxrd", task="malignancy") == 0  # out of folds: another split
    assert same(data="phantom", task="malignancy", test="center") == 0
    assert same(data="btxrd", task="tumor", test="center") == 0
    table = literature.of_task(Context(data="btxrd", task="malignancy"), test="center")
    assert table["same"].tolist() == [True] + [False] * (len(table) - 1)
    shown = literature.shown(table)
    assert shown["score"].iloc[0] == ".627 [.594, .658]" and list(shown)[-1] == "why"


# ---------------------------------------------------------------------- the chart
def own_scores(metric="AUROC", scale=1.0):
    rows = [
        ("none", "metadata", 0.6),
        ("resnet50.a1_in1k", "image", 0.8),
        ("scratch", "image", 0.7),
    ]
    table = pd.DataFrame(rows, columns=["start", "sees", metric])
    table[metric] *= scale
    table[f"{metric}_low"], table[f"{metric}_high"] = table[metric] * 0.9, table[metric] * 1.1
    named = dict(strategy="probe", detail="", method=["metadata only", "R50", "scratch"])
    return table.assign(**named, n=100, groups=50, group_kind="patient")


def drawn(figure):
    (ax,) = figure.axes
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    return ax, dots, [float(line.get_xdata()[0]) for line in dots]


@pytest.mark.parametrize("task", ["tumor", "malignancy", "entity", "fracture", "bone_age"])
def test_the_chart_shows_every_value_once_and_fits_the_page(task):
    context = Context(data="btxrd", task=task)
    table, own = literature.of_task(context, test="center"), own_scores(context.metric)
    ax, _, values = drawn(literature.draw(context, table, own))
    best = literature.representative(context, own)
    assert best["sees"].tolist() == (
        ["metadata", "image"] if task == "bone_age" else ["image", "metadata"]
    )
    expected = table if task != "fracture" else table[table["task"] == task]
    assert sorted(values) == pytest.approx(sorted([*best[context.metric], *expected["value"]]))
    figure = ax.figure
    figure.canvas.draw()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) > -0.03 and box.x1 < width + 0.03 and box.y1 < height + 0.03
    assert width <= figures.WIDTH + 1e-6 and height < 9.7  # inches: a page
    labels = [t.get_text() for t in ax.get_yticklabels() if t.get_text()]
    others = labels[len(best) :]
    assert max(map(len, labels)) <= 44 and len(others) == len(set(others)), "rows can be told apart"


def test_the_chart_marks_what_is_comparable_and_greys_the_rest():
    def shades(test):
        context = Context(data="btxrd", task="malignancy")
        table = literature.of_task(context, test=test)
        ax, dots, values = drawn(literature.draw(context, table, own_scores()))
        texts = [t.get_text() for t in ax.texts]
        found = {
            round(v, 3): (d.get_color(), d.get_markerfacecolor())
            for v, d in zip(values, dots, strict=True)
        }
        return texts, found

    texts, found = shades("center")
    assert texts[:2] == ["this run: btxrd", "malignancy: same images and split"]
    assert found[0.627] == (figures.INK, figures.INK) and found[0.846] == (figures.GREY, "white")
    texts, found = shades(literature.FOLDS)
    assert "malignancy: a split that is made here" in texts
    assert found[0.627] == (figures.INK, "white")


def test_sentences_say_how_many_and_compare_only_what_can_be():
    context, own = Context(data="btxrd", task="malignancy"), own_scores().assign(accuracy=0.5)
    same, other = (literature.of_task(context, test=test) for test in ("center", "folds"))
    text = literature.read_beside(context, same, own, test="center")
    assert "AssureXRay 2026" in text and "macro AUROC .627 [.594, .658] (ours .800)" in text
    assert "accuracy .472 (ours .500)" in text and "sensitivity" not in text  # not in our scores
    text = literature.read_beside(context, other, own)
    assert ".518 to .992" in text and "ranks nothing" in text
    told = literature.read_reported(context, same)
    assert f"{len(same)} for malignancy" in told and "split of this run: 1" in told
    age = Context(data="rsna_bone_age", task="bone_age")
    text = literature.read_beside(age, literature.of_task(age), own_scores("MAE", 20))
    assert "Papers report 8.810 for bone_age" in text and "MAE 12.0" in text


def test_chat_models_stand_beside_out_of_fold_scores_of_the_same_images():
    context, own = Context(data="btxrd"), own_scores().assign(accuracy=0.9)
    found = literature.same_split(context, own)
    assert found["value"].tolist() == [0.599, 0.735] and found["ours"].tolist() == [0.9, 0.9]
    assert literature.same_split(Context(data="fracatlas"), own).empty
    assert literature.same_split(context, own, test="center").empty
