"""The collector may die in the middle of a run: the run goes on, and the records arrive when it is back."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.snapshot import NoopSnapshotSpec
from tests.unit.bundles import PERMIT_ALL, write_bundle
from tests.unit.ports import reserved
from tests.unit.shipping import PATIENCE

from cedarbox import PolicySandboxClient
from cedarbox.audit import Ledger, read_records
from cedarbox.audit.otlp_checkpoints import CHECKPOINT_EVENT, CheckpointSource
from cedarbox.audit.shipper import Shipper
from cedarbox.audit.target import Target
from cedarbox.collector import EmbeddedCollector
from cedarbox.collector.store import Store
from cedarbox.settings import load_settings
from cedarbox.shipping import place_of, sources_of


def collector(directory: Path, port: int) -> tuple[subprocess.Popen[str], str]:
    command = [
        sys.executable,
        "-m",
        "cedarbox",
        "collector",
        "serve",
        "--directory",
        str(directory),
        "--port",
        str(port),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[-1]


def stop(process: subprocess.Popen[str], how: signal.Signals) -> None:
    process.send_signal(how)
    process.wait(timeout=PATIENCE)
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture
def port() -> Iterator[int]:
    with reserved() as kept:
        yield kept


async def test_a_killed_collector_loses_nothing_and_stops_nothing(tmp_path: Path, port: int) -> None:
    first, url = collector(tmp_path / "store", port)
    settings = load_settings(
        audit={"directory": tmp_path / "ledger", "signing_key": tmp_path / "ledger.key"},
        otlp={"endpoint": url, "spans": tmp_path / "spans"},
    )
    client = PolicySandboxClient(
        UnixLocalSandboxClient(), policies=write_bundle(tmp_path / "bundle", PERMIT_ALL), settings=settings
    )
    assert client.shipper is not None
    session = await client.create(snapshot=NoopSnapshotSpec(), manifest=None, options=None)
    async with session:
        assert (await session.exec("echo before")).stdout == b"before\n"
        assert client.shipper.flush(PATIENCE)
        stop(first, signal.SIGKILL)
        assert (await session.exec("echo during")).stdout == b"during\n"
        assert not client.shipper.flush(0.2)
        second, again = collector(tmp_path / "store", port)
        assert again == url
        assert (await session.exec("echo after")).stdout == b"after\n"
    await client.delete(session)
    assert client.close(flush=PATIENCE)
    stop(second, signal.SIGTERM)

    written = {f"{stream}/{record.seq}" for stream, record in read_records(tmp_path / "ledger")}
    index = (tmp_path / "ledger" / "index.jsonl").read_bytes()
    written |= {f"index/{number}" for number in range(index.count(b"\n"))}
    with Store(tmp_path / "store") as store:
        found = store.logs(limit=10_000)
        rows = [row for row in found if row.event != CHECKPOINT_EVENT]
        source = CheckpointSource(tmp_path / "ledger")
        notes = [note for path in source.streams() for note in source.cut(path.read_bytes())]
        assert sorted(f"{row.body}\n".encode() for row in found if row.event == CHECKPOINT_EVENT) == sorted(notes)
        assert len(rows) == len(written)
        assert {row.record_id for row in rows} == written
        assert not any(row.conflict for row in rows)
        execs = [span for run in store.runs() for span in store.spans(run.trace_id) if span.name == "exec"]
        assert len(execs) == 3


def test_two_ledgers_beside_each_other_arrive_both(tmp_path: Path) -> None:
    with EmbeddedCollector(tmp_path / "store", port=0) as receiver:
        target = Target(endpoint=receiver.url)
        for name, count in (("long", 9), ("short", 1)):
            directory = tmp_path / name
            for _ in range(count):
                Ledger.open(directory).close()
            sources = sources_of(directory, tmp_path / "spans")
            shipper = Shipper(target, sources, place=place_of(directory))
            shipper.start()
            assert shipper.stop(PATIENCE)
        states = receiver.store.queries.streams()
        # An index has one record of its own, and two of each stream.
        assert sorted(state.records for state in states if state.stream == "index") == [3, 19]
        assert not any(state.gaps or state.conflicts for state in states)
