"""What bonelib does on a GPU: parts in turn, each in a process and a time of its own, one JSON.

    bash benchmarks/gpu.sh [--tiny] [--device cpu] [--out FILE] [--only PART,PART]

A part that fails or runs out of time is recorded with its reason, and the rest goes on. Only the
standard library is imported here, so that a machine that lacks a package still gets its JSON; what
the parts do stands in ``gpu_parts.py``.
"""

import argparse
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TOTAL = 470  # seconds of all parts, so that the whole stays below eight minutes
PATIENCE = 20  # times as long for tiny parts: a test may run on a machine that others use
# Part -> seconds it may take, the part without which it can't start, and its row in the table.
PARTS = {
    "tests": (120, "", "unit tests that take a device"),
    "step": (80, "", "a step in bf16, beside the bare step and open_clip's own loop"),
    "cohort": (80, "", "drawing, decoding and grouping the synthetic cohort"),
    "features": (40, "cohort", "features of 10,000 drawn images"),
    "pretraining": (70, "cohort", "notebook 04, two epochs, and once more"),
    "resume": (60, "pretraining", "the same killed in its last epoch and taken up"),
    "torchrun": (50, "pretraining", "the same by one process of `torchrun`"),
    "finetuning": (80, "pretraining", "notebook 05, two epochs of each training"),
}


def machine() -> dict:
    """Describe the machine and the versions on it; what is missing is named."""
    versions, missing = {"python": platform.python_version()}, []
    for name in os.environ.get("BONELIB_EXPECTED", "torch").split():
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    return {"cores": os.cpu_count(), "versions": versions, "missing": missing}


def code() -> str:
    """Hash the sources that ran: where the checkout has no git, this says which they were."""
    files = sorted([*(ROOT / "bonelib").rglob("*.py"), *HERE.glob("gpu*")])
    files = [path for path in files if path.suffix != ".json"]
    content = b"".join(path.read_bytes() for path in files)
    return hashlib.sha256(content).hexdigest()[:12]


def commit() -> str | None:
    """Name the commit, with a plus where tracked files differ from it; None without git."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = [*git, "rev-parse", "--short", "HEAD"]
        told = subprocess.run(head, capture_output=True, text=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True)
    except FileNotFoundError:
        return None
    return told.stdout.strip() + "+" * bool(changed.returncode) if not told.returncode else None


def run_part(name: str, seconds: float, options: list[str], log: Path) -> dict:
    """Run one part and return what it found, or why it found nothing."""
    command = [sys.executable, str(HERE / "gpu_parts.py"), name, *options]
    started = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stream, start_new_session=True, cwd=ROOT
        )
        try:
            out, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
            process.communicate()
            out = None
    part = {"seconds": round(time.monotonic() - started, 1), "limit": round(seconds, 1)}
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if out is None:
        last = f" Its last line: {lines[-1][:300]}" if lines else ""
        return {"status": "out of time", **part, "reason": f"stopped after its limit.{last}"}
    told = out.decode(errors="replace").strip().splitlines()
    if process.returncode == 0 and told:
        return {"status": "ok", **part, "figures": json.loads(told[-1])}
    why = " | ".join(line.strip() for line in lines[-3:])[-600:]
    return {"status": "failed", **part, "reason": why or f"exit status {process.returncode}"}


def said(figures: dict) -> str:
    """Put figures on one line, those that belong together in brackets."""
    told = {name: f"({said(v)})" if isinstance(v, dict) else v for name, v in figures.items()}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items())


def table(found: dict) -> str:
    """Return the results in Markdown, for ``bonelib results``; what did not run says so."""
    rows, machine = ["| on a GPU | found |", "| :-- | :-- |"], found["machine"]
    for name, (_, _, words) in PARTS.items():
        part = found["parts"].get(name, {"status": "not run here"})
        told = said(part["figures"]) if "figures" in part else part.get("reason", "")
        cell = told if part["status"] == "ok" else ": ".join(filter(None, (part["status"], told)))
        rows.append(f"| {words} | {cell.replace('|', '/')} |")
    versions = ", ".join(f"{name} {machine['versions'].get(name)}" for name in ("python", "torch"))
    about = f"{machine.get('device', 'no GPU')}, {machine['cores']} cores, {versions}"
    code = found["commit"] or f"code {found['code']}"
    rows += ["", f"{about}; {code}, {found['date']}, {found['seconds']:.0f} s in all."]
    return "\n".join(rows)


def write(path: Path, found: dict) -> None:
    """Write the JSON by rename, after each part: a stop in the middle loses nothing."""
    if (found["sizes"], found["device"]) == ("full", "cuda"):  # a test is no result
        found["table"] = table(found)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def main() -> int:
    """Run the parts, print a line for each, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="a folder for runs and caches")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, for tests")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    default = Path(os.environ.get("OUT") or HERE) / "gpu.json"
    parser.add_argument("--out", type=Path, default=default)
    parser.add_argument("--only", default=",".join(PARTS), help="parts by commas")
    parser.add_argument("--seconds", type=float, help=f"of all parts: {TOTAL}, tiny ones more")
    given = parser.parse_args()
    asked, slack = given.only.split(","), PATIENCE if given.tiny else 1
    total = given.seconds or TOTAL * slack
    if unknown := set(asked) - set(PARTS):
        parser.error(f"unknown parts {', '.join(unknown)}; there are {', '.join(PARTS)}")
    options = ["--device", given.device, "--work", str(given.work)] + ["--tiny"] * given.tiny
    found = {"sizes": "tiny" if given.tiny else "full", "device": given.device}
    found |= {"date": time.strftime("%Y-%m-%d"), "commit": commit(), "code": code()}
    found |= {"machine": machine(), "parts": {}}
    started = time.monotonic()
    for name in ("machine", *(name for name in PARTS if name in asked)):
        limit, needs, _ = PARTS.get(name, (60, "", ""))
        left = total - (time.monotonic() - started)
        before = found["parts"].get(needs, {"status": "ok"})
        if "fault" in found["machine"]:
            part = {"status": "left out", "reason": found["machine"]["fault"]}
        elif before["status"] != "ok":
            part = {"status": "left out", "reason": f"it needs {needs}: {before['status']}"}
        elif left < 5:
            part = {"status": "left out", "reason": f"{total:g} s were used up"}
        else:
            part = run_part(name, min(limit * slack, left), options, given.work / f"{name}.log")
        print(
            f"{name:<12} {part['status']:<12} {part.get('reason') or part['figures']}", flush=True
        )
        if name == "machine":
            found["machine"] |= part.get("figures", {"fault": part.get("reason")})
        else:
            found["parts"][name] = part
        found["seconds"] = round(time.monotonic() - started, 1)
        write(given.out, found)
    print(f"{found['seconds']} s; written to {given.out}")
    return 0 if all(part["status"] == "ok" for part in found["parts"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
