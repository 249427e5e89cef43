"""How values are shown: text of unknown origin, times, durations, sizes.

Most of what the collector holds was chosen by somebody else: a guest names its hosts, a model its tools. Such text is
escaped, isolated in its direction, and what is invisible or reorders its neighbours is written out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from markupsafe import Markup, escape

__all__ = [
    "FILTERS",
    "bare",
    "count",
    "duration",
    "hexshort",
    "jsonshown",
    "moment",
    "plural",
    "shown",
    "size",
    "whole",
]

MAX_SHOWN: Final = 160
"""Longest text in a line of a table, in characters."""

MAX_WHOLE: Final = 65_536
"""Longest text where it is shown in full, in characters."""

_MAX_COMBINING: Final = 3
"""Marks in a row above or below one letter; more of them paint over the lines around."""

# Letters and symbols by their category, and blank all the same.
_BLANK: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
_SECOND: Final = 1_000_000_000
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def bare(value: object, most: int = MAX_WHOLE) -> str:
    """Return a value as text without anything invisible, for places that take no markup, such as titles."""
    return "".join(piece for piece, _ in _pieces(_text(value), most))


def shown(value: object, most: int = MAX_SHOWN) -> Markup:
    """Return a value as markup for a line: escaped, isolated, and cut with a note of how much is missing.

    Args:
        value: Anything; what is no text is shown as JSON.
        most: How many characters at most.
    """
    text = _text(value)
    body = Markup("").join(
        Markup('<span class="esc">{}</span>').format(piece) if escaped else escape(piece)
        for piece, escaped in _pieces(text, most)
    )
    missing = len(text) - most
    more = Markup(' <span class="cut">… {} more</span>').format(count(missing)) if missing > 0 else Markup("")
    return Markup("<bdi>{}</bdi>{}").format(body, more)


def whole(value: object) -> Markup:
    """Return a value as markup in full, up to 64 Ki characters."""
    return shown(value, MAX_WHOLE)


def jsonshown(value: object) -> str:
    """Return a value as indented JSON, without anything invisible but the line feeds of the indentation."""
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS, default=str).decode()
    return "\n".join(bare(line) for line in text[:MAX_WHOLE].splitlines())


def moment(nanoseconds: int | None) -> Markup:
    """Return a time in UTC to the millisecond; its title has all nine digits, and a script adds the local time."""
    if nanoseconds is None or nanoseconds <= 0:
        return Markup('<span class="none">unknown</span>')
    seconds, fraction = divmod(nanoseconds, _SECOND)
    when = datetime.fromtimestamp(seconds, UTC)
    milliseconds = fraction // 1_000_000
    return Markup(
        '<time datetime="{full}" title="{day} {clock}.{fraction:09d} UTC">'
        '<span class="day">{day}</span> {clock}<span class="ms">.{ms:03d}</span></time>'
    ).format(
        full=f"{when:%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z",
        day=f"{when:%Y-%m-%d}",
        clock=f"{when:%H:%M:%S}",
        fraction=fraction,
        ms=milliseconds,
    )


def duration(nanoseconds: float | None) -> str:
    """Return a duration with about three digits, such as ``42.1 ms``."""
    if nanoseconds is None:
        return ""
    if nanoseconds < 0:
        return "ends before it begins"
    for limit, unit, scale in ((1e6, "µs", 1e3), (1e9, "ms", 1e6), (60e9, "s", 1e9)):
        if nanoseconds < limit:
            return f"{_digits(nanoseconds / scale)} {unit}"
    minutes, seconds = divmod(int(nanoseconds // _SECOND), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def size(value: object) -> str:
    """Return a number of bytes in binary units; nothing for what is no number."""
    if type(value) not in {int, float}:
        return ""
    left = float(value)  # type: ignore[arg-type]  # checked above
    for unit in _UNITS:
        if left < 1024 or unit == _UNITS[-1]:
            return f"{left:.0f} B" if unit == "B" else f"{_digits(left)} {unit}"
        left /= 1024
    raise AssertionError


def count(value: object) -> str:
    """Return a whole number with commas."""
    return f"{value:,}" if type(value) is int else bare(value)


def plural(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def hexshort(value: object) -> Markup:
    """Return the first digits of a digest or an id; the title has all of it."""
    text = bare(value, 200)
    head = text.removeprefix("sha256:").partition("-")[0]
    return Markup('<span class="hex" title="{}">{}</span>').format(text, head[:12]) if text else Markup("")


def _digits(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value, default=str).decode()


def _pieces(text: str, most: int) -> Iterator[tuple[str, bool]]:
    """Yield the text in pieces, and of each whether it was written out."""
    plain: list[str] = []
    combining = 0
    for letter in text[:most]:
        combining = combining + 1 if unicodedata.category(letter) in {"Mn", "Me"} else 0
        if letter.isprintable() and letter not in _BLANK and combining <= _MAX_COMBINING:
            plain.append(letter)
            continue
        if plain:
            yield "".join(plain), False
            plain.clear()
        yield letter.encode("unicode_escape", "backslashreplace").decode(), True
    if plain:
        yield "".join(plain), False


FILTERS: Final[Mapping[str, Any]] = {
    "bare": bare,
    "count": count,
    "duration": duration,
    "hexshort": hexshort,
    "json": jsonshown,
    "moment": moment,
    "plural": plural,
    "shown": shown,
    "size": size,
    "whole": whole,
}
