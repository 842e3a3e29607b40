"""Places told by a word beside them: counties, post boxes, plots and saints."""

from functools import lru_cache

from bonelib.deidentify.addresses import line_of_words, town_end
from bonelib.deidentify.token_scan import LOCATION, TokenScan
from bonelib.reports.languages import Language
from bonelib.reports.pages import pieces

SAINTS = ("saint", "sainte", "st", "ste")


def counties(scan: TokenScan) -> None:
    """Find a county with the town before it: "Ballyfarna, Co. Roscommon"."""
    known = scan.language.kind("county")
    for i, word in enumerate(scan.words):
        if word not in known or not scan.large(i) or scan.taken(i):
            continue
        k = i + 1 + scan.sign(i + 1, ".")
        if scan.capital(k) and scan.rare(k) and scan.words[k] not in scan.eponyms:
            start = scan.back(i - 1, scan.large) if scan.sign(i - 1, ",") else i
            scan.add(start if start < i - 1 else i, town_end(scan, k), LOCATION, "county")


def boxes(scan: TokenScan) -> None:
    """Find plots and boxes with the places behind them: "Plot 88, Kwaggafontein", "BP 117".

    Saints name places too: "St Bride's phoned".
    """
    codes, plots = box_codes(scan.language), scan.language.kind("plot")
    for i, word in enumerate(scan.words):
        known = word in codes or word in plots or word in SAINTS
        if not known or not scan.large(i) or scan.taken(i):
            continue
        size = next((n for c, n in codes.get(word, ()) if tuple(scan.words[i : i + n]) == c), 0)
        plot = word in plots and scan.figures(i + 1) and scan.sign(i + 2, ",")
        j = i + (size or 1)
        if size and 1 < scan.figures(j) < 7 or plot and scan.large(i + 3):
            end = j + 1
            while scan.sign(end, ",") and scan.large(end + 1) and not scan.label_at(end + 1):
                last = line_of_words(scan, end + 1)
                if not any(scan.rare(k) for k in range(end + 1, last)):
                    break
                end = last
            scan.add(i, end, LOCATION, "box or plot")
            continue
        k = i + 1 + (scan.sign(i + 1, ".-") and scan.glued(i + 1))
        saint = word in SAINTS and scan.shapes[i] == "C" and scan.near(k) and scan.large(k)
        if saint and (scan.rare(k) or scan.named(k)) and scan.words[k] not in scan.eponyms:
            scan.add(i, town_end(scan, k), LOCATION, "place of a saint")


@lru_cache(maxsize=8)
def box_codes(language: Language) -> dict[str, list[tuple[tuple[str, ...], int]]]:
    """Return the words for a post box of a language, by their first token, with their number."""
    found: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for tokens in map(pieces, language.kind("po_box")):
        found.setdefault(tokens[0], []).append((tokens, len(tokens)))
    return found
