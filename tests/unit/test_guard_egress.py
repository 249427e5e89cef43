"""The guard's answers for connections: what is foreseen, what is recorded and shown, what shadow mode lets by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox.manifest import Manifest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import NoopSnapshotSpec
from tests.unit.bundles import PERMIT_ALL
from tests.unit.carried import Carried, address, connect_to
from tests.unit.guarded import Guarded

from cedarbox.egress import CONNECTED, Admission, HttpRequest
from cedarbox.errors import ConfigurationError, PolicyDenied
from cedarbox.guard.egress import Serve
from cedarbox.guard.identity import Caller, current_caller, within
from cedarbox.guard.session import GuardedSession
from cedarbox.policy.canonical import Host, canonical_host

SANDBOX = (
    '@id("sandbox") permit (principal, action in [Sandbox::Action::"create", Sandbox::Action::"connectAnywhere"],'
    " resource);"
)


def connecting(when: str, policy_id: str = "rule", effect: str = "permit") -> str:
    return (
        f'@id("{policy_id}") @reason("because") @advice("ask") '
        f'{effect} (principal, action == Sandbox::Action::"connect", resource) when {{ {when} }};'
    )


def spans(directory: Path, name: str) -> Iterator[dict[str, Any]]:
    for path in sorted((directory / "spans").glob("spans-*.jsonl")):
        for line in path.read_text().splitlines():
            (span,) = json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
            if span["name"] == name:
                yield {each["key"]: next(iter(each["value"].values())) for each in span["attributes"]}


async def test_an_admitted_connection_leaves_a_decision_an_opening_and_an_end(tmp_path: Path) -> None:
    site = Carried(tmp_path)
    wanted = connect_to("a.example", ip="10.0.0.7")
    async with site.session() as session, site.admission(session).connection(wanted) as outcome:
        assert [r.entry.decision for r in site.guarded.records("decision")][-1] == "allow"
        assert site.guarded.records("egress.opened") == []
        outcome.set(CONNECTED, 12)
        outcome.set(CONNECTED, 13)
        outcome.set("bytes_in", 5)
        outcome.set("reason", "closed by the guest")
    decision = next(r for r in site.guarded.records("decision") if r.entry.action == "connect")
    (opened,) = site.guarded.records("egress.opened")
    (closed,) = site.guarded.records("egress.closed")
    assert decision.seq < opened.seq < closed.seq
    known = {"decision_seq": decision.seq, "address": "10.0.0.7", "port": 443}
    assert opened.entry.attrs == {**known, CONNECTED: 12}
    milliseconds = closed.entry.attrs["milliseconds"]
    assert isinstance(milliseconds, int)
    told = {"bytes_in": 5, "reason": "closed by the guest", "milliseconds": milliseconds, CONNECTED: 13}
    assert closed.entry.attrs == {**known, **told}
    for entry in (opened.entry, closed.entry):
        assert (entry.action, entry.resource, entry.policies) == ("connect", 'Host::"a.example"', ("all",))
        assert (entry.session, entry.span_id) == (str(session.state.session_id), decision.entry.span_id)
    assert closed.entry.outcome == "ok"
    assert [r for r in site.guarded.records("outcome") if r.entry.action == "connect"] == []


async def test_an_error_in_a_connection_is_in_its_record(tmp_path: Path) -> None:
    site = Carried(tmp_path)
    async with site.session() as session:
        with pytest.raises(ConnectionResetError):
            async with site.admission(session).connection(connect_to("a.example")):
                raise ConnectionResetError
    (closed,) = site.guarded.records("egress.closed")
    assert (closed.entry.outcome, closed.entry.attrs["error.type"]) == ("error", "ConnectionResetError")
    assert site.guarded.records("egress.opened") == []


async def test_the_span_says_where_it_went(tmp_path: Path) -> None:
    site = Carried(tmp_path, SANDBOX + connecting("context.port == 443"))
    async with site.session() as session:
        admission = site.admission(session)
        async with admission.connection(connect_to("a.example", ip="10.0.0.7")):
            pass
        with pytest.raises(PolicyDenied):
            async with admission.connection(connect_to("a.example", ip="10.0.0.7", port=22, proto="tcp")):
                pytest.fail("it was opened")
    site.guarded.client.close()
    opened, denied = spans(tmp_path, "egress connect")
    for span in (opened, denied):
        assert (span["server.address"], span["network.peer.address"]) == ("a.example", "10.0.0.7")
        assert span["sandbox.session.id"] == str(session.state.session_id)
    assert (int(opened["server.port"]), opened["cedarbox.policy.decision"]) == (443, "allow")
    assert (int(denied["server.port"]), denied["cedarbox.policy.decision"]) == (22, "deny")
    assert denied["error.type"] == "policy_denied"


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        (PERMIT_ALL, {"tls", "tcp", "http"}),
        (connecting('context.proto == Sandbox::Proto::"tls"'), {"tls"}),
        (connecting('context has hello && context.hello == Sandbox::Hello::"named"'), {"tls"}),
        (connecting('context has hello && context.hello == Sandbox::Hello::"unnamed"'), {"tcp"}),
        (connecting('context has hello && context.hello == Sandbox::Hello::"encrypted"'), {"tcp"}),
        (connecting('context.proto == Sandbox::Proto::"tcp" && !(context has hello)'), {"tcp"}),
        (connecting('context has http && context.http.path like "/debian/*"'), {"http"}),
        (connecting("context has http && context.http has upgrade"), {"http"}),
        (connecting("context.port == 80"), set()),
        (connecting('context.ipClass == Sandbox::IpClass::"public"'), set()),
        (connecting('context has ip && context.ip.isInRange(ip("10.0.0.0/8"))'), {"tls", "tcp", "http"}),
        (connecting("context.port == 443 && !(context has http)"), {"tls", "tcp"}),
        # Of plain HTTP more is foreseen than is permitted: see cedarbox.policy.foresight.opened.
        (connecting('context has ip && context.ip.isInRange(ip("192.168.0.0/16"))'), {"http"}),
        (PERMIT_ALL + connecting('context.ipClass == Sandbox::IpClass::"private"', effect="forbid"), set()),
        ("", set()),
    ],
)
async def test_what_is_foreseen(tmp_path: Path, policies: str, expected: set[str]) -> None:
    site = Carried(tmp_path, (policies if "all" in policies else SANDBOX + policies))
    async with site.session() as session:
        before = len(site.guarded.records())
        seen = site.admission(session).foreseen(Host("a.example"), 443, address("10.0.0.7"))
        assert len(site.guarded.records()) == before
    assert seen == expected


async def test_a_name_that_may_be_looked_up_is_not_on_record(tmp_path: Path) -> None:
    site = Carried(tmp_path)
    async with site.session() as session:
        before = len(site.guarded.records())
        await site.admission(session).name(Host("a.example"), 443)
        assert len(site.guarded.records()) == before


async def test_a_denial_of_an_address_names_the_forbid_and_its_advice(tmp_path: Path) -> None:
    rules = connecting('context.ipClass == Sandbox::IpClass::"metadata"', "never", "forbid")
    site = Carried(tmp_path, SANDBOX + rules)
    async with site.session() as session:
        with pytest.raises(PolicyDenied, match=r"because\. ask") as caught:
            await site.admission(session).name(canonical_host("169.254.169.254"), 80)
    assert caught.value.policies == ("never",)
    (denied,) = [r for r in site.guarded.records("decision") if r.entry.decision == "deny"]
    assert (denied.seq, denied.entry.policies) == (caught.value.seq, ("never",))


async def test_what_no_policy_can_permit_is_recorded_as_it_came(tmp_path: Path) -> None:
    site = Carried(tmp_path)
    hostile = 'a.example\r\nHost: b" \udcff' + "x" * 5000
    async with site.session() as session:
        denial = await site.admission(session).refuse(hostile, "the request has no host")
    assert (denial.action, denial.reason, denial.policies) == ("connect", "the request has no host", ())
    (denied,) = [r for r in site.guarded.records("decision") if r.entry.decision == "deny"]
    assert (denied.seq, denied.entry.action, denied.entry.session) == (
        denial.seq,
        "connect",
        str(session.state.session_id),
    )
    assert str(denied.entry.resource).startswith('a.example\r\nHost: b" \\udcff')
    assert len(str(denied.entry.resource)) < 4300


async def test_a_secret_is_decided_for_the_host_and_port_it_goes_to(tmp_path: Path) -> None:
    rule = (
        '@id("login") permit (principal, action == Sandbox::Action::"useSecret", resource == Sandbox::Secret::"token") '
        'when { context.host == Sandbox::Host::"a.example" && context.port == 80 };'
    )
    site = Carried(tmp_path, SANDBOX + rule)
    async with site.session() as session:
        admission = site.admission(session)
        await admission.secret("token", Host("a.example"), 80)
        for name, host, port in (("token", "a.example", 443), ("token", "b.example", 80), ("other", "a.example", 80)):
            with pytest.raises(PolicyDenied):
                await admission.secret(name, Host(host), port)
    decided = [r.entry for r in site.guarded.records("decision") if r.entry.action == "useSecret"]
    assert [(entry.decision, entry.resource) for entry in decided] == [
        ("allow", 'Secret::"token"'),
        ("deny", 'Secret::"token"'),
        ("deny", 'Secret::"token"'),
        ("deny", 'Secret::"other"'),
    ]


async def test_a_secret_in_a_path_is_not_on_record(tmp_path: Path) -> None:
    site = Carried(tmp_path)
    request = HttpRequest("GET", "/a/token=hunter2hunter2/b")
    wanted = connect_to("a.example", port=80, proto="http", request=request)
    async with site.session() as session, site.admission(session).connection(wanted):
        pass
    (decision,) = [r.entry for r in site.guarded.records("decision") if r.entry.action == "connect"]
    assert "hunter2" not in str(decision.attrs)
    assert "GET /a/" in str(decision.attrs["summary"])


async def test_shadow_mode_records_denials_and_carries_all_the_same(tmp_path: Path) -> None:
    site = Carried(tmp_path, "// nothing\n", mode="shadow")
    async with site.session() as session:
        admission = site.admission(session)
        assert admission.foreseen(Host("a.example"), 443, address("10.0.0.7")) == {"tls", "tcp", "http"}
        guest = await site.guest(session, connect_to("a.example"))
        assert await guest.told() == "open"
        await guest.close()
        await admission.secret("token", Host("a.example"), 80)
        assert "no host" in str(await admission.refuse("", "no host"))
    assert site.looked_up == ["a.example"]
    denied = [(action, resource) for action, resource in site.guarded.denied() if action in {"connect", "useSecret"}]
    assert denied == [
        ("connect", 'Host::"a.example"'),
        ("connect", 'Host::"a.example"'),
        ("useSecret", 'Secret::"token"'),
        ("connect", ""),
    ]
    (closed,) = site.guarded.records("egress.closed")
    assert closed.entry.outcome == "ok"


async def test_a_connection_is_not_attributed_to_the_tool_call_that_started_the_sandbox(tmp_path: Path) -> None:
    site = Carried(tmp_path)
    async with site.session() as session:
        with within(caller=Caller("coder", "exec_command", "call_1")):
            guest = await site.guest(session, connect_to("a.example"))
            assert current_caller().tool == "exec_command"
        assert await guest.told() == "open"
        await guest.close()
    (decision,) = [r.entry for r in site.guarded.records("decision") if r.entry.action == "connect"]
    assert (decision.tool, decision.call_id) == (None, None)


async def test_without_a_carrier_nothing_is_carried(tmp_path: Path) -> None:
    site = Carried(tmp_path)
    site.guarded.client.carrier = None
    async with site.session() as session:
        assert session._inner.serve is None  # type: ignore[attr-defined]  # see Carried
        assert session._carriage is None


async def test_a_backend_that_hands_nothing_over_gets_no_carrier(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)

    def carrier(admission: Admission, state: SandboxSessionState) -> Serve:
        pytest.fail("nobody could use it")

    guarded.client.carrier = carrier
    session = await guarded.client.create(snapshot=NoopSnapshotSpec(), manifest=Manifest(), options=None)
    assert not hasattr(session._inner, "serve")
    await guarded.client.delete(session)


async def test_a_sandbox_whose_carrier_cannot_be_made_is_deleted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Carried(tmp_path)
    deleted: list[SandboxSession] = []
    inner = site.guarded.client.inner
    assert isinstance(inner, UnixLocalSandboxClient)
    delete = inner.delete

    async def noticed(session: SandboxSession) -> SandboxSession:
        deleted.append(session)
        return await delete(session)

    def carrier(admission: Admission, state: SandboxSessionState) -> Serve:
        raise ConfigurationError("the secret cannot be read")

    monkeypatch.setattr(inner, "delete", noticed)
    site.guarded.client.carrier = carrier
    with pytest.raises(ConfigurationError, match="secret"):
        async with site.session():
            pytest.fail("it was made")
    assert len(deleted) == 1
    assert site.guarded.records("sandbox.created") == []


async def test_a_session_that_is_started_again_carries_again(tmp_path: Path) -> None:
    site = Carried(tmp_path)
    async with site.session() as session:
        assert isinstance(session, GuardedSession)
        await session.shutdown()
        closed = await site.guest(session, connect_to("a.example"))
        assert await closed.told() == ""
        site._wanted.clear()
        await session.start()
        again = await site.guest(session, connect_to("a.example"))
        assert await again.told() == "open"
        await again.close()
