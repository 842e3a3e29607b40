"""Expand a sweep, ``SEED=0,1,2 VARIANT=a,b``, into the parameters of each of its runs.

What was typed comes in; one dictionary of parameters for each combination goes out. Combinations
that would write the same run folder are refused: the second run would replace the first.
"""

import itertools
import re
from collections.abc import Sequence

FOLDER = ("DATA", "DATA_ROOT", "TASK", "SEED", "VARIANT")  # what the name of a run folder tells
_NAME = re.compile(r"\{([A-Za-z]\w*)\}")


def sweep(values: Sequence[str]) -> list[dict[str, str]]:
    """Return all combinations, the last name varying fastest; one without parameters for none.

    ``{NAME}`` in a value is the value of that parameter in the same combination, so that
    ``RECIPE=ours,fast EPOCHS=2,4 VARIANT={RECIPE}-{EPOCHS}`` names four folders. In a VARIANT,
    letters that can't name a folder become ``-``.

    Args:
        values: ``NAME=value,value`` for each parameter. Brackets hold a value with commas together
            and are taken off: ``STRATEGIES=[full,lora],probe`` has two values, ``full,lora`` and
            ``probe``; a list itself stands in two pairs, ``CUTS=[[1, 2]],[[3]]``.

    Raises:
        ValueError: Lists *all* problems, each with what to do.
    """
    given: dict[str, list[str]] = {}
    wrong: list[str] = []
    for typed in values:
        name, equals, text = typed.partition("=")
        if not (equals and name.isidentifier()):
            wrong.append(f"{typed!r} is no NAME=value,value, such as SEED=0,1,2.")
        elif name in given:
            wrong.append(f"{name} stands twice; give all its values once, by commas.")
        else:
            given[name] = _split(text)
            wrong += _wrong_values(name, text, given[name])
    for name, several in given.items():
        unknown = set(_NAME.findall(" ".join(several))) - given.keys()
        wrong += [f"{name}: {{{one}}} is no parameter of this sweep." for one in sorted(unknown)]
    if not wrong:
        rows = itertools.product(*given.values())
        combined = [_filled(dict(zip(given, row, strict=True))) for row in rows]
        wrong = _same_folder(given, combined)
    if wrong:
        lines = "\n".join(f"  - {line}" for line in dict.fromkeys(wrong))
        raise ValueError(f"The sweep can't be run, {len(wrong)} problem(s):\n{lines}")
    return combined


def _split(text: str) -> list[str]:
    """Part values at the commas outside brackets."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return [_bare(one.strip()) for one in found]


def _bare(value: str) -> str:
    """Take off the brackets that hold a value together."""
    depths = list(itertools.accumulate((c == "[") - (c == "]") for c in value))
    whole = value[:1] == "[" and depths[-1] == 0 and 0 not in depths[:-1]
    return value[1:-1].strip() if whole else value


def _wrong_values(name: str, text: str, several: list[str]) -> list[str]:
    wrong = [f"{name}: a value is empty in {text!r}."] if "" in several else []
    if text.count("[") != text.count("]"):
        wrong.append(f"{name}: a bracket stands alone in {text!r}.")
    twice = sorted({one for one in several if one and several.count(one) > 1})
    return wrong + [f"{name}: {one!r} stands twice." for one in twice]


def _filled(one: dict[str, str]) -> dict[str, str]:
    """Put values in the place of their names, in VARIANT first and as a folder can be called."""
    if _NAME.search(variant := one.get("VARIANT", "")):
        named = _NAME.sub(lambda match: one[match[1]], variant)
        one = one | {"VARIANT": re.sub(r"[^\w.+-]+", "-", named)}
    return {name: _NAME.sub(lambda match: one[match[1]], value) for name, value in one.items()}


def _same_folder(given: dict[str, list[str]], combined: list[dict[str, str]]) -> list[str]:
    places = [tuple(one.get(name) for name in FOLDER) for one in combined]
    if len(set(places)) == len(places):
        return []
    several = [name for name, values in given.items() if len(values) > 1 and name != "VARIANT"]
    named = "-".join(f"{{{name}}}" for name in several if name not in FOLDER)
    return [
        f"{len(places)} combinations would share {len(set(places))} run folder(s) and replace each "
        f"other: a folder is named after {', '.join(FOLDER)}. Name each after its values, "
        f"VARIANT={named}, with -p FROM default where the runs before have no such variant."
    ]
