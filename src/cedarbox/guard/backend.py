"""What the guard asks of the session behind it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal, Protocol, runtime_checkable

from agents.sandbox.session.base_sandbox_session import BaseSandboxSession

from cedarbox.errors import CanonicalizationError
from cedarbox.hostpaths import real_path

__all__ = ["KeepsSnapshots", "WritesBack", "real_path_in_guest", "real_path_on_host"]

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
class WritesBack(Protocol):
    """A backend's session that writes to directories of the host when it stops, and asks before it does."""

    permission: Callable[[str, str], AbstractAsyncContextManager[object]] | None


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
