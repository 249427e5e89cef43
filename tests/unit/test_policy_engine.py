"""Allow only when Cedar says Allow and reports no error."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.bundles import PERMIT_ALL, SHIPPED, agents, engine

from cedarbox.policy import Decision, PolicyBundle, PolicyEngine, actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import Address, Host, canonical_host
from cedarbox.policy.entities import Base, Entity

BASE = Base(datetime(2026, 11, 23, tzinfo=UTC), "boxlite")


def _connect(host: str, port: int = 443, assumed: str = "public") -> Action:
    return actions.connect(BASE, canonical_host(host), port=port, proto="tls", assumed_class=assumed)


def _every_action() -> dict[str, Action]:
    made = actions.create(
        BASE,
        image="i",
        digest="sha256:0",
        repository="local",
        isolation="microvm",
        egress="none",
        vcpus=1,
        memory_mib=512,
        lifetime_s=3600,
    )
    return {
        "create": made,
        "resume": actions.resume(made),
        "snapshot": actions.snapshot(BASE, session="s", kind="tar", store="local"),
        "restore": actions.restore(BASE, snapshot_id="s", kind="tar", store="local"),
        "fork": actions.fork(BASE, snapshot_id="s", copies=2),
        "adopt": actions.adopt(BASE, snapshot_id="s", made_under="unknown", in_force="sha256:0"),
        "export": actions.export(BASE, snapshot_id="s", destination="/srv/out.tar"),
        "resolve": actions.resolve(BASE, Host("a.example")),
        "connect": _connect("a.example"),
        "connectAnywhere": actions.connect_anywhere(BASE),
        "exposePort": actions.expose_port(BASE, port=80, public=False),
        "mountRead": actions.mount(BASE, host_path="/srv", guest_path="/data", writable=False, is_symlink=False),
        "mountWrite": actions.mount(BASE, host_path="/srv", guest_path="/data", writable=True, is_symlink=False),
        "readFile": actions.touch_file(BASE, path="/workspace/a", operation="read"),
        "writeFile": actions.touch_file(BASE, path="/workspace/a", operation="write"),
        "exec": actions.execute(BASE, command=["ls"], shell=True, user=None, summary="ls"),
        "openTerminal": actions.execute(BASE, command=["ls"], shell=True, user=None, summary="ls", terminal=True),
        "writeTerminal": actions.write_terminal(BASE, session="s"),
        "setEnvironment": actions.set_environment(BASE, name="LANG"),
        "createAccount": actions.create_account(BASE, name="coder", group=False),
        "useCapability": actions.use_capability(BASE, capability="shell"),
        "useSecret": actions.use_secret(BASE, name="token", host=Host("a.example"), port=443),
        "invokeTool": actions.invoke_tool(BASE, name="t", kind="function"),
        "useModel": actions.use_model(BASE, model="m", host=None),
        "useServerState": actions.use_server_state(BASE, state="conversation", model="m", host=Host("a.example")),
        "captureContent": actions.capture_content(BASE, content="prompts"),
    }


def test_every_action_can_be_permitted_and_is_denied_without_a_policy(tmp_path: Path) -> None:
    permitting, empty = engine(tmp_path / "all", PERMIT_ALL), engine(tmp_path / "none", "// nothing\n")
    made = _every_action()
    assert set(made) == set(actions.ACTION_GROUPS)
    for name, action in made.items():
        assert action.name == name
        allowed, denied = permitting.decide("agent", action), empty.decide("agent", action)
        assert (allowed.allowed, allowed.policies, allowed.errors) == (True, ("all",), ()), (name, allowed)
        assert (denied.allowed, denied.policies, denied.errors) == (False, (), ()), (name, denied)


def test_a_forbid_that_cannot_be_evaluated_denies(tmp_path: Path) -> None:
    # Cedar skips such a forbid and says Allow: 9223372036854775807 + 1 overflows when it is evaluated.
    overflow = (
        '@id("f") forbid (principal, action == Sandbox::Action::"connect", resource) '
        "when { context.port + 9223372036854775807 > 0 };"
    )
    decision = engine(tmp_path, PERMIT_ALL + overflow).decide("agent", _connect("a.example"))
    assert not decision.allowed
    assert any("overflow" in error for error in decision.errors)


def test_an_undeclared_agent_is_denied_whatever_the_policies_say(tmp_path: Path) -> None:
    deciding = engine(tmp_path, PERMIT_ALL)
    for name in ("stranger", "", "Agent", "agent "):
        decision = deciding.decide(name, _connect("a.example"))
        assert not decision.allowed
        assert decision.errors


@pytest.mark.parametrize(
    "action",
    [
        Action("noSuchAction", Entity("Host", "a.example"), {}),
        Action("connect", Entity("Host", "a.example"), {}),
        Action("connect", Entity("Host", "a.example", {"fqdn": "a.example"}), {"base": BASE.to_json()}),
        Action("connect", Entity("HostPath", "/etc", {"path": "/etc"}), dict(_connect("a.example").context)),
        Action("connect", Entity("Host", "a.example", {"fqdn": 5}), dict(_connect("a.example").context)),
        Action(
            "connect", Entity("Host", "a.example", {"fqdn": "x"}), dict(_connect("a.example").context) | {"port": 1.5}
        ),
        Action(
            "connect", Entity("Host", "a.example", {"fqdn": "x"}), dict(_connect("a.example").context) | {"port": 2**70}
        ),
        Action("connect", Entity("Host", "a.example", {"fqdn": "x"}), {"base": object()}),
        Action("invokeTool", Entity("Tool", "t", {"name": "t"}), {"base": BASE.to_json()}),
        actions.invoke_tool(BASE, name="t", kind="hosted_teleport"),
        actions.invoke_tool(BASE, name="\udcff", kind="function"),
    ],
    ids=range(11),
)
def test_a_request_that_does_not_fit_the_schema_is_denied(tmp_path: Path, action: Action) -> None:
    decision = engine(tmp_path, PERMIT_ALL).decide("agent", action)
    assert not decision.allowed
    assert decision.errors


def test_a_domain_matches_whole_labels_only(tmp_path: Path) -> None:
    rule = 'permit (principal, action == Sandbox::Action::"connect", resource in Sandbox::Domain::"corp.example");'
    deciding = engine(tmp_path, rule)
    assert deciding.decide("agent", _connect("corp.example")).allowed
    assert deciding.decide("agent", _connect("GIT.corp.example.")).allowed
    for other in ("notcorp.example", "corp.example.evil.net", "example", "corp.exampl"):
        assert not deciding.decide("agent", _connect(other)).allowed


def test_a_path_matches_whole_components_only(tmp_path: Path) -> None:
    rule = 'permit (principal, action == Sandbox::Action::"readFile", resource in Sandbox::GuestPath::"/workspace");'
    deciding = engine(tmp_path, rule)
    for path, allowed in (
        ("/workspace", True),
        ("/workspace/a/b", True),
        ("/workspace/../etc/shadow", False),
        ("/workspaces", False),
        ("/work", False),
        ("/", False),
    ):
        assert deciding.decide("agent", actions.touch_file(BASE, path=path, operation="read")).allowed is allowed


def test_reason_and_advice_come_with_the_decision(tmp_path: Path) -> None:
    rule = '@id("no") @reason("because") @advice("ask") forbid (principal, action, resource);'
    decision = engine(tmp_path, PERMIT_ALL + rule).decide("agent", _connect("a.example"))
    assert (decision.allowed, decision.policies, decision.reason, decision.advice) == (False, ("no",), "because", "ask")


def test_an_agent_of_another_group_gets_nothing(tmp_path: Path) -> None:
    rule = 'permit (principal in Sandbox::AgentGroup::"others", action, resource);'
    assert not engine(tmp_path, rule).decide("agent", _connect("a.example")).allowed
    assert not engine(tmp_path / "two", rule, entities=agents("agent", "b")).decide("b", _connect("a.example")).allowed


@given(st.text(max_size=20), st.text(max_size=20), st.integers(min_value=-(2**65), max_value=2**65))
def test_nothing_in_a_request_makes_the_engine_raise(principal: str, name: str, port: int) -> None:
    action = Action(
        "connect", Entity("Host", name, {"fqdn": name}), dict(_connect("a.example").context) | {"port": port}
    )
    decision = _AIRGAPPED.decide(principal, action)
    assert isinstance(decision, Decision)
    assert not decision.allowed


_AIRGAPPED = PolicyEngine(PolicyBundle.load(SHIPPED / "airgapped"))


def test_an_address_carries_its_class(tmp_path: Path) -> None:
    rule = (
        'permit (principal, action == Sandbox::Action::"connect", resource) '
        'when { context.ipClass == Sandbox::IpClass::"public" };'
    )
    deciding = engine(tmp_path, rule)
    for text, allowed in (("8.8.8.8", True), ("127.0.0.1", False), ("[::ffff:169.254.169.254]", False)):
        target = canonical_host(text)
        assert isinstance(target, Address)
        assert deciding.decide("agent", actions.connect(BASE, target, port=443, proto="tls")).allowed is allowed
    internal = canonical_host("10.0.0.1")
    assert isinstance(internal, Address)
    resolved = actions.connect(BASE, Host("a.example"), port=443, proto="tls", ip=internal, assumed_class="public")
    assert not deciding.decide("agent", resolved).allowed
