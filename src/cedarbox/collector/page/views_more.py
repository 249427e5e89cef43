"""The pages about sandboxes, snapshots, connections, approvals, the ledger and metrics."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from cedarbox.collector.page.charts import Chart, Series, chart
from cedarbox.collector.page.filters import Filters
from cedarbox.collector.page.lineage import ACTIONS, lineage
from cedarbox.collector.page.measured import from_metrics
from cedarbox.collector.page.records import Seen
from cedarbox.collector.page.rendering import failed, rendered
from cedarbox.collector.page.state import State, all_seen
from cedarbox.collector.page.views import ROWS, cursor_of, paged
from cedarbox.collector.views import RecordFilter

__all__ = ["approvals", "egress", "ledger", "metrics", "sandbox", "sandboxes", "snapshots", "verify"]

_SNAPSHOTS: Final = 500
_MAX_FORM: Final = 4096
_MINUTE: Final = 60_000_000_000
_SPANS: Final[Mapping[str, tuple[str, int, int, str]]] = {
    "1h": ("an hour", 60, 1, "a minute"),
    "6h": ("6 hours", 6 * 60, 5, "in 5 minutes"),
    "1d": ("a day", 24 * 60, 20, "in 20 minutes"),
    "7d": ("a week", 7 * 24 * 60, 120, "in 2 hours"),
}
"""Of each span of time: its name, its minutes, the minutes of a step, and how a step is called."""


@dataclass(frozen=True, slots=True)
class Link:
    """A connection: the decision about it, and what became of it."""

    decision: Seen
    host: str
    opened: Seen | None = None
    closed: Seen | None = None
    revoked: bool = False

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the latest of its records says."""
        latest = self.closed or self.opened
        return latest.attrs if latest is not None else {}

    @property
    def address(self) -> Any:
        """The IP address that was dialled."""
        return self.facts.get("address")

    @property
    def place(self) -> str:
        """The address with its port."""
        address, port = str(self.address), _integer(self.facts.get("port"))
        shown = f"[{address}]" if ":" in address else address
        return shown if port is None else f"{shown}:{port}"

    @property
    def bytes_out(self) -> int | None:
        """Bytes from the sandbox."""
        return _integer(self.facts.get("bytes_out"))

    @property
    def bytes_in(self) -> int | None:
        """Bytes to the sandbox."""
        return _integer(self.facts.get("bytes_in"))

    @property
    def milliseconds(self) -> int | None:
        """How long it lasted."""
        return _integer(self.facts.get("milliseconds"))

    @property
    def ended(self) -> str | None:
        """Why it ended."""
        reason = self.closed.attrs.get("reason") if self.closed is not None else None
        return reason if isinstance(reason, str) else None


def sandboxes(request: Request, state: State) -> Response:
    """List sandboxes by their creation."""
    records, following = state.records(RecordFilter(event="sandbox.created"), ROWS, cursor_of(request))
    found = []
    for record in records:
        box = state.asking.sandbox(record.session) if record.session else None
        if box is not None:
            found.append(replace(box, attrs=dict(_no_nothing(record.attrs))))
    return rendered(request, "sandboxes.html", found=found, page=paged(request, "/sandboxes", following, {}))


def sandbox(request: Request, state: State) -> Response:
    """Show one sandbox."""
    session = request.path_params["session"]
    box = state.asking.sandbox(session)
    if box is None:
        return failed(request, 404, "No record of this sandbox was received.")
    created, _ = state.records(RecordFilter(event="sandbox.created", session=session), 1)
    attrs = dict(_no_nothing(created[0].attrs)) if created else {}
    found, following = state.records(RecordFilter(session=session), ROWS, cursor_of(request))
    pages = paged(request, request.url.path, following, {})
    return rendered(request, "sandbox.html", box=replace(box, attrs=attrs), found=found, page=pages, session=session)


def snapshots(request: Request, state: State) -> Response:
    """Show which snapshot came from which."""
    page = state.queries.records(RecordFilter(family="snapshot"), limit=_SNAPSHOTS)
    found = all_seen(page.rows)
    for action in ACTIONS:
        found += state.records(RecordFilter(family="decision", decision="deny", action=action), 100)[0]
    cut = _SNAPSHOTS if page.next else 0
    return rendered(request, "snapshots.html", roots=lineage(found), cut=cut)


def egress(request: Request, state: State) -> Response:
    """List connections, and what was refused."""
    filters = Filters.read(request.query_params, ("decision", "resource", "session", "since", "until"))
    found, following = [], None
    if not filters.errors:
        where = filters.records(family="decision", action="connect")
        records, following = state.records(where, ROWS, cursor_of(request))
        found = [_joined(state, record) for record in records]
    status = 400 if filters.errors else 200
    pages = paged(request, "/egress", following, filters.given)
    return rendered(request, "egress.html", status, filters=filters, found=found, page=pages)


def approvals(request: Request, state: State) -> Response:
    """List what was recorded of approvals."""
    page = state.queries.records(RecordFilter(family="approval"), limit=ROWS, cursor=cursor_of(request))
    pages = paged(request, "/approvals", page.next, {})
    return rendered(request, "approvals.html", found=all_seen(page.rows), page=pages)


def ledger(request: Request, state: State) -> Response:
    """Show what was received of the ledger, and whether it verifies."""
    found = state.ledger()
    conflicts = state.records(RecordFilter(conflicts=True), ROWS)[0] if found.conflicts else []
    return rendered(
        request,
        "ledger.html",
        conflicts=conflicts,
        dropped=state.queries.dropped(),
        ledger=found,
        token=state.token,
        verifier=state.verifier.state,
    )


async def verify(request: Request, state: State) -> Response:
    """Begin a verification; the form must come from a page of this process."""
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_FORM:
                return failed(request, 413, "The form is too large.")
    except ClientDisconnect:
        return failed(request, 400, "The form was cut short.")
    given = parse_qs(body.decode("ascii", "replace"), max_num_fields=8).get("token", [])
    if len(given) != 1 or not hmac.compare_digest(given[0].encode(), state.token.encode()):
        return failed(
            request, 403, "The form is not of this page.", "Open the page Ledger again and press Verify there."
        )
    state.verifier.start()
    return RedirectResponse("/ledger", status_code=303)


def metrics(request: Request, state: State) -> Response:
    """Draw numbers by time."""
    chosen = request.query_params.get("last", "1h")
    chosen = chosen if chosen in _SPANS else "1h"
    _, minutes, step_minutes, named = _SPANS[chosen]
    step = step_minutes * _MINUTE
    newest = state.asking.newest()
    charts: list[Chart | None] = []
    if newest is not None:
        until = newest - newest % step + step
        since = until - minutes * _MINUTE
        times = range(since, until, step)

        def counted(title: str, unit: str, what: str, names: Mapping[str, str]) -> Chart | None:
            found = state.asking.by_time(what, since, until, step)
            return chart(
                title,
                unit,
                [_filled(found, key, name, times) for key, name in names.items()],
                start_ns=since,
                end_ns=until - step,
                step_ns=step,
            )

        charts = [
            counted(f"Decisions {named}", "", "decisions", {"allow": "allowed", "deny": "denied"}),
            counted(
                f"Sandboxes {named}", "", "sandboxes", {"sandbox.created": "created", "sandbox.deleted": "deleted"}
            ),
            counted(f"Bytes of connections {named}", "By", "egress", {"bytes_out": "sent", "bytes_in": "received"}),
            *from_metrics(state.queries, since, until, step),
        ]
    drawn = [each for each in charts if each is not None]
    spans = [(name, text) for name, (text, *_) in _SPANS.items()]
    return rendered(request, "metrics.html", charts=drawn, chosen=chosen, clock=_clock, spans=spans)


def _joined(state: State, decision: Seen) -> Link:
    kind, _, rest = (decision.resource or "").partition('::"')
    host = rest.removesuffix('"') if rest else kind
    if decision.denied or decision.seq is None:
        return Link(decision, host)
    later = [
        each
        for each in all_seen(state.queries.of_decision(decision.stream, decision.seq))
        if each.row.ledger == decision.row.ledger
    ]
    by_event = {each.event: each for each in later}
    revoked = by_event.get("egress.revoked")
    return Link(decision, host, by_event.get("egress.opened"), by_event.get("egress.closed", revoked), bool(revoked))


def _filled(found: Sequence[tuple[int, str, float]], key: str, name: str, times: range) -> Series:
    """Return a series with a zero where nothing was counted; empty when nothing was at all."""
    values = {at: float(value) for at, own, value in found if own == key}
    return Series(name, [(at, values.get(at, 0.0)) for at in times] if values else [])


def _clock(nanoseconds: int) -> str:
    return f"{datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC):%Y-%m-%d %H:%M}"


def _integer(value: object) -> int | None:
    return value if type(value) is int else None


def _no_nothing(attrs: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in attrs.items() if value not in (None, [], ())}
