"""What a string of Cedar stands for, and what a pattern of ``like`` does."""

from __future__ import annotations

import re
from typing import Final, Literal

from cedarbox.review.syntax.tokens import Span, Tokens

__all__ = ["pattern", "unescaped"]

# Cedar takes the escapes of Rust's string literals: https://doc.rust-lang.org/reference/tokens.html#string-literals
_ESCAPE: Final = re.compile(
    r"\\(?:([nrt\\0'\"])|x([0-7][0-9A-Fa-f])|u\{([0-9A-Fa-f][0-9A-Fa-f_]*)\}|(\*))|\\.?|\r", re.DOTALL
)
_SIMPLE: Final = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "0": "\0", "'": "'", '"': '"'}
_MAX_DIGITS: Final = 6
_MAX_CODE: Final = 0x10FFFF
_SURROGATES: Final = range(0xD800, 0xE000)


def unescaped(tokens: Tokens) -> str:
    """Read a string literal and return what it stands for.

    Raises:
        ParseError: It is not one, or has an escape that Cedar does not know.
    """
    return "".join(char for char, _ in _characters(tokens, stars=False))


def pattern(tokens: Tokens) -> list[Literal["Wildcard"] | dict[Literal["Literal"], str]]:
    r"""Read the pattern of ``like`` and return its parts in Cedar's JSON form.

    These are characters, and a wildcard for each ``*`` that is not ``\*``.

    Raises:
        ParseError: As for :func:`unescaped`.
    """
    return [
        "Wildcard" if char == "*" and not literal else {"Literal": char}
        for char, literal in _characters(tokens, stars=True)
    ]


def _characters(tokens: Tokens, *, stars: bool) -> list[tuple[str, bool]]:
    """Return the characters, and of each whether it is a star that was escaped."""
    if tokens.kind != "text":
        tokens.unexpected("a string in double quotes")
    raw, start = tokens.next[1:-1], tokens.start + 1
    if "\\" not in raw and "\r" not in raw:
        tokens.advance()
        return [(char, False) for char in raw]
    found: list[tuple[str, bool]] = []
    at = 0
    for match in _ESCAPE.finditer(raw):
        found += [(char, False) for char in raw[at : match.start()]]
        at = match.end()
        simple, byte, code, star = match.groups()
        place = Span(start + match.start(), start + match.end())
        if simple:
            found.append((_SIMPLE[simple], False))
        elif byte:
            found.append((chr(int(byte, 16)), False))
        elif code:
            digits = code.replace("_", "")
            value = int(digits, 16)
            if len(digits) > _MAX_DIGITS or value > _MAX_CODE or value in _SURROGATES:
                tokens.fail(f"`{match.group()[:40]}` is no character", place)
            found.append((chr(value), False))
        elif star and stars:
            found.append(("*", True))
        elif match.group() == "\r":
            tokens.fail("a carriage return in a string", place, hint=r"write \r")
        else:
            hint = r"Cedar has \n, \r, \t, \0, \\, \", \', \x41 and \u{1f512}" + (
                r", and \* in a pattern" if stars else ""
            )
            tokens.fail(f"`{match.group()}` is no escape", place, hint=hint)
    found += [(char, False) for char in raw[at:]]
    tokens.advance()
    return found
