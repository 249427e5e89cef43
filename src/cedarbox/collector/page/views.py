"""The pages about runs, decisions and single records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cedarbox.collector.page.asking import RunSeen
from cedarbox.collector.page.filters import MAX_VALUE, Filters, url
from cedarbox.collector.page.records import Seen
from cedarbox.collector.page.rendering import failed, rendered
from cedarbox.collector.page.state import State, all_seen
from cedarbox.collector.page.verifying import Verifying
from cedarbox.collector.page.waterfall import MAX_ROWS, waterfall
from cedarbox.collector.views import RecordFilter, SpanRow

__all__ = ["Pager", "cursor_of", "decisions", "overview", "record", "run", "runs", "search"]

ROWS: Final = 50
"""Rows of a page of a list."""

_OF_RUN: Final = 2000
"""Most records of a run that are read for its page."""

_MAX_SPANS: Final = 20_000
_DAY: Final = 86_400_000_000_000
_EVENTS: Final = (
    ("decision", "decisions"),
    ("", "every event"),
    ("outcome", "outcomes"),
    ("approval.requested", "approval requested"),
    ("approval.granted", "approval granted"),
    ("approval.rejected", "approval rejected"),
    ("egress.opened", "egress opened"),
    ("egress.closed", "egress closed"),
    ("egress.revoked", "egress revoked"),
    ("operation.revoked", "operation revoked"),
    ("terminal.revoked", "terminal revoked"),
    ("policy.loaded", "policy loaded"),
    ("policy.reloaded", "policy reloaded"),
    ("policy.rejected", "policy rejected"),
    ("sandbox.created", "sandbox created"),
    ("sandbox.resumed", "sandbox resumed"),
    ("sandbox.revoked", "sandbox revoked"),
    ("sandbox.deleted", "sandbox deleted"),
    ("snapshot.created", "snapshot created"),
    ("snapshot.restored", "snapshot restored"),
    ("snapshot.forked", "snapshot forked"),
    ("snapshot.exported", "snapshot exported"),
    ("snapshot.refused", "snapshot refused"),
    ("snapshot.deleted", "snapshot deleted"),
    ("ledger.recovered", "ledger recovered"),
    ("stream.recovered", "stream recovered"),
    ("segment.sealed", "segment sealed"),
    ("key.rotated", "key rotated"),
    ("clock.stepped", "clock stepped"),
    ("tracing.sealed", "tracing sealed"),
)
_DECISION_FILTERS: Final = (
    "decision", "event", "action", "resource", "policy", "session", "principal", "run", "since", "until",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pager:
    """Links to further rows; None where there are none."""

    newer: str | None
    older: str | None


def cursor_of(request: Request) -> str | None:
    """Return the cursor that was asked for, bounded."""
    return request.query_params.get("cursor", "")[:100] or None


def paged(request: Request, path: str, following: str | None, given: Mapping[str, str]) -> Pager:
    """Return the links of a page of a list."""
    newer = url(path, **given) if cursor_of(request) else None
    return Pager(newer, url(path, **given, cursor=following) if following else None)


def overview(request: Request, state: State) -> Response:
    """Show the state in short, the last denials and the last runs."""
    newest = state.asking.newest()
    denials, _ = state.records(RecordFilter(family="decision", decision="deny"), 8)
    runs = state.asking.runs(limit=8).rows
    return rendered(
        request,
        "overview.html",
        denials=denials,
        denials_day=state.asking.denials(max(0, (newest or 0) - _DAY)),
        ledger=state.ledger(),
        newest=runs[0].start_ns if runs else None,
        runs=runs,
        runs_total=state.asking.runs_of_agents(),
        sandboxes_open=state.asking.unended(),
        verdict=_verdict(state.verifier.state),
    )


def runs(request: Request, state: State) -> Response:
    """List runs."""
    filters = Filters.read(request.query_params, ("q", "kind", "with", "since", "until"))
    given = filters.given
    found: list[RunSeen] = []
    following = None
    if not filters.errors:
        page = state.asking.runs(
            text=given["q"],
            everything=given["kind"] == "all",
            having=given["with"],
            since_ns=filters.moments.get("since"),
            until_ns=filters.moments.get("until"),
            limit=ROWS,
            cursor=cursor_of(request),
        )
        found, following = page.rows, page.next
    status = 400 if filters.errors else 200
    pages = paged(request, "/runs", following, given)
    return rendered(request, "runs.html", status, filters=filters, runs=found, page=pages)


def run(request: Request, state: State) -> Response:
    """Show one run: its denials, its spans, its decisions."""
    trace_id = request.path_params["trace_id"].lower()
    found = state.run(trace_id)
    if found is None:
        return failed(request, 404, "Nothing of this run was received.", "It may have been dropped since.")
    first = min(_integer(request.query_params.get("first", "")), _MAX_SPANS)
    notable = request.query_params.get("spans") == "notable"
    spans = state.queries.spans(trace_id, limit=_MAX_SPANS)
    records, more = state.records(RecordFilter(trace_id=trace_id), _OF_RUN)
    records.reverse()
    decided = [each for each in records if each.event == "decision"]
    by_span: dict[str, Seen] = {}
    for each in [*decided, *records]:
        if each.row.span_id:
            by_span.setdefault(each.row.span_id, each)
    fall = waterfall(spans, notable_only=notable, first=first)
    return rendered(
        request,
        "run.html",
        bundles=sorted({each.bundle for each in records if each.bundle}),
        by_span=by_span,
        decisions=decided[:500],
        denials=[each for each in decided if each.denied],
        details=_details,
        failures=fall.failed,
        fall=fall,
        first=first,
        kind=_kind,
        more_decisions=more is not None or len(decided) > 500,
        notable=notable,
        run=found,
        sessions=sorted({each.session for each in records if each.session})[:10],
        shown_spans={row.span.span_id for row in fall.rows},
        step=MAX_ROWS,
    )


def decisions(request: Request, state: State) -> Response:
    """List decisions, or other records."""
    filters = Filters.read(request.query_params, _DECISION_FILTERS, event="decision")
    known = {value for value, _ in _EVENTS}
    events = [*_EVENTS, *([] if filters.given["event"] in known else [(filters.given["event"],) * 2])]
    found: list[Seen] = []
    following = None
    if not filters.errors:
        wanted = filters.records()
        found, following = state.records(wanted, ROWS, cursor_of(request))
    return rendered(
        request,
        "decisions.html",
        400 if filters.errors else 200,
        events=events,
        filters=filters,
        found=found,
        page=paged(request, "/decisions", following, filters.given),
    )


def record(request: Request, state: State) -> Response:
    """Show one record in full."""
    stream, number = request.path_params["stream"], request.path_params["seq"]
    ledger = request.query_params.get("ledger") or None
    rows = all_seen(state.queries.record(f"{stream}/{number}", ledger=ledger)) if number < 2**53 else []
    if not rows:
        return failed(request, 404, "This record was not received.", "The ledger may have it: see the page Ledger.")
    shown = rows[0]
    before = _one(state, shown, number - 1)
    after = _one(state, shown, number + 1)
    later = all_seen(state.queries.of_decision(stream, number)) if shown.decision else []
    others = [row for row in rows[1:] if row.row.ledger == shown.row.ledger]
    return rendered(
        request,
        "record.html",
        after=after,
        before=before,
        chained=None if before is None and number else shown.prev == (before.hash if before else "0" * 64),
        later=[each for each in later if each.row.ledger == shown.row.ledger and each.seq is not None],
        others=others,
        record=shown,
        texts=state.texts.of(shown.bundle),
    )


def search(request: Request, state: State) -> Response:
    """Find runs, sandboxes and records by an id or a text."""
    asked = request.query_params.get("q", "").strip()[:MAX_VALUE]
    if not asked:
        return rendered(request, "search.html", asked="", runs=[], sessions=[], found=[], page=Pager(None, None))
    stream, slash, number = asked.rpartition("/")
    if slash and number.isascii() and number.isdecimal() and len(number) < 17 and state.queries.record(asked):
        return RedirectResponse(f"/records/{quote(stream, safe='')}/{int(number)}", status_code=303)
    traces = state.asking.traces_of(asked) if len(asked) == 16 and asked.isalnum() else []
    found_runs = [each for trace in traces if (each := state.run(trace)) is not None]
    found_runs += state.asking.runs(text=asked, everything=True, limit=5).rows
    cursor = cursor_of(request)
    # The lines are JSON: what JSON escapes stands escaped in them.
    text = orjson.dumps(asked).decode()[1:-1]
    found, following = state.records(RecordFilter(text=text), ROWS, cursor)
    return rendered(
        request,
        "search.html",
        asked=asked,
        found=found,
        page=paged(request, "/search", following, {"q": asked}),
        runs=[] if cursor else found_runs,
        sessions=[] if cursor or len(asked) < 4 else state.asking.sessions(asked),
    )


def _one(state: State, near: Seen, seq: int) -> Seen | None:
    rows = state.queries.record(f"{near.stream}/{seq}", ledger=near.row.ledger) if seq >= 0 else []
    return all_seen(rows)[0] if rows else None


def _verdict(state: Verifying) -> str:
    if not state.possible:
        return "This page cannot verify the ledger; it was not given one."
    if state.running:
        return "The ledger is being verified."
    if state.error:
        return "The last verification could not be decided."
    if state.report is None:
        return "The ledger was not verified since the start."
    if state.report.ok:
        return "The last verification of the ledger found nothing wrong."
    return f"The last verification of the ledger has {len(state.report.findings)} findings."


def _integer(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


def _kind(span: SpanRow) -> str:
    """Return the class of a bar: what kind of work it was."""
    attributes = span.attributes
    operation = attributes.get("gen_ai.operation.name")
    if operation in {"chat", "execute_tool"}:
        return "model" if operation == "chat" else "tool"
    if "cedarbox.policy.decision" in attributes or "sandbox.operation" in attributes:
        return "sandbox"
    return "plain"


def _details(span: SpanRow, record: Seen | None) -> Sequence[str]:
    """Return what is said of a span in its line: what was asked for, why not, how it ended."""
    attributes: Mapping[str, Any] = span.attributes
    said: list[str] = []
    if record is not None and record.action == "invokeTool":
        # The span above it names the tool.
        pass
    elif record is not None and (record.summary or record.resource):
        said.append(record.summary or record.resource or "")
    elif isinstance(resource := attributes.get("cedarbox.policy.resource"), str):
        said.append(resource)
    elif isinstance(turn := attributes.get("cedarbox.turn"), int):
        said.append(f"{turn}")
    elif isinstance(model := attributes.get("gen_ai.request.model"), str) and model not in span.name:
        said.append(model)
    if attributes.get("cedarbox.policy.decision") == "deny" and span.message:
        said.append(span.message)
    for name in ("process.exit.code", "cedarbox.exit_code"):
        code = attributes.get(name)
        if isinstance(code, int) and code != 0:
            said.append(f"exit code {code}")
            break
    return said
