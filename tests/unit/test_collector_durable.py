"""What the collector acknowledged is there, whatever becomes of its process."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from tests.unit.collected import decision, ledger_lines, ledger_request
from tests.unit.forking import fork

from cedarbox.collector import EmbeddedCollector, Store

LONG = os.environ.get("CEDARBOX_LONG") == "1"
KILLS = 200 if LONG else 4
PROTOBUF = {"content-type": "application/x-protobuf"}


def serve(directory: Path, told: int) -> None:
    """In a process of its own, until it is killed."""
    collector = EmbeddedCollector(directory, port=0)
    collector.start()
    os.write(told, f"{collector.url}\n".encode())
    time.sleep(600)


def started(directory: Path) -> tuple[int, str]:
    reader, writer = os.pipe()
    child = fork()
    if child == 0:
        try:
            serve(directory, writer)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as told:
        url = told.readline().strip()
    assert url, "the collector did not start"
    return child, url


def send_all(url: str, lines: list[bytes], start: int, acknowledged: set[int]) -> None:
    """Send every batch until the collector is gone; what was answered with 200 is noted."""
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        for first in range(start, len(lines), 7):
            content = ledger_request(lines[first : first + 7]).SerializeToString()
            try:
                if client.post("/v1/logs", content=content, headers=PROTOBUF).status_code != 200:
                    return
            except httpx.HTTPError:
                return
            acknowledged |= set(range(first, min(first + 7, len(lines))))


@pytest.mark.parametrize("batches", [3000])
def test_kill_9_at_random_moments_loses_nothing_that_was_acknowledged(
    tmp_path: Path, batches: int, record_property: Callable[[str, object], None]
) -> None:
    """Three senders at once, each from a random place on, and a collector that is killed and started again."""
    chance = random.Random(6)
    lines = ledger_lines(decision(number) for number in range(batches))
    total: set[int] = set()
    for _ in range(KILLS):
        child, url = started(tmp_path)
        acknowledged: list[set[int]] = [set(), set(), set()]
        senders = [
            threading.Thread(target=send_all, args=(url, lines, chance.randrange(batches), mine))
            for mine in acknowledged
        ]
        for sender in senders:
            sender.start()
        goal = 7 * chance.randrange(1, 60)
        while sum(map(len, acknowledged)) < goal and any(sender.is_alive() for sender in senders):
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for sender in senders:
            sender.join()
        total |= set.union(*acknowledged)
        with Store(tmp_path) as store:
            held = {
                seq
                for state in store.queries.streams()
                for seq in range(state.last_seq + 1)
                if not any(first <= seq <= last for first, last in state.gaps)
            }
            assert total <= held
            counts = store.queries.counts()
            assert (counts.records, counts.conflicts) == (len(held), 0)
    record_property("kills", KILLS)
    record_property("acknowledged", len(total))
    print(f"{KILLS} kills, {len(total)} records acknowledged, each of them there once")
    assert total
    with Store(tmp_path) as store:
        (problem,) = store.queries._reader.rows("PRAGMA integrity_check")
        assert problem == ("ok",)
