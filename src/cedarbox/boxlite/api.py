"""The typed boundary to the ``boxlite`` package.

BoxLite 0.10.8 is a native module without type information. This file is the only one that imports it: it names the
part of its interface that cedarbox uses as protocols, its errors as classes, and builds its option objects. Everything
else in :mod:`cedarbox.boxlite` is checked against these types.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

__all__ = [
    "Box",
    "BoxInfo",
    "BoxState",
    "BoxliteError",
    "ConfigError",
    "CopyUnsupportedError",
    "EngineError",
    "Execution",
    "ExitStatus",
    "ImageInfo",
    "ImagePullError",
    "Images",
    "InternalError",
    "InvalidStateError",
    "MissingError",
    "NetworkInfo",
    "NetworkSpec",
    "OutboundPolicy",
    "PublishedPort",
    "Runtime",
    "StandardInput",
    "StoppedError",
    "StorageError",
    "UnsupportedError",
    "box_options",
    "error_classes",
    "image_registry",
    "is_runtime",
    "network_spec_object",
    "open_runtime",
    "refused_by_both",
    "secret",
]


class ExitStatus(Protocol):
    """How an execution ended: ``exit_code`` is negative for a signal."""

    exit_code: int
    error_message: str | None


class StandardInput(Protocol):
    """The standard input of an execution."""

    def send_input(self, data: bytes) -> Awaitable[None]:
        """Send bytes. More than 4 MB in one call hangs (measured on BoxLite 0.10.8)."""
        ...

    def close(self) -> Awaitable[None]:
        """Close it, so that the process reads end of file."""
        ...


class Execution(Protocol):
    """A process that was started in a box."""

    def stdin(self) -> StandardInput:
        """Return its standard input."""
        ...

    def stdout(self) -> AsyncIterator[str]:
        """Return its standard output; can be taken once. Bytes that are not UTF-8 are replaced."""
        ...

    def stderr(self) -> AsyncIterator[str]:
        """Return its standard error; can be taken once. Bytes that are not UTF-8 are replaced."""
        ...

    def wait(self) -> Awaitable[ExitStatus]:
        """Wait for its end."""
        ...

    def resize_tty(self, rows: int, cols: int) -> Awaitable[None]:
        """Set the size of its terminal; an error when it has none."""
        ...


class BoxState(Protocol):
    """What BoxLite says about the life of a box."""

    running: bool
    status: str
    pid: int | None
    exit_code: int | None


class OutboundPolicy(Protocol):
    """The outbound network policy of a box."""

    mode: str
    allow_net: list[str]


class PublishedPort(Protocol):
    """A TCP port of the guest that is bound on the host."""

    guest_port: int
    host_ip: str
    host_port: int
    protocol: str


class NetworkInfo(Protocol):
    """The network of a box."""

    outbound: OutboundPolicy | None
    published_ports: list[PublishedPort] | None


class BoxInfo(Protocol):
    """What BoxLite says about a box."""

    id: str
    name: str | None
    cpus: int
    memory_mib: int
    image: str
    state: BoxState
    network: NetworkInfo | None  # None over REST, which does not tell (measured on BoxLite 0.10.8)


class Box(Protocol):
    """A handle on a microVM. It is spent once the box was stopped."""

    id: str

    def start(self) -> Awaitable[None]:
        """Boot it."""
        ...

    def stop(self) -> Awaitable[None]:
        """Stop it."""
        ...

    def info(self) -> Awaitable[BoxInfo]:
        """Return what BoxLite knows about it, without asking the guest."""
        ...

    def exec(
        self,
        command: str,
        args: list[str] | None = None,
        env: list[tuple[str, str]] | None = None,
        *,
        tty: bool = False,
        user: str | None = None,
        timeout_secs: float | None = None,
        cwd: str | None = None,
    ) -> Awaitable[Execution]:
        """Start a process in it."""
        ...

    def clone_box(self, *, name: str | None = None) -> Awaitable[Box]:
        """Make another box with a copy-on-write copy of its disk and its settings. It must be stopped."""
        ...

    def copy_out(self, container_src: str, host_dest: str, /) -> Awaitable[None]:
        """Copy a file of the guest to the host."""
        ...


class ImageInfo(Protocol):
    """An image in the cache of a home: ``id`` is the digest of its manifest, ``reference`` what it was pulled as."""

    id: str
    reference: str


class Images(Protocol):
    """The cache of pulled images of a home."""

    def pull(self, reference: str) -> Awaitable[object]:
        """Pull an image from its registry."""
        ...

    def list(self) -> Awaitable[list[ImageInfo]]:
        """Return what is in the cache."""
        ...


class Runtime(Protocol):
    """A BoxLite runtime: the owner of one home directory."""

    @property
    def images(self) -> Images:
        """The cache of pulled images."""
        ...

    def create(self, options: object, name: str | None = None) -> Awaitable[Box]:
        """Create a box without booting it."""
        ...

    def get(self, id_or_name: str) -> Awaitable[Box | None]:
        """Return a box by id or name; matches by prefix."""
        ...

    def list_info(self) -> Awaitable[list[BoxInfo]]:
        """Return what BoxLite knows about all boxes."""
        ...

    def remove(self, id_or_name: str, force: bool = False) -> Awaitable[None]:
        """Remove a box and its disks."""
        ...

    def shutdown(self, timeout: int | None = None) -> Awaitable[None]:
        """Stop all boxes and release the home."""
        ...


class NetworkSpec(Protocol):
    """The network policy that a box is created with."""

    outbound: OutboundPolicy


def _attribute(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _error(name: str) -> type[Exception]:
    return cast("type[Exception]", _attribute("boxlite.errors", name))


BoxliteError = _error("BoxliteError")
ConfigError = _error("ConfigError")
CopyUnsupportedError = _error("UnsupportedError")
EngineError = _error("EngineError")
ImagePullError = _error("ImageError")
InternalError = _error("InternalError")
InvalidStateError = _error("InvalidStateError")
MissingError = _error("NotFoundError")
StoppedError = _error("StoppedError")
StorageError = _error("StorageError")
UnsupportedError = _error("UnsupportedError")


def error_classes() -> Mapping[str, type[Exception]]:
    """Return every public error class of the installed BoxLite by name, its base among them."""
    found = vars(importlib.import_module("boxlite.errors"))
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, type) and issubclass(value, BoxliteError) and not name.startswith("_")
    }


def is_runtime(candidate: object) -> bool:
    """Return whether an object is a ``boxlite.Boxlite``, local or over REST: the class is the same."""
    return isinstance(candidate, _attribute("boxlite", "Boxlite"))


def refused_by_both() -> object:
    """Build box options that every runtime refuses before it makes or sends anything (measured on BoxLite 0.10.8).

    A local runtime answers with :data:`UnsupportedError`, because it has no AutoStop. A REST runtime answers with
    ``ConfigError``, because the box would be deleted before it is stopped.
    """
    return cast("object", _attribute("boxlite", "BoxOptions")(image="none", auto_stop=10, auto_delete=5))


def image_registry(*, host: str, transport: str, username: str | None, password: str | None) -> object:
    """Build BoxLite's object for one registry. Its certificate is always verified."""
    made = _attribute("boxlite", "ImageRegistry")(host, transport=transport, username=username, password=password)
    return cast("object", made)


def open_runtime(home: Path, *, registries: Sequence[object] = ()) -> Runtime:
    """Open the runtime that owns ``home``.

    Args:
        home: The BoxLite home directory; one runtime at a time can own it.
        registries: What :func:`image_registry` made, for registries that need a login or speak plain HTTP.

    Returns:
        The runtime.

    Raises:
        BoxliteError: The runtime cannot be opened; ``InternalError`` when another runtime owns the home.
    """
    options = _attribute("boxlite", "Options")(home_dir=str(home), image_registries=list(registries))
    return cast("Runtime", _attribute("boxlite", "Boxlite")(options))


def network_spec_object(*, mode: str, allow_net: Sequence[str]) -> NetworkSpec:
    """Build BoxLite's network object. Only :func:`cedarbox.boxlite.network.network_spec` calls this."""
    outbound = _attribute("boxlite", "OutboundNetworkSpec")(mode=mode, allow_net=list(allow_net))
    return cast("NetworkSpec", _attribute("boxlite", "NetworkSpec")(outbound=outbound))


def secret(*, name: str, value: str, hosts: Sequence[str], placeholder: str) -> object:
    """Build BoxLite's object for a secret that the guest never has; its text form hides the value."""
    made = _attribute("boxlite", "Secret")(name, value, hosts=list(hosts), placeholder=placeholder)
    return cast("object", made)


def box_options(
    *,
    image: str | None,
    rootfs: str | None,
    cpus: int,
    memory_mib: int,
    disk_size_gb: int | None,
    network: NetworkSpec,
    ports: Sequence[int],
    entrypoint: Sequence[str],
    volumes: Sequence[tuple[str, str]] = (),
    secrets: Sequence[object] = (),
    remote: bool = False,
) -> object:
    """Build BoxLite's options for one box.

    What is not a parameter is the same for every box:

    * ``auto_delete=0``: stopping keeps the disk, so that a session can be resumed; ``detach=False``: the microVM ends
      with this process, also after kill -9 (measured on BoxLite 0.10.8).
    * ``user="0:0"``: commands without a user of their own run as root of the guest, as the SDK expects when it makes
      accounts and directories. The boundary is the microVM, not the guest's user.
    * ``advanced`` is ``SecurityOptions.standard()``: bubblewrap jail and seccomp filter on, file descriptors closed. A
      ``SecurityOptions()`` written out would switch jail and filter off (measured on BoxLite 0.10.8), so it is never
      built from its constructor here. ``maximum()`` adds only resource limits of the host process, among them 1 GiB
      as the largest file: a disk that grows beyond would end the microVM.

    Args:
        image: An image reference, or ``None`` when ``rootfs`` is given.
        rootfs: The path of an OCI layout directory, or ``None`` when ``image`` is given.
        cpus: Virtual processors.
        memory_mib: Memory in MiB.
        disk_size_gb: Size of the root disk in GB; ``None`` means BoxLite's default.
        network: The network policy.
        ports: TCP ports of the guest that are bound on 127.0.0.1 at a free port each.
        entrypoint: The main command of the box.
        volumes: Real paths of directories of the host, and where they appear in the guest. Always read-only: in a
            writable one, a change of a mode, owner or name ends the microVM (measured on BoxLite 0.10.8).
        secrets: What :func:`secret` made.
        remote: For a REST runtime: without ``advanced``, which BoxLite refuses there, because the isolation of a
            remote microVM is its operator's.

    Returns:
        An object for ``Runtime.create``.
    """
    advanced = None
    if not remote:
        security = _attribute("boxlite", "SecurityOptions").standard()
        advanced = _attribute("boxlite", "AdvancedBoxOptions")(security=security)
    return cast(
        "object",
        _attribute("boxlite", "BoxOptions")(
            image=image,
            rootfs_path=rootfs,
            cpus=cpus,
            memory_mib=memory_mib,
            disk_size_gb=disk_size_gb,
            network=network,
            ports=[(0, port, "tcp", "127.0.0.1") for port in ports],
            volumes=[(host, guest, True) for host, guest in volumes],
            auto_delete=0,
            detach=False,
            entrypoint=list(entrypoint),
            cmd=[],
            user="0:0",
            advanced=advanced,
            secrets=list(secrets),
        ),
    )
