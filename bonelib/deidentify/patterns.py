"""The forms of dates, phones, addresses on the web and numbers: ``patterns.csv``, ready to match.

A row has a ``name``, a regular expression and an ``example`` that it matches. «name» stands for a
fragment, a row of that kind, or for the terms of ``reports/words.csv`` of that kind; «~name» for
the terms with any white space between their words. All read folded text but those of postcodes, in
time that grows with its length alone: what repeats is bounded or possessive (``*+``).
"""

import csv
import re
from functools import lru_cache
from pathlib import Path

from bonelib.reports.languages import Language, months


@lru_cache(maxsize=8)
def compiled(language: Language, kind: str) -> list[tuple[str, re.Pattern]]:
    """Return the patterns of a kind (``date``, ``number``) for a language, in order of rank."""
    with Path(__file__).with_name("patterns.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    fragments = {row["name"]: row["pattern"] for row in rows if row["kind"] == "fragment"}

    def expanded(pattern: str) -> str:
        return re.sub("«(~?)([^»]+)»", lambda m: part(m[2], loose=bool(m[1])), pattern)

    def part(name: str, *, loose: bool) -> str:
        if name in fragments:
            return expanded(fragments[name])
        if name == "month":
            return "|".join(sorted(months(language), key=len, reverse=True))
        if loose:
            terms = map(re.escape, sorted(language.kind(name), key=len, reverse=True))
            terms = (term.replace(r"\ ", r"\s+") for term in terms)
        else:
            terms = sorted(map(re.escape, language.kind(name)), key=len, reverse=True)
        return "|".join(terms) or "(?!)"

    found = [row for row in rows if row["kind"] == kind]
    return [(row["name"], re.compile(expanded(row["pattern"]))) for row in found]
