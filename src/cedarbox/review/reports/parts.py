"""What the forms of a report share: text made safe, and the cases that a report comes to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from cedarbox.review.finding import SEVERITIES, Check, Finding, Report, Rule
from cedarbox.text import printable

__all__ = [
    "CHECK_RULES",
    "cases",
    "clean",
    "closing",
    "counted",
    "cut",
    "numbered",
    "one_line",
    "to_act_on",
    "worst_first",
]

CHECK_RULES: Final = {
    "failed": Rule("check-failed", "check-failed", "error", "A check failed"),
    "undecided": Rule("check-undecided", "check-undecided", "warning", "A check was not decided"),
}
"""The rules of the findings that :func:`to_act_on` makes of checks, by the status of the check."""


def one_line(text: str) -> str:
    """Return text of others on one line, without characters that drive a terminal or have no form in UTF-8."""
    return printable(" ".join(text.split()))


def cut(text: str, most: int) -> str:
    """Return text as :func:`one_line` does, with at most so many characters, and how many more there were."""
    shown = one_line(text)
    return shown if len(shown) <= most else f"{shown[:most]}… ({len(shown) - most} more characters)"


def clean(value: Any) -> Any:
    """Return a JSON value that each JSON parser reads: no half of a surrogate pair, no number that is none.

    What JSON has no form for is given as text.
    """
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {clean(str(name)): clean(of) for name, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(one) for one in value]
    if isinstance(value, (set, frozenset)):
        return sorted((clean(one) for one in value), key=str)
    return str(value).encode("utf-8", "backslashreplace").decode()


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings by severity; those of one severity stay in their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def to_act_on(report: Report) -> list[Finding]:
    """Return the findings that count, and one for each check that did not pass and that no finding is about."""
    found = list(report.counted)
    told = {(finding.place, finding.message) for finding in found}
    for check in report.checks:
        rule = CHECK_RULES.get(check.status)
        if rule is not None and (check.place, check.message) not in told:
            name = check.name if check.suite == check.name else f"{check.suite}: {check.name}"
            message = f"{name}: {check.message}" if check.message else name
            found.append(Finding(rule.id, rule.severity, message, check.place, key=name))
    return found


def counted(number: int, thing: str) -> str:
    """Return a number with its thing, such as ``1 error`` and ``2 errors``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def closing(report: Report) -> str:
    """Return the outcome with the subject before it, once."""
    told = report.summary.startswith(f"{report.subject}:")
    return one_line(report.summary if told or not report.subject else f"{report.subject}: {report.summary}")


def numbered(findings: Sequence[Finding]) -> list[str]:
    """Return a fingerprint for each finding, no two the same: a second one of the same kind gets ``-2``."""
    seen: Counter[str] = Counter()
    found = []
    for finding in findings:
        seen[finding.fingerprint] += 1
        times = seen[finding.fingerprint]
        found.append(finding.fingerprint if times == 1 else f"{finding.fingerprint}-{times}")
    return found


def cases(report: Report) -> list[Check]:
    """Return what was checked, and each finding as a case of its own.

    A finding fails when the report does and the finding is why: it is an error, or it has the worst severity of a
    report that has no error and no failed check. A report that failed has at least one failed case, and one that did
    not decide has one that is undecided.
    """
    checks = list(report.checks)
    told = {(check.place, check.message) for check in checks if check.status in CHECK_RULES}
    findings = [finding for finding in report.counted if (finding.place, finding.message) not in told]
    failing = _failing(report, findings)
    for finding in findings:
        suite = finding.place.file if finding.place else report.subject
        name = " ".join(part for part in (finding.rule, finding.policy) if part)
        checks.append(
            Check(suite, name, "failed" if finding.severity in failing else "passed", finding.message, finding.place)
        )
    statuses = {check.status for check in checks}
    if report.failed and "failed" not in statuses:
        checks.append(Check(report.subject, report.command, "failed", report.summary))
    elif report.undecided and not report.failed and "undecided" not in statuses:
        checks.append(Check(report.subject, report.command, "undecided", report.summary))
    return checks or [Check(report.subject, report.command, "passed")]


def _failing(report: Report, findings: Sequence[Finding]) -> set[str]:
    if not report.failed:
        return set()
    if any(finding.severity == "error" for finding in findings):
        return {"error"}
    if any(check.status == "failed" for check in report.checks):
        return set()
    return {finding.severity for finding in worst_first(findings)[:1]}
