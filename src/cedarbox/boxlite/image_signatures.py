"""Signatures of images in cosign's format, checked without a network against public keys of the site.

The format is cosign's specs/SIGNATURE_SPEC.md: a payload of the simple signing form, that names the digest of a
manifest, and a signature over its bytes. In a layout they stand as the layers of a manifest that is tagged
``sha256-<hex>.sig``; ``cosign save`` marks that manifest with the annotation ``kind``. Keys are ECDSA on P-256 with
SHA-256, as ``cosign generate-key-pair`` makes them, or Ed25519. Certificates, bundles and transparency logs are not
looked at: a signature counts because a key that the site names made it, and for nothing else.

What is signed is one manifest. A signature of a multi-platform index, or of a manifest in whose place another had to be
written, says nothing about the manifest that boots, so it does not count here.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from cedarbox.boxlite.image_documents import Documents
from cedarbox.boxlite.references import DIGEST
from cedarbox.errors import ConfigurationError, ImageError
from cedarbox.files import open_regular, write_file

__all__ = [
    "MAX_SIGNATURES",
    "ImageKey",
    "ImageSignature",
    "is_signature",
    "load_keys",
    "read_signature",
    "save_signatures",
    "signature_tag",
    "signatures_in",
    "stored_signatures",
    "unverified",
]

ImageKey = EllipticCurvePublicKey | Ed25519PublicKey
"""A public key that may sign images."""

_TYPE: Final = "cosign container image signature"
_PAYLOAD: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIGNATURE: Final = "dev.cosignproject.cosign/signature"
_ANNOTATION: Final = "dev.cosignproject.cosign/"
MAX_SIGNATURES: Final = 16
"""Signatures of one image that are kept."""

_MAX_BYTES: Final = 64 * 1024
_MAX_KEY: Final = 16 * 1024
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class ImageSignature:
    """A signature that was found; by itself it proves nothing.

    Attributes:
        payload: What was signed, byte for byte.
        signature: The signature, as the key's algorithm has it (ECDSA: DER).
    """

    payload: bytes
    signature: bytes


def load_keys(paths: Iterable[Path]) -> tuple[ImageKey, ...]:
    """Read public keys.

    Args:
        paths: PEM files, one key in each.

    Raises:
        ConfigurationError: One cannot be read, or is not a public key on P-256 or Ed25519.
    """
    return tuple(_key(path) for path in paths)


def _key(path: Path) -> ImageKey:
    hint = "give the public key that cosign generate-key-pair wrote, such as cosign.pub"
    try:
        with open_regular(path, follow=True) as stream:
            key = load_pem_public_key(stream.read(_MAX_KEY))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})", hint=hint) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{path}: it is not a public key in PEM", hint=hint) from None
    if isinstance(key, Ed25519PublicKey) or (
        isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    ):
        return key
    raise ConfigurationError(f"{path}: the key is neither on P-256 nor Ed25519", hint=hint)


def signature_tag(digest: str) -> str:
    """Return the tag under which cosign stores the signatures of a manifest."""
    return f"{digest.replace(':', '-')}.sig"


def is_signature(descriptor: Mapping[str, Any]) -> bool:
    """Return whether an index's entry is a manifest of cosign's, and no image."""
    notes = descriptor.get("annotations")
    if not isinstance(notes, dict):
        return False
    names = (notes.get("org.opencontainers.image.ref.name"), notes.get("io.containerd.image.name"))
    kind = str(notes.get("kind"))
    if kind.startswith(_ANNOTATION):
        return kind not in {f"{_ANNOTATION}image", f"{_ANNOTATION}imageIndex"}
    tags = (name.rpartition(":")[2] for name in names if isinstance(name, str))
    return any(
        tag.endswith((".sig", ".att", ".sbom")) and DIGEST.fullmatch(tag.rpartition(".")[0].replace("-", ":", 1))
        for tag in tags
    )


def signatures_in(documents: Documents, index: Mapping[str, Any]) -> tuple[ImageSignature, ...]:
    """Return the signatures that the entries of an index hold, whatever they are signatures of.

    Raises:
        ImageError: One is malformed, or does not match its digest.
    """
    found: list[ImageSignature] = []
    for descriptor in index.get("manifests") or ():
        if not (isinstance(descriptor, dict) and is_signature(descriptor)):
            continue
        layers = documents.blob_document(descriptor).get("layers")
        for layer in layers if isinstance(layers, list) else ():
            digest, size = documents.described(layer)
            text = (layer.get("annotations") or {}).get(_SIGNATURE) if isinstance(layer, dict) else None
            if layer["mediaType"] != _PAYLOAD or text is None:
                continue
            if size > _MAX_BYTES or len(found) >= MAX_SIGNATURES:
                documents.fail(f"it has more than {MAX_SIGNATURES} signatures, or one of more than {_MAX_BYTES} bytes")
            found.append(ImageSignature(documents.blob(layer), _decoded(text, documents.label, digest)))
    return tuple(found)


def read_signature(signature: Path, payload: Path) -> ImageSignature:
    """Read what ``cosign sign --output-signature`` and ``--output-payload`` wrote.

    Raises:
        ImageError: One cannot be read, or the signature is not base64.
    """
    contents = []
    for path in (signature, payload):
        try:
            with open_regular(path, follow=True) as stream:
                contents.append(stream.read(_MAX_BYTES + 1))
        except OSError as error:
            raise ImageError(f"{path}: cannot be read ({error.strerror})", hint="check the path") from None
        if len(contents[-1]) > _MAX_BYTES:
            raise ImageError(f"{path}: it is larger than {_MAX_BYTES} bytes", hint="give the file that cosign wrote")
    return ImageSignature(contents[1], _decoded(contents[0].decode("ascii", "replace").strip(), str(signature), "it"))


def _decoded(text: object, label: str, what: str) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError):
        raise ImageError(f"{label}: the signature of {what} is not base64", hint="sign the image again") from None


def unverified(signatures: Sequence[ImageSignature], digest: str, keys: Sequence[ImageKey]) -> str:
    """Return why none of the signatures shows that a key of the site signed a manifest; empty when one does.

    Args:
        signatures: What was found.
        digest: ``sha256:…`` of the manifest that boots.
        keys: The keys that the site trusts.
    """
    if not keys:
        return "no key is trusted"
    if not signatures:
        return "there is no signature"
    reasons = [_wrong(signature, digest, keys) for signature in signatures]
    return "" if "" in reasons else "; ".join(dict.fromkeys(reasons))


def _wrong(signature: ImageSignature, digest: str, keys: Sequence[ImageKey]) -> str:
    # Nothing of the payload is read before its signature was verified.
    if not any(_made_by(key, signature) for key in keys):
        return "a signature is by no trusted key, or not of its payload"
    try:
        critical = json.loads(signature.payload, object_pairs_hook=_once)["critical"]
        kind, signed = critical["type"], critical["image"]["docker-manifest-digest"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "a payload is not of the simple signing form"
    if kind != _TYPE:
        return f"a payload is of the type {str(kind)[:80]!r}, not {_TYPE!r}"
    return "" if signed == digest else f"a signature is of {str(signed)[:80]}"


def _made_by(key: ImageKey, signature: ImageSignature) -> bool:
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature.signature, signature.payload)
        else:
            key.verify(signature.signature, signature.payload, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two readers could each take another of two values under one name.
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name is there twice")
    return dict(pairs)


def save_signatures(path: Path, signatures: Sequence[ImageSignature]) -> None:
    """Write signatures to a file of the image store, in one step.

    Raises:
        OSError: They cannot be written; the old ones are as they were.
    """
    encoded = [
        {"payload": base64.b64encode(one.payload).decode(), "signature": base64.b64encode(one.signature).decode()}
        for one in signatures
    ]
    write_file(path, json.dumps({"version": _VERSION, "signatures": encoded}, sort_keys=True).encode(), 0o600)


def stored_signatures(path: Path) -> tuple[ImageSignature, ...]:
    """Read what :func:`save_signatures` wrote; a missing file holds none.

    Raises:
        ImageError: It is damaged.
    """
    try:
        with open_regular(path, follow=True) as stream:
            data = stream.read(4 * MAX_SIGNATURES * _MAX_BYTES)
        document = json.loads(data)
        if document["version"] != _VERSION:
            raise ValueError(f"it is of version {document['version']!r}")  # noqa: TRY301 - one place tells it all
        return tuple(
            ImageSignature(base64.b64decode(one["payload"]), base64.b64decode(one["signature"]))
            for one in document["signatures"]
        )
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = str(error)[:200]
        raise ImageError(
            f"{path}: the signatures are damaged ({what})", hint="import the image with its signature again"
        ) from None
