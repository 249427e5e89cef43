"""Signed policy bundles for tests, with real keys on disk."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.bundles import PERMIT_ALL, write_bundle

from cedarbox.ed25519 import load_private_key, write_key_pair
from cedarbox.policy import SCHEMA_VERSION, PolicyBundle
from cedarbox.policy.signing import SIGNATURE_FILE, Envelope, Manifest, sign

__all__ = ["CREATED", "make_key", "manifest_of", "metadata", "seal", "signed_bundle"]

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def make_key(directory: Path, name: str = "release") -> tuple[Ed25519PrivateKey, Path]:
    """Make a key pair below ``directory``; return the private key and the path of the public one."""
    directory.mkdir(parents=True, exist_ok=True)
    public, _ = write_key_pair(directory / f"{name}.key")
    return load_private_key(directory / f"{name}.key")[0], public


def metadata(revision: int = 1, *, name: str = "test", schema: int = SCHEMA_VERSION) -> str:
    """Return a bundle.toml."""
    return f'name = "{name}"\nrevision = {revision}\nschema = {schema}\n'


def manifest_of(directory: Path, *, expires: datetime | None = None) -> Manifest:
    """Return the manifest of a bundle as it is now."""
    bundle = PolicyBundle.load(directory)
    return Manifest(bundle.name, bundle.revision, bundle.files, SCHEMA_VERSION, CREATED, expires)


def seal(directory: Path, payload: bytes, *keys: Ed25519PrivateKey) -> Path:
    """Put a payload, whatever it is, into a bundle with signatures by these keys; return the directory."""
    envelope = Envelope(payload, {})
    for key in keys:
        envelope = sign(envelope, key)
    (directory / SIGNATURE_FILE).write_bytes(envelope.to_bytes())
    return directory


def signed_bundle(
    directory: Path,
    *keys: Ed25519PrivateKey,
    policies: str = PERMIT_ALL,
    revision: int = 1,
    expires: datetime | None = None,
) -> Path:
    """Write a bundle signed by these keys, and return its directory."""
    write_bundle(directory, policies, metadata=metadata(revision))
    return seal(directory, manifest_of(directory, expires=expires).payload(), *keys)
