"""Institutions by their head word: "CHU de Lyon", "St Mary's Hospital", "Clinique du Parc"."""

from bonelib.reports import places
from bonelib.reports.languages import Phrase
from bonelib.reports.walk import Walk

LOCATION, INSTITUTION = places.LOCATION, places.INSTITUTION


def announced(walk: Walk, cue: Phrase, i: int) -> int:
    """Read an institution: the name after its head word, or before it, or both."""
    kind, j = cue.kind, i + len(cue.tokens)
    if walk.shapes[i] == "l" and len(walk.words[i]) <= 3:
        return j
    before = walk.letters(i - 1) and walk.near(i) and walk.page.caps[i]
    if (
        before
        and kind == "institution"
        and walk.words[i - 1]
        not in (walk.language.function | walk.language.kind("institution_before").keys())
    ):
        return j  # "HISTOIRE CLINIQUE"
    start, end, proper = i, j, 0
    if kind == "institution_after":
        start, proper = backwards(walk, i)
        while (
            walk.large(end)
            and walk.near(end)
            and (
                walk.words[end] in walk.language.kind("adjective")
                or walk.kind_at(end) == "institution_after"
            )
        ):
            end += 1
        whole = field(walk, start, end)
        start, proper = whole, proper + (whole < start)
        if (
            not proper
            and walk.near(end)
            and walk.large(end)
            and walk.rare(end)
            and not walk.eponymous(end)
        ):
            # "University Hospital Letterkenny"
            end, proper = places.town_end(walk, end), 1
        if proper and end < walk.size and walk.words[end] in ("of", "at") and walk.large(end + 1):
            end = places.town_end(walk, end + 1)
        if (
            proper
            and walk.large(end)
            and walk.near(end)
            and walk.rare(end)
            and not walk.label_at(end)
        ):
            end = places.town_end(walk, end)
    else:
        end, proper = forwards(walk, j)
    if not proper:
        return j
    before = walk.language.kind("institution_before")
    while (
        start > 0 and walk.near(start) and walk.words[start - 1] in before and walk.large(start - 1)
    ):
        start -= 1
    walk.add(start, end, INSTITUTION, "institution")
    return after_institution(walk, end)


def after_institution(walk: Walk, end: int) -> int:
    """Record a town in parentheses or after a comma that ends the field: "CHU (Annecy)"."""
    if end + 1 < walk.size and walk.words[end] == "\n" and walk.sign(end + 1, "("):
        end += 1
    if not walk.sign(end, "(,") or not walk.large(end + 1):
        return end
    last = max(places.line_of_words(walk, end + 1), places.town_end(walk, end + 1))
    bracket = walk.sign(end, "(") and walk.sign(last, ")")
    comma = walk.sign(end, ",") and walk.closes(last) and walk.words[end + 1] not in walk.not_name
    if walk.sign(end, ",") and not walk.closes(last) and walk.rare(end + 1):
        # "seen at St Anne's Hospital, Stourmere last week"
        comma, last = not walk.page.caps[end], places.town_end(walk, end + 1)
    if (bracket or comma) and not walk.kind_at(end + 1):
        return after_institution(walk, walk.add(end + 1, last, LOCATION, "town of an institution"))
    return end


def forwards(walk: Walk, j: int) -> tuple[int, int]:
    """Return the index after an institution's name and how many of its words are names."""
    words, shapes = walk.words, walk.shapes
    adjective, joins = walk.language.kind("adjective"), walk.language.kind("town_join")
    saints = walk.language.kind("saint")
    end = k = j
    proper = 0
    if walk.page.caps[j - 1]:  # in capitals words and names look alike: take a short field whole
        while (
            k < walk.size
            and k - j < 9
            and walk.near(k)
            and (walk.letters(k) or walk.sign(k, "-'.") and walk.glued(k))
            and walk.words[k] not in walk.not_name
            and not walk.label_at(k)
        ):
            proper += walk.large(k) and walk.words[k] not in adjective and len(walk.words[k]) > 2
            k += 1
        if walk.closes(k) and not walk.sign(k, ":"):
            return (k, proper) if k - j < 9 else (j, 0)
        k, proper = j, 0
    while k < walk.size and k - j < 14 and walk.near(k):
        word, shape = words[k], shapes[k]
        if word == "." and walk.glued(k) and (words[k - 1] in saints or shapes[k - 1] == "I"):
            k += 1
            continue
        if walk.sign(k, "-'&") and (walk.glued(k) or walk.glued(k + 1)):
            k += 1
            continue
        if walk.letters(k) and word in adjective and not walk.label_at(k):
            k += 1
            continue
        if word in walk.particles or word in joins:
            k += 1
            continue
        if shape in "CX" and word not in walk.heads and not walk.label_at(k):
            before = words[k - 1]
            held = before in saints or before in "-'"
            if word in walk.not_name or walk.kind_at(k).startswith("title"):
                break
            if not walk.plain(k) and walk.page.caps[k] and not held and not walk.named(k):
                break
            proper += 1
        elif shape == "I" and walk.near(k):
            pass
        else:
            break
        k += 1
        end = k
    return end, proper


def backwards(walk: Walk, i: int) -> tuple[int, int]:
    """Return where an institution whose head stands last begins, and its count of names."""
    words, adjective = walk.words, walk.language.kind("adjective")
    k = start = i
    proper = 0
    while k > 0 and i - k < 10 and walk.near(k):
        word, shape = words[k - 1], walk.shapes[k - 1]
        if shape in "CX" and word in adjective:
            start = k = k - 1
        elif (
            shape in "CX"
            and word not in walk.not_name
            and (word not in walk.language.function or word in walk.language.kind("saint"))
        ):
            if walk.label_at(k - 1) or walk.kind_at(k - 1).startswith("title"):
                break
            # a word of the language names a place only beside one that is none
            if (
                not walk.plain(k - 1)
                and walk.page.caps[k - 1]
                and not (
                    walk.named(k - 1)
                    or words[k - 1] in walk.language.towns
                    or walk.opens(k - 1)
                    or word in walk.language.kind("saint")
                )
            ):
                break
            proper += 1
            start = k = k - 1
        elif walk.sign(k - 1, "-'&.") and (walk.glued(k) or walk.glued(k - 1)):
            k -= 1
        elif word in walk.language.kind("town_join") or word == "s":
            k -= 1
        else:
            break
    return start, proper


def field(walk: Walk, start: int, end: int) -> int:
    """Return where a name of common words before a head begins; ``start`` if there is none.

    "LONG ACRE HOSPITAL", "at Mobile Clinic": nothing in such words says that they name a place,
    but they fill a field up to the head, or stand between a preposition of place and the head.
    """
    words, before = walk.words, walk.language.kind("place")
    no_name = before.keys() | walk.language.function
    no_name |= walk.language.kind("institution_common").keys()
    k, named = start, False
    while k > 0 and start - k < 4 and walk.near(k) and walk.large(k - 1):
        if (
            words[k - 1] in no_name
            or (named and words[k - 1] in walk.not_name)
            or walk.label_at(k - 1)
            or walk.kind_at(k - 1).startswith(("title", "credential"))
            or walk.language.vocabulary.at(words, k - 1)
        ):
            break
        k -= 1
        named |= words[k] not in walk.language.kind("adjective")
    after_preposition = k > 0 and walk.near(k) and words[k - 1] in before
    opened = walk.opens(k) or walk.sign(k - 1, ",") or not walk.near(k)
    return k if named and (after_preposition or opened and walk.closes(end)) else start
