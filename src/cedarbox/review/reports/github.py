"""A report as workflow commands of GitHub Actions, which put annotations on the lines of a pull request.

GitHub shows ten annotations of a kind for a step and drops the rest without a word, so there are ten at most here, the
worst first, and the report says how many there are besides. All of them are in the summary of the step.

Percent signs and line ends are escaped in a message, colons and commas in a property too: the runner turns them back
(``Runner.Common/ActionCommand.cs`` of actions/runner).
"""

from __future__ import annotations

from typing import Final

from cedarbox.review.finding import Finding, Report
from cedarbox.review.reports.parts import counted, one_line, to_act_on, worst_first
from cedarbox.review.reports.plain import inert

__all__ = ["MAX_ANNOTATIONS", "text"]

MAX_ANNOTATIONS: Final = 10
"""How many annotations there are at most. GitHub takes 10 warnings and 10 errors of a step; ours are 10 together."""

_COMMANDS: Final = {"error": "error", "warning": "warning", "note": "notice"}


def text(report: Report) -> str:
    """Return a report as workflow commands, then plain lines for the log."""
    findings = worst_first(to_act_on(report))
    lines = []
    title = _property(f"cedarbox policy {report.command}")
    if report.failed and not any(finding.severity == "error" for finding in findings):
        lines.append(f"::error title={title}::{_told(report)}")
    elif report.undecided and not report.failed:
        lines.append(f"::warning title={title}::{_told(report)}")
    shown = findings[: MAX_ANNOTATIONS - len(lines)]
    lines += [_command(finding) for finding in shown]
    if hidden := len(findings) - len(shown):
        lines.append(f"{counted(hidden, 'more finding')} in the summary of the step")
    lines += [inert(f"note: {one_line(note)}") for note in report.notes]
    lines.append(inert(one_line(f"{report.subject}: {report.summary}")))
    return "\n".join(lines) + "\n"


def _told(report: Report) -> str:
    return _data(f"{report.subject}: {report.summary}")


def _command(finding: Finding) -> str:
    properties = {}
    if place := finding.place:
        properties = {"file": place.file, "line": str(place.line)}
        if place.end_line is not None:
            properties["endLine"] = str(place.end_line)
        # GitHub refuses columns of a region over more than one line.
        if place.column is not None and place.end_line in {None, place.line}:
            properties["col"] = str(place.column)
            if place.end_column is not None:
                properties["endColumn"] = str(place.end_column)
    properties["title"] = f"{finding.rule} {finding.policy}".strip()
    told = ",".join(f"{name}={_property(of)}" for name, of in properties.items())
    hint = f"\n{one_line(finding.hint)}" if finding.hint else ""
    return f"::{_COMMANDS[finding.severity]} {told}::{_data(f'{one_line(finding.message)}{hint}')}"


def _data(text: str) -> str:
    shown = "\n".join(map(one_line, text.split("\n")))
    return shown.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(one_line(text)).replace(":", "%3A").replace(",", "%2C")
