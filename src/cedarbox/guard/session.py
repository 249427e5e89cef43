"""A sandbox session in which every operation passes the gate.

A denial is a *result* where the SDK would otherwise end the run (``exec`` and terminals: exit code 126 and a short
reason), and :class:`PolicyDenied` elsewhere. Stopping and shutting down are recorded and never denied: a sandbox that
may not stop would be worse than one that may.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path, PurePath
from typing import Any, Literal, Self

from agents.sandbox.files import FileEntry
from agents.sandbox.materialization import MaterializationResult
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import ExecResult, ExposedPortEndpoint, User

from cedarbox.errors import CanonicalizationError, PolicyDenied
from cedarbox.guard.answers import DENIED_EXIT_CODE, denied_update, described
from cedarbox.guard.backend import KeepsSnapshots, WritesBack, real_path_in_guest, real_path_on_host
from cedarbox.guard.facts import mounting
from cedarbox.guard.gate import Gate, Impossible, Operation, Question
from cedarbox.guard.identity import applying_decided_manifest, is_decided
from cedarbox.guard.manifest import questions
from cedarbox.guard.stores import store_of
from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import canonical_path
from cedarbox.policy.entities import Base
from cedarbox.telemetry.redaction import redact

__all__ = ["GuardedSession"]


class GuardedSession(SandboxSession):
    """The SDK's session wrapper with a gate in front of every operation.

    It shares the provider's inner session, so there is one layer of SDK instrumentation, and it must not define
    ``state``: the SDK tells wrappers and backends apart by that (agents 0.24, ``_mount_security``).
    """

    _provider: SandboxSession
    _gate: Gate
    _isolated: bool
    _snapshots: Sequence[Literal["tar", "native"]]

    @classmethod
    def wrap(
        cls,
        provider: SandboxSession,
        gate: Gate,
        *,
        isolated: bool,
        snapshots: Sequence[Literal["tar", "native"]] = ("tar",),
    ) -> Self:
        """Guard a session that a client has made.

        Args:
            provider: What the client's ``create`` or ``resume`` returned.
            gate: The gate of the guarded client.
            isolated: The sandbox has a file system of its own.
            snapshots: The forms in which the backend may save the workspace.
        """
        # SandboxSession.__init__ would bind the sinks and dependencies of the inner session a second time.
        self = cls.__new__(cls)
        self._inner = provider._inner
        self._instrumentation = provider._instrumentation
        self._seq = 0
        self._provider, self._gate, self._isolated, self._snapshots = provider, gate, isolated, snapshots
        if isinstance(self._inner, WritesBack):
            self._inner.permission = self._writing_back
        return self

    @property
    def gate(self) -> Gate:
        """The gate in front of this session."""
        return self._gate

    @property
    def session_id(self) -> str:
        """Id of the session, as records and spans show it."""
        return str(self.state.session_id)

    async def start(self) -> None:
        """Start the sandbox; recorded, never denied: what it does was decided when it was created."""
        async with self._gate.noted("sandbox start", session=self.session_id) as operation:
            await super().start()
            # Known only now for an image that nothing pinned: it was pulled by the start.
            if (digest := getattr(self.state, "image_digest", None)) is not None:
                operation.facts["image_digest"] = digest
        if (facts := self._snapshot_facts("restored")) is not None:
            await self._note_snapshot("snapshot restore", "snapshot.restored", facts)

    async def stop(self) -> None:
        """Persist the workspace; recorded, never denied."""
        async with self._gate.noted("sandbox stop", session=self.session_id) as operation:
            if self.state.snapshot.type != "noop":
                operation.set("snapshot.type", self.state.snapshot.type)
                operation.set("snapshot.id", self.state.snapshot.id)
            await super().stop()
        if self.state.snapshot.type != "noop":
            await self._note_snapshot("snapshot create", "snapshot.created", self._snapshot_facts("taken") or {})

    async def shutdown(self) -> None:
        """Tear the sandbox down; recorded, never denied."""
        async with self._gate.noted("sandbox shutdown", session=self.session_id):
            await super().shutdown()

    async def _aclose_impl(self) -> None:
        if type(self._provider) is SandboxSession:
            await super()._aclose_impl()
            return
        # Some providers put their own clean-up on their wrapper.
        await self.run_pre_stop_hooks()
        await self._provider._aclose_impl()

    async def exec(
        self,
        *command: str | Path,
        timeout: float | None = None,  # noqa: ASYNC109  # the SDK's signature
        shell: bool | list[str] = True,
        user: str | User | None = None,
    ) -> ExecResult:
        """Run a command, or answer exit code 126 and the reason when it is denied."""
        if is_decided():
            return await super().exec(*command, timeout=timeout, shell=shell, user=user)
        try:
            async with self._command("exec", command, shell, user) as operation:
                result = await super().exec(*command, timeout=timeout, shell=shell, user=user)
                operation.set("exit_code", result.exit_code)
                operation.set("stdout_bytes", len(result.stdout))
                operation.set("stderr_bytes", len(result.stderr))
                return result
        except PolicyDenied as denial:
            return ExecResult(stdout=b"", stderr=f"{denial}\n".encode(), exit_code=DENIED_EXIT_CODE)

    async def pty_exec_start(
        self,
        *command: str | Path,
        timeout: float | None = None,  # noqa: ASYNC109  # the SDK's signature
        shell: bool | list[str] = True,
        user: str | User | None = None,
        tty: bool = False,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Start a command, on a terminal when ``tty``; exit code 126 and the reason when it is denied."""
        try:
            async with self._command("terminal open" if tty else "exec", command, shell, user, tty=tty) as operation:
                update = await super().pty_exec_start(
                    *command,
                    timeout=timeout,
                    shell=shell,
                    user=user,
                    tty=tty,
                    yield_time_s=yield_time_s,
                    max_output_tokens=max_output_tokens,
                )
                described(update, operation)
                return update
        except PolicyDenied as denial:
            return denied_update(denial, None)

    async def pty_write_stdin(
        self,
        *,
        session_id: int,
        chars: str,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Type into a process, or poll it when ``chars`` is empty; polling is not a privilege of its own."""

        async def forward() -> PtyExecUpdate:
            return await super(GuardedSession, self).pty_write_stdin(
                session_id=session_id, chars=chars, yield_time_s=yield_time_s, max_output_tokens=max_output_tokens
            )

        if not chars:
            update = await forward()
            if update.process_id is None:
                # The call that started it could not tell how it ended.
                async with self._gate.noted("command end", session=self.session_id) as operation:
                    operation.set("process", session_id)
                    described(update, operation)
            return update
        try:
            async with self._operation("terminal write", actions.write_terminal, session=self.session_id) as operation:
                operation.set("stdin_bytes", len(chars.encode("utf-8", "surrogateescape")))
                update = await forward()
                described(update, operation)
                return update
        except PolicyDenied as denial:
            return denied_update(denial, session_id)

    async def _read(
        self,
        path: Path,
        *,
        user: str | User | None = None,
        expected_span_errors: tuple[type[BaseException], ...] = (),
    ) -> io.IOBase:
        async with self._file("read", path, user):
            return await super()._read(self._decided(path), user=user, expected_span_errors=expected_span_errors)

    async def read_bounded(self, path: Path, *, max_bytes: int) -> bytes:
        """Read at most ``max_bytes`` of a file."""
        async with self._file("read", path) as operation:
            data = await super().read_bounded(self._decided(path), max_bytes=max_bytes)
            operation.set("bytes", len(data))
            return data

    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        """Write a file."""
        if is_decided():
            return await super().write(path, data, user=user)
        async with self._file("write", path, user):
            return await super().write(self._decided(path), data, user=user)

    async def _write_new_file(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        async with self._file("create", path, user):
            await super()._write_new_file(self._decided(path), data, user=user)

    async def ls(self, path: Path | str, *, user: str | User | None = None) -> list[FileEntry]:
        """List a directory."""
        async with self._file("list", path, user) as operation:
            entries = await super().ls(self._decided(path), user=user)
            operation.set("entries", len(entries))
            return entries

    async def rm(self, path: Path | str, *, recursive: bool = False, user: str | User | None = None) -> None:
        """Remove a file or a tree."""
        async with self._file("remove", path, user) as operation:
            operation.set("recursive", recursive)
            await super().rm(self._decided(path), recursive=recursive, user=user)

    async def mv(self, source: Path | str, destination: Path | str, *, user: str | User | None = None) -> None:
        """Move a file; both ends are decided."""
        await self._ask_behind_links("move", source, user)
        await self._gate.ask(self._touch("move", source, user), session=self.session_id)
        async with self._file("move", destination, user):
            await super().mv(self._decided(source), self._decided(destination), user=user)

    async def mkdir(self, path: Path | str, *, parents: bool = False, user: str | User | None = None) -> None:
        """Make a directory."""
        if is_decided():
            return await super().mkdir(path, parents=parents, user=user)
        async with self._file("make_directory", path, user):
            return await super().mkdir(self._decided(path), parents=parents, user=user)

    async def same_file(
        self, left: Path | str, right: Path | str, *, follow_symlinks: bool = True, user: str | User | None = None
    ) -> bool:
        """Tell whether two paths are one file; both are decided."""
        await self._ask_behind_links("compare", left, user)
        await self._gate.ask(self._touch("compare", left, user), session=self.session_id)
        async with self._file("compare", right, user):
            return await super().same_file(
                self._decided(left), self._decided(right), follow_symlinks=follow_symlinks, user=user
            )

    async def resolve_exposed_port(self, port: int) -> ExposedPortEndpoint:
        """Say where a published port of the guest is reached."""
        async with self._operation("port expose", actions.expose_port, port=port, public=False):
            return await super().resolve_exposed_port(port)

    async def persist_workspace(self) -> io.IOBase:
        """Hand the workspace out as an archive."""
        *others, kind = self._snapshots
        for other in others:
            question = self._question("snapshot create", actions.snapshot, session=self.session_id, **self._how(other))
            await self._gate.ask(question, session=self.session_id)
        async with self._operation("snapshot create", actions.snapshot, session=self.session_id, **self._how(kind)):
            return await super().persist_workspace()

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        """Fill the workspace from an archive."""
        *others, kind = self._snapshots
        saved = self.state.snapshot.id
        for other in others:
            question = self._question("snapshot restore", actions.restore, snapshot_id=saved, **self._how(other))
            await self._gate.ask(question, session=self.session_id)
        async with self._operation("snapshot restore", actions.restore, snapshot_id=saved, **self._how(kind)):
            await super().hydrate_workspace(data)

    async def _apply_manifest(
        self, *, only_ephemeral: bool = False, provision_accounts: bool = True
    ) -> MaterializationResult:
        asked = questions(self.state.manifest, isolated=self._isolated)
        await self._gate.ask_all(asked, session=self.session_id)
        with applying_decided_manifest():
            return await super()._apply_manifest(only_ephemeral=only_ephemeral, provision_accounts=provision_accounts)

    def supports_docker_volume_mounts(self) -> bool:
        """Whether the backend takes Docker volumes; the SDK's own wrapper does not pass this on."""
        return self._inner.supports_docker_volume_mounts()

    def should_provision_manifest_accounts_on_resume(self) -> bool:
        """Whether resuming makes the manifest's accounts again; the SDK's own wrapper does not pass this on."""
        return self._inner.should_provision_manifest_accounts_on_resume()

    def _how(self, kind: Literal["tar", "native"]) -> dict[str, str]:
        return {"kind": kind, "store": store_of(self.state.snapshot, kind)}

    def _operation(
        self, verb: str, build: Callable[..., Action], **arguments: Any
    ) -> AbstractAsyncContextManager[Operation]:
        return self._gate.operation(self._question(verb, build, **arguments), session=self.session_id)

    def _question(self, verb: str, build: Callable[..., Action], **arguments: Any) -> Question:
        return Question(verb, lambda base: build(base, **arguments), str(arguments))

    def _writing_back(self, real: str, guest: str) -> AbstractAsyncContextManager[Operation]:
        # It was decided when the sandbox was made; the policies may have changed since.
        question = Question("mount write back", mounting(real, real, guest, writable=True), real)
        return self._gate.operation(question, session=self.session_id)

    def _snapshot_facts(self, when: Literal["taken", "restored"]) -> Mapping[str, str | int] | None:
        return self._inner.snapshot_facts(when) if isinstance(self._inner, KeepsSnapshots) else None

    async def _note_snapshot(self, verb: str, event: str, facts: Mapping[str, str | int]) -> None:
        async with self._gate.noted(verb, session=self.session_id, event=event) as operation:
            operation.set("snapshot.type", self.state.snapshot.type)
            operation.set("snapshot.id", self.state.snapshot.id)
            for name, value in facts.items():
                operation.set(f"snapshot.{name}", value)

    def _command(
        self,
        verb: str,
        command: tuple[str | Path, ...],
        shell: bool | list[str],
        user: str | User | None,
        *,
        tty: bool = False,
    ) -> AbstractAsyncContextManager[Operation]:
        words = [str(word) for word in command]
        summary = redact(" ".join(words))

        def name(base: Base) -> Action:
            return actions.execute(
                base, command=words, shell=bool(shell), user=_user(user), summary=summary, terminal=tty
            )

        return self._gate.operation(Question(verb, name, summary), session=self.session_id)

    @asynccontextmanager
    async def _file(self, operation: str, path: Path | str, user: str | User | None = None) -> AsyncIterator[Operation]:
        await self._ask_behind_links(operation, path, user)
        async with self._gate.operation(self._touch(operation, path, user), session=self.session_id) as allowed:
            yield allowed

    async def _ask_behind_links(self, operation: str, path: Path | str, user: str | User | None) -> None:
        # A link inside the workspace must not lend its name to what it points to, so both names are decided.
        absolute = self._absolute(path)
        try:
            plain = canonical_path(absolute)
        except CanonicalizationError:
            return  # The operation itself is about to be denied for it.
        # Removing or moving a link leaves its target alone; only the directory it is in is followed.
        parent, leaf = posixpath.split(plain) if operation in {"remove", "move"} else (plain, "")
        real = posixpath.join(await self._real_path(parent), leaf) if leaf else await self._real_path(parent)
        # The SDK's unix-local backend resolves what it removes, so there the target goes, not the link.
        target = await self._real_path(plain) if operation == "remove" and not self._isolated else real
        for other in dict.fromkeys((real, target)):
            if other != plain:
                await self._gate.ask(self._touch(operation, other, user), session=self.session_id)

    async def _real_path(self, path: str) -> str:
        real = await real_path_in_guest(self._inner, path) if self._isolated else real_path_on_host(path)
        try:
            return canonical_path(real)
        except CanonicalizationError:
            untold = Impossible("file resolve", path, "where this path leads cannot be told")
            raise await self._gate.refuse(untold, session=self.session_id) from None

    def _touch(self, operation: str, path: Path | str, user: str | User | None) -> Question:
        absolute = self._absolute(path)

        def name(base: Base) -> Action:
            return actions.touch_file(base, path=absolute, operation=operation, user=_user(user))

        return Question(f"file {operation}", name, absolute)

    def _decided(self, path: Path | str) -> Path:
        # What was decided on is used, not another reading of it: behind a link, `..` leads elsewhere than it seems to.
        absolute = self._absolute(path)
        plain = canonical_path(absolute)
        return Path(path) if plain == absolute else Path(plain)

    def _absolute(self, path: Path | str) -> str:
        text = path.as_posix() if isinstance(path, PurePath) else path
        return posixpath.join(self.state.manifest.root, text)


def _user(user: str | User | None) -> str | None:
    return user.name if isinstance(user, User) else user
