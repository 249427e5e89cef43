"""kill -9 at random moments over busy writers: every effect has its record, and the whole ledger holds."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.unit.ledgers import check, child

from cedarbox.audit.ledger import Ledger
from cedarbox.audit.record import Entry
from cedarbox.audit.verify import verify_ledger

LONG = os.environ.get("CEDARBOX_LONG") == "1"
ROUNDS = 500 if LONG else 40
THREADS = 4
LONGEST_S = 0.06
SEGMENT = 40_000  # some sixty records: the segment changes under fire too


def busy(directory: Path, effects: int) -> None:
    """Record and act, in several threads, until the kill. An effect is one write(2), so a kill leaves no half of it."""
    ledger = Ledger.open(directory, segment_bytes=SEGMENT)

    def work(name: int) -> None:
        number = 0
        while True:
            by = f"{ledger.stream}.{name}.{number}"  # process ids come round again
            record = ledger.append(Entry(event="decision", attrs={"by": by}))
            os.write(effects, f"{ledger.stream} {record.seq} {record.hash} {by}\n".encode())
            number += 1

    threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.timeout(1200)
def test_kill_9_over_busy_writers_loses_and_doubles_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory, seed = tmp_path / "ledger", random.SystemRandom().randrange(2**32)
    chance, counts = random.Random(seed), Counter[str]()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    effects = os.open(tmp_path / "effects", flags, 0o600)
    for number in range(ROUNDS):
        before = os.fstat(effects).st_size
        pids = [child(lambda: busy(directory, effects)) for _ in range(chance.choice((1, 1, 2)))]
        while number % 2 and os.fstat(effects).st_size == before:
            time.sleep(0.001)  # every other time it is at work when its last milliseconds begin
        time.sleep(chance.uniform(0, LONGEST_S))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        counts["kills"] += len(pids)
        counts["index appends cut short"] += (tmp_path / "ledger.key.next").exists()
        Ledger.open(directory).close()
    os.close(effects)
    report = verify_ledger(directory, public_key=tmp_path / "ledger.pub")
    assert report.findings == (), seed
    seen = check(directory, tmp_path / "ledger.pub")
    for line in (tmp_path / "effects").read_text().splitlines():
        stream, seq, digest, by = line.split()
        record = seen.streams[stream][int(seq)]
        assert (record.hash, record.entry.attrs["by"]) == (digest, by), seed
        counts["effects"] += 1
    noted = Counter(seen.noted("by"))
    assert set(noted.values()) == {1}, seed
    recovered = seen.events("stream.recovered")
    counts["records"] = sum(map(len, seen.streams.values())) + len(seen.index)
    counts["records without effect"] = len(noted) - counts["effects"]
    counts["streams"] = len(seen.streams)
    counts["streams recovered"] = len(recovered)
    counts["torn lines cut"] = sum(1 for record in recovered if record.entry.attrs["discarded_bytes"])
    counts["torn index lines cut"] = len(seen.events("ledger.recovered"))
    counts["segments sealed"] = len(seen.events("segment.sealed"))
    counts["notes"] = seen.notes
    with capsys.disabled():
        print("\n" + ", ".join(f"{value} {name}" for name, value in counts.items()))
    assert counts["kills"] >= ROUNDS
    assert counts["effects"] >= ROUNDS // 2  # of the rounds that wait for one; more where the machine is quick
    assert counts["streams recovered"] > ROUNDS // 4
