"""The OTLP/HTTP endpoints, as a Starlette application.

A request is answered with 200 only after its content is on disk. Errors carry a ``google.rpc.Status`` in the media type
of the request, as OTLP/HTTP demands. Browsers are kept out: a page of any site could post to loopback, so a request
with an ``Origin`` is refused, and so is one whose ``Host`` is not a loopback name (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import json
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from cedarbox.collector.body import MAX_BODY, TooLargeError, inflate
from cedarbox.collector.intake import PATHS, Signal, keep
from cedarbox.collector.limits import RETRY_SECONDS, Budget, BusyError, Limits, Ticket
from cedarbox.collector.status import (
    INVALID_ARGUMENT,
    PERMISSION_DENIED,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    status_bytes,
)
from cedarbox.collector.store import Store
from cedarbox.errors import CedarboxError, HostError

__all__ = ["application"]

_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_OTHERS: Final = ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS")
_LATER: Final = frozenset({429, 503})
"""Statuses after which a sender of OTLP tries again."""


class _Refusal(Exception):
    """An answer other than 200: the HTTP status, the google.rpc.Code and the reason."""

    def __init__(self, http: int, code: int, reason: str) -> None:
        super().__init__(reason)
        self.http, self.code, self.reason = http, code, reason


def application(
    store: Store,
    *,
    any_host: bool = False,
    budget: Budget | None = None,
    limits: Limits | None = None,
    pages: ASGIApp | None = None,
) -> Starlette:
    """Return the application.

    Args:
        store: Where requests are kept; the caller closes it.
        any_host: Accept any ``Host`` header; needed where the collector is reached from other hosts.
        budget: What may be under way at once, when other receivers share it.
        limits: The bounds of one request, and of the budget when none is given.
        pages: What answers everything else, see `cedarbox.collector.page`; nothing does when None.
    """
    bounds = limits or Limits()
    shared = budget or Budget(bounds)

    async def receive(request: Request) -> Response:
        try:
            _admit(request, any_host=any_host)
            media = _media(request)
            gzipped = _gzipped(request)
            try:
                with shared.request() as ticket:
                    body = await _body(request, ticket, bounds.body_seconds)
                    signal = PATHS[request.url.path]
                    await run_in_threadpool(_kept, store, shared, signal, body, gzipped=gzipped, json=media == _JSON)
            except BusyError as error:
                raise _Refusal(429, RESOURCE_EXHAUSTED, str(error)) from None
        except _Refusal as refusal:
            return _answer(refusal, _answer_media(request))
        return Response(b"{}" if media == _JSON else b"", media_type=media)

    routes: list[BaseRoute] = [Route(path, receive, methods=["POST"]) for path in PATHS]
    if pages is not None:
        # What only matches a path in part would be a page that does not exist.
        routes += [Route(path, _not_allowed, methods=_OTHERS) for path in PATHS]
        routes.append(Mount("/", pages))
    return Starlette(routes=routes)


async def _not_allowed(request: Request) -> Response:
    return Response("Method Not Allowed", status_code=405, headers={"allow": "POST"}, media_type="text/plain")


def _media(request: Request) -> str:
    found = request.headers.get("content-type", "").split(";", 1)[0].strip().lower()
    if found not in {_PROTOBUF, _JSON}:
        raise _Refusal(415, INVALID_ARGUMENT, f"the media type must be {_PROTOBUF} or {_JSON}")
    return found


def _answer_media(request: Request) -> str:
    return _PROTOBUF if request.headers.get("content-type", "").strip().lower().startswith(_PROTOBUF) else _JSON


def _admit(request: Request, *, any_host: bool) -> None:
    if "origin" in request.headers:
        raise _Refusal(403, PERMISSION_DENIED, "requests from web pages are refused (an Origin header is set)")
    hosts = request.headers.getlist("host")
    host = hosts[0].lower() if len(hosts) == 1 else ""
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdecimal():
        name = host
    if name not in _LOOPBACK_NAMES and not any_host:
        raise _Refusal(403, PERMISSION_DENIED, "the Host header must be localhost, 127.0.0.1 or [::1]")


def _gzipped(request: Request) -> bool:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", ""}:
        raise _Refusal(415, INVALID_ARGUMENT, "the content encoding must be gzip or none")
    return encoding == "gzip"


async def _body(request: Request, ticket: Ticket, seconds: float) -> bytes:
    received = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                ticket.take(len(chunk))
                received += chunk
                if len(received) > MAX_BODY:
                    raise _too_large(TooLargeError())
    except ClientDisconnect:
        raise _Refusal(400, INVALID_ARGUMENT, "the request was cut short") from None
    except TimeoutError:
        raise _Refusal(408, INVALID_ARGUMENT, f"the body took longer than {seconds:g} s to arrive") from None
    return bytes(received)


def _too_large(error: TooLargeError) -> _Refusal:
    return _Refusal(413, RESOURCE_EXHAUSTED, str(error))


def _kept(store: Store, budget: Budget, signal: Signal, body: bytes, *, gzipped: bool, json: bool) -> None:
    try:
        with budget.working:
            keep(store, signal, inflate(body) if gzipped else body, json=json)
    except TooLargeError as error:
        raise _too_large(error) from None
    except HostError as error:
        raise _Refusal(503, UNAVAILABLE, str(error)) from None
    except CedarboxError as error:
        raise _Refusal(400, INVALID_ARGUMENT, str(error)) from None


def _answer(refusal: _Refusal, media: str) -> Response:
    reason = " ".join(refusal.reason.split())
    if media == _JSON:
        content = json.dumps({"code": refusal.code, "message": reason}).encode()
    else:
        content = status_bytes(refusal.code, reason)
    headers = {"retry-after": str(RETRY_SECONDS)} if refusal.http in _LATER else {}
    if refusal.http == 408:
        headers["connection"] = "close"
    return Response(content, status_code=refusal.http, media_type=media, headers=headers)
