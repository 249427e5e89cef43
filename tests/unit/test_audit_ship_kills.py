"""kill -9 over a shipper, again and again, while the writer goes on and the collector comes, goes and is killed too.

CEDARBOX_LONG=1 kills 200 times instead of 15; the counts are printed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.forking import fork
from tests.unit.ports import reserved
from tests.unit.shipping import PATIENCE

from cedarbox.audit import Entry, Ledger
from cedarbox.audit.otlp_checkpoints import CheckpointSource
from cedarbox.audit.pace import Pace
from cedarbox.audit.shipper import LedgerSource, Shipper, Source
from cedarbox.collector import EmbeddedCollector, Store, server
from cedarbox.collector.store import LogRow

LONG = os.environ.get("CEDARBOX_LONG") == "1"
KILLS = 200 if LONG else 15
PACE = Pace(batch_units=8, poll_s=0.002, first_s=0.005, last_s=0.05)


class Nursery:
    """A process without threads that forks others on demand: a fork of this one would copy locks that are held."""

    def __init__(self, jobs: dict[str, Callable[[], None]]) -> None:
        self._asked, ask = os.pipe()
        answered, self._answer = os.pipe()
        self.pid = fork()
        if self.pid == 0:
            os.close(ask)
            os.close(answered)
            self._serve(jobs)
        os.close(self._asked)
        os.close(self._answer)
        self._ask, self._answered = ask, answered

    def start(self, job: str) -> int:
        os.write(self._ask, job[:1].encode())
        return int.from_bytes(os.read(self._answered, 8), "big")

    def end(self, pid: int, how: signal.Signals) -> None:
        """Send a signal and wait until the process is gone; the nursery reaps it."""
        try:
            os.kill(pid, how)
            while True:
                os.kill(pid, 0)
                time.sleep(0.001)
        except ProcessLookupError:
            pass

    def close(self) -> None:
        os.close(self._ask)
        os.close(self._answered)
        os.waitpid(self.pid, 0)

    def _serve(self, jobs: dict[str, Callable[[], None]]) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while wanted := os.read(self._asked, 1):
            child = os.fork()
            if child == 0:
                try:
                    next(work for name, work in jobs.items() if name[:1].encode() == wanted)()
                finally:
                    os._exit(1)
            os.write(self._answer, child.to_bytes(8, "big"))
        os._exit(0)


class Site:
    """A ledger, a collector's store, a place, and a file that counts what the collector received."""

    def __init__(self, directory: Path, port: int) -> None:
        self.ledger, self.store = directory / "ledger", directory / "store"
        self.place, self.received = directory / "place.json", directory / "received"
        self.port = port

    def shipper(self) -> Shipper:
        sources: list[Source] = [LedgerSource(self.ledger), CheckpointSource(self.ledger)]
        return Shipper(f"http://127.0.0.1:{self.port}", sources, place=self.place, pace=PACE)

    def ship(self) -> None:
        self.shipper().start()
        while True:
            signal.pause()

    def collect(self) -> None:
        received = self.received

        class CountingStore(Store):
            def add_logs(self, request: Any, *args: Any, **options: Any) -> Any:
                ids = [
                    attribute.value.string_value
                    for outer in request.resource_logs
                    for inner in outer.scope_logs
                    for record in inner.log_records
                    for attribute in record.attributes
                    if attribute.key == "audit.record.id"
                ]
                with received.open("a") as file:
                    file.write(json.dumps(ids) + "\n")
                return super().add_logs(request, *args, **options)

        vars(server)["Store"] = CountingStore
        stopped = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stopped.set())
        with EmbeddedCollector(self.store, port=self.port):
            stopped.wait()
        os._exit(0)

    def expected(self) -> dict[str, str]:
        """The exact body for each id, from the files of the ledger."""
        found: dict[str, str] = {}
        for path in LedgerSource(self.ledger).streams():
            for line in path.read_text().splitlines():
                found[f"{path.name.split('.')[0]}/{json.loads(line)['seq']}"] = line
        source = CheckpointSource(self.ledger)
        for path in source.streams():
            for note in source.cut(path.read_bytes()):
                found[f"{path.stem}/checkpoint/{note.decode().splitlines()[1]}"] = note[:-1].decode()
        return found

    def rows(self) -> list[LogRow]:
        with Store(self.store) as store:
            return store.logs(limit=10_000_000)

    def requests(self) -> list[list[str]]:
        return [json.loads(line) for line in self.received.read_text().splitlines()]


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Append records all the while."""
    over = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            with Ledger.open(directory) as ledger:
                number = 0
                while not over.is_set():
                    number += 1
                    ledger.append(Entry(event="decision", decision="allow", attrs={"number": number}))
                    if number % 40 == 0:
                        ledger.checkpoint()
                    over.wait(0.003)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert failures == []


@pytest.fixture
def port() -> Iterator[int]:
    with reserved() as kept:
        yield kept


@pytest.mark.timeout(900)
def test_every_record_arrives_once_whoever_is_killed(tmp_path: Path, port: int) -> None:
    site, chance = Site(tmp_path, port), random.Random(6)
    counts: Counter[str] = Counter()
    nursery = Nursery({"ship": site.ship, "collect": site.collect})
    try:
        collector = nursery.start("collect")
        with writing(site.ledger):
            for _ in range(KILLS):
                shipper = nursery.start("ship")
                time.sleep(chance.uniform(0.0, 0.12))
                if chance.random() < 0.4:
                    how = chance.choice([signal.SIGTERM, signal.SIGKILL])
                    nursery.end(collector, how)
                    counts[f"collector {how.name}"] += 1
                    time.sleep(chance.uniform(0.0, 0.06))
                    collector = nursery.start("collect")
                    time.sleep(chance.uniform(0.0, 0.12))
                nursery.end(shipper, signal.SIGKILL)
                counts["shipper SIGKILL"] += 1
        last = site.shipper()
        last.start()
        done = last.stop(PATIENCE)
        nursery.end(collector, signal.SIGTERM)
    finally:
        nursery.close()
    assert done, last.last_error
    expected, rows, requests = site.expected(), site.rows(), site.requests()
    sent = Counter(name for ids in requests for name in ids)
    seen: set[str] = set()
    repeated = 0
    for ids in requests:
        repeated += not seen.isdisjoint(ids)
        seen.update(ids)
    print(
        f"\nkills {dict(counts)}; written {len(expected)} records and checkpoints; stored {len(rows)}; "
        f"stored twice by id {len(rows) - len({row.record_id for row in rows})}; requests {len(requests)}; "
        f"sent again and left out by id {sent.total() - len(sent)}; requests repeated at least in part {repeated}"
    )
    assert counts["shipper SIGKILL"] == KILLS
    assert counts.total() > KILLS
    assert {row.record_id: row.body for row in rows} == expected
    assert len(rows) == len(expected)
    assert not any(row.conflict for row in rows)
