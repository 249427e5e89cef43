"""A report as plain lines, for a file, a pipe or a log: ``file:line:column: severity rule: message (policy)``."""

from __future__ import annotations

from collections.abc import Iterator

from cedarbox.review.finding import Finding, Report, Section
from cedarbox.review.reports.parts import closing, counted, one_line, to_act_on, worst_first

__all__ = ["finding_line", "inert", "text"]


def text(report: Report) -> str:
    """Return a report as lines of text."""
    return "".join(f"{inert(line)}\n" for line in _lines(report))


def inert(line: str) -> str:
    """Return a line that the runner of a pipeline takes for no command.

    GitHub's runner obeys a line that begins with ``::`` after blanks, and ``##[`` anywhere in it; the agent of Azure
    Pipelines obeys ``##vso[``.
    """
    stripped = line.lstrip()
    if stripped.startswith("::"):
        line = f"{line[: len(line) - len(stripped)]}\\x3a{stripped[1:]}"
    return line.replace("##", "#\\x23")


def _lines(report: Report) -> Iterator[str]:
    for finding in worst_first(to_act_on(report)):
        yield finding_line(finding)
        if finding.hint:
            yield f"  {one_line(finding.hint)}"
    for section in report.sections:
        yield from _section(section)
    for note in report.notes:
        yield f"note: {one_line(note)}"
    if hidden := len(report.findings) - len(report.counted):
        yield f"note: {counted(hidden, 'finding')} suppressed"
    yield closing(report)


def finding_line(finding: Finding) -> str:
    """Return a finding on one line, without its hint."""
    place = f"{finding.place}: " if finding.place else ""
    policy = f" ({finding.policy})" if finding.policy else ""
    return one_line(f"{place}{finding.severity} {finding.rule}: {finding.message}{policy}")


def _section(section: Section) -> Iterator[str]:
    yield f"{one_line(section.title)}:"
    for line in section.lines:
        yield f"  {one_line(line)}"
    if not section.columns:
        return
    rows = [tuple(map(one_line, row)) for row in (section.columns, *section.rows)]
    widths = [max(len(row[number]) for row in rows) for number in range(len(section.columns))]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
