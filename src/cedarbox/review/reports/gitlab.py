"""A report as GitLab's Code Quality, a list of what the widget of a merge request shows.

Each has a description, the name of the rule, a fingerprint that no other one has, a severity, and a file with a line.
"""

from __future__ import annotations

import json
from typing import Any, Final

from cedarbox.review.finding import Finding, Report
from cedarbox.review.reports.parts import clean, numbered, one_line, to_act_on

__all__ = ["text"]

_SEVERITIES: Final = {"error": "critical", "warning": "major", "note": "info"}
"""GitLab's scale is info, minor, major, critical, blocker."""


def text(report: Report) -> str:
    """Return what is to act on as JSON. One that is about no file stands at the first line of the subject."""
    findings = to_act_on(report)
    issues = [
        _issue(report, finding, fingerprint) for finding, fingerprint in zip(findings, numbered(findings), strict=True)
    ]
    return json.dumps(clean(issues), ensure_ascii=False, indent=1) + "\n"


def _issue(report: Report, finding: Finding, fingerprint: str) -> dict[str, Any]:
    policy = f" ({finding.policy})" if finding.policy else ""
    place = finding.place or report.place
    lines = {"begin": place.line if place else 1}
    if place and place.end_line is not None:
        lines["end"] = max(place.end_line, place.line)
    return {
        "type": "issue",
        "description": one_line(f"{finding.message}{policy}"),
        "check_name": finding.rule,
        "fingerprint": fingerprint,
        "severity": _SEVERITIES[finding.severity],
        "categories": ["Security"],
        "location": {"path": (place.file if place else report.subject).removeprefix("./"), "lines": lines},
    }
