"""A report as JSON.

The members of the object are ``version`` (1; another number when a member changes its meaning or goes away),
``command``, ``subject``, ``summary``, ``exit_code``, ``failed``, ``undecided``, ``findings``, ``checks``, ``sections``,
``notes``, ``rules`` and, beside them, what the command has to tell by itself. Each item has the attributes of its class
in :mod:`cedarbox.review.finding`; a finding has its place spread out (``file``, ``line``, ``column``, ``end_line``,
``end_column``) and its ``fingerprint``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from cedarbox.review.finding import Check, Finding, Place, Report, Suppression
from cedarbox.review.reports.parts import clean

__all__ = ["document", "text"]


def text(report: Report) -> str:
    """Return a report as one line of JSON."""
    return json.dumps(document(report), ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def document(report: Report) -> dict[str, Any]:
    """Return a report as a value of JSON."""
    told: dict[str, Any] = {
        **report.data,
        "version": 1,
        "command": report.command,
        "subject": report.subject,
        "summary": report.summary,
        "exit_code": report.exit_code,
        "failed": report.failed,
        "undecided": report.undecided,
        "findings": [_finding(finding) for finding in report.findings],
        "checks": [_check(check) for check in report.checks],
        "sections": [asdict(section) for section in report.sections],
        "notes": report.notes,
        "rules": [asdict(rule) for rule in report.rules],
    }
    cleaned = clean(told)
    assert isinstance(cleaned, dict)  # noqa: S101 - as it was
    return cleaned


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "severity": finding.severity,
        "message": finding.message,
        **_place(finding.place),
        "policy": finding.policy,
        "hint": finding.hint,
        "fingerprint": finding.fingerprint,
        "suppressed": _suppression(finding.suppressed),
        "edits": [asdict(edit) for edit in finding.edits],
        "details": finding.details,
    }


def _check(check: Check) -> dict[str, Any]:
    return {
        "suite": check.suite,
        "name": check.name,
        "status": check.status,
        "message": check.message,
        **_place(check.place),
        "seconds": check.seconds,
    }


def _suppression(why: Suppression | None) -> dict[str, Any] | None:
    return None if why is None else {"kind": why.kind, "reason": why.reason, **_place(why.place)}


def _place(place: Place | None) -> dict[str, Any]:
    if place is None:
        return dict.fromkeys(("file", "line", "column", "end_line", "end_column"))
    return asdict(place)
