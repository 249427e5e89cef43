"""Makes one report of several: the review of a change, which every command has its part in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cedarbox.review.finding import SEVERITIES, Check, Report, Rule, Section, Severity
from cedarbox.review.reports.parts import counted

__all__ = ["NOT_RUN", "whole"]

NOT_RUN: Final = "not_run"
"""True in the data of a part that was not run because an earlier one failed."""


def whole(command: str, subject: str, parts: Sequence[Report], *, fail_level: Severity | None = None) -> Report:
    """Return one report of all parts.

    Args:
        command: What to call it.
        subject: What was looked at.
        parts: At least one, in the order to show them.
        fail_level: The mildest severity of a finding that fails the whole; None for none. A part that failed does so
            in any case.
    """
    failing = () if fail_level is None else SEVERITIES[: SEVERITIES.index(fail_level) + 1]
    severities = {finding.severity for part in parts for finding in part.counted}
    several = len({part.subject for part in parts}) > 1
    failed = any(part.failed for part in parts) or not severities.isdisjoint(failing)
    # What fails although its part did not.
    number = sum(each.severity in failing for part in parts if not part.failed for each in part.counted)
    beside = [f"{counted(number, 'finding')} of --fail-level {fail_level} or worse"] if number else []
    rules: dict[str, Rule] = {}
    for rule in (rule for part in parts for rule in part.rules):
        rules.setdefault(rule.id, rule)
    outcomes = Section("What was done", (), ("part", "of", "outcome", "in short"), tuple(map(_outcome, parts)))
    return Report(
        command=command,
        subject=subject,
        summary=", ".join([f"{_name(part, several=several)} {_word(part)}{_why(part)}" for part in parts] + beside),
        findings=[finding for part in sorted(parts, key=_weight) for finding in part.findings],
        checks=[check for part in parts for check in _checks(part, several=several)],
        sections=[outcomes, *(section for part in parts for section in _sections(part, several=several))],
        notes=[f"{_name(part, several=several)}: {note}" for part in parts for note in part.notes],
        rules=list(rules.values()),
        data={
            "parts": [
                {
                    **part.data,
                    "command": part.command,
                    "subject": part.subject,
                    "summary": part.summary,
                    "exit_code": part.exit_code,
                }
                for part in parts
            ]
        },
        failed=failed,
        undecided=any(part.undecided for part in parts),
        place=parts[0].place,
    )


def _weight(part: Report) -> bool:
    """Sort what a change permits before what else there is to say of it: a reader may look at the first ones only."""
    return part.command not in {"diff", "prove"}


def _name(part: Report, *, several: bool) -> str:
    return f"{part.command} {part.subject}" if several else part.command


def _word(part: Report) -> str:
    if part.data.get(NOT_RUN):
        return "not run"
    return "failed" if part.failed else "not decided" if part.undecided else "good"


def _why(part: Report) -> str:
    """Return what a part says of itself when it did not end well, or what it left open although it did."""
    if part.data.get(NOT_RUN):
        return ""
    left = part.data.get("open")
    if isinstance(left, str) and left and not part.failed:
        return f" ({left})"
    return f" ({_in_short(part)})" if part.failed or part.undecided else ""


def _in_short(part: Report) -> str:
    return part.summary.removeprefix(f"{part.subject}: ")


def _outcome(part: Report) -> tuple[str, ...]:
    return part.command, part.subject, _word(part), _in_short(part)


def _sections(part: Report, *, several: bool) -> list[Section]:
    return [replace(section, title=f"{_name(part, several=several)}: {section.title}") for section in part.sections]


def _checks(part: Report, *, several: bool) -> list[Check]:
    """Return the checks of a part: one at least, so that a part that was not run cannot look like a good one."""
    name = _name(part, several=several)
    if part.data.get(NOT_RUN):
        # Why is told by the part that failed.
        return [Check(name, part.command, "skipped", part.summary)]
    checks = [replace(check, suite=f"{name}: {check.suite}") for check in part.checks]
    if part.failed:
        said = bool(part.counted) or any(check.status == "failed" for check in part.checks)
        return checks if said else [*checks, Check(name, part.command, "failed", part.summary, part.place)]
    if part.undecided:
        said = bool(part.counted) or any(check.status == "undecided" for check in part.checks)
        return checks if said else [*checks, Check(name, part.command, "undecided", part.summary, part.place)]
    return checks or [Check(name, part.command, "passed")]
