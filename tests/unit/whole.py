"""Everything that carries egress but the microVM: relay, channel, broker, guard, Cedar and ledger, as they are."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from agents.sandbox.manifest import Manifest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClientOptions
from agents.sandbox.snapshot import NoopSnapshot, NoopSnapshotSpec
from tests.unit.brokering import MIRROR, OTHER
from tests.unit.carried import Carrying
from tests.unit.guarded import Guarded
from tests.unit.relaying import RealRelay, real_relay

from cedarbox.audit import Entry
from cedarbox.boxlite.state import BoxLiteSandboxSessionState
from cedarbox.carriers import carrier_of
from cedarbox.egress.channel import ChannelLimits
from cedarbox.guard.egress import Serve
from cedarbox.guard.session import GuardedSession
from cedarbox.settings import load_settings

__all__ = ["MADE", "POLICIES", "Names", "Whole", "boxlite_state"]

# The stand-in for a microVM has the network of this machine, and says so.
MADE: Final = (
    '@id("made") permit (principal, action in [Sandbox::Action::"create", Sandbox::Action::"connectAnywhere"], '
    "resource);\n"
)
POLICIES: Final = (
    MADE
    + f"""
@id("mirror") permit (
  principal, action == Sandbox::Action::"connect", resource == Sandbox::Host::"{MIRROR}"
) when {{ context.ipClass == Sandbox::IpClass::"loopback" }};
@id("inside") forbid (principal, action == Sandbox::Action::"connect", resource)
when {{ context has ip && context.ip.isInRange(ip("127.0.0.2/32")) }};
@id("seen") @reason("TLS or HTTP only") forbid (principal, action == Sandbox::Action::"connect", resource)
when {{ context.proto == Sandbox::Proto::"tcp" }};
@id("admin") @reason("not for agents") forbid (principal, action == Sandbox::Action::"connect", resource)
when {{ context has http && context.http.path like "/admin*" }};
@id("token") permit (principal, action == Sandbox::Action::"useSecret", resource)
when {{ context.host == Sandbox::Host::"{MIRROR}" }};
"""
)
"""TLS and HTTP to one name at a loopback address that is not 127.0.0.2, and nothing below ``/admin``."""


def boxlite_state(**given: Any) -> BoxLiteSandboxSessionState:
    """Return the state of a session that BoxLite would have."""
    return BoxLiteSandboxSessionState(
        snapshot=NoopSnapshot(id="none"),
        manifest=Manifest(),
        image="python:3.12-slim",
        cpus=1,
        memory_mib=256,
        disk_size_gb=None,
        workspace_root="/workspace",
        egress_mode="broker",
        auto_remove=True,
        boot_timeout_s=60,
        **{"egress_allowlist": None, **given},
    )


@dataclass
class Names:
    """What the host's resolver says of names below ``example``, one answer after the other, and which it was asked."""

    answers: dict[str, list[Sequence[str]]] = field(
        default_factory=lambda: {MIRROR: [["127.0.0.1"]], OTHER: [["127.0.0.1"]]}
    )
    asked: list[str] = field(default_factory=list)

    @classmethod
    def known(cls, monkeypatch: pytest.MonkeyPatch) -> Names:
        """Answer in place of the host's resolver; what is no name below ``example`` it answers itself."""
        names, real = cls(), socket.getaddrinfo

        def getaddrinfo(host: Any, port: Any, *given: Any, **more: Any) -> Any:
            if not str(host).endswith(".example"):
                return real(host, port, *given, **more)
            names.asked.append(host)
            if host not in names.answers:
                raise socket.gaierror(socket.EAI_NONAME, "unknown")
            answers = names.answers[host]
            found = answers.pop(0) if len(answers) > 1 else answers[0]
            return [entry for ip in found for entry in real(ip, port, *given, **more)]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return names


class Whole:
    """A guarded session whose guest is a relay on this machine.

    Args:
        directory: Everything that is written goes below it.
        policies: In Cedar.
        egress: The section ``[egress]`` of the settings.
        state: The state that the carrier is given in place of the session's own.
    """

    def __init__(
        self,
        directory: Path,
        policies: str = POLICIES,
        *,
        egress: dict[str, Any] | None = None,
        state: BoxLiteSandboxSessionState | None = None,
    ) -> None:
        self.guarded = Guarded(directory, policies, inner=Carrying())
        carrier = carrier_of(load_settings(egress=egress or {}).egress)
        assert carrier is not None
        self.guarded.client.carrier = carrier if state is None else lambda admission, _own: carrier(admission, state)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[GuardedSession]:
        """Open a session without a relay."""
        session = await self.guarded.client.create(
            snapshot=NoopSnapshotSpec(), manifest=Manifest(), options=UnixLocalSandboxClientOptions()
        )
        assert isinstance(session, GuardedSession)
        try:
            async with session:
                yield session
        finally:
            await self.guarded.client.delete(session)

    @staticmethod
    def serve(session: GuardedSession) -> Serve:
        """Return what the session's backend serves connections with."""
        serve: Serve | None = session._inner.serve  # type: ignore[attr-defined]  # see Carrying
        assert serve is not None
        return serve

    @asynccontextmanager
    async def relay(self) -> AsyncIterator[RealRelay]:
        """Open a session with the real relay."""
        async with self.session() as session, real_relay(self.serve(session), limits=ChannelLimits()) as relay:
            yield relay

    def entries(self, event: str) -> list[Entry]:
        """Return the entries of the ledger about connections, of one event."""
        found = [record.entry for record in self.guarded.records(event)]
        return [entry for entry in found if entry.action in {"connect", "useSecret"}]

    def denied(self) -> list[tuple[str, tuple[str, ...], str]]:
        """Return resource, policies and reason of every connection that was denied, in the order of the ledger."""
        return [
            (entry.resource or "", entry.policies, str(entry.attrs.get("reason", "")))
            for entry in self.entries("decision")
            if (entry.action, entry.decision) == ("connect", "deny")
        ]

    def allowed(self) -> list[str]:
        """Return the summaries of the connections that were permitted."""
        return [
            str(entry.attrs["summary"])
            for entry in self.entries("decision")
            if (entry.action, entry.decision) == ("connect", "allow")
        ]
