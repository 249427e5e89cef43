"""The exporters of OpenTelemetry itself, and our own shipper, against the embedded collector."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from cedarbox.audit.ledger import Ledger
from cedarbox.audit.record import Entry
from cedarbox.audit.shipper import LedgerSource, Shipper
from cedarbox.collector import EmbeddedCollector, Store
from cedarbox.telemetry.spans import Telemetry


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_the_span_exporter_of_opentelemetry(tmp_path: Path, compression: Compression) -> None:
    with EmbeddedCollector(tmp_path, port=0) as collector:
        exporter = OTLPSpanExporter(endpoint=f"{collector.url}/v1/traces", compression=compression)
        provider = TracerProvider(resource=Resource({"service.name": "other"}), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        with provider.get_tracer("t").start_as_current_span("outer") as outer:
            outer.add_event("event", {"a": 1})
            with provider.get_tracer("t").start_as_current_span("inner"):
                pass
        provider.shutdown()
        spans = collector.store.spans(f"{outer.get_span_context().trace_id:032x}")
    assert [span.name for span in spans] == ["outer", "inner"]
    assert spans[1].parent_id == spans[0].span_id
    assert spans[0].resource == {"service.name": "other"}


def test_records_and_spans_of_a_run_meet_in_the_collector(tmp_path: Path) -> None:
    telemetry = Telemetry(directory=tmp_path / "spans")
    with Ledger.open(tmp_path / "ledger") as ledger, telemetry.operation("sandbox exec") as operation:
        entry = Entry(
            event="decision",
            trace_id=operation.trace_id,
            span_id=operation.span_id,
            decision="deny",
            action="exec",
            resource='Program::"rm"',
        )
        record = ledger.append(entry)
        operation.set("cedarbox.record.seq", record.seq)
    telemetry.close()
    sources = [LedgerSource(tmp_path / "ledger"), telemetry.source()]
    with EmbeddedCollector(tmp_path / "store", port=0) as collector:
        shipper = Shipper(collector.url, sources, place=tmp_path / "shipped.json")
        shipper.start()
        assert shipper.flush(60)
        assert shipper.stop()
    with Store(tmp_path / "store") as store:
        (span,) = store.spans(operation.trace_id)
        (log,) = store.logs(trace_id=operation.trace_id)
        lines = [line for path in sources[0].streams() for line in path.read_bytes().splitlines()]
        assert sorted(row.body.encode() for row in store.logs()) == sorted(lines)
    assert span.attributes["cedarbox.record.seq"] == record.seq
    assert log.span_id == span.span_id
    assert log.body.encode() == record.to_line().rstrip(b"\n")
    assert not log.conflict


def test_what_the_shipper_delivered_can_be_pruned(tmp_path: Path) -> None:
    from cedarbox.audit.place import Place

    telemetry = Telemetry(directory=tmp_path / "spans")
    with telemetry.operation("op"):
        pass
    telemetry.close()
    place = tmp_path / "shipped.json"
    assert telemetry.prune(Place(place).offset) == ()
    with EmbeddedCollector(tmp_path / "store", port=0) as collector:
        shipper = Shipper(collector.url, [telemetry.source()], place=place)
        shipper.start()
        assert shipper.stop(60)
    assert len(telemetry.prune(Place(place).offset)) == 1
    assert telemetry.source().streams() == []
