"""The prompts of every task, in each language: by the name of a class, or by what a reader sees.

A task goes in; for each class, in order, sentences for an ensemble come out. Paraphrases of the
classes' names are in ``labels.csv``, descriptions in ``prompts.csv``, the frames around names in
``frames.csv``.
"""

import functools
import itertools
from pathlib import Path

import pandas as pd

from bonelib.captions.grammar import BONE_AGES, SIGNS, caption, inflected, word, words
from bonelib.cohort import SITE, SITES, VIEW, VIEWS, Task

STYLES = ("label", "signs")
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
    """Return the months in the middle of each stage of bone age; empty where there are classes."""
    edges = [0, *(limit for limit, _ in BONE_AGES)] if task.name == "bone_age" else []
    return tuple((low + high) / 2 for low, high in itertools.pairwise(edges))


def styles(task: Task) -> tuple[str, ...]:
    """Return the styles in which every class of a task has prompts; empty where it has no words."""
    classes = prompt_classes(task)
    described = all(_signs(task, name) for name in classes)
    return STYLES[: 1 + described] if classes else ()


def class_words(task: Task, language: str) -> dict[str, list[str]]:
    """Return the names of each class in a language: its own words, then its paraphrases.

    Raises:
        ValueError: No such language, or the task has no words in it.
    """
    stages, classes = words(language), prompt_classes(task)
    if not classes or language not in task.words:
        have = ", ".join(task.words) if classes else "none"
        raise ValueError(f"The task {task.name!r} has no words in {language!r} (it has: {have}).")
    own = task.words[language] or [stages[task.name, name] for name in classes]
    return {
        name: [text, *(row[language] for row in _rows("labels.csv", task.name, (name,)))]
        for name, text in zip(classes, own, strict=True)
    }


def prompts(
    task: Task, *, style: str = "signs", language: str = "en", site: str = ""
) -> dict[str, list[str]]:
    """Return the prompts of each class, in class order, for an ensemble.

    Args:
        style: ``label`` names the class ("a radiograph of a malignant bone tumor") and its
            paraphrases. ``signs`` says what a reader would see: tumours and fractures in the
            grammar of the captions and at several sites, typical combinations after Lodwick 1980
            (Radiology 134:577) and Madewell 1981 (Radiol Clin North Am 19:715); knees after
            Kellgren and Lawrence 1957 (Ann Rheum Dis 16:494); hands by the epiphyses, after
            Gilsanz and Ratib 2005. A tumour is what is benign or malignant.
        site: A term of ``cohort.SITES`` that every prompt names; by default labels name none, and
            signs are set at several.

    Raises:
        ValueError: No such style, language or site, the task has no words in this style, or it is
            asked of another site alone.
    """
    words(language)
    if style not in STYLES:
        raise ValueError(f"Unknown prompt style {style!r}. Choose {' or '.join(STYLES)}.")
    if style not in styles(task):
        have = ", ".join(styles(task)) or "none"
        raise ValueError(f"The task {task.name!r} has no prompts by {style} (styles: {have}).")
    scenes = _scenes(task, site)
    if style == "label":
        place = {"site": word(language, SITE, site), "of_site": inflected(language, SITE, site)}
        setting = frames("site" if site else "label", language)
        return {
            name: [frame.format(text, **place) for text in named for frame in setting]
            for name, named in class_words(task, language).items()
        }
    return {
        name: [
            _described(row, *scene, language, number)
            for row in _signs(task, name)
            for number, scene in enumerate(scenes)  # in turn in each opening of the captions
        ]
        for name in prompt_classes(task)
    }


def _scenes(task: Task, site: str) -> tuple[tuple[str, str], ...]:
    """Return the views and sites where signs are described."""
    own = _SITE_SCENES.get(task.name)
    if not site:
        return own or _SCENES
    if site not in SITES:
        raise ValueError(f"Unknown site {site!r}. Choose from {', '.join(SITES)}.")
    if own and site != own[0][1]:
        raise ValueError(
            f"The task {task.name!r} is asked of the {own[0][1]} alone, not of the {site}. "
            f"Give site={own[0][1]!r} or none, and leave other images out."
        )
    return own or tuple((view, site) for view in VIEWS)


def _signs(task: Task, name: str) -> list[dict[str, str]]:
    """Return the descriptions of a class; a tumour is what is benign or malignant."""
    if task.name != "tumor":
        return _rows("prompts.csv", task.name, (name,))
    classes = ("normal",) if name == "normal" else ("benign", "malignant")
    return _rows("prompts.csv", "malignancy", classes)


@functools.cache
def sheet(file: str) -> pd.DataFrame:
    """Return a table of this room, every cell as text."""
    return pd.read_csv(Path(__file__).with_name(file), dtype=str, keep_default_na=False)


def frames(kind: str, language: str) -> list[str]:
    """Return the frames of a kind that the language has: ``{}`` stands for a class's name."""
    table = sheet("frames.csv")
    return [frame for frame in table.loc[table["kind"] == kind, language] if frame]


@functools.cache
def _rows(file: str, task: str, classes: tuple[str, ...]) -> list[dict[str, str]]:
    table = sheet(file)
    return table[(table["task"] == task) & table["class"].isin(classes)].to_dict("records")


def _described(row: dict[str, str], view: str, site: str, language: str, draw: int) -> str:
    """Set a description in a scene; what no sign says stands in the last sentence."""
    signs = {sign: row[sign] for sign in SIGNS}
    fields = (VIEW, SITE, "signs")
    scene = caption({VIEW: (view,), SITE: (site,), **signs}, fields, language, draw)
    clause = row[language]
    return f"{scene} {clause[0].upper()}{clause[1:]}." if clause else scene
