"""A sweep of 8 pretrainings on a real Slurm, one cancelled, one requeued, beside a serial run.

    python benchmarks/slurm_sweep.py [RUNS]

It starts a Slurm of one node on this machine (tests/slurm.py), submits notebook 04 of the tiny
profile with eight recipes, ends the first job that has a checkpoint with scancel and submits it
again, requeues the second, and compares weights, tables, predictions and metrics with those of
`bonelib run`, one after the other, at one thread each. It prints what differs: nothing, to the bit.
RUNS is a runs folder with the tiny run of notebook 01 (and BONELIB_CACHE its cache), which is made
otherwise. The serial run goes on beside the sweep.
"""

import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
TIMES = ["seconds", "cpu_seconds", "images_per_s", "waited"]
DATA = "tiny/phantom/any/data/default-s0"
RECIPES = ("ours", "published", "shuffled", "images_only", "attributes", "random_start")
RECIPES += ("no_anatomy", "no_finding")


def main():
    import slurm

    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sweep-") as name, slurm.cluster() as cluster:
        home = Path(name)
        shared = {"BONELIB_CACHE": str(home / "cache")} if len(sys.argv) == 1 else {}
        shared |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        os.environ.update(shared | cluster.environment)

        def say(text):
            print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

        def bonelib(where, *arguments):
            environment = os.environ | {"BONELIB_RUNS": str(home / where)}
            command = [sys.executable, "-m", "bonelib", *arguments]
            done = subprocess.run(
                command, capture_output=True, text=True, cwd=ROOT, env=environment
            )
            if done.returncode:
                raise SystemExit(f"{command} ended with {done.returncode}: {done.stderr}")
            return done.stdout

        load = os.getloadavg()[0]
        say(f"{os.cpu_count()} CPUs, load {load:.1f}, {cluster.ask('sinfo', '--version').strip()}")
        data = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else home / "data"
        bonelib(data, "run", "01")
        for where in ("sweep", "serial"):
            shutil.copytree(data / DATA, home / where / DATA)
        say("data are there")

        def serial():
            for recipe in RECIPES:
                values = ["-p", "RECIPE", recipe, "-p", "VARIANT", recipe, "-p", "FROM", "default"]
                bonelib("serial", "run", "04", *values)
                say(f"serial {recipe}")

        beside = concurrent.futures.ThreadPoolExecutor().submit(serial)
        sweep = ["submit", "04", "-p", "FROM", "default", "--time", "30m", "--sweep"]
        sweep += ["RECIPE=" + ",".join(RECIPES), "VARIANT={RECIPE}"]
        jobs = submitted(bonelib("sweep", *sweep))
        say(f"submitted: {jobs}")
        cut = begun(home / "sweep", jobs)
        cluster.ask("scancel", jobs[cut])
        say(f"scancel {jobs[cut]} ({cut}): {cluster.wait(jobs[cut], seconds=600)}")
        again = begun(home / "sweep", {k: v for k, v in jobs.items() if k != cut})
        cluster.ask("scontrol", "requeue", jobs[again])
        say(f"requeue {jobs[again]} ({again}): {cluster.wait(jobs[again], 'PENDING')}")
        jobs |= submitted(bonelib("sweep", *sweep))
        say(f"submitted again: {cut} is job {jobs[cut]}")
        for recipe, number in jobs.items():
            say(f"job {number} {recipe}: {cluster.wait(number, seconds=3600)}")
        print(bonelib("sweep", "submit", "--status"))
        beside.result()
        compare(home, {cut: "cancelled, submitted again", again: "requeued"})


def submitted(printed):
    """Return the numbers of jobs by recipe."""
    lines = [line.split() for line in printed.splitlines() if line.startswith("job ")]
    return {Path(words[3]).name.removesuffix("-s0"): words[1] for words in lines}


def begun(runs_folder, jobs):
    """Wait until one of the jobs has a checkpoint, and return its recipe."""
    end = time.monotonic() + 1200
    while time.monotonic() < end:
        for path in runs_folder.glob("tiny/phantom/any/pretraining/*/checkpoint.pt"):
            if (recipe := path.parent.name.removesuffix("-s0")) in jobs:
                return recipe
        time.sleep(0.02)
    raise SystemExit("no job has begun to train")


def compare(home, what):
    """Print the files of each run and how many of them differ."""
    from bonelib import runs

    different = 0
    for recipe in RECIPES:
        place = f"tiny/phantom/any/pretraining/{recipe}-s0"
        here, there = (runs.Record(home / where / place) for where in ("sweep", "serial"))
        ours, theirs = runs.record.digests(here.path), runs.record.digests(there.path)
        unequal = sorted(
            name for name in ours.keys() | theirs if ours.get(name) != theirs.get(name)
        )
        curves = [run.table("history").drop(columns=TIMES) for run in (here, there)]
        if "history.parquet" in unequal and curves[0].equals(curves[1]):
            unequal.remove("history.parquet")  # only the clock differs
        unequal += ["metrics"] if here.metrics != there.metrics else []
        different += len(unequal)
        threads = {here.head["threads"], there.head["threads"]}
        told = f"{len(ours)} files, {', '.join(unequal) or 'none'} unequal, threads {threads}"
        print(f"{recipe:<14} {told}  {what.get(recipe, '')}")
    raise SystemExit(1 if different else 0)


if __name__ == "__main__":
    main()
