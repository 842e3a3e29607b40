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
from collections.abc import Iterable, Set
from functools import lru_cache

from bonelib.deidentify import dates
from bonelib.deidentify import token_scan as kinds
from bonelib.deidentify.numbers import VALID
from bonelib.deidentify.patterns import compiled
from bonelib.reports.languages import Language, provider
from bonelib.reports.pages import TOKEN, fold

DAYS = (-1000, 1000)  # as in the published French port (Englebert et al. 2024)
SORTS_OF_PLACES = (
    "adjective", "institution", "institution_after", "street", "street_after", "particle",
)  # fmt: skip
POOLS = {
    "female": ("person", "first_names_female"), "male": ("person", "first_names_male"),
    "family": ("person", "last_names"), "town": ("address", "cities"),
}  # fmt: skip


def _entries(locales: Iterable[str], pool: str) -> set[str]:
    """Return Faker's names of a pool."""
    kind, attribute = POOLS[pool]
    return {str(n) for each in locales for n in getattr(provider(kind, each), attribute, ())}


@lru_cache(maxsize=32)
def _pool(language: Language, pool: str) -> tuple[str, ...]:
    """Return what surrogates are drawn from: one-word names and towns of the first locales."""
    locales = language.kind("town_locale" if pool == "town" else "surrogate_locale")
    words = (w for w in _entries(locales, pool) if w.isalpha() and len(w) > 3)
    return tuple(sorted(w for w in words if fold(w).isascii()))


@lru_cache(maxsize=32)
def _folded(language: Language, pool: str) -> frozenset[str]:
    return frozenset(map(fold, _entries(language.locales, pool)))


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
        words = _pool(self.language, pool)
        start = self.draw(pool, word)
        for step in range(len(words)):
            drawn = words[(start + step) % len(words)]
            if fold(drawn) != word and fold(drawn) not in self.avoid:
                return drawn
        raise ValueError(f"No surrogate is left for a {pool} name: all {len(words)} are to avoid.")

    def replace(self, span: kinds.Span, text: str) -> str:
        """Return the surrogate of one span of ``text``."""
        old = text[span.start : span.end]
        if span.type in (kinds.PATIENT, kinds.PERSON):
            return self.name(old)
        if span.type == kinds.DATE:
            return self.date(old)
        if span.type == kinds.AGE:
            age = 90 + self.draw("age", fold(old)) % 10
            return str(age + 1 if str(age) == old else age)
        if span.type == kinds.URL:
            stem = f"{self.draw('url', fold(old)) % 10**6:06d}"
            return f"contact{stem}@example.org" if "@" in old else f"www.example.org/{stem}"
        if span.type in (kinds.PHONE, kinds.ID, kinds.NATIONAL_ID):
            return self.figures(old, span.type)
        return self.place(old)

    def name(self, old: str) -> str:
        """Replace each word of a name: a first name by one of its sex, another by a surname."""

        def word(match: re.Match) -> str:
            token, plain = match.group(), fold(match.group())
            if not token[0].isalpha() or plain in self.language.kind("particle"):
                return token
            if len(token) == 1:
                letter = "ABCDEFGHIJLMNPRSTV"[self.draw("initial", plain) % 18]
                return letter if letter.lower() != plain else "K"
            sexes = ("female", "male")
            pool = next((p for p in sexes if plain in _folded(self.language, p)), "family")
            drawn = self.pick(pool, plain) if _pool(self.language, pool) else "Nomen"
            return _like(drawn, token)

        return TOKEN.sub(word, old)

    def place(self, old: str) -> str:
        """Replace the proper words of a place by towns; what sort of place it is stays."""
        terms = (term for sort in SORTS_OF_PLACES for term in self.language.kind(sort))
        heads = {token for term in terms for token in term.split()}

        def word(match: re.Match) -> str:
            token, plain = match.group(), fold(match.group())
            if token[0].isdigit():
                return self.figures(token, "place")
            if not token[0].isalpha() or len(token) == 1 and not token.isupper():
                return token
            if plain in heads or plain in self.language.function:
                return token
            return _like(self.pick("town", plain), token)

        code = dict(compiled(self.language, "number"))["postcode"].search(old)
        if not code:
            return TOKEN.sub(word, old)
        start, end = code.span()
        new = self.figures(code.group(), kinds.ID)
        return TOKEN.sub(word, old[:start]) + new + TOKEN.sub(word, old[end:])

    def date(self, old: str) -> str:
        """Move a date by the patient's offset in its own form; one that can't be read is a tag."""
        for cue in ("le ", ""):
            if written := dates.find(cue + fold(old), self.language):
                break
        if len(written) != 1:
            return "<DATE>"
        (one,), text = written, cue + old
        moved = dates.shifted(one, text, self.days, self.language)
        return text[len(cue) : one.start] + moved + text[one.end :]

    def figures(self, old: str, kind: str) -> str:
        """Draw new figures and capitals in the same form; a national number never checks out."""
        plain = re.sub(r"[^a-z0-9]", "", fold(old))
        drawn = hashlib.sha256(self.draw(kind, plain).to_bytes(8, "big")).digest()
        out, i = [], 0
        for character in old:
            if character.isdigit():
                character, i = str((drawn[i % 32] + i) % 10), i + 1
            elif character.isalpha() and kind == kinds.ID and character.isupper():
                character, i = chr(65 + drawn[i % 32] % 26), i + 1
            out.append(character)
        new = "".join(out)
        if kind == kinds.NATIONAL_ID:
            if any(valid(fold(new)) for valid in VALID.values()):
                new = new[:-1] + str((int(new[-1]) + 1) % 10) if new[-1].isdigit() else new
        if re.sub(r"\D", "", new) == re.sub(r"\D", "", old):
            new = re.sub(r"\d", lambda m: str((int(m.group()) + 1) % 10), new)
        return new


def _like(word: str, old: str) -> str:
    """Write ``word`` in the case of ``old``."""
    if old.isupper() and len(old) > 1:
        return word.upper()
    return word.lower() if old.islower() else word
