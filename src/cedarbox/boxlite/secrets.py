"""Secrets of the host that the guest never has: it sees a placeholder, and BoxLite puts the value into requests.

With a network card, BoxLite terminates the TLS of a secret's hosts with a CA of its own, which the guest has to trust,
and makes them reachable on port 443 whether they are listed or not (measured on 0.10.8). So each must be listed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict, field_validator

from cedarbox.boxlite import api
from cedarbox.boxlite.environment import SecretEnv
from cedarbox.egress.allowlist import canonical_entry, lists_name, network_of
from cedarbox.errors import CanonicalizationError, ConfigurationError

__all__ = ["EgressSecret", "check_secrets", "looked_up", "secrets_mark"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class EgressSecret(BaseModel):
    """A secret for requests to some hosts. Only the reference is kept: in options, in states, in what is printed.

    Attributes:
        name: What the policies call it; letters, digits, ``_`` and ``-``.
        reference: ``env:NAME`` or ``file:/path``, as in :class:`~cedarbox.boxlite.environment.SecretEnv`; looked up
            when a microVM is made.
        hosts: The hosts whose requests it may go into; names only.

    Raises:
        ConfigurationError: A value cannot be used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    reference: str
    hosts: tuple[str, ...]

    @property
    def placeholder(self) -> str:
        """What the guest writes in its place, whoever puts the value in: the broker's form, given to BoxLite too."""
        return f"<CEDARBOX_SECRET:{self.name}>"

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ConfigurationError("the name of a secret cannot be used", hint="use letters, digits, _ and -")
        return value

    @field_validator("reference")
    @classmethod
    def _check_reference(cls, value: str) -> str:
        return SecretEnv(reference=value).reference

    @field_validator("hosts")
    @classmethod
    def _check_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        hint = "name each host, without *."
        try:
            hosts = tuple(dict.fromkeys(canonical_entry(host) for host in value))
        except CanonicalizationError as error:
            raise ConfigurationError(f"the hosts of a secret: {error.message}", hint=hint) from None
        if not hosts or any(host.startswith("*.") or network_of(host) is not None for host in hosts):
            raise ConfigurationError("the hosts of a secret are not names of hosts", hint=hint)
        return hosts


def check_secrets(secrets: object, *, mode: str, egress: tuple[str, ...] | None, persistence: str) -> None:
    """Check the secrets of a sandbox against what it may reach.

    Args:
        secrets: A tuple or list of :class:`EgressSecret`, or of their fields.
        mode: How it reaches others.
        egress: Its allow-list; None when that is not known yet, and then hosts are checked once it is.
        persistence: How its workspace is saved.

    Raises:
        ConfigurationError: A secret cannot be used.
    """
    if not isinstance(secrets, tuple | list):
        raise ConfigurationError("secrets: not a list", hint="give a tuple of EgressSecret")
    given = [secret if isinstance(secret, EgressSecret) else EgressSecret.model_validate(secret) for secret in secrets]
    if not given:
        return
    if mode == "none":
        raise ConfigurationError('secrets: egress_mode="none" reaches nothing that a secret could be for')
    if len({secret.name for secret in given}) != len(given):
        raise ConfigurationError("secrets: two have one name", hint="give each a name of its own")
    for secret in given:
        for host in secret.hosts:
            if egress is not None and not lists_name(egress, host):
                raise ConfigurationError(
                    f"secrets: {host}, a host of {secret.name}, is not in egress_allowlist, and would become reachable",
                    hint="list the host, or take it from the secret",
                )
    if mode == "nic" and persistence != "tar":
        # A clone of a microVM takes over what BoxLite keeps for its source.
        raise ConfigurationError(
            "secrets: a sandbox that BoxLite gives secrets to cannot be saved natively",
            hint='set workspace_persistence to "tar"',
        )


def secrets_mark(secrets: Iterable[EgressSecret]) -> str:
    """Return what the name of a microVM ends with, so that one with other secrets is never taken for it.

    Returns:
        Empty without secrets; else a hyphen, ``s`` and 16 hex digits.
    """
    facts = [[secret.name, secret.reference, list(secret.hosts)] for secret in secrets]
    return "-s" + hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16] if facts else ""


async def looked_up(secrets: Sequence[EgressSecret]) -> list[object]:
    """Look the values up, and return BoxLite's objects for them, which print no value.

    Raises:
        ConfigurationError: One cannot be had. The message names the reference.
    """
    return [
        api.secret(
            name=secret.name,
            value=await SecretEnv(reference=secret.reference).resolve(),
            hosts=secret.hosts,
            placeholder=secret.placeholder,
        )
        for secret in secrets
    ]
