"""Institutions by their head word: "CHU de Lyon", "St Mary's Hospital", "Clinique du Parc"."""

from bonelib.deidentify import addresses, lower_case
from bonelib.deidentify.token_scan import INSTITUTION, LOCATION, TokenScan
from bonelib.reports.languages import Phrase


def announced(scan: TokenScan, cue: Phrase, i: int) -> int:
    """Read an institution: the name after its head word, or before it, or both."""
    j = i + len(cue.tokens)
    if scan.of(j + scan.of(j, "town_join"), "profession"):
        return j  # "Royal College of Radiologists"
    longer = cue.value == "capital" and scan.kind_at(j).startswith("institution")
    if longer or cue.value == "capital" and not ambiguous(scan, i):
        return j  # "Ewing primary", "lung base"
    if found := uncapitalised(scan, cue, i, j):
        return after_institution(scan, scan.add(*found, INSTITUTION, "institution"))
    if scan.shapes[i] == "l" and len(scan.words[i]) <= 3:
        return directed(scan, cue, i, j)
    if cue.value == "capital":
        start = scan.back(i, lambda k: scan.large(k) and scan.words[k] not in scan.not_name)
        start += scan.opens(start) and start < i - 1 and not scan.rare(start)  # "See Alder Ward"
        end, proper = j, i - start
    elif cue.kind == "institution_after":
        start, end, proper = around(scan, i, j)
    else:
        if scan.letters(i - 1) and scan.near(i) and scan.caps[i]:
            function = scan.words[i - 1] in scan.language.function
            if not function and not scan.of(i - 1, "institution_before"):
                return j  # "HISTOIRE CLINIQUE"
        start, (end, proper) = i, forwards(scan, j)
    if not proper:
        return directed(scan, cue, i, j)
    start = scan.back(start, lambda k: scan.of(k, "institution_before") and scan.large(k))
    return after_institution(scan, scan.add(start, end, INSTITUTION, "institution"))


def ambiguous(scan: TokenScan, i: int) -> bool:
    """Whether a head that is a word of reports too stands behind a name: "Ashdale Royal"."""
    before = scan.words[i - 1] if i else ""
    if not (scan.capital(i) and scan.large(i - 1)) or before in scan.eponyms:
        return False
    known = scan.eponymous(i - 1) or scan.language.misspelt(before)
    return scan.rare(i - 1) and not known


def directed(scan: TokenScan, cue: Phrase, i: int, j: int) -> int:
    """Read an institution that a direction names: "hôpital nord", "West Clinic"."""
    if not (scan.of(i, "institution_lower") or scan.large(i) or len(cue.tokens) > 1):
        return j
    if cue.kind == "institution_after":
        start = scan.back(i, lambda k: scan.of(k, "adjective") and not scan.of(k, "town_join"))
        named = any(scan.of(k, "direction") for k in range(start, i))
        return scan.add(start, j, INSTITUTION, "institution by direction") if named else j
    k = scan.forward(j, lambda k: scan.near(k) and (scan.of(k, "town_join") or scan.sign(k, "-'")))
    linked = k > j and scan.sign(k - 1, "-'")
    if not (scan.near(k) and scan.of(k, "direction")) or k > j and not linked:
        return j  # "le centre au nord du trait"
    # "la clinique est rassurante": a verb, unless an article or a capital says otherwise
    verb = scan.words[k] == "est" and not linked and scan.shapes[k] == "l"
    return j if verb else scan.add(i, k + 1, INSTITUTION, "institution by direction")


def uncapitalised(scan: TokenScan, cue: Phrase, i: int, j: int) -> tuple[int, int] | None:
    """Return the tokens of an institution in lower case, named by a saint or an unknown word."""
    heads = scan.of(i, "institution_lower") or len(cue.tokens) > 1
    if scan.shapes[i] != "l" or not heads or scan.of(i - 1, "institution_common"):
        return None

    def names(k: int) -> bool:
        known = scan.letters(k) and scan.words[k] in scan.language.towns
        return known or lower_case.unknown(scan, k, usual=True)

    if cue.kind == "institution_after":
        k = scan.back(i, lambda k: scan.of(k, "adjective"), most=3)
        placed = scan.near(k - 1) and (scan.of(k - 2, "place") or scan.of(k - 2, "article"))
        placed |= scan.near(k - 1) and scan.of(k - 2, "institution_common")
        named = k > 0 and scan.near(k) and names(k - 1) and scan.shapes[k - 1] == "l"
        return (k - 1, j) if named and placed else None
    if not (scan.of(i - 1, "article") or scan.of(i - 1, "place") or scan.sign(i - 1, "'")):
        return None  # "examen clinique"
    k = scan.forward(j, lambda k: scan.near(k) and scan.of(k, "town_join"))
    saint = scan.near(k) and scan.words[k] in ("saint", "sainte", "st", "ste")
    if saint:
        k += 1 + scan.sign(k + 1, "-.")
    if not (scan.near(k) and scan.letters(k) and (saint or names(k))):
        return None
    while scan.sign(k + 1, "-'") and scan.glued(k + 1) and scan.letters(k + 2):
        k += 2
    return i, k + 1


def around(scan: TokenScan, i: int, j: int) -> tuple[int, int, int]:
    """Return start, end and count of names of an institution whose head stands last."""
    start, proper = backwards(scan, i)

    def adjective(k: int) -> bool:
        last = scan.of(k, "adjective") or scan.kind_at(k) == "institution_after"
        return scan.capital(k) and last

    end = scan.forward(j, adjective)
    whole = field(scan, start, end)
    start, proper = whole, proper + (whole < start)
    town = scan.capital(end) and scan.rare(end)
    if not proper and town and not scan.eponymous(end):
        end, proper = addresses.town_end(scan, end), 1  # "University Hospital Letterkenny"
    if proper and end < scan.size and scan.words[end] in ("of", "at") and scan.large(end + 1):
        end = addresses.town_end(scan, end + 1)
    if proper and scan.capital(end) and scan.rare(end) and not scan.label_at(end):
        end = addresses.town_end(scan, end)
    return start, end, proper


def after_institution(scan: TokenScan, end: int) -> int:
    """Record a town in parentheses or after a comma that ends the field: "CHU (Annecy)"."""
    if scan.line_end(end) and scan.sign(end + 1, "("):
        end += 1
    if not scan.sign(end, "(,") or not scan.large(end + 1) or scan.kind_at(end + 1):
        return end
    town = addresses.town_end(scan, end + 1)
    last = max(addresses.line_of_words(scan, end + 1), town)
    if scan.sign(end, "("):
        ends = scan.sign(last, ")")
    elif scan.closes(last):
        ends = scan.words[end + 1] not in scan.not_name
    else:  # "seen at St Anne's Hospital, Stourmere last week"
        ends, last = scan.rare(end + 1) and not scan.caps[end], town
    if not ends:
        return end
    return after_institution(scan, scan.add(end + 1, last, LOCATION, "town of an institution"))


def forwards(scan: TokenScan, j: int) -> tuple[int, int]:
    """Return the index after an institution's name and how many of its words are names."""
    if scan.caps[j - 1]:  # in capitals words and names look alike: take a short field whole

        def of_field(k: int) -> bool:
            word = scan.letters(k) or scan.sign(k, "-'.") and scan.glued(k)
            return (
                word and scan.near(k) and not (scan.label_at(k) or scan.words[k] in scan.not_name)
            )

        k = scan.forward(j, of_field, most=9)
        if scan.closes(k) and not scan.sign(k, ":"):
            names = [x for x in range(j, k) if scan.large(x) and not scan.of(x, "adjective")]
            proper = sum(len(scan.words[x]) > 2 for x in names)
            return (k, proper) if k - j < 9 else (j, 0)
    end, proper = j, 0
    for k in range(j, min(scan.size, j + 14)):
        if not scan.near(k):
            break
        word, before, saint = scan.words[k], scan.words[k - 1], scan.of(k - 1, "saint")
        stop = word == "." and scan.glued(k) and (saint or scan.shapes[k - 1] == "I")
        common = scan.letters(k) and scan.of(k, "adjective") and not scan.label_at(k)
        linked = word in scan.particles or scan.of(k, "town_join") or scan.joins(k, "-'&")
        if stop or common or linked:
            continue
        if scan.shapes[k] in "CX" and word not in scan.heads and not scan.label_at(k):
            held = saint or before in "-'" or scan.plain(k) or scan.named(k)
            if word in scan.not_name or scan.kind_at(k).startswith("title"):
                break
            if scan.caps[k] and not held:
                break
            proper += 1
        elif scan.shapes[k] != "I":
            break
        end = k + 1
    return end, proper


def backwards(scan: TokenScan, i: int) -> tuple[int, int]:
    """Return where an institution whose head stands last begins, and its count of names."""
    k = start = i
    proper = 0
    while k > 0 and i - k < 10 and scan.near(k):
        word, capital = scan.words[k - 1], scan.shapes[k - 1] in "CX"
        saint = scan.of(k - 1, "saint")
        ordinary = word in scan.not_name or word in scan.language.function and not saint
        if capital and (scan.of(k - 1, "adjective") or scan.of(k - 1, "institution_common")):
            start = k - 1
        elif capital and not ordinary:
            if scan.label_at(k - 1) or scan.kind_at(k - 1).startswith("title"):
                break
            # a word of the language names a place only beside one that is none
            town = scan.named(k - 1) or word in scan.language.towns or scan.opens(k - 1) or saint
            if scan.caps[k - 1] and not scan.plain(k - 1) and not town:
                break
            proper += 1
            start = k - 1
        elif not (scan.joins(k - 1, "-'&.") or scan.of(k - 1, "town_join") or word == "s"):
            break
        k -= 1
    return start, proper


def field(scan: TokenScan, start: int, end: int) -> int:
    """Return where a name of common words before a head begins; ``start`` if there is none.

    "LONG ACRE HOSPITAL", "at Mobile Clinic": nothing in such words says that they name a place,
    but they fill a field up to the head, or stand between a preposition of place and the head.
    """
    k, named = start, False
    while k > 0 and start - k < 4 and scan.near(k) and scan.large(k - 1):
        word = scan.words[k - 1]
        listed = any(scan.of(k - 1, kind) for kind in ("place", "institution_common"))
        if listed or word in scan.language.function or named and word in scan.not_name:
            break
        if scan.label_at(k - 1) or scan.kind_at(k - 1).startswith(("title", "credential")):
            break
        if scan.language.vocabulary.at(scan.words, k - 1):
            break
        k -= 1
        named |= not scan.of(k, "adjective")
    after_preposition = scan.near(k) and scan.of(k - 1, "place")
    opened = scan.opens(k) or scan.sign(k - 1, ",") or not scan.near(k)
    return k if named and (after_preposition or opened and scan.closes(end)) else start
