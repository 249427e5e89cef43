"""What stands before every page: who may ask, and what a browser may do with the answer.

The page has no login. It is for the browsers of this host, so a request is refused whose ``Host`` is not a loopback
name (a site that points its own name here), and one that another site makes its visitors send.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HEADERS", "LOOPBACK_NAMES", "Guarding", "host_name"]

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Sent with every answer of the page."""


class Guarding:
    """Refuses what must not be answered, and adds `HEADERS` to what is.

    Args:
        app: The pages.
        any_host: Accept any ``Host``; needed where the collector is reached from other hosts.
        close: Called by `close`.
    """

    def __init__(self, app: ASGIApp, *, any_host: bool = False, close: Callable[[], None] = lambda: None) -> None:
        self._app, self._any_host, self._close = app, any_host, close

    def close(self) -> None:
        """Close what the pages read from."""
        self._close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.encode() for name in HEADERS}
                kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in own]
                if not any(name == b"cache-control" for name, _ in kept):
                    kept.append((b"cache-control", b"no-store"))
                message["headers"] = [*kept, *((name.encode(), value.encode()) for name, value in HEADERS.items())]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, guarded)
            return
        body = f"<!doctype html><title>Refused</title><p>{html.escape(refusal)}</p>\n".encode()
        headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        await guarded({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope) -> str | None:
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value.decode("latin-1"))
        host = headers.get(b"host", [])
        if len(host) != 1 or (not self._any_host and host_name(host[0]) not in LOOPBACK_NAMES):
            return "The Host header must be localhost, 127.0.0.1 or [::1]."
        site = headers.get(b"sec-fetch-site", ["none"])
        origin = headers.get(b"origin", [])
        # A form of a page without a referrer has the origin "null"; only the browser itself can say that it is ours.
        ours = origin == ["null"] and site == ["same-origin"]
        # A proxy in front may speak TLS, so that the scheme is not known here.
        if origin and not ours and origin not in ([f"http://{host[0]}"], [f"https://{host[0]}"]):
            return "The request comes from another site."
        navigation = headers.get(b"sec-fetch-mode") == ["navigate"] and headers.get(b"sec-fetch-dest") == ["document"]
        # A link on another site may lead here; nothing else of it may, and no form of it.
        if site not in (["none"], ["same-origin"]) and not (navigation and scope["method"] in {"GET", "HEAD"}):
            return "The request comes from another site."
        return None


def host_name(host: str) -> str:
    """Return the name in a ``Host`` header, in lower case, without the port."""
    text = host.lower()
    name, colon, port = text.rpartition(":")
    return name if colon and port.isascii() and port.isdecimal() else text
