"""What stands in the slots of a report's sentences: facts of the study, and its people.

A slot is asked for by its name and answers with words. Slots that state a fact note it, so that the
facts of a report are those its sentences state; slots that name somebody mark the stretch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from random import Random

from . import dates, identities
from .entities import ENTITIES
from .identities import Person
from .layout import mark, sentence
from .sampling import Case

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


@dataclass(frozen=True)
class House:
    """An institution with its address and the people who report there."""

    name: str
    place: str
    street: str
    town: str
    phone: str
    fax: str
    radiologists: tuple[Person, ...]
    referrers: tuple[Person, ...]


@lru_cache(maxsize=256)
def house(seed: int, country: str, center: int, number: int) -> House:
    """One of the institutions of a centre: the same letterhead and doctors return."""
    rng = Random(f"house {seed} {country} {center} {number}")
    name, place = identities.institution(country, rng)
    town = identities.town(country, rng)

    def staff(count: int) -> tuple[Person, ...]:
        return tuple(identities.person(country, rng.choice("FM"), rng) for _ in range(count))

    return House(
        name, place, identities.street(country, rng), identities.town_line(country, *town),
        identities.phone(country, rng), identities.phone(country, rng), staff(6), staff(12),
    )  # fmt: skip


@lru_cache(maxsize=1)
def words() -> dict[tuple[str, str, str], list[dict[str, str]]]:
    """Rows of ``words.csv`` by language, kind and value."""
    found: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in identities.read_csv("words.csv"):
        found.setdefault((row["language"], row["kind"], row["value"]), []).append(row)
    return found


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
        self.house = house(seed, country, case.center, rng.randrange(3))
        self.facts: list[tuple[str, str, str]] = []
        self.polarity = ""
        self.date = date(2021, 1, 1) + timedelta(days=rng.randrange(1095))
        birthday = date(self.date.year - case.age, self.date.month, min(self.date.day, 28))
        self.birth = birthday - timedelta(days=rng.randrange(365))
        self.patient = identities.person(country, case.sex, rng)
        self.accession = identities.accession_number(self.date, rng)
        self._form = rng.randrange(12)  # one way of writing sites, sides and views in a report
        grown = "adult" if case.age >= ADULT else "child"
        self._who = f"{case.sex} {grown}"
        self._identities = self._invent()
        self._facts: dict[str, Callable[[], str]] = {
            "place": self._place,
            "of_place": self._of_place,
            "views": self._views,
            "entity": lambda: self._entity(study.kind)["word"],
            "an_entity": lambda: self._an(study.kind),
            "of_entity": lambda: self._of(study.kind),
            "other_entity": lambda: self._entity(self._other())["word"],
            "a_not_entity": lambda: self._an(self._stranger()),
            "of_not_entity": lambda: self._of(self._stranger()),
        }

    def __getitem__(self, slot: str) -> str:
        """Words for a slot; a capital first letter of its name asks for one in the words."""
        name = slot[0].lower() + slot[1:]
        if name == "patient":
            text = self._patient()
        elif name in self._facts:
            text = self._facts[name]()
        elif name in self._identities:
            label, write = self._identities[name]
            text = mark(label, write())
        else:
            text = self._grammar(name)
        return sentence(text) if slot != name else text

    # who ----------------------------------------------------------------------------------------

    def _invent(self) -> dict[str, tuple[str, Callable[[], str]]]:
        rng, country, house_ = self.rng, self.country, self.house
        radiologist, colleague, colleague2 = rng.sample(house_.radiologists, 3)
        referrer = rng.choice(house_.referrers)
        prior_doctor = identities.person(country, rng.choice("FM"), rng)
        last = self.patient.last if rng.random() < 0.5 else ""
        relative = identities.person(country, rng.choice("FM"), rng, last=last)
        mother = identities.person(country, "F", rng, last=last)
        uncle = identities.person(country, "M", rng, last=last)
        brother = identities.person(country, "M", rng).first
        prior_house, prior_place = identities.institution(country, rng)
        day = max(self.birth, self.date - timedelta(days=rng.randint(20, 900)))
        home = identities.town_line(country, *identities.town(country, rng))
        own = identities.phone(country, rng)
        old = rng.randint(90, 102)
        constant = {
            "institution": ("INSTITUTION", house_.name),
            "house_place": ("LOCATION", house_.place),
            "house_street": ("LOCATION", house_.street),
            "house_town": ("LOCATION", house_.town),
            "phone": ("PHONE", house_.phone),
            "fax": ("PHONE", house_.fax),
            "house_mail": ("URL", identities.mail(radiologist, house_.name, rng)),
            "web": ("URL", identities.web(house_.name, rng)),
            "prior_institution": ("INSTITUTION", prior_house),
            "prior_town": ("LOCATION", prior_place),
            "other_street": ("LOCATION", identities.street(country, rng)),
            "other_town": (
                "LOCATION",
                identities.town_line(country, *identities.town(country, rng)),
            ),
            "other_phone": ("PHONE", identities.phone(country, rng)),
            "other_mail": ("URL", identities.mail(referrer, prior_house, rng)),
            "patient_street": ("LOCATION", identities.street(country, rng)),
            "patient_town": ("LOCATION", home),
            "patient_phone": ("PHONE", own),
            "patient_mail": ("URL", identities.mail(self.patient, "webmail", rng)),
            "record": ("ID", identities.record_number(rng)),
            "accession": ("ID", self.accession),
            "national": (
                "NATIONAL_ID",
                identities.national_number(country, self.patient.sex, self.birth, rng),
            ),
            "brother": ("PERSON", brother),
            "old_age": ("AGE", str(old)),
            "initials": ("PERSON", radiologist.first[0] + radiologist.last[0].upper()),
            "initials2": ("PERSON", (colleague.first[0] + colleague.last[0]).lower()),
        }
        found: dict[str, tuple[str, Callable[[], str]]] = {
            slot: (label, lambda value=value: value) for slot, (label, value) in constant.items()
        }
        people = {
            "radiologist": radiologist, "colleague": colleague, "colleague2": colleague2,
            "referrer": referrer, "prior_doctor": prior_doctor, "relative": relative,
            "mother": mother, "uncle": uncle,
        }  # fmt: skip
        for slot, somebody in people.items():
            found[slot] = ("PERSON", lambda p=somebody: self._named(p))
        found["name"] = ("PATIENT", lambda: self._named(self.patient))
        found["birth"] = ("DATE", lambda: dates.written(self.birth, country, rng))
        found["date"] = ("DATE", lambda: dates.written(self.date, country, rng))
        found["prior"] = ("DATE", lambda: dates.written(day, country, rng))
        found["partial"] = ("DATE", lambda: dates.partial(day, country, rng))
        return found

    def _named(self, who: Person) -> str:
        """A name as running text has it."""
        first, last = who.first, who.last
        forms = (last, last.upper(), f"{first} {last}", f"{first} {last.upper()}",
                 f"{first[0]}. {last}", f"{last.upper()} {first}", f"{first[0]}.{last.upper()}",
                 f"{first} {last}")  # fmt: skip
        return self.rng.choice(forms)

    def _patient(self) -> str:
        """The patient's name as a header has it, already marked."""
        first, last, maiden = self.patient.first, self.patient.last, self.patient.maiden
        if maiden and self.rng.random() < 0.6:
            born = self.rng.choice(("née", "née", "nee"))
            one, two = self.rng.choice(
                ((f"{last.upper()} {first}", maiden.upper()), (f"{first} {last}", maiden))
            )
            return f"{mark('PATIENT', one)} {born} {mark('PATIENT', two)}"
        big = last.upper()
        forms = (
            f"{big} {first}", f"{first} {big}", f"{last}, {first}", f"{big}, {first.upper()}",
            f"{first} {last}", f"{big} {first.upper()}", f"{big}  {first}", f"{last} {first}",
            f"{identities.plain(big)}^{first}",
        )  # fmt: skip
        return mark("PATIENT", self.rng.choice(forms))

    @property
    def identified(self) -> bool:
        """Whether the country writes national numbers in reports."""
        return bool(self._identities["national"][1]())

    # what ---------------------------------------------------------------------------------------

    def rows(self, kind: str, value: str) -> list[dict[str, str]]:
        """Rows of the word bank in the language of the report."""
        return words()[self.language, kind, value]

    def _state(self, kind: str, value: str, polarity: str = "present") -> None:
        self.facts.append((kind, value, polarity))

    def _names(self) -> tuple[list[dict[str, str]], str]:
        """Rows of the sites and the word for the side, both stated."""
        rows = []
        for site in self.study.sites:
            options = self.rows("site", site)
            rows.append(options[self._form % len(options)])
            self._state("site", site)
        side = self.study.case.side
        genders = ("", rows[0]["gender"] if len(rows) == 1 else "m")
        options = [r for r in self.rows("side", side) if r["gender"] in genders]
        self._state("side", side)
        return rows, options[self._form % len(options)]["word"]

    def _place(self) -> str:
        rows, side = self._names()
        if self.language == "en":
            return f"{side} {_joined([r['word'] for r in rows], 'and')}"
        joined = _joined([r["word"] for r in rows], "et")
        return f"{joined} {side}" if len(rows) == 1 else f"{joined} (côté {side})"

    def _of_place(self) -> str:
        if self.language == "en":
            return f"of the {self._place()}"
        rows, side = self._names()
        joined = _joined([r["form"] + r["word"] for r in rows], "et")
        return f"{joined} {side}" if len(rows) == 1 else f"{joined}, côté {side}"

    def _views(self) -> str:
        found = []
        for view in self.study.views:
            options = self.rows("view", view)
            found.append(options[self._form % len(options)]["word"])
            self._state("view", view)
        return _joined(found, "and" if self.language == "en" else "et")

    def _entity(self, kind: str) -> dict[str, str]:
        self._state("entity", CLASS_OF[kind], self.polarity)
        return self.rng.choice(self.rows("entity", kind))

    def _an(self, kind: str) -> str:
        row = self._entity(kind)
        return row["form"] + row["word"]

    def _of(self, kind: str) -> str:
        row = self._entity(kind)
        return f"de {row['word']}" if row["form"] == "des " else f"d'{row['form']}{row['word']}"

    def _other(self) -> str:
        return self.rng.choice(words()["", "differential", self.study.kind])["word"]

    def _stranger(self) -> str:
        """A diagnosis of a class that is not this study's, and of which nothing was said."""
        taken = {value for kind, value, _ in self.facts if kind == "entity"}
        taken.add(self.study.case.entity)
        return self.rng.choice([k for k, entity in CLASS_OF.items() if entity not in taken])

    def _grammar(self, name: str) -> str:
        case, french = self.study.case, self.language == "fr"
        female = case.sex == "F"
        person = self.rows("person", self._who)[self._form % 2 - 1]["word"]
        if name == "years" and french:
            return f"{case.age} {'an' if case.age == 1 else 'ans'}"
        return {
            "years": f"{case.age}-year-old",
            "person": person,
            "un_person": f"{'une' if female else 'un'} {person}",
            "title": self.rows("title", self._who)[self._form % 2 - 1]["word"],
            "sex": case.sex,
            "e": "e" if female else "",
            "his": "her" if female else "his",
        }[name]


def _joined(parts: list[str], last: str) -> str:
    return f" {last} ".join([", ".join(parts[:-1])] * (len(parts) > 1) + parts[-1:])
