"""Operations, and the spool that keeps them."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from opentelemetry import trace as otel_trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from cedarbox.errors import HostError
from cedarbox.telemetry import attributes as names
from cedarbox.telemetry.otlp import from_json
from cedarbox.telemetry.spans import OperationSpan, SpanKind, Telemetry


def request_of(telemetry: Telemetry) -> ExportTraceServiceRequest:
    source = telemetry.source()
    lines = [line for path in source.streams() for line in path.read_bytes().splitlines()]
    return ExportTraceServiceRequest.FromString(source.encode(lines, "any"))


def kept(telemetry: Telemetry) -> list[Span]:
    return [
        span for outer in request_of(telemetry).resource_spans for inner in outer.scope_spans for span in inner.spans
    ]


def values(span: Span) -> dict[str, object]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value") or "") for item in span.attributes}


def test_an_operation_is_kept_as_one_line(tmp_path: Path) -> None:
    telemetry = Telemetry(directory=tmp_path / "spans", service_name="svc", resource={"site": "berlin"})
    with telemetry.operation("exec sh", {names.SANDBOX_OPERATION: "exec"}, kind=SpanKind.CLIENT) as outer:
        outer.set(names.PROCESS_EXIT_CODE, 0)
        with telemetry.operation("inner") as inner:
            assert inner.trace_id == outer.trace_id
    (path,) = telemetry.source().streams()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 2
    assert all(line.endswith(b"\n") for line in lines)
    assert outer.span_id.encode() in lines[0]
    first, second = (
        from_json(line, ExportTraceServiceRequest).resource_spans[0].scope_spans[0].spans[0] for line in lines
    )
    assert (first.name, first.parent_span_id.hex()) == ("inner", outer.span_id)
    assert (second.name, second.trace_id.hex(), second.span_id.hex()) == ("exec sh", outer.trace_id, outer.span_id)
    assert values(second) == {names.SANDBOX_OPERATION: "exec", names.PROCESS_EXIT_CODE: 0}
    assert second.kind == Span.SPAN_KIND_CLIENT
    described = {
        item.key: item.value.string_value for item in request_of(telemetry).resource_spans[0].resource.attributes
    }
    assert described["service.name"] == "svc"
    assert described["site"] == "berlin"
    assert telemetry.source().path == "/v1/traces"
    telemetry.close()


def _boom(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("secret text"), "ValueError"),
        (TimeoutError("secret text"), "timeout"),
        (asyncio.CancelledError("secret text"), "cancelled"),
        (KeyboardInterrupt("secret text"), "KeyboardInterrupt"),
    ],
)
def test_an_exception_marks_the_span_and_passes(tmp_path: Path, error: BaseException, expected: str) -> None:
    telemetry = Telemetry(directory=tmp_path)
    with pytest.raises(type(error)), telemetry.operation("op"):
        _boom(error)
    (span,) = kept(telemetry)
    assert values(span) == {names.ERROR_TYPE: expected}
    assert span.status.code == 2
    assert len(span.events) == 0
    assert b"secret text" not in span.SerializeToString()
    telemetry.close()


def test_an_explicit_failure_stays(tmp_path: Path) -> None:
    telemetry = Telemetry(directory=tmp_path)

    def denied(operation: OperationSpan) -> None:
        operation.fail("policy_denied", "no rule for --password hunter22")
        raise RuntimeError

    with pytest.raises(RuntimeError), telemetry.operation("op") as operation:
        denied(operation)
    (span,) = kept(telemetry)
    assert values(span) == {names.ERROR_TYPE: "policy_denied"}
    assert span.status.message == "no rule for --password [redacted]"
    telemetry.close()


async def test_a_cancelled_task_is_marked(tmp_path: Path) -> None:
    telemetry = Telemetry(directory=tmp_path)
    started = asyncio.Event()

    async def work() -> None:
        with telemetry.operation("op"):
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert values(kept(telemetry)[0]) == {names.ERROR_TYPE: "cancelled"}
    telemetry.close()


def test_without_a_directory_nothing_is_kept_but_ids_are_real() -> None:
    telemetry = Telemetry(directory=None)
    with telemetry.operation("op") as operation:
        assert int(operation.trace_id, 16)
        assert int(operation.span_id, 16)
    assert telemetry.source().streams() == []
    assert telemetry.prune(lambda _: 0) == ()
    telemetry.close()


def test_the_environment_cannot_silence_spans(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys\nfrom cedarbox.telemetry.spans import Telemetry\n"
        "telemetry = Telemetry(directory=pathlib.Path(sys.argv[1]))\n"
        "with telemetry.operation('op', {'cedarbox.policy.resource': 'x' * 50}) as o: pass\n"
        "assert int(o.trace_id, 16)\ntelemetry.close()\n"
    )
    hostile = {
        "OTEL_SDK_DISABLED": "true",
        "OTEL_TRACES_SAMPLER": "always_off",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "0",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=other",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env={**os.environ, **hostile}, check=True)
    (path,) = tmp_path.glob("spans-*.jsonl")
    (line,) = path.read_bytes().splitlines()
    assert b"x" * 50 in line
    assert b"other" not in line


def test_the_global_tracer_provider_is_left_alone(tmp_path: Path) -> None:
    before = otel_trace.get_tracer_provider()
    Telemetry(directory=tmp_path).close()
    assert otel_trace.get_tracer_provider() is before


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    telemetry = Telemetry(directory=tmp_path)

    def work() -> None:
        for _ in range(50):
            with telemetry.operation("op", {names.CEDARBOX_POLICY_RESOURCE: "y" * 2000}):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({span.span_id for span in kept(telemetry)}) == 200
    assert telemetry.dropped == 0
    telemetry.close()


def test_spans_that_end_after_close_are_counted_and_the_empty_file_goes(tmp_path: Path) -> None:
    telemetry = Telemetry(directory=tmp_path)
    with telemetry.operation("late"):
        telemetry.close()
    telemetry.close()
    assert telemetry.dropped == 1
    assert len(telemetry.prune(lambda _: 0)) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unusable_directory_is_an_error_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="spans cannot be kept here: Not a directory; choose a directory"):
        Telemetry(directory=tmp_path / "file" / "spans")


def test_a_full_disk_drops_spans_and_loses_no_other(tmp_path: Path) -> None:
    script = (
        "import pathlib, resource, signal, sys\nfrom cedarbox.telemetry.spans import Telemetry\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "telemetry = Telemetry(directory=pathlib.Path(sys.argv[1]))\n"
        "def op(size):\n    with telemetry.operation('op', {'cedarbox.policy.resource': 'y' * size}): pass\n"
        "op(10)\nresource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))\n"
        "op(4000)\nop(4000)\nassert telemetry.dropped == 2, telemetry.dropped\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "op(20)\nassert telemetry.dropped == 2\ntelemetry.close()\n"
    )
    assert resource.RLIMIT_FSIZE is not None
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True)
    reader = Telemetry(directory=tmp_path)
    assert [len(str(values(span)[names.CEDARBOX_POLICY_RESOURCE])) for span in kept(reader)] == [10, 20]
    reader.close()


def test_spans_survive_the_death_of_the_process(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, signal, sys\nfrom cedarbox.telemetry.spans import Telemetry\n"
        "telemetry = Telemetry(directory=pathlib.Path(sys.argv[1]))\n"
        "for number in range(20):\n    with telemetry.operation('op', {'cedarbox.turn': number}): pass\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=False)
    assert result.returncode == -signal.SIGKILL
    reader = Telemetry(directory=tmp_path)
    assert [values(span)[names.CEDARBOX_TURN] for span in kept(reader)] == list(range(20))
    reader.close()


def test_an_attribute_that_cannot_be_encoded_does_not_fail_the_operation(tmp_path: Path) -> None:
    telemetry = Telemetry(directory=tmp_path)
    with telemetry.operation("op \udc80", {names.SERVER_ADDRESS: "a\udcff", names.CEDARBOX_TURN: 2**80}) as operation:
        operation.set(names.SANDBOX_BACKEND, "\udc80")
        operation.set("not.in.the.table", "x")
        operation.set(names.GEN_AI_INPUT_MESSAGES, "content has to be captured")
    (span,) = kept(telemetry)
    assert values(span) == {names.SERVER_ADDRESS: "a?", names.CEDARBOX_TURN: str(2**80), names.SANDBOX_BACKEND: "?"}
    assert telemetry.dropped == 0
    telemetry.close()


def test_prune_removes_only_what_is_acknowledged_and_ended(tmp_path: Path) -> None:
    ended = Telemetry(directory=tmp_path)
    with ended.operation("op"):
        pass
    (old,) = ended.source().streams()
    size = old.stat().st_size
    running = Telemetry(directory=tmp_path)
    with running.operation("op"):
        pass
    everything = {f"spans/{path.name}": path.stat().st_size for path in running.source().streams()}
    assert running.prune(everything.__getitem__) == ()
    ended.close()
    with old.open("ab") as file:
        file.write(b'{"torn')
    assert running.prune(lambda _: 0) == ()
    assert running.prune(lambda _: size - 1) == ()
    assert running.prune(everything.__getitem__) == (old,)
    assert len(running.source().streams()) == 1
    running.close()
