"""The settings about where records go and who vouches for them: what is taken, and one line about what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.shipping import Authority

from cedarbox.audit.timestamps import TimestampAnchor
from cedarbox.audit.witness import WitnessAnchor
from cedarbox.errors import ConfigurationError
from cedarbox.settings import load_settings


def read(path: Path, text: str) -> Any:
    file = path / "cedarbox.toml"
    file.write_text(text)
    return load_settings(file)


def test_all_terms_of_a_collector(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        """[otlp]
endpoint = "https://collector.corp.example:4317"
protocol = "grpc"
ca_file = "ca.pem"
client_certificate = "client.pem"
client_key = "client.key"
compression = "none"
timeout_s = 3.5
batch_records = 100
batch_kib = 256
headers = { authorization = "file:/etc/token" }
""",
    )
    target, pace = settings.otlp.target(), settings.otlp.pace()
    assert (target.host, target.is_tls, target.protocol, target.compression, target.timeout_s) == (
        *("collector.corp.example", True, "grpc", "none"),
        3.5,
    )
    assert (target.ca_file, target.client_certificate, target.client_key) == (
        *(Path("ca.pem"), Path("client.pem")),
        Path("client.key"),
    )
    assert (pace.batch_units, pace.batch_bytes) == (100, 256 * 1024)
    assert target.headers == {"authorization": "file:/etc/token"}


def test_a_unix_socket_and_no_collector(tmp_path: Path) -> None:
    target = read(tmp_path, '[otlp]\nendpoint = "unix:/run/otel.sock"\n').otlp.target()
    assert (target.socket, target.host) == ("/run/otel.sock", None)
    settings = load_settings()
    assert settings.otlp.model_copy(update={"endpoint": None}).target() is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[otlp]\nendpoint = "http://collector.corp.example"\n', "in clear"),
        ('[otlp]\nendpoint = "https://collector.corp.example"\n', "ca_file"),
        ('[otlp]\nendpoint = "unix:run/otel.sock"\n', "otlp"),
        ('[otlp]\nprotocol = "http/json"\n', "otlp.protocol"),
        ('[otlp]\ncompression = "zstd"\n', "otlp.compression"),
        ("[otlp]\ntimeout_s = 0\n", "otlp.timeout_s"),
        ("[otlp]\nbatch_records = 0\n", "otlp.batch_records"),
        ("[otlp]\nbatch_kib = 100000\n", "otlp.batch_kib"),
        ('[otlp]\nclient_key = "k"\n', "https only"),
        ('[otlp.headers]\n"content-length" = "1"\n', "cannot be set"),
        ('[otlp.headers]\nauthorization = "env:A B"\n', "not a reference"),
        ('[audit.timestamp]\nurl = "ftp://tsa"\nca_file = "x"\n', "audit.timestamp.url"),
        ('[audit.timestamp]\nurl = "http://tsa.corp.example"\n', "audit.timestamp.ca_file"),
        ('[audit.timestamp]\nurl = "http://t"\nca_file = "x"\nevery_s = 0\n', "audit.timestamp.every_s"),
        ("[audit.witness]\ncommand = []\n", "audit.witness.command"),
        ('[audit.witness]\ncommand = ["witness"]\n', "absolute path"),
        ('[audit.witness]\ncommand = "/usr/bin/witness; rm"\n', "audit.witness.command"),
        ('[audit.witness]\ncommand = ["/w"]\nshell = true\n', "audit.witness.shell"),
    ],
)
def test_a_bad_term_is_one_line_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert str(tmp_path / "cedarbox.toml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_anchors_are_made_from_the_settings(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    stamp = f'[audit.timestamp]\nurl = "http://tsa.corp.example/tsr"\nca_file = "{authority.path}"\nevery_s = 60\n'
    witness = '[audit.witness]\ncommand = ["/usr/local/bin/witness", "-x"]\n'
    first, second = read(tmp_path, stamp + witness).audit.anchors()
    assert isinstance(first, TimestampAnchor)
    assert isinstance(second, WitnessAnchor)
    assert (first.every_s, second.every_s) == (60.0, 3600.0)
    assert load_settings().audit.anchors() == ()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read(tmp_path, stamp.replace(str(authority.path), "/no/such.pem")).audit.anchors()
    pair = authority.issue("server", "127.0.0.1")
    with pytest.raises(ConfigurationError, match="no root certificate"):
        read(tmp_path, stamp.replace(str(authority.path), str(pair.certificate))).audit.anchors()
