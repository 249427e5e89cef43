"""How a bundle is linted: ``lint.toml`` beside its policies.

.. code-block:: toml

    fail_level = "warning"             # the mildest finding that fails

    [rules]
    S021 = "error"                     # worse than by default
    S012 = {severity = "note", reason = "the gateway in front of the host checks ports"}
    S080 = {severity = "off", reason = "the tests are in another repository"}

    [options]
    sensitive_paths = ["/srv/ledger"]  # besides the built-in ones

The file decides nothing, so it is not among what is signed. A rule is switched off or made milder only with a reason,
and every report tells that it was.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from cedarbox.errors import BundleError, CanonicalizationError
from cedarbox.files import open_regular
from cedarbox.policy.canonical import Host, canonical_host, canonical_path
from cedarbox.policy.reading import utf8_text
from cedarbox.policy.schema import enumerations
from cedarbox.review.finding import SEVERITIES, Severity

__all__ = ["FILE", "ISOLATIONS", "Level", "LintConfig", "Options", "RuleSetting", "config_of", "read_config"]

FILE: Final = "lint.toml"
"""Its name."""
ISOLATIONS: Final = ("none", "hosted", "container", "microvm")
"""The members of ``Sandbox::Isolation``, the weakest first."""
Level = Literal["error", "warning", "note", "off"]

_MAX_FILE: Final = 256 * 1024
_KEYS: Final = ("fail_level", "rules", "options")


@dataclass(frozen=True, slots=True)
class Options:
    """What the rules take for granted.

    Attributes:
        sensitive_paths: Paths of the host that no mount may let be written, besides the built-in ones.
        wide_domains: Domains below which anything may be reached although others can register names there, or although
            they are a single label, such as ``corp``.
        isolation_floor: The weakest isolation that a permit for a sandbox may give: ``microvm``, ``container``, …
        sensitive_capabilities: Capabilities that an untrusted agent may not be permitted.
        require_signed_images: A permit for a sandbox must ask for a verified signature of the image.
        max_ports: The most ports that one permit may open to a target.
        egress: How the sandbox reaches the network: through the ``broker``, which enforces everything, or by a network
            card (``nic``), which is told host names.
        idle_forbids: Tell forbids that no permit is affected by. Such forbids guard against permits to come.
    """

    sensitive_paths: tuple[str, ...] = ()
    wide_domains: tuple[str, ...] = ()
    isolation_floor: str = "microvm"
    sensitive_capabilities: tuple[str, ...] = ("memory", "unknown")
    require_signed_images: bool = False
    max_ports: int = 64
    egress: str = "broker"
    idle_forbids: bool = False


@dataclass(frozen=True, slots=True)
class RuleSetting:
    """What a bundle says about one rule.

    Attributes:
        level: The severity of its findings, or ``off``.
        reason: Why it is milder than by default; empty when it is not.
    """

    level: Level
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LintConfig:
    """A configuration.

    Attributes:
        path: Where it was read; None for the defaults.
        fail_level: The mildest finding that fails.
        rules: By id.
        options: What the rules take for granted.
    """

    path: Path | None = None
    fail_level: Severity = "warning"
    rules: Mapping[str, RuleSetting] = field(default_factory=dict)
    options: Options = Options()


def read_config(path: Path, severities: Mapping[str, Severity], *, missing_ok: bool) -> LintConfig:
    """Read a configuration.

    Args:
        path: The file.
        severities: The default severity of every rule that can be configured, by id.
        missing_ok: A file that is not there is as an empty one.

    Raises:
        BundleError: It cannot be read or used; the message names the key.
    """
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        if missing_ok:
            return LintConfig()
        raise BundleError("no such file", path=path, hint="write it, or leave the option out") from None
    except (OSError, ValueError) as error:
        shown = error.strerror if isinstance(error, OSError) else "a path with a NUL"
        raise BundleError(f"cannot read it ({shown})", path=path, hint="it must be a plain file") from None
    if len(data) > _MAX_FILE:
        raise BundleError(f"larger than {_MAX_FILE} bytes", path=path, hint="make it shorter")
    return config_of(path, data, severities)


def config_of(path: Path, data: bytes, severities: Mapping[str, Severity]) -> LintConfig:
    """Return what the content of a configuration says.

    Args:
        path: What to call the file.
        data: Its content.
        severities: As for :func:`read_config`.

    Raises:
        BundleError: It cannot be used; the message names the key.
    """
    try:
        table = tomllib.loads(utf8_text(path, data))
    except tomllib.TOMLDecodeError as error:
        raise BundleError(f"not TOML: {error}", path=path, hint="save it as UTF-8 TOML") from None
    except RecursionError:
        raise BundleError("not TOML: nested too deep", path=path) from None
    _known(path, "key", table, _KEYS)
    level = table.get("fail_level", "warning")
    if level not in SEVERITIES:
        raise BundleError(f"fail_level is {level!r}", path=path, hint=f"one of {', '.join(SEVERITIES)}")
    return LintConfig(path, level, _rules(path, table.get("rules", {}), severities), _options(path, table))


def _known(path: Path, what: str, table: Any, known: Any) -> None:
    if not isinstance(table, dict):
        raise BundleError(f"expected a table of {what}s", path=path, hint=f"known: {', '.join(sorted(known))}")
    for name in table:
        if name not in known:
            raise BundleError(f"unknown {what} {name[:80]!r}", path=path, hint=f"known: {', '.join(sorted(known))}")


def _rules(path: Path, table: Any, severities: Mapping[str, Severity]) -> dict[str, RuleSetting]:
    _known(path, "rule", table, severities)
    found = {}
    for name, given in table.items():
        said = {"severity": given} if isinstance(given, str) else given
        if not isinstance(said, dict) or not {"severity"} <= said.keys() <= {"severity", "reason"}:
            hint = f'write {name} = "error", or {name} = {{severity = "off", reason = "…"}}'
            raise BundleError(f"cannot use what is said about {name}", path=path, hint=hint)
        level, reason = said["severity"], said.get("reason", "")
        if level not in get_args(Level):
            raise BundleError(f"the severity of {name} is {level!r}", path=path, hint="error, warning, note or off")
        if not isinstance(reason, str) or not reason.isprintable():
            raise BundleError(f"the reason for {name} must be one line of text", path=path)
        order: tuple[str, ...] = get_args(Level)
        if order.index(level) > order.index(severities[name]) and not reason.strip():
            hint = f'write {name} = {{severity = "{level}", reason = "…"}}'
            raise BundleError(f"{name} is made milder without a reason", path=path, hint=hint)
        found[name] = RuleSetting(level, reason.strip())
    return found


def _options(path: Path, table: Mapping[str, Any]) -> Options:
    given = table.get("options", {})
    known = {each.name: each.default for each in fields(Options)}
    _known(path, "option", given, known)
    made: dict[str, Any] = {}
    for name, value in given.items():
        default = known[name]
        if isinstance(default, tuple):
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise BundleError(f"{name} must be a list of text", path=path)
            made[name] = tuple(value)
        elif type(value) is not type(default):
            kind = {bool: "true or false", int: "a whole number", str: "text"}[type(default)]
            raise BundleError(f"{name} must be {kind}", path=path)
        else:
            made[name] = value
    options = replace(Options(), **made)
    for name, value, members in (
        ("isolation_floor", (options.isolation_floor,), ISOLATIONS),
        ("egress", (options.egress,), ("broker", "nic")),
        ("sensitive_capabilities", options.sensitive_capabilities, sorted(enumerations()["Capability"])),
    ):
        for item in value:
            if item not in members:
                raise BundleError(f"{name} has {item[:80]!r}", path=path, hint=f"known: {', '.join(members)}")
    if options.max_ports < 1:
        raise BundleError("max_ports must be 1 or more", path=path)
    for text in options.sensitive_paths:
        _canonical(path, "sensitive_paths", text, canonical_path)
    for text in options.wide_domains:
        _canonical(path, "wide_domains", text, canonical_host)
    return options


def _canonical(path: Path, name: str, text: str, canonical: Any) -> None:
    try:
        found = canonical(text)
    except CanonicalizationError as error:
        raise BundleError(f"{name}: {error.message}", path=path) from None
    if str(found) != text or (name == "wide_domains" and not isinstance(found, Host)):
        raise BundleError(f"{name} has {text[:80]!r}", path=path, hint=f"write {str(found)!r}, or a name of a domain")
