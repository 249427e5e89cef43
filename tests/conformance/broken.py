"""Unix-local clients with one thing broken each, for the kit to find."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

from agents.sandbox.errors import ExecTimeoutError
from agents.sandbox.files import FileEntry
from agents.sandbox.manifest import Manifest
from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
    UnixLocalSandboxSession,
    UnixLocalSandboxSessionState,
)
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec
from agents.sandbox.types import ExecResult, User

__all__ = ["BROKEN", "client_of"]


class _SwallowsExitCodes(UnixLocalSandboxSession):
    async def _exec_internal(self, *command: str | Path, timeout: float | None = None) -> ExecResult:  # noqa: ASYNC109  # the SDK's
        result = await super()._exec_internal(*command, timeout=timeout)
        return ExecResult(stdout=result.stdout, stderr=result.stderr, exit_code=0)


class _MixesTheStreams(UnixLocalSandboxSession):
    async def _exec_internal(self, *command: str | Path, timeout: float | None = None) -> ExecResult:  # noqa: ASYNC109  # the SDK's
        result = await super()._exec_internal(*command, timeout=timeout)
        return ExecResult(stdout=result.stdout + result.stderr, stderr=b"", exit_code=result.exit_code)


class _DecodesOutput(UnixLocalSandboxSession):
    async def _exec_internal(self, *command: str | Path, timeout: float | None = None) -> ExecResult:  # noqa: ASYNC109  # the SDK's
        result = await super()._exec_internal(*command, timeout=timeout)
        text = result.stdout.decode("utf-8", "replace").encode()
        return ExecResult(stdout=text, stderr=result.stderr, exit_code=result.exit_code)


class _LeavesProcesses(UnixLocalSandboxSession):
    async def _exec_internal(self, *command: str | Path, timeout: float | None = None) -> ExecResult:  # noqa: ASYNC109  # the SDK's
        # A cancelled call of this backend leaves its processes running.
        try:
            return await asyncio.wait_for(super()._exec_internal(*command), timeout)
        except TimeoutError as error:
            raise ExecTimeoutError(command=command, timeout_s=timeout, cause=error) from error


class _FollowsLinks(UnixLocalSandboxSession):
    async def read(self, path: Path, *, user: str | User | None = None) -> io.IOBase:
        self.normalize_path(path) if ".." in path.parts else None
        return (Path(self.state.manifest.root) / path).open("rb")


class _WritesAnywhere(UnixLocalSandboxSession):
    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        target = Path(self.state.manifest.root) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.read())


class _ChangesLineEnds(UnixLocalSandboxSession):
    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        await super().write(path, io.BytesIO(data.read().replace(b"\r\n", b"\n")), user=user)


class _OverwritesWhatExists(UnixLocalSandboxSession):
    async def _write_new_file(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        await self.write(path, data, user=user)


class _HidesFiles(UnixLocalSandboxSession):
    async def ls(self, path: Path | str, *, user: str | User | None = None) -> list[FileEntry]:
        entries = await super().ls(path, user=user)
        return [entry for entry in entries if not Path(entry.path).name.startswith(".")]


class _ForgetsTheEnd(UnixLocalSandboxSession):
    async def pty_exec_start(self, *command: str | Path, **options: Any) -> PtyExecUpdate:
        update = await super().pty_exec_start(*command, **options)
        return PtyExecUpdate(
            process_id=update.process_id or 4711,
            output=update.output,
            exit_code=update.exit_code,
            original_token_count=update.original_token_count,
        )


class _LosesTheWorkspace(UnixLocalSandboxSession):
    async def hydrate_workspace(self, data: io.IOBase) -> None:
        data.read()


BROKEN: dict[str, tuple[type[UnixLocalSandboxSession], frozenset[str]]] = {
    "swallows exit codes": (
        _SwallowsExitCodes,
        frozenset(("exec.exit-codes", "exec.exit-code-without-a-shell", "exec.a-missing-program-in-a-shell")),
    ),
    "mixes the streams": (_MixesTheStreams, frozenset(("exec.two-streams", "exec.every-byte-of-error"))),
    "decodes output": (_DecodesOutput, frozenset(("exec.every-byte-of-output",))),
    "leaves processes": (_LeavesProcesses, frozenset(("ends.a-limit-ends-children",))),
    "follows links": (
        _FollowsLinks,
        frozenset(("escape.reading-through-a-link", "escape.reading-below-a-link", "escape.reading-elsewhere")),
    ),
    "writes anywhere": (
        _WritesAnywhere,
        frozenset(("escape.writing-upwards", "escape.writing-through-a-link", "escape.new-parents-below-a-link")),
    ),
    "changes line ends": (_ChangesLineEnds, frozenset(("files.no-line-end-is-changed",))),
    "overwrites what exists": (_OverwritesWhatExists, frozenset(("patch.creating-what-exists",))),
    "hides files": (_HidesFiles, frozenset(("names.listing",))),
    "forgets the end": (_ForgetsTheEnd, frozenset(("pty.a-short-command",))),
    "loses the workspace": (_LosesTheWorkspace, frozenset(("life.resumed-after-deletion",))),
}
"""What is broken: the session class, and the checks that must fail."""


class _Client(UnixLocalSandboxClient):
    session_class: type[UnixLocalSandboxSession] = UnixLocalSandboxSession

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: UnixLocalSandboxClientOptions | None = None,
    ) -> SandboxSession:
        return self._broken((await super().create(snapshot=snapshot, manifest=manifest, options=options)).state)

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        return self._broken((await super().resume(state)).state)

    def _broken(self, state: SandboxSessionState) -> SandboxSession:
        assert isinstance(state, UnixLocalSandboxSessionState)
        return self._wrap_session(self.session_class.from_state(state), instrumentation=self._instrumentation)


def client_of(session_class: type[UnixLocalSandboxSession]) -> UnixLocalSandboxClient:
    """A client whose sessions are of this class."""
    client = _Client()
    client.session_class = session_class
    return client
