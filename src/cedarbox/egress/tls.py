"""The first message of TLS, read strictly and never answered: which server the guest names.

RFC 8446 §4.1.2 (ClientHello), §5.1 (records), RFC 6066 §3 (server_name). What a server could read in another way than
this parser does is an error, and the connection is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cedarbox.errors import CedarboxError

__all__ = ["ACCESS_DENIED", "INTERNAL_ERROR", "Hello", "HelloError", "HelloReader", "alert"]

_HANDSHAKE: Final = 0x16
_CLIENT_HELLO: Final = 1
_MAX_HELLO: Final = 65536  # Bytes, records included; what browsers send with post-quantum keys is below 4096.
_MAX_RECORD: Final = 16384  # RFC 8446 §5.1
_SERVER_NAME: Final = 0
# draft-ietf-tls-esni: 0xfe0d is RFC 9849's encrypted_client_hello; the others are its drafts and ESNI before it.
_ENCRYPTED: Final = frozenset((0xFE0D, 0xFE0C, 0xFE0B, 0xFE0A, 0xFE09, 0xFE08, 0xFFCE))
# ech_outer_extensions, which has no place in a hello that is sent in the open.
_INNER_ONLY: Final = 0xFD00

ACCESS_DENIED: Final = 49  # RFC 8446 §6.2
INTERNAL_ERROR: Final = 80


class HelloError(CedarboxError):
    """What came is no ClientHello that has one meaning."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a ClientHello says of the server.

    Attributes:
        name: The name as it was sent; None for no name.
        encrypted: It carries an encrypted ClientHello, or pretends to: the name that counts cannot be seen.
    """

    name: str | None
    encrypted: bool


def alert(description: int) -> bytes:
    """Return a fatal alert, as a server sends it before anything is agreed."""
    return bytes((0x15, 3, 3, 0, 2, 2, description))


class HelloReader:
    """Gathers a ClientHello from pieces of any size, over as many records as it has. Each byte is looked at once."""

    def __init__(self) -> None:
        self._raw = bytearray()
        self._next = 0
        self._message = bytearray()

    def feed(self, data: bytes) -> Hello | None:
        """Take the next bytes of the connection; return the hello once it is complete.

        Raises:
            HelloError: It is not a ClientHello, is too long, or has more than one reading.
        """
        self._raw += data
        while len(self._raw) - self._next >= 5:
            kind, major, minor = self._raw[self._next : self._next + 3]
            length = int.from_bytes(self._raw[self._next + 3 : self._next + 5])
            if kind != _HANDSHAKE or major != 3 or minor > 4:
                raise HelloError("a record that is no handshake stands before the end of the ClientHello")
            if not 0 < length <= _MAX_RECORD:
                raise HelloError(f"a record has {length} bytes")
            if self._next + 5 + length > _MAX_HELLO:
                raise HelloError(f"the ClientHello is longer than {_MAX_HELLO} bytes")
            if len(self._raw) < self._next + 5 + length:
                return None
            self._message += self._raw[self._next + 5 : self._next + 5 + length]
            self._next += 5 + length
            if self._message[0] != _CLIENT_HELLO:
                raise HelloError("the first message is no ClientHello")
            if len(self._message) >= 4:
                whole = 4 + int.from_bytes(self._message[1:4])
                if whole > _MAX_HELLO:
                    raise HelloError(f"the ClientHello is longer than {_MAX_HELLO} bytes")
                if len(self._message) > whole:
                    raise HelloError("a record goes on after the ClientHello")
                if len(self._message) == whole:
                    return _parse(bytes(self._message[4:]))
        return None


class _Fields:
    """Bytes that are taken from the front, all of them."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise HelloError("a field is longer than what holds it")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int, least: int, most: int) -> bytes:
        length = self.number(size)
        if not least <= length <= most:
            raise HelloError(f"a field of {least} to {most} bytes has {length}")
        return self.take(length)

    @property
    def left(self) -> int:
        return len(self._data) - self._at


def _parse(body: bytes) -> Hello:
    hello = _Fields(body)
    if hello.number(1) != 3:
        raise HelloError("the ClientHello is of no version of TLS")
    hello.take(1 + 32)
    hello.vector(1, 0, 32)
    if len(hello.vector(2, 2, 65534)) % 2:
        raise HelloError("the list of cipher suites is cut in the middle of one")
    hello.vector(1, 1, 255)
    found = _extensions(hello.vector(2, 0, 65535)) if hello.left else {}
    if hello.left:
        raise HelloError("bytes follow the extensions")
    if _INNER_ONLY in found:
        raise HelloError("an extension that is for encrypted hellos only is in the open")
    name = _name(found[_SERVER_NAME]) if _SERVER_NAME in found else None
    return Hello(name, encrypted=not _ENCRYPTED.isdisjoint(found))


def _extensions(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    rest = _Fields(data)
    while rest.left:
        kind, body = rest.number(2), rest.vector(2, 0, 65535)
        if kind in found:
            raise HelloError(f"the extension {kind} is there twice")
        found[kind] = body
    return found


def _name(data: bytes) -> str:
    rest = _Fields(data)
    names = _Fields(rest.vector(2, 1, 65535))
    kind = names.number(1)
    text = names.vector(2, 1, 65535)
    if kind != 0 or names.left or rest.left:
        raise HelloError("the server name is not exactly one host name")
    if not text.isascii():
        raise HelloError("the server name is not in ASCII")
    return text.decode("ascii")
