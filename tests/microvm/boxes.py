"""What tests of real boxes share."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from agents.sandbox.session.sandbox_session import SandboxSession

from cedarbox.boxlite import BoxLiteSandboxClientOptions, BoxLiteSandboxSessionState

__all__ = ["content", "leftovers", "options", "state_of", "stream"]

client = home = session = None


def options(layout: Path, **values: Any) -> BoxLiteSandboxClientOptions:
    """Small options for the test image; a boot in the emulated machine takes up to a minute."""
    return BoxLiteSandboxClientOptions(
        **{"rootfs": str(layout), "cpus": 1, "memory_mib": 256, "boot_timeout_s": 240.0, **values}
    )


async def content(session: SandboxSession, path: str, *, user: str | None = None) -> bytes:
    """Read a whole file of the guest."""
    with await session.read(Path(path), user=user) as stream:
        data = stream.read()
    assert isinstance(data, bytes)
    return data


def state_of(session: SandboxSession) -> BoxLiteSandboxSessionState:
    """The state of a session, with its type."""
    state = session.state
    assert isinstance(state, BoxLiteSandboxSessionState)
    return state


def leftovers(home: Path) -> list[str]:
    """What is left of boxes: their directories, and processes of theirs by their command lines."""
    left = [str(path) for path in (home / "boxes").glob("*")]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"boxlite-shim" in line and str(home).encode() in line:
            left.append(line.decode(errors="replace"))
    return left


def stream(data: bytes) -> io.BytesIO:
    """A payload."""
    return io.BytesIO(data)
