"""Identities in a report: what names a person, a place, a day or a number, found and explained.

A text comes in, spans ``(start, end, type, rule)`` go out; nothing is changed. Form and context
carry most of it (titles, labels, relations, street and institution words, number formats), lexicons
the rest, so that a name in no lexicon is found too. Eponyms (Ewing, Codman, Salter–Harris) stay
unless a title or a label says that a person is meant.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import NamedTuple

from bonelib.reports import dates, numbers
from bonelib.reports.languages import Language, Page, Phrase, fold, pieces

PATIENT, PERSON, LOCATION, INSTITUTION = "PATIENT", "PERSON", "LOCATION", "INSTITUTION"
DATE, AGE, ID, NATIONAL_ID, PHONE, URL = "DATE", "AGE", "ID", "NATIONAL_ID", "PHONE", "URL"
TYPES = (PATIENT, PERSON, LOCATION, INSTITUTION, DATE, AGE, ID, NATIONAL_ID, PHONE, URL)
LONGEST = 7  # words of a name


class Span(NamedTuple):
    """A stretch of text to remove, its identity type and the rule that found it."""

    start: int
    end: int
    type: str
    rule: str


@dataclass(frozen=True)
class Known:
    """What an index or the DICOM header says of the patient; searched in every spelling.

    Attributes:
        names: Of the patient, in any order; the carets of DICOM names are read as spaces.
        others: Names of doctors and relatives. birth: Birth date. ids: Record numbers.
    """

    names: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    birth: date | None = None
    ids: tuple[str, ...] = ()


def find(text: str, language: Language, known: Known | None = None) -> list[Span]:
    """Find the identities of a report, sorted, without overlap.

    Args:
        text: The report. Offsets of the spans count its characters.
        language: Of the report (``languages.language``).
        known: What is already known of the patient.
    """
    page = Page(text)
    spans = [Span(d.start, d.end, DATE, d.rule) for d in dates.find(page.folded, language)]
    spans += [Span(*found) for found in numbers.find(text, page.folded, language)]
    busy = bytearray(len(text) + 1)
    for span in spans:
        busy[span.start : span.end] = b"\1" * (span.end - span.start)
    finder = _Finder(page, language, busy)
    finder.cued()
    finder.header(known or Known())
    finder.free()
    finder.repeat()
    spans += finder.spans
    if known:
        spans += [Span(*found) for found in numbers.known(page.folded, known.ids, known.birth)]
    return merged(spans)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Join spans that overlap; the longest gives the type, and every rule is kept."""
    out: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start, -s.end, s.type != NATIONAL_ID)):
        if out and span.start < out[-1].end:
            last = out[-1]
            longer = span if span.end - span.start > last.end - last.start else last
            rules = dict.fromkeys((*last.rule.split(" + "), *span.rule.split(" + ")))
            end = max(last.end, span.end)
            out[-1] = Span(last.start, end, longer.type, " + ".join(rules))
        elif span.end > span.start:
            out.append(span)
    return out


class _Finder:
    """One walk over the tokens of a page; holds what it found."""

    def __init__(self, page: Page, language: Language, busy: bytearray) -> None:
        self.page, self.language, self.busy = page, language, busy
        self.words, self.shapes = page.words, page.shapes
        self.spans: list[Span] = []
        self.people: dict[str, str] = {}  # folded word -> type, to be found wherever it stands
        self.particles = language.kind("particle")
        self.not_name = language.kind("not_name")
        self.eponyms = language.kind("eponym")
        self.heads = language.kind("eponym_head")

    # ------------------------------------------------------------------ what a token may be
    def named(self, word: str) -> bool:
        return word in self.language.given or word in self.language.family

    def letters(self, i: int) -> bool:
        return i < len(self.words) and self.shapes[i] in "CXIl"

    def large(self, i: int) -> bool:
        return i < len(self.words) and self.shapes[i] in "CXI"

    def near(self, i: int) -> bool:
        """Whether token ``i`` stands on the line of the one before, not across a wide gap."""
        return i < len(self.words) and self.page.gap(i) <= 3

    def rare(self, i: int) -> bool:
        """A capitalised word that is not language: a name by form alone."""
        word = self.words[i]
        return self.shapes[i] in "CX" and len(word) > 1 and word not in self.language.words

    def first(self, i: int, *, sure: bool) -> bool:
        """Whether a name may begin at ``i``, after a title or a label (``sure``) or a weaker cue."""
        if not self.letters(i):
            return False
        word, shape = self.words[i], self.shapes[i]
        if word in self.not_name or (shape == "l" and len(word) < 3):
            return False
        plain = word not in self.language.words
        if shape == "I":
            return self.next_sign(i, ".-") or (sure and self.near(i + 1) and self.large(i + 1))
        if shape == "C" and not self.page.caps[i]:
            if word in self.language.function and not self.named(word):
                return False
            return sure or plain or self.named(word)
        if shape == "l":
            return sure and (plain or (word in self.language.family and self.medical(word)))
        return plain or self.named(word) or (sure and word not in self.language.stops)

    def medical(self, word: str) -> bool:
        return word not in self.language.function

    def more(self, i: int) -> bool:
        """Whether a name that has begun may go on with token ``i``."""
        if not self.large(i):
            return False
        word = self.words[i]
        if word in self.not_name or self.language.cues.at(self.words, i) is not None and not (
            self.named(word)
        ):
            return False
        if self.shapes[i] == "I":
            return word not in self.language.function or self.next_sign(i, ".")
        if word in self.language.function:
            return word in self.language.given and not self.page.caps[i]
        return word not in self.language.words or self.named(word)

    def next_sign(self, i: int, signs: str) -> bool:
        return i + 1 < len(self.words) and self.words[i + 1] in signs and self.page.gap(i + 1) == 0

    # ------------------------------------------------------------------ a name
    def name(self, i: int, *, sure: bool, comma: bool = False) -> int:
        """Return the index after the name that begins at token ``i``; ``i`` if there is none."""
        start, count = i, 0
        i = self.over_particles(i)
        if not self.first(i, sure=sure):
            return start
        loose = self.shapes[i] == "l"
        end = i = i + 1
        while count < LONGEST and i < len(self.words):
            word, glued = self.words[i], self.page.gap(i) == 0
            count += 1
            if word in "-'" and glued and self.page.gap(i + 1) == 0 and self.letters(i + 1):
                i += 2
            elif word == "." and (self.shapes[i - 1] == "I" or self.ends_short(i - 1)):
                end = i = i + 1
                continue
            elif word == "-" and self.large(i + 1) and self.more(i + 1) and self.near(i + 1):
                if self.words[i + 1] in self.language.words and not self.named(self.words[i + 1]):
                    break
                i += 2
            elif comma and word == "," and self.near(i + 1) and self.more(i + 1):
                i, comma = i + 2, False
            elif not self.near(i) or self.shapes[i] in "np":
                break
            elif self.more(i) or (loose and self.plain_lower(i)):
                i += 1
            elif word in self.particles:
                after = self.over_particles(i)
                if after == i or not (self.more(after) or loose and self.plain_lower(after)):
                    break
                i = after + 1
            else:
                break
            end = i
        return end

    def plain_lower(self, i: int) -> bool:
        return self.letters(i) and len(self.words[i]) > 2 and (
            self.words[i] not in self.language.words
        )

    def ends_short(self, i: int) -> bool:
        return self.shapes[i] == "C" and len(self.words[i]) <= 3 and self.more(i + 2)

    def over_particles(self, i: int) -> int:
        """Skip "van den", "de la", "d'", "'t", "El" before a name; ``i`` if no name follows."""
        at = i
        for _ in range(6):
            if at < len(self.words) and (
                self.words[at] in self.particles
                or (self.words[at] in "'-" and (at > i or self.page.gap(at + 1) == 0))
            ):
                at += 1
        while at > i and not (self.letters(at) and (self.large(at) or self.words[at] not in self.language.words)):
            at -= 1
        return at

    def add(self, i: int, j: int, kind: str, rule: str) -> int:
        """Record tokens ``i`` to ``j`` (excluded) as one identity; return ``j``."""
        start, end = self.page.starts[i], self.page.ends[j - 1]
        self.spans.append(Span(start, end, kind, rule))
        self.busy[start:end] = b"\1" * (end - start)
        if kind in (PATIENT, PERSON):
            for word, shape in zip(self.words[i:j], self.shapes[i:j], strict=True):
                telling = len(word) > 2 and shape in "CXl" and word not in self.particles
                if telling and word not in self.language.words and word not in self.eponyms:
                    self.people.setdefault(word, kind)
        return j

    def taken(self, i: int) -> bool:
        return bool(self.busy[self.page.starts[i]])

    # ------------------------------------------------------------------ with a cue
    def cued(self) -> None:
        """Find what a cue announces: titles, labels, relations, streets, institutions, places."""
        i = 0
        while i < len(self.words):
            if self.shapes[i] in "dnp" or self.taken(i):
                i += 1
                continue
            count = len(self.spans)
            for cue in self.language.cues.all(self.words, i):
                further = self.after(cue, i)
                if len(self.spans) > count:
                    i = further - 1
                    break
            i += 1

    def after(self, cue: Phrase, i: int) -> int:
        """Read what follows (or precedes) a cue at token ``i``; return where to go on."""
        j = i + len(cue.tokens)
        kind = cue.kind
        if kind.startswith("title"):
            return self.titled(kind, i, j)
        if kind.startswith("label"):
            return self.labelled(kind, i, j)
        if kind == "born":
            if self.words[j : j + 1] == [":"] or self.words[j : j + 1] == ["."]:
                j += 1
            end = self.name(j, sure=False) if self.large(self.over_particles(j)) else j
            if end > j:
                return self.add(j, end, PATIENT, "name after 'née'")
            place = self.language.cues.at(self.words, i)
            return i + 1 if place else j
        if kind in ("relation", "signed"):
            return self.announced(kind, j)
        if kind == "place":
            return self.placed(j)
        if kind.startswith("street"):
            return self.street(kind, i, j)
        return self.institution(kind, i, j)

    def titled(self, kind: str, i: int, j: int) -> int:
        if self.shapes[i] == "l" and self.words[i] == "m":
            return j
        if self.shapes[i] == "I" and self.words[i] != "m":
            return j
        while j < len(self.words) and self.near(j):
            if self.words[j] in (".", "(", ")", "e") and self.page.gap(j) == 0:
                j += 1
                continue
            again = self.language.cues.at(self.words, j)
            if again is None or not again.kind.startswith("title"):
                break
            kind, j = again.kind if kind == "title_patient" else kind, j + len(again.tokens)
        if self.words[j : j + 1] == [":"]:
            j += 1
        found = PATIENT if kind == "title_patient" and not self.related(i) else PERSON
        end = self.name(j, sure=True) if self.near(j) else j
        if end == j:
            return j
        self.add(j, end, found, "name after a title")
        while end < len(self.words) and self.words[end] in ("et", "and", "/", "&", ",", ";", "+"):
            # "Drs Martin et Durand", "Dr Martin / Durand": capitals that are not language
            other = self.name(end + 1, sure=False)
            if other == end + 1 or self.language.cues.at(self.words, end + 1):
                break
            if self.words[end] in ",;" and not self.named(self.words[end + 1]):
                break
            end = self.add(end + 1, other, found, "name after a title")
        return end

    def related(self, i: int) -> bool:
        """Whether a relation stands just before token ``i``: "son épouse Mme", "père : M."."""
        relation = self.language.kind("relation")
        before = [w for w in self.words[max(0, i - 3) : i] if w not in ",:("]
        return bool(before) and before[-1] in relation

    def labelled(self, kind: str, i: int, j: int) -> int:
        marked = False
        while j < len(self.words) and self.words[j] in (":", "=", ".", "°", "*", "|", ")", "_"):
            marked |= self.words[j] in ":=|"
            j += 1
        if not marked and kind != "label_patient":
            return i + 1 if self.language.kind("relation").get(self.words[i]) is None else (
                self.announced("relation", i + 1)
            )
        if marked and self.words[j : j + 1] == ["\n"] and j + 1 < len(self.words):
            j += 1  # the value stands below its label
        if j >= len(self.words) or (not marked and not self.near(j)):
            return j
        again = self.language.cues.at(self.words, j)
        if again is not None and again.kind.startswith("title"):
            if kind == "label_person" and again.kind == "title_patient":
                return self.titled("title_person", j, j + len(again.tokens))
            return self.titled(again.kind, j, j + len(again.tokens))
        if kind == "label_place":
            return self.rest(j, LOCATION, "after an address label") if marked else j
        if kind == "label_institution":
            proper = marked and (self.rare(j) or self.language.cues.at(self.words, j))
            return self.rest(j, INSTITUTION, "after an institution label") if proper else j
        if kind == "label_patient" and not marked:
            end = self.name(j, sure=False) if self.large(j) else j
        else:
            end = self.name(j, sure=True, comma=True)
            end = j if end == j + 1 and self.only_words(j) else end
        if end > j:
            found = PATIENT if kind == "label_patient" else PERSON
            self.add(j, end, found, "name after a label")
            while end < len(self.words) and self.words[end] in (",", ";", "/", "&", "et", "and"):
                other = self.name(end + 1, sure=False)
                if other == end + 1:
                    break
                end = self.add(end + 1, other, found, "name after a label")
        return end

    def only_words(self, j: int) -> bool:
        """A single word of the language in lower case after a label is no name."""
        word = self.words[j]
        return self.shapes[j] == "l" and word in self.language.words

    def announced(self, kind: str, j: int) -> int:
        """Read a name after a relation ("sa fille Marie") or a verb ("relu par")."""
        while j < len(self.words) and self.words[j] in (",", ":", "(", "\n", "le", "la", "l", "'"):
            if self.words[j] == "\n" and kind == "relation":
                return j
            j += 1
        if j >= len(self.words) or self.language.cues.at(self.words, j):
            return j
        end = self.name(j, sure=False) if self.large(self.over_particles(j)) else j
        if end == j or (self.words[j] in self.language.words and not self.named(self.words[j])):
            return j
        return self.add(j, end, PERSON, f"name after a {'relation' if kind == 'relation' else 'verb'}")

    # ------------------------------------------------------------------ places
    def line_end(self, j: int) -> int:
        """Return the index of the line end at or after ``j``, or of a label on the way."""
        k = j
        while k < len(self.words) and self.shapes[k] != "n":
            if k > j and self.page.gap(k) > 3:
                break
            cue = self.language.cues.at(self.words, k) if k > j and self.letters(k) else None
            if cue and cue.kind.startswith("label") and ":" in self.words[k : k + len(cue.tokens) + 2]:
                break
            k += 1
        return k

    def rest(self, j: int, kind: str, rule: str) -> int:
        end = self.line_end(j)
        for k in range(j, end):
            if self.words[k] in ("tel", "telephone", "fax", "phone", "ne", "nee", "born", "dob"):
                end = k
                break
        while end > j and self.words[end - 1] in (",", ";", ".", "-", "|", "(", ":"):
            end -= 1
        return self.add(j, end, kind, rule) if end > j else j

    def placed(self, j: int) -> int:
        """Read a town after a preposition: a capital that is not language, eponym or person."""
        k = self.over_particles(j)
        if not (k < len(self.words) and self.near(k) and self.large(k)):
            return j
        town = self.words[k] in self.language.towns
        if self.page.caps[k] and not town:
            return j
        if not (self.rare(k) or (town and self.shapes[k] == "C")) or self.words[k] in self.eponyms:
            return j
        if self.shapes[k] == "X" and not town and len(self.words[k]) < 5:
            return j
        end = self.town(k)
        return self.add(j if k == j else k, end, LOCATION, "place after a preposition")

    def town(self, k: int) -> int:
        """Return the index after a town that begins at ``k``: "Villeneuve-d'Ascq", "Le Mans"."""
        end = k + 1
        while end < len(self.words):
            if self.words[end] in "-'" and self.page.gap(end) == 0 and self.letters(end + 1):
                end += 2
            elif self.near(end) and (self.rare(end) or self.shapes[end] == "d" and self.digits(end)):
                end += 1
            elif self.words[end] in ("le", "la", "les", "sur", "sous", "en", "lez", "upon", "de", "du", "des", "l", "d", "on") and (
                self.near(end) and end + 1 < len(self.words) and (
                    self.rare(end + 1) or (self.words[end + 1] == "'" and self.large(end + 2))
                )
            ):
                end += 2 if self.words[end + 1] != "'" else 3
            else:
                break
        return end

    def digits(self, i: int) -> bool:
        """Whether token ``i`` is a postcode or the number of a district."""
        return self.page.ends[i] - self.page.starts[i] in (1, 2, 4, 5) and not self.taken(i)

    def street(self, kind: str, i: int, j: int) -> int:
        words, shapes = self.words, self.shapes
        if kind == "street":
            numbered = self.house(i)
            while j < len(words) and (words[j] == "." and self.page.gap(j) == 0):
                j += 1
            k = self.over_particles(j)
            proper = k < len(words) and self.near(k) and self.large(k) and words[k] not in self.heads
            if not proper or (numbered == i and not self.rare(k) and len(words[i]) < 4):
                return j
            if numbered == i and words[k] in self.language.words and (
                self.page.caps[k] or shapes[k] != "C" or words[i] not in ("rue", "avenue", "boulevard")
            ):
                return j
            end = self.until_comma(k)
            return self.address(numbered, end)
        start = i
        while start > 0 and shapes[start - 1] in "CX" and self.near(start):
            start -= 1
        numbered = self.house(start)
        if start == i or numbered == start:
            return j
        return self.address(numbered, j)

    def house(self, i: int) -> int:
        """Return where the house number before token ``i`` begins: "12 bis,"."""
        k = i
        while k > 0 and (self.words[k - 1] in (",", "bis", "ter", "quater", "b", "a") and i - k < 3):
            k -= 1
        if k > 0 and self.shapes[k - 1] == "d" and self.page.ends[k - 1] - self.page.starts[k - 1] < 5:
            return k - 1
        return i

    def until_comma(self, k: int) -> int:
        """Return the index after a street name: capitals, particles and words up to a stop."""
        end = k + 1
        while end < len(self.words) and end - k < 8 and self.near(end):
            word = self.words[end]
            if word in "-'" or word in self.particles or self.large(end):
                if self.page.caps[end] and word in self.not_name:
                    break
                if self.large(end) and word in self.not_name:
                    break
                end += 1
            elif word == "." and self.shapes[end - 1] in "CI" and len(self.words[end - 1]) < 4:
                end += 1
            else:
                break
        while end > k + 1 and (self.words[end - 1] in self.particles or self.words[end - 1] in "-'"):
            if self.large(end - 1) and len(self.words[end - 1]) > 2:
                break
            end -= 1
        return end

    def address(self, start: int, end: int) -> int:
        """Record an address with the house number and the postcode and town that follow."""
        words, k = self.words, end
        while k < len(words) and words[k] in (",", "-", "\n", "/", ";", "(", "bte", "boite", "box", "bus", "n", "°"):
            k += 1
        if k < len(words) and self.shapes[k] == "d" and k > end and not self.taken(k):
            size = self.page.ends[k] - self.page.starts[k]
            if size < 4 and self.words[k - 1] != "\n":  # the number after the street, as in Belgium
                end = k = k + 1
                while k < len(words) and words[k] in (",", "-", "\n", "/", ";"):
                    k += 1
        elif end < len(words) and self.shapes[end] == "d" and self.near(end) and not self.taken(end):
            if self.page.ends[end] - self.page.starts[end] < 4:
                end = k = end + 1
                while k < len(words) and words[k] in (",", "-", "\n", "/", ";", "bte", "boite", "box", "bus"):
                    k += 1
                if k < len(words) and self.shapes[k] == "d" and words[k - 1] in ("bte", "boite", "box", "bus"):
                    end = k = k + 1
                    while k < len(words) and words[k] in (",", "-", "\n"):
                        k += 1
        if k < len(words) and self.large(k) and len(words[k]) == 1 and words[k + 1 : k + 2] == ["-"]:
            k += 2  # B-1000
        code = k < len(words) and self.shapes[k] == "d" and self.page.ends[k] - self.page.starts[k] in (4, 5)
        if code and self.large(k + 1) and self.near(k + 1):
            end = self.until_comma(k + 1)
        elif k > end and k < len(words) and words[end] != "\n" and (
            self.rare(k) or self.shapes[k] in "CX" and words[k] in self.language.towns
        ):
            end = self.town(k)
        return self.add(start, end, LOCATION, "address")

    # ------------------------------------------------------------------ institutions
    def institution(self, kind: str, i: int, j: int) -> int:
        """Read an institution: the name after its head word, or before it, or both."""
        start, end, proper = i, j, 0
        if kind == "institution_after":
            start, proper = self.backwards(i)
        after = self.language.kind("institution")
        if kind == "institution" or (proper == 0 and self.words[j - 1] in after):
            end, more = self.forwards(i, j)
            proper += more
        if not proper:
            return j
        if kind == "institution_after" and self.words[end : end + 1] == ["of"]:
            further, more = self.forwards(i, end + 1)
            end = further if more else end
        return self.add(start, end, INSTITUTION, "institution")

    def forwards(self, i: int, j: int) -> tuple[int, int]:
        """Return the index after an institution's name and how many of its words are names."""
        words, adjective = self.words, self.language.kind("adjective")
        head = words[i]
        if self.shapes[i] == "l" and len(head) <= 3:
            return j, 0
        end = k = j
        proper = 0
        while k < len(words) and k - j < 12 and self.near(k):
            word, shape = words[k], self.shapes[k]
            if word == "." and self.page.gap(k) == 0 and (len(words[k - 1]) <= 3):
                k += 1
            elif word in "-'&" or word in adjective and self.letters(k):
                k += 1
                continue
            elif word in self.particles or word in ("sur", "en", "lez", "les", "l", "d", "of", "the", "aux", "au", "sous", "s", "et", "and", "for"):
                k += 1
                continue
            elif shape in "CX" and word not in self.heads:
                plain = word in self.language.words and not self.page.words[k - 1] in ("-", "'", "saint", "sainte", "st", "ste", "notre")
                if word in self.not_name or (plain and (self.page.caps[k] and words[k - 1] not in ("du", "des", "la", "les", "st", "saint"))):
                    break
                if plain and self.page.caps[k] and proper == 0 and words[i - 1 : i] and self.letters(i - 1) and words[i - 1] in self.language.words and words[i - 1] not in self.language.function:
                    break
                if self.language.cues.at(words, k) is not None and self.language.cues.at(words, k).kind.startswith("label") and ":" in words[k + 1 : k + 3]:
                    break
                proper += 1
                k += 1
            elif shape == "I":
                k += 1
            elif shape == "l" and words[k - 1] in "-'" and self.page.gap(k) == 0:
                k += 1
            else:
                break
            end = k
        return (end, proper)

    def backwards(self, i: int) -> tuple[int, int]:
        """Return where an institution whose head stands last begins, and its count of names."""
        words, adjective = self.words, self.language.kind("adjective")
        k = start = i
        proper = 0
        while k > 0 and i - k < 10 and self.near(k):
            word, shape = words[k - 1], self.shapes[k - 1]
            if self.busy[self.page.starts[k - 1]]:
                break
            if shape in "CX" and word not in self.not_name | adjective.keys() and word not in self.language.function:
                if word in self.language.words and (self.page.caps[k - 1] or self.opens(k - 1)):
                    if not self.named(word) and word not in self.language.towns:
                        break
                proper += 1
                k -= 1
                start = k
            elif shape in "CX" and word in adjective and word not in self.language.function:
                k -= 1
                start = k
            elif word in "-'&." or word in ("s", "of", "and", "the", "st"):
                k -= 1
            else:
                break
        return start, proper

    def opens(self, i: int) -> bool:
        """Whether token ``i`` opens a sentence or a line, where a capital tells nothing."""
        return i == 0 or self.words[i - 1] in (".", ":", "!", "?", ";", "\n", "-", "*", "•", "(", ")", "/", "|", '"', "«", ">")

    # ------------------------------------------------------------------ without a cue
    def free(self) -> None:
        """Find names and towns by form and lexicon alone, where no eponym is meant."""
        words, shapes, language = self.words, self.shapes, self.language
        for i in range(len(words)):
            if shapes[i] not in "CX" or len(words[i]) < 3 or self.taken(i):
                continue
            word = words[i]
            given, family, plain = word in language.given, word in language.family, word not in language.words
            if not (given or family or plain) or word in self.eponyms or self.eponymous(i):
                continue
            if word in self.not_name or word in language.function and not given:
                continue
            if given or family:
                j = self.name(i, sure=False)
                if j > i + 1 and self.pair(i, j):
                    self.add(i, j, PERSON, "first name and surname")
                    continue
            if not plain or self.page.caps[i]:
                if plain and word in language.towns and len(word) > 4 and not (given or family):
                    self.add(i, self.town(i), LOCATION, "town of the lexicon")
                continue
            inside = not self.opens(i)
            if word in language.towns and (inside or self.dated(i)):
                self.add(i, self.town(i), LOCATION, "town of the lexicon")
            elif self.dated(i):
                self.add(i, i + 1, LOCATION, "town before a date")
            elif inside and (given or family) and not self.heading(i):
                self.add(i, self.name(i, sure=False), PERSON, "name of the lexicon")
            elif inside and shapes[i] == "C" and len(word) > 3 and not self.heading(i):
                self.add(i, max(self.name(i, sure=False), i + 1), PERSON, "capital inside a sentence")
            elif self.alone(i):
                self.add(i, self.name(i, sure=False), PERSON, "signature")

    def pair(self, i: int, j: int) -> bool:
        """Whether tokens ``i`` to ``j`` are a first name with a surname, in either order."""
        words = [(k, w) for k, w in enumerate(self.words[i:j], i) if self.shapes[k] in "CX" and len(w) > 1]
        if len(words) < 2:
            return False
        given = [w for _, w in words if w in self.language.given]
        rare = [w for _, w in words if w not in self.language.words]
        family = [w for _, w in words if w in self.language.family]
        return bool(given) and (bool(rare) or len(family) > 1 and len(words) < 4) and (
            len(rare) > 0 or not self.opens(i)
        )

    def eponymous(self, i: int) -> bool:
        """Whether the token stands where an eponym does: "maladie de X", "X's disease", "X sign"."""
        words = self.words
        k = i - 1
        while k > 0 and (words[k] in ("de", "d", "'", "du", "-", "et", "and", "of", "selon", "la", "le") or (
            words[k - 1 : k] == ["-"] and self.page.gap(k) == 0
        )):
            k -= 1
        if k >= 0 and k < i - 1 and words[k] in self.heads:
            return True
        k = i + 1
        while k < len(words) and (words[k] in ("-", "'", "s", "et", "and") or words[k - 1] in ("-", "et", "and")):
            k += 1
        return k < len(words) and words[k] in self.heads and self.language.name != "fr"

    def heading(self, i: int) -> bool:
        """Whether the token belongs to a heading: a colon follows before the line ends."""
        for k in range(i + 1, min(i + 5, len(self.words))):
            if self.words[k] == ":":
                return True
            if self.shapes[k] in "np":
                return False
        return False

    def dated(self, i: int) -> bool:
        """Whether ", le" or ", the" and a date follow at the start of a line: "Lyon, le 3 mai"."""
        if not self.opens(i):
            return False
        j = self.town(i)
        while j < len(self.words) and self.words[j] in (",", "le", "the", "on", "-"):
            j += 1
        return i + 1 < j < len(self.words) and j > self.town(i) and self.taken(j)

    def alone(self, i: int) -> bool:
        """Whether a name fills its line: at most five words, each a name by form or lexicon."""
        if i and self.words[i - 1] != "\n":
            return False
        j = self.name(i, sure=False)
        if j < len(self.words) and self.words[j] not in ("\n", ".", ","):
            return False
        large = [k for k in range(i, j) if self.shapes[k] in "CX"]
        return 1 < len(large) < 6 and all(
            self.rare(k) or self.named(self.words[k]) for k in large
        ) and any(self.named(self.words[k]) for k in large)

    # ------------------------------------------------------------------ again
    def header(self, known: Known) -> None:
        """Search the names of an index in every spelling: case, accents, order, initials, gaps."""
        for names, kind in ((known.names, PATIENT), (known.others, PERSON)):
            parts = {p for name in names for p in pieces(name) if len(p) > 1 and p.isalpha()}
            parts -= set(self.particles) if len(parts) > 1 else set()
            self.parts(parts, kind)

    def parts(self, parts: set[str], kind: str) -> None:
        words, n = self.words, len(self.words)
        longest = max(map(len, parts), default=0)
        for i in range(n):
            word = words[i]
            if word in parts and self.meant(i, parts):
                self.add(i, i + 1, kind, "name of the header")
            elif self.letters(i) and len(word) < longest:
                # "DU PONT", "D U P O N T", "Du-pont": the pieces of one part
                whole, k = word, i + 1
                while k < n and len(whole) < longest and k - i < 2 * longest:
                    if words[k] in "-.'" and self.page.gap(k) <= 1:
                        k += 1
                        continue
                    if not self.letters(k) or self.page.gap(k) > 2:
                        break
                    whole, k = whole + words[k], k + 1
                    if whole in parts and len(whole) > 3:
                        self.add(i, k, kind, "name of the header, in pieces")
                        break
            elif self.letters(i) and len(word) > longest > 3 and any(
                word == a + b for a in parts for b in parts if a != b
            ):
                self.add(i, i + 1, kind, "name of the header, joined")
        initials = {p[0] for p in parts}
        for span in [s for s in self.spans if s.rule == "name of the header"]:
            i = self.at(span.start)
            k = i - 1
            while k >= 0 and (words[k] in ".-" or self.shapes[k] == "I") and self.page.gap(k + 1) <= 1:
                k -= 1
            if k + 1 < i and self.shapes[k + 1] == "I" and words[k + 1] in initials:
                self.add(k + 1, i, kind, "initial of the header")
            if i + 1 < n and self.shapes[i + 1] == "I" and words[i + 1] in initials and (
                self.near(i + 1) and words[i + 2 : i + 3] in ([], ["."], ["\n"], [","])
            ):
                self.add(i + 1, i + 2, kind, "initial of the header")

    def at(self, start: int) -> int:
        from bisect import bisect_left

        return bisect_left(self.page.starts, start)

    def meant(self, i: int, parts: set[str]) -> bool:
        """Whether a part of a known name is meant where it is also a word ("petit", "roche")."""
        word = self.words[i]
        if len(word) < 3 and not self.large(i):
            return False
        ordinary = word in self.language.words or word in self.eponyms
        if not ordinary:
            return len(word) > 2 or self.beside(i, parts)
        if self.beside(i, parts):
            return True
        if self.eponymous(i) or not self.large(i):
            return False
        if self.page.caps[i]:
            return self.taken(i)
        return self.shapes[i] == "X" or not self.opens(i)

    def beside(self, i: int, parts: set[str]) -> bool:
        """Whether another part of the same name stands next to token ``i``."""
        for step in (-1, 1):
            k = i + step
            for _ in range(3):
                if 0 <= k < len(self.words) and (self.words[k] in "-'.," or self.words[k] in self.particles):
                    if self.words[k] in parts and self.words[k] != self.words[i]:
                        return True
                    k += step
            if 0 <= k < len(self.words) and self.words[k] in parts and self.words[k] != self.words[i]:
                return True
        return False

    def repeat(self) -> None:
        """Find again, anywhere, the words of the people found."""
        for i, word in enumerate(self.words):
            kind = self.people.get(word)
            if kind and not self.taken(i) and not self.eponymous(i):
                self.add(i, i + 1, kind, "found elsewhere in the report")


@lru_cache(maxsize=1024)
def folded(name: str) -> str:
    """Return a name as it is compared; kept, since an index repeats them."""
    return fold(name)
