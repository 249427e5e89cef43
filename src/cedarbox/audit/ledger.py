"""The ledger: entries in, durable records out.

One thread per open ledger writes; callers wait. While the disk is busy, entries gather and share the next write and
sync. A checkpoint is signed at opening, every 1000 records, one second after the first record that has none, and at
closing. When the disk fails, the ledger takes back what it wrote in part, tells every waiter, and refuses from then on.

Each ledger has an index that names every stream and the key of its checkpoints. The key of a stream is in the memory of
its writer only. A stream whose writer died is recorded in the index by whoever opens the ledger next.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from types import TracebackType
from typing import Final, Self

from cedarbox.audit.clock import Clock
from cedarbox.audit.index import FORMAT, Index
from cedarbox.audit.record import Entry, Record
from cedarbox.audit.recovery import Ending, examine
from cedarbox.audit.writer import StreamWriter
from cedarbox.errors import LedgerError

__all__ = ["CHECKPOINT_RECORDS", "CHECKPOINT_SECONDS", "FORMAT", "SEGMENT_BYTES", "Ledger"]

CHECKPOINT_RECORDS: Final = 1000
CHECKPOINT_SECONDS: Final = 1.0

SEGMENT_BYTES: Final = 64 * 1024 * 1024
"""Size at which a segment is sealed when nothing else is said."""

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
    """

    def __init__(self, directory: Path, writer: StreamWriter) -> None:
        self.directory = directory
        self.stream = writer.stream
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
        cls,
        directory: Path | str,
        *,
        signing_key: Path | str | None = None,
        clock: Clock | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Ledger:
        """Start a new stream in a ledger.

        The index gets ``stream.recovered`` for each stream whose writer died, and ``stream.opened`` for this one, which
        then begins with ``ledger.opened``.

        Args:
            directory: The ledger; made with mode 0700 when it is missing.
            signing_key: Ed25519 key (PEM, PKCS #8, mode 0600) that signs the next records of the index; made on first
                use, and replaced at each signature. Default: ``<name of the directory>.key`` beside the directory. The
                first public key is written beside it with the suffix ``.pub`` and into the directory.
            clock: Gives the times; the clocks of the host by default.
            segment_bytes: Size in bytes at which a segment of the stream is sealed and the next one begun.

        Raises:
            LedgerError: The directory, the key or the size cannot be used, or the key does not fit the index.
        """
        if directory == "" or "\0" in str(directory):
            raise LedgerError(f"{str(directory)!r} is no name for a ledger", hint="name a directory")
        if segment_bytes < 1:
            raise LedgerError(f"a segment of {segment_bytes} bytes holds no record", hint="give one byte at least")
        place = Path(directory).absolute()
        index = Index(place, None if signing_key is None else Path(signing_key).absolute())
        endings: dict[str, Ending] = {}
        while True:
            with index.locked():
                dead = index.dead()
                unknown = [stream for stream in dead if stream.stream not in endings]
                if not unknown:
                    writer = StreamWriter(place, index, clock or Clock(), segment_bytes)
                    try:
                        entries = [endings[stream.stream].entry() for stream in dead]
                        opened = index.append([*entries, writer.opened()])[-1]
                    except BaseException:
                        writer.release()
                        raise
                    break
            # Without the lock: a long stream takes its time, and nobody writes it any more.
            for stream in unknown:
                endings[stream.stream] = examine(place, index.ledger, stream.stream, stream.keys)
        try:
            writer.begin(opened)
        except LedgerError:
            writer.release()
            raise
        return cls(place, writer)

    @property
    def path(self) -> Path:
        """File of the segment that is written now."""
        return self._writer.path

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
                raise LedgerError(f"{self.path}: the ledger is closed", told="the ledger is closed")
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
                writer.end()
            elif writer.full:
                writer.next_segment()
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
    return LedgerError(error.message, hint=error.hint, told=error.told)
