"""Reading a request body within a bound."""

from __future__ import annotations

import zlib
from typing import Final

from cedarbox.errors import ConfigurationError

__all__ = ["MAX_BODY", "TooLargeError", "inflate"]

MAX_BODY: Final = 16 * 1024 * 1024
"""Largest request in bytes, before and after decompression. The shippers of cedarbox stay far below it."""

_GZIP: Final = 16 + zlib.MAX_WBITS


class TooLargeError(ConfigurationError):
    """A body that is larger than the bound."""

    def __init__(self) -> None:
        super().__init__(f"the request is larger than {MAX_BODY} bytes", hint="send smaller batches")


def inflate(data: bytes) -> bytes:
    """Decompress gzip (RFC 1952, also of several members), never holding more than the bound.

    Raises:
        TooLargeError: The result would be larger than `MAX_BODY`.
        ConfigurationError: Not gzip, or cut short.
    """
    result = bytearray()
    while data:
        member = zlib.decompressobj(wbits=_GZIP)
        try:
            result += member.decompress(data, MAX_BODY + 1 - len(result))
        except zlib.error as error:
            raise ConfigurationError(f"the body is not gzip: {error}") from error
        if len(result) > MAX_BODY:
            raise TooLargeError
        if not member.eof:
            raise ConfigurationError("the gzip body is cut short")
        data = member.unused_data
    return bytes(result)
