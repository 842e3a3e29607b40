"""Protects the lab: JupyterLab opens on a notebook that runs; widgets work by keyboard."""

import json
import os
import re
import socket
import sys
from pathlib import Path

import browser
import explored
import numpy as np
import pytest

from bonelib.__main__ import main
from bonelib.commands.lab import QUIET
from bonelib.headless.kernel import PROCESS_ENVIRONMENT

pytestmark = pytest.mark.notebooks

GREY = """
import io
import ipywidgets as widgets, numpy as np
from PIL import Image
from bonelib.explore import Panel

grey = widgets.IntSlider(description="Grey", min=0, max=255, value=100)
site = widgets.Dropdown(description="Site", options=["femur", "tibia", "hand"])
picture, facts = widgets.Image(format="png"), widgets.HTML()
picture.add_class("bone-picture"), facts.add_class("bone-facts")

def draw(change=None):
    made = io.BytesIO()
    Image.fromarray(np.full((64, 64), grey.value, np.uint8)).save(made, "png")
    picture.value, facts.value = made.getvalue(), f"{site.value} in {grey.value}"

for control in (grey, site):
    control.observe(draw, "value")
draw()
Panel(widgets.VBox([grey, site, picture, facts]), lambda: None)
"""

HERE = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})"
WIDGETS = ("cases", "heat_maps", "similar", "prompts", "runs")
IMAGES = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A JupyterLab on a folder with small notebooks."""
    place = tmp_path_factory.mktemp("lab")
    root = place / "notebooks"
    root.mkdir()
    browser.notebook(root / "grey.ipynb", GREY)
    cells = [f"explored.{name}({IMAGES})" for name in WIDGETS]
    browser.notebook(root / "widgets.ipynb", f"{HERE}\nimport explored", *cells)
    with browser.lab(place, options=[f"--ServerApp.root_dir={root}"]) as server:
        server.root = root
        yield server


@pytest.fixture(scope="module")
def page(server):
    with browser.reader(server) as page:
        yield page


# ------------------------------------------------------------------ the panel
def test_a_panel_answers_to_the_keyboard(page):
    page.open("grey.ipynb")
    page.run_all()
    assert (page.picture() == 100).all()
    page.press("Grey", "ArrowRight", "ArrowRight", "ArrowUp")
    page.until(page.facts, lambda told: told == "femur in 103")
    page.until(page.picture, lambda seen: (seen == 103).all())


def test_keys_of_a_dropdown_stay_in_the_panel(page):
    """JupyterLab's own shortcuts would move to the next cell (arrows) and cut this one (x)."""
    page.open("grey.ipynb")
    page.run_all()
    page.press("Site", "ArrowDown", "x", "ArrowDown")
    page.until(page.facts, lambda told: told == "hand in 100")
    assert page.page.locator(".jp-Cell").count() == 1


def test_a_kernel_that_is_killed_is_told_and_a_rerun_works(page, server):
    page.open("grey.ipynb")
    page.run_all()
    server.kill_kernel("grey.ipynb")
    dialog = page.page.get_by_role("dialog")
    dialog.wait_for()
    assert "appears to have died" in dialog.inner_text()
    page.screenshot("kernel-killed")
    page.page.keyboard.press("Enter")
    page.idle()
    page.run_all()
    page.press("Grey", "End")
    page.until(page.picture, lambda seen: (seen == 255).all())


def test_a_saved_notebook_holds_no_picture_of_a_widget(page, server):
    page.open("grey.ipynb")
    page.run_all()
    page.press("Grey", "Home")
    path = server.root / "grey.ipynb"
    before = path.stat().st_mtime_ns
    page.press("Grey", "Control+s")  # a shortcut that passes the panel
    page.changes(lambda: path.stat().st_mtime_ns, before)
    saved = path.read_text(encoding="utf-8")
    outputs = json.loads(saved)["cells"][0]["outputs"]
    assert any("application/vnd.jupyter.widget-view+json" in o["data"] for o in outputs)
    assert "image/png" not in saved and "widgets" not in json.loads(saved)["metadata"]


# ------------------------------------------------------------------ the widgets
@pytest.fixture(scope="module")
def widgets(page, server):
    """Every widget in one notebook, each in a panel of its own."""
    other = browser.Reader(page.browser, server)  # one driver in a process
    other.open("widgets.ipynb")
    other.run_all()
    return other


@pytest.fixture
def panel(widgets, request):
    widgets.look_at(WIDGETS.index(request.param))
    widgets.panel.scroll_into_view_if_needed()
    yield widgets
    widgets.screenshot(request.param)
    assert widgets.facts("fault") == ""


def of(name):
    return pytest.mark.parametrize("panel", [name], indirect=True)


@of("cases")
def test_a_reader_finds_a_case_changes_its_window_and_reads_its_report(panel):
    before = panel.picture()
    panel.press("level", "PageUp")
    assert panel.changes(panel.picture, before).mean() < before.mean(), "a higher level is darker"
    panel.press("site", "h")
    panel.until(lambda: panel.facts("count"), lambda told: told == "15 of 60 cases")
    panel.until(panel.facts, lambda told: "hand" in told and "i3" in told)
    panel.press("report", "Tab", "Space")
    panel.until(lambda: panel.facts("report"), lambda told: told == "[NAME], i3: lytic lesion.")
    panel.press("report", "Tab", "Space")
    panel.until(lambda: panel.facts("report"), lambda told: "Anna Muster, i3" in told)
    panel.press("next", "Space")
    panel.until(lambda: panel.facts("report"), lambda told: told == "[NAME], i7: lytic lesion.")


@of("heat_maps")
def test_a_reader_asks_for_another_target_and_takes_the_heat_away(panel):
    before = panel.picture()
    panel.press("target", "ArrowDown")
    turned = panel.changes(panel.picture, before)
    assert hottest(turned) != hottest(before), "the other target's map is upside down"
    panel.press("outline", "Space")
    panel.press("opacity", "Home")
    panel.until(panel.picture, lambda seen: np.ptp(seen.astype(int), axis=-1).max() < 9)


def hottest(picture):
    """The row where red exceeds blue most."""
    return (picture[..., 0].astype(int) - picture[..., 2]).sum(axis=1).argmax()


@of("similar")
def test_a_reader_sees_other_patients_beside_the_next_case(panel):
    before = panel.picture(1)
    panel.press("case", "ArrowRight", "ArrowRight")
    told = panel.until(panel.facts, lambda told: "i2" in told.split()[:2])
    panel.changes(lambda: panel.picture(1), before)
    patients = re.findall(r"patient\s+(p\d+)", told)
    assert len(patients) == 7 and patients[0] == "p1" and "p1" not in patients[1:]
    film = explored.picture("i2").repeat(2, axis=0).repeat(2, axis=1)
    seen = panel.until(panel.picture, lambda seen: seen.shape == film.shape)
    assert np.abs(seen.astype(int) - film).mean() < 8


@of("prompts")
def test_a_reader_asks_in_other_words(panel):
    before = panel.facts()
    assert "difference .000" in before
    panel.type("tumor", "a destroyed femur", "Tab")
    told = panel.until(panel.facts, lambda told: "AUROC" in told and "difference .000" not in told)
    assert told.splitlines()[0].startswith("i0")
    picture = panel.picture()
    panel.press("case", "ArrowRight")
    panel.until(panel.facts, lambda told: told.startswith("i1"))
    panel.changes(panel.picture, picture)


@of("runs")
def test_a_reader_takes_another_run_as_reference(panel):
    rows = [line.split("\t")[0] for line in panel.facts().splitlines()]
    assert rows[1:4] == ["imagenet full", "captions full", "captions probe"]
    before = panel.picture()
    panel.press("reference", "ArrowDown")
    told = panel.until(panel.facts, lambda told: told.split("\n")[1].startswith("captions full"))
    assert len(re.findall(r"\.\d{3} \[", told)) == 3, "two scores and their difference"
    curves = panel.changes(panel.picture, before)
    panel.press("curves of", "ArrowDown")
    panel.changes(panel.picture, curves)


# ------------------------------------------------------------------ bonelib lab
def test_the_lab_serves_notebook_01_with_kernels_of_this_interpreter(tmp_path, monkeypatch):
    """On the next port where the first is taken, whatever kernel the user has registered."""
    for name in PROCESS_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    wrong = tmp_path / "data" / "kernels" / "python3" / "kernel.json"
    wrong.parent.mkdir(parents=True)
    wrong.write_text('{"argv": ["/no/python"], "display_name": "Wrong", "language": "python"}')
    command = (sys.executable, "-m", "bonelib", "lab", "--")
    own = {"JUPYTER_PREFER_ENV_PATH": "0", "JUPYTER_PATH": str(tmp_path / "data")}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with browser.lab(tmp_path, command=command, port=port, environment=own) as server:
            assert server.port != port
            assert server.get("").url.endswith("/lab/tree/01_data.ipynb")
            assert server.get("api/contents/01_data.ipynb").json()["content"]["cells"]
            # Nobody is asked for a newer JupyterLab, its news or extensions.
            page = server.get("lab/tree/01_data.ipynb").text
            assert '"news": {"disabled": true}' in page and '"can_install": false' in page, page[
                :3000
            ]
            assert server.get("lab/api/update").json()["notification"] is None
            names = tuple(PROCESS_ENVIRONMENT)
            code = "import bonelib, json, os, sys; print(json.dumps("
            code += f"[sys.executable, *(os.environ[n] for n in {names})]))"
            printed = server.execute(code)
    assert printed.startswith("["), printed
    assert json.loads(printed) == [sys.executable, *PROCESS_ENVIRONMENT.values()]


@pytest.fixture
def started(monkeypatch):
    """The options that JupyterLab would be started with."""
    kept = []
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(os, "execv", lambda path, argv: kept.extend(argv[3:]))
    return kept


def test_another_root_folder_opens_on_notebook_01_if_it_is_in_it(started, tmp_path):
    root = f"--ServerApp.root_dir={browser.ROOT}"
    main(["lab", "--", "--no-browser", root])
    url = "--LabApp.default_url=/lab/tree/notebooks/01_data.ipynb"
    assert started == [*QUIET, url, "--no-browser", root]
    started.clear()
    main(["lab", "--", f"--ServerApp.root_dir={tmp_path}"])
    assert started == [*QUIET, f"--ServerApp.root_dir={tmp_path}"]


def test_a_missing_kernel_is_a_sentence(started, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert main(["lab"]) == 2 and not started
    assert f"ipykernel) is not installed in {tmp_path}. Run `make setup`" in capsys.readouterr().err
