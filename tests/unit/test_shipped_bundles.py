"""The bundles that ship: each does what its cases say, and its cases pin every policy."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import cedarpy
import pytest
from tests.unit.bundles import SHIPPED

from cedarbox.policy import PolicyBundle, PolicyEngine
from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.review.arguments import build
from cedarbox.review.cases import Suite
from cedarbox.review.coverage import measure, percent
from cedarbox.review.run import run_suite, survivors

BUNDLES = sorted(path.name for path in SHIPPED.iterdir())
LINE_WIDTH = 120
AGENTS = {"op": "in", "entity": {"type": "Sandbox::AgentGroup", "id": "agents"}}


@pytest.fixture(params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> PolicyBundle:
    return PolicyBundle.load(SHIPPED / request.param)


def test_the_bundles_that_ship_are_these() -> None:
    assert BUNDLES == ["airgapped", "baseline", "developer", "internal-mirror", "regulated-data"]


def test_every_case_passes_and_covers_every_policy_and_every_change_is_noticed(bundle: PolicyBundle) -> None:
    suite = Suite.load(bundle)
    outcomes = run_suite(suite)
    assert [(o.case.file.name, o.case.line, o.problem) for o in outcomes if not o.passed] == []
    coverage = measure(bundle.policies, outcomes)
    assert [covered.policy.id for covered in coverage if not covered.both_ways] == []
    assert percent(coverage) == 100
    alive, made = survivors(suite)
    assert [(mutant.policy.id, mutant.change) for mutant in alive] == []
    assert made > 3 * len(bundle.policies)


def test_the_cases_speak_about_every_action(bundle: PolicyBundle) -> None:
    assert {case.action for case in Suite.load(bundle).cases} == set(ACTION_GROUPS)


def test_every_policy_says_what_it_is_for(bundle: PolicyBundle) -> None:
    for policy in bundle.policies:
        assert policy.annotations.get("id"), policy.id
        assert policy.annotations.get("reason"), policy.id
        assert (policy.effect == "forbid") is bool(policy.annotations.get("advice")), policy.id


def test_every_permit_is_for_the_group_and_every_forbid_for_everybody(bundle: PolicyBundle) -> None:
    for policy in bundle.policies:
        assert policy.est["principal"] == (AGENTS if policy.effect == "permit" else {"op": "All"}), policy.id


def test_every_file_is_formatted(bundle: PolicyBundle) -> None:
    for path in bundle.path.glob("*.cedar"):
        text = path.read_text()
        assert cedarpy.format_policies(text, line_width=LINE_WIDTH, indent_width=2) == text, path
    for path in bundle.path.rglob("*"):
        if path.is_file():
            assert max(map(len, path.read_text().splitlines())) <= LINE_WIDTH, path


def test_every_statement_has_a_comment_before_it(bundle: PolicyBundle) -> None:
    for path in bundle.path.glob("*.cedar"):
        lines = path.read_text().splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith("@id(")]
        assert len(starts) == sum(policy.file == path.name for policy in bundle.policies)
        assert [number + 1 for number in starts if not lines[number - 1].startswith("// ")] == [], path


def test_the_bundles_declare_the_same_one_agent(bundle: PolicyBundle) -> None:
    assert bundle.principals == {"agent"}
    assert json.loads((bundle.path / "entities.json").read_text()) == list(
        PolicyBundle.load(SHIPPED / "baseline").entities
    )


@pytest.mark.parametrize("name", [name for name in BUNDLES if name != "baseline"])
def test_what_an_ordinary_run_needs_is_permitted(name: str) -> None:
    engine = PolicyEngine(PolicyBundle.load(SHIPPED / name))
    image = {"image": "sha256:0", "digest": "sha256:0", "repository": "local", "isolation": "microvm"}
    asked = [
        ("create", {**image, "egress": "none", "vcpus": 1, "memory_mib": 1024, "lifetime_s": 3600}),
        *(("useCapability", {"capability": capability}) for capability in ("shell", "filesystem", "skills")),
        *(("invokeTool", {"name": tool, "kind": "function"}) for tool in ("exec_command", "write_stdin", "view_image")),
        ("invokeTool", {"name": "apply_patch", "kind": "custom"}),
        ("exec", {"command": ("ls",), "tool": "exec_command"}),
        ("readFile", {"path": "/workspace/a", "operation": "read"}),
        ("writeFile", {"path": "/workspace/a", "operation": "write"}),
        ("setEnvironment", {"name": "LANG"}),
        ("useModel", {"model": "m", "host": None}),
        ("useModel", {"model": "m", "host": "127.0.0.1"}),
    ]
    for action, values in asked:
        assert engine.decide("agent", build(action, values)).allowed, (action, values)  # type: ignore[arg-type]  # a table


def test_nobody_holds_the_key_of_the_approver_that_ships() -> None:
    text = (SHIPPED / "regulated-data" / "bundle.toml").read_text()
    digest = hashlib.sha256(b"cedarbox: put the key of your approver here").digest()
    assert f'approver = "{base64.b64encode(digest).decode()}"' in text


def test_the_tool_that_runs_commands_waits_for_a_person() -> None:
    bundle = PolicyBundle.load(SHIPPED / "regulated-data")
    approved = [policy for policy in bundle.policies if "requires_approval" in policy.annotations]
    assert [(policy.effect, policy.annotations["requires_approval"]) for policy in approved] == [("permit", "approver")]
    request = build("invokeTool", {"name": "exec_command", "kind": "function"})
    # Another permit for this tool would let it run without the person.
    assert PolicyEngine(bundle).decide("agent", request).policies == (approved[0].id,)


def test_a_bundle_that_was_copied_and_changed_fails_its_cases(tmp_path: Path) -> None:
    for path in (SHIPPED / "internal-mirror").rglob("*"):
        target = tmp_path / path.relative_to(SHIPPED / "internal-mirror")
        if path.is_dir():
            target.mkdir()
        else:
            target.write_text(path.read_text().replace('Sandbox::IpClass::"private"', 'Sandbox::IpClass::"public"'))
    outcomes = run_suite(Suite.load(PolicyBundle.load(tmp_path)))
    assert any("mirror on an address" in o.case.title for o in outcomes if not o.passed)
