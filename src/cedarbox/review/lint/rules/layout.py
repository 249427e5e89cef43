"""Rules about the files: formatting (S090) and characters that deceive the reader (S091)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from cedarbox.review.finding import Edit
from cedarbox.review.formatting import FormatError, Layout, format_policies
from cedarbox.review.lint.context import Context
from cedarbox.review.lint.model import Fix, Hit, LintRule
from cedarbox.review.lint.places import place_at
from cedarbox.review.subject import shown

__all__ = ["RULES"]

_MOST: Final = 20
_CEDARS: Final = Layout(width=80, indent=2)
# What is printed, and nobody sees: Unicode, Default_Ignorable_Code_Point that is not of the category Cf.
_BLANK: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SUSPECT: Final = re.compile("[^\n\t\x20-\x7e]")
_SCRIPTS: Final = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE"})
_QUOTED: Final = re.compile(r'//[^\n\r]*|"((?:[^"\\]|\\.)*)"', re.DOTALL)


def _format(context: Context) -> Iterator[Hit]:
    for name in sorted(context.subject.files):
        if not name.endswith(".cedar"):
            continue
        text = context.subject.text(name)
        try:
            better = format_policies(text)
            # Policies of other projects may be as the program `cedar` lays them out when nobody says how.
            usual = bool(context.subject.bundle is None and format_policies(text, _CEDARS) == text)
        except FormatError as error:
            context.notes.append(f"S090: the layout of {name} was not looked at: {error.message}")
            continue
        if better != text and not usual:
            start = next((at for at, (a, b) in enumerate(zip(text, better, strict=False)) if a != b), len(better))
            file = shown(context.subject.root / name)
            place = place_at(file, text, min(start, len(text)), min(start, len(text)))
            edit = Edit(file, 0, len(text), better)
            yield Hit("is not formatted", place=place, key=name, fix=Fix((edit,), safe=True))


def _hidden(context: Context) -> Iterator[Hit]:
    for name in sorted(context.subject.files):
        text = context.subject.text(name)
        file = shown(context.subject.root / name)
        count = 0
        for match in _SUSPECT.finditer(text):
            why = _why_hidden(text, match.start())
            if not why:
                continue
            count += 1
            if count > _MOST:
                break
            place = place_at(file, text, match.start(), match.end())
            yield Hit(f"has {why}, U+{ord(match.group()):04X}", place=place, key=f"{name} {why} {ord(match.group())}")
        if name.endswith(".cedar"):
            yield from _mixed(text, file)


def _why_hidden(text: str, at: int) -> str:
    char = text[at]
    if char == "\r":
        # Cedar ends a comment at it, and many editors show no new line.
        return "" if text[at + 1 : at + 2] == "\n" else "a carriage return that ends a line for Cedar only"
    kind = unicodedata.category(char)
    if kind == "Cf":
        turning = unicodedata.bidirectional(char) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
        return "a character that turns the direction of writing" if turning else "a character that nobody sees"
    if kind in {"Cc", "Zl", "Zp"}:
        return "a control character"
    if kind == "Zs" or _BLANK.match(char):
        return "a space that is none"
    return ""


def _mixed(text: str, file: str) -> Iterator[Hit]:
    for match in _QUOTED.finditer(text):
        inside = match.group(1)
        if inside is None or inside.isascii():
            continue
        for word in re.findall(r"\w+", inside):
            scripts = {unicodedata.name(char, "").split(" ")[0] for char in word if char.isalpha()} & _SCRIPTS
            if len(scripts) > 1:
                place = place_at(file, text, match.start(), match.end())
                told = " and ".join(sorted(scripts)).title()
                yield Hit(f"mixes letters of {told} in one word, {word[:40]!r}", place=place, key=f"mixed {word}")


RULES: Final = (
    LintRule(
        "S090",
        "not-formatted",
        "error",
        "A file that is not laid out as cedarbox policy fmt lays it out",
        "run cedarbox policy fmt, or lint with --fix",
        "text",
        _format,
        sandbox=False,
    ),
    LintRule(
        "S091",
        "deceptive-characters",
        "error",
        "Characters that nobody sees, that turn the direction of writing, or that look like others",
        "remove them",
        "text",
        _hidden,
        sandbox=False,
    ),
)
"""The rules."""
