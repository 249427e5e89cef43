"""The seal over a saved session state: what comes back is what was saved, or it is refused.

A state says which image boots, what it may reach and where its snapshot is. It is kept by the program, in a database
or a file, so it is authenticated: HMAC-SHA-256 (RFC 2104) over its JSON, under a key derived from the sandbox key. An
older state of the same session is authentic too; the seal does not tell which is the newest.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cedarbox.errors import ConfigurationError
from cedarbox.guard.keys import SandboxKey

__all__ = ["SEAL", "StateSeal"]

SEAL: Final = "cedarbox_seal"
"""The key of a payload that holds its seal. The guarded client never sees it."""

_VERSION: Final = "1:"


@dataclass(frozen=True, slots=True)
class StateSeal:
    """Seals the states of one backend.

    Attributes:
        key: The sandbox key.
        backend: The ``backend_id`` of the client; a state of another backend does not pass.
    """

    key: SandboxKey
    backend: str

    def sealed(self, payload: Mapping[str, object]) -> dict[str, object]:
        """Return a payload with its seal.

        Raises:
            ConfigurationError: The payload is not JSON, or has a seal already.
        """
        if SEAL in payload:
            raise ConfigurationError("the state has a seal already", hint="do not guard a guarded client")
        return {**payload, SEAL: self._of(payload)}

    def opened(self, payload: Mapping[str, object]) -> dict[str, object]:
        """Check the seal of a payload; return the payload without it.

        Raises:
            ConfigurationError: It has none, or does not match it.
        """
        plain = {name: value for name, value in payload.items() if name != SEAL}
        seal = payload.get(SEAL)
        if seal is None:
            raise ConfigurationError(
                "the saved sandbox state has no seal",
                hint="it was saved without a guard, or by an older version; start anew",
            )
        if not isinstance(seal, str) or not hmac.compare_digest(
            seal.encode("utf-8", "replace"), self._of(plain).encode()
        ):
            raise ConfigurationError(
                "the saved sandbox state is not the one that was saved",
                hint=f"it was changed, or sealed with another key than {self.key.path}; start anew",
            )
        return plain

    def _of(self, payload: Mapping[str, object]) -> str:
        try:
            # Sorted and ASCII, so that a trip through any JSON library of Python gives the same bytes.
            text = json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise ConfigurationError("the sandbox state is not JSON, so it cannot be sealed") from None
        message = f"{self.backend}\0{text}".encode()
        return _VERSION + hmac.digest(self.key.derived(b"cedarbox sealed state 1"), message, "sha256").hex()
