"""Questions of the page that the queries of the store do not answer: filtered runs, sandboxes, numbers by time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cedarbox.collector.reader import Reader
from cedarbox.collector.views import Page
from cedarbox.errors import ConfigurationError

__all__ = ["Asking", "RunSeen", "Sandbox"]

_QUERY_SECONDS: Final = 5.0
"""How long a question may take; a reader can narrow it."""

_RUN: Final = "r.trace_id, r.name, r.start_ns, r.end_ns, r.spans, r.errors, r.logs, r.denials"
# The names that the spans of the Agents SDK get at the top of a run; what has another one is a single operation.
_OF_AGENTS: Final = "(r.name LIKE 'run %' OR r.name LIKE 'invoke~_%' ESCAPE '~')"
_AGENT: Final = "invoke_agent "


@dataclass(frozen=True, slots=True)
class RunSeen:
    """One run in short. Times are nanoseconds since 1970 UTC.

    Attributes:
        agent: Name of its first agent; empty when no span of one was received.
    """

    trace_id: str
    name: str
    start_ns: int
    end_ns: int
    spans: int
    errors: int
    logs: int
    denials: int
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One sandbox in short. Times are nanoseconds since 1970 UTC.

    Attributes:
        attrs: What the record of its creation says.
    """

    session: str
    first_ns: int
    last_ns: int
    records: int
    denials: int
    created: bool
    deleted: bool
    revoked: bool
    attrs: dict[str, Any] = field(default_factory=dict)


class Asking:
    """Reads the file of a store. Usable from several threads.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._reader = Reader(path, seconds=_QUERY_SECONDS)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._reader.close()

    def runs(
        self,
        *,
        text: str = "",
        everything: bool = False,
        having: str = "",
        since_ns: int | None = None,
        until_ns: int | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[RunSeen]:
        """Give runs that meet every test, the latest start first.

        Args:
            text: Part of the name of the run, of an agent in it, or the beginning of its trace id.
            everything: Also single operations outside of a run.
            having: ``denials`` or ``errors``; empty for any.
            since_ns: Earliest start.
            until_ns: Latest start.
            limit: Rows of the page.
            cursor: `Page.next` of the page before.

        Raises:
            ConfigurationError: The cursor is none, or the search took too long.
        """
        tests: list[str] = ["1"]
        values: list[object] = []
        if not everything:
            tests.append(_OF_AGENTS)
        if having in {"denials", "errors"}:
            tests.append("r.denials > 0" if having == "denials" else "r.errors > 0")
        if since_ns is not None:
            tests.append("r.start_ns >= ?")
            values.append(since_ns)
        if until_ns is not None:
            tests.append("r.start_ns <= ?")
            values.append(until_ns)
        if text:
            tests.append(
                """(r.name LIKE ? ESCAPE '~' OR r.trace_id LIKE ? ESCAPE '~' OR EXISTS (
                SELECT 1 FROM spans s WHERE s.trace_id = r.trace_id AND s.name LIKE ? ESCAPE '~'))"""
            )
            part = text.replace("~", "~~").replace("%", "~%").replace("_", "~_")
            values += [f"%{part}%", f"{part}%", f"{_AGENT.replace('_', '~_')}%{part}%"]
        if cursor is not None:
            start, _, trace = cursor.partition(".")
            if not (start.isascii() and start.isdecimal() and len(start) <= 19):
                raise ConfigurationError(f"{cursor[:60]!a} is not a cursor", hint="use that of the page before")
            tests.append("(r.start_ns, r.trace_id) < (?, ?)")
            values += [min(int(start), 2**63 - 1), trace]
        rows = self._reader.rows(
            f"""SELECT {_RUN} FROM runs r WHERE {" AND ".join(tests)}
            ORDER BY r.start_ns DESC, r.trace_id DESC LIMIT ?""",  # noqa: S608 - only fixed texts are joined
            (*values, limit + 1),
        )
        runs = [self._run(row) for row in rows[:limit]]
        return Page(runs, f"{runs[-1].start_ns}.{runs[-1].trace_id}" if len(rows) > limit else None)

    def run(self, trace_id: str) -> RunSeen | None:
        """Give one run; None when nothing of it was received."""
        rows = self._reader.rows(f"SELECT {_RUN} FROM runs r WHERE r.trace_id = ?", (trace_id.lower(),))  # noqa: S608 - fixed text
        return self._run(rows[0]) if rows else None

    def runs_of_agents(self) -> int:
        """Count the runs of agents."""
        ((number,),) = self._reader.rows(f"SELECT count(*) FROM runs r WHERE {_OF_AGENTS}")  # noqa: S608 - fixed text
        return int(number)

    def sandbox(self, session: str) -> Sandbox | None:
        """Give what is known of a sandbox; None when no record names it."""
        (row,) = self._reader.rows(
            """SELECT min(time_ns), max(time_ns), count(*), sum(family = 'decision' AND decision = 'deny'),
                sum(kind = 'sandbox.created'), sum(kind = 'sandbox.deleted'), sum(kind = 'sandbox.revoked')
            FROM logs WHERE session = ?""",
            (session,),
        )
        first, last, records, denials, created, deleted, revoked = row
        if not records:
            return None
        return Sandbox(session, first, last, records, denials or 0, bool(created), bool(deleted), bool(revoked))

    def sessions(self, beginning: str, *, limit: int = 5) -> list[str]:
        """Give ids of sandboxes by their beginning."""
        rows = self._reader.rows(
            "SELECT DISTINCT session FROM logs WHERE session >= ? AND session < ? ORDER BY session LIMIT ?",
            (beginning, beginning + "\U0010ffff", limit),
        )
        return [row[0] for row in rows]

    def traces_of(self, span_id: str) -> list[str]:
        """Give the traces in which records name a span."""
        rows = self._reader.rows("SELECT DISTINCT trace_id FROM spans WHERE span_id = ? LIMIT 5", (span_id.lower(),))
        return [row[0] for row in rows]

    def unended(self) -> int:
        """Count sandboxes that were made, and whose end is not on record."""
        ((number,),) = self._reader.rows(
            """SELECT count(DISTINCT session) FROM logs c WHERE c.kind = 'sandbox.created' AND c.session IS NOT NULL
            AND c.kind NOT IN ('decision', 'outcome') AND NOT EXISTS (SELECT 1 FROM logs e
                WHERE e.session = c.session AND e.kind IN ('sandbox.deleted', 'sandbox.revoked'))"""
        )
        return int(number)

    def denials(self, since_ns: int) -> int:
        """Count the denials from a time on."""
        ((number,),) = self._reader.rows(
            "SELECT count(*) FROM logs WHERE decision = 'deny' AND time_ns >= ? AND family = 'decision'", (since_ns,)
        )
        return int(number)

    def newest(self) -> int | None:
        """Give the time of the last record or span; None when there is none."""
        ((record,),) = self._reader.rows("SELECT max(time_ns) FROM logs")
        ((span,),) = self._reader.rows("SELECT max(start_ns) FROM runs")
        times = [time for time in (record, span) if time is not None]
        return max(times, default=None)

    def by_time(self, what: str, since_ns: int, until_ns: int, step_ns: int) -> Sequence[tuple[int, str, float]]:
        """Give numbers by time: the beginning of a step, a name, and how many.

        Args:
            what: ``decisions`` (by decision), ``sandboxes`` (by event) or ``egress`` (bytes by direction).
            since_ns: Beginning of the first step.
            until_ns: End of the last one.
            step_ns: Length of each.
        """
        return self._reader.rows(_BY_TIME[what], (step_ns, since_ns, until_ns))

    def _run(self, row: tuple[Any, ...]) -> RunSeen:
        found = self._reader.rows(
            """SELECT name FROM spans WHERE trace_id = ? AND name LIKE 'invoke~_agent %' ESCAPE '~'
            ORDER BY start_ns LIMIT 1""",
            (row[0],),
        )
        agent = found[0][0].removeprefix(_AGENT) if found else ""
        return RunSeen(*row, agent)  # type: ignore[call-arg]  # the columns of _RUN


_STEP: Final = "time_ns - time_ns % ?1"
_DURING: Final = "time_ns >= ?2 AND time_ns < ?3"
_BY_TIME: Final = {
    "decisions": f"""SELECT {_STEP} AS at, decision, count(*) FROM logs
        WHERE family = 'decision' AND {_DURING} AND decision IS NOT NULL GROUP BY at, decision ORDER BY at""",  # noqa: S608 - fixed texts
    "sandboxes": f"""SELECT {_STEP} AS at, kind, count(*) FROM logs
        WHERE family = 'sandbox' AND {_DURING} GROUP BY at, kind ORDER BY at""",  # noqa: S608 - fixed texts
    "egress": f"""SELECT {_STEP} AS at, j.key, sum(j.value) FROM logs l JOIN texts t ON t.id = l.id,
            json_each(t.body, '$.attrs') j
        WHERE family = 'egress' AND kind IN ('egress.closed', 'egress.revoked') AND {_DURING}
        AND json_valid(t.body) AND j.key IN ('bytes_in', 'bytes_out') AND j.type = 'integer'
        GROUP BY at, j.key ORDER BY at""",  # noqa: S608 - fixed texts
}
