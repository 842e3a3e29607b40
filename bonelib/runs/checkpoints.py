"""A training that outlives its process: its plan, its state, and the word that it is done.

All lie in the run folder, so that a training planned by a notebook can be carried out elsewhere
(``bonelib train``), killed, and continued.
"""

import os
import pickle
import shlex
from pathlib import Path
from typing import Any

from bonelib.runs import code, freshness
from bonelib.runs.files import replacing
from bonelib.runs.record import Run, as_json, digests, hold, release

FILE = "checkpoint.pt"
PLAN = "plan.json"


class Planned(Exception):  # noqa: N818  it is no error: the run goes on elsewhere
    """A notebook stops here, for its training is left to another machine; the message says how."""


def how_to_train(path: Path) -> str:
    """Say how a planned training is carried out."""
    return (
        f"Train it with: torchrun --nproc-per-node 1 -m bonelib train {shlex.quote(str(path))}\n"
        "Then run this notebook again, without REUSE=False: it finds the trained bundle."
    )


def save_checkpoint(run: Run, state: dict[str, Any]) -> None:
    """Write what a training needs to go on, by rename: a kill leaves the one before.

    Raises:
        OSError: It can't be written (a full disk, say); the last good one stays.
    """
    import torch

    path = run.path / FILE
    try:
        with replacing(path) as temporary:
            torch.save({"head": run.head, "state": state}, temporary)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as the latter
        kept = "The last good one is kept" if path.exists() else "There is none before it"
        raise OSError(
            f"The checkpoint of {run.name} could not be written to {path.parent} ({error}). "
            f"{kept}; make room and run again."
        ) from error


def checkpoint(run: Run) -> dict[str, Any] | None:
    """Return the state of an unfinished training with these settings, inputs and code, or None.

    Raises:
        ValueError: The file can't be read, or is of other settings or other code: what was spent on
            it is not thrown away without being asked. If an input was remade, it is of no use any
            more.
    """
    import torch

    path = run.path / FILE
    if not path.exists():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} can't be read ({type(error).__name__}). Delete it to train from the start."
        ) from error
    there, here = saved["head"], run.head
    if changed := freshness.setting_changes(there, here):
        raise ValueError(
            f"{run.name} holds an unfinished training with other settings:\n{changed}\n"
            f"Ask for those again to go on, choose another VARIANT, or delete {path}."
        )
    if there.get("format") != freshness.FORMAT or freshness.differs(there, here):
        return None
    if rooms := freshness.training_changes(there, here):
        raise ValueError(
            f"{run.name} holds an unfinished training by other code: {', '.join(rooms)}. Go on "
            f"with --keep-other-code ({code.KEEP}=keep), or train from the start with REUSE=False."
        )
    return saved["state"]


def save_plan(run: Run) -> None:
    """Write what was decided about a run, so that ``reopen`` can carry it out in any process."""
    with replacing(run.path / PLAN) as temporary:
        temporary.write_text(as_json(run.head), encoding="utf-8")
    release(run.path)


def planned(path: Path) -> bool:
    """Tell whether a training is planned in a folder and not carried out yet."""
    done = any((path / name).exists() for name in ("record.json", "trained.json"))
    return (path / PLAN).exists() and not done


def reopen(path: Path) -> Run:
    """Return the run that was planned in a folder, to be trained.

    Under ``torchrun`` every process calls this; the one of RANK 0 writes.

    Raises:
        FileNotFoundError: There is no plan; the message says what makes one.
        ValueError: It is trained or finished already, was planned by other code, or another process
            trains it.
    """
    path = path.absolute()
    head = freshness.read(path, PLAN)
    if not head and (path / "record.json").exists():
        raise ValueError(f"{path} holds a finished run: nothing is left to train.")
    if not head:
        raise FileNotFoundError(
            f"{path} holds no {PLAN}. Run notebook 04 or 05 with RUN_ON='elsewhere' first; it "
            "prints the folder."
        )
    run = Run(path, head)
    again = "Run the notebook with RUN_ON='elsewhere' again to plan it anew"
    if head.get("format") != freshness.FORMAT:
        raise ValueError(f"{run.name} was planned by an older version. {again}.")
    if os.environ.get("RANK", "0") == "0":
        hold(path)  # before the look, so that nobody finishes the training in between
    if not planned(path):
        raise ValueError(f"{run.name} is trained already. Run the notebook again to evaluate it.")
    now = {**head, "code": code.code_closure(head["module"])}
    if rooms := freshness.training_changes(head, now):
        raise ValueError(
            f"{run.name} was planned by other code: {', '.join(rooms)}. {again}, or set "
            f"{code.KEEP}=keep to train it as it is."
        )
    return run


def mark_trained(run: Run) -> None:
    """Say that bundle and history are complete, last of all; the checkpoint is needed no longer."""
    made = [name for name in digests(run.path) if not name.startswith("bundle/")]
    with replacing(run.path / "trained.json") as temporary:
        temporary.write_text(as_json(run.head | {"outputs": made}), encoding="utf-8")
    (run.path / FILE).unlink(missing_ok=True)
