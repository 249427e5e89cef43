"""What carries the connections of guarded sandboxes: a broker for each, as the settings say."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from cedarbox.boxlite import SecretEnv
from cedarbox.boxlite.state import BoxLiteSandboxSessionState
from cedarbox.egress.admission import Admission, Connect, Outcome
from cedarbox.egress.allowlist import lists, lists_name
from cedarbox.egress.broker import Broker
from cedarbox.egress.limits import EgressLimits, HostLimits
from cedarbox.egress.targets import spelled
from cedarbox.errors import PolicyDenied
from cedarbox.guard.egress import Carrier, Serve
from cedarbox.policy.canonical import Address, Host
from cedarbox.settings import EgressSettings

__all__ = ["carrier_of"]


def carrier_of(settings: EgressSettings) -> Carrier | None:
    """Return what makes the broker of each session; None when the settings say that there is none.

    Args:
        settings: Limits and secrets. The limit on all sandboxes together is that of what is returned.
    """
    if settings.mode != "broker":
        return None
    limits, host = EgressLimits(**settings.limits.given()), HostLimits()
    shared = {name: _HostSecret(given.reference) for name, given in settings.secrets.items()}

    def carrier(admission: Admission, state: SandboxSessionState) -> Serve:
        requested = state.egress_allowlist if isinstance(state, BoxLiteSandboxSessionState) else None
        own = state.secrets if isinstance(state, BoxLiteSandboxSessionState) else ()
        secrets = shared | {secret.name: _HostSecret(secret.reference) for secret in own}
        hosts = {secret.name: secret.hosts for secret in own}
        broker = Broker(
            _Narrowed(admission, hosts) if hosts else admission,
            limits=limits,
            host=host,
            secrets=secrets,
            allow=None if requested is None else lambda target: lists(requested, target),
        )
        return broker.serve

    return carrier


@dataclass(frozen=True, slots=True)
class _HostSecret:
    reference: str

    def reveal(self) -> str:
        return SecretEnv(reference=self.reference).look_up()


@dataclass(frozen=True, slots=True)
class _Narrowed:
    """Passes everything on, but a secret only to the hosts that the options of its sandbox name."""

    admission: Admission
    hosts: Mapping[str, tuple[str, ...]]

    async def name(self, target: Host | Address, port: int) -> None:
        await self.admission.name(target, port)

    def foreseen(self, target: Host | Address, port: int, ip: Address) -> frozenset[str]:
        return self.admission.foreseen(target, port, ip)

    def connection(self, connect: Connect) -> AbstractAsyncContextManager[Outcome]:
        return self.admission.connection(connect)

    async def refuse(self, target: str, reason: str) -> PolicyDenied:
        return await self.admission.refuse(target, reason)

    async def secret(self, name: str, target: Host, port: int) -> None:
        if name in self.hosts and not lists_name(self.hosts[name], target.name):
            raise await self.admission.refuse(spelled((target, port)), f"the secret {name} is not for this host")
        await self.admission.secret(name, target, port)
