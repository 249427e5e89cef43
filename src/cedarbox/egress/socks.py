"""SOCKS5 as the guest may speak it (RFC 1928): no authentication, CONNECT, names and addresses."""

from __future__ import annotations

import ipaddress
from typing import Final

from cedarbox.egress.guest import Guest, HeadError
from cedarbox.egress.targets import Target, without_user
from cedarbox.errors import CanonicalizationError, CedarboxError
from cedarbox.policy.canonical import canonical_host

__all__ = [
    "ADDRESS_TYPE",
    "COMMAND",
    "DENIED",
    "FAILED",
    "GRANTED",
    "REFUSED",
    "UNREACHABLE",
    "SocksError",
    "reply",
    "request",
]

# RFC 1928 §6.
GRANTED: Final = 0
FAILED: Final = 1
DENIED: Final = 2
UNREACHABLE: Final = 4
REFUSED: Final = 5
COMMAND: Final = 7
ADDRESS_TYPE: Final = 8

_CONNECT: Final = 1
_COMMANDS: Final = {2: "BIND", 3: "UDP ASSOCIATE"}
_MOST_SHOWN: Final = 80


class SocksError(CedarboxError):
    """A request that is refused before it is asked about.

    Args:
        message: Why.
        target: What was asked for, as it came.
        answer: What the guest is told, in bytes.
    """

    def __init__(self, message: str, *, target: str, answer: bytes) -> None:
        super().__init__(message)
        self.target, self.answer = target, answer


def reply(code: int) -> bytes:
    """Return the answer to a request; it tells no address of the host."""
    return bytes((5, code, 0, 1, 0, 0, 0, 0, 0, 0))


async def request(guest: Guest) -> Target:
    """Read the greeting and the request, and answer the greeting.

    Raises:
        HeadError: It breaks the protocol, or the guest finished in the middle.
        SocksError: It is well-formed, and refused.
        StreamClosedError: The connection is closed.
    """
    _, count = await guest.exactly(2)
    if 0 not in await guest.exactly(count):
        raise SocksError("the guest offers no SOCKS5 without authentication", target="SOCKS5", answer=b"\x05\xff")
    await guest.write(b"\x05\x00")
    version, command, reserved, kind = await guest.exactly(4)
    if version != 5 or reserved != 0:
        raise HeadError("the request is not SOCKS5")
    if kind == 1:
        raw = await guest.exactly(4)
        text = str(ipaddress.IPv4Address(raw))
    elif kind == 4:
        raw = await guest.exactly(16)
        text = f"[{ipaddress.IPv6Address(raw)}]"
    elif kind == 3:
        raw = await guest.exactly((await guest.exactly(1))[0])
        text = raw.decode("ascii", "backslashreplace")
    else:
        raise SocksError(f"the address type {kind} is unknown", target="SOCKS5", answer=reply(ADDRESS_TYPE))
    port = int.from_bytes(await guest.exactly(2))
    shown = f"{without_user(text, _MOST_SHOWN)}:{port}"
    if command != _CONNECT:
        name = _COMMANDS.get(command, f"command {command}")
        raise SocksError(f"SOCKS5 {name} is not offered", target=shown, answer=reply(COMMAND))
    if port == 0:
        raise SocksError("the port is 0", target=shown, answer=reply(DENIED))
    if "@" in text:
        raise SocksError("a user stands in front of the host", target=shown, answer=reply(DENIED))
    try:
        return canonical_host(text), port
    except CanonicalizationError as error:
        raise SocksError(error.message, target=shown, answer=reply(DENIED)) from None
