"""What the guard asks of the session behind it."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Final, Literal, Protocol, runtime_checkable

from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxSession
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession

from cedarbox.egress import ByteStream
from cedarbox.errors import CanonicalizationError, CedarboxError
from cedarbox.hostpaths import real_path
from cedarbox.policy.canonical import canonical_path

__all__ = [
    "CarriesEgress",
    "EndsAtOnce",
    "EndsProcesses",
    "KeepsSnapshots",
    "Pin",
    "TellsOfRelays",
    "WritesBack",
    "pin_paths",
    "real_path_in_guest",
    "real_path_on_host",
    "within_paths",
]

# The nearest part of an absolute path that exists, its links followed, and the rest as it stands. BusyBox has no
# `readlink -m`. The dot keeps a line feed at the end of a name from being cut off with the command's own.
_REAL_PATH: Final = (
    'rest=; while [ "$p" != / ] && [ ! -e "$p" ] && [ ! -L "$p" ]; do rest=/${p##*/}$rest; p=${p%/*}; p=${p:-/}; done; '
    'real=$(readlink -f -- "$p" && echo .) || exit 1; real=${real%??}; real=${real%/}$rest; printf "%s\\n" "${real:-/}"'
)


@runtime_checkable
class KeepsSnapshots(Protocol):
    """A backend's session that can tell about the native snapshots it takes and restores."""

    def snapshot_facts(self, when: Literal["taken", "restored"]) -> Mapping[str, str | int] | None:
        """Return what a record should tell of the last one; ``None`` when there was none."""


@runtime_checkable
class EndsAtOnce(Protocol):
    """A backend's session that can end its sandbox without asking it to."""

    async def end_now(self) -> None:
        """End the sandbox with all that runs in it and all its connections; do nothing when it has ended."""


@runtime_checkable
class EndsProcesses(Protocol):
    """A backend's session that can end one of the processes that callers hold by number."""

    async def end_process(self, process_id: int) -> None:
        """Kill a process and its descendants; do nothing when there is no such process."""


@runtime_checkable
class WritesBack(Protocol):
    """A backend's session that writes to directories of the host when it stops, and asks before it does."""

    permission: Callable[[str, str], AbstractAsyncContextManager[object]] | None


@runtime_checkable
class CarriesEgress(Protocol):
    """A backend's session whose guest has no network, and hands its connections over.

    Attributes:
        serve: Carries one connection until it is over, in a task of its own, which may be cancelled. While it is None,
            nobody carries any, and the session closes each one that comes.
    """

    serve: Callable[[ByteStream], Awaitable[None]] | None


@runtime_checkable
class TellsOfRelays(Protocol):
    """A backend's session that tells when what hands the connections over does not keep to its protocol."""

    misbehaved: Callable[[str], Awaitable[None]] | None


async def real_path_in_guest(session: BaseSandboxSession, path: str) -> str:
    """Ask the guest where a path leads; the end of the path need not exist.

    Args:
        session: The backend's session.
        path: An absolute, normal path.

    Returns:
        The path with its links followed, as the guest says; empty when it cannot tell.
    """
    result = await session.exec("sh", "-c", f"p={shlex.quote(path)} {_REAL_PATH}", shell=False)
    return result.stdout.decode("utf-8", "surrogateescape").removesuffix("\n") if result.exit_code == 0 else ""


def real_path_on_host(path: str) -> str:
    """Return where a path of this host leads; the end of the path need not exist.

    Returns:
        The path with its links followed, spelled as the directory entries are; empty when it cannot be told.
    """
    try:
        return real_path(path)
    except (CanonicalizationError, OSError):
        return ""


@dataclass(slots=True)
class Pin:
    """The paths that one operation may touch.

    Attributes:
        allowed: Canonical real paths that were decided.
        elsewhere: Another path that the backend was about to touch; empty when there was none.
    """

    allowed: frozenset[str]
    elsewhere: str = ""


class _LedElsewhereError(Exception):
    """A path was about to be used that was not decided."""


_PIN: ContextVar[Pin | None] = ContextVar("cedarbox_pin", default=None)
# The two places in which unix-local follows links. What they return it opens part by part and follows no link in it,
# so a check of what they return cannot be raced (agents 0.24, ``_unix_local_file_ops``).
_RESOLVERS: Final = ("normalize_path", "_normalize_entry_path")


def pin_paths(session: BaseSandboxSession) -> bool:
    """Have a backend without a file system of its own touch only paths that were decided, see :func:`within_paths`.

    Args:
        session: The backend's session.

    Returns:
        False when this backend cannot be held to it: then no path through a link may be used.

    Raises:
        CedarboxError: The SDK's unix-local session has changed.
    """
    if not isinstance(session, UnixLocalSandboxSession):
        return False
    for name in _RESOLVERS:
        if not callable(getattr(type(session), name, None)):
            hint = "install openai-agents >=0.24,<0.25, the version this release was checked against"
            raise CedarboxError(f"the SDK's unix-local session has changed (gone: {name})", hint=hint)
        setattr(session, name, _held(getattr(session, name)))
    return True


@contextmanager
def within_paths(allowed: frozenset[str]) -> Iterator[Pin]:
    """Hold every path that a pinned backend resolves in the block to these; its own affairs are outside of any."""
    pin = Pin(allowed)
    token = _PIN.set(pin)
    try:
        yield pin
    finally:
        _PIN.reset(token)


def _held(resolve: Callable[..., Path]) -> Callable[..., Path]:
    @wraps(resolve)
    def held(*arguments: Any, **options: Any) -> Path:
        path = resolve(*arguments, **options)
        pin = _PIN.get()
        if pin is not None and _canonical(path) not in pin.allowed:
            pin.elsewhere = str(path)
            raise _LedElsewhereError(str(path))
        return path

    return held


def _canonical(path: Path) -> str:
    try:
        return canonical_path(str(path))
    except CanonicalizationError:
        return ""
