"""The page as an ASGI application: routes, static files, errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cedarbox.collector.page import views, views_more
from cedarbox.collector.page.guarding import Guarding
from cedarbox.collector.page.options import PageOptions
from cedarbox.collector.page.rendering import failed
from cedarbox.collector.page.state import State
from cedarbox.collector.store import Store
from cedarbox.errors import CedarboxError, ConfigurationError

__all__ = ["pages"]

_STATIC: Final = {
    "icon.svg": "image/svg+xml",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
}
"""Every static file there is, with its media type."""

_AT_ONCE: Final = 4
"""Pages that are made at the same time."""

_MAX_WAITING: Final = 32
"""Pages that may wait for their turn, those that are made included."""

View = Callable[[Request, State], Response]


def pages(store: Store, options: PageOptions, *, any_host: bool) -> Guarding:
    """Return the pages; see `cedarbox.collector.page.page`."""
    state = State.of(store, options)
    # The receivers of the same process need threads too.
    turns, waiting = asyncio.Semaphore(_AT_ONCE), [0]
    static = {name: files("cedarbox.collector.page").joinpath("static", name).read_bytes() for name in _STATIC}

    def route(path: str, view: View) -> Route:
        async def endpoint(request: Request) -> Response:
            if waiting[0] >= _MAX_WAITING:
                return failed(request, 503, "Too many pages are asked for at once.", "Try again in a moment.")
            waiting[0] += 1
            try:
                async with turns:
                    return await run_in_threadpool(view, request, state)
            except ConfigurationError as error:
                return failed(request, 400, error.message, error.hint or "")
            except CedarboxError as error:
                return failed(request, 503, error.message, error.hint or "")
            finally:
                waiting[0] -= 1

        return Route(path, endpoint, methods=["GET"])

    async def verify(request: Request) -> Response:
        return await views_more.verify(request, state)

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in static:
            return failed(request, 404, "There is no such file.")
        return Response(static[name], media_type=_STATIC[name], headers={"cache-control": "no-cache"})

    async def error(request: Request, reason: Exception) -> Response:
        status = reason.status_code if isinstance(reason, HTTPException) else 500
        said = {404: "There is no such page.", 405: "This page is only read."}.get(
            status, "The page could not be made."
        )
        return failed(request, status, said)

    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {HTTPException: error, 500: error}
    app = Starlette(
        routes=[
            route("/", views.overview),
            route("/runs", views.runs),
            route("/runs/{trace_id}", views.run),
            route("/decisions", views.decisions),
            route("/records/{stream:path}/{seq:int}", views.record),
            route("/sandboxes", views_more.sandboxes),
            route("/sandboxes/{session:path}", views_more.sandbox),
            route("/snapshots", views_more.snapshots),
            route("/egress", views_more.egress),
            route("/approvals", views_more.approvals),
            route("/ledger", views_more.ledger),
            route("/metrics", views_more.metrics),
            route("/search", views.search),
            Route("/ledger/verify", verify, methods=["POST"]),
            Route("/static/{name}", file, methods=["GET"]),
        ],
        exception_handlers=handlers,
    )
    return Guarding(app, any_host=any_host, close=state.close)
