"""The backends that the command line and the tests of this project run through the checks."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient, UnixLocalSandboxClientOptions
from agents.sandbox.session.sandbox_client import BaseSandboxClient

from cedarbox.boxlite import BoxLiteSandboxClient, BoxLiteSandboxClientOptions
from cedarbox.conformance.backend import Backend
from cedarbox.errors import HostError
from cedarbox.guard import GuardedClient

__all__ = ["BOXLITE_KNOWN", "GUARD_KNOWN", "UNIX_LOCAL_KNOWN", "boxlite", "unix_local"]

UNIX_LOCAL_KNOWN: Mapping[str, str] = {
    "exec.a-missing-program": "a program that cannot be started raises ExecTransportError",
    "exec.a-file-that-is-no-program": "a program that cannot be started raises ExecTransportError",
    "exec.killed-by-a-signal": "the exit code is Python's negative number of the signal",
    "exec.environment-of-the-host": "commands inherit the environment of the host by default",
    "exec.a-child-in-the-background": "a call waits until every holder of its streams has ended",
    "ends.a-limit-ends-what-left-the-session": "a time limit kills the process group only",
    "ends.a-cancelled-call-ends-its-processes": "a cancelled call leaves its processes running",
    "pty.an-interrupt-without-a-handler": "the exit code is Python's negative number of the signal",
    "names.making": "making a directory that exists is no error",
    "names.removing-a-link": "removing a link to a directory recursively removes what the link leads to",
    "escape.a-loop-of-links": "a loop of links raises RuntimeError on Python before 3.13",
}
"""What the SDK's unix-local backend fails (agents 0.24 on Linux), with the reason."""

BOXLITE_KNOWN: Mapping[str, str] = {
    "names.listing-of-a-leading-blank": "the SDK reads the output of ls, and loses blanks before a name (agents 0.24)",
}
"""What the BoxLite backend fails, with the reason."""

GUARD_KNOWN: Mapping[str, str] = {
    "files.a-line-feed-in-a-name": "a policy decides about canonical paths, which have no control characters",
}
"""What a guarded client refuses whatever its policies permit, with the reason."""


def unix_local(client: BaseSandboxClient[Any] | None = None, *, name: str = "unix-local") -> Backend:
    """Describe the SDK's unix-local backend on Linux.

    Args:
        client: A client of it, or a guarded one around it; None for the SDK's own.
        name: How to call it in tables.
    """
    port = _free_port()
    return Backend(
        name=name,
        client=client if client is not None else UnixLocalSandboxClient(),
        options=UnixLocalSandboxClientOptions(exposed_ports=(port,)),
        features=frozenset(("pty", "ports")),
        port=port,
        known={**UNIX_LOCAL_KNOWN, **_of_the_guard(client)},
    )


def boxlite(
    client: BaseSandboxClient[Any] | None = None,
    *,
    image: str | None = None,
    rootfs: Path | None = None,
    user: str | None = None,
    patience: float = 1.0,
    name: str = "boxlite",
) -> Backend:
    """Describe the BoxLite backend, without a network card.

    Args:
        client: A client of it, or a guarded one around it; None for one with the default home.
        image: The image to boot.
        rootfs: A local OCI layout to boot instead.
        user: A user of the image that is not root; None leaves the checks of users out.
        patience: Factor on every time limit.
        name: How to call it in tables.

    Raises:
        ImageError: Neither or both of ``image`` and ``rootfs`` are given.
    """
    options = BoxLiteSandboxClientOptions(
        image=image,
        rootfs=None if rootfs is None else str(rootfs),
        cpus=1,
        memory_mib=512,
        boot_timeout_s=60 * patience,
    )
    return Backend(
        name=name,
        client=client if client is not None else BoxLiteSandboxClient(),
        options=options,
        features=frozenset(("isolation", "reattach")) | (frozenset(("users",)) if user else frozenset()),
        user=user,
        patience=patience,
        known={**BOXLITE_KNOWN, **_of_the_guard(client)},
    )


def _of_the_guard(client: BaseSandboxClient[Any] | None) -> Mapping[str, str]:
    return GUARD_KNOWN if isinstance(client, GuardedClient) else {}


def _free_port() -> int:
    # Not of those that a system gives out by itself: it could be given to another before a check listens on it.
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise HostError("no port from 20000 to 31999 is free", hint="end what listens there")
