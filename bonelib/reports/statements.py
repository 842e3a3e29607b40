"""Facts of a report: site, side, view, finding, entity, attribute, each with its polarity.

The words are in ``vocabulary.csv`` (language, term, kind, value) and map to the values the cohort
table, the captions and the synthetic cohort use. ``sign`` rows are attributes whose absence is a
statement of its own: "no periosteal reaction" is ``periosteum=none``, present. One-letter terms
count where they can mean nothing else: a side beside a site, a view among the technique.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from bonelib.reports import structure
from bonelib.reports.languages import Language
from bonelib.reports.pages import Page
from bonelib.reports.structure import ABSENT, PRESENT, UNCERTAIN, Section

PLACE_KINDS = ("site", "side", "view")
KINDS = (*PLACE_KINDS, "finding", "entity", "attribute")


class Fact(NamedTuple):
    """One statement: kind, value, polarity; where it stands, in which section, if it is past."""

    kind: str
    value: str
    polarity: str
    start: int
    end: int
    section: str
    history: bool


class _Hit(NamedTuple):
    first: int  # token
    last: int  # token, excluded
    kind: str
    value: str


def facts(text: str, language: Language) -> list[Fact]:
    """Read every statement of a report, in order; repeated ones are repeated.

    Read a report after its identities have gone: a Mrs Hand is no hand.
    Findings, entities and attributes come from findings and conclusion (or from all of the text
    where no such heading stands); site, side and view from anywhere.
    """
    # Tags are no words; blanks of the same length keep the offsets.
    page = Page(re.sub(r"<[A-Z_]+>", lambda tag: " " * len(tag.group()), text), language)
    parts = structure.sections(text, language)
    whole = not any(part.kind in (structure.FINDINGS, structure.CONCLUSION) for part in parts)
    found: list[Fact] = []
    for part in parts:
        told = whole or part.kind in (structure.FINDINGS, structure.CONCLUSION)
        for start, end in structure.sentences(text, part.start, part.end):
            first, last = bisect_left(page.starts, start), bisect_left(page.starts, end)
            tokens = [i for i in range(first, last) if page.shapes[i] != "n"]
            found += _sentence(page, tokens, part, told, language)
    return found


def _sentence(
    page: Page, tokens: list[int], part: Section, told: bool, language: Language
) -> list[Fact]:
    triggers = structure.triggers(language)
    words = [structure.corrected(page.words[i], language) for i in tokens]
    shapes = [page.shapes[i] for i in tokens]
    terms: list[_Hit] = []
    cues: list[_Hit] = []
    i = 0
    while i < len(words):
        term = language.vocabulary.at(words, i)
        cue = triggers.at(words, i)
        if cue and (not term or len(cue.tokens) > len(term.tokens)):
            end = i + len(cue.tokens)  # "possible" governs what stands before it or behind it
            same = (c for c in triggers.all(words, i) if c.tokens == cue.tokens)
            cues += [_Hit(i, end, c.kind, "") for c in same]
            i = end
        elif term:
            terms.append(_Hit(i, i + len(term.tokens), term.kind, term.value))
            i += len(term.tokens)
        else:
            i += 1
    history = [c.first for c in cues if c.kind in ("history", "family")]
    found = []
    for term in terms:
        kind, value = term.kind, term.value
        letter = term.last - term.first == 1 and len(words[term.first]) == 1
        if letter and not (shapes[term.first] == "I" and _meant(term, terms, part)):
            continue
        if kind not in PLACE_KINDS and not told:
            continue
        past = bool(history) and history[0] < term.first
        polarity = PRESENT if kind in PLACE_KINDS else _polarity(words, term, cues, terms, language)
        if kind == "sign":
            kind = "attribute"
            if polarity == ABSENT:
                value, polarity = f"{value.partition('=')[0]}=none", PRESENT
            elif "=" not in value:
                continue
        if kind in KINDS:
            start, end = page.starts[tokens[term.first]], page.ends[tokens[term.last - 1]]
            found.append(Fact(kind, value, polarity, start, end, part.kind, past))
    return found


def _meant(term: _Hit, terms: list[_Hit], part: Section) -> bool:
    """Whether a one-letter term may be meant: a side beside a site, a view of the technique."""
    if term.kind == "side":
        return any(
            t.kind == "site" and (0 <= term.first - t.last <= 1 or 0 <= t.first - term.last <= 1)
            for t in terms
        )
    return part.kind in (structure.TECHNIQUE, structure.OTHER) or any(
        t is not term and t.kind in ("site", "view") for t in terms
    )


def _polarity(
    words: list[str], term: _Hit, cues: list[_Hit], terms: list[_Hit], language: Language
) -> str:
    """Say whether a term is present, absent or uncertain by the nearest trigger that reaches it.

    What negates a doubt makes absent ("not suspicious for"), what negates an exclusion uncertain
    ("does not exclude").
    """
    before, after = [], []
    reach = structure.REACH + 20  # and the words of a trigger itself
    low = bisect_left(cues, term.first - reach, key=lambda cue: cue.first)
    high = bisect_left(cues, term.last + reach, key=lambda cue: cue.first)
    cues = cues[low:high]
    for cue in cues:
        if cue.last <= term.first and cue.kind in ("negation_pre", "uncertain_pre"):
            asked = words[cue.first] == "?" and term.first - cue.last > QUERY
            if not asked and _reaches(words, cue.last, term.first, cues, len(words)):
                before.append(cue)
        elif cue.first >= term.last and cue.kind in ("negation_post", "uncertain_post"):
            end = cue.first - (words[cue.first - 1] == "(")  # "fracture (?)"
            closes = _closes(words, cue, cues, terms, language)
            if closes and _reaches(words, term.last, end, cues, cue.first):
                after.append(cue)
    if not before and not after:
        return PRESENT
    behind = min(after, key=lambda cue: cue.first, default=None)
    settled = _judged(words, behind, cues, terms, term.last, language) if behind else PRESENT
    for cue in after if settled == UNCERTAIN else ():  # "the fracture suspected is not found"
        own = all(t.kind in PLACE_KINDS or not term.last <= t.first < cue.first for t in terms)
        own &= PARTS.isdisjoint(words[term.last : cue.first])
        if own and _judged(words, cue, cues, terms, term.last, language) == ABSENT:
            settled = ABSENT
    if not before:
        return settled
    nearest = max(before, key=lambda cue: cue.first)
    polarity = _judged(words, nearest, cues, terms, 0, language)
    # "the suspicion of a fracture is ruled out"
    return ABSENT if polarity == UNCERTAIN and settled == ABSENT else polarity


def _judged(
    words: list[str], cue: _Hit, cues: list[_Hit], terms: list[_Hit], start: int, language: Language
) -> str:
    """Say what a trigger makes of its term, by what negates the trigger from ``start`` on."""
    own = set(words[cue.first : cue.last])
    excludes = not own.isdisjoint(language.kind("exclusion"))
    doubts = cue.kind.startswith("uncertain")
    no = set(language.kind("not")) | set(language.kind("unable") if excludes else ())
    if doubts and (excludes or "?" in own or not own.isdisjoint(no)):
        return UNCERTAIN  # "cannot exclude" has its negation in it
    if not doubts and not excludes:
        return ABSENT
    first = max(start, cue.first - NEGATED)
    parts = [i for i in range(first, cue.first) if words[i] in PARTS]
    parts += [c.last - 1 for c in cues if c.kind == "ends" and first <= c.first < cue.first]
    # "not entirely excluded": what is no negation elsewhere negates an exclusion
    pseudo = [c for c in cues if c.kind == "negation_pseudo" and not excludes]
    denied = any(
        words[i] in no and not any(c.first <= i < c.last for c in pseudo)
        for i in range(max(parts, default=first - 1) + 1, cue.first)
    )
    for other in cues if doubts and not start else ():
        if other.kind == "negation_pre" and 0 <= cue.first - other.last <= REACHES_DOUBT:
            between = words[other.last : cue.first]
            aside = words[other.first] in language.kind("aside") and any(
                other.last <= t.first < cue.first and t.kind not in PLACE_KINDS for t in terms
            )  # "a lesion without a rim suggestive of" speaks of the lesion
            joined = aside or not PARTS.isdisjoint(between)
            denied |= not joined and _reaches(words, other.last, cue.first, cues, cue.first)
    if doubts:
        return ABSENT if denied else UNCERTAIN
    return UNCERTAIN if denied else ABSENT


def _closes(
    words: list[str], cue: _Hit, cues: list[_Hit], terms: list[_Hit], language: Language
) -> bool:
    """Whether a trigger that may stand on both sides governs what stands before it.

    It does not before a finding ("lesion, possible fracture") or an adjective ("likely benign").
    """
    both = cue.kind.replace("_post", "_pre")
    two_sided = any(c.first == cue.first and c.kind == both for c in cues)
    ahead = words[cue.last] if cue.last < len(words) else "."
    if not two_sided or words[cue.first] in language.kind("between") or not ahead.isalpha():
        return True
    near = range(cue.last, cue.last + NEXT)
    finding = any(t.first in near and t.kind not in PLACE_KINDS for t in terms)
    return not finding and (ahead in language.function or ahead in language.kind("not"))


NEGATED, REACHES_DOUBT = 4, 8  # words in which "not", or a phrase of negation, governs a trigger
QUERY, NEXT = 4, 3  # words that "?" governs behind it; in which a finding follows a trigger
PARTS = frozenset((",", "(", ":", "et", "and", "avec", "with"))


def _reaches(words: list[str], start: int, end: int, cues: list[_Hit], last: int) -> bool:
    """Whether nothing between two tokens ends the reach of a trigger.

    A comma ends it, unless a list goes on behind it ("no fracture, lesion or effusion").
    """
    if end - start > structure.REACH:
        return False
    if any(cue.kind == "ends" and start <= cue.first < end for cue in cues):
        return False
    commas = [i for i in range(start, end) if words[i] in (",", "(")]
    if not commas:
        return True
    return len(commas) < 4 and any(word in LISTS for word in words[commas[-1] : last])


LISTS = frozenset(("ou", "ni", "or", "nor", "oder", "noch"))


def table(reports: Iterable[tuple[str, list[Fact]]]) -> pd.DataFrame:
    """Sum facts into one row a report, kind and value: ``report, kind, value, polarity``.

    What is said twice counts once; present outweighs uncertain, uncertain outweighs absent. What
    belongs to the past or to the family is left out.
    """
    rank = {PRESENT: 0, UNCERTAIN: 1, ABSENT: 2}
    rows = []
    for report, found in reports:
        best: dict[tuple[str, str], str] = {}
        for fact in found:
            key = (fact.kind, fact.value)
            if not fact.history and rank[fact.polarity] < rank.get(best.get(key, ""), 3):
                best[key] = fact.polarity
        rows += [(report, kind, value, polarity) for (kind, value), polarity in best.items()]
    return pd.DataFrame(rows, columns=["report", "kind", "value", "polarity"])


def agreement(ours: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Compare facts with planted ones: precision, recall and F1 by kind, and over all.

    A fact agrees if report, kind, value and polarity do.
    """
    columns = ["report", "kind", "value", "polarity"]
    one, other = (set(map(tuple, t[columns].astype(str).to_numpy())) for t in (ours, truth))
    rows = []
    for kind in (*KINDS, "ALL"):
        a = {row for row in one if kind in (row[1], "ALL")}
        b = {row for row in other if kind in (row[1], "ALL")}
        hits = len(a & b)
        precision = hits / len(a) if a else float("nan")
        recall = hits / len(b) if b else float("nan")
        f1 = 2 * hits / (len(a) + len(b)) if a or b else float("nan")
        rows.append((kind, len(b), precision, recall, f1))
    return pd.DataFrame(rows, columns=["kind", "n", "precision", "recall", "f1"])
