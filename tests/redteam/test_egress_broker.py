"""Attacks on the broker of egress, by a guest that says what it likes, and by name servers."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence

import pytest
from tests.unit.asking import ALERT, EVIL, GRANTED, connect_to, get, tunnel
from tests.unit.brokering import MIRROR, Rules, Site, client_hello, raw_server, talk

from cedarbox.egress.limits import EgressLimits
from cedarbox.policy.canonical import IP

# What curl, Python, browsers and the C library have taken for 169.254.169.254.
METADATA = (
    "169.254.169.254", "169.254.169.254.", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]",
    "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE", "2852039166", "0251.0376.0251.0376", "169.254.43518", "169.16689662",
    "169.254.169.0376", "[::169.254.169.254]", "[2002:a9fe:a9fe::]", "[::ffff:0:169.254.169.254]",
    "\uff11\uff16\uff19.254.169.254", "169\u3002254\u3002169\u3002254", "[fd00:ec2::254]",
    "169.254.169.254%00.corp.example",
    "169.254.169.254#mirror.corp.example",
)  # fmt: skip


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

    Beside the permitted one it is asked about as TCP with an encrypted hello, which nothing permits here; beside
    another it is refused at once. Alert, no dial, denial on record.
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
        assert (await talk(site.port, connect_to(f"{spelling}:80"))).startswith(refused)
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
            answer = await talk(site.port, connect_to(f"{host}:{server.port}"))
            assert answer.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 400 "))
        assert len(site.rules.named) + len(site.rules.refused) == 8
        assert (server.received, site.rules.asked) == ([], [])


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
    ports = ["0", "65536", "-1", "+80", "080", "0x50", "80 80", "", "4294967376", "\uff18\uff10", "80,443"]
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
    limits = EgressLimits(first_byte_s=0.3, silent_s=0.05)
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
        async with asyncio.timeout(60):
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
            assert (await talk(site.port, connect_to(f"{name}:443"))).startswith(b"HTTP/1.1 403 ")
            raw = name.encode()
            socks = await talk(site.port, b"\x05\x01\x00\x05\x01\x00\x03" + bytes((len(raw),)) + raw + b"\x01\xbb")
            assert socks.endswith(b"\x05\x02\x00\x01" + bytes(6))
        assert len(site.rules.named) == 40
        assert site.looked_up == []


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
        assert all(answer in {b"", b"\x05\xff"} or answer.startswith(b"HTTP/1.1 400 ") for answer in answers)
        assert len(site.rules.refused) == 256
        assert (site.rules.asked, site.looked_up) == ([], [])
