"""A sandbox session in which every operation passes the gate.

A denial is a *result* where the SDK would otherwise end the run (``exec`` and terminals: exit code 126 and a short
reason), and :class:`PolicyDenied` elsewhere. Stopping and shutting down are recorded and never denied: a sandbox that
may not stop would be worse than one that may.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents.sandbox.entries import BaseEntry
from agents.sandbox.manifest import Manifest
from agents.sandbox.materialization import MaterializationResult, MaterializedFile
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import ExecResult, ExposedPortEndpoint, User

from cedarbox.errors import CanonicalizationError, PolicyDenied
from cedarbox.guard.admission import name_of
from cedarbox.guard.answers import DENIED_EXIT_CODE, denied_update, described, ended
from cedarbox.guard.backend import EndsProcesses
from cedarbox.guard.capture import capture_text
from cedarbox.guard.coverage import GATED
from cedarbox.guard.gate import Operation
from cedarbox.guard.identity import applying_decided_manifest, is_decided
from cedarbox.guard.keeping import KeepingSession
from cedarbox.guard.manifest import account_questions, entry_questions, questions
from cedarbox.guard.question import Question
from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.entities import Base
from cedarbox.telemetry import attributes
from cedarbox.telemetry.redaction import redact

__all__ = ["GuardedSession", "is_genuine_session"]

_EXECUTOR = "BOXLITE_EXECUTOR"
"""An environment key by which BoxLite 0.10.8 runs a command outside of the container, as root of the microVM."""


class GuardedSession(KeepingSession):
    """The SDK's session wrapper with a gate in front of every operation.

    A run takes exactly this class: see :func:`is_genuine_session`. That the program itself takes a session apart is not
    prevented; code in this process is trusted.
    """

    async def shutdown(self) -> None:
        """Tear the sandbox down; recorded, never denied."""
        if self._life is not None:
            self._life.cancel()
        if self._carriage is not None:
            await self._carriage.end()
        async with self._gate.noted("sandbox shutdown", session=self.session_id):
            await super().shutdown()
        self._in_use(False)
        self._processes.all_ended()

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
            question, certain = self._commanding("exec", command, shell, user), isinstance(self._inner, EndsProcesses)
            async with self._through(question, certain=certain) as operation:
                with self._processes.running(operation.span.context):
                    result = await super().exec(*command, timeout=timeout, shell=shell, user=user)
                ended(operation, result.exit_code)
                operation.set("stdout_bytes", len(result.stdout))
                operation.set("stderr_bytes", len(result.stderr))
                await self._capture(operation, result.stdout + result.stderr)
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
        question = self._commanding("terminal open" if tty else "exec", command, shell, user, tty=tty)
        begun = False
        try:
            async with self._through(question) as operation:
                begun = True
                with self._processes.running(operation.span.context):
                    update = await super().pty_exec_start(
                        *command,
                        timeout=timeout,
                        shell=shell,
                        user=user,
                        tty=tty,
                        yield_time_s=yield_time_s,
                        max_output_tokens=max_output_tokens,
                    )
                if update.process_id is not None:
                    self._processes.started(update.process_id, question, self.session_id, operation.span.context)
                described(update, operation)
                await self._capture(operation, update.output)
                return update
        except PolicyDenied as denial:
            if begun:
                await self._processes.start_was_cut()
            return denied_update(denial, None)

    async def pty_write_stdin(
        self,
        *,
        session_id: int,
        chars: str,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Type into a process, or poll it when ``chars`` is empty; polling is not a privilege of its own.

        Typing needs both: that the process may be typed into, and that the command it is may be run still.
        """

        async def forward() -> PtyExecUpdate:
            update = await super(GuardedSession, self).pty_write_stdin(
                session_id=session_id, chars=chars, yield_time_s=yield_time_s, max_output_tokens=max_output_tokens
            )
            if (cut := self._processes.denial(session_id)) is not None:
                raise cut
            if update.process_id is None:
                self._processes.ended(session_id)
            return update

        if (cut := self._processes.denial(session_id)) is not None:
            return denied_update(cut, None)
        if not chars:
            try:
                await self._living("terminal poll")
                update = await forward()
            except PolicyDenied as denial:
                return denied_update(denial, None)
            if update.process_id is None:
                # The call that started it could not tell how it ended.
                async with self._gate.noted("command end", session=self.session_id) as operation:
                    operation.set("process", session_id)
                    described(update, operation)
                    await self._capture(operation, update.output)
            return update
        try:
            if (started := self._processes.question(session_id)) is not None:
                await self._ask(started)
            async with self._operation("terminal write", actions.write_terminal, session=self.session_id) as operation:
                operation.set("stdin_bytes", len(chars.encode("utf-8", "surrogateescape")))
                update = await forward()
                described(update, operation)
                await self._capture(operation, update.output)
                return update
        except PolicyDenied as denial:
            return denied_update(denial, session_id if self._processes.denial(session_id) is None else None)

    async def pty_terminate_all(self) -> None:
        """End every process that goes on."""
        await super().pty_terminate_all()
        self._processes.all_ended()

    async def resolve_exposed_port(self, port: int) -> ExposedPortEndpoint:
        """Say where a published port of the guest is reached."""
        async with self._operation("port expose", actions.expose_port, port=port, public=False):
            return await super().resolve_exposed_port(port)

    async def _validate_manifest_application(
        self,
        *,
        only_ephemeral: bool = False,
        manifest: Manifest | None = None,
        session_running: bool | None = None,
    ) -> None:
        await super()._validate_manifest_application(
            only_ephemeral=only_ephemeral, manifest=manifest, session_running=session_running
        )
        # A run with a live session brings its agent's changes here, before it makes any of them.
        if manifest is not None:
            await self._decide(manifest)

    async def _apply_manifest(
        self, *, only_ephemeral: bool = False, provision_accounts: bool = True
    ) -> MaterializationResult:
        await self._ask_all(questions(self.state.manifest, isolated=self._isolated))
        with applying_decided_manifest():
            return await super()._apply_manifest(only_ephemeral=only_ephemeral, provision_accounts=provision_accounts)

    async def _apply_entry_batch(
        self, entries: Sequence[tuple[Path, BaseEntry]], *, base_dir: Path
    ) -> list[MaterializedFile]:
        if not is_decided():
            await self._ask_all(entry_questions(entries))
        with applying_decided_manifest():
            return await super()._apply_entry_batch(entries, base_dir=base_dir)

    async def provision_manifest_accounts(self) -> None:
        """Make the users and groups of the manifest."""
        await self._ask_all(account_questions(self.state.manifest, isolated=self._isolated))
        with applying_decided_manifest():
            await self._inner.provision_manifest_accounts()

    def supports_docker_volume_mounts(self) -> bool:
        """Whether the backend takes Docker volumes; the SDK's own wrapper does not pass this on."""
        return self._inner.supports_docker_volume_mounts()

    def should_provision_manifest_accounts_on_resume(self) -> bool:
        """Whether resuming makes the manifest's accounts again; the SDK's own wrapper does not pass this on."""
        return self._inner.should_provision_manifest_accounts_on_resume()

    async def _capture(self, operation: Operation, output: bytes) -> None:
        text, name = output.decode("utf-8", "replace"), attributes.CEDARBOX_COMMAND_OUTPUT
        await capture_text(self._gate, operation.span, "commandOutput", name, text, session=self.session_id)

    def _commanding(
        self,
        verb: str,
        command: tuple[str | Path, ...],
        shell: bool | list[str],
        user: str | User | None,
        *,
        tty: bool = False,
    ) -> Question:
        # A shell of the caller's choosing is what is run.
        chosen = shell if isinstance(shell, list) else []
        words = [*chosen, *(str(word) for word in command)]
        summary = redact(" ".join(words))

        def name(base: Base) -> Action:
            if any(_EXECUTOR in word for word in words):
                raise CanonicalizationError(f"{_EXECUTOR} is reserved for the sandbox")
            return actions.execute(
                base,
                command=words,
                shell=bool(shell),
                user=name_of(user),
                summary=summary,
                terminal=tty,
                chosen=bool(chosen),
            )

        return Question(verb, name, summary)


def is_genuine_session(session: Any) -> bool:
    """Whether a session is a guarded one, with none of its operations replaced by a subclass or on the object."""
    return type(session) is GuardedSession and not vars(session).keys() & GATED
