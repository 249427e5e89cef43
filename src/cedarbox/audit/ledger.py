"""The ledger: entries in, durable records out.

One thread per open ledger writes; callers wait. While the disk is busy, entries gather and share the next write and
sync. A checkpoint is signed at opening, every 1000 records, one second after the first record that has none, and at
closing. When the disk fails, the ledger takes back what it wrote in part, tells every waiter, and refuses from then on.
"""

from __future__ import annotations

import asyncio
import atexit
import fcntl
import os
import stat
import threading
from base64 import b64encode
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from types import TracebackType
from typing import Final, Self

from cedarbox.audit.clock import Clock
from cedarbox.audit.keys import PUBLIC_NAME, load_signing_key, publish_key
from cedarbox.audit.record import Entry, JsonValue, Record
from cedarbox.audit.recovery import survey
from cedarbox.audit.writer import StreamWriter
from cedarbox.ed25519 import raw_key
from cedarbox.errors import LedgerError

__all__ = ["CHECKPOINT_RECORDS", "CHECKPOINT_SECONDS", "FORMAT", "Ledger"]

FORMAT: Final = "cedarbox.ledger/1"
"""Written into the first record of a stream."""

CHECKPOINT_RECORDS: Final = 1000
CHECKPOINT_SECONDS: Final = 1.0

_BATCH: Final = 1024


class _Item:
    """Something for the writing thread: an entry, or with none a wish for a checkpoint or for the end."""

    __slots__ = ("done", "entry", "last", "notify", "result")

    def __init__(self, entry: Entry | None, notify: Callable[[], object], *, last: bool = False) -> None:
        self.entry, self.notify, self.last = entry, notify, last
        self.result: Record | LedgerError | None = None
        self.done = False

    def settle(self, result: Record | LedgerError | None) -> None:
        self.result, self.done = result, True
        self.notify()


class Ledger:
    """An open stream of a ledger. Threads may share it; a forked child may not use it.

    Make it with `Ledger.open`, and close it or use it as a context manager. An ordinary end of the process closes it.

    Attributes:
        directory: The ledger directory.
        stream: Id of this stream.
        path: File of this stream.
    """

    def __init__(self, directory: Path, writer: StreamWriter) -> None:
        self.directory = directory
        self.stream = writer.stream
        self.path = writer.path
        self._writer = writer
        self._pid = os.getpid()
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._lock = threading.Lock()
        self._closing = False
        self._failure: LedgerError | None = None
        self._batch: list[_Item] = []
        self._due = 0.0
        self._thread = threading.Thread(target=self._run, name="cedarbox-ledger", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @classmethod
    def open(
        cls, directory: Path | str, *, signing_key: Path | str | None = None, clock: Clock | None = None
    ) -> Ledger:
        """Start a new stream in a ledger.

        The stream begins with ``ledger.opened``, which names the heads of all other streams, ``ledger.recovered`` for
        each stream whose torn last line is cut now, and ``key.created`` when the signing key was made now.

        Args:
            directory: The ledger; made with mode 0700 when it is missing.
            signing_key: Ed25519 key (PEM, PKCS #8, mode 0600), made on first use. Default: ``ledger.key`` beside the
                directory. The public key is written beside it with the suffix ``.pub`` and into the directory.
            clock: Gives the times; the clocks of the host by default.

        Raises:
            LedgerError: The directory or the key cannot be used, or an older stream is damaged at its end.
        """
        place = Path(directory).absolute()
        key_path = place.parent / "ledger.key" if signing_key is None else Path(signing_key).absolute()
        with ExitStack() as held:
            _lock_directory(place, held)
            key, made = load_signing_key(key_path)
            public = key.public_key()
            publish_key(public, place / PUBLIC_NAME)
            publish_key(public, key_path.with_suffix(".pub"))
            neighbours = survey(place, public, held)
            writer = StreamWriter(place, key, clock or Clock())
            shown = b64encode(raw_key(public)).decode()
            heads: list[JsonValue] = [neighbour.head() for neighbour in neighbours]
            entries = [
                Entry(
                    event="ledger.opened",
                    attrs={
                        "format": FORMAT,
                        "stream": writer.stream,
                        "pid": os.getpid(),
                        "public_key": shown,
                        "heads": heads,
                    },
                )
            ]
            entries += [
                Entry(
                    event="ledger.recovered",
                    attrs={
                        "stream": neighbour.stream,
                        "discarded_bytes": neighbour.torn_bytes,
                        "sha256": neighbour.torn_sha256,
                    },
                )
                for neighbour in neighbours
                if neighbour.torn_bytes
            ]
            if made:
                entries.append(Entry(event="key.created", attrs={"public_key": shown}))
            try:
                for result in writer.append(entries):
                    if isinstance(result, LedgerError):
                        raise result
                writer.checkpoint()
                for neighbour in neighbours:
                    neighbour.cut()
            except LedgerError:
                writer.release()
                raise
            return cls(place, writer)

    def append(self, entry: Entry) -> Record:
        """Record an entry and wait until the record is on the disk.

        Args:
            entry: What is to be remembered.

        Returns:
            The record.

        Raises:
            LedgerError: There is no record; whatever waited for it must not happen.
        """
        gate = threading.Lock()
        gate.acquire()
        item = _Item(entry, gate.release)
        self._submit(item)
        gate.acquire()
        return _record_of(item)

    async def record(self, entry: Entry) -> Record:
        """Do what `append` does without blocking the event loop.

        A caller that is cancelled while it waits gets no record back, but the record is written, once.

        Args:
            entry: What is to be remembered.

        Raises:
            LedgerError: There is no record; whatever waited for it must not happen.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not future.done():
                future.set_result(None)

        def notify() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle)

        item = _Item(entry, notify)
        self._submit(item)
        await future
        return _record_of(item)

    def note(self, entry: Entry) -> None:
        """Hand over an entry without waiting for its record; it has its place before whatever is recorded later.

        For what nothing waits for. When the record cannot be written, whatever is recorded next fails.

        Args:
            entry: What is to be remembered.

        Raises:
            LedgerError: The ledger takes nothing any more.
        """
        self._submit(_Item(entry, _nobody))

    def checkpoint(self) -> None:
        """Sign the head of this stream now and wait until that is on the disk.

        Raises:
            LedgerError: It cannot be written.
        """
        gate = threading.Lock()
        gate.acquire()
        item = _Item(None, gate.release)
        self._submit(item)
        gate.acquire()
        if isinstance(item.result, LedgerError):
            raise item.result

    def close(self) -> None:
        """End the stream with ``ledger.closed`` and a checkpoint. Does nothing the second time, or in a forked child.

        Raises:
            LedgerError: The end cannot be written; the stream stays as one whose writer died.
        """
        if os.getpid() != self._pid:
            return
        gate = threading.Lock()
        gate.acquire()
        item = _Item(None, gate.release, last=True)
        with self._lock:
            first, self._closing = not self._closing, True
            waiting = first and self._failure is None
            if waiting:
                self._queue.put(item)
        if waiting:
            gate.acquire()
        self._thread.join()
        if first:
            self._writer.release()
            atexit.unregister(self.close)
        if isinstance(item.result, LedgerError):
            raise item.result

    def __enter__(self) -> Self:
        """Give the ledger itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the ledger."""
        self.close()

    def _submit(self, item: _Item) -> None:
        if os.getpid() != self._pid:
            raise LedgerError(
                f"{self.path}: a forked child cannot write to the ledger of its parent",
                hint="open a ledger in the child",
            )
        with self._lock:
            if self._failure is not None:
                raise _copy(self._failure)
            if self._closing:
                raise LedgerError(f"{self.path}: the ledger is closed")
            self._queue.put(item)

    def _run(self) -> None:
        failure: LedgerError | None = LedgerError(f"{self.path}: the ledger stopped unexpectedly")
        try:
            self._work()
            failure = None
        except LedgerError as error:
            failure = error
        finally:
            if failure is not None:
                self._fail(failure)

    def _work(self) -> None:
        writer = self._writer
        while True:
            batch = self._batch = self._gather()
            entries = [item for item in batch if item.entry is not None]
            last = any(item.last for item in batch)
            fresh = writer.unsigned == 0
            results = writer.append([item.entry for item in entries if item.entry is not None])
            for item, result in zip(entries, results, strict=True):
                item.settle(result)
            if last:
                writer.append([Entry(event="ledger.closed", attrs={"stream": self.stream})])
            if fresh and writer.unsigned:
                self._due = monotonic() + CHECKPOINT_SECONDS
            late = monotonic() >= self._due
            if len(entries) < len(batch) or not batch or writer.unsigned >= CHECKPOINT_RECORDS or late:
                writer.checkpoint()
            for item in batch:
                if item.entry is None:
                    item.settle(None)
            if last:
                return

    def _gather(self) -> list[_Item]:
        """Wait for something to do; nothing when a checkpoint is due."""
        timeout = max(0.0, self._due - monotonic()) if self._writer.unsigned else None
        batch: list[_Item] = []
        with suppress(Empty):
            batch.append(self._queue.get(timeout=timeout))
            while len(batch) < _BATCH:
                batch.append(self._queue.get_nowait())
        return batch

    def _fail(self, failure: LedgerError) -> None:
        """Tell everybody who waits, and refuse everybody who comes."""
        with self._lock:
            self._failure = failure
            waiting = [item for item in self._batch if not item.done]
            with suppress(Empty):
                while True:
                    waiting.append(self._queue.get_nowait())
        for item in waiting:
            item.settle(_copy(failure))


def _nobody() -> None:
    """Notify nobody."""


def _record_of(item: _Item) -> Record:
    if isinstance(item.result, Record):
        return item.result
    raise item.result or LedgerError("the ledger gave no record")


def _copy(error: LedgerError) -> LedgerError:
    """Make an error of its own for each waiter: a raised error carries the trace of the one that raised it."""
    return LedgerError(error.message, hint=error.hint)


def _lock_directory(directory: Path, held: ExitStack) -> None:
    """Make the directory if needed and let one process at a time open a stream in it."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(directory.stat().st_mode)
        if mode & 0o022:
            raise LedgerError(f"{directory}: others can write to the ledger", hint=f"run: chmod 700 {directory}")
        descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        held.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        raise LedgerError(f"{directory}: the ledger directory cannot be used: {error.strerror}") from error
