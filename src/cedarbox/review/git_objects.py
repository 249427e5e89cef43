"""Reads the files of a commit out of a git repository.

Objects are read raw from one ``git cat-file --batch``, by their ids: no name of a file ever becomes an option or a
pattern.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Literal

from cedarbox.errors import ConfigurationError
from cedarbox.review.git_run import TIMEOUT_S, start

__all__ = ["DEEPEN", "OID", "Entry", "Objects"]

DEEPEN: Final = (
    "fetch the history too: fetch-depth: 0 in actions/checkout, GIT_DEPTH: 0 in GitLab, or git fetch --unshallow"
)
"""What to do where a part of the history is not there."""

OID: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
"""The id of an object, in SHA-1 or SHA-256."""

# Of a directory: 1,000 files with names of 255 octets are below 300 kB.
_MAX_TREE: Final = 4 * 1024 * 1024
_MAX_COMMIT: Final = 1024 * 1024

Kind = Literal["file", "directory", "link", "submodule"]
_KINDS: Final[Mapping[int, Kind]] = {0o100000: "file", 0o040000: "directory", 0o120000: "link", 0o160000: "submodule"}


@dataclass(frozen=True, slots=True)
class Entry:
    """What a directory of a commit holds under one name.

    Attributes:
        kind: What it is.
        object: Id of its object.
    """

    kind: Kind
    object: str


class Objects(AbstractContextManager["Objects"]):
    """The files of one commit, read one after the other from one process.

    Args:
        top: The working tree of the repository.
        commit: Id of the commit.
    """

    def __init__(self, top: Path, commit: str) -> None:
        self._top, self._commit = top, commit
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Objects:
        self._process = start(self._top)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
            process.wait(TIMEOUT_S)

    def committed(self) -> datetime | None:
        """Return when the commit was made; None where no time is told that a clock can show.

        Raises:
            ConfigurationError: It cannot be read.
        """
        told = re.search(rb"^committer .*> ([0-9]{1,12}) [+-][0-9]{4}$", self._header(), re.MULTILINE)
        try:
            return datetime.fromtimestamp(int(told[1]), UTC) if told else None
        except (OverflowError, ValueError):
            return None

    def entry(self, path: str) -> Entry | None:
        """Return what stands at a path; None for nothing.

        Args:
            path: Relative to the top, with ``/``; empty for the top itself.

        Raises:
            ConfigurationError: A link or a submodule is on the way, or an object cannot be read.
        """
        at = Entry("directory", self._root())
        walked: list[str] = []
        for name in [part for part in path.split("/") if part not in {"", "."}]:
            if at.kind != "directory":
                told = f"{'/'.join(walked)} is a {at.kind} in commit {self._commit[:12]}"
                if at.kind == "file":
                    return None
                hint = "a bundle is read from plain directories, not through links"
                raise ConfigurationError(told, hint="run it inside of that" if at.kind == "submodule" else hint)
            walked.append(name)
            below = self.directory(at.object).get(name)
            if below is None:
                return None
            at = below
        return at

    def directory(self, tree: str) -> Mapping[str, Entry]:
        """Return what a directory holds, by name.

        Args:
            tree: Id of its object.

        Raises:
            ConfigurationError: It cannot be read.
        """
        data = self._read(tree, b"tree", _MAX_TREE)
        try:
            return _entries(data, len(tree) // 2)
        except (KeyError, ValueError):
            raise self._unreadable(tree, "it is damaged") from None

    def listed(self, path: str) -> Iterable[str]:
        """Return the names in the directory at a path; none where there is no directory.

        Args:
            path: Relative to the top, with ``/``; empty for the top itself.

        Raises:
            ConfigurationError: A link or a submodule is on the way, or an object cannot be read.
        """
        entry = self.entry(path)
        return () if entry is None or entry.kind != "directory" else self.directory(entry.object).keys()

    def named(self, name: str) -> Iterator[str]:
        """Yield the path of every file of this name, relative to the top. Links and submodules are passed over.

        Args:
            name: Without a directory.

        Raises:
            ConfigurationError: A directory cannot be read.
        """
        waiting = [("", self._root())]
        while waiting:
            above, tree = waiting.pop()
            for each, entry in self.directory(tree).items():
                if entry.kind == "directory":
                    waiting.append((f"{above}{each}/", entry.object))
                elif entry.kind == "file" and each == name:
                    yield above + each

    def file(self, blob: str, limit: int) -> bytes:
        """Return the content of a file.

        Args:
            blob: Id of its object.
            limit: How large it may be, in bytes.

        Raises:
            ConfigurationError: It cannot be read, or is larger.
        """
        return self._read(blob, b"blob", limit)

    def _root(self) -> str:
        first = self._header().split(b"\n", 1)[0].decode("ascii", "replace")
        tree = first.removeprefix("tree ")
        if not OID.fullmatch(tree):
            raise self._unreadable(self._commit, "it is damaged")
        return tree

    def _header(self) -> bytes:
        return self._read(self._commit, b"commit", _MAX_COMMIT).partition(b"\n\n")[0]

    def _read(self, oid: str, kind: bytes, limit: int) -> bytes:
        process = self._process
        assert process is not None  # noqa: S101 - inside the with statement
        assert process.stdin is not None  # noqa: S101 - asked for above
        assert process.stdout is not None  # noqa: S101 - asked for above
        try:
            process.stdin.write(oid.encode("ascii") + b"\n")
            process.stdin.flush()
            header = process.stdout.readline(200).split()
            if len(header) != 3 or header[0] != oid.encode("ascii") or header[1] != kind:
                missing = len(header) == 2 or not header
                raise self._unreadable(oid, "it is not here" if missing else "it is not what it should be")
            size = int(header[2])
            if size > limit:
                raise self._unreadable(oid, f"it is larger than {limit} bytes", hint="split the file")
            data = _exactly(process.stdout, size)
            process.stdout.read(1)
        except (OSError, ValueError):
            raise self._unreadable(oid, "git ended") from None
        if len(data) != size:
            raise self._unreadable(oid, "git ended")
        return data

    def _unreadable(self, oid: str, why: str, hint: str = "") -> ConfigurationError:
        message = f"object {oid[:12]} of commit {self._commit[:12]} cannot be read: {why}"
        return ConfigurationError(message, hint=hint or f"the clone is not whole; {DEEPEN}")


def _exactly(stream: IO[bytes], size: int) -> bytes:
    pieces = []
    while size > 0 and (piece := stream.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _entries(data: bytes, digest: int) -> Mapping[str, Entry]:
    # A tree is for each entry: mode, space, name, NUL, the bytes of the id (gitformat-pack and the source of git).
    found: dict[str, Entry] = {}
    at = 0
    while at < len(data):
        end = data.index(b"\0", at)
        mode, _, octets = data[at:end].partition(b" ")
        name = os.fsdecode(octets)
        at = end + 1 + digest
        # Of two with one name a checkout could have the other.
        if name in found or "/" in name or name in {"", ".", ".."}:
            raise ValueError(name)
        # As git reads it: a mode may begin with zeros.
        found[name] = Entry(_KINDS[int(mode, 8) & 0o170000], data[end + 1 : at].hex())
    return found
