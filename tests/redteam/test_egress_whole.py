"""Attacks on what a guest may reach, through everything but the microVM: relay, channel, broker, Cedar, ledger."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.asking import ALERT, EVIL, GRANTED, connect_to, get
from tests.unit.brokering import MIRROR, OTHER, client_hello, raw_server, talk
from tests.unit.relaying import until
from tests.unit.whole import MADE, POLICIES, Names, Whole, boxlite_state

NEVER = "no policy permits any connection to it"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names.known(monkeypatch)


async def test_tls_that_names_another_server(tmp_path: Path, names: Names) -> None:
    """A tunnel to a permitted name, in which TLS names another server, or none.

    The guest gets a TLS alert and the server nothing; the name that was sent, or the policy on TCP, is on record.
    """
    whole = Whole(tmp_path)
    async with raw_server() as server, whole.relay() as relay:
        target = f"{MIRROR}:{server.port}"
        for hello in (client_hello(EVIL), client_hello(f"{EVIL}.{MIRROR}"), client_hello(None)):
            assert await talk(relay.port, connect_to(target), hello) == GRANTED + ALERT
    assert server.received == []
    host = f'Host::"{MIRROR}"'
    assert whole.denied() == [
        (target, (), f"the tunnel is to this host, and TLS names '{EVIL}'"),
        (target, (), f"the tunnel is to this host, and TLS names '{EVIL}.{MIRROR}'"),
        (host, ("seen",), "TLS or HTTP only"),
    ]
    assert whole.allowed() == []


async def test_a_request_that_names_another_host(tmp_path: Path, names: Names) -> None:
    """A permitted host in the request line or the tunnel, another in the header Host, or two headers Host.

    Refused with 400, nothing is dialled, each is on record.
    """
    whole = Whole(tmp_path)
    async with raw_server() as server, whole.relay() as relay:
        target = f"{MIRROR}:{server.port}"
        for request in (
            f"GET http://{target}/ HTTP/1.1\r\nHost: {EVIL}\r\n\r\n",
            f"GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\nHost: {EVIL}\r\n\r\n",
            f"CONNECT {target} HTTP/1.1\r\nHost: {EVIL}:443\r\n\r\n",
        ):
            assert (await talk(relay.port, request.encode())).startswith(b"HTTP/1.1 400 ")
        inside = f"GET / HTTP/1.1\r\nHost: {EVIL}\r\n\r\n".encode()
        assert (await talk(relay.port, connect_to(target), inside)).startswith(GRANTED + b"HTTP/1.1 400 ")
    assert server.received == []
    assert len(whole.denied()) == 4
    assert all("Host" in reason or EVIL in reason for _, _, reason in whole.denied())
    assert whole.allowed() == []


async def test_a_denied_path_behind_a_permitted_one(tmp_path: Path, names: Names) -> None:
    """A second request follows the first in one piece: plainly, in its body, or where two readings of a length differ.

    What is plain is decided for itself, and denied by the policy on its path; what has two readings is refused. The
    server never sees ``/admin``, in any spelling.
    """
    whole = Whole(tmp_path)
    async with raw_server() as server, whole.relay() as relay:
        port = server.port
        admin = get(port, "/admin")
        answer = await talk(relay.port, get(port, "/fine") + admin)
        assert answer.count(b"HTTP/1.1 200 ") == 1
        assert answer.count(b"HTTP/1.1 403 ") == 1
        for path in ("/admin/x?y", "/%61dmin", "/adm%69n"):
            assert (await talk(relay.port, get(port, path))).startswith(b"HTTP/1.1 403 ")
        for path in ("/x/../admin", "/x/%2e%2e/admin", "//admin", "/%2561dmin", "/x%2f..%2fadmin", "/x\\..\\admin"):
            assert (await talk(relay.port, get(port, path))).startswith(b"HTTP/1.1 400 ")
        both = get(port, "/fine", f"Content-Length: {len(admin)}\r\nTransfer-Encoding: chunked\r\n")
        for smuggled in (both + b"0\r\n\r\n" + admin, get(port, "/a", "Content-Length: 0\r\nContent-Length: 9\r\n")):
            assert (await talk(relay.port, smuggled + admin)).startswith(b"HTTP/1.1 400 ")
        assert b"admin" not in server.all
        tunnelled = f"GET /admin HTTP/1.1\r\nHost: {MIRROR}:{port}\r\n\r\n".encode()
        answer = await talk(relay.port, connect_to(f"{MIRROR}:{port}"), tunnelled)
        assert answer.startswith(GRANTED + b"HTTP/1.1 403 ")
        assert b"X-Cedarbox-Policy: admin" in answer
    assert server.all.count(b"GET ") == 1
    by_policy = [denial for denial in whole.denied() if denial[1]]
    assert by_policy == [(f'Host::"{MIRROR}"', ("admin",), "not for agents")] * 5
    assert len(whole.denied()) == 5 + 8
    assert whole.allowed() == [f"port {port} http to 127.0.0.1 GET /fine"]


async def test_an_address_in_place_of_a_name(tmp_path: Path, names: Names) -> None:
    """The address of a permitted name is asked for, and that of the metadata service in many spellings.

    Policies that permit every name and address but forbid the metadata service stop each spelling; nothing is looked
    up, each is a denial on record.
    """
    whole = Whole(tmp_path / "names")
    async with raw_server() as server, whole.relay() as relay:
        address = f"127.0.0.1:{server.port}"
        assert (await talk(relay.port, connect_to(address))).startswith(b"HTTP/1.1 403 ")
        assert (await talk(relay.port, get(server.port, host="127.0.0.1"))).startswith(b"HTTP/1.1 403 ")
    assert server.received == []
    assert whole.denied() == [('Address::"127.0.0.1"', (), NEVER)] * 2

    wide = MADE + (
        '@id("wide") permit (principal, action == Sandbox::Action::"connect", resource);'
        '@id("metadata") forbid (principal, action == Sandbox::Action::"connect", resource)'
        ' when { context.ipClass == Sandbox::IpClass::"metadata" };'
    )
    whole = Whole(tmp_path / "wide", wide)
    spelled = ("169.254.169.254", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]")
    strange = (
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.254.169.254.",
        "①69.254.169.254",
    )
    async with whole.relay() as relay:
        for host in (*spelled, *strange):
            request = f"CONNECT {host}:80 HTTP/1.1\r\nHost: {host}:80\r\n\r\n".encode()
            assert (await talk(relay.port, request))[:10] == b"HTTP/1.1 4", host
        raw = bytes((5, 1, 0, 1, 169, 254, 169, 254, 0, 80))
        assert await talk(relay.port, b"\x05\x01\x00", raw) == b"\x05\x00" + bytes((5, 2, 0, 1, 0, 0, 0, 0, 0, 0))
    assert names.asked == []
    denied = whole.denied()
    assert len(denied) == len(spelled) + len(strange) + 1
    assert [policies for _, policies, _ in denied].count(("metadata",)) >= len(spelled) + 1
    assert whole.allowed() == []


async def test_a_look_up_of_a_denied_name(tmp_path: Path, names: Names) -> None:
    """Names that no policy permits, each of which would tell a name server a secret, by HTTP, CONNECT and SOCKS5.

    The host's resolver is asked for none of them; each denial is on record.
    """
    whole = Whole(tmp_path)
    hosts = (EVIL, f"c2VjcmV0.{EVIL}", f"secret.{MIRROR}", OTHER)
    async with whole.relay() as relay:
        for host in hosts:
            assert (await talk(relay.port, connect_to(f"{host}:443"))).startswith(b"HTTP/1.1 403 ")
            assert (await talk(relay.port, get(80, host=host))).startswith(b"HTTP/1.1 403 ")
            asked = bytes((5, 1, 0, 3, len(host))) + host.encode() + b"\x01\xbb"
            assert (await talk(relay.port, b"\x05\x01\x00", asked))[2:4] == b"\x05\x02"
    assert names.asked == []
    assert whole.denied() == [(f'Host::"{host.lower()}"', (), NEVER) for host in hosts for _ in range(3)]


async def test_a_name_that_leads_elsewhere_the_second_time(tmp_path: Path, names: Names) -> None:
    """A permitted name leads to a permitted address first, and to a denied one or the metadata service afterwards.

    One tunnel is looked up once, however many requests it carries; what comes later is decided by what it leads to,
    and denied on record. The server at the denied address hears nothing.
    """
    whole = Whole(tmp_path)
    names.answers[MIRROR] = [["127.0.0.1"], ["127.0.0.2"], ["169.254.169.254"], ["::ffff:127.0.0.2"]]
    async with raw_server() as server, raw_server(host="127.0.0.2", port=server.port) as inside, whole.relay() as relay:
        port = server.port
        request = f"GET / HTTP/1.1\r\nHost: {MIRROR}:{port}\r\n\r\n".encode()
        assert (await talk(relay.port, connect_to(f"{MIRROR}:{port}"), request, request)).count(b" 200 OK") == 2
        assert names.asked == [MIRROR]
        assert (await talk(relay.port, get(port))).startswith(b"HTTP/1.1 403 ")
        assert (await talk(relay.port, connect_to(f"{MIRROR}:{port}"))).startswith(b"HTTP/1.1 403 ")
        assert (await talk(relay.port, get(port))).startswith(b"HTTP/1.1 403 ")
    assert inside.received == []
    assert [policies for _, policies, _ in whole.denied()] == [("inside",), ("seen",), ("inside",)]
    assert whole.allowed() == [f"port {port} http to 127.0.0.1 GET /"] * 2


async def test_a_name_with_a_denied_address_among_others(tmp_path: Path, names: Names) -> None:
    """One answer of the resolver has a denied address, the metadata service and a permitted one.

    Each is decided for itself, in order; only the permitted one is dialled, and the record says which one it was.
    """
    whole = Whole(tmp_path)
    names.answers[MIRROR] = [["127.0.0.2", "169.254.169.254", "127.0.0.1"]]
    async with raw_server() as server, raw_server(host="127.0.0.2", port=server.port) as inside, whole.relay() as relay:
        assert (await talk(relay.port, get(server.port))).startswith(b"HTTP/1.1 200 ")
        await until(lambda: whole.entries("egress.closed"))
    assert inside.received == []
    assert [policies for _, policies, _ in whole.denied()] == [("inside",), ()]
    assert [entry.attrs["address"] for entry in whole.entries("egress.opened")] == ["127.0.0.1"]
    assert [entry.attrs["address"] for entry in whole.entries("egress.closed")] == ["127.0.0.1"]


async def test_what_has_no_single_reading(tmp_path: Path, names: Names) -> None:
    """Port 0, ports too large, a user and a password in the target, line ends and NUL in names, and no protocol at all.

    Refused before anything is looked up; each is on record, without the password.
    """
    whole = Whole(tmp_path)
    password = "hunter2hunter2"
    targets = (
        f"{MIRROR}:0",
        f"{MIRROR}:65536",
        f"{MIRROR}:00443",
        f"u:{password}@{MIRROR}:443",
        f"{password * 30}@{MIRROR}:443",
        f"{MIRROR}",
        "[::1:443",
    )
    async with whole.relay() as relay:
        for target in targets:
            assert (await talk(relay.port, connect_to(target))).startswith(b"HTTP/1.1 400 "), target
        heads = (
            f"GET http://u:{password}@{MIRROR}/ HTTP/1.1\r\nHost: {MIRROR}\r\n\r\n",
            f"GET http://{MIRROR}:0/ HTTP/1.1\r\nHost: {MIRROR}:0\r\n\r\n",
            f"GET http://{MIRROR}/ HTTP/1.1\r\nHost: {MIRROR}\nX: y\r\n\r\n",
            f"GET http://{MIRROR}/ HTTP/1.1\r\nHost: {MIRROR}\r\nX: a\rHost: {EVIL}\r\n\r\n",
            f"GET http://{MIRROR}/ HTTP/1.1\r\nHost: {MIRROR}\r\n Host: {EVIL}\r\n\r\n",
            f"GET http://{MIRROR}%00.{EVIL}/ HTTP/1.1\r\nHost: {MIRROR}\r\n\r\n",
        )
        for head in heads:
            assert (await talk(relay.port, head.encode())).startswith(b"HTTP/1.1 400 "), head
        for name in (f"{MIRROR}\r\nX: y", f"{MIRROR}\0.{EVIL}", f"u:{password}@{MIRROR}", ""):
            asked = bytes((5, 1, 0, 3, len(name))) + name.encode() + b"\x01\xbb"
            assert (await talk(relay.port, b"\x05\x01\x00", asked))[2:4] == b"\x05\x02", name
        asked = bytes((5, 1, 0, 3, len(MIRROR))) + MIRROR.encode() + b"\x00\x00"
        assert (await talk(relay.port, b"\x05\x01\x00", asked))[2:4] == b"\x05\x02"
        assert await talk(relay.port, b"\x00\x01\x02") == b""
    assert names.asked == []
    assert len(whole.denied()) == len(targets) + len(heads) + 4 + 1 + 1
    assert whole.allowed() == []
    whole.guarded.client.close()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert password.encode() not in written


async def test_a_permitted_host_that_is_not_on_the_list(tmp_path: Path, names: Names) -> None:
    """A sandbox was made with a list of hosts, and its guest asks for a host, a subdomain and an address beside it.

    The policies permit them all: the list narrows them, nothing is looked up, and each refusal says so on record. An
    empty list permits nothing.
    """
    wide = MADE + '@id("wide") permit (principal, action == Sandbox::Action::"connect", resource);'
    whole = Whole(tmp_path / "one", wide, state=boxlite_state(egress_allowlist=(MIRROR,)))
    async with raw_server() as server, whole.relay() as relay:
        port = server.port
        others = (OTHER, f"sub.{MIRROR}", "127.0.0.1")
        for host in others:
            assert (await talk(relay.port, get(port, host=host))).startswith(b"HTTP/1.1 403 ")
            assert (await talk(relay.port, connect_to(f"{host}:{port}"))).startswith(b"HTTP/1.1 403 ")
        assert names.asked == []
        assert (await talk(relay.port, get(port))).startswith(b"HTTP/1.1 200 ")
    why = "it is not on the list that this sandbox was made with"
    assert whole.denied() == [(f"{host}:{port}", (), why) for host in others for _ in range(2)]
    assert whole.allowed() == [f"port {port} http to 127.0.0.1 GET /"]

    whole = Whole(tmp_path / "none", wide, state=boxlite_state(egress_allowlist=()))
    async with whole.relay() as relay:
        assert (await talk(relay.port, get(port))).startswith(b"HTTP/1.1 403 ")
    assert whole.denied() == [(f"{MIRROR}:{port}", (), why)]


async def test_a_list_that_would_widen_the_policies(tmp_path: Path, names: Names) -> None:
    """A sandbox was made with a list that holds a host which no policy permits: the list gives nothing, on record."""
    whole = Whole(tmp_path, POLICIES, state=boxlite_state(egress_allowlist=(OTHER,)))
    async with whole.relay() as relay:
        assert (await talk(relay.port, get(80, host=OTHER))).startswith(b"HTTP/1.1 403 ")
    assert names.asked == []
    assert whole.denied() == [(f'Host::"{OTHER}"', (), NEVER)]
