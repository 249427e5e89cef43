"""Attacks on plain HTTP through the broker of egress, by the guest and by servers."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.asking import EVIL, GRANTED, get, tunnel
from tests.unit.brokering import MIRROR, OTHER, Kept, Rules, Site, raw_server, talk


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
    """A request whose length has two readings (CL.TE, TE.CL, folded or bare line ends), and one hidden behind it.

    Refused with 400 as it stands, on record; the server is not dialled and never sees the hidden one.
    """
    async with raw_server() as server, Site.open() as site:
        head = f"POST http://{MIRROR}:{server.port}/ HTTP/1.1\r\nHost: {MIRROR}:{server.port}\r\n"
        answer = await talk(site.port, (head + framing + SMUGGLED).encode("latin-1"))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"\r\n\r\n") == 1
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
            name = f"{host}:{server.port}"
            request = f"GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\nX: <CEDARBOX_SECRET:token>\r\n\r\n"
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
