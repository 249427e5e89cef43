"""What a collector refused alone: tried again, and in the end left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from cedarbox.audit.files import stream_of
from cedarbox.audit.place import Place, Unit
from cedarbox.audit.record import format_time
from cedarbox.audit.source import Source
from cedarbox.audit.target import RefusedError, Transport
from cedarbox.files import open_regular

__all__ = ["Held", "now", "refused_unit"]


def now() -> str:
    """Give the time as records write it."""
    return format_time(time.time_ns())


def refused_unit(key: str, start: int, unit: bytes, reason: str) -> Unit:
    """Describe a unit that was refused for the first time.

    Args:
        key: Its stream, as in the place file.
        start: Where it begins, in bytes.
        unit: Its bytes.
        reason: What the collector said.
    """
    return Unit(key, start, start + len(unit), sha256(unit).hexdigest(), _shown(reason), 1, now())


class Held:
    """Tries the held units of a place again.

    Args:
        place: Where they are listed.
        sources: Where they are from.
        tries: How often a unit is refused before it is left.
        on_left: Told of each unit that is left; what it raises is passed over.
    """

    def __init__(
        self, place: Place, sources: Sequence[Source], *, tries: int, on_left: Callable[[Unit], object] | None
    ) -> None:
        self._place, self._tries, self._on_left = place, tries, on_left
        self._sources = {source.name: source for source in sources}

    def units(self) -> list[tuple[Source, Unit]]:
        """List what is held of the sources."""
        found = ((self._sources.get(unit.key.split("/", 1)[0]), unit) for unit in self._place.held)
        return [(source, unit) for source, unit in found if source is not None]

    def retry(self, transport: Transport, source: Source, unit: Unit) -> bool:
        """Send a unit again. Gives True when it is no longer held.

        Raises:
            RefusedError: It was refused, not for the last time.
            AwayError: The collector is away.
            OSError: The unit cannot be read, or the place not be kept.
        """
        file = next((file for file in source.streams() if unit.key == f"{source.name}/{file.name}"), None)
        if file is None:
            self._leave(unit, replace(unit, reason="its file is gone"))
            return True
        data = _read(file, unit)
        if sha256(data).hexdigest() != unit.sha256:
            self._leave(unit, replace(unit, reason="it was changed on disk"))
            return True
        try:
            transport.send(source.path, source.encode([data], stream_of(file)))
        except RefusedError as error:
            tried = replace(unit, tries=unit.tries + 1, reason=_shown(str(error)))
            if tried.tries >= self._tries:
                self._leave(unit, tried)
                return True
            self._place.settle(unit, held=tried)
            raise
        self._place.settle(unit, at=now())
        return True

    def _leave(self, unit: Unit, changed: Unit) -> None:
        self._place.settle(unit, left=changed)
        if self._on_left is not None:
            with suppress(Exception):
                self._on_left(changed)


def _read(file: Path, unit: Unit) -> bytes:
    with open_regular(file) as stream:
        stream.seek(unit.start)
        return stream.read(unit.end - unit.start)


def _shown(text: str) -> str:
    return text.encode("ascii", "replace").decode()[:200]
