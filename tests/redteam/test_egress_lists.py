"""Attacks on the allow-list of a sandbox: lists that reach further than the policies, and cards without a list.

On real BoxLite clients, where the refusal comes before any microVM; real Cedar, a real ledger.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import NoopSnapshotSpec
from tests.unit.bundles import PERMIT_ALL
from tests.unit.guarded import Guarded

from cedarbox.boxlite import BoxLiteSandboxClient, BoxLiteSandboxClientOptions, EgressSecret
from cedarbox.boxlite.network import network_spec
from cedarbox.errors import ConfigurationError, PolicyDenied
from cedarbox.guard.allowlists import LEAKS

IMAGE = f"mirror.corp.example/base@sha256:{'c' * 64}"
CONNECT = 'principal, action == Sandbox::Action::"connect"'
# Everything but connections: what these tests are about is added to it.
REST = '@id("rest") permit (principal, action, resource) unless { action == Sandbox::Action::"connect" };'
HOST = 'resource == Sandbox::Host::"packages.example"'
P, F = f'@id("p") permit ({CONNECT}, {HOST})', f'@id("f") forbid ({CONNECT}, resource)'
TLS = 'context.proto == Sandbox::Proto::"tls"'
PRIVATE = 'context.ipClass == Sandbox::IpClass::"private"'
PUBLIC = 'context.ipClass == Sandbox::IpClass::"public"'


class Watched(BoxLiteSandboxClient):
    """A real client that remembers whether it was asked to make something."""

    asked: Any = None

    async def create(self, **given: Any) -> SandboxSession:
        self.asked = given["options"]
        return await super().create(**given)


def guard(directory: Path, policies: str) -> tuple[Guarded, Watched]:
    client = Watched(home=directory / "home")
    return Guarded(directory / "guard", policies, inner=client), client


def options(**values: Any) -> BoxLiteSandboxClientOptions:
    return BoxLiteSandboxClientOptions(image=IMAGE, **values)


async def made(guarded: Guarded, **values: Any) -> Any:
    session = await guarded.client.create(snapshot=NoopSnapshotSpec(), options=options(**values))
    return session.state


def created(guarded: Guarded) -> dict[str, Any]:
    attrs: dict[str, Any] = dict(guarded.records("sandbox.created")[-1].entry.attrs)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in attrs.items()}


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (f"{P} when {{ context.port == 443 && {PUBLIC} }};", "http on port 80"),
        (f"{P} when {{ [80, 443].contains(context.port) && {TLS} && {PUBLIC} }};", "http on port 80"),
        (f"{P} when {{ {PRIVATE} }};", "tls on port 443 and http on port 80 to public addresses"),
        (f'{P} when {{ context has ip && context.ip.isInRange(ip("8.8.8.0/24")) }};', "http on port 80 to public"),
        (f"{P} when {{ context.base has tool }};", "more than a card can be told"),
        (f"{P}; {F} when {{ context.base has tool }};", "more than a card can be told"),
        (f"{P}; {F} when {{ context.port == 80 }};", "would open http on port 80"),
        (f"{P}; {F} when {{ context has http }};", "would open http on port 80"),
        (f"{P}; {F} when {{ {TLS} && !(context has hello) }};", "would open tls on port 443"),
        (f'{P}; {F} when {{ context has http && context.http.method == "PUT" }};', "more than a card can be told"),
        (f"{P}; {F} when {{ context.port + 1 == 9 }};", "may fail to evaluate"),
        (f'@id("p") permit ({CONNECT}, resource == Sandbox::Address::"8.8.8.8");', "every port of an address"),
        (f'@id("p") permit ({CONNECT}, resource is Sandbox::Address);', "every port of an address"),
        (f'@id("p") permit ({CONNECT}, resource is Sandbox::Host);', "cannot be told any host"),
    ],
    ids=[
        *("port", "protocol", "class", "cidr", "condition", "conditional forbid", "forbidden port"),
        *("forbidden requests", "TLS that nobody looks at", "forbidden method", "failing"),
        *("address", "network", "any host"),
    ],
)
async def test_a_derived_list_that_would_open_more(tmp_path: Path, rules: str, why: str) -> None:
    """A card is to have what the policies permit, and they permit less than a card would open: a port, a protocol, a
    class, a range, a condition. The host is dropped and there is no card; `sandbox.created` says what and why.
    """
    guarded, client = guard(tmp_path, f"{REST} {rules}")
    state = await made(guarded, egress_mode="nic")
    assert (state.egress_mode, state.egress_allowlist) == ("nic", ())
    assert client.asked.egress_allowlist == ()
    assert network_spec(state.egress_mode, state.egress_allowlist).outbound.mode == "disabled"
    told = created(guarded)
    assert told["egress"] == []
    assert any(why in line and line.startswith(("p: ", "f: ")) for line in told["egress_dropped"])


async def test_a_derived_list_says_what_leaks(tmp_path: Path) -> None:
    """A host that a card opens no further than the policies do, and a domain of which only the top can be told. The
    record of the sandbox has the list, what was dropped, and what leaks past any card.
    """
    rules = (
        f'@id("p") permit ({CONNECT}, {HOST}) when {{ {PUBLIC} }};'
        f'@id("d") permit ({CONNECT}, resource in Sandbox::Domain::"mirror.example") when {{ {PUBLIC} }};'
        f'@id("f") forbid ({CONNECT}, resource == Sandbox::Host::"evil.mirror.example");'
    )
    guarded, _ = guard(tmp_path, f"{REST} {rules}")
    state = await made(guarded, egress_mode="nic")
    assert state.egress_allowlist == ("mirror.example", "packages.example")
    told = created(guarded)
    assert told["egress"] == ["mirror.example", "packages.example"]
    assert told["leaks"] == list(LEAKS)
    (dropped,) = told["egress_dropped"]
    assert dropped.startswith("d: mirror.example and *.mirror.example: ")
    asked = [(decision, resource) for decision, action, resource in guarded.decisions() if action == "connect"]
    names = ("mirror.example", "packages.example")
    assert asked == [("allow", f'Host::"{name}"') for name in names for _ in (443, 80)]


async def test_a_derived_list_under_a_forbid_of_hidden_names(tmp_path: Path) -> None:
    """Every bundle that ships forbids TLS that hides its name, which a card cannot see. The host is listed, since each
    kind of connection that a card is asked about is permitted; the record says that policies about a hello do not hold.
    """
    hidden = 'context has hello && [Sandbox::Hello::"unnamed", Sandbox::Hello::"encrypted"].contains(context.hello)'
    guarded, _ = guard(tmp_path, f"{REST} {P} when {{ {PUBLIC} }}; {F} when {{ {hidden} }};")
    state = await made(guarded, egress_mode="nic")
    assert state.egress_allowlist == ("packages.example",)
    told = created(guarded)
    assert (told["egress"], told["egress_dropped"]) == (["packages.example"], [])
    assert any("no policy about a TLS hello" in leak for leak in told["leaks"])


@pytest.mark.parametrize(
    "entry",
    [
        *("*.example", "*.packages.example", "*.corp.mirror.test", "other.example", "10.0.0.1", "10.0.0.0/8"),
        *("2001:db8::1", "evil.mirror.example", "*.evil.mirror.example", "mirror.examp1e"),
    ],
)
async def test_a_requested_entry_beyond_the_policies(tmp_path: Path, entry: str) -> None:
    """Options ask for a name, a wildcard above the permitted domain, an address or a network that no policy could
    permit. Nothing is made; the ledger has a denied `connect` of that entry.
    """
    rules = (
        f'@id("p") permit ({CONNECT}, {HOST});'
        f'@id("d") permit ({CONNECT}, resource in Sandbox::Domain::"mirror.example") when {{ context.base has tool }};'
        f'@id("f") forbid ({CONNECT}, resource in Sandbox::Domain::"evil.mirror.example");'
    )
    guarded, client = guard(tmp_path, f"{REST} {rules}")
    with pytest.raises(PolicyDenied, match="allow-list asks for"):
        await made(guarded, egress_allowlist=("packages.example", entry))
    assert client.asked is None
    entries = [record.entry for record in guarded.records("decision") if record.entry.decision == "deny"]
    assert [(e.action, str(e.resource).partition('"')[2][:-1]) for e in entries] == [("connect", entry)]


async def test_a_wildcard_with_a_forbidden_name_below_it(tmp_path: Path) -> None:
    """A wildcard lies within a permitted domain, but one name below it is forbidden. The wildcard is refused, on
    record; one beside the forbidden name is taken, and the record of the sandbox has it.
    """
    rules = (
        f'@id("d") permit ({CONNECT}, resource in Sandbox::Domain::"mirror.example");'
        f'@id("f") forbid ({CONNECT}, resource in Sandbox::Domain::"evil.mirror.example");'
    )
    guarded, _ = guard(tmp_path, f"{REST} {rules}")
    with pytest.raises(PolicyDenied, match="not all of it"):
        await made(guarded, egress_allowlist=("*.mirror.example",))
    assert guarded.denied() == [("connect", 'Host::"*.mirror.example"')]
    state = await made(guarded, egress_allowlist=("*.good.mirror.example", "mirror.example"))
    assert state.egress_allowlist == ("*.good.mirror.example", "mirror.example")
    assert created(guarded)["egress_requested"] == ["*.good.mirror.example", "mirror.example"]


@pytest.mark.parametrize("mode", ["nic", "broker", "none"])
async def test_an_empty_list_is_never_an_open_card(tmp_path: Path, mode: str) -> None:
    """BoxLite reads a card with an empty list as open to everything. An empty list makes no card in any mode, also
    under policies that permit everything; the record says that nothing is let out.
    """
    guarded, _ = guard(tmp_path, PERMIT_ALL)
    state = await made(guarded, egress_mode=mode, egress_allowlist=())
    spec = network_spec(state.egress_mode, state.egress_allowlist)
    assert (spec.outbound.mode, list(spec.outbound.allow_net or ())) == ("disabled", [])
    assert created(guarded)["egress"] == []
    assert "leaks" not in created(guarded)


async def test_a_card_without_a_list_and_without_a_guard(tmp_path: Path) -> None:
    """A card whose list is what the policies permit, where no policies are in force: an open card if anybody guessed.
    The client refuses it, and so does a state that says so; under the guard, such a state is a denied `connect`.
    """
    bare = BoxLiteSandboxClient(home=tmp_path / "bare")
    with pytest.raises(ConfigurationError, match="no policies are in force here"):
        await bare.create(options=options(egress_mode="nic"))
    state = (await bare.create(options=options(egress_mode="nic", egress_allowlist=()))).state
    payload = {**bare.serialize_session_state(state), "egress_allowlist": None}
    with pytest.raises(ConfigurationError, match="saved sandbox state"):
        bare.deserialize_session_state(payload)
    opened = state.model_copy(update={"egress_allowlist": None})
    with pytest.raises(ConfigurationError, match="no policies are in force here"):
        network_spec(opened.egress_mode, opened.egress_allowlist)  # type: ignore[attr-defined]  # of BoxLite
    guarded, _ = guard(tmp_path, PERMIT_ALL)
    with pytest.raises(PolicyDenied, match="open to everything"):
        await guarded.client.resume(opened)
    assert guarded.denied() == [("connect", 'Host::"any"')]


async def test_a_state_edited_from_broker_to_nic(tmp_path: Path) -> None:
    """A saved state gets a card instead of the broker. As JSON the seal refuses it; as an object of the program it is
    asked about again, host by host, and denied where the policies do not permit what a card opens. Both on record.
    """
    guarded, _ = guard(tmp_path, f'{REST} @id("p") permit ({CONNECT}, {HOST}) when {{ context.port == 443 }};')
    session = await guarded.client.create(
        snapshot=NoopSnapshotSpec(), options=options(egress_allowlist=("packages.example",))
    )
    payload: dict[str, Any] = json.loads(json.dumps(guarded.client.serialize_session_state(session.state)))
    with pytest.raises(ConfigurationError, match="not the one that was saved"):
        guarded.client.deserialize_session_state({**payload, "egress_mode": "nic"})
    state = guarded.client.deserialize_session_state(payload)
    with pytest.raises(PolicyDenied):
        await guarded.client.resume(state.model_copy(update={"egress_mode": "nic"}))
    assert guarded.denied() == [("resume", ""), ("connect", 'Host::"packages.example"')]


@pytest.mark.parametrize("entry", ["*.packages.example", "8.8.8.8", "8.8.0.0/16"])
async def test_a_card_with_an_entry_that_cannot_be_held_to_the_policies(tmp_path: Path, entry: str) -> None:
    """Under policies that permit everything, a card is asked for with a wildcard, an address or a network. None can be
    asked about name by name when the policies change, so each is denied, on record.
    """
    guarded, client = guard(tmp_path, PERMIT_ALL)
    with pytest.raises(PolicyDenied):
        await made(guarded, egress_mode="nic", egress_allowlist=(entry,))
    assert client.asked is None
    assert [action for action, _ in guarded.denied()] == ["egress connect"]


def token(*hosts: str) -> EgressSecret:
    return EgressSecret(name="token", reference="env:LISTS_TOKEN", hosts=hosts)


async def test_a_secret_for_a_host_that_is_not_listed(tmp_path: Path) -> None:
    """A secret of a card is for a host that nobody listed, which BoxLite would open on port 443 for it. The options are
    refused; where the list is derived and lacks the host, the ledger has a denied `useSecret` and nothing is made.
    """
    with pytest.raises(ConfigurationError, match=r"evil\.example, a host of token, is not in egress_allowlist"):
        options(
            egress_mode="nic",
            egress_allowlist=("packages.example",),
            secrets=(token("packages.example", "evil.example"),),
            workspace_persistence="tar",
        )
    guarded, client = guard(tmp_path, f"{REST} {P} when {{ {PUBLIC} }};")
    with pytest.raises(PolicyDenied, match=r"evil\.example is not on the allow-list"):
        await made(guarded, egress_mode="nic", secrets=(token("evil.example"),), workspace_persistence="tar")
    assert client.asked is None
    assert guarded.denied() == [("useSecret", 'Secret::"token"')]


async def test_a_secret_that_no_policy_gives_to_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret of a card for a listed host, which the policies give to another host only. Denied as `useSecret`, on
    record. The permitted one is in state and records by its name and reference, its value nowhere.
    """
    monkeypatch.setenv("LISTS_TOKEN", "the-value-itself")
    rules = """@id("s") forbid (principal, action == Sandbox::Action::"useSecret", resource)
        unless { context.host == Sandbox::Host::"packages.example" && context.port == 443 };"""
    guarded, _ = guard(tmp_path, f"{PERMIT_ALL} {rules}")
    chosen: dict[str, Any] = {"egress_mode": "nic", "workspace_persistence": "tar"}
    listed = ("packages.example", "other.example")
    with pytest.raises(PolicyDenied):
        await made(guarded, egress_allowlist=listed, secrets=(token("other.example"),), **chosen)
    assert guarded.denied() == [("useSecret", 'Secret::"token"')]
    session = await guarded.client.create(
        snapshot=NoopSnapshotSpec(),
        options=options(egress_allowlist=listed, secrets=(token("packages.example"),), **chosen),
    )
    kept = json.dumps(guarded.client.serialize_session_state(session.state)) + repr(session.state)
    assert "env:LISTS_TOKEN" in kept
    assert "the-value-itself" not in kept
    assert created(guarded)["secrets"] == ["token for packages.example"]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"the-value-itself" in path.read_bytes() for path in written)
