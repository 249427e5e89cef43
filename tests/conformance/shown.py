"""Carries what the suites counted to the end of pytest's output."""

from __future__ import annotations

import io
import os
import tempfile
from collections import Counter

import pytest
from rich.console import Console

from cedarbox.conformance import Report
from cedarbox.conformance.table import show_report, show_summary

__all__ = ["count", "keep", "write"]

_REPORTS = pytest.StashKey[list[Report]]()
_COUNTS = pytest.StashKey[dict[str, Counter[str]]]()

_TABLES = "CEDARBOX_TABLES"
_WIDTH = 150


def keep(config: pytest.Config, *reports: Report) -> None:
    """Keep reports of the kit for the table at the end."""
    config.stash.setdefault(_REPORTS, []).extend(reports)
    _hand_over(list(reports), {})


def count(config: pytest.Config, what: str, outcomes: Counter[str]) -> None:
    """Keep the outcomes of other tests that were run, such as those of the SDK, for the end."""
    config.stash.setdefault(_COUNTS, {})[what] = outcomes
    _hand_over([], {what: outcomes})


def write(config: pytest.Config, terminal: pytest.TerminalReporter) -> None:
    """Print the tables of this run, if any and if nobody else does."""
    # More than one conftest.py may ask; what was shown is gone.
    reports, counts = config.stash.get(_REPORTS, []), config.stash.get(_COUNTS, {})
    config.stash[_REPORTS], config.stash[_COUNTS] = [], {}
    if (reports or counts) and _TABLES not in os.environ:
        terminal.section("conformance")
        terminal.write(_rendered(reports, counts))


def _hand_over(reports: list[Report], counts: dict[str, Counter[str]]) -> None:
    # A worker of pytest-xdist has no terminal: whoever started it prints what it finds there.
    if directory := os.environ.get(_TABLES):
        handle, _ = tempfile.mkstemp(dir=directory, suffix=".table")
        with os.fdopen(handle, "w") as file:
            file.write(_rendered(reports, counts))


def _rendered(reports: list[Report], counts: dict[str, Counter[str]]) -> str:
    text = io.StringIO()
    console = Console(file=text, width=_WIDTH, highlight=False)
    for report in reports:
        if not report.good:
            show_report(report, console)
    if reports:
        show_summary(reports, console)
    for name, count in counts.items():
        console.print(f"{name}: " + ", ".join(f"{number} {outcome}" for outcome, number in sorted(count.items())))
    return text.getvalue()
