"""One request in plain HTTP: what it is about, and what of it is sent on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import h11

from cedarbox.egress.admission import HttpRequest
from cedarbox.egress.guest import HeadError
from cedarbox.egress.secrets import put_in
from cedarbox.egress.targets import Target, absolute, authority, request_path, spelled

__all__ = ["HTTP_PORT", "Asked", "answer_headers", "parse", "read"]

HTTP_PORT: Final = 80

# RFC 9110 §7.6.1, and what old clients send to proxies; the last is of h2c, which would end the reading of requests.
_HOP_BY_HOP: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"http2-settings")
)
# What a request is framed and routed by: to have these removed on the way would make it another.
_FIXED: Final = frozenset((b"host", b"content-length", b"transfer-encoding"))
# With these a server shows a part of an answer, or shows it in a form in which no value can be found.
_REVEALING: Final = frozenset((b"accept-encoding", b"range", b"if-range", b"sec-websocket-extensions"))


_Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, read.

    Attributes:
        target: Where to.
        request: What is decided.
        query: With its question mark; empty for none.
        event: As it came.
        body: It has one.
    """

    target: Target
    request: HttpRequest
    query: str
    event: h11.Request
    body: bool

    @property
    def values(self) -> list[bytes]:
        """The values of its headers."""
        return [value for _, value in self.event.headers]

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent again when nobody knows whether it arrived (RFC 9110 §9.2.2)."""
        return not self.body and self.request.method in {"GET", "HEAD", "OPTIONS"}

    def forwarded(self, secrets: Mapping[str, bytes], *, guarded: bool) -> h11.Request:
        """Return what is sent on.

        Args:
            secrets: Values for the placeholders in its headers.
            guarded: The answer could hold a secret: it must come whole and plain.
        """
        gone = _removed(self.event.headers) | (_REVEALING if guarded else frozenset())
        headers = [(b"Host", spelled(self.target, port_of_scheme=HTTP_PORT).encode("ascii"))]
        for raw, value in self.event.headers.raw_items():
            name = raw.lower()
            if name == b"host" or name in gone or name.startswith(b"proxy-"):
                continue
            if name == b"expect" and (value.lower() != b"100-continue" or self.event.http_version != b"1.1"):
                continue
            headers.append((raw, put_in(value, secrets)))
        if guarded:
            headers.append((b"Accept-Encoding", b"identity"))
        if self.request.upgrade:
            headers += [(b"Connection", b"Upgrade"), (b"Upgrade", self.request.upgrade.encode("ascii"))]
        return h11.Request(method=self.request.method, target=self.request.path + self.query, headers=headers)


def read(connection: h11.Connection, head: bytes) -> h11.Request:
    """Return the request that a whole head is.

    Raises:
        HeadError: It is none.
    """
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise HeadError(f"the request cannot be read: {error}") from None
    if not isinstance(event, h11.Request):
        raise HeadError("the request cannot be read")
    method, names = bytes(event.method), [bytes(name) for name, _ in event.headers]
    if event.http_version not in {b"1.0", b"1.1"}:
        raise HeadError("the version of HTTP is not 1.0 or 1.1")
    if method != method.upper():
        raise HeadError("the method is not in upper case")
    if b"transfer-encoding" in names and (b"content-length" in names or event.http_version == b"1.0"):
        raise HeadError("the length of the request has two readings")
    if _FIXED & set(_tokens(event.headers, b"connection")):
        raise HeadError("the header Connection names one that must not be removed")
    return event


def parse(event: h11.Request, fixed: Target | None) -> Asked:
    """Return what a request is about.

    Args:
        event: Any request but CONNECT.
        fixed: Where the tunnel leads that it came through; None for a request to a proxy.

    Raises:
        CanonicalizationError: It has no single reading.
        HeadError: It names two targets, or none.
    """
    text = event.target.decode("ascii")
    if text.startswith("/"):
        if fixed is None:
            raise HeadError("a request to a proxy names its host in the request line")
        target, rest = fixed, text
    else:
        host, rest = absolute(text)
        target = authority(host, default_port=HTTP_PORT)
        if fixed is not None and target != fixed:
            raise HeadError(f"the tunnel is to {spelled(fixed)}, and the request to {spelled(target)}")
    for name, value in event.headers:
        if name == b"host" and authority(value.decode("ascii", "backslashreplace"), default_port=HTTP_PORT) != target:
            raise HeadError(f"the request is to {spelled(target)}, and its header Host names {value[:253]!r}")
    path, query = request_path(rest)
    names = [bytes(name) for name, _ in event.headers]
    body = b"transfer-encoding" in names or any(
        name == b"content-length" and int(value) for name, value in event.headers
    )
    wanted = _tokens(event.headers, b"upgrade")
    upgrade = None
    if wanted == [b"websocket"] and b"upgrade" in _tokens(event.headers, b"connection"):
        if event.method != b"GET" or event.http_version != b"1.1" or body:
            raise HeadError("a WebSocket begins with a GET without a body")
        upgrade = "websocket"
    return Asked(target, HttpRequest(event.method.decode("ascii"), path, upgrade), query, event, body)


def answer_headers(response: h11.Response | h11.InformationalResponse) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer that are passed on; h11 frames it anew."""
    gone = _removed(response.headers) | {b"transfer-encoding"}
    if any(name == b"transfer-encoding" for name, _ in response.headers):
        gone |= {b"content-length"}
    return [
        (raw, value)
        for raw, value in response.headers.raw_items()
        if raw.lower() not in gone and not raw.lower().startswith(b"proxy-")
    ]


def _removed(headers: _Headers) -> frozenset[bytes]:
    return _HOP_BY_HOP | (frozenset(_tokens(headers, b"connection")) - _FIXED)


def _tokens(headers: _Headers, wanted: bytes) -> list[bytes]:
    values = (value.lower().split(b",") for name, value in headers if name == wanted)
    return [stripped for value in values for token in value if (stripped := token.strip())]
