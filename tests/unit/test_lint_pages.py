"""Every rule has a page of help, and its examples do what the page says."""

from __future__ import annotations

from pathlib import Path

import cedarpy
import pytest
from tests.unit.bundles import write_bundle
from tests.unit.linting import example, lint_bundle

from cedarbox.review.lint.rulebook import NEVER_SUPPRESSED, OWN, RULES, by_name, page

IDS = [rule.id for rule in RULES]
PAGES = Path(__file__).parents[2] / "src/cedarbox/review/lint/pages"


def _written(directory: Path, rule: str, heading: str) -> Path:
    files = dict(example(rule, heading))
    write_bundle(directory, files.pop("policies.cedar"))
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return directory


# What is found about suppressions and baselines is about other rules, so those have to run too.
def _rules(rule: str) -> tuple[str, ...]:
    return () if rule in {own.id for own in OWN} else (rule,)


@pytest.mark.parametrize("rule", IDS)
def test_the_bad_example_of_a_rule_is_found_and_the_good_one_is_not(rule: str, tmp_path: Path) -> None:
    bad = lint_bundle(_written(tmp_path / "bad", rule, "Bad"), *_rules(rule))
    hits = [finding for finding in bad.findings if finding.rule == rule]
    assert hits
    for finding in hits:
        assert finding.hint
        assert finding.place is not None
        assert "\n" not in finding.message
        assert not finding.message.endswith(".")
    good = lint_bundle(_written(tmp_path / "good", rule, "Good"), *_rules(rule))
    assert [finding.message for finding in good.findings if finding.rule == rule] == []


# One of each kind: of the text, of the meaning, of a whole file, of the tests.
@pytest.mark.parametrize("rule", ["S001", "S002", "S010", "S013", "S020", "S050", "S061", "S071", "S080", "S090"])
def test_what_the_bad_example_shows_is_suppressed_as_the_page_says(rule: str, tmp_path: Path) -> None:
    directory = _written(tmp_path / "bad", rule, "Bad")
    path = directory / "policies.cedar"
    comment = page(rule).partition("```text\n")[2].partition("\n")[0]
    assert comment.startswith(f"// cedarbox-lint: ignore {rule} -- ")
    head = comment.replace("ignore", "ignore-file")
    path.write_text(f"{head}\n\n{path.read_text()}")
    linted = lint_bundle(directory, rule, "S092", "S093")
    assert [
        finding.rule for finding in linted.findings if finding.place and finding.place.file.endswith(".cedar")
    ] == []
    assert {each.rule for each in linted.suppressed} <= {rule}
    assert linted.suppressed
    assert rule not in NEVER_SUPPRESSED


@pytest.mark.parametrize("rule", IDS)
def test_a_page_has_every_part_and_says_what_the_rule_is(rule: str) -> None:
    known = by_name(rule)
    assert known is not None
    text = page(rule)
    assert text.startswith(f"# {rule} {known.name}\n\n{known.summary}. Severity: {known.severity}.")
    for heading in ("Why it matters", "Bad", "Good", "How to fix", "How to suppress"):
        assert text.count(f"\n## {heading}\n") == 1
    assert len(text) > 700


@pytest.mark.parametrize("rule", IDS)
def test_a_page_says_how_a_rule_is_suppressed_or_that_it_cannot_be(rule: str) -> None:
    part = page(rule).partition("## How to suppress\n")[2]
    if rule in NEVER_SUPPRESSED:
        assert "cannot be suppressed by a comment" in part
    else:
        assert f"// cedarbox-lint: ignore {rule} -- " in part
        assert f'{rule} = {{severity = "off", reason = ' in part


def test_there_is_a_page_for_each_rule_and_no_other() -> None:
    assert sorted(path.name for path in PAGES.iterdir()) == [f"{rule}.md" for rule in IDS]


def test_ids_and_names_are_unique_and_summaries_are_lines() -> None:
    assert len(set(IDS)) == len(IDS)
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert not rule.summary.endswith(".")
        assert rule.hint
        assert by_name(rule.name) is rule


@pytest.mark.parametrize("rule", [rule for rule in IDS if rule not in {"S090", "S091"}])
def test_the_examples_are_formatted(rule: str) -> None:
    for heading in ("Bad", "Good"):
        text = example(rule, heading)["policies.cedar"]
        assert cedarpy.format_policies(text, 100, 2).strip() == text.strip()
