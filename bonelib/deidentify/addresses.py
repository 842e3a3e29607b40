"""Addresses by their street word and postcode; towns by preposition, field and lexicon."""

import re

from bonelib.deidentify import lower_case
from bonelib.deidentify.token_scan import DATE, INSTITUTION, LOCATION, Span, TokenScan
from bonelib.reports.languages import Phrase

POSTCODE = re.compile(r"[ ,]{0,3}([a-z]{1,2}\d[a-z\d]? ?\d[a-z]{2})(?!\w)")


def announced(scan: TokenScan, cue: Phrase, i: int) -> int:
    """Read the place that a cue at token ``i`` announces; return where to go on."""
    j = i + len(cue.tokens)
    if cue.kind in ("label_place", "label_institution"):
        return labelled(scan, cue.kind, j)
    if cue.kind == "place":
        further = placed(scan, j)
        return at_home(scan, j) if further == j and cue.value == "home" else further
    return street(scan, i, j) if cue.kind == "street" else street_after(scan, i, j)


def labelled(scan: TokenScan, kind: str, j: int) -> int:
    """Take the field of an address or institution label, up to a wide gap or the next label."""
    if not scan.sign(j, ":="):
        return j
    j += 1
    if scan.line_end(j) and not scan.label_at(j + 1):
        j += 1

    def value(k: int) -> bool:  # what goes on after a dash with a space is a postcode or a name
        if k > j and (not scan.near(k) or scan.label_at(k) or scan.sign(k, "|;")):
            return False
        if not (scan.sign(k, "-") and scan.gap(k)):
            return not scan.line_end(k)
        name = k + 1 < scan.size and (scan.figures(k + 1) in (4, 5) or scan.rare(k + 1))
        return name and not scan.label_at(k + 1)

    end = scan.forward(j, value)
    while end > j and scan.shapes[end - 1] == "p":
        end -= 1
    if not any(scan.large(k) or scan.figures(k) for k in range(j, end)):
        return j
    if kind == "label_place":
        return address_tail(scan, scan.add(j, end, LOCATION, "after an address label"))
    if any(scan.rare(k) or scan.kind_at(k) == "institution" for k in range(j, end)):
        return scan.add(j, end, INSTITUTION, "after an institution label")
    return j


# ---------------------------------------------------------------------- towns
def placed(scan: TokenScan, j: int) -> int:
    """Read a town after a preposition: a capital that is no word, eponym or person."""
    k = scan.over_particles(j)
    if not scan.capital(k) or scan.words[k] in scan.eponyms:
        return j
    joined = scan.sign(k + 1, "-.") and scan.glued(k + 1)
    if scan.of(k, "saint") and scan.large(k + 1 + joined) and scan.rare(k + 1 + joined):
        return scan.add(k, town_end(scan, k + 1 + joined), LOCATION, "place after a preposition")
    if scan.words[k] not in scan.language.towns:
        short = scan.shapes[k] == "X" and len(scan.words[k]) < 5
        if not scan.rare(k) or scan.caps[k] or short or scan.language.misspelt(scan.words[k]):
            return j
    elif not scan.rare(k) and scan.shapes[k] != "C":
        return j
    return scan.add(j, town_end(scan, k), LOCATION, "place after a preposition")


def at_home(scan: TokenScan, j: int) -> int:
    """Read an address or a town in lower case after "habite", "lives at", where no word is one."""
    k = scan.forward(j, lambda k: scan.sign(k, ":,'") or scan.of(k, "home_link"), most=4)
    if 0 < scan.figures(k) < 5:
        end = small_words(scan, k + 1, most=7)
        last = [x for x in range(k + 1, end) if scan.kind_at(x).startswith("street")]
        if last:
            end = last[-1] + 1 if scan.kind_at(last[-1]) == "street_after" else end
            return address_tail(scan, scan.add(k, end, LOCATION, "address in lower case"))
    end = small_town(scan, k)
    return scan.add(k, end, LOCATION, "town in lower case") if end > k else j


def small_words(scan: TokenScan, k: int, *, most: int) -> int:
    """Return the index after the words in lower case from ``k`` on that may name a street."""

    def of_street(x: int) -> bool:
        near = scan.near(x) and not scan.label_at(x) and not scan.of(x, "place")
        joins = scan.sign(x, "-'") and scan.glued(x) or scan.of(x, "house")
        word = scan.shapes[x] == "l" and not scan.of(x, "home_link")
        function = scan.words[x] in scan.language.function and scan.words[x] not in scan.particles
        return near and (joins or word and not function or scan.sign(x, ",") and x == k + 1)

    return scan.forward(k, of_street, most=most)


def small_town(scan: TokenScan, k: int, *, sure: bool = False) -> int:
    """Return the index after a town in lower case at ``k``; ``k`` if its first word is a word.

    Args:
        sure: An address stands before: a word one letter away from one is a town too.
    """
    if not (k < scan.size and scan.shapes[k] == "l"):
        return k
    known = lower_case.unknown(scan, k) or scan.words[k] in scan.language.towns
    if not (known or sure and scan.plain(k) and len(scan.words[k]) > 2):
        return k
    end = k + 1
    while scan.sign(end, "-'") and scan.glued(end) and scan.glued(end + 1):
        end += 2
    return end


def town_end(scan: TokenScan, k: int) -> int:
    """Return the index after a town that begins at ``k``: "Villeneuve-d'Ascq", "Stoke on Trent"."""
    end = k + 1
    while end < scan.size and end - k < 12:
        inner = scan.sign(end, "-'") and scan.glued(end) and scan.glued(end + 1)
        if inner and scan.letters(end + 1):
            end += 2
        elif scan.near(end) and scan.unusual(end) and not scan.label_at(end):
            end += 1
        elif scan.near(end) and scan.of(end, "town_join"):
            after = end + 1
            while after < k + 12 and (scan.of(after, "town_join") or scan.sign(after, "-'")):
                after += 1
            if not (scan.near(after) and scan.unusual(after)):
                break
            end = after + 1
        else:
            break
    return end


def towns(scan: TokenScan) -> None:
    """Find towns without a cue: of the lexicon, before ", le" and a date, in parentheses."""
    for i, (word, shape) in enumerate(zip(scan.words, scan.shapes, strict=True)):
        if shape not in "CX" or len(word) < 3 or scan.taken(i) or word in scan.not_name:
            continue
        end = town_end(scan, i)
        if not scan.kind_at(i).startswith("title") and dated(scan, i, end):
            scan.add(i, end, LOCATION, "town before a date")
            continue
        if word not in scan.language.towns or len(word) < 4 or not scan.plain(i):
            continue
        if word in scan.eponyms or scan.eponymous(i) or scan.language.misspelt(word):
            continue
        if scan.caps[i] and scan.named(i) or scan.opens(i) and not scan.closes(end):
            continue
        scan.add(i, end, LOCATION, "town of the lexicon")


def dated(scan: TokenScan, i: int, end: int) -> bool:
    """Whether a comma and a date follow at the start of a line or field: "Lyon, le 3 mai"."""
    if scan.near(i) and scan.words[i - 1] not in ("\n", "-", "|", ")"):
        return False

    def of_date(k: int) -> bool:
        article = scan.of(k, "article") or scan.words[k] == "ce"
        return article or scan.sign(k, ",-") or scan.line_end(k)

    j = scan.forward(end, of_date)
    if not (end + 1 <= j < scan.size and scan.sign(end, ",") and scan.taken(j)):
        return False
    return any(s.type == DATE and s.start <= scan.starts[j] < s.end for s in scan.spans)


# ---------------------------------------------------------------------- addresses
def house(scan: TokenScan, i: int) -> int:
    """Return where the house number before token ``i`` begins ("12 bis,"); ``i`` if none does."""
    k = i
    while k > 0 and i - k < 3 and (scan.sign(k - 1, ",") or scan.of(k - 1, "house")):
        k -= 1
    return k - 1 if 0 < scan.figures(k - 1) < 5 and not scan.taken(k - 1) else i


def flat(scan: TokenScan, k: int) -> int:
    """Return where "Flat 2," before a house number at ``k`` begins; ``k`` if none does."""
    box = scan.sign(k - 1, ",") and scan.figures(k - 2) and scan.of(k - 3, "house")
    return k - 3 if box else k


def street(scan: TokenScan, i: int, j: int) -> int:
    """Read an address whose street word stands first: "12 bis, rue du Général de Gaulle"."""
    start = house(scan, i)
    if scan.shapes[i] == "l" and start < i and scan.of(i, "street_sure"):
        end = small_words(scan, j, most=5)
        if not scan.large(end) and any(w not in scan.particles for w in scan.words[j:end]):
            return address(scan, start, end)
    while scan.sign(j, ".") and scan.glued(j) and len(scan.words[j - 1]) < 5:
        j += 1
    k = scan.over_particles(j)
    if scan.of(j, "particle") and scan.figures(j + 1) and scan.sign(j + 2, "-"):
        k = j + 1  # "rue du 8-Mai-1945"
    if not (scan.near(k) and (scan.large(k) or k == j + 1)):
        return j
    sure = scan.of(i, "street_sure")
    if scan.words[k] in scan.heads and not sure:
        return j
    sure &= not scan.caps[k]
    if start == i and not (sure or scan.unusual(k) and len(scan.words[i]) > 2):
        return j
    return address(scan, start, line_of_words(scan, k))


def street_after(scan: TokenScan, i: int, j: int) -> int:
    """Read an address whose street word stands last: "145 Ferry Road", "186 The Crescent"."""

    def of_street(k: int) -> bool:
        particle = scan.words[k] == "s" or scan.shapes[k] == "l" and len(scan.words[k]) == 2
        ordinal = scan.figures(k) in (1, 2, 3) and scan.letters(k + 1) and scan.glued(k + 1)
        return scan.large(k) or scan.sign(k, "'.-") or particle or ordinal

    if scan.shapes[i] == "l" and scan.of(i, "street_sure"):

        def of_small(k: int) -> bool:
            return scan.shapes[k] == "l" and scan.words[k] not in scan.language.function

        start = scan.back(i, of_small, most=3)
        first = house(scan, start) if start < i and not scan.of(start, "unit") else start
        ends = scan.closes(j) or scan.of(j, "home_link")
        return address(scan, flat(scan, first), j) if first < start and ends else j
    start = scan.back(i, of_street, most=7)
    first = house(scan, start)
    if first == start or start == i and j == i + 1:
        return j
    while scan.capital(j) and scan.kind_at(j) == "street_after":
        j += 1  # "Park Avenue"
    return address(scan, flat(scan, first), j)


def suffixed(scan: TokenScan) -> None:
    """Find streets written as one word ("Nieuwstraat 186") and fields of a number and names."""
    endings = tuple(scan.language.kind("street_suffix"))
    for i in range(scan.size):
        numbered(scan, i)
        if scan.words[i].endswith(endings) and scan.large(i) and len(scan.words[i]) > 6:
            j = scan.forward(i + 1, lambda k: scan.words[k] in (",", "n", "°", "nr"))
            if 0 < scan.figures(j) < 5:
                address(scan, scan.back(i, scan.rare), j + 1)
            elif house(scan, i) < i:
                address(scan, house(scan, i), i + 1)


def numbered(scan: TokenScan, i: int) -> None:
    """Find a field that is a house number with capitals, one no word: "10 Bóthar na Trá"."""
    if not 0 < scan.figures(i) < 5 or scan.taken(i):
        return
    if (scan.opens(i) or scan.sign(i - 1, ",")) and scan.capital(i + 1):
        end = line_of_words(scan, i + 1)
        while scan.near(end) and scan.letters(end) and scan.capital(end + 1):
            end = line_of_words(scan, end + 1)  # "na", "an" of other tongues
        if scan.closes(end) and scan.unusual(i + 1) and end - i > 2 and not scan.sign(end, ":%."):
            address(scan, flat(scan, i), end)
        return
    measure = scan.sign(i + 1, ".:/-°") and scan.glued(i + 1)
    if scan.closes(i + 1) and scan.near(i) and not measure:
        start = scan.back(i - 1 if scan.sign(i - 1, ",") else i, scan.large)
        rare = all(scan.rare(k) for k in range(start, i) if scan.letters(k))
        if i - start > 1 and scan.opens(start) and rare:
            address(scan, start, i + 1)


def line_of_words(scan: TokenScan, k: int) -> int:
    """Return the index after a street name: capitals, particles and signs up to a stop."""

    def of_name(end: int) -> bool:
        word = scan.words[end]
        if not scan.near(end):
            return False
        number = scan.figures(end) and scan.glued(end) and scan.sign(end - 1, "-")
        if number or word in scan.particles or scan.joins(end):
            return True
        if scan.large(end) and word not in scan.not_name and not scan.label_at(end):
            return True
        return word == "." and scan.shapes[end - 1] in "CI" and len(scan.words[end - 1]) < 4

    end = scan.forward(k + 1, of_name, most=8)
    while end > k + 1:
        particle = scan.shapes[end - 1] == "l" and scan.words[end - 1] in scan.particles
        if not particle and not scan.sign(end - 1, "-'"):
            break
        end -= 1
    return end


def address(scan: TokenScan, start: int, end: int) -> int:
    """Record a street with its numbers, then the postcode and town that follow it."""
    k = street = end
    while scan.sign(k, ",-/°") or scan.of(k, "house") and (k > end or len(scan.words[k]) > 1):
        k += 1
    while 0 < scan.figures(k) < 4 and (scan.near(k) or k > street) and not scan.taken(k):
        street = k = k + 1  # the number after the street, and the box
        if scan.letters(k) and scan.glued(k) and len(scan.words[k]) == 1:
            street = k = k + 1
        k = scan.forward(k, lambda k: scan.sign(k, ",/") or scan.of(k, "house"))
    if k > street and scan.figures(k) and scan.of(k - 1, "house"):
        street = k + 1
    return address_tail(scan, scan.add(start, street, LOCATION, "address"))


def address_tail(scan: TokenScan, end: int) -> int:
    """Record the postcode and town after an address, on the same line or the next."""
    k = first = scan.forward(end, lambda k: scan.sign(k, ",-/|;(") or scan.line_end(k), most=4)
    if scan.large(k) and len(scan.words[k]) <= 2 and scan.sign(k + 1, "-"):
        k += 2  # B-1000
    town = scan.over_particles(k + 1)
    if scan.figures(k) in (4, 5) and scan.large(town):
        return scan.add(first, line_of_words(scan, town), LOCATION, "town of an address")
    linked = first + scan.of(first, "home_link")
    coded = linked + (scan.figures(linked) == 5)  # a postcode before a town in lower case
    last = small_town(scan, coded, sure=True)
    if last > coded and (coded > first or scan.closes(last) or scan.figures(last + 1)):
        end = scan.add(linked, last, LOCATION, "town in lower case")
        code = POSTCODE.match(scan.folded, scan.ends[end - 1])
        if code:  # in capitals ``numbers`` finds it
            scan.record(Span(*code.span(1), LOCATION, "postcode in lower case"))
        return end
    if first > end and not scan.line_end(end) and scan.large(k) and not scan.label_at(k):
        last = max(line_of_words(scan, k), town_end(scan, k))
        field = scan.closes(last) and scan.plain(k)
        rare = any(scan.unusual(x) for x in range(k, last))
        if rare or scan.words[k] in scan.language.towns or field:
            return scan.add(k, last, LOCATION, "town of an address")
    return end


def before_codes(scan: TokenScan) -> None:
    """Extend postcodes that follow their town ("Bury St Edmunds IP33 1LS", "Boise, ID 83702")."""

    def of_town(k: int) -> bool:
        dash = scan.sign(k, "-") and not scan.gap(k)
        word = scan.large(k) or scan.sign(k, "'.") or dash or scan.of(k, "town_join")
        return word and not scan.taken(k)

    for span in [s for s in scan.spans if s.rule == "postcode"]:
        i = scan.at(span.start)
        last = i - 1 if scan.sign(i - 1, ",") else i
        start = scan.back(last, of_town, most=7)
        while start < last and not scan.large(start):
            start += 1
        if start < last:
            start = fields_before(scan, start)
            scan.add(start, i, LOCATION, "town before its postcode")


def fields_before(scan: TokenScan, start: int) -> int:
    """Return where the fields of an address that ends in a postcode begin, its house among them.

    "Flat 9, Cobbler's Yard, Nether Hallow, NG99 3XB": capitals and figures between commas; where no
    house begins them, the town alone.
    """

    def of_field(k: int) -> bool:
        number = 0 < scan.figures(k) < 5 or scan.of(k, "house")
        word = scan.large(k) or number or scan.words[k] == "s" or scan.of(k, "town_join")
        return (word or scan.sign(k, "'.-/")) and not scan.taken(k) and not scan.label_at(k)

    near = start
    for _ in range(5):
        comma = start - 1 - (scan.line_end(start - 1) and scan.sign(start - 2, ","))
        if not scan.sign(comma, ",") or scan.taken(comma):
            break
        first = scan.back(comma, of_field, most=7)
        while first < comma and not (
            scan.large(first) or scan.figures(first) or scan.of(first, "house")
        ):
            first += 1
        titled = any(scan.kind_at(k).startswith("title") for k in range(first, comma))
        if first == comma or titled:
            break
        start = first
        if scan.figures(first) or scan.of(first, "house"):
            return flat(scan, start)
    return near
