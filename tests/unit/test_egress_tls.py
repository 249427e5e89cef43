"""The ClientHello, made by a real client and by nobody who means well."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.brokering import MIRROR, client_hello

from cedarbox.egress.tls import ACCESS_DENIED, Hello, HelloError, HelloReader, alert

REAL = client_hello(MIRROR, alpn=["h2", "http/1.1"])
BIG = client_hello(MIRROR, size=12000)


def read(data: bytes) -> Hello | None:
    return HelloReader().feed(data)


def message(hello: bytes) -> bytes:
    return hello[5:]


def records(body: bytes, size: int) -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2) + piece for piece in pieces)


def hello(*extensions: tuple[int, bytes], tail: bytes = b"") -> bytes:
    """A minimal ClientHello with these extensions."""
    block = b"".join(kind.to_bytes(2) + len(body).to_bytes(2) + body for kind, body in extensions)
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00" + len(block).to_bytes(2) + block + tail
    return records(b"\x01" + len(body).to_bytes(3) + body, 16384)


def server_name(*names: bytes, kind: int = 0) -> tuple[int, bytes]:
    entries = b"".join(bytes((kind,)) + len(name).to_bytes(2) + name for name in names)
    return 0, len(entries).to_bytes(2) + entries


def test_a_real_client_names_its_server() -> None:
    assert read(REAL) == Hello(MIRROR, encrypted=False)
    assert read(BIG) == Hello(MIRROR, encrypted=False)
    assert read(client_hello(None)) == Hello(None, encrypted=False)
    assert read(client_hello("127.0.0.1")) == Hello(None, encrypted=False)


def test_it_is_known_when_it_is_complete_and_not_before() -> None:
    reader = HelloReader()
    answers = [reader.feed(REAL[at : at + 1]) for at in range(len(REAL))]
    assert answers[:-1] == [None] * (len(REAL) - 1)
    assert answers[-1] == Hello(MIRROR, encrypted=False)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 100, 16384])
def test_it_may_be_spread_over_records(size: int) -> None:
    assert read(records(message(BIG), size)[:65536]) in {Hello(MIRROR, encrypted=False), None}
    assert read(records(message(REAL), size)) == Hello(MIRROR, encrypted=False)


def test_what_follows_in_another_record_is_not_looked_at() -> None:
    assert read(REAL + b"\x14\x03\x03\x00\x01\x01") == Hello(MIRROR, encrypted=False)


@pytest.mark.parametrize("kind", [0xFE0D, 0xFE0A, 0xFFCE])
def test_an_encrypted_hello_is_noticed(kind: int) -> None:
    assert read(hello(server_name(MIRROR.encode()), (kind, b"\x00" * 20))) == Hello(MIRROR, encrypted=True)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (hello(server_name(b"a.example", b"b.example")), "exactly one"),
        (hello(server_name(b"a.example"), server_name(b"a.example")), "twice"),
        (hello((10, b""), (10, b"")), "twice"),
        (hello(server_name(b"a.example", kind=1)), "exactly one"),
        (hello(server_name(b"")), "has 0"),
        (hello((0, b"")), "longer than what holds it"),
        (hello((0, b"\x00\x00")), "has 0"),
        (hello((0, server_name(b"a.example")[1] + b"x")), "exactly one"),
        (hello(server_name("straße.example".encode())), "ASCII"),
        (hello((0xFD00, b"\x00")), "encrypted hellos only"),
        (hello(tail=b"x"), "follow the extensions"),
        (hello((0, b"\x00\xff\x00")), "longer than what holds it"),
        (records(message(REAL) + b"\x01\x00\x00\x01x", 16384), "goes on after"),
        (b"\x16\x03\x01\x00\x00", "has 0 bytes"),
        (b"\x16\x03\x01\x40\x01", "has 16385 bytes"),
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", "no ClientHello"),
        (REAL[:5][:3] + b"\x00\x03" + message(REAL)[:3] + b"\x17\x03\x03\x00\x01x", "no handshake"),
        (b"\x16\x03\x01\x00\x04\x01\x01\x00\x00", "longer than 65536"),
        (b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x02\x00", "no version"),
    ],
)
def test_what_has_more_than_one_reading_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(HelloError, match=told):
        read(data)


def test_one_that_never_ends_is_refused() -> None:
    reader = HelloReader()
    record = b"\x16\x03\x01\x3f\xff" + b"\x01\x00\xff\xf0" + bytes(16379)
    assert [reader.feed(record) for _ in range(3)] == [None] * 3
    with pytest.raises(HelloError, match="longer than 65536"):
        reader.feed(record)


def test_a_client_understands_the_alert() -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=MIRROR)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    incoming.write(alert(ACCESS_DENIED))
    with pytest.raises(ssl.SSLError, match=r"(?i)access.denied"):
        client.do_handshake()


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    for begun in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03"):
        with contextlib.suppress(HelloError):
            read(begun + data)


@given(st.data())
def test_mutated_hellos_raise_nothing_else_and_never_gain_a_name(data: st.DataObject) -> None:
    changed = bytearray(REAL)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        match data.draw(st.sampled_from(("change", "remove", "insert"))):
            case "change":
                changed[at] = data.draw(st.integers(0, 255))
            case "remove" if len(changed) > 1:
                del changed[at]
            case _:
                changed.insert(at, data.draw(st.integers(0, 255)))
    try:
        found = read(bytes(changed))
    except HelloError:
        return
    assert found is None or found.name is None or found.name.encode() in bytes(changed)


@given(st.lists(st.integers(1, 400), max_size=20), st.booleans())
def test_every_split_gives_the_same_answer(sizes: list[int], broken: bool) -> None:
    data = hello(server_name(b"a.example"), server_name(b"a.example")) if broken else records(message(REAL), 77)

    def answer(pieces: list[bytes]) -> Hello | str | None:
        reader, last = HelloReader(), None
        try:
            for piece in pieces:
                last = last or reader.feed(piece)
        except HelloError as error:
            return error.message
        return last

    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    pieces.append(data[at:])
    assert answer(pieces) == answer([data])
