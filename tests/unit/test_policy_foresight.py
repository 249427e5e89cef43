"""What is said of a connection before all of it is known: never *no* where some connection would be allowed."""

from __future__ import annotations

import ipaddress
import json
import tempfile
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.bundles import PERMIT_ALL, SHIPPED, agents, engine

from cedarbox.policy import PolicyBundle, PolicyEngine, actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import Address, Host, canonical_host
from cedarbox.policy.entities import Base

NAMES = ("mirror.corp.example", "git.corp.example", "corp.example", "evil.example")
IPS = ("10.20.0.5", "8.8.8.8", "169.254.169.254", "fd12::5")
WIRE: tuple[dict[str, str], ...] = (
    {"proto": "tls", "hello": "named"},
    {"proto": "tls"},
    {"proto": "tcp"},
    {"proto": "tcp", "hello": "unnamed"},
    {"proto": "tcp", "hello": "encrypted"},
    {"proto": "udp"},
    {"proto": "http"},
    {"proto": "http", "method": "GET", "path": "/debian/a"},
    {"proto": "http", "method": "POST", "path": "/x"},
    {"proto": "http", "method": "GET", "path": "/debian/a", "upgrade": "websocket"},
)
BASES = (
    Base(datetime(2026, 1, 1, tzinfo=UTC), "boxlite"),
    Base(datetime(2030, 1, 1, tzinfo=UTC), "docker", "coder", "exec_command"),
)

_TERMS = st.sampled_from(
    [
        "true",
        "false",
        "resource is Sandbox::Host",
        'resource in Sandbox::Domain::"corp.example"',
        'resource == Sandbox::Host::"mirror.corp.example"',
        'resource is Sandbox::Host && resource.fqdn like "*.example"',
        'resource is Sandbox::Address && resource.ip.isInRange(ip("10.0.0.0/8"))',
        'principal in Sandbox::AgentGroup::"agents"',
        'principal.trust == Sandbox::Trust::"trusted"',
        "context.port == 443",
        "context.port <= 1024",
        "context.port + 9223372036854775800 > 0",
        "9223372036854775807 + 1 > 0",
        'context.proto == Sandbox::Proto::"tls"',
        'context.proto == Sandbox::Proto::"http"',
        'context.ipClass == Sandbox::IpClass::"private"',
        "context has ip",
        'context has ip && context.ip.isInRange(ip("10.20.0.0/16"))',
        "context has hello",
        'context has hello && context.hello == Sandbox::Hello::"named"',
        "context has http",
        'context has http && context.http.method == "GET"',
        'context has http && context.http.path like "/debian/*"',
        "context has http && context.http has upgrade",
        "context has http.upgrade",
        'context.base.at < datetime("2027-01-01")',
        'context.base.backend == "boxlite"',
        "context.base has tool",
    ]
)
_CONDITIONS = st.recursive(
    _TERMS.map(lambda term: f"({term})"),
    lambda inner: st.one_of(
        inner.map(lambda term: f"(!{term})"),
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(inner, inner, inner).map(lambda p: f"(if {p[0]} then {p[1]} else {p[2]})"),
    ),
    max_leaves=5,
)
_POLICIES = st.lists(
    st.tuples(st.sampled_from(["permit", "permit", "forbid"]), st.sampled_from(["when", "unless"]), _CONDITIONS),
    min_size=1,
    max_size=4,
)


def targets() -> list[Host | Address]:
    return [canonical_host(name) for name in (*NAMES, *IPS)]


def connections(target: Host | Address) -> list[Action]:
    ips = [target] if isinstance(target, Address) else [None, *(Address(ipaddress.ip_address(ip)) for ip in IPS)]
    return [
        actions.connect(base, target, port=port, ip=ip, **wire)
        for base, port, ip, wire in product(BASES, (1, 22, 80, 443, 65535), ips, WIRE)
    ]


ALL = {target: connections(target) for target in targets()}


def agree(deciding: PolicyEngine, *, sample: int = 1) -> tuple[int, int]:
    """Check every target; return for how many something was allowed, and how many were said to be hopeless."""
    allowed_targets = hopeless = 0
    for target, asked in ALL.items():
        could = deciding.could_connect("agent", target)
        allowed = [action for action in asked[::sample] if deciding.decide("agent", action).allowed]
        assert could or not allowed, (str(target), allowed[0])
        for action in allowed:
            if "http" in action.context:
                unknown = Action("connect", action.resource, {k: v for k, v in action.context.items() if k != "http"})
                assert deciding.could_request("agent", unknown), (str(target), action)
        allowed_targets += bool(allowed)
        hopeless += not could
    return allowed_targets, hopeless


@given(written=_POLICIES)
@settings(max_examples=60)
def test_what_some_connection_is_allowed_to_is_never_hopeless(written: list[tuple[str, str, str]]) -> None:
    scope = 'principal, action == Sandbox::Action::"connect", resource'
    text = "".join(f"{effect} ({scope}) {kind} {{ {body} }};\n" for effect, kind, body in written)
    with tempfile.TemporaryDirectory() as directory:
        agree(engine(Path(directory), text), sample=13)


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED.iterdir()))
def test_the_bundles_that_ship_look_up_nothing_but_what_they_permit(name: str) -> None:
    deciding = PolicyEngine(PolicyBundle.load(SHIPPED / name))
    permitted = {
        "developer": {"packages.example", "packagefiles.example"},
        "internal-mirror": {"mirror.corp.example", "git.corp.example"},
    }.get(name, set())
    tried = {*NAMES, *permitted, "packages.example", "x.mirror.corp.example", "x.packages.example", "localhost", *IPS}
    assert {target for target in tried if deciding.could_connect("agent", canonical_host(target))} == permitted
    agree(deciding, sample=7)


def test_a_permit_that_depends_on_the_request_counts(tmp_path: Path) -> None:
    rule = (
        'permit (principal, action == Sandbox::Action::"connect", resource == Sandbox::Host::"corp.example") when '
        '{ context.port == 80 && context has http && context.http.path like "/a/*" && !(context.http has upgrade) };'
    )
    deciding = engine(tmp_path, rule)

    def could(target: str, port: int) -> bool:
        ip = Address(ipaddress.ip_address("10.0.0.1"))
        action = actions.connect(BASES[0], canonical_host(target), port=port, proto="http", ip=ip)
        assert not deciding.decide("agent", action).allowed
        return deciding.could_request("agent", action)

    assert could("corp.example", 80)
    assert not could("corp.example", 81)
    assert not could("evil.example", 80)


def test_a_forbid_that_always_holds_is_named(tmp_path: Path) -> None:
    forbid = (
        '@id("no") @reason("because") @advice("ask") forbid (principal, action, resource in Sandbox::Domain::"example")'
        " when { resource is Sandbox::Host };"
    )
    never = engine(tmp_path, PERMIT_ALL + forbid).never_connects("agent", Host("a.example"))
    assert never is not None
    assert (never.allowed, never.policies, never.reason, never.advice) == (False, ("no",), "because", "ask")
    nothing = engine(tmp_path / "none", "// nothing\n").never_connects("agent", Host("a.example"))
    assert nothing is not None
    assert (nothing.policies, nothing.reason) == ((), "no policy permits any connection to it")
    assert engine(tmp_path / "all", PERMIT_ALL).never_connects("agent", Host("a.example")) is None


def test_policies_that_cannot_be_evaluated_permit_no_look_up(tmp_path: Path) -> None:
    # Cedar itself would skip the forbid; a decision would be a denial, and so is this.
    overflow = (
        'forbid (principal, action == Sandbox::Action::"connect", resource) when { 9223372036854775807 + 1 > 0 };'
    )
    deciding = engine(tmp_path, PERMIT_ALL + overflow)
    never = deciding.never_connects("agent", Host("a.example"))
    assert never is not None
    assert any("overflow" in error for error in never.errors)
    assert agree(deciding) == (0, len(ALL))


def test_an_engine_that_fails_permits_no_look_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        pass

    def fail(*_: object) -> object:
        raise Panic("unreachable code")

    monkeypatch.setattr("cedarbox.policy.foresight.cedarpy.is_authorized_partial", fail)
    never = engine(tmp_path, PERMIT_ALL).never_connects("agent", Host("a.example"))
    assert never is not None
    assert "Panic" in never.errors[0]


@pytest.mark.parametrize("name", ['a"b\\c', "\u00e9\u0301", "\u200b\n\t\r'", "\U0001f44d\u202e", "\U000e0001", " "])
def test_an_agent_with_an_odd_name_is_the_same_agent(tmp_path: Path, name: str) -> None:
    rule = f"permit (principal == Sandbox::Agent::{json.dumps('x')}, action, resource);"
    entities = agents(name, "x")
    deciding = engine(tmp_path, PERMIT_ALL, entities=entities)
    assert deciding.could_connect(name, Host("a.example"))
    assert not deciding.could_connect("stranger", Host("a.example"))
    other = engine(tmp_path / "other", rule, entities=entities)
    assert other.could_connect("x", Host("a.example"))
    assert not other.could_connect(name, Host("a.example"))


def test_only_so_many_targets_are_remembered(tmp_path: Path) -> None:
    deciding = engine(tmp_path, PERMIT_ALL)
    for number in range(5000):
        deciding.could_connect("agent", Host(f"h{number}.example"))
    information = deciding._targets.cache_info()
    assert (information.misses, information.currsize) == (5000, 4096)
    deciding.could_connect("agent", Host("h4999.example"))
    assert deciding._targets.cache_info().hits == 1
