"""What comes in as a report: bytes of unknown encoding, mark-up, another language; judged first.

``read`` makes text of bytes, ``clean`` takes mark-up and control characters out, ``problem`` says
why a text can't be judged safe. What has a problem is held back by ``removal.deidentify``.
"""

import html
import re
import unicodedata
from functools import lru_cache
from importlib import import_module

from bonelib.reports.languages import Language
from bonelib.reports.pages import fold

NEIGHBOURS = ("fr", "en", "de", "nl", "es", "it", "pt")
LONGEST = 100_000  # characters; a report has about 2,000, a megabyte is none
CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060\ufeff\u00ad]"
)
TAG = re.compile(
    r"<!--(?:(?!<!--).)*?-->|<(style|script)\b(?:(?!<\1\b).)*?</\1\s*>|</?[a-z][a-z0-9]*(?:\s[^<>]*)?/?>|<![a-z][^<>]*>",
    re.I | re.S,
)
BREAK = re.compile(r"<(?:br|/p|/div|/tr|/li|/h\d)\b[^<>]*>", re.I)
RTF_BREAK = re.compile(r"\\(?:par|line|sect|page|row|cell)(?![a-z])\s?")
RTF_HIDDEN = re.compile(
    r"\{\\(?:\*|fonttbl|colortbl|stylesheet|info|pict)(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
)
RTF_WORD = re.compile(r"\\[a-z]{1,20}-?\d{0,6} ?|\\[*~_]")
RTF_BYTE = re.compile(r"\\'([0-9a-fA-F]{2})")
RTF_CODE = re.compile(r"\\u(-?\d{2,5}) ?(?:\\'[0-9a-fA-F]{2}|\?)?")
MOJIBAKE = re.compile(r"[ÃÂ][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]")
WRONG_PAGE = re.compile(r"[A-Za-z](?:[‚ƒ„†‡ˆŠ‹¤¢£¥¬µ±]|[ÃÂ](?=[A-Z\W]))[a-z]")


def read(data: bytes) -> str:
    """Make text of bytes: UTF-8, UTF-16 with its mark, or else Windows Latin.

    Raises:
        ValueError: The bytes are no text in any of these.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError:
            raise ValueError(
                "The bytes claim UTF-16 and aren't. Save the report as UTF-8."
            ) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        text = ""
    if not text or len(CONTROL.findall(text)) > len(text) // 20:
        raise ValueError("The bytes are neither UTF-8, UTF-16 nor Windows Latin. Save it as UTF-8.")
    return text


def clean(text: str) -> str:
    """Return plain text: composed letters, no mark-up, no control characters.

    A text that has none of these comes back as it is, so that offsets hold.
    """
    if MOJIBAKE.search(text):
        try:
            text = text.encode("cp1252").decode("utf-8")
        except (UnicodeEncodeError, UnicodeDecodeError):
            pass  # `problem` holds it back
    if "\\" in text and (RTF_BYTE.search(text) or RTF_BREAK.search(text) or "{\\rtf" in text):
        text = RTF_HIDDEN.sub("", text)
        text = RTF_CODE.sub(lambda m: chr(int(m[1]) % 65536), text)
        text = RTF_BYTE.sub(lambda m: bytes.fromhex(m[1]).decode("cp1252", "replace"), text)
        text = RTF_WORD.sub("", RTF_BREAK.sub("\n", text)).replace("{", "").replace("}", "")
    if "<" in text or "&" in text:
        text = html.unescape(TAG.sub("", BREAK.sub("\n", text)))
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0c", "\n")
    return CONTROL.sub(" ", unicodedata.normalize("NFC", text))


def problem(text: str, language: Language) -> str:
    """Say why a cleaned report can't be judged safe, "" if it can."""
    letters = sum(map(str.isalpha, text[:20000]))
    if not text.strip() or letters < 3:
        return "empty: no words in it"
    if len(text) > LONGEST:
        return f"too long: {len(text)} characters, at most {LONGEST}"
    if "\ufffd" in text or MOJIBAKE.search(text) or WRONG_PAGE.search(text):
        return "encoding: letters are lost or wrong, so a name could pass unread"
    if re.search(r"\\'|\{\\|<\w+[^<>\n]{0,200}$|&#\d+;?|;base64,", text):
        return "mark-up: RTF or HTML remains, in which a name could hide"
    words = re.findall(r"[^\W\d_]+", fold(text[:20000]))
    if len(words) >= 12:
        own = sum(word in language.words for word in words) / len(words)
        function = sum(word in language.function for word in words) / len(words)
        for name, stops in strangers(language.name).items():
            theirs = sum(word in stops for word in words) / len(words)
            if theirs > 1.2 * function and theirs > 0.08:
                return f"language: reads as {name}, declared {language.name}"
        if own < 0.25:
            return f"language: {own:.0%} of its words are known in {language.name}"
        if letters_of_other_scripts(text) > letters // 10:
            return "language: written in another script"
    return ""


def uncapitalised(text: str) -> bool:
    """Whether a text is typed without capitals, so that nothing tells a name from a word."""
    words = re.findall(r"[^\W\d_]{2,}", text[:20000])
    small = sum(word.islower() for word in words)
    capitals = sum(word[0].isupper() and not word.isupper() for word in words)
    return small >= 3 and 50 * capitals <= small and 5 * sum(map(str.isupper, words)) <= small


def letters_of_other_scripts(text: str) -> int:
    """Count letters that are not Latin."""
    return len(re.findall(r"[\u0370-\u1cff\u2c00-\ud7ff\uf900-\ufdff\ufe70-\ufefe]", text[:20000]))


@lru_cache(maxsize=8)
def strangers(name: str) -> dict[str, frozenset[str]]:
    """Return the function words of other languages that this one lacks (of spaCy)."""
    stops = {
        code: frozenset(map(fold, import_module(f"spacy.lang.{code}.stop_words").STOP_WORDS))
        for code in dict.fromkeys((*NEIGHBOURS, name))
    }
    return {code: words - stops[name] for code, words in stops.items() if code != name}
