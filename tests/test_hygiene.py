"""Protects what is committed: no data, no secrets, no identities, no machine; one set of versions.

Each check is a function that names faults, and a test plants what it must find: a check that can't
fail protects nothing. The plants are put together here, so that this file passes its own scan.
A short list of patterns stands for a scanner: the usual one, detect-secrets, had its last release
in 2024.
"""

import ast
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from test_architecture import MODULES, NOTEBOOKS, ROOT, SPINE, name, room, text, tracked_files

from bonelib.headless.plan import declared

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# ---------------------------------------------------------------------- no data, no weights
DATA = "dcm dicom nii nrrd mha npy npz h5 hdf5 parquet feather arrow pkl pickle joblib pt pth ckpt"
DATA += " bin safetensors onnx tflite zip tar gz tgz xz 7z rar xlsx xls docx jpg jpeg tif tiff bmp"
PICTURES = ("png", "pdf", "svg")
MAGIC = {
    "DICOM": lambda data: data[128:132] == b"DICM",
    "safetensors": lambda data: data[8:9] == b"{" and int.from_bytes(data[:8], "little") < 2**27,
    "a pickle": lambda data: (
        data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    ),
    "an archive (npz, a checkpoint, a sheet)": lambda data: data[:4] == b"PK\x03\x04",
    "an array": lambda data: data[:6] == b"\x93NUMPY",
    "HDF5": lambda data: data[:4] == b"\x89HDF",
    "Parquet": lambda data: data[:4] == b"PAR1",
    "compressed": lambda data: data[:2] == b"\x1f\x8b" or data[:6] == b"\xfd7zXZ\x00",
    "a photograph": lambda data: data[:3] == b"\xff\xd8\xff",
}
LARGEST = {"png": 1.5, "pdf": 1.5}  # MiB of a figure; of all else 1


def carried(path, data):
    """Say what a committed file must not be: data, weights, a radiograph, large."""
    suffix = path.rpartition(".")[2].lower() if "." in path else ""
    faults = [f"is named as data (.{suffix})"] * (suffix in DATA.split())
    faults += [f"holds {what}" for what, found in MAGIC.items() if found(data)]
    if suffix in PICTURES and not path.startswith("figures/phantom"):
        faults.append("is a picture outside of figures/phantom")
    if len(data) > LARGEST.get(suffix, 1) * 2**20:
        faults.append(f"has {len(data) / 2**20:.1f} MiB")
    return [f"{path} {fault}" for fault in faults]


def test_no_data_no_weights_and_no_radiograph_is_committed():
    faults = [f for path in tracked_files() for f in carried(name(path), path.read_bytes())]
    assert not faults, "\n".join(faults)


PLANTED_DATA = {
    "scan": bytes(128) + b"DICM",
    "tower": (50).to_bytes(8, "little") + b'{"w":{}}',
    "model": b"\x80\x04\x95",
    "features": b"PK\x03\x04",
    "features.": b"\x93NUMPY\x01",
    "store": b"\x89HDF\r\n",
    "table": b"PAR1",
    "report": b"\x1f\x8b\x08",
    "film": b"\xff\xd8\xff\xe0",
    "runs/a.safetensors": b"",
    "docs/lesion.png": b"\x89PNG",
    "figures/hospital/case.png": b"\x89PNG",
    "figures/phantom/case.png": bytes(2**21),
    "bonelib/lexicon.csv": b"a" * (2**20 + 1),
}


@pytest.mark.parametrize("path", PLANTED_DATA)
def test_data_and_weights_are_noticed(path):
    assert carried(path, PLANTED_DATA[path])
    assert not carried("figures/phantom/one.png", b"\x89PNG") and not carried("LICENSE", b"MIT")


# ---------------------------------------------------------------------- no secrets, no identities
QUOTED = r"[\"' ]*[:=] *[\"'][^\"'\s{}]{8,}[\"']"
SECRETS = {
    "an AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{40}",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30}",
    "a key of a service": r"\b(?:sk-[\w-]{32}|AIza[\w-]{35}|xox[abprs]-[\w-]{10}|glpat-[\w-]{20})",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY",
    "a signed token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10}",
    "a Kaggle key": r"[\"']key[\"'] *: *[\"'][0-9a-f]{32}[\"']",
    "a password in an address": r"://[^/\s:@\"'{}<>]+:[^/\s:@\"'{}<>]+@\w",
    "a password": rf"(?i)\b(?:password|passwd|api_?key|auth_?token){QUOTED}",
}
TITLES = "Dr|Pr|Prof|Mme|Mlle|Monsieur|Madame|Mr|Mrs|Docteur|Professeur"
IDENTITIES = {
    "an e-mail address": r"[\w.+-]+@(?!ex[ae]mple\.)[\w-]+(?:\.[\w-]+)*\.(?!example\b)[a-z]{2,}",
    # Not the numbers of notebooks: 01 04 05 07 09.
    "a phone number": r"(?<![\w.+-])(?:\+\d{2,3}(?:[ .-]\d{1,4}){3,5}|0[1-9](?:[ .-][1-9]\d){4})\b",
    "a person with a title": rf"\b(?:{TITLES})\.? (?:[A-Z]\. ?)?[A-ZÀ-Þ][a-zà-ÿ]{{2,}}",
}
# Invented people, on whom removing identities is tried.
INVENTED = ("benchmarks/", "bonelib/deidentify/", "bonelib/phantom/", "bonelib/reports/")
INVENTED += ("tests/", "findings/")
START = r"(?<![\w.:/~-])"  # of a path, and no address
MACHINES = {
    "a folder of a machine": rf"{START}/(?:mnt|media|Volumes|scratch|gpfs|lustre|private|srv)/\w+",
    "a folder of somebody": rf"\b[A-Za-z]:[\\/]+Users[\\/]|{START}/(?:home|Users)/\w+",
    "a folder of one run": rf"{START}/(?:tmp|var)/(?:\w+/)*(?:tmp\w{{6,}}|x_\w+|wt/\w+)",
    "the index of packages": r"(?:extra[-_])?index[-_]url|trusted[-_]host|find[-_]links"
    r"|\bpypi[.-][\w.-]+/|/simple/[\w-]",
    "how work is organised": r"(?i)\bsub-?agents?\b|\bworktrees?\b|\bco-authored-by\b"
    r"|\b(?:this|last|next|previous|another) session\b|\bissues show\b|\bbrief\d+",
}
OURS = "tests/test_hygiene.py"  # which names what it looks for


def told(path, content):
    """Say which lines of a committed text name a secret, a person, a machine or its work."""
    patterns = SECRETS | (MACHINES if path != OURS else {})
    patterns |= {} if path.startswith(INVENTED) else IDENTITIES
    lines = list(enumerate(content.splitlines(), 1))
    return [
        f"{path}:{number} has {what}: {hit.group()[:12]}…"
        for what, pattern in patterns.items()
        if re.search(pattern, content)
        for number, line in lines
        if (hit := re.search(pattern, line))
    ]


def texts():
    """Yield each committed text by its name; a figure is none."""
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" not in data[:8000] and path.suffix not in (".png", ".pdf"):
            yield name(path), data.decode(encoding="utf-8")


def test_no_secret_no_identity_and_no_machine_is_committed():
    faults = [fault for path, content in texts() for fault in told(path, content)]
    assert not faults, f"{len(faults)} lines:\n" + "\n".join(faults[:20])


PLANTED = {
    "an AWS key": "AKIA" + "Q7" * 8,
    "a GitHub token": "ghp_" + "a1B2" * 9,
    "a Hugging Face token": "hf_" + "aB3" * 11,
    "a key of a service": "sk-" + "a1-B" * 8,
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "a signed token": "eyJ" + "hbGciOiJI" + "UzI1.eyJ" + "zdWIiOiIxMjM0",
    "a Kaggle key": '{"user": "a", "key": "' + "0a" * 16 + '"}',
    "a password in an address": "https://me:" + "hunter2@host.org",
    "a password": "password = " + '"correct-horse"',
    "an e-mail address": "write to jan.peeters" + "@hospital.org",
    "a phone number": "call 01 42" + " 49 49 49",
    "a phone number of abroad": "call +32 475" + " 12 34 56",
    "a person with a title": "read by Dr " + "Peeters",
    "a folder of a machine": "root = '/mnt" + "/radiology'",
    "a folder of somebody": "C:" + "\\Users\\jan",
    "a folder of one run": "open('/tmp" + "/tmpa8x_q2/a.csv')",
    "the index of packages": "--extra-" + "index-url=x",
    "how work is organised": "as the last " + "session found",
}


@pytest.mark.parametrize("planted", PLANTED)
def test_secrets_identities_and_machines_are_noticed(planted):
    what = planted.removesuffix(" of abroad")
    assert [f for f in told("docs/a.md", f"first\n{PLANTED[planted]}\n") if f":2 has {what}" in f]
    assert {*SECRETS, *IDENTITIES, *MACHINES} <= {*PLANTED}
    if what in SECRETS:
        assert told(OURS, PLANTED[what]) and told("tests/test_a.py", PLANTED[what])


def test_documented_examples_are_no_identities():
    plain = "jean.dupont@example.org secretariat@chu.example 10.1000/182 2024-01-02 1e-3 0.05 0.10"
    plain += " v01.02.03.04 12 345 678 https://doi.org/10.1007/978-3-031-43904-9 @pytest.fixture"
    assert told("docs/a.md", plain) == []


# ---------------------------------------------------------------------- notebooks
def notebook_faults(path):
    """Say where a notebook carries outputs, lost its ids, or is read otherwise by papermill."""
    papermill = pytest.importorskip("papermill")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    ids = [cell.get("id", "") for cell in cells]
    faults = ["a cell has no id"] * (not all(ids)) + ["two cells share an id"] * (
        len(set(ids)) < len(ids)
    )
    faults += ["outputs"] * any(c.get("outputs") or c.get("execution_count") for c in cells)
    faults += ["attachments"] * any("attachments" in cell for cell in cells)
    try:
        ours = declared(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return [*faults, str(error)]
    read = papermill.inspect_notebook(str(path))
    theirs = {key: ast.literal_eval(one["default"]) for key, one in read.items()}
    return faults + [f"{key} is read otherwise" for key in ours if theirs.get(key) != ours[key]]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_carries_nothing_and_is_read_alike_by_papermill(path):
    assert notebook_faults(path) == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda cells: cells[0].pop("id"), "no id"),
        (lambda cells: cells[0].update(id=cells[1]["id"]), "share an id"),
        (lambda cells: cells[-1].update(outputs=[{"output_type": "stream"}]), "outputs"),
        (lambda cells: cells[0].update(attachments={"a.png": {}}), "attachments"),
        (lambda cells: cells[1]["source"].append("\nMORE: str = 'a=b|c'"), "MORE is read"),
        (lambda cells: cells[1]["source"].append("\nMORE = SEED + 1"), "plain value"),
    ],
)
def test_what_a_notebook_carries_is_noticed(tmp_path, change, fault):
    notebook = json.loads(NOTEBOOKS[0].read_text(encoding="utf-8"))
    cells = notebook["cells"]
    first = next(i for i, cell in enumerate(cells) if cell["cell_type"] == "code")
    cells[1] = cells[first]  # the parameters
    del cells[first + 1 :]
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i}"
    change(cells)
    (tmp_path / "01.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    assert any(fault in found for found in notebook_faults(tmp_path / "01.ipynb"))


# ---------------------------------------------------------------------- one set of versions
def direct(project, extra="dev"):
    """Return what the package needs, with an extra and those that it names."""
    found = [Requirement(line) for line in project["dependencies"]]
    for line in project["optional-dependencies"][extra]:
        one = Requirement(line)
        if one.name != project["name"]:
            found.append(one)
        for other in one.extras if one.name == project["name"] else ():
            found += [r for r in direct(project, other) if r not in found]
    return found


def disagreements(pyproject, lock, environment):
    """Say where pyproject.toml, requirements.lock and environment.yml (texts) contradict."""
    yaml = pytest.importorskip("yaml")
    pyproject = tomllib.loads(pyproject)
    lines = [line.strip() for line in lock.splitlines() if line.strip() and line[0] != "#"]
    faults = [f"{line!r} pins nothing" for line in lines if not re.fullmatch(r"[\w.-]+==\S+", line)]
    pins = [line.partition("==")[::2] for line in lines]
    names = [canonicalize_name(one) for one, _ in pins]
    faults += [f"{one} stands twice" for one in sorted(set(names)) if names.count(one) > 1]
    locked = dict(zip(names, (version for _, version in pins), strict=True))
    for one in direct(pyproject["project"]):
        version = locked.get(canonicalize_name(one.name))
        if version is None:
            faults.append(f"{one.name} is not in the lock")
        elif not one.specifier.contains(version, prereleases=True):
            faults.append(f"the lock has {one.name} {version}, not {one.specifier}")
    entries = yaml.safe_load(environment)["dependencies"]
    pip = [line for entry in entries if isinstance(entry, dict) for line in entry["pip"]]
    faults += [f"environment.yml lacks {line!r}" for line in PIP if line not in pip]
    conda = [re.sub("[=<> ]+", " ", e).split() for e in entries if isinstance(e, str)]
    python = dict(e for e in conda if len(e) == 2).get("python", "none")
    made = re.search(r"Python (\d\.\d+)", lock)
    checked = pyproject["tool"]["pyrefly"]["python-version"]
    if not made or not python == made[1] == checked:
        faults.append(f"python {python} in environment.yml, {made and made[1]} in the lock")
    if python == "none" or python not in SpecifierSet(pyproject["project"]["requires-python"]):
        faults.append(f"python {python} does not fit requires-python")
    return faults


PIP = ("-c requirements.lock", "-e .[dev]")
FILES = ("pyproject.toml", "requirements.lock", "environment.yml")


def test_pyproject_lock_and_environment_agree():
    assert disagreements(*((ROOT / file).read_text(encoding="utf-8") for file in FILES)) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        (0, '"timm>=1.0.20"', '"timm>=99"', "the lock has timm"),
        (0, '"pandas>=2.3"', '"pandas>=2.3", "leftpad"', "leftpad is not in the lock"),
        (0, 'requires-python = ">=3.11"', 'requires-python = ">=3.12"', "requires-python"),
        (0, "dicognito>=0.19", "dicognito>=99", "the lock has dicognito"),
        (1, "timm==", "Timm==1.0\ntimm==", "timm stands twice"),
        (1, "timm==", "timm>=", "pins nothing"),
        (1, "(Python 3.11", "(Python 3.12", "in the lock"),
        (2, "python=3.11", "python=3.12", "in environment.yml"),
        (2, "-c requirements.lock", "numpy", "lacks '-c requirements.lock'"),
        (2, "-e .[dev]", "-e .", "lacks '-e .[dev]'"),
    ],
)
def test_a_disagreement_is_noticed(file, old, new, fault):
    contents = [(ROOT / one).read_text(encoding="utf-8") for one in FILES]
    assert old in contents[file]
    contents[file] = contents[file].replace(old, new)
    assert any(fault in found for found in disagreements(*contents))


def drifted(lock, installed):
    """Say which direct dependencies are installed in another version than the lock's."""
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", lock, re.MULTILINE))
    pins = {canonicalize_name(one): version for one, version in pins.items()}
    names = sorted({canonicalize_name(one.name) for one in direct(PYPROJECT["project"])})
    both = [(one, installed(one), pins.get(one)) for one in names]
    return [f"{one} {here}, the lock has {pin}" for one, here, pin in both if here != pin]


def test_what_is_installed_is_what_the_lock_says():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")

    def installed(one):
        try:  # the build of torch (+cpu, +cu128) is no other version
            return importlib.metadata.version(one).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            return "is not installed"

    assert drifted(lock, installed) == []
    assert "timm 0.9" in drifted(lock, lambda o: "0.9" if o == "timm" else installed(o))[0]


# ---------------------------------------------------------------------- types
ANYS = 300  # lines of the spine with ``Any``, imports aside: it may fall
IGNORED = 12  # what the checker is told to let pass, each with its code and a reason
IGNORE = re.compile(r"# pyrefly: ignore\[[\w-]+(?:, [\w-]+)*\] \S")


def rooms_checked(listed):
    return sorted({path.removeprefix("bonelib/").removesuffix(".py") for path in listed})


def test_the_whole_spine_is_checked():
    listed = PYPROJECT["tool"]["pyrefly"]["project-includes"]
    assert rooms_checked(listed) == sorted(SPINE)
    assert all((ROOT / path).exists() for path in listed)
    assert rooms_checked(listed[1:]) != sorted(SPINE)


def test_make_check_runs_the_checker():
    steps = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.search(r"ruff check[\s\S]*pyrefly check[\s\S]*pytest", steps[1])


def loose(paths):
    """Count the lines that name ``Any``, imports aside; list what is let pass, and what wrongly."""
    lines = [line for path in paths for line in text(path).splitlines()]
    anys = sum(bool(re.search(r"\bAny\b", line.partition("#")[0])) for line in lines)
    imports = sum(bool(re.match(r"from typing import .*\bAny\b", line)) for line in lines)
    let = [
        line.strip() for line in lines if re.search(r"(?:type|pyrefly|pyright|mypy): ?ignore", line)
    ]
    return anys - imports, let, [line for line in let if not IGNORE.search(line)]


def test_types_grow_no_looser():
    anys, let, blanket = loose([path for path in MODULES if room(path) in SPINE])
    assert not blanket, f"name the code and say why: {blanket}"
    assert len(let) <= IGNORED, "\n".join(let)
    assert anys <= ANYS, f"{anys} lines with Any, at most {ANYS}: give the type"


def test_loose_types_are_noticed(tmp_path):
    module = tmp_path / "a.py"
    module.write_text(
        "from typing import Any\n\ndef f(x: Any) -> dict[str, Any]: ...  # Any\nAnyRun = 1\n"
        "a = f(1)  # pyrefly: ignore[bad-return] the library says so\n"
        "b = f(1)  # type: ignore\nc = f(1)  # pyrefly: ignore\n"
        "d = 1  # pyrefly: ignore[bad-return]\n"
    )
    anys, let, blanket = loose([module])
    assert (anys, len(let), len(blanket)) == (1, 4, 3)


def test_the_checker_finds_a_wrong_type(tmp_path):
    checker = shutil.which("pyrefly", path=str(Path(sys.executable).parent))
    assert checker, "pyrefly is not installed beside this Python: make setup"
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    for wrong in (False, True):
        file = tmp_path / "bonelib" / "cohort.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(
            "def f(x: int) -> int:\n    return x\n\n\nf(%s)\n" % ("'a'" if wrong else 1)
        )
        command = [checker, "check", "--output-format", "min-text"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert bool(done.returncode) == wrong, done.stdout + done.stderr
    assert "bad-argument-type" in done.stdout
