"""Attacks on the connections of a guest: going on without leave, or around the question."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.unit.bundles import PERMIT_ALL
from tests.unit.carried import Carried, address, connect_to

from cedarbox.audit import Entry, Record, verify_ledger
from cedarbox.egress import Connect, HttpRequest
from cedarbox.errors import LedgerError, PolicyDenied
from cedarbox.guard.change import change_policies
from cedarbox.policy import PolicyBundle, PolicyEngine
from cedarbox.policy.canonical import Host


def without(host: str) -> str:
    return (
        f'{PERMIT_ALL} @id("no") @reason("withdrawn") @advice("ask the desk") forbid (principal, '
        f'action == Sandbox::Action::"connect", resource == Sandbox::Host::"{host}");'
    )


async def test_a_connection_that_goes_on_after_it_was_withdrawn(tmp_path: Path) -> None:
    """A program of the guest keeps a connection open that the policies deny by then.

    It is cut before the reload returns, and told why; ``egress.revoked`` names the policy, ``egress.closed`` says
    ``revoked``. A connection to another host lives on.
    """
    site = Carried(tmp_path)
    async with site.session() as session:
        cut = await site.guest(session, connect_to("a.example"))
        kept = await site.guest(session, connect_to("b.example"))
        assert (await cut.told(), await kept.told()) == ("open", "open")
        site.guarded.rewrite(without("a.example"))
        change = await site.guarded.client.reload()
        said = await cut.told()
        assert "withdrawn. ask the desk" in said
        assert await cut.told() == ""
        assert not kept.task.done()
        await kept.close()
    assert [(made.event, made.resource, made.policies, made.ended) for made in change.cuts] == [
        ("egress.revoked", 'Host::"a.example"', ("no",), True)
    ]
    (revoked,) = [record.entry for record in site.guarded.records("egress.revoked")]
    assert (revoked.action, revoked.decision, revoked.policies, revoked.outcome) == ("connect", "deny", ("no",), "ok")
    assert (revoked.session, revoked.bundle) == (str(session.state.session_id), change.after)
    closed = {record.entry.resource: record.entry for record in site.guarded.records("egress.closed")}
    assert {resource: entry.outcome for resource, entry in closed.items()} == {
        'Host::"a.example"': "revoked",
        'Host::"b.example"': "ok",
    }
    assert site.guarded.client.gate.holds.all() == []
    site.guarded.client.close()
    assert verify_ledger(tmp_path / "ledger").ok


async def test_one_request_of_a_kept_connection_that_is_withdrawn(tmp_path: Path) -> None:
    """Requests of one method are withdrawn while one is on its way: it is cut, and another that is permitted is not."""
    site = Carried(tmp_path)
    get, post = HttpRequest("GET", "/a"), HttpRequest("POST", "/a")
    async with site.session() as session:
        posting = await site.guest(session, connect_to("a.example", port=80, proto="http", request=post))
        getting = await site.guest(session, connect_to("a.example", port=80, proto="http", request=get))
        assert (await posting.told(), await getting.told()) == ("open", "open")
        site.guarded.rewrite(
            f'{PERMIT_ALL} @id("read") forbid (principal, action == Sandbox::Action::"connect", resource) '
            'when { context has http && context.http.method != "GET" };'
        )
        change = await site.guarded.client.reload()
        assert "read" in await posting.told()
        assert not getting.task.done()
        await getting.close()
    assert [made.policies for made in change.cuts] == [("read",)]
    summaries = [str(r.entry.attrs["summary"]) for r in site.guarded.records("decision") if r.entry.action == "connect"]
    assert summaries == ["port 80 http to 10.0.0.5 POST /a", "port 80 http to 10.0.0.5 GET /a"]


async def test_a_connection_whose_decision_is_being_recorded_when_the_policies_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change comes after Cedar said Allow and before the record is on disk: it is decided again, and not opened.

    The ledger has the allow under the old bundle, the denial under the new one, and no ``egress.opened``.
    """
    site = Carried(tmp_path)
    gate = site.guarded.client.gate
    record = gate.ledger.record

    async def slow(entry: Entry) -> Record:
        written = await record(entry)
        if (entry.action, entry.decision) == ("connect", "allow"):
            # Swapped without asking again what goes on, so that only the gate itself can notice.
            gate.engine = PolicyEngine(PolicyBundle.load(tmp_path / "bundle"))
        return written

    async with site.session() as session:
        site.guarded.rewrite(without("a.example"))
        monkeypatch.setattr(gate.ledger, "record", slow)
        guest = await site.guest(session, connect_to("a.example"))
        assert "withdrawn" in await guest.told()
        assert await guest.told() == ""
        monkeypatch.undo()
    decided = [r.entry for r in site.guarded.records("decision") if r.entry.action == "connect"]
    assert [entry.decision for entry in decided] == ["allow", "deny"]
    assert decided[0].bundle != decided[1].bundle
    assert site.guarded.records("egress.opened") == []


async def test_a_hundred_connections_during_a_reload(tmp_path: Path) -> None:
    """Connections in every phase of being decided and opened meet a change that denies them: none is left."""
    site = Carried(tmp_path)
    async with site.session() as session:
        guests = [await site.guest(session, connect_to(f"h{number}.a.example")) for number in range(100)]
        assert await guests[10].told() == "open"
        site.guarded.rewrite(without("a.example").replace('== Sandbox::Host::"a', 'in Sandbox::Domain::"a'))
        await site.guarded.client.reload()
        await asyncio.wait_for(asyncio.gather(*(guest.task for guest in guests)), 60)
    decided = [record for record in site.guarded.records("decision") if record.entry.action == "connect"]
    allowed = {record.seq: record.entry.resource for record in decided if record.entry.decision == "allow"}
    closed = [record.entry for record in site.guarded.records("egress.closed")]
    assert {entry.outcome for entry in closed} == {"revoked"}
    ended = Counter(entry.resource for entry in closed)
    # The change also comes while an allow is being written: it is decided again, or on record as never begun.
    ended.update(record.entry.resource for record in decided if record.entry.decision == "deny")
    ended.update(r.entry.resource for r in site.guarded.records("outcome") if r.entry.attrs.get("begun") is False)
    assert all(ended[resource] == 1 for resource in allowed.values())
    assert len(ended) == 100
    opened = Counter(record.entry.resource for record in site.guarded.records("egress.opened"))
    assert not opened - Counter(entry.resource for entry in closed)
    assert site.guarded.client.gate.holds.all() == []


async def test_data_carried_out_in_names_that_are_looked_up(tmp_path: Path) -> None:
    """A program asks for names that no policy permits, each of which would tell a name server a secret.

    None is looked up; each is on record as a denial, with the forbid that always holds, or with none.
    """
    permit = 'permit (principal, action == Sandbox::Action::"connect", resource == Sandbox::Host::"mirror.example");'
    forbid = (
        '@id("never") @reason("not ours") forbid (principal, action == Sandbox::Action::"connect", resource in '
        'Sandbox::Domain::"evil.example");'
    )
    others = 'permit (principal, action in [Sandbox::Action::"create", Sandbox::Action::"connectAnywhere"], resource);'
    site = Carried(tmp_path, permit + forbid + others)
    async with site.session() as session:
        for name in ("c2VjcmV0.evil.example", "secret.example", "sub.mirror.example"):
            guest = await site.guest(session, connect_to(name))
            assert "denied by policy" in await guest.told()
        fine = await site.guest(session, connect_to("mirror.example"))
        assert await fine.told() == "open"
        await fine.close()
    assert site.looked_up == ["mirror.example"]
    denied = [r.entry for r in site.guarded.records("decision") if r.entry.decision == "deny"]
    assert [(entry.action, entry.resource, entry.policies, entry.attrs["reason"]) for entry in denied] == [
        ("connect", 'Host::"c2vjcmv0.evil.example"', ("never",), "not ours"),
        ("connect", 'Host::"secret.example"', (), "no policy permits any connection to it"),
        ("connect", 'Host::"sub.mirror.example"', (), "no policy permits any connection to it"),
    ]


async def test_a_connection_that_goes_on_after_its_sandbox_was_withdrawn(tmp_path: Path) -> None:
    """The sandbox itself is denied while its guest has a connection open, which the policies still permit.

    It is cut with the sandbox, no other is opened, nothing is looked up; ``sandbox.revoked`` and the denial are on
    record.
    """
    site = Carried(tmp_path)
    async with site.session() as session:
        guest = await site.guest(session, connect_to("a.example"))
        assert await guest.told() == "open"
        site.guarded.rewrite(
            f'{PERMIT_ALL} @id("no") forbid (principal, action == Sandbox::Action::"create", resource);'
        )
        await site.guarded.client.reload()
        assert await guest.told() == ""
        later = await site.guest(session, connect_to("b.example"))
        assert await later.told() == ""
        admission = site.admission(session)
        with pytest.raises(PolicyDenied, match="ended"):
            await admission.name(Host("b.example"), 443)
        assert admission.foreseen(Host("b.example"), 443, address("10.0.0.5")) == frozenset()
    assert site.looked_up == ["a.example"]
    assert len(site.guarded.records("sandbox.revoked")) >= 1
    assert ("deny", "connect", 'Host::"b.example"') not in site.guarded.decisions()
    assert any(decision == "deny" and action == "connect" for decision, action, _ in site.guarded.decisions())
    (closed,) = [record.entry for record in site.guarded.records("egress.closed")]
    assert closed.outcome == "cancelled"


async def test_a_connection_that_outlives_its_session(tmp_path: Path) -> None:
    """A session is shut down while its guest has a connection open, and something carries one more afterwards.

    The one is over before the shutdown is on record, the other is closed unread, and what asks all the same is denied
    on the record.
    """
    site = Carried(tmp_path)
    async with site.session() as session:
        guest = await site.guest(session, connect_to("a.example"))
        assert await guest.told() == "open"
        await session.shutdown()
        assert await guest.told() == ""
        later = await site.guest(session, connect_to("b.example"))
        assert await later.told() == ""
        admission = site.admission(session)
        with pytest.raises(PolicyDenied, match="the sandbox has ended"):
            async with admission.connection(connect_to("b.example")):
                pytest.fail("it was opened")
        assert admission.foreseen(Host("b.example"), 443, address("10.0.0.5")) == frozenset()
    records = site.guarded.records()
    events = [record.entry.event if record.entry.event != "outcome" else record.entry.action for record in records]
    assert events.index("egress.closed") < events.index("sandbox shutdown")
    assert site.guarded.denied() == [("connect", 'Host::"b.example"')]


@pytest.mark.parametrize("first", ["its own limit", "the end of the sandbox"])
async def test_a_connection_that_outlives_the_lifetime_of_its_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """A guest holds a connection open for longer than the sandbox may live: it is cut, and the denial is on record.

    Two things cut it, in no order that could be relied on: its own limit, and the end of the sandbox.
    """
    if first == "the end of the sandbox":
        limit = asyncio.timeout
        monkeypatch.setattr(asyncio, "timeout", lambda seconds: limit(seconds + 60))
    site = Carried(tmp_path)
    site.guarded.client.lifetime_s = 5
    async with site.session() as session:
        guest = await site.guest(session, connect_to("a.example"))
        assert await guest.told() == "open"
        told = [await guest.told(), await guest.told()]
        assert told[-1] == ""
        with pytest.raises(PolicyDenied, match="lifetime"):
            await site.admission(session).name(Host("a.example"), 443)
    (closed,) = [record.entry for record in site.guarded.records("egress.closed")]
    assert closed.outcome == "cancelled"
    assert {action for action, _ in site.guarded.denied()} == {"egress connect", "connect"}


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (Connect(address("10.0.0.5"), 443, address("169.254.169.254"), "tcp"), "would be dialled"),
        (Connect(Host("a.example"), 443, address("10.0.0.5"), "tls"), "tls with the hello None"),
        (Connect(Host("a.example"), 443, address("10.0.0.5"), "tls", "unnamed"), "tls with the hello unnamed"),
        (Connect(Host("a.example"), 443, address("10.0.0.5"), "tcp", "named"), "tcp with the hello named"),
        (Connect(Host("a.example"), 80, address("10.0.0.5"), "http"), "request by request"),
        (Connect(Host("a.example"), 80, address("10.0.0.5"), "tcp", None, HttpRequest("GET", "/")), "request by"),
        (Connect(Host("a.example"), 80, address("10.0.0.5"), "http", None, HttpRequest("GET", "/a/../b")), "dots"),
        (Connect(Host("a.example"), 80, address("10.0.0.5"), "http", None, HttpRequest("get", "/")), "upper case"),
    ],
)
async def test_a_connection_that_is_not_what_is_asked_about(tmp_path: Path, wanted: Connect, why: str) -> None:
    """What carries the connections asks about one thing and would do another, or about what no policy can see.

    Policies that permit everything do not help: it is denied, with the reason on record.
    """
    site = Carried(tmp_path)
    async with site.session() as session:
        with pytest.raises(PolicyDenied, match=why):
            async with site.admission(session).connection(wanted):
                pytest.fail("it was opened")
    (denied,) = [r.entry for r in site.guarded.records("decision") if r.entry.decision == "deny"]
    assert why in str(denied.attrs["reason"])


async def test_a_ledger_that_takes_no_record_of_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger fails between the decision and the opening, or before: nothing is carried that is not on record."""
    site = Carried(tmp_path)
    async with site.session() as session:
        gate = site.guarded.client.gate

        def full(entry: Entry) -> None:
            raise LedgerError("the disk is full")

        async def unrecorded(entry: Entry) -> Record:
            raise LedgerError("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(gate.ledger, "note", full)
            guest = await site.guest(session, connect_to("a.example"))
            assert await guest.told() == ""
            with pytest.raises(LedgerError, match="full"):
                await guest.task
        with monkeypatch.context() as patched:
            patched.setattr(gate.ledger, "record", unrecorded)
            refused = await site.guest(session, connect_to("b.example"))
            assert "cannot be recorded" in await refused.told()
    assert site.guarded.records("egress.opened") == []


async def test_a_bundle_that_expired_permits_no_look_up(tmp_path: Path) -> None:
    """The bundle expires while the sandbox runs: no name is looked up, and no connection is opened; both on record."""
    site = Carried(tmp_path)
    async with site.session() as session:
        gate = site.guarded.client.gate
        bundle = gate.engine.bundle
        expired = replace(bundle, expires=gate.base().at - timedelta(seconds=1))
        before = gate.engine
        gate.engine = PolicyEngine(expired)
        admission = site.admission(session)
        assert admission.foreseen(Host("a.example"), 443, address("10.0.0.5")) == frozenset()
        with pytest.raises(PolicyDenied, match="expired"):
            await admission.name(Host("a.example"), 443)
        with pytest.raises(PolicyDenied, match="expired"):
            async with admission.connection(connect_to("a.example")):
                pytest.fail("it was opened")
        await asyncio.to_thread(change_policies, gate, before)
    assert site.guarded.denied() == [("connect", 'Host::"a.example"')] * 2
