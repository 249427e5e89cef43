"""Environment of commands: refused names, and secrets that are stored nowhere."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox.manifest import Environment, EnvValue, Manifest
from tests.unit.guarded import Guarded

from cedarbox import SecretEnv
from cedarbox.boxlite import BoxLiteSandboxClient, BoxLiteSandboxClientOptions
from cedarbox.boxlite.environment import MAX_SECRET_BYTES, check_environment_key, resolved_environment
from cedarbox.errors import ConfigurationError

VALUE = "value-that-must-not-be-kept"
NAME = "CEDARBOX_TEST_SECRET_VALUE"
ATTACKS = [
    "BOXLITE_EXECUTOR", "boxlite_executor", "Boxlite_X", "BOXLITE_", "BOXL\u0130TE_EXECUTOR", "\uff22OXLITE_EXECUTOR",
    "BOXLITE\uff3fEXECUTOR", "\u0412OXLITE_EXECUTOR", "BOXLITE_EXECUTOR\n", " BOXLITE_EXECUTOR", "BOXLITE_X=guest",
    "A\0BOXLITE_EXECUTOR", "A=\nBOXLITE_EXECUTOR", "BOXLITE\u200b_EXECUTOR", "", "1A", "A-B", "CEDARBOX_EXEC",
]  # fmt: skip


@pytest.fixture
def secret() -> Iterator[SecretEnv]:
    os.environ[NAME] = VALUE
    yield SecretEnv(reference=f"env:{NAME}")
    os.environ.pop(NAME, None)


def of(**values: Any) -> Environment:
    return Environment(value=values)


@pytest.mark.parametrize("key", ATTACKS)
async def test_keys_that_are_refused_wherever_they_come_from(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        check_environment_key(key, where="test")
    with pytest.raises(ConfigurationError):
        await resolved_environment(Environment(value={key: "guest"}))
    with pytest.raises(ConfigurationError):
        SecretEnv(reference=f"env:{key}")
    client = BoxLiteSandboxClient(home=tmp_path / "home")
    options = BoxLiteSandboxClientOptions(image="python:3.12-slim")
    with pytest.raises(ConfigurationError, match="manifest environment"):
        await client.create(options=options, manifest=Manifest(environment=Environment(value={key: "guest"})))
    session = await client.create(options=options)
    payload: Any = json.loads(json.dumps(client.serialize_session_state(session.state)))
    payload["manifest"]["environment"]["value"][key] = "guest"
    with pytest.raises(ConfigurationError):
        client.deserialize_session_state(payload)
    session.state.manifest.environment.value[key] = "guest"
    with pytest.raises(ConfigurationError):
        await client.resume(session.state)
    await client.close()


@pytest.mark.parametrize("reference", ["", "env:", "NAME", "file:relative", "file:", "file:/a\0b", "ENV:A", "vault:a"])
def test_references_that_are_refused(reference: str) -> None:
    with pytest.raises(ConfigurationError):
        SecretEnv(reference=reference)


async def test_a_secret_is_looked_up_each_time(secret: SecretEnv) -> None:
    assert await resolved_environment(of(TOKEN=secret, PLAIN="x")) == (("TOKEN", VALUE), ("PLAIN", "x"))
    os.environ[NAME] = "other"
    assert await secret.resolve() == "other"
    del os.environ[NAME]
    with pytest.raises(ConfigurationError, match=f"env:{NAME} is not set"):
        await secret.resolve()


async def test_a_secret_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    secret = SecretEnv(reference=f"file:{file}")
    with pytest.raises(ConfigurationError, match="No such file"):
        await secret.resolve()
    file.write_text(f"{VALUE}\n")
    for mode in (0o644, 0o640, 0o604, 0o622):
        file.chmod(mode)
        with pytest.raises(ConfigurationError, match="others than its owner") as caught:
            await secret.resolve()
        assert VALUE not in str(caught.value)
    file.chmod(0o600)
    assert await secret.resolve() == VALUE
    for content in (b"\xff\xfe", b"a\0b", b"x" * (MAX_SECRET_BYTES + 1)):
        file.write_bytes(content)
        with pytest.raises(ConfigurationError):
            await secret.resolve()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await SecretEnv(reference=f"file:{tmp_path}").resolve()


@pytest.mark.parametrize("value", ["a\0b", "\udc80"])
async def test_values_that_cannot_be_passed_on_are_not_shown(value: str) -> None:
    with pytest.raises(ConfigurationError, match="the value of TOKEN") as caught:
        await resolved_environment(of(TOKEN=f"{VALUE}{value}"))
    assert VALUE not in str(caught.value)


def test_only_the_reference_is_serialised(secret: SecretEnv) -> None:
    manifest = Manifest(environment=of(TOKEN=secret))
    text = manifest.model_dump_json()
    assert VALUE not in text + repr(manifest)
    again = Manifest.model_validate_json(text)
    assert again.environment.value["TOKEN"] == secret
    assert EnvValue.parse({"type": "cedarbox_secret", "reference": f"env:{NAME}"}) == secret


async def test_no_state_record_or_span_holds_the_value(secret: SecretEnv, tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    session = await guarded.client.create(manifest=Manifest(environment=of(TOKEN=secret)))
    async with session:
        result = await session.exec('printf %s "$TOKEN"')
        assert result.stdout.decode() == VALUE
        kept = json.dumps(guarded.client.serialize_session_state(session.state))
        assert VALUE not in kept
        assert NAME in kept
    await guarded.client.delete(session)
    guarded.client.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"ledger", "spans"} <= {path.relative_to(tmp_path).parts[0] for path in files}
    assert [path for path in files if VALUE.encode() in path.read_bytes()] == []
