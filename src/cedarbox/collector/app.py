"""The OTLP/HTTP endpoints, as a Starlette application.

A request is answered with 200 only after its content is on disk. Errors carry a ``google.rpc.Status`` in the media type
of the request, as OTLP/HTTP demands. Browsers are kept out: a page of any site could post to loopback, so a request
with an ``Origin`` is refused, and so is one whose ``Host`` is not a loopback name (DNS rebinding).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from cedarbox.collector.body import MAX_BODY, TooLargeError, inflate
from cedarbox.collector.store import Store
from cedarbox.errors import CedarboxError, HostError
from cedarbox.telemetry.otlp import from_json, from_protobuf

__all__ = ["application"]

_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

# Codes of google.rpc.Code.
_INVALID_ARGUMENT: Final = 3
_PERMISSION_DENIED: Final = 7
_RESOURCE_EXHAUSTED: Final = 8
_UNIMPLEMENTED: Final = 12
_UNAVAILABLE: Final = 14


class _Refusal(Exception):
    """An answer other than 200: the HTTP status, the google.rpc.Code and the reason."""

    def __init__(self, http: int, code: int, reason: str) -> None:
        super().__init__(reason)
        self.http, self.code, self.reason = http, code, reason


def application(store: Store, *, any_host: bool = False) -> Starlette:
    """Return the application.

    Args:
        store: Where requests are kept; the caller closes it.
        any_host: Accept any ``Host`` header; needed where the collector is reached from other hosts.
    """

    def keep(body: bytes, media: str, path: str) -> None:
        if path == "/v1/traces":
            kind = ExportTraceServiceRequest
            store.add_spans(from_json(body, kind) if media == _JSON else from_protobuf(body, kind))
        else:
            logs = ExportLogsServiceRequest
            store.add_logs(from_json(body, logs) if media == _JSON else from_protobuf(body, logs))

    async def receive(request: Request) -> Response:
        try:
            _admit(request, any_host=any_host)
            media = _media(request)
            body = await _body(request)
            await run_in_threadpool(_kept, keep, body, request, media)
        except _Refusal as refusal:
            return _answer(refusal, _answer_media(request))
        return Response(b"{}" if media == _JSON else b"", media_type=media)

    async def metrics(request: Request) -> Response:
        refusal = _Refusal(404, _UNIMPLEMENTED, "metrics are not kept here; send them to another collector")
        return _answer(refusal, _answer_media(request))

    return Starlette(
        routes=[
            Route("/v1/traces", receive, methods=["POST"]),
            Route("/v1/logs", receive, methods=["POST"]),
            Route("/v1/metrics", metrics, methods=["POST"]),
        ]
    )


def _media(request: Request) -> str:
    found = request.headers.get("content-type", "").split(";", 1)[0].strip().lower()
    if found not in {_PROTOBUF, _JSON}:
        raise _Refusal(415, _INVALID_ARGUMENT, f"the media type must be {_PROTOBUF} or {_JSON}")
    return found


def _answer_media(request: Request) -> str:
    return _PROTOBUF if request.headers.get("content-type", "").strip().lower().startswith(_PROTOBUF) else _JSON


def _admit(request: Request, *, any_host: bool) -> None:
    if "origin" in request.headers:
        raise _Refusal(403, _PERMISSION_DENIED, "requests from web pages are refused (an Origin header is set)")
    hosts = request.headers.getlist("host")
    host = hosts[0].lower() if len(hosts) == 1 else ""
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdecimal():
        name = host
    if name not in _LOOPBACK_NAMES and not any_host:
        raise _Refusal(403, _PERMISSION_DENIED, "the Host header must be localhost, 127.0.0.1 or [::1]")


async def _body(request: Request) -> bytes:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", ""}:
        raise _Refusal(415, _INVALID_ARGUMENT, "the content encoding must be gzip or none")
    received = bytearray()
    try:
        async for chunk in request.stream():
            received += chunk
            if len(received) > MAX_BODY:
                raise _too_large(TooLargeError())
    except ClientDisconnect:
        raise _Refusal(400, _INVALID_ARGUMENT, "the request was cut short") from None
    if encoding != "gzip":
        return bytes(received)
    try:
        return await run_in_threadpool(inflate, bytes(received))
    except TooLargeError as error:
        raise _too_large(error) from None
    except CedarboxError as error:
        raise _Refusal(400, _INVALID_ARGUMENT, str(error)) from None


def _too_large(error: TooLargeError) -> _Refusal:
    return _Refusal(413, _RESOURCE_EXHAUSTED, str(error))


def _kept(keep: Callable[[bytes, str, str], None], body: bytes, request: Request, media: str) -> None:
    try:
        keep(body, media, request.url.path)
    except HostError as error:
        raise _Refusal(503, _UNAVAILABLE, str(error)) from None
    except CedarboxError as error:
        raise _Refusal(400, _INVALID_ARGUMENT, str(error)) from None


def _answer(refusal: _Refusal, media: str) -> Response:
    reason = " ".join(refusal.reason.split())
    if media == _JSON:
        content = json.dumps({"code": refusal.code, "message": reason}).encode()
    else:
        text = reason.encode()
        content = b"\x08" + _varint(refusal.code) + b"\x12" + _varint(len(text)) + text
    return Response(content, status_code=refusal.http, media_type=media)


def _varint(value: int) -> bytes:
    """Encode as protobuf does; with it ``google.rpc.Status`` (code = 1, message = 2) needs no further package."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
