"""Names of people: after titles, labels, relations and verbs, and by form alone."""

from bonelib.deidentify import addresses, lower_case
from bonelib.deidentify.lower_case import small
from bonelib.deidentify.token_scan import LOCATION, PATIENT, PERSON, TokenScan
from bonelib.reports.languages import Phrase

NO_TOWN = ("title", "role", "inst", "street", "label", "signed", "typist")


def announced(scan: TokenScan, cue: Phrase, i: int) -> int:
    """Read the name that a cue of a person at token ``i`` announces; return where to go on."""
    j = i + len(cue.tokens)
    if cue.kind.startswith("title"):
        return titled(scan, cue.kind, i, j)
    if cue.kind.startswith("label"):
        return labelled(scan, cue.kind, i, j)
    if cue.kind == "born":
        while scan.sign(j, ":.") or scan.line_end(j) and not scan.label_at(j + 1):
            j += 1
        end = scan.name(j, sure=True) if scan.large(scan.over_particles(j)) else j
        return scan.person(j, end, PATIENT, "name after 'née'") if end > j else j
    if cue.kind == "credential":
        return credited(scan, i, j)
    return weakly(scan, cue.kind, i, j)


def titled(scan: TokenScan, kind: str, i: int, j: int) -> int:
    """Read after "Dr", "Mme", "M.": one name, or several with "et" or a slash between them."""
    if scan.words[i] == "m" and (scan.shapes[i] == "l" or scan.glued(j)):
        if scan.glued(j) or scan.figures(i - 1) or not small(scan, j):
            return j  # a unit, or an initial: "M.Smith"
    while j < scan.size and j - i < 12 and (scan.near(j) or scan.line_end(j)):
        if scan.glued(j) and (scan.sign(j, ".()") or scan.words[j] == "e"):
            j += 1
            continue
        ahead = j + 1 if scan.line_end(j) else j  # a name may be broken off its title
        title = scan.cue_at(ahead)
        if title is None or not title.kind.startswith("title") or title.tokens[0] == "m":
            break  # after a title, "M." is an initial
        if title.kind == "title_person":
            kind = title.kind
        j = ahead + len(title.tokens)
    if scan.sign(j, ":"):
        j += 1
    broken = scan.line_end(j) and scan.gap(j) <= 2
    if broken and scan.large(scan.over_particles(j + 1)):
        j += not scan.label_at(j + 1)
    elif not scan.near(j):
        return j
    of = PATIENT if kind == "title_patient" and not related(scan, i) else PERSON
    if small(scan, j):
        weak = scan.of(i, "weak_title") or scan.of(i + 1, "weak_title") or scan.words[i] == "m"
        end = lower_case.name(scan, j, sure=not weak, comma=of == PATIENT)
        if end == j and scan.words[i] == scan.righted[i] and not scan.of(i, "weak_title"):
            end = lower_case.surname(scan, j, clear=scan.of(i, "clear_title"))
    else:
        end = scan.name(j, sure=True, comma=of == PATIENT)
    if end == j:
        return j if small(scan, j) and scan.plain(j) else initials(scan, j)
    scan.person(j, end, of, "name after a title")
    return others(scan, end, of, "name after a title")


def others(scan: TokenScan, end: int, of: str, rule: str) -> int:
    """Go on after a name with "et", "/", "&" or a comma: "Drs Martin et Durand"."""
    town = town_of_colleague(scan, end + 1) if scan.sign(end, ",") else 0
    if town:
        given = scan.words[end + 1] in scan.language.given
        scan.add(end + 1, town, PERSON if given else LOCATION, "place after a name")
        return addresses.address_tail(scan, town)
    while scan.of(end, "joiner") or scan.sign(end, "/&,;+"):
        j, comma = end + 1, scan.sign(end, ",;")
        j += scan.line_end(j)
        if scan.kind_at(j) and not scan.named(j) or not scan.large(scan.over_particles(j)):
            break
        other = scan.name(j, sure=not comma)
        if other == j or scan.label_at(j) or comma and not scan.named(j):
            break
        end = scan.person(j, other, of, rule)
    return end


def town_of_colleague(scan: TokenScan, j: int) -> int:
    """Return the index after a town in the field after a name ("Dr Besnard, Alost"), or 0."""

    def rare_capital(k: int) -> bool:
        return scan.large(k) and scan.rare(k)

    def of_town(k: int) -> bool:
        joins = scan.sign(k, "-'") and scan.glued(k) or scan.of(k, "town_join")
        word = scan.large(k) or joins or k > j and 0 < scan.figures(k) < 5
        return word and (k == j or scan.near(k))

    if scan.line_end(j) and rare_capital(j + 1):
        j += 1
    if not scan.large(j) and not scan.figures(j):
        return 0
    if scan.of(j, "article") and not rare_capital(j + 1):
        return 0
    end = scan.forward(j, of_town, most=7)
    for k in range(j, end):
        if scan.words[k] in scan.not_name or scan.kind_at(k).startswith(NO_TOWN) or scan.taken(k):
            return 0
    short = not any(len(word) > 2 for word in scan.words[j:end])
    return end if end > j and scan.closes(end) and not scan.sign(end, ":") and not short else 0


def related(scan: TokenScan, i: int) -> bool:
    """Whether a relation stands just before token ``i``: "son épouse Mme", "père : M."."""
    before = [w for w in scan.words[max(0, i - 3) : i] if w not in ",:("]
    return bool(before) and before[-1] in scan.language.kind("relation")


def labelled(scan: TokenScan, kind: str, i: int, j: int) -> int:
    """Read the field of a label: "Nom : DUPONT, Jean", "Prescripteur : Dr Petit / Dr Roux"."""
    marked = False
    while scan.sign(j, ":=.°*|)_") or scan.line_end(j) and scan.sign(j + 1, ":"):
        marked |= scan.sign(j, ":=|")
        j += 1
    if not marked and kind != "label_patient":
        return i + 1
    if marked and scan.line_end(j) and not scan.label_at(j + 1):
        j += 1  # the value stands below its label
    if j >= scan.size or (not marked and not scan.near(j)):
        return j
    title = scan.cue_at(j)
    if title is not None and title.kind.startswith("title") and not scan.sign(j + 1, "^"):
        if title.tokens[0] != "m" or kind != "label_person":  # "Interne : M. Roux": an initial
            of = "title_person" if kind == "label_person" else title.kind
            return titled(scan, of, j, j + len(title.tokens))
    if small(scan, j):
        common = marked and any(scan.of(k, "says_name") for k in range(i, j))
        end = lower_case.name(scan, j, sure=marked, comma=True, common=common)
    else:
        end = scan.name(j, sure=marked, comma=True) if marked or scan.large(j) else j
        if not marked and not all(scan.named(k) or scan.plain(k) for k in range(j, end)):
            end = j
    if end == j:
        return initials(scan, j) if marked or scan.large(j) else j
    of = PATIENT if kind == "label_patient" else PERSON
    scan.person(j, end, of, "name after a label")
    return others(scan, end, of, "name after a label")


def weakly(scan: TokenScan, kind: str, i: int, j: int) -> int:
    """Read a name after a relation ("sa fille Marie"), a verb ("relu par") or a role.

    What names nobody else's name ("avis", "M" without its stop) announces one in lower case alone.
    """
    rule = {"relation": "name after a relation", "signed": "name after a verb"}.get(kind)
    rule = rule or "name after a role"

    def skipped(k: int) -> bool:
        article = scan.of(k, "article") and not (scan.shapes[k] == "I" and scan.sign(k + 1, ".-"))
        return scan.sign(k, ",:('") or scan.line_end(k) or article

    while j < scan.size and skipped(j):
        if scan.line_end(j) and (kind != "signed" or scan.sign(j - 1, ".")):
            return j
        j += 1
    if j >= scan.size or scan.shapes[j] == "X" and initials(scan, j) > j:
        return min(j + 1, scan.size)
    if kind == "typist":
        brief = scan.letters(j) and len(scan.words[j]) in (2, 3) and scan.closes(j + 1)
        return scan.add(j, j + 1, PERSON, "initials of staff") if brief else j
    initial = scan.words[j] == "m" and scan.sign(j + 1, ".") and kind == "role"
    if scan.kind_at(j).startswith(("title", "label_id", "institution")) and not initial:
        return j
    if small(scan, j) or kind == "weak":
        letter = j == i + 1 and len(scan.words[i]) == 1  # "M dupont", no unit and no "m"
        if letter and (scan.shapes[i] != "I" or scan.figures(i - 1)) or not small(scan, j):
            return j
        end = lower_case.name(scan, j, sure=False)
        return scan.person(j, end, PERSON, "name in lower case") if end > j else initials(scan, j)
    end = scan.name(j, sure=False) if scan.large(scan.over_particles(j)) else j
    if kind != "relation" and scan.large(j):
        surely = scan.name(j, sure=True)  # "Dictated by STREET": a signature, if nothing follows
        end = surely if scan.closes(surely) and surely - j < 5 and scan.shapes[j] != "I" else end
    if end == j:
        return initials(scan, j) if kind != "relation" else j
    typo = end == j + 1 and scan.plain(j) and scan.language.misspelt(scan.words[j])
    listed = scan.shapes[j] == "I" or any(scan.named(k) for k in range(j, end))
    listed |= kind != "relation" and scan.closes(end)
    if scan.caps[j] and not listed or typo:
        return j
    scan.person(j, end, PERSON, rule)
    return others(scan, end, PERSON, rule) if kind == "signed" else end


def initials(scan: TokenScan, j: int) -> int:
    """Read the initials of staff where a name was expected: "dicté par HD", "frappe ar"."""
    while scan.sign(j, ",:"):
        j += 1
    if not scan.letters(j) or not 2 <= len(scan.words[j]) <= 3 or scan.shapes[j] == "C":
        return j
    if scan.of(j, "title_person") or not scan.closes(j + 1) or scan.sign(j + 1, "':"):
        return j
    if scan.shapes[j] == "l" and scan.words[j] in scan.language.function:
        return j
    return scan.add(j, j + 1, PERSON, "initials of staff")


def credited(scan: TokenScan, i: int, j: int) -> int:
    """Read the names before a credential in capitals: "K. Harris, MD    I. González, MD"."""
    if scan.shapes[i] not in "XC":
        return j
    last = i - 1 if scan.sign(i - 1, ",") else i

    def of_name(k: int) -> bool:
        word = scan.words[k]
        name = scan.large(k) or scan.sign(k, ".-'^") or word in scan.particles
        if not (name or scan.sign(k, ",") and k < last - 1) or scan.label_at(k):
            return False
        # in a line of capitals a longer word that the language knows begins no name
        ordinary = scan.caps[k] and len(word) > 1 and scan.letters(k)
        unlike = not (scan.plain(k) or scan.named(k) or word in scan.particles)
        return not (k < last - 2 and ordinary and unlike)

    start = last - 1 if last > 0 and of_name(last - 1) else last
    start = scan.back(start, of_name) if start < last else last
    while start < last and scan.shapes[start] != "I":
        if scan.words[start] not in scan.language.function and not scan.sign(start, ",.-"):
            break
        start += 1
    if start < last and any(shape in "CX" for shape in scan.shapes[start:last]):
        scan.person(start, last, PERSON, "name before a credential")
    if j < scan.size and not scan.near(j) and not scan.line_end(j):  # a second column
        end = scan.name(j, sure=True)
        if end > j and not scan.label_at(j):
            return scan.person(j, end, PERSON, "name beside a credential")
    return j


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
        if len(word) in (2, 3) and shape == "X" and scan.opens(i):
            staff(scan, i)
            continue
        if len(word) < 3 or not (named or plain) or scan.eponymous(i):
            continue
        if word in scan.not_name or (word in language.function and not given):
            continue
        if scan.numeral(i) or scan.head(i):
            continue
        if named:
            j = scan.name(i, sure=False)
            if j > i + 1 and paired(scan, i, j):
                scan.person(i, j, PERSON, "first name and surname")
                continue
        if word in scan.eponyms or not plain or scan.caps[i]:
            continue
        inside = not scan.opens(i) and not heading(scan, i)
        noun = inside and shape == "C" and len(word) > 3 and by_capital
        j = max(scan.name(i, sure=False), i + 1)
        if inside and named:
            scan.person(i, j, PERSON, "name of the lexicon")
        elif noun and not language.misspelt(word):
            scan.person(i, j, PERSON, "capital inside a sentence")
        elif alone(scan, i, j):
            scan.person(i, j, PERSON, "signature")
        elif lonely(scan, i, j):
            scan.add(i, j, LOCATION, "capital alone in its field")


def staff(scan: TokenScan, i: int) -> None:
    """Find initials of staff that fill a line: "JM/cd", or "JM" where a J. M. is named."""
    k = i + 1
    if scan.sign(k, "/") and scan.glued(k) and scan.glued(k + 1) and scan.letters(k + 1):
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
