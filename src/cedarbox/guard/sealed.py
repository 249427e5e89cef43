"""Snapshots that are encrypted before they reach the disk, for any backend that saves an archive of its workspace."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Final, Literal

from agents.sandbox.session.dependencies import Dependencies
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec
from pydantic import PrivateAttr

from cedarbox.errors import SnapshotError
from cedarbox.files import open_regular, replacing
from cedarbox.guard.keys import SandboxKey
from cedarbox.guard.saved import Measure, Measured, Saved, Used, check_measure
from cedarbox.guard.sealing import SealedReader, seal

__all__ = ["SealedSnapshot", "SealedSnapshotSpec"]

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}").fullmatch


class SealedSnapshot(SnapshotBase):
    """A workspace saved as ``<base_path>/<id>.sealed``, encrypted under the sandbox key and bound to its id.

    The SDK gives a session's snapshot the id of the session, so a snapshot of one session is none of another. It is
    written beside its place and renamed, mode 0600. Reading it back authenticates all of it before the first byte is
    handed out, and decrypts in memory, 1 MiB at a time. On BoxLite with native snapshots it holds a reference of some
    hundred bytes; the disk itself stays in the BoxLite home, in clear.

    Attributes:
        base_path: The directory; made with mode 0700 when it is missing.
        key: The file of the sandbox key; made on first use.
        sha256: SHA-256 of the file, in hex, once it was saved under guard: no other is restored then. Empty for any.
        saved: What is known of the last save; None when there was none under guard.

    Raises:
        SnapshotError: By :meth:`persist` and :meth:`restore`: it cannot be written, is missing, or is not what was
            saved.
        ConfigurationError: By both: the key cannot be used.
    """

    type: Literal["cedarbox_sealed"] = "cedarbox_sealed"
    base_path: Path
    key: Path
    sha256: str = ""
    saved: Saved | None = None
    _file_sha256: str = PrivateAttr(default="")
    _taken: Measure | None = PrivateAttr(default=None)
    _restored: Measure | None = PrivateAttr(default=None)

    @property
    def path(self) -> Path:
        """The file.

        Raises:
            SnapshotError: The id is not a plain name.
        """
        if not _ID(self.id):
            raise SnapshotError(f"{self.id[:80]!r} is not the id of a sealed snapshot", hint="it was changed")
        return self.base_path / f"{self.id}.sealed"

    def pinned(self, saved: Saved | None = None) -> SealedSnapshot:
        """Return the snapshot that restores only what :meth:`persist` last wrote.

        Args:
            saved: What is known of that; None when nothing more is.
        """
        known = {"sha256": self._file_sha256} if self._file_sha256 else {}
        return self.model_copy(update={**known, "saved": saved})

    def at(self, snapshot_id: str) -> SealedSnapshot:
        """Return another snapshot beside this one, not yet saved."""
        return SealedSnapshot(id=snapshot_id, base_path=self.base_path, key=self.key)

    async def persist(self, data: io.IOBase, *, dependencies: Dependencies | None = None) -> None:
        """Encrypt a stream into the file; the file that was there stays until the new one is whole and on the disk."""
        _ = dependencies
        key = SandboxKey.load(self.key)
        path, passing = self.path, Measured(data)
        self._taken = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with replacing(path, 0o600) as sink:
                file_sha256 = await seal(passing, sink, key, self._label)
        except OSError as error:
            raise SnapshotError(f"{path}: the snapshot cannot be written: {error.strerror}") from error
        self._file_sha256, self._taken = file_sha256, passing.measure

    async def restore(self, *, dependencies: Dependencies | None = None) -> io.IOBase:
        """Authenticate all of the file, then return its content as a stream that can seek."""
        _ = dependencies
        self._restored = None
        path, key = self.path, SandboxKey.load(self.key, make=False)
        try:
            file = open_regular(path)
        except OSError as error:
            raise SnapshotError(f"{path}: the snapshot cannot be read: {error.strerror}") from error
        try:
            reader = SealedReader(file, key, self._label)
            measure = await reader.verify(sha256_hex=self.sha256)
            check_measure(self._label, self.saved, measure)
        except BaseException:
            file.close()
            raise

        def used() -> None:
            self._restored = measure

        return Used(reader, used)

    async def restorable(self, *, dependencies: Dependencies | None = None) -> bool:
        """Whether there is something to restore. One that was saved is; when it is missing, restoring fails."""
        _ = dependencies
        return bool(self.sha256) or self.saved is not None or self.path.is_file()

    @property
    def _label(self) -> str:
        return f"the snapshot {self.id}"


class SealedSnapshotSpec(SnapshotSpec):
    """Asks for a :class:`SealedSnapshot` of each session.

    Attributes:
        base_path: The directory of the snapshots.
        key: The file of the sandbox key.
    """

    type: Literal["cedarbox_sealed"] = "cedarbox_sealed"
    base_path: Path
    key: Path

    def build(self, snapshot_id: str) -> SnapshotBase:
        """Return the snapshot of the session with this id."""
        return SealedSnapshot(id=snapshot_id, base_path=self.base_path, key=self.key)
