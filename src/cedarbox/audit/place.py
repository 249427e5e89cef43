"""The place file of the shippers: which part of each stream was acknowledged, and what was not taken.

A collector may take all of a stream but a few units. Those are *held*: the place goes past them, and they are tried
again on their own. One that was refused often enough is *left*: it stays on this host's disk, is listed in the place
file, and is no longer tried.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import orjson

from cedarbox.children import not_in_children
from cedarbox.files import write_file

__all__ = ["Place", "Unit"]


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit that the collector refused.

    Args:
        key: The stream, as in the place file.
        start: Where it begins, in bytes.
        end: Where the next one begins.
        sha256: Digest of the unit, in hex.
        reason: What the collector said last, in printable ASCII.
        tries: How often it was refused.
        since: When it was refused first, as records write times.
    """

    key: str
    start: int
    end: int
    sha256: str
    reason: str
    tries: int
    since: str


@dataclass(frozen=True, slots=True)
class _State:
    acknowledged: dict[str, int]
    held: tuple[Unit, ...] = ()
    left: tuple[Unit, ...] = ()
    last: str = ""


class Place:
    """Acknowledged offsets in bytes by key, in a JSON file. Threads and processes may share it.

    A missing or damaged file means that nothing was acknowledged: lines are then sent again, none is lost. One process
    at a time holds it (`hold`) and writes; others see what it writes.

    Args:
        path: The file. The lock is beside it, with the suffix ``.lock``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._seen: tuple[int, int, int] | None = None
        self._state = _State({})
        self._held: int | None = None

    @property
    def held(self) -> tuple[Unit, ...]:
        """What is tried again on its own."""
        return self._current().held

    @property
    def left(self) -> tuple[Unit, ...]:
        """What was given up."""
        return self._current().left

    @property
    def last(self) -> str:
        """When something was acknowledged last, as records write times; empty when nothing was."""
        return self._current().last

    @property
    def known(self) -> tuple[str, ...]:
        """The streams of which something was acknowledged."""
        return tuple(self._current().acknowledged)

    def offset(self, key: str) -> int:
        """Give the acknowledged offset, 0 when nothing was."""
        return self._current().acknowledged.get(key, 0)

    def hold(self) -> bool:
        """Take the lock, unless another process or shipper has it. It ends with the process, or with `release`.

        Raises:
            OSError: The lock file cannot be made.
        """
        with self._lock:
            if self._held is not None:
                return True
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._path.with_suffix(".lock"), flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            except OSError:
                os.close(descriptor)
                raise
            not_in_children(self)
            self._held = descriptor
            return True

    def release(self) -> None:
        """Give up the lock."""
        with self._lock:
            self.let_go()

    def let_go(self) -> None:
        """Close the lock file; in a forked child, where the lock stays the parent's."""
        descriptor, self._held = self._held, None
        if descriptor is not None:
            os.close(descriptor)

    def advance(self, key: str, offset: int, *, held: Iterable[Unit] = (), at: str = "") -> None:
        """Remember an acknowledgement durably. An offset never goes back.

        Args:
            key: The stream.
            offset: Bytes from its start.
            held: Units before that offset that were not taken.
            at: When it was, as records write times.

        Raises:
            OSError: The file cannot be written.
        """
        with self._lock:
            state = self._current()
            offsets = {**state.acknowledged, key: max(offset, state.acknowledged.get(key, 0))}
            self._save(_State(offsets, (*state.held, *held), state.left, at or state.last))

    def settle(self, unit: Unit, *, held: Unit | None = None, left: Unit | None = None, at: str = "") -> None:
        """Take a unit off the list of the held, and put it back changed, or on the list of the left, or nowhere.

        Raises:
            OSError: The file cannot be written.
        """
        with self._lock:
            state = self._current()
            others = tuple(item for item in state.held if (item.key, item.start) != (unit.key, unit.start))
            kept = (*others, held) if held is not None else others
            given_up = (*state.left, left) if left is not None else state.left
            self._save(_State(state.acknowledged, kept, given_up, at or state.last))

    def revive(self) -> int:
        """Put everything that was left back on the list of the held, to be tried again. Gives how much that is.

        Raises:
            OSError: The file cannot be written.
        """
        with self._lock:
            state = self._current()
            again = tuple(Unit(**{**asdict(item), "tries": 0}) for item in state.left)
            if again:
                self._save(_State(state.acknowledged, (*state.held, *again), (), state.last))
            return len(again)

    def forget(self, keys: Iterable[str]) -> None:
        """Drop keys whose files are gone.

        Raises:
            OSError: The file cannot be written.
        """
        with self._lock:
            state, gone = self._current(), frozenset(keys)
            if gone:
                kept = {key: value for key, value in state.acknowledged.items() if key not in gone}
                self._save(_State(kept, state.held, state.left, state.last))

    def _current(self) -> _State:
        with self._lock:
            try:
                status = self._path.stat()
            except OSError:
                seen = None
            else:
                seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen is not None and seen != self._seen:
                read = self._load()
                if read is not None:
                    self._state = _merge(self._state, read)
                self._seen = seen
            return self._state

    def _load(self) -> _State | None:
        """Read the file; None when it is damaged, and what is known already counts then."""
        try:
            content = orjson.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(content, dict):
            return None
        last = content.get("last")
        return _State(
            _offsets(content.get("acknowledged")),
            _units(content.get("held")),
            _units(content.get("left")),
            last if isinstance(last, str) else "",
        )

    def _save(self, state: _State) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(self._path, orjson.dumps(asdict(state), option=orjson.OPT_SORT_KEYS), 0o600)
        self._state, self._seen = state, None


def _merge(known: _State, read: _State) -> _State:
    """Take what was read, but let no offset that this process knows of go back."""
    offsets = dict(read.acknowledged)
    for key, value in known.acknowledged.items():
        if key in offsets or not read.acknowledged:
            offsets[key] = max(value, offsets.get(key, 0))
    return _State(offsets, read.held, read.left, read.last)


def _offsets(value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        return {}
    return {key: offset for key, offset in value.items() if type(offset) is int and offset >= 0}


def _units(value: Any) -> tuple[Unit, ...]:
    names = {field.name for field in fields(Unit)}
    if not isinstance(value, list):
        return ()
    good = [item for item in value if isinstance(item, dict) and item.keys() == names]
    return tuple(Unit(**item) for item in good if _is_whole(item))


def _is_whole(item: dict[str, Any]) -> bool:
    numbers = [item[name] for name in ("start", "end", "tries")]
    texts = [item[name] for name in ("key", "sha256", "reason", "since")]
    return (
        all(type(number) is int and number >= 0 for number in numbers)
        and item["start"] < item["end"]
        and all(isinstance(text, str) for text in texts)
    )
