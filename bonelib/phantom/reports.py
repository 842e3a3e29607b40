"""Radiology reports of the synthetic studies, in French and English, with their truth beside them.

One report a study, written from the same facts as its pictures: letterhead, identity, indication,
technique, comparison, findings, conclusion, signature; with negations, doubt, abbreviations,
slips of the keyboard and capitals without accents. Sentences stand in ``frames.csv``, words in
``words.csv``. People and places are invented (``identities.py``).

Written are ``reports/<study>.txt`` (UTF-8), the identities as BRAT stand-off beside it (``.ann``;
Stenetorp et al. 2012, EACL), ``reports/facts.csv`` with what each text states, and ``reports.csv``,
the index, last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from . import identities, layout
from .files import clear_parts, other_settings, rows, save, save_table
from .sampling import archive_case, plan
from .slots import Slots, Study, studies

VERSION = 2  # raised whenever the same settings would give other texts
LANGUAGES = ("fr", "en")
FACT_COLUMNS = ("report", "kind", "value", "polarity")
_MADE, _SLOT = "settings.json", re.compile(r"{\w+}")
# What a picture may show beside a lesion: all that can be said of bone without one.
FINDINGS = ("fracture", "implant", "osteoarthritis", "cast", "variant")
SECTIONS = ("indication", "technique", "comparison", "findings", "conclusion")
# share of reports by centre in the first of the languages asked for
FIRST_LANGUAGE = {1: 0.6, 2: 0.5, 3: 0.4}
# how often a finding that is there is put in doubt, and one that is not is denied or put in doubt
_DOUBTED = {"fracture": 0.15, "osteoarthritis": 0.15}
_DENIED = {"fracture": 0.6, "lesion": 0.65, "osteoarthritis": 0.25, "implant": 0.06, "cast": 0.02}
_FEARED = {"fracture": 0.08, "lesion": 0.05, "osteoarthritis": 0.05}
# how often a line stands in the header, beside the patient's name
_HEADER = {
    "birth": 0.85, "record": 0.55, "accession": 0.6, "national": 0.4, "date": 0.9, "referrer": 0.6,
    "address": 0.35, "reach": 0.3,
}  # fmt: skip
# how a report ends that has found nothing
_NOTHING = (
    ("fracture+lesion", "absent"), ("normal", ""), ("lesion", "absent"), ("fracture", "absent"),
)  # fmt: skip
_PLAIN_BONE = ("destruction", "cortex", "periosteum", "soft_tissue")  # said of a normal bone too


@dataclass(frozen=True)
class Report:
    """One report: its text, its identities and its facts.

    ``spans`` are (label, start, end) in characters of ``text``; ``facts`` are (kind, value,
    polarity) as the text states them.
    """

    study: str
    text: str
    spans: tuple[tuple[str, int, int], ...]
    facts: tuple[tuple[str, str, str], ...]
    index: dict[str, str]  # a row of ``reports.csv``
    frames: tuple[str, ...]  # the sentences' frames, to count how varied they are

    @property
    def brat(self) -> str:
        """The identities as BRAT stand-off lines."""
        return "".join(
            f"T{number}\t{label} {start} {end}\t{self.text[start:end]}\n"
            for number, (label, start, end) in enumerate(self.spans, start=1)
        )


@cache
def _frames(language: str) -> dict[tuple[str, str, str], list[str]]:
    """Sentences of a language by section, topic and polarity."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in rows("frames.csv", text=True, language=language):
        key = row["section"], row["topic"], row["polarity"]
        found.setdefault(key, []).append(row["text"].replace("\\n", "\n"))
    return found


def compose(study: Study, *, seed: int = 0, languages: Sequence[str] = LANGUAGES) -> Report:
    """Write the report of a study; the same study and seed give the same report."""
    rng = Random(f"report {seed} {study.case.study}")
    first = rng.random() < FIRST_LANGUAGE[study.case.center]
    language = languages[0] if first else rng.choice(languages[1:] or languages)
    writer = _Writer(study, language, seed, rng)
    marked = writer.body()
    if rng.random() < 0.3:
        marked = layout.mistyped(marked, rng, faults=rng.randint(1, 4))
    if rng.random() < 0.2:
        marked = layout.unevenly_spaced(marked, rng)
    if rng.random() < 0.3:
        marked = layout.wrapped(marked, rng.randint(60, 95))
    style = rng.random()
    if style < 0.1:
        marked = layout.capitals(marked)
    elif style < 0.16:
        marked = identities.plain(marked)
    text, spans = layout.parted(marked)
    slots, case = writer.slots, study.case
    index = {
        "report": case.study,
        "study": case.study,
        "accession": slots.accession,
        "patient": case.patient,
        "date": slots.date.isoformat(),
        "language": language,
        "path": f"reports/{case.study}.txt",
        "name": f"{slots.patient.last}, {slots.patient.first}",
        "birth_date": slots.birth.isoformat(),
    }
    facts = tuple(dict.fromkeys(slots.facts))
    return Report(case.study, text, tuple(spans), facts, index, tuple(writer.used))


class _Writer:
    """Chooses what one report says, and in which frames."""

    def __init__(self, study: Study, language: str, seed: int, rng: Random) -> None:
        self.study, self.rng = study, rng
        self.wording = Random(f"wording {seed} {study.case.study}")
        self.slots = Slots(study, language, seed, rng)
        self.frames = _frames(language)
        self.used: list[str] = []
        self.stances = self._stances()

    def _stances(self) -> dict[str, str]:
        """How the report speaks of each finding: one way from beginning to end."""
        rng, found = self.rng, {}
        there = {self.study.case.distractor} | ({"lesion"} if self.study.case.entity else set())
        for finding in (*FINDINGS, "lesion"):
            chance = rng.random()
            if finding in there:
                doubted = chance < _DOUBTED.get(finding, 0)
                found[finding] = "uncertain" if doubted else "present"
            elif chance < _FEARED.get(finding, 0) and "fracture" not in there:
                found[finding] = "uncertain"
            elif chance > 1 - _DENIED.get(finding, 0):
                found[finding] = "absent"
        return found

    def _say(self, section: str, topic: str, polarity: str = "") -> str:
        """One sentence; what it states is noted."""
        frame = self.rng.choice(self.frames[section, topic, polarity])
        same = self.frames.get(("reworded", topic, polarity), ())  # wordings that state the same
        same = [other for other in same if _SLOT.findall(other) == _SLOT.findall(frame)]
        frame = self.wording.choice(same) if same and self.wording.random() < 0.25 else frame
        self.used.append(frame)
        for part in topic.split("+"):
            if "=" in part:
                self.slots.facts.append(("attribute", part, polarity))
            elif part in (*FINDINGS, "lesion"):
                self.slots.facts.append(("finding", part, polarity))
        self.slots.polarity = polarity
        return layout.sentence(frame.format_map(self.slots))

    def _maybe(self, chance: float, section: str, topic: str, polarity: str = "") -> list[str]:
        return [self._say(section, topic, polarity)] if self.rng.random() < chance else []

    # sections -----------------------------------------------------------------------------------

    def body(self) -> str:
        """The whole report as marked text."""
        rng, say, maybe = self.rng, self._say, self._maybe
        letterhead = {"house": 0.9, "staff": 0.5, "contact": 0.5}
        lines = [
            line for topic, share in letterhead.items() for line in maybe(share, "house", topic)
        ]
        parts = ["\n".join(lines), self._header()]
        parts += maybe(0.8, "title", "title")
        parts += maybe(0.15, "greeting", "letter")
        bare = rng.random() < 0.12  # no headings: a report in one go
        form = rng.choice(("{}\n{}", "{} :\n{}", "{} : {}", "{}:\n{}", "{}\n-----------\n{}"))
        point = rng.choice(("\n- ", "\n", " ", " ", " "))
        for section in SECTIONS:
            sentences = getattr(self, f"_{section}")()
            if not sentences:
                continue
            joint = point if section in ("findings", "conclusion") else " "
            text = ("- " if joint == "\n- " else "") + joint.join(sentences)
            heading = rng.choice(self.slots.words("heading", section))["word"]
            parts.append(text if bare else form.format(heading, text))
        parts.append("\n".join([say("closing", "sign"), *maybe(0.5, "closing", "type")]))
        return rng.choice(("\n\n", "\n\n", "\n")).join(part for part in parts if part) + "\n"

    def _header(self) -> str:
        maybe = self._maybe
        national = "national_be" if self.slots.country == "be" else "national"
        fields = []
        for topic, chance in _HEADER.items():
            if topic != "national":
                fields += maybe(chance, "header", topic)
            elif self.slots.secret("national"):  # "" where the country writes none
                fields += maybe(chance, "header", national)
        self.rng.shuffle(fields)
        name = self._say("header", "name")
        fields.insert(0 if self.rng.random() < 0.75 else self.rng.randint(0, len(fields)), name)
        return self.rng.choice(("\n", "\n", "\n", "   ", " - ")).join(fields)

    def _indication(self) -> list[str]:
        shown = self.study.case.distractor
        topic = {"fracture": "trauma", "implant": "control", "cast": "control"}.get(shown, "pain")
        if self.study.case.entity:
            topic = "tumor"
        elif topic == "pain":
            topic = self.rng.choice(("pain", "pain", "trauma", "tumor", "control"))
        extra = "family" if self.study.case.age < 30 and self.rng.random() < 0.4 else "extra"
        return self._maybe(0.93, "indication", topic) + self._maybe(0.35, "indication", extra)

    def _technique(self) -> list[str]:
        return self._maybe(0.75, "technique", "technique")

    def _comparison(self) -> list[str]:
        return self._maybe(0.45, "comparison", self.rng.choice(("prior", "none")))

    def _findings(self) -> list[str]:
        rng, stances = self.rng, dict(self.stances)
        if stances.get("lesion") == "present":
            sentences = [self._say("findings", "lesion", stances.pop("lesion"))]
        else:
            sentences = self._maybe(0.5, "findings", "filler")
        sentences += self._signs()
        both = stances.get("fracture") == stances.get("lesion") == "absent"
        if both and rng.random() < 0.5:
            del stances["fracture"], stances["lesion"]
            sentences.append(self._say("findings", "fracture+lesion", "absent"))
        sentences += [self._say("findings", *stance) for stance in stances.items()]
        sentences += self._maybe(0.35, "findings", "filler")
        return sentences

    def _signs(self) -> list[str]:
        """What is said of each sign: mostly as it is, sometimes in doubt, or what it is not."""
        rng, tumor = self.rng, bool(self.study.case.entity)
        broken = self.study.case.distractor == "fracture"  # then the cortex is not spoken of
        sentences = []
        for sign, value in self.study.signs.items():
            if broken and sign == "cortex" or not tumor and sign not in _PLAIN_BONE:
                continue
            topic = f"{sign}={value}"
            others = [
                t for s, t, p in self.frames
                if (s, p) == ("findings", "absent") and t.startswith(f"{sign}=") and t != topic
            ]  # fmt: skip
            chance = rng.random()
            if others and chance < 0.12:
                sentences.append(self._say("findings", rng.choice(others), "absent"))
            elif chance < (0.85 if tumor else 0.4):
                doubted = ("findings", topic, "uncertain") in self.frames and rng.random() < 0.15
                polarity = "uncertain" if doubted else "present"
                if ("findings", topic, polarity) in self.frames:  # margin and location may be none
                    sentences.append(self._say("findings", topic, polarity))
        rng.shuffle(sentences)
        return sentences

    def _conclusion(self) -> list[str]:
        rng, sentences, lesion = self.rng, [], self.stances.get("lesion")
        if rng.random() < 0.04:
            return []
        if lesion == "present":
            doubted = "uncertain" if rng.random() < 0.5 else "present"
            sentences.append(self._say("conclusion", "entity", doubted))
            sentences += self._maybe(0.2, "conclusion", "entity", "absent")
            sentences += self._maybe(0.6, "conclusion", "advice")
        for finding in FINDINGS:
            stance = self.stances.get(finding)
            if ("conclusion", finding, stance) in self.frames and stance != "absent":
                sentences.append(self._say("conclusion", finding, stance))
        if sentences:
            return sentences
        if lesion == "uncertain":
            return [self._say("conclusion", "advice")]
        return [self._say("conclusion", *rng.choice(_NOTHING))]


# files ------------------------------------------------------------------------------------------


def write_reports(
    folder: str | Path,
    *,
    images: int,
    archive: int = 0,
    seed: int = 0,
    languages: Sequence[str] = LANGUAGES,
) -> Path:
    """Write the reports of a synthetic cohort, whether or not its pictures are drawn.

    The same settings give the same bytes; a call that was interrupted is continued by the same
    call, and a finished folder is returned as it is.

    Args:
        images: Labelled images, as in :func:`write`; a report speaks of all images of a study.
        archive: Unlabelled images of the archive, one report each.
        languages: Of French and English, those to write in; the first is commoner in centre 1.

    Returns:
        The folder.

    Raises:
        ValueError: An unknown language, or the folder holds reports with other settings.
    """
    folder = Path(folder)
    settings = check_reports(folder, images=images, archive=archive, seed=seed, languages=languages)
    if (folder / "reports.csv").exists():
        return folder
    (folder / "reports").mkdir(parents=True, exist_ok=True)
    clear_parts(folder / "reports")
    save(folder / "reports" / _MADE, json.dumps(settings, indent=2).encode())
    cases = [*plan(images, seed), *(archive_case(seed, i) for i in range(archive))]
    index, facts = [], []
    for study in studies(cases):
        report = compose(study, seed=seed, languages=languages)
        for ending, content in ((".ann", report.brat), (".txt", report.text)):
            target = folder / "reports" / f"{report.study}{ending}"
            if not target.exists():
                save(target, content.encode())
        index.append(report.index)
        facts += [(report.study, *fact) for fact in report.facts]
    save_table(folder / "reports" / "facts.csv", facts, FACT_COLUMNS)
    save_table(folder / "reports.csv", index)
    return folder


def check_reports(
    folder: Path, *, images: int, archive: int, seed: int, languages: Sequence[str]
) -> dict:
    """Return the settings of a folder's reports.

    Raises:
        ValueError: An unknown language, or the folder holds reports with other settings.
    """
    kept = {"seed": seed, "images": images, "archive": archive, "languages": list(languages)}
    settings = {"synthetic": True, "version": VERSION, **kept}
    problems = []
    if not languages or set(languages) - set(LANGUAGES):
        problems.append(f"languages is {list(languages)}; choose of {', '.join(LANGUAGES)}.")
    made = folder / "reports" / _MADE
    if told := other_settings(made, settings):
        problems.append(f"{folder} holds reports with {told}. Choose another folder.")
    elif not made.exists() and (folder / "reports.csv").exists():
        problems.append(f"{folder} already holds reports that phantom did not write.")
    if problems:
        raise ValueError(" ".join(problems))
    return settings
