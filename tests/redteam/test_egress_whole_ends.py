"""Attacks on what was permitted, through everything but the microVM: secrets, records, withdrawal, load, the relay."""

from __future__ import annotations

import asyncio
import os
import resource
import ssl
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.asking import GRANTED, connect_to, get
from tests.unit.brokering import MIRROR, OTHER, certificate, raw_server, talk
from tests.unit.relaying import GREETING, Pipe, data, real_relay, started, text, until
from tests.unit.whole import POLICIES, Names, Whole, boxlite_state

from cedarbox.audit import Entry, Record, verify_ledger
from cedarbox.boxlite import EgressSecret
from cedarbox.egress import relay as protocol
from cedarbox.egress.channel import Channel
from cedarbox.egress.frames import ChannelError
from cedarbox.errors import LedgerError

VALUE = "c3VwZXItc2VjcmV0LXZhbHVl"
PLACEHOLDER = "Authorization: Bearer <CEDARBOX_SECRET:token>\r\n"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names.known(monkeypatch)


@pytest.fixture
def files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def kept(directory: Path) -> str:
    path = directory / "token"
    path.touch(mode=0o600)
    path.write_text(f"{VALUE}\n")
    return f"file:{path}"


async def echo_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: bytearray) -> None:
    got += await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nX-Echo: " + VALUE.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(got))
    # In pieces, so that the value comes in two.
    half = got.find(VALUE.encode()) + 7
    writer.write(bytes(got[:half]))
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.write(bytes(got[half:]))
    await writer.drain()


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: bytearray) -> None:
    while chunk := await reader.read(4096):
        got += chunk
    got += b"|over"


async def test_a_secret_that_the_guest_would_see(tmp_path: Path, names: Names) -> None:
    """A guest uses a secret by its placeholder, and the server sends it back, in a header and cut in two in the body.

    The server gets the value and the guest asterisks; ``useSecret`` is on record, and the value is in no file that
    cedarbox wrote: ledger, spans, state.
    """
    (tmp_path / "host").mkdir()
    egress = {"secrets": {"token": {"reference": kept(tmp_path / "host")}}}
    whole = Whole(tmp_path / "ours", egress=egress)
    async with raw_server(echo_request) as server, whole.session() as session:
        async with real_relay(whole.serve(session)) as relay:
            answer = await talk(relay.port, get(server.port, "/", PLACEHOLDER))
        (tmp_path / "ours" / "state.json").write_text(session.state.model_dump_json())
    assert f"Bearer {VALUE}".encode() in server.all
    assert b"CEDARBOX_SECRET" not in server.all
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert VALUE.encode() not in answer
    assert answer.count(b"*" * len(VALUE)) == 2
    used = [entry for entry in whole.entries("decision") if entry.action == "useSecret"]
    assert [(entry.decision, entry.resource, entry.policies) for entry in used] == [
        ("allow", 'Secret::"token"', ("token",))
    ]
    whole.guarded.client.close()
    written = {path: path.read_bytes() for path in (tmp_path / "ours").rglob("*") if path.is_file()}
    assert len(written) > 4
    assert [path for path, content in written.items() if VALUE.encode() in content] == []


async def test_a_secret_for_another_host(tmp_path: Path, names: Names) -> None:
    """A guest sends a placeholder to a host that the policies permit and the secret is not for; or an unknown one.

    Denied with 403 before anything is dialled; the denial of ``useSecret``, or the reason, is on record.
    """
    wide = POLICIES + (
        f'@id("other") permit (principal, action == Sandbox::Action::"connect", resource == Sandbox::Host::"{OTHER}");'
    )
    whole = Whole(tmp_path / "ours", wide, egress={"secrets": {"token": {"reference": kept(tmp_path)}}})
    async with raw_server() as server, whole.relay() as relay:
        assert (await talk(relay.port, get(server.port, "/", PLACEHOLDER, host=OTHER))).startswith(b"HTTP/1.1 403 ")
        unknown = PLACEHOLDER.replace("token", "elsewhere")
        assert (await talk(relay.port, get(server.port, "/", unknown))).startswith(b"HTTP/1.1 403 ")
    assert server.received == []
    used = [entry for entry in whole.entries("decision") if entry.action == "useSecret"]
    assert [(entry.decision, entry.resource) for entry in used] == [
        ("deny", 'Secret::"token"'),
        ("allow", 'Secret::"elsewhere"'),
    ]
    assert whole.denied() == [(f"{MIRROR}:{server.port}", (), "there is no secret elsewhere")]


async def test_a_secret_beyond_the_hosts_of_its_sandbox(tmp_path: Path, names: Names) -> None:
    """The policies permit a secret for a host, and the options of the sandbox name another host for it.

    The narrower of the two holds: refused on record and nothing is dialled, while the host that both permit gets it.
    """
    wide = POLICIES + (
        f'@id("other") permit (principal, action == Sandbox::Action::"connect", resource == Sandbox::Host::"{OTHER}");'
        '@id("any") permit (principal, action == Sandbox::Action::"useSecret", resource);'
    )
    secret = EgressSecret(name="token", reference=kept(tmp_path), hosts=(MIRROR,))
    whole = Whole(tmp_path / "ours", wide, state=boxlite_state(secrets=(secret,)))
    async with raw_server() as server, whole.relay() as relay:
        assert (await talk(relay.port, get(server.port, "/", PLACEHOLDER, host=OTHER))).startswith(b"HTTP/1.1 403 ")
        assert server.received == []
        assert (await talk(relay.port, get(server.port, "/", PLACEHOLDER))).startswith(b"HTTP/1.1 200 ")
    assert server.all.count(VALUE.encode()) == 1
    assert whole.denied() == [(f"{OTHER}:{server.port}", (), "the secret token is not for this host")]


async def test_a_connection_that_the_ledger_cannot_record(
    tmp_path: Path, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk of the ledger is full while a guest opens tunnels and sends requests: the server sees no connection.

    It is not told where the ledger is. Once the ledger works again, it is served; nothing else is on record.
    """
    whole = Whole(tmp_path)
    ledger = whole.guarded.client.gate.ledger

    async def full(_entry: Entry) -> Record:
        raise LedgerError(f"{tmp_path}/ledger: no space left on the device")

    async with raw_server() as server, whole.relay() as relay:
        inside = f"GET /a HTTP/1.1\r\nHost: {MIRROR}:{server.port}\r\n\r\n".encode()
        with monkeypatch.context() as patched:
            patched.setattr(ledger, "record", full)
            answers = [
                await talk(relay.port, get(server.port, "/a")),
                await talk(relay.port, connect_to(f"{MIRROR}:{server.port}"), inside),
                await talk(relay.port, connect_to("evil.example:443")),
            ]
        assert all(b"nothing can be recorded" in answer and b" 200 OK" not in answer for answer in answers)
        assert not any(str(tmp_path).encode() in answer for answer in answers)
        assert server.received == []
        assert whole.entries("decision") == []
        assert (await talk(relay.port, get(server.port, "/b"))).startswith(b"HTTP/1.1 200 ")
    assert whole.allowed() == [f"port {server.port} http to 127.0.0.1 GET /b"]


async def test_streams_that_go_on_after_they_were_withdrawn(tmp_path: Path, names: Names) -> None:
    """TLS in a tunnel and a request without an answer are open when new policies deny their host.

    Both are cut before the reload returns, on both sides; ``egress.revoked`` names the policy for each.
    """
    whole = Whole(tmp_path)
    context, trust = certificate(tmp_path, MIRROR)
    async with raw_server(hang, tls=context) as secure, raw_server(hang) as plain, whole.relay() as relay:
        reader, writer = await relay.connect()
        writer.write(connect_to(f"{MIRROR}:{secure.port}"))
        assert await reader.readexactly(len(GRANTED)) == GRANTED
        await writer.start_tls(ssl.create_default_context(cafile=str(trust)), server_hostname=MIRROR)
        writer.write(b"in the tunnel")
        waiting = asyncio.create_task(talk(relay.port, get(plain.port, "/slow"), end=False))
        await until(lambda: secure.all == b"in the tunnel" and b"/slow" in plain.all)
        closed = '@id("closed") forbid (principal, action == Sandbox::Action::"connect", resource);'
        whole.guarded.rewrite(POLICIES + closed)
        change = await whole.guarded.client.reload()
        assert [(cut.event, cut.policies, cut.ended) for cut in change.cuts] == [
            ("egress.revoked", ("closed",), True)
        ] * 2
        with pytest.raises((ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        assert (await waiting).startswith(b"HTTP/1.1 403 ")
        await until(lambda: b"|over" in plain.all)
        assert (await talk(relay.port, get(plain.port))).startswith(b"HTTP/1.1 403 ")
    assert [entry.policies for entry in whole.entries("egress.revoked")] == [("closed",)] * 2
    assert {entry.outcome for entry in whole.entries("egress.closed")} == {"revoked"}
    assert whole.guarded.client.gate.holds.all() == []


async def test_a_thousand_connections_at_a_time(tmp_path: Path, names: Names, files: None) -> None:
    """A guest opens a thousand connections to one server, which answers none before all have come.

    Each is decided, answered and closed on record, and afterwards no task and no file of theirs is left.
    """
    count = 1000
    everybody = asyncio.Event()
    # A busy machine may take longer over a thousand at once than one connection may wait; that is not the subject here.
    whole = Whole(tmp_path, egress={"limits": {"first_byte_s": 240, "dial_s": 240, "resolve_s": 240}})

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: bytearray) -> None:
        got += await reader.readuntil(b"\r\n\r\n")
        if len(server.received) == count and all(server.received):
            everybody.set()
        await everybody.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    async def one(number: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(get(server.port, f"/{number}"))
        said = await reader.readuntil(b"\r\n\r\nok")
        writer.close()
        await writer.wait_closed()
        return said

    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async with raw_server(answer) as server, whole.relay() as relay:
        # The first one makes what stays: the resolver's threads.
        everybody.set()
        assert (await one(0)).endswith(b"ok")
        everybody.clear()
        server.received.clear()
        await until(lambda: len(whole.entries("egress.closed")) == 1)
        before, tasks = opened(), len(asyncio.all_tasks())
        answers = await asyncio.gather(*(one(number) for number in range(1, count + 1)))
        assert all(said.endswith(b"ok") for said in answers)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        await until(lambda: opened() <= before)
    paths = Counter(summary.rpartition("/")[2] for summary in whole.allowed())
    assert paths == Counter(str(number) for number in range(count + 1))
    assert whole.denied() == []
    decided = {record.seq for record in whole.guarded.records("decision") if record.entry.action == "connect"}
    closed = whole.entries("egress.closed")
    assert {entry.attrs["decision_seq"] for entry in closed} == decided
    assert len(closed) == count + 1
    assert {(entry.outcome, entry.attrs["reason"]) for entry in closed} == {("ok", "answered")}
    assert whole.guarded.client.gate.holds.all() == []
    whole.guarded.client.close()
    assert verify_ledger(tmp_path / "ledger").ok


async def test_a_relay_that_breaks_the_protocol(tmp_path: Path, names: Names) -> None:
    """A guest puts a program of its own in the place of the relay, opens connections, and then sends no frame.

    The channel ends, and with it every connection to a server; each has its ``egress.closed``, and nothing is left.
    """
    whole = Whole(tmp_path)
    count = 20
    async with raw_server(hang) as server, whole.session() as session:
        pipe = Pipe(GREETING)
        channel = Channel(pipe.send, whole.serve(session))
        async with started(channel, pipe.received()) as running:
            for number in range(1, count + 1):
                pipe.say(text(protocol.OPEN, number) + data(number, get(server.port, f"/{number}")))
            await until(lambda: len(server.received) == count and all(server.received))
            pipe.say(text(protocol.OPEN, count))
            with pytest.raises(ChannelError, match="which is open"):
                await running
        await until(lambda: server.all.count(b"|over") == count)
    assert whole.guarded.client.gate.holds.all() == []
    closed = whole.entries("egress.closed")
    assert len(whole.allowed()) == len(closed) == count
    assert {entry.outcome for entry in closed} == {"cancelled"}


async def test_a_relay_that_is_killed(tmp_path: Path, names: Names) -> None:
    """The guest kills its relay while connections are open, to have them go on unwatched: all are over, on record."""
    whole = Whole(tmp_path)
    async with raw_server(hang) as server, whole.session() as session:
        async with real_relay(whole.serve(session)) as relay:
            asking = [asyncio.create_task(talk(relay.port, get(server.port, f"/{n}"), end=False)) for n in range(20)]
            await until(lambda: len(server.received) == 20 and all(server.received))
            os.kill(relay.process.pid, 9)
            await relay.running
            assert await asyncio.gather(*asking) == [b""] * 20
        await until(lambda: server.all.count(b"|over") == 20)
    assert whole.guarded.client.gate.holds.all() == []
    assert len(whole.allowed()) == len(whole.entries("egress.closed")) == 20
