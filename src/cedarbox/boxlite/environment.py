"""The environment of commands in the guest: which names are refused, and secrets that are only referred to.

``BOXLITE_EXECUTOR=guest`` runs a command outside the container as root of the microVM (measured on BoxLite 0.10.8), so
no name of BoxLite's own may come from anywhere: options, manifests, states that are read back, and what a secret
refers to.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from typing import Final, Literal

from agents.sandbox.manifest import Environment, EnvValue
from pydantic import ConfigDict, field_validator

from cedarbox.errors import ConfigurationError

__all__ = ["MAX_SECRET_BYTES", "SecretEnv", "check_environment", "check_environment_key", "resolved_environment"]

MAX_SECRET_BYTES: Final = 64 * 1024
"""Bytes that a secret may have."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FORMS: Final = "write env:NAME or file:/absolute/path"


def check_environment_key(key: str, *, where: str) -> None:
    """Refuse an environment key that BoxLite mangles or obeys.

    ``BOXLITE_EXECUTOR=guest`` runs a command outside the container with all capabilities, and a key with ``=`` or NUL
    is mangled (measured on BoxLite 0.10.8). Letters outside of ASCII are refused, so none can look like one inside.

    Args:
        key: The key.
        where: Where it was found, for the message.

    Raises:
        ConfigurationError: The key is refused.
    """
    if not isinstance(key, str) or not _NAME.fullmatch(key):
        raise ConfigurationError(f"{where}: the name {key!r} cannot be used", hint="use letters, digits and _")
    if key.upper().startswith(("BOXLITE_", "CEDARBOX_EXEC")):
        raise ConfigurationError(f"{where}: the name {key} is reserved for the sandbox", hint="choose another name")


def check_environment(environment: Environment) -> None:
    """Check every name of a manifest's environment.

    Raises:
        ConfigurationError: One is refused.
    """
    for key in environment.value:
        check_environment_key(key, where="manifest environment")


class SecretEnv(EnvValue):
    """A value of a manifest's environment that is looked up each time a command starts, and stored nowhere.

    Only the reference is in the manifest, in a session's state and in what is made of them. The commands of the guest
    do see the value: give it to agents that may have it.

    Attributes:
        reference: ``env:NAME``, a variable of this process, or ``file:/path``, a file of the host that only its owner
            can read, at most :data:`MAX_SECRET_BYTES` of UTF-8; one line feed at its end is left out.

    Raises:
        ConfigurationError: The reference is of neither form, or names a variable of BoxLite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    type: Literal["cedarbox_secret"] = "cedarbox_secret"
    reference: str

    @field_validator("reference")
    @classmethod
    def _check(cls, value: str) -> str:
        kind, _, rest = value.partition(":")
        if kind == "env":
            check_environment_key(rest, where=f"secret {value}")
        elif kind != "file" or not rest.startswith("/") or "\0" in rest:
            # The text may be a secret that was put in the wrong place.
            raise ConfigurationError("a secret's reference is of an unknown form", hint=_FORMS)
        return value

    async def resolve(self) -> str:
        """Look the value up, a file in a thread; raises what :meth:`look_up` does."""
        return await asyncio.to_thread(self.look_up)

    def look_up(self) -> str:
        """Look the value up.

        Raises:
            ConfigurationError: There is none, or the file may be read by others. The message names the reference.
        """
        kind, _, rest = self.reference.partition(":")
        if kind == "env":
            value = os.environ.get(rest)
            if value is None:
                raise ConfigurationError(f"the secret {self.reference} is not set", hint=f"set {rest} for this process")
        else:
            value = self._read(rest)
        if "\0" in value:
            raise ConfigurationError(f"the secret {self.reference} contains NUL")
        return value

    def _read(self, path: str) -> str:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as stream:
                status = os.fstat(handle)
                if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
                    raise ConfigurationError(f"the secret {self.reference} is not a file of this user or root")
                if status.st_mode & 0o077:
                    raise ConfigurationError(
                        f"others than its owner may use the secret {self.reference}", hint=f"chmod 600 {path}"
                    )
                data = stream.read(MAX_SECRET_BYTES + 1)
        except OSError as error:
            raise ConfigurationError(f"the secret {self.reference} cannot be read: {error.strerror}") from None
        if len(data) > MAX_SECRET_BYTES:
            raise ConfigurationError(f"the secret {self.reference} has more than {MAX_SECRET_BYTES} bytes")
        try:
            return data.decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise ConfigurationError(f"the secret {self.reference} is not UTF-8") from None


async def resolved_environment(environment: Environment) -> tuple[tuple[str, str], ...]:
    """Look up every value of a manifest's environment.

    Returns:
        Names and values, in their order.

    Raises:
        ConfigurationError: A name is refused, a secret cannot be had, or a value cannot be passed on. No message holds
            a value.
    """
    check_environment(environment)
    resolved = await environment.resolve()
    for key, value in resolved.items():
        if not isinstance(value, str) or any(char == "\0" or 0xD800 <= ord(char) <= 0xDFFF for char in value):
            raise ConfigurationError(f"manifest environment: the value of {key} contains NUL or is not Unicode")
    return tuple(resolved.items())
