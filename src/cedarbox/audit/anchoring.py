"""Anchors: what vouches for the checkpoints of a ledger from outside of this host.

A ledger convinces who trusts its keys. Who has this host has the keys of today too, and could cut the ledger back or
write what comes after the last hand-over again. An anchor is a checkpoint that somebody else has seen:

- A time-stamp server says that the checkpoint existed at a certain time. What comes before can no longer be changed
  without the loss of that stamp, and nothing can be dated back.
- A witness keeps the checkpoint, or signs it, and can be asked whether the ledger still agrees.
- A collector on another host holds each checkpoint with the records (`cedarbox.audit.otlp_checkpoints`).

None protects what was recorded after the last anchor, and none prevents that all is deleted; it is then missed.

Notes go to the anchors in a thread of its own, for the stream of this process and for the index. What an anchor gives
is kept in the directory ``<ledger>.anchors`` beside the ledger, and ``ledger.anchored`` is recorded. As that record
leads to a new checkpoint, a stream is anchored again only when something else was recorded since.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Final, Protocol

from cedarbox.audit.files import INDEX, checkpoints_path, index_path, segment_files, sync
from cedarbox.audit.notes import read_note, whole_notes
from cedarbox.audit.record import Entry, JsonValue
from cedarbox.errors import CedarboxError, LedgerError
from cedarbox.files import open_regular, write_all

__all__ = ["Anchor", "AnchorError", "Anchored", "Anchoring", "anchors_of"]

_POLL_SECONDS: Final = 0.2
_RETRY_SECONDS: Final = 60.0


class AnchorError(CedarboxError):
    """An anchor did not take a checkpoint."""


@dataclass(frozen=True, slots=True)
class Anchored:
    """What an anchor gave for a note.

    Args:
        content: What is kept of it, to be appended to ``<stream><suffix>``; empty for nothing.
        facts: What is recorded of it.
    """

    content: bytes
    facts: Mapping[str, JsonValue]


class Anchor(Protocol):
    """Something outside of this host that vouches for a checkpoint."""

    @property
    def kind(self) -> str:
        """What it is, as ``ledger.anchored`` names it: ``rfc3161`` or ``witness``."""
        ...

    @property
    def suffix(self) -> str:
        """Suffix of the files with what it gives."""
        ...

    @property
    def every_s(self) -> float:
        """Seconds between two anchors of a stream."""
        ...

    def take(self, note: bytes) -> Anchored:
        """Show a note to it and return what it gives.

        Raises:
            AnchorError: It did not take the note, or what it gave is not good.
        """
        ...


def anchors_of(ledger: Path) -> Path:
    """Give the directory with what anchors gave for a ledger."""
    return ledger.with_name(f"{ledger.name}.anchors")


class Anchoring:
    """Shows checkpoints to anchors, in a thread of its own. Nothing that goes wrong here fails or delays the run.

    Args:
        ledger: The ledger directory.
        stream: The stream of this process.
        anchors: Whom to show them to; with none, nothing runs.
        record: Takes the entries ``ledger.anchored``.
    """

    def __init__(self, ledger: Path, stream: str, anchors: Sequence[Anchor], record: Callable[[Entry], object]) -> None:
        self._ledger, self._anchors, self._record = ledger, tuple(anchors), record
        self._news = {stream: _News(ledger, stream), INDEX: _News(ledger, INDEX)}
        self._due = {(anchor.kind, name): 0.0 for anchor in self._anchors for name in self._news}
        self._sizes = dict.fromkeys(self._due, 0)
        self._failing: set[tuple[str, str]] = set()
        self._errors: dict[tuple[str, str], str] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def last_error(self) -> str:
        """Why an anchor does not work now; empty when all do."""
        errors = list(self._errors.values())
        return errors[-1] if errors else ""

    def start(self) -> None:
        """Start the thread, when there are anchors."""
        if self._anchors and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="cedarbox-anchoring", daemon=True)
            self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Show the last checkpoints to the anchors, then end the thread.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            True when all of them were taken.
        """
        self._stopping.set()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive() and not self._errors

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._round(last=False)
            self._stopping.wait(_POLL_SECONDS)
        self._round(last=True)

    def _round(self, *, last: bool) -> None:
        for anchor in self._anchors:
            for name, news in self._news.items():
                key = (anchor.kind, name)
                if not last and monotonic() < self._due[key]:
                    continue
                try:
                    self._show(anchor, name, news)
                    self._errors.pop(key, None)
                except Exception as error:  # noqa: BLE001 - an anchor of any kind must not end the thread
                    self._errors[key] = f"{anchor.kind}: {name}: {error}"
                    self._due[key] = monotonic() + min(anchor.every_s, _RETRY_SECONDS)
                    self._tell_failure(anchor, name, str(error))

    def _show(self, anchor: Anchor, name: str, news: _News) -> None:
        key = (anchor.kind, name)
        note = _newest_note(checkpoints_path(self._ledger, name))
        if note is None:
            return
        head = read_note(note)
        known = self._sizes[key]
        if head.size <= known or news.latest() < known:
            return
        given = anchor.take(note)
        if given.content:
            _keep(anchors_of(self._ledger) / f"{name}{anchor.suffix}", given.content)
        self._sizes[key], self._due[key] = head.size, monotonic() + anchor.every_s
        self._failing.discard(key)
        self._tell(
            "anchored",
            {
                "kind": anchor.kind,
                "origin": head.origin,
                "size": head.size,
                "root": head.root.hex(),
                "note_sha256": sha256(note).hexdigest(),
                **given.facts,
            },
        )

    def _tell_failure(self, anchor: Anchor, name: str, reason: str) -> None:
        """Record the first failure of a row: the record of each would fill the ledger while an anchor is away."""
        key = (anchor.kind, name)
        if key not in self._failing:
            self._failing.add(key)
            self._tell("failed", {"kind": anchor.kind, "stream": name, "reason": reason[:200]})

    def _tell(self, outcome: str, attrs: dict[str, JsonValue]) -> None:
        with suppress(LedgerError):  # a ledger that is closed takes none; what the anchor gave is kept all the same
            self._record(Entry(event="ledger.anchored", outcome=outcome, attrs=attrs))


class _News:
    """Looks for the latest record of a stream that is not about anchors. Each part of the files is read once."""

    def __init__(self, ledger: Path, stream: str) -> None:
        self._ledger, self._stream = ledger, stream
        self._offsets: dict[Path, int] = {}
        self._latest = -1
        self._count = 0

    def latest(self) -> int:
        """Give its position in the stream, -1 when there is none."""
        for path in self._files():
            for line in _new_lines(path, self._offsets):
                if b'"event":"ledger.anchored"' not in line:
                    self._latest = self._count
                self._count += 1
        return self._latest

    def _files(self) -> list[Path]:
        if self._stream != INDEX:
            return segment_files(self._ledger, self._stream)
        path = index_path(self._ledger)
        return [path] if path.exists() else []


def _new_lines(path: Path, offsets: dict[Path, int]) -> list[bytes]:
    with open_regular(path) as file:
        file.seek(offsets.get(path, 0))
        data = file.read()
    end = data.rfind(b"\n") + 1
    offsets[path] = offsets.get(path, 0) + end
    return data[:end].split(b"\n")[:-1]


def _newest_note(path: Path) -> bytes | None:
    try:
        with open_regular(path) as file:
            notes, _ = whole_notes(file.read())
    except FileNotFoundError:
        return None
    return notes[-1] if notes else None


def _keep(path: Path, content: bytes) -> None:
    """Append durably."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        write_all(descriptor, content)
        sync(descriptor)
    finally:
        os.close(descriptor)
