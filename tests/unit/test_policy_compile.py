"""Allow-lists compiled from policies: what they open is what Cedar permits."""

from __future__ import annotations

import ipaddress
import json
import random
from datetime import UTC, datetime
from pathlib import Path

import cedarpy
import pytest
from tests.unit.bundles import SHIPPED, write_bundle
from tests.unit.commands import Run, in_process

from cedarbox.boxlite.network import check_egress
from cedarbox.errors import CanonicalizationError, ConfigurationError
from cedarbox.policy import PolicyBundle, PolicyEngine
from cedarbox.policy.actions import connect
from cedarbox.policy.addresses import ip_class
from cedarbox.policy.canonical import Address, canonical_host
from cedarbox.policy.cards import card_list
from cedarbox.policy.endpoints import endpoints
from cedarbox.policy.entities import Base
from cedarbox.policy.protocols import KINDS, Kind
from cedarbox.policy.regions import CLASSES, Box, place
from cedarbox.policy.schema import schema_text
from cedarbox.review.allowlist.backends import backend_of
from cedarbox.review.allowlist.cedar import policy_of
from cedarbox.review.allowlist.compiling import check_list, compile_list
from cedarbox.review.allowlist.forms import BACKENDS, BackendName, Entry
from cedarbox.review.allowlist.points import addresses_of, connections
from cedarbox.review.arguments import build
from cedarbox.review.prove import available
from cedarbox.review.subject import Subject

CONNECT = 'principal, action == Sandbox::Action::"connect"'
RULES = f"""
@id("lan") permit ({CONNECT}, resource is Sandbox::Address)
    when {{ resource.ip.isInRange(ip("10.20.0.0/16")) && context.port >= 8000 && context.port <= 8080 }};
@id("site") permit ({CONNECT}, resource in Sandbox::Domain::"site.example")
    when {{ context.ipClass == Sandbox::IpClass::"public" }};
@id("tls") permit ({CONNECT}, resource == Sandbox::Host::"tls.example")
    when {{ context.port == 443 && context.proto == Sandbox::Proto::"tls" }};
@id("never") forbid ({CONNECT}, resource == Sandbox::Host::"evil.site.example");
"""
CONDITIONAL = (
    f'@id("tool") permit ({CONNECT}, resource == Sandbox::Host::"a.example") when {{ context.base has tool }};'
)


@pytest.fixture
def solver() -> None:
    """For tests that ask the solver; it takes its time."""
    assert not available()


@pytest.fixture(autouse=True)
def _regions_alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "solver" not in request.fixturenames:
        monkeypatch.setattr("cedarbox.review.allowlist.judge.available", lambda: "pip install 'cedarbox[prove]'")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return in_process(monkeypatch, capsys, "policy", "compile")


def subject(tmp_path: Path, policies: str = RULES) -> Subject:
    return Subject.load(write_bundle(tmp_path / "bundle", policies))


def texts(tmp_path: Path, name: BackendName, **more: tuple[str, ...]) -> list[str]:
    told = compile_list(subject(tmp_path), "agent", backend_of(name, **more))
    assert told.good
    return [entry.text for entry in told.entries]


def test_a_card_is_given_the_names_of_which_it_opens_nothing_more(tmp_path: Path) -> None:
    assert texts(tmp_path, "boxlite") == ["site.example"]


def test_nftables_is_given_addresses(tmp_path: Path) -> None:
    assert texts(tmp_path, "nftables") == ["10.20.0.0/16 . tcp . 8000-8080", "10.20.0.0/16 . udp . 8000-8080"]


def test_a_proxy_is_given_what_it_can_hold_up(tmp_path: Path) -> None:
    assert texts(tmp_path, "proxy") == []
    # Below site.example one name is forbidden, which no entry can tell.
    assert texts(tmp_path, "proxy", classes=("public",)) == ["site.example:1-65535"]
    assert "tls.example:443" in texts(tmp_path, "proxy", protocols=("tls",))


def test_what_stays_closed_is_told_with_a_connection_that_cedar_permits(tmp_path: Path) -> None:
    told = compile_list(subject(tmp_path), "agent", backend_of("nftables"))
    assert {left.policy for left in told.left} == {"site", "tls"}
    assert told.subject.bundle is not None
    engine = PolicyEngine(told.subject.bundle)
    for left in told.left:
        values = dict(item.split("=", 1) for item in left.witness.split(" "))
        made = build("connect", {**values, "port": int(values["port"])})
        assert engine.decide("agent", made).policies == (left.policy,)


def test_a_list_that_is_equal_says_so(tmp_path: Path, run: Run) -> None:
    lan = f"permit ({CONNECT}, resource is Sandbox::Address)"
    rule = f'{lan} when {{ resource.ip.isInRange(ip("10.1.2.0/24")) }};'
    code, out, _ = run(write_bundle(tmp_path, rule), "--backend", "nftables", "--json")
    told = json.loads(out)
    assert (code, told["good"], told["equal"], told["left_closed"]) == (0, True, True, [])
    assert "equal to the policies" in told["summary"]


def test_what_depends_on_more_is_refused_or_left_out(tmp_path: Path, run: Run) -> None:
    bundle, list_file = write_bundle(tmp_path / "bundle", RULES + CONDITIONAL), tmp_path / "list"
    code, out, _ = run(bundle, "--backend", "nftables", "--into", list_file)
    assert (code, list_file.exists()) == (1, False)
    assert "tool cannot be told in a list" in out
    code, _, _ = run(bundle, "--backend", "nftables", "--narrow", "--into", list_file)
    assert (code, list_file.exists()) == (0, True)


def test_a_policy_that_can_fail_leaves_nothing(tmp_path: Path) -> None:
    failing = f'@id("sum") forbid ({CONNECT}, resource) when {{ context.port * 9223372036854775807 == 1 }};'
    told = compile_list(subject(tmp_path, RULES + failing), "agent", backend_of("boxlite"))
    assert (told.entries, told.refused) == ((), True)


@pytest.mark.usefixtures("solver")
def test_not_proved_without_a_solver_where_regions_cannot_tell(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    always = f'permit ({CONNECT}, resource == Sandbox::Host::"a.example") when {{ context.base.backend like "*" }};'
    bundle, file = write_bundle(tmp_path / "bundle", always), tmp_path / "list.json"
    file.write_text('["a.example"]')
    assert run(bundle, "--backend", "boxlite", "--check", file)[0] == 0
    monkeypatch.setattr("cedarbox.review.allowlist.judge.available", lambda: "pip install 'cedarbox[prove]'")
    code, out, _ = run(bundle, "--backend", "boxlite", "--check", file)
    assert code == 3
    assert "not proved" in out


def test_regions_are_enough_without_a_solver(tmp_path: Path) -> None:
    told = compile_list(subject(tmp_path), "agent", backend_of("boxlite"))
    assert (told.good, [verdict.how for verdict in told.verdicts]) == (True, ["by regions"])
    assert told.proof.startswith("no solver")


@pytest.mark.usefixtures("solver")
def test_a_solver_proves_the_list(tmp_path: Path) -> None:
    told = compile_list(subject(tmp_path), "agent", backend_of("proxy", classes=("public",), protocols=("tls",)))
    assert (told.good, {verdict.how for verdict in told.verdicts}) == (True, {"by regions and proved"})
    assert told.proof.startswith("proved by")


@pytest.mark.parametrize("name", BACKENDS)
def test_a_list_is_read_as_it_was_written(tmp_path: Path, name: BackendName) -> None:
    bundle = subject(tmp_path)
    backend = backend_of(name, classes=("public",) if name in {"proxy", "squid"} else ())
    told = compile_list(bundle, "agent", backend)
    again = check_list(bundle, "agent", backend, told.text)
    assert told.entries
    assert (again.entries, again.good) == (told.entries, True)


def test_what_boxlite_takes(tmp_path: Path, run: Run) -> None:
    code, out, _ = run(write_bundle(tmp_path, RULES), "--backend", "boxlite", "--into", "-")
    options = json.loads(out)
    assert code == 0
    assert check_egress(options["egress_mode"], options["egress_allowlist"]) == ("site.example",)
    _, out, _ = run(SHIPPED / "airgapped", "--backend", "boxlite", "--into", "-")
    assert json.loads(out) == {"egress_mode": "none"}


def test_the_guard_gives_a_card_the_same_names() -> None:
    for name in ("developer", "internal-mirror"):
        bundle = PolicyBundle.load(SHIPPED / name)
        told = compile_list(Subject.load(SHIPPED / name), "agent", backend_of("boxlite"), narrow=True)
        assert tuple(entry.text for entry in told.entries) == card_list(endpoints(PolicyEngine(bundle), "agent")).names


def boxes() -> list[Box]:
    given: list[tuple[BackendName, list[str]]] = [
        ("boxlite", ["a.example", "*.b.example", "10.0.0.0/8"]),
        ("nftables", ["10.0.0.0/8 . tcp . 80-90", "fd00::/8 . udp . 53", "169.254.169.254/32 . tcp . 80"]),
        ("proxy", ["a.example:443", "*.b.example:1-1024", "10.0.0.7:80"]),
    ]
    entries: list[Entry] = []
    for name, items in given:
        backend = (
            backend_of(name, classes=("public", "private"), protocols=("tls",)) if name == "proxy" else backend_of(name)
        )
        entries += [backend.parse(item) for item in items]
    return [box for entry in entries for box in entry.opens]


def test_a_box_and_its_cedar_decide_alike(tmp_path: Path) -> None:
    found = boxes()
    base = write_bundle(tmp_path, "")
    bundle = PolicyBundle.load(base)
    rng = random.Random(7)
    targets = [
        "a.example",
        "b.example",
        "x.b.example",
        "x.y.b.example",
        "xb.example",
        "10.1.2.3",
        "fd00::1",
        "169.254.169.254",
    ]
    ips = [None, "10.1.2.3", "8.8.8.8", "127.0.0.1", "fd00::1", "169.254.169.254", "2606:4700::1"]
    about = Base(datetime(2026, 1, 1, tzinfo=UTC), "boxlite")
    schema = cedarpy.Schema.from_str(schema_text())
    every = {str(number): policy_of(box, "agent") for number, box in enumerate(found)}
    policies = cedarpy.PolicySet.from_json_str(
        json.dumps({"staticPolicies": every, "templates": {}, "templateLinks": []})
    )
    entities = cedarpy.Entities.from_json_str(json.dumps(list(bundle.entities)), schema)
    inside = 0
    kinds = sorted(KINDS, key=str)
    for _ in range(300):
        target, ip, port = (
            canonical_host(rng.choice(targets)),
            rng.choice(ips),
            rng.choice([1, 53, 80, 85, 443, 1024, 1025, 65535]),
        )
        kind: Kind = rng.choice(kinds)
        address = target if isinstance(target, Address) else None if ip is None else canonical_host(ip)
        assert address is None or isinstance(address, Address)
        request = ("GET", "/") if kind.request else (None, None)
        made = connect(
            about, target, port=port, proto=kind.proto, ip=address, hello=kind.hello, method=request[0], path=request[1]
        )
        held = ip_class(address.ip) if address else "unresolved"
        world = entities.with_added_json_str(json.dumps([made.resource.to_json()]), schema)
        asked = {
            "principal": 'Sandbox::Agent::"agent"',
            "action": 'Sandbox::Action::"connect"',
            "resource": made.resource.uid,
            "context": dict(made.context),
        }
        result = cedarpy.is_authorized(asked, policies, world, schema)
        ip_known = address.ip if address else None
        expected = {
            str(number)
            for number, box in enumerate(found)
            if box.holds(target, port=port, kind=kind, ip_class=held, ip=ip_known)
        }
        assert not result.diagnostics.errors
        assert set(result.diagnostics.reasons) == expected, made
        inside += len(expected)
    assert inside > 30


def test_connections_of_a_box_are_in_it() -> None:
    for box in boxes():
        seen = 0
        for _, made in connections(box):
            context = made.context
            ip = context.get("ip")
            at = canonical_host(ip["__extn"]["arg"]) if ip else None
            hello = context["hello"]["__entity"]["id"] if "hello" in context else None
            kind = Kind(context["proto"]["__entity"]["id"], hello, "http" in context)
            held = context["ipClass"]["__entity"]["id"]
            assert box.holds(
                canonical_host(made.resource.id),
                port=context["port"],
                kind=kind,
                ip_class=held,
                ip=at.ip if isinstance(at, Address) else None,
            )
            seen += 1
        assert seen


def test_classes_and_their_addresses_agree() -> None:
    ranges = {name: addresses_of(frozenset({name})) for name in CLASSES}
    rng = random.Random(3)
    for _ in range(500):
        bits = rng.choice([32, 32, 128])
        number = (
            rng.getrandbits(bits)
            if rng.random() < 0.5
            else rng.choice([10 << 24, 127 << 24, 0xA9FEA9FE, 0x64400000]) + rng.getrandbits(16)
        )
        ip = ipaddress.IPv4Address(number % 2**32) if bits == 32 else ipaddress.IPv6Address(number)
        try:
            known = canonical_host(str(ip))
        except CanonicalizationError:
            continue
        if not isinstance(known, Address) or known.ip != ip:
            continue
        assert [name for name, held in ranges.items() if place(ip) in held] == [ip_class(ip)], ip


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("boxlite", "not json"),
        ("boxlite", '{"egress_mode": "nic"}'),
        ("boxlite", '{"egress_mode": "nic", "egress_allowlist": null}'),
        ("boxlite", '["a.example", 5]'),
        ("boxlite", "[" * 100_000),
        ("boxlite", '["a_b..example"]'),
        ("nftables", "10.0.0.0/8 tcp 80"),
        ("nftables", "set allowed_ipv4 { elements = { 10.0.0.0/8 . tcp . 0 } }"),
        ("nftables", "set allowed_ipv4 { elements = { 10.0.0.1/8 . tcp . 80 } }"),
        ("nftables", "set allowed_ipv4 { elements = { 10.0.0.0/8 . sctp . 80 } }"),
        ("proxy", "a.example"),
        ("proxy", "a.example:99999"),
        ("proxy", "a.example:90-80"),
        ("proxy", "*.*.example:443"),
        ("squid", "acl cedarbox_tunnel method CONNECT"),
        ("squid", "http_access allow all"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path: Path, name: BackendName, text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_list(subject(tmp_path), "agent", backend_of(name), text)
    assert refused.value.hint
