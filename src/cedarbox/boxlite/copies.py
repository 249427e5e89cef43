"""Writable mounts: a copy in the guest, and back to the host when the session stops.

The copy is made when the microVM's disk does not hold it yet. At the end the guest's tree comes out as an archive, is
checked on the host, unpacked beside the directory, and takes its place in one step, so that nobody ever sees half of
it. Nothing of either side is lost:

* The directory changed on the host meanwhile: it stays, and the guest's tree is kept beside it as
  ``NAME.cedarbox-ID``. That is told by a digest before the step, and again after it, when the step is undone.
* The guest's tree holds what must not come back (a link that may lead out, a device, a hard link, too much): the
  directory stays, and the archive is kept beside it as ``NAME.cedarbox-ID.tar``.

What is written to the host is asked for first, by the callable that a guard sets.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import IO, Final

from cedarbox.boxlite import api, archive, files, trees
from cedarbox.boxlite.accounts import AccountSession
from cedarbox.boxlite.marked import GuestFailure
from cedarbox.boxlite.mounts import PinnedMount, recheck
from cedarbox.boxlite.waiting import finish
from cedarbox.errors import CedarboxError, HostError

__all__ = ["CopyingSession", "put_back"]

_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH"
_MARKS: Final = f"{archive.SCRATCH}/mounts"
_TOO_LARGE: Final = 47
# Headers and padding of an archive, on top of the files.
_MAX_ARCHIVE: Final = trees.MAX_BYTES + trees.MAX_ENTRIES * 2048

# $1 the directory, $2 the file that tells which copy the disk holds.
_HELD: Final = f'{_PATH}; [ -d "$1" ] && [ ! -L "$1" ] && cat -- "$2" 2>/dev/null'
# $1 the archive, $2 the directory, $3 the mark, $4 the digest.
_BRING_IN: Final = f"""{_PATH}
rm -rf -- "$2" "$3" && mkdir -p -- "$2" && tar -x -p -f "$1" -C "$2" || exit 1
umask 077; mkdir -p -- "{_MARKS}" && printf %s "$4" >"$3"
"""
# $1 the directory, $2 the archive, $3 the most bytes that it may have.
_TAKE_OUT: Final = f"""{_PATH}
[ -d "$1" ] && [ ! -L "$1" ] || {{ echo "$1 is not a directory any more" >&2; exit 1; }}
umask 077; d=$1 out=$2 most=$3; mkdir -p {archive.SCRATCH} || exit 1; set --
if tar --help 2>&1 | grep -q -- --hard-dereference; then set -- --hard-dereference; fi
tar "$@" -C "$d" -cf "$out" . || exit 1
[ "$(wc -c <"$out")" -le "$most" ] || {{ rm -f -- "$out"; exit {_TOO_LARGE}; }}
"""
# $1 the mark, $2 the digest.
_MARK: Final = f'{_PATH}; umask 077; mkdir -p -- "{_MARKS}" && printf %s "$2" >"$1"'

Permission = Callable[[str, str], AbstractAsyncContextManager[object]]
"""Asks whether a directory of the host may be written: its real path, and its path in the guest. Raises when not."""


class CopyingSession(AccountSession):
    """The part of a session that carries writable mounts in and out."""

    permission: Permission | None = None
    _copy_error: CedarboxError | None = None

    async def _before_stop(self) -> None:
        # While the microVM still runs; the workspace is saved all the same when this fails.
        await super()._before_stop()
        self._copy_error = None
        try:
            await self._take_out()
        except CedarboxError as error:
            self._copy_error = error

    async def _after_stop(self) -> None:
        await super()._after_stop()
        error, self._copy_error = self._copy_error, None
        if error is not None:
            raise error

    def _persist_workspace_skip_relpaths(self) -> set[Path]:
        # What is mounted in the workspace is the host's, not the workspace's.
        return super()._persist_workspace_skip_relpaths() | self._mounted_in_workspace()

    def _workspace_resume_mount_skip_relpaths(self) -> set[Path]:
        return super()._workspace_resume_mount_skip_relpaths() | self._mounted_in_workspace()

    def _mounted_in_workspace(self) -> set[Path]:
        root = Path(self.state.workspace_root)
        paths = (Path(mount.guest) for mount in self.state.mounts)
        return {path.relative_to(root) for path in paths if path.is_relative_to(root)}

    async def _bring_in(self) -> None:
        """Copy every writable mount whose copy the disk does not hold yet, or that only the host changed since.

        Raises:
            HostError: One cannot be carried or unpacked.
        """
        for number, mount in enumerate(self.state.mounts):
            if not mount.read_only and not await self._is_current(mount):
                self._keep(number, replace(mount, contents=await self._copied_in(mount)))

    async def _is_current(self, mount: PinnedMount) -> bool:
        if not await self._holds_copy(mount):
            return False
        if await asyncio.to_thread(trees.tree_digest, Path(mount.real)) == mount.contents:
            return True
        content, digest, _ = await self._guest_tree(mount)
        content.close()
        # What the guest changed is never thrown away: stop() keeps it beside what the host has now.
        return digest != mount.contents

    async def _holds_copy(self, mount: PinnedMount) -> bool:
        result = await self._tool(_HELD, mount.guest, _mark_path(mount))
        return bool(mount.contents) and result.ok() and result.stdout == mount.contents.encode()

    async def _copied_in(self, mount: PinnedMount) -> str:
        await asyncio.to_thread(recheck, (mount,))
        content, digest = await asyncio.to_thread(trees.archived, Path(mount.real))
        with content:
            try:
                result = await self._unpacked(_BRING_IN, content, mount.guest, _mark_path(mount), digest)
            except (GuestFailure, api.BoxliteError) as error:
                raise HostError(f"the mount {mount.host} cannot be copied into the guest: {error}") from error
        if not result.ok():
            said = result.stderr.decode("utf-8", "replace")[:500]
            raise HostError(f"the mount {mount.host} cannot be copied into the guest: {said}")
        return digest

    async def _take_out(self) -> None:
        """Copy every writable mount back that the guest changed. All are tried, the first error is raised.

        Raises:
            HostError: One was not put in its place; the message says where it is.
            PolicyDenied: One may not be written; nothing of it was.
        """
        first: CedarboxError | None = None
        for number, mount in enumerate(self.state.mounts):
            if mount.read_only or not mount.contents:
                continue
            try:
                after = await self._copied_back(mount)
                self._keep(number, after)
                await self._tool(_MARK, _mark_path(after), after.contents)
            except CedarboxError as error:
                first = first or error
            except (GuestFailure, api.BoxliteError, OSError) as error:
                first = first or HostError(f"the mount {mount.host} cannot be copied back: {error}")
        if first is not None:
            raise first

    async def _guest_tree(self, mount: PinnedMount) -> tuple[IO[bytes], str, str]:
        """Fetch the guest's tree as an archive; its digest, or why it is refused."""
        packed = f"{archive.SCRATCH}/{self.state.session_id.hex}-{secrets.token_hex(4)}.tar"
        try:
            result = await self._tool(_TAKE_OUT, mount.guest, packed, str(_MAX_ARCHIVE))
            if result.exit_code == _TOO_LARGE:
                raise HostError(
                    f"{mount.guest} has grown beyond what is copied back to {mount.host}; nothing was copied",
                    hint="move what is needed into the workspace, and stop again",
                )
            if not result.ok():
                said = result.stderr.decode("utf-8", "replace")[:500]
                raise HostError(f"{mount.guest} cannot be copied back to {mount.host}: {said}")
            content = await files.copied_out(self._machine.box, packed)
        finally:
            await finish(self._scrapped(packed))
        return content, *await asyncio.to_thread(_checked, content)

    async def _copied_back(self, mount: PinnedMount) -> PinnedMount:
        content, digest, refusal = await self._guest_tree(mount)
        with content:
            if digest == mount.contents:
                return mount
            permission = nullcontext() if self.permission is None else self.permission(mount.real, mount.guest)
            async with permission:
                return await asyncio.to_thread(put_back, mount, content, digest, refusal)

    async def _scrapped(self, packed: str) -> None:
        await self._tool('rm -f -- "$1"', packed)

    def _keep(self, number: int, mount: PinnedMount) -> None:
        mounts = list(self.state.mounts)
        mounts[number] = mount
        self.state.mounts = tuple(mounts)


def put_back(mount: PinnedMount, content: IO[bytes], digest: str, refusal: str = "") -> PinnedMount:
    """Put a tree of the guest in the place of the directory it was copied from, or keep it beside that.

    Args:
        mount: The mount; ``contents`` is the digest of what was copied in.
        content: The archive of the guest's tree.
        digest: Its digest, when it was taken.
        refusal: Why it was not taken; then the archive itself is kept.

    Returns:
        The mount as it is now.

    Raises:
        HostError: The tree, or the archive, was kept beside the directory; the message names it.
    """
    target = Path(mount.real)
    kept = target.with_name(f"{target.name}.cedarbox-{secrets.token_hex(4)}")
    if refusal:
        raise HostError(
            f"{mount.guest} was not copied back to {mount.host}: {refusal}; its archive is kept as "
            f"{_archive_kept(content, kept)}"
        )
    part = kept.with_name(f"{kept.name}.part")
    try:
        trees.unpacked(content, part)
    except HostError as error:
        _discard(part)
        raise HostError(
            f"{error.message}; the archive of what the guest made is kept as {_archive_kept(content, kept)}"
        ) from None
    try:
        recheck((mount,))
        _unchanged(mount, target)
        trees.exchange(part, target)
        try:
            # Once more, of what is aside now: somebody may have written between the look and the step.
            _unchanged(mount, part)
        except HostError:
            trees.exchange(part, target)
            raise
    except HostError as error:
        part.rename(kept)
        raise HostError(f"{error.message}; what the guest made of {mount.host} is kept as {kept}") from None
    _discard(part)
    status = target.stat()
    return replace(mount, device=status.st_dev, inode=status.st_ino, contents=digest)


def _checked(content: IO[bytes]) -> tuple[str, str]:
    try:
        return trees.archive_digest(content), ""
    except HostError as error:
        return "", error.message


def _unchanged(mount: PinnedMount, place: Path) -> None:
    if trees.tree_digest(place) != mount.contents:
        raise HostError(f"{mount.host} changed on the host meanwhile")


def _discard(tree: Path) -> None:
    if tree.is_dir():
        tree.chmod(0o700)
    for place, directories, _ in os.walk(tree):
        # What its owner may not write cannot be emptied.
        for name in directories:
            if not (below := Path(place, name)).is_symlink():
                below.chmod(0o700)
    shutil.rmtree(tree, ignore_errors=True)


def _archive_kept(content: IO[bytes], beside: Path) -> Path:
    path = beside.with_name(f"{beside.name}.tar")
    content.seek(0)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as out:
        shutil.copyfileobj(content, out, 1024 * 1024)
        out.flush()
        os.fsync(handle)
    return path


def _mark_path(mount: PinnedMount) -> str:
    return f"{_MARKS}/{hashlib.sha256(mount.guest.encode()).hexdigest()[:16]}"
