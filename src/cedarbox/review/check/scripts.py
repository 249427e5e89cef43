"""Which text could be mistaken for another: what turns the direction of writing, mixed scripts, odd characters.

Cedar's validator warns of the same, but cedarpy drops its warnings. It uses the tables of Unicode's UTS 39; the
standard library has none of them. The script of a letter is read off its name instead, which begins with it, and a
script counts as recommended by UAX 31, table 5. Where a name does not tell, a character counts as one of no script, so
that it is no warning by itself.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Final

__all__ = ["BIDI", "has_bidi", "mixes_scripts", "odd_character"]

BIDI: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of what follows: those that Cedar's validator knows."""

# https://www.unicode.org/reports/tr31/#Table_Recommended_Scripts
_RECOMMENDED: Final = frozenset(
    {
        *("ARABIC", "ARMENIAN", "BENGALI", "BOPOMOFO", "CYRILLIC", "DEVANAGARI", "ETHIOPIC", "GEORGIAN", "GREEK"),
        *(
            "GUJARATI",
            "GURMUKHI",
            "HANGUL",
            "HAN",
            "HEBREW",
            "HIRAGANA",
            "KANNADA",
            "KATAKANA",
            "KHMER",
            "LAO",
            "LATIN",
        ),
        *("MALAYALAM", "MYANMAR", "ORIYA", "SINHALA", "TAMIL", "TELUGU", "THAANA", "THAI", "TIBETAN"),
    }
)
_HAN: Final = frozenset({"CJK", "IDEOGRAPHIC", "KANGXI"})
# Names that begin with none of these words are of a script that the first word names.
_NO_SCRIPT: Final = frozenset(
    {
        *("COMBINING", "MODIFIER", "MATHEMATICAL", "VARIATION", "DOUBLE-STRUCK", "SCRIPT", "BLACK-LETTER", "MICRO"),
        *("FEMININE", "MASCULINE", "KELVIN", "ANGSTROM", "PLANCK", "EULER", "TURNED", "SUPERSCRIPT"),
    }
)
# Scripts that one writing system uses together: https://www.unicode.org/reports/tr39/#Definition_Augmented_Script_Set
_TOGETHER: Final = (
    frozenset({"HAN", "HIRAGANA", "KATAKANA"}),
    frozenset({"HAN", "HANGUL"}),
    frozenset({"HAN", "BOPOMOFO"}),
)


def has_bidi(text: str) -> bool:
    """Whether a text has a character that turns the direction of writing."""
    return not text.isascii() and not BIDI.isdisjoint(text)


def mixes_scripts(text: str) -> bool:
    """Whether a text has letters of scripts that no writing system uses together, such as Latin and Cyrillic."""
    if text.isascii():
        return False
    found = {script for char in text if (script := _script(char))}
    return len(found) > 1 and not any(found <= system for system in _TOGETHER)


def odd_character(text: str) -> str:
    """Return the first character that does not belong into a name by UTS 39, or nothing.

    Every printable ASCII character does, as for Cedar's validator.
    """
    return next((char for char in text if not (" " <= char <= "~") and not _belongs(char)), "")


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    if char.isascii():
        return "LATIN" if char.isalpha() else ""
    category = unicodedata.category(char)
    name = unicodedata.name(char, "")
    if not name:
        # Private use, a script of which Python knows no names, or not assigned.
        return "" if category == "Cc" else "UNKNOWN"
    word = name.removeprefix("HALFWIDTH ").removeprefix("FULLWIDTH ").split(" ")[0]
    if word in _HAN:
        return "HAN"
    if category[0] == "M":
        return word if word in _RECOMMENDED else ""
    return word if category[0] == "L" and word not in _NO_SCRIPT else ""


@lru_cache(maxsize=4096)
def _belongs(char: str) -> bool:
    if not f"a{char}".isidentifier() or unicodedata.normalize("NFKC", char) != char:
        return False
    script = _script(char)
    return not script or script in _RECOMMENDED
