"""The templates of the page and what they are given."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from cedarbox.collector.page.filters import url
from cedarbox.collector.page.records import Seen
from cedarbox.collector.page.shown import FILTERS

__all__ = ["PAGES", "failed", "record_url", "rendered"]

PAGES: Final = (
    ("/", "Overview"),
    ("/runs", "Runs"),
    ("/decisions", "Decisions"),
    ("/sandboxes", "Sandboxes"),
    ("/snapshots", "Snapshots"),
    ("/egress", "Egress"),
    ("/approvals", "Approvals"),
    ("/ledger", "Ledger"),
    ("/metrics", "Metrics"),
)
"""The pages in the navigation: path and name."""

_LOOKS: Final = frozenset({"dark", "light"})
_MAX_PAGE: Final = 8 * 1024 * 1024
"""Largest page, in characters; a reader is asked to narrow what would be larger."""


def record_url(stream: str, seq: int, ledger: str = "") -> str:
    """Return where a record is shown."""
    return url(f"/records/{quote(stream, safe='')}/{seq}", ledger=ledger)


def rendered(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """Return a page.

    Args:
        request: What is answered.
        template: Its template.
        status: The HTTP status.
        values: For the template.
    """
    text = (
        _environment()
        .get_template(template)
        .render(
            here="/" + request.url.path.split("/")[1],
            look=_look(request),
            origin=_origin(request),
            pages=PAGES,
            **values,
        )
    )
    if len(text) > _MAX_PAGE:
        return failed(request, 413, "This page would be too large.", "Narrow it with a filter.")
    return HTMLResponse(text, status_code=status)


def failed(request: Request, status: int, message: str, hint: str = "") -> Response:
    """Return a page that says what is wrong."""
    title = {404: "Not found", 405: "Not allowed"}.get(status, "It did not work")
    return rendered(request, "error.html", status, title=title, message=message, hint=hint)


def _look(request: Request) -> str:
    look = request.cookies.get("cedarbox-look", "")
    return look if look in _LOOKS else ""


def _origin(request: Request) -> str:
    return f"{request.url.scheme}://{request.headers.get('host', '')}"[:100]


def _link(record: Seen, seq: int | None = None) -> str:
    return record_url(record.stream, record.seq or 0 if seq is None else seq, record.row.ledger)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cedarbox.collector.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(FILTERS)
    known: Mapping[str, Any] = {"url": url, "record_url": record_url, "link": _link}
    environment.globals.update(known)
    return environment
