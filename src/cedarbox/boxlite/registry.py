"""Registries that need more than their name: a login, or plain HTTP.

Certificates are verified against the host's authorities; ``SSL_CERT_FILE`` in the environment names others, such as
that of a site (measured on BoxLite 0.10.8). A password is never held here: only where it is.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cedarbox.errors import ConfigurationError

__all__ = ["Registry"]

_HOST = re.compile(r"(?P<host>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::[0-9]{1,5})?")
_MAX_PASSWORD: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry and how to log in there.

    Attributes:
        host: Host and port, as they stand in image references.
        username: The account; ``None`` for no login.
        password_env: The environment variable that holds the password.
        password_file: The file that holds the password; a line feed at its end does not count.
        transport: ``https``, or ``http`` for one that speaks no TLS.

    Raises:
        ConfigurationError: A value cannot be used, or a password would go over the network in clear.
    """

    host: str
    username: str | None = None
    password_env: str | None = None
    password_file: Path | None = None
    transport: Literal["https", "http"] = "https"

    def __post_init__(self) -> None:
        found = _HOST.fullmatch(self.host)
        if found is None:
            raise ConfigurationError(
                f"registry: {self.host!r} is not a host", hint="write it like registry.corp.example:5000"
            )
        if self.transport not in ("https", "http"):
            raise ConfigurationError(f"registry {self.host}: transport: {self.transport!r} is not https or http")
        given = [value for value in (self.password_env, self.password_file) if value is not None]
        if len(given) != (0 if self.username is None else 1):
            raise ConfigurationError(
                f"registry {self.host}: a login is a username and one of password_env and password_file",
                hint="name where the password is; it is never a setting itself",
            )
        if self.username is not None and self.transport == "http" and not _is_loopback(found["host"]):
            raise ConfigurationError(
                f"registry {self.host}: a password would go over the network in clear", hint="use https"
            )

    def password(self, environ: Mapping[str, str] = os.environ) -> str | None:
        """Read the password.

        Args:
            environ: The environment.

        Returns:
            It; ``None`` when there is no login.

        Raises:
            ConfigurationError: It is not where it was said to be.
        """
        if self.password_env is not None:
            value = environ.get(self.password_env, "")
            where = f"the environment variable {self.password_env}"
        elif self.password_file is not None:
            where = str(self.password_file)
            try:
                with self.password_file.expanduser().open("rb") as stream:
                    value = stream.read(_MAX_PASSWORD).decode().removesuffix("\n").removesuffix("\r")
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not text"
                raise ConfigurationError(
                    f"registry {self.host}: the password in {where} cannot be read ({reason})", hint="check the file"
                ) from None
        else:
            return None
        if not value:
            raise ConfigurationError(f"registry {self.host}: {where} holds no password", hint="set it")
        return value


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
