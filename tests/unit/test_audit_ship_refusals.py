"""The shipper when a collector takes some records and not others, asks to wait, and when several processes ship."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from tests.unit.forking import fork
from tests.unit.shipping import PATIENCE, GrpcCollector, HttpCollector, Received, until

from cedarbox.audit import Entry, Ledger
from cedarbox.audit.backoff import Backoff
from cedarbox.audit.otlp_checkpoints import CheckpointSource
from cedarbox.audit.pace import Pace
from cedarbox.audit.place import Place, Unit
from cedarbox.audit.shipper import LedgerSource, Shipper, Source
from cedarbox.audit.target import Target

QUICK = Pace(batch_units=32, first_s=0.01, last_s=0.02, poll_s=0.01, held_tries=4)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger") as it:
        yield it


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "place.json"


def fill(ledger: Ledger, *names: str) -> None:
    for name in names:
        ledger.append(Entry(event="decision", decision="allow", tool=name))


def names(count: int) -> list[str]:
    return [f"n{number}" for number in range(count)]


def lines(ledger: Ledger) -> list[str]:
    return [line for path in LedgerSource(ledger.directory).streams() for line in path.read_text().splitlines()]


def bodies(received: Received) -> set[str]:
    return {event.body.string_value for event in received.events}


def holds(request: ExportLogsServiceRequest, text: str) -> bool:
    return text in str(request)


def http_refusals() -> list[Any]:
    partial = ExportLogsPartialSuccess(rejected_log_records=1, error_message="no")
    return [400, 413, 422, 500, ExportLogsServiceResponse(partial_success=partial).SerializeToString()]


def grpc_refusals() -> list[Any]:
    partial = ExportLogsPartialSuccess(rejected_log_records=1, error_message="no")
    codes = [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL]
    return [ExportLogsServiceResponse(partial_success=partial), *(aborting(code) for code in codes)]


def aborting(code: grpc.StatusCode) -> Callable[[grpc.ServicerContext], None]:
    return lambda context: context.abort(code, "no")


@pytest.mark.parametrize(
    ("make", "wire", "refusal"),
    [
        *((HttpCollector, "http/protobuf", refusal) for refusal in http_refusals()),
        *((GrpcCollector, "grpc", refusal) for refusal in grpc_refusals()),
    ],
)
def test_a_record_that_is_never_taken_blocks_no_other_and_is_not_lost_without_a_word(
    ledger: Ledger, place: Path, make: Any, wire: Literal["http/protobuf", "grpc"], refusal: Any
) -> None:
    received = Received(lambda request: refusal if holds(request, "poison") else None)
    fill(ledger, *names(20), "poison-1", *names(3), "poison-2", "poison-3", *names(20))
    told: list[Unit] = []
    collector = make(received)
    shipper = Shipper(
        Target(endpoint=collector.endpoint, protocol=wire),
        [LedgerSource(ledger.directory)],
        place=place,
        pace=QUICK,
        on_left=told.append,
    )
    shipper.start()
    until(lambda: len(shipper.status.left) == 3)
    assert shipper.stop(PATIENCE)
    collector.close()
    poison = [line for line in lines(ledger) if '"poison-' in line]
    assert bodies(received) == set(lines(ledger)) - set(poison)
    left = shipper.status.left
    assert tuple(told) == left
    data = ledger.path.read_bytes()
    assert sorted(data[unit.start : unit.end].decode() for unit in left) == sorted(f"{line}\n" for line in poison)
    assert {unit.tries for unit in left} == {QUICK.held_tries}
    assert shipper.status.pending_records == 0
    assert Place(place).left == left


def test_what_was_left_can_be_sent_once_the_collector_takes_it(ledger: Ledger, place: Path) -> None:
    refusing = [True]
    received = Received(lambda request: 400 if refusing[0] and holds(request, "poison") else None)
    fill(ledger, "poison", *names(2))
    collector = HttpCollector(received)
    sources = [LedgerSource(ledger.directory)]
    shipper = Shipper(collector.endpoint, sources, place=place, pace=QUICK)
    shipper.start()
    until(lambda: len(shipper.status.left) == 1)
    shipper.stop(PATIENCE)
    refusing[0] = False
    assert Place(place).revive() == 1
    second = Shipper(collector.endpoint, sources, place=place, pace=QUICK)
    assert second.pending == 1
    second.start()
    assert second.stop(PATIENCE)
    collector.close()
    assert bodies(received) == set(lines(ledger))
    assert second.status.left == ()


@pytest.mark.parametrize("answer", [400, 401, 404, 429, 503, 307, b"<html>"])
def test_a_collector_that_refuses_everything_makes_nothing_be_passed_over(
    ledger: Ledger, place: Path, answer: Any
) -> None:
    broken = [True]
    received = Received(lambda _: answer if broken[0] else None)
    fill(ledger, *names(30))
    collector = HttpCollector(received)
    shipper = Shipper(collector.endpoint, [LedgerSource(ledger.directory)], place=place, pace=QUICK)
    shipper.start()
    until(lambda: received.requests > 60 or (answer != 400 and received.requests > 8))
    assert (shipper.status.held, shipper.status.left) == ((), ())
    assert shipper.pending == len(lines(ledger))
    assert shipper.last_error
    broken[0] = False
    assert shipper.stop(PATIENCE)
    collector.close()
    assert received.ids == Counter(dict.fromkeys(received.ids, 1))
    assert bodies(received) == set(lines(ledger))


def test_a_signal_that_the_collector_does_not_know_delays_no_other(ledger: Ledger, place: Path, tmp_path: Path) -> None:
    class Metrics(LedgerSource):
        name = "metrics"
        path = "/v1/metrics"

    received = Received()
    collector = HttpCollector(received)

    def answer(request: ExportLogsServiceRequest) -> int | None:
        return 404 if not holds(request, ledger.stream) else None

    received.answer = answer
    with Ledger.open(tmp_path / "other") as other:
        sources: list[Source] = [Metrics(other.directory), LedgerSource(ledger.directory)]
        shipper = Shipper(collector.endpoint, sources, place=place, pace=Pace(first_s=3600, last_s=3600, poll_s=0.01))
        shipper.start()
        for number in range(5):
            fill(ledger, f"n{number}")
            until(lambda: bodies(received) == set(lines(ledger)))
        assert "404" in shipper.last_error
        shipper.stop(0.0)
    collector.close()


def retry_later(context: grpc.ServicerContext) -> None:
    detail = AnyMessage()
    detail.Pack(RetryInfo(retry_delay=Duration(seconds=3600)))
    status = RpcStatus(code=8, message="later", details=[detail])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "later")


@pytest.mark.parametrize(
    ("make", "wire", "answer"),
    [
        (HttpCollector, "http/protobuf", (429, {"retry-after": "3600"})),
        (HttpCollector, "http/protobuf", (503, {"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"})),
        (GrpcCollector, "grpc", retry_later),
    ],
)
def test_a_wait_that_is_asked_for_is_kept_even_by_a_flush(
    ledger: Ledger, place: Path, make: Any, wire: Literal["http/protobuf", "grpc"], answer: Any
) -> None:
    received = Received(lambda _: answer)
    collector = make(received)
    target = Target(endpoint=collector.endpoint, protocol=wire)
    shipper = Shipper(target, [LedgerSource(ledger.directory)], place=place, pace=QUICK)
    shipper.start()
    until(lambda: bool(shipper.last_error))
    for _ in range(3):
        assert not shipper.flush(0.1)
    assert not shipper.stop(0.0)
    collector.close()
    assert received.requests == 1


def test_waits_grow_to_a_bound_and_are_not_the_same_for_all() -> None:
    now = [0.0]
    backoffs = [Backoff(0.1, 120.0, now=lambda: now[0]) for _ in range(20)]
    waits = []
    for _ in range(14):
        for backoff in backoffs:
            backoff.fail("x", "away")
        waits.append([backoff.remaining("x") for backoff in backoffs])
    assert all(60.0 <= wait <= 120.0 for wait in waits[-1])
    assert all(0.05 <= wait <= 0.1 for wait in waits[0])
    assert len(set(waits[-1])) > 1
    backoffs[0].fail("x", "away", wait_s=1e12)
    assert backoffs[0].remaining("x") <= 3600.0
    backoffs[0].hurry()
    assert backoffs[0].blocks("x")
    now[0] = 3601.0
    assert not backoffs[0].blocks("x")
    backoffs[0].work("x")
    assert backoffs[0].error == ""


def test_one_of_two_shippers_ships_and_the_other_takes_over(ledger: Ledger, place: Path) -> None:
    received = Received()
    collector = HttpCollector(received)
    first, second = (
        Shipper(collector.endpoint, [LedgerSource(ledger.directory)], place=place, pace=QUICK) for _ in range(2)
    )
    fill(ledger, *names(10))
    first.start()
    assert first.flush(PATIENCE)
    second.start()
    fill(ledger, *names(10))
    assert second.flush(PATIENCE)
    assert first.stop(PATIENCE)
    fill(ledger, *names(10))
    assert second.stop(PATIENCE)
    collector.close()
    assert received.ids == Counter(dict.fromkeys(received.ids, 1))
    assert bodies(received) == set(lines(ledger))


def test_the_streams_of_a_process_that_was_killed_are_taken_over(tmp_path: Path, place: Path) -> None:
    received = Received()
    collector = HttpCollector(received)
    pace = Pace(poll_s=0.01)
    ready, told = os.pipe()
    child = fork()
    if child == 0:
        try:
            ledger = Ledger.open(tmp_path / "ledger")
            holder = Place(place)
            holder.hold()
            fill(ledger, *names(20))
            os.write(told, b"x")
            signal.pause()
        finally:
            os._exit(1)
    assert os.read(ready, 1) == b"x"
    shipper = Shipper(collector.endpoint, [LedgerSource(tmp_path / "ledger")], place=place, pace=pace)
    shipper.start()
    assert not shipper.flush(0.2)
    assert received.requests == 0  # the other one holds the place
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert shipper.stop(PATIENCE)
    collector.close()
    os.close(ready)
    os.close(told)
    files = LedgerSource(tmp_path / "ledger").streams()
    assert bodies(received) == {line for path in files for line in path.read_text().splitlines()}


def test_a_forked_child_does_not_keep_the_place(place: Path) -> None:
    first, second = Place(place), Place(place)
    assert first.hold()
    assert not second.hold()
    ready, told = os.pipe()
    child = fork()
    if child == 0:
        os.write(told, b"x")
        signal.pause()
    os.read(ready, 1)
    first.release()
    assert second.hold()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    second.release()
    os.close(ready)
    os.close(told)


def test_closing_is_bounded_while_a_collector_hangs(ledger: Ledger, place: Path) -> None:
    over = threading.Event()

    def hang(_: ExportLogsServiceRequest) -> None:
        over.wait(PATIENCE)

    received = Received(hang)
    collector = HttpCollector(received)
    shipper = Shipper(collector.endpoint, [LedgerSource(ledger.directory)], place=place)
    shipper.start()
    until(lambda: received.requests == 1)
    before = received.events.copy()
    assert not shipper.stop(0.1)
    assert received.events == before == []  # it came back while the request was still under way
    over.set()
    collector.close()


def test_a_stream_that_was_cut_below_what_was_acknowledged_is_named(ledger: Ledger, place: Path) -> None:
    received = Received()
    collector = HttpCollector(received)
    fill(ledger, *names(5))
    shipper = Shipper(collector.endpoint, [LedgerSource(ledger.directory)], place=place, pace=QUICK)
    shipper.start()
    assert shipper.flush(PATIENCE)
    os.truncate(ledger.path, ledger.path.stat().st_size // 2)
    until(lambda: "shorter than what the collector acknowledged" in shipper.last_error)
    shipper.stop(0.0)
    collector.close()


def test_checkpoints_are_shipped_as_the_notes_they_are(ledger: Ledger, place: Path) -> None:
    received = Received()
    collector = HttpCollector(received)
    shipper = Shipper(collector.endpoint, [CheckpointSource(ledger.directory)], place=place, pace=QUICK)
    shipper.start()
    index, path = sorted(CheckpointSource(ledger.directory).streams(), key=lambda path: path.stem != "index")
    for number in range(3):
        fill(ledger, f"n{number}")
        ledger.checkpoint()
        assert shipper.flush(PATIENCE)
    with path.open("ab") as file:
        file.write(b"torn\n4\n")
    assert shipper.stop(PATIENCE)
    collector.close()
    notes = [event.body.string_value for event in received.events if ledger.stream in event.body.string_value]
    assert "".join(f"{note}\n" for note in notes) + "torn\n4\n" == path.read_text()
    groups = [event.body.string_value for event in received.events if event.body.string_value not in notes]
    assert "".join(f"{note}\n" for note in groups) == index.read_text()
    assert [event.event_name for event in received.events] == ["cedarbox.checkpoint"] * len(notes + groups)
    heads = [note.split("\n") for note in notes + groups]
    assert received.ids == Counter(f"{head[0].split('/')[-1]}/checkpoint/{head[1]}" for head in heads)
