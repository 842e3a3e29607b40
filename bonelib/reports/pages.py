"""A text cut into tokens: what each is, in its form and language, and how they stand together."""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bonelib.reports.languages import Language, Phrase

SPACES = (
    "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000\t"
)
ENDS = frozenset('.:!?;\n*•()/|"«>-')  # a capital behind one tells nothing
TOKEN = re.compile(r"[^\W\d_]+|\d+|\n|[^\w\s]|_")


def _foldings() -> dict[int, str]:
    """Map each letter to its lower-case base letter, one character for one."""
    table = {}
    for code in range(0x20, 0x2100):
        if unicodedata.combining(chr(code)):
            continue
        base = unicodedata.normalize("NFKD", chr(code).lower())[:1]
        if base and base != chr(code):
            table[code] = base
    letters = {"ø": "o", "Ø": "o", "đ": "d", "Đ": "d", "ł": "l", "Ł": "l", "ı": "i", "ß": "s"}
    marks = dict.fromkeys("’‘ʼ´`", "'") | dict.fromkeys("‐‑‒–—−", "-")
    return table | str.maketrans(letters | marks | dict.fromkeys(SPACES, " "))


FOLDING = _foldings()


def fold(text: str) -> str:
    """Return ``text`` in lower case without accents, of the same length, so that offsets hold."""
    return text.translate(FOLDING)


class Page:
    """A text cut into tokens: words, numbers, signs and line ends, with their offsets.

    Attributes:
        words: Folded tokens. starts, ends: Their offsets in the text.
        shapes: ``C`` capitalised, ``X`` upper case, ``I`` one capital, ``l`` lower case, ``d``
            digits, ``n`` line end, ``p`` any other sign. Scripts without case count as ``C``.
        caps: Whether the token stands in a line written in capitals. size: Number of tokens.
    """

    def __init__(self, text: str, language: "Language") -> None:
        self.text, self.folded, self.language = text, fold(text), language
        self.words: list[str] = []
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.shapes: list[str] = []
        self.caps: list[bool] = []
        large = small = first = 0
        for match in TOKEN.finditer(text):
            start, end = match.span()
            token = text[start:end]
            shape = _shape(token)
            self.words.append(self.folded[start:end])
            self.starts.append(start)
            self.ends.append(end)
            self.shapes.append(shape)
            if shape == "n":
                self._close(first, large, small)
                first, large, small = len(self.words), 0, 0
            elif end - start > 2:
                large += shape == "X"
                small += shape in "lC"
        self._close(first, large, small)
        self.size = len(self.words)

    def _close(self, first: int, large: int, small: int) -> None:
        self.caps += [large > 4 * small] * (len(self.words) - first)

    def gap(self, i: int) -> int:
        """Count the characters between token ``i - 1`` and token ``i``."""
        return self.starts[i] - self.ends[i - 1] if 0 < i < self.size else 1

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
        return self.ends[i] - self.starts[i]

    def line_end(self, i: int) -> bool:
        """Whether the token ends a line."""
        return 0 <= i < self.size and self.shapes[i] == "n"

    def near(self, i: int) -> bool:
        """Whether the token stands on the line of the one before, not across a wide gap."""
        return 0 < i < self.size and self.gap(i) <= 2 and self.shapes[i] != "n"

    def glued(self, i: int) -> bool:
        """Whether nothing stands between the token and the one before."""
        return 0 < i < self.size and self.gap(i) == 0

    def capital(self, i: int) -> bool:
        """Whether the token begins with a capital and stands beside the one before."""
        return self.near(i) and self.large(i)

    def sign(self, i: int, signs: str) -> bool:
        """Whether the token is one of these signs."""
        return 0 <= i < self.size and self.words[i] in signs and self.shapes[i] == "p"

    def joins(self, i: int, signs: str = "-'") -> bool:
        """Whether the token is one of these signs, with nothing before it or nothing behind."""
        return self.sign(i, signs) and (self.glued(i) or self.glued(i + 1))

    def opens(self, i: int) -> bool:
        """Whether the token opens a sentence or a line, where a capital tells nothing."""
        return i == 0 or self.words[i - 1] in ENDS

    def closes(self, i: int) -> bool:
        """Whether nothing follows token ``i - 1`` in its line or field."""
        return i >= self.size or self.shapes[i] in "np" or not self.near(i)

    def at(self, start: int) -> int:
        """Return the index of the token at or after a character."""
        return bisect_left(self.starts, start)

    def forward(self, i: int, accept: Callable[[int], bool], *, most: int | None = None) -> int:
        """Return the index after the tokens from ``i`` on that are accepted, ``most`` of them."""
        end = self.size if most is None else min(self.size, i + most)
        k = i
        while k < end and accept(k):
            k += 1
        return k

    def back(self, i: int, accept: Callable[[int], bool], *, most: int | None = None) -> int:
        """Return where the accepted tokens that stand before ``i`` on its line begin."""
        first = 0 if most is None else max(0, i - most)
        k = i
        while k > first and self.near(k) and accept(k - 1):
            k -= 1
        return k

    # ------------------------------------------------------------------ in its language
    @cached_property
    def righted(self) -> list[str]:
        """The words with misspelt cues put right."""
        return [self._right(i) for i in range(self.size)]

    def _right(self, i: int) -> str:
        """Return the token with a misspelt cue put right: in lower case, or before a colon."""
        word = self.words[i]
        if len(word) < 5 or word in self.language.words or self.shapes[i] not in "lCX":
            return word
        labels = self.shapes[i] != "l" and ":" in self.words[i + 1 : i + 4]
        return self.language.spelling.right(word) if self.shapes[i] == "l" or labels else word

    def named(self, i: int) -> bool:
        """Whether the lexicons know the token as a first name or a surname."""
        word = self.words[i]
        return word in self.language.given or word in self.language.family

    def plain(self, i: int) -> bool:
        """Whether the language does not know the token as a word.

        In capitals, where nothing else tells a name, only as one that reports use.
        """
        return self._plain[i]

    @cached_property
    def _plain(self) -> list[bool]:
        known, usual = self.language.words, self.language.usual
        pairs = zip(self.words, self.caps, strict=True)
        return [word not in (usual if caps else known) for word, caps in pairs]

    def of(self, i: int, kind: str) -> bool:
        """Whether the token is a term of one kind of the table of the language."""
        return 0 <= i < self.size and self.words[i] in self.language.kind(kind)

    def rare(self, i: int) -> bool:
        """Whether a token is capitalised and no word of the language: a name by form alone."""
        return self._word(i) and self.plain(i)

    def unusual(self, i: int) -> bool:
        """Whether a token is capitalised and no word that reports use: where a name is awaited."""
        return self._word(i) and self.words[i] not in self.language.usual

    def _word(self, i: int) -> bool:
        return 0 <= i < self.size and self.shapes[i] in "CX" and len(self.words[i]) > 1

    def cue_at(self, i: int) -> "Phrase | None":
        """Return the longest cue that begins at the token, None if none does."""
        return self.language.cues.at(self.righted, i) if 0 <= i < self.size else None

    def kind_at(self, i: int) -> str:
        """Name the kind of the longest cue that begins at the token, "" if none does."""
        cue = self.cue_at(i) if self.letters(i) else None
        return cue.kind if cue else ""

    def label_at(self, i: int) -> bool:
        """Whether a label with its colon begins at the token: a new field."""
        for cue in self.language.cues.all(self.righted, i) if self.letters(i) else ():
            if cue.kind.startswith("label") and self.sign(i + len(cue.tokens), ":"):
                return True

        def unlisted(k: int) -> bool:  # a label that no table knows: words, then a colon
            return self.letters(k) and not self.named(k) and (k == i or self.gap(k) == 1)

        k = self.forward(i, unlisted, most=4)
        return i < k and self.large(i) and self.sign(k, ":") and self.gap(k) <= 1


def _shape(token: str) -> str:
    first = token[0]
    if first.isalpha():
        if token.islower():
            return "l"
        if not token.isupper():
            return "C"
        return "X" if len(token) > 1 else "I"
    return "n" if first == "\n" else "d" if first.isdigit() else "p"


def pieces(term: str) -> tuple[str, ...]:
    """Cut a term of a table as the text will be cut."""
    return tuple(TOKEN.findall(fold(term)))
