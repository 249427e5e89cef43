"""What the guest is told when the answer is no: one line that curl, pip and git print."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from cedarbox.errors import LedgerError, PolicyDenied

__all__ = ["Refusal", "denial", "response"]

_MOST: Final = 300  # Characters; clients cut longer status lines, or refuse them.


@dataclass(frozen=True, slots=True)
class Refusal:
    """A no, for whichever protocol the guest speaks.

    Attributes:
        status: Of HTTP.
        code: Of SOCKS5.
        text: Why, in one line.
        policies: Ids of the policies that said so.
    """

    status: int
    code: int
    text: str
    policies: tuple[str, ...] = ()


def denial(error: PolicyDenied, *, status: int = 403) -> Refusal:
    """Return what the guest is told of a denial. Where the ledger of the host is, and what ails it, is not for it."""
    if isinstance(error.__cause__, LedgerError):
        return Refusal(status, 2, "cedarbox: nothing can be recorded at the moment, so nothing is permitted")
    told = f"cedarbox: {error.message}"
    if error.policies:
        told += f" (policies: {', '.join(error.policies)})"
    return Refusal(status, 2, told, error.policies)


def response(refusal: Refusal, *, body: bool = True) -> bytes:
    """Return a whole answer in HTTP/1.1, after which the connection is closed.

    Args:
        refusal: What to say. It may quote the guest: nothing of it ends a line.
        body: False for the answer to HEAD.
    """
    text = _plain(refusal.text)
    content = f"{text}\n".encode("ascii")
    lines = [
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}: {text[:_MOST]}",
        "Content-Type: text/plain; charset=us-ascii",
        f"Content-Length: {len(content)}",
        "Connection: close",
    ]
    if refusal.policies:
        lines.append(f"X-Cedarbox-Policy: {_plain(', '.join(refusal.policies))[:_MOST]}")
    return "\r\n".join((*lines, "", "")).encode("ascii") + (content if body else b"")


def _plain(text: str) -> str:
    return " ".join("".join(char if char.isprintable() and char.isascii() else "?" for char in text).split())
