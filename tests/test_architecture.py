"""Protects the plan of the house: who imports whom, how modules and notebooks are made."""

import ast
import functools
import json
import os
import re
import subprocess
import symtable
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
    "tables": (),
    "runs": ("tables",),
    "cohort": (),
    "phantom": ("cohort",),
    "dicom": (),
    "reports": ("tables",),
    "deidentify": ("reports", "dicom", "runs", "tables"),
    "losses": (),
    "encoders": (),
    "features": ("encoders",),
    "zero_shot": ("evaluation",),
    "explain": (),
    "datasets": ("tables", "cohort", "dicom"),
    "images": ("cohort", "dicom"),
    "splits": ("cohort",),
    "captions": ("tables", "cohort"),
    "evaluation": ("cohort",),
    "models": ("encoders",),
    "training": ("losses", "encoders"),
    "adaptation": ("training", "losses", "models", "evaluation", "cohort"),
    "anomaly": ("cohort", "evaluation", "losses", "models", "training"),
    "audit": ("cohort", "splits", "evaluation"),
    "figures": ("evaluation",),
    "reporting": ("runs", "cohort", "captions", "evaluation", "figures"),
    "explore": ("cohort", "figures", "explain", "zero_shot", "evaluation"),
    "headless": ("runs",),
    "experiments": (
        *("tables", "runs", "cohort", "phantom", "dicom", "reports", "deidentify", "losses"),
        *("encoders", "features"),
        *("zero_shot", "explain", "datasets", "images", "splits", "captions", "evaluation"),
        *("models", "training", "adaptation", "anomaly", "audit", "figures", "reporting"),
        "explore",
    ),
    "__init__": ("experiments",),  # lazily: bonelib.load
}
LINES = 420  # of a module
# Lines of all modules together, and of rooms; who lets one grow says by how much and for what. The
# spine should come to 7,500 and the package to 22,500. They grew last by 450 and 3,310: widgets for
# cases, prompts, heat maps, similar images and runs (1,280), jobs beside each other, sweeps, lists
# and what a kill leaves (760), submission to Slurm (400), downloads and the doctor (550), progress
# (150), rows of the demo in the README (40). Since then by 70: batch norms are folded in trainings
# and in every other pass, where it was frozen features alone; records changed by hand are named. By
# 240: faster ways back through a convolutional net on a CPU, a fifth of the time of a step; and
# towers of random weights are fine-tuned with batch norms that learn. By
# 370: identities that whole reports by other authors showed (recall .86 to .88 on new ones). By 35:
# an image tower is read out of a bundle without its text tower, once for all heads of a start.
SPINE = ("cohort", "splits", "captions", "encoders", "models", "losses", "training", "features")
SPINE += ("adaptation", "zero_shot", "anomaly", "explain", "evaluation", "experiments")
ROOMS = {
    ("phantom",): 5690,
    ("deidentify",): 3380,
    SPINE: 27120,
    (): 54965,  # all of the package
}
PARAMETERS, WITH_MORE = 12, 2  # of a function, and how many functions may have more
STEP = 40  # lines of a function of experiments
MEETING = ("context", "settings", "progress")  # what the modules of experiments may import
NOTEBOOK = {"code lines": 110, "branches": 3, "names in flight": 20, "words": 900}
ALL_NOTEBOOKS = 800  # code lines
# How figures write what a method is. Elsewhere the columns start, strategy and sees say it.
PHRASE = re.compile(r"fine-tuned|linear probe|metadata only|prompts by|(captions|ImageNet), ")
LOOKS_UP = ("startswith", "endswith", "removeprefix", "removesuffix", "get", "pop", "eq", "ne")
LOOKS_UP += ("isin", "contains", "match", "fullmatch", "search", "query", "xs", "index", "replace")
LOOKS_UP += ("partition", "split")
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


@functools.cache
def text(path):
    return path.read_text()


@functools.cache
def nodes(path):
    """All nodes of a module's syntax tree; the module itself is the first."""
    return list(ast.walk(ast.parse(text(path))))


def imports(path):
    """What a module imports of bonelib, anywhere in it, as lists of names, with the line."""
    package = ("bonelib", *path.relative_to(PACKAGE).parent.parts)
    found = []
    for node in nodes(path):
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
        found += [(t, node.lineno) for t in targets if t[0] == "bonelib"]
    return found


def imported(path):
    """The rooms that a module imports, with the line; '' is bonelib itself.

    ``runs.files`` is left out: every room may write its files by it.
    """
    return [
        ((target + [""])[1], line)
        for target, line in imports(path)
        if target[1:3] != ["runs", "files"]
    ]


def tracked_files():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so no list of tracked files")
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / p for p in done.stdout.split("\0") if p and (ROOT / p).is_file()]


# ---------------------------------------------------------------------- modules
def test_a_room_imports_only_the_rooms_it_may():
    wrong = []
    for path in MODULES:
        own = room(path)
        if own in ("__main__", "commands"):  # the command line
            continue
        if own not in MAY_IMPORT:
            wrong.append(
                f"{name(path)} has no place in the house. Give it one: a line in MAY_IMPORT of "
                "this test with the rooms it may import, and a line in the plan of the rooms."
            )
            continue
        allowed = ", ".join(MAY_IMPORT[own]) or "nothing of ours"
        wrong += [
            f"{name(path)}:{line} imports {target or 'bonelib itself'}; it may import {allowed}"
            for target, line in imported(path)
            if target != own and target not in MAY_IMPORT[own]
        ]
    assert not wrong, "\n".join(wrong)


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
        "from bonelib.runs.files import z\nfrom ..runs import files\n"
        "def f():\n    from bonelib import figures\n    importlib.import_module('bonelib.audit')\n"
    )
    seen = [target for target, _ in sorted(imported(module), key=lambda found: found[1])]
    assert seen == (
        ["", "runs", "cohort", "splits", "images", "models", "losses", "inner", "inner"]
        + ["figures", "audit"]
    )


def module(path, content):
    """A made-up module, for the counters below."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def lines(path):
    return len(text(path).splitlines())


def too_long(paths):
    return [f"{name(p)} has {lines(p)} lines" for p in paths if lines(p) > LINES]


def test_a_module_is_one_reading():
    assert not too_long(MODULES), f"at most {LINES}: {too_long(MODULES)} hold two concerns"


def too_large(paths):
    found = []
    for rooms, limit in ROOMS.items():
        own = [p for p in paths if not rooms or room(p) in rooms]
        missing = sorted(set(rooms) - {room(p) for p in own})
        if missing:
            found.append(f"there is no room {', '.join(missing)}")
        count = sum(map(lines, own))
        if count > limit:
            found.append(f"{' + '.join(rooms) or 'all rooms'}: {count} lines, at most {limit}")
    return found


def test_rooms_and_package_keep_their_size():
    assert not too_large(MODULES), "\n".join(too_large(MODULES))


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def parameters(function):
    """How many parameters a function has, ``self`` aside."""
    a = function.args
    found = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
    return len(found) - (bool(found) and found[0].arg in ("self", "cls"))


def with_many_parameters(paths):
    """Functions with more than ``PARAMETERS``, those of experiments first."""
    return [
        f"{name(path)}:{node.lineno} {node.name} has {parameters(node)}"
        for path in sorted(paths, key=lambda p: room(p) != "experiments")
        for node in nodes(path)
        if isinstance(node, FUNCTIONS) and parameters(node) > PARAMETERS
    ]


def test_functions_have_few_parameters():
    found = with_many_parameters(MODULES)
    assert not with_many_parameters([p for p in MODULES if room(p) == "experiments"]), found[0]
    assert len(found) <= WITH_MORE, f"{len(found)} with more than {PARAMETERS}: " + "\n".join(found)


def faults_of_experiments(paths):
    """Long functions, and modules (or small packages) that import another but the meeting ones."""
    own = {p: p.relative_to(PACKAGE).parts[1] for p in paths if room(p) == "experiments"}
    own = {path: part.removesuffix(".py") for path, part in own.items()}
    found = []
    for path, module in own.items():
        for node in nodes(path):
            length = node.end_lineno - node.lineno + 1 if isinstance(node, FUNCTIONS) else 0
            if length > STEP:
                found.append(f"{name(path)}:{node.lineno} {node.name}: {length} lines, not {STEP}")
        for target, line in imports(path):
            other = target[2] if target[1:2] == ["experiments"] and len(target) > 2 else ""
            known = other in own.values() and other not in (*MEETING, module)
            if known and module != "__init__":
                found.append(f"{name(path)}:{line} imports {other}: they meet in {MEETING} alone")
    return found


def test_experiments_are_short_steps_that_know_nothing_of_each_other():
    found = faults_of_experiments(MODULES)
    assert not found, "\n".join(found)


def test_the_counters_of_modules_count(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    long = module(tmp_path / "runs.py", "x = 1\n" * 421)
    assert too_long([long, module(tmp_path / "cohort.py", "x = 1\n" * 420)]) == [
        "runs.py has 421 lines"
    ]
    rooms = [module(tmp_path / r / "a.py", "x = 1\n") for r in ("phantom", "deidentify", *SPINE)]
    assert not too_large(rooms)
    assert too_large(rooms[1:]) == ["there is no room phantom"]
    most = ROOMS["deidentify",]
    large = module(tmp_path / "deidentify" / "b.py", "\n" * most)
    assert too_large([*rooms, large]) == [f"deidentify: {most + 1} lines, at most {most}"]

    few = ", ".join(f"p{i}" for i in range(10))
    content = f"def f({few}, *, a, b): pass\nclass C:\n    def g(self, {few}, *a, b=1): pass\n"
    wide = module(tmp_path / "audit.py", content + f"    def h(self, {few}, a, *b, **c): pass\n")
    inner = module(tmp_path / "experiments" / "wide.py", f"async def f({few}, a, b, c): pass\n")
    assert with_many_parameters([wide]) == ["audit.py:4 h has 13"]
    assert with_many_parameters([wide, inner])[0].startswith("experiments/wide.py:1 f")

    body = "    x = 1\n" * 39
    module(tmp_path / "experiments" / "data.py", f"def f():\n{body}")
    module(tmp_path / "experiments" / "context.py", "from .settings import Settings\n")
    module(tmp_path / "experiments" / "settings.py", f"def f():\n{body}    y = 2\n")
    mixed = "from . import context, data\nfrom .context import Context\n"
    mixed += "def f():\n    from bonelib.experiments.data import f\n"
    module(tmp_path / "experiments" / "texts.py", mixed)
    nested = "from . import other\nfrom ..settings import x\nfrom .. import data\n"
    module(tmp_path / "experiments" / "results" / "tables.py", nested)
    module(tmp_path / "experiments" / "results" / "other.py", "from ..results.tables import x\n")
    module(tmp_path / "experiments" / "__init__.py", "from .data import f\n")
    found = faults_of_experiments(sorted((tmp_path / "experiments").rglob("[!aw]*.py")))
    assert [fault.split(" ", 1)[0] for fault in found] == [
        "experiments/results/tables.py:3",
        "experiments/settings.py:1",
        "experiments/texts.py:1",
        "experiments/texts.py:4",
    ]


def test_modules_and_public_functions_say_what_they_are_for():
    silent = []
    for path in MODULES:
        tree = nodes(path)[0]
        kinds = (*FUNCTIONS, ast.ClassDef)
        public = [n for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]
        for node in list(public):
            if isinstance(node, ast.ClassDef):
                public += [
                    n for n in node.body if isinstance(n, kinds) and not n.name.startswith("_")
                ]
        silent += [] if ast.get_docstring(tree) else [name(path)]
        silent += [f"{name(path)}:{n.lineno} {n.name}" for n in public if not ast.get_docstring(n)]
    assert not silent, "no docstring: " + ", ".join(silent)


def test_no_room_catches_everything_or_prints():
    wrong = []
    for path in MODULES:
        for node in nodes(path):
            where = f"{name(path)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else ""
                last = node.body[-1]  # what is passed on after tidying up is not swallowed
                passed_on = isinstance(last, ast.Raise) and last.exc is None
                if not passed_on and (not caught or re.search(r"\b(Base)?Exception\b", caught)):
                    wrong.append(f"{where} catches everything")
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                given = [ast.unparse(a) for a in node.args if isinstance(a, ast.Name)]
                if called.endswith("suppress") and {"Exception", "BaseException"} & set(given):
                    wrong.append(f"{where} suppresses everything")
                if called == "print" and room(path) not in ("__main__", "commands"):
                    wrong.append(f"{where} prints")
    assert not wrong, "\n".join(wrong)


# ---------------------------------------------------------------------- what a method is
def words_in(node):
    """The string constants of an operand, also inside of tuples, sums and f-strings."""
    parts = (ast.Tuple, ast.List, ast.Set, ast.JoinedStr, ast.BinOp, ast.Dict, ast.Slice)
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, parts):
        return [word for child in ast.iter_child_nodes(node) for word in words_in(child)]
    return []


def phrases(nodes):
    """Where code compares, prefixes or looks up how a method is displayed, as (line, phrase)."""
    found = []
    for node in nodes:
        operands = []
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
        elif isinstance(node, ast.Subscript):
            operands = [node.slice]
        elif isinstance(node, ast.MatchValue):
            operands = [node.value]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            operands = node.args if node.func.attr in LOOKS_UP else []
        words = [word for operand in operands for word in words_in(operand)]
        found += [(node.lineno, word) for word in words if PHRASE.search(word)]
    return found


def test_no_code_outside_figures_knows_a_method_by_its_displayed_name():
    found = [
        f"{name(path)}:{line} {phrase!r}"
        for path in MODULES
        if room(path) != "figures"
        for line, phrase in phrases(nodes(path))
    ]
    found += [
        f"{name(path)}: {phrase!r}"
        for path in NOTEBOOKS
        for _, phrase in phrases(ast.walk(ast.parse("\n".join(sources(path)))))
    ]
    assert not found, "compare start, strategy and sees instead of:\n" + "\n".join(found)


def test_the_reader_of_phrases_sees_every_way_to_look_one_up():
    looked_up = """
        a == "captions, fine-tuned"
        "metadata only" in rows
        a in ("x", "linear probe")
        a.startswith("prompts by ")
        a.str.endswith(", fine-tuned")
        table.loc["metadata only"]
        table.loc[rows, "metadata only"]
        a == f"captions, {how}"
        "ImageNet, " + how != a
        colours.get("metadata only", "grey")
        re.search("fine-tuned", a)
    """
    plain = """
        print("captions, fine-tuned", "metadata only")
        a == "captions"
        name = f"{a}, fine-tuned"
        table["strategy"] == "probe"
        raise_error("a linear probe needs two classes")
    """
    assert [line for line, _ in phrases(ast.walk(ast.parse(unindented(looked_up))))] == list(
        range(1, 12)
    )
    match = "match a:\n    case 'metadata only':\n        pass\n"
    assert phrases(ast.walk(ast.parse(match))) == [(2, "metadata only")]
    assert not phrases(ast.walk(ast.parse(unindented(plain))))


def unindented(block):
    return "\n".join(line.strip() for line in block.strip().splitlines())


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


def flow(source):
    """The names that a cell assigns, imports aside, and those that it reads."""
    top = symtable.symtable(source, "cell", "exec")
    symbols = top.get_symbols()
    assigned_here = {s.get_name() for s in symbols if s.is_assigned() and not s.is_imported()}
    read = {s.get_name() for s in symbols if s.is_referenced()}
    inner = list(top.get_children())
    while inner:
        table = inner.pop()
        inner += table.get_children()
        read |= {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
    return assigned_here, read


def in_flight(code):
    """The most names that are held between two cells, for one that reads them later.

    The first cell holds the parameters, which are not counted.
    """
    flows = [flow(source) for source in code]
    most = set()
    for i in range(1, len(flows)):
        before = set().union(*(names for names, _ in flows[1:i])) - flows[0][0]
        after = set().union(*(names for _, names in flows[i:]))
        most = max(most, before & after, key=len)
    return most


def measured(notebook):
    """How large a notebook is, by the names of ``NOTEBOOK``."""
    code = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    prose = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown"]
    tree = [node for source in code for node in ast.walk(ast.parse(source))]
    return {
        "code lines": sum(bool(line.strip()) for source in code for line in source.splitlines()),
        "branches": sum(isinstance(node, ast.If | ast.IfExp) for node in tree),
        "names in flight": len(in_flight(code)),
        "words": sum(bool(re.search(r"\w", word)) for text in prose for word in text.split()),
    }


def test_notebooks_keep_to_their_limits():
    sizes = {name(path): measured(json.loads(path.read_text())) for path in NOTEBOOKS}
    wrong = [
        f"{path}: {size[what]} {what}, at most {limit}"
        for path, size in sizes.items()
        for what, limit in NOTEBOOK.items()
        if size[what] > limit
    ]
    together = sum(size["code lines"] for size in sizes.values())
    if together > ALL_NOTEBOOKS:
        wrong.append(f"all notebooks: {together} code lines, at most {ALL_NOTEBOOKS}")
    assert not wrong, "\n".join(wrong)


def test_the_counters_of_notebooks_count():
    code = [
        'PROFILE = "tiny"\n\nSEED = 0',
        "import numpy as np\nfrom bonelib import runs as r\na, b = np.ones(2)  # two names",
        "for c in a:\n\n    d = [e for e in r if e] if c else b\n",
        "def f(x):\n    return d + x\nif PROFILE and SEED:\n    f(np)",
        "print(f(1), a)",
    ]
    assert in_flight(code) == {"a", "b"}, "a for the last cell, b for the third"
    assert in_flight([*code, "d, b, f"]) == {"a", "b", "d", "f"}
    assert not in_flight(["SEED = 0", "a = 1\nprint(a)", "print(SEED)"])
    cells = [{"cell_type": "code", "source": source.splitlines(True)} for source in code]
    prose = ["# A title — of five words\n", "\n", "and `code`"]
    cells += [{"cell_type": "markdown", "source": prose}]
    expected = {"code lines": 12, "branches": 2, "names in flight": 2, "words": 7}
    assert measured({"cells": cells}) == expected


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


def test_make_kernels_and_the_command_line_set_one_environment(tmp_path, monkeypatch, capsys):
    from bonelib import __main__ as command
    from bonelib.headless.kernel import PROCESS_ENVIRONMENT

    exported = re.findall(r"^export (\w+) \?= (\S+)$", (ROOT / "Makefile").read_text(), re.M)
    assert dict(exported) == PROCESS_ENVIRONMENT
    monkeypatch.setenv("BONELIB_RUNS", str(tmp_path))
    name = "GOMP_SPINCOUNT"  # the others are read before python starts
    for own, expected in (("7", "7"), (None, PROCESS_ENVIRONMENT[name])):
        monkeypatch.setenv(name, "7")
        if own is None:
            monkeypatch.delenv(name)
        command.main(["runs"])
        assert os.environ[name] == expected, "what the user has set stands"
