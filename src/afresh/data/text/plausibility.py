"""How plausible the letters beyond ASCII in a text are: whether it was decoded from the right encoding.

A wrong encoding turns letters into signs inside words, capitals after small letters, letters of another script within a
word, letters of no one language, or rare letters of a script. Each letter is worth from 0 to 1.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

# Letters beyond ASCII of languages that are written in Latin letters, in lower case.
LATIN = tuple(
    frozenset(letters)
    for letters in (
        "àâæçéèêëîïôœùûüÿ",  # French
        "äöüßé",  # German
        "áéíñóúüªº",  # Spanish
        "ãáâàçéêíóôõúüªº",  # Portuguese
        "àèéìíîòóùú",  # Italian
        "àçèéíïòóúü·",  # Catalan
        "éëïóöüè",  # Dutch
        "åäöéü",  # Swedish, Finnish
        "æøåéóòôâ",  # Danish, Norwegian
        "áéíóúýþæöð",  # Icelandic
        "äöõüšž",  # Estonian
        "ąćęłńóśźż",  # Polish
        "áčďéěíňóřšťúůýž",  # Czech
        "áäčďéíĺľňóôŕšťúýž",  # Slovak
        "áéíóöőúüű",  # Hungarian
        "čšžćđ",  # Slovene, Croatian, Bosnian
        "ăâîşţșț",  # Romanian
        "çğıiöşüâîû",  # Turkish
    )
)
# The letters that make up most of a text in another script, in lower case.
COMMON = {
    "CYRILLIC": frozenset("оеаинтсрвлкмдпуяыьбзі"),
    "GREEK": frozenset("αοιετσνηυρπκμλςωάέήίόύώ"),
    "HEBREW": frozenset("יוהלארתבשמנםעדק"),
    "ARABIC": frozenset("اليمونرتبةعدسفهقكأح"),
}
TYPOGRAPHIC = frozenset("“”‘’„‚«»‹›–—…€£§°©®™•½¼¾±×¿¡²³\u00a0\u00ad")  # signs that texts have
WITHIN = frozenset("’‘·\u00ad")  # signs that words may have inside
RARE, ODD = 0.4, 0.2  # what a rare letter is worth, and a sign that few texts have
JAPANESE, KANJI = "shift_jis", 0.9  # what a common one is worth: Japanese has kana, too
LEVELS = {  # the lead bytes of the common characters of East Asian standards
    "gb2312": (0xB0, 0xD7),
    "big5": (0xA4, 0xC6),
    JAPANESE: (0x88, 0x97),
    "euc_kr": (0xB0, 0xC8),
}


def plausibility(text: str, standard: str = "") -> tuple[float, int]:
    """The worth of all characters beyond ASCII in a text, and their number.

    `standard`: of East Asian characters, one of LEVELS, of which the common ones count as plausible.
    """
    latin: Counter[str] = Counter()
    total, count = 0.0, 0
    for before, character, after in neighbours(text):
        count += 1
        if character.isalpha() and script(character) == "LATIN":
            if fits(before, character, after):
                latin[character.lower()] += 1
        else:
            total += worth(before, character, after, standard)
    if latin:
        language = max(LATIN, key=lambda letters: sum(n for c, n in latin.items() if c in letters))
        total += sum(n * (1.0 if c in language else RARE) for c, n in latin.items())
    return total, count


def neighbours(text: str) -> Iterator[tuple[str, str, str]]:
    """Every character beyond ASCII, with the one before and the one after it; a space where none exists."""
    for match in re.finditer(r"[^\x00-\x7f]", text):
        at = match.start()
        yield text[at - 1] if at else " ", match[0], text[at + 1] if at + 1 < len(text) else " "


def fits(before: str, character: str, after: str) -> bool:
    """Whether a letter may stand between these: no capital after a small letter, and no letter of another script."""
    if character.isupper() and before.islower():
        return False
    return all(not c.isalpha() or script(c) == script(character) for c in (before, after))


def worth(before: str, character: str, after: str, standard: str) -> float:
    """The worth of a character that is not a Latin letter."""
    if unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs"):
        return 0.0
    name = script(character)
    if name == "EAST ASIAN":
        inside = all(c.isascii() and c.isalpha() for c in (before, after))  # a word of Latin letters
        return 0.0 if inside else east_asian(character, standard)
    if name in COMMON and (character.isalpha() or unicodedata.combining(character)):
        if not fits(before, character, after):
            return 0.0
        capitals = character.isupper() and (before.isupper() or after.isupper())
        return (1.0 if character.lower() in COMMON[name] else RARE) - (ODD if capitals else 0.0)
    if before.isalpha() and after.isalpha() and character not in WITHIN:
        return 1.0 if script(before) == "EAST ASIAN" else 0.0
    return 1.0 if character in TYPOGRAPHIC or character in WITHIN else ODD


def east_asian(character: str, standard: str) -> float:
    if unicodedata.east_asian_width(character) == "H":  # narrow katakana
        return ODD
    if "\u3040" <= character <= "\u30ff":  # kana
        return 1.0 if standard == JAPANESE else RARE
    if "\u3000" <= character <= "\u303f" or "\uff00" <= character <= "\uff60":  # punctuation
        return 1.0
    if not standard:
        return RARE
    try:
        lead = character.encode(standard)[0]
    except UnicodeEncodeError:
        return 0.0
    low, high = LEVELS[standard]
    if not low <= lead <= high:
        return RARE
    return KANJI if standard == JAPANESE else 1.0


@lru_cache(1 << 12)
def script(character: str) -> str:
    """LATIN, GREEK, CYRILLIC, HEBREW, ARABIC or EAST ASIAN, or the first word of the character's name."""
    first = unicodedata.name(character, "").partition(" ")[0]
    if first in ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH"):
        return "EAST ASIAN"
    return first.partition("-")[0] if not (character.isascii() and character.isalpha()) else "LATIN"
