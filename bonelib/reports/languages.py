"""What a language brings: its table of cues, its lexicons, and how words are compared.

A language is the rows of ``words.csv`` (cues, triggers, eponyms, headings), those of
``vocabulary.csv`` (terms of the facts) and the ``locale`` rows, which name Faker providers. German
or Dutch is such rows and no code. Medical words and verbs come from edsnlp (Assistance Publique,
Hôpitaux de Paris), other words from simplemma's dictionaries, stop words from spaCy, names and
towns from Faker.
"""

import csv
import gzip
import importlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from bonelib.reports.pages import fold, pieces

HERE = Path(__file__).parent


class Spelling:
    """Rights a word that misspells one of a list by one letter: lost, added, changed or swapped.

    The first letter must be right: "opaque" is no "plaque".
    """

    def __init__(self, words: Iterable[str], *, least: int = 5) -> None:
        self.least = least
        self.known = sorted({w for w in words if len(w) >= least and w.isalpha()})
        self.most = max(map(len, self.known), default=0) + 1
        self.left = {part: word for word in self.known for part in _shorter(word)}
        self.left |= {word: word for word in self.known}  # no plural in the place of a word

    def right(self, word: str) -> str:
        """Return the word that is meant, or the same word if none is near."""
        if not self.least <= len(word) <= self.most or not word.isalpha():
            return word
        found = (self.left[part] for part in (word, *_shorter(word)) if part in self.left)
        return next((right for right in found if right[0] == word[0]), word)


def _shorter(word: str) -> list[str]:
    return [word[:i] + word[i + 1 :] for i in range(len(word))]


@dataclass(frozen=True)
class Phrase:
    """A term of a table: its tokens, what it is, and the value it stands for."""

    tokens: tuple[str, ...]
    kind: str
    value: str


class Phrases:
    """Find the terms of tables in tokens: the longest from each place, by their first word."""

    def __init__(self, rows: Iterable[tuple[str, str, str]]) -> None:
        self.first: dict[str, list[Phrase]] = {}
        for term, kind, value in rows:
            tokens = pieces(term)
            if tokens:
                self.first.setdefault(tokens[0], []).append(Phrase(tokens, kind, value))
        for phrases in self.first.values():
            phrases.sort(key=lambda phrase: -len(phrase.tokens))

    def all(self, words: Sequence[str], index: int) -> Iterator[Phrase]:
        """Yield the terms that begin at ``index``, the longest first."""
        for phrase in self.first.get(words[index], ()):
            size = len(phrase.tokens)
            if size == 1 or tuple(words[index : index + size]) == phrase.tokens:
                yield phrase

    def at(self, words: Sequence[str], index: int) -> Phrase | None:
        """Return the longest term that begins at ``index``, or None."""
        return next(self.all(words, index), None)


@dataclass(frozen=True, eq=False)
class Language:
    """The tables of one language; made by :func:`language`.

    Attributes:
        terms: For each kind of ``words.csv``, its terms (folded) with their values.
        cues: The terms that tell an identity, ready to be found; spelling: of their words.
        given, family, towns: First names, surnames and one-word towns of the lexicons, folded.
        stops: Function words and verbs. words: All that is language, not a name; usual: those of
            reports, which a word one letter away may mean.
    """

    name: str
    terms: dict[str, dict[str, str]]
    cues: Phrases
    vocabulary: Phrases
    spelling: Spelling
    given: frozenset[str]
    family: frozenset[str]
    towns: frozenset[str]
    stops: frozenset[str]
    function: frozenset[str]
    words: frozenset[str]
    usual: frozenset[str]
    locales: tuple[str, ...] = field(default=())

    def kind(self, kind: str) -> dict[str, str]:
        """Return the terms of one kind, folded, with their values; empty if there are none."""
        return self.terms.get(kind, {})

    def misspelt(self, word: str) -> bool:
        """Whether a folded word is one letter away from a word of the language."""
        if not 6 <= len(word) <= 40 or word in self.given or word in self.family:
            return False
        parts = [(word[:i], word[i:]) for i in range(len(word) + 1)]
        near = {a + b[1:] for a, b in parts if b}
        near |= {a + b[1] + b[0] + b[2:] for a, b in parts if len(b) > 1}
        near |= {a + c + b[1:] for a, b in parts if b for c in LETTERS}
        near |= {a + c + b for a, b in parts for c in LETTERS}
        return not near.isdisjoint(self.usual)


LETTERS = "abcdefghijklmnopqrstuvwxyz"
CUES = (
    "title_patient", "title_person", "label_patient", "label_person", "label_place",
    "label_institution", "relation", "weak", "signed", "role", "typist", "born", "credential",
    "street", "street_after", "institution", "institution_after", "place",
)  # fmt: skip


def names(path: Path | None = None) -> tuple[str, ...]:
    """List the languages that the table of cues knows."""
    return tuple(sorted({row["language"] for row in _rows(path or HERE / "words.csv")} - {"*"}))


@lru_cache(maxsize=8)
def language(name: str, *, words: Path | None = None, vocabulary: Path | None = None) -> Language:
    """Load the tables and lexicons of a language; about two seconds the first time.

    Args:
        name: ``fr`` or ``en``, or a language whose rows you have added.
        words: Another table of cues (``language,kind,term,value``; ``*`` is every language).
        vocabulary: Another table of facts (``language,term,kind,value``).

    Raises:
        ValueError: The table has no rows of that language.
    """
    words, vocabulary = words or HERE / "words.csv", vocabulary or HERE / "vocabulary.csv"
    if name not in names(words):
        raise ValueError(f"Unknown language {name!r}. {words.name} has {', '.join(names(words))}.")
    terms: dict[str, dict[str, str]] = {}
    for row in _rows(words):
        if row["language"] in (name, "*"):
            for term in row["term"].split("|"):
                folded = term if row["kind"].endswith(("locale", "written")) else fold(term.strip())
                terms.setdefault(row["kind"], {})[folded] = row["value"]
    facts = [row for row in _rows(vocabulary) if row["language"] == name]
    locales = tuple(terms.get("locale", ()))
    given, family, towns = lexicon(locales, tuple(terms.get("town_locale", ())))
    towns |= frozenset(terms.get("town", ()))
    further = lexicon(tuple(terms.get("further_locale", ())), ())
    function, verbs, medical = _language_words(name)
    stops = frozenset(function | verbs | set(terms.get("stop", ())))
    own = {
        token
        for kind, table in terms.items()
        if not kind.endswith("locale") and kind not in ("eponym", "particle", "town", "name_too")
        for term in table
        for token in pieces(term)
    }
    own |= {token for row in facts for token in pieces(row["term"])}
    own -= set(terms.get("name_too", ()))  # words of cues that are names first: "walker", "mills"
    usual = frozenset(stops | medical | own)
    known = usual | _dictionary(name) - given - family - towns
    given |= {
        name for name in further[0] - usual if len(name) > 4
    }  # names of other countries, where reports use them as no word
    family |= {name for name in further[1] - usual if len(name) > 4}
    return Language(
        name,
        terms,
        Phrases((t, k, v) for k in CUES for t, v in terms.get(k, {}).items()),
        Phrases((row["term"], row["kind"], row["value"]) for row in facts),
        Spelling(t for k in CUES for term in terms.get(k, {}) for t in pieces(term)),
        given,
        family,
        towns,
        stops,
        frozenset(function | set(terms.get("stop", ()))),
        known,
        usual,
        locales,
    )


@lru_cache(maxsize=8)
def months(language: Language) -> dict[str, int]:
    """Return the month names, those of the table and each beginning of three letters or more."""
    table = {name: int(value) for name, value in language.kind("month").items()}
    short: dict[str, set[int]] = {}
    for name, value in table.items():
        for size in range(3, len(name)):
            short.setdefault(name[:size], set()).add(value)
    return {name: min(values) for name, values in short.items() if len(values) == 1} | table


def number(words: str, language: Language) -> int:
    """Read a number in words: "deux mille vingt et un" is 2021, "nineteen eighty-five" 1985."""
    table = language.kind("number")
    total = current = 0
    for word in re.findall(r"[^\W_]+", fold(words)):
        value = int(table.get(word, 0))
        if value == 1000:
            total, current = total + max(current, 1) * 1000, 0
        elif value == 100:
            current = max(current, 1) * 100
        elif value == 20 and current % 100 == 4:  # quatre-vingts
            current += 76
        elif 10 <= value < 100 and 10 <= current <= 20 and not total:
            current = current * 100 + value  # nineteen eighty, twenty twenty
        else:
            current += value
    return total + current


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def provider(kind: str, locale: str) -> type | None:
    """Return a Faker provider (``person``, ``address``) of a locale, None where it has none."""
    name = f"faker.providers.{kind}.{locale}"
    try:
        if importlib.util.find_spec(name) is None:
            return None
        return importlib.import_module(name).Provider
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}. Install it with: pip install -c requirements.lock -e '.[reports]'"
        ) from None


@lru_cache(maxsize=8)
def lexicon(
    locales: tuple[str, ...], places: tuple[str, ...]
) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return first names, surnames and towns of Faker's locales: single folded words.

    Names of several words give their words of three letters and more; of towns only those of one
    word are kept, since "Saint" or "sur" alone is no town.
    """
    given: set[str] = set()
    family: set[str] = set()
    towns: set[str] = set()
    for locale in locales:
        person, address = provider("person", locale), provider("address", locale)
        for name in vars(person) if person else ():
            into = given if name.startswith("first_names") else family
            if name.startswith("first_names") or name.endswith("last_names"):
                for entry in getattr(person, name):
                    into |= {t for t in pieces(str(entry)) if len(t) > 2}
        for name in ("cities", "wilayas", "concelhos") if locale in places else ():
            for entry in getattr(address, name, ()):
                found = pieces(entry if isinstance(entry, str) else str(entry[-1]))
                if len(found) == 1 and len(found[0]) > 3:
                    towns.add(found[0])
    return frozenset(given), frozenset(family), frozenset(towns)


@lru_cache(maxsize=8)
def _language_words(name: str) -> tuple[set[str], set[str], set[str]]:
    """Return function words, verbs and medical words, folded."""
    try:
        stop = importlib.import_module(f"spacy.lang.{name}.stop_words").STOP_WORDS
        resources = Path(importlib.util.find_spec("edsnlp").origin).parent / "resources"
        lorem = importlib.import_module("faker.providers.lorem")
        importlib.import_module("simplemma")
    except (ModuleNotFoundError, AttributeError) as error:
        raise ModuleNotFoundError(
            f"{error}. Install it with: pip install -c requirements.lock -e '.[reports]'"
        ) from None
    function = {token for word in stop for token in pieces(word)}
    verbs: set[str] = set()
    medical: set[str] = set()
    for locale in _same(name, Path(lorem.__file__).parent):
        words = importlib.import_module(f"faker.providers.lorem.{locale}").Provider.word_list
        medical |= {token for word in words for token in pieces(word)}
    if name == "fr":  # edsnlp's verbs and its labels of the ICD are French
        with gzip.open(resources / "cim10.csv.gz", "rt", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                # A capital inside a label is an eponym or a place, which `words` must not hold.
                found = re.findall(r"(?<![\w])[^\W\d_A-ZÀ-Þ]\w+", row["long"])
                medical |= {fold(word) for word in found}
        with gzip.open(resources / "verbs.csv.gz", "rt", encoding="utf-8") as file:
            verbs = {sys.intern(fold(row["term"])) for row in csv.DictReader(file)}
    drugs = json.loads((resources / "drugs.json").read_text(encoding="utf-8"))
    medical |= {t for terms in drugs.values() for term in terms for t in pieces(term) if len(t) > 4}
    folder = Path(importlib.import_module("faker.providers.address").__file__).parent
    for locale in _same(name, folder):
        lands = getattr(provider("address", locale), "countries", ())
        medical |= {token for land in lands for token in pieces(land) if len(token) > 3}
    return function, verbs, medical


def _dictionary(name: str) -> set[str]:
    """Return the words of a language, folded, without what is written with a capital."""
    from simplemma.strategies.dictionaries import DefaultDictionaryFactory

    forms = DefaultDictionaryFactory().get_dictionary(name)
    return {fold(form) for form, lemma in forms.items() if form.islower() and lemma.islower()}


def _same(name: str, folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob(f"{name}_*") if (p / "__init__.py").exists())
