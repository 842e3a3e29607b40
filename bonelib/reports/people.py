"""Names of people: after titles, labels, relations and verbs, and by form alone."""

from bonelib.reports import places
from bonelib.reports.languages import Phrase
from bonelib.reports.walk import Walk

PATIENT, PERSON, LOCATION = "PATIENT", "PERSON", "LOCATION"


def announced(walk: Walk, cue: Phrase, i: int) -> int:
    """Read the name that a cue of a person at token ``i`` announces; return where to go on."""
    j = i + len(cue.tokens)
    if cue.kind.startswith("title"):
        return titled(walk, cue.kind, i, j)
    if cue.kind.startswith("label"):
        return labelled(walk, cue.kind, i, j)
    if cue.kind == "born":
        while walk.sign(j, ":.") or walk.words[j : j + 1] == ["\n"] and not walk.label_at(j + 1):
            j += 1
        end = walk.name(j, sure=True) if walk.large(walk.over_particles(j)) else j
        return walk.person(j, end, PATIENT, "name after 'née'") if end > j else j
    if cue.kind == "credential":
        return credited(walk, i, j)
    return weakly(walk, cue.kind, j)


def titled(walk: Walk, kind: str, i: int, j: int) -> int:
    """Read after "Dr", "Mme", "M.": one name, or several with "et" or a slash between them."""
    if walk.words[i] == "m" and (walk.shapes[i] == "l" or walk.glued(j)):
        return j  # a unit, or an initial: "M.Smith"
    while j < walk.size and j - i < 12 and (walk.near(j) or walk.words[j] == "\n"):
        if walk.sign(j, ".()") and walk.glued(j) or walk.words[j] == "e" and walk.glued(j):
            j += 1
            continue
        ahead = j + 1 if walk.words[j] == "\n" else j  # a name may be broken off its title
        again = walk.language.cues.at(walk.righted, ahead) if ahead < walk.size else None
        if again is None or not again.kind.startswith("title") or again.tokens[0] == "m":
            break  # after a title, "M." is an initial
        if again.kind == "title_person":
            kind = again.kind
        j = ahead + len(again.tokens)
    if walk.sign(j, ":"):
        j += 1
    if (
        j < walk.size
        and walk.words[j] == "\n"
        and walk.large(walk.over_particles(j + 1))
        and walk.page.gap(j) <= 2
    ):
        if not walk.label_at(j + 1):
            j += 1
    elif not walk.near(j):
        return j
    found = PATIENT if kind == "title_patient" and not related(walk, i) else PERSON
    end = walk.name(j, sure=True, comma=found == PATIENT)
    if end == j:
        return initials(walk, j)
    walk.person(j, end, found, "name after a title")
    return others(walk, end, found, "name after a title")


def others(walk: Walk, end: int, found: str, rule: str) -> int:
    """Go on after a name with "et", "/", "&" or a comma: "Drs Martin et Durand"."""
    joiner = walk.language.kind("joiner")
    town = town_of_colleague(walk, end + 1) if walk.sign(end, ",") else 0
    if town:
        given = walk.words[end + 1] in walk.language.given
        walk.add(end + 1, town, PERSON if given else LOCATION, "place after a name")
        return places.address_tail(walk, town)
    while end < walk.size and (walk.words[end] in joiner or walk.sign(end, "/&,;+")):
        j = end + 1
        if j < walk.size and walk.words[j] == "\n":
            j += 1
        comma = walk.sign(end, ",;")
        if walk.kind_at(j) and not walk.named(j) or not walk.large(walk.over_particles(j)):
            break
        other = walk.name(j, sure=not comma)
        if other == j or walk.label_at(j):
            break
        if comma and not walk.named(j):
            break
        end = walk.person(j, other, found, rule)
    return end


def town_of_colleague(walk: Walk, j: int) -> int:
    """Return the index after a town in the field after a name ("Dr Besnard, Alost"), or 0."""
    if j < walk.size and walk.words[j] == "\n" and walk.large(j + 1) and walk.rare(j + 1):
        j += 1
    if not walk.large(j) and not walk.figures(j):
        return 0
    if walk.words[j] in walk.language.kind("article") and not (
        walk.large(j + 1) and walk.rare(j + 1)
    ):
        return 0
    k = j
    while (
        k < walk.size
        and k - j < 7
        and (k == j or walk.near(k))
        and (
            walk.large(k)
            or walk.sign(k, "-'")
            and walk.glued(k)
            or walk.words[k] in walk.language.kind("town_join")
            or k > j
            and 0 < walk.figures(k) < 5
        )
    ):
        if walk.words[k] in walk.not_name or walk.kind_at(k).startswith(NO_TOWN) or walk.taken(k):
            return 0
        k += 1
    short = not any(len(walk.words[x]) > 2 for x in range(j, k))
    return k if k > j and walk.closes(k) and not walk.sign(k, ":") and not short else 0


NO_TOWN = ("title", "role", "inst", "street", "label", "signed", "typist")


def related(walk: Walk, i: int) -> bool:
    """Whether a relation stands just before token ``i``: "son épouse Mme", "père : M."."""
    before = [w for w in walk.words[max(0, i - 3) : i] if w not in ",:("]
    return bool(before) and before[-1] in walk.language.kind("relation")


def labelled(walk: Walk, kind: str, i: int, j: int) -> int:
    """Read the field of a label: "Nom : DUPONT, Jean", "Prescripteur : Dr Petit / Dr Roux"."""
    marked = False
    while j < walk.size and (
        walk.sign(j, ":=.°*|)_") or walk.words[j] == "\n" and walk.sign(j + 1, ":")
    ):
        marked |= walk.sign(j, ":=|")
        j += 1
    if not marked and kind != "label_patient":
        return i + 1
    if marked and j < walk.size and walk.words[j] == "\n" and not walk.label_at(j + 1):
        j += 1  # the value stands below its label
    if j >= walk.size or (not marked and not walk.near(j)):
        return j
    again = walk.language.cues.at(walk.righted, j)
    initial = again is not None and again.tokens[0] == "m"  # "Interne : M. Roux"
    if (
        again is not None
        and again.kind.startswith("title")
        and not (walk.sign(j + 1, "^") or initial and kind == "label_person")
    ):
        found = "title_person" if kind == "label_person" else again.kind
        return titled(walk, found, j, j + len(again.tokens))
    end = walk.name(j, sure=marked, comma=True) if marked or walk.large(j) else j
    if not marked and not all(walk.named(k) or walk.plain(k) for k in range(j, end)):
        end = j
    if end == j + 1 and walk.shapes[j] == "l" and not walk.plain(j):
        end = j
    if end == j:
        return initials(walk, j)
    found = PATIENT if kind == "label_patient" else PERSON
    walk.person(j, end, found, "name after a label")
    return others(walk, end, found, "name after a label")


def weakly(walk: Walk, kind: str, j: int) -> int:
    """Read a name after a relation ("sa fille Marie"), a verb ("relu par") or a role."""
    rule = {"relation": "relation", "signed": "verb"}.get(kind, "role")
    skipped = walk.language.kind("article")
    while j < walk.size and (
        walk.sign(j, ",:('")
        or walk.words[j] == "\n"
        or walk.words[j] in skipped
        and not (walk.shapes[j] == "I" and walk.sign(j + 1, ".-"))
    ):
        if walk.words[j] == "\n" and (kind != "signed" or walk.sign(j - 1, ".")):
            return j
        j += 1
    if j >= walk.size or walk.shapes[j] == "X" and initials(walk, j) > j:
        return min(j + 1, walk.size)
    if kind == "typist":
        end = j + 1
        brief = walk.letters(j) and len(walk.words[j]) in (2, 3) and walk.closes(end)
        return walk.add(j, end, PERSON, "initials of staff") if brief else j
    initial = walk.words[j] == "m" and walk.sign(j + 1, ".") and kind == "role"
    if walk.kind_at(j).startswith(("title", "label_id", "institution")) and not initial:
        return j
    start = walk.over_particles(j)
    end = walk.name(j, sure=False) if walk.large(start) else j
    if kind != "relation" and walk.large(j):
        surely = walk.name(j, sure=True)  # "Dictated by STREET": a signature, if nothing follows
        end = surely if walk.closes(surely) and surely - j < 5 and walk.shapes[j] != "I" else end
    if end == j:
        return initials(walk, j) if kind != "relation" else j
    typo = end == j + 1 and walk.plain(j) and walk.language.misspelt(walk.words[j])
    known = walk.shapes[j] == "I" or any(walk.named(k) for k in range(j, end))
    known |= kind != "relation" and walk.closes(end)
    if walk.page.caps[j] and not known or typo:
        return j
    walk.person(j, end, PERSON, f"name after a {rule}")
    return others(walk, end, PERSON, f"name after a {rule}") if kind == "signed" else end


def initials(walk: Walk, j: int) -> int:
    """Read the initials of staff where a name was expected: "dicté par HD", "frappe ar"."""
    while walk.sign(j, ",:"):
        j += 1
    if not walk.letters(j) or not 2 <= len(walk.words[j]) <= 3 or walk.shapes[j] == "C":
        return j
    if (
        walk.words[j] in walk.language.kind("title_person")
        or not walk.closes(j + 1)
        or walk.sign(j + 1, "':")
    ):
        return j
    if walk.shapes[j] == "l" and walk.words[j] in walk.language.function:
        return j
    return walk.add(j, j + 1, PERSON, "initials of staff")


def credited(walk: Walk, i: int, j: int) -> int:
    """Read the names before a credential in capitals: "K. Harris, MD    I. González, MD"."""
    if walk.shapes[i] != "X" and walk.shapes[i] != "C":
        return j
    k = i - 1 if walk.sign(i - 1, ",") else i
    start = k
    while (
        start > 0
        and (start == k or walk.near(start))
        and (
            walk.large(start - 1)
            or walk.sign(start - 1, ".-'^")
            or walk.words[start - 1] in walk.particles
            or (walk.sign(start - 1, ",") and start < k)
        )
    ):
        word = walk.words[start - 1]
        ordinary = (
            walk.page.caps[start - 1]
            and len(word) > 1
            and not (walk.plain(start - 1) or walk.named(start - 1) or word in walk.particles)
        )
        if start < k - 1 and ordinary and walk.letters(start - 1) or walk.label_at(start - 1):
            break
        start -= 1
    while (
        start < k
        and walk.shapes[start] != "I"
        and (walk.words[start] in walk.language.function or walk.sign(start, ",.-"))
    ):
        start += 1
    if start < k and any(walk.shapes[x] in "CX" for x in range(start, k)):
        walk.person(start, k, PERSON, "name before a credential")
    column = j
    if column < walk.size and not walk.near(column) and walk.shapes[column] != "n":
        end = walk.name(column, sure=True)
        if end > column and not walk.label_at(column):
            return walk.person(column, end, PERSON, "name beside a credential")
    return j


def free(walk: Walk) -> None:
    """Find names by form and lexicon alone, where no eponym is meant."""
    words, shapes, language = walk.words, walk.shapes, walk.language
    by_capital = not language.kind("noun_capitals")  # German writes every noun so
    for i in range(walk.size):
        shape = shapes[i]
        if shape not in "CXI" or walk.taken(i):
            continue
        if shape == "I":
            initial(walk, i)
            continue
        word = words[i]
        given, family, plain = word in language.given, word in language.family, walk.plain(i)
        if len(word) in (2, 3) and shape == "X" and walk.opens(i):
            staff(walk, i)
            continue
        if len(word) < 3 or not (given or family or plain) or walk.eponymous(i):
            continue
        if word in walk.not_name or (word in language.function and not given):
            continue
        if given or family:
            j = walk.name(i, sure=False)
            if j > i + 1 and paired(walk, i, j):
                walk.person(i, j, PERSON, "first name and surname")
                continue
        if word in walk.eponyms or not plain or walk.page.caps[i]:
            continue
        inside = not walk.opens(i) and not heading(walk, i)
        j = max(walk.name(i, sure=False), i + 1)
        if inside and (given or family):
            walk.person(i, j, PERSON, "name of the lexicon")
        elif (
            inside and shape == "C" and len(word) > 3 and by_capital and not language.misspelt(word)
        ):
            walk.person(i, j, PERSON, "capital inside a sentence")
        elif alone(walk, i, j):
            walk.person(i, j, PERSON, "signature")
        elif lonely(walk, i, j):
            walk.add(i, j, LOCATION, "capital alone in its field")


def staff(walk: Walk, i: int) -> None:
    """Find initials of staff that fill a line: "JM/cd", or "JM" where a J. M. is named."""
    k = i + 1
    if walk.sign(k, "/") and walk.glued(k) and walk.glued(k + 1) and walk.letters(k + 1):
        if walk.closes(k + 2) and len(walk.words[k + 1]) in (2, 3) and walk.shapes[k + 1] in "lX":
            walk.add(i, k, PERSON, "initials of staff")
            walk.add(k + 1, k + 2, PERSON, "initials of staff")
    elif (i == 0 or walk.words[i - 1] == "\n") and (k >= walk.size or walk.words[k] == "\n"):
        for span in [s for s in walk.spans if s.type == PERSON]:
            first, last = walk.at(span.start), walk.at(span.end)
            letters = {walk.words[x][0] for x in range(first, last) if walk.letters(x)}
            if set(walk.words[i]) <= letters:
                walk.add(i, k, PERSON, "initials of staff")
                return


def initial(walk: Walk, i: int) -> None:
    """Find an initial with its surname, "J. Dupont" or "M.SMITH", wherever it stands."""
    k = i
    while (
        k - i < 8
        and walk.shapes[k : k + 1] == ["I"]
        and (walk.sign(k + 1, ".") and walk.glued(k + 1))
    ):
        k += 2
        if walk.sign(k, "-") and walk.glued(k):
            k += 1
    if k == i or k >= walk.size or walk.page.gap(k) > 1 or walk.shapes[k] == "n":
        return
    start = walk.over_particles(k)
    if not walk.large(start) or walk.shapes[start] == "I" or walk.taken(start):
        return
    apart = walk.opens(i) or walk.shapes[i - 1] == "p" or not walk.near(i)
    sure = walk.plain(start) if apart else walk.named(start) and walk.plain(start)
    if not (walk.glued(k) or sure or walk.named(start) and not walk.page.caps[start] and apart):
        return
    end = walk.name(k, sure=True)
    if end > k:
        walk.person(i, end, PERSON, "initial and surname")


def paired(walk: Walk, i: int, j: int) -> bool:
    """Whether tokens ``i`` to ``j`` are a first name with a surname, in either order."""
    names = [k for k in range(i, j) if walk.shapes[k] in "CX" and len(walk.words[k]) > 1]
    given = [k for k in names if walk.words[k] in walk.language.given]
    rare = [k for k in names if walk.plain(k) and walk.words[k] not in walk.eponyms]
    family = [k for k in names if walk.words[k] in walk.language.family]
    if len(names) < 2 or not given:
        return False
    if not any(walk.plain(k) for k in given):  # "petite image claire": words that are names too
        return (
            bool(set(family) & set(rare))
            and not walk.page.caps[i]
            or bool(rare)
            and not (walk.page.caps[i])
            and walk.shapes[i] in "CX"
            and not walk.opens(i)
        )
    return bool(rare)


def heading(walk: Walk, i: int) -> bool:
    """Whether the token belongs to a heading: a colon follows before the line ends."""
    for k in range(i + 1, min(i + 5, walk.size)):
        if walk.words[k] == ":":
            return True
        if walk.shapes[k] in "np" and not walk.sign(k, "-'"):
            return False
    return False


def lonely(walk: Walk, i: int, j: int) -> bool:
    """Whether a capitalised word that is no word of the language fills its field in the header."""
    before = i == 0 or walk.words[i - 1] in ("\n", "|") or walk.sign(i - 1, "-") or not walk.near(i)
    after = (
        j >= walk.size or walk.words[j] in ("\n", "|", ".") or walk.sign(j, "-") or not walk.near(j)
    )
    return before and after and len(walk.words[i]) > 3 and not walk.language.misspelt(walk.words[i])


def alone(walk: Walk, i: int, j: int) -> bool:
    """Whether a name fills its line or field: each word a name by form, one by lexicon."""
    if i and walk.words[i - 1] != "\n" and walk.near(i):
        return False
    if not (j >= walk.size or walk.shapes[j] == "n" or walk.sign(j, ".,") or not walk.near(j)):
        return False
    large = [k for k in range(i, j) if walk.shapes[k] in "CX"]
    return 1 < len(large) < 6 and any(walk.named(k) for k in large)
