"""Attacks on the embedded collector: by who may reach its ports, and by what is sent to it.

Every one goes over a real socket. Each asserts that nothing of the attack was kept, or that what was kept is marked,
and that an honest sender is still served.
"""

from __future__ import annotations

import gzip
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tests.unit.collected import decision, ledger_lines, ledger_request, log_request, span, trace_request

from cedarbox.collector import EmbeddedCollector, Limits, Store
from cedarbox.collector.body import MAX_BODY

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
QUICK = Limits(requests=4, size=2 * MAX_BODY, calls=2, connections=20, head_seconds=0.3, body_seconds=0.6)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[EmbeddedCollector]:
    with EmbeddedCollector(tmp_path / "store", port=0, grpc_port=0) as running:
        yield running


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[EmbeddedCollector]:
    """One that waits for nobody: on a busy machine it hangs up on honest senders too."""
    with EmbeddedCollector(tmp_path / "store", port=0, grpc_port=0, limits=QUICK) as running:
        yield running


def connect(collector: EmbeddedCollector) -> socket.socket:
    port = int(collector.url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def post(collector: EmbeddedCollector, path: str, content: bytes, **headers: str) -> httpx.Response:
    given = PROTOBUF | {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{collector.url}{path}", content=content, headers=given, trust_env=False, timeout=60)


def served(collector: EmbeddedCollector) -> None:
    """An honest sender is served, after a refusal at most."""
    content = log_request("honest", "x").SerializeToString()
    for _ in range(100):
        try:
            answer = post(collector, "/v1/logs", content)
        except httpx.TransportError:
            time.sleep(0.05)
            continue
        if answer.is_success:
            return
        assert answer.status_code in {408, 429}
        assert answer.status_code == 408 or answer.headers["retry-after"] == "1"
        time.sleep(0.05)
    raise AssertionError("the collector does not serve honest senders any more")


def refused(call: Callable[[], object]) -> Any:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


def test_a_web_page_posts_records_to_the_collector(collector: EmbeddedCollector) -> None:
    """A page of some site sends forged records to loopback, directly and after DNS rebinding. The Origin gives the one
    away and the Host the other: 403, and nothing is kept. The gRPC port answers no HTTP/1.1 of a browser at all.
    """
    forged = ledger_request(ledger_lines([decision(0)])).SerializeToString()
    assert post(collector, "/v1/logs", forged, origin="https://attacker.example").status_code == 403
    assert post(collector, "/v1/logs", forged, host="attacker.example").status_code == 403
    assert post(collector, "/v1/metrics", forged, origin="null").status_code == 403
    port = int((collector.grpc_endpoint or "").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
        head = f"POST {EXPORT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n"
        plain.sendall(f"{head}Content-Length: {len(forged)}\r\n\r\n".encode() + forged)
        answer = b""
        while part := plain.recv(65536):
            answer += part
        assert b"200" not in answer
    assert collector.store.queries.counts().logs == 0
    served(collector)


def test_a_record_is_sent_again_with_another_content(collector: EmbeddedCollector) -> None:
    """Someone who reaches the port sends a changed record under the id of a real one, before or after it. Neither
    replaces the other: both are kept and marked, and the stream is in alarm.
    """
    (honest,) = ledger_lines([decision(0, decision="deny")])
    (forged,) = ledger_lines([decision(0)])
    for line in (honest, forged, honest):
        assert post(collector, "/v1/logs", ledger_request([line]).SerializeToString()).is_success
    rows = collector.store.queries.record("20261123T000931123456Z-5f0c2a9e/0")
    assert [(row.line["decision"], row.conflict) for row in rows] == [("deny", True), ("allow", True)]
    (state,) = collector.store.queries.streams()
    assert state.conflicts == 1


def test_records_are_held_back_from_the_collector(collector: EmbeddedCollector) -> None:
    """Someone between the host and the collector lets the denials fall out. The sequence numbers that are missing are
    named, those at the end too once a checkpoint says how far the stream goes.
    """
    lines = ledger_lines(decision(number) for number in range(10))
    kept = ledger_request([*lines[:3], *lines[5:8]])
    assert post(collector, "/v1/logs", kept.SerializeToString()).is_success
    stream = "20261123T000931123456Z-5f0c2a9e"
    note = log_request("cedarbox.checkpoint", "note", audit__record__id=f"{stream}/checkpoint/10")
    assert post(collector, "/v1/logs", note.SerializeToString()).is_success
    (state,) = collector.store.queries.streams()
    assert state.gaps == ((3, 4), (8, 9))


def test_a_small_request_becomes_a_large_one(collector: EmbeddedCollector) -> None:
    """A gzip bomb, one of many members, and one by gRPC. Decompression stops at the bound (413, RESOURCE_EXHAUSTED)."""
    bomb = gzip.compress(b"\0" * (MAX_BODY + 1))
    assert post(collector, "/v1/logs", bomb, content_encoding="gzip").status_code == 413
    members = gzip.compress(b"\0" * (MAX_BODY // 4)) * 8
    assert post(collector, "/v1/logs", members, content_encoding="gzip").status_code == 413
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(collector.grpc_endpoint or "", options, grpc.Compression.Gzip) as channel:
        raw: Any = channel
        error = refused(lambda: raw.unary_unary(EXPORT)(b"\0" * (MAX_BODY + 1)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert collector.store.queries.counts().logs == 0
    served(collector)


def test_a_request_is_larger_than_allowed(collector: EmbeddedCollector) -> None:
    """More bytes than a request may have, announced, not announced, and by gRPC: refused, and nothing is kept."""

    def endless() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * (1024 * 1024)

    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(trust_env=False, timeout=60))
        answer = client.post(f"{collector.url}/v1/logs", content=endless(), headers=PROTOBUF)
        assert answer.status_code == 413
        channel: Any = stack.enter_context(grpc.insecure_channel(collector.grpc_endpoint or ""))
        error = refused(lambda: channel.unary_unary(EXPORT)(b"\0" * (MAX_BODY + 1)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert collector.store.queries.counts().logs == 0
    served(collector)


def test_values_are_nested_without_end(collector: EmbeddedCollector) -> None:
    """JSON and protobuf values within values, deeper than any parser should follow. Both are the sender's fault (400,
    INVALID_ARGUMENT); a depth that is allowed is kept as it was.
    """
    inner = '{"stringValue":"x"}'
    for _ in range(20_000):
        inner = f'{{"arrayValue":{{"values":[{inner}]}}}}'
    record = f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{inner}}}]}}]}}]}}'
    assert post(collector, "/v1/logs", record.encode(), **{"content-type": "application/json"}).status_code == 400
    assert post(collector, "/v1/logs", b"[" * 100_000, **{"content-type": "application/json"}).status_code == 400
    request = log_request("deep", "")
    value = request.resource_logs[0].scope_logs[0].log_records[0].body
    for _ in range(20):
        value = value.array_value.values.add()
    value.string_value = "bottom"
    assert post(collector, "/v1/logs", request.SerializeToString()).is_success
    deep = value
    for _ in range(60):
        deep.ClearField("value")
        deep = deep.array_value.values.add()
    with grpc.insecure_channel(collector.grpc_endpoint or "") as channel:
        raw: Any = channel
        error = refused(lambda: raw.unary_unary(EXPORT)(request.SerializeToString()))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    (row,) = collector.store.logs()
    assert row.body == "[" * 20 + '"bottom"' + "]" * 20


def test_requests_that_are_no_otlp(collector: EmbeddedCollector) -> None:
    """Random bytes, cut requests, requests of another signal, records whose body claims to be a line of the ledger.
    Each is refused or kept as plain text; none stops the collector, and none counts as a record.
    """
    good = ledger_request(ledger_lines([decision(0)])).SerializeToString()
    for broken in (os.urandom(1000), good[:-7], b"\x0a\xff\xff\xff\xff\x0f"):
        assert post(collector, "/v1/logs", broken).status_code == 400
    lies = (
        "{}",
        '{"event":7,"hash":"","prev":"","seq":5,"time":""}',
        '{"event":"decision","hash":"","prev":"","seq":"5","time":""}',
        '{"event":"decision","hash":"","prev":"","seq":6,"time":""}',
        "[5]",
        "nonsense",
    )
    for lie in lies:
        request = log_request("cedarbox.decision", lie, audit__record__id="stream/5")
        assert post(collector, "/v1/logs", request.SerializeToString()).is_success
    odd = '{"event":"decision","hash":"","prev":"","seq":5,"time":"","policies":7,"attrs":[],"session":{},"resource":1}'
    request = log_request("cedarbox.decision", odd, audit__record__id="odd/5")
    assert post(collector, "/v1/logs", request.SerializeToString()).is_success
    for name in ("/5", "a/-5", "a/\u0665", "a/99999999999999999999", "a/checkpoint/x", "checkpoint/5"):
        request = log_request("cedarbox.checkpoint", "n", audit__record__id=name)
        assert post(collector, "/v1/logs", request.SerializeToString()).is_success
    counts = collector.store.queries.counts()
    assert (counts.records, counts.checkpoints, counts.logs) == (1, 0, len(lies) + 1 + 6)
    assert [state.stream for state in collector.store.queries.streams()] == ["odd"]
    served(collector)


def test_connections_are_opened_and_left(hasty: EmbeddedCollector) -> None:
    """More connections than allowed, each silent or with half a head, byte by byte (slowloris). What is too much is
    closed at once and the rest after its time; an honest sender is served meanwhile or right after.
    """
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(hasty)) for _ in range(40)]
        ended = 0
        for number, plain in enumerate(slow):
            try:
                plain.sendall(b"POST /v1/logs HTTP/1.1\r\nHost: loc" if number % 2 else b"P")
            except OSError:
                ended += 1
        served(hasty)
        for plain in slow:
            try:
                assert plain.recv(1) == b""
            except ConnectionError:
                continue


def test_bodies_that_never_end(hasty: EmbeddedCollector) -> None:
    """As many requests as may be under way, each with a body that stops, and gRPC calls without a message. Others are
    asked to come back (429 with Retry-After, RESOURCE_EXHAUSTED with RetryInfo); the places are free after their time.
    """
    head = b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    hold = threading.Event()

    def silent() -> Iterator[bytes]:
        hold.wait(30)
        yield from ()

    with ExitStack() as stack:
        channel: Any = stack.enter_context(grpc.insecure_channel(hasty.grpc_endpoint or ""))
        stack.callback(hold.set)
        calls: list[Any] = []
        for _ in range(500):  # a probe can take the place of a silent call, which is refused then and made again
            calls = [call for call in calls if not call.done()]
            calls += [channel.stream_unary(EXPORT).future(silent()) for _ in range(QUICK.calls - len(calls))]
            error = refused(lambda: channel.unary_unary(EXPORT)(b"\xff"))
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                break
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        details = dict(error.trailing_metadata())["grpc-status-details-bin"]
        assert b"type.googleapis.com/google.rpc.RetryInfo" in details
        ends = {call.exception().code() for call in calls}
        assert ends <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED}
        answers: list[bytes] = []
        while len(answers) < QUICK.requests:  # the place of a call that just ended may not be free yet
            slow = [stack.enter_context(connect(hasty)) for _ in range(QUICK.requests - len(answers))]
            for plain in slow:
                plain.sendall(head)
            came = [plain.recv(4096) for plain in slow]
            # One whose head came late, on a busy machine, was only hung up on.
            answers += [answer for answer in came if answer and not answer.startswith(b"HTTP/1.1 429")]
        assert all(answer.startswith(b"HTTP/1.1 408") and b"connection: close" in answer.lower() for answer in answers)
    served(hasty)
    assert hasty.store.queries.counts().logs == 1


def test_more_bytes_at_once_than_fit(tmp_path: Path) -> None:
    """Many large requests at the same time. What does not fit in the budget is refused before it is read, and can be
    sent again; what was acknowledged is all there.
    """
    limits = Limits(requests=8, size=MAX_BODY, calls=2)
    with EmbeddedCollector(tmp_path, port=0, limits=limits) as collector:
        answers: list[int] = []

        def send(number: int) -> None:
            content = log_request("big", f"{number}" * 6_000_000).SerializeToString()
            answers.append(post(collector, "/v1/logs", content).status_code)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(answers) <= {200, 429}
        assert collector.store.queries.counts().logs == answers.count(200) > 0
        served(collector)


def test_the_disk_is_full(tmp_path: Path) -> None:
    """The file cannot grow any more. 503 with Retry-After, UNAVAILABLE, nothing acknowledged, nothing half kept; when
    there is room again the same request is taken.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    acknowledged = 0
    with EmbeddedCollector(tmp_path, port=0, grpc_port=0) as collector:
        try:
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (2_000_000, hard)
            )  # CPython ignores SIGXFSZ: writes fail with EFBIG
            while True:
                content = log_request("fill", f"{acknowledged % 10}" * 300_000).SerializeToString()
                answer = post(collector, "/v1/logs", content)
                if not answer.is_success:
                    break
                acknowledged += 1
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            with grpc.insecure_channel(collector.grpc_endpoint or "") as channel:
                raw: Any = channel
                error = refused(lambda: raw.unary_unary(EXPORT)(content))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "could not be written" in error.details()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert collector.store.queries.counts().logs == acknowledged > 0
        assert post(collector, "/v1/logs", content).is_success
    with Store(tmp_path) as store:
        assert store.queries.counts().logs == acknowledged + 1


def test_control_characters_reach_for_the_terminal(collector: EmbeddedCollector, tmp_path: Path) -> None:
    """The name of a stream holds the escape sequences of a terminal. `collector status` writes them out as text."""
    from typer.testing import CliRunner

    from cedarbox.cli.collector import app

    (line,) = ledger_lines([decision(0)], first=3)
    name = "\x1b]0;owned\x07\x1b[2J"
    assert post(collector, "/v1/logs", ledger_request([line], name).SerializeToString()).is_success
    result = CliRunner().invoke(app, ["status", "--directory", str(tmp_path / "store")])
    assert result.exit_code == 1
    shown = result.output
    assert "lacks 0 to 2" in shown
    assert "\x1b" not in shown
    assert "\\x1b]0;owned" in shown


def test_a_record_claims_an_age_that_is_not_its_own(tmp_path: Path) -> None:
    """A forged time in the far past shall have a record dropped, one in the far future keep it. Retention goes by the
    arrival, so neither works.
    """
    from cedarbox.collector.retention import Retention, sweep

    with Store(tmp_path) as store:
        store.add_logs(log_request("old", "x", time_ns=1))
        store.add_logs(log_request("new", "x", time_ns=2**63))
        store.add_spans(trace_request(span(1, 1, "s")))
        assert sweep(store, Retention(seconds=3600)) == 0
        sweep(store, Retention(seconds=3600), now_ns=time.time_ns() + 7200 * 1_000_000_000)
        assert store.queries.counts().logs == 0


def test_a_sender_floods_the_store_to_push_evidence_out(tmp_path: Path) -> None:
    """With a limit of size, a flood of spans and logs shall push the records of a ledger out. The flood goes first:
    every record is still there.
    """
    from cedarbox.collector.retention import Retention, sweep

    with Store(tmp_path) as store:
        store.add_logs(ledger_request(ledger_lines(decision(number) for number in range(50))))
        for number in range(6):
            store.add_logs(log_request("flood", f"{number}" * 200_000))
            store.add_spans(trace_request(*(span(number + 1, inner + 1, "x" * 2000) for inner in range(50))))
            sweep(store, Retention(size=1024 * 1024))
        counts = store.queries.counts()
        assert counts.records == 50
        dropped = {item.what for item in store.queries.dropped()}
        assert dropped == {"logs", "spans"}
