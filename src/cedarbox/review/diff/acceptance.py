"""``accepted.toml``: widenings that someone answers for, each named exactly, signed, and for a time.

An entry accepts one widening of one change: of this bundle, for this action and kind of resource, for these principals,
by this policy. It holds the digest of that policy as it is to be, and of all that decisions on the action rested on
before and after. So it says nothing about another policy, another change to the same end, or the same change on top of
others, and it is used up once the change is in the base.

Signatures are Ed25519 over the pre-authentication encoding of DSSE with a type of their own: no signature of a bundle
or of anything else is one here, nor the other way round.
"""

from __future__ import annotations

import json
import tomllib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cedarbox.ed25519 import pae
from cedarbox.errors import BundleError
from cedarbox.policy.signing import key_id
from cedarbox.review.limited import limited_text
from cedarbox.times import in_utc

__all__ = ["MAX_AGE", "PAYLOAD_TYPE", "Accepted", "Subject", "Verdict", "judge", "read_accepted", "toml_entry"]

PAYLOAD_TYPE: Final = "application/vnd.cedarbox.acceptance+json"
"""The type of what is signed (DSSE)."""

MAX_AGE: Final = timedelta(days=366)
"""How long an acceptance can count."""

_SKEW: Final = timedelta(days=1)
_MAX_FILE: Final = 4 * 1024 * 1024
_MAX_TEXT: Final = 1000
_MAKE: Final = "make it anew with cedarbox policy accept"


@dataclass(frozen=True, slots=True)
class Subject:
    """Exactly one widening.

    Attributes:
        bundle: Name of the bundle, from ``bundle.toml``; where it changes, the old one.
        action: The action, such as ``connect``; ``bundle.toml`` for what no policy says.
        resource: The type of the resource, such as ``Host``; the key for ``bundle.toml``.
        principals: Ids of the agents, sorted; for plain Cedar the type of the principal in brackets.
        policy: Id of the policy that does it; ``entities.json`` for what a change of the agents does.
        policy_digest: Of the effect of that policy as it is to be, of the old one when it is removed.
        base: Of all that decisions on the action rested on before.
        head: Of all that they rest on after.
    """

    bundle: str
    action: str
    resource: str
    principals: tuple[str, ...]
    policy: str
    policy_digest: str
    base: str
    head: str

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON values."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"principals": list(self.principals)}


@dataclass(frozen=True, slots=True)
class Accepted:
    """One entry, as it stands in the file.

    Attributes:
        subject: What it accepts.
        reason: Why, in one line.
        expires: From when on it counts no more, in UTC to the second.
        key: Id of the key that is said to have signed.
        signature: The signature.
        line: 1-based line of the entry; 0 for a new one.
    """

    subject: Subject
    reason: str
    expires: datetime
    key: str
    signature: bytes = b""
    line: int = field(default=0, compare=False)

    def payload(self) -> bytes:
        """Return what is signed: everything but the signature, in canonical JSON."""
        document = {**self.subject.to_json(), "reason": self.reason, "expires": in_utc(self.expires), "key": self.key}
        return rfc8785.dumps(document)

    @classmethod
    def sign(cls, subject: Subject, reason: str, expires: datetime, key: Ed25519PrivateKey) -> Accepted:
        """Accept a widening.

        Args:
            subject: The widening.
            reason: Why, in one line.
            expires: From when on it counts no more.
            key: Whose acceptance it is.
        """
        entry = cls(subject, reason, expires, key_id(key.public_key()))
        signature = key.sign(pae(PAYLOAD_TYPE, entry.payload()))
        return cls(subject, reason, expires, entry.key, signature)

    def signed(self, keys: Mapping[str, Ed25519PublicKey]) -> bool:
        """Whether one of these keys signed it, under its own name."""
        key = keys.get(self.key)
        if key is None:
            return False
        try:
            key.verify(self.signature, pae(PAYLOAD_TYPE, self.payload()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the entries say of the widenings that were found.

    Attributes:
        accepted: The entry that accepts each of them, for those that have one.
        refused: The entries that are no acceptance, and why.
        unused: Good entries that accept nothing of what was found.
    """

    accepted: Mapping[Subject, Accepted]
    refused: Sequence[tuple[Accepted, str]]
    unused: Sequence[Accepted]


def judge(
    entries: Iterable[Accepted],
    found: Iterable[Subject],
    keys: Iterable[Ed25519PublicKey],
    now: datetime,
    bundles: frozenset[str],
) -> Verdict:
    """Hold the entries against the widenings that were found.

    Args:
        entries: What the file has.
        found: The widenings.
        keys: Whose acceptance counts.
        now: The time, with its zone.
        bundles: Names of the bundles that were compared; entries about others are not looked at.
    """
    known = {key_id(key): key for key in keys}
    wanted = set(found)
    accepted: dict[Subject, Accepted] = {}
    refused: list[tuple[Accepted, str]] = []
    unused: list[Accepted] = []
    for entry in entries:
        if entry.subject.bundle not in bundles:
            continue
        if entry.key not in known:
            refused.append((entry, "it is signed by no acceptor that was given"))
        elif not entry.signed(known):
            refused.append((entry, "its signature is false: the entry was changed, or signed for something else"))
        elif now >= entry.expires:
            refused.append((entry, f"it expired at {in_utc(entry.expires)}"))
        elif entry.expires - now > MAX_AGE + _SKEW:
            # Whoever signs can only do so by a clock that is wrong, or past the command.
            why = f"it would count until {in_utc(entry.expires)}, which is more than {MAX_AGE.days} days from now"
            refused.append((entry, why))
        elif entry.subject in wanted:
            accepted[entry.subject] = entry
        else:
            unused.append(entry)
    return Verdict(accepted, refused, unused)


def read_accepted(path: Path) -> tuple[Accepted, ...]:
    """Read a file of entries. No signature is checked.

    Raises:
        BundleError: It cannot be read, or an entry is not what :func:`toml_entry` writes.
    """
    text = limited_text(path, _MAX_FILE, hint="remove what is used up")
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BundleError(f"not TOML: {str(error)[:200]}", path=path, hint=_MAKE) from None
    tables = document.get("accepted", [])
    if document.keys() - {"accepted"} or not isinstance(tables, list):
        raise BundleError("expected [[accepted]] tables and nothing else", path=path, hint=_MAKE)
    heads = [number for number, line in enumerate(text.splitlines(), 1) if line.strip() == "[[accepted]]"]
    lines = heads if len(heads) == len(tables) else [1] * len(tables)
    return tuple(_entry(path, line, table) for line, table in zip(lines, tables, strict=True))


def toml_entry(entry: Accepted) -> str:
    """Return an entry as text to be put at the end of the file."""
    told = {**entry.subject.to_json(), "reason": entry.reason, "expires": in_utc(entry.expires), "key": entry.key}
    told["signature"] = b64encode(entry.signature).decode()
    return "\n[[accepted]]\n" + "".join(f"{name} = {_toml(value)}\n" for name, value in told.items())


def _entry(path: Path, line: int, table: object) -> Accepted:
    names = {each.name for each in fields(Subject)} | {"reason", "expires", "key", "signature"}
    if not isinstance(table, dict) or table.keys() != names:
        wanted = ", ".join(sorted(names))
        raise BundleError(f"an entry must have the keys {wanted} and no others", path=path, line=line, hint=_MAKE)
    principals = table["principals"]
    texts = [table[name] for name in names - {"principals"}]
    if not isinstance(principals, list) or not all(isinstance(each, str) for each in [*texts, *principals]):
        raise BundleError("an entry holds text, and a list of text for principals", path=path, line=line, hint=_MAKE)
    if any(len(each) > _MAX_TEXT for each in texts) or not table["reason"].strip():
        raise BundleError("an entry without a reason, or with too long a text", path=path, line=line, hint=_MAKE)
    subject = Subject(**{each.name: table[each.name] for each in fields(Subject)} | {"principals": tuple(principals)})
    expires, signature = _moment(table["expires"]), _bytes(table["signature"])
    if expires is None or signature is None:
        message = "expires must be like 2026-01-31T12:00:00Z, and signature be base64"
        raise BundleError(message, path=path, line=line, hint=_MAKE)
    return Accepted(subject, table["reason"], expires, table["key"], signature, line)


def _moment(text: str) -> datetime | None:
    try:
        at = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    # One moment has one spelling, as it is signed.
    return at if in_utc(at) == text else None


def _bytes(text: str) -> bytes | None:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return None


def _toml(value: str | list[str]) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # A basic string of TOML escapes as JSON does, but for the character DEL and pairs of surrogates.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
