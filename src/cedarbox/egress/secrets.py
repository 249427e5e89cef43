"""Secrets that the guest never sees: a placeholder in a header of plain HTTP, and the value on the host."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from cedarbox.errors import CedarboxError

__all__ = ["Mask", "Secret", "SecretError", "names_in", "put_in", "reveal"]

_PLACEHOLDER: Final = re.compile(rb"<CEDARBOX_SECRET:([A-Za-z0-9_.-]{1,64})>")
_BEGINNING: Final = b"<CEDARBOX_SECRET"
_MOST: Final = 8192  # Bytes; servers refuse longer headers anyway.
# What h11 and every server take as the value of a header in one way.
_VALUE: Final = re.compile(rb"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


class Secret(Protocol):
    """A value that is kept on the host."""

    def reveal(self) -> str:
        """Return the value as it is now; asked for each request that uses it.

        Raises:
            Exception: It cannot be had. Its text is shown to nobody.
        """


class SecretError(CedarboxError):
    """A secret cannot be put in. The message never holds its value."""


def names_in(values: Iterable[bytes]) -> tuple[str, ...]:
    """Return the names of the secrets that the values of headers ask for, each once, in order.

    Placeholders are seen as they stand. Inside base64, such as the value of ``Authorization: Basic``, none is seen.

    Raises:
        SecretError: One begins and has no name, or does not end.
    """
    names: dict[str, None] = {}
    for value in values:
        names.update((found[1].decode(), None) for found in _PLACEHOLDER.finditer(value))
        if _BEGINNING in _PLACEHOLDER.sub(b"", value).upper():
            raise SecretError("a placeholder of a secret has no name of letters, digits, dots, hyphens or underscores")
    return tuple(names)


def reveal(name: str, secret: Secret | None) -> bytes:
    """Return the value of a secret.

    Raises:
        SecretError: There is none, it cannot be had, or it could not stand in a header.
    """
    if secret is None:
        raise SecretError(f"there is no secret {name}")
    try:
        value = secret.reveal().encode()
    except Exception:  # noqa: BLE001  # Whatever it says could hold the value.
        raise SecretError(f"the secret {name} cannot be had") from None
    if len(value) > _MOST or not _VALUE.fullmatch(value):
        raise SecretError(f"the secret {name} is empty, too long, or has characters that no header can carry")
    return value


def put_in(value: bytes, secrets: Mapping[str, bytes]) -> bytes:
    """Return the value of a header with the secrets in the places of their placeholders."""
    return _PLACEHOLDER.sub(lambda found: secrets[found[1].decode()], value)


class Mask:
    """Replaces every exact occurrence of some values in a stream of bytes by asterisks, and keeps its length.

    What could be the beginning of a value is held until it is known. Values in another encoding are not seen.

    Args:
        values: What must not be seen; none of them empty.
    """

    def __init__(self, values: Iterable[bytes]) -> None:
        self._values = tuple(values)
        self._held = b""
        self._hidden = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return what can be shown by now."""
        text = self._held + data
        hidden = self._hidden + bytes(len(data))
        for value in self._values:
            at = text.find(value)
            while at >= 0:
                hidden[at : at + len(value)] = b"\x01" * len(value)
                at = text.find(value, at + 1)
        keep = max((_overlap(text, value) for value in self._values), default=0)
        cut = len(text) - keep
        self._held, self._hidden = text[cut:], hidden[cut:]
        return _shown(text[:cut], hidden[:cut])

    def end(self) -> bytes:
        """Return what was held back: it was no whole value."""
        text, hidden = self._held, self._hidden
        self._held, self._hidden = b"", bytearray()
        return _shown(text, hidden)

    def whole(self, data: bytes) -> bytes:
        """Return bytes that stand for themselves, masked."""
        alone = Mask(self._values)
        return alone.feed(data) + alone.end()


def _shown(text: bytes, hidden: bytearray) -> bytes:
    if not any(hidden):
        return text
    return bytes(0x2A if mark else byte for byte, mark in zip(text, hidden, strict=True))


def _overlap(text: bytes, value: bytes) -> int:
    return next((size for size in range(min(len(value) - 1, len(text)), 0, -1) if text.endswith(value[:size])), 0)
