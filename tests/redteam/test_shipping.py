"""Attacks on the way of the records to the collector: who else could get them, or keep them from arriving."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.unit.shipping import PATIENCE, Authority, GrpcCollector, HttpCollector, Received, until

from cedarbox.audit import Entry, Ledger
from cedarbox.audit.pace import Pace
from cedarbox.audit.shipper import LedgerSource, Shipper
from cedarbox.audit.target import Target
from cedarbox.errors import ConfigurationError
from cedarbox.settings import load_settings

Wire = Literal["http/protobuf", "grpc"]
both = pytest.mark.parametrize("wire", ["http/protobuf", "grpc"], ids=["http", "grpc"])


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger") as it:
        it.append(Entry(event="decision", decision="deny", resource='Host::"example.com"'))
        yield it


@contextmanager
def collector(wire: Wire, received: Received, **options: Any) -> Iterator[HttpCollector | GrpcCollector]:
    it = (GrpcCollector if wire == "grpc" else HttpCollector)(received, **options)
    try:
        yield it
    finally:
        it.close()


def start(ledger: Ledger, target: Target, **pace: Any) -> Shipper:
    shipper = Shipper(
        target,
        [LedgerSource(ledger.directory)],
        place=ledger.directory.parent / "place.json",
        pace=Pace(first_s=0.02, last_s=0.05, poll_s=0.02, **pace),
    )
    shipper.start()
    return shipper


def nothing_leaves(ledger: Ledger, received: Received, target: Target) -> str:
    """Let the shipper try some times; return what it says."""
    shipper = start(ledger, target)
    until(lambda: bool(shipper.last_error))
    for _ in range(3):
        assert not shipper.flush(0.05)
    error = shipper.last_error
    assert not shipper.stop(0.0)
    assert (received.requests, received.events) == (0, [])
    return error


@both
@pytest.mark.parametrize("wrong", ["authority", "host", "time"])
def test_collector_that_is_not_the_one(ledger: Ledger, tmp_path: Path, wire: Wire, wrong: str) -> None:
    """Another server takes the place of the collector: signed by another authority, for another host, or expired.

    No record is sent. All stay on disk, and the status of the shipper says why.
    """
    authority, received = Authority(tmp_path), Received()
    issuer = Authority(tmp_path, "other") if wrong == "authority" else authority
    host = "127.0.0.2" if wrong == "host" else "127.0.0.1"
    pair = issuer.issue("server", host, days=-1 if wrong == "time" else 1)
    with collector(wire, received, tls=pair) as it:
        nothing_leaves(ledger, received, Target(endpoint=it.endpoint, protocol=wire, ca_file=authority.path))


@both
@pytest.mark.parametrize("shown", ["none", "of another authority", "expired"])
def test_sender_without_the_right_certificate(ledger: Ledger, tmp_path: Path, wire: Wire, shown: str) -> None:
    """A collector that demands certificates is sent to without one, with a foreign one, with an expired one.

    The collector gets no record, and none counts as acknowledged.
    """
    authority, received = Authority(tmp_path), Received()
    issuer = Authority(tmp_path, "other") if shown == "of another authority" else authority
    client = issuer.issue("client", days=-1 if shown == "expired" else 1)
    terms: dict[str, Any] = {}
    if shown != "none":
        terms = {"client_certificate": client.certificate, "client_key": client.key}
    with collector(wire, received, tls=authority.issue("server", "127.0.0.1"), clients=authority.path) as it:
        target = Target(endpoint=it.endpoint, protocol=wire, ca_file=authority.path, **terms)
        nothing_leaves(ledger, received, target)


@both
def test_listener_on_the_network(tmp_path: Path, wire: Wire) -> None:
    """The settings name a collector on another host without encryption, for anyone on the way to read.

    They are refused with one line before a ledger is opened; it takes insecure = true to send so.
    """
    file = tmp_path / "cedarbox.toml"
    text = f'[otlp]\nendpoint = "http://collector.corp.example:4317"\nprotocol = "{wire}"\n'
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"otlp: .*in clear; .*otlp\.insecure"):
        load_settings(file)
    file.write_text(f"{text}insecure = true\n")
    assert load_settings(file).otlp.insecure


@both
def test_environment_that_redirects(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wire: Wire
) -> None:
    """The environment names a proxy, another authority and a file for the keys of sessions.

    Nothing goes to the proxy, a server of that authority gets no record, and no key is written.
    """
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    keys = tmp_path / "keys.log"
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.2)
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, address)
            monkeypatch.setenv(name.upper(), address)
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
            monkeypatch.setenv(name, str(other.path))
        monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
        false = Received()
        with collector(wire, false, tls=other.issue("false", "127.0.0.1")) as it:
            nothing_leaves(ledger, false, Target(endpoint=it.endpoint, protocol=wire, ca_file=authority.path))
        received = Received()
        with collector(wire, received, tls=authority.issue("server", "127.0.0.1")) as it:
            shipper = start(ledger, Target(endpoint=it.endpoint, protocol=wire, ca_file=authority.path))
            assert shipper.stop(PATIENCE)
        with pytest.raises(TimeoutError):
            proxy.accept()
    assert received.events
    assert not keys.exists()


def test_collector_that_sends_away(ledger: Ledger) -> None:
    """The collector answers with a redirect to a server of somebody else.

    That server gets nothing; the record counts as not acknowledged.
    """
    elsewhere = Received()
    with collector("http/protobuf", elsewhere) as other:
        received = Received(lambda _: (307, {"location": f"{other.endpoint}/v1/logs"}))
        with collector("http/protobuf", received) as it:
            shipper = start(ledger, Target(endpoint=it.endpoint))
            until(lambda: received.requests > 2)
            assert "307" in shipper.last_error
            assert not shipper.stop(0.0)
    assert elsewhere.requests == 0


@pytest.mark.parametrize("way", ["endless", "drop by drop"])
def test_answer_without_end(ledger: Ledger, way: str) -> None:
    """The collector answers without end, to fill the memory of the sender or to keep it for ever.

    The sender hangs up, says so, and counts nothing as acknowledged.
    """
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                while not over.is_set():
                    connection.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n" if way == "endless" else b"1\r\nx\r\n")
                    time.sleep(0.0 if way == "endless" else 0.05)
            except OSError:
                continue
            finally:
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        target = Target(endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.3)
        shipper = start(ledger, target)
        until(lambda: "too long" in shipper.last_error)
        assert not shipper.stop(0.0)
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_record_made_to_stop_the_shipping(ledger: Ledger) -> None:
    """A guest brings about a record that the collector never takes, so that what comes after it stays unseen.

    All other records arrive. The one is tried again, then listed in the place file and reported to be put on record.
    """
    received = Received(lambda request: 400 if "poison" in str(request) else None)
    ledger.append(Entry(event="decision", decision="deny", resource='Path::"/poison"'))
    ledger.append(Entry(event="decision", decision="deny", resource='Path::"/etc/shadow"'))
    with collector("http/protobuf", received) as it:
        shipper = start(ledger, Target(endpoint=it.endpoint), held_tries=3)
        until(lambda: len(shipper.status.left) == 1)
        assert shipper.stop(PATIENCE)
    arrived = {json.loads(event.body.string_value)["resource"] for event in received.events}
    assert 'Path::"/etc/shadow"' in arrived
    assert 'Path::"/poison"' not in arrived
    (left,) = json.loads((ledger.directory.parent / "place.json").read_bytes())["left"]
    assert left["tries"] == 3


def test_place_that_claims_what_was_never_sent(ledger: Ledger) -> None:
    """Somebody writes into the place file that more was acknowledged than there is, so that nothing is sent.

    The shipper names it as long as it lasts instead of saying that nothing is pending.
    """
    received, place = Received(), ledger.directory.parent / "place.json"
    place.write_text(json.dumps({"acknowledged": {f"ledger/{ledger.path.name}": 10**9}}))
    with collector("http/protobuf", received) as it:
        shipper = start(ledger, Target(endpoint=it.endpoint))
        until(lambda: "shorter than what the collector acknowledged" in shipper.last_error)
        shipper.stop(0.0)


@both
def test_token_in_the_settings(tmp_path: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can read the settings, an error or a status looks for the token that the collector wants.

    It stands in none of them: the settings say where it is, and an error names that place only.
    """
    monkeypatch.setenv("SITE_TOKEN", "s3cret\x01")
    settings = load_settings(
        otlp={"endpoint": "http://127.0.0.1:9", "protocol": wire, "headers": {"authorization": "env:SITE_TOKEN"}}
    )
    target = settings.otlp.target()
    assert target is not None
    with pytest.raises(ConfigurationError) as caught:
        Shipper(target, [], place=tmp_path / "place.json")
    assert "env:SITE_TOKEN" in str(caught.value)
    assert "s3cret" not in str(caught.value) + repr(target) + repr(settings)
