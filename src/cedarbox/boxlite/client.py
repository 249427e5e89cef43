"""The sandbox client of the Agents SDK for BoxLite microVMs."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from agents.sandbox.manifest import Manifest
from agents.sandbox.session.dependencies import Dependencies
from agents.sandbox.session.manager import Instrumentation
from agents.sandbox.session.sandbox_client import BaseSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec, resolve_snapshot

from cedarbox.boxlite import api
from cedarbox.boxlite.checks import Checks
from cedarbox.boxlite.describe import described
from cedarbox.boxlite.disks import DiskDigests
from cedarbox.boxlite.environment import check_environment
from cedarbox.boxlite.failures import Operation, lifecycle_failure
from cedarbox.boxlite.finding import reattached
from cedarbox.boxlite.holders import Snapshots
from cedarbox.boxlite.host import default_home, opened
from cedarbox.boxlite.image_disks import ImageDisks
from cedarbox.boxlite.image_signatures import load_keys
from cedarbox.boxlite.image_store import ImageStore
from cedarbox.boxlite.image_supply import ImageSupply
from cedarbox.boxlite.images import LayoutVerifier
from cedarbox.boxlite.machine import Machine
from cedarbox.boxlite.mounts import outside_home, pinned
from cedarbox.boxlite.network import card
from cedarbox.boxlite.options import BoxLiteSandboxClientOptions, check_root
from cedarbox.boxlite.references import parse_reference
from cedarbox.boxlite.registry import Registry
from cedarbox.boxlite.remote import check_remote, is_remote
from cedarbox.boxlite.session import BoxLiteSandboxSession
from cedarbox.boxlite.snapshots import SnapshotStore
from cedarbox.boxlite.state import BoxLiteSandboxSessionState
from cedarbox.errors import ConfigurationError

__all__ = ["BoxLiteSandboxClient"]

_DEFAULT_ROOT = "/workspace"
_CHECKS = "cedarbox-checks.json"


class BoxLiteSandboxClient(BaseSandboxClient[BoxLiteSandboxClientOptions]):
    """Runs sandbox sessions in BoxLite microVMs, without a network card unless one is asked for.

    BoxLite lets one runtime at a time own a home directory. The runtime is opened when it is first needed.

    Args:
        runtime: A ``boxlite.Boxlite`` to use, local or ``Boxlite.rest(...)``; the caller shuts it down. What a remote
            one cannot do is refused before anything is sent.
        home: The home of a runtime of this client's own; default ``~/.local/state/cedarbox/boxlite``, mode 0700.
        images: Where images are found by name, and kept when they were pulled; default the store of this user.
        registries: Registries that need a login or speak plain HTTP.
        image_keys: PEM files of the public keys whose signatures of images count, in cosign's format.
        instrumentation: The SDK's event sinks for sessions.
        dependencies: The SDK's session dependencies.

    Raises:
        ConfigurationError: Both ``runtime`` and ``home`` are given, or a key cannot be used.
    """

    backend_id = "boxlite"
    # An image has no safe default, so there are no default options.
    supports_default_options = False

    def __init__(
        self,
        *,
        runtime: object | None = None,
        home: Path | None = None,
        images: ImageStore | None = None,
        registries: Sequence[Registry] = (),
        image_keys: Sequence[Path] = (),
        instrumentation: Instrumentation | None = None,
        dependencies: Dependencies | None = None,
    ) -> None:
        if runtime is not None and home is not None:
            raise ConfigurationError("runtime and home exclude each other", hint="give one of them")
        self._runtime = cast("api.Runtime | None", runtime)
        self._owns_runtime = runtime is None
        self._remote = self._runtime is not None and is_remote(self._runtime)
        self._home = default_home() if home is None else Path(home).expanduser()
        self._instrumentation = instrumentation if instrumentation is not None else Instrumentation()
        self._dependencies = dependencies
        own = self._home if self._owns_runtime else None
        self._digests = DiskDigests()
        self._images = ImageSupply(
            ImageStore() if images is None else images,
            LayoutVerifier(Checks(None if own is None else own / _CHECKS)),
            registries=registries,
            disks=None if own is None else ImageDisks(own, self._digests),
            keys=load_keys(image_keys),
        )
        self._snapshots: Snapshots | None = None

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: BoxLiteSandboxClientOptions,
    ) -> SandboxSession:
        """Make a session. It is not started, and no microVM exists yet.

        Args:
            snapshot: Where the workspace is kept; default nowhere.
            manifest: What the workspace holds at the start.
            options: The settings of the microVM.

        Returns:
            The session.

        Raises:
            ConfigurationError: An option or the manifest cannot be used.
            HostError: The BoxLite home cannot be used.
        """
        if not isinstance(options, BoxLiteSandboxClientOptions):
            raise ConfigurationError(
                f"the options are of type {type(options).__name__}", hint="give BoxLiteSandboxClientOptions"
            )
        if self._remote:
            check_remote(options)
        card(options.egress_mode, options.egress_allowlist)
        manifest = _rooted(manifest, options.workspace_root)
        self._validate_manifest_for_create(manifest)
        _check_manifest(manifest)
        if self._owns_runtime:
            outside_home(map(pinned, options.mounts), self._home)
        session_id = uuid.uuid4()
        state = BoxLiteSandboxSessionState(
            session_id=session_id,
            snapshot=resolve_snapshot(snapshot, str(session_id)),
            manifest=manifest,
            exposed_ports=options.exposed_ports,
            image=options.image,
            rootfs=_absolute(options.rootfs),
            image_digest=self._digest_of(options.image),
            cpus=options.cpus,
            memory_mib=options.memory_mib,
            disk_size_gb=options.disk_size_gb,
            workspace_root=manifest.root,
            egress_mode=options.egress_mode,
            egress_allowlist=options.egress_allowlist,
            auto_remove=options.auto_remove,
            boot_timeout_s=options.boot_timeout_s,
            workspace_persistence=options.workspace_persistence,
            mounts=tuple(pinned(mount) for mount in options.mounts),
            secrets=options.secrets,
        )
        return self._session(state, None)

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """Take up a session again: in its own microVM when that exists, running or stopped, else in an equal one.

        Args:
            state: The state, from :meth:`deserialize_session_state` or a former session.

        Returns:
            The session, not started.

        Raises:
            TypeError: The state is not one of this client.
            ConfigurationError: The state cannot be used.
            HostError: The BoxLite home cannot be used.
            WorkspaceStartError: A remote server does not tell whether its microVM is still there.
        """
        if not isinstance(state, BoxLiteSandboxSessionState):
            raise TypeError("BoxLiteSandboxClient.resume expects a BoxLiteSandboxSessionState")
        if self._remote:
            check_remote(state)
        state.assert_path_grants_rebound()
        self._validate_manifest_for_create(state.manifest)
        _check_manifest(state.manifest)
        if self._owns_runtime:
            outside_home(state.mounts, self._home)
        try:
            store = None if self.snapshots is None else self.snapshots.store
            box = await reattached(self._open(), state, store, remote=self._remote)
        except (api.BoxliteError, TimeoutError) as error:
            raise lifecycle_failure(Operation.START, error, Path(state.manifest.root)) from error
        if box is None:
            state.box_id = ""
            state.workspace_root_ready = False
        return self._session(state, box)

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Stop the microVM of a session, and remove its disk unless ``auto_remove`` is off.

        Args:
            session: A session of this client.

        Returns:
            The same session.

        Raises:
            TypeError: The session is not one of this client.
            HostError: BoxLite did not stop or remove it in time.
        """
        inner = session._inner
        if not isinstance(inner, BoxLiteSandboxSession):
            raise TypeError("BoxLiteSandboxClient.delete expects a BoxLiteSandboxSession")
        if inner.state.auto_remove:
            await inner.remove()
        else:
            await inner.shutdown()
        return session

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        """Read a state back from its JSON form, and check every value of it.

        Args:
            payload: What :meth:`serialize_session_state` gave.

        Returns:
            The state, for :meth:`resume`.

        Raises:
            ConfigurationError: A value cannot be used. The SDK hides which one, because states may hold secrets.
        """
        try:
            return self._deserialize_session_state_payload(payload, BoxLiteSandboxSessionState)
        except ValueError as error:
            raise ConfigurationError(
                "the saved sandbox state cannot be used", hint="it was changed or is of another version; start anew"
            ) from error

    def describe_sandbox(self, source: object) -> Mapping[str, object]:
        """Return what a sandbox made from options, or taken up from a state, would be given.

        A local layout is read whole the first time, to check its digests.

        Args:
            source: Options, or the state of a session.

        Returns:
            image, digest, repository, signed, isolation, egress, ports, public_ports, vcpus, memory_mib, disk_gb,
            mounts and snapshots.

        Raises:
            ConfigurationError: It is neither options nor a state of BoxLite.
            ImageError: The layout is missing or does not match its digests.
        """
        return described(source, self._images, native=self._owns_runtime, remote=self._remote)

    @property
    def snapshots(self) -> Snapshots | None:
        """The native snapshots of the BoxLite home; ``None`` when the home is not this client's own.

        Raises:
            HostError: The BoxLite home cannot be used.
        """
        if self._snapshots is None and self._owns_runtime:
            self._snapshots = Snapshots(self._open(), SnapshotStore(self._home, self._digests))
        return self._snapshots

    async def close(self) -> None:
        """Stop the microVMs of a runtime of this client's own and release its home. Sessions must not be used after."""
        self._snapshots = None
        runtime, self._runtime = self._runtime, None if self._owns_runtime else self._runtime
        if self._owns_runtime and runtime is not None:
            await runtime.shutdown()

    def _digest_of(self, image: str | None) -> str | None:
        if image is None:
            return None
        # The store of this machine says nothing about what a server has under a name.
        return parse_reference(image).digest if self._remote else self._images.digest_of(image)

    def _open(self) -> api.Runtime:
        if self._runtime is None:
            self._runtime = opened(self._home)
            self._images.opened()
        return self._runtime

    def _session(self, state: BoxLiteSandboxSessionState, box: api.Box | None) -> SandboxSession:
        inner = BoxLiteSandboxSession(
            state, Machine(self._open(), state, None if self._remote else self._images, self.snapshots, box)
        )
        inner._set_start_state_preserved(box is not None)
        return self._wrap_session(inner, instrumentation=self._instrumentation)


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())


def _rooted(manifest: Manifest | None, root: str) -> Manifest:
    if manifest is None:
        return Manifest(root=root)
    if root in (manifest.root, _DEFAULT_ROOT):
        return manifest
    if manifest.root == _DEFAULT_ROOT:
        return manifest.model_copy(update={"root": root})
    raise ConfigurationError(
        f"the manifest's root is {manifest.root} and workspace_root is {root}", hint="give the same path in both"
    )


def _check_manifest(manifest: Manifest) -> None:
    check_root(manifest.root)
    check_environment(manifest.environment)
    for grant in manifest.extra_path_grants:
        if grant.host_path is not None:
            raise ConfigurationError(
                f"the path grant {grant.path} names a directory of the host, which this version does not share",
                hint="copy it in with a LocalDir entry",
            )
