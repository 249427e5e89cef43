"""A report as a comment on a pull request: Markdown that GitHub and GitLab show.

Everything is HTML that both allow, in one block without an empty line, where no Markdown counts. Text from files is
escaped, and stands in ``code``, where neither site looks for names to notify, or has a word joiner after the characters
that begin a reference. No line begins with it, so that it is no command to a bot or to GitLab either.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from cedarbox.review.finding import Finding, Report, Section
from cedarbox.review.reports.parts import counted, cut, to_act_on, worst_first

__all__ = ["MAX_COMMENT", "marker", "text"]

MAX_COMMENT: Final = 65_536 - 256
"""Largest body of a comment of GitHub, in characters, less what who posts it adds. Bytes are counted here, of which
there are no fewer."""

_MAX_CELL: Final = 400
_MAX_LINES: Final = 50
_JOINER: Final = "\u2060"
_REFERENCE: Final = re.compile(r"([@#!~%$^*&\[]|:(?=//)|(?<=\bwww)(?=\.))")


def marker(report: Report) -> str:
    """Return the comment of HTML that a report begins with: the same for the same command and subject.

    What posts a comment finds its earlier one by it, and must look at the author too: anybody can write it.
    """
    digest = hashlib.sha256(f"{report.command}\0{report.subject}".encode("utf-8", "backslashreplace")).hexdigest()
    return f"<!-- cedarbox-policy:{digest[:32]} -->"


def text(report: Report, limit: int = MAX_COMMENT) -> str:
    """Return a report as Markdown.

    Args:
        report: What to tell.
        limit: How many bytes it has at most. What does not fit is left out, and that is said.
    """
    verdict = "Failed" if report.failed else "Not decided" if report.undecided else "Good"
    head = [
        marker(report),
        f"<h3>{verdict}: cedarbox policy {_words(report.command)} {_code(report.subject)}</h3>",
        f"<p>{_words(report.summary)}</p>",
    ]
    page = _Page(head, limit)
    findings = worst_first(to_act_on(report))
    if findings:
        counts = (
            sum(finding.severity == severity for finding in findings) for severity in ("error", "warning", "note")
        )
        told = [counted(count, what) for count, what in zip(counts, ("error", "warning", "note"), strict=True) if count]
        heads = ("severity", "rule", "place", "policy", "what")
        page.table(", ".join(told), (), heads, map(_row, findings), opened=True)
    for section in report.sections:
        _section(page, section)
    if hidden := len(report.findings) - len(report.counted):
        page.add(f"<p>{counted(hidden, 'finding')} suppressed.</p>")
    if report.notes:
        page.listing("Notes", map(_words, report.notes))
    return page.text()


class _Page:
    """Blocks of HTML up to a number of bytes."""

    def __init__(self, head: Sequence[str], limit: int) -> None:
        self._lines = list(head)
        self._tail = "<p>More did not fit in here.</p>"
        self._left = limit - sum(len(line.encode()) + 1 for line in head) - len(self._tail) - 1
        self._cut = False

    def text(self) -> str:
        lines = [*self._lines, self._tail] if self._cut else self._lines
        return "\n".join(lines) + "\n"

    def add(self, *lines: str, reserve: int = 0) -> bool:
        size = sum(len(line.encode()) + 1 for line in lines)
        if size + reserve > self._left:
            self._cut = True
            return False
        self._left -= size
        self._lines += lines
        return True

    def table(
        self,
        title: str,
        lines: Iterable[str],
        heads: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        opened: bool = False,
    ) -> None:
        """Add a part that can be folded: paragraphs, then a table of cells that are HTML already."""
        end = ["</table>"] * bool(heads) + ["</details>"]
        reserve = sum(map(len, end)) + len(end) + 80
        start = [
            f"<details{' open' if opened else ''}><summary>{title}</summary>",
            *(f"<p>{line}</p>" for line in lines),
        ]
        if heads:
            start += ["<table>", f"<tr>{''.join(f'<th>{_words(head)}</th>' for head in heads)}</tr>"]
        if not self.add(*start, reserve=reserve):
            return
        left = 0
        for row in rows:
            if left or not self.add(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>", reserve=reserve):
                left += 1
        self._end(end, left, "row")

    def listing(self, title: str, items: Iterable[str]) -> None:
        end = ["</ul>", "</details>"]
        reserve = sum(map(len, end)) + len(end) + 80
        if not self.add(f"<details><summary>{title}</summary>", "<ul>", reserve=reserve):
            return
        left = 0
        for item in items:
            if left or not self.add(f"<li>{item}</li>", reserve=reserve):
                left += 1
        self._end(end, left, "line")

    def _end(self, lines: list[str], left: int, what: str) -> None:
        told = [f"<p>{counted(left, f'more {what}')} left out.</p>"] if left else []
        self.add(*lines[:-1], *told, lines[-1])


def _row(finding: Finding) -> tuple[str, ...]:
    return (
        f"<b>{finding.severity}</b>" if finding.severity == "error" else finding.severity,
        _code(finding.rule),
        _code(str(finding.place)) if finding.place else "",
        _code(finding.policy) if finding.policy else "",
        f"{_words(finding.message)}<br><i>{_words(finding.hint)}</i>" if finding.hint else _words(finding.message),
    )


def _section(page: _Page, section: Section) -> None:
    lines = [*map(_words, section.lines[:_MAX_LINES])]
    if left := len(section.lines) - len(lines):
        lines.append(f"{counted(left, 'more line')} left out.")
    rows = ([_cell(cell) for cell in row] for row in section.rows)
    page.table(_words(section.title), lines, section.columns, rows, opened=section.opened)


def _cell(text: str) -> str:
    return _words(text) if " " in text or not text else _code(text)


def _code(text: str) -> str:
    return f"<code>{_escaped(text)}</code>"


def _words(text: str) -> str:
    # The references first: escaping makes ampersands and number signs of its own.
    parts = _REFERENCE.split(cut(text, _MAX_CELL))
    return "".join(escape(part) + _JOINER if number % 2 else escape(part) for number, part in enumerate(parts))


def _escaped(text: str) -> str:
    return escape(cut(text, _MAX_CELL))
