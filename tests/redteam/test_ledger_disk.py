"""Attacks on the disk of the ledger: an agent fills it, or it turns read-only, so that nothing more is on record."""

from __future__ import annotations

import io
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import NoopSnapshotSpec
from tests.unit.guarded import Guarded
from tests.unit.ledgers import check

from cedarbox.audit import Entry, Ledger
from cedarbox.errors import LedgerError, PolicyDenied


@contextmanager
def full(path: Path) -> Iterator[None]:
    """No file may grow beyond the size of this one: write(2) fails with EFBIG, for any user."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("mounting a disk needs root on Linux")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=False, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def begun(guarded: Guarded) -> SandboxSession:
    session = await guarded.client.create(snapshot=NoopSnapshotSpec(), manifest=None, options=None)
    await session.start()
    for _ in range(30):  # so that the segment is the longest of all files
        guarded.client.ledger.append(Entry(event="outcome"))
    return session


async def test_an_agent_that_fills_the_disk_of_the_ledger(tmp_path: Path) -> None:
    """The disk of the ledger is full, so what the agent does next would not be on record.

    Nothing is done: exit code 126, or PolicyDenied, with the reason of the disk. The guest is not told where the ledger
    is; the caller finds that in the cause. Room on the disk does not open this stream again.
    """
    guarded = Guarded(tmp_path)
    session = await begun(guarded)
    root = Path(session.state.manifest.root)
    with full(guarded.client.ledger.path):
        result = await session.exec("touch made")
        with pytest.raises(PolicyDenied, match=r"cannot be recorded: .*File too large") as denied:
            await session.write(Path("written"), io.BytesIO(b"x"))
    assert result.exit_code == 126
    assert b"the ledger takes no more records: File too large" in result.stderr
    for told in (result.stderr.decode(), str(denied.value)):
        assert str(tmp_path) not in told
        assert ".jsonl" not in told
        assert len(told) < 300
    assert isinstance(denied.value.__cause__, LedgerError)
    assert str(guarded.client.ledger.path) in str(denied.value.__cause__)
    assert (await session.exec("touch later")).exit_code == 126
    assert list(root.iterdir()) == []
    with pytest.raises(LedgerError, match="File too large"):
        await guarded.client.delete(session)
    guarded.client.close()
    # What was cut off is gone, what was acknowledged is there, and the next opening goes on.
    Ledger.open(tmp_path / "ledger").close()
    assert "touch made" not in str(check(tmp_path / "ledger").streams)


def test_a_ledger_on_a_disk_that_turned_read_only(disk: Path) -> None:
    """The disk of the ledger is remounted read-only: no client is started, and the refusal says why.

    The key file stays as it was, and the ledger is whole when the disk can be written again.
    """
    with Ledger.open(disk / "ledger") as ledger:
        ledger.append(Entry(event="outcome"))
    key = (disk / "ledger.key").read_bytes()
    with read_only(disk), pytest.raises(LedgerError, match="Read-only file system"):
        Ledger.open(disk / "ledger")
    assert (disk / "ledger.key").read_bytes() == key
    assert sorted(path.name for path in disk.iterdir()) == ["ledger", "ledger.key", "ledger.pub"]
    Ledger.open(disk / "ledger").close()
    assert len(check(disk / "ledger").streams) == 2


@pytest.fixture
def thin(disk: Path, tmp_path: Path) -> Iterator[Path]:
    """A disk that promises more blocks than are below it: what it cannot keep fails at the sync, not at the write."""
    mkfs = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if mkfs is None:
        pytest.skip("there is no mkfs.ext4")
    subprocess.run(["mount", "-o", "remount,size=6m", str(disk)], check=True)
    place = tmp_path / "thin"
    place.mkdir()
    with (disk / "blocks").open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    subprocess.run([mkfs, "-q", "-O", "^has_journal", str(disk / "blocks")], check=True)
    mounted = subprocess.run(
        ["mount", "-o", "loop", str(disk / "blocks"), str(place)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no loop device can be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fails_at_the_sync(thin: Path) -> None:
    """The disk of the ledger takes what is written to it, and fails when it has to keep it: only the sync shows that.

    What was acknowledged by then is all there; nothing is acknowledged after, the reason is told, and the ledger takes
    no more.
    """
    ledger, acknowledged = Ledger.open(thin / "ledger"), 0
    failure: LedgerError | None = None
    while failure is None and acknowledged < 1000:
        try:
            ledger.append(Entry(event="outcome", attrs={"filler": os.urandom(30_000).hex()}))
            acknowledged += 1
        except LedgerError as error:
            failure = error
    # Which of the two it is, the driver of the disk says.
    told = "takes no more records: (No space left on device|Input/output error)"
    assert failure is not None
    assert re.search(told, failure.message)
    with pytest.raises(LedgerError, match=told):
        ledger.append(Entry(event="outcome"))
    assert acknowledged > 10
    assert ledger.path.read_bytes().count(b'"filler"') == acknowledged


@pytest.mark.parametrize("where", ["segment", "index"])
def test_a_disk_that_fills_while_the_segment_changes(tmp_path: Path, where: str) -> None:
    """The disk is full just when a segment is sealed, or when the index is told: no record is lost, none is double.

    Whoever waits is refused with the reason; the next opening finishes or takes back what was written in part.
    """
    directory = tmp_path / "ledger"
    for _ in range(20 if where == "index" else 0):
        Ledger.open(directory).close()  # the index is the longest file
    ledger = Ledger.open(directory, segment_bytes=12_000)
    kept = [ledger.append(Entry(event="outcome", attrs={"n": 0}))]
    with full(directory / "index.jsonl" if where == "index" else ledger.path):
        refused = ""
        for number in range(1, 60):
            try:
                kept.append(ledger.append(Entry(event="outcome", attrs={"n": number})))
            except LedgerError as error:
                refused = error.told
                break
        assert refused == "the ledger takes no more records: File too large"
        ledger.close()
    Ledger.open(directory).close()
    seen = check(directory)
    assert [record for record in seen.streams[ledger.stream] if record.entry.event == "outcome"] == kept
