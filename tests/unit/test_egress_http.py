"""Plain HTTP through the broker: what the server gets, what the guest gets, and what was decided."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.asking import get
from tests.unit.brokering import MIRROR, OTHER, Handler, Kept, Rules, Site, break_off, raw_server, talk

from cedarbox.egress.limits import EgressLimits

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def answering(*answers: bytes) -> Handler:
    """A handler that gives these answers to requests without a body, one after another; a bar is a pause."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: bytearray) -> None:
        for answer in answers:
            got += await reader.readuntil(b"\r\n\r\n")
            for piece in answer.split(b"|"):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.002)

    return handle


def head_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[0]


async def test_what_is_sent_on_is_written_anew() -> None:
    headers = (
        "Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\n"
        "TE: trailers\r\nProxy-Authorization: Basic eDp5\r\nAccept: */*\r\nTrailer: X\r\n"
    )
    async with raw_server() as server, Site.open() as site:
        answer = await talk(
            site.port, get(server.port, "/%61%2fb".replace("%2f", "%2b") + "?q=%2e%2e/", headers=headers)
        )
        assert answer.endswith(b"\r\n\r\nhello")
        assert (
            server.all
            == (f"GET /a%2Bb?q=%2e%2e/ HTTP/1.1\r\nHost: {MIRROR}:{server.port}\r\nAccept: */*\r\n\r\n").encode()
        )
        (asked,) = site.rules.asked
        assert asked.proto == "http"
        assert asked.request is not None
        assert (asked.request.method, asked.request.path, asked.request.upgrade) == ("GET", "/a%2Bb", None)
        await site.settled()
        (facts,) = site.rules.admitted
        assert (facts["reason"], facts["status"], facts["bytes_out"]) == ("answered", 200, len(server.all))


async def test_the_port_of_the_scheme_is_not_spelled() -> None:
    async with Site.open() as site:
        await talk(site.port, b"GET http://mirror.corp.example HTTP/1.1\r\nHost: MIRROR.corp.example\r\n\r\n")
        (asked,) = site.rules.asked
        assert (asked.port, asked.request and asked.request.path) == (80, "/")


async def test_each_request_of_a_connection_is_decided() -> None:
    rules = Rules(paths=lambda path: path.startswith("/simple"))
    async with raw_server() as server, Site.open(rules) as site:
        first, second, third = (get(server.port, path) for path in ("/simple/a", "/simple/b", "/admin"))
        answer = await talk(site.port, first, second, third, second)
        assert answer.count(b"hello") == 2
        assert b"HTTP/1.1 403 Forbidden: cedarbox: denied by policy" in answer
        assert [str(c.request and c.request.path) for c in rules.asked] == ["/simple/a", "/simple/b", "/admin"]
        assert b"admin" not in server.all
        assert len(server.received) == 1
        assert site.looked_up == [MIRROR]
        assert rules.named == [f"{MIRROR}:{server.port}"]


async def test_another_host_on_the_same_connection_is_dialled_anew() -> None:
    rules = Rules(hosts=(MIRROR, OTHER))
    async with raw_server() as server, Site.open(rules) as site:
        one, two = get(server.port), get(server.port, host=OTHER)
        assert (await talk(site.port, one, two, one)).count(b"hello") == 3
        assert [len(bytes(got).split(b"GET")) for got in server.received] == [2, 2, 2]
        assert site.looked_up == [MIRROR, OTHER, MIRROR]


async def test_requests_that_come_at_once_are_answered_in_order() -> None:
    async with raw_server() as server, Site.open() as site:
        answer = await talk(site.port, get(server.port, "/1") + get(server.port, "/2") + get(server.port, "/3"))
        assert answer.count(b"hello") == 3
        assert [str(c.request and c.request.path) for c in site.rules.asked] == ["/1", "/2", "/3"]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (LENGTH, b"hello"),
        (CHUNKED + b"\r\n2\r\nhe\r\n|3;x=y\r\nllo\r\n0\r\nX-T: 1\r\n\r\n", b"hello"),
        (b"HTTP/1.1 200 OK\r\n\r\nhe|llo", b"hello"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n|" + LENGTH, b"hello"),
        (CHUNKED + b"Content-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_every_framing_of_an_answer(answer: bytes, body: bytes, version: str) -> None:
    async with raw_server(answering(answer)) as server, Site.open() as site:
        raw = await talk(site.port, get(server.port, version=version))
        if version == "1.1" and answer.startswith(b"HTTP/1.1 103"):
            assert raw.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
            raw = raw.partition(b"\r\n\r\n")[2]
        head, _, rest = raw.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head.lower():
            assert version == "1.1"
            assert b"content-length" not in head.lower()
            pieces = rest.split(b"\r\n")
            rest = b"".join(pieces[1::2])
        assert rest == body
        await site.settled()
        assert site.rules.admitted[0]["reason"] == "answered"


async def test_head_has_no_body_and_the_connection_goes_on() -> None:
    handler = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", LENGTH)
    async with raw_server(handler) as server, Site.open() as site:
        raw = await talk(site.port, get(server.port, method="HEAD"), get(server.port))
        assert raw == b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + LENGTH


async def test_a_body_is_framed_anew() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: bytearray) -> None:
        while not got.endswith((b"0\r\n\r\n", b"all")):
            got += await reader.read(100)
        writer.write(LENGTH)

    async with raw_server(handle) as server, Site.open() as site:
        chunked = get(server.port, method="POST", headers="Transfer-Encoding: CHUNKED\r\n")
        assert (await talk(site.port, chunked, b"3;x\r\nab", b"c\r\n1\r\nd\r\n0\r\nX-Trailer: 1\r\n\r\n")).endswith(
            b"hello"
        )
        body = bytes(server.received[0]).partition(b"\r\n\r\n")[2]
        assert b"".join(body.split(b"\r\n")[1::2]) == b"abcd"
        assert b"X-Trailer" not in body
        assert b";x" not in body
        sized = get(server.port, method="PUT", headers="Content-Length: 3\r\n")
        assert (await talk(site.port, sized + b"a", b"ll")).endswith(b"hello")
        assert bytes(server.received[1]).endswith(b"\r\nContent-Length: 3\r\n\r\nall")


async def test_a_client_that_waits_for_100_continue() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: bytearray) -> None:
        got += await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        got += await reader.readexactly(3)
        writer.write(LENGTH)

    async with raw_server(handle) as server, Site.open() as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(get(server.port, method="PUT", headers="Content-Length: 3\r\nExpect: 100-continue\r\n"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n".replace(b"100 ", b"100 Continue")
        writer.write(b"all")
        assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK")
        writer.close()
        assert b"Expect: 100-continue" in server.all


async def test_a_server_that_answers_before_it_has_read_all() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: bytearray) -> None:
        got += await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        await writer.drain()

    async with raw_server(handle) as server, Site.open() as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(get(server.port, method="PUT", headers="Content-Length: 1000000000\r\n") + b"x" * 100)
        assert b"413 Too Large" in await reader.readuntil(b"big")
        writer.close()


async def test_a_kept_connection_that_the_server_closed_is_replaced() -> None:
    answers = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: bytearray) -> None:
        nonlocal answers
        got += await reader.readuntil(b"\r\n\r\n")
        answers += 1
        writer.write(LENGTH)
        await writer.drain()
        if answers == 1:
            # Gone as soon as the next request is on its way.
            got += await reader.read(1)
            writer.transport.abort()

    async with raw_server(once) as server, Site.open() as site:
        assert (await talk(site.port, get(server.port, "/1"), get(server.port, "/2"))).count(b"hello") == 2
        assert len(server.received) == 2
        assert len(site.rules.asked) == 2


async def test_a_post_is_not_sent_twice() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: bytearray) -> None:
        got += await reader.readuntil(b"\r\n\r\n")
        writer.write(LENGTH)
        got += await reader.read(1)

    async with raw_server(once) as server, Site.open() as site:
        answer = await talk(
            site.port, get(server.port), get(server.port, method="POST", headers="Content-Length: 0\r\n")
        )
        assert answer.count(b"hello") == 1
        assert b"HTTP/1.1 502 " in answer
        assert len(server.received) == 1


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"garbage\r\n\r\n", b"HTTP/1.1 502 "),
        (b"", b"HTTP/1.1 502 "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello", b"HTTP/1.1 502 "),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"HTTP/1.1 502 "),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n", b"HTTP/1.1 502 "),
    ],
)
async def test_a_server_that_breaks_the_protocol(answer: bytes, told: bytes) -> None:
    async with raw_server(answering(answer)) as server, Site.open() as site:
        assert (await talk(site.port, get(server.port))).startswith(told)
        await site.settled()
        assert "server broke" in str(site.rules.admitted[0]["reason"])


@pytest.mark.parametrize("framing", [b"Content-Length: 500", b"Transfer-Encoding: chunked"])
async def test_an_answer_that_is_cut_short_is_seen_to_be(framing: bytes) -> None:
    async with (
        raw_server(answering(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n5\r\nhello\r\n" % framing)) as server,
        Site.open() as site,
    ):
        raw = await talk(site.port, get(server.port), end=False)
        assert not raw.endswith(b"0\r\n\r\n")
        assert len(raw.partition(b"\r\n\r\n")[2]) < 500
        await site.settled()
        assert site.rules.admitted[0]["reason"] == "server broke off before its answer was whole"


async def test_nobody_answers() -> None:
    async with Site.open() as site:
        assert (await talk(site.port, get(1))).startswith(b"HTTP/1.1 502 Bad Gateway: cedarbox: 127.0.0.1 port 1: ")
        assert (await talk(site.port, get(1, method="HEAD"))).endswith(b"\r\n\r\n")


async def test_origin_form_in_a_tunnel() -> None:
    rules = Rules(paths=lambda path: path != "/admin")
    async with raw_server() as server, Site.open(rules) as site:
        name = f"{MIRROR}:{server.port}"
        opened = f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()
        one, two = (f"GET {path} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode() for path in ("/a", "/admin"))
        answer = await talk(site.port, opened, one, one, two)
        assert answer.count(b"hello") == 2
        assert b"HTTP/1.1 403 " in answer
        assert [c.request and c.request.path for c in rules.asked] == ["/a", "/a", "/admin"]
        assert site.looked_up == [MIRROR]


async def test_a_tunnel_after_requests() -> None:
    async with raw_server() as server, Site.open() as site:
        name = f"{MIRROR}:{server.port}"
        tunnel = f"CONNECT {name} HTTP/1.1\r\n\r\n".encode().replace(
            b"1.1\r\n", b"1.1\r\nHost: " + name.encode() + b"\r\n"
        )
        answer = await talk(
            site.port, get(server.port), tunnel, b"GET / HTTP/1.1\r\nHost: " + name.encode() + b"\r\n\r\n"
        )
        assert answer.count(b"hello") == 2


async def test_other_upgrades_are_not_passed_on() -> None:
    headers = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    async with raw_server() as server, Site.open() as site:
        assert (await talk(site.port, get(server.port, headers=headers))).endswith(b"hello")
        assert b"pgrade" not in server.all
        assert b"HTTP2" not in server.all
        assert site.rules.asked[0].request is not None
        assert site.rules.asked[0].request.upgrade is None


async def test_an_idle_client_and_a_slow_server() -> None:
    async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter, got: bytearray) -> None:
        got += await reader.read()
        await reader.read()

    async with raw_server(never) as server, Site.open(limits=EgressLimits(idle_s=0.1)) as site:
        assert (await talk(site.port, get(server.port), end=False)).startswith(b"HTTP/1.1 504 ")
    async with raw_server() as server, Site.open(limits=EgressLimits(idle_s=0.1)) as site:
        assert (await talk(site.port, get(server.port), end=False)).endswith(b"hello")


async def test_requests_are_limited_too() -> None:
    limits = EgressLimits(connections_per_s=0.001, connections_burst=2)
    async with raw_server() as server, Site.open(limits=limits) as site:
        answer = await talk(site.port, get(server.port) * 4)
        assert answer.count(b"hello") == 2
        assert b"HTTP/1.1 429 " in answer
        assert "a second" in site.rules.refused[0][1]


async def test_revocation_before_and_in_an_answer() -> None:
    go = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: bytearray) -> None:
        got += await reader.readuntil(b"\r\n\r\n")
        if b"/begun" in got:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello")
        go.set()
        await reader.read()

    async with raw_server(slow) as server, Site.open() as site:
        for path in ("/silent", "/begun"):
            go.clear()
            task = asyncio.create_task(talk(site.port, get(server.port, path), end=False))
            await asyncio.wait_for(go.wait(), 60)
            await asyncio.sleep(0.05)
            site.rules.revoke()
            answer = await asyncio.wait_for(task, 60)
            if path == "/silent":
                assert answer.startswith(b"HTTP/1.1 403 ")
                assert b"permitted no longer" in answer
            else:
                assert len(answer) < 500
        await site.settled()
        assert [facts["reason"] for facts in site.rules.admitted] == ["cut", "cut"]


async def test_a_guest_that_leaves_while_the_server_thinks() -> None:
    thinking, gone = asyncio.Event(), asyncio.Event()

    async def think(reader: asyncio.StreamReader, _: asyncio.StreamWriter, got: bytearray) -> None:
        got += await reader.readuntil(b"\r\n\r\n")
        thinking.set()
        try:
            await reader.read()
        finally:
            gone.set()

    async with raw_server(think) as server, Site.open() as site:
        _, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(get(server.port))
        await asyncio.wait_for(thinking.wait(), 60)
        break_off(writer)
        assert await asyncio.wait_for(gone.wait(), 60)
        await site.settled()
        assert site.rules.admitted[0]["reason"] == "guest closed"


SECRET = "s3cret-value"


async def test_a_secret_is_put_in_and_never_comes_back() -> None:
    kept = Kept(SECRET)
    rules = Rules(secrets=[("token", MIRROR)])
    echo = (
        f"HTTP/1.1 200 {SECRET}\r\nX-Echo: a {SECRET} b\r\nContent-Length: 32\r\n\r\n"
        f"-{SECRET[:5]}|{SECRET[5:]}-{SECRET}------"
    ).encode()
    headers = "Authorization: Bearer <CEDARBOX_SECRET:token>\r\nAccept-Encoding: gzip\r\nRange: bytes=0-5\r\n"
    async with raw_server(answering(echo, echo, echo)) as server, Site.open(rules, secrets={"token": kept}) as site:
        answer = await talk(site.port, get(server.port, headers=headers), get(server.port, "/later"))
        assert SECRET.encode() not in answer
        assert answer.count(b"-************-************------") == 2
        assert answer.count(b"X-Echo: a ************ b") == 2
        first, second = bytes(server.all).split(b"\r\n\r\n")[:2]
        assert b"Authorization: Bearer s3cret-value" in first
        assert b"Accept-Encoding: identity" in first
        assert b"gzip" not in first
        assert b"Range" not in first
        assert b"Accept-Encoding: identity" in second
        assert rules.used == [("token", MIRROR, server.port)]
        assert kept.revealed == 1
        await site.settled()
        assert SECRET not in repr((rules, site.broker))


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("<CEDARBOX_SECRET:other>", "the secret is not for"),
        ("<CEDARBOX_SECRET:gone>", "there is no secret gone"),
        ("<CEDARBOX_SECRET:bad>", "no header can carry"),
        ("<CEDARBOX_SECRET:>", "has no name"),
    ],
)
async def test_a_secret_that_cannot_be_used_stops_the_request(header: str, told: str) -> None:
    rules = Rules(secrets=[("gone", MIRROR), ("bad", MIRROR)])
    secrets = {"bad": Kept("x\r\nHost: evil"), "other": Kept(SECRET)}
    async with raw_server() as server, Site.open(rules, secrets=secrets) as site:
        answer = await talk(site.port, get(server.port, headers=f"Authorization: {header}\r\n"))
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert told.encode() in answer
        assert b"evil" not in answer
        assert (server.received, rules.asked) == ([], [])
        assert secrets["other"].revealed == 0


async def test_placeholders_elsewhere_are_only_text() -> None:
    async with raw_server() as server, Site.open(secrets={"token": Kept(SECRET)}) as site:
        await talk(site.port, get(server.port, "/?<CEDARBOX_SECRET:token>"))
        assert b"GET /?<CEDARBOX_SECRET:token> " in server.all
        assert site.rules.used == []
