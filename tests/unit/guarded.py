"""A guarded unix-local client for tests: the SDK's real backend, real Cedar, a real ledger on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from agents import RunConfig
from agents.sandbox import SandboxRunConfig
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.snapshot import NoopSnapshotSpec
from tests.unit.bundles import PERMIT_ALL, write_bundle

from cedarbox import PolicySandboxClient
from cedarbox.audit import Record, read_records
from cedarbox.settings import load_settings

__all__ = ["Guarded"]


class Guarded:
    """A guarded client over ``policies``, with everything it writes below ``directory``."""

    made: ClassVar[list[Guarded]] = []

    def __init__(
        self,
        directory: Path,
        policies: str = PERMIT_ALL,
        *,
        inner: Any = None,
        bundle: Path | None = None,
        metadata: str | None = None,
        otlp: Mapping[str, Any] | None = None,
        **policy: Any,
    ) -> None:
        settings = load_settings(
            policy=policy,
            audit={"directory": directory / "ledger", "signing_key": directory / "ledger.key"},
            otlp={"spans": directory / "spans", **(otlp or {})},
        )
        self.directory = directory
        bundle = bundle or write_bundle(directory / "bundle", policies, metadata=metadata)
        self.client = PolicySandboxClient(
            inner or UnixLocalSandboxClient(),
            policies=bundle,
            settings=settings.model_copy(update={"otlp": settings.otlp.model_copy(update={"endpoint": None})}),
        )
        self.made.append(self)

    def rewrite(self, policies: str) -> None:
        """Put other policies into the bundle on disk."""
        write_bundle(self.directory / "bundle", policies)

    @property
    def config(self) -> RunConfig:
        """A run configuration that uses the client."""
        return RunConfig(sandbox=SandboxRunConfig(client=self.client, snapshot=NoopSnapshotSpec()))

    def records(self, event: str | None = None) -> list[Record]:
        """Return the records so far, of one event or of all."""
        found = [record for _, record in read_records(self.directory / "ledger")]
        return [record for record in found if event is None or record.entry.event == event]

    def decisions(self) -> list[tuple[str, str, str]]:
        """Return (decision, action, resource) of every decision so far."""
        entries = [record.entry for record in self.records("decision")]
        return [(entry.decision or "", entry.action or "", entry.resource or "") for entry in entries]

    def denied(self) -> list[tuple[str, str]]:
        """Return (action, resource) of every denial so far."""
        return [(action, resource) for decision, action, resource in self.decisions() if decision == "deny"]
