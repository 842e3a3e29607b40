"""Protects the plan of the house: who imports whom, how modules and notebooks are made."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bonelib"
MODULES = sorted(PACKAGE.rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))

# Each room with the rooms it may import. Rooms meet in notebooks and in __main__ alone.
MAY_IMPORT = {
    "runs": (),
    "cohort": (),
    "phantom": (),
    "dicom": (),
    "reports": (),
    "losses": (),
    "encoders": (),
    "features": (),
    "zero_shot": (),
    "explain": (),
    "datasets": ("cohort", "dicom"),
    "images": ("cohort", "dicom"),
    "splits": ("cohort",),
    "captions": ("cohort",),
    "evaluation": ("cohort",),
    "models": ("encoders",),
    "training": ("losses",),
    "adaptation": ("training", "losses", "models"),
    "audit": ("cohort", "splits", "evaluation"),
    "figures": ("evaluation",),
    "reporting": ("runs", "evaluation", "figures"),
    "explore": ("figures", "explain", "zero_shot", "evaluation"),
    "headless": ("runs",),
    "__init__": (),
}
LINES = 420
COMMON = {
    "PROFILE": "tiny",
    "DATA": "phantom",
    "DATA_ROOT": "",
    "TASK": "tumor",
    "SEED": 0,
    "VARIANT": "default",
    "REUSE": True,
}


def name(path):
    return str(path.relative_to(ROOT))


def room(path):
    """The room a module belongs to: its own name, or that of its package below bonelib."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """The rooms that a module imports, anywhere in it, with the line; '' is bonelib itself."""
    package = ("bonelib", *path.relative_to(PACKAGE).parent.parts)
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            # "from bonelib import runs" names a room; "from bonelib.runs import find" has one
            targets = [[*base, alias.name] for alias in node.names]
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            targets = [
                a.value.split(".")
                for a in node.args
                if isinstance(a, ast.Constant) and isinstance(a.value, str)
            ]
        found += [((t + [""])[1], node.lineno) for t in targets if t[0] == "bonelib"]
    return found


def tracked_files():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so no list of tracked files")
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / p for p in done.stdout.split("\0") if p and (ROOT / p).is_file()]


# ---------------------------------------------------------------------- modules
@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_room_imports_only_the_rooms_it_may(path):
    own = room(path)
    if own in ("__main__", "commands"):  # the command line
        return
    assert own in MAY_IMPORT, (
        f"{name(path)} has no place in the house. Give it one: a line in MAY_IMPORT of this test "
        "with the rooms it may import, and a line in the plan of the rooms."
    )
    wrong = [
        f"line {line} imports {target or 'bonelib itself'}"
        for target, line in imported(path)
        if target != own and target not in MAY_IMPORT[own]
    ]
    allowed = ", ".join(MAY_IMPORT[own]) or "nothing of ours"
    assert not wrong, f"{name(path)}: {'; '.join(wrong)}. It may import {allowed}."


def test_the_import_rules_have_no_circle():
    def reach(start, seen=()):
        assert start not in seen, f"circle: {' → '.join([*seen, start])}"
        for target in MAY_IMPORT[start]:
            reach(target, (*seen, start))

    for start in MAY_IMPORT:
        reach(start)


def test_the_reader_of_imports_sees_every_form(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "inner").mkdir()
    module = tmp_path / "inner" / "module.py"
    module.write_text(
        "import bonelib\nimport bonelib.runs\nfrom bonelib import cohort as c, splits\n"
        "from bonelib.images import loader\nfrom .. import models\nfrom ..losses import x\n"
        "from . import other\nfrom .other import y\nimport json\n"
        "def f():\n    from bonelib import figures\n    importlib.import_module('bonelib.audit')\n"
    )
    seen = [target for target, _ in sorted(imported(module), key=lambda found: found[1])]
    assert seen == (
        ["", "runs", "cohort", "splits", "images", "models", "losses", "inner", "inner"]
        + ["figures", "audit"]
    )


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_is_one_reading(path):
    count = len(path.read_text().splitlines())
    assert count <= LINES, f"{name(path)} has {count} lines, at most {LINES}: it holds two concerns"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_and_public_functions_say_what_they_are_for(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{name(path)} has no docstring"
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [n for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]
    for node in list(nodes):
        if isinstance(node, ast.ClassDef):
            nodes += [n for n in node.body if isinstance(n, kinds) and not n.name.startswith("_")]
    silent = [f"{n.name} (line {n.lineno})" for n in nodes if not ast.get_docstring(n)]
    assert not silent, f"{name(path)}: no docstring in {', '.join(silent)}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_room_catches_everything_or_prints(path):
    wrong = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else ""
            last = node.body[-1]  # what is passed on after tidying up is not swallowed
            passed_on = isinstance(last, ast.Raise) and last.exc is None
            if not passed_on and (not caught or re.search(r"\b(Base)?Exception\b", caught)):
                wrong.append(f"line {node.lineno} catches everything")
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            everything = any(ast.unparse(a) in ("Exception", "BaseException") for a in node.args)
            if called.endswith("suppress") and everything:
                wrong.append(f"line {node.lineno} suppresses everything")
            if called == "print" and room(path) not in ("__main__", "commands"):
                wrong.append(f"line {node.lineno} prints")
    assert not wrong, f"{name(path)}: {'; '.join(wrong)}"


@pytest.mark.parametrize("module", ["bonelib", "bonelib.__main__"])
def test_importing_the_package_loads_nothing_heavy(module):
    code = (
        f"import sys, time; start = time.process_time(); import {module}; "
        "print(time.process_time() - start, *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    seconds, *loaded = done.stdout.split()
    heavy = {"torch", "pandas", "numpy", "sklearn", "matplotlib", "papermill"} & set(loaded)
    assert not heavy, f"import {module} loads {sorted(heavy)}; import them inside functions"
    assert float(seconds) < 1, f"import {module} took {seconds} s of CPU; the aim is 0.1 s"


# ---------------------------------------------------------------------- notebooks
def cells(path, kind):
    found = json.loads(path.read_text())["cells"]
    return [
        cell | {"source": "".join(cell["source"])} for cell in found if cell["cell_type"] == kind
    ]


def sources(path):
    return [cell["source"] for cell in cells(path, "code")]


def assigned(source):
    """Names that a parameters cell assigns, with their values, in order."""
    found = {}
    for node in ast.parse(source).body:
        assert isinstance(node, ast.Assign | ast.AnnAssign), (
            f"only NAME: type = default here, found {ast.unparse(node)}"
        )
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        found[target.id] = ast.literal_eval(node.value)
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_is_committed_stripped_with_ids_and_the_plain_kernel(path):
    notebook = json.loads(path.read_text())
    for i, cell in enumerate(notebook["cells"]):
        assert cell.get("id"), f"cell {i} has no id"
        assert not cell.get("outputs"), f"cell {i} carries outputs: radiographs are patient data"
        assert cell.get("execution_count") is None, f"cell {i} carries an execution count"
        assert not {"papermill", "execution"} & set(cell["metadata"]), f"cell {i} carries timings"
    assert not {"papermill", "widgets"} & set(notebook["metadata"])
    kernel = notebook["metadata"]["kernelspec"]
    assert (kernel["name"], kernel.get("language")) == ("python3", "python")
    identifiers = [cell["id"] for cell in notebook["cells"]]
    assert len(identifiers) == len(set(identifiers))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_opens_with_a_title_and_its_parameters(path):
    papermill = pytest.importorskip("papermill")
    first = json.loads(path.read_text())["cells"][0]
    assert first["cell_type"] == "markdown" and "".join(first["source"]).startswith("# ")
    cell = cells(path, "code")[0]
    assert cell["metadata"].get("tags") == ["parameters"], "the first code cell needs this tag"
    found = assigned(cell["source"])
    common = {key: found.get(key) for key in COMMON}
    assert common == COMMON
    readable = papermill.inspect_notebook(str(path))
    hidden = sorted(set(found) - set(readable))
    assert not hidden, f"papermill can't read {hidden}: a second '=' or a union type in the line?"
    for key, entry in readable.items():
        kind = entry["inferred_type_name"]
        assert kind in ("str", "int", "float", "bool", "list", "dict"), f"{key}: {kind}"
        assert type(found[key]).__name__ == kind, f"{key} = {found[key]!r} is no {kind}"
        assert ast.literal_eval(entry["default"]) == found[key]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_is_thin(path):
    code = sources(path)
    body = [s for s in code if not s.startswith(("import ", "from "))]  # imports may run long
    long = [f"{len(s.splitlines())} lines: {s[:40]!r}" for s in body if len(s.splitlines()) > 20]
    assert not long, f"cells of more than 20 lines: {long}"
    nodes = [node for source in code for node in ast.walk(ast.parse(source))]  # no magics either
    functions = [n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert len(functions) <= 1, f"{functions}: functions belong in bonelib"
    assert not [n.name for n in nodes if isinstance(n, ast.ClassDef)], "classes belong in bonelib"
    branches = [
        ast.unparse(n.test)
        for n in nodes
        if isinstance(n, ast.If | ast.IfExp | ast.While)
        and any(isinstance(x, ast.Name) and x.id == "PROFILE" for x in ast.walk(n.test))
    ]
    assert not branches, f"{branches}: profiles differ in settings, never in code"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_has_no_path_of_a_machine_and_keeps_off_the_sealed_table(path):
    for source in sources(path):
        absolute = re.findall(r"""["'](?:/\w|~/|[A-Za-z]:[\\/])[^"']*""", source)
        assert not absolute, f"absolute paths {absolute}"
        assert not re.search(r"""(?<!save_)table\(\s*["']labels["']""", source), (
            "the sealed labels are read through splits.open_test alone"
        )


# ---------------------------------------------------------------------- the furniture
def test_no_tracked_file_names_a_folder_of_somebodys_machine():
    # not after a letter, a colon or a slash: those are web addresses
    pattern = re.compile(rf"(?<![\w.:/~-])/({'home'}|{'work'}|{'root'}|{'Users'})/\w+")
    found = []
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" in data[:8000]:
            continue  # a picture
        for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
            found += [f"{name(path)}:{number} {m.group()}" for m in pattern.finditer(line)]
    assert not found, f"{len(found)} paths of a machine: {found[:5]}"


def test_environment_yml_agrees_with_pyproject_and_the_lock():
    yaml = pytest.importorskip("yaml")
    path = ROOT / "environment.yml"
    if not path.exists():
        pytest.skip("no environment.yml yet")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    least = tuple(map(int, re.findall(r"\d+", project["requires-python"])[:2]))
    entries = yaml.safe_load(path.read_text())["dependencies"]
    python = [e for e in entries if isinstance(e, str) and re.match(r"python\b", e)]
    assert len(python) == 1, "one line for python"
    found = tuple(map(int, re.findall(r"\d+", python[0])[:2]))
    assert found >= least, f"{python[0]} is older than requires-python {project['requires-python']}"
    pip = [line for e in entries if isinstance(e, dict) for line in e.get("pip", [])]
    assert any("requirements.lock" in line for line in pip), "the lock is not used"
    assert any(re.search(r"-e \.", line) for line in pip), "bonelib itself is not installed"
    assert (ROOT / "requirements.lock").exists()
