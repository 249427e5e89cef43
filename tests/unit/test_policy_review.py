"""``cedarbox policy review``: one report and one exit code of all parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.bundles import PERMIT_ALL, write_bundle
from tests.unit.report_schemas import assert_junit, assert_sarif
from typer.testing import CliRunner

from cedarbox.cli import policy_review
from cedarbox.cli.policy import app
from cedarbox.cli.policy_review import PARTS, bundles_of
from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.review.finding import Check, Finding, Place, Report, Rule, Section
from cedarbox.review.reports import render
from cedarbox.review.whole import whole

_GOOD = Report("check", "a", "2 files", checks=[Check("files", "a.cedar", "passed")])
_WARNED = Report("lint", "a", "1 warning", findings=[Finding("S002", "warning", "unscoped", policy="p")])
_FAILED = Report(
    "test",
    "a",
    "1 of 2 cases pass",
    checks=[Check("connect", "one", "passed"), Check("connect", "two", "failed", "expected deny")],
    sections=[Section("Coverage")],
    notes=["slow"],
    rules=[Rule("T001", "case-failed", "error", "A case failed")],
    failed=True,
)
_UNDECIDED = Report("diff", "a", "1 not decided", undecided=True)


def test_a_whole_is_as_bad_as_its_worst_part() -> None:
    assert whole("review", "a", [_GOOD, _WARNED]).exit_code == 0
    assert whole("review", "a", [_GOOD, _UNDECIDED]).exit_code == 3
    assert whole("review", "a", [_FAILED, _UNDECIDED]).exit_code == 1
    assert whole("review", "a", [_GOOD, _WARNED], fail_level="warning").exit_code == 1
    assert whole("review", "a", [_GOOD, _WARNED], fail_level="error").exit_code == 0
    told = whole("review", "a", [_GOOD, _WARNED], fail_level="warning").summary
    assert told == "check good, lint good, 1 finding of --fail-level warning or worse"


def test_a_whole_has_all_of_its_parts() -> None:
    report = whole("review", "a", [_GOOD, _WARNED, _FAILED, _UNDECIDED])
    assert report.summary == "check good, lint good, test failed (1 of 2 cases pass), diff not decided (1 not decided)"
    assert [section.title for section in report.sections] == ["What was done", "test: Coverage"]
    assert (report.notes, [rule.id for rule in report.rules]) == (["test: slow"], ["T001"])
    assert [part["exit_code"] for part in report.data["parts"]] == [0, 0, 1, 3]
    assert_sarif(render(report, "sarif"))
    suites = [suite.get("name") for suite in assert_junit(render(report, "junit")).iter("testsuite")]
    assert suites == ["check: files", "lint", "test: connect", "diff", "a"]


def test_a_part_without_checks_is_a_case_all_the_same() -> None:
    report = whole(
        "review", "a", [Report("lint", "a", "no findings"), _UNDECIDED, Report("diff", "a", "x", failed=True)]
    )
    assert [(check.name, check.status) for check in report.checks] == [
        ("lint", "passed"),
        ("diff", "undecided"),
        ("diff", "failed"),
    ]


def test_what_a_change_permits_is_told_first() -> None:
    widened = Report("diff", "a", "1 widening", findings=[Finding("D100", "error", "widened")], failed=True)
    assert [one.rule for one in whole("review", "a", [_WARNED, widened]).findings] == ["D100", "S002"]


def test_two_bundles_are_told_apart() -> None:
    report = whole("review", "a, b", [_WARNED, Report("lint", "b", "none")])
    assert report.summary == "lint a good, lint b good"


def test_another_bundle_above_is_not_reviewed_in_place_of_the_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "policies", PERMIT_ALL)
    write_bundle(tmp_path / "policies" / "site", PERMIT_ALL)
    (tmp_path / "policies" / "site" / "bundle.toml").unlink()
    for name in ("policies/site", "policies/site/policies.cedar", "policies/gone", "policies/gone/a.cedar"):
        with pytest.raises(ConfigurationError, match="in no policy bundle"):
            bundles_of([Path(name)])
    assert bundles_of([Path("policies/gone.cedar"), Path("policies/tests/gone.yaml")]) == (Path("policies"),)


def test_a_bundle_whose_metadata_is_a_link_to_nothing_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "site", PERMIT_ALL)
    (tmp_path / "site" / "bundle.toml").unlink()
    (tmp_path / "site" / "bundle.toml").symlink_to("gone")
    done = CliRunner().invoke(app, ["review", "--skip-others", "--only", "check", "site/policies.cedar"])
    assert done.exit_code == 1
    assert "site/bundle.toml" in done.stdout


def test_properties_that_cannot_be_listed_are_not_passed_over(reviews: Reviews, tmp_path: Path) -> None:
    site = tmp_path / "site"
    assert not policy_review._has_properties(site)
    (site / "properties").write_text("properties: []\n")
    assert policy_review._has_properties(site)


def test_files_lead_to_their_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b/c"):
        write_bundle(tmp_path / name, PERMIT_ALL)
    (tmp_path / "a" / "tests").mkdir()
    names = ("a/policies.cedar", "a/tests/x.yaml", "a/gone.cedar", str(tmp_path / "b" / "c"), "a")
    assert bundles_of([Path(name) for name in names]) == (Path("a"), Path("b/c"))
    monkeypatch.chdir(tmp_path / "a" / "tests")
    assert bundles_of([Path()]) == (tmp_path / "a",)


@pytest.mark.parametrize("name", ["x.cedar", ".", "no/such", "a\0b", "a" * 300])
def test_a_path_in_no_bundle_is_refused_or_left_out(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="in no policy bundle"):
        bundles_of([Path(name)])
    assert bundles_of([Path(name)], skip_others=True) == ()


class Reviews:
    """Runs reviews whose parts are replaced: what the parts themselves find has tests of its own."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        patch.chdir(directory)
        write_bundle(directory / "site", PERMIT_ALL)
        self.ran: list[str] = []
        self.reports: dict[str, Report | Exception | None] = {part: Report(part, "whatever", "good") for part in PARTS}
        patch.setattr(policy_review, "resettled", lambda base, bundles: None)
        patch.setattr(policy_review, "_RUN", {part: self._part(part) for part in PARTS})

    def _part(self, part: str) -> object:
        def run(bundle: Path, asked: object) -> Report | None:
            self.ran.append(part)
            made = self.reports[part]
            if isinstance(made, Exception):
                raise made
            return made

        return run

    def __call__(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        done = CliRunner().invoke(app, ["review", "site", *arguments, "--json"])
        return done.exit_code, json.loads(done.stdout)


@pytest.fixture
def reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reviews:
    return Reviews(tmp_path, monkeypatch)


def test_there_is_no_comparison_without_a_base(reviews: Reviews) -> None:
    code, document = reviews()
    assert (code, document["subject"]) == (0, "site")
    assert reviews.ran == ["check", "fmt", "lint", "test", "prove"]
    reviews.ran.clear()
    reviews("--base", "main")
    assert reviews.ran == list(PARTS)


def test_only_some_parts(reviews: Reviews) -> None:
    reviews("--only", "test", "--only", "fmt")
    assert reviews.ran == ["fmt", "test"]


@pytest.mark.parametrize("given", [["--only", "diff"], ["--only", "tests"], ["--base", "main", "--only", ""]])
def test_parts_that_cannot_be_run(given: list[str], reviews: Reviews) -> None:
    done = CliRunner().invoke(app, ["review", "site", *given])
    assert isinstance(done.exception, ConfigurationError)
    assert reviews.ran == []


def test_a_review_in_which_nothing_is_done_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/bundle.toml").write_text("")
    done = CliRunner().invoke(app, ["review", "site", "--only", "prove"])
    assert isinstance(done.exception, ConfigurationError)
    assert "site: no properties to prove" in str(done.exception)


def test_what_can_be_told_of_a_bundle_that_does_not_check_is_told(reviews: Reviews) -> None:
    place = Place("site/tests/a.yaml", 3)
    reviews.reports["check"] = Report(
        "check", "x", "1 error", findings=[Finding("C8", "error", "m", place)], failed=True
    )
    reviews.reports["test"] = BundleError("m", path=Path("site/tests/a.yaml"), line=3)
    code, document = reviews("--base", "main")
    assert (code, reviews.ran) == (1, list(PARTS))
    assert document["undecided"] is True
    assert document["summary"] == "check failed (1 error), fmt good, lint good, test not run, diff good, prove good"
    assert [each["rule"] for each in document["findings"]] == ["C8"]


def test_a_bundle_that_a_part_refuses_is_a_finding_in_its_place(reviews: Reviews, tmp_path: Path) -> None:
    reviews.reports["test"] = BundleError("not a mapping", path=Path("site/tests/a.yaml"), line=4, hint="correct it")
    code, document = reviews()
    assert code == 1
    (finding,) = document["findings"]
    assert (finding["rule"], finding["file"], finding["line"]) == ("test-refused", "site/tests/a.yaml", 4)
    assert finding["message"] == "not a mapping"
    reviews.reports["test"] = BundleError("not a mapping", path=Path("site/tests/a.yaml"), line=5, hint="correct it")
    (moved,) = reviews()[1]["findings"]
    assert (moved["line"], moved["fingerprint"]) == (5, finding["fingerprint"])
    assert reviews.ran[-1] == "prove"


def test_what_is_about_no_place_is_told_of_a_file_where_one_is_needed(reviews: Reviews, tmp_path: Path) -> None:
    reviews.reports["diff"] = Report("diff", "site", "no solver", undecided=True)
    code, _ = reviews("--base", "main", "--output", f"gitlab={tmp_path / 'q.json'}")
    (issue,) = json.loads((tmp_path / "q.json").read_text())
    assert (code, issue["location"]["path"]) == (3, "site/bundle.toml")
    assert issue["description"] == "diff: no solver"


def test_a_part_that_has_nothing_to_do_is_left_out(reviews: Reviews) -> None:
    reviews.reports["prove"] = None
    code, document = reviews()
    assert code == 0
    assert "prove" not in document["summary"]


def test_no_bundle_among_the_files_of_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["review", "--skip-others", "--only", "lint", "entities.json"])
    assert (done.exit_code, done.stdout) == (0, "no bundle: none of the paths is in one\n")


def test_a_bundle_without_properties_among_the_files_of_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "b", PERMIT_ALL)
    prove = ["review", "--only", "prove", "b/policies.cedar"]
    done = CliRunner().invoke(app, [*prove, "--skip-others"])
    assert (done.exit_code, done.stdout) == (0, "b: no properties to prove\n")
    assert isinstance(CliRunner().invoke(app, prove).exception, ConfigurationError)
    (tmp_path / "b" / "properties").write_text("none")
    assert CliRunner().invoke(app, [*prove, "--skip-others"]).exit_code == 1


def test_a_file_that_an_option_names_is_bad_input_and_no_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "b", PERMIT_ALL)
    failed = CliRunner().invoke(app, ["review", "b", "--only", "lint", "--no-prover", "--baseline", "nowhere.json"])
    assert isinstance(failed.exception, BundleError)
    assert "nowhere.json: no such baseline" in str(failed.exception)
