"""The forms of a report, held against their schemas and read by real readers."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.unit.report_schemas import assert_gitlab, assert_junit, assert_sarif, assert_tap, schema_of_sarif
from tests.unit.some_reports import FULL, REPORTS, reports

from cedarbox.review.finding import Check, Finding, Place, Report
from cedarbox.review.reports import FORMATS, render, sarif

LONG = bool(os.environ.get("CEDARBOX_LONG"))
_EACH = pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS.keys())


@_EACH
def test_sarif_is_valid(report: Report) -> None:
    (run,) = assert_sarif(render(report, "sarif"))["runs"]
    assert run["invocations"][0]["exitCode"] == report.exit_code


def test_sarif_has_places_fixes_help_and_suppressions() -> None:
    (run,) = assert_sarif(render(FULL, "sarif"))["runs"]
    first, second, third, failed, undecided, old, known = run["results"]
    assert run["columnKind"] == "unicodeCodePoints"
    assert first["locations"][0]["physicalLocation"]["region"] == {
        "startLine": 3,
        "startColumn": 9,
        "endLine": 3,
        "endColumn": 18,
    }
    assert second["locations"][0]["physicalLocation"]["artifactLocation"] == {
        "uri": "policies/site/a%20b%3Ac.cedar",
        "uriBaseId": "%SRCROOT%",
    }
    assert third["level"] == "note"
    assert (failed["ruleId"], undecided["ruleId"]) == ("check-failed", "check-undecided")
    (change,) = first["fixes"][0]["artifactChanges"]
    assert change["replacements"][0]["deletedRegion"] == {"charOffset": 40, "charLength": 9}
    assert run["tool"]["driver"]["rules"][0]["help"]["markdown"] == "# S013\n\nHelp."
    assert (first["suppressions"], old["suppressions"][0]["kind"]) == ([], "external")
    assert known["suppressions"][0]["kind"] == "inSource"
    assert known["suppressions"][0]["justification"] == "a test host"


def test_the_schema_of_sarif_refuses_what_is_wrong() -> None:
    document = json.loads(render(FULL, "sarif"))
    document["runs"][0]["results"][0]["level"] = "fatal"
    assert list(schema_of_sarif().iter_errors(document))


def test_sarif_leaves_out_the_least_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sarif.MAX_RESULTS == 25_000
    monkeypatch.setattr(sarif, "MAX_RESULTS", 40)
    notes = [Finding("S061", "note", "m", policy=f"p{number}") for number in range(40)]
    report = replace(FULL, findings=[*notes, Finding("S001", "error", "worst")], checks=())
    (run,) = json.loads(render(report, "sarif"))["runs"]
    assert len(run["results"]) == 40
    assert run["results"][0]["ruleId"] == "S001"
    told = [note["message"]["text"] for note in run["invocations"][0]["toolExecutionNotifications"]]
    assert told[-1] == "1 finding of the lowest severity left out: a run has 40 at most"


@_EACH
def test_junit_is_valid_and_fails_when_the_report_does(report: Report) -> None:
    root = assert_junit(render(report, "junit"))
    assert bool(list(root.iter("failure"))) == report.failed
    assert list(root.iter("testcase"))
    if report.exit_code == 3:
        assert list(root.iter("error"))


@_EACH
def test_tap_is_read_by_perl_and_fails_when_the_report_does(report: Report, tmp_path: Path) -> None:
    points, failed = assert_tap(render(report, "tap"), tmp_path)
    assert points >= 1
    assert bool(failed) == bool(report.exit_code)


@_EACH
def test_gitlab_has_what_it_must(report: Report) -> None:
    issues = assert_gitlab(render(report, "gitlab"))
    assert len(issues) == len(report.counted) + sum(c.status in {"failed", "undecided"} for c in report.checks)


def test_two_findings_of_one_kind_have_two_fingerprints() -> None:
    twice = Report("lint", "x", "2", findings=[Finding("S010", "error", "m", policy="p")] * 2)
    assert len({issue["fingerprint"] for issue in assert_gitlab(render(twice, "gitlab"))}) == 2
    (run,) = assert_sarif(render(twice, "sarif"))["runs"]
    assert len({result["partialFingerprints"]["cedarbox/v1"] for result in run["results"]}) == 2


def test_json_has_each_member_of_its_first_version() -> None:
    document = json.loads(render(replace(FULL, data={"coverage": 75, "failed": "not this"}), "json"))
    assert (document["version"], document["coverage"], document["failed"]) == (1, 75, True)
    assert document["findings"][0] == {
        "rule": "S013",
        "severity": "error",
        "message": "may reach 169.254.169.254",
        "file": "policies/site/network.cedar",
        "line": 3,
        "column": 9,
        "end_line": 3,
        "end_column": 18,
        "policy": "net-mirror",
        "hint": "add a guard of context.ipClass",
        "fingerprint": FULL.findings[0].fingerprint,
        "suppressed": None,
        "edits": [{"file": "policies/site/network.cedar", "start": 40, "end": 49, "text": "resource"}],
        "details": {"witness": {"port": 443}},
    }
    assert document["findings"][4]["suppressed"]["reason"] == "a test host"
    assert set(document["checks"][0]) >= {"suite", "name", "status", "message", "file", "seconds"}
    assert document["sections"][0]["rows"] == [["agent", "connects to a.example:444"]]


def test_text_is_one_line_for_each_finding() -> None:
    lines = render(FULL, "text").splitlines()
    assert lines[0] == "policies/site/network.cedar:3:9: error S013: may reach 169.254.169.254 (net-mirror)"
    assert (
        "policies/site/tests/a.yaml:4: error check-failed: connect: nothing # else: expected deny, got allow" in lines
    )
    assert "note: 2 findings suppressed" in lines
    assert lines[-1] == "policies/site: 1 error, 1 warning, 1 note"


@_EACH
def test_a_report_that_is_not_good_annotates_something(report: Report) -> None:
    commands = [line for line in render(report, "github").splitlines() if line.startswith("::")]
    assert len(commands) <= 10
    assert any(line.startswith("::error ") for line in commands) == report.failed
    assert report.exit_code == 0 or commands


def test_ten_annotations_the_worst_first() -> None:
    findings = [Finding("S050", "note", f"n{number}") for number in range(30)]
    report = Report("lint", "x", "s", findings=[*findings, Finding("S001", "error", "worst: a,b 100%")], failed=True)
    lines = render(report, "github").splitlines()
    assert [line.split()[0] for line in lines[:10]] == ["::error", *["::notice"] * 9]
    assert lines[0] == "::error title=S001::worst: a,b 100%25"
    assert lines[10] == "21 more findings in the summary of the step"


def test_an_annotation_escapes_its_properties() -> None:
    finding = Finding("S001", "error", "m", Place("a,b:c%.cedar", 2, 3, 2, 5), "p,q:r")
    told = render(Report("lint", "x", "s", findings=[finding], failed=True), "github").splitlines()[0]
    expected = "::error file=a%2Cb%3Ac%25.cedar,line=2,endLine=2,col=3,endColumn=5,title=S001 p%2Cq%3Ar::m"
    assert told == expected


def test_a_failed_check_with_a_finding_is_told_once() -> None:
    place = Place("t.yaml", 3)
    report = Report(
        "test",
        "x",
        "1 failed",
        findings=[Finding("T001", "error", "expected deny", place)],
        checks=[Check("connect", "case", "failed", "expected deny", place)],
        failed=True,
    )
    assert len(assert_gitlab(render(report, "gitlab"))) == 1
    assert len(list(assert_junit(render(report, "junit")).iter("failure"))) == 1


def _fingerprints(report: Report) -> list[Any]:
    (run,) = json.loads(render(report, "sarif"))["runs"]
    return [result["partialFingerprints"] for result in run["results"]]


@given(reports)
@settings(max_examples=500 if LONG else 15, deadline=None, suppress_health_check=list(HealthCheck))
def test_fingerprints_stay_when_lines_move(report: Report) -> None:
    moved = [
        replace(finding, place=finding.place and replace(finding.place, line=finding.place.line + 7, column=1))
        for finding in report.findings
    ]
    assert _fingerprints(replace(report, findings=moved, checks=())) == _fingerprints(replace(report, checks=()))


def test_fingerprints_differ_for_other_rules_policies_files_and_keys() -> None:
    one = Finding("S010", "error", "m", Place("a.cedar", 1), "p", key="k")
    others = [
        replace(one, rule="S011"),
        replace(one, policy="q"),
        replace(one, place=Place("b.cedar", 1)),
        replace(one, key="l"),
        # What is joined must not be joined otherwise with the same outcome.
        replace(one, policy="p\x00k", key=""),
    ]
    assert len({finding.fingerprint for finding in (one, *others)}) == len(others) + 1


@given(reports)
@settings(max_examples=500 if LONG else 15, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_form_of_any_report_is_well_formed(report: Report) -> None:
    for form in FORMATS:
        render(report, form).encode("utf-8")
    assert_sarif(render(report, "sarif"))
    assert_junit(render(report, "junit"))
    assert_gitlab(render(report, "gitlab"))
    document = json.loads(render(report, "json"))
    assert document["exit_code"] == report.exit_code


@given(reports)
@settings(max_examples=200 if LONG else 8, deadline=None, suppress_health_check=list(HealthCheck))
def test_tap_of_any_report_is_read_by_perl(tmp_path_factory: pytest.TempPathFactory, report: Report) -> None:
    _, failed = assert_tap(render(report, "tap"), tmp_path_factory.mktemp("tap"))
    if report.exit_code:
        assert failed
