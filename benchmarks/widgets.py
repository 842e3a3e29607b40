"""How soon each widget answers on 4,000 images, from the key that is pressed to the last change.

    python benchmarks/widgets.py [changes [widget …]]

JupyterLab in a headless Chromium, as in tests/test_lab.py; a sentence is a new one each time, and a
text tower of usual size reads it. Beside the wall time of the whole way stand wall and CPU time of
the kernel's part, and the CPU time of server, kernel and browser together, with half a second of
idling after each change: where other work runs beside, these tell more than the clock.
"""

import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from measure import not_measured, row

IMAGES, CHANGES, LIMIT = 4000, 24, 200  # LIMIT in ms
TESTS = Path(__file__).resolve().parents[1] / "tests"
FORTH, TO_AND_FRO = ("ArrowRight",), ("ArrowDown", "ArrowUp")
# Of each widget: a control, the keys that are pressed in turn, and what each changes.
ASKED = {
    "cases": {"level": FORTH, "case": FORTH, "site": ("h", "f")},
    "heat_maps": {"opacity": TO_AND_FRO, "case": FORTH, "method": TO_AND_FRO},
    "similar": {"case": FORTH},
    "prompts": {"case": FORTH, "tumor": ("Tab",), "start from": TO_AND_FRO},
    "runs": {"reference": TO_AND_FRO, "curves of": TO_AND_FRO},
}
WATCH = """(number) => {
  const panel = document.querySelectorAll(".bone-panel")[number];
  const answered = () => { window.answered = performance.now(); };
  const pressed = () => { window.pressed = performance.now(); window.answered = 0; };
  document.addEventListener("keydown", pressed, true);
  panel.addEventListener("load", answered, true);  // of its pictures
  for (const facts of panel.querySelectorAll(".bone-facts"))
    new MutationObserver(answered).observe(facts, {childList: true, subtree: true});
}"""
SETTLED = "window.answered && performance.now() - window.answered > 500"


def run(changes: int = CHANGES, names: Sequence[str] = tuple(ASKED)) -> None:
    """Add a row for each control; the median counts."""
    sys.path.append(str(TESTS))
    import browser

    if browser.chromium() is None:
        not_measured("widgets", f"none of {', '.join(browser.CHROMIUM)} is installed")
        return
    print(
        f"{'ms':<26}{'median':>8}{'worst':>8}{'kernel':>8}{'its CPU':>9}{'all CPU':>9}", flush=True
    )
    medians = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        times = place / "times"
        setup = f"import sys\nsys.path.append({str(TESTS)!r})\nimport explored\n"
        cells = [f"explored.{name}({IMAGES})" for name in names]
        keep = f"explored.keep_times({str(times)!r})"
        (place / "notebooks").mkdir()
        browser.notebook(place / "notebooks" / "widgets.ipynb", setup + keep, *cells)
        root = f"--ServerApp.root_dir={place / 'notebooks'}"
        with browser.lab(place, options=[root]) as server, browser.reader(server) as reader:
            reader.open("widgets.ipynb")
            reader.run_all()
            for number, name in enumerate(names):
                reader.look_at(number)
                reader.page.evaluate(WATCH, number)
                for label, keys in ASKED[name].items():
                    measured = list(answers(reader, label, keys, changes, times))
                    whole, *rest = (statistics.median(part) for part in zip(*measured, strict=True))
                    worst = max(measured)[0]
                    told = f"{whole:>8.0f}{worst:>8.0f}{rest[0]:>8.0f}"
                    told += "".join(f"{cpu:>9.0f}" for cpu in rest[1:])
                    print(f"{name + ', ' + label:<26}{told}", flush=True)
                    medians[f"{name}, {label}"] = whole
    print(f"load of the machine: {os.getloadavg()[0]:.1f}", flush=True)
    for name, whole in medians.items():
        row(
            f"widgets: {name} of {IMAGES:,} images",
            whole, None, unit="ms", target=f"<= {LIMIT} ms", met=whole <= LIMIT,
        )  # fmt: skip


def answers(
    reader: Any, label: str, keys: tuple[str, ...], changes: int, times: Path
) -> Iterator[tuple[float, float, float, float]]:
    """Yield the ms of each change: the whole way, the kernel's part, its CPU, everybody's CPU."""
    for turn in range(changes):
        if keys == ("Tab",):
            reader.type(label, f"a lesion of {turn} cm with a sharp border")
        elif len(keys[0]) == 1:
            reader.page.wait_for_timeout(1000)  # a list takes quick letters for one word
        times.write_text("", encoding="utf-8")
        before = everybody()
        reader.press(label, keys[turn % len(keys)])
        reader.page.wait_for_function(SETTLED, timeout=60_000)
        while not times.read_text("utf-8"):  # it has answered in part, and is still drawing
            reader.page.wait_for_timeout(700)
        reader.page.wait_for_function(SETTLED, timeout=60_000)
        spent = [map(float, line.split()) for line in times.read_text("utf-8").splitlines()]
        wall, cpu = map(sum, zip(*spent, strict=True))
        whole = reader.page.evaluate("window.answered - window.pressed")
        yield whole, wall, cpu, everybody() - before


def everybody() -> float:
    """Return the ms of CPU that all processes below this one have spent."""
    import psutil

    spent = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            spent += sum(process.cpu_times()[:2])
    return 1000 * spent


if __name__ == "__main__":
    run(int(sys.argv[1]) if sys.argv[1:] else CHANGES, sys.argv[2:] or tuple(ASKED))
