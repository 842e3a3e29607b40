"""The tokens of a report with what each may be: a name, a particle, a word of the language.

``people`` and ``places`` walk over them and record what they find.
"""

from bisect import bisect_left
from typing import NamedTuple

from bonelib.reports.languages import Language, Page

LONGEST = 8  # words of a name
ENDS = frozenset((".", ":", "!", "?", ";", "\n", "*", "•", "(", ")", "/", "|", '"', "«", ">", "-"))


class Span(NamedTuple):
    """A stretch of text to remove, its identity type and the rule that found it."""

    start: int
    end: int
    type: str
    rule: str


class Walk:
    """A page with its language, what was found on it, and which letters are taken.

    Attributes:
        people: Words of the names found, with the type, to be found wherever else they stand.
    """

    def __init__(self, page: Page, language: Language, spans: list[Span]) -> None:
        self.page, self.language = page, language
        self.words, self.shapes, self.size = page.words, page.shapes, len(page.words)
        self.righted = [self._right(i) for i in range(self.size)]
        self.spans: list[Span] = []
        self.people: dict[str, str] = {}
        self.busy = bytearray(len(page.text) + 1)
        for span in spans:
            self.mark(span.start, span.end)
        self.particles = language.kind("particle")
        self.not_name = language.kind("not_name")
        self.eponyms = language.kind("eponym")
        self.heads = language.kind("eponym_head")

    def _right(self, i: int) -> str:
        """Return the token with a misspelt cue put right: in lower case, or before a colon."""
        word = self.words[i]
        if len(word) < 5 or word in self.language.words or self.shapes[i] not in "lCX":
            return word
        labels = self.shapes[i] != "l" and ":" in self.words[i + 1 : i + 4]
        return self.language.spelling.right(word) if self.shapes[i] == "l" or labels else word

    # ------------------------------------------------------------------ what a token is
    def named(self, i: int) -> bool:
        """Whether the lexicons know the token as a first name or a surname."""
        word = self.words[i]
        return word in self.language.given or word in self.language.family

    def plain(self, i: int) -> bool:
        """Whether the language does not know the token as a word."""
        return self.words[i] not in self.language.words

    def letters(self, i: int) -> bool:
        """Whether the token is a word."""
        return 0 <= i < self.size and self.shapes[i] in "CXIl"

    def large(self, i: int) -> bool:
        """Whether the token begins with a capital."""
        return 0 <= i < self.size and self.shapes[i] in "CXI"

    def figures(self, i: int) -> int:
        """Return how many figures the token has, 0 if it is none."""
        if not 0 <= i < self.size or self.shapes[i] != "d":
            return 0
        return self.page.ends[i] - self.page.starts[i]

    def near(self, i: int) -> bool:
        """Whether the token stands on the line of the one before, not across a wide gap."""
        return 0 < i < self.size and self.page.gap(i) <= 2 and self.shapes[i] != "n"

    def glued(self, i: int) -> bool:
        """Whether nothing stands between the token and the one before."""
        return 0 < i < self.size and self.page.gap(i) == 0

    def sign(self, i: int, signs: str) -> bool:
        """Whether the token is one of these signs."""
        return 0 <= i < self.size and self.words[i] in signs and self.shapes[i] == "p"

    def rare(self, i: int) -> bool:
        """Whether a token is capitalised and no word of the language: a name by form alone."""
        return self.shapes[i] in "CX" and len(self.words[i]) > 1 and self.plain(i)

    def opens(self, i: int) -> bool:
        """Whether the token opens a sentence or a line, where a capital tells nothing."""
        return i == 0 or self.words[i - 1] in ENDS

    def closes(self, i: int) -> bool:
        """Whether nothing follows token ``i - 1`` in its line or field."""
        return i >= self.size or self.shapes[i] in "np" or not self.near(i)

    def kind_at(self, i: int) -> str:
        """Name the kind of the longest cue that begins at the token, "" if none does."""
        cue = self.language.cues.at(self.righted, i) if self.letters(i) else None
        return cue.kind if cue else ""

    def label_at(self, i: int) -> bool:
        """Whether a label with its colon begins at the token: a new field."""
        for cue in self.language.cues.all(self.righted, i) if self.letters(i) else ():
            if cue.kind.startswith("label") and self.sign(i + len(cue.tokens), ":"):
                return True
        k = i  # a label that no table knows: words, then a colon
        while (
            k < min(i + 4, self.size)
            and self.letters(k)
            and not self.named(k)
            and (k == i or self.page.gap(k) == 1)
        ):
            k += 1
        return i < k and self.large(i) and self.sign(k, ":") and self.page.gap(k) <= 1

    def taken(self, i: int) -> bool:
        """Whether the token belongs to what was found."""
        return bool(self.busy[self.page.starts[i]])

    def at(self, start: int) -> int:
        """Return the index of the token at or after a character."""
        return bisect_left(self.page.starts, start)

    # ------------------------------------------------------------------ what is found
    def mark(self, start: int, end: int) -> None:
        """Note that these characters belong to what was found."""
        self.busy[start:end] = b"\1" * (end - start)

    def add(self, i: int, j: int, kind: str, rule: str) -> int:
        """Record tokens ``i`` to ``j`` (excluded) as one identity; return ``j``."""
        start, end = self.page.starts[i], self.page.ends[j - 1]
        self.spans.append(Span(start, end, kind, rule))
        self.mark(start, end)
        return j

    def person(self, i: int, j: int, kind: str, rule: str) -> int:
        """Record a name, and remember those of its words that can't be anything else."""
        for k in range(i, j):
            word = self.words[k]
            telling = len(word) > 2 and self.letters(k) and word not in self.particles
            if telling and self.plain(k) and word not in self.eponyms:
                self.people.setdefault(word, kind)
        return self.add(i, j, kind, rule)

    # ------------------------------------------------------------------ a name
    def first(self, i: int, *, sure: bool) -> bool:
        """Whether a name may begin at ``i``, after a title or label (``sure``) or a weaker cue."""
        if not self.letters(i):
            return False
        word, shape, caps = self.words[i], self.shapes[i], self.page.caps[i]
        if word in self.not_name or (shape == "l" and len(word) < 3):
            return False
        if shape == "I":
            if self.sign(i + 1, "'") and self.glued(i + 1) and self.large(i + 2):
                return sure or self.named(i + 2)  # "N'Diaye"
            return self.sign(i + 1, ".-") or (sure and self.near(i + 1) and self.large(i + 1))
        if self.named(i) and shape in "CX":
            return sure or not caps or self.plain(i) or word in self.language.given
        if shape == "l":
            return sure and (self.plain(i) or (self.named(i) and word not in self.language.stops))
        if word in self.language.function:
            return (
                sure
                and self.near(i + 1)
                and self.large(i + 1)
                and (self.words[i + 1] not in self.not_name and (not caps or self.named(i + 1)))
            )
        if caps:
            followed = (
                self.near(i + 1) and self.large(i + 1) and (self.plain(i + 1) or self.named(i + 1))
            )
            return (
                self.plain(i)
                or sure
                and (word not in self.language.stops or followed or self.closes(i + 1))
            )
        return sure or self.plain(i)

    def more(self, i: int, *, sure: bool, after_given: bool = False) -> bool:
        """Whether a name that has begun may go on with token ``i``."""
        if not self.large(i):
            return False
        word = self.words[i]
        if word in self.not_name and not (after_given and self.closes(i + 1)):
            return False
        if self.kind_at(i) == "credential" and self.shapes[i] == "X":
            return False
        if self.shapes[i] == "I":
            return self.sign(i + 1, ".'") or word not in self.language.function
        if (
            self.label_at(i)
            or self.kind_at(i).startswith(("title", "born", "label"))
            and not (self.named(i))
        ):
            return False
        if self.plain(i) or (self.named(i) and word not in self.language.function):
            return True
        if self.shapes[i] == "C" and word in self.language.given and self.shapes[i - 1] == "X":
            return True  # "JENKINS May"
        short = word in self.language.function or len(word) < 4
        if sure and short and word not in self.particles:
            # "Ahmed Aït Ahmed", "Cormac Ní Bhriain", "Freya May"
            followed = (
                self.near(i + 1)
                and self.large(i + 1)
                and (self.named(i + 1) or self.plain(i + 1) and not self.page.caps[i])
            )
            if followed or len(word) > 2 and self.closes(i + 1):
                return True
        # a word of the language is a surname where nothing follows it, or capitals mark it
        ends = self.closes(i + 1) and not self.sign(i + 1, ":")
        if sure and ends and word in self.language.given:
            return True
        if self.page.caps[i]:
            return sure and after_given and ends
        if self.shapes[i] == "X":
            return (sure or after_given and ends) and len(word) > 2
        return (
            (sure or after_given and ends)
            and (ends or after_given)
            and (word not in self.language.function)
        )

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
        if i > start and self.large(i) and sure and self.words[i] not in self.not_name:
            pass  # "de Smet", "El Amrani": the particle says it
        elif not self.first(i, sure=sure):
            return start
        loose = self.shapes[i] == "l"
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
            elif (
                word == "-"
                and self.near(i)
                and self.near(i + 1)
                and self.named(i + 1)
                and (
                    self.large(i + 1)
                    and not self.kind_at(i + 1)
                    and self.shapes[i + 1] == self.shapes[i - 1]
                )
            ):
                i += 2
            elif (
                comma
                and word == ","
                and self.near(i + 1)
                and (self.more(i + 1, sure=True, after_given=True))
            ):
                i, comma = i + 2, False
            elif self.near(i) and self.more(i, sure=sure, after_given=given):
                given = self.words[i] in self.language.given
                i += 1
            elif self.near(i) and loose and self.lower(i):
                i += 1
            elif self.near(i) and (word in self.particles or word == "'"):
                after = self.over_particles(i)
                if after == i or not self.near(after):
                    break
                sound = self.more(after, sure=sure, after_given=True)
                if not (
                    sound
                    or (sure and self.large(after) and self.closes(after + 1))
                    or (loose and self.lower(after))
                ):
                    break
                i = after + 1
            else:
                break
            end = i
        return end

    def lower(self, i: int) -> bool:
        """Whether the token is a long word that the language does not know."""
        return self.letters(i) and len(self.words[i]) > 2 and self.plain(i)

    def shortened(self, i: int) -> bool:
        """Whether the full stop after token ``i`` marks an initial or a shortened first name."""
        if self.shapes[i] == "I":
            return True
        return (
            self.shapes[i] == "C"
            and len(self.words[i]) <= 3
            and self.large(i + 2)
            and (self.plain(i) and self.near(i + 2))
        )

    def eponymous(self, i: int) -> bool:
        """Whether the token stands as an eponym does: "maladie de X", "X's disease", "X sign"."""
        links = self.language.kind("eponym_link")
        k = i - 1
        while (
            k > 0
            and (
                self.words[k] in links
                or self.sign(k, "-'")
                or (self.sign(k + 1, "-") or self.words[k + 1] in self.language.kind("joiner"))
            )
            and i - k < 7
        ):
            k -= 1
        if 0 <= k < i - 1 and self.words[k] in self.heads:
            return True
        if "after" not in self.language.kind("eponym_side"):
            return False
        k = i + 1
        while (
            k < self.size
            and k - i < 7
            and (
                self.sign(k, "-'")
                or self.words[k] == "s"
                or self.words[k] in self.language.kind("joiner")
                or self.sign(k - 1, "-")
                or self.words[k - 1] in self.language.kind("joiner")
            )
        ):
            k += 1
        return k < self.size and self.words[k] in self.heads
