"""Other ways to ask the same, and the check of prompts that somebody else wrote.

A task and a language go in; its prompts come out in many wordings, one thing changed in each, so
that the spread of their scores shows how much hangs on the wording.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bonelib.captions.grammar import languages
from bonelib.captions.prompting import class_words, frames, prompt_classes
from bonelib.cohort import Task

_DENIALS = ("no ", "pas ", "kein")  # how a class's name begins that denies another class


@dataclass(frozen=True)
class Variant:
    """One wording of every class; its name is the frame, with the number of a paraphrase."""

    kind: str
    name: str
    language: str
    prompts: dict[str, list[str]]


def variants(task: Task, language: str = "en") -> list[Variant]:
    """Return the variants of wording, each with one sentence a class, in class order.

    ``template`` sets the class's own words in one of 20 frames; ``word order`` tears a frame
    apart, the class's words stay together; ``negation`` denies all else or another class, so that
    the meaning stays; ``paraphrase`` takes another name of the class (the last where it has no
    more), in the frames of the label prompts.

    Raises:
        ValueError: No such language, or the task has no words in it.
    """
    named = class_words(task, language)
    wordings = [
        (kind, frame, 0)
        for kind in ("template", "word order", "negation")
        for frame in frames(kind, language)
    ]
    for number in range(1, max(map(len, named.values()))):
        wordings += [("paraphrase", frame, number) for frame in frames("label", language)]
    return [
        Variant(
            kind,
            f"{frame} ({n})" if n else frame,
            language,
            {
                name: [frame.format(own[min(n, len(own) - 1)], other=_other(task, named, name))]
                for name, own in named.items()
            },
        )
        for kind, frame, n in wordings
    ]


def _other(task: Task, named: Mapping[str, Sequence[str]], name: str) -> str:
    """Name the class that is denied: the normal or first one, for itself the one behind it."""
    classes = [task.normal or next(iter(named)), *named]
    other = classes[0] if name != classes[0] else classes[classes.index(name, 1) - len(named)]
    plain = [text for text in named[other] if not text.startswith(_DENIALS)]
    return (plain or named[other])[0]


def check_prompts(
    prompts: Mapping[str, Sequence[str]], task: Task, *, style: str = "label"
) -> dict[str, list[str]]:
    """Return prompts that somebody else wrote, trimmed and in class order.

    Args:
        style: With ``label`` each prompt must hold a name of its class in some language (the
            class's own, ``Task.words`` or ``labels.csv``); ``signs`` describes without names.

    Raises:
        ValueError: Lists all problems at once: classes that are unknown, repeated or without
            prompts, one prompt of two classes, and prompts without the class's name.
    """
    classes = {name.casefold(): name for name in prompt_classes(task)}
    found: dict[str, list[str]] = {}
    faults, homes, names = [], {}, _names(task)
    for given, texts in prompts.items():
        name = classes.get(str(given).strip().casefold())
        if name is None or name in found:
            what = "given twice" if name else f"no class of {task.name}: {', '.join(names)}"
            faults.append(f"{given!r} is {what}.")
            continue
        sound = not isinstance(texts, str) and all(isinstance(t, str) and t.split() for t in texts)
        found[name] = [" ".join(text.split()) for text in texts] if sound else []
    for name in names:
        if not found.get(name):
            faults.append(f"{name!r} has no prompts: give a list of sentences, none of them empty.")
        for text in found.get(name, ()):
            if homes.setdefault(text.casefold(), name) != name:
                faults.append(f"{text!r} is a prompt of {homes[text.casefold()]!r} and {name!r}.")
            if style == "label" and not _named(text.casefold(), name, names):
                words = " or ".join(map(repr, sorted(names[name])[:3]))
                faults.append(f"{text!r} doesn't name its class {name!r}: write {words}, say.")
    if faults:
        lines = "\n".join(f"  - {line}" for line in faults)
        raise ValueError(f"The prompts for {task.name} have {len(faults)} problem(s):\n{lines}")
    return {name: found[name] for name in names}


def _names(task: Task) -> dict[str, set[str]]:
    """Return all names of each class, in lower case."""
    found = {name: {name.casefold()} for name in prompt_classes(task)}
    for language in [own for own in languages() if own in task.words]:
        for name, words in class_words(task, language).items():
            found[name] |= {word.casefold() for word in words}
    return found


def _named(text: str, name: str, names: Mapping[str, set[str]]) -> bool:
    """Tell whether a text names a class; "no fracture" does not name the class "fracture"."""
    mine = names[name]
    for other in sorted(set().union(*names.values()) - mine, key=len, reverse=True):
        if any(word in other for word in mine):
            text = text.replace(other, " ")
    return re.search(rf"(?<!\w)({'|'.join(map(re.escape, mine))})(?!\w)", text) is not None
