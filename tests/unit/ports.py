"""A port of the loopback that stays the test's own while nothing listens on it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["reserved"]


@contextmanager
def reserved() -> Iterator[int]:
    """Keep a port for servers that come and go, as long as the block runs.

    A port that was only looked up can be given to any other program before it is bound. This one is bound all the
    while and nobody listens, so a connection is refused; a server that sets SO_REUSEADDR, as all do, can listen on it.
    """
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield int(kept.getsockname()[1])
