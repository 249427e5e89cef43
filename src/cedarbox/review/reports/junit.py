"""A report as JUnit XML, as the xUnit plug-in of Jenkins, GitLab and GitHub's readers take it.

Its schema is ``junit-10.xsd`` of jenkinsci/xunit-plugin: suites of cases, each with a name, a class name and a time,
and a ``failure``, an ``error`` (here: not decided) or ``skipped`` in those that did not pass.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from cedarbox.review.finding import Check, Report
from cedarbox.review.reports.parts import cases, one_line

__all__ = ["text"]

_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no form for, not even as a reference (production 2, Char)."""


def text(report: Report) -> str:
    """Return a report as an XML document."""
    found = cases(report)
    root = Element("testsuites", {"name": _safe(f"cedarbox policy {report.command}"), **_counts(found, skipped=False)})
    for suite in dict.fromkeys(case.suite for case in found):
        members = [case for case in found if case.suite == suite]
        element = SubElement(root, "testsuite", {"name": _safe(suite), **_counts(members, skipped=True)})
        for case in members:
            _add(element, case)
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _add(suite: Element, case: Check) -> None:
    element = SubElement(
        suite, "testcase", {"name": _safe(case.name), "classname": _safe(case.suite), "time": _seconds(case.seconds)}
    )
    said = _safe(f"{case.place}: {case.message}" if case.place else case.message)
    match case.status:
        case "passed" if case.message:
            SubElement(element, "system-out").text = said
        case "passed":
            pass
        case "skipped":
            SubElement(element, "skipped", {"message": _safe(case.message)})
        case "failed":
            SubElement(element, "failure", {"type": "failed", "message": _safe(case.message)}).text = said
        case "undecided":
            SubElement(element, "error", {"type": "undecided", "message": _safe(case.message)}).text = said


def _counts(found: Sequence[Check], *, skipped: bool) -> dict[str, str]:
    counts = {
        "tests": str(len(found)),
        "failures": str(sum(case.status == "failed" for case in found)),
        "errors": str(sum(case.status == "undecided" for case in found)),
        "time": _seconds(sum(case.seconds for case in found)),
    }
    return {**counts, "skipped": str(sum(case.status == "skipped" for case in found))} if skipped else counts


def _seconds(number: float) -> str:
    return f"{number:.3f}"


def _safe(text: str) -> str:
    return _NOT_XML.sub("\ufffd", one_line(text))
