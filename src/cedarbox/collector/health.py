"""What is there to say of a collector's store in short: how much, what was dropped, and what is missing."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import orjson
from rich.console import Console

from cedarbox.collector.queries import Queries
from cedarbox.collector.views import Counts, Dropped, StreamState
from cedarbox.text import printable

__all__ = ["Health", "health_of", "show_health"]


@dataclass(frozen=True, slots=True)
class Health:
    """A store in short.

    Attributes:
        alarms: One line for each stream that lacks records, and for each that has two of the same id.
    """

    counts: Counts
    streams: tuple[StreamState, ...]
    dropped: tuple[Dropped, ...]
    alarms: tuple[str, ...]


def health_of(queries: Queries) -> Health:
    """Ask the store.

    Raises:
        ConfigurationError: It took too long.
        HostError: The file cannot be read.
    """
    streams = tuple(queries.streams())
    alarms = [alarm for state in streams for alarm in _alarms(state)]
    return Health(queries.counts(), streams, tuple(queries.dropped()), tuple(alarms))


def show_health(health: Health, console: Console, *, json: bool = False) -> None:
    """Print it: lines of a name and a value, or one JSON object."""
    if json:
        console.file.write(orjson.dumps(asdict(health)).decode() + "\n")
        return
    lines = [f"{name}\t{value}" for name, value in asdict(health.counts).items()]
    lines += [f"stream {printable(_name(state))}\t{state.records} records" for state in health.streams]
    lines += [f"dropped {item.what}\t{item.rows} by {item.reason}" for item in health.dropped]
    lines += [f"ALARM\t{printable(alarm)}" for alarm in health.alarms]
    console.file.write("".join(f"{line}\n" for line in lines))


def _alarms(state: StreamState) -> list[str]:
    alarms = []
    if state.gaps:
        shown = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in state.gaps[:5])
        more = f" and {len(state.gaps) - 5} more gaps" if len(state.gaps) > 5 else ""
        alarms.append(f"stream {_name(state)} lacks {shown}{more}: lost, or not yet arrived")
    if state.conflicts:
        alarms.append(f"stream {_name(state)} has {state.conflicts} ids that arrived with more than one content")
    return alarms


def _name(state: StreamState) -> str:
    return f"{state.ledger}/{state.stream}" if state.ledger else state.stream
