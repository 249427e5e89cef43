"""The embedded collector over a real socket."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from cedarbox.collector import EmbeddedCollector, Store
from cedarbox.collector.body import MAX_BODY
from cedarbox.errors import ConfigurationError, HostError
from cedarbox.telemetry.otlp import to_json
from cedarbox.telemetry.spans import Telemetry

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[EmbeddedCollector]:
    with EmbeddedCollector(tmp_path / "store", port=0) as running:
        yield running


@pytest.fixture
def client(collector: EmbeddedCollector) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=collector.url, trust_env=False, timeout=60) as made:
        yield made


def traces(*names: str) -> ExportTraceServiceRequest:
    spans = [Span(trace_id=b"t" * 16, span_id=name.ljust(8).encode(), name=name) for name in names]
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])])


def logs(record_id: str, body: str) -> ExportLogsServiceRequest:
    attribute = KeyValue(key="audit.record.id", value=AnyValue(string_value=record_id))
    record = LogRecord(event_name="e", body=AnyValue(string_value=body), attributes=[attribute], time_unix_nano=5)
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[record])])])


def test_protobuf_json_and_gzip_are_taken(collector: EmbeddedCollector, client: httpx.Client) -> None:
    request = traces("one").SerializeToString()
    answer = client.post("/v1/traces", content=request, headers=PROTOBUF)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-protobuf")
    assert ExportTraceServiceResponse.FromString(answer.content) == ExportTraceServiceResponse()
    answer = client.post("/v1/traces", content=to_json(traces("two")), headers=JSON)
    assert (answer.status_code, answer.json()) == (200, {})
    zipped = gzip.compress(traces("three").SerializeToString())
    assert client.post("/v1/traces", content=zipped, headers={**PROTOBUF, "content-encoding": "gzip"}).is_success
    answer = client.post("/v1/logs", content=logs("s/1", "{}").SerializeToString(), headers=PROTOBUF)
    assert ExportLogsServiceResponse.FromString(answer.content) == ExportLogsServiceResponse()
    assert client.post("/v1/logs", content=to_json(logs("s/2", "{}")), headers=JSON).is_success
    assert [span.name for span in collector.store.spans((b"t" * 16).hex())] == ["one", "three", "two"]
    assert [row.record_id for row in collector.store.logs()] == ["s/1", "s/2"]


def test_what_was_acknowledged_is_on_disk_for_another_process(
    collector: EmbeddedCollector, client: httpx.Client, tmp_path: Path
) -> None:
    assert client.post("/v1/traces", content=traces("kept").SerializeToString(), headers=PROTOBUF).is_success
    script = (
        "import sys\nfrom cedarbox.collector.store import Store\n"
        "with Store(sys.argv[1]) as store: print(store.runs()[0].name)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(tmp_path / "store")]
    assert subprocess.run(command, env=environment, check=True, capture_output=True).stdout == b"kept\n"


def test_garbage_is_refused_in_the_form_of_otlp(client: httpx.Client) -> None:
    answer = client.post("/v1/traces", content=b"garbage", headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["code"] == 3
    assert answer.json()["message"].startswith("not JSON")
    answer = client.post("/v1/logs", content=b"\xff\xff", headers=PROTOBUF)
    assert answer.status_code == 400
    assert answer.content.startswith(b"\x08\x03\x12")
    assert b"not an OTLP request" in answer.content
    assert b"\n" not in answer.content
    headers = {**PROTOBUF, "content-encoding": "gzip"}
    for broken in (b"not gzip", gzip.compress(b"x" * 100)[:-4]):
        assert client.post("/v1/traces", content=broken, headers=headers).status_code == 400


def test_a_request_is_kept_whole_or_not_at_all(collector: EmbeddedCollector, client: httpx.Client) -> None:
    request = traces("good")
    request.resource_spans[0].scope_spans[0].spans.add(name="no ids")
    assert client.post("/v1/traces", content=request.SerializeToString(), headers=PROTOBUF).status_code == 400
    assert collector.store.runs() == []


def test_a_decompression_bomb_is_refused(client: httpx.Client) -> None:
    bomb = gzip.compress(b"\0" * (MAX_BODY + 1))
    headers = {**PROTOBUF, "content-encoding": "gzip"}
    answer = client.post("/v1/traces", content=bomb, headers=headers)
    assert answer.status_code == 413
    assert b"larger than 16777216 bytes" in answer.content
    many = gzip.compress(b"\0" * (MAX_BODY // 2)) * 3
    assert client.post("/v1/traces", content=many, headers=headers).status_code == 413


def test_a_large_body_is_refused(collector: EmbeddedCollector) -> None:
    host, port = collector.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as plain:
        plain.sendall(
            f"POST /v1/logs HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {MAX_BODY + 1}\r\n\r\n".encode()
        )
        plain.sendall(b" " * (MAX_BODY + 1))
        assert plain.recv(64).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("media", ["text/plain", "", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_other_media_types_are_refused(client: httpx.Client, media: str) -> None:
    answer = client.post("/v1/traces", content=b"{}", headers={"content-type": media})
    assert answer.status_code == 415
    assert "media type must be" in answer.json()["message"]


def test_other_encodings_are_refused(client: httpx.Client) -> None:
    headers = {**PROTOBUF, "content-encoding": "deflate"}
    assert client.post("/v1/traces", content=zlib.compress(b""), headers=headers).status_code == 415


def test_other_paths_are_refused(client: httpx.Client) -> None:
    assert client.post("/v2/traces", content=b"{}", headers=JSON).status_code == 404
    assert client.get("/v1/traces").status_code == 405


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost"}, 200),
        ({"host": "localhost:4318"}, 200),
        ({"host": "127.0.0.1:1"}, 200),
        ({"host": "[::1]:4318"}, 200),
        ({"host": "[::1]"}, 200),
        ({"host": "attacker.example"}, 403),
        ({"host": "attacker.example:4318"}, 403),
        ({"host": "127.0.0.1.attacker.example"}, 403),
        ({"host": "localhost:80:attacker.example"}, 403),
        ({"host": ""}, 403),
        ({"origin": "https://attacker.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:4318"}, 403),
    ],
)
def test_browsers_are_kept_out(client: httpx.Client, headers: dict[str, str], status: int) -> None:
    answer = client.post("/v1/traces", content=b"{}", headers={**JSON, **headers})
    assert answer.status_code == status


def test_records_of_the_ledger_are_kept_once(collector: EmbeddedCollector, client: httpx.Client) -> None:
    for body in ('{"seq":1}', '{"seq":1}', '{"seq":1,"forged":true}'):
        request = logs("s/1", body).SerializeToString()
        assert client.post("/v1/logs", content=request, headers=PROTOBUF).is_success
    rows = collector.store.logs(record_id="s/1")
    assert [(row.body, row.conflict) for row in rows] == [('{"seq":1}', True), ('{"seq":1,"forged":true}', True)]


def test_a_store_that_cannot_write_answers_503(collector: EmbeddedCollector, client: httpx.Client) -> None:
    collector.store.close()
    answer = client.post("/v1/traces", content=to_json(traces("late")), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (503, 14)


def test_two_collectors_in_one_directory(tmp_path: Path) -> None:
    with EmbeddedCollector(tmp_path / "d", port=0), pytest.raises(HostError, match="another collector"):
        EmbeddedCollector(tmp_path / "d", port=0).start()
    with EmbeddedCollector(tmp_path / "d", port=0) as again:
        assert again.store.queries.counts().logs == 0


def test_a_port_in_use_is_an_error_with_a_fix(collector: EmbeddedCollector, tmp_path: Path) -> None:
    second = EmbeddedCollector(tmp_path / "second", port=int(collector.url.rpartition(":")[2]))
    with pytest.raises(HostError, match="another collector may be running"):
        second.start()
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "collector.corp.example", ""])
def test_only_loopback_is_served(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigurationError):
        EmbeddedCollector(tmp_path, host=host)


def test_remote_access_must_be_allowed(tmp_path: Path) -> None:
    with EmbeddedCollector(tmp_path, host="0.0.0.0", port=0, allow_remote=True) as running:
        url = running.url.replace("0.0.0.0", "127.0.0.1")
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            headers = {**JSON, "host": "collector.corp.example"}
            assert client.post("/v1/traces", content=b"{}", headers=headers).is_success
            headers = {**JSON, "origin": "https://attacker.example"}
            assert client.post("/v1/traces", content=b"{}", headers=headers).status_code == 403


def test_it_stops_and_starts_again_with_its_data(tmp_path: Path) -> None:
    collector = EmbeddedCollector(tmp_path, port=0)
    for name in ("one", "two"):
        with collector:
            collector.start()
            answer = httpx.post(
                f"{collector.url}/v1/traces", content=to_json(traces(name)), headers=JSON, trust_env=False, timeout=60
            )
            assert answer.is_success
        collector.stop()
    with Store(tmp_path) as store:
        assert len(store.spans((b"t" * 16).hex())) == 2
    with pytest.raises(ConfigurationError, match="does not run"):
        _ = collector.store


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_cleanly_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    script = (
        "import sys\nfrom cedarbox.collector import EmbeddedCollector, serve\n"
        "collector = EmbeddedCollector(sys.argv[1], port=0)\n"
        "serve(collector, announce=lambda running: print(running.url, flush=True))\nprint('ended')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        sent = to_json(traces("x"))
        assert httpx.post(f"{url}/v1/traces", content=sent, headers=JSON, trust_env=False, timeout=60).is_success
        process.send_signal(number)
        assert process.stdout.read() == "ended\n"
        assert process.stderr.read() == ""
        assert process.wait() == 0


def test_spans_of_telemetry_arrive_as_they_were(
    collector: EmbeddedCollector, client: httpx.Client, tmp_path: Path
) -> None:
    telemetry = Telemetry(directory=tmp_path / "spans")
    with telemetry.operation("exec sh", {"sandbox.operation": "exec"}) as operation:
        operation.fail("policy_denied", "no rule")
    telemetry.close()
    source = telemetry.source()
    (path,) = source.streams()
    request = source.encode(path.read_bytes().splitlines(keepends=True), path.stem)
    for _ in range(2):
        assert client.post(source.path, content=request, headers=PROTOBUF).is_success
    (span,) = collector.store.spans(operation.trace_id)
    assert (span.span_id, span.name, span.status, span.message) == (operation.span_id, "exec sh", 2, "no rule")
    assert span.attributes == {"sandbox.operation": "exec", "error.type": "policy_denied"}
    assert span.resource["service.name"] == "cedarbox"
    assert json.loads(path.read_text())["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["spanId"] == span.span_id
