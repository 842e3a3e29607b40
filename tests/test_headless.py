"""Protects the runner: nothing starts on a mistake, no failure leaves a finished record."""

import ast
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from bonelib import headless, runs
from bonelib.__main__ import main
from bonelib.experiments import settings
from bonelib.headless.parameters import convert
from bonelib.headless.studies import studies

PARAMETERS = """PROFILE: str = "tiny"
DATA: str = "phantom"
DATA_ROOT: str = ""
TASK: str = "tumor"
SEED: int = 0
VARIANT: str = "default"
REUSE: bool = True
"""
# A notebook of this project in small: find the inputs, start, say something, finish.
BODY = """from bonelib import runs
place = dict(profile=PROFILE, data=DATA, root=DATA_ROOT, seed=SEED, variant=VARIANT)
tasks = dict(data="any", pretraining="any")
inputs = [runs.find(s, task=tasks.get(s, TASK), **place) for s in {needs}]
place["root"] = DATA_ROOT if DATA != "phantom" else ""
run = runs.start("{stage}", task=tasks.get("{stage}", TASK), inputs=inputs, reuse=REUSE, **place)
"""
NEEDS = {"01": [], "02": ["data"], "03": ["data"], "04": ["data"], "05": ["data", "pretraining"]}


def write(folder, number, *cells, extra="", first_of_all=""):
    """Write a numbered notebook with the common parameters, ``extra`` ones, and these cells.

    ``first_of_all`` stands before the run is started.
    """
    stage = {n: s for s, n in runs.NOTEBOOKS.items()}[number]
    first = nbformat.v4.new_code_cell(PARAMETERS + extra, metadata={"tags": ["parameters"]})
    body = f"{first_of_all}\n" + BODY.format(stage=stage, needs=NEEDS[number])
    sources = [body, *(cells or (f'print("hello from {stage}")', "run.finish(auroc=0.5)"))]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# title"), first]
        + [nbformat.v4.new_code_cell(source) for source in sources]
    )
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "", "language": "python"}
    path = folder / f"{number}_{stage}.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BONELIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PYTHONPATH", str(runs.ROOT))
    monkeypatch.setenv("BONELIB_CACHE", str(tmp_path / "cache"))
    for name in ("BONELIB_DATA", "BONELIB_OTHER_CODE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "notebooks").mkdir()
    return tmp_path / "notebooks"


def place(stage, task="tumor"):
    task = "any" if stage in ("data", "pretraining") else task
    return runs.folder() / "tiny" / "phantom" / task / stage / "default-s0"


def finish(stage, inputs=()):
    """Leave a finished run as a notebook would."""
    task = "any" if stage in ("data", "pretraining") else "tumor"
    return runs.start(stage, profile="tiny", data="phantom", task=task, inputs=inputs).finish()


# ---------------------------------------------------------------------- refused before the start
def test_all_mistakes_of_a_call_are_listed_at_once_with_the_cure(folder):
    write(folder, "01", extra="EPOCHS: int = 0\n")
    write(folder, "02")
    with pytest.raises(ValueError) as refused:
        headless.run(
            ["01", "11", "2"],
            profile="tyni",
            parameters={"EPOCS": "3", "SEED": "1.0", "REUSE": "yes", "TASK": "tumour", "DATA": "x"},
            allowed={"TASK": ["tumor", "fracture"], "DATA": ["phantom", "fracatlas"]},
            folder=folder,
        )
    text = str(refused.value)
    assert "'11'" in text and "01_data, 02_baselines" in text
    assert "'tyni'. Did you mean tiny?" in text
    assert "'EPOCS'. Did you mean EPOCHS?" in text
    assert "SEED must be of type int, found '1.0'" in text
    assert "REUSE must be true or false, found 'yes'" in text
    assert "'tumour'. Did you mean tumor?" in text
    assert "Known: phantom, fracatlas" in text
    assert "7 problem(s)" in text
    assert not runs.folder().exists()  # nothing was executed


def test_a_missing_upstream_run_or_data_folder_is_refused_before_anything_starts(folder):
    for number in ("01", "02", "04", "05"):
        write(folder, number)
    with pytest.raises(ValueError, match="05_finetuning needs notebook 04") as refused:
        headless.run(["01", "05"], folder=folder)
    assert "02" not in str(refused.value)  # 05 does not need the baselines
    with pytest.raises(ValueError, match="Pass its folder as DATA_ROOT"):
        headless.plan(["01"], parameters={"DATA": "fracatlas"}, folder=folder)
    with pytest.raises(ValueError, match="there is no file .*missing.csv"):
        headless.plan(
            ["01"], parameters={"DATA": "missing.csv"}, allowed={"DATA": []}, folder=folder
        )
    assert not runs.folder().exists()

    data = finish("data")
    finish("pretraining", inputs=[data])
    assert [s.number for s in headless.plan(["05"], folder=folder)] == ["05"]
    run = runs.start("data", profile="tiny", data="phantom", reuse=False)
    run.note(rows=2)
    run.finish()
    with pytest.raises(ValueError, match="stale"):  # 04 was made with the data run before
        headless.plan(["05"], folder=folder)


def test_steps_come_in_order_with_the_parameters_that_each_declares(folder):
    for number in ("05", "04", "01"):
        write(folder, number, extra="EPOCHS: int = 0\n" if number == "04" else "")
    steps = headless.plan(parameters={"EPOCHS": "3", "SEED": 1}, folder=folder)
    assert [s.name for s in steps] == ["01_data", "04_pretraining", "05_finetuning"]
    assert [s.given.get("EPOCHS") for s in steps] == [None, 3, None]
    assert [s.folder.name for s in steps] == ["default-s1"] * 3
    assert [s.folder.parts[-3] for s in steps] == ["any", "any", "tumor"]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("-3", int, -3),
        ("1e-3", float, 0.001),
        (2, float, 2.0),
        ("TRUE", bool, True),
        ("0", bool, False),
        ("1", str, "1"),
        ("['A', 2]", list, ["A", 2]),
        ("{'a': 1}", dict, {"a": 1}),
        ("[(1, 2), {'a': (3,)}]", list, [[1, 2], {"a": [3]}]),
        ("None", type(None), None),
        ("0.5", type(None), 0.5),
        ("fold1", type(None), "fold1"),
    ],
)
def test_text_becomes_the_declared_type(text, kind, value):
    converted = convert("NAME", text, kind)
    assert converted == value and type(converted) is type(value)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("1.5", int),
        (True, int),
        ("abc", float),
        ("2", bool),
        ("(1, 2)", list),
        (1, str),
    ],
)
def test_what_is_not_of_the_declared_type_is_refused(value, kind):
    with pytest.raises(ValueError, match="NAME must be"):
        convert("NAME", value, kind)


def test_parameters_are_read_as_python_reads_them(folder):
    extra = """CLASSES: str = "found=class"  # a = b
NOTE: str | None = None  # "a # b"
TITLE = "a # b"
LONG: dict = {
    "x": 1,  # over lines
}
PAIRS: list = [(1, 2)]
"""
    odd = dict(
        CLASSES="a=b # c", NOTE="n", TITLE="t = 1 | 2 $HOME", LONG="{'y': 2}", PAIRS="[(3, 4)]"
    )
    write(
        folder,
        "01",
        "given = [CLASSES, NOTE, TITLE, LONG, PAIRS]\nrun.note(given=given)",
        "run.finish()",
        extra=extra,
    )
    (step,) = headless.plan(["01"], folder=folder)
    defaults = {name: step.values[name] for name in odd}
    assert list(defaults.values()) == ["found=class", None, "a # b", {"x": 1}, [[1, 2]]]
    (outcome,) = headless.run(["01"], folder=folder, parameters=odd)
    given = runs.Record(outcome.step.folder).notes["given"]
    assert given == ["a=b # c", "n", "t = 1 | 2 $HOME", {"y": 2}, [[3, 4]]]
    assert headless.run(["01"], folder=folder, parameters=odd)[0].status == "reused"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("ROOT = os.getcwd()", "ROOT = os.getcwd.* is not a plain value"),
        ("KINDS = {1, 2}", "KINDS = .* is not a plain value"),
        ("%matplotlib inline", "line 8 of the parameters is not plain Python"),
    ],
)
def test_a_parameter_that_is_computed_or_no_python_is_refused(folder, line, told):
    write(folder, "01", extra=line + "\n")
    with pytest.raises(ValueError, match=told):
        headless.plan(["01"], folder=folder)


def test_an_expected_exception_is_none_and_another_is_named_by_its_cell(folder):
    path = write(folder, "01", "1 / 0", "run.finish()", "print('after')")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[3].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, path)
    (outcome,) = headless.run(["01"], folder=folder)
    assert outcome.status == "executed", outcome.error
    notebook.cells[4].source = "run.finish(); missing_name"
    nbformat.write(notebook, path)
    (outcome,) = headless.run(["01"], folder=folder)
    assert outcome.status == "failed" and "missing_name" in outcome.error.splitlines()[0]


# ---------------------------------------------------------------------- execution
def test_parameters_that_a_notebook_uses_make_its_run_anew(folder):
    finish("data")
    write(folder, "01")
    uses = "print(RECIPE, CAPTIONS)"
    extra = 'RECIPE: str = "ours"\nCAPTIONS: str = "table"\nIDLE: int = 0\nRUN_ON: str = "here"\n'
    write(folder, "04", uses, "run.finish()", "RUN_ON", extra=extra)
    bank = folder / "bank.csv"
    bank.write_text("one")

    def status(recipe="fast", **parameters):
        given = {"RECIPE": "ours"} | parameters
        allowed = {"RECIPE": {"ours": recipe, "other": "x"}, "CAPTIONS": ["table"]}
        (outcome,) = headless.run(["04"], folder=folder, parameters=given, allowed=allowed)
        return outcome.status

    assert [status(), status()] == ["executed", "reused"]
    assert status(IDLE="3") == status(DATA_ROOT=str(folder)) == "reused", "no cell uses it"
    assert status(RUN_ON="elsewhere") == "reused", "where it ran changes no result"
    assert [status("slow"), status("slow")] == ["executed", "reused"], "what the recipe stands for"
    assert status("slow", CAPTIONS=str(bank)) == "executed"
    (folder / "copy").mkdir()
    assert status("slow", CAPTIONS=str(bank.rename(folder / "copy" / bank.name))) == "reused"
    with pytest.raises(ValueError, match="Unknown RECIPE 'owrs'. Did you mean ours"):
        status(RECIPE="owrs")


def test_a_planned_training_is_no_failure_but_stops_what_needs_it(folder):
    write(folder, "01"), write(folder, "05")
    stop = "runs.save_plan(run)\nraise runs.Planned(runs.how_to_train(run.path))"
    write(folder, "04", stop)
    said = []
    first, planned, stopped = headless.run(folder=folder, say=said.append)
    assert [first.status, planned.status, stopped.status] == ["executed", "planned", "stopped"]
    assert planned.error == runs.how_to_train(planned.step.folder) and "torchrun" in planned.error
    assert any("planned after" in line for line in said)
    assert not (planned.step.folder / "record.json").exists()
    write(folder, "04", first_of_all="1 / 0")
    *_, failed = headless.run(["04"], folder=folder)
    assert failed.status == "failed" and "ZeroDivisionError" in failed.error, "an older plan"
    runs.mark_trained(runs.reopen(planned.step.folder))
    runs.record.release(planned.step.folder)  # as the process that trains does at its end
    write(folder, "04", "assert run.trained", "run.finish()")
    assert [o.status for o in headless.run(["04"], folder=folder)] == ["executed"]


def test_what_a_run_needs_depends_on_its_parameters_and_its_variants_on_from(folder):
    for number in ("01", "03", "04"):
        write(folder, number, extra='CAPTIONS: str = "table"\nFROM: str = ""\n')
    finish("data")
    (step,) = headless.plan(["04"], folder=folder)
    assert step.needs == ("01",)
    with pytest.raises(ValueError, match="04_pretraining needs notebook 03"):
        headless.plan(["04"], parameters={"CAPTIONS": "reports"}, folder=folder)
    with pytest.raises(ValueError, match="No finished 'data' run mine-s0.*found: default-s0"):
        headless.plan(["04"], parameters={"VARIANT": "mine"}, folder=folder)
    given = {"VARIANT": "mine", "FROM": "default"}
    (step,) = headless.plan(["04"], parameters=given, folder=folder)
    assert step.folder.name == "mine-s0" and step.place("data")["variant"] == "default"
    assert len(headless.plan(["01", "04"], parameters=given, folder=folder)) == 2
    with pytest.raises(ValueError, match="No finished 'data' run lost-s0.*found: default-s0"):
        headless.plan(["01", "04"], parameters=given | {"FROM": "data:lost"}, folder=folder)
    with pytest.raises(ValueError, match="'dta' is no stage with a variant"):
        headless.plan(["01", "04"], parameters=given | {"FROM": "dta:default"}, folder=folder)
    with pytest.raises(ValueError, match="No finished 'data' run data=default-s0"):
        headless.plan(["01", "04"], parameters=given | {"FROM": "data=default"}, folder=folder)


def test_notebooks_run_in_order_and_are_reused_until_something_changes(folder, monkeypatch):
    said = []

    def go(*numbers, **parameters):
        said.clear()
        outcomes = headless.run(numbers, parameters=parameters, folder=folder, say=said.append)
        return {o.step.number: o.status for o in outcomes}

    write(folder, "01")
    write(folder, "04", "import os; run.note(malloc=os.environ['MALLOC_TOP_PAD_'])", "run.finish()")
    assert go() == {"01": "executed", "04": "executed"}
    assert "    hello from data" in said  # what a notebook prints is passed through
    assert said.index("    hello from data") < said.index(
        next(line for line in said if line.startswith("04_pretraining"))
    )
    copy = json.loads((place("data") / "notebook.ipynb").read_text())
    assert any("hello from data" in str(cell.get("outputs")) for cell in copy["cells"])
    record = json.loads((place("pretraining") / "record.json").read_text())
    assert record["notes"]["malloc"] == "500000000"

    assert go() == {"01": "reused", "04": "reused"}
    assert any(line.startswith("01_data") and "reused" in line for line in said)

    # the data are remade to the same content: what follows stands
    assert go("01", REUSE=False) == {"01": "executed"}
    assert go() == {"01": "reused", "04": "reused"}
    write(folder, "01", "run.note(changed=True)", "run.finish()")
    assert go() == {"01": "executed", "04": "executed"}

    # another loss made the record, as it says
    record = json.loads((place("pretraining") / "record.json").read_text())
    record["code"]["losses.py"] = "before"
    (place("pretraining") / "record.json").write_text(json.dumps(record))
    monkeypatch.setenv("BONELIB_OTHER_CODE", "keep")
    assert go("04") == {"04": "reused"}
    monkeypatch.delenv("BONELIB_OTHER_CODE")
    assert go("04") == {"04": "executed"}
    assert any("again since it was made by other code: losses" in line for line in said)


def test_changed_data_are_noticed_by_the_runner_and_a_copy_is_the_same(folder, tmp_path):
    write(folder, "01")
    files = tmp_path / "data" / "images"
    files.mkdir(parents=True)
    for name in "ab":
        (files / f"{name}.png").write_text(name)

    def go(root):
        given = {"DATA": "fracatlas", "DATA_ROOT": str(root)}
        return [o.status for o in headless.run(parameters=given, folder=folder)]

    assert go(files.parent) == ["executed"]
    shutil.copytree(files.parent, tmp_path / "copy")
    assert go(tmp_path / "copy") == go(f"{files.parent}/../data") == ["reused"]
    (files / "a.png").write_text("c")
    assert [go(files.parent), go(files.parent)] == [["executed"], ["reused"]]
    assert go(tmp_path / "copy") == ["executed"], "what is asked for counts, not what was recorded"


def test_data_that_are_elsewhere_are_named_as_their_runs_are(folder, tmp_path):
    write(folder, "01"), write(folder, "02")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_text("a")
    given, allowed = {"DATA_ROOT": str(tmp_path / "data")}, {"DATA": ["fracatlas"]}
    (made,) = headless.run(["01"], parameters={"DATA": "fracatlas"} | given, folder=folder)
    shutil.rmtree(tmp_path / "data")
    name = made.step.folder.parts[-4]
    calls = dict(allowed=allowed, folder=folder)
    (found,) = headless.run(["02"], parameters={"DATA": name}, **calls)
    assert (found.status, found.step.folder.parts[-4]) == ("executed", name)
    with pytest.raises(ValueError, match="Unknown DATA 'fracatlas-000000'"):
        headless.plan(["02"], parameters={"DATA": "fracatlas-000000"}, **calls)


def test_a_failure_stops_its_dependants_only_and_leaves_no_record(folder):
    write(folder, "01")
    write(folder, "02")
    write(folder, "04", "run.finish()", "numbers = [1, 2]\nnumbers[5]", "print('never')")
    write(folder, "05")
    said = []
    outcomes = headless.run(folder=folder, say=said.append)
    assert [o.status for o in outcomes] == ["executed", "executed", "failed", "stopped"]
    # In [ ] as the copy shows it: parameters, injected parameters, body, finish, then this one
    assert "cell In [5] (numbers = [1, 2])" in outcomes[2].error
    assert "IndexError: list index out of range" in outcomes[2].error
    assert "line 2" in outcomes[2].error  # the last frame
    assert "needs 04" in outcomes[3].error
    assert any("IndexError" in line for line in said)
    assert not (place("pretraining") / "record.json").exists()  # though the notebook had written it
    assert not place("finetuning").exists()
    copy = nbformat.read(place("pretraining") / "notebook-failed.ipynb", as_version=4)
    assert "numbers[5]" in "".join(cell.source for cell in copy.cells)


def test_a_killed_kernel_and_a_notebook_without_a_record_count_as_failed(folder):
    write(folder, "01", "run.finish()", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    (outcome,) = headless.run(folder=folder)
    assert outcome.status == "failed" and "cell In [5]" in outcome.error
    assert "killed" in outcome.error
    assert not (place("data") / "record.json").exists()
    assert (place("data") / "notebook-failed.ipynb").exists()
    assert not (place("data") / "notebook.ipynb").exists()

    for end, told in (("os._exit(3)", "itself with exit code 3"), ("os.abort()", "SIGABRT")):
        write(folder, "01", f"import os; {end}", "print('never')", "run.finish()")
        (outcome,) = headless.run(folder=folder)
        assert outcome.status == "failed" and told in outcome.error

    write(folder, "01", "print('no finish')")
    (outcome,) = headless.run(folder=folder)
    assert outcome.status == "failed" and "left no record" in outcome.error


def test_an_older_finished_run_survives_a_failure_that_did_not_touch_it(folder):
    finish("data")
    before = (place("data") / "record.json").read_bytes()
    write(folder, "01", first_of_all="raise ValueError('before anything was written')")
    (outcome,) = headless.run(folder=folder)
    assert outcome.status == "failed"
    assert (place("data") / "record.json").read_bytes() == before


@pytest.fixture
def interruptible():
    """A shell that runs this in the background has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_keeps_the_partial_copy_and_no_record(folder, interruptible):
    write(
        folder, "01", "run.finish()", "print('sleeping', flush=True)\nimport time; time.sleep(60)"
    )

    said = []

    def interrupt(line):
        said.append(line)
        if line == "    sleeping":
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        headless.run(folder=folder, say=interrupt)
    assert "cell In [5]" in said[-1] and "interrupted" in said[-1]
    assert not (place("data") / "record.json").exists()
    assert "sleeping" in (place("data") / "notebook-failed.ipynb").read_text()


# ---------------------------------------------------------------------- the command line
def test_a_mistake_on_the_command_line_is_one_message_and_code_2(capsys, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="2"):
        main(["runs", "--profile", "tyni"])
    assert main(["data", "fracatlas", str(Path("no") / "such")]) == 2
    assert main(["run", "-p", "SEED", "1", "-p", "SEED", "2"]) == 2
    own = tmp_path / "recipes.toml"
    own.write_text('[mine]\nlora = "eight"\nsize = -3\n')
    monkeypatch.setattr("bonelib.experiments.settings.reading.own_file", lambda: own)
    assert main(["run", "01", "04", "-p", "RECIPE", "mine"]) == 2
    printed = capsys.readouterr()
    assert "Recipe 'mine' can't be made, 2 problem(s)" in printed.err
    assert "started" not in printed.out
    assert "SEED more than once" in printed.err and "Traceback" not in printed.err


# ---------------------------------------------------------------------- studies
STUDY = """
[colours]
question = "Which?"
profile = "tiny"
parameters = { DATA = "phantom", SEED = 3 }
[[colours.runs]]
notebooks = ["01"]
[[colours.runs]]
notebooks = ["04", "05"]
parameters = { VARIANT = "{RECIPE}-{TEST}", SEED = 4 }
each = { RECIPE = ["ours", "exact", "lora"], TEST = ["fold0", "fold1"] }
"""


def test_a_study_lists_every_combination_and_its_parts_share_them(folder, monkeypatch):
    monkeypatch.setattr(runs, "ROOT", folder.parent)
    file = folder / "studies.toml"  # the user's own, beside those of the package
    file.write_text(STUDY)
    first, *rest = headless.study("colours")
    assert first == (("01",), "tiny", {"DATA": "phantom", "SEED": 3})
    assert [run[0] for run in rest] == [("04", "05")] * 6
    assert rest[3][2] == {
        "DATA": "phantom",
        "SEED": 4,  # its own, not the study's
        "VARIANT": "exact-fold1",
        "RECIPE": "exact",
        "TEST": "fold1",
    }
    for parts in (1, 2, 4, 7):
        shared = [headless.study("colours", part=f"{k + 1}/{parts}") for k in range(parts)]
        assert all(part[0] == first for part in shared), "what the others need is in each part"
        together = [run for part in shared for run in part[1:]]
        assert sorted(map(repr, together)) == sorted(map(repr, rest)), "each run in one part"
    with pytest.raises(ValueError, match="No study 'shapes' in studies.toml. Known: .*colours"):
        headless.study("shapes")
    other = headless.study(
        "colours", profile="full", parameters={"DATA": "btxrd", "SEED": 5, "DATA_ROOT": "/x"}
    )
    assert other[0] == (("01",), "full", {"DATA": "btxrd", "SEED": 5, "DATA_ROOT": "/x"})
    assert len(other) == 7 and all(p["SEED"] == 5 and p["DATA"] == "btxrd" for _, _, p in other)
    file.write_text(STUDY.replace("SEED = 3", "SEED = 3, EPOCHS = 9"))
    fewer = headless.study("colours", parameters={"EPOCHS": 1})
    assert {p["EPOCHS"] for _, _, p in fewer} == {1}, "the study's own, not only an entry's"
    file.write_text(STUDY)
    for wrong in ("RECIPE", "TEST", "EPOCS"):
        with pytest.raises(ValueError, match=f"can't take {wrong}. Choose DATA, DATA_ROOT, SEED"):
            headless.study("colours", parameters={wrong: "x"})
    for part in ("3/2", "0/2", "1", "x/2", ""):
        with pytest.raises(ValueError, match="No part"):
            headless.study("colours", part=part)


def test_each_run_of_the_studies_is_one_that_its_notebook_knows():
    recipes = settings.recipe_names()
    declared = {}
    for number, path in headless.notebooks().items():
        cells = nbformat.read(path, as_version=4).cells
        cell = next(c for c in cells if "parameters" in c.metadata.get("tags", ()))
        declared[number] = {node.target.id for node in ast.parse(cell.source).body}
    for name in studies():
        planned = headless.study(name)
        told = ("VARIANT", "DATA", "TASK")  # each is a part of the run's folder
        folders = [(numbers, *map(p.get, told)) for numbers, _, p in planned]
        assert len(set(folders)) == len(folders), "no run overwrites another"
        data = {p.get("VARIANT", "default") for numbers, _, p in planned if "01" in numbers}
        for numbers, profile, parameters in planned:
            assert profile in headless.PROFILES and parameters.get("RECIPE", "ours") in recipes
            assert set(parameters) <= set().union(*(declared[number] for number in numbers))
            variant, inputs = parameters.get("VARIANT", "default"), parameters.get("FROM", "")
            if "01" not in numbers:  # the study starts with it
                assert {runs.input_variant(inputs, "data", default=variant)} == data


def test_two_processes_at_the_same_run_execute_it_once(folder):
    write(folder, "01", "import time; time.sleep(1)", "run.finish()")
    call = "from bonelib import headless; from pathlib import Path; import sys; "
    call += "print(headless.run(['01'], folder=Path(sys.argv[1]))[0].status)"
    both = [
        subprocess.Popen([sys.executable, "-c", call, str(folder)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0].decode().split()[-1] for process in both]
    assert sorted(said) == ["executed", "reused"]
