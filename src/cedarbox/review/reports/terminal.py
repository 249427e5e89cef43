"""A report on a terminal: with colours, and with the lines that the findings are about."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cedarbox.files import open_regular
from cedarbox.review.finding import Finding, Place, Report
from cedarbox.review.reports.parts import closing, counted, one_line, to_act_on, worst_first
from cedarbox.text import printable

__all__ = ["show"]

_STYLES: Final = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}
_MAX_FILE: Final = 4 * 1024 * 1024
"""Bytes of a file that lines are shown of."""
_BEFORE: Final = 0.4
"""Where in the width the marked text begins when its line is longer than the terminal is wide."""


def show(report: Report, console: Console) -> None:
    """Print a report.

    Args:
        report: What to tell.
        console: Where.
    """
    lines_of = cache(_lines)
    for finding in worst_first(to_act_on(report)):
        _finding(finding, console, lines_of(finding.place.file) if finding.place else ())
    for section in report.sections:
        console.print(Text(one_line(section.title), "bold"))
        for line in section.lines:
            console.print(Text(f"  {one_line(line)}"))
        if section.columns:
            table = Table(*map(one_line, section.columns), box=None)
            for column in table.columns:
                column.overflow = "fold"  # Rather broken than cut: what is left out may be what matters.
            for row in section.rows:
                table.add_row(*(Text(one_line(cell)) for cell in row))
            console.print(table)
        console.print()
    for note in report.notes:
        console.print(Text(f"note: {one_line(note)}", "dim"))
    if hidden := len(report.findings) - len(report.counted):
        console.print(Text(f"note: {counted(hidden, 'finding')} suppressed", "dim"))
    style = "bold red" if report.failed else "bold yellow" if report.undecided else "bold green"
    console.print(Text(closing(report), style))


def _finding(finding: Finding, console: Console, lines: tuple[str, ...]) -> None:
    head = Text()
    if finding.place:
        head.append(f"{one_line(str(finding.place))}: ", "bold")
    head.append(f"{finding.severity} {one_line(finding.rule)}", _STYLES[finding.severity])
    head.append(f": {one_line(finding.message)}")
    if finding.policy:
        head.append(f" ({one_line(finding.policy)})", "dim")
    console.print(head)
    if finding.place and finding.place.line <= len(lines):
        for line in _excerpt(lines[finding.place.line - 1], finding.place, console.width):
            console.print(line, no_wrap=True, overflow="crop")
    if finding.hint:
        console.print(Text(f"  {one_line(finding.hint)}", "italic"))
    console.print()


def _excerpt(line: str, place: Place, width: int) -> list[Text]:
    start = min((place.column or 1) - 1, len(line))
    end = len(line)
    if place.end_column is not None and place.end_line in {None, place.line}:
        end = min(place.end_column - 1, len(line))
    shown = [char if char.isprintable() else " " if char == "\t" else printable(char) for char in line]
    begin = sum(map(len, shown[:start]))
    size = max(sum(map(len, shown[start:end])), 1) if place.column is not None else 0
    gutter = f"  {place.line} | "
    room = max(width - len(gutter), 10)
    text = "".join(shown)
    skip = max(0, min(begin - int(room * _BEFORE), len(text) - room)) if len(text) > room else 0
    found = [Text(gutter, "dim") + Text(text[skip : skip + room])]
    if size:
        marks = "^" * min(size, room - (begin - skip))
        found.append(Text(f"{' ' * (len(gutter) - 2)}| {' ' * (begin - skip)}", "dim") + Text(marks, "bold red"))
    return found


def _lines(file: str) -> tuple[str, ...]:
    """Return the lines of a file; none when it cannot be read, as a file of a revision may be."""
    try:
        with open_regular(Path(file)) as opened:
            data = opened.read(_MAX_FILE)
    except (OSError, ValueError):
        return ()
    return tuple(data.decode("utf-8", "replace").split("\n"))
