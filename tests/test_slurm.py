"""Protects `bonelib submit` on a real Slurm of one node: order, failures, scancel, requeue."""

import dataclasses
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import slurm
from test_headless import folder, place, write  # noqa: F401
from test_pretraining import context, planned  # noqa: F401

from bonelib import headless, runs
from bonelib.__main__ import main
from bonelib.experiments import pretraining
from bonelib.experiments.context import leave_plan
from bonelib.headless import submit

slow = pytest.mark.notebooks


@pytest.fixture(scope="module")
def cluster():
    try:
        with slurm.cluster() as made:
            yield made
    except slurm.Unavailable as reason:
        pytest.skip(f"no Slurm here: {reason}")


@pytest.fixture
def home(folder, cluster, monkeypatch):  # noqa: F811
    """The folder of toy notebooks, from which jobs of the little cluster run."""
    monkeypatch.setattr(runs, "ROOT", folder.parent)
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    code = Path(headless.__file__).parents[2]
    (folder.parent / "sitecustomize.py").write_text(START.format(root=folder.parent))
    monkeypatch.setenv("PYTHONPATH", f"{folder.parent}{os.pathsep}{code}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


# Jobs find the toy notebooks, as this process does; what trains for them only counts its processes.
START = """
import sys
words = [word for word in sys.orig_argv if not word.startswith("-")]
if "bonelib" in words:
    from pathlib import Path
    from bonelib import runs
    runs.ROOT = Path("{root}")
if words[-2:-1] == ["train"]:
    import os
    from bonelib.experiments import pretraining

    def train(run, setup, accelerator):
        rank, ranks = os.environ["RANK"], os.environ["WORLD_SIZE"]
        (runs.ROOT / f"rank-{{rank}}-of-{{ranks}}").touch()
        if rank == "0":
            runs.mark_trained(run)
        yield from ()

    pretraining.reopen, pretraining.train = (lambda run: None), train
"""


def sent(capsys, *arguments, code=0):
    """Submit, and return the numbers of the jobs, and what was printed."""
    capsys.readouterr()
    assert main(["submit", *arguments]) == code
    told = capsys.readouterr()
    lines = [line.split() for line in told.out.splitlines() if line.startswith("job ")]
    return [words[1] for words in lines], told


def test_a_call_becomes_jobs_for_what_does_not_stand(folder, monkeypatch):  # noqa: F811
    for number in ("01", "04", "05"):
        write(folder, number, extra='RUN_ON: str = "here"\n' if number == "04" else "")

    def prepared(stand=(), busy=(), asked=None, seeds=(0,), numbers=()):
        stands = {place(stage).absolute() for stage in stand}
        reasons = lambda step: [] if step.folder.absolute() in stands else ["new"]  # noqa: E731
        monkeypatch.setattr(submit, "reasons", reasons)
        queued = {place(stage).absolute(): "7" for stage in busy}
        calls = [(numbers, "tiny", {"SEED": seed}) for seed in seeds]
        steps = headless.plan_all(calls, folder=folder, queued=queued)
        jobs = submit.prepare(steps, asked or submit.Resources(), queued)
        after = [[one.parts[-2] for one in job.after] for job in jobs]
        return [job.task.name for job in jobs], after, jobs

    names, after, jobs = prepared()
    assert names == ["01_data", "04_pretraining", "05_finetuning"]
    assert after == [[], ["data"], ["data", "pretraining"]]
    assert not any(job.task.several for job in jobs)
    assert prepared(stand=("data",))[:2] == (names[1:], [[], ["pretraining"]])
    assert prepared(stand=("pretraining",))[0] == names, "its input is made anew"
    assert prepared(stand=("data", "pretraining", "finetuning"))[0] == []
    assert prepared(busy=("data",))[:2] == (names[1:], after[1:]), "they wait for job 7"
    found = prepared(busy=("data", "pretraining"), numbers=("05",))[:2]
    assert found == (names[2:], after[2:]), "what it needs has jobs"
    assert len(prepared(seeds=(0, 1, 1))[0]) == 6, "a shared run is one job"
    two = submit.Resources(gpus=2, nodes=3, cpus=4, memory=8, partition="gpu", time="90m")
    data, pretraining, _ = prepared(asked=two)[2]
    assert pretraining.task.several
    assert pretraining.task.command[-3:] == ["-p", "RUN_ON", "elsewhere"]
    assert not data.task.several and "RUN_ON" not in data.task.command
    wide, narrow = two.options(several=True), two.options(several=False)
    asked = ("nodes", "ntasks_per_node", "gpus_per_node", "cpus_per_task", "mem", "time")
    assert [wide[name] for name in asked] == [3, 2, 2, 4, "8GB", 90]
    assert [narrow[name] for name in asked] == [1, 1, 1, 4, "8GB", 90]


def test_jobs_keep_the_order_of_a_run_also_for_what_is_only_read(folder, monkeypatch):  # noqa: F811
    monkeypatch.setattr(runs, "READS", {"05": ("02",)})
    for number in ("01", "02", "04", "05"):
        write(folder, number, extra='FROM: str = ""\n')
    other = {"VARIANT": "a", "FROM": "default"}
    calls = [((), "tiny", {}), (("02", "05"), "tiny", other)]
    jobs = submit.prepare(headless.plan_all(calls, folder=folder), submit.Resources(), {})
    assert [job.task.name[:2] for job in jobs] == ["01", "02", "02", "04", "05", "05"]
    for job in jobs[-2:]:
        assert [one.parts[-2] for one in job.after] == ["data", "pretraining"]
        assert {one.name for one in job.behind} == {"default-s0", "a-s0"}, "02 may fail"
    monkeypatch.setattr(submit, "reasons", lambda step: ["new"] * (step.number == "02"))
    jobs = submit.prepare(headless.plan_all(calls, folder=folder), submit.Resources(), {})
    assert [job.task.name[:2] for job in jobs] == ["02", "02", "05", "05"]


def test_a_job_that_makes_a_run_anew_begins_only_once(tmp_path):
    command = ["bonelib", "run", "01", "-p", "REUSE", "False", "-p", "SEED", "1"]
    task = submit.Notebook("01_data", command, tmp_path, submit.Resources(), False)
    (tmp_path / "record.json").write_text("{}")  # it has not come to clear what was there
    assert task.checkpoint().function.command == command
    (tmp_path / "record.json").unlink()
    assert task.checkpoint().function.command == ["bonelib", "run", "01", "-p", "SEED", "1"]


def test_a_dry_run_submits_nothing_and_needs_no_slurm(folder, capsys, monkeypatch):  # noqa: F811
    write(folder, "01"), write(folder, "04")
    monkeypatch.setattr(runs, "ROOT", folder.parent)
    monkeypatch.setenv("PATH", "/nowhere")
    told = sent(capsys, "--dry-run", "--sweep", "SEED=0,1", "-p", "VARIANT", "x")[1].out
    assert told.count("04_pretraining") == 2 and told.count(" after ") == 2
    assert "-p SEED 1 -p VARIANT x" in told and not runs.folder().exists()


@slow
def test_on_this_machine_the_same_jobs_run_one_after_the_other(home, capsys):
    write(home, "01", "import os; run.note(by=os.environ['SUBMITIT_EXECUTOR'])", "run.finish()")
    write(home, "04", "1 / 0")
    write(home, "05")
    told = sent(capsys, "--local", code=1)[1].out.splitlines()
    assert "01_data          done" in told[0]
    assert "04_pretraining ended with exit code 1" in told[1]
    assert "cancelled: it needs pretraining" in told[2]
    assert runs.Record(place("data")).notes["by"] == "local"
    (log,) = (place("pretraining") / "slurm").glob("*_log.out")
    assert "ZeroDivisionError" in log.read_text()


# A training that says where its lives begin, and waits half-way until it may go on.
TRAINING = """
import time, torch
torch.manual_seed(SEED)
state = runs.checkpoint(run) or {"step": 0, "weights": torch.randn(16, 16)}
above = run.path.parents[5]
with (above / f"lives-{SEED}").open("a") as lives:
    lives.write(f"{state['step']} ")
while state["step"] < 20:
    weights = torch.tanh(state["weights"] @ state["weights"] + 0.1)
    state = {"step": state["step"] + 1, "weights": weights}
    runs.save_checkpoint(run, state)
    print("step", state["step"], flush=True)
    while state["step"] == 10 and not (above / "go").exists():
        (above / f"half-way-{SEED}").touch()
        time.sleep(0.1)
run.save_array("weights", state["weights"].numpy())
run.finish(threads=torch.get_num_threads())
"""


def until(true, seconds=400):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def weights(seed):
    """Train without a break in this process, by the code of the notebook."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = torch.randn(16, 16)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(20):
        made = torch.tanh(made @ made + 0.1)
    torch.set_num_threads(threads)
    return made.numpy()


@slow
def test_a_sweep_cut_off_and_requeued_ends_as_one_that_ran_through(home, cluster, capsys):
    write(home, "01", TRAINING)
    sweep = ("01", "--time", "30m", "--sweep", "SEED=0,1,2")
    jobs, _ = sent(capsys, *sweep)
    above = home.parent
    until(lambda: all((above / f"half-way-{seed}").exists() for seed in (0, 1)))
    cut, again, last = jobs
    cluster.ask("scancel", cut)
    assert cluster.wait(cut) == "CANCELLED"
    stopped = place("data").with_name("default-s0")
    assert "step 10" in (stopped / "notebook-failed.ipynb").read_text()
    assert not (stopped / "record.json").exists()
    cluster.ask("scontrol", "requeue", again)
    cluster.wait(again, "PENDING")
    (above / "go").touch()
    resubmitted, told = sent(capsys, *sweep)
    assert len(resubmitted) == 1, "the others have their jobs"
    assert told.out.count("it gets no second one") + (cluster.wait(last) == "COMPLETED") >= 2
    ends = [cluster.wait(number) for number in (again, last, *resubmitted)]
    assert ends == ["COMPLETED"] * 3, cluster.told()
    lives = [(above / f"lives-{seed}").read_text().split() for seed in range(3)]
    assert lives == [["0", "10"], ["0", "10"], ["0"]], "each went on where it had been"
    for seed in range(3):
        run = runs.Record(place("data").with_name(f"default-s{seed}"))
        assert (run.array("weights") == weights(seed)).all()
        assert run.metrics["threads"] == 1
    assert sent(capsys, *sweep)[1].out == "Nothing to submit.\n"


@slow
def test_a_job_whose_time_is_over_is_queued_again_and_goes_on(home, cluster, capsys):
    write(home, "01", TRAINING), write(home, "04")
    (job, waits), _ = sent(capsys, "--time", "30m", "--cpus", "2")
    until((home.parent / "half-way-0").exists)
    cluster.ask("scancel", "--batch", "--signal=USR2", job)  # as Slurm does before the end
    cluster.wait(job, "PENDING")
    assert "step 10" in (place("data") / "notebook-failed.ipynb").read_text()
    assert cluster.job(waits)["JobState"] == "PENDING", "it waits on, as nothing has failed"
    cluster.ask("scancel", waits)
    (home.parent / "go").touch()
    assert cluster.wait(job) == "COMPLETED", cluster.told()
    assert (home.parent / "lives-0").read_text().split() == ["0", "10"]
    run = runs.Record(place("data"))
    assert run.metrics["threads"] == 2, "as many as its CPUs, whatever OMP_NUM_THREADS was here"
    logs = sorted(path.name for path in (place("data") / "slurm").glob("*_log.*"))
    assert logs == [f"{job}_0_log.err", f"{job}_0_log.out"]


@slow
def test_what_needs_a_failed_job_is_cancelled_and_told(home, cluster, capsys):
    write(home, "01", "1 / 0")
    write(home, "04")
    jobs, _ = sent(capsys, "--time", "5m")
    first, second = jobs
    assert [cluster.wait(first), cluster.wait(second)] == ["FAILED", "CANCELLED"]
    told = sent(capsys, "--status")[1].out.splitlines()
    assert "FAILED" in told[0] and "01_data ended with exit code 1 on" in told[0]
    assert "CANCELLED" in told[1] and f"it needs job {first}, which did not finish" in told[1]
    assert "ZeroDivisionError" in (place("data") / "slurm" / f"{first}_0_log.out").read_text()


@slow
def test_what_is_only_read_may_fail_and_an_input_in_the_queue_is_waited_for(
    home, cluster, capsys, monkeypatch
):
    monkeypatch.setattr(runs, "READS", {"05": ("02",)})
    wait = f"import time\nwhile not __import__('os').path.exists({str(home / 'go')!r}):\n"
    write(home, "01", wait + "    time.sleep(0.1)", "run.finish()")
    write(home, "02", "1 / 0"), write(home, "04"), write(home, "05")
    first, _ = sent(capsys, "01", "02", "04", "--time", "30m")
    told = sent(capsys, "05", "--dry-run")[1].out
    assert "05_finetuning" in told and "04_pretraining" not in told
    (last,), _ = sent(capsys, "02", "05", "--time", "30m")
    asked = cluster.job(last)["Dependency"]
    assert f"afterok:{first[0]}" in asked and f"afterany:{first[1]}" in asked
    (home / "go").touch()
    ends = [cluster.wait(number) for number in (*first, last)]
    assert ends == ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"], cluster.told()


@slow
def test_what_slurm_refuses_is_a_sentence_and_nothing_is_lost(home, cluster, capsys, monkeypatch):
    write(home, "01")
    told = sent(capsys, "01", "--partition", "gpu", code=2)[1].err
    assert "Slurm refused 01_data" in told and "`sinfo` lists" in told and "Nothing was" in told
    told = sent(capsys, "01", "--partition", "closed", code=2)[1].err
    assert "account" in told and "--account" in told
    told = sent(capsys, "01", "--memory", "900", code=2)[1].err
    assert "No node has so many GPUs" in told
    told = sent(capsys, "01", "--cpus", "7", code=2)[1].err
    assert "fewer nodes or CPUs" in told
    told = sent(capsys, "01", "--time", "3d", code=2)[1].err
    assert "Ask for less with --time" in told
    told = sent(capsys, "01", "--time", "soon", "--nodes", "0", code=2)[1].err
    assert "'soon' is no time such as" in told and "--nodes must be at least 1" in told
    monkeypatch.setenv("PATH", "/nowhere")
    assert "no squeue on PATH" in sent(capsys, "01", code=2)[1].err
    assert "no squeue on PATH" in sent(capsys, "--status", code=2)[1].err
    assert not (runs.folder() / submit.FILE).exists()


@slow
def test_a_node_that_does_not_see_the_runs_folder_is_told(home, cluster, capsys):
    write(home, "01")
    node = f"NodeName={cluster.node}"
    cluster.ask("scontrol", "update", node, "State=DRAIN", "Reason=test")
    (job,), _ = sent(capsys, "01")
    assert "PENDING" in sent(capsys, "--status")[1].out
    shutil.rmtree(place("data") / "slurm")  # as it is where the file system is another one
    cluster.ask("scontrol", "update", node, "State=RESUME")
    assert cluster.wait(job) == "FAILED"
    told = sent(capsys, "--status")[1].out
    assert "could not write" in told and "put BONELIB_RUNS on a file system" in told


@slow
def test_several_processes_train_what_the_notebook_planned_inside_its_job(home, cluster, capsys):
    write(home, "01", "run.finish()")
    stop = """if RUN_ON == "elsewhere" and not run.trained:
    runs.save_plan(run)
    raise runs.Planned(runs.how_to_train(run.path))
run.finish()"""
    write(home, "04", stop, extra='RUN_ON: str = "here"\n')
    jobs, _ = sent(capsys, "--gpus", "2", "--time", "30m")
    assert [cluster.wait(number) for number in jobs] == ["COMPLETED"] * 2, cluster.told()
    ranks = sorted(path.name for path in home.parent.glob("rank-*"))
    assert ranks == ["rank-0-of-2", "rank-1-of-2"]
    asked = [cluster.job(number)["TresPerNode"] for number in jobs]
    assert asked == ["gres:gpu:1", "gres:gpu:2"], "01 needs no second one"
    assert runs.Record(place("pretraining")).finished


@slow
def test_the_sbatch_file_keeps_the_copy_and_goes_on(home, cluster, monkeypatch):
    write(home, "01", TRAINING)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    script = Path(__file__).parents[1] / "docs" / "bonelib.sbatch"
    call = [
        "sbatch",
        "--parsable",
        f"--output={home}/job.log",
        str(script),
        "01",
        "-p",
        "SEED",
        "3",
    ]
    job = cluster.ask(*call).strip()
    until((home.parent / "half-way-3").exists)
    cluster.ask("scancel", "--batch", "--signal=TERM", job)  # as Slurm does before the end
    assert cluster.wait(job) == "FAILED"
    copy = place("data").with_name("default-s3") / "notebook-failed.ipynb"
    assert "step 10" in copy.read_text() and "interrupted" in (home / "job.log").read_text()
    (home.parent / "go").touch()
    assert cluster.wait(cluster.ask(*call).strip()) == "COMPLETED", (home / "job.log").read_text()
    assert (home.parent / "lives-3").read_text().split() == ["0", "10"]
    assert runs.Record(copy.parent).metrics["threads"] == 2, "the CPUs of the job"


@slow
def test_one_process_inside_an_allocation_of_two_tasks_trains_alone(home, cluster):
    alone = "from bonelib.training import machine, take_ranks; take_ranks(); "
    alone += "print('ranks', machine.fabric('32-true', 'cpu', 1, 1).world_size)"
    script = home / "script.sh"
    script.write_text(f'#!/bin/sh\necho "$SLURM_NTASKS tasks"\n"{sys.executable}" -c "{alone}"\n')
    script.chmod(0o755)
    told = cluster.ask("salloc", "--quiet", "--ntasks=2", str(script))
    assert told.split() == ["2", "tasks", "ranks", "1"]


@slow
def test_tasks_of_srun_train_to_the_bits_of_torchrun(context, cluster, monkeypatch):  # noqa: F811
    folders = []
    for variant in ("srun", "torchrun"):
        own = dataclasses.replace(context, variant=variant, inputs="default")
        pairs, plan = planned(own, "ours")
        run = own.start("pretraining", settings=plan.as_dict(), inputs=pairs.inputs)
        with pytest.raises(runs.Planned):
            leave_plan(run, pretraining.prepare(own, pairs.table, plan))
        folders.append(str(run.path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(headless.__file__).parents[2]))
    train = ["-m", "bonelib", "train", "--accelerator", "cpu"]
    cluster.ask("srun", "--ntasks-per-node=2", sys.executable, *train, folders[0])
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    cluster.ask(sys.executable, *launch, *train, folders[1])
    bundles = [Path(one, "bundle", "weights.safetensors").read_bytes() for one in folders]
    assert bundles[0] == bundles[1]
