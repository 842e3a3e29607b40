"""Measure on new wordings: what a report says of a finding, and what a safe copy still shows.

    python benchmarks/wordings.py [--show] [--edsnlp]

Reads the tables of ``wordings/``: synthetic sentences, written before
their author looked at the rules (``wordings/README.md``). Prints for each language and part how
many statements are read as they are meant, and of the identities how many are found, with the
precision by span and the share of other words that are lost. Each line stands as it does, without
an index, as the rules for single reports hold it back: the detector itself is measured. With
``--edsnlp`` the French statements are also read by edsnlp's pipes ``eds.negation`` and
``eds.hypothesis`` on the same terms. ``--show`` prints the faults of the part ``look``.
"""

import argparse
import csv
import re
from pathlib import Path

import pandas as pd

from bonelib import deidentify, reports
from bonelib.deidentify import leaks

HERE = Path(__file__).parent / "wordings"
MARK, WORD = re.compile(r"([{}<>])"), re.compile(r"[^\W_]+")
STATEMENTS = ("polarity.csv", "statements.csv")
LINES = tuple(
    f"{name}.csv" for name in ("identities", "reports", "dictations", "letters", "varied", "fresh")
)


def rows(name: str) -> list[dict[str, str]]:
    """Read a table of sentences."""
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def said(statement: str, kind: str, language: reports.Language) -> str:
    """Return the polarity of the finding of a statement, "" where it isn't read."""
    found = {f.polarity for f in reports.facts(statement, language) if f.value == kind}
    return "/".join(sorted(found))


def rival(statements: list[tuple[str, str]]) -> list[str]:
    """Read statements by edsnlp, on the terms of our vocabulary; without a cue it says present."""
    import edsnlp

    language = reports.language("fr")
    pipeline = edsnlp.blank("eds")
    pipeline.add_pipe("eds.sentences")
    terms: dict[str, list[str]] = {}
    for phrases in language.vocabulary.first.values():
        for phrase in phrases:
            terms.setdefault(phrase.value, []).append(" ".join(phrase.tokens))
    pipeline.add_pipe(
        "eds.matcher", config={"terms": terms, "attr": "NORM", "ignore_excluded": True}
    )
    pipeline.add_pipe("eds.negation")
    pipeline.add_pipe("eds.hypothesis")
    out = []
    for statement, kind in statements:
        found = [e for e in pipeline(statement).ents if e.label_ == kind]
        states = {
            "absent" if e._.negation else "uncertain" if e._.hypothesis else "present"
            for e in found
        }
        out.append("/".join(sorted(states)))
    return out


def marked(text: str) -> tuple[str, list[tuple[int, int, str]]]:
    """Take the marks out of a line: its text, and spans that must go ("{") or may ("<")."""
    plain, spans, start = "", [], 0
    for part in MARK.split(text):
        if part in ("{", "<"):
            start = len(plain)
        elif part in ("}", ">"):
            spans.append((start, len(plain), "{" if part == "}" else "<"))
        else:
            plain += part
    return plain, spans


def polarity(name: str, *, show: bool, edsnlp: bool) -> pd.DataFrame:
    """Score the statements of a table."""
    table = pd.DataFrame(rows(name))
    languages = {name: reports.language(name) for name in table["language"].unique()}
    table["bonelib"] = [
        said(r.statement, r.kind, languages[r.language]) for r in table.itertuples()
    ]
    methods = ["bonelib"]
    if edsnlp:
        french = table["language"] == "fr"
        pairs = table.loc[french, ["statement", "kind"]].itertuples(index=False)
        table.loc[french, "edsnlp"] = rival([tuple(p) for p in pairs])
        methods.append("edsnlp")
    if show:
        wrong = table[(table["bonelib"] != table["expected"]) & (table["part"] == "look")]
        print(wrong[["language", "statement", "expected", "bonelib"]].to_string(index=False))
    scores = []
    for (language, part), some in table.groupby(["language", "part"]):
        for method in methods:
            if some[method].notna().all():
                right = int((some[method] == some["expected"]).sum())
                scores.append((name, language, part, method, share(right, len(some))))
    return pd.DataFrame(scores, columns=["set", "language", "part", "reader", "right"])


def share(hits: int, n: int) -> str:
    """Print a count and its share with Wilson's 95 % interval."""
    low, high = leaks.wilson(hits, n)
    return f"{hits:4d} of {n:4d} = {hits / max(n, 1):.4f} [{low:.4f}, {high:.4f}]"


def judged(marks: str, language: reports.Language) -> tuple[list[bool], list[bool], list, int]:
    """Compare a line with what is found in it.

    Returns whether each identity is found, whether each span found touches a mark, and the other
    words that are lost, beside the number of other words.
    """
    text, gold = marked(marks)
    free, gone = [True] * len(text), [False] * len(text)
    for start, end, _ in gold:
        free[start:end] = [False] * (end - start)
    spans = deidentify.find(text, language)
    right = [any(a < s.end and s.start < b for a, b, _ in gold) for s in spans]
    for span in spans:
        gone[span.start : span.end] = [True] * (span.end - span.start)

    def beside(at: int) -> bool:
        return any(r and s.start <= at < s.end for s, r in zip(spans, right, strict=True))

    found = [
        all(
            all(gone[start + m.start() : start + m.end()])
            for m in WORD.finditer(text[start:end])
            if len(m.group()) > 1 and m.group().lower() not in HEADS
        )
        for start, end, mark in gold
        if mark == "{"
    ]
    other = [m for m in WORD.finditer(text) if all(free[slice(*m.span())])]
    lost = [m for m in other if any(gone[slice(*m.span())])]
    lost = [m.group() for m in lost if not (m.group().lower() in BESIDE and beside(m.start()))]
    return found, right, lost, len(other)


def identities(name: str, *, show: bool) -> pd.DataFrame:
    """Score the lines of a table: identities found, spans that are right, other words lost."""
    scores = []
    for (language, part), some in pd.DataFrame(rows(name)).groupby(["language", "part"]):
        told = reports.language(language)
        found, right, lost, words = [], [], [], 0
        for marks in some["marked"]:
            f, r, over, n = judged(marks, told)
            found, right, lost, words = found + f, right + r, lost + over, words + n
            if show and part == "look" and not (all(f) and not over):
                print(f"{language}: {marks}   found {f} lost {over}")
        scores.append((name, language, part, found, right, lost, words))
    for part in ("look", "held"):  # both languages together: what a target is compared with
        both = [s for s in scores if s[2] == part]
        if not both:
            continue
        scores.append(
            (
                name,
                "both",
                part,
                *(sum((s[k] for s in both), []) for k in (3, 4, 5)),
                sum(s[6] for s in both),
            )
        )
    return pd.DataFrame(
        {
            "set": name,
            "language": language,
            "part": part,
            "recall": share(sum(found), len(found)),
            "precision": share(sum(right), len(right)),
            "words lost": share(len(lost), words),
        }
        for _, language, part, found, right, lost, words in scores
    )


# a title or a head word may stay, or go with the name beside it: "Dr <PERSON>" and
# "hôpital <INSTITUTION>" tell nobody
HEADS = frozenset(
    "mme mlle docteur mr mrs ms dr drs pr prof m md nurse sister soeur sœur hôpital clinique chu"
    " centre hospitalier hospital de du des la le les en miss sgt sergeant pc sr rn and et"
    " monsieur madame mademoiselle dre me fr rev smt shri".split()
)
BESIDE = HEADS | frozenset(
    "monsieur madame ch chr chru laboratoire laboratory cabinet collège école lycée service"
    " imagerie radiologie pathologie imaging radiology clinic medical surgery school d l s".split()
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--show", action="store_true", help="print the faults of the part look")
    parser.add_argument("--edsnlp", action="store_true", help="read by edsnlp's pipes too")
    asked = parser.parse_args()
    scores = [polarity(n, show=asked.show, edsnlp=asked.edsnlp) for n in STATEMENTS]
    print(pd.concat(scores).to_string(index=False))
    print(pd.concat([identities(n, show=asked.show) for n in LINES]).to_string(index=False))


if __name__ == "__main__":
    main()
