"""A writer that dies at any change of a file: nothing is lost, nothing is double, and the ledger opens again."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from tests.unit.ledgers import NO_WRITE, check, child, dying_at

from cedarbox.audit.index import Index
from cedarbox.audit.ledger import Ledger
from cedarbox.audit.record import Entry
from cedarbox.audit.verify import verify_ledger

SEGMENT = 1500  # three records
LONG = os.environ.get("CEDARBOX_LONG") == "1"


def life(directory: Path, records: int) -> None:
    """Open, recover, record, change the segment, hand over a key, close. Each effect comes after its record."""
    with Ledger.open(directory, segment_bytes=SEGMENT) as ledger:
        for _ in range(records):
            record = ledger.append(Entry(event="outcome"))
            with (directory.parent / "effects").open("a") as effects:
                effects.write(f"{ledger.stream} {record.seq}\n")
        with Index(directory).locked() as index:
            index.append([Entry(event="key.rotated", attrs={"reason": "test"})])


def half_a_line(directory: Path) -> None:
    """Leave a stream whose writer died in the middle of a line."""

    def work() -> None:
        ledger = Ledger.open(directory)
        ledger.append(Entry(event="outcome"))
        with ledger.path.open("ab") as file:
            file.write(b'{"action":nu')
        os.kill(os.getpid(), signal.SIGKILL)

    assert ended(child(work)) == -signal.SIGKILL


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def dies(directory: Path, number: int, records: int, *, half: bool = False) -> int:
    """How a life ended that was to be ended at that change; 0 when it makes fewer."""

    def work() -> None:
        with dying_at(number, half=half):
            life(directory, records)

    code = ended(child(work))
    assert code in {0, -signal.SIGKILL} | ({NO_WRITE} if half else set())
    return code


def holds(directory: Path) -> None:
    """Open the ledger again and look for every effect."""
    public = directory.parent / "ledger.pub"
    kept = public.read_bytes() if public.exists() else None
    Ledger.open(directory).close()
    assert kept in {None, public.read_bytes()}
    assert not list(directory.parent.glob("*.next"))
    assert not LONG or verify_ledger(directory).findings == ()
    seen = check(directory)
    effects = directory.parent / "effects"
    for line in effects.read_text().splitlines() if effects.exists() else ():
        stream, seq = line.split()
        assert seen.streams[stream][int(seq)].entry.event == "outcome"
    opened = [str(record.entry.attrs["stream"]) for record in seen.events("stream.opened")]
    over = [str(record.entry.attrs["stream"]) for record in seen.index if record.entry.event in OVER]
    assert sorted(opened) == sorted(over) == sorted(set(opened))


OVER = {"stream.closed", "stream.recovered"}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    half_a_line(tmp_path / "base" / "ledger")
    return tmp_path / "base"


@pytest.mark.parametrize("half", [False, True], ids=["between changes", "in the middle of a write"])
@pytest.mark.parametrize(
    ("torn", "records", "least"), [(False, 0, 40), (True, 2, 60)], ids=["a new ledger", "a ledger with a torn stream"]
)
def test_death_at_every_change_of_a_file(
    base: Path, tmp_path: Path, torn: bool, records: int, least: int, half: bool
) -> None:
    if half and not torn and not LONG:
        pytest.skip("the other ledger is enough; set CEDARBOX_LONG=1 for this one too")
    number = deaths = 0
    code = -1
    while code:
        number += 1
        place = tmp_path / str(number)
        if torn:
            shutil.copytree(base, place)
        else:
            place.mkdir()
        code = dies(place / "ledger", number, records, half=half)
        if code == -signal.SIGKILL:
            deaths += 1
            holds(place / "ledger")
    assert number > least
    assert deaths == number - 1 if not half else deaths > 10


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_death_while_recovering_from_death(base: Path, tmp_path: Path) -> None:
    if not LONG:
        pytest.skip("takes minutes; set CEDARBOX_LONG=1")
    deaths = first = 0
    code = -1
    while code:
        first += 1
        once = tmp_path / str(first)
        shutil.copytree(base, once)
        code = dies(once / "ledger", first, 2)
        second, again = 0, -1
        while code and again:
            second += 1
            twice = tmp_path / f"{first}.{second}"
            shutil.copytree(once, twice)
            again = dies(twice / "ledger", second, 0)
            deaths += again != 0
            holds(twice / "ledger")
            shutil.rmtree(twice)
    print(f"\n{first - 1} first deaths, {deaths} second deaths")
    assert deaths > 1000
