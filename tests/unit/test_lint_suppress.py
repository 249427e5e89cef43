"""Suppressions: what they are for, what they need, and that every one of them is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.bundles import write_bundle
from tests.unit.linting import NOW, found, lint_bundle, lint_text, permit
from tests.unit.report_schemas import assert_sarif

from cedarbox.review.lint.baseline import write_baseline
from cedarbox.review.lint.options import LintConfig
from cedarbox.review.lint.proving import Wanted
from cedarbox.review.lint.run import Chosen, lint, report_of
from cedarbox.review.reports import render
from cedarbox.review.subject import Subject

PERMIT = """\
@id("{name}")
@reason("commands run inside the sandbox")
permit (
  principal,
  action == Sandbox::Action::"exec",
  resource
);
"""
GOOD = "// cedarbox-lint: ignore S003 -- every agent here may run commands\n"


def _permit(name: str = "all") -> str:
    return PERMIT.replace("{name}", name)


def test_a_comment_directly_before_a_policy_is_for_that_policy_only(tmp_path: Path) -> None:
    linted = lint_text(tmp_path, f"{GOOD}{_permit('one')}\n{_permit('two')}", "S003", "S092", "S093")
    assert found(linted) == [("S003", "two")]
    (suppressed,) = linted.suppressed
    why = suppressed.suppressed
    assert why is not None
    assert (suppressed.policy, why.kind) == ("one", "inline")
    assert why.reason == "every agent here may run commands"
    assert why.place is not None
    assert why.place.line == 1


def test_a_comment_on_a_line_of_its_own_in_a_policy_is_for_all_of_it(tmp_path: Path) -> None:
    text = _permit().replace("  principal,\n", f"  {GOOD}  principal,\n")
    assert found(lint_text(tmp_path, text, "S003", "S092", "S093")) == []


def test_a_comment_behind_something_is_for_what_is_found_on_that_line(tmp_path: Path) -> None:
    here = '  action in Sandbox::Action::"network",'
    text = _permit().replace(
        '  action == Sandbox::Action::"exec",', f"{here} // cedarbox-lint: ignore S002 -- all of it is meant"
    )
    assert found(lint_text(tmp_path / "a", text, "S002", "S092", "S093")) == []
    elsewhere = _permit().replace("  principal,", f"  principal, {GOOD.strip()}")
    assert found(lint_text(tmp_path / "b", elsewhere, "S003", "S092", "S093")) == [("S003", "all"), ("S092", "")]


def test_a_comment_between_policies_behind_an_empty_line_is_for_none(tmp_path: Path) -> None:
    linted = lint_text(tmp_path, f"{_permit('one')}\n{GOOD}\n{_permit('two')}", "S003", "S092", "S093")
    assert found(linted) == [("S003", "one"), ("S093", ""), ("S003", "two")]


def test_ignore_file_at_the_head_is_for_every_policy_of_the_file(tmp_path: Path) -> None:
    head = GOOD.replace("ignore", "ignore-file")
    linted = lint_text(tmp_path / "a", f"{head}\n{_permit('one')}\n{_permit('two')}", "S003", "S092", "S093")
    assert found(linted) == []
    assert len(linted.suppressed) == 2
    linted = lint_text(tmp_path / "b", f"{_permit('one')}\n{head}{_permit('two')}", "S003", "S092", "S093")
    assert found(linted) == [("S003", "one"), ("S093", ""), ("S003", "two")]


@pytest.mark.parametrize(
    ("comment", "said"),
    [
        ("// cedarbox-lint: ignore S003", "has no reason"),
        ("// cedarbox-lint: ignore S003 -- ", "has no reason"),
        ("// cedarbox-lint: ignore S003 -- ok", "no reason that says something"),
        (
            "// cedarbox-lint: ignore S003 -- \u200b\u200b\u200b\u200b\u200b\u200b\u200b\u200b\u200b",
            "no reason that says",
        ),
        ("// cedarbox-lint: ignore -- every agent here may run commands", "cannot be read"),
        ("// cedarbox-lint ignore S003 -- every agent here may run commands", "cannot be read"),
        ("// Cedarbox-Lint: ignore S003 -- every agent here may run commands", "cannot be read"),
        ("// cedarbox-lint: disable S003 -- every agent here may run commands", "cannot be read"),
        ("// cedarbox-lint: ignore S003: every agent here may run commands", "has no reason"),
        ("// cedarbox-lint: ignore S999 -- every agent here may run commands", "there is no rule 'S999'"),
        ("// cedarbox-lint: ignore all -- every agent here may run commands", "there is no rule 'all'"),
        ("// cedarbox-lint: ignore S* -- every agent here may run commands", "there is no rule 'S*'"),
        ("// cedarbox-lint: ignore S093 -- every agent here may run commands", "S093 cannot be suppressed"),
        ("// cedarbox-lint: ignore S091 -- every agent here may run commands", "S091 cannot be suppressed"),
    ],
)
def test_what_is_no_suppression_is_a_finding_and_suppresses_nothing(comment: str, said: str, tmp_path: Path) -> None:
    linted = lint_text(tmp_path, f"{comment}\n{_permit()}", "S003", "S092", "S093")
    assert sorted(found(linted)) == [("S003", "all"), ("S093", "")]
    assert said in next(finding.message for finding in linted.findings if finding.rule == "S093")
    assert next(finding.severity for finding in linted.findings if finding.rule == "S093") == "error"


def test_several_rules_can_be_named_and_each_that_is_not_needed_is_told(tmp_path: Path) -> None:
    text = GOOD.replace("S003", "S003, S002") + _permit()
    linted = lint_text(tmp_path, text, "S002", "S003", "S092", "S093")
    assert [finding.message for finding in linted.findings] == ["the suppression of S002 suppresses nothing"]


def test_a_rule_that_was_not_run_makes_no_suppression_unused(tmp_path: Path) -> None:
    write_bundle(tmp_path, GOOD + _permit().replace("principal,", 'principal in Sandbox::AgentGroup::"agents",'))
    assert found(lint_bundle(tmp_path, "S003", "S092")) == [("S092", "")]
    assert found(lint_bundle(tmp_path, "S092")) == []


def test_a_suppression_of_a_rule_of_the_prover_is_only_unused_when_the_prover_was_asked(tmp_path: Path) -> None:
    local = 'when { resource.kind == Sandbox::ToolKind::"function" && principal has tenant }'
    text = GOOD.replace("S003", "S030") + permit("all", "invokeTool", local)
    write_bundle(tmp_path, text)
    assert found(lint_bundle(tmp_path, "S030", "S092")) == []
    assert found(lint_bundle(tmp_path, "S030", "S092", prover=True)) == [("S092", "")]


def test_a_report_has_what_was_suppressed_and_does_not_count_it(tmp_path: Path) -> None:
    report = report_of(lint_text(tmp_path, GOOD + _permit(), "S003"))
    assert report.summary.startswith("no findings")
    assert (report.exit_code, report.counted) == (0, ())
    (finding,) = report.findings
    assert finding.rule == "S003"
    text = render(report, "text")
    assert "1 finding suppressed" in text
    assert "every agent here may run commands" not in text
    document = json.loads(render(report, "json"))
    assert document["counts"] == {"error": 0, "warning": 0, "note": 0}
    (told,) = document["findings"]
    assert told["suppressed"]["kind"] == "inline"
    assert told["suppressed"]["reason"] == "every agent here may run commands"
    assert told["suppressed"]["line"] == 1


def test_sarif_shows_what_is_suppressed_and_by_what(tmp_path: Path) -> None:
    write_bundle(tmp_path, f"{GOOD}{_permit('one')}\n{_permit('two')}")
    write_baseline(tmp_path / "baseline.json", lint_bundle(tmp_path, "S003").findings)
    report = report_of(lint_bundle(tmp_path, "S003"))
    assert report.exit_code == 0
    text = render(report, "sarif")
    assert_sarif(text)
    (run,) = json.loads(text)["runs"]
    kinds = [each["kind"] for result in run["results"] for each in result["suppressions"]]
    assert (len(run["results"]), sorted(kinds)) == (2, ["external", "inSource"])


def test_a_suppression_of_what_only_the_prover_can_find_is_no_unused_one_without_it(tmp_path: Path) -> None:
    # The text names the principal, so that only a proof shows that it is for everybody.
    rest = '  resource\n)\nwhen { principal.trust in Sandbox::Trust::"untrusted" || principal has tenant };\n'
    text = _permit().replace("  resource\n);\n", rest)
    wanted = {"S003", "S092"}
    assert found(lint_text(tmp_path / "a", text, *wanted)) == []
    assert found(lint_bundle(tmp_path / "a", *wanted, prover=True)) == [("S003", "all")]
    linted = lint_text(tmp_path / "b", GOOD + text, *wanted)
    assert (found(linted), linted.suppressed) == ([], ())
    assert len(lint_bundle(tmp_path / "b", *wanted, prover=True).suppressed) == 1
    # Nor is it one when the time was over before the prover came to it; it is where the prover would not be asked.
    over = lint(
        Subject.load(tmp_path / "b"), LintConfig(), now=NOW, chosen=Chosen(frozenset(wanted)), prover=Wanted(limit_s=0)
    )
    assert (found(over), over.undecided) == ([], 1)
    limited = _permit().replace("  principal,", '  principal in Sandbox::AgentGroup::"agents",')
    assert found(lint_text(tmp_path / "c", GOOD + limited, *wanted)) == [("S092", "")]
