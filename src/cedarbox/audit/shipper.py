"""The shipper: sends what is on disk to a collector by OTLP, and remembers what was acknowledged.

What counts is on disk before the shipper sees it, so the shipper may be late, or die: it goes on from its place. It
sends every unit at least once. A record that is sent again carries the same ``audit.record.id``. A batch counts as
acknowledged only when the collector says so and rejects nothing of it.

A batch that is refused is halved until the unit at fault stands alone. When the collector takes what comes after that
unit, the place goes past it, and it is tried again on its own; `cedarbox.audit.place` says what becomes of it. While
the collector takes nothing, nothing is passed over.

Of the processes that share a place file, one ships the streams of all of them; when it ends, another takes over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

from cedarbox.audit.backoff import Backoff
from cedarbox.audit.files import stream_of
from cedarbox.audit.held import Held, now, refused_unit
from cedarbox.audit.otlp import LedgerSource
from cedarbox.audit.pace import Pace, Status
from cedarbox.audit.place import Place, Unit
from cedarbox.audit.source import Source, complete_end, count_units, read_units
from cedarbox.audit.target import AwayError, RefusedError, Target, Transport
from cedarbox.errors import CedarboxError, LedgerError

__all__ = ["LedgerSource", "Pace", "Shipper", "Source", "Status"]

_WHOLE: Final = ""
_LOOK_SECONDS: Final = 0.05
_PROBES: Final = 16
"""How many units after a refused one are tried before it counts as the collector that refuses, not the unit."""
_DOUBTS: Final = 3


@dataclass(frozen=True, slots=True)
class _Backlog:
    """A file with its key in the place file and how far it was acknowledged."""

    source: Source
    file: Path
    key: str
    offset: int


@dataclass(slots=True)
class _Doubt:
    """A batch of a stream that was refused: how small the next one is, and since when."""

    limit: int
    taken: int
    tries: int = 0


class Shipper:
    """Ships in a thread of its own. Nothing that goes wrong here fails or delays the run.

    Args:
        target: The collector; a text is the endpoint of one for OTLP/HTTP.
        sources: What to ship.
        place: JSON file with the acknowledged offset of each stream; made when missing.
        pace: How much and how often.
        on_left: Told of each unit that is left; what it raises is passed over.

    Raises:
        ConfigurationError: The endpoint, a certificate or a header cannot be used.
    """

    def __init__(
        self,
        target: Target | str,
        sources: Sequence[Source],
        *,
        place: Path,
        pace: Pace | None = None,
        on_left: Callable[[Unit], object] | None = None,
    ) -> None:
        self._target = Target(endpoint=target) if isinstance(target, str) else target
        self._target.check()
        self._sources, self._pace = tuple(sources), pace or Pace()
        self._place = Place(place)
        self._held = Held(self._place, self._sources, tries=self._pace.held_tries, on_left=on_left)
        self._backoff = Backoff(self._pace.first_s, self._pace.last_s)
        self._doubts: dict[str, _Doubt] = {}
        self._taken: dict[str, int] = {}
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def last_error(self) -> str:
        """What fails now; empty when all works."""
        return self._backoff.error

    @property
    def pending(self) -> int:
        """Number of units that are on disk and not acknowledged.

        Raises:
            LedgerError: The files cannot be read.
        """
        return self.status.pending_records

    @property
    def status(self) -> Status:
        """How far it is. All that is pending is read for it.

        Raises:
            LedgerError: The files cannot be read.
        """
        held = self._place.held
        records, size = len(held), sum(unit.end - unit.start for unit in held)
        for backlog in self._backlogs():
            records += count_units(backlog.source, backlog.file, backlog.offset)
            size += complete_end(backlog.source, backlog.file, backlog.offset) - backlog.offset
        return Status(self.last_error, records, size, self._place.last, held, self._place.left)

    def start(self) -> None:
        """Start the thread; nothing happens when it runs already."""
        if self._thread is None or not self._thread.is_alive():
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="cedarbox-shipper", daemon=True)
            self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Wait until all that is on disk now has been acknowledged, by whichever process ships it.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            True when it has been, but for what was left; False also when the files cannot be read.
        """
        deadline = monotonic() + timeout
        try:
            targets = {
                backlog.key: complete_end(backlog.source, backlog.file, backlog.offset) for backlog in self._backlogs()
            }
        except (OSError, CedarboxError) as error:
            self._backoff.fail(_WHOLE, str(error))
            return False
        self._wake.set()
        while not (done := self._is_past(targets)) and monotonic() < deadline:
            time.sleep(min(_LOOK_SECONDS, max(0.0, deadline - monotonic())))
        return done

    def stop(self, timeout: float = 5.0) -> bool:
        """Flush, then end the thread.

        Args:
            timeout: Seconds to wait at most for the flush.

        Returns:
            True when all that was on disk has been acknowledged. What has not been is sent after the next start.
        """
        thread = self._thread
        done = self.flush(timeout if thread is not None and thread.is_alive() else 0.0)
        self._stopping.set()
        self._wake.set()
        if thread is not None:
            thread.join(1.0)  # it may sit in a request to a collector that hangs; it is a daemon
        return done

    def _is_past(self, targets: dict[str, int]) -> bool:
        if any(self._place.offset(key) < target for key, target in targets.items()):
            return False
        return not any(unit.key in targets and unit.start < targets[unit.key] for unit in self._place.held)

    def _backlogs(self) -> list[_Backlog]:
        return [backlog for source in self._sources for backlog in self._backlogs_of(source)]

    def _backlogs_of(self, source: Source) -> Iterator[_Backlog]:
        for file in source.streams():
            key = f"{source.name}/{file.name}"
            yield _Backlog(source, file, key, self._place.offset(key))

    def _run(self) -> None:
        transport: Transport | None = None
        try:
            while not self._stopping.is_set():
                sent = False
                try:
                    if self._place.hold():
                        transport = transport or self._target.connect()
                        sent = self._round(transport)
                        self._backoff.work(_WHOLE)
                except AwayError as error:
                    self._backoff.fail(_WHOLE, str(error), wait_s=error.wait_s)
                except Exception as error:  # noqa: BLE001 - the thread must not end
                    self._backoff.fail(_WHOLE, f"{type(error).__name__}: {error}")
                if self._backoff.blocks(_WHOLE) and transport is not None:
                    transport.close()  # the next one reads the certificates again
                    transport = None
                if not sent:
                    self._rest(max(self._pace.poll_s, self._backoff.remaining(_WHOLE)))
        finally:
            if transport is not None:
                transport.close()
            self._place.release()

    def _rest(self, seconds: float) -> None:
        """Wait; a flush or a stop ends the wait at once, but not a wait that the collector asked for."""
        if self._wake.wait(seconds):
            self._wake.clear()
            self._backoff.hurry()
            self._stopping.wait(self._backoff.remaining(_WHOLE))

    def _round(self, transport: Transport) -> bool:
        """Send one batch of each stream. Gives whether any was sent."""
        sent = False
        for source, unit in self._held.units():
            scope = f"{unit.key} at {unit.start}"
            self._scoped(scope, source.path, partial(self._held.retry, transport, source, unit))
        for source in self._sources:
            backlogs: list[_Backlog] = []
            self._scoped(source.name, source.path, partial(self._look, source, backlogs))
            for backlog in backlogs:
                if self._stopping.is_set():
                    return sent
                work = self._scoped(backlog.key, source.path, partial(self._ship, transport, backlog))
                sent = work or sent
        return sent

    def _look(self, source: Source, backlogs: list[_Backlog]) -> bool:
        """List the files of a source, and drop the places of files that are gone when there are others."""
        backlogs.extend(self._backlogs_of(source))
        alive = {backlog.key for backlog in backlogs}
        if alive:
            self._place.forget(
                key for key in self._place.known if key.startswith(f"{source.name}/") and key not in alive
            )
        return False

    def _scoped(self, scope: str, path: str, work: Callable[[], bool]) -> bool:
        """Do something unless it failed a while ago; only a collector that is away ends the round."""
        if self._backoff.blocks(scope) or self._backoff.blocks(path):
            return False
        try:
            done = work()
        except AwayError as error:
            if not error.answered:
                raise
            self._backoff.fail(path, str(error), wait_s=error.wait_s)
            return False
        except Exception as error:  # noqa: BLE001 - a source of any kind must not end the thread
            self._backoff.fail(scope, f"{scope}: {error}")
            return False
        self._backoff.work(scope)
        if done:
            self._backoff.work(path)
        return done

    def _ship(self, transport: Transport, backlog: _Backlog) -> bool:
        """Send one batch and remember the answer. Gives False when there is nothing to send."""
        size = backlog.file.stat().st_size
        if size <= backlog.offset:
            if size < backlog.offset:
                raise LedgerError("the file is shorter than what the collector acknowledged")
            return False
        doubt = self._doubts.get(backlog.key)
        units = self._units(backlog, backlog.offset, self._pace.batch_units if doubt is None else doubt.limit)
        if not units:
            return False
        try:
            self._send(transport, backlog, units)
        except RefusedError as error:
            doubt = doubt or _Doubt(0, self._taken.get(backlog.source.path, 0))
            self._doubts[backlog.key] = doubt
            doubt.limit = max(1, len(units) // 2)
            if len(units) > 1:
                return True
            doubt.tries += 1
            self._isolate(transport, backlog, units[0], str(error))
            return True
        self._advance(backlog, backlog.offset + sum(map(len, units)))
        if doubt is not None:
            doubt.limit *= 2
            if doubt.limit >= self._pace.batch_units:
                del self._doubts[backlog.key]
        return True

    def _isolate(self, transport: Transport, backlog: _Backlog, first: bytes, reason: str) -> None:
        """Go past a unit that is refused alone, when the collector takes one that comes after it.

        Raises:
            RefusedError: It takes none of the next ones, or there are none.
        """
        following = self._units(backlog, backlog.offset + len(first), _PROBES)
        held = [refused_unit(backlog.key, backlog.offset, first, reason)]
        for unit in following:
            try:
                self._send(transport, backlog, [unit])
            except RefusedError as error:
                held.append(refused_unit(backlog.key, held[-1].end, unit, str(error)))
                continue
            self._doubts.pop(backlog.key, None)
            self._advance(backlog, held[-1].end + len(unit), held)
            return
        doubt = self._doubts[backlog.key]
        if doubt.tries > _DOUBTS and self._taken.get(backlog.source.path, 0) > doubt.taken:
            del self._doubts[backlog.key]  # it takes what other streams have
            self._place.advance(backlog.key, held[0].end, held=held[:1])
            return
        raise RefusedError(reason)

    def _send(self, transport: Transport, backlog: _Backlog, units: list[bytes]) -> None:
        source = backlog.source
        transport.send(source.path, source.encode(units, stream_of(backlog.file)))
        self._taken[source.path] = self._taken.get(source.path, 0) + 1

    def _advance(self, backlog: _Backlog, offset: int, held: Sequence[Unit] = ()) -> None:
        self._place.advance(backlog.key, offset, held=held, at=now())

    def _units(self, backlog: _Backlog, offset: int, limit: int) -> list[bytes]:
        return read_units(backlog.source, backlog.file, offset, units=limit, size=self._pace.batch_bytes)
