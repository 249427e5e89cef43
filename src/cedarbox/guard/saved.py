"""What is known of a workspace that was saved, and that it was this guard that wrote it down.

The description of a save travels with the snapshot that holds it, through states, databases and hands that are not
ours. So it is authenticated: HMAC-SHA-256 (RFC 2104) over its fields and the id of its snapshot, under a key derived
from the sandbox key. Whoever changes the digest, the policies, the parent, or gives the description of one snapshot to
another, gets a description that is refused.
"""

from __future__ import annotations

import asyncio
import hmac
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, BinaryIO, Final, Literal, cast

from pydantic import BaseModel, ConfigDict

from cedarbox.errors import SnapshotError
from cedarbox.guard.keys import SandboxKey

__all__ = [
    "UNKNOWN",
    "Measure",
    "Measured",
    "Saved",
    "SavedSeal",
    "Used",
    "check_measure",
    "measured_copy",
    "measured_in_place",
]

UNKNOWN: Final = "unknown"
"""Stands for a policy bundle that nothing tells."""

_CHUNK: Final = 1024 * 1024
# BoxLite's session looks at the first 512 bytes of what it restores before it knows whether it will
# (``SnapshotReference.MAX_BYTES``); every archive is longer.
_LOOK: Final = 512


@dataclass(frozen=True, slots=True)
class Measure:
    """What was counted of a content that passed.

    Attributes:
        sha256: SHA-256, in hex.
        size_bytes: Its size.
    """

    sha256: str
    size_bytes: int


class Saved(BaseModel):
    """What is known of one save.

    Attributes:
        name: Its name. Two saves never share one, also when they have the same content.
        parent: The name of the save that its sandbox started from; empty when that was an image.
        session: Id of the session that was saved.
        kind: ``tar`` for an archive; ``native`` for a reference to a disk of the backend.
        sha256: SHA-256 of the archive, or of the reference, which covers the disk.
        size_bytes: Bytes of the archive; of a native one, what it takes on the disk.
        image_digest: ``sha256:…`` of the image of its sandbox; empty when nobody knows it.
        bundle: Digest of the policy bundle that was in force when it was saved.
        seal: See :class:`SavedSeal`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    parent: str
    session: str
    kind: Literal["tar", "native"]
    sha256: str
    size_bytes: int
    image_digest: str
    bundle: str
    seal: str = ""

    def facts(self) -> dict[str, str | int]:
        """Return what a record tells of it; the names begin with ``snapshot.`` there."""
        return {name: value for name, value in self.model_dump().items() if name not in {"seal", "session"}} | {
            "of": self.session
        }


@dataclass(frozen=True, slots=True)
class SavedSeal:
    """Seals what is known of saves.

    Attributes:
        key: The sandbox key.
    """

    key: SandboxKey

    def sealed(self, saved: Saved, snapshot_id: str) -> Saved:
        """Return a description that holds for the snapshot with this id, and for no other."""
        return saved.model_copy(update={"seal": self._of(saved, snapshot_id)})

    def check(self, saved: Saved, snapshot_id: str) -> None:
        """Check that a description is of this snapshot and as it was written.

        Raises:
            SnapshotError: It is not.
        """
        if not hmac.compare_digest(saved.seal.encode("utf-8", "replace"), self._of(saved, snapshot_id).encode()):
            raise SnapshotError(
                f"what is said of the snapshot {snapshot_id[:80]} is not what was written down when it was saved",
                hint=f"it was changed, is of another snapshot, or was sealed with another key than {self.key.path}",
            )

    def _of(self, saved: Saved, snapshot_id: str) -> str:
        fields = saved.model_dump(exclude={"seal"})
        text = json.dumps([snapshot_id, fields], sort_keys=True, separators=(",", ":"))
        return "1:" + hmac.digest(self.key.derived(b"cedarbox saved workspace 1"), text.encode(), "sha256").hex()


class Measured(io.RawIOBase):
    """A stream that is counted while it is read, once, from where it is to where its reader stops.

    Args:
        source: What is read; left open.
    """

    def __init__(self, source: Any) -> None:
        super().__init__()
        self._source, self._digest, self._size = source, sha256(), 0

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: object) -> int:
        """Read what the source gives."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # what io hands over
        data = self._source.read(len(view)) or b""
        view[: len(data)] = data
        self._digest.update(data)
        self._size += len(data)
        return len(data)

    @property
    def measure(self) -> Measure:
        """What has passed so far."""
        return Measure(self._digest.hexdigest(), self._size)


class Used(io.BufferedReader):
    """A stream that tells when more than a look was taken at it.

    Args:
        raw: What is read; it has to know its position.
        used: Called once, when more than 512 bytes, or all there are, have been read; None for nothing.
    """

    def __init__(self, raw: Any, used: Callable[[], None] | None = None) -> None:
        super().__init__(raw)
        self._used = used

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, see :meth:`io.BufferedReader.read`."""
        data = super().read(-1 if size is None else size)
        self._note(ended=size is None or size < 0 or len(data) < size)
        return data

    def read1(self, size: int = -1, /) -> bytes:
        """Read, see :meth:`io.BufferedReader.read1`."""
        data = super().read1(size)
        self._note(ended=not data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        """Read, see :meth:`io.BufferedReader.readinto`."""
        count = super().readinto(buffer)
        self._note(ended=count < len(memoryview(buffer).cast("B")))
        return count

    def _note(self, *, ended: bool) -> None:
        if self._used is not None and (ended or self.tell() > _LOOK):
            used, self._used = self._used, None
            used()


def check_measure(label: str, saved: Saved | None, measure: Measure) -> None:
    """Compare what is about to be restored with what was saved.

    Args:
        label: What it is, for the message.
        saved: What is known of the save; None when nothing is, so that anything will do.
        measure: What there is.

    Raises:
        SnapshotError: They differ.
    """
    if saved is not None and saved.sha256 != measure.sha256:
        raise SnapshotError(
            f"{label} does not hold what was saved: its SHA-256 is {measure.sha256}, and that of "
            f"what was saved is {saved.sha256}",
            hint="it was changed, saved again since, or another was put in its place; use another snapshot",
        )


async def measured_in_place(data: Any) -> Measure | None:
    """Count what a stream holds from where it is, and put it back there.

    Returns:
        None when the stream cannot be put back; nothing was read then.
    """
    if not (callable(getattr(data, "seekable", None)) and data.seekable()):
        return None

    def count() -> Measure:
        begin = data.tell()
        passing = Measured(data)
        while passing.read(_CHUNK):
            pass
        data.seek(begin)
        return passing.measure

    return await asyncio.to_thread(count)


async def measured_copy(data: Any) -> tuple[BinaryIO, Measure]:
    """Copy a stream to where nobody else can write, counting it.

    Returns:
        An unnamed file of this process at its beginning, and what it holds.

    Raises:
        OSError: It cannot be read, or there is no room.
    """

    def copy() -> tuple[BinaryIO, Measure]:
        passing = Measured(data)
        copied = cast("BinaryIO", tempfile.TemporaryFile(buffering=0))  # noqa: SIM115  # handed out
        try:
            while chunk := passing.read(_CHUNK):
                view = memoryview(chunk)
                while view:
                    view = view[copied.write(view) :]
            copied.seek(0)
        except BaseException:
            copied.close()
            raise
        return copied, passing.measure

    return await asyncio.to_thread(copy)
