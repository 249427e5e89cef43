"""Sets of texts that both Python and the solvers understand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

__all__ = ["HIGHEST", "Pattern", "UnsupportedError", "checked", "like", "quoted", "wildcards"]

HIGHEST: Final = 0x2FFFF
"""The highest code point that a character of SMT-LIB can be (theory of strings, version 2.6)."""


class UnsupportedError(Exception):
    """Something of a policy is not encoded. The message is a phrase, such as ``a set of sets``."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A set of texts.

    Attributes:
        smt: As a regular language of SMT-LIB.
        python: The same as a regular expression of Python, in which a dot is any character.
    """

    smt: str
    python: str

    def holds(self, text: str) -> bool:
        """Whether a text is in it."""
        return _compiled(self.python).fullmatch(text) is not None


@lru_cache(maxsize=1024)
def _compiled(python: str) -> re.Pattern[str]:
    return re.compile(python, re.DOTALL)


def wildcards(pattern: Sequence[str | Mapping[str, Any]]) -> tuple[str | None, ...]:
    """Return the pattern of a ``like`` as literal texts, with None where any text may stand.

    Args:
        pattern: As Cedar's JSON form has it: ``"Wildcard"`` or ``{"Literal": …}`` for each character or run of them.
    """
    found: list[str | None] = []
    for part in pattern:
        if part == "Wildcard":
            if not found or found[-1] is not None:
                found.append(None)
        else:
            text = str(part["Literal"])  # type: ignore[index]  # what is no wildcard is a literal
            if found and found[-1] is not None:
                found[-1] += text
            else:
                found.append(text)
    return tuple(found)


def like(parts: Sequence[str | None]) -> Pattern:
    """Return the texts that the parts of a ``like`` describe, see :func:`wildcards`."""
    smt = ["re.all" if part is None else f"(str.to_re {quoted(part)})" for part in parts]
    python = "".join(".*" if part is None else re.escape(part) for part in parts)
    return Pattern(smt[0] if len(smt) == 1 else f"(re.++ {' '.join(smt)})", python)


def checked(text: str) -> str:
    """Return a text that solvers can have.

    Raises:
        UnsupportedError: It has a character that they cannot.
    """
    if text and ord(max(text)) > HIGHEST:
        raise UnsupportedError(f"the character U+{ord(max(text)):X}, which solvers cannot have in a text,")
    return text


def quoted(text: str) -> str:
    """Return a text as SMT-LIB writes it.

    Raises:
        UnsupportedError: It has a character that SMT-LIB cannot have.
    """
    out = []
    for char in checked(text):
        code = ord(char)
        if char == '"':
            out.append('""')
        elif 0x20 <= code < 0x7F and char != "\\":
            out.append(char)
        else:
            out.append(f"\\u{{{code:x}}}")
    return f'"{"".join(out)}"'
