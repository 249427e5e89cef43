"""Answers for the connections of one guarded session, and ends them with it.

What carries the connections asks through :class:`GateAdmission`. A connection, or one request of it, is an operation of
the gate like any other: decided, recorded, then done; cut when a change of policy denies it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from cedarbox.egress import CONNECTED, Admission, ByteStream, Connect, Outcome
from cedarbox.errors import BundleError, CanonicalizationError, PolicyDenied
from cedarbox.guard.entries import Recording, why
from cedarbox.guard.gate import Gate, Operation
from cedarbox.guard.identity import Caller, within
from cedarbox.guard.question import Impossible, Question
from cedarbox.policy import Decision, PolicyEngine, actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import Address, Host
from cedarbox.policy.entities import Base, Entity, target_entity
from cedarbox.telemetry import attributes
from cedarbox.telemetry.redaction import MASK, redact
from cedarbox.telemetry.scope import under

if TYPE_CHECKING:
    from cedarbox.guard.admission import AdmittingSession

__all__ = ["Carriage", "Carrier", "GateAdmission", "Serve"]

Serve = Callable[[ByteStream], Awaitable[None]]
Carrier = Callable[[Admission, SandboxSessionState], Serve]
"""Makes what carries the connections of one session, given who answers for them."""

_VERB: Final = "egress connect"
_RECORDING: Final = Recording(outcome="egress.closed", revoked="egress.revoked", waits=False)
_PROTOCOLS: Final = frozenset({"tls", "http", "tcp"})
# No target has a user, so a client's is refused, with the password in it; without a scheme it is no URL to redact.
_USER: Final = re.compile(r"[^\s/'\"@]+@")
_END_SECONDS: Final = 5.0
"""How long an orderly end waits for its connections to be gone. Nothing is carried meanwhile."""


class GateAdmission:
    """Answers for the connections of one session; see :class:`cedarbox.egress.Admission`.

    Args:
        session: The session.
    """

    def __init__(self, session: AdmittingSession) -> None:
        self._session = session
        self.ended = False

    async def name(self, target: Host | Address, port: int) -> None:
        """Refuse a target to which no connection can be permitted; what may be looked up is not recorded.

        Raises:
            PolicyDenied: As above, or the sandbox has ended.
        """
        resource = target_entity(target)
        await self._living(resource)
        gate = self._gate
        never = _never(gate, gate.engine, target, port)
        if never is not None:
            denied = Impossible("connect", str(resource), why(never))
            with under(self._session.span_of_guest()):
                denial = await gate.refuse(denied, session=self._session.session_id, decision=never)
            if gate.mode == "enforce":
                raise denial

    def foreseen(self, target: Host | Address, port: int, ip: Address) -> frozenset[str]:
        """Return which of ``tls``, ``http`` and ``tcp`` could be permitted; nothing is recorded."""
        gate = self._gate
        engine, base = gate.engine, gate.base()
        if self.ended or self._session.over:
            return frozenset()
        if gate.mode == "shadow":
            return _PROTOCOLS
        try:
            engine.bundle.check_current(base.at)
        except BundleError:
            return frozenset()
        asked = partial(actions.connect, base, target, port=port, ip=ip)

        def allowed(proto: str, hello: str | None) -> bool:
            return engine.decide(gate.principal, asked(proto=proto, hello=hello)).allowed

        found = {
            "tls": allowed("tls", "named"),
            "tcp": any(allowed("tcp", hello) for hello in (None, "unnamed", "encrypted")),
            # Policies may depend on the request, which comes last of all.
            "http": engine.could_request(gate.principal, asked(proto="http")),
        }
        return frozenset(proto for proto, possible in found.items() if possible)

    @asynccontextmanager
    async def connection(self, connect: Connect) -> AsyncIterator[Outcome]:
        """Decide and record a connection, or one request of it; the block is the act.

        Raises:
            PolicyDenied: No; or a change of policy, the end of the sandbox or of its lifetime came in between.
        """
        with under(self._session.span_of_guest()):
            await self._living(target_entity(connect.target))
            async with self._session._through(_question(connect), recording=_RECORDING) as operation:
                operation.facts |= {"address": str(connect.ip), "port": connect.port}
                begun = time.monotonic()
                metrics = self._gate.telemetry.metrics
                metrics.connections(1)
                try:
                    yield _Connection(self._gate, operation)
                finally:
                    metrics.connections(-1)
                    carried = {name: operation.facts.get(name) for name in ("bytes_in", "bytes_out")}
                    metrics.carried(**{name: told if isinstance(told, int) else 0 for name, told in carried.items()})
                    operation.facts.setdefault("milliseconds", round((time.monotonic() - begun) * 1000))

    async def refuse(self, target: str, reason: str) -> PolicyDenied:
        """Record a denial that nothing turns into a permit, shadow mode neither; return the error to raise."""
        denied = Impossible("connect", _shown(target), _shown(reason))
        with under(self._session.span_of_guest()):
            return await self._gate.refuse(denied, session=self._session.session_id)

    async def secret(self, name: str, target: Host, port: int) -> None:
        """Decide whether a secret may be put into a request to this host and port.

        Raises:
            PolicyDenied: No, or the sandbox has ended.
        """
        await self._living(Entity("Secret", name))
        build = partial(actions.use_secret, name=name, host=target, port=port)
        question = Question("egress secret", build, f"{name} for {target} port {port}")
        with under(self._session.span_of_guest()):
            await self._gate.ask(question, session=self._session.session_id)

    @property
    def _gate(self) -> Gate:
        return self._session.gate

    async def _living(self, resource: Entity) -> None:
        await self._session._living("connect")
        if self.ended:
            denied = Impossible("connect", str(resource), "the sandbox has ended")
            raise await self._gate.refuse(denied, session=self._session.session_id)


class Carriage:
    """The connections of one session while they last; when it has ended, none is carried any more.

    Args:
        admission: Who answers for them.
        serve: Carries one.
    """

    def __init__(self, admission: GateAdmission, serve: Serve) -> None:
        self._admission, self._serve = admission, serve
        self._running: set[asyncio.Task[object]] = set()

    async def serve(self, stream: ByteStream) -> None:
        """Carry one connection until it is over, in a task of its own; the stream is closed then, whatever happened."""
        task = asyncio.current_task()
        try:
            if self._admission.ended or task is None:
                return
            self._running.add(task)
            # The task inherits the tool call in which the sandbox was started; the guest has reasons of its own.
            with within(caller=Caller()):
                await self._serve(stream)
        finally:
            if task is not None:
                self._running.discard(task)
            stream.close()

    async def misbehaved(self, reason: str) -> None:
        """Record that the guest's side broke the protocol, as when somebody tampered with it; its connections are over.

        Args:
            reason: What it did, in one line.
        """
        await self._admission.refuse("the connections of the guest", reason)

    def begin(self) -> None:
        """Carry connections, again where it had ended."""
        self._admission.ended = False

    def stop(self) -> None:
        """End every connection at once and carry no other."""
        self._admission.ended = True
        for task in tuple(self._running):
            task.cancel("the sandbox has ended")

    async def end(self) -> None:
        """End every connection and wait until they are over, so that their records come before that of the end."""
        self.stop()
        if running := self._running - {asyncio.current_task()}:
            await asyncio.wait(running, timeout=_END_SECONDS)


class _Connection:
    """An admitted connection while it lasts."""

    def __init__(self, gate: Gate, operation: Operation) -> None:
        self._gate, self._operation = gate, operation

    def set(self, name: str, value: str | int | bool) -> None:
        first = name not in self._operation.facts
        self._operation.set(name, value)
        decision = self._operation.decision
        if name != CONNECTED or not first or decision is None:
            return
        # Nothing waits for it: the decision is on disk, and what comes of it will be.
        entry = self._gate.entry(
            "egress.opened",
            self._operation.span,
            self._operation.session,
            action=decision.entry.action,
            resource=decision.entry.resource,
            policies=decision.entry.policies,
            bundle=decision.entry.bundle,
            attrs={"decision_seq": decision.seq, **self._operation.facts},
        )
        self._gate.ledger.note(entry)


def _question(connect: Connect) -> Question:
    known: dict[str, str | int] = {
        attributes.SERVER_ADDRESS: str(connect.target),
        attributes.SERVER_PORT: connect.port,
        attributes.NETWORK_PEER_ADDRESS: str(connect.ip),
        attributes.NETWORK_PROTOCOL_NAME: connect.proto,
    }
    asked = f"{connect.target} port {connect.port} {connect.proto}"
    return Question(_VERB, partial(_action, connect=connect), asked, about=known)


def _action(base: Base, *, connect: Connect) -> Action:
    if isinstance(connect.target, Address) and connect.target != connect.ip:
        raise CanonicalizationError(f"the address {connect.target} was asked for, and {connect.ip} would be dialled")
    if (connect.proto == "tls") is not (connect.hello == "named"):
        raise CanonicalizationError(f"{connect.proto} with the hello {connect.hello} is no connection")
    if (connect.proto == "http") is not (connect.request is not None):
        raise CanonicalizationError("plain HTTP is asked about request by request")
    request = connect.request
    try:
        action = actions.connect(
            base,
            connect.target,
            port=connect.port,
            proto=connect.proto,
            ip=connect.ip,
            hello=connect.hello,
            method=request.method if request else None,
            path=request.path if request else None,
            upgrade=request.upgrade if request else None,
        )
    except CanonicalizationError:
        raise
    except ValueError as error:
        raise CanonicalizationError(str(error)) from None
    return replace(action, summary=redact(action.summary))


def _shown(text: str) -> str:
    return redact(_USER.sub(f"{MASK}@", text))


def _never(gate: Gate, engine: PolicyEngine, target: Host | Address, port: int) -> Decision | None:
    """Return the denial of every connection to a target; None when one could be permitted."""
    base = gate.base()
    try:
        engine.bundle.check_current(base.at)
    except BundleError as error:
        return engine.refusal(error.message)
    never = engine.never_connects(gate.principal, target)
    if never is not None and isinstance(target, Address) and not never.policies:
        # All is known of an address, and a forbid says more than that nothing permits it; not one of one protocol only.
        tcp, tls = (
            engine.decide(gate.principal, actions.connect(base, target, port=port, proto=proto, hello=hello))
            for proto, hello in (("tcp", None), ("tls", "named"))
        )
        return tcp if tcp.policies and not tcp.allowed and tcp.policies == tls.policies else never
    return never
