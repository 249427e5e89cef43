"""``@requires_approval``: a permit that holds only once a named person has signed the call.

The annotation names one approver or more, separated by commas, any of whom may approve. ``@approval_expires`` says how
long a signature holds. ``bundle.toml`` declares each approver's public key:

    [approvers]
    security-desk = "<base64 of the 32 bytes of an Ed25519 public key>"
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cedarbox.errors import BundleError
from cedarbox.policy.source import Statement, locate
from cedarbox.times import duration_s

if TYPE_CHECKING:
    from cedarbox.policy.bundle import Policy

__all__ = [
    "DEFAULT_EXPIRY_S",
    "EXPIRES",
    "REQUIRES",
    "Approval",
    "approval_of",
    "check_approval",
    "combined",
    "declared_approvers",
    "is_name",
]

DEFAULT_EXPIRY_S: Final = 900
"""How long a signature holds when the policy does not say, in seconds."""

REQUIRES: Final = "requires_approval"
"""The annotation that names who may approve."""
EXPIRES: Final = "approval_expires"
"""The annotation that says how long a signature holds."""

_MAX_EXPIRY_S: Final = 7 * 86_400  # longer is no approval of a call, it is a policy
_ACTION: Final = "invokeTool"
# A name is shown, recorded and signed; it is never part of a path, and could not be.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Approval:
    """What an allowed call still lacks: a signature.

    Attributes:
        approvers: Whose signature will do, each by its name in ``bundle.toml``; sorted. Nobody's when it is empty.
        expires_s: How long the signature holds, in seconds.
    """

    approvers: tuple[str, ...]
    expires_s: int


def is_name(text: str) -> bool:
    """Whether a text can be the name of an approver."""
    return _NAME.fullmatch(text) is not None


def declared_approvers(path: Path, text: str, table: object) -> dict[str, str]:
    """Check ``[approvers]`` and return its keys by name.

    Args:
        path: The ``bundle.toml``, for messages.
        text: Its text.
        table: What TOML made of the table; None when there is none.

    Raises:
        BundleError: A name or a key cannot be used, or two names have one key.
    """
    if table is None:
        return {}
    if not isinstance(table, Mapping):
        raise BundleError("approvers must be a table of names and keys", path=path, hint="write it below [approvers]")
    owners: dict[bytes, str] = {}
    for name, value in table.items():
        line = _line_of(text, name)
        if not is_name(name):
            hint = "letters, digits, dots, hyphens and underscores, 64 at most"
            raise BundleError(f"the approver {name[:80]!r} has no usable name", path=path, line=line, hint=hint)
        key = _raw_key(value)
        if key is None:
            hint = "expected the base64 of the 32 bytes of an Ed25519 public key"
            raise BundleError(f"the key of the approver {name!r} is not a public key", path=path, line=line, hint=hint)
        if (owner := owners.setdefault(key, name)) != name:
            hint = "each approver has a key of their own"
            raise BundleError(f"the approver {name!r} has the key of {owner!r}", path=path, line=line, hint=hint)
    return dict(table)


def check_approval(path: Path, policy: Policy, statement: Statement, approvers: Mapping[str, str]) -> None:
    """Refuse a policy whose annotations ask for an approval in a way that could not be held to.

    Args:
        path: The file, for messages.
        policy: The policy.
        statement: Its text.
        approvers: The declared ones.

    Raises:
        BundleError: Names what is wrong and where.
    """

    def wrong(annotation: str, message: str, hint: str) -> BundleError:
        line, column = locate(statement, f"`{annotation}`")
        return BundleError(f"@{annotation} {message}", path=path, line=line, column=column, hint=hint)

    for name in policy.annotations:
        # Cedar takes any annotation, so a misspelt one would be a permit without an approval.
        if "approv" in name.lower() and name not in {REQUIRES, EXPIRES}:
            raise wrong(name, "is not an annotation that cedarbox knows", f"known: @{REQUIRES}, @{EXPIRES}")
    if REQUIRES not in policy.annotations:
        if EXPIRES in policy.annotations:
            raise wrong(EXPIRES, f"stands without @{REQUIRES}", f"name the approvers with @{REQUIRES}")
        return
    if policy.effect != "permit":
        raise wrong(REQUIRES, "stands on a forbid, which nobody can approve", "put it on the permit")
    scope = policy.est["action"]
    if scope["op"] != "==" or policy.actions != {_ACTION}:
        hint = f'only a call can wait for a person: write action == Sandbox::Action::"{_ACTION}"'
        raise wrong(REQUIRES, f"stands on a policy whose scope is not {_ACTION} alone", hint)
    names = _names(policy.annotations[REQUIRES])
    hint = f"declared in bundle.toml: {', '.join(sorted(approvers)) or 'none; add [approvers]'}"
    if not all(names):
        raise wrong(REQUIRES, "needs the names of approvers, separated by commas", hint)
    for name in names:
        if name not in approvers:
            raise wrong(REQUIRES, f"names {name[:80]!r}, who is no declared approver", hint)
    if _seconds(policy.annotations.get(EXPIRES)) is None:
        hint = f"a number and s, m, h, d or w, such as 15m, at most {_MAX_EXPIRY_S // 3600}h"
        raise wrong(EXPIRES, f"is {policy.annotations[EXPIRES][:80]!r}, which is no duration", hint)


def approval_of(annotations: Mapping[str, str]) -> Approval | None:
    """Return what a checked policy asks for, given its annotations; None when it asks for no approval."""
    if REQUIRES not in annotations:
        return None
    names = tuple(sorted(set(_names(annotations[REQUIRES]))))
    return Approval(names, _seconds(annotations.get(EXPIRES)) or 0)


def combined(asked: Sequence[Approval]) -> Approval | None:
    """Return what satisfies all of them: approvers that each of them names, and the shortest time.

    A permit more can therefore never make an approval easier. No approver at all is left when they name different ones.
    """
    if not asked:
        return None
    common = frozenset(asked[0].approvers).intersection(*(each.approvers for each in asked))
    return Approval(tuple(sorted(common)), min(each.expires_s for each in asked))


def _names(value: str) -> list[str]:
    return [name.strip() for name in value.split(",")]


def _seconds(value: str | None) -> int | None:
    if value is None:
        return DEFAULT_EXPIRY_S
    seconds = duration_s(value) or 0
    return seconds if 0 < seconds <= _MAX_EXPIRY_S else None


def _raw_key(value: object) -> bytes | None:
    if not isinstance(value, str):
        return None
    try:
        raw = b64decode(value, validate=True)
        Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        return None
    # One key has one spelling, or two spellings could pass for two people.
    return raw if b64encode(raw).decode() == value else None


def _line_of(text: str, name: str) -> int | None:
    pattern = re.compile(rf"[\s{{,]*[\"']?{re.escape(name)}[\"']?\s*=")
    hits = [number for number, line in enumerate(text.splitlines(), start=1) if pattern.match(line)]
    return hits[-1] if hits else None
