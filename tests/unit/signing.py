"""Signatures of images for tests, made in cosign's published format; no cosign is run."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.unit.imaging import CONFIG, MANIFEST, Image, dumped

__all__ = ["Signer", "payload_of", "signed_files"]

_PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"


def payload_of(digest: str, *, kind: str = "cosign container image signature") -> bytes:
    """The payload as cosign writes it."""
    critical = {
        "identity": {"docker-reference": "registry.corp.example/agents/base"},
        "image": {"docker-manifest-digest": digest},
        "type": kind,
    }
    return json.dumps({"critical": critical, "optional": None}, separators=(",", ":")).encode()


class Signer:
    """A private key, on P-256 or Ed25519."""

    def __init__(self, *, ed25519: bool = False) -> None:
        self.key: EllipticCurvePrivateKey | Ed25519PrivateKey = (
            Ed25519PrivateKey.generate() if ed25519 else generate_private_key(SECP256R1())
        )

    def sign(self, payload: bytes) -> bytes:
        """Return the signature in base64."""
        if isinstance(self.key, Ed25519PrivateKey):
            return base64.b64encode(self.key.sign(payload))
        return base64.b64encode(self.key.sign(payload, ECDSA(SHA256())))

    def public(self, path: Path) -> Path:
        """Write the public key as PEM."""
        path.write_bytes(self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return path


def signed_files(
    image: Image, payload: bytes, signature: bytes, *, saved: bool = True, tag: str | None = None
) -> Mapping[str, bytes]:
    """The files of a layout with an image and a signature, as ``cosign save`` or ``oras copy`` lay it out."""
    layer: dict[str, Any] = image.put(payload, _PAYLOAD)
    layer["annotations"] = {"dev.cosignproject.cosign/signature": signature.decode()}
    config = image.put(b'{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]}}', CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
    entry = image.put(dumped(manifest), MANIFEST)
    name = tag or f"{image.digest.replace(':', '-')}.sig"
    if saved:
        entry["annotations"] = {"kind": "dev.cosignproject.cosign/sigs"}
    else:
        entry["annotations"] = {"org.opencontainers.image.ref.name": name}
    kind = {"kind": "dev.cosignproject.cosign/image"} if saved else {}
    notes = {"annotations": {"io.containerd.image.name": "agents/base:1", **kind}}
    return image.files({**image.entry, **notes}, entry)
