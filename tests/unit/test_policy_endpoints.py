"""The list of what an agent may connect to, against the real engine: the one says what the other does."""

from __future__ import annotations

import ipaddress
import os
import random
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import cedarpy
import pytest
from tests.unit.bundles import SHIPPED, engine

from cedarbox.policy import PolicyBundle, PolicyEngine, actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import Address, Host, ip_class
from cedarbox.policy.endpoints import Endpoints, endpoints, endpoints_of
from cedarbox.policy.entities import NAMESPACE, Base
from cedarbox.policy.protocols import KINDS, Kind, kinds_of_hello, kinds_of_proto, plainest_first, words
from cedarbox.policy.regions import Box, Ranges, Targets, complement, difference, intersection, union
from cedarbox.policy.schema import packaged_schema

BASE = Base(datetime(2026, 1, 2, tzinfo=UTC), "boxlite")
NAMES = (
    *("a.example", "b.a.example", "c.b.a.example", "d.example", "example", "other.test", "x.other.test", "xa.example"),
    *("mirror.corp.example", "git.corp.example", "evil.mirror.corp.example"),
)
PORTS = (1, 22, 79, 80, 81, 443, 444, 8080, 65535)
CIDRS = ("10.0.0.0/8", "10.20.0.0/16", "0.0.0.0/0", "192.0.2.7/32", "2000::/3", "2001:db8::/32", "fd00::/8")
IPS = (
    *("10.1.2.3", "10.20.0.5", "8.8.8.8", "192.0.2.7", "127.0.0.1", "169.254.169.254", "100.64.0.1", "224.0.0.1"),
    *("2606:4700::1", "2001:db8::1", "fd00::7", "::1", "ff02::1", "192.168.3.4"),
)
CLASS = ("public", "private", "loopback", "link_local", "metadata", "cgnat", "multicast", "reserved", "unresolved")
PROTO = ("tcp", "udp", "tls", "http")


HELLOS = ("named", "unnamed", "encrypted")
# Every combination that a request has, with the odds of a test: what cedarbox never asks about is not among them.
WIRE: tuple[dict[str, Any], ...] = (
    *({"proto": proto} for proto in PROTO),
    {"proto": "tls", "hello": "named"},
    *({"proto": "tcp", "hello": hello} for hello in ("unnamed", "encrypted")),
    *({"proto": "http", "method": method, "path": "/debian/x"} for method in ("GET", "POST")),
    {"proto": "http", "method": "GET", "path": "/", "upgrade": "websocket"},
)


def request(rng: random.Random) -> tuple[Action, dict[str, Any]]:
    """A connection as cedarbox makes it, and the same in the words of the list."""
    port, wire = rng.choice(PORTS), rng.choice(WIRE)
    asked = {"port": port, "kind": Kind(wire["proto"], wire.get("hello"), "method" in wire)}
    if rng.random() < 0.3:
        target: Host | Address = Address(ipaddress.ip_address(rng.choice(IPS)))
        action = actions.connect(BASE, target, port=port, **wire)
        assert isinstance(target, Address)
        return action, {**asked, "target": target, "ip_class": ip_class(target.ip), "ip": target.ip}
    target = Host(rng.choice(NAMES))
    if rng.random() < 0.3:
        assumed = rng.choice(("public", "unresolved"))
        action = actions.connect(BASE, target, port=port, assumed_class=assumed, **wire)
        return action, {**asked, "target": target, "ip_class": assumed, "ip": None}
    address = Address(ipaddress.ip_address(rng.choice(IPS)))
    action = actions.connect(BASE, target, port=port, ip=address, **wire)
    return action, {**asked, "target": target, "ip_class": ip_class(address.ip), "ip": address.ip}


def condition(rng: random.Random, depth: int, *, opaque: bool) -> str:
    """A random condition of the shapes that policies are made of."""
    if depth and rng.random() < 0.55:
        left, right = (condition(rng, depth - 1, opaque=opaque) for _ in range(2))
        either = f"(if {left} then {right} else {left})"
        return rng.choice((f"({left} && {right})", f"({left} || {right})", f"!({left})", either))
    port, cidr = rng.choice(PORTS), rng.choice(CIDRS)
    name, ip = rng.choice(NAMES), rng.choice(IPS)
    proto = f'{NAMESPACE}::Proto::"{rng.choice(PROTO)}"'
    hello = f'{NAMESPACE}::Hello::"{rng.choice(HELLOS)}"'
    klass = f'{NAMESPACE}::IpClass::"{rng.choice(CLASS)}"'
    other = f'{NAMESPACE}::IpClass::"{rng.choice(CLASS)}"'
    shapes = [
        f"context.port == {port}",
        f"context.port != {port}",
        f"[{port}, {rng.choice(PORTS)}].contains(context.port)",
        f"context.port {rng.choice(('<', '<=', '>', '>='))} {port}",
        f"{port} {rng.choice(('<', '<=', '>', '>='))} context.port",
        f"context.proto == {proto}",
        f"[{proto}].contains(context.proto)",
        "context has hello",
        f"context has hello && context.hello {rng.choice(('==', '!='))} {hello}",
        f'context has hello && [{hello}, {NAMESPACE}::Hello::"{rng.choice(HELLOS)}"].contains(context.hello)',
        f"context has hello && context.hello in [{hello}]",
        f"if context has hello then context.hello == {hello} else context.port == {port}",
        "context has http",
        f"context.ipClass == {klass}",
        f"[{klass}, {other}].contains(context.ipClass)",
        f"context.ipClass in [{klass}, {other}]",
        f'context has ip && context.ip.isInRange(ip("{cidr}"))',
        f'context has ip && context.ip == ip("{ip}")',
        f"context has ip && context.ip.{rng.choice(('isLoopback', 'isMulticast', 'isIpv4', 'isIpv6'))}()",
        "context has ip",
        f'resource in {NAMESPACE}::Domain::"{name}"',
        f'resource in [{NAMESPACE}::Domain::"{name}", {NAMESPACE}::Host::"{rng.choice(NAMES)}"]',
        f'resource == {NAMESPACE}::Host::"{name}"',
        f'resource == {NAMESPACE}::Address::"{ip}"',
        f"resource is {NAMESPACE}::Host",
        f'resource is {NAMESPACE}::Address && resource.ip.isInRange(ip("{cidr}"))',
        f'resource is {NAMESPACE}::Host && resource.fqdn like "*.{name}"',
        f'principal in {NAMESPACE}::AgentGroup::"{rng.choice(("agents", "others"))}"',
        f'principal.trust == {NAMESPACE}::Trust::"{rng.choice(("untrusted", "trusted"))}"',
        f'action in {NAMESPACE}::Action::"network"',
    ]  # fmt: skip
    if opaque:
        shapes += ['context.base has tool && context.base.tool == "fetch"', "context.port + 1 == 444"]
        shapes += [
            'context has http && context.http.method == "GET"',
            'context has http && context.http.path like "/debian/*" && !(context.http has upgrade)',
            'if context has http then ["GET", "HEAD"].contains(context.http.method) else context.port == 443',
            '(context has http && context.http.method == "GET") == (context has hello)',
            "context has http && (if context.http has upgrade then false else context.port == 80)",
        ]
    return rng.choice(shapes)


def policy(rng: random.Random, *, opaque: bool) -> str:
    name = rng.choice(NAMES)
    scope = rng.choice(
        (
            "resource",
            f'resource == {NAMESPACE}::Host::"{name}"',
            f'resource in {NAMESPACE}::Domain::"{name}"',
            f"resource is {NAMESPACE}::Host",
            f'resource is {NAMESPACE}::Host in {NAMESPACE}::Domain::"{name}"',
            f'resource == {NAMESPACE}::Address::"{rng.choice(IPS)}"',
        )
    )
    group, agent = f'principal in {NAMESPACE}::AgentGroup::"agents"', f'principal == {NAMESPACE}::Agent::"agent"'
    who = rng.choice(("principal", group, agent))
    action = rng.choice((f'action == {NAMESPACE}::Action::"connect"', f'action in {NAMESPACE}::Action::"network"'))
    effect = rng.choices(("permit", "forbid"), (3, 2))[0]
    text = f"{effect} ({who}, {action}, {scope})"
    for _ in range(rng.randint(0, 2)):
        text += f" {rng.choice(('when', 'unless'))} {{ {condition(rng, 2, opaque=opaque)} }}"
    return f"{text};"


def accepted(rng: random.Random, directory: Path, *, opaque: bool) -> PolicyEngine | None:
    """An engine over random policies; None when the schema does not take them."""
    text = "\n".join(policy(rng, opaque=opaque) for _ in range(rng.randint(1, 5)))
    if not cedarpy.validate_policies(text, packaged_schema()).validation_passed:
        return None
    return engine(directory, text)


def disagreements(made: PolicyEngine, found: Endpoints, rng: random.Random, number: int) -> tuple[list[str], int]:
    """Ask the engine and the list about random connections; return where they differ, and how many were allowed."""
    wrong, allowed = [], 0
    for _ in range(number):
        action, asked = request(rng)
        decision = made.decide("agent", action).allowed
        covered = found.covers(**asked)
        allowed += decision
        if decision and not covered:
            wrong.append(f"allowed and not in the list: {asked}")
        if found.exact and covered and not decision:
            wrong.append(f"in an exact list and not allowed: {asked}")
        entries = [e for e in found.entries if e.exact and e.box.holds(**asked)]
        if found.certain and entries and not decision:
            wrong.append(f"in an exact entry and not allowed: {asked}")
    return wrong, allowed


@pytest.mark.parametrize("opaque", [False, True], ids=["expressible", "with conditions"])
def test_the_list_and_the_engine_agree(tmp_path: Path, opaque: bool, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(20261127 + opaque)
    bundles = exact = asked = allowed = 0
    wanted = 150 if os.environ.get("CEDARBOX_LONG") == "1" else 50
    while bundles < wanted:
        if (made := accepted(rng, tmp_path / "bundle", opaque=opaque)) is None:
            continue
        found = endpoints(made, "agent")
        wrong, yes = disagreements(made, found, rng, 100)
        assert not wrong, (wrong[:3], (tmp_path / "bundle" / "policies.cedar").read_text())
        connections = found.certain and all(entry.exact for entry in found.entries)
        bundles, exact, asked, allowed = bundles + 1, exact + connections, asked + 100, allowed + yes
    assert allowed > asked / 20
    assert exact == bundles if not opaque else 0 < exact < bundles
    with capsys.disabled():
        print(f"\n{bundles} bundles, {exact} exact, {asked} requests, {allowed} allowed, 0 disagreements")


def residuals(made: PolicyEngine) -> dict[str, Any]:
    """What Cedar's own partial evaluation leaves of the policies for this agent and action."""
    chosen = {p.id: p.est for p in made.bundle.policies if "connect" in p.actions}
    sets = made._sets["connect"]
    asked = {"principal": f'{NAMESPACE}::Agent::"agent"', "action": f'{NAMESPACE}::Action::"connect"'}
    left = cedarpy.is_authorized_partial(asked, sets, made._entities)
    assert left.residuals.keys() <= chosen.keys()
    return dict(left.residuals)


def test_the_list_is_that_of_partial_evaluation(tmp_path: Path) -> None:
    rng = random.Random(7)
    compared = 0
    while compared < 60:
        if (made := accepted(rng, tmp_path / "bundle", opaque=False)) is None:
            continue
        chosen = {policy.id: policy.est for policy in made.bundle.policies if "connect" in policy.actions}
        own = endpoints_of(made.bundle, "agent", chosen)
        cedars = endpoints_of(made.bundle, "agent", residuals(made))
        assert own.exact
        assert cedars.exact
        mine, theirs = tuple(e.box for e in own.entries), tuple(e.box for e in cedars.entries)
        assert difference(mine, theirs) == difference(theirs, mine) == ()
        compared += 1


def test_the_algebra_of_regions() -> None:
    rng = random.Random(3)
    pool = [
        Box(targets=Targets.domain("a.example")),
        Box(targets=Targets.host("b.a.example")),
        Box(ports=Ranges.of([(80, 443)])),
        Box(kinds=kinds_of_proto("tls")),
        Box(classes=frozenset({"public"})),
        Box(targets=Targets.below("example")),
    ]
    for _ in range(200):
        left, right = tuple(rng.sample(pool, 2)), tuple(rng.sample(pool, 2))
        either, both = union(left, right), intersection(left, right)
        only, outside = difference(left, right), complement(left)
        for _ in range(20):
            _, asked = request(rng)

            def holds(region: tuple[Box, ...], asked: dict[str, Any] = asked) -> bool:
                return any(box.holds(**asked) for box in region)

            assert holds(either) == (holds(left) or holds(right))
            assert holds(both) == (holds(left) and holds(right))
            assert holds(only) == (holds(left) and not holds(right))
            assert holds(outside) != holds(left)


def listed(directory: Path, policies: str) -> Endpoints:
    return endpoints(engine(directory, policies), "agent")


CONNECT = f'principal, action == {NAMESPACE}::Action::"connect"'


def test_what_cannot_be_told_is_told_as_text(tmp_path: Path) -> None:
    found = listed(
        tmp_path,
        f'@id("tool") permit ({CONNECT}, resource == {NAMESPACE}::Host::"a.example")'
        ' when { context.base has tool && context.base.tool == "fetch" };'
        f'@id("never") forbid ({CONNECT}, resource) when {{ context.base has agent }};',
    )
    (entry,) = found.entries
    assert not found.exact
    assert not entry.exact
    assert any('"fetch"' in text for text in entry.box.conditions)
    assert [forbid.policy for forbid in entry.excepted] == ["never"]
    assert not found.permits(Box(targets=Targets.host("a.example")))


def test_a_policy_with_too_many_cases_is_unknown_and_its_scope_is_kept(tmp_path: Path) -> None:
    apart = " && ".join(
        f'!(context.port == {n} && resource == {NAMESPACE}::Host::"h{n}.example")' for n in range(1, 40)
    )
    text = f'@id("huge") permit ({CONNECT}, resource in {NAMESPACE}::Domain::"example") when {{ {apart} }};'
    found = listed(tmp_path, text)
    assert [(item.policy, item.effect) for item in found.unknown] == [("huge", "permit")]
    assert not found.exact
    assert not found.certain
    assert found.covers(Host("h1.example"), port=1, kind=Kind("tls"), ip_class="public", ip=None)
    assert not found.permits(Box(targets=Targets.host("h1.example")))


def test_a_name_that_nothing_can_match_is_noted(tmp_path: Path) -> None:
    found = listed(tmp_path, f'permit ({CONNECT}, resource == {NAMESPACE}::Host::"A.Example");')
    assert found.entries == ()
    assert found.notes == ('Host::"A.Example" matches nothing: no target is spelt like that',)


def test_what_else_of_the_network_is_permitted_is_noted(tmp_path: Path) -> None:
    permits = """
        @id("open") permit (principal == Sandbox::Agent::"agent", action, resource is Sandbox::Backend);
        @id("names") permit (principal, action == Sandbox::Action::"resolve", resource);
        @id("ports") permit (principal, action == Sandbox::Action::"exposePort", resource)
            when { context.public };
    """
    found = endpoints(engine(tmp_path / "open", permits), "agent")
    # "agent may connect to nothing", and that this is exact, was said of a network without any restriction.
    assert not found.exact
    assert [note.partition(" ")[0] for note in found.notes] == ["open", "names", "ports"]
    forbids = """
        forbid (principal in Sandbox::AgentGroup::"agents", action in [Sandbox::Action::"connectAnywhere",
            Sandbox::Action::"resolve", Sandbox::Action::"exposePort"], resource);
    """
    closed = endpoints(engine(tmp_path / "closed", permits + forbids), "agent")
    assert (closed.exact, closed.notes) == (True, ())
    # A forbid that leaves something open is no reason not to tell.
    some = endpoints(
        engine(tmp_path / "some", permits + forbids.replace("resource);", "resource) when { false };")), "agent"
    )
    assert some.notes == found.notes


def test_an_agent_that_is_not_declared_may_connect_to_nothing(tmp_path: Path) -> None:
    found = endpoints(engine(tmp_path, "permit (principal, action, resource);"), "stranger")
    assert (found.entries, found.covers(Host("a"), port=1, kind=Kind("tls"), ip_class="public", ip=None)) == ((), False)


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED.iterdir() if path.is_dir()))
def test_the_bundles_that_ship_have_lists_that_are_exact_but_for_requests(name: str) -> None:
    made = PolicyEngine(PolicyBundle.load(SHIPPED / name))
    found = endpoints(made, "agent")
    assert found.certain
    # A condition on a request in plain HTTP is told as text, and nothing else is.
    assert all(not entry.excepted for entry in found.entries)
    inexact = [entry.box for entry in found.entries if not entry.exact]
    assert all(box.kinds == {Kind("http", request=True)} for box in inexact)
    assert len(inexact) == (name == "internal-mirror")
    wrong, _ = disagreements(made, found, random.Random(1), 2000)
    assert not wrong


def test_the_kinds_are_what_a_request_can_be() -> None:
    made = set()
    for proto in PROTO:
        for hello in (None, *HELLOS):
            for method, path in ((None, None), ("GET", "/")):
                asked = partial(actions.connect, BASE, Host("a.example"), port=1, proto=proto, hello=hello)
                try:
                    asked(method=method, path=path)
                except ValueError:
                    continue
                made.add(Kind(proto, hello, method is not None))
    assert made == KINDS
    assert {Kind(w["proto"], w.get("hello"), "method" in w) for w in WIRE} == KINDS


PROTO_IS, HELLO_IS = f"context.proto == {NAMESPACE}::Proto::", f"context.hello == {NAMESPACE}::Hello::"
OF_THE_WIRE = (
    *(f'{PROTO_IS}"{proto}"' for proto in PROTO),
    *(f'context has hello && {HELLO_IS}"{hello}"' for hello in HELLOS),
    *(f'if context has hello then {HELLO_IS}"{hello}" else true' for hello in HELLOS),
    *("context has hello", "context has http", "(context has http) == (context has hello)"),
    'context has http && context.http.method == "GET"',
    'if context has http then context.http.method == "GET" else true',
    "context has http && context.http has upgrade",
    '(context has http && context.http.method == "GET") == (context has hello)',
    '[context has http && context.http.path == "/"].contains(false)',
)


@pytest.mark.parametrize("text", OF_THE_WIRE)
@pytest.mark.parametrize("form", ["permit when", "permit unless", "forbid when", "forbid unless"])
def test_the_list_and_the_engine_agree_on_every_kind(tmp_path: Path, form: str, text: str) -> None:
    effect, kind = form.split()
    rest = f"permit ({CONNECT}, resource);" if effect == "forbid" else ""
    made = engine(tmp_path, f"{rest} {effect} ({CONNECT}, resource) {kind} {{ {text} }};")
    found = endpoints(made, "agent")
    plain = "context.http" not in text and "==" not in text.replace(PROTO_IS, "").replace(HELLO_IS, "")
    assert found.exact or not plain
    for wire in WIRE:
        decision = made.decide("agent", actions.connect(BASE, Host("a.example"), port=443, **wire)).allowed
        asked = Kind(wire["proto"], wire.get("hello"), "method" in wire)
        about: dict[str, Any] = {"port": 443, "kind": asked, "ip_class": "unresolved", "ip": None}
        covered = found.covers(Host("a.example"), **about)
        certain = any(e.exact and e.box.holds(Host("a.example"), **about) for e in found.entries)
        assert certain <= decision <= covered, wire
        assert decision == covered or not found.exact, wire


def test_a_forbid_about_another_kind_leaves_a_row_exact(tmp_path: Path) -> None:
    found = listed(
        tmp_path,
        f'@id("p") permit ({CONNECT}, resource == {NAMESPACE}::Host::"a.example")'
        f' when {{ context.proto == {NAMESPACE}::Proto::"tls" }};'
        f'@id("f") forbid ({CONNECT}, resource) when {{ context has http && context.http.method == "POST" }};'
        f'@id("g") forbid ({CONNECT}, resource)'
        f' when {{ context has hello && context.hello != {NAMESPACE}::Hello::"named" }};'
        f'@id("h") forbid ({CONNECT}, resource) when {{ context has http && !(context.http.path like "/x/*") }};',
    )
    (entry,) = found.entries
    assert (found.exact, entry.box.kinds) == (True, kinds_of_proto("tls"))


def test_a_forbid_of_some_requests_is_told(tmp_path: Path) -> None:
    found = listed(
        tmp_path,
        f'@id("p") permit ({CONNECT}, resource == {NAMESPACE}::Host::"a.example");'
        f'@id("f") forbid ({CONNECT}, resource) when {{ context has http && context.http.method == "POST" }};',
    )
    (entry,) = found.entries
    assert [forbid.policy for forbid in entry.excepted] == ["f"]
    assert not found.permits(Box(targets=Targets.host("a.example"), kinds=kinds_of_proto("http")))


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (KINDS, ("any",)),
        (kinds_of_proto("tls"), ("tls",)),
        (kinds_of_hello("named"), ("tls",)),
        ({Kind("tls")}, ("tls (not looked at)",)),
        ({Kind("http")}, ("http (not looked at)",)),
        ({Kind("tcp")}, ("tcp",)),
        (kinds_of_proto("tcp"), ("tcp (and hidden TLS)",)),
        ({Kind("tcp"), Kind("tcp", "unnamed")}, ("tcp", "tcp (TLS without a name)")),
        (kinds_of_hello("encrypted"), ("tcp (TLS with an encrypted name)",)),
        (KINDS - kinds_of_hello("unnamed") - kinds_of_hello("encrypted"), ("http", "tcp", "tls", "udp")),
    ],
)
def test_kinds_in_words(held: frozenset[Kind], said: tuple[str, ...]) -> None:
    assert words(frozenset(held)) == said


def test_a_list_comes_out_the_same_each_time(tmp_path: Path) -> None:
    hosts = ", ".join(f'Sandbox::Host::"{name}.example"' for name in "fbdeca")
    text = (
        '@id("hosts") permit (principal, action == Sandbox::Action::"connect", resource) '
        f"when {{ resource in [{hosts}] && context.port == 443 }};"
    )
    names = [name for entry in listed(tmp_path, text).entries for name in entry.box.targets.rules if name]
    assert names == [f"{name}.example" for name in "abcdef"]


def test_no_two_kinds_stand_at_the_same_place() -> None:
    assert len(set(map(plainest_first, KINDS))) == len(KINDS)
