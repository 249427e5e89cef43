"""Attacks on how the text of policies is read: what Cedar decides by is what a reviewer sees and what tools keep."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import cedarpy
import pytest
from tests.unit.bundles import PERMIT_ALL, agents, engine, write_bundle

from cedarbox.policy import PolicyBundle, actions
from cedarbox.policy.entities import Base
from cedarbox.review.check import check
from cedarbox.review.formatting import format_policies

_PERMIT = '@id("all") permit (principal, action, resource);\n'


@pytest.mark.parametrize("ending", ["\r", "\r\n", "\n\r"])
def test_a_forbid_behind_the_carriage_return_of_a_comment(tmp_path: Path, ending: str) -> None:
    """A comment ends with a bare carriage return, which an editor shows as the end of the line and Cedar takes as one.

    The forbid after it is a policy of the bundle and decides, as it does for Cedar's own tools.
    """
    policies = f'{_PERMIT}// no commands{ending}@id("never") forbid (principal, action, resource);\n'
    gate = engine(tmp_path, policies)
    decision = gate.decide("agent", actions.use_capability(Base(datetime.now(UTC), "boxlite"), capability="shell"))
    assert not decision.allowed
    assert [policy.id for policy in PolicyBundle.load(tmp_path).policies] == ["all", "never"]


def _checked(directory: Path, policies: str) -> list[tuple[str, int]]:
    report = check([write_bundle(directory, policies)])
    return [(found.rule, found.place.line) for found in report.findings if found.place]


def test_a_host_spelt_with_a_letter_of_another_script(tmp_path: Path) -> None:
    """A forbid names `evil.example` with a Cyrillic letter, so it forbids nothing that exists. Cedar takes it.

    `policy check` warns of the mixed scripts at the line, written as it is and by an escape.
    """
    forbid = '@id("{}") forbid (principal, action, resource in Sandbox::Domain::"{}.example");\n'
    found = _checked(tmp_path, _PERMIT + forbid.format("a", "\u0435vil") + forbid.format("b", "\\u{435}vil"))
    assert found == [("C012", 2), ("C012", 3)]


@pytest.mark.parametrize("place", ["// a \u202e comment", '@reason("x\u2066")', "//\u2069"])
def test_text_that_an_editor_shows_in_another_order(tmp_path: Path, place: str) -> None:
    """Characters that turn the direction of writing are put where the policy does not mean them: comments, annotations.

    `policy check` warns at the line.
    """
    found = _checked(tmp_path, f"{_PERMIT}{place}\npermit (principal, action, resource);\n")
    assert found == [("C011", 2)]


def test_a_forbid_that_protects_nothing(tmp_path: Path) -> None:
    """A forbid is made impossible by a condition that reads well: the resource is to be two things at once.

    Cedar and the loader take it without a word. `policy check` warns and points at the condition.
    """
    policies = f'{_PERMIT}@id("no") forbid (principal, action, resource is Sandbox::Host)\nwhen {{ true }}\n'
    policies += "when { resource is Sandbox::Address };"
    assert _checked(tmp_path, policies) == [("C010", 4)]
    PolicyBundle.load(tmp_path)


def test_a_comment_that_the_formatter_would_drop(tmp_path: Path) -> None:
    """A comment behind a last comma carries a suppression with its reason. Cedar's own formatter drops it.

    `policy fmt` keeps it.
    """
    text = '@id("a") permit (principal, action, resource,) // cedarbox-lint: ignore S001 -- agreed\n;'
    assert "S001" not in cedarpy.format_policies(text)
    assert "// cedarbox-lint: ignore S001 -- agreed" in format_policies(text)


def test_one_key_twice_in_an_entity(tmp_path: Path) -> None:
    """An agent is declared with `"trust"` twice: readers that take the first value see another agent than Cedar does.

    `policy check` refuses the file and points at the second.
    """
    entities = agents("agent").replace('"attrs": {"tenant"', '"attrs": {"trust": {"__entity": {}},\n"tenant"')
    report = check([write_bundle(tmp_path, PERMIT_ALL, entities=entities)])
    assert [(found.rule, "twice" in found.message) for found in report.findings] == [("C006", True)]
    assert report.failed


def test_policies_that_would_take_the_parser_down(tmp_path: Path) -> None:
    """Statements that crash cedarpy's parser or take it minutes stand among good ones: brackets, operators, names.

    Each is told at its line, and the others are checked all the same.
    """
    bad = ["(" * 5000, "[" * 5000 + "1", "context" + ".a" * 5000, "!" * 5000 + "true", "if " * 5000, "a&&" * 5000 + "a"]
    statements = [f"permit (principal, action, resource) when {{ {text} }};" for text in bad]
    found = _checked(tmp_path, "\n".join([*statements, 'permit (principal, action == Action::"x", resource);']))
    assert found[: len(bad)] == [("C002", line) for line in range(1, len(bad) + 1)]
    assert {("C003", len(bad) + 1)} == set(found[len(bad) :])
