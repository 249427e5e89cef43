"""A report as SARIF 2.1.0, the form in which GitHub's code scanning and many editors take findings.

One report is one run. Columns count characters (``columnKind``), paths are relative to ``%SRCROOT%``, the directory the
command ran in, and a result keeps its fingerprints while lines move.
"""

from __future__ import annotations

import json
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any, Final
from urllib.parse import quote

from cedarbox.review.finding import SEVERITIES, Edit, Finding, Place, Report, Rule, Suppression
from cedarbox.review.reports.parts import CHECK_RULES, clean, counted, numbered, one_line, to_act_on

__all__ = ["MAX_RESULTS", "text"]

MAX_RESULTS: Final = 25_000
"""How many results of a run GitHub takes; it refuses the whole file when there are more."""

_ROOT: Final = "%SRCROOT%"
_KINDS: Final = {"inline": "inSource", "baseline": "external", "accepted": "external"}
_PROBLEMS: Final = {"error": "error", "warning": "warning", "note": "recommendation"}


def text(report: Report) -> str:
    """Return a report as a SARIF file."""
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [_run(report)],
    }
    return json.dumps(clean(log), ensure_ascii=False, indent=1) + "\n"


def _run(report: Report) -> dict[str, Any]:
    findings = [*to_act_on(report), *(finding for finding in report.findings if finding.suppressed)]
    kept = list(zip(findings, numbered(findings), strict=True))
    if len(kept) > MAX_RESULTS:
        kept = sorted(kept, key=lambda pair: SEVERITIES.index(pair[0].severity))[:MAX_RESULTS]
    told_apart = any(finding.suppressed for finding in findings)
    rules = _rules(report, findings)
    index = {rule.id: number for number, rule in enumerate(rules)}
    notes = [*report.notes]
    if left := len(findings) - len(kept):
        notes.append(f"{counted(left, 'finding')} of the lowest severity left out: a run has {MAX_RESULTS} at most")
    return {
        "tool": {"driver": _driver(rules)},
        "automationDetails": {"id": one_line(f"cedarbox policy {report.command}/{report.subject}/")},
        "invocations": [
            {
                "executionSuccessful": True,
                "exitCode": report.exit_code,
                "exitCodeDescription": _message(report.summary),
                "toolExecutionNotifications": [
                    {"level": "note", "message": {"text": _message(note)}} for note in notes
                ],
            }
        ],
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {_ROOT: {"description": {"text": "The directory that the command ran in."}}},
        "results": [
            _result(report, finding, index[finding.rule], fingerprint, suppressions=told_apart)
            for finding, fingerprint in kept
        ],
    }


def _driver(rules: list[Rule]) -> dict[str, Any]:
    driver: dict[str, Any] = {"name": "cedarbox", "rules": [_rule(rule) for rule in rules]}
    with suppress(PackageNotFoundError):  # there is none of a directory of sources
        driver["version"] = version("cedarbox")
    return driver


def _rules(report: Report, findings: list[Finding]) -> list[Rule]:
    known = {rule.id: rule for rule in (*CHECK_RULES.values(), *report.rules)}
    used = {finding.rule: finding for finding in findings}
    told = {rule.id: rule for rule in report.rules}
    for name, finding in used.items():
        told.setdefault(name, known.get(name) or Rule(name, name, finding.severity, name))
    return list(told.values())


def _rule(rule: Rule) -> dict[str, Any]:
    described: dict[str, Any] = {
        "id": one_line(rule.id),
        "name": one_line(rule.name),
        "shortDescription": {"text": _message(rule.summary)},
        "fullDescription": {"text": _message(f"{rule.summary}.")},
        "defaultConfiguration": {"level": rule.severity},
        "properties": {"tags": ["security", "cedar"], "problem.severity": _PROBLEMS[rule.severity]},
    }
    # GitHub's code scanning wants help of each rule.
    page = rule.help or f"{_message(rule.summary)}."
    described["help"] = {"text": page, "markdown": page}
    return described


def _result(report: Report, finding: Finding, index: int, fingerprint: str, *, suppressions: bool) -> dict[str, Any]:
    hint = f" ({finding.hint})" if finding.hint else ""
    location: dict[str, Any] = {"physicalLocation": _physical(finding.place or report.place, report)}
    if finding.policy:
        location["logicalLocations"] = [{"name": one_line(finding.policy), "kind": "policy"}]
    result: dict[str, Any] = {
        "ruleId": one_line(finding.rule),
        "ruleIndex": index,
        "level": finding.severity,
        "message": {"text": _message(f"{finding.message}{hint}")},
        "locations": [location],
        # GitHub looks at the first of them only, whatever its name says of lines, and would make one of its own of the
        # text around, which changes with the text.
        "partialFingerprints": {"primaryLocationLineHash": fingerprint, "cedarbox/v1": fingerprint},
    }
    if finding.details:
        result["properties"] = {"details": finding.details}
    if finding.edits:
        result["fixes"] = [_fix(finding)]
    # When some have them the others must have an empty list (§3.27.23).
    if suppressions:
        result["suppressions"] = [_suppression(finding.suppressed)] if finding.suppressed else []
    return result


def _physical(place: Place | None, report: Report) -> dict[str, Any]:
    if place is None:
        return {"artifactLocation": _artifact(report.subject), "region": {"startLine": 1}}
    region = {"startLine": place.line}
    if place.column is not None:
        region["startColumn"] = place.column
    if place.end_line is not None:
        region["endLine"] = max(place.end_line, place.line)
        if place.end_column is not None and place.column is not None:
            region["endColumn"] = place.end_column
    return {"artifactLocation": _artifact(place.file), "region": region}


def _artifact(file: str) -> dict[str, Any]:
    path = quote(file.encode("utf-8", "surrogateescape" if _escaped(file) else "backslashreplace"), safe="/")
    if PurePath(file).is_absolute():
        return {"uri": f"file://{path}"}
    return {"uri": path, "uriBaseId": _ROOT}


def _escaped(file: str) -> bool:
    return all(not "\ud800" <= char <= "\udfff" or "\udc80" <= char <= "\udcff" for char in file)


def _suppression(why: Suppression) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": _KINDS[why.kind], "status": "accepted", "justification": one_line(why.reason)}
    if why.place:
        region = {"startLine": why.place.line}
        told["location"] = {"physicalLocation": {"artifactLocation": _artifact(why.place.file), "region": region}}
    return told


def _fix(finding: Finding) -> dict[str, Any]:
    files: dict[str, list[Edit]] = {}
    for edit in finding.edits:
        files.setdefault(edit.file, []).append(edit)
    changes = [
        {
            "artifactLocation": _artifact(file),
            "replacements": [
                {
                    "deletedRegion": {"charOffset": edit.start, "charLength": edit.end - edit.start},
                    "insertedContent": {"text": edit.text},
                }
                for edit in edits
            ],
        }
        for file, edits in files.items()
    ]
    return {"description": {"text": _message(finding.hint or finding.message)}, "artifactChanges": changes}


def _message(text: str) -> str:
    """Return text without what a reader of SARIF would make a link of (§3.11.6)."""
    return one_line(text).replace("](", "] (")
