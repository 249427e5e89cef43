"""What a check works with: the shared session, a directory of its own, and short ways to say common things."""

from __future__ import annotations

import asyncio
import io
import os
import secrets
import shlex
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from agents.sandbox.entries import Dir, File, LocalDir, LocalFile
from agents.sandbox.manifest import Environment, Manifest
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import ExecResult, Permissions
from agents.sandbox.workspace_paths import SandboxPathGrant

from cedarbox.conformance.backend import Backend
from cedarbox.conformance.check import Failure, equal, shown

__all__ = [
    "ENVIRONMENT",
    "EVERY",
    "Bench",
    "content",
    "deliver",
    "shared_manifest",
]

EVERY = bytes(range(256))
"""Every byte once."""

ENVIRONMENT = {
    "CONFORMANCE_PLAIN": "plain",
    "CONFORMANCE_EMPTY": "",
    "CONFORMANCE_ODD": "a b'c\"d$e`f\\g=h*\ni",
    "CONFORMANCE_WIDE": "aä€😀",
}
"""The manifest environment of the shared session."""

_POLLS = 12
_POLL_SECONDS = 0.5


def shared_manifest(sources: Path, *, root: str = "/workspace") -> Manifest:
    """Make the manifest of the shared session.

    Args:
        sources: An empty directory of the host; the files that the manifest copies are made there.
        root: The workspace.
    """
    (sources / "tree" / "deep").mkdir(parents=True)
    (sources / "file.bin").write_bytes(EVERY)
    (sources / "tree" / "one.txt").write_bytes(b"one\n")
    (sources / "tree" / "deep" / "two.txt").write_bytes(b"two\n")
    given = Dir(
        children={
            "every.bin": File(content=EVERY),
            "empty": File(content=b""),
            "run.sh": File(content=b"#!/bin/sh\necho ran\n", permissions=Permissions.from_mode(0o750)),
            "private": File(content=b"private", permissions=Permissions.from_mode(0o600)),
            "passing.txt": File(content=b"passing", ephemeral=True),
            "a b/ü 😀.txt": File(content=b"named"),
        }
    )
    return Manifest(
        root=root,
        entries={
            "given": given,
            "copied.bin": LocalFile(src=sources / "file.bin"),
            "copied": LocalDir(src=sources / "tree"),
        },
        environment=Environment(value={**ENVIRONMENT}),
        # The SDK copies from the host only below the working directory and below grants (agents 0.24).
        extra_path_grants=(SandboxPathGrant(path=str(sources), read_only=True),),
    )


@dataclass(frozen=True)
class Bench:
    """What the checks of one run share, as one check sees it.

    Attributes:
        backend: What the caller said.
        session: The shared session, started.
        outside: A directory of the sandbox that is not in the workspace, with ``secret.txt`` and ``inner/``.
        nonce: Differs in every run.
        host_variable: A variable of this process while the checks run, which no sandbox should see.
        place: The directory of this check, relative to the workspace. It exists.
        ran_before_start: What ``running()`` said before the shared session was started; None when it came started.
    """

    backend: Backend
    session: SandboxSession
    outside: str
    nonce: str
    host_variable: str
    place: str = "conformance"
    ran_before_start: bool | None = None

    @classmethod
    def around(
        cls, backend: Backend, session: SandboxSession, *, ran_before_start: bool | None, host_variable: str
    ) -> Bench:
        """Make the bench of a run."""
        nonce = secrets.token_hex(6)
        outside = f"/tmp/conformance-{nonce}"  # noqa: S108  # in the sandbox
        return cls(backend, session, outside, nonce, host_variable, ran_before_start=ran_before_start)

    @property
    def root(self) -> str:
        """The workspace, as an absolute path of the sandbox."""
        return str(self.session.state.manifest.root)

    def at(self, name: str) -> Bench:
        """Return the same bench with the directory of this name."""
        return replace(self, place=f"conformance/{name}")

    def over(self, session: SandboxSession) -> Bench:
        """Return the same bench with another session."""
        return replace(self, session=session)

    def path(self, name: str = "") -> Path:
        """Return a path in the directory of this check, relative to the workspace."""
        return Path(self.place) / name if name else Path(self.place)

    def upwards(self, name: str) -> str:
        """Return a path outside the workspace that climbs there from its root."""
        return os.path.relpath(f"{self.outside}/{name}", self.root)

    def marker(self) -> str:
        """Return a number of seconds that no other process sleeps: a process is known by it."""
        return str(30_000 + secrets.randbelow(60_000))

    async def prepare(self, names: list[str]) -> None:
        """Make the directories of all checks, what lies outside, and links that lead there.

        Raises:
            Failure: The sandbox did not do it.
        """
        out = shlex.quote(self.outside)
        lines = [
            "set -e; umask 022; cd conformance 2>/dev/null || { mkdir conformance && cd conformance; }",
            f"mkdir -p {' '.join(shlex.quote(name) for name in names)}",
            f"mkdir -p {out}/inner; printf outside >{out}/secret.txt; printf inner >{out}/inner/secret.txt",
            "mkdir -p links/inside; printf inside >links/inside/file.txt; cd links",
            f"ln -s {out}/secret.txt to-file; ln -s {out} to-directory; ln -s {out}/new.txt to-nothing",
            f"ln -s {shlex.quote(self.upwards_from_links())} climbing; ln -s to-directory second; ln -s second first",
            "ln -s inside/file.txt to-inside; ln -s inside to-inner-directory; ln -s loop loop",
        ]
        await self.ok("\n".join(lines))

    def upwards_from_links(self) -> str:
        """Return the way from the directory of links to what lies outside, as a relative link."""
        return os.path.relpath(self.outside, f"{self.root}/conformance/links")

    async def clean(self) -> None:
        """Remove what :meth:`prepare` made."""
        await self.ok(f"chmod -R u+rwX conformance; rm -rf conformance {shlex.quote(self.outside)}")

    async def exec(self, script: str, *, user: str | None = None, timeout_s: float | None = None) -> ExecResult:
        """Run a shell script in the sandbox."""
        return await self.session.exec(script, user=user, timeout=timeout_s)

    async def ok(self, script: str, *, user: str | None = None) -> bytes:
        """Run a shell script that must succeed, and return what it printed."""
        # A login shell, as exec() has by default, reads the profile first: twice the time in an emulated machine.
        result = await self.session.exec("sh", "-c", script, shell=False, user=user)
        if result.exit_code != 0:
            said = result.stderr or result.stdout
            raise Failure(f"a script of the check ended with exit code {result.exit_code}: {shown(said)}")
        return result.stdout

    async def put(self, name: str, data: bytes, *, user: str | None = None) -> None:
        """Write a file in the directory of this check."""
        await self.session.write(self.path(name), io.BytesIO(data), user=user)

    async def get(self, name: str, *, user: str | None = None) -> bytes:
        """Read a file in the directory of this check."""
        return await content(self.session, self.path(name), user=user)

    async def see(self, name: str) -> bytes:
        """Read a file in the directory of this check by a command, past the session's own reading."""
        return await self.ok(f"cat ./{shlex.quote(str(self.path(name)))}")

    async def alive(self, marker: str) -> int:
        """Return how many processes of the sandbox sleep for ``marker`` seconds."""
        listing = await self.ok("cat /proc/[0-9]*/cmdline 2>/dev/null; true")
        return listing.split(b"\0").count(marker.encode())

    async def ended(self, marker: str) -> None:
        """Fail unless the processes that sleep for ``marker`` seconds end within some seconds; kill them then."""
        for _ in range(_POLLS):
            if not (left := await self.alive(marker)):
                return
            await asyncio.sleep(_POLL_SECONDS)
        await self.kill(marker)
        raise Failure(f"{left} of its processes still run")

    async def kill(self, marker: str) -> None:
        """Kill the processes of the sandbox that sleep for ``marker`` seconds."""
        await self.ok(
            f"for p in /proc/[0-9]*; do grep -qsz '^{marker}$' $p/cmdline && kill -9 ${{p#/proc/}}; done; true"
        )

    async def untouched(self) -> None:
        """Fail unless what lies outside the workspace is as it was."""
        out = shlex.quote(self.outside)
        seen = await self.ok(f"cd {out} && cat secret.txt inner/secret.txt && find . | sort")
        equal(
            seen.decode("utf-8", "replace"),
            "outsideinner.\n./inner\n./inner/secret.txt\n./secret.txt\n",
            "what lies outside the workspace",
        )


async def content(session: SandboxSession, path: Path | str, *, user: str | None = None) -> bytes:
    """Read a whole file of a session.

    Raises:
        Failure: The stream gave something else than bytes.
    """
    with await session.read(Path(path), user=user) as stream:
        data = stream.read()
    if not isinstance(data, bytes):
        raise Failure(f"reading gave {type(data).__name__}, not bytes")
    return data


async def deliver(session: SandboxSession, path: PurePosixPath | str, data: bytes) -> None:
    """Write a whole file of a session."""
    await session.write(Path(path), io.BytesIO(data))
