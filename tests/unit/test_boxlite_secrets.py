"""Secrets that the guest never has: what is refused, and what BoxLite is given."""

from __future__ import annotations

from typing import Any

import pytest

from cedarbox.boxlite import BoxLiteSandboxClientOptions, EgressSecret
from cedarbox.boxlite.secrets import looked_up, secrets_mark
from cedarbox.errors import ConfigurationError

NIC: dict[str, Any] = {"egress_mode": "nic", "egress_allowlist": ("a.example",), "workspace_persistence": "tar"}


def secret(**values: Any) -> EgressSecret:
    return EgressSecret(**{"name": "token", "reference": "env:SOME_TOKEN", "hosts": ("A.Example",), **values})


def options(**values: Any) -> BoxLiteSandboxClientOptions:
    return BoxLiteSandboxClientOptions(image="python:3.12-slim", **values)


@pytest.mark.parametrize(
    "values",
    [
        {"name": ""},
        {"name": "a b"},
        {"name": "a>"},
        {"reference": "sk-the-value"},
        {"reference": "env:BOXLITE_X"},
        {"reference": "file:relative"},
        {"hosts": ()},
        {"hosts": ("*.a.example",)},
        {"hosts": ("10.0.0.1",)},
        {"hosts": ("10.0.0.0/8",)},
        {"hosts": ("a example",)},
    ],
)
def test_secrets_that_cannot_be_used(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        secret(**values)
    assert "sk-the-value" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {**NIC, "egress_mode": "none", "egress_allowlist": ()},
        {**NIC, "egress_allowlist": ("b.example",)},
        {**NIC, "egress_allowlist": ()},
        {**NIC, "workspace_persistence": "auto"},
        {**NIC, "workspace_persistence": "native"},
        {"egress_allowlist": ("b.example",)},
    ],
)
def test_secrets_that_do_not_fit_their_sandbox(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="secrets: "):
        options(secrets=(secret(),), **values)


def test_secrets_of_one_name() -> None:
    with pytest.raises(ConfigurationError, match="two have one name"):
        options(secrets=(secret(), secret(reference="env:OTHER")), **NIC)


def test_options_with_secrets_survive_json() -> None:
    made = options(secrets=(secret(),), **NIC)
    assert BoxLiteSandboxClientOptions.parse(made.model_dump(mode="json")) == made
    assert made.secrets[0].hosts == ("a.example",)
    assert options(secrets=(secret(),)).egress_mode == "broker"


async def test_what_boxlite_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "the-value")
    given: Any
    (given,) = await looked_up((secret(),))
    assert (given.name, given.value, given.hosts) == ("token", "the-value", ["a.example"])
    assert given.placeholder == secret().placeholder == "<CEDARBOX_SECRET:token>"
    assert "the-value" not in repr(given) + str(given)
    monkeypatch.delenv("SOME_TOKEN")
    with pytest.raises(ConfigurationError, match="env:SOME_TOKEN is not set"):
        await looked_up((secret(),))


def test_a_microvm_with_other_secrets_is_not_taken_for_it() -> None:
    marks = {secrets_mark(given) for given in ((secret(),), (secret(hosts=("b.example",)),), (secret(name="x"),), ())}
    assert len(marks) == 4
    assert "" in marks
