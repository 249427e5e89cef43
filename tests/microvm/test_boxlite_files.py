"""Files and workspace archives of a real guest."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from agents.sandbox.errors import (
    InvalidManifestPathError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
)
from agents.sandbox.session.sandbox_session import SandboxSession
from tests.microvm.boxes import content, stream

from cedarbox.boxlite import files

EVERY = bytes(range(256))


async def test_write_and_read_are_exact(session: SandboxSession) -> None:
    await session.write(Path("deep/down/file"), stream(EVERY * 5))
    assert await content(session, "deep/down/file") == EVERY * 5
    assert await content(session, "/workspace/deep/down/file") == EVERY * 5
    await session.write(Path("deep/down/empty"), stream(b""))
    assert await content(session, "deep/down/empty") == b""
    assert (await session.exec("ls -A deep/down")).stdout == b"empty\nfile\n"


async def test_mode_and_owner_of_an_existing_file_are_kept(session: SandboxSession) -> None:
    await session.exec("echo x >kept; chmod 750 kept; chown agent:agent kept")
    await session.write(Path("kept"), stream(b"new"))
    assert (await session.exec("stat -c '%a %U' kept; cat kept")).stdout == b"750 agent\nnew"


async def test_users(session: SandboxSession) -> None:
    await session.exec("mkdir -p mine; chown agent mine; echo secret >root-only; chmod 600 root-only")
    await session.write(Path("mine/file"), stream(EVERY), user="agent")
    assert (await session.exec("stat -c '%U %a' mine/file")).stdout == b"agent 644\n"
    assert await content(session, "mine/file", user="agent") == EVERY
    with pytest.raises(WorkspaceArchiveReadError):
        await session.read(Path("root-only"), user="agent")
    await session.exec("mkdir -p roots; chmod 755 roots; chown root roots")
    with pytest.raises(WorkspaceArchiveWriteError):
        await session.write(Path("roots/file"), stream(b"x"), user="agent")


async def test_five_megabytes(session: SandboxSession) -> None:
    data = hashlib.sha256(b"seed").digest() * 32 * 5120
    await session.write(Path("large"), stream(data))
    # More than BoxLite takes in one piece, and less than goes in parts.
    assert 4 * 1024 * 1024 < len(data) < files.PART_BYTES
    digest = hashlib.sha256(data).hexdigest()
    assert (await session.exec("sha256sum large")).stdout.decode().split()[0] == digest
    assert hashlib.sha256(await content(session, "large")).hexdigest() == digest
    assert await session.read_bounded(Path("large"), max_bytes=10) == data[:10]
    await session.exec("rm large")


async def test_missing_and_special_files(session: SandboxSession) -> None:
    with pytest.raises(WorkspaceReadNotFoundError):
        await session.read(Path("missing"))
    with pytest.raises(WorkspaceReadNotFoundError):
        await session.read(Path("missing/too"))
    with pytest.raises(WorkspaceReadNotFoundError):
        await session.read_bounded(Path("missing"), max_bytes=1)
    await session.exec("mkfifo pipe; mkdir -p directory")
    for special in ("pipe", "directory"):
        with pytest.raises(WorkspaceArchiveReadError):
            await session.read(Path(special))
        with pytest.raises(WorkspaceArchiveWriteError):
            await session.write(Path(special), stream(b"x"))
    await session.exec("rm pipe")


@pytest.mark.parametrize("path", ["../etc/passwd", "/etc/passwd", "a/../../etc/passwd", "out", "outdir/passwd"])
async def test_paths_that_leave_the_workspace(session: SandboxSession, path: str) -> None:
    await session.exec("ln -sfn /etc/passwd out; ln -sfn /etc outdir")
    before = (await session.exec("cat", "/etc/passwd", shell=False)).stdout
    with pytest.raises(InvalidManifestPathError):
        await session.read(Path(path))
    with pytest.raises(InvalidManifestPathError):
        await session.write(Path(path), stream(b"evil"))
    assert (await session.exec("cat", "/etc/passwd", shell=False)).stdout == before
    await session.exec("rm out outdir")


async def test_a_new_file_is_claimed(session: SandboxSession) -> None:
    await session._inner._write_new_file(Path("new/one"), stream(b"first"))
    with pytest.raises(FileExistsError):
        await session._inner._write_new_file(Path("new/one"), stream(b"second"))
    await session.exec("ln -s nowhere new/dangling")
    with pytest.raises(FileExistsError):
        await session._inner._write_new_file(Path("new/dangling"), stream(b"second"))
    assert await content(session, "new/one") == b"first"


async def test_a_large_file_goes_in_parts_and_is_written_at_once(
    session: SandboxSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PART_BYTES", 500)
    await session.exec("mkdir parts; cd parts; echo old >real; chmod 640 real; chown agent real; ln -s real link")
    await session.write(Path("parts/link"), stream(EVERY * 5))
    assert await content(session, "parts/real") == EVERY * 5
    await session._inner._write_new_file(Path("parts/new"), stream(EVERY * 4))
    assert await content(session, "parts/new") == EVERY * 4
    with pytest.raises(FileExistsError):
        await session._inner._write_new_file(Path("parts/new"), stream(EVERY * 5))
    listing = (await session.exec("cd parts; stat -c '%a %U' real; readlink link; ls -A")).stdout
    assert listing == b"640 agent\nreal\nlink\nnew\nreal\n"


@pytest.mark.parametrize("new", [True, False])
async def test_a_write_that_is_cancelled_is_whole_or_leaves_nothing(session: SandboxSession, new: bool) -> None:
    await session.exec("rm -rf cut; mkdir cut; echo kept >cut/old")
    write = session._inner._write_new_file if new else session.write
    size = 8_000_000 if os.environ.get("CEDARBOX_RIG") == "1" else 300_000_000
    task = asyncio.create_task(write(Path("cut/new" if new else "cut/old"), stream(bytes(size))))
    while b".cedarbox." not in (await session.exec("ls -A cut")).stdout:
        assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The guest may have been done before it could be stopped; half a file there must never be.
    left = (await session.exec("cd cut; for f in $(ls -A); do echo $f $(wc -c <$f); done")).stdout.decode().split("\n")
    before, whole = (["old 5", ""], ["new", "old 5", ""]) if new else (["old 5", ""], ["old", ""])
    whole[0] += f" {size}"
    assert left in (before, whole)


async def test_archive_round_trip(session: SandboxSession, monkeypatch: pytest.MonkeyPatch) -> None:
    await session.exec(
        "rm -rf -- *; mkdir -p a/b skip/me a/skip; printf '\\377\\000' >a/b/bytes; echo hard >a/one; ln a/one a/two;"
        "ln -s b/bytes a/link; chmod 755 a/one; mkfifo pipe; echo n >skip/me/file; echo yes >a/skip/file; echo u >'ü x'"
    )
    session._inner.register_persist_workspace_skip_path("skip/me")
    with await session.persist_workspace() as packed:
        data = packed.read()
    assert isinstance(data, bytes)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = {member.name for member in archive}
        assert not any(member.islnk() for member in archive)
    assert names == {".", "a", "a/b", "a/b/bytes", "a/link", "a/one", "a/skip", "a/skip/file", "a/two", "skip", "ü x"}
    assert (await session.exec("ls /.cedarbox")).stdout == b""
    await session.exec("rm -rf -- * .[!.]*")
    # It goes in parts, to a file that is gone afterwards.
    monkeypatch.setattr(files, "PART_BYTES", len(data) // 2)
    await session.hydrate_workspace(io.BytesIO(data))
    assert (await session.exec("ls /.cedarbox")).stdout == b""
    assert await content(session, "a/b/bytes") == b"\xff\0"
    assert await content(session, "a/link") == b"\xff\0"
    assert (await session.exec("stat -c %a a/one; cat a/two 'ü x' a/skip/file")).stdout == b"755\nhard\nu\nyes\n"


async def test_a_hostile_archive_changes_nothing(session: SandboxSession) -> None:
    hostile = io.BytesIO()
    with tarfile.open(fileobj=hostile, mode="w") as archive:
        member = tarfile.TarInfo("../../etc/evil")
        archive.addfile(member)
    hostile.seek(0)
    with pytest.raises(WorkspaceArchiveWriteError):
        await session.hydrate_workspace(hostile)
    assert not (await session.exec("test", "-e", "/etc/evil", shell=False)).ok()
