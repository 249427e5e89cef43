"""``cedarbox collector serve`` and ``status``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from tests.unit.collected import decision, ledger_lines, ledger_request
from typer.testing import CliRunner

from cedarbox.cli.collector import app
from cedarbox.collector import Store
from cedarbox.errors import CedarboxError


def test_serve_says_where_it_listens_and_status_what_it_has(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-P",
        "-m",
        "cedarbox",
        "collector",
        "serve",
        "--json",
        "--directory",
        str(tmp_path / "d"),
    ]
    options = ["--port", "0", "--grpc-port", "0", "--grpc-socket", str(tmp_path / "run" / "s"), "--keep", "30d"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([*command, *options], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["http"].startswith("http://127.0.0.1:")
        assert (told["http_socket"], told["grpc_socket"]) == (None, str(tmp_path / "run" / "s"))
        lines = ledger_lines([decision(0), decision(1)])
        for endpoint, part in ((told["grpc"], lines[1:]), (f"unix:{told['grpc_socket']}", lines[1:])):
            with grpc.insecure_channel(endpoint) as channel:
                LogsServiceStub(channel).Export(ledger_request(part))  # type: ignore[no-untyped-call]
        # It runs meanwhile.
        result = CliRunner().invoke(app, ["status", "--json", "--directory", str(tmp_path / "d")])
        assert result.exit_code == 1
        health = json.loads(result.output)
        assert health["counts"]["records"] == 1
        assert health["streams"][0]["gaps"] == [[0, 0]]
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    with Store(tmp_path / "d") as store:
        store.add_logs(ledger_request(lines))
    result = CliRunner().invoke(app, ["status", "--directory", str(tmp_path / "d")])
    assert result.exit_code == 0
    assert "records\t2\n" in result.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--keep", "soon"], "'soon' is not an age"),
        (["--max-size", "2GIB"], "'2GIB' is not a size"),
        (["--grpc-port", "99999"], "99999 is not a TCP port"),
        (["--host", "192.0.2.1"], "can be reached from other hosts"),
    ],
)
def test_malformed_options_are_named(tmp_path: Path, options: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["serve", "--directory", str(tmp_path / "d"), *options])
    assert said in str(result.exception)
    assert not (tmp_path / "d").exists()


def test_status_of_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["status", "--directory", str(tmp_path)])
    assert "holds nothing" in str(result.exception)


def test_what_the_page_is_to_verify_is_looked_at_before_anything_is_served(tmp_path: Path) -> None:
    (tmp_path / "no.pub").write_text("no key")
    (tmp_path / "ledger").mkdir()
    wrong = (
        ["--ledger", str(tmp_path / "nowhere")],
        ["--public-key", str(tmp_path / "no.pub")],
        ["--ledger", str(tmp_path / "ledger"), "--public-key", str(tmp_path / "no.pub")],
    )
    for options in wrong:
        result = CliRunner().invoke(app, ["serve", "--port", "0", "--directory", str(tmp_path / "d"), *options])
        assert isinstance(result.exception, CedarboxError), options
        assert not (tmp_path / "d").exists()
