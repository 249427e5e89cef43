"""Real boxes for tests: one client and one started session a module."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox.session.sandbox_session import SandboxSession

from cedarbox.boxlite import BoxLiteSandboxClient, BoxLiteSandboxClientOptions, BoxLiteSandboxSessionState

__all__ = ["client", "content", "home", "leftovers", "options", "session", "state_of"]


def options(layout: Path, **values: Any) -> BoxLiteSandboxClientOptions:
    """Small options for the test image; a boot in the emulated machine takes up to a minute."""
    return BoxLiteSandboxClientOptions(
        **{"rootfs": str(layout), "cpus": 1, "memory_mib": 512, "boot_timeout_s": 240.0, **values}
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The BoxLite home of this module."""
    return tmp_path_factory.mktemp("boxlite")


@pytest.fixture(scope="module")
async def client(home: Path) -> AsyncIterator[BoxLiteSandboxClient]:
    """The client of this module."""
    home.chmod(0o700)
    made = BoxLiteSandboxClient(home=home)
    yield made
    await made.close()


@pytest.fixture(scope="module")
async def session(client: BoxLiteSandboxClient, oci_layout: Path) -> AsyncIterator[SandboxSession]:
    """A started session without a network card."""
    made = await client.create(options=options(oci_layout))
    await made.start()
    yield made
    await client.delete(made)


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
