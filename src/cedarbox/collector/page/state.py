"""What the pages read from: the store, the texts of policies, the verifier."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cedarbox.collector.page.asking import Asking, RunSeen
from cedarbox.collector.page.options import PageOptions
from cedarbox.collector.page.policies import PolicyTexts
from cedarbox.collector.page.records import Seen, seen
from cedarbox.collector.page.verifying import Verifier
from cedarbox.collector.queries import Queries
from cedarbox.collector.store import Store
from cedarbox.collector.views import LogRow, RecordFilter, StreamState

__all__ = ["LedgerSeen", "State", "StreamSeen"]

_MAX_ANCHORS = 10_000


@dataclass(frozen=True, slots=True)
class StreamSeen:
    """A stream as far as it was received."""

    state: StreamState
    missing: int


@dataclass(frozen=True, slots=True)
class LedgerSeen:
    """All streams as far as they were received.

    Attributes:
        streams: Those with a gap or a conflict first, then the newest.
        records: How many records were received.
        missing: How many were not.
        conflicts: How many numbers were received with two different lines.
    """

    streams: Sequence[StreamSeen]
    records: int
    missing: int
    conflicts: int

    @property
    def troubles(self) -> bool:
        """Whether anything is missing or in conflict."""
        return bool(self.missing or self.conflicts)


@dataclass(slots=True)
class State:
    """What the pages read from.

    Attributes:
        token: Proves that a form came from a page of this process.
    """

    queries: Queries
    asking: Asking
    texts: PolicyTexts
    verifier: Verifier
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @classmethod
    def of(cls, store: Store, options: PageOptions) -> State:
        """Make it.

        Raises:
            BundleError: A bundle of the options cannot be used.
        """
        queries = store.queries

        def notes() -> list[str]:
            return [row.body for row in queries.records(RecordFilter(family="checkpoint"), limit=_MAX_ANCHORS).rows]

        verifier = Verifier(options.ledger, options.public_key, notes)
        return cls(queries, Asking(store.path), PolicyTexts(options.policies), verifier)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self.asking.close()

    def records(self, where: RecordFilter, limit: int, cursor: str | None = None) -> tuple[list[Seen], str | None]:
        """Return records that meet a filter, newest first, and the cursor of those that follow."""
        page = self.queries.records(where, limit=limit, cursor=cursor)
        return all_seen(page.rows), page.next

    def run(self, trace_id: str) -> RunSeen | None:
        """Return one run; None when nothing of it was received."""
        return self.asking.run(trace_id)

    def ledger(self) -> LedgerSeen:
        """Return all streams as far as they were received."""
        streams = [
            StreamSeen(state, sum(last - first + 1 for first, last in state.gaps)) for state in self.queries.streams()
        ]
        streams.sort(key=lambda one: (not (one.missing or one.state.conflicts), -(one.state.last_ns or 0)))
        return LedgerSeen(
            streams,
            sum(one.state.records for one in streams),
            sum(one.missing for one in streams),
            sum(one.state.conflicts for one in streams),
        )


def all_seen(rows: Iterable[LogRow]) -> list[Seen]:
    """Read several records."""
    return [seen(row) for row in rows]
