"""Names of people by form and lexicon alone: no cue stands before them, and no eponym is meant.

"Sunniva Thorvaldsen", "J. Dupont", "DIOUF Serigne, 27 ans", "Oyelaran, Temitope", "LM to ring him".
"""

import re

from bonelib.deidentify import lower_case
from bonelib.deidentify.token_scan import LOCATION, PATIENT, PERSON, TokenScan

# "SUVmax", "BrAIST": a capital inside a word, but "McKay", "DeSouza"
ACRONYM = re.compile(
    "(?!Mc|Mac|D[aeiou]|Dos|La|Le|Fitz|Van|O|Al|El|Ben|Ten|St|Abu|Ibn)(?:\\w*[a-zß-ÿ][A-ZÀ-Þ]|[A-ZÀ-Þ]{2,}[a-zß-ÿ])"
)


def free(scan: TokenScan) -> None:
    """Find names by form and lexicon alone, where no eponym is meant."""
    language = scan.language
    by_capital = not language.kind("noun_capitals")  # German writes every noun so
    for i, (word, shape) in enumerate(zip(scan.words, scan.shapes, strict=True)):
        if shape not in "CXI" or scan.taken(i):
            continue
        if shape == "I":
            initial(scan, i)
            continue
        given, named, plain = word in language.given, scan.named(i), scan.plain(i)
        if len(word) in (2, 3) and shape == "X" and (scan.opens(i) or scan.sign(i - 1, ",/")):
            staff(scan, i)
            continue
        if len(word) < 3 or not (named or plain) or scan.eponymous(i):
            continue
        if word in scan.not_name or (word in language.function and not given):
            continue
        if scan.numeral(i) or scan.head(i) or scan.of(i, "title_patient"):
            continue
        if named:
            j = scan.name(i, sure=False)
            if j > i + 1 and paired(scan, i, j):
                scan.person(i, j, PERSON, "first name and surname")
                continue
        if plain and (end := reversed_name(scan, i)) > i:
            scan.person(i, end, PERSON, "surname and first name")
            continue
        if word in scan.eponyms or not plain or scan.caps[i]:
            continue
        inside = not scan.opens(i) and not heading(scan, i) and not (thing(scan, i) and not given)
        noun = shape == "C" and len(word) > 3 and by_capital
        noun &= not ACRONYM.match(scan.text, scan.starts[i], scan.ends[i])  # "SUVmax", "BrAIST"
        j = max(scan.name(i, sure=False), i + 1)
        if inside and named:
            scan.person(i, j, PERSON, "name of the lexicon")
        elif noun and inside and not language.misspelt(word):
            first = scan.back(i, lambda k: forename(scan, k), most=2)
            scan.person(first, j, PERSON, "capital inside a sentence")
        elif shape == "X" and len(word) > 2 and begins_with_surname(scan, i):
            scan.person(i, scan.name(i, sure=True, comma=True), PERSON, "surname in capitals")
        elif noun and scan.opens(i) and subject(scan, j):
            if lower_case.unknown(scan, i):
                scan.person(i, j, PERSON, "name that opens a sentence")
        elif alone(scan, i, j):
            scan.person(i, j, PERSON, "signature")
        elif lonely(scan, i, j):
            scan.add(i, j, LOCATION, "capital alone in its field")


def reversed_name(scan: TokenScan, i: int) -> int:
    """Return the index after "Oyelaran, Temitope" or "Wójcik, B."; ``i`` if there is none."""
    if scan.words[i] in scan.eponyms or not (
        scan.opens(i) or scan.closes(i) or scan.figures(i - 1)
    ):
        return i
    k = i + 1
    while scan.sign(k, "-'") and scan.glued(k) and scan.glued(k + 1) and scan.large(k + 1):
        k += 2
    if not scan.sign(k, ",") or not scan.capital(k + 1) or scan.words[k + 1] in scan.eponyms:
        return i
    letter = scan.shapes[k + 1] == "I" and scan.sign(k + 2, ".")
    first = scan.words[k + 1] in scan.language.given and scan.plain(k + 1)
    begins = i == 0 or scan.line_end(i - 1)
    listed = scan.sign(i - 1, ".)") and scan.figures(i - 2)  # "1. Oyelaran, Temitope"
    known = (scan.named(i) or begins) and scan.rare(k + 1) and scan.closes(k + 2)
    known |= begins and scan.rare(k + 1) and scan.capital(k + 2) and not scan.near(k + 3)
    known |= bool(listed) and scan.rare(k + 1)
    if not (letter or first or known) or scan.label_at(k + 1):
        return i
    return max(scan.name(k + 1, sure=True), k + 2)


def bracketed(scan: TokenScan) -> None:
    """Find a name in brackets after a name: "Mme Etcheberry (Maialen)", 'Peel ("Bunny")'."""
    for span in [s for s in scan.spans if s.type in (PATIENT, PERSON)]:
        i = scan.at(span.end)
        if not scan.sign(i, "(") or scan.taken(i):
            continue
        k = i + 1 + scan.sign(i + 1, "\"'«“")
        last = k + 1 + scan.sign(k + 1, "\"'»”")
        name = scan.rare(k) and scan.shapes[k] == "C" and scan.words[k] not in scan.not_name
        if name and not scan.taken(k) and scan.sign(last, ")") and not scan.head(k):
            scan.person(k, k + 1, span.type, "name in brackets")


def subject(scan: TokenScan, j: int) -> bool:
    """Whether what stands behind a capital says that it is a person: "is 15", ", 69,", "(wife)"."""
    if scan.near(j) and scan.letters(j):
        return scan.of(j, "person_verb")
    k = j + 1
    if not scan.sign(j, ",(") or not scan.near(k):
        return False
    who = any(scan.of(k, kind) for kind in ("relation", "role", "profession", "person_verb"))
    aged = 0 < scan.figures(k) < 3 and (scan.closes(k + 1) or scan.of(k + 1, "age"))
    return who or aged and not scan.glued(k + 1)


def begins_with_surname(scan: TokenScan, i: int) -> bool:
    """Whether a line begins with a surname in capitals and a first name: "DIOUF Serigne, 27"."""
    if not (i == 0 or scan.line_end(i - 1)) or scan.words[i] in scan.eponyms:
        return False
    k = scan.forward(i + 1, lambda k: scan.sign(k, "-'") or scan.shapes[k] == "X", most=6)
    first = scan.capital(k) and scan.shapes[k] == "C" and scan.rare(k)
    return first and scan.words[k] not in scan.eponyms and not scan.label_at(i)


def forename(scan: TokenScan, k: int) -> bool:
    """Whether a capitalised word inside a sentence may begin the name behind it: "Winsome Peel"."""
    word = scan.words[k]
    listed = word in scan.not_name or word in scan.eponyms or scan.head(k) or scan.kind_at(k)
    inside = scan.shapes[k] == "C" and not scan.opens(k) and not scan.taken(k)
    return inside and not listed and word not in scan.language.function


def thing(scan: TokenScan, i: int) -> bool:
    """Whether a capital stands where a thing is named, not a person: "a Zimmer", "Philips Achieva".

    In French also straight behind a noun: "protocole X", but "dossier X" and "fracture de X".
    """
    before = i - 1
    if scan.of(before, "determiner") and scan.shapes[before] == "l":
        return not scan.of(i + 1, "household")  # "the Okonkwo sisters"
    if scan.capital(i) and scan.large(before) and scan.words[before] in scan.eponyms:
        return True
    if "noun_first" not in scan.language.kind("eponym_side"):
        return False
    noun = i - 1
    if not (scan.near(i) and scan.letters(noun)) or scan.plain(noun):
        return False
    person = any(
        scan.of(noun, kind) for kind in ("person_noun", "relation", "role", "profession", "place")
    )
    word = scan.words[noun]
    return scan.shapes[noun] == "l" and not person and word not in scan.language.stops


def staff(scan: TokenScan, i: int) -> None:
    """Find initials of staff that fill a line: "JM/cd", or "JM" where a J. M. is named."""
    k = i + 1
    if scan.of(k, "tasked") and scan.of(k + 1, "task") and scan.plain(i):
        scan.add(i, k, PERSON, "initials of staff")  # "LM to ring him"
    elif scan.sign(k, "/") and scan.glued(k) and scan.glued(k + 1) and scan.letters(k + 1):
        if not scan.opens(i) and not (scan.plain(i) and scan.closes(k + 2)):
            return  # "AP/lat"
        if scan.closes(k + 2) and len(scan.words[k + 1]) in (2, 3) and scan.shapes[k + 1] in "lX":
            scan.add(i, k, PERSON, "initials of staff")
            scan.add(k + 1, k + 2, PERSON, "initials of staff")
    elif (i == 0 or scan.line_end(i - 1)) and (k >= scan.size or scan.line_end(k)):
        for span in [s for s in scan.spans if s.type == PERSON]:
            tokens = range(scan.at(span.start), scan.at(span.end))
            letters = {scan.words[x][0] for x in tokens if scan.letters(x)}
            if set(scan.words[i]) <= letters:
                scan.add(i, k, PERSON, "initials of staff")
                return


def initial(scan: TokenScan, i: int) -> None:
    """Find an initial with its surname, "J. Dupont" or "M.SMITH", wherever it stands."""
    k = i
    while k - i < 8 and scan.shapes[k : k + 1] == ["I"]:
        if not (scan.sign(k + 1, ".") and scan.glued(k + 1)):
            break
        k += 2
        if scan.sign(k, "-") and scan.glued(k):
            k += 1
    if k == i or k >= scan.size or scan.gap(k) > 1 or scan.line_end(k):
        return
    start = scan.over_particles(k)
    if not scan.large(start) or scan.shapes[start] == "I" or scan.taken(start):
        return
    begins = scan.opens(i) or scan.shapes[i - 1] == "p" or not scan.near(i)
    sure = scan.plain(start) and (begins or scan.named(start))
    listed = scan.named(start) and not scan.caps[start] and begins
    end = scan.name(k, sure=True) if scan.glued(k) or sure or listed else k
    if end > k:
        scan.person(i, end, PERSON, "initial and surname")


def paired(scan: TokenScan, i: int, j: int) -> bool:
    """Whether tokens ``i`` to ``j`` are a first name with a surname, in either order."""
    names = [k for k in range(i, j) if scan.shapes[k] in "CX" and len(scan.words[k]) > 1]
    given = [k for k in names if scan.words[k] in scan.language.given]
    rare = [k for k in names if scan.plain(k) and scan.words[k] not in scan.eponyms]
    if len(names) < 2 or not given or not rare:
        return False
    if any(scan.plain(k) for k in given):
        return True
    # "petite image claire": words that are names too
    family = any(scan.words[k] in scan.language.family for k in rare)
    inside = scan.shapes[i] in "CX" and not scan.opens(i)
    return not scan.caps[i] and (family or inside)


def heading(scan: TokenScan, i: int) -> bool:
    """Whether the token belongs to a heading: a colon follows before the line ends."""
    for k in range(i + 1, min(i + 5, scan.size)):
        if scan.words[k] == ":":
            return True
        if scan.shapes[k] in "np" and not scan.sign(k, "-'"):
            return False
    return False


def lonely(scan: TokenScan, i: int, j: int) -> bool:
    """Whether a capitalised word that is no word of the language fills its field in the header."""
    if len(scan.words[i]) <= 3 or scan.language.misspelt(scan.words[i]):
        return False
    before = not scan.near(i) or scan.words[i - 1] in ("\n", "|", "-")
    return before and (not scan.near(j) or scan.words[j] in ("|", ".", "-"))


def alone(scan: TokenScan, i: int, j: int) -> bool:
    """Whether a name fills its line or field: each word a name by form, one by lexicon."""
    before = not scan.near(i) or scan.line_end(i - 1)
    if not before or scan.near(j) and not scan.sign(j, ".,"):
        return False
    large = [k for k in range(i, j) if scan.shapes[k] in "CX"]
    return 1 < len(large) < 6 and any(scan.named(k) for k in large)
