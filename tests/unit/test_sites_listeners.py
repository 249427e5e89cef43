"""The listeners that tell what got out of a sandbox."""

from __future__ import annotations

import http.client
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.microvm.certificates import Authority
from tests.microvm.listeners import Listeners, listening
from tests.microvm.probes.tools import client_hello, query

_HERE = "127.0.0.1"


def names(data: bytes) -> list[str]:
    """The addresses of the answers to one query, which the listeners do not compress but for the question."""
    count = struct.unpack_from(">H", data, 6)[0]
    place = data.index(b"\0", 12) + 5
    found = []
    for _ in range(count):
        size = struct.unpack_from(">H", data, place + 10)[0]
        packed = data[place + 12 : place + 12 + size]
        found.append(socket.inet_ntop(socket.AF_INET if size == 4 else socket.AF_INET6, packed))
        place += 12 + size
    return found


def told(listeners: Listeners) -> list[tuple[str, int, bytes]]:
    return [(one.proto, one.port, bytes(one.data)) for one in listeners.seen]


def test_connections_and_datagrams_are_noted_with_what_they_carried() -> None:
    listeners = Listeners()
    tcp, udp = listeners.tcp(_HERE, 0), listeners.udp(_HERE, 0)
    with listening(listeners):
        with socket.create_connection((_HERE, tcp), 60) as to:
            for piece in (b"one", b"two"):
                to.sendall(piece)
                assert to.recv(100) == b"SEEN\n"
        with socket.create_connection((_HERE, tcp), 60) as silent:
            silent.shutdown(socket.SHUT_WR)
            assert silent.recv(100) == b""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to:
            to.settimeout(60)
            to.sendto(b"datagram", (_HERE, udp))
            assert to.recv(100) == b"SEEN"
        assert told(listeners) == [("tcp", tcp, b"onetwo"), ("tcp", tcp, b""), ("udp", udp, b"datagram")]
        listeners.forget()
    assert listeners.seen == []


def test_a_web_client_is_answered_and_led_elsewhere() -> None:
    listeners = Listeners()
    port = listeners.tcp(_HERE, 0)
    with listening(listeners):
        connection = http.client.HTTPConnection(_HERE, port, timeout=60)
        for path, status in (("/plain", 200), ("/redirect/x", 302)):
            connection.request("GET", path)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (status, b"SEEN" if status == 200 else b"")
        connection.close()
        assert answer.headers["Location"] == "http://zzxzz.denied.example/"
    assert b"zzxzz" not in listeners.seen[0].data


def test_names_are_noted_and_answered_in_turn_over_both_protocols() -> None:
    listeners = Listeners({"turns.example": [["192.0.2.1"], ["192.0.2.2", "2001:db8::2"]]}, elsewhere="192.0.2.9")
    udp, tcp = listeners.udp(_HERE, 0, names=True), listeners.tcp(_HERE, 0, names=True)

    def by_udp(asked: bytes) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to:
            to.settimeout(60)
            to.sendto(asked, (_HERE, udp))
            return to.recv(512)

    def by_tcp(asked: bytes) -> bytes:
        with socket.create_connection((_HERE, tcp), 60) as to:
            to.sendall(struct.pack(">H", len(asked)) + asked)
            return to.recv(512)[2:]

    ways: tuple[Callable[[bytes], bytes], ...] = (by_udp, by_tcp)
    with listening(listeners):
        answers = [names(ways[turn % 2](query("Turns.Example", 1))) for turn in range(3)]
        assert answers == [["192.0.2.1"], ["192.0.2.2"], ["192.0.2.1"]]
        assert [names(by_udp(query("turns.example", 28))) for _ in range(2)] == [[], ["2001:db8::2"]]
        assert names(by_tcp(query("zzdatazz.elsewhere.example", 1))) == ["192.0.2.9"]
        assert b"SEEN" in by_udp(query("zzdatazz.example", 16))
    asked = [bytes(one.data) for one in listeners.seen if one.proto == "dns"]
    assert asked == [b"turns.example A"] * 3 + [b"turns.example AAAA"] * 2 + [
        b"zzdatazz.elsewhere.example A",
        b"zzdatazz.example TXT",
    ]


def test_what_is_no_query_is_noted_and_not_answered() -> None:
    listeners = Listeners()
    port = listeners.udp(_HERE, 0, names=True)
    with listening(listeners), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to:
        to.settimeout(60)
        to.sendto(b"zz", (_HERE, port))
        to.sendto(query("after.example", 16), (_HERE, port))
        assert b"SEEN" in to.recv(512)
    assert [bytes(one.data) for one in listeners.seen] == [b"zz", b"after.example TXT"]


def test_the_hello_of_the_attacks_is_one_that_a_server_takes(tmp_path: Path) -> None:
    heard: list[str | None] = []
    context = Authority(tmp_path).context("denied.example")
    context.sni_callback = lambda _socket, name, _context: heard.append(name)
    for name, ech in (("denied.example", False), (None, False), ("allowed.example", True)):
        hello, incoming, outgoing = client_hello("sni", name, ech=ech), ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(hello)
        with pytest.raises(ssl.SSLWantReadError):
            context.wrap_bio(incoming, outgoing, server_side=True).do_handshake()
        assert b"zzsnizz" in hello
        # Its answer: a handshake record with a ServerHello.
        answer = outgoing.read()
        assert (answer[:1], answer[5:6]) == (b"\x16", b"\x02")
    assert heard == ["denied.example", None, "allowed.example"]
