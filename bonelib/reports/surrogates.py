"""Surrogates: fictitious names, places, dates and numbers that read like the ones they replace.

"Hiding in plain sight" (Carrell et al. 2013, JAMIA 20:342): what a finder misses is lost among what
it replaced. A surrogate is drawn from the words themselves with a secret key (HMAC-SHA-256), so the
same name of a patient gives the same surrogate in every report, in any order, without a table in
memory; another patient gets another. Names and towns come from Faker. Dates move by one offset a
patient; e-mail and web addresses become ones of example.org (RFC 2606).
"""

import hashlib
import hmac
import re
from collections.abc import Set
from functools import lru_cache

from bonelib.reports import dates
from bonelib.reports.identities import (
    AGE,
    DATE,
    ID,
    NATIONAL_ID,
    PATIENT,
    PERSON,
    PHONE,
    URL,
)  # fmt: skip
from bonelib.reports.languages import TOKEN, Language, fold, provider
from bonelib.reports.numbers import POSTCODE, valid_nhs, valid_nir, valid_niss
from bonelib.reports.walk import Span

DAYS = (-1000, 1000)  # as in the published French port (Englebert et al. 2024)


@lru_cache(maxsize=8)
def _pools(language: Language) -> dict[str, tuple[str, ...]]:
    """Return what surrogates are drawn from: one-word names and towns of the first locales."""
    pools: dict[str, set[str]] = {"female": set(), "male": set(), "family": set(), "town": set()}
    for locale in language.kind("surrogate_locale"):
        person = provider("person", locale)
        for pool, attribute in (
            ("female", "first_names_female"),
            ("male", "first_names_male"),
            ("family", "last_names"),
        ):
            pools[pool] |= {str(n) for n in getattr(person, attribute, ())}
    for locale in language.kind("town_locale"):
        address = provider("address", locale)
        pools["town"] |= {str(n) for n in getattr(address, "cities", ())}
    return {
        name: tuple(sorted(w for w in pool if w.isalpha() and len(w) > 3 and fold(w).isascii()))
        for name, pool in pools.items()
    }


class Surrogates:
    """Draws the surrogates of one patient.

    Args:
        key: Secret; whoever has it and the reports can undo nothing but can test guesses, so it is
            kept with the ledger.
        patient: What names the patient in the index.
        days: Smallest and largest number of days by which dates move; 0 is never drawn.
        avoid: Folded words that no surrogate may be: the identities known of the patient.

    Raises:
        ValueError: An empty key, or a range without a day to move by.
    """

    def __init__(
        self,
        language: Language,
        *,
        key: bytes,
        patient: str,
        days: tuple[int, int] = DAYS,
        avoid: Set[str] = frozenset(),
    ) -> None:
        low, high = days
        if not key or low > high or (low, high) == (0, 0):
            raise ValueError(f"Surrogates need a key and a range of days, found {days}.")
        self.language, self.key, self.patient = language, key, str(patient)
        self.avoid = set(avoid)
        choices = high - low + (0 if low <= 0 <= high else 1)
        self.days = low + self.draw("days") % choices
        if low <= 0 <= high and self.days >= 0:
            self.days += 1

    def draw(self, *what: str) -> int:
        """Return the number that the key, the patient and ``what`` give."""
        message = "\0".join((self.patient, *what)).encode()
        return int.from_bytes(hmac.new(self.key, message, hashlib.sha256).digest()[:8], "big")

    def pick(self, pool: str, word: str) -> str:
        """Draw a word of a pool for ``word`` (folded) that is neither it nor one to avoid."""
        words = _pools(self.language)[pool]
        start = self.draw(pool, word)
        for step in range(len(words)):
            found = words[(start + step) % len(words)]
            if fold(found) != word and fold(found) not in self.avoid:
                return found
        raise ValueError(f"No surrogate is left for a {pool} name: all {len(words)} are to avoid.")

    def replace(self, span: Span, text: str) -> str:
        """Return the surrogate of one span of ``text``."""
        old = text[span.start : span.end]
        if span.type in (PATIENT, PERSON):
            return self.name(old)
        if span.type == DATE:
            return self.date(old)
        if span.type == AGE:
            age = 90 + self.draw("age", fold(old)) % 10
            return str(age + 1 if str(age) == old else age)
        if span.type == URL:
            stem = f"{self.draw('url', fold(old)) % 10**6:06d}"
            return f"contact{stem}@example.org" if "@" in old else f"www.example.org/{stem}"
        if span.type in (PHONE, ID, NATIONAL_ID):
            return self.figures(old, span.type)
        return self.place(old, span.type)

    def name(self, old: str) -> str:
        """Replace each word of a name: a first name by one of its sex, another by a surname."""

        def word(match: re.Match) -> str:
            token, plain = match.group(), fold(match.group())
            if not token[0].isalpha() or plain in self.language.kind("particle"):
                return token
            if len(token) == 1:
                letter = "ABCDEFGHIJLMNPRSTV"[self.draw("initial", plain) % 18]
                return letter if letter.lower() != plain else "K"
            pools = _pools(self.language)
            if plain in _folded(self.language, "female"):
                pool = "female"
            elif plain in _folded(self.language, "male"):
                pool = "male"
            else:
                pool = "family"
            return _like(self.pick(pool, plain) if pools[pool] else "Nomen", token)

        return TOKEN.sub(word, old)

    def place(self, old: str, kind: str) -> str:
        """Replace the proper words of a place by towns; what sort of place it is stays."""
        kept = set(self.language.kind("adjective")) | set(self.language.kind("institution"))
        kept |= set(self.language.kind("institution_after")) | set(self.language.kind("street"))
        kept |= set(self.language.kind("street_after")) | set(self.language.kind("particle"))
        heads = {token for term in kept for token in term.split()}

        def word(match: re.Match) -> str:
            token, plain = match.group(), fold(match.group())
            if token[0].isdigit():
                return self.figures(token, "place")
            if not token[0].isalpha() or len(token) == 1 and not token.isupper():
                return token
            if plain in heads or plain in self.language.function:
                return token
            return _like(self.pick("town", plain), token)

        code = POSTCODE.search(old)
        if code:
            start, end = code.span()
            new = self.figures(code.group(), ID)
            return TOKEN.sub(word, old[:start]) + new + TOKEN.sub(word, old[end:])
        return TOKEN.sub(word, old)

    def date(self, old: str) -> str:
        """Move a date by the patient's offset in its own form; one that can't be read is a tag."""
        found = dates.find("le " + fold(old), self.language) or dates.find(fold(old), self.language)
        if len(found) != 1:
            return "<DATE>"
        shift = 3 if dates.find("le " + fold(old), self.language) else 0
        text = "le " + old if shift else old
        moved = dates.shifted(found[0], text, self.days, self.language)
        return text[shift : found[0].start] + moved + text[found[0].end :]

    def figures(self, old: str, kind: str) -> str:
        """Draw new figures and capitals in the same form; a national number never checks out."""
        plain = re.sub(r"[^a-z0-9]", "", fold(old))
        drawn = hashlib.sha256(self.draw(kind, plain).to_bytes(8, "big")).digest()
        out, i = [], 0
        for character in old:
            if character.isdigit():
                digit = (drawn[i % 32] + i) % 10
                out.append(str(digit))
                i += 1
            elif character.isalpha() and kind == ID and character.isupper():
                out.append(chr(65 + drawn[i % 32] % 26))
                i += 1
            else:
                out.append(character)
        new = "".join(out)
        if kind == NATIONAL_ID:
            if valid_nir(fold(new)) or valid_niss(new) or valid_nhs(new):
                new = new[:-1] + str((int(new[-1]) + 1) % 10) if new[-1].isdigit() else new
        if re.sub(r"\D", "", new) == re.sub(r"\D", "", old):
            new = re.sub(r"\d", lambda m: str((int(m.group()) + 1) % 10), new)
        return new


@lru_cache(maxsize=32)
def _folded(language: Language, pool: str) -> frozenset[str]:
    names: set[str] = set()
    attribute = "first_names_female" if pool == "female" else "first_names_male"
    for locale in language.locales:
        person = provider("person", locale)
        names |= {fold(str(n)) for n in getattr(person, attribute, ())}
    return frozenset(names)


def _like(word: str, old: str) -> str:
    """Write ``word`` in the case of ``old``."""
    if old.isupper() and len(old) > 1:
        return word.upper()
    return word.lower() if old.islower() else word
