"""Measure on new wordings: what a report says of a finding, and what a safe copy still shows.

    python benchmarks/wordings.py [--show] [--edsnlp]

Reads ``wordings/polarity.csv`` and ``wordings/identities.csv``: synthetic sentences, written before
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

HERE = Path(__file__).parent / "wordings"
MARK = re.compile(r"([{}<>])")


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


def polarity(*, show: bool, edsnlp: bool) -> pd.DataFrame:
    """Score the statements."""
    table = pd.DataFrame(rows("polarity.csv"))
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
                right = some[method] == some["expected"]
                scores.append((language, part, method, len(some), right.sum(), right.mean()))
    return pd.DataFrame(scores, columns=["language", "part", "reader", "n", "right", "share"])


def identities(*, show: bool) -> pd.DataFrame:
    """Score the lines: words of an identity are found or not, other words lost or not."""
    scores = []
    for part in ("look", "held"):
        for name in ("en", "fr"):
            language = reports.language(name)
            planted = found = spans = right = words = lost = 0
            for row in rows("identities.csv"):
                if row["language"] != name or row["part"] != part:
                    continue
                text, gold = marked(row["marked"])
                free = [True] * len(text)
                must = [s for s in gold if s[2] == "{"]
                for start, end, _ in gold:
                    free[start:end] = [False] * (end - start)
                gone = [False] * len(text)
                hits = deidentify.find(text, language)
                for span in hits:
                    gone[span.start : span.end] = [True] * (span.end - span.start)
                    spans += 1
                    right += any(a < span.end and span.start < b for a, b, _ in gold)
                left = []
                for start, end, _ in must:
                    inner = re.finditer(r"[^\W_]+", text[start:end])
                    whole = all(
                        all(gone[start + m.start() : start + m.end()])
                        for m in inner
                        if len(m.group()) > 1 and m.group().lower() not in HEADS
                    )
                    planted, found = planted + 1, found + whole
                    left += [] if whole else [text[start:end]]
                over = []
                for match in re.finditer(r"[^\W_]+", text):
                    if all(free[slice(*match.span())]):
                        words += 1
                        if any(gone[slice(*match.span())]):
                            over.append(match.group())
                lost += len(over)
                if show and part == "look" and (left or over):
                    print(f"{name}: {row['marked']}   left {left} lost {over}")
            recall, precision = found / max(planted, 1), right / max(spans, 1)
            scores.append((name, part, planted, recall, precision, words, lost / max(words, 1)))
    columns = ["language", "part", "planted", "recall", "precision", "words", "lost"]
    return pd.DataFrame(scores, columns=columns)


# a title or a head word inside the braces may stay: "Dr <PERSON>", "hôpital <INSTITUTION>" tell
# nobody
HEADS = frozenset(
    "mme mr mrs ms dr drs pr prof m md nurse hôpital clinique chu centre hospitalier hospital de du"
    " des la le les en".split()
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--show", action="store_true", help="print the faults of the part look")
    parser.add_argument("--edsnlp", action="store_true", help="read by edsnlp's pipes too")
    asked = parser.parse_args()
    form = {"index": False, "float_format": "{:.4f}".format}
    print(polarity(show=asked.show, edsnlp=asked.edsnlp).to_string(**form))
    print(identities(show=asked.show).to_string(**form))


if __name__ == "__main__":
    main()
