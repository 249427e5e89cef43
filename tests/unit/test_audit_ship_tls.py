"""The shipper over TLS, mutual TLS and Unix sockets, by HTTP and by gRPC: what arrives, and what is never sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.unit.shipping import PATIENCE, Authority, GrpcCollector, HttpCollector, Received

from cedarbox.audit import Entry, Ledger
from cedarbox.audit.pace import Pace
from cedarbox.audit.shipper import LedgerSource, Shipper
from cedarbox.audit.target import Target
from cedarbox.errors import ConfigurationError

Wire = Literal["http/protobuf", "grpc"]
WIRES: tuple[Wire, ...] = ("http/protobuf", "grpc")


@contextmanager
def collector(wire: Wire, received: Received, **options: Any) -> Iterator[HttpCollector | GrpcCollector]:
    it = (GrpcCollector if wire == "grpc" else HttpCollector)(received, **options)
    try:
        yield it
    finally:
        it.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger") as it:
        it.append(Entry(event="decision", decision="allow"))
        yield it


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def shipper(ledger: Ledger, target: Target) -> Shipper:
    pace = Pace(first_s=0.02, last_s=0.05, poll_s=0.02)
    it = Shipper(target, [LedgerSource(ledger.directory)], place=ledger.directory.parent / "place.json", pace=pace)
    it.start()
    return it


def arrives(ledger: Ledger, received: Received, target: Target) -> None:
    assert shipper(ledger, target).stop(PATIENCE)
    lines = [line for path in LedgerSource(ledger.directory).streams() for line in path.read_text().splitlines()]
    assert Counter(event.body.string_value for event in received.events) == Counter(lines)


def stays_here(ledger: Ledger, received: Received, target: Target) -> str:
    it = shipper(ledger, target)
    for _ in range(3):
        while not (error := it.last_error):
            assert not it.flush(0.05)
        assert not it.flush(0.05)
    assert not it.stop(0.0)
    assert received.requests == 0
    return error


@pytest.mark.parametrize("compression", ["gzip", "none"])
@pytest.mark.parametrize("wire", WIRES)
def test_over_tls_with_an_own_authority(
    ledger: Ledger, authority: Authority, wire: Wire, compression: Literal["gzip", "none"]
) -> None:
    received = Received()
    with collector(wire, received, tls=authority.issue("server", "127.0.0.1")) as it:
        target = Target(endpoint=it.endpoint, protocol=wire, ca_file=authority.path, compression=compression)
        arrives(ledger, received, target)


@pytest.mark.parametrize("wire", WIRES)
def test_over_mutual_tls(ledger: Ledger, authority: Authority, wire: Wire) -> None:
    received, client = Received(), authority.issue("client")
    with collector(wire, received, tls=authority.issue("server", "127.0.0.1"), clients=authority.path) as it:
        terms: dict[str, Any] = {"endpoint": it.endpoint, "protocol": wire, "ca_file": authority.path}
        stays_here(ledger, received, Target(**terms))
        arrives(ledger, received, Target(**terms, client_certificate=client.certificate, client_key=client.key))


@pytest.mark.parametrize("wire", WIRES)
def test_over_a_unix_socket(ledger: Ledger, tmp_path: Path, wire: Wire) -> None:
    received = Received()
    with collector(wire, received, path=tmp_path / "o.sock") as it:
        arrives(ledger, received, Target(endpoint=it.endpoint, protocol=wire))


@pytest.mark.parametrize("wire", WIRES)
def test_headers_come_from_where_they_are_kept(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wire: Wire
) -> None:
    received, kept = Received(), tmp_path / "token"
    kept.touch(0o600)
    kept.write_text("from-file\n")
    monkeypatch.setenv("SITE_TOKEN", "from-environment")
    headers = {"X-A": f"file:{kept}", "x-b": "env:SITE_TOKEN", "x-c": "plain"}
    with collector(wire, received) as it:
        target = Target(endpoint=it.endpoint, protocol=wire, headers=headers)
        assert "from-" not in repr(target)
        arrives(ledger, received, target)
        kept.write_text("renewed\n")
        ledger.append(Entry(event="decision", decision="deny"))
        arrives(ledger, received, target)
    shown = [tuple(headers[name] for name in ("x-a", "x-b", "x-c")) for headers in received.headers]
    assert shown[0] == ("from-file", "from-environment", "plain")
    assert shown[-1] == ("renewed", "from-environment", "plain")


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"endpoint": "http://collector.corp.example:4318"}, "in clear"),
        ({"endpoint": "http://192.0.2.1:4317", "protocol": "grpc"}, "in clear"),
        ({"endpoint": "http://127.0.0.1.corp.example"}, "in clear"),
        ({"endpoint": "https://collector.corp.example"}, "ca_file"),
        ({"endpoint": "http://127.0.0.1:1", "ca_file": Path("x")}, "https only"),
        ({"endpoint": "unix:/s", "client_key": Path("x")}, "https only"),
        ({"endpoint": "https://a:1", "ca_file": Path("x"), "client_key": Path("x")}, "belong together"),
        ({"endpoint": "unix:relative"}, "no address"),
        ({"endpoint": "unix://host/s"}, "no address"),
        ({"endpoint": "http://user:pass@127.0.0.1:4318"}, "no address"),
        ({"endpoint": "http://127.0.0.1:99999"}, "no address"),
        ({"endpoint": "http://127.0.0.1", "protocol": "grpc"}, "port"),
        ({"endpoint": "http://127.0.0.1:1/x", "protocol": "grpc"}, "no path"),
        ({"endpoint": "http://127.0.0.1:1", "headers": {"a b": "c"}}, "cannot be set"),
        ({"endpoint": "http://127.0.0.1:1", "headers": {"Content-Type": "c"}}, "cannot be set"),
        ({"endpoint": "http://127.0.0.1:1", "headers": {"a": "b\r\nx: y"}}, "no header can carry"),
        ({"endpoint": "http://127.0.0.1:1", "headers": {"a": "file:relative"}}, "not a reference"),
    ],
)
def test_terms_that_do_not_go_together_are_refused(terms: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        Target(**terms)
    assert "\n" not in str(caught.value)


def test_insecure_has_to_be_said() -> None:
    assert not Target(endpoint="http://collector.corp.example:4318", insecure=True).is_tls
    for address in ("http://127.1.2.3:4318", "http://[::1]:4318", "http://localhost:4318"):
        assert not Target(endpoint=address).is_tls


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("env:NO_SUCH_VARIABLE", "NO_SUCH_VARIABLE"),
        ("file:/no/such/file", "cannot be read"),
        ("file:OPEN", "chmod 600"),
    ],
)
def test_a_header_whose_value_cannot_be_had_is_said_at_once(tmp_path: Path, value: str, said: str) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o644)
    target = Target(endpoint="http://127.0.0.1:1", headers={"authorization": value.replace("OPEN", str(token))})
    with pytest.raises(ConfigurationError, match=said) as caught:
        Shipper(target, [], place=tmp_path / "place.json")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("broken", ["missing", "no PEM", "key of another", "key for all"])
def test_certificates_that_cannot_be_used_are_said_at_once(tmp_path: Path, authority: Authority, broken: str) -> None:
    client, other, ca_file = authority.issue("client"), authority.issue("other"), authority.path
    key = client.key
    match broken:
        case "missing":
            ca_file = tmp_path / "nothing.pem"
        case "no PEM":
            ca_file = client.key
        case "key of another":
            key = other.key
        case _:
            key.chmod(0o644)
    terms: dict[str, Any] = {"ca_file": ca_file, "client_certificate": client.certificate, "client_key": key}
    with pytest.raises(ConfigurationError) as caught:
        Shipper(Target(endpoint="https://127.0.0.1:1", **terms), [], place=tmp_path / "place.json")
    assert "\n" not in str(caught.value)
