"""Places: addresses by their street word and postcode, towns by preposition, field and lexicon."""

from bonelib.reports.languages import Phrase
from bonelib.reports.walk import Walk

LOCATION, INSTITUTION = "LOCATION", "INSTITUTION"


def announced(walk: Walk, cue: Phrase, i: int) -> int:
    """Read the place that a cue at token ``i`` announces; return where to go on."""
    j = i + len(cue.tokens)
    if cue.kind in ("label_place", "label_institution"):
        return labelled(walk, cue.kind, j)
    if cue.kind == "place":
        return placed(walk, j)
    return street(walk, i, j) if cue.kind == "street" else street_after(walk, i, j)


def labelled(walk: Walk, kind: str, j: int) -> int:
    """Take the field of an address or institution label, up to a wide gap or the next label."""
    if not walk.sign(j, ":="):
        return j
    j += 1
    if j < walk.size and walk.words[j] == "\n" and not walk.label_at(j + 1):
        j += 1
    end = j
    while end < walk.size and walk.shapes[end] != "n" and (end == j or walk.near(end)):
        if end > j and (walk.label_at(end) or walk.sign(end, "|;")):
            break
        if (
            walk.sign(end, "-")
            and walk.page.gap(end)
            and (
                walk.label_at(end + 1)
                or not (walk.figures(end + 1) in (4, 5) or walk.rare(end + 1))
                if end + 1 < walk.size
                else True
            )
        ):
            break
        end += 1
    while end > j and walk.shapes[end - 1] == "p":
        end -= 1
    proper = [k for k in range(j, end) if walk.large(k) or walk.figures(k)]
    if (
        not proper
        or kind == "label_institution"
        and not any(walk.rare(k) or walk.kind_at(k) == "institution" for k in range(j, end))
    ):
        return j
    rule = "after an address label" if kind == "label_place" else "after an institution label"
    walk.add(j, end, LOCATION if kind == "label_place" else INSTITUTION, rule)
    return address_tail(walk, end) if kind == "label_place" else end


# ---------------------------------------------------------------------- towns
def placed(walk: Walk, j: int) -> int:
    """Read a town after a preposition: a capital that is no word, eponym or person."""
    k = walk.over_particles(j)
    if not (walk.near(k) and walk.large(k)) or walk.words[k] in walk.eponyms:
        return j
    town = walk.words[k] in walk.language.towns
    if walk.page.caps[k] and not town or not (walk.rare(k) or (town and walk.shapes[k] == "C")):
        return j
    if walk.shapes[k] == "X" and not town and len(walk.words[k]) < 5:
        return j
    if walk.language.misspelt(walk.words[k]) and not town:
        return j
    return walk.add(j, town_end(walk, k), LOCATION, "place after a preposition")


def town_end(walk: Walk, k: int) -> int:
    """Return the index after a town that begins at ``k``: "Villeneuve-d'Ascq", "Stoke on Trent"."""
    joins, end = walk.language.kind("town_join"), k + 1
    while end < walk.size and end - k < 12:
        if (
            walk.sign(end, "-'")
            and walk.glued(end)
            and walk.glued(end + 1)
            and walk.letters(end + 1)
        ):
            end += 2
        elif walk.near(end) and walk.rare(end) and not walk.label_at(end):
            end += 1
        elif walk.near(end) and walk.words[end] in joins:
            after = end + 1
            while after < min(walk.size, k + 12) and (
                walk.words[after] in joins or walk.sign(after, "-'")
            ):
                after += 1
            if not (walk.near(after) and walk.rare(after)):
                break
            end = after + 1
        else:
            break
    return end


def towns(walk: Walk) -> None:
    """Find towns without a cue: of the lexicon, before ", le" and a date, in parentheses."""
    words, shapes = walk.words, walk.shapes
    for i in range(walk.size):
        if shapes[i] not in "CX" or len(words[i]) < 3 or walk.taken(i) or words[i] in walk.not_name:
            continue
        end = town_end(walk, i)
        if not walk.kind_at(i).startswith("title") and dated(walk, i, end):
            walk.add(i, end, LOCATION, "town before a date")
            continue
        town = words[i] in walk.language.towns and len(words[i]) > 3
        if not walk.plain(i) or walk.eponymous(i) or words[i] in walk.eponyms or not town:
            continue
        if walk.page.caps[i] and walk.named(i) or walk.language.misspelt(words[i]):
            continue
        if not walk.opens(i) or walk.closes(end):
            walk.add(i, end, LOCATION, "town of the lexicon")


def dated(walk: Walk, i: int, end: int) -> bool:
    """Whether a comma and a date follow at the start of a line or field: "Lyon, le 3 mai"."""
    if i and walk.near(i) and walk.words[i - 1] not in ("\n", "-", "|", ")"):
        return False
    j = end
    while j < walk.size and (
        walk.sign(j, ",-")
        or walk.words[j] == "\n"
        or walk.words[j] in walk.language.kind("article")
    ):
        j += 1
    return end + 1 <= j < walk.size and walk.sign(end, ",") and walk.taken(j)


# ---------------------------------------------------------------------- addresses
def house(walk: Walk, i: int) -> int:
    """Return where the house number before token ``i`` begins ("12 bis,"); ``i`` if none does."""
    k = i
    while (
        k > 0
        and i - k < 3
        and (walk.sign(k - 1, ",") or walk.words[k - 1] in walk.language.kind("house"))
    ):
        k -= 1
    if 0 < walk.figures(k - 1) < 5 and not walk.taken(k - 1):
        return k - 1
    return i


def flat(walk: Walk, k: int) -> int:
    """Return where "Flat 2," before a house number at ``k`` begins; ``k`` if none does."""
    boxes = walk.language.kind("house")
    return (
        k - 3 if walk.sign(k - 1, ",") and walk.figures(k - 2) and walk.words[k - 3] in boxes else k
    )


def street(walk: Walk, i: int, j: int) -> int:
    """Read an address whose street word stands first: "12 bis, rue du Général de Gaulle"."""
    start = house(walk, i)
    while walk.sign(j, ".") and walk.glued(j) and len(walk.words[j - 1]) < 5:
        j += 1
    k = walk.over_particles(j)
    if (
        walk.words[j : j + 1]
        and walk.words[j] in walk.particles
        and walk.figures(j + 1)
        and walk.sign(j + 2, "-")
    ):
        k = j + 1  # "rue du 8-Mai-1945"
    if not (walk.near(k) and (walk.large(k) or k == j + 1)) or walk.words[k] in walk.heads:
        return j
    sure = walk.words[i] in walk.language.kind("street_sure")
    if start == i and not (
        sure and not walk.page.caps[k] or walk.rare(k) and len(walk.words[i]) > 2
    ):
        return j
    end = line_of_words(walk, k)
    return address(walk, start, end)


def street_after(walk: Walk, i: int, j: int) -> int:
    """Read an address whose street word stands last: "145 Ferry Road", "186 The Crescent"."""
    start = i
    while (
        start > 0
        and i - start < 7
        and (start == i or walk.near(start))
        and walk.near(start)
        and (
            walk.large(start - 1)
            or walk.sign(start - 1, "'.-")
            or walk.words[start - 1] == "s"
            or walk.shapes[start - 1] == "l"
            and len(walk.words[start - 1]) == 2
            or (walk.figures(start - 1) in (1, 2, 3) and walk.letters(start) and walk.glued(start))
        )
    ):
        start -= 1
    numbered = house(walk, start)
    if numbered == start or start == i and j == i + 1:
        return j
    while walk.near(j) and walk.large(j) and walk.kind_at(j) == "street_after":
        j += 1  # "Park Avenue"
    return address(walk, flat(walk, numbered), j)


def suffixed(walk: Walk) -> None:
    """Find streets written as one word ("Nieuwstraat 186") and fields of a number and names."""
    endings = tuple(walk.language.kind("street_suffix"))
    for i in range(walk.size):
        numbered(walk, i)
        if walk.words[i].endswith(endings) and walk.large(i) and len(walk.words[i]) > 6:
            j = i + 1
            while walk.sign(j, ",") or walk.words[j : j + 1] and walk.words[j] in ("n", "°", "nr"):
                j += 1
            if 0 < walk.figures(j) < 5:
                start = i
                while (
                    start > 0
                    and walk.near(start)
                    and walk.large(start - 1)
                    and walk.rare(start - 1)
                ):
                    start -= 1
                address(walk, start, j + 1)
            elif house(walk, i) < i:
                address(walk, house(walk, i), i + 1)


def numbered(walk: Walk, i: int) -> None:
    """Find a field that is a house number with capitals, one no word: "10 Bóthar na Trá"."""
    if not 0 < walk.figures(i) < 5 or walk.taken(i):
        return
    if (walk.opens(i) or walk.sign(i - 1, ",")) and walk.near(i + 1) and walk.large(i + 1):
        end = line_of_words(walk, i + 1)
        while walk.near(end) and walk.letters(end) and walk.large(end + 1) and walk.near(end + 1):
            end = line_of_words(walk, end + 1)  # "na", "an" of other tongues
        if walk.closes(end) and walk.rare(i + 1) and end - i > 2 and not walk.sign(end, ":%."):
            address(walk, flat(walk, i), end)
    elif (
        walk.closes(i + 1)
        and walk.near(i)
        and not (walk.sign(i + 1, ".:/-°") and walk.glued(i + 1))
    ):
        start = i - 1 if walk.sign(i - 1, ",") else i
        while start > 0 and walk.near(start) and walk.large(start - 1):
            start -= 1
        if (
            i - start > 1
            and walk.opens(start)
            and all(walk.rare(k) for k in range(start, i) if walk.letters(k))
        ):
            address(walk, start, i + 1)


def line_of_words(walk: Walk, k: int) -> int:
    """Return the index after a street name: capitals, particles and signs up to a stop."""
    end = k + 1
    while end < walk.size and end - k < 9 and walk.near(end):
        word = walk.words[end]
        if (
            walk.sign(end, "-'")
            and (walk.glued(end) or walk.glued(end + 1))
            or word in walk.particles
        ):
            end += 1
        elif walk.figures(end) and walk.glued(end) and walk.sign(end - 1, "-"):
            end += 1
        elif walk.large(end) and word not in walk.not_name and not walk.label_at(end):
            end += 1
        elif word == "." and walk.shapes[end - 1] in "CI" and len(walk.words[end - 1]) < 4:
            end += 1
        else:
            break
    while end > k + 1 and (
        walk.sign(end - 1, "-'")
        or walk.shapes[end - 1] == "l"
        and (walk.words[end - 1] in walk.particles)
    ):
        end -= 1
    return end


def address(walk: Walk, start: int, end: int) -> int:
    """Record a street with its numbers, then the postcode and town that follow it."""
    boxes = walk.language.kind("house")
    k = end
    while k < walk.size and (
        walk.sign(k, ",-/°") or walk.words[k] in boxes and (k > end or len(walk.words[k]) > 1)
    ):
        k += 1
    while 0 < walk.figures(k) < 4 and (walk.near(k) or k > end) and not walk.taken(k):
        end = k = k + 1  # the number after the street, and the box
        if walk.letters(k) and walk.glued(k) and len(walk.words[k]) == 1:
            end = k = k + 1
        while k < walk.size and (walk.sign(k, ",/") or walk.words[k] in boxes):
            k += 1
    if k < walk.size and k > end and walk.figures(k) and walk.words[k - 1] in boxes:
        end = k + 1
    walk.add(start, end, LOCATION, "address")
    return address_tail(walk, end)


def address_tail(walk: Walk, end: int) -> int:
    """Record the postcode and town after an address, on the same line or the next."""
    k = end
    while k < walk.size and k - end < 4 and (walk.sign(k, ",-/|;(") or walk.words[k] == "\n"):
        k += 1
    first = k
    if walk.large(k) and len(walk.words[k]) <= 2 and walk.sign(k + 1, "-"):
        k += 2  # B-1000
    if walk.figures(k) in (4, 5) and walk.large(walk.over_particles(k + 1)):
        return walk.add(
            first, line_of_words(walk, walk.over_particles(k + 1)), LOCATION, "town of an address"
        )
    if first > end and walk.words[end] != "\n" and walk.large(k) and not walk.label_at(k):
        last = line_of_words(walk, k)
        if (
            walk.rare(k)
            or walk.words[k] in walk.language.towns
            or walk.closes(last)
            and walk.plain(k)
        ):
            return walk.add(k, last, LOCATION, "town of an address")
    return end


def before_codes(walk: Walk) -> None:
    """Extend postcodes that follow their town ("Bury St Edmunds IP33 1LS", "Boise, ID 83702")."""
    for span in [s for s in walk.spans if s.rule == "postcode"]:
        i = k = walk.at(span.start)
        if walk.sign(k - 1, ","):
            k -= 1
        start = k
        while (
            start > 0
            and k - start < 7
            and (start == k or walk.near(start))
            and walk.near(start)
            and (
                walk.large(start - 1)
                or walk.sign(start - 1, "-'.")
                or walk.words[start - 1] in walk.language.kind("town_join")
            )
            and not walk.taken(start - 1)
        ):
            if walk.sign(start - 1, "-") and walk.page.gap(start - 1):
                break
            start -= 1
        while start < k and not walk.large(start):
            start += 1
        if start < k:
            walk.add(start, i, LOCATION, "town before its postcode")
