"""Time this checkout beside another one, in turn: the first pass over pictures and DICOM, reports.

    python benchmarks/beside.py /path/to/another/checkout [--turns 5]

Each turn is a process of its own for each checkout, one thread. Printed are the medians and the
median of the paired ratios: above 1 this checkout is slower. ``BONELIB_DATA`` holds the pictures;
the reports are drawn by the other checkout, so that both read the same.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
TASKS = {
    "pictures": """
import pandas as pd
from bonelib import images
files = sorted(map(str, (data / "fracatlas").rglob("*.jpg")))
table = pd.DataFrame({"image_id": list(map(str, range(len(files)))), "path": files})
images.cache(table[:20], size=224, folder=folder / "first")
start, count = clock(), len(files)
images.cache(table, size=224, folder=folder / "all")
""",
    "DICOM files": """
import contextlib
from bonelib import dicom
files = sorted(path for path in (data / "dicom-radiographs").rglob("*") if path.is_file())
clock = time.perf_counter  # of the wall: the decoder is a process of its own
start, count = clock(), len(files)
for path in files:
    with contextlib.suppress(ValueError):
        dicom.read(path, bits=8)
""",
    "reports": """
from bonelib import deidentify, reports
known = {name: reports.language(name) for name in ("fr", "en")}
texts = [path.read_text(encoding="utf-8") for path in sorted(drawn.rglob("reports/*.txt"))[:240]]
texts = [(known["fr" if " du " in text or " les " in text else "en"], text) for text in texts]
deidentify.report(texts[0][1], texts[0][0])
start, count = clock(), len(texts)
for language, text in texts:
    safe = deidentify.report(text, language)
    reports.facts(safe.text or text, language)
""",
}


def timed(root: Path, task: str, drawn: Path) -> float:
    """Return the seconds, of CPU or for DICOM of the wall, that one of them takes in a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        code = "import os, time\nfrom pathlib import Path\nclock = time.process_time\n"
        code += f"drawn, folder = Path({str(drawn)!r}), Path({folder!r})\n"
        code += f"data = Path(os.environ['BONELIB_DATA'])\n{TASKS[task]}\n"
        code += "print((clock() - start) / count)"
        own = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, env=os.environ | own, cwd=folder, capture_output=True, text=True, check=True
        )
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print a line for each task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    other = arguments.other.resolve()
    with tempfile.TemporaryDirectory() as drawn:
        code = f"from bonelib import phantom; phantom.write({drawn!r} + '/x', images=240, size=64)"
        environment = os.environ | {"PYTHONPATH": str(other)}
        subprocess.run([sys.executable, "-c", code], env=environment, cwd=drawn, check=True)
        for task in TASKS:
            pairs = []
            for turn in range(arguments.turns):
                order = (other, HERE) if turn % 2 else (HERE, other)
                one = {root: timed(root, task, Path(drawn)) for root in order}
                pairs.append((one[other], one[HERE]))
            before, now = (statistics.median(times) * 1000 for times in zip(*pairs, strict=True))
            ratio = statistics.median(now / before for before, now in pairs)
            told = f"{before:8.2f} ms there {now:8.2f} ms here, ratio {ratio:.3f}"
            print(f"{task:<12} {told}", flush=True)


if __name__ == "__main__":
    main()
