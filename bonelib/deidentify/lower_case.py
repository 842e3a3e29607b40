"""Names typed without capitals: by the lexicons, beside cues; unknown words after a title alone."""

from bonelib.deidentify.token_scan import TokenScan

LONGEST = 4  # words of a name


def name(scan: TokenScan, j: int, *, sure: bool, comma: bool = False, common: bool = False) -> int:
    """Return the index after the name in lower case that begins at token ``j``; ``j`` if none does.

    One of its words must be of the lexicons and no word of the language: "patient john smith seen".
    A word of the language is a surname beside such a one: "c. petit", "laura king".

    Args:
        sure: A title or a marked label stands before: a word that nobody knows may be a name.
        comma: "surname, first" may be written.
        common: "Name:" stands before: a surname that is a word of the language may stand alone.
    """
    k, end, known, words = scan.over_particles(j), j, False, 0
    while k < scan.size and words < LONGEST and (words == 0 or scan.near(k)):
        if comma and words and scan.sign(k, ",") and _named(scan, k + 1):
            k, comma = k + 1, False
        if words:
            k = scan.over_particles(k)
        initial = _initial(scan, k)
        initial |= sure and not words and _before_surname(scan, k)
        strange = unknown(scan, k) and (sure or scan.closes(k + 1) and known)
        strange |= comma and not words and scan.sign(k + 1, ",") and _first_name(scan, k + 2)
        if not (initial or strange or _named(scan, k)):
            break
        known |= _named(scan, k) and scan.plain(k) or sure and strange
        known |= _named(scan, k) and (common or sure and words > 0)
        words, k = words + 1, k + 1
        if initial and scan.sign(k, ".") and scan.glued(k):
            k += 1
        end = k
        if scan.sign(k, "-'") and scan.glued(k) and scan.glued(k + 1):
            k += 1
    first = scan.over_particles(j)
    lone = words == 1 and _initial(scan, first)
    # "mr short complains", "m. blanc": a title makes a surname of a word, where nothing is named
    joined = scan.sign(end, "-'") and scan.glued(end)
    surname = sure and words == 1 and _named(scan, first) and not joined
    surname &= not scan.near(end) or not scan.language.vocabulary.at(scan.words, end)
    return end if (known or surname) and not lone else j


def surname(scan: TokenScan, j: int, *, clear: bool) -> int:
    """Return the index after a surname that is a word too, behind a title: "dr petit," "mrs bone".

    Args:
        clear: The title means nothing else, as "mr", "m." and "dr" do: no lexicon need know it.
    """
    if not small(scan, j):
        return j
    k, language = scan.over_particles(j), scan.language
    word = scan.words[k]
    if len(word) < 3 or word in language.function or word in scan.not_name:
        return j
    if scan.sign(k + 1, "-'") and scan.glued(k + 1):
        return j
    if not scan.named(k):
        if (
            not clear
            or word in language.stops
            or word.endswith(tuple(language.kind("word_ending")))
        ):
            return j
    elif not clear and language.vocabulary.at(scan.words, k):
        return j
    follows = clear or scan.closes(k + 1) or scan.words[k + 1] in language.stops
    return k + 1 if follows else j


def small(scan: TokenScan, j: int) -> bool:
    """Whether a word in lower case stands at ``j``, behind particles."""
    k = scan.over_particles(j)
    return k < scan.size and scan.shapes[k] == "l"


def _before_surname(scan: TokenScan, k: int) -> bool:
    """Whether a letter without its stop stands before a surname that ends its field: "a hope"."""
    named = small(scan, k + 1) and (_named(scan, k + 1) or unknown(scan, k + 1))
    return len(scan.words[k]) == 1 and scan.letters(k) and named and scan.closes(k + 2)


def _first_name(scan: TokenScan, k: int) -> bool:
    """Whether a first name that is no word ends its field or stands before a word."""
    return scan.near(k) and scan.words[k] in scan.language.given and scan.plain(k)


def _initial(scan: TokenScan, k: int) -> bool:
    """Whether a letter stands for a first name: "j. smith", "smith j."."""
    letter = scan.letters(k) and len(scan.words[k]) == 1
    shortens = scan.sign(k + 1, ".") and (scan.glued(k + 1) or scan.closes(k + 2))
    return letter and (shortens or scan.closes(k + 1)) and not scan.sign(k + 1, "'")


def _named(scan: TokenScan, k: int) -> bool:
    """Whether the lexicons know a word that is no verb, function word or eponym's head."""
    if not scan.letters(k) or len(scan.words[k]) < 3 or not scan.named(k):
        return False
    word, stops = scan.words[k], scan.language.stops
    ordinary = word in stops and (word not in scan.language.given or scan.of(k, "stop"))
    return not (ordinary or word in scan.language.function or word in scan.not_name)


def unknown(scan: TokenScan, k: int, *, usual: bool = False) -> bool:
    """Whether the language does not know a word, nor its ending.

    Args:
        usual: The word may be known if reports don't use it: "oakwood" before "clinic".
    """
    words = scan.language.usual if usual else scan.language.words
    if not scan.letters(k) or len(scan.words[k]) < 3 or scan.words[k] in words:
        return False
    word = scan.words[k]
    if word in scan.not_name or word.endswith(tuple(scan.language.kind("word_ending"))):
        return False
    return not scan.language.misspelt(word)
