"""Settings: ``cedarbox.toml``, overridden by ``CEDARBOX_SECTION__KEY`` in the environment, overridden by arguments."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from cedarbox.errors import ConfigurationError
from cedarbox.files import open_regular
from cedarbox.policy.trust import Trust
from cedarbox.settings.record import AuditSettings, OtlpSettings, TimestampSettings, WitnessSettings
from cedarbox.settings.section import Section

if TYPE_CHECKING:
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
_MAX_FILE = 4 * 1024 * 1024


class PolicySettings(Section):
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


class SandboxSettings(Section):
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


class RegistrySettings(Section):
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


class EgressLimitSettings(Section):
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


class EgressSecretSettings(Section):
    """A secret that the host puts into permitted requests in plain HTTP: ``[egress.secrets.mirror-token]``.

    Attributes:
        reference: Where its value is: ``env:NAME``, a variable of this process, or ``file:/path``, an absolute path.
            The value itself does not belong into settings.
    """

    reference: Annotated[str, Field(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/[^\x00-\x1f]*[^\x00-\x1f/])$")]


_SecretName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]


class EgressSettings(Section):
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
    data = _read(chosen, missing_ok=path is None)
    # pydantic-settings takes other spellings of a section, and `_env_file` and the like as commands to read more: then
    # something decides that whoever reviewed the file did not see.
    if unknown := sorted(data.keys() - Settings.model_fields.keys()):
        hint = f"known: {', '.join(Settings.model_fields)}"
        raise ConfigurationError(f"{chosen}: unknown section {unknown[0]!r}", hint=hint)
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


def _read(path: Path, *, missing_ok: bool) -> dict[str, Any]:
    """Read the file; one that is there and cannot be read is never as one that is missing."""
    hint = "check the path and its mode"
    if missing_ok and not os.path.lexists(path):
        return {}
    try:
        with open_regular(path, follow=True) as file:
            content = file.read(_MAX_FILE + 1)
        if len(content) > _MAX_FILE:
            raise ConfigurationError(f"{path}: larger than {_MAX_FILE} bytes", hint="make it shorter")
        return tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot read it ({error.strerror})", hint=hint) from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}:{line}: not UTF-8 text", hint="save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from None
    except RecursionError:
        raise ConfigurationError(f"{path}: not TOML: nested too deep") from None
    except ValueError:
        raise ConfigurationError("a path with a NUL", hint=hint) from None


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
