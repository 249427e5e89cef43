"""Attacks on the broker of egress, by a guest that says what it likes, and by servers and name servers."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

import pytest
from tests.unit.brokering import MIRROR, OTHER, Kept, Rules, Site, client_hello, raw_server, talk

from cedarbox.egress.limits import EgressLimits
from cedarbox.policy.canonical import IP

GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
ALERT = b"\x15\x03\x03\x00\x02\x02\x31"
EVIL = "evil.example"
# What curl, Python, browsers and the C library have taken for 169.254.169.254.
METADATA = (
    "169.254.169.254", "169.254.169.254.", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]",
    "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE", "2852039166", "0251.0376.0251.0376", "169.254.43518", "169.16689662",
    "169.254.169.0376", "[::169.254.169.254]", "[2002:a9fe:a9fe::]", "[::ffff:0:169.254.169.254]", "１６９.254.169.254",
    "169。254。169。254", "[fd00:ec2::254]", "169.254.169.254%00.corp.example", "169.254.169.254#mirror.corp.example",
)  # fmt: skip


def connect(target: str) -> bytes:
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()


def tunnel(port: int) -> bytes:
    return connect(f"{MIRROR}:{port}")


def get(port: int, path: str = "/", headers: str = "") -> bytes:
    return f"GET http://{MIRROR}:{port}{path} HTTP/1.1\r\nHost: {MIRROR}:{port}\r\n{headers}\r\n".encode()


async def test_sni_fronting() -> None:
    """A tunnel to a permitted host, and a ClientHello that names another, which the same server may serve.

    The guest gets the alert access_denied, the server is not dialled, and the denial on record quotes both names.
    """
    async with raw_server() as server, Site.open(Rules(hosts=(MIRROR, EVIL))) as site:
        for name in (EVIL, f"{MIRROR}.evil.example", f"x.{MIRROR}", "mirror.corp.example."):
            assert await talk(site.port, tunnel(server.port), client_hello(name)) == GRANTED + ALERT
            target, reason = site.rules.refused.pop()
            assert target == f"{MIRROR}:{server.port}"
            assert f"TLS names '{name}'" in reason
        assert (server.received, site.rules.asked) == ([], [])


async def test_a_client_hello_in_pieces() -> None:
    """The name of a denied host is cut in two by packets, byte by byte, and by records of one byte.

    It is put together before anything is decided: alert, no dial, and the denial on record names the host.
    """
    hello = client_hello(EVIL)
    records = b"".join(b"\x16\x03\x01\x00\x01" + hello[at : at + 1] for at in range(5, len(hello)))
    cut = hello.index(b"evil") + 2
    split = b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2) + piece for piece in (hello[5:cut], hello[cut:]))
    async with raw_server() as server, Site.open() as site:
        for pieces in (
            [hello[:cut], hello[cut:]],
            [records],
            [split],
            [hello[at : at + 7] for at in range(0, len(hello), 7)],
        ):
            assert await talk(site.port, tunnel(server.port), *pieces) == GRANTED + ALERT
            assert f"TLS names '{EVIL}'" in site.rules.refused.pop()[1]
        assert (server.received, site.rules.asked) == ([], [])


async def test_no_sni() -> None:
    """TLS that names no server, to a host that is permitted over TLS: one address can serve many names.

    It is asked about as TCP with a hello without a name, which nothing permits here: alert, no dial, denial on record.
    """
    async with raw_server() as server, Site.open() as site:
        assert await talk(site.port, tunnel(server.port), client_hello(None)) == GRANTED + ALERT
        assert [(c.proto, c.hello) for c in site.rules.denied] == [("tcp", "unnamed")]
        assert server.received == []


@pytest.mark.parametrize("outer", [MIRROR, EVIL])
async def test_an_encrypted_client_hello(outer: str) -> None:
    """The name that counts is encrypted (ECH), beside a permitted name in the open, or beside another.

    Beside the permitted one it is asked about as TCP with an encrypted hello, which nothing permits here; beside another
    it is refused at once. Alert, no dial, denial on record.
    """
    plain = client_hello(outer)
    at = plain.index(b"\x00\x00" + (len(outer) + 5).to_bytes(2) + (len(outer) + 3).to_bytes(2))
    ech = b"\xfe\x0d\x00\x08\x00\x00\x01\x00\x01\x00\x00\x00"
    body = bytearray(plain[:at] + ech + plain[at:])
    for where, size in ((3, 2), (6, 3), (at - 2, 2)):
        body[where : where + size] = (int.from_bytes(body[where : where + size]) + len(ech)).to_bytes(size)
    async with raw_server() as server, Site.open() as site:
        assert await talk(site.port, tunnel(server.port), bytes(body)) == GRANTED + ALERT
        if outer == MIRROR:
            assert [(c.proto, c.hello) for c in site.rules.denied] == [("tcp", "encrypted")]
        else:
            assert f"TLS names '{EVIL}'" in site.rules.refused[0][1]
        assert server.received == []


async def test_two_names_in_one_client_hello() -> None:
    """A ClientHello with the server name extension twice: this reader could take one, the server the other.

    It has two readings, so it is refused: alert, no dial, denial on record.
    """
    plain = client_hello(MIRROR)
    name = len(MIRROR)
    at = plain.index(b"\x00\x00" + (name + 5).to_bytes(2) + (name + 3).to_bytes(2))
    again = plain[at : at + 9 + name].replace(b"mirror", b"secret")
    body = bytearray(plain[:at] + again + plain[at:])
    for where, size in ((3, 2), (6, 3), (at - 2, 2)):
        body[where : where + size] = (int.from_bytes(body[where : where + size]) + len(again)).to_bytes(size)
    async with raw_server() as server, Site.open() as site:
        assert await talk(site.port, tunnel(server.port), bytes(body)) == GRANTED + ALERT
        assert site.rules.refused == [(f"{MIRROR}:{server.port}", "the extension 0 is there twice")]
        assert server.received == []


async def test_host_fronting() -> None:
    """A permitted host in the request line or tunnel, another in the header Host; or Host twice, or both in one.

    Refused with 400 before anything is dialled; each is on record.
    """
    fronted = [
        f"GET http://{MIRROR}:1/ HTTP/1.1\r\nHost: {EVIL}\r\n\r\n",
        f"GET http://{MIRROR}:1/ HTTP/1.1\r\nHost: {MIRROR}\r\n\r\n",
        f"GET http://{MIRROR}:1/ HTTP/1.1\r\nHost: {MIRROR}:1\r\nHost: {EVIL}\r\n\r\n",
        f"GET http://{MIRROR}:1/ HTTP/1.1\r\nHost: {MIRROR}:1,{EVIL}\r\n\r\n",
        f"GET http://{MIRROR}:1/ HTTP/1.1\r\nHost : {MIRROR}:1\r\n\r\n",
        f"GET http://{MIRROR}:1/ HTTP/1.1\r\nHost:\r\n\r\n",
        f"GET http://{MIRROR}:1/ HTTP/1.1\r\n\r\n",
        f"GET http://{MIRROR}:1/ HTTP/1.1\r\nHost: {MIRROR}:1\r\nConnection: host\r\n\r\n",
        f"CONNECT {MIRROR}:1 HTTP/1.1\r\nHost: {EVIL}:1\r\n\r\n",
    ]
    async with raw_server() as server, Site.open() as site:
        for request in fronted:
            assert (await talk(site.port, request.encode())).startswith(b"HTTP/1.1 400 ")
        assert len(site.rules.refused) == len(fronted)
        inside = [
            f"GET / HTTP/1.1\r\nHost: {EVIL}\r\n\r\n",
            f"GET http://{EVIL}/ HTTP/1.1\r\nHost: {EVIL}\r\n\r\n",
            tunnel(1).decode(),
        ]
        for request in inside:
            assert (await talk(site.port, tunnel(server.port), request.encode())).startswith(GRANTED + b"HTTP/1.1 400 ")
        assert len(site.rules.refused) == len(fronted) + len(inside)
        assert (server.received, site.rules.asked) == ([], [])


async def test_a_redirect_to_a_denied_host() -> None:
    """A permitted server sends the guest to a denied host: the guest gets the redirect, and its next request is denied.

    The broker follows nothing by itself; the second name is not looked up, and its denial is on record.
    """

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: bytearray) -> None:
        got += await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\nContent-Length: 0\r\n\r\n")

    async with raw_server(redirect) as server, Site.open() as site:
        curl = await asyncio.create_subprocess_exec(
            "curl", "-sSL", "-o", "/dev/null", "-w", "%{http_code} %{num_redirects}", "-x", site.http,
            f"http://{MIRROR}:{server.port}/", env={}, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await curl.communicate()
        assert out == b"403 1"
        assert site.rules.named == [f"{MIRROR}:{server.port}", f"{EVIL}:80"]
        assert site.looked_up == [MIRROR]


async def test_dns_rebinding() -> None:
    """The name server gives a permitted address at first and the cloud's metadata address from then on.

    The name is looked up once for a connection, and what was decided is dialled. The next connection is decided anew,
    for the new address: denied, and the denial on record names that address.
    """
    answers = [["127.0.0.1"], ["169.254.169.254"]]

    async def rebind(_name: str, _port: int) -> Sequence[IP]:
        return [ipaddress.ip_address(text) for text in answers.pop(0)]

    rules = Rules(addresses=lambda ip: ip == "127.0.0.1")
    async with raw_server() as server, Site.open(rules, resolve=rebind) as site:
        assert (await talk(site.port, get(server.port))).endswith(b"hello")
        assert len(answers) == 1
        assert (await talk(site.port, get(server.port))).startswith(b"HTTP/1.1 403 ")
        assert [str(c.ip) for c in rules.denied] == ["169.254.169.254"]
        assert server.peers == ["127.0.0.1"]


async def test_a_name_with_a_permitted_and_a_denied_address() -> None:
    """A name has one address that the policies permit and one that they do not, in either order, also mapped in IPv6.

    Both are decided; only the permitted one is dialled; the denial of the other is on record.
    """
    for order in (["127.0.0.2", "127.0.0.1"], ["::ffff:127.0.0.2", "127.0.0.1"]):
        rules = Rules(addresses=lambda ip: ip == "127.0.0.1")
        async with (
            raw_server() as good,
            raw_server(host="127.0.0.2", port=good.port) as bad,
            Site.open(rules, names={MIRROR: order}) as site,
        ):
            assert (await talk(site.port, get(good.port))).endswith(b"hello")
            assert (await talk(site.port, tunnel(good.port), b"\x00" * 9, b"\r\n\r\n")).startswith(GRANTED)
            assert [str(c.ip) for c in rules.denied] == ["127.0.0.2", "127.0.0.2"]
            assert (len(good.received), len(bad.received)) == (2, 0)


async def test_addresses_that_hide_another() -> None:
    """A name server answers with addresses of 6to4, Teredo, ISATAP and NAT64 of another length that embed an IPv4 one.

    They have no single target: none is dialled or asked about, and the refusal is on record.
    """
    hidden = ["2002:7f00:1::1", "2001:0:7f00:1::", "fe80::5efe:7f00:1", "64:ff9b:1::7f00:1", "::127.0.0.1"]
    for address in hidden:
        async with Site.open(names={MIRROR: [address]}) as site:
            assert (await talk(site.port, tunnel(443))).startswith(b"HTTP/1.1 403 ")
            assert "translated" in site.rules.refused[0][1]
            assert site.rules.asked == []


@pytest.mark.parametrize("spelling", METADATA)
async def test_the_metadata_address_in_every_spelling(spelling: str) -> None:
    """CONNECT, a plain request and SOCKS5 to the metadata address, in the spellings that some program accepts.

    It is decided in its one canonical spelling, and denied, or it is no target at all; nothing is looked up.
    """
    canonical = {"169.254.169.254:80", "[fd00:ec2::254]:80", "fd00:ec2::254:80"}
    async with Site.open() as site:
        refused = (b"HTTP/1.1 403 ", b"HTTP/1.1 400 ")
        assert (await talk(site.port, connect(f"{spelling}:80"))).startswith(refused)
        plain = f"GET http://{spelling}:80/latest/meta-data/ HTTP/1.1\r\nHost: {spelling}:80\r\n\r\n".encode()
        assert (await talk(site.port, plain)).startswith(refused)
        name = spelling.strip("[]").encode()
        socks = await talk(site.port, b"\x05\x01\x00\x05\x01\x00\x03" + bytes((len(name),)) + name + b"\x00\x50")
        assert socks == b"\x05\x00\x05\x02\x00\x01" + bytes(6)
        assert set(site.rules.named) <= canonical
        assert len(site.rules.named) + len(site.rules.refused) == 3
        assert site.looked_up == []


async def test_an_address_instead_of_a_permitted_name() -> None:
    """The guest knows the address of a permitted host and asks for the address itself, in odd spellings too.

    A rule for a name says nothing about its address: 403 or 400, on record, nothing dialled.
    """
    async with raw_server() as server, Site.open() as site:
        for host in (
            "127.0.0.1",
            "[::ffff:127.0.0.1]",
            "127.1",
            "0x7f000001",
            "2130706433",
            "017700000001",
            "[::1]",
            "0",
        ):
            answer = await talk(site.port, connect(f"{host}:{server.port}"))
            assert answer.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 400 "))
        assert len(site.rules.named) + len(site.rules.refused) == 8
        assert (server.received, site.rules.asked) == ([], [])


SMUGGLED = "GET /admin HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 0\r\nContent-Length: 33\r\n\r\n",
        "Content-Length: 0, 33\r\n\r\n",
        "Content-Length: +0\r\n\r\n",
        "Content-Length: 0x0\r\n\r\n",
        "Content-Length: -1\r\n\r\n",
        "Content-Length: 0\r\nConnection: content-length\r\n\r\n",
    ],
)
async def test_request_smuggling(framing: str) -> None:
    """A request whose length has two readings (CL.TE, TE.CL, TE.TE, folded or bare line ends), and one hidden behind it.

    Refused with 400 as it stands, on record; the server is not dialled and never sees the hidden one.
    """
    async with raw_server() as server, Site.open() as site:
        head = f"POST http://{MIRROR}:{server.port}/ HTTP/1.1\r\nHost: {MIRROR}:{server.port}\r\n"
        answer = await talk(site.port, (head + framing + SMUGGLED).encode("latin-1"))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1") - answer.partition(b"\r\n\r\n")[2].count(b"HTTP/1.1") == 1
        assert (server.received, site.rules.asked) == ([], [])
        assert len(site.rules.refused) == 1


async def test_a_request_hidden_in_a_body() -> None:
    """The body of a permitted request is a request to a denied path, sized exactly, in chunks, and with odd chunks.

    As a body it arrives as a body, framed anew; a chunk with two readings ends the connection before it is sent on.
    """

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: bytearray) -> None:
        while data := await reader.read(65536):
            got += data
            if got.endswith((b"0\r\n\r\n", b"Host: x\r\n\r\n")):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    size = len(SMUGGLED)
    async with raw_server(count) as server, Site.open(Rules(paths=lambda path: path == "/")) as site:
        head = f"POST http://{MIRROR}:{server.port}/ HTTP/1.1\r\nHost: {MIRROR}:{server.port}\r\n"
        sized = f"{head}Content-Length: {size}\r\n\r\n{SMUGGLED}".encode()
        assert (await talk(site.port, sized)).endswith(b"ok")
        chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n{size:x};a=b\r\n{SMUGGLED}\r\n0\r\n\r\n".encode()
        assert (await talk(site.port, chunked)).endswith(b"ok")
        for bad in (b"-1\r\n", b"0x1\r\n", b"1 \n", b"1\r\nabc\r\n", b" 1\r\n", b"fffffffffffffffffffff\r\n"):
            raw = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + bad + SMUGGLED.encode()
            assert (await talk(site.port, raw)).startswith(b"HTTP/1.1 400 ")
        assert [c.request and c.request.path for c in site.rules.asked] == ["/"] * 8
        assert all(b"GET /admin" not in got for got in server.received[2:])
        await site.settled()
        assert all("guest broke the protocol" in str(facts["reason"]) for facts in site.rules.admitted[2:])


async def test_a_second_request_behind_a_permitted_one() -> None:
    """Two requests in one packet on a kept-alive connection, the second to a denied path, or to a denied host.

    The first is answered, the second denied, each with a decision of its own; the server sees the first only.
    """
    async with raw_server() as server, Site.open(Rules(paths=lambda path: path == "/")) as site:
        behind = [get(server.port, "/admin"), f"GET http://{EVIL}/ HTTP/1.1\r\nHost: {EVIL}\r\n\r\n".encode()]
        for second in behind:
            answer = await talk(site.port, get(server.port) + second)
            assert answer.count(b"hello") == 1
            assert b"HTTP/1.1 403 " in answer
        assert b"admin" not in server.all
        assert b"evil" not in server.all
        assert site.rules.named[-1] == f"{EVIL}:80"
        assert site.looked_up == [MIRROR, MIRROR]


@pytest.mark.parametrize(
    "path",
    ["/public/../admin", "/public/%2e%2e/admin", "/public/..%2fadmin", "/public/..%5cadmin", "/public/..;/admin",
     "//admin", "/public//../admin", "/%61dmin", "/public/%252e%252e/admin", "/admin%00", "/public\\..\\admin",
     "/./admin", "/admin/.", "/public/%2E./admin"],
)  # fmt: skip
async def test_a_denied_path_in_other_spellings(path: str) -> None:
    """A path that a server may read as the denied one: dot segments, encodings, doubled encodings, parameters.

    Decoded where that is certain, and then denied; else refused. On record either way; the server sees nothing.
    """
    async with raw_server() as server, Site.open(Rules(paths=lambda path: path != "/admin")) as site:
        answer = await talk(site.port, get(server.port, path))
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 "))
        assert len(site.rules.denied) + len(site.rules.refused) == 1
        assert server.received == []


async def test_line_breaks_in_a_host() -> None:
    """A line break, a NUL or a space in the name, by SOCKS5, CONNECT and a URL, to add a header or a second request.

    No target: refused, nothing looked up; the record and the answer quote it on one line.
    """
    async with raw_server() as server, Site.open() as site:
        for text in (f"{MIRROR}\r\nX: y", f"{MIRROR}\nX", f"{MIRROR}\x00.evil.example", f"{MIRROR} ", f"{MIRROR}\t"):
            raw = text.encode()
            answer = await talk(
                site.port, b"\x05\x01\x00\x05\x01\x00\x03" + bytes((len(raw),)) + raw + server.port.to_bytes(2)
            )
            assert answer == b"\x05\x00\x05\x02\x00\x01" + bytes(6)
            for request in (
                f"CONNECT {text}:{server.port} HTTP/1.1\r\n\r\n",
                f"GET http://{text}:{server.port}/ HTTP/1.1\r\n\r\n",
            ):
                head, _, _ = (await talk(site.port, request.encode())).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 400 ")
                assert len(head.split(b"\r\n")) == 4
        assert len(site.rules.refused) == 15
        assert (server.received, site.looked_up, site.rules.named) == ([], [], [])


async def test_a_user_before_the_host() -> None:
    """A permitted name as user, password or part of the path of a URL whose host is another, and the other way round.

    Refused: no authority has a user here. On record, nothing looked up.
    """
    texts = [f"{MIRROR}@{EVIL}", f"{EVIL}@{MIRROR}", f"{MIRROR}:80@{EVIL}", f"{EVIL}%40{MIRROR}", f"{MIRROR}\\@{EVIL}",
             f"{EVIL}#@{MIRROR}"]  # fmt: skip
    async with Site.open() as site:
        for text in texts:
            assert (
                await talk(site.port, f"CONNECT {text}:80 HTTP/1.1\r\nHost: {MIRROR}:80\r\n\r\n".encode())
            ).startswith(b"HTTP/1.1 400 ")
            assert (
                await talk(site.port, f"GET http://{text}/ HTTP/1.1\r\nHost: {MIRROR}\r\n\r\n".encode())
            ).startswith(b"HTTP/1.1 400 ")
        assert len(site.rules.refused) == 12
        assert (site.looked_up, site.rules.named) == ([], [])


async def test_ports_that_are_none() -> None:
    """Port 0, 65536, negative, with a sign, a leading zero, other digits, or none at all.

    Refused with 400, on record: a parser that wraps or skips would reach another port than was decided.
    """
    ports = ["0", "65536", "-1", "+80", "080", "0x50", "80 80", "", "4294967376", "８０", "80,443"]
    async with Site.open() as site:
        for port in ports:
            assert (
                await talk(site.port, f"CONNECT {MIRROR}:{port} HTTP/1.1\r\nHost: {MIRROR}\r\n\r\n".encode())
            ).startswith(b"HTTP/1.1 400 ")
        assert (await talk(site.port, f"CONNECT {MIRROR} HTTP/1.1\r\nHost: {MIRROR}\r\n\r\n".encode())).startswith(
            b"HTTP/1.1 400 "
        )
        zero = await talk(site.port, b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00")
        assert zero == b"\x05\x00\x05\x02\x00\x01" + bytes(6)
        assert len(site.rules.refused) == len(ports) + 2
        assert site.rules.named == []


async def test_slow_loris() -> None:
    """Heads, handshakes and hellos that come a byte at a time and never end.

    Each has one time for all of it, not for each byte; then it is closed, and on record.
    """
    limits = EgressLimits(first_byte_seconds=0.3, silent_seconds=0.05)
    begun = [
        b"GET http://",
        b"\x05\x01\x00\x05",
        tunnel(443) + client_hello(MIRROR)[:20],
        tunnel(443) + b"GET / HTTP/1.1\r\n",
    ]

    async def drip(port: int, start: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(start)
            ended = asyncio.ensure_future(reader.read())
            while not ended.done():
                writer.write(b"\x01" if start[:1] == b"\x05" else b"x")
                await asyncio.wait((ended,), timeout=0.02)
            await ended
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with Site.open(limits=limits) as site:
        async with asyncio.timeout(20):
            await asyncio.gather(*(drip(site.port, start) for start in begun))
        assert len(site.rules.refused) == len(begun)
        assert site.rules.asked == []


async def test_a_head_without_end() -> None:
    """A head, a SOCKS5 name and a ClientHello that are longer than anybody needs.

    Refused as soon as the limit is passed, on record; the broker holds no more than that.
    """
    async with Site.open(limits=EgressLimits(head_bytes=4096)) as site:
        assert (await talk(site.port, b"GET http://" + b"x" * 100_000, end=False)).startswith((b"HTTP/1.1 400 ", b""))
        hello = (b"\x16\x03\x01\x3f\xff" + b"\x01\x00\xff\xf0" + bytes(16379)) * 8
        assert (await talk(site.port, tunnel(443), hello, end=False)).startswith(GRANTED)
        assert "longer than 4096" in site.rules.refused[0][1]
        assert "longer than 65536" in site.rules.refused[1][1]


async def test_half_close() -> None:
    """The guest finishes sending in the middle of a handshake, a head, a hello and a body.

    None of them is completed by guessing: refused, on record, or given up as broken; no server gets half a request.
    """
    async with raw_server() as server, Site.open(Rules(protos=("tls", "http"))) as site:
        await talk(site.port, b"\x05\x01\x00\x05\x01\x00\x03\xff")
        await talk(site.port, get(server.port)[:-2])
        await talk(site.port, tunnel(server.port), client_hello(MIRROR)[:-1])
        assert len(site.rules.refused) == 3
        assert server.received == []
        body = get(server.port, headers="Content-Length: 10\r\n") + b"half"
        assert (await talk(site.port, body)).startswith(b"HTTP/1.1 ")


async def test_a_look_up_as_a_channel() -> None:
    """Data in the labels of names under a domain of the attacker, who runs its name server.

    Names are decided before anybody is asked for them: 403 and SOCKS code 2, each on record, the resolver never called.
    """
    async with Site.open() as site:
        for number in range(20):
            name = f"{number:x}-deadbeef.evil.example"
            assert (await talk(site.port, connect(f"{name}:443"))).startswith(b"HTTP/1.1 403 ")
            raw = name.encode()
            socks = await talk(site.port, b"\x05\x01\x00\x05\x01\x00\x03" + bytes((len(raw),)) + raw + b"\x01\xbb")
            assert socks.endswith(b"\x05\x02\x00\x01" + bytes(6))
        assert len(site.rules.named) == 40
        assert site.looked_up == []


async def test_a_server_that_returns_a_secret() -> None:
    """A permitted server echoes the secret it was sent: in the status, a header, a chunk, over two chunks, in ranges.

    The guest gets asterisks of the same length; an answer that is compressed, so that nothing can be seen in it, is not
    handed on at all. No record and no error holds the value.
    """
    secret = "t0ken-of-the-mirror"

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: bytearray) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        got += head
        value = secret.encode()
        if b"/gzip" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 19\r\n\r\n" + value)
            return
        writer.write(b"HTTP/1.1 200 %b\r\nX-You-Sent: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % (value, value))
        for piece in (value, value[:7], value[7:], *(value[at : at + 1] for at in range(len(value)))):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\nX-Trailer: %b\r\n\r\n" % value)

    rules = Rules(secrets=[("token", MIRROR)])
    async with raw_server(echo) as server, Site.open(rules, secrets={"token": Kept(secret)}) as site:
        header = "X-Token: <CEDARBOX_SECRET:token>\r\nRange: bytes=0-3\r\n"
        answer = await talk(site.port, get(server.port, headers=header))
        assert secret.encode() in server.all
        assert b"Range" not in server.all
        assert answer.startswith(b"HTTP/1.1 200 " + b"*" * len(secret))
        assert b"t0ken" not in answer
        body = b"".join(answer.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2])
        assert body == b"*" * (3 * len(secret))
        assert (await talk(site.port, get(server.port, "/gzip", headers=header))).startswith(b"HTTP/1.1 502 ")
        await site.settled()
        assert secret not in repr((rules.admitted, rules.asked, rules.refused, rules.used))


async def test_a_secret_to_a_wrong_host() -> None:
    """The guest asks for the secret of one host in a request to another, and to the address of the right one.

    403, nothing sent, and the denial on record names the secret and the host.
    """
    rules = Rules(hosts=(MIRROR, OTHER, "127.0.0.1"), secrets=[("token", MIRROR)])
    kept = Kept("t0ken")
    async with raw_server() as server, Site.open(rules, secrets={"token": kept}) as site:
        for host in (OTHER, "127.0.0.1"):
            request = f"GET http://{host}:{server.port}/ HTTP/1.1\r\nHost: {host}:{server.port}\r\nX: <CEDARBOX_SECRET:token>\r\n\r\n"
            assert (await talk(site.port, request.encode())).startswith(b"HTTP/1.1 403 ")
        assert rules.used == [("token", OTHER, server.port)]
        assert "not to an address" in rules.refused[0][1]
        assert (server.received, rules.asked, kept.revealed) == ([], [], 0)


async def test_a_switch_to_http2_in_the_clear() -> None:
    """An upgrade to h2c, or one that the server makes unasked: after it no request could be read any more.

    The wish is not passed on, and a server that switches all the same gets no further: 502.
    """

    async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: bytearray) -> None:
        got += await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        got += await reader.read()

    for wish in ("h2c", "websocket", "h2c, websocket"):
        async with raw_server(switch) as server, Site.open() as site:
            headers = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {wish}\r\nHTTP2-Settings: AAMAAABk\r\n"
            answer = await talk(site.port, get(server.port, headers=headers), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 502 ")
            assert b"h2c" not in server.all
            assert b"PRI" not in server.all
            await site.settled()
            assert "server broke" in str(site.rules.admitted[0]["reason"]) or "not asked for" in str(
                site.rules.admitted[0]["reason"]
            )


async def test_urls_of_other_schemes() -> None:
    """A request to the proxy for https, ftp, file and gopher URLs, a bare path, an asterisk, and HTTP/2.

    The broker fetches nothing itself: 400, on record.
    """
    async with Site.open() as site:
        for url in (
            f"https://{MIRROR}/",
            f"ftp://{MIRROR}/",
            "file:///etc/passwd",
            f"gopher://{MIRROR}:25/x",
            "/",
            "*",
            f"{MIRROR}:80",
        ):
            assert (await talk(site.port, f"GET {url} HTTP/1.1\r\nHost: {MIRROR}\r\n\r\n".encode())).startswith(
                b"HTTP/1.1 400 "
            )
        for odd in (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET http://x/ HTTP/0.9\r\n\r\n",
            f"get http://{MIRROR}/ HTTP/1.1\r\nHost: {MIRROR}\r\n\r\n".encode(),
        ):
            assert (await talk(site.port, odd)).startswith(b"HTTP/1.1 400 ")
        assert len(site.rules.refused) == 10
        assert site.rules.named == []


async def test_socks_beyond_connect() -> None:
    """SOCKS4, SOCKS5 with BIND (to listen), UDP ASSOCIATE (to send datagrams), a password, and other types of address.

    Refused with the code that says so, on record; nothing listens and nothing is sent.
    """
    name = bytes((len(MIRROR),)) + MIRROR.encode() + b"\x01\xbb"
    async with Site.open() as site:
        assert await talk(site.port, b"\x04\x01\x01\xbb\x7f\x00\x00\x01\x00") == b""
        for command in (2, 3, 0, 255):
            answer = await talk(site.port, b"\x05\x01\x00\x05" + bytes((command,)) + b"\x00\x03" + name)
            assert answer == b"\x05\x00\x05\x07\x00\x01" + bytes(6)
        assert await talk(site.port, b"\x05\x01\x00\x05\x01\x00\x02" + name) == b"\x05\x00\x05\x08\x00\x01" + bytes(6)
        assert await talk(site.port, b"\x05\x01\x02") == b"\x05\xff"
        assert await talk(site.port, b"\x05\x01\x00\x05\x01\x01\x03" + name) == b"\x05\x00"
        assert len(site.rules.refused) == 8
        assert site.rules.named == []


async def test_garbage() -> None:
    """Connections that begin with any byte at all, and go on with noise.

    None reaches a server or raises anything; those that begin no known protocol are on record.
    """
    async with Site.open() as site:
        noise = bytes(range(256)) * 4
        answers = await asyncio.gather(*(talk(site.port, bytes((first,)) + noise) for first in range(256)))
        assert all(answer in {b"", b"\x05\x00"} or answer.startswith(b"HTTP/1.1 400 ") for answer in answers)
        assert len(site.rules.refused) == 256
        assert (site.rules.asked, site.looked_up) == ([], [])
