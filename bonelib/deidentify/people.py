"""Names of people after titles, labels, relations, roles and verbs."""

from bonelib.deidentify import addresses, lower_case
from bonelib.deidentify.token_scan import LOCATION, PATIENT, PERSON, TokenScan
from bonelib.reports.languages import Phrase

NO_TOWN = ("title", "role", "inst", "street", "label", "signed", "typist", "credential")


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
        if scan.glued(j) or scan.figures(i - 1) or not lower_case.small(scan, j):
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
    if lower_case.small(scan, j):
        weak = scan.of(i, "weak_title") or scan.of(i + 1, "weak_title") or scan.words[i] == "m"
        end = lower_case.name(scan, j, sure=not weak, comma=of == PATIENT)
        if end == j and scan.words[i] == scan.righted[i] and not scan.of(i, "weak_title"):
            end = lower_case.surname(scan, j, clear=scan.of(i, "clear_title"))
    else:
        end = scan.name(j, sure=True, comma=of == PATIENT)
    if end == j:
        return j if lower_case.small(scan, j) and scan.plain(j) else initials(scan, j)
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
        return scan.unusual(k)

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
        kind = scan.kind_at(k)
        word = k > j and kind.startswith("label") and not scan.label_at(k)  # "Salt Lake City"
        if scan.words[k] in scan.not_name or scan.taken(k) or kind.startswith(NO_TOWN) and not word:
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
    if lower_case.small(scan, j):
        common = marked and any(scan.of(k, "says_name") for k in range(i, j))
        end = lower_case.name(scan, j, sure=marked, comma=True, common=common)
    else:
        end = scan.name(j, sure=marked, comma=True) if marked or scan.large(j) else j
        if end == j and scan.large(j) and scan.capital(j + 1) and not scan.label_at(j):
            end = scan.name(j, sure=True, comma=True)  # "Re Winsome Prescott": words before a name
        large = [k for k in range(j, end) if scan.letters(k)]
        field = len(large) > 1 and scan.closes(end) and any(scan.rare(k) for k in large)
        if not (marked or field or all(scan.named(k) or scan.plain(k) for k in range(j, end))):
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
        return scan.sign(k, ",:('«\"“") or scan.line_end(k) or article

    while j < scan.size and skipped(j):
        if scan.line_end(j) and (kind != "signed" or scan.sign(j - 1, ".")):
            return j
        j += 1
    if j >= scan.size or scan.shapes[j] == "X" and initials(scan, j) > j:
        return min(j + 1, scan.size)
    if kind == "typist":
        brief = scan.letters(j) and len(scan.words[j]) in (2, 3) and scan.closes(j + 1)
        if not brief:
            return j
        second = scan.sign(j + 1, "/") and scan.letters(j + 2) and scan.closes(j + 3)
        second = second and scan.glued(j + 2) and len(scan.words[j + 2]) in (2, 3)
        return scan.add(j, j + 3 if second else j + 1, PERSON, "initials of staff")
    initial = scan.words[j] == "m" and scan.sign(j + 1, ".") and kind == "role"
    if scan.kind_at(j).startswith(("title", "label_id", "institution")) and not initial:
        return j
    if lower_case.small(scan, j) or kind == "weak":
        letter = j == i + 1 and len(scan.words[i]) == 1  # "M dupont", no unit and no "m"
        if (
            letter
            and (scan.shapes[i] != "I" or scan.figures(i - 1))
            or not lower_case.small(scan, j)
        ):
            return j
        end = lower_case.name(scan, j, sure=False)
        if end == j and kind in ("relation", "signed", "role") and len(scan.words[j]) > 3:
            strange = lower_case.unknown(scan, j) and scan.words[j] not in scan.eponyms
            end += strange and not scan.head(j)
        return scan.person(j, end, PERSON, "name in lower case") if end > j else initials(scan, j)
    end = scan.name(j, sure=False) if scan.large(scan.over_particles(j)) else j
    if kind != "relation" and scan.large(j):
        surely = scan.name(j, sure=True)  # "Dictated by STREET": a signature, if nothing follows
        end = surely if scan.closes(surely) and surely - j < 5 and scan.shapes[j] != "I" else end
    if end == j and scan.unusual(j) and scan.shapes[j] == "C" and not scan.head(j):
        # "her neighbour Wheelwright": behind such a cue a word may be a name
        end += scan.words[j] not in scan.eponyms and scan.words[j] not in scan.not_name
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
    if scan.kind_at(j) == "credential" and len(scan.words[j]) > 2:
        return j  # "MD DNB", but "NP" and "DO" are initials too
    if scan.of(j, "title_person") or not scan.closes(j + 1) or scan.sign(j + 1, "':"):
        return j
    word = scan.words[j]
    if len(word) == 3 and (not scan.plain(j) or word in scan.not_name):
        return j  # "told yes", "advise re MRI"
    if scan.shapes[j] == "l" and word in scan.language.function:
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
