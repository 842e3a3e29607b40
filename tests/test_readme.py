"""Protects the pages for users: commands and names exist, tables are those of the kept results."""

import re
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest

from bonelib import cohort, datasets, evaluation, headless, reporting, runs
from bonelib.__main__ import _parser, main
from bonelib.commands import results
from bonelib.experiments import settings
from bonelib.headless.parameters import declared
from bonelib.headless.studies import studies

ROOT = runs.ROOT
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in FILES}
KEPT = pd.read_csv(ROOT / results.KEPT)
PARAMETERS = {
    number: set(declared(path.read_text(encoding="utf-8")))
    for number, path in headless.notebooks().items()
}
OWN_RECIPES = {"resnet", "softer"}  # those that the pages show how to write
OWN_TASK = "implant"  # the one that docs/data.md shows how to write
VALUES = {
    "RECIPE": {*settings.recipe_names(), *OWN_RECIPES},
    "COMPARE_TO": {*settings.recipe_names()},
    "TASK": {*cohort.TASKS, OWN_TASK},
    "EVALUATE_ON": {"val", "test"},
    "RUN_ON": {"here", "elsewhere"},
    "RESIZE": {"pad", "squash"},
}
OTHERS = {
    "IN",
    "OUT",
    "NAME",
    "VALUE",
    "OMP_NUM_THREADS",
}  # words in capitals that name no parameter


# ---------------------------------------------------------------------- commands and names
def commands(text):
    """Yield the commands of the blocks of a page, as words."""
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            yield from (shlex.split(part, comments=True) for part in line.split("&&"))


def problems(words):
    """Say what is wrong with a command."""
    if words[0] == "make":
        target = re.search(rf"^{words[1]}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return [] if target else [f"no target {words[1]}"]
    if words[0] in ("python", "bash"):
        return [] if (ROOT / words[1]).exists() else [f"no file {words[1]}"]
    if "bonelib" not in words:
        return [] if words[0] in ("source", "export") else [f"no command {words[0]}"]
    typed = words[words.index("bonelib") + 1 :]
    try:
        given = vars(_parser().parse_args(typed))
    except SystemExit:
        return ["the command line refuses it"]
    if typed[0] == "study":
        try:
            headless.study(given["name"], part=given["part"], parameters=dict(given["parameters"]))
        except ValueError as error:
            return [str(error)]
    if typed[0] == "results" and given["study"]:
        return [] if given["study"] in studies() else [f"no study {given['study']}"]
    return wrong_parameters(given) if typed[0] == "run" else []


def wrong_parameters(given):
    numbers = given["numbers"] or PARAMETERS
    if unknown := set(numbers) - set(PARAMETERS):
        return [f"no notebook {', '.join(unknown)}"]
    known, found = set().union(*(PARAMETERS[number] for number in numbers)), []
    for name, value in given["parameters"]:
        if name not in known:
            found.append(f"no parameter {name} in {', '.join(numbers)}")
        if value not in VALUES.get(name, {value}):
            found.append(f"{name} can't be {value}")
        if name == "DATA" and value[0] != "/" and not set(value.split("+")) <= {*datasets.NAMES}:
            found.append(f"no data set {value}")
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_can_be_typed(page):
    wrong = {" ".join(words): problems(words) for words in commands(PAGES[page]) if words}
    assert {line: found for line, found in wrong.items() if found} == {}


@pytest.mark.parametrize(
    "line",
    [
        "bonelib run 05 -p WHERE here",
        "bonelib run 99",
        "bonelib run 04 -p RECIPE best",
        "bonelib study languages",
        "bonelib study language -p RECIPE ours",
        "bonelib walk",
        "make coffee",
        "python benchmarks/none.py",
        "bash benchmarks/none.sh",
    ],
)
def test_a_command_that_can_not_be_typed_is_noticed(line):
    assert problems(shlex.split(line))


@pytest.mark.parametrize("page", PAGES)
def test_every_name_and_link_of_a_page_leads_somewhere(page):
    text = PAGES[page]
    names = set(re.findall(r"`([A-Z][A-Z_]+)`", text)) | set(re.findall(r"-p ([A-Z_]+)", text))
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "bonelib").rglob("*.py"))
    known = OTHERS.union(*PARAMETERS.values()) | set(re.findall(r"BONELIB_[A-Z]+", source))
    assert sorted(names - known) == []
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    paths = re.findall(r"`((?:bonelib|tests|docs|notebooks|benchmarks)/[\w./-]+)`", text)
    lost = [p for p in links if not (ROOT / page).parent.joinpath(p).exists()]
    assert lost + [p for p in paths if not (ROOT / p).exists()] == []


def test_the_readme_is_one_reading_and_names_every_notebook():
    own = re.sub(r"(<!-- results: .*? -->).*?<!-- end", r"\1", PAGES["README.md"], flags=re.DOTALL)
    assert len(own.splitlines()) <= 60
    named = re.findall(r"\(notebooks/(\w+\.ipynb)\)", PAGES["README.md"])
    assert named == [path.name for path in headless.notebooks().values()]


def test_every_shipped_recipe_and_every_data_set_is_described():
    shipped = set(settings.recipes()["name"]) - {"base"}
    assert shipped <= set(re.findall(r"`(\w+)`", PAGES["docs/pretraining.md"]))
    named = re.findall(r"^\| `([a-z]\w+)` \|", PAGES["docs/data.md"], re.MULTILINE)
    assert {*named} == {*datasets.NAMES} - {"table"}, "a CSV is described in a section of its own"


# ---------------------------------------------------------------------- tables of results
def test_the_tables_are_those_that_the_command_writes():
    for page, text in results.pages(KEPT).items():
        assert text == PAGES[page], f"{page} is not as `make readme` writes it"
    changed = KEPT.assign(gain=KEPT["gain"] + 0.2)
    for page, text in results.pages(changed).items():
        assert text != PAGES[page] and len(text.splitlines()) == len(PAGES[page].splitlines())


def test_the_readme_shows_rows_of_the_demo_as_they_were_published(tmp_path, monkeypatch):
    published = (ROOT / results.DEMO).read_text(encoding="utf-8")
    shown = [line for line in results._demo().splitlines()[2:]]
    assert len(shown) == sum(map(len, results.SHOWN.values()))
    for line in shown:
        _, method, auroc, auprc, n = results._cells(line)
        assert f"| {method} | {auroc} | {auprc} |" in published and f" {n} |" in published
    lost = published.replace("captions, taught with outlines", "another")
    (tmp_path / results.DEMO).parent.mkdir(parents=True)
    (tmp_path / results.DEMO).write_text(lost, encoding="utf-8")
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="no row 'captions, taught with outlines' of finetuning"):
        results._demo()


def test_every_kept_figure_lies_in_its_interval_and_names_a_command_that_can_be_typed():
    assert (KEPT["low"] <= KEPT["gain"]).all() and (KEPT["gain"] <= KEPT["high"]).all()
    assert not KEPT.duplicated(["recipe", "compared_to", "split_seed", "seed", "task"]).any()
    for command, rows in KEPT.groupby("command"):
        assert problems(shlex.split(command)) == []
        _, _, name, *more = shlex.split(command)
        planned = headless.study(name, parameters=dict([more[1:]]) if more else {})
        folds = {one["SPLIT_SEED"] for _, _, one in planned if "SPLIT_SEED" in one} or {0}
        made = {
            (one["RECIPE"], split_seed, int(one.get("SEED", 0)))
            for _, _, one in planned
            if "RECIPE" in one
            for split_seed in folds
        }
        assert set(zip(rows["recipe"], rows["split_seed"], rows["seed"], strict=True)) <= made


def test_a_page_without_its_markers_is_refused():
    page = "<!-- results: a -->\nold\n<!-- end of results: a -->\nrest"
    assert "old" not in reporting.with_table(page, "a", "new")
    for broken in ("", page + page):
        with pytest.raises(ValueError, match="results: a"):
            reporting.with_table(broken, "a", "new")


STUDY = """
[small]
question = "Does it work?"
profile = "tiny"
[[small.runs]]
notebooks = ["04"]
parameters = { VARIANT = "{RECIPE}-{TEST}", DATA = "phantom", EVALUATE_ON = "test" }
[small.runs.each]
RECIPE = ["ours", "published", "attributes"]
TEST = ["fold0", "fold1"]
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of its own, with the pages, the kept results and a study."""
    pages = ("README.md", "docs/studies.md", "docs/pretraining.md")
    for name in (*pages, str(results.KEPT), str(results.DEMO)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "notebooks" / "studies.toml").write_text(STUDY)
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setenv("BONELIB_RUNS", str(tmp_path / "runs"))
    return tmp_path


def probes(task, name, fold, error):
    """Predictions of the start and of a tower that is wrong by ``error`` times as much."""
    rng = np.random.default_rng(fold)
    known = cohort.task(task)
    ids = [f"f{fold}-{k}" for k in range(60)]
    table = pd.DataFrame({"image_id": ids, "split": "test"})
    noise = rng.normal(size=60)
    towers = {
        evaluation.Method(start="imagenet", strategy="probe"): noise,
        evaluation.Method(start="captions", strategy="probe", detail=name): error * noise,
    }
    if known.kind == "regression":
        table[task] = rng.uniform(20, 200, size=60)
        logits = {m: table[task] + 30 * wrong for m, wrong in towers.items()}
    else:
        truth = rng.integers(2, size=60)
        table[task] = np.array(known.classes)[truth]
        logits = {m: np.c_[0 * wrong, truth + wrong] for m, wrong in towers.items()}
    parts = [
        evaluation.predictions(table, out, task=task, seed=0, method=m) for m, out in logits.items()
    ]
    return pd.concat(parts).assign(share=1.0, in_captions=task == "bone_age")


def finish(name, fold, error):
    """A finished pretraining, recorded with the settings that notebook 04 records."""
    plan = settings.pretraining(
        "tiny",
        settings.recipe(name),
        images=40,
        captions="table",
        caption_fields=["site"],
        test=f"fold{fold}",
        evaluate_on="test",
    )
    place = dict(profile="tiny", data="phantom", variant=f"{name}-fold{fold}")
    run = runs.start("pretraining", **place, **plan.as_dict())
    table = pd.concat([probes(task, name, fold, error) for task in ("tumor", "bone_age")])
    run.save_table("probes", table.assign(label=table["label"].map(str)))
    run.save_table("history", pd.DataFrame({"epoch": [0, 1], "cpu_seconds": [np.nan, 60.0]}))
    run.finish()


def test_what_a_finished_study_found_is_kept_and_written_into_the_pages(checkout, capsys):
    for fold in (0, 1):
        finish("ours", fold, 0.2), finish("attributes", fold, 1.0)
    finish("published", 0, 2.0)
    assert main(["results", "small"]) == 2, "a fold is missing"
    told = capsys.readouterr().err
    assert "published" in told and "ours" not in told and "bonelib study small" in told
    finish("published", 1, 2.0)
    assert main(["results", "small", "--seed", "1"]) == 2
    assert "bonelib study small -p SEED 1" in capsys.readouterr().err
    assert main(["results", "small"]) == 0
    kept = pd.read_csv(checkout / results.KEPT)
    rows = kept[kept["command"] == "bonelib study small"]
    assert len(kept) == len(KEPT) + len(rows)
    assert (
        set(rows["compared_to"]) == {"start", "published", "attributes"}
        and (rows["n"] == 120).all()
    )
    gain = rows.set_index(["recipe", "compared_to", "task"])["gain"].sort_index()
    assert (gain["ours"] > 0).all(), "less error in months is a gain too"
    assert (gain["published", "start"] < 0).all()
    assert gain["ours", "attributes", "bone_age"] == pytest.approx(
        gain["ours", "start", "bone_age"], abs=1e-3
    ), "attributes changed nothing"
    assert gain["ours", "published", "bone_age"] > gain["ours", "start", "bone_age"]
    page = (checkout / "docs" / "studies.md").read_text(encoding="utf-8")
    assert "tumor, not in the captions (AUROC more)" in page
    before = (checkout / results.KEPT).read_text()
    assert main(["results", "small"]) == 0
    assert (checkout / results.KEPT).read_text() == before, "a second call adds nothing"
    assert "is as it was" in capsys.readouterr().out


def test_a_study_that_opens_no_test_labels_has_nothing_to_keep(checkout, capsys):
    assert main(["results", "recipes"]) == 2
    assert "opens no test labels" in capsys.readouterr().err
    (checkout / results.KEPT).unlink()
    assert main(["results"]) == 2
    assert "checkout" in capsys.readouterr().err
