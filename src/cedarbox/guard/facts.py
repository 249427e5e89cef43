"""What a sandbox would be given: the facts that ``create`` and ``resume`` are decided on.

The guard must know what a backend opens before it opens it. A client can say so itself (``describe_sandbox``); the
SDK's own backends are known here. Of any other backend nothing is known, so the worst is assumed: it runs somewhere
else, with an unrestricted network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol, runtime_checkable

from agents.sandbox.session.sandbox_client import BaseSandboxClient

from cedarbox.errors import CanonicalizationError
from cedarbox.guard.manifest import environment_questions
from cedarbox.guard.question import Impossible, Question
from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import Host, canonical_host, canonical_path
from cedarbox.policy.entities import Base

__all__ = ["Describes", "SandboxFacts", "facts_of", "mounting"]

# What the options and states of the backends in agents 0.24 call it.
_ENVIRONMENTS: Final = (
    *("env", "envs", "env_vars", "environment", "base_envs", "base_env_vars"),
    *("secrets", "secret_refs", "managed_secrets"),
)


@dataclass(frozen=True, slots=True)
class SandboxFacts:
    """What a sandbox would be given.

    Attributes:
        image: Reference as configured, or the digest of a local layout.
        digest: ``sha256:…`` of the image's manifest, None when nothing pins it.
        repository: ``local`` for a layout on disk, else registry and path.
        isolation: A member of ``Sandbox::Isolation``.
        egress: Host names that a network card lets out; () for no card, None for a network that the backend cannot
            restrict.
        ports: Guest ports that would be published.
        public_ports: They would be reachable from other machines.
        vcpus: Virtual processors, when the backend says.
        memory_mib: Memory in MiB, when the backend says.
        disk_gb: Disk in GB, when the backend says.
        mounts: Directories of the host that it is given: path as configured, real path, path in the guest, writable.
        snapshots: The forms in which it may save a workspace: ``tar``, ``native`` or both.
        environment: Names of the environment variables that its options give to every process.
        lifetime_s: Seconds after which it is ended, counted from here; None when nothing ends it.
        signed: A signature of the image by a key that the site trusts was verified.
        requested: To what the options narrow what goes through the broker, canonical; None when they do not.
        secrets: Name of each secret that the backend puts into requests by itself, and the host that they are to.
        derive: There is to be a network card, and its list is what the policies permit. It has to be filled in.
    """

    image: str
    digest: str | None
    repository: str
    isolation: Literal["none", "container", "microvm", "hosted"]
    egress: tuple[str, ...] | None
    ports: tuple[int, ...] = ()
    public_ports: bool = True
    vcpus: int | None = None
    memory_mib: int | None = None
    disk_gb: int | None = None
    mounts: tuple[tuple[str, str, str, bool], ...] = ()
    snapshots: tuple[Literal["tar", "native"], ...] = ("tar",)
    environment: tuple[str, ...] = ()
    lifetime_s: int | None = None
    signed: bool = False
    requested: tuple[str, ...] | None = None
    derive: bool = False
    secrets: tuple[tuple[str, str], ...] = ()

    def questions(self, verb: str) -> Iterator[Question | Impossible]:
        """Yield everything that has to be asked before this sandbox may be made; what it opens first, itself last.

        A network card is asked about name by name on the ports that a named rule opens (80 and 443: measured on
        BoxLite 0.10.8), and for ``resolve`` of any name, because the gateway behind it answers every DNS query. An
        address as an entry opens all its ports, a wildcard every name below it; neither can be decided exactly, so
        both are refused.

        Args:
            verb: ``create`` or ``resume``.
        """
        if self.egress is None:
            yield Question("egress connect", actions.connect_anywhere, "any address")
        for entry in self.egress or ():
            for port, proto in ((443, "tls"), (80, "http")):
                yield Question("egress connect", _named_host(entry, port, proto), entry)
        if self.egress:
            yield Question("egress resolve", lambda base: actions.resolve(base, None), "any name")
        for secret, host in self.secrets:
            if host not in (self.egress or ()):
                # BoxLite opens port 443 of a secret's host, listed or not (measured on 0.10.8).
                yield Impossible("useSecret", f'Secret::"{secret}"', f"its host {host} is not on the allow-list")
            yield Question("secret use", _using(secret, host), f"{secret} for {host}")
        for port in self.ports:
            yield Question("port expose", self._exposing(port), str(port))
        for host, real, guest, writable in self.mounts:
            yield Question("mount", mounting(host, real, guest, writable=writable), f"{host} at {guest}")
        yield from environment_questions(self.environment)
        yield Question(f"sandbox {verb}", self._making(verb), self.image)

    def _making(self, verb: str) -> Callable[[Base], Action]:
        def name(base: Base) -> Action:
            action = actions.create(
                base,
                image=self.image,
                digest=self.digest,
                repository=self.repository,
                isolation=self.isolation,
                egress="unrestricted" if self.egress is None else "listed" if self.egress else "none",
                vcpus=self.vcpus,
                memory_mib=self.memory_mib,
                disk_gb=self.disk_gb,
                lifetime_s=self.lifetime_s,
                signed=self.signed is True,
            )
            return actions.resume(action) if verb == "resume" else action

        return name

    def _exposing(self, port: int) -> Callable[[Base], Action]:
        return lambda base: actions.expose_port(base, port=port, public=self.public_ports)


def mounting(host: str, real: str, guest: str, *, writable: bool) -> Callable[[Base], Action]:
    """Name the action of giving a directory of the host to a guest.

    Args:
        host: Its path as configured.
        real: Its path without symbolic links.
        guest: Its path in the guest.
        writable: The guest may change it.
    """

    def name(base: Base) -> Action:
        if canonical_path(real) != real:
            raise CanonicalizationError(f"the path {real!r} has more than one spelling, so no rule could name it")
        is_symlink = canonical_path(host) != real
        return actions.mount(base, host_path=real, guest_path=guest, writable=writable, is_symlink=is_symlink)

    return name


def _named_host(entry: str, port: int, proto: str) -> Callable[[Base], Action]:
    def name(base: Base) -> Action:
        target = canonical_host(entry)
        if not isinstance(target, Host):
            raise CanonicalizationError(f"the allow-list entry {entry!r} opens every port of an address; name a host")
        # BoxLite itself refuses a listed name that resolves to anything but a public address (measured on 0.10.8).
        return actions.connect(base, target, port=port, proto=proto, assumed_class="public")

    return name


def _using(secret: str, entry: str) -> Callable[[Base], Action]:
    def name(base: Base) -> Action:
        host = canonical_host(entry)
        if not isinstance(host, Host):
            raise CanonicalizationError(f"the secret {secret} is for {entry}, which is not a name")
        return actions.use_secret(base, name=secret, host=host, port=443)

    return name


@runtime_checkable
class Describes(Protocol):
    """A client that can say what it would open."""

    def describe_sandbox(self, source: object) -> Mapping[str, object]:
        """Return the fields of :class:`SandboxFacts` for options or for a saved state.

        Raises:
            ImageError: The image is missing or does not match its digests.
            ConfigurationError: The options cannot be used.
        """


def facts_of(client: BaseSandboxClient[object], source: object) -> SandboxFacts:
    """Return what a sandbox made from options, or taken up from a saved state, would be given.

    Args:
        client: The client that would make it.
        source: Its options, or a session state.
    """
    if isinstance(client, Describes):
        return SandboxFacts(**client.describe_sandbox(source))  # type: ignore[arg-type]  # checked by the dataclass's users
    ports = tuple(getattr(source, "exposed_ports", None) or ())
    given = _environment_of(source)
    if client.backend_id == "unix_local":
        return SandboxFacts("host", None, "host", "none", None, ports=ports, public_ports=False, environment=given)
    if client.backend_id == "docker":
        image = str(getattr(source, "image", "") or "unknown")
        closed = getattr(source, "network_mode", None) == "none"
        digest = image.partition("@")[2] or None
        repository, egress = image.partition("@")[0], () if closed else None
        return SandboxFacts(image, digest, repository, "container", egress, ports=ports, environment=given)
    return SandboxFacts("unknown", None, client.backend_id, "hosted", None, ports=ports, environment=given)


def _environment_of(source: object) -> tuple[str, ...]:
    found = (getattr(source, name, None) for name in _ENVIRONMENTS)
    return tuple(dict.fromkeys(str(name) for given in found if isinstance(given, Mapping) for name in given))
