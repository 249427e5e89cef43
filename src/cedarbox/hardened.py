"""The front door: one call that gives an ordinary ``RunConfig`` with everything switched on."""

from __future__ import annotations

import asyncio
import atexit
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agents import RunConfig
from agents.sandbox import SandboxRunConfig
from agents.sandbox.manifest import Manifest
from agents.sandbox.session.sandbox_client import BaseSandboxClient
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec

from cedarbox.audit import Entry, JsonValue, Ledger
from cedarbox.audit.anchoring import Anchoring
from cedarbox.audit.place import Place, Unit
from cedarbox.audit.shipper import Shipper
from cedarbox.audit.target import Target
from cedarbox.boxlite import BoxLiteSandboxClient, BoxLiteSandboxClientOptions
from cedarbox.boxlite.image_lock import LOCK_FILE
from cedarbox.boxlite.image_store import ImageStore
from cedarbox.carriers import carrier_of
from cedarbox.errors import ConfigurationError, SealError
from cedarbox.guard import Gate, GuardedClient, enforce
from cedarbox.guard.approval_store import ApprovalStore
from cedarbox.guard.change import Change
from cedarbox.guard.keys import KEY_NAME
from cedarbox.live import LivePolicies
from cedarbox.policy import PolicyBundle, PolicyEngine
from cedarbox.policy.trust import load as load_bundle
from cedarbox.settings import Settings, load_settings
from cedarbox.shipping import place_of, sources_of
from cedarbox.telemetry.attributes import CEDARBOX_LEDGER_STREAM
from cedarbox.telemetry.spans import Telemetry
from cedarbox.telemetry.tracing import is_sealed

__all__ = ["PolicySandboxClient", "harden"]

_FLUSH_SECONDS = 2.0


class PolicySandboxClient(GuardedClient):
    """Any SDK sandbox client, under policy, with its decisions in a ledger.

    Making one puts the guard in force for this process: from then on a run without a guarded client is refused.

    Args:
        inner: The client to guard: BoxLite, Docker, unix-local, a hosted one.
        policies: A policy bundle, or its directory; None for the one of the settings.
        principal: The agent as ``entities.json`` declares it; None for the one of the settings.
        settings: Where the ledger is and where to send it; None for ``cedarbox.toml`` and the environment.

    Raises:
        BundleError: The bundle cannot be used. Nothing was made then, no ledger either.
        ConfigurationError: The principal is not declared in the bundle, or an argument cannot be used.
        LedgerError: The ledger cannot be opened.
        SealError: The SDK's tracing is not sealed.
    """

    def __init__(
        self,
        inner: BaseSandboxClient[Any],
        *,
        policies: PolicyBundle | Path | str | None = None,
        principal: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        if not is_sealed():
            raise SealError("the seal on the SDK's tracing was undone", hint="find what replaced the trace provider")
        client: object = inner
        if not isinstance(client, BaseSandboxClient):
            hint = "pass a client such as BoxLiteSandboxClient()"
            raise ConfigurationError(f"a {type(client).__name__} is no sandbox client", hint=hint)
        settings = settings or load_settings()
        # What was given counts, also when it is empty: a default in its place would be policies that nobody chose.
        source: object = settings.policy.bundle if policies is None else policies
        if not isinstance(source, (PolicyBundle, Path, str)) or source == "":
            hint = "pass the directory of a policy bundle"
            raise ConfigurationError(f"policies: {source!r} is no policy bundle", hint=hint)
        trust = settings.trust()
        bundle = load_bundle(source, trust, datetime.now(UTC))
        principal = settings.policy.principal if principal is None else principal
        if principal not in bundle.principals:
            hint = f"declared are: {', '.join(sorted(bundle.principals)) or 'none'}"
            shown = repr(principal)[:80]
            raise ConfigurationError(f"{bundle.path / 'entities.json'}: no agent {shown}", hint=hint)
        engine, directory = PolicyEngine(bundle), settings.audit.directory
        spans = settings.otlp.spans or directory.parent / "spans"
        target, anchors = settings.otlp.target(), settings.audit.anchors()
        if target is not None:
            target.check()
        self.ledger = Ledger.open(
            directory, signing_key=settings.audit.signing_key, segment_bytes=settings.audit.segment_bytes
        )
        with ExitStack() as undo:
            undo.callback(self.ledger.close)
            self.telemetry = Telemetry(
                directory=spans,
                resource={CEDARBOX_LEDGER_STREAM: self.ledger.stream},
                metrics_interval_s=settings.otlp.metrics_interval_s or None,
            )
            undo.callback(self.telemetry.close)
            gate = Gate(
                engine=engine,
                ledger=self.ledger,
                telemetry=self.telemetry,
                principal=principal,
                backend=inner.backend_id,
                mode=settings.policy.mode,
                approvals=ApprovalStore(settings.audit.approvals or directory.parent / "approvals"),
                capture=settings.otlp.content_max_chars if settings.otlp.capture_content else 0,
            )
            signing = settings.audit.signing_key
            super().__init__(
                inner,
                gate,
                key=None if signing is None else signing.with_name(KEY_NAME),
                snapshots=settings.sandbox.snapshots,
                lifetime_s=settings.sandbox.lifetime_s,
                carrier=carrier_of(settings.egress),
            )
            self.ledger.append(Entry(event="tracing.sealed"))
            loaded: dict[str, JsonValue] = {
                "name": bundle.name,
                "revision": bundle.revision,
                "policies": len(bundle.policies),
                "mode": settings.policy.mode,
                "signed_by": list(bundle.signed_by),
            }
            self.ledger.append(Entry(event="policy.loaded", bundle=bundle.digest, attrs=loaded))
            self.live = LivePolicies(gate, bundle.path, lambda: load_bundle(bundle.path, trust, datetime.now(UTC)))
            undo.callback(self.live.stop)
            self.live.start(watch_s=settings.policy.watch_s, sighup=settings.policy.sighup)
            enforce()
            undo.pop_all()
        self.telemetry.attach()
        self.telemetry.metrics.observe(records=lambda: gate.records)
        self.shipper = None if target is None else self._ship(target, settings, spans)
        self.anchoring = Anchoring(directory, self.ledger.stream, anchors, self.ledger.append)
        self.anchoring.start()
        atexit.register(self.close)

    async def reload(self) -> Change:
        """Load the bundle again and put it in force at once; end whatever goes on that it denies.

        Running commands, terminals and sandboxes are asked about again, as the callers that they were asked for. The
        policies in force stay in force when the bundle cannot be loaded, verified or validated.

        Returns:
            What was asked again and what ended.

        Raises:
            BundleError: The bundle cannot be used; ``policy.rejected`` is recorded.
            LedgerError: The change cannot be recorded, so it did not happen.
        """
        return await asyncio.to_thread(self.live.reload)

    def close(self, *, flush: float = _FLUSH_SECONDS) -> bool:
        """Close the ledger and give what is on disk a last chance to be sent. Doing it twice changes nothing.

        Args:
            flush: How long to wait for the collector, in seconds. What it does not take stays on disk and is sent by
                the next process that opens the same directories.

        Returns:
            True when nothing is left to send, and every anchor took the last checkpoints.
        """
        atexit.unregister(self.close)
        self.live.stop()
        self.telemetry.detach()
        self.ledger.close()
        self.telemetry.close()
        anchored = self.anchoring.stop(flush)
        return (self.shipper.stop(flush) if self.shipper is not None else True) and anchored

    def _ship(self, target: Target, settings: Settings, spans: Path) -> Shipper:
        """Start to send what is on disk."""
        directory = settings.audit.directory
        place, spans = place_of(directory), settings.otlp.spans or directory.parent / "spans"
        self.telemetry.prune(Place(place).offset)
        shipper = Shipper(
            target, sources_of(directory, spans), place=place, pace=settings.otlp.pace(), on_left=self._left
        )
        self.telemetry.metrics.observe(pending=lambda: shipper.pending)
        shipper.start()
        return shipper

    def _left(self, unit: Unit) -> None:
        """Put on record that the collector will not have something."""
        attrs: dict[str, JsonValue] = {
            "file": unit.key,
            "start": unit.start,
            "end": unit.end,
            "sha256": unit.sha256,
            "tries": unit.tries,
        }
        self.ledger.append(Entry(event="shipping.left", outcome="left", attrs={**attrs, "reason": unit.reason}))


def harden(
    *,
    policies: PolicyBundle | Path | str | None = None,
    image: str | None = None,
    rootfs: Path | str | None = None,
    principal: str | None = None,
    client: BaseSandboxClient[Any] | None = None,
    options: Any = None,
    manifest: Manifest | None = None,
    snapshot: SnapshotSpec | SnapshotBase | None = None,
    settings: Settings | None = None,
) -> RunConfig:
    """Return a ``RunConfig`` under which an agent's tools run in a microVM, under policy, on the record.

    Args:
        policies: A policy bundle, or its directory.
        image: Image of the microVM: a name of the image store, or a reference to pull.
        rootfs: Local OCI layout to boot instead of ``image``.
        principal: The agent as ``entities.json`` declares it.
        client: Another sandbox client to guard; a BoxLite one when None.
        options: Options of the client; made from ``image`` or ``rootfs`` and the settings when None.
        manifest: What the workspace starts with.
        snapshot: Where to save the workspace when a run ends; what ``sandbox.snapshots`` of the settings says when
            None: nowhere, or sealed. Nowhere, the default, means that a run that is paused and resumed from its state
            begins with the manifest again. The SDK's own default would leave every workspace in clear below the home
            directory.
        settings: None for ``cedarbox.toml`` and the environment.

    Raises:
        CedarboxError: Something that was given cannot be used; nothing was made then.
    """
    settings = settings or load_settings()
    if client is None:
        store = ImageStore(settings.sandbox.store, lock=settings.sandbox.lock or LOCK_FILE)
        client = BoxLiteSandboxClient(
            images=store, registries=settings.logins(), image_keys=settings.sandbox.image_keys
        )
        options = options or _boxlite_options(settings, image, rootfs)
    elif image is not None or rootfs is not None:
        raise ConfigurationError("image and rootfs are for BoxLite", hint="pass the options of the client you give")
    guarded = PolicySandboxClient(client, policies=policies, principal=principal, settings=settings)
    sandbox = SandboxRunConfig(
        client=guarded, options=options, manifest=manifest, snapshot=snapshot or guarded.default_snapshot
    )
    return RunConfig(sandbox=sandbox, trace_include_sensitive_data=False)


def _boxlite_options(settings: Settings, image: str | None, rootfs: Path | str | None) -> BoxLiteSandboxClientOptions:
    given = settings.sandbox
    layout = rootfs or (given.rootfs if image is None else None)
    reference = None if layout else image or given.image
    return BoxLiteSandboxClientOptions(
        image=reference,
        rootfs=str(layout) if layout else None,
        cpus=given.cpus,
        memory_mib=given.memory_mib,
        boot_timeout_s=given.boot_timeout_s,
        egress_mode=settings.egress.mode,
    )
