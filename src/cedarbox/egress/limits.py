"""How much of the host one sandbox may use, and all together, and what was used."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, fields

from cedarbox.errors import CedarboxError, ConfigurationError

__all__ = ["EgressLimits", "HostLimits", "IdleError", "LimitError", "Meter", "Sandbox"]


class LimitError(CedarboxError):
    """One of the limits was reached."""


class IdleError(CedarboxError):
    """Nothing was sent in either direction for as long as a connection may be idle."""


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """What the connections of one sandbox may use. All must be positive.

    The defaults are chosen, not measured: a package manager or a clone stays far below, and a guest that does its
    worst does not fill the host's table of open files or its memory.

    Attributes:
        connections: Connections at a time.
        connections_per_s: New connections, and further requests on old ones, over time.
        connections_burst: As many of them at once, after a rest.
        bytes_out: Bytes that one connection may send.
        bytes_in: Bytes that one connection may receive.
        sandbox_bytes_out: Bytes that all connections of the sandbox together may send.
        sandbox_bytes_in: Bytes that all connections of the sandbox together may receive.
        first_byte_s: Until a head, a handshake or a ClientHello is complete, from when it may begin.
        silent_s: After which a guest that says nothing in a tunnel is taken to wait for the server's first word.
        idle_s: Without a byte in either direction.
        dial_s: For one address.
        resolve_s: For one name.
        head_bytes: Size of the head of a request or an answer.
    """

    connections: int = 1024
    connections_per_s: float = 256.0
    connections_burst: int = 1024
    bytes_out: int = 4 << 30
    bytes_in: int = 16 << 30
    sandbox_bytes_out: int = 16 << 30
    sandbox_bytes_in: int = 64 << 30
    first_byte_s: float = 10.0
    silent_s: float = 1.0
    idle_s: float = 300.0
    dial_s: float = 10.0
    resolve_s: float = 5.0
    head_bytes: int = 32768

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ConfigurationError(
                    f"the limit {field.name} is {getattr(self, field.name)}, which is not positive"
                )


class HostLimits:
    """What all sandboxes of a process may use together; every broker of the process is given the same one.

    Args:
        connections: Connections at a time. Each takes a file descriptor of the host.
    """

    def __init__(self, *, connections: int = 4096) -> None:
        if connections < 1:
            raise ConfigurationError(f"the limit connections of the host is {connections}, which is not positive")
        self.connections, self.open = connections, 0


class Sandbox:
    """What one sandbox uses at the moment and has used.

    Args:
        limits: Its own limits.
        host: The limits of all together.
    """

    def __init__(self, limits: EgressLimits, host: HostLimits) -> None:
        self.limits, self._host = limits, host
        self.open = self.bytes_out = self.bytes_in = 0
        self._tokens, self._filled = float(limits.connections_burst), 0.0
        self._unsaid, self._said = 0, float("-inf")

    def enter(self) -> None:
        """Count a new connection.

        Raises:
            LimitError: It is one too many; it was not counted.
        """
        limits = self.limits
        if self.open >= limits.connections:
            raise LimitError(f"limit: {limits.connections} connections of this sandbox are open")
        if self._host.open >= self._host.connections:
            raise LimitError(f"limit: {self._host.connections} connections of all sandboxes are open")
        self.spend()
        self.open += 1
        self._host.open += 1

    def spend(self) -> None:
        """Count one question: a new connection, or another request on an old one.

        Raises:
            LimitError: They come too fast.
        """
        now, limits = asyncio.get_running_loop().time(), self.limits
        earned = (now - self._filled) * limits.connections_per_s
        self._tokens, self._filled = min(float(limits.connections_burst), self._tokens + earned), now
        if self._tokens < 1:
            raise LimitError(f"limit: more than {limits.connections_per_s:g} connections or requests a second")
        self._tokens -= 1

    def leave(self) -> None:
        """Take back what :meth:`enter` counted."""
        self.open -= 1
        self._host.open -= 1

    def worth_saying(self) -> int | None:
        """Return how many refusals were left unsaid, when this one should be said; None to leave it unsaid.

        One in a second is said: a guest that floods must not fill the ledger with it.
        """
        now = asyncio.get_running_loop().time()
        if now - self._said < 1:
            self._unsaid += 1
            return None
        unsaid, self._unsaid, self._said = self._unsaid, 0, now
        return unsaid


class Meter:
    """What one connection to a server has carried.

    Args:
        sandbox: Whose it is.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.bytes_out = self.bytes_in = 0
        self.touched = asyncio.get_running_loop().time()

    def sending(self, size: int) -> None:
        """Count bytes that are about to be sent to the server.

        Raises:
            LimitError: They are too many.
        """
        sandbox, limits = self._sandbox, self._sandbox.limits
        if self.bytes_out + size > limits.bytes_out:
            raise LimitError(f"limit: {limits.bytes_out} bytes sent on one connection")
        if sandbox.bytes_out + size > limits.sandbox_bytes_out:
            raise LimitError(f"limit: {limits.sandbox_bytes_out} bytes sent by this sandbox")
        self.bytes_out += size
        sandbox.bytes_out += size

    def received(self, size: int) -> None:
        """Count bytes that came from the server.

        Raises:
            LimitError: They are too many.
        """
        sandbox, limits = self._sandbox, self._sandbox.limits
        self.bytes_in += size
        sandbox.bytes_in += size
        if self.bytes_in > limits.bytes_in:
            raise LimitError(f"limit: {limits.bytes_in} bytes received on one connection")
        if sandbox.bytes_in > limits.sandbox_bytes_in:
            raise LimitError(f"limit: {limits.sandbox_bytes_in} bytes received by this sandbox")

    def touch(self) -> None:
        """Note that something went through."""
        self.touched = asyncio.get_running_loop().time()
