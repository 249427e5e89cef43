"""The sandbox client of the Agents SDK for BoxLite microVMs."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
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
from cedarbox.boxlite.describe import described
from cedarbox.boxlite.host import default_home, opened
from cedarbox.boxlite.images import LayoutVerifier, pinned_digest
from cedarbox.boxlite.machine import Machine, reattached
from cedarbox.boxlite.options import BoxLiteSandboxClientOptions, check_environment_key, check_root
from cedarbox.boxlite.session import BoxLiteSandboxSession
from cedarbox.boxlite.state import BoxLiteSandboxSessionState
from cedarbox.errors import ConfigurationError

__all__ = ["BoxLiteSandboxClient"]

_DEFAULT_ROOT = "/workspace"


class BoxLiteSandboxClient(BaseSandboxClient[BoxLiteSandboxClientOptions]):
    """Runs sandbox sessions in BoxLite microVMs, without a network card unless one is asked for.

    BoxLite lets one runtime at a time own a home directory. The runtime is opened when it is first needed.

    Args:
        runtime: A ``boxlite.Boxlite`` to use; the caller shuts it down.
        home: The home of a runtime of this client's own; default ``~/.local/state/cedarbox/boxlite``, mode 0700.
        instrumentation: The SDK's event sinks for sessions.
        dependencies: The SDK's session dependencies.

    Raises:
        ConfigurationError: Both ``runtime`` and ``home`` are given.
    """

    backend_id = "boxlite"
    # An image has no safe default, so there are no default options.
    supports_default_options = False

    def __init__(
        self,
        *,
        runtime: object | None = None,
        home: Path | None = None,
        instrumentation: Instrumentation | None = None,
        dependencies: Dependencies | None = None,
    ) -> None:
        if runtime is not None and home is not None:
            raise ConfigurationError("runtime and home exclude each other", hint="give one of them")
        self._runtime = cast("api.Runtime | None", runtime)
        self._owns_runtime = runtime is None
        self._home = default_home() if home is None else Path(home).expanduser()
        self._instrumentation = instrumentation if instrumentation is not None else Instrumentation()
        self._dependencies = dependencies
        self._verifier = LayoutVerifier()

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
        manifest = _rooted(manifest, options.workspace_root)
        self._validate_manifest_for_create(manifest)
        _check_manifest(manifest)
        session_id = uuid.uuid4()
        state = BoxLiteSandboxSessionState(
            session_id=session_id,
            snapshot=resolve_snapshot(snapshot, str(session_id)),
            manifest=manifest,
            exposed_ports=options.exposed_ports,
            image=options.image,
            rootfs=_absolute(options.rootfs),
            image_digest=None if options.image is None else pinned_digest(options.image),
            cpus=options.cpus,
            memory_mib=options.memory_mib,
            disk_size_gb=options.disk_size_gb,
            workspace_root=manifest.root,
            egress_allowlist=options.egress_allowlist,
            auto_remove=options.auto_remove,
            boot_timeout_s=options.boot_timeout_s,
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
        """
        if not isinstance(state, BoxLiteSandboxSessionState):
            raise TypeError("BoxLiteSandboxClient.resume expects a BoxLiteSandboxSessionState")
        state.assert_path_grants_rebound()
        self._validate_manifest_for_create(state.manifest)
        _check_manifest(state.manifest)
        box = await reattached(self._open(), state)
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
            image, digest, repository, isolation, egress, ports, public_ports, vcpus, memory_mib and disk_gb.

        Raises:
            ConfigurationError: It is neither options nor a state of BoxLite.
            ImageError: The layout is missing or does not match its digests.
        """
        return described(source, self._verifier)

    async def close(self) -> None:
        """Stop the microVMs of a runtime of this client's own and release its home. Sessions must not be used after."""
        runtime, self._runtime = self._runtime, None if self._owns_runtime else self._runtime
        if self._owns_runtime and runtime is not None:
            await runtime.shutdown()

    def _open(self) -> api.Runtime:
        if self._runtime is None:
            self._runtime = opened(self._home)
        return self._runtime

    def _session(self, state: BoxLiteSandboxSessionState, box: api.Box | None) -> SandboxSession:
        inner = BoxLiteSandboxSession(state, Machine(self._open(), state, self._verifier, box))
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
    for key in manifest.environment.value:
        check_environment_key(key, where="manifest environment")
    for grant in manifest.extra_path_grants:
        if grant.host_path is not None:
            raise ConfigurationError(
                f"the path grant {grant.path} names a directory of the host, which this version does not share",
                hint="copy it in with a LocalDir entry",
            )
