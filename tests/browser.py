"""JupyterLab with a headless Chromium in front of it: what a reader does by keyboard, in words.

The browser is the system's: Playwright brings only the driver. Server, kernels and browser end with
the ``with`` block, also when the test failed.
"""

import base64
import contextlib
import ctypes
import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import psutil
import pytest
import requests
import websocket
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SECONDS = 300  # for a server, a kernel or a cell on a machine where much else runs
# JupyterLab asks at its first start whether it may fetch news, above the page.
QUIET = "@jupyterlab/apputils-extension/notification.jupyterlab-settings"


class Server:
    """A JupyterLab of its own: a free port, a token, and no settings but those of the package."""

    def __init__(self, process: psutil.Popen, log: Path, port: int, token: str):
        self.process, self.log, self.port, self.token = process, log, port, token

    def get(self, path: str) -> requests.Response:
        """Ask the REST API."""
        return self.ask("get", path)

    def ask(self, method: str, path: str, **given: object) -> requests.Response:
        return requests.request(
            method,
            f"http://127.0.0.1:{self.port}/{path}",
            headers={"Authorization": f"token {self.token}"},
            timeout=SECONDS,
            **given,
        )

    def sessions(self) -> list[dict[str, Any]]:
        """List the notebooks that have a kernel, with its state."""
        return self.get("api/sessions").json()

    def execute(self, code: str) -> str:
        """Start a kernel, let it execute code, and return what it prints, or its error."""
        kernel = self.ask("post", "api/kernels", json={"name": "python3"}).json()["id"]
        address = f"ws://127.0.0.1:{self.port}/api/kernels/{kernel}/channels?token={self.token}"
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
        header = {"msg_id": "1", "msg_type": "execute_request", "version": "5.3"}
        header |= {"username": "", "session": kernel, "date": ""}
        request = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        channels, printed = websocket.create_connection(address, timeout=SECONDS), ""
        with contextlib.closing(channels):
            channels.send(json.dumps(request | {"channel": "shell"}))
            while True:
                message = json.loads(channels.recv())
                kind, content = message["msg_type"], message["content"]
                if message["parent_header"].get("msg_id") != "1":
                    continue
                printed += content["text"] if kind == "stream" else ""
                printed += "\n".join(content["traceback"]) if kind == "error" else ""
                if kind == "status" and content["execution_state"] == "idle":
                    return printed

    def kill_kernel(self, notebook: str) -> None:
        """Kill the kernel of a notebook, as the system does for want of memory."""
        kernel = next(s["kernel"]["id"] for s in self.sessions() if s["path"] == notebook)
        children = self.process.children(recursive=True)
        next(p for p in children if kernel in " ".join(p.cmdline())).kill()


def free_port() -> int:
    """Find a port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def lab(
    place: Path,
    *,
    command: Sequence[str] = (sys.executable, "-m", "jupyterlab"),
    options: Sequence[str] = (),
    port: int = 0,
    environment: dict[str, str] | None = None,
) -> Iterator[Server]:
    """Start JupyterLab, with its own settings in a folder, and stop it with all its kernels.

    Args:
        place: Keeps settings, runtime files and the log.
        command: Starts it; options follow.
        port: The first port to try; 0 finds a free one.
    """
    token, log = secrets.token_hex(16), place / "lab.log"
    own = {f"JUPYTER_{n}_DIR": str(place / n.lower()) for n in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{n}_DIR": str(place / n.lower()) for n in ("SETTINGS", "WORKSPACES")}
    own |= {"IPYTHONDIR": str(place / "ipython"), "PYTHONPATH": str(ROOT)}
    flags = ["--no-browser", f"--port={port or free_port()}", f"--IdentityProvider.token={token}"]
    flags += ["--allow-root"] if os.geteuid() == 0 else []
    (place / "settings" / QUIET).parent.mkdir(parents=True, exist_ok=True)
    (place / "settings" / QUIET).write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with log.open("wb") as out:
        process = psutil.Popen(
            [*command, *flags, *options],
            env=os.environ | own | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    try:
        yield Server(process, log, _listening(process, place / "runtime", log), token)
    finally:
        everything = [*process.children(recursive=True), process] if process.is_running() else []
        process.terminate()  # the server then ends its kernels
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(30)
        for left in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        psutil.wait_procs(everything, timeout=10)


def _end_with_parent() -> None:
    """Ask Linux to end this process when its parent ends, also by a kill."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _listening(process: psutil.Popen, runtime: Path, log: Path) -> int:
    """Wait until the server answers; return its port, which may be another than was asked for."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            with contextlib.suppress(ValueError, requests.ConnectionError):
                port = json.loads(file.read_text())["port"]
                requests.get(f"http://127.0.0.1:{port}/api", timeout=SECONDS)
                return port
        time.sleep(0.1)
    raise AssertionError(
        f"JupyterLab does not answer:\n{log.read_text('utf-8', 'replace')[-3000:]}"
    )


def chromium() -> str | None:
    """Find the system's browser."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


@contextlib.contextmanager
def reader(server: Server) -> Iterator["Reader"]:
    """Start the system's Chromium without a window in front of a server, or skip the test."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: .[dev]")
    if (path := chromium()) is None:
        pytest.skip(f"needs a Chromium; none of {', '.join(CHROMIUM)} is installed")
    with playwright.sync_playwright() as driver:
        # A browser of root has no sandbox.
        started = driver.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0)
        try:
            yield Reader(started, server)
        finally:
            started.close()


class Reader:
    """Who sits at the keyboard. Controls are found by their label, results by their class."""

    def __init__(self, browser: Any, server: Server):
        self.browser, self.server = browser, server
        self.page = browser.new_page(viewport={"width": 1280, "height": 1600})
        self.page.set_default_timeout(SECONDS * 1000)
        self.look_at(0)

    def look_at(self, number: int) -> None:
        """Turn to one of the notebook's panels, the first unless told."""
        self.panel = self.page.locator(".bone-panel").nth(number)

    def open(self, name: str) -> None:
        """Open a notebook and wait for its kernel."""
        # In a workspace of its own: another one's tabs would come back.
        place = f"workspaces/{Path(name).stem}/tree/{name}"
        address = f"http://127.0.0.1:{self.server.port}/lab/{place}"
        self.page.goto(f"{address}?token={self.server.token}")
        self.idle()

    def idle(self) -> None:
        """Wait for a kernel that is there and has nothing to do."""
        # Before there is one, its sign beside the name says "idle" as well.
        self.page.wait_for_function(_CONNECTED)
        end = time.monotonic() + SECONDS
        while not any(s["kernel"]["connections"] for s in self.server.sessions()):
            assert time.monotonic() < end, "the page has no kernel"
            time.sleep(0.1)

    def run_all(self) -> None:
        """Run all cells and wait for the last of them.

        Raises:
            AssertionError: A cell failed.
        """
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self.page.wait_for_function(_ALL_RAN)
        failed = self.page.locator(f"[data-mime-type='{_ERROR}']").all_inner_texts()
        assert not failed, failed[0][-3000:]

    def control(self, label: str) -> Any:
        """Find what takes the focus in the control with this label."""
        exact = f"text-is('{label}')"
        box = f":is(.jupyter-widgets, .widget-toggle-buttons):has(> label:{exact})"
        focused = "[role=slider], select, input, textarea, .mod-active"
        ticked = f"label:has(> span:{exact}) > input"
        return self.panel.locator(f"{box} :is({focused}), {ticked}, button:{exact}").first

    def press(self, label: str, *keys: str) -> None:
        """Focus a control and press keys."""
        control = self.control(label)
        control.scroll_into_view_if_needed()
        control.focus()
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, label: str, text: str, *keys: str) -> None:
        """Replace the text of a field, then press keys."""
        self.press(label, "Control+a")
        self.control(label).press_sequentially(text)
        self.press(label, *keys)

    def picture(self, number: int = 0) -> np.ndarray:
        """Read a picture as the page shows it, grey or in colours."""
        image = self.panel.locator("img.bone-picture").nth(number)
        image.wait_for()
        data = base64.b64decode(image.evaluate(_BYTES))
        return np.asarray(Image.open(io.BytesIO(data)))

    def facts(self, kind: str = "facts") -> str:
        """Read what the panel says: its facts, or another kind of text."""
        told = self.panel.locator(f".bone-{kind}").all_inner_texts()
        return "\n".join(filter(None, map(str.strip, told)))

    def until(self, look: Callable[[], Any], fits: Callable[[Any], Any]) -> Any:
        """Look again and again until what is seen fits; return it."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(ValueError):  # the address of the picture changed meanwhile
                seen = look()
                if fits(seen):
                    return seen
            time.sleep(0.05)
        raise AssertionError(f"not seen within {SECONDS} s; last: {seen}")

    def changes(self, look: Callable[[], Any], before: Any) -> Any:
        """Look until it differs from what was seen before; return it."""
        return self.until(look, lambda seen: not np.array_equal(seen, before))

    def screenshot(self, name: str) -> None:
        """Keep what the page and the panel show in $BONELIB_SCREENSHOTS, if that is set."""
        if folder := os.environ.get("BONELIB_SCREENSHOTS"):
            self.page.screenshot(path=Path(folder) / f"{name}-page.png")
            if self.panel.is_visible():
                self.panel.screenshot(path=Path(folder) / f"{name}.png")


_ERROR = "application/vnd.jupyter.error"
_CONNECTED = """() => [...document.querySelectorAll(".jp-StatusBar-TextItem")].some(
  (item) => /Python 3.*\\| Idle/.test(item.textContent))"""
# Every cell with code has its number, or one has failed.
_ALL_RAN = f"""() => {{
  const cells = [...document.querySelectorAll(".jp-CodeCell")];
  const prompts = cells.map((cell) => cell.querySelector(".jp-InputPrompt").textContent);
  return document.querySelector("[data-mime-type='{_ERROR}']")
    || (prompts.length && prompts.every((text) => /\\d/.test(text)));
}}"""
_BYTES = """async (image) => {
  const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}"""


def notebook(path: Path, *cells: str) -> None:
    """Write a notebook of code cells."""
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(made, path)
