"""The tokens of a report with what was found among them, and how far a name goes.

``people``, ``addresses`` and ``institutions`` go over them and record what they find.
"""

import re
from typing import NamedTuple

from bonelib.reports.languages import Language
from bonelib.reports.pages import Page

PATIENT, PERSON, LOCATION, INSTITUTION = "PATIENT", "PERSON", "LOCATION", "INSTITUTION"
DATE, AGE, ID, NATIONAL_ID, PHONE, URL = "DATE", "AGE", "ID", "NATIONAL_ID", "PHONE", "URL"
TYPES = (PATIENT, PERSON, LOCATION, INSTITUTION, DATE, AGE, ID, NATIONAL_ID, PHONE, URL)
LONGEST = 8  # words of a name
ROMAN = re.compile("(?:I{1,3}|I?VI{0,3}|I?X)[a-dA-D]?|i{2,3}|iv|vi{1,3}")


class Span(NamedTuple):
    """A stretch of text to remove, its identity type and the rule that found it."""

    start: int
    end: int
    type: str
    rule: str


class TokenScan(Page):
    """A page with what was found on it and which letters are taken.

    Attributes:
        spans: What was found, in the order in which it was.
        people: Words of the names found, with the type, to be found wherever else they stand.
    """

    def __init__(self, text: str, language: Language) -> None:
        super().__init__(text, language)
        self.spans: list[Span] = []
        self.people: dict[str, str] = {}
        self.busy = bytearray(len(text) + 1)
        self.particles = language.kind("particle")
        self.not_name = language.kind("not_name")
        self.eponyms = language.kind("eponym")
        self.heads = language.kind("eponym_head")
        self.endings = tuple(language.kind("eponym_ending"))

    def taken(self, i: int) -> bool:
        """Whether the token belongs to what was found."""
        return bool(self.busy[self.starts[i]])

    # ------------------------------------------------------------------ what is found
    def record(self, span: Span) -> None:
        """Record an identity, and that its characters are taken."""
        self.spans.append(span)
        self.busy[span.start : span.end] = b"\1" * (span.end - span.start)

    def add(self, i: int, j: int, kind: str, rule: str) -> int:
        """Record tokens ``i`` to ``j`` (excluded) as one identity; return ``j``."""
        self.record(Span(self.starts[i], self.ends[j - 1], kind, rule))
        return j

    def person(self, i: int, j: int, kind: str, rule: str) -> int:
        """Record a name, and remember those of its words that can't be anything else."""
        for k in range(i, j):
            word = self.words[k]
            distinct = len(word) > 2 and self.letters(k) and word not in self.particles
            if distinct and self.plain(k) and word not in self.eponyms:
                self.people.setdefault(word, kind)
        return self.add(i, j, kind, rule)

    # ------------------------------------------------------------------ a name
    def first(self, i: int, *, sure: bool) -> bool:
        """Whether a name may begin at ``i``, after a title or label (``sure``) or a weaker cue."""
        if not self.letters(i):
            return False
        word, shape, caps = self.words[i], self.shapes[i], self.caps[i]
        if word in self.not_name or shape == "l":
            return False  # ``lower_case``
        if shape == "I":
            if self.sign(i + 1, "'") and self.glued(i + 1) and self.large(i + 2):
                return sure or self.named(i + 2)  # "N'Diaye"
            return self.sign(i + 1, ".-") or (sure and self.capital(i + 1))
        if self.named(i) and shape in "CX":
            return sure or not caps or self.plain(i) or word in self.language.given
        if word in self.language.function:
            followed = self.capital(i + 1) and self.words[i + 1] not in self.not_name
            return sure and followed and (not caps or self.named(i + 1))
        if not caps or self.plain(i):
            return sure or self.plain(i)
        followed = self.capital(i + 1) and (self.plain(i + 1) or self.named(i + 1))
        return sure and (word not in self.language.stops or followed or self.closes(i + 1))

    def more(self, i: int, *, sure: bool, after_given: bool = False) -> bool:
        """Whether a name that has begun may go on with token ``i``."""
        if not self.large(i):
            return False
        word, shape, caps = self.words[i], self.shapes[i], self.caps[i]
        kind, function = self.kind_at(i), word in self.language.function
        if word in self.not_name and not (after_given and self.closes(i + 1)):
            return False
        if kind == "credential" and shape == "X":
            return False
        if shape == "I":
            return self.sign(i + 1, ".'") or not function
        if self.label_at(i) or kind.startswith(("title", "born", "label")) and not self.named(i):
            return False
        if self.plain(i) or sure and self.unusual(i) or (self.named(i) and not function):
            return True
        if shape == "C" and word in self.language.given and self.shapes[i - 1] == "X":
            return True  # "JENKINS May"
        if sure and (function or len(word) < 4) and word not in self.particles:
            # "Ahmed Aït Ahmed", "Cormac Ní Bhriain", "Freya May"
            name = self.capital(i + 1) and (self.named(i + 1) or self.plain(i + 1) and not caps)
            if name or len(word) > 2 and self.closes(i + 1):
                return True
        # a word of the language is a surname where nothing follows it, or capitals mark it
        ends = self.closes(i + 1) and not self.sign(i + 1, ":")
        if sure and ends and word in self.language.given:
            return True
        if caps:
            return sure and after_given and ends
        if shape == "X":
            return (sure or after_given and ends) and len(word) > 2
        return (sure and (ends or after_given) or after_given and ends) and not function

    def over_particles(self, i: int) -> int:
        """Skip "van den", "de la", "d'", "'t", "El" before a name; ``i`` if no name follows."""
        at = i
        while at < self.size and at - i < 6 and (at == i or self.near(at)):
            if self.words[at] in self.particles:
                at += 1
            elif self.sign(at, "'-") and (at > i or self.glued(at + 1)):
                at += 1
            else:
                break
        while at > i and not (self.large(at) or (self.letters(at) and self.plain(at))):
            at -= 1
        return at

    def name(self, i: int, *, sure: bool, comma: bool = False) -> int:
        """Return the index after the name that begins at token ``i``; ``i`` if there is none.

        Args:
            sure: A title or a label stands before: words of the language may be names.
            comma: "Surname, First" may be written.
        """
        start, i = i, self.over_particles(i)
        # "de Smet", "El Amrani": the particle says it
        said = i > start and self.large(i) and sure and self.words[i] not in self.not_name
        if not said and not self.first(i, sure=sure):
            return start
        given = self.words[i] in self.language.given or self.shapes[i] == "I"
        end = i = i + 1
        for _ in range(LONGEST):
            if i >= self.size:
                break
            word = self.words[i]
            if self.sign(i, "-'^") and self.glued(i) and self.glued(i + 1) and self.letters(i + 1):
                i += 2
            elif word == "." and self.glued(i) and self.shortened(i - 1):
                end = i = i + 1
                if self.letters(i) and self.glued(i) and self.large(i):  # "J.Martin"
                    end = i = i + 1
                continue
            elif word == "-" and self.near(i) and self._second(i + 1, self.shapes[i - 1]):
                i += 2
            elif comma and word == "," and self.near(i + 1):
                if not self.more(i + 1, sure=True, after_given=True):
                    break
                i, comma = i + 2, False
            elif self.near(i) and self.more(i, sure=sure, after_given=given):
                given = self.words[i] in self.language.given
                i += 1
            elif self.near(i) and (word in self.particles or word == "'"):
                after = self.over_particles(i)
                if after == i or not self.near(after):
                    break
                lone = sure and self.large(after) and self.closes(after + 1)
                if not (self.more(after, sure=sure, after_given=True) or lone):
                    break
                i = after + 1
            else:
                break
            end = i
        return end

    def _second(self, i: int, shape: str) -> bool:
        """Whether the token goes on after a dash with spaces: "Anne - Marie"."""
        return self.capital(i) and self.named(i) and not self.kind_at(i) and self.shapes[i] == shape

    def shortened(self, i: int) -> bool:
        """Whether the full stop after token ``i`` marks an initial or a shortened first name."""
        if self.shapes[i] == "I":
            return True
        short = self.shapes[i] == "C" and len(self.words[i]) <= 3 and self.plain(i)
        return short and self.capital(i + 2)

    def eponymous(self, i: int) -> bool:
        """Whether the token stands as an eponym or brand does: its head word or a grade beside it.

        "maladie de X", "groupe 3 de X", "plaque X"; "X's disease", "X flexion test"; "X III".
        """

        def linked(k: int) -> bool:
            joined = self.sign(k + 1, "-") or self.of(k + 1, "joiner") or self.numeral(k)
            joined |= self.of(k, "joiner") and self.large(k - 1)
            return self.of(k, "eponym_link") or self.sign(k, "-'") or joined

        k = i - 1
        while k > 0 and i - k < 7 and linked(k):
            k -= 1
        if 0 <= k < i - 1 and self.head(k) or self.branded(i):
            return True
        graded = i + 1 + self.of(i + 1, "grade")
        if self.near(graded) and self.numeral(graded):
            return True
        if "after" not in self.language.kind("eponym_side"):
            return False

        def joins(k: int) -> bool:
            return self.sign(k, "-'") or self.words[k] == "s" or self.of(k, "joiner")

        k = self.forward(
            i + 1,
            lambda k: joins(k) or self.sign(k - 1, "-") or self.of(k - 1, "joiner"),
            most=6,
        )
        k += k == i + 1 and self.capital(k) and not self.head(k)  # "Terry Thomas sign"
        aside = self.near(k) and self.letters(k) and self.words[k] not in self.language.function
        return k < self.size and (self.head(k) or aside and self.head(k + 1))

    def head(self, k: int) -> bool:
        """Whether an eponym may stand beside the token: "sign", "approach", "osteotomy"."""
        if not self.letters(k) or self.words[k] in self.heads:
            return self.letters(k)
        return self.words[k].endswith(self.endings) and len(self.words[k]) > 7

    def branded(self, i: int) -> bool:
        """Whether the word for a device stands before the token: "plaque X", "tige longue X"."""

        def aside(k: int) -> bool:
            function = self.words[k] in self.language.function
            return self.shapes[k] == "l" and (not function or self.of(k, "eponym_link"))

        first = self.back(i, aside, most=4)
        return any(self.heads.get(self.words[k]) == "brand" for k in range(max(0, first - 1), i))

    def numeral(self, k: int) -> bool:
        """Whether the token is a grade or a code: "IIIa", "3" with no name behind it, "D3"."""
        if self.figures(k):
            alone = self.figures(k) == 1 and not self.large(k + 1)
            return alone or self.of(k + 1, "unit") and len(self.words[k + 1]) > 1
        if self.near(k) and self.shapes[k] == "I" and self.glued(k + 1) and self.figures(k + 1):
            return True
        return bool(self.letters(k) and ROMAN.fullmatch(self.text, self.starts[k], self.ends[k]))
