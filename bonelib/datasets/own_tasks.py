"""Tasks of your own: ``tasks.toml`` beside a table says what a column of it means.

A section is a task and bears the name of its column. The keys are attributes of ``cohort.Task``:
``classes`` stand in their order, so that 0 and 1 of a binary column are the first and the second.

    [implant]
    kind = "binary"
    classes = ["none", "implant"]
    positive = "implant"
    normal = "none"
    words.en = ["no implant", "metal implant"]
"""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bonelib import cohort

KEYS = ("kind", "classes", "words", "positive", "normal", "unit", "least")
COUNTS = {"binary": (2, 2), "multiclass": (3, 99), "ordinal": (3, 99), "regression": (0, 0)}
SHIPPED = tuple(cohort.TASKS)


def declare(files: Iterable[Path]) -> None:
    """Add the tasks of ``tasks.toml`` files to ``cohort.TASKS``.

    Raises:
        ValueError: Lists all that is wrong with a file.
    """
    made = {}
    for file in files:
        try:
            sections = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} is no TOML: {error}.") from None
        wrong = [fault for name, section in sections.items() for fault in _faults(name, section)]
        if wrong:
            lines = "\n".join(f"  - {line}" for line in wrong)
            raise ValueError(f"{file} has {len(wrong)} problem(s):\n{lines}")
        made |= {name: _task(name, section) for name, section in sections.items()}
    cohort.TASKS.update(made)


def _task(name: str, section: dict[str, Any]) -> cohort.Task:
    classes, words = tuple(section.get("classes", ())), section.get("words", {})
    english = words.get("en", classes)
    languages = (*cohort.task("tumor").words, *words)
    words = {one: tuple(words.get(one, english)) for one in languages}
    return cohort.Task(name, name, **section | dict(classes=classes, words=words))


def _faults(name: str, section: Any) -> list[str]:
    if name in SHIPPED:
        return [f"{name!r} is a task of bonelib's own. Give yours, and its column, another name."]
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or not isinstance(section, dict):
        return [f"[{name}]: a task is a section whose name has letters a-z, digits and _."]
    known, kind = ", ".join(KEYS), section.get("kind")
    found = [f"{name}: unknown {key!r}; known are {known}." for key in section.keys() - KEYS]
    if kind not in COUNTS:
        return [*found, f"{name}: kind is {kind!r}; choose {', '.join(COUNTS)}."]
    if name in (*cohort.PUBLIC, *cohort.COLUMNS, *cohort.SIGNS):
        # such as hardware: a public column would show the labels of test images
        found.append(f"{name}: this column has a meaning already. Copy it to one of a new name.")
    classes, (least, most) = section.get("classes", []), COUNTS[kind]
    if not isinstance(classes, list) or not all(isinstance(c, str) and c for c in classes):
        return [*found, f"{name}: classes is a list of names in quotes."]
    if not least <= len(set(classes)) == len(classes) <= most:
        asked = f"{least} or more" if most > least else least
        found.append(f"{name}: {kind} has {asked} different classes; found {classes}.")
    for key in ("positive", "normal"):
        if section.get(key, "") not in ("", *classes):
            found.append(f"{name}: {key} is {section[key]!r}, none of the classes.")
    if kind == "binary" and not section.get("positive"):
        found.append(f"{name}: positive says which class is detected; choose {classes}.")
    words = section.get("words", {})
    if not isinstance(words, dict) or any(len(said) != len(classes) for said in words.values()):
        found.append(f"{name}: words has a list for a language, with a name for each class.")
    return found
