"""``google.rpc.Status``, the form of every error of OTLP.

It is two fields and an optional detail; written here, it needs no further package.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration

__all__ = [
    "INVALID_ARGUMENT",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
    "status_bytes",
]

# Codes of google.rpc.Code.
INVALID_ARGUMENT: Final = 3
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
UNAVAILABLE: Final = 14

_RETRY_INFO: Final = "type.googleapis.com/google.rpc.RetryInfo"


def status_bytes(code: int, reason: str, *, retry_seconds: int | None = None) -> bytes:
    """Give a status as protobuf.

    Args:
        code: A code of google.rpc.Code.
        reason: One line.
        retry_seconds: When the sender should try again; a ``google.rpc.RetryInfo`` says so.
    """
    written = b"\x08" + _varint(code) + _field(2, reason.encode())
    if retry_seconds is not None:
        delay = _field(1, Duration(seconds=retry_seconds).SerializeToString())
        written += _field(3, Any(type_url=_RETRY_INFO, value=delay).SerializeToString())
    return written


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
