"""The prompts of every task, in both languages: by the name of a class, or by what a reader sees.

A task goes in; for each class, in order, sentences for an ensemble come out. Paraphrases of the
classes' names are in ``labels.csv``, descriptions in ``prompts.csv``.
"""

from pathlib import Path

import pandas as pd

from bonelib.captions.grammar import BONE_AGES, SIGNS, caption, words
from bonelib.cohort import SITE, VIEW, Task

STYLES = ("label", "signs")
_FRAMES = {
    "en": ("{}", "a radiograph of {}", "an x-ray showing {}", "radiograph. {}."),
    "fr": ("{}", "radiographie : {}", "cliché montrant {}"),
}
# Where prompts by signs are set: an ensemble over scenes averages out what names the site.
_SCENES = tuple(
    (view, site)
    for view in ("frontal", "lateral")
    for site in ("femur", "tibia", "humerus", "knee", "hand", "foot")
)
# Tasks that are asked of one site alone.
_SITE_SCENES = {"kl_grade": (("frontal", "knee"),), "bone_age": (("frontal", "hand"),)}


def prompt_classes(task: Task) -> tuple[str, ...]:
    """Return the classes that prompts are for: the task's own, or the stages of bone age."""
    stages = tuple(name for _, name in BONE_AGES) if task.name == "bone_age" else ()
    return task.classes or stages


def prompt_values(task: Task) -> tuple[float, ...]:
    """Return the value that each of `prompt_classes` stands for; empty where they are classes."""
    return tuple(bone_age_months().values()) if task.name == "bone_age" else ()


def styles(task: Task) -> tuple[str, ...]:
    """Return the styles in which every class of a task has prompts; empty where it has no words."""
    classes = prompt_classes(task)
    described = all(_signs(task, name) for name in classes)
    return STYLES[: 1 + described] if classes else ()


def bone_age_months() -> dict[str, float]:
    """Return the middle of each stage of bone age in months, to turn its share into a value."""
    edges = (0, *(limit for limit, _ in BONE_AGES))
    return {name: (low + high) / 2 for low, (high, name) in zip(edges[:-1], BONE_AGES, strict=True)}


def prompts(task: Task, *, style: str = "signs", language: str = "en") -> dict[str, list[str]]:
    """Return the prompts of each class, in class order, for an ensemble.

    Args:
        style: ``label`` names the class ("a radiograph of a malignant bone tumor") and its
            paraphrases. ``signs`` says what a reader would see: tumours and fractures in the
            grammar of the captions and at several sites, typical combinations after Lodwick 1980
            (Radiology 134:577) and Madewell 1981 (Radiol Clin North Am 19:715); knees after
            Kellgren and Lawrence 1957 (Ann Rheum Dis 16:494); hands by the epiphyses, after
            Gilsanz and Ratib 2005. A tumour is what is benign or malignant.

    Raises:
        ValueError: No such style or language, or the task has no words in this style.
    """
    words(language)
    if style not in STYLES:
        raise ValueError(f"Unknown prompt style {style!r}. Choose {' or '.join(STYLES)}.")
    if style not in styles(task):
        have = ", ".join(styles(task)) or "none"
        raise ValueError(f"The task {task.name!r} has no prompts by {style} (styles: {have}).")
    found = {}
    for name in prompt_classes(task):
        if style == "label":
            own = words(language).get((task.name, name))  # a stage of bone age
            named = [own or task.words[language][task.classes.index(name)]]
            named += [row[language] for row in _rows("labels.csv", task.name, (name,))]
            found[name] = [frame.format(text) for text in named for frame in _FRAMES[language]]
            continue
        scenes = _SITE_SCENES.get(task.name, _SCENES)
        found[name] = [
            _described(row, *scene, language, number)
            for row in _signs(task, name)
            for number, scene in enumerate(scenes)  # in turn in each opening of the captions
        ]
    return found


def _signs(task: Task, name: str) -> list[dict[str, str]]:
    """Return the descriptions of a class; a tumour is what is benign or malignant."""
    if task.name != "tumor":
        return _rows("prompts.csv", task.name, (name,))
    classes = ("normal",) if name == "normal" else ("benign", "malignant")
    return _rows("prompts.csv", "malignancy", classes)


def _rows(file: str, task: str, classes: tuple[str, ...]) -> list[dict[str, str]]:
    bank = pd.read_csv(Path(__file__).with_name(file), dtype=str, keep_default_na=False)
    return bank[(bank["task"] == task) & bank["class"].isin(classes)].to_dict("records")


def _described(row: dict[str, str], view: str, site: str, language: str, draw: int) -> str:
    """Set a description in a scene; what no sign says stands in the last sentence."""
    signs = {sign: row[sign] for sign in SIGNS}
    fields = (VIEW, SITE, "signs")
    scene = caption({VIEW: (view,), SITE: (site,), **signs}, fields, language, draw)
    clause = row[language]
    return f"{scene} {clause[0].upper()}{clause[1:]}." if clause else scene
