"""Signatures of policy bundles: what is signed, and whose signatures count.

A signature lies in the bundle as ``bundle.sig.json``, an envelope of DSSE 1.0 (Dead Simple Signing Envelope,
https://github.com/secure-systems-lab/dsse). Its payload, the manifest, names every file that decides with its SHA-256.
Signatures are Ed25519 (RFC 8032). Envelope and payload have one form only, the canonical JSON of RFC 8785, so that no
byte of either can change and mean the same. DSSE would also allow URL-safe base64, spaces and unknown keys; here they
are refused.

Nothing here reads a clock or a disk.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cedarbox.ed25519 import pae
from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.times import in_utc

__all__ = [
    "MAX_ENVELOPE",
    "PAYLOAD_TYPE",
    "SIGNATURE_FILE",
    "Envelope",
    "Manifest",
    "Signers",
    "compare",
    "key_id",
    "read_envelope",
    "read_manifest",
    "sign",
    "verify",
]

SIGNATURE_FILE: Final = "bundle.sig.json"
"""Name of the envelope inside a bundle."""

PAYLOAD_TYPE: Final = "application/vnd.cedarbox.bundle+json"

MAX_ENVELOPE: Final = 1024 * 1024
"""Largest envelope that is read, in bytes: room for the thousand files that a bundle may have."""

_MAX_SIGNATURES: Final = 64
_RESIGN: Final = "sign the bundle again with cedarbox policy sign"
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_is_time: Final = re.compile(r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII).fullmatch
_is_sha256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII).fullmatch


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a signature is about.

    Attributes:
        name: Name of the bundle.
        revision: Its revision.
        files: SHA-256 in hex of each file that decides, by its name.
        schema: Version of the Cedar schema that it was written for.
        created: When it was first signed, in UTC to the second.
        expires: From when on it does not count any more, likewise; None for never.
    """

    name: str
    revision: int
    files: Mapping[str, str]
    schema: int
    created: datetime
    expires: datetime | None = None

    def payload(self) -> bytes:
        """Return the one form of this manifest that is signed.

        Raises:
            ValueError: A value cannot be told in JSON, such as a revision of 2**53 or more.
        """
        document: dict[str, Any] = {
            "name": self.name,
            "revision": self.revision,
            "files": dict(self.files),
            "schema": self.schema,
            "created": in_utc(self.created),
        }
        if self.expires is not None:
            document["expires"] = in_utc(self.expires)
        return rfc8785.dumps(document)

    def says_same(self, other: Manifest) -> bool:
        """Tell whether both are about the same content, whenever they were made and however long they last."""
        return (self.name, self.revision, self.schema, dict(self.files)) == (
            other.name,
            other.revision,
            other.schema,
            dict(other.files),
        )


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload with its signatures, none of them checked.

    Attributes:
        payload: The bytes that are signed.
        signatures: Each signature by the id of the key that is said to have made it.
    """

    payload: bytes
    signatures: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """Return the one form of this envelope, with a line feed at its end."""
        signatures = [{"keyid": key, "sig": _b64(value)} for key, value in sorted(self.signatures.items())]
        document: dict[str, Any] = {
            "payload": _b64(self.payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": signatures,
        }
        return rfc8785.dumps(document) + b"\n"


@dataclass(frozen=True, slots=True)
class Signers:
    """Whose signatures count, and how many are needed.

    Attributes:
        keys: The public keys by their id.
        threshold: How many different ones of them must have signed.
    """

    keys: Mapping[str, Ed25519PublicKey]
    threshold: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= len(self.keys):
            raise ConfigurationError(
                f"{self.threshold} signatures are asked for and {len(self.keys)} different public keys are given",
                hint="give at least as many keys as signatures, and ask for one or more",
            )

    @classmethod
    def of(cls, keys: Iterable[Ed25519PublicKey], threshold: int = 1) -> Signers:
        """Take these keys; one that is given twice counts once.

        Raises:
            ConfigurationError: The threshold is below 1 or above the number of different keys.
        """
        return cls({key_id(key): key for key in keys}, threshold)


def key_id(key: Ed25519PublicKey) -> str:
    """Return the id of a key: ``sha256:`` and the digest of its DER SubjectPublicKeyInfo in hex."""
    return "sha256:" + sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def sign(envelope: Envelope, key: Ed25519PrivateKey) -> Envelope:
    """Return the envelope with a signature by this key; an earlier one by the same key is replaced."""
    signature = key.sign(pae(PAYLOAD_TYPE, envelope.payload))
    return Envelope(envelope.payload, {**envelope.signatures, key_id(key.public_key()): signature})


def read_envelope(data: bytes, path: Path) -> Envelope:
    """Parse an envelope. Its signatures are not checked.

    Args:
        data: The content of the signature file.
        path: That file, for messages.

    Raises:
        BundleError: It is not exactly what :meth:`Envelope.to_bytes` writes.
    """
    document = _document(data, path, "the envelope", {"payload", "payloadType", "signatures"})
    if document["payloadType"] != PAYLOAD_TYPE:
        raise BundleError(f"the payload type is not {PAYLOAD_TYPE}", path=path, hint=_RESIGN)
    items = document["signatures"]
    if not isinstance(items, list) or not 1 <= len(items) <= _MAX_SIGNATURES:
        raise BundleError(f"expected a list of 1 to {_MAX_SIGNATURES} signatures", path=path, hint=_RESIGN)
    signatures: dict[str, bytes] = {}
    for item in items:
        if not isinstance(item, dict) or item.keys() != {"keyid", "sig"} or not isinstance(item["keyid"], str):
            raise BundleError('a signature must be {"keyid": …, "sig": …}', path=path, hint=_RESIGN)
        if item["keyid"] in signatures:
            raise BundleError(f"two signatures of one key, {_short(item['keyid'])}", path=path, hint=_RESIGN)
        signatures[item["keyid"]] = _unb64(item["sig"], path)
    envelope = Envelope(_unb64(document["payload"], path), signatures)
    if envelope.to_bytes() != data:
        raise BundleError("the envelope is not canonical JSON with a line feed at its end", path=path, hint=_RESIGN)
    return envelope


def verify(envelope: Envelope, signers: Signers, path: Path) -> tuple[str, ...]:
    """Check the signatures of an envelope.

    A signature of a key that is not among the signers is passed over. One that names a signer and is false is not, nor
    is one that a signer made under another name: something was changed then.

    Args:
        envelope: The envelope.
        signers: Whose signatures count.
        path: The signature file, for messages.

    Returns:
        The ids of the signers whose signatures hold, sorted: as many as the threshold, or more.

    Raises:
        BundleError: A signature of a signer is false, or too few signed.
    """
    message = pae(PAYLOAD_TYPE, envelope.payload)
    held = set()
    for name, signature in envelope.signatures.items():
        if name in signers.keys:
            if not _holds(signers.keys[name], signature, message):
                raise BundleError(f"the signature of key {_short(name)} is false", path=path, hint=_RESIGN)
            held.add(name)
        elif any(_holds(key, signature, message) for key in signers.keys.values()):
            raise BundleError(f"the signature of key {_short(name)} is by another key", path=path, hint=_RESIGN)
    if len(held) < signers.threshold:
        others = ", ".join(_short(name) for name in sorted(envelope.signatures.keys() - held)) or "nobody"
        raise BundleError(
            f"signed by {len(held)} of the trusted keys, {signers.threshold} needed; others that signed: {others}",
            path=path,
            hint="have it signed by a key that this site trusts",
        )
    return tuple(sorted(held))


def read_manifest(payload: bytes, path: Path) -> Manifest:
    """Parse a payload.

    Args:
        payload: The bytes that were signed.
        path: The signature file, for messages.

    Raises:
        BundleError: It is not exactly what :meth:`Manifest.payload` gives.
    """
    keys = {"name", "revision", "files", "schema", "created"}
    document = _document(payload, path, "the payload", keys, optional={"expires"})
    name, revision, files, schema = (document[key] for key in ("name", "revision", "files", "schema"))
    if not isinstance(name, str) or type(revision) is not int or revision < 0 or type(schema) is not int:
        raise BundleError("the payload has a name, revision or schema of the wrong type", path=path, hint=_RESIGN)
    if not isinstance(files, dict) or not all(isinstance(item, str) and _is_sha256(item) for item in files.values()):
        raise BundleError("the payload has files without a SHA-256 in hex", path=path, hint=_RESIGN)
    expires = _time(document["expires"], path) if "expires" in document else None
    manifest = Manifest(name, revision, files, schema, _time(document["created"], path), expires)
    try:
        canonical = manifest.payload()
    except ValueError:
        canonical = b""
    if canonical != payload:
        raise BundleError("the payload is not canonical JSON", path=path, hint=_RESIGN)
    return manifest


def compare(manifest: Manifest, files: Mapping[str, str], root: Path) -> None:
    """Hold the files of a bundle against its manifest.

    Args:
        manifest: A manifest whose signatures hold.
        files: SHA-256 in hex of each file that decides, by its name, as they were read.
        root: The bundle, for messages.

    Raises:
        BundleError: A file is missing, was added or was changed; the message names it.
    """
    for name in sorted(files.keys() | manifest.files.keys()):
        if name not in manifest.files:
            raise BundleError("the signature does not cover this file", path=root / name, hint=_RESIGN)
        if name not in files:
            raise BundleError("the signature covers this file, and it is missing", path=root / name, hint=_RESIGN)
        if files[name] != manifest.files[name]:
            raise BundleError("it is not what was signed", path=root / name, hint="restore it, or " + _RESIGN)


def _document(
    data: bytes, path: Path, what: str, needed: set[str], *, optional: frozenset[str] | set[str] = frozenset()
) -> dict[str, Any]:
    try:
        document = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_refused)
    except _DuplicateKeyError as error:
        raise BundleError(f"{what} has the key {error} twice", path=path, hint=_RESIGN) from None
    except (ValueError, RecursionError):
        raise BundleError(f"{what} is not JSON that can be read", path=path, hint=_RESIGN) from None
    if not isinstance(document, dict) or not needed <= document.keys() <= needed | optional:
        wanted = ", ".join(sorted(needed))
        raise BundleError(f"{what} must have the keys {wanted} and no others", path=path, hint=_RESIGN)
    return document


class _DuplicateKeyError(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _DuplicateKeyError(repr(key[:80]))
        found[key] = value
    return found


def _refused(constant: str) -> None:
    raise ValueError(constant)


def _time(value: object, path: Path) -> datetime:
    try:
        if isinstance(value, str) and _is_time(value):
            return datetime.strptime(value, _TIME).replace(tzinfo=UTC)
    except ValueError:
        pass
    raise BundleError("the payload has a time that is not like 2026-01-31T12:00:00Z", path=path, hint=_RESIGN)


def _holds(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _b64(data: bytes) -> str:
    return b64encode(data).decode()


def _unb64(text: object, path: Path) -> bytes:
    try:
        if isinstance(text, str):
            return b64decode(text, validate=True)
    except ValueError:
        pass
    raise BundleError("the envelope holds what is not base64", path=path, hint=_RESIGN)


def _short(name: str) -> str:
    return name.encode("ascii", "backslashreplace").decode()[:23]
