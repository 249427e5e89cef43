"""The file operations of a guarded session."""

from __future__ import annotations

import io
import posixpath
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path, PurePath

from agents.sandbox.files import FileEntry
from agents.sandbox.types import User

from cedarbox.errors import CanonicalizationError
from cedarbox.guard.admission import AdmittingSession, name_of
from cedarbox.guard.backend import real_path_in_guest, real_path_on_host, within_paths
from cedarbox.guard.gate import Operation
from cedarbox.guard.identity import is_decided
from cedarbox.guard.question import Impossible, Question
from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import canonical_path
from cedarbox.policy.entities import Base

__all__ = ["FilesSession"]


class FilesSession(AdmittingSession):
    """A session whose file operations pass the gate, by the name they are asked for and by where that name leads.

    A guest owns its file system, so in it a name may lead elsewhere when it is used than when it was decided: there a
    rule about paths holds against mistakes, not against code that swaps links. Without a file system of its own the
    names are the host's: then what the backend opens must be one of the paths that were decided.
    """

    async def _read(
        self,
        path: Path,
        *,
        user: str | User | None = None,
        expected_span_errors: tuple[type[BaseException], ...] = (),
    ) -> io.IOBase:
        async with self._file("read", path, user):
            return await super()._read(self._used(path), user=user, expected_span_errors=expected_span_errors)

    async def read_bounded(self, path: Path, *, max_bytes: int) -> bytes:
        """Read at most ``max_bytes`` of a file."""
        async with self._file("read", path) as operation:
            data = await super().read_bounded(self._used(path), max_bytes=max_bytes)
            operation.set("bytes", len(data))
            return data

    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        """Write a file."""
        if is_decided():
            return await super().write(path, data, user=user)
        async with self._file("write", path, user):
            return await super().write(self._used(path), data, user=user)

    async def _write_new_file(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        async with self._file("create", path, user):
            await super()._write_new_file(self._used(path), data, user=user)

    async def ls(self, path: Path | str, *, user: str | User | None = None) -> list[FileEntry]:
        """List a directory."""
        async with self._file("list", path, user) as operation:
            entries = await super().ls(self._used(path), user=user)
            operation.set("entries", len(entries))
            return entries

    async def rm(self, path: Path | str, *, recursive: bool = False, user: str | User | None = None) -> None:
        """Remove a file or a tree."""
        async with self._file("remove", path, user) as operation:
            operation.set("recursive", recursive)
            await super().rm(self._used(path), recursive=recursive, user=user)

    async def mv(self, source: Path | str, destination: Path | str, *, user: str | User | None = None) -> None:
        """Move a file; both ends are decided."""
        also = await self._ask_behind_links("move", source, user)
        await self._ask(self._touch("move", source, user))
        async with self._file("move", destination, user, also=also):
            await super().mv(self._used(source), self._used(destination), user=user)

    async def mkdir(self, path: Path | str, *, parents: bool = False, user: str | User | None = None) -> None:
        """Make a directory."""
        async with self._file("make_directory", path, user) as operation:
            operation.set("parents", parents)
            await super().mkdir(self._used(path), parents=parents, user=user)

    async def same_file(
        self,
        left: Path | str,
        right: Path | str,
        *,
        follow_symlinks: bool = True,
        user: str | User | None = None,
    ) -> bool:
        """Compare two paths; both are decided."""
        also = await self._ask_behind_links("compare", left, user, leaf=follow_symlinks)
        await self._ask(self._touch("compare", left, user))
        async with self._file("compare", right, user, also=also, leaf=follow_symlinks):
            return await super().same_file(
                self._used(left), self._used(right), follow_symlinks=follow_symlinks, user=user
            )

    @asynccontextmanager
    async def _file(
        self,
        operation: str,
        path: Path | str,
        user: str | User | None = None,
        *,
        also: frozenset[str] = frozenset(),
        leaf: bool = True,
    ) -> AsyncIterator[Operation]:
        decided = also | await self._ask_behind_links(operation, path, user, leaf=leaf)
        if not self._pinned:
            async with self._through(self._touch(operation, path, user)) as allowed:
                yield allowed
            return
        with within_paths(decided) as pin:
            try:
                async with self._through(self._touch(operation, path, user)) as allowed:
                    yield allowed
            except Exception:
                if not pin.elsewhere:
                    raise
                reason = "the path led elsewhere when it was used than when it was decided"
                moved = Impossible(f"file {operation}", self._absolute(path), reason)
                raise await self._gate.refuse(moved, session=self.session_id) from None

    async def _ask_behind_links(
        self, operation: str, path: Path | str, user: str | User | None, *, leaf: bool = True
    ) -> frozenset[str]:
        # A link inside the workspace must not lend its name to what it points to, so both names are decided.
        absolute = self._absolute(path)
        try:
            plain = canonical_path(absolute)
        except CanonicalizationError:
            return frozenset()  # The operation itself is about to be denied for it.
        # Moving a link leaves its target alone, and so does removing one, but for unix-local; that makes a new file
        # beside a link of its name, and resolves the directory alone (agents 0.24).
        leaf = leaf and operation not in {"move", "remove" if self._isolated else "create"}
        above, name = (plain, "") if leaf else posixpath.split(plain)
        directory = await self._real_path(above)
        real = posixpath.join(directory, name) if name else directory
        if real != plain:
            if not self._isolated and not self._pinned:
                reason = (
                    "it leads through a link, and this backend cannot be held to where that led when it was decided"
                )
                raise await self._gate.refuse(Impossible(f"file {operation}", plain, reason), session=self.session_id)
            await self._ask(self._touch(operation, real, user))
        return frozenset((plain, real, directory) if operation == "create" else (plain, real))

    async def _real_path(self, path: str) -> str:
        await self._living("file resolve")
        real = await real_path_in_guest(self._inner, path) if self._isolated else real_path_on_host(path)
        try:
            return canonical_path(real)
        except CanonicalizationError:
            untold = Impossible("file resolve", path, "where this path leads cannot be told")
            raise await self._gate.refuse(untold, session=self.session_id) from None

    def _touch(self, operation: str, path: Path | str, user: str | User | None) -> Question:
        absolute = self._absolute(path)

        def name(base: Base) -> Action:
            return actions.touch_file(base, path=absolute, operation=operation, user=name_of(user))

        return Question(f"file {operation}", name, absolute)

    def _used(self, path: Path | str) -> Path:
        # What was decided on is used, not another reading of it: behind a link, `..` leads elsewhere than it seems to.
        absolute = self._absolute(path)
        plain = canonical_path(absolute)
        if plain == absolute:
            return Path(path)
        # A relative path stays one, because backends tell of those that leave the workspace in words of their own.
        return Path(plain if PurePath(path).is_absolute() else posixpath.relpath(plain, self.state.manifest.root))

    def _absolute(self, path: Path | str) -> str:
        text = path.as_posix() if isinstance(path, PurePath) else path
        return posixpath.join(self.state.manifest.root, text)
