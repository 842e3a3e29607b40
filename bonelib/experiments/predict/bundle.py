"""A bundle becomes a model that can be applied: its task, its images, its threshold, its head.

A folder comes in; a ``Predictor`` goes out. What the bundle does not say (an earlier version made
it, or it serves any task) is asked for, all of it at once.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bonelib import captions, cohort, images, models, zero_shot
from bonelib.experiments.predict.model import Predictor

MADE = "bonelib run 05 -p TASK {task}"


class Prompted(nn.Module):
    """A dual encoder asked by the prompts of classes: pixels to scaled cosines ``(B, C)``."""

    def __init__(self, model: models.DualEncoder, classes: Any):
        super().__init__()
        self.model, self.image = model, model.image
        self.scale = model.logit_scale.exp().item()
        self.register_buffer("classes", torch.from_numpy(classes))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, a column a class."""
        return self.scale * self.model.encode_image(image) @ self.classes.T


class OneHead(nn.Module):
    """One head of several, its columns in the order of a task's classes.

    Args:
        heads: The values of each attribute, in the order of the heads.
    """

    def __init__(self, model: models.MultiHead, heads: dict[str, list[str]], task: cohort.Task):
        super().__init__()
        self.image, self.head = model.image, model.heads[list(heads).index(task.column)]
        self.columns = [heads[task.column].index(name) for name in task.classes]

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, a column a class."""
        return self.head(self.image(image))[:, self.columns]


class _Asked:
    """What a user adds to a bundle, and what is still missing or contradicts it."""

    def __init__(self, folder: Path):
        record = models.read_bundle(folder)
        self.folder, self.faults = folder, list[str]()
        self.shape, self.facts = record["architecture"], record["facts"]
        self.kind: str = self.shape["kind"]
        self.heads: dict[str, list[str]] = dict(self.facts.get("attributes", []))

    def choose(self, name: str, given: str, allowed: tuple[str, ...]) -> str:
        """Return a setting that the bundle records or the user gives; only one may speak."""
        known = self.facts.get(name, "")
        if given and known and given != known:
            self.faults.append(
                f"{name} is {known!r} in the bundle, you gave {given!r}. Leave --{name} out."
            )
        elif (known or given) not in allowed:
            found = f"{name} {known or given!r} is unknown"
            found = found if known or given else f"the bundle does not say its {name}"
            self.faults.append(f"{found}: give --{name} {' or '.join(allowed)}.")
        return known or given


def find(folder: str | Path, *, start: str = "") -> Path:
    """Return the folder of a bundle: it was given, or lies in the run folder that was given.

    Raises:
        FileNotFoundError: There is none.
        ValueError: There are several and ``start`` names none of them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. Give a bundle or a run folder.")
    places = ("bundle.json", "*/bundle.json", "bundle/*/bundle.json")
    files = [file for place in places for file in sorted(folder.glob(place))]
    found = {file.parent.name: file.parent for file in files}
    wanted = [start] if start else [*found]
    if len(wanted) == 1 and wanted[0] in found:
        return found[wanted[0]]
    if found:
        wrong = f"none called {start!r}" if start else "several bundles"
        raise ValueError(
            f"{folder} holds {wrong}; there are {', '.join(found)}. Choose one: --start "
            f"{next(iter(found))}"
        )
    raise FileNotFoundError(
        f"{folder} is no bundle and no run with one: bundle.json is missing. Bundles lie in the "
        "runs of notebooks 04 and 05, e.g. runs/demo/phantom/tumor/finetuning/default-s0"
    )


def load(
    bundle: str | Path,
    *,
    start: str = "",
    task: str = "",
    resize: str = "",
    language: str = "",
    prompts: str = "",
    threshold: float | None = None,
) -> Predictor:
    """Load a trained model to apply it to radiographs: ``bonelib.load``.

    Args:
        bundle: Folder of a bundle, or of a run that holds one or several.
        start: Which one of several, ``captions`` or ``captions-probe``.
        task: What is asked. A bundle with a head knows; one that reads words is asked by prompts.
        resize: ``pad`` or ``squash``, where the bundle does not say how images became squares.
        language: Of the prompts, where the bundle does not say.
        prompts: Their style, ``label`` (default) or ``signs``.
        threshold: Probability of the positive class from which it is called, in the place of the
            one that was frozen on validation patients.

    Raises:
        FileNotFoundError: There is no bundle.
        ValueError: The bundle can't answer the task, or does not say what is needed; all is listed.
    """
    asked = _Asked(find(bundle, start=start))
    fit = asked.choose("resize", resize, images.FITS)
    words = _words(asked, language, prompts)
    question = _task(asked, task)
    if question:
        _check(asked, question, words, threshold)
    if asked.faults or question is None:
        lines = "\n".join(f"  - {line}" for line in asked.faults)
        raise ValueError(f"{asked.folder} can't be applied yet:\n{lines}")
    module, values = _module(asked, question, words)
    cut = asked.facts.get("threshold") if threshold is None else threshold
    notes = _notes(asked, question, cut, frozen=threshold is None)
    return Predictor(asked.folder, module.eval(), question, fit, cut, tuple(notes), values)


def _words(asked: _Asked, language: str, prompts: str) -> dict[str, str]:
    """Return language and style of the prompts, for a model that reads words."""
    if asked.kind == "DualEncoder":
        language = asked.choose("language", language, captions.languages())
        return {"language": language, "style": prompts or "label"}
    if language or prompts:
        asked.faults.append(f"a {asked.kind} reads no words: leave --language and --prompts out.")
    return {}


def _module(
    asked: _Asked, task: cohort.Task, words: dict[str, str]
) -> tuple[nn.Module, tuple[float, ...]]:
    """Return what maps pixels to logits, and the values that its columns stand for, if any."""
    model = models.load_bundle(asked.folder)
    if isinstance(model, models.MultiHead):
        return OneHead(model, asked.heads, task), ()
    if not isinstance(model, models.DualEncoder):
        return model, ()
    classes = zero_shot.class_features(model, captions.prompts(task, **words))
    return Prompted(model, classes), captions.prompt_values(task)


def _task(asked: _Asked, name: str) -> cohort.Task | None:
    """Return the task with the classes as the model learnt them; None if none can be told."""
    facts, own = asked.facts, asked.facts.get("task", "")
    if name and own and name != own:
        asked.faults.append(
            f"it answers {own}, it has no head for {name}. Leave --task out, or give a model of "
            f"that task: {MADE.format(task=name)}"
        )
        return None
    if "classes" in facts:
        words = cohort.TASKS[own].words if own in cohort.TASKS else {}
        how = {n: facts.get(n, "") for n in ("kind", "positive", "normal", "unit")}
        return cohort.Task(own, own, classes=tuple(facts["classes"]), words=words, **how)
    if (name or own) not in cohort.TASKS:
        found = f"the task {name!r} is unknown" if name else "the bundle does not say its task"
        asked.faults.append(f"{found}: give --task, one of {', '.join(cohort.TASKS)}.")
        return None
    return cohort.task(name or own)


def _check(
    asked: _Asked, task: cohort.Task, words: dict[str, str], threshold: float | None
) -> None:
    """Note why the model can't answer the task, or not from this threshold on."""
    made = asked.shape.get("outputs")
    if words:
        known, style = captions.styles(task), words["style"]
        if style not in known:
            have = f"Give --prompts {' or '.join(known)}." if known else "Choose another --task."
            asked.faults.append(f"there are no prompts by {style!r} for {task.name}. {have}")
    elif asked.kind == "MultiHead":
        values = asked.heads.get(task.column, [])
        if task.kind == "regression" or set(values) != set(task.classes):
            have = ", ".join(asked.heads) or "not recorded"
            asked.faults.append(
                f"it has no head for {task.name} and all its classes (its heads: {have}). "
                f"Fine-tune it first: {MADE.format(task=task.name)}"
            )
    elif made not in (task.outputs, max(1, len(task.classes))):
        asked.faults.append(
            f"its head has {made} outputs, {task.name} needs {task.outputs}. Give the --task that "
            "it was trained for."
        )
    if threshold is not None and not task.positive:
        asked.faults.append(f"{task.name} has no class to detect: leave --threshold out.")
    elif threshold is not None and not 0 <= threshold <= 1:
        asked.faults.append(f"the threshold {threshold:g} is no probability between 0 and 1.")


def _notes(asked: _Asked, task: cohort.Task, cut: float | None, *, frozen: bool) -> list[str]:
    """Say what was assumed of a bundle, in sentences."""
    facts, notes = asked.facts, []
    if "classes" not in facts and asked.kind in ("Classifier", "LinearProbe"):
        notes.append("The bundle does not name its classes: those of this version are taken.")
    if task.positive and cut is None:
        notes.append(
            "The bundle holds no threshold that was frozen on validation patients: the class with "
            "the highest probability is called. Give --threshold for another one."
        )
    if not frozen:
        notes.append(f"The threshold {cut:g} is yours, not one frozen on validation patients.")
    if facts.get("decoding", images.pixels.RECIPE) != images.pixels.RECIPE:
        notes.append("This version decodes images otherwise than the one that made the bundle.")
    if asked.kind == "DualEncoder":
        claim = captions.supervision(facts.get("caption_fields", ()))
        notes.append(f"Asked by prompts, without labels of the task: {claim}.")
    return notes
