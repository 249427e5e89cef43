r"""A report in the Test Anything Protocol.

It says version 13, because TAP::Parser before 3.48 refuses a file that says 14, and Debian 12 has 3.44; what is in it
follows version 14, which is compatible.

In a description ``\`` and ``#`` are escaped, so that no text is taken for a directive; what else there is to tell
stands in a YAML block, whose scalars are JSON strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from cedarbox.review.finding import Check, Report
from cedarbox.review.reports.parts import cases, closing, cut, one_line

__all__ = ["text"]

_RESULT: Final = {"passed": "ok", "skipped": "ok", "failed": "not ok", "undecided": "not ok"}

_MAX_SCALAR: Final = 4000
"""Characters of one. TAP::Parser ends at one of more than 65,534, and each may be written as twelve."""


def text(report: Report) -> str:
    """Return a report as TAP."""
    found = cases(report)
    lines = ["TAP version 13", f"1..{len(found)}"]
    for number, case in enumerate(found, start=1):
        lines += _point(number, case)
    lines += [f"# {one_line(line)}" for line in (*report.notes, closing(report))]
    return "\n".join(lines) + "\n"


def _point(number: int, case: Check) -> Iterator[str]:
    # A description that begins with a digit or a dash would be read as a part of the number.
    name = _escaped(f"{case.suite}: {case.name}")
    skip = f" # SKIP {_escaped(case.message)}".rstrip() if case.status == "skipped" else ""
    yield f"{_RESULT[case.status]} {number} - {name}{skip}"
    if case.status == "skipped" or not case.message:
        return
    yield "  ---"
    yield f"  message: {_scalar(case.message)}"
    yield f"  severity: {case.status}"
    if case.place:
        yield "  at:"
        yield f"    file: {_scalar(case.place.file)}"
        yield f"    line: {case.place.line}"
        if case.place.column is not None:
            yield f"    column: {case.place.column}"
    yield "  ..."


def _escaped(text: str) -> str:
    return one_line(text).replace("\\", "\\\\").replace("#", "\\#")


def _scalar(text: str) -> str:
    return json.dumps(cut(text, _MAX_SCALAR))
