"""A tree of pictures with a folder per class: ``train/fractured/a.png`` or ``fractured/a.png``.

Source, licence and labels are those of whoever made the tree. The folder in which a picture lies is
its class; the names must be classes of one task, known synonyms of them, or be spelled out.

Known faults of such trees: they name no patients; split folders that came with them often share
patients or even files, so they are noted in ``published_split`` and never trusted; exports of
Roboflow hold several altered copies of one source image, which share a ``study`` here.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from bonelib import cohort, datasets

COPY = re.compile(r"(.+?)[_.](?:jpe?g|png|bmp|webp|tiff?)\.rf\.[0-9A-Za-z]+(?:\.\w+)?$", re.I)


def read(
    root: Path, notes: list[str], *, task: str = "", classes: dict[str, str] | None = None
) -> pd.DataFrame:
    """Read a tree with a folder per class.

    Args:
        task: Name of the task; by default the one to which all names of folders belong.
        classes: Class of the task for each name that is not recognised.

    Returns:
        The cohort table with the task's column and ``published_split``; ``image_id`` is the path
        below ``root``.

    Raises:
        FileNotFoundError: There is no picture.
        ValueError: The names of the folders are not classes of one task.
    """
    files = datasets.tree(root, notes)
    pictures = datasets.pictures(files)
    if not pictures:
        have = ", ".join(list(files)[:5]) or "nothing"
        raise FileNotFoundError(f"No pictures below {root} (it holds {have}). Set DATA_ROOT.")
    others = [name for name in files if name not in pictures]
    notes += datasets.counted(others, "{n} files are no pictures by their names, e.g. {names}.")
    parents = {name: name.split("/")[-2] if "/" in name else "" for name in pictures}
    loose = [n for n, parent in parents.items() if not parent or parent.lower() in datasets.SPLITS]
    text = "{n} pictures lie in no folder of a class, e.g. {names}"
    if len(loose) == len(pictures):
        text += ". Put each picture into a folder named for its class, or write a CSV."
        raise ValueError(*datasets.counted(loose, text))
    notes += datasets.counted(loose, f"{text}; they are left out.")
    names = [name for name in pictures if name not in set(loose)]
    known = recognise({parents[name] for name in names}, task, classes, notes, where=str(root))

    table = cohort.empty(len(names))
    table[cohort.IMAGE_ID] = names
    table[cohort.PATH] = datasets.paths(names, pictures)
    table[cohort.SOURCE] = root.absolute().name
    table[cohort.STUDY] = [source_image(name.rsplit("/", 1)[-1]) for name in names]
    table[known.name] = [known.classes[parents[name]] for name in names]
    table[datasets.PUBLISHED_SPLIT] = [
        datasets.published_split(name.split("/")[:-2]) or pd.NA for name in names
    ]
    notes += copies(table, known.name)
    base = table[cohort.IMAGE_ID].str.rsplit("/", n=1).str[-1]
    labels = table[known.name].groupby(base).nunique()
    notes += datasets.counted(
        labels.index[labels > 1],
        "{n} names of files occur in folders of different classes, e.g. {names}.",
    )
    return table


@dataclass(frozen=True)
class Known:
    """The task ``name``, and the class of it that each name of a folder or column stands for."""

    name: str
    classes: dict[str, str]


@cache
def _synonyms(task: str) -> dict[str, str]:
    """Return what folders are called beside the class names: lower case, blanks for _ and -.

    Every cancer is a tumour; whether "cancer" tells malignant from benign, nobody says.
    """
    words = pd.read_csv(Path(__file__).with_name("synonyms.csv"), dtype=str)
    words = words[words["task"] == task]
    return dict(zip(words["name"], words["class"], strict=True))


def recognise(
    names: set[str],
    task: str,
    classes: dict[str, str] | None,
    notes: list[str],
    *,
    where: str,
) -> Known:
    """Find the task to which all ``names`` belong, and the class of each.

    Raises:
        ValueError: None fits or several do; the message lists names and tasks.
    """
    tasks = [cohort.task(task)] if task else list(cohort.TASKS.values())
    fitting = []
    for candidate in tasks:
        given = {}
        for name in names:
            plain = re.sub(r"[\s_-]+", " ", name).strip().lower()
            words = {c.lower(): c for c in candidate.classes} | _synonyms(candidate.name)
            given[name] = (classes or {}).get(name, words.get(plain))
        if all(value in candidate.classes for value in given.values()):
            fitting.append(Known(candidate.name, given))
    found = ", ".join(sorted(names))
    if len(fitting) == 1:
        pairs = sorted(fitting[0].classes.items())
        told = ", ".join(f"{n} as {c}" for n, c in pairs if n != c)
        if told:
            notes.append(f"Names were read as classes of {fitting[0].name!r}: {told}.")
        return fitting[0]
    if fitting:
        raise ValueError(
            f"The classes {found} in {where} fit several tasks: "
            f"{', '.join(k.name for k in fitting)}. Name one: task='{fitting[0].name}'."
        )
    choice = "\n".join(f"  - {t.name}: {', '.join(t.classes)}" for t in tasks if t.classes)
    raise ValueError(
        f"Found the classes {found} in {where}; they are not all classes of one task:\n{choice}\n"
        "Pass task='…' and classes={'name found': 'class', …}, or rename them."
    )


def source_image(name: str) -> object:
    """Name the source of an export ``name_jpg.rf.<hash>.jpg``; NA for any other file."""
    match = COPY.match(name)
    return match.group(1) if match else pd.NA


def copies(table: pd.DataFrame, label: str) -> list[str]:
    """Say how many pictures are altered copies of one source image, and whether labels differ."""
    studies = table.groupby(cohort.STUDY)
    count, labels = studies.size(), studies[label].nunique()
    several = count[count > 1].sort_values(ascending=False, kind="stable")
    return datasets.counted(
        several.index,
        f"{several.sum()} pictures are copies of {{n}} source images, e.g. {{names}}; copies share "
        "a study and so a group.",
    ) + datasets.counted(
        labels.index[labels > 1],
        "Copies of {n} source images have different classes, e.g. {names}.",
    )
