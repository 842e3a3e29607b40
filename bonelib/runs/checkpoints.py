"""A training that outlives its process: its plan, its state, and the word that it is done.

All lie in the run folder, so that a training planned by a notebook can be carried out elsewhere
(``bonelib train``), killed, and continued.
"""

import json
import pickle
from pathlib import Path
from typing import Any

from bonelib.runs.places import replacing
from bonelib.runs.record import Run, changes

FILE = "checkpoint.pt"


class Planned(Exception):  # noqa: N818  it is no error: the run goes on elsewhere
    """A notebook stops here, for its training is left to another machine; the message says how."""


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
    """Return the state of an unfinished training with these very settings and inputs, or None.

    Raises:
        ValueError: The file can't be read, or is of other settings: what was spent on it is not
            thrown away without being asked. If an input was remade, it is of no use any more.
    """
    import torch

    path = run.path / FILE
    if run.finished or not path.exists():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} can't be read ({type(error).__name__}). Delete it to train from the start."
        ) from error
    there, here = saved["head"], run.head
    if changed := changes(there, here):
        raise ValueError(
            f"{run.name} holds an unfinished training with other settings:\n{changed}\n"
            f"Ask for those again to go on, choose another VARIANT, or delete {path}."
        )
    same = all(there[k] == here[k] for k in ("inputs", "content"))
    return saved["state"] if same else None


def save_plan(run: Run) -> None:
    """Write what was decided about a run, so that ``reopen`` can carry it out in any process."""
    with replacing(run.path / "plan.json") as temporary:
        temporary.write_text(json.dumps(run.head, indent=1, sort_keys=True) + "\n")


def reopen(path: Path) -> Run:
    """Return the open run that was planned in a folder.

    Raises:
        FileNotFoundError: There is no plan; the message says what makes one.
        ValueError: The run is finished.
    """
    file = path / "plan.json"
    if not file.exists():
        raise FileNotFoundError(
            f"{path} holds no plan.json. Run notebook 04 with WHERE='elsewhere' first; it prints "
            "the folder."
        )
    run = Run(path.absolute(), json.loads(file.read_text()))
    if run.trained or (path / "record.json").exists():
        raise ValueError(f"{run.name} is trained already. Run notebook 04 to evaluate it.")
    return run


def mark_trained(run: Run) -> None:
    """Say that bundle and history are complete, last of all; the checkpoint is needed no longer."""
    with replacing(run.path / "trained.json") as temporary:
        temporary.write_text(json.dumps(run.head, indent=1, sort_keys=True) + "\n")
    (run.path / FILE).unlink(missing_ok=True)
