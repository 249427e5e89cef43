"""OTLP over HTTP: one POST with protobuf for each request, over TCP or a Unix socket."""

from __future__ import annotations

import gzip
import time
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import httpx

from cedarbox.audit.answers import check_answer
from cedarbox.audit.target import AwayError, RefusedError, Target, Transport, resolve_headers

__all__ = ["HttpTransport"]

_ANSWER_BYTES: Final = 64 * 1024
_CONTENT: Final = frozenset({400, 413, 422, 500})
"""Statuses that may be about what was sent. All others are about the collector, or about who sends."""


class HttpTransport(Transport):
    """Sends over HTTP/1.1. No proxy, no redirect, no certificate authority that was not named.

    Args:
        target: Where to.

    Raises:
        ConfigurationError: A certificate or key cannot be read.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._base = "http://localhost" if target.socket else target.endpoint.rstrip("/")
        carrier = httpx.HTTPTransport(
            verify=target.tls() if target.is_tls else False, trust_env=False, uds=target.socket
        )
        self._client = httpx.Client(
            transport=carrier, trust_env=False, timeout=target.timeout_s, follow_redirects=False
        )

    def send(self, path: str, body: bytes) -> None:
        """Send one request; see `Transport.send`."""
        headers = resolve_headers(self._target.headers) | {
            "content-type": "application/x-protobuf",
            "accept-encoding": "identity",
        }
        if self._target.compression == "gzip":
            headers["content-encoding"] = "gzip"
            body = gzip.compress(body, compresslevel=1, mtime=0)
        try:
            with self._client.stream("POST", f"{self._base}{path}", content=body, headers=headers) as answer:
                content = self._content(answer)
        except httpx.HTTPError as error:
            raise AwayError(f"{self._target.endpoint}: {type(error).__name__}: {error}") from error
        if answer.status_code == HTTPStatus.OK:
            check_answer(path, content)
            return
        said = f"{self._target.endpoint}: the collector answered {answer.status_code}"
        if answer.status_code in _CONTENT:
            raise RefusedError(said)
        raise AwayError(said, wait_s=_wait(answer.headers.get("retry-after", "")), answered=True)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _content(self, answer: httpx.Response) -> bytes:
        """Read an answer that is short in bytes and in time, whoever sends it."""
        deadline = time.monotonic() + self._target.timeout_s
        content = b""
        for chunk in answer.iter_raw():
            content += chunk
            if len(content) > _ANSWER_BYTES or time.monotonic() > deadline:
                raise AwayError(f"{self._target.endpoint}: the answer is too long")
        return content


def _wait(text: str) -> float | None:
    """Read Retry-After: seconds or a date (RFC 9110 §10.2.3)."""
    if text.isascii() and text.isdigit():
        return float(text[:9])
    with suppress(ValueError, TypeError, OverflowError):
        when = parsedate_to_datetime(text)
        return max(0.0, ((when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
    return None
