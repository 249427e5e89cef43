"""What the caller says about the backend under test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.sandbox.manifest import Manifest
from agents.sandbox.session.sandbox_client import BaseSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession

__all__ = ["FEATURES", "Backend"]

FEATURES: Mapping[str, str] = {
    "pty": "the session has terminals (asked of the session too)",
    "isolation": "commands run apart from the host: its files, processes and environment are out of reach",
    "users": "commands and files can be of a user other than the default; the backend names one",
    "ports": "a port of the sandbox can be reached; the backend names a declared one",
    "reattach": "a session that was shut down and not deleted is taken up again with all of its disk",
}
"""The features that checks may need, and what each means."""


@dataclass(frozen=True)
class Backend:
    """A client, how to make its sessions, and what it promises.

    Attributes:
        name: Shown in tables.
        client: The client under test.
        options: What its ``create`` takes.
        features: What it promises, out of :data:`FEATURES`. A promise that is not kept fails its checks.
        root: The workspace of its sessions; the SDK's default lets unix-local choose a directory of its own.
        user: A user that its sandboxes have, other than the default one; needed for the feature ``users``.
        port: A port that its options declare; needed for the feature ``ports``.
        patience: Factor on every time limit, and on how long terminals are waited for; above 1 for emulated machines.
        known: Names of checks that are known to fail, with the reason. One of them that passes counts as a failure.
        session: A started session of the client to use for the checks that share one, made with
            :func:`~cedarbox.conformance.bench.shared_manifest`; the caller closes it. Default: the kit makes its own.
        manifest: The manifest that ``session`` was made with.
    """

    name: str
    client: BaseSandboxClient[Any]
    options: Any = None
    features: frozenset[str] = frozenset()
    root: str = "/workspace"
    user: str | None = None
    port: int | None = None
    patience: float = 1.0
    known: Mapping[str, str] = field(default_factory=dict)
    session: SandboxSession | None = None
    manifest: Manifest | None = None
