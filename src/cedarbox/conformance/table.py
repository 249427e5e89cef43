"""Shows reports as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cedarbox.conformance.report import Outcome, Report, Result

__all__ = ["show_progress", "show_report", "show_summary"]

_STYLES = {
    Outcome.PASSED: "green",
    Outcome.FAILED: "bold red",
    Outcome.KNOWN: "yellow",
    Outcome.NOT_APPLICABLE: "dim",
}


def show_progress(result: Result, console: Console) -> None:
    """Print one result as a line."""
    line = Text(f"{result.outcome.value:15}", style=_STYLES[result.outcome])
    line.append(f" {result.seconds:6.1f} s  {result.name}", style="default")
    if result.reason:
        line.append(f": {result.reason}", style="default")
    console.print(line, soft_wrap=True)


def show_report(report: Report, console: Console) -> None:
    """Print what did not pass, by outcome, and the counts of each area."""
    for outcome in (Outcome.FAILED, Outcome.KNOWN, Outcome.NOT_APPLICABLE):
        if not (results := report.of(outcome)):
            continue
        table = Table(title=f"{report.backend}: {outcome.value}", title_justify="left", title_style=_STYLES[outcome])
        table.add_column("check", no_wrap=True)
        table.add_column("what should hold")
        table.add_column("reason")
        for result in results:
            table.add_row(result.name, Text(result.says), Text(result.reason))
        console.print(table)
    show_summary([report], console)


def show_summary(reports: Sequence[Report], console: Console) -> None:
    """Print how many checks of each area passed, for several backends side by side."""
    areas = list(dict.fromkeys(result.area for report in reports for result in report.results))
    table = Table(title="conformance", title_justify="left", caption="passed / applicable", caption_justify="left")
    table.add_column("area")
    for report in reports:
        table.add_column(report.backend, justify="right")
    for area in areas:
        table.add_row(area, *(_cell([each for each in report.results if each.area == area]) for report in reports))
    table.add_section()
    table.add_row("all", *(_cell(report.results) for report in reports))
    for outcome in Outcome:
        table.add_row(outcome.value, *(str(report.counts[outcome]) for report in reports))
    console.print(table)


def _cell(results: Sequence[Result]) -> str:
    applicable = [result for result in results if result.outcome is not Outcome.NOT_APPLICABLE]
    passed = sum(result.outcome is Outcome.PASSED for result in applicable)
    return f"{passed} / {len(applicable)}" if results else "-"
