"""The public names of the package, and its settings."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import cedarbox
from cedarbox.errors import ConfigurationError
from cedarbox.settings import load_settings


def test_the_public_names_are_these() -> None:
    assert set(cedarbox.__all__) == {
        "BoxLiteSandboxClient",
        "BoxLiteSandboxClientOptions",
        "BundleError",
        "CanonicalizationError",
        "CedarboxError",
        "ConfigurationError",
        "Decision",
        "HostError",
        "ImageError",
        "Ledger",
        "LedgerError",
        "Mount",
        "PolicyBundle",
        "PolicyDenied",
        "PolicyEngine",
        "PolicySandboxClient",
        "SealError",
        "SealedSnapshotSpec",
        "SecretEnv",
        "SnapshotError",
        "Settings",
        "UnsupportedToolError",
        "capabilities_for",
        "fork",
        "harden",
        "verify_ledger",
    }


def test_every_module_names_what_it_exports_and_has_it() -> None:
    for module in pkgutil.walk_packages(cedarbox.__path__, "cedarbox."):
        if module.name == "cedarbox.__main__":
            continue
        loaded = importlib.import_module(module.name)
        assert hasattr(loaded, "__all__"), module.name
        assert [name for name in loaded.__all__ if not hasattr(loaded, name)] == [], module.name
        assert sorted(loaded.__all__) == sorted(set(loaded.__all__)), module.name


def test_importing_makes_no_connection_and_starts_no_thread() -> None:
    probe = (
        "import socket, threading\n"
        "def refuse(*a, **k): raise SystemExit('a connection was attempted')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "import cedarbox\n"
        "from cedarbox.telemetry.tracing import is_sealed\n"
        "assert is_sealed() and threading.active_count() == 1\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_settings_come_from_file_then_environment_then_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cedarbox.toml"
    file.write_text('[policy]\nbundle = "from-file"\n[sandbox]\ncpus = 2\n[otlp]\nendpoint = "http://127.0.0.9:4318"\n')
    assert load_settings(file).policy.bundle == Path("from-file")
    monkeypatch.setenv("CEDARBOX_POLICY__BUNDLE", "from-environment")
    monkeypatch.setenv("CEDARBOX_SANDBOX__MEMORY_MIB", "2048")
    settings = load_settings(file)
    assert (settings.policy.bundle, settings.sandbox.cpus, settings.sandbox.memory_mib) == (
        Path("from-environment"),
        2,
        2048,
    )
    assert load_settings(file, policy={"bundle": "argument"}).policy.bundle == Path("argument")
    assert load_settings(file).otlp.endpoint == "http://127.0.0.9:4318"


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings().policy.bundle == Path("policies/airgapped")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[policy", "not TOML"),
        ("[policy]\nbundel = 'x'\n", "policy.bundel"),
        ("[nonsense]\nx = 1\n", "nonsense"),
        ("[sandbox]\ncpus = 0\n", "sandbox.cpus"),
        ("[otlp]\nendpoint = 'ftp://x'\n", "otlp.endpoint"),
        ("policy = 5\n", "policy"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "cedarbox.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_settings_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.toml"):
        load_settings(tmp_path / "missing.toml")
