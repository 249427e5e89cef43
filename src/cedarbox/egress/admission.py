"""What the broker asks before it acts, and who answers."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from cedarbox.errors import PolicyDenied
from cedarbox.policy.canonical import Address, Host

__all__ = ["CONNECTED", "Admission", "Connect", "HttpRequest", "Outcome"]


CONNECTED: Final = "connected_ms"
"""The fact by which an :class:`Outcome` is told that the connection was dialled: milliseconds that it took."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request in plain HTTP. All values are in canonical form, and what is sent on is made from them.

    Attributes:
        method: In upper case.
        path: Percent-decoded where that is unambiguous, without query; begins with a slash.
        upgrade: The protocol that the connection is to become, in lower case; None for none.
    """

    method: str
    path: str
    upgrade: str | None = None


@dataclass(frozen=True, slots=True)
class Connect:
    """One connection, at the moment at which everything about it is known and nothing was dialled.

    Attributes:
        target: The host or address that was asked for, canonical.
        port: TCP port, 1 to 65535.
        ip: The address that would be dialled, and no other.
        proto: ``tls`` when the guest's ClientHello names the target and hides no other name; ``http`` when it speaks
            HTTP/1; else ``tcp``.
        hello: For TLS: ``named`` (the name of the target), ``unnamed`` (no name), ``encrypted`` (ECH is offered, so
            the name that counts cannot be seen); None when it is not TLS. ``tls`` always goes with ``named``; with the
            other two the connection is asked about as ``tcp``.
        request: For ``http``: the request.
    """

    target: Host | Address
    port: int
    ip: Address
    proto: Literal["tcp", "tls", "http"]
    hello: Literal["named", "unnamed", "encrypted"] | None = None
    request: HttpRequest | None = None


class Outcome(Protocol):
    """An admitted connection while it lasts: collects what its record and span will say."""

    def set(self, name: str, value: str | int | bool) -> None:
        """Note a fact: ``bytes_in``, ``bytes_out``, ``milliseconds``, ``reason`` of its end; never content.

        :data:`CONNECTED` is recorded at once, and so once at most; the others when the connection is over.
        """


class Admission(Protocol):
    """Answers for one sandbox. Every denial that it raises or returns is recorded already."""

    async def name(self, target: Host | Address, port: int) -> None:
        """Decide whether any connection to this target could be permitted, before its name is looked up.

        A look-up tells the name to a name server, so a name that no policy could permit must not be looked up.

        Raises:
            PolicyDenied: None could.
        """

    def foreseen(self, target: Host | Address, port: int, ip: Address) -> frozenset[str]:
        """Return which of ``tls``, ``http`` and ``tcp`` could be permitted to this address. Nothing is recorded.

        A tunnel is answered before its first bytes are seen; where this is empty it is refused instead. It may tell
        more than is permitted, never less.
        """

    def connection(self, connect: Connect) -> AbstractAsyncContextManager[Outcome]:
        """Decide and record a connection, or one request of it; the block is the act.

        While the block runs, a change of policy that denies it cancels it, and what is raised then is the denial.

        Raises:
            PolicyDenied: No.
        """

    async def refuse(self, target: str, reason: str) -> PolicyDenied:
        """Record a denial that no policy could turn into a permit; return the error to raise.

        Args:
            target: What was asked for, as it came; it may be hostile text.
            reason: Why not, in one line.
        """

    async def secret(self, name: str, target: Host, port: int) -> None:
        """Decide whether a secret may be put into a request to this host and port.

        Raises:
            PolicyDenied: No.
        """
