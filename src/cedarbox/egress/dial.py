"""Names looked up on the host, and addresses dialled: exactly those that were decided."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from cedarbox.egress.limits import EgressLimits, Meter, Sandbox
from cedarbox.errors import CanonicalizationError, CedarboxError
from cedarbox.policy.canonical import IP, Address, canonical_host

__all__ = ["MOST_ADDRESSES", "DialError", "Resolve", "Server", "dial", "look_up", "system_resolver"]

MOST_ADDRESSES: Final = 8
"""Addresses of one name that are tried; each is a decision, a record and a dial."""

_LOOKUPS: Final = 4  # Names of one sandbox that are looked up at a time; one that hangs must not stop other sandboxes.
_PIECE: Final = 65536

Resolve = Callable[[str, int], Awaitable[Sequence[IP]]]


class DialError(CedarboxError):
    """A name has no address, or an address does not answer.

    Args:
        message: What happened.
        status: The status of HTTP that says so.
        code: The code of SOCKS5 that says so.
    """

    def __init__(self, message: str, *, status: int = 502, code: int = 5) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def system_resolver() -> Resolve:
    """Return a resolver that asks as the host is set up (``/etc/hosts``, search domains), in threads of its own."""
    threads = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="cedarbox-resolve")

    def ask(name: str, port: int) -> list[IP]:
        # No final dot, which would keep the host's search domains out: names in /etc/hosts are not found with one.
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        return [ipaddress.ip_address(str(entry[4][0])) for entry in found]

    async def resolve(name: str, port: int) -> Sequence[IP]:
        return await asyncio.get_running_loop().run_in_executor(threads, ask, name, port)

    return resolve


async def look_up(resolve: Resolve, name: str, port: int, limits: EgressLimits) -> tuple[list[Address], list[str]]:
    """Return the addresses of a name, each once and at most eight, and why others were left out.

    Raises:
        DialError: There is none, or the answer took too long.
    """
    try:
        async with asyncio.timeout(limits.resolve_s):
            found = await resolve(name, port)
    except TimeoutError:
        raise DialError(f"{name} was not resolved within {limits.resolve_s:g} s", status=504, code=4) from None
    except (OSError, ValueError):
        # ValueError covers what the resolver cannot encode. Neither text tells anything that the guest may not know.
        raise DialError(f"{name} cannot be resolved", code=4) from None
    addresses: dict[Address, None] = {}
    strange: list[str] = []
    for ip in found:
        try:
            address = canonical_host(str(ip))
        except CanonicalizationError as error:
            strange.append(error.message)
            continue
        if isinstance(address, Address):
            addresses[address] = None
    if not addresses and not strange:
        raise DialError(f"{name} has no address", code=4)
    return list(addresses)[:MOST_ADDRESSES], strange


class Server:
    """A connection to a server, counted.

    Args:
        ip: The address that was dialled.
        reader: What comes from it.
        writer: What goes to it.
        meter: Counts the bytes.
    """

    def __init__(self, ip: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, meter: Meter) -> None:
        self.ip, self.meter = ip, meter
        self._reader, self._writer = reader, writer
        # Waiting until all is with the kernel makes the backpressure exact, and a close loses nothing.
        writer.transport.set_write_buffer_limits(high=0)

    @property
    def ended(self) -> bool:
        """Whether the server has finished, as far as is known without reading."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def read(self) -> bytes:
        """Return the next bytes; empty when the server has finished.

        Raises:
            LimitError: They are too many.
            OSError: The connection broke.
        """
        data = await self._reader.read(_PIECE)
        self.meter.received(len(data))
        self.meter.touch()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes; returns when the host's kernel has them.

        Raises:
            LimitError: They are too many; none was sent.
            OSError: The connection broke.
        """
        if data:
            self.meter.sending(len(data))
            self._writer.write(data)
            await self._writer.drain()
            self.meter.touch()

    def finish(self) -> None:
        """Say that nothing more will be sent; reading goes on."""
        if self._writer.can_write_eof() and not self._writer.is_closing():
            self._writer.write_eof()

    def close(self) -> None:
        """Close it; what was written is with the kernel already."""
        self._writer.close()

    def abort(self) -> None:
        """Close it at once, in both directions."""
        self._writer.transport.abort()


async def dial(ip: Address, port: int, sandbox: Sandbox) -> Server:
    """Connect to exactly this address.

    Raises:
        DialError: It does not answer.
    """
    loop, seconds = asyncio.get_running_loop(), sandbox.limits.dial_s
    try:
        connection = socket.socket(socket.AF_INET if ip.ip.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    except OSError as error:
        raise DialError(f"no socket for {ip}: {_told(error)}", status=503, code=1) from None
    try:
        connection.setblocking(False)
        async with asyncio.timeout(seconds):
            await loop.sock_connect(connection, (str(ip), port))
        reader, writer = await asyncio.open_connection(sock=connection)
    except TimeoutError:
        connection.close()
        raise DialError(f"{ip} port {port} did not answer within {seconds:g} s", status=504, code=4) from None
    except OSError as error:
        connection.close()
        code = 5 if isinstance(error, ConnectionRefusedError) else 4
        raise DialError(f"{ip} port {port}: {_told(error)}", code=code) from None
    except BaseException:
        connection.close()
        raise
    return Server(ip, reader, writer, Meter(sandbox))


def _told(error: OSError) -> str:
    # The text of asyncio's own errors names no cause.
    return os.strerror(error.errno).lower() if error.errno else "no connection"
