"""What all operations of a guarded session have in common: gate, lifetime, and the manifest that was decided."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Literal, Self

from agents.sandbox.manifest import Manifest
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import User
from opentelemetry.trace import SpanContext

from cedarbox.errors import ConfigurationError, LedgerError, PolicyDenied
from cedarbox.guard.backend import CarriesEgress, EndsAtOnce, TellsOfRelays, WritesBack, pin_paths
from cedarbox.guard.egress import Carriage, Carrier, GateAdmission
from cedarbox.guard.entries import OPERATION, Recording
from cedarbox.guard.facts import mounting
from cedarbox.guard.gate import Gate, Operation
from cedarbox.guard.holds import Hold
from cedarbox.guard.identity import current_run
from cedarbox.guard.lifetime import Lifetime
from cedarbox.guard.manifest import questions
from cedarbox.guard.operation import Home
from cedarbox.guard.question import Impossible, Question
from cedarbox.guard.terminals import HeldProcesses
from cedarbox.policy import PolicyEngine
from cedarbox.policy.actions import Action
from cedarbox.telemetry.scope import current_context

__all__ = ["AdmittingSession", "name_of"]


class AdmittingSession(SandboxSession):
    """The SDK's session wrapper with a gate, and nothing led through it yet.

    It shares the provider's inner session, so there is one layer of SDK instrumentation, and it must not define
    ``state``: the SDK tells wrappers and backends apart by that (agents 0.24, ``_mount_security``).
    """

    _provider: SandboxSession
    _gate: Gate
    _isolated: bool
    _pinned: bool
    _snapshots: Sequence[Literal["tar", "native"]]
    _decided: Manifest
    _life: Lifetime | None
    _processes: HeldProcesses
    _carriage: Carriage | None
    _held: list[Hold]
    _cutting: asyncio.Task[None] | None
    _revoked: PolicyDenied | None
    _decided_by: PolicyEngine
    _home: SpanContext | None
    _counted: bool

    @classmethod
    def wrap(
        cls,
        provider: SandboxSession,
        gate: Gate,
        *,
        isolated: bool,
        snapshots: Sequence[Literal["tar", "native"]] = ("tar",),
        lifetime_s: int | None = None,
        carrier: Carrier | None = None,
    ) -> Self:
        """Guard a session that a client has made, and whose manifest was decided.

        Args:
            provider: What the client's ``create`` or ``resume`` returned.
            gate: The gate of the guarded client.
            isolated: The sandbox has a file system of its own.
            snapshots: The forms in which the backend may save the workspace.
            lifetime_s: Seconds after which the sandbox is ended; None when nothing ends it. Needs a running loop.
            carrier: Makes what carries the connections of a guest without a network; None when nobody carries them.

        Raises:
            ConfigurationError: The session is guarded already; guarding it again would leave the first gate out.
        """
        if isinstance(provider, AdmittingSession) or isinstance(provider._inner, SandboxSession):
            raise ConfigurationError("this session is wrapped already", hint="guard what the backend's client made")
        # SandboxSession.__init__ would bind the sinks and dependencies of the inner session a second time.
        self = cls.__new__(cls)
        self._inner = provider._inner
        self._instrumentation = provider._instrumentation
        self._seq = 0
        self._provider, self._gate, self._isolated, self._snapshots = provider, gate, isolated, snapshots
        self._pinned = not isolated and pin_paths(self._inner)
        self._decided = self.state.manifest.model_copy(deep=True)
        self._processes = HeldProcesses(gate, provider._inner)
        self._held, self._cutting, self._revoked = [], None, None
        self._decided_by = gate.engine
        self._counted, run = False, current_run()
        self._home = current_context()
        gate.homes[self.session_id] = Home(self._home, run.id if run is not None else None)
        self._life = None if lifetime_s is None else Lifetime(lifetime_s)
        if isinstance(self._inner, WritesBack):
            self._inner.permission = self._writing_back
        self._carriage = None
        if carrier is not None and isinstance(self._inner, CarriesEgress):
            admission = GateAdmission(self)
            self._carriage = Carriage(admission, carrier(admission, self.state))
            self._inner.serve = self._carriage.serve
            if isinstance(self._inner, TellsOfRelays):
                self._inner.misbehaved = self._carriage.misbehaved
        if self._life is not None:
            self._life.start(self._end)
        return self

    @property
    def gate(self) -> Gate:
        """The gate in front of this session."""
        return self._gate

    @property
    def session_id(self) -> str:
        """Id of the session, as records and spans show it."""
        return str(self.state.session_id)

    @property
    def over(self) -> bool:
        """Whether nothing is permitted any more: a change of policy ended the sandbox, or its lifetime is over."""
        return self._revoked is not None or (self._life is not None and self._life.over)

    @asynccontextmanager
    async def _through(
        self, question: Question, *, certain: bool = True, recording: Recording = OPERATION
    ) -> AsyncIterator[Operation]:
        await self._living(question.verb)
        passing = self._gate.operation(question, session=self.session_id, certain=certain, recording=recording)
        if self._life is None:
            async with passing as operation:
                yield operation
            return
        limit = asyncio.timeout(self._life.remaining)
        try:
            async with limit, passing as operation:
                yield operation
        except TimeoutError:
            if not limit.expired():
                raise
            late = self._life.refusal(question.verb, self.session_id)
            raise await self._gate.refuse(late, session=self.session_id) from None
        except asyncio.CancelledError:
            # The end of the sandbox may come a moment before the limit does; the reason is the same.
            if self._life.over:
                with suppress(LedgerError):
                    self._gate.refuse_now(self._life.refusal(question.verb, self.session_id), session=self.session_id)
            raise

    async def _ask(self, question: Question) -> None:
        await self._living(question.verb)
        await self._gate.ask(question, session=self.session_id)

    async def _ask_all(self, asked: Iterable[Question | Impossible]) -> None:
        await self._living("manifest write")
        await self._gate.ask_all(asked, session=self.session_id)

    async def _decide(self, manifest: Manifest) -> None:
        """Ask about a manifest unless it is the one that was decided last."""
        if manifest != self._decided:
            await self._ask_all(questions(manifest, isolated=self._isolated))
            self._decided = manifest.model_copy(deep=True)

    def hold(self, asked: Iterable[Question | Impossible]) -> None:
        """Let the sandbox go on only for as long as the policies permit all that it was given.

        Args:
            asked: What was asked when it was made or taken up.
        """
        for question in asked:
            if isinstance(question, Question):
                held = self._gate.hold(question, session=self.session_id, event="sandbox.revoked", cut=self._cut)
                self._held.append(held)

    def span_of_guest(self) -> SpanContext | None:
        """Return the span to which what the guest does of its own accord belongs.

        That is the one command that runs, or goes on; where there is none or more than one, the span in which the
        sandbox was made or taken up.
        """
        return self._processes.span() or self._home

    def _in_use(self, used: bool) -> None:
        if used is not self._counted:
            self._counted = used
            self._gate.telemetry.metrics.sandboxes(1 if used else -1)

    def release(self) -> None:
        """Say that the sandbox is gone: a change of policy has nothing to end any more."""
        self._in_use(False)
        self._gate.homes.pop(self.session_id, None)
        held, self._held = self._held, []
        for each in held:
            self._gate.holds.release(each)
        self._processes.all_ended()
        if self._carriage is not None:
            self._carriage.stop()
        if self._life is not None:
            self._life.cancel()

    async def _cut(self, denial: PolicyDenied) -> None:
        # Several things that it was given may be denied at once; it ends once.
        self._revoked = self._revoked or denial
        if self._cutting is None:
            self._cutting = asyncio.create_task(self._end_now(), name="cedarbox-cut")
        await asyncio.shield(self._cutting)

    async def _end_now(self) -> None:
        self._in_use(False)
        if self._carriage is not None:
            self._carriage.stop()
        if isinstance(self._inner, EndsAtOnce):
            await self._inner.end_now()
        else:
            await self._inner.pty_terminate_all()
            await self._inner.shutdown()

    async def _living(self, verb: str) -> None:
        if (revoked := self._revoked) is not None:
            ended = Impossible(verb, revoked.resource, f"the sandbox was ended, {revoked.reason}")
            raise await self._gate.refuse(ended, session=self.session_id)
        if self._life is not None and self._life.over:
            late = self._life.refusal(verb, self.session_id)
            raise await self._gate.refuse(late, session=self.session_id)

    async def _end(self) -> None:
        async with self._gate.noted("sandbox lifetime", session=self.session_id) as operation:
            operation.set("lifetime_s", self._life.seconds if self._life is not None else 0)
            await self.pty_terminate_all()
            await self.shutdown()

    def _operation(
        self, verb: str, build: Callable[..., Action], **arguments: Any
    ) -> AbstractAsyncContextManager[Operation]:
        return self._through(self._question(verb, build, **arguments))

    def _question(self, verb: str, build: Callable[..., Action], **arguments: Any) -> Question:
        return Question(verb, lambda base: build(base, **arguments), str(arguments))

    def _writing_back(self, real: str, guest: str) -> AbstractAsyncContextManager[Operation]:
        # It was decided when the sandbox was made; the policies may have changed since. Ending may outlast a lifetime.
        question = Question("mount write back", mounting(real, real, guest, writable=True), real)
        return self._gate.operation(question, session=self.session_id)


def name_of(user: str | User | None) -> str | None:
    """Return the name that a user was given by; None for the backend's default."""
    return user.name if isinstance(user, User) else user
