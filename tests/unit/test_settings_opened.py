"""Which changes of cedarbox.toml are widenings, and which are told only."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from cedarbox.review.configured import DEFAULT_BUNDLE, Configured
from cedarbox.review.diff.settings import settings_changes

STAMP = "[audit.timestamp]\nurl = 'http://t.example'\n"
REGISTRY = "[registries.'r.example']\n"


def changes(old: str, new: str) -> dict[str, tuple[bool, str]]:
    """Return each key that is told, whether it widens, and what it means."""
    before, after = (Configured(Path("cedarbox.toml"), tomllib.loads(text), DEFAULT_BUNDLE) for text in (old, new))
    return {change.key: (change.widens, change.told) for change in settings_changes(before, after)}


@pytest.mark.parametrize(
    ("old", "new", "key", "told"),
    [
        ("", "egress.mode = 'nic'", "egress.mode", "a network card"),
        ("egress.mode = 'none'", "", "egress.mode", "reached nothing"),
        ("egress.mode = 'none'", "egress.mode = 'nic'", "egress.mode", "a network card"),
        ("", "egress.mode = 1", "egress.mode", "cannot be told"),
        ("", "egress.limits.connections = 1025", "egress.limits.connections", "more of it"),
        ("", "egress.limits.connections_per_s = 256.5", "egress.limits.connections_per_s", "more of it"),
        ("egress.limits.bytes_out = 1000", "", "egress.limits.bytes_out", "more of it"),
        ("egress.limits.bytes_in = 9", "egress.limits.bytes_in = true", "egress.limits.bytes_in", "cannot be told"),
        ("sandbox.lifetime_s = 60", "sandbox.lifetime_s = 61", "sandbox.lifetime_s", "lives longer"),
        ("sandbox.lifetime_s = 60", "", "sandbox.lifetime_s", "not ended"),
        ("sandbox.lifetime_s = 60", "sandbox.lifetime_s = '6'", "sandbox.lifetime_s", "lives longer"),
        ("", f"{REGISTRY}password_file = '/etc/shadow'", "registries.r.example.password_file", "another secret"),
        ("", f"{REGISTRY}password_env = 'TOKEN'", "registries.r.example.password_env", "another secret"),
        ("", f"{REGISTRY}transport = 'http'", "registries.r.example.transport", "in clear"),
        ("", "otlp.endpoint = 'https://c.example:4318'", "otlp.endpoint", "sent there"),
        ("", "otlp.endpoint = 'https://127.0.0.1:4318@c.example'", "otlp.endpoint", "sent there"),
        ("", "otlp.endpoint = 'http://localhost.c.example'", "otlp.endpoint", "sent there"),
        ("", "otlp.endpoint = 4", "otlp.endpoint", "sent there"),
        ("", "otlp.insecure = true", "otlp.insecure", "in clear"),
        ("", "otlp.capture_content = true", "otlp.capture_content", "prompts"),
        ("", "otlp.ca_file = 'other.pem'", "otlp.ca_file", "somebody else"),
        ("", "otlp.headers.x = 'file:/etc/shadow'", "otlp.headers.x", "another secret"),
        ("", "audit.witness.command = ['/bin/sh']", "audit.witness.command", "run on the host"),
        ("audit.witness.command = ['/bin/a']", "", "audit.witness.command", "nobody else is shown"),
        (STAMP, "", "audit.timestamp.url", "nobody else vouches"),
        (f"{STAMP}ca_file = 'a'", f"{STAMP}ca_file = 'b'", "audit.timestamp.ca_file", "somebody else"),
        ("", "audit.directory = '/dev/shm/x'", "audit.directory", "an older bundle"),
        ("", "policy.state = 'other.json'", "policy.state", "an older bundle"),
    ],
)
def test_what_opens_something_is_a_widening(old: str, new: str, key: str, told: str) -> None:
    ((found, (widens, means)),) = changes(old, new).items()
    assert (found, widens) == (key, True)
    assert told in means


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        ("", "egress = {mode = 'broker', limits = {connections = 1024, bytes_out = 4294967296}}", []),
        ("", "egress.mode = 'none'", ["egress.mode"]),
        ("egress.mode = 'nic'", "", ["egress.mode"]),
        ("egress.mode = 1", "egress.mode = 'broker'", ["egress.mode"]),
        ("", "egress.limits = {bytes_out = 1, idle_s = 900.0}", ["egress.limits.bytes_out", "egress.limits.idle_s"]),
        ("egress.limits.bytes_out = true", "", ["egress.limits.bytes_out"]),
        ("sandbox.lifetime_s = 60", "sandbox.lifetime_s = 59", ["sandbox.lifetime_s"]),
        ("", "sandbox.lifetime_s = 60", ["sandbox.lifetime_s"]),
        (
            "",
            "sandbox = {image = 'x', cpus = 2, memory_mib = 9}",
            ["sandbox.cpus", "sandbox.image", "sandbox.memory_mib"],
        ),
        ("", "otlp.endpoint = 'unix:/run/collector'", ["otlp.endpoint"]),
        ("otlp.endpoint = 'https://c.example'", "otlp.endpoint = 'http://[::1]:1'", ["otlp.endpoint"]),
        ("otlp.insecure = true", "", ["otlp.insecure"]),
        ("otlp.headers.x = 'env:A'", "", ["otlp.headers.x"]),
        ("", f"{REGISTRY}username = 'x'", ["registries.r.example.username"]),
        (f"{REGISTRY}transport = 'http'", f"{REGISTRY}transport = 'https'", ["registries.r.example.transport"]),
        (f"{REGISTRY}password_env = 'TOKEN'", "", ["registries.r.example.password_env"]),
        ("", "audit = {directory = '.cedarbox/other', segment_mib = 1}", ["audit.directory", "audit.segment_mib"]),
        ("", f"{STAMP}ca_file = 'a'", ["audit.timestamp.ca_file", "audit.timestamp.url"]),
    ],
)
def test_what_opens_nothing_is_told_only(old: str, new: str, keys: list[str]) -> None:
    found = changes(old, new)
    assert list(found) == keys
    assert not any(widens for widens, _ in found.values())
