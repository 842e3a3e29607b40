"""What stands in the slots of a report's sentences: facts of the study, and its people.

A slot is asked for by its name and answers with words. Slots that state a fact note it, so that the
facts of a report are those its sentences state; slots that name somebody mark the stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from itertools import groupby
from random import Random

from . import identities
from .acquisition import describe
from .files import rows
from .identities import Person
from .layout import mark, sentence
from .lesions import ENTITIES
from .sampling import Case
from .signs import untouched

CLASS_OF = {kind: entity for entity, kinds in ENTITIES.items() for kind in kinds}
ADULT = 16  # years: older patients are men and women


@dataclass(frozen=True)
class Study:
    """The images of one examination, all of one patient and lesion, and what is true of them."""

    cases: tuple[Case, ...]
    signs: dict[str, str]  # those that all its images share
    kind: str  # the diagnosis, "none" in a normal

    @property
    def case(self) -> Case:
        """The first image."""
        return self.cases[0]

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites in the terms of the cohort, joints without their suffix."""
        return tuple(sorted(site.removesuffix("-joint") for site in self.case.sites))

    @property
    def views(self) -> tuple[str, ...]:
        """The views that were taken, in order."""
        return tuple(dict.fromkeys(case.view for case in self.cases))


def studies(cases: Iterable[Case]) -> Iterator[Study]:
    """Gather the images of each study, which stand in neighbouring rows."""
    for _, group in groupby(cases, key=lambda case: case.study):
        images = tuple(group)
        if not images[0].entity:
            yield Study(images, untouched(), "none")
            continue
        first, *others = (describe(case) for case in images)
        # a sign that the images don't share is not one of the study
        signs = {s: v for s, v in first.items() if all(other[s] == v for other in others)}
        yield Study(images, signs, signs.pop("kind"))


@cache
def house(seed: int, country: str, center: int, number: int) -> dict[str, str | list[Person]]:
    """One of the institutions of a centre: the same letterhead and doctors return."""
    rng = Random(f"house {seed} {country} {center} {number}")
    held = {}
    held["institution"], held["house_place"] = identities.institution(country, rng)
    held["house_town"] = identities.town(country, rng)[1]
    held["house_street"] = identities.street(country, rng)
    held["phone"], held["fax"] = (identities.phone(country, rng) for _ in range(2))
    for group, count in (("radiologists", 6), ("referrers", 12)):
        held[group] = [identities.person(country, rng.choice("FM"), rng) for _ in range(count)]
    return held


@cache
def labels() -> dict[str, str]:
    """Kinds of identity by slot."""
    return {row["slot"]: row["label"] for row in rows("slots.csv")}


class Slots:
    """Answers for one report; give it to ``str.format_map``.

    Attributes:
        facts: (kind, value, polarity) of what was stated, in the order of the text.
        polarity: Of the sentence being written; the caller sets it.
    """

    def __init__(self, study: Study, language: str, seed: int, rng: Random) -> None:
        """Invent the people and numbers of a report."""
        case = study.case
        self.study, self.language, self.rng = study, language, rng
        self.country = country = identities.pick(identities.COUNTRIES[language], rng)
        letterhead = house(seed, country, case.center, rng.randrange(3))
        self.facts: list[tuple[str, str, str]] = []
        self.polarity = ""
        self.date = date(2021, 1, 1) + timedelta(days=rng.randrange(1095))
        birthday = date(self.date.year - case.age, self.date.month, min(self.date.day, 28))
        self.birth = birthday - timedelta(days=rng.randrange(365))
        self.patient = identities.person(country, case.sex, rng)
        self.accession = identities.accession_number(self.date, rng)
        self._form = rng.randrange(12)  # one way of writing sites, sides and views in a report
        self._who = f"{case.sex} {'adult' if case.age >= ADULT else 'child'}"
        self._identities = self._invent(letterhead)
        self._facts: dict[str, Callable[[], str]] = {
            "place": self._place,
            "of_place": lambda: self._place(of=True),
            "views": self._views,
            "entity": lambda: self._entity(study.kind),
            "an_entity": lambda: self._entity(study.kind, "an"),
            "of_entity": lambda: self._entity(study.kind, "of"),
            "other_entity": lambda: self._entity(self._other()),
            "a_not_entity": lambda: self._entity(self._stranger(), "an"),
            "of_not_entity": lambda: self._entity(self._stranger(), "of"),
        }

    def __getitem__(self, slot: str) -> str:
        """Words for a slot; a capital first letter of its name asks for one in the words."""
        name = slot[0].lower() + slot[1:]
        if name == "patient":
            text = self._patient()
        elif name in self._facts:
            text = self._facts[name]()
        elif name in labels():
            text = mark(labels()[name], self.secret(name))
        else:
            text = self._grammar(name)
        return sentence(text) if slot != name else text

    # who ----------------------------------------------------------------------------------------

    def _invent(self, letterhead: dict) -> dict[str, str | Person | tuple[str, date]]:
        """What stands in each slot; people and dates take another form each time they are named."""
        rng, country = self.rng, self.country
        held = dict(letterhead)
        doctors = rng.sample(held["radiologists"], 3)
        held["radiologist"], held["colleague"], held["colleague2"] = doctors
        held["referrer"] = rng.choice(held["referrers"])
        held["prior_doctor"] = identities.person(country, rng.choice("FM"), rng)
        last = self.patient.last if rng.random() < 0.5 else ""
        held["relative"] = identities.person(country, rng.choice("FM"), rng, last=last)
        held["mother"] = identities.person(country, "F", rng, last=last)
        held["uncle"] = identities.person(country, "M", rng, last=last)
        held["brother"] = identities.person(country, "M", rng).first
        held["prior_institution"], held["prior_town"] = identities.institution(country, rng)
        day = max(self.birth, self.date - timedelta(days=rng.randint(20, 900)))
        held["patient_town"] = identities.town(country, rng)[1]
        held["patient_phone"] = identities.phone(country, rng)
        held["old_age"] = str(rng.randint(90, 102))
        held["house_mail"] = identities.mail(doctors[0], held["institution"], rng)
        held["web"] = identities.web(held["institution"], rng)
        held["other_street"] = identities.street(country, rng)
        held["other_town"] = identities.town(country, rng)[1]
        held["other_phone"] = identities.phone(country, rng)
        held["other_mail"] = identities.mail(held["referrer"], held["prior_institution"], rng)
        held["patient_street"] = identities.street(country, rng)
        held["patient_mail"] = identities.mail(self.patient, "webmail", rng)
        held["record"] = identities.record_number(rng)
        sex, birth = self.patient.sex, self.birth
        held["national"] = identities.national_number(country, sex, birth, rng)
        held["accession"], held["name"] = self.accession, self.patient
        held["initials"] = doctors[0].first[0] + doctors[0].last[0].upper()
        held["initials2"] = (doctors[1].first[0] + doctors[1].last[0]).lower()
        held["birth"], held["date"] = ("date", birth), ("date", self.date)
        held["prior"], held["partial"] = ("date", day), ("partial date", day)
        return held

    def secret(self, name: str) -> str:
        """The words of a slot that names somebody or something of theirs."""
        held = self._identities[name]
        if isinstance(held, Person):
            return held.written("name in text", self.rng)
        if isinstance(held, tuple):
            kind, day = held
            return identities.written_date(day, self.country, self.rng, kind=kind)
        return held

    def _patient(self) -> str:
        """The patient's name as a header has it, already marked."""
        first, last, maiden = self.patient.first, self.patient.last, self.patient.maiden
        if maiden and self.rng.random() < 0.6:
            born = self.rng.choice(("née", "née", "nee"))
            one, two = self.rng.choice(
                ((f"{last.upper()} {first}", maiden.upper()), (f"{first} {last}", maiden))
            )
            return f"{mark('PATIENT', one)} {born} {mark('PATIENT', two)}"
        return mark("PATIENT", self.patient.written("name in header", self.rng))

    # what ---------------------------------------------------------------------------------------

    def words(self, kind: str, value: str) -> list[dict[str, str]]:
        """Rows of the word bank in the language of the report."""
        return rows("words.csv", text=True, language=self.language, kind=kind, value=value)

    def _names(self) -> tuple[list[dict[str, str]], str]:
        """Rows of the sites and the word for the side, both stated."""
        named = [self._in_form(self.words("site", site)) for site in self.study.sites]
        self.facts += [("site", site, "present") for site in self.study.sites]
        side = self.study.case.side
        genders = ("", named[0]["gender"] if len(named) == 1 else "m")
        options = [r for r in self.words("side", side) if r["gender"] in genders]
        self.facts.append(("side", side, "present"))
        return named, self._in_form(options)["word"]

    def _in_form(self, options: list[dict[str, str]]) -> dict[str, str]:
        """The row of a word that this report keeps to."""
        return options[self._form % len(options)]

    def _place(self, *, of: bool = False) -> str:
        named, side = self._names()
        if self.language == "en":
            return f"{'of the ' if of else ''}{side} {_joined([r['word'] for r in named], 'and')}"
        joined = _joined([(row["form"] if of else "") + row["word"] for row in named], "et")
        if len(named) == 1:
            return f"{joined} {side}"
        return f"{joined}, côté {side}" if of else f"{joined} (côté {side})"

    def _views(self) -> str:
        found = [self._in_form(self.words("view", view))["word"] for view in self.study.views]
        self.facts += [("view", view, "present") for view in self.study.views]
        return _joined(found, "and" if self.language == "en" else "et")

    def _entity(self, kind: str, article: str = "") -> str:
        """A diagnosis as such, with its article ("an") or with French "de" before it ("of")."""
        self.facts.append(("entity", CLASS_OF[kind], self.polarity))
        row = self.rng.choice(self.words("entity", kind))
        word = row["form"] + row["word"] if article else row["word"]
        if article != "of":
            return word
        return f"de {row['word']}" if row["form"] == "des " else f"d'{word}"

    def _other(self) -> str:
        options = rows("words.csv", text=True, kind="differential", value=self.study.kind)
        return self.rng.choice(options)["word"]

    def _stranger(self) -> str:
        """A diagnosis of a class that is not this study's, and of which nothing was said."""
        taken = {value for kind, value, _ in self.facts if kind == "entity"}
        taken.add(self.study.case.entity)
        return self.rng.choice([k for k, entity in CLASS_OF.items() if entity not in taken])

    def _grammar(self, name: str) -> str:
        case, female = self.study.case, self.study.case.sex == "F"
        if name in ("person", "un_person", "title"):
            word = self.words(name.removeprefix("un_"), self._who)[self._form % 2 - 1]["word"]
            return f"{'une' if female else 'un'} {word}" if name == "un_person" else word
        if name == "years" and self.language == "fr":
            return f"{case.age} {'an' if case.age == 1 else 'ans'}"
        return {
            "years": f"{case.age}-year-old",
            "sex": case.sex,
            "e": "e" if female else "",
            "his": "her" if female else "his",
        }[name]


def _joined(parts: list[str], last: str) -> str:
    return f" {last} ".join([", ".join(parts[:-1])] * (len(parts) > 1) + parts[-1:])
