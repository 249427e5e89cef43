"""The shipper against a real collector on the loopback that comes, goes, rejects and hangs up."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_INFO, SEVERITY_NUMBER_WARN, LogRecord
from tests.unit.ports import reserved

from cedarbox.audit.files import stream_of
from cedarbox.audit.ledger import Ledger
from cedarbox.audit.record import Entry, Record
from cedarbox.audit.shipper import LedgerSource, Shipper, Source
from cedarbox.audit.target import Target
from cedarbox.errors import ConfigurationError

PATIENCE = 60.0


class Collector:
    """A collector that keeps what it acknowledged, and can be told how to answer."""

    def __init__(self, port: int) -> None:
        self.events: list[LogRecord] = []
        self.headers: list[dict[str, str]] = []
        self.requests = 0
        self.answers: list[int | bytes] = []
        self.port = port
        self._server: ThreadingHTTPServer | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ids(self) -> Counter[str]:
        return Counter(attribute(event, "audit.record.id") for event in self.events)

    def up(self) -> None:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = gzip.decompress(self.rfile.read(int(self.headers["content-length"])))
                request = ExportLogsServiceRequest.FromString(body)
                collector.requests += 1
                answer = collector.answers.pop(0) if collector.answers else 200
                collector.headers.append({key.lower(): value for key, value in self.headers.items()})
                if answer == 0:  # took it, and died before it could say so
                    collector.keep(request)
                    self.close_connection = True
                    return
                if answer == 200:
                    assert self.path == "/v1/logs"
                    collector.keep(request)
                status, content = (answer, b"") if isinstance(answer, int) else (200, answer)
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def keep(self, request: ExportLogsServiceRequest) -> None:
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                self.events.extend(scope.log_records)

    def down(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def attribute(event: LogRecord, key: str) -> str:
    (value,) = (item.value for item in event.attributes if item.key == key)
    return value.string_value


def ids_on_disk(directory: Path) -> set[str]:
    return {
        f"{stream_of(path)}/{json.loads(line)['seq']}"
        for path in LedgerSource(directory).streams()
        for line in path.read_bytes().splitlines()
    }


def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds, and fail when it never does."""
    for _ in range(int(PATIENCE / 0.02)):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not come true")


def fill(ledger: Ledger, count: int) -> None:
    for number in range(count):
        ledger.append(Entry(event="decision", decision="allow", attrs={"number": number}))


@pytest.fixture
def collector() -> Iterator[Collector]:
    with reserved() as port:
        it = Collector(port)
        it.up()
        yield it
        it.down()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger") as it:
        yield it


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "place.json"


def test_records_become_log_events(collector: Collector, ledger: Ledger, place: Path) -> None:
    record = ledger.append(
        Entry(
            event="decision",
            decision="deny",
            trace_id="0af7651916cd43dd8448eb211c80319c",
            span_id="b7ad6b7169203331",
            action="connect",
            resource='Host::"example.com"',
            policies=("p1", "p2"),
        )
    )
    target = Target(endpoint=collector.endpoint, headers={"x-token": "t"})
    shipper = Shipper(target, [LedgerSource(ledger.directory)], place=place)
    shipper.start()
    assert shipper.flush(PATIENCE)
    assert shipper.pending == 0
    event = collector.events[-1]
    assert event.event_name == "cedarbox.decision"
    assert (event.severity_number, collector.events[0].severity_number) == (SEVERITY_NUMBER_WARN, SEVERITY_NUMBER_INFO)
    assert event.trace_id.hex() == record.entry.trace_id
    assert event.span_id.hex() == record.entry.span_id
    assert f"{event.time_unix_nano:019d}"[-9:] == record.time[20:29]
    assert Record.from_line(event.body.string_value.encode() + b"\n") == record
    assert attribute(event, "audit.record.id") == f"{ledger.stream}/{record.seq}"
    assert attribute(event, "cedarbox.resource") == 'Host::"example.com"'
    assert collector.headers[0]["x-token"] == "t"
    assert shipper.stop()
    kept = json.loads(place.read_bytes())
    files = LedgerSource(ledger.directory).streams()
    assert kept["acknowledged"] == {f"ledger/{path.name}": path.stat().st_size for path in files}
    assert kept["last"] == shipper.status.last_acknowledged > record.time


def test_a_collector_that_is_down_at_the_start(collector: Collector, ledger: Ledger, place: Path) -> None:
    collector.down()
    fill(ledger, 30)
    shipper = Shipper(collector.endpoint, [LedgerSource(ledger.directory)], place=place)
    shipper.start()
    assert not shipper.flush(0.3)
    assert shipper.pending == len(ids_on_disk(ledger.directory)) > 30
    end = time.monotonic() + PATIENCE
    while not shipper.last_error and time.monotonic() < end:
        time.sleep(0.05)
    assert "ConnectError" in shipper.last_error
    collector.up()
    assert shipper.flush(PATIENCE)
    assert shipper.stop()
    assert collector.ids == Counter(ids_on_disk(ledger.directory))


def test_a_collector_that_goes_away_in_the_middle(collector: Collector, ledger: Ledger, place: Path) -> None:
    shipper = Shipper(collector.endpoint, [LedgerSource(ledger.directory)], place=place)
    shipper.start()
    fill(ledger, 40)
    assert shipper.flush(PATIENCE)
    collector.down()
    fill(ledger, 1200)
    assert not shipper.flush(0.2)
    collector.up()
    assert shipper.flush(PATIENCE)
    assert shipper.stop()
    assert collector.ids == Counter(ids_on_disk(ledger.directory))


def test_a_lost_answer_gives_duplicates_with_the_same_id_and_content(
    collector: Collector, ledger: Ledger, place: Path
) -> None:
    fill(ledger, 10)
    collector.answers = [0, 200, 0]  # the index, again, and the stream
    shipper = Shipper(collector.endpoint, [LedgerSource(ledger.directory)], place=place)
    shipper.start()
    assert shipper.flush(PATIENCE)
    assert shipper.stop()
    assert collector.ids == Counter(dict.fromkeys(ids_on_disk(ledger.directory), 2))
    assert len({(attribute(event, "audit.record.id"), event.body.string_value) for event in collector.events}) == len(
        collector.ids
    )


@pytest.mark.parametrize(
    "refusal",
    [
        ExportLogsServiceResponse(
            partial_success=ExportLogsPartialSuccess(rejected_log_records=1, error_message="no")
        ).SerializeToString(),
        b"<html>",
        429,
        503,
        400,
        307,
    ],
)
def test_a_batch_that_is_refused_is_sent_again(
    collector: Collector, ledger: Ledger, place: Path, refusal: int | bytes
) -> None:
    fill(ledger, 10)
    collector.answers = [refusal, refusal]
    shipper = Shipper(collector.endpoint, [LedgerSource(ledger.directory)], place=place)
    shipper.start()
    assert shipper.flush(PATIENCE)
    assert shipper.stop()
    assert collector.requests >= 3
    assert collector.ids == Counter(ids_on_disk(ledger.directory))


def test_a_damaged_place_file_means_that_all_is_sent_again(collector: Collector, ledger: Ledger, place: Path) -> None:
    place.write_text('{"acknowledged": {"ledger/x.jsonl": -4, "ledger/')
    fill(ledger, 5)
    shipper = Shipper(collector.endpoint, [LedgerSource(ledger.directory)], place=place)
    shipper.start()
    assert shipper.stop(PATIENCE)
    assert collector.ids == Counter(ids_on_disk(ledger.directory))


def test_a_line_that_is_no_record_is_shipped_and_named(collector: Collector, tmp_path: Path, place: Path) -> None:
    Ledger.open(tmp_path / "ledger").close()
    path = LedgerSource(tmp_path / "ledger").streams()[-1]
    path.write_bytes(b"\xff\n" + path.read_bytes())
    shipper = Shipper(collector.endpoint, [LedgerSource(tmp_path / "ledger")], place=place)
    shipper.start()
    assert shipper.stop(PATIENCE)
    assert [event.event_name for event in collector.events][-3:] == [
        *("cedarbox.malformed", "cedarbox.ledger.opened", "cedarbox.ledger.closed")
    ]


class BrokenSource:
    name = "broken"
    path = "/v1/traces"

    def __init__(self, file: Path) -> None:
        self._file = file

    def streams(self) -> list[Path]:
        return [self._file]

    def encode(self, lines: Sequence[bytes], stream: str) -> bytes:
        raise ZeroDivisionError(f"{stream} {sha256(lines[0]).hexdigest()}")


def test_a_source_that_fails_does_not_hold_up_the_others(
    collector: Collector, ledger: Ledger, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "spans.jsonl").write_bytes(b"{}\n")
    sources: list[Source] = [BrokenSource(tmp_path / "spans.jsonl"), LedgerSource(ledger.directory)]
    shipper = Shipper(collector.endpoint, sources, place=place)
    shipper.start()
    until(lambda: shipper.pending == 1)
    assert not shipper.stop(0.0)
    assert "spans" in shipper.last_error
    assert collector.ids == Counter(ids_on_disk(ledger.directory))


@pytest.mark.parametrize("endpoint", ["", "127.0.0.1:4318", "ftp://127.0.0.1", "http://"])
def test_an_endpoint_that_is_no_url_is_refused(endpoint: str, place: Path) -> None:
    with pytest.raises(ConfigurationError):
        Shipper(endpoint, [], place=place)
