"""Protects the bars over long work: seen by readers alone, true to the work, gone at its end."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import nbformat
import numpy as np
import pytest
import torch

from bonelib import encoders, features, losses, models, training
from bonelib.commands import printing
from bonelib.experiments import context, data, progress

WORK = """
import sys, time
from bonelib.experiments import progress
progress.DELAY = progress.INTERVAL = 0.0
with progress.bar("drawing") as show:
    for done in range(1, 6):
        time.sleep(0.02)
        show(done, 5)
        if done == 3 and "fail" in sys.argv:
            raise ValueError("no more ink")
print("finished", flush=True)
"""
BAR = re.compile(r"drawing: +\d+%\|.*\d+/5 \[.*<.*images/s\]")


def on_terminal(*command, **environment):
    """Run a command whose streams are a terminal; return what it wrote and its exit status."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    given = os.environ | {"TERM": "xterm"} | environment
    streams = dict(stdin=theirs, stdout=theirs, stderr=theirs)
    with subprocess.Popen([sys.executable, *command], env=given, **streams) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                more = os.read(ours, 4096)
            except OSError:  # Linux says so when the other end is closed
                break
            if not more:
                break
            written += more
    os.close(ours)
    return written.decode(), process.returncode


def screen(written):
    """Return the lines that a terminal shows in the end; a carriage return goes to column 0."""
    lines = []
    for line in written.replace("\r\n", "\n").split("\n"):
        cells = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        lines.append("".join(cells).rstrip())
    return [line for line in lines if line]


def test_a_terminal_shows_a_bar_with_the_time_left_that_is_gone_at_the_end():
    written, status = on_terminal("-c", WORK)
    assert status == 0
    assert BAR.search(written), written
    assert screen(written) == ["finished"]


def test_an_exception_leaves_no_bar_on_the_line_of_its_message():
    written, status = on_terminal("-c", WORK, "fail")
    assert status == 1 and BAR.search(written)
    shown = screen(written)
    assert shown[0].startswith("Traceback") and shown[-1] == "ValueError: no more ink"
    assert not any(BAR.search(line) for line in shown)


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"RANK": "1"}])
def test_a_terminal_that_cannot_go_back_and_other_processes_show_none(environment):
    written, _ = on_terminal("-c", WORK, **environment)
    assert written == "finished\r\n"


def test_a_pipe_gets_lines(tmp_path):
    command = [sys.executable, "-m", "bonelib", "phantom", tmp_path / "a"]
    command += ["--images", "20", "--size", "64"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "\r" not in done.stdout + done.stderr
    assert done.stdout.splitlines()[:10] == [f"  {n} of 20 images" for n in range(2, 21, 2)]
    assert "%|" not in done.stdout + done.stderr


def test_commands_show_a_bar_in_place_of_lines_where_there_can_be_one(monkeypatch, capsys):
    class Shown:
        def __enter__(self):
            return "bar"

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(progress, "bar", lambda words: Shown())
    for watched, expected in ((True, ""), (False, "  1 of 2 images\n  2 of 2 images\n")):
        monkeypatch.setattr(progress, "watched", lambda found=watched: found)
        with printing.tenths("drawing") as show:
            for done in (1, 2) if show != "bar" else ():
                show(done, 2)
        assert capsys.readouterr().out == expected


# ---------------------------------------------------------------------- notebooks
def test_a_headless_copy_holds_lines_alone():
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(WORK)])
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    outputs = notebook.cells[0].outputs
    assert [(one.output_type, one.text) for one in outputs] == [("stream", "finished\n")]


@pytest.mark.parametrize("fails", [False, True])
def test_a_reader_of_a_notebook_sees_a_widget_that_is_closed_at_the_end(fails):
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=120)
    messages = []
    try:
        code = WORK.replace('"fail" in sys.argv', str(fails))
        client.execute_interactive(
            code, allow_stdin=True, timeout=120, output_hook=messages.append, stdin_hook=print
        )
        # what the widget says travels on other messages than those of the cell
        kinds = [message["msg_type"] for message in messages]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    shown = [m["content"]["data"] for m in messages if m["msg_type"] == "display_data"]
    assert len(shown) == 1 and "application/vnd.jupyter.widget-view+json" in shown[0]
    model = shown[0]["application/vnd.jupyter.widget-view+json"]["model_id"]
    closed = {m["content"]["comm_id"] for m in messages if m["msg_type"] == "comm_close"}
    assert model in closed, "the bar stays"
    assert ("error" in kinds) == fails
    bars = [m["content"]["data"]["state"] for m in messages if m["msg_type"] == "comm_open"]
    assert 5 in [state.get("max") for state in bars], "the bar is as long as the work"


# ---------------------------------------------------------------------- what is counted
class Pairs:
    """Six images in three batches."""

    image_ids, shuffle = [str(i) for i in range(6)], False

    def __init__(self):
        self.image = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return 3

    def __iter__(self):
        for rows in torch.arange(6).chunk(3):
            yield {"image": self.image[rows], "label": rows % 2}


def tower():
    return encoders.image("timm:test_resnet", weights="random", size=32, seed=1)


def trained(model):
    given = (model, losses.classification_objective(), Pairs(), training.Options(epochs=2))
    torch.manual_seed(0)
    return progress.fit(*given, accelerator="cpu")


class Recorded:
    """Stands in for ``progress.bar`` and keeps what it was told."""

    def __init__(self, monkeypatch, *modules):
        self.told, self.open = {}, []
        for module in modules:
            monkeypatch.setattr(module, "bar", self.bar)

    @contextlib.contextmanager
    def bar(self, words, unit="images"):
        self.open.append(words)
        try:
            yield lambda *count: self.told.setdefault(words, []).append(count)
        finally:
            self.open.remove(words)


def test_a_training_counts_its_steps_and_shows_no_bar_while_a_row_is_read(monkeypatch):
    kept = Recorded(monkeypatch, progress)
    for row in trained(models.Classifier(tower(), outputs=1)):
        assert not kept.open and kept.told["training"][-1] == (3 * row["epoch"], 6)
    assert kept.told == {"training": [(step, 6) for step in range(1, 7)]}


def test_an_interrupted_training_closes_its_bar_and_keeps_its_weights(monkeypatch):
    kept, model = Recorded(monkeypatch, progress), models.Classifier(tower(), outputs=1)
    closed = []
    fit = training.fit

    def watched(*given, **options):
        with contextlib.closing(fit(*given, **options)) as rows:
            try:
                yield from rows
            finally:
                closed.append(True)

    monkeypatch.setattr(training, "fit", watched)
    rows = trained(model)
    next(rows)
    rows.close()  # as an interrupted cell does
    assert closed and not kept.open


def test_a_bar_changes_no_bit(monkeypatch):
    weights = []
    for watched in (False, True):
        monkeypatch.setattr(progress, "watched", lambda found=watched: found)
        monkeypatch.setattr(progress, "DELAY", 0.0)
        model = models.Classifier(tower(), outputs=1)
        rows = [row["loss"] for row in trained(model)]
        weights.append([rows, torch.rand(1).item(), *map(torch.clone, model.state_dict().values())])
    assert all(np.array_equal(one, other) for one, other in zip(*weights, strict=True))


def test_features_count_images_once_and_stored_ones_not_at_all(tmp_path):
    told = []
    asked = dict(folder=tmp_path, weights="w", content="c")
    asked |= dict(progress=lambda *count: told.append(count))
    first = features.image_features(tower(), Pairs(), **asked)
    assert told == [(2, 6), (4, 6), (6, 6)]
    again = features.image_features(tower(), Pairs(), **asked)
    assert len(told) == 3 and np.array_equal(first, again)


def test_drawing_decoding_and_features_of_a_cohort_are_shown(monkeypatch, tmp_path):
    for name in ("RUNS", "CACHE"):
        monkeypatch.setenv(f"BONELIB_{name}", str(tmp_path / name))
    kept = Recorded(monkeypatch, context, data)
    asked = context.Context()
    plan = data.plan(asked, resize="pad") | dict(radiographs=40, phantom_size=64, size=64)
    radiographs = data.decode(asked, data.read(asked, plan), plan)
    context.frozen_features(tower(), radiographs.cache, radiographs.cache.ids)
    assert list(kept.told) == ["drawing", "decoding", "features"]
    for words, counts in kept.told.items():
        done, of = zip(*counts, strict=True)
        assert set(of) == {40} and done[-1] == 40 and list(done) == sorted(set(done)), words


def test_items_are_counted_when_they_are_done_also_those_passed_over():
    told = []
    for item in progress.each("abc", lambda *count: told.append(count)):
        assert len(told) == "abc".index(item)
        if item == "b":
            continue
    assert told == [(1, 3), (2, 3), (3, 3)]
