"""Settings: ``cedarbox.toml``, overridden by ``CEDARBOX_SECTION__KEY`` in the environment, overridden by arguments."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from cedarbox.audit.pace import Pace
from cedarbox.audit.target import Target
from cedarbox.errors import ConfigurationError
from cedarbox.policy.trust import Trust

if TYPE_CHECKING:
    from cedarbox.audit.anchoring import Anchor
    from cedarbox.boxlite.registry import Registry

__all__ = [
    "AuditSettings",
    "EgressLimitSettings",
    "EgressSecretSettings",
    "EgressSettings",
    "OtlpSettings",
    "PolicySettings",
    "RegistrySettings",
    "SandboxSettings",
    "Settings",
    "TimestampSettings",
    "WitnessSettings",
    "load_settings",
]

_FILE = Path("cedarbox.toml")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PolicySettings(_Section):
    """What decides.

    Attributes:
        bundle: Directory of the policy bundle.
        principal: The agent, as ``entities.json`` of the bundle declares it.
        mode: ``enforce``, or ``shadow``: what the policies deny is recorded as denied and happens all the same. Use it
            to try a bundle on a site that has none; it protects nothing.
        watch_s: Seconds between two looks at the bundle for changes; None does not look.
        sighup: Load the bundle again on SIGHUP.
        require_signature: Refuse a bundle that is not signed, has expired, or is older than one that was accepted.
        public_keys: PEM files of the Ed25519 keys whose signatures count. With keys, a signature that is there is
            verified even when none is required.
        signature_threshold: How many different keys must have signed.
        state: Where the newest accepted revisions are remembered; None for ``bundles.json`` beside the ledger.
    """

    bundle: Path = Path("policies/airgapped")
    principal: Annotated[str, Field(min_length=1)] = "agent"
    mode: Literal["enforce", "shadow"] = "enforce"
    watch_s: Annotated[float | None, Field(ge=0.1, le=3600)] = None
    sighup: bool = False
    require_signature: bool = False
    public_keys: tuple[Path, ...] = ()
    signature_threshold: Annotated[int, Field(ge=1)] = 1
    state: Path | None = None

    @model_validator(mode="after")
    def _signers_are_known(self) -> PolicySettings:
        if self.require_signature and not self.public_keys:
            raise ValueError("require_signature needs public_keys")
        return self


class TimestampSettings(_Section):
    """A time-stamp server (RFC 3161) that vouches for when a checkpoint existed: ``[audit.timestamp]``.

    Attributes:
        url: Its address. What is sent is a digest; the answer is signed, so http will do.
        ca_file: PEM file of the certificate authorities that may vouch for its signature.
        tls_ca_file: PEM file of those that may vouch for an https address; None for ``ca_file``.
        every_s: Seconds between two stamps. There is one at opening and one at closing besides.
        timeout_s: Longest time for one request, in seconds.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^/\s@]+(/\S*)?$")]
    ca_file: Path
    tls_ca_file: Path | None = None
    every_s: Annotated[float, Field(ge=1, le=604_800)] = 3600.0
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0


class WitnessSettings(_Section):
    """A program that is shown each new checkpoint and may keep it or sign it: ``[audit.witness]``.

    Attributes:
        command: The program by its absolute path, and its arguments. No shell reads them.
        every_s: Seconds between two calls. There is one at opening and one at closing besides.
        timeout_s: Seconds after which it is ended.
    """

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    every_s: Annotated[float, Field(ge=1, le=604_800)] = 3600.0
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 30.0

    @model_validator(mode="after")
    def _program_is_named(self) -> WitnessSettings:
        if not self.command[0].startswith("/") or any("\0" in part for part in self.command):
            raise ValueError("command must begin with the absolute path of a program")
        return self


class AuditSettings(_Section):
    """Where the ledger is, and who outside of this host vouches for it.

    Attributes:
        directory: Made with mode 0700 when it is missing.
        signing_key: Ed25519 key that signs next, made on first use with mode 0600; None for ``<name>.key`` beside the
            directory of that name.
        segment_mib: Size in MiB at which a file of records is sealed and the next one begun.
        approvals: Directory of the approvals that calls wait for; None for ``approvals`` beside the directory.
        timestamp: A time-stamp server; None for none.
        witness: A program that witnesses; None for none.
    """

    directory: Path = Path(".cedarbox/ledger")
    signing_key: Path | None = None
    segment_mib: Annotated[int, Field(ge=1, le=4096)] = 64
    approvals: Path | None = None
    timestamp: TimestampSettings | None = None
    witness: WitnessSettings | None = None

    def anchors(self) -> tuple[Anchor, ...]:
        """Return what vouches for the checkpoints from outside; the files of authorities are read by this.

        Raises:
            ConfigurationError: A file of authorities cannot be used.
        """
        # Late, because few commands need them.
        from cedarbox.audit.timestamps import TimestampAnchor
        from cedarbox.audit.witness import WitnessAnchor

        stamp, witness = self.timestamp, self.witness
        found: list[Anchor] = []
        if stamp is not None:
            found.append(
                TimestampAnchor(
                    stamp.url,
                    ca_file=stamp.ca_file,
                    tls_ca_file=stamp.tls_ca_file,
                    every_s=stamp.every_s,
                    timeout_s=stamp.timeout_s,
                )
            )
        if witness is not None:
            found.append(WitnessAnchor(witness.command, every_s=witness.every_s, timeout_s=witness.timeout_s))
        return tuple(found)

    @property
    def segment_bytes(self) -> int:
        """The size of a segment in bytes."""
        return self.segment_mib * 1024 * 1024


class OtlpSettings(_Section):
    """Where spans, metrics and records are sent, and on what terms. Nothing of it is taken from a proxy setting.

    Attributes:
        endpoint: ``http://host:port`` or ``https://host:port`` of an OTLP collector, or ``unix:/path/to.sock``; None
            keeps all on disk only. Plain http is for loopback addresses.
        protocol: ``http/protobuf`` (port 4318 by custom) or ``grpc`` (4317).
        spans: Directory of the spans that wait to be sent; None for ``spans`` beside the ledger.
        headers: Sent with every request, such as an authorization. A value ``env:NAME`` or ``file:/absolute/path``
            (mode 0600) says where the value is, and is read for each request; so no token stands here.
        ca_file: PEM file of the certificate authorities that may vouch for the collector. https needs it: no other
            authority is trusted.
        client_certificate: PEM file of the certificate to show to the collector (mutual TLS).
        client_key: Its private key, PEM, without a password, mode 0600.
        insecure: Send in clear over a network, because something else protects it.
        compression: ``gzip`` or ``none``.
        timeout_s: Longest time for one request, in seconds.
        batch_records: Records or spans in one request at most.
        batch_kib: KiB of them in one request, unless a single one is longer.
        metrics_interval_s: Seconds between two looks at whether there are new metrics to send; 0 keeps and sends
            none, for a collector that takes none.
        capture_content: Put prompts, answers, arguments, results and output on spans, as far as the policies permit
            ``captureContent``. Without both, spans hold none of it.
        content_max_chars: Longest content of one attribute; of longer content the older part is left out.
    """

    endpoint: Annotated[str | None, Field(pattern=r"^(https?://[^/\s]+(/\S*)?|unix:/\S.*)$")] = "http://127.0.0.1:4318"
    protocol: Literal["http/protobuf", "grpc"] = "http/protobuf"
    spans: Path | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    insecure: bool = False
    compression: Literal["gzip", "none"] = "gzip"
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    batch_records: Annotated[int, Field(ge=1, le=10_000)] = 512
    batch_kib: Annotated[int, Field(ge=1, le=16_384)] = 1024
    metrics_interval_s: Annotated[float, Field(ge=0, le=3600)] = 60.0
    capture_content: bool = False
    content_max_chars: Annotated[int, Field(ge=64, le=1_000_000)] = 16_384

    @model_validator(mode="after")
    def _terms_go_together(self) -> OtlpSettings:
        try:
            self.target()
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return self

    def target(self) -> Target | None:
        """Return where to send to; None for nowhere. No file is read by this.

        Raises:
            ConfigurationError: The terms do not go together.
        """
        if self.endpoint is None:
            return None
        return Target(
            endpoint=self.endpoint,
            protocol=self.protocol,
            ca_file=self.ca_file,
            client_certificate=self.client_certificate,
            client_key=self.client_key,
            insecure=self.insecure,
            headers=self.headers,
            compression=self.compression,
            timeout_s=self.timeout_s,
        )

    def pace(self) -> Pace:
        """Return how much is sent at once."""
        return Pace(batch_units=self.batch_records, batch_bytes=self.batch_kib * 1024)


class SandboxSettings(_Section):
    """What a sandbox is made of.

    Attributes:
        image: Image reference.
        rootfs: Local OCI layout; wins over ``image``.
        cpus: Virtual processors.
        memory_mib: Memory in MiB.
        boot_timeout_s: Longest boot, in seconds. The first boot of an image also unpacks it.
        store: Image store; None for the one of this user.
        image_keys: PEM files of public keys; an image counts as signed when one of them signed it, in cosign's format.
        lock: Lock file of images; None for ``cedarbox.images.lock`` in the working directory, which may be missing.
        snapshots: What becomes of a workspace when nobody asked for a snapshot: ``none``, or ``sealed`` (encrypted, in
            ``snapshots`` beside the ledger).
        lifetime_s: Seconds after which a sandbox is ended, whatever it does; None for no end.
    """

    image: str | None = None
    rootfs: Path | None = None
    cpus: Annotated[int, Field(ge=1)] = 1
    memory_mib: Annotated[int, Field(ge=128)] = 1024
    boot_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    store: Path | None = None
    lock: Path | None = None
    image_keys: tuple[Path, ...] = ()
    snapshots: Literal["none", "sealed"] = "none"
    lifetime_s: Annotated[int | None, Field(ge=1)] = None


class RegistrySettings(_Section):
    """A registry that needs a login or speaks plain HTTP: ``[registries."registry.corp.example:5000"]``.

    Attributes:
        username: The account; None for no login.
        password_env: The environment variable that holds the password.
        password_file: The file that holds the password.
        transport: ``https``, or ``http``; a login over http is for loopback only.
    """

    username: str | None = None
    password_env: str | None = None
    password_file: Path | None = None
    transport: Literal["https", "http"] = "https"


class EgressLimitSettings(_Section):
    """How much one sandbox may make of its connections: ``[egress.limits]``. None leaves what the broker has for it.

    Attributes:
        connections: Connections at one time.
        connections_per_s: New connections in a second.
        bytes_out: Bytes that one connection may send.
        bytes_in: Bytes that one connection may receive.
        first_byte_s: Seconds until the guest must have said what it wants.
        idle_s: Seconds after which a connection on which nothing moves is closed.
        dial_s: Seconds in which a server must be reached.
        resolve_s: Seconds in which a name must be looked up.
    """

    connections: Annotated[int | None, Field(ge=1)] = None
    connections_per_s: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    bytes_out: Annotated[int | None, Field(ge=1)] = None
    bytes_in: Annotated[int | None, Field(ge=1)] = None
    first_byte_s: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    idle_s: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    dial_s: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    resolve_s: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None

    def given(self) -> dict[str, Any]:
        """Return the limits that were set, by name."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


class EgressSecretSettings(_Section):
    """A secret that the host puts into permitted requests in plain HTTP: ``[egress.secrets.mirror-token]``.

    Attributes:
        reference: Where its value is: ``env:NAME``, a variable of this process, or ``file:/path``, an absolute path.
            The value itself does not belong into settings.
    """

    reference: Annotated[str, Field(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/[^\x00-\x1f]*[^\x00-\x1f/])$")]


_SecretName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]


class EgressSettings(_Section):
    """How a guest reaches what the policies permit.

    Attributes:
        mode: ``broker``: the guest has no network card, and this process carries each permitted connection. ``nic``: it
            has one, with the backend's own list of hosts, which is coarser than the policies and leaks look-ups of
            names. ``none``: it reaches nothing.
        limits: How much one sandbox may make of its connections; for ``broker``.
        secrets: By name, as policies about ``useSecret`` name them: a small letter, then small letters, digits, hyphens
            and underscores, 64 at most.
    """

    mode: Literal["broker", "nic", "none"] = "broker"
    limits: EgressLimitSettings = EgressLimitSettings()
    secrets: dict[_SecretName, EgressSecretSettings] = Field(default_factory=dict)


class Settings(BaseSettings):
    """All settings. Unknown keys are errors, in the file and in the environment."""

    model_config = SettingsConfigDict(
        env_prefix="CEDARBOX_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    policy: PolicySettings = PolicySettings()
    audit: AuditSettings = AuditSettings()
    otlp: OtlpSettings = OtlpSettings()
    sandbox: SandboxSettings = SandboxSettings()
    egress: EgressSettings = EgressSettings()
    registries: dict[str, RegistrySettings] = Field(default_factory=dict)

    def trust(self) -> Trust:
        """Return what is demanded of a policy bundle; the files of public keys are read by this.

        Raises:
            ConfigurationError: A key cannot be read, or there are fewer different keys than signatures needed.
        """
        given = self.policy
        return Trust.read(
            given.public_keys,
            required=given.require_signature,
            threshold=given.signature_threshold,
            state=given.state or self.audit.directory.parent / "bundles.json",
        )

    def logins(self) -> tuple[Registry, ...]:
        """Return the registries for a client; no password is read by this.

        Raises:
            ConfigurationError: A host or a login cannot be used.
        """
        # Late, because commands that boot nothing read settings too and must not load BoxLite.
        from cedarbox.boxlite.registry import Registry

        return tuple(Registry(host, **dict(given)) for host, given in self.registries.items())


def load_settings(path: Path | None = None, **overrides: Mapping[str, Any]) -> Settings:
    """Read the settings.

    Args:
        path: The file; None for ``cedarbox.toml`` in the working directory, which may be missing.
        overrides: Values by section that win over the file and the environment; None values are left out.

    Raises:
        ConfigurationError: The file cannot be read, or a value cannot be used; the message names the key.
    """
    chosen = path or _FILE
    try:
        data = tomllib.loads(chosen.read_text("utf-8")) if path or chosen.exists() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{chosen}: cannot read it ({error})", hint="check the path and its mode") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{chosen}: not TOML: {error}") from None
    try:
        environment = EnvSettingsSource(Settings)()
        merged = _merge(_merge(data, environment), overrides)
        return Settings(**merged)
    except SettingsError:
        # pydantic-settings names the section only.
        raise ConfigurationError(
            f"{_not_json()}: the value is not JSON", hint='a table is written like {"name": "value"}, a list like ["a"]'
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{chosen} or CEDARBOX_*: {key}: {first['msg']}") from None


def _not_json() -> str:
    """Name the variables of the environment that may be meant: each value that a table or a list could be."""
    names, sections = [], {f"CEDARBOX_{section.upper()}" for section in Settings.model_fields}
    for name, value in sorted(os.environ.items()):
        if name.upper().partition("__")[0] in sections:
            try:
                json.loads(value)
            except ValueError:
                names.append(name)
    return " or ".join(names) or "CEDARBOX_*"


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping):
            merged[key] = _merge(merged.get(key) or {}, value)
        elif value is not None:
            merged[key] = value
    return merged
